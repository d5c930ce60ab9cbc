//! What a relay on shards costs: bytes go from a source through one shard to a sink, as they will
//! through each half of a tunnel. The shard accepts the source, connects to the sink, and copies
//! both ways; who reads slowly holds up who writes fast, and nobody else.
//!
//! `relay [seconds] [rounds]` compares sizes of receive buffers, one after the other and again
//! from the beginning, since the machine's other work comes and goes. The shard has the first core,
//! source and sink share the last. It prints medians: GB/s, CPU seconds of the shard for each GB,
//! and bytes of a turn; and first what the same source and sink do without anybody in between.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringway_core::{ConnId, Moment, ShardId, Span};
use ringway_ring::host;
use ringway_shards::{
    Close, Errno, Io, Peer, PinPolicy, RingConfig, Running, Runtime, RuntimeConfig, Service,
    SpinPolicy,
};

/// Half of a relayed connection.
#[derive(Clone, Copy)]
struct Half {
    other: ConnId,
    ended: bool,
}

/// Connects whoever comes with the target.
struct Relay {
    target: SocketAddr,
    marks: Marks,
    /// By the index of a connection.
    halves: Vec<Option<Half>>,
}

/// Above how many waiting bytes the other half is not read, and below how many it is again.
#[derive(Clone, Copy)]
struct Marks {
    high: usize,
    low: usize,
}

impl Relay {
    fn half(&mut self, conn: ConnId) -> Option<&mut Half> {
        self.halves.get_mut(conn.index as usize)?.as_mut()
    }

    fn join(&mut self, conn: ConnId, other: ConnId) {
        let at = conn.index as usize;
        if self.halves.len() <= at {
            self.halves.resize(at + 1, None);
        }
        self.halves[at] = Some(Half { other, ended: false });
    }
}

impl Service for Relay {
    fn opened(&mut self, _: Moment, conn: ConnId, _: Peer, io: &mut Io<'_>) {
        // What is written before the target answers would wait here without a bound.
        io.pause(conn);
        match io.connect(self.target) {
            Ok(other) => {
                io.call_overdue(other, Span::from_s(10));
                self.join(conn, other);
                self.join(other, conn);
            }
            Err(_) => io.close(conn, Close::Reset),
        }
    }

    fn connected(&mut self, _: Moment, conn: ConnId, end: Result<(), Errno>, io: &mut Io<'_>) {
        // If there is nobody, `closed` follows and resets the other half.
        if let (Ok(()), Some(half)) = (end, self.half(conn)) {
            io.resume(half.other);
        }
    }

    fn received(&mut self, _: Moment, conn: ConnId, bytes: &mut [u8], io: &mut Io<'_>) {
        let marks = self.marks;
        let Some(half) = self.half(conn) else { return };
        io.out(half.other).extend_from_slice(bytes);
        if io.backlog(half.other) > marks.high {
            io.pause(conn);
            io.await_drain(half.other, marks.low);
        }
    }

    fn drained(&mut self, _: Moment, conn: ConnId, io: &mut Io<'_>) {
        if let Some(half) = self.half(conn) {
            io.resume(half.other);
        }
    }

    fn ended(&mut self, _: Moment, conn: ConnId, io: &mut Io<'_>) {
        let Some(half) = self.half(conn) else { return };
        half.ended = true;
        let other = half.other;
        io.finish(other);
        if self.half(other).is_some_and(|half| half.ended) {
            io.close(conn, Close::AfterFlush);
            io.close(other, Close::AfterFlush);
        }
    }

    fn closed(&mut self, _: Moment, conn: ConnId, io: &mut Io<'_>) {
        // Whose other half went without an end must not take it for one.
        if let Some(half) = self.halves.get_mut(conn.index as usize).and_then(Option::take) {
            let how = if half.ended { Close::AfterFlush } else { Close::Reset };
            io.close(half.other, how);
        }
    }

    fn mail(&mut self, _: Moment, _: ShardId, _: &[u8], _: &mut Io<'_>) {}

    fn turn(&mut self, _: Moment, _: &mut Io<'_>) {}

    fn wake_at(&self) -> Option<Moment> {
        None
    }

    fn stop(&mut self, _: Moment, _: &mut Io<'_>) {}

    fn may_stop(&self) -> bool {
        true
    }
}

type Failure = Box<dyn std::error::Error>;

/// One set-up to measure.
#[derive(Clone, Copy)]
struct Case {
    buffer_kib: u32,
    buffers: u16,
    high_kib: usize,
    /// Of the largest out buffer that is kept.
    spare_kib: usize,
}

/// What one measurement gave.
#[derive(Clone, Copy, Default)]
struct Figures {
    gb_per_s: f64,
    cpu_s_per_gb: f64,
    turn_kib: f64,
}

/// Receive buffers of 4 MiB together, and of 1 MiB, which stay in the cache; and out buffers that
/// are as large as what is sent at a time, and such that are not.
const CASES: [Case; 8] = [
    Case { buffer_kib: 16, buffers: 256, high_kib: 1024, spare_kib: 1024 },
    Case { buffer_kib: 64, buffers: 64, high_kib: 1024, spare_kib: 1024 },
    Case { buffer_kib: 256, buffers: 16, high_kib: 1024, spare_kib: 1024 },
    Case { buffer_kib: 16, buffers: 64, high_kib: 256, spare_kib: 1024 },
    Case { buffer_kib: 64, buffers: 16, high_kib: 256, spare_kib: 1024 },
    Case { buffer_kib: 256, buffers: 4, high_kib: 256, spare_kib: 1024 },
    Case { buffer_kib: 64, buffers: 64, high_kib: 1024, spare_kib: 64 },
    Case { buffer_kib: 64, buffers: 16, high_kib: 256, spare_kib: 64 },
];
/// Bytes of a write of the source, and of a read of the sink: as iperf3 has them.
const BLOCK: usize = 128 * 1024;
/// Before this nothing is counted: windows grow.
const WARM_UP: Duration = Duration::from_millis(200);

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().map_or(Ok(1.0), |text| text.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let lasts = Duration::from_secs_f64(seconds);
    let cores = host::cores()?;
    let (first, last) = (cores[0], cores[cores.len() - 1]);
    let mut direct = Vec::new();
    let mut relayed = vec![Vec::new(); CASES.len()];
    for _ in 0..rounds.max(1) {
        direct.push(measure_direct(first, last, lasts)?);
        for (case, figures) in CASES.iter().zip(&mut relayed) {
            figures.push(measure_relayed(*case, first, last, lasts)?);
        }
    }
    println!("direct: {:.2} GB/s, source and sink on a core each", median(&direct).gb_per_s);
    println!("buffers      high mark     spare    GB/s   CPU s/GB   KiB a turn");
    for (case, figures) in CASES.iter().zip(&relayed) {
        let figures = median(figures);
        println!(
            "{:>3} x {:>3} KiB {:>5} KiB {:>5} KiB {:>7.2} {:>10.3} {:>12.0}",
            case.buffers,
            case.buffer_kib,
            case.high_kib,
            case.spare_kib,
            figures.gb_per_s,
            figures.cpu_s_per_gb,
            figures.turn_kib
        );
    }
    Ok(())
}

fn median(figures: &[Figures]) -> Figures {
    let middle = |of: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = figures.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Figures {
        gb_per_s: middle(|figures| figures.gb_per_s),
        cpu_s_per_gb: middle(|figures| figures.cpu_s_per_gb),
        turn_kib: middle(|figures| figures.turn_kib),
    }
}

fn measure_direct(first: usize, last: usize, lasts: Duration) -> Result<Figures, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let pump = Pump::start(listener.local_addr()?, &listener, (first, last))?;
    let gb_per_s = pump.rate(lasts);
    pump.stop();
    Ok(Figures { gb_per_s, ..Figures::default() })
}

fn measure_relayed(
    case: Case,
    first: usize,
    last: usize,
    lasts: Duration,
) -> Result<Figures, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let target = listener.local_addr()?;
    let config = RuntimeConfig {
        pin: PinPolicy::Cores(vec![first]),
        spin: SpinPolicy::Off,
        ring: RingConfig {
            buffers: case.buffers,
            buffer_bytes: case.buffer_kib * 1024,
            ..RingConfig::default()
        },
        spare_buffer_bytes_max: case.spare_kib * 1024,
        drain: Span::from_ms(100),
        ..RuntimeConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)))
    };
    let high = case.high_kib * 1024;
    let marks = Marks { high, low: high / 2 };
    let make = move |_| Relay { target, marks, halves: Vec::new() };
    let running = Runtime::start(config, make)?;
    let address = running.addresses().base.ok_or("there is a base door")?;
    let pump = Pump::start(address, &listener, (last, last))?;
    pump.rate(WARM_UP);
    let (turns, cpu, bytes) = (turns(&running), shard_cpu()?, pump.taken());
    let gb_per_s = pump.rate(lasts);
    let gb = (pump.taken() - bytes) as f64 / 1e9;
    let (turns, cpu) = (self::turns(&running) - turns, shard_cpu()? - cpu);
    pump.stop();
    running.stop();
    running.join()?;
    Ok(Figures {
        gb_per_s,
        cpu_s_per_gb: cpu as f64 / 1e9 / gb,
        turn_kib: gb * 1e9 / 1024.0 / turns as f64,
    })
}

fn turns(running: &Running) -> u64 {
    running.counters()[0].turns.get()
}

/// A source and a sink, a thread each.
struct Pump {
    taken: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    threads: [JoinHandle<()>; 2],
}

impl Pump {
    /// The source writes to `to`; whoever connects to the listener is what the sink reads.
    fn start(
        to: SocketAddr,
        listener: &TcpListener,
        cores: (usize, usize),
    ) -> Result<Pump, Failure> {
        let mut source = TcpStream::connect(to)?;
        let mut sink = listener.accept()?.0;
        let (taken, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&taken), Arc::clone(&over));
        let writes = std::thread::spawn(move || {
            host::pin_to(cores.0).expect("it is one of ours");
            let block = vec![7; BLOCK];
            while !end.load(Ordering::Relaxed) && source.write_all(&block).is_ok() {}
        });
        let reads = std::thread::spawn(move || {
            host::pin_to(cores.1).expect("it is one of ours");
            let mut block = vec![0; BLOCK];
            while let Ok(many @ 1..) = sink.read(&mut block) {
                count.fetch_add(many as u64, Ordering::Relaxed);
            }
        });
        Ok(Pump { taken, over, threads: [writes, reads] })
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// GB a second, over so long a time from now on.
    fn rate(&self, lasts: Duration) -> f64 {
        let (start, before) = (Instant::now(), self.taken());
        while start.elapsed() < lasts {
            std::thread::park_timeout(lasts - start.elapsed().min(lasts));
        }
        (self.taken() - before) as f64 / start.elapsed().as_secs_f64() / 1e9
    }

    /// Ends the source; the sink reads to the end.
    fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("it does not panic");
        }
    }
}

/// Nanoseconds that the shard's thread has been on a core, kernel and user together.
fn shard_cpu() -> Result<u64, Failure> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if std::fs::read_to_string(path.join("comm"))?.starts_with("ringway-shard") {
            let statistics = std::fs::read_to_string(path.join("schedstat"))?;
            return Ok(statistics.split(' ').next().unwrap_or_default().parse()?);
        }
    }
    Err("the shard has no thread".into())
}
