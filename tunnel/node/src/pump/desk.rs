//! What an agent asks of its shard, and the far side of flows: targets, names, services.
//!
//! What always holds:
//! - K1  A flow of a peer is connected to nothing but what its policy allowed: an address it
//!   named, one that an allowed name resolved to and that is allowed itself, or a service's.
//! - K2  Nothing here calls the agent, which is in the middle of a call: what it is to hear is a
//!   [`Wish`], fulfilled when the call is over.
//!
//! Bounds: what comes for a flow before its service is connected is held, at most its first window.
//! Not here: the near side (the pump itself), where flows are kept (`own.rs`).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use ringway_core::limits::GIVE_NOTE_BYTES_MAX;
use ringway_core::{ConnId, Moment, ShardId, Span};
use ringway_crypto::SessionId;
use ringway_shards::{Close, Io, Tuning};
use ringway_tunnel_coding::{Coder, Decoder, Mode};
use ringway_tunnel_proto::{
    ANSWER_BYTES, Arrived, BondId, Coding, ConnectReply, Event, FlowId, Host, Note,
    OPENING_BYTES_MAX, Opening, PeerId, Registry, ResetCode, Route, SocksReply, Target, TcpPath,
    connect_reply, read_answer, reply,
};

use super::congestion;
use super::dialling::Dialling;
use super::flow::{FlowKey, NamedBy, Sought, Speaks, Stage};
use super::own::{CONNECT_MAX, Kind, Own, Wish};
use super::rate::Way;
use crate::policy::Verdict;
use crate::resolver::Ask;
use crate::shared::{Mail, wall_ms};

/// Bytes that the kernel may keep of a carrier that it has not sent: what is there has chosen its
/// carrier, and waits behind all of it.
const CARRIER_UNSENT_MAX: u32 = 128 * 1024;
/// A carrier whose peer does not acknowledge for so long is gone.
const CARRIER_UNHEARD_MAX: Span = Span::from_s(20);

/// The agent's host: a shard during one call.
pub(super) struct Desk<'a, 'io> {
    pub(super) own: &'a mut Own,
    pub(super) io: &'a mut Io<'io>,
    pub(super) now: Moment,
}

/// Makes a connection fit for records.
pub(super) fn tune_carrier(conn: ConnId, io: &mut Io<'_>) {
    let tuning = Tuning {
        unsent_bytes_max: Some(CARRIER_UNSENT_MAX),
        unheard_max: Some(CARRIER_UNHEARD_MAX),
        keepalive: Some(CARRIER_UNHEARD_MAX),
        ..Tuning::default()
    };
    if let Err(errno) = io.tune(conn, tuning) {
        tracing::debug!("a carrier cannot be tuned: {errno:?}");
    }
}

impl Host for Desk<'_, '_> {
    fn dial(&mut self, peer: PeerId) -> Option<ConnId> {
        let address = self.own.next_address(peer)?;
        let Ok(conn) = self.io.connect(address) else {
            // The host may have no such network: another address may be of another one.
            self.own.look_further(peer);
            return None;
        };
        congestion::begin(conn, self.io);
        tune_carrier(conn, self.io);
        self.own.note_conn(conn, Kind::Carrier(address));
        self.own.shared.metrics.carriers_dialled.add(1);
        Some(conn)
    }

    fn others_left(&self, peer: PeerId) -> bool {
        self.own.dialling.get(&peer).is_some_and(Dialling::others_left)
    }

    fn out(&mut self, conn: ConnId) -> &mut Vec<u8> {
        match self.own.held(conn) {
            Some(held) => held,
            None => self.io.out(conn),
        }
    }

    fn backlog(&self, conn: ConnId) -> usize {
        self.io.backlog(conn) + self.own.held_bytes(conn)
    }

    fn path(&self, conn: ConnId) -> Option<TcpPath> {
        let path = self.io.tcp_path(conn)?;
        Some(TcpPath { rtt: path.round_trip, resent: path.resent })
    }

    fn salted(&mut self, conn: ConnId) {
        self.own.hold(conn);
    }

    fn await_drain(&mut self, conn: ConnId, below: usize) {
        self.io.await_drain(conn, below);
    }

    fn call_overdue(&mut self, conn: ConnId, after: Span) {
        self.io.call_overdue(conn, after);
    }

    fn pause(&mut self, conn: ConnId) {
        self.io.pause(conn);
    }

    fn close(&mut self, conn: ConnId, flush: bool) {
        self.own.drop_held(conn);
        self.io.close(conn, if flush { Close::AfterFlush } else { Close::Now });
    }

    fn give(&mut self, conn: ConnId, shard: u8, note: &[u8]) {
        let mut tagged = Vec::with_capacity(1 + note.len());
        tagged.push(super::GIFT_CARRIER);
        tagged.extend_from_slice(note);
        self.own.forget_conn(conn);
        // Who takes it holds it again, and nothing was said yet.
        self.own.drop_held(conn);
        if tagged.len() > GIVE_NOTE_BYTES_MAX {
            // It has sent far more than it could know to be wanted.
            return self.io.close(conn, Close::Now);
        }
        self.io.give(conn, ShardId(shard), &tagged);
    }

    fn wall_ms(&self) -> u64 {
        wall_ms()
    }

    fn registry<T>(&mut self, ask: impl FnOnce(&mut Registry) -> T) -> T {
        self.own.shared.ask_registry(ask)
    }

    fn replaced(&mut self, session: SessionId) {
        let owner = ShardId((session.0 & 0xff) as u8);
        if owner.index() < self.own.shared.shards {
            self.own.shared.post(owner, Mail::Replaced(session), self.io);
        }
    }

    fn route(&mut self, _: PeerId, beside: ConnId) -> Option<Route> {
        self.route_beside(beside)
    }

    fn train(&mut self, route: &Route, datagram_bytes: usize) -> Option<&mut Vec<u8>> {
        self.train_towards(route, datagram_bytes)
    }

    fn forward(&mut self, shard: u8, arrived: &Arrived, datagrams: &[u8]) {
        self.forward_datagrams(shard, arrived, datagrams);
    }

    fn data(&mut self, bond: BondId, flow: FlowId, bytes: &[u8]) {
        if let Some(key) = self.own.at(bond, flow) {
            self.delivered(key, bytes);
        }
    }

    fn flow(&mut self, bond: BondId, event: Event) {
        match event {
            Event::Opened(flow) => {
                let peer = self.own.peer_of(bond).expect("the agent has said whose it is");
                let key = self.own.add(self.now, peer, Stage::Opening).key;
                self.own.settle(key, bond, flow);
                self.own.shared.metrics.flows_from_peers.add(1);
            }
            Event::Finished(flow) => self.finished(bond, flow),
            Event::Writable(flow) => {
                let found = self.own.at(bond, flow).and_then(|key| self.own.flow(key));
                if let Some(flow) = found {
                    flow.blocked = false;
                    if let Some(conn) = flow.conn.filter(|_| flow.may_read()) {
                        self.io.resume(conn);
                    }
                }
            }
            Event::Reset(flow, code) => {
                if let Some(key) = self.own.at(bond, flow) {
                    self.own.fail(key, code, self.io);
                }
            }
            Event::Closed(flow) => {
                if let Some(key) = self.own.at(bond, flow) {
                    self.own.leave_session(key);
                    self.part(key);
                }
            }
            Event::Suspect(_) | Event::Recovered(_) | Event::Left(_) => {}
        }
    }

    fn bond(&mut self, bond: BondId, peer: PeerId, up: bool) {
        self.own.note_bond(bond, peer, up);
        if up {
            self.own.wishes.push_back(Wish::Up(peer));
            // Connections that came to other shards wait there.
            for shard in 0..self.own.shared.shards {
                if shard != self.own.me.index() {
                    self.own.shared.post(ShardId(shard as u8), Mail::Up(peer), self.io);
                }
            }
        }
    }

    fn note(&mut self, conn: Option<ConnId>, note: Note) {
        self.own.log(conn, note);
    }
}

impl Desk<'_, '_> {
    /// Bytes of a flow have come.
    fn delivered(&mut self, key: FlowKey, bytes: &[u8]) {
        let Some(flow) = self.own.flow(key) else { return };
        match flow.stage {
            Stage::Joined => self.hand_over(key, bytes),
            Stage::Asked => self.answered(key, bytes),
            Stage::Opening => {
                flow.held.extend_from_slice(bytes);
                self.open(key);
            }
            Stage::Resolving(_) | Stage::Connecting(_) => flow.held.extend_from_slice(bytes),
            Stage::Greeting | Stage::Request | Stage::Waiting(_) | Stage::Leaving => {
                unreachable!("only a flow of a session gets something")
            }
        }
    }

    /// Gives bytes to the application.
    pub(super) fn hand_over(&mut self, key: FlowKey, bytes: &[u8]) {
        let Some(flow) = self.own.flow(key) else { return };
        let Some(conn) = flow.conn else { return };
        let given = match flow.decoder {
            None => {
                self.io.out(conn).extend_from_slice(bytes);
                Ok(bytes.len() as u64)
            }
            // What came before waits, so this does.
            Some(_) if !flow.held.is_empty() => {
                flow.held.extend_from_slice(bytes);
                Ok(0)
            }
            Some(_) => {
                let mut room = self.own.text_room;
                let flow = self.own.flow(key).expect("it was just there");
                let given = flow.decode(conn, bytes, (&mut room, self.io));
                self.own.text_room = room;
                given
            }
        };
        let Ok(given) = given else { return self.give_up(key, ResetCode::Protocol) };
        self.own.touch(key);
        self.own.count(self.now, key, Way::FromPeer, given);
    }

    /// The far side's first word, and what follows it.
    fn answered(&mut self, key: FlowKey, bytes: &[u8]) {
        let Some(flow) = self.own.flow(key) else { return };
        flow.held.extend_from_slice(bytes);
        let Some(answer) = flow.held.first_chunk::<ANSWER_BYTES>() else { return };
        let Ok(coding) = read_answer(*answer) else {
            return self.give_up(key, ResetCode::Protocol);
        };
        let held = std::mem::take(&mut flow.held);
        flow.decoder = (coding == Coding::Lz4).then(Box::default);
        flow.stage = Stage::Joined;
        let said = match flow.speaks {
            Speaks::Nothing => Vec::new(),
            Speaks::Socks => reply(SocksReply::Succeeded),
            Speaks::Connect => connect_reply(ConnectReply::Established),
        };
        if let Some(conn) = flow.conn {
            self.io.out(conn).extend_from_slice(&said);
        }
        self.hand_over(key, &held[ANSWER_BYTES..]);
    }

    /// A flow of the peer says where it is to go.
    fn open(&mut self, key: FlowKey) {
        let site = self.own.site.clone();
        let Some(flow) = self.own.flow(key) else { return };
        let read = match Opening::read(&flow.held) {
            Ok(Some(read)) => read,
            Ok(None) if flow.held.len() <= OPENING_BYTES_MAX => return,
            Ok(None) | Err(_) => return self.give_up(key, ResetCode::Protocol),
        };
        let (Opening { target, from, coding }, taken) = read;
        flow.held.take(taken);
        flow.from = from;
        flow.target = target.to_string();
        if coding == Coding::Lz4 {
            flow.coder = Some(Box::new(Coder::new(Mode::Auto)));
            flow.decoder = Some(Box::new(Decoder::new()));
        }
        let Some(peer) = site.peer(flow.peer) else { return self.give_up(key, ResetCode::Denied) };
        match peer.policy.may_ask(&target) {
            Verdict::Denied(why) => {
                tracing::warn!(peer = peer.name, %target, "not allowed: {why}");
                self.give_up(key, ResetCode::Denied);
            }
            Verdict::Connect(address) => self.connect(key, VecDeque::from([address])),
            Verdict::Resolve(..) => self.resolve(key, target, NamedBy::Peer),
            Verdict::Service(name) => {
                let Some(service) = site.config.service_named(name) else {
                    tracing::warn!(peer = peer.name, %target, "there is no such service");
                    return self.give_up(key, ResetCode::Denied);
                };
                flow.proxy = service.proxy_protocol;
                match &service.to {
                    Target::Address(ip, port) => {
                        self.connect(key, VecDeque::from([SocketAddr::new(*ip, *port)]));
                    }
                    to => self.resolve(key, to.clone(), NamedBy::Service),
                }
            }
        }
    }

    /// Asks for the addresses of a name; [`Desk::resolved`] goes on.
    fn resolve(&mut self, key: FlowKey, target: Target, named_by: NamedBy) {
        let Some(flow) = self.own.flow(key) else { return };
        let (Target::Host(name, port), Some(place)) = (&target, flow.place) else {
            return self.give_up(key, ResetCode::Protocol);
        };
        let (name, peer, wanted) = ((name.clone(), *port), flow.peer, Arc::new(()));
        flow.stage = Stage::Resolving(Sought { target, named_by, _wanted: Arc::clone(&wanted) });
        let ask = Ask::of_flow(self.own.me, place, name);
        if !self.own.shared.questions.ask_for_flow(peer, ask, &wanted) {
            self.give_up(key, ResetCode::Busy);
        }
    }

    /// The addresses of a flow's target are known.
    pub(super) fn resolved(
        &mut self,
        place: (BondId, FlowId),
        found: Result<Vec<SocketAddr>, ResetCode>,
    ) {
        let site = self.own.site.clone();
        let Some(key) = self.own.at(place.0, place.1) else { return };
        let Some(flow) = self.own.flow(key) else { return };
        let Stage::Resolving(Sought { target, named_by, .. }) = &flow.stage else { return };
        let addresses = match found {
            Ok(addresses) => addresses,
            Err(code) => return self.give_up(key, code),
        };
        let policy = site.peer(flow.peer).map(|peer| &peer.policy);
        let may = |address: &SocketAddr| match named_by {
            NamedBy::Service => true,
            NamedBy::Peer => policy.is_some_and(|one| one.may_connect(target, address.ip())),
        };
        let allowed: VecDeque<SocketAddr> = addresses.iter().copied().filter(may).collect();
        if allowed.is_empty() {
            tracing::warn!(
                peer = site.name(flow.peer),
                target = flow.target,
                "not allowed: it resolves to {addresses:?}, which no rule covers"
            );
            return self.give_up(key, ResetCode::Denied);
        }
        self.connect(key, allowed);
    }

    /// Connects to the first of these.
    pub(super) fn connect(&mut self, key: FlowKey, mut addresses: VecDeque<SocketAddr>) {
        let Some(address) = addresses.pop_front() else {
            return self.give_up(key, ResetCode::Unreachable);
        };
        match self.io.connect(address) {
            Ok(conn) => {
                congestion::begin(conn, self.io);
                self.own.note_conn(conn, Kind::User(key));
                self.io.call_overdue(conn, CONNECT_MAX);
                // Nothing is read before the flow knows that it is connected.
                self.io.pause(conn);
                if let Some(flow) = self.own.flow(key) {
                    (flow.conn, flow.to) = (Some(conn), Some(address));
                    flow.stage = Stage::Connecting(addresses);
                }
            }
            Err(_) => self.give_up(key, ResetCode::Busy),
        }
    }

    /// The other side's application will write nothing more.
    fn finished(&mut self, bond: BondId, id: FlowId) {
        let Some(key) = self.own.at(bond, id) else { return };
        let Some(flow) = self.own.flow(key) else { return };
        flow.ended_there = true;
        match (&flow.stage, flow.conn) {
            // What waits to be decoded comes before the end.
            (Stage::Joined, Some(_)) if flow.decoder.is_some() && !flow.held.is_empty() => {}
            (Stage::Joined, Some(_)) if flow.is_cut() => self.give_up(key, ResetCode::Protocol),
            (Stage::Joined, Some(conn)) => self.io.finish(conn),
            // It ended before it said where it is to go, or what came of it.
            (Stage::Opening | Stage::Asked, _) => self.give_up(key, ResetCode::Protocol),
            _ => {}
        }
    }

    /// Decodes what waited, as far as the application keeps up.
    pub(super) fn decode_held(&mut self, key: FlowKey) {
        let mut room = self.own.text_room;
        let Some(flow) = self.own.flow(key) else { return };
        let Some(conn) = flow.conn.filter(|_| flow.has_held_text()) else { return };
        let decoded = flow.decode_held(conn, (&mut room, self.io));
        self.own.text_room = room;
        let Ok(given) = decoded else {
            return self.give_up(key, ResetCode::Protocol);
        };
        self.own.count(self.now, key, Way::FromPeer, given);
        let Some(flow) = self.own.flow(key) else { return };
        if !flow.has_held_text() && flow.ended_there {
            if flow.is_cut() {
                return self.give_up(key, ResetCode::Protocol);
            }
            self.io.finish(conn);
        }
    }

    /// Goes on with a flow that has left its session: its application gets what is left of it, as
    /// fast as its peer's rate allows, and then the end. Again whenever that may go on: when the
    /// application has read, and when the way is open again.
    pub(super) fn part(&mut self, key: FlowKey) {
        if self.own.flow(key).is_some_and(|flow| !flow.is_shut(Way::FromPeer)) {
            self.decode_held(key);
        }
        self.own.close_when_read(key, self.io);
    }

    /// Resets a flow, at both ends.
    pub(super) fn give_up(&mut self, key: FlowKey, code: ResetCode) {
        if let Some((bond, id)) = self.own.flow(key).and_then(|flow| flow.place) {
            self.own.wishes.push_back(Wish::Reset(bond, id, code));
        }
        self.own.fail(key, code, self.io);
    }
}
