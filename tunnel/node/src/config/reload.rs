//! What another reading of the file changes for a tunnel that runs.
//!
//! Peers are compared by their names and listeners by their addresses, since their places in the
//! file may change. What is not in [`Reload`] is simply the new configuration's from now on: `wait`
//! at once, ciphers and keys for the next handshake, services and `resolve_names` for the next
//! flow. A session keeps its `flows_max` from when it began.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use super::{Config, Listener, Peer, PeerIndex};

/// What to do about a new configuration. Flows of peers that stay are not touched: neither by
/// what changes for their peer, nor by a listener that goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reload {
    /// Every peer that was or is there, those that were first, in their order.
    pub peers: Vec<PeerChange>,
    /// Listeners to bind, to close, or to go on with in another way.
    pub listeners: Vec<ListenerChange>,
    /// What keeps its old value until the tunnel is started again.
    pub restart: Vec<Restart>,
}

/// What becomes of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// It is new: dial it if it has addresses.
    Added(PeerIndex),
    /// It is gone: end its sessions.
    Removed(PeerIndex),
    /// It is there, before and after.
    Stays {
        /// Its place before.
        before: PeerIndex,
        /// Its place now.
        now: PeerIndex,
        /// Its keys.
        identity: IdentityChange,
        /// Other addresses: for the next dial.
        addresses: bool,
        /// Another number of carriers.
        carriers: bool,
        /// UDP was switched on or off: now.
        udp: bool,
        /// Other rules: for the next flow.
        policy: bool,
        /// Another rate: for all its flows, now.
        rate: bool,
    },
}

/// What becomes of a peer's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityChange {
    /// Nothing.
    Same,
    /// A key came or went. A session goes on if its proof is still the peer's
    /// ([`Config::peer_of`]), and ends if not.
    Rotated,
    /// None of its keys is still there: its sessions end.
    Replaced,
}

/// What becomes of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerChange {
    /// Bind it: its place now.
    Added(usize),
    /// Close it: its place before. Flows that came in there go on.
    Removed(usize),
    /// The same socket, for other flows from now on.
    Changed {
        /// Its place before.
        before: usize,
        /// Its place now.
        now: usize,
    },
    /// The same as it was.
    Stays {
        /// Its place before.
        before: usize,
        /// Its place now.
        now: usize,
    },
}

/// A field whose new value waits for a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// How many threads there are.
    Shards,
    /// Where carriers come in.
    Listen,
    /// The memory for what comes.
    Memory,
    /// Where status is asked.
    Socket,
    /// Where Prometheus asks.
    Admin,
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = match self {
            Restart::Shards => "shards",
            Restart::Listen => "listen",
            Restart::Memory => "memory",
            Restart::Socket => "socket",
            Restart::Admin => "admin",
        };
        write!(
            f,
            "{field} in [tunnel] was changed: that needs a restart; until then it is as it was"
        )
    }
}

impl Reload {
    /// Whether nothing is different that is looked at here.
    pub fn is_nothing(&self) -> bool {
        let peer_same = |change: &PeerChange| {
            matches!(
                change,
                PeerChange::Stays {
                    identity: IdentityChange::Same,
                    addresses: false,
                    carriers: false,
                    udp: false,
                    policy: false,
                    rate: false,
                    ..
                }
            )
        };
        let listener_same =
            |change: &ListenerChange| matches!(change, ListenerChange::Stays { .. });
        self.restart.is_empty()
            && self.peers.iter().all(peer_same)
            && self.listeners.iter().all(listener_same)
    }
}

/// What a tunnel that runs with `old` has to do to run with `new`.
pub fn changes(old: &Config, new: &Config) -> Reload {
    Reload { peers: peers(old, new), listeners: listeners(old, new), restart: restart(old, new) }
}

impl Config {
    /// Takes over what only a restart changes from the configuration that runs, so that the next
    /// reading is compared with what is true.
    pub fn keep_until_restart(&mut self, running: &Config) {
        self.shards = running.shards;
        self.listen.clone_from(&running.listen);
        self.memory_bytes = running.memory_bytes;
        self.socket.clone_from(&running.socket);
        self.admin = running.admin;
    }
}

fn peers(old: &Config, new: &Config) -> Vec<PeerChange> {
    let by_name = |config: &Config| -> BTreeMap<String, PeerIndex> {
        let indexes = (0..).map(PeerIndex);
        config.peers.iter().map(|peer| peer.name.clone()).zip(indexes).collect()
    };
    let (before, now) = (by_name(old), by_name(new));
    let of_old = old.peers.iter().zip((0..).map(PeerIndex));
    let of_old = of_old.map(|(peer, before)| match now.get(&peer.name) {
        None => PeerChange::Removed(before),
        Some(now) => stays(before, peer, *now, new.peer(*now)),
    });
    let of_new = new.peers.iter().zip((0..).map(PeerIndex));
    let added = of_new.filter(|(peer, _)| !before.contains_key(&peer.name));
    of_old.chain(added.map(|(_, index)| PeerChange::Added(index))).collect()
}

fn stays(before: PeerIndex, was: &Peer, now: PeerIndex, is: &Peer) -> PeerChange {
    let (had, has) = (was.identity.proofs(), is.identity.proofs());
    let identity = match (was.identity == is.identity, had.iter().any(|proof| has.contains(proof)))
    {
        (true, _) => IdentityChange::Same,
        (false, true) => IdentityChange::Rotated,
        (false, false) => IdentityChange::Replaced,
    };
    PeerChange::Stays {
        before,
        now,
        identity,
        addresses: was.addresses != is.addresses,
        carriers: was.carriers != is.carriers,
        udp: was.udp != is.udp,
        policy: was.policy != is.policy,
        rate: was.rate != is.rate,
    }
}

fn listeners(old: &Config, new: &Config) -> Vec<ListenerChange> {
    // Several may have port 0, so an address has places, not a place.
    let mut places: BTreeMap<SocketAddr, Vec<usize>> = BTreeMap::new();
    for (now, listener) in new.listeners.iter().enumerate().rev() {
        places.entry(listener.listen).or_default().push(now);
    }
    let same = |was: &Listener, is: &Listener| {
        let peers = old.peer(was.peer).name == new.peer(is.peer).name;
        peers && was.door == is.door
    };
    let mut all = Vec::with_capacity(old.listeners.len().max(new.listeners.len()));
    for (before, was) in old.listeners.iter().enumerate() {
        all.push(match places.get_mut(&was.listen).and_then(Vec::pop) {
            None => ListenerChange::Removed(before),
            Some(now) if same(was, &new.listeners[now]) => ListenerChange::Stays { before, now },
            Some(now) => ListenerChange::Changed { before, now },
        });
    }
    let mut left: Vec<usize> = places.into_values().flatten().collect();
    left.sort_unstable();
    all.extend(left.into_iter().map(ListenerChange::Added));
    all
}

fn restart(old: &Config, new: &Config) -> Vec<Restart> {
    let fields = [
        (Restart::Shards, old.shards != new.shards),
        (Restart::Listen, old.listen != new.listen),
        (Restart::Memory, old.memory_bytes != new.memory_bytes),
        (Restart::Socket, old.socket != new.socket),
        (Restart::Admin, old.admin != new.admin),
    ];
    fields.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
}
