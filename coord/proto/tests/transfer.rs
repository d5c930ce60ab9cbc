//! Stories of names that change hands, and of what is said about them.

use ringway_coord_proto::wire::{op, push, status};
use ringway_core::{SessionId, Token};
use ringway_sim::native::{
    Got, Native, meta, query, register, register_as, release, release_if, revoke, send_fenced,
    set_meta, transfer, wait, wait_as, with_secret,
};
use ringway_sim::process::Process;
use ringway_sim::stories::{self, Users, client, guarded, start, user, words};

const SHARDS: [usize; 3] = [1, 2, 5];
const SHARED: u8 = op::MODE_SHARED;

/// What a client was told, sorted: no order is promised across slots.
fn told(process: &mut Process, client: &mut Native, sessions: &[SessionId]) -> Vec<String> {
    let mut told = stories::told(process, client, sessions);
    told.sort();
    told
}

/// A transfer is one step: the name is never free, the new owner has a larger token and hears of
/// it, the old one's token is worth nothing from then on.
#[test]
fn a_transfer_is_one_step() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, of_a) = client(&mut process, 1);
        let (mut b, of_b) = client(&mut process, 2);
        let (mut c, _) = client(&mut process, 3);
        let Got::Owner(_, _, old) = a.ask(&mut process, &[register("x")])[0] else { panic!() };
        c.ask(&mut process, &[wait(0, "x")]);
        let moved = a.ask(&mut process, &[transfer(of_b.session, "x"), query("x")]);
        assert_eq!(words(&moved), "GRANTED 2, OWNED 2");
        let Got::Owner(_, owner, new) = moved[0] else { panic!() };
        assert_eq!((owner, old < new), (of_b.session, true));
        let heard = told(&mut process, &mut b, &[of_a.session]);
        assert_eq!(heard, ["received x 2 from 0"], "{shards} shards");
        let late = a.ask(&mut process, &[release_if("x", old), transfer(of_b.session, "x")]);
        assert_eq!(words(&late), "NOTOWNER, NOTOWNER");
        assert_eq!(told(&mut process, &mut c, &[]).len(), 0, "who waits keeps waiting");
        assert_eq!(words(&b.ask(&mut process, &[release("x")])), "OK");
        assert_eq!(told(&mut process, &mut c, &[]), ["granted x 3"]);
        c.ask(&mut process, &[release("x")]);
        assert!(process.shards_are_tidy());
    }
}

/// A token of before a transfer is worth nothing, to whoever shows it: not when the name is
/// another's, and not when it has come back to the one who had it, under a new token. A fenced
/// message, a release and a transfer under it are refused, and change nothing.
#[test]
fn an_old_token_is_refused_wherever_the_name_went() {
    for shards in SHARDS {
        for (mode, name) in [(op::MODE_EXCLUSIVE, "x"), (SHARED, "s")] {
            let mut process = start(shards);
            let (mut a, of_a) = client(&mut process, 1);
            let (mut b, of_b) = client(&mut process, 2);
            let token = |got: &Got| match *got {
                Got::Owner(status::GRANTED_EPHEMERAL, _, token) => token,
                _ => panic!("not granted: {got:?}"),
            };
            b.ask(&mut process, &[register("store")]);
            let first = token(&a.ask(&mut process, &[register_as(mode, 0, name)])[0]);
            let second = token(&a.ask(&mut process, &[transfer(of_b.session, name)])[0]);
            let under = |token| {
                let (code, _, body) = transfer(of_b.session, name);
                let body = [&token_bytes(token)[..], &body].concat();
                let send = send_fenced(op::SEND_RECEIPT, (name, token), "store", b"write");
                [send, release_if(name, token), (code, op::TRANSFER_TOKEN, body)]
            };
            let refused = "FENCED, NOTOWNER, NOTOWNER";
            for old in [first, second] {
                assert_eq!(words(&a.ask(&mut process, &under(old))), refused, "it is b's");
            }
            assert_eq!(words(&b.ask(&mut process, &under(first))), refused, "it was a's");
            let third = token(&b.ask(&mut process, &[transfer(of_a.session, name)])[0]);
            assert!(first < second && second < third, "{shards} shards");
            for old in [first, second] {
                assert_eq!(words(&a.ask(&mut process, &under(old))), refused, "it came back");
                assert_eq!(words(&b.ask(&mut process, &under(old))), refused);
            }
            let kept = a.ask(&mut process, &[query(name)]);
            let Got::Owner(_, owner, now) = kept[0] else { panic!("{kept:?}") };
            assert_eq!((owner, now), (of_a.session, third));
            assert_eq!(words(&a.ask(&mut process, &under(third)[..2])), "OK, OK");
        }
    }
}

fn token_bytes(token: Token) -> [u8; 8] {
    token.0.to_le_bytes()
}

/// The balancer's operation: five thousand names in two frames, each to another session, and both
/// sides know every token.
#[test]
fn thousands_of_names_move_at_once() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, of_a) = client(&mut process, 1);
        let (mut b, of_b) = client(&mut process, 2);
        let names: Vec<_> = (0..5_000).map(|at| format!("user/{at}")).collect();
        for part in names.chunks(2_500) {
            let claims: Vec<_> = part.iter().map(|name| register(name)).collect();
            a.ask(&mut process, &claims);
            let moves: Vec<_> = part.iter().map(|name| transfer(of_b.session, name)).collect();
            let got = a.ask(&mut process, &moves);
            assert!(got.iter().all(|got| got.status() == status::GRANTED_EPHEMERAL));
        }
        assert_eq!(told(&mut process, &mut b, &[of_a.session]).len(), 5_000, "{shards} shards");
        let closed = with_secret(op::CLOSE, of_a.session, of_a.secret);
        let asked: Vec<_> = names[..2_000].iter().map(|name| query(name)).collect();
        b.ask(&mut process, &[closed]);
        let after = b.ask(&mut process, &asked);
        let of_b = |got: &Got| matches!(got, Got::Owner(_, owner, _) if *owner == of_b.session);
        assert!(after.iter().all(of_b), "the end of the old owner is not the end of its names");
    }
}

/// A transfer to a session that is ending, or has ended, changes nothing or is followed by the
/// end: the name is then free, or goes to whoever waits, and to nobody else.
#[test]
fn a_transfer_to_a_dying_session() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, _) = client(&mut process, 1);
        let (mut b, of_b) = client(&mut process, 2);
        let (mut c, _) = client(&mut process, 3);
        a.ask(&mut process, &[register("x"), register("y")]);
        c.ask(&mut process, &[wait(0, "x")]);
        // Both are on their way at the same time.
        b.send(&mut process, &[with_secret(op::CLOSE, of_b.session, of_b.secret)]);
        a.send(&mut process, &[transfer(of_b.session, "x")]);
        process.settle();
        a.receive(&mut process);
        match a.frames.pop().expect("an answer")[0].status() {
            status::NOSESSION => assert_eq!(words(&a.ask(&mut process, &[query("x")])), "OWNED 1"),
            granted => {
                assert_eq!(granted, status::GRANTED_EPHEMERAL, "{shards} shards");
                assert_eq!(told(&mut process, &mut c, &[]), ["granted x 3"]);
            }
        }
        let gone = a.ask(&mut process, &[transfer(of_b.session, "y"), query("y")]);
        assert_eq!(words(&gone), "NOSESSION, OWNED 1");
    }
}

/// Who waits for a name and is given it has waited long enough: it hears of the end of its wait,
/// once. Who shares a name gives its part, but not to one who has a part already.
#[test]
fn a_transfer_to_one_who_waits_or_shares() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, of_a) = client(&mut process, 1);
        let (mut b, of_b) = client(&mut process, 2);
        let (mut c, of_c) = client(&mut process, 3);
        a.ask(&mut process, &[register("x"), register_as(SHARED, 0, "s")]);
        b.ask(&mut process, &[wait(60_000, "x"), register_as(SHARED, 0, "s")]);
        let got = a.ask(&mut process, &[transfer(of_b.session, "x"), transfer(of_b.session, "s")]);
        assert_eq!(words(&got), "GRANTED 2, HELD 2");
        assert_eq!(told(&mut process, &mut b, &[]), ["granted x 2"], "{shards} shards");
        assert_eq!(words(&a.ask(&mut process, &[transfer(of_c.session, "s")])), "GRANTED 3");
        assert_eq!(told(&mut process, &mut c, &[of_a.session]), ["received s 3 from 0"]);
        assert_eq!(words(&a.ask(&mut process, &[release("s")])), "NOTOWNER");
        let own = b.ask(&mut process, &[transfer(of_b.session, "x"), release("x"), release("s")]);
        assert_eq!(words(&own), "GRANTED 2, OK, OK");
        c.ask(&mut process, &[release("s")]);
        assert!(process.shards_are_tidy());
    }
}

/// An operator takes a name from whoever holds it, and gives it to another, to whoever waits, or
/// to nobody. The one who had it hears so.
#[test]
fn an_operator_revokes() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, of_a) = client(&mut process, 1);
        let (mut b, of_b) = client(&mut process, 2);
        let (mut c, _) = client(&mut process, 3);
        let all = [of_a.session, of_b.session];
        a.ask(&mut process, &[register("x"), register("y"), register_as(SHARED, 0, "s")]);
        b.ask(&mut process, &[wait(0, "y"), register_as(SHARED, 0, "s")]);
        let to_b = Some(of_b.session);
        let got = c.ask(&mut process, &[revoke(to_b, "x"), revoke(None, "y"), revoke(None, "z")]);
        assert_eq!(words(&got), "GRANTED 2, OK, FREE");
        let heard = told(&mut process, &mut a, &all);
        assert_eq!(heard, ["lost x 1 to 1, 1", "lost y 1 to nobody 0, 2"], "{shards} shards");
        let heard = told(&mut process, &mut b, &all);
        assert_eq!(heard, ["granted y 2", "received x 2 from nobody 0"]);
        let got = c.ask(&mut process, &[revoke(to_b, "s"), revoke(None, "s"), query("s")]);
        assert_eq!(words(&got), "MODE, OK, FREE");
        assert_eq!(told(&mut process, &mut a, &all), ["lost s 1 to nobody 0, 2"]);
        assert_eq!(told(&mut process, &mut b, &all), ["lost s 2 to nobody 0, 2"]);
        b.ask(&mut process, &[release("x"), release("y")]);
        assert!(process.shards_are_tidy());
    }
}

/// A name that was taken from its only owner, and that nobody waits for, is as free as one that
/// nobody ever had.
#[test]
fn a_revoked_name_can_be_registered() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, _) = client(&mut process, 1);
        let (mut b, _) = client(&mut process, 2);
        let got = a.ask(&mut process, &[register("x"), revoke(None, "x"), query("x")]);
        assert_eq!(words(&got), "GRANTED 1, OK, FREE");
        assert_eq!(words(&b.ask(&mut process, &[register("x")])), "GRANTED 2", "{shards} shards");
        assert_eq!(words(&b.ask(&mut process, &[release("x")])), "OK");
        assert!(process.shards_are_tidy());
    }
}

/// Whoever is given a name that it waited for has it as it is held, not as it was wanted; and
/// those who stood behind it in the queue are served if they can be.
#[test]
fn a_transfer_to_a_waiter_gives_what_there_is() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, _) = client(&mut process, 1);
        let (mut b, of_b) = client(&mut process, 2);
        let (mut c, _) = client(&mut process, 3);
        a.ask(&mut process, &[register_as(SHARED, 0, "s"), register("x")]);
        b.ask(&mut process, &[wait(0, "s"), wait_as(SHARED, 0, 0, "x")]);
        c.ask(&mut process, &[wait_as(SHARED, 0, 0, "s")]);
        let to_b = of_b.session;
        let got = a.ask(&mut process, &[transfer(to_b, "s"), transfer(to_b, "x")]);
        assert_eq!(words(&got), "GRANTED 2, GRANTED 2");
        process.settle();
        b.receive(&mut process);
        let mode = |(code, body): &(u8, Vec<u8>)| (*code, body[16], body[17]);
        let mut heard: Vec<_> = b.told.iter().map(mode).collect();
        heard.sort_unstable();
        let granted = push::GRANTED;
        let expected = [(granted, op::MODE_EXCLUSIVE, b'x'), (granted, SHARED, b's')];
        assert_eq!(heard, expected, "{shards} shards");
        assert_eq!(told(&mut process, &mut c, &[]), ["granted s 3"], "it shares with b");
    }
}

/// What an owner says about its name: versions count, a change under an old version is refused and
/// shown what is there, and it goes with the grant.
#[test]
fn metadata_belongs_to_a_grant() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, of_a) = client(&mut process, 1);
        let (mut b, of_b) = client(&mut process, 2);
        a.ask(&mut process, &[register("x"), register("y")]);
        let got = a.ask(
            &mut process,
            &[
                meta("x"),
                set_meta(None, b"one", "x"),
                set_meta(Some(1), b"two", "x"),
                set_meta(Some(1), b"three", "x"),
                meta("x"),
                set_meta(Some(0), b"first", "y"),
                set_meta(None, &[7; 257], "y"),
                meta("free"),
            ],
        );
        let described = |version: u32, bytes: &[u8]| {
            let token = Token::new(of_a.session.epoch(), 1);
            let mut data = of_a.session.0.to_le_bytes().to_vec();
            data.extend_from_slice(&token.0.to_le_bytes());
            data.extend_from_slice(&version.to_le_bytes());
            Got::Data(status::DATA, [data.as_slice(), bytes].concat())
        };
        assert_eq!(got[0], described(0, b""), "{shards} shards");
        assert_eq!(got[1], Got::Data(status::DATA, vec![1, 0, 0, 0]));
        assert_eq!(got[2], Got::Data(status::DATA, vec![2, 0, 0, 0]));
        assert_eq!(got[3], Got::Data(status::CONFLICT, b"\x02\0\0\0two".to_vec()));
        assert_eq!(got[4], described(2, b"two"));
        assert_eq!(got[5], Got::Data(status::DATA, vec![1, 0, 0, 0]));
        assert_eq!(words(&got[6..]), "MALFORMED, FREE");
        assert_eq!(words(&b.ask(&mut process, &[set_meta(None, b"mine", "x")])), "NOTOWNER");
        a.ask(&mut process, &[release("x"), transfer(of_b.session, "y")]);
        b.ask(&mut process, &[register("x")]);
        for name in ["x", "y"] {
            let Got::Data(_, data) = &b.ask(&mut process, &[meta(name)])[0] else { panic!() };
            assert_eq!(data.len(), 20, "what was said about {name} went with its grant");
        }
        assert!(process.shards_are_tidy());
    }
}

/// The end of a session takes what it said along, also where nobody else ever asks for the name.
#[test]
fn metadata_of_a_dead_session_is_swept() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, of_a) = client(&mut process, 1);
        let (mut b, _) = client(&mut process, 2);
        let names: Vec<_> = (0..3_000).map(|at| format!("n{at}")).collect();
        for part in names.chunks(1_500) {
            let ops = part.iter().flat_map(|name| [register(name), set_meta(None, b"here", name)]);
            a.ask(&mut process, &ops.collect::<Vec<_>>());
        }
        assert!(!process.shards_are_tidy());
        b.ask(&mut process, &[with_secret(op::CLOSE, of_a.session, of_a.secret)]);
        assert_eq!(words(&b.ask(&mut process, &[register("n1"), query("n2")])), "GRANTED 2, FREE");
        process.settle();
        assert!(process.shards_are_tidy(), "{shards} shards");
    }
}

/// Who is bound to namespaces gives its names to sessions of its own kind, and learns nothing of
/// others; who sees all gives them to anybody.
#[test]
fn a_transfer_stays_with_its_tenant() {
    let users =
        || Users::new(&[("a", Some("a"), false), ("b", Some("b"), false), ("all", None, false)]);
    for shards in SHARDS {
        let mut process = guarded(shards, users);
        let (mut a, of_a) = user(&mut process, 1, "a");
        let (_, of_a_too) = user(&mut process, 2, "a");
        let (mut b, of_b) = user(&mut process, 3, "b");
        let (mut all, of_all) = user(&mut process, 4, "all");
        a.ask(&mut process, &[register("a/x"), register("a/y"), register("a/z")]);
        let asked = [
            transfer(of_b.session, "a/x"),
            transfer(of_all.session, "a/x"),
            transfer(SessionId(of_b.session.0 + 1), "a/x"),
            transfer(of_a_too.session, "a/x"),
        ];
        let got = words(&a.ask(&mut process, &asked));
        assert!(got.starts_with("NOSESSION, NOSESSION, NOSESSION, GRANTED"), "{shards}: {got}");
        assert_eq!(b.told, [], "nobody sends it anything");
        all.ask(&mut process, &[register("b/x")]);
        let got = all.ask(&mut process, &[transfer(of_b.session, "b/x")]);
        assert_eq!(got[0].status(), status::GRANTED_EPHEMERAL);
        assert_eq!(stories::told(&mut process, &mut b, &[of_all.session]).len(), 1);
        // The place of a session that has ended is another tenant's next.
        a.ask(&mut process, &[with_secret(op::CLOSE, of_a.session, of_a.secret)]);
        process.settle();
        let (mut b_too, of_b_too) = user(&mut process, 1, "b");
        b_too.ask(&mut process, &[register("b/y")]);
        let got = b_too.ask(&mut process, &[transfer(of_a_too.session, "b/y")]);
        assert_eq!(got, [Got::Plain(status::NOSESSION)]);
        let back = b.ask(&mut process, &[transfer(of_b_too.session, "b/x")]);
        assert_eq!(back[0].status(), status::GRANTED_EPHEMERAL);
    }
}
