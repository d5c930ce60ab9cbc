//! A native client in a few lines: builds frames, reads replies, checks the framing on the way.

use std::collections::VecDeque;

use ringway_coord_proto::access::Access;
use ringway_coord_proto::wire::{self, FrameWriter, KIND_REQUEST, Preface, op, put_op};
use ringway_core::wire::Put;
use ringway_core::{SessionId, Token};

use crate::process::{Link, Process};
pub use crate::stream::Got;
use crate::stream::{Heard, Stream};

/// A client on one connection.
pub struct Native {
    /// Its connection.
    pub link: Link,
    sequence: u64,
    answered: u64,
    /// Numbers that are not one more than the one before.
    skips: VecDeque<u64>,
    stream: Stream,
    /// Replies that have come, in order, a frame each.
    pub frames: Vec<Vec<Got>>,
    /// Notices that have come: code, session, reason.
    pub notices: Vec<(u8, SessionId, u8)>,
    /// Notices about names: code and body.
    pub told: Vec<(u8, Vec<u8>)>,
}

impl Native {
    /// Connects to a shard and sends the preface.
    pub fn connect<A: Access>(process: &mut Process<A>, shard: usize) -> Native {
        let link = process.connect(shard);
        process.send(link, &Preface::OURS.encode());
        Native {
            link,
            sequence: 0,
            answered: 0,
            skips: VecDeque::new(),
            stream: Stream::default(),
            frames: Vec::new(),
            notices: Vec::new(),
            told: Vec::new(),
        }
    }

    /// Sends a frame of ops: code, flags, body.
    pub fn send<A: Access>(&mut self, process: &mut Process<A>, ops: &[(u8, u8, Vec<u8>)]) {
        process.send(self.link, &self.frame(ops));
    }

    /// A frame of ops, as bytes.
    pub fn frame(&mut self, ops: &[(u8, u8, Vec<u8>)]) -> Vec<u8> {
        self.sequence += 1;
        frame(self.sequence, ops.iter().map(|(code, flags, body)| (*code, *flags, body)))
    }

    /// Takes what has arrived.
    pub fn receive<A: Access>(&mut self, process: &mut Process<A>) {
        let bytes = process.take(self.link);
        for heard in self.stream.take(&bytes).expect("a stream as documented") {
            match heard {
                Heard::Replies(sequence, got) => {
                    self.answered += 1;
                    if self.skips.front() == Some(&sequence) {
                        self.skips.pop_front();
                        self.answered = sequence;
                    }
                    assert_eq!(sequence, self.answered, "frames are answered in order");
                    self.frames.push(got);
                }
                Heard::Notice(code, session, reason) => self.notices.push((code, session, reason)),
                Heard::Told(code, body) => self.told.push((code, body)),
            }
        }
    }

    /// Sends a frame, lets the process come to rest, and gives back the replies.
    pub fn ask<A: Access>(
        &mut self,
        process: &mut Process<A>,
        ops: &[(u8, u8, Vec<u8>)],
    ) -> Vec<Got> {
        self.send(process, ops);
        process.settle();
        self.receive(process);
        assert_eq!(self.answered, self.sequence, "every frame is answered");
        self.frames.pop().expect("the last frame's replies")
    }

    /// The next frame has this number.
    pub fn skip_to(&mut self, sequence: u64) {
        self.sequence = sequence - 1;
        self.skips.push_back(sequence);
    }

    /// Whether all frames have been answered.
    pub fn is_answered(&self) -> bool {
        self.answered == self.sequence
    }
}

/// A frame of ops: code, flags, body.
pub fn frame<B: AsRef<[u8]>>(sequence: u64, ops: impl IntoIterator<Item = (u8, u8, B)>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut frame = FrameWriter::begin(&mut out, KIND_REQUEST, 0, sequence);
    for (code, flags, body) in ops {
        put_op(&mut out, code, flags, body.as_ref());
        frame.add(1);
    }
    frame.finish(&mut out);
    out
}

/// `QUERY name`.
pub fn query(name: &str) -> (u8, u8, Vec<u8>) {
    (op::QUERY, 0, name.into())
}

/// `REGISTER name`.
pub fn register(name: &str) -> (u8, u8, Vec<u8>) {
    (op::REGISTER, 0, name.into())
}

/// `RELEASE name`.
pub fn release(name: &str) -> (u8, u8, Vec<u8>) {
    (op::RELEASE, 0, name.into())
}

/// `RELEASE name` under a token.
pub fn release_if(name: &str, token: Token) -> (u8, u8, Vec<u8>) {
    let mut body = token.0.to_le_bytes().to_vec();
    body.extend_from_slice(name.as_bytes());
    (op::RELEASE, op::RELEASE_TOKEN, body)
}

/// `REGISTER name` in a mode; `permits` only if it is counting.
pub fn register_as(mode: u8, permits: u32, name: &str) -> (u8, u8, Vec<u8>) {
    let mut body = Vec::new();
    if mode == op::MODE_COUNTING {
        body.put_u32(permits);
    }
    body.extend_from_slice(name.as_bytes());
    (op::REGISTER, mode, body)
}

/// `WAIT name` for so many milliseconds, alone.
pub fn wait(ms: u32, name: &str) -> (u8, u8, Vec<u8>) {
    wait_as(op::MODE_EXCLUSIVE, 0, ms, name)
}

/// `WAIT name` in a mode.
pub fn wait_as(mode: u8, permits: u32, ms: u32, name: &str) -> (u8, u8, Vec<u8>) {
    let (_, _, claim) = register_as(mode, permits, name);
    (op::WAIT, mode, [&ms.to_le_bytes(), claim.as_slice()].concat())
}

/// `CANCEL` of the wait that a reply put into the queue.
pub fn cancel(queued: &Got, name: &str) -> (u8, u8, Vec<u8>) {
    let Got::Owner(_, _, ticket) = queued else { panic!("not a ticket: {queued:?}") };
    (op::CANCEL, 0, [&ticket.0.to_le_bytes(), name.as_bytes()].concat())
}

/// `TRANSFER name` to a session.
pub fn transfer(to: SessionId, name: &str) -> (u8, u8, Vec<u8>) {
    (op::TRANSFER, 0, [&to.0.to_le_bytes(), name.as_bytes()].concat())
}

/// `REVOKE name`, to be given to a session if there is one.
pub fn revoke(to: Option<SessionId>, name: &str) -> (u8, u8, Vec<u8>) {
    let flags = if to.is_some() { op::REVOKE_TO } else { 0 };
    let to = to.map_or(Vec::new(), |to| to.0.to_le_bytes().to_vec());
    (op::REVOKE, flags, [to.as_slice(), name.as_bytes()].concat())
}

/// `META name`.
pub fn meta(name: &str) -> (u8, u8, Vec<u8>) {
    (op::META, 0, name.into())
}

/// `SET_META name`, under a version if there is one.
pub fn set_meta(version: Option<u32>, metadata: &[u8], name: &str) -> (u8, u8, Vec<u8>) {
    let mut body = Vec::new();
    if let Some(version) = version {
        body.put_u32(version);
    }
    body.put_long_bytes(metadata);
    body.extend_from_slice(name.as_bytes());
    (op::SET_META, if version.is_some() { op::SET_META_VERSION } else { 0 }, body)
}

/// `SEND` of a payload to a name, with flags that add nothing to the body.
pub fn send(flags: u8, target: &str, payload: &[u8]) -> (u8, u8, Vec<u8>) {
    let mut body = Vec::new();
    body.put_short_bytes(target.as_bytes());
    body.extend_from_slice(payload);
    (op::SEND, flags, body)
}

/// `SEND` of a payload to a name, as the owner of another under a token.
pub fn send_fenced(
    flags: u8,
    (source, token): (&str, Token),
    target: &str,
    payload: &[u8],
) -> (u8, u8, Vec<u8>) {
    let mut body = Vec::new();
    body.put_short_bytes(target.as_bytes());
    body.put_short_bytes(source.as_bytes());
    body.put_u64(token.0);
    body.extend_from_slice(payload);
    (op::SEND, flags | op::SEND_FENCED, body)
}

/// `SEND` of a payload to a session.
pub fn send_to_session(flags: u8, to: SessionId, payload: &[u8]) -> (u8, u8, Vec<u8>) {
    let body = [&to.0.to_le_bytes(), payload].concat();
    (op::SEND, flags | op::SEND_SESSION, body)
}

/// `BROADCAST` of a payload.
pub fn broadcast(flags: u8, payload: &[u8]) -> (u8, u8, Vec<u8>) {
    (op::BROADCAST, flags, payload.to_vec())
}

/// A message as a client hears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Flags of the notice.
    pub flags: u8,
    /// The sender's session.
    pub from: SessionId,
    /// The name it was sent to; empty if to the session.
    pub target: String,
    /// The name it was sent as the owner of, and the token.
    pub source: Option<(String, Token)>,
    /// The payload.
    pub payload: Vec<u8>,
}

/// Reads the body of a message.
///
/// # Panics
/// If it is not that.
pub fn message(body: &[u8]) -> Message {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut reader = ringway_core::wire::Reader::new(body);
    let flags = reader.u8().expect("flags");
    let from = SessionId(reader.u64().expect("sender"));
    let target = text(reader.short_bytes().expect("target"));
    let source = (flags & wire::push::MESSAGE_FENCED != 0).then(|| {
        let name = text(reader.short_bytes().expect("source"));
        (name, Token(reader.u64().expect("token")))
    });
    Message { flags, from, target, source, payload: reader.rest().to_vec() }
}

/// `OPEN`, with a secret to resume.
pub fn open(flags: u8, node: u64, lease_ms: u32, secret: Option<[u8; 16]>) -> (u8, u8, Vec<u8>) {
    let mut body = Vec::new();
    body.put_u64(node);
    body.put_u32(lease_ms);
    body.extend_from_slice(&secret.unwrap_or_default());
    body.put_short_bytes(b"10.0.0.1:99");
    body.put_long_bytes(b"meta");
    let resume = if secret.is_some() { op::OPEN_RESUME } else { 0 };
    (op::OPEN, flags | resume, body)
}

/// An op whose body is a session and its secret.
pub fn with_secret(code: u8, session: SessionId, secret: [u8; 16]) -> (u8, u8, Vec<u8>) {
    let mut body = session.0.to_le_bytes().to_vec();
    body.extend_from_slice(&secret);
    (code, 0, body)
}

/// What OPEN answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The session.
    pub session: SessionId,
    /// Its secret.
    pub secret: [u8; 16],
    /// Its lease.
    pub lease_ms: u32,
    /// Whether it was resumed.
    pub resumed: bool,
}

/// Reads what OPEN answered.
///
/// # Panics
/// If it is not that.
pub fn opened(got: &Got) -> Opened {
    let Got::Data(wire::status::DATA, data) = got else { panic!("OPEN answered {got:?}") };
    let mut reader = ringway_core::wire::Reader::new(data);
    let session = SessionId(reader.u64().expect("session"));
    let secret = reader.array().expect("secret");
    let lease_ms = reader.u32().expect("lease");
    reader.u32().expect("epoch");
    let resumed = reader.u8().expect("resumed") != 0;
    Opened { session, secret, lease_ms, resumed }
}

/// `WATCH` of a name or a prefix, under a number: all changes, with the usual budget.
pub fn watch(number: u32, filter: &str) -> (u8, u8, Vec<u8>) {
    let mut body = Vec::new();
    body.put_u32(number);
    body.put_u8(0x0F);
    body.put_u32(0);
    body.extend_from_slice(filter.as_bytes());
    (op::WATCH, 0, body)
}

/// The same with flags.
pub fn watch_with(flags: u8, number: u32, filter: &str) -> (u8, u8, Vec<u8>) {
    let (code, _, body) = watch(number, filter);
    (code, flags, body)
}

/// `UNWATCH`.
pub fn unwatch(number: u32) -> (u8, u8, Vec<u8>) {
    (op::UNWATCH, 0, number.to_le_bytes().to_vec())
}
