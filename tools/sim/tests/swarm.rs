//! The swarm in the ordinary tests: thousands of short runs, the same ones every time.
//!
//! `RINGWAY_SIM_SEED` moves the first seed elsewhere. A seed that fails prints the line that
//! repeats it; what it found becomes a story in `coord/proto/tests`, because a seed means something
//! else as soon as the swarm learns to do more.

use std::sync::atomic::{AtomicU64, Ordering};

use ringway_sim::swarm::{Options, Tally, run};

/// Seeds of the ordinary run.
const SEEDS: u64 = 6_000;
/// Events of each before its faults cease.
const STEPS: u64 = 600;

/// Prints the line that repeats a failure, if a seed panics while it is alive.
struct Rerun(u64);

impl Drop for Rerun {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}: rerun: {}", self.0, line(self.0));
        }
    }
}

fn line(seed: u64) -> String {
    format!("cargo run -p ringway-sim --release -- --seed {seed} --steps {STEPS} --trace")
}

fn first_seed() -> u64 {
    let seed = std::env::var("RINGWAY_SIM_SEED").ok();
    seed.map_or(0, |seed| seed.parse().expect("RINGWAY_SIM_SEED is a number"))
}

/// Whatever happens to shards, clients and what is between them: no name has two owners, or more
/// than its mode allows, nobody who renews loses anything, nobody who waits is overtaken or
/// forgotten, messages and events come in order and not twice, and in the end nothing is left over.
#[test]
fn thousands_of_seeds_hold() {
    let (first, next) = (first_seed(), AtomicU64::new(0));
    let work = || {
        let mut tally = Tally::default();
        let options = Options { steps: STEPS, ..Options::default() };
        loop {
            let seed = first + next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + SEEDS {
                return tally;
            }
            let _rerun = Rerun(seed);
            match run(seed, &options) {
                Ok(one) => tally.add(&one),
                Err(why) => panic!("{why}"),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| tally.add(&worker.join().expect("all seeds hold")));
    });
    // Runs that do nothing hold, too.
    assert!(tally.replies > 200 * SEEDS && tally.grants > 20 * SEEDS, "{tally:?}");
    assert!(tally.opened > 4 * SEEDS && tally.resumed > SEEDS / 8, "{tally:?}");
    assert!(tally.expired > SEEDS && tally.lost > 8 * SEEDS, "{tally:?}");
    assert!(tally.locks > SEEDS / 2 && tally.denied > SEEDS && tally.full > SEEDS, "{tally:?}");
    assert!(tally.waits > 4 * SEEDS && tally.handovers > SEEDS / 2, "{tally:?}");
    assert!(tally.unblocked > SEEDS / 2 && tally.refused > SEEDS / 2, "{tally:?}");
    assert!(tally.given_up > SEEDS / 2 && tally.notes > SEEDS, "{tally:?}");
    assert!(tally.transfers > SEEDS / 4 && tally.revoked > SEEDS / 2, "{tally:?}");
    assert!(tally.letters > 20 * SEEDS && tally.heard > 10 * SEEDS, "{tally:?}");
    assert!(tally.fenced > SEEDS, "{tally:?}");
    assert!(tally.watches > SEEDS && tally.went_on > SEEDS / 8, "{tally:?}");
    assert!(tally.events > 10 * SEEDS && tally.gaps > SEEDS / 100, "{tally:?}");
    assert!(tally.again > SEEDS / 30, "{tally:?}");
    assert!(tally.stalls > SEEDS && tally.restarts > SEEDS / 20, "{tally:?}");
}

/// A seed is a schedule: the same one does the same, another one something else.
#[test]
fn the_seed_decides() {
    let options = Options { steps: 300, ..Options::default() };
    assert_eq!(run(5, &options), run(5, &options));
    assert_ne!(run(5, &options), run(6, &options));
}

/// The numbers of shards that no seed draws hold as well.
#[test]
fn other_numbers_of_shards_hold() {
    for (shards, seed) in [(7, 1), (7, 2), (16, 3)] {
        let _rerun = Rerun(seed);
        let options = Options { steps: 300, shards: Some(shards), ..Options::default() };
        run(seed, &options).unwrap_or_else(|why| panic!("{shards} shards, seed {seed}: {why}"));
    }
}
