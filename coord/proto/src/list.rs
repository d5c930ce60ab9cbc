//! Lists of names: a page at a time, by slot, within a slot by name.
//!
//! The table is not ordered, and keeping it so would cost every name bytes that only lists need.
//! The first page of a list is one walk over the shard's records in slices, which keeps the
//! smallest names behind the cursor in a bounded heap; on its way it notes where the names of the
//! slots behind are (`runs`). The pages that follow look only at the names of their own slots,
//! until the run is read to its end and the next page walks again. Every name that lives
//! throughout the request and belongs to the page is in it, whichever way the page was made.
//!
//! Cost: a listing of all names costs [`WALKS_A_LISTING`](crate::runs::WALKS_A_LISTING) walks and
//! a second look at each name. Names that one slot has more of than a run holds cost a walk a page.
//! Bounds: those of `jobs`; in a turn [`STEP_RECORDS`] records of a walk or
//! [`STEP_IDS`] of a run, of one list; and once a list, its page of [`PAGE_BYTES_MAX`] bytes at
//! most, and the beginning or the end of a run, a bin for each slot: about a millisecond.
//! Tests: `coord/proto/tests/lists.rs`; cost: `coord/proto/examples/listing.rs`.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;

use ringway_core::wire::Put;
use ringway_core::{Region, SessionId, Slot, Token};
use ringway_table::RecordCursor;

use crate::access::Access;
use crate::env::Env;
use crate::jobs::{Step, Work};
use crate::outcome::Answer;
use crate::runs::Runs;
use crate::shard::Shard;

/// Records that a walk visits in one turn.
pub const STEP_RECORDS: usize = 2 * 1024;
/// Ids of a run that are looked at in one turn: each is a record somewhere in memory.
pub const STEP_IDS: usize = 1024;
/// Bytes of a page.
pub const PAGE_BYTES_MAX: usize = 96 * 1024;
/// Bytes of one walk, at most: its page, and the names it has found in a heap of 4096.
pub const JOB_BYTES: usize = 512 * 1024;

/// What is to be made of the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// A page of at most so many.
    Page(usize),
    /// Their number.
    Count,
}

/// What was asked.
#[derive(Clone, Debug)]
pub struct ListAsk {
    /// The first slot of the page.
    pub slot: u16,
    /// The last slot: the shard's, or the only one to be counted.
    pub slot_last: u16,
    /// Within the first slot, only names after this one.
    pub after: Vec<u8>,
    /// Only names that begin so.
    pub prefix: Vec<u8>,
    /// The answer.
    pub want: Want,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    slot: u16,
    name: Vec<u8>,
    session: SessionId,
    token: Token,
}

/// Where a list looks for names.
#[derive(Clone, Copy)]
enum Source {
    /// Nowhere yet.
    New,
    /// At all records, from one on; what lies behind the page is noted in a run.
    Table(RecordCursor, Option<u64>),
    /// In a run, from a place of a slot's bin on.
    Run { number: u64, slot: u16, at: usize },
}

/// A list under way.
pub(crate) struct ListJob {
    ask: ListAsk,
    source: Source,
    found: BinaryHeap<Entry>,
    bytes: usize,
    counted: u64,
}

impl ListJob {
    /// A list that has not looked anywhere yet.
    pub(crate) const fn new(ask: ListAsk) -> Self {
        Self { ask, source: Source::New, found: BinaryHeap::new(), bytes: 0, counted: 0 }
    }

    /// Takes a name of the slots that were asked for, if it belongs to the page.
    fn visit(&mut self, slot: u16, name: &[u8], session: SessionId, token: Token) {
        let Want::Page(most) = self.ask.want else {
            self.counted += 1;
            return;
        };
        let first = slot == self.ask.slot && self.ask.after.is_empty();
        if !first && (slot, name) <= (self.ask.slot, self.ask.after.as_slice()) {
            return;
        }
        let largest = self.found.peek().map(|entry| (entry.slot, entry.name.as_slice()));
        if self.is_full() && largest.is_some_and(|largest| (slot, name) > largest) {
            return;
        }
        self.bytes += ENTRY_BYTES + name.len();
        self.found.push(Entry { slot, name: name.into(), session, token });
        while self.found.len() > most || self.bytes > PAGE_BYTES_MAX + ENTRY_BYTES + 255 {
            let Some(dropped) = self.found.pop() else { break };
            self.bytes -= ENTRY_BYTES + dropped.name.len();
        }
    }

    /// Whether the page takes no more names but smaller ones.
    fn is_full(&self) -> bool {
        let Want::Page(most) = self.ask.want else { return false };
        self.found.len() >= most || self.bytes >= PAGE_BYTES_MAX
    }

    /// The slot of the page's largest name.
    fn last_slot(&self) -> u16 {
        self.found.peek().map_or(self.ask.slot, |entry| entry.slot)
    }

    /// Starts over, without the run that was lost.
    fn restart(&mut self) {
        self.found.clear();
        self.bytes = 0;
        self.source = Source::Table(RecordCursor::default(), None);
    }

    /// The answer, when all slots before `end` were looked at. A page: done, next slot, next
    /// after, count, names.
    fn answer(self, end: u16) -> Vec<u8> {
        if self.ask.want == Want::Count {
            return self.counted.to_le_bytes().to_vec();
        }
        let full = self.is_full();
        let mut entries = self.found.into_sorted_vec();
        // A name that was given up and registered again meanwhile may have been met as both.
        entries.dedup_by(|later, kept| {
            let same = later.name == kept.name;
            if same {
                core::mem::swap(later, kept);
            }
            same
        });
        let mut out = Vec::with_capacity(self.bytes + 64);
        let (slot, after): (u16, &[u8]) = match entries.last() {
            Some(last) if full => (last.slot, &last.name),
            _ => (end, &[]),
        };
        out.put_u8(u8::from(!full && usize::from(end) >= ringway_core::slot::SLOTS));
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
    /// Where a list begins.
    fn source_of(&mut self, ask: &ListAsk, env: &mut impl Env) -> Source {
        let mut run = None;
        let room = self.start.buffer_bytes.saturating_sub(self.buffers_used(env));
        if let Want::Page(most) = ask.want {
            let (now, names) = (self.now(), self.names.table().len());
            let runs = &mut self.names.runs;
            if let Some(number) = runs.find(now, &ask.prefix, ask.slot) {
                return Source::Run { number, slot: ask.slot, at: 0 };
            }
            // What fits into one page needs no run for the next.
            if names > most {
                run = runs.begin(now, &ask.prefix, (ask.slot, ask.slot_last), (names, room));
            }
        }
        Source::Table(RecordCursor::default(), run)
    }

    /// A slice of a list.
    pub(crate) fn step_list(&mut self, mut job: ListJob, env: &mut impl Env) -> Step {
        if matches!(job.source, Source::New) {
            job.source = self.source_of(&job.ask, env);
        }
        let mut runs = core::mem::take(&mut self.names.runs);
        let end = match job.source {
            Source::New => unreachable!("it has just been decided"),
            Source::Table(at, run) => self.step_table(&mut job, (at, run), &mut runs),
            Source::Run { number, slot, at } => {
                self.step_run(&mut job, number, (slot, at), &mut runs)
            }
        };
        self.names.runs = runs;
        match end {
            Some(end) => Step::Done(Some(Answer::data(job.answer(end)))),
            None => Step::More(Work::List(job)),
        }
    }

    /// A slice of a walk. The slot behind those looked at, once all records were.
    fn step_table(
        &self,
        job: &mut ListJob,
        (at, number): (RecordCursor, Option<u64>),
        runs: &mut Runs,
    ) -> Option<u16> {
        let mut run = number.and_then(|number| runs.get_mut(number));
        let (first, last) = (job.ask.slot, job.ask.slot_last);
        let next = self.names.walk(at, STEP_RECORDS, |id, name, session, token| {
            let slot = Slot::of(name).number();
            if first <= slot && slot <= last && name.starts_with(&job.ask.prefix) {
                if let Some(run) = &mut run {
                    run.add(slot, id);
                }
                job.visit(slot, name, session, token);
            }
        });
        if let Some(at) = next {
            job.source = Source::Table(at, number);
            return None;
        }
        if let Some(number) = number {
            let behind = job.is_full().then(|| job.last_slot());
            runs.complete(self.now(), number, behind);
        }
        Some(last + 1)
    }

    /// A slice of a run. The slot behind those looked at, once the page is full or the run ends.
    fn step_run(
        &self,
        job: &mut ListJob,
        number: u64,
        (mut slot, mut at): (u16, usize),
        runs: &mut Runs,
    ) -> Option<u16> {
        let mut left = STEP_IDS;
        while left > 0 {
            let Some(bin) = runs.get_mut(number).and_then(|run| run.bin(slot)) else {
                if at > 0 || slot == job.ask.slot {
                    // It was dropped, or became too short, before a slot was read to its end.
                    job.restart();
                    return None;
                }
                runs.drop_run(number);
                return Some(slot);
            };
            let step = &bin[at..bin.len().min(at + left)];
            self.names.revisit(step, |name, session, token| {
                // The record may have become another name's.
                if Slot::of(name).number() == slot && name.starts_with(&job.ask.prefix) {
                    job.visit(slot, name, session, token);
                }
            });
            // An empty bin costs a look as well.
            left -= step.len().max(1);
            at += step.len();
            if at == bin.len() {
                (slot, at) = (slot + 1, 0);
                if job.is_full() {
                    return Some(slot);
                }
            }
        }
        job.source = Source::Run { number, slot, at };
        None
    }
}
