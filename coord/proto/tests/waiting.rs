//! Stories of names that several hold, or wait for.

use ringway_coord_proto::wire::{op, status};
use ringway_core::wire::Reader;
use ringway_core::{SessionId, Span};
use ringway_sim::native::{
    Got, Native, Opened, cancel, meta, open, query, register, register_as, release, set_meta, wait,
    wait_as, with_secret,
};
use ringway_sim::process::{Process, Settings};
use ringway_sim::stories::{self, client, start, words};

const SHARDS: [usize; 3] = [1, 2, 5];
const SHARED: u8 = op::MODE_SHARED;
const COUNTING: u8 = op::MODE_COUNTING;

/// What a client has been told since it was asked last: the notice, the name, and the token's
/// sequence or the reason.
fn told(process: &mut Process, client: &mut Native) -> String {
    stories::told(process, client, &[]).join(", ")
}

/// Who waits gets the name in the step that frees it, first come first served, each under a larger
/// token, and hears of it on its receiving connection.
#[test]
fn a_release_hands_over_to_whoever_waits_longest() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, _) = client(&mut process, 1);
        let (mut b, _) = client(&mut process, 2);
        let (mut c, _) = client(&mut process, 3);
        assert_eq!(words(&a.ask(&mut process, &[wait(0, "x")])), "GRANTED 1", "it is free");
        let queued = b.ask(&mut process, &[wait(0, "x"), wait(0, "x")]);
        assert_eq!(queued[0].status(), status::QUEUED);
        assert_eq!(queued[0], queued[1], "who waits already keeps its place");
        assert_eq!(c.ask(&mut process, &[wait(0, "x")])[0].status(), status::QUEUED);
        assert_eq!(words(&c.ask(&mut process, &[query("x")])), "OWNED 1");
        assert_eq!(words(&a.ask(&mut process, &[release("x"), register("x")])), "OK, HELD 2");
        assert_eq!(told(&mut process, &mut b), "granted x 2", "{shards} shards");
        assert_eq!(told(&mut process, &mut c), "");
        assert_eq!(words(&b.ask(&mut process, &[wait(0, "x")])), "GRANTED 2", "asked once more");
        assert_eq!(words(&b.ask(&mut process, &[release("x")])), "OK");
        assert_eq!(told(&mut process, &mut c), "granted x 3");
        assert_eq!(words(&c.ask(&mut process, &[release("x"), query("x")])), "OK, FREE");
        assert!(process.shards_are_tidy(), "nothing is kept of a name that nobody holds");
    }
}

/// An owner that expires, closes or is killed hands over like one that releases; a waiter that has
/// ended meanwhile is stepped over.
#[test]
fn the_end_of_an_owner_hands_over() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Native::connect(&mut process, 0);
        a.ask(&mut process, &[open(0, 1, 500, None), register("x"), register("y")]);
        let mut dead = Native::connect(&mut process, 0);
        dead.ask(&mut process, &[wait(0, "x"), wait(0, "y")]);
        let (mut b, of_b) = client(&mut process, 2);
        b.ask(&mut process, &[wait(0, "x"), wait(0, "y")]);
        process.disconnect(dead.link);
        process.settle();
        process.run_for(Span::from_ms(700));
        assert_eq!(told(&mut process, &mut b).matches("granted").count(), 2, "{shards} shards");
        let (mut c, _) = client(&mut process, 3);
        c.ask(&mut process, &[wait(0, "x"), wait(0, "y")]);
        let closed = c.ask(&mut process, &[with_secret(op::CLOSE, of_b.session, of_b.secret)]);
        assert_eq!(words(&closed), "OK");
        assert_eq!(told(&mut process, &mut c).matches("granted").count(), 2);
        let got = c.ask(&mut process, &[query("x"), release("x"), release("y")]);
        assert_eq!(words(&got[1..]), "OK, OK");
        assert!(process.shards_are_tidy());
    }
}

/// A wait has an end: whoever gives one is told when it is over, and is served no more.
#[test]
fn a_wait_times_out() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, _) = client(&mut process, 1);
        let (mut b, _) = client(&mut process, 2);
        let (mut c, _) = client(&mut process, 3);
        a.ask(&mut process, &[register("x")]);
        b.ask(&mut process, &[wait(300, "x")]);
        c.ask(&mut process, &[wait(5_000, "x")]);
        process.run_for(Span::from_ms(290));
        assert_eq!(told(&mut process, &mut b), "");
        process.run_for(Span::from_ms(20));
        assert_eq!(told(&mut process, &mut b), "ended x 1", "{shards} shards");
        a.ask(&mut process, &[release("x")]);
        assert_eq!(told(&mut process, &mut b), "");
        assert_eq!(told(&mut process, &mut c), "granted x 2");
        process.run_for(Span::from_s(6));
        assert_eq!(told(&mut process, &mut c), "", "the wait is over, and so is its timer");
        c.ask(&mut process, &[release("x")]);
        assert!(process.shards_are_tidy());
    }
}

/// A cancelled wait is over; one whose cancellation crosses its grant says that the name is its
/// client's, who then has to give it back. Neither is granted twice or lost.
#[test]
fn a_cancellation_may_cross_its_grant() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, _) = client(&mut process, 1);
        let (mut b, _) = client(&mut process, 2);
        let (mut c, _) = client(&mut process, 3);
        a.ask(&mut process, &[register("x")]);
        let of_b = b.ask(&mut process, &[wait(0, "x")]);
        let of_c = c.ask(&mut process, &[wait(0, "x")]);
        let foreign = c.ask(&mut process, &[cancel(&of_b[0], "x"), cancel(&of_b[0], "z")]);
        assert_eq!(words(&foreign), "NOTOWNER, NOTOWNER", "a ticket is its session's");
        let gone = b.ask(&mut process, &[cancel(&of_b[0], "x"), cancel(&of_b[0], "x")]);
        assert_eq!(words(&gone), "OK, NOTOWNER");
        // The release and the cancellation are on their way at the same time.
        a.send(&mut process, &[release("x")]);
        c.send(&mut process, &[cancel(&of_c[0], "x")]);
        process.settle();
        c.receive(&mut process);
        let got = c.frames.pop().expect("an answer");
        let held = told(&mut process, &mut c) == "granted x 2";
        assert_eq!(words(&got), if held { "GRANTED 2" } else { "OK" }, "{shards} shards");
        let after = b.ask(&mut process, &[register("x")]);
        assert_eq!(words(&after), if held { "HELD 2" } else { "GRANTED 2" });
    }
}

/// Readers share a name, each under a token of its own. A writer that waits is not overtaken by
/// readers that come later, and gets the name when the last of those before it has gone.
#[test]
fn readers_share_and_writers_are_not_starved() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, _) = client(&mut process, 1);
        let (mut b, _) = client(&mut process, 2);
        let (mut w, _) = client(&mut process, 3);
        let (mut late, _) = client(&mut process, 4);
        assert_eq!(words(&a.ask(&mut process, &[register_as(SHARED, 0, "x")])), "GRANTED 1");
        assert_eq!(words(&b.ask(&mut process, &[register_as(SHARED, 0, "x")])), "GRANTED 2");
        assert_eq!(words(&a.ask(&mut process, &[register_as(SHARED, 0, "x")])), "GRANTED 1");
        let refused = w.ask(&mut process, &[register("x"), register_as(COUNTING, 2, "x")]);
        assert_eq!(words(&refused), "MODE, MODE", "the first holder fixes the mode");
        assert_eq!(w.ask(&mut process, &[wait(0, "x")])[0].status(), status::QUEUED);
        let overtakes = late.ask(&mut process, &[register_as(SHARED, 0, "x"), query("x")]);
        assert_eq!(words(&overtakes), "HELD 1, OWNED 1");
        let queued = late.ask(&mut process, &[wait_as(SHARED, 0, 0, "x")]);
        assert_eq!(queued[0].status(), status::QUEUED);
        assert_eq!(words(&a.ask(&mut process, &[release("x"), release("x")])), "OK, NOTOWNER");
        assert_eq!(told(&mut process, &mut w), "");
        assert_eq!(words(&b.ask(&mut process, &[query("x"), release("x")])), "OWNED 2, OK");
        assert_eq!(told(&mut process, &mut w), "granted x 3", "{shards} shards");
        assert_eq!(told(&mut process, &mut late), "");
        assert_eq!(words(&w.ask(&mut process, &[release("x")])), "OK");
        assert_eq!(told(&mut process, &mut late), "granted x 4");
        assert_eq!(words(&late.ask(&mut process, &[release("x"), query("x")])), "OK, FREE");
        assert!(process.shards_are_tidy());
    }
}

/// A semaphore: as many hold the name as it has permits. One that becomes free goes to whoever
/// waits longest, also when its holder has ended.
#[test]
fn permits_are_counted() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut clients: Vec<_> = (1..=4).map(|node| client(&mut process, node)).collect();
        let two = |name| register_as(COUNTING, 2, name);
        assert_eq!(words(&clients[0].0.ask(&mut process, &[two("x")])), "GRANTED 1");
        assert_eq!(words(&clients[1].0.ask(&mut process, &[two("x")])), "GRANTED 2");
        let third = clients[2].0.ask(&mut process, &[two("x"), register_as(COUNTING, 3, "x")]);
        assert_eq!(words(&third), "HELD 1, MODE");
        let waits = [wait_as(COUNTING, 2, 0, "x")];
        assert_eq!(clients[2].0.ask(&mut process, &waits)[0].status(), status::QUEUED);
        assert_eq!(clients[3].0.ask(&mut process, &waits)[0].status(), status::QUEUED);
        let Opened { session, secret, .. } = clients[0].1;
        clients[1].0.ask(&mut process, &[with_secret(op::CLOSE, session, secret)]);
        assert_eq!(told(&mut process, &mut clients[2].0), "granted x 3", "{shards} shards");
        assert_eq!(words(&clients[1].0.ask(&mut process, &[release("x")])), "OK");
        assert_eq!(told(&mut process, &mut clients[3].0), "granted x 4");
        for at in [2, 3] {
            assert_eq!(words(&clients[at].0.ask(&mut process, &[release("x")])), "OK");
        }
        assert!(process.shards_are_tidy());
    }
}

/// A permit of a session that has ended is free the moment its end is answered, though it was not
/// swept yet behind all the names of another.
#[test]
fn a_permit_of_a_dead_session_is_free() {
    let mut process = start(2);
    let (mut a, of_a) = client(&mut process, 1);
    let (mut b, _) = client(&mut process, 2);
    a.ask(&mut process, &[register_as(COUNTING, 1, "x")]);
    let closed = with_secret(op::CLOSE, of_a.session, of_a.secret);
    let got = b.ask(&mut process, &[closed, register_as(COUNTING, 1, "x")]);
    assert_eq!(words(&got), "OK, GRANTED 2");
}

/// Many wait to share one name: all of them get it, in order, though one turn grants to a few
/// hundred only.
#[test]
fn a_thousand_readers_are_let_in_by_one_writer() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut w, _) = client(&mut process, 1);
        w.ask(&mut process, &[register("x")]);
        let mut readers: Vec<_> = (2..1_002).map(|node| client(&mut process, node).0).collect();
        for reader in &mut readers {
            reader.ask(&mut process, &[wait_as(SHARED, 0, 0, "x")]);
        }
        w.ask(&mut process, &[release("x")]);
        for (at, reader) in readers.iter_mut().enumerate() {
            assert_eq!(told(&mut process, reader), format!("granted x {}", at + 2));
        }
    }
}

/// A connection that is lost while its session waits changes nothing: back again, the session asks
/// once more and learns that the name is its own, or still waits under the same ticket. A bare
/// session's wait ends with its connection.
#[test]
fn who_was_away_asks_again() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, _) = client(&mut process, 1);
        let (mut b, of_b) = client(&mut process, 2);
        a.ask(&mut process, &[register("x"), register("y")]);
        let queued = b.ask(&mut process, &[wait(0, "x"), wait(0, "y")]);
        let mut bare = Native::connect(&mut process, 0);
        bare.ask(&mut process, &[wait(0, "y")]);
        process.disconnect(b.link);
        process.disconnect(bare.link);
        process.settle();
        a.ask(&mut process, &[release("x")]);
        let mut b = Native::connect(&mut process, shards - 1);
        let again = [open(0, 2, 10_000, Some(of_b.secret)), wait(0, "x"), wait(0, "y")];
        let got = b.ask(&mut process, &again);
        assert_eq!(got[1].words(), "GRANTED 2", "{shards} shards");
        assert_eq!(got[2], queued[1], "the same ticket");
        a.ask(&mut process, &[release("y")]);
        assert!(told(&mut process, &mut b).starts_with("granted y"));
        b.ask(&mut process, &[release("y"), release("x")]);
        assert!(process.shards_are_tidy(), "the bare one waits no more");
    }
}

/// Names that are shared are listed, by whoever holds them longest, and counted for their sessions.
#[test]
fn shared_names_are_seen() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, of_a) = client(&mut process, 1);
        let (mut b, _) = client(&mut process, 2);
        a.ask(&mut process, &[register_as(SHARED, 0, "x"), register("z")]);
        b.ask(&mut process, &[register_as(SHARED, 0, "x")]);
        let session = (op::SESSION, 0, of_a.session.0.to_le_bytes().to_vec());
        let Got::Data(_, record) = &a.ask(&mut process, &[session])[0] else { panic!() };
        let names = u64::from_le_bytes(record[24..32].try_into().expect("8 bytes"));
        assert_eq!(names, 2, "{shards} shards");
        let slot = ringway_core::Slot::of(b"x").number();
        let mut body = slot.to_le_bytes().to_vec();
        body.extend_from_slice(&[1, 0, 0, 0]);
        let Got::Data(_, page) = &b.ask(&mut process, &[(op::LIST, 0, body)])[0] else { panic!() };
        let mut page = Reader::new(&page[3..]);
        assert_eq!(page.short_bytes(), Ok(&b"x"[..]));
        assert_eq!(page.u16(), Ok(1));
        assert_eq!(page.short_bytes(), Ok(&b"x"[..]));
        assert_eq!(page.u64().map(SessionId), Ok(of_a.session));
    }
}

/// Who has ended may be found dead by a request before it is swept, whether it held a permit or
/// stood first in the queue: those behind it are served then, and not forgotten.
#[test]
fn nobody_waits_behind_the_dead() {
    for shards in SHARDS {
        for asks in [register_as(SHARED, 0, "s"), register_as(COUNTING, 2, "c")] {
            let mut process = start(shards);
            let (mut a, _) = client(&mut process, 1);
            let (mut b, _) = client(&mut process, 2);
            let (mut late, _) = client(&mut process, 3);
            a.ask(&mut process, &[register_as(SHARED, 0, "s"), register_as(COUNTING, 2, "c")]);
            let mut dead = Native::connect(&mut process, 0);
            dead.ask(&mut process, &[register_as(COUNTING, 2, "c"), wait(0, "s")]);
            let waits = [wait_as(SHARED, 0, 0, "s"), wait_as(COUNTING, 2, 0, "c")];
            b.ask(&mut process, &waits);
            // Both arrive in the same turn.
            process.disconnect(dead.link);
            late.send(&mut process, &[asks]);
            process.settle();
            let heard = told(&mut process, &mut b);
            assert!(heard.contains("granted s") && heard.contains("granted c"), "{heard}");
        }
    }
}

/// Six names, so that some lie on the home of whoever ends and some on every other shard.
const SPREAD: [&str; 6] = ["x", "y", "n1", "n2", "job", "a-name-of-24-characters"];

/// An owner, one who waits for what it has, and one who waits behind that and lives.
fn a_queue(process: &mut Process, lease: u32) -> (Native, Native, Native) {
    let mut a = Native::connect(process, 0);
    a.ask(process, &[open(0, 1, lease, None)]);
    a.ask(process, &SPREAD.map(register));
    let mut b = Native::connect(process, process.shards() - 1);
    b.ask(process, &[open(0, 2, lease, None)]);
    let (mut c, _) = client(process, 3);
    for waiter in [&mut b, &mut c] {
        let got = waiter.ask(process, &SPREAD.map(|name| wait(0, name)));
        assert!(got.iter().all(|got| got.status() == status::QUEUED));
    }
    (a, b, c)
}

/// Whoever is last in the queue has every name, each told once, and nobody waits any more.
fn the_last_has_all(process: &mut Process, last: &mut Native, case: &str) {
    let mut heard = stories::told(process, last, &[]);
    heard.sort();
    let names = heard.iter().map(|told| told.split(' ').nth(1).expect("a name"));
    let mut expected = SPREAD.to_vec();
    expected.sort_unstable();
    assert_eq!(names.collect::<Vec<_>>(), expected, "{case}: {heard:?}");
    assert!(heard.iter().all(|told| told.starts_with("granted ")), "{case}: {heard:?}");
    let got = last.ask(process, &SPREAD.map(release));
    assert!(got.iter().all(|got| got.status() == status::OK), "{case}: {}", words(&got));
    let got = last.ask(process, &SPREAD.map(query));
    assert!(got.iter().all(|got| got.status() == status::FREE), "{case}: {}", words(&got));
    assert!(process.shards_are_tidy(), "{case}");
}

/// The leases of an owner and of who waits first run out in the same moment, and their homes are
/// different shards: whichever end a name hears of first, it goes past the dead to who lives.
#[test]
fn the_owner_and_who_waits_first_expire_together() {
    for shards in SHARDS {
        for first in 0..shards {
            let mut process = start(shards);
            let (_a, mut b, mut c) = a_queue(&mut process, 500);
            // Nobody renews. The shards find out one after another, whoever is first.
            process.run_for(Span::from_ms(499));
            assert_eq!(told(&mut process, &mut c), "");
            process.pass(Span::from_ms(20));
            for turn in 0..3 * shards {
                process.turn((first + turn) % shards, 1);
            }
            process.run_for(Span::from_ms(100));
            let case = format!("{shards} shards, {first} first");
            the_last_has_all(&mut process, &mut c, &case);
            let stale = told(&mut process, &mut b);
            assert!(!stale.contains("ended"), "{case}: no wait of b had an end of its own");
        }
    }
}

/// A name is given back in the moment in which the lease of who waits first is over: it is granted
/// to a session that is alive still, and handed on at once, or goes past it. Either way who waits
/// behind it has it, and under the larger token.
#[test]
fn a_waiter_expires_while_it_is_granted() {
    for shards in SHARDS {
        let (mut handed_on, mut passed_over) = (0, 0);
        // From well before the end of the lease until behind it.
        for ms in 90..160 {
            let mut process = start(shards);
            let (mut a, mut b, mut c) = a_queue(&mut process, 500);
            process.run_for(Span::from_ms(400));
            a.ask(&mut process, &[(op::RENEW, 0, Vec::new())]);
            process.run_for(Span::from_ms(ms));
            a.send(&mut process, &SPREAD.map(release));
            for step in 0..ms as usize % (2 * shards) {
                process.turn(step % shards, 1);
            }
            process.run_for(Span::from_ms(100));
            a.receive(&mut process);
            let released = a.frames.pop().expect("answered");
            assert_eq!(words(&released), ["OK"; 6].join(", "));
            match told(&mut process, &mut b).matches("granted").count() {
                0 => passed_over += 1,
                grants if grants <= SPREAD.len() => handed_on += 1,
                grants => panic!("granted {grants} times"),
            }
            let case = format!("{shards} shards, {ms} ms");
            the_last_has_all(&mut process, &mut c, &case);
        }
        assert!(handed_on > 5 && passed_over > 5, "{handed_on} and {passed_over}");
    }
}

/// The owner's lease runs out in the turn in which who waits first renews its own, at the last
/// moment: the names are its, and stay so beyond the old end of its lease.
#[test]
fn a_waiter_that_renews_in_time_is_handed_what_expires() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (_a, mut b, mut c) = a_queue(&mut process, 500);
        process.run_for(Span::from_ms(490));
        b.send(&mut process, &[(op::RENEW, 0, Vec::new())]);
        process.run_for(Span::from_ms(300));
        b.receive(&mut process);
        assert_eq!(words(&b.frames.pop().expect("answered")), "OK", "{shards} shards");
        let heard = stories::told(&mut process, &mut b, &[]);
        assert_eq!(heard.len(), SPREAD.len(), "{shards} shards: {heard:?}");
        assert_eq!(told(&mut process, &mut c), "");
        process.run_for(Span::from_ms(500));
        the_last_has_all(&mut process, &mut c, &format!("{shards} shards"));
    }
}

/// Metadata of a name that several share goes with the last of them, also if that one was not
/// there to release it: whoever comes next finds none.
#[test]
fn the_last_holder_takes_the_metadata_along() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Native::connect(&mut process, 0);
        let set = set_meta(None, b"of a", "s");
        a.ask(&mut process, &[open(0, 1, 500, None), register_as(SHARED, 0, "s"), set]);
        let (mut b, _) = client(&mut process, 2);
        assert_eq!(b.ask(&mut process, &[wait(0, "s")])[0].status(), status::QUEUED);
        process.disconnect(a.link);
        process.run_for(Span::from_ms(700));
        assert_eq!(told(&mut process, &mut b), "granted s 2", "{shards} shards");
        let got = b.ask(&mut process, &[meta("s"), set_meta(Some(0), b"of b", "s")]);
        let Got::Data(status::DATA, described) = &got[0] else { panic!("{got:?}") };
        assert_eq!(described[16..], [0; 4], "version 0, no bytes");
        assert_eq!(got[1], Got::Data(status::DATA, vec![1, 0, 0, 0]));
    }
}

/// A lock is over with its session: those who share its name afterwards may describe it.
#[test]
fn a_lock_leaves_nothing_to_those_who_share() {
    for shards in SHARDS {
        let mut process = start(shards);
        let link = process.connect(0);
        process.send(link, b"SET s mine NX PX 300\r\n");
        process.settle();
        let (mut b, _) = client(&mut process, 2);
        assert_eq!(b.ask(&mut process, &[wait_as(SHARED, 0, 0, "s")])[0].status(), status::QUEUED);
        process.run_for(Span::from_ms(500));
        assert_eq!(told(&mut process, &mut b), "granted s 2", "{shards} shards");
        let got = b.ask(&mut process, &[set_meta(None, b"ours", "s")]);
        assert_eq!(got[0], Got::Data(status::DATA, vec![1, 0, 0, 0]));
    }
}

/// What is not allowed is refused by itself: no permits, no such mode, bodies cut short.
#[test]
fn broken_wishes_are_refused() {
    let mut process = start(2);
    let (mut a, _) = client(&mut process, 1);
    let got = a.ask(
        &mut process,
        &[
            register_as(COUNTING, 0, "x"),
            register_as(COUNTING, 65_537, "x"),
            (op::REGISTER, 3, b"x".to_vec()),
            (op::REGISTER, 0x40, b"x".to_vec()),
            (op::REGISTER, COUNTING, vec![1]),
            (op::WAIT, 0, vec![1, 2]),
            (op::WAIT, 0, vec![0, 0, 0, 0]),
            (op::WAIT, op::REGISTER_REPLICATED, b"\0\0\0\0x".to_vec()),
            (op::CANCEL, 1, b"12345678x".to_vec()),
            (op::CANCEL, 0, b"1234567".to_vec()),
        ],
    );
    let expected = "MALFORMED, MALFORMED, MODE, UNSUPPORTED, MALFORMED, MALFORMED, BADNAME, \
                    NOREPLICA, UNSUPPORTED, MALFORMED";
    assert_eq!(words(&got), expected);
    assert_eq!(words(&a.ask(&mut process, &[query("x")])), "FREE");
}

/// Who waits takes memory, and that has a bound: one beyond it is refused and the others stay.
#[test]
fn waiting_has_a_bound() {
    let mut process = Process::start(&Settings { side_bytes: 20_000, ..Settings::default() });
    let (mut a, _) = client(&mut process, 1);
    a.ask(&mut process, &[register("x")]);
    let mut crowd: Vec<_> = (2..400).map(|node| client(&mut process, node).0).collect();
    let mut waiting = Vec::new();
    for (at, one) in crowd.iter_mut().enumerate() {
        match one.ask(&mut process, &[wait(60_000, "x")])[0].status() {
            status::QUEUED => waiting.push(at),
            refused => assert_eq!(refused, status::FULL),
        }
    }
    assert!((100..300).contains(&waiting.len()), "{}", waiting.len());
    let last = *waiting.last().expect("some wait");
    assert_eq!(last + 1, waiting.len(), "the first come wait");
    process.disconnect(crowd[5].link);
    a.ask(&mut process, &[release("x")]);
    assert_eq!(told(&mut process, &mut crowd[0]), "granted x 2");
    assert_eq!(crowd[399 - 2].ask(&mut process, &[wait(0, "x")])[0].status(), status::QUEUED);
}
