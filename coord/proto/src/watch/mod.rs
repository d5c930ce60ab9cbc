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
//! Bounds: `limits::watch`. Not here: what a change is (`names`), bytes on their way (`memory`).
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
mod watcher;

pub use letters::Letters;
use ringway_core::{ShardId, Slot};
pub(crate) use serve::{PageAsk, Watching};

use crate::placement::SlotMap;

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
