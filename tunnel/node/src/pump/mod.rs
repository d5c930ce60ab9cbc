//! One shard of a tunnel: users' connections on one side, carriers on the other, the agent between
//! them. What the reactor brings goes to the agent, what the agent wants goes to the reactor.
//!
//! What always holds:
//! - U1  A user's bytes are held only until there is a flow for them: at most one head, or what the
//!   first window lets through; then the agent's credit bounds them, and a user who writes faster
//!   is not read.
//! - U2  A user hears the truth: SOCKS5 and CONNECT a code, everybody else an end if all went well
//!   and a reset if not.
//! - U3  Nothing is connected to but what the peer's policy allows, by its resolved address.
//! - U4  A call that may lead to a record or a handshake looks at the clocks first, once a second.
//!
//! Bounds: `own.rs`. Not here: what is said on the wire (`tunnel/proto`).

mod anew;
mod congestion;
mod desk;
mod dialling;
mod flow;
mod logs;
mod own;
mod pending;
mod ports;
pub(crate) mod rate;
mod report;
mod shut;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use ringway_core::limits::GIVE_NOTE_BYTES_MAX;
use ringway_core::{ConnId, Moment, ShardId, Span};
use ringway_crypto::{Entropy, Secret};
use ringway_shards::{
    Close, CongestionControl, Datagrams, Errno, Io, ListenerKind, Peer, Service, ShardContext,
    SocketId, Unsent,
};
use ringway_tunnel_coding::{Coder, Mode};
use ringway_tunnel_proto::{
    Agent, AgentSettings, BondId, Coding, Connect, ConnectReply, DatagramCounts, FlowId, Opening,
    Origin, PeerId, ResetCode, Socks, Target, connect_reply, connect_request, greeting,
    opening_answer, request, write_proxy_header,
};

use crate::clocks::Clocks;
use crate::config::{Compress, Door};
use crate::shared::{Mail, Shared, Whose};
use crate::site::CARRIER_DOOR;
use anew::Why;
use desk::{Desk, tune_carrier};
use flow::{FlowKey, Speaks, Stage};
use own::{Kind, Own, Wish, code_of};
use pending::Pending;
use ports::MAIL_DATAGRAMS;
pub(crate) use ports::OnTheirWay;
use rate::Way;
use report::Reporting;

/// The first byte of a note with a connection that another shard gives away: a carrier, or a
/// user's, and by which door it came.
const GIFT_CARRIER: u8 = 1;
const GIFT_USER: u8 = 2;
/// How long a user's application may take to say where it wants to.
const GREETING_MAX: Span = Span::from_s(30);
/// Bytes of a receive buffer: a read that fills it is followed by more.
pub(crate) const RECEIVE_BYTES: usize = 64 * 1024;
/// A read of so much is sealed at once; less waits for company until the turn ends.
const BULK_BYTES: usize = 16 * 1024;
/// How often is looked whether salts are kept, while somebody waits for it.
const HELD_LOOK: Span = Span::from_us(500);
/// How long a coder's run stays open when nothing follows.
const RUN_LINGER: Span = Span::from_ms(2);

/// See the module. Its users have it from [`crate::Tunnel::prepare`].
pub struct Pump {
    agent: Agent,
    own: Own,
    run_ends_at: Option<Moment>,
    /// When to look whether what is held may be sent.
    held_look_at: Option<Moment>,
    clocks: Clocks,
    /// Pieces that the agent has refused so far.
    refused: u64,
    /// Datagrams that came to nothing so far.
    datagram_counts: DatagramCounts,
    /// The configuration was taken over.
    begun: bool,
    /// How long flows may go on after a stop was asked for.
    farewell: Span,
    /// After a stop was asked for: when flows that have not ended are reset, so that their other
    /// ends need not wait for us.
    farewell_at: Option<Moment>,
    /// Where coders write.
    scratch: Vec<u8>,
    /// The report that is being put together.
    reporting: Option<Box<Reporting>>,
}

impl Pump {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        context: &ShardContext,
        settings: AgentSettings,
        (deaf_key, seed): (Secret, Entropy),
    ) -> Pump {
        let own = Own::new(Arc::clone(shared), context.shard, context.control);
        Pump {
            agent: Agent::new(settings, deaf_key, seed),
            own,
            run_ends_at: None,
            held_look_at: None,
            clocks: Clocks::new(),
            refused: 0,
            datagram_counts: DatagramCounts::default(),
            begun: false,
            // Their other ends are to hear of it before the shards are gone.
            farewell: Span(context.drain.0 / 5 * 4),
            farewell_at: None,
            scratch: Vec::new(),
            reporting: None,
        }
    }

    /// Makes a call to the agent, and does what it led to.
    fn with_agent<T>(
        &mut self,
        now: Moment,
        io: &mut Io<'_>,
        call: impl FnOnce(&mut Agent, &mut Desk<'_, '_>) -> T,
    ) -> T {
        let done = call(&mut self.agent, &mut Desk { own: &mut self.own, io, now });
        self.fulfil(now, io);
        done
    }

    fn fulfil(&mut self, now: Moment, io: &mut Io<'_>) {
        while let Some(wish) = self.own.wishes.pop_front() {
            match wish {
                Wish::Reset(bond, flow, code) => self.agent.reset(bond, flow, code),
                Wish::Left(peer, before, now) => self.agent.left_behind(peer, before, now),
                Wish::Up(peer) => {
                    for key in self.own.take_waiting(peer) {
                        let stage = self.own.flow(key).map(|flow| &mut flow.stage);
                        let Some(Stage::Waiting(opening)) = stage else { continue };
                        let opening = opening.clone();
                        self.enter(now, key, *opening, io);
                    }
                }
            }
        }
    }

    // ---- The near side.

    /// Somebody connected to a listener.
    fn user(
        &mut self,
        now: Moment,
        conn: ConnId,
        (door, from): (u16, SocketAddr),
        io: &mut Io<'_>,
    ) {
        let site = Arc::clone(&self.own.site);
        let Some(listener) = site.listener(door) else { return io.close(conn, Close::Reset) };
        self.own.shared.metrics.flows_from_users.add(1);
        let (stage, speaks) = match &listener.door {
            Door::Forward { .. } => (Stage::Asked, Speaks::Nothing),
            Door::Socks5 => (Stage::Greeting, Speaks::Socks),
            Door::HttpConnect => (Stage::Request, Speaks::Connect),
        };
        let flow = self.own.add(now, listener.peer, stage);
        (flow.conn, flow.from, flow.speaks) = (Some(conn), Some(from), speaks);
        let key = flow.key;
        self.own.note_conn(conn, Kind::User(key));
        match &listener.door {
            Door::Forward { to, compress } => {
                let coding = match compress {
                    Compress::Auto => Coding::Lz4,
                    Compress::Off => Coding::Plain,
                };
                self.enter(now, key, Opening { target: to.clone(), from: Some(from), coding }, io);
            }
            Door::Socks5 | Door::HttpConnect => io.call_overdue(conn, GREETING_MAX),
        }
    }

    /// Opens a flow in a session to its peer, or waits for one.
    fn enter(&mut self, now: Moment, key: FlowKey, opening: Opening, io: &mut Io<'_>) {
        let Some(flow) = self.own.flow(key) else { return };
        let (peer, conn) = (flow.peer, flow.conn);
        flow.target = opening.target.to_string();
        let Some(bond) = self.agent.bond_to(peer) else {
            return self.look_elsewhere(now, key, opening, io);
        };
        let Ok(id) = self.agent.open(now, bond) else {
            return self.own.fail(key, ResetCode::Busy, io);
        };
        self.own.settle(key, bond, id);
        let flow = self.own.flow(key).expect("it was just there");
        flow.stage = Stage::Asked;
        let (held, ended) = (std::mem::take(&mut flow.held), flow.ended_here);
        if opening.coding == Coding::Lz4 {
            flow.coder = Some(Box::new(Coder::new(Mode::Auto)));
        }
        let mut head = Vec::with_capacity(64);
        opening.write(&mut head);
        self.agent.push(bond, id, &head);
        if let Some(conn) = conn {
            io.resume(conn);
        }
        self.send_on(now, key, &held, io);
        if ended {
            self.agent.finish(bond, id);
        }
    }

    /// The session to a peer that dials us may be on another shard: the connection goes there.
    fn look_elsewhere(&mut self, now: Moment, key: FlowKey, opening: Opening, io: &mut Io<'_>) {
        let Some(flow) = self.own.flow(key) else { return };
        let (peer, conn, from) = (flow.peer, flow.conn, flow.from);
        let session = self.own.shared.ask_registry(|registry| registry.session_of(peer));
        let owner = session.map(|session| ShardId((session.0 & 0xff) as u8));
        let elsewhere =
            owner.filter(|owner| *owner != self.own.me && owner.index() < self.own.shared.shards);
        let (Some(owner), Some(conn), Some(from)) = (elsewhere, conn, from) else {
            self.own.wait(now, key, opening, io);
            return self.agent.hurry(now, peer);
        };
        let flow = self.own.flow(key).expect("it was just there");
        let note = Gift { flow, opening: &opening, from }.to_note();
        if note.len() > GIVE_NOTE_BYTES_MAX {
            return self.own.fail(key, ResetCode::Busy, io);
        }
        self.own.remove(key);
        io.give(conn, owner, &note);
    }

    /// A user's connection from another shard.
    fn adopt_user(&mut self, now: Moment, conn: ConnId, note: &[u8], io: &mut Io<'_>) {
        let Some(given) = Given::from_note(note) else { return io.close(conn, Close::Reset) };
        let flow = self.own.add(now, given.peer, Stage::Asked);
        (flow.conn, flow.from) = (Some(conn), Some(given.from));
        (flow.speaks, flow.ended_here) = (given.speaks, given.ended);
        flow.held = Pending::from(given.held);
        let key = flow.key;
        self.own.note_conn(conn, Kind::User(key));
        match self.agent.bond_to(given.peer) {
            Some(_) => self.enter(now, key, given.opening, io),
            // It has just gone: here is as good a place to wait as any.
            None => {
                self.own.wait(now, key, given.opening, io);
                self.agent.hurry(now, given.peer);
            }
        }
    }

    /// A user's application says where it wants to.
    fn head(&mut self, now: Moment, key: FlowKey, bytes: &[u8], io: &mut Io<'_>) {
        let Some(flow) = self.own.flow(key) else { return };
        let Some(conn) = flow.conn else { return };
        flow.held.extend_from_slice(bytes);
        loop {
            let Some(flow) = self.own.flow(key) else { return };
            let read = match (&flow.stage, flow.speaks) {
                (Stage::Greeting, _) => greeting(&flow.held),
                (_, Speaks::Socks) => request(&flow.held),
                _ => match connect_request(&flow.held) {
                    Connect::More => Socks::More,
                    Connect::Request { target, taken } => Socks::Connect { target, taken },
                    Connect::Refuse { say } => Socks::Refuse { say },
                },
            };
            match read {
                Socks::More => return,
                Socks::Greeted { say, taken } => {
                    flow.held.take(taken);
                    flow.stage = Stage::Request;
                    io.out(conn).extend_from_slice(&say);
                }
                Socks::Connect { target, taken } => {
                    flow.held.take(taken);
                    let from = flow.from;
                    return self.enter(
                        now,
                        key,
                        Opening { target, from, coding: Coding::Plain },
                        io,
                    );
                }
                Socks::Refuse { say } => {
                    io.out(conn).extend_from_slice(&say);
                    self.own.remove(key);
                    return io.close(conn, Close::AfterFlush);
                }
            }
        }
    }

    // ---- Both sides.

    /// Bytes of our application go into the tunnel.
    fn send_on(&mut self, now: Moment, key: FlowKey, bytes: &[u8], io: &mut Io<'_>) {
        if bytes.is_empty() {
            return;
        }
        let Some(flow) = self.own.flow(key) else { return };
        let (Some((bond, id)), Some(conn)) = (flow.place, flow.conn) else {
            flow.held.extend_from_slice(bytes);
            return;
        };
        let room = match flow.coder.as_mut() {
            None => self.agent.push(bond, id, bytes),
            Some(coder) => {
                let more = bytes.len() >= RECEIVE_BYTES;
                let (agent, mut room) = (&mut self.agent, true);
                coder.encode_to(bytes, more, &mut self.scratch, |carried| {
                    room = agent.push(bond, id, carried);
                });
                // Of what is stored there is none to be ended.
                if coder.held() > 0 && !std::mem::replace(&mut flow.run, true) {
                    self.own.runs.push(key);
                }
                self.run_ends_at = (!self.own.runs.is_empty()).then_some(now + RUN_LINGER);
                room
            }
        };
        // Said before anything is sent: that may make room, and it is told once.
        if let Some(flow) = self.own.flow(key) {
            flow.blocked |= !room;
        }
        if bytes.len() >= BULK_BYTES {
            self.agent.send_bulk(now, bond, &mut Desk { own: &mut self.own, io, now });
        }
        self.own.count(now, key, Way::ToPeer, bytes.len() as u64);
        if self.own.flow(key).is_some_and(|flow| !flow.may_read()) {
            io.pause(conn);
        }
    }

    /// A service is connected, or not.
    fn service(&mut self, now: Moment, key: FlowKey, result: Result<(), Errno>, io: &mut Io<'_>) {
        let Some(flow) = self.own.flow(key) else { return };
        let (Some(conn), Some((bond, id))) = (flow.conn, flow.place) else { return };
        let Stage::Connecting(left) = &mut flow.stage else { return };
        let left = std::mem::take(left);
        if let Err(errno) = result {
            self.own.forget_conn(conn);
            io.close(conn, Close::Now);
            if let Some(flow) = self.own.flow(key) {
                flow.conn = None;
            }
            return self.next_address(now, key, (left, code_of(errno)), io);
        }
        congestion::settle(conn, self.own.congestion, io);
        let Some(flow) = self.own.flow(key) else { return };
        flow.stage = Stage::Joined;
        let coding = if flow.coder.is_some() { Coding::Lz4 } else { Coding::Plain };
        let (held, ended) = (std::mem::take(&mut flow.held), flow.ended_there);
        if flow.proxy {
            let origin = flow
                .from
                .zip(flow.to)
                .map(|(source, destination)| Origin::Client { source, destination });
            write_proxy_header(origin.unwrap_or(Origin::Unknown), io.out(conn));
        }
        io.resume(conn);
        self.agent.push(bond, id, &opening_answer(coding));
        let mut desk = Desk { own: &mut self.own, io, now };
        desk.hand_over(key, &held);
        let all = self.own.flow(key).is_some_and(|flow| !flow.has_held_text());
        if ended && all {
            io.finish(conn);
        }
        self.fulfil(now, io);
    }

    fn next_address(
        &mut self,
        now: Moment,
        key: FlowKey,
        (left, code): (VecDeque<SocketAddr>, ResetCode),
        io: &mut Io<'_>,
    ) {
        let mut desk = Desk { own: &mut self.own, io, now };
        if left.is_empty() {
            desk.give_up(key, code)
        } else {
            desk.connect(key, left)
        }
        self.fulfil(now, io);
    }

    /// A user's or a service's connection is gone.
    fn user_gone(&mut self, key: FlowKey) {
        // Had it ended well at both ends, it would have no place any more.
        if let Some((bond, id)) = self.own.remove(key).and_then(|flow| flow.place) {
            self.agent.reset(bond, id, ResetCode::Broken);
        }
    }

    /// Flows go on for which a way has opened that their peer's rate had shut.
    fn open_ways(&mut self, now: Moment, io: &mut Io<'_>) {
        for key in self.own.open_ways(now) {
            let flow = self.own.seen(key).filter(|flow| flow.place.is_some());
            if let Some(conn) = flow.and_then(|flow| flow.conn) {
                io.resume(conn);
            }
        }
    }

    /// Says how much of what was delivered applications have not taken. A flow that may give its
    /// peer no room is touched again when it may.
    fn report_taken(&mut self, now: Moment, io: &mut Io<'_>) {
        let touched = std::mem::take(&mut self.own.touched);
        for key in touched {
            let Some(flow) = self.own.flow(key) else { continue };
            flow.touched = false;
            if flow.is_shut(Way::FromPeer) {
                continue;
            }
            match (flow.conn, flow.place, &flow.stage) {
                (Some(conn), Some((bond, id)), _) => {
                    self.tell_taken(now, key, (conn, bond, id), io);
                }
                (Some(_), None, Stage::Leaving) => {
                    Desk { own: &mut self.own, io, now }.part(key);
                }
                _ => {}
            }
        }
        // The agent knows of all text now; until the next turn what is decoded is on top of that.
        let memory = self.agent.memory();
        self.own.text_room = memory.most.saturating_sub(memory.held);
    }

    fn tell_taken(
        &mut self,
        now: Moment,
        key: FlowKey,
        (conn, bond, id): (ConnId, BondId, FlowId),
        io: &mut Io<'_>,
    ) {
        Desk { own: &mut self.own, io, now }.decode_held(key);
        let Some(flow) = self.own.flow(key) else { return };
        let (waiting, held) = (io.backlog(conn), flow.held.len());
        self.agent.drained_by_application(now, bond, id, (waiting + held) as u64);
        if waiting > 0 {
            io.await_drain(conn, waiting / 2);
        }
    }

    /// Ends the runs of coders to which nothing came for a while: they hold memory.
    fn end_runs(&mut self, now: Moment) {
        if self.run_ends_at.is_none_or(|at| at > now) {
            return;
        }
        self.run_ends_at = None;
        let runs = std::mem::take(&mut self.own.runs);
        for key in runs {
            let Some(flow) = self.own.flow(key) else { continue };
            flow.run = false;
            let (Some(coder), Some((bond, id))) = (flow.coder.as_mut(), flow.place) else {
                continue;
            };
            if flow.ended_here {
                continue;
            }
            let mut carried = Vec::new();
            coder.encode(&[], false, &mut carried);
            self.agent.push(bond, id, &carried);
        }
    }

    fn read_mail(&mut self, now: Moment, io: &mut Io<'_>) {
        for mail in self.own.shared.take_mail(self.own.me) {
            match mail {
                Mail::Reload { shut, open } => {
                    shut.into_iter().for_each(|door| io.remove_door(door));
                    open.into_iter().for_each(|(door, listener)| io.add_door(listener, door));
                    self.configure(now, io);
                }
                Mail::Ports(sockets) => {
                    // Who gives packets up says so by the sockets that go now.
                    self.with_agent(now, io, |agent, desk| agent.settle(now, desk));
                    self.own.ports.listen(sockets, io);
                }
                Mail::Replaced(session) => {
                    self.with_agent(now, io, |agent, desk| agent.replaced(now, session, desk));
                }
                Mail::BeginAnew => self.begin_anew(now, Why::Copied, io),
                Mail::Up(peer) => self.go_elsewhere(now, peer, io),
                Mail::Resolved(Whose::Flow(bond, flow), found) => {
                    Desk { own: &mut self.own, io, now }.resolved((bond, flow), found);
                    self.fulfil(now, io);
                }
                Mail::Resolved(Whose::Peer(peer), found) => self.own.peer_resolved(peer, found),
                Mail::AskPackets => self.agent.ask_packets(now),
                Mail::Report { number, flows_max } => self.begin_report((number, flows_max)),
            }
        }
    }

    /// Those who wait here for a peer whose session is on another shard go there.
    fn go_elsewhere(&mut self, now: Moment, peer: PeerId, io: &mut Io<'_>) {
        for key in self.own.take_waiting(peer) {
            let stage = self.own.flow(key).map(|flow| &flow.stage);
            let Some(Stage::Waiting(opening)) = stage else { continue };
            let opening = (**opening).clone();
            self.enter(now, key, opening, io);
        }
    }

    /// Takes over the present configuration.
    fn configure(&mut self, now: Moment, io: &mut Io<'_>) {
        let site = self.own.shared.site();
        self.own.site = Arc::clone(&site);
        self.own.reread();
        self.own.reread_ports();
        self.own.look_at_rates_soon();
        let config = &site.config;
        self.agent.set_limits(config.wait, config.flows_max);
        let (doorman, peers) = (site.config.doorman(), site.agent_peers());
        self.with_agent(now, io, |agent, desk| agent.configure(now, doorman, peers, desk));
    }
}

impl Service for Pump {
    fn opened(&mut self, now: Moment, conn: ConnId, peer: Peer, io: &mut Io<'_>) {
        match peer.listener {
            ListenerKind::Extra(CARRIER_DOOR) => {
                congestion::settle(conn, Some(CongestionControl::BBR), io);
                tune_carrier(conn, io);
                self.own.note_conn(conn, Kind::Carrier(peer.address));
                self.own.shared.metrics.carriers_accepted.add(1);
                let source = peer.address.ip();
                self.with_agent(now, io, |agent, desk| agent.accepted(now, conn, source, desk));
            }
            ListenerKind::Extra(door) => {
                congestion::settle(conn, self.own.congestion, io);
                self.user(now, conn, (door, peer.address), io);
            }
            ListenerKind::Base | ListenerKind::Own => io.close(conn, Close::Now),
        }
    }

    fn connected(&mut self, now: Moment, conn: ConnId, result: Result<(), Errno>, io: &mut Io<'_>) {
        self.look_at_clocks(now, io);
        match self.own.kind(conn) {
            Some(Kind::Carrier(_)) => {
                let works = result.is_ok();
                if works {
                    congestion::settle(conn, Some(CongestionControl::BBR), io);
                }
                self.with_agent(now, io, |agent, desk| agent.connected(now, conn, works, desk));
            }
            Some(Kind::User(key)) => self.service(now, key, result, io),
            None => io.close(conn, Close::Now),
        }
    }

    fn adopted(
        &mut self,
        now: Moment,
        conn: ConnId,
        peer: SocketAddr,
        note: &[u8],
        io: &mut Io<'_>,
    ) {
        self.look_at_clocks(now, io);
        match note.split_first() {
            Some((&GIFT_CARRIER, note)) => {
                self.own.note_conn(conn, Kind::Carrier(peer));
                // It has brought a salt, which may not be kept yet.
                self.own.hold(conn);
                self.with_agent(now, io, |agent, desk| agent.adopted(now, conn, note, desk));
            }
            Some((&GIFT_USER, note)) => self.adopt_user(now, conn, note, io),
            _ => io.close(conn, Close::Reset),
        }
    }

    fn received(&mut self, now: Moment, conn: ConnId, bytes: &mut [u8], io: &mut Io<'_>) {
        self.look_at_clocks(now, io);
        match self.own.kind(conn) {
            Some(Kind::Carrier(_)) => {
                self.with_agent(now, io, |agent, desk| agent.received(now, conn, bytes, desk));
            }
            Some(Kind::User(key)) => match self.own.flow(key).map(|flow| &flow.stage) {
                Some(Stage::Greeting | Stage::Request) => self.head(now, key, bytes, io),
                _ => self.send_on(now, key, bytes, io),
            },
            None => {}
        }
    }

    fn ended(&mut self, now: Moment, conn: ConnId, io: &mut Io<'_>) {
        match self.own.kind(conn) {
            // No carrier is used one way.
            Some(Kind::Carrier(_)) => {
                self.with_agent(now, io, |agent, desk| agent.ended(now, conn, desk));
            }
            Some(Kind::User(key)) => {
                let Some(flow) = self.own.flow(key) else { return };
                flow.ended_here = true;
                match (&flow.stage, flow.place) {
                    (Stage::Greeting | Stage::Request, _) => {
                        self.own.remove(key);
                        io.close(conn, Close::Now);
                    }
                    (_, Some((bond, id))) => self.agent.finish(bond, id),
                    (_, None) => {}
                }
            }
            None => io.close(conn, Close::Now),
        }
    }

    fn closed(&mut self, now: Moment, conn: ConnId, io: &mut Io<'_>) {
        self.own.drop_held(conn);
        match self.own.forget_conn(conn) {
            Some(Kind::Carrier(_)) => {
                self.with_agent(now, io, |agent, desk| agent.closed(now, conn, desk));
            }
            Some(Kind::User(key)) => self.user_gone(key),
            None => {}
        }
    }

    fn drained(&mut self, now: Moment, conn: ConnId, io: &mut Io<'_>) {
        match self.own.kind(conn) {
            Some(Kind::Carrier(_)) => self.with_agent(now, io, |agent, _| agent.drained(conn)),
            Some(Kind::User(key)) => match self.own.flow(key).map(|flow| &flow.stage) {
                Some(Stage::Leaving) => Desk { own: &mut self.own, io, now }.part(key),
                _ => self.own.touch(key),
            },
            None => {}
        }
    }

    fn overdue(&mut self, now: Moment, conn: ConnId, io: &mut Io<'_>) {
        match self.own.kind(conn) {
            Some(Kind::Carrier(_)) => {
                self.with_agent(now, io, |agent, desk| agent.overdue(now, conn, desk));
            }
            Some(Kind::User(key)) => match self.own.flow(key).map(|flow| &flow.stage) {
                Some(Stage::Connecting(_)) => {
                    self.service(now, key, Err(Errno::TIMED_OUT), io);
                }
                Some(Stage::Greeting | Stage::Request) => {
                    let speaks = self.own.remove(key).map(|flow| flow.speaks);
                    if speaks == Some(Speaks::Connect) {
                        let late = connect_reply(ConnectReply::Failed(ResetCode::TimedOut));
                        io.out(conn).extend_from_slice(&late);
                    }
                    io.close(conn, Close::AfterFlush);
                }
                _ => {}
            },
            None => io.close(conn, Close::AfterFlush),
        }
    }

    fn datagrams(&mut self, now: Moment, socket: SocketId, train: Datagrams<'_>, io: &mut Io<'_>) {
        self.look_at_clocks(now, io);
        self.train_came(now, socket, train, io);
    }

    fn datagrams_drained(&mut self, now: Moment, _: SocketId, io: &mut Io<'_>) {
        self.with_agent(now, io, |agent, _| agent.datagrams_drained());
    }

    fn unsent(&mut self, now: Moment, _: SocketId, what: Unsent, _: &mut Io<'_>) {
        self.datagrams_unsent(now, what);
    }

    fn mail(&mut self, now: Moment, _: ShardId, message: &[u8], io: &mut Io<'_>) {
        match message.first() {
            Some(&MAIL_DATAGRAMS) => self.datagrams_given(now, message, io),
            _ => self.read_mail(now, io),
        }
    }

    fn turn(&mut self, now: Moment, io: &mut Io<'_>) {
        if !std::mem::replace(&mut self.begun, true) {
            self.configure(now, io);
        }
        self.look_at_clocks(now, io);
        self.own.expire_waiting(now, io);
        for (conn, bytes) in self.own.take_released() {
            io.out(conn).extend_from_slice(&bytes);
        }
        self.held_look_at = self.own.holds_any().then_some(now + HELD_LOOK);
        self.end_runs(now);
        if self.farewell_at.take_if(|at| *at <= now).is_some() {
            let left = self.own.places();
            if !left.is_empty() {
                tracing::warn!(flows = left.len(), "the time to end is over: flows are reset");
            }
            for (key, bond, id) in left {
                self.agent.reset(bond, id, ResetCode::Gone);
                self.own.fail(key, ResetCode::Gone, io);
            }
        }
        self.open_ways(now, io);
        self.report_taken(now, io);
        self.with_agent(now, io, |agent, desk| agent.settle(now, desk));
        let refused = self.agent.memory().refused;
        let before = std::mem::replace(&mut self.refused, refused);
        if refused > before {
            self.own.shared.metrics.pieces_refused.add(refused - before);
        }
        self.count_datagrams();
        self.go_on_reporting(now, io);
    }

    fn wake_at(&self) -> Option<Moment> {
        if !self.begun || self.reporting.is_some() {
            return Some(Moment(0));
        }
        let opens = self.own.rate_opens_at();
        let held = self.held_look_at;
        let others = [self.own.next_expiry(), self.run_ends_at, opens, self.farewell_at, held];
        others.into_iter().chain([self.agent.wake_at()]).flatten().min()
    }

    fn stop(&mut self, now: Moment, _: &mut Io<'_>) {
        self.agent.stop();
        self.farewell_at = Some(now + self.farewell);
    }

    fn may_stop(&self) -> bool {
        self.agent.is_quiet()
    }
}

/// What goes with a user's connection to another shard.
struct Gift<'a> {
    flow: &'a flow::Flow,
    opening: &'a Opening,
    from: SocketAddr,
}

/// A gift as it arrives.
struct Given {
    peer: PeerId,
    speaks: Speaks,
    ended: bool,
    from: SocketAddr,
    opening: Opening,
    held: Vec<u8>,
}

impl Gift<'_> {
    fn to_note(&self) -> Vec<u8> {
        let speaks = match self.flow.speaks {
            Speaks::Nothing => 0,
            Speaks::Socks => 1,
            Speaks::Connect => 2,
        };
        let [low, high] = self.flow.peer.0.to_le_bytes();
        let mut note = vec![GIFT_USER, low, high, speaks, u8::from(self.flow.ended_here)];
        let opening = Opening { from: Some(self.from), ..self.opening.clone() };
        opening.write(&mut note);
        note.extend_from_slice(&self.flow.held);
        note
    }
}

impl Given {
    fn from_note(note: &[u8]) -> Option<Given> {
        let ([low, high, speaks, ended], rest) = note.split_first_chunk()?;
        let speaks = match speaks {
            0 => Speaks::Nothing,
            1 => Speaks::Socks,
            _ => Speaks::Connect,
        };
        let (opening, taken) = Opening::read(rest).ok()??;
        Some(Given {
            peer: PeerId(u16::from_le_bytes([*low, *high])),
            speaks,
            ended: *ended != 0,
            from: opening.from?,
            opening,
            held: rest[taken..].to_vec(),
        })
    }
}

/// A target that is not a name, as an address.
pub(crate) fn address_of(target: &Target) -> Option<SocketAddr> {
    match target {
        Target::Address(ip, port) => Some(SocketAddr::new(*ip, *port)),
        Target::Host(..) | Target::Service(_) => None,
    }
}
