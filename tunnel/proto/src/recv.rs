//! One stream at the end where it is read: pieces come in any order, bytes leave in theirs.
//!
//! Invariants:
//! - V1  Bytes are delivered once and in order; the end after all of them.
//! - V2  Pieces that came too early are kept apart, without overlap, and none lies below `next`.
//! - V3  What is kept is within the credit that was given: a sender beyond it is refused.
//!
//! Credit is what the application has taken plus a window. The window begins small and doubles
//! while a sender uses all of it within two round trips; a flow whose application does not read is
//! given no more.
//!
//! Bounds: kept bytes are at most the window; a piece that came early costs its bytes and about 64
//! more. Constant time a piece in order, a search of log n for one that is not.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use ringway_core::{Moment, Span};

use crate::sabotage::{Rule, Sabotage};

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
            window,
            credit: window,
            raised_at: now,
            unacked: 0,
            sabotage,
        }
    }

    /// Takes a piece in. `deliver` gets bytes in order. Returns whether the piece said anything
    /// new.
    pub(crate) fn receive(
        &mut self,
        offset: u64,
        bytes: &[u8],
        fin: bool,
        mut deliver: impl FnMut(&[u8]),
    ) -> Result<bool, Overrun> {
        let end = offset + bytes.len() as u64;
        let beyond = self.fin_at.is_some_and(|fin_at| end > fin_at || fin && end != fin_at);
        let cuts = fin && end < self.highest();
        if end > self.credit || beyond || cuts {
            return Err(Overrun);
        }
        let mut news = fin && self.fin_at.is_none();
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
            deliver(&bytes[(self.next - offset) as usize..]);
            self.next = end;
            news = true;
            self.deliver_early(&mut deliver);
        } else if offset > self.next {
            news |= self.keep_early(offset, bytes);
        }
        if fin && self.sabotage.breaks(Rule::EndAfterAll) {
            self.next = end;
        }
        if self.fin_at == Some(self.next) {
            self.next += 1;
        }
        Ok(news)
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

    /// Keeps what is new of a piece (V2), unless there are so many that what is kept of each counts
    /// for more than its bytes: what is not kept is not acknowledged, and comes again.
    fn keep_early(&mut self, offset: u64, bytes: &[u8]) -> bool {
        let end = offset + bytes.len() as u64;
        let before = self.early.range(..=offset).next_back();
        let mut at = before.map_or(offset, |(start, kept)| offset.max(start + kept.len() as u64));
        let mut news = false;
        while at < end {
            let next = self.early.range(at..).next();
            let (next_start, next_end) = next
                .map_or((u64::MAX, u64::MAX), |(start, kept)| (*start, start + kept.len() as u64));
            let stop = end.min(next_start);
            if at < stop {
                if self.early.len() as u64 >= PIECES_MIN + self.window / PIECE_BYTES {
                    break;
                }
                let new = &bytes[(at - offset) as usize..(stop - offset) as usize];
                self.early.insert(at, new.to_vec());
                self.early_bytes += new.len() as u64;
                self.join_runs(at, stop);
                news = true;
            }
            at = next_end;
        }
        news
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

    /// Bytes that came since [`Self::note_acked`].
    pub(crate) fn unacked(&self) -> u64 {
        self.unacked
    }

    /// Whether pieces are missing before others that came.
    pub(crate) fn has_gap(&self) -> bool {
        !self.early.is_empty()
    }

    /// Of all delivered bytes, `waiting` are still with us. Returns whether the sender should hear
    /// of new credit: when half a window has become free. `more` is how far the window may grow.
    pub(crate) fn drained(&mut self, now: Moment, waiting: u64, rtt: Span, more: u64) -> bool {
        self.taken = self.delivered().saturating_sub(waiting).max(self.taken);
        if self.fin_at.is_some() {
            return false;
        }
        let free = (self.taken + self.window).saturating_sub(self.credit);
        if free < self.window / 2 {
            return false;
        }
        let fast = now.since(self.raised_at) < Span(rtt.0 * 2).max(GROW_WITHIN_MIN);
        if fast && waiting <= self.window / 8 {
            self.window += self.window.min(more);
        }
        self.raised_at = now;
        self.credit = self.credit.max(self.taken + self.window);
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
