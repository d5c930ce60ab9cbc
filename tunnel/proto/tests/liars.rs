//! Peers that lie about packets: they report what never came, at times that cannot be, and send
//! what can never be read.
//!
//! Bytes are freed on a flow's word alone, so that a liar harms its own flows. How fast we send is
//! what it says, as far as times can be: who lies about those as well is sent to at once, up to
//! what its flows have credit for.

mod net;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use net::air::FAR;
use net::{Net, PEER, Secrets, Shard, key};
use ringway_core::{Moment, Span};
use ringway_crypto::{
    Backend, CarrierKind, Credentials, DATAGRAM_OVERHEAD, DatagramSealer, Dial, Direction, Entropy,
    HeaderKey, Initiator, NetworkKey, PeerProof, Secret, Suite, SuiteSet,
};
use ringway_tunnel_proto::path::{Load, Report, Run, Sender};
use ringway_tunnel_proto::{
    BondId, CarrierSlot, Event, Exchange, FlowId, Frame, Frames, Instance, Link, Outlet, Peer,
    PeerId, Place, Role, Session, Settings, Step, Violation, WINDOW_FIRST, probe_hello,
};

const START: Moment = Moment(1_000_000_000);
const PACKET_BYTES: u64 = 1500;
/// Packets that our host sends in a millisecond, at most.
const HOST_PACKETS: usize = 50;
const STEP: Span = Span::from_ms(1);

/// A varint of eight bytes.
fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&(number | 0xc000_0000_0000_0000).to_be_bytes());
}

/// The body of a report that all packets before `next` have come, so many bytes, the last one then.
fn all_came(next: u64, bytes: u64, arrived: Moment) -> Vec<u8> {
    let newest = next - 1;
    let first = (newest / 64).saturating_sub(255) * 64;
    let words = newest / 64 - first / 64 + 1;
    let mut body = Vec::new();
    put(&mut body, newest);
    body.extend_from_slice(&arrived.0.to_le_bytes());
    [0, next, bytes, 0, first, words].into_iter().for_each(|number| put(&mut body, number));
    body.push(0);
    body.resize(body.len() + words as usize * 8, 0xff);
    body
}

/// What a liar says of when packets came.
type Clock = fn(Moment) -> Moment;

/// Clocks that go evenly, slowly, not at all, and back; and slowly after a while.
const STEADY: [Clock; 5] = [
    |now| now,
    |now| Moment(now.0.min(TURNS.0) + now.since(TURNS).0 / 1000),
    |now| Moment(START.0 + now.since(START).0 / 1_000_000),
    |_| START,
    |now| Moment(u64::MAX - now.0),
];
/// When a liar that was honest begins to lie.
const TURNS: Moment = Moment(START.0 + 500_000_000);
/// Times that have nothing to do with each other.
const WILD: Clock = |now| Moment(now.0.wrapping_mul(0x9E37_79B9_7F4A_7C15));
/// No rate is more, whatever is said: bytes a second.
const RATE_MAX: u64 = 1 << 40;

/// Sends for seconds to who says after `delay` that everything came, by such a clock. Returns the
/// most that a second's bandwidth was said to be.
fn believed(delay: Span, clock: Clock) -> u64 {
    let mut sender = Sender::<u32>::new(START, PACKET_BYTES);
    let (mut now, mut sent, mut most) = (START, VecDeque::new(), 0);
    for _ in 0..2000 {
        for _ in 0..HOST_PACKETS {
            let probes = sender.probe(now, |_| {});
            if !probes && !sender.may_send(now) || sender.is_full() {
                break;
            }
            let run = Run { flow: 7, start: sender.bytes().1, len: 1400 };
            let load = Load { segment: Some(sender.begin(run)), word: None };
            sender.send(now, PACKET_BYTES as u32, load);
        }
        let (_, bytes) = sender.bytes();
        sent.push_back((now + delay, sender.next_number(), bytes));
        while let Some((_, next, bytes)) = sent.pop_front_if(|(at, ..)| *at <= now) {
            let body = all_came(next, bytes, clock(now));
            let report = Report::read(&body).expect("it is well made");
            sender.heard(now, &report, |_| {}).expect("all of it was sent");
        }
        let ((flying, all), came) = (sender.bytes(), sender.came());
        assert!(flying <= all && came <= all, "{flying}, {came} of {all}");
        assert!(sender.kept() as u64 <= sender.next_number());
        most = most.max(sender.rate().bandwidth());
        now = now + STEP;
    }
    most
}

/// Whoever says that all came is believed no more than was sent, at any delay, as long as its times
/// make sense together.
#[test]
fn a_liar_is_believed_no_more_than_was_sent() {
    let host = HOST_PACKETS as u64 * PACKET_BYTES * 1000;
    for delay in [Span::ZERO, Span::from_ms(1), Span::from_ms(20), Span::from_ms(200)] {
        for (at, clock) in STEADY.into_iter().enumerate() {
            let most = believed(delay, clock);
            assert!(most <= host + host / 8, "{most} of {host} after {delay:?} by clock {at}");
        }
        let most = believed(delay, WILD);
        assert!(most <= RATE_MAX, "{most} after {delay:?}");
    }
}

/// What a session says beside packets: nothing may be heard of a liar's flows.
struct Nothing;

impl Outlet for Nothing {
    fn data(&mut self, flow: FlowId, _: &[u8]) {
        panic!("nobody wrote to {flow:?}");
    }

    fn rekey(&mut self, _: Exchange) {}

    fn keys(&mut self, _: u32) {}

    fn event(&mut self, event: Event) {
        assert!(matches!(event, Event::Suspect(_) | Event::Recovered(_)), "{event:?}");
    }
}

/// A carrier's word that all packets came frees nothing, ends no flow and gives no credit, whatever
/// the clock: what is kept is what was written, and that is bounded.
#[test]
fn a_carriers_word_frees_nothing() {
    const WINDOW: u64 = 64 << 10;
    for clock in STEADY.into_iter().chain([WILD]) {
        let role = Role::Initiator;
        let mut near =
            Session::new(Settings { role, window_first: WINDOW, memory: 1 << 24, flows_max: 9 });
        let slot = near.packets_on_trial(START, 28, 60);
        let flow = near.open(START).expect("the first");
        let (mut now, mut written, mut sent, mut next) = (START, 0, 0, 0);
        for said in 0..3000 {
            written += near.write(flow, &[7; 1000]) as u64;
            if near.wake_at().is_some_and(|at| at <= now) {
                near.tick(now, &mut Nothing);
            }
            while near.wants_packet(now, slot) {
                let mut text = Vec::new();
                let number = if let Some(bytes) = near.question(now, slot) {
                    Some(near.fill_question(now, slot, bytes - 32, &mut text))
                } else {
                    let room = near.datagram_bytes(slot) - 32;
                    near.fill_packet(now, slot, room, (&mut text, &mut Nothing))
                };
                let Some(number) = number else { break };
                (sent, next) = (sent + text.len() as u64 + 60, number + 1);
            }
            let body = all_came(next, sent, clock(now));
            let mut text = Vec::new();
            Frame::Report(Report::read(&body).expect("it is well made")).write(&mut text);
            near.packet(now, slot, (said, 100), &text, &mut Nothing).expect("all of it was sent");
            now = now + STEP;
        }
        let report = near.flow(flow).expect("nobody has ended it");
        assert_eq!(report.kept, written, "nothing is freed");
        // What there is credit for, and a block more.
        assert!((WINDOW..=2 * WINDOW).contains(&written), "{written}");
        assert!(
            near.carrier(CarrierSlot(0)).is_some_and(|one| one.sent >= WINDOW),
            "it was believed"
        );
    }
}

/// Counts what is delivered.
#[derive(Default)]
struct Reader(u64);

impl Outlet for Reader {
    fn data(&mut self, _: FlowId, bytes: &[u8]) {
        self.0 += bytes.len() as u64;
    }

    fn rekey(&mut self, _: Exchange) {}

    fn keys(&mut self, _: u32) {}

    fn event(&mut self, event: Event) {
        assert!(matches!(event, Event::Opened(_)), "{event:?}");
    }
}

/// A session of who is sent gaps.
struct Gaps {
    far: Session,
    slot: CarrierSlot,
    reader: Reader,
    /// Packets that came, and of those, that were taken whole.
    said: u64,
    taken: u64,
}

const GAPS_WINDOW: u64 = 64 << 10;
const GAPS_MEMORY: u64 = 1 << 20;
const GAPS_FLOWS: u64 = 64;
/// What one peer may have: of seven eighths two thirds.
const GAPS_HELD_MAX: u64 = GAPS_MEMORY / 8 * 7 / 3 * 2;

impl Gaps {
    fn new() -> Gaps {
        let (role, memory, flows_max) = (Role::Responder, GAPS_MEMORY, GAPS_FLOWS as usize);
        let mut far = Session::new(Settings { role, window_first: GAPS_WINDOW, memory, flows_max });
        let slot = far.packets_on_trial(START, 28, 60);
        Gaps { far, slot, reader: Reader::default(), said: 0, taken: 0 }
    }

    /// A piece of a flow comes in a packet of its own.
    fn piece(&mut self, flow: u64, offset: u64, bytes: &[u8]) -> Result<(), Violation> {
        let mut text = Vec::new();
        Frame::Stream { flow: FlowId(2 * flow), offset, bytes, fin: false }.write(&mut text);
        Frame::Wanted { floor: 0, wait: 0 }.write(&mut text);
        let before = self.far.refused();
        let packet = (self.said, text.len() as u64 + 60);
        self.far.packet(START, self.slot, packet, &text, &mut self.reader)?;
        self.said += 1;
        self.taken += u64::from(self.far.refused() == before);
        let held = self.far.held();
        assert!(held <= GAPS_HELD_MAX, "{held} of {GAPS_MEMORY} are held");
        Ok(())
    }

    /// How many packets it says have come.
    fn reported(&mut self) -> u64 {
        let now = START + Span::from_ms(100);
        let mut text = Vec::new();
        let room = self.far.datagram_bytes(self.slot) - 32;
        self.far.fill_packet(now, self.slot, room, (&mut text, &mut self.reader));
        let mut frames = Frames::new(&text);
        while let Ok(Some(frame)) = frames.next() {
            if let Frame::Report(report) = frame {
                return report.totals.packets;
            }
        }
        panic!("no report");
    }
}

/// Pieces of many flows come by packets and none is the first, in crumbs and in large pieces, up to
/// four times what memory there is: all within credit. What is held stays within the account; a
/// packet for which there was no room is not said to have come; and a flow whose first bytes come
/// has all that waited for them. A byte beyond credit ends the session.
#[test]
fn gaps_by_packets_take_no_more_than_there_is() {
    let (mut gaps, bytes) = (Gaps::new(), [7; 1024]);
    for at in 0..GAPS_WINDOW / 1024 - 1 {
        for flow in 0..GAPS_FLOWS - 1 {
            gaps.piece(flow, 1 + at * 1024, &bytes).expect("it is within the credit");
        }
        for crumb in 0..64 {
            let offset = 1 + at * 1024 + crumb * 2;
            gaps.piece(GAPS_FLOWS - 1, offset, b"x").expect("it is within the credit");
        }
    }
    let held = gaps.far.held();
    assert!(held > GAPS_MEMORY / 2, "{held}: it was not tried");
    assert!(gaps.taken < gaps.said / 2, "{} of {} were taken", gaps.taken, gaps.said);
    assert_eq!(gaps.reported(), gaps.taken, "who has no room for it wants it again");
    assert_eq!(gaps.reader.0, 0);

    let early = gaps.far.flow(FlowId(0)).expect("it is open").early;
    gaps.piece(0, 0, b"x").expect("it is within the credit");
    assert_eq!(gaps.reader.0, early + 1, "what waited for it is delivered");
    let beyond = gaps.piece(1, GAPS_WINDOW, b"x");
    assert_eq!(beyond, Err(Violation::Overrun(FlowId(2))), "there is no credit for it");
}

/// Where a liar is, beside an honest peer of the same agent.
const LIAR_AT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 1000);
const LIAR: PeerId = PeerId(1);
const LIARS_KEY: u8 = 9;
/// Carriers of packets have numbers from here on.
const PACKETS_FROM: u32 = 1 << 31;
const SUITE: Suite = Suite::Aes128Gcm;
/// A peer's part of seven eighths of what the agent may hold.
const LIARS_HELD_MAX: u64 = (1 << 24) / 8 * 7 / 3 * 2;
/// Bytes that honest flows bring, each way.
const HONEST_BYTES: usize = 4 << 20;

/// Has no session of its own: it seals what it likes, and counts what is sent to it.
struct Liar {
    sealer: DatagramSealer,
    bond: BondId,
    packets: u64,
    bytes: u64,
    /// Which piece of a gap comes next.
    piece: u64,
}

impl Liar {
    /// The far site lets it in, too, and begins a flow with it.
    fn join(net: &mut Net) -> Liar {
        let proof = (PeerProof::Key(key(LIARS_KEY).public()), None);
        let liar = Peer { credentials: Vec::new(), proofs: vec![proof], ..known(net) };
        let peers = vec![Some(known(net)), Some(liar)];
        let (now, listener) = (net.now, net.secrets.listener(1));
        let Shard { agent, desk } = &mut net.sites[1][0];
        agent.configure(now, listener, peers, desk);

        let network = NetworkKey::new(Secret::new([100; 32]));
        let theirs = key(2).public();
        let credentials = Credentials::Keys { mine: key(LIARS_KEY), theirs, psk: None };
        let (kind, suites, now_ms) = (CarrierKind::Tcp, SuiteSet::ALL, net.wall_ms());
        let dial = Dial { network: &network, credentials: &credentials, kind, suites, now_ms };
        let mut entropy = Entropy::from_seed(Secret::new([3; 32]));
        let (mut said, hello) = (Vec::new(), probe_hello(Instance([LIARS_KEY; 16])));
        let initiator = Initiator::start(&dial, &hello, &mut entropy, &mut said);
        let conn = net.knock(0, &mut said);
        net.run_until(Span::from_s(1), |net| net.said_to(0, conn) > 0);
        net.step();
        let mut answer = net.sites[1][0].desk.strangers[&conn].clone();
        let mut link = Link::near(initiator);
        let (_, step) = link.received(&mut answer, None, &mut entropy, |_, _| true);
        let Step::Answered(established) = step else { panic!("it is not let in") };
        let (secret, out) = (established.secret.clone(), Direction::ToResponder);
        let place = Place { carrier: 0, epoch: 0, out, suite: SUITE, backend: Backend::AwsLc };
        link.admit(place, &secret);
        let mut record = Vec::new();
        let ping = |out: &mut Vec<u8>| Frame::Ping { token: 1 }.write(out);
        link.seal(&mut record, ping).expect("the first");
        let now = net.now;
        let Shard { agent, desk } = &mut net.sites[1][0];
        agent.received(now, conn, &mut record, desk);
        let mut reports = agent.report(false, desk).into_iter();
        let report = reports.find(|report| report.peer == LIAR).expect("it has a session");
        let session = report.session.expect("it is let in").0 & ((1 << 48) - 1);
        let keys = secret.traffic(SUITE, out, PACKETS_FROM);
        let sealer =
            DatagramSealer::new(&keys, Backend::AwsLc, HeaderKey::new(&network, out), (session, 0));
        net.air().strays = Some(Vec::new());
        let mut liar = Liar { sealer, bond: report.bond, packets: 0, bytes: 0, piece: 0 };
        let mut ping = Vec::new();
        Frame::Ping { token: 2 }.write(&mut ping);
        liar.say(net, &ping);
        liar
    }

    /// Says this by a packet.
    fn say(&mut self, net: &mut Net, text: &[u8]) {
        let half = vec![0; DATAGRAM_OVERHEAD / 2];
        let mut datagram = [&half, text, &half].concat();
        self.sealer.seal(&mut datagram).expect("few packets");
        let bytes = datagram.len();
        net.deliver_train(1, (LIAR_AT, FAR), (datagram, bytes));
    }

    /// All came, at times that cannot be; and pieces that wait for what never comes.
    fn lies(&mut self, net: &mut Net) {
        for (train, bytes) in net.air().strays.as_mut().map(std::mem::take).unwrap_or_default() {
            for datagram in train.chunks(bytes) {
                self.packets += 1;
                self.bytes += datagram.len() as u64 + 28;
            }
        }
        let mut text = Vec::new();
        if self.packets > 0 {
            let body = all_came(self.packets, self.bytes, WILD(net.now));
            Frame::Report(Report::read(&body).expect("it is well made")).write(&mut text);
        }
        self.say(net, &text);
        for _ in 0..24 {
            let (flow, at) = (FlowId(self.piece % 250 * 2), self.piece / 250 * 1024 % WINDOW_FIRST);
            self.piece += 1;
            if at + 1 + 1000 < WINDOW_FIRST {
                let mut text = Vec::new();
                Frame::Stream { flow, offset: at + 1, bytes: &[7; 1000], fin: false }
                    .write(&mut text);
                self.say(net, &text);
            }
        }
    }
}

/// How the far site knows the honest one.
fn known(net: &Net) -> Peer {
    Peer { packets: true, ..net.secrets.peer(1) }
}

/// How long honest flows take both ways, by packets, beside a liar or nobody.
fn takes(beside: bool) -> Span {
    let mut net = Net::with(None, 5, [1, 1], Secrets::Keys);
    net.give_air(5);
    let near = net.connect();
    net.run_until(Span::from_s(2), |net| {
        let reports = net.sites.iter().flatten().flat_map(|one| one.agent.report(false, &one.desk));
        let works = |one: &ringway_tunnel_proto::PacketMemberReport| one.carrier.usable;
        reports.filter(|one| one.packets.iter().any(works)).count() == 2
    });
    let far = net.sites[1][0].agent.bond_to(PEER).expect("it is up");
    let mut liar = beside.then(|| Liar::join(&mut net));
    let mut to_liar = None;
    for _ in 0..1000 {
        net.step();
        let Some(liar) = &mut liar else { continue };
        liar.lies(&mut net);
        let (now, Shard { agent, desk }) = (net.now, &mut net.sites[1][0]);
        let flow = *to_liar.get_or_insert_with(|| agent.open(now, liar.bond).expect("it is up"));
        desk.apps.entry((liar.bond, flow)).or_default();
        agent.push(liar.bond, flow, &[7; 1000]);
    }
    let (up, down) = (net.open(near, b""), {
        let (now, Shard { agent, desk }) = (net.now, &mut net.sites[1][0]);
        let flow = agent.open(now, far).expect("it is up");
        desk.apps.entry((far, flow)).or_default();
        flow
    });
    let data: Vec<u8> = (0..HONEST_BYTES).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect();
    let (begun, mut written) = (net.now, [0; 2]);
    // At which site each is written, and by which session; and by which it is read at the other.
    let ways = [(0, near, far, up), (1, far, near, down)];
    while ways.iter().any(|(site, _, there, flow)| {
        let app = net.sites[1 - site][0].desk.apps.get(&(*there, *flow));
        app.is_none_or(|app| app.read.len() < HONEST_BYTES)
    }) {
        assert!(net.now.since(begun) < Span::from_s(60), "it is held up: {written:?}");
        for (site, here, there, flow) in ways {
            let (now, agent) = (net.now, &mut net.sites[site][0].agent);
            let unsent = agent.flow(here, flow).map_or(0, |report| report.unsent) as usize;
            let from = written[site];
            let more = 65_536_usize.saturating_sub(unsent).min(HONEST_BYTES - from);
            agent.push(here, flow, &data[from..from + more]);
            written[site] += more;
            net.sites[1 - site][0].agent.drained_by_application(now, there, flow, 0);
        }
        net.step();
        if let Some(liar) = &mut liar {
            liar.lies(&mut net);
        }
        let held = net.sites[1][0].agent.memory().held;
        assert!(held <= LIARS_HELD_MAX + (2 << 20), "{held} bytes are held");
    }
    for (site, _, there, flow) in ways {
        assert!(net.sites[1 - site][0].desk.apps[&(there, flow)].read == data, "other bytes");
    }
    if let Some(liar) = &liar {
        let held = net.sites[1][0].agent.memory().held;
        println!("{} packets for it, {} pieces of it, {held} held", liar.packets, liar.piece);
        assert!(held > LIARS_HELD_MAX / 10 * 9 && liar.packets > 40, "it was not tried");
    }
    net.now.since(begun)
}

/// An honest peer beside one that says what is not so of packets, and sends what can never be read,
/// in one agent: its bytes are right, as soon as without the other, and it has its room.
#[test]
fn a_liar_harms_nobody_beside_it() {
    let [alone, beside] = [false, true].map(takes);
    println!("{alone:?} alone, {beside:?} beside a liar");
    assert!(beside.0 <= alone.0 + alone.0 / 10, "{alone:?} alone, {beside:?} beside a liar");
}
