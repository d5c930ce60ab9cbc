//! The test of the tester: each rule is switched off, and the swarm has to notice within N seeds.
//!
//! `cargo xtask test` runs it, since it needs a build of its own:
//! `cargo test -p ringway-sim --features sabotage --test sabotage`

use std::panic::catch_unwind;

use ringway_coord_proto::sabotage::Rule;
use ringway_sim::swarm::{Breach, Options, Theme, run};

/// So many seeds have to notice: a rule that one seed notices goes unnoticed when the swarm
/// learns something new, because then every seed means something else.
const WITNESSES: usize = 3;
/// Within so many seeds. As it stands, all are found within the first 250.
const SEEDS: u64 = 1_500;

/// How to look for a breach. Most show up whatever happens; some need a seed that is about them.
fn options(breach: Breach) -> Options {
    let (theme, steps) = match breach {
        // Renewals are unread when the process goes on.
        Breach::Rule(Rule::StallsDoNotCount) => (Some(Theme::Stalls), 1_500),
        // A renewal arrives in the very turn in which its lease ends, and at its home.
        Breach::Rule(Rule::RenewalsFirst) => (Some(Theme::LastMoment), 1_500),
        // Somebody asks between the end of a session and its sweeping, in the same turn.
        Breach::Rule(Rule::DeadMakeRoom) => (Some(Theme::Queues), 1_500),
        // A connection ends from one side while it blocks; a name is handed to one that does.
        Breach::Rule(Rule::WaitsEndWithTheirConnection | Rule::BlockedAreAnswered) => {
            (Some(Theme::Blocked), 1_500)
        }
        // A namespace has as many names as it may, and some are given back.
        Breach::Rule(Rule::CreditsGivenBack | Rule::QuotasHold) => (Some(Theme::Quotas), 1_500),
        // A lane is opened again while something that was sent by it is on its way.
        Breach::Rule(Rule::LanesWaitForTheirUnits) => (Some(Theme::Lanes), 1_500),
        // Two crashes with a wait between them that is survived, and leases of two lengths.
        Breach::EarlierLifeAllows => (Some(Theme::Restarts), 6_000),
        _ => (None, 1_500),
    };
    Options { breach: Some(breach), theme, steps, ..Options::default() }
}

/// The first seeds that notice, by a judgement or an assertion of the code itself.
fn witnesses(options: Options) -> Vec<u64> {
    let noticed = |seed: &u64| {
        let seed = *seed;
        !matches!(catch_unwind(move || run(seed, &options)), Ok(Ok(_)))
    };
    (0..SEEDS).filter(noticed).take(WITNESSES).collect()
}

/// Whatever rule is switched off, the swarm sees it soon and not by luck.
#[test]
fn every_broken_rule_is_noticed() {
    // Hundreds of assertions fail on purpose here, and say nothing to anybody.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found: Vec<(String, Vec<u64>)> =
        Breach::all().map(|breach| (breach.name(), witnesses(options(breach)))).collect();
    std::panic::set_hook(print);
    let missed: Vec<_> = found.iter().filter(|(_, seeds)| seeds.len() < WITNESSES).collect();
    found.iter().for_each(|(name, seeds)| println!("{name}: noticed at seeds {seeds:?}"));
    assert!(missed.is_empty(), "unnoticed, or by fewer than {WITNESSES} of {SEEDS}: {missed:?}");
}
