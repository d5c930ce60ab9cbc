//! When streams leave carriers of packets that work, because the network holds those back.
//!
//! Some networks let UDP through and slow it down: packets arrive, so nothing is silent, and TCP
//! would be many times as fast. What packets bring says nothing of that. So when they have been the
//! bound for a while, a carrier of records is tried with *filler*, bytes that say nothing: where
//! packets are lost a stream would be stuck behind the first of them, filler harms nobody. Only if
//! that goes clearly faster do streams go by records, and only if they are faster there do they
//! stay. Now and then packets are tried again, with the streams themselves; and at once where no
//! carrier of records is left, or soon where those that are left do not answer.
//!
//! Most often nothing is held back: then filler only takes from packets what it brings, for both
//! share a link. So a look ends as soon as that is seen, which costs about a round trip of the
//! path.
//!
//! ```text
//! packets --the bound for a while--> looking --filler was not faster--> packets, later again
//!    ^                                  \--faster--> records --streams are not--> packets
//!    ^---no slower than records--- again <--after a time--/
//!    \------------------no carrier of records answers----/
//! ```
//!
//! Always: filler on its way is at most [`FILLER_FIRST`] more than what has arrived, so a carrier
//! that brings nothing is given little; in all of a look it is what packets bring in some round
//! trips, and at most [`FILLER_MAX`]. Looks and returns that change nothing come half as often each
//! time, down to one in [`LATER_MAX`].
//!
//! Bounds: constant time and memory; of what a busy path carries, filler is a few percent at first
//! and less than one later.

use ringway_core::{Moment, Span};

use crate::pool::rate;

/// Packets are the bound for so long, twice, before records are looked at, and bring no more the
/// second time than so much of what they did before, in percent: who still finds out what the path
/// passes is not held back.
const FULL: (Span, u64) = (Span::from_ms(1500), 10);
const STEADY_PERCENT: u64 = 115;
/// How long a look lasts: at most this, or so many round trips.
const LOOK_FOR: Span = Span::from_s(2);
const LOOK_ROUNDS: u64 = 20;
/// Filler on its way beyond what has arrived; and all of a look's, at least and at most.
const FILLER_FIRST: u64 = 16 * 1024;
const FILLER_MIN: u64 = 64 * 1024;
const FILLER_MAX: u64 = 8 << 20;
/// All of a look's is what packets bring in so many round trips, of so long at least: a path that
/// records fill faster shows that with less.
const FILLER_ROUNDS: u64 = 12;
const ROUND_MIN: Span = Span::from_ms(20);
/// When records are looked at next after a look in vain, and how long streams stay there before
/// packets are tried again: at first, and at most.
const LOOK_AFTER: Span = Span::from_s(30);
const STAY: Span = Span::from_s(60);
const LATER_MAX: Span = Span::from_s(600);
/// Both share a link if less than so much of filler came on top of what packets bring alone, in
/// percent. It is judged when so much of it has arrived as packets bring in so many round trips:
/// what they bring is known no better than to a part of one.
const ON_TOP_PERCENT: u64 = 50;
const JUDGED_ROUNDS: u64 = 1;
/// Records have to bring more than packets, in percent: filler, and then streams.
const FILLER_PERCENT: u64 = 150;
const STREAMS_PERCENT: u64 = 110;
/// Packets that bring so much of what records did are good again, in percent.
const AGAIN_PERCENT: u64 = 90;
/// Whoever takes over needs this long to find the path's rate, and is measured over this: time, and
/// round trips.
const SETTLE: (Span, u64) = (Span::from_s(1), 20);
const MEASURE: (Span, u64) = (Span::from_s(2), 10);

/// Whoever has gone by records waits so long for one of their carriers to answer again: one
/// question that is lost sends nobody back.
const ANSWERS_WITHIN: Span = Span::from_s(1);

/// What carriers of records there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// None at all.
    Gone,
    /// Some, of which none answers.
    Silent,
    /// Some that can be used.
    Usable,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing new.
    Stay,
    /// Fill a carrier of records: packets bring so many bytes a second.
    Look(u64),
    /// Fill none.
    LookNoMore,
    /// Streams go by records.
    Leave,
    /// Streams go by packets, which know nothing of their path any more.
    TryAgain,
    /// Streams stay with packets.
    Return,
}

/// What is so at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Bytes so far of packets that came to the other end.
    pub packets: u64,
    /// Bytes so far of streams that did by records.
    pub records: u64,
    /// There is more to send than goes, and it is the network that keeps it.
    pub full: bool,
    /// The round trip of packets.
    pub rtt: Span,
    /// A carrier of records could be filled.
    pub may_look: bool,
    /// What filler came to, while there is a carrier that is filled.
    pub filled: Option<Filled>,
}

/// What filler came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Bytes of it that arrived.
    pub arrived: u64,
    /// Bytes a second, once some round trips tell.
    pub rate: Option<u64>,
    /// There will be no more of it, and all has arrived.
    pub over: bool,
}

/// A measurement: since when, bytes by then, and whether there was more to send in it.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Moment,
    bytes: u64,
    full: bool,
}

/// A look at records: since when, what packets had brought by then, bytes a second that they
/// brought before it, and their round trip.
#[derive(Clone, Copy, Debug)]
struct Look {
    since: Moment,
    packets: u64,
    before: u64,
    rtt: Span,
}

impl Look {
    /// Whether filler only takes from packets what it brings.
    fn is_shared(&self, now: Moment, seen: Seen, filled: Filled) -> bool {
        let alone =
            |time: Span| (u128::from(self.before) * u128::from(time.0) / 1_000_000_000) as u64;
        if filled.rate.is_none() || filled.arrived < JUDGED_ROUNDS * alone(self.rtt) {
            return false;
        }
        let came = seen.packets.saturating_sub(self.packets) + filled.arrived;
        let on_top = came.saturating_sub(alone(now.since(self.since)));
        !is_percent(on_top, ON_TOP_PERCENT, filled.arrived)
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// By packets: the bound without a break since then, and what they brought before that.
    Packets(Option<(Mark, Option<u64>)>),
    /// The same, while records are filled.
    Looking(Look),
    /// By records: what packets brought while that is to be compared, until when, and what is being
    /// measured.
    Records { before: Option<u64>, until: Moment, mark: Mark },
    /// By packets again, on trial: what records brought, and what is being measured.
    Again { records: u64, mark: Mark },
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Detour {
    state: State,
    next_look_at: Moment,
    /// What the last look left behind counts as the work of others from here on.
    trails_until: Moment,
    look_after: Span,
    stay: Span,
    /// Since when no carrier of records answers, though streams go by those.
    silent_since: Option<Moment>,
}

/// Whether `after` is at least so many percent of `before`.
fn is_percent(after: u64, percent: u64, before: u64) -> bool {
    u128::from(after) * 100 >= u128::from(before) * u128::from(percent)
}

fn least((time, rounds): (Span, u64), rtt: Span) -> Span {
    time.max(Span(rtt.0.saturating_mul(rounds)))
}

impl Detour {
    /// By packets, of which nothing is known.
    pub fn new(now: Moment) -> Self {
        let state = State::Packets(None);
        let (look_after, stay) = (LOOK_AFTER, STAY);
        let silent_since = None;
        Self { state, next_look_at: now, trails_until: now, look_after, stay, silent_since }
    }

    /// Whether streams go by records though packets get through.
    pub fn by_records(&self) -> bool {
        matches!(self.state, State::Records { .. })
    }

    /// Whether a carrier of records is to be filled.
    pub fn is_looking(&self) -> bool {
        matches!(self.state, State::Looking(_))
    }

    /// Whether filler may still be on its way: of a look, or what one left behind. Where records
    /// are stuck that is for long, and then it fills no queue.
    pub fn may_trail(&self, now: Moment) -> bool {
        self.is_looking() || now < self.trails_until
    }

    /// Looks at what is, and says what to do. Called whenever something was sent or has come.
    pub fn look(&mut self, now: Moment, seen: Seen) -> Advice {
        match self.state {
            State::Packets(mark) => self.by_packets(now, seen, mark),
            State::Looking(look) => self.looking(now, seen, look),
            State::Records { .. } => self.on_records(now, seen),
            State::Again { records, mark } => self.again(now, seen, (records, mark)),
        }
    }

    /// Packets do not get through: what was being measured of them means nothing, and there is
    /// nothing to return to.
    pub fn interrupt(&mut self) {
        self.silent_since = None;
        if !self.by_records() {
            self.state = State::Packets(None);
        }
    }

    /// Whether packets are what goes, and nothing else is tried.
    pub fn is_by_packets(&self) -> bool {
        matches!(self.state, State::Packets(_))
    }

    /// Packets get through: if streams go by records and no carrier of those is left, or none has
    /// answered for some time, they go by packets from now on. Returns whether they did not.
    pub fn return_alone(&mut self, now: Moment, records: Records) -> bool {
        let silent = self.by_records() && records == Records::Silent;
        self.silent_since = silent.then(|| self.silent_since.unwrap_or(now));
        let over = records == Records::Gone || self.returns_at().is_some_and(|at| at <= now);
        let went = over && self.by_records();
        if went {
            self.state = State::Packets(None);
            (self.next_look_at, self.silent_since) = (now, None);
        }
        if went && silent {
            // Records that fall silent now and then do not make streams go to and fro.
            self.look_later(now);
        }
        went
    }

    /// When streams go by packets again if no carrier of records answers before.
    pub fn returns_at(&self) -> Option<Moment> {
        self.silent_since.map(|since| since + ANSWERS_WITHIN)
    }

    fn by_packets(&mut self, now: Moment, seen: Seen, mark: Option<(Mark, Option<u64>)>) -> Advice {
        let begin = Mark { at: now, bytes: seen.packets, full: true };
        let Some((mark, was)) = mark.filter(|_| seen.full) else {
            self.state = State::Packets(seen.full.then_some((begin, None)));
            return Advice::Stay;
        };
        let took = now.since(mark.at);
        if took < least(FULL, seen.rtt) {
            return Advice::Stay;
        }
        let before = rate(seen.packets.saturating_sub(mark.bytes), took);
        let steady = was.is_some_and(|was| !is_percent(before, STEADY_PERCENT, was));
        if !steady || !seen.may_look || now < self.next_look_at {
            self.state = State::Packets(Some((begin, Some(before))));
            return Advice::Stay;
        }
        self.state =
            State::Looking(Look { since: now, packets: seen.packets, before, rtt: seen.rtt });
        Advice::Look(before)
    }

    fn looking(&mut self, now: Moment, seen: Seen, look: Look) -> Advice {
        // Packets may do better than before meanwhile.
        let meanwhile = seen.packets.saturating_sub(look.packets);
        let before = look.before.max(rate(meanwhile, now.since(look.since)));
        let found = seen.filled.and_then(|filled| filled.rate).unwrap_or(0);
        if found > 0 && is_percent(found, FILLER_PERCENT, before) {
            let mark = Mark { at: now, bytes: seen.records, full: false };
            let until = now + self.stay;
            self.state = State::Records { before: Some(before), until, mark };
            return Advice::Leave;
        }
        let longest = least((LOOK_FOR, LOOK_ROUNDS), seen.rtt);
        let late = now.since(look.since) >= longest;
        let goes_on =
            seen.filled.is_some_and(|filled| !filled.over && !look.is_shared(now, seen, filled));
        if seen.full && !late && goes_on {
            return Advice::Stay;
        }
        self.state = State::Packets(None);
        self.trails_until = now + longest;
        // Who has lost what was filled looks again, and so does who had no more to send, later.
        match seen.filled {
            None => {}
            Some(_) if goes_on && !late => self.next_look_at = now + self.look_after,
            Some(_) => self.look_later(now),
        }
        Advice::LookNoMore
    }

    fn look_later(&mut self, now: Moment) {
        self.next_look_at = now + self.look_after;
        self.look_after = Span(self.look_after.0 * 2).min(LATER_MAX);
    }

    fn on_records(&mut self, now: Moment, seen: Seen) -> Advice {
        let State::Records { before, until, mark } = &mut self.state else {
            return Advice::Stay;
        };
        mark.full |= seen.full;
        let took = now.since(mark.at);
        let settles = if before.is_some() { least(SETTLE, seen.rtt) } else { Span::ZERO };
        if took < Span(least(MEASURE, seen.rtt).0 + settles.0) {
            return Advice::Stay;
        }
        let (full, found) = (mark.full, rate(seen.records.saturating_sub(mark.bytes), took));
        *mark = Mark { at: now, bytes: seen.records, full: false };
        if !full {
            // What was measured is who writes.
            return Advice::Stay;
        }
        let in_vain = before.take().is_some_and(|one| !is_percent(found, STREAMS_PERCENT, one));
        if in_vain {
            self.state = State::Packets(None);
            self.look_later(now);
            return Advice::Return;
        }
        if now < *until {
            return Advice::Stay;
        }
        let mark = Mark { at: now, bytes: seen.packets, full: false };
        self.state = State::Again { records: found, mark };
        Advice::TryAgain
    }

    fn again(&mut self, now: Moment, seen: Seen, (records, mark): (u64, Mark)) -> Advice {
        let (settle, measure) = (least(SETTLE, seen.rtt), least(MEASURE, seen.rtt));
        let took = now.since(mark.at);
        let settled = mark.full;
        if !settled {
            // Until then nobody can tell whether there is more to send than goes.
            if took >= settle {
                let mark = Mark { at: now, bytes: seen.packets, full: true };
                self.state = State::Again { records, mark };
            }
            return Advice::Stay;
        }
        if seen.full && took < measure {
            return Advice::Stay;
        }
        let found = rate(seen.packets.saturating_sub(mark.bytes), took);
        if !seen.full || is_percent(found, AGAIN_PERCENT, records) {
            // If it is not so after all, that shows when there is more to send.
            self.state = State::Packets(None);
            self.next_look_at = now;
            if seen.full {
                (self.stay, self.look_after) = (STAY, LOOK_AFTER);
            }
            return Advice::Return;
        }
        self.stay = Span(self.stay.0 * 2).min(LATER_MAX);
        let mark = Mark { at: now, bytes: seen.records, full: false };
        let until = now + self.stay;
        self.state = State::Records { before: None, until, mark };
        Advice::Leave
    }
}

/// Answers that a rate is measured over, and one more.
const ANSWERS: usize = 3;

/// A carrier's filler: what was put on it, and what the answers to pings tell of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filler {
    most: u64,
    put: u64,
    /// What was put on it when the ping left that is on its way.
    asked: u64,
    arrived: u64,
    /// Of the last answers: when, and what had arrived.
    answers: [(Moment, u64); ANSWERS],
    count: usize,
}

impl Filler {
    /// For a look beside packets that bring so many bytes a second, with this round trip.
    pub fn new(rate: u64, rtt: Span) -> Filler {
        let rounds = u128::from(rtt.max(ROUND_MIN).0) * u128::from(FILLER_ROUNDS);
        let most = (u128::from(rate) * rounds / 1_000_000_000).min(FILLER_MAX.into()) as u64;
        Filler { most: most.max(FILLER_MIN), ..Filler::default() }
    }

    /// Whether more may be put on it.
    pub fn may_put(&self) -> bool {
        self.put < self.most && self.put - self.arrived < FILLER_FIRST + self.arrived
    }

    /// So many bytes were put on it.
    pub fn put(&mut self, bytes: usize) {
        self.put += bytes as u64;
    }

    /// There is to be no more of it.
    pub fn end(&mut self) {
        self.most = self.put;
    }

    /// A ping leaves behind all of it.
    pub fn asked(&mut self) {
        self.asked = self.put;
    }

    /// The ping is answered: all before it has arrived.
    pub fn answered(&mut self, now: Moment) {
        if self.asked <= self.arrived {
            return;
        }
        self.arrived = self.asked;
        self.answers.rotate_left(1);
        self.answers[ANSWERS - 1] = (now, self.arrived);
        self.count += 1;
    }

    /// What it came to.
    pub fn filled(&self) -> Filled {
        let [(begin, before), .., (end, arrived)] = self.answers;
        let enough = self.count >= ANSWERS;
        let rate = enough.then(|| rate(arrived - before, end.since(begin)));
        let arrived = self.arrived;
        Filled { arrived, rate, over: self.put >= self.most && self.arrived == self.put }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const MS: u64 = 1_000_000;

    /// A sender that is always full, by steps of 100 ms: what packets bring in each, what filler
    /// and then streams bring by records.
    struct World {
        detour: Detour,
        at: u64,
        by_records: bool,
        /// Answers to filler so far, while there is any.
        fills: Option<usize>,
        packets: u64,
        records: u64,
        /// Steps with filler.
        filled: u64,
        looks: Vec<u64>,
        left: Vec<u64>,
        /// When the last look in vain ended.
        ended: Moment,
    }

    impl World {
        fn new() -> World {
            World {
                detour: Detour::new(Moment(0)),
                at: 0,
                by_records: false,
                fills: None,
                packets: 0,
                records: 0,
                filled: 0,
                looks: Vec::new(),
                left: Vec::new(),
                ended: Moment(0),
            }
        }

        fn run(&mut self, seconds: u64, full: bool, [packets, filler, records]: [u64; 3]) {
            for _ in 0..seconds * 10 {
                self.at += 1;
                self.packets += if self.by_records || !full { 0 } else { packets };
                self.records += if self.by_records && full { records } else { 0 };
                let filled = self.fills.map(|answers| {
                    (self.filled, self.fills) = (self.filled + 1, Some(answers + 1));
                    let rate = (answers >= ANSWERS).then_some(filler * 10);
                    let arrived = (answers as u64 - 1) * filler;
                    Filled { arrived, rate, over: false }
                });
                let seen = Seen {
                    packets: self.packets,
                    records: self.records,
                    full,
                    rtt: Span::from_ms(40),
                    may_look: true,
                    filled,
                };
                let advice = self.detour.look(Moment(self.at * 100 * MS), seen);
                match advice {
                    Advice::Stay => continue,
                    Advice::Look(_) => self.looks.push(self.at / 10),
                    Advice::Leave => self.left.push(self.at / 10),
                    Advice::LookNoMore => self.ended = Moment(self.at * 100 * MS),
                    Advice::TryAgain | Advice::Return => {}
                }
                self.fills = matches!(advice, Advice::Look(_)).then_some(1);
                self.by_records = advice == Advice::Leave;
            }
        }
    }

    #[test]
    fn where_packets_are_held_back_streams_leave_and_return() {
        let mut world = World::new();
        world.run(10, true, [10, 100, 90]);
        assert!(world.by_records && world.left == [3], "{:?}", world.left);
        // Nothing has changed: two trials in five minutes, of some seconds each.
        world.run(300, true, [10, 100, 90]);
        assert!(world.by_records && world.left.len() == 3, "{:?}", world.left);
        // Packets are good again: nobody leaves any more.
        world.run(300, true, [95, 60, 90]);
        assert!(!world.by_records && world.left.len() == 3, "{:?}", world.left);
        assert!(world.looks.len() > 2);
    }

    /// Who is still finding out what the path passes is no slower than records by that.
    #[test]
    fn who_becomes_faster_is_not_looked_beside() {
        let mut world = World::new();
        for second in 1..=10 {
            world.run(1, true, [20 * second * second, 5000, 5000]);
        }
        assert!(world.looks.is_empty() && !world.by_records, "{:?}", world.looks);
        world.run(5, true, [2000, 100, 0]);
        assert_eq!(world.looks.len(), 1);
    }

    #[test]
    fn where_packets_are_good_looks_become_rare() {
        let mut world = World::new();
        world.run(3600, true, [100, 100, 90]);
        // 30, 60, ... seconds, then every ten minutes.
        assert!(world.left.is_empty() && (8..=12).contains(&world.looks.len()));
    }

    /// Filler takes from packets what it brings: a look in vain is soon over. Beside packets that
    /// it takes nothing from it lasts.
    #[test]
    fn a_link_that_is_shared_is_soon_known() {
        for (packets, filler, steps) in [(50, 50, 3), (95, 5, 9), (100, 60, 20)] {
            let mut world = World::new();
            world.run(3, true, [100, 0, 0]);
            world.run(7, true, [packets, filler, 0]);
            assert!(!world.by_records && world.looks == [3], "{:?}", world.looks);
            assert!(world.filled.abs_diff(steps) <= 1, "{} for {steps}", world.filled);
        }
    }

    /// Filler that a look has left on records that are stuck is ours for a while, and then what
    /// fills a queue is somebody else.
    #[test]
    fn what_a_look_left_behind_is_ours_for_a_while() {
        let mut world = World::new();
        world.run(10, true, [100, 1, 0]);
        assert!(world.looks == [3] && world.ended > Moment(0), "{:?}", world.looks);
        assert!(world.detour.may_trail(world.ended));
        assert!(!world.detour.may_trail(world.ended + LOOK_FOR));
    }

    /// One answer that is late sends nobody back, silence for a second does; while packets do not
    /// get through either, nobody waits for that.
    #[test]
    fn records_that_fall_silent_are_left() {
        let mut world = World::new();
        world.run(10, true, [10, 100, 90]);
        let ms = |ms: u64| Moment((10_000 + ms) * MS);
        let detour = &mut world.detour;
        assert!(detour.by_records() && !detour.return_alone(ms(0), Records::Silent));
        assert_eq!(detour.returns_at(), Some(ms(1000)));
        assert!(!detour.return_alone(ms(900), Records::Usable));
        assert!(!detour.return_alone(ms(950), Records::Silent));
        assert_eq!(detour.returns_at(), Some(ms(1950)));
        detour.interrupt();
        assert_eq!(detour.returns_at(), None);
        assert!(detour.by_records() && !detour.return_alone(ms(2000), Records::Silent));
        assert!(detour.return_alone(ms(3000), Records::Silent));
        assert!(!detour.by_records() && detour.returns_at().is_none());
        world.run(20, true, [10, 100, 90]);
        assert_eq!(world.left.len(), 1, "it is looked at later");
    }

    /// Filler was fast, and streams are not.
    #[test]
    fn who_left_in_vain_returns_at_once() {
        let mut world = World::new();
        world.run(9, true, [10, 100, 5]);
        assert!(!world.by_records && world.left == [3], "{:?}", world.left);
        world.run(20, true, [10, 100, 5]);
        assert_eq!(world.left.len(), 1, "it is looked at later");
    }

    #[test]
    fn who_has_little_to_send_is_not_judged() {
        let mut world = World::new();
        world.run(600, false, [10, 100, 90]);
        assert!(world.looks.is_empty());
        world.run(10, true, [10, 100, 90]);
        assert!(world.by_records);
        // Silence is no reason to return, nor to try.
        world.run(600, false, [10, 100, 90]);
        assert!(world.by_records);
    }

    /// A carrier that brings nothing is given little; one that does, twice as much each time.
    #[test]
    fn filler_follows_what_arrives() {
        // A gigabyte a second, whatever that is; a hundred kilobytes.
        let mut filler = Filler::new(1_000_000_000, Span::from_ms(100));
        let mut put = Vec::new();
        for round in 0..12 {
            while filler.may_put() {
                filler.put(1024);
            }
            put.push(filler.put);
            filler.asked();
            assert_eq!(filler.filled().rate.is_some(), round >= 3);
            filler.answered(Moment(round * 100 * MS));
        }
        assert_eq!(put[..3], [16 << 10, 48 << 10, 112 << 10]);
        assert!(filler.put >= FILLER_MAX && filler.filled().over);
        assert_eq!(Filler::new(100_000, Span::from_ms(100)).most, 120_000);
        let mut stuck = Filler::new(0, Span::ZERO);
        while stuck.may_put() {
            stuck.put(1024);
        }
        assert_eq!(stuck.put, FILLER_FIRST);
        assert_eq!(stuck.filled(), Filled { arrived: 0, rate: None, over: false });
    }
}
