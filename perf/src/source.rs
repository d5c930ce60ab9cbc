//! What the next op is, and on which name.
//!
//! A *lane* is one connection's share: the names it registers are its own, so that every register
//! and every release must succeed, whatever the other connections do.
//!
//! Invariants:
//! - S1  A lane releases only what it has registered, first in first out, and never holds more
//!   names than it owns.
//! - S2  A register follows the release of the same name by at least half of the lane's names, so
//!   that the names it touches are as cold as a large population's.

use ringway_core::rng::Rng;

use crate::error::ConfigError;
use crate::mix::{Kind, Mix};
use crate::names::{NameMaker, NameSpec, Picker};

/// What a phase does with the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// The mix, until the phase ends.
    Mix,
    /// Every lane registers the half of its names that a mix with releases holds in the long run.
    Hold,
    /// One kind of op on every `step`-th index from the lane's share of `from..to`, once.
    Walk {
        /// Register or release.
        kind: Kind,
        /// The first index.
        from: u64,
        /// Behind the last index.
        to: u64,
        /// Takes every index (1) or every second one (2).
        step: u64,
    },
}

/// One connection's share of the names, and how far it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane {
    walk_next: u64,
    walk_end: u64,
    first: u64,
    count: u64,
    registered: u64,
    released: u64,
}

impl Lane {
    /// The `number`-th of `lanes` equal shares of the names to churn.
    pub(crate) fn new(churn_first: u64, churn_count: u64, number: u64, lanes: u64) -> Lane {
        let (from, to) = share(churn_first, churn_first + churn_count, number, lanes);
        Lane { first: from, count: to - from, ..Lane::default() }
    }

    /// Begins a task: a walk gets its share of the indices, aligned to the step.
    pub(crate) fn begin(&mut self, task: Task, number: u64, lanes: u64) {
        if let Task::Walk { from, to, step, .. } = task {
            let steps = (to - from).div_ceil(step);
            let (first, last) = share(0, steps, number, lanes);
            self.walk_next = from + first * step;
            self.walk_end = (from + last * step).min(to);
        }
    }

    /// Names that the mix has registered and not yet released.
    pub(crate) fn held(&self) -> u64 {
        self.registered - self.released
    }
}

fn share(from: u64, to: u64, number: u64, lanes: u64) -> (u64, u64) {
    let count = u128::from(to - from);
    let cut = |number: u64| from + (count * u128::from(number) / u128::from(lanes)) as u64;
    (cut(number), cut(number + 1))
}

/// Draws kinds and names for one thread's lanes.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Makes the names.
    pub(crate) names: NameMaker,
    task: Task,
    picker: Picker,
    rng: Rng,
    query_bound: u64,
    recycle: bool,
}

impl Source {
    /// The source of one thread; threads differ in what they pick, not in the names.
    pub(crate) fn new(
        spec: &NameSpec,
        names: NameMaker,
        mix: &Mix,
        thread: usize,
    ) -> Result<Source, ConfigError> {
        let mut rng = Rng::new(spec.seed ^ (thread as u64 + 1).wrapping_mul(0x9E37_79B9));
        let picker = Picker::new(spec, &mut rng)?;
        let (query_bound, recycle) = (mix.query_bound(), mix.release > 0);
        Ok(Source { names, task: Task::Mix, picker, rng, query_bound, recycle })
    }

    /// What the next draws are for. The lanes begin it too.
    pub(crate) fn begin(&mut self, task: Task) {
        self.task = task;
    }

    /// The kind of a lane's next op; the next register or release goes on in one direction for a
    /// whole request, so it is asked once a request.
    #[inline]
    pub(crate) fn turn(&self, lane: &Lane) -> Kind {
        match self.task {
            Task::Walk { kind, .. } => kind,
            Task::Hold => Kind::Register,
            // S2: half of the names are held in the long run.
            Task::Mix if self.recycle && lane.held() >= lane.count / 2 => Kind::Release,
            Task::Mix => Kind::Register,
        }
    }

    /// The next op: a query, or what the request's turn says. `None` when the lane has no more.
    #[inline]
    pub(crate) fn next(&mut self, lane: &mut Lane, turn: Kind) -> Option<(Kind, u64)> {
        match self.task {
            Task::Mix => {
                let all = self.query_bound == 1 << 32;
                if all || self.rng.next_u64() >> 32 < self.query_bound {
                    return Some((Kind::Query, self.picker.pick(&mut self.rng)));
                }
                self.churn(lane, turn)
            }
            Task::Hold if lane.held() < lane.count / 2 => self.churn(lane, turn),
            Task::Hold => None,
            Task::Walk { kind, step, .. } => {
                if lane.walk_next >= lane.walk_end {
                    return None;
                }
                lane.walk_next += step;
                Some((kind, lane.walk_next - step))
            }
        }
    }

    /// One more op of the kind of a request's first, for commands that hold one kind only.
    #[inline]
    pub(crate) fn next_alike(&mut self, lane: &mut Lane, kind: Kind) -> Option<u64> {
        match (self.task, kind) {
            (Task::Mix, Kind::Query) => Some(self.picker.pick(&mut self.rng)),
            (Task::Mix, turn) => self.churn(lane, turn).map(|(_, index)| index),
            (Task::Hold | Task::Walk { .. }, turn) => self.next(lane, turn).map(|(_, index)| index),
        }
    }

    fn churn(&self, lane: &mut Lane, turn: Kind) -> Option<(Kind, u64)> {
        let held = lane.held();
        if turn == Kind::Release && held > 0 {
            let index = lane.first + lane.released % lane.count;
            lane.released += 1;
            return Some((Kind::Release, index));
        }
        if held == lane.count || (!self.recycle && lane.registered == lane.count) {
            return None;
        }
        let index = lane.first + lane.registered % lane.count;
        lane.registered += 1;
        Some((Kind::Register, index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn source(mix: &str) -> Source {
        let spec = NameSpec { count: 100, ..NameSpec::default() };
        let names = NameMaker::new(&spec, 1000).expect("valid");
        Source::new(&spec, names, &mix.parse().expect("valid"), 0).expect("valid")
    }

    /// S1 and S2 over a long run: nothing is registered twice, nothing is released that is not
    /// held, and both kinds take equal turns once half of the lane is held.
    #[test]
    fn lanes_register_and_release_their_own() {
        let mut source = source("register=1,release=1");
        let mut lane = Lane::new(1000, 400, 1, 4);
        let (mut held, mut registers, mut releases) = (HashSet::new(), 0, 0);
        for _ in 0..200 {
            let turn = source.turn(&lane);
            for _ in 0..16 {
                let (kind, index) = source.next(&mut lane, turn).expect("never ends");
                assert!((1100..1200).contains(&index), "a name of another lane");
                if kind == Kind::Register {
                    assert!(held.insert(index), "registered twice");
                    registers += 1;
                } else {
                    assert!(held.remove(&index), "released what is not held");
                    releases += 1;
                }
            }
            assert!(held.len() <= 66);
        }
        assert!(registers - releases <= 66 && releases > 1500);
    }

    /// A mix begins as it goes on: after the hold its first request releases.
    #[test]
    fn a_hold_fills_half_of_the_lane() {
        let mut source = source("register=1,release=1");
        let mut lane = Lane::new(1000, 400, 1, 4);
        source.begin(Task::Hold);
        let mut next = || source.next(&mut lane, Kind::Register);
        let held: HashSet<_> = std::iter::from_fn(|| next().map(|(_, index)| index)).collect();
        assert_eq!(held, (1100..1150).collect());
        source.begin(Task::Mix);
        assert_eq!(source.turn(&lane), Kind::Release);
        assert_eq!(source.next(&mut lane, Kind::Release), Some((Kind::Release, 1100)));
    }

    /// Without releases every register takes a fresh name, and then there are none left.
    #[test]
    fn fresh_names_end() {
        let mut source = source("register=1");
        let mut lane = Lane::new(1000, 40, 0, 4);
        let mut seen = HashSet::new();
        while let Some((kind, index)) = source.next(&mut lane, Kind::Register) {
            assert!(kind == Kind::Register && seen.insert(index));
        }
        assert_eq!(seen, (1000..1010).collect());
    }

    /// The lanes of a walk cover the range once, with a step too.
    #[test]
    fn walks_cover_the_range_once() {
        for (to, step) in [(1000, 1), (999, 2), (3, 2), (7, 1)] {
            let mut source = source("query=1");
            let task = Task::Walk { kind: Kind::Register, from: 1, to, step };
            source.begin(task);
            let mut seen = vec![];
            for number in 0..7 {
                let mut lane = Lane::default();
                lane.begin(task, number, 7);
                let mut take = || source.next(&mut lane, Kind::Register).map(|(_, index)| index);
                seen.extend(std::iter::from_fn(&mut take));
            }
            assert_eq!(seen, (1..to).step_by(step as usize).collect::<Vec<_>>());
        }
    }

    /// The shares of a mix are those that were asked for, within what chance allows.
    #[test]
    fn shares_are_kept() {
        let mut source = source("query=80,register=10,release=10");
        let mut lane = Lane::new(1000, 5000, 0, 1);
        let queries = (0..100_000)
            .filter(|_| {
                let turn = source.turn(&lane);
                source.next(&mut lane, turn).expect("never ends").0 == Kind::Query
            })
            .count();
        assert!((79_000..81_000).contains(&queries), "{queries}");
    }
}
