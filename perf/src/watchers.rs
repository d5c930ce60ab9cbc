//! Many that watch one prefix, and one among them that never reads: what the others feel of it.
//!
//! Rounds take turns: in one all watchers read; in the next there is one more, on a connection of
//! its own, that reads nothing. In both the same names change, one after the other, and each
//! change is timed from asking for it until the last of those who read has heard it.
//!
//! The one that does not read also watches names of its own. They change before the round is
//! measured, until the server says that it passed over a watcher which did not read, and then for
//! as many bytes of notices again as was asked for: so its round begins with all it may cost.
//!
//! Invariants:
//! - W1  Everyone who reads hears of every change once, as what it was, before the next is made.
//! - W2  The one that does not read keeps its connection. When it reads at last, it has less to
//!   read than was told to it.
//!
//! Bounds: one thread; a descriptor for each watcher. Tests: below; whole runs in
//! `tools/ringway/tests`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringway_client::reply::{plain_result, register_result, watch_result};
use ringway_client::{Events, Mode, Op, Refusal, Registered, WatchId, WatchOrder};
use ringway_coord_proto::wire::{FrameHeader, KIND_PUSH, Reply, next_op, push};
use ringway_core::limits::FRAME_OPS_MAX;
use ringway_core::wire::Reader;
use serde::{Deserialize, Serialize};

use crate::config::{Login, Protocol, range, resolve, seconds};
use crate::error::{Broken, ConfigError, LoadError};
use crate::latency::{Latencies, Quantiles};
use crate::links::{Links, Teller, late, nothing_else};
use crate::net::{Door, pin, raise_descriptors};
use crate::proc::Process;
use crate::report::Progress;
use crate::watch::Watch;

/// What all watch.
const WATCHED: &[u8] = b"load/watched/";
/// What only the one watches that does not read.
const UNREAD: &[u8] = b"load/unread/";
/// Names that change for it, in one frame.
const UNREAD_NAMES: usize = FRAME_OPS_MAX / 4;
/// Bytes of a notice of one of them.
const UNREAD_NOTICE_BYTES: u64 = 64;
/// A server that says nothing of a watcher that does not read after so many bytes does not know.
const UNREAD_BYTES_MAX: u64 = 256 << 20;
/// Who makes the changes.
const CHANGER: usize = 0;
/// Longest wait for what may come.
const NAP_NS: u64 = 5_000_000;

/// A load of watchers as typed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchersSpec {
    /// What the report calls this run.
    pub label: String,
    /// The server: host:port.
    pub target: String,
    /// Connections that watch and read.
    pub watchers: usize,
    /// Changes of one round.
    pub changes: usize,
    /// Rounds of each kind: all read, and one does not.
    pub rounds: usize,
    /// MiB of notices for the one that does not read, beyond those that it takes until the server
    /// passes it over.
    pub unread_mib: u64,
    /// Seconds to wait for a connection, and for those who read to hear of a change.
    pub timeout_s: f64,
    /// Poll without sleeping: the server would wake us for nearly every watcher.
    pub spin: bool,
    /// The core to pin the load thread to.
    pub core: Option<usize>,
    /// The server's process id: its CPU time and memory.
    pub pid: Option<u32>,
    /// Who connects, if the server asks. Not part of scenario files.
    #[serde(skip)]
    pub credentials: Option<Login>,
}

impl Default for WatchersSpec {
    /// Ten thousand that read, 20 changes a round, five rounds of each kind.
    fn default() -> Self {
        WatchersSpec {
            label: String::new(),
            target: "127.0.0.1:7400".into(),
            watchers: 10_000,
            changes: 20,
            rounds: 5,
            unread_mib: 16,
            timeout_s: 30.0,
            spin: true,
            core: None,
            pid: None,
            credentials: None,
        }
    }
}

/// A load of watchers as checked.
#[derive(Clone, Debug)]
pub struct WatchersConfig {
    spec: WatchersSpec,
    addr: SocketAddr,
    timeout: Duration,
}

impl WatchersConfig {
    /// Checks a load; the error says which setting to change.
    pub fn new(spec: WatchersSpec) -> Result<WatchersConfig, ConfigError> {
        let addr = resolve(&spec.target)?;
        range("watchers", spec.watchers as f64, 1.0, 1e6)?;
        range("changes", spec.changes as f64, 2.0, 1e6)?;
        range("rounds", spec.rounds as f64, 1.0, 1e4)?;
        range("unread_mib", spec.unread_mib as f64, 0.0, 1024.0)?;
        range("timeout_s", spec.timeout_s, 0.01, 3600.0)?;
        let timeout = seconds(spec.timeout_s);
        Ok(WatchersConfig { spec, addr, timeout })
    }
}

/// What a load of watchers came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatchersReport {
    /// The load, as typed.
    pub spec: WatchersSpec,
    /// The rounds in which all read.
    pub calm: Heard,
    /// The rounds in which one does not.
    pub stuck: Heard,
    /// The time until all have heard of a change, with one that does not read over without: of a
    /// pair of rounds the medians are compared, of all pairs this is the median.
    pub ratio: f64,
    /// Bytes of notices that were told to the one that does not read, in one round, at most.
    pub unread_told_bytes: u64,
    /// Bytes of buffers that the server kept for it, by its own count, at most.
    pub unread_kept_bytes: u64,
    /// Growth of the server's memory from before it came until its round ended, at most.
    pub unread_rss_bytes: Option<u64>,
    /// Bytes that it had to read when it read at last, at most: with what both kernels kept.
    pub unread_left_bytes: u64,
    /// Somebody stopped the run early.
    pub stopped: bool,
}

/// What those who read have heard in all rounds of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    /// Changes.
    pub changes: u64,
    /// From asking for a change until all who read have heard it.
    pub all: Quantiles,
    /// The same of each change, in milliseconds and in order.
    pub all_ms: Vec<f64>,
    /// From asking for a change until each of them has.
    pub each: Quantiles,
    /// The server's CPU time for a change, in milliseconds.
    pub server_cpu_ms: Option<f64>,
}

impl std::fmt::Display for WatchersReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let WatchersSpec { label, watchers, changes, rounds, .. } = &self.spec;
        if !label.is_empty() {
            writeln!(f, "{label}")?;
        }
        writeln!(f, "load       {watchers} watchers, {rounds} rounds of {changes} changes each")?;
        for (who, heard) in [("all read", &self.calm), ("one not", &self.stuck)] {
            let cpu = heard.server_cpu_ms.map_or(String::new(), |ms| format!("; CPU {ms:.1} ms"));
            writeln!(f, "{who:<11}all heard {}{cpu}", heard.all)?;
            writeln!(f, "{:<11}each heard {}", "", heard.each)?;
        }
        writeln!(f, "ratio      {:.3}", self.ratio)?;
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        let (told, kept) = (kib(self.unread_told_bytes), kib(self.unread_kept_bytes));
        let left = kib(self.unread_left_bytes);
        write!(f, "unread     {told:.0} KiB told, {kept:.0} KiB kept, {left:.0} KiB left to read")?;
        match self.unread_rss_bytes {
            Some(bytes) => write!(f, ", process grew by {:.0} KiB", kib(bytes)),
            None => Ok(()),
        }
    }
}

/// Lets names change and times who hears of it, in rounds. `stop` ends it early; `progress` is
/// called about once a second.
pub fn run_watchers(
    config: &WatchersConfig,
    stop: &AtomicBool,
    mut progress: impl FnMut(&Progress),
) -> Result<WatchersReport, LoadError> {
    let spec = &config.spec;
    // The changer, who does not read, and who asks the server.
    raise_descriptors(spec.watchers + 3)?;
    if let Some(core) = spec.core {
        pin(core)?;
    }
    let mut teller = Teller::new(&mut progress);
    let mut crowd = Crowd::new(config)?;
    crowd.connect(&mut teller)?;
    let (mut calm, mut stuck) = (Measured::default(), Measured::default());
    let mut unread = Unread::default();
    for _ in 0..spec.rounds {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        crowd.round(&mut calm, &mut teller)?;
        let one = crowd.begin_unread()?;
        crowd.round(&mut stuck, &mut teller)?;
        unread.add(&crowd.end_unread(one)?);
    }
    let (calm, stuck) = (calm.heard(), stuck.heard());
    Ok(WatchersReport {
        spec: spec.clone(),
        ratio: ratio(&calm.all_ms, &stuck.all_ms, spec.changes),
        calm,
        stuck,
        unread_told_bytes: unread.told,
        unread_kept_bytes: unread.kept,
        unread_rss_bytes: spec.pid.map(|_| unread.rss),
        unread_left_bytes: unread.left,
        stopped: stop.load(Ordering::Relaxed),
    })
}

/// What the medians of two rounds that followed each other compare as, in the middle of all pairs:
/// whatever else changes on the machine meanwhile mostly changes for both.
fn ratio(calm: &[f64], stuck: &[f64], changes: usize) -> f64 {
    let pairs = calm.chunks(changes).zip(stuck.chunks(changes));
    median(pairs.map(|(calm, stuck)| median(stuck.to_vec()) / median(calm.to_vec())).collect())
}

/// Zero of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (half, odd) = (values.len() / 2, values.len() % 2);
    match values.get(half) {
        None => 0.0,
        Some(upper) if odd == 1 => *upper,
        Some(upper) => f64::midpoint(*upper, values[half - 1]),
    }
}

/// The times of all rounds of one kind.
#[derive(Default)]
struct Measured {
    all: Latencies,
    all_ms: Vec<f64>,
    each: Latencies,
    cpu_ns: Option<u64>,
}

impl Measured {
    fn heard(&self) -> Heard {
        Heard {
            changes: self.all_ms.len() as u64,
            all: self.all.quantiles(),
            all_ms: self.all_ms.clone(),
            each: self.each.quantiles(),
            server_cpu_ms: self.cpu_ns.map(|ns| ns as f64 / 1e6 / self.all_ms.len().max(1) as f64),
        }
    }
}

/// What the one that does not read has cost; the most of all rounds.
#[derive(Clone, Copy, Default)]
struct Unread {
    told: u64,
    kept: u64,
    rss: u64,
    left: u64,
}

impl Unread {
    fn add(&mut self, other: &Unread) {
        self.told = self.told.max(other.told);
        self.kept = self.kept.max(other.kept);
        self.rss = self.rss.max(other.rss);
        self.left = self.left.max(other.left);
    }
}

/// The one that does not read, in its round.
struct One {
    at: usize,
    /// Before it came.
    buffers: u64,
    rss: u64,
    told: u64,
}

/// The change that is under way.
#[derive(Clone, Copy)]
struct Change {
    kind: u8,
    asked: Instant,
    answered: bool,
}

struct Crowd<'a> {
    config: &'a WatchersConfig,
    links: Links,
    watch: Watch,
    process: Option<Process>,
    /// Changes that each watcher has heard of, by its connection.
    heard: Vec<u64>,
    made: u64,
}

impl<'a> Crowd<'a> {
    fn new(config: &'a WatchersConfig) -> Result<Crowd<'a>, LoadError> {
        let spec = &config.spec;
        let process = spec.pid.map(Process::new).transpose()?;
        let watch = Watch::at(config.addr, config.timeout, spec.credentials.as_ref());
        let watch = watch.ok_or(LoadError::NotRingway(config.addr))?;
        let (links, heard) = (Links::new(config.addr)?, Vec::new());
        Ok(Crowd { config, links, watch, process, heard, made: 0 })
    }

    fn door(&self) -> Door<'a> {
        let (addr, timeout) = (self.config.addr, self.config.timeout);
        let login = self.config.spec.credentials.as_ref();
        Door { addr, protocol: Protocol::Native, login, timeout }
    }

    /// Connects the one that makes changes, and all who read.
    fn connect(&mut self, teller: &mut Teller<'_>) -> Result<(), LoadError> {
        let (door, watchers) = (self.door(), self.config.spec.watchers);
        for number in 0..=watchers {
            let at = self.links.add(door.open(number)?)?;
            if at != CHANGER {
                self.watch(at, WATCHED)?;
            }
            teller.tell("connect", number as f64 / watchers as f64, 0);
        }
        self.heard = vec![0; watchers + 1];
        Ok(())
    }

    fn watch(&mut self, at: usize, filter: &[u8]) -> Result<(), LoadError> {
        let order = WatchOrder {
            watch: WatchId(filter.len() as u32),
            events: Events::OWNERS,
            budget: 0,
            snapshot: false,
            resume: None,
            filter,
        };
        let mut refused = None;
        let each = |_: usize, reply: Reply<'_>| {
            refused = watch_result(reply).err();
            Ok(())
        };
        let call = (at, self.config.timeout);
        self.links.call(call, [Op::Watch(order)], each, &mut nothing_else)?;
        self.accept(refused)
    }

    fn accept(&self, refused: Option<Refusal>) -> Result<(), LoadError> {
        match refused {
            None => Ok(()),
            Some(refusal) => {
                let said = format!("a watch or a change was answered {refusal}");
                Err(LoadError::Greeting { addr: self.config.addr, said })
            }
        }
    }

    /// One round: a name is registered and released, and everyone who reads hears of it each time.
    fn round(&mut self, into: &mut Measured, teller: &mut Teller<'_>) -> Result<(), LoadError> {
        let cpu = |process: Option<Process>| process.map(|it| it.cpu_times()).transpose();
        let before = cpu(self.process)?;
        let name = [WATCHED, b"name"].concat();
        for number in 0..self.config.spec.changes {
            let kind = if number % 2 == 0 { push::KIND_ACQUIRED } else { push::KIND_RELEASED };
            self.change(&name, kind, into)?;
            let done = number as f64 / self.config.spec.changes as f64;
            teller.tell("measure", done, self.made * self.config.spec.watchers as u64);
        }
        if let Some((now, then)) = cpu(self.process)?.zip(before) {
            *into.cpu_ns.get_or_insert(0) += now.since(&then);
        }
        if self.config.spec.changes % 2 == 1 {
            // The next round begins with a free name.
            self.change(&name, push::KIND_RELEASED, &mut Measured::default())?;
        }
        Ok(())
    }

    /// W1: makes one change and waits until all who read have heard it.
    fn change(&mut self, name: &[u8], kind: u8, into: &mut Measured) -> Result<(), LoadError> {
        let mode = Mode::Exclusive;
        let change = match kind {
            push::KIND_ACQUIRED => Op::Register { name, mode, replicated: false },
            _ => Op::Release { name, token: None },
        };
        let mut now = Change { kind, asked: Instant::now(), answered: false };
        self.links.put(CHANGER, [change])?;
        self.links.flush(CHANGER)?;
        self.made += 1;
        let (mut left, mut refused) = (self.config.spec.watchers, None);
        let nap_ns = if self.config.spec.spin { 0 } else { NAP_NS };
        while left > 0 || !now.answered {
            if now.asked.elapsed() > self.config.timeout {
                return Err(late("not everybody heard of a change"));
            }
            let (heard, made) = (&mut self.heard, self.made);
            self.links.take(nap_ns, &mut |at, header: FrameHeader, body: &[u8]| {
                if at == CHANGER {
                    return answered(header, body, &mut now, &mut refused);
                }
                hear((header, body), name, kind)?;
                heard[at] += 1;
                if heard[at] != made {
                    return Err(Broken::Message("came twice"));
                }
                left -= 1;
                into.each.record(now.asked.elapsed().as_nanos() as u64, 1);
                Ok(())
            })?;
        }
        let all = now.asked.elapsed();
        into.all.record(all.as_nanos() as u64, 1);
        into.all_ms.push(all.as_secs_f64() * 1e3);
        self.accept(refused)
    }

    /// Connects the one that does not read, and tells it more than it may cost.
    fn begin_unread(&mut self) -> Result<One, LoadError> {
        let (buffers, passed_over) = self.numbers()?;
        let rss = self.rss()?;
        let at = self.links.add(self.door().open(self.config.spec.watchers + 1)?)?;
        self.watch(at, WATCHED)?;
        self.watch(at, UNREAD)?;
        self.links.ignore(at)?;
        let mut one = One { at, buffers, rss, told: 0 };
        while self.numbers()?.1 == passed_over {
            if one.told > UNREAD_BYTES_MAX {
                return Err(late("the server passed over nobody who did not read"));
            }
            self.tell_unread(&mut one)?;
        }
        let most = one.told + (self.config.spec.unread_mib << 20);
        while one.told < most {
            self.tell_unread(&mut one)?;
        }
        Ok(one)
    }

    /// Changes that only the one hears of that does not read.
    fn tell_unread(&mut self, one: &mut One) -> Result<(), LoadError> {
        let names: Vec<_> =
            (0..UNREAD_NAMES).map(|name| [UNREAD, &name.to_le_bytes()[..3]].concat()).collect();
        let mode = Mode::Exclusive;
        let register = |name| Op::Register { name, mode, replicated: false };
        let release = |name| Op::Release { name, token: None };
        let call = (CHANGER, self.config.timeout);
        let mut refused = None;
        for registers in [true, false] {
            let ops = names.iter().map(|name| match registers {
                true => register(name.as_slice()),
                false => release(name.as_slice()),
            });
            let each = |_: usize, reply: Reply<'_>| {
                let refusal = match registers {
                    true => register_result(reply).err(),
                    false => plain_result(reply).err(),
                };
                refused = refused.or(refusal);
                Ok(())
            };
            self.links.call(call, ops, each, &mut nothing_else)?;
            one.told += UNREAD_NAMES as u64 * UNREAD_NOTICE_BYTES;
        }
        self.accept(refused)
    }

    /// W2: lets the one read at last, and says what it has cost.
    fn end_unread(&mut self, one: One) -> Result<Unread, LoadError> {
        let kept = self.numbers()?.0.saturating_sub(one.buffers);
        let rss = self.rss()?.saturating_sub(one.rss);
        self.links.hear(one.at)?;
        // The last change of the round is the newest of its name: it hears of that, or of a gap.
        let (mut left, mut caught_up) = (0, false);
        let patience = Instant::now() + self.config.timeout;
        while !caught_up {
            if Instant::now() > patience {
                return Err(late("who reads at last did not hear of the newest change"));
            }
            self.links.take(NAP_NS, &mut |at, header: FrameHeader, body: &[u8]| {
                if at != one.at || header.kind != KIND_PUSH {
                    return Err(Broken::Unasked);
                }
                left += header.len as u64;
                let mut notices = body;
                while let Some(notice) = next_op(&mut notices) {
                    let watch = u32::from_le_bytes(*notice.body.first_chunk().unwrap_or(&[0; 4]));
                    caught_up |= watch == WATCHED.len() as u32;
                }
                Ok(())
            })?;
        }
        self.links.close(one.at);
        Ok(Unread { told: one.told, kept, rss, left })
    }

    /// Bytes of buffers of all shards, and how often watchers were passed over.
    fn numbers(&mut self) -> Result<(u64, u64), LoadError> {
        let numbers = self.watch.ask().ok_or(LoadError::NotRingway(self.config.addr))?;
        Ok((numbers.buffer_bytes, numbers.watchers_passed_over))
    }

    fn rss(&self) -> Result<u64, LoadError> {
        self.process.map_or(Ok(0), |process| process.rss_bytes())
    }
}

/// The one that makes changes was answered.
fn answered(
    header: FrameHeader,
    body: &[u8],
    change: &mut Change,
    refused: &mut Option<Refusal>,
) -> Result<(), Broken> {
    change.answered = true;
    crate::links::replies(header, body, &mut |_, reply| {
        *refused = match change.kind {
            push::KIND_ACQUIRED => match register_result(reply) {
                Ok(Registered::Granted(_)) => None,
                Ok(Registered::Held(_)) => Some(Refusal::of(&reply)),
                Err(refusal) => Some(refusal),
            },
            _ => plain_result(reply).err(),
        };
        Ok(())
    })
}

/// What a watcher was told must be the change that was made, and nothing else.
fn hear((header, mut body): (FrameHeader, &[u8]), name: &[u8], kind: u8) -> Result<(), Broken> {
    let notice = next_op(&mut body).filter(|_| header.kind == KIND_PUSH && header.count == 1);
    let notice = notice.filter(|_| body.is_empty()).ok_or(Broken::Unasked)?;
    if notice.code != push::EVENT {
        return Err(Broken::Notice(notice.code));
    }
    let mut event = Reader::new(notice.body);
    let mut read = || {
        let watch = event.u32()?;
        let (_shard, flags, what) = (event.u8()?, event.u8()?, event.u8()?);
        let (_epoch, _sequence) = (event.u32()?, event.u64()?);
        let (_session, _token) = (event.u64()?, event.u64()?);
        Ok::<_, ringway_core::wire::Truncated>((watch, flags, what, event.short_bytes()?))
    };
    let told = read().map_err(|_| Broken::Body)?;
    let is_right = told == (WATCHED.len() as u32, 0, kind, name) && event.is_empty();
    if is_right { Ok(()) } else { Err(Broken::Message("tells of another change")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that becomes twice as slow in the middle does not look like a delay: rounds are
    /// compared with their neighbours. A delay in every pair does.
    #[test]
    fn rounds_are_compared_with_their_neighbours() {
        let calm = [1.0, 1.0, 9.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0];
        let stuck = [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 9.0];
        assert_eq!(ratio(&calm, &stuck, 3), 1.0);
        let delayed = stuck.map(|ms| ms * 1.5);
        assert_eq!(ratio(&calm, &delayed, 3), 1.5);
        assert_eq!((median(vec![]), median(vec![4.0, 1.0])), (0.0, 2.5));
    }
}
