//! Sessions: who is alive, for how long, and what ends them.
//!
//! One machine per shard decides over the sessions whose slots it has (their *home*); every other
//! shard holds a mirror of each (`names`). The hard case is the crossing: a name may be registered
//! at another shard the moment a session's opening is answered, and must be free the moment its
//! end is. So an opening is answered only after every shard has attached it, which is behind the
//! end of the node's earlier session in the same mailboxes; and a handle is reused only after
//! every shard has swept it.
//!
//! Invariants:
//! - S1  A node has at most one session that is not ending.
//! - S2  A session that ended stays ended: neither a renewal nor a resume brings it back.
//! - S3  Only lease time ends a lease (`lease_clock`), and renewals of a turn apply before expiry.
//! - S4  No lease is longer than what the state directory says may have been granted.
//! - S5  At most `sessions_max` live, and what they have of any size (`info`) takes no more
//!   than `info_bytes_max` bytes. Whoever would exceed either is `FULL`, and leaves all as it was.
//!
//! Bounds: constant time an op (timer wheel, two hash maps); about 200 bytes a session beside its
//! address and metadata; [`EXPIRIES_PER_TURN`] expiries a turn.
//! Not here: names (`names`), connections (`conn`), where acts go (`shard`).
//! Tests: stories below; clusters of shards under faults in `tools/sim`.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use hashbrown::HashMap;
use ringway_core::limits::{EXPIRIES_PER_TURN, SESSIONS_PER_SHARD_MAX};
use ringway_core::slot::SLOTS;
use ringway_core::wheel::{TimerKey, Wheel};
use ringway_core::wire::Put;
use ringway_core::{Epoch, Moment, NodeId, Secret, SessionId, ShardId, Slot, Span};
use ringway_table::prefetch_line;

pub use crate::acts::{Act, ConnRef, Ended, Ticket};
use crate::handle::{Bound, Handle};
use crate::info::{EMPTY_INFO, Info, Infos};
use crate::keyed::KeyedState;
use crate::lanes::LANES_PER_SESSION;
use crate::outcome::Answer;
use crate::paged::Paged;
use crate::places::Places;
use crate::resumes::Resumes;
use crate::sabotage::{Rule, Sabotage};
use crate::wire::{op, push, status};

mod receivers;

/// Who asks: an identity that passed authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Principal(pub u32);

/// What a client asks for when it opens or resumes.
#[derive(Clone, Copy, Debug)]
pub struct Open<'a> {
    /// The op's flags.
    pub flags: u8,
    /// The client's number.
    pub node: NodeId,
    /// What it wants; zero for the default.
    pub lease: Span,
    /// With `RESUME`: what it was given at the opening.
    pub secret: Secret,
    /// Address (1 + n) and metadata (2 + n) as they came, checked.
    pub info: &'a [u8],
}

/// Who opens: the identity and the connection.
#[derive(Clone, Copy, Debug)]
pub struct Opener {
    /// The identity.
    pub principal: Principal,
    /// The connection that will be bound.
    pub from: ConnRef,
    /// Where the answer goes.
    pub ticket: Ticket,
}

/// The bounds a server's operator set.
#[derive(Clone, Copy, Debug)]
pub struct LeaseRules {
    /// The shortest lease granted.
    pub min: Span,
    /// The longest lease granted.
    pub max: Span,
    /// What one gets who does not ask.
    pub default: Span,
}

const FLAG_BARE: u8 = 0x01;
const FLAG_GATEWAY: u8 = 0x02;
const FLAG_LOCK: u8 = 0x04;
const FLAG_ENDING: u8 = 0x08;
const FLAG_OPENING: u8 = 0x10;

/// The flags of a session record on the wire.
const RECORD_AWAY: u8 = 0x01;
const RECORD_BARE: u8 = 0x02;

/// What a renewal touches stands first, in one cache line.
#[derive(Default)]
#[repr(C, align(64))]
struct Session {
    /// Zero: this place is empty.
    id: u64,
    secret: [u8; 16],
    /// In lease time.
    deadline: Moment,
    lease_ms: u32,
    flags: u8,
    /// When its timer in the wheel will look at it: at the deadline or before.
    wheel_at: Moment,
    timer: Option<TimerKey>,
    node: u64,
    info: Info,
    /// The receiving connection, if `flags` and `away` say there is one.
    conn: Option<ConnRef>,
    opener: Option<Box<Ticket>>,
    principal: u32,
    /// Shards, and the state directory, that have not yet acknowledged the opening.
    unattached: u16,
    /// Shards that have not yet swept its names.
    unswept: u16,
}

const _: () = assert!(size_of::<Session>() == 128, "two cache lines");

/// Renewals that are looked up together.
pub const RENEWALS_MAX: usize = 32;

impl Session {
    /// Whether this is its secret. Bare sessions and locks have none that anybody could know:
    /// theirs is all zero, which proves nothing.
    fn is_proven_by(&self, secret: &Secret) -> bool {
        self.secret != [0; 16] && secret.matches(&Secret(self.secret))
    }

    /// Starts its lease again, if one runs.
    #[inline]
    fn renew(&mut self, now: Moment) {
        if self.lease_ms != 0 {
            self.deadline = now + Span::from_ms(u64::from(self.lease_ms));
        }
    }

    const fn is_live(&self) -> bool {
        self.id != 0 && self.flags & FLAG_ENDING == 0
    }
}

/// The sessions of one shard.
pub struct Sessions {
    home: ShardId,
    shards: usize,
    epoch: Epoch,
    rules: LeaseRules,
    lease_allowed: Span,
    table: Paged<Session>,
    free: Vec<u32>,
    by_id: Places,
    by_node: Places,
    sequences: Box<[u32]>,
    wheel: Wheel<(u32, u64)>,
    /// Place and id: the place may be another's by the time the lease is allowed.
    awaiting_lease: Vec<(u32, u64)>,
    resumes: Resumes,
    leased: usize,
    used_up: bool,
    sessions_max: usize,
    infos: Infos,
    /// The connections that had the lanes of a session last, for those that have any.
    lanes: HashMap<u64, Vec<(u32, ConnRef)>, KeyedState>,
    counts: Counts,
    pub(crate) sabotage: Sabotage,
}

/// What happened to sessions since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Opened.
    pub opened: u64,
    /// Renewals that found their session.
    pub renewed: u64,
    /// Taken over with their secret.
    pub resumed: u64,
    /// Ended, by [`Ended`] minus one.
    pub ended: [u64; 4],
}

impl Sessions {
    /// No sessions yet. `lease_allowed` is what the state directory already allows for.
    pub fn new(
        place: (ShardId, usize),
        epoch: Epoch,
        rules: LeaseRules,
        start: SessionStart,
    ) -> Self {
        let lane_keys = start.keys.clone();
        Self {
            home: place.0,
            shards: place.1,
            epoch,
            rules,
            lease_allowed: start.lease_allowed,
            table: Paged::default(),
            free: Vec::new(),
            by_id: Places::new(start.keys.clone()),
            by_node: Places::new(start.keys),
            sequences: vec![0; SLOTS].into_boxed_slice(),
            wheel: Wheel::new(start.now),
            awaiting_lease: Vec::new(),
            resumes: Resumes::new(start.waiters_max),
            leased: 0,
            used_up: false,
            sessions_max: start.sessions_max.min(SESSIONS_PER_SHARD_MAX - ENDING_MAX),
            infos: Infos::new(start.info_bytes_max),
            lanes: HashMap::with_hasher(lane_keys),
            counts: Counts::default(),
            sabotage: Sabotage::default(),
        }
    }

    /// Opens, replaces or resumes a session. `fresh` is the secret of a new one.
    pub fn open(
        &mut self,
        now: Moment,
        who: Opener,
        ask: &Open<'_>,
        fresh: Secret,
        acts: &mut Vec<Act>,
    ) {
        if let Err(status) = self.try_open(now, who, ask, fresh, acts) {
            acts.push(Act::Answer(who.ticket, Answer::plain(status)));
        }
    }

    fn try_open(
        &mut self,
        now: Moment,
        who: Opener,
        ask: &Open<'_>,
        fresh: Secret,
        acts: &mut Vec<Act>,
    ) -> Result<(), u8> {
        if ask.flags & !(op::OPEN_RESUME | op::OPEN_BARE | op::OPEN_GATEWAY) != 0 {
            return Err(status::UNSUPPORTED);
        }
        let lease = self.lease_of(ask.lease)?;
        let before = self.local_of_node(ask.node);
        if let Some(local) = before {
            if self.table[local as usize].principal != who.principal.0 {
                return Err(status::REFUSED);
            }
            if ask.flags & op::OPEN_RESUME != 0 {
                return self.resume(now, (local, lease), who, ask, acts);
            }
        } else if ask.flags & op::OPEN_RESUME != 0 {
            return Err(status::NOSESSION);
        }
        let slot = Slot::of(&ask.node.0.to_le_bytes());
        let info = if ask.info == EMPTY_INFO { &[] } else { ask.info };
        let given_back = before.map(|old| &self.table[old as usize].info);
        self.infos.check(given_back, info)?;
        let local = self.place(slot, usize::from(before.is_some()))?;
        if let Some(old) = before {
            let session = &mut self.table[old as usize];
            if session.conn == Some(who.from) {
                // Its connection goes on with the new session: that is no reason to close it.
                session.flags &= !FLAG_BARE;
            }
            self.end(old, Ended::Replaced, acts);
        }
        self.table[local as usize].node = ask.node.0;
        let table = &self.table;
        self.by_node.insert(ask.node.0, local, |at| table[at as usize].node);
        let flags = if ask.flags & op::OPEN_BARE != 0 { FLAG_BARE } else { 0 };
        let gateway = ask.flags & op::OPEN_GATEWAY != 0;
        let session = &mut self.table[local as usize];
        session.secret = fresh.0;
        session.conn = (!gateway).then_some(who.from);
        session.flags = flags | if gateway { FLAG_GATEWAY } else { 0 } | FLAG_OPENING;
        session.principal = who.principal.0;
        self.infos.set(&mut session.info, info);
        self.start(now, local, lease);
        self.announce(local, who.ticket, acts);
        Ok(())
    }

    /// Opens the session of a connection that registers without having opened one. No lease runs:
    /// the connection is the sign of life, and its end is certain.
    pub fn open_bare(&mut self, who: Opener, slot: Slot, acts: &mut Vec<Act>) {
        match self.place(slot, 0) {
            Err(status) => acts.push(Act::Answer(who.ticket, Answer::plain(status))),
            Ok(local) => {
                let session = &mut self.table[local as usize];
                session.conn = Some(who.from);
                session.flags = FLAG_BARE | FLAG_OPENING;
                session.principal = who.principal.0;
                session.deadline = Moment(u64::MAX);
                self.announce(local, who.ticket, acts);
            }
        }
    }

    /// Opens a one-name session for a `SET` lock; it lives in this shard alone.
    pub fn open_lock(
        &mut self,
        now: Moment,
        (slot, lease): (Slot, Span),
        principal: Principal,
        value: &[u8],
    ) -> Result<Bound, u8> {
        let lease = self.lease_of(lease)?;
        if lease > self.lease_allowed {
            return Err(status::BUSY);
        }
        self.infos.check(None, value)?;
        let local = self.place(slot, 0)?;
        let session = &mut self.table[local as usize];
        session.flags = FLAG_LOCK;
        session.principal = principal.0;
        self.infos.set(&mut session.info, value);
        self.start(now, local, lease);
        self.counts.opened += 1;
        Ok(self.bound(local))
    }

    /// The lease a `SET` lock would need the state directory to allow, if it does not yet.
    pub fn lease_to_raise(&self, lease: Span) -> Option<Span> {
        (lease > self.lease_allowed && lease <= self.rules.max).then_some(lease)
    }

    /// The longest lease that this server grants at all.
    pub const fn lease_max(&self) -> Span {
        self.rules.max
    }

    /// Resumes that wait for the state directory.
    pub const fn resumes_waiting(&self) -> usize {
        self.resumes.len()
    }

    /// The value of a `SET` lock.
    pub fn lock_value(&self, handle: Handle) -> Option<&[u8]> {
        let session = self.table.get(handle.local())?;
        let is_lock = session.is_live() && session.flags & FLAG_LOCK != 0;
        is_lock.then(|| session.info.as_deref().unwrap_or_default())
    }

    /// How long a live session's lease still runs, and how long it is.
    pub fn left(&self, now: Moment, handle: Handle) -> Option<(Span, Span)> {
        let session = self.table.get(handle.local()).filter(|session| session.is_live())?;
        let lease = Span::from_ms(u64::from(session.lease_ms));
        Some((session.deadline.since(now), lease))
    }

    /// Gives a live session another lease, counted from now.
    pub fn set_lease(
        &mut self,
        now: Moment,
        handle: Handle,
        lease: Span,
        acts: &mut Vec<Act>,
    ) -> Result<(), u8> {
        if lease < self.rules.min || lease > self.rules.max {
            return Err(status::LEASE);
        }
        if lease > self.lease_allowed {
            acts.push(Act::RaiseLease(lease));
            return Err(status::BUSY);
        }
        self.start(now, handle.local() as u32, lease);
        Ok(())
    }

    /// Renews leases, up to [`RENEWALS_MAX`] of them: a session, and its secret unless it is the
    /// connection's own. All of them are asked for ahead, so that their cache misses overlap.
    pub fn renew_all(
        &mut self,
        now: Moment,
        asked: impl Iterator<Item = (SessionId, Option<Secret>)> + Clone,
        statuses: &mut [u8; RENEWALS_MAX],
    ) {
        for (id, _) in asked.clone() {
            let guess = self.by_id.guess(id.0);
            if let Some(session) = guess.and_then(|local| self.table.get(local as usize)) {
                prefetch_line(session);
            }
        }
        for (status, (id, secret)) in statuses.iter_mut().zip(asked) {
            *status = self.renew(now, id, secret.as_ref());
        }
    }

    #[inline]
    fn renew(&mut self, now: Moment, id: SessionId, secret: Option<&Secret>) -> u8 {
        let Some(local) = self.local_of(id) else { return status::NOSESSION };
        let session = &mut self.table[local as usize];
        if secret.is_some_and(|secret| !session.is_proven_by(secret)) {
            return status::REFUSED;
        }
        session.renew(now);
        self.counts.renewed += 1;
        status::OK
    }

    /// Ends a session on its client's wish. It is answered when its names are free everywhere.
    pub fn close(
        &mut self,
        id: SessionId,
        secret: Option<&Secret>,
        ticket: Ticket,
        acts: &mut Vec<Act>,
    ) {
        let found = self.local_of(id).ok_or(status::NOSESSION);
        let proven = found.and_then(|local| {
            let session = &self.table[local as usize];
            let proven = secret.is_none_or(|secret| session.is_proven_by(secret));
            proven.then_some(local).ok_or(status::REFUSED)
        });
        match proven {
            Ok(local) => self.end_for(local, Ended::Closed, ticket, acts),
            Err(status) => acts.push(Act::Answer(ticket, Answer::plain(status))),
        }
    }

    /// Ends a session on an operator's behalf; answered as [`Self::close`].
    pub fn kill(&mut self, id: SessionId, ticket: Ticket, acts: &mut Vec<Act>) {
        match self.local_of(id) {
            Some(local) => self.end_for(local, Ended::Killed, ticket, acts),
            None => acts.push(Act::Answer(ticket, Answer::plain(status::NOSESSION))),
        }
    }

    /// Another shard knows that a session has ended; the last one answers who ended it.
    pub fn ended(&mut self, bound: Bound, acts: &mut Vec<Act>) {
        let session = &mut self.table[bound.handle.local()];
        assert!(session.id == bound.session.0, "a handle is not reused before it was swept");
        session.unattached -= 1;
        if session.unattached == 0
            && let Some(ticket) = session.opener.take()
        {
            acts.push(Act::Answer(*ticket, Answer::plain(status::OK)));
        }
    }

    /// Ends the session of a handle in this shard, as when a lock's only name was released.
    pub fn close_lock(&mut self, handle: Handle, acts: &mut Vec<Act>) {
        self.end(handle.local() as u32, Ended::Closed, acts);
    }

    /// A connection opens a lane of a session; the one that had it last.
    pub fn open_lane(
        &mut self,
        id: SessionId,
        number: u32,
        to: ConnRef,
    ) -> Result<Option<ConnRef>, u8> {
        if self.local_of(id).is_none() {
            return Err(status::NOSESSION);
        }
        let lanes = self.lanes.entry(id.0).or_default();
        if let Some((_, conn)) = lanes.iter_mut().find(|(at, _)| *at == number) {
            return Ok(Some(core::mem::replace(conn, to)));
        }
        if lanes.len() == LANES_PER_SESSION {
            return Err(status::FULL);
        }
        lanes.push((number, to));
        Ok(None)
    }

    /// Binds one more sending connection.
    pub fn attach(
        &self,
        id: SessionId,
        secret: &Secret,
        principal: Principal,
    ) -> Result<Bound, u8> {
        let local = self.local_of(id).ok_or(status::NOSESSION)?;
        let session = &self.table[local as usize];
        let same = session.principal == principal.0 && session.is_proven_by(secret);
        if session.flags & FLAG_LOCK != 0 || !same {
            return Err(status::REFUSED);
        }
        Ok(self.bound(local))
    }

    /// A connection has closed. A bare session ends with it; any other is merely away.
    pub fn conn_closed(&mut self, id: SessionId, conn: ConnRef, acts: &mut Vec<Act>) {
        let Some(local) = self.local_of(id) else { return };
        let session = &mut self.table[local as usize];
        if session.conn != Some(conn) {
            return;
        }
        session.conn = None;
        if session.flags & FLAG_BARE != 0 {
            self.end(local, Ended::Closed, acts);
        }
    }

    /// Another shard has attached a session; the last one to do so opens it.
    pub fn attached(&mut self, bound: Bound, acts: &mut Vec<Act>) {
        let session = &mut self.table[bound.handle.local()];
        let awaited = !self.sabotage.breaks(Rule::AttachFirst);
        if session.id == bound.session.0 && session.is_live() && awaited {
            session.unattached -= 1;
            if session.unattached == 0 {
                self.opened(bound.handle.local() as u32, acts);
            }
        }
    }

    /// The state directory allows leases of `lease` from now on.
    pub fn lease_raised(&mut self, now: Moment, lease: Span, acts: &mut Vec<Act>) {
        self.lease_allowed = self.lease_allowed.max(lease);
        for (local, id) in core::mem::take(&mut self.awaiting_lease) {
            let session = &mut self.table[local as usize];
            if session.id != id || !session.is_live() || session.flags & FLAG_OPENING == 0 {
                continue;
            }
            if Span::from_ms(u64::from(session.lease_ms)) > self.lease_allowed {
                self.awaiting_lease.push((local, id));
                continue;
            }
            session.unattached -= 1;
            if session.unattached == 0 {
                self.opened(local, acts);
            }
        }
        for resume in self.resumes.take() {
            // A resume makes no secret.
            self.open(now, resume.who, &resume.ask(), Secret([0; 16]), acts);
        }
    }

    /// A shard holds no more record of an ended session; after the last one its place is free.
    pub fn swept(&mut self, handle: Handle) {
        let session = &mut self.table[handle.local()];
        if self.sabotage.breaks(Rule::SweptEverywhere) {
            if session.flags & FLAG_ENDING != 0 {
                *session = Session::default();
                self.free.push(handle.local() as u32);
            }
            return;
        }
        assert!(session.flags & FLAG_ENDING != 0 && session.unswept > 0, "swept once by each");
        session.unswept -= 1;
        if session.unswept == 0 {
            *session = Session::default();
            self.free.push(handle.local() as u32);
        }
    }

    /// Ends sessions whose lease has run out by lease time `now`; call it after all input of the
    /// turn was applied. Returns whether more are due.
    pub fn expire(&mut self, now: Moment, acts: &mut Vec<Act>) -> bool {
        let mut left = EXPIRIES_PER_TURN;
        while left > 0 {
            let Some((local, id)) = self.wheel.pop(now) else { return false };
            left -= 1;
            let session = &mut self.table[local as usize];
            if session.id != id || !session.is_live() || session.wheel_at > now {
                continue;
            }
            if session.deadline > now {
                session.wheel_at = session.deadline;
                session.timer = Some(self.wheel.insert(session.deadline, (local, id)));
                continue;
            }
            session.timer = None;
            self.end(local, Ended::Expired, acts);
        }
        true
    }

    /// When [`Self::expire`] has to be called next, in lease time.
    pub fn wake_at(&self) -> Option<Moment> {
        self.wheel.wake_at()
    }

    /// Whether a slot has run out of session ids in this epoch.
    pub const fn is_used_up(&self) -> bool {
        self.used_up
    }

    /// Ids are made under a later, persisted epoch from now on.
    pub fn begin_epoch(&mut self, epoch: Epoch) {
        if epoch > self.epoch {
            self.epoch = epoch;
            self.sequences.fill(0);
            self.used_up = false;
        }
    }

    /// The record of one session with a zero name count, and whose names are to be counted.
    pub fn record(&self, now: Moment, id: SessionId) -> Option<(Vec<u8>, Bound)> {
        let local = self.local_of(id)?;
        let mut out = Vec::with_capacity(64);
        self.put_record(now, local, &mut out);
        Some((out, self.bound(local)))
    }

    /// Whose session it is.
    pub fn principal_of(&self, id: SessionId) -> Option<Principal> {
        let local = self.local_of(id)?;
        Some(Principal(self.table[local as usize].principal))
    }

    /// The session of a node.
    pub fn of_node(&self, node: NodeId) -> Option<SessionId> {
        self.local_of_node(node).map(|local| SessionId(self.table[local as usize].id))
    }

    /// Records from place `from` on, at most `most` of them and about `bytes_max` bytes; the
    /// place to go on at, or `None` after the last. A `viewer` sees only its own.
    pub fn page(
        &self,
        now: Moment,
        from: usize,
        (most, bytes_max): (usize, usize),
        viewer: Option<Principal>,
    ) -> (Vec<u8>, Vec<Bound>, Option<usize>) {
        let (mut out, mut bounds) = (Vec::new(), Vec::new());
        for local in from..self.table.len() {
            let full = bounds.len() == most || out.len() >= bytes_max;
            if full || local - from >= PAGE_PLACES_MAX {
                return (out, bounds, Some(local));
            }
            let session = &self.table[local];
            let seen = viewer.is_none_or(|viewer| viewer.0 == session.principal);
            if seen && session.is_live() && session.flags & FLAG_OPENING == 0 {
                self.put_record(now, local as u32, &mut out);
                bounds.push(self.bound(local as u32));
            }
        }
        (out, bounds, None)
    }

    /// Whether a session lives here.
    pub fn is_live(&self, id: SessionId) -> bool {
        self.local_of(id).is_some()
    }

    /// Places that are not free: those of live sessions and of ended ones not yet swept.
    pub fn places_in_use(&self) -> usize {
        self.table.len() - self.free.len()
    }

    /// Live sessions whose clients count a lease: after a stop they may believe in it for as long
    /// as it runs.
    pub const fn leased(&self) -> usize {
        self.leased
    }

    /// Live sessions.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Bytes of all tables here, and of addresses and metadata.
    pub fn bytes(&self) -> usize {
        let places = self.by_id.bytes() + self.by_node.bytes();
        let queued = self.free.capacity() * 4 + self.wheel.len() * 40;
        self.table.bytes() + places + queued + self.infos.bytes()
    }

    /// What happened since the start.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    fn resume(
        &mut self,
        now: Moment,
        (local, lease): (u32, Span),
        who: Opener,
        ask: &Open<'_>,
        acts: &mut Vec<Act>,
    ) -> Result<(), u8> {
        let session = &mut self.table[local as usize];
        let checked = !self.sabotage.breaks(Rule::SecretsChecked);
        if checked && !session.is_proven_by(&ask.secret) {
            return Err(status::REFUSED);
        }
        if session.flags & FLAG_OPENING != 0 {
            return Err(status::BUSY);
        }
        if ask.info != EMPTY_INFO {
            self.infos.check(Some(&session.info), ask.info)?;
        }
        if lease > self.lease_allowed {
            // S4: until then the session has the lease it had, and is as alive as its client.
            session.renew(now);
            acts.push(Act::RaiseLease(lease));
            return self.resumes.wait(who, ask);
        }
        let gateway = ask.flags & op::OPEN_GATEWAY != 0;
        let before = core::mem::replace(&mut session.conn, (!gateway).then_some(who.from));
        let id = SessionId(session.id);
        session.flags &= !FLAG_GATEWAY;
        session.flags |= if gateway { FLAG_GATEWAY } else { 0 };
        if ask.info != EMPTY_INFO {
            self.infos.set(&mut session.info, ask.info);
        }
        self.counts.resumed += 1;
        self.start(now, local, lease);
        if let Some(to) = before.filter(|before| *before != who.from) {
            acts.push(Act::Push {
                to,
                code: push::SESSION_MOVED,
                session: id,
                reason: 0,
                close: true,
            });
        }
        self.bind(local, who.ticket, true, acts);
        Ok(())
    }

    fn lease_of(&self, asked: Span) -> Result<Span, u8> {
        let lease = if asked == Span::ZERO { self.rules.default } else { asked };
        let fits = self.rules.min <= lease && lease <= self.rules.max;
        fits.then_some(lease).ok_or(status::LEASE)
    }

    /// Takes an empty place and gives it an identity, while `replaced` live sessions are about to
    /// end for it. The limit counts those that live; ended ones keep their places until they are
    /// swept, and a reserve is there for that.
    fn place(&mut self, slot: Slot, replaced: usize) -> Result<u32, u8> {
        if self.by_id.len() - replaced >= self.sessions_max {
            return Err(status::FULL);
        }
        let sequence = self.sequences[slot.index()];
        if u64::from(sequence) >= SessionId::SEQUENCE_MAX {
            self.used_up = true;
            return Err(status::BUSY);
        }
        let local = match self.free.pop() {
            Some(local) => local,
            None if self.table.len() < self.sessions_max + ending_max(self.sessions_max) => {
                self.table.grow_to(self.table.len() + 1);
                (self.table.len() - 1) as u32
            }
            None => return Err(status::FULL),
        };
        self.sequences[slot.index()] = sequence + 1;
        let id = SessionId::new(self.epoch, slot, u64::from(sequence) + 1);
        self.table[local as usize].id = id.0;
        let table = &self.table;
        self.by_id.insert(id.0, local, |at| table[at as usize].id);
        Ok(local)
    }

    /// Where a session stands, unless it has ended.
    #[inline]
    fn local_of(&self, id: SessionId) -> Option<u32> {
        self.by_id.get(id.0, |at| self.table[at as usize].id)
    }

    /// Where the session of a node stands.
    fn local_of_node(&self, node: NodeId) -> Option<u32> {
        self.by_node.get(node.0, |at| self.table[at as usize].node)
    }

    /// (Re)starts a lease and makes sure that the wheel looks in time.
    fn start(&mut self, now: Moment, local: u32, lease: Span) {
        let session = &mut self.table[local as usize];
        self.leased += usize::from(session.lease_ms == 0);
        session.lease_ms = lease.as_ms_ceil() as u32;
        session.deadline = now + lease;
        if session.wheel_at <= now || session.wheel_at > session.deadline {
            session.wheel_at = session.deadline;
            if let Some(timer) = session.timer.take() {
                self.wheel.cancel(timer);
            }
            session.timer = Some(self.wheel.insert(session.deadline, (local, session.id)));
        }
    }

    /// Tells every shard; the opening is answered when all have acknowledged.
    fn announce(&mut self, local: u32, ticket: Ticket, acts: &mut Vec<Act>) {
        let bound = self.bound(local);
        let session = &mut self.table[local as usize];
        let lease = Span::from_ms(u64::from(session.lease_ms));
        session.opener = Some(Box::new(ticket));
        session.unattached = (self.shards - 1) as u16;
        if self.sabotage.breaks(Rule::AttachFirst) {
            session.unattached = 0;
        }
        acts.push(Act::Attach(bound));
        if lease > self.lease_allowed && !self.sabotage.breaks(Rule::LeaseOnDisk) {
            session.unattached += 1;
            self.awaiting_lease.push((local, session.id));
            acts.push(Act::RaiseLease(lease));
        }
        if session.unattached == 0 {
            self.opened(local, acts);
        }
    }

    fn opened(&mut self, local: u32, acts: &mut Vec<Act>) {
        self.counts.opened += 1;
        let session = &mut self.table[local as usize];
        session.flags &= !FLAG_OPENING;
        if let Some(ticket) = session.opener.take() {
            self.bind(local, *ticket, false, acts);
        }
    }

    fn bind(&self, local: u32, ticket: Ticket, resumed: bool, acts: &mut Vec<Act>) {
        let session = &self.table[local as usize];
        let mut data = Vec::with_capacity(33);
        data.put_u64(session.id);
        data.extend_from_slice(&session.secret);
        data.put_u32(session.lease_ms);
        data.put_u32(self.epoch.0);
        data.put_u8(u8::from(resumed));
        let answer = Answer::data(data);
        if session.flags & FLAG_GATEWAY != 0 {
            acts.push(Act::Answer(ticket, answer));
        } else {
            let bare = session.flags & FLAG_BARE != 0;
            acts.push(Act::Bind { ticket, bound: self.bound(local), bare, answer });
        }
    }

    /// Ends a session and answers when that is known everywhere.
    fn end_for(&mut self, local: u32, why: Ended, ticket: Ticket, acts: &mut Vec<Act>) {
        let before = acts.len();
        self.end(local, why, acts);
        let session = &mut self.table[local as usize];
        if self.shards == 1 || session.flags & FLAG_LOCK != 0 {
            return acts.push(Act::Answer(ticket, Answer::plain(status::OK)));
        }
        session.opener = Some(Box::new(ticket));
        session.unattached = (self.shards - 1) as u16;
        if let Some(Act::End { acknowledge, .. }) = acts.get_mut(before) {
            *acknowledge = true;
        }
    }

    /// S1, S2: the session is out of both maps before anybody hears of its end.
    fn end(&mut self, local: u32, why: Ended, acts: &mut Vec<Act>) {
        let bound = self.bound(local);
        let session = &mut self.table[local as usize];
        assert!(session.is_live(), "ended once");
        let everywhere = session.flags & FLAG_LOCK == 0;
        session.flags |= FLAG_ENDING;
        session.unswept = if everywhere { self.shards as u16 } else { 1 };
        if let Some(timer) = session.timer.take() {
            self.wheel.cancel(timer);
        }
        self.leased -= usize::from(session.lease_ms != 0);
        let node = session.node;
        self.infos.set(&mut session.info, &[]);
        self.by_id.remove(bound.session.0, local);
        self.lanes.remove(&bound.session.0);
        self.by_node.remove(node, local);
        self.counts.ended[why as usize - 1] += 1;
        acts.push(Act::End { bound, everywhere, acknowledge: false });
        let session = &mut self.table[local as usize];
        let bare = session.flags & FLAG_BARE != 0;
        if let Some(ticket) = session.opener.take() {
            // Its connection never had it, so there is nothing to tell it, or to close.
            acts.push(Act::Answer(*ticket, Answer::plain(status::NOSESSION)));
            session.conn = None;
        }
        if let Some(to) = session.conn.take() {
            acts.push(Act::Push {
                to,
                code: push::SESSION_ENDED,
                session: bound.session,
                reason: why as u8,
                close: bare && why != Ended::Closed,
            });
        }
    }

    fn bound(&self, local: u32) -> Bound {
        let session = SessionId(self.table[local as usize].id);
        Bound { handle: Handle::new(self.home, local), session }
    }

    fn put_record(&self, now: Moment, local: u32, out: &mut Vec<u8>) {
        let session = &self.table[local as usize];
        let left = if session.lease_ms == 0 {
            0
        } else {
            session.deadline.since(now).as_ms_ceil().min(u64::from(u32::MAX)) as u32
        };
        let away = session.conn.is_none() && session.flags & (FLAG_GATEWAY | FLAG_LOCK) == 0;
        let bare = session.flags & FLAG_BARE != 0;
        out.put_u64(session.id);
        out.put_u64(session.node);
        out.put_u32(session.lease_ms);
        out.put_u32(left);
        out.put_u64(0);
        out.put_u8(if away { RECORD_AWAY } else { 0 } | if bare { RECORD_BARE } else { 0 });
        match &session.info {
            Some(info) if session.flags & FLAG_LOCK == 0 => out.extend_from_slice(info),
            _ => out.extend_from_slice(EMPTY_INFO),
        }
    }
}

/// Places that one page of sessions looks at, empty ones included: it is made within one turn.
const PAGE_PLACES_MAX: usize = 16 * 1024;

/// Places for sessions that have ended and are not swept yet, beside those for live ones: so many
/// that a sixteenth of all may be replaced at once at the limit.
const fn ending_max(sessions_max: usize) -> usize {
    let share = sessions_max / 16;
    if share > ENDING_MIN { share } else { ENDING_MIN }
}

const ENDING_MIN: usize = 64;
const ENDING_MAX: usize = ending_max(SESSIONS_PER_SHARD_MAX);

/// Where the name count stands in a session record.
pub const RECORD_NAMES_AT: usize = 24;

/// What a shard's sessions start with.
#[derive(Clone, Debug)]
pub struct SessionStart {
    /// Lease time at the start.
    pub now: Moment,
    /// What the state directory already allows for.
    pub lease_allowed: Span,
    /// How many there may be.
    pub sessions_max: usize,
    /// Bytes that their addresses, metadata and values of locks may have together.
    pub info_bytes_max: usize,
    /// How many resumes may wait for the state directory.
    pub waiters_max: usize,
    /// The secret keys of the hash maps.
    pub keys: KeyedState,
}
