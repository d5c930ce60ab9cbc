//! Latencies: recorded in nanoseconds to three digits, reported in microseconds.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency that is told apart; longer ones count as this.
const NS_MAX: u64 = 600_000_000_000;

/// A histogram of latencies. About 200 KB; recording allocates nothing.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    histogram: Histogram<u64>,
}

/// What a run is judged by, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half are faster.
    pub p50_us: f64,
    /// Nine of ten are faster.
    pub p90_us: f64,
    /// All but one in a hundred are faster.
    pub p99_us: f64,
    /// All but one in a thousand are faster.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// The average.
    pub mean_us: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// An empty histogram.
    ///
    /// # Panics
    /// Never: the bounds are constants that the histogram accepts.
    pub(crate) fn new() -> Latencies {
        let histogram = Histogram::new_with_bounds(1, NS_MAX, 3);
        Latencies { histogram: histogram.expect("the bounds are valid") }
    }

    /// `ops` ops took this long.
    #[inline]
    pub(crate) fn record(&mut self, ns: u64, ops: u64) {
        self.histogram.saturating_record_n(ns.clamp(1, NS_MAX), ops);
    }

    /// Adds what another thread recorded.
    ///
    /// # Panics
    /// Never: all histograms here have the same bounds.
    pub(crate) fn merge(&mut self, other: &Latencies) {
        self.histogram.add(&other.histogram).expect("the bounds are the same");
    }

    #[cfg(test)]
    fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The figures of a report; zeros when nothing was recorded.
    pub(crate) fn quantiles(&self) -> Quantiles {
        if self.histogram.is_empty() {
            return Quantiles::default();
        }
        let at = |share| self.histogram.value_at_quantile(share) as f64 / 1e3;
        Quantiles {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.histogram.max() as f64 / 1e3,
            mean_us: self.histogram.mean() / 1e3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, expected: f64) -> bool {
        (value - expected).abs() <= expected / 500.0
    }

    /// A thousand requests of 1 to 1000 microseconds have the quantiles one expects.
    #[test]
    fn quantiles_are_right_to_three_digits() {
        let (mut all, mut half) = (Latencies::new(), Latencies::new());
        for us in 1..=1000 {
            if us % 2 == 0 { all.record(us * 1000, 3) } else { half.record(us * 1000, 3) }
        }
        all.merge(&half);
        assert_eq!(all.count(), 3000);
        let found = all.quantiles();
        assert!(near(found.p50_us, 500.0) && near(found.p99_us, 990.0), "{found:?}");
        assert!(near(found.p999_us, 999.0) && near(found.max_us, 1000.0), "{found:?}");
        assert!(near(found.mean_us, 500.5), "{found:?}");
    }

    /// Zero and eternity are recorded at the ends, not lost and not a panic.
    #[test]
    fn extremes_are_kept() {
        let mut latencies = Latencies::new();
        latencies.record(0, 1);
        latencies.record(u64::MAX, 1);
        assert_eq!(latencies.count(), 2);
        assert!(near(latencies.quantiles().max_us, NS_MAX as f64 / 1e3));
    }
}
