//! Question: what does one op cost a shard from its bytes to its reply, without the kernel?
//! Measured: parsing, hashing, prefetching, the table, and the reply, for frames of 64 in turns of
//! 512 ops over 1 M names. Not measured: sockets, huge pages (the table is on the heap).

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringway_coord_proto::access::Open;
use ringway_coord_proto::wire::{FrameWriter, KIND_REQUEST, Preface, op, put_op};
use ringway_coord_proto::{Env, LeaseRules, Shard, ShardStart, SlotMap};
use ringway_core::limits::{LEASE_DEFAULT, LEASE_MAX_DEFAULT, LEASE_MIN};
use ringway_core::region::HeapRegion;
use ringway_core::rng::Rng;
use ringway_core::{ConnId, Epoch, Moment, ShardId, Span};
use ringway_table::{HashKey, Regions, Table};

const NAMES: u64 = 1_000_000;
const CONNS: u32 = 8;
const FRAME: usize = 64;

#[derive(Default)]
struct Sink {
    out: [Vec<u8>; CONNS as usize],
}

impl Env for Sink {
    fn out(&mut self, conn: ConnId) -> &mut Vec<u8> {
        &mut self.out[conn.index as usize]
    }
    fn backlog(&self, _conn: ConnId) -> usize {
        0
    }
    fn await_drain(&mut self, _conn: ConnId) {}
    fn buffered(&mut self) -> usize {
        0
    }
    fn buffered_for(&self, _conn: ConnId) -> usize {
        0
    }
    fn release_spare(&mut self) {}
    fn cut(&mut self, _conn: ConnId) {}
    fn call_overdue(&mut self, _conn: ConnId, _after: Span) {}
    fn pause(&mut self, _conn: ConnId) {}
    fn resume(&mut self, _conn: ConnId) {}
    fn close(&mut self, _conn: ConnId) {}
    fn post(&mut self, _to: ShardId, _message: &[u8]) {}
    fn random(&mut self) -> [u8; 16] {
        [7; 16]
    }
    fn describe(&mut self, _json: &mut Vec<u8>) {}
    fn again(&mut self) {}
}

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

struct Bench {
    shard: Shard<HeapRegion, Open>,
    sink: Sink,
    now: u64,
}

impl Bench {
    fn new() -> Self {
        let region = || HeapRegion::new(1 << 28);
        let regions =
            Regions { records: region(), index: region(), arena: region(), lines: region() };
        let table = Table::new(regions, HashKey([1, 2])).expect("an empty table fits");
        let start = ShardStart {
            id: ShardId(0),
            map: SlotMap::new(1),
            epoch: Epoch(1),
            rules: LeaseRules { min: LEASE_MIN, max: LEASE_MAX_DEFAULT, default: LEASE_DEFAULT },
            lease_allowed: LEASE_MAX_DEFAULT,
            sessions_max: 1 << 20,
            session_info_bytes: 1 << 30,
            buffer_bytes: 1 << 30,
            grants_from: Moment(0),
            keys: [3, 4],
            own_ports: vec![0],
            base_port: 7400,
            unix_at_zero: Span::ZERO,
            host: b"127.0.0.1".to_vec(),
        };
        let shard = Shard::new(Moment(0), start, table, Open::default());
        let mut bench = Bench { shard, sink: Sink::default(), now: 1 };
        for index in 0..CONNS {
            bench.shard.opened(Moment(1), ConnId { index, generation: 1 }, &mut bench.sink);
            bench.receive(index, &Preface::OURS.encode());
        }
        bench.turn();
        bench
    }

    fn receive(&mut self, index: u32, bytes: &[u8]) {
        let conn = ConnId { index, generation: 1 };
        self.shard.received(Moment(self.now), conn, bytes, &mut self.sink);
    }

    fn turn(&mut self) -> usize {
        self.now += 1_000;
        self.shard.turn(Moment(self.now), &mut self.sink);
        let mut bytes = 0;
        for out in &mut self.sink.out {
            bytes += out.len();
            out.clear();
        }
        bytes
    }

    fn fill(&mut self) {
        let names: Vec<u64> = (0..NAMES).collect();
        for chunk in names.chunks(4_000) {
            let bytes = frame(op::REGISTER, chunk.iter().copied());
            self.receive(0, &bytes);
            self.turn();
        }
        assert_eq!(self.shard.names().table().len() as u64, NAMES);
    }
}

fn turns(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    bench.fill();
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
