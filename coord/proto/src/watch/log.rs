//! A log of changes that holds the newest of each name and class.
//!
//! Readers have a place in it each and nothing else. A change that is replaced leaves its place, so
//! what one reader has still to read never grows beyond one change a name; the newer one remembers
//! where the older one stood, and so knows which readers have missed that. (Of a reader that went
//! on in several steps it knows only where that was before the first of them: it may say that one
//! was missed which was not, never the other way round.)
//!
//! Invariants:
//! - L1  Places grow from the front to the back; there is one entry a key.
//! - L2  A reader at `complete_from` or behind it has lost nothing but what was replaced.
//!
//! Bounds: bytes, as the caller says; adding takes logarithmic time, and on average a constant
//! number of entries is moved for it.
//! Tests: below.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::hash::BuildHasher;

use hashbrown::HashTable;

use crate::keyed::KeyedState;
use crate::watch::event::Event;

/// One change.
struct Entry {
    at: u64,
    /// Where the change stood that this one replaced; zero without one.
    before: u64,
    /// The event; nothing once it was replaced.
    bytes: Box<[u8]>,
}

/// Bytes of an entry beside its event: itself, its place in the index, what the allocator keeps.
pub const ENTRY_BYTES: usize = size_of::<Entry>() + 32;
/// Replaced entries that may stand around besides as many as there are others.
const DEAD_MIN: usize = 32;

/// The log.
#[derive(Default)]
pub struct Log {
    entries: VecDeque<Entry>,
    /// Places of the entries that were not replaced, by key.
    index: HashTable<u64>,
    dead: usize,
    bytes: usize,
    complete_from: u64,
    tail: u64,
}

/// How far somebody has read a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// It has read everything up to here, but for what was replaced.
    pub at: u64,
    /// It had read really everything up to here.
    from: u64,
}

impl Progress {
    /// It lacks nothing up to a place.
    #[inline]
    pub const fn through(at: u64) -> Self {
        Self { at, from: at }
    }

    /// It has read up to a place, and may have passed over what was replaced before.
    #[inline]
    pub const fn unsure(at: u64) -> Self {
        Self { at, from: 0 }
    }

    /// It has read on to a place, and there is more.
    #[inline]
    pub const fn step_to(&mut self, at: u64) {
        self.at = at;
    }
}

/// What a reader finds.
pub struct Found<'a> {
    /// Its place.
    pub at: u64,
    /// Whether this reader has missed an earlier change of the same key.
    pub skipped: bool,
    /// The event.
    pub event: Event<'a>,
}

impl Log {
    /// An empty log that is complete for readers at `at`.
    pub fn starting_at(at: u64) -> Self {
        Self { complete_from: at, tail: at, ..Self::default() }
    }

    /// The place of the newest change that there was.
    #[inline]
    pub const fn tail(&self) -> u64 {
        self.tail
    }

    /// L2: the earliest place at which a reader lacks nothing.
    #[inline]
    pub const fn complete_from(&self) -> u64 {
        self.complete_from
    }

    /// Bytes that it holds, roughly.
    #[inline]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a change at a place behind all others. It replaces the earlier one of its key.
    pub fn push(&mut self, keys: &KeyedState, at: u64, event: &[u8]) {
        assert!(at > self.tail, "L1");
        self.tail = at;
        let key = Event(event).key();
        let entries = &self.entries;
        let hash_at = |place: &u64| keys.hash_one(Event(&find(entries, *place).bytes).key());
        let is_it = |place: &u64| Event(&find(entries, *place).bytes).key() == key;
        let mut before = 0;
        match self.index.entry(keys.hash_one(key), is_it, hash_at) {
            hashbrown::hash_table::Entry::Occupied(mut place) => {
                before = core::mem::replace(place.get_mut(), at);
            }
            hashbrown::hash_table::Entry::Vacant(place) => drop(place.insert(at)),
        }
        if before != 0 {
            self.replace(before);
        }
        self.bytes += ENTRY_BYTES + event.len();
        self.entries.push_back(Entry { at, before, bytes: event.into() });
    }

    /// Adds a change and drops the oldest ones until all have at most so many bytes, or only this
    /// one is left. Returns how many went.
    pub fn push_within(&mut self, keys: &KeyedState, at: u64, event: &[u8], most: usize) -> u64 {
        self.push(keys, at, event);
        let mut evicted = 0;
        while self.bytes > most && self.bytes > ENTRY_BYTES + event.len() && self.evict(keys) {
            evicted += 1;
        }
        evicted
    }

    /// The entry at a place holds nothing any more.
    fn replace(&mut self, at: u64) {
        let index = self.entries.partition_point(|entry| entry.at < at);
        let bytes = core::mem::take(&mut self.entries[index].bytes);
        self.bytes -= ENTRY_BYTES + bytes.len();
        self.dead += 1;
        if self.dead > DEAD_MIN + self.entries.len() / 2 {
            self.entries.retain(|entry| !entry.bytes.is_empty());
            self.dead = 0;
        }
    }

    /// Drops the oldest change; false if there is none. Readers before it have lost it.
    pub fn evict(&mut self, keys: &KeyedState) -> bool {
        while let Some(entry) = self.entries.pop_front() {
            if entry.bytes.is_empty() {
                self.dead -= 1;
                continue;
            }
            self.bytes -= ENTRY_BYTES + entry.bytes.len();
            self.complete_from = self.complete_from.max(entry.at);
            let hash = keys.hash_one(Event(&entry.bytes).key());
            let found = self.index.find_entry(hash, |place| *place == entry.at);
            found.expect("what was not replaced is in the index").remove();
            return true;
        }
        false
    }

    /// Forgets everything: all readers have read it.
    pub fn clear(&mut self) {
        if self.entries.capacity() > 0 {
            *self = Self { tail: self.tail, ..Self::default() };
        }
        self.complete_from = self.tail;
    }

    /// Something was lost before it came here: whoever is not behind this place lacks it, and so
    /// needs nothing of what is there.
    pub fn lose(&mut self, at: u64) {
        assert!(at > self.tail, "L1");
        self.tail = at;
        self.clear();
    }

    /// What a reader has still to read, oldest first.
    pub fn after(&self, read: Progress) -> impl Iterator<Item = Found<'_>> {
        let start = self.entries.partition_point(|entry| entry.at <= read.at);
        let entries = self.entries.range(start..).filter(|entry| !entry.bytes.is_empty());
        entries.map(move |entry| Found {
            at: entry.at,
            skipped: read.from < entry.before,
            event: Event(&entry.bytes),
        })
    }
}

/// The entry at a place that is in the index.
fn find(entries: &VecDeque<Entry>, at: u64) -> &Entry {
    let index = entries.partition_point(|entry| entry.at < at);
    &entries[index]
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;

    use ringway_core::rng::Rng;
    use ringway_core::{Epoch, SessionId, ShardId, Token};

    use super::*;
    use crate::watch::event::{Change, Kind, encode};

    fn keys() -> KeyedState {
        KeyedState::new([3, 5])
    }

    fn event(sequence: u64, kind: Kind, name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let change = Change {
            kind,
            session: SessionId(1),
            token: Token(2),
            extra: 0,
            shared: false,
            name: name.as_bytes(),
        };
        encode(&mut out, (ShardId(0), Epoch(1), sequence), &change);
        out
    }

    fn read(log: &Log, cursor: u64) -> String {
        let words = log.after(Progress::through(cursor)).map(|found| {
            let name = String::from_utf8_lossy(found.event.name()).into_owned();
            let skipped = if found.skipped { "+" } else { "" };
            format!("{name}{}{skipped}", found.at)
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// The newest of a name replaces the one before it. Who has not read that is told so; who has
    /// is not. Another class of change of the same name stands for itself.
    #[test]
    fn the_newest_replaces_and_says_so() {
        let (mut log, keys) = (Log::starting_at(10), keys());
        log.push(&keys, 11, &event(11, Kind::Acquired, "a"));
        log.push(&keys, 12, &event(12, Kind::Acquired, "b"));
        log.push(&keys, 13, &event(13, Kind::Waiting, "a"));
        assert_eq!(read(&log, 10), "a11 b12 a13");
        log.push(&keys, 14, &event(14, Kind::Released, "a"));
        assert_eq!(read(&log, 10), "b12 a13 a14+");
        assert_eq!(read(&log, 11), "b12 a13 a14", "it has read what was replaced");
        assert_eq!(read(&log, 14), "");
    }

    /// A reader that stopped half-way has passed over what was replaced in the meantime, and is
    /// told so when the newer one comes.
    #[test]
    fn who_reads_in_steps_hears_what_it_passed_over() {
        let (mut log, keys) = (Log::starting_at(10), keys());
        log.push(&keys, 11, &event(11, Kind::Acquired, "a"));
        log.push(&keys, 12, &event(12, Kind::Acquired, "b"));
        log.push(&keys, 13, &event(13, Kind::Released, "a"));
        let mut read = Progress::through(10);
        let first = log.after(read).next().expect("b");
        assert_eq!((first.at, first.skipped), (12, false));
        read.step_to(first.at);
        let second = log.after(read).next().expect("a");
        assert_eq!((second.at, second.skipped), (13, true));
    }

    /// What is evicted is lost for readers before it only, and a later change of the same name is
    /// a first one again.
    #[test]
    fn what_is_evicted_is_lost_for_those_before_it() {
        let (mut log, keys) = (Log::starting_at(10), keys());
        log.push(&keys, 11, &event(11, Kind::Acquired, "a"));
        log.push(&keys, 12, &event(12, Kind::Acquired, "b"));
        assert!(log.evict(&keys));
        assert_eq!(log.complete_from(), 11);
        log.push(&keys, 13, &event(13, Kind::Released, "a"));
        assert_eq!(read(&log, 11), "b12 a13");
        assert!(log.evict(&keys) && log.evict(&keys) && !log.evict(&keys));
        assert_eq!((log.complete_from(), log.bytes()), (13, 0));
        log.lose(20);
        assert_eq!((log.complete_from(), log.tail()), (20, 20));
    }

    /// Against a model: each reader's rest, in order, with what it has missed, over replacing,
    /// evicting and clearing. What is replaced leaves no memory behind.
    #[test]
    fn a_log_is_what_a_model_says() {
        let (mut log, keys, mut rng) = (Log::starting_at(1), keys(), Rng::new(7));
        // By key: all places it changed at. And what was dropped from the front.
        let mut model: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut dropped = 1;
        for at in 2..20_000u64 {
            let name = format!("n{}", rng.below(40));
            log.push(&keys, at, &event(at, Kind::Acquired, &name));
            model.entry(name).or_default().push(at);
            if rng.chance(50) && log.evict(&keys) {
                let newest = model.values().filter_map(|all| all.last());
                let oldest = newest.filter(|at| **at > dropped).min().copied();
                dropped = oldest.expect("it evicted one");
            }
            if rng.chance(2) {
                log.clear();
                dropped = at;
            }
            assert_eq!(log.complete_from(), dropped);
            let cursor = dropped + rng.below(at - dropped + 1);
            let mut expected: Vec<(u64, String)> = Vec::new();
            for (name, all) in &model {
                let Some(newest) = all.last().filter(|at| **at > cursor) else { continue };
                let missed = all.iter().filter(|at| **at > cursor).count() > 1;
                let skipped = if missed { "+" } else { "" };
                expected.push((*newest, format!("{name}{newest}{skipped}")));
            }
            expected.sort();
            let expected: Vec<_> = expected.into_iter().map(|(_, word)| word).collect();
            assert_eq!(read(&log, cursor), expected.join(" "));
            assert!(log.entries.len() <= 2 * 40 + 2 * DEAD_MIN + 2, "{}", log.entries.len());
        }
    }
}
