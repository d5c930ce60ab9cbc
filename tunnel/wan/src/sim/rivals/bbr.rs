//! BBRv1, as kernels since 4.9 have it: the largest rate of ten rounds and the shortest round trip
//! of ten seconds make the window, and loss means nothing but that what was lost is not on its way.
//!
//! Not here: the detection of policers, and the allowance for acknowledgements that come in heaps,
//! which kernels got later.

use ringway_core::{Moment, Span};

use super::tcp::{Acked, Control, PACKET};

/// 2 / ln 2.
const HIGH: f64 = 2.885;
const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
const WINDOW_GAIN: f64 = 2.0;
const WINDOW_FIRST: f64 = 10.0;
const WINDOW_MIN: f64 = 4.0;
const ROUNDS: usize = 10;
const REMEMBERED: Span = Span::from_s(10);
const PROBE: Span = Span::from_ms(200);
/// Kernels send a hundredth less than they believe.
const MARGIN: f64 = 0.99;

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Startup,
    Drain,
    /// Which part of the cycle, since when, and whether something was lost in it.
    ProbeRate(usize, Moment, bool),
    /// Until when; not known before the window is small.
    ProbeTrip(Option<Moment>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Bbr {
    state: State,
    rates: [f64; ROUNDS],
    round: usize,
    round_ends: u64,
    trip: Span,
    trip_at: Moment,
    window: f64,
    /// What the window was before it was made small.
    before: f64,
    recovers: bool,
    /// In the first round of a recovery, what comes lets as much go.
    conserves: bool,
    /// The rate that the pipe was not full with, and for how many rounds it did not grow.
    full: (f64, u32),
    pacing: f64,
}

impl Default for Bbr {
    fn default() -> Self {
        Self {
            state: State::Startup,
            rates: [0.0; ROUNDS],
            round: 0,
            round_ends: 0,
            trip: Span(u64::MAX),
            trip_at: Moment(0),
            window: WINDOW_FIRST,
            before: 0.0,
            recovers: false,
            conserves: false,
            full: (0.0, 0),
            // Ten packets a millisecond, as kernels assume before a round trip is known.
            pacing: HIGH * WINDOW_FIRST * 1000.0,
        }
    }
}

impl Bbr {
    fn rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    /// Packets that a round trip brings, times a gain.
    fn fills(&self, gain: f64) -> f64 {
        if self.trip.0 == u64::MAX {
            return WINDOW_FIRST;
        }
        gain * self.rate() * self.trip.0 as f64 / 1e9
    }

    /// What segment offload sends at once.
    fn burst(&self) -> f64 {
        (self.pacing * PACKET as f64 / 1024.0).min(65_536.0).max(2.0 * PACKET as f64)
            / PACKET as f64
    }

    fn is_full(&self) -> bool {
        self.full.1 >= 3
    }

    /// Takes what was measured in.
    fn measure(&mut self, now: Moment, acked: &Acked) {
        let ended = acked.delivered_at_send >= self.round_ends;
        if ended {
            self.round_ends = acked.delivered;
            self.round += 1;
            self.rates[self.round % ROUNDS] = 0.0;
            self.conserves = false;
        }
        let place = &mut self.rates[self.round % ROUNDS];
        *place = place.max(acked.rate);
        if ended && !self.is_full() {
            let rate = self.rate();
            let grows = rate >= self.full.0 * 1.25;
            self.full = if grows { (rate, 0) } else { (self.full.0, self.full.1 + 1) };
        }
        let expired = now.since(self.trip_at) > REMEMBERED;
        if acked.rtt <= self.trip || expired {
            (self.trip, self.trip_at) = (acked.rtt, now);
        }
        if expired && !matches!(self.state, State::ProbeTrip(_)) {
            self.before = self.before.max(self.window);
            self.state = State::ProbeTrip(None);
        }
    }

    fn next_state(&mut self, now: Moment, acked: &Acked) {
        let inflight = acked.inflight as f64;
        match self.state {
            State::Startup if self.is_full() => self.state = State::Drain,
            State::Drain if inflight <= self.fills(1.0) => self.probe_rate(now),
            State::Startup | State::Drain => {}
            State::ProbeRate(part, since, lost) => {
                let lost = lost || acked.lost > 0;
                let long = now.since(since) > self.trip;
                let done = match CYCLE[part] {
                    gain if gain > 1.0 => {
                        long && (lost || acked.inflight_before as f64 >= self.target(gain))
                    }
                    gain if gain < 1.0 => long || inflight <= self.target(1.0),
                    _ => long,
                };
                self.state = if done {
                    State::ProbeRate((part + 1) % CYCLE.len(), now, false)
                } else {
                    State::ProbeRate(part, since, lost)
                };
            }
            State::ProbeTrip(None) if inflight <= WINDOW_MIN => {
                self.state = State::ProbeTrip(Some(now + PROBE.max(self.trip)));
            }
            State::ProbeTrip(Some(until)) if until <= now => {
                self.trip_at = now;
                self.window = self.window.max(self.before);
                self.before = 0.0;
                if self.is_full() { self.probe_rate(now) } else { self.state = State::Startup }
            }
            State::ProbeTrip(_) => {}
        }
    }

    fn probe_rate(&mut self, now: Moment) {
        // Kernels begin anywhere but with the 0.75; where is not worth a die here.
        self.state = State::ProbeRate(2 + self.round % 6, now, false);
    }

    /// The window that a gain wants, with room for offloads.
    fn target(&self, gain: f64) -> f64 {
        let more = if matches!(self.state, State::ProbeRate(0, ..)) { 2.0 } else { 0.0 };
        (self.fills(gain) + 3.0 * self.burst() + more).max(WINDOW_MIN)
    }

    fn set_window(&mut self, acked: &Acked) {
        let came = acked.came as f64;
        if acked.lost > 0 {
            self.window = (self.window - acked.lost as f64).max(1.0);
        }
        if acked.new_episode && !self.recovers {
            (self.recovers, self.conserves) = (true, true);
            self.before = self.before.max(self.window);
            self.window = acked.inflight as f64 + came;
            self.round_ends = acked.delivered;
        } else if self.recovers && acked.recovered {
            (self.recovers, self.conserves) = (false, false);
            self.window = self.window.max(self.before);
            self.before = 0.0;
        }
        let target = self.target(match self.state {
            State::Startup | State::Drain => HIGH,
            _ => WINDOW_GAIN,
        });
        if self.conserves {
            self.window = self.window.max(acked.inflight as f64 + came);
        } else if self.is_full() {
            self.window = (self.window + came).min(target);
        } else if self.window < target || (acked.delivered as f64) < WINDOW_FIRST {
            self.window += came;
        }
        self.window = self.window.max(WINDOW_MIN);
    }
}

impl Control for Bbr {
    fn acked(&mut self, now: Moment, acked: &Acked) {
        self.measure(now, acked);
        self.next_state(now, acked);
        let gain = match self.state {
            State::Startup => HIGH,
            State::Drain => 1.0 / HIGH,
            State::ProbeRate(part, ..) => CYCLE[part],
            State::ProbeTrip(_) => 1.0,
        };
        let pacing = gain * self.rate() * MARGIN;
        if pacing > 0.0 && (self.is_full() || pacing > self.pacing) {
            self.pacing = pacing;
        }
        self.set_window(acked);
    }

    fn timed_out(&mut self, _: Moment) {
        self.before = self.before.max(self.window);
        (self.window, self.recovers) = (1.0, true);
        self.conserves = false;
    }

    fn window(&self) -> u64 {
        let small = matches!(self.state, State::ProbeTrip(_));
        if small { self.window.min(WINDOW_MIN) as u64 } else { self.window as u64 }
    }

    fn pacing(&self) -> Option<f64> {
        Some(self.pacing)
    }
}
