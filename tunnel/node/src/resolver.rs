//! Names to addresses, by the host's own resolver, which may block for seconds: so on threads of
//! their own.
//!
//! What always holds:
//! - N1  Our own peers' names go first, and one thread takes no others: whatever peers have us
//!   resolve, we find whom to dial.
//! - N2  The flows of one peer have [`NAMES_OF_PEER`] threads at most, and peers take turns: one
//!   whose names take long delays its own flows first.
//! - N3  Nothing is asked for a flow that is over.
//!
//! Bounds: [`NAMES_AT_ONCE`] names at once; one question of each shard about each of our peers, and
//! [`NAMES_WAITING_MAX`] for the flows of each peer. Beyond that a flow is told that we are busy.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use ringway_core::ShardId;
use ringway_tunnel_proto::limits::{
    ADDRESSES_MAX, NAMES_AT_ONCE, NAMES_OF_FLOWS, NAMES_OF_PEER, NAMES_WAITING_MAX,
};
use ringway_tunnel_proto::{BondId, FlowId, PeerId, ResetCode, Target};

use crate::shared::Whose;

/// What became of one name, or of all of a peer's.
pub(crate) type Found = (Ask, Result<Vec<SocketAddr>, ResetCode>);

/// What is to be resolved, and for whom.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) shard: ShardId,
    pub(crate) whose: Whose,
    names: Vec<(String, u16)>,
}

impl Ask {
    /// Where a peer is that these lead to.
    pub(crate) fn of_peer(shard: ShardId, peer: PeerId, targets: &[Target]) -> Ask {
        Ask { shard, whose: Whose::Peer(peer), names: names_of(targets) }
    }

    /// Whether it asks where these lead to.
    pub(crate) fn is_about(&self, targets: &[Target]) -> bool {
        self.names == names_of(targets)
    }

    /// Where a flow is to go.
    pub(crate) fn of_flow(shard: ShardId, place: (BondId, FlowId), name: (String, u16)) -> Ask {
        Ask { shard, whose: Whose::Flow(place.0, place.1), names: vec![name] }
    }
}

fn names_of(targets: &[Target]) -> Vec<(String, u16)> {
    let name = |target: &Target| match target {
        Target::Address(ip, port) => Some((ip.to_string(), *port)),
        Target::Host(name, port) => Some((name.clone(), *port)),
        Target::Service(_) => None,
    };
    targets.iter().filter_map(name).collect()
}

/// Questions that wait for a thread.
#[derive(Default)]
pub(crate) struct Questions {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// About our own peers.
    ours: VecDeque<Ask>,
    /// For flows, by their peer; each as long as its flow wants it.
    of_flows: BTreeMap<PeerId, VecDeque<(Ask, Weak<()>)>>,
    /// The number of the peer whose turn it is, or of the next one that asks.
    turn: u16,
    /// Threads that resolve for flows, by their peer.
    at_work: BTreeMap<PeerId, usize>,
    /// Nobody hears answers any more.
    over: bool,
}

impl Waiting {
    /// What is to be resolved next, and for whose flow it is if it is for one.
    fn next(&mut self) -> Option<(Ask, Option<PeerId>)> {
        if let Some(ask) = self.ours.pop_front() {
            return Some((ask, None));
        }
        if self.at_work.values().sum::<usize>() >= NAMES_OF_FLOWS {
            return None;
        }
        while let Some(peer) = self.whose_turn() {
            let queue = self.of_flows.get_mut(&peer).expect("it waits");
            let wanted = std::iter::from_fn(|| queue.pop_front())
                .find(|(_, wanted)| wanted.strong_count() > 0);
            if queue.is_empty() {
                self.of_flows.remove(&peer);
            }
            if let Some((ask, _)) = wanted {
                self.turn = peer.0.wrapping_add(1);
                *self.at_work.entry(peer).or_default() += 1;
                return Some((ask, Some(peer)));
            }
        }
        None
    }

    /// The next peer that may have another thread.
    fn whose_turn(&self) -> Option<PeerId> {
        let turn = PeerId(self.turn);
        let peers = self.of_flows.range(turn..).chain(self.of_flows.range(..turn));
        let mut peers = peers.map(|(peer, _)| *peer);
        peers.find(|peer| self.at_work.get(peer).is_none_or(|many| *many < NAMES_OF_PEER))
    }

    fn done(&mut self, peer: PeerId) {
        let many = self.at_work.get_mut(&peer).expect("a thread was at it");
        *many -= 1;
        if *many == 0 {
            self.at_work.remove(&peer);
        }
    }
}

impl Questions {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Who panics ends the process; what it left is not looked at for long.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks where one of our peers is. It replaces what the same shard asked about it before.
    pub(crate) fn ask(&self, ask: Ask) {
        let mut waiting = self.lock();
        waiting.ours.retain(|one| (one.shard, one.whose) != (ask.shard, ask.whose));
        waiting.ours.push_back(ask);
        self.more.notify_one();
    }

    /// Asks for a flow of a peer; it is forgotten with `wanted`. Returns false if too many of this
    /// peer's wait: then nothing is asked.
    #[must_use]
    pub(crate) fn ask_for_flow(&self, peer: PeerId, ask: Ask, wanted: &Arc<()>) -> bool {
        let mut waiting = self.lock();
        let queue = waiting.of_flows.entry(peer).or_default();
        if queue.len() >= NAMES_WAITING_MAX {
            queue.retain(|(_, wanted)| wanted.strong_count() > 0);
        }
        let room = queue.len() < NAMES_WAITING_MAX;
        if room {
            queue.push_back((ask, Arc::downgrade(wanted)));
            self.more.notify_one();
        }
        room
    }

    /// Waits for something to resolve. Nothing comes any more once it is over.
    fn next(&self) -> Option<(Ask, Option<PeerId>)> {
        let mut waiting = self.lock();
        loop {
            if waiting.over {
                return None;
            }
            if let Some(next) = waiting.next() {
                return Some(next);
            }
            waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, peer: PeerId) {
        self.lock().done(peer);
        // Who is woken may find that another peer may have a thread now.
        self.more.notify_all();
    }
}

/// See the module.
pub(crate) struct Resolver {
    questions: Arc<Questions>,
}

impl Resolver {
    /// Starts the threads; each answer goes to `found`.
    pub(crate) fn start(
        questions: &Arc<Questions>,
        found: impl Fn(Found) + Send + Sync + 'static,
    ) -> std::io::Result<Resolver> {
        let found = Arc::new(found);
        let spawn = |number| {
            let (questions, found) = (Arc::clone(questions), Arc::clone(&found));
            let name = format!("ringway-names-{number}");
            std::thread::Builder::new().name(name).spawn(move || serve(&questions, &*found))
        };
        // If one cannot be had, those before it end with this.
        let resolver = Resolver { questions: Arc::clone(questions) };
        for number in 0..NAMES_AT_ONCE {
            drop(spawn(number)?);
        }
        Ok(resolver)
    }
}

impl Drop for Resolver {
    /// Threads end when they have nothing to do. One that waits for a server of names is not
    /// waited for.
    fn drop(&mut self) {
        self.questions.lock().over = true;
        self.questions.more.notify_all();
    }
}

fn serve(questions: &Questions, found: &impl Fn(Found)) {
    while let Some((ask, peer)) = questions.next() {
        let addresses = resolve(&ask.names);
        if let Some(peer) = peer {
            questions.done(peer);
        }
        found((ask, addresses));
    }
}

/// The addresses of these names; those that have none are left out.
fn resolve(names: &[(String, u16)]) -> Result<Vec<SocketAddr>, ResetCode> {
    let mut addresses = Vec::new();
    let mut code = ResetCode::NoSuchName;
    for (name, port) in names {
        match (name.as_str(), *port).to_socket_addrs() {
            Ok(more) => addresses.extend(more),
            // The resolver's own words are not told apart by std: a server of names that does
            // not answer looks like a name that is not there, but for the kind.
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                code = ResetCode::TimedOut;
            }
            Err(_) => {}
        }
    }
    addresses.truncate(ADDRESSES_MAX);
    if addresses.is_empty() { Err(code) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const HOSTILE: PeerId = PeerId(1);
    const HONEST: PeerId = PeerId(2);

    fn of_flow(flow: u64) -> Ask {
        Ask::of_flow(ShardId(0), (BondId(0), FlowId(flow)), ("db.internal".to_owned(), 80))
    }

    fn of_ours(peer: u16, name: &str) -> Ask {
        Ask::of_peer(ShardId(0), PeerId(peer), &[Target::Host(name.to_owned(), 80)])
    }

    fn next(questions: &Questions) -> Option<(Whose, Option<PeerId>)> {
        questions.lock().next().map(|(ask, peer)| (ask.whose, peer))
    }

    #[test]
    fn names_become_addresses_or_a_reason() {
        let (told, answers) = mpsc::channel();
        let questions = Arc::default();
        let found = move |found| told.send(found).expect("the test listens");
        let _resolver = Resolver::start(&questions, found).expect("threads");
        questions.ask(of_ours(3, "localhost"));
        let (ask, found) = answers.recv().expect("an answer");
        assert_eq!(ask.whose, Whose::Peer(PeerId(3)));
        let found = found.expect("every host has it");
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 80));
        questions.ask(of_ours(3, "no.such.name.invalid"));
        assert_eq!(answers.recv().expect("an answer").1, Err(ResetCode::NoSuchName));
    }

    /// A peer has asked for as much as it may, and every name takes for ever: others have a thread
    /// nevertheless, and so have we. Nothing more of its own is taken up.
    #[test]
    fn who_asks_for_much_delays_itself() {
        let (questions, wanted) = (Questions::default(), Arc::new(()));
        for flow in 0..NAMES_WAITING_MAX as u64 {
            assert!(questions.ask_for_flow(HOSTILE, of_flow(flow), &wanted));
        }
        assert!(!questions.ask_for_flow(HOSTILE, of_flow(9999), &wanted), "it is told: busy");
        for flow in 0..NAMES_OF_PEER as u64 {
            let whose = Whose::Flow(BondId(0), FlowId(flow));
            assert_eq!(next(&questions), Some((whose, Some(HOSTILE))));
        }
        assert_eq!(next(&questions), None);
        for flow in 0..2 {
            assert!(questions.ask_for_flow(HONEST, of_flow(flow), &wanted));
        }
        let whose = Whose::Flow(BondId(0), FlowId(0));
        assert_eq!(next(&questions), Some((whose, Some(HONEST))));
        assert_eq!(next(&questions), None, "the last thread is ours");
        questions.ask(of_ours(7, "gw.example"));
        assert_eq!(next(&questions), Some((Whose::Peer(PeerId(7)), None)));
        // Peers take turns.
        questions.done(HOSTILE);
        assert_eq!(next(&questions).expect("a thread is free").1, Some(HOSTILE));
        questions.done(HONEST);
        assert_eq!(next(&questions).expect("a thread is free").1, Some(HONEST));
    }

    #[test]
    fn our_own_peers_go_first_and_are_asked_about_once() {
        let (questions, wanted) = (Questions::default(), Arc::new(()));
        assert!(questions.ask_for_flow(HONEST, of_flow(0), &wanted));
        questions.ask(of_ours(7, "old.example"));
        questions.ask(of_ours(7, "gw.example"));
        let first = questions.lock().next().expect("they wait");
        assert_eq!(first.0.names, [("gw.example".to_owned(), 80)]);
        assert_eq!(next(&questions).expect("it waits").1, Some(HONEST));
        assert_eq!(next(&questions), None);
    }

    /// Flows that are reset leave nothing behind: not in a queue that is full, and no thread is at
    /// work for them.
    #[test]
    fn flows_that_are_over_are_not_asked_for() {
        let (questions, wanted) = (Questions::default(), Arc::new(()));
        for flow in 0..10 * NAMES_WAITING_MAX as u64 {
            let over = Arc::new(());
            assert!(questions.ask_for_flow(HOSTILE, of_flow(flow), &over), "{flow}");
        }
        assert!(questions.lock().of_flows[&HOSTILE].len() <= NAMES_WAITING_MAX);
        assert!(questions.ask_for_flow(HOSTILE, of_flow(5), &wanted));
        let whose = Whose::Flow(BondId(0), FlowId(5));
        assert_eq!(next(&questions), Some((whose, Some(HOSTILE))));
        assert_eq!(next(&questions), None);
    }
}
