//! Why a peer is not connected: all that has to be right, looked at in the order in which it can be
//! wrong. Each finding says what was seen and, if that is not well, what to do.
//!
//! What always holds:
//! - C1  No session is left at the far side, and none is taken from a tunnel that runs: a first
//!   message is said and its answer read, and without a record behind it no session begins.
//! - C2  Nothing is changed here, and no finding repeats a secret.
//!
//! Bounds: [`AT_ONCE`] addresses at a time; each takes [`Patience`] once to connect and once for
//! each key that may be shown. A name's resolver has its own patience.
//! Not here: how findings are printed. Tests: `tests/check.rs`, against tunnels that run.

mod dial;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ringway_tunnel_proto::Target;
use ringway_tunnel_proto::limits::ADDRESSES_MAX;
use serde::Serialize;

use crate::asked::{ask, ask_packets};
use crate::chance::NoChance;
use crate::config::{Config, ConfigError, Peer, PeerIndex};
use crate::status::{CarrierStatus, NO_ANSWER, PeerStatus, Status, UnopenedStatus};

/// Addresses that are tried at a time.
const AT_ONCE: usize = 32;
/// How long something of this host may take to be connected to.
const NEAR_MAX: Duration = Duration::from_secs(2);
/// Between two looks at whether the other side has answered by UDP.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// By which nothing came back before is asked within a second, or two round trips: it has so long,
/// and so many round trips.
const SILENT_PATIENCE: Duration = Duration::from_millis(1500);
const SILENT_TRIPS: u32 = 3;

/// How good a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing, and no reason for anything.
    Note,
    /// A reason why a peer is not connected, or soon is not.
    Bad,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The file and its keys.
    Config,
    /// The tunnel that runs with the file, and what it thinks of a peer.
    Tunnel,
    /// An address where carriers come in.
    Listen,
    /// A name of a peer's address.
    Name,
    /// Datagrams between the two sides.
    Udp,
    /// The way to an address.
    Tcp,
    /// Who answers there.
    Handshake,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Config => "config",
            Stage::Tunnel => "tunnel",
            Stage::Listen => "listen",
            Stage::Name => "name",
            Stage::Udp => "UDP",
            Stage::Tcp => "TCP",
            Stage::Handshake => "handshake",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How good it is.
    pub verdict: Verdict,
    /// What was looked at.
    pub stage: Stage,
    /// The peer that it is about.
    pub peer: Option<String>,
    /// The address or name that it is about.
    pub place: Option<String>,
    /// What was seen.
    pub found: String,
    /// What to do, the likeliest first.
    pub remedies: Vec<String>,
}

impl Finding {
    fn new(verdict: Verdict, stage: Stage, found: impl Into<String>) -> Finding {
        let found = found.into();
        Finding { verdict, stage, peer: None, place: None, found, remedies: Vec::new() }
    }

    fn ok(stage: Stage, found: impl Into<String>) -> Finding {
        Finding::new(Verdict::Ok, stage, found)
    }

    fn note(stage: Stage, found: impl Into<String>) -> Finding {
        Finding::new(Verdict::Note, stage, found)
    }

    fn bad(stage: Stage, found: impl Into<String>) -> Finding {
        Finding::new(Verdict::Bad, stage, found)
    }

    fn at(self, place: impl fmt::Display) -> Finding {
        Finding { place: Some(place.to_string()), ..self }
    }

    fn of(self, peer: &Peer) -> Finding {
        Finding { peer: Some(peer.name.clone()), ..self }
    }

    fn remedy(mut self, what: impl Into<String>) -> Finding {
        self.remedies.push(what.into());
        self
    }
}

/// How long to wait for others.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until a connection is there.
    pub connect: Duration,
    /// Until a first message is answered: a far side that wants to answer does so at once.
    pub answer: Duration,
}

impl Default for Patience {
    /// As a tunnel waits.
    fn default() -> Patience {
        Patience { connect: Duration::from_secs(10), answer: Duration::from_secs(10) }
    }
}

/// Nothing could be looked at.
#[derive(Debug, thiserror::Error)]
pub enum NotChecked {
    /// There is no such peer.
    #[error("no [[peer]] of the file is named {name:?}; there are: {}", known.join(", "))]
    NoSuchPeer {
        /// Who was asked for.
        name: String,
        /// Who there is.
        known: Vec<String>,
    },
    /// The file, or a key that it names, cannot be used: no tunnel would run with it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No first message can be made.
    #[error(transparent)]
    NoChance(#[from] NoChance),
}

/// Looks at everything that connects the side of this file with its peers, or with `only` one.
///
/// # Errors
/// [`NotChecked`].
pub fn check(
    path: &Path,
    only: Option<&str>,
    patience: Patience,
) -> Result<Vec<Finding>, NotChecked> {
    let config = Config::load(path)?;
    let known = |peer: &Peer| only.is_none_or(|name| name == peer.name);
    let peers: Vec<&Peer> = config.peers.iter().filter(|peer| known(peer)).collect();
    if let Some(name) = only.filter(|_| peers.is_empty()) {
        let known = config.peers.iter().map(|peer| peer.name.clone()).collect();
        return Err(NotChecked::NoSuchPeer { name: name.to_owned(), known });
    }
    let many = if config.peers.len() == 1 { "1 peer" } else { "peers" };
    let many = many.replace("peers", &format!("{} peers", config.peers.len()));
    let read = format!("{}: {many}; its keys can be read", path.display());
    let mut findings = vec![Finding::ok(Stage::Config, read)];
    let mut running = Running::ask(&config, path);
    findings.push(running.finding());
    if peers.iter().any(|peer| peer.addresses.is_empty()) {
        findings.extend(config.listen.iter().map(|address| running.listens(*address)));
    }
    let dialled = dial_all(&config, &peers, patience)?;
    running.hear(&peers, patience.answer);
    for (peer, dialled) in peers.into_iter().zip(dialled) {
        findings.extend(running.thinks_of(peer).map(|finding| finding.of(peer)));
        findings.extend(running.datagrams(peer).map(|finding| finding.of(peer)));
        findings.extend(running.unopened(peer).map(|finding| finding.of(peer)));
        findings.extend(dialled.into_iter().map(|finding| finding.of(peer)));
    }
    Ok(findings)
}

/// What came of one address of a peer.
type Dialled = Result<Vec<Finding>, NoChance>;

/// Dials every address of these peers; findings by peer, in the order of the file.
fn dial_all(
    config: &Config,
    peers: &[&Peer],
    patience: Patience,
) -> Result<Vec<Vec<Finding>>, NotChecked> {
    let one_peers = |(at, peer): (usize, &&'_ Peer)| -> Vec<(usize, Target)> {
        peer.addresses.iter().map(|target| (at, target.clone())).collect()
    };
    let tasks: Vec<(usize, Target)> = peers.iter().enumerate().flat_map(one_peers).collect();
    let results: Vec<Mutex<Option<Dialled>>> = tasks.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(((peer, target), result)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            tasks.get(at).zip(results.get(at))
        } {
            let index = config.peer_named(&peers[*peer].name).expect("it is from there");
            let found = dial_target(config, index, target, patience);
            *result.lock().expect("nobody panics with it") = Some(found);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..tasks.len().min(AT_ONCE) {
            scope.spawn(work);
        }
    });
    let mut by_peer = vec![Vec::new(); peers.len()];
    for ((peer, _), result) in tasks.iter().zip(results) {
        let result = result.into_inner().expect("nobody panics with it");
        by_peer[*peer].extend(result.expect("each task was done")?);
    }
    Ok(by_peer)
}

/// One address of a peer, and all that its name leads to.
fn dial_target(config: &Config, index: PeerIndex, target: &Target, patience: Patience) -> Dialled {
    let (name, port) = match target {
        Target::Address(ip, port) => {
            return dial::look(config, index, SocketAddr::new(*ip, *port), patience);
        }
        Target::Host(name, port) => (name.as_str(), *port),
        Target::Service(_) => unreachable!("a peer's address is none, by the configuration"),
    };
    let began = Instant::now();
    let addresses: Vec<SocketAddr> = match (name, port).to_socket_addrs() {
        Ok(addresses) => addresses.take(ADDRESSES_MAX).collect(),
        Err(error) => return Ok(vec![unresolved(name, &error).at(target)]),
    };
    let texts: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let found = format!("{} ({})", texts.join(", "), lasted(began));
    let mut findings = vec![Finding::ok(Stage::Name, found).at(target)];
    let mut answered = false;
    for address in &addresses {
        let more = dial::look(config, index, *address, patience)?;
        answered |= more.iter().all(|finding| finding.verdict != Verdict::Bad);
        findings.extend(more);
    }
    // The tunnel tries them in turn: one that works is enough.
    for finding in findings.iter_mut().filter(|one| answered && one.verdict == Verdict::Bad) {
        finding.verdict = Verdict::Note;
        finding.remedies = vec!["another address of the same name answers".to_owned()];
    }
    Ok(findings)
}

fn unresolved(name: &str, error: &io::Error) -> Finding {
    Finding::bad(Stage::Name, format!("no address was found: {error}"))
        .remedy(format!(
            "`getent hosts {name}` asks the same resolver: mend the name or /etc/hosts"
        ))
        .remedy("or give the address itself in `addresses`")
}

/// The tunnel that runs with the file, if one does.
struct Running<'a> {
    config: &'a Config,
    path: &'a Path,
    /// What it says, when it was asked for that, and when it was told to ask by UDP.
    answer: io::Result<Status>,
    answered_at: Instant,
    asked_at: Instant,
}

impl Running<'_> {
    fn ask<'a>(config: &'a Config, path: &'a Path) -> Running<'a> {
        let asked_at = Instant::now();
        let answer = ask_packets(&config.socket);
        Running { config, path, answer, answered_at: asked_at, asked_at }
    }

    /// Looks on until what these peers were asked by UDP is answered, or for long enough.
    fn hear(&mut self, peers: &[&Peer], patience: Duration) {
        let is_open = |running: &Self| {
            let mut carriers = peers.iter().flat_map(|peer| running.carriers_of_packets(peer));
            // One that was silent before is not waited for as long.
            let is_dead = |one: &CarrierStatus| {
                let trips = Duration::from_micros(one.rtt_us).saturating_mul(SILENT_TRIPS);
                let patience = SILENT_PATIENCE.saturating_add(trips);
                one.limited_by == NO_ANSWER && running.asked_at.elapsed() >= patience
            };
            carriers.any(|one| !is_dead(one) && !running.has_answered(one))
        };
        let deadline = self.asked_at + patience;
        while is_open(self) && Instant::now() < deadline {
            std::thread::park_timeout(LOOK_AGAIN);
            let now = Instant::now();
            // Who is busy for a moment is asked again.
            if let Ok(status) = ask(&self.config.socket, 0) {
                (self.answered_at, self.answer) = (now, Ok(status));
            }
        }
    }

    fn carriers_of_packets(&self, peer: &Peer) -> impl Iterator<Item = &CarrierStatus> {
        let seen = self.seen(peer).filter(|seen| peer.udp && seen.up);
        let sessions = seen.into_iter().flat_map(|seen| &seen.sessions);
        sessions.flat_map(|session| &session.carriers).filter(|one| one.kind == "udp")
    }

    /// Whether the other end of a carrier was heard of since it was asked.
    fn has_answered(&self, carrier: &CarrierStatus) -> bool {
        let since = self.answered_at - self.asked_at;
        carrier.heard_us_ago.is_some_and(|ago| Duration::from_micros(ago) <= since)
    }

    fn seen(&self, peer: &Peer) -> Option<&PeerStatus> {
        self.answer.as_ref().ok()?.peers.iter().find(|seen| seen.name == peer.name)
    }

    fn finding(&self) -> Finding {
        let socket = self.config.socket.display();
        match &self.answer {
            Ok(status) => {
                let (pid, up) = (status.pid, status.uptime_s);
                Finding::ok(Stage::Tunnel, format!("process {pid} has run for {up} s"))
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let found = format!("{socket} may not be asked by this user");
                Finding::note(Stage::Tunnel, found).remedy("ask as the user that runs the tunnel")
            }
            Err(_) => Finding::note(Stage::Tunnel, format!("none answers at {socket}"))
                .remedy(format!("`ringway tunnel --config {}` starts it", self.path.display())),
        }
    }

    /// Whether carriers can come in at an address of ours.
    fn listens(&self, address: SocketAddr) -> Finding {
        let is_it = |bound: &&SocketAddr| {
            bound.ip() == address.ip() && (address.port() == 0 || bound.port() == address.port())
        };
        let bound = self.answer.as_ref().ok().and_then(|one| one.listen.iter().find(is_it));
        let taken = TcpStream::connect_timeout(&from_here(*bound.unwrap_or(&address)), NEAR_MAX);
        match (&self.answer, bound, taken) {
            (Ok(_), Some(_), Ok(_)) => Finding::ok(Stage::Listen, "carriers can come in"),
            (Ok(_), Some(_), Err(error)) => {
                Finding::bad(Stage::Listen, format!("it is not reached from here: {error}"))
                    .remedy("a filter of this host may be in the way: `nft list ruleset`")
            }
            (Ok(_), None, _) => {
                Finding::bad(Stage::Listen, "the tunnel that runs does not listen there")
                    .remedy("another `listen` takes a restart")
            }
            (Err(_), _, Ok(_)) => {
                let port = address.port();
                Finding::bad(
                    Stage::Listen,
                    "another program listens there, or this tunnel is not told of",
                )
                .remedy(format!("`ss -ltnp 'sport = :{port}'` names it"))
            }
            (Err(_), _, Err(_)) => Finding::bad(Stage::Listen, "nothing listens there")
                .remedy(format!("`ringway tunnel --config {}`", self.path.display())),
        }
        .at(address)
    }

    /// What the tunnel says of a peer.
    fn thinks_of(&self, peer: &Peer) -> Option<Finding> {
        let status = self.answer.as_ref().ok()?;
        let Some(seen) = self.seen(peer) else {
            let found = "the tunnel that runs does not know this peer: its file was another one";
            let reload = format!("`kill -HUP {}` makes it read the file again", status.pid);
            return Some(Finding::bad(Stage::Tunnel, found).remedy(reload));
        };
        if seen.up {
            return Some(Finding::ok(Stage::Tunnel, connected(seen)));
        }
        if seen.dials {
            let failures = seen.sessions.iter().map(|session| session.failures).max().unwrap_or(0);
            let found =
                format!("not connected; attempts in a row that came to nothing: {failures}");
            return Some(Finding::bad(Stage::Tunnel, found).remedy("what follows says why"));
        }
        Some(self.does_not_come(status))
    }

    /// Whether datagrams get through, where they may.
    fn datagrams(&self, peer: &Peer) -> Option<Finding> {
        self.seen(peer).filter(|seen| peer.udp && seen.up)?;
        let works = |one: &&CarrierStatus| one.limited_by != NO_ANSWER && self.has_answered(one);
        let carriers = || self.carriers_of_packets(peer);
        let Some(carrier) = carriers().filter(works).max_by_key(|one| one.datagram_bytes) else {
            let waited = self.asked_at.elapsed().as_secs_f64();
            let found = match carriers().any(|one| one.limited_by != NO_ANSWER) {
                true => format!("asked, and no answer for {waited:.1} s"),
                false => "nothing comes back by it: streams go by TCP".to_owned(),
            };
            return Some(
                Finding::note(Stage::Udp, found)
                    .remedy("`udp = true` has to stand in the file of the other side as well")
                    .remedy("its UDP port, which is that of TCP, has to be let through both ways"),
            );
        };
        if carrier.limited_by == "held back" {
            let found = "it gets through and is held back on the way: streams go by TCP";
            return Some(Finding::note(Stage::Udp, found));
        }
        let bytes = carrier.datagram_bytes.unwrap_or_default();
        Some(Finding::ok(
            Stage::Udp,
            format!("asked, and answered: streams go by datagrams of {bytes} bytes"),
        ))
    }

    /// Ports that lead to a peer and could not be opened.
    fn unopened(&self, peer: &Peer) -> impl Iterator<Item = Finding> {
        let status = self.answer.as_ref().ok();
        let all = status
            .into_iter()
            .flat_map(|status| status.unopened.iter().map(move |unopened| (status.pid, unopened)));
        all.filter(|(_, unopened)| unopened.peer == peer.name).map(|(pid, unopened)| {
            let UnopenedStatus { listen, kind, why, .. } = unopened;
            let found = format!("this {kind} could not be opened: {why}");
            let finding = Finding::bad(Stage::Listen, found);
            let Some(listen) = listen else { return finding };
            let port = listen.port();
            finding
                .at(listen)
                .remedy(format!("`ss -ltnp 'sport = :{port}'` says who has the port"))
                .remedy(format!("`kill -HUP {pid}` tries again"))
        })
    }

    fn does_not_come(&self, status: &Status) -> Finding {
        let refused: Vec<String> = status
            .counters
            .iter()
            .filter(|(_, many)| **many > 0)
            .filter_map(|(name, many)| {
                Some(format!("{} {many}", name.strip_prefix("not_let_in_")?))
            })
            .collect();
        let finding = Finding::bad(Stage::Tunnel, "not connected; it dials us and has not come");
        let finding = match refused.is_empty() {
            true => finding,
            false => finding.remedy(format!(
                "connections were not let in ({}), perhaps its own: our log says why at each",
                refused.join(", ")
            )),
        };
        finding
            .remedy("at its side: `ringway tunnel check --config FILE` tells what it meets")
            .remedy("see that its `addresses` lead here, through every firewall between")
    }
}

fn connected(seen: &PeerStatus) -> String {
    let carriers = || seen.sessions.iter().flat_map(|session| &session.carriers);
    let rtt_us = carriers().map(|carrier| carrier.rtt_us).min().unwrap_or(0);
    let flows: u64 = seen.sessions.iter().map(|session| session.flow_count).sum();
    let (count, rtt) = (carriers().count() as u64, rtt_us as f64 / 1000.0);
    let s = |many: u64| if many == 1 { "" } else { "s" };
    format!(
        "connected by {count} carrier{}, round trip {rtt:.1} ms, {flows} flow{}",
        s(count),
        s(flows)
    )
}

/// Where to connect to what listens at an address of this host.
fn from_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn lasted(since: Instant) -> String {
    format!("{:.1} ms", since.elapsed().as_secs_f64() * 1000.0)
}
