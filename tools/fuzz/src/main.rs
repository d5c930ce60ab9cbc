//! The long run without a guide: mutates a target's corpus until the time is over.
//!
//! Needs nothing but the stable compiler. An input that panics, or that is not done within ten
//! seconds, is written into the corpus, where the ordinary tests replay it from then on.
//! Not here: the run that coverage guides (`bin/guided.rs`), which finds more and needs more.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ringway_core::rng::Rng;
use ringway_fuzz::{TARGETS, Target, corpus, mutate};

const HELP: &str = "\
ringway-fuzz list                             the targets
ringway-fuzz seeds                            writes the corpora's seed files anew
ringway-fuzz TARGET FILE...                   runs these inputs
ringway-fuzz TARGET --seconds N [--seed S]    mutates the corpus for N seconds
";

/// An input that takes longer is a failure.
const HANGS_AFTER: Duration = Duration::from_secs(10);

/// What the worker is at: how many inputs are done, and the one under way.
type Current = Arc<Mutex<(u64, Vec<u8>)>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match command(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("ringway-fuzz: {why}");
            ExitCode::FAILURE
        }
    }
}

fn command(words: &[&str]) -> Result<(), String> {
    match words {
        [] | ["help" | "--help" | "-h"] => print!("{HELP}"),
        ["list"] => TARGETS.iter().for_each(|target| println!("{}", target.name)),
        ["seeds"] => corpus::write_seeds().map_err(|error| format!("{error}"))?,
        [name, "--seconds", seconds] => fuzz(name, seconds, &entropy().to_string())?,
        [name, "--seconds", seconds, "--seed", seed] => fuzz(name, seconds, seed)?,
        [name, files @ ..] => {
            let target = known(name)?;
            for file in files {
                let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
                (target.run)(&bytes);
                println!("{file}: ok");
            }
        }
    }
    Ok(())
}

fn known(name: &str) -> Result<&'static Target, String> {
    Target::named(name).ok_or_else(|| format!("no target or command `{name}`\n\n{HELP}"))
}

/// A seed that differs from run to run; it is printed, so nothing is lost.
fn entropy() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Rng::new(now.as_nanos() as u64).next_u64()
}

fn fuzz(name: &str, seconds: &str, seed: &str) -> Result<(), String> {
    let target = known(name)?;
    let seconds =
        seconds.parse().map_err(|_| format!("--seconds takes a number, not {seconds}"))?;
    let seed: u64 = seed.parse().map_err(|_| format!("--seed takes a number, not {seed}"))?;
    let inputs = corpus::load(target).map_err(|error| format!("corpus of {name}: {error}"))?;
    let inputs: Vec<Vec<u8>> = inputs.into_iter().map(|(_, bytes)| bytes).collect();
    if inputs.is_empty() {
        return Err(format!("{name} has no corpus: run `ringway-fuzz seeds` first"));
    }
    println!("{name}: {} inputs, {seconds} s, --seed {seed}", inputs.len());

    let current = Current::default();
    keep_what_panics(target, &current);
    let (alive, ends) = channel();
    let watched = current.clone();
    let watchdog = std::thread::spawn(move || watch(target, &watched, &ends));
    let count = mutate_for(target, &inputs, Duration::from_secs(seconds), (seed, &current));
    drop(alive);
    watchdog.join().map_err(|_| "the watchdog panicked".to_owned())?;
    println!("{name}: {count} inputs, none failed");
    Ok(())
}

fn mutate_for(target: &Target, inputs: &[Vec<u8>], time: Duration, run: (u64, &Current)) -> u64 {
    let (seed, current) = run;
    let mut rng = Rng::new(seed);
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < time {
        let input = mutate::mutant(target, inputs, &mut rng);
        count += 1;
        {
            let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
            current.0 = count;
            current.1.clone_from(&input);
        }
        (target.run)(&input);
    }
    count
}

/// The hook runs before the process unwinds or aborts, whichever the profile says.
fn keep_what_panics(target: &'static Target, current: &Current) {
    let current = current.clone();
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        let current = current.lock().unwrap_or_else(PoisonError::into_inner);
        keep(target, &current.1);
    }));
}

/// Ends the process if one input takes too long; returns when `ends` is closed.
fn watch(target: &Target, current: &Current, ends: &Receiver<()>) {
    let mut seen = 0;
    while let Err(RecvTimeoutError::Timeout) = ends.recv_timeout(HANGS_AFTER) {
        let current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 == seen {
            eprintln!("input {seen} is not done after {HANGS_AFTER:?}");
            keep(target, &current.1);
            std::process::exit(1);
        }
        seen = current.0;
    }
}

fn keep(target: &Target, input: &[u8]) {
    match corpus::keep(target, input) {
        Ok(path) => eprintln!("the input is kept as {}", path.display()),
        Err(error) => eprintln!("the input cannot be kept ({error}); it is {input:?}"),
    }
}
