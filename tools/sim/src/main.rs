//! The swarm on the command line: runs seeds, and says how to repeat the one that fails.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Instant;

use ringway_sim::swarm::{Breach, Options, Tally, Theme, run};

const HELP: &str = "\
cargo run -p ringway-sim --release -- [--seeds A..B | --seed N] [options]

--seeds A..B   these seeds (default 0..2000)
--seed N       this one
--shards N     this many shards (default: the seed decides)
--steps N      events before faults cease (default 1500)
--theme THEME  what all seeds are about: LastMoment, Stalls, Restarts, Queues, Messages,
               Watches, Lanes, Blocked, Quotas (default: the seed decides)
--trace        print what happens
--breach RULE  switch a rule off; `list` lists them (most need `--features sabotage`)
";

struct Args {
    first: u64,
    end: u64,
    options: Options,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match parse(&words) {
        Ok(Some(args)) => swarm(&args),
        Ok(None) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("ringway-sim: {why}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn parse(words: &[String]) -> Result<Option<Args>, String> {
    let mut args = Args { first: 0, end: 2_000, options: Options::default() };
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} takes a value"));
        match word {
            "--seeds" => {
                let range = value()?;
                let (first, end) = range.split_once("..").ok_or("--seeds takes A..B")?;
                (args.first, args.end) = (number(first)?, number(end)?);
            }
            "--seed" => {
                args.first = number(value()?)?;
                args.end = args.first + 1;
            }
            "--shards" => args.options.shards = Some(number(value()?)?.clamp(1, 128) as usize),
            "--steps" => args.options.steps = number(value()?)?,
            "--trace" => args.options.trace = true,
            "--theme" => {
                let name = value()?;
                let theme = Theme::ALL.into_iter().find(|theme| format!("{theme:?}") == name);
                args.options.theme = Some(theme.ok_or_else(|| format!("no theme {name}"))?);
            }
            "--breach" => match value()? {
                "list" => {
                    Breach::all().for_each(|breach| println!("{}", breach.name()));
                    return Ok(None);
                }
                name => {
                    let breach = Breach::named(name).ok_or_else(|| format!("no rule {name}"))?;
                    args.options.breach = Some(breach);
                }
            },
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(None);
            }
            other => return Err(format!("what is {other}?")),
        }
    }
    Ok(Some(args))
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word} is not a number"))
}

fn swarm(args: &Args) -> ExitCode {
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut printed = started;
    for seed in args.first..args.end {
        // Release builds abort: the hook is the only one who can say how to repeat a panic.
        let line = rerun(seed, &args.options);
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            eprintln!("{info}\nrerun: {line}");
        }));
        let result = run(seed, &args.options);
        std::panic::set_hook(print);
        match result {
            Ok(one) => tally.add(&one),
            Err(why) => {
                eprintln!("seed {seed}: {why}\nrerun: {}", rerun(seed, &args.options));
                return ExitCode::FAILURE;
            }
        }
        if printed.elapsed().as_secs() >= 2 {
            printed = Instant::now();
            println!("seed {seed}: {:.0} seeds/s", rate(seed + 1 - args.first, started));
        }
    }
    let seeds = args.end.saturating_sub(args.first);
    println!("{seeds} seeds hold, {:.0} seeds/s; {tally:?}", rate(seeds, started));
    ExitCode::SUCCESS
}

fn rate(seeds: u64, since: Instant) -> f64 {
    seeds as f64 / since.elapsed().as_secs_f64().max(1e-9)
}

fn rerun(seed: u64, options: &Options) -> String {
    let mut features = "";
    let mut line = String::new();
    if let Some(shards) = options.shards {
        line += &format!(" --shards {shards}");
    }
    if options.steps != Options::default().steps {
        line += &format!(" --steps {}", options.steps);
    }
    if let Some(theme) = options.theme {
        line += &format!(" --theme {theme:?}");
    }
    if let Some(breach) = options.breach {
        line += &format!(" --breach {}", breach.name());
        features = " --features sabotage";
    }
    format!("cargo run -p ringway-sim --release{features} -- --seed {seed}{line} --trace")
}
