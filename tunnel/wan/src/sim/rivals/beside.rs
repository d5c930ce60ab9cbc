//! Who leaves what to whom: pairs and more before one bottleneck, in both orders of coming.
//!
//! What always holds: what CUBIC has to keep beside us is compared with what it keeps beside BBRv1
//! on the same link, in the same order and with the same seed. Bounds: a second of a processor for
//! a meeting of 150 s at 100 Mbit/s. Tests: `tests/beside.rs`.

use ringway_core::{Moment, Span};

use super::{Entrant, Kind, Scene, Shares, Street};
use crate::line::Link;

/// Some who meet before one bottleneck.
#[derive(Clone, Copy, Debug)]
pub struct Meeting {
    /// Who, in the order of coming.
    pub name: &'static str,
    /// Each with its round trip, in round trips of the link.
    who: &'static [(Kind, u64)],
    /// Between one's coming and the next one's.
    stagger: Span,
    asked: Asked,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    /// Nothing: it is there to compare with.
    Nothing,
    /// Of each, beside BBR.
    Each,
    /// CUBIC has this place among the two, and in this meeting BBR stood where we do.
    Cubic { place: usize, beside_bbr: usize },
    /// That all have about the same.
    Equal,
}

/// What is asked of a meeting, as parts of the rate.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Bar {
    /// What all use together, at least.
    pub used: f64,
    /// What each has, at least; empty if that is not asked.
    pub shares: Vec<f64>,
    /// Jain's index, at least.
    pub jain: Option<f64>,
}

/// A meeting and what came of it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Row {
    /// Who, in the order of coming.
    pub who: &'static str,
    /// Which losses, and which moments.
    pub seed: u64,
    /// What each has, as a part of the rate.
    pub shares: Vec<f64>,
    /// What all have together.
    pub used: f64,
    /// Jain's index: one if all have the same.
    pub jain: f64,
    /// The queue in milliseconds of the bottleneck: the median, and the 99th percentile.
    pub queue_ms: (f64, f64),
    /// Packets that overflowed, as a part of those that were offered.
    pub overflowed: f64,
    /// What is asked; nothing of a row that is there to compare with, and of links that lose or
    /// delay packets by themselves.
    pub bar: Option<Bar>,
}

const STAGGER: Span = Span::from_s(5);
const TOGETHER: Span = Span::ZERO;
const USED: f64 = 0.9;
const JAIN: f64 = 0.95;
/// What each keeps at least, and CUBIC in particular; and part of what BBR leaves CUBIC.
const EACH: f64 = 0.25;
const CUBIC: f64 = 0.35;
const OF_BBRS: f64 = 0.8;

const fn meeting(
    name: &'static str,
    who: &'static [(Kind, u64)],
    stagger: Span,
    asked: Asked,
) -> Meeting {
    Meeting { name, who, stagger, asked }
}

/// All meetings.
pub const MEETINGS: [Meeting; 11] = {
    use Asked::{Each, Equal, Nothing};
    use Kind::{Bbr, Cubic, Ours};
    let beside_first = Asked::Cubic { place: 1, beside_bbr: 0 };
    let beside_second = Asked::Cubic { place: 0, beside_bbr: 1 };
    [
        meeting("bbr, cubic", &[(Bbr, 1), (Cubic, 1)], STAGGER, Nothing),
        meeting("cubic, bbr", &[(Cubic, 1), (Bbr, 1)], STAGGER, Nothing),
        meeting("ours, cubic", &[(Ours, 1), (Cubic, 1)], STAGGER, beside_first),
        meeting("cubic, ours", &[(Cubic, 1), (Ours, 1)], STAGGER, beside_second),
        meeting("ours, bbr", &[(Ours, 1), (Bbr, 1)], STAGGER, Each),
        meeting("bbr, ours", &[(Bbr, 1), (Ours, 1)], STAGGER, Each),
        meeting("ours, ours", &[(Ours, 1); 2], TOGETHER, Equal),
        meeting("ours, ours later", &[(Ours, 1); 2], STAGGER, Equal),
        meeting("ours, ours at 4 rtt", &[(Ours, 1), (Ours, 4)], STAGGER, Equal),
        meeting("ours at 4 rtt, ours", &[(Ours, 4), (Ours, 1)], STAGGER, Equal),
        meeting("four of ours", &[(Ours, 1); 4], STAGGER, Equal),
    ]
};

impl Meeting {
    /// Lets them meet: so long to settle, and so long to judge.
    pub fn meet(&self, link: &Link, (settle, time): (Span, Span), seed: u64) -> Shares {
        let entrant = |(at, (kind, rounds)): (usize, &(Kind, u64))| Entrant {
            kind: *kind,
            rtt: Span(link.rtt().0 * rounds),
            from: Moment(at as u64 * self.stagger.0 + at as u64 * 7_777_777),
        };
        let mut street = Street::new(Scene {
            line: link.line_there(),
            changes: Vec::new(),
            back: link.line_back(),
            entrants: self.who.iter().enumerate().map(entrant).collect(),
            mtu: link.mtu.into(),
            seed,
        });
        street.run_until(Moment(0) + settle);
        street.judge(time)
    }
}

/// Judges what came of all meetings, in their order, on one link with one seed.
///
/// # Panics
/// If it is not of all meetings.
pub fn judged(link: &Link, seed: u64, all: &[Shares]) -> Vec<Row> {
    assert_eq!(all.len(), MEETINGS.len(), "of each meeting");
    let part = |bits: &f64| bits / link.there.bits_per_s as f64;
    let kept = |row: usize, place: usize| part(&all[row].bits_per_s[place]);
    let row = |(meeting, shares): (&Meeting, &Shares)| Row {
        who: meeting.name,
        seed,
        shares: shares.bits_per_s.iter().map(part).collect(),
        used: shares.utilisation,
        jain: shares.jain,
        queue_ms: shares.queue_ms,
        overflowed: shares.overflowed,
        bar: meeting.asked.bar(kept).filter(|_| is_calm(link)),
    };
    MEETINGS.iter().zip(all).map(row).collect()
}

/// Whether nothing but the queue loses or delays packets: what the bars are made for.
fn is_calm(link: &Link) -> bool {
    [&link.there, &link.back]
        .iter()
        .all(|way| way.loss_ppm == 0 && way.jitter == Span::ZERO && way.reorder_ppm == 0)
}

impl Asked {
    /// `kept` says what one of a meeting has.
    fn bar(self, kept: impl Fn(usize, usize) -> f64) -> Option<Bar> {
        let shares = match self {
            Asked::Nothing => return None,
            Asked::Equal => Vec::new(),
            Asked::Each => vec![EACH; 2],
            Asked::Cubic { place, beside_bbr } => {
                let mut shares = vec![EACH; 2];
                shares[place] = CUBIC.max(OF_BBRS * kept(beside_bbr, place));
                shares
            }
        };
        let jain = shares.is_empty().then_some(JAIN);
        Some(Bar { used: USED, shares, jain })
    }
}

impl Row {
    /// What it falls short of; empty if of nothing.
    pub fn misses(&self) -> Vec<String> {
        let Some(bar) = &self.bar else { return Vec::new() };
        let names = self.who.split(", ");
        let mut misses = Vec::new();
        if self.used < bar.used {
            misses.push(format!("used below {:.0} %", bar.used * 100.0));
        }
        for (name, (share, least)) in names.zip(self.shares.iter().zip(&bar.shares)) {
            if share < least {
                misses.push(format!("{name} below {:.1} %", least * 100.0));
            }
        }
        misses.extend(bar.jain.filter(|least| self.jain < *least).map(|_| "unequal".to_owned()));
        misses
    }

    /// How much of what is asked there is, where least of it is; of a row of which nothing is
    /// asked, what all use.
    pub fn margin(&self) -> f64 {
        let Some(bar) = &self.bar else { return self.used };
        let shares = self.shares.iter().zip(&bar.shares).map(|(share, least)| share / least);
        let jain = bar.jain.map(|least| self.jain / least);
        shares.chain(jain).fold(self.used / bar.used, f64::min)
    }
}
