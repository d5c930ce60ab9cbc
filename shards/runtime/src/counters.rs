//! Numbers of one shard that anybody may read at any time. Written by the shard only, relaxed:
//! reading them costs the shard a cache line now and then, and they agree with each other only
//! roughly.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// What it says now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// By its one writer: no read-modify-write cycle is needed.
    #[inline]
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn raise_to(&self, value: u64) {
        if value > self.get() {
            self.set(value);
        }
    }
}

/// The numbers of one shard. Those ending in `_now` go up and down, `_max` and `_ns_max` are the
/// largest ever, all others count since the start.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardCounters {
    /// Passes of the loop.
    pub turns: Counter,
    /// The longest pass, in nanoseconds, waiting excluded.
    pub turn_ns_max: Counter,
    /// Time spent in passes, in nanoseconds.
    pub turn_ns: Counter,
    /// Connections accepted, also those refused, or gone before they could be served.
    pub accepts: Counter,
    /// Connections refused because the shard had as many as it may have.
    pub accepts_refused: Counter,
    /// Times that accepting paused because the process was out of file descriptors.
    pub accept_pauses: Counter,
    /// Open connections.
    pub connections_now: Counter,
    /// Batches of bytes received.
    pub receives: Counter,
    /// Bytes received.
    pub receive_bytes: Counter,
    /// Sends begun.
    pub sends: Counter,
    /// Bytes the kernel took.
    pub send_bytes: Counter,
    /// Sends that the socket did not take whole at once.
    pub sends_short: Counter,
    /// Most receive buffers in use at once.
    pub buffers_max: Counter,
    /// Receives that ended because no buffer was free.
    pub buffers_exhausted: Counter,
    /// Messages received from other shards and the control plane.
    pub mails: Counter,
    /// Bytes of mail taken in one pass, at most.
    pub mail_bytes_max: Counter,
    /// Bytes of mail that wait because a mailbox is full.
    pub mail_waiting_now: Counter,
    /// Times the shard slept.
    pub sleeps: Counter,
    /// Times it spun and something came.
    pub spins_rewarded: Counter,
    /// Times it spun in vain.
    pub spins_vain: Counter,
    /// Times it woke somebody.
    pub doorbells: Counter,
}
