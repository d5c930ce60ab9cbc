//! The blocking client against a thread that plays the server: it speaks the wire format from
//! bytes written here by hand, so that client and server cannot share a mistake.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use ringway_client::{
    Cancelled, Client, Credentials, Delivery, EndReason, Error, Letter, MetaSet, Mode, Notice,
    OpError, OpenRequest, Options, Proof, Refusal, Registered, StreamError, Target, Ticket, Waited,
};
use ringway_core::{Epoch, NodeId, Secret, SessionId, Slot, Token};

const PREFACE: [u8; 16] = [0xB1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A server for one connection; the test joins it to see that it did not panic.
struct Mock {
    addr: SocketAddr,
    thread: JoinHandle<()>,
}

impl Mock {
    fn run(play: impl FnOnce(&mut TcpStream) + Send + 'static) -> Mock {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the kernel's choice");
        let addr = listener.local_addr().expect("bound");
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the client connects");
            play(&mut stream);
        });
        Mock { addr, thread }
    }

    /// Exchanges prefaces, then answers each op with what `answer` appends for it, until the
    /// client goes away.
    fn answering(mut answer: impl FnMut(&Seen, &mut Vec<u8>) + Send + 'static) -> Mock {
        Mock::run(move |stream| {
            greet(stream);
            while let Some((sequence, ops)) = next_request(stream) {
                let mut body = vec![];
                ops.iter().for_each(|op| answer(op, &mut body));
                send_frame(stream, 1, sequence, ops.len(), &body);
            }
        })
    }

    fn connect(&self) -> Client {
        Client::connect(self.addr, Options::default()).expect("the mock answers")
    }

    fn end(self, client: Client) {
        drop(client);
        self.thread.join().expect("the mock saw what it expected");
    }
}

struct Seen {
    code: u8,
    flags: u8,
    body: Vec<u8>,
}

fn greet(stream: &mut TcpStream) {
    let mut preface = [0; 16];
    stream.read_exact(&mut preface).expect("the client's preface");
    assert_eq!(preface, PREFACE);
    stream.write_all(&PREFACE).expect("sent");
}

fn next_request(stream: &mut TcpStream) -> Option<(u64, Vec<Seen>)> {
    let mut header = [0; 16];
    stream.read_exact(&mut header).ok()?;
    let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    assert!((16..=262_144).contains(&len), "a frame of {len} bytes");
    let count = u16::from_le_bytes([header[4], header[5]]);
    assert!(count <= 4096 && header[6] == 0);
    let mut body = vec![0; len - 16];
    stream.read_exact(&mut body).expect("the whole frame");
    let mut rest = body.as_slice();
    let mut ops = vec![];
    while let [code, flags, low, high, tail @ ..] = rest {
        let (body, tail) = tail.split_at(usize::from(u16::from_le_bytes([*low, *high])));
        ops.push(Seen { code: *code, flags: *flags, body: body.to_vec() });
        rest = tail;
    }
    assert_eq!(ops.len(), usize::from(count));
    Some((u64::from_le_bytes(header[8..16].try_into().expect("eight bytes")), ops))
}

fn send_frame(stream: &mut TcpStream, kind: u8, sequence: u64, count: usize, body: &[u8]) {
    let mut frame = ((body.len() + 16) as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(&(count as u16).to_le_bytes());
    frame.extend_from_slice(&[kind, 0]);
    frame.extend_from_slice(&sequence.to_le_bytes());
    frame.extend_from_slice(body);
    // A client that has gone away is some tests' intention.
    let _ = stream.write_all(&frame);
}

fn owner(status: u8, session: u64, token: u64, out: &mut Vec<u8>) {
    out.push(status);
    out.extend_from_slice(&session.to_le_bytes());
    out.extend_from_slice(&token.to_le_bytes());
}

fn data(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(0x80);
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// A hundred thousand names are one call: many frames, some on the way at once, and every result
/// stands where its name stood.
#[test]
fn large_batches_keep_their_order() {
    let mock = Mock::answering(|op, out| {
        assert_eq!((op.code, op.flags), (1, 0));
        let number: u64 = std::str::from_utf8(&op.body).expect("digits").parse().expect("digits");
        if number.is_multiple_of(3) { out.push(0x01) } else { owner(0x40, number, number + 1, out) }
    });
    let mut client = mock.connect();
    let names: Vec<String> = (0..100_000).map(|number| number.to_string()).collect();
    let names: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
    let results = client.query(&names).expect("answered");
    assert_eq!(results.len(), 100_000);
    for (number, result) in (0u64..).zip(results) {
        let found = result.expect("no refusal").map(|owner| (owner.session.0, owner.token.0));
        assert_eq!(found, (!number.is_multiple_of(3)).then_some((number, number + 1)));
    }
    mock.end(client);
}

/// One outcome a name: granted, held and refused stand side by side in one batch.
#[test]
fn register_and_release_tell_each_name() {
    let mock = Mock::answering(|op, out| match (op.code, op.flags, op.body.as_slice()) {
        (2, 0, b"free") => owner(0x48, 7, 1, out),
        (2, 0, b"taken") => owner(0x50, 9, 2, out),
        (2, 0, b"late") => out.extend_from_slice(&[0x81, 4, 0, 0, 0, 250, 0, 0, 0]),
        (3, 0, b"free") => out.push(0x00),
        (3, 1, b"\x05\0\0\0\0\0\0\0taken") => out.push(0xC5),
        other => panic!("unexpected {other:?}"),
    });
    let mut client = mock.connect();
    let results = client.register(&[b"free", b"taken", b"late"]).expect("answered");
    assert!(matches!(results[0], Ok(Registered::Granted(owner)) if owner.token == Token(1)));
    assert!(matches!(results[1], Ok(Registered::Held(owner)) if owner.session == SessionId(9)));
    assert_eq!(results[2], Err(Refusal::Starting(Duration::from_millis(250))));
    assert_eq!(client.release(&[b"free"]).expect("answered"), [Ok(())]);
    let conditional = client.release_if(&[(b"taken", Token(5))]).expect("answered");
    assert_eq!(conditional, [Err(Refusal::NotOwner)]);
    mock.end(client);
}

/// A session's life: opened, renewed by the connection and by proof, looked at, closed.
#[test]
fn sessions_open_renew_and_close() {
    let mock = Mock::answering(|op, out| match op.code {
        0x10 => {
            assert_eq!(op.flags, 0);
            assert_eq!(&op.body[..12], [42, 0, 0, 0, 0, 0, 0, 0, 0xF4, 1, 0, 0]);
            let mut body = 11u64.to_le_bytes().to_vec();
            body.extend_from_slice(&[3; 16]);
            body.extend_from_slice(&[0xF4, 1, 0, 0, 6, 0, 0, 0, 0]);
            data(&body, out);
        }
        0x11 if op.body.is_empty() => out.push(0x00),
        0x11 => {
            let id = op.body[0];
            assert_eq!(op.body[8..], [3; 16]);
            out.push(if id == 11 { 0x00 } else { 0xC4 });
        }
        0x14 => out.push(0xC4),
        0x12 => out.push(0x00),
        other => panic!("unexpected {other:#x}"),
    });
    let mut client = mock.connect();
    let lease = Duration::from_millis(500);
    let opened = client.open(OpenRequest { lease, ..OpenRequest::new(NodeId(42)) }).expect("given");
    assert_eq!((opened.session, opened.lease, opened.epoch), (SessionId(11), lease, Epoch(6)));
    client.renew().expect("renewed");
    let proof = |id| Proof { session: SessionId(id), secret: Secret([3; 16]) };
    let renewed = client.renew_many(&[proof(11), proof(12)]).expect("answered");
    assert_eq!(renewed, [Ok(()), Err(Refusal::NoSession)]);
    let gone = client.session(SessionId(12)).expect_err("no such session");
    assert_eq!(gone.refusal(), Some(Refusal::NoSession));
    assert!(gone.to_string().contains("answered SESSION with NOSESSION"), "{gone}");
    client.close_session(None).expect("closed");
    mock.end(client);
}

/// Waiting, metadata, transfer and messages: what each op says, and what is made of each answer.
#[test]
fn waits_and_messages_are_told_apart() {
    let mock = Mock::answering(|op, out| match (op.code, op.flags, op.body.as_slice()) {
        (6, 0, b"\0\0\0\0mine") => owner(0x48, 7, 1, out),
        (6, 0, b"\0\0\0\0taken") => owner(0x51, 9, 33, out),
        (7, 0, b"\x21\0\0\0\0\0\0\0taken") => owner(0x48, 7, 2, out),
        (4, 0, b"mine") => {
            let mut body = [7u64.to_le_bytes(), 1u64.to_le_bytes()].concat();
            body.extend_from_slice(b"\x03\0\0\0hi");
            data(&body, out);
        }
        (5, 1, b"\x02\0\0\0\x02\0homine") => {
            out.extend_from_slice(b"\x82\x06\0\0\0\x03\0\0\0hi");
        }
        (9, 0, b"\x09\0\0\0\0\0\0\0mine") => owner(0x48, 9, 3, out),
        (0x48, 1, b"\x05takenhi") => out.push(0xD0),
        (0x48, 5, b"\x05taken") => out.push(0x00),
        (0x48, 0, b"\x04freehi") => out.push(0x01),
        other => panic!("unexpected {other:?}"),
    });
    let mut client = mock.connect();
    let waited = client.wait(&[b"mine", b"taken"], Mode::Exclusive, None).expect("answered");
    assert!(matches!(waited[0], Ok(Waited::Granted(owner)) if owner.token == Token(1)));
    let queued = Waited::Queued { holder: SessionId(9), ticket: Ticket(33) };
    assert_eq!(waited[1], Ok(queued));
    let crossed = client.cancel(b"taken", Ticket(33)).expect("answered");
    assert!(matches!(crossed, Cancelled::Granted(owner) if owner.token == Token(2)));
    let described = client.meta(&[b"mine"]).expect("answered")[0].clone().expect("known");
    assert_eq!(described.map(|it| (it.version, it.metadata)), Some((3, b"hi".to_vec())));
    let set = client.set_meta(b"mine", Some(2), b"ho").expect("answered");
    assert_eq!(set, MetaSet::Conflict(3, b"hi".to_vec()));
    let moved = client.transfer(&[b"mine"], SessionId(9)).expect("answered");
    assert!(matches!(moved[0], Ok(owner) if owner.token == Token(3)));
    let to =
        |name| Letter { target: Target::Name(name), fence: None, receipt: true, payload: b"hi" };
    let unsure = Letter { receipt: false, ..to(b"free") };
    let sent = client.send(&[to(b"taken"), to(b"taken")]).expect("answered");
    assert_eq!(sent, [Ok(Delivery::Away), Ok(Delivery::Done)]);
    assert_eq!(client.send(&[unsure]).expect("answered"), [Ok(Delivery::NoOwner)]);
    mock.end(client);
}

/// A listing goes on where the page before ended, until the server says that it is done.
#[test]
fn listing_walks_all_pages() {
    let mock = Mock::answering(|op, out| {
        assert_eq!(op.code, 0x20);
        let first = op.body[..2] == [0, 0];
        let mut page = vec![u8::from(!first), 9, 0];
        page.extend_from_slice(if first { b"\x03a/1" } else { b"\x00" });
        page.extend_from_slice(&[1, 0]);
        page.extend_from_slice(if first { b"\x03a/1" } else { b"\x03a/2" });
        page.extend_from_slice(&[5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
        if !first {
            assert_eq!(op.body, b"\x09\x00\x00\x04\x03a/1\x02a/");
        }
        data(&page, out);
    });
    let mut client = mock.connect();
    let mut seen = vec![];
    let each = |listed: &ringway_client::ListedName| {
        seen.push(listed.name.clone());
        true
    };
    client.list_all(b"a/", each).expect("listed");
    assert_eq!(seen, [b"a/1", b"a/2"]);
    mock.end(client);
}

/// The map says where a slot lives and on which port; zero means that there is none.
#[test]
fn shard_map_and_texts_decode() {
    let mock = Mock::answering(|op, out| match op.code {
        0x31 => {
            let mut body = 3u64.to_le_bytes().to_vec();
            body.extend_from_slice(&[2, 2, 0]);
            body.extend_from_slice(&[0, 0, 0xFF, 0x1F, 0, 0xE9, 0x1C]);
            body.extend_from_slice(&[0, 0x20, 0xFF, 0x3F, 1, 0, 0]);
            data(&body, out);
        }
        0x32 => data(br#"{"shard":1}"#, out),
        0x33 => data(b"\xFF", out),
        0x30 => data(&op.body, out),
        other => panic!("unexpected {other:#x}"),
    });
    let mut client = mock.connect();
    let map = client.shard_map().expect("answered");
    assert_eq!((map.version, map.shards), (3, 2));
    let run = map.run_of(Slot::from_bits(8191)).expect("covered");
    assert_eq!((run.shard.0, run.port), (0, Some(7401)));
    assert_eq!(map.run_of(Slot::from_bits(8192)).expect("covered").port, None);
    assert_eq!(client.shard_stats(ringway_core::ShardId(1)).expect("text"), r#"{"shard":1}"#);
    client.ping(b"hello").expect("echoed");
    let error = client.server().expect_err("not UTF-8");
    assert!(matches!(error, Error::Stream { source: StreamError::Data("SERVER"), .. }), "{error}");
    mock.end(client);
}

/// Notices come between replies without disturbing them, and alone while somebody waits.
#[test]
fn notices_are_kept_apart_from_replies() {
    let mock = Mock::run(|stream| {
        greet(stream);
        let (sequence, _) = next_request(stream).expect("a ping");
        let ended = [1, 0, 9, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1];
        send_frame(stream, 2, 0, 1, &ended);
        let mut reply = vec![];
        data(b"x", &mut reply);
        send_frame(stream, 1, sequence, 1, &reply);
        let moved = [2, 0, 8, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0x7F, 0, 2, 0, 1, 2];
        send_frame(stream, 2, 0, 2, &moved);
        assert!(next_request(stream).is_none(), "the client only listens now");
    });
    let mut client = mock.connect();
    client.ping(b"x").expect("echoed");
    let ended = Notice::SessionEnded { session: SessionId(5), reason: EndReason::Expired };
    assert_eq!(client.take_notice(), Some(ended));
    let patience = Duration::from_secs(60);
    let moved = Notice::SessionMoved { session: SessionId(6) };
    assert_eq!(client.wait_notice(patience).expect("heard"), Some(moved));
    assert_eq!(client.wait_notice(patience).expect("heard"), Some(Notice::Unknown(0x7F)));
    assert_eq!(client.wait_notice(Duration::from_millis(20)).expect("patient"), None);
    mock.end(client);
}

/// A bad name in the middle of a batch fails the call, but the connection stays in step: the next
/// call gets its own replies.
#[test]
fn a_bad_name_leaves_the_connection_usable() {
    let mock = Mock::answering(|op, out| match op.body.as_slice() {
        b"first" => out.push(0x01),
        b"second" => owner(0x40, 8, 8, out),
        other => panic!("unexpected {other:?}"),
    });
    let mut client = mock.connect();
    let error = client.query(&[b"first", b""]).expect_err("an empty name");
    assert!(matches!(error, Error::Op { source: OpError::Name(0), .. }), "{error}");
    let second = client.query_one(b"second").expect("answered").expect("owned");
    assert_eq!(second.session, SessionId(8));
    mock.end(client);
}

/// A silent server is a time-out; afterwards nobody can tell which reply is whose, so the
/// connection refuses to go on.
#[test]
fn a_silent_server_times_out() {
    let mock = Mock::run(|stream| {
        greet(stream);
        while next_request(stream).is_some() {}
    });
    // Long enough for the greeting, also on a busy machine.
    let options = Options { timeout: Duration::from_secs(1), ..Options::default() };
    let mut client = Client::connect(mock.addr, options).expect("greeted");
    let error = client.renew().expect_err("no answer");
    assert!(matches!(error, Error::Timeout { doing: "RENEW", .. }), "{error}");
    assert!(matches!(client.renew(), Err(Error::Dead { .. })));
    mock.end(client);
}

/// A server that closes, or that reports that it cannot follow us, is told apart from a time-out.
#[test]
fn closed_and_broken_connections_are_named() {
    let mock = Mock::run(|stream| {
        greet(stream);
        next_request(stream);
    });
    let mut client = mock.connect();
    let error = client.renew().expect_err("closed");
    assert!(matches!(error, Error::Closed { doing: "RENEW", .. }), "{error}");
    mock.end(client);

    let mock = Mock::run(|stream| {
        greet(stream);
        next_request(stream);
        send_frame(stream, 2, 0, 1, &[3, 0, 0, 0]);
    });
    let mut client = mock.connect();
    let error = client.renew().expect_err("reported");
    assert!(matches!(error, Error::Stream { source: StreamError::Reported, .. }), "{error}");
    mock.end(client);
}

/// Redis at the other end, wrong credentials, and nobody at all: each says what to do.
#[test]
fn connecting_fails_with_advice() {
    let mock = Mock::run(|stream| {
        let mut preface = [0; 16];
        stream.read_exact(&mut preface).expect("a preface");
        stream.write_all(b"-ERR unknown command\r\n").expect("sent");
    });
    let error = Client::connect(mock.addr, Options::default()).expect_err("not ours");
    assert!(error.to_string().contains("is another service listening there?"), "{error}");
    mock.thread.join().expect("played");

    let mock = Mock::answering(|op, out| {
        assert_eq!((op.code, op.body.as_slice()), (0x34, b"\x03ann\x05wrong".as_slice()));
        out.push(0xCE);
    });
    let credentials = Some(Credentials { user: "ann".into(), password: "wrong".into() });
    let options = Options { credentials, ..Options::default() };
    assert!(!format!("{options:?}").contains("wrong"), "the password stays out of logs");
    let error = Client::connect(mock.addr, options).expect_err("refused");
    assert_eq!(error.refusal(), Some(Refusal::Refused));
    mock.thread.join().expect("played");

    // Whatever listens for the other tests has another address and a larger port.
    let addr = ([127, 0, 0, 77], 1).into();
    let error = Client::connect(addr, Options::default()).expect_err("nobody listens");
    assert!(error.to_string().contains("is `ringway serve` running there?"), "{error}");
}
