//! Question: does a flow save what `lz4 -1` saves on the same stream, by kind of file?
//! Measured: for each folder in a folder, all files below it as one stream, and each as a flow of
//! its own; carried bytes beside the size of what the `lz4` on the PATH makes of the same streams.
//! Text comes in pieces of 64 KiB with more behind them, as the tunnel reads them.
//! Not measured: time, but as an indication.
//!
//! `cargo run --release -p ringway-tunnel-coding --example office_mix -- FOLDER`;
//! `perf/office-mix.sh` fetches files and calls this.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use ringway_tunnel_coding::{Coder, Counters, Decoder, Mode};

/// As the tunnel's receive buffers.
const PIECE: usize = 64 * 1024;
/// How carried bytes arrive.
const CUT: usize = 10_007;

fn main() -> io::Result<()> {
    let root = env::args_os().nth(1).expect("the folder whose folders are the kinds");
    let mut kinds: Vec<PathBuf> =
        fs::read_dir(root)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    kinds.retain(|path| path.is_dir());
    kinds.sort();
    println!("{:58} | {:27} |", "all files as one flow", "each file a flow of its own");
    println!(
        "{:12} {:>6} {:>9} | {:>7} {:>7} {:>7} | {:>7} {:>7} {:>7} | {:>9} {:>9}",
        "kind",
        "files",
        "bytes",
        "lz4 -1",
        "carried",
        "differ",
        "lz4 -1",
        "carried",
        "differ",
        "code MB/s",
        "read MB/s",
    );
    for kind in kinds {
        row(&kind)?;
    }
    Ok(())
}

fn row(kind: &Path) -> io::Result<()> {
    let mut paths = Vec::new();
    walk(kind, &mut paths)?;
    paths.sort();
    let files: Vec<Vec<u8>> = paths.iter().map(fs::read).collect::<io::Result<_>>()?;
    let stream = files.concat();
    let one = flow(&stream);
    let lz4_one = lz4(&stream)?;
    let (mut each, mut lz4_each) = (0, 0);
    for file in files.iter().filter(|file| !file.is_empty()) {
        each += flow(file).counters.carried;
        lz4_each += lz4(file)?;
    }
    let share = |bytes: u64| format!("{:.2} %", bytes as f64 * 100.0 / stream.len() as f64);
    let differ =
        |ours: u64, lz4: u64| format!("{:+.2} %", ours as f64 * 100.0 / lz4 as f64 - 100.0);
    let rate = |time: Duration| stream.len() as f64 / time.as_secs_f64() / 1e6;
    println!(
        "{:12} {:>6} {:>9} | {:>7} {:>7} {:>7} | {:>7} {:>7} {:>7} | {:>9.0} {:>9.0}",
        kind.file_name().unwrap_or_default().to_string_lossy(),
        files.len(),
        stream.len(),
        share(lz4_one),
        share(one.counters.carried),
        differ(one.counters.carried, lz4_one),
        share(lz4_each),
        share(each),
        differ(each, lz4_each),
        rate(one.coding),
        rate(one.decoding),
    );
    Ok(())
}

struct Flow {
    counters: Counters,
    coding: Duration,
    decoding: Duration,
}

/// Sends text through a flow, checks that it comes out, and says what was carried.
fn flow(text: &[u8]) -> Flow {
    let mut coder = Coder::new(Mode::Auto);
    let mut carried = Vec::with_capacity(text.len() + text.len() / 100 + 100);
    let begun = Instant::now();
    for piece in text.chunks(PIECE) {
        coder.encode(piece, piece.len() == PIECE, &mut carried);
    }
    let coding = begun.elapsed();
    let mut decoder = Decoder::new();
    let (mut read, mut same) = (0, true);
    let begun = Instant::now();
    for cut in carried.chunks(CUT) {
        let decoded = decoder.decode(cut, |piece| {
            same &= text[read..].starts_with(piece);
            read += piece.len();
        });
        decoded.expect("what our coder wrote");
    }
    let decoding = begun.elapsed();
    assert!(same && read == text.len(), "the text came out changed");
    Flow { counters: coder.counters(), coding, decoding }
}

fn lz4(text: &[u8]) -> io::Result<u64> {
    let mut child = Command::new("lz4")
        .args(["-1", "-c", "-q"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().expect("it is piped");
    let mut output = child.stdout.take().expect("it is piped");
    let mut packed = Vec::new();
    thread::scope(|scope| {
        let writer = scope.spawn(move || input.write_all(text));
        output.read_to_end(&mut packed)?;
        writer.join().expect("it does not panic")
    })?;
    assert!(child.wait()?.success(), "lz4 failed");
    Ok(packed.len() as u64)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}
