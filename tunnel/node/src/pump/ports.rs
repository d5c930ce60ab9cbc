//! The UDP sockets of a shard, by numbers that mean the same on every shard: those at which this
//! side listens, one for each of its addresses, and those by which it dials.
//!
//! What always holds:
//! - S1  A socket that dials is opened when a session first wants one, and stays: its port is what
//!   far sides know the session's way by.
//! - S2  Datagrams that are for another shard's session wait for it up to [`GIVEN_MAX`] bytes a
//!   shard; more are dropped, and counted.
//!
//! Bounds: two sockets for each address of the file and two that dial; [`WAITING_MAX`] bytes that
//! were sealed and that the host has not taken, for each.
//! Not here: what datagrams say (`tunnel/proto`), how the kernel cuts and joins them
//! (`shards/runtime`).
//! Tests: below; `tools/ringway/tests/real/tunnel/packets.rs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use ringway_core::{ConnId, Moment, ShardId};
use ringway_shards::{
    DatagramSocket, Datagrams, Errno, Io, SocketId, SocketMemory, Towards, Unsent,
};
use ringway_tunnel_proto::limits::DATAGRAM_BYTES_MIN;
use ringway_tunnel_proto::{Arrived, Route};

use super::Pump;
use super::desk::Desk;
use super::own::Own;

/// What is said to a shard by mail, before anything else: look into the box, or take datagrams.
pub(super) const MAIL_DATAGRAMS: u8 = 2;
/// The numbers of the sockets that dial: of IPv4, and of IPv6.
const DIALS: [u16; 2] = [0x100, 0x101];
/// Bytes that wait in one socket for the host: more is no use, since what waits gets old.
const WAITING_MAX: usize = 1 << 20;
/// Bytes of datagrams on their way from all shards to one.
pub(crate) const GIVEN_MAX: usize = 1 << 20;

/// See the module.
#[derive(Default)]
pub(super) struct Ports {
    listening: Vec<SocketId>,
    dialling: [Option<SocketId>; 2],
    /// It was said that datagrams are too long for some way.
    said_too_long: bool,
}

impl Ports {
    fn socket(&self, number: u16) -> Option<SocketId> {
        match DIALS.iter().position(|dials| *dials == number) {
            Some(at) => self.dialling[at],
            None => self.listening.get(usize::from(number)).copied(),
        }
    }

    fn number(&self, socket: SocketId) -> Option<u16> {
        let listening = self.listening.iter().position(|one| *one == socket);
        let dialling = || self.dialling.iter().position(|one| *one == Some(socket));
        listening.map(|at| at as u16).or_else(|| dialling().map(|at| DIALS[at]))
    }

    /// The number of the socket by which this address is dialled.
    fn dialling(&mut self, address: SocketAddr, io: &mut Io<'_>) -> Option<u16> {
        let (at, any) = match address {
            SocketAddr::V4(_) => (0, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            SocketAddr::V6(_) => (1, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        };
        if self.dialling[at].is_none() {
            let opened = io.open_datagrams(SocketAddr::new(any, 0), SocketMemory::default());
            match opened {
                Ok(socket) => self.dialling[at] = Some(socket),
                Err(why) => tracing::warn!("no UDP socket for {address} can be had: {why:?}"),
            }
        }
        self.dialling[at].map(|_| DIALS[at])
    }

    /// These are the sockets at which this side listens from now on.
    pub(super) fn listen(&mut self, sockets: Vec<DatagramSocket>, io: &mut Io<'_>) {
        for socket in self.listening.drain(..) {
            io.close_datagrams(socket);
        }
        for socket in sockets {
            match io.add_datagrams(socket) {
                Ok(socket) => self.listening.push(socket),
                Err(why) => tracing::warn!("a UDP socket cannot be used: {why:?}"),
            }
        }
    }
}

/// Bytes of datagrams that are on their way to each shard.
#[derive(Debug)]
pub(crate) struct OnTheirWay(Vec<AtomicUsize>);

impl OnTheirWay {
    pub(crate) fn new(shards: usize) -> OnTheirWay {
        OnTheirWay((0..shards).map(|_| AtomicUsize::new(0)).collect())
    }

    /// So many more are to go to a shard. Whether there is room for them.
    fn put(&self, to: ShardId, bytes: usize) -> bool {
        let before = self.0[to.index()].fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > GIVEN_MAX {
            self.0[to.index()].fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// So many have come.
    fn take(&self, to: ShardId, bytes: usize) {
        self.0[to.index()].fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Desk<'_, '_> {
    /// The way for packets to where this connection leads.
    pub(super) fn route_beside(&mut self, conn: ConnId) -> Option<Route> {
        let to = self.own.carrier_peer(conn)?;
        let socket = self.own.ports.dialling(to, self.io)?;
        Some(Route { socket, to, from: None })
    }

    /// Where to append a train.
    pub(super) fn train_towards(&mut self, route: &Route, bytes: usize) -> Option<&mut Vec<u8>> {
        let socket = self.own.ports.socket(route.socket)?;
        if self.io.datagrams_backlog(socket) >= WAITING_MAX {
            self.io.await_datagrams(socket, WAITING_MAX / 2);
            return None;
        }
        let segment_bytes = u16::try_from(bytes).ok()?;
        let towards = Towards { from: route.from, ..Towards::new(route.to, segment_bytes) };
        self.io.train(socket, towards)
    }

    /// Gives datagrams to the shard whose session they are for.
    pub(super) fn forward_datagrams(&mut self, shard: u8, arrived: &Arrived, datagrams: &[u8]) {
        let mail = Passed::to_mail(arrived, datagrams);
        if self.own.shared.given.put(ShardId(shard), mail.len()) {
            self.io.post(ShardId(shard), &mail);
        } else {
            self.own.shared.metrics.datagrams_not_given.add(1);
        }
    }
}

impl Pump {
    /// Datagrams came to one of our sockets.
    pub(super) fn train_came(
        &mut self,
        now: Moment,
        socket: SocketId,
        train: Datagrams<'_>,
        io: &mut Io<'_>,
    ) {
        let Some(number) = self.own.ports.number(socket) else { return };
        let arrived = Arrived {
            route: Route { socket: number, to: train.from, from: train.to },
            listening: !DIALS.contains(&number),
            datagram_bytes: train.segment_bytes,
        };
        let dropped = u64::from(train.kernel_drops);
        self.with_agent(now, io, |agent, desk| {
            agent.datagrams_dropped(number, dropped);
            agent.datagrams(now, &arrived, train.bytes, desk);
        });
    }

    /// Another shard gives datagrams.
    pub(super) fn datagrams_given(&mut self, now: Moment, mail: &[u8], io: &mut Io<'_>) {
        self.own.shared.given.take(self.own.me, mail.len());
        let Some((arrived, datagrams)) = Passed::from_mail(mail) else { return };
        let mut datagrams = datagrams.to_vec();
        self.with_agent(now, io, |agent, desk| {
            agent.datagrams(now, &arrived, &mut datagrams, desk);
        });
    }

    /// Adds to the counters what came to nothing since the last turn.
    pub(super) fn count_datagrams(&mut self) {
        let counts = self.agent.datagram_counts();
        let before = std::mem::replace(&mut self.datagram_counts, counts);
        let metrics = &self.own.shared.metrics;
        metrics.datagrams_strange.add(counts.strange - before.strange);
        metrics.datagrams_forged.add(counts.forged - before.forged);
        metrics.datagrams_replayed.add(counts.replayed - before.replayed);
        metrics.datagrams_elsewhere.add(counts.elsewhere - before.elsewhere);
    }

    /// Datagrams did not leave the host.
    pub(super) fn datagrams_unsent(&mut self, now: Moment, what: Unsent) {
        if what.why != Errno::TOO_LONG {
            return;
        }
        self.agent.datagrams_refused(now, what.to, what.segment_bytes);
        // A longer one was a question.
        let least = what.segment_bytes <= DATAGRAM_BYTES_MIN;
        if least && !std::mem::replace(&mut self.own.ports.said_too_long, true) {
            tracing::warn!(
                to = %what.to,
                bytes = what.segment_bytes,
                "datagrams are longer than the way to the peer allows: its session goes by TCP"
            );
        }
    }
}

impl Own {
    /// Peers have datagrams no more, or others: what was said of their ways may be said again.
    pub(super) fn reread_ports(&mut self) {
        self.ports.said_too_long = false;
    }
}

/// Datagrams as they go from shard to shard: how they came, then they themselves.
struct Passed;

/// Bytes before the datagrams: a tag, the socket, bytes of each, two addresses and a port.
const GIFT_HEAD: usize = 1 + 2 + 4 + 17 + 2 + 17;

impl Passed {
    fn to_mail(arrived: &Arrived, datagrams: &[u8]) -> Vec<u8> {
        let Route { socket, to, from } = arrived.route;
        let mut mail = Vec::with_capacity(GIFT_HEAD + datagrams.len());
        mail.push(MAIL_DATAGRAMS);
        mail.extend(socket.to_le_bytes());
        mail.extend((arrived.datagram_bytes as u32).to_le_bytes());
        put_ip(&mut mail, Some(to.ip()));
        mail.extend(to.port().to_le_bytes());
        put_ip(&mut mail, from);
        mail.extend_from_slice(datagrams);
        mail
    }

    fn from_mail(mail: &[u8]) -> Option<(Arrived, &[u8])> {
        let (head, datagrams) = mail.split_first_chunk::<GIFT_HEAD>()?;
        let socket = u16::from_le_bytes(*head[1..].first_chunk()?);
        let datagram_bytes = u32::from_le_bytes(*head[3..].first_chunk()?) as usize;
        let port = u16::from_le_bytes(*head[24..].first_chunk()?);
        let to = SocketAddr::new(ip(&head[7..24])?, port);
        let route = Route { socket, to, from: ip(&head[26..]) };
        // Sockets that dial are for their own shard's sessions.
        Some((Arrived { route, listening: true, datagram_bytes }, datagrams))
    }
}

fn put_ip(out: &mut Vec<u8>, ip: Option<IpAddr>) {
    let (kind, bytes) = match ip {
        None => (0, [0; 16]),
        Some(IpAddr::V4(ip)) => (4, ip.to_ipv6_mapped().octets()),
        Some(IpAddr::V6(ip)) => (6, ip.octets()),
    };
    out.push(kind);
    out.extend(bytes);
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let (kind, rest) = bytes.split_first()?;
    let ip = Ipv6Addr::from(*rest.first_chunk::<16>()?);
    match kind {
        4 => ip.to_ipv4_mapped().map(IpAddr::V4),
        6 => Some(IpAddr::V6(ip)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shard gives is what the other one gets, whatever the addresses are.
    #[test]
    fn datagrams_are_given_as_they_came() {
        let v4 = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
        let v6 = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));
        for (to, from) in [(v4, None), (v4, Some(v4)), (v6, Some(v6)), (v6, None)] {
            let route = Route { socket: 3, to: SocketAddr::new(to, 65_535), from };
            let arrived = Arrived { route, listening: true, datagram_bytes: 1352 };
            let mail = Passed::to_mail(&arrived, b"datagrams");
            assert_eq!(Passed::from_mail(&mail), Some((arrived, &b"datagrams"[..])));
            assert_eq!(Passed::from_mail(&mail[..GIFT_HEAD - 1]), None);
        }
    }

    /// A shard that does not come to them is given no more than there is room for.
    #[test]
    fn what_is_given_is_bounded() {
        let given = OnTheirWay::new(2);
        let one = GIVEN_MAX / 3;
        let puts: Vec<bool> = (0..4).map(|_| given.put(ShardId(1), one)).collect();
        assert_eq!(puts, [true, true, true, false]);
        assert!(given.put(ShardId(0), one), "that is another one");
        given.take(ShardId(1), one);
        assert!(given.put(ShardId(1), one) && !given.put(ShardId(1), one));
    }
}
