//! `ringway wan matrix`: one connection of iperf3 over real links, through the tunnel and others.
//!
//! What always holds:
//! - M1  Each run has namespaces, a link and processes of its own, and all of them are gone when it
//!   is over, however it ends.
//! - M2  What was measured is on disk before the next run begins, and is not measured again by the
//!   same program with the same seed.
//! - M3  What counts is what the receiver got, after the beginning.
//! - M4  A run ends: what has not by its deadline has failed, and is told apart from a slow one.
//!
//! - `contestant`: who carries the connection, as processes. `iperf`: the connection. `child`: a
//!   process that ends with us. `rows`: results, in a file and as a table.

mod child;
mod contestant;
mod gotatun;
mod iperf;
mod rows;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use ringway_core::Span;
use ringway_wan::Link;
use ringway_wan::line::read_length;
use ringway_wan::real::{Plan, Running, WayStatus};

use crate::args::wan::matrix::{Contestant, MatrixArgs};
use crate::failure::Failure;
use crate::output::{answer, code};
use crate::signals::Stop;
use crate::wan::words::links;
use child::Stopped;
use iperf::Times;
use rows::{Row, Rows, What};

/// What is said of cells where words say nothing of it.
const USUAL: [(&str, &str); 4] = [
    ("rate", "200mbit"),
    ("mtu", "1500"),
    ("rtt", "10ms,30ms,50ms,100ms,200ms,300ms"),
    ("loss", "1%,3%,5%,10%,15%,20%"),
];
/// How long a run takes, in round trips and at least; and what is not counted before.
const ROUNDS: u64 = 200;
const TIME_MIN: Span = Span::from_s(20);
const ROUNDS_BEFORE: u64 = 30;
const TIME_BEFORE_MIN: Span = Span::from_s(5);
/// Part of the bound that the tunnel has to bring.
const BAR: f64 = 0.85;
/// What namespaces are called, before the number of the process.
const SPACES: &str = "rwm";

/// The keys that a killed run of this name has left are removed; which these were.
pub(super) fn remove_left(name: &str) -> Result<Option<String>, Failure> {
    match name.strip_prefix(SPACES).and_then(|pid| pid.parse().ok()) {
        Some(pid) => contestant::remove_keys(pid),
        None => Ok(None),
    }
}

pub(super) fn run(args: &MatrixArgs, json: bool) -> Result<ExitCode, Failure> {
    let links = links(&args.words, &USUAL)?;
    let length = args.length.as_deref().map(length_of).transpose()?;
    let patience = patience_of(&args.patience)?;
    if args.check && !args.contestants.contains(&Contestant::Ringway) {
        let why = "--check judges `ringway`, which is not among --contestants";
        return Err(Failure::Usage(why.to_owned()));
    }
    let stop = Stop::install()?;
    let mut rows = Rows::open(args.into.as_deref())?;
    let ours = args.contestants.iter().any(|contestant| contestant.is_ours());
    let build = if ours { Some(rows::build()?) } else { None };
    let plan = planned(args, &links, length, build.as_deref());
    let others = rows.others(plan.iter().map(|run| &run.what));
    if others > 0 {
        let file = args.into.as_deref().unwrap_or(Path::new("")).display();
        eprintln!(
            "{file}: {others} results are of another build of ringway or of another seed, or do \
             not say; they do not count, and are measured again"
        );
    }
    let left: Vec<&Planned> = plan.iter().filter(|run| !rows.have(&run.what)).collect();
    contestant::have_programs(left.iter().map(|run| run.contestant))?;
    let live = std::io::stderr().is_terminal();
    for (at, run) in left.iter().enumerate() {
        if live {
            eprint!("\r[{} of {}] {} ...", at + 1, left.len(), run.what);
        }
        match measured(run, patience, &stop) {
            Ok(row) => {
                let clear = if live { "\r" } else { "" };
                eprintln!("{clear}[{} of {}] {row}", at + 1, left.len());
                rows.add(row)?;
            }
            Err(Stopped::ByUser) => {
                eprintln!();
                return Ok(stop.code());
            }
            Err(Stopped::Failed(why)) => return Err(why),
        }
    }
    let shown = rows.of(plan.iter().map(|run| &run.what));
    let came = shown.iter().all(|row| row.failed.is_none());
    let well = shown.iter().all(|row| row.what.contestant != "ringway" || row.share() >= BAR);
    answer(json, &shown, || rows::page(&shown));
    Ok(code(came && (well || !args.check)))
}

/// How long a run is to take, as said.
fn length_of(text: &str) -> Result<Span, Failure> {
    let refused = |why: &str| Failure::Usage(format!("--for {text}: {why}"));
    let length = read_length(text).map_err(refused)?;
    match length.0 {
        // iperf3 would never stop.
        0 => Err(refused("a run takes some time, as 20s")),
        ns if ns % 1_000_000_000 > 0 => Err(refused("iperf3 measures whole seconds, as 5s or 2m")),
        _ => Ok(length),
    }
}

/// How much longer it may take, as said.
fn patience_of(text: &str) -> Result<Duration, Failure> {
    let refused = |why: &str| Failure::Usage(format!("--patience {text}: {why}"));
    match read_length(text).map_err(refused)? {
        Span(0) => Err(refused("say a time that is not nothing")),
        patience => Ok(Duration::from_nanos(patience.0)),
    }
}

/// A run that is to be made.
struct Planned {
    what: What,
    link: Link,
    contestant: Contestant,
    before: Span,
    seed: u64,
}

/// All runs: contestants take turns on a cell, so that what else the machine does hits all of them.
fn planned(
    args: &MatrixArgs,
    links: &[Link],
    length: Option<Span>,
    build: Option<&str>,
) -> Vec<Planned> {
    let mut plan = Vec::new();
    for round in 0..args.rounds {
        for link in links {
            let rtt = link.rtt();
            let time = length.unwrap_or(Span(rtt.0 * ROUNDS).max(TIME_MIN));
            let before = Span(rtt.0 * ROUNDS_BEFORE).max(TIME_BEFORE_MIN);
            let seed = args.seed.wrapping_add(round.into());
            for (at, contestant) in args.contestants.iter().enumerate() {
                // Whoever is named twice runs once.
                if args.contestants[..at].contains(contestant) {
                    continue;
                }
                let what = What {
                    link: link.to_string(),
                    contestant: contestant.name().to_owned(),
                    seconds: time.0.div_ceil(1_000_000_000),
                    round,
                    seed: Some(seed),
                    build: build.filter(|_| contestant.is_ours()).map(str::to_owned),
                };
                plan.push(Planned { what, link: *link, contestant: *contestant, before, seed });
            }
        }
    }
    plan
}

/// Makes a run.
fn measured(run: &Planned, patience: Duration, stop: &Stop) -> Result<Row, Stopped> {
    if !run.link.carries() {
        return Ok(nothing_of(run, "nothing can arrive over this link"));
    }
    let name = format!("{SPACES}{}", std::process::id());
    let links = vec![run.link];
    let running = Running::start(&Plan { name, links, seed: Some(run.seed), spin: false });
    let running = running.map_err(|error| Stopped::Failed(error.into()))?;
    let spaces = running.spaces();
    let carries = contestant::start(run.contestant, &run.link, &spaces, stop)?;
    let time = Duration::from_secs(run.what.seconds);
    let times = Times { before: Duration::from_nanos(run.before.0), time, patience };
    let got = iperf::run(&spaces, &carries.route(), times, stop)?;
    let status = running.status().map_err(|error| Stopped::Failed(error.into()))?;
    let ways = [&status.links[0].there, &status.links[0].back];
    let sum = |of: fn(&WayStatus) -> u64| ways.into_iter().map(of).sum();
    Ok(Row {
        what: run.what.clone(),
        mbit_per_s: got.mbit_per_s,
        bound_mbit_per_s: bound_mbit_per_s(&run.link),
        cpu_s_per_gb: carries.cpu_s().map(|cpu| cpu / (got.bytes.max(1) as f64 / 1e9)),
        waited_s: carries.waited_s(),
        failed: got.failed,
        own_losses: sum(WayStatus::own_losses),
        late: sum(|way| way.trouble.late_1ms),
        packets: Some(sum(|way| way.counts.arrived)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// A run that came to nothing before anything was made for it.
fn nothing_of(run: &Planned, why: &str) -> Row {
    Row {
        what: run.what.clone(),
        mbit_per_s: 0.0,
        bound_mbit_per_s: bound_mbit_per_s(&run.link),
        cpu_s_per_gb: None,
        waited_s: None,
        failed: Some(why.to_owned()),
        own_losses: 0,
        late: 0,
        packets: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The rate times what is not lost.
fn bound_mbit_per_s(link: &Link) -> f64 {
    let way = &link.there;
    let part = if link.carries() { 1.0 - way.loss_ppm as f64 / 1e6 } else { 0.0 };
    way.bits_per_s as f64 / 1e6 * part
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::wan::{WanArgs, WanCommand};
    use crate::args::{Cli, Command};

    fn plan_of(line: &str) -> Vec<Planned> {
        let cli = Cli::try_parse_from(line.split_whitespace()).expect(line);
        let Command::Wan(WanArgs { command: WanCommand::Matrix(args) }) = cli.command else {
            panic!("{line}")
        };
        let links = links(&args.words, &USUAL).expect("words");
        let length = args.length.as_deref().map(|time| read_length(time).expect("a time"));
        planned(&args, &links, length, Some("this"))
    }

    /// Without words, the documents' cells; all who run take turns, and slow paths get more time.
    #[test]
    fn runs_take_turns() {
        let plan = plan_of("ringway wan matrix");
        assert_eq!(plan.len(), 36 * 3);
        let names = |runs: &[Planned]| {
            runs.iter().map(|run| run.contestant.name()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(&plan[..4]), "ringway cubic bbr ringway");
        let builds: Vec<Option<&str>> =
            plan[..3].iter().map(|run| run.what.build.as_deref()).collect();
        assert_eq!(builds, [Some("this"), None, None], "rivals are the same in every build");
        assert_eq!((plan[0].what.seconds, plan[107].what.seconds), (20, 60));
        assert_eq!((plan[0].before, plan[107].before), (Span::from_s(5), Span::from_s(9)));
        let line = "ringway wan matrix rtt=30ms loss=5% --rounds 2 --for 3s --contestants bbr";
        let plan = plan_of(line);
        let rounds: Vec<(u32, u64, u64)> =
            plan.iter().map(|run| (run.what.round, run.seed, run.what.seconds)).collect();
        assert_eq!(rounds, [(0, 1, 3), (1, 2, 3)]);
        let twice = "ringway wan matrix rtt=30ms,0.03s loss=5% --contestants bbr,cubic,bbr";
        assert_eq!(names(&plan_of(twice)), "bbr cubic", "a cell and a contestant said twice");
    }

    /// Where nothing can arrive nothing is tried: the bound is nothing, and the run has failed.
    #[test]
    fn nothing_is_a_failure() {
        for words in ["down=1", "loss=100%", "back.loss=100%", "there.down=1"] {
            let plan = plan_of(&format!("ringway wan matrix rtt=30ms {words}"));
            let row = nothing_of(&plan[0], "why");
            assert_eq!((row.bound_mbit_per_s, row.share()), (0.0, 0.0), "{words}");
        }
        let plan = plan_of("ringway wan matrix rtt=30ms loss=5%");
        assert_eq!(bound_mbit_per_s(&plan[0].link), 190.0);
    }

    #[test]
    fn a_run_takes_some_time() {
        assert_eq!(length_of("2s").expect("a time"), Span::from_s(2));
        assert_eq!(length_of("90s").expect("a time"), Span::from_s(90));
        for wrong in ["0s", "0", "2", "2d"] {
            assert!(matches!(length_of(wrong), Err(Failure::Usage(_))), "{wrong}");
        }
    }
}
