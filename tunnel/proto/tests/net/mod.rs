//! Whole agents in virtual time, on connections that behave as TCP's do: bytes in order, cut
//! anywhere, until one dies with or without a word.
//!
//! Each process is a site with some shards. Applications are judged as in `world`: what a flow
//! delivers is what its other end wrote, and in order.

#![allow(clippy::disallowed_types, reason = "shards of a test's site share what threads would")]
#![allow(dead_code, reason = "each of the tests that share it uses its part")]

pub(crate) mod air;
pub(crate) mod star;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use ringway_core::rng::Rng;
use ringway_core::{ConnId, Moment, Span};
use ringway_crypto::{
    Backend, Credentials, Entropy, Listener, NetworkKey, PeerProof, PrivateKey, Psk, PublicKey,
    Secret, SessionId, Suite,
};
use ringway_tunnel_proto::sabotage::Rule;
use ringway_tunnel_proto::{
    Agent, AgentSettings, Arrived, BondId, BondReport, Dropped, Event, FlowId, Host, Identity,
    Instance, Note, Peer, PeerId, Registry, ResetCode, Route,
};

use air::Air;

/// One step of virtual time.
pub(crate) const STEP: Span = Span::from_ms(1);
/// The only peer that each site has.
pub(crate) const PEER: PeerId = PeerId(0);
/// The wall clock when time begins.
const WALL_MS: u64 = 1_800_000_000_000;

/// A connection by which nothing gets through is given up by both kernels after this time.
pub(crate) const UNHEARD_MAX: Span = Span::from_s(20);
/// Turns that an agent may want at one moment: more, and it is spinning.
const TURNS_MAX: usize = 8;

/// One direction of a connection.
#[derive(Default)]
pub(crate) struct Pipe {
    pub(crate) bytes: VecDeque<u8>,
    /// What was said first, and how many bytes have arrived.
    pub(crate) first: Vec<u8>,
    pub(crate) arrived: usize,
    /// What arrives first is not what was said: its head was changed on the way.
    pub(crate) head_forged: bool,
    /// Nothing gets through any more, and nobody is told.
    silent: bool,
    /// Nothing gets through before then.
    pub(crate) stalled_until: Moment,
}

/// A connection: from a shard of one site to a shard of another.
pub(crate) struct Wire {
    ends: [(usize, usize, ConnId); 2],
    pub(crate) pipes: [Pipe; 2],
    alive: bool,
    /// When a silent one is given up.
    ends_at: Option<Moment>,
}

/// What an application knows of one flow.
#[derive(Default)]
pub(crate) struct App {
    pub(crate) read: Vec<u8>,
    pub(crate) finished: bool,
    pub(crate) closed: bool,
    pub(crate) reset: Option<ResetCode>,
}

/// What is at an address where no site is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nobody {
    Refuses,
    Silent,
}

/// What one shard's agent asked for in a call.
#[derive(Default)]
pub(crate) struct Desk {
    out: BTreeMap<ConnId, Vec<u8>>,
    backlog: BTreeMap<ConnId, usize>,
    dials: Vec<(ConnId, Option<Nobody>)>,
    /// Who is at the addresses that are dialled next, and whether others are left of the round
    /// then; behind them the other site is.
    pub(crate) nobody: VecDeque<(Nobody, bool)>,
    others_left: bool,
    /// With those whether what was said before is sent: nothing was lost by them.
    closes: Vec<(ConnId, bool)>,
    gifts: Vec<(ConnId, u8, Vec<u8>)>,
    due: BTreeMap<ConnId, Moment>,
    pub(crate) apps: BTreeMap<(BondId, FlowId), App>,
    /// Flows that were over when their name was used again.
    pub(crate) past: Vec<((BondId, FlowId), App)>,
    /// Datagrams that came: the channel, and the bytes.
    pub(crate) datagrams: Vec<(u64, Vec<u8>)>,
    /// Connections of whom nobody invited, and what each was told.
    pub(crate) strangers: BTreeMap<ConnId, Vec<u8>>,
    /// How often the agent wanted to dial.
    pub(crate) attempts: u64,
    pub(crate) notes: Vec<Note>,
    /// Carriers that were lost, and how many bytes with each.
    pub(crate) lost: Vec<(ConnId, u64)>,
    /// Sessions that the agent has spoken of.
    told: BTreeSet<BondId>,
    /// What users have said who wait for a session.
    pub(crate) waiting: Vec<Vec<u8>>,
    replaced: Vec<SessionId>,
    registry: Rc<RefCell<Registry>>,
    next_conn: u32,
    now: Moment,
    /// By how much this site's clock is ahead, in milliseconds.
    pub(crate) ahead_ms: i64,
    /// Nobody can be dialled.
    pub(crate) cut_off: bool,
    scratch: Vec<u8>,
    /// There is a way for datagrams; those that leave; those for other shards.
    has_air: bool,
    trains: Vec<(Route, usize, Vec<u8>)>,
    forwards: Vec<(u8, Arrived, Vec<u8>)>,
    /// How often the agent looked at a connection, or said something by one.
    pub(crate) looks: Cell<u64>,
}

impl Host for Desk {
    fn dial(&mut self, _: PeerId) -> Option<ConnId> {
        self.attempts += 1;
        if self.cut_off {
            return None;
        }
        let conn = self.fresh_conn();
        let nobody = self.nobody.pop_front();
        self.others_left = nobody.is_some_and(|(_, left)| left);
        self.dials.push((conn, nobody.map(|(who, _)| who)));
        Some(conn)
    }

    fn others_left(&self, _: PeerId) -> bool {
        self.others_left
    }

    fn out(&mut self, conn: ConnId) -> &mut Vec<u8> {
        self.looks.set(self.looks.get() + 1);
        if self.backlog.contains_key(&conn) {
            return self.out.entry(conn).or_default();
        }
        self.scratch.clear();
        &mut self.scratch
    }

    fn backlog(&self, conn: ConnId) -> usize {
        self.looks.set(self.looks.get() + 1);
        let out = self.out.get(&conn).map_or(0, Vec::len);
        out + self.backlog.get(&conn).copied().unwrap_or_default()
    }

    fn datagram(&mut self, _: BondId, channel: u64, bytes: &[u8]) {
        self.datagrams.push((channel, bytes.to_vec()));
    }

    fn await_drain(&mut self, _: ConnId, _: usize) {}

    fn call_overdue(&mut self, conn: ConnId, after: Span) {
        self.due.insert(conn, self.now + after);
    }

    fn pause(&mut self, _: ConnId) {}

    fn close(&mut self, conn: ConnId, flush: bool) {
        self.closes.push((conn, flush));
    }

    fn give(&mut self, conn: ConnId, shard: u8, note: &[u8]) {
        self.gifts.push((conn, shard, note.to_vec()));
    }

    fn wall_ms(&self) -> u64 {
        (WALL_MS + self.now.0 / 1_000_000).saturating_add_signed(self.ahead_ms)
    }

    fn registry<T>(&mut self, ask: impl FnOnce(&mut Registry) -> T) -> T {
        ask(&mut self.registry.borrow_mut())
    }

    fn replaced(&mut self, session: SessionId) {
        self.replaced.push(session);
    }

    fn route(&mut self, _: PeerId, _: ConnId) -> Option<Route> {
        self.has_air.then(Net::route)
    }

    fn train(&mut self, route: &Route, datagram_bytes: usize) -> Option<&mut Vec<u8>> {
        self.trains.push((*route, datagram_bytes, Vec::new()));
        self.trains.last_mut().map(|(.., bytes)| bytes)
    }

    fn forward(&mut self, shard: u8, arrived: &Arrived, datagrams: &[u8]) {
        self.forwards.push((shard, *arrived, datagrams.to_vec()));
    }

    fn data(&mut self, bond: BondId, flow: FlowId, bytes: &[u8]) {
        let app = self.apps.get_mut(&(bond, flow)).expect("bytes of a flow that was not opened");
        assert!(!app.finished && !app.closed && app.reset.is_none(), "bytes after the end");
        app.read.extend_from_slice(bytes);
    }

    fn flow(&mut self, bond: BondId, event: Event) {
        match event {
            Event::Opened(flow) => {
                assert!(self.told.contains(&bond), "whose flow is it?");
                if let Some(past) = self.apps.insert((bond, flow), App::default()) {
                    assert!(past.closed || past.reset.is_some(), "{flow:?} is still open");
                    self.past.push(((bond, flow), past));
                }
            }
            Event::Finished(flow) => self.app(bond, flow).finished = true,
            Event::Closed(flow) => self.app(bond, flow).closed = true,
            Event::Reset(flow, code) => self.app(bond, flow).reset = Some(code),
            Event::Writable(_) => {}
            other => panic!("{other:?} is the agent's own matter"),
        }
    }

    fn bond(&mut self, bond: BondId, _: PeerId, _: bool) {
        self.told.insert(bond);
    }

    fn note(&mut self, source: Option<ConnId>, note: Note) {
        if let (Some(conn), Note::Lost(_, bytes)) = (source, note) {
            self.lost.push((conn, bytes));
        }
        self.notes.push(note);
    }
}

impl Desk {
    fn app(&mut self, bond: BondId, flow: FlowId) -> &mut App {
        self.apps.get_mut(&(bond, flow)).expect("whose flow is it?")
    }

    fn fresh_conn(&mut self) -> ConnId {
        let conn = ConnId { index: self.next_conn, generation: 1 };
        self.next_conn += 1;
        self.backlog.insert(conn, 0);
        conn
    }
}

/// One shard of a site.
pub(crate) struct Shard {
    pub(crate) agent: Agent,
    pub(crate) desk: Desk,
}

/// Two sites and what is between them: 0 dials 1.
pub(crate) struct Net {
    pub(crate) now: Moment,
    pub(crate) sites: [Vec<Shard>; 2],
    pub(crate) wires: Vec<Wire>,
    pub(crate) rng: Rng,
    lives: u8,
    /// Which shard of the far site takes the next connection.
    next_shard: usize,
    /// Bytes that a wire moves in a step, each way.
    pub(crate) bytes_per_step: usize,
    /// Wires move bytes in each so many steps only: a longer path.
    pub(crate) carry_every: u64,
    /// What a wire moves is shared by all.
    pub(crate) narrow: bool,
    /// Ends of wires whose other end left them, by site.
    pub(crate) left: BTreeSet<(usize, ConnId)>,
    /// What the sites know of each other.
    pub(crate) secrets: Secrets,
    /// Carriers that a session of the near site could use behind a turn: the most since somebody
    /// took this, where a shard had more connections than a session may.
    pub(crate) most_usable: usize,
    /// The site that does nothing.
    pub(crate) frozen: Option<usize>,
    /// Connections that were begun.
    pub(crate) dialled: usize,
    /// What datagrams meet, where there are any.
    pub(crate) air: Option<Air>,
    /// The rule that is switched off.
    broken: Option<Rule>,
}

fn secret(byte: u8) -> Secret {
    Secret::new([byte; 32])
}

pub(crate) fn key(byte: u8) -> PrivateKey {
    PrivateKey::new(secret(byte))
}

/// Carriers that a shard of the near site may open.
pub(crate) const CARRIERS_MAX: usize = 4;
/// How long flows wait for carriers.
pub(crate) const WAIT: Span = Span::from_s(30);

impl Net {
    /// Sites of so many shards, not yet connected.
    pub(crate) fn new(seed: u64, shards: [u8; 2]) -> Net {
        Net::without(None, seed, shards)
    }

    /// The same, with a rule switched off.
    pub(crate) fn without(broken: Option<Rule>, seed: u64, shards: [u8; 2]) -> Net {
        Net::with(broken, seed, shards, Secrets::default())
    }

    /// The same, of sites that know this of each other.
    pub(crate) fn with(broken: Option<Rule>, seed: u64, shards: [u8; 2], secrets: Secrets) -> Net {
        let mut net = Net {
            narrow: false,
            left: BTreeSet::new(),
            secrets,
            now: Moment(1_000_000),
            sites: [Vec::new(), Vec::new()],
            wires: Vec::new(),
            rng: Rng::new(seed),
            lives: 0,
            next_shard: 0,
            bytes_per_step: 100_000,
            carry_every: 1,
            most_usable: 0,
            frozen: None,
            dialled: 0,
            air: None,
            broken,
        };
        for (site, shards) in shards.into_iter().enumerate() {
            net.start(site, shards);
        }
        net
    }

    /// Starts a site anew: it has forgotten everything.
    pub(crate) fn start(&mut self, site: usize, shards: u8) {
        for wire in &mut self.wires {
            wire.alive &= wire.ends.iter().all(|end| end.0 != site);
        }
        self.lives += 1;
        let life = self.lives;
        let registry = Rc::new(RefCell::new(Registry::default()));
        self.sites[site] =
            (0..shards).map(|shard| self.shard(site, (shard, shards), life, &registry)).collect();
        self.hang_up();
    }

    /// Both sites' files are read again: their sessions may have carriers of packets, or not.
    pub(crate) fn allow_packets(&mut self, packets: bool) {
        (0..2).for_each(|site| self.allow_packets_at(site, packets));
    }

    /// The same of one site.
    pub(crate) fn allow_packets_at(&mut self, site: usize, packets: bool) {
        let (secrets, now) = (self.secrets, self.now);
        for Shard { agent, desk } in &mut self.sites[site] {
            let peer = Peer { packets, ..secrets.peer(site) };
            desk.has_air = packets;
            agent.configure(now, secrets.listener(site), vec![Some(peer)], desk);
        }
    }

    /// A site's file is read again: the other one has these private keys.
    pub(crate) fn trust(&mut self, site: usize, keys: &[u8]) {
        let secrets = self.secrets;
        let proof = |byte: &u8| secrets.proof(*byte);
        for Shard { agent, desk } in &mut self.sites[site] {
            let proofs = keys.iter().map(proof).collect();
            let known = Peer { proofs, packets: desk.has_air, ..secrets.peer(site) };
            agent.configure(self.now, secrets.listener(site), vec![Some(known)], desk);
        }
    }

    /// A site's file is read again: these are its private keys, and those the other one's.
    pub(crate) fn keys(&mut self, site: usize, own: &[u8], theirs: &[u8]) {
        let public = |byte: &u8| key(*byte).public();
        let dial = |mine: &u8| {
            let mine = key(*mine);
            theirs.iter().map(public).map(move |theirs| Credentials::Keys {
                mine: mine.clone(),
                theirs,
                psk: None,
            })
        };
        let known = Peer {
            credentials: own.iter().flat_map(dial).filter(|_| site == 0).collect(),
            proofs: theirs.iter().map(|byte| (PeerProof::Key(public(byte)), None)).collect(),
            carriers_max: CARRIERS_MAX,
            packets: self.air.is_some(),
        };
        let identities: Vec<PrivateKey> = own.iter().map(|byte| key(*byte)).collect();
        for Shard { agent, desk } in &mut self.sites[site] {
            let listener =
                Listener { identities: identities.clone(), ..self.secrets.listener(site) };
            agent.configure(self.now, listener, vec![Some(known.clone())], desk);
        }
    }

    /// Under which keys the session counts, as each site says: the near one's own key and the
    /// other one's, then the near one's.
    pub(crate) fn counts_under(&mut self) -> [Option<PublicKey>; 3] {
        let mut said = [None; 3];
        for (site, shards) in self.sites.iter_mut().enumerate() {
            for Shard { agent, desk } in shards {
                for report in agent.report(true, desk) {
                    if site == 1 {
                        let proof =
                            report.session.and_then(|id| desk.registry.borrow().proof_of(id));
                        said[2] = proof.map(|proof| match proof {
                            PeerProof::Key(key) => key,
                            PeerProof::Shared(_) => panic!("there are no shared keys"),
                        });
                    } else if let Some(Identity { mine, theirs: PeerProof::Key(theirs) }) =
                        report.identity
                    {
                        (said[0], said[1]) = (mine, Some(theirs));
                    }
                }
            }
        }
        said
    }

    /// Nobody at the far site knows of this session any more, though its carriers work: what was
    /// there stands between the two.
    pub(crate) fn forget(&mut self, session: SessionId) {
        self.sites[1][0].desk.registry.borrow_mut().end(session);
    }

    /// A site hears that its machine may be a copy. Returns what it dropped; says whether anything
    /// was said on a connection of before.
    pub(crate) fn begin_anew(&mut self, site: usize, fresh: &[u8]) -> (Dropped, bool) {
        let now = self.now;
        let mut all = Dropped::default();
        let mut speaks = false;
        for shard in 0..self.sites[site].len() {
            let Shard { agent, desk } = &mut self.sites[site][shard];
            let said = |desk: &Desk, conn| desk.out.get(&conn).map_or(0, Vec::len);
            let before = desk.backlog.keys().map(|conn| (*conn, said(desk, *conn)));
            let before: Vec<_> = before.collect();
            let dropped = agent.begin_anew(now, fresh, desk);
            all.sessions += dropped.sessions;
            all.flows += dropped.flows;
            agent.settle(now, desk);
            speaks |= before.iter().any(|(conn, len)| said(desk, *conn) > *len);
            self.collect(site, shard);
        }
        self.hang_up();
        (all, speaks)
    }

    /// The near site's file is read again: it has the far one's address, or has it no more.
    pub(crate) fn know_address(&mut self, known: bool) {
        for Shard { agent, desk } in &mut self.sites[0] {
            let mut far = Peer { packets: desk.has_air, ..self.secrets.peer(0) };
            far.credentials.retain(|_| known);
            agent.configure(self.now, self.secrets.listener(0), vec![Some(far)], desk);
        }
    }

    /// Both ends of wires that died hear of it.
    fn hang_up(&mut self) {
        let now = self.now;
        for at in (0..self.wires.len()).rev() {
            if !self.wires[at].alive {
                let wire = self.wires.remove(at);
                for (site, shard, conn) in wire.ends {
                    if let Some(Shard { agent, desk }) = self.sites[site].get_mut(shard)
                        && desk.backlog.remove(&conn).is_some()
                    {
                        if self.left.contains(&(site, conn)) {
                            agent.ended(now, conn, desk);
                        } else {
                            agent.closed(now, conn, desk);
                        }
                    }
                }
            }
        }
    }

    fn shard(
        &mut self,
        site: usize,
        (shard, shards): (u8, u8),
        life: u8,
        registry: &Rc<RefCell<Registry>>,
    ) -> Shard {
        let settings = settings(Instance([life; 16]), (shard, shards), 1000);
        let chance = self.rng.next_u64().to_le_bytes();
        let mut seed = [life; 32];
        seed[..8].copy_from_slice(&chance);
        let agent =
            Agent::new(settings, Secret::new([5; 32]), Entropy::from_seed(Secret::new(seed)));
        let mut agent = sabotaged(agent, self.broken);
        // Ids are not those of the life before.
        let next_conn = u32::from(life) * 100_000 + u32::from(shard) * 10_000;
        let registry = Rc::clone(registry);
        let mut desk = Desk { now: self.now, next_conn, registry, ..Desk::default() };
        let (listener, mut peer) = (self.secrets.listener(site), self.secrets.peer(site));
        (peer.packets, desk.has_air) = (self.air.is_some(), self.air.is_some());
        agent.configure(self.now, listener, vec![Some(peer)], &mut desk);
        Shard { agent, desk }
    }

    /// One step of time for everybody.
    pub(crate) fn step(&mut self) {
        self.now = self.now + STEP;
        let now = self.now;
        for site in (0..2).filter(|site| self.frozen != Some(*site)).collect::<Vec<_>>() {
            for shard in 0..self.sites[site].len() {
                let Shard { agent, desk } = &mut self.sites[site][shard];
                desk.now = now;
                let due: Vec<ConnId> =
                    desk.due.iter().filter(|(_, at)| **at <= now).map(|(conn, _)| *conn).collect();
                for conn in due {
                    desk.due.remove(&conn);
                    if desk.backlog.contains_key(&conn) {
                        agent.overdue(now, conn, desk);
                    }
                }
                if let Some(bond) = agent.bond_to(PEER) {
                    for said in std::mem::take(&mut desk.waiting) {
                        let flow = agent.open(now, bond).expect("it is up");
                        desk.apps.insert((bond, flow), App::default());
                        agent.push(bond, flow, &said);
                    }
                }
                let due = |agent: &Agent| agent.wake_at().is_some_and(|at| at <= now);
                let mut turns = 0;
                while due(agent) {
                    agent.settle(now, desk);
                    turns += 1;
                    assert!(turns < TURNS_MAX, "it spins");
                }
                if site == 0 && desk.backlog.len() > CARRIERS_MAX {
                    let reports = agent.report(false, desk);
                    self.most_usable =
                        reports.iter().map(usable).fold(self.most_usable, usize::max);
                }
                self.collect(site, shard);
            }
        }
        if (now.0 / STEP.0).is_multiple_of(self.carry_every) {
            self.carry();
        }
        self.carry_datagrams();
    }

    /// Does what a shard asked for.
    fn collect(&mut self, site: usize, shard: usize) {
        self.collect_datagrams(site, shard);
        let now = self.now;
        let desk = &mut self.sites[site][shard].desk;
        let (dials, closes) = (std::mem::take(&mut desk.dials), std::mem::take(&mut desk.closes));
        let (gifts, out) = (std::mem::take(&mut desk.gifts), std::mem::take(&mut desk.out));
        let replaced = std::mem::take(&mut desk.replaced);
        for (conn, nobody) in dials {
            match nobody {
                None => {}
                Some(Nobody::Silent) => continue,
                Some(Nobody::Refuses) => {
                    let Shard { agent, desk } = &mut self.sites[site][shard];
                    desk.backlog.remove(&conn);
                    agent.connected(now, conn, false, desk);
                    continue;
                }
            }
            let there = self.next_shard % self.sites[1 - site].len();
            self.next_shard += 1;
            self.dialled += 1;
            let other = &mut self.sites[1 - site][there];
            let accepted = other.desk.fresh_conn();
            let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
            other.agent.accepted(now, accepted, source, &mut other.desk);
            let ends = [(site, shard, conn), (1 - site, there, accepted)];
            self.wires.push(Wire { ends, pipes: Default::default(), alive: true, ends_at: None });
            let Shard { agent, desk } = &mut self.sites[site][shard];
            // The time that was given to the connect ends with it.
            desk.due.remove(&conn);
            agent.connected(now, conn, true, desk);
        }
        let later = std::mem::take(&mut self.sites[site][shard].desk.out);
        for (conn, bytes) in out.into_iter().chain(later) {
            self.say((site, shard), conn, bytes);
        }
        for (conn, flush) in closes {
            if let Some((wire, end)) = self.wire(site, conn) {
                let (there, _, other) = self.wires[wire].ends[1 - end];
                self.left.extend(flush.then_some((there, other)));
                // The other end of a silent one hears nothing of it.
                let wire = &mut self.wires[wire];
                wire.alive &= wire.ends_at.is_some();
            }
            self.sites[site][shard].desk.backlog.remove(&conn);
        }
        for (conn, to, note) in gifts {
            let to = usize::from(to);
            self.sites[site][shard].desk.backlog.remove(&conn);
            let stranger = self.sites[site][shard].desk.strangers.remove(&conn);
            let fresh = self.sites[site][to].desk.fresh_conn();
            self.sites[site][to].desk.strangers.extend(stranger.map(|said| (fresh, said)));
            if let Some((wire, end)) = self.wire(site, conn) {
                self.wires[wire].ends[end] = (site, to, fresh);
            }
            let Shard { agent, desk } = &mut self.sites[site][to];
            agent.adopted(now, fresh, &note, desk);
        }
        for session in replaced {
            for Shard { agent, desk } in &mut self.sites[site] {
                agent.replaced(now, session, desk);
            }
        }
    }

    /// A shard sends bytes.
    fn say(&mut self, (site, shard): (usize, usize), conn: ConnId, bytes: Vec<u8>) {
        if let Some((wire, end)) = self.wire(site, conn) {
            let pipe = &mut self.wires[wire].pipes[end];
            let more = bytes.len().min(2000 - pipe.first.len().min(2000));
            pipe.first.extend_from_slice(&bytes[..more]);
            pipe.bytes.extend(bytes);
        } else if let Some(said) = self.sites[site][shard].desk.strangers.get_mut(&conn) {
            said.extend(bytes);
        }
    }

    fn wire(&self, site: usize, conn: ConnId) -> Option<(usize, usize)> {
        self.wires.iter().enumerate().find_map(|(at, wire)| {
            let end = wire.ends.iter().position(|end| end.0 == site && end.2 == conn)?;
            Some((at, end))
        })
    }

    /// Moves bytes.
    fn carry(&mut self) {
        let now = self.now;
        let among = if self.narrow { self.wires.len().max(1) } else { 1 };
        let room = (self.bytes_per_step / among).max(1);
        for at in 0..self.wires.len() {
            self.wires[at].alive &= self.wires[at].ends_at.is_none_or(|end| now < end);
            for end in 0..2 {
                let wire = &mut self.wires[at];
                let to = wire.ends[1 - end].0;
                let pipe = &mut wire.pipes[end];
                let stuck = pipe.silent || now < pipe.stalled_until;
                if !wire.alive || stuck || self.frozen == Some(to) {
                    continue;
                }
                let many = pipe.bytes.len().min(room);
                if let Some(air) = &mut self.air
                    && many > 0
                    && air.take(now, to, many).is_none()
                {
                    continue;
                }
                let mut bytes: Vec<u8> = pipe.bytes.drain(..many).collect();
                pipe.arrived += many;
                let (site, shard, conn) = wire.ends[1 - end];
                // Cut anywhere.
                let mut rest = &mut bytes[..];
                while !rest.is_empty() {
                    let cut = (1 + self.rng.below(rest.len() as u64)) as usize;
                    let (piece, later) = rest.split_at_mut(cut);
                    let Shard { agent, desk } = &mut self.sites[site][shard];
                    if desk.gifts.iter().any(|(gift, ..)| *gift == conn) {
                        // Who is given it reads what nobody has read.
                        let unread = piece.iter().chain(later.iter()).rev();
                        let pipe = &mut self.wires[at].pipes[end];
                        unread.for_each(|byte| pipe.bytes.push_front(*byte));
                        break;
                    }
                    if desk.backlog.contains_key(&conn) {
                        agent.received(now, conn, piece, desk);
                    }
                    rest = later;
                }
            }
        }
        for wire in &self.wires {
            for end in 0..2 {
                let (site, shard, conn) = wire.ends[end];
                let waits = wire.pipes[end].bytes.len();
                if let Some(backlog) = self.sites[site][shard].desk.backlog.get_mut(&conn) {
                    *backlog = waits;
                }
            }
        }
        self.hang_up();
    }

    /// Steps until it is so, at most for `most`.
    pub(crate) fn run_until(&mut self, most: Span, mut so: impl FnMut(&mut Net) -> bool) {
        let end = self.now + most;
        while !so(self) {
            assert!(self.now < end, "not within {} ms", most.0 / 1_000_000);
            self.step();
        }
    }

    /// Steps for so long.
    pub(crate) fn run(&mut self, time: Span) {
        let end = self.now + time;
        self.run_until(Span(time.0 + 2 * STEP.0), |net| net.now >= end);
    }

    /// Steps until shard 0 of site 0 has a session that works.
    pub(crate) fn connect(&mut self) -> BondId {
        self.run_until(Span::from_s(60), |net| net.sites[0][0].agent.bond_to(PEER).is_some());
        self.sites[0][0].agent.bond_to(PEER).expect("it is up")
    }

    /// How many connections there are.
    pub(crate) fn wires(&self) -> usize {
        self.wires.len()
    }

    /// Connections die, and both ends are told.
    pub(crate) fn cut(&mut self, which: impl Fn(usize) -> bool) {
        for (at, wire) in self.wires.iter_mut().enumerate() {
            wire.alive &= !which(at);
        }
        self.hang_up();
    }

    /// Connections fall silent, and nobody is told.
    pub(crate) fn silence(&mut self, which: impl Fn(usize) -> bool) {
        for (at, wire) in self.wires.iter_mut().enumerate() {
            if which(at) {
                wire.pipes.iter_mut().for_each(|pipe| pipe.silent = true);
                wire.ends_at.get_or_insert(self.now + UNHEARD_MAX);
            }
        }
    }

    /// A site's end of a connection.
    pub(crate) fn conn_of(&self, site: usize, wire: usize) -> ConnId {
        let end = self.wires[wire].ends.iter().find(|end| end.0 == site);
        end.expect("it has one").2
    }

    /// The time of the day.
    pub(crate) fn wall_ms(&self) -> u64 {
        WALL_MS + self.now.0 / 1_000_000
    }

    /// Whether nothing is under way, and when something happens next by itself.
    pub(crate) fn next(&self) -> Option<Moment> {
        let under_way = |wire: &Wire| {
            let moves = |pipe: &Pipe| !pipe.silent && !pipe.bytes.is_empty();
            !wire.alive || wire.pipes.iter().any(moves)
        };
        if self.wires.iter().any(under_way) {
            return None;
        }
        let desks = self.sites.iter().flatten().flat_map(|shard| shard.desk.due.values().copied());
        let agents = self.sites.iter().flatten().filter_map(|shard| shard.agent.wake_at());
        let wires = self.wires.iter().filter_map(|wire| wire.ends_at);
        let air = self.air.as_ref().and_then(Air::next);
        desks.chain(agents).chain(wires).chain(air).min()
    }

    /// What was said first by a connection, by who opened it.
    pub(crate) fn first_said(&self, wire: usize) -> Vec<u8> {
        self.wires[wire].pipes[0].first.clone()
    }

    /// Somebody connects to the far site and says this.
    pub(crate) fn knock(&mut self, shard: usize, said: &mut [u8]) -> ConnId {
        let now = self.now;
        let Shard { agent, desk } = &mut self.sites[1][shard];
        let conn = desk.fresh_conn();
        desk.strangers.insert(conn, Vec::new());
        agent.accepted(now, conn, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), desk);
        agent.received(now, conn, said, desk);
        conn
    }

    /// What the far site has said to a connection that nobody is at.
    pub(crate) fn said_to(&self, shard: usize, conn: ConnId) -> usize {
        let desk = &self.sites[1][shard].desk;
        desk.out.get(&conn).map_or(0, Vec::len) + desk.strangers[&conn].len()
    }

    /// Sessions whose shards are about to hear that they are replaced.
    pub(crate) fn replacing(&self, site: usize) -> usize {
        self.sites[site].iter().map(|shard| shard.desk.replaced.len()).sum()
    }

    /// How many connections are open at a site.
    pub(crate) fn connections(&self, site: usize) -> usize {
        self.sites[site].iter().map(|shard| shard.desk.backlog.len()).sum()
    }

    /// Whether a connection is open at the far site.
    pub(crate) fn is_open(&self, shard: usize, conn: ConnId) -> bool {
        let desk = &self.sites[1][shard].desk;
        desk.backlog.contains_key(&conn) && !desk.closes.iter().any(|one| one.0 == conn)
    }

    /// A site does nothing for so long, and then everything at once, as a process that is stopped.
    pub(crate) fn freeze(&mut self, site: usize, time: Span) {
        self.frozen = Some(site);
        self.run(time);
        self.frozen = None;
    }

    /// Opens a flow from shard 0 of site 0 and writes to it.
    pub(crate) fn open(&mut self, bond: BondId, said: &[u8]) -> FlowId {
        let Shard { agent, desk } = &mut self.sites[0][0];
        let flow = agent.open(self.now, bond).expect("it is up");
        desk.apps.insert((bond, flow), App::default());
        agent.push(bond, flow, said);
        flow
    }

    /// What site 1 has read of a flow, wherever its session is.
    pub(crate) fn far_apps(&self) -> impl Iterator<Item = (usize, BondId, FlowId, &App)> {
        let shards = self.sites[1].iter().enumerate();
        shards.flat_map(|(shard, it)| {
            it.desk.apps.iter().map(move |((bond, flow), app)| (shard, *bond, *flow, app))
        })
    }
}

/// Carriers of a session that can be used.
pub(crate) fn usable(report: &BondReport) -> usize {
    report.members.iter().filter(|member| member.carrier.usable).count()
}

/// How a shard's agent is set up.
fn settings(life: Instance, (shard, shards): (u8, u8), flows_max: usize) -> AgentSettings {
    AgentSettings {
        instance: life,
        shard,
        shards,
        backends: [Backend::AwsLc; Suite::ALL.len()],
        memory: 1 << 24,
        flows_max,
        wait: WAIT,
    }
}

#[cfg_attr(not(feature = "sabotage"), expect(unused_mut, reason = "there is nothing to switch"))]
fn sabotaged(mut agent: Agent, broken: Option<Rule>) -> Agent {
    match broken {
        None => {}
        #[cfg(feature = "sabotage")]
        Some(rule) => agent.break_rule(rule),
        #[cfg(not(feature = "sabotage"))]
        Some(rule) => panic!("{rule:?} cannot be switched off in this build"),
    }
    agent
}

/// What two sites know of each other. Sites have the keys 1 and 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Secrets {
    /// Each other's keys.
    #[default]
    Keys,
    /// And a second secret.
    KeysAndSecond,
    /// One secret, and no keys.
    Shared,
}

impl Secrets {
    fn second(self) -> Option<Psk> {
        (self == Secrets::KeysAndSecond).then(|| Psk::new(secret(50)))
    }

    /// The secret that who has this key shares with the other site.
    fn shared(byte: u8) -> Psk {
        Psk::new(secret(if byte <= 2 { 51 } else { 60 + byte }))
    }

    /// How who has this key proves it.
    pub(crate) fn proof(self, byte: u8) -> (PeerProof, Option<Psk>) {
        match self {
            Secrets::Shared => (PeerProof::Shared(Secrets::shared(byte).id()), None),
            _ => (PeerProof::Key(key(byte).public()), self.second()),
        }
    }

    /// What a site dials with.
    pub(crate) fn credentials(self, site: usize) -> Credentials {
        let (mine, theirs) = (key(site as u8 + 1), key(2 - site as u8).public());
        match self {
            Secrets::Shared => Credentials::Shared(Secrets::shared(1)),
            _ => Credentials::Keys { mine, theirs, psk: self.second() },
        }
    }

    /// Who a site is.
    pub(crate) fn listener(self, site: usize) -> Listener {
        let is_shared = self == Secrets::Shared;
        Listener {
            networks: vec![NetworkKey::new(secret(100))],
            identities: vec![key(site as u8 + 1)],
            shared: if is_shared { vec![Secrets::shared(1)] } else { Vec::new() },
            suites: vec![Suite::Aes128Gcm],
        }
    }

    /// How a site knows the other one: 0 dials.
    pub(crate) fn peer(self, site: usize) -> Peer {
        Peer {
            credentials: if site == 0 { vec![self.credentials(site)] } else { Vec::new() },
            proofs: vec![self.proof(2 - site as u8)],
            carriers_max: CARRIERS_MAX,
            packets: false,
        }
    }
}
