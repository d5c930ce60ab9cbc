//! Where things stand that know their own key: an index of places in a table, found by key.
//!
//! The key is kept once, in the thing itself, so an entry is four bytes and a byte of tag, where a
//! map of keys to places would take 17; and a lookup touches the thing, which the caller wants
//! anyway.
//!
//! Always: a thing that is in here has the key under which it was inserted, until it is removed.
//!
//! Bounds: constant time. The index is [`PARTS`] tables, each of which grows by itself, so that of
//! a million keys no insertion ever moves more than some twenty thousand.

use alloc::boxed::Box;
use core::hash::BuildHasher;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::keyed::KeyedState;

/// Places by key. Every method is told how to learn the key of what stands at a place.
pub struct Places {
    parts: Box<[HashTable<u32>; PARTS]>,
    keys: KeyedState,
    len: usize,
}

/// Tables among which keys are spread.
const PARTS: usize = 64;

impl Places {
    /// None yet.
    pub fn new(keys: KeyedState) -> Self {
        Self { parts: Box::new([const { HashTable::new() }; PARTS]), keys, len: 0 }
    }

    /// The place of a key.
    #[inline]
    pub fn get(&self, key: u64, key_at: impl Fn(u32) -> u64) -> Option<u32> {
        let hash = self.keys.hash_one(key);
        self.parts[part_of(hash)].find(hash, |place| key_at(*place) == key).copied()
    }

    /// Where the key most probably is, if anywhere: one in 128 of other keys looks the same. It
    /// touches nothing but the index.
    #[inline]
    pub fn guess(&self, key: u64) -> Option<u32> {
        let hash = self.keys.hash_one(key);
        self.parts[part_of(hash)].iter_hash(hash).next().copied()
    }

    /// Sets the place of a key. What stands there, and at the key's place until now, has the key.
    pub fn insert(&mut self, key: u64, place: u32, key_at: impl Fn(u32) -> u64) {
        let hash = self.keys.hash_one(key);
        let is_it = |place: &u32| key_at(*place) == key;
        let part = &mut self.parts[part_of(hash)];
        match part.entry(hash, is_it, |place| self.keys.hash_one(key_at(*place))) {
            Entry::Occupied(mut entry) => *entry.get_mut() = place,
            Entry::Vacant(entry) => {
                entry.insert(place);
                self.len += 1;
            }
        }
    }

    /// Removes a key, if its place is this one.
    pub fn remove(&mut self, key: u64, place: u32) {
        let hash = self.keys.hash_one(key);
        if let Ok(entry) = self.parts[part_of(hash)].find_entry(hash, |at| *at == place) {
            entry.remove();
            self.len -= 1;
        }
    }

    /// Keys.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        let tables: usize = self.parts.iter().map(HashTable::allocation_size).sum();
        tables + size_of_val(&*self.parts)
    }
}

/// By other bits than those by which a table finds an entry: its lowest and its seven highest.
#[inline]
const fn part_of(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::vec::Vec;

    use ringway_core::rng::Rng;

    use super::*;

    /// Against a map: inserting, moving a key to another place, removing, over growth.
    #[test]
    fn places_are_those_of_a_map() {
        let mut places = Places::new(KeyedState::new([1, 2]));
        let mut model = BTreeMap::new();
        let mut keys: Vec<u64> = Vec::new();
        let mut rng = Rng::new(3);
        for _ in 0..20_000 {
            let key = rng.below(3_000);
            match (rng.below(3), model.get(&key).copied()) {
                (0, Some(place)) => {
                    places.remove(key, place + 1);
                    places.remove(key, place);
                    model.remove(&key);
                }
                _ => {
                    let place = keys.len() as u32;
                    keys.push(key);
                    places.insert(key, place, |at| keys[at as usize]);
                    model.insert(key, place);
                }
            }
            let asked = rng.below(3_000);
            let found = places.get(asked, |at| keys[at as usize]);
            assert_eq!(found, model.get(&asked).copied());
            assert!(places.guess(asked).is_some() || found.is_none());
            assert_eq!(places.len(), model.len());
        }
        assert!(places.bytes() < 4_096 * 6 + 2_048, "{} bytes for 3000 keys", places.bytes());
    }
}
