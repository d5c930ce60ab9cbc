//! Junk at the UDP ports of both sides while a session goes by them.
//!
//! Anybody can send to a port, and whoever is on the way can say again what he heard. All of it is
//! counted and dropped: no byte of a transfer is another one, none is missing, and nothing is kept
//! of what came.

use std::time::Instant;

use super::flows::{Load, Transfer, mirror};
use super::packets::{carriers, sent, start, until_packets};
use super::sites::Side;
use super::tools::program;
use crate::support::{Held, hold, until};

/// Sends bytes of chance to these ports of loopback until it is ended: of every length, one by one
/// and as trains, which the kernel leaves whole on loopback and gives to who wants them merged. It
/// says so when it has seen that they are.
const JUNK: &str = r#"
import random, socket, struct, sys

SOL_UDP, UDP_SEGMENT, UDP_GRO, LONGEST, PIECES = 17, 103, 104, 65507, 64
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.bind(("127.0.0.1", 0))

def train(bytes, each, to):
    out.sendmsg([bytes], [(SOL_UDP, UDP_SEGMENT, struct.pack("H", each))], 0, to)

heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
heard.bind(("127.0.0.1", 0))
heard.setsockopt(SOL_UDP, UDP_GRO, 1)
train(bytes(2500), 1000, heard.getsockname())
merged, controls, _, _ = heard.recvmsg(9000, 64)
assert len(merged) == 2500 and controls, (len(merged), controls)
print("trains stay whole", flush=True)

chance = random.Random(7).randbytes(1 << 20)
ports = [("127.0.0.1", int(port)) for port in sys.argv[1:]]
step = 0
while True:
    # Both numbers have no factor in common with how many lengths there are.
    lengths = (step % 64, step * 7919 % (LONGEST + 1))
    each = 1 + step * 37 % 1499
    whole = min(each * PIECES, LONGEST) - step % each
    at = step * 4099 % (len(chance) - LONGEST)
    for to in ports:
        for length in lengths:
            out.sendto(chance[at : at + length], to)
        train(chance[at : at + whole], each, to)
    step += 1
"#;

/// What is counted of what came to nothing: as many at least are sent, of each.
const COUNTED: [(&str, u64); 3] =
    [("datagrams_strange", 1_000_000), ("datagrams_forged", 100), ("datagrams_replayed", 40)];
/// A side's memory may grow by so much meanwhile. What is sent to it is many times that.
const GROWS_MAX: u64 = 32 << 20;

fn junk(ports: [u16; 2]) -> Held {
    let ports = ports.map(|port| port.to_string());
    let junk = hold(program(&["python3", "-c", JUNK, &ports[0], &ports[1]]));
    junk.line_with("trains stay whole");
    junk
}

/// What a side has counted of each, beyond this.
fn counts(side: &Side, before: [u64; 3]) -> [u64; 3] {
    let counters = side.status().counters;
    let mut now = COUNTED.map(|(name, _)| counters[name]);
    now.iter_mut().zip(before).for_each(|(now, before)| *now -= before);
    now
}

/// While transfers go by packets, strangers send chance to both sides' ports, and somebody says
/// again what he heard of the session: as it was, harmed, cut off, and longer than any. The
/// transfers arrive, by packets; all of it is counted, and neither side keeps anything of it.
#[test]
fn junk_is_counted_and_not_felt() {
    let service = mirror("127.0.0.1:0");
    // Two shards: chance says of some that the other one has their session.
    let (pair, air) = start(2, service);
    until_packets(&pair, true);
    let load = |seed| Load { seed, up: 8 << 20, down: 8 << 20 };
    let transfer = |seed: usize| Transfer::begin(pair.near.door(0), load(2 * seed as u64));
    transfer(1).arrives();
    let sides = [&pair.near, &pair.far];
    let before = sides.map(|side| counts(side, [0; 3]));
    let resident = sides.map(Side::resident_bytes);
    let by_packets = sides.map(|side| sent(side, "udp"));

    let (begun, mut transfers) = (Instant::now(), vec![transfer(2)]);
    air.repeat(true);
    let strangers = junk([air.near().port(), pair.far.carriers().port()]);
    let counted = until("all of it is counted", || {
        if transfers.last().is_none_or(Transfer::is_over) {
            transfers.push(transfer(transfers.len() + 2));
        }
        let counted = [0, 1].map(|at| counts(sides[at], before[at]));
        let enough =
            |one: &[u64; 3]| one.iter().zip(COUNTED).all(|(many, (_, least))| *many >= least);
        counted.iter().all(enough).then_some(counted)
    });
    let grown = [0, 1].map(|at| sides[at].resident_bytes().saturating_sub(resident[at]));
    println!(
        "{counted:?} in {:.1?}, {} transfers; grown by {grown:?}",
        begun.elapsed(),
        transfers.len()
    );
    assert!(grown.iter().all(|grown| *grown < GROWS_MAX), "{grown:?}");
    transfers.into_iter().for_each(Transfer::arrives);
    for (side, before) in sides.into_iter().zip(by_packets) {
        let sent = sent(side, "udp").saturating_sub(before);
        assert!(sent >= 4 << 20, "{sent} bytes by packets: {:?}", carriers(side, "udp"));
        assert_eq!(side.counter("broken"), 0);
    }
    drop(strangers);
    air.repeat(false);
    pair.stop();
}
