//! When the next packets may leave: a path is sent to evenly, in trains of half a millisecond.
//!
//! Bounds: constant time and memory.

use ringway_core::{Moment, Span};

use crate::limits::train_datagrams;

/// What leaves at once is at most what the rate brings in this time, and at most what so many
/// system calls take. Who comes late makes up for so much time.
///
/// One call a train would wait for a timer after each, which on a fast path takes longer than the
/// call.
const TRAIN: Span = Span::from_us(500);
const CALLS: u64 = 4;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pacer {
    /// When all that has left would have, one after the other.
    even_at: Moment,
    /// When the next train may leave.
    ready_at: Moment,
}

impl Pacer {
    /// When something may leave next; it may be in the past.
    pub(crate) fn ready_at(&self) -> Moment {
        self.ready_at
    }

    /// So many bytes leave, of packets that have at most `whole`, at this rate; without one, at
    /// once.
    pub(crate) fn leave(&mut self, now: Moment, (bytes, whole): (u64, u64), rate: Option<u64>) {
        let Some(rate) = rate else {
            (self.even_at, self.ready_at) = (now, now);
            return;
        };
        let train = TRAIN.min(time_of(train_bytes(whole), rate));
        // Who comes a little late makes up for it, who had nothing to send for long does not.
        self.even_at = self.even_at.max(now - TRAIN) + time_of(bytes, rate);
        if self.even_at >= now + train {
            self.ready_at = self.even_at;
        }
    }
}

/// Bytes of the longest train of packets of so many.
fn train_bytes(whole: u64) -> u64 {
    CALLS * train_datagrams(whole as usize) as u64 * whole
}

fn time_of(bytes: u64, rate: u64) -> Span {
    // A division of 128 bits for each packet would cost more than all else here.
    Span(bytes.saturating_mul(1_000_000_000) / rate.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_evenly_in_trains() {
        for (rate, whole) in
            [(100_000, 1500), (25_000_000, 1500), (1_500_000_000, 1500), (1_500_000_000, 9000)]
        {
            let late = rate * TRAIN.0 / 1_000_000_000;
            let (mut pacer, mut now, mut sent, mut trains) = (Pacer::default(), Moment(0), 0, 0);
            while now < Moment(0) + Span::from_s(1) {
                now = now.max(pacer.ready_at());
                let before = sent;
                while pacer.ready_at() <= now {
                    pacer.leave(now, (whole, whole), Some(rate));
                    sent += whole;
                }
                trains += 1;
                assert!(sent - before <= late + train_bytes(whole).min(late) + 2 * whole);
                // Nobody is on time.
                now = now + Span::from_us(trains % 9 * 50);
            }
            assert!(sent.abs_diff(rate) <= rate / 100 + 2 * whole, "{sent} of {rate}");
            assert!(trains < 20_000, "{trains}");
        }
    }
}
