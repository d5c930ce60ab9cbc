//! What one RESP command costs before and after the engine: parsing, and writing the reply.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringway_coord_proto::resp::encode::{Version, Writer, put_null, put_owner};
use ringway_coord_proto::resp::{Args, Parsed, Request, next_command, understand};
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

/// Parses and understands all commands; gives a number that depends on all of them.
fn understand_all(args: &mut Args, bytes: &[u8]) -> usize {
    let (mut at, mut sum) = (0, 0);
    while at < bytes.len() {
        let Ok(Parsed::Command { consumed }) = next_command(&bytes[at..], args) else {
            panic!("a correct pipeline");
        };
        sum += match understand(args.bind(&bytes[at..])) {
            Ok(Request::Get(name) | Request::Lock { name, .. }) => name.len(),
            Ok(Request::Query(names)) => names.iter().map(<[u8]>::len).sum(),
            Ok(Request::Register { names, .. }) => names.len(),
            Ok(Request::Script(call)) => call.value.len(),
            other => panic!("{other:?}"),
        };
        at += consumed;
    }
    sum
}

/// The same command `COMMANDS` times.
fn repeated(words: &[&str]) -> Vec<u8> {
    let mut one = format!("*{}\r\n", words.len());
    for word in words {
        one.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    one.repeat(COMMANDS).into_bytes()
}

/// Question: what does a command cost from bytes to a checked request?
/// Measured: framing, verb, arity, options. Not measured: hashing of names, the engine.
fn understanding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resp/understand");
    let mut args = Args::new();
    let unlock = "if redis.call('get', KEYS[1]) == ARGV[1] then \
                  return redis.call('del', KEYS[1]) else return 0 end";
    let digest = "c3f8721cbb97f72bc19e972846bd7aaf91901658";
    let cases = [
        ("GET", pipeline("GET", false), COMMANDS),
        ("PORT.QUERY", pipeline("PORT.QUERY", false), COMMANDS),
        ("PORT.REGISTER", pipeline("PORT.REGISTER", false), COMMANDS),
        ("PORT.QUERY of 64 names", batch(64), 64),
        ("SET NX PX", repeated(&["SET", "lock:0123", "value", "NX", "PX", "30000"]), COMMANDS),
        ("EVALSHA", repeated(&["EVALSHA", digest, "1", "lock:0123", "value"]), COMMANDS),
        ("EVAL", repeated(&["EVAL", unlock, "1", "lock:0123", "value"]), COMMANDS),
    ];
    for (name, bytes, elements) in cases {
        group.throughput(Throughput::Elements(elements as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &bytes, |bench, bytes| {
            bench.iter(|| understand_all(&mut args, black_box(bytes)));
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
                Writer::new(&mut out, Version::Resp2).grant(true, *session, *token);
            }
            out.len()
        });
    });
    group.finish();
}

criterion_group!(benches, parse, understanding, encode);
criterion_main!(benches);
