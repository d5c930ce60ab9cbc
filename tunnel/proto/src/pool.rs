//! How many carriers a session has: one while it is idle, more while more carry more.
//!
//! A further carrier helps where each is held back by its path: by loss, by a window, by a policer.
//! It does not where a processor is the bound, and there it costs, because pieces come out of
//! order. So it is tried: if all together do not carry clearly more than before, it goes again, and
//! the next trial comes later.
//!
//! ```text
//! calm --every carrier full for a while--> trial --more than before--> calm, with one more
//!                                            \--not more--> one retires, the next trial later
//! ```
//!
//! Always: never more than there may be, but for the moment in which one that was given up comes
//! back; never fewer than one because of a judgement. Of more than one, the agent may keep one
//! without bulk (`bond.rs`), which counts here as any other.
//!
//! Bounds: constant time and memory.

use ringway_core::{Moment, Span};

/// All carriers have to be full for so long before another one is tried.
const FULL_FOR: Span = Span::from_ms(250);
/// How long a trial lasts, once the new carrier works.
const TRIAL: Span = Span::from_ms(500);
/// After a trial that brought nothing: how long until the next, at first and at most.
const NEXT_MIN: Span = Span::from_s(2);
const NEXT_MAX: Span = Span::from_s(300);
/// A carrier beyond the first that the session has not needed for so long retires.
const IDLE: Span = Span::from_s(30);
/// Bytes a second that any short path can do: if carriers are full at more, it is a processor that
/// is.
const SHORT_PATH: u64 = 12_500_000;
/// More than before: by this part, in percent.
const BETTER_PERCENT: u64 = 25;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Nothing.
    Stay,
    /// Open a carrier.
    Open,
    /// Let the slowest go.
    Retire,
    /// Let the slowest go, and open another one in its place if there are too few then.
    Replace,
}

/// What is so at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Carriers that can be used.
    pub(crate) usable: usize,
    /// Carriers there may be.
    pub(crate) most: usize,
    /// Bytes of streams that carriers took so far.
    pub(crate) carried: u64,
    /// There is more to send, and no carrier takes it.
    pub(crate) full: bool,
    /// The path has next to no delay.
    pub(crate) short: bool,
    /// Something was sent since the last time.
    pub(crate) busy: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Calm,
    /// Full without a break since then; bytes carried by then.
    Full(Moment, u64),
    /// A carrier was asked for; bytes a second before.
    Opening(u64, usize),
    /// It works: since when, bytes by then, and bytes a second before.
    Trial(Moment, u64, u64),
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool {
    state: State,
    next_trial_at: Moment,
    next_after: Span,
    /// When the slowest may be replaced next, and how long it is until the time after that.
    replace_at: Moment,
    replace_after: Span,
    /// When a second carrier was last of use.
    needed_at: Moment,
}

/// Bytes a second.
pub(crate) fn rate(bytes: u64, took: Span) -> u64 {
    (u128::from(bytes) * 1_000_000_000 / u128::from(took.0.max(1))) as u64
}

impl Pool {
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            state: State::Calm,
            next_trial_at: now,
            next_after: NEXT_MIN,
            replace_at: now,
            replace_after: NEXT_MIN,
            needed_at: now,
        }
    }

    /// Looks at what is, and says what to do. Called whenever something was sent or could not be.
    pub(crate) fn look(&mut self, now: Moment, seen: Seen) -> Advice {
        // One that did not answer was given up too soon, and there is another in its place.
        if seen.usable > seen.most {
            return Advice::Replace;
        }
        if seen.busy {
            self.needed_at = now;
        } else if seen.usable > 1 && now.since(self.needed_at) >= IDLE {
            self.needed_at = now;
            self.state = State::Calm;
            return Advice::Retire;
        }
        match self.state {
            State::Calm if seen.full => self.state = State::Full(now, seen.carried),
            State::Calm => {}
            State::Full(since, carried) => {
                if now.since(since) >= FULL_FOR {
                    let before = rate(seen.carried - carried, now.since(since));
                    return self.full(now, seen, before);
                }
            }
            State::Opening(before, usable) if seen.usable > usable => {
                self.state = State::Trial(now, seen.carried, before);
            }
            State::Opening(_, usable) if seen.usable < usable => self.state = State::Calm,
            State::Opening(..) => {}
            State::Trial(since, carried, before) => {
                if now.since(since) >= TRIAL {
                    let after = rate(seen.carried - carried, now.since(since));
                    return self.judge(now, before, after);
                }
            }
        }
        Advice::Stay
    }

    /// All carriers were full for a while, and moved `before` bytes a second together.
    fn full(&mut self, now: Moment, seen: Seen, before: u64) -> Advice {
        self.state = State::Full(now, seen.carried);
        if seen.short && before >= SHORT_PATH {
            return Advice::Stay;
        }
        if seen.usable < seen.most {
            if now < self.next_trial_at {
                return Advice::Stay;
            }
            self.state = State::Opening(before, seen.usable);
            return Advice::Open;
        }
        // All may crawl, each for a reason of its own that another one would not have.
        if now < self.replace_at {
            return Advice::Stay;
        }
        self.replace_at = now + self.replace_after;
        self.replace_after = Span(self.replace_after.0 * 2).min(NEXT_MAX);
        Advice::Replace
    }

    fn judge(&mut self, now: Moment, before: u64, after: u64) -> Advice {
        self.state = State::Calm;
        let wanted = u128::from(before) * u128::from(100 + BETTER_PERCENT);
        if u128::from(after) * 100 >= wanted {
            self.next_after = NEXT_MIN;
            self.next_trial_at = now;
            return Advice::Stay;
        }
        self.next_trial_at = now + self.next_after;
        self.next_after = Span(self.next_after.0 * 2).min(NEXT_MAX);
        Advice::Retire
    }

    /// The carrier that was asked for did not come.
    pub(crate) fn not_opened(&mut self, now: Moment) {
        if matches!(self.state, State::Opening(..)) {
            self.judge(now, 1, 0);
        }
    }

    /// When a second carrier will have been idle for long enough.
    pub(crate) fn wake_at(&self, usable: usize) -> Option<Moment> {
        (usable > 1).then(|| self.needed_at + IDLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A sender that is always full; `rate` says how many bytes a millisecond so many carriers
    /// take. Returns carriers after the given time, and how often one was opened.
    fn run(most: usize, ms: u64, rate: impl Fn(usize) -> u64) -> (usize, u32) {
        let mut pool = Pool::new(Moment(MS));
        let (mut usable, mut carried, mut opened) = (1, 0, 0);
        for at in 1..=ms {
            carried += rate(usable);
            let seen = Seen { usable, most, carried, full: true, short: false, busy: true };
            match pool.look(Moment(at * MS), seen) {
                Advice::Stay | Advice::Replace => {}
                Advice::Open => (usable, opened) = (usable + 1, opened + 1),
                Advice::Retire => usable -= 1,
            }
        }
        (usable, opened)
    }

    #[test]
    fn carriers_that_carry_more_stay() {
        assert_eq!(run(4, 5_000, |usable| usable as u64 * 1000), (4, 3));
        // Two fill the path.
        assert_eq!(run(4, 2_500, |usable| usable.min(2) as u64 * 1000).0, 2);
    }

    #[test]
    fn where_more_do_not_carry_more_trials_become_rare() {
        let (usable, opened) = run(4, 600_000, |_| 1000);
        assert_eq!(usable, 1);
        // 2, 4, 8, ... seconds, then every five minutes.
        assert!((8..=10).contains(&opened), "{opened}");
    }

    #[test]
    fn where_a_processor_is_the_bound_nothing_is_tried() {
        let mut pool = Pool::new(Moment(MS));
        for at in 1..10_000 {
            let carried = at * 500_000;
            let seen = Seen { usable: 1, most: 4, carried, full: true, short: true, busy: true };
            assert_eq!(pool.look(Moment(at * MS), seen), Advice::Stay);
        }
    }

    #[test]
    fn where_all_crawl_one_after_the_other_is_replaced() {
        let mut pool = Pool::new(Moment(MS));
        let mut replaced = 0;
        for at in 1..60_000 {
            let carried = at * 400;
            let seen = Seen { usable: 4, most: 4, carried, full: true, short: true, busy: true };
            replaced += u32::from(pool.look(Moment(at * MS), seen) == Advice::Replace);
        }
        assert_eq!(replaced, 5, "after 0.25, 2.5, 6.5, 14.5 and 30.5 seconds");
    }

    /// A carrier fell silent for a moment, another one was opened, and both work now.
    #[test]
    fn there_are_never_more_for_long_than_there_may_be() {
        let mut pool = Pool::new(Moment(MS));
        for busy in [false, true] {
            let seen = Seen { usable: 5, most: 4, carried: 0, full: busy, short: false, busy };
            assert_eq!(pool.look(Moment(2 * MS), seen), Advice::Replace);
            assert_eq!(pool.look(Moment(3 * MS), Seen { usable: 4, ..seen }), Advice::Stay);
        }
    }

    #[test]
    fn an_idle_session_goes_back_to_one() {
        let mut pool = Pool::new(Moment(MS));
        let mut usable = 3;
        let mut now = Moment(MS);
        while let Some(at) = pool.wake_at(usable) {
            now = at;
            let seen = Seen { usable, most: 4, carried: 0, full: false, short: false, busy: false };
            assert_eq!(pool.look(now, seen), Advice::Retire);
            usable -= 1;
        }
        assert_eq!((usable, now), (1, Moment(MS) + Span::from_s(60)));
    }

    #[test]
    fn one_that_does_not_come_is_tried_later() {
        let mut pool = Pool::new(Moment(MS));
        let seen = Seen { usable: 1, most: 2, carried: 0, full: true, short: false, busy: true };
        let mut opens = 0;
        for at in 1..10_000 {
            if pool.look(Moment(at * MS), seen) == Advice::Open {
                opens += 1;
                pool.not_opened(Moment(at * MS));
            }
        }
        assert_eq!(opens, 3, "after 0.25, 2 and 4 seconds");
    }
}
