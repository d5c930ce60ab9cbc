//! Many sessions kept alive: what their renewals cost the server, and what they weigh.
//!
//! Two shapes: connections that each carry many sessions as a gateway and renew them in batches,
//! and connections with one session each. Renewals are spread evenly over the period and timed
//! from when they were due, so a server that falls behind shows it.
//!
//! Invariants:
//! - K1  Every session is renewed once a period; a renewal that finds its session gone fails the
//!   run, because it means that an innocent session was expired.
//! - K2  A connection has at most [`DUE_MAX`] requests on the way; beyond that the run has failed.
//!
//! Bounds: 24 bytes a session, one thread. Tests: `tests/end_to_end.rs`.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringway_client::reply::{data_result, opened};
use ringway_client::{Attendance, Op, OpenRequest, Proof, Refusal};
use ringway_coord_proto::wire::{
    FRAME_HEADER_BYTES, FrameHeader, FrameWriter, KIND_REPLY, KIND_REQUEST, next_reply, status,
};
use ringway_core::NodeId;
use ringway_core::limits::FRAME_OPS_MAX;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use serde::{Deserialize, Serialize};

use crate::config::{Login, Protocol, range, resolve, seconds};
use crate::error::{Broken, ConfigError, LoadError};
use crate::latency::{Latencies, Quantiles};
use crate::net::{Door, pin, raise_descriptors};
use crate::proc::{Process, kernel_bytes};
use crate::report::{Progress, short};

/// Requests of one connection that may be on the way.
const DUE_MAX: usize = 8;
/// Bytes read at once.
const READ_BYTES: usize = 512 * 1024;

/// A load of sessions as typed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionsSpec {
    /// What the report calls this run.
    pub label: String,
    /// The server: host:port.
    pub target: String,
    /// Connections. More than 20000 use several loopback source addresses.
    pub connections: usize,
    /// Sessions of each connection: with more than one it is a gateway, which opens them without
    /// binding them to itself and renews them by id and secret; with one the session is its own.
    pub sessions: usize,
    /// The lease of each session in milliseconds.
    pub lease_ms: u64,
    /// Every session is renewed once in so many milliseconds; zero: a third of the lease.
    pub renew_ms: u64,
    /// The node of the first session; the others count up from it.
    pub first_node: u64,
    /// Seconds of renewing that are measured, after all sessions are open.
    pub duration_s: f64,
    /// Seconds to wait for a connection, and for the last replies.
    pub timeout_s: f64,
    /// The core to pin the load thread to.
    pub core: Option<usize>,
    /// The server's process id: its CPU time and memory.
    pub pid: Option<u32>,
    /// Who connects, if the server asks. Not part of scenario files.
    #[serde(skip)]
    pub credentials: Option<Login>,
}

impl Default for SessionsSpec {
    /// 100 gateways of 1000 sessions with leases of a second, for ten seconds.
    fn default() -> Self {
        SessionsSpec {
            label: String::new(),
            target: "127.0.0.1:7400".into(),
            connections: 100,
            sessions: 1000,
            lease_ms: 1000,
            renew_ms: 0,
            first_node: 1,
            duration_s: 10.0,
            timeout_s: 10.0,
            core: None,
            pid: None,
            credentials: None,
        }
    }
}

/// A load of sessions as checked.
#[derive(Clone, Debug)]
pub struct SessionsConfig {
    spec: SessionsSpec,
    addr: SocketAddr,
    period: Duration,
    timeout: Duration,
}

impl SessionsConfig {
    /// Checks a load; the error says which setting to change.
    pub fn new(spec: SessionsSpec) -> Result<SessionsConfig, ConfigError> {
        let addr = resolve(&spec.target)?;
        range("connections", spec.connections as f64, 1.0, 1e6)?;
        range("sessions", spec.sessions as f64, 1.0, 1e6)?;
        range("lease_ms", spec.lease_ms as f64, 10.0, 86_400_000.0)?;
        let renew_ms = if spec.renew_ms == 0 { spec.lease_ms / 3 } else { spec.renew_ms };
        range("renew_ms", renew_ms as f64, 1.0, spec.lease_ms as f64)?;
        range("duration_s", spec.duration_s, 0.001, 7.0 * 86_400.0)?;
        range("timeout_s", spec.timeout_s, 0.01, 3600.0)?;
        let (period, timeout) = (Duration::from_millis(renew_ms), seconds(spec.timeout_s));
        Ok(SessionsConfig { spec, addr, period, timeout })
    }
}

/// What a load of sessions came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionsReport {
    /// The load, as typed.
    pub spec: SessionsSpec,
    /// Sessions that were opened.
    pub sessions: u64,
    /// Seconds that opening them took, after connecting.
    pub open_s: f64,
    /// Seconds that were measured.
    pub window_s: f64,
    /// Sessions renewed in them.
    pub renewals: u64,
    /// Since each batch of renewals was due.
    pub latency: Quantiles,
    /// The server's CPU time over wall time, while nothing but renewing went on.
    pub server_cpu_share: Option<f64>,
    /// The same in microseconds per renewal.
    pub server_cpu_us_per_renewal: Option<f64>,
    /// Growth of the server's memory while connecting, per connection.
    pub server_bytes_per_connection: Option<f64>,
    /// Growth of the server's memory while opening, per session.
    pub server_bytes_per_session: Option<f64>,
    /// Growth of the kernel's slabs and TCP buffers per connection, both of its ends together.
    pub kernel_bytes_per_connection: f64,
    /// Somebody stopped the run early.
    pub stopped: bool,
}

impl std::fmt::Display for SessionsReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SessionsSpec { label, connections, sessions, lease_ms, .. } = &self.spec;
        if !label.is_empty() {
            writeln!(f, "{label}")?;
        }
        writeln!(f, "load       {connections} connections x {sessions} sessions, {lease_ms} ms")?;
        let (all, open_s) = (self.sessions, self.open_s);
        writeln!(f, "opened     {all} sessions in {open_s:.2} s")?;
        let (renewals, window_s) = (self.renewals, self.window_s);
        let rate = short(renewals as f64 / window_s.max(1e-9));
        let early = if self.stopped { ", stopped" } else { "" };
        writeln!(f, "renewed    {renewals} in {window_s:.1} s, {rate}/s{early}")?;
        writeln!(f, "latency    {}", self.latency)?;
        if let Some((share, each)) = self.server_cpu_share.zip(self.server_cpu_us_per_renewal) {
            writeln!(f, "server     {:.2} % CPU, {each:.3} us a renewal", share * 100.0)?;
        }
        if let Some(bytes) = self.server_bytes_per_session {
            let conn = self.server_bytes_per_connection.unwrap_or(0.0);
            writeln!(f, "memory     {bytes:.0} bytes a session, {conn:.0} a connection")?;
        }
        write!(f, "kernel     {:.0} bytes a connection", self.kernel_bytes_per_connection)
    }
}

/// Opens the sessions, keeps them alive for the duration, and says what that took. `stop` ends it
/// early; `progress` is called about once a second.
pub fn run_sessions(
    config: &SessionsConfig,
    stop: &AtomicBool,
    mut progress: impl FnMut(&Progress),
) -> Result<SessionsReport, LoadError> {
    let spec = &config.spec;
    let process = spec.pid.map(Process::new).transpose()?;
    raise_descriptors(spec.connections)?;
    if let Some(core) = spec.core {
        pin(core)?;
    }
    let rss = || process.map(|process| process.rss_bytes()).transpose();
    let (rss_first, kernel_first) = (rss()?, kernel_bytes());
    let mut keeper = Keeper::new(config, stop, &mut progress)?;
    keeper.connect()?;
    let (rss_connected, kernel_connected) = (rss()?, kernel_bytes());
    let open_start = Instant::now();
    keeper.open_all()?;
    let open_s = open_start.elapsed().as_secs_f64();
    let rss_open = rss()?;
    let cpu = || process.map(|process| process.cpu_times()).transpose();
    let (cpu_before, start) = (cpu()?, Instant::now());
    keeper.renew_all()?;
    let window_s = start.elapsed().as_secs_f64();
    let used = cpu()?.zip(cpu_before).map(|(after, before)| after.since(&before) as f64);
    let sessions = keeper.opened;
    let connections = spec.connections as f64;
    let grown = |after: Option<u64>, before: Option<u64>, by: f64| {
        after.zip(before).map(|(after, before)| after.saturating_sub(before) as f64 / by)
    };
    Ok(SessionsReport {
        spec: spec.clone(),
        sessions,
        open_s,
        window_s,
        renewals: keeper.renewed,
        latency: keeper.latencies.quantiles(),
        server_cpu_share: used.map(|ns| ns / 1e9 / window_s),
        server_cpu_us_per_renewal: used.map(|ns| ns / 1e3 / keeper.renewed.max(1) as f64),
        server_bytes_per_connection: grown(rss_connected, rss_first, connections),
        server_bytes_per_session: grown(rss_open, rss_connected, sessions.max(1) as f64),
        kernel_bytes_per_connection: kernel_connected.saturating_sub(kernel_first) as f64
            / connections,
        stopped: stop.load(Ordering::Relaxed),
    })
}

/// A request on the way.
struct Due {
    sequence: u64,
    intended_ns: u64,
    count: u16,
    opens: bool,
}

struct Link {
    stream: TcpStream,
    proofs: Vec<Proof>,
    due: VecDeque<Due>,
    part: Vec<u8>,
    out: Vec<u8>,
    sequence: u64,
}

struct Keeper<'a> {
    config: &'a SessionsConfig,
    stop: &'a AtomicBool,
    progress: &'a mut dyn FnMut(&Progress),
    base: Instant,
    epoll: OwnedFd,
    links: Vec<Link>,
    inbox: Vec<u8>,
    on_the_way: usize,
    opened: u64,
    renewed: u64,
    latencies: Latencies,
    worst_ns: u64,
    tick: (u64, u64),
}

impl<'a> Keeper<'a> {
    fn new(
        config: &'a SessionsConfig,
        stop: &'a AtomicBool,
        progress: &'a mut dyn FnMut(&Progress),
    ) -> Result<Keeper<'a>, LoadError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system)?;
        Ok(Keeper {
            config,
            stop,
            progress,
            base: Instant::now(),
            epoll,
            links: Vec::with_capacity(config.spec.connections),
            inbox: vec![0; READ_BYTES],
            on_the_way: 0,
            opened: 0,
            renewed: 0,
            latencies: Latencies::new(),
            worst_ns: 0,
            tick: (0, 0),
        })
    }

    fn now(&self) -> u64 {
        self.base.elapsed().as_nanos() as u64
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn connect(&mut self) -> Result<(), LoadError> {
        let spec = &self.config.spec;
        let (addr, timeout) = (self.config.addr, self.config.timeout);
        let login = spec.credentials.as_ref();
        let door = Door { addr, protocol: Protocol::Native, login, timeout };
        for number in 0..spec.connections {
            if self.stopped() {
                break;
            }
            let stream = door.open(number)?;
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN).map_err(system)?;
            let (proofs, due) = (Vec::new(), VecDeque::new());
            let (part, out) = (Vec::new(), Vec::new());
            self.links.push(Link { stream, proofs, due, part, out, sequence: 1 });
            self.report("connect", number as f64 / spec.connections as f64);
        }
        Ok(())
    }

    fn open_all(&mut self) -> Result<(), LoadError> {
        let spec = self.config.spec.clone();
        let attendance =
            if spec.sessions > 1 { Attendance::Gateway } else { Attendance::Receiving };
        let lease = Duration::from_millis(spec.lease_ms);
        for number in 0..self.links.len() {
            let mut opened = 0;
            while opened < spec.sessions {
                let count = (spec.sessions - opened).min(FRAME_OPS_MAX);
                let first = spec.first_node + (number * spec.sessions + opened) as u64;
                let ops = (first..first + count as u64).map(|node| {
                    let fresh = OpenRequest::new(NodeId(node));
                    Op::Open(OpenRequest { lease, attendance, ..fresh })
                });
                let now = self.now();
                self.send(number, true, now, ops)?;
                opened += count;
                while self.links[number].due.len() >= DUE_MAX {
                    self.take(1_000_000)?;
                }
            }
            self.take(0)?;
            self.report("open", number as f64 / self.links.len() as f64);
            if self.stopped() {
                break;
            }
        }
        self.settle()?;
        self.latencies = Latencies::new();
        Ok(())
    }

    fn renew_all(&mut self) -> Result<(), LoadError> {
        let start = self.now();
        let window = (self.config.spec.duration_s * 1e9) as u64;
        let gap = self.config.period.as_nanos() as f64 / self.links.len().max(1) as f64;
        let mut number = 0u64;
        loop {
            let due = start + (number as f64 * gap) as u64;
            if due >= start + window || self.stopped() || self.links.is_empty() {
                break;
            }
            let now = self.now();
            if now < due {
                self.take((due - now).min(10_000_000))?;
                self.report("renew", (now - start) as f64 / window as f64);
                continue;
            }
            self.renew((number % self.links.len() as u64) as usize, due)?;
            number += 1;
            if number.is_multiple_of(64) {
                self.take(0)?;
            }
        }
        self.settle()
    }

    fn renew(&mut self, at: usize, due: u64) -> Result<(), LoadError> {
        if self.links[at].due.len() >= DUE_MAX {
            self.settle()?;
        }
        if self.config.spec.sessions == 1 {
            return self.send(at, false, due, std::iter::once(Op::Renew(None)));
        }
        let proofs = std::mem::take(&mut self.links[at].proofs);
        let mut sent = Ok(());
        for batch in proofs.chunks(FRAME_OPS_MAX) {
            let ops = batch.iter().map(|proof| Op::Renew(Some(*proof)));
            sent = sent.and_then(|()| self.send(at, false, due, ops));
        }
        self.links[at].proofs = proofs;
        sent
    }

    fn send<'op>(
        &mut self,
        at: usize,
        opens: bool,
        intended_ns: u64,
        ops: impl Iterator<Item = Op<'op>>,
    ) -> Result<(), LoadError> {
        let link = &mut self.links[at];
        let sequence = link.sequence;
        link.sequence += 1;
        let mut frame = FrameWriter::begin(&mut link.out, KIND_REQUEST, 0, sequence);
        for op in ops {
            // Ops of this module are always in bounds: fixed sizes and a checked lease.
            let put = op.put(&mut link.out);
            put.map_err(|error| LoadError::System {
                doing: "encoding an op",
                source: io::Error::other(error),
            })?;
            frame.add(1);
        }
        let count = frame.count();
        frame.finish(&mut link.out);
        link.due.push_back(Due { sequence, intended_ns, count, opens });
        self.on_the_way += 1;
        self.flush(at)
    }

    /// Writes what fits; the rest goes when the connection is next looked at.
    fn flush(&mut self, at: usize) -> Result<(), LoadError> {
        let link = &mut self.links[at];
        let mut sent = 0;
        while sent < link.out.len() {
            match link.stream.write(&link.out[sent..]) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(LoadError::Io { conn: at, addr: self.config.addr, source });
                }
            }
        }
        let whole = sent == link.out.len();
        if whole {
            // Memory of 100 000 idle connections would distort nothing, but it is not needed.
            link.out = Vec::new();
        } else {
            link.out.drain(..sent);
        }
        let mut flags = epoll::EventFlags::IN;
        flags.set(epoll::EventFlags::OUT, !whole);
        let data = epoll::EventData::new_u64(at as u64);
        if !whole {
            epoll::modify(&self.epoll, &link.stream, data, flags).map_err(system)?;
        }
        Ok(())
    }

    /// Waits for all replies that are due.
    fn settle(&mut self) -> Result<(), LoadError> {
        let patience = self.now() + self.config.timeout.as_nanos() as u64;
        while self.on_the_way > 0 {
            if self.now() > patience {
                let due = self.on_the_way;
                let what = io::Error::other(format!("{due} requests without a reply"));
                return Err(LoadError::System { doing: "waiting for the server", source: what });
            }
            self.take(10_000_000)?;
        }
        Ok(())
    }

    /// Takes the replies that have come, after waiting for `nap_ns` at most.
    fn take(&mut self, nap_ns: u64) -> Result<(), LoadError> {
        let mut events = Vec::with_capacity(256);
        let nap = Timespec { tv_sec: 0, tv_nsec: nap_ns as i64 };
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&nap)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(system(errno)),
        }
        for event in events {
            let (flags, at) = (event.flags, event.data.u64() as usize);
            if flags.contains(epoll::EventFlags::OUT) {
                self.flush(at)?;
                if self.links[at].out.is_empty() {
                    let link = &self.links[at];
                    let data = epoll::EventData::new_u64(at as u64);
                    epoll::modify(&self.epoll, &link.stream, data, epoll::EventFlags::IN)
                        .map_err(system)?;
                }
            }
            self.read(at)?;
        }
        Ok(())
    }

    fn read(&mut self, at: usize) -> Result<(), LoadError> {
        let addr = self.config.addr;
        let link = &mut self.links[at];
        let kept = link.part.len();
        self.inbox[..kept].copy_from_slice(&link.part);
        let filled = match link.stream.read(&mut self.inbox[kept..]) {
            Ok(0) => return Err(LoadError::Closed { addr, conn: at, due: link.due.len() }),
            Ok(len) => kept + len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(source) => return Err(LoadError::Io { conn: at, addr, source }),
        };
        let now = self.base.elapsed().as_nanos() as u64;
        let mut used = 0;
        loop {
            let rest = &self.inbox[used..filled];
            let taken = take_frame(rest, &mut self.links[at])
                .map_err(|what| LoadError::Broken { addr, conn: at, what })?;
            let Some(taken) = taken else { break };
            if let Some(refusal) = taken.refused {
                let said = format!("a session of connection {at} got {refusal}");
                return Err(LoadError::Greeting { addr, said });
            }
            used += taken.bytes;
            self.on_the_way -= 1;
            let done = u64::from(taken.due.count);
            if taken.due.opens {
                self.opened += done
            } else {
                self.renewed += done
            }
            let latency = now.saturating_sub(taken.due.intended_ns);
            self.worst_ns = self.worst_ns.max(latency);
            self.latencies.record(latency, done);
        }
        let link = &mut self.links[at];
        link.part = self.inbox[used..filled].to_vec();
        Ok(())
    }

    fn report(&mut self, phase: &'static str, done: f64) {
        let now = self.now();
        let (then, ops_then) = self.tick;
        if now - then < 1_000_000_000 {
            return;
        }
        let ops = self.opened + self.renewed;
        let ops_per_s = (ops - ops_then) as f64 * 1e9 / (now - then) as f64;
        let (elapsed_s, worst_us) = (now as f64 / 1e9, self.worst_ns as f64 / 1e3);
        (self.tick, self.worst_ns) = ((now, ops), 0);
        (self.progress)(&Progress { phase, elapsed_s, done, ops, ops_per_s, worst_us });
    }
}

struct Taken {
    bytes: usize,
    due: Due,
    refused: Option<Refusal>,
}

/// Takes the next whole reply frame; opened sessions are kept.
fn take_frame(bytes: &[u8], link: &mut Link) -> Result<Option<Taken>, Broken> {
    let Some(header) = FrameHeader::parse(bytes).map_err(|_| Broken::Header)? else {
        return Ok(None);
    };
    let Some(frame) = bytes.get(..header.len) else { return Ok(None) };
    let mut body = &frame[FRAME_HEADER_BYTES..];
    if header.kind != KIND_REPLY {
        return Err(Broken::Notice(body.first().copied().unwrap_or(0)));
    }
    let due = link.due.pop_front().ok_or(Broken::Unasked)?;
    if due.sequence != header.sequence {
        return Err(Broken::OutOfOrder { got: header.sequence, due: due.sequence });
    }
    if due.count != header.count {
        let (got, due) = (usize::from(header.count), usize::from(due.count));
        return Err(Broken::Count { got, due });
    }
    let mut refused = None;
    for _ in 0..due.count {
        let reply = next_reply(&mut body).ok_or(Broken::Body)?;
        if due.opens {
            match data_result(reply) {
                Ok(data) => {
                    let opened = opened(data).ok_or(Broken::Body)?;
                    link.proofs.push(Proof { session: opened.session, secret: opened.secret });
                }
                Err(refusal) => refused = refused.or(Some(refusal)),
            }
        } else if reply.status() != status::OK {
            refused = refused.or(Some(Refusal::of(&reply)));
        }
    }
    Ok(Some(Taken { bytes: header.len, due, refused }))
}

fn system(errno: rustix::io::Errno) -> LoadError {
    LoadError::System { doing: "epoll", source: errno.into() }
}
