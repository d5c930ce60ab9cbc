//! Receive buffers are few and shared: who sends little does not wait for those that send much.

mod common;

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use ringway_core::{ConnId, Moment, ShardId};
use ringway_ring::RingConfig;
use ringway_shards::{Io, Peer, Runtime, RuntimeConfig, Service, ShardContext, SpinPolicy};

/// Bytes that are read before the words are sent.
const FIRST: u64 = 1024 * 1024;
/// Receive buffers of the shard, and bytes of one.
const BUFFERS: (u16, u32) = (8, 1024);

#[derive(Default)]
struct Seen {
    bytes: AtomicU64,
    connections: AtomicU64,
    /// Words that were heard, and the bytes of everybody else before the last one.
    words: AtomicU64,
    before: AtomicU64,
}

/// Counts what arrives. It stands still at a `W`, and again after the first bytes, until the test
/// has prepared what comes next.
struct Counting {
    seen: Arc<Seen>,
    ready: Arc<Barrier>,
}

impl Service for Counting {
    fn opened(&mut self, _: Moment, _: ConnId, _: Peer, _: &mut Io<'_>) {
        self.seen.connections.fetch_add(1, Ordering::Relaxed);
    }

    fn received(&mut self, _: Moment, _: ConnId, bytes: &mut [u8], _: &mut Io<'_>) {
        match bytes[0] {
            b'W' => {
                self.ready.wait();
                self.ready.wait();
            }
            b'm' => {
                self.seen.before.store(self.seen.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
                self.seen.words.fetch_add(1, Ordering::Release);
            }
            _ => {
                let more = bytes.len() as u64;
                let before = self.seen.bytes.fetch_add(more, Ordering::Relaxed);
                if before < FIRST && before + more >= FIRST {
                    self.ready.wait();
                    self.ready.wait();
                }
            }
        }
    }

    fn closed(&mut self, _: Moment, _: ConnId, _: &mut Io<'_>) {}

    fn drained(&mut self, _: Moment, _: ConnId, _: &mut Io<'_>) {}

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

/// Sixty connections are amid filling their sockets when ten between them send a word each. All are
/// heard in the turn after that: what the others sent waits.
#[test]
fn words_are_heard_among_floods() {
    let (seen, ready) = (Arc::new(Seen::default()), Arc::new(Barrier::new(2)));
    let ring = RingConfig { buffers: BUFFERS.0, buffer_bytes: BUFFERS.1, ..RingConfig::default() };
    let config = RuntimeConfig {
        ring,
        spin: SpinPolicy::Off,
        ..RuntimeConfig::new("127.0.0.1:0".parse().unwrap())
    };
    let (ours, gate) = (Arc::clone(&seen), Arc::clone(&ready));
    let make =
        move |_: ShardContext| Counting { seen: Arc::clone(&ours), ready: Arc::clone(&gate) };
    let server = Runtime::start(config, make).unwrap();
    let connect = || TcpStream::connect(server.addresses().base.unwrap()).unwrap();
    let mut waiter = connect();
    let (mut modest, mut floods) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        floods.extend((0..6).map(|_| connect()));
        modest.push(connect());
    }
    common::until("all are known", || seen.connections.load(Ordering::Relaxed) == 71);
    waiter.write_all(b"W").unwrap();
    ready.wait();
    let mut sent = 0;
    for mut flood in &floods {
        flood.set_nonblocking(true).unwrap();
        loop {
            match flood.write(&[b'f'; 16 * 1024]) {
                Ok(many) => sent += many as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    ready.wait();
    ready.wait();
    modest.iter_mut().for_each(|modest| modest.write_all(b"m").unwrap());
    ready.wait();
    common::until("all words are heard", || seen.words.load(Ordering::Acquire) == 10);
    let before = seen.before.load(Ordering::Relaxed) - FIRST;
    println!("{before} of {sent} bytes were read before the last word");
    let one_turn = u64::from(BUFFERS.0) * u64::from(BUFFERS.1);
    assert!(before <= one_turn, "{before} of {sent} bytes came first");
    drop(floods);
    server.stop();
    server.join().unwrap();
}
