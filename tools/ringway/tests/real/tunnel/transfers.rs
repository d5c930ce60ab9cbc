//! Much goes both ways while everything between the two sites breaks, again and again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::flows::{Load, Transfer, mirror};
use super::sites::{Pair, Words};
use super::wire::Mood;
use crate::support::{pass, until};

/// Small numbers that are chance to nobody but the reader.
struct Dice(u64);

impl Dice {
    fn below(&mut self, many: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % many
    }
}

fn pair(shards: usize, service: SocketAddr) -> Pair {
    let words = Words::default().set(&format!("shards = {shards}"));
    Pair::start(&words.clone().forward(service), &words.allow([service]))
}

fn loads(many: u64, bytes: u64) -> Vec<Load> {
    (0..many).map(|seed| Load { seed: seed + 10, up: bytes - seed, down: bytes + seed }).collect()
}

/// Carriers are reset, go silent, crawl and lag while six flows move 100 MB each way. Whatever
/// happens to carriers, applications see nothing of it: every byte arrives, once and in order.
#[test]
fn carriers_are_hurt_and_flows_are_not() {
    hurt(1);
}

/// Likewise with two shards at both sides: carriers that come back find their session on whichever
/// shard it is.
#[test]
fn carriers_of_several_shards_are_hurt() {
    hurt(2);
}

fn hurt(shards: usize) {
    let service = mirror("127.0.0.1:0");
    let pair = pair(shards, service);
    let begun = Instant::now();
    let flows: Vec<Transfer> = loads(6, 16 << 20)
        .into_iter()
        .map(|load| Transfer::begin(pair.near.door(0), load))
        .collect();
    let (mut dice, mut hurt) = (Dice(7), 0);
    while !flows.iter().all(Transfer::is_over) {
        let alive = pair.wire.alive();
        if !alive.is_empty() && hurt < 40 {
            let victim = alive[dice.below(alive.len())];
            match dice.below(6) {
                0 | 1 => pair.wire.reset_at(victim),
                2 => pair.wire.be_at(victim, Mood::Silent),
                3 => pair.wire.be_at(victim, Mood::Crawling(100_000)),
                4 => pair.wire.be_at(victim, Mood::Late(Duration::from_millis(60))),
                _ => pair.wire.reset(),
            }
            hurt += 1;
        }
        pass(Duration::from_millis(100));
    }
    flows.into_iter().for_each(Transfer::arrives);
    println!("{hurt} times hurt in {:.1?}", begun.elapsed());
    assert!(hurt >= 5, "it was over before anything happened");
    assert!(pair.near.counter("carriers_lost") >= 2, "nothing was lost");
    pair.stop();
}

/// The far process stands still for seconds, twice, while a transfer goes on, and then goes on
/// where it was.
#[test]
fn a_far_side_that_stands_still_for_seconds() {
    let service = mirror("127.0.0.1:0");
    let pair = pair(1, service);
    let flows: Vec<Transfer> = loads(3, 12 << 20)
        .into_iter()
        .map(|load| Transfer::begin(pair.near.door(0), load))
        .collect();
    for seconds in [1, 4] {
        until("something moves", || {
            let moved: u64 = pair.near.session().flows.iter().map(|flow| flow.bytes_in).sum();
            (moved > 1 << 20 || flows.iter().all(Transfer::is_over)).then_some(())
        });
        pair.far.pause();
        pass(Duration::from_secs(seconds));
        pair.far.go_on();
    }
    flows.into_iter().for_each(Transfer::arrives);
    pair.stop();
}
