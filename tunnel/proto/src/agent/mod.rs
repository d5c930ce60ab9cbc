//! One shard's end of all tunnels: who may come, sessions, and the carriers under them.
//!
//! ```text
//! near:  dial --answer--> session up --join--> more carriers ... all lost --join--> goes on
//!                           ^------ the far agent has forgotten it: a new one ------/
//! far:   knock --proof--> newcomer --first record--> session ... all lost --wait over--> gone
//! ```
//!
//! The driver owns sockets and time. It says what happens to connections and applications, calls
//! [`Agent::settle`] at the end of each turn and at [`Agent::wake_at`], and is what [`Host`] says.
//!
//! What always holds:
//! - A1  Nobody is answered before the first MAC has verified, and nothing is kept of a session
//!   before its peer has shown its keys. Whoever fails is read and dropped until a time that its
//!   address alone decides.
//! - A2  A session, its flows and its carriers are on one shard. A carrier that comes to another
//!   one is given away with what it has said.
//! - A3  A shard of a peer has one session. A new one replaces it, and its flows are reset: their
//!   other ends are forgotten. While an old one lives it is gone on with, never replaced.
//! - A4  What one session costs in a turn does not depend on how many there are.
//! - A5  What all peers together have here has a bound, whatever they do, and one that holds all
//!   that it may leaves room for the others (`memory.rs`).
//! - A6  After [`Agent::begin_anew`] nothing leaves under a key of before, and no key follows from
//!   what a copy of this machine has.
//!
//! Bounds: connections that have not proved themselves: [`HALF_OPEN_MAX`], the oldest goes first.
//! A session has at most [`CARRIERS_MAX`] carriers. Not here: targets and who may connect to them,
//! users' connections. Tests: `tests/agents.rs`, whole agents in virtual time.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;

use ringway_core::{ConnId, Moment, Span};
use ringway_crypto::{
    Backend, CarrierId, Credentials, Direction, Entropy, Established, Listener, PeerProof, Psk,
    PublicKey, Refused, Secret, SessionId, Suite, SuiteSet,
};

use crate::carrier::CarrierSlot;
use crate::detour::Detour;
use crate::epochs::Epochs;
use crate::frame::{FlowId, ResetCode};
use crate::hello::Instance;
use crate::limits::{CARRIERS_MAX, HALF_OPEN_MAX, NUMBERS_LATE_MAX, WINDOW_FIRST};
use crate::link::Link;
use crate::memory::{Memory, MemoryReport};
use crate::meter::Meter;
use crate::pool::Pool;
use crate::report::FlowReport;
use crate::sabotage::{Rule, Sabotage};
use crate::session::{DatagramRefused, Event, Role, Session, Settings};
use crate::violation::Violation;
use detour::NoRoom;
use identity::Asked;
use pace::Pace;
use packets::{Headers, PacketMember};
pub use registry::{Owner, Registry};

mod anew;
mod bond;
mod carriers;
mod detour;
mod identity;
mod pace;
mod packets;
mod registry;
mod report;

pub use anew::Dropped;
pub use identity::Identity;
pub use packets::{Arrived, DatagramCounts, Route};
pub use report::{BondReport, MemberReport, PacketMemberReport};

/// A peer, by its place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u16);

/// A session of this shard. Used again only after [`Host::flow`] heard the end of all its flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BondId(pub u32);

/// Bytes that are read and dropped from who has failed; from then on it is not read.
const DEAF_BYTES_MAX: u64 = 1024 * 1024;
/// The least time for which who fails is read, and what chance adds.
const DEAF_MIN: Span = Span::from_s(10);
const DEAF_SPREAD_MS: u64 = 30_000;
/// How long an answer, or the first word of a carrier that joined, may take.
const ANSWER_MAX: Span = Span::from_s(5);
/// The same where another address of the peer is left to be tried, and as long for the connect: two
/// first packets that are lost do not cost an address its turn.
const ANSWER_MAX_OTHERS: Span = Span::from_ms(2500);
/// A carrier that does not answer is closed after so long.
const SUSPECT_MAX: Span = Span::from_s(15);
/// After a round of all addresses the next attempt waits for about so long, twice as long each
/// time.
const RETRY_MIN: Span = Span::from_ms(200);
const RETRY_MAX: Span = Span::from_s(10);
/// Who comes meanwhile and waits does so for no longer than this.
const HURRY_EVERY: Span = Span::from_s(1);

/// The ways of a carrier's meter.
const SENT: usize = 0;
const CAME: usize = 1;

/// How a shard's agent is set up.
#[derive(Clone, Copy, Debug)]
pub struct AgentSettings {
    /// This process's life.
    pub instance: Instance,
    /// Which shard, of how many.
    pub shard: u8,
    /// How many there are.
    pub shards: u8,
    /// The library for each of [`Suite::ALL`].
    pub backends: [Backend; Suite::ALL.len()],
    /// Bytes of what comes that may be held, for all peers together, and as many of what is sent.
    pub memory: u64,
    /// Flows of one peer.
    pub flows_max: usize,
    /// How long flows wait when no carrier is left.
    pub wait: Span,
}

/// Another site, as this one knows it.
#[derive(Clone, Default)]
pub struct Peer {
    /// What to show it when dialling, tried in turn; none: it dials us.
    pub credentials: Vec<Credentials>,
    /// How it may prove itself, each with the second secret that goes with it.
    pub proofs: Vec<(PeerProof, Option<Psk>)>,
    /// Carriers that we may open to it.
    pub carriers_max: usize,
    /// Whether its sessions may have carriers of packets.
    pub packets: bool,
}

/// What happened that somebody may want to read about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A session with this peer has begun.
    Up(PeerId),
    /// No carrier to this peer is left, and so many flows wait for one.
    Alone(PeerId, u64),
    /// Carriers to this peer work again, and its flows go on.
    Back(PeerId),
    /// The flows of this peer were given up: so many.
    GivenUp(PeerId, u64),
    /// The peer was started anew, and has forgotten so many flows.
    Forgotten(PeerId, u64),
    /// A dialled connection came to nothing: nobody answered, or it broke.
    NoAnswer(PeerId),
    /// A carrier that joined a session is not answered. The peer, where it is, may have forgotten
    /// the session: it is asked next.
    NotTaken(PeerId),
    /// A dialled connection was answered by what is not the peer, or speaks another version.
    BadAnswer(PeerId),
    /// A session of this peer counts under another key now: the one before may go.
    Moved(PeerId),
    /// A session of this peer should count under the key that comes first in our file, and the peer
    /// does not answer to it.
    NotMoved(PeerId),
    /// Somebody was not let in.
    NotLetIn(NotLetIn),
    /// A carrier was lost, with so many bytes on the way that go again. One that the other side has
    /// left, or has ended in order, is not, if nothing was on its way.
    Lost(PeerId, u64),
    /// A record was forged, or what it said cannot be.
    Broken(PeerId),
    /// Packets to this peer get through, and streams go by them; or they do no more.
    Packets(PeerId, bool),
    /// Packets to this peer get through and are held back: streams go by records.
    HeldBack(PeerId),
    /// Streams go by packets again: those are no slower than records, or no carrier of records is
    /// left or answers, or the session has begun anew, and nothing is known of them.
    NotHeldBack(PeerId),
}

/// Why somebody was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotLetIn {
    /// The message itself.
    Refused(Refused),
    /// The message came before.
    Replayed,
    /// More messages came of late than can be told from replays.
    Flooded,
    /// Nobody that this site knows.
    Unknown(PeerProof),
    /// Another version, or nonsense from who has the right keys.
    Version,
    /// Joins a session that is not there, or with a carrier's number that was used.
    NoSession,
    /// More came at once than may be half open.
    Crowded,
}

/// What the kernel knows of the way of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpPath {
    /// The smoothed round trip of segments, without what those wait for that come behind one that
    /// was lost.
    pub rtt: Span,
    /// Segments that were sent again since the begin, modulo 2^32.
    pub resent: u32,
}

/// What the driver does for an agent. A call for a connection that is gone does nothing.
pub trait Host {
    /// Begins a connection to a peer; [`Agent::connected`] tells what becomes of it. `None` if that
    /// is not possible now.
    fn dial(&mut self, peer: PeerId) -> Option<ConnId>;

    /// Whether a peer has other addresses that were not tried in this round: after
    /// [`Host::dial`], behind the one that is dialled; after [`Note::NoAnswer`], at all. While it
    /// has, none is waited for long, nor is anything waited for between two of them.
    fn others_left(&self, _peer: PeerId) -> bool {
        false
    }

    /// What is to be sent by a connection: append.
    fn out(&mut self, conn: ConnId) -> &mut Vec<u8>;

    /// Bytes that were appended and that the kernel has not taken.
    fn backlog(&self, conn: ConnId) -> usize;

    /// What the kernel knows of the way of a connection, if it tells: asked every 15 ms while
    /// something is on its way, at most.
    fn path(&self, _conn: ConnId) -> Option<TcpPath> {
        None
    }

    /// [`Agent::drained`] is to be called once less than this waits.
    fn await_drain(&mut self, conn: ConnId, below: usize);

    /// [`Agent::overdue`] is to be called after this time; another call replaces it.
    fn call_overdue(&mut self, conn: ConnId, after: Span);

    /// Reads nothing more of a connection.
    fn pause(&mut self, conn: ConnId);

    /// Closes a connection, of which the agent wants to hear nothing more. What was appended is
    /// sent before if `flush`.
    fn close(&mut self, conn: ConnId, flush: bool);

    /// Gives a connection to another shard, whose [`Agent::adopted`] hears this note.
    fn give(&mut self, conn: ConnId, shard: u8, note: &[u8]);

    /// The time of the day, in milliseconds since 1970.
    fn wall_ms(&self) -> u64;

    /// What all agents of the process share.
    fn registry<T>(&mut self, ask: impl FnOnce(&mut Registry) -> T) -> T;

    /// Who speaks by this connection has a salt that was taken just now: nothing that is appended
    /// for it from here on may leave before the salt would be known after a restart, too. For who
    /// has no restarts that is always so.
    fn salted(&mut self, _conn: ConnId) {}

    /// This session, of another shard, is replaced: [`Agent::replaced`] is to be called there.
    fn replaced(&mut self, session: SessionId);

    /// A way for packets to a peer, to where this connection leads. `None` if there is none now.
    /// Who has no datagrams has none.
    fn route(&mut self, _peer: PeerId, _beside: ConnId) -> Option<Route> {
        None
    }

    /// Where to append datagrams that leave together: all of `datagram_bytes` but the last, which
    /// may be shorter. `None` if no more may wait: then [`Agent::datagrams_drained`] is called once
    /// there is room.
    fn train(&mut self, _route: &Route, _datagram_bytes: usize) -> Option<&mut Vec<u8>> {
        None
    }

    /// These came by this way and are for a session of another shard: [`Agent::datagrams`] is to be
    /// called there, or not, if too much is on its way to it.
    fn forward(&mut self, _shard: u8, _arrived: &Arrived, _datagrams: &[u8]) {}

    /// Bytes of a flow, in order.
    fn data(&mut self, bond: BondId, flow: FlowId, bytes: &[u8]);

    /// A datagram has come. Unless overridden nobody wants any.
    fn datagram(&mut self, bond: BondId, channel: u64, bytes: &[u8]) {
        let _ = (bond, channel, bytes);
    }

    /// What happened to a flow.
    fn flow(&mut self, bond: BondId, event: Event);

    /// A session can be used ([`Agent::bond_to`]), or cannot, or not yet. Said of each before any
    /// of its flows is spoken of.
    fn bond(&mut self, bond: BondId, peer: PeerId, up: bool);

    /// For the log and the counters.
    fn note(&mut self, source: Option<ConnId>, note: Note);
}

/// A peer's session, at this end.
struct Bond {
    peer: PeerId,
    role: Role,
    /// `None` before the first handshake of who dials.
    known: Option<Known>,
    flows: Session,
    /// By place in `flows`.
    members: Vec<Option<Member>>,
    /// Its carriers of packets, which have places in `flows`, too.
    packets: Vec<PacketMember>,
    /// The slot of the next one: each is used once.
    next_slot: u16,
    /// When a way for one is looked for, if there was none or nothing comes by it; and how long
    /// the next one has for that.
    route_at: Moment,
    anew_after: Span,
    /// Whether streams go by records though packets get through; since when, and the carrier that
    /// is filled to see whether they should. Packets had to wait, at the last look, for nobody but
    /// their path.
    detour: Detour,
    by_records: Option<Moment>,
    filled: Option<CarrierSlot>,
    path_bound: bool,
    /// The driver was told that packets get through, and that they are held back.
    told_packets: bool,
    held_back: bool,
    refused_there: NoRoom,
    pool: Pool,
    /// Carriers that there should be.
    wanted: usize,
    /// One of them is for who says little beside bulk.
    wants_express: bool,
    /// The one that has none, or had.
    express: Option<CarrierSlot>,
    /// The connection that was dialled and is no member yet: there is one at a time.
    dialling: Option<ConnId>,
    /// Attempts in a row that came to nothing, and rounds of all addresses.
    failures: u32,
    rounds: u32,
    /// Joining failed: the far agent may have forgotten us, so it is asked.
    doubted: bool,
    /// When the next attempt may be made; and when again because somebody waits.
    retry_at: Moment,
    hurries_at: Moment,
    /// What the peer was asked with last.
    asked: Option<Asked>,
    /// When to ask whether the session may count under other keys, if it should.
    move_at: Option<Moment>,
    /// Since when no carrier works.
    alone_since: Option<Moment>,
    /// The driver was told that it can be used.
    told_up: bool,
    /// Bytes of streams that went by carriers of records that are no more, and that went again
    /// because of any.
    carried_before: u64,
    resent_before: u64,
    /// Bytes that carriers had taken at the last look.
    carried: u64,
    dirty: bool,
    due: Option<Moment>,
}

/// A carrier of a session.
#[derive(Clone, Copy)]
struct Member {
    conn: ConnId,
    suspect_since: Option<Moment>,
    /// The other agent has said that it sends nothing more on it.
    left: bool,
}

/// What a session is to both ends.
struct Known {
    id: SessionId,
    suite: Suite,
    theirs: Instance,
    /// Under which keys it counts; of the peer's, at the far end, the registry knows the latest.
    identity: Identity,
    /// What both ends know and nobody between them.
    token: Secret,
    epochs: Epochs,
    /// The number of the next carrier that joins; at the far end, one more than the highest that
    /// came.
    next_number: CarrierId,
    /// Of those below, what did not come.
    late: BTreeSet<CarrierId>,
}

impl Known {
    /// A session that begins with a handshake.
    fn new(
        now: Moment,
        role: Role,
        (id, theirs, identity): (SessionId, Instance, Identity),
        established: Established,
    ) -> Self {
        Self {
            id,
            suite: established.suite,
            theirs,
            identity,
            token: established.secret.token(id),
            epochs: Epochs::new(now, role, established.secret),
            next_number: 1,
            late: BTreeSet::new(),
        }
    }
}

/// A connection under a session, or on the way there.
struct Carrier {
    conn: ConnId,
    link: Link,
    standing: Standing,
    pace: Pace,
    /// Bytes of records that were sealed for it, and bytes that came by it.
    meter: Meter,
    /// Bytes that were dropped since it was refused.
    dropped: u64,
    /// How long a stranger from its address is listened to, and until when this one is (A1).
    patience: Span,
    heard_until: Moment,
    /// Its place among those that have not proved themselves.
    half_open: Option<u64>,
    /// Its peer has ended it behind a whole record.
    ended: bool,
}

/// What a connection is to us.
enum Standing {
    /// Somebody who has shown nothing, or failed.
    Stranger,
    /// Somebody who was answered and has to show the session's keys.
    Newcomer(Box<Newcomer>),
    /// We asked, and wait for the answer.
    Asked(BondId),
    /// We are to join as soon as it is connected: what is said then depends on the epoch.
    Joining(BondId),
    /// A carrier of a session.
    Member(BondId, CarrierSlot),
}

/// A session that begins with its peer's first record.
struct Newcomer {
    established: Established,
    owner: Owner,
    id: SessionId,
}

/// No flow can be opened now: the session is not up, or has too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoFlow;

/// See the module.
pub struct Agent {
    settings: AgentSettings,
    listener: Listener,
    peers: Vec<Option<Peer>>,
    /// By how they may prove themselves.
    by_proof: BTreeMap<PeerProof, (PeerId, Option<Psk>)>,
    entropy: Entropy,
    /// Decides how long strangers are listened to.
    deaf_key: Secret,
    bonds: Vec<Option<Box<Bond>>>,
    /// Places in `bonds` that are free.
    vacant: Vec<BondId>,
    by_session: BTreeMap<SessionId, BondId>,
    /// Sessions that we dialled and that have carriers of packets, by the number in headers.
    by_header: BTreeMap<u64, BondId>,
    /// Headers of datagrams: of each network.
    headers: Vec<Headers>,
    /// Sessions that wait until datagrams can be sent again.
    held_up: Vec<BondId>,
    counts: DatagramCounts,
    /// Datagrams that the host has dropped, by socket.
    dropped: BTreeMap<u16, u64>,
    /// A peer's sessions on this shard; one beyond the first only if the peer has several shards.
    by_peer: BTreeSet<(PeerId, BondId)>,
    /// By the connection's index.
    carriers: Vec<Option<Box<Carrier>>>,
    /// By when they came.
    half_open: BTreeMap<u64, ConnId>,
    arrivals: u64,
    dirty: Vec<BondId>,
    due: BTreeSet<(Moment, BondId)>,
    memory: Memory,
    /// Bytes that went again in sessions that are over, by peer.
    resent_before: BTreeMap<PeerId, u64>,
    stopping: bool,
    pub(crate) sabotage: Sabotage,
}

impl Agent {
    /// An agent that knows nobody. `deaf_key` is the same for all shards of a process: it decides
    /// how long strangers are listened to.
    pub fn new(settings: AgentSettings, deaf_key: Secret, entropy: Entropy) -> Self {
        let listener = Listener {
            networks: Vec::new(),
            identities: Vec::new(),
            shared: Vec::new(),
            suites: Vec::new(),
        };
        Self {
            settings,
            listener,
            peers: Vec::new(),
            by_proof: BTreeMap::new(),
            entropy,
            deaf_key,
            bonds: Vec::new(),
            vacant: Vec::new(),
            by_session: BTreeMap::new(),
            by_header: BTreeMap::new(),
            headers: Vec::new(),
            held_up: Vec::new(),
            counts: DatagramCounts::default(),
            dropped: BTreeMap::new(),
            by_peer: BTreeSet::new(),
            carriers: Vec::new(),
            half_open: BTreeMap::new(),
            arrivals: 0,
            dirty: Vec::new(),
            due: BTreeSet::new(),
            memory: Memory::new(settings.memory),
            resent_before: BTreeMap::new(),
            stopping: false,
            sabotage: Sabotage::default(),
        }
    }

    /// Sets who this site is and whom it knows, by [`PeerId`]; a peer keeps its place, and one that
    /// is gone leaves it empty. Sessions of peers that stay go on; those of peers that go end, and
    /// so do those whose peer has shown a key that is its own no more. Where another key of ours,
    /// or of the peer, comes first now, who dials moves its sessions over to it.
    pub fn configure(
        &mut self,
        now: Moment,
        listener: Listener,
        peers: Vec<Option<Peer>>,
        host: &mut impl Host,
    ) {
        self.listener = listener;
        self.set_headers();
        self.by_proof.clear();
        for (at, peer) in peers.iter().enumerate() {
            for (proof, psk) in peer.iter().flat_map(|peer| &peer.proofs) {
                let psk = psk.clone().filter(|_| !self.sabotage.breaks(Rule::SecondSecret));
                self.by_proof.insert(*proof, (PeerId(at as u16), psk));
            }
        }
        self.peers = peers;
        self.memory.set_known(self.peers.iter().flatten().count());
        let bonds: Vec<(PeerId, BondId)> = self.by_peer.iter().copied().collect();
        for (peer, bond) in bonds {
            let identity = self.get(bond).and_then(|bond| self.identity(bond, host));
            let identity = identity.filter(|_| !self.sabotage.breaks(Rule::TrustEnds));
            let trusted = identity.is_none_or(|identity| self.trusts(identity.theirs, peer));
            if self.peer(peer).is_none() || !trusted {
                self.end(now, bond, ResetCode::Denied, host);
            } else {
                self.look_at_keys(now, bond);
                // What it may have is another matter now, and perhaps nothing else wakes it.
                self.touch(bond);
            }
        }
        let peers = &self.peers;
        let known = |peer: &PeerId| peers.get(usize::from(peer.0)).is_some_and(Option::is_some);
        self.resent_before.retain(|peer, _| known(peer));
        for at in 0..self.peers.len() {
            let peer = PeerId(at as u16);
            if self.dials(peer) && !self.has_dialled(peer) {
                self.add_bond(now, peer, Role::Initiator, None);
            }
        }
    }

    /// Sets what another reading of the file may change of [`AgentSettings`]. How long flows wait
    /// is in force at once, for those that wait already as well; how many there may be is for
    /// sessions that begin from now on.
    pub fn set_limits(&mut self, wait: Span, flows_max: usize) {
        if (self.settings.wait, self.settings.flows_max) == (wait, flows_max) {
            return;
        }
        self.settings = AgentSettings { wait, flows_max, ..self.settings };
        let bonds: Vec<BondId> = self.by_peer.iter().map(|(_, bond)| *bond).collect();
        for id in bonds {
            let Some(bond) = self.get(id) else { continue };
            // Of who was not reached yet the session has not begun.
            if bond.known.is_none() {
                let fresh = self.session(bond.role);
                self.get_mut(id).expect("it was just there").flows = fresh;
            }
            self.touch(id);
        }
    }

    fn peer(&self, peer: PeerId) -> Option<&Peer> {
        self.peers.get(usize::from(peer.0)).and_then(Option::as_ref)
    }

    /// Whether who proves this is this peer.
    fn trusts(&self, proof: PeerProof, peer: PeerId) -> bool {
        self.by_proof.get(&proof).is_some_and(|(of, _)| *of == peer)
    }

    fn dials(&self, peer: PeerId) -> bool {
        self.peer(peer).is_some_and(|peer| !peer.credentials.is_empty())
    }

    /// A peer's session on this shard, if one can be used.
    pub fn bond_to(&self, peer: PeerId) -> Option<BondId> {
        let all = self.by_peer.range((peer, BondId(0))..=(peer, BondId(u32::MAX)));
        all.map(|(_, bond)| *bond).find(|bond| self.get(*bond).is_some_and(|bond| bond.told_up))
    }

    /// Somebody has just come who waits for a session with this peer: the next attempt is made now,
    /// but not within [`HURRY_EVERY`] of the last one that was made because of this.
    pub fn hurry(&mut self, now: Moment, peer: PeerId) {
        let all = self.by_peer.range((peer, BondId(0))..=(peer, BondId(u32::MAX)));
        let all: Vec<BondId> = all.map(|(_, bond)| *bond).collect();
        for id in all {
            let alone = |bond: &Bond| bond.role == Role::Initiator && !bond.flows_can_go();
            let Some(bond) = self.get_mut(id).filter(|bond| alone(bond)) else { continue };
            if bond.hurries_at <= now && bond.retry_at > now {
                (bond.hurries_at, bond.retry_at) = (now + HURRY_EVERY, now);
                self.touch(id);
            }
        }
    }

    fn has_dialled(&self, peer: PeerId) -> bool {
        let all = self.by_peer.range((peer, BondId(0))..=(peer, BondId(u32::MAX)));
        all.filter_map(|(_, bond)| self.get(*bond)).any(|bond| bond.role == Role::Initiator)
    }

    fn get(&self, bond: BondId) -> Option<&Bond> {
        self.bonds.get(bond.0 as usize).and_then(Option::as_deref)
    }

    fn get_mut(&mut self, bond: BondId) -> Option<&mut Bond> {
        self.bonds.get_mut(bond.0 as usize).and_then(Option::as_deref_mut)
    }

    fn add_bond(&mut self, now: Moment, peer: PeerId, role: Role, known: Option<Known>) -> BondId {
        let bond = Bond {
            peer,
            role,
            known,
            flows: self.session(role),
            members: Vec::new(),
            packets: Vec::new(),
            next_slot: 0,
            route_at: now,
            anew_after: packets::ANEW_FIRST,
            detour: Detour::new(now),
            by_records: None,
            filled: None,
            path_bound: false,
            told_packets: false,
            held_back: false,
            refused_there: NoRoom::default(),
            pool: Pool::new(now),
            wanted: 1,
            wants_express: false,
            express: None,
            dialling: None,
            failures: 0,
            rounds: 0,
            doubted: false,
            retry_at: now,
            hurries_at: now,
            asked: None,
            move_at: None,
            alone_since: Some(now),
            told_up: false,
            carried_before: 0,
            resent_before: 0,
            carried: 0,
            dirty: false,
            due: None,
        };
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.bonds.push(None);
            BondId(self.bonds.len() as u32 - 1)
        });
        self.bonds[id.0 as usize] = Some(Box::new(bond));
        self.by_peer.insert((peer, id));
        self.touch(id);
        id
    }

    /// A session without carriers and flows.
    fn session(&self, role: Role) -> Session {
        let AgentSettings { memory, flows_max, .. } = self.settings;
        let settings = Settings { role, window_first: WINDOW_FIRST, memory, flows_max };
        let mut session = Session::new(settings);
        session.sabotage = self.sabotage;
        session
    }

    /// Does something with a session for which it has to know what others hold.
    fn with_memory<T>(&mut self, bond: BondId, call: impl FnOnce(&mut Bond) -> T) -> Option<T> {
        let found = self.bonds.get_mut(bond.0 as usize)?.as_deref_mut()?;
        self.memory.lend(found.peer, &mut found.flows.account);
        let done = call(found);
        self.memory.settle(found.peer, &mut found.flows.account);
        Some(done)
    }

    /// A flow of a peer is over, and its application had `before` bytes still to take, and has
    /// `now`: they count until there are none.
    pub fn left_behind(&mut self, peer: PeerId, before: u64, now: u64) {
        self.memory.change_left(peer, before, now);
    }

    /// What is held of what came.
    pub fn memory(&self) -> MemoryReport {
        self.memory.report()
    }

    /// A session is looked at when the turn ends.
    fn touch(&mut self, bond: BondId) {
        if let Some(found) = self.get_mut(bond)
            && !core::mem::replace(&mut found.dirty, true)
        {
            self.dirty.push(bond);
        }
    }

    // ---- Flows.

    /// Opens a flow.
    ///
    /// # Errors
    /// [`NoFlow`].
    pub fn open(&mut self, now: Moment, bond: BondId) -> Result<FlowId, NoFlow> {
        self.with_memory(bond, |found| {
            let up = found.told_up.then_some(&mut found.flows);
            up.and_then(|flows| flows.open(now).ok()).ok_or(NoFlow)
        })
        .unwrap_or(Err(NoFlow))
    }

    /// Writes to a flow. Returns whether there is still room; if not, who reads for it stops until
    /// [`Event::Writable`].
    ///
    /// # Panics
    /// After [`Self::finish`].
    pub fn push(&mut self, bond: BondId, flow: FlowId, bytes: &[u8]) -> bool {
        self.touch(bond);
        self.with_memory(bond, |bond| bond.flows.push(flow, bytes)).unwrap_or(true)
    }

    /// Puts bulk on its way at once, while it is in the cache: as much as carriers take and fills
    /// whole records. What is left waits for company until the turn ends.
    pub fn send_bulk(&mut self, now: Moment, id: BondId, host: &mut impl Host) {
        let Some(mut bond) = self.bonds.get_mut(id.0 as usize).and_then(Option::take) else {
            return;
        };
        while bond.known.is_some()
            && bond.flows.has_bulk()
            && self.send_bulk_once(now, id, &mut bond, host)
        {}
        self.bonds[id.0 as usize] = Some(bond);
    }

    /// Sends a datagram: see [`Session::send_datagram`].
    ///
    /// # Errors
    /// [`DatagramRefused`].
    ///
    /// # Panics
    /// If the channel is not below 2^62.
    pub fn send_datagram(
        &mut self,
        now: Moment,
        bond: BondId,
        (channel, bytes): (u64, &[u8]),
        deadline: Moment,
    ) -> Result<(), DatagramRefused> {
        self.touch(bond);
        let found = self.get_mut(bond).ok_or(DatagramRefused::NoSession)?;
        found.flows.send_datagram(now, channel, bytes, deadline)
    }

    /// Ends a flow's stream.
    pub fn finish(&mut self, bond: BondId, flow: FlowId) {
        self.touch(bond);
        if let Some(bond) = self.get_mut(bond) {
            bond.flows.finish(flow);
        }
    }

    /// Ends a flow at once, both ways. Nothing more is heard of it.
    pub fn reset(&mut self, bond: BondId, flow: FlowId, code: ResetCode) {
        self.touch(bond);
        if let Some(bond) = self.get_mut(bond) {
            bond.flows.reset(flow, code);
        }
    }

    /// Of all that was delivered to a flow's application, so many bytes are not taken yet.
    pub fn drained_by_application(
        &mut self,
        now: Moment,
        bond: BondId,
        flow: FlowId,
        waiting: u64,
    ) {
        if self.with_memory(bond, |found| found.flows.drained(now, flow, waiting)).is_some() {
            self.touch(bond);
        }
    }

    /// What is known of a flow.
    pub fn flow(&self, bond: BondId, flow: FlowId) -> Option<FlowReport> {
        self.get(bond).and_then(|bond| bond.flows.flow(flow))
    }

    /// When [`Self::settle`] has to be called at the latest.
    pub fn wake_at(&self) -> Option<Moment> {
        if self.dirty.is_empty() { self.due.first().map(|(at, _)| *at) } else { Some(Moment(0)) }
    }

    /// Says farewell: no new flows and carriers; the owner waits for what there is as long as it
    /// likes.
    pub fn stop(&mut self) {
        self.stopping = true;
        // Those that go by packets have to say that nothing more comes by them.
        (0..self.places()).map(BondId).for_each(|bond| self.touch(bond));
    }

    /// Whether no flow is left, and all was said about them that can be said.
    pub fn is_quiet(&self) -> bool {
        let farewell = |bond: &Bond| self.stopping && !bond.packets.is_empty();
        let unsaid =
            |bond: &Bond| bond.flows_can_go() && (!bond.flows.is_quiet() || farewell(bond));
        let mut bonds = self.bonds.iter().flatten();
        bonds.all(|bond| bond.flows.flow_count() == 0 && !unsaid(bond))
    }

    /// How long a stranger from this address is listened to: always the same, and nothing else
    /// decides it (A1).
    fn deaf_for(&self, source: IpAddr) -> Span {
        let mut seed = *self.deaf_key.expose();
        let prefix: [u8; 8] = match source {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                [4, a, b, c, 0, 0, 0, 0]
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                [6, a, b, c, d, e, f, 0]
            }
        };
        seed.iter_mut().zip(prefix).for_each(|(seed, byte)| *seed ^= byte);
        let chance = Entropy::from_seed(Secret::new(seed)).below(DEAF_SPREAD_MS);
        Span(DEAF_MIN.0 + Span::from_ms(chance).0)
    }
}

impl AgentSettings {
    fn backend(&self, suite: Suite) -> Backend {
        let at = Suite::ALL.iter().position(|one| *one == suite);
        self.backends[at.expect("all suites are in ALL")]
    }
}

/// The direction in which an agent of this role sends.
fn direction(role: Role) -> Direction {
    match role {
        Role::Initiator => Direction::ToResponder,
        Role::Responder => Direction::ToInitiator,
    }
}
