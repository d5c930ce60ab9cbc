//! What a path loses by itself, and what is lost beyond that.
//!
//! Loss is looked at in windows of a round trip and some thousands of packets, of rounds in which
//! no more was tried: what overflows then is our own doing. What the path loses by itself, the
//! *floor*, is the middle one of the last windows in which no queue stood: the least would call
//! chance congestion, and the most would hide some. What is beyond it by more than
//! chance, and beyond every window of late, two windows running, is *excess*. Nobody knows yet
//! whose: so less is sent for a window, seven tenths. If less is lost then, it was too much. If
//! not, it is the path's own from now on.
//!
//! ```text
//! windows --within the floor, no queue--> one more window of the floor
//!       \--beyond it, twice--> test --less is lost, or a queue stands--> slower
//!                                 \--as much is lost--> the floor is higher
//! ```
//!
//! What always holds:
//! - The floor is at most [`LOSS_MAX`]: who loses more is not told to go on as before.
//! - Of a window in which somebody's queue stood, or the receiver's host dropped what had come,
//!   nothing is learned about the path. Who sends too much for a host is slowed down all the same.
//! - Before anything is known, less than [`START_LOSS`] counts as the path's own. Who meets others
//!   before guesses: the least of what is lost beside them, over some packets each.
//!
//! Bounds: constant time and memory. Not here: what follows from it for the rate (`rate`), or for
//! a window beside others (`compete`). Tests: here, and lines of all kinds in `ringway-wan`.

use super::mark::Mark;
use crate::sabotage::{Rule, Sabotage};

/// Windows of which the middle one is the floor.
const WINDOWS: usize = 11;
/// A path's own loss that differs by so much is worth a line.
const FLOOR_STEP: f64 = 0.001;
/// A window of loss has at least so many packets.
const WINDOW_PACKETS: u64 = 2000;
/// Before anything is known of a path, less than this is taken for its own loss.
const START_LOSS: f64 = 0.28;
/// And more than this is tested, before it is.
const FIRST_LOSS: f64 = 0.01;
/// Beside others it is guessed by so many packets, and first by fewer.
const GUESS_PACKETS: u64 = 1000;
const GUESS_FIRST: u64 = 100;
/// More than this is never a path's own.
const LOSS_MAX: f64 = 0.35;
/// So much lost of so many packets is more than chance.
const MOST: f64 = 0.5;
const MOST_PACKETS: u64 = 250;
/// What is left of a rate at once, at least.
const LEAST_PART: f64 = 0.25;
/// What is sent to see whether loss is the path's own.
const TEST: f64 = 0.7;
/// On a path that loses less than this, so much more is somebody's queue that overflowed.
const CLEAN: f64 = 0.002;
const EXCESS: f64 = 0.003;

/// What a round was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Nothing was the matter.
    Even,
    /// A queue stood.
    Queued,
    /// A short one stood, though less was sent than goes by: it overflows.
    Full,
    /// More was tried than goes by.
    Tried,
}

/// What a window says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    /// The path's own loss is this, which is news.
    Floor(f64),
    /// So much is lost, beyond that much of its own: less is sent for a window.
    Excess(f64, f64),
    /// Less is lost when less is sent: this part of the rate passes.
    Slower(f64),
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    /// Packets of this window: those that were sent, and those that came.
    sent: u64,
    came: u64,
    /// Nothing but the path's own loss can have been in it.
    clean: bool,
    /// What overflows was in it.
    full: bool,
    windows: [f64; WINDOWS],
    count: usize,
    /// What the path loses by itself, as far as is seen beside others; and of how many packets.
    guess: Option<f64>,
    guessed: u64,
    /// The floor that was said last.
    told: Option<f64>,
    /// Windows running that were beyond the floor.
    excess: u32,
    /// The next window begins with this number.
    from: u64,
    /// What was lost before less was sent to see whether it is the path's own.
    tested: Option<f64>,
    pub(super) sabotage: Sabotage,
}

impl Default for Loss {
    fn default() -> Self {
        Self {
            sent: 0,
            came: 0,
            clean: true,
            full: false,
            windows: [0.0; WINDOWS],
            count: 0,
            guess: None,
            guessed: 0,
            told: None,
            excess: 0,
            from: 0,
            tested: None,
            sabotage: Sabotage::default(),
        }
    }
}

impl Loss {
    /// The path's own loss; zero before it is known, or guessed.
    pub(super) fn floor(&self) -> f64 {
        let known = self.count.min(WINDOWS);
        if self.sabotage.breaks(Rule::LossIsFloored) {
            return 0.0;
        }
        if known == 0 {
            return self.guess.unwrap_or(0.0);
        }
        let mut sorted = self.windows;
        sorted[..known].sort_unstable_by(f64::total_cmp);
        sorted[self.sabotage.unless(Rule::FloorIsMiddle, 0, known / 2)]
    }

    /// Whether anything was learned about the path's own loss.
    pub(super) fn is_known(&self) -> bool {
        self.count > 0
    }

    /// The part of the rate that is sent, while it is seen whether losses are the path's own.
    pub(super) fn brake(&self) -> f64 {
        if self.tested.is_some() { TEST } else { 1.0 }
    }

    /// Others send on this path: the window begins anew.
    pub(super) fn pause(&mut self) {
        (self.sent, self.came) = (0, 0);
        (self.clean, self.full) = (true, false);
    }

    /// Somebody else is there: what was being tested was perhaps theirs.
    pub(super) fn meet(&mut self) {
        self.tested = None;
        self.pause();
    }

    /// A round beside others is over. Their queue overflows now and then, and what the path loses
    /// is lost all the time.
    pub(super) fn beside(&mut self, before: &Mark, mark: &Mark) {
        self.sent += mark.number.saturating_sub(before.number);
        self.came += mark.packets.saturating_sub(before.packets);
        let enough = if self.guess.is_none() { GUESS_FIRST } else { GUESS_PACKETS };
        if self.sent < enough {
            return;
        }
        let lost = (1.0 - self.came as f64 / self.sent as f64).clamp(0.0, LOSS_MAX);
        // The first of all is of too few to be the least.
        let least = self.guess.filter(|_| self.guessed >= GUESS_PACKETS).unwrap_or(LOSS_MAX);
        (self.guess, self.guessed) = (Some(lost.min(least)), self.sent);
        self.pause();
    }

    /// More than this is not the path's own, though nothing is known of it.
    fn start_loss(&self) -> f64 {
        self.sabotage.unless(Rule::StartMayLose, 0.0, START_LOSS)
    }

    /// What went by, of so many packets of which this part was lost, as a part of what was sent:
    /// what was dropped before the bottleneck did not. `alone`: nobody else is known to be there.
    pub(super) fn passed(&self, (lost, packets): (f64, f64), alone: bool) -> f64 {
        let floor = self.floor();
        let counts = self.is_known() || !alone || lost > self.start_loss();
        let counts = counts && !self.sabotage.breaks(Rule::LostHasNotPassed);
        if counts && self.is_beyond(lost, packets) { (1.0 - lost) / (1.0 - floor) } else { 1.0 }
    }

    /// Whether so much was lost, of so many packets, that somebody's queue must have overflowed.
    pub(super) fn is_congestion(&self, (lost, packets): (f64, f64)) -> bool {
        let floor = self.floor();
        let clean = floor < CLEAN && !self.sabotage.breaks(Rule::LittleCountsWhenClean);
        if clean { lost - floor >= EXCESS } else { self.is_beyond(lost, packets) }
    }

    /// Whether so much loss of so many packets is more than a path with this floor shows by chance:
    /// three standard deviations, and a thousandth.
    fn is_beyond(&self, lost: f64, packets: f64) -> bool {
        let floor = self.floor();
        let over = lost - floor - 0.001;
        let packets = self.sabotage.unless(Rule::ChanceIsNoExcess, f64::INFINITY, packets);
        over > 0.0 && over * over * packets > 9.0 * floor.max(1.0 / packets) * (1.0 - floor)
    }

    /// A round trip is over, with how things stood before and behind it; the next packet has this
    /// number.
    pub(super) fn round(
        &mut self,
        (before, mark): (&Mark, &Mark),
        how: How,
        next: u64,
    ) -> Option<Verdict> {
        let (lost, _) = mark.lost_since(before);
        if before.number < self.from || how == How::Tried && lost <= self.start_loss() {
            return None;
        }
        self.sent += mark.number.saturating_sub(before.number);
        self.came += mark.packets.saturating_sub(before.packets);
        self.clean &= how == How::Even && mark.dropped == before.dropped;
        self.full |= how == How::Full;
        let test = WINDOW_PACKETS / if self.is_known() { 2 } else { 8 };
        let enough = if self.tested.is_some() { test } else { WINDOW_PACKETS };
        let packets = self.sent as f64;
        let lost = (1.0 - self.came as f64 / packets.max(1.0)).max(0.0);
        // Where most is lost, on a slow path, that is seen sooner.
        let enough = if lost > MOST { enough.min(MOST_PACKETS) } else { enough };
        if self.sent < enough {
            return None;
        }
        let (clean, full) = (self.clean, self.full);
        self.pause();
        if let Some(most) = self.tested.take() {
            self.from = next;
            return Some(self.end_test((most, lost), (clean, full)));
        }
        self.judge((lost, packets), clean, next)
    }

    /// A window is over.
    fn judge(&mut self, (lost, packets): (f64, f64), clean: bool, next: u64) -> Option<Verdict> {
        let floor = self.floor();
        let first = !self.is_known();
        let known = !first || lost > self.start_loss().min(FIRST_LOSS) || !clean;
        // Where losses come in bursts, windows differ by more than chance alone would have it.
        let usual = self.windows.iter().copied().fold(0.0, f64::max);
        let beyond = known && self.is_beyond(lost, packets) && lost > usual + EXCESS;
        self.excess = if beyond { self.excess + 1 } else { 0 };
        let certain = first || lost > 0.1 + 2.0 * floor;
        let enough = self.sabotage.unless(Rule::ExcessComesTwice, 1, 2);
        if self.excess >= enough || self.excess == 1 && certain {
            if self.sabotage.breaks(Rule::ExcessIsTested) {
                return Some(Verdict::Slower(((1.0 - lost) / (1.0 - floor)).max(TEST)));
            }
            self.tested = Some(lost);
            (self.from, self.excess) = (next, 0);
            return Some(Verdict::Excess(lost, floor));
        }
        if clean && !beyond { self.learn(lost, 1) } else { None }
    }

    /// Less was sent because more was lost than usual: if that helped, it was too much; if not, it
    /// is the path's own loss from now on.
    fn end_test(&mut self, (before, lost): (f64, f64), (clean, full): (bool, bool)) -> Verdict {
        let floor = self.floor();
        // Beside a queue nothing is learned about the path.
        let helped = lost - floor < 0.6 * (before - floor);
        if helped || !clean && self.is_known() || lost > LOSS_MAX {
            let part = ((1.0 - before) / (1.0 - lost.min(before))).max(TEST);
            // Where a queue overflows all the same, or most is lost, what comes is what passes.
            let passes = TEST * (1.0 - lost) / (1.0 - floor);
            let known = !full && lost <= LOSS_MAX;
            if !self.is_known() {
                self.learn(lost, 1);
            }
            return Verdict::Slower(if known { part } else { passes.max(LEAST_PART) });
        }
        self.learn(lost, WINDOWS / 2 + 1);
        let floor = self.floor();
        self.told = Some(floor);
        Verdict::Floor(floor)
    }

    /// A window, or more like it, of the path's own loss. Says the floor if that is news.
    fn learn(&mut self, lost: f64, times: usize) -> Option<Verdict> {
        if lost > LOSS_MAX {
            return None;
        }
        for _ in 0..times {
            self.windows[self.count % WINDOWS] = lost;
            self.count += 1;
        }
        let floor = self.floor();
        let news = self.told.is_none_or(|told| (told - floor).abs() >= FLOOR_STEP);
        (news && self.count.is_multiple_of(WINDOWS)).then(|| {
            self.told = Some(floor);
            Verdict::Floor(floor)
        })
    }
}

#[cfg(test)]
mod tests {
    use ringway_core::Moment;

    use super::*;

    /// A path of 2000 packets a round trip.
    struct Story {
        loss: Loss,
        at: Mark,
    }

    fn near(one: f64, other: f64) -> bool {
        (one - other).abs() < 0.001
    }

    impl Story {
        fn new() -> Self {
            let (sent_at, came_at) = (Moment(0), Moment(0));
            let at = Mark { number: 0, packets: 0, sent: 0, sent_at, came_at, dropped: 0 };
            Self { loss: Loss::default(), at }
        }

        /// One that has lost so much of its own for long.
        fn settled(lost: f64) -> Self {
            let mut story = Self::new();
            if lost > FIRST_LOSS {
                let said = story.test(lost, lost);
                assert!(matches!(said, Some(Verdict::Floor(_))), "{said:?}");
            }
            for _ in 0..WINDOWS {
                story.window(lost);
            }
            assert!(near(story.loss.floor(), lost));
            story
        }

        /// So many packets more, of which this part is lost: how things stood before them.
        fn goes_on(&mut self, packets: u64, lost: f64) -> Mark {
            let before = self.at;
            self.at.number += packets;
            self.at.packets += packets - (packets as f64 * lost).round() as u64;
            before
        }

        fn round(&mut self, lost: f64, how: How) -> Option<Verdict> {
            let before = self.goes_on(2000, lost);
            // What is on its way is as much again.
            self.loss.round((&before, &self.at), how, self.at.number + 2000)
        }

        fn window(&mut self, lost: f64) -> Option<Verdict> {
            self.round(lost, How::Even)
        }

        /// Until something is tested, and then the same with less.
        fn test(&mut self, lost: f64, then: f64) -> Option<Verdict> {
            let said = self.window(lost).or_else(|| self.window(lost));
            assert!(matches!(said, Some(Verdict::Excess(..))), "{said:?}");
            self.tested(then, How::Even)
        }

        fn tested(&mut self, then: f64, how: How) -> Option<Verdict> {
            assert_eq!(self.loss.brake(), TEST);
            assert_eq!(self.window(0.9), None, "what was on its way before says nothing");
            let said = self.round(then, how);
            assert_eq!(self.loss.brake(), 1.0);
            assert_eq!(self.window(0.9), None);
            said
        }
    }

    /// One window in which less is lost by chance, or more, is not what a path does.
    #[test]
    fn the_floor_is_the_middle_one() {
        let mut story = Story::settled(0.05);
        for lost in [0.052, 0.01, 0.051, 0.049, 0.053, 0.05, 0.048, 0.0, 0.05] {
            assert_eq!(story.window(lost), None);
        }
        assert!(near(story.loss.floor(), 0.05), "{}", story.loss.floor());
    }

    /// What chance does is not tested, nor one window of more; two are, and nothing is less by
    /// then: it is the path's own. If less is lost with less, it was too much.
    #[test]
    fn more_than_ever_is_tested() {
        let mut story = Story::settled(0.02);
        assert_eq!(story.window(0.027), None);
        assert_eq!(story.window(0.06), None);
        assert_eq!(story.window(0.02), None);
        assert_eq!(story.loss.brake(), 1.0);
        let Some(Verdict::Floor(floor)) = story.test(0.06, 0.059) else { panic!() };
        assert!(near(floor, 0.059), "{floor}");
        let Some(Verdict::Slower(part)) = story.test(0.16, 0.06) else { panic!() };
        assert!((0.88..0.9).contains(&part), "0.84 of 0.94: {part}");
        assert!(story.loss.floor() < 0.061);
    }

    /// What our first tries overflow is not the path's own, nor what later ones do; what goes on
    /// behind them is tested before it is.
    #[test]
    fn what_our_own_tries_overflow_is_not_the_paths_own() {
        let mut story = Story::new();
        for _ in 0..5 {
            assert_eq!(story.round(0.2, How::Tried), None);
        }
        assert_eq!(story.loss.floor(), 0.0);
        let said = story.test(0.1, 0.0);
        assert!(matches!(said, Some(Verdict::Slower(part)) if near(part, 0.9)), "{said:?}");
        assert_eq!(story.loss.floor(), 0.0);
        for _ in 0..WINDOWS {
            story.window(0.0);
            assert_eq!(story.round(0.1, How::Tried), None);
        }
        assert_eq!((story.loss.floor(), story.loss.brake()), (0.0, 1.0));
    }

    /// The first losses are the path's own if they stay, but nothing loses as much as most.
    #[test]
    fn what_is_lost_at_first_may_be_the_paths_own() {
        let mut story = Story::new();
        let said = story.test(0.2, 0.2);
        assert!(matches!(said, Some(Verdict::Floor(floor)) if near(floor, 0.2)), "{said:?}");
        let mut story = Story::new();
        let said = story.test(0.6, 0.6);
        assert!(matches!(said, Some(Verdict::Slower(part)) if part < TEST), "{said:?}");
        assert_eq!(story.loss.floor(), 0.0);
    }

    /// A queue that overflows although less is sent is short, but it is one: the path has become
    /// slower than that. What comes is what passes.
    #[test]
    fn a_short_queue_that_overflows_is_no_loss_of_the_path() {
        let mut story = Story::settled(0.0);
        assert_eq!(story.window(0.05), None);
        assert!(matches!(story.window(0.25), Some(Verdict::Excess(..))));
        let said = story.tested(0.245, How::Full);
        let Some(Verdict::Slower(part)) = said else { panic!("{said:?}") };
        assert!(near(part, TEST * 0.755), "{part}");
        assert_eq!(story.loss.floor(), 0.0);
    }

    /// What is lost while a queue stands says nothing of the path.
    #[test]
    fn beside_a_queue_nothing_is_learned() {
        let mut story = Story::settled(0.02);
        for _ in 0..5 {
            assert_eq!(story.round(0.024, How::Queued), None);
        }
        assert!(story.loss.windows.iter().all(|lost| near(*lost, 0.02)));
    }

    /// Who meets others before anything is known takes for the path's own what is always lost
    /// beside them; and forgets what was being tested.
    #[test]
    fn beside_others_the_least_is_guessed() {
        let mut story = Story::new();
        assert!(matches!(story.window(0.05), Some(Verdict::Excess(..))));
        story.loss.meet();
        assert_eq!(story.loss.brake(), 1.0);
        for lost in [0.0, 0.08, 0.03, 0.06, 0.1] {
            let packets = if lost == 0.0 { 100 } else { 1000 };
            let before = story.goes_on(packets, lost);
            story.loss.beside(&before, &story.at);
        }
        assert!(near(story.loss.floor(), 0.03), "{}", story.loss.floor());
        assert!(story.loss.is_congestion((0.2, 200.0)));
        assert!(!story.loss.is_known());
    }

    /// What a host drops is not what a path loses, but less is sent.
    #[test]
    fn what_a_host_drops_is_not_the_paths_own() {
        let mut story = Story::settled(0.02);
        let dropping = |story: &mut Story, lost: f64| {
            let before = story.goes_on(2000, lost);
            story.at.dropped += 8;
            story.loss.round((&before, &story.at), How::Even, story.at.number)
        };
        for _ in 0..WINDOWS {
            assert_eq!(dropping(&mut story, 0.024), None);
        }
        assert!(near(story.loss.floor(), 0.02), "{}", story.loss.floor());
        assert_eq!(dropping(&mut story, 0.06), None);
        assert!(matches!(dropping(&mut story, 0.06), Some(Verdict::Excess(..))));
        let said = dropping(&mut story, 0.05);
        assert!(matches!(said, Some(Verdict::Slower(part)) if part < 1.0), "{said:?}");
        assert!(near(story.loss.floor(), 0.02), "{}", story.loss.floor());
    }

    /// On a path that loses nothing of its own a little is somebody's queue, of however few.
    #[test]
    fn little_counts_where_nothing_is_lost() {
        let mut story = Story::settled(0.0);
        assert!(story.loss.is_congestion((0.005, 200.0)));
        story = Story::settled(0.02);
        assert!(!story.loss.is_congestion((0.025, 200.0)));
        assert!(story.loss.is_congestion((0.08, 200.0)));
        assert_eq!(story.loss.passed((0.025, 200.0), true), 1.0);
        assert!(story.loss.passed((0.08, 200.0), true) < 0.94);
    }
}
