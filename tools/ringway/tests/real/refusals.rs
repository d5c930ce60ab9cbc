//! Starts that must not succeed: one clear message, and the exit code that says whose turn it is.

use std::net::TcpListener;
use std::process::Command;

use rustix::thread::CapabilitySet;
use serde_json::Value;

use crate::support::{Server, Setup, Told, command, refused, ringway};

/// A state directory has one server; the second is told which process has it.
#[test]
fn a_second_server_on_a_state_directory_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let setup = Setup::new().state(dir.path());
    let first = setup.start();
    let pid = first.pid().to_string();
    setup.refused().with(3).complains(&["in use by another server", &pid, "--state"]);
    first.client().query_one(b"a").expect("the first did not notice");
    first.stop();
    setup.start().stop();
}

/// A port that somebody listens on: exit 3, the address in the message, and nothing left behind
/// that would make the next start wait.
#[test]
fn a_taken_port_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port of the kernel's choice");
    let addr = taken.local_addr().expect("bound");
    let dir = tempfile::tempdir().expect("temporary directory");
    let setup = Setup::new().state(dir.path()).flag("--own-ports", false);
    let refused = setup.clone().flag("--listen", addr).refused().with(3);
    refused.complains(&[&addr.to_string(), "is taken", "listen elsewhere"]);
    let server = setup.start();
    assert!(server.starting.is_zero(), "{:?}", server.starting);
    server.stop();
    let refused = setup.clone().flag("--admin", addr).refused().with(3);
    refused.complains(&[&addr.to_string(), "--admin"]);
}

/// Another ringway on the port is no exception: two servers never share one.
#[test]
fn two_servers_do_not_share_a_port() {
    let first = Setup::new().start();
    let second = Setup::new().flag("--listen", first.addr).flag("--own-ports", false);
    second.refused().with(3).complains(&[&first.addr.to_string(), "is taken"]);
    first.stop();
}

/// More shards than cores is a mistake unless one says that they may share.
#[test]
fn more_shards_than_cores_need_a_word() {
    let cores = std::thread::available_parallelism().expect("cores").get();
    let setup = Setup::new().shards(cores + 1);
    let refused = setup.clone().flag("--pin", "auto").refused().with(3);
    refused.complains(&["--shards", &format!("{cores} cores"), "pin = false"]);
    let server = setup.start();
    let shards = server.word("shards").map(str::to_owned);
    assert_eq!(shards, Some((cores + 1).to_string()));
    let mut client = server.client();
    assert_eq!(usize::from(client.shard_map().expect("a map").shards), cores + 1);
    server.stop();
}

/// Words that are wrong are the caller's doing: exit 2, and what would be right.
#[test]
fn wrong_words_are_told_from_a_wrong_host() {
    for (flag, value, words) in [
        ("--listen", "here", ["--listen", "127.0.0.1:7400"]),
        ("--shards", "0", ["--shards", "1 to 128"]),
        ("--max-memory", "much", ["--max-memory", "12GiB"]),
        ("--profile", "mars", ["--profile", "wan"]),
        ("--max-lease-ms", "1", ["--max-lease-ms", "86400000"]),
        ("--admin", "0.0.0.0:0", ["--admin", "loopback"]),
    ] {
        Setup::new().flag(flag, value).refused().with(2).complains(&words);
    }
    Setup::new().flag("--max-memory", "1MiB").refused().with(3).complains(&["at least"]);
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").expect("writes");
    Setup::new().state(&file).refused().with(3).complains(&["is not a directory", "--state"]);
    let config = dir.path().join("ringway.toml");
    std::fs::write(&config, "\n\nshard = 2\n").expect("writes");
    let refused = Setup::new().flag("--config", config.display()).refused().with(2);
    refused.complains(&["ringway.toml:3", "did you mean \"shards\"?"]);
}

/// A record that cannot be believed stops the start: a wrong epoch would give tokens out twice.
#[test]
fn a_damaged_state_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let setup = Setup::new().state(dir.path());
    setup.start().stop();
    let path = dir.path().join("state.toml");
    let text = std::fs::read_to_string(&path).expect("a record");
    std::fs::write(&path, text.replace("epoch = 1", "epoch = 0")).expect("writes");
    setup.refused().with(3).complains(&["is damaged", "checksum", "backup"]);
}

/// A kernel that charges rings as locked memory, and a user who may lock little: one message with
/// the remedy, exit 3, however little it is; nothing is taken for a feature that the kernel lacks.
/// Doctor says the same. Where nothing is charged (older kernels, `CAP_IPC_LOCK`) the server
/// serves, and only its control plane runs on `poll`.
#[test]
fn little_lockable_memory_is_enough_or_refused_with_its_remedy() {
    let doctor = ["doctor", "--json", "--state", "temporary", "--shards", "2", "--pin", "false"];
    let try_all = move || {
        let told = |kib| {
            let output = limited(kib, command(&doctor)).output().expect("the binary starts");
            Told::from(output).json()
        };
        let fails = |found: &Value| found["verdict"] == "fail";
        let charged = fails(&told(0)[0]);
        println!("rings are charged as locked memory: {charged}");
        for kib in [0, 4, 8, 16, 24, 32, 64, 96, 128, 192, 256] {
            let server = limited(kib, Setup::new().shards(2).command());
            if charged {
                let words = ["locked memory", "ulimit -l", "LimitMEMLOCK"];
                refused(server).with(3).complains(&words);
                let lines = told(kib);
                let lines = lines.as_array().expect("lines").iter().filter(|line| fails(line));
                let found: Vec<_> = lines.filter_map(|line| line["remedy"].as_str()).collect();
                assert!(
                    found.iter().any(|text| text.contains("ulimit -l")),
                    "{kib} KiB: {found:?}"
                );
            } else {
                let server = Server::start(server);
                assert_eq!(server.word("control"), Some("poll"));
                server.client().register_one(b"a").expect("granted");
                server.stop();
            }
        }
    };
    try_all();
    let unprivileged = std::thread::spawn(move || {
        // Only this thread, and the processes that it starts. Who may not give it up has none.
        let _ = rustix::thread::remove_capability_from_bounding_set(CapabilitySet::IPC_LOCK);
        try_all();
    });
    unprivileged.join().expect("as it should be");
}

/// The command, by a shell that first limits what it may lock.
fn limited(kib: u64, inner: Command) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -l \"$0\" && exec \"$@\"", &kib.to_string()]);
    command.arg(inner.get_program()).args(inner.get_args());
    command
}

/// io_uring refused, as the default profile of a container does it: one message with the remedy,
/// exit 3, from the server and from doctor; and the next start need not wait for anything.
#[test]
fn a_refused_io_uring_is_said_with_its_remedy() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let setup = Setup::new().state(dir.path());
    let refused = setup.clone();
    let confined = std::thread::spawn(move || {
        // Only this thread, and the processes that it starts.
        seccompiler::apply_filter(&without_io_uring()).expect("a kernel with seccomp");
        refused.refused().with(3).complains(&["io_uring is refused", "seccomp=unconfined"]);
        let doctor = ringway(&["doctor", "--json", "--state", "temporary"]).with(3).json();
        assert_eq!(
            (&doctor[0]["what"], &doctor[0]["verdict"]),
            (&"io_uring".into(), &"fail".into())
        );
        assert!(
            doctor[0]["remedy"].as_str().is_some_and(|text| text.contains("seccomp=unconfined"))
        );
    });
    confined.join().expect("refused as it should be");
    let server = setup.start();
    assert!(server.starting.is_zero(), "{:?}", server.starting);
    server.stop();
}

/// A filter that answers EPERM to whoever sets a ring up.
fn without_io_uring() -> seccompiler::BpfProgram {
    use seccompiler::{SeccompAction, SeccompFilter};
    const IO_URING_SETUP: i64 = 425;
    const EPERM: u32 = 1;
    let rules = [(IO_URING_SETUP, Vec::new())].into_iter().collect();
    let arch = std::env::consts::ARCH.try_into().expect("a processor that we run on");
    let (others, ours) = (SeccompAction::Allow, SeccompAction::Errno(EPERM));
    let filter = SeccompFilter::new(rules, others, ours, arch).expect("a filter");
    filter.try_into().expect("it compiles")
}
