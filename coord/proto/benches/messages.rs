//! Question: what does one message cost a shard, from the sender's bytes to the receiver's, without
//! the kernel? The bar is 3 M a server CPU second, kernel included: 333 ns each.
//! Measured: messages of 64 bytes in frames of 64, 8 frames a turn, from 8 connections to 100 000
//! names of 16 bytes that 64 others own. Not measured: sockets, several shards.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringway_coord_proto::wire::{FrameWriter, KIND_REQUEST, Preface, op, put_op, status};
use ringway_core::Token;
use ringway_core::rng::Rng;
use ringway_sim::alone::Alone;
use ringway_sim::native::{register, send, send_fenced};
use ringway_sim::process::Settings;

const NAMES: u64 = 100_000;
const SENDERS: u32 = 8;
const RECEIVERS: u32 = 64;
const FRAME: usize = 64;

type Op = (u8, u8, Vec<u8>);
/// Makes the op at a place of a frame of a connection, to a name.
type Make<'a> = &'a dyn Fn(usize, u32, &str) -> Op;

fn name(index: u64) -> String {
    format!("{index:016}")
}

fn frame(ops: impl IntoIterator<Item = Op>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut frame = FrameWriter::begin(&mut out, KIND_REQUEST, 0, 1);
    for (code, flags, body) in ops {
        put_op(&mut out, code, flags, &body);
        frame.add(1);
    }
    frame.finish(&mut out);
    out
}

/// Connections that own names, and others behind them that own one each.
fn filled() -> (Alone, Vec<Token>) {
    let settings = Settings { region_words: 1 << 26, ..Settings::default() };
    let mut alone = Alone::new(&settings, RECEIVERS + SENDERS);
    (0..RECEIVERS + SENDERS).for_each(|conn| alone.receive(conn, &Preface::OURS.encode()));
    alone.turn();
    let names: Vec<u64> = (0..NAMES).collect();
    for (at, chunk) in names.chunks(NAMES as usize / 64 + 1).enumerate() {
        alone.receive(at as u32, &frame(chunk.iter().map(|index| register(&name(*index)))));
        alone.turn();
    }
    let tokens = (RECEIVERS..RECEIVERS + SENDERS).map(|conn| {
        alone.receive(conn, &frame([register(&format!("sender {conn}"))]));
        alone.step();
        let reply = &alone.said(conn)[16..];
        assert_eq!(reply[0], status::GRANTED_EPHEMERAL);
        let token = u64::from_le_bytes(reply[9..17].try_into().expect("a token"));
        alone.read();
        Token(token)
    });
    let tokens = tokens.collect();
    (alone, tokens)
}

fn messages(criterion: &mut Criterion) {
    let (mut bench, tokens) = filled();
    let mut rng = Rng::new(9);
    let mut group = criterion.benchmark_group("turn of 8 frames of 64 messages");
    group.throughput(Throughput::Elements(u64::from(SENDERS) * FRAME as u64));
    let payload = [7; 64];
    let kinds: [(&str, Make<'_>); 4] = [
        ("plain", &|_, _, to| send(0, to, &payload)),
        ("same payload", &|at, _, to| match at {
            0 => send(0, to, &payload),
            _ => send(op::SEND_SAME, to, b""),
        }),
        ("receipt", &|_, _, to| send(op::SEND_RECEIPT, to, &payload)),
        ("fenced", &|_, conn, to| {
            let source = format!("sender {conn}");
            send_fenced(0, (&source, tokens[(conn - RECEIVERS) as usize]), to, &payload)
        }),
    ];
    for (kind, make) in kinds {
        let frames: Vec<Vec<u8>> = (0..512 * SENDERS)
            .map(|at| {
                let conn = RECEIVERS + at % SENDERS;
                frame((0..FRAME).map(|at| make(at, conn, &name(rng.below(NAMES)))))
            })
            .collect();
        let before = bench.shard.stats().messages;
        let mut turns = frames.chunks(SENDERS as usize).cycle();
        let mut sent = 0;
        group.bench_function(kind, |bencher| {
            bencher.iter(|| {
                let turn = turns.next().expect("a cycle");
                for (conn, frame) in (RECEIVERS..).zip(turn) {
                    bench.receive(conn, frame);
                }
                sent += turn.len() * FRAME;
                black_box(bench.turn())
            });
        });
        let after = bench.shard.stats().messages;
        assert_eq!(after.delivered - before.delivered, sent as u64, "{kind}: all arrive");
    }
    group.finish();
}

criterion_group!(benches, messages);
criterion_main!(benches);
