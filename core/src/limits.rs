//! Every bound of the service, once. Memory is computed from these; parts that must agree are
//! checked against each other at compile time.

use crate::time::Span;

/// Bytes in a name, at most; at least one.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a name that a table record holds inline; longer names go to an arena.
pub const NAME_BYTES_INLINE: usize = 16;
/// Operations in one native frame, and operations of one connection that are executed at a stretch.
pub const FRAME_OPS_MAX: usize = 4096;
/// Bytes of one native frame, header included.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one RESP bulk string that a command may carry.
pub const RESP_BULK_BYTES_MAX: usize = 64 * 1024;
/// Arguments of one RESP command.
pub const RESP_ARGS_MAX: usize = FRAME_OPS_MAX + 8;
/// Bytes of one RESP command, all arguments and framing together.
pub const RESP_COMMAND_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of an inline RESP command (one typed by hand through telnet).
pub const RESP_INLINE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the value of a `SET` lock, which is its owner's secret.
pub const VALUE_BYTES_MAX: usize = 512;
/// Bytes of a session's advertised address.
pub const ADDRESS_BYTES_MAX: usize = 255;
/// Bytes of a session's metadata.
pub const METADATA_BYTES_MAX: usize = 256;

/// Bytes of a name's metadata.
pub const NAME_META_BYTES_MAX: usize = 256;
/// How many may hold a counting name at once.
pub const PERMITS_MAX: u32 = 65_536;

/// Bytes of one message's payload.
pub const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// A connection that has left more than this unread gets no messages; less while memory is short.
pub const RECEIVER_BYTES: usize = 256 * 1024;
/// Holders of a shared name that one message goes to; one for more is `BUSY`.
pub const MESSAGE_HOLDERS_MAX: usize = 1024;
/// Bytes of notices that one message may become: a payload times the holders of a shared name.
pub const MESSAGE_FAN_OUT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of notices that one shard may have under way to all shards, on each part of the way. With
/// little memory less: a quarter of that for buffers.
pub const MESSAGES_UNDER_WAY_MAX: usize = 16 * 1024 * 1024;
/// Messages to every session that a server has under way at once.
pub const BROADCASTS_MAX: usize = 4;

/// Bounds of watches.
pub mod watch {
    use super::CONN_OUT_HIGH;
    use crate::time::Span;

    /// Watches of one connection; one beyond is `FULL`.
    pub const WATCHES_PER_CONN_MAX: usize = 4096;
    /// Unread bytes of a connection beyond which a watch of it waits, unless it asks for others.
    pub const BUDGET_DEFAULT: u32 = 64 * 1024;
    /// The least that may be asked for, and what is given to who asks for less.
    pub const BUDGET_MIN: u32 = 4 * 1024;
    /// The most.
    pub const BUDGET_MAX: u32 = (CONN_OUT_HIGH / 2) as u32;
    /// Bytes of the changes that one log keeps. The oldest go first, and whoever has not read them
    /// by then hears `GAP`.
    pub const LOG_BYTES_MAX: usize = 256 * 1024;
    /// The part of a shard's memory for buffers that feeds, topics and watchers may have together,
    /// half for feeds and half for the others. Beyond it a watch is `FULL`, and logs keep less.
    pub const BYTES_PART: usize = 4;
    /// How long a feed without subscribers goes on, so that whoever lost its connection can resume.
    pub const LINGER: Span = Span::from_s(60);
    /// Watchers that one turn looks at. Most need a send of their own, which costs the kernel
    /// microseconds.
    pub const WATCHERS_PER_TURN: usize = 512;
    /// Bytes that one turn writes to watchers.
    pub const BYTES_PER_TURN: usize = 1024 * 1024;
    /// Bytes of changes on their way from a feed to a shard that has not said it took them.
    pub const WINDOW: usize = 256 * 1024;
    /// Snapshots of prefixes that one shard has under way for its watchers.
    pub const SNAPSHOTS_MAX: usize = 4;
    /// Pages of snapshots that one shard puts together at a time, for whichever shard.
    pub const PAGES_MAX: usize = 8;
    /// Names in one page of a snapshot.
    pub const PAGE_NAMES: usize = 1024;
}

/// Bounds of UDP sockets.
pub mod datagrams {
    /// UDP sockets that a service may have on one shard.
    pub const SOCKETS_PER_SHARD_MAX: usize = 256;
    /// Bytes of trains that wait for room in one socket, or for the end of the turn; beyond it
    /// nothing more is taken.
    pub const BACKLOG_MAX: usize = 4 * 1024 * 1024;
    /// Bytes of buffers for trains that a service keeps on one shard to use again.
    pub const SPARE_BYTES_MAX: usize = 2 * 1024 * 1024;
}

/// Shards of one process.
pub const SHARDS_MAX: usize = 128;
/// Connections of one shard.
pub const CONNS_PER_SHARD_MAX: usize = 1 << 20;
/// Sessions whose home is one shard.
pub const SESSIONS_PER_SHARD_MAX: usize = 1 << 24;
/// Names of one shard: record ids are 32 bits, the all-ones id means none.
pub const NAMES_PER_SHARD_MAX: usize = (1 << 32) - 2;

/// Bytes of replies that may wait for one connection's reader before it is no longer read.
pub const CONN_OUT_HIGH: usize = 1024 * 1024;
/// Below this many waiting bytes it is read again.
pub const CONN_OUT_LOW: usize = 256 * 1024;
/// Bytes received but not yet executed that one connection may hold: one command and a buffer.
pub const CONN_IN_MAX: usize = 2 * RESP_COMMAND_BYTES_MAX;

/// Bytes that a connection may still send after it was told that it will be closed. They are read
/// and discarded, so that a peer that writes before it reads hears why; further ones are not read.
pub const DISCARD_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of one native frame, or of one RESP command, before authentication. `AUTH` with the
/// longest user and password fits several times.
pub const UNKNOWN_IN_MAX: usize = 4 * 1024;
/// Bytes of replies that may wait for a connection that has not authenticated.
pub const UNKNOWN_OUT_MAX: usize = 16 * 1024;
/// How long a connection may take to authenticate.
pub const AUTH_WITHIN: Span = Span::from_s(10);

/// Bytes that the buffers of all connections of one shard may have together, at the least; a
/// larger `max_memory` gives more. Two of the largest commands fit, with room to grow.
pub const SHARD_BUFFERS_MIN: usize = 4 * RESP_COMMAND_BYTES_MAX;
/// Of that, what a shard keeps to use again, at most: a 16th, and never more than this.
pub const SPARE_BUFFERS_MAX: usize = 4 * 1024 * 1024;
/// The largest of those buffers, unless a service that sends in bulk asks for more.
pub const SPARE_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Ops that are executed together; more of one turn are executed in several batches.
pub const BATCH_OPS_MAX: usize = 2 * FRAME_OPS_MAX;
/// Ops that one turn takes up; who has a backlog of input, or wants ops served by themselves, then
/// waits for the next. A frame without any counts as one, an op that is served by itself as
/// [`SERVED_OP_COST`], and a text as one for each [`TEXT_BYTES_PER_OP`].
pub const BACKLOG_OPS_PER_TURN: usize = 16 * FRAME_OPS_MAX;
/// What an op that is served by itself costs (sessions, lists, authentication: all but those on
/// names and renewals), in ops on names. So 64 of a connection at a stretch.
pub const SERVED_OP_COST: usize = FRAME_OPS_MAX / 64;
/// Bytes of a reply that cost as much as an op on a name, where a command asks for text: `INFO`.
pub const TEXT_BYTES_PER_OP: usize = 64;

/// Bytes of one mailbox between two shards, one way. A power of two.
pub const MAILBOX_BYTES: usize = 1024 * 1024;
/// Bytes of the note that goes along when a connection is given to another shard.
pub const GIVE_NOTE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one message in a mailbox, at most: a forwarded frame grows by 8 bytes an op.
pub const MAIL_BYTES_MAX: usize = MAILBOX_BYTES / 2;

/// The shortest lease outside profile `lan`.
pub const LEASE_MIN: Span = Span::from_ms(100);
/// The shortest lease in profile `lan`.
pub const LEASE_MIN_LAN: Span = Span::from_ms(10);
/// The longest lease unless configured otherwise.
pub const LEASE_MAX_DEFAULT: Span = Span::from_s(30);
/// The lease of a session that did not ask for one.
pub const LEASE_DEFAULT: Span = Span::from_s(10);
/// Lease time advances by at most this much in one turn: a stalled server expires nobody.
pub const LEASE_STEP_MAX: Span = Span::from_ms(5);
/// Names of ended sessions released in one turn.
pub const SWEEP_NAMES_PER_TURN: usize = 2048;
/// Sessions ended by expiry in one turn.
pub const EXPIRIES_PER_TURN: usize = 1024;

const _: () = assert!(MAILBOX_BYTES.is_power_of_two());
const _: () = assert!(
    FRAME_BYTES_MAX + 8 * FRAME_OPS_MAX + 64 <= MAIL_BYTES_MAX,
    "a whole frame can be forwarded"
);
const _: () = assert!(CONN_OUT_LOW < CONN_OUT_HIGH);
const _: () = assert!(MESSAGE_BYTES_MAX + 2 * NAME_BYTES_MAX + 64 <= 0xFFFF, "a notice's length");
const _: () = assert!(RECEIVER_BYTES < CONN_OUT_HIGH, "messages alone stop nobody's parsing");
const _: () = assert!(FRAME_BYTES_MAX < CONN_IN_MAX);
const _: () = assert!(UNKNOWN_IN_MAX < FRAME_BYTES_MAX && UNKNOWN_OUT_MAX < CONN_OUT_LOW);
const _: () = assert!(CONN_IN_MAX <= SHARD_BUFFERS_MIN, "one command always finds room");
const _: () = assert!(LEASE_MIN_LAN.0 <= LEASE_MIN.0 && LEASE_MIN.0 <= LEASE_MAX_DEFAULT.0);
