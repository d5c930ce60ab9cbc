//! What moved lately, each way: totals, and a rate that is there whenever somebody asks.
//!
//! Two marks (when, and the totals of then) follow what moves, `MARK_EVERY` apart; the rate is
//! what moved since the older one. So nobody has to look twice to learn a rate, several who look
//! do not disturb each other, and what stands still costs nothing.
//!
//! What always holds:
//! - M1  A rate is the mean over the last one to two times `MARK_EVERY`, or over one of them if
//!   it began to move within that; nothing moved for two of them is a rate of zero.
//! - M2  Totals only grow.
//!
//! Bounds: 72 bytes; constant time a call, and no clock: `now` is the caller's.
//! Not here: what is counted (bytes of applications for flows, of the wire for carriers), and how
//! much a carrier could take (`agent/pace.rs`).
//! Tests: below.

use ringway_core::{Moment, Span};

/// How far the marks are apart, at least.
pub(crate) const MARK_EVERY: Span = Span::from_ms(500);

/// Totals or rates: one way, and the other.
pub type BothWays = [u64; 2];

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    total: BothWays,
    /// When something moved last.
    moved_at: Moment,
    older: Mark,
    newer: Mark,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Moment,
    total: BothWays,
}

impl Meter {
    /// Nothing has moved.
    pub const fn new(now: Moment) -> Self {
        let mark = Mark { at: now, total: [0; 2] };
        Self { total: [0; 2], moved_at: now, older: mark, newer: mark }
    }

    /// So many bytes moved this way, 0 or 1.
    pub fn add(&mut self, now: Moment, way: usize, bytes: u64) {
        if self.is_still(now) {
            self.newer = Mark { at: now, total: self.total };
            self.older = self.newer;
        } else if now.since(self.newer.at) >= MARK_EVERY {
            self.older = self.newer;
            self.newer = Mark { at: now, total: self.total };
        }
        self.moved_at = now;
        self.total[way] += bytes;
    }

    /// Bytes that moved each way.
    pub const fn total(&self) -> BothWays {
        self.total
    }

    /// Bits a second each way (M1).
    pub fn bits_per_s(&self, now: Moment) -> BothWays {
        if self.is_still(now) {
            return [0; 2];
        }
        let took = now.since(self.older.at).max(MARK_EVERY);
        let rate = |way: usize| {
            let moved = u128::from(self.total[way] - self.older.total[way]);
            u64::try_from(moved * 8_000_000_000 / u128::from(took.0)).unwrap_or(u64::MAX)
        };
        [rate(0), rate(1)]
    }

    fn is_still(&self, now: Moment) -> bool {
        now.since(self.moved_at).0 >= 2 * MARK_EVERY.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Whoever asks, and whenever, hears what moves; after a while of nothing it is nothing, and
    /// what comes then counts from there.
    #[test]
    fn a_rate_is_what_moved_lately() {
        let mut meter = Meter::new(Moment(0));
        assert_eq!(meter.bits_per_s(Moment(0)), [0, 0]);
        for ms in 0..10_000 {
            meter.add(Moment(ms * MS), 0, 125);
            let [rate, other] = meter.bits_per_s(Moment(ms * MS));
            assert_eq!(other, 0);
            assert!(ms < 500 || (990_000..=1_010_000).contains(&rate), "at {ms} ms: {rate}");
        }
        assert_eq!(meter.total(), [1_250_000, 0]);
        let falls: [u64; 3] =
            [10_000, 10_300, 10_900].map(|ms| meter.bits_per_s(Moment(ms * MS))[0]);
        assert!(falls.is_sorted_by(|one, next| one > next) && falls[2] > 0, "{falls:?}");
        assert_eq!(meter.bits_per_s(Moment(11_000 * MS)), [0, 0]);
        // A word after an hour is not an hour's mean, and not a line's full rate.
        let late = Moment(3_600_000 * MS);
        meter.add(late, 1, 1000);
        assert_eq!(meter.bits_per_s(late), [0, 16_000]);
        assert_eq!(meter.total(), [1_250_000, 1000]);
    }
}
