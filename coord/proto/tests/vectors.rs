//! The test vectors of `docs/protocol.md`: what is printed there is what the encoders write, what
//! the parsers read, and what a shard says when the same conversation is held with it.

use ringway_coord_proto::watch::event::{Change, Event, Kind, MASK_ALL, Notices, encode};
use ringway_coord_proto::wire::{
    self, FRAME_BYTES_FLOOR, FrameHeader, FrameWriter, KIND_PUSH, KIND_REPLY, KIND_REQUEST,
    PREFACE_BYTES, Preface, RawOp, Reply, op, push, status,
};
use ringway_core::slot::SLOTS;
use ringway_core::wire::Put;
use ringway_core::{Epoch, SessionId, ShardId, Slot, Span, Token};
use ringway_sim::process::{Process, Settings};

const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

const SECRET: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const ADDRESS: &[u8] = b"10.0.0.7:9000";
const NODE: u64 = 7;
const LEASE_MS: u32 = 10_000;

/// The names of the vectors, in the order of the document and of the conversation.
const NAMES: [&str; 18] = [
    "preface",
    "preface of the server",
    "OPEN",
    "OPEN, reply",
    "REGISTER",
    "REGISTER, reply",
    "QUERY",
    "QUERY, reply",
    "RENEW by secret",
    "RENEW by secret, reply",
    "LIST",
    "LIST, reply",
    "WATCH",
    "WATCH, reply",
    "RELEASE under its token",
    "RELEASE under its token, reply",
    "EVENT, push",
    "SESSION_ENDED, push",
];

/// The bytes of each fenced block that begins with "```hex NAME"; `#` begins a comment.
fn vectors() -> Vec<(&'static str, Vec<u8>)> {
    let mut vectors = Vec::new();
    let mut lines = DOCUMENT.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```hex ") else { continue };
        let mut bytes = Vec::new();
        for line in lines.by_ref().take_while(|line| *line != "```") {
            let words = line.split('#').next().unwrap_or_default().split_whitespace();
            bytes.extend(words.map(|word| u8::from_str_radix(word, 16).expect("two hex digits")));
        }
        vectors.push((name, bytes));
    }
    vectors
}

fn vector(name: &str) -> Vec<u8> {
    let found = vectors().into_iter().find(|(have, _)| *have == name);
    found.unwrap_or_else(|| panic!("no vector {name:?} in the document")).1
}

fn session() -> SessionId {
    SessionId::new(Epoch(1), Slot::of(&NODE.to_le_bytes()), 1)
}

fn token() -> Token {
    Token::new(Epoch(1), 1)
}

fn frame(kind: u8, sequence: u64, count: u16, put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    let mut frame = FrameWriter::begin(&mut out, kind, 0, sequence);
    put(&mut out);
    frame.add(count);
    frame.finish(&mut out);
    out
}

fn request(sequence: u64, ops: &[(u8, u8, Vec<u8>)]) -> Vec<u8> {
    frame(KIND_REQUEST, sequence, ops.len() as u16, |out| {
        for (code, flags, body) in ops {
            wire::put_op(out, *code, *flags, body);
        }
    })
}

fn proof() -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u64(session().0);
    body.extend_from_slice(&SECRET);
    body
}

/// What the encoders write for every vector.
fn encoded(name: &str) -> Vec<u8> {
    let plain = |sequence| frame(KIND_REPLY, sequence, 1, |out| out.push(status::OK));
    let mut body = Vec::new();
    match name {
        "preface" | "preface of the server" => Preface::OURS.encode().to_vec(),
        "OPEN" => {
            body.put_u64(NODE);
            body.put_u32(LEASE_MS);
            body.extend_from_slice(&[0; 16]);
            body.put_u8(ADDRESS.len() as u8);
            body.extend_from_slice(ADDRESS);
            body.put_u16(0);
            request(1, &[(op::OPEN, 0, body)])
        }
        "OPEN, reply" => {
            body.extend_from_slice(&proof());
            body.put_u32(LEASE_MS);
            body.put_u32(1);
            body.put_u8(0);
            frame(KIND_REPLY, 1, 1, |out| wire::put_data(out, status::DATA, &body))
        }
        "REGISTER" => request(2, &[(op::REGISTER, 0, b"a/1".to_vec())]),
        "REGISTER, reply" => frame(KIND_REPLY, 2, 1, |out| {
            wire::put_owner(out, status::GRANTED_EPHEMERAL, session(), token());
        }),
        "QUERY" => request(3, &[(op::QUERY, 0, b"a/1".to_vec()), (op::QUERY, 0, b"b".to_vec())]),
        "QUERY, reply" => frame(KIND_REPLY, 3, 2, |out| {
            wire::put_owner(out, status::OWNED_EPHEMERAL, session(), token());
            out.push(status::FREE);
        }),
        "RENEW by secret" => request(4, &[(op::RENEW, 0, proof())]),
        "RENEW by secret, reply" => plain(4),
        "LIST" => {
            body.put_u16(0);
            body.put_u16(10);
            body.put_u8(0);
            body.put_u8(2);
            body.extend_from_slice(b"a/");
            request(5, &[(op::LIST, 0, body)])
        }
        "LIST, reply" => {
            body.put_u8(1);
            body.put_u16(SLOTS as u16);
            body.put_u8(0);
            body.put_u16(1);
            body.put_u8(3);
            body.extend_from_slice(b"a/1");
            body.put_u64(session().0);
            body.put_u64(token().0);
            frame(KIND_REPLY, 5, 1, |out| wire::put_data(out, status::DATA, &body))
        }
        "RELEASE under its token" => frame(KIND_REQUEST, 7, 1, |out| {
            wire::put_release_if(out, token(), b"a/1");
        }),
        "RELEASE under its token, reply" => plain(7),
        "SESSION_ENDED, push" => frame(KIND_PUSH, 0, 1, |out| {
            body.put_u64(session().0);
            body.put_u8(1);
            wire::put_op(out, push::SESSION_ENDED, 0, &body);
        }),
        _ => encoded_of_watch(name),
    }
}

/// Of those that are about a watch.
fn encoded_of_watch(name: &str) -> Vec<u8> {
    let mut body = Vec::new();
    match name {
        "WATCH" => {
            body.put_u32(1);
            body.put_u8(MASK_ALL);
            body.put_u32(0);
            body.extend_from_slice(b"a/");
            request(6, &[(op::WATCH, 0, body)])
        }
        "WATCH, reply" => {
            body.extend_from_slice(&[0, 1, 0]);
            body.put_u32(1);
            body.put_u64(1);
            frame(KIND_REPLY, 6, 1, |out| wire::put_data(out, status::DATA, &body))
        }
        "EVENT, push" => {
            let (session, token, name) = (session(), token(), &b"a/1"[..]);
            let kind = Kind::Released;
            let change = Change { kind, session, token, extra: 0, shared: false, name };
            let mut event = Vec::new();
            encode(&mut event, (ShardId(0), Epoch(1), 2), &change);
            let mut notices = Notices::new(&mut body, 1, FRAME_BYTES_FLOOR as usize);
            notices.event(Event(&event), false);
            notices.finish();
            body
        }
        _ => panic!("no encoding of {name:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

/// The document has each vector once, in order, and the encoders write the same bytes.
#[test]
fn the_document_prints_what_is_sent() {
    let vectors = vectors();
    let names: Vec<_> = vectors.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, NAMES);
    for (name, bytes) in &vectors {
        assert_eq!(hex(bytes), hex(&encoded(name)), "{name}");
    }
}

/// The parsers read every vector to its last byte, and find in it what the document says.
#[test]
fn the_parsers_read_what_is_printed() {
    for (name, bytes) in vectors() {
        if let Ok(preface) = <&[u8; PREFACE_BYTES]>::try_from(&bytes[..])
            && name.starts_with("preface")
        {
            assert_eq!(Preface::parse(preface), Some(Preface::OURS), "{name}");
            continue;
        }
        let header = FrameHeader::parse(&bytes).expect("valid").expect("whole");
        assert_eq!(header.len, bytes.len(), "{name}");
        let mut rest = &bytes[wire::FRAME_HEADER_BYTES..];
        for _ in 0..header.count {
            if header.kind == KIND_REPLY {
                wire::next_reply(&mut rest).expect("a reply");
            } else {
                wire::next_op(&mut rest).expect("an op");
            }
        }
        assert!(rest.is_empty(), "{name}: bytes behind the last op");
    }
    let release = vector("RELEASE under its token");
    let body = [&token().0.to_le_bytes()[..], b"a/1"].concat();
    let expected = RawOp { code: op::RELEASE, flags: op::RELEASE_TOKEN, body: &body };
    assert_eq!(wire::next_op(&mut &release[16..]), Some(expected));
    let (status, session, token) = (status::GRANTED_EPHEMERAL, session(), token());
    let granted = vector("REGISTER, reply");
    let expected = Reply::Owner { status, session, token };
    assert_eq!(wire::next_reply(&mut &granted[16..]), Some(expected));
}

/// Puts `to` wherever `from` stands: a shard draws its secrets, the document has one of its own.
fn replaced(bytes: &[u8], from: &[u8; 16], to: &[u8; 16]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len().saturating_sub(15) {
        if bytes[at..at + 16] == from[..] {
            bytes[at..at + 16].copy_from_slice(to);
        }
    }
    bytes
}

/// The conversation of the document, held with a shard: it answers what is printed.
#[test]
fn a_shard_says_what_is_printed() {
    let mut process = Process::start(&Settings { shards: 1, ..Settings::default() });
    let link = process.connect(0);
    let mut drawn = SECRET;
    // A question, its answer, and the notices that come with it.
    let (last, said) = NAMES.split_last().expect("there are some");
    for turn in said.chunk_by(|_, next| next.contains(", ") || next.ends_with("server")) {
        let (ask, answers) = turn.split_first().expect("a chunk is not empty");
        process.send(link, &replaced(&vector(ask), &SECRET, &drawn));
        process.settle();
        let said = process.take(link);
        if *ask == "OPEN" {
            // Behind the frame's header, the status, the length and the session.
            drawn = *said[29..].first_chunk().expect("a secret");
        }
        let expected: Vec<u8> = answers.iter().flat_map(|name| vector(name)).collect();
        assert_eq!(hex(&replaced(&said, &drawn, &SECRET)), hex(&expected), "{ask}");
    }
    assert_eq!(*last, "SESSION_ENDED, push");
    process.run_for(Span::from_ms(u64::from(LEASE_MS) + 1_000));
    assert_eq!(hex(&process.take(link)), hex(&vector("SESSION_ENDED, push")));
}
