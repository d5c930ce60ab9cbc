//! Watches: who wants to hear of changes of names, and how it reaches them.
//!
//! A watch belongs to a connection. It names a *filter*: a whole name, or a beginning of names that
//! ends with `/`. Two machines carry a change to its watchers:
//! - [`feed`] at the shard that has the names: one `Feed` a filter, for all watchers of all shards.
//!   A change is written down once for each filter that covers it, and sent once to each shard
//!   that has watchers.
//! - [`topic`] at the shard that has the connections: one `Topic` a filter, with a log of its own
//!   and its watchers, each with a place in that log and nothing else.
//!
//! Both keep their changes in a [`log`] that holds the newest of each name. So who reads slowly
//! costs nothing but the log that is there anyway: it goes on from its place when it has read, and
//! hears the newest of every name, or that the log has moved on (`GAP`).
//!
//! What always holds:
//! - W1  Of one name and one class of changes (see [`event::Kind`]) a watcher hears in the order in
//!   which they happened, and never of an earlier one after a later one.
//! - W2  A watcher that hears `GAP` neither at its start nor later has heard the newest change of
//!   every name that changed since.
//! - W3  `STATE`s and `EVENT`s applied in the order in which they came are, at `SNAPSHOT_END`, the
//!   names of each shard at one moment: a page is read and compared with the table in one step,
//!   and travels behind all changes of before, ahead of all after.
//! - W4  Nobody waits for a watcher. One with more than its budget unread is passed over.
//!
//! Bounds: constants below. Not here: what a change is (`names`), bytes on their way (`memory`).
//! Tests: `stories.rs`, both machines against what is true in `model.rs`, whole shards in
//! `coord/proto/tests/watches.rs`; cost: `coord/proto/examples/watching.rs`.

pub mod event;
pub mod feed;
mod letters;
pub mod log;
pub mod mails;
#[cfg(test)]
mod model;
mod serve;
#[cfg(test)]
mod stories;
mod tell;
pub mod topic;

pub use letters::Letters;
use ringway_core::limits::CONN_OUT_HIGH;
use ringway_core::{ShardId, Slot, Span};
pub(crate) use serve::{PageAsk, Watching};

use crate::placement::SlotMap;

/// Watches of one connection; one beyond is `FULL`.
pub const WATCHES_PER_CONN_MAX: usize = 4096;
/// Unread bytes of a connection beyond which a watch of it waits, unless it asks for others.
pub const BUDGET_DEFAULT: u32 = 64 * 1024;
/// The least that may be asked for, and what is given to who asks for less.
pub const BUDGET_MIN: u32 = 4 * 1024;
/// The most.
pub const BUDGET_MAX: u32 = (CONN_OUT_HIGH / 2) as u32;
/// Bytes of the changes that one log keeps. The oldest go first, and whoever has not read them by
/// then hears `GAP`.
pub const LOG_BYTES_MAX: usize = 256 * 1024;
/// The part of a shard's memory for buffers that feeds, topics and watchers may have together, half
/// for feeds and half for the others. Beyond it a watch is `FULL`, and logs keep less.
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

/// Where something stands that may be gone by the time this is used: a place and its generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ref {
    /// The place.
    pub index: u32,
    /// Counts what has been at this place.
    pub generation: u32,
}

/// Whether a filter is a beginning of names rather than a name.
#[inline]
pub fn is_prefix(filter: &[u8]) -> bool {
    filter.last() == Some(&b'/')
}

/// The shards that may have names of a filter: one for a name, and for a prefix that holds a whole
/// `{tag}`, since then all its names are in the tag's slot.
pub fn sources(filter: &[u8], map: &SlotMap) -> (usize, usize) {
    if is_prefix(filter) && !has_tag(filter) {
        return (0, map.shards());
    }
    let shard = map.shard_of(Slot::of(filter)).index();
    (shard, shard + 1)
}

/// Whether the slot of every name that begins so is decided.
fn has_tag(prefix: &[u8]) -> bool {
    let Some(open) = prefix.iter().position(|byte| *byte == b'{') else { return false };
    prefix[open + 1..].iter().position(|byte| *byte == b'}').is_some_and(|close| close > 0)
}

/// All shards that a range of numbers stands for.
pub(crate) fn shards((first, end): (usize, usize)) -> impl Iterator<Item = ShardId> {
    (first..end).map(|shard| ShardId(shard as u8))
}
