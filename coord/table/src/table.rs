//! The operations of the table, built from records, index and logs.
//!
//! A batch is worked off in passes, so that its cache misses overlap: hash all names, then
//! [`Table::prefetch`] all hashes, then execute. What an operation needs is reserved before it
//! changes anything; what follows cannot fail.

use ringway_core::Region;
use ringway_core::limits::NAME_BYTES_MAX;

use crate::Full;
use crate::hash::HashKey;
use crate::index::{Index, Lines};
use crate::log::{At, LINES_END, OwnerLog};
use crate::name::Name;
use crate::record::{Grant, Owner, RecordId, Records};

/// The memory of a table: four regions, empty at first.
pub struct Regions<R> {
    /// 28 bytes a name.
    pub records: R,
    /// 6.4 bytes a name: the buckets of the index.
    pub index: R,
    /// Names longer than 16 bytes: 32 bytes for each 28 beyond the first four.
    pub arena: R,
    /// 64-byte lines: the owners' logs, 4.3 to 9 bytes a name; the index's overflow, 0.8 to 1.4.
    pub lines: R,
}

/// How much memory the regions take, in bytes, free parts and growth ahead included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableBytes {
    /// The records.
    pub records: usize,
    /// The index's buckets.
    pub index: usize,
    /// The bytes of long names.
    pub arena: usize,
    /// The lines: logs and overflow.
    pub lines: usize,
    /// How much of `lines` is overflow of the index.
    pub overflow: usize,
}

impl TableBytes {
    /// All regions together.
    pub fn total(&self) -> usize {
        self.records + self.index + self.arena + self.lines
    }
}

/// The names of one shard.
pub struct Table<R> {
    records: Records<R>,
    index: Index<R>,
    lines: Lines<R>,
}

impl<R: Region> Table<R> {
    /// An empty table over empty regions, which hashes names under `key`. `Full` if not even the
    /// index's first lines fit.
    pub fn new(regions: Regions<R>, key: HashKey) -> Result<Self, Full> {
        Ok(Self {
            records: Records::new(regions.records, regions.arena, key),
            index: Index::new(regions.index)?,
            lines: Lines::new(regions.lines, LINES_END),
        })
    }

    /// Brings everything near that finding these names will touch, for a batch of any size: the
    /// best are 16 to 64.
    #[inline]
    pub fn prefetch(&self, hashes: &[u64]) {
        for hashes in hashes.chunks(u64::BITS as usize) {
            for hash in hashes {
                self.prefetch_index(*hash);
            }
            let mut more = 0u64;
            for (at, hash) in hashes.iter().enumerate() {
                more |= u64::from(self.prefetch_record(*hash)) << at;
            }
            while more != 0 {
                self.prefetch_overflow(hashes[more.trailing_zeros() as usize]);
                more &= more - 1;
            }
        }
    }

    /// First stage of a prefetch: the line of the index.
    #[inline]
    pub fn prefetch_index(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Second stage: reads the line of the index and prefetches the records that may be meant.
    /// True (one in ten): a third stage is needed, `prefetch_overflow`.
    #[inline]
    pub fn prefetch_record(&self, hash: u64) -> bool {
        self.index.candidates(&self.lines, hash, |id| self.records.prefetch(id))
    }

    /// Third stage, for those whose bucket has overflowed.
    #[inline]
    pub fn prefetch_overflow(&self, hash: u64) {
        self.index.overflow_candidates(&self.lines, hash, |id| self.records.prefetch(id));
    }

    /// For names that will be inserted or removed, after the stages before: brings near what
    /// changing a bucket that has overflowed will touch. Needless for `find` and `replace`.
    #[inline]
    pub fn prefetch_change(&self, hash: u64) {
        self.index.prefetch_chain(&self.lines, hash);
    }

    /// Who holds a name.
    #[inline]
    pub fn find(&self, hash: u64, name: &Name<'_>) -> Option<(RecordId, Grant)> {
        let id = self.index.find(&self.lines, hash, |id| self.records.is(id, hash, name))?;
        Some((RecordId(id), self.records.grant(id)))
    }

    /// Adds a name that is not in the table, under its hash. `log` is the log of `grant.owner`.
    #[inline]
    pub fn insert(
        &mut self,
        hash: u64,
        name: &Name<'_>,
        grant: Grant,
        log: &mut OwnerLog,
    ) -> Result<RecordId, Full> {
        debug_assert_eq!(hash, self.records.hash(name), "a name goes under its own hash");
        debug_assert!(self.find(hash, name).is_none(), "the name is in the table already");
        self.records.reserve(name)?;
        self.lines.reserve(LINES_PER_INSERT)?;
        let id = self.records.store(hash, name, grant);
        self.index.insert(&mut self.lines, hash, id);
        log.push(At { lines: &mut self.lines, records: &mut self.records }, grant.owner, id);
        if self.index.is_split_due() {
            // Without memory for it the table works on, only slower.
            let _ = self.index.split(&mut self.lines, |id| self.records.hash_of(id));
        } else {
            self.index.prepare_split(&self.lines, |id| self.records.prefetch(id));
        }
        Ok(RecordId(id))
    }

    /// Gives a name that is in the table to another owner, or the same one another token. `log` is
    /// the log of `grant.owner`; the former owner's log must be told with [`OwnerLog::lose`],
    /// unless it is the same.
    #[inline]
    pub fn replace(&mut self, id: RecordId, grant: Grant, log: &mut OwnerLog) -> Result<(), Full> {
        let before = self.grant(id).owner;
        if before == grant.owner {
            self.records.set_grant(id.0, grant);
            return Ok(());
        }
        self.lines.reserve(1)?;
        self.records.set_grant(id.0, grant);
        log.push(At { lines: &mut self.lines, records: &mut self.records }, grant.owner, id.0);
        Ok(())
    }

    /// Removes a name. `hash` is its hash; `log` the log of its owner, if the owner still has one.
    #[inline]
    pub fn remove(&mut self, id: RecordId, hash: u64, log: Option<&mut OwnerLog>) {
        let owner = self.grant(id).owner;
        self.index.remove(&mut self.lines, hash, id.0);
        self.records.free(id.0);
        if let Some(log) = log {
            log.forget(At { lines: &mut self.lines, records: &mut self.records }, owner, id.0);
        }
    }

    /// Adds a name that is not in the table as nobody's: in no log.
    pub fn insert_unowned(
        &mut self,
        hash: u64,
        name: &Name<'_>,
        grant: Grant,
    ) -> Result<RecordId, Full> {
        assert!(grant.owner == Owner::NOBODY, "whose is it?");
        // Two names need no line, so this log has nothing that could be lost with it.
        self.insert(hash, name, grant, &mut OwnerLog::default())
    }

    /// Takes a name from its owner and leaves it in the table as nobody's. `log` is the log of its
    /// owner, if the owner still has one.
    pub fn disown(&mut self, id: RecordId, log: Option<&mut OwnerLog>) {
        let grant = self.grant(id);
        self.records.set_grant(id.0, Grant { owner: Owner::NOBODY, ..grant });
        if let Some(log) = log {
            log.forget(
                At { lines: &mut self.lines, records: &mut self.records },
                grant.owner,
                id.0,
            );
        }
    }

    /// Changes what is kept of a name beside its owner: token and flags.
    pub fn update(&mut self, id: RecordId, grant: Grant) {
        assert!(grant.owner == self.grant(id).owner, "the owner changes by `replace` or `disown`");
        self.records.set_grant(id.0, grant);
    }

    /// The grant of a name that is in the table.
    #[inline]
    pub fn grant(&self, id: RecordId) -> Grant {
        debug_assert!(self.records.in_use(id.0), "{id:?} was removed");
        self.records.grant(id.0)
    }

    /// Writes a name that is in the table to the front of `out`; returns its length.
    #[inline]
    pub fn name_into(&self, id: RecordId, out: &mut [u8; NAME_BYTES_MAX]) -> usize {
        self.records.name_into(id.0, out)
    }

    /// The hash of a name, under the key of this table.
    #[inline]
    pub fn hash(&self, name: &Name<'_>) -> u64 {
        self.records.hash(name)
    }

    /// The hash of a name that is in the table.
    #[inline]
    pub fn hash_of(&self, id: RecordId) -> u64 {
        self.records.hash_of(id.0)
    }

    /// Releases names of an owner that has ended: looks at up to `budget` entries of its log, and
    /// tells each name that it removes, with the id it had. One with a flag of `keep` stays in the
    /// table as nobody's, and is told as well. True once the log is empty and nothing is kept for
    /// the owner.
    pub fn sweep(
        &mut self,
        owner: Owner,
        log: &mut OwnerLog,
        (budget, keep): (usize, u8),
        mut on_release: impl FnMut(RecordId, &[u8], Grant),
    ) -> bool {
        let mut left = budget;
        let mut ids = [0; SWEEP_BATCH];
        while left != 0 {
            let most = left.min(SWEEP_BATCH);
            let count = log.drain(&mut self.lines, &mut ids[..most]);
            self.sweep_batch((owner, keep), log, &ids[..count], &mut on_release);
            left -= count;
            if count < most {
                break;
            }
        }
        log.peek(&self.lines, |id| self.records.prefetch(id));
        !log.holds_entries()
    }

    /// Releases those of `ids` that are the owner's: all near first, then one after the other.
    fn sweep_batch(
        &mut self,
        (owner, keep): (Owner, u8),
        log: &mut OwnerLog,
        ids: &[u32],
        on_release: &mut impl FnMut(RecordId, &[u8], Grant),
    ) {
        for id in ids {
            self.records.prefetch(*id);
        }
        let mut hashes = [0; SWEEP_BATCH];
        for (hash, id) in hashes.iter_mut().zip(ids) {
            if self.records.mark_if_held(*id, owner).is_some() {
                self.records.prefetch_long(*id);
                *hash = self.records.hash_of(*id);
                self.index.prefetch(*hash);
            }
        }
        let mut name = [0; NAME_BYTES_MAX];
        for (hash, id) in hashes.iter().zip(ids) {
            // Asked again: the same record may have two entries.
            if self.records.mark_if_held(*id, owner).is_some() {
                let len = self.records.name_into(*id, &mut name);
                let grant = self.records.grant(*id);
                if grant.flags & keep == 0 {
                    self.index.remove(&mut self.lines, *hash, *id);
                    self.records.free(*id);
                } else {
                    self.records.set_grant(*id, Grant { owner: Owner::NOBODY, ..grant });
                }
                log.lose();
                on_release(RecordId(*id), &name[..len], grant);
            }
        }
    }

    /// Calls `each` with the names of up to `budget` records from `from` on. Returns where to go
    /// on; `None` at the end. What is added or removed meanwhile may be met or not.
    pub fn walk(
        &self,
        from: RecordCursor,
        budget: usize,
        mut each: impl FnMut(RecordId, &[u8], Grant),
    ) -> Option<RecordCursor> {
        let end = (from.0 as usize).saturating_add(budget).min(self.records.end() as usize) as u32;
        let mut name = [0; NAME_BYTES_MAX];
        for id in from.0..end {
            if self.records.in_use(id) {
                let len = self.records.name_into(id, &mut name);
                each(RecordId(id), &name[..len], self.records.grant(id));
            }
        }
        (end < self.records.end()).then_some(RecordCursor(end))
    }

    /// Calls `each` with the names that records met earlier hold now: none where the name was
    /// removed since, another's where the record is another's.
    pub fn revisit(&self, ids: &[RecordId], mut each: impl FnMut(RecordId, &[u8], Grant)) {
        let mut name = [0; NAME_BYTES_MAX];
        for (at, id) in ids.iter().enumerate() {
            if let Some(ahead) = ids.get(at + REVISIT_AHEAD) {
                self.records.prefetch(ahead.0);
            }
            if self.records.in_use(id.0) {
                let len = self.records.name_into(id.0, &mut name);
                each(*id, &name[..len], self.records.grant(id.0));
            }
        }
    }

    /// Splits up to `budget` buckets that are due, as happens when memory was short and no longer
    /// is.
    pub fn maintain(&mut self, budget: usize) {
        for _ in 0..budget {
            let due = self.index.is_split_due();
            if !due || self.index.split(&mut self.lines, |id| self.records.hash_of(id)).is_err() {
                return;
            }
        }
    }

    /// How many names there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.records.used() as usize
    }

    /// Whether there are no names.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How much memory all of this takes.
    pub fn bytes(&self) -> TableBytes {
        let (index, overflow) = self.index.bytes();
        TableBytes {
            records: self.records.bytes(),
            index,
            arena: self.records.arena_bytes(),
            lines: self.lines.bytes(),
            overflow,
        }
    }
}

/// Where a walk stands. The default is the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordCursor(u32);

impl Default for RecordCursor {
    fn default() -> Self {
        Self(1)
    }
}

/// One for the overflow of a bucket, one for the log.
const LINES_PER_INSERT: u32 = 2;
/// How far ahead of a revisit records are asked for.
const REVISIT_AHEAD: usize = 16;
/// Entries of a log whose records are brought near together.
const SWEEP_BATCH: usize = 32;

#[cfg(test)]
impl<R: Region> Table<R> {
    /// Weakens the hash, so that names collide.
    pub(crate) fn with_hash_mask(mut self, mask: u64) -> Self {
        self.records.hash_mask = mask;
        self
    }

    /// Verifies every invariant of the whole table, given all logs. Linear in its size.
    pub(crate) fn check(&self, logs: &[(Owner, &OwnerLog)]) {
        extern crate std;
        use std::collections::BTreeSet;
        use std::vec::Vec;

        let mut indexed = BTreeSet::new();
        self.index.check(
            &self.lines,
            |id| self.records.hash_of(id),
            |id| {
                assert!(self.records.in_use(id), "T1: a free record in the index");
                assert!(indexed.insert(id), "T1: twice in the index");
            },
        );
        assert_eq!(indexed.len(), self.len(), "T1");
        let mut free = BTreeSet::new();
        self.records.for_each_free(|id| assert!(free.insert(id) && !self.records.in_use(id)));
        assert_eq!(free.len() + self.len() + 1, self.records.end() as usize);
        let (used, expected) = self.records.arena_blocks();
        assert_eq!(used, expected, "the arena leaks");

        let mut log_lines = 0;
        for (owner, log) in logs {
            let (entries, lines) = log.entries(&self.lines);
            log_lines += lines;
            let held: Vec<u32> = indexed
                .iter()
                .copied()
                .filter(|id| self.records.grant(*id).owner == *owner)
                .collect();
            assert_eq!(held.len(), log.live() as usize, "{owner:?}");
            let entries: BTreeSet<u32> = entries.into_iter().collect();
            assert!(held.iter().all(|id| entries.contains(id)), "T2: {owner:?}");
        }
        let (_, overflow) = self.index.bytes();
        assert_eq!(self.lines.used() as usize, log_lines + overflow / 64, "lines leak");
    }
}
