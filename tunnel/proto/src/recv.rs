//! One stream at the end where it is read: pieces come in any order, bytes leave in theirs.
//!
//! Invariants:
//! - V1  Bytes are delivered once and in order; the end after all of them.
//! - V2  Pieces that came too early are kept apart, without overlap, and none lies below `next`.
//! - V3  What is kept is within the credit that was given: a sender beyond it breaks the rules.
//! - V4  What there is no room for is refused: it changes nothing and is not acknowledged, so it
//!   comes again.
//!
//! Credit is what the application has taken plus a window. The window begins small and doubles
//! while a sender uses all of it within two round trips, or while something is missing; a flow
//! whose application does not read is given no more. Where others want room it shrinks, by a half
//! at most each time that half of it was used: credit that was given is good, and is not given
//! again.
//!
//! Bounds: kept bytes are at most the window, and what there is room for (`memory.rs`). Constant
//! time a piece in order, a search of log n for one that is not.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use ringway_core::{Moment, Span};

use crate::memory::{self, Room};
use crate::sabotage::{Rule, Sabotage};

/// What came of a piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// It said something new.
    pub(crate) news: bool,
    /// There was no room for some of it.
    pub(crate) refused: bool,
}

/// What the sender did cannot be: it went beyond its credit, or beyond its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overrun;

/// See the module.
#[derive(Debug)]
pub(crate) struct RecvStream {
    /// The next position to deliver; one more than the last offset once the end was delivered.
    next: u64,
    /// Where the stream ends.
    fin_at: Option<u64>,
    early: BTreeMap<u64, Vec<u8>>,
    early_bytes: u64,
    /// What `early` covers: starts and ends, none touching another. An acknowledgement names them,
    /// and there may be thousands of pieces to a run.
    runs: BTreeMap<u64, u64>,
    /// Offset up to which the application has taken bytes.
    taken: u64,
    /// Bytes that wait for the application: what it was said to have last, and what was delivered
    /// since.
    waiting: u64,
    /// Of those, what came by the reserve.
    reserved: u64,
    window: u64,
    credit: u64,
    /// When the credit was last raised.
    raised_at: Moment,
    /// Bytes that came since the last acknowledgement.
    unacked: u64,
    sabotage: Sabotage,
}

impl RecvStream {
    pub(crate) fn new(now: Moment, window: u64, sabotage: Sabotage) -> Self {
        Self {
            next: 0,
            fin_at: None,
            early: BTreeMap::new(),
            early_bytes: 0,
            runs: BTreeMap::new(),
            taken: 0,
            waiting: 0,
            reserved: 0,
            window,
            credit: window,
            raised_at: now,
            unacked: 0,
            sabotage,
        }
    }

    /// Takes a piece in, as far as there is room. `deliver` gets bytes in order.
    pub(crate) fn receive(
        &mut self,
        offset: u64,
        bytes: &[u8],
        fin: bool,
        room: Room,
        mut deliver: impl FnMut(&[u8]),
    ) -> Result<Received, Overrun> {
        let end = offset + bytes.len() as u64;
        let beyond = self.fin_at.is_some_and(|fin_at| end > fin_at || fin && end != fin_at);
        let cuts = fin && end < self.highest();
        if end > self.credit || beyond || cuts {
            return Err(Overrun);
        }
        let mut received = Received { news: fin && self.fin_at.is_none(), refused: false };
        if fin {
            self.fin_at = Some(end);
        }
        self.unacked += bytes.len() as u64;
        if self.sabotage.breaks(Rule::DuplicatesNoticed) && end <= self.next {
            deliver(bytes);
        }
        if self.sabotage.breaks(Rule::EarlyWaits) && offset > self.next {
            deliver(bytes);
            self.next = end;
        }
        if offset <= self.next && end > self.next {
            if self.has_room(end - self.next, room) {
                let before = self.next;
                let known = self.sabotage.unless(Rule::CutsAnywhere, 0, self.next - offset);
                deliver(&bytes[known as usize..]);
                self.next = end;
                self.deliver_early(&mut deliver);
                self.waiting += self.next - before;
                received.news = true;
            } else {
                received.refused = true;
                if self.sabotage.breaks(Rule::RefusedNotAcked) {
                    self.next = end;
                }
            }
        } else if offset > self.next {
            let kept = self.keep_early(offset, bytes, room.any);
            received.news |= kept.news;
            received.refused = kept.refused;
        }
        if fin && self.sabotage.breaks(Rule::EndAfterAll) {
            self.next = end;
        }
        if self.fin_at == Some(self.next) {
            self.next += 1;
        }
        Ok(received)
    }

    /// Whether so many bytes may be delivered. For an application that takes what it gets there is
    /// a reserve, where early pieces have all the room.
    fn has_room(&mut self, bytes: u64, room: Room) -> bool {
        if bytes <= room.any {
            return true;
        }
        let reads = self.waiting + bytes <= memory::FIRST && bytes <= room.reserve;
        self.reserved += if reads { bytes } else { 0 };
        reads
    }

    /// Offset behind the last byte that has come.
    fn highest(&self) -> u64 {
        self.runs.last_key_value().map_or(self.delivered(), |(_, end)| *end)
    }

    fn deliver_early(&mut self, deliver: &mut impl FnMut(&[u8])) {
        while let Some(entry) = self.early.first_entry().filter(|entry| *entry.key() <= self.next) {
            let (start, bytes) = entry.remove_entry();
            self.early_bytes -= bytes.len() as u64;
            let known = (self.next - start) as usize;
            if let Some(new) = bytes.get(known..).filter(|new| !new.is_empty()) {
                deliver(new);
                self.next += new.len() as u64;
            }
        }
        while let Some(run) = self.runs.first_entry().filter(|run| *run.get() <= self.next) {
            run.remove();
        }
        // What is left of the first run begins where delivery stopped, or later: pieces are whole.
        debug_assert!(self.runs.keys().next().is_none_or(|start| *start > self.next), "V2");
    }

    /// Notes that `start` to `end`, of which nothing was there, came early.
    fn join_runs(&mut self, mut start: u64, mut end: u64) {
        if let Some((before, _)) =
            self.runs.range(..start).next_back().filter(|run| *run.1 == start)
        {
            start = *before;
        }
        if let Some(after) = self.runs.remove(&end) {
            end = after;
        }
        self.runs.insert(start, end);
    }

    /// Keeps what is new of a piece (V2), as far as there is `room`, unless there are so many that
    /// what is kept of each counts for more than its bytes (V4).
    fn keep_early(&mut self, offset: u64, bytes: &[u8], mut room: u64) -> Received {
        let end = offset + bytes.len() as u64;
        let before = self.early.range(..=offset).next_back();
        let mut at = before.map_or(offset, |(start, kept)| offset.max(start + kept.len() as u64));
        let mut received = Received::default();
        while at < end {
            let next = self.early.range(at..).next();
            let (next_start, next_end) = next
                .map_or((u64::MAX, u64::MAX), |(start, kept)| (*start, start + kept.len() as u64));
            let stop = end.min(next_start);
            if at < stop {
                let costs = stop - at + memory::PIECE_BYTES;
                let many = self.early.len() as u64 >= PIECES_MIN + self.window / PIECE_BYTES;
                if many || costs > room {
                    received.refused = true;
                    if self.sabotage.breaks(Rule::RefusedNotAcked) {
                        self.join_runs(at, stop);
                    }
                    break;
                }
                room -= costs;
                let new = &bytes[(at - offset) as usize..(stop - offset) as usize];
                self.early.insert(at, new.to_vec());
                self.early_bytes += new.len() as u64;
                self.join_runs(at, stop);
                received.news = true;
            }
            at = next_end;
        }
        received
    }

    /// Whether the end was delivered.
    pub(crate) fn is_done(&self) -> bool {
        self.fin_at.is_some_and(|fin_at| self.next > fin_at)
    }

    /// Bytes that were delivered.
    pub(crate) fn delivered(&self) -> u64 {
        self.next.min(self.fin_at.unwrap_or(u64::MAX))
    }

    /// Bytes that wait for others before them.
    pub(crate) fn early_bytes(&self) -> u64 {
        self.early_bytes
    }

    /// Bytes that were delivered by the reserve, of those that wait for the application.
    pub(crate) fn reserved(&self) -> u64 {
        self.reserved
    }

    /// What is held, and what keeping it costs.
    pub(crate) fn held(&self) -> u64 {
        self.waiting + self.early_bytes + self.early.len() as u64 * memory::PIECE_BYTES
    }

    /// Bytes that came since [`Self::note_acked`].
    pub(crate) fn unacked(&self) -> u64 {
        self.unacked
    }

    /// Whether pieces are missing before others that came.
    pub(crate) fn has_gap(&self) -> bool {
        !self.early.is_empty()
    }

    /// Of all delivered bytes, `waiting` are still with us. Returns whether the sender should hear
    /// of new credit: when half a window has become free. The window may be `most`.
    pub(crate) fn drained(&mut self, now: Moment, waiting: u64, rtt: Span, most: u64) -> bool {
        let waiting = self.sabotage.unless(Rule::UnreadWaits, 0, waiting);
        self.waiting = waiting;
        self.reserved = self.reserved.min(waiting);
        self.taken = self.delivered().saturating_sub(waiting).max(self.taken);
        if self.fin_at.is_some() {
            return false;
        }
        let free = (self.taken + self.window).saturating_sub(self.credit);
        if free < self.window / 2 {
            return false;
        }
        let fast = now.since(self.raised_at) < Span(rtt.0 * 2).max(GROW_WITHIN_MIN);
        let grows = fast && !self.sabotage.breaks(Rule::WindowsGrow);
        if self.window > most {
            self.window = most.max(self.window / 2);
        } else if grows && waiting <= self.window / 8 {
            self.window += self.window.min(most - self.window);
        }
        let credit = self.credit.max(self.taken + self.window);
        if credit == self.credit {
            return false;
        }
        self.raised_at = now;
        self.credit = credit;
        true
    }

    /// Whether there is a reason for [`Self::stretch`].
    pub(crate) fn is_stuck(&self) -> bool {
        let behind = self.waiting > self.window / 8 || self.fin_at.is_some();
        !self.early.is_empty() && !behind && self.highest() + self.window / 8 >= self.credit
    }

    /// A sender that has used all of its credit, while something before it is missing, can do
    /// nothing until that has come again, which may take several round trips: it gets twice as
    /// much, once in a round trip, unless the application is behind. The window may be `most`.
    /// Returns whether it should hear of that.
    pub(crate) fn stretch(&mut self, now: Moment, rtt: Span, most: u64) -> bool {
        let stays = self.window >= most || self.sabotage.breaks(Rule::WindowsGrow);
        if stays || now.since(self.raised_at) < rtt {
            return false;
        }
        self.window += self.window.min(most - self.window);
        self.credit = self.credit.max(self.taken + self.window);
        self.raised_at = now;
        true
    }

    /// The present window.
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// What an acknowledgement says: everything below, the credit, and what came early.
    pub(crate) fn ack(&self) -> (u64, u64) {
        (self.next, self.credit)
    }

    /// Runs of positions that came early, ascending and apart.
    pub(crate) fn early_ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let fin_at = self.fin_at;
        // Whoever has the last byte and knows that it is the last has the end, too.
        self.runs.iter().map(move |(start, end)| (*start, end + u64::from(fin_at == Some(*end))))
    }

    /// It was said.
    pub(crate) fn note_acked(&mut self) {
        self.unacked = 0;
    }
}

/// Early pieces of a stream: so many, and one more for each so many bytes of its window. A piece of
/// bulk has 4 KiB at least; one costs about 90 bytes beside its own.
const PIECES_MIN: u64 = 1024;
const PIECE_BYTES: u64 = 1024;
/// On paths with less delay than this, windows grow as if they had this much.
const GROW_WITHIN_MIN: Span = Span::from_ms(5);

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    const RTT: Span = Span::from_ms(100);

    /// Receives a piece whose application takes what it gets.
    fn receive(stream: &mut RecvStream, now: Moment, offset: u64, bytes: u64) {
        let piece = vec![0; bytes as usize];
        let received = stream.receive(offset, &piece, false, Room::ENDLESS, |_| {});
        assert_eq!(received, Ok(Received { news: true, refused: false }));
        stream.drained(now, 0, RTT, 1 << 30);
    }

    /// One missing piece does not stop who sends: the window doubles each round trip in which all
    /// of it was used, up to what there is, and not for an application that does not read.
    #[test]
    fn a_hole_does_not_stop_the_sender() {
        let (first, most) = (1 << 16, 1 << 19);
        let mut stream = RecvStream::new(Moment(0), first, Sabotage::default());
        let mut sent = 1000;
        for round in 1..=5 {
            let now = Moment(RTT.0 * round);
            let (_, credit) = stream.ack();
            assert!(!stream.is_stuck(), "it has not used all of it");
            receive(&mut stream, now, sent, credit - sent);
            sent = credit;
            let grows = round <= 3;
            assert!(stream.is_stuck());
            assert_eq!(stream.stretch(now, RTT, most), grows, "round {round}");
            assert!(!stream.stretch(now, RTT, most), "once in a round trip");
            assert_eq!(stream.ack(), (0, first << round.min(3)));
            if !grows {
                break;
            }
        }
        let mut stream = RecvStream::new(Moment(0), first, Sabotage::default());
        let said = vec![0; 20_000];
        stream.receive(0, &said, false, Room::ENDLESS, |_| {}).expect("it is within the credit");
        stream.receive(first - 9, &[0; 9], false, Room::ENDLESS, |_| {}).expect("likewise");
        assert!(!stream.is_stuck(), "20 000 bytes are not taken");
    }
}
