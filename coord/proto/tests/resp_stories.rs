//! Stories of Redis clients, told through the bytes they send and get.

use ringway_coord_proto::SlotMap;
use ringway_core::{Moment, Slot, Span};
use ringway_sim::native::{Got, Native, query, register};
use ringway_sim::process::{Process, Settings};
use ringway_sim::redis::Redis;
use ringway_sim::stories::{Users, guarded, start};

const SHARDS: [usize; 3] = [1, 2, 5];

/// Three users: one for names of `shop`, one for all names, and an operator.
const USERS: [&str; 3] = ["shop", "all", "operator"];

fn users() -> Users {
    let [shop, all, operator] = USERS;
    Users::new(&[(shop, Some("shop"), false), (all, None, false), (operator, None, true)])
}

/// The lock idiom every library knows: taken once, seen by all, given back only with its value,
/// gone when its time is over; and a native client sees the same owner, with a token.
#[test]
fn the_redis_lock_idiom_works() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, 0);
        let mut b = Redis::connect(&mut process, shards - 1);
        assert_eq!(a.says(&mut process, "SET lock mine NX PX 5000"), "+OK|");
        assert_eq!(b.says(&mut process, "SET lock yours NX PX 5000\nGET lock"), "$-1|$4|mine|");
        let mut native = Native::connect(&mut process, 0);
        let got = native.ask(&mut process, &[query("lock"), register("lock")]);
        let Got::Owner(_, session, token) = got[0] else { panic!("{got:?}") };
        assert_eq!(got[1].words(), "HELD 1", "{shards} shards");
        let owner = format!("{session}:{}", token.0);
        let expected = format!("${}|{owner}|", owner.len());
        assert_eq!(b.says(&mut process, "PORT.QUERY lock"), expected);
        assert_eq!(b.says(&mut process, "PTTL lock\nTTL lock\nEXISTS lock"), ":5000|:5|:1|");
        assert_eq!(a.says(&mut process, "PEXPIRE lock 2000\nPTTL lock"), ":1|:2000|");
        process.run_for(Span::from_ms(2_100));
        assert_eq!(b.says(&mut process, "GET lock\nPTTL lock"), "$-1|:-2|");
        assert_eq!(b.says(&mut process, "SET lock yours NX PX 100\nDEL lock"), "+OK|:1|");
        let again = native.ask(&mut process, &[register("lock")]);
        assert_eq!(again[0].words(), "GRANTED 3", "every owner had a larger token");
    }
}

/// The classic unlock script, known by its digest: only with the value, and only once.
#[test]
fn unlocking_compares_the_value() {
    let text = "if redis.call(\"get\",KEYS[1]) == ARGV[1] then return redis.call(\"del\",KEYS[1]) \
                else return 0 end";
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, shards - 1);
        a.says(&mut process, "SET lock mine NX PX 5000");
        let load = format!("*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n${}\r\n{text}\r\n", text.len());
        process.send(a.link, load.as_bytes());
        process.settle();
        let reply = String::from_utf8(process.take(a.link)).expect("text");
        let digest = reply.split("\r\n").nth(1).expect("a bulk string").to_owned();
        assert_eq!(a.says(&mut process, &format!("EVALSHA {digest} 1 lock other")), ":0|");
        let unlock = format!("EVALSHA {digest} 1 lock mine");
        assert_eq!(a.says(&mut process, &format!("{unlock}\nGET lock")), ":1|$-1|");
        assert_eq!(a.says(&mut process, &unlock), ":0|", "{shards} shards");
        let unknown = a.says(&mut process, &format!("EVALSHA {} 1 lock mine", "0".repeat(40)));
        assert!(unknown.starts_with("-NOSCRIPT"), "{unknown}");
    }
}

/// A connection without a session gets one that ends with it; names, queries and releases work in
/// batches, and replies keep their order whatever shard answers first.
#[test]
fn names_in_batches_keep_their_order() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, 0);
        let mut b = Redis::connect(&mut process, shards - 1);
        let granted = a.says(&mut process, "PORT.REGISTER a b c");
        assert!(granted.starts_with("*3|*3|:1|$16|"), "{granted}");
        let held = b.says(&mut process, "PORT.REGISTER b\nPORT.QUERY x b y\nPING\nPORT.RELEASE b");
        let parts: Vec<&str> = held.split('|').collect();
        assert_eq!((parts[0], parts[1]), ("*3", ":0"), "{held}");
        assert!(held.ends_with("$-1|+PONG|:0|"), "{held}");
        assert_eq!(a.says(&mut process, "PORT.RELEASE a b c d\nDBSIZE"), ":3|:0|");
        let many: String = (0..100).map(|i| format!("PORT.REGISTER n{i}\nECHO e{i}\n")).collect();
        let replies = a.says(&mut process, &many);
        let echoes: Vec<&str> = replies.split('|').filter(|part| part.starts_with('e')).collect();
        let expected: Vec<String> = (0..100).map(|i| format!("e{i}")).collect();
        assert_eq!(echoes, expected, "{shards} shards");
        assert_eq!(b.says(&mut process, "DBSIZE"), ":100|");
        process.disconnect(a.link);
        process.settle();
        assert_eq!(b.says(&mut process, "DBSIZE"), ":0|");
    }
}

/// Sessions through RESP3: opened, looked at, resumed by another connection, which the first one
/// hears as a push.
#[test]
fn sessions_work_through_resp3() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Redis::connect(&mut process, 0);
        let hello = a.says(&mut process, "HELLO 3");
        assert!(hello.starts_with("%7|") && hello.contains("proto|:3|"), "{hello}");
        let opened = a.says(&mut process, "SESSION.OPEN 42 LEASE 3000 META blue");
        let field = |name: &str| {
            let mut parts = opened.split('|').skip_while(|part| *part != name);
            parts.nth(2).expect("a value").to_owned()
        };
        let (session, secret) = (field("session"), field("secret"));
        assert!(opened.contains("lease_ms|:3000|"), "{opened}");
        assert_eq!(a.says(&mut process, "SESSION.RENEW"), "+OK|");
        let info = a.says(&mut process, "PORT.REGISTER x\nSESSION.NODE 42");
        assert!(info.contains("names|:1|") && info.contains("metadata|$4|blue|"), "{info}");
        let mut b = Redis::connect(&mut process, shards - 1);
        let resumed = b.says(&mut process, &format!("SESSION.OPEN 42 SECRET {secret}"));
        assert!(resumed.contains("resumed|:1|"), "{resumed}");
        process.settle();
        let told = String::from_utf8_lossy(&process.take(a.link)).replace("\r\n", "|");
        assert!(told.starts_with(">3|$13|session-moved|"), "{told}");
        assert_eq!(b.says(&mut process, &format!("SESSION.KILL {session}")), "+OK|");
        assert_eq!(b.says(&mut process, "PORT.QUERY x"), "$-1|", "{shards} shards");
        assert!(b.says(&mut process, "SESSION.RENEW").starts_with("-NOSESSION"));
    }
}

/// A lock whose lease the state directory does not allow for yet waits for it, and replies behind
/// it wait too; nothing is refused.
#[test]
fn a_long_lock_waits_for_the_state_directory() {
    for shards in SHARDS {
        let lease_allowed = Span::from_ms(1_000);
        let settings = Settings { shards, lease_allowed, ..Settings::default() };
        let mut process = Process::start(&settings);
        let mut a = Redis::connect(&mut process, 0);
        let got = a.says(&mut process, "SET one v NX PX 20000\nPING\nSET two v NX PX 500\nGET one");
        assert_eq!(got, "+OK|+PONG|+OK|$1|v|", "{shards} shards");
        let order = a.says(&mut process, "SET four v NX PX 25000\nGET four\nDEL four\nGET four");
        assert_eq!(order, "+OK|$1|v|:1|$-1|", "what comes behind a parked lock stays behind it");
        let too_long = a.says(&mut process, "SET three v NX PX 60000");
        assert!(too_long.starts_with("-LEASE"), "{too_long}");
    }
}

/// The news that a lease is allowed reach one shard before another. A lock that the first sends to
/// the second is taken at once: if it waited there, what stands behind it would overtake it.
#[test]
fn a_lock_is_not_overtaken_where_the_news_come_late() {
    let lease_allowed = Span::from_ms(1_000);
    let settings = Settings { shards: 2, lease_allowed, ..Settings::default() };
    let mut process = Process::start(&settings);
    let map = SlotMap::new(2);
    let far = |name: &&String| map.shard_of(Slot::of(name.as_bytes())).index() == 1;
    let name = (0..).map(|number| format!("far{number}"));
    let name = name.into_iter().find(|name| far(&name)).expect("every other name");
    let mut a = Redis::connect(&mut process, 0);
    a.sends(&mut process, "SET near v NX PX 20000");
    process.end_turn(0);
    process.turn(1, usize::MAX);
    process.turn(0, usize::MAX);
    let lease = process.next_raise().expect("asked of the state directory");
    process.allow_lease(lease);
    process.turn(0, usize::MAX);
    let mut b = Redis::connect(&mut process, 0);
    b.sends(&mut process, &format!("SET {name} w NX PX 20000\nGET {name}"));
    process.end_turn(0);
    while process.mail_waiting(1, 0) > 0 {
        process.deliver_mail(1, 0);
    }
    process.end_turn(1);
    assert_eq!(b.says(&mut process, ""), "+OK|$1|w|");
}

/// No op on a lock is refused because its lease is not on the disk yet, whatever asks for it, and
/// what comes behind it sees what it did. An extension is one of them though only the lock's own
/// shard knows what it comes to; one that is not granted anyway asks for nothing.
#[test]
fn a_lock_is_extended_beyond_what_is_on_the_disk() {
    const EXTEND: &str = "EVALSHA a4e8783852e6b949f9ef3a97212805108459a890 1";
    for shards in SHARDS {
        let lease_allowed = Span::from_ms(1_000);
        let settings = Settings { shards, lease_allowed, ..Settings::default() };
        let mut process = Process::start(&settings);
        let mut a = Redis::connect(&mut process, 0);
        assert_eq!(a.says(&mut process, "SET one v NX PX 900\nSET two v NX PX 900"), "+OK|+OK|");
        let extend = format!("{EXTEND} one other 700 0\n{EXTEND} three v 700 0");
        a.sends(&mut process, &extend);
        (0..4 * shards).for_each(|turn| {
            process.turn(turn % shards, usize::MAX);
        });
        assert_eq!(a.hears(&mut process), ":0|:0|", "{shards} shards");
        assert_eq!(process.next_raise(), None, "nobody needs a longer lease");
        let behind = format!("{EXTEND} one v 700 0\nPTTL one\n{EXTEND} two v 5000 1\nPTTL two");
        assert_eq!(a.says(&mut process, &behind), ":1|:1600|:1|:5000|", "{shards} shards");
        let gone = a.says(&mut process, &format!("{EXTEND} one v 8000 0\nDEL one\nPTTL one"));
        assert_eq!(gone, ":1|:1|:-2|");
        let too_long = a.says(&mut process, &format!("{EXTEND} two v 29000 0\nPTTL two"));
        assert!(too_long.starts_with("-LEASE") && too_long.ends_with("|:5000|"), "{too_long}");
    }
}

/// A lock runs out, or its connection goes, while its extension waits for the disk: the answer is
/// what it would have been later, and nothing is left.
#[test]
fn an_extension_that_waits_may_come_too_late() {
    const EXTEND: &str = "EVALSHA a4e8783852e6b949f9ef3a97212805108459a890 1 lock v 900 0";
    let lease_allowed = Span::from_ms(1_000);
    let settings = Settings { shards: 1, lease_allowed, ..Settings::default() };
    let mut process = Process::start(&settings);
    let mut a = Redis::connect(&mut process, 0);
    let mut b = Redis::connect(&mut process, 0);
    assert_eq!(a.says(&mut process, "SET lock v NX PX 900"), "+OK|");
    a.sends(&mut process, &format!("{EXTEND}\nGET lock"));
    b.sends(&mut process, EXTEND);
    process.turn(0, usize::MAX);
    let raise = process.next_raise().expect("asked of the state directory");
    assert_eq!(raise, Span::from_ms(1_800));
    process.disconnect(b.link);
    for _ in 0..500 {
        process.pass(Span::from_ms(2));
        process.turn(0, usize::MAX);
    }
    process.allow_lease(raise);
    process.settle();
    assert_eq!(a.hears(&mut process), ":0|$-1|");
    let residue = process.shard(0).residue();
    assert_eq!((residue.jobs, residue.pendings, residue.names), (0, 0, 0));
}

/// An op on a lock whose answer is known already is answered at once, although the lease it names
/// is longer than the state directory allows for: the lock is another's, nothing is granted yet, or
/// the name is free. Nothing is asked of the state directory for it.
#[test]
fn what_is_known_already_waits_for_no_disk() {
    let turns = |process: &mut Process, shards: usize| {
        (0..4 * shards).for_each(|turn| {
            process.turn(turn % shards, usize::MAX);
        });
    };
    for shards in SHARDS {
        let lease_allowed = Span::from_ms(1_000);
        let settings = Settings { shards, lease_allowed, ..Settings::default() };
        let mut process = Process::start(&settings);
        let mut a = Redis::connect(&mut process, 0);
        let mut b = Redis::connect(&mut process, shards - 1);
        let got = a.says(&mut process, "SET lock v NX PX 900\nPORT.REGISTER mine");
        assert!(got.starts_with("+OK|*3|:1|"), "{got}");
        for (ask, answer) in [
            ("SET lock w NX PX 20000", "$-1|"),
            ("SET mine w NX PX 20000", "$-1|"),
            ("PEXPIRE free 20000", ":0|"),
            ("PEXPIRE mine 20000", ":0|"),
        ] {
            b.sends(&mut process, ask);
            turns(&mut process, shards);
            assert_eq!(b.hears(&mut process), answer, "{shards} shards: {ask}");
        }
        assert_eq!(process.next_raise(), None, "{shards} shards");
        b.sends(&mut process, "SET free w NX PX 20000");
        turns(&mut process, shards);
        assert_eq!(b.hears(&mut process), "", "this one waits");
        assert_eq!(process.next_raise(), Some(Span::from_ms(20_000)));

        let grants_from = Moment(0) + Span::from_ms(500);
        let mut process = Process::start(&Settings { grants_from, ..settings });
        let mut c = Redis::connect(&mut process, 0);
        c.sends(&mut process, "SET lock w NX PX 20000");
        turns(&mut process, shards);
        let got = c.hears(&mut process);
        assert!(got.starts_with("-STARTING"), "{shards} shards: {got}");
        assert_eq!(process.next_raise(), None);
    }
}

/// What all names come to is told to those who may see all names: an operator, and an identity
/// without namespaces. Any other, and who has not said who it is, learns nothing of others' names.
#[test]
fn others_names_are_not_counted_for_everybody() {
    for shards in SHARDS {
        let mut process = guarded(shards, users);
        let mut clients: Vec<Redis> =
            (0..4).map(|at| Redis::connect(&mut process, at % shards)).collect();
        let slot = ringway_core::Slot::of(b"secret/1").number();
        let asks = ["DBSIZE", &format!("CLUSTER COUNTKEYSINSLOT {slot}"), "SHARD.STATS 0"];
        for ask in asks.iter().chain(&["CLIENT LIST", "PORT.LIST", "INFO"]) {
            let got = clients[3].says(&mut process, ask);
            assert!(got.starts_with("-NOAUTH"), "{ask}: {got}");
        }
        for (client, name) in clients.iter_mut().zip(USERS) {
            assert_eq!(client.says(&mut process, &format!("AUTH {name} x")), "+OK|");
        }
        clients[1].says(&mut process, "PORT.REGISTER secret/1 {secret/1}2 secret/3");
        clients[0].says(&mut process, "PORT.REGISTER shop/1");
        for ask in asks {
            let got = clients[0].says(&mut process, ask);
            assert!(got.starts_with("-DENIED"), "{ask}: {got}");
        }
        let info = clients[0].says(&mut process, "INFO");
        assert!(info.contains("connected_clients") && !info.contains("keys="), "{info}");
        assert!(!info.contains("table_bytes"), "{info}");
        for client in &mut clients[1..3] {
            assert_eq!(client.says(&mut process, asks[0]), ":4|", "{shards} shards");
            assert_eq!(client.says(&mut process, asks[1]), ":2|");
            assert!(client.says(&mut process, asks[2]).starts_with('$'));
            assert!(client.says(&mut process, "INFO").contains("keys="));
        }
        assert_eq!(clients[2].says(&mut process, "CLUSTER COUNTKEYSINSLOT 0"), ":0|");
    }
}

/// The list of clients has the connections of all shards, whichever shard is asked, each once; who
/// is no operator sees its own.
#[test]
fn the_list_of_clients_has_all_shards() {
    for shards in SHARDS {
        let mut process = guarded(shards, users);
        let mut clients: Vec<Redis> = (0..3 * shards)
            .map(|at| {
                let mut client = Redis::connect(&mut process, at % shards);
                let user = USERS[at % 3];
                client.says(&mut process, &format!("AUTH {user} x\nCLIENT SETNAME {user}-{at}"));
                client
            })
            .collect();
        let _silent = Redis::connect(&mut process, 0);
        for (at, client) in clients.iter_mut().enumerate() {
            let listed = client.says(&mut process, "CLIENT LIST\nPING");
            let (length, lines) = listed[1..].split_once('|').expect("a bulk string");
            let lines = lines.strip_suffix("|+PONG|").expect("a pong");
            assert_eq!(lines.len(), length.parse::<usize>().expect("a length"));
            let mut names: Vec<&str> = lines
                .lines()
                .map(|line| line.split(' ').find_map(|word| word.strip_prefix("name=")))
                .map(|name| name.expect("each has a name"))
                .collect();
            names.sort_unstable();
            let mut expected: Vec<String> = (0..3 * shards)
                .filter(|other| at % 3 == 2 || other % 3 == at % 3)
                .map(|other| format!("{}-{other}", USERS[other % 3]))
                .collect();
            expected.extend((at % 3 == 2).then(String::new));
            expected.sort_unstable();
            assert_eq!(names, expected, "{shards} shards, client {at}");
            let ids: std::collections::BTreeSet<&str> =
                lines.lines().filter_map(|line| line.split(' ').next()).collect();
            assert_eq!(ids.len(), names.len());
        }
    }
}

/// However many clients there are, their list is bounded, and made of whole lines.
#[test]
fn a_long_list_of_clients_is_cut_between_lines() {
    let mut process = start(2);
    let mut a = Redis::connect(&mut process, 0);
    for at in 0..3_000 {
        let mut other = Redis::connect(&mut process, at % 2);
        other.sends(&mut process, &format!("CLIENT SETNAME {:x>64}", at));
    }
    let listed = a.says(&mut process, "CLIENT LIST");
    assert!((180_000..=192 * 1024 + 16).contains(&listed.len()), "{}", listed.len());
    let lines = listed.split('|').nth(1).expect("a bulk string");
    assert!(lines.ends_with('\n') && lines.lines().all(|line| line.starts_with("id=")));
    assert_eq!(lines.lines().filter(|line| !line.contains("lib-ver=")).count(), 0);
}

/// Names of one slot in one command may be more than a mailbox message holds.
#[test]
fn a_huge_command_reaches_another_shard() {
    let mut process = start(2);
    let mut a = Redis::connect(&mut process, 0);
    let mut b = Redis::connect(&mut process, 1);
    let names: Vec<String> = (0..3_000).map(|i| format!("{{t}}{i:0>240}")).collect();
    for redis in [&mut a, &mut b] {
        let got = redis.says(&mut process, &format!("PORT.QUERY {}", names.join(" ")));
        assert_eq!(got, format!("*3000|{}", "$-1|".repeat(3_000)));
    }
}

/// Session ids are public; whose secret nobody drew cannot be proven by guessing zeros.
#[test]
fn a_zero_secret_proves_nothing() {
    let mut process = start(2);
    let mut a = Redis::connect(&mut process, 0);
    let mut b = Redis::connect(&mut process, 1);
    a.says(&mut process, "PORT.REGISTER x\nSET lock v NX PX 5000");
    for name in ["x", "lock"] {
        let owner = b.says(&mut process, &format!("PORT.QUERY {name}"));
        let session = &owner.split('|').nth(1).expect("an owner")[..16];
        let zeros = "0".repeat(32);
        for verb in ["SESSION.CLOSE", "SESSION.RENEW", "SESSION.ATTACH"] {
            let got = b.says(&mut process, &format!("{verb} {session} {zeros}"));
            assert!(got.starts_with("-REFUSED"), "{verb}: {got}");
        }
        assert_eq!(b.says(&mut process, &format!("EXISTS {name}")), ":1|");
    }
}

/// What clients send at connect and what they get wrong is answered in words.
#[test]
fn greetings_and_errors() {
    let mut process = start(2);
    let mut a = Redis::connect(&mut process, 0);
    let set_info = "CLIENT SETINFO LIB-NAME redis-py\nCLIENT SETNAME worker\nCLIENT GETNAME";
    assert_eq!(a.says(&mut process, set_info), "+OK|+OK|$6|worker|");
    assert_eq!(a.says(&mut process, "SELECT 0\nCLUSTER KEYSLOT foo"), "+OK|:12182|");
    let slots = a.says(&mut process, "CLUSTER SLOTS");
    assert!(slots.starts_with("*2|*3|:0|:8191|*4|$9|127.0.0.1|:7401|"), "{slots}");
    assert!(a.says(&mut process, "SET k v").starts_with("-"), "SET is only a lock here");
    let unknown = a.says(&mut process, "FROBNICATE");
    assert!(unknown.starts_with("-ERR unknown command"), "{unknown}");
    let info = a.says(&mut process, "INFO");
    for field in [
        "# Server|redis_version:7.2.0|ringway_version:0.",
        "epoch:1|",
        // What ready checks of ioredis and node-redis wait for, and what `redis-cli --stat` reads.
        "loading:0|",
        "role:master|",
        "used_memory:",
        "connected_clients:",
        "blocked_clients:0|",
        "aof_rewrite_in_progress:0|",
        "rdb_bgsave_in_progress:0|",
        "total_commands_processed:",
        "total_connections_received:",
        "maxmemory_policy:noeviction|",
        "cluster_enabled:0|",
        "db0:keys=0,",
    ] {
        assert!(info.contains(field), "no {field} in {info}");
    }
    let some = a.says(&mut process, "INFO replication persistence");
    assert!(some.contains("role:master|") && !some.contains("epoch"), "{some}");
    assert_eq!(a.says(&mut process, "QUIT"), "+OK|");
    assert!(process.is_closed(a.link));
    let mut b = Redis::connect(&mut process, 1);
    process.send(b.link, b"*1\r\n$999999999\r\n");
    process.settle();
    assert!(b.says(&mut process, "").starts_with("-ERR Protocol error"));
    assert!(process.is_closed(b.link));
}
