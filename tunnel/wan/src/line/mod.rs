//! One direction of a line: a bottleneck with a drop-tail queue, then loss, then delay.
//!
//! The order matters. Loss stands behind the bottleneck, because lost packets have used the line as
//! well; else the bound of what arrives would be the rate, not the rate times what is not lost.
//! Delay stands last. What happens to a packet is decided when it has left the bottleneck, by what
//! the line is like then: so a step of the rate is felt by all that wait, and an outage takes what
//! leaves the bottleneck while it lasts, and nothing that was already beyond.
//!
//! Bursts of loss and jitter go by the line's time, not by packets: a lull does not keep a burst
//! for later, and what a packet meets does not depend on how much others send.
//!
//! What always holds:
//! - D1  A packet that was offered overflowed, was lost, was cut off, arrived, or is on its way.
//! - D2  What waits is at most the queue's bytes. An empty queue takes any packet.
//! - D3  Packets come out in the order in which they went in, but for those that were chosen to
//!   come late (`reorder_ppm`).
//! - D4  The same seed, settings, moments and packets give the same fates.
//!
//! Bounds: constant time a packet, logarithmic in the number of late ones for those; memory is what
//! is on the way: the queue's bytes, and what the rate brings within delay, jitter and lateness.
//! Time is counted in picoseconds, because a nanosecond is too coarse for small packets on fast
//! lines; so a line lives for 213 days at most.
//!
//! Not here: clocks, devices, who sends (a simulator or a real link drives this), and the words
//! people use (`words.rs`).

mod bursts;
mod jitter;
#[cfg(test)]
mod tests;
mod words;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use ringway_core::rng::Rng;
use ringway_core::{Moment, Span};

use bursts::{Bursts, Chain};
use jitter::Jitter;

pub use words::{Link, Queue, Way, WordError, read_length, read_time};

/// What a line is like in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Bits a second of IP packets. Not zero.
    pub bits_per_s: u64,
    /// Bytes that may wait for the bottleneck, the packet that is being sent among them.
    pub queue_bytes: u64,
    /// What is lost behind the bottleneck.
    pub loss: Loss,
    /// From the end of the bottleneck to the other side.
    pub delay: Span,
    /// The delay is longer by up to this, now more, now less; packets do not overtake each other.
    pub jitter: Span,
    /// Packets of a million that come later than those behind them.
    pub reorder_ppm: u64,
    /// How much later.
    pub reorder_by: Span,
    /// Nothing that leaves the bottleneck arrives.
    pub down: bool,
}

impl Line {
    /// A line that does nothing wrong: half of the round trip as delay, and a queue of a round
    /// trip's bytes, of 20 ms at least.
    pub const fn of(bits_per_s: u64, rtt: Span) -> Line {
        Line {
            bits_per_s,
            queue_bytes: default_queue_bytes(bits_per_s, rtt),
            loss: Loss::Alone { ppm: 0 },
            delay: Span(rtt.0 / 2),
            jitter: Span::ZERO,
            reorder_ppm: 0,
            reorder_by: Span::ZERO,
            down: false,
        }
    }
}

/// Bytes that a rate brings within a time.
pub const fn bytes_in(bits_per_s: u64, time: Span) -> u64 {
    (bits_per_s as u128 * time.0 as u128 / (8 * NS_PER_S)) as u64
}

/// The queue of a line of which nothing else is said: a round trip's bytes, 20 ms at least.
pub const fn default_queue_bytes(bits_per_s: u64, rtt: Span) -> u64 {
    const LEAST: Span = Span::from_ms(20);
    bytes_in(bits_per_s, if rtt.0 > LEAST.0 { rtt } else { LEAST })
}

/// Which packets are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Each by itself.
    Alone {
        /// Packets of a million.
        ppm: u64,
    },
    /// All that leave the bottleneck within a burst, and none between. A burst begins and ends
    /// between time slots, of which each is as long as a full packet takes at the line's rate
    /// (Gilbert's model).
    Bursts {
        /// Slots of a million that lie in bursts.
        ppm: u64,
        /// The mean length of a burst, in thousandths of a slot. At least 1000, and not shorter
        /// than ppm / (1000000 - ppm) slots, or so much could not be lost.
        mean_milli: u64,
        /// Bytes of a full packet.
        slot_bytes: u64,
    },
}

/// What has become of packets. Those that were offered and are none of these are on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Packets that were put in.
    pub offered: u64,
    /// Their bytes.
    pub offered_bytes: u64,
    /// The queue had no room.
    pub overflowed: u64,
    /// Lost behind the bottleneck, as asked for.
    pub lost: u64,
    /// Left the bottleneck while the line was down.
    pub cut: u64,
    /// Came out at the other end.
    pub arrived: u64,
    /// Their bytes.
    pub arrived_bytes: u64,
}

/// A packet at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival<P> {
    /// When it arrived. Not later than when it was asked for.
    pub at: Moment,
    /// Its bytes, as offered.
    pub bytes: u64,
    /// The packet.
    pub packet: P,
}

/// One direction with all that is on its way in it. `P` is a packet: bytes, or whatever stands for
/// them.
#[derive(Clone, Debug)]
pub struct Direction<P> {
    line: Line,
    now: Moment,
    /// What waits for the bottleneck; the first of them is being sent.
    waiting: VecDeque<Waiting<P>>,
    waiting_bytes: u64,
    /// When the first of them has been sent, in picoseconds.
    leaves_ps: u64,
    /// What the division of bits by the rate has left over, so that no rounding adds up.
    leftover: u64,
    /// Beyond the bottleneck, in the order of coming and of arriving.
    travelling: VecDeque<Arrival<P>>,
    /// What is beyond the bottleneck, late ones included.
    travelling_bytes: u64,
    /// When the last of them arrives.
    last_at: Moment,
    /// Beyond the bottleneck and overtaken by others.
    late: BinaryHeap<Reverse<Late<P>>>,
    loss_rng: Rng,
    reorder_rng: Rng,
    bursts: Bursts,
    jitter: Jitter,
    counts: Counts,
}

#[derive(Clone, Debug)]
struct Waiting<P> {
    bytes: u64,
    packet: P,
}

impl<P> Direction<P> {
    /// An empty line. The same seed does the same to the same packets; the two directions of a link
    /// should have different ones.
    pub fn new(line: Line, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut own = || rng.next_u64();
        let mut direction = Self {
            line,
            now: Moment(0),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            leaves_ps: 0,
            leftover: 0,
            travelling: VecDeque::new(),
            travelling_bytes: 0,
            last_at: Moment(0),
            late: BinaryHeap::new(),
            loss_rng: Rng::new(own()),
            reorder_rng: Rng::new(own()),
            bursts: Bursts::default(),
            jitter: Jitter::new(own()),
            counts: Counts::default(),
        };
        direction.become_line(line);
        direction
    }

    /// What it is like now.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// What has become of packets so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes that wait for the bottleneck, the packet that is being sent among them.
    pub fn waiting_bytes(&mut self, now: Moment) -> u64 {
        self.advance(now);
        self.waiting_bytes
    }

    /// Packets that have neither arrived nor got lost.
    pub fn on_the_way(&self) -> usize {
        self.waiting.len() + self.travelling.len() + self.late.len()
    }

    /// Their bytes.
    pub fn on_the_way_bytes(&self) -> u64 {
        self.waiting_bytes + self.travelling_bytes
    }

    /// Puts a packet in; `now` may not be earlier than any moment before, in this and all methods.
    ///
    /// # Errors
    /// The packet, if the queue has no room for it.
    pub fn offer(&mut self, now: Moment, bytes: u64, packet: P) -> Result<(), P> {
        self.advance(now);
        self.counts.offered += 1;
        self.counts.offered_bytes += bytes;
        if self.waiting.is_empty() {
            // The remainder of a packet that has long gone is nobody's.
            if self.leaves_ps < to_ps(now) {
                (self.leaves_ps, self.leftover) = (to_ps(now), 0);
            }
            self.leaves_ps += self.sending_ps(bytes);
        } else if self.waiting_bytes + bytes > self.line.queue_bytes {
            self.counts.overflowed += 1;
            return Err(packet);
        }
        self.waiting_bytes += bytes;
        self.waiting.push_back(Waiting { bytes, packet });
        Ok(())
    }

    /// The next packet that has arrived by now. To be asked until there is none.
    pub fn take(&mut self, now: Moment) -> Option<Arrival<P>> {
        self.advance(now);
        let overtaken = self.late.peek().is_some_and(|Reverse(late)| {
            self.travelling.front().is_none_or(|first| late.arrival.at < first.at)
        });
        let arrival = if overtaken {
            let due = self.late.peek().is_some_and(|Reverse(late)| late.arrival.at <= now);
            due.then(|| self.late.pop().expect("it was just seen").0.arrival)
        } else {
            self.travelling.pop_front_if(|first| first.at <= now)
        }?;
        self.counts.arrived += 1;
        self.counts.arrived_bytes += arrival.bytes;
        self.travelling_bytes -= arrival.bytes;
        Some(arrival)
    }

    /// When to look again: nothing arrives before. Nothing need arrive then, if what is about to
    /// leave the bottleneck is lost or later than others.
    pub fn wake_at(&self) -> Option<Moment> {
        let first = self.travelling.front().map(|first| first.at);
        let late = self.late.peek().map(|Reverse(late)| late.arrival.at);
        let leaves = (!self.waiting.is_empty()).then(|| to_moment(self.leaves_ps));
        let next = leaves.map(|leaves| leaves + self.line.delay);
        [first, late, next].into_iter().flatten().min()
    }

    /// The line becomes another one. What waits for the bottleneck goes on at the new rate, also
    /// what is half sent; what is beyond arrives as it would have. A queue that becomes shorter
    /// keeps what it has. Packets that would overtake those before them by a shorter delay arrive
    /// together with the last of those.
    pub fn set(&mut self, now: Moment, line: Line) {
        self.advance(now);
        if !self.waiting.is_empty() {
            let left = self.leaves_ps - to_ps(now);
            let bits = u128::from(left) * u128::from(self.line.bits_per_s);
            let left = bits.div_ceil(u128::from(line.bits_per_s));
            self.leaves_ps = to_ps(now) + u64::try_from(left).expect("a line lives for 213 days");
        }
        self.leftover = 0;
        self.become_line(line);
    }

    fn become_line(&mut self, line: Line) {
        assert!(line.bits_per_s > 0, "a line without a rate brings nothing");
        if let Loss::Bursts { ppm, mean_milli, slot_bytes } = line.loss {
            let chain = Chain::new(ppm, mean_milli);
            self.bursts.become_chain(chain, (ps_of(slot_bytes, line.bits_per_s, 0).0).max(1));
        }
        self.line = line;
    }

    /// Sends what was to be sent until now.
    fn advance(&mut self, now: Moment) {
        assert!(self.now <= now, "the driver's clock ran backwards");
        self.now = now;
        let now_ps = to_ps(now);
        while self.leaves_ps <= now_ps {
            let Some(sent) = self.waiting.pop_front() else { return };
            self.waiting_bytes -= sent.bytes;
            let left_ps = self.leaves_ps;
            if let Some(next) = self.waiting.front() {
                self.leaves_ps += self.sending_ps(next.bytes);
            }
            self.travel(left_ps, sent);
        }
    }

    /// What becomes of a packet that has left the bottleneck.
    fn travel(&mut self, left_ps: u64, Waiting { bytes, packet }: Waiting<P>) {
        let lost = self.loses(left_ps);
        if self.line.down {
            self.counts.cut += 1;
            return;
        }
        if lost {
            self.counts.lost += 1;
            return;
        }
        self.travelling_bytes += bytes;
        let left = to_moment(left_ps);
        let at = left + self.line.delay + self.jitter.at(left, self.line.jitter);
        if self.line.reorder_ppm > 0 && self.reorder_rng.below(MILLION) < self.line.reorder_ppm {
            let arrival = Arrival { at: at + self.line.reorder_by, bytes, packet };
            self.late.push(Reverse(Late { left_ps, arrival }));
            return;
        }
        self.last_at = self.last_at.max(at);
        self.travelling.push_back(Arrival { at: self.last_at, bytes, packet });
    }

    fn loses(&mut self, left_ps: u64) -> bool {
        match self.line.loss {
            Loss::Alone { ppm: 0 } => false,
            Loss::Alone { ppm } => self.loss_rng.below(MILLION) < ppm,
            Loss::Bursts { .. } => self.bursts.rages_at(left_ps, &mut self.loss_rng),
        }
    }

    fn sending_ps(&mut self, bytes: u64) -> u64 {
        let (ps, leftover) = ps_of(bytes, self.line.bits_per_s, self.leftover);
        self.leftover = leftover;
        ps
    }
}

/// How long a packet takes, and what the division leaves over. A packet of 2 MB is the largest.
fn ps_of(bytes: u64, bits_per_s: u64, leftover: u64) -> (u64, u64) {
    let work = u128::from(bytes * 8) * u128::from(PS_PER_S) + u128::from(leftover);
    // A division of 64 bits where it does, which is always on lines that anybody has.
    match u64::try_from(work) {
        Ok(work) => (work / bits_per_s, work % bits_per_s),
        Err(_) => {
            let bits_per_s = u128::from(bits_per_s);
            ((work / bits_per_s) as u64, (work % bits_per_s) as u64)
        }
    }
}

fn to_ps(now: Moment) -> u64 {
    now.0.checked_mul(PS_PER_NS).expect("a line lives for 213 days")
}

/// Rounded up, so that nothing arrives before its time.
fn to_moment(ps: u64) -> Moment {
    Moment(ps.div_ceil(PS_PER_NS))
}

/// One that others overtake; the first to arrive is the least.
#[derive(Clone, Debug)]
struct Late<P> {
    left_ps: u64,
    arrival: Arrival<P>,
}

impl<P> Late<P> {
    fn key(&self) -> (Moment, u64) {
        (self.arrival.at, self.left_ps)
    }
}

impl<P> PartialEq for Late<P> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<P> Eq for Late<P> {}

impl<P> PartialOrd for Late<P> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> Ord for Late<P> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

const MILLION: u64 = 1_000_000;
const NS_PER_S: u128 = 1_000_000_000;
const PS_PER_NS: u64 = 1_000;
const PS_PER_S: u64 = 1_000_000_000_000;
