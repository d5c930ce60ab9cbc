//! A connection over a line that changes while it runs, looked at now and then.

use ringway_core::{Moment, Span};

use super::{Cell, World};
use crate::line::{Link, bytes_in};

/// The line becomes another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Moment,
    /// What it is like from then on.
    pub link: Link,
}

/// How things stand, and what happened since the sample before.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Sample {
    /// Seconds since the begin.
    pub at_s: f64,
    /// What the line could bring, after its loss; nothing while it is down.
    pub bound_bits_per_s: f64,
    /// What left the sender.
    pub sent_bits_per_s: f64,
    /// What came out of the line.
    pub arrived_bits_per_s: f64,
    /// What was read, in order.
    pub read_bits_per_s: f64,
    /// The bottleneck's rate as the sender believes it.
    pub believed_bits_per_s: f64,
    /// Part of what was offered that was lost or cut off behind the bottleneck, and that
    /// overflowed before it.
    pub lost: f64,
    /// See `lost`.
    pub overflowed: f64,
    /// The path's own loss as the sender believes it.
    pub floor: f64,
    /// What waits for the bottleneck, in seconds.
    pub queue_s: f64,
    /// Bytes that may be on their way, and that are.
    pub window: u64,
    /// See `window`.
    pub flying: u64,
}

impl Sample {
    /// Of several that follow each other; how things stand is how they stood at the last.
    ///
    /// # Panics
    /// Of none.
    pub fn mean(samples: &[Sample]) -> Sample {
        let last = *samples.last().expect("of some samples");
        let mean = |value: fn(&Sample) -> f64| {
            samples.iter().map(value).sum::<f64>() / samples.len() as f64
        };
        Sample {
            bound_bits_per_s: mean(|one| one.bound_bits_per_s),
            sent_bits_per_s: mean(|one| one.sent_bits_per_s),
            arrived_bits_per_s: mean(|one| one.arrived_bits_per_s),
            read_bits_per_s: mean(|one| one.read_bits_per_s),
            lost: mean(|one| one.lost),
            overflowed: mean(|one| one.overflowed),
            queue_s: mean(|one| one.queue_s),
            ..last
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Story {
    /// The line at first, and who sends. `warm_up` means nothing here; `time` is how long it is.
    pub cell: Cell,
    /// In the order of their moments.
    pub changes: Vec<Change>,
    /// How often it is looked at.
    pub every: Span,
}

impl Story {
    /// Runs it.
    ///
    /// # Panics
    /// If nothing passes between two looks.
    pub fn tell(&self) -> Vec<Sample> {
        assert!(self.every > Span::ZERO, "time passes");
        let mut world = World::new(self.cell);
        let (end, mut changes) = (Moment(0) + self.cell.time, self.changes.iter().peekable());
        let (mut look, mut before, mut samples) = (Moment(0) + self.every, Past::default(), vec![]);
        while world.now() < end {
            let next = changes.peek().map_or(end, |change| change.at.min(end));
            world.run_until(look.min(next));
            if world.now() >= look {
                samples.push(before.sample(&mut world, self.every));
                look = look + self.every;
            }
            while let Some(change) = changes.next_if(|change| change.at <= world.now()) {
                world.set_lines(change.link.line_there(), change.link.line_back());
            }
        }
        samples
    }
}

/// Sums at the sample before.
#[derive(Default)]
struct Past {
    sent: u64,
    arrived: u64,
    read: u64,
    offered: u64,
    lost: u64,
    overflowed: u64,
}

impl Past {
    fn sample(&mut self, world: &mut World, every: Span) -> Sample {
        let (now, (counts, _)) = (world.now(), world.counts());
        let (flying, sent) = world.sender().bytes();
        let then = Past {
            sent,
            arrived: counts.arrived_bytes,
            read: world.read(),
            offered: counts.offered,
            lost: counts.lost + counts.cut,
            overflowed: counts.overflowed,
        };
        let was = std::mem::replace(self, then);
        let rate = |then: u64, was: u64| (then - was) as f64 * 8e9 / every.0 as f64;
        let offered = (self.offered - was.offered).max(1) as f64;
        let line = *world.there.line();
        let up = if line.down { 0.0 } else { 1.0 };
        let a_second = bytes_in(line.bits_per_s, Span::from_s(1)).max(1) as f64;
        let way = world.sender().rate();
        Sample {
            at_s: now.0 as f64 / 1e9,
            bound_bits_per_s: Cell { there: line, ..world.cell }.bound_bits_per_s() * up,
            sent_bits_per_s: rate(self.sent, was.sent),
            arrived_bits_per_s: rate(self.arrived, was.arrived),
            read_bits_per_s: rate(self.read, was.read),
            believed_bits_per_s: way.bandwidth() as f64 * 8.0,
            lost: (self.lost - was.lost) as f64 / offered,
            overflowed: (self.overflowed - was.overflowed) as f64 / offered,
            floor: way.floor(),
            window: way.window(),
            flying,
            queue_s: world.there.waiting_bytes(now) as f64 / a_second,
        }
    }
}
