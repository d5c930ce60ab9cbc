//! The examples, run as their users run them: processes of their own, against a real server.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

#[path = "session/server.rs"]
#[expect(dead_code, reason = "these processes have whole wires")]
mod server;

/// How long a test waits for a line.
const PATIENCE: Duration = Duration::from_secs(60);

/// An example that runs, and is killed if it does not end before its test does.
struct Example {
    child: Child,
    says: Receiver<String>,
}

impl Example {
    fn start(name: &str, words: &[&str]) -> Example {
        let mut child = Command::new(path(name))
            .arg(server::addr().to_string())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it has an output")).lines();
        let (sender, says) = channel();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line).ok())
        });
        Example { child, says }
    }

    /// What comes behind these words in the next line that has them.
    #[track_caller]
    fn hear(&self, words: &str) -> String {
        loop {
            let line = self.says.recv_timeout(PATIENCE).expect(words);
            if let Some((_, rest)) = line.split_once(words) {
                return rest.to_owned();
            }
        }
    }

    /// It ends, and is content; what it has said until then.
    #[track_caller]
    fn ends_well(mut self) -> Vec<String> {
        let rest: Vec<String> = self.says.iter().collect();
        assert!(self.child.wait().expect("it ends").success(), "{rest:?}");
        rest
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cargo builds examples beside the folder of its tests.
fn path(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("a test has a path");
    path.pop();
    path.pop();
    path.extend(["examples", name]);
    let hint = "`cargo build -p ringway-client --examples` builds it";
    assert!(path.exists(), "{} is missing: {hint}", path.display());
    path
}

/// Three stand for election. The one that leads is killed: another one leads, under a larger token,
/// until nobody is left.
#[test]
fn a_leader_is_followed_by_another() {
    let start = |node| Example::start("leader", &[node]);
    let mut nodes: Vec<Example> = ["301", "302", "303"].into_iter().map(start).collect();
    let mut last = 0;
    while !nodes.is_empty() {
        let mut leads = None;
        server::until("one of them leads", || {
            leads = nodes.iter().enumerate().find_map(|(place, node)| {
                let line = node.says.try_recv().ok()?;
                let (_, token) = line.split_once("leads under token ")?;
                Some((place, token.parse::<u64>().expect("a number")))
            });
            leads.is_some()
        });
        let (place, token) = leads.expect("somebody leads");
        assert!(last < token, "{token} after {last}");
        last = token;
        drop(nodes.swap_remove(place));
    }
}

/// Four processes count in one file, in turn. One of them is stopped while it is in, for longer
/// than its lease: the others go on, what it writes when it goes on itself is refused, and nothing
/// that was counted is lost.
#[test]
fn a_late_writer_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("counter");
    let file = file.to_str().expect("a plain path");
    let slow = Example::start("lock", &["311", file, "2", "200"]);
    slow.hear("is in under token");
    slow.signal(Signal::STOP);
    let others = ["312", "313", "314"].map(|node| Example::start("lock", &[node, file, "20"]));
    others.into_iter().for_each(|other| drop(other.ends_well()));
    slow.signal(Signal::CONT);
    slow.hear("was refused with token");
    slow.ends_well();
    let content = std::fs::read_to_string(file).expect("written");
    assert_eq!(content.split_once(' ').map(|(_, number)| number), Some("62"));
}

/// A client sees instances come, one leave, and one die.
#[test]
fn instances_are_found_while_they_live() {
    let client = Example::start("discovery", &["find", "mail"]);
    assert_eq!(client.hear("mail:"), " ", "nobody is there");
    let serve = |node, place| Example::start("discovery", &["serve", "mail", node, place]);
    let first = serve("321", "10.0.0.1:25");
    while client.hear("mail:") != " 10.0.0.1:25" {}
    let second = serve("322", "10.0.0.2:25");
    while client.hear("mail:") != " 10.0.0.1:25 10.0.0.2:25" {}
    second.signal(Signal::KILL);
    while client.hear("mail:") != " 10.0.0.1:25" {}
    let mut first = first;
    drop(first.child.stdin.take());
    first.ends_well();
    while client.hear("mail:") != " " {}
}

/// Ten processes own all users, one is killed, the others take over, 5000 users are moved; the
/// example checks itself that each user has one owner, who knows it.
#[test]
fn each_user_has_one_owner() {
    let owners = Example::start("owners", &["1000000", "10"]);
    let said = owners.ends_well();
    said.iter().for_each(|line| println!("{line}"));
    assert!(said[2].starts_with("5000 users were moved"), "{said:?}");
    assert!(said[3].starts_with("every user has one owner, who knows it"), "{said:?}");
}
