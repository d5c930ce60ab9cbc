//! Names: who owns what, in the slots of one shard.
//!
//! The hard case is an owner that ends while requests of its own and of others are on their way.
//! A record points to its owner's *mirror* here, and the mirror says whether the owner lives. The
//! end of a session is one write to its mirror: from that moment all its names count as free,
//! though their records are swept away in slices over later turns.
//!
//! Invariants:
//! - N1  At most one live owner a name: a grant to another session needs the record to be absent
//!   or its owner's mirror to be dead.
//! - N2  The sequence of a slot never decreases; every grant takes the next number.
//! - N3  A mirror is reused only after its last record is swept (`sweep` reports it, the home
//!   waits).
//! - N4  Nothing is granted before `grants_from`, whatever arrives.
//!
//! Bounds: constant time an op; [`SWEEP_NAMES_PER_TURN`] records a turn of sweeping; 40 bytes a
//! mirror with its place in the index beside the table's own log.
//! Not here: leases (`sessions`), who may ask (`access`), the layout of records (`ringway-table`),
//! names that several hold or wait for (`waiting`, `claims`), that change hands (`transfer`).
//! Tests: stories below, whole shards in `tools/sim`.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use ringway_core::limits::{NAME_BYTES_MAX, SWEEP_NAMES_PER_TURN};
use ringway_core::slot::SLOTS;
use ringway_core::{Epoch, Moment, Region, SessionId, ShardId, Slot, Token};
use ringway_table::{Grant, Name, Owner, OwnerLog, RecordCursor, RecordId, Table};

use ringway_core::wheel::Wheel;

use crate::claims::{Claims, Wish};
use crate::handle::{Bound, Handle};
use crate::keyed::KeyedState;
use crate::mail;
use crate::notices::Bundles;
use crate::outcome::Outcome;
use crate::paged::Paged;
use crate::places::Places;
use crate::quotas::Quotas;
use crate::runs::Runs;
use crate::sabotage::{Rule, Sabotage};
use crate::sessions::Ticket;
use crate::waiting::Held;
use crate::watch::feed::Feeds;
use crate::wire::{op, status};

/// A record's flag: held by a `SET` lock, whose value is its secret.
pub const FLAG_LOCK: u8 = 0x01;

/// A record's flag: its name has more than an owner (`claims`).
pub const FLAG_SIDE: u8 = 0x02;

/// A record's flag: its name is counted for its namespace (`quotas`).
pub const FLAG_QUOTA: u8 = 0x04;
/// Flags that stay as long as the record does, whoever holds it.
pub(crate) const FLAGS_KEPT: u8 = FLAG_SIDE | FLAG_QUOTA;

/// Epochs that records can tell apart: four bits. The next one is taken only by the 2^44th grant
/// of one slot in this one, so a shard that granted ten million names a second, which is more than
/// it can, would take the last after ten months, and be restarted before it has used that up.
pub const EPOCHS_MAX: usize = 16;

const _: () = {
    let grants = EPOCHS_MAX as u64 * Token::SEQUENCE_MAX;
    assert!(grants / 10_000_000 > 320 * 24 * 3600, "the epochs of a life last longer than it");
};

/// Entries of one session's log that are looked at before the next decision.
const SWEEP_STEP: usize = 256;

/// What this shard knows of a session that lives at its home shard.
#[derive(Default)]
pub(crate) struct Mirror {
    /// Zero: nobody. A live session's id otherwise, also while it is being swept.
    id: u64,
    pub(crate) log: OwnerLog,
    /// The first of its claims on names here.
    pub(crate) claims: u32,
    /// How many of those hold a name. [`ENDED`] once the session has ended.
    shares: u32,
}

/// Stands for an ended session where a live one's shares are counted.
const ENDED: u32 = u32::MAX;

impl Mirror {
    const fn has_ended(&self) -> bool {
        self.shares == ENDED
    }

    /// One claim on a name more is held.
    pub(crate) const fn gain_share(&mut self) {
        self.shares += 1;
    }

    /// One less. Of an ended session they are not counted any more.
    pub(crate) const fn lose_share(&mut self) {
        if !self.has_ended() {
            self.shares -= 1;
        }
    }
}

const _: () = assert!(size_of::<Mirror>() == 32);

/// Whom a session belongs to that reaches only sessions of its own kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenant(pub u32);

/// The names of one shard.
pub struct Names<R> {
    pub(crate) table: Table<R>,
    sequences: Box<[u64]>,
    /// Those that records are of; the last one is that of grants.
    epochs: Vec<Epoch>,
    /// The latest that may be granted under.
    persisted: Epoch,
    pub(crate) mirrors: Vec<Paged<Mirror>>,
    /// Handles of live sessions but locks, by the session's id.
    by_session: Places,
    /// Whose the sessions are that do not see all, by handle. Nobody's where no credentials are
    /// asked for.
    tenants: BTreeMap<u32, Tenant>,
    sweeping: VecDeque<Handle>,
    /// Ended sessions that have claims here. Theirs go first, since others wait behind them.
    pub(crate) ending: VecDeque<Handle>,
    /// Sessions that ever were in there.
    pub(crate) ends: u64,
    pub(crate) claims: Claims,
    /// Waits that have an end.
    pub(crate) waits: Wheel<u32>,
    /// Names that are looked at again next turn.
    pub(crate) stuck: VecDeque<u32>,
    /// Some of them only because a step is bounded: the next turn comes at once.
    pub(crate) hurried: bool,
    /// What sessions are to be told.
    pub(crate) notices: Bundles,
    /// Ops whose answer has been waited for.
    pub(crate) answers: Vec<(Ticket, Outcome)>,
    /// How many names some namespaces may have.
    pub(crate) quotas: Quotas,
    /// Scratch of `sweep`: names with a side that their owner has left.
    freed: Vec<(RecordId, Token)>,
    grants_from: Moment,
    pub(crate) sabotage: Sabotage,
    /// What lists remember of earlier walks; grants are told to them.
    pub(crate) runs: Runs,
    /// Who wants to hear of changes; all of them are told to these.
    pub(crate) feeds: Feeds,
    used_up: bool,
}

/// What a shard's names start with.
#[derive(Clone, Debug)]
pub struct NamesStart {
    /// The shard.
    pub id: ShardId,
    /// The epoch to grant under.
    pub epoch: Epoch,
    /// In the future after an unclean stop.
    pub grants_from: Moment,
    /// Bytes that metadata, further holders and those who wait may take.
    pub side_bytes: usize,
    /// Bytes that may be taken by what watchers are to be told of these names.
    pub watch_bytes: usize,
    /// Bytes of notices that may be under way to other shards.
    pub under_way: usize,
    /// The secret keys of the hash maps.
    pub keys: KeyedState,
}

/// How a register op may be refused before any name is looked at.
#[inline]
pub fn check_register_flags(flags: u8) -> Result<(), u8> {
    if flags == 0 {
        return Ok(());
    }
    if flags & !(op::REGISTER_MODE_MASK | op::REGISTER_REPLICATED) != 0 {
        return Err(status::UNSUPPORTED);
    }
    if flags & op::REGISTER_MODE_MASK > op::MODE_COUNTING {
        return Err(status::MODE);
    }
    if flags & op::REGISTER_REPLICATED != 0 {
        return Err(status::NOREPLICA);
    }
    Ok(())
}

impl<R: Region> Names<R> {
    /// No names yet. `grants_from` lies in the future after an unclean stop.
    pub fn new(
        now: Moment,
        table: Table<R>,
        (shards, quotas): (usize, Quotas),
        start: NamesStart,
    ) -> Self {
        Self {
            table,
            sequences: vec![0; SLOTS].into_boxed_slice(),
            epochs: vec![start.epoch],
            persisted: start.epoch,
            mirrors: (0..shards).map(|_| Paged::default()).collect(),
            by_session: Places::new(start.keys.clone()),
            tenants: BTreeMap::new(),
            sweeping: VecDeque::new(),
            ending: VecDeque::new(),
            ends: 0,
            claims: Claims::new(start.side_bytes, &start.keys),
            waits: Wheel::new(now),
            stuck: VecDeque::new(),
            hurried: false,
            notices: Bundles::new(shards, mail::NOTICES, start.under_way),
            answers: Vec::new(),
            freed: Vec::new(),
            quotas,
            grants_from: start.grants_from,
            sabotage: Sabotage::default(),
            runs: Runs::default(),
            feeds: Feeds::new((start.id, start.epoch), start.keys, start.watch_bytes),
            used_up: false,
        }
    }

    /// The table, for hashing, prefetching and measuring.
    #[inline]
    pub const fn table(&self) -> &Table<R> {
        &self.table
    }

    /// When grants begin; in the past on all but the first seconds after an unclean stop.
    pub const fn grants_from(&self) -> Moment {
        self.grants_from
    }

    /// The epoch under which names are granted.
    pub fn epoch(&self) -> Epoch {
        *self.epochs.last().expect("there is one from the start")
    }

    /// Whether a slot has run out of sequence and grants nothing until a later epoch is persisted.
    pub fn is_used_up(&self) -> bool {
        self.used_up && self.epochs.len() < EPOCHS_MAX
    }

    /// A later epoch is persisted: a slot that runs out of sequence goes on under it. Until then
    /// it is not taken, since records have room for [`EPOCHS_MAX`] of them, and the ids of sessions
    /// (2^30 locks of one name) use up many more.
    pub fn begin_epoch(&mut self, epoch: Epoch) {
        self.persisted = self.persisted.max(epoch);
        self.used_up = false;
    }

    /// N2: grants go on under the latest epoch, and sequences start over. False if there is none.
    #[cold]
    fn next_epoch(&mut self) -> bool {
        let later = self.persisted > self.epoch() && self.epochs.len() < EPOCHS_MAX;
        if later {
            self.epochs.push(self.persisted);
            self.sequences.fill(0);
        }
        later
    }

    /// Learns of a session, from its home. Its names may be registered here from now on.
    pub fn attach(&mut self, bound: Bound, tenant: Option<Tenant>) {
        self.attach_lock(bound);
        if let Some(tenant) = tenant {
            self.tenants.insert(bound.handle.bits(), tenant);
        }
        let mirrors = &self.mirrors;
        let id_at = |bits: u32| {
            let handle = Handle::from_bits(bits);
            mirrors[handle.home().index()][handle.local()].id
        };
        self.by_session.insert(bound.session.0, bound.handle.bits(), id_at);
    }

    /// Learns of the session of a lock: it has one name, and nobody ever asks for it.
    pub fn attach_lock(&mut self, bound: Bound) {
        let mirror = self.mirror_slot(bound.handle);
        assert!(mirror.id == 0, "a handle is reused only after it was swept everywhere");
        *mirror = Mirror { id: bound.session.0, ..Mirror::default() };
    }

    /// The place of a live session, unless it is a lock's.
    pub fn bound_of(&self, session: SessionId) -> Option<Bound> {
        let id_at = |bits: u32| self.mirror(bits).map_or(0, |mirror| mirror.id);
        let bits = self.by_session.get(session.0, id_at)?;
        Some(Bound { handle: Handle::from_bits(bits), session })
    }

    /// Whether a session may hand anything to another: it sees all, or both are of one tenant.
    pub(crate) fn reaches(&self, by: Bound, to: Bound) -> bool {
        let tenant_of = |bound: Bound| self.tenants.get(&bound.handle.bits());
        tenant_of(by).is_none_or(|tenant| tenant_of(to) == Some(tenant))
    }

    /// The live session at a place.
    pub(crate) fn bound_at(&self, handle: Handle) -> Option<Bound> {
        self.session_of(handle.owner()).map(|session| Bound { handle, session })
    }

    /// Learns that a session has ended: all its names are free from this call on. Their records
    /// go in [`Self::sweep`], which reports the handle when none is left.
    pub fn end(&mut self, bound: Bound) {
        let mirror = self.mirror_slot(bound.handle);
        assert!(mirror.id == bound.session.0 && !mirror.has_ended(), "ended once, by its home");
        mirror.shares = ENDED;
        let claims = mirror.claims != 0;
        if claims && !self.sabotage.breaks(Rule::DeadWaitersSkipped) {
            self.ends += 1;
            self.ending.push_back(bound.handle);
        }
        self.tenants.remove(&bound.handle.bits());
        self.sweeping.push_back(bound.handle);
        self.by_session.remove(bound.session.0, bound.handle.bits());
    }

    /// Releases records of ended sessions, at most [`SWEEP_NAMES_PER_TURN`], and reports each
    /// session of which nothing is left. Returns how many records went.
    pub fn sweep(&mut self, mut swept: impl FnMut(Handle)) -> usize {
        let mut left = SWEEP_NAMES_PER_TURN;
        while let Some(handle) = self.ending.front().copied() {
            left -= self.sweep_claims(handle, left);
            if left == 0 {
                return SWEEP_NAMES_PER_TURN;
            }
            self.ending.pop_front();
        }
        while left > 0 {
            let Some(handle) = self.sweeping.front().copied() else { break };
            let mirror = &mut self.mirrors[handle.home().index()][handle.local()];
            let mut released = 0;
            let step = (left.min(SWEEP_STEP), FLAG_SIDE);
            let session = SessionId(mirror.id);
            let (freed, quotas) = (&mut self.freed, &mut self.quotas);
            let (feeds, epochs) = (&mut self.feeds, &self.epochs);
            let on_release = |id, name: &[u8], grant: Grant| {
                released += 1;
                let last = || Token::new(epochs[usize::from(grant.epoch_index)], grant.sequence);
                if grant.flags & FLAG_SIDE != 0 {
                    return freed.push((id, last()));
                }
                if !feeds.is_empty() {
                    feeds.released(name, (session, last()));
                }
                if grant.flags & FLAG_QUOTA != 0 {
                    quotas.discount(name);
                }
            };
            let done = self.table.sweep(handle.owner(), &mut mirror.log, step, on_release);
            // Entries that were looked at count, and a session without names still costs one: a
            // million of either are sliced as well.
            left = left.saturating_sub(if done { released.max(1) } else { step.0 });
            while let Some((id, token)) = self.freed.pop() {
                self.freed_by(id, (session, token));
            }
            if done {
                self.mirrors[handle.home().index()][handle.local()] = Mirror::default();
                self.sweeping.pop_front();
                swept(handle);
            }
        }
        SWEEP_NAMES_PER_TURN - left
    }

    /// Whether records of ended sessions are still to be released.
    pub fn is_sweeping(&self) -> bool {
        !self.sweeping.is_empty()
    }

    /// Whether the session is alive, as far as this shard has heard.
    #[inline]
    pub fn is_live(&self, bound: Bound) -> bool {
        self.mirror(bound.handle.bits()).is_some_and(|m| m.id == bound.session.0 && !m.has_ended())
    }

    /// How many names the session holds in this shard.
    pub fn count_of(&self, bound: Bound) -> u64 {
        let mirror = self.mirror(bound.handle.bits());
        mirror
            .filter(|m| m.id == bound.session.0 && !m.has_ended())
            .map_or(0, |m| u64::from(m.log.live()) + u64::from(m.shares))
    }

    /// Who owns the name.
    #[inline]
    pub fn query(&mut self, hash: u64, name: &Name<'_>) -> Outcome {
        let Some((_, grant)) = self.table.find(hash, name) else {
            return Outcome::plain(status::FREE);
        };
        match self.session_of(grant.owner) {
            Some(session) => Outcome::owner(status::OWNED_EPHEMERAL, session, self.token(&grant)),
            None if grant.flags & FLAG_SIDE != 0 => self.query_sided(hash, name),
            None => Outcome::plain(status::FREE),
        }
    }

    #[cold]
    fn query_sided(&mut self, hash: u64, name: &Name<'_>) -> Outcome {
        let shown = match self.held(hash, name) {
            Held::Free => None,
            Held::Alone(id, ..) | Held::Together(id, _) => self.shown(id, &self.table.grant(id)),
        };
        shown.map_or(Outcome::plain(status::FREE), |(session, token)| {
            Outcome::owner(status::OWNED_EPHEMERAL, session, token)
        })
    }

    /// The live session that holds a name alone, with its record.
    #[inline]
    pub fn holder(&self, hash: u64, name: &Name<'_>) -> Option<(RecordId, Grant, SessionId)> {
        let (id, grant) = self.table.find(hash, name)?;
        let session = self.session_of(grant.owner)?;
        Some((id, grant, session))
    }

    /// Claims a name for a live session. `flags` have passed [`check_register_flags`].
    #[inline]
    pub fn register(&mut self, now: Moment, hash: u64, name: &Name<'_>, by: Bound) -> Outcome {
        self.grant(now, hash, name, (by, 0))
    }

    /// Claims a name with record flags.
    #[inline]
    pub fn grant(&mut self, now: Moment, hash: u64, name: &Name<'_>, who: (Bound, u8)) -> Outcome {
        let (by, flags) = who;
        if !self.is_live(by) {
            return Outcome::plain(status::NOSESSION);
        }
        let found = self.table.find(hash, name);
        if let Some((_, grant)) = found {
            if let Some(session) = self.session_of(grant.owner) {
                let mine = grant.owner == by.handle.owner();
                let status = if mine { status::GRANTED_EPHEMERAL } else { status::HELD };
                return Outcome::owner(status, session, self.token(&grant));
            }
            if grant.flags & FLAG_SIDE != 0 {
                return self.claim(now, (hash, name), who, (Wish::EXCLUSIVE, None));
            }
        }
        if now < self.grants_from {
            return Outcome::plain(status::STARTING);
        }
        self.grant_found(hash, name, (by, flags), found.map(|(id, _)| id))
    }

    /// N1, N2: the name is free, or its record's owner is dead; it has no side.
    pub(crate) fn grant_free(&mut self, hash: u64, name: &Name<'_>, who: (Bound, u8)) -> Outcome {
        let found = self.table.find(hash, name);
        self.grant_found(hash, name, who, found.map(|(id, _)| id))
    }

    #[inline]
    fn grant_found(
        &mut self,
        hash: u64,
        name: &Name<'_>,
        (by, flags): (Bound, u8),
        stale: Option<RecordId>,
    ) -> Outcome {
        let slot = slot_of(name);
        let Some(sequence) = self.next_sequence(slot) else {
            return Outcome::plain(status::BUSY);
        };
        let kept = match stale {
            Some(id) => self.table.grant(id).flags & FLAGS_KEPT,
            None if self.quotas.is_empty() => 0,
            None => match self.count(name) {
                Ok(flag) => flag,
                Err(status) => return Outcome::plain(status),
            },
        };
        let (epoch_index, flags) = (self.epoch_index(), flags | kept);
        let grant = Grant { owner: by.handle.owner(), sequence, epoch_index, flags };
        let mirror = &mut self.mirrors[by.handle.home().index()][by.handle.local()];
        let stored = match stale {
            Some(id) => {
                let before = self.table.grant(id).owner;
                let replaced = self.table.replace(id, grant, &mut mirror.log);
                replaced.map(|()| {
                    self.lose(before);
                    id
                })
            }
            None => self.table.insert(hash, name, grant, &mut mirror.log),
        };
        let Ok(id) = stored else {
            if stale.is_none() && kept & FLAG_QUOTA != 0 {
                self.discount(name);
            }
            return Outcome::plain(status::FULL);
        };
        self.take_sequence((slot, sequence), id, by.handle);
        Outcome::owner(status::GRANTED_EPHEMERAL, by.session, self.token(&grant))
    }

    /// Counts a name that is about to be made for its namespace: the flag that its record is to
    /// have, or `QUOTA`.
    #[cold]
    pub(crate) fn count(&mut self, name: &Name<'_>) -> Result<u8, u8> {
        let mut bytes = [0; NAME_BYTES_MAX];
        let len = name.copy_to(&mut bytes);
        let counted = match self.quotas.count(&bytes[..len]) {
            Ok(counted) => counted,
            Err(_) if self.sabotage.breaks(Rule::QuotasHold) => false,
            Err(_) => return Err(status::QUOTA),
        };
        Ok(if counted { FLAG_QUOTA } else { 0 })
    }

    /// A name that was counted was not made, or is gone.
    #[cold]
    pub(crate) fn discount(&mut self, name: &Name<'_>) {
        let mut bytes = [0; NAME_BYTES_MAX];
        let len = name.copy_to(&mut bytes);
        self.quotas.discount(&bytes[..len]);
    }

    /// Removes a name of nobody's.
    pub(crate) fn remove(&mut self, id: RecordId) {
        self.discount_record(id);
        self.table.remove(id, self.table.hash_of(id), None);
    }

    /// A record that may be counted is about to be removed.
    pub(crate) fn discount_record(&mut self, id: RecordId) {
        if self.table.grant(id).flags & FLAG_QUOTA != 0 {
            let (name, len) = self.name_of(id);
            self.quotas.discount(&name[..len]);
        }
    }

    /// How many names of each namespace that has a quota are here, in the order of the quotas.
    pub fn names_of_namespaces(&self) -> impl Iterator<Item = u64> {
        self.quotas.names()
    }

    /// N2: the sequence that the next grant in a slot takes, under [`Self::epoch_index`]. `None`
    /// until a later epoch is persisted; the shell hears of that at the end of the turn.
    #[inline]
    pub(crate) fn next_sequence(&mut self, slot: Slot) -> Option<u64> {
        let next = u64::from(!self.sabotage.breaks(Rule::TokensGrow));
        let sequence = self.sequences[slot.index()] + next;
        if sequence <= Token::SEQUENCE_MAX {
            return Some(sequence);
        }
        let later = self.next_epoch();
        self.used_up |= !later;
        later.then_some(1)
    }

    /// A record was granted to a session under a sequence of its slot.
    #[inline]
    pub(crate) fn take_sequence(
        &mut self,
        (slot, sequence): (Slot, u64),
        id: RecordId,
        to: Handle,
    ) {
        if !self.feeds.is_empty() {
            self.tell_acquired(id, to, Token::new(self.epoch(), sequence));
        }
        if !self.runs.is_empty() {
            self.runs.granted(slot.number(), id);
        }
        self.sequences[slot.index()] = sequence;
    }

    /// Which of the epochs that records can tell apart grants are made under.
    #[inline]
    pub(crate) const fn epoch_index(&self) -> u8 {
        (self.epochs.len() - 1) as u8
    }

    /// A token as a claim keeps it: its sequence, and which of the epochs it is of.
    pub(crate) const fn value_of(&self, sequence: u64) -> u64 {
        sequence | (self.epoch_index() as u64) << 44
    }

    /// The inverse of [`Self::value_of`].
    pub(crate) fn token_of(&self, value: u64) -> Token {
        Token::new(self.epochs[(value >> 44) as usize], value & Token::SEQUENCE_MAX)
    }

    /// A dead owner's record went to a live one, or to nobody.
    pub(crate) fn lose(&mut self, before: Owner) {
        let handle = Handle::from_bits(before.0);
        self.mirrors[handle.home().index()][handle.local()].log.lose();
    }

    /// Gives a name back: only its own live owner may, and only under `token` if one is given.
    #[inline]
    pub fn release(
        &mut self,
        hash: u64,
        name: &Name<'_>,
        by: Bound,
        token: Option<Token>,
    ) -> Outcome {
        if !self.is_live(by) {
            return Outcome::plain(status::NOSESSION);
        }
        let Some((id, grant)) = self.table.find(hash, name) else {
            return Outcome::plain(status::NOTOWNER);
        };
        let under = token.is_none_or(|token| token == self.token(&grant));
        if grant.flags & FLAG_SIDE != 0 {
            return self.release_sided(id, grant, by, token);
        }
        let counted = grant.flags & FLAG_QUOTA != 0;
        let keeps = self.sabotage.breaks(Rule::CreditsGivenBack);
        if counted && grant.owner == by.handle.owner() && under && !keeps {
            self.discount(name);
        }
        if grant.owner != by.handle.owner() || !under {
            return Outcome::plain(status::NOTOWNER);
        }
        if !self.feeds.is_empty() {
            self.tell_released(id, (by.session, self.token(&grant)));
        }
        let mirror = &mut self.mirrors[by.handle.home().index()][by.handle.local()];
        self.table.remove(id, hash, Some(&mut mirror.log));
        Outcome::plain(status::OK)
    }

    /// Gives back a name with a side: it goes to whoever waits.
    #[cold]
    fn release_sided(
        &mut self,
        id: RecordId,
        grant: Grant,
        by: Bound,
        token: Option<Token>,
    ) -> Outcome {
        let under = |mine| token.is_none_or(|token| token == mine);
        if grant.owner == by.handle.owner() && under(self.token(&grant)) {
            self.give_up(id, by);
            return Outcome::plain(status::OK);
        }
        let side = self.claims.of_record(id.number());
        let claim = side.and_then(|side| self.claims.of_session(side, by.handle));
        let holds = claim.filter(|at| {
            let claim = self.claims.claim(*at);
            !claim.waits() && under(self.token_of(claim.value))
        });
        let (Some(side), Some(claim)) = (side, holds) else {
            return Outcome::plain(status::NOTOWNER);
        };
        self.drop_claim(claim);
        if self.live_holders(side) == 0 {
            self.freed(id);
        } else {
            self.left(id, side);
        }
        Outcome::plain(status::OK)
    }

    /// The token of a grant.
    #[inline]
    pub fn token(&self, grant: &Grant) -> Token {
        Token::new(self.epochs[usize::from(grant.epoch_index)], grant.sequence)
    }

    /// Walks over records, at most `budget`; `None` when all were seen. Every name that lives
    /// throughout the whole walk is visited exactly once.
    pub fn walk(
        &self,
        from: RecordCursor,
        budget: usize,
        mut f: impl FnMut(RecordId, &[u8], SessionId, Token),
    ) -> Option<RecordCursor> {
        self.table.walk(from, budget, |id, name, grant| {
            if let Some((session, token)) = self.shown(id, &grant) {
                f(id, name, session, token);
            }
        })
    }

    /// Visits the owned names that records which were walked over hold now.
    pub fn revisit(&self, ids: &[RecordId], mut f: impl FnMut(&[u8], SessionId, Token)) {
        self.table.revisit(ids, |id, name, grant| {
            if let Some((session, token)) = self.shown(id, &grant) {
                f(name, session, token);
            }
        });
    }

    /// The live session behind an owner.
    #[inline]
    pub(crate) fn session_of(&self, owner: Owner) -> Option<SessionId> {
        let mirror = self.mirror(owner.0)?;
        let owns = !mirror.has_ended() || self.sabotage.breaks(Rule::DeadOwnNothing);
        (owns && mirror.id != 0).then_some(SessionId(mirror.id))
    }

    /// The id of the session at a place, also if it has ended and is not swept yet.
    pub(crate) fn session_at(&self, handle: Handle) -> u64 {
        self.mirror(handle.bits()).map_or(0, |mirror| mirror.id)
    }

    #[inline]
    fn mirror(&self, bits: u32) -> Option<&Mirror> {
        let handle = Handle::from_bits(bits);
        self.mirrors.get(handle.home().index())?.get(handle.local())
    }

    fn mirror_slot(&mut self, handle: Handle) -> &mut Mirror {
        let of_home = &mut self.mirrors[handle.home().index()];
        of_home.grow_to(handle.local() + 1);
        &mut of_home[handle.local()]
    }

    /// Whether no name has more than an owner.
    pub fn is_plain(&self) -> bool {
        self.claims.is_empty() && self.claims.len() + self.claims.bytes() == 0
    }

    /// Bytes of metadata, of further holders, and of those who wait.
    pub const fn side_bytes(&self) -> usize {
        self.claims.bytes()
    }

    /// Claims of sessions on names that they share or wait for.
    pub const fn claims(&self) -> usize {
        self.claims.len()
    }

    /// Mirrors of sessions that live or are being swept. Linear in all there ever were.
    pub fn mirrors_in_use(&self) -> usize {
        let of_home = |mirrors: &Paged<Mirror>| {
            (0..mirrors.len()).filter(|local| mirrors[*local].id != 0).count()
        };
        self.mirrors.iter().map(of_home).sum()
    }

    /// Bytes of the mirrors.
    pub fn mirror_bytes(&self) -> usize {
        let mirrors: usize = self.mirrors.iter().map(Paged::bytes).sum();
        mirrors + self.by_session.bytes()
    }
}

/// The slot of a table name.
#[inline]
pub(crate) fn slot_of(name: &Name<'_>) -> Slot {
    let mut bytes = [0; NAME_BYTES_MAX];
    let len = name.copy_to(&mut bytes);
    Slot::of(&bytes[..len])
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;
    use ringway_core::region::HeapRegion;
    use ringway_table::{HashKey, Regions};

    fn names() -> Names<HeapRegion> {
        let region = || HeapRegion::new(1 << 20);
        let regions =
            Regions { records: region(), index: region(), arena: region(), lines: region() };
        let table = Table::new(regions, HashKey([1, 2])).expect("an empty table fits");
        let (grants_from, keys) = (Moment(0), KeyedState::new([3, 4]));
        let (id, side_bytes, watch_bytes, under_way) = (ShardId(0), 1 << 20, 1 << 20, 1 << 20);
        let epoch = Epoch(7);
        let start = NamesStart { id, epoch, grants_from, side_bytes, watch_bytes, under_way, keys };
        Names::new(Moment(0), table, (1, Quotas::default()), start)
    }

    /// A slot that has used up its sequence grants nothing until a later epoch was persisted, and
    /// then grants larger tokens: a token never repeats, not even after 2^44 grants.
    #[test]
    fn a_used_up_slot_waits_for_an_epoch() {
        let mut names = names();
        let by = Bound { handle: Handle::new(ringway_core::ShardId(0), 0), session: SessionId(9) };
        names.attach(by, None);
        let slot = Slot::of(b"{t}a");
        names.sequences[slot.index()] = Token::SEQUENCE_MAX - 1;
        let register = |names: &mut Names<_>, name: &[u8]| {
            let name = Name::new(name).expect("a name");
            let hash = names.table().hash(&name);
            names.register(Moment(1), hash, &name, by)
        };
        let last = register(&mut names, b"{t}a");
        assert_eq!(last.token, Token::new(Epoch(7), Token::SEQUENCE_MAX));
        assert_eq!(register(&mut names, b"{t}b").status, status::BUSY);
        assert!(names.is_used_up());
        names.begin_epoch(Epoch(8));
        let next = register(&mut names, b"{t}b");
        assert!(next.token > last.token && next.token.epoch() == Epoch(8));
        assert_eq!(register(&mut names, b"{t}a").token, last.token, "what is held stays as it is");
    }

    /// Epochs that others needed, as ids of sessions do every 2^30 locks of a name, cost the names
    /// none of the sixteen that their records can tell apart: a slot still finds a later epoch when
    /// it needs one, at once if that is persisted already. The sixteenth is the last.
    #[test]
    fn epochs_that_are_not_needed_are_not_taken() {
        let mut names = names();
        let by = Bound { handle: Handle::new(ringway_core::ShardId(0), 0), session: SessionId(9) };
        names.attach(by, None);
        let slot = Slot::of(b"{t}");
        let register = |names: &mut Names<_>, index: usize| {
            let name = format!("{{t}}{index}");
            let name = Name::new(name.as_bytes()).expect("a name");
            let hash = names.table().hash(&name);
            names.register(Moment(1), hash, &name, by)
        };
        let mut before = register(&mut names, 0).token;
        for index in 1..EPOCHS_MAX {
            (0..100).for_each(|_| names.begin_epoch(Epoch(names.persisted.0 + 1)));
            names.sequences[slot.index()] = Token::SEQUENCE_MAX;
            let next = register(&mut names, index);
            assert_eq!(next.token, Token::new(Epoch(7 + 100 * index as u32), 1));
            assert!(next.token > before);
            before = next.token;
        }
        assert_eq!(register(&mut names, 0).token, Token::new(Epoch(7), 1), "held since the first");
        names.begin_epoch(Epoch(9_999));
        names.sequences[slot.index()] = Token::SEQUENCE_MAX;
        assert_eq!(register(&mut names, EPOCHS_MAX).status, status::BUSY);
        assert!(!names.is_used_up(), "nobody is asked for what cannot be used");
    }
}
