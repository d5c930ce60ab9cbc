//! Edges between the packages: what `policy::PACKAGES` does not allow is a finding.
//!
//! Reads the manifests by way of `cargo metadata`, so renamed, optional and target-specific
//! dependencies count like any other.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::Finding;
use super::policy::{Edges, NOT_PRODUCTS, PACKAGES, Package};
use super::shape::{check_sans_io_root, is_sans_io};
use super::source::Source;

/// What cargo knows about the packages of the workspace, without resolving anything.
pub(crate) fn metadata(root: &Path) -> Result<Value, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
    let json = output(Command::new(cargo).args(args).current_dir(root))?;
    serde_json::from_slice(&json).map_err(|error| format!("cargo metadata: {error}"))
}

/// What a command writes, if it succeeds.
pub(super) fn output(command: &mut Command) -> Result<Vec<u8>, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program} does not start: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// The lints of a sans-io crate; clippy merges nothing, so each crate has the whole file.
const SANS_IO_LINTS: &str = "core/clippy.toml";

/// Checks all packages: their edges, and the roots and lints of the sans-io ones.
pub(super) fn check(metadata: &Value) -> Result<Vec<Finding>, String> {
    let top = text(metadata, "workspace_root")?;
    let mut findings = Vec::new();
    for package in array(metadata, "packages")? {
        let name = text(package, "name")?;
        let manifest = relative(text(package, "manifest_path")?, top);
        let Some(rules) = PACKAGES.iter().find(|known| known.name == name) else {
            let what = format!("{name} is not in the table of policy.rs: say what it may know");
            findings.push(Finding::new("edges", manifest, 1, what));
            continue;
        };
        for dependency in array(package, "dependencies")? {
            if let Some(what) = forbidden(rules, dependency)? {
                findings.push(Finding::new("edges", manifest, 1, what));
            }
        }
        if is_sans_io(name) {
            findings.extend(check_root(name, package, top)?);
            let lints = manifest.replace("Cargo.toml", "clippy.toml");
            let read = |file: &str| std::fs::read_to_string(Path::new(top).join(file)).ok();
            findings.extend(check_lints(&lints, read(&lints), read(SANS_IO_LINTS)));
        }
    }
    Ok(findings)
}

/// What is wrong with one dependency of a package, if anything.
fn forbidden(rules: &Package, dependency: &Value) -> Result<Option<String>, String> {
    let (from, to) = (rules.name, text(dependency, "name")?);
    // A normal dependency has no kind.
    let is_dev = dependency["kind"].as_str() == Some("dev");
    let is_ours = !dependency["path"].is_null();
    if !is_ours {
        let is_foreign = rules.vendors.is_some_and(|vendors| !vendors.contains(&to));
        return Ok((is_foreign && !is_dev)
            .then(|| format!("{from} is sans-io and may not depend on {to}; see policy.rs")));
    }
    if is_dev && rules.dev_edges.contains(&to) {
        return Ok(None);
    }
    let by_row = match rules.edges {
        Edges::Only(allowed) => allowed.contains(&to),
        Edges::Anything => true,
    };
    let by_column = NOT_PRODUCTS
        .iter()
        .find(|(tool, _)| *tool == to)
        .is_none_or(|(_, users)| users.contains(&from));
    let kind = if is_dev { "dev-dependency" } else { "dependency" };
    Ok((!by_row || !by_column)
        .then(|| format!("{kind} {from} -> {to} is not an edge of policy.rs: parts stay apart")))
}

fn check_root(name: &str, package: &Value, top: &str) -> Result<Vec<Finding>, String> {
    let is_lib = |target: &&Value| {
        target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "lib"))
    };
    let Some(target) = array(package, "targets")?.iter().find(is_lib) else {
        return Ok(Vec::new());
    };
    let file = text(target, "src_path")?;
    let contents = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    match Source::parse(relative(file, top), &contents) {
        Ok(source) => Ok(check_sans_io_root(name, &source)),
        // Reported once, where every file is parsed.
        Err(_) => Ok(Vec::new()),
    }
}

/// A sans-io crate has the same lints as all the others, and has them at all.
fn check_lints(file: &str, text: Option<String>, expected: Option<String>) -> Option<Finding> {
    let what = format!("a sans-io crate's clippy.toml is a copy of {SANS_IO_LINTS}: copy it");
    (text.is_none() || text != expected).then(|| Finding::new("sans-io", file, 1, what))
}

fn relative<'a>(path: &'a str, top: &str) -> &'a str {
    path.strip_prefix(top).map_or(path, |rest| rest.trim_start_matches('/'))
}

pub(super) fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str, String> {
    value[key].as_str().ok_or_else(|| format!("cargo metadata has no {key}"))
}

pub(super) fn array<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>, String> {
    value[key].as_array().ok_or_else(|| format!("cargo metadata has no {key}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ours(name: &str, kind: Option<&str>) -> Value {
        json!({ "name": name, "kind": kind, "path": "somewhere" })
    }

    fn theirs(name: &str, kind: Option<&str>) -> Value {
        json!({ "name": name, "kind": kind, "path": null })
    }

    fn flags(from: &str, dependency: &Value) -> bool {
        let rules = PACKAGES.iter().find(|known| known.name == from).expect("in the table");
        forbidden(rules, dependency).expect("readable").is_some()
    }

    /// A protocol crate never names the runtime, in tests and build scripts neither.
    #[test]
    fn parts_stay_apart() {
        assert!(!flags("ringway-coord-proto", &ours("ringway-core", None)));
        assert!(flags("ringway-coord-proto", &ours("ringway-shards", None)));
        assert!(flags("ringway-coord-proto", &ours("ringway-shards", Some("dev"))));
        assert!(flags("ringway-coord-proto", &ours("ringway-shards", Some("build"))));
        assert!(flags("ringway-shards", &ours("ringway-coord-proto", None)));
        assert!(flags("ringway-core", &ours("ringway-ring", None)));
        assert!(!flags("ringway-coord-server", &ours("ringway-ring", None)));
    }

    /// The simulator and the fuzz targets serve tests; they never ship. Nobody depends on perf
    /// but the binary, which carries the load generator.
    #[test]
    fn tools_do_not_ship() {
        assert!(!flags("ringway-coord-proto", &ours("ringway-sim", Some("dev"))));
        assert!(flags("ringway-coord-proto", &ours("ringway-sim", None)));
        assert!(flags("ringway-perf", &ours("ringway-fuzz", None)));
        assert!(!flags("ringway", &ours("ringway-perf", None)));
        assert!(flags("ringway-fuzz", &ours("ringway-perf", None)));
        assert!(!flags("ringway-fuzz", &ours("ringway-coord-server", None)));
        assert!(flags("xtask", &ours("ringway-core", None)));
    }

    /// I/O does not come into a sans-io crate by way of somebody else's crate; tests are free.
    #[test]
    fn sans_io_crates_choose_their_vendors() {
        assert!(!flags("ringway-coord-proto", &theirs("hashbrown", None)));
        assert!(flags("ringway-coord-proto", &theirs("tokio", None)));
        assert!(!flags("ringway-coord-proto", &theirs("proptest", Some("dev"))));
        assert!(!flags("ringway-coord-server", &theirs("glommio", None)));
    }

    /// A crate without the list, or with half of it, could read clocks again.
    #[test]
    fn sans_io_crates_have_the_lints() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(check_lints("x/clippy.toml", text("all"), text("all")), None);
        assert!(check_lints("x/clippy.toml", text("half"), text("all")).is_some());
        assert!(check_lints("x/clippy.toml", None, text("all")).is_some());
        assert!(check_lints("core/clippy.toml", None, None).is_some());
    }

    /// A new package has to be thought about before it builds in CI.
    #[test]
    fn unknown_packages_are_flagged() {
        let metadata = json!({ "workspace_root": "/x", "packages": [
            { "name": "ringway-gossip", "manifest_path": "/x/gossip/Cargo.toml",
              "dependencies": [], "targets": [] },
        ]});
        let findings = check(&metadata).expect("readable");
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].file, "gossip/Cargo.toml");
    }

    /// Every name in the tables is a row of the table, so that a typing error allows nothing.
    #[test]
    fn the_tables_agree_with_each_other() {
        let is_row = |name: &str| PACKAGES.iter().any(|package| package.name == name);
        for package in PACKAGES {
            if let Edges::Only(edges) = package.edges {
                assert!(edges.iter().all(|name| is_row(name)), "{}", package.name);
            }
            assert!(package.dev_edges.iter().all(|name| is_row(name)), "{}", package.name);
        }
        for (tool, users) in NOT_PRODUCTS {
            assert!(is_row(tool) && users.iter().all(|name| is_row(name)), "{tool}");
        }
    }
}
