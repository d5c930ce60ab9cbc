//! The native protocol's parsers: prefaces, request and push frames, replies.
//!
//! The oracle is the encoder: what a parser accepts, the encoder writes again byte for byte, so a
//! parser that reads a field at the wrong place or skips too far cannot agree with it.

use ringway_coord_proto::wire::{
    FLAG_BARRIER, FRAME_BYTES_FLOOR, FRAME_HEADER_BYTES, FrameHeader, FrameWriter, KIND_PUSH,
    KIND_REPLY, KIND_REQUEST, MAGIC, OP_HEADER_BYTES, PREFACE_BYTES, Preface, Reply, next_op,
    next_reply, op, push, put_data, put_op, put_owner, put_release_if, status,
};
use ringway_core::limits::{FRAME_BYTES_MAX, FRAME_OPS_MAX};
use ringway_core::{SessionId, Token};

use crate::Target;

/// A stream of frames of any kind, as it stands in a receive buffer.
pub const FRAME: Target =
    Target { name: "frame", run: frame, seeds: frame_seeds, words: &[], bytes_max: 4096 };

/// The first bytes of a connection.
pub const PREFACE: Target =
    Target { name: "preface", run: preface, seeds: preface_seeds, words: &[], bytes_max: 32 };

/// The body of a reply frame, as a client reads it.
pub const REPLIES: Target =
    Target { name: "replies", run: replies, seeds: replies_seeds, words: &[], bytes_max: 4096 };

/// Walks `data` frame by frame, as both ends of a connection do.
pub fn frame(data: &[u8]) {
    let mut rest = data;
    loop {
        let header = match FrameHeader::parse(rest) {
            Ok(Some(header)) => header,
            Ok(None) => {
                assert!(rest.len() < FRAME_HEADER_BYTES, "a whole header was not seen");
                return;
            }
            Err(error) => {
                // More bytes never repair a header.
                assert_eq!(FrameHeader::parse(&rest[..FRAME_HEADER_BYTES]), Err(error));
                return;
            }
        };
        assert!((FRAME_HEADER_BYTES..=FRAME_BYTES_MAX).contains(&header.len));
        assert!(usize::from(header.count) <= FRAME_OPS_MAX);
        assert!(header.kind <= KIND_PUSH && header.flags & !FLAG_BARRIER == 0);
        let Some((this, next)) = rest.split_at_checked(header.len) else { return };
        body(&header, this);
        rest = next;
    }
}

/// One whole frame. If it holds exactly the ops it announces, writing them gives the same bytes.
fn body(header: &FrameHeader, this: &[u8]) {
    if header.kind == KIND_REPLY {
        replies(&this[FRAME_HEADER_BYTES..]);
        return;
    }
    let mut again = Vec::with_capacity(this.len());
    let mut writer = FrameWriter::begin(&mut again, header.kind, header.flags, header.sequence);
    let mut ops = &this[FRAME_HEADER_BYTES..];
    while writer.count() < header.count {
        let before = ops.len();
        let Some(op) = next_op(&mut ops) else {
            assert_eq!(ops.len(), before, "an op that is not whole was taken");
            return;
        };
        assert_eq!(before - ops.len(), OP_HEADER_BYTES + op.body.len());
        put_op(&mut again, op.code, op.flags, op.body);
        writer.add(1);
    }
    assert_eq!(writer.len(&again) + ops.len(), this.len());
    if ops.is_empty() {
        writer.finish(&mut again);
        assert_eq!(again, this, "what was read is not what is written");
    }
}

/// Accepts a preface exactly if it is one, and writes it back unchanged.
pub fn preface(data: &[u8]) {
    let Some((bytes, _)) = data.split_first_chunk::<PREFACE_BYTES>() else { return };
    let frame_bytes_max = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    let is_one = bytes[0] == MAGIC
        && bytes[3] == 0
        && frame_bytes_max >= FRAME_BYTES_FLOOR
        && bytes[12..] == [0; 4];
    match Preface::parse(bytes) {
        Some(preface) => {
            assert!(is_one, "accepted: {preface:?}");
            assert_eq!(preface.frame_bytes_max, frame_bytes_max);
            assert_eq!(preface.encode(), *bytes);
        }
        None => assert!(!is_one, "refused a good preface"),
    }
}

/// Reads replies to the end or to the first that is not whole; each is written back unchanged.
pub fn replies(data: &[u8]) {
    let mut rest = data;
    while !rest.is_empty() {
        let before = rest;
        let Some(reply) = next_reply(&mut rest) else {
            assert_eq!(rest.len(), before.len(), "a reply that is not whole was taken");
            return;
        };
        let taken = &before[..before.len() - rest.len()];
        assert_eq!(reply.status(), taken[0]);
        let _ = status::name(reply.status());
        let mut again = Vec::with_capacity(taken.len());
        match reply {
            Reply::Plain(status) => again.push(status),
            Reply::Owner { status, session, token } => {
                put_owner(&mut again, status, session, token);
            }
            Reply::Data(status, bytes) => put_data(&mut again, status, bytes),
        }
        assert_eq!(again, taken, "what was read is not what is written");
    }
}

fn request(flags: u8, count: u16, ops: &[u8]) -> Vec<u8> {
    frame_of(KIND_REQUEST, flags, count, ops)
}

fn frame_of(kind: u8, flags: u8, count: u16, ops: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let sequence = if kind == KIND_PUSH { 0 } else { 7 };
    let mut writer = FrameWriter::begin(&mut out, kind, flags, sequence);
    out.extend_from_slice(ops);
    writer.add(count);
    writer.finish(&mut out);
    out
}

fn one_op(code: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_op(&mut out, code, flags, body);
    out
}

fn frame_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut names = one_op(op::QUERY, 0, b"a/1");
    put_op(&mut names, op::REGISTER, 0, b"{tag}b");
    put_release_if(&mut names, Token(2), b"b");
    put_op(&mut names, op::RELEASE, 0, b"b");

    // node, lease, secret, address, metadata
    let open = [&[1, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x27, 0, 0][..], &[0; 16], b"\x03a:1\x02\x00md"];
    let mut sessions = one_op(op::OPEN, 0, &open.concat());
    put_op(&mut sessions, op::OPEN, op::OPEN_RESUME | op::OPEN_GATEWAY, &open.concat());
    put_op(&mut sessions, op::RENEW, 0, &[]);
    put_op(&mut sessions, op::RENEW, 0, &[9; 24]);
    put_op(&mut sessions, op::ATTACH, 0, &[9; 24]);
    put_op(&mut sessions, op::SESSION, 0, &[9; 8]);
    put_op(&mut sessions, op::SESSIONS, 0, &[0; 10]);
    put_op(&mut sessions, op::CLOSE, 0, &[]);

    let mut others = one_op(op::PING, 0, b"hello");
    put_op(&mut others, op::LIST, 0, b"\x00\x00\x10\x00\x00\x02a/");
    put_op(&mut others, op::SHARD_MAP, 0, &[]);
    put_op(&mut others, op::SHARD_STATS, 0, &[0]);
    put_op(&mut others, op::AUTH, 0, b"\x04user\x04word");
    put_op(&mut others, 0xEE, 0xFF, b"of a later version");

    let mut messages = one_op(op::SEND, op::SEND_RECEIPT, b"\x03a/1hello");
    put_op(&mut messages, op::SEND, op::SEND_SAME, b"\x01b");
    put_op(&mut messages, op::SEND, op::SEND_FENCED, b"\x01b\x03a/1\0\0\0\0\0\0\0\x09hello");
    put_op(&mut messages, op::SEND, op::SEND_SESSION, b"\x09\0\0\0\0\0\0\0hello");
    put_op(&mut messages, op::BROADCAST, op::SEND_RECEIPT, b"hello");
    let message = one_op(push::MESSAGE, 0, b"\0\x09\0\0\0\0\0\0\0\x03a/1hello");

    let ended = one_op(push::SESSION_ENDED, 0, &[9, 0, 0, 0, 0, 0, 0, 0, 1]);
    let (_, mut answers) = replies_seeds().swap_remove(0);
    let answer = frame_of(KIND_REPLY, 0, 4, &std::mem::take(&mut answers));
    let pipelined = [request(0, 4, &names), request(FLAG_BARRIER, 8, &sessions), answer.clone()];
    vec![
        ("empty-frame", request(0, 0, &[])),
        ("names", request(0, 4, &names)),
        ("sessions", request(0, 8, &sessions)),
        ("others", request(FLAG_BARRIER, 6, &others)),
        ("messages", request(0, 5, &messages)),
        ("push", frame_of(KIND_PUSH, 0, 1, &ended)),
        ("push-message", frame_of(KIND_PUSH, 0, 1, &message)),
        ("answer", answer),
        ("pipelined", pipelined.concat()),
        ("count-too-large-for-bytes", request(0, 5, &names)),
        ("bytes-behind-the-last-op", request(0, 3, &names)),
        ("op-longer-than-frame", request(0, 1, &[op::QUERY, 0, 0xFF, 0xFF, b'a'])),
        ("half-a-frame", request(0, 4, &names)[..20].to_vec()),
        ("length-below-header", [&[15, 0, 0, 0][..], &[0; 12]].concat()),
        ("length-above-limit", [&[1, 0, 4, 0][..], &[0; 12]].concat()),
        ("unknown-kind", [&[16, 0, 0, 0, 0, 0, 3, 0][..], &[0; 8]].concat()),
    ]
}

fn preface_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let ours = Preface::OURS.encode().to_vec();
    let later = Preface { major: 2, minor: 9, features: u32::MAX, ..Preface::OURS };
    let floor = Preface { frame_bytes_max: FRAME_BYTES_FLOOR, ..Preface::OURS };
    let below = Preface { frame_bytes_max: FRAME_BYTES_FLOOR - 1, ..Preface::OURS };
    vec![
        ("ours", ours.clone()),
        ("later-major", later.encode().to_vec()),
        ("smallest-frame", floor.encode().to_vec()),
        ("frame-too-small", below.encode().to_vec()),
        ("cut-short", ours[..15].to_vec()),
        ("resp-instead", b"PING\r\nPING\r\nPING\r\n".to_vec()),
    ]
}

fn replies_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let (session, token) = (SessionId(0x1234_5678_9ABC_DEF0), Token(2));
    let mut mixed = vec![status::FREE];
    put_owner(&mut mixed, status::HELD, session, token);
    put_data(&mut mixed, status::DATA, b"{\"shard\":0}");
    mixed.push(status::NOTOWNER);
    let mut owners = Vec::new();
    for status in [status::OWNED_EPHEMERAL, status::OWNED_REPLICATED, status::GRANTED_EPHEMERAL] {
        put_owner(&mut owners, status, session, token);
    }
    let mut starting = Vec::new();
    put_data(&mut starting, status::STARTING, &[0x10, 0x27, 0, 0]);
    let cut = owners[..20].to_vec();
    vec![
        ("mixed", mixed),
        ("owners", owners),
        ("starting", starting),
        ("cut-short", cut),
        ("data-longer-than-frame", vec![status::DATA, 0xFF, 0xFF, 0xFF, 0xFF, 1]),
        ("unknown-of-every-kind", vec![0x3F, 0xBF, 0, 0, 0, 0, 0xFF]),
        ("errors", (status::UNKNOWN_OP..=status::UNSUPPORTED).collect()),
    ]
}
