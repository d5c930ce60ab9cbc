//! How much may be on its way by a carrier: what arrives by it while its path's shortest round trip
//! passes, twice, and a little more for what waits to be acknowledged.
//!
//! A carrier over TCP takes megabytes into the buffers of both kernels when the far agent is busy.
//! They gain nothing there: what is chosen next waits behind them, each byte is cold by the time it
//! is read, and all of them go again if the carrier is lost. How fast a carrier delivers is known
//! from the acknowledgements of flows; a carrier that delivers all that it is given at once is given
//! more, so the bound finds the path's capacity within some round trips.
//!
//! Bounds: constant time and memory.

use ringway_core::{Moment, Span};

/// What may be on the way as long as little is known, and at least.
const FIRST: u64 = 1024 * 1024;
const LEAST: u64 = 256 * 1024;
/// How long bytes may wait on the way beyond two round trips: acknowledgements are delayed by up to
/// half of it, and the far agent has turns.
const WAITING: Span = Span::from_ms(10);
/// The rate is measured over at least this time, several delayed acknowledgements.
const MEASURE: Span = Span::from_ms(15);

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Bytes that arrived since then.
    arrived: u64,
    since: Moment,
    /// There was more to send than carriers took, so the rate is the carrier's and not the writers'.
    full: bool,
    /// Bytes a second, the best of late; `None` before the first measurement.
    rate: Option<u64>,
}

impl Delivery {
    pub(crate) fn new(now: Moment) -> Self {
        Self { arrived: 0, since: now, full: false, rate: None }
    }

    /// There is more to send than carriers take.
    pub(crate) fn note_full(&mut self) {
        self.full = true;
    }

    /// So many bytes have arrived; `rtt` is the round trip of late.
    pub(crate) fn arrived(&mut self, now: Moment, bytes: u64, rtt: Span) {
        self.arrived += bytes;
        let took = now.since(self.since);
        if took < rtt.max(MEASURE) {
            return;
        }
        let per_s = u128::from(self.arrived) * 1_000_000_000 / u128::from(took.0);
        let seen = u64::try_from(per_s).unwrap_or(u64::MAX);
        let best = self.rate.unwrap_or(0);
        // One that was given little shows that it can do at least so much. Of one that was given
        // all that it takes, the best counts for some measurements.
        let faded = if self.full { best - best / 8 } else { best };
        self.rate = Some(faded.max(seen));
        (self.arrived, self.since, self.full) = (0, now, false);
    }

    /// Bytes that may be on the way.
    pub(crate) fn most(&self, rtt_min: Span) -> u64 {
        let Some(rate) = self.rate else { return FIRST };
        let time = u128::from(2 * rtt_min.0 + WAITING.0);
        let bytes = u128::from(rate) * time / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX).max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A path that is kept as full as may be, by milliseconds: `capacity` bytes each, delay one way,
    /// acknowledged at once. Returns the bytes that may be on the way in the end, and those that
    /// wait before the path.
    fn run(ms: usize, capacity: u64, rtt_ms: usize) -> (u64, u64) {
        let mut delivery = Delivery::new(Moment(0));
        let (mut waiting, mut flying) = (0, 0);
        let mut path = alloc::collections::VecDeque::from(alloc::vec![0; rtt_ms]);
        for at in 1..=ms {
            let rtt = Span::from_ms(rtt_ms as u64 + waiting / capacity);
            let arrived: u64 = path.pop_front().expect("as long as the round trip");
            flying -= arrived;
            delivery.arrived(Moment(at as u64 * MS), arrived, rtt);
            let more = delivery.most(Span::from_ms(rtt_ms as u64)).saturating_sub(flying);
            delivery.note_full();
            (flying, waiting) = (flying + more, waiting + more);
            let goes = waiting.min(capacity);
            waiting -= goes;
            path.push_back(goes);
        }
        (delivery.most(Span::from_ms(rtt_ms as u64)), waiting)
    }

    #[test]
    fn a_short_path_has_next_to_no_queue() {
        let (most, waiting) = run(1_000, 1_000_000, 1);
        assert!((11_000_000..=13_000_000).contains(&most), "{most}");
        assert!(waiting <= 12 * 1_000_000, "{waiting}");
        let (most, _) = run(10_000, 1_000, 1);
        assert_eq!(most, LEAST);
    }

    #[test]
    fn a_long_path_is_filled_within_some_round_trips() {
        // 8 Gbit/s and 200 ms: 200 MB, from one.
        let (most, _) = run(3_200, 1_000_000, 200);
        assert!(most >= 200_000_000, "{most}");
        let (_, waiting) = run(10_000, 1_000_000, 200);
        assert!(waiting <= 250_000_000, "{waiting}");
    }

    /// Who has little to send does not look like a slow path; a path that became slow does.
    #[test]
    fn the_rate_fades_only_while_there_is_more_to_send() {
        let mut delivery = Delivery::new(Moment(0));
        let mut step = |from: u64, to: u64, bytes: u64, full: bool| {
            for at in from..to {
                if full {
                    delivery.note_full();
                }
                delivery.arrived(Moment(at * 20 * MS), bytes, Span::from_ms(1));
            }
            delivery.most(Span::ZERO)
        };
        let fast = step(1, 10, 10_000_000, true);
        assert_eq!(step(10, 100, 1000, false), fast);
        let slow = step(100, 200, 1_000_000, true);
        assert!((fast / 10..fast / 9).contains(&slow), "{slow}");
    }
}
