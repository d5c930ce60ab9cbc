//! `ringway wan sim`: the transport for lossy paths in virtual time.
//!
//! Four kinds of run: cells that have settled (the table), how cells start, one cell followed
//! through changes, as lines or as a picture, and who leaves what to whom (`beside`).

mod beside;

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use ringway_core::{Moment, Span};
use ringway_wan::Link;
use ringway_wan::line::{Line, bytes_in, read_length};
use ringway_wan::sim::{
    self, BAR_9000, BAR_DISTURBED, BAR_OTHER, Cell, Change, Outcome, Sample, Start, Story,
    WASTE_MAX,
};
use serde::Serialize;

use crate::args::wan::sim::SimArgs;
use crate::failure::Failure;
use crate::output::{answer, code, table};
use crate::wan::words::{links, mbit_said, several, table_of};

pub(crate) fn run(args: &SimArgs, json: bool) -> Result<ExitCode, Failure> {
    if args.beside {
        return beside::run(args, &links(&args.words, &beside::USUAL)?, json);
    }
    let links = links(&args.words, &USUAL)?;
    if args.plot.is_some() || !args.at.is_empty() || args.length.is_some() {
        return follow(args, &links, json);
    }
    links.iter().try_for_each(fits)?;
    let cells = cells(args, &links);
    if args.start { starts(args, &cells, json) } else { steady(args, &cells, json) }
}

/// Of what nothing arrives, no share of it can be judged, nor times in round trips of none.
fn fits(link: &Link) -> Result<(), Failure> {
    if !link.carries() {
        let why = "nothing can arrive over a line that is down or loses everything; with --for, \
                   --at and --plot one can be followed that is so for a while";
        return Err(Failure::Usage(why.to_owned()));
    }
    if link.rtt() == Span::ZERO {
        let why = "queues and times are told in round trips; give rtt, as rtt=10ms";
        return Err(Failure::Usage(why.to_owned()));
    }
    Ok(())
}

/// A line with what it is called, and a connection over it.
struct Named {
    link: Link,
    cell: Cell,
}

/// What is said of cells where words say nothing of it.
const USUAL: [(&str, &str); 4] = [
    ("rate", "12.5gbit"),
    ("mtu", "9000,1500"),
    ("rtt", "10ms,30ms,50ms,100ms,200ms,300ms"),
    ("loss", "1%,3%,5%,10%,15%,20%"),
];
/// Cells have a bar if both ends may keep so much.
const MEMORY_MIN: u64 = 2_000_000_000;
/// A cell has this long to settle, and is judged for as long, at least.
const TIME_MIN: Span = Span::from_ms(500);
/// Round trips of either, where nothing else is said.
const ROUNDS: u64 = 40;

/// So many round trips as they are in the middle, with jitter, but not too short a time, if a
/// number was given.
fn lasting(link: &Link, rounds: Option<u64>) -> Option<Span> {
    let round = link.rtt().0 + link.there.jitter.0 / 2 + link.back.jitter.0 / 2;
    rounds.map(|rounds| Span(round * rounds).max(TIME_MIN))
}

fn cells(args: &SimArgs, links: &[Link]) -> Vec<Named> {
    let time = |link: &Link, rounds: Option<u64>| {
        lasting(link, rounds.or(Some(ROUNDS))).expect("a number was given")
    };
    let with = |link: &Link, memory: u64| Named {
        link: *link,
        cell: Cell {
            there: link.line_there(),
            back: link.line_back(),
            mtu: link.mtu.into(),
            memory,
            warm_up: time(link, args.warm_up),
            time: time(link, args.time),
            seed: args.seed,
        },
    };
    let memory = &args.memory;
    let once = |at: &usize| !memory[..*at].contains(&memory[*at]);
    let memories = || (0..memory.len()).filter(once).map(|at| memory[at]);
    links.iter().flat_map(|link| memories().map(move |memory| with(link, memory))).collect()
}

/// Runs `work` on each seed of each cell; the results of a cell stand together.
fn each<R: Send>(
    args: &SimArgs,
    cells: &[Named],
    cost: &dyn Fn(&Cell) -> u64,
    work: &(dyn Fn(Cell) -> R + Sync),
) -> Vec<Vec<R>> {
    let seeds = || args.seed..args.seed.saturating_add(args.seeds);
    let all: Vec<Cell> =
        cells.iter().flat_map(|named| seeds().map(|seed| Cell { seed, ..named.cell })).collect();
    let mut results = all_of(args, &all, cost, &|cell| work(*cell)).into_iter();
    cells.iter().map(|_| results.by_ref().take(args.seeds as usize).collect()).collect()
}

/// Does `work` to all of them, on all cores unless told otherwise, and says how far it is.
fn all_of<T: Sync, R: Send>(
    args: &SimArgs,
    all: &[T],
    cost: &dyn Fn(&T) -> u64,
    work: &(dyn Fn(&T) -> R + Sync),
) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.map_or(cores, |jobs| jobs as usize);
    let (live, count) = (std::io::stderr().is_terminal(), all.len());
    let done = |done| {
        if live {
            eprint!("\r{done} of {count} ");
        }
    };
    let results = sim::all(all, jobs, cost, work, &done);
    if live {
        eprint!("\r{:width$}\r", "", width = 40);
    }
    results
}

/// Packets in so many nanoseconds, more or less.
fn packets(cell: &Cell, time: Span) -> u64 {
    ((u128::from(cell.there.bits_per_s) * u128::from(time.0) / u128::from(cell.mtu)) >> 32) as u64
}

/// What a cell is, for tables and programs.
#[derive(Serialize)]
struct Key {
    link: String,
    bits_per_s: u64,
    rtt_ms: f64,
    loss: f64,
    mtu: u16,
    memory: u64,
}

impl Key {
    fn of(named: &Named) -> Key {
        let Named { link, cell } = named;
        Key {
            link: link.to_string(),
            bits_per_s: link.there.bits_per_s,
            rtt_ms: link.rtt().0 as f64 / 1e6,
            loss: link.there.loss_ppm as f64 / 1e6,
            mtu: link.mtu,
            memory: cell.memory,
        }
    }

    fn columns(&self) -> Vec<String> {
        vec![format!("{}", self.rtt_ms), format!("{}", round(self.loss * 100.0))]
    }

    /// What cells of one table have in common.
    fn table(&self) -> (u64, u16, u64) {
        (self.bits_per_s, self.mtu, self.memory)
    }

    fn title(&self) -> String {
        let rate = self.bits_per_s as f64 / 1e6;
        let (mtu, memory) = (self.mtu, self.memory / 1_000_000);
        format!("{} Mbit/s, packets of {mtu} bytes, {memory} MB each end\n", round(rate))
    }
}

/// Six digits, of which those that say nothing are left out.
fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[derive(Serialize)]
struct Settled {
    #[serde(flatten)]
    key: Key,
    documents_mbit: Option<u64>,
    bound_mbit: f64,
    #[serde(flatten)]
    outcome: Outcome,
    /// Times what had to be sent.
    waste: f64,
    /// What it falls short of; empty if of nothing.
    misses: Vec<String>,
}

impl Settled {
    /// Of the seed that brought least, with the queues of those that built the longest.
    fn of(named: &Named, outcomes: &[Outcome]) -> Settled {
        let worst = outcomes.iter().min_by(|a, b| a.of_bound.total_cmp(&b.of_bound));
        let mut outcome = *worst.expect("each cell has a seed");
        outcome.queue_median = outcomes.iter().map(|one| one.queue_median).fold(0.0, f64::max);
        outcome.queue_p99 = outcomes.iter().map(|one| one.queue_p99).fold(0.0, f64::max);
        let Named { link, cell } = named;
        let way = &link.there;
        let of_table = way.bits_per_s == 12_500_000_000 && link.mtu == 9000;
        let documents = sim::documents(link.rtt(), way.loss_ppm).filter(|_| of_table);
        let part = 1.0 - way.loss_ppm as f64 / 1e6;
        let waste = outcomes.iter().map(|one| one.sent_per_delivered * part).fold(0.0, f64::max);
        let (bound_mbit, mbit) = (cell.bound_bits_per_s() / 1e6, outcome.goodput_bits_per_s / 1e6);
        let disturbed = [&link.there, &link.back]
            .into_iter()
            .any(|way| way.burst_milli > 0 || way.jitter > Span::ZERO || way.reorder_ppm > 0);
        let bar = match link.mtu {
            _ if disturbed => BAR_DISTURBED,
            9000 => BAR_9000,
            _ => BAR_OTHER,
        };
        let mut misses = Vec::new();
        let judged = cell.memory >= MEMORY_MIN;
        if judged && outcome.of_bound < bar {
            misses.push(format!("below {:.0} %", bar * 100.0));
        }
        if judged && waste > WASTE_MAX {
            misses.push(format!("sends over {WASTE_MAX}"));
        }
        if judged && documents.is_some_and(|documents| mbit <= documents as f64) {
            misses.push("not above the documents".to_owned());
        }
        if judged && has_queue_bar(named) {
            let bars = [(outcome.queue_median, QUEUE_MEDIAN), (outcome.queue_p99, QUEUE_P99)];
            let over = bars.into_iter().zip(["median", "p99"]).filter(|((is, most), _)| is > most);
            misses.extend(over.map(|((_, most), what)| format!("queue over {most} ({what})")));
        }
        let key = Key::of(named);
        Settled { key, documents_mbit: documents, bound_mbit, outcome, waste, misses }
    }

    fn row(&self) -> Vec<String> {
        let one = &self.outcome;
        let mbit = one.goodput_bits_per_s / 1e6;
        let documents = self.documents_mbit.map_or("-".to_owned(), |mbit| mbit.to_string());
        let times =
            self.documents_mbit.map_or("-".to_owned(), |of| format!("{:.2}", mbit / of as f64));
        let to_90 = one.start.seconds_to_90.map_or("never".to_owned(), |at| format!("{at:.3}"));
        let verdict = if self.key.memory < MEMORY_MIN {
            "-".to_owned()
        } else if self.misses.is_empty() {
            "ok".to_owned()
        } else {
            self.misses.join(", ")
        };
        let mut row = self.key.columns();
        row.extend([
            mbit_said(mbit),
            mbit_said(self.bound_mbit),
            format!("{:.1}", one.of_bound * 100.0),
            documents,
            times,
            format!("{:.3}", self.waste),
            format!("{:.2}", one.queue_median),
            format!("{:.2}", one.queue_p99),
            to_90,
            format!("{:.2}", one.start.overshoot),
            format!("{:.0}", one.memory_writer as f64 / 1e6),
            format!("{:.0}", one.memory_reader as f64 / 1e6),
            format!("{:.2}", one.reports * 100.0),
            verdict,
        ]);
        row
    }
}

/// Of a queue with this much room a connection may fill so much, in round trips' bytes, alone on a
/// round trip that is not shorter.
const QUEUE_ROOM: u64 = 4;
const QUEUE_RTT_MIN: Span = Span::from_ms(20);
const QUEUE_MEDIAN: f64 = 0.25;
const QUEUE_P99: f64 = 0.5;

/// Where there is little room the queue says nothing of who fills it, and what comes late or out of
/// order by itself looks like a queue.
fn has_queue_bar(named: &Named) -> bool {
    let Named { link, cell } = named;
    let room = bytes_in(cell.there.bits_per_s, link.rtt()) * QUEUE_ROOM;
    let even = |line: &Line| line.jitter == Span::ZERO && line.reorder_ppm == 0;
    let calm = even(&cell.there) && even(&cell.back);
    link.rtt() >= QUEUE_RTT_MIN && cell.there.queue_bytes >= room && calm
}

const SETTLED_HEAD: [&str; 16] = [
    "rtt",
    "loss",
    "Mbit/s",
    "bound",
    "%",
    "documents",
    "times",
    "sent",
    "queue",
    "p99",
    "to 90 %",
    "over",
    "writer",
    "reader",
    "reports",
    "verdict",
];
const SETTLED_LEGEND: &str = "\
rtt in ms, loss in %; bound: rate times what is not lost, in Mbit/s; documents: what the project set
out to beat, of a commercial tunnel's published table, in Mbit/s, and how many times that this is;
sent: bytes sent, times what has to be; queue (median, p99) and over (overflowed at the start) in
round trips' bytes; to 90 % in s; writer and reader keep MB; reports in % of the rate back\n";

fn steady(args: &SimArgs, cells: &[Named], json: bool) -> Result<ExitCode, Failure> {
    let cost = |cell: &Cell| packets(cell, Span(cell.warm_up.0 + cell.time.0));
    let outcomes = each(args, cells, &cost, &sim::run);
    let rows = cells.iter().zip(&outcomes).map(|(cell, outcomes)| Settled::of(cell, outcomes));
    let rows: Vec<Settled> = rows.collect();
    let missed = rows.iter().filter(|row| !row.misses.is_empty()).count();
    answer(json, &rows, || {
        let mut text = tables(&SETTLED_HEAD, &rows, &|row| &row.key, &Settled::row);
        let _ = writeln!(text, "{SETTLED_LEGEND}{missed} of {} miss their bar", rows.len());
        text
    });
    Ok(code(!args.check || missed == 0))
}

/// Round trips until nine tenths arrive: the median, beside so many milliseconds, and p95.
const ROUNDS_MEDIAN: f64 = 5.0;
const BESIDE_MS: f64 = 100.0;
const ROUNDS_P95: f64 = 8.0;
/// What may overflow meanwhile, in round trips' bytes.
const OVERSHOOT: f64 = 0.25;

#[derive(Serialize)]
struct Started {
    #[serde(flatten)]
    key: Key,
    seeds: usize,
    /// Round trips until nine tenths arrived, and the bar for the median.
    rounds_median: Option<f64>,
    rounds_p95: Option<f64>,
    rounds_bar: f64,
    overshoot_p95: f64,
    misses: Vec<String>,
}

impl Started {
    fn of(named: &Named, starts: &[Start]) -> Started {
        let key = Key::of(named);
        let rounds =
            |one: &Start| one.seconds_to_90.map_or(f64::INFINITY, |at| at * 1e3 / key.rtt_ms);
        let mut times: Vec<f64> = starts.iter().map(rounds).collect();
        let mut over: Vec<f64> = starts.iter().map(|one| one.overshoot).collect();
        times.sort_by(f64::total_cmp);
        over.sort_by(f64::total_cmp);
        let (median, p95) = (quantile(&times, 0.5), quantile(&times, 0.95));
        let overshoot_p95 = quantile(&over, 0.95);
        let rounds_bar = ROUNDS_MEDIAN + BESIDE_MS / key.rtt_ms;
        let mut misses = Vec::new();
        if key.loss <= 0.05 {
            let bars = [(median, rounds_bar, "median"), (p95, ROUNDS_P95, "p95")];
            misses
                .extend(bars.iter().filter(|(is, most, _)| is > most).map(|bar| bar.2.to_owned()));
            misses.extend((overshoot_p95 > OVERSHOOT).then(|| "overflow".to_owned()));
        } else if p95.is_infinite() {
            // However much is lost, a start comes to an end.
            misses.push("never".to_owned());
        }
        let known = |rounds: f64| rounds.is_finite().then_some(rounds);
        let (rounds_median, rounds_p95) = (known(median), known(p95));
        let seeds = starts.len();
        Started { key, seeds, rounds_median, rounds_p95, rounds_bar, overshoot_p95, misses }
    }

    fn row(&self) -> Vec<String> {
        let rounds = |at: Option<f64>| at.map_or("never".to_owned(), |at| format!("{at:.1}"));
        let verdict = match &self.misses[..] {
            [] if self.key.loss > 0.05 => "-".to_owned(),
            [] => "ok".to_owned(),
            misses => misses.join(", "),
        };
        let mut row = self.key.columns();
        row.extend([
            rounds(self.rounds_median),
            format!("{:.1}", self.rounds_bar),
            rounds(self.rounds_p95),
            format!("{:.2}", self.overshoot_p95),
            verdict,
        ]);
        row
    }
}

fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = (sorted.len() as f64 * part) as usize;
    sorted[at.min(sorted.len() - 1)]
}

const STARTED_HEAD: [&str; 7] = ["rtt", "loss", "median", "bar", "p95", "over", "verdict"];
const STARTED_LEGEND: &str = "\
rtt in ms, loss in %; median, its bar and p95 (bar: 8) in round trips until nine tenths arrive;
over: what overflowed in the first 20 round trips (p95), in round trips' bytes\n";

fn starts(args: &SimArgs, cells: &[Named], json: bool) -> Result<ExitCode, Failure> {
    let starts = each(args, cells, &|cell| packets(cell, cell.rtt()), &sim::start);
    let rows = cells.iter().zip(&starts).map(|(cell, starts)| Started::of(cell, starts));
    let rows: Vec<Started> = rows.collect();
    let missed = rows.iter().filter(|row| !row.misses.is_empty()).count();
    answer(json, &rows, || {
        let mut text = tables(&STARTED_HEAD, &rows, &|row| &row.key, &Started::row);
        let (legend, count) = (STARTED_LEGEND, rows.len());
        let _ =
            writeln!(text, "{legend}{missed} of {count} miss their bar, {} seeds each", args.seeds);
        text
    });
    Ok(code(!args.check || missed == 0))
}

/// A table for each rate, packet size and memory, with its title, and the words in which lines of
/// the same round trip and loss differ.
fn tables<T>(
    head: &[&str],
    rows: &[T],
    key: &dyn Fn(&T) -> &Key,
    row: &dyn Fn(&T) -> Vec<String>,
) -> String {
    let mut text = String::new();
    let mut tables: Vec<(u64, u16, u64)> = Vec::new();
    for one in rows {
        let of = key(one).table();
        if !tables.contains(&of) {
            tables.push(of);
        }
    }
    for of in tables {
        let mine: Vec<&T> = rows.iter().filter(|one| key(one).table() == of).collect();
        let lines: Vec<Vec<String>> = mine.iter().map(|one| row(one)).collect();
        let title = mine.first().map_or(String::new(), |one| key(one).title());
        let links: Vec<&str> = mine.iter().map(|one| key(one).link.as_str()).collect();
        let _ = writeln!(text, "{title}{}", table_of(head, (2, &SHOWN), &links, lines));
    }
    text
}

/// What a table has columns or a title for.
const SHOWN: [&str; 5] = ["rate", "mtu", "delay", "loss", "there.loss"];

/// How often a cell is looked at, at most so many times in all.
const LOOKS: u64 = 400;
const LOOK_MIN: Span = Span::from_ms(5);

fn follow(args: &SimArgs, links: &[Link], json: bool) -> Result<ExitCode, Failure> {
    let [link] = links else {
        let (many, several) = (links.len(), several(&args.words, &USUAL).join(", "));
        return Err(Failure::Usage(format!(
            "these are {many} cells, and one can be followed, as rate=200mbit rtt=100ms loss=5% \
             mtu=1500; give one value of {several}"
        )));
    };
    let [named] = &cells(args, links)[..] else {
        let why = "one connection is followed; give --memory once, as 256m";
        return Err(Failure::Usage(why.to_owned()));
    };
    if let Some(file) = &args.plot {
        drawable(file)?;
    }
    let said = args.length.as_deref().unwrap_or("10s");
    let refused = |why: &str| Failure::Usage(format!("--for {said}: {why}"));
    let length = read_length(said).map_err(refused)?;
    // A quarter of a round trip at least, or what is seen is the trains that a rate is made of.
    let every = Span(length.0 / LOOKS).max(LOOK_MIN).max(Span(link.rtt().0 / 4));
    if length < every {
        return Err(refused("that is over before anything is seen"));
    }
    let changes = changes(args, *link, length)?;
    let story = Story {
        cell: Cell { time: length, ..named.cell },
        changes: changes.iter().map(|(change, _)| *change).collect(),
        every,
    };
    let samples = story.tell();
    let Some(file) = &args.plot else {
        answer(json, &samples, || lines(&samples));
        return Ok(ExitCode::SUCCESS);
    };
    let svg = sim::plot(&format!("One connection over {link}"), &samples, &changes);
    std::fs::write(file, svg)
        .map_err(|error| Failure::Host(format!("{} cannot be written: {error}", file.display())))?;
    answer(json, &samples, || {
        let (file, seconds) = (file.display(), length.0 as f64 / 1e9);
        format!("{file}: rate, loss, queue and window of one connection in {seconds} s\n")
    });
    Ok(ExitCode::SUCCESS)
}

/// A picture is an SVG, and whoever calls it otherwise gets what nothing else can show.
fn drawable(file: &Path) -> Result<(), Failure> {
    if file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("svg")) {
        return Ok(());
    }
    let file = file.display();
    Err(Failure::Usage(format!("--plot {file}: pictures are SVG; give a name that ends with .svg")))
}

/// In the order of their times; each changes what was before it, and before the end.
fn changes(args: &SimArgs, link: Link, end: Span) -> Result<Vec<(Change, String)>, Failure> {
    let mut said = Vec::new();
    for pair in args.at.chunks_exact(2) {
        let refused = |why: &str| Failure::Usage(format!("--at {}: {why}", pair[0]));
        let at = read_length(&pair[0]).map_err(refused)?;
        if at >= end {
            return Err(refused(
                "that is not before the end; --for says when that is, usually 10s",
            ));
        }
        said.push((Moment(0) + at, pair[1].clone()));
    }
    said.sort_by_key(|(at, _)| *at);
    let mut link = link;
    let change = |(at, words): (Moment, String)| {
        let mtu = link.mtu;
        link = link.changed(&words).map_err(|why| Failure::Usage(why.to_string()))?;
        if link.mtu != mtu {
            let why = "the size of packets does not change while a connection is followed";
            return Err(Failure::Usage(format!("--at ... {words}: {why}")));
        }
        Ok((Change { at, link }, words))
    };
    said.into_iter().map(change).collect()
}

/// What happened, in twenty lines or so.
fn lines(samples: &[Sample]) -> String {
    let head = ["s", "can", "sent", "arrived", "read", "lost", "overflow", "queue", "flying"];
    let mbit = |bits: f64| format!("{:.1}", bits / 1e6);
    let percent = |part: f64| format!("{:.1}", part * 100.0);
    let row = |one: &Sample| {
        vec![
            format!("{:.2}", one.at_s),
            mbit(one.bound_bits_per_s),
            mbit(one.sent_bits_per_s),
            mbit(one.arrived_bits_per_s),
            mbit(one.read_bits_per_s),
            percent(one.lost),
            percent(one.overflowed),
            format!("{:.1}", one.queue_s * 1e3),
            format!("{:.0}", one.flying as f64 / 1e3),
        ]
    };
    let rows: Vec<Vec<String>> = samples
        .chunks(samples.len().div_ceil(20).max(1))
        .map(|some| row(&Sample::mean(some)))
        .collect();
    table(&head, &rows) + "rates in Mbit/s, loss and overflow in %, queue in ms, on their way kB\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// Without words, the documents' cells; each list makes a cell of each of its values.
    #[test]
    fn words_make_cells() {
        assert_eq!(links(&[], &USUAL).expect("the table").len(), 2 * 6 * 6);
        let some = links(
            &words(&["rate=1gbit,2gbit rtt=20ms", "mtu=1500", "loss=5%", "back.loss=0"]),
            &USUAL,
        );
        let some = some.expect("two cells");
        assert_eq!(
            some.iter().map(|link| link.there.bits_per_s / 1_000_000_000).collect::<Vec<_>>(),
            [1, 2]
        );
        assert!(some.iter().all(|link| link.back.loss_ppm == 0 && link.there.loss_ppm == 50_000));
        assert!(
            links(&words(&["speed=1"]), &USUAL).is_err()
                && links(&words(&["loss"]), &USUAL).is_err()
        );
        let many = "rate=1gbit,2gbit,3gbit,4gbit,5gbit,6gbit,7gbit,8gbit,9gbit,10gbit";
        let more =
            "queue=1bdp,2bdp,3bdp,4bdp,5bdp,6bdp,7bdp,8bdp,9bdp,10bdp,11bdp,12bdp,13bdp,14bdp";
        assert!(links(&words(&[many, more]), &USUAL).is_err(), "that would take days");
        let once = links(&words(&["rtt=10ms,10ms,0.01s", "loss=5%,5", "mtu=1500"]), &USUAL);
        assert_eq!(once.expect("one cell").len(), 1);
        let delayed = links(&words(&["delay=7ms,8ms", "loss=5%", "mtu=1500"]), &USUAL);
        let delayed = delayed.expect("two cells");
        assert_eq!(
            delayed.iter().map(Link::rtt).collect::<Vec<_>>(),
            [Span::from_ms(14), Span::from_ms(16)],
            "a delay is a round trip, too"
        );
        let args = SimArgs { memory: vec![1_000_000, 2_000_000, 1_000_000], ..args() };
        assert_eq!(cells(&args, &delayed).len(), 4, "each memory once");
    }

    /// Rows that differ by more than round trip and loss say by what; others have no such column.
    #[test]
    fn rows_tell_what_they_differ_by() {
        let page = |line: &[&str]| {
            let links = links(&words(line), &USUAL).expect("words");
            let cells = cells(&args(), &links);
            let rows = cells.iter().map(|cell| Settled::of(cell, &[Outcome::default()]));
            let rows: Vec<Settled> = rows.collect();
            tables(&SETTLED_HEAD, &rows, &|row| &row.key, &Settled::row)
        };
        let alike = page(&["rate=1gbit", "rtt=10ms,20ms", "loss=1%,2%", "mtu=1500"]);
        assert!(!alike.contains("words"), "{alike}");
        let more = page(&["rate=1gbit", "rtt=10ms", "loss=1%", "mtu=1500", "queue=1bdp,2bdp"]);
        assert!(more.contains("rtt  loss  words  ") && more.contains(" 10     1  queue=2bdp  "));
        let back = page(&["rate=1gbit", "rtt=10ms", "loss=1%", "back.loss=1%,2%", "mtu=1500"]);
        assert!(back.contains("  back.loss=2%  ") && !back.contains("there.loss"), "{back}");
    }

    /// No bar is met where nothing can be judged.
    #[test]
    fn lines_that_carry_nothing_are_no_cells() {
        for line in ["loss=100", "back.loss=100", "down=1", "there.down=1", "rtt=0"] {
            let links = links(&words(&[line, "mtu=1500"]), &USUAL).expect("words");
            assert!(links.iter().all(|link| fits(link).is_err()), "{line}");
        }
        assert!(links(&[], &USUAL).expect("the table").iter().all(|link| fits(link).is_ok()));
    }

    /// What misses is said, and where there is no bar nothing misses.
    #[test]
    fn bars_are_those_of_the_issue() {
        let link = |text: &str| Link::parse(text).expect("a link");
        let named = |text: &str, memory| Named {
            link: link(text),
            cell: Cell {
                there: link(text).line_there(),
                back: link(text).line_back(),
                mtu: link(text).mtu.into(),
                memory,
                warm_up: Span::ZERO,
                time: Span::ZERO,
                seed: 1,
            },
        };
        let of = |text: &str, memory, of_bound: f64, sent_per_delivered| {
            let named = named(text, memory);
            let goodput_bits_per_s = named.cell.bound_bits_per_s() * of_bound;
            let outcome =
                Outcome { of_bound, goodput_bits_per_s, sent_per_delivered, ..Outcome::default() };
            Settled::of(&named, &[outcome]).misses
        };
        let cell = "rate=12.5gbit rtt=10ms loss=1% mtu=9000";
        assert_eq!(of(cell, MEMORY_MIN, 0.97, 1.01), [""; 0]);
        assert_eq!(of(cell, MEMORY_MIN, 0.93, 1.01), ["not above the documents"]);
        assert_eq!(of(cell, MEMORY_MIN, 0.97, 1.07), ["sends over 1.05"]);
        assert_eq!(of(cell, MEMORY_MIN, 0.8, 1.0), ["below 90 %", "not above the documents"]);
        assert_eq!(of(cell, MEMORY_MIN / 2, 0.1, 1.0), [""; 0]);
        assert_eq!(of("rate=1gbit rtt=10ms mtu=1500", MEMORY_MIN, 0.86, 1.0), [""; 0]);
        assert_eq!(of("rate=1gbit rtt=10ms jitter=2ms", MEMORY_MIN, 0.79, 1.0), ["below 80 %"]);
    }

    /// The worst seed's queue counts, where there is room for four round trips' bytes, the round
    /// trip has 20 ms, and packets do not come late by themselves.
    #[test]
    fn long_queues_are_misses() {
        let misses = |words: &str, queues: &[(f64, f64)]| {
            let link = Link::parse(words).expect("a link");
            let outcome = |(queue_median, queue_p99): &(f64, f64)| Outcome {
                of_bound: 0.99,
                queue_median: *queue_median,
                queue_p99: *queue_p99,
                ..Outcome::default()
            };
            let outcomes: Vec<Outcome> = queues.iter().map(outcome).collect();
            Settled::of(&cells(&args(), &[link])[0], &outcomes).misses
        };
        let roomy = "rate=200mbit rtt=20ms loss=5% queue=4bdp";
        assert_eq!(misses(roomy, &[(0.25, 0.5), (0.1, 0.1)]), [""; 0]);
        assert_eq!(misses(roomy, &[(0.1, 0.1), (0.26, 0.5)]), ["queue over 0.25 (median)"]);
        assert_eq!(misses(roomy, &[(0.2, 0.1), (0.1, 0.51)]), ["queue over 0.5 (p99)"]);
        for words in [
            "rate=200mbit rtt=19ms queue=4bdp",
            "rate=200mbit rtt=20ms queue=3.9bdp",
            "rate=200mbit rtt=20ms queue=4bdp back.jitter=1ms",
            "rate=200mbit rtt=20ms queue=4bdp reorder=1%",
        ] {
            assert_eq!(misses(words, &[(1.0, 2.0)]), [""; 0], "{words}");
        }
    }

    /// Whoever names too many cells is told which words have several values, and what is no word
    /// is quoted as it was typed.
    #[test]
    fn what_is_wrong_is_named() {
        let several = |line: &str| several(&words(&[line]), &USUAL).join(", ");
        assert_eq!(several("delay=5ms loss=1%,5% mtu=1500"), "loss=1%,5%");
        assert_eq!(several("rtt=1ms loss=1%"), "mtu (of which nothing is said)");
        let Err(Failure::Usage(why)) = links(&words(&["200mbit"]), &USUAL) else { panic!() };
        assert!(why.starts_with("`200mbit`: "), "{why}");
        let shown = [12_375.0, 170.44, 9.2714].map(mbit_said);
        assert_eq!(shown, ["12375", "170.4", "9.271"]);
    }

    /// The median has 5 round trips and 100 ms, p95 has 8 round trips, also where that is less.
    #[test]
    fn starts_are_judged_by_median_and_p95() {
        let cell = |rtt: &str| {
            let line = format!("rate=1gbit rtt={rtt} loss=1% mtu=1500");
            cells(&args(), &links(&words(&[&line]), &USUAL).expect("one"))
        };
        let short = Start { seconds_to_90: Some(0.081), overshoot: 0.1 };
        assert_eq!(Started::of(&cell("10ms")[0], &[short]).misses, ["p95"]);
        let cells = cell("100ms");
        let start = |rounds: f64| Start { seconds_to_90: Some(rounds * 0.1), overshoot: 0.1 };
        let misses = |rounds: &[f64]| {
            Started::of(&cells[0], &rounds.iter().map(|one| start(*one)).collect::<Vec<_>>()).misses
        };
        assert_eq!(misses(&[4.0, 5.0, 5.9, 7.9]), [""; 0]);
        assert_eq!(misses(&[4.0, 5.0, 5.9, 8.1]), ["p95"]);
        assert_eq!(misses(&[4.0, 5.0, 6.5, 7.0]), ["median"]);
        let never = Start { seconds_to_90: None, overshoot: 0.3 };
        assert_eq!(Started::of(&cells[0], &[never]).misses, ["median", "p95", "overflow"]);
        let lossy = links(&words(&["rate=1gbit rtt=100ms loss=20% mtu=1500"]), &USUAL);
        let lossy = &super::cells(&args(), &lossy.expect("one"))[0];
        assert_eq!(Started::of(lossy, &[never]).misses, ["never"]);
        assert_eq!(Started::of(lossy, &[start(99.0)]).misses, [""; 0], "it has no other bar");
    }

    fn args() -> SimArgs {
        SimArgs {
            words: Vec::new(),
            memory: vec![MEMORY_MIN],
            seeds: 1,
            seed: 1,
            warm_up: Some(1),
            time: Some(1),
            jobs: Some(1),
            check: false,
            start: false,
            beside: false,
            at: Vec::new(),
            length: None,
            plot: None,
        }
    }
}
