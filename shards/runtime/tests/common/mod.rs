//! A service that echoes, and the patience of a test.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub(crate) mod puppet;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringway_core::limits::{CONN_OUT_HIGH, CONN_OUT_LOW};
use ringway_core::{ConnId, Moment, ShardId, Span};
use ringway_shards::{
    Close, Io, Peer, PinPolicy, Running, Runtime, RuntimeConfig, Service, ShardContext,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What the services of a test have seen, over all shards.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) opened: AtomicU64,
    pub(crate) closed: AtomicU64,
    pub(crate) paused: AtomicU64,
    pub(crate) drained: AtomicU64,
    pub(crate) stopped: AtomicU64,
}

/// Sends back what arrives; stops reading from who does not read. `QUIT` is answered by "bye" and a
/// close after it, `KILL` by a close at once. Any mail closes those that were not read, at once.
pub(crate) struct Echo {
    seen: Arc<Seen>,
    stuck: Vec<ConnId>,
}

impl Echo {
    /// One whose deeds nobody looks at.
    pub(crate) fn new() -> Echo {
        Echo { seen: Arc::default(), stuck: Vec::new() }
    }
}

impl Service for Echo {
    fn opened(&mut self, _: Moment, _: ConnId, _: Peer, _: &mut Io<'_>) {
        self.seen.opened.fetch_add(1, Ordering::Relaxed);
    }

    fn received(&mut self, _: Moment, conn: ConnId, bytes: &mut [u8], io: &mut Io<'_>) {
        assert!(!bytes.is_empty());
        if bytes.starts_with(b"QUIT") {
            io.out(conn).extend_from_slice(b"bye");
            io.close(conn, Close::AfterFlush);
        } else if bytes.starts_with(b"KILL") {
            io.close(conn, Close::Now);
        } else {
            io.out(conn).extend_from_slice(bytes);
        }
        if io.backlog(conn) > CONN_OUT_HIGH {
            self.seen.paused.fetch_add(1, Ordering::Relaxed);
            io.pause(conn);
            io.await_drain(conn, CONN_OUT_LOW);
            self.stuck.push(conn);
        }
    }

    fn closed(&mut self, _: Moment, conn: ConnId, io: &mut Io<'_>) {
        self.seen.closed.fetch_add(1, Ordering::Relaxed);
        // The id is dead: nothing of this has an effect.
        io.out(conn).extend_from_slice(b"nobody hears this");
        io.resume(conn);
        io.close(conn, Close::Now);
        assert_eq!(io.backlog(conn), 0);
    }

    fn drained(&mut self, _: Moment, conn: ConnId, io: &mut Io<'_>) {
        self.seen.drained.fetch_add(1, Ordering::Relaxed);
        io.resume(conn);
    }

    fn mail(&mut self, _: Moment, _: ShardId, _: &[u8], io: &mut Io<'_>) {
        self.stuck.drain(..).for_each(|conn| io.close(conn, Close::Now));
    }

    fn turn(&mut self, _: Moment, _: &mut Io<'_>) {}

    fn wake_at(&self) -> Option<Moment> {
        None
    }

    fn stop(&mut self, _: Moment, _: &mut Io<'_>) {
        self.seen.stopped.fetch_add(1, Ordering::Relaxed);
    }

    fn may_stop(&self) -> bool {
        true
    }
}

/// Unpinned shards on a free port.
pub(crate) fn config(shards: usize) -> RuntimeConfig {
    RuntimeConfig {
        shards,
        pin: PinPolicy::Off,
        drain: DRAIN,
        ..RuntimeConfig::new("127.0.0.1:0".parse().unwrap())
    }
}

/// An echo server.
pub(crate) struct Server {
    pub(crate) running: Running,
    pub(crate) seen: Arc<Seen>,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(config: RuntimeConfig) -> Server {
        let seen = Arc::new(Seen::default());
        let of_service = Arc::clone(&seen);
        let make = move |_: ShardContext| Echo { seen: Arc::clone(&of_service), stuck: Vec::new() };
        let running = Runtime::start(config, make).unwrap();
        let address = running.addresses().base.unwrap();
        Server { running, seen, address }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_nodelay(true).unwrap();
        client
    }

    /// A sum over all shards.
    pub(crate) fn sum(&self, of: impl Fn(&ringway_shards::ShardCounters) -> u64) -> u64 {
        self.running.counters().iter().map(|counters| of(counters)).sum()
    }

    /// Stops, and checks that this is not a matter of time running out.
    pub(crate) fn stop(self) {
        let start = Instant::now();
        self.running.stop();
        self.running.join().unwrap();
        let half = Duration::from_nanos(DRAIN.0) / 2;
        assert!(start.elapsed() < half, "stopped only at the deadline");
    }
}

/// A stop that waits for time to run out takes this long: far longer than any other does on a
/// loaded machine.
const DRAIN: Span = Span::from_s(40);

/// Longer than anything here takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a condition.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// Sends bytes and reads as many back.
pub(crate) fn echo(client: &mut TcpStream, bytes: &[u8]) {
    client.write_all(bytes).unwrap();
    let mut got = vec![0; bytes.len()];
    client.read_exact(&mut got).unwrap();
    assert!(got == bytes, "the echo differs");
}

pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Waits until a descriptor is readable.
pub(crate) fn wait_readable(fd: &impl AsFd) {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let patience = Timespec::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut fds, Some(&patience)).unwrap(), 1, "nothing came");
}

/// Tells a story in a network namespace of its own, in which `prepare` has run by then. `false`:
/// nobody here may make one.
pub(crate) fn in_a_network_of_its_own(prepare: &[&str], story: impl FnOnce() + Send) -> bool {
    let run = |command: &str| {
        let mut words = command.split(' ');
        let program = words.next().unwrap();
        Command::new(program).args(words).status().is_ok_and(|status| status.success())
    };
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("ringway-shards-{}-{number}", std::process::id());
    if !run(&format!("ip netns add {name}")) {
        return false;
    }
    let space = std::fs::File::open(format!("/run/netns/{name}")).unwrap();
    // Its name goes at once: a test that fails leaves nothing behind.
    assert!(run(&format!("ip netns delete {name}")));
    std::thread::scope(|scope| {
        let told = scope.spawn(|| {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(space.as_fd(), kind).unwrap();
            for command in ["ip link set lo up"].iter().chain(prepare) {
                assert!(run(command), "{command}");
            }
            story();
        });
        if let Err(panic) = told.join() {
            std::panic::resume_unwind(panic);
        }
    });
    true
}

/// Lowers the number of files that the process may have open.
pub(crate) fn limit_open_files(count: u64) {
    let limit = Rlimit { current: Some(count), maximum: Some(count) };
    setrlimit(Resource::Nofile, limit).unwrap();
}
