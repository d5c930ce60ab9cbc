//! What a service can do during a call: append, pause, close, connect, give away, post. The shard
//! acts on all of it at the end of the turn. Nothing here enters the kernel but what happens once
//! in the life of a connection at most: making a socket, tuning it, asking for its peer.

mod datagrams;

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};

use ringway_core::{ConnId, Moment, ShardId, Span, limits};
use ringway_ring::Errno;
use ringway_ring::net::{self, TcpPath, Tuning};

use crate::conns::{Conns, Flags, place_of, side_of};
use crate::office::Outgoing;
use crate::pair::{Each, Side};
use crate::parcels::Leaving;
use crate::pool::Pool;
use crate::service::{Close, NoSocket};
use crate::sockets::Sockets;
use crate::timers::{Due, Timers};

/// What the shard and the service's calls share.
#[derive(Debug)]
pub(crate) struct IoState {
    pub(crate) shards: usize,
    pub(crate) conns: Conns,
    pub(crate) sockets: Sockets,
    pub(crate) pools: Each<Pool>,
    pub(crate) outgoing: Outgoing,
    pub(crate) timers: Timers,
    /// When the present turn began.
    pub(crate) now: Moment,
    /// Bytes of memory of the out buffers of each side's connections: the sum of what those are
    /// charged.
    pub(crate) buffered: Each<usize>,
    /// Bytes of mail that waited for room when the last turn ended.
    pub(crate) mail_waiting: usize,
    /// The connection that was appended to last, which may have grown since it was charged.
    pub(crate) writing: Option<ConnId>,
    /// Connections to settle at the end of the turn, each once.
    pub(crate) dirty: Vec<u32>,
    /// Connections that wait for a receive buffer, each once, in the order in which they came:
    /// those that did not fill the last one, and those that did.
    pub(crate) thirsty: Each<[VecDeque<u32>; 2]>,
    /// Connections that end now.
    pub(crate) ending: Vec<u32>,
    /// Connections that were made in this turn, and where to.
    pub(crate) connects: Vec<(u32, SocketAddr)>,
    /// Connections that go to other shards and that the kernel has not let go of. Few: they are
    /// looked for one by one.
    pub(crate) leaving: Vec<Leaving>,
    /// Doors to open and to shut at the end of the turn.
    pub(crate) door_wishes: Vec<DoorWish>,
    /// Do not sleep after this turn.
    pub(crate) again: bool,
    /// The guest wants another turn.
    pub(crate) guest_again: bool,
    /// Where bytes for nobody go.
    pub(crate) scratch: Vec<u8>,
}

/// What is to become of a door.
#[derive(Debug)]
pub(crate) enum DoorWish {
    /// Open this one for a side, under this number.
    Open(TcpListener, Side, u16),
    /// Shut all of a side with this number.
    Shut(Side, u16),
}

impl IoState {
    #[inline]
    pub(crate) fn touch(&mut self, index: u32) {
        let conn = self.conns.get_mut(index);
        if !conn.flags.has(Flags::DIRTY) {
            conn.flags.set(Flags::DIRTY);
            self.dirty.push(index);
        }
    }

    /// A connection waits until it is its turn for a receive buffer.
    pub(crate) fn queue_for_buffer(&mut self, index: u32) {
        let conn = self.conns.get_mut(index);
        if !conn.flags.has(Flags::THIRSTY) {
            conn.flags.set(Flags::THIRSTY);
            self.thirsty[side_of(index)][usize::from(conn.flags.has(Flags::GREEDY))]
                .push_back(index);
        }
    }

    /// Whether a side's receive buffers are short.
    #[inline]
    pub(crate) fn anybody_thirsty(&self, side: Side) -> bool {
        self.thirsty[side].iter().any(|queue| !queue.is_empty())
    }

    /// Counts the memory of a connection's buffers, after they may have changed.
    #[inline]
    pub(crate) fn charge(&mut self, index: u32) {
        let conn = self.conns.get_mut(index);
        if conn.flags.has(Flags::DYING) {
            return;
        }
        let holds = conn.sending + conn.out.capacity() as u32;
        let before = std::mem::replace(&mut conn.charged, holds);
        let buffered = &mut self.buffered[side_of(index)];
        *buffered = *buffered + holds as usize - before as usize;
    }

    /// Counts the connection that was appended to last.
    #[inline]
    fn charge_writing(&mut self) {
        if let Some(writing) = self.writing.take()
            && self.conns.open(writing).is_some()
        {
            self.charge(writing.index);
        }
    }

    /// Counts a connection's buffers as given back: they go as soon as the kernel lets go of them.
    pub(crate) fn uncharge(&mut self, index: u32) {
        let conn = self.conns.get_mut(index);
        self.buffered[side_of(index)] -= std::mem::take(&mut conn.charged) as usize;
    }

    /// A connection is to be closed without another word.
    pub(crate) fn doom(&mut self, index: u32) {
        let conn = self.conns.get_mut(index);
        conn.flags.set(Flags::DYING);
        let out = std::mem::take(&mut conn.out);
        self.pools[side_of(index)].give(out);
        self.uncharge(index);
    }

    #[inline]
    pub(crate) fn io(&mut self, side: Side) -> Io<'_> {
        Io { state: self, side }
    }
}

/// A connection to which nothing more can be appended.
const MUTE: Flags = Flags::FLUSHING.or(Flags::DYING).or(Flags::FINISHING);

/// The hands of a service. An id of a connection that is gone is ignored in every call.
#[derive(Debug)]
pub struct Io<'a> {
    state: &'a mut IoState,
    /// On whose behalf.
    side: Side,
}

impl Io<'_> {
    /// Whose connection or mail this call is about.
    #[inline]
    pub(crate) fn side(&self) -> Side {
        self.side
    }

    /// The same hands for the guest.
    #[inline]
    pub(crate) fn for_guest(&mut self) -> Io<'_> {
        self.state.io(Side::Guest)
    }

    /// Whether the guest has asked for another turn since this was asked.
    #[inline]
    pub(crate) fn guest_wants_a_turn(&mut self) -> bool {
        std::mem::take(&mut self.state.guest_again)
    }

    /// What is to be sent to a connection: append. It leaves at the end of the turn in one send.
    /// For a connection that is gone, closing or finished this is a buffer that nobody reads.
    #[inline]
    pub fn out(&mut self, conn: ConnId) -> &mut Vec<u8> {
        let conn = place_of(conn, self.side);
        let state = &mut *self.state;
        if state.writing != Some(conn) {
            state.charge_writing();
        }
        match state.conns.open_mut(conn) {
            Some(found) if !found.flags.has(MUTE) => {
                state.writing = Some(conn);
                if found.out.capacity() == 0 {
                    found.out = state.pools[side_of(conn.index)].take();
                }
                if !found.flags.has(Flags::DIRTY) {
                    found.flags.set(Flags::DIRTY);
                    state.dirty.push(conn.index);
                }
                &mut found.out
            }
            _ => {
                state.scratch.clear();
                state.scratch.shrink_to(SCRATCH_KEPT_BYTES);
                &mut state.scratch
            }
        }
    }

    /// Bytes for this connection that the kernel has not taken; zero for one that is gone.
    #[inline]
    pub fn backlog(&self, conn: ConnId) -> usize {
        let conn = place_of(conn, self.side);
        self.state.conns.open(conn).map_or(0, |found| found.backlog())
    }

    /// Bytes of memory that are kept for sending: out buffers of this service's connections, trains
    /// of its datagrams, buffers that wait to be used again, and mail that found a full mailbox.
    pub fn buffered(&mut self) -> usize {
        self.state.charge_writing();
        let state = &self.state;
        let datagrams = state.sockets.buffered(self.side);
        state.buffered[self.side] + state.pools[self.side].bytes() + state.mail_waiting + datagrams
    }

    /// Bytes of memory of one connection's out buffers; zero for one that is gone.
    pub fn buffered_for(&self, conn: ConnId) -> usize {
        let conn = place_of(conn, self.side);
        self.state.conns.open(conn).map_or(0, |found| found.charged as usize)
    }

    /// Gives back the buffers that wait to be used again.
    pub fn release_spare(&mut self) {
        self.state.pools[self.side].release();
        self.state.sockets.pools[self.side].release();
    }

    /// Begins a connection; [`crate::Service::connected`] tells whether there is one. What is
    /// appended before that waits. The kernel gives up after minutes: [`Self::call_overdue`] bounds
    /// it, and that time ends with the connect. Closing it before, in whichever way, cancels it.
    ///
    /// # Errors
    /// When there is no socket for it: then nothing was begun, and nothing follows.
    pub fn connect(&mut self, to: SocketAddr) -> Result<ConnId, NoSocket> {
        let socket = net::socket_for(to).map_err(NoSocket::Host)?;
        let index = self.state.conns.insert(socket, self.side).map_err(|_| NoSocket::Full)?;
        let conn = self.state.conns.get_mut(index);
        conn.flags.set(Flags::CONNECTING);
        let id = conn.id(index);
        self.state.connects.push((index, to));
        Ok(id)
    }

    /// Closes our end as soon as everything appended so far is sent; nothing can be appended any
    /// more. Receiving goes on, until [`crate::Service::ended`] and for as long as the peer likes.
    pub fn finish(&mut self, conn: ConnId) {
        let conn = place_of(conn, self.side);
        if let Some(found) = self.state.conns.open_mut(conn) {
            found.flags.set(Flags::FINISHING);
            self.state.touch(conn.index);
        }
    }

    /// Gives a connection to a shard of this process (this one, too), which hears
    /// [`crate::Service::adopted`]. Its id is dead from this call on, and this service hears
    /// nothing more of it. No byte is lost or doubled, and all stay in order: what was appended and
    /// not sent goes along, and so does what arrives before the kernel lets go of it. Its pause,
    /// its time ([`Self::call_overdue`]) and its mark ([`Self::await_drain`]) do not.
    ///
    /// This is for rare occasions: it takes a turn or two, a lock, and a wake-up. Mail does not
    /// keep its order with it. If the other shard has no room the connection is reset, and counted
    /// in `accepts_refused`. A connection whose peer is gone is not given; it is closed, and this
    /// service hears so. One that is closing stays.
    ///
    /// # Panics
    /// If the note is longer than `GIVE_NOTE_BYTES_MAX`, if there is no such shard, or if the
    /// connection is not connected yet.
    pub fn give(&mut self, conn: ConnId, to: ShardId, note: &[u8]) {
        let conn = place_of(conn, self.side);
        let len = note.len();
        assert!(len <= limits::GIVE_NOTE_BYTES_MAX, "a note of {len} bytes");
        assert!(to.index() < self.state.shards, "there is no shard {to}");
        let Some(found) = self.state.conns.open_mut(conn) else { return };
        assert!(!found.flags.has(Flags::CONNECTING), "{conn:?} is not connected yet");
        if found.flags.has(Flags::FLUSHING.or(Flags::DYING)) {
            return;
        }
        let Some(Ok(peer)) = found.socket.as_ref().map(|socket| socket.peer_addr()) else {
            return self.close(conn, Close::Now);
        };
        self.state.timers.cancel(found.deadline.take());
        found.flags.clear(Flags::OPEN.or(Flags::HIGH).or(Flags::PAUSED));
        found.flags.set(Flags::LEAVING);
        found.generation = found.generation.wrapping_add(1);
        self.state.leaving.push(Leaving::new(conn.index, to, peer, note));
        self.state.touch(conn.index);
    }

    /// Tunes a connection, in one system call for each wish. Right after [`Self::connect`] it takes
    /// effect before the peer hears of us. `false`: all is as wished but the congestion control,
    /// which the kernel has not got, or not for this user.
    ///
    /// # Errors
    /// When the kernel does not know an option. For a connection that is gone nothing happens.
    pub fn tune(&mut self, conn: ConnId, tuning: Tuning) -> Result<bool, Errno> {
        let conn = place_of(conn, self.side);
        let socket = self.state.conns.open(conn).and_then(|found| found.socket.as_ref());
        socket.map_or(Ok(true), |socket| net::tune(socket, tuning))
    }

    /// What the kernel knows of a TCP connection's path, by one system call: in
    /// [`crate::Service::opened`] and [`crate::Service::connected`], of the handshake. `None` if
    /// nothing is known, or the connection gone.
    pub fn tcp_path(&self, conn: ConnId) -> Option<TcpPath> {
        let conn = place_of(conn, self.side);
        let socket = self.state.conns.open(conn).and_then(|found| found.socket.as_ref());
        socket.and_then(net::tcp_path)
    }

    /// Accepts connections of one more listening socket, from the end of this turn on. They are
    /// this service's, and told apart by [`crate::ListenerKind::Extra`] with this number, which
    /// several doors may share. How many there may be is a matter of descriptors.
    pub fn add_door(&mut self, listener: TcpListener, number: u16) {
        self.state.door_wishes.push(DoorWish::Open(listener, self.side, number));
    }

    /// Shuts this shard's doors with this number at the end of this turn, those given at the start
    /// included. Connections that came in by them stay; those that nobody was told of are closed.
    /// What was said last counts: a door that is added after this call stays.
    pub fn remove_door(&mut self, number: u16) {
        self.state.door_wishes.push(DoorWish::Shut(self.side, number));
    }

    /// Calls [`crate::Service::drained`] once what waits for this connection has fallen below so
    /// many bytes by a send that ends: whole KiB, at least one and less than 64 MiB. Something must
    /// wait, or be appended in this turn. Another call replaces it.
    pub fn await_drain(&mut self, conn: ConnId, below: usize) {
        let conn = place_of(conn, self.side);
        if let Some(found) = self.state.conns.open_mut(conn) {
            found.flags.set(Flags::HIGH);
            found.low_kib = (below / 1024).clamp(1, usize::from(u16::MAX)) as u16;
            self.state.touch(conn.index);
        }
    }

    /// Calls [`crate::Service::overdue`] after so long, once, unless the connection is closed
    /// before. Another call replaces it.
    pub fn call_overdue(&mut self, conn: ConnId, after: Span) {
        let conn = place_of(conn, self.side);
        let silent = Flags::FLUSHING.or(Flags::DYING);
        let state = &mut *self.state;
        if let Some(found) = state.conns.open_mut(conn).filter(|found| !found.flags.has(silent)) {
            state.timers.cancel(found.deadline.take());
            found.deadline = Some(state.timers.add(state.now + after, Due::Conn(conn.index)));
        }
    }

    /// Stops reading from a connection. Bytes that were taken already still arrive.
    pub fn pause(&mut self, conn: ConnId) {
        let conn = place_of(conn, self.side);
        if let Some(found) = self.state.conns.open_mut(conn) {
            found.flags.set(Flags::PAUSED);
            self.state.touch(conn.index);
        }
    }

    /// Reads on.
    pub fn resume(&mut self, conn: ConnId) {
        let conn = place_of(conn, self.side);
        if let Some(found) = self.state.conns.open_mut(conn) {
            found.flags.clear(Flags::PAUSED);
            self.state.touch(conn.index);
        }
    }

    /// Closes a connection; [`crate::Service::closed`] follows, never during this call.
    pub fn close(&mut self, conn: ConnId, how: Close) {
        let conn = place_of(conn, self.side);
        let Some(found) = self.state.conns.open_mut(conn) else { return };
        if found.flags.has(Flags::DYING) {
            return;
        }
        match how {
            // What is not connected has nothing to flush to.
            Close::AfterFlush if !found.flags.has(Flags::CONNECTING) => {
                if !found.flags.has(Flags::FLUSHING) {
                    // Its time is now for flushing.
                    self.state.timers.cancel(found.deadline.take());
                    found.flags.set(Flags::FLUSHING);
                    self.state.touch(conn.index);
                }
            }
            Close::AfterFlush | Close::Now | Close::Reset => {
                if how == Close::Reset {
                    found.flags.set(Flags::RESET);
                }
                self.state.doom(conn.index);
                self.state.ending.push(conn.index);
            }
        }
    }

    /// Sends a message to this service on another shard, or to its control plane. Messages from
    /// here to there keep their order; none is lost. What does not fit into the mailbox waits in
    /// memory: the service bounds it.
    ///
    /// # Panics
    /// If the message is longer than `MAIL_BYTES_MAX` or there is no such endpoint.
    #[inline]
    pub fn post(&mut self, to: ShardId, message: &[u8]) {
        self.state.outgoing.post(to, self.side, message);
    }

    /// Makes another turn follow at once.
    #[inline]
    pub fn again(&mut self) {
        self.state.again = true;
        self.state.guest_again |= self.side == Side::Guest;
    }

    /// This shard.
    #[inline]
    pub fn shard(&self) -> ShardId {
        self.state.outgoing.me()
    }

    /// How many shards there are.
    #[inline]
    pub fn shards(&self) -> usize {
        self.state.shards
    }
}

/// The buffer for nobody keeps this much memory.
const SCRATCH_KEPT_BYTES: usize = 64 * 1024;
