//! The test of the tester: each rule is switched off, and the swarm has to notice.
//!
//! `cargo xtask test` runs it, since it needs a build of its own:
//! `cargo test -p ringway-wan --features sabotage --test sabotage`

#[path = "../../proto/tests/witnesses/mod.rs"]
mod witnesses;
mod world;

use std::panic::catch_unwind;

use ringway_tunnel_proto::sabotage::Rule;
use world::{Kind, Plan};

#[test]
fn every_broken_rule_is_noticed() {
    witnesses::all_are_noticed(&Rule::PATH, 200, |seed, rule, broken| {
        let kind = match rule {
            Rule::NewestAgain => Kind::Unheard,
            Rule::CopiesGrow => Kind::Steady,
            Rule::CopiesApart => Kind::Bursts,
            Rule::LossTakesTime | Rule::LateIsHeard | Rule::LateIsWaitedFor => Kind::Late,
            Rule::TailGoesAgain => Kind::Sparse,
            Rule::SilenceGivesUp => Kind::Silent,
            Rule::LossIsFloored => Kind::Lossy,
            Rule::IdleSaysNothing => Kind::Growing,
            Rule::QueueDrained | Rule::LessAfterMore => Kind::Narrower,
            Rule::MoreIsTried | Rule::FastestCounts => Kind::Wider,
            Rule::LittleCountsWhenClean => Kind::Crowded,
            Rule::CompetingEnds => Kind::Left,
            Rule::CrowdedCompetes | Rule::PressedHolds => Kind::Pressed,
            Rule::EmptyPathKept => Kind::Deep,
            Rule::ChanceIsNoExcess => Kind::Harmed,
            Rule::PacketsPaced | Rule::LostHasNotPassed => Kind::Short,
            Rule::FloorIsMiddle | Rule::ExcessIsTested => Kind::Worse,
            Rule::ExcessComesTwice => Kind::Uneven,
            Rule::ShortTrainsSayNothing => Kind::Gathered,
            Rule::SlowestTrainCounts => Kind::Varied,
            Rule::TrainsQueueDrains => Kind::Shaken,
            Rule::RoundIsNoPath => Kind::Interrupted,
            Rule::LeastIsFloor | Rule::PressedKeeps => Kind::Rerouted,
            Rule::LastIsSaidTwice => Kind::Heard,
            Rule::NeverShut => Kind::Choked,
            Rule::ReportsBounded | Rule::ReportsSpaced => Kind::Quiet,
            Rule::HostDropsApart => Kind::Dropping,
            Rule::FirstLossesForgiven => Kind::Begun,
            Rule::MovedForgets => Kind::Moved,
            Rule::HeldIsNoTrip => Kind::Paired,
            Rule::ThirdAsAffordable => Kind::Thrice,
            Rule::JitterIsNoQueue => Kind::Trembling,
            Rule::FloorIsOfEmpty => Kind::Shallow,
            _ => Kind::Storm,
        };
        let plan = Plan { seed, kind, broken };
        matches!(catch_unwind(move || plan.run()), Ok(Ok(_)))
    });
}
