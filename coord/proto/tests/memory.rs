//! Stories of clients that send too much, read too little, or never say who they are.

use ringway_coord_proto::access::{Access, Grantee};
use ringway_coord_proto::wire::{Preface, op, status};
use ringway_coord_proto::{Principal, SlotMap};
use ringway_core::Slot;
use ringway_core::limits::{
    AUTH_WITHIN, CONN_OUT_HIGH, SHARD_BUFFERS_MIN, UNKNOWN_IN_MAX, UNKNOWN_OUT_MAX,
};
use ringway_sim::native::{Native, open, opened, query, register, with_secret};
use ringway_sim::process::{Link, Process, Settings};
use ringway_sim::stories::words;
use ringway_sim::stream::Got;

/// A push with one notice, `PROTOCOL_ERROR`.
const LAST_WORDS: [u8; 20] = [20, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0];

fn start(shards: usize) -> Process {
    let buffer_bytes = SHARD_BUFFERS_MIN;
    Process::start(&Settings { shards, buffer_bytes, ..Settings::default() })
}

/// The beginning of the largest frame, `bytes` long.
fn beginning(bytes: usize) -> Vec<u8> {
    let mut frame = (256_u32 * 1024).to_le_bytes().to_vec();
    frame.extend([1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    frame.resize(bytes, 7);
    frame
}

/// A crowd sends the beginnings of large frames, and never the ends. When the budget is spent those
/// that hold most are closed and counted, one with little is kept and served, and somebody else's
/// large frame finds room.
#[test]
fn half_frames_are_cut_when_memory_is_spent() {
    let mut process = start(1);
    let mut other = Native::connect(&mut process, 0);
    let modest = Native::connect(&mut process, 0);
    process.send(modest.link, &beginning(1000));
    let crowd: Vec<Native> = (0..40)
        .map(|_| {
            let hog = Native::connect(&mut process, 0);
            process.send(hog.link, &beginning(200 * 1024));
            process.settle();
            assert!(process.shard(0).stats().buffer_bytes <= SHARD_BUFFERS_MIN as u64);
            hog
        })
        .collect();
    let gone = crowd.iter().filter(|hog| process.is_closed(hog.link)).count();
    assert_eq!(process.shard(0).stats().cut_for_memory, gone as u64);
    assert!((20..40).contains(&gone), "{gone} of 40");
    assert!(!process.is_closed(modest.link));
    let names: Vec<_> = (0..4000).map(|index| query(&format!("{index:0>40}"))).collect();
    assert_eq!(other.ask(&mut process, &names).len(), 4000);
    crowd.iter().for_each(|hog| process.disconnect(hog.link));
    process.settle();
    assert!(process.shard(0).stats().buffer_bytes < 512 * 1024);
}

/// A crowd of thousands, of whom each holds half a kilobyte, spends the budget as well. Nobody of
/// them holds much; some are cut all the same, or nobody would be served ever again.
#[test]
fn many_small_parts_are_cut_as_well() {
    let mut process = start(1);
    let mut other = Native::connect(&mut process, 0);
    other.ask(&mut process, &[register("x")]);
    let crowd: Vec<Native> = (0..SHARD_BUFFERS_MIN / 480)
        .map(|_| {
            let small = Native::connect(&mut process, 0);
            process.send(small.link, &beginning(500));
            small
        })
        .collect();
    assert_eq!(words(&other.ask(&mut process, &[query("x")])), "OWNED 1");
    let gone = crowd.iter().filter(|small| process.is_closed(small.link)).count();
    assert_eq!(process.shard(0).stats().cut_for_memory, gone as u64);
    assert!((100..crowd.len() / 2).contains(&gone), "{gone} of {}", crowd.len());
}

/// Behind a frame that waits for another shard a client pipelines frames of its own shard, whose
/// replies have to wait as well. They take a part of the budget, and then it waits; all are
/// answered, in order.
#[test]
fn replies_that_wait_are_bounded() {
    let mut process = start(2);
    let mut a = Native::connect(&mut process, 0);
    let at = |shard: usize| {
        let of = |name: &String| SlotMap::new(2).shard_of(Slot::of(name.as_bytes())).index();
        (0..).map(|index| index.to_string()).find(|name| of(name) == shard).expect("a name")
    };
    let (far, near) = (vec![query(&at(1))], vec![query(&at(0)); 4096]);
    a.send(&mut process, &far);
    for _ in 0..200 {
        a.send(&mut process, &near);
        process.end_turn(0);
        let used = process.shard(0).stats().buffer_bytes as usize;
        assert!(used <= SHARD_BUFFERS_MIN, "{used} bytes");
        if process.is_paused(a.link) {
            break;
        }
    }
    assert!(process.is_paused(a.link), "it is read without end");
    assert!(process.shard(0).stats().waits_for_memory > 0);
    process.settle();
    a.receive(&mut process);
    process.settle();
    a.receive(&mut process);
    assert!(a.is_answered() && !process.is_paused(a.link));
}

/// Every connection leaves unread what it may. The more there are, the less that is; the budget
/// holds, and who reads is served.
#[test]
fn the_share_shrinks_with_what_is_free() {
    let mut process = start(1);
    let mut reader = Native::connect(&mut process, 0);
    reader.ask(&mut process, &[register("x")]);
    let mut slow: Vec<Native> = (0..30).map(|_| Native::connect(&mut process, 0)).collect();
    for client in &mut slow {
        process.take(client.link);
        for _ in 0..100 {
            let ops: Vec<_> = (0..1000).map(|_| query("x")).collect();
            client.send(&mut process, &ops);
            process.settle();
            if process.is_paused(client.link) {
                break;
            }
        }
        assert!(process.is_paused(client.link) || process.is_closed(client.link));
        assert!(process.shard(0).stats().buffer_bytes <= SHARD_BUFFERS_MIN as u64);
        assert_eq!(words(&reader.ask(&mut process, &[query("x")])), "OWNED 1");
    }
    let held = |process: &mut Process, slow: &Native| process.take(slow.link).len();
    let (first, last) = (held(&mut process, &slow[0]), held(&mut process, &slow[29]));
    assert!(first > last || first == 0, "{first} {last}");
    assert!(first < CONN_OUT_HIGH + 64 * 1024);
}

/// Frames that cannot be followed: what came before them is answered, though it waits for another
/// shard, then the client hears why, and the connection is closed. Nothing more is read meanwhile.
#[test]
fn last_words_come_behind_the_answers() {
    for shards in [1, 2, 5] {
        for broken in [vec![3; 16], trailing_bytes()] {
            let mut process = start(shards);
            let mut a = Native::connect(&mut process, 0);
            let names: Vec<_> = (0..32).map(|index| query(&index.to_string())).collect();
            let frame = a.frame(&names);
            process.take(a.link);
            process.send(a.link, &[frame, broken.clone(), vec![9; 5000]].concat());
            assert!(shards == 1 || process.is_paused(a.link), "what follows is of no use");
            process.settle();
            let said = process.take(a.link);
            assert!(said.len() >= 48 + 20 && said.ends_with(&LAST_WORDS), "{said:?}");
            assert_eq!(said[..4], 48_u32.to_le_bytes(), "32 replies first");
            assert!(process.is_closed(a.link));
            assert_eq!(process.shard(0).stats().protocol_errors, 1);
        }
    }
}

/// A frame of one op that is longer than its op.
fn trailing_bytes() -> Vec<u8> {
    let mut frame = 30_u32.to_le_bytes().to_vec();
    frame.extend([1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend([1, 0, 1, 0, b'x']);
    frame.resize(30, 0);
    frame
}

/// The same through RESP: an error about the framing does not overtake replies of other shards.
#[test]
fn a_framing_error_waits_for_the_replies() {
    for shards in [1, 2, 5] {
        let mut process = start(shards);
        let link = process.connect(0);
        let ask = b"PORT.QUERY 1\r\nPORT.QUERY 2\r\nPORT.QUERY 3\r\n*1\r\n!\r\nPORT.QUERY 4\r\n";
        process.send(link, ask);
        process.settle();
        let said = String::from_utf8(process.take(link)).expect("text");
        assert_eq!(said, "$-1\r\n$-1\r\n$-1\r\n-ERR Protocol error: expected '$', got '!'\r\n");
        assert!(process.is_closed(link), "{shards} shards");
    }
}

/// Credentials: `user` with `password`, who may do everything.
struct Asked(Grantee);

impl Access for Asked {
    fn required(&self) -> bool {
        true
    }
    fn verify(&self, user: &[u8], password: &[u8]) -> Option<u32> {
        (user == b"user" && password == b"password").then_some(0)
    }
    fn grantee(&self, _index: u32) -> &Grantee {
        &self.0
    }
    fn by_principal(&self, _principal: Principal) -> Option<&Grantee> {
        Some(&self.0)
    }
}

fn guarded() -> Process<Asked> {
    Process::with_access(&Settings::default(), || Asked(Grantee::anyone()))
}

fn auth() -> (u8, u8, Vec<u8>) {
    (op::AUTH, 0, [&[4][..], b"user", &[8], b"password"].concat())
}

/// Before authentication a client is answered `AUTH` and `PING`, and nothing else: not what this
/// server is, either.
#[test]
fn only_auth_and_ping_come_first() {
    let mut process = guarded();
    let mut a = Native::connect(&mut process, 0);
    let plain = |code| (code, 0, Vec::new());
    let ops = [
        plain(op::PING),
        plain(op::SERVER),
        plain(op::SHARD_MAP),
        query("x"),
        open(0, 1, 1000, None),
    ];
    let got = a.ask(&mut process, &ops);
    assert_eq!(words(&got[1..]), "NOAUTH, NOAUTH, NOAUTH, NOAUTH");
    assert_eq!(got[0].status(), status::DATA);
    let got = a.ask(&mut process, &[auth(), plain(op::SERVER)]);
    assert_eq!((got[0].status(), got[1].status()), (status::OK, status::DATA));
}

/// Who has not authenticated may send small frames and commands only, whole or not. The largest
/// that is allowed is answered; afterwards frames may have any size.
#[test]
fn strangers_are_brief() {
    let said = |bytes: &[u8]| {
        let mut process = guarded();
        let link = process.connect(0);
        process.send(link, bytes);
        process.settle();
        let held = process.shard(0).stats().buffer_bytes as usize;
        assert!(held < UNKNOWN_IN_MAX + UNKNOWN_OUT_MAX, "{held} bytes");
        (process.take(link), process.is_closed(link))
    };
    let preface = Preface::OURS.encode();
    let (native, closed) = said(&[&preface[..], &beginning(16)].concat());
    assert!(closed && native.ends_with(&LAST_WORDS));
    let command = |bytes: usize| format!("*1\r\n${}\r\n{}\r\n", bytes - 13, "x".repeat(bytes - 13));
    for (bytes, refused) in [(UNKNOWN_IN_MAX, false), (UNKNOWN_IN_MAX + 1, true)] {
        let whole = command(bytes);
        assert_eq!(whole.len(), bytes);
        let (text, closed) = said(whole.as_bytes());
        assert_eq!(closed, refused, "{bytes} bytes");
        assert!(text.starts_with(if refused { b"-NOAUTH" } else { b"-ERR" }));
        let (text, closed) = said(&whole.as_bytes()[..20]);
        assert_eq!(closed, refused, "the beginning of {bytes} bytes says enough");
        assert_eq!(text.is_empty(), !refused);
    }
    let mut process = guarded();
    let mut a = Native::connect(&mut process, 0);
    let large: Vec<_> = (0..2000).map(|index| query(&index.to_string())).collect();
    let pipelined = [a.frame(&[auth()]), a.frame(&large)].concat();
    process.send(a.link, &pipelined);
    process.settle();
    a.receive(&mut process);
    assert!(a.is_answered() && a.frames[1].len() == 2000);
}

/// Who does not read before authenticating is no longer read after a few replies.
#[test]
fn strangers_are_not_waited_for() {
    let mut process = guarded();
    let link = process.connect(0);
    for _ in 0..1000 {
        process.send(link, &b"PING\r\n".repeat(100));
        process.settle();
    }
    assert!(process.is_paused(link));
    let said = process.take(link).len();
    assert!(said < UNKNOWN_OUT_MAX + 1000, "{said} bytes");
}

/// Who has not authenticated in time is closed and counted; who has is left alone, and so is
/// everybody where no credentials are asked for.
#[test]
fn strangers_are_closed_in_time() {
    let mut process = guarded();
    let (stranger, mut user) = (process.connect(0), Native::connect(&mut process, 0));
    user.ask(&mut process, &[auth()]);
    let call = |process: &mut Process<Asked>, link: Link| process.call_overdue(link);
    assert_eq!(call(&mut process, stranger), Some(AUTH_WITHIN));
    assert_eq!(call(&mut process, user.link), Some(AUTH_WITHIN));
    process.settle();
    assert!(process.is_closed(stranger) && !process.is_closed(user.link));
    assert_eq!(process.shard(0).stats().auth_timeouts, 1);
    let mut process = start(1);
    let link = process.connect(0);
    assert_eq!(process.call_overdue(link), None);
}

/// Four lists of many names at once take what memory there is for buffers, and keep notes for the
/// pages to come. Connections that hold next to nothing do not pay for that: nobody is cut, all
/// lists are answered or told to come again, and who has a name keeps it.
#[test]
fn lists_cost_nobody_a_connection() {
    let mut process = start(1);
    let mut owner = Native::connect(&mut process, 0);
    for part in 0..50 {
        let names: Vec<_> = (0..4000).map(|n| register(&format!("{part}/{n}"))).collect();
        owner.ask(&mut process, &names);
    }
    let mut crowd: Vec<Native> = (0..100).map(|_| Native::connect(&mut process, 0)).collect();
    for (index, client) in crowd.iter_mut().enumerate() {
        let got = words(&client.ask(&mut process, &[register(&format!("own-{index}"))]));
        assert!(got.starts_with("GRANTED"), "{got}");
    }
    let mut lists: Vec<Native> = (0..4).map(|_| Native::connect(&mut process, 0)).collect();
    let list = |prefix: &str| {
        let mut body = vec![0, 0, 100, 0, 0, prefix.len() as u8];
        body.extend_from_slice(prefix.as_bytes());
        (op::LIST, 0, body)
    };
    for (index, client) in lists.iter_mut().enumerate() {
        client.send(&mut process, &[list(["", "1", "2", "3"][index])]);
    }
    for _ in 0..200 {
        for (index, client) in crowd.iter_mut().enumerate() {
            client.send(&mut process, &[query(&format!("own-{index}"))]);
        }
        process.end_turn(0);
        crowd.iter_mut().for_each(|client| client.receive(&mut process));
    }
    process.settle();
    assert_eq!(process.shard(0).stats().cut_for_memory, 0);
    for client in &mut lists {
        client.receive(&mut process);
        assert!(client.is_answered() && !process.is_closed(client.link));
    }
    for (index, client) in crowd.iter_mut().enumerate() {
        assert!(!process.is_closed(client.link));
        let got = words(&client.ask(&mut process, &[query(&format!("own-{index}"))]));
        assert!(got.starts_with("OWNED"), "{got}");
    }
}

/// An opening for a gateway; address and metadata take so many bytes of a shard's memory for them.
fn open_taking(node: u64, secret: Option<[u8; 16]>, taken: usize) -> (u8, u8, Vec<u8>) {
    let (code, flags, mut body) = open(op::OPEN_GATEWAY, node, 1000, secret);
    body.truncate(8 + 4 + 16);
    let metadata = (taken / 5 * 4).saturating_sub(3);
    body.push(0);
    body.extend((metadata as u16).to_le_bytes());
    body.extend(vec![b'm'; metadata]);
    (code, flags, body)
}

/// Metadata that does not fit into the memory for it is `FULL`, and nothing has changed: the node's
/// earlier session lives on with what it had. So is the value of a lock. What a session has is
/// given back when it ends, to the one that replaces it already; and who has nothing is let in.
#[test]
fn metadata_is_bounded_by_bytes() {
    let mut process = Process::start(&Settings { session_info_bytes: 600, ..Settings::default() });
    let mut gateway = Native::connect(&mut process, 0);
    let mut ask = |process: &mut Process, ops: &[_]| gateway.ask(process, ops).remove(0);
    let first = opened(&ask(&mut process, &[open_taking(1, None, 300)]));
    let second = opened(&ask(&mut process, &[open_taking(2, None, 200)]));
    let told = |process: &mut Process, ask: &mut dyn FnMut(&mut Process, &[_]) -> Got| {
        words(&[1, 2].map(|node: u64| ask(process, &[(op::NODE, 0, node.to_le_bytes().to_vec())])))
    };
    let before = (told(&mut process, &mut ask), process.shard(0).sessions().bytes());
    for asked in [
        open_taking(3, None, 105),
        open_taking(2, None, 305),
        open_taking(2, Some(second.secret), 305),
    ] {
        assert_eq!(ask(&mut process, &[asked]).status(), status::FULL);
    }
    let redis = process.connect(0);
    process.send(redis, format!("SET lock {} NX PX 1000\r\n", "v".repeat(100)).as_bytes());
    process.settle();
    assert!(process.take(redis).starts_with(b"-FULL"));
    assert_eq!(before, (told(&mut process, &mut ask), process.shard(0).sessions().bytes()));
    let renewals = [first, second].map(|it| with_secret(op::RENEW, it.session, it.secret));
    assert_eq!(words(&gateway.ask(&mut process, &renewals)), "OK, OK");

    let mut ask = |process: &mut Process, ops: &[_]| gateway.ask(process, ops).remove(0);
    assert!(opened(&ask(&mut process, &[open_taking(2, Some(second.secret), 300)])).resumed);
    opened(&ask(&mut process, &[open_taking(4, None, 0)]));
    let replacing = opened(&ask(&mut process, &[open_taking(1, None, 250)]));
    assert_ne!(replacing.session, first.session);
    let close = with_secret(op::CLOSE, second.session, second.secret);
    assert_eq!(ask(&mut process, &[close]).status(), status::OK);
    opened(&ask(&mut process, &[open_taking(3, None, 300)]));
    process.pass(ringway_core::Span::from_s(2));
    process.run_for(ringway_core::Span::from_s(2));
    assert!(process.shard(0).sessions().is_empty(), "all have expired");
    opened(&ask(&mut process, &[open_taking(1, None, 300)]));
}

/// What a client says of itself is counted, by what it takes, until it says something else or goes.
#[test]
fn names_of_clients_are_counted() {
    let mut process = start(1);
    let link = process.connect(0);
    let mut used = |text: &str| {
        // What the driver keeps for sending counts as well, so every time it is the same.
        for line in [text, "PING"] {
            process.send(link, format!("{line}\r\n").as_bytes());
            process.settle();
            process.take(link);
        }
        process.shard(0).stats().buffer_bytes as usize
    };
    let before = used("PING");
    let name = "n".repeat(64);
    let named = used(&format!("CLIENT SETNAME {name}"));
    assert!(named >= before + 64, "{before} {named}");
    let all = used(&format!("CLIENT SETINFO LIB-NAME {name}"));
    assert_eq!(all, named + 64);
    assert_eq!(used(&format!("CLIENT SETINFO LIB-NAME {name}")), all);
    assert_eq!(used("RESET"), before);
    used(&format!("HELLO 3 SETNAME {name}"));
    process.disconnect(link);
    process.settle();
    assert!(process.shard(0).stats().buffer_bytes as usize <= before);
}
