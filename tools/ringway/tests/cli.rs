//! Stories of the real program: a server process, and commands against it, told by their exit
//! codes and by what a script would read.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ringway_tunnel_node::Invite;
use ringway_tunnel_node::config::Config;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const RINGWAY: &str = env!("CARGO_BIN_EXE_ringway");

fn ringway(args: &[&str]) -> Output {
    Command::new(RINGWAY).args(args).stdin(Stdio::null()).output().expect("runs")
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id() as i32).expect("a process id");
    kill_process(pid, signal).expect("it has not been waited for");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A server of its own on ports of its own; killed when the story is over.
struct Server {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    addr: String,
    ready: String,
}

impl Server {
    fn start(state: &Path) -> Server {
        let state = state.to_str().expect("text");
        Server::start_with(&["--state", state])
    }

    fn start_with(more: &[&str]) -> Server {
        let mut child = Command::new(RINGWAY)
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--shards", "1"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("runs");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut ready = String::new();
        out.read_line(&mut ready).expect("says something");
        let addr = ready.split_whitespace().find_map(|word| word.strip_prefix("listen="));
        let addr = addr.unwrap_or_else(|| panic!("no address in {ready:?}")).to_owned();
        Server { child, out, addr, ready }
    }

    /// Runs a command against it: exit code, standard output, standard error.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = ringway(&[&["--server", &self.addr], args].concat());
        let code = output.status.code().expect("no signal ended it");
        (code, text(&output.stdout), text(&output.stderr))
    }

    fn json(&self, args: &[&str]) -> Value {
        let (code, out, err) = self.run(&[&["--json"], args].concat());
        assert_eq!(code, 0, "{args:?}: {err}");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"))
    }

    /// Starts a command that stays, and waits until it has said `word`.
    fn start_holder(&self, args: &[&str], word: &str) -> (Child, BufReader<impl Read + use<>>) {
        let mut child = Command::new(RINGWAY)
            .args(["--server", &self.addr])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("runs");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            let read = out.read_line(&mut line).expect("readable");
            assert!(read > 0, "{args:?} ended without saying {word:?}");
        }
        (child, out)
    }

    fn stop(mut self) -> i32 {
        signal(&self.child, Signal::TERM);
        self.child.wait().expect("ends").code().expect("by itself")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A session from open to close, in a file between commands; each answer has its exit code.
#[test]
fn a_session_in_a_file() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let saved = dir.path().join("session.json");
    let saved = saved.to_str().expect("text");
    let server = Server::start(&dir.path().join("state"));
    let opened = server.json(&["session", "open", "--node", "7", "--save", saved]);
    let session = opened["session"].as_str().expect("text").to_owned();
    let granted = server.json(&["port", "register", "a", "b/1", "--as", saved]);
    assert_eq!(granted[0]["result"], "granted");
    let token = granted[0]["token"].as_str().expect("a token").to_owned();

    let (code, out, _) = server.run(&["port", "register", "a"]);
    assert_eq!((code, out.split_whitespace().nth(1)), (1, Some("held")), "{out}");
    let owners = server.json(&["port", "query", "a", "free"]);
    assert_eq!(owners[0]["session"], *session);
    assert_eq!(owners[1]["result"], "free");
    assert_eq!(server.json(&["session", "info", "--node", "7"])["names"], 2);
    assert_eq!(server.json(&["session", "list"])["sessions"][0]["session"], *session);
    assert_eq!(server.json(&["port", "list", "b/"])["names"][0]["name"], "b/1");
    assert_eq!(server.run(&["session", "renew", "--as", saved]).0, 0);

    assert_eq!(server.run(&["port", "release", "a", "--token", "1", "--as", saved]).0, 1);
    assert_eq!(server.run(&["port", "release", "a", "--token", &token, "--as", saved]).0, 0);
    assert_eq!(server.run(&["port", "release", "a", "--as", saved]).0, 1, "not its own any more");
    assert_eq!(server.run(&["port", "release", "a", "b", "--token", "1", "--as", saved]).0, 2);
    assert_eq!(server.run(&["session", "close", "--as", saved]).0, 0);
    assert_eq!(server.run(&["session", "renew", "--as", saved]).0, 1);
    assert_eq!(server.run(&["session", "info", &session]).0, 1);
    assert_eq!(server.json(&["port", "query", "b/1"])[0]["result"], "free");
    assert_eq!(server.stop(), 0);
}

/// A name is held while a program holds it: until Ctrl-C, until its command ends, or until an
/// operator ends its session. The next one gets a larger token.
#[test]
fn a_name_is_held_as_long_as_its_program() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let server = Server::start(&dir.path().join("state"));
    let (mut holder, _out) = server.start_holder(&["port", "register", "lock"], "held until");
    let held = server.json(&["port", "query", "lock"]);
    assert_eq!(held[0]["result"], "owned");
    signal(&holder, Signal::INT);
    assert_eq!(holder.wait().expect("ends").code(), Some(0));
    assert_eq!(server.json(&["port", "query", "lock"])[0]["result"], "free");

    let script = "echo $RINGWAY_TOKEN; exit 7";
    let (code, out, err) = server.run(&["port", "register", "lock", "--", "sh", "-c", script]);
    assert_eq!(code, 7, "{err}");
    let token: u64 = out.trim().parse().expect("the command's output and nothing else");
    let before = held[0]["token"].as_str().and_then(|token| token.parse().ok());
    assert!(token > before.expect("a token"), "{out}");

    let waits = ["port", "register", "lock", "--", "sh", "-c", "echo here; exec sleep 600"];
    let (mut holder, _out) = server.start_holder(&waits, "here");
    let owner = server.json(&["port", "query", "lock"]);
    let session = owner[0]["session"].as_str().expect("text");
    assert_eq!(server.run(&["port", "register", "lock", "--", "true"]).0, 1);
    assert_eq!(server.run(&["session", "kill", session]).0, 0);
    assert_eq!(holder.wait().expect("its command was stopped").code(), Some(1));
    assert_eq!(server.run(&["port", "register", "lock", "--once"]).0, 0);
    let nothing = ["port", "register", "lock", "--", "/nonexistent/program"];
    assert_eq!(server.run(&nothing).0, 3);
}

/// What a session of the killed server counts on.
const LEASE: Duration = Duration::from_secs(2);

/// After SIGKILL nothing is granted until the longest lease has passed, and epochs go on; after a
/// drain with nobody left there is no wait.
#[test]
fn a_killed_server_waits() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let state = dir.path().join("state");
    let server = Server::start(&state);
    assert!(server.ready.contains("epoch=1") && !server.ready.contains("starting"));
    server.json(&["session", "open", "--node", "1", "--lease-ms", "2000"]);
    drop(server);

    let killed = Instant::now();
    let server = Server::start(&state);
    assert!(server.ready.contains("epoch=2"), "{}", server.ready);
    assert!(server.ready.contains("starting_ms="), "{}", server.ready);
    let (code, out, _) = server.run(&["port", "register", "a", "--once"]);
    // On a machine that is busy with other tests the lease may be over by now.
    let early = killed.elapsed() < LEASE;
    assert!(!early || code == 1, "{out}");
    assert!(code == 0 || out.contains("STARTING"), "{out}");
    let doctor = ringway(&["doctor", "--state", state.to_str().expect("text")]);
    assert!(text(&doctor.stdout).contains("a server is running on it"));
    while server.run(&["port", "register", "a", "--once"]).0 != 0 {}
    assert!(killed.elapsed() >= LEASE, "within the old lease");
    assert_eq!(server.stop(), 0);
    let server = Server::start(&state);
    assert!(!server.ready.contains("starting"), "{}", server.ready);
}

/// Who must act is told by the exit code: 2 for words, 3 for the host, 4 for the network.
#[test]
fn exit_codes_say_who_must_act() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let state = dir.path().join("state");
    let server = Server::start(&state);
    let state = state.to_str().expect("text");
    // Whatever listens for the other tests has another address and a larger port.
    let gone = "127.0.0.77:1";
    let serve = ["serve", "--admin", "off", "--listen"];
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--server", gone, "port", "query", "a"], 4, "cannot connect"),
        (&["--server", "nowhere", "port", "query", "a"], 2, "give host:port"),
        (&["port", "register"], 2, "required"),
        (&["serve", "--shards", "none"], 2, "--shards is \"none\""),
        (&["serve", "--config", "/nonexistent.toml"], 3, "/nonexistent.toml"),
        (&["serve", "--listen", "0.0.0.0:0"], 2, "allow_plain_remote"),
        (&["serve", "--admin", "off", "--listen", "127.0.0.1:0", "--state", state], 3, "in use by"),
        (&[&serve[..], &[&server.addr, "--state", "temporary"]].concat(), 3, "is taken"),
        (&["session", "renew", "--as", "/nonexistent"], 2, "session open --save"),
    ];
    for (args, code, said) in cases {
        let output = ringway(args);
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {err}");
        assert!(err.contains(said), "{args:?}: {err}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    let output = ringway(&["--json", "--server", gone, "port", "query", "a"]);
    let error: Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!(error["exit_code"], 4);
}

/// Who asks for JSON gets it, too, where the words are no command; help stays text.
#[test]
fn words_that_are_no_command_are_told_in_json() {
    for (args, said) in [
        (&["--json", "tunnel", "check"][..], "--config <FILE>"),
        (&["port", "register", "--json"], "required"),
        (&["--json", "tunnels"], "a similar subcommand exists: 'tunnel'"),
        (&["tunnel", "--json", "--config", "a", "status", "--config", "a"], "--config before"),
        (&["--json", "tunnel", "--log-level", "warn", "check", "--config", "a"], "--log-level"),
    ] {
        let output = ringway(args);
        let error: Value = serde_json::from_slice(&output.stderr).expect("JSON");
        let text = error["error"].as_str().expect("words");
        assert!(text.contains(said) && !text.contains(['\n']), "{args:?}: {text}");
        assert_eq!((output.status.code(), &error["exit_code"]), (Some(2), &2.into()), "{args:?}");
    }
    let other = ringway(&["port", "exec", "--nonsense", "--", "true", "--json"]);
    assert!(text(&other.stderr).starts_with("error: "), "it is another program's");
    let help = ringway(&["--json", "tunnel", "--help"]);
    assert!(help.status.success() && text(&help.stdout).contains("Usage: "));
}

/// What a matrix cannot do is refused before anything is made, and where a program is missing it is
/// said how one gets it.
#[test]
fn what_no_matrix_can_do_is_refused() {
    for (args, said) in [
        (&["--for", "0s"][..], "--for 0s: a run takes some time"),
        (&["--check", "--contestants", "ringway-tcp,cubic"], "--check judges `ringway`"),
        (&["--into", "/dev/full"], "this is no ordinary file"),
        (&["delay=5ms"], "say one of them"),
    ] {
        let output = ringway(&[&["wan", "matrix", "rtt=30ms"], args].concat());
        let err = text(&output.stderr);
        assert!(output.status.code() == Some(2) && err.contains(said), "{args:?}: {err}");
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    let programs = |names: &[&str]| {
        for name in names {
            std::os::unix::fs::symlink("/bin/true", dir.path().join(name)).expect("a link");
        }
    };
    let missing = |who: &str, said: &[&str]| {
        let mut command = Command::new(RINGWAY);
        command.args(["wan", "matrix", "rtt=30ms", "loss=5%", "--contestants", who]);
        let output = command.env("PATH", dir.path()).output().expect("runs");
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{err}");
        assert!(said.iter().all(|said| err.contains(said)), "{who}: {err}");
    };
    missing("cubic", &["needs iperf3", "`apt install iperf3`"]);
    programs(&["iperf3", "kcptun-client"]);
    missing("kcptun", &["needs kcptun-server", "`apt install kcptun`"]);
    missing("ringway,gotatun", &["needs gotatun", "`cargo install gotatun-cli`"]);
}

/// A simulation judges nothing that is not there to judge, and passes over nothing that was said.
#[test]
fn what_no_simulation_can_do_is_refused() {
    let followed = ["rate=10mbit", "rtt=20ms", "loss=5%", "mtu=1500"];
    for (args, said) in [
        (&["loss=100", "--check"][..], "nothing can arrive"),
        (&["down=1", "--start", "--check"], "nothing can arrive"),
        (&["rtt=0", "mtu=1500"], "give rtt"),
        (&["rtt=10ms", "delay=5ms"], "say one of them"),
    ] {
        refused(args, said);
    }
    for (args, said) in [
        (&["--for", "0s", "--plot", "x.svg"][..], "over before anything is seen"),
        (&["--at", "50s", "loss=0"], "--at 50s: that is not before the end"),
        (&["--at", "5s", "mtu=9000"], "the size of packets does not change"),
        (&["--plot", "x.svg", "--seeds", "2"], "cannot be used with"),
        (&["--plot", "x.svg", "--check"], "cannot be used with"),
        (&["--for", "2s", "--time", "5"], "cannot be used with"),
        (&["--plot", "x.svg", "--memory", "1g,2g"], "give --memory once"),
        (&["--plot", "x.png"], "give a name that ends with .svg"),
        (&["--plot", "svg"], "give a name that ends with .svg"),
    ] {
        refused(&[&followed[..], args].concat(), said);
    }
    fn refused(args: &[&str], said: &str) {
        let output = ringway(&[&["wan", "sim"], args].concat());
        let err = text(&output.stderr);
        assert!(output.status.code() == Some(2) && err.contains(said), "{args:?}: {err}");
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("x.svg");
    let file = file.to_str().expect("text");
    let drawn = ["--for", "2s", "--at", "1s", "down=1", "--plot", file];
    let output = ringway(&[&["wan", "sim"], &followed[..], &drawn].concat());
    let out = text(&output.stdout);
    assert!(out.starts_with(&format!("{file}: rate, loss")) && out.ends_with(" in 2 s\n"), "{out}");
    assert!(std::fs::read_to_string(file).expect("it is there").starts_with("<svg "));
}

/// `--json` may stand wherever help shows it. A file that no tunnel starts with ends all with the
/// same code.
#[test]
fn a_tunnel_and_who_asks_it_agree() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
    let broken = path("broken.toml");
    std::fs::write(&broken, "[tunnel\n").expect("writes");
    let no_key = path("no-key.toml");
    std::fs::write(&no_key, "[tunnel]\nnetwork_key = \"none\"\n").expect("writes");
    for (file, code) in [(path("nowhere.toml"), 3), (broken, 2), (no_key, 3)] {
        for words in [&["tunnel"][..], &["tunnel", "check"], &["tunnel", "--json", "check"]] {
            let output = ringway(&[words, &["--config", &file]].concat());
            let err = text(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{words:?} {file}: {err}");
            assert_eq!(err.starts_with("{\"error\":"), words.contains(&"--json"), "{err}");
        }
    }
    let (nobody, first) = (path("nobody.sock"), ringway(&["tunnel", "--json", "selftest"]));
    serde_json::from_slice::<Value>(&first.stdout).expect("JSON");
    let output = ringway(&["tunnel", "--json", "status", "--socket", &nobody]);
    let error: Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!(error["exit_code"], 4, "{error}");
}

/// A user with a token gets its own namespaces; without one, nothing.
#[test]
fn credentials_from_end_to_end() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();
    let (users, token) = (path("users.toml"), path("shop.token"));
    let add = ["credentials", "add", "shop", "-n", "orders", "--file", &users];
    let added = ringway(&add);
    assert!(added.status.success());
    std::fs::write(&token, &added.stdout).expect("writes");
    let server = Server::start_with(&["--state", &path("state"), "--credentials", &users]);
    let shop = ["--user", "shop", "--token-file", &token];
    let ask = |args: &[&str]| server.run(&[&shop[..], args].concat());
    assert_eq!(server.run(&["port", "query", "orders/1"]).0, 1, "nobody in particular");
    assert_eq!(ask(&["port", "register", "orders/1", "--once"]).0, 0);
    let (code, out, _) = ask(&["port", "register", "carts/1", "--once"]);
    assert_eq!(code, 1, "{out}");
    std::fs::write(&token, "rwt_guessed").expect("writes");
    assert_eq!(ask(&["port", "query", "orders/1"]).0, 1);
}

/// The tunnel's first bytes are chance, which is promised and makes the exit code; that some
/// censors look for chance is said in words as well.
#[test]
fn the_tunnel_says_what_a_censor_sees() {
    let said = ringway(&["tunnel", "selftest", "--messages", "300"]);
    let (code, out) = (said.status.code(), text(&said.stdout));
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("\nuniform: yes\n"), "{out}");
    assert!(out.contains("\nmatches the fully-encrypted heuristic: yes ("), "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= 120), "{out}");
    let said = ringway(&["tunnel", "selftest", "--messages", "300", "--json"]);
    let said: Value = serde_json::from_slice(&said.stdout).expect("JSON");
    assert_eq!((&said["uniform"], said["kinds"].as_array().map(Vec::len)), (&true.into(), Some(6)));
    let share = said["fully_encrypted_heuristic"]["share_of_first_packets"].as_f64();
    assert!(share.expect("a number") > 0.95, "{said}");
    for kind in said["kinds"].as_array().expect("kinds") {
        assert_eq!(kind["constant_positions"], Value::Array(Vec::new()), "{kind}");
        assert!(kind["positions_judged"].as_u64() >= kind["lengths"]["min"].as_u64(), "{kind}");
        let opens = matches!(kind["kind"].as_str(), Some("keys" | "shared" | "join"));
        assert_eq!(kind["heuristic"].is_object(), opens, "{kind}");
    }
}

/// A key is made once; its public half can be printed again, and its private half never is.
#[test]
fn keys_are_made_and_not_shown() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("site.key");
    let file = path.to_str().expect("text");
    let made = ringway(&["keygen", file]);
    let public = text(&made.stdout);
    assert!(made.status.success() && public.starts_with("ringway-public:"), "{public}");
    assert_eq!(text(&ringway(&["keygen", "--public", file]).stdout), public);
    let again = ringway(&["keygen", file]);
    assert_eq!(again.status.code(), Some(3));
    assert!(text(&again.stderr).contains("is there already"), "{}", text(&again.stderr));
    let network = dir.path().join("network.key");
    let made = ringway(&["--json", "keygen", "--network", network.to_str().expect("text")]);
    let said: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    assert_eq!((said["kind"].as_str(), &said["public"]), (Some("network"), &Value::Null));
    let key = std::fs::read_to_string(&network).expect("it was made");
    assert!(!text(&made.stdout).contains(key.trim().rsplit(':').next().expect("a key")));
    let wrong = ringway(&["keygen", "--public", network.to_str().expect("text")]);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong.stderr));
}

/// Who cannot say its answer does not end as if it had: neither where nothing takes it, which it
/// says, nor where nobody reads it.
#[test]
fn an_answer_that_nobody_takes_is_no_success() {
    let said = |out: Stdio, err: Stdio| {
        let mut command = Command::new(RINGWAY);
        let command = command.args(["serve", "--print-config"]).stdin(Stdio::null());
        let child = command.stdout(out).stderr(err).spawn().expect("it can be run");
        let output = child.wait_with_output().expect("ends");
        (output.status.code(), text(&output.stderr))
    };
    assert_eq!(said(Stdio::null(), Stdio::piped()), (Some(0), String::new()));
    let full = || File::options().write(true).open("/dev/full").expect("Linux has it");
    let (code, error) = said(full().into(), Stdio::piped());
    assert!(code == Some(3) && error.contains("does not take the answer"), "{code:?}: {error}");
    assert_eq!(said(full().into(), full().into()).0, Some(3), "no disk has room for anything");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    assert_eq!(said(writer.into(), Stdio::piped()), (Some(141), String::new()));
}

/// Runs a command in a directory, with text on its standard input.
fn ringway_in(dir: &Path, args: &[&str], input: &str) -> (i32, String, String) {
    let mut command = Command::new(RINGWAY);
    let piped = command.args(args).current_dir(dir).stdin(Stdio::piped());
    let mut child =
        piped.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be run");
    // Who refuses its arguments does not read.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("ends");
    let code = output.status.code().expect("no signal ended it");
    (code, text(&output.stdout), text(&output.stderr))
}

/// Two sites, one pasted line: afterwards each has a configuration that knows the other by a key
/// that nobody else has. The line is on standard output, alone; that it is a secret is said beside.
#[test]
fn two_sites_are_connected_with_one_line() {
    let (far, near) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("another"));
    let (far, near) = (far.path(), near.path());
    assert!(ringway_in(far, &["keygen", "--network", "network.key"], "").0 == 0);
    let ours = "# Ours\n[tunnel]\nnetwork_key = \"network.key\"\nlisten = \"127.0.0.1:4600\"\n";
    std::fs::write(far.join("far.toml"), ours).expect("writes");
    let invite = ["tunnel", "invite", "--config", "far.toml", "--name", "branch"];
    let with = ["--address", "gw.example:4600", "--allow", "127.0.0.1:5201"];
    let (code, line, err) = ringway_in(far, &[&invite[..], &with].concat(), "");
    assert_eq!(code, 0, "{err}");
    assert!(line.starts_with("ringway-invite:") && line.lines().count() == 1, "{line}");
    assert!(err.contains("SECRET") && err.contains("SIGHUP") && !err.contains(line.trim()));
    let config = std::fs::read_to_string(far.join("far.toml")).expect("text");
    assert!(config.starts_with(ours) && config.contains("name = \"branch\""), "{config}");

    let join = ["tunnel", "join", "-", "--config", "near.toml"];
    let more = ["--forward", "15201=127.0.0.1:5201", "--socks5", "1080"];
    let (code, out, err) = ringway_in(near, &[&join[..], &more].concat(), &line);
    assert_eq!(code, 0, "{err}");
    assert!(out.ends_with("next: ringway tunnel --config near.toml\n"), "{out}");
    let far = Config::load(&far.join("far.toml")).expect("ready to run");
    let theirs = Config::load(&near.join("near.toml")).expect("ready to run");
    assert!(theirs.networks == far.networks && theirs.listeners.len() == 2);
    let gw = theirs.peer(theirs.peer_named("gw").expect("by its own name"));
    assert!(gw.identity == far.peers[0].identity, "the same key at both ends");

    // A second time there is something in the way, and nothing is lost.
    let before = std::fs::read(near.join("near.toml")).expect("there");
    let (code, _, err) = ringway_in(near, &join, &line);
    assert!(code == 3 && err.contains("is not overwritten"), "{err}");
    assert_eq!(std::fs::read(near.join("near.toml")).expect("there"), before);
    let elsewhere = ["--json", "tunnel", "join", line.trim(), "--config", "n.toml", "--name", "b"];
    let (code, out, _) = ringway_in(near, &elsewhere, "");
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &said["next"]), (0, &"ringway tunnel --config n.toml".into()));
}

/// What is wrong with an invitation is said in words, with the exit code of who must act.
#[test]
fn invitations_that_are_none_are_refused_in_words() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dir = dir.path();
    assert!(ringway_in(dir, &["keygen", "--network", "network.key"], "").0 == 0);
    let network = std::fs::read_to_string(dir.join("network.key")).expect("text");
    let ours = "[tunnel]\nnetwork_key = \"network.key\"\nlisten = \"127.0.0.1:4600\"\n";
    std::fs::write(dir.join("far.toml"), ours).expect("writes");
    let invite = |name: &str, more: &[&str]| {
        let first = ["--json", "tunnel", "invite", "--config", "far.toml", "--name", name];
        ringway_in(dir, &[&first[..], &["--address", "192.0.2.7:4601"], more].concat(), "")
    };
    let (code, out, err) = invite("branch", &[]);
    assert_eq!(code, 0, "{err}");
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(said["ports_not_listened_at"][0], 4601);
    let line = said["invite"].as_str().expect("a line");
    let other = if &line[60..61] == "A" { "B" } else { "A" };
    let changed = format!("{}{other}{}", &line[..60], &line[61..]);
    for (input, told) in [
        (&line[..line.len() - 9], "was cut: 9 letters are missing"),
        (&format!("{line}, see you"), "was changed on its way: ',' is in none"),
        (&changed, "was changed on its way"),
        (network.trim(), "this is a key, not an invitation"),
        ("", "this is no invitation"),
    ] {
        let (code, out, err) = ringway_in(dir, &["tunnel", "join", "-", "-c", "n.toml"], input);
        assert!(code == 2 && err.contains(told), "{input}\n said: {err}\n not:  {told}");
        assert!(out.is_empty() && !dir.join("n.toml").exists());
    }
    let mut old = Invite::from_line(line).expect("it was just made");
    old.until_s -= 25 * 3600;
    let join = ["tunnel", "join", "-", "-c", "n.toml"];
    let (code, _, err) = ringway_in(dir, &join, &old.to_line());
    assert!(code == 2 && err.contains("expired") && err.contains("ringway tunnel invite"), "{err}");
    assert!(!dir.join("n.toml").exists());
    let (code, _, err) = invite("other", &["--valid", "1 s"]);
    assert!(code == 2 && err.contains("from 1min to 720h"), "{err}");
    let (code, _, err) = invite("branch", &[]);
    assert!(code == 2 && err.contains("has a peer \\\"branch\\\" already"), "{err}");
    let (code, _, err) = invite("other", &["--allow", "localhost:80"]);
    assert!(code == 2 && err.contains("a name never reaches loopback"), "{err}");
    let (code, _, err) = invite("other", &["--allow", "service:web"]);
    assert!(code == 2 && err.contains("there is no [[service]]"), "{err}");
    assert!(!dir.join("other.psk").exists(), "nothing is left of what was refused");
}

/// A tunnel that runs as a user who cannot read its key says so, and what to do, with the uid that
/// the key has to belong to. Root reads whatever mode there is, and so it runs as somebody else.
#[test]
fn a_key_of_another_user_is_told() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    let dir = tempfile::tempdir().expect("temporary directory");
    let (dir, may) = (dir.path(), std::fs::Permissions::from_mode);
    std::fs::set_permissions(dir, may(0o755)).expect("our directory");
    assert!(ringway_in(dir, &["keygen", "--network", "network.key"], "").0 == 0);
    let config = dir.join("far.toml");
    let ours = "[tunnel]\nnetwork_key = \"network.key\"\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(&config, ours).expect("writes");
    let ours = rustix::process::geteuid();
    let mut command = Command::new(RINGWAY);
    command.args(["tunnel", "--config"]).arg(&config);
    let uid = if ours.is_root() {
        command.uid(65_534).gid(65_534);
        65_534
    } else {
        std::fs::set_permissions(dir.join("network.key"), may(0)).expect("our file");
        ours.as_raw()
    };
    let output = command.stdin(Stdio::null()).output().expect("it can be run");
    let (code, err) = (output.status.code(), text(&output.stderr));
    let told = format!("cannot be read by uid {uid}");
    assert!(code == Some(3) && err.contains(&told), "{err}");
    assert!(err.contains(&format!("chown {uid} ")) && err.contains("chmod 600"), "{err}");
}

/// The counters and the printed configuration are for programs, too.
#[test]
fn programs_can_read_it() {
    let mut server = Server::start_with(&["--state", "temporary"]);
    let shards = server.json(&["shards"]);
    assert_eq!(shards[0]["slots"], 16_384);
    let load = ["load", "--ops", "1k", "--warmup-s", "0", "--names", "1k", "--prefill"];
    let report = server.json(&[&load[..], &["--expect", "owned"]].concat());
    assert!(report["ops"].as_u64().expect("a number") >= 1000);
    let printed = ringway(&["serve", "--print-config", "--shards", "1"]);
    assert!(text(&printed.stdout).contains("\nshards = 1\n"));
    let doctor = ringway(&["--json", "doctor", "--state", "temporary"]);
    let lines: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    assert_eq!(lines[0]["what"], "io_uring");

    signal(&server.child, Signal::TERM);
    let mut rest = String::new();
    server.out.read_to_string(&mut rest).expect("readable");
    assert_eq!(rest, "", "one line, and no more, on standard output");
}
