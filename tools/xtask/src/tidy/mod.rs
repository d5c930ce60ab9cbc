//! `cargo xtask tidy`: the house rules that neither rustc nor clippy knows.
//!
//! Reads every file that git knows or would take, and what cargo says of the crates we use; builds
//! nothing, and is done in seconds.
//!
//! Invariants:
//! - A finding is excused in one of two places and nowhere else: `policy::EXCUSES` (right as it
//!   is, with the reason) or `ratchet.toml` (an alarm, with a count that may only go down).
//! - An excuse that excuses nothing is a finding, so neither list outlives its reasons.
//!
//! Tests: every rule has a snippet that it must flag and one that it must not, next to the rule.

mod crates;
mod edges;
mod links;
mod policy;
mod ratchet;
mod shape;
mod source;
mod text;
mod words;

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

pub(crate) use edges::metadata;
use policy::{EXCUSES, NOT_TEXT, lies_in};
use ratchet::Ratchet;
use source::Source;

/// One place where a rule does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    /// The rule's name, as the excuses and the ratchet spell it.
    rule: &'static str,
    /// Relative to the top of the workspace.
    file: String,
    /// Counted from one.
    line: usize,
    /// By how much: lines, arguments or columns too many; one where there is nothing to count.
    weight: usize,
    /// What is wrong and what to do about it.
    what: String,
}

impl Finding {
    fn new(rule: &'static str, file: &str, line: usize, what: impl Into<String>) -> Finding {
        Finding { rule, file: file.to_owned(), line, weight: 1, what: what.into() }
    }

    fn weighing(mut self, weight: usize) -> Finding {
        self.weight = weight;
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {} [{}]", self.file, self.line, self.what, self.rule)
    }
}

/// Checks the whole workspace; `lower` writes counts that went down into the ratchet.
pub(crate) fn run(root: &Path, lower: bool) -> Result<(), String> {
    let started = Instant::now();
    let files = tracked_files(root)?;
    let mut findings = edges::check(&metadata(root)?)?;
    findings.extend(crates::check(&crates::resolved(root)?)?);
    for (path, text) in &files {
        findings.extend(check_file(path, text));
    }
    findings.extend(links::check(&files, &|path| root.join(path).exists()));

    let findings = excuse(findings);
    let ratchet = Ratchet::read(root)?;
    let verdict = ratchet.judge(&findings);
    if lower {
        ratchet.lowered(&findings).write(root)?;
    }
    for finding in &verdict.errors {
        println!("{finding}");
    }
    for slack in verdict.slack.iter().filter(|_| !lower) {
        println!("{slack}");
    }
    let wrong = verdict.errors.len() + if lower { 0 } else { verdict.slack.len() };
    let millis = started.elapsed().as_millis();
    println!("tidy: {} files, {wrong} findings, {millis} ms", files.len());
    if wrong == 0 { Ok(()) } else { Err(format!("tidy has {wrong} findings")) }
}

/// All rules that look at one file at a time.
fn check_file(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = text::machine_paths(path, text);
    if !path.ends_with(".rs") {
        return findings;
    }
    findings.extend(text::columns(path, text));
    match Source::parse(path, text) {
        Ok(source) => {
            findings.extend(shape::check(&source));
            findings.extend(words::check(&source));
        }
        Err(why) => findings.push(Finding::new("syntax", path, why.line, why.what)),
    }
    findings
}

/// Drops what is excused by the policy, and reports excuses that excuse nothing.
fn excuse(findings: Vec<Finding>) -> Vec<Finding> {
    let fits = |finding: &Finding, excuse: &policy::Excuse| {
        finding.rule == excuse.rule && lies_in(&finding.file, excuse.place)
    };
    let idle = EXCUSES.iter().filter(|excuse| !findings.iter().any(|found| fits(found, excuse)));
    let idle: Vec<Finding> = idle
        .map(|excuse| {
            let what = format!("the excuse ({}) excuses nothing any more; drop it", excuse.why);
            Finding::new(excuse.rule, excuse.place, 1, what)
        })
        .collect();
    let guilty =
        findings.into_iter().filter(|found| !EXCUSES.iter().any(|excuse| fits(found, excuse)));
    guilty.chain(idle).collect()
}

/// Every text file that git tracks or would add, with its contents. Files that were deleted but
/// not yet staged, and files that are not UTF-8, are left out.
fn tracked_files(root: &Path) -> Result<Vec<(String, String)>, String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("tidy asks git for the list of files: {error}; install git"))?;
    if !listed.status.success() {
        let why = String::from_utf8_lossy(&listed.stderr).trim().to_owned();
        return Err(format!("tidy needs a git checkout: {why}"));
    }
    let mut paths: Vec<String> = String::from_utf8_lossy(&listed.stdout)
        .split('\0')
        .filter(|path| !path.is_empty() && !NOT_TEXT.iter().any(|place| lies_in(path, place)))
        .map(str::to_owned)
        .collect();
    paths.sort();
    paths.dedup();
    let with_text = |path: String| {
        let text = std::fs::read_to_string(root.join(&path)).ok()?;
        Some((path, text))
    };
    Ok(paths.into_iter().filter_map(with_text).collect())
}
