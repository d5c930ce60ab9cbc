//! `ringway port exec`: the lock of shell scripts. What matters is that no two commands ever run at
//! once, that a command stops when its name is lost, and that a script can tell why.

use std::path::Path;
use std::time::{Duration, Instant};

use ringway_client::Client;
use rustix::process::Signal;

use crate::support::{
    Proxy, Server, Setup, granted, granted_at_last, held, ringway_at, spawn_at, until,
    until_waiting,
};

/// Three scripts in a race for one name, many rounds each: what they note in one file shows that
/// none began before the one before it had ended, and that tokens only grow.
#[test]
fn commands_never_overlap() {
    const ROUNDS: usize = 15;
    let server = Setup::new().shards(2).start();
    let dir = tempfile::tempdir().expect("temporary directory");
    let notes = dir.path().join("notes").to_str().expect("text").to_owned();
    let script = "echo begin $RINGWAY_TOKEN >> $1; echo end $RINGWAY_TOKEN >> $1";
    let (addr, words) = (server.addr, ["sh", "-c", script, "sh", &notes]);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    ringway_at(addr, &[&["port", "exec", "lock", "--"], &words[..]].concat())
                        .with(0);
                }
            });
        }
    });
    let notes = std::fs::read_to_string(&notes).expect("notes");
    let lines: Vec<&str> = notes.lines().collect();
    assert_eq!(lines.len(), 3 * ROUNDS * 2);
    let mut last = 0;
    for pair in lines.chunks(2) {
        let begun = pair[0].strip_prefix("begin ").expect("begins when the other has ended");
        assert_eq!(pair[1].strip_prefix("end "), Some(begun), "{notes}");
        let token: u64 = begun.parse().expect("a token");
        assert!(token > last, "{token} after {last}");
        last = token;
    }
    server.stop();
}

/// A command that says which session it runs in, and stops when it is told to.
const OBEYS: &str = "trap 'echo told; exit 0' TERM; echo session $RINGWAY_SESSION name \
                     $RINGWAY_NAME; while :; do sleep 0.02; done";

/// Its session is ended by an operator, or its name is taken: the command is told, and the exit
/// code says that the name was lost, whatever the command made of it.
#[test]
fn a_command_is_stopped_when_its_name_is_lost() {
    let server = Setup::new().shards(2).start();
    for by_kill in [true, false] {
        let words = ["port", "exec", "job/1", "--signal", "term", "--", "sh", "-c", OBEYS];
        let mut exec = spawn_at(server.addr, &words);
        let line = exec.line_with("session ");
        let session = line.split(' ').nth(1).expect("a session").to_owned();
        assert!(line.ends_with("name job/1"), "{line}");
        if by_kill {
            ringway_at(server.addr, &["session", "kill", &session]).with(0);
        } else {
            ringway_at(server.addr, &["port", "revoke", "job/1"]).with(0);
        }
        exec.line_with("told");
        assert_eq!(exec.wait(), Some(123), "{}", exec.err());
        assert!(exec.err().contains("job/1 is lost"), "{}", exec.err());
        granted_at_last(&mut server.client(), "job/1");
    }
    server.stop();
}

/// Who does not listen is killed when the grace is over, and with it everything of its group.
#[test]
fn a_command_that_does_not_listen_is_killed() {
    let server = Setup::new().start();
    let script = "trap '' TERM; sleep 600 & echo pids $$ $!; wait; sleep 600";
    let words = ["port", "exec", "job", "--grace-ms", "300", "--json", "--", "sh", "-c", script];
    let mut exec = spawn_at(server.addr, &words);
    let line = exec.line_with("pids ");
    let owner = held(&mut server.client(), "job");
    server.client().kill(owner.session).expect("kills");
    assert_eq!(exec.wait(), Some(123), "{}", exec.err());
    assert!(exec.err().contains("\"exit_code\":123"), "{}", exec.err());
    line.split(' ').skip(1).for_each(until_gone);
    server.stop();
}

/// No renewal comes through: the command is dead before the lease is over by anybody's clock.
#[test]
fn a_command_is_dead_before_its_lease_is_over() {
    const LEASE: Duration = Duration::from_secs(6);
    let server = Setup::new().start();
    let limits = ["--lease-ms", "6000", "--grace-ms", "1500"];
    let words = [&["port", "exec", "job"], &limits[..], &["--", "sh", "-c", OBEYS]].concat();
    let mut exec = spawn_at(server.addr, &words);
    exec.line_with("session ");
    server.pause();
    let paused = Instant::now();
    assert_eq!(exec.wait(), Some(123), "{}", exec.err());
    // The last renewal was confirmed before the pause.
    assert!(paused.elapsed() < LEASE, "{:?}", paused.elapsed());
    assert!(exec.err().contains("at risk"), "{}", exec.err());
    assert!(exec.err().contains("could not be renewed"), "{}", exec.err());
    server.signal(Signal::CONT);
    granted_at_last(&mut server.client(), "job");
    server.stop();
}

/// The connection breaks, several times: the session is resumed, and the command never knows.
#[test]
fn a_command_survives_that_the_connection_breaks() {
    let server = Setup::new().shards(2).start();
    let proxy = Proxy::start(server.addr);
    let dir = tempfile::tempdir().expect("temporary directory");
    let enough = dir.path().join("enough");
    let script = "echo runs; until [ -e $1 ]; do sleep 0.02; done; exit 5";
    let path = enough.to_str().expect("text");
    let words = ["port", "exec", "job", "--", "sh", "-c", script, "sh", path];
    let mut exec = spawn_at(proxy.addr, &words);
    exec.line_with("runs");
    let mut client = server.client();
    let before = held(&mut client, "job");
    for _ in 0..3 {
        let made = proxy.made();
        proxy.cut();
        until("it connects again", || (proxy.made() > made).then_some(()));
        until("its session is resumed", || {
            (!client.session(before.session).expect("it lives").away).then_some(())
        });
    }
    assert_eq!(held(&mut client, "job"), before);
    std::fs::write(&enough, "").expect("writes");
    assert_eq!(exec.wait(), Some(5), "{}", exec.err());
    granted_at_last(&mut client, "job");
    server.stop();
}

/// Whoever kills the holder kills the command: it must not go on without one.
#[test]
fn a_command_dies_with_its_holder() {
    let server = Setup::new().start();
    let words = ["port", "exec", "job", "--", "sh", "-c", "echo pid $$; exec sleep 600"];
    let mut exec = spawn_at(server.addr, &words);
    let line = exec.line_with("pid ");
    exec.signal(Signal::KILL);
    assert_eq!(exec.wait(), None);
    line.split(' ').skip(1).for_each(until_gone);
    server.stop();
}

/// Codes of the command, codes of ours, and of signals that are passed on.
#[test]
fn exit_codes_say_what_happened() {
    let server = Setup::new().start();
    let at = |words: &[&str]| ringway_at(server.addr, &[&["port", "exec"], words].concat());
    at(&["job", "--", "sh", "-c", "exit 7"]).with(7);
    at(&["job", "--", "no-such-command"]).with(127).complains(&[
        "no-such-command",
        "no such program",
        "PATH",
    ]);
    at(&["job", "--", "/"]).with(126).complains(&["cannot run /"]);
    at(&["job", "--", "sh", "-c", "kill -9 $$"]).with(137);
    at(&["job", "--lease-ms", "900", "--grace-ms", "301", "--", "true"]).with(2);
    at(&["job", "--lease-ms", "900000", "--", "true"]).with(125).complains(&["LEASE"]);
    let nobody = ([127, 0, 0, 77], 1).into();
    ringway_at(nobody, &["port", "exec", "job", "--", "true"]).with(125);

    let mut client = server.client();
    granted_at_last(&mut client, "job");
    let never = Path::new("/nonexistent/never");
    let late = at(&["job", "--timeout", "50", "--json", "--", "touch", never.to_str().expect("t")]);
    let late = late.with(124).complains(&["not free within 50 ms", "\"exit_code\":124"]);
    assert_eq!(late.out, "");
    at(&["job", "--timeout", "0", "--", "false"]).with(124);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut waiting = spawn_at(server.addr, &["port", "exec", "job", "--", "false"]);
        until_waiting(&mut client, "job", 1);
        waiting.signal(signal);
        assert_eq!(waiting.wait(), Some(code), "{}", waiting.err());
        until_waiting(&mut client, "job", 0);
    }
    client.release(&[b"job"]).expect("answers");
    signals_are_passed_on(&server, &mut client);
    server.stop();
}

fn signals_are_passed_on(server: &Server, client: &mut Client) {
    let script =
        "trap 'echo usr1' USR1; trap 'exit 9' INT; echo runs; while :; do sleep 0.02; done";
    let mut exec = spawn_at(server.addr, &["port", "exec", "job", "--", "sh", "-c", script]);
    exec.line_with("runs");
    exec.signal(Signal::USR1);
    exec.line_with("usr1");
    exec.signal(Signal::INT);
    assert_eq!(exec.wait(), Some(9), "{}", exec.err());
    // It was given back before the end.
    granted(client, "job");
    client.release(&[b"job"]).expect("answers");
}

/// Three permits let three commands run, and the fourth waits.
#[test]
fn permits_are_counted() {
    let server = Setup::new().shards(2).start();
    let words = ["port", "exec", "seats", "--permits", "3", "--", "sh", "-c", OBEYS];
    let mut three: Vec<_> = (0..3).map(|_| spawn_at(server.addr, &words)).collect();
    three.iter().for_each(|exec| drop(exec.line_with("session ")));
    let one = ["port", "exec", "seats", "--permits", "3", "--timeout", "50", "--", "true"];
    ringway_at(server.addr, &one).with(124);
    let other = ["port", "exec", "seats", "--permits", "4", "--timeout", "50", "--", "true"];
    // Who counts otherwise waits until the name is free.
    ringway_at(server.addr, &other).with(124);
    three[0].signal(Signal::TERM);
    assert_eq!(three[0].wait(), Some(0), "{}", three[0].err());
    ringway_at(server.addr, &one).with(0);
    drop(three);
    server.stop();
}

/// A process that has ended, even if nobody has asked for its exit code.
#[track_caller]
fn until_gone(pid: &str) {
    until("the process has ended", || {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            return Some(());
        };
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')).then_some(())
    });
}
