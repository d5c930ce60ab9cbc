//! What a path loses by itself, and what is lost beyond that.
//!
//! Loss is looked at in windows of a round trip and some thousands of packets. What the path loses
//! by itself, the *floor*, is the middle one of the last windows in which no queue stood, or where
//! there are none, of as many packets of rounds like that: the least would call chance congestion,
//! and the most would hide some. What is beyond it by more than chance, which had its part in a
//! floor of few packets, too, and beyond every window of late, two windows running, is *excess*.
//! Nobody knows yet whose: so less is sent for a window, seven tenths. If less is lost then, it was
//! too much. If not, it is the path's own from now on.
//!
//! ```text
//! windows --within the floor, no queue--> one more window of the floor
//!       \--beyond it, twice--> test --less is lost, or a queue stands--> slower
//!                                 \--as much is lost--> the floor is higher
//! ```
//!
//! What always holds:
//! - The floor is at most [`LOSS_MAX`]: who loses more is not told to go on as before.
//! - Of a round in which somebody's queue stood, the receiver had no room for what had come, or
//!   more was tried, once anything is known, nothing is learned about the path. Who sends too much
//!   for a host is slowed down all the same.
//! - Beside others, who may be the reason for any loss, nothing is learned. If nothing is known
//!   then, the floor is what was lost where least was.
//! - Before anything is known, less than [`START_LOSS`] has gone by; but what is lost first is
//!   tested before it is believed, or what our own tries overflow would be the path's own.
//!
//! Bounds: constant time and memory. Not here: what follows from it for the rate (`rate`), or for
//! a window beside others (`compete`). Tests: here, and lines of all kinds in `ringway-wan`.

use ringway_core::Span;

use super::mark::Mark;
use crate::sabotage::{Rule, Sabotage};

/// Windows of which the middle one is the floor.
const WINDOWS: usize = 11;
/// A path's own loss that differs by so much is worth a line.
const FLOOR_STEP: f64 = 0.001;
/// A window of loss has at least so many packets.
const WINDOW_PACKETS: u64 = 2000;
/// Of fewer packets beside others chance may lose none.
const BESIDE_PACKETS: f64 = 500.0;
/// Before anything is known of a path, less than this is taken for its own loss.
const START_LOSS: f64 = 0.28;
/// And more than this is tested, before it is.
const FIRST_LOSS: f64 = 0.01;
/// More than this is never a path's own.
const LOSS_MAX: f64 = 0.35;
/// So much lost of so many packets is more than chance.
const MOST: f64 = 0.5;
const MOST_PACKETS: u64 = 250;
/// What is left of a rate at once, at least.
pub(super) const LEAST_PART: f64 = 0.25;
/// What is sent to see whether loss is the path's own.
const TEST: f64 = 0.7;
/// On a path that loses less than this, so much more is somebody's queue that overflowed.
const CLEAN: f64 = 0.002;
const EXCESS: f64 = 0.003;

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
    mark: Option<Mark>,
    /// Nothing but the path's own loss can have been in this window.
    clean: bool,
    windows: [f64; WINDOWS],
    count: usize,
    /// Packets of the windows since all that was known was outvoted: what the floor is of, or soon
    /// will be.
    packets: f64,
    /// The floor that was said last.
    told: Option<f64>,
    /// What was lost of how many packets in rounds of windows of which nothing else is learned.
    calm: (f64, f64),
    /// Windows running that were beyond the floor.
    excess: u32,
    /// The next window begins with this number.
    from: u64,
    /// What is known while others are there.
    beside: Beside,
    /// What was lost before less was sent to see whether it is the path's own.
    tested: Option<f64>,
    pub(super) sabotage: Sabotage,
}

/// What was lost while others are there.
#[derive(Clone, Copy, Debug, Default)]
struct Beside {
    /// This part of so many packets, in the rounds since the last window.
    rounds: (f64, f64),
    /// The least of all windows.
    least: Option<f64>,
}

impl Default for Loss {
    fn default() -> Self {
        Self {
            mark: None,
            clean: true,
            windows: [0.0; WINDOWS],
            count: 0,
            packets: 0.0,
            told: None,
            calm: (0.0, 0.0),
            excess: 0,
            from: 0,
            beside: Beside::default(),
            tested: None,
            sabotage: Sabotage::default(),
        }
    }
}

impl Loss {
    /// The path's own loss; zero before it is known, or what it may be at most, beside others.
    pub(super) fn floor(&self) -> f64 {
        if self.sabotage.breaks(Rule::LossIsFloored) {
            return 0.0;
        }
        let known = self.count.min(WINDOWS);
        if known == 0 {
            return self.beside.least.unwrap_or(0.0);
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

    /// A round is over: this part of so many packets was lost, and something but the path may have
    /// done that, unless it was `calm`.
    pub(super) fn note_round(&mut self, round: (f64, f64), calm: bool) {
        if calm {
            self.calm = both(self.calm, round);
        } else {
            self.clean = self.sabotage.breaks(Rule::FloorIsOfEmpty);
        }
    }

    /// A round beside others is over: this part of so many packets was lost. Some of that may be
    /// their work, but a path does not lose more by itself than where least is lost.
    pub(super) fn note_beside(&mut self, round: (f64, f64)) {
        self.beside.rounds = both(self.beside.rounds, round);
        let (lost, packets) = self.beside.rounds;
        if packets >= BESIDE_PACKETS && !self.sabotage.breaks(Rule::LeastIsFloor) {
            let least = self.beside.least.map_or(lost, |least| least.min(lost));
            self.beside = Beside { rounds: (0.0, 0.0), least: Some(least.min(LOSS_MAX)) };
        }
    }

    /// Nobody else is there any more: what was lost before and with them is not to be tested.
    pub(super) fn note_alone(&mut self) {
        (self.beside, self.tested, self.excess) = (Beside::default(), None, 0);
    }

    /// Others send on this path: no window counts.
    pub(super) fn pause(&mut self) {
        (self.mark, self.calm) = (None, (0.0, 0.0));
    }

    /// What went by, of so many packets of which this part was lost, as a part of what was sent:
    /// what was dropped before the bottleneck did not. `alone`: nobody else is known to be there.
    pub(super) fn passed(&self, (lost, packets): (f64, f64), alone: bool) -> f64 {
        let floor = self.floor();
        let forgiven =
            !self.is_known() && alone && !self.sabotage.breaks(Rule::FirstLossesForgiven);
        let usual = if forgiven { START_LOSS } else { floor };
        let counts = !self.sabotage.breaks(Rule::LostHasNotPassed);
        // Of few packets chance loses many, but hardly ever most.
        let counts = counts && (self.is_beyond(usual, (lost, packets)) || forgiven && lost > MOST);
        if counts { (1.0 - lost) / (1.0 - floor) } else { 1.0 }
    }

    /// Whether so much was lost, of so many packets, that somebody's queue must have overflowed.
    pub(super) fn is_congestion(&self, (lost, packets): (f64, f64)) -> bool {
        let floor = self.floor();
        let clean = floor < CLEAN && !self.sabotage.breaks(Rule::LittleCountsWhenClean);
        if clean { lost - floor >= EXCESS } else { self.is_beyond(floor, (lost, packets)) }
    }

    /// Whether so much loss of so many packets is more than a path that loses this shows by chance:
    /// three standard deviations, and a thousandth.
    fn is_beyond(&self, floor: f64, (lost, packets): (f64, f64)) -> bool {
        let over = lost - floor - 0.001;
        let packets = self.sabotage.unless(Rule::ChanceIsNoExcess, f64::INFINITY, packets);
        over > 0.0 && over * over * packets > 9.0 * floor.max(1.0 / packets) * (1.0 - floor)
    }

    /// How many packets would say as much of a certain floor as these do of one in which chance had
    /// its part, too. Where hardly anything is lost a little counts, however few said so: a queue
    /// that overflows would do so for long, and a test tells.
    fn certainty(&self, packets: f64) -> f64 {
        let certain = !self.is_known() || self.floor() < CLEAN;
        if certain { packets } else { packets * self.packets / (packets + self.packets) }
    }

    /// A report came; the next packet has this number.
    pub(super) fn look(&mut self, mark: Mark, next: u64, rtt: Span) -> Option<Verdict> {
        if mark.number < self.from {
            return None;
        }
        let Some(before) = self.mark else {
            (self.mark, self.clean) = (Some(mark), true);
            return None;
        };
        let test = WINDOW_PACKETS / if self.is_known() { 2 } else { 8 };
        let enough = if self.tested.is_some() { test } else { WINDOW_PACKETS };
        let (lost, packets) = mark.lost_since(&before);
        // Where most is lost, on a slow path, that is seen sooner.
        let enough = if lost > MOST { enough.min(MOST_PACKETS) } else { enough };
        if mark.number < before.number + enough || mark.came_at.since(before.came_at) < rtt {
            return None;
        }
        self.mark = Some(mark);
        let dropped = mark.dropped != before.dropped;
        let dropped = dropped && !self.sabotage.breaks(Rule::HostDropsApart);
        let clean = core::mem::replace(&mut self.clean, true) && !dropped;
        if dropped {
            self.calm = (0.0, 0.0);
        }
        if let Some(most) = self.tested.take() {
            (self.from, self.mark, self.calm) = (next, None, (0.0, 0.0));
            return Some(self.end_test(most, (lost, packets), clean));
        }
        self.judge((lost, packets), clean, next)
    }

    /// A window is over.
    fn judge(&mut self, (lost, packets): (f64, f64), clean: bool, next: u64) -> Option<Verdict> {
        let floor = self.floor();
        let first = !self.is_known();
        let known = !first || lost > FIRST_LOSS || !clean;
        // Where losses come in bursts, windows differ by more than chance alone would have it.
        let usual = self.windows.iter().copied().fold(0.0, f64::max);
        let beyond = known && self.is_beyond(floor, (lost, self.certainty(packets)));
        let beyond = beyond && lost > usual + EXCESS;
        self.excess = if beyond { self.excess + 1 } else { 0 };
        let certain = first || lost > 0.1 + 2.0 * floor;
        let enough = self.sabotage.unless(Rule::ExcessComesTwice, 1, 2);
        if self.excess >= enough || self.excess == 1 && certain {
            if self.sabotage.breaks(Rule::ExcessIsTested) {
                return Some(Verdict::Slower(((1.0 - lost) / (1.0 - floor)).max(TEST)));
            }
            self.tested = Some(lost);
            (self.from, self.mark, self.excess, self.calm) = (next, None, 0, (0.0, 0.0));
            return Some(Verdict::Excess(lost, floor));
        }
        // Where more is tried in each window, its other rounds have to do.
        let calm = !clean && self.calm.1 >= WINDOW_PACKETS as f64;
        let (lost, packets) = if calm { self.calm } else { (lost, packets) };
        if clean || calm {
            self.calm = (0.0, 0.0);
        }
        let learns = clean || calm && !self.is_beyond(floor, (lost, packets));
        if learns && !beyond { self.learn((lost, packets), 1) } else { None }
    }

    /// Less was sent because more was lost than usual: if that helped, it was too much; if not, it
    /// is the path's own loss from now on.
    fn end_test(&mut self, before: f64, (lost, packets): (f64, f64), clean: bool) -> Verdict {
        let floor = self.floor();
        // Beside a queue nothing is learned about the path.
        let helped = lost - floor < 0.6 * (before - floor);
        if helped || !clean && self.is_known() || lost > LOSS_MAX {
            let part = ((1.0 - before) / (1.0 - lost.min(before))).max(TEST);
            // That is no path's own: what comes is what passes.
            let passes = TEST * (1.0 - lost) / (1.0 - floor);
            if !self.is_known() {
                self.learn((lost, packets), 1);
            }
            return Verdict::Slower(if lost > LOSS_MAX { passes.max(LEAST_PART) } else { part });
        }
        // What is known was wrong, and is outvoted. The first is of few packets: the next counts as
        // much.
        let times = if self.is_known() { WINDOWS / 2 + 1 } else { 1 };
        self.learn((lost, packets), times);
        let floor = self.floor();
        self.told = Some(floor);
        Verdict::Floor(floor)
    }

    /// A window of the path's own loss, or one that counts as more. Says the floor if it is news.
    fn learn(&mut self, (lost, packets): (f64, f64), times: usize) -> Option<Verdict> {
        if lost > LOSS_MAX {
            return None;
        }
        // What outvotes all others is all that is known.
        let known = if times > 1 { 0.0 } else { self.packets };
        self.packets = (known + packets).min(WINDOWS as f64 * packets);
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

/// What was lost of how many packets, of two parts of them.
fn both((lost, packets): (f64, f64), (more, others): (f64, f64)) -> (f64, f64) {
    let all = packets + others;
    (lost + (more - lost) * others / all.max(1.0), all)
}

#[cfg(test)]
mod tests {
    use ringway_core::Moment;

    use super::*;

    const RTT: Span = Span::from_ms(50);

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
            let mut story = Self { loss: Loss::default(), at };
            assert_eq!(story.hear(1, 0.0), None);
            story
        }

        /// So many packets more, of which this part is lost.
        fn hear(&mut self, packets: u64, lost: f64) -> Option<Verdict> {
            self.at.number += packets;
            self.at.packets += packets - (packets as f64 * lost).round() as u64;
            self.at.came_at = self.at.came_at + Span(RTT.0 * packets / 2000);
            self.loss.look(self.at, self.at.number, RTT)
        }

        fn window(&mut self, lost: f64) -> Option<Verdict> {
            self.hear(2000, lost)
        }

        /// More than the floor is of: the first are a test's.
        fn settle(&mut self, lost: f64) {
            for _ in 0..2 * WINDOWS {
                self.window(lost);
            }
        }

        /// Until something is tested, and then the same with less.
        fn test(&mut self, lost: f64, then: f64) -> Option<Verdict> {
            let said = self.window(lost).or_else(|| self.window(lost));
            assert!(matches!(said, Some(Verdict::Excess(..))), "{said:?}");
            assert_eq!(self.loss.brake(), TEST);
            assert_eq!(self.hear(1, 0.0), None, "what was on its way before says nothing");
            let said = self.window(then);
            assert_eq!(self.loss.brake(), 1.0);
            assert_eq!(self.hear(1, 0.0), None);
            said
        }
    }

    /// One window in which less is lost by chance, or more, is not what a path does.
    #[test]
    fn the_floor_is_the_middle_one() {
        let mut story = Story::new();
        let said = story.test(0.05, 0.05);
        assert!(matches!(said, Some(Verdict::Floor(floor)) if near(floor, 0.05)), "{said:?}");
        for lost in [0.052, 0.01, 0.051, 0.049, 0.053, 0.05, 0.048, 0.0, 0.05] {
            assert_eq!(story.window(lost), None);
        }
        assert!(near(story.loss.floor(), 0.05));
    }

    /// What chance does is not tested, nor one window of more; two are, and nothing is less by
    /// then: it is the path's own. If less is lost with less, it was too much.
    #[test]
    fn more_than_ever_is_tested() {
        let mut story = Story::new();
        story.settle(0.02);
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

    /// What was lost first was of few packets: chance made it less, and the next windows say so
    /// without a test.
    #[test]
    fn the_first_floor_is_corrected() {
        let mut story = Story::new();
        let said = story.window(0.2);
        assert!(matches!(said, Some(Verdict::Excess(..))), "{said:?}");
        assert_eq!(story.hear(1, 0.0), None);
        // The path is a slow one.
        story.at.came_at = story.at.came_at + RTT;
        let said = story.hear(WINDOW_PACKETS / 8, 0.16);
        assert!(matches!(said, Some(Verdict::Floor(floor)) if near(floor, 0.16)), "{said:?}");
        assert_eq!(story.hear(1, 0.0), None);
        assert_eq!((story.window(0.2), story.window(0.202)), (None, None));
        assert!(near(story.loss.floor(), 0.2), "{}", story.loss.floor());
        // Of thousands it is known well enough that twice a little more is more.
        story.settle(0.2);
        assert!(matches!(story.test(0.24, 0.24), Some(Verdict::Floor(_))));
        // And of nothing that was lost, of however few.
        let mut story = Story::new();
        assert!(matches!(story.window(0.02), Some(Verdict::Excess(..))));
        assert_eq!(story.hear(1, 0.0), None);
        story.at.came_at = story.at.came_at + RTT;
        assert!(matches!(story.hear(WINDOW_PACKETS / 8, 0.0), Some(Verdict::Slower(_))));
        assert_eq!((story.hear(1, 0.0), story.window(0.01)), (None, None));
        assert!(matches!(story.window(0.01), Some(Verdict::Excess(..))));
    }

    /// The first losses are the path's own if they stay so with less, but nothing loses as much as
    /// most.
    #[test]
    fn what_is_lost_at_first_is_tested() {
        let mut story = Story::new();
        let said = story.test(0.2, 0.2);
        assert!(matches!(said, Some(Verdict::Floor(floor)) if near(floor, 0.2)), "{said:?}");
        let mut story = Story::new();
        let said = story.test(0.1, 0.0);
        assert!(matches!(said, Some(Verdict::Slower(part)) if near(part, 0.9)), "{said:?}");
        assert_eq!(story.loss.floor(), 0.0);
        let mut story = Story::new();
        let said = story.test(0.6, 0.6);
        assert!(matches!(said, Some(Verdict::Slower(part)) if part < TEST), "{said:?}");
        assert_eq!(story.loss.floor(), 0.0);
    }

    /// A path that loses hardly anything has a floor as well.
    #[test]
    fn a_little_is_learned_at_once() {
        let mut story = Story::new();
        story.settle(0.006);
        assert!(story.loss.is_known() && near(story.loss.floor(), 0.006));
    }

    /// More is tried in each window: a floor that was too high by chance comes down all the same,
    /// by what was lost in other rounds.
    #[test]
    fn calm_rounds_count_where_no_window_is() {
        let mut story = Story::new();
        story.settle(0.12);
        for _ in 0..2 * WINDOWS {
            story.loss.note_round((0.08, 1500.0), true);
            story.loss.note_round((0.12, 500.0), false);
            story.window(0.09);
        }
        assert!(near(story.loss.floor(), 0.08), "{}", story.loss.floor());
    }

    /// What is lost while a queue stands says nothing of the path.
    #[test]
    fn beside_a_queue_nothing_is_learned() {
        let mut story = Story::new();
        story.settle(0.02);
        story.loss.note_round((0.0, 2000.0), false);
        assert_eq!(story.window(0.0), None);
        for _ in 0..5 {
            story.loss.note_round((0.024, 2000.0), false);
            assert_eq!(story.window(0.024), None);
        }
        assert!(story.loss.windows.iter().all(|lost| near(*lost, 0.02)));
        story.loss.pause();
        assert_eq!((story.window(0.5), story.window(0.02)), (None, None));
        assert!(near(story.loss.floor(), 0.02), "the first has no begin");
    }

    /// What was to be tested when others came says nothing once they have gone.
    #[test]
    fn others_end_a_test() {
        let mut story = Story::new();
        story.settle(0.02);
        let said = story.window(0.12).or_else(|| story.window(0.12));
        assert!(matches!(said, Some(Verdict::Excess(..))), "{said:?}");
        story.loss.pause();
        story.loss.note_alone();
        assert_eq!(story.loss.brake(), 1.0);
        assert_eq!(story.hear(1, 0.0), None);
        assert_eq!(story.window(0.12), None, "one window is not two");
        assert!(near(story.loss.floor(), 0.02), "{}", story.loss.floor());
    }

    /// Beside others a path of which nothing is known loses no more than where least is lost; that
    /// is forgotten with them, and says nothing beside what is known.
    #[test]
    fn beside_others_the_least_counts() {
        let mut story = Story::new();
        story.loss.note_beside((0.06, 400.0));
        assert_eq!(story.loss.floor(), 0.0, "of few packets chance may lose many");
        for lost in [0.08, 0.04, 0.05, 0.2] {
            story.loss.note_beside((lost, 600.0));
        }
        assert!(near(story.loss.floor(), 0.04), "{}", story.loss.floor());
        assert!(!story.loss.is_known() && story.loss.is_congestion((0.09, 1000.0)));
        assert!(!story.loss.is_congestion((0.05, 1000.0)));
        story.loss.note_alone();
        assert_eq!(story.loss.floor(), 0.0);
        story.settle(0.006);
        story.loss.note_beside((0.05, 600.0));
        assert!(near(story.loss.floor(), 0.006));
    }

    /// What a host drops is not what a path loses, but less is sent.
    #[test]
    fn what_a_host_drops_is_not_the_paths_own() {
        let mut story = Story::new();
        story.settle(0.02);
        for _ in 0..WINDOWS {
            story.at.dropped += 8;
            assert_eq!(story.window(0.024), None);
        }
        assert!(near(story.loss.floor(), 0.02), "{}", story.loss.floor());
        story.at.dropped += 80;
        assert_eq!(story.window(0.06), None);
        story.at.dropped += 80;
        assert!(matches!(story.window(0.06), Some(Verdict::Excess(..))));
        assert_eq!(story.hear(1, 0.0), None, "the first of less begins");
        story.at.dropped += 60;
        let said = story.window(0.05);
        assert!(matches!(said, Some(Verdict::Slower(part)) if part < 1.0), "{said:?}");
        assert!(near(story.loss.floor(), 0.02), "{}", story.loss.floor());
    }

    /// On a path that loses nothing of its own a little is somebody's queue, of however few.
    #[test]
    fn little_counts_where_nothing_is_lost() {
        let mut story = Story::new();
        assert!(story.loss.is_congestion((0.005, 200.0)));
        story.settle(0.02);
        assert!(!story.loss.is_congestion((0.025, 200.0)));
        assert!(story.loss.is_congestion((0.08, 200.0)));
        assert_eq!(story.loss.passed((0.025, 200.0), true), 1.0);
        assert!(story.loss.passed((0.08, 200.0), true) < 0.94);
    }
}
