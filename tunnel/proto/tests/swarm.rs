//! Thousands of worlds of carriers that delay, stall, crawl, fall silent and die.

mod bulk;
mod world;

use world::{Outcome, World, run, run_in_storm};

/// More than all flows have.
const ROOMY: u64 = 64 << 20;

/// Runs all seeds of a range; a failure names the one that shows it.
fn all(seeds: std::ops::Range<u64>, world: impl Fn(u64) -> World) -> Outcome {
    all_of(seeds, world, run)
}

fn all_of(
    seeds: std::ops::Range<u64>,
    world: impl Fn(u64) -> World,
    run: impl Fn(World) -> Result<Outcome, String>,
) -> Outcome {
    let mut sum = Outcome::default();
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
                sum.met.add(&outcome.met);
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

/// Where nothing else holds a flow back its window does not for long.
#[test]
fn windows_grow_with_what_is_sent() {
    for seed in 0..60 {
        bulk::run(seed, None).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
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
    let world = |seed| World {
        seed,
        lines: 1 + (seed % 4) as usize,
        packets: 1 + (seed % 3) as usize,
        flows: 6,
        faults_per_mille: 4,
        memory: if seed % 3 == 0 { 128 << 10 } else { ROOMY },
        resets_per_mille: seed % 2 * 300,
        broken: None,
    };
    let sum = all(5000..5060, world);
    assert!(sum.closed > 600 && sum.lost > 100, "{sum:?}");
    // Here a dead carrier was never suspected: something was said by it every second.
    for seed in [5077, 5205] {
        all(seed..seed + 1, world);
    }
}

/// Carriers of packets alone, in every weather: the bottleneck changes and is shared, packets are
/// lost alone and in bursts, come late and twice, both ways, and some paths pass less, or nothing
/// for a while, or become others. What was written arrives once there is fair weather.
#[test]
fn streams_survive_storms() {
    let seeds = storms();
    let sum = all_of(6000..6000 + seeds, in_storm, run_in_storm);
    assert_eq!((sum.closed, sum.reset), (seeds * 2 * 6 * 2, 0));
    assert_stormy(&sum, seeds);
}

/// The same beside carriers of records, which die as well, with little room, and flows that are
/// reset.
#[test]
fn streams_survive_storms_beside_records() {
    let seeds = storms();
    let world = |seed| World {
        lines: 2 + (seed % 3 + seed % 2) as usize,
        faults_per_mille: 3,
        memory: if seed % 3 == 0 { 128 << 10 } else { ROOMY },
        resets_per_mille: seed % 2 * 300,
        ..in_storm(seed)
    };
    let sum = all_of(20_000..20_000 + seeds, world, run_in_storm);
    assert!(sum.closed > seeds * 14 && sum.reset > seeds, "{sum:?}");
    assert!(sum.lost > seeds && sum.left > seeds / 2, "the world was kind: {sum:?}");
    assert_stormy(&sum, seeds);
}

/// Seeds in debug are a tenth: `cargo xtask test` runs all of them in release.
fn storms() -> u64 {
    if cfg!(debug_assertions) { 120 } else { 1200 }
}

fn in_storm(seed: u64) -> World {
    let packets = 1 + (seed % 3) as usize;
    World {
        seed,
        lines: packets,
        packets,
        flows: 6,
        faults_per_mille: 0,
        memory: ROOMY,
        resets_per_mille: 0,
        broken: None,
    }
}

/// Everything that can happen to packets happened often.
fn assert_stormy(sum: &Outcome, seeds: u64) {
    for (what, many) in sum.met.all() {
        assert!(many > 3 * seeds, "{what}: the world was kind: {sum:?}");
    }
}
