//! Two loads in turns: A B A B, so that what drifts on the machine drifts under both.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::config::LoadConfig;
use crate::error::{ConfigError, LoadError};
use crate::report::{Progress, Report, short};
use crate::run::run;

/// The fewest rounds whose median says something.
pub const ROUNDS_MIN: usize = 5;

/// One figure of both sides: medians over the rounds, and the median of the rounds' ratios.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The median of A.
    pub a: f64,
    /// The median of B.
    pub b: f64,
    /// A over B.
    pub ratio: f64,
    /// The smallest ratio of one round.
    pub ratio_min: f64,
    /// The largest ratio of one round.
    pub ratio_max: f64,
}

/// What a comparison came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Ops a second.
    pub ops_per_s: Pair,
    /// Ops per second of the server's CPU time, if both process ids were given.
    pub ops_per_cpu_s: Option<Pair>,
    /// The server's CPU time per op in microseconds, if both process ids were given.
    pub cpu_us_per_op: Option<Pair>,
    /// Half of the ops are faster.
    pub p50_us: Pair,
    /// All but one in a hundred are faster.
    pub p99_us: Pair,
    /// All but one in a thousand are faster.
    pub p999_us: Pair,
    /// The single runs of A.
    pub a: Vec<Report>,
    /// The single runs of B.
    pub b: Vec<Report>,
    /// Somebody stopped it early; the medians are over the rounds that were complete.
    pub stopped: bool,
}

/// Runs `a` and `b` in turns, at least [`ROUNDS_MIN`] times each, and gives medians and ratios.
/// `stop` ends it after the running load; what was complete is compared.
pub fn compare(
    a: &LoadConfig,
    b: &LoadConfig,
    rounds: usize,
    stop: &AtomicBool,
    mut progress: impl FnMut(&Progress),
) -> Result<Comparison, LoadError> {
    if rounds < ROUNDS_MIN {
        return Err(ConfigError::Rounds(rounds).into());
    }
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let first = run(a, stop, &mut progress)?;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let second = run(b, stop, &mut progress)?;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        of_a.push(first);
        of_b.push(second);
    }
    let figure = |read: fn(&Report) -> f64| pair(&of_a, &of_b, read);
    let both = |read: fn(&Report) -> f64| {
        let measured = of_a.iter().chain(&of_b).all(|report| report.server.is_some());
        measured.then(|| figure(read))
    };
    Ok(Comparison {
        ops_per_s: figure(|report| report.ops_per_s),
        ops_per_cpu_s: both(|report| report.server.map_or(0.0, |server| server.ops_per_cpu_s)),
        cpu_us_per_op: both(|report| report.server.map_or(0.0, |server| server.cpu_us_per_op)),
        p50_us: figure(|report| report.latency.p50_us),
        p99_us: figure(|report| report.latency.p99_us),
        p999_us: figure(|report| report.latency.p999_us),
        stopped: stop.load(Ordering::Relaxed),
        a: of_a,
        b: of_b,
    })
}

fn pair(a: &[Report], b: &[Report], read: fn(&Report) -> f64) -> Pair {
    let values = |reports: &[Report]| reports.iter().map(read).collect::<Vec<_>>();
    pair_of(&values(a), &values(b))
}

fn pair_of(a: &[f64], b: &[f64]) -> Pair {
    let ratios: Vec<f64> = a.iter().zip(b).map(|(a, b)| a / b).collect();
    Pair {
        a: median(a),
        b: median(b),
        ratio: median(&ratios),
        ratio_min: ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratio_max: ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }
}

/// The middle value, or the mean of the two in the middle; not a number if there are none.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (len, half) if len % 2 == 1 => sorted[half],
        (_, half) => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let label = |reports: &[Report], none: &str| {
            let label = reports.first().map(|report| report.spec.label.clone());
            label.filter(|label| !label.is_empty()).unwrap_or_else(|| none.into())
        };
        let (a, b) = (label(&self.a, "A"), label(&self.b, "B"));
        writeln!(f, "{:<18} {a:>14} {b:>14}  ratio (min to max)", "median")?;
        let rows = [
            ("ops/s", Some(self.ops_per_s)),
            ("ops/CPU second", self.ops_per_cpu_s),
            ("server CPU us/op", self.cpu_us_per_op),
            ("p50 us", Some(self.p50_us)),
            ("p99 us", Some(self.p99_us)),
            ("p99.9 us", Some(self.p999_us)),
        ];
        for (what, pair) in rows {
            let Some(Pair { a, b, ratio, ratio_min, ratio_max }) = pair else { continue };
            let (a, b) = (short(a), short(b));
            writeln!(
                f,
                "{what:<18} {a:>14} {b:>14}  {ratio:.3} ({ratio_min:.3} to {ratio_max:.3})"
            )?;
        }
        let early = if self.stopped { ", stopped" } else { "" };
        write!(f, "{} rounds{early}", self.a.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One bad round moves neither a median nor the ratio, which is of sides that ran together; the
    /// spread shows it.
    #[test]
    fn medians_resist_outliers() {
        let pair = pair_of(&[10.0, 11.0, 1000.0, 9.0, 10.0], &[5.0, 5.0, 5.0, 5.0, 6.0]);
        assert_eq!((pair.a, pair.b, pair.ratio), (10.0, 5.0, 2.0));
        assert_eq!((pair.ratio_min, pair.ratio_max), (10.0 / 6.0, 200.0));
        assert_eq!(median(&[1.0, 4.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
