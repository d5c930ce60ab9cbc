//! A connection in numbers: when it is steady, and how it starts.

use ringway_core::{Moment, Span};

use super::{Cell, START_ROUNDS, STEPS, World};
use crate::line::{Line, Loss, bytes_in};

/// A steady connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Outcome {
    /// Bits a second that were read, in order.
    pub goodput_bits_per_s: f64,
    /// The same as a part of the rate times what is not lost.
    pub of_bound: f64,
    /// Bytes of the flow that were sent for each that came for the first time.
    pub sent_per_delivered: f64,
    /// The queue before the bottleneck, as a part of what a round trip brings.
    pub queue_median: f64,
    /// See `queue_median`.
    pub queue_p99: f64,
    /// How it started.
    pub start: Start,
    /// Bytes that an end kept, at most: the writer and the reader.
    pub memory_writer: u64,
    /// See `memory_writer`.
    pub memory_reader: u64,
    /// Reports, as a part of the rate.
    pub reports: f64,
}

/// How a connection starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Start {
    /// Seconds until the first round trip began in which the receiver got nine tenths of what the
    /// line can bring. `None`: it had not until the end.
    pub seconds_to_90: Option<f64>,
    /// Bytes that overflowed until twenty round trips had passed, as a part of what one brings.
    pub overshoot: f64,
}

impl Cell {
    /// The round trip without queues and jitter.
    pub fn rtt(&self) -> Span {
        Span(self.there.delay.0 + self.back.delay.0)
    }

    /// Bits a second that can arrive.
    pub fn bound_bits_per_s(&self) -> f64 {
        self.there.bits_per_s as f64 * (1.0 - loss_of(&self.there))
    }

    fn bdp(&self) -> f64 {
        bytes_in(self.there.bits_per_s, self.rtt()).max(1) as f64
    }
}

/// Runs a cell for its warm-up and its time.
pub fn run(cell: Cell) -> Outcome {
    let mut world = World::new(cell);
    world.run_until(Moment(0) + cell.warm_up);
    let (read, reports) = (world.read(), world.report_bytes);
    let (sent, came) = world.carried();
    world.run_until(Moment(0) + cell.warm_up + cell.time);
    let seconds = cell.time.0 as f64 / 1e9;
    let goodput = (world.read() - read) as f64 * 8.0 / seconds;
    world.queues.sort_unstable();
    let queue = |part: f64| {
        let at = (world.queues.len() as f64 * part) as usize;
        let last = world.queues.len().saturating_sub(1);
        world.queues.get(at.min(last)).map_or(0.0, |bytes| *bytes as f64 / cell.bdp())
    };
    let (sent_then, came_then) = world.carried();
    let (memory_writer, memory_reader) = world.kept_max();
    let report_bits = (world.report_bytes - reports) as f64 * 8.0;
    Outcome {
        goodput_bits_per_s: goodput,
        of_bound: goodput / cell.bound_bits_per_s(),
        sent_per_delivered: (sent_then - sent) as f64 / (came_then - came).max(1) as f64,
        queue_median: queue(0.5),
        queue_p99: queue(0.99),
        start: started(&world),
        memory_writer,
        memory_reader,
        reports: report_bits / seconds / cell.back.bits_per_s as f64,
    }
}

/// Runs a cell only until its start is over.
pub fn start(cell: Cell) -> Start {
    let mut world = World::new(cell);
    let rtt = cell.rtt().max(Span::from_ms(1));
    world.run_until(Moment(START_ROUNDS * rtt.0) + Span::from_ms(200));
    started(&world)
}

fn started(world: &World) -> Start {
    let cell = &world.cell;
    // Of one round trip: a train that happens to fill a part of one does not count.
    let full = cell.bound_bits_per_s() / 8.0 * (STEPS * world.step.0) as f64 / 1e9;
    let mut rounds = world.came.windows(STEPS as usize);
    let at = rounds.position(|round| round.iter().sum::<u64>() as f64 >= 0.9 * full);
    Start {
        seconds_to_90: at.map(|at| (at as u64 * world.step.0) as f64 / 1e9),
        overshoot: (world.overflowed_early * cell.mtu) as f64 / cell.bdp(),
    }
}

fn loss_of(line: &Line) -> f64 {
    match line.loss {
        Loss::Alone { ppm } | Loss::Bursts { ppm, .. } => ppm as f64 / 1e6,
    }
}
