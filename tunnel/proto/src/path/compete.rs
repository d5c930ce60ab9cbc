//! A window beside somebody who fills every queue: as CUBIC has it (RFC 9438), so that each takes
//! what the other leaves, but for what the path loses anyway.
//!
//! Bounds: constant time and memory. Not here: when it is used (`rate`). Tests: here, and beside
//! rivals in `ringway-wan`.

use ringway_core::{Moment, Span};

use crate::sabotage::{Rule, Sabotage};

/// What a window is counted in, as those beside do it.
const PACKET: f64 = 1500.0;
/// RFC 9438: how steeply it grows, and what a loss leaves.
const C: f64 = 0.4;
const BETA: f64 = 0.7;
/// What Reno would add in a round trip, for the same average.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// A loss within this part of the time that the window takes to be back is early; so many of them
/// say that somebody else does not mind losses.
const EARLY: f64 = 0.4;
const PRESSED: u32 = 2;
/// What who is pressed keeps of the window at first: giving way further is of no use to anybody.
const KEPT: f64 = 0.25;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compete {
    /// Packets.
    window: f64,
    /// The window at first.
    first: f64,
    /// The window before the last loss.
    most: f64,
    /// When it began to grow, and when it is there again.
    epoch: Option<(Moment, f64)>,
    reno: f64,
    /// When the window was made smaller last.
    reduced_at: Moment,
    /// How often running something was lost long before the window was back where it had been.
    pressed: u32,
    sabotage: Sabotage,
}

impl Compete {
    pub(super) fn new(bytes: u64, sabotage: Sabotage) -> Self {
        let window = (bytes as f64 / PACKET).max(4.0);
        Self {
            window,
            first: window,
            most: window,
            epoch: None,
            reno: window,
            reduced_at: Moment(0),
            pressed: 0,
            sabotage,
        }
    }

    /// Bytes.
    pub(super) fn window(&self) -> u64 {
        (self.window * PACKET) as u64
    }

    /// Somebody is beside us whom losses do not bother, so giving way is of no use.
    pub(super) fn is_pressed(&self) -> bool {
        self.pressed >= PRESSED && !self.sabotage.breaks(Rule::PressedHolds)
    }

    /// Something was lost that the path does not lose by itself. Whether the window is smaller.
    pub(super) fn reduce(&mut self, now: Moment) -> bool {
        let until = cube_root(self.most * (1.0 - BETA) / C);
        let early = (now.since(self.reduced_at).0 as f64) < until * EARLY * 1e9;
        self.pressed = if early { (self.pressed + 1).min(2 * PRESSED) } else { self.pressed / 2 };
        self.reduced_at = now;
        if self.is_pressed() {
            return false;
        }
        let falls = self.window < self.most;
        self.most = if falls { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.window = (self.window * BETA).max(4.0);
        self.epoch = None;
        true
    }

    /// It was not used for a while: it grows from here.
    pub(super) fn resume(&mut self) {
        self.epoch = None;
    }

    /// So many bytes came. Who is pressed has `held` on its way, but not next to nothing.
    pub(super) fn grow(&mut self, now: Moment, (rtt, bytes): (Span, u64), held: u64) {
        if self.is_pressed() {
            let least = self.sabotage.unless(Rule::PressedKeeps, 0.0, self.first * KEPT).max(4.0);
            (self.window, self.epoch) = ((held as f64 / PACKET).max(least), None);
            self.most = self.window;
            return;
        }
        let came = bytes as f64 / PACKET;
        let (window, most) = (self.window, self.most.max(self.window));
        let (began, until) = *self.epoch.get_or_insert_with(|| {
            self.reno = window;
            self.most = most;
            (now, cube_root((most - window) / C))
        });
        let at = (now.since(began).0 + rtt.0) as f64 / 1e9 - until;
        let wanted = (C * at * at * at + self.most).clamp(window, 1.5 * window);
        let alpha = if self.reno >= self.most { 1.0 } else { ALPHA };
        self.reno += alpha * came / window;
        self.window = (window + (wanted - window) / window * came).max(self.reno);
    }
}

/// The cube root: Newton's steps; there is none without `std`.
fn cube_root(number: f64) -> f64 {
    if number <= 0.0 {
        return 0.0;
    }
    let mut guess = if number > 1.0 { number / 3.0 + 1.0 } else { 1.0 };
    for _ in 0..40 {
        guess -= (guess * guess * guess - number) / (3.0 * guess * guess);
    }
    guess
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    /// Sends whole windows, a round trip of 40 ms each, until then.
    fn grow(compete: &mut Compete, from: u64, until: u64) {
        for ms in (from..until).step_by(40) {
            compete.grow(at(ms), (Span::from_ms(40), compete.window()), 0);
        }
    }

    /// What RFC 9438 says: seven tenths at once, and all of it again after the cube root of
    /// 0.3 x window / 0.4 seconds, 6 s for 300 packets.
    #[test]
    fn a_loss_costs_three_tenths_for_some_seconds() {
        let mut compete = Compete::new(300 * 1500, Sabotage::default());
        assert!(compete.reduce(at(100_000)));
        assert_eq!(compete.window(), 210 * 1500);
        grow(&mut compete, 100_000, 103_000);
        assert!((270 * 1500..300 * 1500).contains(&compete.window()), "{}", compete.window());
        grow(&mut compete, 103_000, 107_000);
        assert!((298 * 1500..310 * 1500).contains(&compete.window()), "{}", compete.window());
    }

    /// What is to be held follows from what goes by, and that from what is held: it does not become
    /// next to nothing.
    #[test]
    fn who_is_pressed_keeps_a_quarter() {
        let mut compete = Compete::new(300 * 1500, Sabotage::default());
        for ms in [100_000, 100_500, 101_000] {
            compete.reduce(at(ms));
        }
        assert!(compete.is_pressed());
        compete.grow(at(101_040), (Span::from_ms(40), 1500), 10 * 1500);
        assert_eq!(compete.window(), 75 * 1500);
    }

    /// Who gives way and is hit again at once, and again, gives way no more; when losses are rare
    /// again, it does.
    #[test]
    fn who_is_pressed_holds() {
        let mut compete = Compete::new(300 * 1500, Sabotage::default());
        assert!(compete.reduce(at(100_000)));
        assert!(compete.reduce(at(100_500)));
        assert!(!compete.reduce(at(101_000)), "the second early one");
        compete.grow(at(101_040), (Span::from_ms(40), 1500), 400 * 1500);
        assert_eq!(compete.window(), 400 * 1500, "what it is told to hold");
        assert!(compete.reduce(at(130_000)));
    }
}
