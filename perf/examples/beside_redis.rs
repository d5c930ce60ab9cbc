//! Question: what does a Redis on this machine do under our generator? A number of its own, and a
//! check of the generator against `redis-benchmark` with the same settings.
//!
//! `cargo run --release -p ringway-perf --example beside_redis 127.0.0.1:6379 PID [pipeline]`

use std::sync::atomic::AtomicBool;

use ringway_perf::{Alphabet, Expect, LoadConfig, LoadSpec, NameSpec, Protocol, run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let target = args.next().ok_or("give the address of a Redis")?;
    let pid = args.next().map(|pid| pid.parse()).transpose()?;
    let pipeline = args.next().map_or(Ok(16), |depth| depth.parse())?;
    for (label, mix, expect, prefill) in [
        ("GET", "query=1", Expect::Owned, true),
        ("SET NX and DEL", "register=1,release=1", Expect::Any, false),
    ] {
        let spec = LoadSpec {
            label: label.into(),
            target: target.clone(),
            protocol: Protocol::Keys,
            mix: mix.parse()?,
            expect,
            prefill,
            pipeline,
            frame: 1,
            value_bytes: 32,
            duration_s: 2.0,
            warmup_s: 0.5,
            cores: vec![1],
            pid,
            names: NameSpec { alphabet: Alphabet::Printable, ..NameSpec::default() },
            ..LoadSpec::default()
        };
        let report = run(&LoadConfig::new(spec)?, &AtomicBool::new(false), |_| {})?;
        println!("{report}\n");
    }
    Ok(())
}
