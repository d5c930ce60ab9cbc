//! What one RESP command costs before and after the engine: parsing, and writing the reply.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringway_coord_proto::resp::encode::{Version, Writer, put_null, put_owner};
use ringway_coord_proto::resp::{Args, Parsed, next_command};
use ringway_core::rng::Rng;
use ringway_core::{SessionId, Token};

/// Commands of one pipeline: enough that names differ, few enough to stay in the first cache.
const COMMANDS: usize = 256;

/// A pipeline of one-name commands. Uniform names have 16 bytes, mixed ones 4 to 40, so that the
/// width of their length is not predictable.
fn pipeline(verb: &str, mixed: bool) -> Vec<u8> {
    let mut rng = Rng::new(7);
    let mut bytes = Vec::new();
    for _ in 0..COMMANDS {
        let len = if mixed { 4 + rng.below(37) as usize } else { 16 };
        let name = format!("{:040x}", rng.next_u64());
        let name = &name[40 - len..];
        let verb_len = verb.len();
        bytes.extend_from_slice(
            format!("*2\r\n${verb_len}\r\n{verb}\r\n${len}\r\n{name}\r\n").as_bytes(),
        );
    }
    bytes
}

/// One command with `names` names of 16 bytes.
fn batch(names: usize) -> Vec<u8> {
    let mut rng = Rng::new(7);
    let mut bytes = format!("*{}\r\n$10\r\nPORT.QUERY\r\n", names + 1).into_bytes();
    for _ in 0..names {
        bytes.extend_from_slice(format!("$16\r\n{:016x}\r\n", rng.next_u64()).as_bytes());
    }
    bytes
}

/// Parses all commands; gives a number that depends on all of them.
fn parse_all(args: &mut Args, bytes: &[u8]) -> usize {
    let (mut at, mut sum) = (0, 0);
    while at < bytes.len() {
        let Ok(Parsed::Command { consumed }) = next_command(&bytes[at..], args) else {
            panic!("a correct pipeline");
        };
        sum += args.bind(&bytes[at..]).get(1).map_or(0, <[u8]>::len);
        at += consumed;
    }
    sum
}

/// Question: does parsing fit into 15 to 25 ns for a command of two arguments?
/// Measured: framing and the ranges of the arguments. Not measured: verbs, options, cold input.
fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resp/parse");
    let mut args = Args::new();
    let cases = [
        ("GET", pipeline("GET", false), COMMANDS),
        ("PORT.QUERY", pipeline("PORT.QUERY", false), COMMANDS),
        ("GET, mixed lengths", pipeline("GET", true), COMMANDS),
        ("PORT.QUERY of 64 names", batch(64), 64),
    ];
    for (name, bytes, elements) in cases {
        group.throughput(Throughput::Elements(elements as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &bytes, |bench, bytes| {
            bench.iter(|| parse_all(&mut args, black_box(bytes)));
        });
    }
    group.finish();
}

/// Question: what does it cost to write the reply of a query, owned or free?
fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resp/encode");
    group.throughput(Throughput::Elements(COMMANDS as u64));
    let mut rng = Rng::new(7);
    let owners: Vec<(SessionId, Token)> = (0..COMMANDS)
        .map(|_| (SessionId(rng.next_u64()), Token((1 << 44) | rng.below(1 << 40))))
        .collect();
    let mut out = Vec::with_capacity(64 * 1024);
    group.bench_function("owner", |bench| {
        bench.iter(|| {
            out.clear();
            for (session, token) in black_box(&owners) {
                put_owner(&mut out, *session, *token);
            }
            out.len()
        });
    });
    group.bench_function("null", |bench| {
        bench.iter(|| {
            out.clear();
            for _ in 0..COMMANDS {
                put_null(&mut out, black_box(Version::Resp2));
            }
            out.len()
        });
    });
    group.bench_function("granted: array of 1, session, token", |bench| {
        bench.iter(|| {
            out.clear();
            for (session, token) in black_box(&owners) {
                let mut writer = Writer::new(&mut out, Version::Resp2);
                writer.array(3);
                writer.integer(1);
                writer.session(*session);
                writer.integer(token.0 as i64);
            }
            out.len()
        });
    });
    group.finish();
}

criterion_group!(benches, parse, encode);
criterion_main!(benches);
