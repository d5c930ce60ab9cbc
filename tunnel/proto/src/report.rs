//! What a session knows of its flows and carriers, for who asks.

use ringway_core::Span;

/// What is known of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowReport {
    /// Bytes that were written here and are not acknowledged.
    pub kept: u64,
    /// Of those, bytes that were not sent yet.
    pub unsent: u64,
    /// Of those, bytes that are on their way.
    pub flying: u64,
    /// Bytes that came and wait for others before them.
    pub early: u64,
    /// Bytes that were delivered here.
    pub delivered: u64,
    /// Bytes of credit that the other agent has, counted from what was taken.
    pub window: u64,
    /// It has bytes to send and no credit: the other side's reader is slow, or its window small.
    pub out_of_credit: bool,
    /// Bytes of it that had to go again, because their carrier was lost, silent or slow.
    pub resent: u64,
    /// The longest round trip of the carriers that have something of it on its way; if none has,
    /// the shortest of all that can be used, and nothing if none can.
    pub rtt: Option<Span>,
}

/// What is known of a carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarrierReport {
    /// Smoothed round trip, waiting in queues included.
    pub rtt: Span,
    /// The shortest one.
    pub rtt_min: Span,
    /// Bytes of streams on their way.
    pub flying: u64,
    /// Bytes of streams that were put on it.
    pub sent: u64,
    /// Bytes that went again by others because of it.
    pub resent: u64,
    /// It does not answer.
    pub suspect: bool,
    /// It may be given something.
    pub usable: bool,
    /// Something authentic has come by it.
    pub proved: bool,
    /// Bulk may be put on it: there is not more on the way than serves any purpose.
    pub has_window: bool,
    /// LEAVE was said on it: once that is sent, it can be closed.
    pub left: bool,
}

/// What is known of a carrier of packets beside that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketsReport {
    /// Bytes on the path, heads included.
    pub flying: u64,
    /// Bytes that came to the other end, heads included, by its newest report.
    pub came: u64,
    /// Packets that came there, by its newest report.
    pub packets: u64,
    /// Bytes a second that the path passes on, as far as is known.
    pub rate: u64,
    /// Bytes that may be on it.
    pub window: u64,
    /// Datagrams that came to the other end and that it had no room for: in its host's buffer, or
    /// behind what they would have had to wait for.
    pub dropped: u64,
    /// Bytes of its datagrams, heads of IP and UDP not counted: what the path was found to pass.
    pub datagram_bytes: usize,
}
