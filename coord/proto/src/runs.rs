//! Runs: what one walk over all names learned for the pages that come after it.
//!
//! The table keeps no order, so the names of a slot are found only by a walk over all records. A
//! walk that fills a page of a list therefore notes, for a run of slots, where their names are: a
//! record id of 4 bytes each, by slot. The pages behind it look there instead of walking again.
//!
//! Invariant: R1  An owned name that lies in a slot of a complete run and begins with its prefix is
//! in that slot's bin, under the record that holds it: the walk met it, or `granted` told of it
//! since. A bin may hold more: records that were given up, or that are another name's by now, and
//! one twice. Whoever reads a bin looks at the records.
//!
//! What does not fit is dropped from the far end, whole slots at a time: the run becomes shorter.
//! So a listing of all names takes about [`WALKS_A_LISTING`] walks, however many names there are,
//! unless one slot alone has more than fits; its pages cost a walk each.
//!
//! Bounds: [`RUNS_MAX`] runs; each of a sixteenth of the names and [`IDS_MIN`] more, 4 to 8 bytes
//! an id and 24 bytes a slot, but no more than half of the memory that is free for buffers when it
//! begins. An unused run goes after [`UNUSED_MAX`]. A grant costs one comparison
//! while there are no runs.
//! Not here: pages (`list`). Tests: below, and `coord/proto/tests/lists.rs`.

use alloc::vec::Vec;

use ringway_core::{Moment, Span};
use ringway_table::RecordId;

/// Runs of one shard at a time; the longest unused goes for a new one.
pub const RUNS_MAX: usize = 4;
/// A run holds this part of the names.
pub const WALKS_A_LISTING: usize = 16;
/// Ids that a run may hold of however few names.
pub const IDS_MIN: usize = 64 * 1024;
/// A run that no page was taken from for so long is dropped.
pub const UNUSED_MAX: Span = Span::from_ms(10_000);

/// Bytes of an id in a bin that has just grown.
const ID_BYTES: usize = 2 * size_of::<RecordId>();
/// Bytes of a slot without names.
const SLOT_BYTES: usize = size_of::<Vec<RecordId>>();

/// Where the names of some slots are.
pub struct Run {
    number: u64,
    prefix: Vec<u8>,
    first: u16,
    /// One a slot, from `first` on.
    bins: Vec<Vec<RecordId>>,
    ids: usize,
    ids_max: usize,
    complete: bool,
    used: Moment,
}

impl Run {
    /// Notes where a name of `slot` is. What does not fit shortens the run.
    #[inline]
    pub fn add(&mut self, slot: u16, id: RecordId) {
        let Some(bin) = self.bins.get_mut(usize::from(slot.wrapping_sub(self.first))) else {
            return;
        };
        bin.push(id);
        self.ids += 1;
        while self.ids > self.ids_max {
            self.ids -= self.bins.pop().map_or(0, |bin| bin.len());
        }
    }

    /// The records that may hold names of a slot; `None` if the run does not reach it.
    pub fn bin(&self, slot: u16) -> Option<&[RecordId]> {
        self.bins.get(usize::from(slot.wrapping_sub(self.first))).map(Vec::as_slice)
    }
}

/// All runs of a shard.
#[derive(Default)]
pub struct Runs {
    runs: Vec<Run>,
    last_number: u64,
}

impl Runs {
    /// Whether there are none, which is nearly always.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// A name of a slot has a new owner. Names without the prefix of a run do no harm in it.
    #[cold]
    pub fn granted(&mut self, slot: u16, id: RecordId) {
        self.runs.iter_mut().for_each(|run| run.add(slot, id));
    }

    /// Starts a run of the slots `first` to `last`, to be completed by a walk over all `names`.
    /// It takes at most half of `room` bytes. `None` if that is not enough for any, or as many
    /// walks are under way already.
    pub fn begin(
        &mut self,
        now: Moment,
        prefix: &[u8],
        (first, last): (u16, u16),
        (names, room): (usize, usize),
    ) -> Option<u64> {
        let ids_room = (room / 2).checked_sub(usize::from(last - first + 1) * SLOT_BYTES)?;
        if self.runs.len() >= RUNS_MAX {
            let complete = self.runs.iter().enumerate().filter(|(_, run)| run.complete);
            let (unused, _) = complete.min_by_key(|(_, run)| run.used)?;
            self.runs.swap_remove(unused);
        }
        self.last_number += 1;
        self.runs.push(Run {
            number: self.last_number,
            prefix: prefix.into(),
            first,
            bins: (first..=last).map(|_| Vec::new()).collect(),
            ids: 0,
            ids_max: (names / WALKS_A_LISTING + IDS_MIN).min(ids_room / ID_BYTES),
            complete: false,
            used: now,
        });
        Some(self.last_number)
    }

    /// Bytes that all of them may come to.
    pub fn bytes(&self) -> usize {
        self.runs.iter().map(|run| run.ids_max * ID_BYTES + run.bins.len() * SLOT_BYTES).sum()
    }

    /// The run with a number, unless it was dropped.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.number == number)
    }

    /// The walk that filled a run has come to its end. The next page begins in slot `next`, if
    /// there is one: without it, or if the run does not reach it, nobody needs the run.
    pub fn complete(&mut self, now: Moment, number: u64, next: Option<u16>) {
        let Some(run) = self.get_mut(number) else { return };
        (run.complete, run.used) = (true, now);
        if next.is_none_or(|next| run.bin(next).is_none()) {
            self.drop_run(number);
        }
    }

    /// A complete run of names with this prefix that reaches a slot.
    pub fn find(&mut self, now: Moment, prefix: &[u8], slot: u16) -> Option<u64> {
        let fits = |run: &&mut Run| run.complete && run.prefix == prefix && run.bin(slot).is_some();
        let run = self.runs.iter_mut().find(fits)?;
        run.used = now;
        Some(run.number)
    }

    /// Drops a run that was read to its end.
    pub fn drop_run(&mut self, number: u64) {
        self.runs.retain(|run| run.number != number);
    }

    /// Drops what no walk is filling: later pages walk again.
    pub fn drop_complete(&mut self) {
        self.runs.retain(|run| !run.complete);
    }

    /// Drops a run that has not been used for long. Call it every turn.
    pub fn expire(&mut self, now: Moment) {
        self.runs.retain(|run| !run.complete || now.since(run.used) < UNUSED_MAX);
    }
}

#[cfg(test)]
mod tests {
    use ringway_core::region::HeapRegion;
    use ringway_table::{Grant, HashKey, Name, Owner, OwnerLog, RecordCursor, Regions, Table};

    use super::*;

    fn ids(count: usize) -> Vec<RecordId> {
        let region = || HeapRegion::new(1 << 24);
        let regions =
            Regions { records: region(), index: region(), arena: region(), lines: region() };
        let mut table = Table::new(regions, HashKey([1, 2])).expect("an empty table fits");
        let mut log = OwnerLog::default();
        let grant = Grant { owner: Owner(0), sequence: 0, epoch_index: 0, flags: 0 };
        for index in 0..count {
            let bytes = index.to_le_bytes();
            let name = Name::new(&bytes).expect("a name");
            table.insert(table.hash(&name), &name, grant, &mut log).expect("there is room");
        }
        let mut ids = Vec::new();
        table.walk(RecordCursor::default(), usize::MAX, |id, _, _| ids.push(id));
        ids
    }

    /// What does not fit is dropped from the far end, a slot at a time, and never comes back: what
    /// is left has every name of its slots. A slot that alone does not fit leaves nothing.
    #[test]
    fn a_run_that_is_too_long_becomes_shorter() {
        let id = ids(1)[0];
        let mut runs = Runs::default();
        let number =
            runs.begin(Moment(0), b"", (100, 199), (0, usize::MAX)).expect("there is room");
        let run = runs.get_mut(number).expect("just begun");
        for _ in 0..IDS_MIN / 2 {
            run.add(99, id);
            run.add(199, id);
            run.add(100, id);
        }
        assert_eq!(run.bin(199).map(<[_]>::len), Some(IDS_MIN / 2));
        run.add(150, id);
        assert_eq!((run.bin(199), run.bin(198)), (None, Some([].as_slice())));
        run.add(199, id);
        assert_eq!(run.bin(199), None, "it would lack what was dropped");
        for _ in 0..IDS_MIN {
            run.add(100, id);
        }
        assert_eq!(run.bin(100), None);
        runs.complete(Moment(0), number, Some(100));
        assert!(runs.is_empty(), "it serves no page");
    }

    /// At most four runs: a new one takes the place of that which no page came from for longest,
    /// never that of one whose walk is under way.
    #[test]
    fn the_longest_unused_run_goes() {
        let mut runs = Runs::default();
        let begin =
            |runs: &mut Runs, prefix: &[u8]| runs.begin(Moment(1), prefix, (0, 9), (0, usize::MAX));
        let numbers: Vec<u64> =
            [b"a", b"b", b"c", b"d"].map(|p| begin(&mut runs, p).expect("four")).into();
        assert_eq!(begin(&mut runs, b"e"), None, "all four are under way");
        assert_eq!(runs.find(Moment(2), b"a", 0), None, "not before its walk is through");
        numbers.iter().for_each(|number| runs.complete(Moment(2), *number, Some(3)));
        assert_eq!(runs.find(Moment(3), b"a", 3), Some(numbers[0]));
        assert_eq!(runs.find(Moment(3), b"a", 10), None, "it does not reach so far");
        assert!(begin(&mut runs, b"e").is_some());
        assert!(runs.find(Moment(4), b"a", 0).is_some() && runs.find(Moment(4), b"b", 0).is_none());
        runs.expire(Moment(0) + UNUSED_MAX + Span(3));
        assert!(runs.find(Moment(4), b"c", 0).is_none() && runs.find(Moment(4), b"a", 0).is_some());
    }
}
