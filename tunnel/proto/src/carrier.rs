//! What a session knows of one carrier: how long its round trip takes, and whether it lives.
//!
//! A carrier over TCP never says that it has died, it falls silent. So whoever has something on the
//! way asks now and then (PING) and judges by the answer: a carrier from which nothing was heard
//! since is *suspect*; one that talks but does not answer is, later. A suspect gets nothing new,
//! and what was on it goes again by others. Anything that it answers makes it good again.
//!
//! How much may be on its way by it is what its path takes (`delivery.rs`); beyond that it is given
//! no bulk.
//!
//! Bounds: constant time and about 250 bytes a carrier.

use alloc::boxed::Box;

use ringway_core::{Moment, Span};

use crate::delivery::Delivery;
use crate::detour::Filler;
use crate::sabotage::{Rule, Sabotage};
use crate::session::Packets;

/// A carrier of a session, by its place. A place is used again after
/// [`crate::Session::carrier_down`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CarrierSlot(pub u16);

impl CarrierSlot {
    /// A place that no carrier has.
    pub(crate) const NONE: CarrierSlot = CarrierSlot(u16::MAX);
}

/// While something is on the way, a carrier is asked this often.
const PING_EVERY: Span = Span::from_ms(100);
/// And this often while it is filled.
const FILLED_PING_EVERY: Span = Span::from_ms(10);
/// Nothing heard for so long after a ping, at least, makes a suspect.
const SILENT_MIN: Span = Span::from_ms(250);
/// No answer for so long, at least, makes a suspect of a carrier that talks.
const UNANSWERED_MIN: Span = Span::from_ms(1500);
/// The round trip of a carrier that was not measured.
const RTT_UNKNOWN: Span = Span::from_ms(100);

/// See the module.
#[derive(Debug)]
pub(crate) struct Carrier {
    pub(crate) up: bool,
    pub(crate) suspect: bool,
    /// Something authentic came by it; of packets, word that some of ours came. Before, it is
    /// asked, and given nothing.
    pub(crate) proved: bool,
    /// The peer sends nothing more on it, and we should not either.
    pub(crate) leaving: bool,
    /// LEAVE was said.
    pub(crate) left: bool,
    srtt: Option<Span>,
    rttvar: Span,
    /// The shortest round trip: that of the path alone.
    rtt_min: Option<Span>,
    last_heard: Moment,
    /// The ping that is on its way: its token, and when it was sent.
    asked: Option<(u64, Moment)>,
    next_ping_at: Moment,
    next_token: u64,
    /// To be answered, the newest alone: an older one is answered by it, too.
    pub(crate) pong: Option<u64>,
    /// Something was sent that no answer has covered: a carrier that takes acknowledgements alone
    /// may have died, too.
    unproven: bool,
    /// Bytes of streams that are on their way by it.
    pub(crate) flying: u64,
    delivery: Delivery,
    /// Bytes of streams that were put on it.
    pub(crate) sent: u64,
    /// Bytes that had to go again because of it.
    pub(crate) resent: u64,
    /// It carries packets that may be lost one by one, and hears of each: it is not asked.
    pub(crate) packets: Option<Box<Packets>>,
    /// It is filled, to see how fast it is.
    pub(crate) filler: Option<Box<Filler>>,
}

impl Carrier {
    pub(crate) fn new(now: Moment, proved: bool) -> Self {
        Self {
            up: true,
            suspect: false,
            proved,
            leaving: false,
            left: false,
            srtt: None,
            rttvar: Span::ZERO,
            rtt_min: None,
            last_heard: now,
            asked: None,
            // A new one is asked at once: its round trip is wanted.
            next_ping_at: now,
            next_token: 0,
            pong: None,
            unproven: false,
            flying: 0,
            delivery: Delivery::new(now),
            sent: 0,
            resent: 0,
            packets: None,
            filler: None,
        }
    }

    /// One of packets, of which it is not known whether the other agent takes it.
    pub(crate) fn of_packets(now: Moment, packets: Packets) -> Self {
        Self { packets: Some(Box::new(packets)), ..Self::new(now, false) }
    }

    /// A carrier that may be given something new.
    pub(crate) fn is_usable(&self) -> bool {
        self.up && self.proved && !self.suspect && !self.leaving
    }

    /// Whether bulk may be put on it: there is not more on the way than serves any purpose.
    pub(crate) fn has_window(&self) -> bool {
        self.packets.is_some() || self.flying < self.delivery.most()
    }

    /// There is more to send than carriers take.
    pub(crate) fn note_full(&mut self) {
        self.delivery.note_full();
    }

    /// The shortest time that bytes were on their way by it.
    pub(crate) fn base(&self) -> Option<Span> {
        self.delivery.base().filter(|_| self.up)
    }

    /// Bytes have arrived after `way`; `base` is the shortest time by any carrier.
    pub(crate) fn arrived(&mut self, now: Moment, bytes: u64, way: Span, base: Option<Span>) {
        self.flying = self.flying.saturating_sub(bytes);
        self.delivery.arrived(now, bytes, way, base);
    }

    /// Whether what the kernel knows of its path would tell something now.
    pub(crate) fn asks_for_path(&self, now: Moment) -> bool {
        self.up && self.flying > 0 && self.packets.is_none() && self.delivery.asks(now)
    }

    /// The kernel says this of its path.
    pub(crate) fn note_path(&mut self, now: Moment, rtt: Span, resent: u32) {
        self.delivery.note_path(now, rtt, resent);
    }

    /// Whether LEAVE is to be said now: nothing that went by it is missing.
    pub(crate) fn wants_leave(&self, sabotage: Sabotage) -> bool {
        let arrived = self.flying == 0 || sabotage.breaks(Rule::LeaveLast);
        self.up && self.leaving && !self.left && arrived
    }

    /// Smoothed round trip; a guess before the first answer.
    pub(crate) fn rtt(&self) -> Span {
        if let Some(packets) = &self.packets {
            return packets.rtt().smooth();
        }
        self.srtt.unwrap_or(RTT_UNKNOWN)
    }

    /// Something authentic came by it. Returns whether it was suspect.
    pub(crate) fn heard(&mut self, now: Moment) -> bool {
        self.last_heard = now;
        self.proved = true;
        // One that talks but did not answer stays suspect until it does.
        let silent_only = self.asked.is_none_or(|(_, at)| now.since(at) < self.unanswered_after());
        silent_only && core::mem::take(&mut self.suspect)
    }

    /// The other agent has reported on packets of this carrier: if some of them came lately, both
    /// ways work. Returns whether it was suspect.
    pub(crate) fn reported(&mut self, now: Moment) -> bool {
        let works = self.packets.as_ref().is_some_and(|packets| packets.is_heard(self.suspect));
        works && self.heard(now)
    }

    /// An answer came. Returns whether the carrier was suspect.
    pub(crate) fn answered(&mut self, now: Moment, token: u64) -> bool {
        let Some((_, at)) = self.asked.filter(|(asked, _)| *asked == token) else { return false };
        self.asked = None;
        self.measured(now.since(at));
        if let Some(filler) = &mut self.filler {
            filler.answered(now);
        }
        core::mem::take(&mut self.suspect)
    }

    /// The shortest round trip; a guess before the first answer.
    pub(crate) fn rtt_min(&self) -> Span {
        if let Some(packets) = &self.packets {
            return packets.rtt().least();
        }
        self.rtt_min.unwrap_or(RTT_UNKNOWN)
    }

    /// RFC 6298, section 2.
    fn measured(&mut self, rtt: Span) {
        self.rtt_min = Some(self.rtt_min.map_or(rtt, |least| least.min(rtt)));
        match self.srtt {
            None => (self.srtt, self.rttvar) = (Some(rtt), Span(rtt.0 / 2)),
            Some(srtt) => {
                self.rttvar = Span((3 * self.rttvar.0 + srtt.0.abs_diff(rtt.0)) / 4);
                self.srtt = Some(Span((7 * srtt.0 + rtt.0) / 8));
            }
        }
    }

    /// The token of a ping to send now, if one is due. A suspect is asked on, so that it can become
    /// good again.
    pub(crate) fn ping(&mut self, now: Moment) -> Option<u64> {
        if !self.wants_ping(now) {
            return None;
        }
        let token = self.next_token;
        self.next_token += 1;
        self.asked = Some((token, now));
        self.unproven = false;
        self.next_ping_at = now + PING_EVERY;
        if let Some(filler) = &mut self.filler {
            filler.asked();
            // How it goes on is seen with each round trip.
            self.next_ping_at = now + FILLED_PING_EVERY;
        }
        Some(token)
    }

    /// More than answers to pings was put on it.
    pub(crate) fn note_use(&mut self) {
        self.unproven = true;
    }

    fn is_busy(&self) -> bool {
        // Packets have their own way to ask.
        let unsure = self.packets.is_none();
        let unsure =
            unsure && (self.unproven || self.flying > 0 || self.srtt.is_none() || self.suspect);
        self.up && unsure
    }

    /// Whether a ping is due.
    pub(crate) fn wants_ping(&self, now: Moment) -> bool {
        self.is_busy() && self.asked.is_none() && now >= self.next_ping_at
    }

    fn silent_after(&self) -> Span {
        Span(4 * self.rtt().0 + 4 * self.rttvar.0).max(SILENT_MIN)
    }

    fn unanswered_after(&self) -> Span {
        Span(8 * self.rtt().0 + 4 * self.rttvar.0).max(UNANSWERED_MIN)
    }

    /// Makes a suspect of a carrier whose time is over. Returns whether it became one now.
    pub(crate) fn judge(&mut self, now: Moment) -> bool {
        if let Some(packets) = &self.packets {
            let silent = self.up && !self.suspect && packets.is_silent(now);
            self.suspect |= silent;
            return silent;
        }
        let Some((_, at)) = self.asked.filter(|_| self.up && !self.suspect) else { return false };
        let silent = self.last_heard < at && now >= at + self.silent_after();
        let unanswered = now >= at + self.unanswered_after();
        self.suspect = silent || unanswered;
        self.suspect
    }

    /// When [`Self::ping`] or [`Self::judge`] will have something to do.
    pub(crate) fn wake_at(&self) -> Option<Moment> {
        if !self.up || self.packets.is_some() {
            return None;
        }
        match self.asked {
            Some(_) if self.suspect => None,
            Some((_, at)) if self.last_heard < at => Some(at + self.silent_after()),
            Some((_, at)) => Some(at + self.unanswered_after()),
            None if self.is_busy() => Some(self.next_ping_at),
            None => None,
        }
    }
}

/// The longest round trip of the carriers that are used; if none is, the shortest of all that can
/// be, and nothing if none can.
pub(crate) fn rtt_by(all: &[Carrier], used: impl Iterator<Item = CarrierSlot>) -> Option<Span> {
    let longest = used.map(|slot| all[usize::from(slot.0)].rtt()).max();
    longest.or_else(|| all.iter().filter(|one| one.is_usable()).map(Carrier::rtt).min())
}
