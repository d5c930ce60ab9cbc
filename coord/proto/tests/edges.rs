//! What the swarm found, told as stories: each was a seed once.

use ringway_coord_proto::SlotMap;
use ringway_coord_proto::residue::Residue;
use ringway_coord_proto::wire::{op, status};
use ringway_core::{Moment, Slot, Span};
use ringway_sim::native::{Got, Native, open, opened, query, register, with_secret};
use ringway_sim::process::{Process, Settings};
use ringway_sim::stories::{start, words};

/// A node whose session has its home at a shard.
fn node_at(shards: usize, shard: usize) -> u64 {
    let home = |node: &u64| SlotMap::new(shards).shard_of(Slot::of(&node.to_le_bytes())).index();
    (1..).find(|node| home(node) == shard).expect("every shard has nodes")
}

fn assert_idle(process: &Process) {
    for shard in 0..process.shards() {
        let residue = process.shard(shard).residue();
        let unfinished = [residue.pendings, residue.waiting, residue.in_flight, residue.jobs];
        assert_eq!(unfinished, [0; 4], "shard {shard}");
    }
}

/// A client opens again on the connection by which its session lives: the old session ends, the
/// connection goes on with the new one and is not closed with the old.
#[test]
fn opening_again_keeps_its_own_connection() {
    for shards in [1, 2, 5] {
        let mut process = start(shards);
        let mut a = Native::connect(&mut process, 0);
        let first = opened(&a.ask(&mut process, &[open(op::OPEN_BARE, 7, 1_000, None)])[0]);
        let got = a.ask(&mut process, &[open(op::OPEN_BARE, 7, 1_000, None), register("x")]);
        assert_ne!(opened(&got[0]).session, first.session);
        assert_eq!(got[1].words(), "GRANTED 1");
        assert!(!process.is_closed(a.link), "{shards} shards");
        assert_eq!(words(&a.ask(&mut process, &[query("x")])), "OWNED 1");
    }
}

/// A frame ends the session that its connection lives by, and goes on: what stands behind is not
/// executed, the frame is answered nevertheless, then the connection is closed. Nothing stays.
#[test]
fn a_frame_that_ends_its_own_connection_is_answered() {
    for shards in [1, 2, 5] {
        let mut process = start(shards);
        let mut a = Native::connect(&mut process, 0);
        let Got::Owner(_, session, _) = a.ask(&mut process, &[register("x")])[0] else { panic!() };
        let kill = (op::KILL, 0, session.0.to_le_bytes().to_vec());
        let ops = [query("x"), kill, query("x"), open(0, 7, 1_000, None), register("y")];
        a.send(&mut process, &ops);
        process.settle();
        a.receive(&mut process);
        assert!(a.is_answered() && process.is_closed(a.link), "{shards} shards");
        assert_eq!(a.frames[0][0].words(), "OWNED 1");
        assert_eq!(a.frames[0][4], Got::Plain(status::BUSY), "not executed");
        process.disconnect(a.link);
        process.settle();
        assert_idle(&process);
    }
}

/// A connection is lost while a frame of it waits for a session: the frame's unit goes as well.
#[test]
fn a_connection_lost_in_the_middle_of_a_frame_leaves_nothing() {
    let mut process = start(2);
    let mut a = Native::connect(&mut process, 0);
    a.send(&mut process, &[open(0, node_at(2, 0), 1_000, None), register("x"), query("x")]);
    process.turn(0, 0);
    process.disconnect(a.link);
    process.settle();
    assert_idle(&process);
    process.run_for(Span::from_ms(1_100));
    assert_eq!(process.shard(0).residue(), Residue::default());
    assert_eq!(process.shard(1).residue(), Residue::default());
}

/// Two openings that wait for the state directory are replaced, and a third takes the place of the
/// first. When the lease is allowed, only the third was waited for, and only once: it is answered
/// when the other shard has attached it, not before.
#[test]
fn an_allowed_lease_opens_whom_it_was_asked_for() {
    let settings = Settings { shards: 2, lease_allowed: Span::ZERO, ..Settings::default() };
    let mut process = Process::start(&settings);
    let ask = [open(0, node_at(2, 0), 1_000, None)];
    let mut clients: Vec<Native> = (0..3).map(|_| Native::connect(&mut process, 0)).collect();
    for client in &mut clients {
        // Both shards sweep what was replaced, so its place is free for the next but one.
        for turn in 0..4 {
            process.turn(turn % 2, usize::MAX);
        }
        client.send(&mut process, &ask);
        process.turn(0, usize::MAX);
    }
    let lease = process.next_raise().expect("asked of the state directory");
    process.allow_lease(lease);
    process.turn(0, usize::MAX);
    clients[2].receive(&mut process);
    assert!(!clients[2].is_answered(), "the other shard does not know of it yet");
    process.settle();
    clients.iter_mut().for_each(|client| client.receive(&mut process));
    assert_eq!(words(&clients[0].frames[0]), "NOSESSION");
    assert_eq!(words(&clients[1].frames[0]), "NOSESSION");
    assert!(!opened(&clients[2].frames[0][0]).resumed);
    assert_idle(&process);
}

/// The lease runs out while a stopped shard keeps a session from being opened: its client hears
/// that there is none, and nothing of a session it was never told of.
#[test]
fn a_session_that_ends_before_it_is_open_is_not_announced() {
    let mut process = start(2);
    let mut a = Native::connect(&mut process, 0);
    a.send(&mut process, &[open(op::OPEN_BARE, node_at(2, 0), 100, None)]);
    for _ in 0..100 {
        process.turn(0, usize::MAX);
        process.pass(Span::from_ms(2));
    }
    process.settle();
    a.receive(&mut process);
    assert_eq!(a.frames, [[Got::Plain(status::NOSESSION)]]);
    assert_eq!(a.notices, []);
    assert!(!process.is_closed(a.link));
}

/// The whole process is stopped while a shard sleeps until a lease ends, and wakes as planned: the
/// renewal that lies in another shard's socket counts.
#[test]
fn a_stop_hidden_in_a_sleep_expires_nobody() {
    let mut process = start(2);
    let mut a = Native::connect(&mut process, 1);
    let mine = opened(&a.ask(&mut process, &[open(0, node_at(2, 0), 1_000, None)])[0]);
    while process.now() < Moment(0) + Span::from_ms(1_000) {
        let wake = process.wake_at(0).expect("a lease ends");
        process.pass(wake.since(process.now()));
        process.turn(0, usize::MAX);
    }
    // Only now the other shard reads what had come long before.
    a.send(&mut process, &[with_secret(op::RENEW, mine.session, mine.secret)]);
    process.run_for(Span::from_ms(500));
    a.receive(&mut process);
    assert_eq!(words(&a.frames[0]), "OK");
    assert_eq!(a.notices, []);
}

/// At the limit of sessions a node that lost its secret replaces its own session as ever, also over
/// and over before anything was swept; a new node is refused until a session has ended.
#[test]
fn a_full_server_lets_a_node_replace_its_session() {
    for shards in [1, 2, 5] {
        let settings = Settings { shards, sessions_max: 3, ..Settings::default() };
        let mut process = Process::start(&settings);
        let mut nodes = (1..).filter(|node: &u64| {
            SlotMap::new(shards).shard_of(Slot::of(&node.to_le_bytes())).index() == 0
        });
        let mut next = || open(0, nodes.next().expect("a shard has many"), 1_000, None);
        let (first, second, third, fourth) = (next(), next(), next(), next());
        let mut a = Native::connect(&mut process, 0);
        let mut ask = |process: &mut Process, what: &(u8, u8, Vec<u8>)| {
            a.ask(process, std::slice::from_ref(what)).remove(0)
        };
        let mut session = opened(&ask(&mut process, &first)).session;
        opened(&ask(&mut process, &second));
        opened(&ask(&mut process, &third));
        assert_eq!(ask(&mut process, &fourth), Got::Plain(status::FULL), "{shards} shards");
        for _ in 0..100 {
            let again = opened(&ask(&mut process, &first)).session;
            assert_ne!(again, session);
            session = again;
        }
        assert_eq!(ask(&mut process, &fourth), Got::Plain(status::FULL));
        let kill = (op::KILL, 0, session.0.to_le_bytes().to_vec());
        assert_eq!(ask(&mut process, &kill), Got::Plain(status::OK));
        opened(&ask(&mut process, &fourth));
        assert_eq!(ask(&mut process, &first), Got::Plain(status::FULL), "the place is taken");
    }
}

/// The old session of a full server may still have names to be swept in a shard that is slow: the
/// new one does not wait for that, as long as the reserve of places lasts.
#[test]
fn a_replaced_session_is_swept_later() {
    let settings = Settings { shards: 2, sessions_max: 1, ..Settings::default() };
    let mut process = Process::start(&settings);
    let node = node_at(2, 0);
    let mut clients: Vec<Native> = (0..80).map(|_| Native::connect(&mut process, 0)).collect();
    for client in &mut clients {
        client.send(&mut process, &[open(0, node, 1_000, None)]);
        // Only the home turns; the other shard neither attaches nor sweeps.
        process.turn(0, usize::MAX);
    }
    let mut answers = Vec::new();
    for client in &mut clients {
        client.receive(&mut process);
        answers.extend(client.frames.pop().map(|got| got[0].words()));
    }
    let count = |word: &str| answers.iter().filter(|got| *got == word).count();
    assert_eq!((count("NOSESSION"), count("FULL")), (64, 15), "the reserve is used up at last");
    process.settle();
    assert_idle(&process);
    let got = clients[79].ask(&mut process, &[open(0, node, 1_000, None)]);
    assert!(!opened(&got[0]).resumed, "swept, and all as before");
}

/// A session is resumed with a longer lease than the state directory allows for: the client waits
/// until that is on the disk, and is never told to try again. Its session lives on meanwhile.
#[test]
fn a_resume_waits_for_a_longer_lease() {
    for shards in [1, 2] {
        let lease_allowed = Span::from_ms(1_000);
        let settings = Settings { shards, lease_allowed, ..Settings::default() };
        let mut process = Process::start(&settings);
        let node = node_at(shards, 0);
        let mut a = Native::connect(&mut process, 0);
        let got = a.ask(&mut process, &[open(0, node, 1_000, None), register("x")]);
        let mine = opened(&got[0]);
        let resume = open(0, node, 20_000, Some(mine.secret));
        let mut b = Native::connect(&mut process, shards - 1);
        process.pass(Span::from_ms(4));
        for at in 0..400 {
            if at == 300 {
                b.send(&mut process, &[resume.clone(), query("x")]);
            }
            (0..shards).for_each(|shard| {
                process.turn(shard, usize::MAX);
            });
            process.pass(Span::from_ms(3));
        }
        b.receive(&mut process);
        assert!(!b.is_answered() && !process.is_closed(a.link), "it was as alive as its client");
        let raise = process.next_raise().expect("asked of the state directory");
        assert_eq!(raise, Span::from_ms(20_000));
        process.allow_lease(raise);
        process.settle();
        b.receive(&mut process);
        let got = &b.frames[0];
        assert_eq!((opened(&got[0]).session, opened(&got[0]).lease_ms), (mine.session, 20_000));
        assert!(opened(&got[0]).resumed && got[1].words() == "OWNED 1", "{shards} shards");
        assert!(process.is_closed(a.link), "its connection was taken over");
        process.run_for(Span::from_ms(19_000));
        assert_eq!(words(&b.ask(&mut process, &[query("x")])), "OWNED 1");
    }
}

/// Sessions that end while a resume waits for the disk: it is answered as one that came later.
#[test]
fn a_resume_that_waits_may_come_too_late() {
    let lease_allowed = Span::from_ms(1_000);
    let settings = Settings { shards: 1, lease_allowed, ..Settings::default() };
    let mut process = Process::start(&settings);
    let mut a = Native::connect(&mut process, 0);
    let opens = [1, 2, 3].map(|node| open(op::OPEN_GATEWAY, node, 1_000, None));
    let mine: Vec<_> = a.ask(&mut process, &opens).iter().map(opened).collect();
    let mut waiting: Vec<Native> = (0..3).map(|_| Native::connect(&mut process, 0)).collect();
    for (at, client) in waiting.iter_mut().enumerate() {
        client.send(&mut process, &[open(0, at as u64 + 1, 5_000, Some(mine[at].secret))]);
        process.turn(0, usize::MAX);
    }
    // The first is closed, the second replaced, and the connection of the third is lost.
    a.send(&mut process, &[with_secret(op::CLOSE, mine[0].session, mine[0].secret)]);
    a.send(&mut process, &[open(op::OPEN_GATEWAY, 2, 1_000, None)]);
    process.turn(0, usize::MAX);
    process.disconnect(waiting[2].link);
    process.settle();
    waiting[..2].iter_mut().for_each(|client| client.receive(&mut process));
    assert_eq!(words(&waiting[0].frames[0]), "NOSESSION");
    assert_eq!(words(&waiting[1].frames[0]), "REFUSED");
    assert_idle(&process);
    process.run_for(Span::from_ms(5_100));
    assert_eq!(process.shard(0).residue().sessions, 0, "the third ran out like any other");
}

/// One shard has stopped, and as many ops as may be are on their way to it. Who needs it waits, in
/// the middle of a frame or command; who does not is served; and when it goes on, everybody is
/// answered in order.
#[test]
fn a_stopped_shard_stops_only_those_who_need_it() {
    let mut process = start(3);
    let name_at = |shard: usize| {
        let at = |name: &String| SlotMap::new(3).shard_of(Slot::of(name.as_bytes())).index();
        (0..).map(|n| format!("name-{n}")).find(|name| at(name) == shard).expect("one of many")
    };
    let names: Vec<String> = (0..3).map(name_at).collect();
    let turns = |process: &mut Process| {
        for _ in 0..20 {
            process.turn(0, usize::MAX);
            process.turn(2, usize::MAX);
        }
    };
    let mut a = Native::connect(&mut process, 0);
    let many = vec![query(&names[1]); 4_096];
    for _ in 0..8 {
        a.send(&mut process, &many);
        turns(&mut process);
    }
    let on_their_way = process.shard(0).residue().in_flight;
    assert!((16_384..32_768).contains(&on_their_way), "{on_their_way} of 32768 ops");

    let mut b = Native::connect(&mut process, 0);
    let local = [register(&names[0]), register(&names[2])];
    b.send(&mut process, &[open(op::OPEN_BARE, node_at(3, 0), 1_000, None)]);
    turns(&mut process);
    assert!(!b.is_answered(), "opening waits for every shard");
    let mut c = Native::connect(&mut process, 0);
    c.send(&mut process, &[query(&names[0]), query(&names[2])]);
    c.send(&mut process, &[query(&names[0]), query(&names[1]), query(&names[2])]);
    let redis = process.connect(0);
    process.send(redis, format!("GET {}\r\nGET {}\r\n", names[0], names[1]).as_bytes());
    turns(&mut process);
    c.receive(&mut process);
    assert_eq!(c.frames.len(), 1, "what needs the stopped shard waits, what does not goes on");
    assert_eq!(process.take(redis), b"$-1\r\n");

    process.settle();
    for client in [&mut a, &mut b, &mut c] {
        client.receive(&mut process);
        assert!(client.is_answered());
    }
    assert_eq!(a.frames.iter().map(Vec::len).sum::<usize>(), 8 * 4_096);
    assert_eq!(words(&c.frames[1]), "FREE, FREE, FREE");
    assert_eq!(process.take(redis), b"$-1\r\n");
    assert_eq!(words(&b.ask(&mut process, &local)), "GRANTED 1, GRANTED 1");
    assert_idle(&process);
}
