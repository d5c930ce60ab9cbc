//! What a tunnel shows of itself while it runs.

use std::collections::BTreeSet;

use rustix::process::Signal;

use super::flows::{Load, Transfer, mirror};
use super::sites::{Pair, Side, Words};
use crate::support::{Held, until};

/// The sessions of a side that can be used.
fn sessions(side: &Side) -> BTreeSet<String> {
    let status = side.status();
    let sessions = status.peers[0].sessions.iter().filter(|session| session.up);
    sessions.filter_map(|session| session.id.clone()).collect()
}

/// The next whole page: what was printed since the last head.
#[track_caller]
fn page(watched: &Held) -> Vec<String> {
    let lines = std::iter::repeat_with(|| watched.line());
    lines.take_while(|line| !line.starts_with("up for ")).collect()
}

/// What carriers move, by a page.
fn rates(page: &[String]) -> Vec<&str> {
    let carriers = page.iter().filter_map(|line| line.split_once(" ms "));
    carriers.filter_map(|(_, rest)| rest.split_whitespace().next()).collect()
}

/// Who dials has two shards, and so there are two sessions, both of one shard of the other side.
/// Both sides have the same numbers for them, and each carrier has one of its own. The page shows
/// what moves between two looks, and so nothing once all has arrived, until Ctrl-C ends it.
#[test]
fn pages_follow_until_ctrl_c() {
    let service = mirror("127.0.0.1:0");
    let near = Words::default().set("shards = 2").forward(service);
    let pair = Pair::start(&near, &Words::default().allow([service]));
    until("two sessions, the same at both sides", || {
        let near = sessions(&pair.near);
        (near.len() == 2 && near == sessions(&pair.far)).then_some(())
    });
    let status = pair.far.status();
    let carriers: Vec<&str> = status.peers[0]
        .sessions
        .iter()
        .flat_map(|session| session.carriers.iter().map(|carrier| &carrier.id[..]))
        .collect();
    assert_eq!(carriers.iter().collect::<BTreeSet<_>>().len(), carriers.len(), "{carriers:?}");
    Transfer::begin(pair.near.door(0), Load { seed: 5, up: 4 << 20, down: 4 << 20 }).arrives();

    let mut watched = pair.far.watch();
    assert_eq!(page(&watched), [""; 0], "the first line is a head");
    let first = page(&watched);
    assert_eq!(first.iter().filter(|line| line.starts_with("  shard 0: ")).count(), 2, "{first:?}");
    until("nothing moves", || {
        let page = page(&watched);
        let rates = rates(&page);
        (rates.len() >= 2 && rates.iter().all(|rate| *rate == "0B/s")).then_some(())
    });
    watched.signal(Signal::INT);
    assert_eq!(watched.wait(), Some(0), "{}", watched.err());
    pair.stop();
}
