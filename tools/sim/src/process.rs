//! One Ringway process in memory: shards, mailboxes and connections, in virtual time.
//!
//! It drives the same [`Shard`]s as the server does, byte for byte. What the reactor and the kernel
//! decide in production (when mail arrives, how a stream is cut, who turns first) the caller
//! decides here, so that a schedule is replayed by its seed.
//!
//! Two ways to drive it: [`Process::settle`] and [`Process::run_for`] let everything happen at once
//! and in order, which is what stories want; the finer calls ([`Process::deliver`],
//! [`Process::deliver_mail`], [`Process::end_turn`]) leave every choice to the swarm.
//!
//! Always: mail between two shards arrives in the order in which it was posted; a connection's
//! index is used again only after its shard was told of the close, and with another generation.

use std::collections::{BTreeMap, VecDeque};

use ringway_coord_proto::access::{Access, Open};
use ringway_coord_proto::mail::{AUDIT, LEASE_RAISED, RAISE_LEASE};
use ringway_coord_proto::{Env, LeaseRules, Shard, ShardStart, SlotMap};
use ringway_core::limits::{LEASE_DEFAULT, LEASE_MAX_DEFAULT, LEASE_MIN};
use ringway_core::region::HeapRegion;
use ringway_core::rng::Rng;
use ringway_core::{ConnId, Epoch, Moment, ShardId, Span};
use ringway_table::{HashKey, Regions, Table};

/// Words of each region of a simulated shard's table, unless a test wants fewer.
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
    /// Bytes that the buffers of each shard's connections may have.
    pub buffer_bytes: usize,
    /// Sessions that may live at one shard.
    pub sessions_max: usize,
    /// Bytes that their addresses and metadata may have together.
    pub session_info_bytes: usize,
    /// Bytes that metadata of a shard's names, further holders and those who wait may take.
    pub side_bytes: usize,
    /// Seeds secrets and hash keys.
    pub seed: u64,
    /// Words of each region of a shard's table.
    pub region_words: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shards: 1,
            epoch: Epoch(1),
            now: Moment(0),
            grants_from: Moment(0),
            lease_allowed: LEASE_MAX_DEFAULT,
            buffer_bytes: 1 << 30,
            sessions_max: 1 << 20,
            session_info_bytes: 1 << 30,
            side_bytes: 1 << 30,
            seed: 1,
            region_words: REGION_WORDS,
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

/// What a shard asked its driver for, of one connection that is open.
#[derive(Default)]
struct Pipe {
    out: Vec<u8>,
    /// Bytes that a reader has not taken, where the test says that it does not read.
    backlog: usize,
    paused: bool,
    closed: bool,
    /// The driver has found it broken, and its shard has not heard so yet.
    broken: bool,
    /// Its shard waits for its reader.
    awaited: bool,
}

/// What a shard of a process asked its driver for.
#[derive(Default)]
struct Outside {
    pipes: BTreeMap<ConnId, Pipe>,
    posts: Vec<(ShardId, Vec<u8>)>,
    /// Connections that are to be called overdue, so long after they asked for it.
    overdue: Vec<(Span, ConnId)>,
    again: bool,
    scratch: Vec<u8>,
    secrets: Option<Rng>,
    /// Bytes that were written to a connection that was gone.
    strays: usize,
}

impl Outside {
    fn count_strays(&mut self) {
        self.strays += self.scratch.len();
        self.scratch.clear();
    }
}

impl Env for Outside {
    fn out(&mut self, conn: ConnId) -> &mut Vec<u8> {
        self.count_strays();
        match self.pipes.get_mut(&conn).filter(|pipe| !pipe.closed) {
            Some(pipe) => {
                if pipe.broken {
                    // A real driver gives a buffer that nobody reads, empty each time.
                    pipe.out.clear();
                }
                &mut pipe.out
            }
            None => &mut self.scratch,
        }
    }

    fn backlog(&self, conn: ConnId) -> usize {
        self.pipes.get(&conn).map_or(0, |pipe| pipe.backlog + pipe.out.len())
    }

    fn await_drain(&mut self, conn: ConnId) {
        if let Some(pipe) = self.pipes.get_mut(&conn) {
            pipe.awaited = true;
        }
    }

    fn buffered(&mut self) -> usize {
        self.pipes.values().map(|pipe| pipe.backlog + pipe.out.len()).sum()
    }

    fn buffered_for(&self, conn: ConnId) -> usize {
        self.backlog(conn)
    }

    fn release_spare(&mut self) {}

    fn cut(&mut self, conn: ConnId) {
        if let Some(pipe) = self.pipes.get_mut(&conn) {
            *pipe = Pipe { closed: true, ..Pipe::default() };
        }
    }

    fn call_overdue(&mut self, conn: ConnId, after: Span) {
        self.overdue.push((after, conn));
    }

    fn pause(&mut self, conn: ConnId) {
        if let Some(pipe) = self.pipes.get_mut(&conn) {
            pipe.paused = true;
        }
    }

    fn resume(&mut self, conn: ConnId) {
        if let Some(pipe) = self.pipes.get_mut(&conn) {
            pipe.paused = false;
        }
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(pipe) = self.pipes.get_mut(&conn) {
            pipe.closed = true;
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
    /// Mail that waits, by sender; the last one is the control plane.
    inboxes: Vec<VecDeque<Vec<u8>>>,
    generations: Vec<u32>,
    free: Vec<u32>,
}

/// A process.
pub struct Process<A = Open> {
    places: Vec<Place<A>>,
    now: Moment,
    lease_allowed: Span,
    /// Leases that the control plane was asked to allow and has not yet.
    raises: VecDeque<Span>,
    /// What operators did, as it goes to the log.
    pub audits: Vec<String>,
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
                inboxes: (0..=settings.shards).map(|_| VecDeque::new()).collect(),
                generations: Vec::new(),
                free: Vec::new(),
            })
            .collect();
        Self {
            places,
            now: settings.now,
            lease_allowed: settings.lease_allowed,
            raises: VecDeque::new(),
            audits: Vec::new(),
        }
    }

    /// The present.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// Other credentials from now on; every identity stays what it is.
    pub fn replace_access(&mut self, access: impl Fn() -> A) {
        for place in &mut self.places {
            let heir = |_: &A, _: &A, grantee| Some(grantee);
            place.shard.replace_access(self.now, access(), heir, &mut place.outside);
        }
    }

    /// Shards.
    pub fn shards(&self) -> usize {
        self.places.len()
    }

    /// A shard, to be looked at.
    pub fn shard(&self, index: usize) -> &Shard<HeapRegion, A> {
        &self.places[index].shard
    }

    /// A shard, to be told things that no client can tell it.
    pub fn shard_mut(&mut self, index: usize) -> &mut Shard<HeapRegion, A> {
        &mut self.places[index].shard
    }

    /// Lets time pass without anybody turning.
    pub fn pass(&mut self, span: Span) {
        self.now = self.now + span;
    }

    /// Moves the present to a moment that is not earlier.
    pub fn at(&mut self, now: Moment) {
        assert!(self.now <= now, "time runs forward");
        self.now = now;
    }

    /// Accepts a connection at a shard.
    pub fn connect(&mut self, shard: usize) -> Link {
        let place = &mut self.places[shard];
        let index = place.free.pop().unwrap_or_else(|| {
            place.generations.push(0);
            (place.generations.len() - 1) as u32
        });
        let generation = place.generations[index as usize] + 1;
        place.generations[index as usize] = generation;
        let conn = ConnId { index, generation };
        place.outside.pipes.insert(conn, Pipe::default());
        place.shard.opened(self.now, conn, &mut place.outside);
        Link { shard, conn }
    }

    /// Hands bytes of a client to its shard. They are executed in the shard's next turn.
    pub fn send(&mut self, link: Link, bytes: &[u8]) {
        let place = &mut self.places[link.shard];
        if place.outside.pipes.get(&link.conn).is_some_and(|pipe| !pipe.closed) {
            place.shard.received(self.now, link.conn, bytes, &mut place.outside);
        }
    }

    /// The client will send nothing more.
    pub fn end(&mut self, link: Link) {
        let place = &mut self.places[link.shard];
        place.shard.ended(self.now, link.conn, &mut place.outside);
    }

    /// The connection breaks, and its shard is told later, by [`Self::disconnect`].
    pub fn breaks(&mut self, link: Link) {
        if let Some(pipe) = self.places[link.shard].outside.pipes.get_mut(&link.conn) {
            pipe.broken = true;
        }
    }

    /// The connection is gone: the client's end, or after [`Self::is_closed`] the server's.
    pub fn disconnect(&mut self, link: Link) {
        let place = &mut self.places[link.shard];
        // What the close itself writes has nobody to read it, but is not stray either.
        place.shard.closed(self.now, link.conn, &mut place.outside);
        if place.outside.pipes.remove(&link.conn).is_some() {
            place.free.push(link.conn.index);
        }
    }

    /// What the process sent on a connection since the last call.
    pub fn take(&mut self, link: Link) -> Vec<u8> {
        let place = &mut self.places[link.shard];
        let Some(pipe) = place.outside.pipes.get_mut(&link.conn) else { return Vec::new() };
        let out = std::mem::take(&mut pipe.out);
        if pipe.backlog == 0 && std::mem::take(&mut pipe.awaited) {
            place.shard.drained(self.now, link.conn, &mut place.outside);
        }
        out
    }

    /// Whether the process has closed a connection.
    pub fn is_closed(&self, link: Link) -> bool {
        self.places[link.shard].outside.pipes.get(&link.conn).is_none_or(|pipe| pipe.closed)
    }

    /// Whether the process does not read from a connection.
    pub fn is_paused(&self, link: Link) -> bool {
        let pipe = self.places[link.shard].outside.pipes.get(&link.conn);
        pipe.is_some_and(|pipe| pipe.paused)
    }

    /// A client that does not read: so many bytes wait for it. Fewer than before wake the shard.
    pub fn set_backlog(&mut self, link: Link, bytes: usize) {
        let place = &mut self.places[link.shard];
        let Some(pipe) = place.outside.pipes.get_mut(&link.conn) else { return };
        let before = std::mem::replace(&mut pipe.backlog, bytes);
        if bytes < before {
            pipe.awaited = false;
            place.shard.drained(self.now, link.conn, &mut place.outside);
        }
    }

    /// Calls a connection overdue if its shard asked for that; after how long.
    pub fn call_overdue(&mut self, link: Link) -> Option<Span> {
        let place = &mut self.places[link.shard];
        let at = place.outside.overdue.iter().position(|(_, conn)| *conn == link.conn)?;
        let (after, conn) = place.outside.overdue.swap_remove(at);
        place.shard.overdue(self.now, conn, &mut place.outside);
        Some(after)
    }

    /// Messages that wait at a shard from one sender; `from` may be the control plane.
    pub fn mail_waiting(&self, shard: usize, from: usize) -> usize {
        self.places[shard].inboxes[from].len()
    }

    /// Hands a shard the oldest message of one sender.
    pub fn deliver_mail(&mut self, shard: usize, from: usize) {
        let place = &mut self.places[shard];
        if let Some(message) = place.inboxes[from].pop_front() {
            let from = ShardId(from as u8);
            place.shard.mail(self.now, from, &message, &mut place.outside);
        }
    }

    /// A graceful stop begins, at one shard.
    pub fn stop(&mut self, shard: usize) {
        let place = &mut self.places[shard];
        place.shard.stop(self.now, &mut place.outside);
    }

    /// Ends the turn of a shard that was handed its input, and posts what it wrote to others.
    /// Returns whether it asked for another turn, or has mail left.
    pub fn end_turn(&mut self, shard: usize) -> bool {
        let now = self.now;
        let place = &mut self.places[shard];
        place.outside.again = false;
        place.shard.turn(now, &mut place.outside);
        let busy = place.outside.again || place.inboxes.iter().any(|inbox| !inbox.is_empty());
        for (to, message) in std::mem::take(&mut place.outside.posts) {
            self.route(shard, to, message);
        }
        busy
    }

    /// One turn of one shard, with at most `mail` messages of each sender. Returns whether it
    /// asked for another turn, or has mail left.
    pub fn turn(&mut self, shard: usize, mail: usize) -> bool {
        for from in 0..=self.shards() {
            for _ in 0..mail.min(self.mail_waiting(shard, from)) {
                self.deliver_mail(shard, from);
            }
        }
        self.end_turn(shard)
    }

    /// When a shard wants its next turn, if nothing arrives.
    pub fn wake_at(&self, shard: usize) -> Option<Moment> {
        self.places[shard].shard.wake_at()
    }

    /// Turns all shards until none has anything to do.
    pub fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 100_000, "the process never comes to rest");
            let mut busy = false;
            for shard in 0..self.shards() {
                busy |= self.turn(shard, usize::MAX);
                while let Some(lease) = self.next_raise() {
                    self.allow_lease(lease);
                }
            }
            if !busy && self.places.iter().all(|place| place.inboxes.iter().all(VecDeque::is_empty))
            {
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

    /// The next lease that the control plane was asked to allow.
    pub fn next_raise(&mut self) -> Option<Span> {
        self.raises.pop_front()
    }

    /// The state directory allows a lease: every shard is told.
    pub fn allow_lease(&mut self, lease: Span) {
        self.lease_allowed = self.lease_allowed.max(lease);
        let mut raised = vec![LEASE_RAISED];
        raised.extend_from_slice(&self.lease_allowed.0.to_le_bytes());
        let control = self.shards();
        for place in &mut self.places {
            place.inboxes[control].push_back(raised.clone());
        }
    }

    /// Whether no shard keeps anything beside owners of any name.
    pub fn shards_are_tidy(&self) -> bool {
        (0..self.shards()).all(|at| self.shard(at).names().is_plain())
    }

    /// Bytes that shards wrote to connections that were gone: none, ever.
    pub fn strays(&mut self) -> usize {
        self.places.iter_mut().for_each(|place| place.outside.count_strays());
        self.places.iter().map(|place| place.outside.strays).sum()
    }

    fn route(&mut self, from: usize, to: ShardId, message: Vec<u8>) {
        if to.index() < self.shards() {
            self.places[to.index()].inboxes[from].push_back(message);
            return;
        }
        if message[0] == AUDIT {
            return self.audits.push(String::from_utf8_lossy(&message[1..]).into_owned());
        }
        assert_eq!(message[0], RAISE_LEASE, "the control plane is asked for nothing else");
        let lease = u64::from_le_bytes(message[1..9].try_into().expect("a lease"));
        self.raises.push_back(Span(lease));
    }
}

pub(crate) fn make_shard<A: Access>(
    settings: &Settings,
    index: usize,
    access: A,
) -> Shard<HeapRegion, A> {
    let region = || HeapRegion::new(settings.region_words);
    let regions = Regions { records: region(), index: region(), arena: region(), lines: region() };
    let key = [settings.seed, !settings.seed];
    let table = Table::new(regions, HashKey(key)).expect("an empty table fits");
    let start = ShardStart {
        id: ShardId(index as u8),
        map: SlotMap::new(settings.shards),
        epoch: settings.epoch,
        rules: LeaseRules { min: LEASE_MIN, max: LEASE_MAX_DEFAULT, default: LEASE_DEFAULT },
        lease_allowed: settings.lease_allowed,
        buffer_bytes: settings.buffer_bytes,
        sessions_max: settings.sessions_max,
        session_info_bytes: settings.session_info_bytes,
        side_bytes: settings.side_bytes,
        grants_from: settings.grants_from,
        keys: key,
        own_ports: (0..settings.shards).map(|shard| 7401 + shard as u16).collect(),
        base_port: 7400,
        unix_at_zero: Span::ZERO,
        host: b"127.0.0.1".to_vec(),
    };
    Shard::new(settings.now, start, table, access)
}
