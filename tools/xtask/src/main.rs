//! The project's own chores: `cargo xtask tidy | test | ci | fuzz`.
//!
//! Everything that a contributor or the CI machine runs besides `cargo` itself is a subcommand
//! here, so that it is the same code on every machine, and has tests.
//!
//! Not here: what the rules of `tidy` are (`tidy/policy.rs`), what they excuse
//! (`tools/xtask/ratchet.toml`).

#![forbid(unsafe_code)]

mod clients;
mod steps;
mod suite;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
cargo xtask <command>

  tidy            house rules that rustc and clippy do not know: edges between crates, sizes,
                  where unsafe may stand, links, paths. Seconds, needs no build.
  tidy --lower    the same, and writes lower counts into tools/xtask/ratchet.toml
  test            every test there is: workspace, doc tests, loom, real clients against the binary
  ci              formatting, tidy, clippy, the client's pages, then everything in `test`; what
                  .ci/run runs
  setup           installs what the real clients need, where that is possible; `test` does it too
  fuzz TARGET [--seconds N]
                  coverage-guided fuzzing of one target of tools/fuzz (needs a C++ compiler)
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = workspace_root();
    let outcome = match words.as_slice() {
        ["tidy"] => tidy::run(&root, false),
        ["tidy", "--lower"] => tidy::run(&root, true),
        ["test"] => suite::test(&root),
        ["ci"] => suite::ci(&root),
        ["setup"] => clients::setup(&root).map(|_| ()),
        ["fuzz", target] => suite::fuzz(&root, target, 60),
        ["fuzz", target, "--seconds", seconds] => match seconds.parse() {
            Ok(seconds) => suite::fuzz(&root, target, seconds),
            Err(_) => Err(format!("--seconds takes a number, not {seconds}")),
        },
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        _ => Err(format!("no such command: {}\n\n{HELP}", words.join(" "))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The top of the workspace: cargo says where this package is, two folders below it.
fn workspace_root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = here.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    here.ancestors().nth(2).map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
