//! How many bytes does a name cost, and how fast is the table, at any count?
//!
//! `cargo run --release -p ringway-table --example fill -- 10M 13M 16M [--owner-names 1000] [--plain-pages]`
//!
//! For each count: fills a table with random 16-byte names, looks all of them up in random order in
//! batches of 32, churns half of them (releases a random one, registers a fresh one), and looks up again. Prints
//! bytes a name, all regions included, and operations a second. Beside it stands
//! `hashbrown::HashTable` in 256 sub-tables with the same batches: the baseline for speed.

use std::hint::black_box;
use std::time::Instant;

use ringway_core::region::{Region, RegionFull};
use ringway_core::rng::Rng;
use ringway_table::{Grant, HashKey, Name, Owner, OwnerLog, Regions, Table, hash, hash4};

const KEY: HashKey = HashKey([0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210]);
const BATCH: usize = 32;

fn main() {
    let mut counts = Vec::new();
    let (mut owner_names, mut huge, mut baseline) = (1000, true, true);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--owner-names" => owner_names = args.next().map_or(1000, |n| parse(&n)),
            "--plain-pages" => huge = false,
            "--no-baseline" => baseline = false,
            count => counts.push(parse(count)),
        }
    }
    if counts.is_empty() {
        counts.push(1_000_000);
    }
    println!(
        "     names | fresh bytes (record index+overflow log)  | churned | fill M/s worst us | find | miss | churn | find | sweep | hashbrown find"
    );
    for count in counts {
        run(count, owner_names, huge, baseline);
    }
}

fn parse(text: &str) -> usize {
    let (digits, unit) = match text.strip_suffix('M') {
        Some(digits) => (digits, 1_000_000),
        None => (text, 1),
    };
    digits.parse::<usize>().expect("a number, or one with M behind") * unit
}

/// The name of a number: 16 bytes, one to one.
fn words_of(number: u64) -> [u64; 2] {
    [number.wrapping_mul(0x9E37_79B9_7F4A_7C15), !number]
}

struct Filled {
    table: Table<Mapped>,
    logs: Vec<OwnerLog>,
    /// The numbers of the names that are in the table.
    present: Vec<u32>,
    next: u32,
    owner_names: usize,
}

fn run(count: usize, owner_names: usize, huge: bool, with_baseline: bool) {
    let regions = Regions {
        records: Mapped::new(count * 40, huge),
        index: Mapped::new(count * 20, huge),
        arena: Mapped::new(1 << 20, huge),
        lines: Mapped::new(count * 60 + (1 << 24), huge),
    };
    let mut filled = Filled {
        table: Table::new(regions, KEY).expect("memory"),
        logs: (0..count.div_ceil(owner_names)).map(|_| OwnerLog::default()).collect(),
        present: Vec::with_capacity(count),
        next: 0,
        owner_names,
    };
    let started = Instant::now();
    let mut worst = 0.0f64;
    while filled.present.len() < count {
        let batch = Instant::now();
        for _ in 0..BATCH.min(count - filled.present.len()) {
            filled.present.push(filled.next);
            filled.next += 1;
        }
        let from = filled.present.len().saturating_sub(BATCH) / BATCH * BATCH;
        filled.register(from..filled.present.len());
        worst = worst.max(batch.elapsed().as_secs_f64() * 1e6);
    }
    let fill = count as f64 / started.elapsed().as_secs_f64() / 1e6;
    let bytes = filled.table.bytes();
    let per = |bytes: usize| bytes as f64 / count as f64;
    let session_bytes = filled.logs.len() * size_of::<OwnerLog>();
    print!(
        "{count:>10} | {:5.2} ({:.2} {:.2}+{:.2} {:.2}, sessions {:.2}) |",
        per(bytes.total() + session_bytes),
        per(bytes.records),
        per(bytes.index),
        per(bytes.overflow),
        per(bytes.lines - bytes.overflow),
        per(session_bytes),
    );
    let mut rng = Rng::new(1);
    let find = filled.find_all(&mut rng, 0);
    let miss = filled.find_all(&mut rng, 1 << 31);
    let churn = filled.churn(&mut rng, count / 2);
    let churned = filled.table.bytes();
    let find_again = filled.find_all(&mut rng, 0);
    print!(
        " {:5.2} (+{:.2} {:.2}) | {fill:.2} {worst:.0} | {find:.1} | {miss:.1} | {churn:.2} | {find_again:.1} |",
        per(churned.total() + session_bytes),
        per(churned.overflow),
        per(churned.lines - churned.overflow)
    );
    let started = Instant::now();
    let mut released = 0u64;
    for (owner, log) in filled.logs.iter_mut().enumerate() {
        while !filled.table.sweep(Owner(owner as u32), log, 2048, |_, _| released += 1) {}
    }
    assert_eq!(released, count as u64);
    print!(" {:.1} |", count as f64 / started.elapsed().as_secs_f64() / 1e6);
    drop(filled);
    println!("{}", if with_baseline { format!(" {:.1}", baseline(count)) } else { String::new() });
}

impl Filled {
    /// Registers the names of some of `present`, as a shard would: hash, prefetch, look, insert.
    fn register(&mut self, range: std::ops::Range<usize>) {
        let numbers = &self.present[range.clone()];
        let mut names = [Name::from_inline([0; 2], 16).expect("16 bytes"); BATCH];
        let mut hashes = [0; BATCH];
        prepare(numbers, &mut names, &mut hashes, 0);
        self.table.prefetch(&hashes[..numbers.len()]);
        for (at, number) in numbers.iter().enumerate() {
            assert!(self.table.find(hashes[at], &names[at]).is_none());
            let owner = (range.start + at) / self.owner_names;
            let grant = Grant {
                owner: Owner(owner as u32),
                sequence: u64::from(*number),
                epoch_index: 1,
                flags: 0,
            };
            let log = &mut self.logs[owner];
            self.table.insert(hashes[at], &names[at], grant, log).expect("memory");
        }
    }

    /// Looks up as many names as there are, random ones; in M/s.
    fn find_all(&self, rng: &mut Rng, offset: u32) -> f64 {
        let count = self.present.len().min(20_000_000);
        let mut order = vec![0u32; count];
        order.fill_with(|| self.present[rng.below(self.present.len() as u64) as usize] + offset);
        let mut names = [Name::from_inline([0; 2], 16).expect("16 bytes"); BATCH];
        let mut hashes = [0; BATCH];
        let started = Instant::now();
        let mut found = 0;
        for numbers in order.chunks(BATCH) {
            prepare(numbers, &mut names, &mut hashes, 0);
            self.table.prefetch(&hashes[..numbers.len()]);
            for at in 0..numbers.len() {
                if let Some((_, grant)) = self.table.find(hashes[at], &names[at]) {
                    found += 1;
                    black_box(grant);
                }
            }
        }
        let rate = count as f64 / started.elapsed().as_secs_f64() / 1e6;
        assert_eq!(found, if offset == 0 { count } else { 0 });
        rate
    }

    /// Releases a random name and registers a fresh one instead, in batches; M pairs/s.
    fn churn(&mut self, rng: &mut Rng, pairs: usize) -> f64 {
        let mut names = [Name::from_inline([0; 2], 16).expect("16 bytes"); BATCH];
        let mut hashes = [0; BATCH];
        let started = Instant::now();
        for _ in 0..pairs.div_ceil(BATCH) {
            // A run of places: their names are anywhere in the table.
            let start = rng.below((self.present.len() / BATCH) as u64) as usize * BATCH;
            let range = start..start + BATCH;
            prepare(&self.present[range.clone()], &mut names, &mut hashes, 0);
            self.table.prefetch(&hashes);
            for at in 0..BATCH {
                let (id, grant) = self.table.find(hashes[at], &names[at]).expect("present");
                let log = &mut self.logs[grant.owner.0 as usize];
                self.table.remove(id, hashes[at], Some(log));
            }
            for number in &mut self.present[range.clone()] {
                *number = self.next;
                self.next += 1;
            }
            self.register(range);
        }
        pairs as f64 / started.elapsed().as_secs_f64() / 1e6
    }
}

fn prepare(numbers: &[u32], names: &mut [Name<'static>; BATCH], hashes: &mut [u64; BATCH], _: u32) {
    for (name, number) in names.iter_mut().zip(numbers) {
        *name = Name::from_inline(words_of(u64::from(*number)), 16).expect("16 bytes");
    }
    for (names, hashes) in names.chunks_exact(4).zip(hashes.chunks_exact_mut(4)) {
        hashes.copy_from_slice(&hash4(KEY, [&names[0], &names[1], &names[2], &names[3]]));
    }
}

/// `hashbrown::HashTable` in 256 sub-tables: hash 32 names, then get 32.
fn baseline(count: usize) -> f64 {
    #[derive(Clone, Copy)]
    struct Entry {
        words: [u64; 2],
        owner: u32,
        sequence_low: u32,
        meta: u32,
    }
    let mut tables: Vec<hashbrown::HashTable<Entry>> = Vec::new();
    tables.resize_with(256, hashbrown::HashTable::new);
    let rehash = |entry: &Entry| hash(KEY, &Name::from_inline(entry.words, 16).expect("16 bytes"));
    for number in 0..count as u32 {
        let words = words_of(u64::from(number));
        let entry = Entry { words, owner: 1, sequence_low: number, meta: 0 };
        let hash = rehash(&entry);
        tables[(hash >> 32) as usize % 256].insert_unique(hash, entry, rehash);
    }
    let mut rng = Rng::new(1);
    let finds = count.min(20_000_000);
    let mut order = vec![0u32; finds];
    order.fill_with(|| rng.below(count as u64) as u32);
    let mut names = [Name::from_inline([0; 2], 16).expect("16 bytes"); BATCH];
    let mut hashes = [0; BATCH];
    let started = Instant::now();
    for numbers in order.chunks(BATCH) {
        prepare(numbers, &mut names, &mut hashes, 0);
        for at in 0..numbers.len() {
            let table = &tables[(hashes[at] >> 32) as usize % 256];
            let entry = table.find(hashes[at], |entry| entry.words == names[at].words());
            let entry = entry.expect("present");
            black_box((entry.owner, entry.sequence_low, entry.meta));
        }
    }
    finds as f64 / started.elapsed().as_secs_f64() / 1e6
}

/// A region of reserved address space, huge pages if the kernel gives them.
struct Mapped {
    base: *mut u32,
    words: usize,
    words_max: usize,
}

impl Mapped {
    fn new(bytes: usize, huge: bool) -> Self {
        let bytes = bytes.next_multiple_of(1 << 21) + (1 << 21);
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice; the result is
        // checked. It is never unmapped: a tool maps a few and ends.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let base = libc::mmap(std::ptr::null_mut(), bytes, prot, flags, -1, 0);
            assert!(base != libc::MAP_FAILED, "mmap of {bytes} bytes failed");
            let aligned = base.cast::<u8>().add(base.align_offset(1 << 21));
            if huge {
                libc::madvise(aligned.cast(), bytes - (1 << 21), libc::MADV_HUGEPAGE);
            }
            Self { base: aligned.cast(), words: 0, words_max: (bytes - (1 << 21)) / 4 }
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, from its aligned start; nothing refers to it any more.
        unsafe { libc::munmap(self.base.cast(), self.words_max * 4) };
    }
}

impl Region for Mapped {
    fn words(&self) -> &[u32] {
        // SAFETY: `words <= words_max` words behind `base` are mapped, zeroed by the kernel or
        // written as words, and borrowed with `self`.
        unsafe { std::slice::from_raw_parts(self.base, self.words) }
    }

    fn words_mut(&mut self) -> &mut [u32] {
        // SAFETY: as in `words`; `&mut self` makes the borrow exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base, self.words) }
    }

    fn grow_to(&mut self, words: usize) -> Result<(), RegionFull> {
        if words > self.words_max {
            return Err(RegionFull);
        }
        self.words = self.words.max(words);
        Ok(())
    }
}
