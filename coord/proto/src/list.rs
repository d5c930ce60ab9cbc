//! Lists of names: a page at a time, by slot, within a slot by name.
//!
//! The table is not ordered, and keeping it so would cost every name bytes that only lists need.
//! A page is one walk over the shard's records in slices, which keeps the smallest names behind
//! the cursor in a bounded heap. Every name that lives throughout the walk and belongs to the page
//! is in it.
//!
//! Cost: a page of any size costs one walk, about 20 ns a record; big pages are cheaper per name.
//! Bounds: [`JOBS_MAX`] walks at a time, [`STEP_RECORDS`] records a turn, a page of at most
//! [`PAGE_BYTES_MAX`] bytes.

use alloc::collections::BinaryHeap;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use ringway_core::wire::Put;
use ringway_core::{Region, SessionId, Slot, Token};
use ringway_table::RecordCursor;

use crate::access::Access;
use crate::env::Env;
use crate::outcome::Answer;
use crate::sessions::Ticket;
use crate::shard::Shard;

/// Walks of one shard at a time; one beyond that is answered `BUSY`.
pub const JOBS_MAX: usize = 64;
/// Records that all walks together visit in one turn.
pub const STEP_RECORDS: usize = 16 * 1024;
/// Bytes of a page.
pub const PAGE_BYTES_MAX: usize = 96 * 1024;
/// Bytes of one walk, at most: its page, and the names it has found in a heap of 4096.
pub const JOB_BYTES: usize = 512 * 1024;

/// What was asked.
#[derive(Clone, Debug)]
pub struct ListAsk {
    /// The first slot of the page.
    pub slot: u16,
    /// The last slot of the shard.
    pub slot_last: u16,
    /// Within the first slot, only names after this one.
    pub after: Vec<u8>,
    /// Only names that begin so.
    pub prefix: Vec<u8>,
    /// At most so many.
    pub most: usize,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    slot: u16,
    name: Vec<u8>,
    session: SessionId,
    token: Token,
}

struct Job {
    ticket: Ticket,
    ask: ListAsk,
    at: RecordCursor,
    found: BinaryHeap<Entry>,
    bytes: usize,
}

/// The walks of one shard, served in turn.
#[derive(Default)]
pub struct ListJobs {
    jobs: VecDeque<Job>,
}

impl ListJobs {
    /// Starts a walk, unless there are too many.
    pub fn begin(&mut self, ticket: Ticket, ask: ListAsk) -> bool {
        if self.jobs.len() >= JOBS_MAX {
            return false;
        }
        let job =
            Job { ticket, ask, at: RecordCursor::default(), found: BinaryHeap::new(), bytes: 0 };
        self.jobs.push_back(job);
        true
    }

    /// Walks under way.
    pub fn under_way(&self) -> usize {
        self.jobs.len()
    }

    /// Whether any walk is under way.
    pub fn is_active(&self) -> bool {
        !self.jobs.is_empty()
    }
}

impl Job {
    fn visit(&mut self, name: &[u8], session: SessionId, token: Token) {
        if !name.starts_with(&self.ask.prefix) {
            return;
        }
        let slot = Slot::of(name).number();
        let behind = (slot, name) > (self.ask.slot, self.ask.after.as_slice());
        let first = slot == self.ask.slot && self.ask.after.is_empty();
        if !(behind || first) || slot > self.ask.slot_last {
            return;
        }
        let full = self.found.len() >= self.ask.most || self.bytes >= PAGE_BYTES_MAX;
        let largest = self.found.peek().map(|entry| (entry.slot, entry.name.as_slice()));
        if full && largest.is_some_and(|largest| (slot, name) > largest) {
            return;
        }
        self.bytes += ENTRY_BYTES + name.len();
        self.found.push(Entry { slot, name: name.into(), session, token });
        while self.found.len() > self.ask.most || self.bytes > PAGE_BYTES_MAX + ENTRY_BYTES + 255 {
            let Some(dropped) = self.found.pop() else { break };
            self.bytes -= ENTRY_BYTES + dropped.name.len();
        }
    }

    /// The page: done, next slot, next after, count, names. `more` says that the page is full.
    fn page(self, slots_end: u16) -> Vec<u8> {
        let full = self.found.len() >= self.ask.most || self.bytes >= PAGE_BYTES_MAX;
        let entries = self.found.into_sorted_vec();
        let mut out = Vec::with_capacity(self.bytes + 64);
        let (slot, after): (u16, &[u8]) = match entries.last() {
            Some(last) if full => (last.slot, &last.name),
            _ => (self.ask.slot_last.saturating_add(1), &[]),
        };
        out.put_u8(u8::from(!full && slot >= slots_end));
        out.put_u16(slot);
        out.put_short_bytes(after);
        out.put_u16(entries.len() as u16);
        for entry in &entries {
            out.put_short_bytes(&entry.name);
            out.put_u64(entry.session.0);
            out.put_u64(entry.token.0);
        }
        out
    }
}

/// Bytes of an entry beside its name.
const ENTRY_BYTES: usize = 17;

impl<R: Region, A: Access> Shard<R, A> {
    /// Goes on with the oldest walk, and answers it when it is through.
    pub(crate) fn step_lists(&mut self, env: &mut impl Env) {
        let mut jobs = core::mem::take(&mut self.lists.jobs);
        if let Some(mut job) = jobs.pop_front() {
            let at = core::mem::take(&mut job.at);
            let visit = |name: &[u8], session, token| job.visit(name, session, token);
            let next = self.names.walk(at, STEP_RECORDS, visit);
            match next {
                Some(at) => {
                    job.at = at;
                    jobs.push_back(job);
                }
                None => {
                    let ticket = job.ticket;
                    let page = job.page(ringway_core::slot::SLOTS as u16);
                    self.deliver(ticket, &Answer::data(page), env);
                }
            }
        }
        self.lists.jobs = jobs;
    }
}
