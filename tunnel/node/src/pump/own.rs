//! What a shard's pump keeps beside its agent: users' connections and flows, and how they are
//! found.
//!
//! What always holds:
//! - O1  A flow is found by its place in a session from [`Own::settle`] until it leaves the
//!   session, and by its connection until it is removed: neither leads to a flow that is gone.
//! - O2  A flow for which a way is shut by its peer's rate is in `touched`, and the shard wakes
//!   when the first such way opens.
//!
//! Bounds: a flow costs about 400 bytes here beside what it holds; finding one costs a hash. Of
//! connections, at most [`WAITING_MAX`] wait for a session to one peer.
//! Not here: what is done with a flow (`desk.rs`, the pump itself), whom to dial (`dialling.rs`).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use ringway_core::{ConnId, Moment, ShardId, Span};
use ringway_shards::{Close, Errno, Io};
use ringway_tunnel_proto::{
    BondId, ConnectReply, FlowId, Opening, PeerId, ResetCode, SocksReply, connect_reply, reply,
};

use super::dialling::Dialling;
use super::flow::{Flow, FlowKey, Speaks, Stage};
use super::logs::Bonds;
use super::rate::Way;
use crate::shared::Shared;
use crate::site::Site;

/// Connections that may wait for a session to one peer.
const WAITING_MAX: usize = 4096;
/// What is left of a stream when its connection may be closed: the kernel has ten seconds for it.
const LAST_BYTES: usize = 1024;
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
    waiting: BTreeMap<PeerId, VecDeque<(FlowKey, Moment)>>,
    pub(super) wishes: VecDeque<Wish>,
    /// Flows whose application got something in this turn.
    pub(super) touched: Vec<FlowKey>,
    /// Flows whose coder holds a run open.
    pub(super) runs: Vec<FlowKey>,
    pub(super) dialling: BTreeMap<PeerId, Dialling>,
    /// When the first way opens for which a flow waits, as far as was seen.
    rate_opens_at: Option<Moment>,
    /// Whose sessions there are.
    pub(super) bonds: Bonds,
    /// Attempts in a row that nobody answered.
    pub(super) silent: BTreeMap<PeerId, u32>,
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
            rate_opens_at: None,
            bonds: Bonds::new(),
            silent: BTreeMap::new(),
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

    // ---- Flows.

    pub(super) fn add(&mut self, now: Moment, peer: PeerId, stage: Stage) -> &mut Flow {
        let key = self.vacant.pop().unwrap_or_else(|| {
            self.flows.push(None);
            self.flows.len() as FlowKey - 1
        });
        let flow = Box::new(Flow::new(key, peer, stage, now));
        self.flows[key as usize].insert(flow)
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
        let left = io.backlog(conn) + self.flow(key).map_or(0, |flow| flow.held.len());
        if left < LAST_BYTES {
            self.remove(key);
            io.close(conn, Close::AfterFlush);
        } else {
            io.await_drain(conn, LAST_BYTES);
        }
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
        let queue = self.waiting.entry(peer).or_default();
        if queue.len() >= WAITING_MAX {
            return self.fail(key, ResetCode::Busy, io);
        }
        queue.push_back((key, now));
        if let Some(conn) = conn {
            io.pause(conn);
        }
    }

    /// Those who wait for a session to this peer.
    pub(super) fn take_waiting(&mut self, peer: PeerId) -> Vec<FlowKey> {
        let queue = self.waiting.remove(&peer).unwrap_or_default();
        let still = |key: &FlowKey| {
            let flow = self.flows.get(*key as usize).and_then(Option::as_deref);
            flow.is_some_and(|flow| flow.peer == peer && matches!(flow.stage, Stage::Waiting(_)))
        };
        queue.into_iter().map(|(key, _)| key).filter(still).collect()
    }

    /// Those who have waited for too long.
    pub(super) fn expire_waiting(&mut self, now: Moment, io: &mut Io<'_>) {
        let (wait, mut expired) = (self.site.config.wait, Vec::new());
        for queue in self.waiting.values_mut() {
            while let Some((key, _)) = queue.pop_front_if(|(_, since)| *since + wait <= now) {
                expired.push(key);
            }
        }
        self.waiting.retain(|_, queue| !queue.is_empty());
        for key in expired {
            if matches!(self.flow(key).map(|flow| &flow.stage), Some(Stage::Waiting(_))) {
                self.fail(key, ResetCode::TimedOut, io);
            }
        }
    }

    /// How many wait, by the number of the peer.
    pub(super) fn waiting_counts(&self) -> Vec<(u16, u64)> {
        self.waiting.iter().map(|(peer, queue)| (peer.0, queue.len() as u64)).collect()
    }

    pub(super) fn next_expiry(&self) -> Option<Moment> {
        let first = self.waiting.values().filter_map(|queue| queue.front());
        first.map(|(_, since)| *since + self.site.config.wait).min()
    }

    // ---- Rates.

    /// Counts a flow's bytes against its peer's rate. Once that is used up, the flow waits.
    pub(super) fn charge(&mut self, now: Moment, key: FlowKey, way: Way, bytes: u64) {
        let Some(flow) = self.flows.get_mut(key as usize).and_then(Option::as_deref_mut) else {
            return;
        };
        let Some(rate) = self.site.rate(flow.peer) else { return };
        if let Some(opens_at) = rate.charge(now, way, bytes) {
            flow.shut[way as usize] = true;
            self.rate_opens_at = self.rate_opens_at.into_iter().chain([opens_at]).min();
            self.touch(key);
        }
    }

    /// Looks again which ways are shut for a flow.
    pub(super) fn look_at_rate(&mut self, now: Moment, key: FlowKey) {
        let Some(flow) = self.flows.get_mut(key as usize).and_then(Option::as_deref_mut) else {
            return;
        };
        let rate = self.site.rate(flow.peer);
        for way in Way::BOTH {
            if !flow.is_shut(way) {
                continue;
            }
            let opens_at = rate.and_then(|rate| rate.opens_at(now, way));
            flow.shut[way as usize] = opens_at.is_some();
            self.rate_opens_at = self.rate_opens_at.into_iter().chain(opens_at).min();
        }
    }

    /// All flows that wait are about to be looked at again.
    pub(super) fn forget_openings(&mut self) {
        self.rate_opens_at = None;
    }

    /// When flows that wait are to be looked at again.
    pub(super) fn rate_opens_at(&self) -> Option<Moment> {
        self.rate_opens_at
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
mod tests {
    use ringway_tunnel_proto::Registry;

    use super::*;
    use crate::config::tests::good;
    use crate::config::{Config, changes};
    use crate::salts::SaltFile;

    const START: Moment = Moment(1 << 40);
    const CHUNK: u64 = 64 * 1024;

    fn config(rate: &str) -> Config {
        good(&format!(
            "[tunnel]\nnetwork_key = \"n\"\nlisten = \"0.0.0.0:4600\"\n\
             [[peer]]\nname = \"a\"\nshared_key = \"a\"\n{rate}"
        ))
    }

    /// Two shards of one process, each with a flow of the same peer.
    fn shards(config: Config) -> [(Own, FlowKey); 2] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut registry = Registry::default();
        let salts = SaltFile::open(&dir.path().join("salts"), &mut registry);
        let shared = Arc::new(Shared::new(Site::new(config), (registry, salts), 2));
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
                own.forget_openings();
                own.look_at_rate(now, *key);
                for way in ways {
                    if own.flow(*key).is_some_and(|flow| !flow.is_shut(*way)) {
                        own.charge(now, *key, *way, CHUNK);
                        taken[*way as usize] += CHUNK;
                    }
                }
                next = next.into_iter().chain(own.rate_opens_at()).min();
            }
            now = next.unwrap_or(now).max(now + Span::from_us(10));
        }
        taken
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
            own.charge(START, key, Way::FromPeer, 1 << 20);
            let flow = own.flow(key).expect("it is there");
            assert!(flow.is_shut(Way::FromPeer) && flow.may_read() && flow.is_throttled());
            assert_eq!(own.touched, [key], "it is looked at again");
            let reload = changes(&own.site.config, &config(after));
            own.site = Arc::new(own.site.next(config(after), &reload).0);
            own.look_at_rate(START, key);
            let flow = own.flow(key).expect("it is there");
            assert_eq!(flow.is_shut(Way::FromPeer), is_shut, "{after}");
        }
    }
}
