//! The table of who leaves what to whom: pairs and more, one buffer of one and one of two round
//! trips, both orders of coming.
//!
//! What always holds: a row that is compared with another (what CUBIC keeps beside BBRv1) comes
//! after it, with the same buffer and order. Bounds: a second of a processor for a row of 150 s.
//! Tests: `tests/beside.rs`.

use ringway_core::{Moment, Span};

use super::{Entrant, Kind, Scene, Shares, Street};
use crate::line::{Line, bytes_in};

/// What is asked of a row.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub enum Bar {
    /// Nothing: it is there to compare with.
    None,
    /// Of the rate: what all use, and what each keeps at least.
    Each(f64, (f64, f64)),
    /// Jain's index at least.
    Jain(f64, f64),
}

/// One row.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Row {
    /// Who, in the order of coming.
    pub name: String,
    /// The buffer, in round trips of 40 ms.
    pub buffer: f64,
    /// What came of it.
    pub shares: Shares,
    /// What is asked.
    pub bar: Bar,
    /// Whether it is reached.
    pub reached: bool,
}

const RATE: u64 = 100_000_000;
const RTT: Span = Span::from_ms(40);
const STAGGER: Span = Span::from_s(5);
const USED: f64 = 0.9;

fn street(kinds: &[(Kind, Span)], buffer: f64, stagger: Span, seed: u64) -> Street {
    let shortest = kinds.iter().map(|(_, rtt)| *rtt).min().unwrap_or(RTT);
    let queue_bytes = (bytes_in(RATE, RTT) as f64 * buffer) as u64;
    let line = Line { queue_bytes, ..Line::of(RATE, shortest) };
    let entrants = kinds.iter().enumerate().map(|(at, (kind, rtt))| Entrant {
        kind: *kind,
        rtt: *rtt,
        from: Moment(at as u64 * stagger.0 + at as u64 * 7_777_777),
    });
    Street::new(Scene {
        line,
        changes: Vec::new(),
        back: Line::of(RATE, shortest),
        entrants: entrants.collect(),
        mtu: 1500,
        seed,
    })
}

/// All rows: so long to settle, and so long to judge. `each` hears every row when it is done.
pub fn beside(settle: Span, time: Span, seed: u64, mut each: impl FnMut(&Row)) -> Vec<Row> {
    use Kind::{Bbr, Cubic, Ours};
    let mut rows: Vec<Row> = Vec::new();
    for buffer in [1.0, 2.0] {
        let mut row = |name: &str, kinds: &[(Kind, Span)], stagger: Span, bar: Bar| {
            let mut street = street(kinds, buffer, stagger, seed);
            street.run_until(Moment(0) + settle);
            let shares = street.judge(time);
            let reached = bar.is_reached(&shares);
            let row = Row { name: name.to_owned(), buffer, shares, bar, reached };
            each(&row);
            rows.push(row.clone());
            row
        };
        let both = |first, second| [(first, RTT), (second, RTT)];
        let left = row("bbr, cubic", &both(Bbr, Cubic), STAGGER, Bar::None).share(1);
        let left_late = row("cubic, bbr", &both(Cubic, Bbr), STAGGER, Bar::None).share(0);
        let cubic = |left: f64| (0.8 * left).max(0.35);
        let bar = Bar::Each(USED, (0.25, cubic(left)));
        row("ours, cubic", &both(Ours, Cubic), STAGGER, bar);
        let bar = Bar::Each(USED, (cubic(left_late), 0.25));
        row("cubic, ours", &both(Cubic, Ours), STAGGER, bar);
        let bar = Bar::Each(USED, (0.25, 0.25));
        row("ours, bbr", &both(Ours, Bbr), STAGGER, bar);
        row("bbr, ours", &both(Bbr, Ours), STAGGER, bar);
        let jain = Bar::Jain(USED, 0.95);
        row("ours, ours", &both(Ours, Ours), Span::ZERO, jain);
        row("ours, ours later", &both(Ours, Ours), STAGGER, jain);
        let long = Span(RTT.0 * 4);
        row("ours, ours at 4 rtt", &[(Ours, RTT), (Ours, long)], STAGGER, jain);
        row("ours at 4 rtt, ours", &[(Ours, long), (Ours, RTT)], STAGGER, jain);
        row("four of ours", &[(Ours, RTT); 4], STAGGER, jain);
    }
    rows
}

impl Row {
    /// The part of the rate that one has.
    pub fn share(&self, flow: usize) -> f64 {
        self.shares.bits_per_s[flow] / RATE as f64
    }
}

impl Bar {
    fn is_reached(&self, shares: &Shares) -> bool {
        let part = |flow: usize| shares.bits_per_s[flow] / RATE as f64;
        match *self {
            Bar::None => true,
            Bar::Each(used, (first, second)) => {
                shares.utilisation >= used && part(0) >= first && part(1) >= second
            }
            Bar::Jain(used, jain) => shares.utilisation >= used && shares.jain >= jain,
        }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>3} bdp  {:<20}", self.buffer, self.name)?;
        let shares: Vec<String> = (0..self.shares.bits_per_s.len())
            .map(|at| format!("{:5.1}", self.share(at) * 100.0))
            .collect();
        write!(
            f,
            " {:<24} used {:5.1} % jain {:.3} queue {:5.1} {:5.1} ms over {:.4}  {}",
            shares.join(" "),
            self.shares.utilisation * 100.0,
            self.shares.jain,
            self.shares.queue_ms.0,
            self.shares.queue_ms.1,
            self.shares.overflowed,
            match (self.bar, self.reached) {
                (Bar::None, _) => "",
                (_, true) => "ok",
                (_, false) => "BELOW",
            }
        )
    }
}
