//! Shards that do what the test says and tell what they hear: a test is a story with both sides.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringway_core::{ConnId, Moment, ShardId};
use ringway_shards::{
    ControlPort, Datagrams, Ecn, Errno, Guest, Io, ListenerKind, Make, Peer, Room, Running,
    Runtime, RuntimeConfig, Service, ShardContext, ShardCounters, SocketId, Unsent,
};

use super::PATIENCE;

/// What a shard hears, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Opened(ListenerKind),
    Connected(Result<(), Errno>),
    Received(Vec<u8>),
    Ended,
    Closed,
    Drained,
    Overdue,
    Adopted(SocketAddr, Vec<u8>),
    Stopped,
    Mail(ShardId, Vec<u8>),
    Datagrams(SocketId, Got),
    Unsent(SocketId, Unsent),
    SocketDrained(SocketId),
}

/// A train that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) from: SocketAddr,
    pub(crate) to: Option<IpAddr>,
    pub(crate) ecn: Ecn,
    pub(crate) segment_bytes: usize,
    pub(crate) kernel_drops: u32,
    pub(crate) bytes: Vec<u8>,
}

/// Who heard it, about which connection.
pub(crate) type News = (ShardId, ConnId, Heard);

type Order = Box<dyn FnOnce(&mut Io<'_>) + Send>;
type Orders = Arc<Vec<Mutex<VecDeque<Order>>>>;
/// What a connection does by itself when it hears something.
type Habit = fn(ConnId, &mut Heard, &mut Io<'_>);

struct Puppet {
    me: ShardId,
    control: ShardId,
    news: Sender<News>,
    orders: Orders,
    habit: Habit,
}

impl Puppet {
    fn tell(&mut self, conn: ConnId, mut heard: Heard, io: &mut Io<'_>) {
        (self.habit)(conn, &mut heard, io);
        // The test may have ended, and with it who listens.
        let _ = self.news.send((self.me, conn, heard));
    }
}

/// For news that are about no connection.
pub(crate) const NOBODY: ConnId = ConnId { index: u32::MAX, generation: 0 };

impl Service for Puppet {
    fn opened(&mut self, _: Moment, conn: ConnId, peer: Peer, io: &mut Io<'_>) {
        self.tell(conn, Heard::Opened(peer.listener), io);
    }

    fn connected(&mut self, _: Moment, conn: ConnId, end: Result<(), Errno>, io: &mut Io<'_>) {
        self.tell(conn, Heard::Connected(end), io);
    }

    fn adopted(&mut self, _: Moment, conn: ConnId, peer: SocketAddr, note: &[u8], io: &mut Io<'_>) {
        self.tell(conn, Heard::Adopted(peer, note.to_vec()), io);
    }

    fn received(&mut self, _: Moment, conn: ConnId, bytes: &mut [u8], io: &mut Io<'_>) {
        assert!(!bytes.is_empty());
        self.tell(conn, Heard::Received(bytes.to_vec()), io);
        // They are ours to spoil.
        bytes.fill(0xEE);
    }

    fn ended(&mut self, _: Moment, conn: ConnId, io: &mut Io<'_>) {
        self.tell(conn, Heard::Ended, io);
    }

    fn closed(&mut self, _: Moment, conn: ConnId, io: &mut Io<'_>) {
        self.tell(conn, Heard::Closed, io);
    }

    fn drained(&mut self, _: Moment, conn: ConnId, io: &mut Io<'_>) {
        self.tell(conn, Heard::Drained, io);
    }

    fn overdue(&mut self, _: Moment, conn: ConnId, io: &mut Io<'_>) {
        self.tell(conn, Heard::Overdue, io);
    }

    fn datagrams(&mut self, _: Moment, socket: SocketId, train: Datagrams<'_>, io: &mut Io<'_>) {
        let got = Got {
            from: train.from,
            to: train.to,
            ecn: train.ecn,
            segment_bytes: train.segment_bytes,
            kernel_drops: train.kernel_drops,
            bytes: train.bytes.to_vec(),
        };
        self.tell(NOBODY, Heard::Datagrams(socket, got), io);
        // They are ours to spoil.
        train.bytes.fill(0xEE);
    }

    fn unsent(&mut self, _: Moment, socket: SocketId, what: Unsent, io: &mut Io<'_>) {
        self.tell(NOBODY, Heard::Unsent(socket, what), io);
    }

    fn datagrams_drained(&mut self, _: Moment, socket: SocketId, io: &mut Io<'_>) {
        self.tell(NOBODY, Heard::SocketDrained(socket), io);
    }

    fn mail(&mut self, _: Moment, from: ShardId, message: &[u8], io: &mut Io<'_>) {
        if from != self.control {
            return self.tell(NOBODY, Heard::Mail(from, message.to_vec()), io);
        }
        loop {
            let order = self.orders[self.me.index()].lock().unwrap().pop_front();
            let Some(order) = order else { return };
            order(io);
        }
    }

    fn turn(&mut self, _: Moment, _: &mut Io<'_>) {}

    fn wake_at(&self) -> Option<Moment> {
        None
    }

    fn stop(&mut self, _: Moment, io: &mut Io<'_>) {
        self.tell(NOBODY, Heard::Stopped, io);
    }

    fn may_stop(&self) -> bool {
        true
    }
}

/// The test's end of the strings.
pub(crate) struct Strings {
    control: ControlPort,
    news: Receiver<News>,
    orders: Orders,
}

/// Shards, and the strings of their puppets.
pub(crate) struct Stage {
    pub(crate) running: Running,
    strings: Strings,
}

impl Deref for Stage {
    type Target = Strings;

    fn deref(&self) -> &Strings {
        &self.strings
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut Strings {
        &mut self.strings
    }
}

/// Makes puppets; the test's ends of their strings.
fn puppets(shards: usize, habit: Habit) -> (Make<Puppet>, Receiver<News>, Orders) {
    let orders: Orders = Arc::new((0..shards).map(|_| Mutex::default()).collect());
    let (say, news) = channel();
    let theirs = Arc::clone(&orders);
    let make = move |context: ShardContext| Puppet {
        me: context.shard,
        control: context.control,
        news: say.clone(),
        orders: Arc::clone(&theirs),
        habit,
    };
    (Box::new(make), news, orders)
}

impl Stage {
    pub(crate) fn new(config: RuntimeConfig) -> Stage {
        Stage::with_habit(config, |_, _, _| {})
    }

    pub(crate) fn with_habit(config: RuntimeConfig, habit: Habit) -> Stage {
        let (make, news, orders) = puppets(config.shards, habit);
        let mut running = Runtime::start(config, make).unwrap();
        let control = running.take_control().unwrap();
        Stage { running, strings: Strings { control, news, orders } }
    }

    /// Shards with two puppets each: the host's stage, the guest's strings, and where the guest
    /// listens.
    pub(crate) fn pair(config: RuntimeConfig, room: Room) -> (Stage, Strings, Vec<SocketAddr>) {
        let (make, news, orders) = puppets(config.shards, |_, _, _| {});
        let (guest, news_of_guest, orders_of_guest) = puppets(config.shards, |_, _, _| {});
        let mut running = Runtime::start_pair(config, make, Guest { room, make: guest }).unwrap();
        let control = running.take_control().unwrap();
        let lodged = running.take_lodged().unwrap();
        let guest =
            Strings { control: lodged.control, news: news_of_guest, orders: orders_of_guest };
        let stage = Stage { running, strings: Strings { control, news, orders } };
        (stage, guest, lodged.addresses)
    }

    /// A client of the base door, and the connection that the shard has of it.
    pub(crate) fn connect(&mut self) -> (TcpStream, ShardId, ConnId) {
        let base = self.running.addresses().base.unwrap();
        self.strings.enter(base, ListenerKind::Base)
    }

    pub(crate) fn sum(&self, of: impl Fn(&ShardCounters) -> u64) -> u64 {
        self.running.counters().iter().map(|counters| of(counters)).sum()
    }

    /// Stops, whatever else was heard.
    pub(crate) fn stop_deaf(self) {
        self.running.stop();
        self.running.join().unwrap();
    }

    /// Stops, and checks that nothing else was heard.
    pub(crate) fn stop(mut self) {
        self.running.stop();
        self.strings.hear_the_stop();
        self.running.join().unwrap();
    }
}

impl Strings {
    /// Has a shard do something, and waits for what that gives.
    pub(crate) fn on<R: Send + 'static>(
        &mut self,
        shard: u8,
        order: impl FnOnce(&mut Io<'_>) -> R + Send + 'static,
    ) -> R {
        self.begin(shard, order).recv_timeout(PATIENCE).unwrap()
    }

    /// Has a shard do something; what that gives comes from the receiver.
    pub(crate) fn begin<R: Send + 'static>(
        &mut self,
        shard: u8,
        order: impl FnOnce(&mut Io<'_>) -> R + Send + 'static,
    ) -> Receiver<R> {
        let (say, hear) = channel();
        // The test may not care.
        let order: Order = Box::new(move |io| drop(say.send(order(io))));
        self.orders[usize::from(shard)].lock().unwrap().push_back(order);
        self.control.send(ShardId(shard), b"look");
        hear
    }

    /// News, if any come within a time.
    pub(crate) fn next_within(&mut self, time: Duration) -> Option<News> {
        self.news.recv_timeout(time).ok()
    }

    /// The next news of any connection.
    pub(crate) fn next(&mut self) -> News {
        self.news.recv_timeout(PATIENCE).expect("nothing was heard")
    }

    /// The next news, which is about this connection.
    pub(crate) fn next_of(&mut self, conn: ConnId) -> Heard {
        let (shard, about, heard) = self.next();
        assert_eq!(about, conn, "shard {shard} heard {heard:?} of another");
        heard
    }

    /// Bytes of this connection, which come before anything else is heard.
    pub(crate) fn bytes_of(&mut self, conn: ConnId, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            match self.next_of(conn) {
                Heard::Received(more) => bytes.extend_from_slice(&more),
                other => panic!("{other:?} after {} of {count} bytes", bytes.len()),
            }
        }
        bytes
    }

    /// A word goes from a client to the shard that has it, and another one back.
    pub(crate) fn talk(&mut self, client: &mut TcpStream, shard: ShardId, conn: ConnId) {
        client.write_all(b"ping").unwrap();
        assert_eq!(self.bytes_of(conn, 4), b"ping");
        self.on(shard.0, move |io| io.out(conn).extend_from_slice(b"pong"));
        let mut got = [0; 4];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"pong");
    }

    /// A client's connection is adopted by this shard, with this note; its name there.
    pub(crate) fn adopted(&mut self, client: &TcpStream, by: ShardId, note: &[u8]) -> ConnId {
        let (shard, conn, heard) = self.next();
        let adopted = Heard::Adopted(client.local_addr().unwrap(), note.to_vec());
        assert_eq!((shard, heard), (by, adopted));
        conn
    }

    /// A client that comes in by a door, and the connection that the shard has of it.
    pub(crate) fn enter(
        &mut self,
        address: SocketAddr,
        door: ListenerKind,
    ) -> (TcpStream, ShardId, ConnId) {
        let client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_nodelay(true).unwrap();
        let (shard, conn, heard) = self.next();
        assert_eq!(heard, Heard::Opened(door));
        (client, shard, conn)
    }

    /// A connection that shard 0 made to a listener of ours.
    pub(crate) fn connect_out(&mut self) -> (TcpStream, ConnId) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let conn = self.on(0, move |io| io.connect(address)).unwrap();
        let client = listener.accept().unwrap().0;
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_nodelay(true).unwrap();
        assert_eq!(self.next_of(conn), Heard::Connected(Ok(())));
        (client, conn)
    }

    /// The next mail to the control plane.
    pub(crate) fn control_mail(&mut self) -> (ShardId, Vec<u8>) {
        super::wait_readable(&self.control);
        let mut heard = None;
        self.control.receive(|from, message| heard = Some((from, message.to_vec())));
        heard.expect("the bell rings for mail")
    }

    /// Every shard is told to stop, and nothing else was heard before.
    pub(crate) fn hear_the_stop(&mut self) {
        for _ in 0..self.control.shards() {
            let (_, conn, heard) = self.next();
            assert_eq!((conn, heard), (NOBODY, Heard::Stopped));
        }
    }
}
