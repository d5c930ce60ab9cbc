//! How connections end: each half for itself, in either order, or torn down.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use common::puppet::{Heard, Stage};
use common::{config, until};
use ringway_core::limits::CONN_OUT_LOW;
use ringway_ring::{Feature, ProbeMask};
use ringway_shards::{Close, LINGER_MAX, RuntimeConfig};

/// With quiet sends and without.
fn masks() -> [ProbeMask; 2] {
    [ProbeMask::default(), ProbeMask::default().without(Feature::QuietSend)]
}

/// We finish first, after far more than the kernel takes at once: the peer reads every byte, then
/// the end, and goes on talking. When it has finished too nobody lingers.
#[test]
fn we_finish_first() {
    for mask in masks() {
        let mut stage = Stage::new(RuntimeConfig { probe_mask: mask, ..config(1) });
        let (mut client, _, conn) = stage.connect();
        const BYTES: usize = 20 << 20;
        stage.on(0, move |io| {
            io.out(conn).resize(BYTES, 5);
            io.finish(conn);
            io.finish(conn);
            // Too late.
            io.out(conn).extend_from_slice(b"not sent");
            assert_eq!(io.backlog(conn), BYTES);
        });
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(got.len() == BYTES && got.iter().all(|byte| *byte == 5));
        client.write_all(b"I go on").unwrap();
        assert_eq!(stage.bytes_of(conn, 7), b"I go on");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stage.next_of(conn), Heard::Ended);
        let start = std::time::Instant::now();
        stage.on(0, move |io| io.close(conn, Close::AfterFlush));
        assert_eq!(stage.next_of(conn), Heard::Closed);
        stage.stop();
        assert!(start.elapsed().as_nanos() < u128::from(LINGER_MAX.0), "it lingered");
    }
}

/// The peer finishes first: what we say afterwards reaches it, and then our end.
#[test]
fn the_peer_finishes_first() {
    for mask in masks() {
        let mut stage = Stage::new(RuntimeConfig { probe_mask: mask, ..config(1) });
        let (mut client, _, conn) = stage.connect();
        client.write_all(b"bye").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stage.bytes_of(conn, 3), b"bye");
        assert_eq!(stage.next_of(conn), Heard::Ended);
        stage.on(0, move |io| io.out(conn).extend_from_slice(b"one "));
        stage.on(0, move |io| {
            io.out(conn).extend_from_slice(b"two");
            io.finish(conn);
        });
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"one two");
        stage.on(0, move |io| io.close(conn, Close::AfterFlush));
        assert_eq!(stage.next_of(conn), Heard::Closed);
        stage.stop();
    }
}

/// What is finished before it is connected is finished when it is.
#[test]
fn finished_before_it_is_connected() {
    let mut stage = Stage::new(config(1));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let conn = stage.on(0, move |io| {
        let conn = io.connect(to).unwrap();
        io.out(conn).extend_from_slice(b"all there is");
        io.finish(conn);
        conn
    });
    let mut got = Vec::new();
    listener.accept().unwrap().0.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"all there is");
    assert_eq!(stage.next_of(conn), Heard::Connected(Ok(())));
    assert_eq!(stage.next_of(conn), Heard::Ended);
    stage.stop();
}

/// A reset is a reset at once, whatever waits to be sent, also after we have finished; its
/// neighbour does not notice.
#[test]
fn a_reset_is_seen_as_one() {
    for mask in masks() {
        let mut stage = Stage::new(RuntimeConfig { probe_mask: mask, ..config(1) });
        let (mut other, _, neighbour) = stage.connect();
        for (waiting, finish) in [(0, false), (20 << 20, false), (0, true)] {
            let (mut client, _, conn) = stage.connect();
            stage.on(0, move |io| {
                io.out(conn).resize(waiting, 1);
                if finish {
                    io.finish(conn);
                }
            });
            if finish {
                assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
            }
            if waiting > 0 {
                let short = || stage.sum(|c| c.sends_short.get());
                until("a send waits for the reader", || short() > 0);
            }
            stage.on(0, move |io| io.close(conn, Close::Reset));
            assert_eq!(stage.next_of(conn), Heard::Closed);
            // Nothing was read meanwhile, so it cannot be our end that it sees.
            let mut all = Vec::new();
            let seen = if finish {
                until("its writes fail", || client.write_all(b"?").is_err());
                client.write_all(b"?")
            } else {
                client.read_to_end(&mut all).map(drop)
            };
            let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(kinds.contains(&seen.unwrap_err().kind()), "{} bytes", all.len());
        }
        other.write_all(b"fine").unwrap();
        assert_eq!(stage.bytes_of(neighbour, 4), b"fine");
        stage.stop();
    }
}

/// The mark is the service's: it is called when so little waits and not before, whatever mark.
#[test]
fn a_backlog_is_refilled_at_its_mark() {
    for mask in masks() {
        for mark in [64 * 1024, 128 * 1024, CONN_OUT_LOW, 1 << 20] {
            let config = RuntimeConfig { probe_mask: mask, ..config(1) };
            // What waits when it is called is the next thing that the peer is told of.
            let mut stage = Stage::with_habit(config, |conn, heard, io| {
                if *heard == Heard::Drained {
                    *heard = Heard::Received((io.backlog(conn) as u64).to_le_bytes().to_vec());
                }
            });
            let (mut client, _, conn) = stage.connect();
            const BYTES: usize = 24 << 20;
            stage.on(0, move |io| {
                io.out(conn).resize(BYTES, 5);
                io.await_drain(conn, mark);
            });
            let reader = std::thread::spawn(move || {
                client.read_exact(&mut vec![0; BYTES]).unwrap();
                client
            });
            let told = stage.bytes_of(conn, 8);
            let waiting = u64::from_le_bytes(*told.first_chunk().unwrap()) as usize;
            assert!(waiting < mark, "{waiting} bytes, not below {mark}");
            // A send covers 16 KiB at the least, and ends at the mark.
            assert!(waiting + 16 * 1024 >= mark, "{waiting} bytes, far below {mark}");
            let _client = reader.join().unwrap();
            stage.stop();
        }
    }
}
