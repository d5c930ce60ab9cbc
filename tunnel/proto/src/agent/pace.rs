//! How fast a carrier takes bytes, and so how much may wait for it: enough to keep it busy until
//! the next turn, and no more, because what waits here has chosen its carrier already.
//!
//! What always holds:
//! - P1  What may wait is what is taken in [`WAITING`], within [`WAITING_MIN`] and [`WAITING_MAX`];
//!   [`WAITING_FIRST`] as long as the carrier was never seen to be full.
//! - P2  A record is what is taken in a millisecond, within [`RECORD_MIN`] and [`RECORD_MAX`].
//! - P3  The rate falls only by what was taken while something waited at both looks: a carrier that
//!   has nothing to do does not become a slow one.
//!
//! Bounds: constant time and memory; a measurement each [`MEASURE`] at most.
//! Not here: how much may be on its way (`delivery.rs`), which carrier is taken (`bond.rs`), rates
//! that are shown (`meter.rs`).
//! Tests: below.

use ringway_core::{Moment, Span};
use ringway_crypto::{RECORD_OVERHEAD, RECORD_TEXT_MAX};

/// What waits for a carrier, at least and at most; as long as nothing is known, more than least.
const WAITING_MIN: u64 = 32 * 1024;
const WAITING_FIRST: u64 = 128 * 1024;
const WAITING_MAX: u64 = 1024 * 1024;
/// What waits is what it takes in this time.
const WAITING: Span = Span::from_ms(4);
/// The rate is measured over at least this time.
const MEASURE: Span = Span::from_ms(2);
/// Bytes of a record, at least: what a slow carrier takes in a millisecond would cost it more in
/// heads.
const RECORD_MIN: u64 = 4096;
/// Bytes of a record, at most: several of them fit into one receive buffer, so that few are cut.
const RECORD_MAX: u64 = 16 * 1024;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Bytes that were put on it.
    put: u64,
    /// Bytes that it had taken when it was last looked at, and when.
    taken: u64,
    at: Moment,
    /// Something waited at that time.
    waited: bool,
    /// It was seen to be full, so the rate is its own and not that of who writes.
    full: bool,
    /// Bytes a second.
    rate: u64,
}

impl Pace {
    pub(crate) fn new(now: Moment) -> Self {
        Self { put: 0, taken: 0, at: now, waited: false, full: false, rate: 0 }
    }

    /// Bytes were put on it.
    pub(crate) fn put(&mut self, bytes: usize) {
        self.put += bytes as u64;
    }

    /// So many bytes wait for it now.
    pub(crate) fn look(&mut self, now: Moment, waiting: usize) {
        let took = now.since(self.at);
        if took < MEASURE {
            return;
        }
        let taken = self.put.saturating_sub(waiting as u64);
        let per_s =
            u128::from(taken.saturating_sub(self.taken)) * 1_000_000_000 / u128::from(took.0);
        let seen = u64::try_from(per_s).unwrap_or(u64::MAX);
        // One that has nothing to take shows that it can do at least so much.
        self.rate = if self.waited && waiting > 0 {
            self.full = true;
            self.rate - self.rate / 4 + seen / 4
        } else {
            self.rate.max(seen)
        };
        (self.taken, self.at, self.waited) = (taken, now, waiting > 0);
    }

    /// Bytes that it takes in so long a time.
    fn within(&self, time: Span) -> u64 {
        (u128::from(self.rate) * u128::from(time.0) / 1_000_000_000) as u64
    }

    /// Bytes that may wait for it.
    pub(crate) fn waiting_max(&self) -> usize {
        let least = if self.full { WAITING_MIN } else { WAITING_FIRST };
        self.within(WAITING).clamp(least, WAITING_MAX) as usize
    }

    /// Bytes of text in its next record.
    pub(crate) fn text_max(&self) -> usize {
        let whole = self.within(Span::from_ms(1)).clamp(RECORD_MIN, RECORD_MAX);
        (whole as usize - RECORD_OVERHEAD).min(RECORD_TEXT_MAX)
    }

    /// How long it will take until something that is put on it now has left.
    pub(crate) fn delay(&self, waiting: usize) -> Span {
        if waiting == 0 {
            return Span::ZERO;
        }
        let ns = waiting as u128 * 1_000_000_000 / u128::from(self.rate.max(1));
        Span(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// Bytes a second.
    pub(crate) fn rate(&self) -> u64 {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A carrier that takes `per_ms` and is kept full for so many milliseconds.
    fn full(pace: &mut Pace, from_ms: u64, ms: u64, per_ms: u64) -> u64 {
        let mut waiting = 0;
        for at in from_ms..from_ms + ms {
            let more = (pace.waiting_max() as u64).saturating_sub(waiting);
            pace.put(more as usize);
            waiting = (waiting + more).saturating_sub(per_ms);
            pace.look(Moment(at * MS), waiting as usize);
        }
        waiting
    }

    #[test]
    fn what_waits_follows_what_is_taken() {
        let mut pace = Pace::new(Moment(0));
        full(&mut pace, 1, 100, 25_000);
        assert!((20..=30).contains(&(pace.rate() / 1_000_000)), "25 MB/s: {}", pace.rate());
        assert!((80_000..=120_000).contains(&pace.waiting_max()), "{}", pace.waiting_max());
        assert_eq!(pace.text_max() + RECORD_OVERHEAD, RECORD_MAX as usize);
        let waiting = full(&mut pace, 101, 300, 1_000_000);
        assert!(pace.waiting_max() > 500_000, "{}", pace.waiting_max());
        assert!(pace.delay(waiting as usize) < Span::from_ms(10));
        full(&mut pace, 401, 400, 100);
        assert_eq!(pace.waiting_max() as u64, WAITING_MIN);
        assert_eq!(pace.text_max() + RECORD_OVERHEAD, RECORD_MIN as usize);
        assert!(pace.delay(100_000) > Span::from_ms(500), "{:?}", pace.delay(100_000));
    }
}
