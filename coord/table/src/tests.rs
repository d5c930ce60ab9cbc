//! The whole table against a plain map: a million random operations, hostile hashes, memory that
//! ends at any point.

use std::cell::Cell;
use std::collections::HashMap;
use std::vec::Vec;

use ringway_core::region::{HeapRegion, Region, RegionFull};
use ringway_core::rng::Rng;

use crate::{Full, Grant, HashKey, Name, Owner, OwnerLog, RecordCursor, Regions, Table};

/// Names with this flag stay as nobody's when their owner is swept.
const KEEP: u8 = 0x40;

const KEY: HashKey = HashKey([0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210]);

fn regions(words_max: [usize; 4]) -> Regions<HeapRegion> {
    let [records, index, arena, lines] = words_max.map(HeapRegion::new);
    Regions { records, index, arena, lines }
}

fn unbounded() -> Regions<HeapRegion> {
    regions([usize::MAX; 4])
}

/// A table, the logs of all owners, and the plain map they are held against.
struct Model {
    table: Table<HeapRegion>,
    logs: Vec<OwnerLog>,
    map: HashMap<Vec<u8>, Grant>,
    rng: Rng,
    sequence: u64,
    names: u64,
    refused: u64,
}

impl Model {
    fn new(table: Table<HeapRegion>, seed: u64, owners: usize, names: u64) -> Self {
        let logs = (0..owners).map(|_| OwnerLog::default()).collect();
        let rng = Rng::new(seed);
        Self { table, logs, map: HashMap::new(), rng, sequence: 1 << 30, names, refused: 0 }
    }

    /// A name out of a fixed set, so that it comes back: mostly short, some of every length.
    fn name(&mut self) -> Vec<u8> {
        let number = self.rng.below(self.names);
        let mut own = Rng::new(number);
        let len = if own.chance(700) { 1 + own.below(16) } else { 1 + own.below(255) };
        let mut name: Vec<u8> = (0..len).map(|_| own.next_u64() as u8).collect();
        // Names differ in few places: comparing must not stop early.
        if own.chance(300) {
            name.fill(b'x');
            name[len as usize / 2] = number as u8;
        }
        name
    }

    fn new_grant(&mut self) -> Grant {
        self.sequence += 1 + self.rng.below(1 << 20);
        Grant {
            owner: Owner(self.rng.below(self.logs.len() as u64) as u32),
            sequence: self.sequence,
            epoch_index: self.rng.below(16) as u8,
            flags: self.rng.below(128) as u8,
        }
    }

    fn step(&mut self) {
        let bytes = self.name();
        let name = Name::new(&bytes).expect("1 to 255 bytes");
        let hash = self.table.hash(&name);
        self.table.prefetch(&[hash]);
        let found = self.table.find(hash, &name);
        assert_eq!(found.map(|(_, grant)| grant), self.map.get(&bytes).copied());
        let grant = self.new_grant();
        let log = &mut self.logs[grant.owner.0 as usize];
        match found {
            None => {
                let unowned = self.rng.chance(100);
                let grant = if unowned { Grant { owner: Owner::NOBODY, ..grant } } else { grant };
                let stored = if unowned {
                    self.table.insert_unowned(hash, &name, grant)
                } else {
                    self.table.insert(hash, &name, grant, log)
                };
                match stored {
                    Ok(_) => drop(self.map.insert(bytes, grant)),
                    Err(Full) => self.refused += 1,
                }
            }
            Some((id, before)) if before.owner == Owner::NOBODY && self.rng.chance(500) => {
                self.table.remove(id, hash, None);
                self.map.remove(&bytes);
            }
            Some((id, before)) if before.owner != Owner::NOBODY && self.rng.chance(100) => {
                self.table.disown(id, Some(&mut self.logs[before.owner.0 as usize]));
                self.map.insert(bytes, Grant { owner: Owner::NOBODY, ..before });
            }
            Some((id, before)) if before.owner == Owner::NOBODY => {
                match self.table.replace(id, grant, log) {
                    Ok(()) => drop(self.map.insert(bytes, grant)),
                    Err(Full) => self.refused += 1,
                }
            }
            Some((id, before)) if self.rng.chance(300) => {
                match self.table.replace(id, grant, log) {
                    Ok(()) if before.owner != grant.owner => {
                        self.logs[before.owner.0 as usize].lose();
                        self.map.insert(bytes, grant);
                    }
                    Ok(()) => drop(self.map.insert(bytes, grant)),
                    Err(Full) => self.refused += 1,
                }
            }
            Some((id, before)) => {
                let log = &mut self.logs[before.owner.0 as usize];
                self.table.remove(id, hash, Some(log));
                self.map.remove(&bytes);
            }
        }
    }

    /// An owner ends: exactly its names are released, each once, a few at a time.
    fn end_owner(&mut self) {
        let owner = Owner(self.rng.below(self.logs.len() as u64) as u32);
        let log = &mut self.logs[owner.0 as usize];
        let live = log.live() as usize;
        let mut released = 0;
        loop {
            let budget = 1 + self.rng.below(100) as usize;
            let before = released;
            let done = self.table.sweep(owner, log, (budget, KEEP), |_, name, grant| {
                assert_eq!(self.map.remove(name), Some(grant));
                if grant.flags & KEEP != 0 {
                    let grant = Grant { owner: Owner::NOBODY, ..grant };
                    self.map.insert(name.to_vec(), grant);
                }
                assert_eq!(grant.owner, owner);
                released += 1;
            });
            assert!(released - before <= budget);
            if done {
                break;
            }
        }
        assert_eq!(released, live);
        assert!(log.is_empty());
    }

    fn check(&self) {
        let logs: Vec<_> =
            self.logs.iter().enumerate().map(|(at, log)| (Owner(at as u32), log)).collect();
        self.table.check(&logs);
        assert_eq!(self.table.len(), self.map.len());
        let (mut walked, mut cursor) = (0, Some(RecordCursor::default()));
        while let Some(from) = cursor {
            cursor = self.table.walk(from, 97, |_, name, grant| {
                assert_eq!(self.map.get(name), Some(&grant));
                walked += 1;
            });
        }
        assert_eq!(walked, self.map.len());
    }

    fn run(&mut self, steps: u64, end_one_in: u64, checks: u64) {
        for step in 0..steps {
            if self.rng.below(end_one_in) == 0 {
                self.end_owner();
            } else {
                self.step();
            }
            if step % (steps / checks) == 0 {
                self.check();
            }
        }
        self.check();
    }
}

/// A million operations on names of all lengths: the table and a plain map never differ.
#[test]
fn a_million_operations() {
    let table = Table::new(unbounded(), KEY).expect("no bound");
    let mut model = Model::new(table, 1, 50, 40_000);
    model.run(1_000_000, 10_000, 20);
    assert_eq!(model.refused, 0);
}

/// With few bits of hash, buckets overflow into long shared chains, and all must still hold.
#[test]
fn names_that_collide() {
    for (seed, mask) in [(2, 0xF), (3, 0x7000_0000_0000_003F), (4, 0), (5, 0x0F00_0000_0000_01FF)] {
        let table = Table::new(unbounded(), KEY).expect("no bound").with_hash_mask(mask);
        let mut model = Model::new(table, seed, 7, if mask == 0 { 200 } else { 1_500 });
        model.run(40_000, 2_000, 40);
    }
}

/// Whichever region ends, and wherever: an operation is refused whole, and nothing is lost.
#[test]
fn memory_that_ends_anywhere() {
    let (mut rng, mut refused) = (Rng::new(6), [0; 4]);
    for seed in 0..150 {
        let mut bounds = [usize::MAX; 4];
        bounds[seed as usize % 4] = 256 + rng.below(12_000) as usize;
        if seed % 3 == 0 {
            bounds = bounds.map(|bound| bound.min(256 + rng.below(20_000) as usize));
        }
        let mask = if seed % 5 == 0 { 0x1F00_0000_0000_003F } else { u64::MAX };
        let table = Table::new(regions(bounds), KEY).expect("16 lines fit").with_hash_mask(mask);
        let mut model = Model::new(table, seed, 5, 2_500);
        model.run(12_000, 1_000, 12);
        refused[seed as usize % 4] += model.refused;
    }
    // A full index only makes buckets longer; the other three must have ended often.
    assert!(refused[0] > 1_000 && refused[2] > 1_000 && refused[3] > 1_000, "{refused:?}");
}

/// A region whose bound can be raised while it is in use.
struct Raisable<'a> {
    inner: HeapRegion,
    words_max: &'a Cell<usize>,
}

impl Region for Raisable<'_> {
    fn words(&self) -> &[u32] {
        self.inner.words()
    }

    fn words_mut(&mut self) -> &mut [u32] {
        self.inner.words_mut()
    }

    fn grow_to(&mut self, words: usize) -> Result<(), RegionFull> {
        if words > self.words_max.get() { Err(RegionFull) } else { self.inner.grow_to(words) }
    }
}

/// An index that may not grow keeps every name in ever longer chains; once memory is back, a few
/// steps of maintenance at a time bring it to the shape it would have had.
#[test]
fn an_index_that_was_starved_recovers() {
    let bounds = [usize::MAX, 16 * 16, usize::MAX, usize::MAX].map(Cell::new);
    let [records, index, arena, lines] = bounds
        .each_ref()
        .map(|words_max| Raisable { inner: HeapRegion::new(usize::MAX), words_max });
    let mut table = Table::new(Regions { records, index, arena, lines }, KEY).expect("16 lines");
    let mut log = OwnerLog::default();
    (0..5_000).for_each(|number| insert_number(&mut table, &mut log, number));
    table.check(&[(Owner(1), &log)]);
    let starved = table.bytes();
    assert_eq!(starved.index, 16 * 64);

    bounds[1].set(usize::MAX);
    for _ in 0..5 {
        table.maintain(100);
        table.check(&[(Owner(1), &log)]);
    }
    let mut never_starved = Table::new(unbounded(), KEY).expect("no bound");
    let mut its_log = OwnerLog::default();
    (0..5_000).for_each(|number| insert_number(&mut never_starved, &mut its_log, number));
    let (bytes, expected) = (table.bytes(), never_starved.bytes());
    assert_eq!(bytes.index, expected.index, "every split that was due is made up for");
    assert!(bytes.overflow <= expected.overflow * 5 / 4, "{bytes:?}, never starved: {expected:?}");
    assert!(bytes.lines <= starved.lines, "overflow lines are used again");
}

fn insert_number<R: Region>(table: &mut Table<R>, log: &mut OwnerLog, number: u32) {
    let bytes = number.to_le_bytes();
    let name = Name::new(&bytes).expect("short");
    let grant = Grant { owner: Owner(1), sequence: 1, epoch_index: 0, flags: 0 };
    table.insert(table.hash(&name), &name, grant, log).expect("lines have no bound");
}

/// Owners of one or two names cost their record and their place in the index, and no line.
#[test]
fn small_owners_are_cheap() {
    let mut table = Table::new(unbounded(), KEY).expect("no bound");
    let mut logs: Vec<OwnerLog> = (0..10_000).map(|_| OwnerLog::default()).collect();
    assert!(size_of::<OwnerLog>() <= 16);
    for number in 0..20_000u32 {
        let bytes = number.to_le_bytes();
        let name = Name::new(&bytes).expect("short");
        let owner = number / 2;
        let grant = Grant { owner: Owner(owner), sequence: 1, epoch_index: 0, flags: 0 };
        let log = &mut logs[owner as usize];
        table.insert(table.hash(&name), &name, grant, log).expect("no bound");
    }
    let logs: Vec<_> = logs.iter().enumerate().map(|(at, log)| (Owner(at as u32), log)).collect();
    table.check(&logs[..1]);
    let bytes = table.bytes();
    assert!(bytes.lines < bytes.overflow + 1100 * 64, "only overflow takes lines: {bytes:?}");
}
