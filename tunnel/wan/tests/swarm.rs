//! Thousands of lines with every fault: what is read is what was written.

mod world;

use std::ops::Range;

use world::{BROKEN, Kind, Plan, Sum};

/// Runs all seeds of a range; a failure names the one that shows it.
fn all(seeds: Range<u64>, kind: Kind) -> Sum {
    most(seeds, kind, 0)
}

/// The same, where chance has its part, and so many may miss what is asked for, but none is broken.
fn most(seeds: Range<u64>, kind: Kind, misses: usize) -> Sum {
    let mut all = Sum::default();
    let mut missed = Vec::new();
    for seed in seeds {
        let plan = Plan { seed, kind, broken: None };
        match plan.run() {
            Ok(sum) => {
                all.read += sum.read;
                all.sent += sum.sent;
                all.overflowed += sum.overflowed;
                all.lost += sum.lost;
                all.cut += sum.cut;
            }
            Err(why) => {
                assert!(!why.starts_with(BROKEN), "{plan:?}: {why}");
                missed.push(format!("{plan:?}: {why}"));
            }
        }
    }
    assert!(missed.len() <= misses, "more than {misses}: {missed:#?}");
    all
}

#[test]
fn everything_arrives_once_the_line_works() {
    let seeds = if cfg!(debug_assertions) { 300 } else { 3000 };
    let sum = all(0..seeds, Kind::Storm);
    assert!(sum.read > seeds * 5_000_000 && sum.sent > sum.read, "{sum:?}");
    let faults = [sum.overflowed, sum.lost, sum.cut];
    assert!(faults.iter().all(|packets| *packets > seeds * 50), "the world was kind: {sum:?}");
}

#[test]
fn everything_arrives_beside_others() {
    let seeds = if cfg!(debug_assertions) { 100 } else { 1000 };
    let sum = all(0..seeds, Kind::Beset);
    let faults = [sum.overflowed, sum.lost, sum.cut];
    assert!(faults.iter().all(|packets| *packets > seeds * 50), "the world was kind: {sum:?}");
}

#[test]
fn little_is_sent_in_vain() {
    all(0..40, Kind::Steady);
    all(0..40, Kind::Late);
    all(0..60, Kind::Bursts);
}

#[test]
fn silence_is_noticed() {
    all(0..100, Kind::Silent);
    all(0..40, Kind::Sparse);
}

#[test]
fn lines_are_filled_and_shared() {
    all(0..40, Kind::Lossy);
    all(0..40, Kind::Growing);
    all(0..40, Kind::Narrower);
    all(0..40, Kind::Wider);
    most(0..40, Kind::Crowded, 8);
    all(0..40, Kind::Equal);
    all(0..40, Kind::Trembling);
    all(0..200, Kind::Shaken);
}

#[test]
fn whoever_is_beside_us_each_keeps_something() {
    all(0..12, Kind::Patient);
    all(0..40, Kind::Left);
    most(0..40, Kind::Pressed, 3);
    most(0..40, Kind::Deep, 2);
    all(0..40, Kind::Harmed);
}

#[test]
fn losses_are_told_apart() {
    all(0..40, Kind::Short);
    all(0..40, Kind::Worse);
    all(0..40, Kind::Uneven);
}

#[test]
fn it_begins_and_reports_as_it_should() {
    all(0..40, Kind::Gathered);
    all(0..60, Kind::Varied);
    all(0..60, Kind::Choked);
    all(0..60, Kind::Quiet);
    all(0..20, Kind::Unheard);
}

#[test]
fn what_is_believed_of_a_line_is_so() {
    most(0..40, Kind::Dropping, 2);
    all(0..40, Kind::Shallow);
    all(0..60, Kind::Begun);
    all(0..20, Kind::Heard);
    most(0..60, Kind::Moved, 4);
    all(0..60, Kind::Paired);
    all(0..40, Kind::Thrice);
    all(0..100, Kind::Interrupted);
    all(0..5, Kind::Rerouted);
}
