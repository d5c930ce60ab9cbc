//! How many bytes does a name cost, and how fast is the table, at any count?
//!
//! `cargo run --release -p ringway-table --example fill -- [options] 10M 13M 16M`
//!
//! For each count: fills a table with random 16-byte names, looks random ones up in batches of 32,
//! churns half of them (releases random ones, registers fresh ones), looks up again, and at last
//! sweeps every owner. Prints bytes a name, all regions included, and million operations a second
//! of processor time. Beside it stands `hashbrown::HashTable` in 256 sub-tables with the same
//! batches: the baseline for speed. The environment `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` gives
//! huge pages to both, as the server has them.
//!
//! Options: `--owner-names N` names of one owner (1000); `--bytes-only` no look-ups;
//! `--no-baseline`.

use std::hint::black_box;
use std::time::Duration;

use ringway_core::region::{Region, RegionFull};
use ringway_core::rng::Rng;
use ringway_table::{Grant, HashKey, Name, Owner, OwnerLog, Regions, Table, hash, hash4};

const KEY: HashKey = HashKey([0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210]);
const BATCH: usize = 32;

struct Options {
    owner_names: usize,
    speed: bool,
    baseline: bool,
}

fn main() {
    let mut options = Options { owner_names: 1000, speed: true, baseline: true };
    let mut counts = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--owner-names" => {
                options.owner_names = parse(&args.next().expect("how many names an owner has"));
            }
            "--bytes-only" => (options.speed, options.baseline) = (false, false),
            "--no-baseline" => options.baseline = false,
            count => counts.push(parse(count)),
        }
    }
    if counts.is_empty() {
        counts.push(1_000_000);
    }
    println!(
        "     names | fresh: record index overflow    log | churned: ovf  log | fill, worst batch \
         |  find  miss | churn | find | sweep | hashbrown"
    );
    for count in counts {
        run(count, &options);
    }
}

/// The processor time of this thread: others on the same core do not count.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
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
    table: Table<Committed>,
    logs: Vec<OwnerLog>,
    /// The numbers of the names that are in the table.
    present: Vec<u32>,
    next: u32,
    owner_names: usize,
}

fn run(count: usize, options: &Options) {
    let regions = Regions {
        records: Committed::new(count * 28 + (1 << 20)),
        index: Committed::new(count * 13 / 2 + (1 << 20)),
        arena: Committed::new(1 << 20),
        lines: Committed::new(count * 12 + count / options.owner_names * 128 + (1 << 20)),
    };
    let mut filled = Filled {
        table: Table::new(regions, KEY).expect("memory"),
        logs: (0..count.div_ceil(options.owner_names)).map(|_| OwnerLog::default()).collect(),
        present: Vec::with_capacity(count),
        next: 0,
        owner_names: options.owner_names,
    };
    let (fill, worst_us) = filled.fill(count);
    let per = |bytes: usize| bytes as f64 / count as f64;
    let sessions = filled.logs.len() * size_of::<OwnerLog>();
    let bytes = filled.table.bytes();
    print!(
        "{count:>10} | {:6.2} {:6.2} {:5.2} {:8.2} {:6.2} |",
        per(bytes.total() + sessions),
        per(bytes.records),
        per(bytes.index),
        per(bytes.overflow),
        per(bytes.lines - bytes.overflow + sessions),
    );
    let mut rng = Rng::new(1);
    let mut find = |filled: &Filled, offset| match options.speed {
        true => filled.find_all(&mut rng, offset),
        false => 0.0,
    };
    let (found, missed) = (find(&filled, 0), find(&filled, 1 << 31));
    let churn = filled.churn(&mut Rng::new(2), count / 2);
    let found_again = find(&filled, 0);
    let churned = filled.table.bytes();
    let sweep = filled.sweep(count);
    drop(filled);
    print!(
        " {:6.2} {:5.2} {:4.2} | {fill:5.2} {worst_us:8.0} us | {found:5.1} {missed:5.1} | \
         {churn:5.2} | {found_again:4.1} | {sweep:5.1} |",
        per(churned.total() + sessions),
        per(churned.overflow),
        per(churned.lines - churned.overflow + sessions)
    );
    let baseline = if options.baseline { format!("{:5.1}", baseline(count)) } else { "-".into() };
    println!(" {baseline}");
}

impl Filled {
    /// Registers `count` names; M/s, and the longest batch.
    fn fill(&mut self, count: usize) -> (f64, f64) {
        let started = cpu_time();
        let mut worst = Duration::ZERO;
        let mut before = started;
        while self.present.len() < count {
            let first = self.present.len();
            let places: [usize; BATCH] = std::array::from_fn(|at| first + at);
            let len = BATCH.min(count - first);
            let numbers = places.map(|place| place as u32);
            self.present.extend_from_slice(&numbers[..len]);
            self.register(&places[..len], &numbers[..len]);
            let now = cpu_time();
            worst = worst.max(now - before);
            before = now;
        }
        self.next = count as u32;
        let rate = count as f64 / (before - started).as_secs_f64() / 1e6;
        (rate, worst.as_secs_f64() * 1e6)
    }

    /// Ends every owner; M names/s.
    fn sweep(&mut self, count: usize) -> f64 {
        let started = cpu_time();
        let mut released = 0;
        for (owner, log) in self.logs.iter_mut().enumerate() {
            while !self.table.sweep(Owner(owner as u32), log, (2048, 0), |_, _, _| released += 1) {}
        }
        assert_eq!(released, count);
        count as f64 / (cpu_time() - started).as_secs_f64() / 1e6
    }

    /// Registers names, as a shard would: hash, prefetch, look, insert. A place has its owner.
    fn register(&mut self, places: &[usize], numbers: &[u32]) {
        let mut names = [Name::from_inline([0; 2], 16).expect("16 bytes"); BATCH];
        let mut hashes = [0; BATCH];
        prepare(numbers, &mut names, &mut hashes);
        self.table.prefetch(&hashes[..numbers.len()]);
        for (at, number) in numbers.iter().enumerate() {
            assert!(self.table.find(hashes[at], &names[at]).is_none());
            let owner = places[at] / self.owner_names;
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

    /// Looks up random names, as many as there are, three times; the best rate in M/s.
    fn find_all(&self, rng: &mut Rng, offset: u32) -> f64 {
        let count = self.present.len().clamp(4_000_000, 10_000_000) / BATCH * BATCH;
        let mut order = vec![0u32; count];
        order.fill_with(|| self.present[rng.below(self.present.len() as u64) as usize] + offset);
        let mut best = 0.0f64;
        for _ in 0..3 {
            let started = cpu_time();
            let found = self.find_each(&order);
            best = best.max(count as f64 / (cpu_time() - started).as_secs_f64() / 1e6);
            assert_eq!(found, if offset == 0 { count } else { 0 });
        }
        best
    }

    fn find_each(&self, order: &[u32]) -> usize {
        let mut names = [Name::from_inline([0; 2], 16).expect("16 bytes"); BATCH];
        let mut hashes = [0; BATCH];
        let mut found = 0;
        for numbers in order.chunks(BATCH) {
            prepare(numbers, &mut names, &mut hashes);
            self.table.prefetch(&hashes[..numbers.len()]);
            for at in 0..numbers.len() {
                if let Some((_, grant)) = self.table.find(hashes[at], &names[at]) {
                    found += 1;
                    black_box(grant);
                }
            }
        }
        found
    }

    /// Releases random names and registers fresh ones instead, in batches; M pairs/s.
    fn churn(&mut self, rng: &mut Rng, pairs: usize) -> f64 {
        let mut names = [Name::from_inline([0; 2], 16).expect("16 bytes"); BATCH];
        let mut hashes = [0; BATCH];
        let stride = self.present.len() / BATCH;
        let started = cpu_time();
        for _ in 0..pairs.div_ceil(BATCH) {
            // One place in each of 32 parts: distinct, and anywhere in the table.
            let places: [usize; BATCH] =
                std::array::from_fn(|at| at * stride + rng.below(stride as u64) as usize);
            let mut numbers = places.map(|place| self.present[place]);
            prepare(&numbers, &mut names, &mut hashes);
            self.table.prefetch(&hashes);
            hashes.iter().for_each(|hash| self.table.prefetch_change(*hash));
            for at in 0..BATCH {
                let (id, grant) = self.table.find(hashes[at], &names[at]).expect("present");
                let log = &mut self.logs[grant.owner.0 as usize];
                self.table.remove(id, hashes[at], Some(log));
            }
            for (number, place) in numbers.iter_mut().zip(places) {
                *number = self.next;
                self.present[place] = self.next;
                self.next += 1;
            }
            self.register(&places, &numbers);
        }
        pairs as f64 / (cpu_time() - started).as_secs_f64() / 1e6
    }
}

fn prepare(numbers: &[u32], names: &mut [Name<'static>; BATCH], hashes: &mut [u64; BATCH]) {
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
    let finds = count.clamp(4_000_000, 20_000_000);
    let mut order = vec![0u32; finds];
    order.fill_with(|| rng.below(count as u64) as u32);
    let mut names = [Name::from_inline([0; 2], 16).expect("16 bytes"); BATCH];
    let mut hashes = [0; BATCH];
    let mut best = 0.0f64;
    for _ in 0..3 {
        let started = cpu_time();
        for numbers in order.chunks(BATCH) {
            prepare(numbers, &mut names, &mut hashes);
            for at in 0..numbers.len() {
                let table = &tables[(hashes[at] >> 32) as usize % 256];
                let entry = table.find(hashes[at], |entry| entry.words == names[at].words());
                let entry = entry.expect("present");
                black_box((entry.owner, entry.sequence_low, entry.meta));
            }
        }
        best = best.max(finds as f64 / (cpu_time() - started).as_secs_f64() / 1e6);
    }
    best
}

/// A region whose memory is there from the start, aligned to cache lines, and never moves; as the
/// server's are, which commits ahead of need outside its turns.
struct Committed {
    memory: Vec<u32>,
    first: usize,
    words: usize,
}

impl Committed {
    fn new(bytes: usize) -> Self {
        let mut memory = Vec::with_capacity(bytes / 4 + 16);
        // Written, not only asked for, so that the pages are there.
        memory.resize(bytes / 4 + 16, u32::MAX);
        memory.fill(0);
        let first = memory.as_ptr().align_offset(64);
        Self { memory, first, words: 0 }
    }
}

impl Region for Committed {
    fn words(&self) -> &[u32] {
        &self.memory[self.first..][..self.words]
    }

    fn words_mut(&mut self) -> &mut [u32] {
        &mut self.memory[self.first..][..self.words]
    }

    fn grow_to(&mut self, words: usize) -> Result<(), RegionFull> {
        if self.first + words > self.memory.len() {
            return Err(RegionFull);
        }
        self.words = self.words.max(words);
        Ok(())
    }
}
