//! The two loads over names: a measured run, and a fill.

use std::sync::atomic::AtomicBool;

use crate::config::{LoadConfig, Protocol};
use crate::driver::{Ask, Driver, Gathered, with_driver};
use crate::error::LoadError;
use crate::mix::Kind;
use crate::report::{FillReport, FillStep, OwnUse, Progress, Report, Second, ServerUse};
use crate::source::Task;
use crate::watch::{Numbers, Watch};

/// Runs a load and says what it came to. `stop` ends it early, with a report of what was measured
/// until then; `progress` is called about once a second, from this thread.
pub fn run(
    config: &LoadConfig,
    stop: &AtomicBool,
    mut progress: impl FnMut(&Progress),
) -> Result<Report, LoadError> {
    with_driver(config, stop, &mut progress, |driver| {
        let spec = &config.spec;
        let prefill = prepare(config, driver)?;
        if spec.mix.release > 0 {
            let size = spec.churn / 2;
            let held = driver.phase(Ask {
                task: Task::Hold,
                size,
                ..walk(config, "hold", Kind::Register, (0, 0, 1))
            })?;
            if held.tally.unexpected + held.unanswered > 0 {
                return judge(config, driver, held, prefill);
            }
        }
        let measured = driver.phase(measure(config, "measure"))?;
        let report = judge(config, driver, measured, prefill)?;
        if spec.protocol == Protocol::Keys && (spec.prefill || spec.mix.registers()) {
            clear(config, driver)?;
        }
        Ok(report)
    })
}

/// Registers `names.count` names and holds them, then, if `churn_half`, releases every second one
/// and registers as many new ones; says the rate and the memory after each step.
pub fn fill(
    config: &LoadConfig,
    churn_half: bool,
    stop: &AtomicBool,
    mut progress: impl FnMut(&Progress),
) -> Result<FillReport, LoadError> {
    with_driver(config, stop, &mut progress, |driver| {
        let count = config.spec.names.count;
        let half = count.div_ceil(2);
        let mut before = Baseline::new(config, driver)?;
        let mut asks = vec![(walk(config, "fill", Kind::Register, (0, count, 1)), count)];
        if churn_half {
            asks.push((walk(config, "release", Kind::Release, (0, count, 2)), count - half));
            let fresh = (count, count + half, 1);
            asks.push((walk(config, "churn", Kind::Register, fresh), count));
        }
        let (mut steps, mut names) = (Vec::new(), 0);
        for (ask, held) in asks {
            if driver.stopped() {
                break;
            }
            let step = before.step(driver, ask, held)?;
            names = if step.step == "release" { names - step.ops } else { names + step.ops };
            steps.push(step);
        }
        if config.spec.protocol == Protocol::Keys {
            let (from, to) = (0, count + half);
            driver.phase(walk(config, "clear", Kind::Release, (from, to, 1)))?;
        }
        Ok(FillReport { spec: config.spec.clone(), names, steps, stopped: driver.stopped() })
    })
}

/// Registers the names that queries pick from, if they are to be there.
pub(crate) fn prepare(
    config: &LoadConfig,
    driver: &mut Driver<'_>,
) -> Result<Option<FillStep>, LoadError> {
    let count = config.spec.names.count;
    if !config.spec.prefill {
        return Ok(None);
    }
    let mut before = Baseline::new(config, driver)?;
    before.step(driver, walk(config, "fill", Kind::Register, (0, count, 1)), count).map(Some)
}

/// The mix over the window, at the rate.
pub(crate) fn measure(config: &LoadConfig, name: &'static str) -> Ask {
    Ask {
        name,
        task: Task::Mix,
        window: Some((config.warmup, config.duration)),
        ops_max: config.spec.ops,
        rate: config.spec.rate,
        tolerant: false,
        size: 0,
    }
}

/// Keys of Redis outlive their connections: an earlier run's may be met, ours are cleared away.
fn walk(
    config: &LoadConfig,
    name: &'static str,
    kind: Kind,
    (from, to, step): (u64, u64, u64),
) -> Ask {
    Ask {
        name,
        task: Task::Walk { kind, from, to, step },
        window: None,
        ops_max: None,
        rate: None,
        tolerant: config.spec.protocol == Protocol::Keys,
        size: (to - from) / step,
    }
}

fn clear(config: &LoadConfig, driver: &mut Driver<'_>) -> Result<(), LoadError> {
    let spec = &config.spec;
    let from = if spec.prefill { 0 } else { spec.names.count };
    let to = spec.names.count + if spec.mix.registers() { spec.churn } else { 0 };
    driver.phase(walk(config, "clear", Kind::Release, (from, to, 1))).map(|_| ())
}

/// The report of a measured run, if it is one.
pub(crate) fn judge(
    config: &LoadConfig,
    driver: &Driver<'_>,
    measured: Gathered,
    prefill: Option<FillStep>,
) -> Result<Report, LoadError> {
    let ops = measured.window_ops;
    let window_s = measured.window_s;
    let rss_bytes = driver.process().map_or(Ok(0), |process| process.rss_bytes())?;
    let server = measured.server.filter(|span| span.ops > 0).map(|span| ServerUse {
        cpu_share: span.cpu_ns as f64 / 1e9 / span.seconds,
        cpu_us_per_op: span.cpu_ns as f64 / 1e3 / span.ops as f64,
        ops_per_cpu_s: span.ops as f64 * 1e9 / span.cpu_ns.max(1) as f64,
        rss_bytes,
    });
    let threads = config.spec.threads as f64;
    let busy_ns = if config.spec.spin {
        measured.cpu_ns.saturating_sub(measured.idle_ns)
    } else {
        measured.cpu_ns
    };
    let own = OwnUse {
        busy_share: busy_ns as f64 / (window_s * 1e9 * threads).max(1.0),
        cpu_ns_per_op: busy_ns as f64 / ops.max(1) as f64,
    };
    let report = Report {
        spec: config.spec.clone(),
        window_s,
        ops,
        ops_per_s: ops as f64 / window_s.max(1e-9),
        latency: measured.latencies.quantiles(),
        statuses: measured.tally.words(),
        unexpected: measured.tally.unexpected,
        unsent: measured.unsent,
        unanswered: measured.unanswered,
        server,
        own,
        prefill,
        stopped: driver.stopped(),
    };
    accept(report, &measured)
}

/// A run with unexpected or missing replies is no measurement.
fn accept(report: Report, measured: &Gathered) -> Result<Report, LoadError> {
    if let Some(first) = measured.tally.first_unexpected() {
        let (count, first) = (report.unexpected, first.to_owned());
        return Err(LoadError::Unexpected { count, first, report: Box::new(report) });
    }
    if report.unanswered > 0 {
        let (count, timeout_s) = (report.unanswered, report.spec.timeout_s);
        return Err(LoadError::Unanswered { count, timeout_s, report: Box::new(report) });
    }
    Ok(report)
}

/// The server's memory before anything was registered, and its numbers before the next step.
struct Baseline<'a> {
    config: &'a LoadConfig,
    rss_bytes: Option<u64>,
    table_bytes: Option<u64>,
    watch: Option<Watch>,
    numbers: Option<Numbers>,
}

impl<'a> Baseline<'a> {
    fn new(config: &'a LoadConfig, driver: &Driver<'_>) -> Result<Baseline<'a>, LoadError> {
        let rss_bytes = driver.process().map(|process| process.rss_bytes()).transpose()?;
        let mut watch = Watch::connect(config);
        let numbers = watch.as_mut().and_then(Watch::ask);
        let table_bytes = numbers.as_ref().map(|numbers| numbers.table_bytes);
        Ok(Baseline { config, rss_bytes, table_bytes, watch, numbers })
    }

    /// Runs one step of a fill, after which `held` names are held.
    fn step(
        &mut self,
        driver: &mut Driver<'_>,
        ask: Ask,
        held: u64,
    ) -> Result<FillStep, LoadError> {
        let done = driver.phase(ask)?;
        let seconds = done.window_s.max(1e-9);
        let ops_per_s = done.window_ops as f64 / seconds;
        let latency = done.latencies.quantiles();
        let whole = Second { ops_per_s, worst_us: latency.max_us };
        let slower = |a: &&Second, b: &&Second| a.ops_per_s.total_cmp(&b.ops_per_s);
        let slowest_second = done.seconds.iter().min_by(slower).copied().unwrap_or(whole);
        let rss_bytes = driver.process().map(|process| process.rss_bytes()).transpose()?;
        let per_name = |now: Option<u64>, before: Option<u64>| {
            let grown = now?.saturating_sub(before?);
            Some(grown as f64 / held.max(1) as f64)
        };
        let numbers = self.watch.as_mut().and_then(Watch::ask);
        let table_bytes = numbers.as_ref().map(|numbers| numbers.table_bytes);
        let earlier = std::mem::replace(&mut self.numbers, numbers);
        let both = self.numbers.as_ref().zip(earlier);
        let worst_turn_ms = both.map(|(now, earlier)| now.worst_turn_ms(&earlier));
        let ops_per_cpu_s =
            done.server.map(|span| span.ops as f64 * 1e9 / span.cpu_ns.max(1) as f64);
        let step = FillStep {
            step: ask.name.to_owned(),
            ops: done.window_ops,
            seconds,
            ops_per_s,
            latency,
            slowest_second,
            worst_us: latency.max_us,
            worst_turn_ms,
            rss_bytes,
            rss_bytes_per_name: per_name(rss_bytes, self.rss_bytes),
            table_bytes_per_name: per_name(table_bytes, self.table_bytes),
            ops_per_cpu_s,
        };
        if done.tally.unexpected + done.unanswered > 0 {
            let report = judge(self.config, driver, done, Some(step))?;
            let (count, timeout_s) = (report.unanswered, report.spec.timeout_s);
            return Err(LoadError::Unanswered { count, timeout_s, report: Box::new(report) });
        }
        Ok(step)
    }
}
