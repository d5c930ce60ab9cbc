//! Seeds of whole agents under fire: `storm` says what is judged.

mod net;
mod storm;

/// Prints what repeats a failure, if the test fails while it is alive.
struct Rerun(u64);

impl Drop for Rerun {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!(
                "rerun: RINGWAY_SEED={seed} cargo test -p ringway-tunnel-proto --test agent_swarm"
            );
        }
    }
}

/// Whatever befalls carriers and sites, agents do what they promise. `RINGWAY_SEED` picks one seed,
/// `RINGWAY_SEEDS` says how many there are.
#[test]
fn agents_survive_storms() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let one: Option<u64> = number("RINGWAY_SEED");
    let seeds = one.map_or(0..number("RINGWAY_SEEDS").unwrap_or(60), |seed| seed..seed + 1);
    let mut sum = storm::Outcome::default();
    for seed in seeds {
        let _rerun = Rerun(seed);
        let outcome = storm::run(seed, None).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        sum.closed += outcome.closed;
        sum.reset += outcome.reset;
        sum.faults += outcome.faults;
        sum.dialled += outcome.dialled;
    }
    let mild = one.is_none() && (sum.closed < 300 || sum.reset < 60 || sum.faults < 1000);
    assert!(!mild, "the weather was mild: {sum:?}");
    println!("{sum:?}");
}
