//! One load thread: its connections, one epoll, nobody else's data.
//!
//! A thread runs phases one after the other over the same connections. In a closed loop every
//! reply makes the next request; in an open loop a schedule does, whatever the server does.
//!
//! Invariants:
//! - W1  A connection has at most `pipeline` requests on the way.
//! - W2  In an open loop every request that was due in the window is recorded, with the time since
//!   it was due: on its reply, or, if it could not even be sent, when the window has ended.
//! - W3  A phase ends with no request on the way, or with an error.
//!
//! Bounds: one read buffer a thread; a connection keeps what is unsent and the part of a reply.
//! Not here: names and kinds (`source`), bytes (`wire`), what the phases are (`driver`).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::time::{ClockId, clock_gettime};

use crate::error::{Broken, LoadError};
use crate::latency::Latencies;
use crate::schedule::Schedule;
use crate::source::{Lane, Source, Task};
use crate::tally::Tally;
use crate::wire::{Request, Wire};

/// Bytes that one read takes: more than the largest reply.
const READ_BYTES: usize = 512 * 1024;
/// Events taken from epoll at once.
const EVENTS: usize = 256;
/// Due requests sent before replies are looked at again.
const BURST: usize = 256;
/// The longest sleep, so that a stop is noticed.
const NAP_NS: u64 = 10_000_000;

/// The longest that polling in vain takes by itself.
const POLL_NS_MAX: u64 = 20_000;

/// What a thread shows while it runs. Alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Gauge {
    /// Replies since the thread began.
    pub(crate) ops: AtomicU64,
    /// The slowest since somebody last looked.
    pub(crate) worst_ns: AtomicU64,
}

/// One phase, the same for all threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phase {
    pub(crate) task: Task,
    /// When the first request goes.
    pub(crate) start_ns: u64,
    /// When measuring begins and ends.
    pub(crate) from_ns: u64,
    pub(crate) until_ns: u64,
    /// This thread stops after so many measured ops.
    pub(crate) ops_max: u64,
    /// Requests a second over all threads.
    pub(crate) rate: Option<f64>,
    /// `HELD` and `NOTOWNER` are fine.
    pub(crate) tolerant: bool,
}

/// What a phase came to in one thread.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    pub(crate) latencies: Latencies,
    /// Replies within the window.
    pub(crate) window_ops: u64,
    /// The window as it was.
    pub(crate) until_ns: u64,
    /// CPU time of the thread within the window, and how much of it was spent polling in vain.
    pub(crate) cpu_ns: u64,
    pub(crate) idle_ns: u64,
    /// Ops that were due and could not be sent.
    pub(crate) unsent: u64,
    /// Requests that were not answered in time.
    pub(crate) unanswered: u64,
}

/// What all threads look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared<'a> {
    pub(crate) addr: SocketAddr,
    pub(crate) base: Instant,
    /// Somebody wants the run to end now.
    pub(crate) stop: &'a AtomicBool,
    /// The running phase has what it wanted.
    pub(crate) enough: &'a AtomicBool,
    /// Another thread has failed.
    pub(crate) abort: &'a AtomicBool,
    pub(crate) pipeline: usize,
    pub(crate) threads: usize,
    pub(crate) lanes: u64,
    pub(crate) timeout: Duration,
    pub(crate) spin: bool,
}

impl Shared<'_> {
    /// Nanoseconds since the run's base.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.base.elapsed().as_nanos() as u64
    }
}

struct Conn {
    stream: TcpStream,
    lane: Lane,
    number: u64,
    due: VecDeque<Request>,
    /// The beginning of a reply.
    part: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    blocked: bool,
}

/// One thread's connections and what it needs to use them.
pub(crate) struct Worker<'a, W> {
    shared: Shared<'a>,
    gauge: &'a Gauge,
    thread: usize,
    wire: W,
    source: Source,
    conns: Vec<Conn>,
    epoll: OwnedFd,
    inbox: Vec<u8>,
    replies: u64,
}

/// The state of a running phase.
struct Run {
    phase: Phase,
    out: Outcome,
    now: u64,
    cpu_at_from: Option<u64>,
    on_the_way: usize,
}

impl<'a, W: Wire> Worker<'a, W> {
    pub(crate) fn new(
        shared: Shared<'a>,
        gauge: &'a Gauge,
        thread: usize,
        wire: W,
        source: Source,
    ) -> Result<Self, LoadError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system("epoll"))?;
        let (conns, inbox) = (Vec::new(), vec![0; READ_BYTES]);
        Ok(Worker { shared, gauge, thread, wire, source, conns, epoll, inbox, replies: 0 })
    }

    /// Adds a greeted, nonblocking connection, the `number`-th of the load.
    pub(crate) fn add(
        &mut self,
        stream: TcpStream,
        lane: Lane,
        number: u64,
    ) -> Result<(), LoadError> {
        let data = epoll::EventData::new_u64(self.conns.len() as u64);
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN).map_err(system("epoll"))?;
        let (due, part, out) = (VecDeque::new(), Vec::new(), Vec::new());
        self.conns.push(Conn { stream, lane, number, due, part, out, sent: 0, blocked: false });
        Ok(())
    }

    /// Runs one phase to its end.
    pub(crate) fn run(&mut self, phase: Phase, tally: Tally) -> Result<Outcome, LoadError> {
        self.source.begin(phase.task);
        for conn in &mut self.conns {
            conn.lane.begin(phase.task, conn.number, self.shared.lanes);
        }
        let mut run = Run::new(phase, tally);
        self.wait_for_start(&mut run);
        match phase.rate {
            None => self.closed_loop(&mut run)?,
            Some(rate) => self.open_loop(&mut run, rate)?,
        }
        run.end_window(self.shared.now());
        self.drain(&mut run)?;
        Ok(run.out)
    }

    fn wait_for_start(&self, run: &mut Run) {
        run.now = self.shared.now();
        while run.now < run.phase.start_ns {
            let left = run.phase.start_ns - run.now;
            if left > 200_000 {
                std::thread::sleep(Duration::from_nanos(left - 200_000));
            }
            std::hint::spin_loop();
            run.now = self.shared.now();
        }
    }

    fn closed_loop(&mut self, run: &mut Run) -> Result<(), LoadError> {
        for at in 0..self.conns.len() {
            self.refill(at, self.shared.pipeline, run)?;
        }
        let mut events = Vec::with_capacity(EVENTS);
        while !self.over(run) {
            // Every lane that has more keeps requests on the way: nothing there, nothing left.
            if run.on_the_way == 0 {
                return Ok(());
            }
            self.wait(&mut events, run.phase.until_ns, run)?;
            for event in events.drain(..) {
                let (at, answered) = self.serve(event, run)?;
                if answered > 0 && run.now < run.phase.until_ns {
                    self.refill(at, answered, run)?;
                }
            }
            self.publish();
        }
        Ok(())
    }

    fn open_loop(&mut self, run: &mut Run, rate: f64) -> Result<(), LoadError> {
        let (threads, thread) = (self.shared.threads, self.thread);
        let mut schedule = Schedule::new(run.phase.start_ns, rate, thread, threads);
        let mut events = Vec::with_capacity(EVENTS);
        let mut turn = 0;
        while !self.over(run) {
            self.send_due(&mut schedule, &mut turn, run)?;
            let wake = schedule.next_due().min(run.phase.until_ns);
            self.wait(&mut events, wake, run)?;
            for event in events.drain(..) {
                self.serve(event, run)?;
            }
            self.publish();
        }
        // W2: what was due and still waits here has taken at least until now.
        let until = run.phase.until_ns.min(run.now);
        while schedule.next_due() < until {
            let due = schedule.next_due();
            schedule.take();
            if due >= run.phase.from_ns {
                let ops = self.wire.ops();
                run.out.latencies.record(run.now - due, ops);
                run.out.unsent += ops;
            }
        }
        Ok(())
    }

    /// Sends what is due, each on the next connection that has room.
    fn send_due(
        &mut self,
        schedule: &mut Schedule,
        turn: &mut usize,
        run: &mut Run,
    ) -> Result<(), LoadError> {
        for _ in 0..BURST {
            let due = schedule.next_due();
            if due > run.now || due >= run.phase.until_ns {
                return Ok(());
            }
            let conns = self.conns.len();
            let room = |at: &usize| self.conns[*at].due.len() < self.shared.pipeline;
            let Some(at) = (0..conns).map(|step| (*turn + step) % conns).find(room) else {
                return Ok(());
            };
            *turn = (at + 1) % conns;
            let conn = &mut self.conns[at];
            let made = self.wire.put(&mut self.source, &mut conn.lane, &mut conn.out);
            let Some(mut request) = made else {
                // Nothing is left to register: the window ends here.
                run.end_window(run.now);
                return Ok(());
            };
            schedule.take();
            request.intended_ns = due;
            conn.due.push_back(request);
            run.on_the_way += 1;
            self.flush(at)?;
            run.now = self.shared.now();
        }
        Ok(())
    }

    /// Sends `requests` more on a connection, intended now.
    fn refill(&mut self, at: usize, requests: usize, run: &mut Run) -> Result<(), LoadError> {
        let conn = &mut self.conns[at];
        let before = conn.due.len();
        for _ in 0..requests {
            match self.wire.put(&mut self.source, &mut conn.lane, &mut conn.out) {
                Some(request) => conn.due.push_back(request),
                None => break,
            }
        }
        let intended_ns = self.shared.now();
        let made = conn.due.len() - before;
        for request in conn.due.iter_mut().skip(before) {
            request.intended_ns = intended_ns;
        }
        run.on_the_way += made;
        if made > 0 { self.flush(at) } else { Ok(()) }
    }

    fn flush(&mut self, at: usize) -> Result<(), LoadError> {
        let conn = &mut self.conns[at];
        while conn.sent < conn.out.len() {
            match conn.stream.write(&conn.out[conn.sent..]) {
                Ok(len) => conn.sent += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(LoadError::Io { conn: at, addr: self.shared.addr, source });
                }
            }
        }
        let blocked = conn.sent < conn.out.len();
        if !blocked {
            conn.out.clear();
            conn.sent = 0;
        }
        if blocked != conn.blocked {
            conn.blocked = blocked;
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, blocked);
            let data = epoll::EventData::new_u64(at as u64);
            epoll::modify(&self.epoll, &conn.stream, data, flags).map_err(system("epoll"))?;
        }
        Ok(())
    }

    /// Reads what has come on a connection and takes the replies in it; says how many.
    fn read(&mut self, at: usize, run: &mut Run) -> Result<usize, LoadError> {
        let addr = self.shared.addr;
        let mut answered = 0;
        loop {
            let conn = &mut self.conns[at];
            let kept = conn.part.len();
            self.inbox[..kept].copy_from_slice(&conn.part);
            let filled = match conn.stream.read(&mut self.inbox[kept..]) {
                Ok(0) => {
                    let due = conn.due.len();
                    return Err(LoadError::Closed { addr, conn: at, due });
                }
                Ok(len) => kept + len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(answered),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(LoadError::Io { conn: at, addr, source }),
            };
            run.now = self.shared.now();
            let taken = take_replies(&self.wire, conn, &self.inbox[..filled], run);
            let (used, replies) =
                taken.map_err(|what| LoadError::Broken { addr, conn: at, what })?;
            conn.part.clear();
            conn.part.extend_from_slice(&self.inbox[used..filled]);
            answered += replies.0;
            self.replies += replies.1;
            self.gauge.worst_ns.fetch_max(replies.2, Ordering::Relaxed);
            if filled < self.inbox.len() {
                return Ok(answered);
            }
        }
    }

    /// Does what a connection is ready for: which one it is, and how many replies came.
    fn serve(&mut self, event: epoll::Event, run: &mut Run) -> Result<(usize, usize), LoadError> {
        let (flags, at) = (event.flags, event.data.u64() as usize);
        if flags.contains(epoll::EventFlags::OUT) {
            self.flush(at)?;
        }
        Ok((at, self.read(at, run)?))
    }

    /// Waits for replies to all that is on the way, for as long as the time-out says.
    fn drain(&mut self, run: &mut Run) -> Result<(), LoadError> {
        let patience = self.shared.now() + self.shared.timeout.as_nanos() as u64;
        let mut events = Vec::with_capacity(EVENTS);
        while run.on_the_way > 0 && run.now < patience {
            if self.shared.abort.load(Ordering::Relaxed) {
                break;
            }
            self.wait(&mut events, patience, run)?;
            for event in events.drain(..) {
                self.serve(event, run)?;
            }
        }
        run.out.unanswered = run.on_the_way as u64;
        self.publish();
        Ok(())
    }

    /// Waits for something to read or write, until `wake_ns` at most.
    fn wait(
        &mut self,
        events: &mut Vec<epoll::Event>,
        wake_ns: u64,
        run: &mut Run,
    ) -> Result<(), LoadError> {
        let nap = if self.shared.spin { 0 } else { wake_ns.saturating_sub(run.now).min(NAP_NS) };
        let before = self.shared.now();
        let nap = Timespec { tv_sec: 0, tv_nsec: nap as i64 };
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&nap)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(system("epoll")(errno)),
        }
        run.now = self.shared.now();
        let waited = run.now - before;
        // A poll that takes long was no poll: another thread had the core meanwhile.
        if events.is_empty() && waited < POLL_NS_MAX && run.in_window() {
            run.out.idle_ns += waited;
        }
        Ok(())
    }

    /// Whether the window has ended, by the clock, by what was done, or by somebody's wish.
    fn over(&self, run: &mut Run) -> bool {
        if run.cpu_at_from.is_none() && run.now >= run.phase.from_ns {
            run.cpu_at_from = Some(thread_cpu_ns());
        }
        run.now >= run.phase.until_ns
            || run.out.window_ops >= run.phase.ops_max
            || run.out.tally.unexpected > 0
            || self.shared.enough.load(Ordering::Relaxed)
            || self.shared.stop.load(Ordering::Relaxed)
            || self.shared.abort.load(Ordering::Relaxed)
    }

    fn publish(&self) {
        self.gauge.ops.store(self.replies, Ordering::Relaxed);
    }
}

/// Takes all whole replies at the front of `bytes`: bytes used, and (replies, ops, slowest).
#[inline]
fn take_replies<W: Wire>(
    wire: &W,
    conn: &mut Conn,
    bytes: &[u8],
    run: &mut Run,
) -> Result<(usize, (usize, u64, u64)), Broken> {
    let (mut used, mut replies, mut ops, mut worst) = (0, 0, 0, 0);
    // Requests that were sent together share one entry in the histogram.
    let (mut together, mut together_ops) = (0, 0);
    while let Some(due) = conn.due.front() {
        let Some(len) = wire.take(&bytes[used..], due, &mut run.out.tally)? else { break };
        used += len;
        replies += 1;
        if due.intended_ns != together {
            run.record(together, together_ops);
            (together, together_ops) = (due.intended_ns, 0);
            worst = worst.max(run.now.saturating_sub(together));
        }
        together_ops += due.ops();
        ops += due.ops();
        conn.due.pop_front();
    }
    run.record(together, together_ops);
    run.on_the_way -= replies;
    if run.in_window() {
        run.out.window_ops += ops;
    }
    if conn.due.is_empty() && used < bytes.len() {
        return Err(Broken::Unasked);
    }
    Ok((used, (replies, ops, worst)))
}

impl Run {
    fn new(phase: Phase, mut tally: Tally) -> Run {
        tally.set_tolerant(phase.tolerant);
        let out = Outcome {
            tally,
            latencies: Latencies::new(),
            window_ops: 0,
            until_ns: phase.until_ns,
            cpu_ns: 0,
            idle_ns: 0,
            unsent: 0,
            unanswered: 0,
        };
        Run { phase, out, now: 0, cpu_at_from: None, on_the_way: 0 }
    }

    #[inline]
    fn in_window(&self) -> bool {
        self.now >= self.phase.from_ns && self.now < self.phase.until_ns
    }

    /// Closed loop: what is answered in the window counts. Open loop: what was due in it.
    #[inline]
    fn record(&mut self, intended_ns: u64, ops: u64) {
        let at = if self.phase.rate.is_some() { intended_ns } else { self.now };
        if ops > 0 && at >= self.phase.from_ns && at < self.phase.until_ns {
            self.out.latencies.record(self.now.saturating_sub(intended_ns), ops);
        }
    }

    /// Ends the window now if it has not ended by itself.
    fn end_window(&mut self, now: u64) {
        self.phase.until_ns = self.phase.until_ns.min(now);
        if self.out.cpu_ns == 0 {
            self.out.until_ns = self.phase.until_ns;
            self.out.cpu_ns = self.cpu_at_from.map_or(0, |from| thread_cpu_ns() - from);
        }
    }
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn system(doing: &'static str) -> impl Fn(rustix::io::Errno) -> LoadError {
    move |errno| LoadError::System { doing, source: errno.into() }
}
