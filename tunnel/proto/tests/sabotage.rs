//! The test of the tester: each rule is switched off, and the swarm has to notice.
//!
//! `cargo xtask test` runs it, since it needs a build of its own:
//! `cargo test -p ringway-tunnel-proto --features sabotage --test sabotage`

mod bulk;
mod witnesses;
mod world;

use std::panic::catch_unwind;

use ringway_tunnel_proto::sabotage::Rule;
use world::{World, run};

#[test]
fn every_broken_rule_is_noticed() {
    witnesses::all_are_noticed(&Rule::SESSION, 200, |seed, rule, broken| {
        if rule == Rule::WindowsGrow {
            return bulk::run(seed, broken).is_ok();
        }
        let world = World {
            seed,
            lines: 1 + (seed % 3) as usize,
            packets: usize::from(rule == Rule::RefusedNotReported),
            // Many of them have to share what is little, there.
            flows: if seed % 3 == 2 { 24 } else { 6 },
            faults_per_mille: 5,
            memory: if seed % 4 < 2 { 64 << 10 } else { 8 << 20 },
            resets_per_mille: if seed.is_multiple_of(2) { 0 } else { 500 },
            broken,
        };
        matches!(catch_unwind(move || run(world)), Ok(Ok(_)))
    });
}
