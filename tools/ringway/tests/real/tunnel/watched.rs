//! What a tunnel shows of itself while it runs.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::flows::{Load, Transfer, connect, mirror, serve};
use super::sites::{Pair, Side, Words};
use crate::support::{Held, until};

/// The sessions of a side that can be used.
fn sessions(side: &Side) -> BTreeSet<String> {
    let status = side.status();
    let sessions = status.peers[0].sessions.iter().filter(|session| session.up);
    sessions.filter_map(|session| session.id.clone()).collect()
}

/// The next whole page: what was printed since the last head.
#[track_caller]
fn page(watched: &Held) -> Vec<String> {
    let lines = std::iter::repeat_with(|| watched.line());
    lines.take_while(|line| !line.starts_with("up for ")).collect()
}

/// What the peer and carriers move, by a page.
fn rates(page: &[String]) -> Vec<&str> {
    let words = page.iter().flat_map(|line| line.split_whitespace());
    words.filter(|word| word.ends_with("bit/s")).collect()
}

/// Who dials has two shards, and so there are two sessions, both of one shard of the other side.
/// Both sides have the same numbers for them, and each carrier has one of its own. The page shows
/// what moves lately, and so nothing a second after all has arrived, until Ctrl-C ends it.
#[test]
fn pages_follow_until_ctrl_c() {
    let service = mirror("127.0.0.1:0");
    let near = Words::default().set("shards = 2").forward(service);
    let pair = Pair::start(&near, &Words::default().allow([service]));
    until("two sessions, the same at both sides", || {
        let near = sessions(&pair.near);
        (near.len() == 2 && near == sessions(&pair.far)).then_some(())
    });
    let status = pair.far.status();
    let carriers: Vec<&str> = status.peers[0]
        .sessions
        .iter()
        .flat_map(|session| session.carriers.iter().map(|carrier| &carrier.id[..]))
        .collect();
    assert_eq!(carriers.iter().collect::<BTreeSet<_>>().len(), carriers.len(), "{carriers:?}");
    Transfer::begin(pair.near.door(0), Load { seed: 5, up: 4 << 20, down: 4 << 20 }).arrives();

    let mut watched = pair.far.watch();
    assert_eq!(page(&watched), [""; 0], "the first line is a head");
    let first = page(&watched);
    assert_eq!(first.iter().filter(|line| line.starts_with("  shard 0: ")).count(), 2, "{first:?}");
    until("nothing moves", || {
        let page = page(&watched);
        let rates = rates(&page);
        (rates.len() >= 6 && rates.iter().all(|rate| *rate == "0bit/s")).then_some(())
    });
    watched.signal(Signal::INT);
    assert_eq!(watched.wait(), Some(0), "{}", watched.err());
    pair.stop();
}

/// A flow that has ended for both sides while the near one still holds text back, because its peer
/// is over its rate: the application gets all of it, at that rate, and then the end.
#[test]
fn what_a_rate_holds_back_comes_after_the_end() {
    const TEXT: usize = 3 << 20;
    // It fits into the first window when it is compressed: all of it is here long before its time.
    let service = serve("127.0.0.1:0", |mut stream, _| {
        let _ = stream.write_all(&vec![b'-'; TEXT]);
    });
    let near = Words::default().peer("rate = \"8 Mbit/s\"").forward(service);
    let pair = Pair::start(&near, &Words::default().allow([service]));
    let begun = Instant::now();
    let mut stream = connect(pair.near.door(0));
    stream.shutdown(Shutdown::Write).expect("it is connected");
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("all of it, and then its end");
    assert!(got.len() == TEXT && got.iter().all(|byte| *byte == b'-'), "{} bytes", got.len());
    assert!(begun.elapsed() >= Duration::from_secs(2), "3 MiB at 1 MB/s, but for a burst");
    pair.stop();
}

/// Bits a second that the sites of the next story may move each way.
const RATE: u64 = 40_000_000;

/// Whether it is about the rate: a burst may be in it, and the first half second may not.
fn is_about_the_rate(bits_per_s: u64) -> bool {
    (RATE / 4..RATE * 2).contains(&bits_per_s)
}

/// While bytes flow, one look is enough: the flow, its peer and what carries them have rates, round
/// trips and what limits them, on both sides, and agree with each other. When a carrier breaks,
/// what went again shows with the flow and with the peer, where it stays when the flow is over; and
/// Prometheus hears of a peer what the status says.
#[test]
fn one_look_tells_rates_and_what_went_again() {
    let service = mirror("127.0.0.1:0");
    let limit = Words::default().peer("rate = \"40 Mbit/s\"");
    let near = limit.clone().set("admin = \"127.0.0.1:0\"").forward(service);
    let pair = Pair::start(&near, &limit.allow([service]));
    // An odd seed is text: it compresses.
    let transfer =
        Transfer::begin(pair.near.door(0), Load { seed: 7, up: 16 << 20, down: 16 << 20 });
    for side in [&pair.near, &pair.far] {
        let peer = until("it moves", || {
            assert!(!transfer.is_over(), "it was over before its rate was seen");
            let peer = side.status().peers.remove(0);
            is_about_the_rate(peer.together.rate_in_bits_per_s).then_some(peer)
        });
        let [session] = &peer.sessions[..] else { panic!("{peer:?}") };
        let [flow] = &session.flows[..] else { panic!("{session:?}") };
        assert!(is_about_the_rate(flow.rate_in_bits_per_s), "{flow:?}");
        assert_eq!(peer.together.limited_by.as_ref(), Some(&flow.limited_by));
        // The flow moves on while its peer's totals are taken.
        let apart = peer.together.saved.abs_diff(flow.saved);
        assert!(flow.saved > 0 && apart <= flow.saved.unsigned_abs() / 2 + (1 << 18), "{peer:?}");
        assert_eq!((peer.together.bytes_in, peer.together.flow_count), (flow.bytes_in, 1));
        let rtt_us = flow.rtt_us.expect("it has carriers");
        assert!((1..1_000_000).contains(&rtt_us), "{rtt_us}");
        let sent: u64 = session.carriers.iter().map(|one| one.rate_sent_bits_per_s).sum();
        assert!(0 < sent && sent < flow.rate_in_bits_per_s, "text is compressed: {peer:?}");
        assert!(session.carriers.iter().all(|one| one.rtt_us > 0 && !one.limited_by.is_empty()));
    }
    let resent = until("something goes again", || {
        assert!(!transfer.is_over(), "it was over before anything was lost");
        pair.wire.reset();
        pair.until_up();
        let peer = pair.near.status().peers.remove(0);
        let flows = peer.sessions.iter().flat_map(|session| &session.flows);
        let resent: u64 = flows.map(|flow| flow.resent).sum();
        (resent > 0 && peer.together.resent > 0).then_some(resent)
    });
    transfer.arrives();
    let after = until("the flow is over", || {
        let peer = pair.near.status().peers.remove(0);
        (peer.together.flow_count == 0).then_some(peer.together)
    });
    assert!(after.resent >= resent && after.saved > 0, "{after:?}");
    // What is asked of the service comes on top.
    for bytes in [after.bytes_in, after.bytes_out] {
        assert!((16 << 20..(16 << 20) + 100).contains(&bytes), "{after:?}");
    }
    let told = pair.near.metrics();
    for (name, value) in [
        ("received_from_applications_bytes_total", after.bytes_in),
        ("given_to_applications_bytes_total", after.bytes_out),
        ("resent_bytes_total", after.resent),
        ("saved_bytes", after.saved.unsigned_abs()),
        ("flows", 0),
    ] {
        let line = format!("ringway_tunnel_peer_{name}{{peer=\"it\"}} {value}");
        assert!(told.lines().any(|one| one == line), "{line} in {told}");
    }
    pair.stop();
}

/// A carrier that breaks counts as lost at both sides; one whose site stops, or leaves it, does
/// not.
#[test]
fn only_what_breaks_counts_as_lost() {
    let pair = Pair::start(&Words::default(), &Words::default());
    let lost = || [&pair.near, &pair.far].map(|side| side.counter("carriers_lost"));
    assert_eq!(lost(), [0, 0]);
    pair.wire.reset();
    until("both have lost it", || (lost() == [1, 1]).then_some(()));
    until("another one is there", || pair.far.status().peers[0].up.then_some(()));
    pair.until_up();
    let before = pair.far.log().len();
    pair.near.stop();
    pair.far.says("no carrier is left", before);
    assert_eq!(pair.far.counter("carriers_lost"), 1);
    pair.far.stop();
}
