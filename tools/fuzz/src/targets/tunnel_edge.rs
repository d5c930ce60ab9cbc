//! What applications say to the tunnel's near side, and where they want to go: SOCKS5, HTTP
//! CONNECT, and targets as they stand in a stream or in a configuration.
//!
//! The oracles: a verdict stands whatever comes after it and in whatever pieces it came; bytes
//! behind what was taken do not matter; a target that was read is written and read the same; and a
//! refusal is a whole answer of the protocol.

use ringway_tunnel_proto::{
    CONNECT_HEAD_MAX, Connect, Socks, TARGET_BYTES_MAX, Target as Place, connect_request, greeting,
    request,
};

use crate::Target;

/// A byte that says which reader it is, and what it reads.
pub const EDGE: Target = Target {
    name: "tunnel_edge",
    run: edge,
    seeds: edge_seeds,
    words: &[
        b"CONNECT ",
        b"GET / HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b" HTTP/1.1\r\n",
        b"\r\n\r\n",
        b"Host: ",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked",
        b"127.0.0.1:1",
        b"[::1]:1",
    ],
    bytes_max: CONNECT_HEAD_MAX + 64,
};

const CONNECT: u8 = 0;
const GREETING: u8 = 1;
const REQUEST: u8 = 2;
const STREAM: u8 = 3;
const TEXT: u8 = 4;

/// Reads what an application says.
pub fn edge(data: &[u8]) {
    let [which, bytes @ ..] = data else { return };
    match which % 5 {
        CONNECT => connect(bytes),
        GREETING => socks(bytes, greeting),
        REQUEST => socks(bytes, request),
        STREAM => stream(bytes),
        _ => text(bytes),
    }
}

/// Some of the places where bytes can be cut: all of few, a few of many.
pub(super) fn cuts(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(1 + len / 64)
}

fn connect(bytes: &[u8]) {
    let whole = connect_request(bytes);
    match &whole {
        Connect::More => assert!(bytes.len() < CONNECT_HEAD_MAX, "it waits for ever"),
        Connect::Request { target, taken } => {
            assert!(*taken <= bytes.len() && bytes[..*taken].ends_with(b"\r\n\r\n"));
            assert_eq!(connect_request(&bytes[..*taken]), whole, "what follows matters");
            reads_again(target);
        }
        Connect::Refuse { say } => {
            let said = std::str::from_utf8(say).expect("an answer is text");
            let (head, page) = said.split_once("\r\n\r\n").expect("an answer has an end");
            assert!(head.starts_with("HTTP/1.1 4") || head.starts_with("HTTP/1.1 505 "), "{head}");
            let len = format!("\r\nContent-Length: {}\r\n", page.len());
            assert!(bytes.starts_with(b"HEAD ") || head.contains(&len), "{said}");
        }
    }
    for cut in cuts(bytes.len()) {
        let early = connect_request(&bytes[..cut]);
        assert!(
            early == Connect::More || early == whole,
            "cut at {cut}: {early:?}, then {whole:?}"
        );
    }
}

fn socks(bytes: &[u8], read: fn(&[u8]) -> Socks) {
    let whole = read(bytes);
    match &whole {
        Socks::More => assert!(bytes.len() < 4 + 256 + 2, "it waits for ever"),
        Socks::Greeted { say, taken } => {
            assert_eq!((say, read(&bytes[..*taken])), (&[5, 0], whole.clone()));
        }
        Socks::Connect { target, taken } => {
            assert_eq!(read(&bytes[..*taken]), whole, "what follows matters");
            reads_again(target);
        }
        Socks::Refuse { say } => assert!(say.is_empty() || say[0] == 5, "{say:?}"),
    }
    for cut in cuts(bytes.len()) {
        let early = read(&bytes[..cut]);
        assert!(early == Socks::More || early == whole, "cut at {cut}: {early:?}, then {whole:?}");
    }
}

fn stream(bytes: &[u8]) {
    let whole = Place::read(bytes);
    match &whole {
        Ok(None) => assert!(bytes.len() < TARGET_BYTES_MAX, "it waits for ever"),
        Ok(Some((target, taken))) => {
            assert_eq!(Place::read(&bytes[..*taken]), whole, "what follows matters");
            reads_again(target);
        }
        Err(_) => {}
    }
    for cut in cuts(bytes.len()) {
        let early = Place::read(&bytes[..cut]);
        assert!(early == Ok(None) || early == whole, "cut at {cut}: {early:?}, then {whole:?}");
    }
}

fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(target) = Place::parse(text) {
        reads_again(&target);
        assert_eq!(Place::parse(&target.to_string()), Ok(target), "{text:?}");
    }
}

/// A target stays what it is on its way, and is no address in a disguise.
fn reads_again(target: &Place) {
    let mut out = Vec::new();
    target.write(&mut out);
    assert!(out.len() <= TARGET_BYTES_MAX);
    assert_eq!(Place::read(&out), Ok(Some((target.clone(), out.len()))));
    if let Place::Host(name, _) = target {
        assert!(name.parse::<std::net::IpAddr>().is_err(), "{name} is an address");
        assert!(!name.bytes().any(|byte| byte <= b' ' || byte.is_ascii_uppercase()), "{name:?}");
    }
}

fn edge_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let with = |which: u8, bytes: &[u8]| [&[which], bytes].concat();
    let head = |fields: &str| {
        with(CONNECT, format!("CONNECT db.example:5432 HTTP/1.1\r\n{fields}\r\n").as_bytes())
    };
    let whole = |text: &str| with(CONNECT, text.as_bytes());
    let mut long = head("Host: db.example:5432\r\nX: ");
    long.truncate(long.len() - 2);
    long.resize(CONNECT_HEAD_MAX + 8, b'x');
    vec![
        ("connect", head("Host: db.example:5432\r\n")),
        (
            "connect-data",
            [head("Host: a\r\n"), b"\x16\x03\x01GET / HTTP/1.1\r\n".to_vec()].concat(),
        ),
        ("connect-proxy-fields", {
            head("Host: a\r\nProxy-Connection: x\r\nProxy-Authorization: Basic YTpi\r\n")
        }),
        ("connect-old", whole("CONNECT [2001:db8::1]:443 HTTP/1.0\r\n\r\n")),
        ("connect-no-host", head("")),
        ("connect-two-hosts", head("Host: a\r\nhost: b\r\n")),
        ("connect-length-0", head("Host: a\r\nContent-Length: 0\r\n")),
        ("connect-length", [head("Host: a\r\nContent-Length: 5\r\n"), b"hello".to_vec()].concat()),
        ("connect-chunked", head("Host: a\r\nTransfer-Encoding: chunked\r\n")),
        ("connect-bare-newline", head("Host: a\n")),
        ("connect-bare-return", head("Host: a\rb\r\n")),
        ("connect-folded", head("Host: a\r\n b\r\n")),
        ("connect-nul", head("Host: a\0\r\n")),
        ("connect-blank-before-colon", head("Host : a\r\n")),
        ("connect-disguise", whole("CONNECT 127.1:80 HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("connect-port-0", whole("CONNECT a:0 HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("connect-long", long),
        ("get", whole("GET / HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("head", whole("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("http-2", whole("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
        ("tls", with(CONNECT, b"\x16\x03\x01\x02\x00\x01")),
        ("socks-greeting", with(GREETING, &[5, 2, 1, 0])),
        ("socks-passwords-only", with(GREETING, &[5, 1, 2])),
        ("socks-4", with(GREETING, &[4, 1, 0, 80])),
        ("socks-ipv4", with(REQUEST, &[5, 1, 0, 1, 10, 0, 0, 1, 0, 80])),
        ("socks-name", with(REQUEST, b"\x05\x01\x00\x03\x02db\x15\x38data")),
        ("socks-ipv6", with(REQUEST, &[&[5, 1, 0, 4][..], &[0xfd; 16], &[1, 187]].concat())),
        ("socks-bind", with(REQUEST, &[5, 2, 0, 1])),
        ("target-ipv4", with(STREAM, &[1, 4, 10, 0, 0, 1, 0, 80])),
        ("target-ipv6", with(STREAM, &[&[2, 16][..], &[0xfd; 16], &[1, 187]].concat())),
        ("target-host", with(STREAM, b"\x03\x02db\x15\x38")),
        ("target-service", with(STREAM, b"\x04\x04mail\0\0data")),
        ("text-host", with(TEXT, b"DB.example:5432")),
        ("text-ipv6", with(TEXT, b"[::ffff:10.0.0.1]:80")),
        ("text-no-port", with(TEXT, b"host:")),
    ]
}
