//! Question: how many native queries a second can one core of the generator drive? The answer has
//! to stay above what the fastest server does, or it measures itself.
//!
//! `cargo run --release -p ringway-perf --example own_cost [frame] [pipeline] [connections]`
//! runs the generator on core 1 against a sink on core 0.

use std::sync::atomic::AtomicBool;

use ringway_perf::sink::Sink;
use ringway_perf::{LoadConfig, LoadSpec, run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>());
    let mut next = |default| args.next().unwrap_or(Ok(default));
    let (frame, pipeline, connections) = (next(64)?, next(8)?, next(16)?);
    let sink = Sink::start(Some(0))?;
    let spec = LoadSpec {
        label: "generator against a sink".into(),
        target: sink.addr().to_string(),
        cores: vec![1],
        warmup_s: 0.5,
        duration_s: 2.0,
        frame,
        pipeline,
        connections,
        ..LoadSpec::default()
    };
    let report = run(&LoadConfig::new(spec)?, &AtomicBool::new(false), |_| {})?;
    println!("{report}");
    Ok(())
}
