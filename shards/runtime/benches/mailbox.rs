//! Question: can a mailbox carry the requests of a busy shard for less than a table operation each?
//! A turn that forwards half of its requests posts some messages of up to 64 ops to a peer, at 20
//! to 40 bytes an op. At 100 ns an op for everything, the mailbox may take a few of them.
//!
//! Measured: what the sender and the receiver do with a message, its copy included, by size and
//! by how many there are in a turn, on one core with warm lines; and between two cores the
//! throughput of a stream, and the time of a message there and one back. Not measured: who sleeps
//! and is woken (`wake.rs`), the queue of what does not fit (`office.rs`), what mail means.

#![allow(unexpected_cfgs, reason = "cfg(loom) is given by hand, see `sync.rs`")]

// The mailbox is nobody's business but the runtime's, so the bench compiles the same source.
#[allow(dead_code, unused_imports, reason = "no tests, and nobody asks for room")]
#[path = "../src/mailbox.rs"]
mod mailbox;
#[allow(unused_imports, reason = "the fence is for sleepers")]
#[path = "../src/sync.rs"]
mod sync;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mailbox::{Receiver, Sender, mailbox};
use ringway_core::limits::MAILBOX_BYTES;

/// A reply; one op with a name of 16 bytes; a frame of 64 ops.
const MESSAGE_BYTES: [usize; 3] = [24, 40, 2_048];

/// Takes everything out; gives a number that depends on every message.
fn take_all(receiver: &mut Receiver) -> u64 {
    let mut sum = 0;
    receiver.receive(|_, message| sum += u64::from(message[0]) + message.len() as u64);
    sum
}

/// A turn of one shard and of its peer, one after the other: push all, publish once, take all.
fn turn(ends: &mut (Sender, Receiver), message: &[u8], messages: usize) -> u64 {
    for _ in 0..messages {
        assert!(ends.0.push(0, black_box(message)), "the peer has taken all of the last turn");
    }
    ends.0.publish();
    take_all(&mut ends.1)
}

fn one_core(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mailbox/turn");
    for bytes in MESSAGE_BYTES {
        for messages in [1, 64] {
            let mut ends = mailbox(MAILBOX_BYTES);
            let message = vec![7; bytes];
            // Every word is touched once: in a server each is, after a mebibyte of mail.
            for _ in 0..=MAILBOX_BYTES / bytes / messages {
                turn(&mut ends, &message, messages);
            }
            group.throughput(Throughput::Elements(messages as u64));
            let id = BenchmarkId::new(format!("{bytes} bytes"), format!("{messages} a turn"));
            group.bench_function(id, |bench| bench.iter(|| turn(&mut ends, &message, messages)));
        }
    }
    group.finish();
}

/// Waits for the other core; where somebody else has it, the other end wants ours to run.
fn wait(idle: &mut u32) {
    *idle += 1;
    match *idle % 256 {
        0 => std::thread::yield_now(),
        _ => std::hint::spin_loop(),
    }
}

/// A peer on a thread of its own that sends every message back; it ends with the closure.
fn with_echo<R>(run: impl FnOnce(&mut Sender, &mut Receiver) -> R) -> R {
    let (mut to_peer, mut from_us) = mailbox(MAILBOX_BYTES);
    let (mut to_us, mut from_peer) = mailbox(MAILBOX_BYTES);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut idle = 0;
            while !stop.load(Ordering::Relaxed) {
                from_us.receive(|_, message| assert!(to_us.push(0, message), "we take as we send"));
                if !to_us.publish() {
                    wait(&mut idle);
                }
            }
        });
        let result = run(&mut to_peer, &mut from_peer);
        stop.store(true, Ordering::Relaxed);
        result
    })
}

/// So many messages there and back, `ahead` of them under way at a time.
fn round_trips(count: u64, message: &[u8], ahead: u64) -> Duration {
    with_echo(|to, from| {
        let started = Instant::now();
        let mut idle = 0;
        let (mut sent, mut back) = (0, 0);
        while back < count {
            let room = (back + ahead).min(count) - sent;
            for _ in 0..room {
                assert!(to.push(0, message), "{ahead} messages fit");
            }
            sent += room;
            to.publish();
            let before = back;
            from.receive(|_, message| back += u64::from(black_box(message)[0] == 7));
            if back == before {
                wait(&mut idle);
            }
        }
        started.elapsed()
    })
}

fn two_cores(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mailbox/there and back");
    group.throughput(Throughput::Elements(1));
    for bytes in MESSAGE_BYTES {
        let message = vec![7; bytes];
        for ahead in [1, 64] {
            let id = BenchmarkId::new(format!("{bytes} bytes"), format!("{ahead} under way"));
            group.bench_function(id, |bench| {
                bench.iter_custom(|count| round_trips(count, &message, ahead));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = one_core, two_cores
}
criterion_main!(benches);
