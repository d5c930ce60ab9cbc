//! What the server says, decoded into plain structs (`docs/protocol.md` sections 3 to 5).
//!
//! Always holds: no bytes make these parsers panic; trailing bytes are an error, so that a newer
//! format is noticed instead of half-read. Not here: which reply belongs to which op (`core`).

use std::time::Duration;

use ringway_coord_proto::wire::{Reply, status};
use ringway_core::wire::{Reader, Truncated};
use ringway_core::{Epoch, NodeId, Secret, SessionId, ShardId, Slot, Token};

use crate::error::Refusal;
use crate::op::{CursorAt, Mode, Ticket};

/// What becomes of a name when the master fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Its owner declares it again.
    Ephemeral,
    /// It was committed by the quorum.
    Replicated,
}

/// Who holds a name, and under which token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The owner's session.
    pub session: SessionId,
    /// The token of its grant; larger than that of any earlier owner of the name.
    pub token: Token,
    /// The class of the grant. A refusal (`HELD`) does not tell it and reads as ephemeral.
    pub durability: Durability,
}

/// The answer to REGISTER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// It is yours.
    Granted(Owner),
    /// It is another's.
    Held(Owner),
}

/// The answer to META: a name that is owned, and what its owner says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The owner's session.
    pub session: SessionId,
    /// The token of its grant.
    pub token: Token,
    /// How often the metadata was set under this grant; zero: never.
    pub version: u32,
    /// The metadata.
    pub metadata: Vec<u8>,
}

/// The answer to SET_META.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaSet {
    /// It is set, and has this version now.
    Done(u32),
    /// It had another version: this one, and this metadata. Nothing has changed.
    Conflict(u32, Vec<u8>),
}

/// The answer to WAIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// It is yours.
    Granted(Owner),
    /// It is another's; a notice tells when it is yours, or when the time is over.
    Queued {
        /// The first of those who hold it.
        holder: SessionId,
        /// Your place in the queue.
        ticket: Ticket,
    },
}

/// The answer to CANCEL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// Nobody waits in this place any more.
    Done,
    /// The grant was faster: it is yours.
    Granted(Owner),
}

/// The answer to REVOKE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// It was freed, for whoever waits for it.
    Freed,
    /// It was given to the session that was named.
    Moved(Owner),
    /// Nobody had it.
    WasFree,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is on its way; with a receipt: it was handed to the receiver's connection.
    Done,
    /// Nobody owns the name.
    NoOwner,
    /// The receiver has no connection at the moment. The message is dropped.
    Away,
    /// The receiver has too much unread. The message is dropped.
    ReceiverFull,
}

/// What became of a broadcast that was sent with a receipt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Sessions to whose connections it was handed.
    pub sessions: u64,
    /// Sessions that have no connection at the moment.
    pub away: u64,
    /// Sessions that have too much unread.
    pub full: u64,
}

/// One that holds a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its session.
    pub session: SessionId,
    /// The token of its grant.
    pub token: Token,
}

/// One that waits for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Its session.
    pub session: SessionId,
    /// Its place.
    pub ticket: Ticket,
    /// How it would hold the name.
    pub mode: Mode,
    /// How long it has waited.
    pub waited: Duration,
}

/// The answer to WAITERS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// How the name is held.
    pub mode: Mode,
    /// How many hold it, those beyond the page too.
    pub holders_in_all: u32,
    /// How many wait for it, those beyond the page too.
    pub waiters_in_all: u32,
    /// The first of those who hold it.
    pub holders: Vec<Holder>,
    /// The first of those who wait for it, in their order.
    pub waiters: Vec<Waiter>,
}

/// One that waits for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitEdge {
    /// Who waits.
    pub waiting: SessionId,
    /// In which place.
    pub ticket: Ticket,
    /// How long it has waited.
    pub since: Duration,
    /// For whom.
    pub holder: Holder,
    /// And for what.
    pub name: Vec<u8>,
}

/// The answer to WAITS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitsPage {
    /// Where to go on; `None` when this was the last page.
    pub next: Option<u64>,
    /// The edges of this page.
    pub edges: Vec<WaitEdge>,
}

/// How a watch has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Anew.
    Fresh,
    /// Behind the cursor, and nothing was missed.
    Resumed,
    /// Something was missed: what is known has to be listed again.
    Gap,
}

/// The answer to WATCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watching {
    /// How it has begun.
    pub beginning: Beginning,
    /// Where each shard's changes go on.
    pub cursor: Vec<CursorAt>,
}

/// The answer to OPEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The session.
    pub session: SessionId,
    /// What proves it to be ours.
    pub secret: Secret,
    /// The lease that was given.
    pub lease: Duration,
    /// The epoch of the service.
    pub epoch: Epoch,
    /// An earlier session was taken over, with all it holds.
    pub resumed: bool,
}

/// One session as the server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// The session.
    pub session: SessionId,
    /// Its node.
    pub node: NodeId,
    /// Its lease.
    pub lease: Duration,
    /// What is left of the lease.
    pub left: Duration,
    /// Names that it holds.
    pub names: u64,
    /// It has no receiving connection at the moment.
    pub away: bool,
    /// It ends with its connection.
    pub bare: bool,
    /// It has ended and its names are being released.
    pub ending: bool,
    /// Where other nodes reach it.
    pub address: Vec<u8>,
    /// What it says about itself.
    pub metadata: Vec<u8>,
}

/// The answer to SESSIONS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionsPage {
    /// Where to go on; `None` when this was the last page.
    pub next: Option<u64>,
    /// The sessions of this page.
    pub sessions: Vec<SessionRecord>,
}

/// Where a listing goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListCursor {
    /// The slot to go on with.
    pub slot: Slot,
    /// The last name seen in it.
    pub after: Vec<u8>,
}

/// One name of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedName {
    /// The name.
    pub name: Vec<u8>,
    /// Its owner's session.
    pub session: SessionId,
    /// The token of the grant.
    pub token: Token,
}

/// The answer to LIST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage {
    /// Where to go on; `None` when this was the last page.
    pub next: Option<ListCursor>,
    /// The names of this page.
    pub names: Vec<ListedName>,
}

/// Slots that follow each other on one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardRun {
    /// The first slot.
    pub first: Slot,
    /// The last slot, included.
    pub last: Slot,
    /// The shard that owns them.
    pub shard: ShardId,
    /// The shard's own TCP port, if it listens on one.
    pub port: Option<u16>,
}

/// The answer to SHARD_MAP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMap {
    /// Grows with every change.
    pub version: u64,
    /// How many shards there are.
    pub shards: u8,
    /// Which slots are where.
    pub runs: Vec<ShardRun>,
}

impl ShardMap {
    /// The run that a slot is in.
    pub fn run_of(&self, slot: Slot) -> Option<&ShardRun> {
        self.runs.iter().find(|run| run.first <= slot && slot <= run.last)
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Its lease ran out.
    Expired,
    /// Its node opened a new one.
    Replaced,
    /// An operator ended it.
    Killed,
    /// Its client closed it.
    Closed,
    /// A reason that a newer server gives.
    Unknown(u8),
}

pub(crate) fn end_reason(code: u8) -> EndReason {
    match code {
        1 => EndReason::Expired,
        2 => EndReason::Replaced,
        3 => EndReason::Killed,
        4 => EndReason::Closed,
        other => EndReason::Unknown(other),
    }
}

/// The reply to QUERY: the owner, nobody, or a refusal.
pub fn query_result(reply: Reply<'_>) -> Result<Option<Owner>, Refusal> {
    match reply {
        Reply::Plain(status::FREE) => Ok(None),
        Reply::Owner { status: status::OWNED_EPHEMERAL, session, token } => {
            Ok(Some(Owner { session, token, durability: Durability::Ephemeral }))
        }
        Reply::Owner { status: status::OWNED_REPLICATED, session, token } => {
            Ok(Some(Owner { session, token, durability: Durability::Replicated }))
        }
        other => Err(Refusal::of(&other)),
    }
}

/// The reply to META: `None` for a name that nobody owns.
pub fn meta_result(reply: Reply<'_>) -> Result<Option<Described>, Refusal> {
    unless_free(reply, |reader| {
        Ok(Described {
            session: SessionId(reader.u64()?),
            token: Token(reader.u64()?),
            version: reader.u32()?,
            metadata: rest(reader)?,
        })
    })
}

/// The reply to SET_META.
pub fn set_meta_result(reply: Reply<'_>) -> Result<MetaSet, Refusal> {
    let set = match reply {
        Reply::Data(status::CONFLICT, bytes) => {
            whole(bytes, |reader| Ok(MetaSet::Conflict(reader.u32()?, rest(reader)?)))
        }
        other => whole(data_result(other)?, |reader| Ok(MetaSet::Done(reader.u32()?))),
    };
    set.ok_or(Refusal::Unexpected(reply.status()))
}

/// The reply to WAIT: granted, queued, or a refusal.
pub fn wait_result(reply: Reply<'_>) -> Result<Waited, Refusal> {
    match reply {
        Reply::Owner { status: status::QUEUED, session: holder, token } => {
            Ok(Waited::Queued { holder, ticket: Ticket(token.0) })
        }
        other => granted_result(other).map(Waited::Granted),
    }
}

/// The reply to CANCEL.
pub fn cancel_result(reply: Reply<'_>) -> Result<Cancelled, Refusal> {
    match reply {
        Reply::Plain(status::OK) => Ok(Cancelled::Done),
        other => granted_result(other).map(Cancelled::Granted),
    }
}

/// The reply to TRANSFER, and to whatever else answers `GRANTED_*` or a refusal.
pub fn granted_result(reply: Reply<'_>) -> Result<Owner, Refusal> {
    match register_result(reply)? {
        Registered::Granted(owner) => Ok(owner),
        Registered::Held(_) => Err(Refusal::Unexpected(status::HELD)),
    }
}

/// The reply to REVOKE.
pub fn revoke_result(reply: Reply<'_>) -> Result<Revoked, Refusal> {
    match reply {
        Reply::Plain(status::OK) => Ok(Revoked::Freed),
        Reply::Plain(status::FREE) => Ok(Revoked::WasFree),
        other => granted_result(other).map(Revoked::Moved),
    }
}

/// The reply to SEND.
pub fn send_result(reply: Reply<'_>) -> Result<Delivery, Refusal> {
    match reply {
        Reply::Plain(status::OK) => Ok(Delivery::Done),
        Reply::Plain(status::FREE) => Ok(Delivery::NoOwner),
        Reply::Plain(status::AWAY) => Ok(Delivery::Away),
        Reply::Plain(status::RECEIVER_FULL) => Ok(Delivery::ReceiverFull),
        other => Err(Refusal::of(&other)),
    }
}

/// The reply to BROADCAST: counts if a receipt was asked for.
pub fn broadcast_result(reply: Reply<'_>) -> Result<Option<Reached>, Refusal> {
    if reply == Reply::Plain(status::OK) {
        return Ok(None);
    }
    let counts = |reader: &mut Reader<'_>| {
        Ok(Reached { sessions: reader.u64()?, away: reader.u64()?, full: reader.u64()? })
    };
    data_of(reply, counts).map(Some)
}

/// The reply to WAITERS: `None` for a name that nobody owns.
pub fn waiters_result(reply: Reply<'_>) -> Result<Option<Queue>, Refusal> {
    unless_free(reply, read_queue)
}

/// The reply to WAITS.
pub fn waits_result(reply: Reply<'_>) -> Result<WaitsPage, Refusal> {
    data_of(reply, read_waits)
}

/// The reply to LIST.
pub fn list_result(reply: Reply<'_>) -> Result<ListPage, Refusal> {
    data_of(reply, read_list)
}

/// The reply to SESSION.
pub fn session_result(reply: Reply<'_>) -> Result<SessionRecord, Refusal> {
    data_of(reply, read_session)
}

/// The reply to WATCH.
pub fn watch_result(reply: Reply<'_>) -> Result<Watching, Refusal> {
    data_of(reply, read_watching)
}

fn unless_free<T>(
    reply: Reply<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, Truncated>,
) -> Result<Option<T>, Refusal> {
    match reply {
        Reply::Plain(status::FREE) => Ok(None),
        other => data_of(other, read).map(Some),
    }
}

/// What `read` makes of all the data of a reply.
pub(crate) fn data_of<T>(
    reply: Reply<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, Truncated>,
) -> Result<T, Refusal> {
    whole(data_result(reply)?, read).ok_or(Refusal::Unexpected(reply.status()))
}

/// The reply to REGISTER: granted, held by another, or a refusal.
pub fn register_result(reply: Reply<'_>) -> Result<Registered, Refusal> {
    let Reply::Owner { status, session, token } = reply else { return Err(Refusal::of(&reply)) };
    let owner = |durability| Owner { session, token, durability };
    match status {
        status::GRANTED_EPHEMERAL => Ok(Registered::Granted(owner(Durability::Ephemeral))),
        status::GRANTED_REPLICATED => Ok(Registered::Granted(owner(Durability::Replicated))),
        status::HELD => Ok(Registered::Held(owner(Durability::Ephemeral))),
        _ => Err(Refusal::of(&reply)),
    }
}

/// The reply to an op that answers `OK` and nothing else.
pub fn plain_result(reply: Reply<'_>) -> Result<(), Refusal> {
    match reply {
        Reply::Plain(status::OK) => Ok(()),
        other => Err(Refusal::of(&other)),
    }
}

/// The data of a reply to an op that answers `DATA`.
pub fn data_result(reply: Reply<'_>) -> Result<&[u8], Refusal> {
    match reply {
        Reply::Data(status::DATA, bytes) => Ok(bytes),
        other => Err(Refusal::of(&other)),
    }
}

/// Reads a whole reply body with `read`; trailing bytes are as wrong as missing ones.
pub(crate) fn whole<T>(
    bytes: &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, Truncated>,
) -> Option<T> {
    let mut reader = Reader::new(bytes);
    let value = read(&mut reader).ok()?;
    reader.is_empty().then_some(value)
}

/// The data of OPEN's reply; `None` if it is not what the op answers.
pub fn opened(data: &[u8]) -> Option<Opened> {
    whole(data, read_opened)
}

pub(crate) fn read_opened(reader: &mut Reader<'_>) -> Result<Opened, Truncated> {
    Ok(Opened {
        session: SessionId(reader.u64()?),
        secret: Secret(reader.array()?),
        lease: read_ms(reader)?,
        epoch: Epoch(reader.u32()?),
        resumed: reader.u8()? != 0,
    })
}

/// What LANE answers: the largest number that was taken up by the lane, and the smallest whose
/// reply is remembered with all behind it.
pub(crate) fn read_laned(reader: &mut Reader<'_>) -> Result<(u64, u64), Truncated> {
    Ok((reader.u64()?, reader.u64()?))
}

pub(crate) fn read_session(reader: &mut Reader<'_>) -> Result<SessionRecord, Truncated> {
    let (session, node) = (SessionId(reader.u64()?), NodeId(reader.u64()?));
    let (lease, left) = (read_ms(reader)?, read_ms(reader)?);
    let (names, flags) = (reader.u64()?, reader.u8()?);
    let address = reader.short_bytes()?.to_vec();
    let metadata = reader.long_bytes()?.to_vec();
    let (away, bare, ending) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
    Ok(SessionRecord { session, node, lease, left, names, away, bare, ending, address, metadata })
}

pub(crate) fn read_sessions(reader: &mut Reader<'_>) -> Result<SessionsPage, Truncated> {
    let next = reader.u64()?;
    let count = reader.u16()?;
    let sessions = (0..count).map(|_| read_session(reader)).collect::<Result<_, _>>()?;
    Ok(SessionsPage { next: (next != 0).then_some(next), sessions })
}

pub(crate) fn read_list(reader: &mut Reader<'_>) -> Result<ListPage, Truncated> {
    let done = reader.u8()? != 0;
    let slot = Slot::from_bits(reader.u16()?);
    let after = reader.short_bytes()?.to_vec();
    let count = reader.u16()?;
    let names = (0..count)
        .map(|_| {
            let name = reader.short_bytes()?.to_vec();
            Ok(ListedName { name, session: SessionId(reader.u64()?), token: Token(reader.u64()?) })
        })
        .collect::<Result<_, _>>()?;
    Ok(ListPage { next: (!done).then_some(ListCursor { slot, after }), names })
}

pub(crate) fn read_shard_map(reader: &mut Reader<'_>) -> Result<ShardMap, Truncated> {
    let (version, shards, count) = (reader.u64()?, reader.u8()?, reader.u16()?);
    let runs = (0..count)
        .map(|_| {
            let (first, last) = (reader.u16()?, reader.u16()?);
            let (shard, port) = (ShardId(reader.u8()?), reader.u16()?);
            let (first, last) = (Slot::from_bits(first), Slot::from_bits(last));
            Ok(ShardRun { first, last, shard, port: (port != 0).then_some(port) })
        })
        .collect::<Result<_, _>>()?;
    Ok(ShardMap { version, shards, runs })
}

/// A mode by its code; one that a newer server has reads as exclusive, the strictest.
pub(crate) fn read_mode(code: u8, permits: u32) -> Mode {
    match code {
        1 => Mode::Shared,
        2 => Mode::Counting { permits },
        _ => Mode::Exclusive,
    }
}

fn read_holder(reader: &mut Reader<'_>) -> Result<Holder, Truncated> {
    Ok(Holder { session: SessionId(reader.u64()?), token: Token(reader.u64()?) })
}

fn read_queue(reader: &mut Reader<'_>) -> Result<Queue, Truncated> {
    let mode = read_mode(reader.u8()?, reader.u32()?);
    let (holders_in_all, waiters_in_all) = (reader.u32()?, reader.u32()?);
    let count = reader.u16()?;
    let holders = (0..count).map(|_| read_holder(reader)).collect::<Result<_, _>>()?;
    let count = reader.u16()?;
    let waiters = (0..count)
        .map(|_| {
            let (session, ticket) = (SessionId(reader.u64()?), Ticket(reader.u64()?));
            let mode = read_mode(reader.u8()?, reader.u32()?);
            Ok(Waiter { session, ticket, mode, waited: read_ms(reader)? })
        })
        .collect::<Result<_, _>>()?;
    Ok(Queue { mode, holders_in_all, waiters_in_all, holders, waiters })
}

fn read_waits(reader: &mut Reader<'_>) -> Result<WaitsPage, Truncated> {
    let (next, count) = (reader.u64()?, reader.u16()?);
    let edges = (0..count)
        .map(|_| {
            let (waiting, ticket) = (SessionId(reader.u64()?), Ticket(reader.u64()?));
            let (since, holder) = (read_ms(reader)?, read_holder(reader)?);
            let name = reader.short_bytes()?.to_vec();
            Ok(WaitEdge { waiting, ticket, since, holder, name })
        })
        .collect::<Result<_, _>>()?;
    Ok(WaitsPage { next: (next != 0).then_some(next), edges })
}

fn read_watching(reader: &mut Reader<'_>) -> Result<Watching, Truncated> {
    let beginning = match reader.u8()? {
        0 => Beginning::Fresh,
        1 => Beginning::Resumed,
        _ => Beginning::Gap,
    };
    let count = reader.u8()?;
    let cursor = (0..count)
        .map(|_| {
            let (shard, epoch) = (ShardId(reader.u8()?), Epoch(reader.u32()?));
            Ok(CursorAt { shard, epoch, sequence: reader.u64()? })
        })
        .collect::<Result<_, _>>()?;
    Ok(Watching { beginning, cursor })
}

fn rest(reader: &mut Reader<'_>) -> Result<Vec<u8>, Truncated> {
    let len = reader.rest().len();
    reader.bytes(len).map(<[u8]>::to_vec)
}

fn read_ms(reader: &mut Reader<'_>) -> Result<Duration, Truncated> {
    Ok(Duration::from_millis(u64::from(reader.u32()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringway_core::wire::Put;

    fn record() -> (Vec<u8>, SessionRecord) {
        let mut bytes = vec![];
        bytes.put_u64(3);
        bytes.put_u64(4);
        bytes.put_u32(1000);
        bytes.put_u32(250);
        bytes.put_u64(9);
        bytes.put_u8(0b101);
        bytes.put_short_bytes(b"host:1");
        bytes.put_long_bytes(b"meta");
        let record = SessionRecord {
            session: SessionId(3),
            node: NodeId(4),
            lease: Duration::from_secs(1),
            left: Duration::from_millis(250),
            names: 9,
            away: true,
            bare: false,
            ending: true,
            address: b"host:1".to_vec(),
            metadata: b"meta".to_vec(),
        };
        (bytes, record)
    }

    /// A page ends where its bytes end: one byte less or more is an error, not a shorter page.
    #[test]
    fn pages_parse_whole_or_not_at_all() {
        let (one, record) = record();
        let mut bytes = vec![];
        bytes.put_u64(77);
        bytes.put_u16(2);
        bytes.extend_from_slice(&one);
        bytes.extend_from_slice(&one);
        let page = whole(&bytes, read_sessions).expect("whole");
        assert_eq!(page, SessionsPage { next: Some(77), sessions: vec![record.clone(), record] });
        assert_eq!(whole(&bytes[..bytes.len() - 1], read_sessions), None);
        bytes.push(0);
        assert_eq!(whole(&bytes, read_sessions), None);
    }

    /// STARTING carries the wait; a caller can sleep for exactly that long.
    #[test]
    fn refusals_keep_what_the_server_said() {
        let starting = Reply::Data(status::STARTING, &[0xE8, 3, 0, 0]);
        assert_eq!(register_result(starting), Err(Refusal::Starting(Duration::from_secs(1))));
        assert_eq!(query_result(Reply::Plain(status::BADNAME)), Err(Refusal::BadName));
        assert_eq!(plain_result(Reply::Plain(0xFE)), Err(Refusal::Unexpected(0xFE)));
    }

    /// The queue for a name, from bytes written by hand from the documents.
    #[test]
    fn a_queue_is_as_documented() {
        let mut bytes = b"\x02\x03\0\0\0\x02\0\0\0\x01\0\0\0\x01\0".to_vec();
        bytes.extend_from_slice(b"\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x01\0");
        bytes.extend_from_slice(b"\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x01\0\0\0\0\xFA\0\0\0");
        let queue = waiters_result(Reply::Data(status::DATA, &bytes)).expect("parses");
        let queue = queue.expect("owned");
        assert_eq!(queue.mode, Mode::Counting { permits: 3 });
        assert_eq!((queue.holders_in_all, queue.waiters_in_all), (2, 1));
        assert_eq!(queue.holders, [Holder { session: SessionId(5), token: Token(6) }]);
        let (session, ticket) = (SessionId(7), Ticket(8));
        let waited = Duration::from_millis(250);
        assert_eq!(queue.waiters, [Waiter { session, ticket, mode: Mode::Shared, waited }]);
        bytes.push(0);
        let longer = waiters_result(Reply::Data(status::DATA, &bytes));
        assert_eq!(longer, Err(Refusal::Unexpected(status::DATA)));
        assert_eq!(waiters_result(Reply::Plain(status::FREE)), Ok(None));
    }

    /// A wait is granted, queued or refused; QUEUED has the ticket in the token's place.
    #[test]
    fn waits_and_sends_are_told_apart() {
        let owner = |status| Reply::Owner { status, session: SessionId(5), token: Token(6) };
        let queued = Waited::Queued { holder: SessionId(5), ticket: Ticket(6) };
        assert_eq!(wait_result(owner(status::QUEUED)), Ok(queued));
        assert!(matches!(wait_result(owner(status::GRANTED_EPHEMERAL)), Ok(Waited::Granted(_))));
        assert_eq!(wait_result(owner(status::HELD)), Err(Refusal::Unexpected(status::HELD)));
        assert_eq!(send_result(Reply::Plain(status::AWAY)), Ok(Delivery::Away));
        assert_eq!(send_result(Reply::Plain(status::FENCED)), Err(Refusal::Fenced));
        let conflict = set_meta_result(Reply::Data(status::CONFLICT, b"\x04\0\0\0now"));
        assert_eq!(conflict, Ok(MetaSet::Conflict(4, b"now".to_vec())));
    }

    proptest! {
        /// A hostile server cannot crash its clients.
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = whole(&bytes, read_opened);
            let _ = whole(&bytes, read_session);
            let _ = whole(&bytes, read_sessions);
            let _ = whole(&bytes, read_list);
            let _ = whole(&bytes, read_shard_map);
            let _ = whole(&bytes, read_queue);
            let _ = whole(&bytes, read_waits);
            let _ = whole(&bytes, read_watching);
        }
    }
}
