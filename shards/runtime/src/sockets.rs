//! The UDP sockets of one shard, by index: those of the host and those of the guest.
//!
//! There are few of them, each for many peers. What a service sends is appended as trains; at the
//! end of the turn all of them go to the kernel, which takes them at once, unless the socket has no
//! room. Then they wait here, in order, until it has.
//!
//! Always: an index is reused only after every request of its socket has ended. A generation
//! changes when the service closes the socket, so that what is about the old one finds nobody.
//!
//! Bounds: `SOCKETS_PER_SHARD_MAX` sockets of each side, `BACKLOG_MAX` bytes for each and one train
//! more. Not here: what happens in a turn (`shard/datagrams.rs`). Tests: `tests/datagrams.rs`.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use ringway_core::limits::datagrams::{SOCKETS_PER_SHARD_MAX, SPARE_BYTES_MAX};
use ringway_ring::{Cut, DatagramSocket, Ecn, Errno, Towards, Train};

use crate::conns::{GUEST, side_of};
use crate::pair::{Each, Side};
use crate::pool::Pool;

/// A UDP socket of a service on one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId {
    /// Its place.
    pub index: u32,
    /// Which of those that had it.
    pub generation: u32,
}

/// Datagrams of one length that arrived together, all of one sender.
#[derive(Debug)]
pub struct Datagrams<'a> {
    /// Who sent them. An address of version 4 is one, also where the socket is of version 6.
    pub from: SocketAddr,
    /// At which of the host's addresses they arrived; [`Towards::from`] answers from there.
    pub to: Option<IpAddr>,
    /// Their ECN bits, all the same.
    pub ecn: Ecn,
    /// Bytes of each but the last, which may have fewer. Never zero.
    pub segment_bytes: usize,
    /// How often the kernel has dropped at this socket for want of room since the service was last
    /// told. What it had put together counts as one.
    pub kernel_drops: u32,
    /// All of them, one after the other. They stand in the buffer that the kernel filled, which is
    /// the service's during the call: it may decrypt them where they are.
    pub bytes: &'a mut [u8],
}

/// Datagrams of a train that did not leave the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// To whom they were.
    pub to: SocketAddr,
    /// Bytes of each but the last of its train.
    pub segment_bytes: usize,
    /// How many.
    pub datagrams: usize,
    /// Why: [`Errno::TOO_LONG`] if they were longer than the way allows.
    pub why: Errno,
}

/// One socket.
#[derive(Debug)]
pub(crate) struct Socket {
    /// `None`: the index is free.
    pub(crate) socket: Option<DatagramSocket>,
    generation: u32,
    /// The service knows it.
    pub(crate) open: bool,
    /// In the list of sockets to settle.
    pub(crate) dirty: bool,
    /// The ring's number of the receive in flight.
    pub(crate) receive: Option<u32>,
    /// Its cancellation is on its way.
    pub(crate) cancelling: bool,
    /// In the queue of those that wait for a receive buffer.
    pub(crate) thirsty: bool,
    /// Something arrived by the receive in flight, or the last one.
    pub(crate) fed: bool,
    /// It has no room: what is to be sent waits.
    pub(crate) full: bool,
    /// And is asked to tell when it has.
    pub(crate) awaits_room: bool,
    /// And was told that nobody waits for that any more.
    pub(crate) cancelling_room: bool,
    /// The kernel cuts its trains.
    pub(crate) cut: Cut,
    /// Drops that the service was told of.
    pub(crate) drops: u32,
    /// What the service appended in this turn.
    pub(crate) fresh: Vec<Train>,
    /// Bytes of those but the last, which may still grow.
    pub(crate) fresh_bytes: usize,
    /// What comes before that.
    pub(crate) waiting: VecDeque<Train>,
    /// Bytes of those.
    pub(crate) waiting_bytes: usize,
    /// Trains that the ring has.
    pub(crate) in_ring: u32,
    /// Bytes of those.
    pub(crate) in_ring_bytes: usize,
    /// Below how many bytes the service is to be told.
    pub(crate) mark: Option<usize>,
}

impl Socket {
    fn vacant() -> Socket {
        Socket {
            socket: None,
            generation: 0,
            open: false,
            dirty: false,
            receive: None,
            cancelling: false,
            thirsty: false,
            fed: false,
            full: false,
            awaits_room: false,
            cancelling_room: false,
            cut: Cut::Here,
            drops: 0,
            fresh: Vec::new(),
            fresh_bytes: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            in_ring: 0,
            in_ring_bytes: 0,
            mark: None,
        }
    }

    /// As its service knows it.
    #[inline]
    pub(crate) fn id(&self, index: u32) -> SocketId {
        SocketId { index: index & !GUEST, generation: self.generation }
    }

    /// Bytes that have not left.
    #[inline]
    pub(crate) fn backlog(&self) -> usize {
        let growing = self.fresh.last().map_or(0, |train| train.bytes.len());
        self.fresh_bytes + growing + self.waiting_bytes + self.in_ring_bytes
    }

    /// Begins a train behind the others.
    pub(crate) fn append(&mut self, towards: Towards, bytes: Vec<u8>) -> &mut Vec<u8> {
        self.fresh_bytes += self.fresh.last().map_or(0, |train| train.bytes.len());
        self.fresh.push(Train { towards, bytes, cut: self.cut });
        let last = self.fresh.len() - 1;
        &mut self.fresh[last].bytes
    }

    /// The service wants no more of it.
    pub(crate) fn close(&mut self) {
        self.open = false;
        self.mark = None;
        self.generation = self.generation.wrapping_add(1);
    }
}

/// The table: one for each side.
#[derive(Debug)]
pub(crate) struct Sockets {
    tables: Each<Vec<Socket>>,
    free: Each<Vec<u32>>,
    /// Buffers for trains.
    pub(crate) pools: Each<Pool>,
    /// Trains of all sockets that wait for room, or for the end of the turn.
    pub(crate) waiting: usize,
    /// Trains of all sockets that the ring has.
    pub(crate) in_ring: usize,
    /// Bytes of all those, of each side.
    pub(crate) bytes: Each<usize>,
    /// Sockets with marks.
    pub(crate) marked: Vec<u32>,
    /// Sockets to settle at the end of the turn, each once.
    pub(crate) dirty: Vec<u32>,
    /// Sockets that wait for a receive buffer, each once: those whose last receive brought nothing,
    /// and those that took many.
    pub(crate) thirsty: Each<[Vec<u32>; 2]>,
    /// Who cuts the trains of new sockets.
    pub(crate) cut: Cut,
    /// What arrives at new sockets is to be put together.
    pub(crate) put_together: bool,
    /// Whether there are buffers for what arrives.
    pub(crate) has_buffers: bool,
}

/// A spare buffer for trains is no longer than this.
const SPARE_BUFFER_BYTES_MAX: usize = 128 * 1024;

impl Sockets {
    pub(crate) fn new(cut: Cut, put_together: bool, has_buffers: bool) -> Sockets {
        Sockets {
            tables: Each::default(),
            free: Each::default(),
            pools: Each(Side::ALL.map(|_| Pool::new(SPARE_BYTES_MAX, SPARE_BUFFER_BYTES_MAX))),
            waiting: 0,
            in_ring: 0,
            bytes: Each::default(),
            marked: Vec::new(),
            dirty: Vec::new(),
            thirsty: Each::default(),
            cut,
            put_together,
            has_buffers,
        }
    }

    /// A new socket of a side; gives it back if that has too many.
    pub(crate) fn insert(
        &mut self,
        socket: DatagramSocket,
        side: Side,
    ) -> Result<u32, DatagramSocket> {
        let table = &mut self.tables[side];
        let at = match self.free[side].pop() {
            Some(at) => at,
            None if table.len() == SOCKETS_PER_SHARD_MAX => return Err(socket),
            None => {
                table.push(Socket::vacant());
                table.len() as u32 - 1
            }
        };
        let cut = self.cut;
        let place = &mut table[at as usize];
        (place.socket, place.open, place.cut, place.drops) = (Some(socket), true, cut, 0);
        Ok(at | (side as u32) << 31)
    }

    /// Frees an index whose socket has nothing in flight.
    pub(crate) fn release(&mut self, index: u32) -> Option<DatagramSocket> {
        let socket = self.get_mut(index);
        debug_assert!(!socket.open && socket.receive.is_none() && socket.in_ring == 0);
        (socket.full, socket.fed) = (false, false);
        let freed = socket.socket.take();
        self.free[side_of(index)].push(index & !GUEST);
        freed
    }

    /// The socket at an index that was given out.
    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> &mut Socket {
        &mut self.tables[side_of(index)][(index & !GUEST) as usize]
    }

    /// Whether nothing is to be sent any more.
    pub(crate) fn all_sent(&self) -> bool {
        self.waiting == 0 && self.in_ring == 0
    }

    /// The socket of an id, if the service still has it.
    #[inline]
    pub(crate) fn open(&self, id: SocketId, side: Side) -> Option<&Socket> {
        let socket = self.tables[side].get(id.index as usize)?;
        (socket.generation == id.generation && socket.open).then_some(socket)
    }

    /// As [`Self::open`], to be changed, with its index here.
    #[inline]
    pub(crate) fn open_mut(&mut self, id: SocketId, side: Side) -> Option<(u32, &mut Socket)> {
        let socket = self.tables[side].get_mut(id.index as usize)?;
        let index = id.index | (side as u32) << 31;
        (socket.generation == id.generation && socket.open).then_some((index, socket))
    }

    #[inline]
    pub(crate) fn touch(&mut self, index: u32) {
        let socket = self.get_mut(index);
        if !std::mem::replace(&mut socket.dirty, true) {
            self.dirty.push(index);
        }
    }

    /// A socket waits until it is its turn for a receive buffer.
    pub(crate) fn queue_for_buffer(&mut self, index: u32) {
        let socket = self.get_mut(index);
        if !std::mem::replace(&mut socket.thirsty, true) {
            let greedy = usize::from(socket.fed);
            self.thirsty[side_of(index)][greedy].push(index);
        }
    }

    /// Puts a train where it waits for its turn.
    pub(crate) fn wait(&mut self, index: u32, train: Train) {
        self.waiting += 1;
        self.bytes[side_of(index)] += train.bytes.len();
        let socket = self.get_mut(index);
        socket.waiting_bytes += train.bytes.len();
        socket.waiting.push_back(train);
    }

    /// Bytes of a side's trains and spare buffers, but for those of the present turn.
    pub(crate) fn buffered(&self, side: Side) -> usize {
        self.bytes[side] + self.pools[side].bytes()
    }
}
