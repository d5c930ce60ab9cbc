//! Shards that do what the test says and tell what they hear: a test is a story with both sides.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use ringway_core::{ConnId, Moment, ShardId};
use ringway_shards::{
    ControlPort, Errno, Io, ListenerKind, Peer, Running, Runtime, RuntimeConfig, Service,
    ShardContext, ShardCounters,
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
}

/// Who heard it, about which connection.
pub(crate) type News = (ShardId, ConnId, Heard);

type Order = Box<dyn FnOnce(&mut Io<'_>) + Send>;
type Orders = Arc<Vec<Mutex<VecDeque<Order>>>>;
/// What a connection does by itself when it hears something.
type Habit = fn(ConnId, &mut Heard, &mut Io<'_>);

struct Puppet {
    me: ShardId,
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
const NOBODY: ConnId = ConnId { index: u32::MAX, generation: 0 };

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

    fn mail(&mut self, _: Moment, _: ShardId, _: &[u8], io: &mut Io<'_>) {
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
pub(crate) struct Stage {
    pub(crate) running: Running,
    control: ControlPort,
    news: Receiver<News>,
    orders: Orders,
}

impl Stage {
    pub(crate) fn new(config: RuntimeConfig) -> Stage {
        Stage::with_habit(config, |_, _, _| {})
    }

    pub(crate) fn with_habit(config: RuntimeConfig, habit: Habit) -> Stage {
        let orders: Orders = Arc::new((0..config.shards).map(|_| Mutex::default()).collect());
        let (say, news) = channel();
        let theirs = Arc::clone(&orders);
        let make = move |context: ShardContext| Puppet {
            me: context.shard,
            news: say.clone(),
            orders: Arc::clone(&theirs),
            habit,
        };
        let mut running = Runtime::start(config, make).unwrap();
        let control = running.take_control().unwrap();
        Stage { running, control, news, orders }
    }

    /// Has a shard do something, and waits for what that gives.
    pub(crate) fn on<R: Send + 'static>(
        &mut self,
        shard: u8,
        order: impl FnOnce(&mut Io<'_>) -> R + Send + 'static,
    ) -> R {
        let (say, hear) = channel();
        let order: Order = Box::new(move |io| say.send(order(io)).unwrap());
        self.orders[usize::from(shard)].lock().unwrap().push_back(order);
        self.control.send(ShardId(shard), b"look");
        hear.recv_timeout(PATIENCE).unwrap()
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

    /// A client of the base door, and the connection that the shard has of it.
    pub(crate) fn connect(&mut self) -> (TcpStream, ShardId, ConnId) {
        let client = TcpStream::connect(self.running.addresses().base.unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_nodelay(true).unwrap();
        let (shard, conn, heard) = self.next();
        assert_eq!(heard, Heard::Opened(ListenerKind::Base));
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

    pub(crate) fn sum(&self, of: impl Fn(&ShardCounters) -> u64) -> u64 {
        self.running.counters().iter().map(|counters| of(counters)).sum()
    }

    /// Stops, and checks that nothing else was heard.
    pub(crate) fn stop(mut self) {
        self.running.stop();
        for _ in self.running.counters().to_vec() {
            let (_, conn, heard) = self.next();
            assert_eq!((conn, heard), (NOBODY, Heard::Stopped));
        }
        self.running.join().unwrap();
    }
}
