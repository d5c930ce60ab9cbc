//! The real clients: every executable file in `tools/clients/` runs against the release binary.
//!
//! Each gets `RINGWAY_BIN` (the binary), `PYTHON` (one that has redis-py), a `PATH` on which that
//! python is the first, and `RINGWAY_NODE` (a folder from which programs find node-redis); it
//! starts servers on ports that the system gives it, and leaves with zero if all is well. They run
//! one after the other, in the order of their names, ten minutes each at most, and what one printed
//! is shown if it fails.
//!
//! Invariants:
//! - Nothing asks: packages are installed only where that needs no password.
//! - What is missing is named. The caller says it loudly, and on a machine without a reader (`CI`)
//!   it is an error.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::steps::{run, target_dir};

/// Programs that the scripts and the tests of the tunnel call, each with the Debian package that
/// has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("redis-benchmark", "redis-tools"),
    ("iperf3", "iperf3"),
    ("curl", "curl"),
    ("ssh", "openssh-client"),
    ("sshd", "openssh-server"),
    ("rsync", "rsync"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("python3", "python3"),
    ("node", "nodejs"),
    ("npm", "npm"),
];

/// What pip installs: the newest redis-py of the major version whose behaviour the scripts know.
const PYTHON_CLIENT: &str = "redis>=6,<8";

/// What the examples in JavaScript need, in npm's words.
const NODE_PACKAGE: &str = "examples/javascript/package.json";

/// Seconds that one script may take.
const SCRIPT_SECONDS_MAX: &str = "600";

/// A machine on which the scripts can run.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The virtual environment that has redis-py.
    venv: PathBuf,
    /// The folder that has node-redis.
    node: PathBuf,
}

/// Installs what is missing, where that is possible without asking; an error says what still is.
pub(crate) fn setup(root: &Path) -> Result<Ready, String> {
    let missing = missing_packages();
    if !missing.is_empty() {
        let names = missing.join(" ");
        install(&missing).map_err(|why| format!("{names} missing, and {why}"))?;
        let still = missing_packages();
        if !still.is_empty() {
            return Err(format!("{} missing even after installing", still.join(" ")));
        }
    }
    let venv = target_dir(root).join("clients-venv");
    let python = venv.join("bin/python");
    if !has_redis_py(&python) {
        make_venv(&venv)?;
    }
    let node = target_dir(root).join("clients-node");
    make_node(&root.join(NODE_PACKAGE), &node)?;
    println!("all programs, redis-py and node-redis are there");
    Ok(Ready { venv, node })
}

fn missing_packages() -> Vec<&'static str> {
    let mut packages: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(name, _)| !is_on_path(name))
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    packages
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where Debian keeps servers, and only root looks.
    let mut folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.any(|folder| is_executable(&folder.join(program)))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn has_redis_py(python: &Path) -> bool {
    let import = Command::new(python)
        .args(["-c", "import redis"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    import.is_ok_and(|status| status.success())
}

/// Makes the virtual environment anew and puts redis-py into it.
fn make_venv(venv: &Path) -> Result<(), String> {
    let create = || {
        let mut command = Command::new("python3");
        run(command.args(["-m", "venv", "--clear"]).arg(venv))
    };
    // Debian ships `venv` without the part that makes it work.
    if create().is_err() {
        install(&["python3-venv"]).map_err(|why| format!("python3-venv missing, and {why}"))?;
        create().map_err(|why| format!("python3 -m venv: {why}"))?;
    }
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PYTHON_CLIENT]);
    run(&mut pip).map_err(|why| format!("redis-py cannot be installed: {why}"))
}

/// Puts what `package` asks for into `folder`, unless it is there.
fn make_node(package: &Path, folder: &Path) -> Result<(), String> {
    let wanted =
        std::fs::read(package).map_err(|error| format!("{}: {error}", package.display()))?;
    let stamp = folder.join("installed.json");
    if std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let file = |error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(file)?;
    std::fs::write(folder.join("package.json"), &wanted).map_err(file)?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
    run(npm.arg(folder)).map_err(|why| format!("node-redis cannot be installed: {why}"))?;
    std::fs::write(stamp, wanted).map_err(file)
}

/// Installs Debian packages, if that needs no password.
fn install(packages: &[&str]) -> Result<(), String> {
    if !is_on_path("apt-get") {
        return Err("there is no apt-get here to install it with".to_owned());
    }
    let prefix: &[&str] = match (is_root(), is_on_path("sudo")) {
        (true, _) => &[],
        (false, true) if may_sudo() => &["sudo", "--non-interactive"],
        _ => return Err("installing it needs root: `apt-get install` it and try again".to_owned()),
    };
    let apt_get = |args: &[&str]| {
        // RUNLEVEL: the servers are for the tests to start, not for the machine to run.
        let quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get", "-qq"];
        let words: Vec<&str> = prefix.iter().chain(&quiet).chain(args).copied().collect();
        run(Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()))
    };
    println!("installing {}", packages.join(" "));
    // A list that cannot be refreshed may still be good enough.
    let refreshed = apt_get(&["update"]);
    let args = ["install", "--yes", "--no-install-recommends"];
    let args: Vec<&str> = args.iter().chain(packages).copied().collect();
    match (apt_get(&args), refreshed) {
        (Ok(()), _) => Ok(()),
        (Err(why), Ok(())) => Err(why),
        (Err(why), Err(update)) => Err(format!("{why} (and apt-get update: {update})")),
    }
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn may_sudo() -> bool {
    let mut command = Command::new("sudo");
    command.args(["--non-interactive", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    run(&mut command).is_ok()
}

/// Runs every script against `binary`; an error names those that failed.
pub(crate) fn run_all(root: &Path, ready: &Ready, binary: &Path) -> Result<(), String> {
    if !is_executable(binary) {
        return Err(format!("{} was not built", binary.display()));
    }
    let scripts = scripts(&root.join("tools/clients"))?;
    let logs = target_dir(root).join("clients");
    std::fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
    let mut failed = Vec::new();
    for script in &scripts {
        let name = script.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = logs.join(format!("{name}.log"));
        let started = Instant::now();
        let outcome = run_one(root, script, &log, ready, binary);
        let seconds = started.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => println!("client {name} ... ok ({seconds:.1} s)"),
            Err(why) => {
                println!("client {name} ... FAILED ({seconds:.1} s): {why}; it printed:");
                let printed = std::fs::read(&log).unwrap_or_default();
                println!("{}", String::from_utf8_lossy(&printed).trim_end());
                failed.push(name);
            }
        }
    }
    println!("real clients: {} ran, {} failed", scripts.len(), failed.len());
    if failed.is_empty() { Ok(()) } else { Err(failed.join(", ")) }
}

/// The executable files of `folder`, by name; none if there is no such folder.
fn scripts(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", folder.display())),
    };
    let mut scripts: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| is_executable(path)).collect();
    scripts.sort();
    Ok(scripts)
}

fn run_one(
    root: &Path,
    script: &Path,
    log: &Path,
    ready: &Ready,
    binary: &Path,
) -> Result<(), String> {
    let file = |error| format!("{}: {error}", log.display());
    let output = File::create(log).map_err(file)?;
    let errors = output.try_clone().map_err(file)?;
    // `timeout` also ends what the script started and left behind in its process group.
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=10", SCRIPT_SECONDS_MAX])
        .arg(script)
        .current_dir(root)
        .env("RINGWAY_BIN", binary)
        .env("PYTHON", ready.venv.join("bin/python"))
        .env("RINGWAY_NODE", &ready.node)
        .env("PATH", with_first(&ready.venv.join("bin")))
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors);
    let status = command.status().map_err(|error| format!("timeout does not start: {error}"))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(124 | 137) => Err(format!("not done after {SCRIPT_SECONDS_MAX} s")),
        _ => Err(status.to_string()),
    }
}

fn with_first(folder: &Path) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that ends with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let folder = format!("ringway-xtask-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(folder);
            std::fs::create_dir_all(folder.join("tools/clients")).expect("a folder");
            Scratch(folder)
        }

        fn script(&self, name: &str, text: &str, mode: u32) {
            let path = self.0.join("tools/clients").join(name);
            std::fs::write(&path, text).expect("a script");
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, mode).expect("its mode");
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// Only executables run, in the order of their names, and they are told which binary.
    #[test]
    fn scripts_are_found_in_order() {
        let scratch = Scratch::new("order");
        scratch.script("20-b.sh", "#!/bin/sh\n", 0o755);
        scratch.script("10-a.sh", "#!/bin/sh\n", 0o755);
        scratch.script("README.md", "not a script\n", 0o644);
        let found = scripts(&scratch.0.join("tools/clients")).expect("a folder");
        let names: Vec<_> = found.iter().filter_map(|path| path.file_name()).collect();
        assert_eq!(names, ["10-a.sh", "20-b.sh"]);
        assert_eq!(scripts(&scratch.0.join("nowhere")), Ok(vec![]));
    }

    /// The exit code of the script decides, and what it printed is kept.
    #[test]
    fn a_script_that_fails_is_told_from_one_that_does_not() {
        let scratch = Scratch::new("fails");
        scratch.script("good.sh", "#!/bin/sh\ntest \"$RINGWAY_BIN\" = /bin/true\n", 0o755);
        scratch.script("bad.sh", "#!/bin/sh\necho wrong answer\nexit 3\n", 0o755);
        let ready = Ready { venv: scratch.0.join("venv"), node: scratch.0.join("node") };
        let log = scratch.0.join("log");
        let folder = scratch.0.join("tools/clients");
        let go = |name: &str| {
            run_one(&scratch.0, &folder.join(name), &log, &ready, Path::new("/bin/true"))
        };
        assert_eq!(go("good.sh"), Ok(()));
        assert!(go("bad.sh").is_err());
        assert_eq!(std::fs::read_to_string(&log).expect("a log"), "wrong answer\n");
    }

    /// What is installed already is not installed again; what is asked for has to be there.
    #[test]
    fn what_is_installed_stays() {
        let scratch = Scratch::new("node");
        let (package, folder) = (scratch.0.join("package.json"), scratch.0.join("node"));
        assert!(make_node(&package, &folder).is_err(), "there is no such package");
        std::fs::write(&package, "{}").expect("a package");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("installed.json"), "{}").expect("a stamp");
        assert_eq!(make_node(&package, &folder), Ok(()));
        assert!(!folder.join("package.json").exists(), "npm was not called");
    }

    /// A program is on the path if it is a file that may be executed.
    #[test]
    fn programs_are_looked_up() {
        assert!(is_on_path("sh"));
        assert!(!is_on_path("no-such-program-anywhere"));
    }
}
