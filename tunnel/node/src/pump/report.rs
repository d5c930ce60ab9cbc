//! What a shard tells of itself, a slice a turn, and what limits each flow.
//!
//! A report looks at every session, then at every flow, to find those that move most, then tells of
//! these. A shard may have 65 536 flows and more, so each turn does one slice of that, and flows
//! that are busy meanwhile wait for no more than a slice.
//!
//! What always holds:
//! - P1  A slice takes [`REPORT_STEPS`] steps, and what its last session, flow or peer costs beyond
//!   them: a flow that is looked at is one, a session [`SESSION_STEPS`] and one for each carrier,
//!   a flow that is told [`TOLD_STEPS`] and one for each 64 KiB of it on its way.
//! - P2  There is one report at a time: a newer one takes the place of one that nobody waits for
//!   any more.
//!
//! So it is not of one moment: of a session that ended meanwhile, or began, a part may be told.
//! Bounds: of a shard [`FLOWS_TOLD_MAX`] flows are told, equally many of each session at most;
//! `flow_count` says how many there are. While no report is asked for, nothing is done for it.
//! Not here: rates (`ringway_tunnel_proto::Meter`), what shards have together (`asked.rs`).
//! Tests: below, and `tools/ringway/tests/real/tunnel/watched.rs`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ringway_core::{ConnId, Moment};
use ringway_shards::Io;
use ringway_tunnel_proto::limits::{FLOWS_TOLD_MAX, REPORT_STEPS};
use ringway_tunnel_proto::path::Why;
use ringway_tunnel_proto::{
    BondId, BondReport, FlowId, FlowReport, MemberReport, PacketMemberReport, PeerId,
};

use super::Pump;
use super::flow::{Flow, FlowKey, Stage};
use super::own::Own;
use crate::status::{
    CarrierStatus, DecisionStatus, FlowStatus, NO_ANSWER, PeerTotals, SessionStatus, ShardStatus,
    WhyStatus,
};

/// Decisions of a carrier over UDP that are told.
const DECISIONS_TOLD: usize = 16;
/// What a session costs, beside one step for each of its carriers.
const SESSION_STEPS: usize = 16;
/// What a flow costs that is told, and for how many bytes on their way there is one more.
const TOLD_STEPS: usize = 4;
const BYTES_PER_STEP: u64 = 64 * 1024;

/// A report that is being put together.
pub(super) struct Reporting {
    /// Which asking it answers.
    number: u64,
    flows_max: usize,
    next: Next,
    status: ShardStatus,
    /// As `status.sessions`.
    listed: Vec<Listed>,
    /// By the session's place: where it is in `listed`.
    listed_at: Vec<Option<usize>>,
}

/// What a report looks at.
struct Views<'a> {
    own: &'a Own,
    /// Places for sessions.
    places: u32,
    session: &'a dyn Fn(BondId) -> Option<BondReport>,
    flow: &'a dyn Fn(BondId, FlowId) -> Option<FlowReport>,
    /// Bytes that went again to a peer.
    resent: &'a dyn Fn(PeerId) -> u64,
    /// Bytes that wait for an application.
    unread: &'a dyn Fn(ConnId) -> usize,
}

/// What the next step looks at.
enum Next {
    /// A session, by its place.
    Session(u32),
    /// A flow, by its place.
    Flow(FlowKey),
    /// The first of those that are left of the session at this place of the list.
    Told(usize),
    /// Nothing is left.
    Nothing,
}

/// A session in a report.
struct Listed {
    bond: BondId,
    up: bool,
    carriers_full: bool,
    /// Of its flows those that move most: the least of them first.
    most: BinaryHeap<Reverse<Rank>>,
}

/// How much a flow moves, and has moved; among equals the first that was opened comes first.
type Rank = ((u64, u64), Reverse<FlowId>, FlowKey);

impl Pump {
    /// Begins a report of this shard.
    pub(super) fn begin_report(&mut self, (number, flows_max): (u64, usize)) {
        self.reporting = Some(Box::new(Reporting::new(number, flows_max)));
    }

    /// Does a slice of a report, if there is one, and leaves it when it is whole.
    pub(super) fn go_on_reporting(&mut self, now: Moment, io: &mut Io<'_>) {
        let Some(reporting) = &mut self.reporting else { return };
        let agent = &self.agent;
        let views = Views {
            own: &self.own,
            places: agent.places(),
            session: &|id| agent.report_of(id, |conn| io.backlog(conn)),
            flow: &|bond, flow| agent.flow(bond, flow),
            resent: &|peer| agent.resent(peer),
            unread: &|conn| io.backlog(conn),
        };
        reporting.slice(now, &views);
        if matches!(reporting.next, Next::Nothing)
            && let Some(whole) = self.reporting.take()
        {
            self.own.shared.leave_report(whole.number, whole.status);
            io.post(self.own.control, &[1]);
        }
    }
}

impl Reporting {
    fn new(number: u64, flows_max: usize) -> Reporting {
        Reporting {
            number,
            flows_max,
            next: Next::Session(0),
            status: ShardStatus::default(),
            listed: Vec::new(),
            listed_at: Vec::new(),
        }
    }

    /// Does a slice (P1). Returns its steps.
    fn slice(&mut self, now: Moment, views: &Views<'_>) -> usize {
        let mut steps = 0;
        while steps < REPORT_STEPS {
            steps += match self.next {
                Next::Session(at) if at < views.places => {
                    self.next = Next::Session(at + 1);
                    self.look_at_session(now, BondId(at), views)
                }
                Next::Session(_) => self.end_of_sessions(now, views),
                Next::Flow(key) if key < views.own.places_of_flows() => {
                    self.next = Next::Flow(key + 1);
                    self.look_at_flow(now, key, views.own);
                    1
                }
                Next::Flow(_) => {
                    self.next = Next::Told(0);
                    1
                }
                Next::Told(at) if at < self.listed.len() => self.tell_flow(now, at, views),
                Next::Told(_) => {
                    self.next = Next::Nothing;
                    1
                }
                Next::Nothing => break,
            };
        }
        steps
    }

    fn look_at_session(&mut self, now: Moment, id: BondId, views: &Views<'_>) -> usize {
        self.listed_at.push(None);
        let Some(bond) = (views.session)(id) else { return 1 };
        self.listed_at[id.0 as usize] = Some(self.listed.len());
        self.status.sessions.push((bond.peer.0, session(now, &bond, views.own)));
        self.listed.push(Listed {
            bond: id,
            up: bond.up,
            carriers_full: is_full(&bond),
            most: BinaryHeap::new(),
        });
        SESSION_STEPS + bond.members.len() + bond.packets.len()
    }

    /// Tells what flows moved together, peer by peer, and goes on to them.
    fn end_of_sessions(&mut self, now: Moment, views: &Views<'_>) -> usize {
        let own = views.own;
        self.flows_max = self.flows_max.min(FLOWS_TOLD_MAX / self.listed.len().max(1));
        self.next = if self.flows_max > 0 { Next::Flow(0) } else { Next::Nothing };
        self.status.waiting = own.waiting_counts();
        let totals = own.site.peers().map(|(peer, _)| {
            (peer.0, PeerTotals { resent: (views.resent)(peer), ..PeerTotals::default() })
        });
        self.status.totals = totals.collect();
        for (peer, tally) in own.tallies() {
            // Peers are in the order of their numbers.
            let found = self.status.totals.binary_search_by_key(&peer.0, |(of, _)| *of);
            let Ok(at) = found else { continue };
            let (_, totals) = &mut self.status.totals[at];
            totals.bytes = tally.meter.total();
            totals.bits_per_s = tally.meter.bits_per_s(now);
            totals.saved = tally.saved;
        }
        1 + self.status.totals.len() + self.listed.len()
    }

    /// Keeps a flow that moves more than those of its session that are kept.
    fn look_at_flow(&mut self, now: Moment, key: FlowKey, own: &Own) {
        let Some(flow) = own.seen(key) else { return };
        let Some((bond, id)) = flow.place else { return };
        let listed_at = self.listed_at.get(bond.0 as usize).copied().flatten();
        let Some(at) = listed_at.filter(|at| self.status.sessions[*at].0 == flow.peer.0) else {
            return;
        };
        let [bytes, bits] = [flow.meter.total(), flow.meter.bits_per_s(now)];
        let moves = (bits[0].saturating_add(bits[1]), bytes[0].saturating_add(bytes[1]));
        let most = &mut self.listed[at].most;
        most.push(Reverse((moves, Reverse(id), key)));
        if most.len() > self.flows_max {
            most.pop();
        }
    }

    /// Tells of one flow: those of a session from the one that moves least.
    fn tell_flow(&mut self, now: Moment, at: usize, views: &Views<'_>) -> usize {
        let listed = &mut self.listed[at];
        let flows = &mut self.status.sessions[at].1.flows;
        let Some(Reverse((_, Reverse(id), key))) = listed.most.pop() else {
            self.next = Next::Told(at + 1);
            return 1;
        };
        if flows.is_empty() {
            flows.reserve_exact(listed.most.len() + 1);
        }
        let flow = views.own.seen(key).filter(|flow| flow.place == Some((listed.bond, id)));
        let found = flow.and_then(|flow| Some((flow, (views.flow)(listed.bond, id)?)));
        let Some((flow, report)) = found else { return 1 };
        let unread = flow.conn.is_some_and(|conn| (views.unread)(conn) > 0);
        flows.push(told(now, flow, (id, &report), signs(flow, &report, listed, unread)));
        TOLD_STEPS + (report.flying / BYTES_PER_STEP) as usize
    }
}

fn session(now: Moment, bond: &BondReport, own: &Own) -> SessionStatus {
    let peer = own.site.peer(bond.peer);
    let theirs = peer.map(|peer| peer.identity.proofs()).unwrap_or_default();
    let ours = &own.site.config.identities;
    let place = |at: usize| at as u64 + 1;
    let mine = bond.identity.and_then(|identity| identity.mine);
    let proof = match bond.session.filter(|_| !bond.dials) {
        Some(id) => own.shared.ask_registry(|registry| registry.proof_of(id)),
        None => bond.identity.map(|identity| identity.theirs),
    };
    SessionStatus {
        id: bond.session.map(|id| format!("{:016x}", id.0)),
        peer_key: theirs.iter().position(|known| Some(*known) == proof).map(place),
        peer_keys: theirs.len() as u64,
        own_key: mine.and_then(|mine| ours.iter().position(|key| key.public() == mine)).map(place),
        own_keys: ours.len() as u64,
        shard: own.me.0,
        up: bond.up,
        cipher: bond.suite.map(|suite| suite.name().to_owned()),
        epoch: bond.epoch,
        failures: bond.failures,
        alone_ms: bond.alone_since.map(|since| now.since(since).as_ms_ceil()),
        carriers: carriers(now, bond, own),
        flow_count: bond.flow_count,
        resent: bond.resent,
        flows: Vec::new(),
    }
}

fn carriers(now: Moment, bond: &BondReport, own: &Own) -> Vec<CarrierStatus> {
    let packets = bond.packets.iter().map(|member| packet_carrier(now, (bond, member)));
    packets.chain(bond.members.iter().map(|member| carrier(now, member, own))).collect()
}

fn packet_carrier(
    now: Moment,
    (bond, member): (&BondReport, &PacketMemberReport),
) -> CarrierStatus {
    let [sent, received] = member.wire.bits_per_s(now);
    let [bytes_sent, bytes_received] = member.wire.total();
    let PacketMemberReport { carrier, packets, .. } = member;
    let limited_by = limit_of_packets(bond, member);
    let heard = member.why.silent.is_none() && carrier.proved;
    CarrierStatus {
        id: format!("{}u{}", bond.bond.0, member.slot),
        kind: "udp".to_owned(),
        peer: Some(member.route.to),
        rtt_us: carrier.rtt.0 / 1000,
        rate_sent_bits_per_s: sent,
        rate_received_bits_per_s: received,
        takes_bits_per_s: packets.rate.saturating_mul(8),
        bytes_sent,
        bytes_received,
        sent: carrier.sent,
        in_flight: packets.flying,
        waiting: 0,
        resent: carrier.resent,
        datagram_bytes: Some(packets.datagram_bytes as u64),
        suspect: carrier.suspect,
        heard_us_ago: heard.then(|| now.since(member.why.heard_at).0 / 1000),
        limited_by: limited_by.to_owned(),
        why: Some(why_status(now, (limited_by, bond.by_records), &member.why)),
    }
}

/// What keeps a carrier of packets from being given more.
fn limit_of_packets(bond: &BondReport, member: &PacketMemberReport) -> &'static str {
    match member.carrier {
        carrier if carrier.suspect || !carrier.proved => NO_ANSWER,
        _ if bond.by_records.is_some() => "held back",
        _ if member.held_up || bond.path_bound && bond.has_bulk => "path",
        _ => "nothing",
    }
}

/// In words, with the newest decisions.
fn why_status(
    now: Moment,
    (limited_by, by_records): (&str, Option<Moment>),
    why: &Why,
) -> WhyStatus {
    let (mut rate, window) = match limited_by {
        NO_ANSWER => (why.silence(now), why.given_up()),
        _ => (why.rate(), why.window()),
    };
    if let Some(since) = by_records.filter(|_| limited_by != NO_ANSWER) {
        let seconds = now.since(since).0 / 1_000_000_000;
        rate += &format!("; UDP is held back, so streams have gone by TCP for {seconds} s");
    }
    let told = why.decisions.len().saturating_sub(DECISIONS_TOLD);
    let decisions = why.decisions[told..].iter().map(|(at, decision)| DecisionStatus {
        ago_ms: now.since(*at).0 / 1_000_000,
        what: decision.to_string(),
    });
    WhyStatus { rate, window, repair: why.repair(), decisions: decisions.collect() }
}

fn carrier(now: Moment, member: &MemberReport, own: &Own) -> CarrierStatus {
    let [sent, received] = member.wire.bits_per_s(now);
    let [bytes_sent, bytes_received] = member.wire.total();
    CarrierStatus {
        id: format!("{}.{}", member.conn.index, member.conn.generation),
        kind: "tcp".to_owned(),
        peer: own.carrier_peer(member.conn),
        rtt_us: member.carrier.rtt.0 / 1000,
        rate_sent_bits_per_s: sent,
        rate_received_bits_per_s: received,
        takes_bits_per_s: member.takes.saturating_mul(8),
        bytes_sent,
        bytes_received,
        sent: member.carrier.sent,
        in_flight: member.carrier.flying,
        waiting: member.waiting as u64,
        resent: member.carrier.resent,
        datagram_bytes: None,
        suspect: member.carrier.suspect,
        heard_us_ago: None,
        limited_by: limit_of(member).to_owned(),
        why: None,
    }
}

fn signs(flow: &Flow, report: &FlowReport, listed: &Listed, unread: bool) -> Signs {
    Signs {
        no_carrier: !listed.up,
        throttled: flow.is_throttled(),
        unread,
        out_of_credit: report.out_of_credit,
        all_arrived: report.flying == 0,
        unsent: report.unsent > 0,
        carriers_full: listed.carriers_full,
    }
}

fn told(now: Moment, flow: &Flow, (id, report): (FlowId, &FlowReport), signs: Signs) -> FlowStatus {
    let stage = match flow.stage {
        Stage::Greeting | Stage::Request => "greeting",
        Stage::Waiting(_) => "waiting",
        Stage::Asked | Stage::Opening => "opening",
        Stage::Resolving(_) => "resolving",
        Stage::Connecting(_) => "connecting",
        Stage::Joined => "joined",
        Stage::Leaving => "leaving",
    };
    let [bytes_in, bytes_out] = flow.meter.total();
    let [rate_in, rate_out] = flow.meter.bits_per_s(now);
    FlowStatus {
        flow: id.0,
        from: flow.from.map(|from| from.to_string()),
        target: flow.target.clone(),
        stage: stage.to_owned(),
        age_ms: now.since(flow.began).as_ms_ceil(),
        rate_in_bits_per_s: rate_in,
        rate_out_bits_per_s: rate_out,
        rtt_us: report.rtt.map(|rtt| rtt.0 / 1000),
        bytes_in,
        bytes_out,
        saved: flow.saved(),
        kept: report.kept,
        in_flight: report.flying,
        resent: report.resent,
        limited_by: limit(&flow.stage, signs).to_owned(),
    }
}

/// Whether no carrier of a session takes more of bulk. Where packets get through, it goes by them,
/// as fast as their path passes them, unless they are held back.
fn is_full(bond: &BondReport) -> bool {
    let mut packets = bond.packets.iter().filter(|one| one.carrier.usable).peekable();
    match packets.peek() {
        Some(_) if bond.by_records.is_none() => bond.path_bound || packets.all(|one| one.held_up),
        _ => are_full(&bond.members),
    }
}

/// Whether no carrier that bulk may go by takes more: bytes wait for it, or as many are on their
/// way as serve any purpose.
fn are_full(members: &[MemberReport]) -> bool {
    let usable = || members.iter().filter(|one| one.carrier.usable);
    let alone = usable().nth(1).is_none();
    let mut bulk = usable().filter(|one| alone || !one.express).peekable();
    bulk.peek().is_some() && bulk.all(|one| one.waiting > 0 || !one.carrier.has_window)
}

/// What keeps a carrier from being given more.
fn limit_of(member: &MemberReport) -> &'static str {
    match member.carrier {
        carrier if carrier.suspect || !carrier.proved => NO_ANSWER,
        carrier if member.waiting > 0 || !carrier.has_window => "path",
        _ => "nothing",
    }
}

/// What is seen of a flow that is joined.
#[derive(Clone, Copy, Debug, Default)]
struct Signs {
    no_carrier: bool,
    throttled: bool,
    unread: bool,
    out_of_credit: bool,
    /// All that was sent is acknowledged. Credit comes with acknowledgements as long as the other
    /// side's application reads: who is out of it then waits for that application, and who is out
    /// of it with bytes on their way has a window that is shorter than the way.
    all_arrived: bool,
    unsent: bool,
    carriers_full: bool,
}

/// What holds a flow back at this moment, the surest sign first.
fn limit(stage: &Stage, signs: Signs) -> &'static str {
    match stage {
        Stage::Resolving(_) => "name",
        Stage::Connecting(_) | Stage::Asked | Stage::Opening => "connect",
        Stage::Greeting | Stage::Request => "application",
        Stage::Waiting(_) => "carrier",
        Stage::Leaving => "our reader",
        Stage::Joined if signs.no_carrier => "carrier",
        Stage::Joined if signs.throttled => "rate",
        Stage::Joined if signs.unread => "our reader",
        Stage::Joined if signs.out_of_credit && signs.all_arrived => "peer's reader",
        Stage::Joined if signs.out_of_credit => "window",
        Stage::Joined if signs.unsent && signs.carriers_full => "carrier",
        Stage::Joined if signs.unsent => "CPU",
        Stage::Joined => "application",
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use ringway_core::{ConnId, Span};
    use ringway_tunnel_proto::path::Sender;
    use ringway_tunnel_proto::{CarrierReport, Meter, PacketsReport, Route};

    use super::*;
    use crate::pump::own;
    use crate::pump::rate::Way;

    #[test]
    fn what_limits_a_flow_is_its_surest_sign() {
        let none = Signs::default();
        let unsent = Signs { unsent: true, ..none };
        let full = Signs { carriers_full: true, ..unsent };
        let table = [
            (none, "application"),
            (Signs { carriers_full: true, ..none }, "application"),
            (unsent, "CPU"),
            (full, "carrier"),
            (Signs { out_of_credit: true, ..full }, "window"),
            (Signs { out_of_credit: true, all_arrived: true, ..full }, "peer's reader"),
            (Signs { all_arrived: true, ..unsent }, "CPU"),
            (Signs { unread: true, out_of_credit: true, ..full }, "our reader"),
            (Signs { unread: true, ..unsent }, "our reader"),
            (Signs { throttled: true, ..full }, "rate"),
            (Signs { no_carrier: true, ..full }, "carrier"),
        ];
        for (signs, word) in table {
            assert_eq!(limit(&Stage::Joined, signs), word, "{signs:?}");
        }
        assert_eq!(limit(&Stage::Opening, full), "connect");
        assert_eq!(limit(&Stage::Leaving, none), "our reader");
    }

    /// Two flows have no credit and more to say: of one all that was sent is there, and its reader
    /// does not take it; of the other a windowful is on its way.
    #[test]
    fn who_does_not_read_and_a_short_window_are_told_apart() {
        let flow = Flow::new(0, PeerId(0), Stage::Joined, START);
        let listed =
            Listed { bond: BondId(0), up: true, carriers_full: false, most: BinaryHeap::new() };
        let (unsent, window) = (1000, 64 * 1024);
        let with = |flying| FlowReport {
            // Bytes are freed by blocks, so more is kept than is missing.
            kept: unsent + flying + 10_000,
            unsent,
            flying,
            early: 0,
            delivered: 0,
            window,
            out_of_credit: true,
            resent: 0,
            rtt: None,
        };
        for (flying, word) in [(0, "peer's reader"), (window, "window"), (1, "window")] {
            let signs = signs(&flow, &with(flying), &listed, false);
            assert_eq!(limit(&flow.stage, signs), word, "{flying} bytes on their way");
        }
    }

    /// A carrier that has as much on its way as serves any purpose is full, though nothing waits
    /// before it. The one for who says little is none that bulk waits for.
    #[test]
    fn carriers_are_full_when_bulk_has_none() {
        let carrier = CARRIER;
        let conn = ConnId { index: 0, generation: 0 };
        let wire = Meter::new(Moment(0));
        let free = MemberReport { conn, carrier, waiting: 0, takes: 0, wire, express: false };
        let waited_for = MemberReport { waiting: 1, ..free };
        let on_the_way =
            MemberReport { carrier: CarrierReport { has_window: false, ..carrier }, ..free };
        let express = MemberReport { express: true, ..free };
        let gone = MemberReport { carrier: CarrierReport { usable: false, ..carrier }, ..free };
        assert!(!are_full(&[]) && !are_full(&[gone]) && !are_full(&[free]));
        assert!(are_full(&[waited_for]) && are_full(&[on_the_way, gone]));
        assert!(!are_full(&[waited_for, free]));
        assert!(are_full(&[waited_for, on_the_way, express]));
        assert!(!are_full(&[express]));
    }

    /// Where streams have more to say than the path passes, carrier and flow say so, though less is
    /// on its way than may be.
    #[test]
    fn packets_wait_for_their_path() {
        let member = |carrier| PacketMemberReport {
            slot: 0,
            route: Route { socket: 0, to: ([127, 0, 0, 1], 9).into(), from: None },
            carrier,
            packets: PacketsReport {
                flying: 10_000,
                came: 1 << 20,
                packets: 1000,
                rate: 1 << 20,
                window: 1 << 20,
                dropped: 0,
                datagram_bytes: 1200,
            },
            why: Sender::<u64>::new(START, 1228).why(),
            wire: Meter::new(START),
            held_up: false,
        };
        let packets = vec![member(CARRIER)];
        let with = |path_bound, has_bulk| BondReport {
            packets: packets.clone(),
            path_bound,
            has_bulk,
            ..bond(0, 1)
        };
        let told = |bond: &BondReport| (limit_of_packets(bond, &bond.packets[0]), is_full(bond));
        assert_eq!(told(&with(true, true)), ("path", true));
        // A few bytes wait for the pacer, and nothing else does.
        assert_eq!(told(&with(true, false)), ("nothing", true));
        assert_eq!(told(&with(false, true)), ("nothing", false));
        let held_up = BondReport {
            packets: vec![PacketMemberReport { held_up: true, ..packets[0].clone() }],
            ..with(false, true)
        };
        assert_eq!(told(&held_up), ("path", true));
        let silent = CarrierReport { suspect: true, usable: false, ..CARRIER };
        let dead = BondReport { packets: vec![member(silent)], ..with(true, true) };
        assert_eq!(told(&dead), (NO_ANSWER, false));
        let status = packet_carrier(START + Span::from_s(3), (&dead, &dead.packets[0]));
        let why = status.why.expect("it has reasons");
        assert_eq!(why.rate, "nothing has come back in 3.0 s of asking");
        assert!(why.window.contains("given up"), "{why:?}");
    }

    const CARRIER: CarrierReport = CarrierReport {
        rtt: Span::from_ms(1),
        rtt_min: Span::from_ms(1),
        flying: 0,
        sent: 0,
        resent: 0,
        suspect: false,
        usable: true,
        proved: true,
        has_window: true,
        left: false,
    };

    const START: Moment = Moment(1 << 40);
    const FLOWS: u64 = 65_536;

    /// A session of this peer that has so many flows.
    fn bond(id: u32, flow_count: u64) -> BondReport {
        BondReport {
            bond: BondId(id),
            peer: PeerId(0),
            dials: true,
            session: None,
            theirs: None,
            suite: None,
            identity: None,
            epoch: 0,
            up: true,
            alone_since: None,
            failures: 0,
            members: Vec::new(),
            packets: Vec::new(),
            by_records: None,
            path_bound: false,
            has_bulk: false,
            flow_count,
            resent: 7,
            flows: Vec::new(),
        }
    }

    /// The most of anything that one slice did.
    #[derive(Debug, Default)]
    struct Most {
        steps: usize,
        looked_at: u32,
        told: usize,
    }

    /// Reports, slice by slice.
    fn report(own: &Own, now: Moment, flows_max: usize) -> (ShardStatus, Most) {
        let told = Cell::new(0);
        let flow = |_, _| {
            told.set(told.get() + 1);
            Some(FlowReport {
                kept: 0,
                unsent: 0,
                flying: 0,
                early: 0,
                delivered: 0,
                window: 0,
                out_of_credit: false,
                resent: 0,
                rtt: None,
            })
        };
        let views = Views {
            own,
            places: 1,
            session: &|id| Some(bond(id.0, FLOWS)),
            flow: &flow,
            resent: &|_| 9,
            unread: &|_| 0,
        };
        let (mut reporting, mut most) = (Reporting::new(1, flows_max), Most::default());
        let place = |reporting: &Reporting| match reporting.next {
            Next::Session(_) => 0,
            Next::Flow(key) => key,
            Next::Told(_) | Next::Nothing => FLOWS as u32,
        };
        while !matches!(reporting.next, Next::Nothing) {
            let before = (place(&reporting), told.get());
            most.steps = most.steps.max(reporting.slice(now, &views));
            most.looked_at = most.looked_at.max(place(&reporting) - before.0);
            most.told = most.told.max(told.get() - before.1);
        }
        (reporting.status, most)
    }

    /// Each turn does a bounded part of a report, however many flows there are and are told, and
    /// none is left out.
    #[test]
    fn no_turn_looks_at_all_flows() {
        let mut own = own::tests::shard();
        for at in 0..FLOWS {
            let key = own.add(START, PeerId(0), Stage::Joined).key;
            own.settle(key, BondId(0), FlowId(2 * at));
        }
        // Some moved something long ago, and others do now.
        let now = START + Span::from_s(60);
        let key = |at: u64| at as FlowKey;
        own.count(START, key(77), Way::ToPeer, 1 << 30);
        own.count(now, key(500), Way::FromPeer, 1000);
        own.count(now, key(60_000), Way::ToPeer, 2000);
        let (mut all, most) = report(&own, now, FLOWS as usize);
        let flows = &mut all.sessions[0].1.flows;
        flows.reverse();
        assert_eq!(flows.len() as u64, FLOWS);
        let first: Vec<u64> = flows.iter().take(5).map(|flow| flow.flow).collect();
        assert_eq!(first, [120_000, 1000, 154, 0, 2], "from the one that moves most");
        assert_eq!(flows[0].rate_in_bits_per_s, 32_000, "2000 bytes in half a second");
        assert_eq!((flows[2].bytes_in, flows[2].rate_in_bits_per_s), (1 << 30, 0));
        assert!(most.steps <= 2 * REPORT_STEPS, "{most:?}");
        assert!(most.looked_at as usize <= REPORT_STEPS, "{most:?}");
        assert!(most.told <= REPORT_STEPS / TOLD_STEPS, "{most:?}");
        let (few, _) = report(&own, now, 2);
        assert!(few.sessions[0].1.flows.iter().rev().eq(&flows[..2]));
        assert_eq!(few.sessions[0].1.flow_count, FLOWS);
        // What peers moved is known without a look at flows.
        let (none, most) = report(&own, now, 0);
        assert_eq!((none.sessions[0].1.flows.len(), most.told), (0, 0));
        let (_, totals) = none.totals[0];
        assert_eq!(totals.bytes, [(1 << 30) + 2000, 1000]);
        assert_eq!((totals.bits_per_s, totals.resent), ([32_000, 16_000], 9));
    }
}
