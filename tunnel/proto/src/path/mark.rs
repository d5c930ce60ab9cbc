//! How things stood at a report: what happened between two of them is what a path is judged by.
//!
//! Bounds: constant time and memory.

use ringway_core::{Moment, Span};

use super::flight::Heard;

/// No path is faster, in bytes a second.
const RATE_MAX: u64 = 1 << 40;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// The newest number that came.
    pub(super) number: u64,
    /// Packets that came.
    pub(super) packets: u64,
    /// Bytes that were sent until the newest, and when that was.
    pub(super) sent: u64,
    /// See `sent`.
    pub(super) sent_at: Moment,
    /// When the newest came, by the receiver's clock.
    pub(super) came_at: Moment,
    /// Datagrams that the receiver had no room for.
    pub(super) dropped: u64,
}

impl Mark {
    pub(super) fn of(heard: &Heard) -> Mark {
        Mark {
            number: heard.totals.newest,
            packets: heard.totals.packets,
            sent: heard.newest_sent,
            sent_at: heard.newest_at,
            came_at: heard.totals.arrived,
            dropped: heard.totals.dropped,
        }
    }

    /// The part of packets that did not come since `before`, and how many were sent.
    pub(super) fn lost_since(&self, before: &Mark) -> (f64, f64) {
        let sent = self.number.saturating_sub(before.number) as f64;
        let came = self.packets.saturating_sub(before.packets) as f64;
        (if sent > 0.0 { (1.0 - came / sent).max(0.0) } else { 0.0 }, sent)
    }
}

/// Bytes a second.
pub(super) fn per_second(bytes: u64, span: Span) -> u64 {
    let rate = u128::from(bytes) * 1_000_000_000 / u128::from(span.0.max(1));
    rate.min(RATE_MAX.into()) as u64
}
