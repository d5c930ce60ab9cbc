//! One direction of an emulated line: a bottleneck with a drop-tail queue, then loss, then delay.
//!
//! It decides when a packet comes out at the other end, or that it does not; it neither holds
//! packets nor reads a clock. The order matters: loss stands behind the bottleneck, because lost
//! packets have used the line as well; delay stands last and is the same for all, so that packets
//! come out in the order in which they went in and whoever holds them needs only a queue.
//!
//! Bounds: constant time; the packets on their way are at most the queue's bytes, and what the rate
//! brings within the delay. Not here: the devices (`examples/link.rs`).

use ringway_core::rng::Rng;
use ringway_core::{Moment, Span};

/// What the line is like in one direction.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Bits a second of IP packets.
    pub bits_per_s: u64,
    /// Bytes that may wait for the bottleneck, the packet that is being sent among them.
    pub queue_bytes: u64,
    /// Packets of a million that are lost.
    pub loss_ppm: u64,
    /// From the end of the bottleneck to the other side.
    pub delay: Span,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It comes out at the other end then.
    Arrives(Moment),
    /// The queue before the bottleneck had no room.
    Overflowed,
    /// It crossed the bottleneck and was lost behind it.
    Lost,
}

/// One direction with what is in its queue.
#[derive(Clone, Debug)]
pub struct Emulator {
    line: Line,
    rng: Rng,
    /// When the bottleneck has sent all that it has taken, in picoseconds: a nanosecond is too
    /// coarse for small packets on fast lines.
    idle_at_ps: u64,
}

impl Emulator {
    /// An empty line; the same seed loses the same packets.
    pub fn new(line: Line, seed: u64) -> Self {
        assert!(line.bits_per_s > 0, "a line without a rate brings nothing");
        Self { line, rng: Rng::new(seed), idle_at_ps: 0 }
    }

    /// Puts a packet in. `now` may not be earlier than that of the packet before.
    pub fn offer(&mut self, now: Moment, bytes: u64) -> Fate {
        let now_ps = now.0 * PS_PER_NS;
        let backlog_ps = self.idle_at_ps.saturating_sub(now_ps);
        if backlog_ps + self.sending_ps(bytes) > self.sending_ps(self.line.queue_bytes) {
            return Fate::Overflowed;
        }
        self.idle_at_ps = now_ps + backlog_ps + self.sending_ps(bytes);
        if self.rng.below(1_000_000) < self.line.loss_ppm {
            return Fate::Lost;
        }
        Fate::Arrives(Moment(self.idle_at_ps.div_ceil(PS_PER_NS)) + self.line.delay)
    }

    fn sending_ps(&self, bytes: u64) -> u64 {
        let bits = u128::from(bytes) * 8;
        (bits * u128::from(PS_PER_S) / u128::from(self.line.bits_per_s)) as u64
    }
}

const PS_PER_NS: u64 = 1_000;
const PS_PER_S: u64 = 1_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line = Line {
        bits_per_s: 200_000_000,
        queue_bytes: 1_000_000,
        loss_ppm: 0,
        delay: Span::from_ms(20),
    };

    /// A packet of 1500 bytes takes 60 us on the line, then 20 ms; the next waits behind it.
    #[test]
    fn a_packet_waits_is_sent_and_travels() {
        let mut line = Emulator::new(LINE, 1);
        assert_eq!(line.offer(Moment(0), 1500), Fate::Arrives(Moment(20_060_000)));
        assert_eq!(line.offer(Moment(0), 1500), Fate::Arrives(Moment(20_120_000)));
        assert_eq!(line.offer(Moment(1_000_000), 1500), Fate::Arrives(Moment(21_060_000)));
    }

    /// Twice as much is offered as the line carries: it carries its rate, to a ten thousandth, for
    /// large packets and for small ones on a fast line, and nothing waits longer than the queue.
    #[test]
    fn the_bottleneck_keeps_its_rate() {
        for (bits_per_s, bytes) in [(200_000_000, 1500), (12_500_000_000, 40)] {
            let mut line = Emulator::new(Line { bits_per_s, ..LINE }, 1);
            let queue_ns = LINE.queue_bytes * 8 * 1_000_000_000 / bits_per_s;
            let (mut carried, mut last) = (0, Moment(0));
            for packet in 0..1_000_000_u64 {
                let now = Moment(packet * bytes * 8 * 500_000_000 / bits_per_s);
                if let Fate::Arrives(then) = line.offer(now, bytes) {
                    assert!(then >= last, "packets do not overtake each other");
                    assert!(then.since(now) <= Span(LINE.delay.0 + queue_ns + 1));
                    (carried, last) = (carried + bytes, then);
                }
            }
            let seconds = last.since(Moment(0) + LINE.delay).0 as f64 / 1e9;
            let rate = carried as f64 * 8.0 / seconds;
            assert!((rate / bits_per_s as f64 - 1.0).abs() < 1e-4, "{rate} of {bits_per_s}");
        }
    }

    /// A queue of a million bytes takes 666 packets of 1500 and not one more, and one more when
    /// the first has left. Below its rate the line loses nothing by itself.
    #[test]
    fn only_a_full_queue_drops() {
        let mut line = Emulator::new(LINE, 1);
        let taken = (0..700).filter(|_| line.offer(Moment(0), 1500) != Fate::Overflowed).count();
        assert_eq!(taken, 666);
        assert_eq!(line.offer(Moment(1), 1500), Fate::Overflowed);
        assert_ne!(line.offer(Moment(60_000), 1500), Fate::Overflowed);
        let mut calm = Emulator::new(LINE, 1);
        for packet in 0..100_000 {
            assert!(matches!(calm.offer(Moment(packet * 60_000), 1500), Fate::Arrives(_)));
        }
    }

    /// What is lost lies within four standard deviations of what was asked for, and has used the
    /// line: those that arrive are as far apart as if all did.
    #[test]
    fn loss_is_as_asked_and_stands_behind_the_bottleneck() {
        for loss_ppm in [10_000, 100_000, 500_000] {
            let mut line = Emulator::new(Line { loss_ppm, ..LINE }, 7);
            let (count, mut lost) = (200_000_u64, 0);
            for packet in 0..count {
                let now = Moment(packet * 60_000);
                match line.offer(now, 1500) {
                    Fate::Lost => lost += 1,
                    fate => assert_eq!(fate, Fate::Arrives(now + Span(60_000) + LINE.delay)),
                }
            }
            let share = loss_ppm as f64 / 1e6;
            let deviation = (count as f64 * share * (1.0 - share)).sqrt();
            let expected = count as f64 * share;
            assert!((lost as f64 - expected).abs() < 4.0 * deviation, "{lost} of {expected}");
        }
    }
}
