//! Configuration of one side of a tunnel: a TOML file becomes what was checked, with its keys read.
//!
//! [`Config::parse`] turns a text into a [`Config`] or into an error that names the line and says
//! what to write instead. Keys come through [`Keys`], so that a check needs no files; what the host
//! offers is an argument, too ([`Host`]).
//!
//! Invariants of a `Config` that exists:
//! - F1  Safe to run: a listener beyond loopback was asked for as public, the admin endpoint is
//!   local, and no two peers have a key in common: each names its peer ([`Config::peer_of`]).
//! - F2  Able to run: each peer can dial or be dialled, and each reference leads to what it names.
//! - F3  A secret is not in it as text, and no error repeats one.
//!
//! Bounds: [`FILE_BYTES_MAX`], [`PEERS_MAX`], [`LISTENERS_MAX`] of each kind, [`SERVICES_MAX`],
//! [`ADDRESSES_MAX`] a peer, [`RULES_MAX`] a peer.
//! Not here: what rules allow (`policy.rs`), how a key's file is read (`key_file.rs`), whether an
//! address is free (found out by binding it).
//! Tests: the texts of all errors, in `config_tests.rs`; `tools/fuzz` reads files.

mod check;
mod error;
mod read;
mod reload;
mod value;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ringway_core::Span;
use ringway_crypto::{
    Credentials, Listener as Doorman, NetworkKey, PeerProof, PrivateKey, Psk, PublicKey, Suite,
};
use ringway_tunnel_proto::Target;

pub use error::{At, ConfigError, WrongIdentity};
pub(crate) use value::is_name;
pub use value::{span, span_in_words};

pub use reload::{IdentityChange, ListenerChange, PeerChange, Reload, Restart, changes};
pub use ringway_tunnel_proto::limits::{
    ADDRESSES_MAX, CARRIERS_MAX, LISTENERS_MAX, PEERS_MAX, RULES_MAX, SERVICES_MAX,
};

use crate::key_file::{KeyFileError, read_network, read_private, read_shared};
use crate::policy::Policy;

/// Bytes of a configuration file.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// The checked configuration of one side.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// The network's keys: one, or two while one replaces the other. The first is shown when
    /// dialling, all are taken.
    pub networks: Vec<NetworkKey>,
    /// This side's own keys, in the same way; none if all peers share secrets.
    pub identities: Vec<PrivateKey>,
    /// Where carriers come in; none if this side only dials.
    pub listen: Vec<SocketAddr>,
    /// Threads: 1 to 128.
    pub shards: usize,
    /// The ciphers that are taken, the best first; at least one.
    pub suites: Vec<Suite>,
    /// Flows of one peer on one shard.
    pub flows_max: usize,
    /// Bytes of what comes that one shard may hold, for all peers together, and as many of what is
    /// sent.
    pub memory_bytes: u64,
    /// How long flows wait when no carrier is left, and connections for a session.
    pub wait: Span,
    /// Where `ringway tunnel status` asks.
    pub socket: PathBuf,
    /// Where Prometheus asks; on loopback.
    pub admin: Option<SocketAddr>,
    /// The peers, in the order of the file: [`PeerIndex`] counts them.
    pub peers: Vec<Peer>,
    /// Where applications connect.
    pub listeners: Vec<Listener>,
    /// Targets of this side that have names.
    pub services: Vec<Service>,
    /// Whose each proof is, sorted. Follows from `peers`.
    proofs: Vec<(PeerProof, PeerIndex)>,
}

/// A peer's place in [`Config::peers`]. Another reading of the file may give it another one; its
/// name stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerIndex(pub u16);

/// The other end of sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name: unique, and plain enough for labels and file names.
    pub name: String,
    /// How it is known.
    pub identity: Identity,
    /// Whom to dial, in order of preference: addresses, or names that are resolved at first, when
    /// the last carrier was lost, and after each round of all. None if it dials us.
    pub addresses: Vec<Target>,
    /// Carriers of one session, at most: 1 to [`CARRIERS_MAX`]. Who dials has a session for each of
    /// its shards.
    pub carriers: usize,
    /// Whether its sessions go by UDP, too, where that gets through: both sides have to say so.
    pub udp: bool,
    /// What it may reach through us.
    pub policy: Policy,
    /// Bytes a second of all its flows through us, on all shards together, and of each direction by
    /// itself; as applications read and write.
    pub rate: Option<u64>,
}

/// How a peer is known.
#[derive(Clone, PartialEq, Eq)]
pub enum Identity {
    /// By its key pair.
    Keys {
        /// Its public keys: one, or two while one replaces the other; the first is dialled.
        publics: Vec<PublicKey>,
        /// A second secret.
        psk: Option<Psk>,
    },
    /// By a secret of exactly the two: one, or two while one replaces the other; the first is
    /// shown when dialling.
    Shared(Vec<Psk>),
}

/// Where applications connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address.
    pub listen: SocketAddr,
    /// Through whom its connections go.
    pub peer: PeerIndex,
    /// What is spoken there.
    pub door: Door,
}

/// What a listener speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// Nothing: every connection goes to one target of the peer's side.
    Forward {
        /// The target.
        to: Target,
        /// Whether its flows are compressed.
        compress: Compress,
    },
    /// SOCKS5.
    Socks5,
    /// HTTP CONNECT.
    HttpConnect,
}

/// Whether a flow is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// If it is worth it.
    Auto,
    /// Never.
    Off,
}

/// A target of this side that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The name.
    pub name: String,
    /// Where it is: an address, or a name to resolve. Rules are not asked about it.
    pub to: Target,
    /// Whether it is told who connects, by the PROXY protocol, version 2.
    pub proxy_protocol: bool,
}

/// Where keys come from: files, or in tests nothing.
pub trait Keys {
    /// The network's key in this file.
    ///
    /// # Errors
    /// [`KeyFileError`], as with the other two.
    fn network(&mut self, path: &Path) -> Result<NetworkKey, KeyFileError>;
    /// The private key in this file.
    ///
    /// # Errors
    /// [`KeyFileError`].
    fn private(&mut self, path: &Path) -> Result<PrivateKey, KeyFileError>;
    /// The secret of two sites in this file.
    ///
    /// # Errors
    /// [`KeyFileError`].
    fn shared(&mut self, path: &Path) -> Result<Psk, KeyFileError>;
}

/// Keys in files that only their owner may read.
#[derive(Clone, Copy, Debug)]
pub struct KeyFiles;

impl Keys for KeyFiles {
    fn network(&mut self, path: &Path) -> Result<NetworkKey, KeyFileError> {
        read_network(path)
    }

    fn private(&mut self, path: &Path) -> Result<PrivateKey, KeyFileError> {
        read_private(path)
    }

    fn shared(&mut self, path: &Path) -> Result<Psk, KeyFileError> {
        read_shared(path)
    }
}

/// What the host offers. An argument of the check, so that tests can be other hosts.
#[derive(Clone, Debug)]
pub struct Host {
    /// Cores that this process may use.
    pub cores: usize,
    /// Where sockets are put unless the file names one.
    pub runtime_dir: PathBuf,
}

impl Host {
    /// This host.
    pub fn probe() -> Host {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let runtime = runtime.filter(|path| path.is_absolute()).unwrap_or("/run".into());
        Host {
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            runtime_dir: runtime.join("ringway"),
        }
    }
}

impl Config {
    /// Reads a file and the keys that it names, on this host.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        Config::parse(&read_text(path)?, path)
    }

    /// Reads the text of the file at `path` and the keys that it names, on this host. Relative
    /// paths are meant from where the file is.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        Config::parse_with(text, path, &Host::probe(), &mut KeyFiles)
    }

    /// Reads a text, with keys from elsewhere and on any host.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse_with(
        text: &str,
        path: &Path,
        host: &Host,
        keys: &mut dyn Keys,
    ) -> Result<Config, ConfigError> {
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(ConfigError::TooLong(path.to_owned()));
        }
        check::config(read::Source { path, text }, host, keys)
    }

    /// Where a tunnel that runs with the file at `path` can be asked, for those who may not read
    /// its keys.
    ///
    /// # Errors
    /// [`ConfigError`], about what leads there.
    pub fn socket_of(path: &Path) -> Result<PathBuf, ConfigError> {
        let text = read_text(path)?;
        check::socket_of(read::Source { path, text: &text }, &Host::probe())
    }

    /// A configuration with every field, and what each means.
    pub const fn example() -> &'static str {
        include_str!("config/example.toml")
    }

    /// Whether datagrams come in where carriers do.
    pub fn listens_for_datagrams(&self) -> bool {
        self.peers.iter().any(|peer| peer.udp)
    }

    /// The peer of this name.
    pub fn peer_named(&self, name: &str) -> Option<PeerIndex> {
        let at = self.peers.iter().position(|peer| peer.name == name)?;
        Some(PeerIndex(at as u16))
    }

    /// The peer at a place.
    pub fn peer(&self, index: PeerIndex) -> &Peer {
        &self.peers[usize::from(index.0)]
    }

    /// The service of this name.
    pub fn service_named(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Whose proof this is; `None` if it is nobody's who may come in.
    pub fn peer_of(&self, proof: &PeerProof) -> Option<PeerIndex> {
        let at = self.proofs.binary_search_by_key(proof, |(proof, _)| *proof).ok()?;
        Some(self.proofs[at].1)
    }

    /// What to show a peer, in the order in which it is to be tried: its first key and our first
    /// key, then those that replace or are being replaced.
    pub fn credentials(&self, index: PeerIndex) -> Vec<Credentials> {
        match &self.peer(index).identity {
            Identity::Shared(secrets) => secrets.iter().cloned().map(Credentials::Shared).collect(),
            Identity::Keys { publics, psk } => {
                let both = |mine: &PrivateKey| {
                    let (mine, psk) = (mine.clone(), psk.clone());
                    publics.iter().map(move |theirs| Credentials::Keys {
                        mine: mine.clone(),
                        theirs: *theirs,
                        psk: psk.clone(),
                    })
                };
                self.identities.iter().flat_map(both).collect()
            }
        }
    }

    /// What is taken at the door.
    pub fn doorman(&self) -> Doorman {
        let shared = self.peers.iter().filter_map(|peer| match &peer.identity {
            Identity::Shared(secrets) => Some(secrets.iter().cloned()),
            Identity::Keys { .. } => None,
        });
        Doorman {
            networks: self.networks.clone(),
            identities: self.identities.clone(),
            shared: shared.flatten().collect(),
            suites: self.suites.clone(),
        }
    }
}

impl Identity {
    /// The second secret, for who comes in with a key pair.
    pub fn psk(&self) -> Option<&Psk> {
        match self {
            Identity::Keys { psk, .. } => psk.as_ref(),
            Identity::Shared(_) => None,
        }
    }

    /// How it may prove itself.
    pub fn proofs(&self) -> Vec<PeerProof> {
        match self {
            Identity::Keys { publics, .. } => publics.iter().copied().map(PeerProof::Key).collect(),
            Identity::Shared(secrets) => {
                secrets.iter().map(|secret| PeerProof::Shared(secret.id())).collect()
            }
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.proofs().fmt(f)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { listen, peers, listeners, services, .. } = self;
        (listen, peers, listeners, services).fmt(f)
    }
}

/// The text of a configuration file.
pub(crate) fn read_text(path: &Path) -> Result<String, ConfigError> {
    let read = File::open(path).and_then(|file| {
        let mut text = String::new();
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map(|_| text)
    });
    let text = read.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::TooLong(path.to_owned()));
    }
    Ok(text)
}

#[cfg(test)]
#[path = "config_tests.rs"]
pub(crate) mod tests;
