//! The end of a carrier where packets arrive: which have come, and when to say so.
//!
//! The sender moves a *base*: below it nothing interests it any more. What came at or above it is
//! said again and again until it moves, so that reports may be lost: the newest numbers in several
//! reports running, older ones in turn.
//!
//! Invariants:
//! - A1  A number at or above the base that came is said to have come in every report that covers
//!   it; one that did not never is.
//! - A2  What is remembered is at most [`SPAN_MAX`] numbers; a packet beyond moves the base, which
//!   costs the sender a packet sent again and nothing else.
//!
//! Bounds: a bit a number. A report costs time by the words that it covers. Not here: whether a
//! number came twice (`ringway_crypto::DatagramOpener` drops those before).

use alloc::vec;
use alloc::vec::Vec;

use ringway_core::{Moment, Span};

use super::report::{Totals, Writer};
use crate::frame::VARINT_MAX;
use crate::sabotage::{Rule, Sabotage};

/// Numbers that are remembered at most.
pub(super) const SPAN_MAX: u64 = 1 << 20;
/// What is remembered at first; it doubles.
const SPAN_FIRST: u64 = 1 << 10;
/// Reports running in which the newest numbers are said.
const NEWEST_AGAIN: u64 = 3;
/// All that is remembered is said within so many reports.
const ALL_WITHIN: u64 = 8;
/// A report waits at most so long and at least so long for more to come.
const WAIT_MAX: Span = Span::from_ms(10);
const WAIT_MIN: Span = Span::from_ms(1);
/// The report on the last of so many packets that asked, since one was made twice, is made twice:
/// whoever begins by trains sends nothing more before it has come. So often, for no sender needs as
/// many trains.
const MANY: u64 = 8;
const REPEATS: u32 = 16;
/// Reports are at most this part of the bytes that came.
const SHARE: u64 = 100;
/// What may be said before anything came, so to speak: reports of the first packets are not put
/// off.
const CREDIT_MAX: u64 = 4096;
/// Who has said too much waits no longer than so long.
pub(super) const WAIT_EVER: Span = Span::from_ms(25);

/// See the module.
#[derive(Debug)]
pub struct Arrivals {
    bits: Vec<u64>,
    base: u64,
    /// One more than the newest that came; zero before any.
    end: u64,
    newest_at: Moment,
    packets: u64,
    bytes: u64,
    dropped: u64,
    refused: u64,
    /// Where the next report's newest chunk begins: what the last ones began with.
    before: [u64; NEWEST_AGAIN as usize],
    /// Where the next old chunk begins.
    turn: u64,
    /// How long a report waits, as the sender wishes.
    wait: Span,
    /// When there is something to say.
    due: Option<Moment>,
    /// When the last round of reports was begun.
    said_at: Moment,
    /// Packets that asked since nothing new was said, and of those, such since the last report:
    /// whoever only reports asks for none, or two ends would go on for ever.
    asked: u64,
    asked_anew: bool,
    /// How often a report may still be made twice.
    repeats: u32,
    /// Bytes of reports that may be said.
    credit: u64,
    pub(crate) sabotage: Sabotage,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            bits: vec![0; (SPAN_FIRST / 64) as usize],
            base: 0,
            end: 0,
            newest_at: Moment(0),
            packets: 0,
            bytes: 0,
            dropped: 0,
            refused: 0,
            before: [0; NEWEST_AGAIN as usize],
            turn: 0,
            wait: WAIT_MIN,
            due: None,
            said_at: Moment(0),
            asked: 0,
            asked_anew: false,
            repeats: REPEATS,
            credit: CREDIT_MAX,
            sabotage: Sabotage::default(),
        }
    }
}

impl Arrivals {
    /// A packet came that did not come before; `bytes` as the sender counts them. It is reported
    /// soon if it `asks`, and otherwise with the next that does.
    pub fn note(&mut self, now: Moment, number: u64, bytes: u64, asks: bool) {
        // No sender gets there, and no report could say it.
        if number > VARINT_MAX {
            return;
        }
        self.packets += 1;
        self.bytes += bytes;
        self.credit = (self.credit + bytes / SHARE + 1).min(CREDIT_MAX.max(self.bytes / SHARE));
        if number >= self.end {
            self.extend(number);
            (self.end, self.newest_at) = (number + 1, now);
        }
        if number >= self.base {
            let (word, bit) = self.place(number);
            self.bits[word] |= bit;
        }
        if asks {
            (self.asked, self.asked_anew) = (self.asked + 1, true);
        }
        if asks && self.due.is_none() {
            self.due = Some(self.next_at().max(now));
        }
    }

    /// The host has dropped so many datagrams for want of room, all in all.
    pub fn note_dropped(&mut self, dropped: u64) {
        self.dropped = self.dropped.max(dropped);
    }

    /// A packet came that there was no room for.
    pub fn note_refused(&mut self) {
        self.refused += 1;
    }

    /// The sender says from where on it wants to hear, and how often.
    pub fn wanted(&mut self, base: u64, wait: Span) {
        self.wait = Span(wait.0.clamp(WAIT_MIN.0, WAIT_MAX.0));
        self.move_base(base.min(self.end));
    }

    fn place(&self, number: u64) -> (usize, u64) {
        ((number / 64) as usize & (self.bits.len() - 1), 1 << (number % 64))
    }

    fn move_base(&mut self, base: u64) {
        self.base = self.base.max(base);
    }

    /// Makes room for numbers up to this one, which is the newest.
    fn extend(&mut self, number: u64) {
        let words = |bits: &Vec<u64>| bits.len() as u64;
        // The word of the base and that of the number have places of their own.
        while number / 64 - self.base / 64 >= words(&self.bits) && words(&self.bits) < SPAN_MAX / 64
        {
            let mut wider = vec![0; self.bits.len() * 2];
            for word in self.base / 64..self.end.div_ceil(64) {
                let old = self.bits[word as usize & (self.bits.len() - 1)];
                let at = word as usize & (wider.len() - 1);
                wider[at] = old;
            }
            self.bits = wider;
        }
        if number / 64 - self.base / 64 >= words(&self.bits) {
            self.move_base((number / 64 + 1 - words(&self.bits)) * 64);
        }
        // Words behind the end are those of numbers long past.
        let first = self.end.div_ceil(64).max((number / 64 + 1).saturating_sub(words(&self.bits)));
        for word in first..=number / 64 {
            let at = word as usize & (self.bits.len() - 1);
            self.bits[at] = 0;
        }
    }

    /// When the next report may be made.
    fn next_at(&self) -> Moment {
        self.said_at + self.sabotage.unless(Rule::ReportsSpaced, Span::ZERO, self.wait)
    }

    /// When [`Self::report`] has something to say.
    pub fn due(&self) -> Option<Moment> {
        self.due
    }

    /// What has come: packets and bytes.
    pub fn totals(&self) -> (u64, u64) {
        (self.packets, self.bytes)
    }

    /// Appends the bodies of reports, each of at most `room` bytes, by calling `each` with an empty
    /// buffer filled; several if the newest numbers need more than one. Nothing if none is due.
    pub fn report(&mut self, now: Moment, room: usize, mut each: impl FnMut(&[u8])) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        let last = self.end - 1;
        let first = self.sabotage.unless(Rule::NewestAgain, NEWEST_AGAIN as usize - 1, 0);
        let mut from = self.before[first].max(self.base) / 64;
        self.before.rotate_left(1);
        self.before[NEWEST_AGAIN as usize - 1] = last;
        let (base, newest) = (self.base / 64, self.before[0].max(self.base) / 64);
        // Words of older numbers that are still to be said this time.
        let mut older = newest.saturating_sub(base) / ALL_WITHIN;
        let mut out = Vec::with_capacity(room);
        let mut said = 0;
        loop {
            out.clear();
            let totals = Totals {
                newest: last,
                arrived: self.newest_at,
                held: now.since(self.newest_at),
                packets: self.packets,
                bytes: self.bytes,
                dropped: self.dropped + self.refused,
            };
            let mut writer = Writer::new(&mut out, room, &totals);
            let mask = self.bits.len() - 1;
            let words = |range: core::ops::RangeInclusive<u64>| {
                range.map(|word| self.bits[word as usize & mask])
            };
            from += writer.chunk(from * 64, words(from..=last / 64));
            let whole = from > last / 64;
            if whole && base < newest && !self.sabotage.breaks(Rule::OlderInTurn) {
                // What is left is for older ones, each in turn: all of them within some reports.
                if !(base..newest).contains(&self.turn) {
                    self.turn = base;
                }
                let covered = writer.chunk(self.turn * 64, words(self.turn..=newest - 1));
                (self.turn, older) = (self.turn + covered, older.saturating_sub(covered));
                // Who only followed the newest would never come back to the oldest.
                if self.turn >= newest {
                    (self.turn, older) = (base, 0);
                }
            }
            said += out.len() as u64 + ENVELOPE;
            each(&out);
            if whole && (older == 0 || said >= self.credit) {
                break;
            }
        }
        if !self.sabotage.breaks(Rule::ReportsBounded) {
            self.credit = self.credit.saturating_sub(said);
        }
        (self.due, self.said_at) = (None, now);
        if self.sabotage.breaks(Rule::BaseIsSenders) {
            self.move_base(last);
        }
        // Who has said more than its share waits until as much has come, or for some time.
        if self.credit == 0 {
            self.said_at = now + WAIT_EVER - self.wait;
        }
        // If nothing more comes, nobody would say again what is lost of this.
        let may = self.repeats > 0 && !self.sabotage.breaks(Rule::LastIsSaidTwice);
        if core::mem::take(&mut self.asked_anew) {
            self.due = (may && self.asked >= MANY).then(|| self.next_at());
        } else {
            (self.asked, self.repeats) = (0, self.repeats - 1);
        }
    }
}

/// Bytes of a packet around a report: heads of IP, UDP and ours, a tag, a frame's head.
const ENVELOPE: u64 = 64;

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::report::Report;
    use super::*;

    const MS: u64 = 1_000_000;

    fn said(arrivals: &mut Arrivals, now: Moment, room: usize) -> Vec<(u64, bool)> {
        let mut all = Vec::new();
        arrivals.report(now, room, |body| {
            let report = Report::read(body).unwrap();
            let newest = report.totals.newest;
            report.words(|first, covered, came| {
                for bit in (0..64).filter(|bit| covered >> bit & 1 == 1) {
                    if first + bit <= newest {
                        all.push((first + bit, came >> bit & 1 == 1));
                    }
                }
            });
        });
        all
    }

    /// A number is said in three reports running, and after that until the sender moves its base.
    #[test]
    fn what_came_is_said_until_nobody_wants_to_hear_it() {
        let mut arrivals = Arrivals::default();
        for round in 0..20_u64 {
            let now = Moment((round + 1) * 10 * MS);
            for number in round * 100..round * 100 + 100 {
                if number % 5 != 0 {
                    arrivals.note(now, number, 1500, true);
                }
            }
            let said: BTreeSet<_> = said(&mut arrivals, now, 1200).into_iter().collect();
            for (number, came) in &said {
                assert_eq!(*came, number % 5 != 0, "A1");
            }
            for number in (round.saturating_sub(2) * 100)..round * 100 + 99 {
                assert!(said.iter().any(|(one, _)| *one == number), "{number} in round {round}");
            }
        }
        arrivals.note(Moment(300 * MS), 2000, 1500, true);
        arrivals.wanted(1900, Span::from_ms(1));
        assert!(said(&mut arrivals, Moment(400 * MS), 1200).iter().all(|(one, _)| *one >= 1856));
    }

    /// Reports of all that is remembered are spread over some reports, each within its room.
    #[test]
    fn old_numbers_come_in_turn() {
        let mut arrivals = Arrivals::default();
        let mut rest: BTreeSet<u64> = (0..100_000).collect();
        for number in (0..100_000).step_by(2) {
            arrivals.note(Moment(MS), number, 9000, true);
        }
        // The newest chunk once says all; then the rest has its turns.
        said(&mut arrivals, Moment(2 * MS), 1200);
        for round in 1..40 {
            let now = Moment((round + 2) * 10 * MS);
            arrivals.note(now, 100_000 + round, 9000, true);
            for (number, came) in said(&mut arrivals, now, 1200) {
                if number < 100_000 {
                    assert_eq!(came, number % 2 == 0);
                    rest.remove(&number);
                }
            }
        }
        assert!(rest.is_empty(), "{} were not said again", rest.len());
    }

    /// Totals count since the begin, whatever was said before: who misses reports misses nothing.
    #[test]
    fn totals_survive_lost_reports() {
        let mut arrivals = Arrivals::default();
        for number in 0..100_u64 {
            let now = Moment((number + 1) * 30 * MS);
            arrivals.note(now, number, 1000, true);
            let mut said = Vec::new();
            arrivals.report(now, 1200, |body| said.push(Report::read(body).unwrap().totals));
            let [totals] = said[..] else { panic!("{said:?}") };
            assert_eq!((totals.packets, totals.bytes), (number + 1, (number + 1) * 1000));
        }
    }

    /// What is said of the last of many packets is said once more, and no more; of few it is not,
    /// nor for packets that ask for nothing, nor for ever.
    #[test]
    fn the_last_of_many_is_said_twice() {
        let mut arrivals = Arrivals::default();
        let (mut number, mut now) = (0, 0);
        let mut reports_on = |packets: u64, asks: bool| {
            now += 100;
            for _ in 0..packets {
                arrivals.note(Moment(now * MS), number, 1500, asks);
                number += 1;
            }
            let mut reports = 0;
            for now in now..now + 100 {
                arrivals.report(Moment(now * MS), 1200, |_| reports += 1);
                // Somebody else's reports ask for none.
                arrivals.note(Moment(now * MS), number, 100, false);
                number += 1;
            }
            (reports, arrivals.due())
        };
        assert_eq!(reports_on(MANY, true), (2, None));
        assert_eq!(reports_on(MANY - 1, true), (1, None));
        assert_eq!(reports_on(1, true), (2, None), "those of before count");
        assert_eq!(reports_on(1, true), (1, None));
        assert_eq!(reports_on(100, false), (0, None));
        for repeat in 2..=REPEATS {
            assert_eq!(reports_on(MANY, true), (1 + u64::from(repeat < REPEATS), None));
        }
    }

    /// However fast new numbers come, the oldest is said again soon.
    #[test]
    fn the_oldest_is_not_forgotten_for_the_newest() {
        let mut arrivals = Arrivals::default();
        for round in 0..50 {
            let now = Moment((round + 1) * 10 * MS);
            for number in round * 2000 + 1..round * 2000 + 2000 {
                arrivals.note(now, number, 9000, true);
            }
            let said = said(&mut arrivals, now, 8000);
            assert!(said.contains(&(0, false)), "round {round}");
        }
    }

    /// A jump beyond what is remembered forgets the oldest, and takes no memory for the gap.
    #[test]
    fn a_jump_moves_the_base() {
        let mut arrivals = Arrivals::default();
        arrivals.note(Moment(0), 3, 1500, true);
        arrivals.note(Moment(0), 1 << 40, 1500, true);
        assert!(arrivals.bits.len() as u64 <= SPAN_MAX / 64);
        let said = said(&mut arrivals, Moment(100 * MS), 1200);
        assert!(said.contains(&(1 << 40, true)));
        assert!(said.iter().filter(|(_, came)| *came).count() == 1);
    }

    /// Reports cost at most a hundredth of what comes, once some has.
    #[test]
    fn reports_are_a_hundredth() {
        let mut arrivals = Arrivals::default();
        let mut said = 0;
        for number in 0..20_000_u64 {
            let now = Moment(number * MS / 2);
            arrivals.note(now, number, 1500, true);
            arrivals.report(now, 1200, |body| said += body.len() as u64 + ENVELOPE);
        }
        assert!(said <= 20_000 * 1500 / 100 * 3 / 2, "{said}");
        assert!(said >= 20_000 * 1500 / 400, "{said}: more would be heard sooner");
    }

    proptest! {
        #[test]
        fn nothing_is_said_that_is_not_so(
            steps in prop::collection::vec((0..300_u64, any::<bool>(), 0..2000_u64), 1..200),
        ) {
            let mut arrivals = Arrivals::default();
            let (mut came, mut next, mut base) = (BTreeSet::new(), 0, 0);
            for (at, (skip, reports, move_base)) in steps.into_iter().enumerate() {
                let now = Moment(at as u64 * 30 * MS);
                next += skip;
                arrivals.note(now, next, 1000, true);
                came.insert(next);
                next += 1;
                if move_base < next / 4 {
                    base = base.max(move_base);
                    arrivals.wanted(base, Span::from_ms(2));
                }
                if reports {
                    for (number, was) in said(&mut arrivals, now, 300) {
                        prop_assert!(number < base || was == came.contains(&number));
                    }
                }
            }
        }
    }
}
