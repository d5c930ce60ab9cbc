//! When the next packets may leave: a path is sent to evenly, in trains of half a millisecond.
//!
//! Bounds: constant time and memory.

use ringway_core::{Moment, Span};

/// What leaves at once is at most what the rate brings in this time, and at most so many bytes:
/// what one system call takes.
const TRAIN: Span = Span::from_us(500);
const TRAIN_BYTES_MAX: u64 = 64 * 1024;

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

    /// So many bytes leave, at this rate; without one, at once.
    pub(crate) fn leave(&mut self, now: Moment, bytes: u64, rate: Option<u64>) {
        let Some(rate) = rate else {
            (self.even_at, self.ready_at) = (now, now);
            return;
        };
        let train = TRAIN.min(time_of(TRAIN_BYTES_MAX, rate));
        // Who comes a little late makes up for it, who had nothing to send for long does not.
        self.even_at = self.even_at.max(now - train) + time_of(bytes, rate);
        if self.even_at >= now + train {
            self.ready_at = self.even_at;
        }
    }
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
        for rate in [100_000, 25_000_000, 1_500_000_000] {
            let (mut pacer, mut now, mut sent, mut trains) = (Pacer::default(), Moment(0), 0, 0);
            while now < Moment(0) + Span::from_s(1) {
                now = now.max(pacer.ready_at());
                let before = sent;
                while pacer.ready_at() <= now {
                    pacer.leave(now, 1500, Some(rate));
                    sent += 1500;
                }
                trains += 1;
                assert!(sent - before <= TRAIN_BYTES_MAX + 3000);
            }
            assert!(sent.abs_diff(rate) <= rate / 100 + 3000, "{sent} of {rate}");
            assert!(trains < 50_000, "{trains}");
        }
    }
}
