//! Stories of Redis clients that watch names: the bytes that they get as pushes of RESP3, on names
//! of their own shard and of others.

use ringway_coord_proto::Access;
use ringway_core::Span;
use ringway_sim::process::Process;
use ringway_sim::redis::Redis;
use ringway_sim::stories::{Users, grant, guarded, start};

const SHARDS: [usize; 2] = [1, 3];

/// Connects and speaks RESP3.
fn connect(process: &mut Process<impl Access>, shard: usize) -> Redis {
    let mut client = Redis::connect(process, shard);
    client.says(process, "HELLO 3");
    client
}

/// A push of strings, and of what stands behind them.
fn push(words: &[&str], rest: &[&str]) -> String {
    let strings = words.iter().map(|word| format!("${}|{word}|", word.len()));
    let rest = rest.iter().map(|reply| format!("{reply}|"));
    let count = strings.len() + rest.len();
    format!(">{count}|{}", strings.chain(rest).collect::<String>())
}

fn watches(process: &Process<impl Access>) -> usize {
    (0..process.shards()).map(|shard| process.shard(shard).watches()).sum()
}

/// Who has a name, that it is handed over, how many wait, what is said of it, that it is free: each
/// is a push, in order, while the connection goes on with its commands.
#[test]
fn a_watcher_hears_what_happens() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut watcher = connect(&mut process, 0);
        let mut a = connect(&mut process, shards - 1);
        let mut b = connect(&mut process, 0);
        assert_eq!(watcher.says(&mut process, "PORT.WATCH x\nPING"), "+OK|+PONG|");
        let (of_a, first) = grant(&a.says(&mut process, "PORT.REGISTER x"));
        let acquired = push(&["acquired", "x", &of_a, &first], &["#f"]);
        assert_eq!(watcher.says(&mut process, "PING"), format!("{acquired}+PONG|"));
        b.sends(&mut process, "PORT.WAIT x 0");
        process.settle();
        let waiting = push(&["waiting", "x", &of_a, &first], &["#f", ":1"]);
        assert_eq!(watcher.hears(&mut process), waiting, "{shards} shards");
        a.says(&mut process, "PORT.META x SET blue");
        let changed = push(&["changed", "x", &of_a, &first], &["#f", ":1"]);
        assert_eq!(watcher.hears(&mut process), changed);
        a.says(&mut process, "PORT.RELEASE x");
        let (of_b, second) = grant(&b.hears(&mut process));
        let acquired = push(&["acquired", "x", &of_b, &second], &["#f"]);
        let waiting = push(&["waiting", "x", &of_b, &second], &["#f", ":0"]);
        let heard = watcher.hears(&mut process);
        assert!(heard == [&*waiting, &acquired].concat() || heard == [acquired, waiting].concat());
        process.disconnect(b.link);
        process.settle();
        let released = push(&["released", "x", &of_b, &second], &["#f", "#f"]);
        assert_eq!(watcher.hears(&mut process), released);
    }
}

/// A shared name that one holder leaves is not free, which the push says.
#[test]
fn who_leaves_a_shared_name_does_not_free_it() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut watcher = connect(&mut process, 0);
        let mut a = connect(&mut process, shards - 1);
        let mut b = connect(&mut process, 0);
        let (of_a, of_first) = grant(&a.says(&mut process, "PORT.REGISTER x MODE SHARED"));
        let (of_b, of_second) = grant(&b.says(&mut process, "PORT.REGISTER x MODE SHARED"));
        watcher.says(&mut process, "PORT.WATCH x KINDS released changed");
        a.says(&mut process, "PORT.RELEASE x");
        let left = push(&["released", "x", &of_a, &of_first], &["#f", "#t"]);
        assert_eq!(watcher.hears(&mut process), left, "{shards} shards");
        b.says(&mut process, "PORT.RELEASE x");
        let free = push(&["released", "x", &of_b, &of_second], &["#f", "#f"]);
        assert_eq!(watcher.hears(&mut process), free);
        a.says(&mut process, "PORT.REGISTER x");
        assert_eq!(watcher.hears(&mut process), "", "it did not ask for that kind");
    }
}

/// A snapshot says what there is, then that it was all, with the filter that it was of; a name that
/// nobody has is none.
#[test]
fn a_snapshot_says_what_there_is() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut watcher = connect(&mut process, 0);
        let mut a = connect(&mut process, shards - 1);
        let mut expected = Vec::new();
        for name in ["svc/a", "svc/b", "svc/c", "other"] {
            let (session, token) = grant(&a.says(&mut process, &format!("PORT.REGISTER {name}")));
            expected.push(push(&["state", name, &session, &token], &[]));
        }
        let heard = watcher.says(&mut process, "PORT.WATCH svc/ SNAPSHOT");
        let rest = heard.strip_prefix("+OK|").expect("the answer first");
        let rest = rest.strip_suffix(&*push(&["snapshot-end", "svc/"], &[])).expect("the end");
        assert_eq!(rest.len(), expected[..3].concat().len(), "{shards} shards: {rest}");
        assert!(expected[..3].iter().all(|state| rest.contains(state)), "{rest}");
        let heard = watcher.says(&mut process, "PORT.WATCH other none snapshot kinds waiting");
        let rest = heard.strip_prefix("*2|+OK|+OK|").expect("an answer for each filter");
        let of_other = format!("{}{}", expected[3], push(&["snapshot-end", "other"], &[]));
        let of_none = push(&["snapshot-end", "none"], &[]);
        assert!(rest.contains(&of_other) && rest.contains(&of_none), "{rest}");
        assert_eq!(rest.len(), of_other.len() + of_none.len());
    }
}

/// Each filter is watched once by a connection, and has its own outcome; what is not watched is not
/// ended, and nothing is heard of what was.
#[test]
fn watches_end() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut watcher = connect(&mut process, 0);
        let mut other = connect(&mut process, 0);
        let mut a = connect(&mut process, shards - 1);
        other.says(&mut process, "PORT.WATCH z b");
        let twice = "-EXISTS this connection watches it already: PORT.UNWATCH it first|";
        let heard = watcher.says(&mut process, "PORT.WATCH a b/ a");
        assert_eq!(heard, format!("*3|+OK|+OK|{twice}"), "{shards} shards");
        assert_eq!(
            watcher.says(&mut process, "PORT.WATCH NAMES 1 kinds\nPORT.WATCH a"),
            format!("+OK|{twice}")
        );
        assert_eq!(watcher.says(&mut process, "PORT.UNWATCH b/ b z b/"), ":1|");
        a.says(&mut process, "PORT.REGISTER b/1");
        assert_eq!(watcher.hears(&mut process), "");
        assert_eq!(watcher.says(&mut process, "PORT.WATCH b/"), "+OK|", "it may watch again");
        assert_eq!(watcher.says(&mut process, "PORT.UNWATCH\nPORT.UNWATCH"), ":3|:0|");
        assert_eq!(watches(&process), 2, "those of the other connection");
        a.says(&mut process, "PORT.REGISTER a b/2 kinds z");
        assert_eq!(watcher.hears(&mut process), "");
        assert!(other.hears(&mut process).contains("|acquired|$1|z|"));
        process.disconnect(other.link);
        process.settle();
        assert_eq!(watches(&process), 0);
    }
}

/// RESP2 has no pushes, and its clients are told what to do. Who goes back to it hears no more.
#[test]
fn resp2_cannot_watch() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, 0);
        let error = "-UNSUPPORTED changes are told as pushes of RESP3: HELLO 3|";
        assert_eq!(a.says(&mut process, "PORT.WATCH x\nPORT.UNWATCH"), [error, error].concat());
        for back in ["HELLO 2", "RESET"] {
            let heard = a.says(&mut process, "HELLO 3\nPORT.WATCH x y/");
            assert!(heard.ends_with("*2|+OK|+OK|"), "in one go: {heard}");
            assert_eq!(watches(&process), 2);
            a.says(&mut process, back);
            assert_eq!(watches(&process), 0, "{back}");
            assert_eq!(a.says(&mut process, "DEL x\nPORT.WATCH x"), format!(":0|{error}"));
        }
        // A command that was sent ahead of the change is answered ahead of it.
        let heard = a.says(&mut process, "HELLO 3\nPORT.WATCH x SNAPSHOT\nHELLO 2\nPORT.WATCH x");
        assert!(heard.contains("+OK|") && heard.ends_with(error), "{heard}");
        assert_eq!(watches(&process), 0);
        process.run_for(Span::from_s(200));
        assert_eq!(process.strays(), 0);
    }
}

/// Who does not read hears a gap instead of what was lost meanwhile, with the filter, then a new
/// snapshot; who reads again in time hears the newest only, and that something was skipped.
#[test]
fn a_slow_reader_hears_the_newest() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut watcher = connect(&mut process, 0);
        let mut a = connect(&mut process, shards - 1);
        watcher.says(&mut process, "PORT.WATCH x\nPORT.WATCH n/ SNAPSHOT");
        process.set_backlog(watcher.link, 1 << 20);
        a.says(&mut process, "PORT.REGISTER x\nPORT.RELEASE x");
        let (session, token) = grant(&a.says(&mut process, "PORT.REGISTER x"));
        process.set_backlog(watcher.link, 0);
        process.settle();
        let newest = push(&["acquired", "x", &session, &token], &["#t"]);
        assert_eq!(watcher.hears(&mut process), newest, "{shards} shards");
        process.set_backlog(watcher.link, 1 << 20);
        for round in 0..8 {
            let long = "n".repeat(200);
            let names: Vec<String> = (0..400).map(|i| format!("n/{long}{round}/{i}")).collect();
            a.says(&mut process, &format!("PORT.REGISTER {}", names.join(" ")));
        }
        process.set_backlog(watcher.link, 0);
        process.settle();
        let mut heard = watcher.hears(&mut process);
        while !heard.contains("snapshot-end") {
            let more = watcher.says(&mut process, "PING");
            assert_ne!(more, "+PONG|", "the rest of the snapshot");
            heard.push_str(&more);
        }
        let gap = push(&["gap", "n/"], &[]);
        assert!(heard.starts_with(&gap), "{}", &heard[..200.min(heard.len())]);
        let states = heard.matches(">4|$5|state|").count();
        assert_eq!(states, 3200, "{shards} shards");
    }
}

/// Two users, of which one sees a namespace only.
fn users(namespace: &str) -> Users {
    Users::new(&[("0", None, false), ("1", Some(namespace), false)])
}

/// Who is bound to namespaces watches and sends within them; to all it sends nothing. What a change
/// of credentials takes away ends with a gap.
#[test]
fn namespaces_bound_watches_and_messages() {
    for shards in SHARDS {
        let mut process = guarded(shards, || users("mine"));
        let mut user = Redis::connect(&mut process, 0);
        let mut all = Redis::connect(&mut process, shards - 1);
        let no = "-NOAUTH authentication required: AUTH user password|";
        assert_eq!(user.says(&mut process, "PORT.SEND mine/1 hi"), no);
        assert_eq!(user.says(&mut process, "PORT.WATCH mine/"), no);
        user.says(&mut process, "HELLO 3 AUTH 1 p");
        all.says(&mut process, "HELLO 3 AUTH 0 p");
        let denied = "-DENIED these credentials do not cover it|";
        let heard = user.says(&mut process, "PORT.WATCH mine/ yours/ mines/");
        assert_eq!(heard, format!("*3|+OK|{denied}{denied}"), "{shards} shards");
        assert_eq!(user.says(&mut process, "PORT.BROADCAST hi"), denied);
        assert_eq!(user.says(&mut process, "PORT.SEND yours/1 hi"), denied);
        let (session, _) = grant(&all.says(&mut process, "PORT.REGISTER yours/1"));
        let none = "-NOSESSION no such session, or it has ended: open a new one|";
        assert_eq!(user.says(&mut process, &format!("PORT.SENDTO {session} hi")), none);
        process.replace_access(|| users("none"));
        process.settle();
        assert_eq!(user.hears(&mut process), push(&["gap", "mine/"], &[]));
        assert_eq!(watches(&process), 0);
    }
}
