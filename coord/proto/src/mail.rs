//! What shards tell each other: little messages in bounded mailboxes, in order per pair.
//!
//! A mailbox never leaves the process, so there is no version and no distrust here: a message that
//! does not parse is our bug and asserts.

use alloc::vec::Vec;

use ringway_core::limits::NAME_BYTES_INLINE;
use ringway_core::wire::{Put, Reader, Truncated};
use ringway_core::{ConnId, Epoch, SessionId, ShardId, Span};

use crate::handle::{Bound, Handle};
use crate::names::Tenant;
use crate::outcome::{Answer, Outcome, put_outcome};
use crate::sessions::{ConnRef, Principal, Ticket};
use crate::turn::Op;
use crate::wire::{Reply, next_reply, put_data};

/// Ops for the shard that owns their slots; [`REPLY`] comes back.
pub const REQUEST: u8 = 1;
/// Replies to a [`REQUEST`].
pub const REPLY: u8 = 2;
/// One reply that also binds the asking connection.
pub const BIND: u8 = 3;
/// A session exists; the mirror is to be made, and acknowledged.
pub const ATTACH: u8 = 4;
/// An [`ATTACH`] was done.
pub const ATTACHED: u8 = 5;
/// A session has ended.
pub const END: u8 = 6;
/// All records of an ended session are gone.
pub const SWEPT: u8 = 7;
/// A notice for a connection.
pub const PUSH: u8 = 8;
/// A bare or receiving connection has closed.
pub const CLOSED: u8 = 9;
/// Count the names of these sessions.
pub const COUNT: u8 = 10;
/// The counts.
pub const COUNTED: u8 = 11;
/// To the control plane: leases this long are about to be granted.
pub const RAISE_LEASE: u8 = 12;
/// From the control plane: the state directory allows them now.
pub const LEASE_RAISED: u8 = 13;

/// From the control plane: the ports that the server listens on, base first, then the shards' own.
pub const PORTS: u8 = 14;

/// To the control plane: this epoch is used up. From it: a later one is persisted.
pub const EPOCH: u8 = 15;

/// A session has ended, and its home wants to know when that is known here: [`ENDED`] goes back.
pub const END_ACK: u8 = 16;
/// An [`END_ACK`] was taken note of: the session's names are free here.
pub const ENDED: u8 = 17;

/// From the control plane, for the shell that drives the shard: there are other credentials.
pub const ACCESS: u8 = 18;

/// Notices for sessions whose home is here (`notices`).
pub const NOTICES: u8 = 19;
/// Notices for connections that are here (`notices`).
pub const PUSHES: u8 = 20;

/// To the control plane: a line for the log about what an operator did.
pub const AUDIT: u8 = 21;
/// A shard has watchers of a filter; [`FEED_OPENED`] comes back.
pub const FEED_OPEN: u8 = 40;
/// A feed tells a shard of changes from now on, or cannot.
pub const FEED_OPENED: u8 = 41;
/// A shard has no watchers of a filter any more.
pub const FEED_CLOSE: u8 = 42;
/// Changes of names, for the watchers of a shard.
pub const FEED_EVENTS: u8 = 43;
/// Changes were taken; there is room for more.
pub const FEED_TAKEN: u8 = 44;
/// A watcher asks a feed for what it missed, or for what there is.
pub const FEED_ASK: u8 = 45;
/// The answer to that.
pub const FEED_TOLD: u8 = 46;

/// A lane is wanted by another connection (`lanes`).
pub const LANE_CALL: u8 = 22;
/// A lane, for a connection that is here (`lanes`).
pub const LANE: u8 = 23;
/// A connection that blocks until a name is granted waits no longer (`blocking`).
pub const UNWAIT: u8 = 24;

/// Fenced messages whose source was looked at, for the shards of their targets (`messages`).
pub const RELAYS: u8 = 30;
/// What became of messages, for those who asked (`messages`).
pub const RECEIPTS: u8 = 31;
/// So many bytes of [`NOTICES`], [`PUSHES`] or [`RELAYS`] were taken.
pub const TAKEN: u8 = 32;
/// A message to all sessions whose home is here (`broadcast`).
pub const BROADCAST: u8 = 33;
/// A [`BROADCAST`] has seen all of them.
pub const BROADCASTED: u8 = 34;

/// All kinds: a number that two of them had would be read as the wrong one.
const KINDS: [u8; 36] = [
    REQUEST,
    REPLY,
    BIND,
    ATTACH,
    ATTACHED,
    END,
    SWEPT,
    PUSH,
    CLOSED,
    COUNT,
    COUNTED,
    RAISE_LEASE,
    LEASE_RAISED,
    PORTS,
    EPOCH,
    END_ACK,
    ENDED,
    ACCESS,
    NOTICES,
    PUSHES,
    AUDIT,
    FEED_OPEN,
    FEED_OPENED,
    FEED_CLOSE,
    FEED_EVENTS,
    FEED_TAKEN,
    FEED_ASK,
    FEED_TOLD,
    LANE_CALL,
    LANE,
    UNWAIT,
    RELAYS,
    RECEIPTS,
    TAKEN,
    BROADCAST,
    BROADCASTED,
];

const _: () = {
    let mut at = 0;
    while at < KINDS.len() {
        let mut other = 0;
        while other < at {
            assert!(KINDS[other] != KINDS[at], "two kinds of mail have one number");
            other += 1;
        }
        at += 1;
    }
};

/// Who asks, as a request carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The pending unit that waits for the replies, and its generation.
    pub pending: (u32, u32),
    /// The connection's session, if it has one.
    pub bound: Option<Bound>,
    /// The connection's identity.
    pub principal: Principal,
    /// Whether it may act on other principals' sessions.
    pub operator: bool,
    /// The connection.
    pub conn: ConnId,
}

/// Starts a unit of a request, behind [`REQUEST`] or another unit; ops are appended with
/// [`begin_request_op`], and their count is patched with [`set_count`] at the place that this
/// returns.
pub fn put_unit(out: &mut Vec<u8>, asker: &Asker) -> usize {
    out.put_u8(u8::from(asker.operator));
    let count_at = out.len();
    out.put_u16(0);
    out.put_u32(asker.pending.0);
    out.put_u32(asker.pending.1);
    put_bound(out, asker.bound);
    out.put_u32(asker.principal.0);
    out.put_u32(asker.conn.index);
    out.put_u32(asker.conn.generation);
    count_at
}

/// Reads a unit's header: who asks, and how many ops follow.
pub fn unit(reader: &mut Reader<'_>) -> Result<(Asker, u16), Truncated> {
    let operator = reader.u8()? != 0;
    let count = reader.u16()?;
    let pending = (reader.u32()?, reader.u32()?);
    let bound = bound(reader)?;
    let principal = Principal(reader.u32()?);
    let conn = ConnId { index: reader.u32()?, generation: reader.u32()? };
    Ok((Asker { pending, bound, principal, operator, conn }, count))
}

/// One op of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestOp<'a> {
    /// Its place in the unit that waits.
    pub index: u16,
    /// Its code, internal ones included.
    pub code: u8,
    /// Its flags.
    pub flags: u8,
    /// Its body.
    pub body: &'a [u8],
}

/// Starts one op of a request; its body is appended, then [`finish_request_op`] is called.
#[inline]
pub fn begin_request_op(out: &mut Vec<u8>, op: &Op) -> usize {
    let index = op.index.to_le_bytes();
    let at = out.len();
    out.extend_from_slice(&[index[0], index[1], op.code, op.flags, 0, 0]);
    at
}

/// An op whose body is its name, of up to 16 bytes: most ops are. One copy of a fixed length.
#[inline]
pub fn put_short_request_op(out: &mut Vec<u8>, op: &Op) {
    const NAME_AT: usize = REQUEST_OP_BYTES + 1;
    let mut bytes = [0; NAME_AT + NAME_BYTES_INLINE];
    bytes[..2].copy_from_slice(&op.index.to_le_bytes());
    (bytes[2], bytes[3], bytes[4], bytes[REQUEST_OP_BYTES]) =
        (op.code, op.flags, 1 + op.len, op.len);
    bytes[NAME_AT..NAME_AT + 8].copy_from_slice(&op.words[0].to_le_bytes());
    bytes[NAME_AT + 8..].copy_from_slice(&op.words[1].to_le_bytes());
    let end = out.len() + NAME_AT + usize::from(op.len);
    out.extend_from_slice(&bytes);
    out.truncate(end);
}

/// Patches the length of an op that [`begin_request_op`] started at `at`.
#[inline]
pub fn finish_request_op(out: &mut [u8], at: usize) {
    let len = (out.len() - at - REQUEST_OP_BYTES) as u16;
    out[at + 4..at + 6].copy_from_slice(&len.to_le_bytes());
}

/// Says how many ops a unit has.
pub fn set_count(out: &mut [u8], count_at: usize, count: u16) {
    out[count_at..count_at + 2].copy_from_slice(&count.to_le_bytes());
}

/// Bytes of the header of one op of a request.
const REQUEST_OP_BYTES: usize = 6;

/// Takes one op off a request.
#[inline]
pub fn request_op<'a>(reader: &mut Reader<'a>) -> Result<RequestOp<'a>, Truncated> {
    let head: [u8; REQUEST_OP_BYTES] = reader.array()?;
    let len = u16::from_le_bytes([head[4], head[5]]);
    let body = reader.bytes(usize::from(len))?;
    let index = u16::from_le_bytes([head[0], head[1]]);
    Ok(RequestOp { index, code: head[2], flags: head[3], body })
}

/// Starts a reply; single replies are appended, then [`set_counts`] is called.
pub fn put_reply(out: &mut Vec<u8>, pending: (u32, u32)) {
    out.put_u8(REPLY);
    out.put_u16(0);
    out.put_u32(0);
    out.put_u32(pending.0);
    out.put_u32(pending.1);
}

/// Says how many replies follow, and what the ops that were executed weigh: those are not on their
/// way any more. An op that is answered later is executed before it is answered.
pub fn set_counts(out: &mut [u8], count: u16, weight: u32) {
    out[1..3].copy_from_slice(&count.to_le_bytes());
    out[3..7].copy_from_slice(&weight.to_le_bytes());
}

/// Appends one reply.
#[inline]
pub fn put_reply_outcome(out: &mut Vec<u8>, index: u16, outcome: Outcome) {
    out.extend_from_slice(&index.to_le_bytes());
    put_outcome(out, outcome);
}

/// Appends one reply with bytes.
pub fn put_reply_data(out: &mut Vec<u8>, index: u16, status: u8, bytes: &[u8]) {
    out.put_u16(index);
    put_data(out, status, bytes);
}

/// Takes one reply off a message.
#[inline]
pub fn reply<'a>(rest: &mut &'a [u8]) -> Option<(u16, Reply<'a>)> {
    let (index, after) = rest.split_first_chunk::<2>()?;
    *rest = after;
    Some((u16::from_le_bytes(*index), next_reply(rest)?))
}

/// A session as [`session`] reads it.
#[inline]
pub fn session_bytes(bound: Bound) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&bound.handle.bits().to_le_bytes());
    bytes[4..].copy_from_slice(&bound.session.0.to_le_bytes());
    bytes
}

/// A message that is only a kind and a session.
pub fn session_message(kind: u8, bound: Bound) -> [u8; 13] {
    let mut bytes = [0; 13];
    bytes[0] = kind;
    bytes[1..5].copy_from_slice(&bound.handle.bits().to_le_bytes());
    bytes[5..].copy_from_slice(&bound.session.0.to_le_bytes());
    bytes
}

/// Says that a session exists, and whose it is.
pub fn attach_message(bound: Bound, tenant: Option<Tenant>) -> Vec<u8> {
    let tenant = tenant.map(|tenant| tenant.0.to_le_bytes());
    let whose = tenant.as_ref().map_or(&[][..], |tenant| &tenant[..]);
    [&session_message(ATTACH, bound)[..], whose].concat()
}

/// Reads what such a message says behind its kind.
pub fn attached(reader: &mut Reader<'_>) -> Result<(Bound, Option<Tenant>), Truncated> {
    let bound = session(reader)?;
    let tenant = if reader.is_empty() { None } else { Some(Tenant(reader.u32()?)) };
    Ok((bound, tenant))
}

/// Reads the session of such a message.
pub fn session(reader: &mut Reader<'_>) -> Result<Bound, Truncated> {
    let handle = Handle::from_bits(reader.u32()?);
    Ok(Bound { handle, session: SessionId(reader.u64()?) })
}

/// Says that bytes of a kind of mail were taken.
pub fn taken_message(kind: u8, bytes: u32) -> [u8; 6] {
    let bytes = bytes.to_le_bytes();
    [TAKEN, kind, bytes[0], bytes[1], bytes[2], bytes[3]]
}

/// Appends a session, or that there is none.
pub fn put_bound(out: &mut Vec<u8>, bound: Option<Bound>) {
    out.put_u32(bound.map_or(0, |bound| bound.handle.bits()));
    out.put_u64(bound.map_or(0, |bound| bound.session.0));
}

/// Reads a session, or that there is none.
pub fn bound(reader: &mut Reader<'_>) -> Result<Option<Bound>, Truncated> {
    let bound = session(reader)?;
    Ok((bound.session.0 != 0).then_some(bound))
}

/// Appends a connection.
pub fn put_conn(out: &mut Vec<u8>, conn: ConnId) {
    out.put_u32(conn.index);
    out.put_u32(conn.generation);
}

/// Reads a connection.
pub fn conn(reader: &mut Reader<'_>) -> Result<ConnId, Truncated> {
    Ok(ConnId { index: reader.u32()?, generation: reader.u32()? })
}

/// Appends where an answer goes.
pub fn put_ticket(out: &mut Vec<u8>, ticket: &Ticket) {
    out.put_u8(ticket.shard.0);
    out.put_u32(ticket.pending);
    out.put_u32(ticket.generation);
    out.put_u16(ticket.index);
}

/// Reads where an answer goes.
pub fn ticket(reader: &mut Reader<'_>) -> Result<Ticket, Truncated> {
    Ok(Ticket {
        shard: ShardId(reader.u8()?),
        pending: reader.u32()?,
        generation: reader.u32()?,
        index: reader.u16()?,
    })
}

/// The reply that binds.
pub fn put_bind(out: &mut Vec<u8>, place: ((u32, u32), u16), who: (Bound, bool), answer: &Answer) {
    out.put_u8(BIND);
    out.put_u32(place.0.0);
    out.put_u32(place.0.1);
    out.put_u16(place.1);
    out.put_u8(u8::from(who.1));
    put_bound(out, Some(who.0));
    answer.put(out);
}

/// A notice for a connection: code, session, reason, and whether to close.
pub fn put_push(out: &mut Vec<u8>, conn: ConnId, notice: (u8, SessionId, u8), close: bool) {
    out.put_u8(PUSH);
    out.put_u32(conn.index);
    out.put_u32(conn.generation);
    out.put_u8(notice.0);
    out.put_u64(notice.1.0);
    out.put_u8(notice.2);
    out.put_u8(u8::from(close));
}

/// A connection of shard `from` has closed that may be a session's receiving connection.
pub fn put_closed(out: &mut Vec<u8>, session: SessionId, conn: ConnId) {
    out.put_u8(CLOSED);
    out.put_u64(session.0);
    out.put_u32(conn.index);
    out.put_u32(conn.generation);
}

/// Reads what [`put_closed`] wrote.
pub fn closed(from: ShardId, reader: &mut Reader<'_>) -> Result<(SessionId, ConnRef), Truncated> {
    let session = SessionId(reader.u64()?);
    let conn = ConnId { index: reader.u32()?, generation: reader.u32()? };
    Ok((session, ConnRef { shard: from, conn }))
}

/// The end of a wait: the unit that waits, its session, the name.
pub fn unwait_message(pending: (u32, u32), bound: Bound, name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(21 + name.len());
    out.put_u8(UNWAIT);
    out.put_u32(pending.0);
    out.put_u32(pending.1);
    put_bound(&mut out, Some(bound));
    out.extend_from_slice(name);
    out
}

/// An epoch, to or from the control plane.
pub fn epoch_message(epoch: Epoch) -> [u8; 5] {
    let mut bytes = [0; 5];
    bytes[0] = EPOCH;
    bytes[1..].copy_from_slice(&epoch.0.to_le_bytes());
    bytes
}

/// The server's ports.
pub fn ports_message(base: u16, own: &[u16]) -> Vec<u8> {
    let mut out = Vec::with_capacity(3 + 2 * own.len());
    out.put_u8(PORTS);
    out.put_u16(base);
    own.iter().for_each(|port| out.put_u16(*port));
    out
}

/// A lease length, to or from the control plane.
pub fn lease_message(kind: u8, lease: Span) -> [u8; 9] {
    let mut bytes = [0; 9];
    bytes[0] = kind;
    bytes[1..].copy_from_slice(&lease.0.to_le_bytes());
    bytes
}
