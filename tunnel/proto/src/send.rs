//! One stream at the end where it is written: bytes are kept until the other agent has them.
//!
//! A carrier of packets keeps itself what is on its way by it, as runs of positions (`path`): those
//! are taken here and given back if the carrier is lost, and are nobody's segments.
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
//! - W1  `flying`, `lost` and runs of packets are together everything below `next` that is not
//!   acknowledged; the first two are sorted and disjoint.
//! - W2  Bytes from the first on that is not acknowledged are kept; so nothing is freed on a
//!   carrier's word.
//! - W3  Nothing beyond the receiver's credit is put on a carrier; the end may be, it takes no
//!   room.
//! - W4  Of what nobody heard of for long little goes again at first, and twice as much with each
//!   word of it: perhaps the receiver had no room for it, and has none.
//!
//! Bounds: bytes kept are bounded by who writes; a segment is 48 bytes. Acknowledging costs
//! constant time, amortised, for each segment that it ends, and a search of log n for each range
//! (`spans.rs`).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use ringway_core::Moment;

use crate::carrier::CarrierSlot;
use crate::frame::{Ack, VARINT_MAX};
use crate::sabotage::{Rule, Sabotage};
use crate::spans::{self, Spans};

/// Bytes of one block of a stream's memory.
const BLOCK_BYTES: usize = 64 * 1024;

/// So many runs that are lost are asked whether they may go by a carrier.
const LOOK: usize = 64;
/// So much is sent to ask about the rest.
const ASKED_AGAIN: u64 = 512;
/// Of what nobody heard of for long, so much goes again at first.
const TRUSTED_FIRST: u64 = 4096;

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

/// By what a run goes, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct By {
    carrier: CarrierSlot,
    at: Moment,
    order: u64,
}

fn segment(piece: spans::Piece<By>) -> Segment {
    let By { carrier, at, order } = piece.what;
    Segment { start: piece.start, end: piece.end, carrier, at, order }
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
    flying: Spans<By>,
    /// What has to go again, and the carrier that it waited on: another is wanted.
    lost: Spans<CarrierSlot>,
    /// The receiver has everything below this.
    below: u64,
    /// The same when it was looked at last.
    below_before: u64,
    /// Positions that are on their way in packets.
    in_packets: u64,
    /// The receiver takes bytes up to here.
    credit: u64,
    /// The largest `order` that was acknowledged.
    newest_acked: u64,
    /// Bytes that may go, and that went, before the next word of the receiver (W4).
    trusted: u64,
    asked: u64,
    /// Bytes that had to go again.
    resent: u64,
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
            flying: Spans::default(),
            lost: Spans::default(),
            below: 0,
            below_before: 0,
            in_packets: 0,
            credit,
            newest_acked: 0,
            trusted: u64::MAX,
            asked: 0,
            resent: 0,
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
    pub(crate) fn segments(&self) -> impl Iterator<Item = Segment> {
        self.flying.iter().map(segment)
    }

    /// The carriers by which it is, some of them several times.
    pub(crate) fn carriers(&self) -> impl Iterator<Item = CarrierSlot> + '_ {
        self.segments().map(|segment| segment.carrier)
    }

    /// Bytes that are on their way.
    pub(crate) fn flying(&self) -> u64 {
        // Runs that are not wanted any more are passed over without a word.
        self.flying.positions() + self.in_packets.min(self.next - self.below)
    }

    /// Bytes that had to go again since the beginning.
    pub(crate) fn resent(&self) -> u64 {
        self.resent
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
        if self.trusted < u64::MAX {
            return !self.lost.is_empty() && self.asked < self.trusted;
        }
        !self.lost.is_empty() || self.next < self.end.min(self.limit()) || self.wants_end()
    }

    /// Whether everything, the end included, is acknowledged.
    pub(crate) fn is_done(&self) -> bool {
        self.is_all_sent() && self.below == self.next
    }

    /// The offset up to which bytes may be sent (W3).
    fn limit(&self) -> u64 {
        if self.sabotage.breaks(Rule::CreditRespected) { u64::MAX } else { self.credit }
    }

    /// Takes a carrier's word for the receiver's, as only sabotage does.
    pub(crate) fn forget_flying(&mut self) {
        self.flying.clear();
        self.below = self.next;
        self.free(&mut Blocks::default());
    }

    fn wants_end(&self) -> bool {
        self.fin && self.next == self.end
    }

    /// Puts up to `room` bytes on `by.carrier`, what was lost first.
    pub(crate) fn take(&mut self, room: usize, by: Segment, alone: bool) -> Option<Piece> {
        let (start, stop, again) = self.cut(room, by.carrier, alone)?;
        self.fly(Segment { start, end: stop, ..by });
        Some(Piece { again, ..self.piece(start, stop) })
    }

    /// Takes up to `room` positions for a packet of `carrier`, what was lost first. The end counts
    /// as one: a run goes again only where it fits, and nothing behind it would go.
    pub(crate) fn take_for_packet(
        &mut self,
        room: usize,
        carrier: CarrierSlot,
        alone: bool,
    ) -> Option<Piece> {
        let (start, mut stop, again) = self.cut(room, carrier, alone)?;
        if stop - start > room as u64 {
            stop -= 1;
            self.leave_end(stop, again);
        }
        self.in_packets += stop - start;
        Some(Piece { again, ..self.piece(start, stop) })
    }

    /// The end at `at` was cut, and goes by another packet.
    fn leave_end(&mut self, at: u64, again: bool) {
        if again {
            let end = spans::Piece { start: at, end: at + 1, what: CarrierSlot::NONE };
            self.lost.put(end);
        } else {
            self.next = at;
        }
    }

    /// What has these positions, without those at the front that the receiver has: their bytes may
    /// be gone. A run in a packet may be acknowledged in part, since a part of it may have gone by
    /// another ([`Self::ask_again`]).
    pub(crate) fn piece(&self, start: u64, stop: u64) -> Piece {
        let start = start.max(self.below).min(stop);
        let len = stop.min(self.end).saturating_sub(start) as usize;
        Piece { offset: start, len, fin: stop > self.end, again: true }
    }

    /// So many positions are not on their way in packets any more.
    pub(crate) fn left_packets(&mut self, positions: u64) {
        self.in_packets = self.in_packets.saturating_sub(positions);
    }

    /// These positions were on their way by a carrier of packets that is lost, or does not answer.
    pub(crate) fn lose_run(&mut self, start: u64, end: u64, carrier: CarrierSlot) {
        let start = start.max(self.below);
        if start < end {
            let at = Moment(0);
            self.note_lost(Segment { start, end, carrier, at, order: 0 });
        }
    }

    /// Whether the receiver still has to say that it has something.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.below < self.next
    }

    /// Sends a little of what went in packets again if the receiver has said nothing of it since
    /// this was asked last: its word may be lost, and with it whoever would repeat it.
    pub(crate) fn ask_again(&mut self, carrier: CarrierSlot) {
        let before = core::mem::replace(&mut self.below_before, self.below);
        if !self.is_waited_for() || before < self.below {
            return;
        }
        // What was to bring a word (W4) has brought none.
        self.asked = 0;
        if self.lost.is_empty() {
            let end = self.next.min(self.below + ASKED_AGAIN);
            self.lose_run(self.below, end, carrier);
        }
    }

    /// Whether the receiver has said that it has all before `end`.
    pub(crate) fn has_heard_of(&self, end: u64) -> bool {
        end <= self.below
    }

    /// Positions to put on some carrier: start, end, and whether they were on their way before.
    fn cut(&mut self, room: usize, by: CarrierSlot, alone: bool) -> Option<(u64, u64, bool)> {
        let room = room.min(usize::try_from(self.trusted - self.asked).unwrap_or(usize::MAX));
        let (bytes_end, room_bytes) = (self.end, room as u64);
        // The end takes a position, but no room.
        let most = |start: u64| {
            if bytes_end.saturating_sub(start) <= room_bytes { u64::MAX } else { room_bytes }
        };
        let (start, stop, again) = match self.lost.take(LOOK, |avoid| alone || *avoid != by, most) {
            Some(lost) => (lost.start, lost.end, true),
            None if self.trusted < u64::MAX => return None,
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
        if self.trusted < u64::MAX {
            // The end counts as a byte here.
            self.asked = (self.asked + stop - start).min(self.trusted);
        }
        Some((start, stop, again))
    }

    /// Notes a segment as flying.
    fn fly(&mut self, segment: Segment) {
        let Segment { start, end, carrier, at, order } = segment;
        self.flying.put(spans::Piece { start, end, what: By { carrier, at, order } });
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
        let mut news = ack.credit > self.credit || ack.below > self.below;
        self.credit = self.credit.max(ack.credit);
        let mut ended = |segment| {
            news = true;
            ended(segment);
        };
        self.below = self.below.max(ack.below);
        self.ack_range(0, ack.below, &mut ended);
        for (start, end) in ack.ranges() {
            self.ack_range(start, end, &mut ended);
        }
        if news && self.trusted < u64::MAX {
            self.trust();
        }
        self.free(spare);
        true
    }

    /// The receiver has said something: more may go (W4).
    fn trust(&mut self) {
        self.asked = 0;
        self.trusted = if self.lost.is_empty() { u64::MAX } else { self.trusted.saturating_mul(2) };
    }

    fn ack_range(&mut self, start: u64, end: u64, ended: &mut impl FnMut(Segment)) {
        let newest = &mut self.newest_acked;
        self.flying.cover(start, end, |piece| {
            *newest = (*newest).max(piece.what.order);
            ended(segment(piece));
        });
        self.lost.cover(start, end, |_| {});
    }

    /// Frees what is before the first position that is not acknowledged (W2).
    fn free(&mut self, spare: &mut Blocks) {
        let lowest = self.below.min(self.end);
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
        let mut flying = core::mem::take(&mut self.flying);
        let mut bytes = 0;
        flying.take_all(
            |by| by.carrier == carrier,
            |piece| {
                bytes += piece.len();
                self.note_lost(segment(piece));
            },
        );
        self.flying = flying;
        bytes
    }

    /// The first segment on its way.
    pub(crate) fn first_flying(&self) -> Option<Segment> {
        self.flying.front().map(segment)
    }

    /// Whatever is on its way since before `before` goes again, little of it at first (W4): nothing
    /// was heard of it for too long. `gone` hears of each segment.
    pub(crate) fn lose_old(&mut self, before: Moment, mut gone: impl FnMut(Segment)) {
        let mut flying = core::mem::take(&mut self.flying);
        flying.take_all(
            |by| by.at < before,
            |piece| {
                gone(segment(piece));
                // By whatever carrier there is: perhaps no other one asks.
                self.note_lost(Segment { carrier: CarrierSlot::NONE, ..segment(piece) });
            },
        );
        self.flying = flying;
        (self.trusted, self.asked) = (TRUSTED_FIRST, 0);
    }

    /// The first segment on its way, if it seems to be stuck: another one that was sent later has
    /// arrived, and it was sent before `before`. It has to go again, by another carrier.
    pub(crate) fn lose_stuck(&mut self, before: Moment) -> Option<Segment> {
        let first = self.first_flying()?;
        if first.order >= self.newest_acked || first.at >= before {
            return None;
        }
        self.flying.pop_front();
        self.note_lost(first);
        Some(first)
    }

    fn note_lost(&mut self, segment: Segment) {
        let Segment { start, end, carrier, .. } = segment;
        // What was to bring a word may be lost, too.
        self.asked = self.asked.saturating_sub(end - start);
        self.resent += end - start;
        self.lost.put(spans::Piece { start, end, what: carrier });
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

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::frame::{FlowId, Frame, Frames, write_ack};

    /// Whatever is left of a stream, a run of it with its end is not longer than the room.
    #[test]
    fn the_end_fits_in_again() {
        let room = 1000;
        for bytes in 1..3 * room {
            let mut send = SendStream::new(1 << 20, Sabotage::default());
            send.write(&vec![7; bytes], &mut Blocks::default());
            send.finish();
            let mut sent = 0;
            while let Some(piece) = send.take_for_packet(room, CarrierSlot(0), true) {
                let positions = piece.len + usize::from(piece.fin);
                assert!(positions <= room, "{positions} of {bytes}");
                sent += positions;
            }
            assert_eq!(sent, bytes + 1);
        }
    }

    /// The block in which a run began is freed while the run is on its way in a packet: what is
    /// left of it goes again, with its bytes.
    #[test]
    fn what_is_left_of_a_run_goes_again() {
        let mut send = SendStream::new(1 << 20, Sabotage::default());
        let bytes: Vec<u8> = (0..2 * BLOCK_BYTES).map(|at| (at / 7) as u8).collect();
        send.write(&bytes, &mut Blocks::default());
        send.take_for_packet(BLOCK_BYTES - 100, CarrierSlot(0), true).expect("there is more");
        let run = send.take_for_packet(1000, CarrierSlot(0), true).expect("there is more");
        let (below, end) = (BLOCK_BYTES + 300, run.offset as usize + run.len);
        let mut text = Vec::new();
        let word = (below as u64, 1 << 20);
        write_ack(&mut text, FlowId(0), word, core::iter::empty());
        let Ok(Some(Frame::Ack { ack, .. })) = Frames::new(&text).next() else { panic!() };
        assert!(send.acked(ack, &mut Blocks::default(), |_| {}));
        let mut out = Vec::new();
        send.copy(send.piece(run.offset, end as u64), &mut out);
        assert_eq!(out, bytes[below..end]);
    }
}
