//! A tunnel's far agent, before strangers and before a member of the network who says anything
//! whatever: as a hello, in records, as carriers that join, in packets.
//!
//! The oracles: a stranger is told nothing; flows are spoken of from their opening to their end;
//! all that the member is told opens and is made of frames; no turn asks for another one at once,
//! time and again; connections that are closed are not written to; a datagram that is damaged or
//! comes again is counted and moves nothing, and nobody is sent any before one has verified.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ringway_core::limits::GIVE_NOTE_BYTES_MAX;
use ringway_core::{ConnId, Moment, Span};
use ringway_crypto::{
    Backend, CarrierKind, Credentials, DATAGRAM_OVERHEAD, DatagramOpener, DatagramSealer, Dial,
    Direction, Entropy, EpochSecret, HeaderKey, Initiator, Listener, NetworkKey, PeerProof, Psk,
    Secret, SessionId, Suite, SuiteSet, write_join,
};
use ringway_tunnel_proto::{
    Agent, AgentSettings, Arrived, BondId, Event, FlowId, Frame, Frames, Host, Instance, Link,
    Note, Peer, PeerId, Place, Registry, ResetCode, Route, Step, probe_hello,
};

use crate::Target;

/// What happens, one after the other: an act, a length, and so many bytes for it.
pub const AGENT: Target =
    Target { name: "tunnel_agent", run: agent, seeds: agent_seeds, words: &[], bytes_max: 2048 };

/// A stranger connects and says this.
const KNOCK: u8 = 0;
/// The last stranger says more.
const MORE: u8 = 1;
/// The member begins a session with this hello.
const HELLO: u8 = 2;
/// The member says this in a record of the last carrier.
const RECORD: u8 = 3;
/// The member brings a carrier, with a number, and says the rest behind it.
const JOIN: u8 = 4;
/// Another shard gives a connection with this note.
const ADOPT: u8 = 5;
/// So many times 100 ms pass.
const TIME: u8 = 6;
/// The last carrier closes.
const CLOSE: u8 = 7;
/// Applications do something with the last flow.
const APPLICATION: u8 = 8;
/// The member says this in a packet of a slot.
const PACKET: u8 = 9;
/// Its last packet comes again: one of its bytes is another, or none.
const AGAIN: u8 = 10;
/// Datagrams of nobody's, so long each, as the kernel joins them.
const DATAGRAMS: u8 = 11;
const ACTS: u8 = 12;

/// Carriers of packets have numbers from here on.
const PACKETS_FROM: u32 = 1 << 31;

const SHARD: u8 = 0;
const SUITE: Suite = Suite::Aes128Gcm;
/// Turns that an agent may want at one moment.
const TURNS_MAX: usize = 8;

fn secret(byte: u8) -> Secret {
    Secret::new([byte; 32])
}

fn network() -> NetworkKey {
    NetworkKey::new(secret(1))
}

fn shared() -> Psk {
    Psk::new(secret(2))
}

/// The far agent's driver.
#[derive(Default)]
struct Desk {
    out: BTreeMap<ConnId, Vec<u8>>,
    due: BTreeMap<ConnId, Moment>,
    now: Moment,
    registry: Registry,
    flows: BTreeSet<(BondId, FlowId)>,
    bonds: BTreeSet<BondId>,
    /// Bytes of each datagram of a train, and the train.
    trains: Vec<(usize, Vec<u8>)>,
}

impl Host for Desk {
    fn train(&mut self, route: &Route, datagram_bytes: usize) -> Option<&mut Vec<u8>> {
        assert_eq!(route.to, MEMBER, "nobody else has shown anything");
        self.trains.push((datagram_bytes, Vec::new()));
        self.trains.last_mut().map(|(_, train)| train)
    }

    fn forward(&mut self, shard: u8, _: &Arrived, datagrams: &[u8]) {
        assert!(shard != SHARD && !datagrams.is_empty());
    }

    fn dial(&mut self, _: PeerId) -> Option<ConnId> {
        panic!("it knows no address")
    }

    fn out(&mut self, conn: ConnId) -> &mut Vec<u8> {
        self.out.get_mut(&conn).expect("it is open")
    }

    fn backlog(&self, conn: ConnId) -> usize {
        self.out.get(&conn).map_or(0, Vec::len)
    }

    fn await_drain(&mut self, _: ConnId, _: usize) {}

    fn call_overdue(&mut self, conn: ConnId, after: Span) {
        self.due.insert(conn, self.now + after);
    }

    fn pause(&mut self, _: ConnId) {}

    fn close(&mut self, conn: ConnId, _: bool) {
        self.out.remove(&conn);
        self.due.remove(&conn);
    }

    fn give(&mut self, conn: ConnId, shard: u8, note: &[u8]) {
        assert_ne!(shard, SHARD);
        assert!(note.len() < GIVE_NOTE_BYTES_MAX, "a note of {} bytes", note.len());
        self.close(conn, false);
    }

    fn wall_ms(&self) -> u64 {
        self.now.0 / 1_000_000
    }

    fn registry<T>(&mut self, ask: impl FnOnce(&mut Registry) -> T) -> T {
        ask(&mut self.registry)
    }

    fn replaced(&mut self, _: SessionId) {
        panic!("no other shard has a session")
    }

    fn data(&mut self, bond: BondId, flow: FlowId, _: &[u8]) {
        assert!(self.flows.contains(&(bond, flow)), "bytes of no flow");
    }

    fn flow(&mut self, bond: BondId, event: Event) {
        assert!(self.bonds.contains(&bond), "whose flow is it?");
        match event {
            Event::Opened(flow) => assert!(self.flows.insert((bond, flow)), "it is open"),
            Event::Closed(flow) | Event::Reset(flow, _) => {
                assert!(self.flows.remove(&(bond, flow)), "the end of no flow");
            }
            Event::Finished(flow) | Event::Writable(flow) => {
                assert!(self.flows.contains(&(bond, flow)), "news of no flow");
            }
            other => panic!("{other:?} is the agent's own matter"),
        }
    }

    fn bond(&mut self, bond: BondId, _: PeerId, _: bool) {
        self.bonds.insert(bond);
    }

    fn note(&mut self, _: Option<ConnId>, _: Note) {}
}

/// Where the member's packets come from, and those of others.
const MEMBER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1000);
const OTHER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 2000);

/// The member's end of a carrier of packets.
struct Packets {
    sealer: DatagramSealer,
    opener: DatagramOpener,
}

/// The member's end of its session.
struct Member {
    link: Link,
    conn: ConnId,
    secret: EpochSecret,
    session: Option<SessionId>,
    /// The agent has changed to keys of which this end has not even the half.
    deaf: bool,
    /// By slot.
    packets: BTreeMap<u16, Packets>,
    last: Vec<u8>,
}

impl Member {
    fn new(link: Link, conn: ConnId, secret: EpochSecret, session: Option<SessionId>) -> Member {
        let (packets, last) = (BTreeMap::new(), Vec::new());
        Member { link, conn, secret, session, deaf: false, packets, last }
    }

    /// This end of a carrier of packets of its session.
    fn packets(&mut self, slot: u16) -> Option<&mut Packets> {
        let session = self.session?.0 & ((1 << 48) - 1);
        let keys =
            |direction| self.secret.traffic(SUITE, direction, PACKETS_FROM | u32::from(slot));
        let (out, back) = (keys(Direction::ToResponder), keys(Direction::ToInitiator));
        Some(self.packets.entry(slot).or_insert_with(|| {
            let header = HeaderKey::new(&network(), Direction::ToResponder);
            let at = (session, slot);
            Packets {
                sealer: DatagramSealer::new(&out, Backend::AwsLc, header, at),
                opener: DatagramOpener::new(&back, Backend::AwsLc, 1 << 12),
            }
        }))
    }
}

struct World {
    agent: Agent,
    desk: Desk,
    entropy: Entropy,
    next_conn: u32,
    stranger: Option<ConnId>,
    member: Option<Member>,
}

/// Lets all of it happen.
pub fn agent(data: &[u8]) {
    let settings = AgentSettings {
        instance: Instance([1; 16]),
        shard: SHARD,
        shards: 2,
        backends: [Backend::AwsLc; Suite::ALL.len()],
        memory: 1 << 20,
        flows_max: 16,
        wait: Span::from_s(30),
    };
    let mut agent = Agent::new(settings, secret(5), Entropy::from_seed(secret(3)));
    let mut desk = Desk { now: Moment(1_000_000_000_000), ..Desk::default() };
    let listener = Listener {
        networks: vec![network()],
        identities: Vec::new(),
        shared: vec![shared()],
        suites: vec![SUITE],
    };
    let proofs = vec![(PeerProof::Shared(shared().id()), None)];
    let peer = Peer { credentials: Vec::new(), proofs, carriers_max: 4, packets: true };
    agent.configure(desk.now, listener, vec![Some(peer)], &mut desk);
    let entropy = Entropy::from_seed(secret(4));
    let mut world = World { agent, desk, entropy, next_conn: 0, stranger: None, member: None };
    let mut rest = data;
    while let [act, len, more @ ..] = rest {
        let (bytes, next) = more.split_at(more.len().min(usize::from(*len)));
        rest = next;
        world.act(act % ACTS, bytes);
        world.settle();
    }
}

impl World {
    fn act(&mut self, act: u8, bytes: &[u8]) {
        match act {
            KNOCK => self.stranger = Some(self.say_first(bytes)),
            MORE => {
                if let Some(conn) = self.stranger {
                    self.say(conn, bytes);
                }
            }
            HELLO => self.hello(bytes),
            RECORD => self.record(bytes),
            JOIN => self.join(bytes),
            ADOPT => {
                let conn = self.connection();
                self.agent.adopted(self.desk.now, conn, bytes, &mut self.desk);
            }
            TIME => self.pass(bytes.first().copied().unwrap_or(1)),
            CLOSE => {
                if let Some(member) = self.member.as_ref() {
                    let conn = member.conn;
                    self.agent.closed(self.desk.now, conn, &mut self.desk);
                }
            }
            PACKET => self.packet(bytes),
            AGAIN => self.again(bytes),
            DATAGRAMS => {
                let (len, rest) = bytes.split_first().unwrap_or((&1, &[]));
                self.datagrams(OTHER, usize::from(*len).max(1), rest);
            }
            _ => self.application(bytes.first().copied().unwrap_or(0)),
        }
    }

    /// What came to nothing so far.
    fn dropped(&self) -> u64 {
        let counts = self.agent.datagram_counts();
        counts.strange + counts.forged + counts.replayed + counts.elsewhere
    }

    fn datagrams(&mut self, from: SocketAddr, datagram_bytes: usize, bytes: &[u8]) {
        let route = Route { socket: 0, to: from, from: None };
        let arrived = Arrived { route, listening: true, datagram_bytes };
        self.agent.datagrams(self.desk.now, &arrived, &mut bytes.to_vec(), &mut self.desk);
    }

    fn packet(&mut self, bytes: &[u8]) {
        let (slot, text) = bytes.split_first().unwrap_or((&0, &[]));
        let Some(member) = self.member.as_mut() else { return };
        let Some(packets) = member.packets(u16::from(*slot)) else { return };
        let half = DATAGRAM_OVERHEAD / 2;
        let mut datagram = [&vec![0; half], text, &vec![0; half]].concat();
        packets.sealer.seal(&mut datagram).expect("few packets");
        member.last.clone_from(&datagram);
        self.datagrams(MEMBER, datagram.len(), &datagram);
    }

    /// It verifies no more, or came before: it is counted, from wherever it comes.
    fn again(&mut self, bytes: &[u8]) {
        let Some(member) = self.member.as_ref().filter(|member| !member.last.is_empty()) else {
            return;
        };
        let mut datagram = member.last.clone();
        if let [at, change, ..] = bytes {
            let at = usize::from(*at) % datagram.len();
            datagram[at] ^= change;
        }
        let before = self.dropped();
        self.datagrams(OTHER, datagram.len(), &datagram);
        assert_eq!(self.dropped(), before + 1, "it is counted, and moves nothing");
    }

    fn connection(&mut self) -> ConnId {
        let conn = ConnId { index: self.next_conn, generation: 1 };
        self.next_conn += 1;
        self.desk.out.insert(conn, Vec::new());
        conn
    }

    fn say(&mut self, conn: ConnId, bytes: &[u8]) {
        self.agent.received(self.desk.now, conn, &mut bytes.to_vec(), &mut self.desk);
    }

    fn say_first(&mut self, bytes: &[u8]) -> ConnId {
        let conn = self.connection();
        let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.agent.accepted(self.desk.now, conn, source, &mut self.desk);
        self.say(conn, bytes);
        conn
    }

    /// A handshake by the member; what answers is the beginning of its link.
    fn hello(&mut self, said: &[u8]) {
        let dial = Dial {
            network: &network(),
            credentials: &Credentials::Shared(shared()),
            kind: CarrierKind::Tcp,
            suites: SuiteSet::ALL,
            now_ms: self.desk.wall_ms(),
        };
        let mut message = Vec::new();
        let initiator = Initiator::start(&dial, said, &mut self.entropy, &mut message);
        let conn = self.say_first(&message);
        let mut answer = self.desk.out.get_mut(&conn).map(std::mem::take).unwrap_or_default();
        let mut link = Link::near(initiator);
        let (_, step) = link.received(&mut answer, None, &mut self.entropy, |_, _| true);
        if let Step::Answered(established) = step {
            let secret = established.secret.clone();
            link.admit(place(0), &secret);
            self.member = Some(Member::new(link, conn, secret, None));
        }
    }

    fn record(&mut self, text: &[u8]) {
        if self.member.is_none() {
            self.hello(&probe_hello(Instance([2; 16])));
        }
        let Some(member) = self.member.as_mut() else { return };
        let (mut out, conn) = (Vec::new(), member.conn);
        member.link.seal(&mut out, |out| out.extend_from_slice(text)).expect("few records");
        self.say(conn, &out);
        let reports = self.agent.report(false, &self.desk);
        let session = reports.first().and_then(|report| report.session);
        if let Some(member) = self.member.as_mut() {
            member.session = session;
        }
    }

    fn join(&mut self, bytes: &[u8]) {
        let Some(Member { secret, session: Some(session), .. }) = &self.member else { return };
        let (secret, session) = (secret.clone(), *session);
        let (number, text) = bytes.split_first().unwrap_or((&1, &[]));
        let number = if *number == u8::MAX { u32::MAX } else { u32::from(*number) };
        let mut out = Vec::new();
        let dial = (&network(), CarrierKind::Tcp, self.desk.wall_ms());
        write_join(dial, (session, number, 0), &secret, &mut self.entropy, &mut out);
        let mut link = Link::joining(place(number), &secret);
        link.seal(&mut out, |out| out.extend_from_slice(text)).expect("the first record");
        let conn = self.say_first(&out);
        let packets = self.member.take().map(|member| (member.packets, member.last));
        let mut member = Member::new(link, conn, secret, Some(session));
        (member.packets, member.last) = packets.unwrap_or_default();
        self.member = Some(member);
    }

    fn pass(&mut self, times: u8) {
        self.desk.now = self.desk.now + Span::from_ms(100 * u64::from(times));
        let now = self.desk.now;
        let due = self.desk.due.iter().filter(|(_, at)| **at <= now);
        for conn in due.map(|(conn, _)| *conn).collect::<Vec<_>>() {
            self.desk.due.remove(&conn);
            self.agent.overdue(now, conn, &mut self.desk);
        }
    }

    fn application(&mut self, what: u8) {
        if what & 4 != 0
            && let Some(bond) = self.agent.bond_to(PeerId(0))
            && let Ok(flow) = self.agent.open(self.desk.now, bond)
        {
            self.desk.flows.insert((bond, flow));
        }
        let Some((bond, flow)) = self.desk.flows.last().copied() else { return };
        match what & 3 {
            0 => self.agent.drained_by_application(self.desk.now, bond, flow, 0),
            1 => {
                self.agent.push(bond, flow, b"an answer");
            }
            2 => self.agent.reset(bond, flow, ResetCode::Denied),
            _ => self.agent.send_bulk(self.desk.now, bond, &mut self.desk),
        }
        if what & 3 == 2 {
            self.desk.flows.remove(&(bond, flow));
        }
    }

    /// Turns, and what they say, judged.
    fn settle(&mut self) {
        let now = self.desk.now;
        let mut turns = 0;
        while self.agent.wake_at().is_some_and(|at| at <= now) {
            self.agent.settle(now, &mut self.desk);
            turns += 1;
            assert!(turns < TURNS_MAX, "it spins");
        }
        if let Some(conn) = self.stranger {
            assert_eq!(self.desk.backlog(conn), 0, "a stranger is told something");
        }
        for (conn, out) in &mut self.desk.out {
            let mut said = std::mem::take(out);
            let its = |member: &&mut Member| member.conn == *conn && !member.deaf;
            let Some(member) = self.member.as_mut().filter(its) else { continue };
            let Member { link, deaf, .. } = member;
            let (_, step) = link.received(&mut said, None, &mut self.entropy, |text, _| {
                let mut frames = Frames::new(text);
                while let Some(frame) = frames.next().expect("what it says are frames") {
                    *deaf |= matches!(frame, Frame::Keys { .. });
                }
                !*deaf
            });
            assert!(!matches!(step, Step::Broken), "what it says does not open");
        }
        self.hear_packets();
    }

    /// What the agent has sent in packets opens, and is made of frames.
    fn hear_packets(&mut self) {
        let trains = std::mem::take(&mut self.desk.trains);
        let header = HeaderKey::new(&network(), Direction::ToInitiator);
        for datagram in trains.iter().flat_map(|(len, train)| train.chunks(*len)) {
            let member = self.member.as_mut().expect("somebody has shown keys");
            let read = header.read(datagram).expect("it has a header");
            let its = member.session.is_some_and(|session| session.0 << 16 == read.session << 16);
            let known = its && !member.deaf && read.flags == 0;
            let Some(packets) = member.packets.get_mut(&read.slot).filter(|_| known) else {
                continue;
            };
            let mut datagram = datagram.to_vec();
            let opened = packets.opener.open(read, &mut datagram).expect("it is for us");
            let mut frames = Frames::new(opened.text);
            while let Some(frame) = frames.next().expect("what it says are frames") {
                assert!(!matches!(frame, Frame::Keys { .. }), "headers say which keys");
            }
        }
    }
}

fn place(carrier: u32) -> Place {
    let out = Direction::ToResponder;
    Place { carrier, epoch: 0, out, suite: SUITE, backend: Backend::AwsLc }
}

fn acts(acts: &[(u8, &[u8])]) -> Vec<u8> {
    acts.iter().flat_map(|(act, bytes)| [&[*act, bytes.len() as u8], *bytes].concat()).collect()
}

fn written(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    frames.iter().for_each(|frame| frame.write(&mut out));
    out
}

fn stream(bytes: &[u8], fin: bool) -> Frame<'_> {
    Frame::Stream { flow: FlowId(0), offset: 0, bytes, fin }
}

fn agent_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let opened = written(&[Frame::Ping { token: 1 }, stream(b"question", false)]);
    let whole = written(&[stream(b"question", true)]);
    let ping = written(&[Frame::Ping { token: 2 }]);
    let leave = written(&[Frame::Leave]);
    let rekey = {
        let exchange = ringway_tunnel_proto::Exchange { epoch: 1, public: [9; 32] };
        written(&[Frame::Rekey(exchange)])
    };
    let changes = {
        let exchange = ringway_tunnel_proto::Exchange { epoch: 1, public: [9; 32] };
        written(&[Frame::Rekey(exchange), Frame::Keys { epoch: 1 }])
    };
    let keys = written(&[Frame::Keys { epoch: 1 }]);
    let hello = probe_hello(Instance([2; 16]));
    let another = probe_hello(Instance([3; 16]));
    let joins = |number: u8| [&[number][..], &ping].concat();
    vec![
        (
            "stranger",
            acts(&[(KNOCK, b"GET / HTTP/1.1\r\n\r\n"), (MORE, &[7; 200]), (TIME, &[255])]),
        ),
        ("silent-stranger", acts(&[(KNOCK, b""), (TIME, &[255]), (TIME, &[200]), (MORE, b"x")])),
        ("session", acts(&[(RECORD, &opened), (APPLICATION, &[1]), (TIME, &[1]), (CLOSE, b"")])),
        ("whole-flow", acts(&[(RECORD, &whole), (APPLICATION, &[0]), (APPLICATION, &[2])])),
        ("other-version", acts(&[(HELLO, &[2; 30]), (RECORD, &opened)])),
        ("short-hello", acts(&[(HELLO, &hello[..20]), (RECORD, &opened)])),
        ("no-record", acts(&[(HELLO, &hello), (TIME, &[255])])),
        ("another-life", {
            acts(&[(HELLO, &hello), (RECORD, &opened), (HELLO, &another), (RECORD, &ping)])
        }),
        ("joins", acts(&[(RECORD, &opened), (JOIN, &joins(1)), (CLOSE, b""), (JOIN, &joins(9))])),
        ("joins-twice", acts(&[(RECORD, &opened), (JOIN, &joins(1)), (JOIN, &joins(1))])),
        ("joins-far-ahead", acts(&[(RECORD, &ping), (JOIN, &joins(255)), (JOIN, &joins(2))])),
        ("leaves", acts(&[(RECORD, &opened), (JOIN, &joins(1)), (RECORD, &leave), (TIME, &[3])])),
        ("offers-nonsense-keys", acts(&[(RECORD, &rekey), (TIME, &[1]), (RECORD, &keys)])),
        ("changes-keys", acts(&[(RECORD, &opened), (RECORD, &rekey), (RECORD, &changes)])),
        ("keys-of-nothing", acts(&[(RECORD, &opened), (RECORD, &keys)])),
        ("nonsense", acts(&[(RECORD, &[0x40, 0]), (RECORD, &opened)])),
        ("opened-here", acts(&[(RECORD, &ping), (APPLICATION, &[5]), (APPLICATION, &[3])])),
        ("adopted-nonsense", acts(&[(ADOPT, &[0; 40])])),
        ("waits-too-long", acts(&[(RECORD, &opened), (CLOSE, b""), (TIME, &[255]), (TIME, &[60])])),
    ]
    .into_iter()
    .chain(packet_seeds())
    .collect()
}

fn packet_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let opened = written(&[Frame::Ping { token: 1 }, stream(b"question", false)]);
    let whole = written(&[stream(b"question", true)]);
    let ping = written(&[Frame::Ping { token: 2 }]);
    let keys = written(&[Frame::Keys { epoch: 1 }]);
    let packet = |slot: u8, text: &[u8]| [&[slot][..], text].concat();
    let wanted = written(&[Frame::Wanted { floor: 0, wait: 1_000_000 }]);
    // The newest is 0, and has come: totals, then a word with one bit.
    let totals = [&[0; 10][..], &[1, 0x40, 60, 0]].concat();
    let report = [&[0x21, 25][..], &totals, &[0, 1, 0, 1], &[0; 7]].concat();
    vec![
        (
            "packets",
            acts(&[(RECORD, &ping), (PACKET, &packet(0, &opened)), (TIME, &[1]), (AGAIN, b"")]),
        ),
        (
            "packets-damaged",
            acts(&[
                (RECORD, &ping),
                (PACKET, &packet(0, &wanted)),
                (AGAIN, &[20, 1]),
                (AGAIN, &[3, 9]),
            ]),
        ),
        (
            "packets-and-answers",
            acts(&[
                (RECORD, &ping),
                (PACKET, &packet(0, &[&wanted[..], &whole].concat())),
                (TIME, &[1]),
                (APPLICATION, &[1]),
                (PACKET, &packet(0, &report)),
                (TIME, &[50]),
            ]),
        ),
        (
            "packets-of-slots",
            acts(&[
                (RECORD, &ping),
                (PACKET, &packet(3, &wanted)),
                (PACKET, &packet(1, &wanted)),
                (PACKET, &packet(9, &opened)),
            ]),
        ),
        ("packets-nonsense", acts(&[(RECORD, &ping), (PACKET, &packet(0, &keys))])),
        ("datagrams-of-nobody", acts(&[(DATAGRAMS, &[40; 200]), (DATAGRAMS, &[1, 2, 3])])),
    ]
}
