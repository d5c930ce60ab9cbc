//! What is kept of a name: 28 bytes, dense.
//!
//! | word | what |
//! |---|---|
//! | 0 to 3 | a short name, zero padded; of a long one: its chain in the arena, its hash (two |
//! |        | words), its first four bytes |
//! | 4 | owner |
//! | 5 | low 32 bits of the sequence |
//! | 6 | bits 0-11: the sequence's high bits; 12-15: epoch index; 16-23: length; 24-30: flags; |
//! |   | 31: the mark, which belongs to the owner's log (`log.rs`) |
//!
//! A length of zero says that the record is free; its word 0 then belongs to the pool.
//!
//! A long name keeps its whole hash: a compare goes to the arena only when all 64 bits agree, and
//! the index can be split without reading the arena.
//!
//! Not here: finding a record (`index.rs`). Tests: `tests.rs`, with the whole table.

use ringway_core::Region;
use ringway_core::limits::{NAME_BYTES_INLINE, NAME_BYTES_MAX};

use crate::Full;
use crate::arena::Arena;
use crate::hash::{self, HashKey};
use crate::name::{Name, short_bytes};
use crate::pool::Pool;

/// Whoever holds a name. The table only compares it: index and generation are the caller's affair.
/// A number must not be given to another owner while its log has not been swept to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner(pub u32);

impl Owner {
    /// Who has no log: a name of nobody's is in the table for what the caller keeps beside it.
    pub const NOBODY: Owner = Owner(u32::MAX);
}

/// Who holds a name, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The holder.
    pub owner: Owner,
    /// The token's sequence, below 2^44.
    pub sequence: u64,
    /// Which of the caller's 16 epochs the token belongs to.
    pub epoch_index: u8,
    /// Seven bits for the caller: mode, durability.
    pub flags: u8,
}

/// A name's record. Valid until the name is removed; then another name may get the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(pub(crate) u32);

impl RecordId {
    /// A number that no other name of the table has as long as this one stays.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The inverse of [`Self::number`].
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }
}

/// All records, and the arena behind them.
pub(crate) struct Records<R> {
    pool: Pool<R, RECORD_WORDS>,
    arena: Arena<R>,
    key: HashKey,
    /// Tests weaken the hash to make names collide.
    #[cfg(test)]
    pub(crate) hash_mask: u64,
}

impl<R: Region> Records<R> {
    pub(crate) fn new(records: R, arena: R, key: HashKey) -> Self {
        Self {
            pool: Pool::new(records, u32::MAX),
            arena: Arena::new(arena),
            key,
            #[cfg(test)]
            hash_mask: u64::MAX,
        }
    }

    /// Makes sure that a record for this name can be stored.
    #[inline]
    pub(crate) fn reserve(&mut self, name: &Name<'_>) -> Result<(), Full> {
        if !name.is_short() {
            self.arena.reserve(name.len() - PREFIX_BYTES)?;
        }
        self.pool.reserve(1)
    }

    /// Stores a record for which room was reserved.
    #[inline]
    pub(crate) fn store(&mut self, hash: u64, name: &Name<'_>, grant: Grant) -> u32 {
        let id = self.pool.take();
        let [low, high] = if name.is_short() {
            name.words()
        } else {
            let (prefix, rest) = name.long_bytes().split_at(PREFIX_BYTES);
            let prefix = u32::from_le_bytes(prefix.try_into().expect("four bytes"));
            let head = self.arena.store(rest);
            [u64::from(head) | hash << 32, hash >> 32 | u64::from(prefix) << 32]
        };
        let record = self.pool.block_mut(id);
        record[0] = low as u32;
        record[1] = (low >> 32) as u32;
        record[2] = high as u32;
        record[3] = (high >> 32) as u32;
        record[META] = (name.len() as u32) << LEN_SHIFT;
        write_grant(record, grant);
        id
    }

    /// Frees a record and the arena's share of it.
    #[inline]
    pub(crate) fn free(&mut self, id: u32) {
        let record = self.pool.block_mut(id);
        let (len, head) = (len_of(record), record[0]);
        debug_assert!(len != 0, "freed twice");
        record[META] = 0;
        if len > NAME_BYTES_INLINE {
            self.arena.free(head);
        }
        self.pool.give(id);
    }

    /// Whether a record is this name's.
    #[inline]
    pub(crate) fn is(&self, id: u32, hash: u64, name: &Name<'_>) -> bool {
        let record = self.pool.block(id);
        if len_of(record) != name.len() {
            return false;
        }
        let words = words_of(record);
        if name.is_short() { words == name.words() } else { self.is_long(words, hash, name) }
    }

    #[inline(never)]
    fn is_long(&self, words: [u64; 2], hash: u64, name: &Name<'_>) -> bool {
        let (prefix, rest) = name.long_bytes().split_at(PREFIX_BYTES);
        stored_hash(words) == hash
            && ((words[1] >> 32) as u32).to_le_bytes() == prefix
            && self.arena.equals(words[0] as u32, rest)
    }

    #[inline]
    pub(crate) fn grant(&self, id: u32) -> Grant {
        read_grant(self.pool.block(id))
    }

    /// Changes a record's grant; name and mark stay.
    #[inline]
    pub(crate) fn set_grant(&mut self, id: u32, grant: Grant) {
        write_grant(self.pool.block_mut(id), grant);
    }

    /// Whether the record is in use and this owner's, and its mark.
    #[inline]
    pub(crate) fn mark_if_held(&self, id: u32, owner: Owner) -> Option<bool> {
        let record = self.pool.block(id);
        let held = record[OWNER] == owner.0 && len_of(record) != 0;
        held.then_some(record[META] >> MARK_SHIFT != 0)
    }

    #[inline]
    pub(crate) fn set_mark(&mut self, id: u32, mark: bool) {
        let meta = &mut self.pool.block_mut(id)[META];
        *meta = *meta & !(1 << MARK_SHIFT) | u32::from(mark) << MARK_SHIFT;
    }

    /// Whether the id is in use.
    #[inline]
    pub(crate) fn in_use(&self, id: u32) -> bool {
        len_of(self.pool.block(id)) != 0
    }

    /// Writes the name of a record to the front of `out`; returns its length.
    #[inline]
    pub(crate) fn name_into(&self, id: u32, out: &mut [u8; NAME_BYTES_MAX]) -> usize {
        let record = self.pool.block(id);
        let (len, words) = (len_of(record), words_of(record));
        if len <= NAME_BYTES_INLINE {
            out[..NAME_BYTES_INLINE].copy_from_slice(&short_bytes(words));
        } else {
            let (prefix, rest) = out[..len].split_at_mut(PREFIX_BYTES);
            prefix.copy_from_slice(&((words[1] >> 32) as u32).to_le_bytes());
            self.arena.load(words[0] as u32, rest);
        }
        len
    }

    /// The hash of a record's name.
    #[inline]
    pub(crate) fn hash_of(&self, id: u32) -> u64 {
        let record = self.pool.block(id);
        let (words, len) = (words_of(record), len_of(record));
        if len > NAME_BYTES_INLINE {
            return stored_hash(words);
        }
        self.masked(hash::short(self.key, words, len))
    }

    /// The hash of a name, as callers are to give it.
    #[inline]
    pub(crate) fn hash(&self, name: &Name<'_>) -> u64 {
        self.masked(hash::hash(self.key, name))
    }

    #[cfg(not(test))]
    #[inline(always)]
    fn masked(&self, hash: u64) -> u64 {
        hash
    }

    #[cfg(test)]
    fn masked(&self, hash: u64) -> u64 {
        hash & self.hash_mask
    }

    #[inline]
    pub(crate) fn prefetch(&self, id: u32) {
        self.pool.prefetch(id);
    }

    /// Prefetches what of a long name is in the arena; the record itself should be near.
    #[inline]
    pub(crate) fn prefetch_long(&self, id: u32) {
        let record = self.pool.block(id);
        if len_of(record) > NAME_BYTES_INLINE {
            self.arena.prefetch(record[0]);
        }
    }

    /// One more than the largest id there is.
    pub(crate) fn end(&self) -> u32 {
        self.pool.end()
    }

    /// Records in use.
    pub(crate) fn used(&self) -> u32 {
        self.pool.used()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.pool.bytes()
    }

    pub(crate) fn arena_bytes(&self) -> usize {
        self.arena.bytes()
    }

    /// The arena's blocks in use, and those that the records account for. For tests.
    #[cfg(test)]
    pub(crate) fn arena_blocks(&self) -> (u32, u32) {
        let expected = (1..self.end())
            .map(|id| len_of(self.pool.block(id)))
            .filter(|len| *len > NAME_BYTES_INLINE)
            .map(|len| Arena::<R>::blocks_of(len - PREFIX_BYTES));
        (self.arena.used(), expected.sum())
    }

    /// The free ids. For tests.
    #[cfg(test)]
    pub(crate) fn for_each_free(&self, each: impl FnMut(u32)) {
        self.pool.for_each_free(each);
    }
}

type Record = [u32; RECORD_WORDS];

#[inline]
fn len_of(record: &Record) -> usize {
    (record[META] >> LEN_SHIFT & 0xFF) as usize
}

#[inline]
fn words_of(record: &Record) -> [u64; 2] {
    let pair = |at: usize| u64::from(record[at]) | u64::from(record[at + 1]) << 32;
    [pair(0), pair(2)]
}

#[inline]
fn stored_hash(words: [u64; 2]) -> u64 {
    words[0] >> 32 | words[1] << 32
}

#[inline]
fn read_grant(record: &Record) -> Grant {
    let meta = record[META];
    Grant {
        owner: Owner(record[OWNER]),
        sequence: u64::from(record[SEQUENCE]) | u64::from(meta & 0xFFF) << 32,
        epoch_index: (meta >> EPOCH_SHIFT & 0xF) as u8,
        flags: (meta >> FLAGS_SHIFT & 0x7F) as u8,
    }
}

#[inline]
fn write_grant(record: &mut Record, grant: Grant) {
    debug_assert!(grant.sequence >> 44 == 0, "44 bits of sequence");
    debug_assert!(grant.epoch_index < 16, "4 bits of epoch index");
    debug_assert!(grant.flags < 128, "7 bits of flags");
    record[OWNER] = grant.owner.0;
    record[SEQUENCE] = grant.sequence as u32;
    record[META] = record[META] & (0xFF << LEN_SHIFT | 1 << MARK_SHIFT)
        | (grant.sequence >> 32) as u32 & 0xFFF
        | u32::from(grant.epoch_index & 0xF) << EPOCH_SHIFT
        | u32::from(grant.flags & 0x7F) << FLAGS_SHIFT;
}

const RECORD_WORDS: usize = 7;
const OWNER: usize = 4;
const SEQUENCE: usize = 5;
const META: usize = 6;
const EPOCH_SHIFT: u32 = 12;
const LEN_SHIFT: u32 = 16;
const FLAGS_SHIFT: u32 = 24;
const MARK_SHIFT: u32 = 31;
/// Bytes of a long name that its record keeps.
const PREFIX_BYTES: usize = 4;
