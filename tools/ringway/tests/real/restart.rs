//! The server dies or stops, and another takes its state directory over.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringway_client::{Client, OpenRequest, Refusal, Registered};
use ringway_core::{NodeId, Token};
use rustix::process::Signal;

use crate::support::{PATIENCE, Server, Setup, granted, ringway, until};

/// What a session asks for here.
const LEASE: Duration = Duration::from_millis(1900);
/// What the state directory remembers for it, and a restart waits for. A start takes less, also on
/// a machine that is busy with other tests.
const REMEMBERED: Duration = Duration::from_secs(2);

fn open(client: &mut Client, node: u64) {
    let request = OpenRequest { lease: LEASE, ..OpenRequest::new(NodeId(node)) };
    client.open(request).expect("opens");
}

/// Claims a name, whatever the server says about starting; the token, and how long it took.
fn granted_after_start(client: &mut Client, name: &[u8]) -> (Token, Option<Duration>) {
    let mut said = None;
    let token = until("grants resume", || {
        match client.register(&[name]).expect("an answer").pop().expect("one answer") {
            Ok(Registered::Granted(owner)) => Some(owner.token),
            Err(Refusal::Starting(wait)) => {
                said = said.or(Some(wait));
                None
            }
            other => panic!("neither granted nor told to wait: {other:?}"),
        }
    });
    (token, said)
}

/// After SIGKILL an owner may believe in its lease for as long as it lasts. The next server takes a
/// new epoch, answers questions, says `STARTING` with the wait, grants nothing until then, and its
/// tokens are larger than all before, for the same name. A second kill while it waits changes
/// nothing.
#[test]
fn a_killed_server_comes_back_without_giving_a_name_away_early() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let setup = Setup::new().shards(2).state(dir.path());
    let first = setup.start();
    assert_eq!((first.epoch, first.starting), (1, Duration::ZERO), "a fresh directory");
    let mut owner = first.client();
    open(&mut owner, 1);
    let before = granted(&mut owner, "orders/17").token;
    first.kill();
    assert!(owner.renew().is_err(), "its server is dead");

    let second = setup.start();
    assert_eq!(second.epoch, 2);
    assert!(!second.starting.is_zero() && second.starting <= REMEMBERED, "{:?}", second.starting);
    let mut client = second.client();
    assert_eq!(client.query_one(b"orders/17").expect("an answer"), None);
    second.kill();

    let killed = Instant::now();
    let third = setup.start();
    assert_eq!(third.epoch, 3);
    assert!(!third.starting.is_zero(), "the wait begins anew");
    let doctor = ringway(&["doctor", "--state", dir.path().to_str().expect("text"), "--json"]);
    assert!(doctor.out.contains("a server is running on it"), "{doctor:?}");
    let mut client = third.client();
    let (after, said) = granted_after_start(&mut client, b"orders/17");
    let waited = killed.elapsed();
    assert!(waited >= LEASE, "granted {waited:?} after the kill, within the old lease");
    if let Some(wait) = said {
        assert!(wait <= REMEMBERED, "{wait:?}");
    }
    assert!(after > before, "{after} after {before}");
    third.stop();
}

/// Through a Redis client the wait is an error with its own code, and the number of milliseconds.
#[test]
fn redis_clients_are_told_to_wait_too() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let setup = Setup::new().state(dir.path());
    let first = setup.start();
    let mut owner = first.client();
    let request = OpenRequest { lease: Duration::from_secs(30), ..OpenRequest::new(NodeId(1)) };
    owner.open(request).expect("opens");
    first.kill();
    let second = setup.start();
    assert!(second.starting > Duration::from_secs(20), "{:?}", second.starting);
    let client = redis::Client::open(second.url()).expect("a URL");
    let mut client = client.get_connection().expect("connects");
    let claimed = redis::cmd("PORT.REGISTER").arg("a").query::<redis::Value>(&mut client);
    let error = claimed.expect_err("nothing is granted");
    assert_eq!(error.code(), Some("STARTING"), "{error}");
    let text = error.to_string();
    let ms = text.split(|c: char| !c.is_ascii_digit()).find_map(|word| word.parse::<u64>().ok());
    assert!(ms.is_some_and(|ms| (20_000..=30_000).contains(&ms)), "{text}");
    let lock = redis::cmd("SET").arg(&["b", "me", "NX", "PX", "1000"]).query::<()>(&mut client);
    assert_eq!(lock.expect_err("nothing is granted").code(), Some("STARTING"));
    let health: Option<String> = redis::cmd("GET").arg("b").query(&mut client).expect("an answer");
    assert_eq!(health, None);
}

/// SIGTERM with nobody left who counts a lease: the next server grants at once.
#[test]
fn a_clean_stop_lets_the_next_server_grant_at_once() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let setup = Setup::new().shards(2).state(dir.path());
    let first = setup.start();
    let mut leased = first.client();
    open(&mut leased, 1);
    let before = granted(&mut leased, "a").token;
    leased.close_session(None).expect("closes");
    let mut bare = first.client();
    granted(&mut bare, "b");
    first.stop();
    let second = setup.start();
    assert_eq!((second.epoch, second.starting), (2, Duration::ZERO));
    assert!(granted(&mut second.client(), "a").token > before);
    granted(&mut second.client(), "b");
    second.stop();
}

/// `timeout` and some supervisors signal a program and then its group: the second one right behind
/// the first is the same wish, and the server drains.
#[test]
fn a_signal_that_comes_twice_is_one() {
    let server = Setup::new().start();
    let mut owner = server.client();
    granted(&mut owner, "a");
    server.signal(Signal::TERM);
    server.stop();
}

/// SIGTERM while a session counts on its lease: the owner works on, so the next server waits. A
/// stop within that wait has not seen it pass, so the one after waits again.
#[test]
fn a_stop_with_an_owner_at_work_makes_the_next_server_wait() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let setup = Setup::new().shards(2).state(dir.path());
    let first = setup.start();
    let mut leased = first.client();
    open(&mut leased, 1);
    let before = granted(&mut leased, "a").token;
    first.stop();
    let stopped = Instant::now();
    let second = setup.start();
    assert!(!second.starting.is_zero(), "an owner may be at work");
    second.stop();
    let third = setup.start();
    let (after, _) = granted_after_start(&mut third.client(), b"a");
    assert!(stopped.elapsed() >= LEASE, "{:?}", stopped.elapsed());
    assert!(after > before);
    third.stop();
    let fourth = setup.start();
    assert_eq!(fourth.starting, Duration::ZERO, "by now that lease is history");
    fourth.stop();
}

/// What was sent before the signal is answered, then the connection ends in order: SIGTERM finds
/// the server standing, with a pipeline in its socket. Natively and with RESP, on one shard and
/// with half of it forwarded.
#[test]
fn what_was_sent_is_answered_before_the_end() {
    for shards in [1, 2] {
        let server = Setup::new().shards(shards).start();
        let mut streams = [connect(&server), connect(&server)];
        // Both have been served once, so both are open as far as the server knows.
        let mut preface = [0; 16];
        streams[0].write_all(&PREFACE).expect("writes");
        streams[0].read_exact(&mut preface).expect("its preface");
        streams[1].write_all(b"PING\r\n").expect("writes");
        streams[1].read_exact(&mut preface[..7]).expect("+PONG");
        server.pause();
        // More than a connection executes in one turn, so that some of it waits for the next.
        let many = [b"PORT.QUERY".as_slice(), &b" a".repeat(1000), b"\r\n"].concat().repeat(10);
        let (native, resp) = (native_queries(500), [resp_queries(500), many].concat());
        streams[0].write_all(&native).expect("fits the socket");
        streams[1].write_all(&resp).expect("fits the socket");
        server.signal(Signal::TERM);
        server.signal(Signal::CONT);
        let mut answers = [Vec::new(), Vec::new()];
        for (stream, answers) in streams.iter_mut().zip(&mut answers) {
            stream.read_to_end(answers).expect("an orderly end");
        }
        assert_eq!(answers[0].len(), 500 * (16 + 1), "{shards} shards, native");
        let many = [b"*1000\r\n".as_slice(), &b"$-1\r\n".repeat(1000)].concat().repeat(10);
        let expected = [b"$-1\r\n".repeat(500), many].concat();
        assert_eq!(answers[1].len(), expected.len(), "{shards} shards, RESP");
        assert!(answers[1] == expected, "{shards} shards, RESP");
        assert!(server.wait().success());
    }
}

const PREFACE: [u8; 16] = [0xB1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0];

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.addr).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// Frames of one query each.
fn native_queries(many: usize) -> Vec<u8> {
    let frame = |index: usize| {
        let name = format!("name/{index:05}");
        let mut frame = (16 + 4 + name.len() as u32).to_le_bytes().to_vec();
        frame.extend([1, 0, 0, 0]);
        frame.extend((index as u64 + 1).to_le_bytes());
        frame.extend([1, 0, name.len() as u8, 0]);
        frame.extend(name.bytes());
        frame
    };
    (0..many).flat_map(frame).collect()
}

fn resp_queries(many: usize) -> Vec<u8> {
    let line = |index: usize| format!("PORT.QUERY name/{index:05}\r\n").into_bytes();
    (0..many).flat_map(line).collect()
}
