//! Question: what does one operation cost at a million names, in batches of 32?
//!
//! Measured: hashing, prefetch, the operation. Not measured: parsing, replies, huge pages (the
//! heap's own pages are used for both). `hashbrown::HashTable` in 256 sub-tables is the baseline;
//! for counts beyond a million and bytes a name see `examples/fill.rs`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringway_core::region::HeapRegion;
use ringway_core::rng::Rng;
use ringway_table::{Grant, HashKey, Name, Owner, OwnerLog, RecordId, Regions, Table, hash, hash4};

const KEY: HashKey = HashKey([0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210]);
const BATCH: usize = 32;
const NAMES: u64 = 1_000_000;
const OWNERS: u64 = 1_000;

type Batch = [(Name<'static>, u64); BATCH];

/// The name of a number: 16 bytes, one to one.
fn name_of(number: u64) -> Name<'static> {
    Name::from_inline([number.wrapping_mul(0x9E37_79B9_7F4A_7C15), !number], 16).expect("16 bytes")
}

fn batch_of(numbers: [u64; BATCH]) -> Batch {
    let mut batch = numbers.map(|number| (name_of(number), 0));
    for four in batch.chunks_exact_mut(4) {
        let hashes = hash4(KEY, [&four[0].0, &four[1].0, &four[2].0, &four[3].0]);
        for (entry, hash) in four.iter_mut().zip(hashes) {
            entry.1 = hash;
        }
    }
    batch
}

fn grant_of(number: u64) -> Grant {
    Grant { owner: Owner((number % OWNERS) as u32), sequence: number, epoch_index: 1, flags: 0 }
}

struct Filled {
    table: Table<HeapRegion>,
    logs: Vec<OwnerLog>,
}

impl Filled {
    fn new() -> Self {
        let region = || HeapRegion::new(usize::MAX);
        let regions =
            Regions { records: region(), index: region(), arena: region(), lines: region() };
        let table = Table::new(regions, KEY).expect("no bound");
        let logs = (0..OWNERS).map(|_| OwnerLog::default()).collect();
        let mut filled = Self { table, logs };
        for first in (0..NAMES).step_by(BATCH) {
            filled.insert(std::array::from_fn(|at| first + at as u64));
        }
        filled
    }

    fn insert(&mut self, numbers: [u64; BATCH]) {
        let batch = batch_of(numbers);
        self.table.prefetch(&batch.map(|(_, hash)| hash));
        for ((name, hash), number) in batch.iter().zip(numbers) {
            if self.table.find(*hash, name).is_none() {
                let grant = grant_of(number);
                let log = &mut self.logs[grant.owner.0 as usize];
                self.table.insert(*hash, name, grant, log).expect("no bound");
            }
        }
    }

    fn remove(&mut self, numbers: [u64; BATCH]) {
        let batch = batch_of(numbers);
        self.table.prefetch(&batch.map(|(_, hash)| hash));
        batch.iter().for_each(|(_, hash)| self.table.prefetch_change(*hash));
        for (name, hash) in &batch {
            if let Some((id, grant)) = self.table.find(*hash, name) {
                let log = &mut self.logs[grant.owner.0 as usize];
                self.table.remove(id, *hash, Some(log));
            }
        }
    }

    fn find(&self, numbers: [u64; BATCH]) -> Option<(RecordId, Grant)> {
        let batch = batch_of(numbers);
        self.table.prefetch(&batch.map(|(_, hash)| hash));
        batch.iter().fold(None, |_, (name, hash)| black_box(self.table.find(*hash, name)))
    }
}

#[derive(Clone, Copy)]
struct Entry {
    words: [u64; 2],
    grant: [u32; 3],
}

struct Baseline {
    tables: Vec<hashbrown::HashTable<Entry>>,
}

impl Baseline {
    fn new() -> Self {
        let tables = (0..256).map(|_| hashbrown::HashTable::new()).collect();
        let mut filled = Self { tables };
        for first in (0..NAMES).step_by(BATCH) {
            filled.insert(std::array::from_fn(|at| first + at as u64));
        }
        filled
    }

    fn insert(&mut self, numbers: [u64; BATCH]) {
        for ((name, of_name), number) in batch_of(numbers).iter().zip(numbers) {
            let table = &mut self.tables[(of_name >> 32) as usize % 256];
            let words = name.words();
            if table.find(*of_name, |entry| entry.words == words).is_none() {
                let entry = Entry { words, grant: [0, number as u32, 0] };
                table.insert_unique(*of_name, entry, |entry| {
                    hash(KEY, &Name::from_inline(entry.words, 16).expect("16 bytes"))
                });
            }
        }
    }

    fn remove(&mut self, numbers: [u64; BATCH]) {
        for (name, hash) in &batch_of(numbers) {
            let table = &mut self.tables[(hash >> 32) as usize % 256];
            if let Ok(entry) = table.find_entry(*hash, |entry| entry.words == name.words()) {
                entry.remove();
            }
        }
    }

    fn find(&self, numbers: [u64; BATCH]) {
        for (name, hash) in &batch_of(numbers) {
            let table = &self.tables[(hash >> 32) as usize % 256];
            black_box(table.find(*hash, |entry| entry.words == name.words()).map(|e| e.grant));
        }
    }
}

fn operations(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("table");
    group.throughput(Throughput::Elements(BATCH as u64));
    let mut rng = Rng::new(1);
    let mut any = move |from: u64| std::array::from_fn(|_| from + rng.below(NAMES));
    let (mut ours, mut theirs) = (Filled::new(), Baseline::new());

    let id = |what, who| BenchmarkId::new(what, who);
    group.bench_function(id("hit", "ringway"), |b| b.iter(|| ours.find(any(0))));
    group.bench_function(id("hit", "hashbrown"), |b| b.iter(|| theirs.find(any(0))));
    group.bench_function(id("miss", "ringway"), |b| b.iter(|| ours.find(any(NAMES))));
    group.bench_function(id("miss", "hashbrown"), |b| b.iter(|| theirs.find(any(NAMES))));
    // A name that goes and one that comes: the count stays at a million.
    group.bench_function(id("remove and insert", "ringway"), |b| {
        b.iter(|| {
            let numbers = any(0);
            ours.remove(numbers);
            ours.insert(numbers);
        });
    });
    group.bench_function(id("remove and insert", "hashbrown"), |b| {
        b.iter(|| {
            let numbers = any(0);
            theirs.remove(numbers);
            theirs.insert(numbers);
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2));
    targets = operations
}
criterion_main!(benches);
