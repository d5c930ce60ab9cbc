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

/// Classes of durations: below 256 ns, then doubling, the last without an upper bound.
pub const DURATION_CLASSES: usize = 24;
/// The upper bound of the first class, as a power of two of nanoseconds.
const CLASS_FIRST_LOG2: u32 = 8;

/// The class of a duration.
#[inline]
pub fn duration_class(ns: u64) -> usize {
    let log2 = u64::BITS - (ns >> CLASS_FIRST_LOG2).leading_zeros();
    (log2 as usize).min(DURATION_CLASSES - 1)
}

/// The first duration that lies above a class.
pub fn duration_class_end_ns(class: usize) -> u64 {
    1 << (CLASS_FIRST_LOG2 as usize + class)
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
    /// How many passes took how long, by [`duration_class`].
    pub turn_classes: [Counter; DURATION_CLASSES],
    /// Connections accepted, also those refused, or gone before they could be served.
    pub accepts: Counter,
    /// Connections refused because the shard had as many as it may have.
    pub accepts_refused: Counter,
    /// Times that accepting paused because the process was out of file descriptors.
    pub accept_pauses: Counter,
    /// Connects begun.
    pub connects: Counter,
    /// Connects that failed.
    pub connects_failed: Counter,
    /// Connections given to other shards.
    pub given: Counter,
    /// Connections that came from other shards.
    pub adopted: Counter,
    /// Open connections, those included that are being made.
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
    /// Trains of datagrams received.
    pub trains_received: Counter,
    /// Datagrams in them.
    pub datagrams_received: Counter,
    /// Bytes in them.
    pub datagram_receive_bytes: Counter,
    /// What the kernel dropped at our UDP sockets for want of room, and told us of. What it had put
    /// together counts as one.
    pub datagrams_dropped: Counter,
    /// Datagrams that were empty, cut off, or without a sender.
    pub datagrams_unreadable: Counter,
    /// Receives of trains that ended because no buffer was free.
    pub datagram_buffers_exhausted: Counter,
    /// Trains of datagrams given to the kernel, again ones included.
    pub trains_sent: Counter,
    /// Bytes in them.
    pub datagram_send_bytes: Counter,
    /// Datagrams that it took.
    pub datagrams_sent: Counter,
    /// Datagrams that did not leave the host.
    pub datagrams_unsent: Counter,
    /// Trains that had to wait for room in their socket.
    pub trains_delayed: Counter,
    /// Sockets for which the kernel does not cut trains though it can.
    pub offload_failures: Counter,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A duration lies in the class whose bounds enclose it, at every power of two and beside it.
    #[test]
    fn classes_enclose_their_durations() {
        assert_eq!(duration_class(0), 0);
        assert_eq!(duration_class(u64::MAX), DURATION_CLASSES - 1);
        for class in 0..DURATION_CLASSES - 1 {
            assert_eq!(duration_class(duration_class_end_ns(class) - 1), class);
            assert_eq!(duration_class(duration_class_end_ns(class)), class + 1);
        }
    }
}
