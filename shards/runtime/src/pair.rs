//! Two services on the same shards: a host, and a guest that moved in with it.
//!
//! Each is told of its own connections and its own mail, as if it were alone. A connection belongs
//! to who opened the door that it came in by, who connected it, or who was given it by its like on
//! another shard; that is a bit of the number by which the loop and the kernel speak of it, and the
//! services' own numbers are without. What is scarce is divided where the shards are started
//! ([`Room`]): neither can take the other's connections, receive buffers or spare buffers, and
//! neither is told of the other's as its own.
//!
//! Always:
//! - P1  A call about a connection, or about mail, goes to the one whose it is; who is called says
//!   who connects, appends and posts ([`Io`] knows the side).
//! - P2  The host has a turn whenever the shard has one. The guest has one when something came for
//!   it, when it asked for one, or when its time has come; so it costs a host that is busy nothing
//!   but a look.
//!
//! Tests: `tests/pair.rs`.

use std::fmt;
use std::net::SocketAddr;

use ringway_core::{ConnId, Moment, ShardId};
use ringway_ring::{Buffers, Errno, Group};

use crate::control::ControlPort;
use crate::io::Io;
use crate::service::{Peer, Service, ShardContext};
use crate::sockets::{Datagrams, SocketId, Unsent};

/// Whose something is. A service that is alone is the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Side {
    /// The service that was there first.
    Host = 0,
    /// The one that moved in.
    Guest = 1,
}

impl Side {
    /// Both.
    pub(crate) const ALL: [Side; 2] = [Side::Host, Side::Guest];

    /// Whose receive buffers.
    #[inline]
    pub(crate) const fn group(self) -> Group {
        match self {
            Side::Host => Group::First,
            Side::Guest => Group::Second,
        }
    }

    /// Whose receive buffers for trains of datagrams.
    #[inline]
    pub(crate) const fn datagrams_group(self) -> Group {
        match self {
            Side::Host => Group::Datagrams,
            Side::Guest => Group::SecondDatagrams,
        }
    }

    /// Of a mark that travelled with mail.
    #[inline]
    pub(crate) const fn of(mark: u32) -> Side {
        if mark == Side::Host as u32 { Side::Host } else { Side::Guest }
    }
}

/// One for each side.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Each<T>(pub(crate) [T; 2]);

impl<T> std::ops::Index<Side> for Each<T> {
    type Output = T;

    #[inline]
    fn index(&self, side: Side) -> &T {
        &self.0[side as usize]
    }
}

impl<T> std::ops::IndexMut<Side> for Each<T> {
    #[inline]
    fn index_mut(&mut self, side: Side) -> &mut T {
        &mut self.0[side as usize]
    }
}

/// What a guest has of each shard for itself.
#[derive(Clone, Debug)]
pub struct Room {
    /// Addresses that all shards share, each with the number by which the guest knows it
    /// ([`crate::ListenerKind::Extra`]). Port 0: a free one.
    pub doors: Vec<(u16, SocketAddr)>,
    /// Its receive buffers.
    pub buffers: Buffers,
    /// Connections that it may have.
    pub connections_max: usize,
    /// Bytes of out buffers that are kept for it to use again.
    pub spare_buffers_max: usize,
    /// Bytes of the largest of those.
    pub spare_buffer_bytes_max: usize,
}

/// Makes the service of a shard, on the shard's own thread.
pub type Make<S> = Box<dyn Fn(ShardContext) -> S + Send + Sync>;

/// Who moves in: see [`crate::Runtime::start_pair`].
pub struct Guest<G> {
    /// What it has for itself.
    pub room: Room,
    /// Makes it.
    pub make: Make<G>,
}

impl<G> fmt::Debug for Guest<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.room.fmt(f)
    }
}

/// A guest's part of shards that run.
#[derive(Debug)]
pub struct Lodged {
    /// Its control plane's mailbox.
    pub control: ControlPort,
    /// Where it listens, in the order of [`Room::doors`].
    pub addresses: Vec<SocketAddr>,
}

/// Both, as one service. See the module.
#[derive(Debug)]
pub(crate) struct Pair<H, G> {
    host: H,
    guest: G,
    /// Something came for the guest since its last turn, or it asked for another.
    stirred: bool,
    /// When it is to have a turn unless something comes: as it said after its last one.
    guest_wakes: Option<Moment>,
}

impl<H: Service, G: Service> Pair<H, G> {
    pub(crate) fn new(host: H, guest: G) -> Self {
        Self { host, guest, stirred: true, guest_wakes: None }
    }

    #[inline]
    fn guest(&mut self) -> &mut G {
        self.stirred = true;
        &mut self.guest
    }
}

impl<H: Service, G: Service> Service for Pair<H, G> {
    fn opened(&mut self, now: Moment, conn: ConnId, peer: Peer, io: &mut Io<'_>) {
        match io.side() {
            Side::Host => self.host.opened(now, conn, peer, io),
            Side::Guest => self.guest().opened(now, conn, peer, io),
        }
    }

    fn connected(&mut self, now: Moment, conn: ConnId, result: Result<(), Errno>, io: &mut Io<'_>) {
        match io.side() {
            Side::Host => self.host.connected(now, conn, result, io),
            Side::Guest => self.guest().connected(now, conn, result, io),
        }
    }

    fn adopted(
        &mut self,
        now: Moment,
        conn: ConnId,
        peer: SocketAddr,
        note: &[u8],
        io: &mut Io<'_>,
    ) {
        match io.side() {
            Side::Host => self.host.adopted(now, conn, peer, note, io),
            Side::Guest => self.guest().adopted(now, conn, peer, note, io),
        }
    }

    #[inline]
    fn received(&mut self, now: Moment, conn: ConnId, bytes: &mut [u8], io: &mut Io<'_>) {
        match io.side() {
            Side::Host => self.host.received(now, conn, bytes, io),
            Side::Guest => self.guest().received(now, conn, bytes, io),
        }
    }

    fn ended(&mut self, now: Moment, conn: ConnId, io: &mut Io<'_>) {
        match io.side() {
            Side::Host => self.host.ended(now, conn, io),
            Side::Guest => self.guest().ended(now, conn, io),
        }
    }

    fn closed(&mut self, now: Moment, conn: ConnId, io: &mut Io<'_>) {
        match io.side() {
            Side::Host => self.host.closed(now, conn, io),
            Side::Guest => self.guest().closed(now, conn, io),
        }
    }

    fn drained(&mut self, now: Moment, conn: ConnId, io: &mut Io<'_>) {
        match io.side() {
            Side::Host => self.host.drained(now, conn, io),
            Side::Guest => self.guest().drained(now, conn, io),
        }
    }

    fn overdue(&mut self, now: Moment, conn: ConnId, io: &mut Io<'_>) {
        match io.side() {
            Side::Host => self.host.overdue(now, conn, io),
            Side::Guest => self.guest().overdue(now, conn, io),
        }
    }

    #[inline]
    fn datagrams(&mut self, now: Moment, socket: SocketId, train: Datagrams<'_>, io: &mut Io<'_>) {
        match io.side() {
            Side::Host => self.host.datagrams(now, socket, train, io),
            Side::Guest => self.guest().datagrams(now, socket, train, io),
        }
    }

    fn unsent(&mut self, now: Moment, socket: SocketId, what: Unsent, io: &mut Io<'_>) {
        match io.side() {
            Side::Host => self.host.unsent(now, socket, what, io),
            Side::Guest => self.guest().unsent(now, socket, what, io),
        }
    }

    fn datagrams_drained(&mut self, now: Moment, socket: SocketId, io: &mut Io<'_>) {
        match io.side() {
            Side::Host => self.host.datagrams_drained(now, socket, io),
            Side::Guest => self.guest().datagrams_drained(now, socket, io),
        }
    }

    #[inline]
    fn mail(&mut self, now: Moment, from: ShardId, message: &[u8], io: &mut Io<'_>) {
        match io.side() {
            Side::Host => self.host.mail(now, from, message, io),
            Side::Guest => self.guest().mail(now, from, message, io),
        }
    }

    fn turn(&mut self, now: Moment, io: &mut Io<'_>) {
        self.host.turn(now, io);
        if self.stirred || self.guest_wakes.is_some_and(|at| at <= now) {
            self.guest.turn(now, &mut io.for_guest());
            self.guest_wakes = self.guest.wake_at();
            self.stirred = io.guest_wants_a_turn();
        }
    }

    fn wake_at(&self) -> Option<Moment> {
        // What came after its turn may have changed its mind.
        let guest = if self.stirred { self.guest.wake_at() } else { self.guest_wakes };
        self.host.wake_at().into_iter().chain(guest).min()
    }

    fn stop(&mut self, now: Moment, io: &mut Io<'_>) {
        self.host.stop(now, io);
        self.guest().stop(now, &mut io.for_guest());
    }

    fn may_stop(&self) -> bool {
        self.host.may_stop() && self.guest.may_stop()
    }
}
