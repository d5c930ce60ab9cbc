//! The object table of one shard: names to owners and tokens, a hundred million of them.
//!
//! A name of up to 16 bytes costs 28 bytes of record, 7.2 to 7.6 of index and 4.3 to 9 of its
//! owner's log, whatever the number of names: nothing here ever doubles. A look-up touches one
//! line of the index (one in ten: two) and one record, and in batches all of them are in flight at
//! once: hash all, prefetch all, execute all.
//!
//! The parts, each in its module:
//! - `name`, `hash`: a name as two words and a length; SipHash-1-3 under a secret of the process.
//! - `pool`: blocks of one size in a region, handed out and taken back.
//! - `record`: what is kept of a name; `arena` keeps the bytes that do not fit into a record.
//! - `index`: from a hash to records; 64-byte lines, grown by linear hashing one line at a time.
//! - `log`: which records an owner has, so that all can be released when it ends.
//! - `table`: the operations, built from these.
//!
//! What always holds, and `Table::check` verifies:
//! - T1  A record that is in use is in the index exactly once, where its name's hash leads.
//! - T2  A record that is in use is in its owner's log; a log may hold stale entries besides.
//! - T3  An operation that answers [`Full`] has changed nothing.
//!
//! Bounds: every operation takes constant time, but for the length of the name; `sweep`, `walk`
//! and `maintain` take a budget. Nothing is allocated outside the regions given at start.
//! Not here: who may register what, when sessions end, waiting, watching (`coord/proto`).
//! Tests: stories in each module; `tests.rs` holds the table against a plain map.

#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;

mod arena;
mod hash;
mod index;
mod log;
mod name;
mod pool;
mod prefetch;
mod record;
mod table;

#[cfg(test)]
mod tests;

pub use hash::{HashKey, hash, hash4};
pub use log::OwnerLog;
pub use name::Name;
pub use prefetch::prefetch_line;
pub use record::{Grant, Owner, RecordId};
pub use table::{RecordCursor, Regions, Table, TableBytes};

use core::fmt;

use ringway_core::RegionFull;

/// A region could not grow: the memory limit of the process, or a bound of the table, is reached.
/// Nothing has changed. Names that are released make room again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the table is full: release names, or raise the memory limit")
    }
}

impl core::error::Error for Full {}

impl From<RegionFull> for Full {
    fn from(_: RegionFull) -> Self {
        Full
    }
}
