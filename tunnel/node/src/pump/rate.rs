//! A peer's rate on one shard: a bucket that fills with time.
//!
//! Bounds: constant time. A burst is what the rate brings in 100 ms, or 64 KiB.

use ringway_core::{Moment, Span};

/// How much may come at once.
const BURST: Span = Span::from_ms(100);
const BURST_MIN: u64 = 64 * 1024;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// Bytes that may still go; below zero what was taken in advance.
    left: i64,
    filled_at: Moment,
    /// Bytes a second, as last told.
    rate: u64,
}

impl Bucket {
    pub(super) fn new(now: Moment) -> Bucket {
        Bucket { left: BURST_MIN as i64, filled_at: now, rate: 0 }
    }

    fn fill(&mut self, now: Moment, rate: u64) {
        let gained = u128::from(rate) * u128::from(now.since(self.filled_at).0) / 1_000_000_000;
        let burst = u128::from(rate) * u128::from(BURST.0) / 1_000_000_000;
        let most = burst.max(u128::from(BURST_MIN)) as i64;
        if gained > 0 {
            self.left = self.left.saturating_add(gained.min(most as u128 * 2) as i64).min(most);
            self.filled_at = now;
        }
        self.rate = rate;
    }

    /// Takes so many bytes, which are here already. Returns whether the bucket is empty now.
    pub(super) fn take(&mut self, now: Moment, rate: u64, bytes: usize) -> bool {
        self.fill(now, rate);
        self.left = self.left.saturating_sub(bytes as i64);
        self.left <= 0
    }

    /// Whether something may go now.
    pub(super) fn is_open(&mut self, now: Moment) -> bool {
        self.fill(now, self.rate);
        self.left > 0
    }

    /// Whether it was empty when it was last taken from.
    pub(super) fn is_empty(&self) -> bool {
        self.left <= 0
    }

    /// When something may go again.
    pub(super) fn opens_at(&self) -> Moment {
        let missing = (1 - self.left.min(0)) as u128;
        let ns = missing * 1_000_000_000 / u128::from(self.rate.max(1));
        self.filled_at + Span(u64::try_from(ns).unwrap_or(u64::MAX / 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sender that takes 16 KiB whenever it may.
    fn taken(rate: u64, lasts: Span) -> u64 {
        let mut bucket = Bucket::new(Moment(0));
        let (mut now, mut taken) = (Moment(0), 0);
        while now.0 < lasts.0 {
            taken += 16_384;
            if bucket.take(now, rate, 16_384) {
                now = bucket.opens_at().max(now + Span(1));
                assert!(bucket.is_open(now));
            }
        }
        taken
    }

    #[test]
    fn over_time_it_is_the_rate() {
        for rate in [20_000, 1_000_000, 125_000_000] {
            let lasts = Span::from_s(20);
            let (got, due) = (taken(rate, lasts), rate * 20);
            let slack = rate / 10 + 2 * BURST_MIN;
            assert!(got >= due - due / 100 && got <= due + slack, "{rate}: {got} of {due}");
        }
    }
}
