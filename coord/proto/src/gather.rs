//! Answers that need every shard: the names of a session are counted where they live.
//!
//! Bounds: at most [`GATHERS_MAX`] at a time; one beyond that is answered `BUSY`.

use alloc::vec::Vec;

use crate::handle::Bound;
use crate::sessions::{RECORD_NAMES_AT, Ticket};

/// Gathers of one shard at a time.
pub const GATHERS_MAX: usize = 256;
/// Bytes of one, at most: a page of sessions and where its records stand.
pub const GATHER_BYTES: usize = 128 * 1024;

/// One answer that is being put together.
pub struct Gather {
    /// Where it goes.
    pub ticket: Ticket,
    /// The answer so far.
    pub data: Vec<u8>,
    /// Where the records stand in it, one a session.
    pub records: Vec<u32>,
    /// Shards that have not counted yet.
    pub missing: usize,
}

impl Gather {
    /// Adds a count to the record of session `index`.
    pub fn add(&mut self, index: usize, names: u64) {
        let at = self.records[index] as usize + RECORD_NAMES_AT;
        let field = self.data[at..at + 8].first_chunk_mut::<8>().expect("8 bytes");
        *field = (u64::from_le_bytes(*field) + names).to_le_bytes();
    }
}

/// All that are under way.
#[derive(Default)]
pub struct Gathers {
    slots: Vec<Option<Gather>>,
    under_way: usize,
}

impl Gathers {
    /// Starts one; gives it back if there are too many.
    pub fn begin(&mut self, gather: Gather) -> Result<u32, Gather> {
        let free = self.slots.iter().position(Option::is_none);
        let index = match free {
            Some(index) => index,
            None if self.slots.len() < GATHERS_MAX => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return Err(gather),
        };
        self.slots[index] = Some(gather);
        self.under_way += 1;
        Ok(index as u32)
    }

    /// How many are under way.
    pub const fn under_way(&self) -> usize {
        self.under_way
    }

    /// One under way.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Gather> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    /// Ends one.
    pub fn take(&mut self, index: u32) -> Option<Gather> {
        let gather = self.slots.get_mut(index as usize)?.take()?;
        self.under_way -= 1;
        Some(gather)
    }
}

/// Where each record starts in a run of session records.
pub fn record_starts(records: &[u8], base: usize, sessions: &[Bound]) -> Vec<u32> {
    let mut at = 0;
    let mut starts = Vec::with_capacity(sessions.len());
    for _ in sessions {
        starts.push((base + at) as u32);
        let address = at + RECORD_FIXED_BYTES;
        let metadata = address + 1 + usize::from(records[address]);
        let len = u16::from_le_bytes([records[metadata], records[metadata + 1]]);
        at = metadata + 2 + usize::from(len);
    }
    starts
}

/// Bytes of a session record before its address.
pub const RECORD_FIXED_BYTES: usize = 33;
