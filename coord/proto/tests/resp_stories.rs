//! Stories of Redis clients, told through the bytes they send and get.

use ringway_coord_proto::SlotMap;
use ringway_core::{Slot, Span};
use ringway_sim::native::{Got, Native, query, register};
use ringway_sim::process::{Link, Process, Settings};

const SHARDS: [usize; 3] = [1, 2, 5];

fn start(shards: usize) -> Process {
    Process::start(&Settings { shards, ..Settings::default() })
}

/// A Redis client on one connection.
struct Redis {
    link: Link,
}

impl Redis {
    fn connect(process: &mut Process, shard: usize) -> Redis {
        Redis { link: process.connect(shard) }
    }

    /// Sends commands, a line each, and gives back all that was answered, line ends as `|`.
    fn says(&mut self, process: &mut Process, lines: &str) -> String {
        self.posts(process, lines);
        process.settle();
        String::from_utf8_lossy(&process.take(self.link)).replace("\r\n", "|")
    }

    /// Sends commands, a line each.
    fn posts(&mut self, process: &mut Process, lines: &str) {
        for line in lines.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let mut bytes = format!("*{}\r\n", words.len());
            for word in words {
                bytes += &format!("${}\r\n{word}\r\n", word.len());
            }
            process.send(self.link, bytes.as_bytes());
        }
    }
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
    a.posts(&mut process, "SET near v NX PX 20000");
    process.end_turn(0);
    process.turn(1, usize::MAX);
    process.turn(0, usize::MAX);
    let lease = process.next_raise().expect("asked of the state directory");
    process.allow_lease(lease);
    process.turn(0, usize::MAX);
    let mut b = Redis::connect(&mut process, 0);
    b.posts(&mut process, &format!("SET {name} w NX PX 20000\nGET {name}"));
    process.end_turn(0);
    while process.mail_waiting(1, 0) > 0 {
        process.deliver_mail(1, 0);
    }
    process.end_turn(1);
    assert_eq!(b.says(&mut process, ""), "+OK|$1|w|");
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
    assert!(a.says(&mut process, "INFO").contains("epoch:1|"));
    assert_eq!(a.says(&mut process, "QUIT"), "+OK|");
    assert!(process.is_closed(a.link));
    let mut b = Redis::connect(&mut process, 1);
    process.send(b.link, b"*1\r\n$999999999\r\n");
    process.settle();
    assert!(b.says(&mut process, "").starts_with("-ERR Protocol error"));
    assert!(process.is_closed(b.link));
}
