//! What a run came to: plain data, as JSON and as a table for people.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::LoadSpec;
use crate::latency::Quantiles;

/// How a run is going.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// What is being done: connect, fill, warm up, measure, release, churn, open, renew.
    pub phase: &'static str,
    /// Seconds since the run began.
    pub elapsed_s: f64,
    /// How much of the phase is done, from 0 to 1; zero where nobody knows.
    pub done: f64,
    /// Replies since the run began.
    pub ops: u64,
    /// Replies a second since the last progress.
    pub ops_per_s: f64,
    /// The slowest reply since the last progress.
    pub worst_us: f64,
}

/// What the server used during the window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerUse {
    /// CPU time over wall time; more than 1 on several cores.
    pub cpu_share: f64,
    /// CPU time per op.
    pub cpu_us_per_op: f64,
    /// Ops per second of CPU time: what to compare servers by.
    pub ops_per_cpu_s: f64,
    /// Memory in RAM at the end of the window.
    pub rss_bytes: u64,
}

/// What the generator used during the window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OwnUse {
    /// The part of the window that the threads were not idle. Near 1 the generator is the limit.
    pub busy_share: f64,
    /// CPU time of the threads per op, without polling in vain.
    pub cpu_ns_per_op: f64,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The load, as typed.
    pub spec: LoadSpec,
    /// Seconds that were measured.
    pub window_s: f64,
    /// Ops answered within them.
    pub ops: u64,
    /// Ops a second.
    pub ops_per_s: f64,
    /// Closed loop: since sending. Open loop: since the intended time.
    pub latency: Quantiles,
    /// Replies by what they said, warm-up included.
    pub statuses: BTreeMap<String, u64>,
    /// Replies that should not have come; more than none fails the run.
    pub unexpected: u64,
    /// Open loop: ops that were due and could not be sent. Their latency until the end counts.
    pub unsent: u64,
    /// Requests without a reply at the end.
    pub unanswered: u64,
    /// The server, if its process id was given.
    pub server: Option<ServerUse>,
    /// The generator.
    pub own: OwnUse,
    /// The filling before the run, if there was one.
    pub prefill: Option<FillStep>,
    /// Somebody stopped the run early.
    pub stopped: bool,
}

/// One second of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Ops answered in it.
    pub ops_per_s: f64,
    /// Its slowest reply.
    pub worst_us: f64,
}

/// One step of a fill: all names of a range registered, or every second one released.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FillStep {
    /// What was done: fill, release, churn.
    pub step: String,
    /// Ops answered.
    pub ops: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// Ops a second.
    pub ops_per_s: f64,
    /// Latencies of whole requests.
    pub latency: Quantiles,
    /// The second with the fewest ops, and its slowest reply.
    pub slowest_second: Second,
    /// The slowest reply of any second.
    pub worst_us: f64,
    /// The server's longest turn, exactly if it is the longest of its life, else to a factor of
    /// two upwards; absent if the server is not Ringway.
    pub worst_turn_ms: Option<f64>,
    /// The server's memory at the end, and per name, if its process id was given.
    pub rss_bytes: Option<u64>,
    /// Growth of that memory since before the first step, per name held.
    pub rss_bytes_per_name: Option<f64>,
    /// What the server says its tables take, per name held (native protocol only).
    pub table_bytes_per_name: Option<f64>,
    /// Ops per second of the server's CPU time.
    pub ops_per_cpu_s: Option<f64>,
}

/// What a fill came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FillReport {
    /// The load, as typed.
    pub spec: LoadSpec,
    /// Names held at the end.
    pub names: u64,
    /// Its steps, in order.
    pub steps: Vec<FillStep>,
    /// Somebody stopped it early.
    pub stopped: bool,
}

/// A number with a unit prefix and three digits, as people read it.
pub(crate) fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, " G"),
        v if v >= 1e6 => (value / 1e6, " M"),
        v if v >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    match scaled.abs() {
        v if v >= 100.0 => format!("{scaled:.0}{unit}"),
        v if v >= 10.0 => format!("{scaled:.1}{unit}"),
        _ => format!("{scaled:.2}{unit}"),
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quantiles { p50_us, p90_us, p99_us, p999_us, max_us, .. } = self;
        let [p50, p90, p99, p999, max] =
            [p50_us, p90_us, p99_us, p999_us, max_us].map(|v| short(*v));
        write!(f, "p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max} us")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LoadSpec { protocol, connections, pipeline, frame, mix, names, .. } = &self.spec;
        if !self.spec.label.is_empty() {
            writeln!(f, "{}", self.spec.label)?;
        }
        writeln!(
            f,
            "load       {protocol:?} {mix}, {} names; \
             {connections} connections x {pipeline} x {frame}",
            names.count
        )?;
        if let Some(fill) = &self.prefill {
            writeln!(f, "{fill}")?;
        }
        let rate = self.spec.rate.map(|rate| format!(" of {}/s due", short(rate)));
        let (rate, early) = (rate.unwrap_or_default(), if self.stopped { ", stopped" } else { "" });
        let (per_s, seconds) = (short(self.ops_per_s), self.window_s);
        writeln!(f, "rate       {per_s} ops/s{rate} over {seconds:.1} s{early}")?;
        writeln!(f, "latency    {}", self.latency)?;
        if let Some(server) = &self.server {
            let (share, mib) = (server.cpu_share * 100.0, server.rss_bytes >> 20);
            let (each, per) = (server.cpu_us_per_op, short(server.ops_per_cpu_s));
            writeln!(
                f,
                "server     {share:.1} % CPU, {each:.4} us/op, {per} ops per CPU second, {mib} MiB"
            )?;
        }
        let (busy, each) = (self.own.busy_share * 100.0, self.own.cpu_ns_per_op);
        let limit = if busy > 95.0 { ": the generator is the limit" } else { "" };
        writeln!(f, "generator  {busy:.1} % busy, {each:.1} ns/op{limit}")?;
        if self.unsent + self.unanswered > 0 {
            let (unsent, unanswered) = (self.unsent, self.unanswered);
            writeln!(f, "backlog    {unsent} ops due but unsent, {unanswered} unanswered")?;
        }
        let words: Vec<_> = self.statuses.iter().map(|(w, count)| format!("{w} {count}")).collect();
        write!(f, "statuses   {}", words.join(", "))?;
        if self.unexpected > 0 {
            write!(f, "; {} UNEXPECTED", self.unexpected)?;
        }
        Ok(())
    }
}

impl fmt::Display for FillStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (step, ops, seconds) = (&self.step, self.ops, self.seconds);
        let (rate, slowest) = (short(self.ops_per_s), short(self.slowest_second.ops_per_s));
        let worst = short(self.worst_us);
        write!(f, "{step:<10} {ops} ops in {seconds:.1} s, {rate}/s, slowest second {slowest}/s,")?;
        write!(f, " worst {worst} us")?;
        if let Some(turn) = self.worst_turn_ms {
            write!(f, ", worst turn {turn:.3} ms")?;
        }
        if let Some(per) = self.ops_per_cpu_s {
            write!(f, ", {} ops per CPU second", short(per))?;
        }
        if let Some(bytes) = self.rss_bytes_per_name {
            write!(f, ", {bytes:.1} bytes a name")?;
        }
        if let Some(bytes) = self.table_bytes_per_name {
            write!(f, ", {bytes:.1} bytes a name in tables")?;
        }
        Ok(())
    }
}

impl fmt::Display for FillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        let early = if self.stopped { ", stopped" } else { "" };
        write!(f, "held       {} names{early}", self.names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three digits and a prefix, at every size.
    #[test]
    fn numbers_are_short() {
        let words: Vec<_> =
            [0.5, 12.34, 9_999.0, 12_345.0, 9.876e6, 123.4e6, 2e9].map(short).into();
        assert_eq!(words, ["0.50", "12.3", "9999", "12.3 k", "9.88 M", "123 M", "2.00 G"]);
    }
}
