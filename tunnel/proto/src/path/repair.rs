//! What was lost goes again, and what was lost again goes several times.
//!
//! A *segment* is a run of positions of a flow that is cut once and stays as it is. It is in one or
//! more packets; when all of those are lost it has another *round*, with more copies than the one
//! before: alone, alone, two to four, six, eight. So hardly anything takes more than four round
//! trips at a loss of 20 %, or three at 5 %, for 4 % of packets more than the least there could be,
//! and the windows at both ends need to hold no more than that. Copies of one round are apart from
//! each other, because losses come in bursts.
//!
//! Invariants:
//! - R1  A segment is kept while a packet with it is on its way, or is to be sent.
//! - R2  It has another round only when all packets of the one before are lost.
//!
//! Bounds: 40 bytes a segment, at most as many as packets on their way and copies to be sent;
//! constant time each. Not here: which carrier takes a copy.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use ringway_core::{Moment, Span};

use crate::sabotage::{Rule, Sabotage};

/// Copies in each round; in later ones as in the last. How many the third has depends on the loss:
/// it is the last one that is common enough to cost anything.
const COPIES: [u8; 5] = [1, 1, 2, 6, 8];
const THIRD: usize = 2;
const THIRD_MAX: u8 = 4;
/// What the third round may cost, as a part of all packets.
const THIRD_COST: f64 = 0.0406;
/// Copies are at least so far apart.
const APART_MIN: Span = Span::from_ms(1);

/// A segment, by its place, and how many had that place before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentId {
    place: u32,
    life: u32,
}

/// A run of a flow's positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run<F> {
    /// Which flow.
    pub flow: F,
    /// Its first position, and how many there are.
    pub start: u64,
    /// See `start`.
    pub len: u32,
}

#[derive(Clone, Copy, Debug)]
struct Segment<F> {
    run: Run<F>,
    life: u32,
    /// Packets with it that are on their way, and copies that are to be sent.
    out: u8,
    round: u8,
    /// Copies of the present round.
    copies: u8,
    arrived: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Repair<F> {
    segments: Vec<Segment<F>>,
    free: Vec<u32>,
    /// The first copies of their rounds.
    again: VecDeque<SegmentId>,
    /// Further copies: when, which, and how many are left.
    copies: VecDeque<(Moment, SegmentId, u8)>,
    in_round: [u8; COPIES.len()],
    apart: Span,
    /// Packets that carried something again.
    resent: u64,
    pub(crate) sabotage: Sabotage,
}

impl<F> Default for Repair<F> {
    fn default() -> Self {
        Self {
            segments: Vec::new(),
            free: Vec::new(),
            again: VecDeque::new(),
            copies: VecDeque::new(),
            in_round: COPIES,
            apart: APART_MIN,
            resent: 0,
            sabotage: Sabotage::default(),
        }
    }
}

impl<F: Copy> Repair<F> {
    /// Something is sent for the first time.
    pub(crate) fn begin(&mut self, run: Run<F>) -> SegmentId {
        let place = self.free.pop().unwrap_or_else(|| {
            self.segments.push(Segment {
                run,
                life: 0,
                out: 0,
                round: 0,
                copies: 1,
                arrived: false,
            });
            self.segments.len() as u32 - 1
        });
        let life = self.segments[place as usize].life;
        self.segments[place as usize] =
            Segment { run, life, out: 1, round: 0, copies: 1, arrived: false };
        SegmentId { place, life }
    }

    /// What a segment is.
    pub(crate) fn run(&self, id: SegmentId) -> Run<F> {
        self.segments[id.place as usize].run
    }

    /// One more packet with it leaves, whatever became of the others: it counts as one of its
    /// round. Returns whether it may.
    pub(crate) fn copy(&mut self, id: SegmentId) -> bool {
        let segment = &mut self.segments[id.place as usize];
        let may = segment.life == id.life && !segment.arrived && segment.out < u8::MAX;
        segment.out += u8::from(may);
        self.resent += u64::from(may);
        may
    }

    /// A packet with it came. Returns what that is if it is news.
    pub(crate) fn arrived(&mut self, id: SegmentId) -> Option<Run<F>> {
        let segment = &mut self.segments[id.place as usize];
        let news = !core::mem::replace(&mut segment.arrived, true);
        let run = segment.run;
        self.release(id);
        news.then_some(run)
    }

    /// A packet with it was lost after all: it counts no more. Returns whether it goes again.
    pub(crate) fn lost(&mut self, id: SegmentId) -> bool {
        let segment = &mut self.segments[id.place as usize];
        if segment.arrived || segment.out > 1 {
            self.release(id);
            return false;
        }
        segment.round = segment.round.saturating_add(1).min(COPIES.len() as u8 - 1);
        segment.out = self.in_round[usize::from(segment.round)];
        if self.sabotage.breaks(Rule::CopiesGrow) {
            segment.out = 1;
        }
        segment.copies = segment.out;
        self.again.push_back(id);
        true
    }

    /// A packet with it, which was given up, came all the same. Returns what that is if it is news:
    /// the segment may be done with by now.
    pub(crate) fn came_late(&mut self, id: SegmentId) -> Option<Run<F>> {
        let segment = &mut self.segments[id.place as usize];
        let news = segment.life == id.life && !segment.arrived;
        segment.arrived |= news;
        news.then_some(segment.run)
    }

    fn release(&mut self, id: SegmentId) {
        let segment = &mut self.segments[id.place as usize];
        segment.out -= 1;
        if segment.out == 0 {
            segment.life = segment.life.wrapping_add(1);
            self.free.push(id.place);
        }
    }

    /// What is to be sent again now, if anything, and if it is not longer than `room`; those that
    /// `wanted` does not want any more are passed over. Whoever takes it sends it.
    pub(crate) fn next(
        &mut self,
        now: Moment,
        room: usize,
        wanted: impl Fn(&Run<F>) -> bool,
    ) -> Option<SegmentId> {
        loop {
            let first = self.copies.front().filter(|(due, ..)| *due <= now).map(|(_, id, _)| *id);
            let first = first.or_else(|| self.again.front().copied())?;
            let segment = &self.segments[first.place as usize];
            if !segment.arrived && segment.run.len as usize > room {
                return None;
            }
            let (id, left) = match self.copies.pop_front_if(|(due, ..)| *due <= now) {
                Some((_, id, left)) => (id, left),
                None => {
                    let id = self.again.pop_front()?;
                    (id, self.segments[id.place as usize].copies)
                }
            };
            let segment = &mut self.segments[id.place as usize];
            segment.arrived |= !wanted(&segment.run);
            if segment.arrived {
                segment.out -= left - 1;
                self.release(id);
                continue;
            }
            if left > 1 {
                let broken = self.sabotage.breaks(Rule::CopiesApart);
                let apart = if broken { Span::ZERO } else { self.apart };
                self.copies.push_back((now + apart, id, left - 1));
            }
            self.resent += 1;
            return Some(id);
        }
    }

    /// Nothing goes again from here: `each` hears of every run that was to.
    pub(crate) fn hand_over(&mut self, mut each: impl FnMut(Run<F>)) {
        while let Some(id) = self.next(Moment(u64::MAX), usize::MAX, |_| true) {
            let run = self.run(id);
            // Other copies of it are as good as arrived: they are not wanted here any more.
            if self.arrived(id).is_some() {
                each(run);
            }
        }
    }

    /// When [`Self::next`] has something, if time alone brings it.
    pub(crate) fn due(&self) -> Option<Moment> {
        if !self.again.is_empty() {
            return Some(Moment(0));
        }
        self.copies.front().map(|(due, ..)| *due)
    }

    /// This part of packets is lost: the fewer, the more copies the third round can afford.
    pub(crate) fn set_loss(&mut self, loss: f64) {
        if self.sabotage.breaks(Rule::ThirdAsAffordable) {
            return;
        }
        let afford = THIRD_COST / (loss * loss).max(0.001);
        self.in_round[THIRD] = (afford as u8).saturating_add(1).clamp(COPIES[THIRD], THIRD_MAX);
    }

    /// Bursts of losses last so long: copies are further apart than that, but by no more than
    /// `most`.
    pub(crate) fn set_apart(&mut self, burst: Span, most: Span) {
        self.apart = Span(burst.0.saturating_mul(4)).min(most).max(APART_MIN);
    }

    /// Copies of each round, and how far they are apart.
    pub(crate) fn plan(&self) -> ([u8; COPIES.len()], Span) {
        (self.in_round, self.apart)
    }

    /// Packets that carried something again.
    pub(crate) fn resent(&self) -> u64 {
        self.resent
    }

    /// Segments that are kept.
    pub(crate) fn kept(&self) -> usize {
        self.segments.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: u64) -> Run<u32> {
        Run { flow: 7, start, len: 100 }
    }

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    /// Alone, alone, two, six, eight, and eight for ever; copies of a round a millisecond apart.
    #[test]
    fn what_is_lost_again_goes_more_often() {
        let mut repair = Repair::default();
        let id = repair.begin(run(0));
        let mut now = 0;
        for copies in [1, 2, 6, 8, 8, 8] {
            assert!(repair.lost(id), "all packets of the round before are lost");
            for copy in 0..copies {
                assert_eq!(
                    repair.next(at(now), 100, |_| true),
                    Some(id),
                    "copy {copy} of {copies}"
                );
                assert_eq!(repair.next(at(now), 100, |_| true), None);
                now += 1;
            }
            for left in 1..copies {
                assert!(!repair.lost(id), "R2: {left} are still on their way");
            }
        }
        assert_eq!(repair.arrived(id), Some(run(0)));
        assert_eq!(repair.kept(), 0);
        assert_eq!(repair.resent(), 33);
    }

    /// What has come is not sent again, and its place is used again when nothing speaks of it.
    #[test]
    fn what_came_goes_no_more() {
        let mut repair = Repair::default();
        let id = repair.begin(run(0));
        for _ in 0..2 {
            repair.lost(id);
            repair.next(at(0), 100, |_| true);
        }
        assert_eq!(repair.arrived(id), Some(run(0)), "the first of two copies");
        assert_eq!(repair.kept(), 1, "R1: a copy waits");
        assert_eq!(repair.next(at(9), 100, |_| true), None);
        assert_eq!(repair.kept(), 0);
        let next = repair.begin(run(100));
        assert_eq!(next.place, id.place);
        assert_eq!(repair.came_late(id), None, "it is another one now");
        assert_eq!(repair.came_late(next), Some(run(100)));
        assert!(!repair.lost(next), "it came");
        assert_eq!(repair.kept(), 0);
    }

    #[test]
    fn what_nobody_wants_is_passed_over() {
        let mut repair = Repair::default();
        let (first, second) = (repair.begin(run(0)), repair.begin(run(100)));
        repair.lost(first);
        repair.lost(second);
        assert_eq!(repair.next(at(0), 100, |run| run.start >= 100), Some(second));
        assert_eq!(repair.next(at(0), 100, |_| true), None);
        assert_eq!(repair.kept(), 1);
    }
}
