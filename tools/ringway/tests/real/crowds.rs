//! Many at once, and much at once: what one client does must not be felt by another.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringway_client::{OpenRequest, Refusal, Registered};
use ringway_core::NodeId;

use crate::floods::{PREFACE, native_frame};
use crate::support::{Server, Setup, Watch, granted, pass, until};

/// What another client may wait longer because of a crowd, beside three times what it waits without
/// one. It is for a machine whose cores are busy with tests, and far less than a crowd's work takes
/// if nobody is served in between. How long waits are on idle cores is what `perf/measure.sh` is
/// for.
pub(crate) const SLACK: Duration = Duration::from_millis(100);

/// Clients write pipelines and never read. The server stops reading them after a bounded number of
/// bytes, its memory stays where it was, and another client does not notice. One that reads at last
/// gets every answer.
#[test]
fn a_flood_is_not_felt_by_others() {
    let server = Setup::new().shards(2).start();
    let calm = Watch::calm(&server);
    let before = server.resident_bytes();
    let watch = Watch::begin(&server);
    let frame = native_frame(64);
    let native = flood(&server, &[&PREFACE[..], &frame].concat(), &frame);
    let lines = b"PORT.QUERY some-name another-name\r\n".repeat(100);
    let mut resp = flood(&server, &lines, &lines);
    pass(Duration::from_millis(500));
    let flooded = watch.end();
    let grown = server.resident_bytes().saturating_sub(before);
    println!("calm {calm:?}\nflooded {flooded:?}\nmemory grew by {} KiB", grown >> 10);
    flooded.assert_as(&calm, SLACK);
    // Two connections, each with the replies and the input that one may keep, and what allocators
    // add.
    assert!(grown < 48 << 20, "{grown} bytes");
    // Whole commands are answered in full. What was cut in the middle is not a command yet.
    let whole = resp.sent / (lines.len() / 100);
    let reply = b"*2\r\n$-1\r\n$-1\r\n";
    let mut answers = vec![0; whole * reply.len()];
    resp.stream.set_nonblocking(false).expect("a socket");
    resp.stream.set_read_timeout(Some(crate::support::PATIENCE)).expect("a socket");
    resp.stream.read_exact(&mut answers).expect("every answer");
    assert!(answers.chunks(reply.len()).all(|each| each == reply));
    drop(native);
    server.stop();
}

struct Flood {
    stream: TcpStream,
    sent: usize,
}

/// Writes until the server has taken nothing more for a while.
fn flood(server: &Server, first: &[u8], again: &[u8]) -> Flood {
    let stream = TcpStream::connect(server.addr).expect("connects");
    stream.set_nonblocking(true).expect("a socket");
    let mut flood = Flood { stream, sent: 0 };
    let (mut bytes, mut at, mut moved) = (first, 0, Instant::now());
    while moved.elapsed() < Duration::from_millis(500) {
        match flood.stream.write(&bytes[at..]) {
            Ok(many) => {
                (at, moved) = (at + many, Instant::now());
                flood.sent += many;
                if at == bytes.len() {
                    (bytes, at) = (again, 0);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => pass(Duration::from_millis(5)),
            Err(error) => panic!("the server hung up on a slow reader: {error}"),
        }
        assert!(flood.sent < 1 << 30, "a gibibyte went in and nothing was read");
    }
    flood
}

/// Bytes that are no protocol end their connection with an answer that says why, and nothing else.
#[test]
fn broken_bytes_end_their_own_connection_only() {
    let mut server = Setup::new().shards(2).start();
    let mut good = server.client();
    granted(&mut good, "good");
    let long = [b"PORT.QUERY ".as_slice(), &vec![b'x'; 200_000], b"\r\n"].concat();
    let frame = |header: [u8; 16]| [PREFACE.as_slice(), &header].concat();
    let broken: Vec<(&str, Vec<u8>)> = vec![
        ("a handshake of TLS", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3]),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("a count that is no number", b"*x\r\n".to_vec()),
        ("a negative length", b"*1\r\n$-5\r\n".to_vec()),
        ("a huge bulk", b"*2\r\n$4\r\nPING\r\n$999999999\r\n".to_vec()),
        ("a huge array", b"*99999999\r\n".to_vec()),
        ("an endless line", long),
        ("an open quote", b"PORT.QUERY \"abc\r\n".to_vec()),
        ("another major version", [&[0xB1, 9][..], &PREFACE[2..]].concat()),
        ("a frame shorter than its header", frame([3; 16])),
        ("a frame beyond the limit", frame([0xFF; 16])),
    ];
    for (what, bytes) in &broken {
        let mut stream = TcpStream::connect(server.addr).expect("connects");
        stream.set_read_timeout(Some(crate::support::PATIENCE)).expect("a socket");
        // The server may hang up while a long one is still being written.
        let _ = stream.write_all(bytes);
        let mut said = Vec::new();
        match stream.read_to_end(&mut said) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("{what}: not closed: {error}"),
        }
        let text = String::from_utf8_lossy(&said).into_owned();
        println!("{what}: {:?}", text.get(..90).unwrap_or(&text));
        good.query_one(b"good").unwrap_or_else(|error| panic!("after {what}: {error}"));
    }
    // Noise, from a generator that is the same every time.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0..50 {
        let mut noise = vec![0; 2000];
        for byte in &mut noise {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
        let bytes = match round % 3 {
            0 => noise,
            1 => [PREFACE.as_slice(), &noise].concat(),
            _ => [b"*2\r\n$10\r\n".as_slice(), &noise].concat(),
        };
        let mut stream = TcpStream::connect(server.addr).expect("connects");
        let _ = stream.write_all(&bytes);
    }
    assert!(good.query_one(b"good").expect("an answer").is_some());
    assert!(server.is_alive());
    server.stop();
}

/// Two thousand connections that each own a name, all at once, then all gone at once.
#[test]
fn two_thousand_connections() {
    const MANY: usize = 2000;
    let server = Setup::new().shards(2).start();
    let mut watcher = server.client();
    let begun = Instant::now();
    let mut crowd: Vec<TcpStream> = (0..MANY)
        .map(|index| {
            let mut stream = TcpStream::connect(server.addr).expect("connects");
            stream.set_read_timeout(Some(crate::support::PATIENCE)).expect("a socket");
            write!(stream, "PORT.REGISTER crowd/{index}\r\n").expect("writes");
            stream
        })
        .collect();
    for (index, stream) in crowd.iter_mut().enumerate() {
        let mut grant = [0; 8];
        stream.read_exact(&mut grant).expect("an answer");
        assert_eq!(&grant, b"*3\r\n:1\r\n", "connection {index}");
    }
    println!("{MANY} connections had their names after {:?}", begun.elapsed());
    let names: Vec<String> = (0..MANY).map(|index| format!("crowd/{index}")).collect();
    let names: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
    let owned = |watcher: &mut ringway_client::Client| {
        let owners = watcher.query(&names).expect("answers");
        owners.iter().filter(|owner| matches!(owner, Ok(Some(_)))).count()
    };
    assert_eq!(owned(&mut watcher), MANY);
    let begun = Instant::now();
    drop(crowd);
    until("all names are free", || (owned(&mut watcher) == 0).then_some(()));
    println!("and their names were free {:?} after they had gone", begun.elapsed());
    server.stop();
}

/// With few descriptors those who find no place wait or are turned away; those who have one are
/// served, and a place that is given back is taken.
#[test]
fn a_server_out_of_descriptors_goes_on() {
    let mut command = std::process::Command::new("sh");
    let inner = Setup::new().command();
    command.args(["-c", "ulimit -n 64 && exec \"$@\"", "sh"]).arg(inner.get_program());
    command.args(inner.get_args());
    let mut server = Server::start(command);
    let mut first = server.client();
    let crowd: Vec<TcpStream> = (0..100).filter_map(|_| server.connect()).collect();
    for _ in 0..100 {
        first.query_one(b"a").expect("who is connected is served");
    }
    let (cpu, begun) = (server.cpu(), Instant::now());
    pass(Duration::from_millis(500));
    let (spent, passed) = (server.cpu().saturating_sub(cpu), begun.elapsed());
    assert!(spent < passed / 2, "it spins on accept: {spent:?} of {passed:?}");
    drop(crowd);
    until("there is a place again", || {
        let options =
            ringway_client::Options { timeout: Duration::from_secs(5), credentials: None };
        ringway_client::Client::connect(server.addr, options).ok()
    });
    assert!(server.is_alive());
    server.stop();
}

/// A server that is asked for more than its memory answers `FULL`, and lives: what it has it keeps,
/// and what is given back can be had again.
#[test]
fn a_full_server_says_so_and_lives() {
    let mut server = Setup::new().flag("--max-memory", "48MiB").start();
    let mut client = server.client();
    let mut granted = Vec::new();
    let mut full = 0;
    for batch in 0..400 {
        let names: Vec<String> = (0..1000).map(|i| format!("{batch:04}/{i:06}/{}", LONG)).collect();
        let wanted: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
        let results = client.register(&wanted).expect("answers");
        for (name, result) in names.iter().zip(results) {
            match result {
                Ok(Registered::Granted(_)) => granted.push(name.clone()),
                Err(Refusal::Full) => full += 1,
                other => panic!("{name}: {other:?}"),
            }
        }
        if full > 2000 {
            break;
        }
    }
    println!("{} names of 112 bytes fit 48 MiB, then {full} were FULL", granted.len());
    assert!(full > 2000 && granted.len() > 1000, "{} granted, {full} refused", granted.len());
    let resident = server.resident_bytes();
    assert!(resident < 48 << 20, "{resident} bytes resident");
    let some: Vec<&[u8]> = granted.iter().take(1000).map(String::as_bytes).collect();
    let owners = client.query(&some).expect("answers");
    assert!(owners.iter().all(|owner| matches!(owner, Ok(Some(_)))), "what it has it keeps");
    let mut resp =
        redis::Client::open(server.url()).and_then(|c| c.get_connection()).expect("RESP");
    let refused = redis::cmd("PORT.REGISTER").arg(format!("one-more/{LONG}{LONG}")).to_owned();
    let refused = refused.query::<redis::Value>(&mut resp).expect_err("it is full");
    assert_eq!(refused.code(), Some("FULL"), "{refused}");
    assert!(client.release(&some).expect("answers").iter().all(Result::is_ok));
    until("there is room again", || {
        let again = client.register(&some[..500]).expect("answers");
        again.iter().all(|one| matches!(one, Ok(Registered::Granted(_)))).then_some(())
    });
    assert!(server.is_alive());
    server.stop();
}

const LONG: &str = "a-name-that-does-not-fit-into-its-record-so-that-the-arena-has-to-keep-it-for-\
                    as-long-as-someone-owns";

/// A session with a million names is killed. Its names go in slices, between which everybody else
/// is served: the worst wait of another client meanwhile is printed and bounded.
#[test]
fn a_million_names_end_without_a_stall() {
    const NAMES: usize = 1_000_000;
    let server = Setup::new().flag("--max-memory", "512MiB").start();
    let mut rich = server.client();
    let lease = Duration::from_secs(30);
    let session = rich.open(OpenRequest { lease, ..OpenRequest::new(NodeId(1)) }).expect("opens");
    for chunk in 0..NAMES / 20_000 {
        let names: Vec<String> = (0..20_000).map(|i| format!("m/{chunk:03}/{i:08}")).collect();
        let names: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
        assert!(rich.register(&names).expect("answers").iter().all(|result| result.is_ok()));
        rich.renew().expect("renews");
    }
    let mut operator = server.client();
    let record = operator.session(session.session).expect("it lives");
    assert_eq!(record.names, NAMES as u64);
    let calm = Watch::calm(&server);
    let watch = Watch::begin(&server);
    let begun = Instant::now();
    operator.kill(session.session).expect("kills");
    let probe = b"m/049/00019999".as_slice();
    let at_once = granted(&mut operator, "m/000/00000000");
    println!("the first name was another's {:?} after the kill", begun.elapsed());
    until("all names are swept", || {
        let stats = operator.shard_stats(ringway_core::ShardId(0)).expect("stats");
        let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
        (stats["names"].as_u64().expect("a number") <= 1).then_some(())
    });
    let swept = begun.elapsed();
    let latency = watch.end();
    println!("{NAMES} names were swept in {swept:?}; meanwhile another client saw {latency:?}");
    println!("calm {calm:?}");
    latency.assert_as(&calm, SLACK);
    assert_eq!(operator.query_one(probe).expect("an answer"), None);
    let kept = operator.query_one(b"m/000/00000000").expect("an answer").expect("owned");
    assert_eq!(kept.token, at_once.token, "the sweep left alone what was granted meanwhile");
    server.stop();
}

/// A server with nothing to do does nothing, also while clients with sessions are connected.
#[test]
fn an_idle_server_uses_no_cpu() {
    let server = Setup::new().shards(2).start();
    let mut clients: Vec<_> = (0..20).map(|_| server.client()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.open(OpenRequest::new(NodeId(index as u64 + 1))).expect("opens");
        granted(client, &format!("idle/{index}"));
    }
    // Memory is still being committed ahead of need for a moment: how long depends on the host.
    let mut windows = (0..5).map(|_| {
        let before = server.cpu();
        pass(Duration::from_secs(2));
        server.cpu().saturating_sub(before)
    });
    let spent = windows.find(|spent| *spent < Duration::from_millis(20));
    println!("an idle server with 20 sessions used {spent:?} of 2 s");
    assert!(spent.is_some(), "it never became idle");
    server.stop();
}
