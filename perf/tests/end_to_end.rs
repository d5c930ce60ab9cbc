//! Whole runs against a server in this process: the numbers are small, the paths are all there.

mod mock;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mock::{Fault, Mock};
use ringway_perf::sink::Sink;
use ringway_perf::{
    Broken, Expect, LoadConfig, LoadError, LoadSpec, Protocol, Report, SessionsConfig,
    SessionsSpec, compare, fill, run, run_sessions,
};

static GO: AtomicBool = AtomicBool::new(false);

/// A short load that leaves the cores to others. It ends with its ops, however long others have
/// the cores meanwhile.
fn spec(mock: &Mock, protocol: Protocol) -> LoadSpec {
    let mut spec = LoadSpec {
        target: mock.addr.to_string(),
        protocol,
        connections: 4,
        pipeline: 4,
        frame: if protocol == Protocol::Native { 16 } else { 1 },
        churn: 1000,
        warmup_s: 0.02,
        ops: Some(2_000),
        duration_s: 60.0,
        spin: false,
        ..LoadSpec::default()
    };
    spec.names.count = 500;
    spec
}

fn go(spec: LoadSpec) -> Result<Report, LoadError> {
    run(&LoadConfig::new(spec).expect("a valid load"), &GO, |_| {})
}

/// Every protocol, the whole mix: all names are owned because they were filled before, every
/// register and release succeeds because every connection works on its own names.
#[test]
fn every_protocol_runs_the_whole_mix() {
    for protocol in [Protocol::Native, Protocol::Port, Protocol::Keys] {
        let mock = Mock::start(Fault::None);
        let mix = "query=80,register=10,release=10".parse().expect("valid");
        let report =
            go(LoadSpec { mix, prefill: true, expect: Expect::Owned, ..spec(&mock, protocol) })
                .unwrap_or_else(|error| panic!("{protocol:?}: {error}"));
        assert!(report.ops > 100 && report.unexpected == 0, "{protocol:?}: {report}");
        let words: Vec<_> = report.statuses.keys().map(String::as_str).collect();
        assert_eq!(words, ["GRANTED", "OK", "OWNED"], "{protocol:?}");
        let prefill = report.prefill.expect("filled before");
        assert_eq!((prefill.ops, prefill.step.as_str()), (500, "fill"));
        assert!(report.latency.p50_us > 0.0 && report.latency.max_us < 10e6);
        if protocol == Protocol::Keys {
            assert_eq!(mock.owned(), 0, "keys outlive their connections, so they are cleared");
        }
    }
}

/// Several names in one PORT command, and several threads with their own connections.
#[test]
fn batched_commands_and_threads() {
    let mock = Mock::start(Fault::None);
    let mix = "query=2,register=1,release=1".parse().expect("valid");
    let threads = 2;
    let load = LoadSpec { mix, threads, frame: 8, prefill: true, ..spec(&mock, Protocol::Port) };
    let report = go(load).expect("runs");
    assert!(report.ops > 100, "{report}");
    assert_eq!(report.statuses.len(), 3, "{report}");
}

/// Fresh names run out, and the run ends with them; each was registered exactly once.
#[test]
fn a_run_ends_when_fresh_names_are_used_up() {
    let mock = Mock::start(Fault::None);
    let mix = "register=1".parse().expect("valid");
    let load = LoadSpec { mix, ops: None, warmup_s: 0.0, ..spec(&mock, Protocol::Native) };
    let report = go(load).expect("runs");
    assert_eq!((report.statuses["GRANTED"], report.ops), (1000, 1000));
    assert!(report.window_s < 30.0, "the window ends with the last name: {}", report.window_s);
}

/// A refusal is counted by its name and fails the run, with the report at hand.
#[test]
fn a_refusal_fails_the_run() {
    let mock = Mock::start(Fault::Refuses);
    let mix = "register=1,release=1".parse().expect("valid");
    let load = LoadSpec { mix, ..spec(&mock, Protocol::Native) };
    let error = go(load).expect_err("refused");
    assert!(error.to_string().contains("the first was FULL"), "{error}");
    assert!(error.report().expect("a report").statuses["FULL"] > 0);

    let mock = Mock::start(Fault::None);
    let error = go(LoadSpec { expect: Expect::Owned, ..spec(&mock, Protocol::Keys) });
    let error = error.expect_err("nothing was filled");
    assert!(error.to_string().contains("the first was FREE"), "{error}");
}

/// A server that answers the wrong request, or closes, is told by which connection and how.
#[test]
fn a_broken_server_is_named() {
    let mock = Mock::start(Fault::Misnumbers);
    let error = go(spec(&mock, Protocol::Native)).expect_err("misnumbered");
    assert!(matches!(error, LoadError::Broken { what: Broken::OutOfOrder { .. }, .. }), "{error}");

    let mock = Mock::start(Fault::Closes);
    let error = go(spec(&mock, Protocol::Port)).expect_err("closed");
    let hung_up = matches!(error, LoadError::Closed { .. } | LoadError::Io { .. });
    assert!(hung_up && error.to_string().contains("connection"), "{error}");
}

/// No coordinated omission: the server stalls once for 80 ms, and everything that was due
/// meanwhile shows it. At 2000 a second that is about 160 of 600 requests, waiting 40 ms on
/// average; a closed loop would show a single slow request.
#[test]
fn an_open_loop_counts_what_a_stall_delays() {
    let stall = Duration::from_millis(80);
    let mock = Mock::start(Fault::Stalls(stall));
    let load = LoadSpec {
        connections: 1,
        frame: 1,
        pipeline: 1000,
        rate: Some(2000.0),
        ops: None,
        warmup_s: 0.0,
        duration_s: 0.3,
        ..spec(&mock, Protocol::Native)
    };
    let report = go(load.clone()).expect("runs");
    assert!(report.latency.max_us >= 79e3, "{report}");
    assert!(report.latency.p90_us >= 20e3, "a quarter of all requests met the stall: {report}");
    assert!(report.ops <= 601 && report.unanswered == 0, "{report}");

    // With one request on the way at a time the rest waits here, and counts no less.
    let report = go(LoadSpec { pipeline: 1, ..load }).expect("runs");
    assert!(report.latency.p90_us >= 20e3, "{report}");
}

/// A rate that the server cannot reach: what could not even be sent is said and counted.
#[test]
fn a_backlog_is_not_hidden() {
    let mock = Mock::start(Fault::Stalls(Duration::from_millis(300)));
    let load = LoadSpec {
        connections: 1,
        frame: 1,
        pipeline: 1,
        rate: Some(1000.0),
        ops: None,
        warmup_s: 0.0,
        duration_s: 0.1,
        ..spec(&mock, Protocol::Native)
    };
    let report = go(load).expect("runs");
    assert!(report.unsent > 10, "{report}");
    assert!(report.latency.p50_us > 10e3, "{report}");
}

/// A fill registers every name once, releases every second one, and registers as many new ones.
#[test]
fn a_fill_churns_half_of_its_names() {
    let mock = Mock::start(Fault::None);
    let mut load = LoadSpec { pid: Some(std::process::id()), ..spec(&mock, Protocol::Native) };
    load.names.count = 5001;
    let config = LoadConfig::new(load).expect("valid");
    let report = fill(&config, true, &GO, |_| {}).expect("runs");
    let steps: Vec<_> = report.steps.iter().map(|step| (step.step.as_str(), step.ops)).collect();
    assert_eq!(steps, [("fill", 5001), ("release", 2501), ("churn", 2501)]);
    assert_eq!((report.names, mock.owned()), (5001, 5001));
    assert!(report.steps.iter().all(|step| step.rss_bytes_per_name.is_some()));
    assert!(report.to_string().contains("bytes a name"), "{report}");
}

/// Ctrl-C ends a long run early, and there is still a report.
#[test]
fn a_stop_still_reports() {
    let mock = Mock::start(Fault::None);
    let stop = AtomicBool::new(false);
    let endless = LoadSpec { ops: None, duration_s: 600.0, ..spec(&mock, Protocol::Native) };
    let load = LoadSpec { warmup_s: 0.0, ..endless };
    let config = LoadConfig::new(load).expect("valid");
    let mut seen = 0;
    let report = run(&config, &stop, |progress| {
        seen += 1;
        if progress.ops > 0 {
            stop.store(true, Ordering::Relaxed);
        }
    })
    .expect("a report");
    assert!(report.stopped && report.ops > 0 && seen > 0, "{report}");
    assert!(report.window_s < 60.0);
}

/// A report goes to JSON and back; what was measured can be compared in a year.
#[test]
fn reports_are_data() {
    let sink = Sink::start(None).expect("a sink");
    let load = LoadSpec {
        target: sink.addr().to_string(),
        // Enough to be seen by a scheduler that counts a running thread only now and then.
        ops: Some(1_000_000),
        duration_s: 60.0,
        warmup_s: 0.0,
        spin: false,
        pid: Some(std::process::id()),
        expect: Expect::Owned,
        ..LoadSpec::default()
    };
    let report = go(load).expect("runs");
    assert!(report.ops >= 1_000_000 && report.window_s < 30.0, "{report}");
    assert!(report.server.expect("our own process").cpu_us_per_op > 0.0);
    let json = serde_json::to_string(&report).expect("serializes");
    let back: Report = serde_json::from_str(&json).expect("parses");
    assert_eq!(back.statuses, report.statuses);
    assert_eq!(back.spec, report.spec);
}

/// Two loads in turns give medians and ratios; fewer than five rounds are refused.
#[test]
fn comparisons_take_turns() {
    let mock = Mock::start(Fault::None);
    let config = |label: &str, protocol| {
        let short = LoadSpec { warmup_s: 0.0, ..spec(&mock, protocol) };
        LoadConfig::new(LoadSpec { label: label.into(), ..short }).expect("valid")
    };
    let (a, b) = (config("one", Protocol::Native), config("two", Protocol::Port));
    assert!(compare(&a, &b, 4, &GO, |_| {}).is_err());
    let compared = compare(&a, &b, 5, &GO, |_| {}).expect("runs");
    assert_eq!((compared.a.len(), compared.b.len()), (5, 5));
    assert!(compared.ops_per_s.ratio > 0.0 && compared.ops_per_cpu_s.is_none());
    assert!(compared.to_string().contains("one"), "{compared}");
}

/// Gateways renew all their sessions once a period; connections of their own renew themselves.
#[test]
fn sessions_are_renewed_on_time() {
    for (connections, sessions) in [(3, 5000), (200, 1)] {
        let mock = Mock::start(Fault::None);
        let load = SessionsSpec {
            target: mock.addr.to_string(),
            connections,
            sessions,
            lease_ms: 300,
            duration_s: 0.35,
            pid: Some(std::process::id()),
            ..SessionsSpec::default()
        };
        let config = SessionsConfig::new(load).expect("valid");
        let report = run_sessions(&config, &GO, |_| {}).expect("runs");
        let all = (connections * sessions) as u64;
        assert_eq!(report.sessions, all);
        assert!(report.renewals >= 3 * all && report.renewals <= 4 * all, "{report}");
        assert_eq!(report.renewals, mock.renewals());
        assert!(report.server_bytes_per_session.is_some() && report.latency.p50_us > 0.0);
    }
}

/// A session that is gone while its lease should run means that the server expired an innocent.
#[test]
fn a_lost_session_fails_the_run() {
    let mock = Mock::start(Fault::Forgets);
    let load = SessionsSpec {
        target: mock.addr.to_string(),
        connections: 2,
        sessions: 10,
        duration_s: 0.5,
        ..SessionsSpec::default()
    };
    let config = SessionsConfig::new(load).expect("valid");
    let error = run_sessions(&config, &GO, |_| {}).expect_err("forgotten");
    assert!(error.to_string().contains("NOSESSION"), "{error}");
}
