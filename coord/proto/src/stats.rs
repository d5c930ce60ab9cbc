//! What a shard counts. Plain numbers: the shell publishes them once a turn.

use crate::op_code;
use crate::wire::{op, status};

/// The verbs that are counted one by one. A RESP command counts as the verb that it means.
pub const VERBS: [&str; 17] = [
    "query", "register", "release", "open", "renew", "close", "attach", "sessions", "kill", "list",
    "ping", "wait", "meta", "transfer", "server", "send", "watch",
];

/// The verb of an op code, as an index into [`VERBS`].
#[inline]
pub const fn verb_index(code: u8) -> usize {
    match code {
        op::QUERY | op_code::LOCK_GET | op_code::LOCK_LEFT => 0,
        op::REGISTER | op_code::LOCK_SET | op_code::LOCK_SET_OR_EXPIRE => 1,
        op::RELEASE | op_code::LOCK_DEL | op_code::LOCK_DEL_IF => 2,
        op::OPEN => 3,
        op::RENEW | op_code::LOCK_EXPIRE | op_code::LOCK_EXPIRE_IF | op_code::LOCK_EXTEND_IF => 4,
        op::CLOSE => 5,
        op::ATTACH => 6,
        op::SESSION | op::NODE | op::SESSIONS => 7,
        op::KILL => 8,
        op::LIST | op::WAITERS | op::WAITS | op_code::SLOT_COUNT => 9,
        op::PING => 10,
        op::WAIT | op::CANCEL => 11,
        op::META | op::SET_META => 12,
        op::TRANSFER | op::REVOKE => 13,
        op::SEND | op::BROADCAST => 15,
        op::WATCH | op::UNWATCH | op_code::WATCH_FILTER => 16,
        _ => 14,
    }
}

/// Whether an op that another shard serves counts as forwarded: a client that knows the map would
/// have sent it there. Who asks a shard for its own numbers could not, and must not change them.
#[inline]
pub const fn is_forwarded_by_slot(code: u8) -> bool {
    code != op::SHARD_STATS
}

/// Refusals that are told apart: errors by their number, and the two refusals that carry more than
/// a status.
pub const REFUSALS: usize = 32;

/// Where `HELD` is counted, and behind it `STARTING`.
const HELD_AT: usize = REFUSALS - 2;
/// Behind the last error that has a place.
const ERRORS_END: u8 = 0xC0 + HELD_AT as u8;

/// Where a refusal is counted; `None` if the status is none.
#[inline]
pub const fn refusal_index(code: u8) -> Option<usize> {
    match code {
        status::HELD => Some(HELD_AT),
        status::STARTING => Some(HELD_AT + 1),
        0xC0..ERRORS_END => Some((code - 0xC0) as usize),
        _ => None,
    }
}

/// The status that is counted at a place.
pub const fn refusal_status(index: usize) -> u8 {
    match index {
        HELD_AT => status::HELD,
        index if index > HELD_AT => status::STARTING,
        error => 0xC0 + error as u8,
    }
}

/// Counters since the start, and a few maxima.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Ops refused, see [`refusal_index`].
    pub refused: Refused,
    /// Ops executed here, by verb.
    pub verbs: [u64; VERBS.len()],
    /// Turns.
    pub turns: u64,
    /// The most ops that one turn took up, as [`ringway_core::limits`] weighs them.
    pub turn_ops_max: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Ops sent to other shards.
    pub forwarded_out: u64,
    /// Ops that came from other shards.
    pub forwarded_in: u64,
    /// Connections closed because their bytes could not be followed.
    pub protocol_errors: u64,
    /// Times a connection was no longer read because it did not read.
    pub blocked_readers: u64,
    /// Times a connection had to wait because other shards were behind.
    pub waits_for_shards: u64,
    /// Times a connection had to wait because the memory for buffers was spent.
    pub waits_for_memory: u64,
    /// Connections closed at once because they held most of the memory for buffers.
    pub cut_for_memory: u64,
    /// Connections closed because they did not authenticate in time.
    pub auth_timeouts: u64,
    /// Bytes of buffers at the end of the last turn.
    pub buffer_bytes: u64,
    /// Records of ended sessions released.
    pub swept: u64,
    /// Failed authentications.
    pub auth_failures: u64,
    /// Notices whose connection was gone.
    pub pushes_dropped: u64,
    /// Notices for sessions that were away.
    pub notices_away: u64,
    /// Notices that watches have written.
    pub watch_notices: u64,
    /// Times that a watch could not be told everything.
    pub watch_gaps: u64,
    /// Times that a watch had to wait because its connection did not read.
    pub watchers_passed_over: u64,
    /// Changes that were dropped for want of room before everybody had heard of them.
    pub watch_changes_dropped: u64,
    /// What became of messages; each is counted where that was decided.
    pub messages: Messages,
}

/// What became of messages, each once for every session that it was for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// Put into the output of the receiving connection.
    pub delivered: u64,
    /// Nobody owned the name.
    pub unowned: u64,
    /// The session had no connection that could hear it.
    pub away: u64,
    /// The connection had too much unread, or accepts no frame of this size.
    pub full: u64,
    /// The sender did not hold the source name under its token.
    pub fenced: u64,
    /// Too much was under way to the receiver's shard.
    pub busy: u64,
}

impl Messages {
    /// Counts messages by the status that says what became of them.
    #[inline]
    pub fn count(&mut self, status: u8, messages: u64) {
        let place = match status {
            status::OK => &mut self.delivered,
            status::FREE => &mut self.unowned,
            status::AWAY => &mut self.away,
            status::RECEIVER_FULL => &mut self.full,
            status::FENCED => &mut self.fenced,
            status::BUSY => &mut self.busy,
            _ => return,
        };
        *place += messages;
    }
}

/// Counts of refusals by [`refusal_index`].
#[derive(Clone, Copy, Debug)]
pub struct Refused(pub [u64; REFUSALS]);

impl Default for Refused {
    fn default() -> Self {
        Self([0; REFUSALS])
    }
}

impl Refused {
    /// Counts an outcome's status if it is a refusal.
    #[inline]
    pub fn count(&mut self, code: u8) {
        if let Some(index) = refusal_index(code) {
            self.0[index] += 1;
        }
    }
}
