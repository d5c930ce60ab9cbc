//! The test of the tester: each rule of an agent is switched off, and the storms have to notice.
//!
//! `cargo xtask test` runs it, since it needs a build of its own:
//! `cargo test -p ringway-tunnel-proto --features sabotage --test agent_sabotage`

mod aired;
mod net;
mod storm;
mod witnesses;

use std::panic::catch_unwind;

use ringway_tunnel_proto::sabotage::Rule;

#[test]
fn every_broken_rule_is_noticed() {
    // Most storms have no weather in which a given rule matters.
    witnesses::all_are_noticed(&Rule::AGENT, 400, |seed, _, broken| {
        matches!(catch_unwind(|| storm::run(seed, broken)), Ok(Ok(_)))
    });
}

#[test]
fn every_broken_rule_of_packets_is_noticed() {
    // Three of each story.
    let seeds = 3 * aired::STORIES.len() as u64;
    witnesses::all_are_noticed(&Rule::PACKETS, seeds, |seed, rule, broken| {
        let long = [
            Rule::HeldBackLeaves,
            Rule::FillerFirst,
            Rule::PacketsTriedAgain,
            Rule::PolicedIsSeen,
            Rule::LostFirst,
        ];
        let stories: &[aired::Story] = match rule {
            Rule::LossIsNotLength => &[aired::what_is_lost_was_not_too_long],
            Rule::SilentRecordsLeft | Rule::FullIsAsked => {
                &[aired::who_is_held_back_and_silent_goes_on]
            }
            Rule::FillerIsOurs => &[aired::a_look_takes_little_of_a_link],
            _ if long.contains(&rule) => &aired::LONG_STORIES,
            _ => &aired::STORIES,
        };
        let story = stories[seed as usize % stories.len()];
        catch_unwind(|| story(broken, seed)).is_ok()
    });
}
