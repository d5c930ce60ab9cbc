//! One Ringway process in memory: shards, mailboxes and connections, in virtual time.
//!
//! It drives the same [`Shard`]s as the server does, byte for byte. What the reactor and the kernel
//! decide in production (when mail arrives, how a stream is cut, who turns first) the caller
//! decides here, so that a schedule is replayed by its seed.

use std::collections::{HashMap, VecDeque};

use ringway_coord_proto::access::{Access, Open};
use ringway_coord_proto::mail::{LEASE_RAISED, RAISE_LEASE};
use ringway_coord_proto::{Env, LeaseRules, Shard, ShardStart, SlotMap};
use ringway_core::limits::{LEASE_DEFAULT, LEASE_MAX_DEFAULT, LEASE_MIN};
use ringway_core::region::HeapRegion;
use ringway_core::rng::Rng;
use ringway_core::{ConnId, Epoch, Moment, ShardId, Span};
use ringway_table::{HashKey, Regions, Table};

/// Words of each region of a simulated shard's table.
const REGION_WORDS: usize = 1 << 24;

/// How a process starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Shards, 1 to 128.
    pub shards: usize,
    /// This life's epoch.
    pub epoch: Epoch,
    /// The moment it starts.
    pub now: Moment,
    /// When it may grant.
    pub grants_from: Moment,
    /// The longest lease that the state directory allows at the start.
    pub lease_allowed: Span,
    /// Seeds secrets and hash keys.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shards: 1,
            epoch: Epoch(1),
            now: Moment(0),
            grants_from: Moment(0),
            lease_allowed: LEASE_MAX_DEFAULT,
            seed: 1,
        }
    }
}

/// A connection of the process, by the client's end of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link {
    /// The shard that accepted it.
    pub shard: usize,
    /// Its id there.
    pub conn: ConnId,
}

/// What the shards of a process asked their driver for.
#[derive(Default)]
struct Outside {
    out: HashMap<ConnId, Vec<u8>>,
    /// Bytes that a reader has not taken, where the test says that it does not read.
    backlog: HashMap<ConnId, usize>,
    paused: HashMap<ConnId, bool>,
    closed: Vec<ConnId>,
    posts: Vec<(ShardId, Vec<u8>)>,
    again: bool,
    scratch: Vec<u8>,
    secrets: Option<Rng>,
}

impl Env for Outside {
    fn out(&mut self, conn: ConnId) -> &mut Vec<u8> {
        if self.closed.contains(&conn) {
            self.scratch.clear();
            return &mut self.scratch;
        }
        self.out.entry(conn).or_default()
    }

    fn backlog(&self, conn: ConnId) -> usize {
        self.backlog.get(&conn).copied().unwrap_or(0) + self.out.get(&conn).map_or(0, Vec::len)
    }

    fn pause(&mut self, conn: ConnId) {
        self.paused.insert(conn, true);
    }

    fn resume(&mut self, conn: ConnId) {
        self.paused.insert(conn, false);
    }

    fn close(&mut self, conn: ConnId) {
        if !self.closed.contains(&conn) {
            self.closed.push(conn);
        }
    }

    fn post(&mut self, to: ShardId, message: &[u8]) {
        self.posts.push((to, message.to_vec()));
    }

    fn random(&mut self) -> [u8; 16] {
        let rng = self.secrets.as_mut().expect("seeded at the start");
        let (low, high) = (rng.next_u64(), rng.next_u64());
        (u128::from(low) | u128::from(high) << 64).to_le_bytes()
    }

    fn describe(&mut self, _json: &mut Vec<u8>) {}

    fn again(&mut self) {
        self.again = true;
    }
}

struct Place<A> {
    shard: Shard<HeapRegion, A>,
    outside: Outside,
    inbox: VecDeque<(ShardId, Vec<u8>)>,
    next_index: u32,
}

/// A process.
pub struct Process<A = Open> {
    places: Vec<Place<A>>,
    now: Moment,
    lease_allowed: Span,
}

impl Process<Open> {
    /// Starts a process without credentials.
    pub fn start(settings: &Settings) -> Self {
        Self::with_access(settings, Open::default)
    }
}

impl<A: Access> Process<A> {
    /// Starts a process with credentials.
    pub fn with_access(settings: &Settings, access: impl Fn() -> A) -> Self {
        let places = (0..settings.shards)
            .map(|index| Place {
                shard: make_shard(settings, index, access()),
                outside: Outside {
                    secrets: Some(Rng::new(settings.seed ^ (index as u64) << 32)),
                    ..Outside::default()
                },
                inbox: VecDeque::new(),
                next_index: 0,
            })
            .collect();
        Self { places, now: settings.now, lease_allowed: settings.lease_allowed }
    }

    /// The present.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// Shards.
    pub fn shards(&self) -> usize {
        self.places.len()
    }

    /// A shard, to be looked at.
    pub fn shard(&self, index: usize) -> &Shard<HeapRegion, A> {
        &self.places[index].shard
    }

    /// Lets time pass without anybody turning.
    pub fn pass(&mut self, span: Span) {
        self.now = self.now + span;
    }

    /// Accepts a connection at a shard.
    pub fn connect(&mut self, shard: usize) -> Link {
        let place = &mut self.places[shard];
        let conn = ConnId { index: place.next_index, generation: 1 };
        place.next_index += 1;
        place.shard.opened(self.now, conn);
        Link { shard, conn }
    }

    /// Hands bytes of a client to its shard. They are executed in the shard's next turn.
    pub fn send(&mut self, link: Link, bytes: &[u8]) {
        let place = &mut self.places[link.shard];
        if !place.outside.closed.contains(&link.conn) {
            place.shard.received(self.now, link.conn, bytes, &mut place.outside);
        }
    }

    /// The client's end is gone.
    pub fn disconnect(&mut self, link: Link) {
        let place = &mut self.places[link.shard];
        place.shard.closed(self.now, link.conn, &mut place.outside);
        place.outside.out.remove(&link.conn);
    }

    /// What the process sent on a connection since the last call.
    pub fn take(&mut self, link: Link) -> Vec<u8> {
        self.places[link.shard].outside.out.remove(&link.conn).unwrap_or_default()
    }

    /// Whether the process has closed a connection.
    pub fn is_closed(&self, link: Link) -> bool {
        self.places[link.shard].outside.closed.contains(&link.conn)
    }

    /// Whether the process reads from a connection.
    pub fn is_paused(&self, link: Link) -> bool {
        self.places[link.shard].outside.paused.get(&link.conn).copied().unwrap_or(false)
    }

    /// A client that does not read: so many bytes wait for it. Fewer than before wake the shard.
    pub fn set_backlog(&mut self, link: Link, bytes: usize) {
        let place = &mut self.places[link.shard];
        let before = place.outside.backlog.insert(link.conn, bytes).unwrap_or(0);
        if bytes < before {
            place.shard.drained(self.now, link.conn, &mut place.outside);
        }
    }

    /// One turn of one shard, with at most `mail` messages of its inbox. Returns whether it asked
    /// for another turn, or has mail left.
    pub fn turn(&mut self, shard: usize, mail: usize) -> bool {
        let now = self.now;
        let place = &mut self.places[shard];
        place.outside.again = false;
        for _ in 0..mail.min(place.inbox.len()) {
            let (from, message) = place.inbox.pop_front().expect("counted");
            place.shard.mail(now, from, &message, &mut place.outside);
        }
        place.shard.turn(now, &mut place.outside);
        let busy = place.outside.again || !place.inbox.is_empty();
        let posts = std::mem::take(&mut place.outside.posts);
        for (to, message) in posts {
            self.route(shard, to, message);
        }
        busy
    }

    /// Turns all shards until none has anything to do.
    pub fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 100_000, "the process never comes to rest");
            let mut busy = false;
            for shard in 0..self.shards() {
                busy |= self.turn(shard, usize::MAX);
            }
            if !busy && self.places.iter().all(|place| place.inbox.is_empty()) {
                return;
            }
        }
    }

    /// Lets time pass and turns whenever a shard asked to be woken, as a reactor does.
    pub fn run_for(&mut self, span: Span) {
        let until = self.now + span;
        self.settle();
        while self.now < until {
            let wake = self.places.iter().filter_map(|place| place.shard.wake_at()).min();
            let next = wake.unwrap_or(until).max(self.now + Span(1)).min(until);
            self.now = next;
            self.settle();
        }
    }

    fn route(&mut self, from: usize, to: ShardId, message: Vec<u8>) {
        if to.index() < self.shards() {
            self.places[to.index()].inbox.push_back((ShardId(from as u8), message));
            return;
        }
        assert_eq!(message[0], RAISE_LEASE, "the control plane is asked for nothing else");
        let lease = u64::from_le_bytes(message[1..9].try_into().expect("a lease"));
        self.lease_allowed = self.lease_allowed.max(Span(lease));
        let mut raised = vec![LEASE_RAISED];
        raised.extend_from_slice(&self.lease_allowed.0.to_le_bytes());
        for place in &mut self.places {
            place.inbox.push_back((to, raised.clone()));
        }
    }
}

fn make_shard<A: Access>(settings: &Settings, index: usize, access: A) -> Shard<HeapRegion, A> {
    let region = || HeapRegion::new(REGION_WORDS);
    let regions = Regions { records: region(), index: region(), arena: region(), lines: region() };
    let key = [settings.seed, !settings.seed];
    let table = Table::new(regions, HashKey(key)).expect("an empty table fits");
    let start = ShardStart {
        id: ShardId(index as u8),
        map: SlotMap::new(settings.shards),
        epoch: settings.epoch,
        rules: LeaseRules { min: LEASE_MIN, max: LEASE_MAX_DEFAULT, default: LEASE_DEFAULT },
        lease_allowed: settings.lease_allowed,
        sessions_max: 1 << 20,
        grants_from: settings.grants_from,
        keys: key,
        own_ports: (0..settings.shards).map(|shard| 7401 + shard as u16).collect(),
        base_port: 7400,
        unix_at_zero: Span::ZERO,
        host: b"127.0.0.1".to_vec(),
    };
    Shard::new(settings.now, start, table, access)
}
