//! Names that are shared, waited for, transferred and described, against a small model.
//!
//! The first byte bounds the memory for all that. Then each operation is three bytes: what; which
//! session and which name; and how (a mode, another session, a version). The model keeps a list of
//! holders and a list of waiters a name and serves the second from its front; after each operation
//! both say the same of its name: who holds it in which mode, and who waits, in which order. Where
//! the machine refuses for want of memory, nothing has changed.
//!
//! Always: a new grant has a token larger than all that its name ever had; at the end nothing is
//! left.

use std::collections::VecDeque;

use ringway_coord_proto::claims::Wish;
use ringway_coord_proto::handle::{Bound, Handle};
use ringway_coord_proto::keyed::KeyedState;
use ringway_coord_proto::names::{Names, NamesStart};
use ringway_coord_proto::quotas::Quotas;
use ringway_coord_proto::transfer::MetaAsk;
use ringway_coord_proto::waiting::Wait;
use ringway_coord_proto::wire::{op, status};
use ringway_core::region::HeapRegion;
use ringway_core::wire::Reader;
use ringway_core::{Epoch, Moment, SessionId, ShardId, Span, Token};
use ringway_table::{HashKey, Name, Regions, Table};

use crate::Target;

/// Operations on names that several want.
pub const CLAIMS: Target =
    Target { name: "claims", run: claims, seeds: claims_seeds, words: &[], bytes_max: 3 * 512 };

/// Sessions there are at a time.
const SESSIONS: usize = 6;
/// Names, two of which are in one slot.
const NAMES: [&[u8]; 3] = [b"one", b"{one}2", b"a-name-that-does-not-fit-into-a-record"];
/// What is asked for.
const WISHES: [Wish; 4] = [
    Wish::EXCLUSIVE,
    Wish { mode: op::MODE_SHARED, permits: 0 },
    Wish { mode: op::MODE_COUNTING, permits: 2 },
    Wish { mode: op::MODE_COUNTING, permits: 3 },
];
/// A first byte that bounds nothing.
const UNBOUNDED: u8 = 255;

const REGISTER: u8 = 0;
const WAIT: u8 = 1;
const RELEASE: u8 = 2;
const CANCEL: u8 = 3;
const TRANSFER: u8 = 4;
const REVOKE: u8 = 5;
const SET_META: u8 = 6;
const END: u8 = 7;
const SWEEP: u8 = 8;
const PASS: u8 = 9;
const OPS: u8 = 10;

/// Runs the operations on the machine and on the model, and compares them after each.
pub fn claims(data: &[u8]) {
    let Some((bound, ops)) = data.split_first() else { return };
    let mut pair = Pair::new(*bound);
    for op in ops.chunks_exact(3) {
        let (session, name) = (usize::from(op[1] & 0x0F), usize::from(op[1] >> 4));
        pair.step(op[0] % OPS, (session % SESSIONS, name % NAMES.len()), op[2]);
    }
    pair.end();
}

/// A session that waits.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    session: usize,
    ticket: u64,
    wish: Wish,
    until: Option<Moment>,
}

/// What the model knows of a name.
#[derive(Clone, Debug)]
struct Modelled {
    wish: Wish,
    /// Who holds it, and under which token, once that was seen.
    holders: Vec<(usize, Option<Token>)>,
    waiters: VecDeque<Waiter>,
    version: u32,
    /// The largest token so far.
    newest: Token,
}

impl Modelled {
    fn new() -> Self {
        let (holders, waiters) = (Vec::new(), VecDeque::new());
        Self { wish: Wish::EXCLUSIVE, holders, waiters, version: 0, newest: Token(0) }
    }

    fn holds(&self, session: usize) -> bool {
        self.holders.iter().any(|(holder, _)| *holder == session)
    }

    /// The only holder of a name that is held by one alone.
    fn alone(&self) -> Option<usize> {
        (self.wish == Wish::EXCLUSIVE).then(|| self.holders.first().map(|held| held.0))?
    }

    fn takes(&self, wish: Wish) -> bool {
        self.holders.is_empty() || (self.wish == wish && wish.has_room(self.holders.len() as u32))
    }

    fn grant(&mut self, session: usize, wish: Wish) {
        self.wish = wish;
        self.holders.push((session, None));
    }

    /// Somebody has gone: those who wait are served in order.
    fn advance(&mut self) {
        if self.holders.is_empty() {
            self.version = 0;
        }
        while let Some(first) = self.waiters.front().copied()
            && self.takes(first.wish)
        {
            self.waiters.pop_front();
            self.grant(first.session, first.wish);
        }
    }

    /// Somebody looks: whoever has ended since makes way, all of them together.
    fn touch(&mut self, sessions: &[Option<SessionId>; SESSIONS]) {
        self.holders.retain(|(holder, _)| sessions[*holder].is_some());
        self.waiters.retain(|waiter| sessions[waiter.session].is_some());
        self.advance();
    }
}

/// The machine and the model.
struct Pair {
    names: Names<HeapRegion>,
    model: [Modelled; NAMES.len()],
    /// Those that live; another takes the place of one that was swept.
    sessions: [Option<SessionId>; SESSIONS],
    opened: u64,
    now: Moment,
    /// The latest end of a wait: no two are at the same time.
    latest: Moment,
    bounded: bool,
}

impl Pair {
    fn new(bound: u8) -> Self {
        let region = || HeapRegion::new(usize::MAX);
        let regions =
            Regions { records: region(), index: region(), arena: region(), lines: region() };
        let key = HashKey([0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210]);
        let table = Table::new(regions, key).expect("without a bound");
        let bounded = bound != UNBOUNDED;
        let side_bytes = if bounded { 8 * usize::from(bound) } else { usize::MAX };
        let (grants_from, keys) = (Moment(0), KeyedState::new([3, 4]));
        let (id, epoch, watch_bytes, under_way) = (ShardId(0), Epoch(7), 0, usize::MAX);
        let start = NamesStart { id, epoch, grants_from, side_bytes, watch_bytes, under_way, keys };
        let now = Moment(1_000_000_000);
        let names = Names::new(now, table, (1, Quotas::default()), start);
        let (model, sessions) = ([(); NAMES.len()].map(|()| Modelled::new()), [None; SESSIONS]);
        let mut pair = Self { names, model, sessions, opened: 0, now, latest: now, bounded };
        (0..SESSIONS).for_each(|at| pair.open(at));
        pair
    }

    fn open(&mut self, at: usize) {
        self.opened += 1;
        let bound = Bound { handle: handle(at), session: SessionId(self.opened) };
        self.names.attach(bound, None);
        self.sessions[at] = Some(bound.session);
    }

    /// A session, dead or alive.
    fn bound(&self, at: usize) -> Bound {
        let session = self.sessions[at].unwrap_or(SessionId(u64::MAX));
        Bound { handle: handle(at), session }
    }

    fn step(&mut self, code: u8, (session, name): (usize, usize), how: u8) {
        match code {
            END => return self.end_session(session),
            SWEEP => return self.sweep(),
            PASS => return self.pass(),
            _ => {}
        }
        let (by, other) = (self.bound(session), usize::from(how) % SESSIONS);
        let wish = WISHES[usize::from(how) % WISHES.len()];
        let bytes = Name::new(NAMES[name]).expect("a name");
        let place = (self.names.table().hash(&bytes), &bytes);
        let mut lives = self.sessions[session].is_some();
        if code == RELEASE {
            // A release does not look whether an owner before has ended meanwhile.
            self.names.query(place.0, place.1);
        }
        self.model[name].touch(&self.sessions);
        let before = self.model[name].clone();
        let got = match code {
            REGISTER | WAIT => {
                let ns = 10_000_000 * u64::from(how >> 4);
                let until = (ns > 0).then(|| self.latest.max(self.now) + Span(ns));
                let wait = (code == WAIT).then_some(Wait { until, reply: None });
                self.latest = until.filter(|_| code == WAIT).unwrap_or(self.latest);
                let got = self.names.claim(self.now, place, (by, 0), (wish, wait));
                let ticket = if got.status == status::QUEUED { got.token.0 } else { 0 };
                let waiter = Waiter { session, ticket, wish, until };
                let wanted = self.model[name].claim(waiter, wait.is_some());
                (got.status, wanted)
            }
            RELEASE => {
                let got = self.names.release(place.0, place.1, by, None).status;
                (got, self.model[name].release(session))
            }
            CANCEL => {
                let waits = |waiter: &&Waiter| waiter.session == other;
                let waiter = self.model[name].waiters.iter().find(waits);
                let ticket = waiter.map_or(u64::MAX, |waiter| waiter.ticket);
                let got = self.names.cancel(place, by, ticket).status;
                (got, self.model[name].cancel(session, ticket))
            }
            TRANSFER => {
                let to = self.bound(other).session;
                let got = self.names.transfer(place, by, (to, None)).status;
                let to = self.sessions[other].map(|_| other);
                (got, self.model[name].transfer(session, to))
            }
            REVOKE => {
                // Who revokes needs no session.
                lives = true;
                let to = (how & 0x80 != 0).then(|| self.bound(other).session);
                let got = self.names.revoke(place, to).status;
                let dead = to.is_some() && self.sessions[other].is_none();
                let wanted = self.model[name].revoke(to.map(|_| other));
                (got, if dead { status::NOSESSION } else { wanted })
            }
            _ => {
                let version = (how & 0x80 == 0).then_some(u32::from(how) % 3);
                let ask = MetaAsk { by, version, bytes: &[how; 40][..usize::from(how) % 41] };
                let got = self.names.set_meta(place, &ask);
                let wanted = self.model[name].set_meta(session, version);
                (got.map_or_else(|refused| refused, |_| status::DATA), wanted)
            }
        };
        self.same(got, lives, &before, name);
        self.compare(name);
    }

    /// Both came to the same; or the machine had no memory, or the session has ended, and the model
    /// goes back to what it was.
    fn same(&mut self, got: (u8, u8), lives: bool, before: &Modelled, name: usize) {
        let (got, wanted) = got;
        let refused = got == status::FULL && self.bounded;
        let wanted = if lives { wanted } else { status::NOSESSION };
        if refused || wanted == status::NOSESSION {
            self.model[name] = before.clone();
        }
        let words = (status::name(got), status::name(wanted));
        assert!(refused || got == wanted, "{words:?}, before {before:?}");
    }

    fn end_session(&mut self, at: usize) {
        if self.sessions[at].is_none() {
            return;
        }
        self.names.end(self.bound(at));
        self.sessions[at] = None;
    }

    /// What ended sessions had goes to whoever waits, and others take their places.
    fn sweep(&mut self) {
        self.model.iter_mut().for_each(|name| name.touch(&self.sessions));
        let mut swept = Vec::new();
        while self.names.is_sweeping() {
            self.names.sweep(|handle| swept.push(handle.local()));
        }
        swept.into_iter().for_each(|at| self.open(at));
        (0..NAMES.len()).for_each(|name| self.compare(name));
    }

    /// Time passes until the next wait is over.
    fn pass(&mut self) {
        self.sweep();
        let ends = self.model.iter().flat_map(|name| name.waiters.iter().filter_map(|w| w.until));
        self.now = ends.min().unwrap_or(self.now).max(self.now) + Span(2_000_000);
        while self.names.time_out(self.now) {}
        for name in &mut self.model {
            name.waiters.retain(|waiter| waiter.until.is_none_or(|until| until > self.now));
            name.advance();
        }
        (0..NAMES.len()).for_each(|name| self.compare(name));
    }

    /// Both say the same of a name.
    fn compare(&mut self, name: usize) {
        let bytes = Name::new(NAMES[name]).expect("a name");
        let place = (self.names.table().hash(&bytes), &bytes);
        let version = self.names.meta(place.0, place.1).map_or(0, |described| described.version);
        let found = self.names.waiters(self.now, place, 100);
        self.model[name].touch(&self.sessions);
        let model = &self.model[name];
        assert_eq!(version, model.version, "{model:?}");
        let Some(found) = found else {
            return assert!(model.holders.is_empty() && model.waiters.is_empty(), "{model:?}");
        };
        let mut body = Reader::new(&found);
        let mut number = || body.u8().expect("as documented");
        let mut number_of = |bytes: u32| (0..bytes).map(|at| u64::from(number()) << (8 * at)).sum();
        let number: &mut dyn FnMut(u32) -> u64 = &mut number_of;
        let wish = Wish { mode: number(1) as u8, permits: number(4) as u32 };
        assert_eq!(wish, model.wish, "{model:?}");
        let (_, _, holders) = (number(4), number(4), number(2));
        let session = |at: usize| self.sessions[at].map_or(0, |session| session.0);
        let mut held = Vec::new();
        for at in 0..holders as usize {
            let (by, token) = (number(8), Token(number(8)));
            let (holder, known) = model.holders.get(at).copied().expect("as many as the model has");
            assert_eq!(by, session(holder), "{model:?}");
            assert!(known.map_or(token > model.newest, |known| known == token), "{model:?}");
            held.push((holder, Some(token)));
        }
        let waiters = number(2);
        assert_eq!((held.len(), waiters as usize), (model.holders.len(), model.waiters.len()));
        for waiter in &model.waiters {
            let (by, ticket) = (number(8), number(8));
            let wish = Wish { mode: number(1) as u8, permits: number(4) as u32 };
            number(4);
            assert_eq!((by, ticket, wish), (session(waiter.session), waiter.ticket, waiter.wish));
        }
        let model = &mut self.model[name];
        let newest = held.iter().filter_map(|(_, token)| *token).max();
        model.newest = model.newest.max(newest.unwrap_or(Token(0)));
        model.holders = held;
    }

    fn end(mut self) {
        (0..NAMES.len()).for_each(|name| self.compare(name));
        (0..SESSIONS).for_each(|at| self.end_session(at));
        while self.names.is_sweeping() {
            self.names.sweep(|_| {});
        }
        assert!(self.names.is_plain() && self.names.table().is_empty(), "something is left");
        assert_eq!((self.names.wake_at(), self.names.mirrors_in_use()), (None, 0));
    }
}

impl Modelled {
    fn claim(&mut self, waiter: Waiter, waits: bool) -> u8 {
        let Waiter { session, wish, .. } = waiter;
        if self.holds(session) {
            return if self.wish == wish { status::GRANTED_EPHEMERAL } else { status::MODE };
        }
        if self.waiters.is_empty() && self.takes(wish) {
            self.grant(session, wish);
            return status::GRANTED_EPHEMERAL;
        }
        if !waits {
            return if self.wish == wish { status::HELD } else { status::MODE };
        }
        match self.waiters.iter().find(|known| known.session == session) {
            Some(known) => assert_eq!(known.ticket, waiter.ticket, "it waits already"),
            None => self.waiters.push_back(waiter),
        }
        status::QUEUED
    }

    fn release(&mut self, session: usize) -> u8 {
        if !self.holds(session) {
            return status::NOTOWNER;
        }
        self.holders.retain(|(holder, _)| *holder != session);
        self.advance();
        status::OK
    }

    fn cancel(&mut self, session: usize, ticket: u64) -> u8 {
        let mine = |waiter: &Waiter| (waiter.session, waiter.ticket) == (session, ticket);
        if self.waiters.iter().any(mine) {
            self.waiters.retain(|waiter| !mine(waiter));
            self.advance();
            return status::OK;
        }
        if self.holds(session) { status::GRANTED_EPHEMERAL } else { status::NOTOWNER }
    }

    fn transfer(&mut self, session: usize, to: Option<usize>) -> u8 {
        if !self.holds(session) {
            return status::NOTOWNER;
        }
        let Some(to) = to else { return status::NOSESSION };
        if to == session {
            return status::GRANTED_EPHEMERAL;
        }
        if self.holds(to) {
            return status::HELD;
        }
        self.give(session, to);
        status::GRANTED_EPHEMERAL
    }

    fn give(&mut self, session: usize, to: usize) {
        let alone = self.alone().is_some();
        self.holders.retain(|(holder, _)| *holder != session);
        self.waiters.retain(|waiter| waiter.session != to);
        self.grant(to, self.wish);
        self.version = if alone { 0 } else { self.version };
        self.advance();
    }

    fn revoke(&mut self, to: Option<usize>) -> u8 {
        if self.holders.is_empty() {
            return status::FREE;
        }
        match (to, self.alone()) {
            (None, _) => {
                self.holders.clear();
                self.advance();
                status::OK
            }
            (Some(_), None) => status::MODE,
            (Some(to), Some(holder)) => {
                if to != holder {
                    self.give(holder, to);
                }
                status::GRANTED_EPHEMERAL
            }
        }
    }

    fn set_meta(&mut self, session: usize, version: Option<u32>) -> u8 {
        if !self.holds(session) {
            return status::NOTOWNER;
        }
        if version.is_some_and(|version| version != self.version) {
            return status::CONFLICT;
        }
        self.version += 1;
        status::DATA
    }
}

fn handle(at: usize) -> Handle {
    Handle::new(ShardId(0), at as u32)
}

fn claims_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let with = |bound: u8, ops: &[[u8; 3]]| [&[bound], ops.concat().as_slice()].concat();
    let (exclusive, shared, two) = (0, 1, 2);
    let all = |op: u8, how: u8| (0..SESSIONS as u8).map(move |session| [op, session, how]);
    let queue: Vec<[u8; 3]> = all(WAIT, exclusive).chain(all(RELEASE, 0)).collect();
    let semaphore: Vec<[u8; 3]> =
        all(WAIT, two).chain([[CANCEL, 3, 3], [END, 0, 0], [REGISTER, 5, two]]).collect();
    let readers = [
        [REGISTER, 0, shared],
        [REGISTER, 1, shared],
        [WAIT, 2, exclusive],
        [REGISTER, 3, shared],
        [WAIT, 3, shared],
        [RELEASE, 0, 0],
        [TRANSFER, 1, 2],
        [REVOKE, 0, 0],
    ];
    let timed: Vec<[u8; 3]> =
        all(WAIT, 0x10).chain([[PASS, 0, 0], [PASS, 0, 0], [RELEASE, 0, 0]]).collect();
    let described = [
        [REGISTER, 0x10, exclusive],
        [SET_META, 0x10, 0],
        [SET_META, 0x10, 1],
        [SET_META, 0x10, 0x80],
        [WAIT, 0x11, shared],
        [TRANSFER, 0x10, 2],
        [SET_META, 0x12, 0],
        [REVOKE, 0x10, 0x84],
    ];
    let dead = [
        [REGISTER, 0, two],
        [REGISTER, 1, two],
        [WAIT, 2, exclusive],
        [WAIT, 3, two],
        [END, 2, 0],
        [END, 0, 0],
        [REGISTER, 4, two],
        [SWEEP, 0, 0],
    ];
    vec![
        ("queue", with(UNBOUNDED, &queue)),
        ("semaphore", with(UNBOUNDED, &semaphore)),
        ("readers-and-a-writer", with(UNBOUNDED, &readers)),
        ("waits-end", with(UNBOUNDED, &timed)),
        ("described", with(UNBOUNDED, &described)),
        ("behind-the-dead", with(UNBOUNDED, &dead)),
        ("little-memory", with(60, &queue)),
        ("no-memory", with(0, &semaphore)),
    ]
}
