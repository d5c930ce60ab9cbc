//! Trains: packets that leave at once, to learn from their spread what a path passes on.
//!
//! A bottleneck spreads packets that come at once, and the spread is its rate. One of less than
//! [`SPREAD_MIN`] may be the work of hosts that gather packets, so the next train is longer. Where
//! most of two is lost, what came of the second in a round trip is the rate. Where trains say
//! nothing at all there are no more after some, and more is tried from little on.
//!
//! ```text
//! train --spread long enough--> a rate
//!     \--too little--> a longer train --too often--> from little on
//!     \--most is lost, twice--> what came is the rate
//! ```
//!
//! What always holds: a train says something up to the first pause within it alone; one train is
//! on its way at a time.
//!
//! Bounds: constant time and memory; a train has at most [`TRAIN_MAX`] bytes. Source: Dovrolis and
//! others (INFOCOM 2001). Tests: here, and lines of all kinds in `ringway-wan`.

use ringway_core::Span;

use super::flight::Heard;
use super::mark::{Mark, per_second};
use super::rate::Put;
use crate::sabotage::{Rule, Sabotage};

/// Packets of the first train.
const TRAIN_FIRST: u64 = 16;
/// Bytes of a train, at most.
const TRAIN_MAX: u64 = 64 * 1024 * 1024;
/// After so many trains of so many packets that said nothing there are no more.
const TRAINS_MAX: u32 = 6;
const TRIED_PACKETS: u64 = 64;
/// A train that is spread over less, or of which less came, says nothing.
const SPREAD_MIN: Span = Span::from_ms(2);
const CAME_MIN: u64 = 8;
/// A train of at least so many packets of which not one in so many comes, so often in a row: there
/// is no room for more.
const POLICED_PACKETS: u64 = 12;
const POLICED_PART: u64 = 2;
const POLICED_TRAINS: u32 = 2;
/// Bytes by which the spread of trains of all lengths is compared.
const SCALE: u64 = 1 << 20;
/// How far the next train is to be spread.
const SPREAD_GOAL: Span = Span::from_us(2500);
/// A train is at most so many times as long as the one before.
const TRAIN_GROWTH_MAX: u64 = 16;

/// What a train says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was spread over so long, which is too short: the next has so many bytes.
    Longer(Span, u64),
    /// The path passes so many bytes a second.
    Passes(u64),
    /// There is no room for trains: this is a beginning.
    NoRoom(u64),
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trains {
    /// The present one's first number, the bytes that it has, and what is sent when it is whole.
    first: u64,
    bytes: u64,
    ends: u64,
    /// Bytes of the shortest.
    least: u64,
    /// How things stood when the first of it had come, and when the last so far had.
    came: Option<(Mark, Mark)>,
    /// Bytes sent when there was nothing more to send before it was whole: how it is spread up to
    /// there says something of the path, and what comes behind a pause does not.
    cut: Option<u64>,
    /// Packets that had come before it, and at the last report.
    before: u64,
    counted: u64,
    /// The longest that [`SCALE`] bytes of any so far were spread, in nanoseconds.
    slowest: u64,
    /// Long ones that said nothing.
    tried: u32,
    /// Those in a row of which most was lost.
    policed: u32,
    pub(super) sabotage: Sabotage,
}

impl Trains {
    /// The first, of packets of so many bytes.
    pub(super) fn new(packet_bytes: u64) -> Self {
        Self {
            first: 0,
            bytes: TRAIN_FIRST * packet_bytes,
            ends: TRAIN_FIRST * packet_bytes,
            least: TRAIN_FIRST * packet_bytes,
            came: None,
            cut: None,
            before: 0,
            counted: 0,
            slowest: 0,
            tried: 0,
            policed: 0,
            sabotage: Sabotage::default(),
        }
    }

    /// The first on another path, after so many packets have come; to be begun, as
    /// [`Self::note_given_up`] does.
    pub(super) fn after(packet_bytes: u64, came: u64) -> Self {
        Self { counted: came, ..Self::new(packet_bytes) }
    }

    /// Another one, of so many bytes, begins with the next packet.
    fn begin(&mut self, put: &Put, bytes: u64) {
        (self.first, self.bytes, self.ends) = (put.next, bytes, put.sent + bytes);
        (self.came, self.cut, self.before) = (None, None, self.counted);
    }

    /// Whether more may leave, with so many bytes on their way and so many sent in all.
    pub(super) fn allows(&self, (flying, sent): (u64, u64)) -> bool {
        // Nobody reports on what does not ask, which may have filled it.
        sent < self.ends || flying == 0
    }

    /// There is nothing to send.
    pub(super) fn note_idle(&mut self, put: &Put) {
        if put.sent > self.ends - self.bytes {
            self.cut.get_or_insert(put.sent);
        }
        if put.flying == 0 {
            self.begin(put, self.bytes);
        }
    }

    /// All that was on its way was given up: nothing more is heard of it. If none of it came, that
    /// many may be too many.
    pub(super) fn note_given_up(&mut self, put: &Put) {
        let less = if self.came.is_none() { TRAIN_GROWTH_MAX } else { 1 };
        self.begin(put, (self.bytes / less).max(self.least));
    }

    /// A report came.
    pub(super) fn look(
        &mut self,
        heard: &Heard,
        put: &Put,
        (trip, packet_bytes): (Span, u64),
    ) -> Option<Verdict> {
        self.counted = heard.totals.packets;
        let newest = heard.totals.newest;
        if newest < self.first {
            // None of it came.
            if put.flying == 0 && put.sent >= self.ends {
                self.note_given_up(put);
            }
            return None;
        }
        let mut point = Mark::of(heard);
        let (first, last) = *self.came.get_or_insert((point, point));
        let ends = self.cut.map_or(self.ends, |cut| cut.min(self.ends));
        let over = point.sent > ends;
        if over {
            // What asked whether the end of the train was lost says nothing about how it came.
            point = last;
        }
        self.came = Some((first, point));
        // The last ones may be lost.
        let more = put.flying > 0 && put.next - 1 - newest > (put.next - self.first) / 8;
        if !over && (put.sent < ends || more) {
            return None;
        }
        let (bytes, spread) = (point.sent - first.sent, point.came_at.since(first.came_at));
        // Of one of which nothing is on its way any more, the end counts that was lost.
        let all = if put.flying > 0 { newest + 1 } else { put.next } - self.first;
        let came = self.counted.saturating_sub(self.before);
        let policed = all >= POLICED_PACKETS && came * POLICED_PART < all;
        let policed = policed && !self.sabotage.breaks(Rule::PolicedIsSeen);
        let least = self.sabotage.unless(Rule::ShortTrainsSayNothing, Span(1), SPREAD_MIN);
        if spread >= least && bytes >= CAME_MIN * packet_bytes && !policed {
            return Some(Verdict::Passes(per_second(bytes, spread)));
        }
        self.policed = if policed { self.policed + 1 } else { 0 };
        if self.policed >= POLICED_TRAINS {
            // A longer one would lose more, and is not spread where the rest is dropped at once.
            return Some(Verdict::Passes(per_second(came * packet_bytes, trip.max(spread))));
        }
        if policed {
            // It may have been chance.
            self.begin(put, self.bytes);
            return None;
        }
        if ends - (self.ends - self.bytes) >= TRIED_PACKETS * packet_bytes {
            self.tried += 1;
        }
        if self.tried >= TRAINS_MAX {
            // There is no room for what comes at once: more is tried from little on.
            let little = per_second(TRAIN_FIRST * packet_bytes, trip);
            let seen = if spread.0 > 0 { per_second(bytes, spread) } else { 0 };
            return Some(Verdict::NoRoom(seen.max(little)));
        }
        self.go_on(put, (bytes, spread))
    }

    /// It said nothing: the next is longer.
    fn go_on(&mut self, put: &Put, (came, spread): (u64, Span)) -> Option<Verdict> {
        if self.cut.is_some() && came < self.bytes / 2 {
            // The next one may be whole.
            self.begin(put, self.bytes);
            return None;
        }
        // Delay that varies may have pushed this one together. The slowest so far is believed, or
        // the next would be far too long.
        let spread_of = if self.cut.is_some() { came } else { self.bytes };
        let each = spread.0.saturating_mul(SCALE) / spread_of;
        self.slowest = self.slowest.max(each);
        let counts = self.sabotage.unless(Rule::SlowestTrainCounts, each, self.slowest);
        let spread_here = counts.saturating_mul(self.bytes) / SCALE;
        let growth = (SPREAD_GOAL.0 / spread_here.max(1)).clamp(2, TRAIN_GROWTH_MAX);
        let bytes = (self.bytes * growth).min(TRAIN_MAX);
        self.begin(put, bytes);
        Some(Verdict::Longer(spread, bytes))
    }
}

#[cfg(test)]
mod tests {
    use ringway_core::Moment;

    use super::super::report::Totals;
    use super::*;

    const PACKET: u64 = 1500;
    const TRIP: Span = Span::from_ms(40);

    /// A path on which a packet takes so long.
    struct Story {
        trains: Trains,
        each: Span,
        put: Put,
        packets: u64,
        now: Moment,
    }

    impl Story {
        fn new(each: Span) -> Self {
            let put = Put { next: 0, sent: 0, flying: 0 };
            Self { trains: Trains::new(PACKET), each, put, packets: 0, now: Moment(0) }
        }

        fn leave(&mut self) {
            while self.trains.allows((self.put.flying, self.put.sent)) {
                self.put.next += 1;
                self.put.sent += PACKET;
                self.put.flying += PACKET;
            }
        }

        /// All that may leave does, and this part of it comes, evenly; what that says.
        fn go(&mut self, came: f64) -> Option<Verdict> {
            let first = self.put.next;
            self.leave();
            let mut said = None;
            for number in first..self.put.next {
                self.now = self.now + self.each;
                self.put.flying -= PACKET;
                let number_in = (number - first + 1) as f64 * came;
                if number_in.fract() < came && said.is_none() {
                    self.packets += 1;
                    said = self.hear(number);
                }
            }
            said
        }

        fn hear(&mut self, newest: u64) -> Option<Verdict> {
            let totals = Totals {
                newest,
                arrived: self.now,
                held: Span::ZERO,
                packets: self.packets,
                bytes: self.packets * PACKET,
                dropped: 0,
            };
            let heard = Heard {
                totals,
                newest_at: self.now,
                newest_sent: (newest + 1) * PACKET,
                rtt: Some(TRIP),
                arrived: PACKET,
                lost: 0,
                lost_packets: 0,
                lost_runs: 0,
            };
            self.trains.look(&heard, &self.put, (TRIP, PACKET))
        }
    }

    /// Sixteen packets are too close together to say anything of a fast path; the next train is as
    /// much longer as it takes.
    #[test]
    fn a_train_that_is_spread_too_little_is_followed_by_a_longer_one() {
        let mut story = Story::new(Span::from_us(20));
        let said = story.go(1.0);
        assert!(
            matches!(said, Some(Verdict::Longer(spread, _)) if spread < SPREAD_MIN),
            "{said:?}"
        );
        let Some(Verdict::Passes(rate)) = story.go(1.0) else { panic!() };
        assert!(rate.abs_diff(75_000_000) < 1_000_000, "1500 bytes in 20 us: {rate}");
        let mut slow = Story::new(Span::from_ms(1));
        assert!(matches!(slow.go(1.0), Some(Verdict::Passes(1_500_000))));
    }

    /// What was spread and then came at once says nothing of how fast the path is.
    #[test]
    fn a_train_that_was_pushed_together_is_not_believed() {
        let mut story = Story::new(Span::from_us(110));
        let said = story.go(1.0);
        assert!(matches!(said, Some(Verdict::Longer(_, 48_000))), "{said:?}");
        story.each = Span::ZERO;
        let said = story.go(1.0);
        assert_eq!(said, Some(Verdict::Longer(Span::ZERO, 96_000)), "not sixteen times as many");
        story.each = Span::from_us(110);
        let Some(Verdict::Passes(rate)) = story.go(1.0) else { panic!() };
        assert!(rate.abs_diff(13_636_363) < 300_000, "1500 bytes in 110 us: {rate}");
    }

    /// Of one train most may be lost by chance. Of two it is the path, and what came of the second
    /// in a round trip is what it passes.
    #[test]
    fn where_most_is_lost_twice_that_is_the_rate() {
        let mut story = Story::new(Span::from_us(300));
        assert_eq!(story.go(0.4), None);
        let Some(Verdict::Passes(rate)) = story.go(0.4) else { panic!() };
        let most = per_second(TRAIN_FIRST * PACKET / 2, TRIP);
        assert!(rate > 0 && rate <= most, "{rate}");
    }

    /// What comes behind a pause was not sent at once: it says nothing.
    #[test]
    fn a_pause_ends_a_train() {
        let mut story = Story::new(Span::from_us(500));
        (story.put.next, story.put.sent, story.put.flying) = (4, 4 * PACKET, 4 * PACKET);
        story.trains.note_idle(&story.put);
        story.leave();
        for number in 0..TRAIN_FIRST {
            story.now = story.now + story.each;
            (story.packets, story.put.flying) = (number + 1, story.put.flying - PACKET);
            assert_eq!(story.hear(number), None, "{number}");
        }
        assert_eq!(story.trains.first, TRAIN_FIRST, "it begins anew");
    }

    /// Of a long train nothing was heard: shorter ones are sent until something is.
    #[test]
    fn a_train_that_vanishes_is_not_sent_again() {
        let mut story = Story::new(Span::ZERO);
        let said = story.go(1.0);
        assert!(matches!(said, Some(Verdict::Longer(..))), "{said:?}");
        let long = story.trains.bytes;
        story.trains.note_given_up(&story.put);
        assert!(story.trains.bytes * 8 < long || story.trains.bytes == TRAIN_FIRST * PACKET);
        story.trains.note_given_up(&story.put);
        assert_eq!(story.trains.bytes, TRAIN_FIRST * PACKET);
    }

    /// Where trains are never spread there are some, and then no more.
    #[test]
    fn trains_have_an_end() {
        let mut story = Story::new(Span::ZERO);
        for _ in 0..TRAINS_MAX {
            let said = story.go(1.0);
            assert!(matches!(said, Some(Verdict::Longer(..))), "{said:?}");
        }
        let little = per_second(TRAIN_FIRST * PACKET, TRIP);
        assert_eq!(story.go(1.0), Some(Verdict::NoRoom(little)));
    }
}
