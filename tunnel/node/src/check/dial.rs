//! One address: whether TCP leads there, and who answers a first message.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringway_crypto::{
    CarrierKind, Credentials, Dial, Entropy, Established, FIRST_BYTES, Initiator, NetworkKey,
    Refused, SuiteSet,
};
use ringway_tunnel_proto::{Instance, is_hello_understood, probe_hello};

use super::{Finding, Patience, Stage, lasted};
use crate::chance::{NoChance, entropy};
use crate::config::{Config, Identity, PeerIndex};
use crate::shared::wall_ms;

/// Bytes of what is no answer that are shown.
const SHOWN_MAX: usize = 32;

/// What a first message came to.
enum Heard {
    /// The peer's answer.
    Answer(Box<Established>),
    /// Nothing.
    Silence,
    /// It was closed before there was an answer.
    Closed,
    /// Bytes that are no answer of the network's.
    Others(Vec<u8>),
    /// An answer of the network's that does not verify.
    Forged(Refused),
}

/// Looks at an address: TCP, and the handshake over it with each key that may be shown.
pub(super) fn look(
    config: &Config,
    peer: PeerIndex,
    address: SocketAddr,
    patience: Patience,
) -> Result<Vec<Finding>, NoChance> {
    let began = Instant::now();
    let mut stream = match TcpStream::connect_timeout(&address, patience.connect) {
        Ok(stream) => Some(stream),
        Err(error) => return Ok(vec![no_way(address, &error).at(address)]),
    };
    let found = format!("connected ({})", lasted(began));
    let mut findings = vec![Finding::ok(Stage::Tcp, found).at(address)];
    let mut entropy = entropy()?;
    let credentials = config.credentials(peer);
    let mut outcome = None;
    for (at_network, network) in config.networks.iter().enumerate() {
        for (at_key, credentials) in credentials.iter().enumerate() {
            // Whoever failed once is not listened to again: each attempt has its own connection.
            let stream = match stream.take() {
                Some(stream) => Ok(stream),
                None => TcpStream::connect_timeout(&address, patience.connect),
            };
            let began = Instant::now();
            let heard = stream.and_then(|stream| {
                let show = Show { config, network, credentials };
                show.to(stream, patience.answer, &mut entropy)
            });
            let heard = heard.unwrap_or(Heard::Closed);
            if let Heard::Answer(established) = &heard {
                findings.push(answered(established, began, (at_network, at_key)).at(address));
                return Ok(findings);
            }
            outcome.get_or_insert(heard);
        }
    }
    let outcome = outcome.expect("the configuration has a network and a key for each peer");
    findings.push(failed(config, peer, &outcome, patience).at(address));
    Ok(findings)
}

/// What a first message shows.
struct Show<'a> {
    config: &'a Config,
    network: &'a NetworkKey,
    credentials: &'a Credentials,
}

impl Show<'_> {
    fn to(
        &self,
        mut stream: TcpStream,
        patience: Duration,
        entropy: &mut Entropy,
    ) -> io::Result<Heard> {
        let dial = Dial {
            network: self.network,
            credentials: self.credentials,
            kind: CarrierKind::Tcp,
            suites: SuiteSet::of(&self.config.suites),
            now_ms: wall_ms(),
        };
        let mut said = Vec::new();
        let hello = probe_hello(Instance(entropy.array()));
        let mut initiator = Initiator::start(&dial, &hello, entropy, &mut said);
        let deadline = Instant::now() + patience;
        stream.set_write_timeout(Some(patience))?;
        stream.write_all(&said)?;
        let mut first = [0; FIRST_BYTES];
        match read(&mut stream, &mut first, deadline) {
            Reading::Whole => {}
            Reading::Silence(0) => return Ok(Heard::Silence),
            Reading::Closed(0) => return Ok(Heard::Closed),
            Reading::Silence(some) | Reading::Closed(some) => {
                return Ok(Heard::Others(first[..some].to_vec()));
            }
        }
        let Ok(len) = initiator.answered(&first) else { return Ok(Heard::Others(first.to_vec())) };
        let mut body = vec![0; len];
        Ok(match read(&mut stream, &mut body, deadline) {
            Reading::Whole => match initiator.finish(&mut body) {
                Ok(established) => Heard::Answer(Box::new(established)),
                Err(why) => Heard::Forged(why),
            },
            Reading::Silence(_) => Heard::Silence,
            Reading::Closed(_) => Heard::Closed,
        })
    }
}

/// How far a read has come.
enum Reading {
    Whole,
    /// The time is over after so many bytes.
    Silence(usize),
    /// It was closed after so many.
    Closed(usize),
}

fn read(stream: &mut TcpStream, into: &mut [u8], deadline: Instant) -> Reading {
    let mut at = 0;
    while at < into.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return Reading::Silence(at);
        }
        match stream.read(&mut into[at..]) {
            Ok(0) => return Reading::Closed(at),
            Ok(some) => at += some,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A time limit of a read is one of these two, by the system.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Reading::Silence(at);
            }
            Err(_) => return Reading::Closed(at),
        }
    }
    Reading::Whole
}

/// No connection: who is to look where.
fn no_way(address: SocketAddr, error: &io::Error) -> Finding {
    let port = address.port();
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            Finding::bad(Stage::Tcp, "refused: the host is there, and nothing listens at this port")
                .remedy(format!("there: `ss -ltn 'sport = :{port}'` shows whether the tunnel runs"))
                .remedy(
                    "see that its `listen` has this port, and an address that is reached from here",
                )
                .remedy("a firewall that rejects looks the same: `nft list ruleset` there")
        }
        ErrorKind::TimedOut => Finding::bad(
            Stage::Tcp,
            "no answer to the connection: something drops it, or nobody is there",
        )
        .remedy(format!("a firewall before the far side has to let TCP port {port} through"))
        .remedy(format!("`ping {}` shows whether the host is there at all", address.ip()))
        .remedy(format!("there: `tcpdump -ni any tcp port {port}` shows whether anything arrives")),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            Finding::bad(Stage::Tcp, "unreachable: a router, or this host, knows no way there")
                .remedy(format!("`ip route get {}` shows the way that is taken", address.ip()))
        }
        ErrorKind::PermissionDenied => {
            Finding::bad(Stage::Tcp, "forbidden: a filter of this host lets nothing out to there")
                .remedy("`nft list ruleset`, or the sandbox that this runs in")
        }
        _ => Finding::bad(Stage::Tcp, format!("not possible: {error}")),
    }
}

fn answered(established: &Established, began: Instant, key: (usize, usize)) -> Finding {
    let took = lasted(began);
    if !is_hello_understood(&established.payload) {
        let version = established.payload.first().copied().unwrap_or(0);
        return Finding::bad(
            Stage::Handshake,
            format!("the right peer answers ({took}), but speaks version {version}"),
        )
        .remedy("have the same release of ringway on both sides: `ringway --version`");
    }
    let suite = established.suite.name();
    match key {
        (0, 0) => Finding::ok(
            Stage::Handshake,
            format!(
                "answered by the right key ({took}), {suite}; version understood, clocks less \
                 than 30 s apart"
            ),
        ),
        (0, at) => Finding::note(
            Stage::Handshake,
            format!(
                "answered ({took}), but only with pair {} of our keys and its keys, in the order \
                 of the file",
                at + 1
            ),
        )
        .remedy("as long as keys are being replaced; put the pair that works first"),
        (..) => Finding::bad(
            Stage::Handshake,
            format!("answered ({took}), but only under the second `network_key`"),
        )
        .remedy("the first one is shown when dialling: put the one that both have first")
        .remedy("or give the new one to the far side"),
    }
}

fn failed(config: &Config, peer: PeerIndex, heard: &Heard, patience: Patience) -> Finding {
    match heard {
        Heard::Answer(_) => unreachable!("an answer is no failure"),
        Heard::Silence => silence(config, peer, patience),
        Heard::Closed => Finding::bad(
            Stage::Handshake,
            "closed without a word: this is no ringway, which reads on and says nothing",
        )
        .remedy("a balancer or a firewall that connects for others has nobody behind it")
        .remedy("or another program listens there: `ss -ltnp` at the far side"),
        Heard::Others(bytes) => {
            let shown = bytes[..bytes.len().min(SHOWN_MAX)].escape_ascii();
            Finding::bad(Stage::Handshake, format!("something else answers: \"{shown}\""))
                .remedy("see that `addresses` leads to the tunnel and not to another service")
                .remedy("something between may change bytes: a proxy that speaks TLS or HTTP")
        }
        Heard::Forged(why) => Finding::bad(
            Stage::Handshake,
            format!("somebody of our network answers, but {why}"),
        )
        .remedy("the `psk` of the two sides differs: `sha256sum` of its file has to be the same")
        .remedy("or something between changes bytes"),
    }
}

/// Silence has many causes and looks the same, which is the point of it. The likeliest first.
fn silence(config: &Config, peer: PeerIndex, patience: Patience) -> Finding {
    let seconds = patience.answer.as_secs_f64();
    let mut finding = Finding::bad(Stage::Handshake, format!("silence for {seconds} s")).remedy(
        "its own log names the reason, or has no line at all if the network keys differ or it is \
             no ringway that listens: `journalctl -u ringway-tunnel` there",
    );
    match &config.peer(peer).identity {
        Identity::Keys { publics, .. } => {
            let ours: Vec<String> =
                config.identities.iter().map(|key| key.public().to_string()).collect();
            let theirs: Vec<String> = publics.iter().map(ToString::to_string).collect();
            finding = finding
                .remedy(format!(
                    "it does not know us: there, a [[peer]] needs public_key = \"{}\"",
                    ours.join("\" or \"")
                ))
                .remedy(format!(
                    "its key is another one: `ringway keygen --public FILE` there has to say {}",
                    theirs.join(" or ")
                ));
        }
        Identity::Shared(_) => {
            finding = finding.remedy(
                "it has another `shared_key` for us: `sha256sum` of the files has to be the same \
                 on both sides",
            );
        }
    }
    finding
        .remedy("the network keys differ: `sha256sum` of both `network_key` files tells")
        .remedy(format!(
            "the clocks differ by more than 30 s: `date -u +%s` says {} here",
            wall_ms() / 1000
        ))
        .remedy("it takes none of our `ciphers`, or another version runs there")
        .remedy("it was started anew some seconds ago and its clock is ahead: try again in 30 s")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each way of not getting there has its own first step for who mends it.
    #[test]
    fn connections_that_fail_are_told_apart() {
        let address = "192.0.2.1:4600".parse().expect("an address");
        let said = |kind: ErrorKind| no_way(address, &kind.into());
        let cases = [
            (ErrorKind::ConnectionRefused, "refused", "ss -ltn"),
            (ErrorKind::TimedOut, "no answer", "firewall"),
            (ErrorKind::HostUnreachable, "unreachable", "ip route get 192.0.2.1"),
            (ErrorKind::NetworkUnreachable, "unreachable", "ip route get 192.0.2.1"),
            (ErrorKind::PermissionDenied, "forbidden", "nft list ruleset"),
        ];
        for (kind, found, remedy) in cases {
            let finding = said(kind);
            assert!(finding.found.starts_with(found), "{finding:?}");
            assert!(finding.remedies[0].contains(remedy), "{finding:?}");
        }
        assert!(said(ErrorKind::AddrNotAvailable).found.starts_with("not possible"));
    }
}
