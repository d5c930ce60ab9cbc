//! What others feel while the names of a dead session are swept.
//!
//! A bare session registers many names over a connection of its own. The load is measured twice at
//! the same rate: with nothing going on, and from the moment in which that connection is dropped
//! until the server has swept the last of the names. A query sees a name free long before its
//! record is swept, so both moments are reported.
//!
//! Bounds: the names live on the server only, and are made again from their numbers where needed.
//! Not here: the load itself (`run.rs`), what the server says (`watch.rs`). Tests: `tests/`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ringway_client::{Client, Registered};
use serde::{Deserialize, Serialize};

use crate::config::{LoadConfig, LoadSpec, Protocol};
use crate::driver::{Driver, with_driver};
use crate::error::{ConfigError, LoadError};
use crate::names::NameMaker;
use crate::report::{Progress, Report};
use crate::run::{judge, measure, prepare};
use crate::watch::{Numbers, Watch, connect};

/// Names in one call of the registering client.
const CHUNK: u64 = 16_384;
/// Names that are asked for until all of them are free.
const PROBES: u64 = 64;
/// Time between two questions how far the sweep is. They take the load's core for some
/// microseconds each.
const GLANCE: Duration = Duration::from_millis(2);

/// What a sweep came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepReport {
    /// The load, as typed.
    pub spec: LoadSpec,
    /// Names of the session that ended.
    pub doomed: u64,
    /// The load while nothing else went on.
    pub calm: Report,
    /// The same load from the end of the session until the last name was swept.
    pub during: Report,
    /// Milliseconds from the end of the connection until a query saw no name owned any more.
    pub free_ms: f64,
    /// Milliseconds until the last record was swept.
    pub swept_ms: f64,
    /// The server's longest turn meanwhile.
    pub worst_turn_ms: f64,
}

/// Registers `doomed` names in a bare session, ends it while the load runs, and says what the load
/// felt.
pub fn sweep(
    config: &LoadConfig,
    doomed: u64,
    stop: &AtomicBool,
    mut progress: impl FnMut(&Progress),
) -> Result<SweepReport, LoadError> {
    let spec = &config.spec;
    if spec.protocol == Protocol::Keys {
        return Err(ConfigError::SweepKeys.into());
    }
    crate::config::range("doomed", doomed as f64, 1.0, 1e9)?;
    // Behind the names of the load and those that it churns.
    let first = spec.names.count + spec.churn;
    let names = Doomed { maker: NameMaker::new(&spec.names, first + doomed)?, first, doomed };
    with_driver(config, stop, &mut progress, |driver| {
        let prefill = prepare(config, driver)?;
        let mut watch = Watch::connect(config).ok_or(LoadError::NotRingway(config.addr))?;
        let owner = names.register(config)?;
        let calm = driver.phase(measure(config, "calm"))?;
        let calm = judge(config, driver, calm, prefill)?;
        let before = watch.ask().ok_or(LoadError::NotRingway(config.addr))?;
        let (during, ended) = end_during(config, driver, |begun, enough| {
            names.end(config, owner, (&mut watch, &before), (begun, enough))
        })?;
        let during = judge(config, driver, during, None)?;
        let Ended { free, swept, worst_turn_ms } = ended;
        let [free_ms, swept_ms] = [free, swept].map(|span| span.as_secs_f64() * 1e3);
        let spec = spec.clone();
        Ok(SweepReport { spec, doomed, calm, during, free_ms, swept_ms, worst_turn_ms })
    })
}

/// Runs the load while `work` does its part from the window's beginning on, on a thread of its own.
fn end_during<T: Send>(
    config: &LoadConfig,
    driver: &mut Driver<'_>,
    work: impl FnOnce(&Receiver<()>, &AtomicBool) -> Result<T, LoadError> + Send,
) -> Result<(crate::driver::Gathered, T), LoadError> {
    let enough = driver.enough();
    std::thread::scope(|scope| {
        let (tell, begun) = channel();
        let working = scope.spawn(move || {
            let done = work(&begun, enough);
            enough.store(true, Ordering::Relaxed);
            done
        });
        let measured = driver.phase_from(measure(config, "sweep"), &mut || {
            // A worker that has failed already says so itself.
            let _ = tell.send(());
        });
        drop(tell);
        let done = working.join().map_err(|_| LoadError::ThreadDied)?;
        Ok((measured?, done?))
    })
}

/// The names of the session that is to end.
struct Doomed {
    maker: NameMaker,
    first: u64,
    doomed: u64,
}

/// How the end went.
struct Ended {
    free: Duration,
    swept: Duration,
    worst_turn_ms: f64,
}

impl Doomed {
    /// Every `step`-th name from the `from`-th to before the `to`-th.
    fn names(&self, from: u64, to: u64, step: u64) -> Vec<Vec<u8>> {
        let name = |index| {
            let mut name = vec![0; self.maker.length()];
            self.maker.write(self.first + index, &mut name);
            name
        };
        (from..to).step_by(step as usize).map(name).collect()
    }

    /// Registers them all in a session that lives as long as its connection.
    fn register(&self, config: &LoadConfig) -> Result<Client, LoadError> {
        let mut client = connect(config)?;
        for from in (0..self.doomed).step_by(CHUNK as usize) {
            let names = self.names(from, (from + CHUNK).min(self.doomed), 1);
            for outcome in client.register(&slices(&names))? {
                let said = match outcome {
                    Ok(Registered::Granted(_)) => continue,
                    Ok(Registered::Held(_)) => "HELD".to_owned(),
                    Err(refusal) => refusal.to_string(),
                };
                return Err(LoadError::Doomed { said });
            }
        }
        Ok(client)
    }

    /// Drops the connection once the window has begun, and watches the names go.
    fn end(
        &self,
        config: &LoadConfig,
        owner: Client,
        (watch, before): (&mut Watch, &Numbers),
        (begun, enough): (&Receiver<()>, &AtomicBool),
    ) -> Result<Ended, LoadError> {
        let probes = self.names(0, self.doomed, (self.doomed / PROBES).max(1));
        let mut prober = connect(config)?;
        begun.recv().map_err(|_| LoadError::ThreadDied)?;
        let ended = Instant::now();
        drop(owner);
        let patient = || ended.elapsed() < config.duration + config.timeout;
        let mut free = None;
        while free.is_none() && patient() {
            let owners = prober.query(&slices(&probes))?;
            free = owners.iter().all(|owner| matches!(owner, Ok(None))).then(|| ended.elapsed());
        }
        let not_swept = |left| LoadError::NotSwept { left, seconds: ended.elapsed().as_secs_f64() };
        let free = free.ok_or_else(|| not_swept(self.doomed))?;
        loop {
            let now = watch.ask().ok_or(LoadError::NotRingway(config.addr))?;
            let swept = now.swept_names - before.swept_names;
            if swept >= self.doomed {
                enough.store(true, Ordering::Relaxed);
                let worst_turn_ms = now.worst_turn_ms(before);
                return Ok(Ended { free, swept: ended.elapsed(), worst_turn_ms });
            }
            if !patient() {
                return Err(not_swept(self.doomed - swept));
            }
            std::thread::park_timeout(GLANCE);
        }
    }
}

fn slices(names: &[Vec<u8>]) -> Vec<&[u8]> {
    names.iter().map(Vec::as_slice).collect()
}

impl fmt::Display for SweepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SweepReport { doomed, calm, during, free_ms, swept_ms, worst_turn_ms, .. } = self;
        writeln!(
            f,
            "calm\n{calm}\n\nwhile {doomed} names of a dead session are swept\n{during}\n"
        )?;
        writeln!(f, "free       {free_ms:.1} ms after the end of the connection")?;
        writeln!(f, "swept      {swept_ms:.1} ms")?;
        write!(f, "worst turn {worst_turn_ms:.3} ms of the server")
    }
}
