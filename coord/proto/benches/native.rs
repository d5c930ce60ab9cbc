//! What one native op costs before and after the engine: parsing, and writing the reply.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringway_coord_proto::outcome::{Outcome, put_outcome};
use ringway_coord_proto::wire::{
    FRAME_HEADER_BYTES, FrameHeader, FrameWriter, KIND_REPLY, KIND_REQUEST, Reply, next_op,
    next_reply, op, put_op, put_owner, put_release_if, status,
};
use ringway_core::rng::Rng;
use ringway_core::{SessionId, Token};

/// Ops of a frame, as many as a client that batches sends.
const OPS: usize = 64;
/// Frames of one input: enough that names differ, few enough to stay in the first cache.
const FRAMES: usize = 8;

/// Frames of ops, which `put` writes one by one.
fn frames(mut put: impl FnMut(&mut Vec<u8>, &mut Rng)) -> Vec<u8> {
    let mut rng = Rng::new(7);
    let mut bytes = Vec::new();
    for sequence in 0..FRAMES {
        let mut frame = FrameWriter::begin(&mut bytes, KIND_REQUEST, 0, sequence as u64);
        (0..OPS).for_each(|_| put(&mut bytes, &mut rng));
        frame.add(OPS as u16);
        frame.finish(&mut bytes);
    }
    bytes
}

/// A name of 16 bytes, or of 4 to 40, so that its length is not predictable.
fn name(rng: &mut Rng, mixed: bool) -> Vec<u8> {
    let len = if mixed { 4 + rng.below(37) as usize } else { 16 };
    format!("{:040x}", rng.next_u64()).into_bytes().split_off(40 - len)
}

/// Calls `each` with the bytes of every frame; their lengths have to be right.
fn for_each_frame(mut bytes: &[u8], mut each: impl FnMut(FrameHeader, &[u8])) {
    while !bytes.is_empty() {
        let Ok(Some(header)) = FrameHeader::parse(bytes) else { panic!("a correct frame") };
        let (frame, rest) = bytes.split_at(header.len);
        each(header, &frame[FRAME_HEADER_BYTES..]);
        bytes = rest;
    }
}

/// Parses all ops of all frames; gives a number that depends on all of their bytes' places.
fn parse_all(bytes: &[u8]) -> usize {
    let mut sum = 0;
    for_each_frame(bytes, |header, mut ops| {
        for _ in 0..header.count {
            let op = next_op(&mut ops).expect("a correct op");
            sum += usize::from(op.code) + usize::from(op.flags) + black_box(op.body).len();
        }
        assert!(ops.is_empty(), "a frame of whole ops");
    });
    sum
}

/// Question: what does an op of a frame of 64 cost from bytes to its code, its flags and its name?
/// Measured: the frame header, the op headers, the ranges of the bodies. Not measured: access,
/// hashing of names, the engine, cold input.
fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("native/parse");
    group.throughput(Throughput::Elements((FRAMES * OPS) as u64));
    let plain =
        |code: u8, mixed: bool| frames(move |out, rng| put_op(out, code, 0, &name(rng, mixed)));
    let cases = [
        ("QUERY", plain(op::QUERY, false)),
        ("QUERY, mixed lengths", plain(op::QUERY, true)),
        ("REGISTER", plain(op::REGISTER, false)),
        (
            "RELEASE under a token",
            frames(|out, rng| put_release_if(out, Token(rng.next_u64()), &name(rng, false))),
        ),
    ];
    for (what, bytes) in cases {
        assert!(parse_all(&bytes) > FRAMES * OPS);
        group.bench_with_input(BenchmarkId::from_parameter(what), &bytes, |bench, bytes| {
            bench.iter(|| parse_all(black_box(bytes)));
        });
    }
    group.finish();
}

/// Outcomes of so many ops. Every `free`-th is without an owner, so that replies differ in length.
fn outcomes(owned: u8, free: Option<u64>) -> Vec<Outcome> {
    let mut rng = Rng::new(7);
    let outcome = |_| {
        if free.is_some_and(|free| rng.below(free) == 0) {
            return Outcome::plain(status::FREE);
        }
        let token = Token((1 << 44) | rng.below(1 << 40));
        Outcome::owner(owned, SessionId(rng.next_u64()), token)
    };
    (0..FRAMES * OPS).map(outcome).collect()
}

/// Writes reply frames of 64, one reply after the other with `put`.
fn encode_all(out: &mut Vec<u8>, outcomes: &[Outcome], put: impl Fn(&mut Vec<u8>, &Outcome)) {
    out.clear();
    for (sequence, replies) in outcomes.chunks(OPS).enumerate() {
        let mut frame = FrameWriter::begin(out, KIND_REPLY, 0, sequence as u64);
        replies.iter().for_each(|outcome| put(out, outcome));
        frame.add(replies.len() as u16);
        frame.finish(out);
    }
}

/// Question: what does it cost to write the reply to an op, in frames of 64?
/// Measured: the frame header and the replies, into a buffer that is large enough. Not measured:
/// how outcomes are found and put in order.
fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("native/encode");
    group.throughput(Throughput::Elements((FRAMES * OPS) as u64));
    let mut out = Vec::with_capacity(64 * 1024);
    group.bench_function("owner", |bench| {
        let owners = outcomes(status::OWNED_EPHEMERAL, None);
        bench.iter(|| {
            encode_all(&mut out, black_box(&owners), |out, outcome| {
                put_owner(out, outcome.status, outcome.session, outcome.token);
            });
            out.len()
        });
    });
    let cases = [
        ("outcome, owned", outcomes(status::OWNED_EPHEMERAL, None)),
        ("outcome, granted", outcomes(status::GRANTED_EPHEMERAL, None)),
        ("outcome, free", outcomes(status::OWNED_EPHEMERAL, Some(1))),
        ("outcome, every second free", outcomes(status::OWNED_EPHEMERAL, Some(2))),
    ];
    for (what, outcomes) in cases {
        group.bench_with_input(BenchmarkId::from_parameter(what), &outcomes, |bench, outcomes| {
            bench.iter(|| {
                encode_all(&mut out, black_box(outcomes), |out, one| put_outcome(out, *one));
                out.len()
            });
        });
    }
    group.finish();
}

/// Reads all replies of all frames; gives a number that depends on all of them.
fn read_all(bytes: &[u8]) -> u64 {
    let mut sum = 0;
    for_each_frame(bytes, |header, mut replies| {
        for _ in 0..header.count {
            sum ^= match next_reply(&mut replies).expect("a correct reply") {
                Reply::Owner { session, token, .. } => session.0 ^ token.0,
                Reply::Plain(status) | Reply::Data(status, _) => u64::from(status),
            };
        }
        assert!(replies.is_empty(), "a frame of whole replies");
    });
    sum
}

/// Question: what does a client pay to read a reply out of a frame of 64?
fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("native/read replies");
    group.throughput(Throughput::Elements((FRAMES * OPS) as u64));
    for (what, free) in [("owners", None), ("every second free", Some(2))] {
        let mut bytes = Vec::new();
        let outcomes = outcomes(status::OWNED_EPHEMERAL, free);
        encode_all(&mut bytes, &outcomes, |out, outcome| put_outcome(out, *outcome));
        group.bench_with_input(BenchmarkId::from_parameter(what), &bytes, |bench, bytes| {
            bench.iter(|| read_all(black_box(bytes)));
        });
    }
    group.finish();
}

criterion_group!(benches, parse, encode, read);
criterion_main!(benches);
