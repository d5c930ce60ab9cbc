//! What the server says, decoded into plain structs (`docs/protocol.md` sections 3 to 5).
//!
//! Always holds: no bytes make these parsers panic; trailing bytes are an error, so that a newer
//! format is noticed instead of half-read. Not here: which reply belongs to which op (`core`).

use std::time::Duration;

use ringway_coord_proto::wire::{RawOp, Reply, push, status};
use ringway_core::wire::{Reader, Truncated};
use ringway_core::{Epoch, NodeId, Secret, SessionId, ShardId, Slot, Token};

use crate::error::Refusal;

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

/// What the server says unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A session of this connection ended; everything it held is released.
    SessionEnded {
        /// Which.
        session: SessionId,
        /// Why.
        reason: EndReason,
    },
    /// Another connection resumed the session; this one is closed next.
    SessionMoved {
        /// Which.
        session: SessionId,
    },
    /// The server could not follow our frames; the connection is closed next.
    ProtocolError,
    /// A notice that a newer server sends.
    Unknown(u8),
}

impl Notice {
    /// Decodes one notice of a push frame; `None` if a known one has the wrong length.
    pub(crate) fn parse(raw: RawOp<'_>) -> Option<Notice> {
        let mut reader = Reader::new(raw.body);
        let notice = match raw.code {
            push::SESSION_ENDED => {
                let session = SessionId(reader.u64().ok()?);
                Notice::SessionEnded { session, reason: end_reason(reader.u8().ok()?) }
            }
            push::SESSION_MOVED => Notice::SessionMoved { session: SessionId(reader.u64().ok()?) },
            push::PROTOCOL_ERROR => Notice::ProtocolError,
            other => return Some(Notice::Unknown(other)),
        };
        reader.is_empty().then_some(notice)
    }
}

fn end_reason(code: u8) -> EndReason {
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

    proptest! {
        /// A hostile server cannot crash its clients.
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = whole(&bytes, read_opened);
            let _ = whole(&bytes, read_session);
            let _ = whole(&bytes, read_sessions);
            let _ = whole(&bytes, read_list);
            let _ = whole(&bytes, read_shard_map);
            for code in 0..5 {
                let _ = Notice::parse(RawOp { code, flags: 0, body: &bytes });
            }
        }
    }
}
