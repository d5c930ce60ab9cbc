//! UDP sockets of services: trains arrive whole, what is lost is counted, and nobody's junk harms.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::channel;

use common::puppet::{Got, Heard, Stage, Strings};
use common::{config, in_a_network_of_its_own, until};
use ringway_core::limits::datagrams::{BACKLOG_MAX, SOCKETS_PER_SHARD_MAX};
use ringway_ring::{Feature, ProbeMask};
use ringway_shards::{
    Buffers, DatagramSocket, Ecn, Errno, NoSocket, RingConfig, Room, RuntimeConfig, SocketId,
    SocketMemory, Towards, Unsent,
};

/// With and without each of the kernel's offloads: (sends whole trains, receives whole trains).
fn offloads() -> [(bool, bool, ProbeMask); 4] {
    let all = ProbeMask::default();
    [
        (true, true, all),
        (false, true, all.without(Feature::SendTrains)),
        (true, false, all.without(Feature::ReceiveTrains)),
        (false, false, all.without(Feature::SendTrains).without(Feature::ReceiveTrains)),
    ]
}

/// Those, and without what else datagrams make use of, and without anything.
fn masks() -> Vec<ProbeMask> {
    let all = ProbeMask::default();
    let mut masks: Vec<ProbeMask> = offloads().map(|(_, _, mask)| mask).into();
    masks.push(all.without(Feature::MultishotReceiveMessage));
    masks.push(all.without(Feature::QuietSend));
    let needed = |feature: &Feature| *feature != Feature::BufferRings;
    masks.push(Feature::all().filter(needed).fold(all, ProbeMask::without));
    masks
}

fn stage(probe_mask: ProbeMask) -> Stage {
    Stage::new(RuntimeConfig { probe_mask, ..config(2) })
}

/// A socket of a shard at any port of an address, and where that is.
fn open(strings: &mut Strings, shard: u8, at: &str) -> (SocketId, SocketAddr) {
    open_with(strings, shard, at, SocketMemory::default())
}

fn open_with(
    strings: &mut Strings,
    shard: u8,
    at: &str,
    memory: SocketMemory,
) -> (SocketId, SocketAddr) {
    let at: SocketAddr = at.parse().unwrap();
    strings.on(shard, move |io| {
        let socket = io.open_datagrams(at, memory).unwrap();
        (socket, io.datagrams_address(socket).unwrap())
    })
}

fn send(strings: &mut Strings, shard: u8, socket: SocketId, towards: Towards, bytes: &[u8]) {
    let bytes = bytes.to_vec();
    assert!(strings.on(shard, move |io| io.send_train(socket, towards, &bytes)));
}

/// What arrives next at a socket.
fn arrived(strings: &mut Strings, socket: SocketId) -> Got {
    match strings.next().2 {
        Heard::Datagrams(at, got) if at == socket => got,
        other => panic!("{other:?}"),
    }
}

fn told_unsent(strings: &mut Strings, socket: SocketId) -> Unsent {
    match strings.next().2 {
        Heard::Unsent(at, what) if at == socket => what,
        other => panic!("{other:?}"),
    }
}

/// Bytes that differ from datagram to datagram.
fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at / 7 + at / 1021) as u8).collect()
}

/// Trains of all sizes arrive in order with every byte, cut where they were to be cut, in both
/// families, whatever the kernel does of it.
#[test]
fn trains_arrive_whole() {
    for mask in masks() {
        let mut stage = stage(mask);
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let (sender, from) = open(&mut stage, 0, at);
            let (receiver, to) = open(&mut stage, 1, at);
            for segment in [1, 2, 40, 1000, 1350, 1452, 8900, 9000] {
                let towards = Towards::new(to, segment);
                let most = towards.datagrams_max();
                let segment = usize::from(segment);
                for bytes in [1, segment, most * segment, (most - 1) * segment + 1] {
                    let bytes = pattern(bytes);
                    send(&mut stage, 0, sender, towards, &bytes);
                    let mut left = &bytes[..];
                    while !left.is_empty() {
                        let got = arrived(&mut stage, receiver);
                        let whole = segment.min(left.len());
                        assert!(got.segment_bytes == whole, "{} of {whole}", got.segment_bytes);
                        assert_eq!((got.from, got.to), (from, Some(to.ip())));
                        assert_eq!((got.ecn, got.kernel_drops), (Ecn::Unable, 0));
                        let (here, rest) = left.split_at(got.bytes.len());
                        assert!(got.bytes == here, "other bytes of {segment}");
                        left = rest;
                    }
                }
            }
            for (shard, socket) in [(0, sender), (1, receiver)] {
                stage.on(shard, move |io| io.close_datagrams(socket));
            }
        }
        assert_eq!(stage.sum(|c| c.datagrams_unsent.get() + c.datagrams_unreadable.get()), 0);
        assert_eq!(
            stage.sum(|c| c.datagrams_sent.get()),
            stage.sum(|c| c.datagrams_received.get())
        );
        stage.stop();
    }
}

/// The offloads are at work where they are used, and only there: a train is one receive, or as many
/// as it has datagrams.
#[test]
fn a_train_is_one_receive() {
    for (cuts, joins, mask) in offloads() {
        let mut stage = stage(mask);
        let (sender, _) = open(&mut stage, 0, "127.0.0.1:0");
        let (receiver, to) = open(&mut stage, 1, "127.0.0.1:0");
        let bytes = pattern(20 * 1350 + 7);
        send(&mut stage, 0, sender, Towards::new(to, 1350), &bytes);
        let receives = if cuts && joins { 1 } else { 21 };
        let got: Vec<u8> =
            (0..receives).flat_map(|_| arrived(&mut stage, receiver).bytes).collect();
        assert!(got == bytes);
        assert_eq!(stage.sum(|c| c.trains_received.get()), receives);
        assert_eq!(stage.sum(|c| c.datagrams_received.get()), 21);
        stage.stop();
    }
}

/// A receiver that keeps up loses nothing of a hundred thousand datagrams, and all are in order.
#[test]
fn who_keeps_up_loses_nothing() {
    const EACH: usize = 40;
    for mask in [ProbeMask::default(), offloads()[3].2] {
        let mut stage = stage(mask);
        let (sender, _) = open(&mut stage, 0, "127.0.0.1:0");
        let (receiver, to) = open(&mut stage, 1, "127.0.0.1:0");
        let granted = stage.on(1, move |io| io.datagrams_memory(receiver).unwrap());
        let towards = Towards::new(to, 1200);
        // The kernel charges a small datagram with up to twice its bytes.
        let window = (granted.receive_bytes as usize / 4 / (EACH * 1200)).clamp(1, 16);
        let (mut number, mut due) = (0u64, 0u64);
        while number < 100_000 {
            let trains: Vec<Vec<u8>> = (0..window)
                .map(|_| {
                    let mut train = vec![9; EACH * 1200];
                    for datagram in train.chunks_mut(1200) {
                        datagram[..8].copy_from_slice(&number.to_le_bytes());
                        number += 1;
                    }
                    train
                })
                .collect();
            stage.on(0, move |io| {
                for train in trains {
                    assert!(io.send_train(sender, towards, &train));
                }
            });
            while due < number {
                let got = arrived(&mut stage, receiver);
                assert_eq!((got.segment_bytes, got.kernel_drops), (1200, 0));
                for datagram in got.bytes.chunks(1200) {
                    assert_eq!(datagram[..8], due.to_le_bytes());
                    due += 1;
                }
            }
        }
        assert_eq!(stage.sum(|c| c.datagrams_received.get()), number);
        stage.stop();
    }
}

/// What a socket had no room for is counted to the last: what was sent has arrived or was dropped.
/// The kernel counts what it had put together as one.
#[test]
fn what_overflows_is_counted() {
    for (cuts, joins, mask) in offloads() {
        let mut stage = stage(mask);
        let (sender, _) = open(&mut stage, 0, "127.0.0.1:0");
        let little = SocketMemory { receive_bytes: 100_000, ..SocketMemory::default() };
        let (receiver, to) = open_with(&mut stage, 1, "127.0.0.1:0", little);
        let towards = Towards::new(to, 1000);
        // The receiving shard stands still meanwhile.
        let (go_on, waits) = channel::<()>();
        let (say, stands) = channel();
        stage.begin(1, move |_| {
            say.send(()).unwrap();
            waits.recv().unwrap();
        });
        stands.recv().unwrap();
        for _ in 0..100 {
            send(&mut stage, 0, sender, towards, &[1; 20_000]);
        }
        go_on.send(()).unwrap();
        // In units of what the kernel counts: trains, or datagrams.
        let (per_train, mut sent) = if cuts && joins { (1, 100) } else { (20, 2000) };
        let (mut received, mut dropped) = (0, 0);
        let mut last = false;
        while !last {
            // One that is told from the others; it may be dropped like them.
            send(&mut stage, 0, sender, towards, b"the last");
            sent += 1;
            while !last && received + dropped < sent {
                let Some(heard) = stage.next_within(std::time::Duration::from_millis(200)) else {
                    break;
                };
                let Heard::Datagrams(at, got) = heard.2 else { panic!("{heard:?}") };
                assert_eq!(at, receiver);
                last = got.bytes == b"the last";
                dropped += u64::from(got.kernel_drops);
                received += if last || per_train == 1 {
                    1
                } else {
                    got.bytes.len().div_ceil(got.segment_bytes) as u64
                };
            }
        }
        assert!(dropped > 0, "100 trains of 20 000 bytes do not fit into 100 000");
        assert_eq!(sent, received + dropped, "{cuts} {joins}");
        assert_eq!(stage.sum(|c| c.datagrams_dropped.get()), dropped);
        stage.stop();
    }
}

/// A datagram that no datagram can be is told, with the reason, whoever cuts; the others are sent.
#[test]
fn what_is_too_long_is_told() {
    for mask in masks() {
        let mut stage = stage(mask);
        let (sender, _) = open(&mut stage, 0, "127.0.0.1:0");
        let (receiver, to) = open(&mut stage, 1, "127.0.0.1:0");
        send(&mut stage, 0, sender, Towards::new(to, u16::MAX), &[1; 65_508]);
        let unsent = told_unsent(&mut stage, sender);
        let why = Errno::TOO_LONG;
        assert_eq!(unsent, Unsent { to, segment_bytes: 65_508, datagrams: 1, why });
        send(&mut stage, 0, sender, Towards::new(to, u16::MAX), &[1; 65_507]);
        assert_eq!(arrived(&mut stage, receiver).bytes.len(), 65_507);
        assert_eq!(stage.sum(|c| c.datagrams_unsent.get()), 1);
        assert_eq!(stage.sum(|c| c.offload_failures.get()), 0);
        stage.stop();
    }
}

/// On a way that carries 1500 bytes, longer datagrams are told, in trains too, and no reason to
/// think that the kernel does not cut.
#[test]
fn a_narrow_way_is_told() {
    let story = || {
        for (_, _, mask) in offloads() {
            let mut stage = stage(mask);
            for (at, most) in [("127.0.0.1:0", 1472), ("[::1]:0", 1452)] {
                let (sender, _) = open(&mut stage, 0, at);
                let (receiver, to) = open(&mut stage, 1, at);
                for segment in [most + 1, 8900] {
                    let bytes = vec![1; usize::from(segment) * 5];
                    send(&mut stage, 0, sender, Towards::new(to, segment), &bytes);
                    let unsent = told_unsent(&mut stage, sender);
                    let (why, segment_bytes) = (Errno::TOO_LONG, usize::from(segment));
                    assert_eq!(unsent, Unsent { to, segment_bytes, datagrams: 5, why });
                }
                let bytes = pattern(usize::from(most) * 5);
                send(&mut stage, 0, sender, Towards::new(to, most), &bytes);
                let mut got = Vec::new();
                while got.len() < bytes.len() {
                    got.extend(arrived(&mut stage, receiver).bytes);
                }
                assert!(got == bytes);
            }
            assert_eq!(stage.sum(|c| c.offload_failures.get()), 0);
            assert_eq!(stage.sum(|c| c.datagrams_unsent.get()), 20);
            stage.stop();
        }
    };
    if !in_a_network_of_its_own(&["ip link set lo mtu 1500"], story) {
        println!("not told: needs root and ip");
    }
}

/// A kernel that refuses to cut is found out once, and everything arrives all the same.
#[test]
fn who_does_not_cut_is_found_out() {
    let mut stage = stage(ProbeMask::default());
    let socket =
        DatagramSocket::bind("127.0.0.1:0".parse().unwrap(), SocketMemory::default()).unwrap();
    socket.refuse_to_cut().unwrap();
    let sender = stage.on(0, move |io| io.add_datagrams(socket).unwrap());
    let (receiver, to) = open(&mut stage, 1, "127.0.0.1:0");
    for round in 0..3 {
        let bytes = pattern(3500 + round);
        let sent = bytes.clone();
        stage.on(0, move |io| {
            for _ in 0..3 {
                assert!(io.send_train(sender, Towards::new(to, 1000), &sent));
            }
        });
        for _ in 0..3 {
            let got: Vec<u8> = (0..4).flat_map(|_| arrived(&mut stage, receiver).bytes).collect();
            assert!(got == bytes, "whole and in order");
        }
    }
    assert_eq!(stage.sum(|c| c.offload_failures.get()), 1);
    assert_eq!(stage.sum(|c| c.datagrams_unsent.get()), 0);
    stage.stop();
}

/// A way that carries 50 MB a second.
const SLOW: &str = "tc qdisc add dev lo root tbf rate 400mbit burst 70000 limit 100000000";

/// A way that carries 1 MB a second: what waits for it waits longer than any test is held up.
const CRAWLING: &str = "tc qdisc add dev lo root tbf rate 8mbit burst 70000 limit 100000000";

/// A socket that has no room holds what is to be sent, up to a bound; it says when less
/// waits than it was asked about; and nothing is lost.
#[test]
fn a_full_socket_holds_back() {
    let story = || {
        for (cuts, _, probe_mask) in offloads() {
            let config = RuntimeConfig { probe_mask, ..config(2) };
            let mut stage = Stage::with_habit(config, |_, heard, io| {
                if let Heard::SocketDrained(socket) = heard {
                    let backlog = io.datagrams_backlog(*socket);
                    // How soon it is told depends on when this shard runs: it may all be gone.
                    assert!(backlog < BACKLOG_MAX / 2, "told at {backlog}");
                }
            });
            let little = SocketMemory { send_bytes: 200_000, ..SocketMemory::default() };
            let (sender, _) = open_with(&mut stage, 0, "127.0.0.1:0", little);
            let (receiver, to) = open(&mut stage, 1, "127.0.0.1:0");
            let towards = Towards::new(to, 1400);
            let (trains, backlog) = stage.on(0, move |io| {
                let mut number = 0u32;
                while let Some(train) = io.train(sender, towards) {
                    for _ in 0..40 {
                        train.extend_from_slice(&number.to_le_bytes());
                        train.resize(train.len() + 1396, 7);
                        number += 1;
                    }
                }
                io.await_datagrams(sender, BACKLOG_MAX / 2);
                (number / 40, io.datagrams_backlog(sender))
            });
            assert!((BACKLOG_MAX..BACKLOG_MAX + 56_000).contains(&backlog), "{backlog}");
            // Some of those that wait may overtake others.
            let (mut got_all, mut drained) = (BTreeSet::new(), false);
            while got_all.len() < trains as usize * 40 || !drained {
                match stage.next().2 {
                    Heard::Datagrams(at, got) => {
                        assert_eq!((at, got.kernel_drops), (receiver, 0));
                        for datagram in got.bytes.chunks(1400) {
                            let number = u32::from_le_bytes(*datagram.first_chunk().unwrap());
                            assert!(number < trains * 40 && got_all.insert(number), "once");
                        }
                    }
                    Heard::SocketDrained(at) => {
                        assert!(at == sender && !std::mem::replace(&mut drained, true));
                    }
                    other => panic!("{other:?}"),
                }
            }
            // One by one the kernel takes them in silence, and this shard need not have run before.
            assert!(!cuts || stage.sum(|c| c.trains_delayed.get()) > 0);
            assert_eq!(stage.sum(|c| c.datagrams_unsent.get()), 0);
            // What the kernel took in silence is known in the next turn.
            stage.on(0, |_| ());
            until("all are counted", || {
                stage.sum(|c| c.datagrams_sent.get()) == u64::from(trains) * 40
            });
            stage.stop();
        }
    };
    if !in_a_network_of_its_own(&[SLOW], story) {
        println!("not told: needs root, ip and tc");
    }
}

/// A socket that is closed while it has no room gives up what waits, and says how much.
#[test]
fn what_a_full_socket_gives_up_is_counted() {
    let story = || {
        for mask in masks() {
            let mut stage = stage(mask);
            let little = SocketMemory { send_bytes: 200_000, ..SocketMemory::default() };
            let (sender, _) = open_with(&mut stage, 0, "127.0.0.1:0", little);
            let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            stage.on(0, move |io| {
                while io.send_train(sender, Towards::new(nobody, 1400), &[7; 56_000]) {}
                assert_eq!(io.datagrams_backlog(sender), 75 * 56_000);
            });
            until("it is full", || stage.sum(|c| c.trains_delayed.get()) > 0);
            stage.on(0, move |io| io.close_datagrams(sender));
            until("all are accounted for", || {
                stage.sum(|c| c.datagrams_sent.get() + c.datagrams_unsent.get()) == 75 * 40
            });
            assert!(stage.sum(|c| c.datagrams_unsent.get()) > 0);
            stage.stop();
        }
    };
    if !in_a_network_of_its_own(&[CRAWLING], story) {
        println!("not told: needs root, ip and tc");
    }
}

/// A mark that nothing is above is told all the same, a turn later.
#[test]
fn an_empty_socket_is_drained() {
    let mut stage = stage(ProbeMask::default());
    let (socket, _) = open(&mut stage, 0, "127.0.0.1:0");
    for _ in 0..2 {
        stage.on(0, move |io| io.await_datagrams(socket, 1));
        assert_eq!(stage.next().2, Heard::SocketDrained(socket));
    }
    stage.stop();
}

/// The port of nobody answers by ICMP, which is no matter of the socket: what it sends elsewhere
/// arrives, and what is sent to it, too.
#[test]
fn a_closed_port_does_no_harm() {
    for mask in masks() {
        let mut stage = stage(mask);
        let (socket, at) = open(&mut stage, 0, "127.0.0.1:0");
        let (other, to) = open(&mut stage, 1, "127.0.0.1:0");
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for _ in 0..10 {
            send(&mut stage, 0, socket, Towards::new(closed, 100), &[1; 1000]);
            send(&mut stage, 0, socket, Towards::new(to, 100), b"there");
            assert_eq!(arrived(&mut stage, other).bytes, b"there");
            send(&mut stage, 1, other, Towards::new(at, 100), b"back");
            assert_eq!(arrived(&mut stage, socket).bytes, b"back");
        }
        assert_eq!(stage.sum(|c| c.datagrams_unsent.get()), 0);
        stage.stop();
    }
}

/// Empty datagrams, the longest ones, all lengths in a wild order: each is delivered as it was
/// sent, or counted.
#[test]
fn junk_is_taken_as_it_comes() {
    for mask in masks() {
        let mut stage = stage(mask);
        let (receiver, to) = open(&mut stage, 1, "127.0.0.1:0");
        let (sender, _) = open(&mut stage, 0, "127.0.0.1:0");
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut empty = 0;
        for round in 0..60usize {
            let len = [0, 1, 65_507, 0, 1472, 17, 0, 9000][round % 8] * (1 + round % 8 % 2);
            let bytes = pattern(len.min(65_507));
            stranger.send_to(&bytes, to).unwrap();
            empty += u64::from(bytes.is_empty());
            if !bytes.is_empty() {
                let got = arrived(&mut stage, receiver);
                assert!(got.bytes == bytes && got.segment_bytes == bytes.len());
            }
            // A train whose last datagram is shorter, cut at another place each time.
            let segment = 1 + (round * 37 % 1400) as u16;
            let train = pattern(usize::from(segment) * 9 + usize::from(segment / 2));
            send(&mut stage, 0, sender, Towards::new(to, segment), &train);
            let mut got = Vec::new();
            while got.len() < train.len() {
                got.extend(arrived(&mut stage, receiver).bytes);
            }
            assert!(got == train);
        }
        until("empty ones are counted", || stage.sum(|c| c.datagrams_unreadable.get()) == empty);
        stage.stop();
    }
}

/// What stands around a datagram reaches the service, and an answer leaves from the address that
/// was asked. A socket of version 6 speaks version 4, and calls it so.
#[test]
fn answers_come_from_where_the_question_went() {
    for mask in masks() {
        let mut stage = stage(mask);
        for at in ["0.0.0.0:0", "[::]:0"] {
            let (server, bound) = open(&mut stage, 1, at);
            let (client, _) = open(&mut stage, 0, "127.0.0.1:0");
            let asked: SocketAddr = ([127, 0, 0, 77], bound.port()).into();
            let towards = Towards { ecn: Ecn::Able0, ..Towards::new(asked, 100) };
            send(&mut stage, 0, client, towards, b"question");
            let got = arrived(&mut stage, server);
            assert_eq!((got.to, got.ecn), (Some(asked.ip()), Ecn::Able0));
            let towards =
                Towards { from: got.to, ecn: Ecn::Congested, ..Towards::new(got.from, 100) };
            send(&mut stage, 1, server, towards, b"answer");
            let got = arrived(&mut stage, client);
            assert_eq!((got.from, got.ecn), (asked, Ecn::Congested));
        }
        stage.stop();
    }
}

/// The id of a socket that was closed is dead, also when its place is somebody else's; its port is
/// free. There may be so many, and no more.
#[test]
fn ids_of_closed_sockets_are_dead() {
    let mut stage = stage(ProbeMask::default());
    let (old, at) = open(&mut stage, 0, "127.0.0.1:0");
    let towards = Towards::new(at, 100);
    stage.on(0, move |io| {
        assert!(io.send_train(old, towards, b"to myself"));
        io.close_datagrams(old);
        assert!(!io.send_train(old, towards, b"too late"));
        assert_eq!((io.datagrams_address(old), io.datagrams_backlog(old)), (None, 0));
        io.await_datagrams(old, 1);
    });
    let taken = NoSocket::Host(Errno(rustix::io::Errno::ADDRINUSE.raw_os_error()));
    let mut new = old;
    until("the port is free", || {
        match stage.on(0, move |io| io.open_datagrams(at, SocketMemory::default())) {
            Ok(socket) => new = socket,
            Err(error) => assert_eq!(error, taken),
        }
        new != old
    });
    let again = stage.on(0, move |io| io.open_datagrams(at, SocketMemory::default()));
    assert_eq!(again, Err(taken));
    let (mut place, any) = (new, "127.0.0.1:0".parse().unwrap());
    while place.index != old.index {
        place = stage.on(0, move |io| io.open_datagrams(any, SocketMemory::default())).unwrap();
    }
    assert_ne!(place.generation, old.generation);
    stage.on(0, move |io| io.close_datagrams(old));
    send(&mut stage, 0, new, towards, b"to the new one");
    assert_eq!(arrived(&mut stage, new).bytes, b"to the new one");
    let full = stage.on(1, |io| {
        let little = SocketMemory { receive_bytes: 4096, send_bytes: 4096 };
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let opened = (0..=SOCKETS_PER_SHARD_MAX).map(|_| io.open_datagrams(any, little));
        opened.enumerate().find_map(|(at, made)| made.err().map(|error| (at, error)))
    });
    assert_eq!(full, Some((SOCKETS_PER_SHARD_MAX, NoSocket::Full)));
    stage.stop();
}

/// Sockets at which little arrives are heard though others have more waiting than there are
/// buffers for.
#[test]
fn a_flood_at_one_socket_does_not_starve_another() {
    for mask in masks() {
        let ring = RingConfig { datagrams: Some(Buffers::for_trains(2)), ..RingConfig::default() };
        let mut stage = Stage::new(RuntimeConfig { ring, probe_mask: mask, ..config(1) });
        let (flooded, to) = open(&mut stage, 0, "127.0.0.1:0");
        let (quiet, to_quiet) = open(&mut stage, 0, "127.0.0.1:0");
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        stage.on(0, move |_| {
            // The shard stands still meanwhile.
            for _ in 0..200 {
                stranger.send_to(&[1; 100], to).unwrap();
            }
            stranger.send_to(b"quiet", to_quiet).unwrap();
        });
        let mut before = 0;
        loop {
            match stage.next().2 {
                Heard::Datagrams(at, _) if at == flooded => before += 1,
                Heard::Datagrams(at, got) => {
                    assert!(at == quiet && got.bytes == b"quiet");
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(before <= 8, "{before} of the others came first");
        (before..200).for_each(|_| drop(arrived(&mut stage, flooded)));
        stage.stop();
    }
}

/// Host and guest have sockets of their own, and buffers of their own; each hears of its own.
#[test]
fn each_hears_its_own_datagrams() {
    let room = Room {
        doors: Vec::new(),
        buffers: Buffers { count: 8, bytes: 4096 },
        connections_max: 8,
        spare_buffers_max: 1 << 20,
        spare_buffer_bytes_max: 65_536,
    };
    let (mut host, mut guest, _) = Stage::pair(config(2), room);
    let (of_host, to_host) = open(&mut host, 0, "127.0.0.1:0");
    let (of_guest, to_guest) = open(&mut guest, 0, "127.0.0.1:0");
    assert_eq!(of_host, of_guest, "each has numbers of its own");
    send(&mut host, 0, of_host, Towards::new(to_guest, 100), b"of the host");
    let got = arrived(&mut guest, of_guest);
    assert_eq!((got.bytes.as_slice(), got.from), (&b"of the host"[..], to_host));
    send(&mut guest, 0, of_guest, Towards::new(to_host, 100), b"of the guest");
    assert_eq!(arrived(&mut host, of_host).from, to_guest);
    send(&mut guest, 0, of_guest, Towards::new(to_host, u16::MAX), &[1; 65_508]);
    assert_eq!(told_unsent(&mut guest, of_guest).to, to_host);
    guest.on(0, move |io| io.await_datagrams(of_guest, 1));
    assert_eq!(guest.next().2, Heard::SocketDrained(of_guest));
    guest.on(0, move |io| io.close_datagrams(of_guest));
    send(&mut host, 0, of_host, Towards::new(to_host, 100), b"to myself");
    assert_eq!(arrived(&mut host, of_host).bytes, b"to myself");
    host.running.stop();
    guest.hear_the_stop();
    host.stop();
}

/// A stop leaves nothing behind: what was appended before has left, and the ports are free.
#[test]
fn a_stop_closes_sockets() {
    for mask in masks() {
        let mut stage = stage(mask);
        let (sender, _) = open(&mut stage, 0, "127.0.0.1:0");
        let (_, at) = open(&mut stage, 1, "127.0.0.1:0");
        let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
        outside.set_read_timeout(Some(common::PATIENCE)).unwrap();
        let to = outside.local_addr().unwrap();
        send(&mut stage, 0, sender, Towards::new(to, 10), b"last words, cut up");
        stage.stop();
        let mut words = [0; 10];
        assert_eq!(outside.recv(&mut words).unwrap(), 10);
        assert_eq!(outside.recv(&mut words).unwrap(), 8);
        UdpSocket::bind(at).unwrap();
    }
}
