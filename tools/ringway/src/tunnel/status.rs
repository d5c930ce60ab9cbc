//! `ringway tunnel status`: peers, carriers, flows, and what limits them.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ringway_tunnel_node::ask;
use ringway_tunnel_node::config::Config;
use ringway_tunnel_node::status::{
    CarrierStatus, DecisionStatus, FlowStatus, PeerStatus, SessionStatus, Status, Together,
    UnopenedStatus, WhyStatus,
};

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
    let clear = args.watch.is_some() && std::io::stdout().is_terminal() && !json;
    // Pages follow each other on a cleared screen, or with an empty line between them.
    let mut home = if clear { "\x1b[H\x1b[2J" } else { "" };
    loop {
        let now = sample()?;
        if json {
            let text = match args.watch {
                Some(_) => serde_json::to_string(&now),
                None => serde_json::to_string_pretty(&now),
            };
            say(&text.expect("plain numbers and texts"));
        } else {
            say(&format!("{home}{}", page(&now, args.why)));
            home = if clear { home } else { "\n" };
        }
        let Some(seconds) = args.watch else {
            return Ok(code(now.peers.iter().all(|peer| peer.up || !peer.dials)));
        };
        if stop.wait_for(Duration::from_secs_f64(seconds)) {
            return Ok(ExitCode::SUCCESS);
        }
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

fn page(now: &Status, why: bool) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(text, "up for {} s, process {}", now.uptime_s, now.pid);
    for UnopenedStatus { listen, kind, peer, why } in &now.unopened {
        let listen = listen.map(|at| at.to_string()).unwrap_or_default();
        let _ = writeln!(
            text,
            "NOT OPEN: {kind} {listen} to peer {peer}: {why} (SIGHUP tries again; `ringway tunnel \
             check` says more)"
        );
    }
    for peer in &now.peers {
        peer_text(&mut text, peer);
        if why {
            why_text(&mut text, peer);
        }
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

fn peer_text(text: &mut String, peer: &PeerStatus) {
    let state = match (peer.up, peer.dials) {
        (true, _) => "connected",
        (false, true) => "NOT CONNECTED (`ringway tunnel check` looks for the reason)",
        (false, false) => "not connected; it dials us",
    };
    let _ = writeln!(text, "\npeer {}: {state}", peer.name);
    if peer.waiting > 0 {
        let _ = writeln!(text, "  connections that wait for it: {}", peer.waiting);
    }
    together_text(text, &peer.together);
    for session in &peer.sessions {
        session_text(text, session);
    }
}

/// What a peer's sessions have together, if there was anything.
fn together_text(text: &mut String, all: &Together) {
    if all.carrier_count == 0 && all.bytes_in + all.bytes_out == 0 {
        return;
    }
    let row = vec![
        rate(all.rate_in_bits_per_s),
        rate(all.rate_out_bits_per_s),
        rtt(all.rtt_us),
        size(all.in_flight),
        signed(all.saved),
        size(all.resent),
        size(all.bytes_in),
        size(all.bytes_out),
        all.limited_by.clone().unwrap_or_default(),
    ];
    let head =
        ["in", "out", "RTT", "in flight", "saved", "re-sent", "all in", "all out", "limited by"];
    text.push_str(&indented(&table(&head, &[row]), "  "));
}

fn session_text(text: &mut String, session: &SessionStatus) {
    let cipher = session.cipher.as_deref().unwrap_or("no keys yet");
    let flows = session.flow_count;
    let s = if flows == 1 { "" } else { "s" };
    let (shard, epoch) = (session.shard, session.epoch);
    let _ = write!(text, "  shard {shard}: {cipher}, keys {epoch}, {flows} flow{s}");
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
    let rows: Vec<_> = session.carriers.iter().map(carrier_row).collect();
    if !rows.is_empty() {
        let head = [
            "carrier",
            "by",
            "sends",
            "gets",
            "RTT",
            "in flight",
            "waits",
            "re-sent",
            "limited by",
        ];
        text.push_str(&indented(&table(&head, &rows), "    "));
    }
    let rows: Vec<_> = session.flows.iter().map(flow_row).collect();
    if !rows.is_empty() {
        let head = [
            "flow",
            "from",
            "to",
            "in",
            "out",
            "RTT",
            "in flight",
            "saved",
            "re-sent",
            "limited by",
        ];
        text.push_str(&indented(&table(&head, &rows), "    "));
        let untold = flows.saturating_sub(rows.len() as u64);
        if untold > 0 {
            let _ = writeln!(text, "    and {untold} more that move less (`--flows N` shows N)");
        }
    }
}

/// Why carriers over UDP send as they do.
fn why_text(text: &mut String, peer: &PeerStatus) {
    let carriers = peer.sessions.iter().flat_map(|session| &session.carriers);
    let told = carriers.filter_map(|carrier| Some((carrier, carrier.why.as_ref()?)));
    let mut none = true;
    for (carrier, why) in told {
        none = false;
        let peer = carrier.peer.map_or_else(|| "?".to_owned(), |peer| peer.to_string());
        let WhyStatus { rate, window, repair, decisions } = why;
        let _ = writeln!(text, "  why {peer} by udp:\n    rate: {rate}\n    window: {window}");
        let _ = writeln!(text, "    repair: {repair}");
        if let Some(bytes) = carrier.datagram_bytes {
            let _ =
                writeln!(text, "    length: datagrams of {bytes} bytes, as the path passes them");
        }
        if let Some(us) = carrier.heard_us_ago {
            let _ = writeln!(text, "    answer: the last one {:.1} s ago", us as f64 / 1e6);
        }
        for DecisionStatus { ago_ms, what } in decisions {
            let _ = writeln!(text, "    {:.1} s ago: {what}", *ago_ms as f64 / 1000.0);
        }
    }
    if none {
        let _ = writeln!(
            text,
            "  why: no carrier over UDP; `udp = true` in both files gives one. How fast one over \
             TCP sends is the kernel's"
        );
    }
}

fn carrier_row(carrier: &CarrierStatus) -> Vec<String> {
    vec![
        carrier.peer.map_or_else(|| "?".to_owned(), |peer| peer.to_string()),
        carrier.kind.clone(),
        rate(carrier.rate_sent_bits_per_s),
        rate(carrier.rate_received_bits_per_s),
        rtt(Some(carrier.rtt_us)),
        size(carrier.in_flight),
        size(carrier.waiting),
        size(carrier.resent),
        carrier.limited_by.clone(),
    ]
}

fn flow_row(flow: &FlowStatus) -> Vec<String> {
    vec![
        flow.flow.to_string(),
        flow.from.clone().unwrap_or_default(),
        flow.target.clone(),
        rate(flow.rate_in_bits_per_s),
        rate(flow.rate_out_bits_per_s),
        rtt(flow.rtt_us),
        size(flow.in_flight),
        signed(flow.saved),
        size(flow.resent),
        format!("{} ({})", flow.limited_by, flow.stage),
    ]
}

fn rate(bits_per_s: u64) -> String {
    match bits_per_s {
        0..10_000 => format!("{bits_per_s}bit/s"),
        10_000..10_000_000 => format!("{}kbit/s", bits_per_s / 1_000),
        10_000_000..10_000_000_000 => format!("{}Mbit/s", bits_per_s / 1_000_000),
        _ => format!("{}Gbit/s", bits_per_s / 1_000_000_000),
    }
}

fn rtt(us: Option<u64>) -> String {
    us.map_or_else(|| "?".to_owned(), |us| format!("{:.1} ms", us as f64 / 1000.0))
}

fn signed(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "" };
    format!("{sign}{}", size(bytes.unsigned_abs()))
}

fn indented(table: &str, by: &str) -> String {
    table.lines().fold(String::new(), |text, line| text + by + line.trim_end() + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a page says of a peer, a carrier and a flow, and that more flows are there.
    #[test]
    fn a_page_has_all_of_it() {
        let flow = FlowStatus {
            flow: 6,
            target: "there".to_owned(),
            stage: "joined".to_owned(),
            rate_in_bits_per_s: 12_345_678,
            rate_out_bits_per_s: 9_999,
            rtt_us: Some(40_300),
            in_flight: 60_000,
            saved: -12,
            resent: 7,
            limited_by: "carrier".to_owned(),
            ..FlowStatus::default()
        };
        let carrier = CarrierStatus {
            kind: "udp".to_owned(),
            rtt_us: 40_200,
            rate_sent_bits_per_s: 13_000_000,
            limited_by: "path".to_owned(),
            datagram_bytes: Some(1420),
            heard_us_ago: Some(1_230_000),
            why: Some(WhyStatus {
                rate: "sends what went by of late: 13 Mbit/s; the path passes 13 Mbit/s".to_owned(),
                decisions: vec![DecisionStatus { ago_ms: 2500, what: "a train".to_owned() }],
                ..WhyStatus::default()
            }),
            ..CarrierStatus::default()
        };
        let session = SessionStatus {
            carriers: vec![carrier],
            flow_count: 3,
            flows: vec![flow],
            ..SessionStatus::default()
        };
        let together = Together {
            carrier_count: 1,
            rate_in_bits_per_s: 20_000_000_000,
            saved: 5 << 20,
            limited_by: Some("carrier".to_owned()),
            ..Together::default()
        };
        let (name, up) = ("it".to_owned(), true);
        let peer =
            PeerStatus { name, up, sessions: vec![session], together, ..PeerStatus::default() };
        let status = Status { peers: vec![peer], ..Status::default() };
        let page = page(&status, true);
        let rows: Vec<Vec<&str>> =
            page.lines().map(|line| line.split_whitespace().collect()).collect();
        let has = |row: &str| {
            let words: Vec<&str> = row.split_whitespace().collect();
            assert!(rows.contains(&words), "{row} in {page}");
        };
        has("20Gbit/s 0bit/s ? 0B 5120KiB 0B 0B 0B carrier");
        has("? udp 13Mbit/s 0bit/s 40.2 ms 0B 0B 0B path");
        has("6 there 12Mbit/s 9999bit/s 40.3 ms 58KiB -12B 7B carrier (joined)");
        has("and 2 more that move less (`--flows N` shows N)");
        has("rate: sends what went by of late: 13 Mbit/s; the path passes 13 Mbit/s");
        has("length: datagrams of 1420 bytes, as the path passes them");
        has("answer: the last one 1.2 s ago");
        has("2.5 s ago: a train");
    }

    /// A status that an older process tells is read, too: it has not all of it.
    #[test]
    fn what_is_told_is_read_again() {
        let peer = PeerStatus { name: "it".to_owned(), ..PeerStatus::default() };
        let status = Status { peers: vec![peer], ..Status::default() };
        let mut told = serde_json::to_value(&status).expect("plain numbers and texts");
        assert_eq!(serde_json::from_value::<Status>(told.clone()).expect("its own"), status);
        let peer = told["peers"][0].as_object_mut().expect("a peer");
        assert!(peer.remove("rate_in_bits_per_s").is_some(), "it stands with the peer");
        assert_eq!(serde_json::from_value::<Status>(told).expect("an older one"), status);
    }
}
