//! Who notices that a rule is switched off.

use ringway_tunnel_proto::sabotage::Rule;

/// So many seeds have to notice, or it is luck.
const WITNESSES: usize = 3;

/// Runs seeds below `seeds` for each rule until enough notice, by a judgement or an assertion of
/// the code itself: `holds` says whether what a seed makes for that rule goes well, with another
/// rule or none switched off. A seed that fails anyway says nothing of a rule.
#[track_caller]
pub(crate) fn all_are_noticed(
    rules: &[Rule],
    seeds: u64,
    holds: impl Fn(u64, Rule, Option<Rule>) -> bool,
) {
    // Assertions fail on purpose here, and say nothing to anybody.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let noticed = |seed: u64, rule: Rule| !holds(seed, rule, Some(rule)) && holds(seed, rule, None);
    let witnesses = |rule: &Rule| -> Vec<u64> {
        (0..seeds).filter(|seed| noticed(*seed, *rule)).take(WITNESSES).collect()
    };
    let found: Vec<_> = rules.iter().map(|rule| (rule, witnesses(rule))).collect();
    std::panic::set_hook(print);
    found.iter().for_each(|(rule, seeds)| println!("{rule:?}: noticed at seeds {seeds:?}"));
    let missed: Vec<_> = found.iter().filter(|(_, seeds)| seeds.len() < WITNESSES).collect();
    assert!(missed.is_empty(), "unnoticed, or by fewer than {WITNESSES} of {seeds}: {missed:?}");
}
