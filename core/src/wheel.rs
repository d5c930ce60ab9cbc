//! A hierarchical timer wheel: many timers, one deadline to wait for.
//!
//! Time is cut into ticks. Eight levels of 64 slots; a slot of level n is 64^n ticks wide. A timer
//! sits in the level of the highest digit (base 64) in which its tick differs from the present
//! one, and moves down a level whenever the wheel reaches its slot: at most seven times in its
//! life. The levels cover 2^48 ticks, which at a millisecond is longer than a `Moment` lasts.
//!
//! Always:
//! - W1  A timer never fires early; it fires at the first [`Wheel::pop`] at or after its moment,
//!   rounded up to a tick.
//! - W2  Timers fire in the order of their ticks.
//! - W3  A key is dead once its timer fired or was cancelled, also when its place is used again.
//!
//! Bounds: insert and cancel take constant time; a pop as long as moving timers down takes, which
//! is constant per timer and level. 24 bytes and the payload per timer, in places that are reused
//! and never given back; 4 KiB for the slots.
//! Tests: below, against a sorted map.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use crate::time::{Moment, Span};

/// Slots of one level: one bit each in a `u64`.
const SLOTS: usize = 64;
/// Bits of a tick that one level decides over.
const BITS: u32 = 6;
/// Levels: eight digits of six bits.
const LEVELS: usize = 8;
/// Ticks beyond this are all the same far future.
const TICK_MAX: u64 = (1 << (BITS * LEVELS as u32)) - 1;
/// No place.
const NONE: u32 = u32::MAX;

/// A timer of a wheel, for cancelling it. Worthless, but harmless, once the timer has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerKey {
    place: u32,
    /// Never zero, so that an `Option` of a key is no larger than a key.
    generation: NonZeroU32,
}

/// Timers with a payload each.
#[derive(Clone, Debug)]
pub struct Wheel<T> {
    tick: Span,
    /// The tick up to which, inclusive, everything has been handed out or is in `due`.
    present: u64,
    places: Vec<Place<T>>,
    free: u32,
    live: usize,
    /// Timers that fire now, oldest first.
    due: List,
    levels: Box<[Level; LEVELS]>,
}

#[derive(Clone, Debug)]
struct Place<T> {
    tick: u64,
    before: u32,
    after: u32,
    generation: NonZeroU32,
    /// The list this timer is in; see `home_of`.
    home: u16,
    payload: Option<T>,
}

/// A doubly linked list through places.
#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    /// Bit s: slot s is not empty.
    occupied: u64,
    slots: [List; SLOTS],
}

const EMPTY: List = List { first: NONE, last: NONE };
/// The home of what is in `due`.
const DUE: u16 = u16::MAX;

impl<T> Wheel<T> {
    /// An empty wheel that starts at `now`, with ticks of one millisecond.
    pub fn new(now: Moment) -> Self {
        Self::with_tick(now, Span::from_ms(1))
    }

    /// An empty wheel with ticks of any length but zero.
    ///
    /// # Panics
    /// If the tick is zero.
    pub fn with_tick(now: Moment, tick: Span) -> Self {
        assert!(tick.0 > 0, "a tick takes time");
        let level = Level { occupied: 0, slots: [EMPTY; SLOTS] };
        Self {
            tick,
            present: now.0 / tick.0,
            places: Vec::new(),
            free: NONE,
            live: 0,
            due: EMPTY,
            levels: Box::new([level; LEVELS]),
        }
    }

    /// How many timers wait.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Adds a timer for `at`; a moment that has passed is due at once.
    pub fn insert(&mut self, at: Moment, payload: T) -> TimerKey {
        let tick = at.0.div_ceil(self.tick.0).min(TICK_MAX);
        let place = self.take_place(tick, payload);
        self.live += 1;
        self.link(place);
        TimerKey { place, generation: self.places[place as usize].generation }
    }

    /// Removes a timer; `None` if it has fired or was cancelled before.
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let place = self.places.get(key.place as usize)?;
        if place.generation != key.generation || place.payload.is_none() {
            return None;
        }
        self.unlink(key.place);
        self.release_place(key.place)
    }

    /// A moment before which nothing fires; `None` if no timer waits. Either a timer fires then, or
    /// timers of a distant slot move closer and the next answer is later: at most seven times for
    /// one timer.
    pub fn wake_at(&self) -> Option<Moment> {
        if self.due.first != NONE {
            return Some(self.moment(self.present));
        }
        self.next_slot().map(|(_, _, tick)| self.moment(tick))
    }

    /// The next timer that is due at `now`, earliest tick first; call until `None`.
    pub fn pop(&mut self, now: Moment) -> Option<T> {
        let now_tick = now.0 / self.tick.0;
        while self.due.first == NONE {
            match self.next_slot() {
                Some((level, slot, tick)) if tick <= now_tick => self.reach(level, slot, tick),
                _ => {
                    self.present = self.present.max(now_tick.min(TICK_MAX));
                    return None;
                }
            }
        }
        let place = self.due.first;
        self.unlink(place);
        self.release_place(place)
    }

    fn moment(&self, tick: u64) -> Moment {
        Moment(tick.saturating_mul(self.tick.0))
    }

    /// The occupied slot that is reached first, and when. A lower level's slots all lie before a
    /// higher one's: they share the higher digits with the present.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        for (number, level) in self.levels.iter().enumerate() {
            if level.occupied != 0 {
                let shift = BITS * number as u32;
                let digit = (self.present >> shift) as usize % SLOTS;
                // Occupied slots are ahead of the present digit: `link` puts timers nowhere else.
                let slot = level.occupied.trailing_zeros() as usize;
                debug_assert!(slot > digit, "level {number}: slot {slot} is behind {digit}");
                let above = self.present >> shift >> BITS << BITS << shift;
                return Some((number, slot, above | (slot as u64) << shift));
            }
        }
        None
    }

    /// Moves the present to a slot's start and its timers down: into `due`, or a lower level.
    fn reach(&mut self, level: usize, slot: usize, tick: u64) {
        self.present = tick;
        let mut place = self.levels[level].slots[slot].first;
        self.levels[level].slots[slot] = EMPTY;
        self.levels[level].occupied &= !(1 << slot);
        while place != NONE {
            let after = self.places[place as usize].after;
            self.link(place);
            place = after;
        }
    }

    /// The list for a timer of this tick, as a number: level * 64 + slot, or `DUE`.
    fn home_of(&self, tick: u64) -> u16 {
        if tick <= self.present {
            return DUE;
        }
        let level = (63 - (tick ^ self.present).leading_zeros()) / BITS;
        let slot = (tick >> (level * BITS)) as usize % SLOTS;
        (level as usize * SLOTS + slot) as u16
    }

    fn list(&mut self, home: u16) -> &mut List {
        if home == DUE {
            return &mut self.due;
        }
        &mut self.levels[usize::from(home) / SLOTS].slots[usize::from(home) % SLOTS]
    }

    /// Appends a place to the list where its tick belongs.
    fn link(&mut self, place: u32) {
        let home = self.home_of(self.places[place as usize].tick);
        let last = core::mem::replace(&mut self.list(home).last, place);
        if last == NONE {
            self.list(home).first = place;
        } else {
            self.places[last as usize].after = place;
        }
        let timer = &mut self.places[place as usize];
        (timer.home, timer.before, timer.after) = (home, last, NONE);
        if home != DUE {
            self.levels[usize::from(home) / SLOTS].occupied |= 1 << (usize::from(home) % SLOTS);
        }
    }

    fn unlink(&mut self, place: u32) {
        let Place { before, after, home, .. } = self.places[place as usize];
        match before {
            NONE => self.list(home).first = after,
            _ => self.places[before as usize].after = after,
        }
        match after {
            NONE => self.list(home).last = before,
            _ => self.places[after as usize].before = before,
        }
        if home != DUE && self.list(home).first == NONE {
            self.levels[usize::from(home) / SLOTS].occupied &= !(1 << (usize::from(home) % SLOTS));
        }
    }

    fn take_place(&mut self, tick: u64, payload: T) -> u32 {
        if self.free != NONE {
            let place = self.free;
            let timer = &mut self.places[place as usize];
            self.free = timer.after;
            (timer.tick, timer.payload) = (tick, Some(payload));
            return place;
        }
        let place = self.places.len() as u32;
        assert!(place < NONE, "four billion timers");
        let links = (NONE, NONE);
        self.places.push(Place {
            tick,
            before: links.0,
            after: links.1,
            generation: NonZeroU32::MIN,
            home: DUE,
            payload: Some(payload),
        });
        place
    }

    fn release_place(&mut self, place: u32) -> Option<T> {
        let timer = &mut self.places[place as usize];
        timer.generation = timer.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        timer.after = self.free;
        self.free = place;
        self.live -= 1;
        timer.payload.take()
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    fn fired(wheel: &mut Wheel<u32>, now: Moment) -> Vec<u32> {
        core::iter::from_fn(|| wheel.pop(now)).collect()
    }

    /// A timer fires in its millisecond, not before; the one after it waits.
    #[test]
    fn nothing_fires_early() {
        let mut wheel = Wheel::new(ms(1_000));
        wheel.insert(Moment(ms(1_005).0 - 1), 5);
        wheel.insert(ms(1_006), 6);
        assert_eq!(fired(&mut wheel, Moment(ms(1_005).0 - 1)), vec![]);
        assert_eq!(fired(&mut wheel, ms(1_005)), vec![5]);
        assert_eq!(wheel.wake_at(), Some(ms(1_006)));
        assert_eq!(fired(&mut wheel, ms(9_000)), vec![6]);
        assert_eq!(wheel.wake_at(), None);
    }

    /// What is already past is due at once, and time that runs backwards does no harm.
    #[test]
    fn the_past_is_due_at_once() {
        let mut wheel = Wheel::new(ms(500));
        wheel.insert(ms(3), 1);
        wheel.insert(ms(500), 2);
        assert_eq!(wheel.wake_at(), Some(ms(500)));
        assert_eq!(fired(&mut wheel, ms(500)), vec![1, 2]);
        wheel.insert(ms(600), 3);
        assert_eq!(fired(&mut wheel, ms(10)), vec![]);
        assert_eq!(fired(&mut wheel, ms(600)), vec![3]);
    }

    /// A key outlives its timer without power over the successor in the same place.
    #[test]
    fn a_dead_key_cancels_nothing() {
        let mut wheel = Wheel::new(ms(0));
        let first = wheel.insert(ms(10), 1);
        assert_eq!(wheel.cancel(first), Some(1));
        let second = wheel.insert(ms(20), 2);
        assert_eq!(wheel.cancel(first), None);
        assert_eq!(fired(&mut wheel, ms(20)), vec![2]);
        assert_eq!(wheel.cancel(second), None);
        assert!(wheel.is_empty());
    }

    /// A timer for the end of time waits without costing more wake-ups than there are levels.
    #[test]
    fn the_far_future_costs_few_wake_ups() {
        let mut wheel = Wheel::new(ms(12_345));
        wheel.insert(Moment(u64::MAX), 1);
        wheel.insert(ms(1_000_000_000), 2);
        let mut wake_ups = 0;
        while wheel.len() == 2 {
            let at = wheel.wake_at().unwrap();
            assert!(at <= ms(1_000_000_000));
            wheel.pop(at);
            wake_ups += 1;
        }
        assert!(wake_ups <= LEVELS, "{wake_ups} wake-ups");
    }

    /// What a client of the wheel can do.
    #[derive(Clone, Debug)]
    enum Act {
        Insert { in_us: u64 },
        Cancel { nth: usize },
        Pass { us: u64 },
        Sleep,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let span = || prop_oneof![0..5_000u64, 0..500_000u64, 0..400_000_000u64, 0..1u64 << 45];
        let act = prop_oneof![
            4 => span().prop_map(|in_us| Act::Insert { in_us }),
            2 => any::<usize>().prop_map(|nth| Act::Cancel { nth }),
            2 => span().prop_map(|us| Act::Pass { us }),
            1 => Just(Act::Sleep),
        ];
        proptest::collection::vec(act, 1..200)
    }

    proptest! {
        /// Against a sorted map: the same timers, in the order of their ticks, at the same pops;
        /// and nobody who sleeps until `wake_at` is ever late.
        #[test]
        fn agrees_with_a_sorted_map(start in 0..1u64 << 50, acts in acts()) {
            let mut now = Moment(start);
            let mut wheel = Wheel::new(now);
            let mut model: BTreeMap<(u64, u32), TimerKey> = BTreeMap::new();
            let tick_of = |at: Moment| at.0.div_ceil(1_000_000);
            for (id, act) in acts.into_iter().enumerate() {
                let id = id as u32;
                match act {
                    Act::Insert { in_us } => {
                        let at = now + Span::from_us(in_us);
                        model.insert((tick_of(at), id), wheel.insert(at, id));
                    }
                    Act::Cancel { nth } if !model.is_empty() => {
                        let victim = *model.keys().nth(nth % model.len()).unwrap();
                        let key = model.remove(&victim).unwrap();
                        prop_assert_eq!(wheel.cancel(key), Some(victim.1));
                        prop_assert_eq!(wheel.cancel(key), None);
                    }
                    Act::Cancel { .. } => {}
                    Act::Pass { us } => now = now + Span::from_us(us),
                    Act::Sleep => now = now.max(wheel.wake_at().unwrap_or(now)),
                }
                if let Some(((tick, _), _)) = model.first_key_value() {
                    let wake = wheel.wake_at().unwrap();
                    prop_assert!(wake <= Moment(tick * 1_000_000).max(now), "late");
                } else {
                    prop_assert_eq!(wheel.wake_at(), None);
                }
                let mut last = 0;
                while let Some(fired) = wheel.pop(now) {
                    let due = *model.keys().find(|(_, id)| *id == fired).unwrap();
                    prop_assert!(due.0 <= now.0 / 1_000_000, "early");
                    prop_assert!(last <= due.0, "out of order");
                    last = due.0;
                    model.remove(&due);
                }
                let first = model.first_key_value().map_or(u64::MAX, |((tick, _), _)| *tick);
                prop_assert!(first > now.0 / 1_000_000, "missed");
                prop_assert_eq!(wheel.len(), model.len());
            }
        }
    }
}
