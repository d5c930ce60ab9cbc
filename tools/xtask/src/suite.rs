//! What `cargo xtask test`, `ci` and `fuzz` consist of.
//!
//! Tests are built in the dev profile, whose assertions and overflow checks are the point; the
//! real clients talk to the release binary, which is the one that users run. So everything is
//! compiled once in each profile, and CI stays well below half an hour on two cores.
//!
//! Not here: the set-up and the calls of the real clients (`clients.rs`).

use std::path::Path;

use serde_json::Value;

use crate::steps::{Steps, cargo, is_ci, run, target_dir};
use crate::{clients, tidy};

/// Every test there is; the second command of the README.
pub(crate) fn test(root: &Path) -> Result<(), String> {
    let mut steps = Steps::default();
    test_steps(root, &mut steps);
    steps.finish()
}

/// All that has to hold before a change is taken.
pub(crate) fn ci(root: &Path) -> Result<(), String> {
    let mut steps = Steps::default();
    steps.step("fmt", || run(&mut cargo(root, &["fmt", "--all", "--check"])));
    steps.step("tidy", || tidy::run(root, false));
    steps.step("clippy", || {
        let args = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
        run(&mut cargo(root, &args))
    });
    steps.step("pages of the client library, each link", || {
        let args = ["doc", "--package", "ringway-client", "--no-deps", "--locked"];
        run(cargo(root, &args).arg("--all-features").env("RUSTDOCFLAGS", "-D warnings"))
    });
    test_steps(root, &mut steps);
    steps.finish()
}

fn test_steps(root: &Path, steps: &mut Steps) {
    // Set-up first: whether a part of the tests has to be left out is known before the wait.
    let mut ready = Err(String::new());
    steps.step("set-up of the real clients", || {
        ready = clients::setup(root);
        match &ready {
            Err(why) if is_ci() => Err(why.clone()),
            _ => Ok(()),
        }
    });
    if let Err(why) = &ready {
        steps.leave_out("tests with real clients", why);
    }
    steps.step("tests and doc tests", || {
        let mut args = vec!["test", "--workspace", "--no-fail-fast"];
        args.extend(is_ci().then_some("--locked"));
        run(&mut cargo(root, &args))
    });
    // The test of the tester: a build of its own, since a product has no rules to switch off.
    steps.step("simulator: every rule that is switched off is noticed", || {
        let args = ["test", "--package", "ringway-sim", "--features", "sabotage"];
        run(cargo(root, &args).args(["--test", "sabotage"]))
    });
    steps.step("tunnel's swarms: every rule that is switched off is noticed", || {
        let args = ["test", "--package", "ringway-tunnel-proto", "--features", "sabotage"];
        run(cargo(root, &args).args(["--test", "sabotage", "--test", "agent_sabotage"]))
    });
    steps.step("transport: every rule that is switched off is noticed", || {
        let args = ["test", "--release", "--package", "ringway-wan", "--features", "sabotage"];
        run(cargo(root, &args).args(["--test", "sabotage"]))
    });
    // Thousands of lines, of which the tests above had a part: they take seconds in release.
    steps.step("transport: thousands of lines with every fault", || {
        let args = ["test", "--release", "--package", "ringway-wan", "--test", "swarm"];
        run(&mut cargo(root, &args))
    });
    steps.step("tunnel: thousands of storms over streams and agents", || {
        let args = ["test", "--release", "--package", "ringway-tunnel-proto"];
        let tests = ["--test", "swarm", "--test", "agent_swarm", "--", "storms"];
        run(cargo(root, &args).args(tests))
    });
    // A bench that no longer runs answers no question; here each runs once, unmeasured.
    if has_benches(root) {
        steps.step("benches, each once", || {
            run(&mut cargo(root, &["test", "--workspace", "--bench", "*"]))
        });
    }
    if let Some(switch) = loom_switch(root) {
        steps.step("loom: every interleaving of the mailbox", || loom(root, switch));
    }
    if let Ok(ready) = ready {
        steps.step("release build", || {
            run(&mut cargo(root, &["build", "--release", "--package", "ringway"]))
        });
        steps.step("real clients", || {
            clients::run_all(root, &ready, &target_dir(root).join("release/ringway"))
        });
    }
}

/// How the mailbox is told to use loom's atomics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoomSwitch {
    /// A feature of the package.
    Feature,
    /// `--cfg loom` for the whole build.
    Cfg,
}

/// Loom's types only work inside a model, so its tests are a build of their own, and only those
/// with `loom` in their path run.
fn loom(root: &Path, switch: LoomSwitch) -> Result<(), String> {
    let args = ["test", "--package", "ringway-shards", "--lib"];
    let mut command = cargo(root, &args);
    // A directory of its own: the flags differ, and cargo would build everything again each time.
    command.env("CARGO_TARGET_DIR", target_dir(root).join("loom"));
    match switch {
        LoomSwitch::Feature => command.args(["--features", "loom"]),
        LoomSwitch::Cfg => command.env("RUSTFLAGS", "--cfg loom"),
    };
    run(command.args(["--", "loom"]))
}

/// How `shards/runtime` wants loom switched on; `None` as long as it has no use for it.
fn loom_switch(root: &Path) -> Option<LoomSwitch> {
    loom_switch_of(&std::fs::read_to_string(root.join("shards/runtime/Cargo.toml")).ok()?)
}

fn loom_switch_of(manifest: &str) -> Option<LoomSwitch> {
    let manifest: toml::Table = toml::from_str(manifest).ok()?;
    if manifest.get("features").is_some_and(|features| features.get("loom").is_some()) {
        return Some(LoomSwitch::Feature);
    }
    let targets = manifest.get("target")?.as_table()?;
    targets.keys().any(|cfg| cfg.contains("loom")).then_some(LoomSwitch::Cfg)
}

fn has_benches(root: &Path) -> bool {
    tidy::metadata(root).is_ok_and(|metadata| !bench_targets(&metadata).is_empty())
}

fn bench_targets(metadata: &Value) -> Vec<&str> {
    let is_bench = |target: &Value| {
        target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "bench"))
    };
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    targets.filter(|target| is_bench(target)).filter_map(|target| target["name"].as_str()).collect()
}

/// Fuzzes one target, guided by coverage, with the stable compiler: libFuzzer as a library, and
/// the instrumentation that LLVM has anyway. See `tools/fuzz/README.md`.
pub(crate) fn fuzz(root: &Path, target: &str, seconds: u64) -> Result<(), String> {
    let flags = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                 -Cllvm-args=-sanitizer-coverage-pc-table \
                 -Cllvm-args=-sanitizer-coverage-trace-compares \
                 -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks";
    // With a target named, the flags stay away from build scripts and macros.
    let host = host_triple(root)?;
    let args = ["run", "--release", "--package", "ringway-fuzz", "--features", "guided"];
    let corpus = root.join("tools/fuzz/corpus").join(target);
    if !corpus.is_dir() {
        return Err(format!("no target `{target}`: there is no folder {}", corpus.display()));
    }
    let found = target_dir(root).join("fuzz-corpus").join(target);
    std::fs::create_dir_all(&found).map_err(|error| format!("{}: {error}", found.display()))?;
    let mut command = cargo(root, &args);
    command
        .args(["--target", &host, "--bin", "guided", "--config", "profile.release.lto=false", "--"])
        .env("RUSTFLAGS", flags)
        .env("CARGO_TARGET_DIR", target_dir(root).join("fuzz"))
        .env("RINGWAY_FUZZ_TARGET", target)
        // What is found goes to the first folder; the committed corpus only gets failures.
        .arg(&found)
        .arg(&corpus)
        .arg(format!("-artifact_prefix={}/", corpus.display()))
        .arg(format!("-max_total_time={seconds}"))
        .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]);
    run(&mut command)
}

fn host_triple(root: &Path) -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = std::process::Command::new(rustc)
        .arg("-vV")
        .current_dir(root)
        .output()
        .map_err(|error| format!("rustc does not start: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc -vV does not say its host".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Benches are found in whatever package they stand.
    #[test]
    fn benches_are_found() {
        let target = |name: &str, kind: &str| serde_json::json!({ "name": name, "kind": [kind] });
        let metadata = serde_json::json!({ "packages": [
            { "targets": [target("proto", "lib"), target("resp", "bench")] },
            { "targets": [target("ringway", "bin")] },
        ]});
        assert_eq!(bench_targets(&metadata), ["resp"]);
    }

    /// Loom is found whichever of the two usual ways the crate takes, and not by its name alone.
    #[test]
    fn loom_is_switched_on_as_the_crate_wants_it() {
        assert_eq!(loom_switch_of("[features]\nloom = [\"dep:loom\"]"), Some(LoomSwitch::Feature));
        let by_cfg = "[target.'cfg(loom)'.dev-dependencies]\nloom = \"0.7\"";
        assert_eq!(loom_switch_of(by_cfg), Some(LoomSwitch::Cfg));
        assert_eq!(loom_switch_of("[dependencies]\nloom-less = \"1\""), None);
    }
}
