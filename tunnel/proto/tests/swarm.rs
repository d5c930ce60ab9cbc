//! Thousands of worlds of carriers that delay, stall, crawl, fall silent and die.

mod world;

use world::{World, run};

/// Runs all seeds of a range; a failure names the one that shows it.
fn all(seeds: std::ops::Range<u64>, world: impl Fn(u64) -> World) -> world::Outcome {
    let mut sum = world::Outcome::default();
    for seed in seeds {
        match run(world(seed)) {
            Ok(outcome) => {
                sum.delivered += outcome.delivered;
                sum.closed += outcome.closed;
                sum.reset += outcome.reset;
                sum.resent += outcome.resent;
                sum.lost += outcome.lost;
            }
            Err(why) => panic!("{:?}: {why}", world(seed)),
        }
    }
    sum
}

#[test]
fn streams_survive_carriers() {
    let sum = all(0..60, |seed| World {
        seed,
        lines: 1 + (seed % 4) as usize,
        flows: 6,
        faults_per_mille: 4,
        resets_per_mille: 0,
        broken: None,
    });
    assert_eq!((sum.closed, sum.reset), (60 * 2 * 6 * 2, 0));
    assert!(sum.lost > 150 && sum.resent > 1 << 20, "the world was kind: {sum:?}");
}

#[test]
fn resets_end_flows_at_both_ends() {
    let sum = all(1000..1060, |seed| World {
        seed,
        lines: 1 + (seed % 3) as usize,
        flows: 10,
        faults_per_mille: 3,
        resets_per_mille: 700,
        broken: None,
    });
    assert!(sum.closed > 500 && sum.reset > 150, "{sum:?}");
}

/// Without any fault nothing is sent twice.
#[test]
fn a_quiet_world_sends_nothing_twice() {
    let sum = all(2000..2020, |seed| World {
        seed,
        lines: 1,
        flows: 5,
        faults_per_mille: 0,
        resets_per_mille: 0,
        broken: None,
    });
    assert_eq!((sum.resent, sum.lost), (0, 0));
}
