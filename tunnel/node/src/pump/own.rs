//! What a shard's pump keeps beside its agent: users' connections and flows, and how they are
//! found.
//!
//! What always holds:
//! - O1  A flow is found by its place in a session from [`Own::settle`] until it leaves the
//!   session, and by its connection until it is removed: neither leads to a flow that is gone.
//! - O2  A flow for which a way is shut by its peer's rate stands in that way's line (`shut.rs`)
//!   and is not looked at before it opens. The shard wakes when the first such way does, and then
//!   lets at most [`WOKEN_MAX`] a turn go on, and one for each line.
//! - O3  What is said to who brought a salt is held until that salt is kept (`salts.rs`, S1), and
//!   then sent in the order in which it was said.
//! - O4  Those who wait for a session are in `waiting`, and nobody else is: who is removed leaves
//!   it.
//!
//! Bounds: a flow costs about 470 bytes here beside what it holds; finding one costs a hash. Of
//! connections, at most [`WAITING_MAX`] wait for a session to one peer; of those that are held each
//! is half open or has just joined.
//! Not here: what is done with a flow (`desk.rs`, the pump itself), whom to dial (`dialling.rs`).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use ringway_core::{ConnId, Moment, ShardId, Span};
use ringway_shards::{Close, CongestionControl, Errno, Io};
use ringway_tunnel_proto::limits::WAITING_MAX;
use ringway_tunnel_proto::{
    BondId, ConnectReply, FlowId, Meter, Opening, PeerId, ResetCode, SocksReply, connect_reply,
    reply,
};

use super::dialling::Dialling;
use super::flow::{Flow, FlowKey, Speaks, Stage};
use super::logs::Bonds;
use super::ports::Ports;
use super::rate::Way;
use super::shut::Shut;
use crate::shared::Shared;
use crate::site::Site;

/// What is left of a stream when its connection may be closed: the kernel has ten seconds for it.
const LAST_BYTES: usize = 1024;
/// Flows that go on in one turn when a way that was shut for them opens.
const WOKEN_MAX: usize = 256;
/// How long a service may take to be connected.
pub(super) const CONNECT_MAX: Span = Span::from_s(10);

/// What a connection is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// The agent's, and who is at its other end.
    Carrier(SocketAddr),
    /// An application's, or a service's.
    User(FlowKey),
}

/// What is to be said to the agent once it has returned.
#[derive(Debug)]
pub(super) enum Wish {
    /// Reset a flow.
    Reset(BondId, FlowId, ResetCode),
    /// A session to this peer can be used: who waited for it goes on.
    Up(PeerId),
    /// Of a flow that is over so many bytes were still to be read, and are now.
    Left(PeerId, u64, u64),
}

/// What would be said to who brought a salt that is not kept yet.
struct Held {
    /// How many salts have to be kept.
    until: u64,
    bytes: Vec<u8>,
}

/// What the flows of a peer have moved since this peer is known here, of those too that are over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    /// By [`Way`].
    pub(super) meter: Meter,
    /// What compression saved.
    pub(super) saved: i64,
}

impl Tally {
    fn new(now: Moment) -> Tally {
        Tally { meter: Meter::new(now), saved: 0 }
    }
}

/// See the module.
pub(super) struct Own {
    pub(super) site: Arc<Site>,
    pub(super) shared: Arc<Shared>,
    pub(super) me: ShardId,
    pub(super) control: ShardId,
    conns: Vec<Option<(ConnId, Kind)>>,
    flows: Vec<Option<Box<Flow>>>,
    vacant: Vec<FlowKey>,
    by_place: HashMap<(BondId, FlowId), FlowKey>,
    /// Connections that wait for a session, by peer, and since when: how long that may be is the
    /// present configuration's to say.
    waiting: BTreeMap<PeerId, BTreeSet<(Moment, FlowKey)>>,
    pub(super) wishes: VecDeque<Wish>,
    /// Flows whose application got something in this turn.
    pub(super) touched: Vec<FlowKey>,
    /// Flows whose coder holds a run open.
    pub(super) runs: Vec<FlowKey>,
    pub(super) dialling: BTreeMap<PeerId, Dialling>,
    pub(super) ports: Ports,
    /// Flows for which a way is shut.
    shut: Shut,
    /// Bytes of text that may be decoded ahead of applications, before the agent is asked again.
    pub(super) text_room: u64,
    /// What is not to be sent yet, by connection.
    held: BTreeMap<ConnId, Held>,
    /// Whose sessions there are.
    pub(super) bonds: Bonds,
    /// What each peer's flows have moved, by the peer's number.
    tallies: Vec<Option<Tally>>,
    /// Rounds of all addresses in a row that nobody answered.
    pub(super) silent: BTreeMap<PeerId, u32>,
    /// How the kernel sends on a path that is not short, to applications and services.
    pub(super) congestion: Option<CongestionControl>,
}

impl Own {
    pub(super) fn new(shared: Arc<Shared>, me: ShardId, control: ShardId) -> Own {
        Own {
            site: shared.site(),
            shared,
            me,
            control,
            conns: Vec::new(),
            flows: Vec::new(),
            vacant: Vec::new(),
            by_place: HashMap::new(),
            waiting: BTreeMap::new(),
            wishes: VecDeque::new(),
            touched: Vec::new(),
            runs: Vec::new(),
            dialling: BTreeMap::new(),
            ports: Ports::default(),
            shut: Shut::default(),
            text_room: 0,
            held: BTreeMap::new(),
            bonds: Bonds::new(),
            tallies: Vec::new(),
            silent: BTreeMap::new(),
            congestion: CongestionControl::of_host(),
        }
    }

    // ---- Connections.

    pub(super) fn note_conn(&mut self, conn: ConnId, kind: Kind) {
        let at = conn.index as usize;
        if self.conns.len() <= at {
            self.conns.resize(at + 1, None);
        }
        self.conns[at] = Some((conn, kind));
    }

    pub(super) fn kind(&self, conn: ConnId) -> Option<Kind> {
        let (found, kind) = (*self.conns.get(conn.index as usize)?)?;
        (found == conn).then_some(kind)
    }

    /// Who is at the other end of a carrier.
    pub(super) fn carrier_peer(&self, conn: ConnId) -> Option<SocketAddr> {
        match self.kind(conn)? {
            Kind::Carrier(peer) => Some(peer),
            Kind::User(_) => None,
        }
    }

    pub(super) fn forget_conn(&mut self, conn: ConnId) -> Option<Kind> {
        let kind = self.kind(conn)?;
        self.conns[conn.index as usize] = None;
        Some(kind)
    }

    // ---- What is not to be sent yet.

    /// Nothing more is sent to a connection before all salts that were taken until now are kept.
    pub(super) fn hold(&mut self, conn: ConnId) {
        let (taken, kept) = (self.shared.salts.taken(), self.shared.salts.kept());
        if kept < taken {
            self.held.insert(conn, Held { until: taken, bytes: Vec::new() });
        }
    }

    /// Where to append what is said to a connection that is held.
    #[inline]
    pub(super) fn held(&mut self, conn: ConnId) -> Option<&mut Vec<u8>> {
        if self.held.is_empty() {
            return None;
        }
        self.held.get_mut(&conn).map(|held| &mut held.bytes)
    }

    /// Bytes that are held for a connection.
    pub(super) fn held_bytes(&self, conn: ConnId) -> usize {
        self.held.get(&conn).map_or(0, |held| held.bytes.len())
    }

    /// What was held for a connection is of no use any more.
    pub(super) fn drop_held(&mut self, conn: ConnId) {
        self.held.remove(&conn);
    }

    /// What may be sent now.
    pub(super) fn take_released(&mut self) -> Vec<(ConnId, Vec<u8>)> {
        if self.held.is_empty() {
            return Vec::new();
        }
        let kept = self.shared.salts.kept();
        let released = self.held.extract_if(.., |_, held| held.until <= kept);
        released.map(|(conn, held)| (conn, held.bytes)).collect()
    }

    pub(super) fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    // ---- Flows.

    pub(super) fn add(&mut self, now: Moment, peer: PeerId, stage: Stage) -> &mut Flow {
        let key = self.vacant.pop().unwrap_or_else(|| {
            self.flows.push(None);
            self.flows.len() as FlowKey - 1
        });
        let flow = Box::new(Flow::new(key, peer, stage, now));
        self.flows[key as usize].insert(flow)
    }

    /// How many places for flows there are.
    pub(super) fn places_of_flows(&self) -> FlowKey {
        self.flows.len() as FlowKey
    }

    /// A flow that is only looked at.
    pub(super) fn seen(&self, key: FlowKey) -> Option<&Flow> {
        self.flows.get(key as usize)?.as_deref()
    }

    pub(super) fn flow(&mut self, key: FlowKey) -> Option<&mut Flow> {
        self.flows.get_mut(key as usize)?.as_deref_mut()
    }

    pub(super) fn at(&self, bond: BondId, flow: FlowId) -> Option<FlowKey> {
        self.by_place.get(&(bond, flow)).copied()
    }

    /// All flows that have a place in a session.
    pub(super) fn places(&self) -> Vec<(FlowKey, BondId, FlowId)> {
        self.by_place.iter().map(|((bond, id), key)| (*key, *bond, *id)).collect()
    }

    /// A flow has a place in a session.
    pub(super) fn settle(&mut self, key: FlowKey, bond: BondId, id: FlowId) {
        self.by_place.insert((bond, id), key);
        if let Some(flow) = self.flow(key) {
            flow.place = Some((bond, id));
        }
    }

    /// Forgets a flow; its connection is the caller's matter.
    pub(super) fn remove(&mut self, key: FlowKey) -> Option<Box<Flow>> {
        let flow = self.flows.get_mut(key as usize)?.take()?;
        self.vacant.push(key);
        if let Some(place) = flow.place {
            self.by_place.remove(&place);
        }
        if let Some(conn) = flow.conn {
            self.forget_conn(conn);
        }
        for way in Way::BOTH {
            if let Some(ticket) = flow.shut[way as usize] {
                self.shut.leave((flow.peer, way), ticket);
            }
        }
        self.stop_waiting(&flow);
        if flow.left > 0 {
            self.wishes.push_back(Wish::Left(flow.peer, flow.left, 0));
        }
        if let Some(Some(tally)) = self.tallies.get_mut(usize::from(flow.peer.0)) {
            tally.saved += flow.saved() - flow.saved_counted;
        }
        let metrics = &self.shared.metrics;
        metrics.flows_ended.add(1);
        Some(flow)
    }

    /// A flow is over for its session; what its application has not read yet is still its.
    pub(super) fn leave_session(&mut self, key: FlowKey) {
        let Some(flow) = self.flow(key) else { return };
        flow.stage = Stage::Leaving;
        if let Some(place) = flow.place.take() {
            self.by_place.remove(&place);
        }
    }

    /// Closes an application's connection as soon as it has read what is left, however long that
    /// takes.
    pub(super) fn close_when_read(&mut self, key: FlowKey, io: &mut Io<'_>) {
        let Some(conn) = self.flow(key).and_then(|flow| flow.conn) else {
            self.remove(key);
            return;
        };
        let (waiting, held) = (io.backlog(conn), self.flow(key).map_or(0, |flow| flow.held.len()));
        if let Some(flow) = self.flow(key) {
            let (peer, now) = (flow.peer, (waiting + held) as u64);
            let before = std::mem::replace(&mut flow.left, now);
            self.wishes.push_back(Wish::Left(peer, before, now));
        }
        // A few bytes that are held may be very much text.
        if held == 0 && waiting < LAST_BYTES {
            self.remove(key);
            io.close(conn, Close::AfterFlush);
        } else if waiting > 0 {
            io.await_drain(conn, LAST_BYTES);
        }
        // If nothing waits, all that is left is held until its peer's rate allows more.
    }

    /// The flow's application hears that it failed, and the flow is forgotten. Its place in a
    /// session, if it has one, is over already or the caller's matter.
    pub(super) fn fail(&mut self, key: FlowKey, code: ResetCode, io: &mut Io<'_>) {
        let Some(flow) = self.remove(key) else { return };
        self.shared.metrics.failed(code);
        tracing::debug!(
            peer = self.site.name(flow.peer),
            target = flow.target,
            "a flow failed: {}",
            words(code)
        );
        let Some(conn) = flow.conn else { return };
        let said = match flow.speaks {
            _ if flow.is_answered() => None,
            Speaks::Nothing => None,
            Speaks::Socks => Some(reply(SocksReply::from(code))),
            Speaks::Connect => Some(connect_reply(ConnectReply::Failed(code))),
        };
        match said {
            // It is told the truth, and then the end.
            Some(said) => {
                io.out(conn).extend_from_slice(&said);
                io.close(conn, Close::AfterFlush);
            }
            // An end would say that all went well.
            None => io.close(conn, Close::Reset),
        }
    }

    // ---- Waiting for a session.

    /// A flow waits until a session to its peer can be used.
    pub(super) fn wait(&mut self, now: Moment, key: FlowKey, opening: Opening, io: &mut Io<'_>) {
        let Some(flow) = self.flow(key) else { return };
        let (peer, conn) = (flow.peer, flow.conn);
        flow.stage = Stage::Waiting(Box::new(opening));
        if !self.stand_in_line(now, key, peer) {
            return self.fail(key, ResetCode::Busy, io);
        }
        if let Some(conn) = conn {
            io.pause(conn);
        }
    }

    /// Whether there was a place for it.
    fn stand_in_line(&mut self, now: Moment, key: FlowKey, peer: PeerId) -> bool {
        let line = self.waiting.entry(peer).or_default();
        let fits = line.len() < WAITING_MAX;
        if fits {
            line.insert((now, key));
            if let Some(flow) = self.flow(key) {
                flow.waits_since = Some(now);
            }
        }
        fits
    }

    /// A flow that is removed waits no more: its key may soon be another's.
    fn stop_waiting(&mut self, flow: &Flow) {
        let Some(since) = flow.waits_since else { return };
        let Some(line) = self.waiting.get_mut(&flow.peer) else { return };
        line.remove(&(since, flow.key));
        if line.is_empty() {
            self.waiting.remove(&flow.peer);
        }
    }

    /// Those who wait for a session to this peer: from now on they do not.
    pub(super) fn take_waiting(&mut self, peer: PeerId) -> Vec<FlowKey> {
        let line = self.waiting.remove(&peer).unwrap_or_default();
        let keys: Vec<FlowKey> = line.into_iter().map(|(_, key)| key).collect();
        for key in &keys {
            if let Some(flow) = self.flow(*key) {
                flow.waits_since = None;
            }
        }
        keys
    }

    /// Those who have waited for too long.
    pub(super) fn expire_waiting(&mut self, now: Moment, io: &mut Io<'_>) {
        for key in self.expired(now) {
            self.fail(key, ResetCode::TimedOut, io);
        }
    }

    fn expired(&self, now: Moment) -> Vec<FlowKey> {
        let wait = self.site.config.wait;
        let late = |line: &BTreeSet<(Moment, FlowKey)>| {
            let late = line.iter().take_while(|(since, _)| *since + wait <= now);
            late.map(|(_, key)| *key).collect::<Vec<_>>()
        };
        self.waiting.values().flat_map(late).collect()
    }

    /// How many wait, by the number of the peer.
    pub(super) fn waiting_counts(&self) -> Vec<(u16, u64)> {
        self.waiting.iter().map(|(peer, line)| (peer.0, line.len() as u64)).collect()
    }

    pub(super) fn next_expiry(&self) -> Option<Moment> {
        let first = self.waiting.values().filter_map(BTreeSet::first);
        first.map(|(since, _)| *since + self.site.config.wait).min()
    }

    // ---- What moves.

    /// A flow's bytes have moved: counts them for it and for its peer, and against the peer's rate.
    /// Once that is used up, the flow waits.
    pub(super) fn count(&mut self, now: Moment, key: FlowKey, way: Way, bytes: u64) {
        let Some(flow) = self.flows.get_mut(key as usize).and_then(Option::as_deref_mut) else {
            return;
        };
        flow.meter.add(now, way as usize, bytes);
        let at = usize::from(flow.peer.0);
        if self.tallies.len() <= at {
            self.tallies.resize(at + 1, None);
        }
        let tally = self.tallies[at].get_or_insert_with(|| Tally::new(now));
        tally.meter.add(now, way as usize, bytes);
        let saved = flow.saved();
        tally.saved += saved - std::mem::replace(&mut flow.saved_counted, saved);
        let Some(rate) = self.site.rate(flow.peer) else { return };
        if let Some(opens_at) = rate.charge(now, way, bytes) {
            let (peer, shut) = (flow.peer, &mut self.shut);
            flow.shut[way as usize].get_or_insert_with(|| shut.join((peer, way), key));
            shut.opens_at(opens_at);
        }
    }

    /// Opens ways that may be, for so many flows as go on in one turn. Returns those of them whose
    /// application may be read again; who may give its peer room again is touched.
    pub(super) fn open_ways(&mut self, now: Moment) -> Vec<FlowKey> {
        let site = Arc::clone(&self.site);
        let is_shut = |(peer, way): (PeerId, Way)| site.rate(peer)?.opens_at(now, way);
        let mut readable = Vec::new();
        for (key, way) in self.shut.take_open(now, WOKEN_MAX, is_shut) {
            let Some(flow) = self.flow(key) else { continue };
            flow.shut[way as usize] = None;
            match way {
                Way::ToPeer if flow.may_read() => readable.push(key),
                Way::ToPeer => {}
                Way::FromPeer => self.touch(key),
            }
        }
        readable
    }

    /// Rates may be others.
    pub(super) fn look_at_rates_soon(&mut self) {
        self.shut.opens_at(Moment(0));
    }

    /// What each peer's flows have moved, by the peer's number.
    pub(super) fn tallies(&self) -> impl Iterator<Item = (PeerId, &Tally)> {
        let known = |(peer, tally): (u16, _)| Some((PeerId(peer), Option::as_ref(tally)?));
        (0..).zip(&self.tallies).filter_map(known)
    }

    /// Another configuration has come: a peer that is gone has moved nothing.
    pub(super) fn forget_tallies(&mut self, known: impl Fn(PeerId) -> bool) {
        for (peer, tally) in (0..).zip(&mut self.tallies) {
            tally.take_if(|_| !known(PeerId(peer)));
        }
    }

    /// When flows that wait are to be looked at again.
    pub(super) fn rate_opens_at(&self) -> Option<Moment> {
        self.shut.next()
    }
}

/// What a code of a reset means, for logs.
pub(crate) fn words(code: ResetCode) -> &'static str {
    match code {
        ResetCode::Broken => "it broke",
        ResetCode::Gone => "the other side was started anew",
        ResetCode::Denied => "the other side does not allow it",
        ResetCode::Unreachable => "no way to the target",
        ResetCode::Refused => "nobody listens at the target",
        ResetCode::TimedOut => "the target does not answer",
        ResetCode::NoSuchName => "the target's name does not exist",
        ResetCode::Busy => "too many at once",
        ResetCode::Protocol => "the other side said what cannot be",
    }
}

/// What became of a connection to a service, for its user.
pub(super) fn code_of(errno: Errno) -> ResetCode {
    match errno {
        Errno::REFUSED => ResetCode::Refused,
        Errno::TIMED_OUT => ResetCode::TimedOut,
        Errno::NETWORK_UNREACHABLE | Errno::HOST_UNREACHABLE => ResetCode::Unreachable,
        errno if errno.is_shortage() => ResetCode::Busy,
        _ => ResetCode::Unreachable,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use ringway_tunnel_proto::Registry;

    use super::*;
    use crate::config::tests::good;
    use crate::config::{Config, changes};
    use crate::salts::{SaltFile, SaltKeeper};

    const START: Moment = Moment(1 << 40);
    const CHUNK: u64 = 64 * 1024;

    fn config(rate: &str) -> Config {
        good(&format!(
            "[tunnel]\nnetwork_key = \"n\"\nlisten = \"0.0.0.0:4600\"\n\
             [[peer]]\nname = \"a\"\nshared_key = \"a\"\n{rate}"
        ))
    }

    /// A shard that knows one peer.
    pub(in super::super) fn shard() -> Own {
        let [(mut own, key), _] = shards(config(""));
        own.remove(key);
        own
    }

    /// Two shards of one process, each with a flow of the same peer.
    fn shards(config: Config) -> [(Own, FlowKey); 2] {
        let shared = Arc::new(Shared::new(Site::new(config), Registry::default(), 2));
        [0, 1].map(|shard| {
            let mut own = Own::new(Arc::clone(&shared), ShardId(shard), ShardId(2));
            let key = own.add(START, PeerId(0), Stage::Joined).key;
            (own, key)
        })
    }

    /// What a flow brings that is read, and given room, whenever no way is shut for it.
    fn taken(shards: &mut [(Own, FlowKey)], ways: &[Way], lasts: Span) -> [u64; 2] {
        let (mut now, mut taken) = (START, [0; 2]);
        while now < START + lasts {
            let mut next = None;
            for (own, key) in &mut *shards {
                own.open_ways(now);
                for way in ways {
                    if own.flow(*key).is_some_and(|flow| !flow.is_shut(*way)) {
                        own.count(now, *key, *way, CHUNK);
                        taken[*way as usize] += CHUNK;
                    }
                }
                next = next.into_iter().chain(own.rate_opens_at()).min();
            }
            now = next.unwrap_or(now).max(now + Span::from_us(10));
        }
        taken
    }

    /// Who brought a salt hears nothing before it is kept, and then all that was said meanwhile;
    /// nobody else waits, and what was said to who has gone is dropped.
    #[test]
    fn who_brought_a_salt_waits_until_it_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let [(mut own, _), _] = shards(config(""));
        let shared = Arc::clone(&own.shared);
        let file = SaltFile::open(&dir.path().join("salts"), &mut Registry::default());
        let conn = |index| ConnId { index, generation: 3 };
        own.hold(conn(1));
        assert!(own.held(conn(1)).is_none(), "nobody has brought one");
        assert!(shared.ask_registry(|registry| registry.take_salt(&[1; 32], 1000, 1000).is_ok()));
        own.hold(conn(1));
        own.hold(conn(2));
        own.held(conn(1)).expect("it is held").extend_from_slice(b"one, ");
        own.held(conn(1)).expect("it is held").extend_from_slice(b"two");
        own.drop_held(conn(2));
        assert!(own.held(conn(2)).is_none() && own.held(conn(3)).is_none());
        assert_eq!((own.held_bytes(conn(1)), own.take_released()), (8, Vec::new()));
        let _keeper = SaltKeeper::start(&shared, file).expect("a thread");
        let released = std::iter::repeat_with(|| own.take_released()).find(|all| !all.is_empty());
        assert_eq!(released, Some(vec![(conn(1), b"one, two".to_vec())]));
        assert!(!own.holds_any() && own.held(conn(1)).is_none());
    }

    /// One session on one of the shards has the whole rate, and two on both have it together; each
    /// direction for itself.
    #[test]
    fn a_peer_has_its_rate_each_way_whatever_shards_it_is_on() {
        let due = 12_500_000 * 20;
        let is_due = |got: u64| got.abs_diff(due) <= due / 100;
        let config = || config("rate = \"100 Mbit/s\"");
        let lasts = Span::from_s(20);
        for on in [1, 2] {
            let mut shards = shards(config());
            let got = taken(&mut shards[..on], &Way::BOTH, lasts);
            assert!(got.into_iter().all(is_due), "on {on} shards: {got:?} of {due}");
        }
        let got = taken(&mut shards(config())[..1], &[Way::ToPeer], lasts);
        assert!(is_due(got[0]) && got[1] == 0, "{got:?}");
    }

    /// Another rate is in force at once, whatever the one before has in its books; the same goes on
    /// where it was.
    #[test]
    fn another_rate_is_in_force_when_it_is_read() {
        let (slow, fast) = ("rate = \"10 kbit/s\"", "rate = \"1 Gbit/s\"");
        for (after, is_shut) in [(slow, true), (fast, false), ("", false)] {
            let [(mut own, key), _] = shards(config(slow));
            own.count(START, key, Way::FromPeer, 1 << 20);
            let flow = own.flow(key).expect("it is there");
            assert!(flow.is_shut(Way::FromPeer) && flow.may_read() && flow.is_throttled());
            assert!(own.touched.is_empty(), "nobody looks at it again before its time");
            let reload = changes(&own.site.config, &config(after));
            own.site = Arc::new(own.site.next(config(after), &reload).0);
            own.look_at_rates_soon();
            own.open_ways(START);
            assert_eq!(own.touched.is_empty(), is_shut, "who may give room again does");
            let flow = own.flow(key).expect("it is there");
            assert_eq!(flow.is_shut(Way::FromPeer), is_shut, "{after}");
        }
    }

    /// A byte on each of very many flows of a peer that is over its rate: until it may go on,
    /// turns look at none of them, and then each turn at a bounded part; each goes on once, in
    /// their order, and those that are gone leave nothing behind.
    #[test]
    fn flows_of_a_peer_over_its_rate_cost_no_turn_anything() {
        const FLOWS: u32 = 65_536;
        let [(mut own, first), _] = shards(config("rate = \"10 kbit/s\""));
        let keys: Vec<FlowKey> =
            (0..FLOWS).map(|_| own.add(START, PeerId(0), Stage::Joined).key).collect();
        own.count(START, first, Way::ToPeer, 1 << 20);
        for key in &keys {
            for way in Way::BOTH {
                own.count(START, *key, way, 1 << 20);
                own.count(START, *key, way, 1);
            }
        }
        let before = own.shut.looks();
        for turn in 0..1000 {
            assert!(own.open_ways(START + Span::from_ms(turn)).is_empty());
        }
        assert!(own.touched.is_empty());
        assert_eq!(own.shut.looks(), before, "a turn has no look at any");
        for gone in &keys[..1000] {
            own.remove(*gone);
        }
        // As much time as all of it takes.
        let (mut now, mut read) = (START + Span::from_s(1 << 30), Vec::new());
        let mut turns = 0;
        while own.rate_opens_at().is_some() {
            let before = own.shut.looks();
            read.extend(own.open_ways(now));
            assert!(own.shut.looks() - before <= WOKEN_MAX as u64);
            (now, turns) = (now + Span::from_us(1), turns + 1);
        }
        assert_eq!(read, [&[first], &keys[1000..]].concat());
        assert_eq!(own.touched, keys[1000..]);
        assert!(turns <= 2 * FLOWS as usize / WOKEN_MAX + 2, "{turns}");
    }

    /// Who waits for a session and goes leaves its place to another, whose time begins anew though
    /// it has the same key; and who has gone counts no more.
    #[test]
    fn who_waits_has_the_whole_time_to_itself() {
        let (mut own, peer) = (shard(), PeerId(0));
        let wait = own.site.config.wait;
        let first = own.add(START, peer, Stage::Asked).key;
        assert!(own.stand_in_line(START, first, peer));
        own.remove(first);
        assert_eq!((own.waiting_counts(), own.next_expiry()), (Vec::new(), None));
        let half = START + Span(wait.0 / 2);
        let second = own.add(half, peer, Stage::Asked).key;
        assert_eq!(second, first, "keys are used again");
        assert!(own.stand_in_line(half, second, peer));
        assert!(own.expired(START + wait).is_empty());
        assert_eq!((own.waiting_counts(), own.next_expiry()), (vec![(0, 1)], Some(half + wait)));
        assert_eq!(own.expired(half + wait), [second]);
        own.remove(second);
        // However many came and went, as many may wait as ever.
        for _ in 0..3 * WAITING_MAX {
            let key = own.add(half, peer, Stage::Asked).key;
            assert!(own.stand_in_line(half, key, peer));
            own.remove(key);
        }
        let keys: Vec<FlowKey> = (0..WAITING_MAX)
            .map(|_| {
                let key = own.add(half, peer, Stage::Asked).key;
                assert!(own.stand_in_line(half, key, peer));
                key
            })
            .collect();
        let more = own.add(half, peer, Stage::Asked).key;
        assert!(!own.stand_in_line(half, more, peer));
        assert_eq!(own.take_waiting(peer).len(), keys.len());
        assert!(own.take_waiting(peer).is_empty() && own.stand_in_line(half, more, peer));
    }
}
