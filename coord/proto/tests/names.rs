//! Stories of names, sessions and tokens, told through the bytes of connections.

use ringway_coord_proto::wire::{op, push, status};
use ringway_core::{Moment, Span};
use ringway_sim::native::{
    Got, Native, open, opened, query, register, release, release_if, with_secret,
};
use ringway_sim::process::{Process, Settings};
use ringway_sim::stories::{start, words};

const SHARDS: [usize; 3] = [1, 2, 5];

/// The whole point in one story: one owner, the others hear who it is, a release frees the name,
/// and the next grant has a larger token.
#[test]
fn a_name_has_one_owner() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Native::connect(&mut process, 0);
        let mut b = Native::connect(&mut process, shards - 1);
        let first = a.ask(&mut process, &[register("x"), register("y"), query("z")]);
        assert_eq!(words(&first), "GRANTED 1, GRANTED 1, FREE", "{shards} shards");
        let again = a.ask(&mut process, &[register("x")]);
        assert_eq!(again[0], first[0], "registering what one holds returns the same token");
        let held = b.ask(&mut process, &[register("x"), query("x"), release("x")]);
        assert_eq!(words(&held), "HELD 1, OWNED 1, NOTOWNER");
        assert_eq!(words(&a.ask(&mut process, &[release("x"), release("x")])), "OK, NOTOWNER");
        assert_eq!(words(&b.ask(&mut process, &[register("x")])), "GRANTED 2");
    }
}

/// A bare connection's session ends with it, and everything it held is free at once.
#[test]
fn a_lost_bare_connection_frees_its_names() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Native::connect(&mut process, 0);
        let names: Vec<_> = (0..5_000).map(|i| register(&format!("name-{i}"))).collect();
        for chunk in names.chunks(1_000) {
            assert!(
                a.ask(&mut process, chunk)
                    .iter()
                    .all(|got| got.words() == "GRANTED 1"
                        || got.status() == status::GRANTED_EPHEMERAL)
            );
        }
        process.disconnect(a.link);
        process.settle();
        let mut b = Native::connect(&mut process, shards - 1);
        let asked: Vec<_> = (0..2_000).map(|i| query(&format!("name-{i}"))).collect();
        let free = b.ask(&mut process, &asked);
        assert!(free.iter().all(|got| *got == Got::Plain(status::FREE)), "{shards} shards");
        let left: usize = (0..shards).map(|s| process.shard(s).names().table().len()).sum();
        assert_eq!(left, 0, "swept");
    }
}

/// A lease that nobody renews runs out; the names go to whoever asks, with a larger token, and
/// the late owner is told that its session has ended.
#[test]
fn an_expired_lease_frees_its_names() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Native::connect(&mut process, 0);
        let got = a.ask(&mut process, &[open(0, 7, 1_000, None), register("job")]);
        let session = opened(&got[0]).session;
        assert_eq!(got[1].words(), "GRANTED 1");
        process.run_for(Span::from_ms(900));
        assert_eq!(words(&a.ask(&mut process, &[(op::RENEW, 0, vec![])])), "OK");
        process.run_for(Span::from_ms(900));
        let mut b = Native::connect(&mut process, shards - 1);
        assert_eq!(b.ask(&mut process, &[register("job")])[0].words(), "HELD 1");
        process.run_for(Span::from_ms(200));
        assert_eq!(b.ask(&mut process, &[register("job")])[0].words(), "GRANTED 2");
        a.receive(&mut process);
        assert_eq!(a.notices, [(push::SESSION_ENDED, session, 1)], "{shards} shards");
        let late = a.ask(&mut process, &[(op::RENEW, 0, vec![]), register("job"), release("job")]);
        assert_eq!(words(&late), "NOSESSION, NOSESSION, NOSESSION");
    }
}

/// Losing the receiving connection releases nothing; the secret takes the session over, and the
/// connection that had it hears so and is closed.
#[test]
fn a_session_survives_its_connection() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Native::connect(&mut process, 0);
        let got = a.ask(&mut process, &[open(0, 7, 5_000, None), register("x")]);
        let mine = opened(&got[0]);
        process.disconnect(a.link);
        process.settle();
        let mut b = Native::connect(&mut process, shards - 1);
        let got = b.ask(&mut process, &[open(0, 7, 5_000, Some(mine.secret)), register("x")]);
        assert_eq!(opened(&got[0]), ringway_sim::native::Opened { resumed: true, ..mine });
        assert_eq!(got[1].words(), "GRANTED 1");
        let mut c = Native::connect(&mut process, 0);
        let got = c.ask(&mut process, &[open(0, 7, 5_000, Some(mine.secret)), query("x")]);
        assert!(opened(&got[0]).resumed);
        b.receive(&mut process);
        assert_eq!(b.notices, [(push::SESSION_MOVED, mine.session, 0)]);
        assert!(process.is_closed(b.link), "{shards} shards");
        let wrong = open(0, 7, 5_000, Some([9; 16]));
        assert_eq!(words(&c.ask(&mut process, &[wrong])), "REFUSED");
    }
}

/// A node that opens without its secret ends its earlier life: its names are free for itself and
/// for others the moment the opening is answered.
#[test]
fn opening_again_replaces_the_session() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Native::connect(&mut process, 0);
        let names: Vec<_> = (0..100).map(|i| register(&format!("n{i}"))).collect();
        let before = opened(&a.ask(&mut process, &[open(0, 7, 5_000, None)])[0]);
        a.ask(&mut process, &names);
        let mut b = Native::connect(&mut process, shards - 1);
        let mut ops = vec![open(0, 7, 5_000, None)];
        ops.extend(names);
        let got = b.ask(&mut process, &ops);
        let after = opened(&got[0]);
        assert!(!after.resumed && after.session != before.session);
        assert!(got[1..].iter().all(|got| got.status() == status::GRANTED_EPHEMERAL));
        a.receive(&mut process);
        assert_eq!(a.notices, [(push::SESSION_ENDED, before.session, 2)], "{shards} shards");
        let old = open(0, 7, 5_000, Some(before.secret));
        assert_eq!(words(&a.ask(&mut process, &[old])), "REFUSED", "the old life never returns");
    }
}

/// A release under an old token is refused: the caller talks of a grant that is over.
#[test]
fn a_conditional_release_needs_the_present_token() {
    let mut process = start(2);
    let mut a = Native::connect(&mut process, 0);
    let Got::Owner(_, _, old) = a.ask(&mut process, &[register("x")])[0] else { panic!() };
    a.ask(&mut process, &[release("x")]);
    let Got::Owner(_, _, new) = a.ask(&mut process, &[register("x")])[0] else { panic!() };
    assert!(old < new);
    let got = a.ask(&mut process, &[release_if("x", old), release_if("x", new)]);
    assert_eq!(words(&got), "NOTOWNER, OK");
}

/// A gateway connection keeps many sessions alive by their secrets, in one frame.
#[test]
fn a_gateway_renews_many_sessions() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut gateway = Native::connect(&mut process, 0);
        let opens: Vec<_> =
            (0..300).map(|node| open(op::OPEN_GATEWAY, node, 1_000, None)).collect();
        let sessions: Vec<_> = gateway.ask(&mut process, &opens).iter().map(opened).collect();
        for _ in 0..5 {
            process.run_for(Span::from_ms(700));
            let renewals: Vec<_> =
                sessions.iter().map(|s| with_secret(op::RENEW, s.session, s.secret)).collect();
            let got = gateway.ask(&mut process, &renewals);
            assert!(got.iter().all(|got| *got == Got::Plain(status::OK)), "{shards} shards");
        }
        let wrong = with_secret(op::RENEW, sessions[0].session, [1; 16]);
        assert_eq!(words(&gateway.ask(&mut process, &[wrong])), "REFUSED");
        process.run_for(Span::from_ms(1_100));
        let renewal = with_secret(op::RENEW, sessions[5].session, sessions[5].secret);
        assert_eq!(words(&gateway.ask(&mut process, &[renewal])), "NOSESSION");
    }
}

/// After an unclean stop nothing is granted until the longest lease has passed, and the client
/// is told how long that takes.
#[test]
fn nothing_is_granted_while_starting() {
    let grants_from = Moment(0) + Span::from_ms(300);
    let settings = Settings { grants_from, ..Settings::default() };
    let mut process = Process::start(&settings);
    let mut a = Native::connect(&mut process, 0);
    let got = a.ask(&mut process, &[register("x"), query("x")]);
    assert_eq!(got[0], Got::Data(status::STARTING, 300u32.to_le_bytes().to_vec()));
    assert_eq!(got[1], Got::Plain(status::FREE));
    process.run_for(Span::from_ms(300));
    assert_eq!(words(&a.ask(&mut process, &[register("x")])), "GRANTED 1");
}

/// What is not understood is answered by itself; the ops around it are executed.
#[test]
fn a_bad_op_harms_nobody() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Native::connect(&mut process, 0);
        let long = "n".repeat(256);
        let got = a.ask(
            &mut process,
            &[
                register("a"),
                (0x7E, 0, vec![1, 2, 3]),
                register(""),
                register(&long),
                (op::REGISTER, 1, b"a".to_vec()),
                (op::REGISTER, op::REGISTER_REPLICATED, b"a".to_vec()),
                (op::REGISTER, 0x80, b"a".to_vec()),
                (op::OPEN, 0, vec![1, 2]),
                (op::PING, 0, b"hello".to_vec()),
                query("a"),
            ],
        );
        assert_eq!(
            words(&got),
            "GRANTED 1, UNKNOWN_OP, BADNAME, BADNAME, MODE, NOREPLICA, UNSUPPORTED, MALFORMED, \
             DATA, OWNED 1"
        );
        assert_eq!(got[8], Got::Data(status::DATA, b"hello".to_vec()));
    }
}

/// The inspection ops: one session, all of them in pages, by node, and an operator's kill.
#[test]
fn sessions_can_be_looked_at_and_killed() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Native::connect(&mut process, 0);
        let mine = opened(&a.ask(&mut process, &[open(0, 42, 5_000, None)])[0]);
        let names: Vec<_> = (0..50).map(|i| register(&format!("n{i}"))).collect();
        a.ask(&mut process, &names);
        let mut b = Native::connect(&mut process, shards - 1);
        let by_node = (op::NODE, 0, 42u64.to_le_bytes().to_vec());
        let by_id = (op::SESSION, 0, mine.session.0.to_le_bytes().to_vec());
        let got = b.ask(&mut process, &[by_node, by_id.clone()]);
        assert_eq!(got[0], got[1]);
        let Got::Data(status::DATA, record) = &got[0] else { panic!("{:?}", got[0]) };
        assert_eq!(u64::from_le_bytes(record[24..32].try_into().unwrap()), 50, "names");
        let mut seen = 0;
        let mut cursor = 0u64;
        loop {
            let mut body = cursor.to_le_bytes().to_vec();
            body.extend_from_slice(&10u16.to_le_bytes());
            let got = b.ask(&mut process, &[(op::SESSIONS, 0, body)]);
            let Got::Data(_, page) = &got[0] else { panic!("{got:?}") };
            cursor = u64::from_le_bytes(page[..8].try_into().unwrap());
            seen += u16::from_le_bytes(page[8..10].try_into().unwrap());
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(seen, 1, "{shards} shards");
        let kill = (op::KILL, 0, mine.session.0.to_le_bytes().to_vec());
        assert_eq!(words(&b.ask(&mut process, &[kill, by_id])), "OK, NOSESSION");
        a.receive(&mut process);
        assert_eq!(a.notices, [(push::SESSION_ENDED, mine.session, 3)]);
        assert_eq!(words(&b.ask(&mut process, &[register("n1")])), "GRANTED 2");
    }
}

/// A list has every name once, by slot and name, however small the pages are.
#[test]
fn a_list_visits_every_name_once() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut a = Native::connect(&mut process, 0);
        let names: Vec<_> = (0..1_000).map(|i| register(&format!("app/{i}"))).collect();
        a.ask(&mut process, &names);
        a.ask(&mut process, &[register("other/1")]);
        let (mut slot, mut after, mut seen) = (0u16, Vec::new(), Vec::new());
        loop {
            let mut body = slot.to_le_bytes().to_vec();
            body.extend_from_slice(&97u16.to_le_bytes());
            body.push(after.len() as u8);
            body.extend_from_slice(&after);
            body.extend_from_slice(b"\x04app/");
            let got = a.ask(&mut process, &[(op::LIST, 0, body)]);
            let Got::Data(status::DATA, page) = &got[0] else { panic!("{got:?}") };
            let mut reader = ringway_core::wire::Reader::new(page);
            let done = reader.u8().unwrap() != 0;
            slot = reader.u16().unwrap();
            after = reader.short_bytes().unwrap().to_vec();
            for _ in 0..reader.u16().unwrap() {
                seen.push(reader.short_bytes().unwrap().to_vec());
                reader.bytes(16).unwrap();
            }
            if done {
                break;
            }
        }
        let mut expected: Vec<_> = (0..1_000).map(|i| format!("app/{i}").into_bytes()).collect();
        expected.sort_by_key(|name| (ringway_core::Slot::of(name), name.clone()));
        assert_eq!(seen, expected, "{shards} shards");
    }
}

/// A client that does not read its replies is no longer read, and nobody else notices.
#[test]
fn a_slow_reader_is_no_longer_read() {
    let mut process = start(1);
    let mut slow = Native::connect(&mut process, 0);
    let mut other = Native::connect(&mut process, 0);
    slow.ask(&mut process, &[register("x")]);
    process.set_backlog(slow.link, 2 * 1024 * 1024);
    slow.send(&mut process, &[query("x")]);
    process.settle();
    slow.receive(&mut process);
    assert!(!slow.is_answered() && process.is_paused(slow.link));
    assert_eq!(words(&other.ask(&mut process, &[query("x")])), "OWNED 1");
    process.set_backlog(slow.link, 0);
    process.settle();
    slow.receive(&mut process);
    assert!(slow.is_answered() && !process.is_paused(slow.link));
}
