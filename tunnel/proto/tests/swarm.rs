//! Thousands of worlds of carriers that delay, stall, crawl, fall silent and die.

mod world;

use world::{World, run};

/// More than all flows have.
const ROOMY: u64 = 64 << 20;

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
                sum.refused += outcome.refused;
                sum.left += outcome.left;
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
        packets: 0,
        flows: 6,
        faults_per_mille: 4,
        memory: ROOMY,
        resets_per_mille: 0,
        broken: None,
    });
    assert_eq!((sum.closed, sum.reset), (60 * 2 * 6 * 2, 0));
    assert!(sum.lost > 150 && sum.resent > 1 << 20, "the world was kind: {sum:?}");
    assert!(sum.left > 30, "{sum:?}");
}

#[test]
fn resets_end_flows_at_both_ends() {
    let sum = all(1000..1060, |seed| World {
        seed,
        lines: 1 + (seed % 3) as usize,
        packets: 0,
        flows: 10,
        faults_per_mille: 3,
        memory: ROOMY,
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
        packets: 0,
        flows: 5,
        faults_per_mille: 0,
        memory: ROOMY,
        resets_per_mille: 0,
        broken: None,
    });
    assert_eq!((sum.resent, sum.lost, sum.refused), (0, 0, 0));
}

/// Where there is room for a fraction of what is promised, what is refused comes again.
#[test]
fn streams_survive_where_there_is_no_room() {
    let sum = all(3000..3060, |seed| World {
        seed,
        lines: 1 + (seed % 3) as usize,
        packets: 0,
        flows: 6,
        faults_per_mille: seed % 2 * 4,
        memory: 64 << 10,
        resets_per_mille: 0,
        broken: None,
    });
    assert_eq!((sum.closed, sum.reset), (60 * 2 * 6 * 2, 0));
    assert!(sum.refused > 200, "there was room: {sum:?}");
}

/// Packets that are lost one by one, doubled and reordered, alone and beside records.
#[test]
fn streams_survive_packets() {
    let sum = all(4000..4060, |seed| World {
        seed,
        lines: 1 + (seed % 3) as usize,
        packets: 1 + (seed % 2) as usize,
        flows: 6,
        faults_per_mille: 0,
        memory: ROOMY,
        resets_per_mille: 0,
        broken: None,
    });
    assert_eq!((sum.closed, sum.reset), (60 * 2 * 6 * 2, 0));
    assert!(sum.resent > 1 << 20, "the world was kind: {sum:?}");
}

/// The same where carriers of both kinds stall, crawl, fall silent and die.
#[test]
fn streams_survive_carriers_of_packets() {
    let sum = all(5000..5060, |seed| World {
        seed,
        lines: 1 + (seed % 4) as usize,
        packets: 1 + (seed % 3) as usize,
        flows: 6,
        faults_per_mille: 4,
        memory: if seed % 3 == 0 { 128 << 10 } else { ROOMY },
        resets_per_mille: seed % 2 * 300,
        broken: None,
    });
    assert!(sum.closed > 600 && sum.lost > 100, "{sum:?}");
}
