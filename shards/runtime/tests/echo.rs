//! One shard and real sockets: order, bulk, closes of every kind, slow readers, many connections.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use common::{Server, config, echo, read, until};
use ringway_core::Span;
use ringway_core::limits::CONN_OUT_HIGH;
use ringway_ring::{Feature, ProbeMask, RingConfig, net};
use ringway_shards::{PinPolicy, Runtime, RuntimeConfig, SpinPolicy, StartError};

/// Small and large, many times, on one connection.
#[test]
fn what_is_sent_comes_back_in_order() {
    let server = Server::start(config(1));
    let mut client = server.connect();
    for round in 0..200u32 {
        echo(&mut client, &round.to_le_bytes());
    }
    let large: Vec<u8> = (0..500_000u32).map(|i| (i / 3) as u8).collect();
    echo(&mut client, &large);
    server.stop();
}

/// A pipeline of 64 MiB: far more than all buffers together, in both directions at once.
#[test]
fn a_large_pipeline_flows() {
    let server = Server::start(config(1));
    let mut client = server.connect();
    let mut writer = client.try_clone().unwrap();
    let bytes = |i: usize| -> Vec<u8> { (0..65_536).map(|j| (i * 7 + j) as u8).collect() };
    let thread = std::thread::spawn(move || {
        (0..1024).for_each(|i| writer.write_all(&bytes(i)).unwrap());
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = vec![0; 65_536];
    for i in 0..1024 {
        client.read_exact(&mut got).unwrap();
        assert!(got == bytes(i), "block {i}");
    }
    assert_eq!(client.read(&mut got).unwrap(), 0);
    thread.join().unwrap();
    server.stop();
}

/// A client that says it is done still gets its answers, then the end.
#[test]
fn a_half_closed_client_is_answered() {
    let server = Server::start(config(1));
    let mut client = server.connect();
    client.write_all(&[7; 300_000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert!(got == [7; 300_000]);
    until("the server has closed it, too", || read(&server.seen.closed) == 1);
    assert_eq!(server.sum(|c| c.connections_now.get()), 0);
    server.stop();
}

/// "Close after flush" delivers the last words even to a client that keeps talking.
#[test]
fn last_words_reach_a_client_that_keeps_talking() {
    let server = Server::start(config(1));
    for _ in 0..20 {
        let mut client = server.connect();
        client.write_all(b"QUIT").unwrap();
        let mut writer = client.try_clone().unwrap();
        let thread = std::thread::spawn(move || while writer.write_all(&[1; 10_000]).is_ok() {});
        let mut got = [0; 3];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"bye");
        client.shutdown(Shutdown::Both).unwrap();
        thread.join().unwrap();
    }
    until("all are closed", || read(&server.seen.closed) == 20);
    server.stop();
}

/// "Close now" ends a connection at once; its neighbour does not notice.
#[test]
fn a_connection_is_closed_now() {
    let server = Server::start(config(1));
    let (mut client, mut other) = (server.connect(), server.connect());
    client.write_all(b"KILL").unwrap();
    assert!(matches!(client.read(&mut [0; 8]), Ok(0) | Err(_)));
    until("the service was told", || read(&server.seen.closed) == 1);
    echo(&mut other, b"still here");
    server.stop();
}

/// A reset in the middle of a large answer costs nobody else anything, and nothing is left over.
#[test]
fn a_reset_peer_is_forgotten() {
    let server = Server::start(config(1));
    let mut other = server.connect();
    for _ in 0..20 {
        let mut client = server.connect();
        client.write_all(&[9; 3_000_000]).unwrap_or_default();
        net::reset(client).unwrap();
    }
    // Some were gone before anybody could be told of them.
    until("all have come", || server.sum(|c| c.accepts.get()) == 21);
    until("all are gone", || server.sum(|c| c.connections_now.get()) == 1);
    assert_eq!(read(&server.seen.opened), read(&server.seen.closed) + 1);
    echo(&mut other, b"still here");
    server.stop();
}

/// Who does not read is not read, holds a bounded amount, and slows nobody down; when it reads
/// again everything is there.
#[test]
fn a_slow_reader_is_paused_alone() {
    let server = Server::start(config(1));
    let mut slow = server.connect();
    let mut writer = slow.try_clone().unwrap();
    const TOTAL: usize = 40 << 20;
    let thread = std::thread::spawn(move || {
        let block: Vec<u8> = (0..64 * 1024u32).map(|i| (i / 5) as u8).collect();
        (0..TOTAL / block.len()).for_each(|_| writer.write_all(&block).unwrap());
    });
    until("it is paused", || read(&server.seen.paused) >= 1);
    let mut other = server.connect();
    (0..1000).for_each(|_| echo(&mut other, b"fast"));
    let received = || server.sum(|c| c.receive_bytes.get()) as usize;
    let waiting = received().saturating_sub(server.sum(|c| c.send_bytes.get()) as usize);
    // What one turn may bring on top of the mark: all receive buffers full.
    let bound = CONN_OUT_HIGH + 256 * 16 * 1024;
    assert!(waiting < bound, "{waiting} bytes wait");
    assert!(received() < TOTAL && !thread.is_finished(), "the slow one is not read");
    let mut got = vec![0; TOTAL];
    slow.read_exact(&mut got).unwrap();
    let is_right = |(i, byte): (usize, &u8)| *byte == (i % 65_536 / 5) as u8;
    assert!(got.iter().enumerate().all(is_right));
    assert!(read(&server.seen.drained) >= 1);
    thread.join().unwrap();
    server.stop();
}

/// Two thousand connections, each served, each closed, none left.
#[test]
fn two_thousand_connections_come_and_go() {
    ringway_ring::host::raise_open_files_limit();
    let server = Server::start(config(1));
    let mut clients: Vec<TcpStream> = (0..2000).map(|_| server.connect()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.write_all(&(i as u32).to_le_bytes()).unwrap();
    }
    for (i, client) in clients.iter_mut().enumerate() {
        let mut got = [0; 4];
        client.read_exact(&mut got).unwrap();
        assert_eq!(u32::from_le_bytes(got), i as u32);
    }
    assert_eq!(server.sum(|c| c.connections_now.get()), 2000);
    drop(clients);
    until("all are closed", || read(&server.seen.closed) == 2000);
    assert_eq!(read(&server.seen.opened), 2000);
    server.stop();
}

/// Connections beyond the configured number are closed at once, and counted.
#[test]
fn one_connection_too_many_is_refused() {
    let server = Server::start(RuntimeConfig { connections_max: 2, ..config(1) });
    let (mut one, mut two) = (server.connect(), server.connect());
    echo(&mut one, b"1");
    echo(&mut two, b"2");
    let mut third = server.connect();
    assert!(matches!(third.read(&mut [0; 8]), Ok(0) | Err(_)));
    assert_eq!(server.sum(|c| c.accepts_refused.get()), 1);
    drop(one);
    until("there is room", || read(&server.seen.closed) == 1);
    echo(&mut server.connect(), b"3");
    server.stop();
}

/// A stop tells the service, finishes what is in flight, and shows clients an orderly end.
#[test]
fn a_stop_is_orderly() {
    let server = Server::start(config(2));
    let mut clients: Vec<TcpStream> = (0..10).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| echo(client, b"before"));
    let (address, seen) = (server.address, server.seen.clone());
    server.stop();
    assert_eq!(read(&seen.stopped), 2);
    for client in &mut clients {
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    }
    assert!(TcpStream::connect(address).is_err());
}

/// A stop does not wait for ever for who does not read, nor does it spin meanwhile; with quiet
/// sends and without.
#[test]
fn a_stop_has_a_deadline() {
    for mask in [ProbeMask::default(), ProbeMask::default().without(Feature::QuietSend)] {
        let drain = Span::from_ms(50);
        let server = Server::start(RuntimeConfig { drain, probe_mask: mask, ..config(1) });
        let client = server.connect();
        let mut writer = client.try_clone().unwrap();
        let thread = std::thread::spawn(move || while writer.write_all(&[1; 65_536]).is_ok() {});
        until("it is paused", || read(&server.seen.paused) >= 1);
        let counters = server.running.counters()[0].clone();
        let before = counters.turns.get();
        server.running.stop();
        server.running.join().unwrap();
        let turned = counters.turns.get() - before;
        assert!(turned < 200, "{turned} turns during the drain");
        drop(client);
        thread.join().unwrap();
    }
}

/// Who does not read can be thrown out, although a send waits for it: the socket is really closed.
/// With quiet sends and without.
#[test]
fn a_stuck_reader_can_be_thrown_out() {
    for mask in [ProbeMask::default(), ProbeMask::default().without(Feature::QuietSend)] {
        let mut server = Server::start(RuntimeConfig { probe_mask: mask, ..config(1) });
        let client = server.connect();
        let mut writer = client.try_clone().unwrap();
        let thread = std::thread::spawn(move || while writer.write_all(&[1; 65_536]).is_ok() {});
        let all = |server: &Server| server.sum(|c| c.receive_bytes.get());
        let mut before = 0;
        until("nothing moves any more", || {
            std::thread::park_timeout(std::time::Duration::from_millis(20));
            let now = all(&server);
            read(&server.seen.paused) > 0 && std::mem::replace(&mut before, now) == now
        });
        let mut control = server.running.take_control().unwrap();
        control.send(ringway_core::ShardId(0), b"throw out");
        until("the service was told", || read(&server.seen.closed) == 1);
        until("its writes fail, although it reads nothing", || thread.is_finished());
        drop(client);
        server.stop();
    }
}

/// A taken port is one clear message, also when the other one would share it.
#[test]
fn a_taken_port_is_said() {
    let server = Server::start(config(2));
    let again = RuntimeConfig { listen: Some(server.address), ..config(2) };
    let error = Runtime::start(again, |_| -> common::Echo { unreachable!() }).unwrap_err();
    assert!(matches!(error, StartError::PortTaken { address } if address == server.address));
    assert!(error.to_string().contains("is taken by another process"), "{error}");
    server.stop();
}

/// Each shard also listens on a port of its own, which reaches that shard and no other.
#[test]
fn own_ports_reach_their_shards() {
    let server = Server::start(RuntimeConfig { own_ports: true, ..config(2) });
    let own = server.running.addresses().own.clone();
    assert_eq!(own.len(), 2);
    for (shard, address) in own.iter().enumerate() {
        let accepts = || server.running.counters()[shard].accepts.get();
        let before = accepts();
        let clients: Vec<TcpStream> =
            (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
        until("all have arrived", || accepts() == before + 5);
        drop(clients);
    }
    server.stop();
}

/// Too many shards for the cores, or for anything, is said before anything starts.
#[test]
fn impossible_configurations_are_said() {
    let says = |config: RuntimeConfig| {
        let make = |_| -> common::Echo { unreachable!("nothing was to start") };
        Runtime::start(config, make).unwrap_err().to_string()
    };
    let pin = PinPolicy::Cores(vec![0]);
    assert!(says(RuntimeConfig { pin, ..config(2) }).contains("2 shards need as many cores"));
    assert!(says(config(0)).contains("0 shards are not possible"));
    assert!(says(config(129)).contains("between 1 and 128"));
    let refused = ProbeMask::default().refused_with(1);
    assert!(says(RuntimeConfig { probe_mask: refused, ..config(1) }).contains("seccomp"));
    let pin = PinPolicy::Cores(vec![1000]);
    assert!(says(RuntimeConfig { pin, ..config(1) }).contains("pinning a shard"));
}

/// Without any one feature it still serves, in the same way.
#[test]
fn it_serves_without_each_feature() {
    let all = ProbeMask::default();
    for feature in Feature::all().filter(|feature| *feature != Feature::BufferRings) {
        let server = Server::start(RuntimeConfig { probe_mask: all.without(feature), ..config(2) });
        let mut clients: Vec<TcpStream> = (0..4).map(|_| server.connect()).collect();
        for client in &mut clients {
            echo(client, feature.name().as_bytes());
            echo(client, &vec![1; 200_000]);
        }
        drop(clients);
        until("all are closed", || read(&server.seen.closed) == 4);
        server.stop();
    }
    let all_off = Feature::all()
        .filter(|feature| *feature != Feature::BufferRings)
        .fold(all, ProbeMask::without);
    let server = Server::start(RuntimeConfig { probe_mask: all_off, ..config(1) });
    echo(&mut server.connect(), &vec![1; 200_000]);
    server.stop();
}

/// With eight small buffers for many talkers receives run dry, are counted, and go on.
#[test]
fn receives_go_on_after_running_dry() {
    let ring = RingConfig {
        entries: 16,
        completions: 64,
        buffers: 8,
        buffer_bytes: 1024,
        ..RingConfig::default()
    };
    let server = Server::start(RuntimeConfig { ring, ..config(1) });
    let mut clients: Vec<TcpStream> = (0..50).map(|_| server.connect()).collect();
    for round in 0..10u8 {
        let bytes = vec![round; 5_000];
        clients.iter_mut().for_each(|client| client.write_all(&bytes).unwrap());
        for client in &mut clients {
            let mut got = vec![0; 5_000];
            client.read_exact(&mut got).unwrap();
            assert!(got == bytes);
        }
    }
    assert!(server.sum(|c| c.buffers_exhausted.get()) > 0);
    server.stop();
}

/// A shard that spins serves the same, and stops spinning when nothing comes.
#[test]
fn spinning_serves_and_fades() {
    let spin = SpinPolicy::UpTo(Span::from_us(50));
    let server = Server::start(RuntimeConfig { spin, ..config(1) });
    let mut client = server.connect();
    (0..2000).for_each(|_| echo(&mut client, b"ping"));
    until("it sleeps", || server.sum(|c| c.sleeps.get()) > 0);
    server.stop();
}
