//! Connections that change their shard: no byte is lost, none doubled, and all stay in order.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::puppet::{Heard, Stage};
use common::{PATIENCE, config, read, until};
use ringway_core::limits::{CONN_OUT_HIGH, CONN_OUT_LOW, GIVE_NOTE_BYTES_MAX};
use ringway_core::{ConnId, Moment, ShardId};
use ringway_ring::{Feature, ProbeMask};
use ringway_shards::{Close, Io, Peer, Runtime, RuntimeConfig, Service, ShardContext};

fn masks() -> [ProbeMask; 2] {
    [ProbeMask::default(), ProbeMask::default().without(Feature::QuietSend)]
}

/// To the other shard, back again, to itself: the note arrives, the old id is dead, and the
/// connection works in both directions each time. Nobody is told that it closed.
#[test]
fn a_connection_goes_around() {
    let mut stage = Stage::new(config(2));
    let (mut client, mut shard, mut conn) = stage.connect();
    for (round, hop) in [1, 1, 0, 1, 0].into_iter().enumerate() {
        let (from, to) = (shard, ShardId(shard.0 ^ hop));
        let note = vec![round as u8; if round == 0 { GIVE_NOTE_BYTES_MAX } else { round - 1 }];
        let (old, copy) = (conn, note.clone());
        stage.on(from.0, move |io| {
            io.give(old, to, &copy);
            io.out(old).extend_from_slice(b"nobody hears this");
            io.close(old, Close::Now);
            assert_eq!(io.backlog(old), 0);
        });
        conn = stage.adopted(&client, to, &note);
        shard = to;
        stage.talk(&mut client, shard, conn);
    }
    assert_eq!(stage.sum(|c| c.connections_now.get()), 1);
    assert_eq!((stage.sum(|c| c.given.get()), stage.sum(|c| c.adopted.get())), (5, 5));
    drop(client);
    assert_eq!(stage.next_of(conn), Heard::Ended);
    stage.on(shard.0, move |io| io.close(conn, Close::AfterFlush));
    assert_eq!(stage.next_of(conn), Heard::Closed);
    stage.stop();
}

/// What waits for a slow reader goes along, partly taken by the kernel, and what the new owner says
/// comes after it; so does our end of the connection when it was said.
#[test]
fn unsent_bytes_go_along() {
    for mask in masks() {
        let mut stage = Stage::new(RuntimeConfig { probe_mask: mask, ..config(2) });
        let (mut client, from, conn) = stage.connect();
        let to = ShardId(1 - from.0);
        let sent: Vec<u8> = (0..24u32 << 20).map(|i| (i / 251) as u8).collect();
        let copy = sent.clone();
        stage.on(from.0, move |io| io.out(conn).extend_from_slice(&copy));
        until("a send waits for the reader", || stage.sum(|c| c.sends_short.get()) > 0);
        // Some of it is taken amid the send.
        let mut got = vec![0; 5 << 20];
        client.read_exact(&mut got).unwrap();
        stage.on(from.0, move |io| {
            io.out(conn).extend_from_slice(b"-last words-");
            io.give(conn, to, b"slow");
        });
        let conn = stage.adopted(&client, to, b"slow");
        stage.on(to.0, move |io| {
            assert!(io.backlog(conn) > 12);
            io.out(conn).extend_from_slice(b"first words");
            io.finish(conn);
        });
        client.read_to_end(&mut got).unwrap();
        assert!(got[..sent.len()] == sent);
        assert_eq!(&got[sent.len()..], b"-last words-first words");
        stage.stop();
    }
}

/// One whose peer has said its end, or which we have finished, is the same with its new owner.
#[test]
fn ends_go_along() {
    let mut stage = Stage::new(config(2));
    let (mut client, from, conn) = stage.connect();
    let to = ShardId(1 - from.0);
    client.write_all(b"all").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stage.bytes_of(conn, 3), b"all");
    assert_eq!(stage.next_of(conn), Heard::Ended);
    stage.on(from.0, move |io| {
        io.out(conn).extend_from_slice(b"mine");
        io.finish(conn);
        io.give(conn, to, b"");
    });
    let conn = stage.adopted(&client, to, b"");
    assert_eq!(stage.next_of(conn), Heard::Ended);
    stage.on(to.0, move |io| io.out(conn).extend_from_slice(b"too late"));
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"mine");
    stage.on(to.0, move |io| io.close(conn, Close::AfterFlush));
    assert_eq!(stage.next_of(conn), Heard::Closed);
    stage.stop();
}

/// The other shard is full: the peer sees a reset, not an end, and it is counted.
#[test]
fn a_full_shard_turns_it_away() {
    let mut stage = Stage::new(RuntimeConfig { connections_max: 1, ..config(2) });
    let (_keeps, full, _) = stage.connect();
    let from = ShardId(1 - full.0);
    let mut refused = 0;
    // The kernel chooses the shard; who comes to the full one is closed.
    let (mut client, conn) = loop {
        let client = TcpStream::connect(stage.running.addresses().base.unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        // It is counted as accepted before it is known what becomes of it.
        let stays = |stage: &Stage| stage.sum(|c| c.connections_now.get()) == 2;
        let goes = |stage: &Stage| stage.sum(|c| c.accepts_refused.get()) > refused;
        until("somebody keeps it or refuses it", || stays(&stage) || goes(&stage));
        if stays(&stage) {
            let (shard, conn, _) = stage.next();
            assert_eq!(shard, from);
            break (client, conn);
        }
        refused += 1;
    };
    stage.on(from.0, move |io| io.give(conn, full, b"please"));
    let error = client.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(stage.sum(|c| c.accepts_refused.get()), refused + 1);
    assert_eq!(stage.sum(|c| c.connections_now.get()), 1);
    stage.stop();
}

/// What a relayed echo has seen.
#[derive(Default)]
struct Seen {
    hops: AtomicU64,
    closed: AtomicU64,
    over: AtomicBool,
}

/// Echoes, and gives every connection away whenever it has echoed so many bytes: amid what arrives
/// and amid what is sent. The count of bytes seen goes along as the note.
struct Wanderer {
    context: ShardContext,
    seen: Arc<Seen>,
    /// Connections with the bytes that each has seen, and those until it goes on.
    here: Vec<(ConnId, u64, u64)>,
}

impl Wanderer {
    fn hold_back(io: &mut Io<'_>, conn: ConnId) {
        if io.backlog(conn) > CONN_OUT_HIGH {
            io.pause(conn);
            io.await_drain(conn, CONN_OUT_LOW);
        }
    }
}

impl Service for Wanderer {
    fn opened(&mut self, _: Moment, conn: ConnId, _: Peer, _: &mut Io<'_>) {
        self.here.push((conn, 0, 5000));
    }

    fn adopted(
        &mut self,
        _: Moment,
        conn: ConnId,
        _: std::net::SocketAddr,
        note: &[u8],
        io: &mut Io<'_>,
    ) {
        self.seen.hops.fetch_add(1, Ordering::Relaxed);
        let count = u64::from_le_bytes(note.try_into().unwrap());
        self.here.push((conn, count, 1 + count % 300_000));
        Self::hold_back(io, conn);
    }

    fn received(&mut self, _: Moment, conn: ConnId, bytes: &mut [u8], io: &mut Io<'_>) {
        let at = self.here.iter().position(|here| here.0 == conn).expect("it is here");
        let (_, count, left) = &mut self.here[at];
        // The byte says where it stands: order is checked here as well as by the client.
        assert!(bytes.iter().zip(*count..).all(|(byte, at)| *byte == (at / 3) as u8));
        *count += bytes.len() as u64;
        *left = left.saturating_sub(bytes.len() as u64);
        io.out(conn).extend_from_slice(bytes);
        if *left == 0 && !self.seen.over.load(Ordering::Relaxed) {
            let (_, count, _) = self.here.swap_remove(at);
            let to = (self.context.shard.0 + 1) % self.context.shards as u8;
            io.give(conn, ShardId(to), &count.to_le_bytes());
        } else {
            Self::hold_back(io, conn);
        }
    }

    fn drained(&mut self, _: Moment, conn: ConnId, io: &mut Io<'_>) {
        io.resume(conn);
    }

    fn closed(&mut self, _: Moment, conn: ConnId, _: &mut Io<'_>) {
        self.here.retain(|here| here.0 != conn);
        self.seen.closed.fetch_add(1, Ordering::Relaxed);
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

/// Three shards pass eight connections around while each carries 16 MiB in both directions, with
/// readers that read as they can. Some are reset in the middle. Also where the kernel receives
/// whenever it is entered, and not only when we wait.
#[test]
fn floods_go_around() {
    let eager = ProbeMask::default().without(Feature::DeferTaskrun);
    for probe_mask in masks().into_iter().chain([eager]) {
        let seen = Arc::new(Seen::default());
        let ours = Arc::clone(&seen);
        let make = move |context: ShardContext| Wanderer {
            context,
            seen: Arc::clone(&ours),
            here: Vec::new(),
        };
        let running = Runtime::start(RuntimeConfig { probe_mask, ..config(3) }, make).unwrap();
        let address = running.addresses().base.unwrap();
        const BYTES: usize = 16 << 20;
        let bytes: Arc<Vec<u8>> = Arc::new((0..BYTES).map(|at| (at / 3) as u8).collect());
        let flood = |breaks: bool| {
            let bytes = Arc::clone(&bytes);
            std::thread::spawn(move || {
                let client = TcpStream::connect(address).unwrap();
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut writer = client.try_clone().unwrap();
                let sent = Arc::clone(&bytes);
                let thread = std::thread::spawn(move || {
                    let end = if breaks { BYTES / 2 } else { BYTES };
                    let _ = writer.write_all(&sent[..end]);
                    if !breaks {
                        writer.shutdown(Shutdown::Write).unwrap();
                    }
                });
                let mut got = vec![0; if breaks { BYTES / 4 } else { BYTES }];
                (&client).read_exact(&mut got).unwrap();
                assert!(got == bytes[..got.len()]);
                if breaks {
                    ringway_ring::net::reset(client).unwrap();
                } else {
                    assert_eq!((&client).read(&mut [0]).unwrap(), 0, "nothing is doubled");
                }
                thread.join().unwrap();
            })
        };
        let floods: Vec<_> = (0..8).map(|number| flood(number % 4 == 3)).collect();
        floods.into_iter().for_each(|flood| flood.join().unwrap());
        until("all are closed", || read(&seen.closed) == 8);
        let sum = |of: fn(&ringway_shards::ShardCounters) -> u64| {
            running.counters().iter().map(|c| of(c)).sum::<u64>()
        };
        assert_eq!(sum(|c| c.connections_now.get()), 0);
        assert_eq!(sum(|c| c.given.get()), read(&seen.hops));
        assert!(read(&seen.hops) > 8, "{} hops", read(&seen.hops));
        seen.over.store(true, Ordering::Relaxed);
        running.stop();
        running.join().unwrap();
    }
}
