//! What is looked at while a world runs, where that is asked for: that nothing is said to have come
//! that has not, nothing is counted twice, and packets that come twice do no harm.
//!
//! Packets that carry data are taken once, as the product's opener sees to; reports are heard as
//! often as they come, which is worse than anything that the opener lets through.
//!
//! Bounds: a bit a packet and two a run, of all that were ever sent.

use std::collections::VecDeque;

use ringway_core::rng::Rng;
use ringway_core::{Moment, Span};
use ringway_tunnel_proto::path::{Run, Told};

use super::Packet;

/// A second copy comes within so long.
const TWIN_WITHIN: Span = Span::from_ms(40);

pub(super) struct Proof {
    run_bytes: u64,
    twice_ppm: u64,
    rng: Rng,
    twins: VecDeque<(Moment, u64, Packet)>,
    /// Numbers that came, and runs that were read or said to have come.
    seen: Bits,
    read: Bits,
    told: Bits,
}

impl Proof {
    pub(super) fn new(run_bytes: u64, twice_ppm: u64, seed: u64) -> Self {
        let (rng, twins) = (Rng::new(seed ^ 0x7717), VecDeque::new());
        let [seen, read, told] = [(); 3].map(|()| Bits::default());
        Self { run_bytes, twice_ppm, rng, twins, seen, read, told }
    }

    /// A packet came for the first time: perhaps it comes again.
    pub(super) fn copy(&mut self, now: Moment, bytes: u64, packet: &Packet) {
        if self.twice_ppm > 0 && self.rng.below(1_000_000) < self.twice_ppm {
            let after = Span(self.rng.below(TWIN_WITHIN.0));
            // In the order of the first ones, so that one look finds those that are due.
            let last = self.twins.back().map_or(now, |(at, ..)| *at);
            self.twins.push_back(((now + after).max(last), bytes, packet.clone()));
        }
    }

    pub(super) fn wake_at(&self) -> Option<Moment> {
        self.twins.front().map(|(at, ..)| *at)
    }

    /// A packet that comes again now.
    pub(super) fn again(&mut self, now: Moment) -> Option<(u64, Packet)> {
        let (_, bytes, packet) = self.twins.pop_front_if(|(at, ..)| *at <= now)?;
        Some((bytes, packet))
    }

    /// Whether a number comes for the first time.
    pub(super) fn is_new(&mut self, number: u64) -> bool {
        self.seen.set(number)
    }

    pub(super) fn read(&mut self, run: Run<u32>) {
        self.read.set(run.start / self.run_bytes);
    }

    pub(super) fn told(&mut self, told: Told<u32>) {
        if let Told::Arrived(run) = told {
            let at = run.start / self.run_bytes;
            assert!(self.read.has(at), "a run is said to have come that has not");
            assert!(self.told.set(at), "a run is said to have come for the first time twice");
        }
    }
}

#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn has(&self, at: u64) -> bool {
        self.0.get((at / 64) as usize).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Whether it is news.
    fn set(&mut self, at: u64) -> bool {
        let (word, bit) = ((at / 64) as usize, 1 << (at % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let news = self.0[word] & bit == 0;
        self.0[word] |= bit;
        news
    }
}
