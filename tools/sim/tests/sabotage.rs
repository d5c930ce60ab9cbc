//! The test of the tester: each rule is switched off, and the swarm has to notice within N seeds.
//!
//! `cargo test -p ringway-sim --features sabotage --test sabotage`

use std::panic::catch_unwind;

use ringway_coord_proto::sabotage::Rule;
use ringway_sim::swarm::{Breach, Options, run};

/// The first seed that notices, by a judgement or an assertion of the code itself.
fn noticed_at(breach: Breach, shards: Option<usize>, most: u64) -> Option<u64> {
    let options = Options { breach: Some(breach), shards, ..Options::default() };
    (0..most).find(|seed| {
        let seed = *seed;
        !matches!(catch_unwind(move || run(seed, &options)), Ok(Ok(_)))
    })
}

fn expect(breach: Breach, shards: Option<usize>, most: u64) {
    // Judgements are values; only assertions of the code under test print, and they are wanted.
    std::panic::set_hook(Box::new(|_| {}));
    let seed = noticed_at(breach, shards, most);
    let _ = std::panic::take_hook();
    match seed {
        Some(seed) => println!("{}: noticed at seed {seed}", breach.name()),
        None => panic!("{} went unnoticed for {most} seeds", breach.name()),
    }
}

/// Every rule but one is missed within a few hundred seeds.
#[test]
fn every_broken_rule_is_noticed() {
    for breach in Breach::all().filter(|breach| *breach != Breach::Rule(Rule::RenewalsFirst)) {
        expect(breach, None, 1_500);
    }
}

/// It takes a renewal that arrives in the very turn in which its lease ends, and at its home.
#[test]
fn an_expiry_before_a_renewal_is_noticed() {
    expect(Breach::Rule(Rule::RenewalsFirst), Some(1), 1_500);
}
