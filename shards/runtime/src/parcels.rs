//! Connections on their way from one shard to another.
//!
//! A parcel is everything there is of a connection: its socket, what arrived and was handed to
//! nobody, what is to be sent, and a note from service to service. It is made when the kernel has
//! let go of the connection (`shard/parting.rs`), so nothing of it can be in two places.
//!
//! A queue under a lock beside the mailboxes, because a socket is no bytes and because this is
//! rare: a connection moves once in its life, if at all. Whoever puts one in rings the bell
//! afterwards; a shard that has no parcels pays one load a turn.
//!
//! Bounds: one parcel a connection, so at most `connections_max` of each sender; each holds what a
//! connection may hold, a note of `GIVE_NOTE_BYTES_MAX`, and at most the receive buffers of a ring.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use ringway_core::ShardId;

use crate::pair::Side;

/// A connection that is to leave.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) index: u32,
    pub(crate) to: ShardId,
    pub(crate) peer: SocketAddr,
    pub(crate) note: Vec<u8>,
    /// What arrived since it was to leave.
    pub(crate) arrived: Vec<u8>,
    /// It broke since.
    pub(crate) broken: bool,
}

impl Leaving {
    pub(crate) fn new(index: u32, to: ShardId, peer: SocketAddr, note: &[u8]) -> Self {
        Self { index, to, peer, note: note.to_vec(), arrived: Vec::new(), broken: false }
    }
}

/// A connection that nobody has.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) socket: TcpStream,
    pub(crate) side: Side,
    pub(crate) what: Leaving,
    /// What is to be sent.
    pub(crate) out: Vec<u8>,
    /// Our end is to be closed after `out`, or is.
    pub(crate) finishing: bool,
}

/// What waits for one shard.
#[derive(Debug, Default)]
pub(crate) struct Parcels {
    any: AtomicBool,
    queue: Mutex<Vec<Parcel>>,
}

impl Parcels {
    /// Puts one in. The shard has to be woken.
    pub(crate) fn put(&self, parcel: Parcel) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(parcel);
        self.any.store(true, Ordering::Release);
    }

    /// Whether there may be some.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Takes all, in the order of coming. One that is put in at the same time is taken now or rings
    /// the bell after this.
    pub(crate) fn take(&self) -> Vec<Parcel> {
        self.any.store(false, Ordering::Release);
        std::mem::take(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
