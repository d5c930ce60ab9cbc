//! The test of the tester: each rule of an agent is switched off, and the storms have to notice.
//!
//! `cargo xtask test` runs it, since it needs a build of its own:
//! `cargo test -p ringway-tunnel-proto --features sabotage --test agent_sabotage`

mod net;
mod storm;

use std::panic::catch_unwind;

use ringway_tunnel_proto::sabotage::Rule;

/// So many seeds have to notice, or it is luck.
const WITNESSES: usize = 3;
/// Within so many.
const SEEDS: u64 = 400;

/// The first seeds that notice, by a judgement or an assertion of the code itself.
fn witnesses(rule: Rule) -> Vec<u64> {
    let noticed = |seed: &u64| !matches!(catch_unwind(|| storm::run(*seed, Some(rule))), Ok(Ok(_)));
    (0..SEEDS).filter(noticed).take(WITNESSES).collect()
}

#[test]
fn every_broken_rule_is_noticed() {
    // Assertions fail on purpose here, and say nothing to anybody.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found: Vec<_> = Rule::AGENT.map(|rule| (rule, witnesses(rule))).into();
    std::panic::set_hook(print);
    found.iter().for_each(|(rule, seeds)| println!("{rule:?}: noticed at seeds {seeds:?}"));
    let missed: Vec<_> = found.iter().filter(|(_, seeds)| seeds.len() < WITNESSES).collect();
    assert!(missed.is_empty(), "unnoticed, or by fewer than {WITNESSES} of {SEEDS}: {missed:?}");
}
