//! One site that many come to: each with a key, targets and a rate of its own, and what becomes of
//! one is nothing to the others.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::flows::{Load, Transfer, connect, is_reset, mirror};
use super::sites::{Keys, Side, Words};
use crate::support::{pass, until};

/// Sites that come.
const MANY: usize = 14;
/// One that is taken out.
const OUT: usize = 5;
/// What each moves, each way, and how fast it may, in Mbit/s.
const BYTES: u64 = 3 << 20;
const RATES: [u64; 2] = [16, 32];
/// What a rate lets through at once at the beginning, with what is on the way.
const BURST: u64 = 1 << 20;

fn rate(at: usize) -> u64 {
    RATES[at % RATES.len()]
}

/// Who a site is.
fn name(at: usize) -> String {
    format!("near{at}")
}

/// The far side's file, which knows all of these sites.
fn write_far(
    keys: &Keys,
    publics: &[String],
    services: &[SocketAddr],
    out: Option<usize>,
) -> PathBuf {
    let mut text = String::from(
        "[tunnel]\nnetwork_key = \"network.key\"\nkey = \"far.key\"\nsocket = \"far.sock\"\n\
         listen = \"127.0.0.1:0\"\n",
    );
    for at in (0..MANY).filter(|at| out != Some(*at)) {
        let (name, public, rate) = (name(at), &publics[at], rate(at));
        let _ = write!(
            text,
            "[[peer]]\nname = \"{name}\"\npublic_key = \"{public}\"\nallow = [\"{}\"]\n\
             rate = \"{rate} Mbit/s\"\n",
            services[at]
        );
    }
    let path = keys.path("far.toml");
    std::fs::write(&path, text).expect("our directory");
    path
}

/// All move as much as they can at once: each at its own rate, to its own target and to no other's.
/// One is taken out of the file meanwhile: its flows end, and no other's.
#[test]
fn sites_do_not_touch_each_other() {
    let keys = Keys::new();
    let services: Vec<SocketAddr> = (0..MANY).map(|_| mirror("127.0.0.1:0")).collect();
    let publics: Vec<String> =
        (0..MANY).map(|at| keys.make(&format!("{}.key", name(at)), &[])).collect();
    let far = Side::start(&write_far(&keys, &publics, &services, None));
    let near = |at: usize| {
        let words = Words::default().forward(services[at]).forward(services[(at + 1) % MANY]);
        // What the far side has ended is known here when nobody has come back for so long.
        let words = words.set("wait = \"1s\"");
        Side::start(&keys.write(&name(at), &words, Some(far.carriers())))
    };
    let sides: Vec<Side> = (0..MANY).map(near).collect();
    until("all are connected", || far.status().peers.iter().all(|peer| peer.up).then_some(()));
    for side in &sides {
        is_reset(&mut connect(side.door(1)));
    }

    let begun = Instant::now();
    let mut transfers: Vec<(usize, Transfer)> = (0..MANY)
        .map(|at| {
            // Whoever is taken out would move for ever.
            let bytes = if at == OUT { 1 << 40 } else { BYTES };
            let load = Load { seed: 100 + at as u64, up: bytes, down: bytes };
            (at, Transfer::begin(sides[at].door(0), load))
        })
        .collect();
    until("all move", || {
        let moves = |peer: &ringway_tunnel_node::status::PeerStatus| {
            let flows = peer.sessions.iter().flat_map(|session| &session.flows);
            flows.map(|flow| flow.bytes_in + flow.bytes_out).sum::<u64>() > 0
        };
        far.status().peers.iter().all(moves).then_some(())
    });
    write_far(&keys, &publics, &services, Some(OUT));
    far.reload();
    let (_, out) = transfers.remove(OUT);
    out.breaks();
    let mut waits = transfers.into_iter().collect::<Vec<_>>();
    while !waits.is_empty() {
        // Those that may move faster are not behind the others.
        let (over, still): (Vec<_>, Vec<_>) =
            waits.into_iter().partition(|(_, transfer)| transfer.is_over());
        waits = still;
        for (at, transfer) in over {
            transfer.arrives();
            let least = (BYTES - BURST) * 8 / rate(at);
            assert!(begun.elapsed() >= Duration::from_micros(least), "{at}: {:?}", begun.elapsed());
        }
        pass(Duration::from_millis(2));
    }
    assert!(!sides[OUT].status().peers[0].up, "it is nobody there");
    let status = far.status();
    assert_eq!(status.peers.len(), MANY - 1);
    assert!(status.peers.iter().all(|peer| peer.up && peer.name != name(OUT)));
    sides.into_iter().for_each(Side::stop);
    far.stop();
}
