//! Thousands of lines with every fault: what is read is what was written.

mod world;

use world::{Kind, Plan, Sum};

/// Runs all seeds of a range; a failure names the one that shows it.
fn all(seeds: std::ops::Range<u64>, kind: Kind) -> Sum {
    let mut all = Sum::default();
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
            Err(why) => panic!("{plan:?}: {why}"),
        }
    }
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
    all(0..40, Kind::Crowded);
    all(0..40, Kind::Equal);
    all(0..40, Kind::Trembling);
    all(0..200, Kind::Shaken);
}

#[test]
fn whoever_is_beside_us_each_keeps_something() {
    all(0..12, Kind::Patient);
    all(0..40, Kind::Left);
    all(0..40, Kind::Pressed);
    all(0..40, Kind::Deep);
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
    all(0..40, Kind::Dropping);
    all(0..40, Kind::Shallow);
    all(0..60, Kind::Begun);
    all(0..60, Kind::Moved);
    all(0..60, Kind::Paired);
    all(0..40, Kind::Thrice);
    all(0..100, Kind::Interrupted);
    all(0..5, Kind::Rerouted);
}
