//! Two services on the same shards: each hears of its own connections and mail, and of nothing
//! else, and what is scarce is not the other's to take.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::puppet::{Heard, NOBODY, Stage, Strings};
use common::{Echo, config, echo, read, until};
use ringway_core::{ConnId, Moment, ShardId, Span};
use ringway_shards::{
    Buffers, Close, Guest, Io, ListenerKind, NoSocket, Peer, Room, Runtime, RuntimeConfig, Service,
};

const DOOR: ListenerKind = ListenerKind::Extra(7);

fn room() -> Room {
    Room {
        doors: vec![(7, "127.0.0.1:0".parse().unwrap())],
        buffers: Buffers { count: 4, bytes: 4096 },
        connections_max: 1000,
        spare_buffers_max: 1 << 20,
        spare_buffer_bytes_max: 1 << 16,
    }
}

/// Says a word each way.
fn talk(strings: &mut Strings, (client, shard, conn): &mut (TcpStream, ShardId, ConnId)) {
    strings.talk(client, *shard, *conn);
}

/// A connection of this service that it made itself.
fn connect_out(strings: &mut Strings) -> (TcpStream, ShardId, ConnId) {
    let (client, conn) = strings.connect_out();
    (client, ShardId(0), conn)
}

/// Whoever came in by a door, was connected or was given belongs to who opened the door, connected
/// or had it: that one alone hears of it, to the end. The host may have numbered doors, too, and
/// the same numbers.
#[test]
fn each_hears_of_its_own_connections() {
    let doors = room().doors;
    let (mut host, mut guest, addresses) =
        Stage::pair(RuntimeConfig { doors, ..config(2) }, room());
    let extra = host.running.addresses().extra[0];
    let base = host.running.addresses().base.unwrap();
    let mut of_host =
        vec![host.enter(base, ListenerKind::Base), host.enter(extra, DOOR), connect_out(&mut host)];
    let mut of_guest = vec![guest.enter(addresses[0], DOOR), connect_out(&mut guest)];
    for (strings, all) in [(&mut *host, &mut of_host), (&mut guest, &mut of_guest)] {
        for one in all.iter_mut() {
            talk(strings, one);
            let (shard, conn) = (one.1, one.2);
            let to = ShardId(shard.0 ^ 1);
            strings.on(shard.0, move |io| io.give(conn, to, b"note"));
            let adopted = strings.adopted(&one.0, to, b"note");
            (one.1, one.2) = (to, adopted);
            talk(strings, one);
            one.0.shutdown(Shutdown::Write).unwrap();
            assert_eq!(strings.next_of(adopted), Heard::Ended);
            strings.on(to.0, move |io| {
                io.call_overdue(adopted, Span::from_ms(1));
            });
            assert_eq!(strings.next_of(adopted), Heard::Overdue);
            strings.on(to.0, move |io| io.close(adopted, Close::Now));
            assert_eq!(strings.next_of(adopted), Heard::Closed);
        }
    }
    assert_eq!(host.sum(|c| c.connections_now.get()), 0);
    host.running.stop();
    guest.hear_the_stop();
    host.stop();
}

/// A door that is added is who added it; shutting it is no matter of the other's door of that
/// number.
#[test]
fn doors_that_are_added_have_an_owner() {
    let (mut host, mut guest, addresses) = Stage::pair(config(1), room());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let added = listener.local_addr().unwrap();
    host.on(0, move |io| io.add_door(listener, 7));
    let _one = host.enter(added, DOOR);
    host.on(0, |io| io.remove_door(7));
    until("the host's door is shut", || TcpStream::connect(added).is_err());
    let _other = guest.enter(addresses[0], DOOR);
    guest.on(0, |io| io.remove_door(7));
    until("the guest's door is shut", || TcpStream::connect(addresses[0]).is_err());
    host.running.stop();
    guest.hear_the_stop();
    host.stop();
}

/// Mail between shards and from the control plane reaches the same service over there, in its
/// order, also when so much is posted that it has to wait for room.
#[test]
fn each_reads_its_own_mail() {
    let (mut host, mut guest, _) = Stage::pair(config(2), room());
    let many = |mark: u8| {
        move |io: &mut Io<'_>| {
            for number in 0..3000_u32 {
                let mut message = vec![mark; 1000];
                message[..4].copy_from_slice(&number.to_le_bytes());
                io.post(ShardId(1), &message);
            }
        }
    };
    host.on(0, many(8));
    guest.on(0, many(9));
    host.on(0, many(8));
    for (strings, mark, rounds) in [(&mut *host, 8, 2), (&mut guest, 9, 1)] {
        for number in (0..rounds).flat_map(|_| 0..3000_u32) {
            let (shard, _, heard) = strings.next();
            let Heard::Mail(from, message) = heard else { panic!("{heard:?}") };
            assert_eq!((shard, from, message.len()), (ShardId(1), ShardId(0), 1000));
            assert_eq!((&message[..4], message[999]), (&number.to_le_bytes()[..], mark));
        }
    }
    host.running.stop();
    guest.hear_the_stop();
    host.stop();
}

/// A control plane is told by its own service alone: each has a number of its own.
#[test]
fn each_has_its_own_control_plane() {
    let (mut host, mut guest, _) = Stage::pair(config(1), room());
    host.on(0, |io| io.post(ShardId(1), b"to the host's"));
    guest.on(0, |io| io.post(ShardId(2), b"to the guest's"));
    assert_eq!(host.control_mail(), (ShardId(0), b"to the host's".to_vec()));
    assert_eq!(guest.control_mail(), (ShardId(0), b"to the guest's".to_vec()));
    host.running.stop();
    guest.hear_the_stop();
    host.stop();
}

/// Neither takes the other's places, nor sees the other's buffers as its own.
#[test]
fn what_is_scarce_is_divided() {
    let few = RuntimeConfig { connections_max: 2, ..config(1) };
    let (mut host, mut guest, addresses) = Stage::pair(few, Room { connections_max: 3, ..room() });
    let mut of_guest: Vec<_> = (0..3).map(|_| guest.enter(addresses[0], DOOR)).collect();
    let nowhere = addresses[0];
    assert_eq!(guest.on(0, move |io| io.connect(nowhere)), Err(NoSocket::Full));
    let base = host.running.addresses().base.unwrap();
    let of_host: Vec<_> = (0..2).map(|_| host.enter(base, ListenerKind::Base)).collect();
    assert_eq!(host.on(0, move |io| io.connect(nowhere)), Err(NoSocket::Full));

    assert_eq!(of_host[0].2, of_guest[0].2, "each has numbers of its own");

    let before = host.on(0, |io| io.buffered());
    let deaf = of_guest[0].2;
    guest.on(0, move |io| io.out(deaf).resize(32 << 20, 0));
    assert!(guest.on(0, |io| io.buffered()) > 8 << 20, "nobody reads it");
    assert_eq!(host.on(0, |io| io.buffered()), before);

    // A place that is free again is the one's whose it was.
    drop(of_guest.pop());
    let (_, gone, heard) = guest.next();
    assert_eq!(heard, Heard::Ended);
    guest.on(0, move |io| io.close(gone, Close::Now));
    assert_eq!(guest.next_of(gone), Heard::Closed);
    until("the place is free", || {
        let refused = host.on(0, move |io| io.connect(nowhere));
        assert_eq!(refused, Err(NoSocket::Full));
        host.sum(|c| c.connections_now.get()) == 4
    });
    of_guest.push(guest.enter(addresses[0], DOOR));
    drop(of_host);
    for _ in 0..2 {
        assert_eq!(host.next().2, Heard::Ended);
    }
    guest.on(0, move |io| io.close(deaf, Close::Reset));
    assert_eq!(guest.next_of(deaf), Heard::Closed);
    host.running.stop();
    guest.hear_the_stop();
    host.stop();
}

/// Bytes arrive in the buffers of the side whose they are: the guest's are as large as it asked
/// for. Many connections that have more to say than there are buffers for do not keep the other
/// side's from being heard.
#[test]
fn each_has_its_own_receive_buffers() {
    let (mut host, mut guest, addresses) = Stage::pair(config(1), room());
    let mut crowd: Vec<_> = (0..16).map(|_| guest.enter(addresses[0], DOOR)).collect();
    for (client, _, _) in &mut crowd {
        client.write_all(&[1; 64 * 1024]).unwrap();
    }
    let mut one = host.connect();
    talk(&mut host, &mut one);
    let (mut got, mut largest) = (0, 0);
    while got < 16 * 64 * 1024 {
        let (_, _, heard) = guest.next();
        let Heard::Received(bytes) = heard else { panic!("{heard:?}") };
        (got, largest) = (got + bytes.len(), largest.max(bytes.len()));
    }
    assert_eq!(largest, 4096);
    let long = vec![2; 40_000];
    one.0.write_all(&long).unwrap();
    assert!(host.bytes_of(one.2, long.len()) == long);
    drop(crowd);
    (0..16).for_each(|_| assert_eq!(guest.next().2, Heard::Ended));
    host.running.stop();
    guest.hear_the_stop();
    host.stop();
}

/// A guest that counts its turns, asks for another one when it gets mail, and for one a moment
/// later.
struct Sleeper {
    turns: Arc<AtomicU64>,
    wakes: Option<Moment>,
}

impl Service for Sleeper {
    fn opened(&mut self, _: Moment, _: ConnId, _: Peer, _: &mut Io<'_>) {}

    fn received(&mut self, _: Moment, _: ConnId, _: &mut [u8], _: &mut Io<'_>) {}

    fn closed(&mut self, _: Moment, _: ConnId, _: &mut Io<'_>) {}

    fn drained(&mut self, _: Moment, _: ConnId, _: &mut Io<'_>) {}

    fn mail(&mut self, now: Moment, _: ShardId, _: &[u8], io: &mut Io<'_>) {
        self.wakes = Some(now + Span::from_ms(20));
        io.again();
    }

    fn turn(&mut self, now: Moment, _: &mut Io<'_>) {
        self.wakes.take_if(|at| *at <= now);
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    fn wake_at(&self) -> Option<Moment> {
        self.wakes
    }

    fn stop(&mut self, _: Moment, _: &mut Io<'_>) {}

    fn may_stop(&self) -> bool {
        true
    }
}

/// P2: a host that is busy costs the guest nothing, and the guest has the turns that it needs.
#[test]
fn a_guest_has_a_turn_when_there_is_something_for_it() {
    let turns = Arc::new(AtomicU64::new(0));
    let of_guest = Arc::clone(&turns);
    let guest = Guest {
        room: room(),
        make: Box::new(move |_| Sleeper { turns: Arc::clone(&of_guest), wakes: None }),
    };
    let mut running = Runtime::start_pair(config(1), Box::new(|_| Echo::new()), guest).unwrap();
    let mut control = running.take_lodged().unwrap().control;
    let mut client = TcpStream::connect(running.addresses().base.unwrap()).unwrap();
    (0..100).for_each(|_| echo(&mut client, b"busy"));
    assert_eq!(read(&turns), 1, "its first one");
    control.send(ShardId(0), b"look");
    until("it was woken by mail, by itself and by its time", || read(&turns) == 4);
    (0..100).for_each(|_| echo(&mut client, b"busy"));
    assert_eq!(read(&turns), 4);
    running.stop();
    running.join().unwrap();
}

/// Nothing is heard twice: the puppets' news are of nobody but themselves.
#[test]
fn a_stop_is_told_to_both() {
    let (mut host, mut guest, _) = Stage::pair(config(2), room());
    host.running.stop();
    for _ in 0..2 {
        let (_, conn, heard) = guest.next();
        assert_eq!((conn, heard), (NOBODY, Heard::Stopped));
    }
    host.hear_the_stop();
    host.running.join().unwrap();
}
