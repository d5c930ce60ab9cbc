//! Round trips of a path: smooth, how they vary, and the shortest of the last ten seconds.
//!
//! Bounds: constant time and memory.

use ringway_core::{Moment, Span};

/// How long the shortest is remembered: between one and two of these.
const REMEMBERED: Span = Span::from_s(5);
/// The shortest silence after which anybody is asked.
const PROBE_MIN: Span = Span::from_ms(1);
/// Before anything was measured.
const UNKNOWN: Span = Span::from_ms(100);

/// The least of a measure over the last ten seconds: the least of this half and of the one before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Least {
    now: u64,
    before: u64,
    since: Option<Moment>,
}

impl Default for Least {
    fn default() -> Self {
        Self { now: u64::MAX, before: u64::MAX, since: None }
    }
}

impl Least {
    /// Takes a measure in and returns the least.
    pub(crate) fn sample(&mut self, now: Moment, measure: u64) -> u64 {
        let since = *self.since.get_or_insert(now);
        if now.since(since) >= REMEMBERED {
            (self.before, self.now, self.since) = (self.now, u64::MAX, Some(now));
        }
        self.now = self.now.min(measure);
        self.get()
    }

    /// The least; the largest number there is if nothing was measured.
    pub(crate) fn get(&self) -> u64 {
        self.now.min(self.before)
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rtt {
    /// RFC 6298.
    smooth: Option<Span>,
    varies: Span,
    least: Least,
}

impl Rtt {
    /// A round trip was measured.
    pub(crate) fn sample(&mut self, now: Moment, rtt: Span) {
        self.least.sample(now, rtt.0);
        match self.smooth {
            None => (self.smooth, self.varies) = (Some(rtt), Span(rtt.0 / 2)),
            Some(smooth) => {
                self.varies = Span((3 * self.varies.0 + smooth.0.abs_diff(rtt.0)) / 4);
                self.smooth = Some(Span((7 * smooth.0 + rtt.0) / 8));
            }
        }
    }

    /// Whether any was measured.
    pub fn is_known(&self) -> bool {
        self.smooth.is_some()
    }

    /// The smooth one; a guess before any was measured.
    pub fn smooth(&self) -> Span {
        self.smooth.unwrap_or(UNKNOWN)
    }

    /// The shortest of the last ten seconds; a guess before any was measured.
    pub fn least(&self) -> Span {
        if self.is_known() { Span(self.least.get()) } else { UNKNOWN }
    }

    /// When a silence after the last packet has lasted too long: RFC 8985's probe timeout, as
    /// `transport` has it. Never at once, though a round trip took no time that a clock shows.
    pub fn probe_after(&self) -> Span {
        let smooth = self.smooth();
        Span(smooth.0 + smooth.0 / 4 + 4 * self.varies.0).max(PROBE_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_is_forgotten_after_ten_seconds() {
        let mut rtt = Rtt::default();
        rtt.sample(Moment(0), Span::from_ms(10));
        for at in 1..=200_u64 {
            rtt.sample(Moment(Span::from_ms(at * 100).0), Span::from_ms(50));
            if at < 50 {
                assert_eq!(rtt.least(), Span::from_ms(10));
            }
        }
        assert_eq!(rtt.least(), Span::from_ms(50));
        assert!(rtt.smooth() > Span::from_ms(49));
    }
}
