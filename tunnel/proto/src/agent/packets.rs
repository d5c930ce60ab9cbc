//! A session's carriers of packets: how they begin, which way they go, and what goes by them.
//!
//! ```text
//! near: session up, a way --> half of it --first packet--> far: opens it --> its half --report-->
//! near, far: silent --suspect, asked less and less--> a report --> used again
//! ```
//!
//! They begin without a word: the near side makes its half when the session can be used, and the
//! far side makes its own when a packet has opened under keys that follow from the session and from
//! the slot in the packet's header. They are given up when either side says so, as who stops does,
//! and by the near side when nothing has come for long: the next one is in another slot. Carriers
//! of records stand by: they say what keys need, and take over while no packets get through.
//!
//! What always holds:
//! - P1  Nothing is kept, answered or moved before a packet's tag has verified: what came to
//!   nothing is counted.
//! - P2  Each slot is one carrier's for the life of its session, at both ends. So the far side
//!   takes slots in their order alone.
//! - P3  The way to the near side is where the newest packet of its came from, once somebody there
//!   has answered (RFC 9000, section 9.3): until then one question at a time goes there, and all
//!   else the way that was good before. What is older moves nothing. The near side sends to where
//!   it dialled.
//! - P4  While packets get through, streams go by them alone; or, where those are held back
//!   (`detour.rs`), by records alone.
//! - P5  A packet for a session of another shard is given to that one, once.
//!
//! Bounds: [`PACKET_CARRIERS_MAX`] carriers of a session; constant work a packet, and a search of
//! log n for its session.
//! Not here: numbers, loss and rates (`session/packets.rs`, `path`), keys (`packet_link.rs`),
//! sockets.
//! Tests: `tests/packets.rs`, stories and seeds in virtual time.

use core::net::SocketAddr;

use ringway_crypto::{
    DATAGRAM_HEADER_BYTES, DATAGRAM_OVERHEAD, DatagramHeader, Dropped as Refusal, HeaderKey,
    NetworkKey, TAG_BYTES,
};

use super::bond::{Door, Later, seal_own};
use super::*;
use crate::limits::{PACKET_CARRIERS_MAX, train_datagrams};
use crate::packet_link::{Came, PacketLink, PacketPlace, SLOTS};
use crate::session::Share;

/// Bytes of heads that a datagram has on the path, as both ends count them: those of IPv4 and UDP.
const HEADS: usize = 28;
/// When a way is looked for again, if there was none.
const ROUTE_AGAIN: Span = Span::from_s(10);
/// A carrier that has been silent for so long is given up for another one, in the next slot: the
/// far side may have given it up, and its word of that been lost. Later ones get twice as long
/// each, up to the longest: slots last for weeks of that.
pub(super) const ANEW_FIRST: Span = Span::from_s(20);
const ANEW_MAX: Span = Span::from_s(640);
/// Whether somebody answers at another address is asked no sooner than after this again, or after
/// two round trips.
const ASK_WAY_AGAIN: Span = Span::from_ms(100);
/// The way before the present one is known for so long: who is heard from two addresses in turn is
/// answered at either, and nothing that was measured is forgotten.
const WAY_KNOWN: Span = Span::from_s(10);
/// How often it is said that nothing more comes: each may be lost.
const FAREWELLS: usize = 3;
/// A session's number in headers.
const SESSION_MASK: u64 = (1 << 48) - 1;

/// The way of a carrier's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The driver's number of the socket. Of those that a far side listens on, all shards have one
    /// under the same number.
    pub socket: u16,
    /// The other end.
    pub to: SocketAddr,
    /// Which of our addresses the other end knows, where that is known.
    pub from: Option<IpAddr>,
}

/// How datagrams came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The way back.
    pub route: Route,
    /// By a socket that we listen on; otherwise, by one from which we send to those that we dial.
    pub listening: bool,
    /// Bytes of each but the last, which may have fewer. Never zero.
    pub datagram_bytes: usize,
}

/// What became of datagrams that came to nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramCounts {
    /// They belong to no session that is known here.
    pub strange: u64,
    /// They did not verify.
    pub forged: u64,
    /// They came before, or far too late.
    pub replayed: u64,
    /// They came to another shard than their session's.
    pub elsewhere: u64,
}

/// Headers under one key of the network, in both directions.
pub(super) struct Headers {
    key: NetworkKey,
    to_responder: HeaderKey,
    to_initiator: HeaderKey,
}

impl Headers {
    fn new(key: &NetworkKey) -> Self {
        Self {
            key: key.clone(),
            to_responder: HeaderKey::new(key, Direction::ToResponder),
            to_initiator: HeaderKey::new(key, Direction::ToInitiator),
        }
    }

    fn of(&self, direction: Direction) -> &HeaderKey {
        match direction {
            Direction::ToResponder => &self.to_responder,
            Direction::ToInitiator => &self.to_initiator,
        }
    }
}

/// A carrier of packets of a session.
pub(super) struct PacketMember {
    /// Its place among the session's carriers.
    pub(super) place: CarrierSlot,
    pub(super) link: PacketLink,
    pub(super) route: Route,
    /// The way before that, and when it was left.
    before: Option<(Route, Moment)>,
    /// Where newer packets came from, and nobody has answered yet.
    other: Option<OtherWay>,
    /// Questions that went other ways.
    ways_asked: u32,
    /// The key of the network that hides its headers.
    network: NetworkKey,
    /// Bytes of datagrams that were sealed for it, and that came by it.
    pub(super) meter: Meter,
    /// The host takes no more datagrams for now.
    pub(super) held_up: bool,
    /// What the host had dropped at the socket by which packets came when the first came by it:
    /// socket and number.
    dropped_before: Option<(u16, u64)>,
}

/// An address that a peer's packets seem to come from.
#[derive(Clone, Copy)]
struct OtherWay {
    route: Route,
    /// The first question that went there, and when the last did.
    first: u32,
    asked_at: Moment,
}

/// Whose a datagram is.
enum Found {
    /// A session's of this shard; its header, and which of the network's keys hid it.
    Here(BondId, DatagramHeader, usize),
    /// Perhaps one's of this shard.
    Elsewhere(u8),
    Nobody,
}

impl Bond {
    /// Whether packets get through.
    pub(super) fn has_packets(&self) -> bool {
        let usable =
            |member: &PacketMember| self.flows.carrier(member.place).is_some_and(|one| one.usable);
        self.packets.iter().any(usable)
    }

    /// Tells the driver whether packets get through, if it believes otherwise.
    pub(super) fn tell_packets(&mut self, host: &mut impl Host) {
        let works = self.has_packets();
        if core::mem::replace(&mut self.told_packets, works) != works {
            host.note(None, Note::Packets(self.peer, works));
        }
    }

    /// A carrier of packets is one of the session's now. There are few at once: the first goes for
    /// one too many.
    fn enlist_packets(
        &mut self,
        now: Moment,
        (link, route): (PacketLink, Route),
        network: &NetworkKey,
    ) {
        if self.packets.len() >= PACKET_CARRIERS_MAX {
            let first = self.packets.remove(0);
            self.discharge_packets(now, &first);
        }
        let around = (DATAGRAM_OVERHEAD + HEADS) as u32;
        let place = self.flows.packets_on_trial(now, HEADS as u32, around);
        self.next_slot = link.slot() + 1;
        let (network, meter) = (network.clone(), Meter::new(now));
        let (held_up, dropped_before) = (false, None);
        self.packets.push(PacketMember {
            place,
            link,
            route,
            before: None,
            other: None,
            ways_asked: 0,
            network,
            meter,
            held_up,
            dropped_before,
        });
    }

    fn discharge_packets(&mut self, now: Moment, member: &PacketMember) {
        if let Some(report) = self.flows.carrier(member.place) {
            self.resent_before += report.resent;
        }
        self.flows.carrier_down(now, member.place);
    }

    /// The connection of a carrier of records that works, if there is one.
    fn beside(&self) -> Option<ConnId> {
        let usable = |slot| self.flows.carrier(slot).is_some_and(|report| report.usable);
        self.slots().find(|(slot, _)| usable(*slot)).map(|(_, member)| member.conn)
    }

    /// Gives its carriers of packets up, at this end.
    fn drop_packets(&mut self, now: Moment) {
        for member in core::mem::take(&mut self.packets) {
            self.discharge_packets(now, &member);
        }
    }
}

impl Agent {
    /// The keys of the network have changed, perhaps.
    pub(super) fn set_headers(&mut self) {
        let same = self.headers.iter().map(|headers| &headers.key).eq(&self.listener.networks);
        if !same {
            self.headers = self.listener.networks.iter().map(Headers::new).collect();
        }
    }

    /// What became of datagrams that came to nothing, since the beginning.
    pub fn datagram_counts(&self) -> DatagramCounts {
        self.counts
    }

    // ---- Where there are any.

    /// Whether a session should have a carrier of packets and has none, or none that works.
    pub(super) fn wants_route(&self, bond: &Bond) -> bool {
        self.may_have_packets(bond)
            && bond.role == Role::Initiator
            && !bond.has_packets()
            && bond.next_slot < SLOTS
            && bond.usable() > 0
            && !self.stopping
    }

    fn may_have_packets(&self, bond: &Bond) -> bool {
        self.peer(bond.peer).is_some_and(|peer| peer.packets)
    }

    /// Begins, ends and leads carriers of packets.
    pub(super) fn look_at_packets(
        &mut self,
        now: Moment,
        id: BondId,
        bond: &mut Bond,
        host: &mut impl Host,
    ) {
        if !bond.packets.is_empty() && !self.may_have_packets(bond) {
            self.leave_packets(now, bond, host);
        }
        if bond.role != Role::Initiator {
            return;
        }
        if bond.has_packets() {
            (bond.route_at, bond.anew_after) = (now + ANEW_FIRST, ANEW_FIRST);
        } else if self.wants_route(bond) && bond.route_at <= now {
            bond.route_at = now + ROUTE_AGAIN;
            self.begin_packets(now, id, bond, host);
        }
        let network = self.listener.networks.first();
        for at in 0..bond.packets.len() {
            let beside = bond.beside();
            let member = &mut bond.packets[at];
            if let Some(network) = network.filter(|network| **network != member.network) {
                member.network = network.clone();
                member.link.hide_under(self.headers[0].of(Direction::ToResponder).clone());
            }
            let suspect = bond.flows.carrier(member.place).is_some_and(|one| one.suspect);
            let beside = beside.filter(|_| suspect);
            // The peer may be elsewhere by now: its records are.
            let route = beside.and_then(|conn| host.route(bond.peer, conn));
            if let Some(route) = route.filter(|route| *route != member.route) {
                member.route = route;
                bond.flows.packets_moved(now, member.place);
            }
        }
    }

    /// Who stops and has nothing more to say says so by packets, too: nothing else would tell.
    pub(super) fn part_with_packets(&mut self, now: Moment, bond: &mut Bond, host: &mut impl Host) {
        if self.stopping && !bond.packets.is_empty() && bond.flows.is_quiet() {
            self.leave_packets(now, bond, host);
        }
    }

    /// Says that nothing more comes by packets, and gives them up.
    fn leave_packets(&mut self, now: Moment, bond: &mut Bond, host: &mut impl Host) {
        if !self.sabotage.breaks(Rule::FarewellSaid) {
            let Bond { flows, packets, .. } = &mut *bond;
            for member in packets {
                for _ in 0..FAREWELLS {
                    member.take_leave(now, flows, host);
                }
            }
        }
        self.forget_header(bond);
        bond.drop_packets(now);
        bond.route_at = now;
    }

    /// Makes our half of a carrier of packets.
    fn begin_packets(&mut self, now: Moment, id: BondId, bond: &mut Bond, host: &mut impl Host) {
        let route = bond.beside().and_then(|conn| host.route(bond.peer, conn));
        let (Some(route), Some(known)) = (route, &bond.known) else { return };
        let (Some(network), Some(headers)) = (self.listener.networks.first(), self.headers.first())
        else {
            return;
        };
        let session = known.id.0 & SESSION_MASK;
        // Another peer's has the same number: by chance never, so somebody wants it to.
        if *self.by_header.entry(session).or_insert(id) != id {
            return;
        }
        let place = PacketPlace {
            session,
            slot: bond.next_slot,
            out: direction(bond.role),
            suite: known.suite,
            backend: self.settings.backend(known.suite),
        };
        let header = headers.of(place.out).clone();
        let link = PacketLink::new(place, header, &known.epochs);
        bond.drop_packets(now);
        bond.enlist_packets(now, (link, route), network);
        bond.route_at = now + bond.anew_after;
        bond.anew_after = Span(bond.anew_after.0 * 2).min(ANEW_MAX);
    }

    /// A session has no carriers of packets any more, as far as headers go.
    pub(super) fn forget_header(&mut self, bond: &Bond) {
        let Some(known) = bond.known.as_ref().filter(|_| bond.role == Role::Initiator) else {
            return;
        };
        let session = known.id.0 & SESSION_MASK;
        // While it is looked at it is not in its place.
        let its = |id: &BondId| self.get(*id).is_none();
        if !bond.packets.is_empty() && self.by_header.get(&session).is_some_and(its) {
            self.by_header.remove(&session);
        }
    }

    // ---- What is sent.

    /// Sends what goes by packets now. Returns whether some have to wait for the host.
    pub(super) fn send_packets(
        &mut self,
        now: Moment,
        id: BondId,
        bond: &mut Bond,
        host: &mut impl Host,
    ) -> bool {
        let Bond { flows, known: Some(known), packets, .. } = bond else { return false };
        let mut later = Later::default();
        let (mut held_up, mut dry) = (false, false);
        for member in packets {
            member.held_up = false;
            while flows.wants_packet(now, member.place) && member.link.is_ready(&known.epochs) {
                let question = flows.question(now, member.place);
                let bytes = question.unwrap_or_else(|| flows.datagram_bytes(member.place));
                let Some(train) = host.train(&member.route, bytes) else {
                    member.held_up = true;
                    break;
                };
                if question.is_some() {
                    member.ask(now, flows, (train, bytes));
                } else if !member.fill_train(now, flows, (train, bytes), &mut later) {
                    break;
                }
            }
            held_up |= member.held_up;
            dry |= flows.note_packets_idle(now, member.place);
        }
        for event in later.0 {
            host.flow(id, event);
        }
        bond.path_bound = !dry && !held_up;
        if held_up && !self.held_up.contains(&id) {
            self.held_up.push(id);
        }
        held_up
    }

    /// Datagrams can be sent again.
    pub fn datagrams_drained(&mut self) {
        for bond in core::mem::take(&mut self.held_up) {
            self.touch(bond);
        }
    }

    /// The host has dropped so many datagrams more at a socket because we did not read them in
    /// time. Whose they were nobody knows: all that come by it hear of them.
    pub fn datagrams_dropped(&mut self, socket: u16, many: u64) {
        *self.dropped.entry(socket).or_default() += many;
    }

    /// The kernel has refused datagrams of so many bytes on their way to `to`.
    pub fn datagrams_refused(&mut self, now: Moment, to: SocketAddr, bytes: usize) {
        for at in 0..self.bonds.len() {
            let Some(bond) = self.bonds[at].as_deref_mut() else { continue };
            let Bond { flows, packets, .. } = bond;
            let mut touched = false;
            for member in packets.iter().filter(|member| member.route.to == to) {
                flows.datagrams_refused(now, member.place, bytes);
                touched = true;
            }
            if touched {
                self.touch(BondId(at as u32));
            }
        }
    }

    /// Puts some bulk on its way. Returns whether there may be more.
    pub(super) fn send_bulk_once(
        &mut self,
        now: Moment,
        id: BondId,
        bond: &mut Bond,
        host: &mut impl Host,
    ) -> bool {
        if bond.has_packets() && !bond.goes_by_records(self.sabotage) {
            self.send_packets(now, id, bond, host);
            return false;
        }
        self.send_one(now, id, bond, host)
    }

    /// Says what is to be said of new keys: by records, which are not lost, where there are any.
    pub(super) fn say_keys(&mut self, now: Moment, bond: &mut Bond, host: &mut impl Host) {
        if !bond.has_keys_to_say(now) {
            return;
        }
        match self.best(bond, (None, Share::Little), None, host) {
            Some((slot, conn)) => {
                let carrier = self.carriers[conn.index as usize].as_mut();
                let carrier = carrier.expect("members have one");
                seal_own(now, (slot, true), bond, carrier, host);
            }
            None => {
                let Bond { flows, known: Some(known), .. } = bond else { return };
                if let Some(exchange) = known.epochs.to_say(now) {
                    flows.say_keys(exchange);
                }
            }
        }
    }

    // ---- What comes.

    /// Datagrams came.
    pub fn datagrams(
        &mut self,
        now: Moment,
        arrived: &Arrived,
        bytes: &mut [u8],
        host: &mut impl Host,
    ) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let len = arrived.datagram_bytes.clamp(1, rest.len());
            match self.whose(arrived.listening, &rest[..len]) {
                Found::Here(id, header, network) => {
                    let (datagram, more) = rest.split_at_mut(len);
                    rest = more;
                    self.packet(now, (id, network), (arrived, header), datagram, host);
                }
                Found::Elsewhere(shard) => {
                    let run = self.run_for(shard, arrived, rest);
                    let (datagrams, more) = rest.split_at_mut(run);
                    rest = more;
                    self.counts.elsewhere += datagrams.len().div_ceil(len) as u64;
                    if !self.sabotage.breaks(Rule::PacketsHandedOver) {
                        host.forward(shard, arrived, datagrams);
                    }
                }
                Found::Nobody => {
                    self.counts.strange += 1;
                    rest = &mut rest[len..];
                }
            }
        }
    }

    /// Bytes from the front that are all for one shard.
    fn run_for(&self, shard: u8, arrived: &Arrived, bytes: &[u8]) -> usize {
        let same = |datagram: &&[u8]| {
            let whose = self.whose(arrived.listening, datagram);
            matches!(whose, Found::Elsewhere(to) if to == shard)
        };
        bytes.chunks(arrived.datagram_bytes.max(1)).take_while(same).map(<[u8]>::len).sum()
    }

    /// Whose a datagram is, as its header says.
    fn whose(&self, listening: bool, datagram: &[u8]) -> Found {
        let towards = if listening { Direction::ToResponder } else { Direction::ToInitiator };
        let mut found = Found::Nobody;
        for (network, headers) in self.headers.iter().enumerate() {
            let Some(header) = headers.of(towards).read(datagram) else { break };
            let bond = if listening {
                self.by_session.get(&SessionId(header.session))
            } else {
                self.by_header.get(&header.session)
            };
            if let Some(bond) = bond {
                return Found::Here(*bond, header, network);
            }
            let owner = (header.session & 0xff) as u8;
            // What is chance says anything.
            let elsewhere = owner != self.settings.shard && owner < self.settings.shards;
            if listening && elsewhere && header.flags <= 1 {
                found = Found::Elsewhere(owner);
            }
        }
        found
    }

    /// A datagram came for a session of this shard, or so it says.
    fn packet(
        &mut self,
        now: Moment,
        (id, network): (BondId, usize),
        (arrived, header): (&Arrived, DatagramHeader),
        datagram: &mut [u8],
        host: &mut impl Host,
    ) {
        let Some(mut bond) = self.bonds.get_mut(id.0 as usize).and_then(Option::take) else {
            return;
        };
        let peer = bond.peer;
        self.memory.lend(peer, &mut bond.flows.account);
        let what = (arrived, header, network);
        let read = self.read_packet(now, (id, &mut bond), what, datagram, host);
        self.memory.settle(peer, &mut bond.flows.account);
        self.bonds[id.0 as usize] = Some(bond);
        self.touch(id);
        if read.is_err() {
            host.note(None, Note::Broken(peer));
            self.end(now, id, ResetCode::Protocol, host);
        }
    }

    /// Opens a packet and does what it says. What does not open is counted (P1).
    fn read_packet(
        &mut self,
        now: Moment,
        (id, bond): (BondId, &mut Bond),
        (arrived, header, network): (&Arrived, DatagramHeader, usize),
        datagram: &mut [u8],
        host: &mut impl Host,
    ) -> Result<(), Violation> {
        let bytes = datagram.len();
        let found = bond.packets.iter().position(|member| member.link.slot() == header.slot);
        let mut fresh = found.is_none().then(|| self.half(bond, header.slot, network)).flatten();
        let Some(known) = bond.known.as_mut() else { return Ok(()) };
        let link = found.map(|at| &mut bond.packets[at].link).or(fresh.as_mut());
        let Some(link) = link else {
            self.counts.strange += 1;
            return Ok(());
        };
        let Came { opened, newer } = match link.open(now, header, datagram, &mut known.epochs) {
            Ok(came) => came,
            Err(Refusal::Forged) => {
                self.counts.forged += 1;
                return Ok(());
            }
            Err(Refusal::Replayed(_)) => {
                self.counts.replayed += 1;
                return Ok(());
            }
        };
        let network = &self.listener.networks[network];
        if let Some(link) = fresh {
            bond.enlist_packets(now, (link, arrived.route), network);
        }
        let Bond { flows, known: Some(known), packets, role, .. } = bond else { return Ok(()) };
        let member = match found {
            Some(at) => &mut packets[at],
            None => packets.last_mut().expect("it was just put there"),
        };
        member.meter.add(now, CAME, bytes as u64);
        if *role == Role::Responder {
            let newest = newer || self.sabotage.breaks(Rule::NewestMoves);
            let moves = newest && !self.sabotage.breaks(Rule::PacketsFollow);
            let elsewhere = moves && member.route != arrived.route;
            if elsewhere && member.link.is_ready(&known.epochs) {
                member.heard_from(now, arrived.route, (flows, host));
            }
            if newer && member.network != *network {
                member.network = network.clone();
                let header = HeaderKey::new(network, Direction::ToInitiator);
                member.link.hide_under(header);
            }
        }
        flows.note_dropped(member.place, member.dropped(arrived.route.socket, &self.dropped));
        let mut door = Door::new(host, id);
        let packet = (opened.number, (bytes + HEADS) as u64);
        flows.packet(now, member.place, packet, opened.text, &mut door)?;
        member.take_other_way(now, flows);
        if door.left {
            let at = found.unwrap_or(packets.len() - 1);
            self.packets_left(now, bond, at);
            return Ok(());
        }
        if door.keys.is_some() {
            // Each packet's header says what its keys are.
            return Err(Violation::Malformed);
        }
        match door.exchange {
            Some(exchange) => known.epochs.heard(now, exchange, &mut self.entropy),
            None => Ok(()),
        }
    }

    /// The other side sends nothing more by a carrier of packets. Its slot is used up; another one
    /// is begun when it is time to look for a way.
    fn packets_left(&mut self, now: Moment, bond: &mut Bond, at: usize) {
        if bond.packets.len() == 1 {
            self.forget_header(bond);
        }
        let member = bond.packets.remove(at);
        bond.discharge_packets(now, &member);
        bond.route_at = now + ROUTE_AGAIN;
    }

    /// Our half of a carrier that a packet speaks of, if there may be one.
    fn half(&self, bond: &Bond, slot: u16, network: usize) -> Option<PacketLink> {
        let begins = bond.role == Role::Responder && slot >= bond.next_slot;
        if !begins || !self.may_have_packets(bond) {
            return None;
        }
        let known = bond.known.as_ref()?;
        let place = PacketPlace {
            session: known.id.0 & SESSION_MASK,
            slot,
            out: direction(bond.role),
            suite: known.suite,
            backend: self.settings.backend(known.suite),
        };
        let header = self.headers[network].of(place.out).clone();
        Some(PacketLink::new(place, header, &known.epochs))
    }
}

impl PacketMember {
    /// A packet that is newer than all before came from elsewhere (P3).
    fn heard_from(
        &mut self,
        now: Moment,
        route: Route,
        (flows, host): (&mut Session, &mut impl Host),
    ) {
        let sabotage = flows.sabotage;
        let known = |(before, left): (Route, Moment)| {
            before == route && now.since(left) < WAY_KNOWN && !sabotage.breaks(Rule::WaysAreKnown)
        };
        if self.before.is_some_and(known) {
            self.before = Some((self.route, now));
            self.route = route;
            return;
        }
        if sabotage.breaks(Rule::WaysAnswer) {
            self.route = route;
            return flows.packets_moved(now, self.place);
        }
        let trip = flows.carrier(self.place).map_or(Span::ZERO, |report| report.rtt);
        let again = ASK_WAY_AGAIN.max(Span(2 * trip.0));
        if self.other.is_some_and(|other| now.since(other.asked_at) < again) {
            return;
        }
        let first = self.other.filter(|other| other.route == route).map(|other| other.first);
        let bytes = flows.datagram_bytes(self.place);
        let Some(train) = host.train(&route, bytes) else { return };
        let start = train.len();
        train.resize(start + DATAGRAM_HEADER_BYTES, 0);
        let Some(number) = flows.fill_way(now, self.place, self.ways_asked, train) else {
            return train.truncate(start);
        };
        self.seal(train, start, number);
        let first = first.unwrap_or(self.ways_asked);
        self.other = Some(OtherWay { route, first, asked_at: now });
        self.ways_asked = self.ways_asked.wrapping_add(1);
    }

    /// Goes the other way, once somebody has answered there.
    fn take_other_way(&mut self, now: Moment, flows: &mut Session) {
        let Some(asked) = flows.take_way(self.place) else { return };
        // Of a way that was asked before, the answer says nothing.
        if let Some(other) = self.other.take_if(|other| asked >= other.first) {
            self.before = Some((self.route, now));
            self.route = other.route;
            flows.packets_moved(now, self.place);
        }
    }

    /// How much of what the host has dropped may have been this carrier's.
    fn dropped(&mut self, socket: u16, by_socket: &BTreeMap<u16, u64>) -> u64 {
        let all = by_socket.get(&socket).copied().unwrap_or_default();
        let before = self.dropped_before.filter(|(of, _)| *of == socket);
        let (_, before) = *self.dropped_before.insert(before.unwrap_or((socket, all)));
        all - before
    }

    /// Fills a train with packets. Returns whether there was anything.
    fn fill_train(
        &mut self,
        now: Moment,
        flows: &mut Session,
        (train, datagram_bytes): (&mut Vec<u8>, usize),
        later: &mut Later,
    ) -> bool {
        let begin = train.len();
        let text_max = datagram_bytes - DATAGRAM_OVERHEAD;
        for _ in 0..train_datagrams(datagram_bytes) {
            let start = train.len();
            train.resize(start + DATAGRAM_HEADER_BYTES, 0);
            let Some(number) = flows.fill_packet(now, self.place, text_max, (train, later)) else {
                train.truncate(start);
                break;
            };
            self.seal(train, start, number);
            // A shorter one is the last of its train.
            if train.len() - start < datagram_bytes {
                break;
            }
        }
        let bytes = train.len() - begin;
        self.meter.add(now, SENT, bytes as u64);
        bytes > 0
    }

    /// Says that nothing more comes, in a train of its own.
    fn take_leave(&mut self, now: Moment, flows: &mut Session, host: &mut impl Host) {
        let Some(train) = host.train(&self.route, flows.datagram_bytes(self.place)) else { return };
        let start = train.len();
        train.resize(start + DATAGRAM_HEADER_BYTES, 0);
        match flows.fill_farewell(now, self.place, train) {
            Some(number) => self.seal(train, start, number),
            None => train.truncate(start),
        }
    }

    /// Asks whether the path passes a datagram of so many bytes: it is a train of its own.
    fn ask(&mut self, now: Moment, flows: &mut Session, (train, bytes): (&mut Vec<u8>, usize)) {
        let start = train.len();
        train.resize(start + DATAGRAM_HEADER_BYTES, 0);
        let number = flows.fill_question(now, self.place, bytes - DATAGRAM_OVERHEAD, train);
        self.seal(train, start, number);
        self.meter.add(now, SENT, bytes as u64);
    }

    /// Seals the datagram that begins at `start`.
    fn seal(&mut self, train: &mut Vec<u8>, start: usize, number: u64) {
        train.resize(train.len() + TAG_BYTES, 0);
        let sealed = self.link.seal(&mut train[start..]);
        assert_eq!(sealed, number, "both count the packets of this carrier");
    }
}
