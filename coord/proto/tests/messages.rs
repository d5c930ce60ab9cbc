//! Stories of messages: who hears them, in which order, and what becomes of those that nobody does.

use ringway_coord_proto::SlotMap;
use ringway_coord_proto::access::Access;
use ringway_coord_proto::stats::Messages;
use ringway_coord_proto::wire::{op, push, status};
use ringway_core::limits::{
    BROADCASTS_MAX, MESSAGE_BYTES_MAX, MESSAGE_HOLDERS_MAX, RECEIVER_BYTES,
};
use ringway_core::wire::Put;
use ringway_core::{SessionId, Slot, Span, Token};
use ringway_sim::native::{
    Got, Message, Native, broadcast, message, open, opened, query, register, register_as, release,
    send, send_fenced, send_to_session, transfer, with_secret,
};
use ringway_sim::process::{Process, Settings};
use ringway_sim::resp_stream::command;
use ringway_sim::stories::{Users, client, guarded, start, user, words};

const SHARDS: [usize; 3] = [1, 2, 5];
const RECEIPT: u8 = op::SEND_RECEIPT;
const SAME: u8 = op::SEND_SAME;

/// The messages that a client has got since it was asked last.
fn heard<A: Access>(process: &mut Process<A>, client: &mut Native) -> Vec<Message> {
    process.settle();
    client.receive(process);
    let told = std::mem::take(&mut client.told);
    let messages = told.iter().filter(|(code, _)| *code == push::MESSAGE);
    messages.map(|(_, body)| message(body)).collect()
}

/// Their payloads, as text.
fn texts<A: Access>(process: &mut Process<A>, client: &mut Native) -> String {
    let messages = heard(process, client);
    let texts = messages.iter().map(|message| String::from_utf8_lossy(&message.payload));
    texts.collect::<Vec<_>>().join(", ")
}

/// What became of messages, at all shards together.
fn counted<A: Access>(process: &Process<A>) -> Messages {
    (0..process.shards()).fold(Messages::default(), |mut sum, shard| {
        let of = process.shard(shard).stats().messages;
        let statuses = [
            (status::OK, of.delivered),
            (status::FREE, of.unowned),
            (status::AWAY, of.away),
            (status::RECEIVER_FULL, of.full),
            (status::FENCED, of.fenced),
            (status::BUSY, of.busy),
        ];
        statuses.iter().for_each(|(status, count)| sum.count(*status, *count));
        sum
    })
}

fn token_of(got: &Got) -> Token {
    let Got::Owner(_, _, token) = got else { panic!("no owner: {got:?}") };
    *token
}

/// One turn of every shard, with one mail of each other.
fn turn_all(process: &mut Process) {
    for shard in 0..process.shards() {
        process.turn(shard, 1);
    }
}

/// A name whose slot a shard has.
fn name_at(shards: usize, shard: usize, prefix: &str) -> String {
    let map = SlotMap::new(shards);
    let names = (0..).map(|at| format!("{prefix}{at}"));
    names
        .into_iter()
        .find(|name| map.shard_of(Slot::of(name.as_bytes())).index() == shard)
        .expect("one of them")
}

/// A message finds whoever owns the name, wherever both are connected and the name lives, and says
/// who sent it; a name that nobody owns says so.
#[test]
fn a_message_finds_the_owner_of_a_name() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, of_a) = client(&mut process, 1);
        let (mut b, _) = client(&mut process, 2);
        let names: Vec<_> = (0..shards).map(|shard| name_at(shards, shard, "job")).collect();
        let registers: Vec<_> = names.iter().map(|name| register(name)).collect();
        b.ask(&mut process, &registers);
        let sends: Vec<_> = names.iter().map(|name| send(0, name, name.as_bytes())).collect();
        let got = a.ask(&mut process, &sends);
        assert!(got.iter().all(|got| *got == Got::Plain(status::OK)), "{shards} shards");
        let mut got = heard(&mut process, &mut b);
        got.sort_by(|x, y| x.target.cmp(&y.target));
        let mut sorted = names.clone();
        sorted.sort();
        let expected = sorted.iter().map(|name| Message {
            flags: 0,
            from: of_a.session,
            target: name.clone(),
            source: None,
            payload: name.clone().into_bytes(),
        });
        assert_eq!(got, expected.collect::<Vec<_>>());
        let free = a.ask(&mut process, &[send(0, "nobody's", b"x"), send(RECEIPT, "no", b"x")]);
        assert_eq!(words(&free), "FREE, FREE");
        assert_eq!(counted(&process).delivered, shards as u64);
        assert_eq!(counted(&process).unowned, 2);
    }
}

/// Who has no session may send, too; the receiver sees that there is nobody to answer.
#[test]
fn a_sender_needs_no_session() {
    let mut process = start(2);
    let (mut a, _) = client(&mut process, 1);
    a.ask(&mut process, &[register("x")]);
    let mut stranger = Native::connect(&mut process, 1);
    let got = stranger.ask(&mut process, &[send(RECEIPT, "x", b"hello")]);
    assert_eq!(words(&got), "OK");
    assert_eq!(heard(&mut process, &mut a)[0].from, SessionId(0));
}

/// Messages of one connection to one target arrive in the order in which they were sent, frame
/// after frame, plain or as the owner of a name.
#[test]
fn messages_to_a_target_keep_their_order() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, _) = client(&mut process, 1);
        let (mut b, _) = client(&mut process, 2);
        let source = name_at(shards, shards / 2, "source");
        let target = name_at(shards, shards - 1, "target");
        let token = token_of(&a.ask(&mut process, &[register(&source)])[0]);
        b.ask(&mut process, &[register(&target)]);
        for fenced in [false, true] {
            for frame in 0..10_u32 {
                let numbers = (frame * 50..frame * 50 + 50).map(u32::to_le_bytes);
                let sends = numbers.map(|payload| match fenced {
                    true => send_fenced(0, (&source, token), &target, &payload),
                    false => send(0, &target, &payload),
                });
                a.send(&mut process, &sends.collect::<Vec<_>>());
            }
            let got = heard(&mut process, &mut b);
            let numbers =
                got.iter().map(|it| u32::from_le_bytes(it.payload[..].try_into().unwrap()));
            assert!(numbers.eq(0..500), "{shards} shards, fenced {fenced}");
            a.receive(&mut process);
            let replies = a.frames.drain(..).flatten();
            assert!(replies.into_iter().all(|got| got == Got::Plain(status::OK)));
        }
    }
}

/// A receipt says what became of the message: handed over, nobody there to hear, or too much
/// unread. A receiver that reads again gets what is sent from then on.
#[test]
fn receipts_say_what_became_of_a_message() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, _) = client(&mut process, 1);
        let (mut b, of_b) = client(&mut process, 2);
        b.ask(&mut process, &[register("x")]);
        let ask = [send(RECEIPT, "x", b"1"), query("x"), send(RECEIPT, "free", b"1")];
        assert_eq!(words(&a.ask(&mut process, &ask)), "OK, OWNED 1, FREE", "{shards} shards");
        process.set_backlog(b.link, RECEIVER_BYTES + 1);
        assert_eq!(words(&a.ask(&mut process, &[send(RECEIPT, "x", b"2")])), "RECEIVER_FULL");
        assert_eq!(words(&a.ask(&mut process, &[send(0, "x", b"3")])), "OK", "on its way");
        process.set_backlog(b.link, RECEIVER_BYTES / 2);
        assert_eq!(words(&a.ask(&mut process, &[send(RECEIPT, "x", b"4")])), "OK");
        process.set_backlog(b.link, 0);
        assert_eq!(texts(&mut process, &mut b), "1, 4");
        process.disconnect(b.link);
        process.settle();
        let away = [send(RECEIPT, "x", b"5"), send(0, "x", b"6")];
        assert_eq!(words(&a.ask(&mut process, &away)), "AWAY, OK", "the name is still owned");
        let mut b = Native::connect(&mut process, 0);
        let resumed = open(0, 2, 10_000, Some(of_b.secret));
        assert!(opened(&b.ask(&mut process, &[resumed])[0]).resumed);
        assert_eq!(words(&a.ask(&mut process, &[send(RECEIPT, "x", b"7")])), "OK");
        assert_eq!(texts(&mut process, &mut b), "7", "what it missed is gone");
        let counts = Messages { delivered: 3, unowned: 1, away: 2, full: 2, ..Messages::default() };
        assert_eq!(counted(&process), counts);
    }
}

/// A connection that speaks RESP hears messages as pushes of version 3; in version 2 nothing can
/// be pushed, so its session is away.
#[test]
fn resp_hears_messages_in_version_3_only() {
    for shards in SHARDS {
        let mut process = start(shards);
        let link = process.connect(0);
        process.send(link, &command(&[b"PORT.REGISTER", b"x"]));
        process.settle();
        process.take(link);
        let (mut a, of_a) = client(&mut process, 1);
        assert_eq!(words(&a.ask(&mut process, &[send(RECEIPT, "x", b"hi")])), "AWAY");
        process.send(link, &command(&[b"HELLO", b"3"]));
        process.settle();
        process.take(link);
        let token = token_of(&a.ask(&mut process, &[register("y")])[0]);
        let sends = [send(RECEIPT, "x", b"hi"), send_fenced(RECEIPT, ("y", token), "x", b"ho")];
        assert_eq!(words(&a.ask(&mut process, &sends[..1])), "OK");
        assert_eq!(words(&a.ask(&mut process, &sends[1..])), "OK");
        let from = of_a.session.to_string();
        let head = format!(">6\r\n$7\r\nmessage\r\n$1\r\nx\r\n${}\r\n{from}\r\n", from.len());
        let heard = String::from_utf8(process.take(link)).unwrap();
        let (plain, fenced) = heard.split_once("_\r\n_\r\n").expect("nulls where it is not fenced");
        assert_eq!(plain, format!("{head}$2\r\nhi\r\n"), "{shards} shards");
        assert!(fenced.starts_with(&format!("{head}$2\r\nho\r\n$1\r\ny\r\n")), "{fenced}");
        assert!(fenced.contains(&token.0.to_string()), "{fenced}");
    }
}

/// A message as the owner of a name is refused as soon as the token is old: the name was given
/// back, transferred, or granted anew. The receiver sees name and token.
#[test]
fn an_old_token_is_fenced() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, of_a) = client(&mut process, 1);
        let (mut b, of_b) = client(&mut process, 2);
        let (source, target) = (name_at(shards, 0, "lock"), name_at(shards, shards - 1, "store"));
        b.ask(&mut process, &[register(&target)]);
        let old = token_of(&a.ask(&mut process, &[register(&source)])[0]);
        let write = |token| send_fenced(RECEIPT, (&source, token), &target, b"write");
        assert_eq!(words(&a.ask(&mut process, &[write(old)])), "OK", "{shards} shards");
        let got = heard(&mut process, &mut b);
        assert_eq!(got[0].source, Some((source.clone(), old)));
        assert_eq!(got[0].from, of_a.session);
        assert_eq!(words(&b.ask(&mut process, &[write(old)])), "FENCED", "it is not b's");
        a.ask(&mut process, &[release(&source)]);
        assert_eq!(words(&a.ask(&mut process, &[write(old)])), "FENCED", "nobody's");
        let new = token_of(&a.ask(&mut process, &[register(&source)])[0]);
        assert_eq!(words(&a.ask(&mut process, &[write(old), write(new)])), "FENCED, OK");
        let moved = a.ask(&mut process, &[transfer(of_b.session, &source)]);
        let newest = token_of(&moved[0]);
        assert_eq!(words(&a.ask(&mut process, &[write(new), write(newest)])), "FENCED, FENCED");
        assert_eq!(words(&b.ask(&mut process, &[write(newest)])), "OK");
        let mut nobody = Native::connect(&mut process, 0);
        assert_eq!(words(&nobody.ask(&mut process, &[write(newest)])), "FENCED", "no session");
        let free = send_fenced(0, (&source, newest), "free", b"x");
        assert_eq!(words(&b.ask(&mut process, &[free])), "FREE");
        let session = send_fenced(RECEIPT | op::SEND_SESSION, (&source, newest), "", b"x");
        let body = [&of_a.session.0.to_le_bytes(), &session.2[1..]].concat();
        assert_eq!(words(&b.ask(&mut process, &[(op::SEND, session.1, body)])), "OK");
        let got = heard(&mut process, &mut a);
        assert_eq!(got[0].flags, push::MESSAGE_FENCED | push::MESSAGE_TO_SESSION);
        assert_eq!(got[0].source, Some((source.clone(), newest)));
        assert_eq!(counted(&process).fenced, 6);
    }
}

/// One holder of several may send as the owner of a shared or counting name, under its own token.
#[test]
fn each_holder_of_several_sends_under_its_own_token() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, _) = client(&mut process, 1);
        let (mut b, _) = client(&mut process, 2);
        let (mut c, _) = client(&mut process, 3);
        c.ask(&mut process, &[register("log")]);
        for (mode, permits, name) in [(op::MODE_SHARED, 0, "s"), (op::MODE_COUNTING, 2, "c")] {
            let of_a = token_of(&a.ask(&mut process, &[register_as(mode, permits, name)])[0]);
            let of_b = token_of(&b.ask(&mut process, &[register_as(mode, permits, name)])[0]);
            let as_a = send_fenced(RECEIPT, (name, of_a), "log", b"a");
            let as_b = send_fenced(RECEIPT, (name, of_b), "log", b"b");
            let got = a.ask(&mut process, &[as_a, as_b.clone()]);
            assert_eq!(words(&got), "OK, FENCED", "{shards} shards, {name}");
            assert_eq!(words(&b.ask(&mut process, &[as_b])), "OK");
        }
    }
}

/// Every holder of a shared name gets the message. The receipt is `OK` if all did, and otherwise
/// what became of the first that did not. A counting name takes none.
#[test]
fn every_holder_of_a_shared_name_gets_it() {
    for shards in SHARDS {
        let mut process = start(shards);
        let shared = || register_as(op::MODE_SHARED, 0, "x");
        let mut clients: Vec<_> = (1..=7).map(|node| client(&mut process, node).0).collect();
        for client in &mut clients {
            client.ask(&mut process, &[shared()]);
        }
        let (mut a, _) = client(&mut process, 9);
        let sends = [send(RECEIPT, "x", b"1"), send(0, "x", b"2")];
        assert_eq!(words(&a.ask(&mut process, &sends)), "OK, OK", "{shards} shards");
        for client in &mut clients {
            assert_eq!(texts(&mut process, client), "1, 2");
        }
        process.set_backlog(clients[3].link, RECEIVER_BYTES + 1);
        assert_eq!(words(&a.ask(&mut process, &[send(RECEIPT, "x", b"3")])), "RECEIVER_FULL");
        process.set_backlog(clients[3].link, 0);
        process.disconnect(clients[5].link);
        process.settle();
        assert_eq!(words(&a.ask(&mut process, &[send(RECEIPT, "x", b"4")])), "AWAY");
        assert_eq!(texts(&mut process, &mut clients[3]), "4");
        assert_eq!(texts(&mut process, &mut clients[6]), "3, 4");
        let counting = register_as(op::MODE_COUNTING, 3, "c");
        clients[0].ask(&mut process, &[counting]);
        let sends = [send(0, "c", b"x"), send(RECEIPT, "c", b"x")];
        assert_eq!(words(&a.ask(&mut process, &sends)), "MODE, MODE");
        assert_eq!(counted(&process).delivered, 14 + 6 + 6);
    }
}

/// A shared name with more holders than one message goes to says `BUSY`, and nobody gets it.
#[test]
fn a_name_of_too_many_holders_is_busy() {
    let mut process = start(2);
    let mut clients: Vec<_> =
        (0..=MESSAGE_HOLDERS_MAX).map(|at| Native::connect(&mut process, at % 2)).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        if at == MESSAGE_HOLDERS_MAX {
            let mut last = Native::connect(&mut process, 0);
            assert_eq!(words(&last.ask(&mut process, &[send(RECEIPT, "x", b"1")])), "OK");
            let large = send(RECEIPT, "x", &[1; 2_000]);
            assert_eq!(words(&last.ask(&mut process, &[large])), "BUSY", "2 MB for all");
        }
        client.ask(&mut process, &[register_as(op::MODE_SHARED, 0, "x")]);
    }
    let mut last = Native::connect(&mut process, 0);
    let sends = [send(RECEIPT, "x", b"2"), send(0, "x", b"2")];
    assert_eq!(words(&last.ask(&mut process, &sends)), "BUSY, BUSY");
    assert_eq!(counted(&process).delivered, MESSAGE_HOLDERS_MAX as u64);
}

/// `SAME` repeats the payload before it in the frame, to names of any shard, also across an op that
/// is served by itself in between; without one before it, or with bytes of its own, it is
/// malformed.
#[test]
fn a_payload_is_repeated_without_its_bytes() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, _) = client(&mut process, 1);
        let (mut b, _) = client(&mut process, 2);
        let names: Vec<_> = (0..12).map(|at| format!("name-{at}")).collect();
        b.ask(&mut process, &names.iter().map(|name| register(name)).collect::<Vec<_>>());
        let mut ops = vec![send(RECEIPT, &names[0], b"first")];
        ops.extend(names[1..6].iter().map(|name| send(SAME, name, b"")));
        ops.push((op::PING, 0, b"!".to_vec()));
        ops.extend(names[6..9].iter().map(|name| send(SAME | RECEIPT, name, b"")));
        ops.push(send(0, &names[9], b"second"));
        ops.push(query(&names[0]));
        ops.extend(names[10..].iter().map(|name| send(SAME, name, b"")));
        let got = a.ask(&mut process, &ops);
        let sent = got.iter().zip(&ops).filter(|(_, op)| op.0 == op::SEND);
        assert!(sent.into_iter().all(|(got, _)| *got == Got::Plain(status::OK)));
        let mut got = heard(&mut process, &mut b);
        got.sort_by_key(|it| it.target[5..].parse::<u32>().unwrap());
        let payloads = got.iter().map(|it| &it.payload[..]);
        let expected = (0..12).map(|at| if at < 9 { &b"first"[..] } else { b"second" });
        assert!(payloads.eq(expected), "{shards} shards");
        let wrong = [
            send(SAME, "name-1", b""),
            send(0, "name-1", b"x"),
            send(SAME, "name-1", b"x"),
            send(SAME, "name-1", b""),
        ];
        let got = a.ask(&mut process, &wrong);
        assert_eq!(words(&got), "MALFORMED, OK, MALFORMED, MALFORMED");
        let denied = [send(0, "", b"y"), send(SAME, "name-1", b"")];
        assert_eq!(words(&a.ask(&mut process, &denied)), "BADNAME, OK", "its payload was read");
    }
}

/// A payload that is repeated thousands of times fills no mailbox: it travels once to each shard,
/// and what exceeds the bound of what is under way is `BUSY`.
#[test]
fn repeated_payloads_stay_bounded() {
    for shards in SHARDS {
        let mut process =
            Process::start(&Settings { shards, buffer_bytes: 8 << 20, ..Settings::default() });
        let (mut a, _) = client(&mut process, 1);
        let (mut b, _) = client(&mut process, 2);
        let names: Vec<_> = (0..shards).map(|shard| name_at(shards, shard, "n")).collect();
        b.ask(&mut process, &names.iter().map(|name| register(name)).collect::<Vec<_>>());
        let mut ops = vec![send(0, &names[0], &[7; MESSAGE_BYTES_MAX])];
        ops.extend((1..4_000).map(|at| send(SAME, &names[at % shards], b"")));
        a.send(&mut process, &ops);
        for round in 0.. {
            let busy = (0..shards).fold(false, |busy, shard| process.turn(shard, 1) | busy);
            let strange = |shard: usize| process.shard(shard).stats().buffer_bytes > 9 << 20;
            assert!(!(0..shards).any(strange), "{shards} shards, round {round}");
            if !busy && round > 100 {
                break;
            }
        }
        let got = a.ask(&mut process, &[query("x")]);
        assert_eq!(words(&got), "FREE");
        let counts = counted(&process);
        assert!(counts.busy > 0 && counts.delivered > 0, "{shards} shards: {counts:?}");
        assert_eq!(counts.delivered + counts.full + counts.busy, 4_000);
        b.receive(&mut process);
        b.told.clear();
        process.run_for(Span::from_ms(1));
        assert_eq!(words(&a.ask(&mut process, &[send(RECEIPT, &names[0], b"x")])), "OK");
    }
}

/// To a session, as an answer to what it sent: request and reply. A session that has ended, or
/// never was, is `NOSESSION`.
#[test]
fn a_reply_goes_to_the_session_that_asked() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, of_a) = client(&mut process, 1);
        let (mut b, of_b) = client(&mut process, 2);
        b.ask(&mut process, &[register("service")]);
        a.ask(&mut process, &[send(0, "service", b"2+2")]);
        let request = heard(&mut process, &mut b).remove(0);
        let reply = [send_to_session(RECEIPT, request.from, b"4"), (op::PING, 0, vec![])];
        assert_eq!(words(&b.ask(&mut process, &reply)), "OK, DATA", "{shards} shards");
        let got = heard(&mut process, &mut a).remove(0);
        assert_eq!((got.from, got.flags), (of_b.session, push::MESSAGE_TO_SESSION));
        assert_eq!((got.target.as_str(), &got.payload[..]), ("", &b"4"[..]));
        a.ask(&mut process, &[with_secret(op::CLOSE, of_a.session, of_a.secret)]);
        let late = [
            send_to_session(0, of_a.session, b"4"),
            send_to_session(RECEIPT, of_a.session, b"4"),
            send_to_session(0, SessionId(12), b"4"),
        ];
        assert_eq!(words(&b.ask(&mut process, &late)), "NOSESSION, NOSESSION, NOSESSION");
        assert_eq!(words(&a.ask(&mut process, &[send(0, "service", b"x")])), "NOSESSION");
    }
}

/// A message to all reaches every session with a connection, bare ones and those of RESP3 too; the
/// receipt counts those that were reached, away and full.
#[test]
fn a_broadcast_reaches_every_session() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut clients: Vec<_> = (1..=9).map(|node| client(&mut process, node).0).collect();
        let mut bare = Native::connect(&mut process, 0);
        bare.ask(&mut process, &[register("x")]);
        let resp = process.connect(shards - 1);
        process
            .send(resp, &[command(&[b"HELLO", b"3"]), command(&[b"PORT.REGISTER", b"y"])].concat());
        process.settle();
        process.take(resp);
        let lock = process.connect(0);
        process.send(lock, &command(&[b"SET", b"l", b"v", b"NX", b"PX", b"9999"]));
        process.disconnect(clients[4].link);
        process.settle();
        process.set_backlog(clients[7].link, RECEIVER_BYTES + 1);
        let got = clients[0].ask(&mut process, &[broadcast(RECEIPT, b"all"), query("x")]);
        let counts = [9_u64, 1, 1].map(u64::to_le_bytes).concat();
        assert_eq!(got[0], Got::Data(status::DATA, counts), "{shards} shards");
        assert_eq!(words(&clients[0].ask(&mut process, &[broadcast(0, b"again")])), "OK");
        process.set_backlog(clients[7].link, 0);
        assert_eq!(texts(&mut process, &mut clients[0]), "all, again");
        assert_eq!(texts(&mut process, &mut clients[8]), "all, again");
        assert_eq!(texts(&mut process, &mut clients[7]), "");
        let of_bare = heard(&mut process, &mut bare);
        assert_eq!((of_bare.len(), of_bare[0].flags), (2, push::MESSAGE_BROADCAST));
        assert_eq!(process.take(resp).windows(7).filter(|at| at == b"message").count(), 2);
        let mut many = vec![broadcast(0, b"x"); BROADCASTS_MAX + 2];
        many.push(broadcast(2, b"x"));
        many.push(broadcast(0, &[0; MESSAGE_BYTES_MAX + 1]));
        let got = clients[0].ask(&mut process, &many);
        assert_eq!(words(&got[BROADCASTS_MAX..]), "BUSY, BUSY, UNSUPPORTED, MALFORMED");
        assert!(got[..BROADCASTS_MAX].iter().all(|got| *got == Got::Plain(status::OK)));
        let got = clients[0].ask(&mut process, &[broadcast(RECEIPT, b"x")]);
        assert_eq!(got[0].status(), status::DATA, "the earlier ones are over");
    }
}

/// Many more sessions than one slice sees, while others go on.
#[test]
fn a_broadcast_to_many_goes_in_slices() {
    let mut process = start(2);
    let mut gateway = Native::connect(&mut process, 0);
    for first in (0..12_000).step_by(1_000) {
        let opens = (first..first + 1_000).map(|node| open(op::OPEN_GATEWAY, node, 30_000, None));
        gateway.send(&mut process, &opens.collect::<Vec<_>>());
        process.settle();
    }
    let mut bare: Vec<_> = (0..100).map(|at| Native::connect(&mut process, at % 2)).collect();
    for (at, client) in bare.iter_mut().enumerate() {
        client.ask(&mut process, &[register(&format!("n{at}"))]);
    }
    let got = bare[0].ask(&mut process, &[broadcast(RECEIPT, &[1; MESSAGE_BYTES_MAX - 500])]);
    let counts = [100_u64, 12_000, 0].map(u64::to_le_bytes).concat();
    assert_eq!(got[0], Got::Data(status::DATA, counts));
}

/// Whoever asked for a receipt and left keeps nothing here: the receipt finds nobody.
#[test]
fn a_sender_that_leaves_leaves_nothing() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut b, _) = client(&mut process, 2);
        b.ask(&mut process, &[register("x"), register_as(op::MODE_SHARED, 0, "s")]);
        for rounds in 0..6 {
            let (mut a, _) = client(&mut process, 1);
            let ops =
                [send(RECEIPT, "x", b"1"), send(RECEIPT, "s", b"2"), broadcast(RECEIPT, b"3")];
            a.send(&mut process, &ops);
            for _ in 0..rounds {
                turn_all(&mut process);
            }
            process.disconnect(a.link);
            process.settle();
            let texts = texts(&mut process, &mut b);
            assert!(texts.contains('1') && texts.contains('2'), "{shards} shards, {rounds}");
        }
        assert_eq!(process.strays(), 0);
        (0..shards).for_each(|shard| process.stop(shard));
        process.disconnect(b.link);
        process.settle();
        assert!((0..shards).all(|shard| process.shard(shard).may_stop()), "no unit waits");
    }
}

/// An owner that ends while the message is under way gets it or not; the receipt comes all the
/// same, and the next owner never gets what was for the one before.
#[test]
fn an_owner_that_ends_meanwhile_is_answered_for() {
    for shards in SHARDS {
        for rounds in 0..8 {
            let mut process = start(shards);
            let (mut a, _) = client(&mut process, 1);
            let mut b = Native::connect(&mut process, shards - 1);
            let (mut c, _) = client(&mut process, 3);
            b.ask(&mut process, &[register("x")]);
            a.send(&mut process, &[send(RECEIPT, "x", b"for b")]);
            for _ in 0..rounds {
                turn_all(&mut process);
            }
            process.disconnect(b.link);
            c.send(&mut process, &[register("x")]);
            process.settle();
            a.receive(&mut process);
            let status = a.frames.pop().expect("answered")[0].status();
            assert!([status::OK, status::AWAY, status::FREE].contains(&status), "{status:#x}");
            assert_eq!(texts(&mut process, &mut c), "", "{shards} shards, {rounds} rounds");
        }
    }
}

/// A holder of several that ends while the message is under way is no holder any more: who sends
/// hears of the others, and that nobody owns the name only if all have ended.
#[test]
fn a_holder_that_ends_meanwhile_is_not_counted() {
    for all in [false, true] {
        let mut process = start(2);
        let name = name_at(2, 1, "x");
        let (mut a, of_a) = client(&mut process, 2);
        let (mut b, of_b) = client(&mut process, 4);
        let (mut c, _) = client(&mut process, 1);
        for holder in [&mut a, &mut b] {
            holder.ask(&mut process, &[register_as(op::MODE_SHARED, 0, &name)]);
        }
        a.send(&mut process, &[with_secret(op::CLOSE, of_a.session, of_a.secret)]);
        if all {
            b.send(&mut process, &[with_secret(op::CLOSE, of_b.session, of_b.secret)]);
        }
        // Their home knows it already, the name's shard does not.
        process.turn(0, 0);
        c.send(&mut process, &[send(RECEIPT, &name, b"hello")]);
        process.turn(1, 0);
        process.settle();
        c.receive(&mut process);
        let expected = if all { status::FREE } else { status::OK };
        assert_eq!(c.frames.pop(), Some(vec![Got::Plain(expected)]));
        assert_eq!(texts(&mut process, &mut b), if all { "" } else { "hello" });
    }
}

/// One receiver that does not read, and one shard that stands still, delay nobody: others' messages
/// arrive meanwhile, and what is for the slow ones is bounded.
#[test]
fn a_stuck_receiver_delays_nobody() {
    let settings = Settings { shards: 3, buffer_bytes: 8 << 20, ..Settings::default() };
    let mut process = Process::start(&settings);
    let mut a = Native::connect(&mut process, 0);
    let (mut stuck, _) = client(&mut process, 1);
    let (mut b, _) = client(&mut process, 2);
    let (slow, quick) = (name_at(3, 0, "slow"), name_at(3, 0, "quick"));
    stuck.ask(&mut process, &[register(&slow)]);
    b.ask(&mut process, &[register(&quick)]);
    process.set_backlog(stuck.link, RECEIVER_BYTES + 1);
    for _ in 0..100 {
        let ops = [send(0, &slow, &[1; 20_000]), send(RECEIPT, &quick, b"on")];
        assert_eq!(words(&a.ask(&mut process, &ops)), "OK, OK");
    }
    assert_eq!(heard(&mut process, &mut b).len(), 100);
    assert_eq!((counted(&process).full, counted(&process).delivered), (100, 100));
    assert!(!process.is_closed(stuck.link), "it is dropped, not cut");
    process.set_backlog(stuck.link, 0);
    // Now the receiver's shard does not turn at all.
    let mut reached = 0;
    for _ in 0..200 {
        a.send(&mut process, &[send(0, &slow, &[1; 20_000]), send(RECEIPT, &quick, b"on")]);
        for _ in 0..4 {
            process.turn(0, usize::MAX);
            process.turn(2, usize::MAX);
        }
        a.receive(&mut process);
        let got = a.frames.pop().expect("nobody waits for the shard that stands still");
        reached += usize::from(got[1].status() == status::OK);
        b.receive(&mut process);
        b.told.clear();
    }
    assert_eq!(reached, 200, "others are reached meanwhile");
    let busy = counted(&process).busy;
    assert!(busy > 100, "what waits for it is bounded: {busy}");
    process.settle();
    stuck.receive(&mut process);
    assert_eq!(words(&a.ask(&mut process, &[send(RECEIPT, &slow, b"x")])), "OK", "it goes on");
}

/// A client that accepts small frames only gets no larger messages.
#[test]
fn a_message_larger_than_the_receivers_frames_is_not_sent() {
    for shards in SHARDS {
        let mut process = start(shards);
        let link = process.connect(0);
        let ours = ringway_coord_proto::wire::Preface::OURS;
        process.send(
            link,
            &ringway_coord_proto::wire::Preface { frame_bytes_max: 4096, ..ours }.encode(),
        );
        let mut frame = Vec::new();
        frame.put_u32(16 + 5);
        frame.extend_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, op::REGISTER, 0, 1, 0, b'x']);
        process.send(link, &frame);
        process.settle();
        process.take(link);
        let (mut a, _) = client(&mut process, 1);
        let most = 4096 - 16 - 4 - 10 - 1;
        let sends = [send(RECEIPT, "x", &vec![1; most]), send(RECEIPT, "x", &vec![1; most + 1])];
        assert_eq!(words(&a.ask(&mut process, &sends)), "OK, RECEIVER_FULL", "{shards} shards");
        assert_eq!(process.take(link).len(), 4096);
    }
}

/// Bodies that are too short, too long or empty are refused by themselves; the ops around them are
/// executed.
#[test]
fn hostile_bodies_are_refused_by_themselves() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, _) = client(&mut process, 1);
        a.ask(&mut process, &[register("x")]);
        let fenced = |body: &[u8]| (op::SEND, op::SEND_FENCED, body.to_vec());
        let ops = [
            (op::SEND, 0, vec![]),
            (op::SEND, 0, vec![5, b'x']),
            (op::SEND, 0, vec![0, b'x']),
            fenced(b"\x01x"),
            fenced(b"\x01x\x01y\0\0\0\0\0\0\0"),
            fenced(b"\x01x\x00\0\0\0\0\0\0\0\0"),
            (op::SEND, op::SEND_SESSION, vec![1; 7]),
            send(0x10, "x", b""),
            send(0x80, "x", b""),
            send(0, "x", &[0; MESSAGE_BYTES_MAX + 1]),
            send(RECEIPT, "x", &[0; MESSAGE_BYTES_MAX]),
            send(RECEIPT, "x", b""),
        ];
        let got = a.ask(&mut process, &ops);
        let expected = "MALFORMED, MALFORMED, BADNAME, MALFORMED, MALFORMED, BADNAME, MALFORMED, \
                        UNSUPPORTED, UNSUPPORTED, MALFORMED, OK, OK";
        assert_eq!(words(&got), expected, "{shards} shards");
        assert_eq!(heard(&mut process, &mut a).len(), 2);
    }
}

/// Two tenants and an operator.
fn tenants() -> Users {
    Users::new(&[("a", Some("a"), false), ("b", Some("b"), false), ("root", None, true)])
}

/// A sender's namespaces must cover target and source; another tenant's session is none for it; and
/// only who sees all names speaks to all.
#[test]
fn messages_stay_within_namespaces() {
    for shards in SHARDS {
        let mut process = guarded(shards, tenants);
        let mut nobody = Native::connect(&mut process, 0);
        let asked = [send(0, "a/x", b""), send_to_session(0, SessionId(1), b""), broadcast(0, b"")];
        assert_eq!(words(&nobody.ask(&mut process, &asked)), "NOAUTH, NOAUTH, NOAUTH");
        let (mut a, of_a) = user(&mut process, 1, "a");
        let (mut b, of_b) = user(&mut process, 2, "b");
        let (mut root, _) = user(&mut process, 3, "root");
        a.ask(&mut process, &[register("a/x")]);
        let token = token_of(&b.ask(&mut process, &[register("b/x")])[0]);
        let asked = [
            send(RECEIPT, "a/x", b""),
            send_fenced(RECEIPT, ("b/x", token), "a/x", b""),
            send_fenced(RECEIPT, ("a/x", token), "b/x", b""),
            send_to_session(RECEIPT, of_a.session, b""),
            send_to_session(RECEIPT, of_b.session, b"mine"),
            broadcast(0, b""),
        ];
        let expected = "DENIED, DENIED, DENIED, NOSESSION, OK, DENIED";
        assert_eq!(words(&b.ask(&mut process, &asked)), expected, "{shards} shards");
        let asked = [send(RECEIPT, "a/x", b"1"), send_to_session(RECEIPT, of_a.session, b"2")];
        assert_eq!(words(&root.ask(&mut process, &asked)), "OK, OK");
        assert_eq!(words(&root.ask(&mut process, &[broadcast(0, b"3")])), "OK");
        assert_eq!(texts(&mut process, &mut a), "1, 2, 3");
        assert_eq!(texts(&mut process, &mut b), "mine, 3");
    }
}
