//! What does it cost to list all names of a shard, and how long does that keep others waiting?
//!
//! `cargo run --release -p ringway-coord-proto --example listing -- [--tag] 1M 10M`
//!
//! For each count: registers random 16-byte names in a shard, lists all of them in pages as large
//! as they may be, and prints the processor time of the listing, its pages, and its worst turn.
//! With `--tag` all names are of one slot, which is the worst that names can do to a listing.

mod measure;

use std::time::Duration;

use ringway_coord_proto::wire::{self, Preface, Reply, op};
use ringway_core::limits::FRAME_OPS_MAX;
use ringway_core::rng::Rng;
use ringway_core::wire::{Put, Reader};
use ringway_sim::alone::Alone;
use ringway_sim::native;
use ringway_sim::process::Settings;

use measure::cpu_time;

const FILL_FRAME: u64 = 4_000;

fn main() {
    let mut tag = false;
    println!("     names | list all    pages  worst turn");
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--tag" => tag = true,
            count => run(parse(count), tag),
        }
    }
}

fn parse(count: &str) -> u64 {
    let digits = count.trim_end_matches(['k', 'M']);
    let number: u64 = digits.parse().expect("a count such as 10M");
    number
        * if count.ends_with('M') {
            1_000_000
        } else if count.ends_with('k') {
            1_000
        } else {
            1
        }
}

fn run(count: u64, tag: bool) {
    let settings = Settings { region_words: usize::MAX / 4, ..Settings::default() };
    let mut one = Alone::new(&settings, 1);
    one.receive(0, &Preface::OURS.encode());
    one.turn();
    for first in (0..count).step_by(FILL_FRAME as usize) {
        let last = (first + FILL_FRAME).min(count);
        let names = (first..last).map(|index| name(index, tag));
        one.receive(0, &frame(names.map(|name| (op::REGISTER, name))));
        one.turn();
    }
    assert_eq!(one.shard.names().table().len() as u64, count);
    let (mut slot, mut after, mut seen, mut pages) = (0u16, Vec::new(), 0, 0);
    let (mut all, mut worst) = (Duration::ZERO, Duration::ZERO);
    loop {
        let mut body = Vec::new();
        body.put_u16(slot);
        body.put_u16(FRAME_OPS_MAX as u16);
        body.put_short_bytes(&after);
        body.put_short_bytes(b"");
        one.receive(0, &frame([(op::LIST, body)].into_iter()));
        while one.said(0).is_empty() {
            let turn = timed(&mut one);
            all += turn;
            worst = worst.max(turn);
        }
        pages += 1;
        let answer = one.said(0).to_vec();
        one.read();
        let mut replies = &answer[wire::FRAME_HEADER_BYTES..];
        let Some(Reply::Data(_, page)) = wire::next_reply(&mut replies) else {
            panic!("a list is answered with a page");
        };
        let mut page = Reader::new(page);
        let done = page.u8().expect("done") != 0;
        slot = page.u16().expect("a slot");
        after = page.short_bytes().expect("a name").to_vec();
        seen += u64::from(page.u16().expect("a count"));
        if done {
            break;
        }
    }
    assert_eq!(seen, count, "every name once");
    let (all, worst) = (all.as_secs_f64(), worst.as_secs_f64() * 1e3);
    println!("{count:>10} | {all:>7.3} s {pages:>8}  {worst:>7.3} ms");
}

fn name(index: u64, tag: bool) -> Vec<u8> {
    let mut rng = Rng::new(index);
    let (low, high) = (rng.next_u64(), rng.next_u64());
    if tag {
        return format!("{{t}}{low:013x}").into_bytes();
    }
    (u128::from(low) | u128::from(high) << 64).to_le_bytes().to_vec()
}

fn frame(ops: impl Iterator<Item = (u8, Vec<u8>)>) -> Vec<u8> {
    native::frame(1, ops.into_iter().map(|(code, body)| (code, 0, body)))
}

/// A turn, and the processor time it took: others on the same core do not count.
fn timed(one: &mut Alone) -> Duration {
    let before = cpu_time();
    one.step();
    cpu_time() - before
}
