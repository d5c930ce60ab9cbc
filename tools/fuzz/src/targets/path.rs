//! A carrier of packets and a peer that lies about them: reports, and numbers that nobody sends.
//!
//! The oracles: what a report says lies within its bounds, and a report of what was never sent is
//! refused; a sender tells of a run once that it came, never counts more on its way than it sent,
//! keeps no more than that, and always sends on in the end; a receiver says of every number what
//! is so, in reports of the room that it was given, whatever numbers come.

use std::collections::BTreeSet;

use ringway_core::{Moment, Span};
use ringway_tunnel_proto::Violation;
use ringway_tunnel_proto::path::{Arrivals, Load, Report, Run, Sender, Told};

use crate::Target;

/// The body of a report.
pub const REPORT: Target =
    Target { name: "path_report", run: report, seeds: report_seeds, words: &[], bytes_max: 2048 };

/// What a sender does, and the reports that it hears meanwhile.
pub const SENDER: Target =
    Target { name: "path_sender", run: sender, seeds: sender_seeds, words: &[], bytes_max: 4096 };

/// Numbers that come, and what is wanted of them.
pub const ARRIVALS: Target = Target {
    name: "path_arrivals",
    run: arrivals,
    seeds: arrivals_seeds,
    words: &[],
    bytes_max: 2048,
};

/// Words of 64 numbers that a report may cover at most.
const WORDS_MAX: usize = 4096;
const PACKET_BYTES: u32 = 1500;
const START: Moment = Moment(1_000_000_000);

/// Reads a report.
pub fn report(data: &[u8]) {
    let Ok(report) = Report::read(data) else { return };
    let mut words = 0;
    report.words(|first, covered, came| {
        words += 1;
        assert_eq!(first % 64, 0, "words begin with their first bit");
        assert_eq!(came & !covered, 0, "what is not covered has not come");
    });
    assert!(words <= WORDS_MAX, "{words} words cost more than they may");
    let mut sender = Sender::<u32>::new(START, PACKET_BYTES.into());
    let heard = sender.heard(START, &report, |_| panic!("nothing was sent"));
    assert_eq!(heard, Err(Violation::ReportOfNothing));
}

/// Takes bytes as they come.
struct Feed<'a>(&'a [u8]);

impl Feed<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number that means little, or that is near one that means much.
    fn number(&mut self, near: u64) -> u64 {
        let (how, by) = (self.byte().unwrap_or(0), u64::from(self.byte().unwrap_or(0)));
        match how % 8 {
            0 => by,
            1 => near.wrapping_add(by),
            2 => near.wrapping_sub(by),
            3 => near / 256 * by,
            4 => 1 << (by % 64),
            5 => (1_u64 << (by % 64)).wrapping_sub(1),
            6 => u64::MAX - by,
            _ => near,
        }
    }
}

struct Story {
    sender: Sender<u32>,
    now: Moment,
    packets: u64,
    start: u64,
    /// Runs that were said to have come.
    came: BTreeSet<u64>,
}

/// Plays a story of sending and hearing.
pub fn sender(data: &[u8]) {
    let mut story = Story {
        sender: Sender::new(START, PACKET_BYTES.into()),
        now: START,
        packets: 0,
        start: 0,
        came: BTreeSet::new(),
    };
    let mut feed = Feed(data);
    while let Some(act) = feed.byte() {
        let Ok(()) = story.act(act, &mut feed) else { return };
        story.look();
    }
    // Whatever was heard, it sends again some time.
    for _ in 0..100 {
        let wake = story.sender.wake_at(true).expect("there is more to send");
        story.now = story.now.max(wake);
        if story.send() {
            return;
        }
    }
    panic!("it has stopped for ever");
}

impl Story {
    fn act(&mut self, act: u8, feed: &mut Feed<'_>) -> Result<(), Violation> {
        let much = feed.byte().unwrap_or(0);
        match act % 8 {
            0..=2 => (0..=much).for_each(|_| {
                self.send();
                self.now = self.now + Span::from_us(u64::from(act) * 8);
            }),
            3 => self.now = self.now + Span::from_ms(u64::from(much)),
            4 => self.now = self.now + Span(1 << (much % 48)),
            5 => {
                self.sender.note_idle();
                self.sender.to_tell(self.now, much & 2 == 2);
                self.sender.wake_at(much & 1 == 1);
            }
            _ => return self.hear(much, feed),
        }
        Ok(())
    }

    /// Sends what may be sent, if anything.
    fn send(&mut self) -> bool {
        let (now, came) = (self.now, &mut self.came);
        let lost = |told| assert!(matches!(told, Told::Lost(_)), "{told:?}");
        if self.sender.probe(now, lost) {
            self.sender.send(now, 100, Load::default());
            self.packets += 1;
        } else if self.sender.may_send(now) {
            let again = self.sender.again(now, usize::MAX, |run| !came.contains(&run.start));
            let segment = again.unwrap_or_else(|| {
                let run = Run { flow: 7, start: self.start, len: 1000 };
                self.start += 1000;
                self.sender.begin(run)
            });
            self.sender.send(now, PACKET_BYTES, Load { segment: Some(segment), word: None });
            self.packets += 1;
        } else {
            return false;
        }
        true
    }

    /// A report of whatever the bytes say; every other one is near the truth.
    fn hear(&mut self, how: u8, feed: &mut Feed<'_>) -> Result<(), Violation> {
        let sent = self.sender.bytes().1;
        let newest =
            if how & 1 == 0 { self.packets.saturating_sub(1) } else { feed.number(self.packets) };
        let packets = if how & 2 == 0 { newest / 2 } else { feed.number(self.packets) };
        let bytes = if how & 4 == 0 { sent / 2 } else { feed.number(sent) };
        let held = if how & 8 == 0 { 0 } else { feed.number(self.now.0) };
        let arrived = if how & 16 == 0 { self.now.0 } else { feed.number(self.now.0) };
        let first = if how & 32 == 0 { newest / 64 * 64 } else { feed.number(newest) };
        let words = usize::from(how >> 6) * 8;
        let (chunk, rest) = feed.0.split_at(words.min(feed.0.len()) / 8 * 8);
        feed.0 = rest;
        let mut body = Vec::new();
        put(&mut body, newest);
        body.extend_from_slice(&arrived.to_le_bytes());
        [held, packets, bytes, 0].into_iter().for_each(|number| put(&mut body, number));
        put(&mut body, first);
        put(&mut body, chunk.len() as u64 / 8);
        body.push(0);
        body.extend_from_slice(chunk);
        let Ok(report) = Report::read(&body) else { return Ok(()) };
        let came = &mut self.came;
        let heard = self.sender.heard(self.now, &report, |told| {
            if let Told::Arrived(run) = told {
                assert!(came.insert(run.start), "it came for the first time twice");
            }
        });
        let totals = report.totals;
        if totals.newest >= self.packets || totals.packets > self.packets || totals.bytes > sent {
            assert_eq!(heard, Err(Violation::ReportOfNothing));
        }
        heard
    }

    fn look(&self) {
        let (flying, sent) = self.sender.bytes();
        assert!(flying <= sent, "{flying} of {sent} bytes are on their way");
        assert!(self.sender.kept() as u64 <= self.packets, "what was not sent is kept");
        assert!(self.sender.rate().pacing() != Some(0), "nothing is sent for ever");
    }
}

/// A varint of eight bytes, whatever its size; what does not fit loses its upper bits.
fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&(number | 0xc000_0000_0000_0000).to_be_bytes());
}

/// Notes numbers, and looks at what is said of them.
pub fn arrivals(data: &[u8]) {
    let (mut arrivals, mut feed, mut now) = (Arrivals::default(), Feed(data), START);
    let (mut came, mut newest, mut wanted) = (BTreeSet::new(), 0, 0_u64);
    while let Some(act) = feed.byte() {
        let number = feed.number(newest);
        match act % 4 {
            0 | 1 => {
                // The opener takes a number once, and none of those that a sender never has.
                for number in number..=number.saturating_add(u64::from(act >> 2)) {
                    if number < 1 << 62 && came.insert(number) {
                        arrivals.note(now, number, PACKET_BYTES.into(), act & 1 == 0);
                        newest = newest.max(number);
                    } else if number >= 1 << 62 {
                        let before = arrivals.totals();
                        arrivals.note(now, number, PACKET_BYTES.into(), act & 1 == 0);
                        assert_eq!(arrivals.totals(), before, "no sender has such a number");
                    }
                }
            }
            2 => {
                wanted = wanted.max(number);
                arrivals.wanted(number, Span(number));
            }
            _ => now = now + Span::from_ms(u64::from(act >> 2)),
        }
        let (mut bodies, room) = (0, 128 + usize::from(act) * 4);
        arrivals.report(now, room, |body| {
            bodies += 1;
            assert!(body.len() <= room && bodies < 20_000);
            said(body, &came, wanted);
        });
    }
}

/// What is said to have come did, and what is said not to have did not, if anybody wants to know.
fn said(body: &[u8], came: &BTreeSet<u64>, wanted: u64) {
    let report = Report::read(body).expect("it is one of ours");
    let newest = report.totals.newest;
    assert_eq!(came.last(), Some(&newest));
    let mut words = Vec::new();
    report.words(|first, covered, bits| words.push((first, covered, bits)));
    for (first, covered, bits) in words {
        // The bits of a word that has numbers, or none: looked up by what came, which is little.
        let has = came.range(first..=first + 63).fold(0, |has, number| has | 1 << (number - first));
        assert_eq!(bits & !has, 0, "what has not come is said to have come");
        let kept = first >= wanted && newest - first.min(newest) < 1 << 19;
        assert!(!kept || has & covered & !bits == 0, "what has come is said not to have");
    }
}

fn report_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let head = |newest: u64| {
        let mut body = Vec::new();
        put(&mut body, newest);
        body.extend_from_slice(&7_u64.to_le_bytes());
        [5, 3, 4500, 0].into_iter().for_each(|number| put(&mut body, number));
        body
    };
    let chunk = |newest: u64, first: u64, count: u64, form: u8, rest: &[u8]| {
        let mut body = head(newest);
        put(&mut body, first);
        put(&mut body, count);
        body.push(form);
        body.extend_from_slice(rest);
        body
    };
    let two =
        [chunk(200, 0, 1, 0, &[0xf0; 8]), chunk(200, 64, 2, 1, &[40, 9])[head(0).len()..].to_vec()];
    vec![
        ("totals-only", head(10)),
        ("bitmap", chunk(127, 64, 1, 0, &[0x5f; 8])),
        ("runs", chunk(500, 0, 3, 1, &[10, 2, 63])),
        ("runs-of-nothing", chunk(500, 0, 4, 1, &[0, 0, 0, 1])),
        ("two-chunks", two.concat()),
        ("beyond-newest", chunk(10, 64, 1, 0, &[0xff; 8])),
        ("not-a-word", chunk(100, 63, 1, 0, &[0xff; 8])),
        ("too-many", chunk(1 << 40, 0, 4097, 0, &[0xff; 16])),
        ("run-too-long", chunk(1 << 40, 0, 1, 1, &[0xc0, 0, 0, 0, 0, 4, 0, 1])),
        ("largest-numbers", chunk((1 << 62) - 1, (1 << 62) - 64, 1, 0, &[0xff; 8])),
        ("unknown-form", chunk(100, 0, 1, 2, &[0xff; 8])),
        ("cut", chunk(100, 0, 2, 0, &[0xff; 9])),
    ]
}

fn sender_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let send = |count: u8| vec![1, count, 3, 20];
    let truth = |word: u64| [vec![6, 64], word.to_le_bytes().to_vec()].concat();
    let lie = |what: u8, words: &[u8]| -> Vec<u8> {
        [vec![6, 64 | what], words.to_vec(), vec![0xff; 8]].concat()
    };
    let tick = |at: &[u8]| [send(0), lie(16, at)].concat();
    let mad = (0..20).flat_map(|_| [tick(&[4, 63]), tick(&[0, 0])].concat()).collect();
    vec![
        ("a-train", [send(15), truth(0xffff)].concat()),
        ("losses", [send(15), truth(0xf0ff), send(60), truth(0x7777), send(60), truth(1)].concat()),
        ("optimist", [send(15), lie(4, &[7, 0]), send(90), lie(2, &[7, 0])].concat()),
        ("of-nothing", [send(15), lie(1, &[1, 9])].concat()),
        ("absurd-totals", [send(15), lie(2, &[6, 0])].concat()),
        ("long-held", [send(15), lie(8, &[5, 62]), send(40), truth(3)].concat()),
        ("clock-back", [send(15), truth(3), send(9), lie(16, &[0, 1]), send(9), truth(7)].concat()),
        (
            "clock-ahead",
            [send(15), truth(3), send(9), lie(16, &[6, 1]), send(9), truth(7)].concat(),
        ),
        ("clock-mad", mad),
        ("silence", [send(15), vec![4, 40, 0, 3, 4, 40, 0, 3, 4, 40, 0, 3], truth(9)].concat()),
        ("below-floor", [send(15), truth(0xffff), send(99), truth(0), lie(1, &[0, 1])].concat()),
        ("idle", [send(3), vec![5, 0, 5, 1], truth(15), send(40), truth(0)].concat()),
    ]
}

fn arrivals_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let run = |count: u8| vec![count << 2, 1, 1];
    let wait = |ms: u8| vec![3 | ms << 2, 0, 0];
    vec![
        ("in-order", [run(40), wait(20), run(40), wait(20)].concat()),
        ("gaps", [run(3), vec![0, 1, 200], run(9), wait(30), vec![0, 1, 255], wait(30)].concat()),
        ("late", [run(60), vec![0, 1, 90], wait(9), vec![0, 2, 40], wait(40)].concat()),
        ("base-moves", [run(60), wait(20), vec![2, 2, 9], run(5), wait(20)].concat()),
        ("base-beyond", [run(60), vec![2, 6, 0], run(5), wait(20)].concat()),
        ("a-jump", [run(5), vec![0, 4, 40], wait(30), run(9), wait(30)].concat()),
        ("the-largest", [run(5), vec![0, 5, 62], wait(30)].concat()),
        ("too-large", [run(5), vec![0, 6, 0], vec![0, 4, 62], wait(30)].concat()),
        ("nothing-came", [wait(30), vec![2, 1, 7], wait(30)].concat()),
    ]
}
