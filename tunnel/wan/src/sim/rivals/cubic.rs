//! CUBIC as RFC 9438 has it, with fast convergence, an initial window of ten packets, and the
//! delay part of HyStart, which kernels have on.
//!
//! Not here: proportional rate reduction (the window falls at once, and who is above it waits) and
//! pacing (what acknowledgements let go leaves at once, as in kernels without `fq`).

use ringway_core::{Moment, Span};

use super::tcp::{Acked, Control};

const C: f64 = 0.4;
const BETA: f64 = 0.7;
const WINDOW_FIRST: f64 = 10.0;
/// A round whose shortest trip is longer than the shortest ever by an eighth, within these, ends
/// the slow start.
const RISE_MIN: Span = Span::from_ms(4);
const RISE_MAX: Span = Span::from_ms(16);
const RISE_SAMPLES: u32 = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Cubic {
    window: f64,
    threshold: f64,
    /// The window before the last reduction.
    most: f64,
    /// When this epoch of growth began, with which window, and when `most` is reached again.
    epoch: Option<(Moment, f64, f64)>,
    /// What Reno would have.
    reno: f64,
    hystart: bool,
    rtt_least: Span,
    rtt_round: Span,
    samples: u32,
    round_ends: u64,
}

impl Default for Cubic {
    fn default() -> Self {
        Self {
            window: WINDOW_FIRST,
            threshold: f64::INFINITY,
            most: 0.0,
            epoch: None,
            reno: 0.0,
            hystart: true,
            rtt_least: Span(u64::MAX),
            rtt_round: Span(u64::MAX),
            samples: 0,
            round_ends: 0,
        }
    }
}

impl Cubic {
    fn reduce(&mut self) {
        // Fast convergence: who had less than before makes room for somebody new.
        let falls = self.window < self.most;
        self.most = if falls { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.window = (self.window * BETA).max(2.0);
        (self.threshold, self.epoch) = (self.window, None);
    }

    fn grow(&mut self, now: Moment, acked: &Acked) {
        let came = acked.came as f64;
        let (began, first, until) = *self.epoch.get_or_insert_with(|| {
            self.reno = self.window;
            let most = self.most.max(self.window);
            (now, self.window, ((most - self.window) / C).cbrt())
        });
        let most = self.most.max(first);
        let at = now.since(began).0 as f64 / 1e9 + acked.rtt.0 as f64 / 1e9;
        let wanted = (C * (at - until).powi(3) + most).clamp(self.window, 1.5 * self.window);
        let alpha = if self.reno >= self.most { 1.0 } else { 3.0 * (1.0 - BETA) / (1.0 + BETA) };
        self.reno += alpha * came / self.window;
        self.window += (wanted - self.window) / self.window * came;
        self.window = self.window.max(self.reno);
    }

    fn look_at_delay(&mut self, acked: &Acked) {
        self.rtt_least = self.rtt_least.min(acked.rtt);
        if acked.delivered_at_send >= self.round_ends {
            (self.round_ends, self.rtt_round, self.samples) = (acked.delivered, Span(u64::MAX), 0);
        }
        self.rtt_round = self.rtt_round.min(acked.rtt);
        self.samples += 1;
        let rise = (self.rtt_least.0 / 8).clamp(RISE_MIN.0, RISE_MAX.0);
        if self.samples >= RISE_SAMPLES && self.rtt_round.0 >= self.rtt_least.0 + rise {
            self.threshold = self.window;
        }
    }
}

impl Control for Cubic {
    fn acked(&mut self, now: Moment, acked: &Acked) {
        if acked.new_episode {
            self.reduce();
        } else if !acked.recovered {
            // While it recovers, the window stays.
        } else if self.window < self.threshold {
            self.window += acked.came as f64;
            if self.hystart {
                self.look_at_delay(acked);
            }
        } else {
            self.grow(now, acked);
        }
    }

    fn timed_out(&mut self, _: Moment) {
        self.reduce();
        self.window = 1.0;
    }

    fn window(&self) -> u64 {
        self.window as u64
    }

    fn pacing(&self) -> Option<f64> {
        None
    }
}
