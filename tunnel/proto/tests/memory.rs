//! What peers that mean ill can have of a shard's memory, and what is left for the others.
//!
//! The far agent is real; its peers are the test's: each has a real carrier with real keys and says
//! by it what it likes. What is held is counted here, too: bytes that were delivered and that no
//! application has taken, and what waits for bytes before it.

#![allow(clippy::disallowed_types, reason = "a test keeps what it heard where it likes")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ringway_core::{ConnId, Moment, Span};
use ringway_crypto::{
    Backend, CarrierKind, Credentials, Dial, Direction, Entropy, Established, Initiator, Listener,
    NetworkKey, PeerProof, PrivateKey, RECORD_TEXT_MAX, Secret, SessionId, Suite, SuiteSet,
};
use ringway_tunnel_proto::{
    Agent, AgentSettings, BondId, CarrierSlot, Event, Exchange, FlowId, Frame, Host, Instance,
    Link, Note, Outlet, Peer, PeerId, Place, Registry, ResetCode, Role, Session, Settings, Step,
    WINDOW_FIRST, probe_hello,
};

const WALL_MS: u64 = 1_800_000_000_000;
const MEMORY: u64 = 16 << 20;
const FLOWS_MAX: usize = 2000;
/// The peers of the far site.
const FOE: PeerId = PeerId(0);
const FRIEND: PeerId = PeerId(1);
/// What a carrier of the friend takes in a millisecond.
const LINE: usize = 256 << 10;

fn key(byte: u8) -> PrivateKey {
    PrivateKey::new(Secret::new([byte; 32]))
}

/// What the far agent's shard knows.
#[derive(Default)]
struct Desk {
    out: BTreeMap<u32, Vec<u8>>,
    registry: Registry,
    peers: BTreeMap<BondId, PeerId>,
    /// Bytes that no application has taken, by flow, and all that were delivered, by peer.
    waiting: BTreeMap<(BondId, FlowId), u64>,
    delivered: BTreeMap<PeerId, u64>,
    opened: BTreeMap<PeerId, usize>,
}

impl Host for Desk {
    fn dial(&mut self, _: PeerId) -> Option<ConnId> {
        None
    }

    fn out(&mut self, conn: ConnId) -> &mut Vec<u8> {
        self.out.entry(conn.index).or_default()
    }

    fn backlog(&self, _: ConnId) -> usize {
        0
    }

    fn await_drain(&mut self, _: ConnId, _: usize) {}

    fn call_overdue(&mut self, _: ConnId, _: Span) {}

    fn pause(&mut self, _: ConnId) {}

    fn close(&mut self, conn: ConnId, _: bool) {
        panic!("{conn:?} keeps the rules");
    }

    fn give(&mut self, _: ConnId, _: u8, _: &[u8]) {
        panic!("there is one shard");
    }

    fn wall_ms(&self) -> u64 {
        WALL_MS
    }

    fn registry<T>(&mut self, ask: impl FnOnce(&mut Registry) -> T) -> T {
        ask(&mut self.registry)
    }

    fn replaced(&mut self, session: SessionId) {
        panic!("{session:?} is another shard's");
    }

    fn data(&mut self, bond: BondId, flow: FlowId, bytes: &[u8]) {
        *self.waiting.entry((bond, flow)).or_default() += bytes.len() as u64;
        *self.delivered.entry(self.peers[&bond]).or_default() += bytes.len() as u64;
    }

    fn flow(&mut self, bond: BondId, event: Event) {
        if let Event::Opened(_) = event {
            *self.opened.entry(self.peers[&bond]).or_default() += 1;
        }
    }

    fn bond(&mut self, bond: BondId, peer: PeerId, _: bool) {
        self.peers.insert(bond, peer);
    }

    fn note(&mut self, _: Option<ConnId>, _: Note) {}
}

/// The far site.
struct Far {
    now: Moment,
    agent: Agent,
    desk: Desk,
}

/// Somebody's end of a session's first carrier.
struct Near {
    conn: ConnId,
    link: Link,
}

impl Far {
    fn new() -> Far {
        let settings = AgentSettings {
            instance: Instance([2; 16]),
            shard: 0,
            shards: 1,
            backends: [Backend::AwsLc; Suite::ALL.len()],
            memory: MEMORY,
            flows_max: FLOWS_MAX,
            wait: Span::from_s(60),
        };
        let (now, mut desk) = (Moment(1_000_000_000), Desk::default());
        let mut agent =
            Agent::new(settings, Secret::new([5; 32]), Entropy::from_seed(Secret::new([2; 32])));
        let listener = Listener {
            networks: vec![NetworkKey::new(Secret::new([100; 32]))],
            identities: vec![key(2)],
            shared: Vec::new(),
            suites: vec![Suite::Aes128Gcm],
        };
        let peer = |peer: PeerId| {
            let proof = PeerProof::Key(key(10 + peer.0 as u8).public());
            Some(Peer { proofs: vec![(proof, None)], carriers_max: 4, ..Peer::default() })
        };
        agent.configure(now, listener, vec![peer(FOE), peer(FRIEND)], &mut desk);
        Far { now, agent, desk }
    }

    /// A shard of a peer begins a session.
    fn meets(&mut self, peer: PeerId, shard: u8) -> Near {
        let conn = ConnId { index: u32::from(peer.0) << 8 | u32::from(shard), generation: 1 };
        let mut seed = [peer.0 as u8 + 3; 32];
        seed[1] = shard;
        let mut entropy = Entropy::from_seed(Secret::new(seed));
        let mut hello = probe_hello(Instance([9; 16]));
        hello[21] = shard;
        let mine = key(10 + peer.0 as u8);
        let dial = Dial {
            network: &NetworkKey::new(Secret::new([100; 32])),
            credentials: &Credentials::Keys { mine, theirs: key(2).public(), psk: None },
            kind: CarrierKind::Tcp,
            suites: SuiteSet::ALL,
            now_ms: WALL_MS,
        };
        let mut said = Vec::new();
        let mut link = Link::near(Initiator::start(&dial, &hello, &mut entropy, &mut said));
        self.agent.accepted(self.now, conn, IpAddr::V4(Ipv4Addr::LOCALHOST), &mut self.desk);
        self.agent.received(self.now, conn, &mut said, &mut self.desk);
        let mut answer = self.desk.out.remove(&conn.index).expect("it is answered");
        let (_, step) = link.received(&mut answer, None, &mut entropy, |_, _| false);
        let Step::Answered(established) = step else { panic!("no answer") };
        let Established { suite, secret, .. } = *established;
        let (out, backend) = (Direction::ToResponder, Backend::AwsLc);
        link.admit(Place { carrier: 0, epoch: 0, out, suite, backend }, &secret);
        Near { conn, link }
    }

    fn hears(&mut self, near: &mut Near, frames: &[Frame<'_>]) {
        let mut wire = Vec::new();
        for frame in frames {
            near.link.seal(&mut wire, |out| frame.write(out)).expect("the key is fresh");
        }
        self.agent.received(self.now, near.conn, &mut wire, &mut self.desk);
        self.agent.settle(self.now, &mut self.desk);
    }

    /// What is held, by who has counted it from outside.
    fn held(&self) -> u64 {
        let reports = self.agent.report(true, &self.desk);
        let early = reports.iter().flat_map(|one| &one.flows).map(|(_, flow)| flow.early);
        early.sum::<u64>() + self.desk.waiting.values().sum::<u64>()
    }

    fn judge(&self) {
        let (held, report) = (self.held(), self.agent.memory());
        assert!(report.most <= MEMORY, "{report:?}");
        assert!(held <= report.held && report.held <= report.most, "{held} of {report:?}");
    }

    /// Applications of a peer take all that they got.
    fn reads(&mut self, peer: PeerId) {
        for ((bond, flow), waiting) in &mut self.desk.waiting {
            if self.desk.peers[bond] == peer && *waiting > 0 {
                *waiting = 0;
                self.agent.drained_by_application(self.now, *bond, *flow, 0);
            }
        }
    }
}

/// A piece of a flow.
fn piece(flow: u64, offset: u64, bytes: &[u8]) -> Frame<'_> {
    Frame::Stream { flow: FlowId(2 * flow), offset, bytes, fin: false }
}

/// 256 sessions, each with flows whose applications do not read, and with flows that begin with
/// their second byte, in crumbs and in large pieces; all that the first windows allow.
fn attack(far: &mut Far) -> Vec<Near> {
    let bytes = vec![7; 16 << 10];
    let meet = |shard| {
        let mut foe = far.meets(FOE, shard);
        for flow in 0..7 {
            let gap = u64::from(flow > 2);
            let pieces = (0..3).map(|at| piece(flow, gap + (at << 14), &bytes));
            far.hears(&mut foe, &pieces.collect::<Vec<_>>());
        }
        let crumbs: Vec<_> = (0..64).map(|at| piece(7, 1 + 2 * at, b"x")).collect();
        far.hears(&mut foe, &crumbs);
        far.judge();
        foe
    };
    (0..=255).map(meet).collect()
}

/// The friend's side, of which the carrier takes [`LINE`] in a millisecond.
struct Friend {
    near: Near,
    session: Session,
    flow: FlowId,
}

/// It hears nothing but acknowledgements.
struct Nothing;

impl Outlet for Nothing {
    fn data(&mut self, _: FlowId, _: &[u8]) {
        panic!("nobody writes back");
    }

    fn event(&mut self, event: Event) {
        assert!(matches!(event, Event::Writable(_)), "{event:?}");
    }

    fn rekey(&mut self, _: Exchange) {}

    fn keys(&mut self, _: u32) {}
}

impl Friend {
    fn new(far: &mut Far) -> Friend {
        let near = far.meets(FRIEND, 0);
        let (role, memory) = (Role::Initiator, MEMORY);
        let settings = Settings { role, window_first: WINDOW_FIRST, memory, flows_max: 10 };
        let mut session = Session::new(settings);
        session.carrier_up(far.now);
        let flow = session.open(far.now).expect("the first");
        Friend { near, session, flow }
    }

    /// A millisecond in which it sends what goes by its carrier.
    fn turn(&mut self, far: &mut Far, bytes: &[u8]) {
        far.now = far.now + Span::from_ms(1);
        let (now, slot) = (far.now, CarrierSlot(0));
        self.session.tick(now, &mut Nothing);
        self.session.write(self.flow, bytes);
        let mut wire = Vec::new();
        while wire.len() < LINE && self.session.wants(now, slot) {
            let filled = self.near.link.seal(&mut wire, |out| {
                self.session.fill(now, slot, RECORD_TEXT_MAX, out, &mut Nothing);
            });
            if filled.expect("the key is fresh") == 0 {
                break;
            }
        }
        far.agent.received(now, self.near.conn, &mut wire, &mut far.desk);
        far.reads(FRIEND);
        far.agent.settle(now, &mut far.desk);
        let mut back = far.desk.out.remove(&self.near.conn.index).unwrap_or_default();
        let mut entropy = Entropy::from_seed(Secret::new([1; 32]));
        self.near.link.received(&mut back, None, &mut entropy, |text, _| {
            self.session.received(now, slot, text, &mut Nothing).is_ok()
        });
    }

    /// Bytes that arrive in two seconds.
    fn moves(&mut self, far: &mut Far) -> u64 {
        let (bytes, before) = (vec![7; LINE], far.desk.delivered.get(&FRIEND).copied());
        for turn in 0..2000 {
            self.turn(far, &bytes);
            if turn % 100 == 0 {
                far.judge();
            }
        }
        far.desk.delivered[&FRIEND] - before.unwrap_or(0)
    }
}

/// A peer with 256 sessions has what one peer may have, and not more; another peer beside it is as
/// fast as it is alone.
#[test]
fn a_peer_with_many_sessions_takes_nobodys_room() {
    let mut far = Far::new();
    let alone = Friend::new(&mut far).moves(&mut far);
    let mut far = Far::new();
    let mut foes = attack(&mut far);
    let report = far.agent.memory();
    assert!(report.held > MEMORY / 2 && report.held < MEMORY / 4 * 3, "{report:?}");
    assert!(report.refused > 1000, "{report:?}");
    let mut friend = Friend::new(&mut far);
    let beside = friend.moves(&mut far);
    assert!(beside >= alone / 100 * 98, "{beside} instead of {alone}");
    assert!(alone > 1900 * LINE as u64, "{alone}");
    // What waits for its first byte gets it, all the same.
    let (before, room) = (far.desk.delivered[&FOE], far.agent.memory().held);
    for foe in &mut foes {
        far.reads(FOE);
        far.hears(foe, &[piece(3, 0, b"x")]);
    }
    far.reads(FOE);
    far.judge();
    assert!(far.desk.delivered[&FOE] > before + 256, "nothing waited for it");
    assert!(far.agent.memory().held < room / 2, "{:?}", far.agent.memory());
}

/// All flows of a peer count, whichever of its sessions they are in.
#[test]
fn a_peer_has_so_many_flows_in_all_of_its_sessions() {
    let mut far = Far::new();
    let mut foes: Vec<_> = (0..4).map(|shard| far.meets(FOE, shard)).collect();
    for foe in &mut foes {
        for flow in 0..700 {
            far.hears(foe, &[piece(flow, 0, b"x")]);
        }
    }
    assert_eq!(far.desk.opened[&FOE], FLOWS_MAX);
    far.hears(&mut foes[0], &[Frame::Reset { flow: FlowId(0), code: ResetCode::Broken }]);
    far.hears(&mut foes[3], &[piece(700, 0, b"x")]);
    assert_eq!(far.desk.opened[&FOE], FLOWS_MAX + 1, "there is room for one");
    let mut friend = far.meets(FRIEND, 0);
    far.hears(&mut friend, &[piece(0, 0, b"x")]);
    assert_eq!(far.desk.opened[&FRIEND], 1);
}

/// What applications have still to read of flows that are over counts for their peer until they
/// have, whatever becomes of the session.
#[test]
fn what_is_left_of_flows_that_are_over_counts() {
    let mut far = Far::new();
    let mut foe = far.meets(FOE, 0);
    far.agent.left_behind(FOE, 0, MEMORY / 2);
    let bytes = vec![7; 16 << 10];
    for flow in 0..1000 {
        far.hears(&mut foe, &[piece(flow, 1, &bytes)]);
    }
    assert!(far.agent.memory().held < MEMORY / 3 * 2, "{:?}", far.agent.memory());
    far.agent.left_behind(FOE, MEMORY / 2, 0);
    assert!(far.agent.memory().held < MEMORY / 6, "{:?}", far.agent.memory());
}

/// Peer after peer takes what it can: each finds room.
#[test]
fn each_peer_finds_room() {
    let mut far = Far::new();
    let mut held = Vec::new();
    for peer in [FOE, FRIEND] {
        let bytes = vec![7; 16 << 10];
        let mut near = far.meets(peer, 0);
        let before = far.agent.memory().held;
        for flow in 0..1000 {
            let pieces = (0..3).map(|at| piece(flow, 1 + (at << 14), &bytes));
            far.hears(&mut near, &pieces.collect::<Vec<_>>());
        }
        far.judge();
        held.push(far.agent.memory().held - before);
    }
    assert!(held[0] > MEMORY / 2 && held[1] > MEMORY / 6, "{held:?}");
}
