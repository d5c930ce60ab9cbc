//! What does it cost to wait, and to let one of many who wait have the name?
//!
//! `cargo run --release -p ringway-coord-proto --example waiters -- [--timed] 1k 100k 1M`
//!
//! For each count: so many connections with a bare session each wait for one name. Then whoever
//! holds it releases it, a thousand times in turn. Prints the bytes that a wait takes (by the
//! shard's own account, and what the process grew by) and the processor time of waiting and of a
//! turn that releases: parsing, the grant to whoever is next, and the notice. With `--timed` every
//! wait has an end.

mod measure;

use std::time::Duration;

use ringway_coord_proto::wire::{Preface, op, push};
use ringway_sim::alone::Alone;
use ringway_sim::native;
use ringway_sim::process::Settings;

use measure::cpu_time;

const RELEASES: u32 = 1_000;

fn main() {
    let mut wait_ms = 0u32;
    println!("   waiting |  bytes counted  grown | wait      release p50      p99      max");
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--timed" => wait_ms = 3_600_000,
            count => run(parse(count), wait_ms),
        }
    }
}

fn parse(count: &str) -> u32 {
    let digits = count.trim_end_matches(['k', 'M']);
    let number: u32 = digits.parse().expect("a count such as 100k");
    match count.as_bytes().last() {
        Some(b'M') => number * 1_000_000,
        Some(b'k') => number * 1_000,
        _ => number,
    }
}

fn run(count: u32, wait_ms: u32) {
    let settings = Settings { sessions_max: 2 << 20, ..Settings::default() };
    let mut alone = Alone::new(&settings, count + 1);
    for index in 0..=count {
        alone.receive(index, &Preface::OURS.encode());
        // Whatever a session costs is not what waiting costs.
        alone.receive(index, &frame(op::REGISTER, b"mine"));
        alone.receive(index, &frame(op::RELEASE, b"mine"));
        if index % 10_000 == 0 {
            alone.turn();
        }
    }
    alone.receive(count, &frame(op::REGISTER, b"wanted"));
    alone.turn();
    let (before, cpu) = (resident(), cpu_time());
    let wait = frame(op::WAIT, &[&wait_ms.to_le_bytes()[..], b"wanted"].concat());
    for index in 0..count {
        alone.receive(index, &wait);
        if index % 10_000 == 0 {
            alone.step();
        }
    }
    alone.step();
    let waited = (cpu_time() - cpu) / count;
    alone.read();
    let grown = (resident() - before) / f64::from(count);
    assert_eq!(alone.shard.names().claims(), count as usize, "all of them wait");
    let counted = alone.shard.names().side_bytes() as f64 / f64::from(count);
    let mut took: Vec<Duration> = (0..RELEASES.min(count))
        .map(|next| {
            let holder = if next == 0 { count } else { next - 1 };
            release(&mut alone, holder, next)
        })
        .collect();
    took.sort();
    let at = |per_mille: usize| took[(took.len() - 1) * per_mille / 1000].as_secs_f64() * 1e6;
    println!(
        "{count:>10} | {counted:>14.1} {grown:>6.1} | {:>4} ns {:>10.1} us {:>5.1} us {:>5.1} us",
        waited.as_nanos(),
        at(500),
        at(990),
        at(1000),
    );
}

/// Releases the name, and sees that the one who waits longest hears of it, and nobody else.
fn release(alone: &mut Alone, holder: u32, next: u32) -> Duration {
    let release = frame(op::RELEASE, b"wanted");
    let before = cpu_time();
    alone.receive(holder, &release);
    alone.step();
    let took = cpu_time() - before;
    let told = alone.said(next).to_vec();
    assert_eq!(told[16], push::GRANTED, "the next one is told");
    alone.read_of(&[holder, next]);
    took
}

fn frame(code: u8, body: &[u8]) -> Vec<u8> {
    native::frame(1, [(code, 0, body)])
}

/// Bytes of the process that are in memory.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    let pages: f64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a count");
    pages * rustix::param::page_size() as f64
}
