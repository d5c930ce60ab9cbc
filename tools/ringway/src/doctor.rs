//! `ringway doctor`: is this host fit to serve, and if not, what to do.
//!
//! Looks and changes nothing. A line is `ok`, a `warn` (it works, at a price that is stated) or a
//! `fail` (the server would not start, or not as configured).

use std::fs::read_to_string;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ringway_coord_server::config::{
    Access, AdminPlace, Beside, Config, ConfigError, Draft, Host, StatePlace,
};
use ringway_coord_server::credentials::{Credentials, Identities};
use ringway_coord_server::ring::{
    self, Features, ProbeMask, Report, Ring, RingConfig, RowState, SetupError, host,
};
use ringway_coord_server::state;
use ringway_tunnel_node::calibrate;
use ringway_tunnel_node::config::Config as TunnelConfig;
use serde::Serialize;

use crate::args::server::DoctorArgs;
use crate::failure::{Code, Failure};
use crate::output::{answer, size, table};

/// Locked memory that glommio asks for.
const GLOMMIO_MEMLOCK: u64 = 512 << 10;
/// What it takes of that, in rings of shards.
const CONTROL_RINGS: usize = 2;
/// How long memory of rings that are gone may stay charged.
const CHARGED_FOR: Duration = Duration::from_millis(500);
/// Fewer open files than this are soon used up by clients.
const OPEN_FILES_FEW: u64 = 65_536;
/// Fewer connections waiting to be accepted than this get lost when many come at once.
const BACKLOG_FEW: u64 = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Line {
    what: String,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
}

fn ok(what: &str, found: impl Into<String>) -> Line {
    Line { what: what.to_owned(), verdict: Verdict::Ok, found: found.into(), remedy: String::new() }
}

fn warn(what: &str, found: impl Into<String>, remedy: impl Into<String>) -> Line {
    Line { verdict: Verdict::Warn, remedy: remedy.into(), ..ok(what, found) }
}

fn fail(what: &str, found: impl Into<String>, remedy: impl Into<String>) -> Line {
    Line { verdict: Verdict::Fail, remedy: remedy.into(), ..ok(what, found) }
}

pub(crate) fn run(args: &DoctorArgs, json: bool) -> Result<ExitCode, Failure> {
    let host = Host::probe();
    let probed = ring::probe(ProbeMask::default());
    let features = probed.as_ref().ok().map(|report| report.features);
    let mut lines = kernel(probed);
    lines.extend([cores(&host), memory(&host)]);
    lines.extend(ciphers());
    lines.extend([huge_pages(Path::new("/")), clock(Path::new("/")), backlog(Path::new("/"))]);
    lines.extend(configured(args, &host, features));
    let worst = lines.iter().map(|line| line.verdict as u8).max();
    answer(json, &lines, || text(&lines));
    let code = if worst == Some(Verdict::Fail as u8) { Code(3) } else { Code(0) };
    Ok(code.into())
}

fn text(lines: &[Line]) -> String {
    let rows: Vec<_> = lines
        .iter()
        .map(|line| {
            let verdict = format!("{:?}", line.verdict).to_lowercase();
            let arrow = if line.remedy.is_empty() { "" } else { " -> " };
            vec![verdict, line.what.clone(), format!("{}{arrow}{}", line.found, line.remedy)]
        })
        .collect();
    table(&["", "what", "found"], &rows)
}

fn kernel(probed: Result<Report, SetupError>) -> Vec<Line> {
    let report = match probed {
        Ok(report) => report,
        Err(error) => return vec![fail("io_uring", "cannot be used", error.to_string())],
    };
    let mut lines = vec![ok("io_uring", format!("on Linux {}", report.kernel_release))];
    for row in &report.rows {
        lines.push(match row.state {
            RowState::Used => ok(row.name, "used"),
            RowState::Missing | RowState::Hidden => {
                warn(row.name, format!("missing: {}", row.without), row.remedy.clone())
            }
        });
    }
    lines.extend([locked_memory(report.locked_memory.soft), open_files(report.open_files.soft)]);
    lines
}

fn locked_memory(limit: u64) -> Line {
    let found = if limit == u64::MAX { "unlimited".to_owned() } else { size(limit) };
    if limit >= GLOMMIO_MEMLOCK {
        return ok("locked memory", found);
    }
    // Shards do without locked memory where the kernel charges none for rings; `rings` tells.
    let found = format!("{found}: the control plane runs on poll instead of glommio");
    warn("locked memory", found, "`ulimit -l 8192`, or LimitMEMLOCK=8M in the systemd unit")
}

fn open_files(limit: u64) -> Line {
    if limit >= OPEN_FILES_FEW {
        return ok("open files", limit.to_string());
    }
    let found = format!("{limit}: at most so many connections");
    warn("open files", found, "`ulimit -n 1048576`, or LimitNOFILE=1048576 in the systemd unit")
}

fn cores(host: &Host) -> Line {
    match host.cores {
        1 => warn("cores", "1: shards do not spin before they sleep", "give it two or more"),
        cores => ok("cores", cores.to_string()),
    }
}

fn memory(host: &Host) -> Line {
    ok("memory", size(host.memory_bytes))
}

/// What a tunnel's records cost here, and by which library they are sealed.
fn ciphers() -> impl Iterator<Item = Line> {
    calibrate().into_iter().map(|calibration| {
        let (best, rate) = calibration.best();
        let others = calibration.rates.iter().filter(|(backend, _)| *backend != best);
        let others: Vec<_> =
            others.map(|(backend, rate)| format!("{backend} {}/s", size(*rate))).collect();
        let found = format!("{}/s by {best} ({})", size(rate), others.join(", "));
        ok(calibration.suite.name(), found)
    })
}

fn huge_pages(root: &Path) -> Line {
    let path = "sys/kernel/mm/transparent_hugepage/enabled";
    let text = read_to_string(root.join(path)).unwrap_or_default();
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    match chosen.map(|(word, _)| word) {
        Some(word @ ("always" | "madvise")) => ok("huge pages", word),
        found => warn(
            "huge pages",
            format!("{}: 20 to 25 % fewer lookups a second", found.unwrap_or("not there")),
            format!("`echo madvise > /{path}`"),
        ),
    }
}

fn clock(root: &Path) -> Line {
    let dir = "sys/devices/system/clocksource/clocksource0";
    let text = read_to_string(root.join(dir).join("current_clocksource")).unwrap_or_default();
    match text.trim() {
        "" => warn("clock", "the kernel does not say which it uses", ""),
        slow @ ("hpet" | "acpi_pm" | "jiffies" | "pit") => warn(
            "clock",
            format!("{slow}: every look at it is a slow one"),
            format!("`echo tsc > /{dir}/current_clocksource`, if the machine's is stable"),
        ),
        name => ok("clock", name),
    }
}

fn backlog(root: &Path) -> Line {
    let text = read_to_string(root.join("proc/sys/net/core/somaxconn")).unwrap_or_default();
    match text.trim().parse::<u64>() {
        Ok(many) if many >= BACKLOG_FEW => ok("accept backlog", many.to_string()),
        Ok(few) => warn(
            "accept backlog",
            format!("{few}: a crowd of clients may have to connect twice"),
            "`sysctl net.core.somaxconn=4096`",
        ),
        Err(_) => ok("accept backlog", "the kernel does not say"),
    }
}

/// What depends on the configuration that is to be served.
fn configured(args: &DoctorArgs, host: &Host, features: Option<Features>) -> Vec<Line> {
    let config = match draft(args).and_then(|draft| draft.check(host)) {
        Ok(config) => config,
        Err(error) => return vec![fail("configuration", "is refused", error.to_string())],
    };
    let mut lines = vec![ok("configuration", format!("{} shards", config.shards))];
    lines.extend(features.map(|features| rings(config.shards, features)));
    lines.extend([state_dir(&config), credentials(&config)]);
    if let Beside::Tunnel(path) = &config.beside {
        lines.push(tunnel(path));
    }
    lines.extend(ports(&config));
    lines
}

/// Whether there can be a ring for each shard, beside what the control plane takes: tried, because
/// what the kernel charges for one, and to whom, differs from release to release.
fn rings(shards: usize, features: Features) -> Line {
    let limit = host::locked_memory_limit().soft;
    let control = if limit >= GLOMMIO_MEMLOCK { CONTROL_RINGS } else { 0 };
    let ring = || Ring::new(&RingConfig::default(), features);
    let begun = Instant::now();
    loop {
        match (0..shards + control).map(|_| ring()).collect::<Result<Vec<_>, _>>() {
            Ok(_) => return ok("rings", format!("{shards} can be set up")),
            // The probe's are gone, but the kernel gives back what they were charged when it has
            // time, and says nothing then.
            Err(SetupError::MemlockTooLow { .. }) if begun.elapsed() < CHARGED_FOR => {
                std::thread::sleep(CHARGED_FOR / 20);
            }
            Err(error) => {
                let found = format!("{shards} cannot be set up");
                return fail("rings", found, error.to_string());
            }
        }
    }
}

fn draft(args: &DoctorArgs) -> Result<Draft, ConfigError> {
    let mut draft = Draft::default();
    args.flags.apply(&mut draft);
    if let Some(path) = &args.config {
        draft.read_file(path)?;
    }
    Ok(draft)
}

fn state_dir(config: &Config) -> Line {
    let what = "state directory";
    let StatePlace::Dir(dir) = &config.state else {
        return warn(what, "temporary: tokens start over at every start", "name one with --state");
    };
    let shown = dir.display();
    let found = match state::inspect(dir) {
        Ok(found) => found,
        Err(error) => return fail(what, format!("{shown} cannot be used"), error.to_string()),
    };
    if !writable(dir) {
        let remedy = "give this user the right to write there, or name another with --state";
        return fail(what, format!("{shown} cannot be written"), remedy);
    }
    let Some(epoch) = found.epoch else { return ok(what, format!("{shown}, not used yet")) };
    let epoch = epoch.0;
    if found.in_use {
        return warn(what, format!("{shown}, epoch {epoch}: a server is running on it"), "");
    }
    let wait_ms = found.wait.as_ms_ceil();
    if wait_ms > 0 {
        let found = format!("{shown}, epoch {epoch}: the last stop was unclean, so the next start");
        return warn(what, format!("{found} grants nothing for {wait_ms} ms"), "");
    }
    ok(what, format!("{shown}, epoch {epoch}"))
}

/// Whether the directory, or the one that it would be made in, lets us write. Writes nothing.
fn writable(dir: &Path) -> bool {
    let there = dir.ancestors().find(|path| path.exists());
    let there = there.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    rustix::fs::access(there, rustix::fs::Access::WRITE_OK).is_ok()
}

fn credentials(config: &Config) -> Line {
    match &config.access {
        Access::Anyone => ok("credentials", "none asked for; only this host can connect"),
        Access::Users(file) => match Credentials::load(file, &mut Identities::default()) {
            Ok(users) => ok("credentials", format!("{} users", users.principals().count())),
            Err(error) => fail("credentials", "cannot be used", error.to_string()),
        },
    }
}

/// Whether the tunnel that is to run on the same shards has a file that can be used, and its keys.
fn tunnel(path: &Path) -> Line {
    match TunnelConfig::load(path) {
        Ok(tunnel) => ok("tunnel", format!("peers: {}; keys can be read", tunnel.peers.len())),
        Err(error) => fail("tunnel", "its file cannot be used", error.to_string()),
    }
}

/// A listen port that is taken may be that of the server that one asks about; then so are all
/// others. Behind a free one, any that is taken keeps a server from starting.
fn ports(config: &Config) -> Vec<Line> {
    let free = bind(config.listen);
    let runs = matches!(&free, Err(error) if error.kind() == ErrorKind::AddrInUse);
    let mut lines = vec![port("listen port", config.listen, free, runs)];
    if let AdminPlace::Tcp(addr) = config.admin {
        lines.push(port("admin port", addr, bind(addr), runs));
    }
    if !config.own_ports || config.listen.port() == 0 {
        return lines;
    }
    let own = (1..=config.shards as u16)
        .map(|behind| SocketAddr::new(config.listen.ip(), config.listen.port() + behind));
    let taken = own.map(|addr| (addr, bind(addr))).filter(|(_, free)| free.is_err());
    let taken: Vec<_> = taken.collect();
    let (first, last) = (config.listen.port() + 1, config.listen.port() + config.shards as u16);
    if taken.is_empty() {
        lines.push(ok("shards' own ports", format!("{first} to {last} are free")));
    }
    lines
        .extend(taken.into_iter().map(|(addr, free)| port("a shard's own port", addr, free, runs)));
    lines
}

fn bind(addr: SocketAddr) -> io::Result<()> {
    TcpListener::bind(addr).map(drop)
}

fn port(what: &'static str, addr: SocketAddr, free: io::Result<()>, runs: bool) -> Line {
    let Err(error) = free else { return ok(what, format!("{addr} is free")) };
    if error.kind() != ErrorKind::AddrInUse {
        return fail(what, format!("{addr}: {error}"), "choose an address of this host");
    }
    let found = format!("{addr} is in use");
    if runs {
        return warn(what, found, "stop what listens there, if it is not the server you mean");
    }
    let port = addr.port();
    let remedy = format!("stop what listens there (`ss -ltnp 'sport = :{port}'` shows it)");
    fail(what, found, remedy + ", or choose other ports; own_ports = false needs fewer")
}

#[cfg(test)]
mod tests {
    use ringway_coord_server::config::Key;

    use super::*;

    fn host_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("temporary directory");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("inside")).expect("creates");
            std::fs::write(path, text).expect("writes");
        }
        root
    }

    /// Each thing that a host can lack is a line with what to do; a fit host has nothing but `ok`.
    #[test]
    fn what_a_host_lacks_is_named() {
        let thp = "sys/kernel/mm/transparent_hugepage/enabled";
        let source = "sys/devices/system/clocksource/clocksource0/current_clocksource";
        let backlog_path = "proc/sys/net/core/somaxconn";
        let fit = host_with(&[
            (thp, "always [madvise] never\n"),
            (source, "tsc\n"),
            (backlog_path, "4096\n"),
        ]);
        for line in [huge_pages(fit.path()), clock(fit.path()), backlog(fit.path())] {
            assert_eq!((line.verdict, line.remedy.as_str()), (Verdict::Ok, ""), "{line:?}");
        }
        let poor = host_with(&[
            (thp, "always madvise [never]\n"),
            (source, "hpet\n"),
            (backlog_path, "128\n"),
        ]);
        for (line, remedy) in [
            (huge_pages(poor.path()), "echo madvise"),
            (clock(poor.path()), "echo tsc"),
            (backlog(poor.path()), "somaxconn=4096"),
            (locked_memory(65_536), "ulimit -l"),
            (open_files(1_024), "ulimit -n"),
        ] {
            assert_eq!(line.verdict, Verdict::Warn, "{line:?}");
            assert!(line.remedy.contains(remedy), "{line:?}");
        }
    }

    /// A kernel that refuses io_uring fails, with the ring's own remedy.
    #[test]
    fn a_refused_ring_fails() {
        let lines = kernel(ring::probe(ProbeMask::default().refused_with(1)));
        assert_eq!((lines.len(), lines[0].verdict), (1, Verdict::Fail));
        assert!(lines[0].remedy.contains("seccomp"), "{lines:?}");
        let lines = kernel(ring::probe(ProbeMask::default()));
        assert_eq!(lines[0].verdict, Verdict::Ok, "{lines:?}");
        assert!(lines.len() > 5);
    }

    /// A tunnel that the server could not start with is found before it is started.
    #[test]
    fn a_tunnel_without_a_file_fails() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let line = tunnel(&dir.path().join("site.toml"));
        assert_eq!(line.verdict, Verdict::Fail, "{line:?}");
        assert!(line.remedy.contains("site.toml: No such file"), "{line:?}");
    }

    /// A port of a shard alone that is taken keeps a server from starting, and is found; where the
    /// listen port is taken as well, that may be the server.
    #[test]
    fn taken_ports_are_found() {
        let host = Host { cores: 2, memory_bytes: 8 << 30, state_home: None };
        // Neighbours of a port that the kernel chose; another's may be among them.
        let (base, own) = loop {
            let base = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let own = base.local_addr().expect("an address").port().checked_add(2);
            let own = own.map(|port| TcpListener::bind(("127.0.0.1", port)));
            if let Some(Ok(own)) = own {
                break (base, own);
            }
        };
        let mut draft = Draft::default();
        let listen = base.local_addr().expect("an address").to_string();
        draft.flag(Key::Listen, &*listen);
        draft.flag(Key::Admin, "off");
        draft.flag(Key::Shards, "2");
        draft.flag(Key::State, "temporary");
        let config = draft.check(&host).expect("valid");
        let own_port = own.local_addr().expect("an address").to_string();
        let found = |verdict| {
            let lines = ports(&config);
            lines.iter().any(|line| line.verdict == verdict && line.found.contains(&own_port))
        };
        assert!(found(Verdict::Warn));
        drop(base);
        assert!(found(Verdict::Fail));
        drop(own);
        assert!(!found(Verdict::Fail) && !found(Verdict::Warn));
    }

    /// The state directory is looked at, not touched.
    #[test]
    fn the_state_directory_is_left_alone() {
        let root = tempfile::tempdir().expect("temporary directory");
        let dir = root.path().join("state");
        let host = Host { cores: 2, memory_bytes: 8 << 30, state_home: None };
        let mut draft = Draft::default();
        let text = dir.to_str().expect("text");
        draft.flag(Key::State, text);
        let config = draft.check(&host).expect("valid");
        let line = state_dir(&config);
        assert!(line.verdict == Verdict::Ok && line.found.contains("not used yet"), "{line:?}");
        assert!(!dir.exists());
        std::fs::write(&dir, "").expect("writes");
        assert_eq!(state_dir(&config).verdict, Verdict::Fail);
    }
}
