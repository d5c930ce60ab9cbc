//! Datagrams between two sites: each is lost, doubled, late or let through by itself.
//!
//! The near site has a socket for each shard; the far one has one address for all of its shards,
//! and which of them a datagram comes to follows from its source alone, as the kernel does it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ringway_core::rng::Rng;
use ringway_core::{Moment, Span};
use ringway_tunnel_proto::{Arrived, Route};

use super::{Net, Shard};

/// Where the far site listens.
pub(crate) const FAR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)), 4600);
/// The numbers of sockets: that one, and those that dial.
pub(crate) const LISTENS: u16 = 0;
const DIALS: u16 = 1;

/// What may pass at once, in time.
const POLICED: Span = Span::from_ms(50);

/// What a link holds that passes so much and no more, in time.
const HELD: Span = Span::from_ms(50);

/// Heads of IPv4 and UDP.
const HEADS: usize = 28;

/// A datagram on its way: to which site, from where, to where.
type Flying = (usize, SocketAddr, SocketAddr, Vec<u8>);

/// What datagrams meet.
pub(crate) struct Air {
    rng: Rng,
    pub(crate) lost_per_mille: u64,
    pub(crate) twice_per_mille: u64,
    /// Least delay, and what chance adds.
    pub(crate) delay: Span,
    pub(crate) jitter: Span,
    /// Bytes of the longest datagram that gets through, heads of IP and UDP among them.
    pub(crate) mtu: usize,
    /// Bytes a millisecond, each way, beyond which datagrams are dropped, if there is a bound; and
    /// until when it is used up.
    pub(crate) police: Option<u64>,
    policed: [Moment; 2],
    /// Bytes a millisecond, each way, that pass in turn, if there is a bound, datagrams and records
    /// together; and until when it is taken.
    pub(crate) link: Option<u64>,
    taken: [Moment; 2],
    /// Nothing gets through, to the far site and from there.
    pub(crate) blocked: [bool; 2],
    /// The near site's address: it may move.
    pub(crate) near: Ipv4Addr,
    /// Every second of its datagrams leaves from this one, if there is one: a translator of
    /// addresses has two. What is sent to either arrives.
    pub(crate) twin: Option<Ipv4Addr>,
    /// Bytes that were sent to where the near site is not.
    pub(crate) astray: u64,
    /// Added to what decides which shard of the far site hears a source.
    pub(crate) turn: usize,
    /// What is on its way, by when it comes: to which site, from where, and the datagram.
    flying: BTreeMap<(Moment, u64), Flying>,
    count: u64,
    /// Bytes that were sent to each site.
    pub(crate) put: [u64; 2],
    /// Datagrams that came, by site, and their bytes.
    pub(crate) came: [u64; 2],
    pub(crate) bytes: [u64; 2],
    /// Datagrams that one shard gave to another.
    pub(crate) forwarded: u64,
    /// All that was sent to the far site, if somebody keeps it, and whether it was lost.
    pub(crate) heard: Option<Vec<(bool, Vec<u8>)>>,
}

impl Air {
    fn new(seed: u64) -> Air {
        Air {
            rng: Rng::new(seed),
            lost_per_mille: 0,
            twice_per_mille: 0,
            delay: Span::from_ms(5),
            jitter: Span::ZERO,
            mtu: 1500,
            police: None,
            policed: [Moment(0); 2],
            link: None,
            taken: [Moment(0); 2],
            blocked: [false; 2],
            near: Ipv4Addr::new(198, 51, 100, 1),
            twin: None,
            astray: 0,
            turn: 0,
            flying: BTreeMap::new(),
            count: 0,
            put: [0; 2],
            came: [0; 2],
            bytes: [0; 2],
            forwarded: 0,
            heard: None,
        }
    }

    /// When something comes next.
    pub(super) fn next(&self) -> Option<Moment> {
        self.flying.keys().next().map(|(at, _)| *at)
    }

    /// Whether a datagram is more than may pass.
    fn is_over(&mut self, now: Moment, to: usize, bytes: usize) -> bool {
        let Some(per_ms) = self.police else { return false };
        let until = self.policed[to].max(now);
        let over = until.since(now) > POLICED;
        if !over {
            self.policed[to] = until + Span((bytes + HEADS) as u64 * 1_000_000 / per_ms);
        }
        over
    }

    /// Takes a place on the link; returns when what takes it leaves, `None` if there is none.
    pub(super) fn take(&mut self, now: Moment, to: usize, bytes: usize) -> Option<Moment> {
        let Some(per_ms) = self.link else { return Some(now) };
        let begin = self.taken[to].max(now);
        if begin.since(now) > HELD {
            return None;
        }
        self.taken[to] = begin + Span(bytes as u64 * 1_000_000 / per_ms);
        Some(self.taken[to])
    }

    fn put(&mut self, now: Moment, to: usize, ends: (SocketAddr, SocketAddr), datagram: &[u8]) {
        self.put[to] += datagram.len() as u64;
        let copies = 1 + u64::from(self.rng.chance(self.twice_per_mille));
        for _ in 0..copies {
            let stopped = self.blocked[1 - to] || datagram.len() + HEADS > self.mtu;
            let lost = stopped || self.is_over(now, to, datagram.len());
            let lost = lost || self.rng.chance(self.lost_per_mille);
            if to == 1
                && let Some(heard) = &mut self.heard
            {
                heard.push((lost, datagram.to_vec()));
            }
            let Some(leaves) =
                (!lost).then(|| self.take(now, to, datagram.len() + HEADS)).flatten()
            else {
                continue;
            };
            let at = leaves + self.delay + Span(self.rng.below(self.jitter.0 + 1));
            self.count += 1;
            self.flying.insert((at, self.count), (to, ends.0, ends.1, datagram.to_vec()));
        }
    }
}

fn ipv4(at: SocketAddr) -> Option<Ipv4Addr> {
    match at.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

impl Net {
    /// Both sites have datagrams, and say so in their files.
    pub(crate) fn give_air(&mut self, seed: u64) {
        self.air = Some(Air::new(seed));
        self.allow_packets(true);
    }

    pub(crate) fn air(&mut self) -> &mut Air {
        self.air.as_mut().expect("it was given")
    }

    /// The near site's way to the far one, where there are datagrams.
    pub(super) fn route() -> Route {
        Route { socket: DIALS, to: FAR, from: None }
    }

    /// Takes what a shard sends, and gives on what was for another one.
    pub(super) fn collect_datagrams(&mut self, site: usize, shard: usize) {
        let now = self.now;
        let desk = &mut self.sites[site][shard].desk;
        let (trains, gifts) =
            (std::mem::take(&mut desk.trains), std::mem::take(&mut desk.forwards));
        let Some(air) = self.air.as_mut() else { return };
        for (route, datagram_bytes, bytes) in trains {
            for datagram in bytes.chunks(datagram_bytes) {
                let near = air.twin.filter(|_| air.count.is_multiple_of(2)).unwrap_or(air.near);
                let mine = match site {
                    0 => SocketAddr::new(near.into(), 1000 + shard as u16),
                    _ => FAR,
                };
                air.put(now, 1 - site, (mine, route.to), datagram);
            }
        }
        for (to, arrived, mut bytes) in gifts {
            self.air().forwarded += 1;
            let Shard { agent, desk } = &mut self.sites[site][usize::from(to)];
            agent.datagrams(now, &arrived, &mut bytes, desk);
        }
    }

    /// Datagrams come.
    pub(super) fn carry_datagrams(&mut self) {
        let now = self.now;
        loop {
            let frozen = self.frozen;
            let Some(air) = self.air.as_mut() else { return };
            let first = air.flying.first_entry().filter(|first| first.key().0 <= now);
            let Some((to, from, at, datagram)) = first.map(|first| first.remove()) else { return };
            // What a socket has no room for while nobody reads.
            if frozen == Some(to) {
                continue;
            }
            self.deliver(to, (from, at), datagram);
        }
    }

    /// A datagram comes to a site.
    pub(crate) fn deliver(
        &mut self,
        to: usize,
        (from, at): (SocketAddr, SocketAddr),
        mut datagram: Vec<u8>,
    ) {
        let (now, shards) = (self.now, self.sites[to].len());
        let air = self.air();
        let shard = match to {
            // Nobody is where the near site was before.
            0 if ![Some(air.near), air.twin].contains(&ipv4(at)) => {
                air.astray += datagram.len() as u64;
                return;
            }
            0 => usize::from(at.port()) - 1000,
            _ => (usize::from(from.port()) + air.turn) % shards,
        };
        air.came[to] += 1;
        air.bytes[to] += datagram.len() as u64;
        let socket = if to == 1 { LISTENS } else { DIALS };
        let route = Route { socket, to: from, from: Some(at.ip()) };
        let arrived = Arrived { route, listening: to == 1, datagram_bytes: datagram.len().max(1) };
        let Shard { agent, desk } = &mut self.sites[to][shard];
        agent.datagrams(now, &arrived, &mut datagram, desk);
        self.collect_datagrams(to, shard);
    }
}
