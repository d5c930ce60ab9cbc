//! Stories of Redis clients that wait for names, share them, hand them over, and say something
//! about them: the bytes they send and get, on names of their own shard and of others.

use ringway_coord_proto::SlotMap;
use ringway_coord_proto::wire::op;
use ringway_core::wire::Put;
use ringway_core::{SessionId, Slot, Span};
use ringway_sim::native::{Native, with_secret};
use ringway_sim::process::Process;
use ringway_sim::redis::Redis;
use ringway_sim::stories::{self, Users, guarded, start};

const SHARDS: [usize; 3] = [1, 2, 5];
/// Names that lie on every shard of five.
const NAMES: [&str; 8] =
    ["job", "svc/a", "svc/b", "n1", "n2", "n3", "n4", "a-name-of-24-characters"];

/// The value behind a field of a map.
fn field(reply: &str, name: &str) -> String {
    reply.split('|').skip_while(|part| *part != name).nth(2).expect("a value").to_owned()
}

/// Session and token of `[1, session, token]`.
fn grant(reply: &str) -> (String, u64) {
    let (session, token) = stories::grant(reply);
    (session, token.parse().expect("a token"))
}

fn is_nothing_left(process: &Process) {
    for shard in 0..process.shards() {
        assert_eq!(process.shard(shard).residue(), Default::default(), "shard {shard}");
    }
}

/// Ops that a shard believes to be on their way, and units that wait, of all shards.
fn under_way(process: &Process) -> (usize, usize) {
    let residues = (0..process.shards()).map(|shard| process.shard(shard).residue());
    residues.fold((0, 0), |sum, of| (sum.0 + of.in_flight, sum.1 + of.pendings))
}

/// Who waits hears nothing, and what it sent behind is not executed, until the name is given back:
/// then it has it, under a larger token, and the rest follows in order.
#[test]
fn a_wait_blocks_its_connection_until_the_grant() {
    for shards in SHARDS {
        for name in NAMES {
            let mut process = start(shards);
            let mut a = Redis::connect(&mut process, 0);
            let mut b = Redis::connect(&mut process, shards - 1);
            let mut c = Redis::connect(&mut process, shards - 1);
            let (_, first) = grant(&a.says(&mut process, &format!("PORT.WAIT {name} 1000")));
            b.sends(&mut process, &format!("PORT.WAIT {name} 0\nPING\nPORT.QUERY {name}"));
            process.run_for(Span::from_ms(60_000));
            assert_eq!(b.hears(&mut process), "", "{shards} shards");
            assert_eq!(under_way(&process), (0, 1), "a wait is not on its way to anywhere");
            let info = c.says(&mut process, "INFO clients");
            assert!(info.contains("blocked_clients:1|"), "{info}");
            assert_eq!(a.says(&mut process, &format!("PORT.RELEASE {name}")), ":1|");
            let heard = b.hears(&mut process);
            let (granted, rest) = heard.split_once("+PONG|").expect("the rest follows");
            let (session, token) = grant(granted);
            assert!(token > first, "{token} > {first}");
            let owner = format!("{session}:{token}");
            assert_eq!(rest, format!("${}|{owner}|", owner.len()));
            let again = b.says(&mut process, &format!("PORT.WAIT {name} 0"));
            assert_eq!(grant(&again), (session, token), "it has the name already");
            [a, b, c].iter().for_each(|client| process.disconnect(client.link));
            process.settle();
            is_nothing_left(&process);
        }
    }
}

/// A wait has an end: nil, not before its time and not much later, and nobody waits behind it.
#[test]
fn a_wait_ends_with_its_time() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, 0);
        let mut b = Redis::connect(&mut process, shards - 1);
        for name in NAMES {
            a.says(&mut process, &format!("PORT.REGISTER {name}"));
            b.sends(&mut process, &format!("PORT.WAIT {name} 300\nECHO behind"));
            process.run_for(Span::from_ms(299));
            assert_eq!(b.hears(&mut process), "");
            process.run_for(Span::from_ms(5));
            assert_eq!(b.hears(&mut process), "*-1|$6|behind|".replace("*-1", "$-1"));
            assert_eq!(a.says(&mut process, &format!("PORT.RELEASE {name}")), ":1|");
            assert_eq!(b.says(&mut process, &format!("PORT.QUERY {name}")), "$-1|");
        }
        assert_eq!(under_way(&process), (0, 0), "{shards} shards");
    }
}

/// First come, first served, whatever connection and shard they wait on; one who waits for several
/// names one after the other gets each in its turn.
#[test]
fn waiters_are_served_in_order() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, 0);
        a.says(&mut process, "PORT.REGISTER job other");
        let mut waiters: Vec<Redis> =
            (0..6).map(|at| Redis::connect(&mut process, at % shards)).collect();
        for waiter in &mut waiters {
            waiter.sends(&mut process, "PORT.WAIT job 0\nPORT.WAIT other 0\nPING");
            process.settle();
        }
        a.says(&mut process, "PORT.RELEASE job");
        let mut before = 0;
        for at in 0..waiters.len() {
            let (_, token) = grant(&waiters[at].hears(&mut process));
            assert!(token > before);
            before = token;
            for later in &mut waiters[at + 1..] {
                assert_eq!(later.hears(&mut process), "");
            }
            process.disconnect(waiters[at].link);
            process.settle();
        }
        assert_eq!(under_way(&process), (0, 0));
        assert!(a.says(&mut process, "PORT.QUERY other job").ends_with("|$-1|"));
    }
}

/// A client that goes while it waits is not given the name: neither its bare session, which ends
/// with it, nor one that lives on and would not know that it owns it. Whoever is behind gets it.
#[test]
fn who_goes_waits_no_longer() {
    for (shards, opened) in SHARDS.into_iter().flat_map(|shards| [(shards, false), (shards, true)])
    {
        for name in NAMES {
            let mut process = start(shards);
            let mut a = Redis::connect(&mut process, 0);
            let mut b = Redis::connect(&mut process, shards - 1);
            let mut c = Redis::connect(&mut process, shards / 2);
            a.says(&mut process, &format!("PORT.REGISTER {name}"));
            if opened {
                b.says(&mut process, "SESSION.OPEN 7 LEASE 30000");
            }
            b.sends(&mut process, &format!("PORT.WAIT {name} 0\nPORT.REGISTER never"));
            process.settle();
            c.sends(&mut process, &format!("PORT.WAIT {name} 0"));
            process.settle();
            assert_eq!(under_way(&process), (0, 2));
            process.disconnect(b.link);
            process.settle();
            assert_eq!(under_way(&process), (0, 1), "{shards} shards, {name}");
            a.says(&mut process, &format!("PORT.RELEASE {name}"));
            grant(&c.hears(&mut process));
            assert_eq!(a.says(&mut process, "PORT.QUERY never"), "$-1|");
            if opened {
                let node = a.says(&mut process, "SESSION.NODE 7");
                assert!(node.contains("names|:0|"), "{node}");
                a.says(&mut process, &format!("SESSION.KILL {}", field(&node, "session")));
            }
            [a, c].iter().for_each(|client| process.disconnect(client.link));
            process.settle();
            is_nothing_left(&process);
        }
    }
}

/// A client goes in the moment in which its wait is on the way to the name's shard, or in which
/// the name is given back: nothing is left of it, and the name is free.
#[test]
fn who_goes_in_the_middle_leaves_nothing() {
    for (shards, turns) in SHARDS.into_iter().flat_map(|shards| (0..12).map(move |n| (shards, n))) {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, 0);
        let mut b = Redis::connect(&mut process, shards - 1);
        b.says(&mut process, "PORT.REGISTER own");
        a.says(&mut process, "PORT.REGISTER job");
        b.sends(&mut process, "PORT.WAIT job 0\nPORT.REGISTER never");
        for turn in 0..turns {
            process.turn((turn + shards - 1) % shards, 1);
        }
        a.sends(&mut process, "PORT.RELEASE job");
        for turn in 0..turns / 2 {
            process.turn(turn % shards, 1);
        }
        process.disconnect(b.link);
        process.settle();
        assert_eq!(a.hears(&mut process), ":1|");
        assert_eq!(a.says(&mut process, "PORT.QUERY job own"), "*2|$-1|$-1|", "{shards} {turns}");
        assert_eq!(under_way(&process), (0, 0));
        process.disconnect(a.link);
        process.settle();
        is_nothing_left(&process);
    }
}

/// A client that sends nothing more is taken as gone, since that is what the end of a process looks
/// like: its wait is over at once, it gets the answers it can have, and its connection closes. A
/// name that is free is granted nevertheless.
#[test]
fn who_sends_nothing_more_does_not_wait() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, 0);
        let mut b = Redis::connect(&mut process, shards - 1);
        a.says(&mut process, "PORT.REGISTER job");
        b.sends(&mut process, "PORT.WAIT job 0\nPORT.WAIT free 0\nPORT.WAIT job 0\nPING");
        process.end(b.link);
        process.settle();
        let heard = b.hears(&mut process);
        let (first, rest) = heard.split_once('|').expect("answers");
        assert_eq!(first, "$-1", "{shards} shards");
        grant(rest.strip_suffix("$-1|+PONG|").expect("in order"));
        assert!(process.is_closed(b.link));
        process.disconnect(b.link);
        process.settle();
        assert_eq!(a.says(&mut process, "PORT.QUERY free"), "$-1|");
        assert_eq!(under_way(&process), (0, 0));
    }
}

/// A graceful stop waits for nobody who waits for ever.
#[test]
fn a_stop_ends_waits() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, 0);
        let mut b = Redis::connect(&mut process, shards - 1);
        a.says(&mut process, "PORT.REGISTER job");
        b.sends(&mut process, "PORT.WAIT job 0");
        process.settle();
        (0..shards).for_each(|shard| process.stop(shard));
        process.settle();
        let heard = b.hears(&mut process);
        assert!(heard == "$-1|" || heard.starts_with("*3|:1|"), "{shards} shards: {heard}");
        assert!(process.is_closed(a.link) && process.is_closed(b.link));
        [a, b].iter().for_each(|client| process.disconnect(client.link));
        process.settle();
        assert!((0..shards).all(|shard| process.shard(shard).may_stop()));
    }
}

/// The session of a blocked connection is killed, or its lease runs out since nobody renews it: the
/// wait ends with an error, and the connection goes on.
#[test]
fn a_wait_ends_with_its_session() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, 0);
        let mut b = Redis::connect(&mut process, shards - 1);
        for name in NAMES {
            a.says(&mut process, &format!("PORT.REGISTER {name}"));
            let opened = b.says(&mut process, "SESSION.OPEN 7 LEASE 2000");
            b.sends(&mut process, &format!("PORT.WAIT {name} 0\nECHO on"));
            process.settle();
            let kill = format!("SESSION.KILL {}", field(&opened, "session"));
            assert_eq!(a.says(&mut process, &kill), "+OK|");
            let heard = b.hears(&mut process);
            assert!(heard.starts_with("-NOSESSION ") && heard.ends_with("|$2|on|"), "{heard}");
            b.says(&mut process, "SESSION.OPEN 7 LEASE 2000");
            b.sends(&mut process, &format!("PORT.WAIT {name} 60000\nECHO on"));
            process.run_for(Span::from_ms(2_500));
            let heard = b.hears(&mut process);
            assert!(heard.starts_with("-NOSESSION ") && heard.ends_with("|$2|on|"), "{heard}");
        }
        assert_eq!(under_way(&process), (0, 0), "{shards} shards");
    }
}

/// A session waits for a name once. Asked again on another of its connections, that one is answered
/// and the first hears nil; each waits as long as it said, also if the first would wait for ever.
#[test]
fn the_latest_connection_of_a_session_waits() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, 0);
        let mut b = Redis::connect(&mut process, shards - 1);
        let mut c = Redis::connect(&mut process, shards / 2);
        a.says(&mut process, "PORT.REGISTER job");
        let opened = b.says(&mut process, "SESSION.OPEN 7 LEASE 30000");
        let attach =
            format!("SESSION.ATTACH {} {}", field(&opened, "session"), field(&opened, "secret"));
        assert_eq!(c.says(&mut process, &attach), "+OK|");
        b.sends(&mut process, "PORT.WAIT job 0");
        process.settle();
        c.sends(&mut process, "PORT.WAIT job 100");
        process.run_for(Span::from_ms(99));
        assert_eq!((b.hears(&mut process), c.hears(&mut process)), ("$-1|".into(), String::new()));
        process.run_for(Span::from_ms(2));
        assert_eq!(c.hears(&mut process), "$-1|", "{shards} shards");
        c.sends(&mut process, "PORT.WAIT job 100");
        process.settle();
        b.sends(&mut process, "PORT.WAIT job 0");
        process.run_for(Span::from_ms(200));
        process.disconnect(c.link);
        process.settle();
        assert_eq!(b.hears(&mut process), "", "the end of the first is not that of the second");
        a.says(&mut process, "PORT.RELEASE job");
        grant(&b.hears(&mut process));
    }
}

/// The first names that lie on one of two shards.
fn names_at(shard: usize) -> impl Iterator<Item = String> {
    let map = SlotMap::new(2);
    let names = (0..).map(|number| format!("n{number}"));
    names.filter(move |name| map.shard_of(Slot::of(name.as_bytes())).index() == shard)
}

/// A session waits again on another connection; the first goes before it has heard that it is
/// answered. Its end crosses that news, and does not end the wait of the other.
#[test]
fn the_end_of_a_connection_crosses_its_replacement() {
    let name = names_at(0).next().expect("every other name");
    let mut process = start(2);
    let mut a = Redis::connect(&mut process, 0);
    let mut b = Redis::connect(&mut process, 0);
    let mut c = Redis::connect(&mut process, 1);
    a.says(&mut process, &format!("PORT.REGISTER {name}"));
    let opened = b.says(&mut process, "SESSION.OPEN 7 LEASE 30000");
    let attach = ["session", "secret"].map(|of| field(&opened, of)).join(" ");
    assert_eq!(c.says(&mut process, &format!("SESSION.ATTACH {attach}")), "+OK|");
    c.sends(&mut process, &format!("PORT.WAIT {name} 0"));
    process.settle();
    b.sends(&mut process, &format!("PORT.WAIT {name} 0"));
    process.end_turn(0);
    assert_eq!(process.mail_waiting(1, 0), 1, "the first is told that it waits no longer");
    process.disconnect(c.link);
    process.settle();
    assert_eq!((b.hears(&mut process).as_str(), under_way(&process)), ("", (0, 1)));
    a.says(&mut process, &format!("PORT.RELEASE {name}"));
    grant(&b.hears(&mut process));
}

/// One who waits for a name alone stands before others who could share it. When that one's
/// connection goes, they have it.
#[test]
fn who_goes_is_not_in_the_way() {
    for shards in SHARDS {
        for name in NAMES {
            let mut process = start(shards);
            let mut a = Redis::connect(&mut process, 0);
            let mut b = Redis::connect(&mut process, shards - 1);
            let mut c = Redis::connect(&mut process, shards / 2);
            a.says(&mut process, &format!("PORT.REGISTER {name} MODE SHARED"));
            b.says(&mut process, "SESSION.OPEN 7 LEASE 30000");
            b.sends(&mut process, &format!("PORT.WAIT {name} 0"));
            process.settle();
            c.sends(&mut process, &format!("PORT.WAIT {name} 0 MODE SHARED"));
            process.settle();
            assert_eq!(c.hears(&mut process), "", "{shards} shards");
            process.disconnect(b.link);
            process.settle();
            grant(&c.hears(&mut process));
        }
    }
}

/// The answer to a wait, whether it comes at once or late, is not taken for the answer to another
/// op that is on its way to the same shard: what bounds those would no longer hold.
#[test]
fn the_answer_to_a_wait_is_not_counted() {
    let mut far = names_at(0);
    let (held, free) = (far.next().expect("a name"), far.next().expect("another"));
    let mut process = start(2);
    let mut a = Redis::connect(&mut process, 0);
    let mut b = Redis::connect(&mut process, 1);
    let mut c = Redis::connect(&mut process, 1);
    a.says(&mut process, &format!("PORT.REGISTER {held}"));
    // Late: the name is released while a question is on its way.
    b.sends(&mut process, &format!("PORT.WAIT {held} 0"));
    process.settle();
    a.sends(&mut process, &format!("PORT.RELEASE {held}"));
    process.end_turn(0);
    c.sends(&mut process, &format!("PORT.QUERY {free}"));
    process.end_turn(1);
    assert_eq!(under_way(&process).0, 1);
    process.deliver_mail(1, 0);
    process.end_turn(1);
    grant(&b.hears(&mut process));
    assert_eq!(under_way(&process).0, 1, "the question is still on its way");
    process.settle();
    assert_eq!((c.hears(&mut process).as_str(), under_way(&process).0), ("$-1|", 0));
    // At once: the name is free.
    b.sends(&mut process, &format!("PORT.WAIT {free} 0"));
    process.end_turn(1);
    c.sends(&mut process, &format!("PORT.QUERY {free}"));
    process.end_turn(1);
    process.turn(0, 1);
    process.deliver_mail(1, 0);
    process.end_turn(1);
    grant(&b.hears(&mut process));
    assert_eq!(under_way(&process).0, 1, "the question is still on its way");
    process.settle();
    assert_eq!(under_way(&process), (0, 0));
}

/// Anybody who may use a name can ask who holds it and who waits for it, and for how long.
#[test]
fn waiters_are_shown() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, 0);
        let mut b = Redis::connect(&mut process, shards - 1);
        let mut c = Redis::connect(&mut process, shards / 2);
        for name in NAMES {
            assert_eq!(c.says(&mut process, &format!("PORT.WAITERS {name}")), "$-1|");
            let (holder, token) = grant(&a.says(&mut process, &format!("PORT.REGISTER {name}")));
            let (waiter, _) = grant(&b.says(&mut process, &format!("PORT.REGISTER own/{name}")));
            b.sends(&mut process, &format!("PORT.WAIT {name} 300 MODE COUNTING 3"));
            process.run_for(Span::from_ms(250));
            let digits = token.to_string();
            let head = "*12|$4|mode|$9|exclusive|$7|permits|:0|$7|holders|:1|$7|waiters|:1|";
            let held =
                format!("$7|held_by|*1|*2|$16|{holder}|${}|{digits}|$5|queue|*1|", digits.len());
            let queue = format!("*4|$16|{waiter}|$8|counting|:3|:250|");
            let shown = c.says(&mut process, &format!("PORT.WAITERS {name} COUNT 1"));
            assert_eq!(shown, [head, &held, &queue].concat(), "{shards} shards");
            let numbers = c.says(&mut process, &format!("PORT.WAITERS {name} COUNT 0"));
            assert_eq!(numbers, format!("{head}$7|held_by|*0|$5|queue|*0|"));
            process.run_for(Span::from_ms(60));
            assert_eq!(b.hears(&mut process), "$-1|");
        }
    }
}

/// Shared and counting names, with waits: who wants a name in another mode than it is held in hears
/// so, or waits until it is free; those who want to share it get it together.
#[test]
fn names_are_shared_and_counted() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut clients: Vec<Redis> =
            (0..4).map(|at| Redis::connect(&mut process, at % shards)).collect();
        for name in NAMES {
            let shared = format!("PORT.REGISTER {name} MODE SHARED");
            let (one, first) = grant(&clients[0].says(&mut process, &shared));
            let (two, second) = grant(&clients[1].says(&mut process, &shared));
            assert!(one != two && second > first, "each holder has a token of its own");
            let other = clients[2].says(&mut process, &format!("PORT.REGISTER {name}"));
            assert!(other.starts_with("-MODE the name is held in another mode"), "{other}");
            let counting = format!("PORT.WAIT {name} 0 MODE COUNTING 2");
            (clients[2..]).iter_mut().for_each(|one| one.sends(&mut process, &counting));
            process.settle();
            assert_eq!(clients[0].says(&mut process, &format!("PORT.RELEASE {name}")), ":1|");
            assert_eq!(clients[2].hears(&mut process), "");
            let late = clients[0].says(&mut process, &shared);
            assert!(late.starts_with("*3|:0|"), "nobody overtakes who waits: {late}");
            clients[1].says(&mut process, &format!("PORT.RELEASE {name}"));
            let (_, third) = grant(&clients[2].hears(&mut process));
            let (_, fourth) = grant(&clients[3].hears(&mut process));
            assert!(third > second && fourth > second && third != fourth);
            let full = format!("PORT.REGISTER {name} MODE COUNTING 2");
            assert!(clients[0].says(&mut process, &full).starts_with("*3|:0|$16|"));
            let three = format!("PORT.REGISTER {name} MODE COUNTING 3");
            assert!(clients[0].says(&mut process, &three).starts_with("-MODE "));
            for client in &mut clients[2..] {
                assert_eq!(client.says(&mut process, &format!("PORT.RELEASE {name}")), ":1|");
            }
        }
        assert_eq!(under_way(&process), (0, 0), "{shards} shards");
    }
}

/// What an owner says about its name has a version, and is changed only by who knows the last one;
/// it is gone with the grant.
#[test]
fn metadata_is_compared_and_set() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, 0);
        let mut b = Redis::connect(&mut process, shards - 1);
        for name in NAMES {
            let meta = format!("PORT.META {name}");
            assert_eq!(b.says(&mut process, &meta), "$-1|");
            let not_owner = b.says(&mut process, &format!("{meta} SET x"));
            assert!(not_owner.starts_with("-NOTOWNER "), "{not_owner}");
            let (session, token) = grant(&a.says(&mut process, &format!("PORT.REGISTER {name}")));
            let told = |version: u32, text: &str| {
                let digits = token.to_string();
                format!(
                    "*8|$7|session|$16|{session}|$5|token|${}|{digits}|$7|version|:{version}|\
                     $8|metadata|${}|{text}|",
                    digits.len(),
                    text.len(),
                )
            };
            assert_eq!(b.says(&mut process, &meta), told(0, ""));
            let set = |rest: &str| format!("{meta} SET {rest}");
            assert_eq!(a.says(&mut process, &set("blue VERSION 0")), ":1|");
            assert_eq!(a.says(&mut process, &set("green")), ":2|");
            let late = a.says(&mut process, &set("red VERSION 1"));
            assert!(late.starts_with("-CONFLICT the metadata has version 2"), "{late}");
            assert_eq!(a.says(&mut process, &set("red VERSION 2")), ":3|");
            assert_eq!(b.says(&mut process, &meta), told(3, "red"));
            assert!(b.says(&mut process, &set("mine")).starts_with("-NOTOWNER "));
            let long = a.says(&mut process, &set(&"x".repeat(257)));
            assert!(long.starts_with("-ERR the metadata of a name has at most 256"), "{long}");
            a.says(&mut process, &format!("PORT.RELEASE {name}\nPORT.REGISTER {name}"));
            assert!(b.says(&mut process, &meta).ends_with("|$7|version|:0|$8|metadata|$0||"));
        }
        b.says(&mut process, "HELLO 3");
        let map = b.says(&mut process, "PORT.META job\nPORT.META free");
        assert!(map.starts_with("%4|$7|session|") && map.ends_with("|_|"), "{map}");
    }
}

/// Names go to another session in one step, each under a new token, and a receiver that speaks
/// RESP3 is told: as a push, or as the end of its wait.
#[test]
fn names_are_transferred() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, 0);
        let mut b = Redis::connect(&mut process, shards - 1);
        b.says(&mut process, "HELLO 3");
        let target = field(&b.says(&mut process, "SESSION.OPEN 7 LEASE 30000"), "session");
        let got = a.says(
            &mut process,
            "PORT.REGISTER x\nPORT.REGISTER y\nPORT.REGISTER shared MODE SHARED",
        );
        let (from, _) = grant(&got.split_inclusive('|').take(6).collect::<String>());
        let moved = a.says(&mut process, &format!("PORT.TRANSFER {target} x y z"));
        assert!(moved.starts_with(&format!("*3|*3|:1|$16|{target}|")), "{moved}");
        assert!(moved.contains("|-NOTOWNER "), "one outcome for each name: {moved}");
        let mut told = b.hears(&mut process);
        for name in ["x", "y"] {
            let token = b.says(&mut process, &format!("PORT.QUERY {name}"));
            let token = token.split(':').nth(1).expect("a token").trim_end_matches('|').to_owned();
            let push = format!(">4|$8|received|$1|{name}|${}|{token}|$16|{from}|", token.len());
            assert!(told.contains(&push), "{shards} shards: {told} has not {push}");
            told = told.replace(&push, "");
        }
        assert_eq!(told, "", "each is told once");
        let (own, token) = grant(&a.says(&mut process, "PORT.REGISTER w"));
        let wrong = a.says(&mut process, &format!("PORT.TRANSFER {target} w TOKEN 1"));
        assert!(wrong.starts_with("-NOTOWNER "), "{wrong}");
        let nobody = a.says(&mut process, &format!("PORT.TRANSFER {:016x} w", 0xFFFF));
        assert!(nobody.starts_with("-NOSESSION "), "{nobody}");
        assert_eq!(grant(&a.says(&mut process, &format!("PORT.TRANSFER {own} w"))), (own, token));
        b.sends(&mut process, "PORT.WAIT w 0\nPING");
        process.settle();
        let given =
            a.says(&mut process, &format!("PORT.TRANSFER {target} NAMES 1 w TOKEN {token}"));
        let (owner, later) = grant(&given);
        assert!(owner == target && later > token);
        let heard = b.hears(&mut process);
        let granted = heard.strip_suffix("+PONG|").expect("no push, since it waited");
        assert_eq!(grant(granted), (owner, later));
        grant(&b.says(&mut process, "PORT.REGISTER shared MODE SHARED"));
        let held = a.says(&mut process, &format!("PORT.TRANSFER {target} shared"));
        assert!(held.starts_with(&format!("*3|:0|$16|{target}|")), "{held}");
        let mut c = Redis::connect(&mut process, 0);
        let stranger = c.says(&mut process, &format!("PORT.TRANSFER {target} x"));
        assert!(stranger.starts_with("-NOTOWNER "), "{stranger}");
        assert_eq!(under_way(&process), (0, 0));
    }
}

/// An operator, and somebody who is none.
fn users() -> Users {
    Users::new(&[("operator", None, true), ("user", None, false)])
}

/// Only an operator takes names away. Who loses one, and who gets one, is told as a push; a name
/// that is nobody's new one goes to whoever waits.
#[test]
fn an_operator_revokes() {
    for shards in SHARDS {
        let mut process = guarded(shards, users);
        let mut operator = Redis::connect(&mut process, 0);
        let mut a = Redis::connect(&mut process, shards - 1);
        let mut b = Redis::connect(&mut process, shards / 2);
        let early = operator.says(&mut process, "PORT.WAIT x 0\nPORT.META x\nPORT.REVOKE x");
        assert_eq!(early.matches("-NOAUTH ").count(), 3, "{early}");
        operator.says(&mut process, "AUTH operator p");
        a.says(&mut process, "HELLO 3 AUTH user p");
        b.says(&mut process, "HELLO 3 AUTH user p");
        let one = field(&a.says(&mut process, "SESSION.OPEN 1 LEASE 30000"), "session");
        let two = field(&b.says(&mut process, "SESSION.OPEN 2 LEASE 30000"), "session");
        for name in NAMES {
            let (_, token) = grant(&a.says(&mut process, &format!("PORT.REGISTER {name}")));
            let denied = b.says(&mut process, &format!("PORT.REVOKE {name} TO {two}"));
            assert!(denied.starts_with("-DENIED "), "{denied}");
            let moved = operator.says(&mut process, &format!("PORT.REVOKE {name} TO {two}"));
            let (owner, later) = grant(&moved);
            assert_eq!(owner, two);
            let (len, digits) = (name.len(), token.to_string());
            let lost = format!(
                ">5|$4|lost|${len}|{name}|${}|{digits}|$16|{two}|$11|transferred|",
                digits.len()
            );
            assert_eq!(a.hears(&mut process), lost, "{shards} shards");
            let digits = later.to_string();
            let received = format!(
                ">4|$8|received|${len}|{name}|${}|{digits}|$16|0000000000000000|",
                digits.len()
            );
            assert_eq!(b.hears(&mut process), received);
            a.sends(&mut process, &format!("PORT.WAIT {name} 0"));
            process.settle();
            assert_eq!(operator.says(&mut process, &format!("PORT.REVOKE {name}")), ":1|");
            let (owner, last) = grant(&a.hears(&mut process));
            assert!(owner == one && last > later);
            let lost = format!(
                ">5|$4|lost|${len}|{name}|${}|{digits}|$16|0000000000000000|$7|revoked|",
                digits.len()
            );
            assert_eq!(b.hears(&mut process), lost);
            assert_eq!(a.says(&mut process, &format!("PORT.RELEASE {name}")), ":1|");
            let free = format!("PORT.REVOKE {name}\nPORT.REVOKE {name} TO {two}");
            assert_eq!(operator.says(&mut process, &free), ":0|$-1|");
            let gone = operator.says(&mut process, &format!("PORT.REVOKE {name} TO {:016x}", 9));
            assert!(gone.starts_with("-NOSESSION "), "{gone}");
        }
    }
}

/// A name, or a lock, that nobody waits for and of which nothing is said is free once it is
/// revoked, like one that was given back: its record is gone, and anybody can have it.
#[test]
fn a_revoked_name_is_free() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, 0);
        let mut b = Redis::connect(&mut process, shards - 1);
        for name in NAMES {
            for taken in [format!("PORT.REGISTER {name}"), format!("SET {name} v NX PX 20000")] {
                a.says(&mut process, &taken);
                assert_eq!(a.says(&mut process, &format!("PORT.REVOKE {name}")), ":1|");
                assert_eq!(b.says(&mut process, &format!("PORT.QUERY {name}\nDBSIZE")), "$-1|:0|");
                let names = |at| process.shard(at).residue().names;
                assert_eq!((0..shards).map(names).sum::<usize>(), 0, "its record is gone");
                grant(&b.says(&mut process, &format!("PORT.REGISTER {name}")));
                assert_eq!(b.says(&mut process, &format!("PORT.RELEASE {name}")), ":1|");
                assert_eq!(b.says(&mut process, &format!("SET {name} w NX PX 20000")), "+OK|");
                assert_eq!(b.says(&mut process, &format!("DEL {name}")), ":1|");
            }
        }
    }
}

/// A session has a connection that speaks RESP3 and receives, and one that waits natively: the
/// first hears how the waits of the second end.
#[test]
fn the_end_of_a_wait_with_a_ticket_is_pushed() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, 0);
        let mut b = Redis::connect(&mut process, shards - 1);
        let mut native = Native::connect(&mut process, shards / 2);
        a.says(&mut process, "PORT.REGISTER x y");
        b.says(&mut process, "HELLO 3");
        let opened = b.says(&mut process, "SESSION.OPEN 7 LEASE 30000");
        let session = u64::from_str_radix(&field(&opened, "session"), 16).expect("a session");
        let secret = u128::from_str_radix(&field(&opened, "secret"), 16).expect("a secret");
        let wait = |name: &str, ms: u32| {
            let mut body = Vec::new();
            body.put_u32(ms);
            body.extend_from_slice(name.as_bytes());
            (op::WAIT, 0, body)
        };
        let attach = with_secret(op::ATTACH, SessionId(session), secret.to_be_bytes());
        native.ask(&mut process, &[attach]);
        let got = native.ask(&mut process, &[wait("x", 0), wait("y", 50)]);
        assert!(got.iter().all(|got| got.words().starts_with("QUEUED")), "{got:?}");
        process.run_for(Span::from_ms(60));
        assert_eq!(b.hears(&mut process), ">3|$10|wait-ended|$1|y|$9|timed out|", "{shards}");
        a.says(&mut process, "PORT.RELEASE x");
        let told = b.hears(&mut process);
        let token = told.strip_prefix(">3|$7|granted|$1|x|").expect("a grant");
        let owner = b.says(&mut process, "PORT.QUERY x");
        let number = owner.split(':').nth(1).expect("a token");
        assert_eq!(token.split('|').nth(1), number.strip_suffix('|'));
    }
}

/// A connection that is closed from here while it waits does not stay open until the grant: its
/// session was resumed elsewhere, or it asked for what cannot be followed.
#[test]
fn a_closing_connection_does_not_wait() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, 0);
        let mut b = Redis::connect(&mut process, shards - 1);
        let mut c = Redis::connect(&mut process, shards / 2);
        a.says(&mut process, "PORT.REGISTER job");
        let opened = b.says(&mut process, "SESSION.OPEN 7 LEASE 30000");
        b.sends(&mut process, "PORT.WAIT job 0");
        process.settle();
        let secret = field(&opened, "secret");
        c.says(&mut process, &format!("SESSION.OPEN 7 SECRET {secret}"));
        assert!(process.is_closed(b.link), "{shards} shards");
        assert_eq!(b.hears(&mut process), "$-1|");
        process.disconnect(b.link);
        c.sends(&mut process, "PORT.WAIT job 0");
        process.settle();
        a.says(&mut process, "PORT.RELEASE job");
        grant(&c.hears(&mut process));
        assert_eq!(under_way(&process), (0, 0));
    }
}
