//! Who asks a running tunnel: `ringway tunnel status` by a Unix socket, Prometheus by HTTP.
//!
//! A request of status is one line, the flows of each session that are wanted, and perhaps
//! [`ASK_PACKETS`] behind it; the answer is one object of JSON. Prometheus gets `/metrics`.
//!
//! Bounds: one at a time, and between two of them whoever answers does all else; each has half a
//! second from its first byte to its last, a request 4 KiB.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::shared::Shared;
use crate::site::Site;
use crate::status::{PeerStatus, PeerTotals, SessionStatus, ShardStatus, Status, Together};
use crate::tunnel::StartError;

/// How long one who asks may take, all in all: while it is answered nobody else is.
const PATIENCE: Duration = Duration::from_millis(500);
const REQUEST_BYTES_MAX: u64 = 4096;

/// Behind the flows that are wanted: carriers over UDP are to be asked whether packets get through.
/// What comes of it is for a later request.
const ASK_PACKETS: &str = "ask-packets";

/// What is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// Flows of each session.
    pub(crate) flows_max: usize,
    /// Carriers over UDP are asked whether packets get through.
    pub(crate) asks_packets: bool,
    /// In Prometheus' words.
    pub(crate) prometheus: bool,
}

impl Request {
    fn of_line(line: &str) -> Request {
        let mut words = line.split_whitespace();
        let flows_max = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let asks_packets = words.any(|word| word == ASK_PACKETS);
        Request { flows_max, asks_packets, prometheus: false }
    }
}

/// Where is asked.
#[derive(Default)]
pub(crate) struct Sockets {
    status: Option<(UnixListener, PathBuf)>,
    admin: Option<TcpListener>,
}

impl Drop for Sockets {
    fn drop(&mut self) {
        if let Some((_, path)) = &self.status {
            // It is gone or it is not: whoever starts next finds out.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Sockets {
    /// Opens what the configuration names.
    pub(crate) fn open(config: &Config) -> Result<Sockets, StartError> {
        let path = &config.socket;
        if UnixStream::connect(path).is_ok() {
            return Err(StartError::Runs { path: path.clone() });
        }
        let failed = |source| StartError::Socket { path: path.clone(), source };
        let status = bind(path).map_err(failed)?;
        let admin = config.admin.map(TcpListener::bind).transpose();
        let admin =
            admin.map_err(|source| StartError::Host { what: "the address of `admin`", source });
        let sockets = Sockets { status: Some((status, path.clone())), admin: admin? };
        if let Some(admin) = &sockets.admin {
            admin.set_nonblocking(true).map_err(failed)?;
        }
        Ok(sockets)
    }

    pub(crate) fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|admin| admin.local_addr().ok())
    }

    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let status = self.status.as_ref().map(|(listener, _)| listener.as_fd());
        status.into_iter().chain(self.admin.as_ref().map(AsFd::as_fd))
    }

    /// Answers the next one at each socket, if somebody has come.
    pub(crate) fn serve(&mut self, mut answer: impl FnMut(&Request) -> String) {
        if let Some(Ok((stream, _))) = self.status.as_ref().map(|(one, _)| one.accept()) {
            // Who asks and goes away has no answer.
            let _ = Hasty::new(stream).and_then(|mut stream| {
                let mut line = String::new();
                BufReader::new((&mut stream).take(REQUEST_BYTES_MAX)).read_line(&mut line)?;
                stream.write_all(answer(&Request::of_line(&line)).as_bytes())
            });
        }
        if let Some(Ok((stream, _))) = self.admin.as_ref().map(TcpListener::accept) {
            let _ = Hasty::new(stream).and_then(|mut stream| {
                let path = requested(&mut stream)?;
                let (code, body) = match path.as_deref() {
                    Some("/metrics") => {
                        ("200 OK", answer(&Request { prometheus: true, ..Request::default() }))
                    }
                    Some("/") => ("200 OK", "Ringway tunnel. Numbers: /metrics\n".to_owned()),
                    _ => ("404 Not Found", "There is /metrics.\n".to_owned()),
                };
                let len = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {code}\r\ncontent-type: text/plain; version=0.0.4\r\n\
                     content-length: {len}\r\nconnection: close\r\n\r\n{body}"
                )
            });
        }
    }
}

/// A connection that is over when its time is, however small the steps are that it takes.
struct Hasty<S> {
    stream: S,
    until: Instant,
}

/// A stream whose calls may take so long.
trait Limited: Read + Write {
    fn limit(&self, each: Duration) -> io::Result<()>;
}

impl Limited for UnixStream {
    fn limit(&self, each: Duration) -> io::Result<()> {
        self.set_nonblocking(false)?;
        self.set_read_timeout(Some(each))?;
        self.set_write_timeout(Some(each))
    }
}

impl Limited for TcpStream {
    fn limit(&self, each: Duration) -> io::Result<()> {
        self.set_nonblocking(false)?;
        self.set_read_timeout(Some(each))?;
        self.set_write_timeout(Some(each))
    }
}

impl<S: Limited> Hasty<S> {
    fn new(stream: S) -> io::Result<Self> {
        stream.limit(PATIENCE)?;
        Ok(Self { stream, until: Instant::now() + PATIENCE })
    }

    /// What is left is all that the next call may take.
    fn hurry(&self) -> io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { self.stream.limit(left) }
    }
}

impl<S: Limited> Read for Hasty<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.hurry()?;
        self.stream.read(into)
    }
}

impl<S: Limited> Write for Hasty<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hurry()?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// The path of a request, after its head has been read.
fn requested(stream: &mut impl Read) -> io::Result<Option<String>> {
    let mut lines = BufReader::new(stream.take(REQUEST_BYTES_MAX)).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    Ok(first.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()).map(str::to_owned))
}

/// Makes the socket, for its owner and group. One that nobody answers at is left from a crash.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    if std::fs::symlink_metadata(path).is_ok() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Asks the tunnel that runs with this socket.
///
/// # Errors
/// When nobody answers.
pub fn ask(socket: &Path, flows_max: usize) -> io::Result<Status> {
    said(socket, &flows_max.to_string())
}

/// The same without flows; and carriers over UDP are asked whether packets get through, as a later
/// status tells.
///
/// # Errors
/// When nobody answers.
pub(crate) fn ask_packets(socket: &Path) -> io::Result<Status> {
    said(socket, &format!("0 {ASK_PACKETS}"))
}

fn said(socket: &Path, line: &str) -> io::Result<Status> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(2 * PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    writeln!(stream, "{line}")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    serde_json::from_str(&text).map_err(io::Error::other)
}

/// The answer to a request: what shards report, and what is known of the process beside them.
pub(crate) fn answer(
    request: &Request,
    site: &Site,
    shared: &Shared,
    (reports, of_process): (Vec<ShardStatus>, Status),
) -> String {
    let status = gather(site, shared, (reports, of_process));
    if request.prometheus {
        return prometheus(&status, shared);
    }
    serde_json::to_string(&status).expect("plain numbers and texts")
}

fn gather(
    site: &Site,
    shared: &Shared,
    (reports, of_process): (Vec<ShardStatus>, Status),
) -> Status {
    let mut sessions: BTreeMap<u16, Vec<SessionStatus>> = BTreeMap::new();
    let (mut waiting, mut totals) = (Vec::new(), Vec::new());
    for report in reports {
        for (peer, mut session) in report.sessions {
            session.flows.reverse();
            sessions.entry(peer).or_default().push(session);
        }
        waiting.extend(report.waiting);
        totals.extend(report.totals);
    }
    let mut peers = Vec::new();
    for (peer, known) in site.peers() {
        let sessions = sessions.remove(&peer.0).unwrap_or_default();
        let totals = totals.iter().filter(|(of, _)| *of == peer.0).map(|(_, totals)| totals);
        let waiting = waiting.iter().filter(|(of, _)| *of == peer.0).map(|(_, many)| many);
        peers.push(PeerStatus {
            name: known.name.clone(),
            up: sessions.iter().any(|session| session.up),
            dials: !known.addresses.is_empty(),
            together: together(&sessions, totals),
            sessions,
            waiting: waiting.sum(),
        });
    }
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        peers,
        counters: counters(shared).map(|(name, _, value)| (name, value)).collect(),
        ..of_process
    }
}

/// What a peer's sessions have together.
fn together<'a>(
    sessions: &[SessionStatus],
    totals: impl Iterator<Item = &'a PeerTotals>,
) -> Together {
    let mut all = Together::default();
    for one in totals {
        all.rate_in_bits_per_s += one.bits_per_s[0];
        all.rate_out_bits_per_s += one.bits_per_s[1];
        all.bytes_in += one.bytes[0];
        all.bytes_out += one.bytes[1];
        all.saved += one.saved;
        all.resent += one.resent;
    }
    for session in sessions {
        all.flow_count += session.flow_count;
        all.carrier_count += session.carriers.len() as u64;
    }
    let carriers = || sessions.iter().flat_map(|session| &session.carriers);
    all.rtt_us = carriers().map(|carrier| carrier.rtt_us).min();
    all.in_flight = carriers().map(|carrier| carrier.in_flight).sum();
    let busiest = sessions.iter().filter_map(|session| session.flows.first());
    let busiest =
        busiest.max_by_key(|flow| (flow.rate_in_bits_per_s + flow.rate_out_bits_per_s, flow.flow));
    all.limited_by = busiest.map(|flow| flow.limited_by.clone());
    all
}

/// Counters, with what each means.
fn counters(shared: &Shared) -> impl Iterator<Item = (String, &'static str, u64)> {
    let metrics = &shared.metrics;
    let plain = [
        ("flows_from_users", "Connections of users", metrics.flows_from_users.get()),
        ("flows_from_peers", "Flows that peers opened", metrics.flows_from_peers.get()),
        ("flows_ended", "Flows that are over", metrics.flows_ended.get()),
        ("carriers_dialled", "Connections to peers", metrics.carriers_dialled.get()),
        ("carriers_accepted", "Connections of peers or strangers", metrics.carriers_accepted.get()),
        ("carriers_lost", "Carriers that broke or fell silent", metrics.carriers_lost.get()),
        ("bytes_lost", "Bytes that went again after a loss", metrics.bytes_lost.get()),
        (
            "pieces_refused",
            "Pieces of streams for which there was no memory, and that come again",
            metrics.pieces_refused.get(),
        ),
        ("broken", "Records that did not verify", metrics.broken.get()),
        ("datagrams_strange", "Datagrams of no session", metrics.datagrams_strange.get()),
        ("datagrams_forged", "Datagrams that did not verify", metrics.datagrams_forged.get()),
        ("datagrams_replayed", "Datagrams that came before", metrics.datagrams_replayed.get()),
        (
            "datagrams_elsewhere",
            "Datagrams that came to another shard than their session's",
            metrics.datagrams_elsewhere.get(),
        ),
        (
            "datagrams_not_given",
            "Trains of those that were dropped, because too many waited for that shard",
            metrics.datagrams_not_given.get(),
        ),
        (
            "keys_dropped",
            "Times that a shard dropped all keys, after a copy of the machine or a set clock",
            metrics.keys_dropped.get(),
        ),
    ];
    let plain = plain.into_iter().map(|(name, what, value)| (name.to_owned(), what, value));
    let failures = metrics.failures().map(|(code, many)| {
        let name = format!("{code:?}");
        (format!("flows_failed_{}", snake(&name)), "Flows that failed", many)
    });
    let refusals = metrics.refusals();
    let refusals =
        refusals.map(|(why, many)| (format!("not_let_in_{why}"), "Connections not let in", many));
    plain.chain(failures).chain(refusals)
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// The numbers in Prometheus' text format (0.0.4).
fn prometheus(status: &Status, shared: &Shared) -> String {
    let mut text = String::new();
    for (name, what, value) in counters(shared) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP ringway_tunnel_{name}_total {what}.");
        let _ = writeln!(text, "# TYPE ringway_tunnel_{name}_total counter");
        let _ = writeln!(text, "ringway_tunnel_{name}_total {value}");
    }
    let _ = writeln!(
        text,
        "# HELP ringway_tunnel_unopened_listeners Ports of the file that could not be opened.\n\
         # TYPE ringway_tunnel_unopened_listeners gauge\n\
         ringway_tunnel_unopened_listeners {}",
        status.unopened.len()
    );
    for (name, kind, what, value) in OF_PEERS {
        let _ = writeln!(text, "# HELP ringway_tunnel_peer_{name} {what}.");
        let _ = writeln!(text, "# TYPE ringway_tunnel_peer_{name} {kind}");
        for peer in &status.peers {
            let of = &peer.name;
            let _ =
                writeln!(text, "ringway_tunnel_peer_{name}{{peer=\"{of}\"}} {}", value(peer) + 0.0);
        }
    }
    text
}

/// What is told of a peer: a name, its kind, what it means, and its value.
type OfPeer = (&'static str, &'static str, &'static str, fn(&PeerStatus) -> f64);

/// One label each, the peer's name: as many rows as the configuration has peers. What
/// [`Together`] has is here, too, but for rates, which Prometheus makes of the bytes.
const OF_PEERS: [OfPeer; 10] = [
    ("up", "gauge", "Whether the peer can be reached", |peer| f64::from(u8::from(peer.up))),
    ("flows", "gauge", "Flows with the peer", |peer| peer.together.flow_count as f64),
    ("waiting", "gauge", "Connections that wait for the peer", |peer| peer.waiting as f64),
    ("carriers", "gauge", "Carriers to the peer", |peer| peer.together.carrier_count as f64),
    ("in_flight_bytes", "gauge", "Bytes on their way to the peer", |peer| {
        peer.together.in_flight as f64
    }),
    ("rtt_seconds", "gauge", "The shortest round trip of the peer's carriers", |peer| {
        peer.together.rtt_us.unwrap_or(0) as f64 / 1e6
    }),
    ("saved_bytes", "gauge", "Bytes that did not have to be carried, both ways", |peer| {
        peer.together.saved as f64
    }),
    ("received_from_applications_bytes_total", "counter", "Bytes from our applications", |peer| {
        peer.together.bytes_in as f64
    }),
    ("given_to_applications_bytes_total", "counter", "Bytes to our applications", |peer| {
        peer.together.bytes_out as f64
    }),
    ("resent_bytes_total", "counter", "Bytes that went again, for want of a carrier", |peer| {
        peer.together.resent as f64
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever drips one byte after the other has no more time than others: when it is over, not
    /// even what has come is read.
    #[test]
    fn a_request_that_drips_is_given_up() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs.write_all(b"xx").expect("a socket has room");
        let mut hasty = Hasty::new(ours).expect("a socket");
        let mut byte = [0];
        assert_eq!(hasty.read(&mut byte).expect("it has come in time"), 1);
        hasty.until = Instant::now();
        let late = hasty.read(&mut byte).expect_err("its time is over");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        let late = hasty.write(&byte).expect_err("its time is over");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }
}
