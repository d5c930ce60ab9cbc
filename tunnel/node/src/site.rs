//! A configuration as shards use it: peers and listeners by numbers that stay theirs while the
//! process runs, whatever their places in the file become.
//!
//! Bounds: as many peers and listeners as the configuration may have; numbers of those that are
//! gone are used again.

use std::net::SocketAddr;
use std::sync::Arc;

use ringway_tunnel_proto::{Peer as AgentPeer, PeerId};

use crate::config::{Config, Door, ListenerChange, PeerChange, Reload};
use crate::pump::rate::Rate;
use crate::status::UnopenedStatus;

/// The door by which carriers come in; those of listeners follow.
pub(crate) const CARRIER_DOOR: u16 = 0;

/// Where applications connect.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    /// Where it was told to listen.
    pub(crate) listen: SocketAddr,
    pub(crate) peer: PeerId,
    pub(crate) door: Door,
}

/// See the module.
pub(crate) struct Site {
    pub(crate) config: Config,
    /// Where a peer stands in the configuration, by its number.
    peers: Vec<Option<usize>>,
    /// What is charged to those that have a rate, by their numbers, for all shards together.
    rates: Vec<Option<Arc<Rate>>>,
    /// Listeners by their door's number less one.
    listeners: Vec<Option<Listener>>,
}

impl Site {
    /// The configuration that a process begins with: all in the order of the file.
    pub(crate) fn new(config: Config) -> Site {
        let peers: Vec<_> = (0..config.peers.len()).map(Some).collect();
        let rates = rates(&config, &peers, &[]);
        let mut site = Site { config, peers, rates, listeners: Vec::new() };
        site.listeners =
            (0..site.config.listeners.len()).map(|at| Some(site.listener_at(at))).collect();
        site
    }

    /// The next configuration, and what changes for doors: those to shut, and those to open.
    pub(crate) fn next(&self, config: Config, reload: &Reload) -> (Site, Vec<u16>, Vec<u16>) {
        let mut peers = vec![None; self.peers.len()];
        for change in &reload.peers {
            if let PeerChange::Stays { before, now, .. } = change {
                let number = self.peers.iter().position(|at| *at == Some(usize::from(before.0)));
                peers[number.expect("it was there")] = Some(usize::from(now.0));
            }
        }
        for change in &reload.peers {
            if let PeerChange::Added(at) = change {
                // Not a number that was somebody else's a moment ago: sessions of that one end in
                // the same step.
                let free =
                    (0..peers.len()).find(|n| peers[*n].is_none() && self.peers[*n].is_none());
                let number = free.unwrap_or_else(|| {
                    peers.push(None);
                    peers.len() - 1
                });
                peers[number] = Some(usize::from(at.0));
            }
        }
        let rates = rates(&config, &peers, &self.rates);
        let listeners = vec![None; self.listeners.len()];
        let mut next = Site { config, peers, rates, listeners };
        let (mut shut, mut open) = (Vec::new(), Vec::new());
        for change in &reload.listeners {
            match change {
                ListenerChange::Stays { before, now } | ListenerChange::Changed { before, now } => {
                    let number = self.door_of(*before);
                    next.listeners[usize::from(number) - 1] = Some(next.listener_at(*now));
                }
                ListenerChange::Removed(before) => shut.push(self.door_of(*before)),
                ListenerChange::Added(_) => {}
            }
        }
        for change in &reload.listeners {
            if let ListenerChange::Added(at) = change {
                let listener = next.listener_at(*at);
                let free = next.listeners.iter().position(Option::is_none);
                let place = free.unwrap_or_else(|| {
                    next.listeners.push(None);
                    next.listeners.len() - 1
                });
                next.listeners[place] = Some(listener);
                open.push(place as u16 + 1);
            }
        }
        (next, shut, open)
    }

    /// A listener by its place in the configuration.
    fn listener_at(&self, at: usize) -> Listener {
        let listener = &self.config.listeners[at];
        let peer = self.peers.iter().position(|place| *place == Some(usize::from(listener.peer.0)));
        let peer = PeerId(peer.expect("the configuration has its peer") as u16);
        Listener { listen: listener.listen, peer, door: listener.door.clone() }
    }

    /// The door of the listener at a place in the configuration.
    fn door_of(&self, at: usize) -> u16 {
        let wanted = self.listener_at(at);
        let same = |one: &Listener| {
            one.listen == wanted.listen && one.peer == wanted.peer && one.door == wanted.door
        };
        let found = self.listeners.iter().position(|place| place.as_ref().is_some_and(same));
        found.expect("it has a door") as u16 + 1
    }

    /// Doors to open at the start.
    pub(crate) fn doors(&self) -> Vec<(u16, SocketAddr)> {
        let carriers = self.config.listen.iter().map(|address| (CARRIER_DOOR, *address));
        let listeners = self.listeners.iter().zip(1..);
        let listeners = listeners.filter_map(|(one, door)| Some((door, one.as_ref()?.listen)));
        carriers.chain(listeners).collect()
    }

    /// The listener behind a door.
    pub(crate) fn listener(&self, door: u16) -> Option<&Listener> {
        self.listeners.get(usize::from(door).checked_sub(1)?)?.as_ref()
    }

    /// What to tell of a door that could not be opened.
    pub(crate) fn unopened(&self, door: u16, why: &str) -> Option<UnopenedStatus> {
        let listener = self.listener(door)?;
        let kind = match listener.door {
            Door::Forward { .. } => "forward",
            Door::Socks5 => "socks5",
            Door::HttpConnect => "http_connect",
        };
        Some(UnopenedStatus {
            listen: Some(listener.listen),
            kind: kind.to_owned(),
            peer: self.name(listener.peer).to_owned(),
            why: why.to_owned(),
        })
    }

    /// A peer by its number.
    pub(crate) fn peer(&self, peer: PeerId) -> Option<&crate::config::Peer> {
        let at = *self.peers.get(usize::from(peer.0))?;
        at.map(|at| &self.config.peers[at])
    }

    /// What is charged to a peer, if it has a rate.
    pub(crate) fn rate(&self, peer: PeerId) -> Option<&Rate> {
        self.rates.get(usize::from(peer.0))?.as_deref()
    }

    /// The peers, with their numbers.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (PeerId, &crate::config::Peer)> {
        let peers = (0..).map(PeerId).zip(&self.peers);
        peers.filter_map(|(number, at)| Some((number, &self.config.peers[(*at)?])))
    }

    /// The name of a peer, for logs.
    pub(crate) fn name(&self, peer: PeerId) -> &str {
        self.peer(peer).map_or("a peer that is gone", |peer| &peer.name)
    }

    /// Peers as agents know them.
    pub(crate) fn agent_peers(&self) -> Vec<Option<AgentPeer>> {
        let known = |at: &Option<usize>| {
            let index = crate::config::PeerIndex((*at)? as u16);
            let peer = self.config.peer(index);
            let dials = !peer.addresses.is_empty();
            let psk = peer.identity.psk();
            let proofs = peer.identity.proofs().into_iter().map(|proof| (proof, psk.cloned()));
            Some(AgentPeer {
                credentials: if dials { self.config.credentials(index) } else { Vec::new() },
                proofs: proofs.collect(),
                carriers_max: peer.carriers,
                packets: peer.udp,
            })
        };
        self.peers.iter().map(known).collect()
    }
}

/// Rates by the numbers of peers. A number that goes from one peer to another is nobody's between.
fn rates(
    config: &Config,
    peers: &[Option<usize>],
    before: &[Option<Arc<Rate>>],
) -> Vec<Option<Arc<Rate>>> {
    let rate = |(number, at): (usize, &Option<usize>)| {
        let rate = config.peers[(*at)?].rate?;
        Some(Rate::following(before.get(number).and_then(Option::as_ref), rate))
    };
    peers.iter().enumerate().map(rate).collect()
}
