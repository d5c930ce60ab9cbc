//! What a session decides of its path: how long datagrams are, and whether streams go by packets.
//!
//! The oracles: a length is used that has arrived, or the least; one question is on its way at a
//! time, and a stale answer moves nothing; what the kernel refused is not asked about soon; on a
//! path that answers truly the longest is found. Filler on its way and all of it stay within their
//! bounds; streams leave packets only for what was clearly faster, and looks in vain are rare.

use std::collections::BTreeSet;

use ringway_core::{Moment, Span};
use ringway_tunnel_proto::limits::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN};
use ringway_tunnel_proto::testing_doors::{Advice, Detour, Filler, Mtu, Seen};

use crate::Target;

/// What becomes of questions, and of what is used.
pub const MTU: Target =
    Target { name: "path_mtu", run: mtu, seeds: mtu_seeds, words: &[], bytes_max: 1024 };

/// What packets and records bring, step by step.
pub const DETOUR: Target =
    Target { name: "tunnel_detour", run: detour, seeds: detour_seeds, words: &[], bytes_max: 4096 };

const START: Moment = Moment(1_000_000_000);
/// What was found too long is asked about again after so long, not sooner.
const AGAIN: Span = Span::from_s(600);
/// Questions at most until a path that answers is known: of seven lengths, each four times.
const QUESTIONS_MAX: usize = 28;
/// So often at least it is asked in vain whether what is used passes still, until it does not.
const DOUBTS: u32 = 6;

/// Bytes of the datagrams that are asked about.
const LENGTHS: [usize; 9] = [1200, 1300, 1352, 1412, 1420, 1922, 4272, 8086, 8920];

struct Path {
    search: Mtu,
    now: Moment,
    /// Lengths that arrived since all began anew.
    arrived: BTreeSet<usize>,
    /// The question on its way, and what was asked before it.
    asked: Option<(u32, usize)>,
    stale: Option<u32>,
    /// The shortest of [`LENGTHS`] that the kernel has refused, and until when its word counts.
    /// What was lost may be asked about sooner, and with it all that is longer.
    refused: Option<(usize, Moment)>,
    lost: bool,
    /// How often in a row what is used did not come, though it was asked about.
    doubts: u32,
}

/// Plays all of it. The first byte is how long the path's datagrams are in the end.
pub fn mtu(data: &[u8]) {
    let [passes, acts @ ..] = data else { return };
    let (search, arrived) = (Mtu::default(), BTreeSet::new());
    let (asked, stale, refused, lost) = (None, None, None, false);
    let mut path = Path { search, now: START, arrived, asked, stale, refused, lost, doubts: 0 };
    for [act, much] in acts.as_chunks().0 {
        path.act(*act, *much);
        path.look();
    }
    path.search.restart();
    path.finds(DATAGRAM_BYTES_MIN + usize::from(*passes) * 32);
}

impl Path {
    fn act(&mut self, act: u8, much: u8) {
        match act % 8 {
            0 | 1 => self.ask(much & 1 == 1),
            2 | 3 => self.answer(act % 8 == 2),
            4 => self.answer_to_nobody(much),
            5 => self.refuse(usize::from(much) * 40),
            6 => self.lose(much),
            _ if much == 0 => self.restart(),
            _ => self.now = self.now + Span::from_s(u64::from(much) * 4),
        }
    }

    fn ask(&mut self, has_more: bool) {
        let Some(bytes) = self.search.question(self.now, has_more) else { return };
        assert!(self.asked.is_none(), "one at a time");
        assert!(self.search.bytes() <= bytes && bytes <= DATAGRAM_BYTES_MAX, "{bytes}");
        if self.search.bytes() == bytes {
            assert!(self.search.is_long(), "the least always passes");
        } else if let Some((refused, until)) =
            self.refused.take_if(|(refused, _)| bytes >= *refused)
        {
            assert!(until <= self.now, "{bytes}, though {refused} are too long");
        }
        self.asked = Some((self.search.ask(), bytes));
    }

    fn answer(&mut self, came: bool) {
        let Some((serial, bytes)) = self.asked.take() else { return };
        let before = self.search.bytes();
        let changes = self.search.answered(self.now, serial, came);
        self.stale = Some(serial);
        if bytes == before {
            self.doubts = if came { 0 } else { self.doubts + 1 };
            assert!(!changes && self.search.bytes() == before, "no other length was asked about");
            if self.search.is_refuted() {
                assert!(self.doubts >= DOUBTS, "{} of them are chance", self.doubts);
                self.restart();
            }
            return;
        }
        assert_eq!(changes, came, "what came is used, and what did not is not");
        if came {
            self.arrived.insert(bytes);
        } else {
            (self.lost, self.refused) = (true, None);
        }
        assert_eq!(self.search.bytes(), if came { bytes } else { before });
    }

    /// All begins anew.
    fn forget(&mut self) {
        self.arrived.clear();
        (self.refused, self.lost, self.doubts) = (None, false, 0);
    }

    /// An answer to a question that is not on its way.
    fn answer_to_nobody(&mut self, much: u8) {
        let serial = self.stale.unwrap_or(much.into());
        let before = self.search.bytes();
        if self.asked.is_none_or(|(asked, _)| asked != serial) {
            assert!(!self.search.answered(self.now, serial, much & 1 == 1), "it is stale");
            assert_eq!(self.search.bytes(), before);
        }
    }

    fn refuse(&mut self, bytes: usize) {
        let before = self.search.bytes();
        let changes = self.search.refused(self.now, bytes);
        assert_eq!(changes, self.search.bytes() != before);
        // The least is all there is, and what is longer than all is no news.
        let place = LENGTHS.iter().position(|length| *length >= bytes);
        let Some(length) = place.map(|at| LENGTHS[at.max(1)]) else { return };
        assert!(self.search.bytes() < length, "it is used all the same");
        self.arrived.retain(|arrived| *arrived < length);
        if !self.lost && self.refused.is_none_or(|(before, _)| length < before) {
            self.refused = Some((length, self.now + AGAIN));
        }
        if let Some((serial, _)) = self.asked.take_if(|(_, asked)| *asked >= length) {
            self.stale = Some(serial);
        }
    }

    /// Packets are lost, for as long as it takes, and perhaps others come.
    fn lose(&mut self, much: u8) {
        let rtt = Span::from_ms(40);
        let (came, lost) = (usize::from(much >> 4), usize::from(much & 15));
        let (came, lost) = (came.min(LENGTHS.len() - 1), lost.min(LENGTHS.len() - 1));
        if LENGTHS[came] >= self.search.bytes() {
            // As long ones come: that ends a doubt.
            self.doubts = 0;
        }
        self.search.heard(self.now, (came, 1), (lost, 2), rtt);
    }

    fn restart(&mut self) {
        self.search.restart();
        self.forget();
        if let Some((serial, _)) = self.asked.take() {
            self.stale = Some(serial);
        }
    }

    fn look(&self) {
        let used = self.search.bytes();
        assert_eq!(self.search.is_long(), used > DATAGRAM_BYTES_MIN);
        assert!(used == DATAGRAM_BYTES_MIN || self.arrived.contains(&used), "{used} never came");
        if self.asked.is_some() {
            assert_eq!(self.search.question(self.now, true), None, "one at a time");
        }
    }

    /// Of a path that passes so many bytes the search finds the longest of its lengths.
    fn finds(&mut self, passes: usize) {
        let mut too_long = DATAGRAM_BYTES_MAX + 1;
        for _ in 0..QUESTIONS_MAX {
            let Some(bytes) = self.search.question(self.now, true) else { break };
            assert!(bytes < too_long, "{bytes} were too long");
            let (serial, came) = (self.search.ask(), bytes <= passes);
            self.search.answered(self.now, serial, came);
            if !came {
                self.unheard(bytes, &mut too_long);
            }
        }
        assert_eq!(self.search.question(self.now, true), None, "it does not come to an end");
        let used = self.search.bytes();
        assert!(used <= passes, "{used} of {passes}");
        let longest = LENGTHS.into_iter().filter(|bytes| *bytes <= passes).max();
        assert_eq!(Some(used), longest, "of {passes}");
    }

    /// What was lost is asked about again, until it counts as too long.
    fn unheard(&self, bytes: usize, too_long: &mut usize) {
        if self.search.question(self.now, true) != Some(bytes) {
            *too_long = bytes;
        }
    }
}

fn mtu_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let came = [0, 1, 2, 0];
    let lost = [0, 1, 3, 0].repeat(4);
    let doubt = [6, 8, 7, 1, 6, 8];
    vec![
        ("all-pass", [&[255][..], &came, &came].concat()),
        ("usual", [&[7][..], &came, &lost, &lost, &lost].concat()),
        ("least", [&[0][..], &lost, &lost, &lost].concat()),
        ("lost-once", [&[255][..], &[0, 1, 3, 0], &came, &[0, 1, 3, 0], &came].concat()),
        ("refused", [&[255][..], &came, &came, &[5, 200], &came, &[5, 20], &[0, 1]].concat()),
        ("refused-on-its-way", [&[7][..], &came, &[0, 1, 5, 30, 2, 0, 0, 1, 4, 1]].concat()),
        ("stale", [&[7][..], &[0, 1], &[7, 0], &[4, 1], &[0, 1, 4, 1, 2, 0]].concat()),
        ("narrower", [&[9][..], &came, &came, &doubt, &lost, &lost[..8], &came].concat()),
        ("doubted", [&[9][..], &came, &came, &doubt, &lost, &came, &doubt, &lost].concat()),
        ("again", [&[255][..], &came, &lost, &lost, &lost, &[7, 151], &came].concat()),
    ]
}

/// Filler beyond what has arrived, and all of a look's.
const FILLER_FIRST: u64 = 16 * 1024;
const FILLER_MAX: u64 = 8 << 20;
/// A record of filler.
const PIECE: usize = 16 * 1024;
/// The pause after a look in vain, and how long streams stay with records, at least.
const LOOK_AFTER: Span = Span::from_s(30);
const STAY: Span = Span::from_s(60);
/// Filler is faster than packets by so much if streams leave those, in percent.
const FASTER_PERCENT: u128 = 150;

/// The filler of a look, and what is known of it.
struct Fill {
    filler: Filler,
    put: u64,
    asked: u64,
    arrived: u64,
    answers: usize,
}

struct World {
    detour: Detour,
    now: Moment,
    packets: u64,
    records: u64,
    fill: Option<Fill>,
    /// What packets brought a second when the look began.
    look: Option<u64>,
    by_records: bool,
    /// Not before then a look begins, and packets are tried again.
    next_look: Moment,
    next_trial: Moment,
}

/// Lets time pass and bytes come, as the bytes say, four for a step.
pub fn detour(data: &[u8]) {
    let mut world = World {
        detour: Detour::new(START),
        now: START,
        packets: 0,
        records: 0,
        fill: None,
        look: None,
        by_records: false,
        next_look: START,
        next_trial: START,
    };
    for [act, time, packets, records] in data.as_chunks().0 {
        world.step(*act, *time, (*packets, *records));
    }
}

/// A number of any size.
fn number(byte: u8) -> u64 {
    u64::from(byte & 15) << (byte >> 4)
}

impl World {
    fn step(&mut self, act: u8, time: u8, (packets, records): (u8, u8)) {
        self.now = self.now + Span::from_ms(number(time));
        self.packets += number(packets) << 8;
        self.records += number(records) << 8;
        if let Some(fill) = &mut self.fill {
            fill.step(self.now, act);
        }
        match act & 3 {
            3 if act >> 2 == 63 => self.interrupt(),
            3 if act >> 2 == 62 => self.fill = None,
            _ => self.look(act),
        }
    }

    fn look(&mut self, act: u8) {
        let filled = self.fill.as_ref().map(|fill| fill.filler.filled());
        let (full, may_look) = (act & 4 == 0, act & 8 == 0);
        let rtt = Span::from_ms(number(act >> 4 << 2));
        let (packets, records) = (self.packets, self.records);
        let seen = Seen { packets, records, full, rtt, may_look, filled };
        let advice = self.detour.look(self.now, seen);
        self.heeds(advice, seen);
        assert_eq!(self.detour.by_records(), self.by_records);
        assert_eq!(self.detour.is_looking(), self.look.is_some());
        assert!(self.look.is_none() || self.detour.may_trail(self.now));
    }

    fn heeds(&mut self, advice: Advice, seen: Seen) {
        match advice {
            Advice::Stay => {}
            Advice::Look(rate) => {
                assert!(seen.full && seen.may_look && self.look.is_none() && !self.by_records);
                assert!(self.next_look <= self.now, "looks in vain are to become rare");
                let filler = Filler::new(rate, seen.rtt);
                self.fill = Some(Fill { filler, put: 0, asked: 0, arrived: 0, answers: 0 });
                self.look = Some(rate);
            }
            Advice::LookNoMore => {
                assert!(self.look.take().is_some(), "there is no look");
                if let Some(fill) = &mut self.fill {
                    fill.filler.end();
                    assert!(!fill.filler.may_put(), "there is to be no more of it");
                    self.next_look = self.now + LOOK_AFTER;
                }
            }
            Advice::Leave => {
                assert!(!self.by_records, "they have left");
                if let Some(rate) = self.look.take() {
                    let found = seen.filled.and_then(|filled| filled.rate).expect("it was seen");
                    let faster = u128::from(found) * 100 >= u128::from(rate) * FASTER_PERCENT;
                    assert!(faster, "{found} by records, {rate} by packets");
                }
                (self.by_records, self.fill) = (true, None);
                self.next_trial = self.now + STAY;
            }
            Advice::TryAgain => {
                assert!(self.by_records && self.next_trial <= self.now, "so soon?");
                (self.by_records, self.fill) = (false, None);
                self.next_look = self.now;
            }
            Advice::Return => {
                assert!(self.look.is_none(), "they have not left");
                (self.by_records, self.fill) = (false, None);
                self.next_look = self.next_look.max(START);
            }
        }
    }

    /// Packets do not get through: nothing is compared, and streams that left stay away.
    fn interrupt(&mut self) {
        self.detour.interrupt();
        (self.look, self.fill) = (None, None);
        assert_eq!(self.detour.by_records(), self.by_records);
        assert!(!self.detour.is_looking());
    }
}

impl Fill {
    /// It is put as far as may be, or asked about, or answered.
    fn step(&mut self, now: Moment, act: u8) {
        if act & 1 == 0 {
            while self.filler.may_put() {
                self.filler.put(PIECE);
                self.put += PIECE as u64;
            }
            let ahead = self.put - self.arrived;
            let most = FILLER_FIRST + self.arrived + PIECE as u64;
            assert!(ahead <= most, "{ahead} on their way behind {}", self.arrived);
            assert!(self.put <= FILLER_MAX + PIECE as u64, "{} in a look", self.put);
        }
        if act & 2 == 0 {
            if self.asked > self.arrived {
                self.answers += 1;
            }
            self.filler.answered(now);
            self.arrived = self.arrived.max(self.asked);
            self.filler.asked();
            self.asked = self.put;
        }
        let filled = self.filler.filled();
        assert_eq!(filled.arrived, self.arrived);
        assert_eq!(filled.rate.is_some(), self.answers >= 3, "{} answers", self.answers);
        assert!(!filled.over || self.arrived == self.put && !self.filler.may_put());
    }
}

fn detour_seeds() -> Vec<(&'static str, Vec<u8>)> {
    // 104 ms a step; act, time, packets, records.
    let steps = |count: usize, act: u8, packets: u8, records: u8| {
        [act, 0x3d, packets, records].repeat(count)
    };
    let (busy, idle) = (0x10, 0x14);
    let bound = |packets| steps(35, busy, packets, 0);
    let stay = |records| [busy, 0x9f, 0, records].repeat(12);
    vec![
        ("bound-then-idle", [bound(0x3f), steps(9, idle, 0, 0)].concat()),
        ("held-back", [bound(0x01), steps(30, busy, 0x01, 0), stay(0xff)].concat()),
        ("held-back-and-again", {
            let on = [stay(0xff), steps(60, busy, 0x01, 0xaf)].concat();
            [bound(0x01), steps(30, busy, 0x01, 0), on.clone(), on].concat()
        }),
        ("left-in-vain", [bound(0x01), steps(80, busy, 0x01, 0)].concat()),
        ("shared", [bound(0xaf), steps(40, busy, 0x8f, 0), bound(0xaf), bound(0xaf)].concat()),
        ("filler-stuck", [bound(0x3f), steps(60, 0x12, 0x3f, 0), bound(0x3f)].concat()),
        ("interrupted", [bound(0x3f), vec![0xff, 0x3d, 0, 0], bound(0x3f)].concat()),
        ("carrier-lost", [bound(0x3f), vec![0xfb, 0x3d, 0, 0], bound(0x3f)].concat()),
        ("may-not", steps(90, busy | 8, 0x3f, 0)),
    ]
}
