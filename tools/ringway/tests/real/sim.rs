//! `ringway wan sim` as a user starts it: what it prints, what it refuses, and its exit codes.

use serde_json::Value;

use crate::support::{Told, ringway};

/// Ours, CUBIC and BBRv1 on links that take a moment to simulate.
fn beside(words: &[&str]) -> Told {
    ringway(&[&["wan", "sim", "--beside", "--warm-up", "500", "--time", "500"], words].concat())
}

/// Who meets whom is a table with a head, or JSON; both say the same for the same words and seeds.
/// A buffer in which nobody has room misses its bars, which --check tells by its exit code.
#[test]
fn rivals_are_judged_beside_each_other() {
    let link = ["rate=20mbit", "rtt=40ms", "queue=2bdp"];
    let page = beside(&link).with(0).out;
    let line = |number: usize| page.lines().nth(number).unwrap_or_else(|| panic!("{page}"));
    assert_eq!(line(0), "20 Mbit/s, 40 ms, packets of 1500 bytes");
    for words in ["buffer", "who comes", "has", "used", "jain", "queue", "p99", "over", "verdict"] {
        assert!(line(1).contains(words), "{words}: {page}");
    }
    let rows = beside(&[&link[..], &["--json"]].concat()).with(0).json();
    let rows = rows.as_array().expect("rows").clone();
    assert_eq!(rows.len(), 11);
    for (at, row) in rows.iter().enumerate() {
        let who = row["who"].as_str().expect("a text");
        assert!(line(2 + at).contains(who), "{who}: {page}");
        let shares = row["shares"].as_array().expect("numbers");
        let sum: f64 = shares.iter().map(|share| share.as_f64().expect("a number")).sum();
        assert!((sum - row["used"].as_f64().expect("a number")).abs() < 1e-6, "{row}");
        assert!((0.9..=1.001).contains(&sum) && row["queue"] == 2.0, "{row}");
        assert_eq!(row["bar"].is_null(), !who.contains("ours"), "{row}");
    }
    let small = ["rate=20mbit", "rtt=40ms", "queue=0.05bdp", "--seeds", "2"];
    let missed = |told: Told| -> usize {
        let rows = told.json();
        let misses = |row: &&Value| !row["misses"].as_array().expect("texts").is_empty();
        rows.as_array().expect("rows").iter().filter(misses).count()
    };
    let told = beside(&[&small[..], &["--json"]].concat());
    assert!(missed(told.with(0)) > 0, "nobody has room");
    let judged = beside(&[&small[..], &["--check"]].concat()).with(1);
    assert!(judged.out.contains("miss it, the worst of 2 seeds each"), "{judged:?}");
    assert_eq!(
        beside(&[&small[..], &["--check"]].concat()).with(1).out,
        judged.out,
        "to the digit"
    );
}

/// Where a link loses packets by itself nothing is asked. What nobody can answer is refused.
#[test]
fn what_rivals_cannot_be_asked_is_refused() {
    let told = beside(&["rate=20mbit", "loss=1%", "--json", "--check"]).with(0).json();
    let rows = told.as_array().expect("rows");
    // One and two round trips of buffer, if nothing else is said.
    assert_eq!(rows.len(), 22);
    assert!(rows.iter().all(|row| row["bar"].is_null()), "{rows:?}");
    beside(&["mtu=9000"]).with(2).complains(&["1500", "mtu"]);
    beside(&["rtt=0"]).with(2).complains(&["rtt=40ms"]);
    beside(&["down=1"]).with(2).complains(&["down"]);
    for words in [&["--start"][..], &["--memory", "1g"], &["--for", "5s"], &["--plot", "x.svg"]] {
        ringway(&[&["wan", "sim", "--beside"], words].concat()).with(2).complains(&["--beside"]);
    }
}
