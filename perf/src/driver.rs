//! Runs phases on all load threads at once, samples the server, and tells the progress.
//!
//! The caller's thread drives: it hands every load thread the next phase, wakes once a second and
//! at the edges of the window, and gathers the outcomes. It shares nothing with the hot loops but
//! two counters a thread.
//!
//! The server's CPU time and the ops it is divided by are sampled at the same instants, so a late
//! sample does not distort their ratio.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::config::{LoadConfig, Protocol};
use crate::error::LoadError;
use crate::latency::Latencies;
use crate::net::{Door, pin, raise_descriptors};
use crate::proc::{CpuTimes, Process};
use crate::report::{Progress, Second};
use crate::source::{Lane, Source, Task};
use crate::tally::Tally;
use crate::wire::Wire;
use crate::wire::native::Native;
use crate::wire::resp::{Dialect, Resp};
use crate::worker::{Gauge, Outcome, Phase, Shared, Worker};

/// Time between two progresses.
const TICK_NS: u64 = 1_000_000_000;
/// Time for all threads to take a phase up before it begins.
const LEAD_NS: u64 = 2_000_000;

/// A phase as the caller asks for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) name: &'static str,
    pub(crate) task: Task,
    /// Before measuring, and measuring; `None`: until the task is done.
    pub(crate) window: Option<(Duration, Duration)>,
    pub(crate) ops_max: Option<u64>,
    pub(crate) rate: Option<f64>,
    pub(crate) tolerant: bool,
    /// Ops of the whole task, for the progress.
    pub(crate) size: u64,
}

/// What a phase came to over all threads.
#[derive(Clone, Debug)]
pub(crate) struct Gathered {
    pub(crate) tally: Tally,
    pub(crate) latencies: Latencies,
    pub(crate) window_ops: u64,
    pub(crate) window_s: f64,
    pub(crate) cpu_ns: u64,
    pub(crate) idle_ns: u64,
    pub(crate) unsent: u64,
    pub(crate) unanswered: u64,
    pub(crate) seconds: Vec<Second>,
    /// Server CPU time and ops between the same two instants, and the seconds between them.
    pub(crate) server: Option<ServerSpan>,
}

/// What the server did between two samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerSpan {
    pub(crate) cpu_ns: u64,
    pub(crate) ops: u64,
    pub(crate) seconds: f64,
}

type Reply = Result<Option<Outcome>, LoadError>;

/// The load threads, connected and waiting.
pub(crate) struct Driver<'a> {
    shared: Shared<'a>,
    config: &'a LoadConfig,
    gauges: &'a [Gauge],
    asks: Vec<Sender<(Phase, Tally)>>,
    replies: Receiver<Reply>,
    process: Option<Process>,
    progress: &'a mut dyn FnMut(&Progress),
    last_tick: (u64, u64),
}

struct Sample {
    at_ns: u64,
    cpu: CpuTimes,
    ops: u64,
}

/// Connects all threads, lets `work` drive them, and ends them.
pub(crate) fn with_driver<R>(
    config: &LoadConfig,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&Progress),
    work: impl FnOnce(&mut Driver<'_>) -> Result<R, LoadError>,
) -> Result<R, LoadError> {
    let spec = &config.spec;
    let process = spec.pid.map(Process::new).transpose()?;
    raise_descriptors(spec.connections)?;
    let gauges: Vec<Gauge> = (0..spec.threads).map(|_| Gauge::default()).collect();
    let (abort, enough) = (AtomicBool::new(false), AtomicBool::new(false));
    let shared = Shared {
        addr: config.addr,
        base: Instant::now(),
        stop,
        enough: &enough,
        abort: &abort,
        pipeline: spec.pipeline,
        threads: spec.threads,
        lanes: spec.connections as u64,
        timeout: config.timeout,
        spin: spec.spin,
    };
    std::thread::scope(|scope| {
        let (reply, replies) = channel();
        let mut asks = Vec::new();
        for (thread, gauge) in gauges.iter().enumerate() {
            let (ask, phases) = channel();
            asks.push(ask);
            let reply = reply.clone();
            let station = Station { thread, gauge, inbox: phases, reply };
            scope.spawn(move || serve(config, shared, &station));
        }
        drop(reply);
        let gauges = &gauges;
        let last_tick = (0, 0);
        let mut driver =
            Driver { shared, config, gauges, asks, replies, process, progress, last_tick };
        let result = driver.wait_connected().and_then(|()| work(&mut driver));
        abort.store(true, Ordering::Relaxed);
        result
    })
}

/// What a load thread has of its own: its number, its gauge, and the line to the driver.
struct Station<'a> {
    thread: usize,
    gauge: &'a Gauge,
    inbox: Receiver<(Phase, Tally)>,
    reply: Sender<Reply>,
}

/// The life of a load thread: connect, then one phase after the other.
fn serve(config: &LoadConfig, shared: Shared<'_>, station: &Station<'_>) {
    let spec = &config.spec;
    let length = config.names.length();
    let (value_bytes, px_ms) = (spec.value_bytes, spec.px_ms);
    let resp = |dialect| Resp::new(dialect, spec.frame, length);
    let result = match spec.protocol {
        Protocol::Native => serve_as(Native::new(spec.frame), config, shared, station),
        Protocol::Port => serve_as(resp(Dialect::Port), config, shared, station),
        Protocol::Keys => {
            serve_as(resp(Dialect::Keys { value_bytes, px_ms }), config, shared, station)
        }
    };
    if let Err(error) = result {
        shared.abort.store(true, Ordering::Relaxed);
        // The driver may have given up already.
        let _ = station.reply.send(Err(error));
    }
}

fn serve_as<W: Wire>(
    wire: W,
    config: &LoadConfig,
    shared: Shared<'_>,
    station: &Station<'_>,
) -> Result<(), LoadError> {
    let spec = &config.spec;
    let &Station { thread, gauge, ref inbox, ref reply } = station;
    if let Some(core) = spec.cores.get(thread) {
        pin(*core)?;
    }
    let source = Source::new(&spec.names, config.names.clone(), &spec.mix, thread)?;
    let mut worker = Worker::new(shared, gauge, thread, wire, source)?;
    let (addr, protocol) = (config.addr, spec.protocol);
    let door = Door { addr, protocol, login: spec.credentials.as_ref(), timeout: config.timeout };
    for number in (thread..spec.connections).step_by(spec.threads) {
        if shared.abort.load(Ordering::Relaxed) || shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let (lane, lanes) = (number as u64, spec.connections as u64);
        let lane = Lane::new(spec.names.count, spec.churn, lane, lanes);
        worker.add(door.open(number)?, lane, number as u64)?;
    }
    let _ = reply.send(Ok(None));
    for (phase, tally) in inbox {
        let outcome = worker.run(phase, tally)?;
        let _ = reply.send(Ok(Some(outcome)));
    }
    Ok(())
}

impl<'a> Driver<'a> {
    fn wait_connected(&mut self) -> Result<(), LoadError> {
        for _ in 0..self.asks.len() {
            self.replies.recv().map_err(|_| LoadError::ThreadDied)??;
        }
        Ok(())
    }

    /// Whether somebody wants the run to end.
    pub(crate) fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// The server's process, if its id was given.
    pub(crate) fn process(&self) -> Option<Process> {
        self.process
    }

    /// Ends the running phase early when it is set; each phase begins with it cleared.
    pub(crate) fn enough(&self) -> &'a AtomicBool {
        self.shared.enough
    }

    /// Runs one phase on all threads.
    pub(crate) fn phase(&mut self, ask: Ask) -> Result<Gathered, LoadError> {
        self.phase_from(ask, &mut || {})
    }

    /// The same, with a call when measuring begins.
    pub(crate) fn phase_from(
        &mut self,
        ask: Ask,
        begin: &mut dyn FnMut(),
    ) -> Result<Gathered, LoadError> {
        self.shared.enough.store(false, Ordering::Relaxed);
        let threads = self.asks.len() as u64;
        let start_ns = self.shared.now() + LEAD_NS;
        let (from_ns, until_ns) = match ask.window {
            Some((warmup, duration)) => {
                let from = start_ns + warmup.as_nanos() as u64;
                (from, from + duration.as_nanos() as u64)
            }
            None => (start_ns, u64::MAX),
        };
        let ops_max = ask.ops_max.map_or(u64::MAX, |ops| ops.div_ceil(threads));
        let frame = self.config.spec.frame as f64;
        let rate = ask.rate.map(|rate| rate / frame);
        let (task, tolerant) = (ask.task, ask.tolerant);
        let phase = Phase { task, start_ns, from_ns, until_ns, ops_max, rate, tolerant };
        // Without a warm-up the first sample is taken before anybody starts: a driver that gets its
        // core late would otherwise find all of a short task done.
        let first = (from_ns == start_ns).then(|| self.sample()).transpose()?;
        for sender in &self.asks {
            let tally = Tally::new(self.config.spec.expect);
            sender.send((phase, tally)).map_err(|_| LoadError::ThreadDied)?;
        }
        self.gather((&ask, &phase), first, begin)
    }

    fn gather(
        &mut self,
        (ask, phase): (&Ask, &Phase),
        mut first: Option<Sample>,
        begin: &mut dyn FnMut(),
    ) -> Result<Gathered, LoadError> {
        let mut outcomes = Vec::new();
        let mut seconds = Vec::new();
        let mut last = None;
        let mut begun = false;
        let ops_before = first.as_ref().map_or_else(|| self.ops(), |sample| sample.ops);
        self.last_tick = (self.shared.now().min(phase.start_ns), ops_before);
        let mut tick_ns = phase.from_ns + TICK_NS;
        self.tick(ask, phase, ops_before);
        while outcomes.len() < self.asks.len() {
            let edge = match (begun, &last) {
                (false, _) => phase.from_ns,
                (_, None) => phase.until_ns,
                _ => u64::MAX,
            };
            let now = self.shared.now();
            let wake = edge.min(tick_ns).saturating_sub(now);
            match self.replies.recv_timeout(Duration::from_nanos(wake)) {
                Ok(reply) => outcomes.extend(reply?),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(LoadError::ThreadDied),
            }
            let now = self.shared.now();
            if !begun && now >= phase.from_ns {
                begun = true;
                if first.is_none() {
                    first = Some(self.sample()?);
                }
                begin();
            }
            if last.is_none() && (now >= phase.until_ns || outcomes.len() == self.asks.len()) {
                last = Some(self.sample()?);
            }
            if now >= tick_ns {
                tick_ns += TICK_NS;
                seconds.push(self.tick(ask, phase, ops_before));
            }
        }
        let span = first.zip(last).filter(|_| self.process.is_some());
        let server = span.map(|(first, last)| ServerSpan {
            cpu_ns: last.cpu.since(&first.cpu),
            ops: last.ops - first.ops,
            seconds: (last.at_ns - first.at_ns) as f64 / 1e9,
        });
        Ok(gathered(outcomes, phase, seconds, server))
    }

    fn ops(&self) -> u64 {
        self.gauges.iter().map(|gauge| gauge.ops.load(Ordering::Relaxed)).sum()
    }

    fn sample(&self) -> Result<Sample, LoadError> {
        let cpu = self.process.map(|process| process.cpu_times()).transpose()?;
        let (at_ns, ops) = (self.shared.now(), self.ops());
        Ok(Sample { at_ns, cpu: cpu.unwrap_or_default(), ops })
    }

    fn tick(&mut self, ask: &Ask, phase: &Phase, ops_before: u64) -> Second {
        let (now, ops) = (self.shared.now(), self.ops());
        let (then, ops_then) = self.last_tick;
        self.last_tick = (now, ops);
        let passed = now.saturating_sub(then).max(1) as f64 / 1e9;
        let worst = self.gauges.iter().map(|gauge| gauge.worst_ns.swap(0, Ordering::Relaxed));
        let worst_us = worst.max().unwrap_or(0) as f64 / 1e3;
        let ops_per_s = (ops - ops_then) as f64 / passed;
        let done = match ask.window {
            Some(_) => {
                let whole = (phase.until_ns - phase.start_ns) as f64;
                now.saturating_sub(phase.start_ns) as f64 / whole
            }
            None => (ops - ops_before) as f64 / ask.size.max(1) as f64,
        };
        let name = if ask.window.is_some() && now < phase.from_ns { "warm up" } else { ask.name };
        let elapsed_s = now as f64 / 1e9;
        let done = done.min(1.0);
        (self.progress)(&Progress { phase: name, elapsed_s, done, ops, ops_per_s, worst_us });
        Second { ops_per_s, worst_us }
    }
}

fn gathered(
    outcomes: Vec<Outcome>,
    phase: &Phase,
    seconds: Vec<Second>,
    server: Option<ServerSpan>,
) -> Gathered {
    let until = outcomes.iter().map(|outcome| outcome.until_ns).max().unwrap_or(phase.from_ns);
    let mut all = Gathered {
        tally: Tally::new(crate::tally::Expect::Any),
        latencies: Latencies::new(),
        window_ops: 0,
        window_s: until.saturating_sub(phase.from_ns) as f64 / 1e9,
        cpu_ns: 0,
        idle_ns: 0,
        unsent: 0,
        unanswered: 0,
        seconds,
        server,
    };
    for outcome in &outcomes {
        all.tally.merge(&outcome.tally);
        all.latencies.merge(&outcome.latencies);
        all.window_ops += outcome.window_ops;
        all.cpu_ns += outcome.cpu_ns;
        all.idle_ns += outcome.idle_ns;
        all.unsent += outcome.unsent;
        all.unanswered += outcome.unanswered;
    }
    all
}
