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
//! Bounds: constant time an op; [`SWEEP_NAMES_PER_TURN`] records a turn of sweeping; 24 bytes a
//! mirror beside the table's own log.
//! Not here: leases (`sessions`), who may ask (`access`), the layout of records (`ringway-table`).
//! Tests: stories below, whole shards in `tools/sim`.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use ringway_core::limits::{NAME_BYTES_MAX, SWEEP_NAMES_PER_TURN};
use ringway_core::slot::SLOTS;
use ringway_core::{Epoch, Moment, Region, SessionId, ShardId, Slot, Token};
use ringway_table::{Grant, Name, Owner, OwnerLog, RecordCursor, RecordId, Table};

use crate::handle::{Bound, Handle};
use crate::keyed::KeyedState;
use crate::outcome::Outcome;
use crate::paged::Paged;
use crate::runs::Runs;
use crate::sabotage::{Rule, Sabotage};
use crate::watch::event::{Change, Kind};
use crate::watch::feed::Feeds;
use crate::wire::{op, status};

/// A record's flag: held by a `SET` lock, whose value is its secret.
pub const FLAG_LOCK: u8 = 0x01;

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
struct Mirror {
    /// Zero: nobody. A live session's id otherwise, also while it is being swept.
    id: u64,
    log: OwnerLog,
    ended: bool,
}

/// The names of one shard.
pub struct Names<R> {
    table: Table<R>,
    sequences: Box<[u64]>,
    /// Those that records are of; the last one is that of grants.
    epochs: Vec<Epoch>,
    /// The latest that may be granted under.
    persisted: Epoch,
    mirrors: Vec<Paged<Mirror>>,
    sweeping: VecDeque<Handle>,
    grants_from: Moment,
    pub(crate) sabotage: Sabotage,
    /// What lists remember of earlier walks; grants are told to them.
    pub(crate) runs: Runs,
    /// Who wants to hear of changes; all of them are told to these.
    pub(crate) feeds: Feeds,
    used_up: bool,
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
    if flags & op::REGISTER_MODE_MASK != 0 {
        return Err(status::MODE);
    }
    Err(status::NOREPLICA)
}

impl<R: Region> Names<R> {
    /// No names yet. `grants_from` lies in the future after an unclean stop.
    pub fn new(table: Table<R>, shards: usize, epoch: Epoch, grants_from: Moment) -> Self {
        Self {
            table,
            sequences: vec![0; SLOTS].into_boxed_slice(),
            epochs: vec![epoch],
            persisted: epoch,
            mirrors: (0..shards).map(|_| Paged::default()).collect(),
            sweeping: VecDeque::new(),
            grants_from,
            sabotage: Sabotage::default(),
            runs: Runs::default(),
            feeds: Feeds::new((ShardId(0), epoch), KeyedState::new([0, 0]), 0),
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
    pub fn attach(&mut self, bound: Bound) {
        let mirror = self.mirror_slot(bound.handle);
        assert!(mirror.id == 0, "a handle is reused only after it was swept everywhere");
        *mirror = Mirror { id: bound.session.0, ..Mirror::default() };
    }

    /// Learns that a session has ended: all its names are free from this call on. Their records
    /// go in [`Self::sweep`], which reports the handle when none is left.
    pub fn end(&mut self, bound: Bound) {
        let mirror = self.mirror_slot(bound.handle);
        assert!(mirror.id == bound.session.0 && !mirror.ended, "ended once, by its home");
        mirror.ended = true;
        self.sweeping.push_back(bound.handle);
    }

    /// Releases records of ended sessions, at most [`SWEEP_NAMES_PER_TURN`], and reports each
    /// session of which nothing is left. Returns how many records went.
    pub fn sweep(&mut self, mut swept: impl FnMut(Handle)) -> usize {
        let mut left = SWEEP_NAMES_PER_TURN;
        while left > 0 {
            let Some(handle) = self.sweeping.front().copied() else { break };
            let mirror = &mut self.mirrors[handle.home().index()][handle.local()];
            let mut released = 0;
            let step = left.min(SWEEP_STEP);
            let (feeds, epochs) = (&mut self.feeds, &self.epochs);
            let session = SessionId(mirror.id);
            let done = self.table.sweep(handle.owner(), &mut mirror.log, step, |name, grant| {
                released += 1;
                if !feeds.is_empty() {
                    let epoch = epochs[usize::from(grant.epoch_index)];
                    let token = Token::new(epoch, grant.sequence);
                    let kind = Kind::Released;
                    feeds.changed(&Change { kind, session, token, extra: 0, name });
                }
            });
            // Entries that were looked at count, and a session without names still costs one: a
            // million of either are sliced as well.
            left = left.saturating_sub(if done { released.max(1) } else { step });
            if done {
                *mirror = Mirror::default();
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
        self.mirror(bound.handle.bits()).is_some_and(|m| m.id == bound.session.0 && !m.ended)
    }

    /// How many names the session holds in this shard.
    pub fn count_of(&self, bound: Bound) -> u64 {
        let mirror = self.mirror(bound.handle.bits());
        mirror
            .filter(|m| m.id == bound.session.0 && !m.ended)
            .map_or(0, |m| u64::from(m.log.live()))
    }

    /// Who owns the name.
    #[inline]
    pub fn query(&self, hash: u64, name: &Name<'_>) -> Outcome {
        match self.holder(hash, name) {
            Some((_, grant, session)) => {
                Outcome::owner(status::OWNED_EPHEMERAL, session, self.token(&grant))
            }
            None => Outcome::plain(status::FREE),
        }
    }

    /// The live owner of a name, with its record.
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
        if let Some((_, grant)) = found
            && let Some(session) = self.session_of(grant.owner)
        {
            let mine = grant.owner == by.handle.owner();
            let status = if mine { status::GRANTED_EPHEMERAL } else { status::HELD };
            return Outcome::owner(status, session, self.token(&grant));
        }
        if now < self.grants_from {
            return Outcome::plain(status::STARTING);
        }
        self.grant_free(hash, name, (by, flags), found.map(|(id, _)| id))
    }

    /// N1, N2: the name is free, or its record's owner is dead.
    #[inline]
    fn grant_free(
        &mut self,
        hash: u64,
        name: &Name<'_>,
        (by, flags): (Bound, u8),
        stale: Option<RecordId>,
    ) -> Outcome {
        let slot = slot_of(name);
        let next = u64::from(!self.sabotage.breaks(Rule::TokensGrow));
        let mut sequence = self.sequences[slot.index()] + next;
        if sequence > Token::SEQUENCE_MAX {
            if !self.next_epoch() {
                // Until a later one is persisted; the shell hears of it at the end of the turn.
                self.used_up = true;
                return Outcome::plain(status::BUSY);
            }
            sequence = 1;
        }
        let epoch_index = (self.epochs.len() - 1) as u8;
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
        let Ok(id) = stored else { return Outcome::plain(status::FULL) };
        if !self.runs.is_empty() {
            self.runs.granted(slot.number(), id);
        }
        self.sequences[slot.index()] = sequence;
        if !self.feeds.is_empty() {
            self.tell(Kind::Acquired, (by.session, self.token(&grant)), name);
        }
        Outcome::owner(status::GRANTED_EPHEMERAL, by.session, self.token(&grant))
    }

    /// A dead owner's record went to a live one.
    fn lose(&mut self, before: Owner) {
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
        if grant.owner != by.handle.owner() || !under {
            return Outcome::plain(status::NOTOWNER);
        }
        let mirror = &mut self.mirrors[by.handle.home().index()][by.handle.local()];
        self.table.remove(id, hash, Some(&mut mirror.log));
        if !self.feeds.is_empty() {
            self.tell(Kind::Released, (by.session, self.token(&grant)), name);
        }
        Outcome::plain(status::OK)
    }

    /// Tells watchers of a change.
    #[inline(never)]
    fn tell(&mut self, kind: Kind, (session, token): (SessionId, Token), name: &Name<'_>) {
        let mut bytes = [0; NAME_BYTES_MAX];
        let len = name.copy_to(&mut bytes);
        self.feeds.changed(&Change { kind, session, token, extra: 0, name: &bytes[..len] });
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
            if let Some(session) = self.session_of(grant.owner) {
                f(id, name, session, self.token(&grant));
            }
        })
    }

    /// Visits the owned names that records which were walked over hold now.
    pub fn revisit(&self, ids: &[RecordId], mut f: impl FnMut(&[u8], SessionId, Token)) {
        self.table.revisit(ids, |name, grant| {
            if let Some(session) = self.session_of(grant.owner) {
                f(name, session, self.token(&grant));
            }
        });
    }

    /// The live session behind an owner.
    #[inline]
    fn session_of(&self, owner: Owner) -> Option<SessionId> {
        let mirror = self.mirror(owner.0)?;
        let owns = !mirror.ended || self.sabotage.breaks(Rule::DeadOwnNothing);
        (owns && mirror.id != 0).then_some(SessionId(mirror.id))
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

    /// Mirrors of sessions that live or are being swept. Linear in all there ever were.
    pub fn mirrors_in_use(&self) -> usize {
        let of_home = |mirrors: &Paged<Mirror>| {
            (0..mirrors.len()).filter(|local| mirrors[*local].id != 0).count()
        };
        self.mirrors.iter().map(of_home).sum()
    }

    /// Bytes of the mirrors.
    pub fn mirror_bytes(&self) -> usize {
        self.mirrors.iter().map(Paged::bytes).sum()
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
        Names::new(table, 1, Epoch(7), Moment(0))
    }

    /// A slot that has used up its sequence grants nothing until a later epoch was persisted, and
    /// then grants larger tokens: a token never repeats, not even after 2^44 grants.
    #[test]
    fn a_used_up_slot_waits_for_an_epoch() {
        let mut names = names();
        let by = Bound { handle: Handle::new(ringway_core::ShardId(0), 0), session: SessionId(9) };
        names.attach(by);
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
        names.attach(by);
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
