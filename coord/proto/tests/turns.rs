//! Stories of turns: whatever clients pipeline, a turn takes up a bounded part of it, and whoever
//! asks for little is answered in the next one.

use ringway_coord_proto::SlotMap;
use ringway_coord_proto::stats::{refusal_index, verb_index};
use ringway_coord_proto::wire::{Preface, op, status};
use ringway_core::limits::{
    BACKLOG_OPS_PER_TURN, FRAME_OPS_MAX, SERVED_OP_COST, SHARD_BUFFERS_MIN,
};
use ringway_core::{Slot, Span};
use ringway_sim::native::{Got, Native, open, query, register};
use ringway_sim::process::{Link, Process, Settings};

/// What one turn may take up: the last connection may begin just before the end.
const TURN_OPS_MAX: usize = BACKLOG_OPS_PER_TURN + 2 * FRAME_OPS_MAX;

fn start(shards: usize) -> Process {
    Process::start(&Settings { shards, ..Settings::default() })
}

/// `SESSIONS` from a shard's first place on.
fn sessions(shard: u64) -> (u8, u8, Vec<u8>) {
    let cursor = shard << 32;
    (op::SESSIONS, 0, [&cursor.to_le_bytes()[..], &1024_u16.to_le_bytes()].concat())
}

/// A list of all names.
fn list() -> (u8, u8, Vec<u8>) {
    (op::LIST, 0, vec![0, 0, 100, 0, 0, 0])
}

/// So many connections that speak RESP, and have sent `command` so often.
fn crowd(process: &mut Process, clients: usize, command: &[u8], times: usize) -> Vec<Link> {
    let links: Vec<Link> = (0..clients).map(|_| process.connect(0)).collect();
    links.iter().for_each(|link| process.send(*link, &command.repeat(times)));
    links
}

/// Ops of the verb that `code` counts under, done by a shard so far.
fn done(process: &Process, shard: usize, code: u8) -> u64 {
    process.shard(shard).stats().verbs[verb_index(code)]
}

/// A client pipelines thousands of pages of sessions and of names, each in a frame of its own. A
/// shard makes one page at most in a turn, and a neighbour's query is answered in every one. All
/// are answered in the end: with a page, or that there are too many.
#[test]
fn pipelined_pages_are_made_one_a_turn() {
    for shards in [1, 2] {
        let mut process = start(shards);
        let mut owner = Native::connect(&mut process, 0);
        let opens: Vec<_> = (1..500).map(|n| open(op::OPEN_GATEWAY, n, 10_000, None)).collect();
        owner.ask(&mut process, &opens);
        let (mut hog, mut near) =
            (Native::connect(&mut process, 0), Native::connect(&mut process, 0));
        let ops = [sessions(0), list(), sessions(shards as u64 - 1)];
        let frames: Vec<Vec<u8>> = (0..6_000).map(|at| hog.frame(&[ops[at % 3].clone()])).collect();
        process.send(hog.link, &frames.concat());
        let is_page = |got: &&Got| got.status() == status::DATA;
        let near_name = near_name(shards);
        for turn in 1.. {
            near.send(&mut process, &[query(&near_name)]);
            for shard in 0..shards {
                process.turn(shard, usize::MAX);
            }
            near.receive(&mut process);
            assert!(near.is_answered(), "turn {turn}");
            hog.receive(&mut process);
            let pages = hog.frames.iter().flatten().filter(is_page).count();
            assert!(pages <= turn * shards, "{pages} pages in {turn} turns of {shards} shards");
            if hog.is_answered() {
                break;
            }
        }
        let busy = |got: &&Got| **got == Got::Plain(status::BUSY);
        let got = || hog.frames.iter().flatten();
        let (pages, busy) = (got().filter(is_page).count(), got().filter(busy).count());
        assert!(pages > 0 && busy > 0 && pages + busy == 6_000, "{pages} pages, {busy} busy");
        let page = near.ask(&mut process, &[sessions(0)]);
        assert_eq!(page[0].status(), status::DATA, "and then there is room again");
    }
}

/// A name of the first shard.
fn near_name(shards: usize) -> String {
    let of = |name: &String| SlotMap::new(shards).shard_of(Slot::of(name.as_bytes())).index();
    (0..).map(|n: u32| n.to_string()).find(|name| of(name) == 0).expect("every shard has names")
}

/// A crowd pipelines commands that are served by themselves through RESP. What a turn takes up of
/// them is bounded, over all connections, whether their bytes came in this turn or before.
#[test]
fn a_turn_takes_up_a_part_of_what_a_crowd_sends() {
    let per_turn = (TURN_OPS_MAX / SERVED_OP_COST) as u64;
    let text_bytes = 64 * TURN_OPS_MAX;
    for (command, code, most) in [
        (&b"SESSION.LIST\r\n"[..], op::SESSIONS, per_turn),
        (b"SESSION.INFO 0000000000000001\r\n", op::SESSION, per_turn),
        (b"CLIENT LIST\r\n", op::SHARD_STATS, per_turn),
        (b"SHARD.STATS 0\r\n", op::SHARD_STATS, per_turn),
        (b"INFO\r\n", op::SERVER, text_bytes as u64 / 500),
        (b"COMMAND\r\n", op::SERVER, text_bytes as u64 / 5000),
    ] {
        let said = String::from_utf8_lossy(command);
        let mut process = start(1);
        let mut before = done(&process, 0, code);
        let crowd = crowd(&mut process, 200, command, 100);
        for turn in 0..10_000 {
            process.end_turn(0);
            let after = done(&process, 0, code);
            assert!(after - before <= most, "{said}: {} in turn {turn}", after - before);
            before = after;
            crowd.iter().for_each(|link| drop(process.take(*link)));
            if after == 200 * 100 {
                break;
            }
        }
        assert_eq!(before, 200 * 100, "{said}: all were taken up in the end");
        assert!(process.shard(0).stats().turn_ops_max <= TURN_OPS_MAX as u64);
    }
}

/// Frames without ops cost as well: of one connection's a turn answers as many as it would ops, and
/// of a crowd's a bounded number, in order, until all are answered.
#[test]
fn empty_frames_are_counted() {
    let mut process = start(1);
    let empty = |sequence: u64| {
        let mut frame = 16_u32.to_le_bytes().to_vec();
        frame.extend([0, 0, 0, 0]);
        frame.extend(sequence.to_le_bytes());
        frame
    };
    let many = 20_000;
    let frames: Vec<u8> = (0..many).flat_map(empty).collect();
    let connect = |process: &mut Process| {
        let link = process.connect(0);
        process.send(link, &Preface::OURS.encode());
        process.settle();
        process.take(link);
        link
    };
    let alone = connect(&mut process);
    process.send(alone, &frames);
    process.end_turn(0);
    let first = process.take(alone);
    assert!(first.len() / 16 <= 2 * FRAME_OPS_MAX, "{} frames in one turn", first.len() / 16);
    process.settle();
    let said = [first, process.take(alone)].concat();
    assert_eq!(said.len(), frames.len());
    said.chunks(16).zip(0_u64..).for_each(|(frame, sequence)| {
        assert_eq!(frame[8..], sequence.to_le_bytes());
    });
    let crowd: Vec<Link> = (0..40).map(|_| connect(&mut process)).collect();
    crowd.iter().for_each(|link| process.send(*link, &frames));
    // Each has its share as they arrive; then the turn is over.
    let (mut answered, mut most) = (0, 42 * FRAME_OPS_MAX);
    while answered < 40 * many as usize {
        process.end_turn(0);
        let now: usize = crowd.iter().map(|link| process.take(*link).len() / 16).sum();
        assert!(0 < now && now <= most, "{now} in one turn");
        (answered, most) = (answered + now, TURN_OPS_MAX);
    }
}

/// A client pipelines lists of connections, each as long as it may be, at a server with little
/// memory. Few are under way at a time and the rest are told so; nobody is cut, and no turn ends
/// with more than the budget.
#[test]
fn lists_of_clients_stay_within_the_memory() {
    for shards in [1, 2, 3] {
        let buffer_bytes = SHARD_BUFFERS_MIN;
        let mut process = Process::start(&Settings { shards, buffer_bytes, ..Settings::default() });
        let crowd: Vec<Link> = (0..1500).map(|at| process.connect(at % shards)).collect();
        for (at, link) in crowd.iter().enumerate() {
            process.send(*link, format!("CLIENT SETNAME {at:x>200}\r\n").as_bytes());
        }
        process.settle();
        crowd.iter().for_each(|link| drop(process.take(*link)));
        let hog = process.connect(0);
        process.send(hog, &b"CLIENT LIST\r\n".repeat(2000));
        let (mut lists, mut busy) = (0, 0);
        for turn in 0.. {
            assert!(turn < 5_000, "{shards} shards: {lists} lists, {busy} busy");
            for shard in 0..shards {
                process.turn(shard, usize::MAX);
                let stats = process.shard(shard).stats();
                assert!(stats.buffer_bytes <= buffer_bytes as u64, "{} bytes", stats.buffer_bytes);
                assert_eq!(stats.cut_for_memory, 0);
            }
            let said = String::from_utf8(process.take(hog)).expect("text");
            lists += said.matches('$').count();
            busy += said.matches("-BUSY").count();
            if lists + busy == 2000 {
                break;
            }
        }
        assert!(lists > 0 && busy > 0, "{lists} lists, {busy} busy");
    }
}

/// An op that is served by itself and refused is counted as refused, once, by the status that its
/// client got; so is the one that needs a session which the server has no place for.
#[test]
fn refusals_of_served_ops_are_counted() {
    for shards in [1, 2, 5] {
        let settings = Settings { shards, sessions_max: 1, ..Settings::default() };
        let mut process = Process::start(&settings);
        let mut a = Native::connect(&mut process, 0);
        let session = |code| (code, 0, 77_u64.to_le_bytes().to_vec());
        let ops = [
            session(op::KILL),
            session(op::SESSION),
            session(op::NODE),
            (op::PING, 0, vec![0; 100]),
            (op::LIST, 0, vec![0; 3]),
            (op::LIST, 1, Vec::new()),
            (0x6F, 0, Vec::new()),
            query("x"),
        ];
        let got = a.ask(&mut process, &ops);
        let mut b = Native::connect(&mut process, 0);
        assert_eq!(a.ask(&mut process, &[register("x")])[0].words(), "GRANTED 1");
        assert_eq!(b.ask(&mut process, &[register("y")])[0].words(), "FULL");
        let redis = process.connect(0);
        process.send(redis, b"SESSION.KILL 000000000000004d\r\n");
        process.settle();
        for (code, expected) in [
            (status::NOSESSION, 4),
            (status::MALFORMED, 2),
            (status::UNSUPPORTED, 1),
            (status::UNKNOWN_OP, 1),
            (status::FULL, 1),
        ] {
            let index = refusal_index(code).expect("a refusal");
            let count = |shard| process.shard(shard).stats().refused.0[index];
            let counted: u64 = (0..shards).map(count).sum();
            assert_eq!(counted, expected, "{} of {shards} shards: {got:?}", status::name(code));
        }
    }
}

/// A page of sessions is of the moment in which it is made, and whole, while a crowd's pages are
/// made as well.
#[test]
fn a_page_is_whole_although_others_ask() {
    let mut process = start(2);
    let mut a = Native::connect(&mut process, 0);
    let opens: Vec<_> = (1..100).map(|n| open(op::OPEN_GATEWAY, n, 10_000, None)).collect();
    a.ask(&mut process, &opens);
    let mut clients: Vec<Native> = (0..20).map(|_| Native::connect(&mut process, 1)).collect();
    clients.iter_mut().for_each(|client| client.send(&mut process, &[sessions(0), sessions(1)]));
    process.settle();
    process.pass(Span::from_ms(1));
    for client in &mut clients {
        client.receive(&mut process);
        let records: usize = client.frames[0]
            .iter()
            .map(|got| match got {
                Got::Data(status::DATA, page) => usize::from(page[8]),
                other => panic!("{other:?}"),
            })
            .sum();
        assert_eq!(records, 99);
    }
}

/// So much arrives in every turn that nothing more is taken up, and yet who waits with a page of
/// sessions has it soon, and a renewal counts in the turn in which it came.
#[test]
fn a_busy_shard_neither_starves_nor_expires_anybody() {
    let mut process = start(1);
    let mut holder = Native::connect(&mut process, 0);
    holder.ask(&mut process, &[open(0, 1, 200, None)]);
    let mut crowd: Vec<Native> = (0..20).map(|_| Native::connect(&mut process, 0)).collect();
    let mut asker = Native::connect(&mut process, 0);
    let many = vec![query("x"); FRAME_OPS_MAX];
    for turn in 0..100 {
        crowd.iter_mut().for_each(|client| client.send(&mut process, &many));
        if turn % 10 == 0 {
            asker.send(&mut process, &[sessions(0)]);
            holder.send(&mut process, &[(op::RENEW, 0, Vec::new())]);
        }
        process.end_turn(0);
        process.pass(Span::from_ms(10));
        crowd.iter_mut().for_each(|client| client.receive(&mut process));
    }
    for client in [&mut asker, &mut holder] {
        client.receive(&mut process);
        assert!(client.is_answered() && client.notices.is_empty());
    }
    assert!(asker.frames[1..].iter().all(|frame| frame[0].status() == status::DATA));
    assert_eq!(process.shard(0).residue().sessions, 1);
}

/// As many lists are under way as may be, and all memory is spent: a shard's own numbers are told
/// nevertheless, since that is when one looks at them.
#[test]
fn a_shard_tells_its_numbers_when_it_is_full() {
    let nearly_all = SHARD_BUFFERS_MIN - 64 * 1024;
    for (buffer_bytes, unread) in [(1 << 30, 0), (SHARD_BUFFERS_MIN, nearly_all)] {
        let mut process = Process::start(&Settings { buffer_bytes, ..Settings::default() });
        let mut hog = Native::connect(&mut process, 0);
        let mut near = Native::connect(&mut process, 0);
        process.set_backlog(hog.link, unread);
        hog.send(&mut process, &vec![list(); 64]);
        near.send(&mut process, &[(op::SHARD_STATS, 0, vec![0]), list()]);
        process.settle();
        near.receive(&mut process);
        assert!(matches!(near.frames[0][0], Got::Data(status::DATA, _)), "{unread} bytes");
        assert_eq!(near.frames[0][1], Got::Plain(status::BUSY));
    }
}
