//! Connections that a service makes itself: they end with the truth, wait as long as they are told
//! to, and can be called off.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use common::puppet::{Heard, Stage};
use common::{config, until};
use ringway_core::{ConnId, Span};
use ringway_ring::{Feature, ProbeMask};
use ringway_shards::{Close, Errno, Io, NoSocket, RuntimeConfig, Tuning};

/// A listener whose queue is full: the kernel drops what asks for more, as if nobody were there.
fn nobody_answers() -> (TcpListener, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let filling = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener, filling)
}

/// Connects as soon as there is a place and a descriptor: those of a connection that was closed are
/// free when the kernel has let go of it. Does something with the new one in the same call.
fn connect_when_there_is_room(
    stage: &mut Stage,
    to: SocketAddr,
    then: impl Fn(ConnId, &mut Io<'_>) + Clone + Send + 'static,
) -> ConnId {
    let mut made = None;
    until("there is room", || {
        let then = then.clone();
        made = stage.on(0, move |io| {
            let conn = io.connect(to).ok()?;
            then(conn, io);
            Some(conn)
        });
        made.is_some()
    });
    made.unwrap()
}

/// Both families; what was appended before there was a connection is the first that the peer reads,
/// and the way back works.
#[test]
fn a_service_connects_and_speaks_first() {
    for mask in [ProbeMask::default(), ProbeMask::default().without(Feature::QuietSend)] {
        let mut stage = Stage::new(RuntimeConfig { probe_mask: mask, ..config(1) });
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(any) else { continue };
            let address = listener.local_addr().unwrap();
            let conn = stage.on(0, move |io| {
                let conn = io.connect(address).unwrap();
                io.out(conn).extend_from_slice(b"early");
                assert_eq!(io.backlog(conn), 5);
                conn
            });
            let mut peer = listener.accept().unwrap().0;
            assert_eq!(stage.next_of(conn), Heard::Connected(Ok(())));
            let mut got = [0; 5];
            peer.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"early");
            peer.write_all(b"answer").unwrap();
            assert_eq!(stage.bytes_of(conn, 6), b"answer");
            drop(peer);
            assert_eq!(stage.next_of(conn), Heard::Ended);
            stage.on(0, move |io| io.close(conn, Close::AfterFlush));
            assert_eq!(stage.next_of(conn), Heard::Closed);
        }
        assert_eq!(stage.sum(|c| c.connections_now.get()), 0);
        stage.stop();
    }
}

/// A connect fails with its reason, then the connection is closed. Reasons differ.
#[test]
fn failures_tell_why() {
    let mut stage = Stage::new(config(1));
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // No stream goes to everybody: the kernel says so without asking the network.
    let nowhere = "255.255.255.255:9".parse().unwrap();
    for (to, why) in [(free, Errno::REFUSED), (nowhere, Errno::NETWORK_UNREACHABLE)] {
        let conn = stage.on(0, move |io| io.connect(to)).unwrap();
        assert_eq!(stage.next_of(conn), Heard::Connected(Err(why)));
        assert_eq!(stage.next_of(conn), Heard::Closed);
    }
    assert_eq!(stage.sum(|c| c.connects_failed.get()), 2);
    stage.stop();
}

/// Nobody answers: the time that the service gave is what bounds it, and no word of a connection
/// comes after the end.
#[test]
fn a_connect_has_its_time() {
    let mut stage = Stage::new(config(1));
    let (listener, _filling) = nobody_answers();
    let to = listener.local_addr().unwrap();
    let conn = stage.on(0, move |io| {
        let conn = io.connect(to).unwrap();
        io.call_overdue(conn, Span::from_ms(30));
        conn
    });
    assert_eq!(stage.next_of(conn), Heard::Overdue);
    stage.on(0, move |io| io.close(conn, Close::AfterFlush));
    assert_eq!(stage.next_of(conn), Heard::Closed);
    // The time of one that succeeds is over when it does: that of another, though longer, is the
    // first to be heard of.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let short = stage.on(0, move |io| {
        let conn = io.connect(to).unwrap();
        io.call_overdue(conn, Span::from_ms(20));
        conn
    });
    let _peer = listener.accept().unwrap();
    assert_eq!(stage.next_of(short), Heard::Connected(Ok(())));
    let (_client, _, long) = stage.connect();
    stage.on(0, move |io| io.call_overdue(long, Span::from_ms(40)));
    assert_eq!(stage.next_of(long), Heard::Overdue);
    stage.stop();
}

/// In the same call, in a later turn, in whichever way: a connect that was called off is told as
/// closed, once, and its place is used again.
#[test]
fn a_connect_can_be_called_off() {
    let mut stage = Stage::new(RuntimeConfig { connections_max: 1, ..config(1) });
    let (listener, _filling) = nobody_answers();
    let to = listener.local_addr().unwrap();
    for how in [Close::Now, Close::AfterFlush, Close::Reset] {
        let conn = connect_when_there_is_room(&mut stage, to, move |conn, io| {
            io.out(conn).extend_from_slice(b"for nobody");
            io.close(conn, how);
        });
        assert_eq!(stage.next_of(conn), Heard::Closed);
        let before = stage.sum(|c| c.connects.get());
        let conn = connect_when_there_is_room(&mut stage, to, |_, _| {});
        until("the kernel tries", || stage.sum(|c| c.connects.get()) > before);
        stage.on(0, move |io| io.close(conn, how));
        assert_eq!(stage.next_of(conn), Heard::Closed);
    }
    assert_eq!(stage.sum(|c| c.connections_now.get()), 0);
    // One that waits does not hold up a stop.
    connect_when_there_is_room(&mut stage, to, |_, _| {});
    stage.stop();
}

/// As many connections as there may be: one beyond is an error at once, and one that goes makes
/// room.
#[test]
fn one_connect_too_many_is_an_error() {
    let mut stage = Stage::new(RuntimeConfig { connections_max: 2, ..config(1) });
    let (_one, first) = stage.connect_out();
    let (_two, _second) = stage.connect_out();
    let to = "127.0.0.1:9".parse().unwrap();
    assert_eq!(stage.on(0, move |io| io.connect(to)), Err(NoSocket::Full));
    stage.on(0, move |io| io.close(first, Close::Now));
    assert_eq!(stage.next_of(first), Heard::Closed);
    // Its place is free when the kernel has let go of it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let third = connect_when_there_is_room(&mut stage, to, |_, _| {});
    assert_eq!(stage.next_of(third), Heard::Connected(Ok(())));
    stage.stop();
}

/// Out of descriptors: an error that says so, not a panic, and connects go on when there are some.
/// In a process of its own, because the limit is everybody's.
#[test]
fn out_of_descriptors_is_an_error() {
    if std::env::var_os("RINGWAY_TEST_FEW_FILES").is_none() {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "out_of_descriptors_is_an_error", "--nocapture"]);
        let status = again.env("RINGWAY_TEST_FEW_FILES", "1").status().unwrap();
        assert!(status.success());
        return;
    }
    let mut stage = Stage::new(config(1));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    common::limit_open_files(100);
    let (made, error) = stage.on(0, move |io| {
        let mut made = Vec::new();
        loop {
            match io.connect(to) {
                Ok(conn) => made.push(conn),
                Err(error) => return (made, error),
            }
        }
    });
    let NoSocket::Host(errno) = error else { panic!("{error:?}") };
    assert!(errno.is_shortage(), "{errno:?}");
    assert!(made.len() > 10);
    for conn in &made {
        assert_eq!(stage.next_of(*conn), Heard::Connected(Ok(())));
    }
    let first = made[0];
    stage.on(0, move |io| io.close(first, Close::Now));
    assert_eq!(stage.next_of(first), Heard::Closed);
    let again = connect_when_there_is_room(&mut stage, to, |_, _| {});
    assert_eq!(stage.next_of(again), Heard::Connected(Ok(())));
    stage.stop();
}

/// A small send buffer holds less of what the peer does not read, so that more of it stays ours.
#[test]
fn a_connection_is_tuned() {
    let mut stage = Stage::new(config(1));
    let taken = |stage: &mut Stage, tuning: Tuning| {
        let (peer, conn) = stage.connect_out();
        let small = Tuning { receive_bytes: Some(8192), ..tuning };
        let before = stage.sum(|c| c.sends_short.get());
        stage.on(0, move |io| {
            io.tune(conn, small).unwrap();
            io.out(conn).resize(16 << 20, 1);
        });
        until("the kernel has had its fill", || stage.sum(|c| c.sends_short.get()) > before);
        let backlog = stage.on(0, move |io| io.backlog(conn));
        stage.on(0, move |io| io.close(conn, Close::Now));
        assert_eq!(stage.next_of(conn), Heard::Closed);
        drop(peer);
        (16 << 20) - backlog
    };
    let usual = taken(&mut stage, Tuning::default());
    let send_bytes = Some(32 * 1024);
    let tight = taken(&mut stage, Tuning { send_bytes, ..Tuning::default() });
    assert!(tight * 2 < usual, "{tight} of {usual} bytes");
    stage.stop();
}
