//! Question: what does one op cost a shard from its bytes to its reply, without the kernel?
//! Measured: parsing, hashing, prefetching, the table, and the reply, for frames of 64 in turns of
//! 512 ops over 1 M names. Not measured: sockets, huge pages (the table is on the heap).

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringway_coord_proto::wire::{FrameWriter, KIND_REQUEST, Preface, op, put_op};
use ringway_core::rng::Rng;
use ringway_sim::alone::Alone;
use ringway_sim::process::Settings;

const NAMES: u64 = 1_000_000;
const CONNS: u32 = 8;
const FRAME: usize = 64;

fn name(index: u64) -> [u8; 16] {
    let mut rng = Rng::new(index);
    (u128::from(rng.next_u64()) | u128::from(rng.next_u64()) << 64).to_le_bytes()
}

fn frame(code: u8, names: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut frame = FrameWriter::begin(&mut out, KIND_REQUEST, 0, 1);
    for index in names {
        put_op(&mut out, code, 0, &name(index));
        frame.add(1);
    }
    frame.finish(&mut out);
    out
}

fn filled() -> Alone {
    let settings = Settings { region_words: 1 << 28, ..Settings::default() };
    let mut alone = Alone::new(&settings, CONNS);
    (0..CONNS).for_each(|index| alone.receive(index, &Preface::OURS.encode()));
    alone.turn();
    let names: Vec<u64> = (0..NAMES).collect();
    for chunk in names.chunks(4_000) {
        alone.receive(0, &frame(op::REGISTER, chunk.iter().copied()));
        alone.turn();
    }
    assert_eq!(alone.shard.names().table().len() as u64, NAMES);
    alone
}

fn turns(criterion: &mut Criterion) {
    let mut bench = filled();
    let mut rng = Rng::new(9);
    let ops = CONNS as usize * FRAME;
    let mut group = criterion.benchmark_group("turn of 8 frames of 64");
    group.throughput(Throughput::Elements(ops as u64));
    let queries: Vec<Vec<u8>> = (0..4_096)
        .map(|_| {
            frame(op::QUERY, (0..FRAME).map(|_| rng.below(NAMES)).collect::<Vec<_>>().into_iter())
        })
        .collect();
    let mut at = 0;
    group.bench_function("query", |bencher| {
        bencher.iter(|| {
            for conn in 0..CONNS {
                at = (at + 1) % queries.len();
                bench.receive(conn, &queries[at]);
            }
            black_box(bench.turn())
        });
    });
    let pairs: Vec<(Vec<u8>, Vec<u8>)> = (0..2_048u64)
        .map(|i| {
            let names = || (0..FRAME as u64).map(move |j| NAMES + i * FRAME as u64 + j);
            (frame(op::REGISTER, names()), frame(op::RELEASE, names()))
        })
        .collect();
    group.bench_function("register and release", |bencher| {
        bencher.iter(|| {
            for _ in 0..CONNS / 2 {
                at = (at + 1) % pairs.len();
                bench.receive(0, &pairs[at].0);
                bench.receive(0, &pairs[at].1);
            }
            black_box(bench.turn())
        });
    });
    group.finish();
}

criterion_group!(benches, turns);
criterion_main!(benches);
