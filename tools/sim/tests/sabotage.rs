//! The test of the tester: each rule is switched off, and the swarm has to notice within N seeds.
//!
//! `cargo test -p ringway-sim --features sabotage --test sabotage`

use std::panic::catch_unwind;

use ringway_coord_proto::sabotage::Rule;
use ringway_sim::swarm::{Breach, Options, run};

/// The first seed below `most` that notices, by a judgement or an assertion of the code itself.
fn noticed_at(options: Options, most: u64) -> Option<u64> {
    (0..most).find(|seed| {
        let seed = *seed;
        !matches!(catch_unwind(move || run(seed, &options)), Ok(Ok(_)))
    })
}

fn expect(options: Options, most: u64) {
    let name = options.breach.map(Breach::name).unwrap_or_default();
    match noticed_at(options, most) {
        Some(seed) => println!("{name}: noticed at seed {seed}"),
        None => panic!("{name} went unnoticed for {most} seeds"),
    }
}

/// Most rules are missed within a few hundred seeds at the latest.
#[test]
fn every_broken_rule_is_noticed() {
    let rare = [Breach::Rule(Rule::RenewalsFirst), Breach::EarlierLifeAllows];
    for breach in Breach::all().filter(|breach| !rare.contains(breach)) {
        expect(Options { breach: Some(breach), ..Options::default() }, 1_500);
    }
}

/// It takes a renewal that arrives in the very turn in which its lease ends, and at its home.
#[test]
fn an_expiry_before_a_renewal_is_noticed() {
    let breach = Some(Breach::Rule(Rule::RenewalsFirst));
    expect(Options { breach, shards: Some(1), ..Options::default() }, 8_000);
}

/// It takes two crashes with a wait between them that is survived, and leases of two lengths.
#[test]
fn a_lease_that_only_an_earlier_life_wrote_is_noticed() {
    let breach = Some(Breach::EarlierLifeAllows);
    expect(Options { breach, steps: 3_000, ..Options::default() }, 8_000);
}
