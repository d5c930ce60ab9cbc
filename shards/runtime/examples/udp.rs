//! What datagrams cost on shards: one shard sends, another one receives and says how much it got.
//!
//! `udp [seconds] [rounds]` compares sizes and what the kernel is let do, one after the other and
//! again from the beginning, since the machine's other work comes and goes. Each shard has a core.
//! It prints the best round of each: GB/s, what was lost for want of room, GB for each second that
//! the sender's and the receiver's core worked on it, and datagrams of a receive. `udp timers`
//! prints how late a shard is woken.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringway_core::{ConnId, Moment, ShardId, Span};
use ringway_shards::{
    Datagrams, Feature, Io, Peer, PinPolicy, ProbeMask, Running, Runtime, RuntimeConfig, Service,
    ShardContext, SocketId, SocketMemory, SpinPolicy, TRAIN_BYTES_MAX, Towards, host,
};

type Failure = Box<dyn std::error::Error>;

/// What the shards and `main` share.
#[derive(Default)]
struct Shared {
    /// Bytes that arrived.
    bytes: AtomicU64,
    /// How late wake-ups were, in nanoseconds.
    late: std::sync::Mutex<Vec<u64>>,
}

/// The first shard sends to the second; or wakes itself.
struct Load {
    shared: Arc<Shared>,
    shard: ShardId,
    segment: u16,
    socket: Option<SocketId>,
    towards: Option<Towards>,
    train: Vec<u8>,
    /// Bytes sent, or received.
    bytes: u64,
    /// What the other one is known to have of it, or was told.
    known: u64,
    every: Option<Span>,
    wake: Option<Moment>,
}

/// Bytes on the way, at most: what the receiver's socket has room for, small datagrams included.
const WINDOW: u64 = 3 << 20;
/// Bytes of one turn.
const PER_TURN: u64 = 512 << 10;

impl Load {
    fn socket(&mut self, io: &mut Io<'_>) -> SocketId {
        *self.socket.get_or_insert_with(|| {
            let memory = SocketMemory { receive_bytes: 16 << 20, send_bytes: 4 << 20 };
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            io.open_datagrams(any, memory).expect("loopback")
        })
    }
}

impl Service for Load {
    fn opened(&mut self, _: Moment, _: ConnId, _: Peer, _: &mut Io<'_>) {}

    fn received(&mut self, _: Moment, _: ConnId, _: &mut [u8], _: &mut Io<'_>) {}

    fn closed(&mut self, _: Moment, _: ConnId, _: &mut Io<'_>) {}

    fn drained(&mut self, _: Moment, _: ConnId, _: &mut Io<'_>) {}

    fn datagrams(&mut self, _: Moment, _: SocketId, train: Datagrams<'_>, _: &mut Io<'_>) {
        // What was lost is not on the way any more.
        let lost = u64::from(train.kernel_drops) * train.bytes.len() as u64;
        self.bytes += train.bytes.len() as u64 + lost;
        self.shared.bytes.fetch_add(train.bytes.len() as u64, Ordering::Relaxed);
    }

    fn mail(&mut self, _: Moment, from: ShardId, message: &[u8], io: &mut Io<'_>) {
        let socket = self.socket(io);
        if let (ShardId(1), Some(known)) = (from, message.first_chunk()) {
            self.known = u64::from_le_bytes(*known);
        } else if from == ShardId(1) {
            // Where to.
            let port = u16::from_le_bytes(*message.first_chunk().expect("a port"));
            self.towards = Some(Towards::new(([127, 0, 0, 1], port).into(), self.segment));
        } else {
            let port = io.datagrams_address(socket).expect("it is bound").port();
            io.post(ShardId(0), &port.to_le_bytes());
        }
    }

    fn turn(&mut self, now: Moment, io: &mut Io<'_>) {
        if let (Some(every), ShardId(0)) = (self.every, self.shard) {
            if let Some(at) = self.wake.filter(|at| *at <= now) {
                self.shared.late.lock().expect("nobody panics").push(now.since(at).0);
            }
            self.wake = Some(now + every);
        }
        if self.shard == ShardId(1) && self.bytes != self.known {
            self.known = self.bytes;
            io.post(ShardId(0), &self.known.to_le_bytes());
        }
        let (Some(towards), Some(socket)) = (self.towards, self.socket) else { return };
        let mut room = (WINDOW + self.known).saturating_sub(self.bytes).min(PER_TURN);
        let train = self.train.len() as u64;
        while room > train && io.send_train(socket, towards, &self.train) {
            self.bytes += train;
            room -= train;
        }
        if self.bytes + train < WINDOW + self.known {
            io.again();
        }
    }

    fn wake_at(&self) -> Option<Moment> {
        self.wake
    }

    fn stop(&mut self, _: Moment, _: &mut Io<'_>) {
        self.towards = None;
    }

    fn may_stop(&self) -> bool {
        true
    }
}

fn start(
    segment: u16,
    mask: ProbeMask,
    every: Option<Span>,
) -> Result<(Running, Arc<Shared>), Failure> {
    let config = RuntimeConfig {
        shards: 2,
        pin: PinPolicy::Auto,
        spin: SpinPolicy::Off,
        probe_mask: mask,
        drain: Span::from_ms(100),
        ..RuntimeConfig::without_base()
    };
    let shared = Arc::new(Shared::default());
    let of_shards = Arc::clone(&shared);
    let make = move |context: ShardContext| {
        let segment_bytes = usize::from(segment);
        Load {
            shared: Arc::clone(&of_shards),
            shard: context.shard,
            segment,
            socket: None,
            towards: None,
            train: vec![7; (TRAIN_BYTES_MAX / segment_bytes).min(64) * segment_bytes],
            bytes: 0,
            known: 0,
            every,
            wake: every.map(|_| context.now),
        }
    };
    Ok((Runtime::start(config, make)?, shared))
}

/// What was measured.
#[derive(Clone, Copy, Default)]
struct Figures {
    gb_per_s: f64,
    lost: f64,
    /// For each second of the sender's core, and the receiver's.
    gb_per_cpu_s: [f64; 2],
    datagrams_per_receive: f64,
}

fn measure(segment: u16, mask: ProbeMask, lasts: Duration) -> Result<Figures, Failure> {
    let (mut running, shared) = start(segment, mask, None)?;
    let mut control = running.take_control().ok_or("a control plane")?;
    control.send(ShardId(1), b"begin");
    std::thread::park_timeout(lasts / 4);
    let (start, before) = (Instant::now(), shared.bytes.load(Ordering::Relaxed));
    let cpu = [shard_cpu(0)?, shard_cpu(1)?];
    std::thread::park_timeout(lasts);
    let bytes = (shared.bytes.load(Ordering::Relaxed) - before) as f64;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = [shard_cpu(0)? - cpu[0], shard_cpu(1)? - cpu[1]];
    let counters = &running.counters()[1];
    let (received, dropped) = (counters.datagrams_received.get(), counters.datagrams_dropped.get());
    let receives = counters.trains_received.get();
    running.stop();
    running.join()?;
    Ok(Figures {
        gb_per_s: bytes / seconds / 1e9,
        lost: dropped as f64 / (received + dropped) as f64,
        gb_per_cpu_s: cpu.map(|cpu| bytes / cpu as f64),
        datagrams_per_receive: received as f64 / receives as f64,
    })
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("timers") {
        return timers();
    }
    let seconds: f64 = first.map_or(Ok(1.0), |text| text.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let all = ProbeMask::default();
    let masks = [
        ("cut and put together by the kernel", all),
        ("cut by the kernel", all.without(Feature::ReceiveTrains)),
        ("put together by the kernel", all.without(Feature::SendTrains)),
        ("neither", all.without(Feature::SendTrains).without(Feature::ReceiveTrains)),
        (
            "neither, and a request for each",
            all.without(Feature::SendTrains)
                .without(Feature::ReceiveTrains)
                .without(Feature::MultishotReceiveMessage),
        ),
    ];
    println!("bytes   GB/s    lost    sender  receiver  a receive");
    for segment in [1350u16, 8900] {
        for (name, mask) in masks {
            let mut best = Figures::default();
            for _ in 0..rounds {
                let figures = measure(segment, mask, Duration::from_secs_f64(seconds))?;
                if figures.gb_per_s > best.gb_per_s {
                    best = figures;
                }
            }
            println!(
                "{segment:5}  {:5.2}  {:5.2} %  {:8.2}  {:8.2}  {:9.1}  {name}",
                best.gb_per_s,
                100.0 * best.lost,
                best.gb_per_cpu_s[0],
                best.gb_per_cpu_s[1],
                best.datagrams_per_receive
            );
        }
    }
    Ok(())
}

fn timers() -> Result<(), Failure> {
    println!("asked for  late by: median  p99  most");
    for us in [50, 100, 250, 1000, 5000] {
        let (running, shared) = start(1, ProbeMask::default(), Some(Span::from_us(us)))?;
        std::thread::park_timeout(Duration::from_secs(2));
        running.stop();
        running.join()?;
        let mut late = std::mem::take(&mut *shared.late.lock().expect("nobody panics"));
        late.sort_unstable();
        let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
        println!("{us:6} us  {:6.1} us  {:6.1} us  {:6.1} us", at(0.5), at(0.99), at(1.0));
    }
    println!("(slack and all; {} cores)", host::cores()?.len());
    Ok(())
}

/// Nanoseconds that a shard's thread has been on a core, kernel and user together.
fn shard_cpu(shard: usize) -> Result<u64, Failure> {
    let name = format!("ringway-shard-{shard}\n");
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if std::fs::read_to_string(path.join("comm"))? == name {
            let statistics = std::fs::read_to_string(path.join("schedstat"))?;
            return Ok(statistics.split(' ').next().unwrap_or_default().parse()?);
        }
    }
    Err("the shard has no thread".into())
}
