//! Running commands one after the other: a title before, the time and the outcome behind each,
//! and all failures again at the end, where they are looked for.
//!
//! A step that fails does not stop the next: one run of CI says everything that is wrong.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The steps so far.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(String, Duration, Result<(), String>)>,
    left_out: Vec<String>,
}

impl Steps {
    /// Runs one step, whatever came of the earlier ones.
    pub(crate) fn step(&mut self, title: &str, work: impl FnOnce() -> Result<(), String>) {
        println!("\n=== {title}");
        let started = Instant::now();
        let outcome = work();
        let took = started.elapsed();
        println!("=== {}", line(title, took, &outcome));
        self.done.push((title.to_owned(), took, outcome));
    }

    /// Says loudly that a part is not run, now and again at the end.
    pub(crate) fn leave_out(&mut self, title: &str, why: &str) {
        let what = format!("!!! {title}: LEFT OUT, {why}");
        println!("\n{what}");
        self.left_out.push(what);
    }

    /// Prints all steps with their times; an error if any of them failed.
    pub(crate) fn finish(self) -> Result<(), String> {
        println!("\n=== all steps");
        for (title, took, outcome) in &self.done {
            println!("    {}", line(title, *took, outcome));
        }
        for what in &self.left_out {
            println!("    {what}");
        }
        let failed: Vec<&str> =
            self.done.iter().filter(|step| step.2.is_err()).map(|step| step.0.as_str()).collect();
        if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
    }
}

fn line(title: &str, took: Duration, outcome: &Result<(), String>) -> String {
    let seconds = took.as_secs_f64();
    match outcome {
        Ok(()) => format!("{title}: ok in {seconds:.1} s"),
        Err(why) => format!("{title}: FAILED after {seconds:.1} s: {why}"),
    }
}

/// Cargo in the workspace, the one that runs us.
pub(crate) fn cargo(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root);
    // These describe xtask's own build; in another package's build they would be lies.
    for (name, _) in std::env::vars_os() {
        let is_ours = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        });
        if is_ours {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end, its output going where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| format!("{program} does not start: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program} ended with {status}")) }
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir(root: &Path) -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        // Cargo takes a relative one from where it was called, and we are called from the root.
        Some(dir) => root.join(dir),
        None => root.join("target"),
    }
}

/// Whether nobody sits in front of this machine, so that a part left out must be an error.
pub(crate) fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false" && value != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A failure in the middle does not hide the ones behind it, and is named at the end.
    #[test]
    fn every_step_runs_and_every_failure_is_named() {
        let mut ran = Vec::new();
        let mut steps = Steps::default();
        steps.step("first", || Err("broken".into()));
        steps.step("second", || {
            ran.push("second");
            Ok(())
        });
        steps.step("third", || Err("broken, too".into()));
        assert_eq!(ran, ["second"]);
        assert_eq!(steps.finish(), Err("failed: first, third".into()));
    }

    /// The exit code of a command is what counts, and a missing program is not a success.
    #[test]
    fn commands_that_fail_are_errors() {
        assert_eq!(run(&mut Command::new("true")), Ok(()));
        assert!(run(&mut Command::new("false")).is_err());
        assert!(run(&mut Command::new("no-such-program-anywhere")).is_err());
    }
}
