//! The command line: exit codes, JSON for programs, what stays until it is told to stop.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Server, Setup, granted, granted_at_last, held, ringway, ringway_at, spawn_at,
};

/// A session from its beginning to its end, with nothing but commands: each answer is one JSON
/// document, each exit code says who must act.
#[test]
fn a_session_by_commands() {
    let server = Setup::new().shards(2).start();
    let dir = tempfile::tempdir().expect("temporary directory");
    let saved = dir.path().join("session.json").to_str().expect("text").to_owned();
    let at = |words: &[&str]| ringway_at(server.addr, &[words, &["--json"]].concat());
    let open =
        ["session", "open", "--node", "7", "--lease-ms", "20000", "--address", "10.0.0.7:80"];
    let opened = at(&[&open[..], &["--metadata", "rack 3", "--save", &saved]].concat()).with(0);
    let opened = opened.json();
    let session = opened["session"].as_str().expect("a session").to_owned();
    assert_eq!((&opened["node"], &opened["lease_ms"]), (&json!(7), &json!(20_000)));

    let granted = at(&["port", "register", "a", "b/c", "--as", &saved]).with(0).json();
    let tokens: Vec<_> = granted.as_array().expect("a list").iter().map(|l| &l["token"]).collect();
    let digits = |token: &&Value| token.as_str().is_some_and(|token| token.parse::<u64>().is_ok());
    assert!(tokens.iter().all(digits), "a number that no reader rounds: {granted}");
    assert_eq!(granted[0]["name"], "a");
    assert_eq!(granted[0]["session"], json!(session));

    let queried = at(&["port", "query", "a", "nobody's"]).with(0).json();
    assert_eq!(queried[0]["result"], "owned");
    assert_eq!(&queried[0]["token"], tokens[0]);
    assert_eq!((&queried[1]["result"], &queried[1]["token"]), (&json!("free"), &Value::Null));

    let listed = at(&["port", "list"]).with(0).json();
    assert_eq!(
        (listed["names"].as_array().map(Vec::len), &listed["more"]),
        (Some(2), &json!(false))
    );
    let listed = at(&["port", "list", "b/"]).with(0).json();
    assert_eq!(listed["names"][0]["name"], "b/c");
    let listed = at(&["port", "list", "--limit", "1"]).with(0).json();
    assert_eq!(
        (listed["names"].as_array().map(Vec::len), &listed["more"]),
        (Some(1), &json!(true))
    );

    let info = at(&["session", "info", &session]).with(0).json();
    assert_eq!(info, at(&["session", "info", "--node", "7"]).with(0).json().with_left(&info));
    assert_eq!((&info["names"], &info["state"]), (&json!(2), &json!("away")));
    assert_eq!((&info["address"], &info["metadata"]), (&json!("10.0.0.7:80"), &json!("rack 3")));
    let all = at(&["session", "list"]).with(0).json();
    assert_eq!(all["sessions"][0]["session"], json!(session));

    let wrong = at(&["port", "release", "a", "--token", "1", "--as", &saved]).with(1).json();
    assert!(wrong[0]["why"].as_str().is_some_and(|why| why.starts_with("NOTOWNER")), "{wrong}");
    let token = tokens[0].as_str().expect("a token");
    at(&["port", "release", "a", "--token", token, "--as", &saved]).with(0);
    at(&["session", "renew", "--as", &saved]).with(0);
    assert_eq!(at(&["session", "kill", &session]).with(0).json()["done"], "killed");
    for words in [&["renew", "--as", &saved][..], &["close", "--as", &saved], &["kill", &session]] {
        let gone = at(&[&["session"], words].concat()).with(1);
        let gone: Value = serde_json::from_str(&gone.err).expect("a complaint in JSON");
        assert_eq!(gone["exit_code"], 1);
        assert!(gone["error"].as_str().is_some_and(|text| text.contains("NOSESSION")), "{gone}");
    }
    at(&["session", "info", &session]).with(1);
    server.stop();
}

/// Two records of one session differ in what is left of its lease.
trait WithLeft {
    fn with_left(self, other: &Value) -> Value;
}

impl WithLeft for Value {
    fn with_left(mut self, other: &Value) -> Value {
        self["left_ms"] = other["left_ms"].clone();
        self
    }
}

/// `port register` holds until it is told to stop: Ctrl-C or SIGTERM give the names back before the
/// program ends. A second one that comes too late says who has it, and gives back what it got.
#[test]
fn register_holds_until_it_is_told_to_stop() {
    let server = Setup::new().shards(2).start();
    for signal in [Signal::INT, Signal::TERM] {
        let mut holder = spawn_at(server.addr, &["port", "register", "leader"]);
        holder.line_with("leader  granted");
        holder.line_with("held until Ctrl-C");
        let mut client = server.client();
        let owner = held(&mut client, "leader");
        let late = ringway_at(server.addr, &["port", "register", "free", "leader"]).with(1);
        assert!(late.out.contains(&format!("leader  held  session {}", owner.session)), "{late:?}");
        granted_at_last(&mut client, "free");
        client.release(&[b"free"]).expect("answers");
        holder.signal(signal);
        assert_eq!(holder.wait(), Some(0), "{}", holder.err());
        granted(&mut client, "leader");
        client.release(&[b"leader"]).expect("answers");
    }
    let once = ringway_at(server.addr, &["port", "register", "leader", "--once", "--json"]).with(0);
    assert_eq!(once.json()[0]["result"], "granted");
    granted_at_last(&mut server.client(), "leader");
    server.stop();
}

/// A command runs while the names are held, knows their token, and its exit code is ours. When the
/// names are lost it is told to end.
#[test]
fn a_command_runs_while_names_are_held() {
    let server = Setup::new().start();
    let at = |words: &[&str]| ringway_at(server.addr, words);
    let ran =
        at(&["port", "register", "job", "--", "sh", "-c", "echo token $RINGWAY_TOKEN; exit 7"]);
    let ran = ran.with(7);
    let token: u64 =
        ran.out.trim().strip_prefix("token ").and_then(|t| t.parse().ok()).expect("it");
    let mut client = server.client();
    let next = granted_at_last(&mut client, "job");
    assert!(next.token.0 > token);
    at(&["port", "register", "job", "--", "true"]).with(1).complains(&["job  held"]);
    client.release(&[b"job"]).expect("answers");
    at(&["port", "register", "job", "--", "no-such-command"]).with(3);

    granted_at_last(&mut client, "job");
    client.release(&[b"job"]).expect("answers");
    let words = ["port", "register", "job", "--", "sh", "-c", "echo runs; exec tail -f /dev/null"];
    let mut process = spawn_at(server.addr, &words);
    process.line_with("runs");
    let owner = held(&mut client, "job");
    client.kill(owner.session).expect("kills");
    assert_eq!(process.wait(), Some(1), "{}", process.err());
    assert!(process.err().contains("sending SIGTERM"), "{}", process.err());
    server.stop();
}

/// An operator takes names: the holder says which, holds the others, and ends with the last one. A
/// command is told to end with the first, and everything that it held is free.
#[test]
fn a_holder_learns_that_its_names_were_taken() {
    let server = Setup::new().shards(2).start();
    let revoke = |name: &str| drop(ringway_at(server.addr, &["port", "revoke", name]).with(0));
    let mut holder = spawn_at(server.addr, &["port", "register", "a", "b"]);
    holder.line_with("held until Ctrl-C");
    revoke("a");
    assert_eq!(holder.line(), "a  lost  an operator has taken it");
    let mut client = server.client();
    held(&mut client, "b");
    granted(&mut client, "a");
    revoke("b");
    assert_eq!(holder.wait(), Some(1), "{}", holder.err());
    assert!(holder.err().contains("b is lost: an operator has taken it"), "{}", holder.err());

    let script = "echo runs; exec tail -f /dev/null";
    let words = ["port", "register", "c", "d", "--", "sh", "-c", script];
    let mut holder = spawn_at(server.addr, &words);
    holder.line_with("runs");
    revoke("d");
    assert_eq!(holder.wait(), Some(1), "{}", holder.err());
    assert!(holder.err().contains("d is lost: an operator has taken it"), "{}", holder.err());
    granted_at_last(&mut client, "c");
    server.stop();
}

/// Nobody there: exit 4, and what to do. Wrong words: exit 2.
#[test]
fn exit_codes_say_who_must_act() {
    // Whatever listens for the other tests has another address and a larger port.
    let nobody = ([127, 0, 0, 77], 1).into();
    let absent = ringway_at(nobody, &["port", "query", "a"]).with(4);
    absent.complains(&["running there?", "ringway up"]);
    let told = ringway_at(nobody, &["port", "query", "a", "--json"]).with(4);
    let told: Value = serde_json::from_str(&told.err).expect("a complaint in JSON");
    assert_eq!(told["exit_code"], 4);
    ringway(&[]).with(2);
    ringway(&["fly"]).with(2);
    ringway(&["--server", "nonsense", "port", "query", "a"]).with(2).complains(&["host:port"]);
    ringway(&["session", "renew", "--as", "/nowhere/session.json"]).with(2);
    ringway(&["--version"]).with(0);
    ringway(&["--help"]).with(0);
    let server = Setup::new().start();
    let long = "x".repeat(256);
    ringway_at(server.addr, &["port", "query", &long]).with(2).complains(&["1 to 255"]);
    server.stop();
}

/// `ringway shards --json` says what is true: names and sessions where they are, slots that add up.
#[test]
fn shards_tell_the_truth() {
    let server = Setup::new().shards(2).start();
    let mut client = server.client();
    let names: Vec<String> = (0..300).map(|index| format!("n{index}")).collect();
    names.iter().for_each(|name| {
        granted(&mut client, name);
    });
    let shards = ringway_at(server.addr, &["shards", "--json"]).with(0).json();
    let shards = shards.as_array().expect("one for each shard");
    assert_eq!(shards.len(), 2);
    let sum = |key: &str| shards.iter().map(|s| s[key].as_u64().expect(key)).sum::<u64>();
    assert_eq!((sum("slots"), sum("names"), sum("sessions")), (16_384, 300, 1));
    assert!(sum("connections") >= 2 && sum("memory_bytes") > 0);
    assert!(shards.iter().all(|s| s["port"].as_u64().is_some_and(|port| port > 0)), "{shards:?}");
    assert!(shards.iter().all(|s| s["forwarded_share"].is_null()), "nobody asks: {shards:?}");
    let text = ringway_at(server.addr, &["shards"]).with(0).out;
    assert!(text.starts_with("shard") && text.lines().count() >= 3, "{text}");
    let mut watch = spawn_at(server.addr, &["shards", "--watch", "0.2", "--json"]);
    for _ in 0..2 {
        let line: Value = serde_json::from_str(&watch.line()).expect("a document a line");
        assert_eq!(line.as_array().map(Vec::len), Some(2));
    }
    watch.signal(Signal::INT);
    assert_eq!(watch.wait(), Some(0));
    server.stop();
}

/// `ringway doctor --json`: a list of findings, and a directory that is looked at but not touched.
#[test]
fn doctor_speaks_json() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let state = dir.path().join("state");
    let state = state.to_str().expect("text");
    let common = ["doctor", "--json", "--listen", "127.0.0.1:0", "--admin", "off", "--shards", "1"];
    let words = [&common[..], &["--state", state]].concat();
    let lines = ringway(&words).with(0).json();
    let lines = lines.as_array().expect("a list");
    for line in lines {
        assert!(line["what"].is_string() && line["found"].is_string(), "{line}");
        assert!(["ok", "warn"].map(Value::from).contains(&line["verdict"]), "{line}");
        let silent = line["verdict"] == "warn" && line["remedy"].is_null();
        assert!(!silent || line["what"] == "state directory", "a warning without advice: {line}");
    }
    let found = |lines: &[Value], what: &str| {
        let line = lines.iter().find(|line| line["what"] == what).expect(what);
        (line["verdict"].as_str().expect("a word").to_owned(), line["found"].to_string())
    };
    assert_eq!(found(lines, "io_uring").0, "ok");
    assert!(found(lines, "state directory").1.contains("not used yet"));
    assert!(!std::path::Path::new(state).exists());
    let broken = [&common[..7], &["1000", "--state", state]].concat();
    let broken = ringway(&broken).with(3).json();
    assert_eq!(found(broken.as_array().expect("a list"), "configuration").0, "fail");
    let text = ringway(&["doctor", "--state", state, "--listen", "127.0.0.1:0", "--admin", "off"]);
    assert!(text.with(0).out.contains("io_uring"));
}

/// Completions for every shell, and manual pages: made by the binary itself.
#[test]
fn completions_and_pages() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = ringway(&["completions", shell]).with(0).out;
        assert!(script.contains("ringway") && script.contains("register"), "{shell}");
    }
    ringway(&["completions", "tcsh"]).with(2);
    let page = ringway(&["man"]).with(0).out;
    assert!(page.contains(".TH") && page.contains("serve"), "{page}");
    let dir = tempfile::tempdir().expect("temporary directory");
    ringway(&["man", "--dir", dir.path().to_str().expect("text")]).with(0);
    assert!(dir.path().join("ringway-port-register.1").is_file());
}

/// What a load says of the server itself: its longest turn in each step of a fill, and while the
/// names of a dead session are swept.
#[test]
fn a_load_tells_the_longest_turns() {
    let server = Setup::new().shards(2).start();
    let at = |words: &[&str]| ringway_at(server.addr, &[words, &["--json"]].concat()).with(0);
    let common = ["--connections", "2", "--spin", "false"];
    let fill = at(&[&["load", "fill", "--names", "20k", "--churn-half"], &common[..]].concat());
    let fill = fill.json();
    let steps = fill["steps"].as_array().expect("steps");
    let turns: Vec<_> = steps.iter().map(|step| step["worst_turn_ms"].as_f64()).collect();
    assert!(turns.len() == 3 && turns.iter().all(|ms| ms.is_some_and(|ms| ms > 0.0)), "{fill}");

    let sweep = ["load", "sweep", "--doomed", "50k", "--names", "1k", "--rate", "2000"];
    let bounds = ["--warmup-s", "0", "--duration-s", "1", "--prefill", "--expect", "owned"];
    let swept = at(&[&sweep[..], &common, &bounds].concat()).json();
    let number = |what: &str| swept[what].as_f64().expect(what);
    assert!(number("free_ms") <= number("swept_ms") && number("worst_turn_ms") > 0.0, "{swept}");
    assert!(swept["calm"]["ops"].as_u64() > Some(0) && swept["during"].is_object(), "{swept}");
    let shards = at(&["shards"]).json();
    let sum = |key: &str| -> u64 {
        shards.as_array().expect("shards").iter().map(|s| s[key].as_u64().expect(key)).sum()
    };
    assert!(sum("swept_names") >= 50_000, "{shards}");
    let keys = ["load", "sweep", "--protocol", "keys"];
    ringway_at(server.addr, &keys).with(2).complains(&["native or port"]);
    server.stop();
}

/// Messages from names to names: all that were sent arrive, however they are sent, also when the
/// names live on several shards. A name that is another's ends the load before it begins.
#[test]
fn a_load_of_messages_loses_none() {
    let server = Setup::new().shards(2).start();
    let small = ["--senders", "3", "--receivers", "2", "--names", "50", "--spin", "false"];
    let short = ["--warmup-s", "0", "--duration-s", "60", "--messages", "20k", "--json"];
    let pid = server.pid().to_string();
    for how in [&[][..], &["--receipts"], &["--fenced"], &["--fenced", "--receipts"]] {
        let load = ["load", "messages", "--pid", &pid];
        let words = [&load[..], how, &small, &short].concat();
        let report = ringway_at(server.addr, &words).with(0).json();
        let number = |what: &str| report[what].as_u64().expect(what);
        assert!(number("sent") >= 20_000 && number("sent") == number("received"), "{report}");
        assert_eq!((number("messages"), number("dropped")), (number("received"), 0), "{report}");
        assert_eq!(report["refused"].as_object().expect("none").len(), 0, "{report}");
        assert!(report["server"]["ops_per_cpu_s"].as_f64() > Some(0.0), "{report}");
    }
    let mut other = server.client();
    granted(&mut other, "load/to/00000007");
    let taken = [&["load", "messages"], &small[..], &short].concat();
    ringway_at(server.addr, &taken).with(1).complains(&["HELD"]);
    server.stop();
}

/// Many watch, and one of them does not read: the others hear of every change, and what is told to
/// the one costs the server a part of its bytes only.
#[test]
fn a_load_of_watchers_and_one_that_does_not_read() {
    let server = Setup::new().shards(2).start();
    let small = ["--watchers", "40", "--changes", "3", "--rounds", "2", "--unread-mib", "4"];
    let pid = server.pid().to_string();
    let load = ["load", "watchers", "--spin", "false", "--pid", &pid, "--json"];
    let words = [&load[..], &small].concat();
    let report = ringway_at(server.addr, &words).with(0).json();
    for kind in ["calm", "stuck"] {
        assert_eq!(report[kind]["changes"], 6, "{report}");
        assert_eq!(report[kind]["all_ms"].as_array().expect("each").len(), 6, "{report}");
    }
    let number = |what: &str| report[what].as_u64().expect(what);
    assert!(number("unread_told_bytes") > 4 << 20, "{report}");
    // The budget of the watch, and the changes that two shards and the watch's own keep for it.
    assert!(number("unread_kept_bytes") < 1 << 20, "{report}");
    assert!(number("unread_left_bytes") < number("unread_told_bytes"), "{report}");
    server.stop();
}

/// The printed configuration is one that the server takes, and it says the same again.
#[test]
fn the_printed_configuration_reads_back() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("ringway.toml");
    let printed =
        |words: &[&str]| ringway(&[&["serve", "--print-config"], words].concat()).with(0).out;
    let state = dir.path().join("state").to_str().expect("text").to_owned();
    let flags = ["--shards", "1", "--max-memory", "64MiB", "--state", &state, "--admin", "off"];
    let first = printed(&[&flags[..], &["--listen", "127.0.0.1:0", "--pin", "false"]].concat());
    std::fs::write(&path, &first).expect("writes");
    let path = path.to_str().expect("text");
    assert_eq!(printed(&["--config", path]), first);
    assert!(!std::path::Path::new(&state).exists(), "printing starts nothing");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.args(["serve", "--config", path]);
    let server = Server::start(command);
    granted(&mut server.client(), "a");
    server.stop();
}

/// `ringway up` needs nothing, keeps nothing, prints a tour whose commands fit, and stops on
/// Ctrl-C. A part of the tour goes through a tunnel, which leads to this server and nowhere else.
#[test]
fn up_is_a_tour() {
    let words = ["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "1"];
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.args(words);
    let mut server = Server::start(command);
    let told = ringway_at(server.addr, &["port", "register", "leader", "--once"]).with(0);
    assert!(told.out.contains("leader  granted"), "{told:?}");

    let redis = server.says("PORT.QUERY");
    let port: u16 = word_after(&redis, "-p").parse().expect("a port");
    assert_eq!(exchange(("127.0.0.1", port), b"PING\r\n", b"+PONG\r\n".len()), b"+PONG\r\n");

    let curl = server.says("curl --socks5-hostname");
    let socks: std::net::SocketAddr =
        word_after(&curl, "--socks5-hostname").parse().expect("an address");
    let admin = server.word("admin").and_then(|admin| admin.strip_prefix("http://"));
    let admin: std::net::SocketAddr = admin.and_then(|at| at.parse().ok()).expect("an address");
    assert!(curl.ends_with(&format!("http://{admin}/metrics")), "{curl}");
    let page = through_socks(socks, admin, b"GET /healthz HTTP/1.0\r\n\r\n");
    assert!(page.contains("ready"), "{page}");
    // Nobody has said that this one may be reached.
    let denied = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    assert_eq!(through_socks(socks, denied, b""), "reply 2");

    let status = server.says("tunnel status --socket");
    let socket = word_after(&status, "--socket").to_owned();
    let told = ringway(&["--json", "tunnel", "status", "--socket", &socket]).with(0);
    assert_eq!(told.json()["peers"][0]["up"], json!(true));
    let before = server.log().len();
    server.signal(Signal::INT);
    assert!(server.ended().success());
    let said = &server.log()[before..];
    assert!(!said.contains("WARN"), "what was asked for is no reason to warn: {said}");
    assert!(!std::path::Path::new(&socket).parent().expect("a directory").exists());
}

fn word_after<'a>(line: &'a str, word: &str) -> &'a str {
    line.split_whitespace().skip_while(|one| *one != word).nth(1).expect("a word behind it")
}

/// Says something and reads so many bytes of the answer.
fn exchange(to: impl std::net::ToSocketAddrs, said: &[u8], many: usize) -> Vec<u8> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(to).expect("connects");
    stream.write_all(said).expect("writes");
    let mut heard = vec![0; many];
    stream.read_exact(&mut heard).expect("an answer");
    heard
}

/// What a server behind SOCKS5 says, or the code of the reply if it is not reached.
fn through_socks(socks: std::net::SocketAddr, to: std::net::SocketAddr, said: &[u8]) -> String {
    use std::io::{Read, Write};
    let std::net::SocketAddr::V4(to) = to else { panic!("these stories are told in IPv4") };
    let mut stream = std::net::TcpStream::connect(socks).expect("connects");
    let [high, low] = to.port().to_be_bytes();
    let [a, b, c, d] = to.ip().octets();
    stream.write_all(&[5, 1, 0, 5, 1, 0, 1, a, b, c, d, high, low]).expect("writes");
    let mut replies = [0; 12];
    stream.read_exact(&mut replies).expect("two replies");
    if replies[3] != 0 {
        return format!("reply {}", replies[3]);
    }
    stream.write_all(said).expect("writes");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

/// The admin endpoint: health, the shards as JSON, metrics; gone with the server.
#[test]
fn the_admin_endpoint_answers() {
    let server = Setup::new().shards(2).flag("--admin", "127.0.0.1:0").start();
    let mut client = server.client();
    granted(&mut client, "a");
    let admin = server.word("admin").expect("an address").to_owned();
    let admin = admin.strip_prefix("http://").expect("http").to_owned();
    let get = |path: &str| -> (String, String) {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&admin).expect("connects");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("writes");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
    };
    let (status, body) = get("/healthz");
    assert!(status.contains(" 200 ") && body.contains("ready"), "{status} {body}");
    let shards: Value = serde_json::from_str(&get("/shards").1).expect("JSON");
    assert!(shards.to_string().contains("\"names\":1"), "{shards}");
    let metrics = get("/metrics").1;
    assert!(metrics.contains("# TYPE") && metrics.contains("# EOF"), "{metrics}");
    assert!(get("/nothing").0.contains(" 404 "));
    server.stop();
    assert!(std::net::TcpStream::connect(&admin).is_err(), "gone with the server");
}
