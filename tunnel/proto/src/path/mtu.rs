//! The search for the longest datagram that a path passes whole (RFC 8899).
//!
//! ```text
//! least --asked about a longer one: it came--> that is used, and a still longer one asked about
//!       \--it did not, TRIES times--> it is too long, and all longer; one between is asked about
//! nothing is left between --> found; much later what was too long is asked about again
//! longer ones are lost than any that comes --> doubt: what is used is asked about
//!       \--it did not come, DOUBTS times--> the path has become narrower: least
//! ```
//!
//! What always holds:
//! - U1  What is used is the least, which every path passes (RFC 8200, section 5), or has arrived.
//! - U2  One question is on its way at a time. Whether its answer counts is its serial's to say:
//!   what was asked of another path, or before the kernel said more, does not.
//! - U3  A question counts as lost if something later came. Where all that is on its way is given
//!   up without a word it says nothing.
//!
//! Lengths are those of paths that there are ([`MTUS`]): a search takes seven questions at most,
//! and three on nearly all paths.
//! Bounds: constant time and memory. Not here: how a question is put (`session/packets.rs`).

use ringway_core::{Moment, Span};

use super::flight::Lengths;
use crate::limits::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, datagram_bytes_max};
use crate::sabotage::{Rule, Sabotage};

/// What paths pass: IPv6's least, tunnels within tunnels and over PPPoE, Ethernet, and jumbo frames
/// of several makers.
pub(super) const MTUS: [usize; 9] = [1280, 1380, 1432, 1492, 1500, 2002, 4352, 8166, 9000];
/// The place of the usual one, which is asked about first.
const USUAL: usize = 4;
/// How often a question is put: a path loses packets that are not too long.
const TRIES: u32 = 4;
/// When what was too long is asked about again.
const AGAIN: Span = Span::from_s(600);
/// So many packets that are longer than any that comes are lost in a row, for a round trip and at
/// least for so long, where it is doubted that the path passes them.
const HOLE_PACKETS: u64 = 4;
const HOLE_MIN: Span = Span::from_ms(50);
/// How often it is asked then, since that may have been chance.
const DOUBTS: u32 = 6;

const _: () = assert!(datagram_bytes_max(MTUS[0]) == DATAGRAM_BYTES_MIN);
const _: () = assert!(datagram_bytes_max(MTUS[MTUS.len() - 1]) == DATAGRAM_BYTES_MAX);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Search {
    /// The place of what is used.
    used: usize,
    /// How many places from the last on are too long.
    too_long: usize,
    /// The place that a question on its way is about.
    asked: Option<usize>,
    /// The question was given up without a word, which says nothing of its length: it is put again
    /// when something is heard.
    hushed: bool,
    serial: u32,
    /// How often in a row the present question did not come.
    unheard: u32,
    /// When what is too long may be asked about again.
    again_at: Moment,
    /// Packets that were lost since one as long came, by place, and since when there are any.
    lost: [u64; MTUS.len()],
    lost_since: Moment,
    /// What is used may be too long.
    doubted: bool,
    sabotage: Sabotage,
}

impl Search {
    pub(crate) fn new(sabotage: Sabotage) -> Self {
        Self { sabotage, ..Self::default() }
    }

    /// Bytes of a datagram.
    pub(crate) fn bytes(&self) -> usize {
        datagram_bytes_max(MTUS[self.used])
    }

    /// Whether it is more than the least, so that less may be needed.
    pub(crate) fn is_long(&self) -> bool {
        self.used > 0
    }

    /// Bytes of the question that is to be put now. The search is not begun again for who has
    /// nothing to send.
    pub(crate) fn question(&self, now: Moment, has_more: bool) -> Option<usize> {
        if self.asked.is_some() {
            return None;
        }
        if self.doubted {
            return Some(self.bytes());
        }
        let again = has_more && self.too_long > 0 && self.again_at <= now;
        let at = self.next(self.too_long).or_else(|| self.next(0).filter(|_| again))?;
        Some(datagram_bytes_max(MTUS[at]))
    }

    /// The place to ask about if so many are too long.
    fn next(&self, too_long: usize) -> Option<usize> {
        let end = MTUS.len() - too_long;
        if self.used + 1 >= end {
            return None;
        }
        Some(match too_long {
            0 if self.used < USUAL => USUAL,
            0 => end - 1,
            _ => self.used.midpoint(end),
        })
    }

    /// The question leaves. Returns its serial.
    ///
    /// # Panics
    /// Unless [`Self::question`] has one.
    pub(crate) fn ask(&mut self) -> u32 {
        if !self.doubted && self.next(self.too_long).is_none() {
            (self.too_long, self.unheard) = (0, 0);
        }
        let next = || self.next(self.too_long).expect("there is a question");
        self.asked = Some(if self.doubted { self.used } else { next() });
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }

    /// A question came, or was lost. Returns whether another length is used from now on.
    pub(crate) fn answered(&mut self, now: Moment, serial: u32, came: bool) -> bool {
        if serial != self.serial || self.hushed && !came {
            return false;
        }
        let Some(at) = self.asked.take() else { return false };
        self.hushed = false;
        if at == self.used {
            match came {
                true => self.trust(),
                // A doubt may be over by now.
                false => self.unheard += u32::from(self.doubted),
            }
            return false;
        }
        if came {
            self.used = at;
            self.trust();
        } else {
            self.unheard += 1;
            if self.unheard == self.sabotage.unless(Rule::LossIsNotLength, 1, TRIES) {
                (self.too_long, self.unheard) = (MTUS.len() - at, 0);
            }
        }
        self.again_at = now + AGAIN;
        came
    }

    /// All that is on its way is given up, and nobody has said that it was lost.
    pub(crate) fn let_go(&mut self) {
        self.hushed = self.asked.is_some() && !self.sabotage.breaks(Rule::SilenceIsNotLength);
    }

    /// What is used was asked about in vain: the path has become narrower, and all is to begin anew
    /// ([`Self::restart`]).
    pub(crate) fn is_refuted(&self) -> bool {
        self.doubted && self.unheard >= DOUBTS
    }

    /// What is used came.
    fn trust(&mut self) {
        (self.unheard, self.doubted, self.lost) = (0, false, [0; MTUS.len()]);
    }

    /// The kernel has refused datagrams of so many bytes. Returns whether another length is used
    /// from now on.
    pub(crate) fn refused(&mut self, now: Moment, bytes: usize) -> bool {
        let Some(at) = MTUS.iter().position(|mtu| datagram_bytes_max(*mtu) >= bytes) else {
            return false;
        };
        // The least is all there is.
        let at = at.max(1);
        if self.too_long < MTUS.len() - at {
            (self.too_long, self.again_at) = (MTUS.len() - at, now + AGAIN);
        }
        if self.asked.is_some_and(|asked| asked >= at) {
            (self.asked, self.hushed, self.unheard) = (None, false, 0);
        }
        let changes = self.used >= at;
        if changes {
            self.used = 0;
            self.trust();
        }
        changes
    }

    /// Packets came and were lost, by length: whether what is used is to be asked about, and what
    /// was let go of is to be asked again.
    pub(crate) fn heard(&mut self, now: Moment, lengths: &Lengths, rtt: Span) {
        if core::mem::take(&mut self.hushed) {
            self.asked = None;
        }
        if !self.is_long() || self.sabotage.breaks(Rule::NarrowerIsFound) {
            return;
        }
        if self.lost.iter().all(|lost| *lost == 0) {
            self.lost_since = now;
        }
        // What came says that the path passes as much; the least it always does. Of what is longer
        // than what is used, questions, nobody has said that it passes.
        let passes = lengths.came.iter().rposition(|came| *came > 0).unwrap_or(0);
        if passes >= self.used && self.doubted {
            self.trust();
        }
        self.lost[..=passes].fill(0);
        let used = self.lost.iter_mut().zip(lengths.lost).take(self.used + 1);
        for (counted, lost) in used.skip(passes + 1) {
            *counted += lost;
        }
        let lost: u64 = self.lost.iter().sum();
        let long = now.since(self.lost_since) >= rtt.max(HOLE_MIN);
        if lost >= HOLE_PACKETS && long && !self.doubted && self.asked.is_none() {
            (self.doubted, self.unheard) = (true, 0);
        }
    }

    /// The path is another one: it is asked from the beginning.
    pub(crate) fn restart(&mut self) {
        *self = Self { serial: self.serial, ..Self::new(self.sabotage) };
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const NOW: Moment = Moment(1_000_000_000);
    const RTT: Span = Span::from_ms(40);

    /// Asks a path with this MTU until nothing is left to ask; what was asked about.
    fn search(search: &mut Search, mtu: usize) -> Vec<usize> {
        let mut asked = Vec::new();
        while let Some(bytes) = search.question(NOW, true) {
            let serial = search.ask();
            assert_eq!(search.question(NOW, true), None, "one at a time");
            search.answered(NOW, serial, bytes <= datagram_bytes_max(mtu));
            if asked.last() != Some(&bytes) {
                asked.push(bytes);
            }
        }
        asked
    }

    #[test]
    fn the_longest_that_passes_is_found() {
        for mtu in 1280..=9100 {
            let mut one = Search::default();
            let asked = search(&mut one, mtu);
            let most = MTUS.iter().rev().find(|length| **length <= mtu).expect("the least passes");
            assert_eq!(one.bytes(), datagram_bytes_max(*most), "{mtu}: {asked:?}");
            assert!(asked.len() <= 7, "{mtu}: {asked:?}");
        }
        let usual = [1420, 8920, 4272, 1922];
        assert_eq!(search(&mut Search::default(), 1500), usual);
        assert_eq!(search(&mut Search::default(), 9000), [1420, 8920]);
        assert_eq!(search(&mut Search::default(), 1280), [1420, 1352, 1300]);
    }

    /// Packets of the used length come all the time, and a longer one does not: that is found out.
    #[test]
    fn what_comes_does_not_make_the_search_endless() {
        let mut one = Search::default();
        search(&mut one, 1420);
        let used = one.bytes();
        one.restart();
        let mut lengths = Lengths::default();
        let mut asked = 0;
        while let Some(bytes) = one.question(NOW, true) {
            let serial = one.ask();
            one.answered(NOW, serial, bytes <= used);
            lengths.came[one.used] = 9;
            one.heard(NOW, &lengths, RTT);
            asked += 1;
            assert!(asked <= 28, "it has no end");
        }
        assert_eq!(one.bytes(), used);
    }

    /// A question that is lost is put again, and a search that is over is begun again much later,
    /// by who has something to send.
    #[test]
    fn loss_is_not_length() {
        let mut one = Search::default();
        for _ in 1..TRIES {
            let serial = one.ask();
            assert!(!one.answered(NOW, serial, false));
        }
        let serial = one.ask();
        assert!(one.answered(NOW, serial, true));
        assert_eq!(one.bytes(), 1420);
        search(&mut one, 1500);
        let later = NOW + AGAIN;
        assert_eq!(one.question(later, false), None);
        assert_eq!(one.question(later, true), Some(8920));
        let serial = one.ask();
        assert!(one.answered(later, serial, true));
        assert_eq!((one.bytes(), one.question(later, true)), (8920, None));
    }

    /// What the kernel refuses is not asked about again soon; of what is used less is left.
    #[test]
    fn the_kernels_word_is_taken() {
        let mut one = Search::default();
        search(&mut one, 9000);
        assert!(one.refused(NOW, 8920));
        assert_eq!(one.bytes(), 1200);
        assert_eq!(search(&mut one, 1500), [1420, 4272, 1922]);
        let mut one = Search::default();
        let stale = one.ask();
        assert!(!one.refused(NOW, 1420));
        assert!(!one.answered(NOW, stale, true), "it cannot have come");
        assert_eq!(one.question(NOW, true), Some(1352));
        assert!(!one.refused(NOW, 100), "there is nothing less");
        assert_eq!((one.bytes(), one.question(NOW, true)), (1200, None));
    }

    /// So many came and were lost of this place, until the path has become narrower.
    fn lose(one: &mut Search, now: &mut Moment, lengths: &Lengths) -> Option<usize> {
        (0..40).find(|_| {
            *now = *now + Span::from_ms(40);
            one.heard(*now, lengths, RTT);
            let Some(bytes) = one.question(*now, true) else { return false };
            assert_eq!(bytes, one.bytes(), "what is used is asked about");
            let serial = one.ask();
            assert!(!one.answered(*now, serial, false));
            one.is_refuted()
        })
    }

    /// Nothing that is as long as what is used comes, though it is asked about; shorter ones do.
    #[test]
    fn a_path_that_becomes_narrower_is_found() {
        for place in [6, MTUS.len() - 1] {
            let mut one = Search::default();
            search(&mut one, 9000);
            let mut now = NOW;
            let mut lengths = Lengths::default();
            (lengths.came[0], lengths.came[4], lengths.lost[place]) = (30, 2, 2);
            let found = lose(&mut one, &mut now, &lengths);
            assert_eq!(found, Some(2 + DOUBTS as usize - 1));
            one.restart();
            assert_eq!(one.bytes(), 1200);
            assert_eq!(search(&mut one, 1492), [1420, 1352, 1412]);
        }
    }

    /// A burst within one round trip, losses between packets that come, and questions that are lost
    /// until one comes: that is loss. The least is never too long.
    #[test]
    fn what_is_lost_now_and_then_is_not_too_long() {
        let mut one = Search::default();
        search(&mut one, 9000);
        let mut now = NOW;
        let of = |came: u64, lost: u64| {
            let mut lengths = Lengths::default();
            (lengths.came[MTUS.len() - 1], lengths.lost[MTUS.len() - 1]) = (came, lost);
            lengths
        };
        one.heard(now, &of(0, 1000), RTT);
        assert_eq!(one.question(now, true), None);
        for _ in 0..10 {
            now = now + Span::from_ms(40);
            one.heard(now, &of(1, 8), RTT);
            assert_eq!(one.question(now, true), None);
        }
        for turn in 0..3 * DOUBTS {
            now = now + Span::from_ms(400);
            one.heard(now, &of(0, 8), RTT);
            if one.question(now, true).is_some() {
                let serial = one.ask();
                assert!(!one.answered(now, serial, turn % DOUBTS == 0));
                assert!(!one.is_refuted());
            }
        }
        assert_eq!(one.bytes(), 8920);
        // What came ends a doubt, but not the search for more.
        one.heard(now, &of(1, 0), RTT);
        assert_eq!(one.question(now, true), None);
        one.restart();
        one.heard(now, &of(0, 1000), RTT);
        one.heard(now + RTT, &of(0, 1000), RTT);
        assert_eq!(one.question(now, true), Some(1420));
    }
}
