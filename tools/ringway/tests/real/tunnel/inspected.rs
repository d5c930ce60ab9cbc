//! What a network that looks into connections makes of carriers: nDPI's own reader is asked.
//!
//! It is given all that went over a network: the carriers, and beside them, on the same loopback,
//! what users say to the near side and the far side to services. That is the control: nDPI has to
//! find HTTP, Redis and SSH there, or it would have found nothing in any case.
//!
//! It guesses by a byte or two, so it takes some chance for a protocol: nDPI 4.2 guesses one for
//! about one in a hundred carriers over TCP (TLS, mostly), and for one in eleven over UDP (RTP, by
//! the first bits of a packet). So it is asked besides about the same packets, of the same lengths
//! at the same times, with every byte of ours replaced by a random one, in [`COPIES`] copies; and
//! of ours it may name no more than of those, but for chance.
//!
//! Not here: whether the bytes are uniform (`ringway tunnel selftest`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use ringway_core::rng::Rng;
use rustix::process::Signal;

use super::flows::{Held, Load, Transfer, connect, echo_one, mirror, says_again, serve};
use super::nginx::nginx;
use super::place::in_a_network_of_its_own;
use super::sites::{Keys, Side, Words};
use super::tools::{curl, program, redis_server, run, tool};
use crate::support::{self, hold, until};

/// The port that our documentation uses. nDPI knows no protocol by it.
const CARRIERS: &str = "127.0.0.1:4600";
/// How often all carriers are replaced by random bytes. nDPI looks at the first packets of each
/// connection only.
const COPIES: u64 = 10;
const PACKETS_OF_EACH: u32 = 100;
/// The mark by which nDPI 4.8 and later say what `selftest` says, too: all of it looks like chance.
const LIKE_NOTHING: &str = "Fully Encrypted Flow";
/// Said when all else is.
const LAST_WORD: &str = "last-word-of-this-story";
/// How often the near side starts, works and stops.
const ROUNDS: usize = 12;

/// Records all of a network's loopback, until it is asked to stop.
struct Capture {
    tcpdump: support::Held,
    file: String,
}

impl Capture {
    #[track_caller]
    fn begin(dir: &Path) -> Capture {
        let file = dir.join("all.pcap").to_str().expect("text").to_owned();
        let words = ["-i", "lo", "-B", "65536", "-U", "-Z", "root", "-w", &file, "tcp or udp"];
        let tcpdump = hold(program(&[&[&tool("tcpdump")[..]], &words[..]].concat()));
        until("tcpdump listens", || tcpdump.err().contains("listening on").then_some(()));
        Capture { tcpdump, file }
    }

    /// The file with all packets. What is said to the web server at last is in it when all before
    /// it is.
    #[track_caller]
    fn end(mut self, web: SocketAddr) -> String {
        curl(&[&format!("http://{web}/which?{LAST_WORD}")]);
        until("the last word is recorded", || self.ends_with_last_word().then_some(()));
        self.tcpdump.signal(Signal::INT);
        assert_eq!(self.tcpdump.wait(), Some(0), "{}", self.tcpdump.err());
        let told = self.tcpdump.err();
        assert!(told.contains("\n0 packets dropped by kernel"), "{told}");
        self.file.clone()
    }

    fn ends_with_last_word(&self) -> bool {
        let mut file = File::open(&self.file).expect("tcpdump has made it");
        let len = file.metadata().expect("a file").len();
        let mut end = Vec::new();
        file.seek(SeekFrom::Start(len.saturating_sub(64 * 1024))).expect("a file");
        file.read_to_end(&mut end).expect("a file");
        end.windows(LAST_WORD.len()).any(|some| some == LAST_WORD.as_bytes())
    }
}

/// What nDPI says of all that is in a file.
#[track_caller]
fn told_of(file: &str) -> Vec<Seen> {
    let told = run(&["ndpiReader", "-i", file, "-v", "2"]);
    println!("{}", told.lines().find(|line| line.contains("Using nDPI")).unwrap_or_default());
    told.lines().filter_map(Seen::read).collect()
}

/// The same packets as in `recorded`, of who speaks with this port, with random bytes in them.
fn with_random_bytes(recorded: &[u8], (udp, port): (bool, u16), seed: u64) -> Vec<u8> {
    const FILE_HEAD: usize = 24;
    const PACKET_HEAD: usize = 16;
    const ETHERNET: usize = 14;
    assert_eq!(recorded[..4], 0xa1b2_c3d4_u32.to_le_bytes(), "tcpdump's own format");
    let (mut random, mut packets_of) = (Rng::new(seed), BTreeMap::<[u16; 2], u32>::new());
    let (head, mut rest) = recorded.split_at(FILE_HEAD);
    let mut file = head.to_vec();
    while rest.len() > PACKET_HEAD {
        let len = u32::from_le_bytes(rest[8..12].try_into().expect("four")) as usize;
        let (packet, after) = rest.split_at(PACKET_HEAD + len);
        rest = after;
        let ip = &packet[PACKET_HEAD + ETHERNET..];
        let (kind, heads) = (ip[9], usize::from(ip[0] & 15) * 4);
        if ip[0] >> 4 != 4 || kind != if udp { 17 } else { 6 } {
            continue;
        }
        let at = |at: usize| u16::from_be_bytes([ip[heads + at], ip[heads + at + 1]]);
        let mut ports = [at(0), at(2)];
        ports.sort_unstable();
        let so_far = packets_of.entry(ports).or_default();
        *so_far += 1;
        if !ports.contains(&port) || *so_far > PACKETS_OF_EACH {
            continue;
        }
        let own = heads + if udp { 8 } else { usize::from(ip[heads + 12] >> 4) * 4 };
        let begin = file.len() + PACKET_HEAD + ETHERNET + own;
        file.extend_from_slice(packet);
        file[begin..].fill_with(|| random.next_u64() as u8);
    }
    file
}

/// How many of so many carriers nDPI may name, if it names this many of so many that are random:
/// four standard deviations more. Of few random ones chance may have named none.
fn by_chance(all: usize, (named, of): (usize, usize)) -> usize {
    let part = (named + 3) as f64 / (of + 3) as f64;
    let mean = all as f64 * part;
    (mean + 4.0 * (mean * (1.0 - part)).sqrt() + 1.0) as usize
}

/// A connection in nDPI's words.
#[derive(Debug)]
struct Seen {
    udp: bool,
    ports: [u16; 2],
    protocol: String,
    all: String,
}

impl Seen {
    /// `1 TCP 127.0.0.1:44374 <-> 127.0.0.1:8090 [proto: 7/HTTP][ClearText][Confidence: DPI]...`
    fn read(line: &str) -> Option<Seen> {
        let udp = line.contains("UDP ");
        let (_, rest) = line.split_once(if udp { "UDP " } else { "TCP " })?;
        let (ends, rest) = rest.split_once(" [proto: ")?;
        let (one, other) = ends.split_once("->")?;
        let port = |end: &str| {
            let end: SocketAddr = end.trim_matches([' ', '<']).parse().ok()?;
            Some(end.port())
        };
        let (_, protocol) = rest.split_once(']')?.0.split_once('/')?;
        let protocol = protocol.to_owned();
        let ports = [port(one)?, port(other)?];
        Some(Seen { udp, ports, protocol, all: line.trim().to_owned() })
    }

    fn leads_to(&self, addr: SocketAddr) -> bool {
        self.ports.contains(&addr.port())
    }

    /// What nDPI thinks is wrong with it: `[Risk: ** one **** another **]`.
    fn risks(&self) -> impl Iterator<Item = &str> {
        let risks = self.all.split_once("[Risk: ").map_or("", |(_, rest)| rest);
        let risks = risks.split_once(']').map_or("", |(risks, _)| risks);
        risks.split("**").map(str::trim).filter(|risk| !risk.is_empty())
    }

    /// It has a name, guesses included, or a mark, other than that it looks like nothing.
    fn stands_out(&self) -> bool {
        self.protocol != "Unknown" || self.risks().any(|risk| risk != LIKE_NOTHING)
    }
}

/// HTTP, Redis, SSH, bulk in both directions, and connections that are idle, over carriers of many
/// sessions: nDPI recognises what users say beside the carriers, and of carriers no more than it
/// may guess of random bytes by chance.
#[test]
fn ndpi_finds_no_pattern_in_carriers() {
    nothing_stands_out(false);
}

/// Likewise of carriers over UDP, by which all of that goes then.
#[test]
fn ndpi_finds_no_pattern_in_carriers_over_udp() {
    nothing_stands_out(true);
}

/// Carriers over UDP that work.
fn by_udp(near: &Side) -> usize {
    let status = near.status();
    let carriers = status.peers[0].sessions.iter().flat_map(|session| &session.carriers);
    carriers.filter(|one| one.kind == "udp" && one.limited_by != "no answer").count()
}

/// Somebody who speaks as SSH does.
#[track_caller]
fn greets(door: SocketAddr) -> TcpStream {
    let mut user = connect(door);
    let mut hello = [0; 32];
    user.read_exact(&mut hello).expect("a banner");
    says_again(&mut user, b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
    user
}

/// Of carriers at this address, nDPI names no more than of such with random bytes.
#[track_caller]
fn are_like_random_ones(seen: &[Seen], file: &str, (udp, address): (bool, SocketAddr)) {
    let ours = |seen: &&Seen| seen.udp == udp && seen.leads_to(address);
    let carriers: Vec<_> = seen.iter().filter(ours).collect();
    let (_, named): (Vec<&&Seen>, Vec<&&Seen>) =
        carriers.iter().partition(|seen| !seen.stands_out());
    let marked = carriers.iter().flat_map(|seen| seen.risks()).count();
    let (all, some) = (carriers.len(), named.len());
    println!("{all} carriers with {marked} marks, of which {some} stand out: {named:#?}");
    assert!(all >= 2 * ROUNDS, "{all} carriers");
    let recorded = std::fs::read(file).expect("tcpdump has made it");
    let random = format!("{file}.random");
    let copies = (0..COPIES).flat_map(|seed| {
        let copy = with_random_bytes(&recorded, (udp, address.port()), seed);
        std::fs::write(&random, copy).expect("a file");
        told_of(&random)
    });
    let copies: Vec<Seen> = copies.collect();
    let like_it = copies.iter().filter(|seen| seen.stands_out()).count();
    println!("{} with random bytes, of which {like_it} stand out", copies.len());
    assert_eq!(copies.len(), all * COPIES as usize, "the same connections");
    let most = by_chance(all, (like_it, copies.len()));
    assert!(some <= most, "nDPI knows {some} of {all} carriers, by chance {most}: {named:#?}");
}

#[track_caller]
fn nothing_stands_out(udp: bool) {
    in_a_network_of_its_own(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let page = "a page\n".repeat(10_000);
        let (_nginx, web) = nginx(dir.path(), page.as_bytes(), "");
        let (_redis, redis) = redis_server(dir.path());
        let ssh = serve("127.0.0.1:0", |mut stream, from| {
            let said = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
            said.expect("it takes it");
            echo_one(stream, from);
        });
        let (bulk, idle) = (mirror("127.0.0.1:0"), Held::listen("127.0.0.1:0"));
        let services = [web, redis, ssh, bulk, idle.addr];

        let capture = Capture::begin(dir.path());
        let keys = Keys::new();
        let listen = format!("listen = \"{CARRIERS}\"");
        let packets = format!("udp = {udp}");
        let far = keys.far(&Words::default().set(&listen).peer(&packets).allow(services));
        // Two shards have a session each, so there are at least two carriers at a time.
        let near = Words::default().set("shards = 2").peer(&packets);
        let near = services.iter().fold(near, |near, service| near.forward(*service));
        let near = near.door("socks5");
        for round in 0..ROUNDS as u64 {
            let near = keys.near(&near, far.carriers());
            let up = || near.status().peers[0].sessions.iter().filter(|one| one.up).count() == 2;
            until("both sessions are there", || up().then_some(()));
            until("packets get through", || (!udp || by_udp(&near) == 2).then_some(()));
            let load = Load { seed: round, up: 1 << 20, down: 1 << 20 };
            let transfer = Transfer::begin(near.door(3), load);
            let silent = connect(near.door(4));
            let served = idle.next();
            assert!(curl(&[&format!("http://{}/file", near.door(0))]) == page);
            let socks = near.door(5).to_string();
            assert!(curl(&["--socks5", &socks, &format!("http://{web}/file")]) == page);
            let port = near.door(1).port().to_string();
            run(&["redis-benchmark", "-p", &port, "-t", "set,get", "-n", "200", "-c", "5", "-q"]);
            let user = greets(near.door(2));
            transfer.arrives();
            drop((silent, served, user));
            near.stop();
        }
        let address = far.carriers();
        far.stop();

        let file = capture.end(web);
        let seen = told_of(&file);
        // Later versions call Redis by its protocol.
        let controls = [(web, &["HTTP"][..]), (redis, &["Redis", "RESP"]), (ssh, &["SSH"])];
        for (service, names) in controls {
            let plain: Vec<_> = seen.iter().filter(|seen| seen.leads_to(service)).collect();
            let known = plain.iter().filter(|seen| names.contains(&&*seen.protocol)).count();
            println!("{names:?}: {known} of {} connections are recognised", plain.len());
            assert!(known >= ROUNDS, "{names:?} not recognised: {:?}", plain.first());
        }
        are_like_random_ones(&seen, &file, (udp, address));
    });
}
