//! Every input that was ever worth keeping runs through its target, every time.

use std::collections::BTreeSet;

use ringway_fuzz::{TARGETS, Target, corpus};

/// Prints the line that repeats a failure, if the test fails while it is alive.
struct Rerun(String);

impl Drop for Rerun {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("rerun: {}", self.0);
        }
    }
}

/// A bug that was found once does not come back.
#[test]
fn the_corpora_pass() {
    for target in TARGETS {
        let inputs = corpus::load(target).expect("a readable corpus");
        assert!(!inputs.is_empty(), "{} has no corpus: run `ringway-fuzz seeds`", target.name);
        for (file, bytes) in inputs {
            let name = target.name;
            let path = format!("tools/fuzz/corpus/{name}/{file}");
            let _rerun = Rerun(format!("cargo run -p ringway-fuzz -- {name} {path}"));
            (target.run)(&bytes);
        }
    }
}

/// A folder whose target was renamed would silently test nothing.
#[test]
fn every_corpus_has_a_target() {
    for entry in std::fs::read_dir(corpus::root()).expect("a corpus folder") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        assert!(Target::named(&name).is_some(), "corpus/{name} has no target");
    }
}

/// The seed files are those that the code makes today: a change of a format reaches the corpus.
#[test]
fn the_seed_files_are_fresh() {
    for target in TARGETS {
        let files: BTreeSet<(String, Vec<u8>)> = corpus::load(target)
            .expect("a readable corpus")
            .into_iter()
            .filter(|(name, _)| name.starts_with("seed-"))
            .collect();
        let seeds: BTreeSet<(String, Vec<u8>)> = (target.seeds)()
            .into_iter()
            .map(|(name, bytes)| (format!("seed-{name}"), bytes))
            .collect();
        assert!(files == seeds, "{}: run `cargo run -p ringway-fuzz -- seeds`", target.name);
    }
}

/// Names are folders and words of a command line.
#[test]
fn target_names_are_unique_and_plain() {
    let names: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names.len(), TARGETS.len());
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    assert!(names.iter().all(|name| plain(name) && !["list", "seeds", "help"].contains(name)));
}
