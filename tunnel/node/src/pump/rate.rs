//! A peer's rate: how many bytes a second may go each way, for all shards of a process together.
//!
//! What always holds:
//! - R1  Each direction has its whole rate, whatever the other one does and however many shards
//!   serve the peer: in any time `t` at most `rate * t` and a burst are charged while it is open.
//! - R2  What is charged is there already, so it may be more than there was room for: then the way
//!   is shut for so much longer.
//!
//! Each direction is one word: the moment at which all that was charged will have been due (a
//! *theoretical arrival time*, as in GCRA). It is shut while that lies a burst or more ahead.
//!
//! Bounds: constant time, one atomic step a charge; peers without a rate have none of this. A burst
//! is what the rate brings in 100 ms, or 64 KiB if that is more; beyond it goes what each flow had
//! read at once when the way was shut, and what was on its way here then.
//! Not here: which flows wait (`shut.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringway_core::{Moment, Span};

/// How much may come at once.
const BURST: Span = Span::from_ms(100);
const BURST_MIN: u64 = 64 * 1024;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// From our applications to the peer.
    ToPeer,
    /// From the peer to our applications.
    FromPeer,
}

impl Way {
    pub(crate) const BOTH: [Way; 2] = [Way::ToPeer, Way::FromPeer];
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Rate {
    bytes_per_s: u64,
    burst: Span,
    /// By [`Way`]: when all that was charged will have been due, as a [`Moment`].
    due_at: [AtomicU64; 2],
}

impl Rate {
    fn new(bytes_per_s: u64) -> Rate {
        let burst = BURST.max(time_of(BURST_MIN, bytes_per_s));
        Rate { bytes_per_s, burst, due_at: Default::default() }
    }

    /// A peer's rate after another reading of the configuration. One that stays remembers what was
    /// charged; another one begins with nothing, or debts at a slow rate would outlast it.
    pub(crate) fn following(before: Option<&Arc<Rate>>, bytes_per_s: u64) -> Arc<Rate> {
        let same = before.filter(|before| before.bytes_per_s == bytes_per_s);
        same.map_or_else(|| Arc::new(Rate::new(bytes_per_s)), Arc::clone)
    }

    /// Charges so many bytes, which are here already. Returns when the way is open again, if they
    /// have used it up.
    pub(crate) fn charge(&self, now: Moment, way: Way, bytes: u64) -> Option<Moment> {
        let takes = time_of(bytes, self.bytes_per_s);
        let after = |due_at: u64| (Moment(due_at).max(now) + takes).0;
        // Nothing else hangs on this word: no order with other memory is needed.
        let word = &self.due_at[way as usize];
        let before = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| Some(after(at)));
        let (Ok(before) | Err(before)) = before;
        self.shut_until(now, after(before))
    }

    /// When a way is open, if it is not now.
    pub(crate) fn opens_at(&self, now: Moment, way: Way) -> Option<Moment> {
        self.shut_until(now, self.due_at[way as usize].load(Ordering::Relaxed))
    }

    fn shut_until(&self, now: Moment, due_at: u64) -> Option<Moment> {
        let opens_at = Moment(due_at) - self.burst + Span(1);
        (opens_at > now).then_some(opens_at)
    }
}

/// How long a rate takes for so many bytes; rounded up, so that it is never exceeded.
fn time_of(bytes: u64, bytes_per_s: u64) -> Span {
    Span(bytes.saturating_mul(1_000_000_000).div_ceil(bytes_per_s.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 64 * 1024;
    const START: Moment = Moment(1 << 40);

    /// Two shards take what they may, both ways at once, whenever a way is open: what each way
    /// brought.
    fn taken(rate: &Rate, lasts: Span) -> [u64; 2] {
        let (mut now, end) = (START, START + lasts);
        let mut taken = [0; 2];
        while now < end {
            for _shard in 0..2 {
                for way in Way::BOTH {
                    if rate.opens_at(now, way).is_none() {
                        taken[way as usize] += CHUNK;
                        rate.charge(now, way, CHUNK);
                    }
                }
            }
            if let [Some(one), Some(other)] = Way::BOTH.map(|way| rate.opens_at(now, way)) {
                now = one.min(other);
            }
        }
        taken
    }

    #[test]
    fn each_way_has_the_rate_over_time_whoever_asks() {
        for bytes_per_s in [1_000_000, 12_500_000, 1_250_000_000] {
            let rate = Rate::new(bytes_per_s);
            // The burst is what came before.
            for way in Way::BOTH {
                while rate.charge(START, way, 1000).is_none() {}
            }
            let due = bytes_per_s * 20;
            for got in taken(&rate, Span::from_s(20)) {
                assert!(got.abs_diff(due) <= due / 100, "{bytes_per_s}: {got} of {due}");
            }
        }
    }

    /// After silence, however long, a burst goes through and no more.
    #[test]
    fn a_burst_is_bounded() {
        for (bytes_per_s, burst) in [(12_500_000, 1_250_000), (100_000, BURST_MIN)] {
            let rate = Rate::new(bytes_per_s);
            for now in [START, START + Span::from_s(3600)] {
                let mut at_once = 0_u64;
                while rate.opens_at(now, Way::FromPeer).is_none() {
                    rate.charge(now, Way::FromPeer, 100);
                    at_once += 100;
                }
                assert!(at_once.abs_diff(burst) <= 100, "{bytes_per_s}: {at_once}");
                assert_eq!(rate.opens_at(now, Way::ToPeer), None, "the other way is its own");
            }
        }
    }

    /// Threads lose none of each other's charges, and it opens when all of them are due.
    #[test]
    fn shards_charge_together() {
        let rate = Rate::new(1_000_000);
        std::thread::scope(|scope| {
            for _shard in 0..2 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        rate.charge(START, Way::ToPeer, 1000);
                    }
                });
            }
        });
        let opens_at = START + Span::from_s(2) - Span::from_ms(100) + Span(1);
        assert_eq!(rate.opens_at(START, Way::ToPeer), Some(opens_at));
        assert_eq!(rate.opens_at(opens_at, Way::ToPeer), None);
    }

    #[test]
    fn another_rate_begins_with_nothing_and_the_same_goes_on() {
        let slow = Rate::following(None, 10_000);
        assert!(slow.charge(START, Way::ToPeer, 10_000_000).is_some(), "a quarter of an hour");
        let same = Rate::following(Some(&slow), 10_000);
        assert_eq!(same.opens_at(START, Way::ToPeer), slow.opens_at(START, Way::ToPeer));
        let fast = Rate::following(Some(&slow), 20_000);
        assert_eq!(fast.opens_at(START, Way::ToPeer), None);
    }
}
