//! What the session machine wants done outside of it, and whom it is about.
//!
//! Acts are carried out in their order, by `post`; nothing is decided here.

use ringway_core::{ConnId, SessionId, ShardId, Span};

use crate::handle::Bound;
use crate::outcome::Answer;

/// A connection of any shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnRef {
    /// The shard that holds it.
    pub shard: ShardId,
    /// The connection there.
    pub conn: ConnId,
}

/// Where the answer to a request goes: one op of one pending unit of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The shard that waits.
    pub shard: ShardId,
    /// Its pending unit.
    pub pending: u32,
    /// The generation of that index.
    pub generation: u32,
    /// The op in the unit.
    pub index: u16,
}

/// Why a session ended, as it is told to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its lease ran out.
    Expired = 1,
    /// Its node opened a new one.
    Replaced = 2,
    /// An operator ended it.
    Killed = 3,
    /// Its client closed it, or its only connection did.
    Closed = 4,
}

/// What has to happen outside this machine, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Act {
    /// Every shard learns of the session; those but this one acknowledge.
    Attach(Bound),
    /// The session's names are to be freed, and it is to be reported when all are swept.
    End {
        /// The session.
        bound: Bound,
        /// By every shard; or only by this one, for a lock.
        everywhere: bool,
        /// Whether the other shards are to say when they know.
        acknowledge: bool,
    },
    /// An answer to a request.
    Answer(Ticket, Answer),
    /// An answer that also binds the asking connection to the session.
    Bind {
        /// Who asked.
        ticket: Ticket,
        /// The session.
        bound: Bound,
        /// Whether it ends with the connection.
        bare: bool,
        /// The answer.
        answer: Answer,
    },
    /// A notice for a connection.
    Push {
        /// The connection.
        to: ConnRef,
        /// A code of `wire::push`.
        code: u8,
        /// The session that it is about.
        session: SessionId,
        /// An [`Ended`], or zero.
        reason: u8,
        /// Whether the connection is closed behind it.
        close: bool,
    },
    /// The state directory has to allow leases this long before they are granted.
    RaiseLease(Span),
}
