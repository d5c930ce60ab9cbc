//! Crates of others: their licences, where they come from, and which are there twice.
//!
//! Reads what cargo has resolved, for this host. It is what `cargo deny` would check of licences,
//! sources and bans, without a program that takes longer to build than ours; advisories need a
//! database from the network and are not here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::Finding;
use super::edges::{array, output, text};
use super::policy::{BANNED, LICENCES, LICENCES_OF, TWICE};

/// Where findings about crates stand: the file that says which there are.
const LOCK: &str = "Cargo.lock";
/// The only registry; a mirror of it says the same.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Everything that cargo has resolved for this host, our own packages included.
pub(super) fn resolved(root: &Path) -> Result<Value, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = output(Command::new(rustc).arg("-vV").current_dir(root))?;
    let version = String::from_utf8_lossy(&version);
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or("rustc -vV does not say its host")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = ["metadata", "--format-version", "1", "--filter-platform", host];
    let json = output(Command::new(cargo).args(args).current_dir(root))?;
    serde_json::from_slice(&json).map_err(|error| format!("cargo metadata: {error}"))
}

/// Checks all crates of others.
pub(super) fn check(resolved: &Value) -> Result<Vec<Finding>, String> {
    let mut wrong = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut excused: BTreeSet<&str> = BTreeSet::new();
    for package in array(resolved, "packages")? {
        let Some(source) = package["source"].as_str() else { continue };
        let (name, version) = (text(package, "name")?, text(package, "version")?);
        versions.entry(name).or_default().insert(version);
        if source != REGISTRY {
            wrong.push(format!("{name} {version} comes from {source}: only crates.io is known"));
        }
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            wrong.push(format!("{name} is banned: {why}"));
        }
        let licence = package["license"].as_str().unwrap_or_default();
        if LICENCES_OF.iter().any(|(of, known, _)| (*of, *known) == (name, licence)) {
            excused.insert(name);
        } else if !allows(licence, LICENCES) {
            wrong.push(format!("{name} {version} has the licence {licence:?}: see policy.rs"));
        }
    }
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        match TWICE.iter().find(|(known, _)| known == name) {
            Some((known, _)) => drop(excused.insert(known)),
            None => wrong.push(format!("{name} is there in {versions:?}: use one, or say why")),
        }
    }
    let known = LICENCES_OF.iter().map(|(name, ..)| *name).chain(TWICE.iter().map(|row| row.0));
    let idle = known.filter(|name| !excused.contains(name));
    wrong.extend(idle.map(|name| format!("policy.rs excuses {name}, which needs it no more")));
    Ok(wrong.into_iter().map(|what| Finding::new("crates", LOCK, 1, what)).collect())
}

/// Whether an SPDX expression can be kept with these licences alone.
fn allows(expression: &str, licences: &[&str]) -> bool {
    // Before SPDX a slash meant OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest, licences).is_some_and(|allowed| allowed && rest.is_empty())
}

/// Terms with OR between them; `None` if that is no expression.
fn any_of(rest: &mut &[&str], licences: &[&str]) -> Option<bool> {
    let mut allowed = all_of(rest, licences)?;
    while let ["OR", behind @ ..] = *rest {
        *rest = behind;
        allowed |= all_of(rest, licences)?;
    }
    Some(allowed)
}

/// Terms with AND between them, which binds more tightly.
fn all_of(rest: &mut &[&str], licences: &[&str]) -> Option<bool> {
    let mut allowed = term(rest, licences)?;
    while let ["AND", behind @ ..] = *rest {
        *rest = behind;
        allowed &= term(rest, licences)?;
    }
    Some(allowed)
}

/// A licence, perhaps with an exception, which only ever allows more; or what is in parentheses.
fn term(rest: &mut &[&str], licences: &[&str]) -> Option<bool> {
    let (first, behind) = rest.split_first()?;
    *rest = behind;
    if *first == "(" {
        let allowed = any_of(rest, licences)?;
        *rest = rest.strip_prefix(&[")"])?;
        return Some(allowed);
    }
    if ["OR", "AND", "WITH", ")"].contains(first) {
        return None;
    }
    if let ["WITH", _, behind @ ..] = *rest {
        *rest = behind;
    }
    Some(licences.contains(first))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn findings(packages: &[Value]) -> Vec<String> {
        let findings = check(&json!({ "packages": packages })).expect("readable");
        let whats = findings.into_iter().map(|finding| finding.what);
        whats.filter(|what| !what.starts_with("policy.rs excuses")).collect()
    }

    fn package(name: &str, version: &str, licence: Option<&str>) -> Value {
        json!({ "name": name, "version": version, "source": REGISTRY, "license": licence })
    }

    /// One of several is enough, all of several are needed, and what is no expression is nothing.
    #[test]
    fn licences_are_read_as_expressions() {
        for (expression, allowed) in [
            ("MIT", true),
            ("GPL-3.0-only", false),
            ("", false),
            ("GPL-2.0-only OR MIT", true),
            ("MIT/GPL-3.0", true),
            ("MIT AND GPL-3.0-only", false),
            ("MIT OR GPL-3.0-only AND Proprietary", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("(MIT OR Apache-2.0) AND Unheard-1.0", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("(MIT", false),
            ("MIT MIT", false),
            ("OR MIT", false),
        ] {
            let licences = ["MIT", "Apache-2.0", "Unicode-3.0"];
            assert_eq!(allows(expression, &licences), allowed, "{expression:?}");
        }
    }

    /// A crate that must not be shipped, or is not what it seems, does not come in unnoticed.
    #[test]
    fn crates_that_must_not_be_are_flagged() {
        assert!(findings(&[package("good", "1.0.0", Some("MIT OR Apache-2.0"))]).is_empty());
        assert_eq!(findings(&[package("bad", "1.0.0", Some("AGPL-3.0-only"))]).len(), 1);
        assert_eq!(findings(&[package("silent", "1.0.0", None)]).len(), 1);
        assert_eq!(findings(&[package("openssl-sys", "0.9.0", Some("MIT"))]).len(), 1);
        let git = json!({ "name": "x", "version": "1.0.0", "license": "MIT",
                          "source": "git+https://example.org/x" });
        assert_eq!(findings(&[git]).len(), 1);
        let twice = ["1.0.0", "2.0.0"].map(|version| package("twin", version, Some("MIT")));
        assert_eq!(findings(&twice).len(), 1);
        let ours = json!({ "name": "ringway", "version": "0.1.0", "source": null });
        assert!(findings(&[ours]).is_empty());
    }

    /// What is excused and is not there any more has to go from the list.
    #[test]
    fn idle_excuses_are_flagged() {
        let idle = check(&json!({ "packages": [] })).expect("readable");
        assert_eq!(idle.len(), LICENCES_OF.len() + TWICE.len());
    }
}
