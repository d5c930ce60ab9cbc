//! The connections of one shard, by index: those of the host and those of the guest.
//!
//! What a connection costs while it is idle is [`CONN_BYTES`] here, and nothing else in this
//! process: its receive waits in the kernel without a buffer, its out buffer is in the pool.
//! The table grows by a block of 1024, so that the hundred-thousandth connection does not wait
//! for the others to be copied.
//!
//! Always: an index is reused only after every request of its connection has ended, so that a
//! completion always finds the connection it belongs to. A generation changes when the service
//! has been told that the connection is gone, so that a late answer finds nobody.

use std::net::TcpStream;

use ringway_core::wheel::TimerKey;
use ringway_core::{ConnId, limits};

use crate::pair::{Each, Side};

/// Bytes of the runtime per connection: its record, and its entry in the list of free ones.
pub const CONN_BYTES: usize = size_of::<Conn>() + size_of::<u32>();

const _: () = assert!(CONN_BYTES <= 72, "a connection has become expensive");

/// Connections of one block.
const BLOCK: usize = 1024;
/// No send is in flight.
pub(crate) const NO_SEND: u32 = u32::MAX;

/// Facts about a connection, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u32);

impl Flags {
    /// The service knows it.
    pub(crate) const OPEN: Flags = Flags(1);
    /// A receive is in flight.
    pub(crate) const ARMED: Flags = Flags(1 << 1);
    /// Its cancellation is on its way.
    pub(crate) const CANCELLING: Flags = Flags(1 << 2);
    /// The service does not want to receive.
    pub(crate) const PAUSED: Flags = Flags(1 << 3);
    /// The peer will send nothing more.
    pub(crate) const ENDED: Flags = Flags(1 << 4);
    /// To be closed when everything is sent.
    pub(crate) const FLUSHING: Flags = Flags(1 << 5);
    /// Our end is closed; waiting for the peer's.
    pub(crate) const LINGERING: Flags = Flags(1 << 6);
    /// To be closed as soon as the kernel has let go of everything.
    pub(crate) const DYING: Flags = Flags(1 << 7);
    /// The backlog has exceeded its high mark and not yet fallen below the low one.
    pub(crate) const HIGH: Flags = Flags(1 << 8);
    /// In the list of connections to settle.
    pub(crate) const DIRTY: Flags = Flags(1 << 9);
    /// The send in flight was told to end.
    pub(crate) const SEND_CANCELLED: Flags = Flags(1 << 10);

    /// The send in flight is a patient one, which tells of its end.
    pub(crate) const PATIENT: Flags = Flags(1 << 11);
    /// It was to be closed and sent more than we discard.
    pub(crate) const DEAF: Flags = Flags(1 << 12);
    /// In the queue of those that wait for a receive buffer. Stays with the index when the
    /// connection goes, so that an index stands there once.
    pub(crate) const THIRSTY: Flags = Flags(1 << 13);
    /// It filled the last receive buffer that it got.
    pub(crate) const GREEDY: Flags = Flags(1 << 14);
    /// Its connect has not ended: until then the number of its send is that of its connect.
    pub(crate) const CONNECTING: Flags = Flags(1 << 15);
    /// Our end is to be closed when everything is sent.
    pub(crate) const FINISHING: Flags = Flags(1 << 16);
    /// It is.
    pub(crate) const FINISHED: Flags = Flags(1 << 17);
    /// To be closed by a reset.
    pub(crate) const RESET: Flags = Flags(1 << 18);
    /// On its way to another shard, as soon as the kernel has let go of everything.
    pub(crate) const LEAVING: Flags = Flags(1 << 19);

    #[inline]
    pub(crate) const fn has(self, any: Flags) -> bool {
        self.0 & any.0 != 0
    }

    /// Whether a connection is to be read. Who is being closed is read, and what it says discarded,
    /// whether paused or not: a peer that waits for room before it reads would never read our last
    /// words. But not for ever.
    pub(crate) const fn may_receive(self) -> bool {
        let closing = self.has(Flags::FLUSHING.or(Flags::LINGERING));
        let deaf = Flags::ENDED.or(Flags::DYING).or(Flags::DEAF);
        !self.has(deaf.or(Flags::CONNECTING).or(Flags::LEAVING))
            && (closing || !self.has(Flags::PAUSED))
    }

    #[inline]
    pub(crate) fn set(&mut self, more: Flags) {
        self.0 |= more.0;
    }

    #[inline]
    pub(crate) fn clear(&mut self, fewer: Flags) {
        self.0 &= !fewer.0;
    }

    /// Clears everything else.
    #[inline]
    pub(crate) fn keep(&mut self, these: Flags) {
        self.0 &= these.0;
    }

    pub(crate) const fn or(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    /// `None`: the index is free.
    pub(crate) socket: Option<TcpStream>,
    pub(crate) generation: u32,
    /// The ring's number of the send in flight, or [`NO_SEND`].
    pub(crate) send: u32,
    pub(crate) flags: Flags,
    /// KiB that were discarded since it was to be closed.
    pub(crate) discarded_kib: u16,
    /// KiB below which its backlog is to fall, while it has [`Flags::HIGH`].
    pub(crate) low_kib: u16,
    /// Bytes of the buffer in flight that the kernel has not taken.
    pub(crate) unsent: u32,
    /// Bytes of memory of the buffer in flight.
    pub(crate) sending: u32,
    /// Bytes of memory of both buffers that it was last counted with; zero once it is dying.
    pub(crate) charged: u32,
    /// What is to be sent after that.
    pub(crate) out: Vec<u8>,
    /// Ends a flush or a linger that takes too long, or calls its service.
    pub(crate) deadline: Option<TimerKey>,
}

impl Conn {
    fn vacant() -> Conn {
        Conn {
            socket: None,
            generation: 0,
            send: NO_SEND,
            flags: Flags::default(),
            discarded_kib: 0,
            low_kib: 0,
            unsent: 0,
            sending: 0,
            charged: 0,
            out: Vec::new(),
            deadline: None,
        }
    }

    /// As its service knows it.
    #[inline]
    pub(crate) fn id(&self, index: u32) -> ConnId {
        ConnId { index: index & !GUEST, generation: self.generation }
    }

    /// Bytes that wait for the peer to read.
    #[inline]
    pub(crate) fn backlog(&self) -> usize {
        self.unsent as usize + self.out.len()
    }

    /// By how much the backlog has to shrink before the service is told; zero if it is not to be.
    #[inline]
    pub(crate) fn above_low(&self) -> usize {
        let low = usize::from(self.low_kib) * 1024;
        if self.flags.has(Flags::HIGH) { (self.backlog() + 1).saturating_sub(low) } else { 0 }
    }
}

/// The table: one for each side, so that a service's numbers are as dense as its connections.
#[derive(Debug)]
pub(crate) struct Conns {
    tables: Each<Table>,
}

/// One side's.
#[derive(Debug)]
struct Table {
    blocks: Vec<Box<[Conn]>>,
    free: Vec<u32>,
    max: usize,
}

/// In an index: whose it is. Ids that services have are without.
pub(crate) const GUEST: u32 = 1 << 31;

const _: () = assert!(limits::CONNS_PER_SHARD_MAX <= GUEST as usize);

/// Whose the connection at an index is.
#[inline]
pub(crate) const fn side_of(index: u32) -> Side {
    if index & GUEST == 0 { Side::Host } else { Side::Guest }
}

/// An id of a service's as it is here.
#[inline]
pub(crate) const fn place_of(id: ConnId, side: Side) -> ConnId {
    ConnId { index: id.index | (side as u32) << 31, generation: id.generation }
}

impl Table {
    fn add_block(&mut self) -> bool {
        let first: usize = self.blocks.iter().map(|block| block.len()).sum();
        let count = BLOCK.min(self.max.saturating_sub(first));
        if count == 0 {
            return false;
        }
        self.blocks.push((0..count).map(|_| Conn::vacant()).collect());
        self.free.extend((first..first + count).rev().map(|index| index as u32));
        true
    }
}

impl Conns {
    /// Empty tables for at most `max` connections of each side.
    pub(crate) fn new(max: Each<usize>) -> Conns {
        let table = |max: usize| {
            let max = max.min(limits::CONNS_PER_SHARD_MAX);
            Table { blocks: Vec::new(), free: Vec::new(), max }
        };
        Conns { tables: Each(max.0.map(table)) }
    }

    /// A new connection of a side; gives the socket back if that has too many.
    pub(crate) fn insert(&mut self, socket: TcpStream, side: Side) -> Result<u32, TcpStream> {
        let table = &mut self.tables[side];
        if table.free.is_empty() && !table.add_block() {
            return Err(socket);
        }
        let Some(index) = table.free.pop() else { return Err(socket) };
        let index = index | (side as u32) << 31;
        let conn = self.get_mut(index);
        conn.socket = Some(socket);
        conn.flags.set(Flags::OPEN);
        Ok(index)
    }

    /// Frees an index whose connection has nothing in flight.
    pub(crate) fn release(&mut self, index: u32) -> Option<TcpStream> {
        let conn = self.get_mut(index);
        debug_assert!(conn.send == NO_SEND && !conn.flags.has(Flags::ARMED.or(Flags::OPEN)));
        conn.flags.keep(Flags::THIRSTY);
        conn.discarded_kib = 0;
        conn.unsent = 0;
        debug_assert!(conn.charged == 0 && conn.sending == 0, "what it held was given back");
        let socket = conn.socket.take();
        self.tables[side_of(index)].free.push(index & !GUEST);
        socket
    }

    /// The connection at an index that was given out.
    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> &mut Conn {
        let at = (index & !GUEST) as usize;
        &mut self.tables[side_of(index)].blocks[at / BLOCK][at % BLOCK]
    }

    /// The connection of an id, if the service still has it.
    #[inline]
    pub(crate) fn open_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        let at = (id.index & !GUEST) as usize;
        let block = self.tables[side_of(id.index)].blocks.get_mut(at / BLOCK)?;
        let conn = block.get_mut(at % BLOCK)?;
        (conn.generation == id.generation && conn.flags.has(Flags::OPEN)).then_some(conn)
    }

    /// As [`Self::open_mut`], to be read.
    #[inline]
    pub(crate) fn open(&self, id: ConnId) -> Option<&Conn> {
        let at = (id.index & !GUEST) as usize;
        let conn = self.tables[side_of(id.index)].blocks.get(at / BLOCK)?.get(at % BLOCK)?;
        (conn.generation == id.generation && conn.flags.has(Flags::OPEN)).then_some(conn)
    }

    /// All sockets, for the end.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = &TcpStream> {
        let blocks = self.tables.0.iter().flat_map(|table| &table.blocks);
        blocks.flatten().filter_map(|conn| conn.socket.as_ref())
    }
}
