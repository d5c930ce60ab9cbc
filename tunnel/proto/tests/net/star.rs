//! One site that many others dial. Nothing delays what is said, and nothing breaks: the story is
//! who is there beside whom.

use super::*;

/// A carrier: its ends at the hub and at the other site, and what is on its way to each.
struct Ray {
    spoke: usize,
    hub_conn: ConnId,
    conn: ConnId,
    to_hub: Vec<u8>,
    to_spoke: Vec<u8>,
}

/// See the module.
pub(crate) struct Star {
    pub(crate) now: Moment,
    pub(crate) hub: Shard,
    pub(crate) spokes: Vec<Shard>,
    rays: Vec<Ray>,
}

fn key_of(spoke: usize) -> PrivateKey {
    // The lowest bits of a private key do not count.
    let mut bytes = [77; 32];
    bytes[8..16].copy_from_slice(&(spoke as u64).to_le_bytes());
    PrivateKey::new(Secret::new(bytes))
}

fn site(life: usize, flows_max: usize, now: Moment) -> Shard {
    let mut bytes = [9; 32];
    bytes[..8].copy_from_slice(&(life as u64).to_le_bytes());
    let mut instance = [0; 16];
    instance.copy_from_slice(&bytes[..16]);
    let settings = settings(Instance(instance), (0, 1), flows_max);
    let agent = Agent::new(settings, Secret::new(bytes), Entropy::from_seed(Secret::new(bytes)));
    Shard { agent, desk: Desk { now, ..Desk::default() } }
}

/// One turn of a site.
fn turn(Shard { agent, desk }: &mut Shard, now: Moment) {
    desk.now = now;
    let due = desk.due.iter().filter(|(_, at)| **at <= now).map(|(conn, _)| *conn);
    for conn in due.collect::<Vec<_>>() {
        desk.due.remove(&conn);
        if desk.backlog.contains_key(&conn) {
            agent.overdue(now, conn, desk);
        }
    }
    let mut turns = 0;
    while agent.wake_at().is_some_and(|at| at <= now) {
        agent.settle(now, desk);
        turns += 1;
        assert!(turns < TURNS_MAX, "it spins");
    }
}

impl Star {
    /// The hub lets each of the others have so many flows.
    pub(crate) fn new(spokes: usize, flows_max: usize) -> Star {
        let now = Moment(1_000_000);
        let mut star =
            Star { now, hub: site(0, flows_max, now), spokes: Vec::new(), rays: Vec::new() };
        let theirs = key(2).public();
        for at in 0..spokes {
            let mut one = site(1 + at, 1000, now);
            let listener = Listener { identities: vec![key_of(at)], ..Secrets::Keys.listener(0) };
            let dial = Credentials::Keys { mine: key_of(at), theirs, psk: None };
            let hub = Peer {
                credentials: vec![dial],
                proofs: vec![(PeerProof::Key(theirs), None)],
                carriers_max: CARRIERS_MAX,
                packets: false,
            };
            one.agent.configure(now, listener, vec![Some(hub)], &mut one.desk);
            star.spokes.push(one);
        }
        star.know(|_| true);
        star
    }

    /// The hub's file is read again: it names these.
    pub(crate) fn know(&mut self, who: impl Fn(usize) -> bool) {
        let peer = |at: usize| Peer {
            credentials: Vec::new(),
            proofs: vec![(PeerProof::Key(key_of(at).public()), None)],
            carriers_max: CARRIERS_MAX,
            packets: false,
        };
        let peers = (0..self.spokes.len()).map(|at| who(at).then(|| peer(at))).collect();
        let Shard { agent, desk } = &mut self.hub;
        agent.configure(self.now, Secrets::Keys.listener(1), peers, desk);
    }

    /// One step of time.
    pub(crate) fn step(&mut self) {
        self.now = self.now + STEP;
        for at in 0..self.spokes.len() {
            turn(&mut self.spokes[at], self.now);
            self.connect(at);
        }
        turn(&mut self.hub, self.now);
        self.carry();
    }

    /// Does what a site wants to dial.
    fn connect(&mut self, spoke: usize) {
        let now = self.now;
        for (conn, _) in std::mem::take(&mut self.spokes[spoke].desk.dials) {
            let Shard { agent, desk } = &mut self.hub;
            let hub_conn = desk.fresh_conn();
            agent.accepted(now, hub_conn, IpAddr::V4(Ipv4Addr::LOCALHOST), desk);
            let (to_hub, to_spoke) = (Vec::new(), Vec::new());
            self.rays.push(Ray { spoke, hub_conn, conn, to_hub, to_spoke });
            let Shard { agent, desk } = &mut self.spokes[spoke];
            desk.due.remove(&conn);
            agent.connected(now, conn, true, desk);
        }
    }

    /// What was said arrives, and what was closed is closed at both ends.
    fn carry(&mut self) {
        let (now, hub) = (self.now, &mut self.hub);
        for mut ray in std::mem::take(&mut self.rays) {
            let spoke = &mut self.spokes[ray.spoke];
            ray.to_hub.extend(spoke.desk.out.remove(&ray.conn).unwrap_or_default());
            ray.to_spoke.extend(hub.desk.out.remove(&ray.hub_conn).unwrap_or_default());
            let closed = |desk: &Desk, of| desk.closes.iter().any(|one| one.0 == of);
            if closed(&hub.desk, ray.hub_conn) || closed(&spoke.desk, ray.conn) {
                hub.desk.backlog.remove(&ray.hub_conn);
                spoke.desk.backlog.remove(&ray.conn);
                hub.agent.closed(now, ray.hub_conn, &mut hub.desk);
                spoke.agent.closed(now, ray.conn, &mut spoke.desk);
                continue;
            }
            let (mut up, mut down) =
                (std::mem::take(&mut ray.to_hub), std::mem::take(&mut ray.to_spoke));
            if !up.is_empty() {
                hub.agent.received(now, ray.hub_conn, &mut up, &mut hub.desk);
            }
            if !down.is_empty() {
                spoke.agent.received(now, ray.conn, &mut down, &mut spoke.desk);
            }
            self.rays.push(ray);
        }
        self.hub.desk.closes.clear();
        self.spokes.iter_mut().for_each(|spoke| spoke.desk.closes.clear());
    }

    /// Steps until it is so.
    pub(crate) fn run_until(&mut self, most: Span, so: impl Fn(&Star) -> bool) {
        let end = self.now + most;
        while !so(self) {
            assert!(self.now < end, "not within {} ms", most.0 / 1_000_000);
            self.step();
        }
    }

    /// Steps for so long.
    pub(crate) fn run(&mut self, time: Span) {
        let end = self.now + time;
        self.run_until(Span(time.0 + 2 * STEP.0), |star| star.now >= end);
    }

    /// Steps until all are connected.
    pub(crate) fn connect_all(&mut self) {
        self.run_until(Span::from_s(60), |star| {
            star.spokes.iter().all(|spoke| spoke.agent.bond_to(PEER).is_some())
        });
    }

    /// A flow of one of them, with its first words.
    pub(crate) fn open(&mut self, spoke: usize, said: &[u8]) -> (BondId, FlowId) {
        let Shard { agent, desk } = &mut self.spokes[spoke];
        let bond = agent.bond_to(PEER).expect("it is up");
        let flow = agent.open(self.now, bond).expect("there is room");
        desk.apps.insert((bond, flow), App::default());
        agent.push(bond, flow, said);
        (bond, flow)
    }

    /// What the hub has of a site's flow.
    pub(crate) fn at_hub(&self, spoke: usize, flow: FlowId) -> Option<&App> {
        let bond = self.hub.agent.bond_to(PeerId(spoke as u16))?;
        self.hub.desk.apps.get(&(bond, flow))
    }
}
