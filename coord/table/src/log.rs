//! Which records an owner has: a queue of record ids, 4 bytes each, in chained 64-byte lines.
//!
//! A name that goes to somebody else, or to nobody, leaves a stale entry behind: finding it would
//! cost more than it takes. A record knows its owner, so a stale entry is recognised when it is
//! met. Whenever a log is longer than twice its live names and some, each change takes `STEPS`
//! entries from its front and queues again those that are still valid: no operation ever walks
//! more than that.
//!
//! What is hard is one record that comes back to the same owner again and again (two owners in
//! turn at one lock): its entries all look valid. So the queue is compacted in rounds. A special
//! entry divides what was queued before this round from what was queued in it; a record's *mark*
//! says in which of two alternating rounds its owner queued it last. An entry met at the front
//! whose record is marked with this round has a younger entry behind, and is dropped.
//!
//! An owner of one or two names has no lines: the two ids are in the log itself.
//!
//! Invariants: every record of the owner is in its log. At most `3 * live + 2 * SLACK` entries,
//! where `live` is the most there were since the log was last that short: each later change takes
//! `STEPS` entries off what is too much. 15 entries a line, and one line more.
//! Bounds: `push` and `forget` take constant time and at most one line, which the caller reserved.
//! Tests: below; `tests.rs` with the whole table.

use ringway_core::Region;

use crate::index::Lines;
use crate::record::{Owner, Records};

/// One owner's names, as the table keeps track of them. Lives with the caller's session; the
/// default is the log of an owner without names. A log that is dropped with names in it leaks its
/// lines: sweep it first.
#[derive(Debug, Default)]
pub struct OwnerLog {
    /// The first id; or the front line (28 bits) and how many of its entries are used up.
    front: u32,
    /// The second id; or the back line (28 bits) and how many of its entries are filled.
    back: u32,
    live: u32,
    /// How many entries there are in lines, and above that two flags.
    state: u32,
}

impl OwnerLog {
    /// How many names the owner has.
    #[inline]
    pub fn live(&self) -> u32 {
        self.live
    }

    /// Whether the owner has no names, and the table keeps nothing for it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.live == 0 && !self.has_lines() && self.front == 0 && self.back == 0
    }

    /// Tells that one of the owner's names went to another owner by `Table::replace`.
    ///
    /// # Panics
    /// If the owner had none.
    #[inline]
    pub fn lose(&mut self) {
        assert!(self.live != 0, "an owner lost a name that it did not have");
        self.live -= 1;
    }

    /// Queues a record that is this owner's from now on. One line must be reserved.
    #[inline]
    pub(crate) fn push<R: Region>(&mut self, at: At<'_, R>, owner: Owner, id: u32) {
        self.live += 1;
        if self.has_lines() {
            at.records.set_mark(id, self.round());
            self.queue(at.lines, id);
            self.compact(at, owner);
        } else {
            self.push_inline(at, owner, id);
        }
    }

    /// One of the owner's names was removed.
    #[inline]
    pub(crate) fn forget<R: Region>(&mut self, at: At<'_, R>, owner: Owner, id: u32) {
        self.lose();
        if !self.has_lines() {
            for slot in [&mut self.front, &mut self.back] {
                if *slot == id {
                    *slot = 0;
                }
            }
        } else if at.lines.reserve(1).is_ok() {
            self.compact(at, owner);
        }
    }

    /// Takes up to `ids.len()` entries from the front, stale ones included. Returns how many; zero
    /// means that the log is empty.
    pub(crate) fn drain<R: Region>(&mut self, lines: &mut Lines<R>, ids: &mut [u32]) -> usize {
        let mut count = 0;
        while count < ids.len() {
            let id = self.take_front(lines);
            match id {
                Some(ROUND) => {}
                Some(id) => {
                    ids[count] = id;
                    count += 1;
                }
                None => break,
            }
        }
        count
    }

    /// Calls `near` with the next few entries at the front.
    pub(crate) fn peek<R: Region>(&self, lines: &Lines<R>, near: impl FnMut(u32)) {
        if self.has_lines() {
            let (line, used) = (lines.block(self.front >> FILL_BITS), self.front & FILL_MASK);
            lines.prefetch(line[0]);
            line[1 + used as usize..].iter().copied().for_each(near);
        }
    }

    /// Whether there is any entry, stale ones included.
    pub(crate) fn holds_entries(&self) -> bool {
        self.has_lines() || self.front != 0 || self.back != 0
    }

    fn take_front<R: Region>(&mut self, lines: &mut Lines<R>) -> Option<u32> {
        if self.has_lines() {
            return Some(self.unqueue(lines));
        }
        let id = if self.front != 0 { &mut self.front } else { &mut self.back };
        let id = core::mem::take(id);
        (id != 0).then_some(id)
    }

    #[inline]
    fn push_inline<R: Region>(&mut self, at: At<'_, R>, owner: Owner, id: u32) {
        // Two names or fewer, this one included, and an id of another: it may be stale.
        if self.live <= 2 && self.front != 0 && self.back != 0 {
            for slot in [&mut self.front, &mut self.back] {
                let is_stale = *slot == id || at.records.mark_if_held(*slot, owner).is_none();
                if is_stale {
                    *slot = 0;
                }
            }
        }
        if self.front == id || self.back == id {
            return;
        }
        if self.front == 0 {
            self.front = id;
        } else if self.back == 0 {
            self.back = id;
        } else {
            self.leave_inline(at, id);
        }
    }

    /// Moves on to lines: the end of a round first, since all marks are as they may be.
    #[cold]
    fn leave_inline<R: Region>(&mut self, at: At<'_, R>, id: u32) {
        let ids = [self.front, self.back, id];
        let line = at.lines.take();
        at.lines.block_mut(line)[0] = 0;
        (self.front, self.back) = (line << FILL_BITS, line << FILL_BITS);
        self.state = HAS_LINES;
        self.queue(at.lines, ROUND);
        for id in ids {
            at.records.set_mark(id, self.round());
            self.queue(at.lines, id);
        }
    }

    /// Takes a few entries from the front if the log is too long, and queues the valid ones again.
    #[inline]
    fn compact<R: Region>(&mut self, at: At<'_, R>, owner: Owner) {
        if self.len() > 2 * u64::from(self.live) + SLACK {
            self.compact_now(at, owner);
        }
    }

    #[inline(never)]
    fn compact_now<R: Region>(&mut self, at: At<'_, R>, owner: Owner) {
        for _ in 0..STEPS {
            if !self.has_lines() {
                return;
            }
            let id = self.unqueue(at.lines);
            if id == ROUND {
                self.state ^= ROUND_BIT;
                if self.has_lines() {
                    self.queue(at.lines, ROUND);
                }
            } else if at.records.mark_if_held(id, owner) == Some(!self.round()) {
                at.records.set_mark(id, self.round());
                if !self.has_lines() {
                    return self.push_alone(id);
                }
                self.queue(at.lines, id);
            }
        }
        // What the next call will look at.
        self.peek(at.lines, |id| at.records.prefetch(id));
    }

    /// The last entry of all was valid, and its line is gone.
    fn push_alone(&mut self, id: u32) {
        self.front = id;
    }

    #[inline]
    fn queue<R: Region>(&mut self, lines: &mut Lines<R>, id: u32) {
        if self.back & FILL_MASK == LINE_ENTRIES {
            let next = lines.take();
            lines.block_mut(next)[0] = 0;
            lines.block_mut(self.back >> FILL_BITS)[0] = next;
            self.back = next << FILL_BITS;
        }
        self.back += 1;
        lines.block_mut(self.back >> FILL_BITS)[(self.back & FILL_MASK) as usize] = id;
        self.state += 1;
        debug_assert!(self.len() < u64::from(ROUND_BIT));
    }

    #[inline]
    fn unqueue<R: Region>(&mut self, lines: &mut Lines<R>) -> u32 {
        let link = self.front >> FILL_BITS;
        self.front += 1;
        let line = lines.block(link);
        let (id, next) = (line[(self.front & FILL_MASK) as usize], line[0]);
        self.state -= 1;
        if self.state & (ROUND_BIT - 1) == 0 {
            lines.give(link);
            (self.front, self.back, self.state) = (0, 0, self.state & ROUND_BIT);
        } else if self.front & FILL_MASK == LINE_ENTRIES {
            lines.give(link);
            self.front = next << FILL_BITS;
        }
        id
    }

    #[inline]
    fn has_lines(&self) -> bool {
        self.state & HAS_LINES != 0
    }

    #[inline]
    fn round(&self) -> bool {
        self.state & ROUND_BIT != 0
    }

    #[inline]
    fn len(&self) -> u64 {
        u64::from(self.state & (ROUND_BIT - 1))
    }
}

/// What a log works on.
pub(crate) struct At<'a, R> {
    pub(crate) lines: &'a mut Lines<R>,
    pub(crate) records: &'a mut Records<R>,
}

/// Lines are below this, so that four bits remain beside the number of one.
pub(crate) const LINES_END: u32 = 1 << (u32::BITS - FILL_BITS);
/// The entry that divides two rounds; no record has this id.
const ROUND: u32 = 0;
const HAS_LINES: u32 = 1 << 31;
const ROUND_BIT: u32 = 1 << 30;
const FILL_BITS: u32 = 4;
const FILL_MASK: u32 = (1 << FILL_BITS) - 1;
/// A line is a link and 15 entries.
const LINE_ENTRIES: u32 = 15;
/// Entries that a log may be longer than twice its live names, before it is compacted: two lines.
const SLACK: u64 = 30;
/// Entries looked at by one change. More than two, so that a round ends before the log has grown
/// by half.
const STEPS: usize = 3;

#[cfg(test)]
impl OwnerLog {
    /// All entries, and how many lines they take.
    pub(crate) fn entries<R: Region>(&self, lines: &Lines<R>) -> (std::vec::Vec<u32>, usize) {
        let mut entries = std::vec::Vec::new();
        if !self.has_lines() {
            entries.extend([self.front, self.back].into_iter().filter(|id| *id != 0));
            return (entries, 0);
        }
        let (mut link, mut used, mut count) = (self.front >> FILL_BITS, self.front & FILL_MASK, 1);
        loop {
            let is_last = link == self.back >> FILL_BITS;
            let filled = if is_last { self.back & FILL_MASK } else { LINE_ENTRIES };
            let line = lines.block(link);
            entries.extend(&line[1 + used as usize..=filled as usize]);
            if is_last {
                break;
            }
            (link, used, count) = (line[0], 0, count + 1);
        }
        assert_eq!(entries.len() as u64, self.len());
        entries.retain(|id| *id != ROUND);
        (entries, count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringway_core::region::HeapRegion;

    use super::*;
    use crate::hash::HashKey;
    use crate::name::Name;
    use crate::record::Grant;

    /// Two owners, their logs, and records that belong to either or to nobody.
    struct World {
        records: Records<HeapRegion>,
        lines: Lines<HeapRegion>,
        logs: [OwnerLog; 2],
        held: std::vec::Vec<(u32, usize)>,
        longest: u64,
    }

    impl World {
        fn new() -> Self {
            let region = || HeapRegion::new(usize::MAX);
            Self {
                records: Records::new(region(), region(), HashKey([0; 2])),
                lines: Lines::new(region(), LINES_END),
                logs: [OwnerLog::default(), OwnerLog::default()],
                held: std::vec::Vec::new(),
                longest: 0,
            }
        }

        fn grant(who: usize) -> Grant {
            Grant { owner: Owner(who as u32), sequence: 0, epoch_index: 0, flags: 0 }
        }

        /// A new name of this owner. Freed records are used again, the latest first.
        fn acquire(&mut self, who: usize) {
            let name = Name::new(b"name").expect("short");
            self.records.reserve(&name).expect("no bound");
            let id = self.records.store(0, &name, Self::grant(who));
            self.push(who, id);
            self.held.push((id, who));
        }

        /// A name goes from its owner to the other one, or is released.
        fn part(&mut self, which: usize, hand_over: bool) {
            if self.held.is_empty() {
                return;
            }
            let which = which % self.held.len();
            let (id, who) = self.held[which];
            if hand_over {
                self.records.set_grant(id, Self::grant(1 - who));
                self.push(1 - who, id);
                self.logs[who].lose();
                self.held[which].1 = 1 - who;
            } else {
                self.held.swap_remove(which);
                self.records.free(id);
                let at = At { lines: &mut self.lines, records: &mut self.records };
                self.logs[who].forget(at, Owner(who as u32), id);
            }
        }

        fn push(&mut self, who: usize, id: u32) {
            self.lines.reserve(1).expect("no bound");
            let at = At { lines: &mut self.lines, records: &mut self.records };
            self.logs[who].push(at, Owner(who as u32), id);
            self.longest = self.longest.max(self.logs[who].len());
        }

        fn check(&self) {
            let mut lines = 0;
            for (who, log) in self.logs.iter().enumerate() {
                let (entries, count) = log.entries(&self.lines);
                lines += count;
                let mut held = self.held.iter().filter(|(_, owner)| *owner == who);
                assert!(held.all(|(id, _)| entries.contains(id)), "T2");
                let live = self.held.iter().filter(|(_, owner)| *owner == who).count();
                assert_eq!(log.live() as usize, live);
            }
            assert_eq!(self.lines.used() as usize, lines, "a log leaks lines");
        }
    }

    /// Two owners take one lock in turn, for ever: every entry looks valid when it is met, and yet
    /// neither log may grow. Beside the lock each owner has names that it keeps.
    #[test]
    fn two_owners_at_one_lock() {
        for kept in [0, 1, 2, 3, 40] {
            let mut world = World::new();
            for _ in 0..kept {
                world.acquire(0);
                world.acquire(1);
            }
            world.acquire(0);
            let lock = world.held.len() - 1;
            for _ in 0..100_000 {
                world.part(lock, true);
            }
            world.check();
            let bound = 3 * (kept + 1) + 2 * SLACK;
            assert!(world.longest <= bound, "{} entries for {kept} + 1 names", world.longest);
        }
    }

    /// One owner takes and releases one name for ever: it keeps its two inline places.
    #[test]
    fn one_owner_at_one_lock() {
        let mut world = World::new();
        for _ in 0..1_000 {
            world.acquire(0);
            world.part(0, false);
        }
        assert!(world.logs[0].is_empty());
        assert_eq!(world.longest, 0, "no line was ever needed");
    }

    /// A log whose owner releases everything shrinks with it, a few entries at a time, and gives
    /// its lines back.
    #[test]
    fn an_emptied_log_gives_its_lines_back() {
        let mut world = World::new();
        (0..10_000).for_each(|_| world.acquire(0));
        assert!(world.lines.used() > 600);
        while !world.held.is_empty() {
            world.part(world.held.len() / 2, false);
        }
        assert!(u64::from(world.lines.used()) <= 1 + SLACK.div_ceil(15));
        let mut ids = [0; 64];
        while world.logs[0].drain(&mut world.lines, &mut ids) != 0 {}
        assert_eq!(world.lines.used(), 0);
        assert!(world.logs[0].is_empty());
    }

    proptest! {
        /// Whatever happens, every name is in its owner's log, no line leaks, and the length keeps
        /// its bound.
        #[test]
        fn logs_are_complete_and_bounded(
            steps in prop::collection::vec((0..100u32, any::<usize>(), any::<bool>()), 1..600),
            tide in 20..80u32,
        ) {
            let mut world = World::new();
            let mut most_live = 0;
            for (what, which, flag) in steps {
                match what {
                    what if what < tide => world.acquire(usize::from(flag)),
                    _ => world.part(which, flag),
                }
                most_live = most_live.max(world.held.len() as u64);
                world.check();
            }
            prop_assert!(world.longest <= 3 * most_live + 2 * SLACK);
        }
    }
}
