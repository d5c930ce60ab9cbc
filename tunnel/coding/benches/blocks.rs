//! Question: what do coding and decoding cost by kind of bytes, beside copying them? The tunnel has
//! 0.9 ns a byte for all that it does: 59 us for 64 KiB. Bytes that cannot be compressed must cost
//! less than 1 % of that on top of the copy.
//! Measured: runs of 64 KiB blocks, blocks that are flushed, small answers.
//! Not measured: cold memory; the session.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringway_tunnel_coding::{Coder, Decoder, Mode};

const BLOCK: usize = 64 * 1024;
const BLOCKS: usize = 64;

fn chance(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..bytes.div_ceil(8)).flat_map(|_| draw().to_le_bytes()).take(bytes).collect()
}

/// Lines of a log.
fn log(bytes: usize) -> Vec<u8> {
    const PATHS: [&str; 5] = ["/", "/index.html", "/api/v2/orders", "/static/app.js", "/login"];
    let mut text = Vec::with_capacity(bytes + 200);
    for (line, chance) in chance(bytes).chunks_exact(8).enumerate() {
        if text.len() >= bytes {
            break;
        }
        let path = PATHS[usize::from(chance[0]) % PATHS.len()];
        let (host, port, size) = (chance[1], chance[2], u16::from_le_bytes([chance[3], chance[4]]));
        text.extend_from_slice(
            format!(
                "2026-11-21T10:{:02}:{:02}Z 10.0.{port}.{host} \"GET {path}\" 200 {size}\n",
                line / 60 % 60,
                line % 60,
            )
            .as_bytes(),
        );
    }
    text.truncate(bytes);
    text
}

/// What looks like text, and has nothing to find.
fn base64(bytes: usize) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    chance(bytes).iter().map(|byte| DIGITS[usize::from(byte % 64)]).collect()
}

fn code(text: &[u8], piece: usize, more: bool) -> Vec<u8> {
    let (mut coder, mut out) = (Coder::new(Mode::Auto), Vec::new());
    text.chunks(piece).for_each(|piece| coder.encode(piece, more, &mut out));
    out
}

fn coding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("code");
    group.throughput(Throughput::Bytes((BLOCK * BLOCKS) as u64));
    let mut out = Vec::with_capacity(BLOCK * BLOCKS * 2);
    let dense = chance(BLOCK * BLOCKS);
    group.bench_function("memcpy", |bench| {
        bench.iter(|| {
            out.clear();
            dense.chunks(BLOCK).for_each(|piece| out.extend_from_slice(black_box(piece)));
        });
    });
    use Mode::{Auto, Off};
    for (name, mode, text, piece, more) in [
        ("off, 64 KiB", Off, &dense, BLOCK, true),
        ("chance, 64 KiB", Auto, &dense, BLOCK, true),
        ("off, 1 KiB", Off, &dense, 1024, false),
        ("chance, 1 KiB", Auto, &dense, 1024, false),
        ("base64, 64 KiB", Auto, &base64(BLOCK * BLOCKS), BLOCK, true),
        ("log, 64 KiB, linked", Auto, &log(BLOCK * BLOCKS), BLOCK, true),
        ("log, 64 KiB, flushed", Auto, &log(BLOCK * BLOCKS), BLOCK, false),
        ("log, 1 KiB, flushed", Auto, &log(BLOCK * BLOCKS), 1024, false),
        ("log, 500 bytes, flushed", Auto, &log(BLOCK * BLOCKS), 500, false),
    ] {
        let mut coder = Coder::new(mode);
        group.bench_function(name, |bench| {
            bench.iter(|| {
                out.clear();
                text.chunks(piece).for_each(|piece| coder.encode(black_box(piece), more, &mut out));
            });
        });
    }
    group.finish();
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes((BLOCK * BLOCKS) as u64));
    let dense = chance(BLOCK * BLOCKS);
    let text = log(BLOCK * BLOCKS);
    let mut target = Vec::with_capacity(BLOCK);
    for (name, carried) in [
        ("chance, 64 KiB", code(&dense, BLOCK, true)),
        ("log, 64 KiB, linked", code(&text, BLOCK, true)),
        ("log, 16 KiB, linked", code(&text, BLOCK / 4, true)),
        ("log, 64 KiB, flushed", code(&text, BLOCK, false)),
        ("log, 1 KiB, flushed", code(&text, 1024, false)),
    ] {
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let mut decoder = Decoder::new();
                for cut in carried.chunks(BLOCK) {
                    let decoded = decoder.decode(black_box(cut), |text| {
                        target.clear();
                        target.extend_from_slice(text);
                    });
                    decoded.expect("what our coder wrote");
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, coding, decoding);
criterion_main!(benches);
