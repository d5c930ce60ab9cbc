//! Who leaves what to whom: ours, CUBIC and BBRv1 before one bottleneck, as a table.

use std::fmt::Write as _;
use std::process::ExitCode;

use ringway_core::Span;
use ringway_wan::Link;
use ringway_wan::sim::rivals::{MEETINGS, Meeting, Row, judged};
use serde::Serialize;

use super::{all_of, lasting, round};
use crate::args::wan::sim::SimArgs;
use crate::failure::Failure;
use crate::output::{answer, code};
use crate::wan::words::table_of;

/// What is said of links where words say nothing of it.
pub(super) const USUAL: [(&str, &str); 4] =
    [("rate", "100mbit"), ("rtt", "40ms"), ("mtu", "1500"), ("queue", "1bdp,2bdp")];
/// They settle for so long, and are judged for so long: an epoch of CUBIC is 8 s there.
const SETTLE: Span = Span::from_s(30);
/// The fourth comes after 15 s, and whoever has not come has nothing.
const SETTLE_MIN: Span = Span::from_s(20);
const TIME: Span = Span::from_s(120);

/// A row and where it is of.
#[derive(Serialize)]
struct Met {
    link: String,
    bits_per_s: u64,
    rtt_ms: f64,
    /// In what a round trip brings.
    queue: f64,
    #[serde(flatten)]
    row: Row,
    misses: Vec<String>,
}

impl Met {
    /// Of the seed that is furthest from what is asked.
    fn of<'a>(link: &Link, rows: impl Iterator<Item = &'a Row>) -> Met {
        let worst = rows.min_by(|a, b| a.margin().total_cmp(&b.margin()));
        let row = worst.expect("each has a seed").clone();
        let line = link.line_there();
        let round_trip = line.bits_per_s as f64 / 8.0 * link.rtt().0 as f64 / 1e9;
        Met {
            link: link.to_string(),
            bits_per_s: line.bits_per_s,
            rtt_ms: link.rtt().0 as f64 / 1e6,
            queue: line.queue_bytes as f64 / round_trip,
            misses: row.misses(),
            row,
        }
    }

    fn columns(&self) -> Vec<String> {
        let row = &self.row;
        let percent = |part: &f64| format!("{:.1}", part * 100.0);
        let verdict = match (&self.misses[..], &row.bar) {
            (_, None) => "-".to_owned(),
            ([], _) => "ok".to_owned(),
            (misses, _) => misses.join(", "),
        };
        vec![
            format!("{}", (self.queue * 100.0).round() / 100.0),
            row.who.to_owned(),
            row.shares.iter().map(percent).collect::<Vec<_>>().join("  "),
            percent(&row.used),
            format!("{:.3}", row.jain),
            format!("{:.1}", row.queue_ms.0),
            format!("{:.1}", row.queue_ms.1),
            format!("{:.2}", row.overflowed * 100.0),
            verdict,
        ]
    }
}

const HEAD: [&str; 9] =
    ["buffer", "who comes", "has", "used", "jain", "queue", "p99", "over", "verdict"];
const LEGEND: &str = "\
buffer in round trips' bytes; what each has, and all use, in % of the rate; queue (median, p99) in
ms; over: packets that overflowed, in %\n";

pub(super) fn run(args: &SimArgs, links: &[Link], json: bool) -> Result<ExitCode, Failure> {
    links.iter().try_for_each(fits)?;
    let seeds = || args.seed..args.seed.saturating_add(args.seeds);
    let runs: Vec<(&Link, u64, &Meeting)> = links
        .iter()
        .flat_map(|link| seeds().map(move |seed| (link, seed)))
        .flat_map(|(link, seed)| MEETINGS.iter().map(move |meeting| (link, seed, meeting)))
        .collect();
    let times = |link: &Link| {
        let settle = lasting(link, args.warm_up).unwrap_or(SETTLE).max(SETTLE_MIN);
        (settle, lasting(link, args.time).unwrap_or(TIME))
    };
    let cost = |run: &(&Link, u64, &Meeting)| run.0.there.bits_per_s >> 10;
    let shares =
        all_of(args, &runs, &cost, &|(link, seed, meeting)| meeting.meet(link, times(link), *seed));
    let mut shares = shares.chunks_exact(MEETINGS.len());
    let mut rows = Vec::new();
    for link in links {
        let of_seeds: Vec<Vec<Row>> =
            seeds().zip(&mut shares).map(|(seed, all)| judged(link, seed, all)).collect();
        rows.extend((0..MEETINGS.len()).map(|at| Met::of(link, of_seeds.iter().map(|of| &of[at]))));
    }
    let missed = rows.iter().filter(|row| !row.misses.is_empty()).count();
    answer(json, &rows, || page(&rows, args.seeds, missed));
    Ok(code(!args.check || missed == 0))
}

/// What the rivals' simulation has no answer to is refused.
fn fits(link: &Link) -> Result<(), Failure> {
    let refused = |why: &str| Err(Failure::Usage(format!("--beside: {why}")));
    if link.mtu != 1500 {
        return refused("the rivals' packets have 1500 bytes; leave mtu out");
    }
    if link.there.down || link.back.down {
        return refused("nobody gets anything over a line that is down");
    }
    if link.rtt() == Span::ZERO {
        return refused("without a round trip nobody has a share; give rtt, as rtt=40ms");
    }
    Ok(())
}

/// A table for each rate and round trip.
fn page(rows: &[Met], seeds: u64, missed: usize) -> String {
    let mut text = String::new();
    let same = |a: &Met, b: &Met| (a.bits_per_s, a.rtt_ms) == (b.bits_per_s, b.rtt_ms);
    for of in rows.chunk_by(same) {
        let rate = round(of[0].bits_per_s as f64 / 1e6);
        let _ = writeln!(text, "{rate} Mbit/s, {} ms, packets of 1500 bytes", of[0].rtt_ms);
        let lines: Vec<Vec<String>> = of.iter().map(Met::columns).collect();
        let links: Vec<&str> = of.iter().map(|row| row.link.as_str()).collect();
        let shown = (1, &["rate", "delay", "queue", "there.queue"][..]);
        let _ = writeln!(text, "{}", table_of(&HEAD, shown, &links, lines));
    }
    let asked = rows.iter().filter(|row| row.row.bar.is_some()).count();
    let _ = write!(text, "{LEGEND}of {asked} rows that have a bar, {missed} miss it");
    if seeds > 1 {
        let _ = write!(text, ", the worst of {seeds} seeds each");
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(words: &str) -> Link {
        Link::parse(words).expect("a link")
    }

    /// Rows of all meetings, of which each has the whole rate in equal parts but for one.
    fn rows(link: &Link, at: usize, shares: &[f64]) -> Vec<Row> {
        let of = |meeting: usize| {
            let parts = if meeting == at { shares } else { &[0.5, 0.5] };
            ringway_wan::sim::rivals::Shares {
                bits_per_s: parts.iter().map(|part| part * link.there.bits_per_s as f64).collect(),
                utilisation: parts.iter().sum(),
                jain: if parts[0] == parts[1] { 1.0 } else { 0.9 },
                queue_ms: (1.0, 2.0),
                overflowed: 0.0,
            }
        };
        judged(link, 1, &(0..MEETINGS.len()).map(of).collect::<Vec<_>>())
    }

    /// CUBIC keeps 35 %, and 0.8 times what BBR leaves it in our place; others keep a quarter, ours
    /// have the same, and nine tenths are used.
    #[test]
    fn bars_are_those_of_the_issue() {
        let link = link("rate=100mbit rtt=40ms");
        let misses = |at: usize, shares: &[f64]| rows(&link, at, shares)[at].misses();
        assert_eq!(misses(2, &[0.55, 0.41]), [""; 0]);
        assert_eq!(misses(2, &[0.55, 0.39]), ["cubic below 40.0 %"], "BBR leaves it a half");
        assert_eq!(
            misses(3, &[0.39, 0.24]),
            ["used below 90 %", "cubic below 40.0 %", "ours below 25.0 %"]
        );
        assert_eq!(misses(4, &[0.76, 0.24]), ["bbr below 25.0 %"]);
        assert_eq!(misses(8, &[0.4, 0.6]), ["unequal"]);
        assert_eq!(misses(0, &[0.9, 0.0]), [""; 0], "that is there to compare with");
        let left = rows(&link, 0, &[0.8, 0.2]);
        let bar = left[2].bar.as_ref().expect("a bar");
        assert_eq!(bar.shares, [0.25, 0.35], "though BBR leaves it little");
    }

    /// The worst seed is shown, and what nothing is asked of is no miss.
    #[test]
    fn the_worst_seed_is_shown() {
        let calm = link("rate=100mbit rtt=40ms queue=2bdp");
        let (good, bad) = (rows(&calm, 4, &[0.5, 0.5]), rows(&calm, 4, &[0.9, 0.1]));
        let met = Met::of(&calm, [&good[4], &bad[4], &good[4]].into_iter());
        assert_eq!((met.queue, &met.misses[..]), (2.0, &["bbr below 25.0 %".to_owned()][..]));
        let lossy = link("rate=100mbit rtt=40ms loss=1%");
        let met = Met::of(&lossy, rows(&lossy, 4, &[0.9, 0.1])[4..5].iter());
        assert_eq!((met.misses.len(), met.columns()[8].as_str()), (0, "-"));
    }

    #[test]
    fn words_that_do_not_fit_are_refused() {
        for words in ["rate=1mbit rtt=40ms mtu=9000", "rate=1mbit rtt=1ms down=1", "rate=1mbit"] {
            assert!(fits(&link(words)).is_err(), "{words}");
        }
        assert!(fits(&link("rate=1gbit rtt=1ms jitter=3ms there.queue=64kib")).is_ok());
    }
}
