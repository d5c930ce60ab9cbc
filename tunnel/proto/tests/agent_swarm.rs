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
    let (one, sum) = all(storm_of_records, 60, &[671]);
    let mild = one.is_none() && (sum.closed < 300 || sum.reset < 60 || sum.faults < 1000);
    assert!(!mild, "the weather was mild: {sum:?}");
}

/// Likewise where sessions go by packets, too, and those are lost, doubled, late, blocked, seen by
/// another address, come to any shard, in bursts, at once with others, and over links that change.
#[test]
fn agents_with_packets_survive_storms() {
    // All of them are run in release: `cargo xtask test` does.
    let seeds = if cfg!(debug_assertions) { 50 } else { 500 };
    let (one, sum) = all(storm::run_in_air, seeds, &[540, 681, 909]);
    let mild = sum.closed < 5 * seeds as usize || sum.faults < 17 * seeds as usize;
    assert!(one.is_some() || !mild, "the weather was mild: {sum:?}");
    for (what, many) in sum.met.all() {
        assert!(one.is_some() || many > 3 * seeds, "{what}: the weather was mild: {sum:?}");
    }
}

fn storm_of_records(seed: u64) -> Result<storm::Outcome, String> {
    storm::run(seed, None)
}

#[expect(clippy::disallowed_methods, reason = "who repeats a failure picks its seed")]
fn all(
    run: impl Fn(u64) -> Result<storm::Outcome, String>,
    many: u64,
    failed_once: &[u64],
) -> (Option<u64>, storm::Outcome) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let one: Option<u64> = number("RINGWAY_SEED");
    let seeds = one.map_or(0..number("RINGWAY_SEEDS").unwrap_or(many), |seed| seed..seed + 1);
    let mut sum = storm::Outcome::default();
    let others = failed_once.iter().copied().filter(|_| one.is_none());
    for seed in seeds.chain(others) {
        let _rerun = Rerun(seed);
        let outcome = run(seed).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        sum.closed += outcome.closed;
        sum.reset += outcome.reset;
        sum.faults += outcome.faults;
        sum.dialled += outcome.dialled;
        sum.met.add(&outcome.met);
    }
    println!("{sum:?}");
    (one, sum)
}
