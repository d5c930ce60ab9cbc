//! The product's sender among others: both ends, without bytes.
//!
//! What always holds: a run counts once, when it comes for the first time; of none it is said that
//! it has come before it has.
//!
//! Bounds: memory by what was lost and did not come again yet.

use std::collections::BTreeSet;

use ringway_core::{Moment, Span};
use ringway_tunnel_proto::path::{self, Arrivals, Load, Report, Run, SegmentId, Told};

use super::super::REPORT_ENVELOPE;

/// Bytes of a packet that carries nothing.
const PROBE_BYTES: u64 = 100;

/// A packet of ours.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    number: u64,
    run: Option<Run<u32>>,
    tell: Option<(u64, Span)>,
}

/// How one of ours stands.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    /// Bytes a second that the path is believed to pass on.
    pub bandwidth: u64,
    /// Bytes a second at which it is sent.
    pub pacing: u64,
    /// Bytes that may be on their way, and that are.
    pub window: u64,
    /// See `window`.
    pub flying: u64,
    /// The path's own loss.
    pub floor: f64,
}

pub(super) struct Ours {
    sender: path::Sender<u32>,
    arrivals: Arrivals,
    mtu: u64,
    next: u64,
    /// All runs before this came; of later ones, those that did not.
    end: u64,
    missing: BTreeSet<u64>,
    /// Nothing new is written.
    closed: bool,
}

impl Ours {
    pub(super) fn new(now: Moment, mtu: u64) -> Self {
        Self {
            sender: path::Sender::new(now, mtu),
            arrivals: Arrivals::default(),
            mtu,
            next: 0,
            end: 0,
            missing: BTreeSet::new(),
            closed: false,
        }
    }

    #[cfg(feature = "sabotage")]
    pub(super) fn break_rule(&mut self, rule: ringway_tunnel_proto::sabotage::Rule) {
        self.sender.break_rule(rule);
        self.arrivals.break_rule(rule);
    }

    pub(super) fn sender(&self) -> &path::Sender<u32> {
        &self.sender
    }

    pub(super) fn said(&self) -> Said {
        let rate = self.sender.rate();
        Said {
            bandwidth: rate.bandwidth(),
            pacing: rate.pacing().unwrap_or(0),
            window: rate.window(),
            flying: self.sender.bytes().0,
            floor: rate.floor(),
        }
    }

    pub(super) fn wake_at(&self) -> Option<Moment> {
        self.sender.wake_at(!self.closed)
    }

    /// Nothing new is written: what is missing still arrives.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether all that was written has come, and its writer knows.
    pub(super) fn is_whole(&self) -> bool {
        self.end == self.next && self.missing.is_empty() && self.sender.bytes().0 == 0
    }

    pub(super) fn answer_due(&self) -> Option<Moment> {
        self.arrivals.due()
    }

    /// A packet came; whether it brought what was not there yet.
    pub(super) fn arrived(&mut self, now: Moment, bytes: u64, packet: Packet) -> bool {
        self.arrivals.note(now, packet.number, bytes, true);
        if let Some((floor, wait)) = packet.tell {
            self.arrivals.wanted(floor, wait);
        }
        let Some(run) = packet.run else { return false };
        if run.start < self.end {
            return self.missing.remove(&run.start);
        }
        self.missing.extend(self.end..run.start);
        self.end = run.start + 1;
        true
    }

    pub(super) fn answer(&mut self, now: Moment, each: impl FnMut(&[u8])) {
        self.arrivals.report(now, (self.mtu - REPORT_ENVELOPE) as usize, each);
    }

    pub(super) fn heard(&mut self, now: Moment, body: &[u8]) {
        let report = Report::read(body).expect("we wrote it");
        let Self { end, missing, .. } = self;
        let told = |told| {
            if let Told::Arrived(run) = told {
                let came = run.start < *end && !missing.contains(&run.start);
                assert!(came, "a run is said to have come that has not");
            }
        };
        self.sender.heard(now, &report, told).expect("an honest receiver");
    }

    pub(super) fn send(&mut self, now: Moment, mut put: impl FnMut(u64, Packet)) {
        if self.sender.probe(now, |_| {}) {
            self.put(now, None, &mut put);
        }
        while self.sender.may_send(now) {
            let again = self.sender.again(now, usize::MAX, |_| true);
            if again.is_none() && self.closed {
                return self.sender.note_idle();
            }
            let segment = again.unwrap_or_else(|| {
                self.next += 1;
                self.sender.begin(Run { flow: 0, start: self.next - 1, len: 1 })
            });
            self.put(now, Some(segment), &mut put);
        }
    }

    fn put(&mut self, now: Moment, segment: Option<SegmentId>, put: &mut impl FnMut(u64, Packet)) {
        let run = segment.map(|segment| self.sender.run(segment));
        let bytes = run.map_or(PROBE_BYTES, |_| self.mtu);
        let tell = self.sender.to_tell(now, false);
        let number = self.sender.send(now, bytes as u32, Load { segment, word: None });
        put(bytes, Packet { number, run, tell });
    }
}
