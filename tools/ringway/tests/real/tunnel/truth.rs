//! What a user hears is what happened: the table of ends, resets and failures.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use rustix::net::{AddressFamily, SocketType};

use super::flows::{
    End, Held, connect, echo, echo_one, end_of, is_reset, listen, says_again, serve,
};
use super::place::in_a_network_of_its_own;
use super::sites::{Keys, Pair, Words};
use super::wire::reset;

/// A user of SOCKS5 who wants to this target and was told nothing yet.
#[track_caller]
pub(crate) fn asks_socks(door: SocketAddr, target: &str) -> TcpStream {
    let (host, port) = target.rsplit_once(':').expect("host:port");
    let mut stream = connect(door);
    stream.write_all(&[5, 1, 0]).expect("it takes it");
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).expect("a method");
    assert_eq!(chosen, [5, 0]);
    let mut request = vec![5, 1, 0];
    match host.trim_matches(['[', ']']).parse() {
        Ok(std::net::IpAddr::V4(ip)) => {
            request.push(1);
            request.extend(ip.octets());
        }
        Ok(std::net::IpAddr::V6(ip)) => {
            request.push(4);
            request.extend(ip.octets());
        }
        Err(_) => {
            request.extend([3, host.len() as u8]);
            request.extend(host.bytes());
        }
    }
    let port: u16 = port.parse().expect("a port");
    request.extend(port.to_be_bytes());
    stream.write_all(&request).expect("it takes it");
    stream
}

/// Likewise; what it is told.
#[track_caller]
pub(crate) fn by_socks(door: SocketAddr, target: &str) -> (TcpStream, u8) {
    let mut stream = asks_socks(door, target);
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).expect("a reply");
    assert_eq!((reply[0], reply[2], reply[3]), (5, 0, 1), "{reply:?}");
    (stream, reply[1])
}

/// A user of HTTP CONNECT; the status it is told.
#[track_caller]
fn by_connect(door: SocketAddr, target: &str) -> (TcpStream, u16) {
    let mut stream = connect(door);
    write!(stream, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").expect("it takes it");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a whole head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    (stream, status.and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{head}")))
}

/// A near side with every door, in front of one service.
fn every_door(service: SocketAddr) -> Pair {
    let near = Words::default()
        .forward(service)
        .section(
            "forward",
            &format!(
                "listen = \"127.0.0.1:0\"\npeer = \"it\"\nto = \"{service}\"\ncompress = \"off\""
            ),
        )
        .door("socks5")
        .door("http_connect");
    Pair::start(&near, &Words::default().allow([service]))
}

const DOORS: [&str; 4] = ["forward", "plain forward", "socks5", "connect"];

/// A user by one of these doors.
fn user_by(pair: &Pair, door: usize, service: SocketAddr) -> TcpStream {
    let (at, target) = (pair.near.door(door), service.to_string());
    let (user, told, good) = match door {
        0 | 1 => return connect(at),
        2 => {
            let (user, code) = by_socks(at, &target);
            (user, u16::from(code), 0)
        }
        _ => {
            let (user, status) = by_connect(at, &target);
            (user, status, 200)
        }
    };
    assert_eq!(told, good);
    user
}

/// Who ends its own direction goes on hearing the other, whichever of the two it is; and the end is
/// an end, not a reset.
#[test]
fn each_direction_ends_by_itself() {
    let service = Held::listen("127.0.0.1:0");
    let pair = every_door(service.addr);
    for first_to_end in ["user", "service"] {
        for (at, door) in DOORS.into_iter().enumerate() {
            let mut user = user_by(&pair, at, service.addr);
            user.write_all(b"?").expect("it takes it");
            let mut served = service.next();
            served.read_exact(&mut [0]).expect("it arrives");
            let (one, other) = match first_to_end {
                "user" => (&mut user, &mut served),
                _ => (&mut served, &mut user),
            };
            one.write_all(b"that was all").expect("it takes it");
            one.shutdown(Shutdown::Write).expect("open");
            let (heard, end) = end_of(other);
            assert_eq!(
                (&heard[..], end),
                (&b"that was all"[..], End::Whole),
                "{door} {first_to_end}"
            );
            let long = vec![b'x'; 300_000];
            other.write_all(&long).expect("the other direction is open");
            other.shutdown(Shutdown::Write).expect("open");
            let (heard, end) = end_of(one);
            assert!(heard == long && end == End::Whole, "{door} {first_to_end}: {}", heard.len());
        }
    }
    pair.stop();
}

/// A reset at one end is a reset at the other, also if nothing was ever said.
#[test]
fn a_reset_arrives_as_a_reset() {
    let service = Held::listen("127.0.0.1:0");
    let pair = every_door(service.addr);
    for silent in [true, false] {
        for resets in ["user", "service"] {
            for (at, door) in DOORS.into_iter().enumerate() {
                let mut user = user_by(&pair, at, service.addr);
                let mut served = service.next();
                if !silent {
                    user.write_all(b"ping").expect("it takes it");
                    served.read_exact(&mut [0; 4]).expect("it arrives");
                    served.write_all(b"pong").expect("it takes it");
                    user.read_exact(&mut [0; 4]).expect("it arrives");
                }
                println!("{door}: the {resets} resets, silent: {silent}");
                if resets == "user" {
                    reset(&user);
                    is_reset(&mut served);
                } else {
                    reset(&served);
                    is_reset(&mut user);
                }
            }
        }
    }
    pair.stop();
}

/// What can go wrong before a service is reached has a code in SOCKS5 and a status in HTTP; who
/// has no such language hears a reset, and never an end.
#[test]
fn failures_to_connect_have_names() {
    let service = echo();
    let (nobody, refused) = listen("127.0.0.1:0");
    drop(nobody);
    let (crowded, full) = full_backlog();
    let denied = "127.0.0.1:9";
    let near = Words::default().door("socks5").door("http_connect");
    let targets = [refused.to_string(), denied.to_owned(), full.to_string()];
    let near = targets
        .iter()
        .chain(&["no.such.name.invalid:80".to_owned()])
        .fold(near, |near, to| near.forward(to));
    let far = Words::default().allow([
        service.to_string(),
        refused.to_string(),
        full.to_string(),
        "no.such.name.invalid:80".to_owned(),
    ]);
    let pair = Pair::start(&near, &far);
    let (socks, http) = (pair.near.door(4), pair.near.door(5));
    let expected: [(&str, u8, u16); 4] = [
        (&refused.to_string(), 5, 502),
        (denied, 2, 403),
        ("no.such.name.invalid:80", 4, 502),
        // After ten seconds.
        (&full.to_string(), 4, 504),
    ];
    std::thread::scope(|all| {
        for (target, code, status) in expected {
            all.spawn(move || {
                let (mut stream, told) = by_socks(socks, target);
                assert_eq!(
                    (told, end_of(&mut stream)),
                    (code, (Vec::new(), End::Whole)),
                    "{target}"
                );
            });
            all.spawn(move || {
                let (_, told) = by_connect(http, target);
                assert_eq!(told, status, "{target}");
            });
        }
        for door in 0..4 {
            let mut user = connect(pair.near.door(door));
            all.spawn(move || is_reset(&mut user));
        }
    });
    drop(crowded);
    // The same doors work.
    let (mut stream, told) = by_socks(socks, &service.to_string());
    assert_eq!(told, 0);
    says_again(&mut stream, b"all is well");
    drop(stream);
    pair.stop();
}

/// A listener that takes no more connections, and those that fill it.
fn full_backlog() -> (Vec<std::os::fd::OwnedFd>, SocketAddr) {
    let socket =
        rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    rustix::net::listen(&socket, 0).expect("it listens");
    let addr = TcpListener::from(socket);
    let at = addr.local_addr().expect("bound");
    let mut all = vec![std::os::fd::OwnedFd::from(addr)];
    // One is queued; the kernel drops the requests of the others.
    while let Ok(stream) = TcpStream::connect_timeout(&at, std::time::Duration::from_millis(300)) {
        all.push(stream.into());
        assert!(all.len() < 64, "a backlog of none takes any number");
    }
    (all, at)
}

/// A host to which no way leads, and one over IPv6.
#[test]
fn a_way_that_is_not_there_and_a_way_over_ipv6() {
    in_a_network_of_its_own(|| {
        let route =
            Command::new("ip").args(["route", "add", "unreachable", "192.0.2.0/24"]).status();
        assert!(route.expect("iproute2").success());
        let service = serve("[::1]:0", echo_one);
        let near =
            Words::default().forward_from("[::1]:0", service).door("socks5").door("http_connect");
        let far = Words::default().set("listen = \"[::1]:0\"");
        let far = far.allow([service.to_string(), "192.0.2.7:80".to_owned()]);
        let keys = Keys::new();
        let far = keys.far(&far);
        let near = keys.near(&near, far.carriers());
        let mut user = connect(near.door(0));
        says_again(&mut user, b"over six");
        let (mut other, code) = by_socks(near.door(1), &service.to_string());
        assert_eq!(code, 0);
        says_again(&mut other, b"over six");
        assert_eq!(by_socks(near.door(1), "192.0.2.7:80").1, 4);
        assert_eq!(by_connect(near.door(2), "192.0.2.7:80").1, 502);
        drop((user, other));
        near.stop();
        far.stop();
    });
}

/// A service that wants to know who connects is told: the user's own address, not the tunnel's.
#[test]
fn a_service_learns_who_connects() {
    let service = Held::listen("127.0.0.1:0");
    let near = Words::default().forward("service:web");
    let lines = format!("name = \"web\"\nto = \"{}\"\nproxy_protocol = true", service.addr);
    let far = Words::default().allow(["service:web"]).section("service", &lines);
    let pair = Pair::start(&near, &far);
    let mut user = connect(pair.near.door(0));
    let me = user.local_addr().expect("connected");
    user.write_all(b"GET").expect("it takes it");
    let mut served = service.next();
    let mut head = [0; 31];
    served.read_exact(&mut head).expect("a header, and what the user said");
    let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (me, service.addr) else {
        panic!("both are IPv4")
    };
    let mut wanted = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    wanted.extend(source.ip().octets());
    wanted.extend(destination.ip().octets());
    wanted.extend(source.port().to_be_bytes());
    wanted.extend(destination.port().to_be_bytes());
    wanted.extend(b"GET");
    assert_eq!(head[..], wanted);
    drop((user, served));
    pair.stop();
}

/// Forwards in the file of the side that does not dial work as the others do, with one shard or two
/// at either side: whichever shard a user comes to, it gets to the one that has the session.
#[test]
fn forwards_lead_both_ways_with_any_number_of_shards() {
    for (near_shards, far_shards) in [(1, 1), (2, 1), (1, 2), (2, 2)] {
        let (here, there) = (echo(), echo());
        let near = Words::default().set(&format!("shards = {near_shards}"));
        let far = Words::default().set(&format!("shards = {far_shards}"));
        let near = near.allow([here]).forward(there);
        let far = far.allow([there]).forward(here).door("socks5");
        let pair = Pair::start(&near, &far);
        let mut users = Vec::new();
        for round in 0..8 {
            let socks = by_socks(pair.far.door(1), &here.to_string());
            assert_eq!(socks.1, 0);
            for mut user in [connect(pair.near.door(0)), connect(pair.far.door(0)), socks.0] {
                says_again(&mut user, format!("round {round}").as_bytes());
                users.push(user);
            }
        }
        users.iter_mut().for_each(|user| says_again(user, &[7; 100_000]));
        println!("{near_shards} and {far_shards} shards: {} users", users.len());
        drop(users);
        pair.stop();
    }
}

/// Users of a side that is dialled come to any of its shards, and the session is on one: who writes
/// much right behind a request is moved there with all of it.
#[test]
fn what_is_written_behind_a_request_goes_along() {
    const MUCH: usize = 200_000;
    const USERS: usize = 12;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let service = listener.local_addr().expect("bound");
    let body: Vec<u8> = (0..MUCH).map(|at| (at * 31 % 251) as u8).collect();
    let wanted = body.clone();
    let serves = std::thread::spawn(move || {
        for _ in 0..USERS {
            let (mut stream, _) = listener.accept().expect("a user");
            let mut read = vec![0; MUCH];
            stream.read_exact(&mut read).expect("all of it");
            assert!(read == wanted);
            stream.write_all(b"whole").expect("the user reads");
        }
    });
    let keys = Keys::new();
    let far = keys.far(&Words::default().set("shards = 2").door("socks5"));
    let near = keys.near(&Words::default().set("shards = 1").allow([service]), far.carriers());
    let SocketAddr::V4(to) = service else { panic!("it is bound to one") };
    let mut said = [&[5, 1, 0, 1][..], &to.ip().octets(), &to.port().to_be_bytes()].concat();
    said.extend_from_slice(&body);
    let users: Vec<_> = (0..USERS)
        .map(|_| {
            let mut user = connect(far.door(0));
            user.write_all(&[5, 1, 0]).expect("it reads");
            let mut greeted = [0; 2];
            user.read_exact(&mut greeted).expect("a greeting");
            user.write_all(&said).expect("it reads");
            user
        })
        .collect();
    for mut user in users {
        let (mut reply, mut word) = ([0; 10], [0; 5]);
        user.read_exact(&mut reply).expect("a reply");
        user.read_exact(&mut word).expect("the service's word");
        assert_eq!((reply[1], &word), (0, b"whole"));
    }
    serves.join().expect("each came whole");
    drop((near, far));
}
