//! What the server says unasked, decoded (`docs/protocol.md` section 5).
//!
//! Always holds: no bytes make the parser panic; a known notice of the wrong length is an error, an
//! unknown one is kept by its code. Not here: to whom a notice is news (`engine`).

use ringway_coord_proto::wire::{RawOp, push};
use ringway_core::wire::{Reader, Truncated};
use ringway_core::{Epoch, SessionId, ShardId, Token};

use crate::op::{CursorAt, Mode, Ticket, WatchId};
use crate::reply::{EndReason, end_reason, read_mode};

/// What the server says unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Another connection has taken this one's lane; this one is closed next.
    LaneMoved {
        /// The lane.
        number: u32,
    },
    /// The server could not follow our frames; the connection is closed next.
    ProtocolError,
    /// A wait has ended: the name is the session's.
    Granted {
        /// The name.
        name: Vec<u8>,
        /// The place in the queue that has come to its turn.
        ticket: Ticket,
        /// The token of the grant.
        token: Token,
        /// The mode it is held in; the permits of a counting name are not told and read as zero.
        mode: Mode,
    },
    /// A wait has ended without a grant.
    WaitEnded {
        /// The name.
        name: Vec<u8>,
        /// The place in the queue that is given up.
        ticket: Ticket,
        /// Why.
        reason: WaitEnd,
    },
    /// A name was transferred to the session.
    Received {
        /// The name.
        name: Vec<u8>,
        /// The token under which the session has it now.
        token: Token,
        /// Who had it; `None`: an operator gave it.
        from: Option<SessionId>,
    },
    /// A name was taken from the session.
    Lost {
        /// The name.
        name: Vec<u8>,
        /// The token under which the session had it.
        token: Token,
        /// Who has it now; `None`: it was freed.
        to: Option<SessionId>,
        /// Why.
        reason: LossReason,
    },
    /// A message.
    Message(Message),
    /// A watched name has changed.
    Change {
        /// The watch.
        watch: WatchId,
        /// What has changed.
        change: Change,
    },
    /// A name that was owned when the watch began.
    State {
        /// The watch.
        watch: WatchId,
        /// The shard that told it.
        shard: ShardId,
        /// The name and its owner.
        owned: Owned,
    },
    /// What was told so far is the state at one moment.
    SnapshotEnd(WatchId),
    /// What was told so far may be incomplete.
    Gap(WatchId),
    /// A notice that a newer server sends.
    Unknown(u8),
}

/// Why a wait has ended without a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitEnd {
    /// The time that was given has passed.
    TimeOver,
    /// A reason that a newer server gives.
    Unknown(u8),
}

/// Why a name was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// An operator gave it to another session.
    Transferred,
    /// An operator freed it.
    Revoked,
    /// A reason that a newer server gives.
    Unknown(u8),
}

/// Who or what a message was sent to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Addressee {
    /// A name of the session.
    Name(Vec<u8>),
    /// The session itself.
    Session,
    /// Everybody.
    All,
}

/// A message from another session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sent it.
    pub from: SessionId,
    /// To what of ours.
    pub to: Addressee,
    /// The sender's name and the token under which it owned it when the message passed, if it was
    /// sent so: the server has checked it.
    pub fence: Option<(Vec<u8>, Token)>,
    /// What it says.
    pub payload: Vec<u8>,
}

/// A name and one that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The name.
    pub name: Vec<u8>,
    /// Its owner's session.
    pub session: SessionId,
    /// The token of the grant.
    pub token: Token,
}

/// What has become of a watched name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It has a new holder.
    Acquired,
    /// A holder has it no longer.
    Released,
    /// Its metadata has this version now.
    Changed(u32),
    /// So many wait for it now.
    Waiting(u32),
}

/// A change of a watched name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The name, and the holder that the change is about.
    pub owned: Owned,
    /// What has become of it.
    pub kind: ChangeKind,
    /// An earlier change of the name was left out.
    pub skipped: bool,
    /// Of a release: others hold the name still, it is not free.
    pub shared: bool,
    /// Where in the shard's history it stands.
    pub at: CursorAt,
}

impl Notice {
    /// Decodes one notice of a push frame; `None` if a known one has the wrong length.
    pub(crate) fn parse(raw: RawOp<'_>) -> Option<Notice> {
        let mut reader = Reader::new(raw.body);
        let read = match raw.code {
            push::SESSION_ENDED | push::SESSION_MOVED => read_session,
            push::LANE_MOVED | push::PROTOCOL_ERROR => read_session,
            push::GRANTED | push::WAIT_ENDED | push::RECEIVED | push::LOST => read_claim,
            push::MESSAGE => read_message,
            push::EVENT => read_change,
            push::STATE | push::SNAPSHOT_END | push::GAP => read_snapshot,
            other => return Some(Notice::Unknown(other)),
        };
        let notice = read(raw.code, &mut reader).ok()?;
        reader.is_empty().then_some(notice)
    }
}

fn read_session(code: u8, reader: &mut Reader<'_>) -> Result<Notice, Truncated> {
    Ok(match code {
        push::SESSION_ENDED => {
            let session = SessionId(reader.u64()?);
            Notice::SessionEnded { session, reason: end_reason(reader.u8()?) }
        }
        push::SESSION_MOVED => Notice::SessionMoved { session: SessionId(reader.u64()?) },
        push::LANE_MOVED => Notice::LaneMoved { number: reader.u32()? },
        _ => Notice::ProtocolError,
    })
}

fn read_claim(code: u8, reader: &mut Reader<'_>) -> Result<Notice, Truncated> {
    let first = reader.u64()?;
    Ok(match code {
        push::GRANTED => Notice::Granted {
            ticket: Ticket(first),
            token: Token(reader.u64()?),
            mode: read_mode(reader.u8()?, 0),
            name: read_rest(reader)?,
        },
        push::WAIT_ENDED => {
            let reason = match reader.u8()? {
                1 => WaitEnd::TimeOver,
                other => WaitEnd::Unknown(other),
            };
            Notice::WaitEnded { ticket: Ticket(first), reason, name: read_rest(reader)? }
        }
        push::RECEIVED => Notice::Received {
            token: Token(first),
            from: some_session(reader.u64()?),
            name: read_rest(reader)?,
        },
        _ => Notice::Lost {
            token: Token(first),
            to: some_session(reader.u64()?),
            reason: match reader.u8()? {
                1 => LossReason::Transferred,
                2 => LossReason::Revoked,
                other => LossReason::Unknown(other),
            },
            name: read_rest(reader)?,
        },
    })
}

fn read_message(_: u8, reader: &mut Reader<'_>) -> Result<Notice, Truncated> {
    let flags = reader.u8()?;
    let from = SessionId(reader.u64()?);
    let target = reader.short_bytes()?.to_vec();
    let to = if flags & push::MESSAGE_BROADCAST != 0 {
        Addressee::All
    } else if flags & push::MESSAGE_TO_SESSION != 0 {
        Addressee::Session
    } else {
        Addressee::Name(target)
    };
    let fence = if flags & push::MESSAGE_FENCED != 0 {
        Some((reader.short_bytes()?.to_vec(), Token(reader.u64()?)))
    } else {
        None
    };
    Ok(Notice::Message(Message { from, to, fence, payload: read_rest(reader)? }))
}

fn read_change(_: u8, reader: &mut Reader<'_>) -> Result<Notice, Truncated> {
    let watch = WatchId(reader.u32()?);
    let shard = ShardId(reader.u8()?);
    let (flags, kind) = (reader.u8()?, reader.u8()?);
    let at = CursorAt { shard, epoch: Epoch(reader.u32()?), sequence: reader.u64()? };
    let (session, token) = (SessionId(reader.u64()?), Token(reader.u64()?));
    let owned = Owned { name: reader.short_bytes()?.to_vec(), session, token };
    let kind = match kind {
        push::KIND_ACQUIRED => ChangeKind::Acquired,
        push::KIND_RELEASED => ChangeKind::Released,
        push::KIND_CHANGED => ChangeKind::Changed(reader.u32()?),
        push::KIND_WAITING => ChangeKind::Waiting(reader.u32()?),
        // Kinds are asked for by their bit, so nobody sends one that we do not know.
        _ => return Err(Truncated),
    };
    let skipped = flags & push::EVENT_SKIPPED != 0;
    let shared = flags & push::EVENT_SHARED != 0;
    Ok(Notice::Change { watch, change: Change { owned, kind, skipped, shared, at } })
}

fn read_snapshot(code: u8, reader: &mut Reader<'_>) -> Result<Notice, Truncated> {
    let watch = WatchId(reader.u32()?);
    Ok(match code {
        push::STATE => {
            let shard = ShardId(reader.u8()?);
            let (session, token) = (SessionId(reader.u64()?), Token(reader.u64()?));
            Notice::State {
                watch,
                shard,
                owned: Owned { name: read_rest(reader)?, session, token },
            }
        }
        push::SNAPSHOT_END => Notice::SnapshotEnd(watch),
        _ => Notice::Gap(watch),
    })
}

fn read_rest(reader: &mut Reader<'_>) -> Result<Vec<u8>, Truncated> {
    let len = reader.rest().len();
    reader.bytes(len).map(<[u8]>::to_vec)
}

fn some_session(bits: u64) -> Option<SessionId> {
    (bits != 0).then_some(SessionId(bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(code: u8, body: &[u8]) -> Option<Notice> {
        Notice::parse(RawOp { code, flags: 0, body })
    }

    /// Each notice from bytes written by hand from the documents.
    #[test]
    fn notices_are_as_documented() {
        let granted = parse(0x10, b"\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x01n");
        let (ticket, name) = (Ticket(5), b"n".to_vec());
        let mode = Mode::Shared;
        let expected = Notice::Granted { name: name.clone(), ticket, token: Token(6), mode };
        assert_eq!(granted, Some(expected));
        let lost = parse(0x13, b"\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02n");
        let reason = LossReason::Revoked;
        assert_eq!(lost, Some(Notice::Lost { name, token: Token(5), to: None, reason }));
        let message = parse(0x20, b"\x01\x07\0\0\0\0\0\0\0\x03you\x02me\x09\0\0\0\0\0\0\0hi");
        let expected = Message {
            from: SessionId(7),
            to: Addressee::Name(b"you".to_vec()),
            fence: Some((b"me".to_vec(), Token(9))),
            payload: b"hi".to_vec(),
        };
        assert_eq!(message, Some(Notice::Message(expected)));
        let mut event = b"\x05\0\0\0\x02\x01\x03\x01\0\0\0\x09\0\0\0\0\0\0\0".to_vec();
        event.extend_from_slice(b"\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x01n\x04\0\0\0");
        let change = Change {
            owned: Owned { name: b"n".to_vec(), session: SessionId(7), token: Token(8) },
            kind: ChangeKind::Changed(4),
            skipped: true,
            shared: false,
            at: CursorAt { shard: ShardId(2), epoch: Epoch(1), sequence: 9 },
        };
        assert_eq!(parse(0x30, &event), Some(Notice::Change { watch: WatchId(5), change }));
        assert_eq!(parse(0x30, &event[..event.len() - 1]), None, "a version of three bytes");
        let mut release = b"\x05\0\0\0\x02\x02\x02\x01\0\0\0\x09\0\0\0\0\0\0\0".to_vec();
        release.extend_from_slice(b"\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x01n");
        let Some(Notice::Change { change, .. }) = parse(0x30, &release) else { panic!("a change") };
        let told = (change.kind, change.skipped, change.shared);
        assert_eq!(told, (ChangeKind::Released, false, true), "others hold it still");
        assert_eq!(parse(0x14, b"\x05\0\0\0"), Some(Notice::LaneMoved { number: 5 }));
        assert_eq!(parse(0x33, b"\x05\0\0\0"), Some(Notice::Gap(WatchId(5))));
    }

    proptest! {
        /// A hostile server cannot crash its clients.
        #[test]
        fn no_bytes_panic(
            code in 0u8..0x40,
            bytes in proptest::collection::vec(any::<u8>(), 0..99),
        ) {
            let _ = parse(code, &bytes);
        }
    }
}
