//! Runs of positions in order, each with something that is known of it: what is on its way of a
//! stream, or has to go again.
//!
//! Invariants:
//! - N1  Runs are sorted and disjoint.
//! - N2  Acknowledging never makes two runs of one: a peer that acknowledges every other byte makes
//!   no work. A hole in the middle of a run is not taken for acknowledged; it goes again at worst.
//! - N3  Runs that are gone stay as empty ones until there are many, so that taking one out of the
//!   middle moves nothing.
//!
//! Bounds: a run costs what is known of it and 16 bytes, and there are as many as were put in.
//! Constant time, amortised, for each run that goes, and a search of log n; empty runs are at most
//! an eighth and 64.

use alloc::collections::VecDeque;

/// A run with what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece<T> {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) what: T,
}

impl<T> Piece<T> {
    pub(crate) fn len(&self) -> u64 {
        self.end - self.start
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Spans<T> {
    pieces: VecDeque<Piece<T>>,
    empty: usize,
    positions: u64,
}

impl<T> Default for Spans<T> {
    fn default() -> Self {
        Self { pieces: VecDeque::new(), empty: 0, positions: 0 }
    }
}

impl<T: Copy> Spans<T> {
    /// Positions in all runs.
    pub(crate) fn positions(&self) -> u64 {
        self.positions
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.positions == 0
    }

    /// The runs, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Piece<T>> + '_ {
        self.pieces.iter().copied().filter(|piece| piece.len() > 0)
    }

    /// The first run.
    pub(crate) fn front(&self) -> Option<Piece<T>> {
        self.iter().next()
    }

    /// Puts a run in its place. At either end that is constant time.
    pub(crate) fn put(&mut self, piece: Piece<T>) {
        if piece.len() == 0 {
            return;
        }
        self.positions += piece.len();
        let at = self.pieces.partition_point(|other| other.start < piece.start);
        self.pieces.insert(at, piece);
    }

    /// Takes the first run out.
    pub(crate) fn pop_front(&mut self) -> Option<Piece<T>> {
        loop {
            let piece = self.pieces.pop_front()?;
            if piece.len() > 0 {
                self.positions -= piece.len();
                return Some(piece);
            }
            self.empty -= 1;
        }
    }

    /// Takes positions from the start of the first of `look` leading runs that `wanted` wants: as
    /// many as `most` says for where it starts.
    pub(crate) fn take(
        &mut self,
        look: usize,
        wanted: impl Fn(&T) -> bool,
        most: impl Fn(u64) -> u64,
    ) -> Option<Piece<T>> {
        let leading = self.pieces.iter().enumerate().filter(|(_, piece)| piece.len() > 0);
        let found = leading.take(look).find(|(_, piece)| wanted(&piece.what)).map(|(at, _)| at)?;
        let piece = &mut self.pieces[found];
        let stop = piece.end.min(piece.start.saturating_add(most(piece.start)));
        let taken = Piece { start: piece.start, end: stop, what: piece.what };
        piece.start = stop;
        self.positions -= taken.len();
        self.empty += usize::from(piece.start == piece.end);
        self.sweep();
        Some(taken)
    }

    /// What lies from `start` to `end` is acknowledged (N2): `gone` hears of each part of a run.
    pub(crate) fn cover(&mut self, start: u64, end: u64, mut gone: impl FnMut(Piece<T>)) {
        let mut at = self.pieces.partition_point(|piece| piece.end <= start);
        while let Some(piece) = self.pieces.get_mut(at).filter(|piece| piece.start < end) {
            at += 1;
            let (from, to) = (piece.start.max(start), piece.end.min(end));
            let part = Piece { start: from, end: to, what: piece.what };
            if from >= to || from > piece.start && to < piece.end {
                continue;
            }
            if from == piece.start {
                piece.start = to;
            } else {
                piece.end = from;
            }
            self.empty += usize::from(piece.start == piece.end);
            self.positions -= part.len();
            gone(part);
        }
        self.sweep();
    }

    /// Takes out the runs that `goes` names; `gone` hears of each.
    pub(crate) fn take_all(&mut self, goes: impl Fn(&T) -> bool, mut gone: impl FnMut(Piece<T>)) {
        let positions = &mut self.positions;
        self.pieces.retain(|piece| {
            let leaves = piece.len() > 0 && goes(&piece.what);
            if leaves {
                *positions -= piece.len();
                gone(*piece);
            }
            piece.len() > 0 && !leaves
        });
        self.empty = 0;
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// N3.
    fn sweep(&mut self) {
        while self.pieces.pop_front_if(|piece| piece.len() == 0).is_some() {
            self.empty -= 1;
        }
        if self.empty > 64 + self.pieces.len() / 8 {
            self.pieces.retain(|piece| piece.len() > 0);
            self.empty = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn spans(pieces: &[(u64, u64)]) -> Spans<u8> {
        let mut spans = Spans::default();
        for (start, end) in pieces {
            spans.put(Piece { start: *start, end: *end, what: 0 });
        }
        spans
    }

    fn runs(spans: &Spans<u8>) -> Vec<(u64, u64)> {
        spans.iter().map(|piece| (piece.start, piece.end)).collect()
    }

    /// Who acknowledges every other byte is believed at the edges alone.
    #[test]
    fn holes_make_no_runs() {
        let mut spans = spans(&[(0, 1000), (1000, 2000)]);
        for at in (1..1998).step_by(2) {
            spans.cover(at, at + 1, |_| {});
        }
        assert_eq!(runs(&spans), vec![(0, 999), (1000, 2000)]);
        spans.cover(0, 1500, |_| {});
        assert_eq!(runs(&spans), vec![(1500, 2000)]);
        assert_eq!(spans.positions(), 500);
    }

    proptest! {
        /// Against a set of positions: what is left is a part of what a set would have left, more
        /// at holes alone, and nothing is said to be gone twice.
        #[test]
        fn what_is_covered_is_gone_once(
            cuts in prop::collection::vec(1..50_u64, 1..60),
            acts in prop::collection::vec((0..1500_u64, 1..200_u64, 0..4_u8), 0..100),
        ) {
            let (mut spans, mut at) = (Spans::default(), 0);
            let mut there = Vec::new();
            for cut in cuts {
                spans.put(Piece { start: at, end: at + cut, what: 0_u8 });
                at += cut;
                there.resize(at as usize, true);
            }
            for (start, len, act) in acts {
                let mut gone = Vec::new();
                match act {
                    0 => gone.extend(spans.pop_front()),
                    1 => gone.extend(spans.take(64, |_| true, |_| len)),
                    _ => spans.cover(start, start + len, |piece| gone.push(piece)),
                }
                for piece in gone {
                    for position in piece.start..piece.end {
                        prop_assert!(core::mem::take(&mut there[position as usize]));
                    }
                }
                let left = there.iter().filter(|there| **there).count() as u64;
                prop_assert_eq!(spans.positions(), left);
                prop_assert!(runs(&spans).windows(2).all(|two| two[0].1 <= two[1].0));
                for (start, end) in runs(&spans) {
                    prop_assert!((start..end).all(|position| there[position as usize]));
                }
            }
        }
    }
}
