//! The native protocol to the byte: `docs/protocol.md` in constants, encoders and parsers.
//!
//! Invariants:
//! - No parser here panics or allocates, whatever the bytes.
//! - What an encoder here writes, the matching parser accepts, and gives back unchanged.
//!
//! Not here: what the ops mean (`engine`), which connection sent them (`conn`).

use alloc::vec::Vec;

use ringway_core::limits::{FRAME_BYTES_MAX, FRAME_OPS_MAX};
use ringway_core::wire::{Put, Reader};
use ringway_core::{SessionId, Token};

/// The first byte of a native connection.
pub const MAGIC: u8 = 0xB1;
/// The first byte of a TLS handshake. Reserved: such a connection is closed until we speak it.
pub const TLS_HANDSHAKE: u8 = 0x16;
/// The major version that we speak.
pub const MAJOR: u8 = 1;
/// The minor version that we speak.
pub const MINOR: u8 = 0;
/// Bytes of the preface.
pub const PREFACE_BYTES: usize = 16;
/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 16;
/// Bytes of an op header.
pub const OP_HEADER_BYTES: usize = 4;
/// The smallest largest-frame a peer may state.
pub const FRAME_BYTES_FLOOR: u32 = 4096;

/// Frame kind: ops for the server.
pub const KIND_REQUEST: u8 = 0;
/// Frame kind: the replies to one request frame.
pub const KIND_REPLY: u8 = 1;
/// Frame kind: notices that nobody asked for.
pub const KIND_PUSH: u8 = 2;
/// Frame flag: execute after all earlier frames of the connection were answered.
pub const FLAG_BARRIER: u8 = 1;

/// Op codes, see `docs/protocol.md` section 3.
pub mod op {
    /// Who owns a name.
    pub const QUERY: u8 = 0x01;
    /// Claim a name.
    pub const REGISTER: u8 = 0x02;
    /// Give a name back.
    pub const RELEASE: u8 = 0x03;
    /// Who owns a name, and its metadata.
    pub const META: u8 = 0x04;
    /// Set a name's metadata.
    pub const SET_META: u8 = 0x05;
    /// Claim a name, or wait until it is free.
    pub const WAIT: u8 = 0x06;
    /// Wait no longer.
    pub const CANCEL: u8 = 0x07;
    /// Who holds a name and who waits for it.
    pub const WAITERS: u8 = 0x08;
    /// Give a name to another session.
    pub const TRANSFER: u8 = 0x09;
    /// Take a name from whoever holds it, on an operator's behalf.
    pub const REVOKE: u8 = 0x0A;
    /// Open or resume a session.
    pub const OPEN: u8 = 0x10;
    /// Renew a lease.
    pub const RENEW: u8 = 0x11;
    /// End a session.
    pub const CLOSE: u8 = 0x12;
    /// Add a sending connection to a session.
    pub const ATTACH: u8 = 0x13;
    /// One session by id.
    pub const SESSION: u8 = 0x14;
    /// One session by node.
    pub const NODE: u8 = 0x15;
    /// A page of sessions.
    pub const SESSIONS: u8 = 0x16;
    /// End a session on an operator's behalf.
    pub const KILL: u8 = 0x17;
    /// Send by a lane, whose replies are remembered.
    pub const LANE: u8 = 0x18;
    /// A page of names.
    pub const LIST: u8 = 0x20;
    /// A page of who waits for whom.
    pub const WAITS: u8 = 0x21;
    /// Echo.
    pub const PING: u8 = 0x30;
    /// Which shard has which slots.
    pub const SHARD_MAP: u8 = 0x31;
    /// The counters of one shard.
    pub const SHARD_STATS: u8 = 0x32;
    /// Version, epoch, state.
    pub const SERVER: u8 = 0x33;
    /// User and password.
    pub const AUTH: u8 = 0x34;
    /// Hear of what becomes of names.
    pub const WATCH: u8 = 0x40;
    /// Hear no more of it.
    pub const UNWATCH: u8 = 0x41;
    /// A message to the owner of a name, or to a session.
    pub const SEND: u8 = 0x48;
    /// A message to every session.
    pub const BROADCAST: u8 = 0x49;

    /// Whether this version knows the code.
    pub const fn is_known(code: u8) -> bool {
        matches!(
            code,
            QUERY..=REVOKE
                | OPEN..=LANE
                | LIST
                | WAITS
                | PING..=AUTH
                | WATCH..=UNWATCH
                | SEND..=BROADCAST
        )
    }

    /// REGISTER, WAIT: the mode, in the low bits.
    pub const REGISTER_MODE_MASK: u8 = 0x0F;
    /// One session holds the name alone.
    pub const MODE_EXCLUSIVE: u8 = 0;
    /// Any number of sessions hold it together.
    pub const MODE_SHARED: u8 = 1;
    /// So many sessions hold it as there are permits.
    pub const MODE_COUNTING: u8 = 2;
    /// REGISTER: one quorum round per batch.
    pub const REGISTER_REPLICATED: u8 = 0x10;
    /// RELEASE: only under this token.
    pub const RELEASE_TOKEN: u8 = 0x01;
    /// SET_META: only if the metadata has this version.
    pub const SET_META_VERSION: u8 = 0x01;
    /// TRANSFER: only if it is held under this token.
    pub const TRANSFER_TOKEN: u8 = 0x01;
    /// REVOKE: give it to another session.
    pub const REVOKE_TO: u8 = 0x01;
    /// WATCH: begin with what is owned at the moment.
    pub const WATCH_SNAPSHOT: u8 = 0x01;
    /// WATCH: go on behind a cursor.
    pub const WATCH_RESUME: u8 = 0x02;
    /// SEND, BROADCAST: answer when it has been handed over.
    pub const SEND_RECEIPT: u8 = 0x01;
    /// SEND: only while the sender owns the source name under the token.
    pub const SEND_FENCED: u8 = 0x02;
    /// SEND: the payload of the SEND before it in the frame.
    pub const SEND_SAME: u8 = 0x04;
    /// SEND: the target is a session.
    pub const SEND_SESSION: u8 = 0x08;
    /// OPEN: take over an existing session with its secret.
    pub const OPEN_RESUME: u8 = 0x01;
    /// OPEN: the session ends with the connection.
    pub const OPEN_BARE: u8 = 0x02;
    /// OPEN: do not bind the connection.
    pub const OPEN_GATEWAY: u8 = 0x04;
}

/// Reply statuses, see `docs/protocol.md` section 4.
pub mod status {
    /// Done.
    pub const OK: u8 = 0x00;
    /// Nobody owns the name.
    pub const FREE: u8 = 0x01;
    /// The owner of the name, whose class is ephemeral.
    pub const OWNED_EPHEMERAL: u8 = 0x40;
    /// The owner of the name, whose class is replicated.
    pub const OWNED_REPLICATED: u8 = 0x41;
    /// Yours, ephemeral.
    pub const GRANTED_EPHEMERAL: u8 = 0x48;
    /// Yours, replicated.
    pub const GRANTED_REPLICATED: u8 = 0x49;
    /// Another's.
    pub const HELD: u8 = 0x50;
    /// The session waits: who holds the name, and the ticket in the token's place.
    pub const QUEUED: u8 = 0x51;
    /// Bytes as the op says.
    pub const DATA: u8 = 0x80;
    /// Milliseconds until grants resume.
    pub const STARTING: u8 = 0x81;
    /// The metadata has another version: that, and the metadata.
    pub const CONFLICT: u8 = 0x82;
    /// The op is not known.
    pub const UNKNOWN_OP: u8 = 0xC1;
    /// The body is not what the op takes.
    pub const MALFORMED: u8 = 0xC2;
    /// A name is 1 to 255 bytes.
    pub const BADNAME: u8 = 0xC3;
    /// No such session, or it has ended.
    pub const NOSESSION: u8 = 0xC4;
    /// The session does not hold the name.
    pub const NOTOWNER: u8 = 0xC5;
    /// The mode does not fit.
    pub const MODE: u8 = 0xC6;
    /// A limit of the server is reached.
    pub const FULL: u8 = 0xC7;
    /// Too much is queued for the shard.
    pub const BUSY: u8 = 0xC8;
    /// No cluster to replicate to.
    pub const NOREPLICA: u8 = 0xC9;
    /// Authenticate first.
    pub const NOAUTH: u8 = 0xCA;
    /// The credentials do not cover it.
    pub const DENIED: u8 = 0xCB;
    /// The lease is outside the server's bounds.
    pub const LEASE: u8 = 0xCC;
    /// The names are not in one slot.
    pub const CROSSSLOT: u8 = 0xCD;
    /// Another principal's, or a wrong secret.
    pub const REFUSED: u8 = 0xCE;
    /// A reserved bit is set.
    pub const UNSUPPORTED: u8 = 0xCF;
    /// The receiver has no connection at the moment.
    pub const AWAY: u8 = 0xD0;
    /// The receiver's connection has too much unread.
    pub const RECEIVER_FULL: u8 = 0xD1;
    /// The sender does not own the source name under the token.
    pub const FENCED: u8 = 0xD2;
    /// The namespace has as many names as it may.
    pub const QUOTA: u8 = 0xD3;
    /// The connection has a watch of this id.
    pub const EXISTS: u8 = 0xD4;
    /// It was executed when it was sent first, and nobody remembers the answer.
    pub const FORGOTTEN: u8 = 0xD6;

    /// The word for a status, as the CLI and RESP errors print it.
    pub const fn name(status: u8) -> &'static str {
        match status {
            OK => "OK",
            FREE => "FREE",
            OWNED_EPHEMERAL | OWNED_REPLICATED => "OWNED",
            GRANTED_EPHEMERAL | GRANTED_REPLICATED => "GRANTED",
            HELD => "HELD",
            DATA => "DATA",
            STARTING => "STARTING",
            QUEUED => "QUEUED",
            CONFLICT => "CONFLICT",
            UNKNOWN_OP => "UNKNOWN_OP",
            MALFORMED => "MALFORMED",
            BADNAME => "BADNAME",
            NOSESSION => "NOSESSION",
            NOTOWNER => "NOTOWNER",
            MODE => "MODE",
            FULL => "FULL",
            BUSY => "BUSY",
            NOREPLICA => "NOREPLICA",
            NOAUTH => "NOAUTH",
            DENIED => "DENIED",
            LEASE => "LEASE",
            CROSSSLOT => "CROSSSLOT",
            REFUSED => "REFUSED",
            UNSUPPORTED => "UNSUPPORTED",
            AWAY => "AWAY",
            RECEIVER_FULL => "RECEIVER_FULL",
            FENCED => "FENCED",
            QUOTA => "QUOTA",
            EXISTS => "EXISTS",
            FORGOTTEN => "FORGOTTEN",
            _ => "UNKNOWN_STATUS",
        }
    }
}

/// Push codes, see `docs/protocol.md` section 5.
pub mod push {
    /// A session ended: session, reason.
    pub const SESSION_ENDED: u8 = 0x01;
    /// Another connection resumed the session.
    pub const SESSION_MOVED: u8 = 0x02;
    /// The frame stream is broken; the connection is closed.
    pub const PROTOCOL_ERROR: u8 = 0x03;
    /// A wait has ended well: ticket, token, mode, name.
    pub const GRANTED: u8 = 0x10;
    /// A wait has ended otherwise: ticket, reason, name.
    pub const WAIT_ENDED: u8 = 0x11;
    /// A name came from another session: token, session, name.
    pub const RECEIVED: u8 = 0x12;
    /// A name was taken away: token, session that has it now, reason, name.
    pub const LOST: u8 = 0x13;
    /// The connection's lane is another's now: number. The connection is closed next.
    pub const LANE_MOVED: u8 = 0x14;

    /// A message.
    pub const MESSAGE: u8 = 0x20;
    /// A watched name has changed.
    pub const EVENT: u8 = 0x30;
    /// A watched name that is owned.
    pub const STATE: u8 = 0x31;
    /// What was told so far is the state at one moment.
    pub const SNAPSHOT_END: u8 = 0x32;
    /// What was told so far may be incomplete.
    pub const GAP: u8 = 0x33;

    /// MESSAGE: it was fenced; source name and token follow.
    pub const MESSAGE_FENCED: u8 = 0x01;
    /// MESSAGE: it was sent to the session, not to a name.
    pub const MESSAGE_TO_SESSION: u8 = 0x02;
    /// MESSAGE: it was sent to every session.
    pub const MESSAGE_BROADCAST: u8 = 0x04;
    /// EVENT: an earlier change of the name was coalesced away.
    pub const EVENT_SKIPPED: u8 = 0x01;
    /// EVENT: of a release, others hold the name still.
    pub const EVENT_SHARED: u8 = 0x02;
    /// EVENT: the name has an owner.
    pub const KIND_ACQUIRED: u8 = 1;
    /// EVENT: an owner has it no longer.
    pub const KIND_RELEASED: u8 = 2;
    /// EVENT: its metadata has changed.
    pub const KIND_CHANGED: u8 = 3;
    /// EVENT: the number of those who wait for it has changed.
    pub const KIND_WAITING: u8 = 4;
    /// WAIT_ENDED: the time to wait is over.
    pub const WAIT_TIMED_OUT: u8 = 1;
    /// LOST: an operator gave the name to another session.
    pub const LOST_TRANSFERRED: u8 = 1;
    /// LOST: an operator freed the name.
    pub const LOST_REVOKED: u8 = 2;
}

/// What each side sends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preface {
    /// Major version.
    pub major: u8,
    /// Minor version.
    pub minor: u8,
    /// Feature bits asked for, or granted.
    pub features: u32,
    /// The largest frame that the sender accepts, in bytes.
    pub frame_bytes_max: u32,
}

impl Preface {
    /// The preface of this implementation.
    pub const OURS: Preface = Preface {
        major: MAJOR,
        minor: MINOR,
        features: 0,
        frame_bytes_max: FRAME_BYTES_MAX as u32,
    };

    /// The 16 bytes on the wire.
    pub fn encode(&self) -> [u8; PREFACE_BYTES] {
        let mut bytes = [0; PREFACE_BYTES];
        bytes[0] = MAGIC;
        bytes[1] = self.major;
        bytes[2] = self.minor;
        bytes[4..8].copy_from_slice(&self.features.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.frame_bytes_max.to_le_bytes());
        bytes
    }

    /// Reads a preface; `None` if the magic, the reserved bytes or the frame size are wrong.
    pub fn parse(bytes: &[u8; PREFACE_BYTES]) -> Option<Preface> {
        let mut reader = Reader::new(bytes);
        let magic = reader.u8().ok()?;
        let (major, minor) = (reader.u8().ok()?, reader.u8().ok()?);
        let zero = reader.u8().ok()?;
        let (features, frame_bytes_max) = (reader.u32().ok()?, reader.u32().ok()?);
        let reserved = reader.u32().ok()?;
        let good = magic == MAGIC && zero == 0 && reserved == 0;
        (good && frame_bytes_max >= FRAME_BYTES_FLOOR).then_some(Preface {
            major,
            minor,
            features,
            frame_bytes_max,
        })
    }
}

/// A frame header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the whole frame, the header included.
    pub len: usize,
    /// Ops, replies or notices in it.
    pub count: u16,
    /// [`KIND_REQUEST`], [`KIND_REPLY`] or [`KIND_PUSH`].
    pub kind: u8,
    /// [`FLAG_BARRIER`] or nothing.
    pub flags: u8,
    /// The client's number of the frame.
    pub sequence: u64,
}

/// The frame stream cannot be followed any more; the connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The length is below the header's or above the largest frame.
    Length(u32),
    /// More than [`FRAME_OPS_MAX`] ops.
    Count(u16),
    /// An unknown kind, or unknown flags.
    Kind(u8, u8),
}

impl FrameHeader {
    /// Reads a header if `bytes` holds one: `Ok(None)` asks for more bytes.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Option<FrameHeader>, FrameError> {
        let Some((header, _)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(None);
        };
        let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let count = u16::from_le_bytes([header[4], header[5]]);
        let (kind, flags) = (header[6], header[7]);
        if (len as usize) < FRAME_HEADER_BYTES || len as usize > FRAME_BYTES_MAX {
            return Err(FrameError::Length(len));
        }
        if usize::from(count) > FRAME_OPS_MAX {
            return Err(FrameError::Count(count));
        }
        if kind > KIND_PUSH || flags & !FLAG_BARRIER != 0 {
            return Err(FrameError::Kind(kind, flags));
        }
        let sequence = u64::from_le_bytes([
            header[8], header[9], header[10], header[11], header[12], header[13], header[14],
            header[15],
        ]);
        Ok(Some(FrameHeader { len: len as usize, count, kind, flags, sequence }))
    }
}

/// Appends the push that says that the client's frames could not be followed.
pub fn put_protocol_error(out: &mut Vec<u8>) {
    let mut frame = FrameWriter::begin(out, KIND_PUSH, 0, 0);
    put_op(out, push::PROTOCOL_ERROR, 0, &[]);
    frame.add(1);
    frame.finish(out);
}

/// Writes one frame into a byte vector: header first, patched when the frame is finished.
#[derive(Debug)]
#[must_use = "a frame that is not finished has no length"]
pub struct FrameWriter {
    start: usize,
    count: u16,
}

impl FrameWriter {
    /// Starts a frame at the end of `out`.
    #[inline]
    pub fn begin(out: &mut Vec<u8>, kind: u8, flags: u8, sequence: u64) -> FrameWriter {
        let start = out.len();
        out.put_u32(0);
        out.put_u16(0);
        out.put_u8(kind);
        out.put_u8(flags);
        out.put_u64(sequence);
        FrameWriter { start, count: 0 }
    }

    /// Goes on with a frame of `count` ops that stands at `start` and ends where `out` does.
    pub const fn resume(start: usize, count: u16) -> FrameWriter {
        FrameWriter { start, count }
    }

    /// Counts `count` more ops or replies, which the caller appends to the same vector.
    #[inline]
    pub fn add(&mut self, count: u16) {
        self.count += count;
    }

    /// Bytes of the frame so far.
    pub fn len(&self, out: &[u8]) -> usize {
        out.len() - self.start
    }

    /// Ops or replies so far.
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// Writes length and count into the header.
    ///
    /// # Panics
    /// If the frame is larger than the protocol allows: the caller splits before that.
    #[inline]
    pub fn finish(self, out: &mut [u8]) {
        let len = out.len() - self.start;
        assert!(len <= FRAME_BYTES_MAX && usize::from(self.count) <= FRAME_OPS_MAX);
        out[self.start..self.start + 4].copy_from_slice(&(len as u32).to_le_bytes());
        out[self.start + 4..self.start + 6].copy_from_slice(&self.count.to_le_bytes());
    }
}

/// Appends one op: header and body.
///
/// # Panics
/// If the body is longer than 65535 bytes.
#[inline]
pub fn put_op(out: &mut Vec<u8>, code: u8, flags: u8, body: &[u8]) {
    assert!(body.len() <= 0xFFFF, "an op body holds 65535 bytes");
    let len = (body.len() as u16).to_le_bytes();
    out.extend_from_slice(&[code, flags, len[0], len[1]]);
    out.extend_from_slice(body);
}

/// Appends an op whose body is a token and a name.
pub fn put_release_if(out: &mut Vec<u8>, token: Token, name: &[u8]) {
    let len = ((name.len() + 8) as u16).to_le_bytes();
    out.extend_from_slice(&[op::RELEASE, op::RELEASE_TOKEN, len[0], len[1]]);
    out.put_u64(token.0);
    out.extend_from_slice(name);
}

/// One op of a request frame, or one notice of a push frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawOp<'a> {
    /// The op code.
    pub code: u8,
    /// The op's flags.
    pub flags: u8,
    /// The op's body.
    pub body: &'a [u8],
}

/// Takes the next op off `ops`; `None` when the bytes end before the op does.
#[inline]
pub fn next_op<'a>(ops: &mut &'a [u8]) -> Option<RawOp<'a>> {
    let (header, rest) = ops.split_first_chunk::<OP_HEADER_BYTES>()?;
    let len = usize::from(u16::from_le_bytes([header[2], header[3]]));
    let (body, rest) = rest.split_at_checked(len)?;
    *ops = rest;
    Some(RawOp { code: header[0], flags: header[1], body })
}

/// One reply, as the client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// A status and nothing else: `OK`, `FREE` or an error.
    Plain(u8),
    /// A status with an owner.
    Owner {
        /// `OWNED_*`, `GRANTED_*` or `HELD`.
        status: u8,
        /// The owner's session.
        session: SessionId,
        /// The token of its grant.
        token: Token,
    },
    /// A status with bytes.
    Data(u8, &'a [u8]),
}

impl Reply<'_> {
    /// The status byte.
    pub const fn status(&self) -> u8 {
        match self {
            Reply::Plain(status) | Reply::Owner { status, .. } | Reply::Data(status, _) => *status,
        }
    }
}

/// Takes the next reply off `replies`; `None` when the bytes end before the reply does.
#[inline]
pub fn next_reply<'a>(replies: &mut &'a [u8]) -> Option<Reply<'a>> {
    let mut reader = Reader::new(replies);
    let status = reader.u8().ok()?;
    let reply = match status >> 6 {
        0b01 => {
            let (session, token) = (reader.u64().ok()?, reader.u64().ok()?);
            Reply::Owner { status, session: SessionId(session), token: Token(token) }
        }
        0b10 => {
            let len = reader.u32().ok()? as usize;
            Reply::Data(status, reader.bytes(len).ok()?)
        }
        _ => Reply::Plain(status),
    };
    *replies = reader.rest();
    Some(reply)
}

/// Appends a reply with an owner: 17 bytes.
#[inline]
pub fn put_owner(out: &mut Vec<u8>, status: u8, session: SessionId, token: Token) {
    let mut bytes = [0u8; 17];
    bytes[0] = status;
    bytes[1..9].copy_from_slice(&session.0.to_le_bytes());
    bytes[9..17].copy_from_slice(&token.0.to_le_bytes());
    out.extend_from_slice(&bytes);
}

/// Appends a reply with bytes.
pub fn put_data(out: &mut Vec<u8>, status: u8, data: &[u8]) {
    out.put_u8(status);
    out.put_u32(data.len() as u32);
    out.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// What stands in the documentation as a test vector: a query frame of two names.
    #[test]
    fn query_frame_is_as_documented() {
        let mut out = vec![];
        let mut frame = FrameWriter::begin(&mut out, KIND_REQUEST, 0, 7);
        put_op(&mut out, op::QUERY, 0, b"a/1");
        put_op(&mut out, op::QUERY, 0, b"b");
        frame.add(2);
        frame.finish(&mut out);
        let expected: &[u8] = &[
            28, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0,
            0, // length, count, kind, flags, sequence
            1, 0, 3, 0, b'a', b'/', b'1', // QUERY a/1
            1, 0, 1, 0, b'b', // QUERY b
        ];
        assert_eq!(out, expected);
        let header = FrameHeader::parse(&out).expect("valid").expect("whole");
        assert_eq!((header.len, header.count, header.sequence), (28, 2, 7));
    }

    /// A reply is skipped by its top bits alone, even one that this version does not know.
    #[test]
    fn replies_parse_one_by_one() {
        let mut out = vec![];
        out.push(status::FREE);
        put_owner(&mut out, status::HELD, SessionId(1), Token(2));
        put_data(&mut out, 0xBF, b"later");
        out.push(status::NOTOWNER);
        let mut rest = out.as_slice();
        assert_eq!(next_reply(&mut rest), Some(Reply::Plain(status::FREE)));
        let held = Reply::Owner { status: status::HELD, session: SessionId(1), token: Token(2) };
        assert_eq!(next_reply(&mut rest), Some(held));
        assert_eq!(next_reply(&mut rest), Some(Reply::Data(0xBF, b"later")));
        assert_eq!(next_reply(&mut rest), Some(Reply::Plain(status::NOTOWNER)));
        assert_eq!(next_reply(&mut rest), None);
    }

    /// Every way in which a header can be wrong is an error of its own, never a panic.
    #[test]
    fn broken_headers_are_named() {
        let mut good = vec![];
        FrameWriter::begin(&mut good, KIND_REQUEST, 0, 1).finish(&mut good);
        assert_eq!(FrameHeader::parse(&good[..15]), Ok(None));
        let broken = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            FrameHeader::parse(&bytes)
        };
        assert_eq!(broken(0, 15), Err(FrameError::Length(15)));
        assert_eq!(broken(3, 1), Err(FrameError::Length((1 << 24) + 16)));
        assert_eq!(broken(5, 0x20), Err(FrameError::Count(0x2000)));
        assert_eq!(broken(6, 3), Err(FrameError::Kind(3, 0)));
        assert_eq!(broken(7, 2), Err(FrameError::Kind(0, 2)));
    }

    /// A peer of another major version is told apart from noise.
    #[test]
    fn preface_round_trips() {
        let bytes = Preface::OURS.encode();
        assert_eq!(Preface::parse(&bytes), Some(Preface::OURS));
        let mut noise = bytes;
        noise[3] = 1;
        assert_eq!(Preface::parse(&noise), None);
    }
}
