//! Doors with numbers: given at the start, added and removed while others are served.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use common::puppet::{Heard, Stage};
use common::{PATIENCE, config, until};
use ringway_core::ShardId;
use ringway_ring::{Feature, ProbeMask};
use ringway_shards::{Addresses, ListenerKind, RuntimeConfig, StartError, listen_together};

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn knock(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// Doors given at the start are there on all shards, tell their numbers, and a taken one is said.
#[test]
fn doors_of_the_start_tell_their_numbers() {
    let doors = vec![(7, any()), (65_535, any())];
    let mut stage = Stage::new(RuntimeConfig { doors, own_ports: true, ..config(2) });
    let addresses = stage.running.addresses().clone();
    assert_eq!((addresses.extra.len(), addresses.own.len()), (2, 2));
    for (number, address) in [(7, addresses.extra[0]), (65_535, addresses.extra[1])] {
        let (mut clients, mut shards) = (Vec::new(), HashSet::new());
        until("both shards were chosen", || {
            clients.push(knock(address));
            let (shard, _, heard) = stage.next();
            assert_eq!(heard, Heard::Opened(ListenerKind::Extra(number)));
            shards.insert(shard);
            shards.len() == 2
        });
        for client in clients {
            drop(client);
            assert_eq!(stage.next().2, Heard::Ended);
        }
    }
    let _own = knock(addresses.own[1]);
    let (shard, _, heard) = stage.next();
    assert_eq!((shard, heard), (ShardId(1), Heard::Opened(ListenerKind::Own)));
    let again = RuntimeConfig { doors: vec![(1, addresses.extra[0])], ..config(1) };
    let error = ringway_shards::Runtime::start(again, |_| -> common::Echo { unreachable!() });
    assert!(matches!(error.unwrap_err(), StartError::PortTaken { address }
        if address == addresses.extra[0]));
    stage.stop();
    assert!(TcpStream::connect(addresses.extra[0]).is_err(), "a stop shuts it");
}

/// Who only connects has no base door, and no own ports though they be asked for: the process
/// listens nowhere until a service adds a door. All else is as with one, the stop included.
#[test]
fn who_only_connects_listens_nowhere() {
    let nowhere = || RuntimeConfig { listen: None, own_ports: true, ..config(2) };
    let mut stage = Stage::new(nowhere());
    let none = Addresses { base: None, own: Vec::new(), extra: Vec::new() };
    assert_eq!(stage.running.addresses(), &none);
    let (mut peer, conn) = stage.connect_out();
    peer.write_all(b"hello").unwrap();
    assert_eq!(stage.bytes_of(conn, 5), b"hello");
    let listener = listen_together(any(), 1).unwrap().remove(0);
    let address = listener.local_addr().unwrap();
    stage.on(1, move |io| io.add_door(listener, 3));
    let _client = knock(address);
    let (shard, _, heard) = stage.next();
    assert_eq!((shard, heard), (ShardId(1), Heard::Opened(ListenerKind::Extra(3))));
    stage.stop();

    let stage = Stage::new(RuntimeConfig { doors: vec![(9, any())], ..nowhere() });
    let addresses = stage.running.addresses().clone();
    assert_eq!((addresses.base, addresses.own.len(), addresses.extra.len()), (None, 0, 1));
    let _client = knock(addresses.extra[0]);
    stage.running.stop();
    stage.running.join().unwrap();
}

/// A service adds a door, and a second one under the same number; removes both; and adds others in
/// their places, many times. Who came in by a door that is gone is still served. With accepts that
/// go on by themselves and without.
#[test]
fn doors_come_and_go() {
    let without = ProbeMask::default().without(Feature::MultishotAccept);
    for probe_mask in [ProbeMask::default(), without] {
        let mut stage = Stage::new(RuntimeConfig { probe_mask, ..config(1) });
        let mut guests = Vec::new();
        for round in 0..20u16 {
            let mut addresses = Vec::new();
            for _ in 0..2 {
                let mut listeners = listen_together(any(), 1).unwrap();
                let listener = listeners.remove(0);
                addresses.push(listener.local_addr().unwrap());
                stage.on(0, move |io| io.add_door(listener, round));
            }
            for address in &addresses {
                let client = knock(*address);
                let (_, conn, heard) = stage.next();
                assert_eq!(heard, Heard::Opened(ListenerKind::Extra(round)));
                guests.push((client, conn));
            }
            // There is no such door, and that harms nobody.
            stage.on(0, move |io| io.remove_door(round + 1));
            stage.on(0, move |io| io.remove_door(round));
            for address in addresses {
                until("it is shut", || TcpStream::connect(address).is_err());
            }
        }
        for (client, conn) in &mut guests {
            let conn = *conn;
            client.write_all(b"still").unwrap();
            assert_eq!(stage.bytes_of(conn, 5), b"still");
            stage.on(0, move |io| io.out(conn).extend_from_slice(b"here"));
            let mut got = [0; 4];
            client.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"here");
        }
        let (_base, ..) = stage.connect();
        stage.stop();
    }
}

/// Added and removed in the same call, in either order: what counts is what was said last.
#[test]
fn the_last_word_on_a_door_counts() {
    let mut stage = Stage::new(config(1));
    let mut two = [(); 2].map(|()| listen_together(any(), 1).unwrap());
    let (one, other) = (two[0].remove(0), two[1].remove(0));
    let addresses = [one.local_addr().unwrap(), other.local_addr().unwrap()];
    stage.on(0, move |io| {
        io.add_door(one, 1);
        io.remove_door(1);
        io.remove_door(2);
        io.add_door(other, 2);
    });
    let _client = knock(addresses[1]);
    assert_eq!(stage.next().2, Heard::Opened(ListenerKind::Extra(2)));
    assert!(TcpStream::connect(addresses[0]).is_err());
    stage.stop();
    assert!(TcpStream::connect(addresses[1]).is_err(), "a stop shuts it like the others");
}
