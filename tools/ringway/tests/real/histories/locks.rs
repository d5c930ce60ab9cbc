//! Critical sections under locks, as a storage would see them that compares tokens.

use std::collections::{BTreeMap, BTreeSet};

use super::{Notes, Worker};
use crate::support::{Proxy, Setup, until};

/// Processes that take turns, half of them over a wire that breaks.
const WORKERS: usize = 4;
/// How often each kind of thing happens to them.
const ROUNDS: usize = 5;
/// Sections that everybody has to get through for all to go on.
const TURNS: usize = 4;

/// A section, by its token.
#[derive(Debug, Default)]
struct Section {
    ended: bool,
    /// Its holder knew at its end that nobody else could be in.
    valid: bool,
}

/// What a storage made of some sections.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// Accesses that it took.
    taken: usize,
    /// Accesses that it refused because newer holders had been there.
    refused: usize,
    /// Sections that were valid to their end.
    valid: usize,
}

/// What a storage does that serves so many holders at once, and knows them by their tokens: whoever
/// comes when all places are taken takes that of one who is gone, or else of the oldest, whose
/// further accesses are refused.
///
/// Rules:
/// - S1  Each section has a token of its own.
/// - S2  No access of a holder who was valid to the end is refused: at no moment have more than
///   `permits` holders a valid lock.
/// - S3  Where one holds the name alone, each section that is let in has a larger token than all
///   before it.
fn judge(lines: &[String], name: &str, permits: usize) -> Result<Verdict, String> {
    let mut sections: BTreeMap<u64, Section> = BTreeMap::new();
    let of = |line: &str| -> Option<(String, u64)> {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, of, token, _] = words.as_slice() else { return None };
        (*of == name).then(|| ((*what).to_owned(), token.parse().expect("a token")))
    };
    for (what, token) in lines.iter().filter_map(|line| of(line)) {
        let section = sections.entry(token);
        match what.as_str() {
            "begin" => {
                if matches!(section, std::collections::btree_map::Entry::Occupied(_)) {
                    return Err(format!("S1: two sections of {name} under {token}"));
                }
                section.or_default();
            }
            "end" => section.or_default().ended = true,
            _ => section.or_default().valid = true,
        }
    }
    let mut verdict = Verdict::default();
    let (mut inside, mut newest) = (BTreeSet::new(), 0);
    for (what, token) in lines.iter().filter_map(|line| of(line)) {
        let taken = match what.as_str() {
            "begin" if permits == 1 && token <= newest => false,
            "begin" if inside.len() < permits => inside.insert(token),
            "begin" => {
                // Who was killed inside holds nothing any more, and never ends.
                let gone = inside.iter().find(|token| !sections[token].valid).copied();
                let oldest = gone.or(inside.first().copied().filter(|oldest| *oldest < token));
                oldest.is_some_and(|oldest| inside.remove(&oldest) && inside.insert(token))
            }
            "end" => inside.remove(&token),
            _ => continue,
        };
        newest = newest.max(token);
        if taken {
            verdict.taken += 1;
        } else if sections[&token].valid {
            let rule = if permits == 1 { "S2, S3" } else { "S2" };
            return Err(format!("{rule}: {what} of {name} under {token} is valid, and too late"));
        } else {
            verdict.refused += 1;
        }
    }
    verdict.valid = sections.values().filter(|section| section.ended && section.valid).count();
    Ok(verdict)
}

/// Processes take turns for a lock and for two seats. They are killed inside, stand still inside
/// for longer than their lease and then go on as if nothing had been, and lose their connections.
/// The others always go on; what a late one still writes is refused by its token; and nobody who
/// holds a lock validly meets more others than there are permits.
#[test]
fn locks_exclude_whatever_happens_to_their_holders() {
    let server = Setup::new().shards(2).start();
    let proxy = Proxy::start(server.addr);
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("notes");
    let mut notes = Notes::at(path.clone());
    let start = |node: u64| {
        let addr = if node.is_multiple_of(2) { proxy.addr } else { server.addr };
        Worker::start("locks", addr, node, &path)
    };
    let mut workers: Vec<Worker> = (1..=WORKERS as u64).map(start).collect();
    all_go_on(&mut notes, &workers);
    for round in 0..ROUNDS as u64 {
        let (at, token) = catch_inside(&mut notes, &workers);
        workers[at].kill();
        others_go_on(&mut notes, token);
        // Of the same node, so that its session ends at once, or of another, and that runs out.
        let node = workers[at].node + if round.is_multiple_of(2) { 0 } else { 10 };
        workers[at] = start(node);

        let (at, token) = catch_inside(&mut notes, &workers);
        others_go_on(&mut notes, token);
        workers[at].go_on();
        let late = format!("end lock {token} {}", workers[at].node);
        until("it goes on late", || notes.look().contains(&late).then_some(()));

        proxy.cut();
        all_go_on(&mut notes, &workers);
    }
    all_go_on(&mut notes, &workers);
    drop(workers);
    for (name, permits) in [("lock", 1), ("seats", 2)] {
        let verdict = judge(notes.look(), name, permits).unwrap_or_else(|why| panic!("{why}"));
        println!("{name}: {verdict:?}");
        // Each was stopped inside, and its end came late.
        assert!(name != "lock" || verdict.refused >= ROUNDS, "{verdict:?}");
        assert!(verdict.valid >= (ROUNDS + 2) * WORKERS * TURNS, "{verdict:?}");
    }
    server.stop();
}

/// The last one who is inside under the lock, and its token.
fn inside(lines: &[String]) -> Option<(u64, u64)> {
    let last = lines.iter().rev().find(|line| line.split(' ').nth(1) == Some("lock"))?;
    let mut words = last.strip_prefix("begin lock ")?.split(' ').map(|word| word.parse().ok());
    Some((words.next()??, words.next()??))
}

/// Stops a process while it is inside; which, and its token.
fn catch_inside(notes: &mut Notes, workers: &[Worker]) -> (usize, u64) {
    until("one is stopped inside", || {
        let (token, who) = inside(notes.look())?;
        let at = workers.iter().position(|worker| worker.node == who)?;
        workers[at].pause();
        if inside(notes.look()) == Some((token, who)) {
            return Some((at, token));
        }
        workers[at].go_on();
        None
    })
}

/// Somebody else is let in.
fn others_go_on(notes: &mut Notes, token: u64) {
    until("others go on", || inside(notes.look()).filter(|(newer, _)| *newer > token));
}

/// Everybody gets both the lock and a seat, a few times, from now on.
fn all_go_on(notes: &mut Notes, workers: &[Worker]) {
    let from = notes.look().len();
    until("all go on", || {
        let lines = &notes.look()[from..];
        let done = |name: &str, node: u64| {
            let (begins, ends) = (format!("valid {name} "), format!(" {node}"));
            let is_done = |line: &&String| line.starts_with(&begins) && line.ends_with(&ends);
            lines.iter().filter(is_done).count() >= TURNS
        };
        let all =
            workers.iter().all(|worker| done("lock", worker.node) && done("seats", worker.node));
        all.then_some(())
    });
}

/// The judge finds what it is there for.
#[test]
fn forged_sections_are_found() {
    let verdict = |permits: usize, lines: &[&str]| {
        let lines: Vec<String> = lines.iter().map(|line| format!("{line} 1")).collect();
        judge(&lines, "x", permits)
    };
    let good =
        ["begin x 1", "end x 1", "valid x 1", "begin x 2", "begin x 5", "end x 2", "end x 5"];
    let taken = verdict(1, &good).map(|verdict| (verdict.taken, verdict.refused, verdict.valid));
    assert_eq!(taken, Ok((5, 1, 1)), "2 was late");
    let twice = verdict(1, &["begin x 1", "end x 1", "begin x 1"]).expect_err("one token");
    assert!(twice.starts_with("S1"), "{twice}");
    let overlap = ["begin x 1", "begin x 2", "end x 1", "valid x 1", "end x 2"];
    let why = verdict(1, &overlap).expect_err("both are inside");
    assert!(why.starts_with("S2, S3: end of x under 1"), "{why}");
    assert!(verdict(2, &overlap).is_ok(), "there are two permits");
    let back = ["begin x 2", "end x 2", "begin x 1", "end x 1", "valid x 1"];
    assert!(verdict(1, &back).is_err(), "the token goes back");
    let three = ["begin x 1", "begin x 2", "begin x 3", "end x 1", "valid x 1"];
    assert!(verdict(2, &three).is_ok(), "2 may be gone");
    let three = [&three[..], &["end x 2", "valid x 2", "end x 3", "valid x 3"]].concat();
    let why = verdict(2, &three).expect_err("three are inside");
    assert!(why.starts_with("S2: end of x under 1"), "{why}");
}
