//! The end of a carrier where packets are sent: which are on their way, which have arrived, and
//! which are lost.
//!
//! A packet's number is used once; what it carried goes again, if at all, in a packet with another
//! number. So a packet that carried something again is lost and found like any other, and there
//! are no timers for single packets: a packet is lost when one that was sent a *reorder window*
//! later has arrived and a report that says so covers it (RFC 8985, by time alone). What no report
//! covers is not lost by that.
//!
//! ```text
//! sent --report: came--> arrived
//!   \---report: missing, and one sent later came--> lost --report: came--> late (it was not lost)
//! ```
//!
//! Invariants:
//! - F1  A packet is reported as arrived or lost once; as late at most once, after it was lost.
//! - F2  A report that speaks of numbers that were never sent is refused, whole.
//! - F3  Below `base` every packet has arrived or is lost. Below `floor`, which follows some time
//!   later, nobody asks any more: until then it is heard which were given up too early.
//!
//! Bounds: a ring by number, at most [`PACKETS_MAX`] packets of 24 bytes and what they carry; a
//! report costs time by the words it covers and the packets that change.

use alloc::vec;
use alloc::vec::Vec;

use ringway_core::{Moment, Span};

use super::mtu::MTUS;
use super::report::{Report, Totals};
use super::rtt::Rtt;
use crate::limits::datagram_bytes_max;
use crate::sabotage::{Rule, Sabotage};
use crate::violation::Violation;

/// Packets on their way, at most: what 1.05 million packets a second are within a second.
pub(super) const PACKETS_MAX: u64 = 1 << 20;
const PACKETS_FIRST: u64 = 1 << 8;
/// A reorder window, at least, and the part of the shortest round trip that it is otherwise.
const REORDER_MIN: Span = Span::from_ms(1);
const REORDER_PART: u64 = 8;
/// The floor moves this often, at most.
const FLOOR_EVERY: Span = Span::from_ms(10);

#[derive(Clone, Copy, Debug)]
struct Packet<T> {
    at: Moment,
    /// Bytes that were sent on this carrier, this packet's among them.
    sent: u64,
    bytes: u32,
    carried: T,
}

// Documented: docs/tunnel.md, section 11.
const _: () = assert!(size_of::<Packet<super::Load>>() <= 40);

/// By place in [`MTUS`]: packets that came and were lost, of those whose datagrams a path of that
/// length passes and one of the place before does not. Nothing is counted while nobody asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lengths {
    pub(crate) came: [u64; MTUS.len()],
    pub(crate) lost: [u64; MTUS.len()],
}

/// The place of datagrams of so many bytes in [`MTUS`].
fn place_of(bytes: u32) -> usize {
    let passes = |mtu: &&usize| datagram_bytes_max(**mtu) >= bytes as usize;
    MTUS.len() - 1 - MTUS.iter().rev().skip(1).take_while(passes).count()
}

/// Counts a packet of so many bytes, where somebody asks.
fn count(
    lengths: &mut Option<(u32, Lengths)>,
    bytes: u32,
    which: impl FnOnce(&mut Lengths) -> &mut [u64; MTUS.len()],
) {
    if let Some((heads, lengths)) = lengths {
        which(lengths)[place_of(bytes.saturating_sub(*heads))] += 1;
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It came.
    Arrived,
    /// It did not, as far as is known.
    Lost,
    /// It was given up too early.
    Late,
}

/// What a report brings for whoever decides how fast to send.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// What the receiver has counted.
    pub totals: Totals,
    /// When the newest packet was sent, and bytes that were sent until then, its own among them.
    pub newest_at: Moment,
    /// See `newest_at`.
    pub newest_sent: u64,
    /// The round trip, if the newest packet is news.
    pub rtt: Option<Span>,
    /// Bytes of packets that arrived, and that were found to be lost.
    pub arrived: u64,
    /// See `arrived`.
    pub lost: u64,
    /// Packets that were found to be lost, and in how many runs of neighbours.
    pub lost_packets: u64,
    /// See `lost_packets`.
    pub lost_runs: u64,
}

/// See the module. `T` is what a packet carries, by a handle.
#[derive(Debug)]
pub(crate) struct Flight<T> {
    ring: Vec<Packet<T>>,
    /// By word of 64 numbers: which arrived, which are lost.
    arrived: Vec<u64>,
    lost: Vec<u64>,
    base: u64,
    next: u64,
    /// Where the ring begins, where it will begin next, and since when that is known.
    floor: u64,
    floor_next: u64,
    floor_at: Moment,
    /// One more than the last packet that was given up unheard.
    given_up: u64,
    /// Bytes of packets that neither arrived nor are lost.
    flying: u64,
    sent: u64,
    /// Bytes that came, as the receiver says.
    came: u64,
    /// One more than the newest packet that is to be reported soon.
    asked: u64,
    /// The newest packet that arrived.
    newest: Option<u64>,
    rtt: Rtt,
    /// Packets below this went by another path.
    moved: u64,
    /// How much later a packet may come than one that was sent after it.
    reorder: Span,
    /// Bytes of a packet around its datagram, and how many came and were lost, if somebody asks.
    lengths: Option<(u32, Lengths)>,
    pub(crate) sabotage: Sabotage,
}

impl<T: Copy + Default> Default for Flight<T> {
    fn default() -> Self {
        let mut flight = Self {
            ring: Vec::new(),
            arrived: Vec::new(),
            lost: Vec::new(),
            base: 0,
            next: 0,
            floor: 0,
            floor_next: 0,
            floor_at: Moment(0),
            given_up: 0,
            flying: 0,
            sent: 0,
            came: 0,
            asked: 0,
            newest: None,
            rtt: Rtt::default(),
            moved: 0,
            reorder: REORDER_MIN,
            lengths: None,
            sabotage: Sabotage::default(),
        };
        flight.resize(PACKETS_FIRST);
        flight
    }
}

impl<T: Copy + Default> Flight<T> {
    fn resize(&mut self, packets: u64) {
        let nothing = Packet { at: Moment(0), sent: 0, bytes: 0, carried: T::default() };
        let mut ring = vec![nothing; packets as usize];
        let (mut arrived, mut lost) =
            (vec![0; packets as usize / 64], vec![0; packets as usize / 64]);
        // Reports are read by whole words: what the floor's has below the floor is kept.
        for number in self.floor & !63..self.next {
            ring[number as usize & (packets as usize - 1)] = *self.packet(number);
        }
        for word in self.floor / 64..self.next.div_ceil(64) {
            let at = word as usize & (packets as usize / 64 - 1);
            let old = self.word(word);
            (arrived[at], lost[at]) = (self.arrived[old], self.lost[old]);
        }
        (self.ring, self.arrived, self.lost) = (ring, arrived, lost);
    }

    fn packet(&self, number: u64) -> &Packet<T> {
        &self.ring[number as usize & (self.ring.len() - 1)]
    }

    fn word(&self, word: u64) -> usize {
        word as usize & (self.arrived.len() - 1)
    }

    /// The number of the next packet.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Below this nothing is of interest any more: what the receiver is to be told.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// Bytes on their way.
    pub(crate) fn flying(&self) -> u64 {
        self.flying
    }

    /// Bytes that were sent since the carrier's begin.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes that came, by the newest report.
    pub(crate) fn came(&self) -> u64 {
        self.came
    }

    /// Round trips.
    pub(crate) fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// Whether lengths are of interest from now on: then each datagram has so many bytes around it.
    pub(crate) fn count_lengths(&mut self, heads: Option<u32>) {
        self.lengths = heads.map(|heads| (heads, Lengths::default()));
    }

    /// Packets by length since this was asked last.
    pub(crate) fn take_lengths(&mut self) -> Lengths {
        self.lengths.as_mut().map(|(_, lengths)| core::mem::take(lengths)).unwrap_or_default()
    }

    /// The path is another one: what was measured says nothing of it.
    pub(crate) fn forget_trips(&mut self) {
        (self.rtt, self.reorder, self.moved) = (Rtt::default(), REORDER_MIN, self.next);
    }

    /// Whether a packet went by the path before this one.
    pub(crate) fn is_of_former(&self, number: u64) -> bool {
        number < self.moved
    }

    /// How much later a packet may come than one that was sent after it.
    pub(crate) fn reorder(&self) -> Span {
        self.reorder
    }

    /// Whether no more can be sent before something is heard.
    pub(crate) fn is_full(&self) -> bool {
        // The word of the floor and that of the next number must not be one.
        self.next - (self.floor & !63) >= PACKETS_MAX
    }

    /// A packet leaves; returns its number, which [`Self::next`] named. One that does not ask to be
    /// reported counts as sent, but not as being on its way.
    ///
    /// # Panics
    /// If [`Self::is_full`].
    pub(crate) fn send(&mut self, now: Moment, bytes: u32, asks: bool, carried: T) -> u64 {
        assert!(!self.is_full(), "who sends has asked");
        if self.next - (self.floor & !63) >= self.ring.len() as u64 {
            self.resize(self.ring.len() as u64 * 2);
        }
        let number = self.next;
        if number.is_multiple_of(64) {
            let at = self.word(number / 64);
            (self.arrived[at], self.lost[at]) = (0, 0);
        }
        self.next += 1;
        self.sent += u64::from(bytes);
        let bytes = if asks { bytes } else { 0 };
        self.flying += u64::from(bytes);
        self.asked = if asks { self.next } else { self.asked };
        let place = number as usize & (self.ring.len() - 1);
        self.ring[place] = Packet { at: now, sent: self.sent, bytes, carried };
        number
    }

    /// A report came. `each` hears what became of packets, in the order of their numbers but for
    /// late ones. `None` if it says nothing about packets that matter still.
    ///
    /// # Errors
    /// [`Violation`]: it speaks of packets that were never sent (F2).
    pub(crate) fn heard(
        &mut self,
        now: Moment,
        report: &Report<'_>,
        mut each: impl FnMut(&T, Fate),
    ) -> Result<Option<Heard>, Violation> {
        let totals = report.totals;
        if totals.newest >= self.next || totals.packets > self.next || totals.bytes > self.sent {
            return Err(Violation::ReportOfNothing);
        }
        self.came = self.came.max(totals.bytes);
        let floor = self.floor & !63;
        if totals.newest < floor {
            return Ok(None);
        }
        let newest = *self.packet(totals.newest);
        let rtt = self.trip(now, &totals, newest.at);
        let before = newest.at - self.patience();
        let (mut arrived, mut lost, mut lost_packets, mut lost_runs) = (0, 0, 0, 0);
        let (mut lengths, mut latest) = (self.lengths, Span::ZERO);
        report.words(|first, covered, came| {
            if first < floor {
                return;
            }
            let at = self.word(first / 64);
            let known = covered & below(first, totals.newest + 1);
            let found = came & known & !self.arrived[at] & !below(first, self.floor);
            if found != 0 {
                let late = found & self.lost[at];
                self.arrived[at] |= found;
                self.lost[at] &= !found;
                for number in bits(first, found) {
                    let packet = self.packet(number);
                    count(&mut lengths, packet.bytes, |lengths| &mut lengths.came);
                    if late >> (number - first) & 1 == 1 {
                        latest = latest.max(self.late_by(number, newest.at));
                        each(&packet.carried, Fate::Late);
                    } else {
                        arrived += u64::from(packet.bytes);
                        each(&packet.carried, Fate::Arrived);
                    }
                }
            }
            let past = below(first, self.base);
            let missing = known & !self.arrived[at] & !self.lost[at] & !past;
            let mut found = 0;
            for number in bits(first, missing) {
                let packet = self.packet(number);
                if packet.at > before {
                    break;
                }
                lost += u64::from(packet.bytes);
                count(&mut lengths, packet.bytes, |lengths| &mut lengths.lost);
                each(&packet.carried, Fate::Lost);
                found |= 1 << (number - first);
            }
            self.lost[at] |= found;
            lost_packets += u64::from(found.count_ones());
            // Runs that go on over the end of a word count twice, which is little.
            lost_runs += u64::from((found & !(found << 1)).count_ones());
        });
        self.flying -= arrived + lost;
        self.lengths = lengths;
        self.judge_patience(latest);
        self.advance(now);
        let (newest_at, newest_sent) = (newest.at, newest.sent);
        let heard =
            Heard { totals, newest_at, newest_sent, rtt, arrived, lost, lost_packets, lost_runs };
        Ok(Some(heard))
    }

    /// How much sooner than the newest a packet left that comes late; by another path it took
    /// another time.
    fn late_by(&self, number: u64, newest_at: Moment) -> Span {
        if self.is_of_former(number) { Span::ZERO } else { newest_at.since(self.packet(number).at) }
    }

    /// The round trip of the newest packet, if that is news.
    fn trip(&mut self, now: Moment, totals: &Totals, sent_at: Moment) -> Option<Span> {
        if self.newest.is_some_and(|before| totals.newest <= before) {
            return None;
        }
        self.newest = Some(totals.newest);
        if self.is_of_former(totals.newest) {
            return None;
        }
        let held = self.sabotage.unless(Rule::HeldIsNoTrip, 0, totals.held.0);
        let trip = Span(now.since(sent_at).0.saturating_sub(held));
        self.rtt.sample(now, trip);
        Some(trip)
    }

    /// How much later a packet may have been sent than one that is missing.
    pub(crate) fn patience(&self) -> Span {
        if self.sabotage.breaks(Rule::LossTakesTime) {
            return Span::ZERO;
        }
        self.reorder.max(Span(self.rtt.least().0 / REORDER_PART))
    }

    /// Who gave up too early waits longer from then on; slowly less again.
    fn judge_patience(&mut self, latest: Span) {
        if latest > self.reorder && !self.sabotage.breaks(Rule::LateIsHeard) {
            let most = Span(self.rtt.smooth().0).max(REORDER_MIN);
            self.reorder = Span(latest.0 + latest.0 / 4).min(most);
        } else {
            let less = self.reorder.0 / 4096;
            self.reorder = Span(self.reorder.0 - less).max(REORDER_MIN);
        }
    }

    /// The base moves over what is settled, and later the floor (F3).
    fn advance(&mut self, now: Moment) {
        if self.sabotage.breaks(Rule::LateIsWaitedFor) {
            (self.floor_next, self.floor_at) = (self.base, Moment(0));
        }
        // Of what was given up without a word more may come than what was overtaken.
        let young = self.given_up > self.floor
            && now.since(self.packet(self.given_up - 1).at) < Span(2 * self.rtt.smooth().0);
        if !young && now.since(self.floor_at) >= Span(2 * self.reorder.0).max(FLOOR_EVERY) {
            (self.floor, self.floor_next, self.floor_at) = (self.floor_next, self.base, now);
        }
        while self.base < self.next {
            let at = self.word(self.base / 64);
            let done = self.arrived[at] | self.lost[at] | below(self.base & !63, self.base);
            let ahead = u64::from((!done).trailing_zeros());
            let next = ((self.base & !63) + ahead).min(self.next);
            if next == self.base {
                return;
            }
            self.base = next;
        }
    }

    /// Gives up everything that is on its way: the carrier is gone, or nobody answers on it.
    pub(crate) fn lose_all(&mut self, mut each: impl FnMut(&T)) {
        for number in self.base..self.next {
            let (at, bit) = (self.word(number / 64), 1 << (number % 64));
            if (self.arrived[at] | self.lost[at]) & bit == 0 {
                self.lost[at] |= bit;
                each(&self.packet(number).carried);
            }
        }
        (self.base, self.flying, self.given_up) = (self.next, 0, self.next);
        // What comes of those after all is worth hearing, but not worth having no room for others.
        if self.next - self.floor > PACKETS_MAX / 2 {
            (self.floor, self.floor_next) = (self.base, self.base);
        }
    }

    /// Whether something is known of every packet up to this number.
    pub(crate) fn is_known(&self, number: u64) -> bool {
        number < self.base
    }

    /// What a packet carries that is on its way still, as far as is known.
    pub(crate) fn flying_with(&self, number: u64) -> Option<T> {
        let (at, bit) = (self.word(number / 64), 1 << (number % 64));
        let settled = number < self.base || (self.arrived[at] | self.lost[at]) & bit != 0;
        (!settled).then(|| self.packet(number).carried)
    }

    /// The number of a packet that carried this, if it is remembered, as only sabotage asks.
    pub(crate) fn number_with(&self, is_it: impl Fn(&T) -> bool) -> Option<u64> {
        (self.floor..self.next).find(|number| is_it(&self.packet(*number).carried))
    }

    /// When the last packet was sent that asks; `None` if none such is on its way.
    pub(crate) fn last_asked(&self) -> Option<Moment> {
        (self.base < self.asked).then(|| self.packet(self.asked - 1).at)
    }

    /// Packets that were sent since the last one that asks.
    pub(crate) fn unasked(&self) -> u64 {
        self.next - self.asked
    }
}

/// Of a word from `first` on, the bits of numbers below `end`.
fn below(first: u64, end: u64) -> u64 {
    match end.saturating_sub(first) {
        0 => 0,
        64.. => u64::MAX,
        count => (1 << count) - 1,
    }
}

/// The numbers of a word's bits.
fn bits(first: u64, mut word: u64) -> impl Iterator<Item = u64> {
    core::iter::from_fn(move || {
        let bit = (word != 0).then(|| u64::from(word.trailing_zeros()))?;
        word &= word - 1;
        Some(first + bit)
    })
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
