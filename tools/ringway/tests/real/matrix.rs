//! `ringway wan matrix`, and by it that one connection fills real lossy links through the tunnel;
//! and that nothing of a run is left, however it ends.
//!
//! The links are slow enough for a machine that does much else. Where it could not keep up all the
//! same, the row says so, and the cell is measured once more.

use std::fs::{File, Permissions, read_dir};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Held, Told, command, hold, ringway, until};

/// Runs of a cell that the machine did not disturb, of which the middle one counts, and runs at
/// most. One says little: which packets are lost is worth some percent where there are few.
const ROUNDS: usize = 3;
const TRIES: usize = 4;
/// A run has measured the machine if more than one of so many packets came out late, or if threads
/// of the tunnel waited longer than this for a processor.
const LATE_ONE_OF: u64 = 200;
const WAITED_S_MAX: f64 = 1.0;
/// What has to arrive, of what can.
const BAR: f64 = 0.85;

/// Runs cells; their rows. Nothing of the run is left.
fn rows(words: &[&str], file: &str) -> Vec<Value> {
    let words = [&["--json", "wan", "matrix", "--into", file], words].concat();
    let mut command = before_others();
    command.arg(env!("CARGO_BIN_EXE_ringway")).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("it becomes our binary");
    let name = name_of(child.id());
    let told = Told::from(child.wait_with_output().expect("our child"));
    let rows = told.with(0).json();
    assert!(!is_there(&name), "{name} is left");
    rows.as_array().expect("rows").clone()
}

/// What runs a program before ordinary ones, where we may: a tunnel that waits for a processor for
/// longer than it runs fills no link. On two cores with six that wanted one, runs of 30 ms and 20 %
/// had 72 to 84 % of the bound and waited for 2 to 3 s; so they have 86 to 89 % and wait for 0.2 s.
fn before_others() -> Command {
    let chrt = || {
        let mut command = Command::new("chrt");
        command.args(["--rr", "1"]);
        command
    };
    let works = chrt().arg("true").output().is_ok_and(|told| told.status.success());
    if works { chrt() } else { Command::new("env") }
}

fn share(row: &Value) -> f64 {
    let number = |name: &str| row[name].as_f64().expect("a number");
    number("mbit_per_s") / number("bound_mbit_per_s")
}

/// Whether it was measured what the machine can do beside all else.
fn is_disturbed(row: &Value) -> bool {
    let number = |name: &str| row[name].as_u64().expect("a number");
    // Not every kernel says it.
    let has_waited = row["waited_s"].as_f64().is_some_and(|waited_s| waited_s > WAITED_S_MAX);
    number("own_losses") > 0 || number("late") * LATE_ONE_OF > number("packets") || has_waited
}

/// Four cells of the documents' table, loss both ways, on slower links. What counts is the middle
/// one of three runs. Only where the machine was busy is there another, and the best one counts if
/// it remains so: no share of a link says anything then, but a high one.
#[test]
fn lossy_links_are_filled() {
    let dir = tempfile::tempdir().expect("a directory");
    // Where much is lost of few round trips, some seconds are a sample of chance.
    let cells = [
        ("rtt=30ms loss=1%", "8s"),
        ("rtt=30ms loss=20%", "8s"),
        ("rtt=100ms loss=5%", "8s"),
        ("rtt=100ms loss=20%", "16s"),
    ];
    for (at, (cell, time)) in cells.into_iter().enumerate() {
        let file = dir.path().join(at.to_string());
        let file = file.to_str().expect("text");
        let (mut calm, mut best) = (Vec::new(), 0.0_f64);
        for seed in 1..=TRIES {
            let words = ["rate=20mbit", cell, "--for", time, "--contestants", "ringway"];
            let rows = rows(&[&words[..], &["--seed", &seed.to_string()]].concat(), file);
            let [row] = &rows[..] else { panic!("{rows:?}") };
            assert!(row["failed"].is_null(), "{row}");
            assert!(share(row) < 1.02, "more than a link carries: {row}");
            best = best.max(share(row));
            if is_disturbed(row) {
                eprintln!("disturbed: {row}");
            } else {
                calm.push(share(row));
            }
            let can_be_calm = calm.len() + TRIES - seed >= ROUNDS;
            if calm.len() == ROUNDS || !can_be_calm && best >= BAR {
                break;
            }
        }
        calm.sort_by(f64::total_cmp);
        let counts = if calm.len() == ROUNDS { calm[ROUNDS / 2] } else { best };
        assert!(counts >= BAR, "{cell}: {counts}, of {calm:?}");
    }
}

/// What was measured is not measured again, and plain TCP is measured as it is. What does not say
/// which seed it is of does not count, and whoever has such a file is told.
#[test]
fn a_matrix_goes_on_where_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("rows");
    let file = file.to_str().expect("text");
    let words = ["rate=10mbit", "rtt=10ms", "loss=0%", "--for", "1s", "--contestants", "cubic"];
    let first = rows(&words, file);
    assert!((0.7..1.02).contains(&share(&first[0])), "{first:?}");
    assert_eq!(rows(&words, file), first, "to the digit");
    let mut older = first[0].clone();
    older.as_object_mut().expect("a row").remove("seed");
    std::fs::write(file, format!("{older}\n")).expect("our file");
    let mut again = Run::start(&words, dir.path(), file);
    again.held.signal(Signal::INT);
    assert_eq!(again.held.wait(), Some(130));
    let said = again.held.err();
    assert!(said.contains(file) && said.contains("1 results are of another build"), "{said}");
    let wrong = ringway(&["wan", "matrix", "rate=none"]).with(2);
    assert!(wrong.err.contains("rate"), "{wrong:?}");
}

/// Where nothing arrives a run has failed, in the table and by the exit code, and no number is said
/// of it. Where nothing can nothing is tried.
#[test]
fn what_has_failed_is_told() {
    let words = ["wan", "matrix", "rate=10mbit", "rtt=10ms", "--for", "1s", "--contestants"];
    for line in ["down=1 loss=0", "loss=100%", "loss=0 back.loss=100%"] {
        let words = [&words[..], &["ringway,cubic", line]].concat();
        let page = ringway(&words).with(1).out;
        let cells: Vec<&str> = page.lines().nth(1).expect("a row").split_whitespace().collect();
        assert!(cells.ends_with(&["0", "failed", "-", "failed", "-"]), "{page}");
        assert!(page.contains("cubic, 1 s, round 1: nothing can arrive"), "{page}");
        assert!(!page.contains("NaN"), "{page}");
        let rows = ringway(&[&words[..], &["--json"]].concat()).with(1).json();
        assert_eq!(
            (&rows[1]["bound_mbit_per_s"], &rows[1]["mbit_per_s"]),
            (&0.0.into(), &0.0.into())
        );
    }
}

/// A program that hangs is ended when its time is over, and by then its cell has failed: in the
/// table, by the exit code, and in the file, so that it is tried again.
#[test]
fn what_hangs_is_ended() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
    // It listens as ever, and never comes to an end as who connects.
    let real = Command::new("which").arg("iperf3").output().expect("it starts");
    let real = String::from_utf8(real.stdout).expect("a path");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = -s ] && exec {} \"$@\"\necho $$ > {}\nexec sleep 1000\n",
        real.trim(),
        path("hangs")
    );
    std::fs::write(path("iperf3"), script).expect("our file");
    std::fs::set_permissions(path("iperf3"), Permissions::from_mode(0o755)).expect("our file");
    let file = path("rows");
    let words = ["--json", "wan", "matrix", "rate=10mbit", "rtt=10ms", "loss=0", "--for", "1s"];
    let more = ["--patience", "1s", "--contestants", "cubic", "--into", &file];
    let mut command = command(&[&words[..], &more].concat());
    let paths = std::env::var("PATH").expect("text");
    command.env("PATH", format!("{}:{paths}", dir.path().display()));
    let begun = Instant::now();
    let mut held = hold(command);
    let name = name_of(held.pid());
    assert_eq!(held.wait(), Some(1), "{}", held.err());
    // Five seconds do not count, one does, and one is patience.
    let took = begun.elapsed();
    assert!((7..40).contains(&took.as_secs()), "{took:?}");
    let rows = std::fs::read_to_string(&file).expect("what was measured");
    let row: Value = serde_json::from_str(rows.trim()).expect("one row");
    assert_eq!(row["failed"], "iperf3 did not come to an end within 7 s");
    assert_eq!(row["mbit_per_s"], 0.0);
    let hangs = std::fs::read_to_string(path("hangs")).expect("it was started");
    assert!(!Path::new("/proc").join(hangs.trim()).exists(), "it is left");
    assert!(!is_there(&name), "{name} is left");
}

/// Ctrl-C in the middle leaves nothing. `kill -9` leaves keys, and two namespaces without a device
/// and without a process in them, and `clean` removes all of it.
#[test]
fn nothing_of_a_run_is_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let words = ["rate=10mbit", "rtt=10ms", "loss=1%", "--contestants", "ringway"];
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::KILL, None)] {
        let file = dir.path().join(format!("{code:?}"));
        let mut run = Run::start(&words, dir.path(), file.to_str().expect("text"));
        // Two ends of a tunnel, and two of iperf3.
        until("all programs run", || (run.processes().len() >= 4).then_some(()));
        run.held.signal(signal);
        assert_eq!(run.held.wait(), code);
        until("no program is left", || run.processes().is_empty().then_some(()));
        assert_eq!(is_there(&run.name), code.is_none(), "{}", run.name);
        let keys = dir.path().join(format!("ringway-matrix-{}", run.held.pid()));
        assert_eq!(keys.exists(), code.is_none(), "{}", keys.display());
        assert_eq!(file.exists(), code.is_none(), "nothing was measured");
        if code.is_none() {
            for end in ["a", "b"] {
                let space = format!("{}-{end}", run.name);
                let told = Command::new("ip").args(["-n", &space, "-br", "link"]).output();
                let told = Told::from(told.expect("it starts")).with(0);
                assert!(!told.out.contains("wan1"), "{told:?}");
            }
            let mut clean = command(&["wan", "link", "clean", &run.name]);
            clean.env("TMPDIR", dir.path());
            let told = Told::from(clean.output().expect("it starts")).with(0);
            assert!(told.out.contains("the keys in"), "{told:?}");
            assert!(!is_there(&run.name) && !keys.exists(), "{told:?}");
        }
    }
}

/// A run that is watched.
struct Run {
    held: Held,
    name: String,
    /// Its namespaces. While they are open no others have their numbers.
    spaces: [File; 2],
}

impl Drop for Run {
    /// A test that fails leaves nothing either.
    fn drop(&mut self) {
        self.held.end();
        ringway(&["wan", "link", "clean", &self.name]);
    }
}

impl Run {
    /// Its namespaces are there when this returns. Keys are kept in a directory of ours.
    fn start(words: &[&str], temporary: &Path, file: &str) -> Run {
        let mut command = command(&[&["wan", "matrix", "--into", file], words].concat());
        command.env("TMPDIR", temporary);
        let held = hold(command);
        let name = name_of(held.pid());
        let space = |end: &str| {
            let path = format!("/run/netns/{name}-{end}");
            until("it is made", || File::open(&path).ok().filter(is_namespace))
        };
        let spaces = ["a", "b"].map(space);
        Run { held, name, spaces }
    }

    /// Who lives in its namespaces.
    fn processes(&self) -> Vec<String> {
        let number = |space: &File| space.metadata().expect("it is open").ino();
        let spaces = [0, 1].map(|end| format!("net:[{}]", number(&self.spaces[end])));
        let lives_there = |process: &String| {
            // One that has ended meanwhile lives nowhere.
            let at = std::fs::read_link(format!("/proc/{process}/ns/net"));
            at.is_ok_and(|at| spaces.iter().any(|space| Path::new(space) == at))
        };
        let all = read_dir("/proc").expect("it is there").flatten();
        all.filter_map(|entry| entry.file_name().into_string().ok()).filter(lives_there).collect()
    }
}

/// A file becomes one when a namespace is mounted on it.
fn is_namespace(file: &File) -> bool {
    const NSFS: i64 = 0x6e73_6673;
    rustix::fs::fstatfs(file).is_ok_and(|system| system.f_type == NSFS)
}

fn name_of(process: u32) -> String {
    format!("rwm{process}")
}

fn is_there(name: &str) -> bool {
    let spaces = ["a", "b"].map(|end| format!("/run/netns/{name}-{end}"));
    let socket = format!("/run/ringway-wan/{name}.sock");
    [&spaces[0], &spaces[1], &socket].iter().any(|path| Path::new(path).exists())
}
