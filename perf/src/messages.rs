//! Messages from connections that own names to names of other connections: how many one second of
//! the server's CPU delivers.
//!
//! Senders send frames of messages, closed loop; receivers read what comes. All of them are in this
//! process, so every message is looked at when it arrives (`ledger`), and none may be missing: no
//! more are on the way to a receiver, as they arrive, than the server keeps for one that does not
//! read. Whatever is refused or dropped all the same ends the run and fails it.
//!
//! Invariants:
//! - D1  The messages on the way to a receiver, as they arrive, are no more than
//!   [`RECEIVER_BYTES`].
//! - D2  At the end each message has arrived, or was refused by a status, or is counted as dropped.
//!
//! Bounds: those of `ledger` and `links`; `pipeline` frames of each sender; one thread.
//! Tests: `ledger.rs`, and below; whole runs in `tools/ringway/tests`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringway_client::reply::register_result;
use ringway_client::{Mode, Op, Registered};
use ringway_coord_proto::wire::{
    FRAME_HEADER_BYTES, FrameHeader, KIND_PUSH, KIND_REPLY, OP_HEADER_BYTES, RawOp, Reply, next_op,
    op, push, status,
};
use ringway_core::limits::{FRAME_BYTES_MAX, FRAME_OPS_MAX, MESSAGE_BYTES_MAX, RECEIVER_BYTES};
use ringway_core::{SessionId, Token};
use serde::{Deserialize, Serialize};

use crate::config::{Login, Protocol, range, resolve, seconds};
use crate::error::{Broken, ConfigError, LoadError};
use crate::latency::{Latencies, Quantiles};
use crate::ledger::{Ledger, STAMP_BYTES, Stamp};
use crate::links::{Links, Teller, late, nothing_else};
use crate::net::{Door, pin, raise_descriptors};
use crate::proc::{CpuTimes, Process};
use crate::report::{Progress, ServerUse, short};

/// Bytes of a name.
const NAME_BYTES: usize = 16;
/// A message as it arrives: flags, the sender's session, and the target's name.
const HEAD_BYTES: usize = 10 + NAME_BYTES;
/// And if it is fenced: the source's name and token.
const FENCE_BYTES: usize = 9 + NAME_BYTES;

type Name = [u8; NAME_BYTES];

/// A load of messages as typed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MessagesSpec {
    /// What the report calls this run.
    pub label: String,
    /// The server: host:port.
    pub target: String,
    /// Connections that send. Each sends to all names in turn.
    pub senders: usize,
    /// Connections that own the names and receive.
    pub receivers: usize,
    /// Names that are sent to, over all receivers; senders own as many, to send as their owner.
    pub names: usize,
    /// Bytes of a message.
    pub payload_bytes: usize,
    /// Messages in a frame.
    pub frame: usize,
    /// Frames of one sender without an answer.
    pub pipeline: usize,
    /// Messages on the way to one receiver; fewer, if so many are more than the server keeps for
    /// one that does not read.
    pub on_the_way: usize,
    /// Ask for a receipt of every message: it is answered when it was handed over.
    pub receipts: bool,
    /// Send as the owner of a name, under its token.
    pub fenced: bool,
    /// Seconds of load before measuring begins.
    pub warmup_s: f64,
    /// Seconds of measuring.
    pub duration_s: f64,
    /// Stop after this many messages, if that comes first.
    pub messages: Option<u64>,
    /// Seconds to wait for a connection, and for what is on the way at the end.
    pub timeout_s: f64,
    /// Poll without sleeping.
    pub spin: bool,
    /// The core to pin the load thread to.
    pub core: Option<usize>,
    /// The server's process id: its CPU time and memory.
    pub pid: Option<u32>,
    /// Who connects, if the server asks. Not part of scenario files.
    #[serde(skip)]
    pub credentials: Option<Login>,
}

impl Default for MessagesSpec {
    /// Eight connections send 64 bytes in frames of 64 to 1024 names of eight others.
    fn default() -> Self {
        MessagesSpec {
            label: String::new(),
            target: "127.0.0.1:7400".into(),
            senders: 8,
            receivers: 8,
            names: 1024,
            payload_bytes: 64,
            frame: 64,
            pipeline: 8,
            on_the_way: 1024,
            receipts: false,
            fenced: false,
            warmup_s: 1.0,
            duration_s: 10.0,
            messages: None,
            timeout_s: 10.0,
            spin: true,
            core: None,
            pid: None,
            credentials: None,
        }
    }
}

/// A load of messages as checked.
#[derive(Clone, Debug)]
pub struct MessagesConfig {
    spec: MessagesSpec,
    addr: SocketAddr,
    timeout: Duration,
    /// Messages that may be on the way to one receiver.
    window: usize,
    /// Messages of one frame for one receiver, at most.
    share: usize,
}

impl MessagesConfig {
    /// Checks a load; the error says which setting to change.
    pub fn new(spec: MessagesSpec) -> Result<MessagesConfig, ConfigError> {
        let addr = resolve(&spec.target)?;
        range("senders", spec.senders as f64, 1.0, 10_000.0)?;
        range("receivers", spec.receivers as f64, 1.0, 10_000.0)?;
        range("names", spec.names as f64, spec.receivers.max(spec.senders) as f64, 1e6)?;
        let bytes = (STAMP_BYTES as f64, MESSAGE_BYTES_MAX as f64);
        range("payload_bytes", spec.payload_bytes as f64, bytes.0, bytes.1)?;
        range("pipeline", spec.pipeline as f64, 1.0, 65_536.0)?;
        range("on_the_way", spec.on_the_way as f64, 1.0, 1e6)?;
        range("warmup_s", spec.warmup_s, 0.0, 86_400.0)?;
        range("duration_s", spec.duration_s, 0.001, 7.0 * 86_400.0)?;
        range("timeout_s", spec.timeout_s, 0.01, 3600.0)?;
        range("messages", spec.messages.unwrap_or(1) as f64, 1.0, 1e18)?;
        let fence = if spec.fenced { FENCE_BYTES } else { 0 };
        let op_bytes = OP_HEADER_BYTES + 1 + NAME_BYTES + fence + spec.payload_bytes;
        let notice = OP_HEADER_BYTES + HEAD_BYTES + fence + spec.payload_bytes;
        // D1, if each came in a frame of its own.
        let window = spec.on_the_way.min(RECEIVER_BYTES / (FRAME_HEADER_BYTES + notice));
        let most = ((FRAME_BYTES_MAX - FRAME_HEADER_BYTES) / op_bytes).min(FRAME_OPS_MAX);
        range("frame", spec.frame as f64, 1.0, most.min(window * spec.receivers) as f64)?;
        let (timeout, share) = (seconds(spec.timeout_s), spec.frame.div_ceil(spec.receivers));
        Ok(MessagesConfig { spec, addr, timeout, window, share })
    }

    /// Bytes of a message in front of its payload, as it arrives.
    const fn head_bytes(&self) -> usize {
        HEAD_BYTES + if self.spec.fenced { FENCE_BYTES } else { 0 }
    }

    /// Names of each sender.
    const fn sources(&self) -> usize {
        self.spec.names.div_ceil(self.spec.senders)
    }
}

/// What a load of messages came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessagesReport {
    /// The load, as typed.
    pub spec: MessagesSpec,
    /// Seconds that were measured.
    pub window_s: f64,
    /// Messages that arrived within them, each checked.
    pub messages: u64,
    /// Messages a second.
    pub messages_per_s: f64,
    /// From putting a frame to reading its messages.
    pub latency: Quantiles,
    /// Messages of the whole run, warm-up and end included.
    pub sent: u64,
    /// Those of them that arrived: once, in order, with every byte.
    pub received: u64,
    /// Those that were refused, by status.
    pub refused: BTreeMap<String, u64>,
    /// Those that neither arrived nor were refused.
    pub dropped: u64,
    /// Present if the server's process id was given. Its ops are messages.
    pub server: Option<ServerUse>,
    /// Somebody stopped the run early.
    pub stopped: bool,
}

impl std::fmt::Display for MessagesReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let MessagesSpec { label, senders, receivers, names, payload_bytes, frame, .. } =
            &self.spec;
        if !label.is_empty() {
            writeln!(f, "{label}")?;
        }
        let how = match (self.spec.fenced, self.spec.receipts) {
            (false, false) => "",
            (true, false) => ", fenced",
            (false, true) => ", with receipts",
            (true, true) => ", fenced, with receipts",
        };
        writeln!(
            f,
            "load       {senders} senders to {names} names of {receivers} receivers, \
             {payload_bytes} bytes, frames of {frame}{how}"
        )?;
        let (window_s, rate) = (self.window_s, short(self.messages_per_s));
        let early = if self.stopped { ", stopped" } else { "" };
        writeln!(f, "delivered  {} in {window_s:.2} s, {rate}/s{early}", self.messages)?;
        writeln!(f, "latency    {}", self.latency)?;
        if let Some(server) = &self.server {
            let (share, each) = (server.cpu_share * 100.0, server.cpu_us_per_op);
            let rate = short(server.ops_per_cpu_s);
            writeln!(f, "server     {share:.0} % CPU, {each:.3} us a message, {rate}/CPU s")?;
        }
        let (sent, received, dropped) = (self.sent, self.received, self.dropped);
        let refused: u64 = self.refused.values().sum();
        write!(
            f,
            "all        {sent} sent, {received} received, {refused} refused, {dropped} dropped"
        )
    }
}

/// Sends messages for the duration and says what that came to. `stop` ends it early; `progress` is
/// called about once a second.
pub fn run_messages(
    config: &MessagesConfig,
    stop: &AtomicBool,
    mut progress: impl FnMut(&Progress),
) -> Result<MessagesReport, LoadError> {
    let spec = &config.spec;
    let process = spec.pid.map(Process::new).transpose()?;
    raise_descriptors(spec.senders + spec.receivers)?;
    if let Some(core) = spec.core {
        pin(core)?;
    }
    let mut teller = Teller::new(&mut progress);
    let mut post = Post::new(config)?;
    post.connect(&mut teller)?;
    let mut window = Window { process, edges: Vec::new() };
    let measured = post.send_all(stop, &mut window, &mut teller);
    measured.and_then(|()| post.settle())?;
    post.judge(&window, stop.load(Ordering::Relaxed))
}

/// What was counted at the beginning of the window and at its end.
struct Window {
    process: Option<Process>,
    edges: Vec<(Instant, u64, Option<CpuTimes>)>,
}

impl Window {
    fn edge(&mut self, received: u64) -> Result<(), LoadError> {
        let cpu = self.process.map(|process| process.cpu_times()).transpose()?;
        self.edges.push((Instant::now(), received, cpu));
        Ok(())
    }
}

/// A frame without an answer.
struct Due {
    sequence: u64,
    count: u16,
}

struct Sender {
    session: SessionId,
    /// Its names, to send as the owner of, and their tokens.
    sources: Vec<(Name, Token)>,
    due: VecDeque<Due>,
    next: usize,
}

/// Everybody who sends and receives. Connections of senders come first.
struct Post<'a> {
    config: &'a MessagesConfig,
    links: Links,
    all: All<'a>,
}

/// What is known of them, beside their connections.
struct All<'a> {
    config: &'a MessagesConfig,
    base: Instant,
    ledger: Ledger,
    names: Vec<Name>,
    senders: Vec<Sender>,
    /// On the way to each receiver.
    on_the_way: Vec<usize>,
    refused: BTreeMap<u8, u64>,
    latencies: Latencies,
    worst_ns: u64,
    measuring: bool,
}

impl<'a> Post<'a> {
    fn new(config: &'a MessagesConfig) -> Result<Post<'a>, LoadError> {
        let spec = &config.spec;
        let all = All {
            config,
            base: Instant::now(),
            ledger: Ledger::new(spec.senders, spec.names, spec.payload_bytes),
            names: (0..spec.names).map(|number| name("to", number)).collect(),
            senders: Vec::with_capacity(spec.senders),
            on_the_way: vec![0; spec.receivers],
            refused: BTreeMap::new(),
            latencies: Latencies::new(),
            worst_ns: 0,
            measuring: false,
        };
        Ok(Post { config, links: Links::new(config.addr)?, all })
    }

    /// Connects all and registers their names.
    fn connect(&mut self, teller: &mut Teller<'_>) -> Result<(), LoadError> {
        let spec = &self.config.spec;
        let door = Door {
            addr: self.config.addr,
            protocol: Protocol::Native,
            login: spec.credentials.as_ref(),
            timeout: self.config.timeout,
        };
        let (senders, sources) = (spec.senders, self.config.sources());
        for number in 0..senders + spec.receivers {
            let at = self.links.add(door.open(number)?)?;
            if number < senders {
                let names = (0..sources).map(|source| name("as", number * sources + source));
                let names: Vec<_> = names.collect();
                let owners = self.register(at, &names)?;
                let session = owners.first().map_or(SessionId(0), |(session, _)| *session);
                let tokens = owners.iter().map(|(_, token)| *token);
                let sources = names.into_iter().zip(tokens).collect();
                // Not all at the same place.
                let next = number * spec.names / senders;
                self.all.senders.push(Sender { session, sources, due: VecDeque::new(), next });
            } else {
                let mine = self.all.names.iter().skip(number - senders).step_by(spec.receivers);
                let mine: Vec<_> = mine.copied().collect();
                self.register(at, &mine)?;
            }
            teller.tell("connect", number as f64 / (senders + spec.receivers) as f64, 0);
        }
        Ok(())
    }

    fn register(
        &mut self,
        at: usize,
        names: &[Name],
    ) -> Result<Vec<(SessionId, Token)>, LoadError> {
        let (mut owners, mut other) = (Vec::with_capacity(names.len()), None);
        for names in names.chunks(FRAME_OPS_MAX) {
            let ops = names.iter().map(|name| Op::Register {
                name,
                mode: Mode::Exclusive,
                replicated: false,
            });
            let each = |_: usize, reply: Reply<'_>| {
                match register_result(reply) {
                    Ok(Registered::Granted(owner)) => owners.push((owner.session, owner.token)),
                    Ok(Registered::Held(_)) => other = Some("HELD".to_owned()),
                    Err(refusal) => other = Some(refusal.to_string()),
                }
                Ok(())
            };
            let call = (at, self.config.timeout);
            self.links.call(call, ops, each, &mut nothing_else)?;
        }
        match other {
            None => Ok(owners),
            Some(other) => {
                let said = format!("a name of the load was answered {other}");
                Err(LoadError::Greeting { addr: self.config.addr, said })
            }
        }
    }

    /// Sends until the window is over, or something was not as it should.
    fn send_all(
        &mut self,
        stop: &AtomicBool,
        window: &mut Window,
        teller: &mut Teller<'_>,
    ) -> Result<(), LoadError> {
        let spec = &self.config.spec;
        let start = Instant::now();
        let from = seconds(spec.warmup_s);
        let until = from + seconds(spec.duration_s);
        let most = spec.messages.unwrap_or(u64::MAX);
        let nap_ns = if spec.spin { 0 } else { NAP_NS };
        loop {
            let elapsed = start.elapsed();
            if !self.all.measuring && elapsed >= from {
                window.edge(self.all.ledger.received)?;
                self.all.measuring = true;
            }
            let over = elapsed >= until || self.all.ledger.sent >= most;
            if over || self.all.is_wrong() || stop.load(Ordering::Relaxed) {
                break;
            }
            for sender in 0..spec.senders {
                self.send(sender)?;
            }
            self.take(nap_ns)?;
            let done = elapsed.as_secs_f64() / until.as_secs_f64();
            teller.worst_ns = teller.worst_ns.max(std::mem::take(&mut self.all.worst_ns));
            let phase = if self.all.measuring { "measure" } else { "warm up" };
            teller.tell(phase, done, self.all.ledger.received);
        }
        if !self.all.measuring {
            window.edge(self.all.ledger.received)?;
        }
        if spec.messages.is_some() {
            // A run of a number of messages ends with the last of them.
            self.settle()?;
        }
        self.all.measuring = false;
        window.edge(self.all.ledger.received)
    }

    /// Sends all frames of a sender that may be on the way.
    fn send(&mut self, number: usize) -> Result<(), LoadError> {
        let spec = &self.config.spec;
        let mut any = false;
        while self.all.may_send(number) {
            let (mut frame, out, sequence) = self.links.begin(number);
            let sent_ns = self.all.base.elapsed().as_nanos() as u64;
            for _ in 0..spec.frame {
                self.all.put_message(number, sent_ns, out);
            }
            frame.add(spec.frame as u16);
            frame.finish(out);
            let due = Due { sequence, count: spec.frame as u16 };
            self.all.senders[number].due.push_back(due);
            any = true;
        }
        if any { self.links.flush(number) } else { Ok(()) }
    }

    fn take(&mut self, nap_ns: u64) -> Result<(), LoadError> {
        let all = &mut self.all;
        self.links.take(nap_ns, &mut |at, header, body: &[u8]| all.take(at, header, body))
    }

    /// Waits for all answers and all messages, as long as any come.
    fn settle(&mut self) -> Result<(), LoadError> {
        let mut last = (self.all.left(), Instant::now());
        while last.0 != (0, 0) && last.1.elapsed() < self.config.timeout {
            self.take(NAP_NS)?;
            if self.all.left() != last.0 {
                last = (self.all.left(), Instant::now());
            }
        }
        if last.0.0 > 0 {
            return Err(late("a frame of messages was not answered"));
        }
        // What comes now came twice.
        self.take(NAP_NS)
    }

    /// D2.
    fn judge(&self, window: &Window, stopped: bool) -> Result<MessagesReport, LoadError> {
        let Ledger { sent, received, .. } = self.all.ledger;
        let refused = self.all.refused.iter();
        let refused: BTreeMap<_, _> =
            refused.map(|(code, count)| (status::name(*code).to_string(), *count)).collect();
        let dropped = sent.saturating_sub(received + refused.values().sum::<u64>());
        if sent > received {
            return Err(LoadError::Undelivered { sent, received, refused, dropped });
        }
        let [(from, first, cpu_first), (until, last, cpu_last)] = &window.edges[..] else {
            unreachable!("both edges were taken")
        };
        let (window_s, messages) = ((*until - *from).as_secs_f64(), last - first);
        let rss_bytes = window.process.map_or(Ok(0), |process| process.rss_bytes())?;
        let cpu_ns = cpu_last.as_ref().zip(cpu_first.as_ref()).map(|(now, then)| now.since(then));
        let server = cpu_ns.filter(|_| messages > 0).map(|ns| ServerUse {
            cpu_share: ns as f64 / 1e9 / window_s,
            cpu_us_per_op: ns as f64 / 1e3 / messages as f64,
            ops_per_cpu_s: messages as f64 * 1e9 / ns.max(1) as f64,
            rss_bytes,
        });
        Ok(MessagesReport {
            spec: self.config.spec.clone(),
            window_s,
            messages,
            messages_per_s: messages as f64 / window_s.max(1e-9),
            latency: self.all.latencies.quantiles(),
            sent,
            received,
            refused,
            dropped,
            server,
            stopped,
        })
    }
}

impl All<'_> {
    /// Whether one more frame of a sender keeps to the pipeline and to D1.
    #[inline]
    fn may_send(&self, sender: usize) -> bool {
        let most = self.config.window - self.config.share;
        self.senders[sender].due.len() < self.config.spec.pipeline
            && self.on_the_way.iter().all(|messages| *messages <= most)
    }

    /// Whether anything was refused or dropped.
    fn is_wrong(&self) -> bool {
        self.ledger.missing > 0 || !self.refused.is_empty()
    }

    /// Frames without an answer, and messages that may still come.
    fn left(&self) -> (usize, u64) {
        let refused: u64 = self.refused.values().sum();
        let gone = self.ledger.received + refused.max(self.ledger.missing);
        (
            self.senders.iter().map(|sender| sender.due.len()).sum(),
            self.ledger.sent.saturating_sub(gone),
        )
    }

    /// Appends the next message of a sender.
    #[inline]
    fn put_message(&mut self, number: usize, sent_ns: u64, out: &mut Vec<u8>) {
        let spec = &self.config.spec;
        let sender = &mut self.senders[number];
        let target = sender.next;
        sender.next = if target + 1 == self.names.len() { 0 } else { target + 1 };
        self.on_the_way[target % spec.receivers] += 1;
        let fence = if spec.fenced { FENCE_BYTES } else { 0 };
        let receipt = if spec.receipts { op::SEND_RECEIPT } else { 0 };
        let fenced = if spec.fenced { op::SEND_FENCED } else { 0 };
        let len = (1 + NAME_BYTES + fence + spec.payload_bytes) as u16;
        let mut head = [0; OP_HEADER_BYTES + 1 + NAME_BYTES];
        (head[0], head[1]) = (op::SEND, receipt | fenced);
        head[2..4].copy_from_slice(&len.to_le_bytes());
        head[4] = NAME_BYTES as u8;
        head[5..].copy_from_slice(&self.names[target]);
        out.extend_from_slice(&head);
        if spec.fenced {
            out.extend_from_slice(&fence_of(sender, target));
        }
        let stamp = Stamp { sender: number as u32, name: target as u32, sent_ns };
        self.ledger.put(stamp, out);
    }

    fn take(&mut self, at: usize, header: FrameHeader, body: &[u8]) -> Result<(), Broken> {
        match header.kind {
            KIND_REPLY => self.answered(at, header, body),
            KIND_PUSH => self.arrived(at, body),
            _ => Err(Broken::Header),
        }
    }

    /// A frame of a sender was answered.
    fn answered(&mut self, at: usize, header: FrameHeader, body: &[u8]) -> Result<(), Broken> {
        let sender = self.senders.get_mut(at).ok_or(Broken::Unasked)?;
        let due = sender.due.pop_front().ok_or(Broken::Unasked)?;
        if due.sequence != header.sequence {
            return Err(Broken::OutOfOrder { got: header.sequence, due: due.sequence });
        }
        if due.count != header.count {
            let (got, due) = (usize::from(header.count), usize::from(due.count));
            return Err(Broken::Count { got, due });
        }
        // An answer is a status and nothing else.
        if body.len() != usize::from(due.count) {
            return Err(Broken::Body);
        }
        for code in body.iter().filter(|code| **code != status::OK) {
            *self.refused.entry(*code).or_default() += 1;
        }
        Ok(())
    }

    /// A bundle of messages has come to a receiver.
    fn arrived(&mut self, at: usize, mut body: &[u8]) -> Result<(), Broken> {
        let now = self.base.elapsed().as_nanos() as u64;
        // Messages of one frame share one entry in the histogram.
        let (mut together, mut count) = (now, 0);
        while let Some(notice) = next_op(&mut body) {
            let stamp = self.arrive(at, notice)?;
            if stamp.sent_ns != together {
                self.record(now, together, count);
                (together, count) = (stamp.sent_ns, 0);
            }
            count += 1;
        }
        self.record(now, together, count);
        if body.is_empty() { Ok(()) } else { Err(Broken::Body) }
    }

    fn record(&mut self, now: u64, sent_ns: u64, count: u64) {
        if count > 0 && self.measuring {
            let ns = now.saturating_sub(sent_ns);
            self.worst_ns = self.worst_ns.max(ns);
            self.latencies.record(ns, count);
        }
    }

    #[inline]
    fn arrive(&mut self, at: usize, notice: RawOp<'_>) -> Result<Stamp, Broken> {
        if notice.code != push::MESSAGE {
            return Err(Broken::Notice(notice.code));
        }
        let split = notice.body.split_at_checked(self.config.head_bytes());
        let (head, payload) = split.ok_or(Broken::Body)?;
        let stamp = self.ledger.take(payload)?;
        let (sender, target) = (&self.senders[stamp.sender as usize], stamp.name as usize);
        let receiver = target % self.on_the_way.len();
        let (who, fence) = head.split_at(HEAD_BYTES);
        let session = sender.session.0.to_le_bytes();
        let is_right = at == self.senders.len() + receiver
            && who[0] == if fence.is_empty() { 0 } else { push::MESSAGE_FENCED }
            && who[1..9] == session
            && who[9] as usize == NAME_BYTES
            && who[10..] == self.names[target]
            && (fence.is_empty() || *fence == fence_of(sender, target));
        if !is_right {
            return Err(Broken::Message("came to another, or from another"));
        }
        self.on_the_way[receiver] -= 1;
        Ok(stamp)
    }
}

/// Name and token that a sender sends to a target as the owner of.
#[inline]
fn fence_of(sender: &Sender, target: usize) -> [u8; FENCE_BYTES] {
    let (name, token) = &sender.sources[target % sender.sources.len()];
    let mut fence = [0; FENCE_BYTES];
    fence[0] = NAME_BYTES as u8;
    fence[1..=NAME_BYTES].copy_from_slice(name);
    fence[1 + NAME_BYTES..].copy_from_slice(&token.0.to_le_bytes());
    fence
}

/// Names of 16 bytes, all over the slots.
fn name(kind: &str, number: usize) -> Name {
    let text = format!("load/{kind}/{number:08}");
    text.as_bytes().try_into().expect("at most a million names of two letters each")
}

/// Longest wait for what may come.
const NAP_NS: u64 = 5_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut MessagesSpec)) -> String {
        let mut spec = MessagesSpec::default();
        change(&mut spec);
        MessagesConfig::new(spec).expect_err("refused").to_string()
    }

    /// D1: all that may be on the way to a receiver fits into what the server keeps for it, also
    /// if each message came in a frame of its own. Frames that could never be sent are refused.
    #[test]
    fn what_is_on_the_way_fits_its_receiver() {
        for fenced in [false, true] {
            let spec = MessagesSpec { fenced, ..MessagesSpec::default() };
            let config = MessagesConfig::new(spec).expect("valid");
            let each = FRAME_HEADER_BYTES + OP_HEADER_BYTES + config.head_bytes() + 64;
            assert!(config.window * each <= RECEIVER_BYTES && config.window == 1024);
            assert!(config.share <= config.window);
        }
        let many = MessagesSpec { on_the_way: 1_000_000, ..MessagesSpec::default() };
        let config = MessagesConfig::new(many).expect("valid, and not done");
        assert!(config.window * 110 <= RECEIVER_BYTES && config.window > 2000);
        let large = |spec: &mut MessagesSpec| (spec.payload_bytes, spec.receivers) = (32_768, 1);
        assert!(refusal(large).contains("frame of 64: give 1 to 7"), "{}", refusal(large));
        assert!(refusal(|spec| spec.payload_bytes = 8).contains("give 24 to 32768"));
        assert!(refusal(|spec| spec.names = 4).contains("names of 4: give 8"));
    }
}
