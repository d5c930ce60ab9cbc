//! One stream at the end where it is written: bytes are kept until the other agent has them.
//!
//! Positions are byte offsets; the end of the stream takes one more. Every position that was
//! written is in exactly one state:
//!
//! ```text
//! written --take--> flying (by a carrier) --acked--> gone
//!                     ^    \--its carrier is lost--> lost --take--^
//! ```
//!
//! Invariants:
//! - W1  `flying` and `lost` are sorted, disjoint, and together everything below `next` that is not
//!   acknowledged.
//! - W2  Bytes from the lowest of those on are kept; so nothing is freed on a carrier's word.
//! - W3  Nothing beyond the receiver's credit is put on a carrier; the end may be, it takes no
//!   room.
//!
//! Bounds: bytes kept are bounded by who writes; a segment is 48 bytes. Acknowledging costs
//! constant time for each segment that it ends, and a search of log n for each range.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use ringway_core::Moment;

use crate::carrier::CarrierSlot;
use crate::frame::{Ack, VARINT_MAX};
use crate::sabotage::{Rule, Sabotage};

/// Bytes of one block of a stream's memory.
const BLOCK_BYTES: usize = 64 * 1024;

/// A run of positions that is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) carrier: CarrierSlot,
    /// When it was put on the carrier.
    pub(crate) at: Moment,
    /// The count of segments of the session, so that later ones can be told from earlier ones.
    pub(crate) order: u64,
}

/// A run of positions that has to go again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lost {
    start: u64,
    end: u64,
    /// The carrier that it waits on; another is wanted.
    avoid: CarrierSlot,
}

/// What is to be put into a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) len: usize,
    pub(crate) fin: bool,
    /// It was on its way before.
    pub(crate) again: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SendStream {
    blocks: VecDeque<Vec<u8>>,
    /// The offset of the first byte in `blocks`.
    base: u64,
    /// The offset behind the last byte that was written.
    end: u64,
    /// The stream ends at `end`.
    fin: bool,
    /// The first position that was never put on a carrier.
    next: u64,
    flying: VecDeque<Segment>,
    lost: VecDeque<Lost>,
    /// The receiver takes bytes up to here.
    credit: u64,
    /// The largest `order` that was acknowledged.
    newest_acked: u64,
    sabotage: Sabotage,
}

impl SendStream {
    pub(crate) fn new(credit: u64, sabotage: Sabotage) -> Self {
        Self {
            blocks: VecDeque::new(),
            base: 0,
            end: 0,
            fin: false,
            next: 0,
            flying: VecDeque::new(),
            lost: VecDeque::new(),
            credit,
            newest_acked: 0,
            sabotage,
        }
    }

    /// Bytes that are kept.
    pub(crate) fn kept(&self) -> u64 {
        self.end - self.base
    }

    /// Bytes that were never put on a carrier.
    pub(crate) fn unsent(&self) -> u64 {
        self.end.saturating_sub(self.next)
    }

    /// What is on its way.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.flying.iter()
    }

    /// Bytes that are on their way.
    pub(crate) fn flying(&self) -> u64 {
        self.segments().map(|segment| segment.end - segment.start).sum()
    }

    /// Whether there is more to send than the receiver has said it takes.
    pub(crate) fn is_out_of_credit(&self) -> bool {
        self.unsent() > 0 && self.next >= self.credit
    }

    /// Appends `bytes`. Who writes has asked how much is kept, and has not finished.
    pub(crate) fn write(&mut self, mut bytes: &[u8], spare: &mut Blocks) {
        assert!(!self.fin, "written to after its end");
        assert!(bytes.len() as u64 <= VARINT_MAX - 1 - self.end, "2^62 bytes are enough");
        self.end += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.blocks.back().is_none_or(|block| block.len() == BLOCK_BYTES) {
                self.blocks.push_back(spare.take(bytes.len()));
            }
            let block = self.blocks.back_mut().expect("it was just put there");
            // The first block of a stream starts small, for the many that never say much.
            let room = BLOCK_BYTES - block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            block.extend_from_slice(now);
            bytes = later;
        }
    }

    /// The stream ends here.
    pub(crate) fn finish(&mut self) {
        self.fin = true;
    }

    /// How many bytes may be written: as many as the receiver takes, and one block to be ready.
    pub(crate) fn room(&self) -> usize {
        let most = self.credit + BLOCK_BYTES as u64;
        if self.fin { 0 } else { most.saturating_sub(self.end) as usize }
    }

    /// Whether everything was put on some carrier, the end included.
    pub(crate) fn is_all_sent(&self) -> bool {
        self.fin && self.next > self.end
    }

    /// Whether there is something to put on some carrier.
    pub(crate) fn wants_any(&self) -> bool {
        !self.lost.is_empty() || self.next < self.end.min(self.limit()) || self.wants_end()
    }

    /// Whether everything, the end included, is acknowledged.
    pub(crate) fn is_done(&self) -> bool {
        self.is_all_sent() && self.flying.is_empty() && self.lost.is_empty()
    }

    /// The offset up to which bytes may be sent (W3).
    fn limit(&self) -> u64 {
        if self.sabotage.breaks(Rule::CreditRespected) { u64::MAX } else { self.credit }
    }

    /// Takes a carrier's word for the receiver's, as only sabotage does.
    pub(crate) fn forget_flying(&mut self) {
        self.flying.clear();
        self.free(&mut Blocks::default());
    }

    fn wants_end(&self) -> bool {
        self.fin && self.next == self.end
    }

    /// Puts up to `room` bytes on `by.carrier`, what was lost first.
    pub(crate) fn take(&mut self, room: usize, by: Segment, alone: bool) -> Option<Piece> {
        let avoided = |lost: &Lost| alone || lost.avoid != by.carrier;
        let (start, stop, again) = match self.lost.iter().position(avoided) {
            Some(at) => {
                let lost = &mut self.lost[at];
                let (start, end) = (lost.start, lost.end);
                // The end takes a position, but no room.
                let bytes_end = end.min(self.end);
                let stop = if bytes_end - start <= room as u64 { end } else { start + room as u64 };
                lost.start = stop;
                if lost.start == lost.end {
                    self.lost.remove(at);
                }
                (start, stop, true)
            }
            None => {
                let sendable = self.end.min(self.limit()).max(self.next.min(self.end));
                let start = self.next;
                let mut stop = sendable.min(start.saturating_add(room as u64)).max(start);
                if self.fin && stop == self.end && start <= self.end {
                    stop += 1;
                }
                self.next = stop;
                (start, stop, false)
            }
        };
        if start == stop {
            return None;
        }
        self.fly(Segment { start, end: stop, ..by });
        let fin = stop > self.end;
        let len = (stop.min(self.end) - start) as usize;
        Some(Piece { offset: start, len, fin, again })
    }

    /// Notes a segment as flying. Runs that continue one another on one carrier are one.
    fn fly(&mut self, segment: Segment) {
        let at = self.flying.partition_point(|flying| flying.start < segment.start);
        self.flying.insert(at, segment);
    }

    /// Appends `piece` of the stream to `out`.
    pub(crate) fn copy(&self, piece: Piece, out: &mut Vec<u8>) {
        // All blocks but the last are full.
        let at = (piece.offset - self.base) as usize;
        let (first, mut skip, mut left) = (at / BLOCK_BYTES, at % BLOCK_BYTES, piece.len);
        for block in self.blocks.iter().skip(first) {
            let now = left.min(block.len() - skip);
            out.extend_from_slice(&block[skip..skip + now]);
            left -= now;
            if left == 0 {
                return;
            }
            skip = 0;
        }
        debug_assert_eq!(left, 0, "W2");
    }

    /// The receiver has what `ack` says. `ended` hears of each segment, or part of one, that has
    /// arrived. False if it claims what was never sent.
    pub(crate) fn acked(
        &mut self,
        ack: Ack<'_>,
        spare: &mut Blocks,
        mut ended: impl FnMut(Segment),
    ) -> bool {
        let highest = ack.ranges().last().map_or(ack.below, |(_, end)| end);
        if highest > self.next {
            return false;
        }
        self.credit = self.credit.max(ack.credit);
        self.ack_range(0, ack.below, &mut ended);
        for (start, end) in ack.ranges() {
            self.ack_range(start, end, &mut ended);
        }
        self.free(spare);
        true
    }

    fn ack_range(&mut self, start: u64, end: u64, ended: &mut impl FnMut(Segment)) {
        let mut at = self.flying.partition_point(|segment| segment.end <= start);
        while let Some(segment) = self.flying.get(at).copied().filter(|found| found.start < end) {
            let arrived =
                Segment { start: segment.start.max(start), end: segment.end.min(end), ..segment };
            self.newest_acked = self.newest_acked.max(segment.order);
            ended(arrived);
            let before = Segment { end: arrived.start, ..segment };
            let after = Segment { start: arrived.end, ..segment };
            self.flying.remove(at);
            for rest in [before, after] {
                if rest.start < rest.end {
                    self.flying.insert(at, rest);
                    at += 1;
                }
            }
        }
        let mut at = self.lost.partition_point(|lost| lost.end <= start);
        while let Some(lost) = self.lost.get(at).copied().filter(|found| found.start < end) {
            self.lost.remove(at);
            let before = Lost { end: lost.end.min(start), ..lost };
            let after = Lost { start: lost.start.max(end), ..lost };
            for rest in [before, after] {
                if rest.start < rest.end {
                    self.lost.insert(at, rest);
                    at += 1;
                }
            }
        }
    }

    /// Frees what is before the lowest position that is not acknowledged.
    fn free(&mut self, spare: &mut Blocks) {
        let flying = self.flying.front().map_or(self.next, |segment| segment.start);
        let lost = self.lost.front().map_or(self.next, |lost| lost.start);
        let lowest = flying.min(lost).min(self.end);
        while let Some(block) = self.blocks.front() {
            let whole = block.len() as u64;
            // The last block is written to, so it goes only when all of it is gone.
            if self.base + whole > lowest {
                break;
            }
            self.base += whole;
            spare.give(self.blocks.pop_front().expect("it was just there"));
        }
    }

    /// Everything that flies by `carrier` has to go again. Returns how many bytes.
    pub(crate) fn lose(&mut self, carrier: CarrierSlot) -> u64 {
        let mut bytes = 0;
        let mut kept = VecDeque::with_capacity(self.flying.len());
        for segment in core::mem::take(&mut self.flying) {
            if segment.carrier == carrier {
                bytes += segment.end - segment.start;
                self.note_lost(segment);
            } else {
                kept.push_back(segment);
            }
        }
        self.flying = kept;
        bytes
    }

    /// The first segment on its way.
    pub(crate) fn first_flying(&self) -> Option<Segment> {
        self.flying.front().copied()
    }

    /// The first segment on its way goes again: nothing was heard of it for too long.
    pub(crate) fn lose_first(&mut self) {
        if let Some(first) = self.flying.pop_front() {
            self.note_lost(first);
        }
    }

    /// The first segment on its way, if it seems to be stuck: another one that was sent later has
    /// arrived, and it was sent before `before`. It has to go again, by another carrier.
    pub(crate) fn lose_stuck(&mut self, before: Moment) -> Option<Segment> {
        let first = *self.flying.front()?;
        if first.order >= self.newest_acked || first.at >= before {
            return None;
        }
        self.flying.pop_front();
        self.note_lost(first);
        Some(first)
    }

    fn note_lost(&mut self, segment: Segment) {
        let Segment { start, end, carrier, .. } = segment;
        let at = self.lost.partition_point(|lost| lost.start < start);
        self.lost.insert(at, Lost { start, end, avoid: carrier });
    }
}

/// Blocks that wait to be used again, the newest first: a session in balance allocates nothing,
/// and what it writes to is still in the cache.
#[derive(Debug, Default)]
pub(crate) struct Blocks(Vec<Vec<u8>>);

/// Blocks that wait, at most: 4 MiB.
const SPARE_BLOCKS_MAX: usize = 64;

impl Blocks {
    /// A block for `bytes` that are to be written. The first one of a stream is as large as what is
    /// written first, so that a small exchange costs little; it grows as vectors do.
    fn take(&mut self, bytes: usize) -> Vec<u8> {
        if bytes < BLOCK_BYTES / 4 {
            return Vec::with_capacity(bytes);
        }
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES))
    }

    fn give(&mut self, mut block: Vec<u8>) {
        if block.capacity() == BLOCK_BYTES && self.0.len() < SPARE_BLOCKS_MAX {
            block.clear();
            self.0.push(block);
        }
    }

    /// Gives the memory back.
    pub(crate) fn release(&mut self) {
        self.0 = Vec::new();
    }
}
