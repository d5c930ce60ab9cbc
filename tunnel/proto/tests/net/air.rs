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

/// What a kernel merges at most.
const TRAIN_BYTES_MAX: usize = 65_507;

/// Heads of IPv4 and UDP.
const HEADS: usize = 28;

/// A datagram on its way: to which site, from where, to where.
type Flying = (usize, SocketAddr, SocketAddr, Vec<u8>);

/// What datagrams meet.
pub(crate) struct Air {
    rng: Rng,
    pub(crate) lost_per_mille: u64,
    pub(crate) twice_per_mille: u64,
    /// So many begin a burst, each way, in which all are lost for this time at most; and until when
    /// one lasts.
    pub(crate) bursts_per_mille: u64,
    pub(crate) burst_max: Span,
    burst_until: [Moment; 2],
    /// So many come later by this.
    pub(crate) late_per_mille: u64,
    pub(crate) late_by: Span,
    /// Datagrams of one length that come one after the other from the same source come at once, and
    /// one that is shorter behind them, as a kernel merges them.
    pub(crate) merges: bool,
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
    /// How many datagrams met what.
    pub(crate) met: Met,
    /// The near site's address: it may move.
    pub(crate) near: Ipv4Addr,
    /// Every second of its datagrams leaves from this one, if there is one: a translator of
    /// addresses has two. What is sent to either arrives.
    pub(crate) twin: Option<Ipv4Addr>,
    /// Bytes that were sent to where the near site is not.
    pub(crate) astray: u64,
    /// Those trains, and how long their datagrams are, if somebody keeps them.
    pub(crate) strays: Option<Vec<(Vec<u8>, usize)>>,
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

/// How many datagrams met what.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Met {
    pub(crate) lost: u64,
    pub(crate) in_bursts: u64,
    pub(crate) twice: u64,
    pub(crate) late: u64,
    pub(crate) cut: u64,
    pub(crate) blocked: u64,
    /// There was no place left on the link.
    pub(crate) overflowed: u64,
    /// They came at once with others.
    pub(crate) merged: u64,
}

impl Met {
    /// All of it, by name.
    pub(crate) fn all(&self) -> [(&'static str, u64); 8] {
        [
            ("lost", self.lost),
            ("in bursts", self.in_bursts),
            ("twice", self.twice),
            ("late", self.late),
            ("cut", self.cut),
            ("blocked", self.blocked),
            ("overflowed", self.overflowed),
            ("merged", self.merged),
        ]
    }

    /// Adds what others met.
    pub(crate) fn add(&mut self, more: &Met) {
        self.lost += more.lost;
        self.in_bursts += more.in_bursts;
        self.twice += more.twice;
        self.late += more.late;
        self.cut += more.cut;
        self.blocked += more.blocked;
        self.overflowed += more.overflowed;
        self.merged += more.merged;
    }
}

impl Air {
    fn new(seed: u64) -> Air {
        Air {
            rng: Rng::new(seed),
            lost_per_mille: 0,
            twice_per_mille: 0,
            bursts_per_mille: 0,
            burst_max: Span::ZERO,
            burst_until: [Moment(0); 2],
            late_per_mille: 0,
            late_by: Span::ZERO,
            merges: false,
            met: Met::default(),
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
            strays: None,
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

    /// Datagrams on their way to a site.
    pub(crate) fn on_the_way(&self, to: usize) -> usize {
        self.flying.values().filter(|flying| flying.0 == to).count()
    }

    /// Those do not come.
    pub(crate) fn take_away(&mut self, to: usize) -> Vec<Vec<u8>> {
        let goes = self.flying.extract_if(.., |_, flying| flying.0 == to);
        goes.map(|(_, flying)| flying.3).collect()
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
        self.met.twice += copies - 1;
        for _ in 0..copies {
            let lost = self.is_lost(now, to, datagram.len());
            if to == 1
                && let Some(heard) = &mut self.heard
            {
                heard.push((lost, datagram.to_vec()));
            }
            if lost {
                continue;
            }
            let Some(leaves) = self.take(now, to, datagram.len() + HEADS) else {
                self.met.overflowed += 1;
                continue;
            };
            let mut at = leaves + self.delay + Span(self.rng.below(self.jitter.0 + 1));
            if self.late_per_mille > 0 && self.rng.chance(self.late_per_mille) {
                self.met.late += 1;
                at = at + self.late_by;
            }
            self.count += 1;
            self.flying.insert((at, self.count), (to, ends.0, ends.1, datagram.to_vec()));
        }
    }

    fn is_lost(&mut self, now: Moment, to: usize, bytes: usize) -> bool {
        if self.blocked[1 - to] {
            self.met.blocked += 1;
            return true;
        }
        if bytes + HEADS > self.mtu {
            self.met.cut += 1;
            return true;
        }
        if self.is_over(now, to, bytes) {
            return true;
        }
        if self.bursts_per_mille > 0 && self.rng.chance(self.bursts_per_mille) {
            self.burst_until[to] = now + Span(self.rng.below(self.burst_max.0 + 1));
        }
        if now < self.burst_until[to] {
            self.met.in_bursts += 1;
            return true;
        }
        let lost = self.rng.chance(self.lost_per_mille);
        self.met.lost += u64::from(lost);
        lost
    }

    /// The first datagram that is there by now, and what comes with it: all of them, and how long
    /// they are.
    fn arrived(&mut self, now: Moment) -> Option<(Flying, usize)> {
        let first = self.flying.first_entry().filter(|first| first.key().0 <= now)?;
        let mut train = first.remove();
        let (datagram_bytes, mut whole) = (train.3.len().max(1), true);
        while self.merges && whole {
            let Some(next) = self.flying.first_entry() else { break };
            let (to, from, at, datagram) = next.get();
            let same = (*to, *from, *at) == (train.0, train.1, train.2) && !datagram.is_empty();
            let fits = train.3.len() + datagram.len() <= TRAIN_BYTES_MAX;
            if next.key().0 > now || !same || !fits || datagram.len() > datagram_bytes {
                break;
            }
            whole = datagram.len() == datagram_bytes;
            train.3.extend(next.remove().3);
            self.met.merged += 1;
        }
        Some((train, datagram_bytes))
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
            let Some(((to, from, at, train), bytes)) = air.arrived(now) else { return };
            // What a socket has no room for while nobody reads.
            if frozen == Some(to) {
                continue;
            }
            self.deliver_train(to, (from, at), (train, bytes));
        }
    }

    /// A datagram comes to a site.
    pub(crate) fn deliver(&mut self, to: usize, ends: (SocketAddr, SocketAddr), datagram: Vec<u8>) {
        let bytes = datagram.len().max(1);
        self.deliver_train(to, ends, (datagram, bytes));
    }

    /// Datagrams of so many bytes come to a site at once; the last one may be shorter.
    pub(crate) fn deliver_train(
        &mut self,
        to: usize,
        (from, at): (SocketAddr, SocketAddr),
        (mut train, datagram_bytes): (Vec<u8>, usize),
    ) {
        let (now, shards) = (self.now, self.sites[to].len());
        let air = self.air();
        let shard = match to {
            // Nobody is where the near site was before.
            0 if ![Some(air.near), air.twin].contains(&ipv4(at)) => {
                air.astray += train.len() as u64;
                air.strays.iter_mut().for_each(|kept| kept.push((train.clone(), datagram_bytes)));
                return;
            }
            0 => usize::from(at.port()) - 1000,
            _ => (usize::from(from.port()) + air.turn) % shards,
        };
        air.came[to] += train.len().div_ceil(datagram_bytes) as u64;
        air.bytes[to] += train.len() as u64;
        let socket = if to == 1 { LISTENS } else { DIALS };
        let route = Route { socket, to: from, from: Some(at.ip()) };
        let arrived = Arrived { route, listening: to == 1, datagram_bytes };
        let Shard { agent, desk } = &mut self.sites[to][shard];
        agent.datagrams(now, &arrived, &mut train, desk);
        self.collect_datagrams(to, shard);
    }
}
