//! What does a change cost that many watch, and what does one cost who watches and does not read?
//!
//! `cargo run --release -p ringway-coord-proto --example watching`
//!
//! Prints processor time of the shard, sending not included:
//! - one change of one name that 1, 1000, 10 000 and 100 000 connections watch: until the last one
//!   was told, the turns that took, and the worst of them;
//! - the same changes of 1000 names of a prefix that 10 000 connections watch, with all of them
//!   reading and with one more that never does; and what that one has left unread.

mod measure;

use std::time::Duration;

use ringway_coord_proto::wire::{Preface, op};
use ringway_core::wire::Put;
use ringway_sim::alone::Alone;
use ringway_sim::native;
use ringway_sim::process::Settings;

use measure::cpu_time;

/// Rounds of each question; the median is told.
const ROUNDS: usize = 9;

fn main() {
    println!("watchers | told after  a watcher  turns  worst turn");
    for watchers in [1, 1_000, 10_000, 100_000] {
        one_name(watchers);
    }
    println!("watchers of a prefix | told after  a notice  worst turn  one unread");
    for stuck in [false, true] {
        one_prefix(10_000, stuck);
    }
}

fn one_name(watchers: u32) {
    let mut alone = start(watchers, "leader");
    let mut rounds: Vec<(Duration, usize, Duration)> = (0..ROUNDS)
        .map(|round| {
            let code = if round % 2 == 0 { op::REGISTER } else { op::RELEASE };
            alone.receive(watchers, &frame([(code, b"leader".to_vec())]));
            told(&mut alone, watchers as usize)
        })
        .collect();
    rounds.sort();
    let (all, turns, worst) = rounds[ROUNDS / 2];
    let each = all.as_nanos() as u64 / u64::from(watchers);
    let (all, worst) = (all.as_secs_f64() * 1e3, worst.as_secs_f64() * 1e3);
    println!("{watchers:>8} | {all:>7.3} ms {each:>8} ns {turns:>6}  {worst:>7.3} ms");
}

fn one_prefix(watchers: u32, stuck: bool) {
    let mut alone = start(watchers + u32::from(stuck), "svc/");
    let writer = watchers + u32::from(stuck);
    if stuck {
        alone.stick(watchers);
    }
    let mut rounds: Vec<(Duration, usize, Duration)> = (0..ROUNDS)
        .map(|round| {
            let code = if round % 2 == 0 { op::REGISTER } else { op::RELEASE };
            let names = (0..1_000).map(|name| (code, format!("svc/{name}").into_bytes()));
            alone.receive(writer, &frame(names));
            told(&mut alone, watchers as usize * 1_000)
        })
        .collect();
    rounds.sort();
    let (all, _, worst) = rounds[ROUNDS / 2];
    let each = all.as_nanos() as u64 / (u64::from(watchers) * 1_000);
    let (all, worst) = (all.as_secs_f64() * 1e3, worst.as_secs_f64() * 1e3);
    let who = if stuck { "10000 and one stuck" } else { "10000" };
    let unread = if stuck { alone.said(watchers).len() } else { 0 };
    println!("{who:>20} | {all:>7.1} ms {each:>7} ns  {worst:>7.3} ms  {unread:>8} B");
}

/// A shard with so many connections that watch a filter, and one more.
fn start(watchers: u32, filter: &str) -> Alone {
    let settings = Settings { region_words: 1 << 22, ..Settings::default() };
    let mut alone = Alone::new(&settings, watchers + 1);
    (0..=watchers).for_each(|index| alone.receive(index, &Preface::OURS.encode()));
    alone.turn();
    let mut body = Vec::new();
    body.put_u32(7);
    body.put_u8(0x0F);
    body.put_u32(0);
    body.extend_from_slice(filter.as_bytes());
    for index in 0..watchers {
        alone.receive(index, &frame([(op::WATCH, body.clone())]));
        if index % 256 == 0 {
            alone.turn();
        }
    }
    for _ in 0..watchers / 256 + 2 {
        alone.turn();
    }
    assert_eq!(alone.shard.watches(), watchers as usize);
    alone
}

/// Turns until so many notices were written: their time together, how many, and the worst.
fn told(alone: &mut Alone, notices: usize) -> (Duration, usize, Duration) {
    let goal = alone.shard.stats().watch_notices + notices as u64;
    let (mut all, mut worst, mut turns) = (Duration::ZERO, Duration::ZERO, 0);
    while alone.shard.stats().watch_notices < goal {
        let before = cpu_time();
        alone.step();
        let took = cpu_time() - before;
        (all, worst, turns) = (all + took, worst.max(took), turns + 1);
        alone.read();
        assert!(turns < 1_000_000, "they are never all told");
    }
    (all, turns, worst)
}

fn frame(ops: impl IntoIterator<Item = (u8, Vec<u8>)>) -> Vec<u8> {
    native::frame(1, ops.into_iter().map(|(code, body)| (code, 0, body)))
}
