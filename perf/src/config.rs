//! A load as typed ([`LoadSpec`]) and as checked ([`LoadConfig`]).
//!
//! The spec is what a scenario file or a command line fills in; every field has a default and a
//! doc comment that says what it does. The config is made from it once, and holds no text that
//! could still be wrong.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use ringway_client::Credentials;
use ringway_core::limits::{FRAME_BYTES_MAX, FRAME_OPS_MAX};
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::mix::Mix;
use crate::names::{NameMaker, NameSpec};
use crate::tally::Expect;

/// What is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Ringway's batch protocol.
    #[default]
    Native,
    /// RESP with `PORT.QUERY`, `PORT.REGISTER`, `PORT.RELEASE`.
    Port,
    /// RESP with `GET`, `SET .. NX [PX]`, `DEL`: against Redis, or against Ringway with `px_ms`.
    Keys,
}

/// A load as typed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadSpec {
    /// What the report calls this run.
    pub label: String,
    /// The server: host:port.
    pub target: String,
    /// What is spoken: native, port or keys.
    pub protocol: Protocol,
    /// Load threads; each has connections of its own.
    pub threads: usize,
    /// The cores to pin the threads to, one each; none: not pinned.
    pub cores: Vec<usize>,
    /// Connections over all threads. From loopback more than 20000 use several source addresses.
    pub connections: usize,
    /// Requests on the way on one connection at once. With a rate this is the most; what is due
    /// beyond it waits in the generator, and its latency counts from when it was due.
    pub pipeline: usize,
    /// Ops in one native frame, or names in one PORT command. One for keys.
    pub frame: usize,
    /// Open loop: ops a second over all threads, sent when due, whatever the server does.
    /// Absent: closed loop, every reply makes the next request.
    pub rate: Option<f64>,
    /// Shares of the ops: `query=90,register=5,release=5`. Without releases every register takes a
    /// fresh name.
    pub mix: Mix,
    /// The names that queries pick from.
    pub names: NameSpec,
    /// Names that registers and releases work on, beside those of the queries: every connection
    /// has an equal share of its own and holds half of it in the long run.
    pub churn: u64,
    /// Register all names of the queries before the run, over the run's own connections.
    pub prefill: bool,
    /// What the queried names must be: any, owned or free; anything else fails the run.
    pub expect: Expect,
    /// Bytes of a value that `keys` sets.
    pub value_bytes: usize,
    /// The lease of a key in milliseconds (`PX`); Ringway needs one, plain Redis keys have none.
    pub px_ms: Option<u64>,
    /// Seconds of load before measuring begins.
    pub warmup_s: f64,
    /// Seconds of measuring.
    pub duration_s: f64,
    /// Stop after this many measured ops, if that comes first.
    pub ops: Option<u64>,
    /// Seconds to wait for replies that are due at the end, and for connecting.
    pub timeout_s: f64,
    /// Poll without sleeping: no wake-up delays in the latencies, but the core is always busy.
    pub spin: bool,
    /// The server's process id: its CPU time over the measured window, and its memory.
    pub pid: Option<u32>,
    /// Who connects, if the server asks. Not part of scenario files.
    #[serde(skip)]
    pub credentials: Option<Login>,
}

/// Credentials that compare, for the spec's sake, and do not print their password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({}, ..)", self.user)
    }
}

impl From<&Login> for Credentials {
    fn from(login: &Login) -> Credentials {
        Credentials { user: login.user.clone(), password: login.password.clone() }
    }
}

impl Default for LoadSpec {
    /// Native queries in frames of 64, 8 on the way on each of 16 connections, for ten seconds.
    fn default() -> Self {
        LoadSpec {
            label: String::new(),
            target: "127.0.0.1:7400".into(),
            protocol: Protocol::Native,
            threads: 1,
            cores: Vec::new(),
            connections: 16,
            pipeline: 8,
            frame: 64,
            rate: None,
            mix: Mix::default(),
            names: NameSpec::default(),
            churn: 1_000_000,
            prefill: false,
            expect: Expect::Any,
            value_bytes: 16,
            px_ms: None,
            warmup_s: 1.0,
            duration_s: 10.0,
            ops: None,
            timeout_s: 10.0,
            spin: true,
            pid: None,
            credentials: None,
        }
    }
}

/// A load as checked.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// What was typed; every number in it is within its bounds.
    pub(crate) spec: LoadSpec,
    pub(crate) addr: SocketAddr,
    pub(crate) names: NameMaker,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    pub(crate) timeout: Duration,
}

impl LoadConfig {
    /// Checks a load; the error says which setting to change.
    pub fn new(spec: LoadSpec) -> Result<LoadConfig, ConfigError> {
        let addr = resolve(&spec.target)?;
        check_ranges(&spec)?;
        if spec.threads > spec.connections {
            let (threads, connections) = (spec.threads, spec.connections);
            return Err(ConfigError::Threads { threads, connections });
        }
        if !spec.cores.is_empty() && spec.cores.len() != spec.threads {
            let (cores, threads) = (spec.cores.len(), spec.threads);
            return Err(ConfigError::Cores { cores, threads });
        }
        if spec.protocol == Protocol::Keys && spec.frame != 1 {
            return Err(ConfigError::KeysFrame);
        }
        let churned = if spec.mix.registers() { check_churn(&spec)? } else { 0 };
        let names = NameMaker::new(&spec.names, spec.names.count.saturating_add(churned))?;
        if spec.protocol == Protocol::Native {
            let most = (FRAME_BYTES_MAX - 16) / (4 + spec.names.length);
            range("frame", spec.frame as f64, 1.0, most.min(FRAME_OPS_MAX) as f64)?;
        }
        let (warmup, duration) = (seconds(spec.warmup_s), seconds(spec.duration_s));
        let timeout = seconds(spec.timeout_s);
        Ok(LoadConfig { spec, addr, names, warmup, duration, timeout })
    }

    /// What was typed.
    pub fn spec(&self) -> &LoadSpec {
        &self.spec
    }
}

pub(crate) fn resolve(target: &str) -> Result<SocketAddr, ConfigError> {
    let wrong = || ConfigError::Target(target.to_owned());
    target.to_socket_addrs().map_err(|_| wrong())?.next().ok_or_else(wrong)
}

pub(crate) fn seconds(given: f64) -> Duration {
    Duration::from_secs_f64(given)
}

pub(crate) fn range(
    what: &'static str,
    given: f64,
    low: f64,
    high: f64,
) -> Result<(), ConfigError> {
    if given >= low && given <= high {
        return Ok(());
    }
    Err(ConfigError::Range { what, given, low, high })
}

fn check_ranges(spec: &LoadSpec) -> Result<(), ConfigError> {
    range("threads", spec.threads as f64, 1.0, 256.0)?;
    range("connections", spec.connections as f64, 1.0, 1e6)?;
    range("pipeline", spec.pipeline as f64, 1.0, 65_536.0)?;
    range("frame", spec.frame as f64, 1.0, FRAME_OPS_MAX as f64)?;
    range("rate", spec.rate.unwrap_or(1.0), 0.001, 1e9)?;
    range("value_bytes", spec.value_bytes as f64, 0.0, 65_536.0)?;
    range("warmup_s", spec.warmup_s, 0.0, 86_400.0)?;
    range("duration_s", spec.duration_s, 0.001, 7.0 * 86_400.0)?;
    range("timeout_s", spec.timeout_s, 0.01, 3600.0)?;
    range("names.count", spec.names.count as f64, 1.0, 1e12)?;
    range("ops", spec.ops.unwrap_or(1) as f64, 1.0, 1e18)
}

/// Every lane must hold a request's worth of names in either half.
fn check_churn(spec: &LoadSpec) -> Result<u64, ConfigError> {
    let need = (spec.connections * spec.frame * 3) as u64;
    if spec.churn < need {
        let (given, connections) = (spec.churn, spec.connections);
        return Err(ConfigError::Churn { given, connections, need });
    }
    Ok(spec.churn)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut LoadSpec)) -> String {
        let mut spec = LoadSpec::default();
        change(&mut spec);
        LoadConfig::new(spec).expect_err("refused").to_string()
    }

    /// The defaults are a load that runs; each mistake is told with what to give instead.
    #[test]
    fn mistakes_are_told_with_a_remedy() {
        LoadConfig::new(LoadSpec::default()).expect("the defaults are valid");
        assert!(refusal(|s| s.target = "nowhere".into()).contains("give host:port"));
        assert!(refusal(|s| s.threads = 17).contains("every thread needs one"));
        assert!(refusal(|s| s.cores = vec![0, 1]).contains("one core for each thread"));
        assert!(refusal(|s| s.pipeline = 0).contains("give 1 to 65536"));
        assert!(refusal(|s| s.duration_s = f64::NAN).contains("duration_s"));
        assert!(refusal(|s| s.protocol = Protocol::Keys).contains("set frame to 1"));
        assert!(refusal(|s| s.names.length = 0).contains("1 to 255"));
        let large = |s: &mut LoadSpec| {
            s.frame = 4096;
            s.names.length = 255;
        };
        assert!(refusal(large).contains("give 1 to 1012"), "{}", refusal(large));
        let few = |s: &mut LoadSpec| {
            s.mix = "register=1,release=1".parse().expect("valid");
            s.churn = 100;
        };
        assert!(refusal(few).contains("give 3072"));
    }
}
