//! A short mutation run of every target in the ordinary tests: same seed, same inputs.
//!
//! It is a smoke alarm, not a search: it rings when a change breaks a parser in a way that a few
//! thousand damaged inputs show. The search is `cargo xtask fuzz`.

use ringway_core::rng::Rng;
use ringway_fuzz::{TARGETS, corpus, mutate};

/// Inputs per target.
const INPUTS: usize = 20_000;

/// Prints what repeats a failure, if the test fails while it is alive.
struct Rerun<'a> {
    target: &'a str,
    seed: u64,
    input: &'a [u8],
}

impl Drop for Rerun<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Rerun { target, seed, input } = self;
            eprintln!("target {target}, input {input:?}");
            eprintln!("rerun: RINGWAY_FUZZ_SEED={seed} cargo test -p ringway-fuzz --test smoke");
        }
    }
}

/// Whatever is done to a valid input, no target panics and none breaks a promise.
#[test]
fn damaged_inputs_are_survived() {
    let seed = std::env::var("RINGWAY_FUZZ_SEED").ok();
    let seed = seed.map_or(7_400, |seed| seed.parse().expect("RINGWAY_FUZZ_SEED is a number"));
    for target in TARGETS {
        let inputs = corpus::load(target).expect("a readable corpus");
        let inputs: Vec<Vec<u8>> = inputs.into_iter().map(|(_, bytes)| bytes).collect();
        let mut rng = Rng::new(seed);
        for _ in 0..INPUTS {
            let input = mutate::mutant(target, &inputs, &mut rng);
            let _rerun = Rerun { target: target.name, seed, input: &input };
            (target.run)(&input);
        }
    }
}
