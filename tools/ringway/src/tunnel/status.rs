//! `ringway tunnel status`: peers, carriers, flows, and what limits them.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ringway_tunnel_node::ask;
use ringway_tunnel_node::config::Config;
use ringway_tunnel_node::status::{CarrierStatus, FlowStatus, PeerStatus, SessionStatus, Status};

use crate::args::tunnel::StatusArgs;
use crate::failure::Failure;
use crate::output::{code, say, size, table};
use crate::signals::Stop;

pub(super) fn run(args: &StatusArgs, json: bool) -> Result<ExitCode, Failure> {
    let socket = socket(args)?;
    let sample = || {
        ask(&socket, args.flows).map_err(|error| {
            Failure::Unreachable(format!(
                "no tunnel answers at {}: {error}. Is it running, and with this configuration? \
                 `ringway tunnel --config FILE` starts it",
                socket.display()
            ))
        })
    };
    let stop = Stop::install()?;
    let interval = Duration::from_secs_f64(args.watch.unwrap_or(1.0));
    let clear = args.watch.is_some() && std::io::stdout().is_terminal() && !json;
    let mut before = sample()?;
    loop {
        // Rates are what moved between two answers.
        let twice = args.watch.is_some() || !json;
        if twice && stop.wait_for(interval) {
            return Ok(ExitCode::SUCCESS);
        }
        let now = if twice { sample()? } else { before.clone() };
        let home = if clear { "\x1b[H\x1b[2J" } else { "" };
        if json {
            let text = match args.watch {
                Some(_) => serde_json::to_string(&now),
                None => serde_json::to_string_pretty(&now),
            };
            say(&text.expect("plain numbers and texts"));
        } else {
            say(&format!("{home}{}", page(&now, &before, interval.as_secs_f64())));
        }
        if args.watch.is_none() {
            return Ok(code(now.peers.iter().all(|peer| peer.up || !peer.dials)));
        }
        before = now;
    }
}

/// Where the tunnel is asked.
pub(super) fn socket(args: &StatusArgs) -> Result<PathBuf, Failure> {
    match (&args.socket, &args.config) {
        (Some(socket), _) => Ok(socket.clone()),
        (None, Some(config)) => Ok(Config::socket_of(config)?),
        (None, None) => Err(Failure::Usage(
            "which tunnel? Name its configuration by --config, or its socket by --socket".into(),
        )),
    }
}

fn page(now: &Status, before: &Status, seconds: f64) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(text, "up for {} s, process {}", now.uptime_s, now.pid);
    for peer in &now.peers {
        let old = before.peers.iter().find(|old| old.name == peer.name);
        peer_text(&mut text, peer, old, seconds);
    }
    let counted: Vec<String> = now
        .counters
        .iter()
        .filter(|(name, value)| {
            let trouble = ["lost", "failed", "broken", "not_let_in"];
            **value > 0 && trouble.iter().any(|word| name.contains(word))
        })
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    if !counted.is_empty() {
        let _ = writeln!(text, "\nsince the start: {}", counted.join(", "));
    }
    text
}

fn peer_text(text: &mut String, peer: &PeerStatus, old: Option<&PeerStatus>, seconds: f64) {
    let state = match (peer.up, peer.dials) {
        (true, _) => "connected",
        (false, true) => "NOT CONNECTED (`ringway tunnel check` looks for the reason)",
        (false, false) => "not connected; it dials us",
    };
    let _ = writeln!(text, "\npeer {}: {state}", peer.name);
    if peer.waiting > 0 {
        let _ = writeln!(text, "  {} connections wait for it", peer.waiting);
    }
    for session in &peer.sessions {
        // A shard may have several: one for each shard of who dials.
        let same = |old: &&SessionStatus| session.id.is_some() && old.id == session.id;
        let old = old.and_then(|old| old.sessions.iter().find(same));
        session_text(text, session, old, seconds);
    }
}

fn session_text(
    text: &mut String,
    session: &SessionStatus,
    old: Option<&SessionStatus>,
    seconds: f64,
) {
    let cipher = session.cipher.as_deref().unwrap_or("no keys yet");
    let flows = session.flow_count;
    let _ =
        write!(text, "  shard {}: {cipher}, keys {}, {flows} flows", session.shard, session.epoch);
    // While keys are rotated it matters under which of them a session counts.
    let key = |whose, key: Option<u64>, keys| match key {
        Some(key) if keys > 1 => format!(", {whose} key {key} of {keys}"),
        _ => String::new(),
    };
    text.push_str(&key("our", session.own_key, session.own_keys));
    text.push_str(&key("the peer's", session.peer_key, session.peer_keys));
    text.push('\n');
    if let Some(alone) = session.alone_ms {
        let failures = session.failures;
        let _ =
            writeln!(text, "    no carrier for {alone} ms; {failures} attempts came to nothing");
    }
    let mut rows = Vec::new();
    for carrier in &session.carriers {
        let same = |old: &&CarrierStatus| old.id == carrier.id;
        let was = old.and_then(|old| old.carriers.iter().find(same));
        let sent_before = was.map_or(0, |was| was.sent);
        let moved = carrier.sent.saturating_sub(sent_before) as f64 / seconds;
        rows.push(vec![
            carrier.peer.map_or_else(|| "?".to_owned(), |peer| peer.to_string()),
            format!("{:.1} ms", carrier.rtt_us as f64 / 1000.0),
            format!("{}/s", size(moved as u64)),
            size(carrier.in_flight),
            size(carrier.waiting),
            size(carrier.sent),
            size(carrier.resent),
            if carrier.suspect { "does not answer".to_owned() } else { String::new() },
        ]);
    }
    if !rows.is_empty() {
        let head = ["carrier", "RTT", "rate", "in flight", "waits", "sent", "re-sent", ""];
        text.push_str(&indented(&table(&head, &rows)));
    }
    let mut rows = Vec::new();
    for flow in &session.flows {
        let was = old.and_then(|old| old.flows.iter().find(|was| was.flow == flow.flow));
        rows.push(flow_row(flow, was, seconds));
    }
    if !rows.is_empty() {
        let head = ["flow", "from", "to", "in", "out", "saved", "kept", "limited by"];
        text.push_str(&indented(&table(&head, &rows)));
    }
}

fn flow_row(flow: &FlowStatus, was: Option<&FlowStatus>, seconds: f64) -> Vec<String> {
    // One that was not among those told before: how much of it is new is not known.
    let unknown = was.is_none() && flow.age_ms as f64 > seconds * 1000.0;
    let rate = |now: u64, was: Option<u64>| {
        if unknown {
            return "?".to_owned();
        }
        let moved = now.saturating_sub(was.unwrap_or(0)) as f64 / seconds;
        format!("{}/s", size(moved as u64))
    };
    let saved = match flow.saved {
        0 => String::new(),
        saved if saved > 0 => size(saved.unsigned_abs()),
        saved => format!("-{}", size(saved.unsigned_abs())),
    };
    vec![
        flow.flow.to_string(),
        flow.from.clone().unwrap_or_default(),
        flow.target.clone(),
        rate(flow.bytes_in, was.map(|was| was.bytes_in)),
        rate(flow.bytes_out, was.map(|was| was.bytes_out)),
        saved,
        size(flow.kept),
        format!("{} ({})", flow.limited_by, flow.stage),
    ]
}

fn indented(table: &str) -> String {
    table.lines().fold(String::new(), |text, line| text + "    " + line.trim_end() + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(flow: u64, bytes_in: u64) -> FlowStatus {
        FlowStatus { flow, bytes_in, target: "there".to_owned(), ..FlowStatus::default() }
    }

    /// A session of shard 0 whose carriers have sent so much each, and its one flow likewise.
    fn session(id: &str, carriers: &[(&str, u64)], moved: u64) -> SessionStatus {
        let carrier = |(id, sent): &(&str, u64)| CarrierStatus {
            id: (*id).to_owned(),
            sent: *sent,
            ..CarrierStatus::default()
        };
        SessionStatus {
            id: Some(id.to_owned()),
            carriers: carriers.iter().map(carrier).collect(),
            flow_count: 1,
            flows: vec![flow(0, moved)],
            ..SessionStatus::default()
        }
    }

    fn status(sessions: Vec<SessionStatus>) -> Status {
        let peer = PeerStatus { name: "it".to_owned(), sessions, ..PeerStatus::default() };
        Status { peers: vec![peer], ..Status::default() }
    }

    /// The rates of a page, from above: each carrier's, then those of its session's flow.
    fn rates(now: &Status, before: &Status) -> Vec<String> {
        let page = page(now, before, 1.0);
        let words = page.split_whitespace();
        words.filter(|word| word.ends_with("/s")).map(str::to_owned).collect()
    }

    /// Rates are of the same session, the same carrier and the same flow, wherever they stood
    /// before. What was not there before has moved all that it has since.
    #[test]
    fn rates_are_of_the_same_sessions_and_carriers() {
        let before = status(vec![
            session("a", &[("1.0", 1000), ("2.0", 5000), ("3.0", 9000)], 100),
            session("b", &[("4.0", 70)], 20),
        ]);
        let still = ["0B/s"; 8];
        assert_eq!(rates(&before, &before), still, "nothing moved");
        // The first carrier of the one is gone, a new one has come, and the sessions have changed
        // places; the third session is new.
        let now = status(vec![
            session("b", &[("4.0", 73)], 24),
            session("a", &[("2.0", 5005), ("3.0", 9006), ("1.1", 7)], 109),
            session("c", &[("5.0", 2)], 1),
        ]);
        let moved = ["3B/s", "4B/s", "0B/s", "5B/s", "6B/s", "7B/s", "9B/s", "0B/s"];
        assert_eq!(rates(&now, &before), [&moved[..], &["2B/s", "1B/s", "0B/s"]].concat());
    }

    /// A flow that is old and was not among those that were shown has no rate: what it has moved
    /// in all its life is none.
    #[test]
    fn a_flow_that_was_not_shown_has_no_rate() {
        let (before, mut now) = (status(vec![session("a", &[], 0)]), session("a", &[], 0));
        now.flows = vec![FlowStatus { age_ms: 60_000, ..flow(9, 1 << 40) }];
        let page = page(&status(vec![now]), &before, 1.0);
        assert!(!page.contains("/s") && page.contains("?"), "{page}");
    }
}
