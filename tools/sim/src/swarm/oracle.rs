//! What must hold, judged from outside: by what clients sent and read, and when.
//!
//! Times here are real (virtual) nanoseconds unless a name says `local`. The oracle never asks the
//! server what it thinks; the one exception is expiry, which nobody outside sees happen.
//!
//! Invariants checked at every observation:
//! - O1  At most one client counts itself the owner of a name; of a shared one all its owners hold
//!   it in the same mode, and of permits no more than there are.
//! - O2  A token belongs to one session; a name registered again without a release keeps its token;
//!   storage that fences by token never refuses the present owner.
//! - O3  A session that renewed in time does not expire ([`Oracle::expired`]).
//! - O4  A session that cannot have ended is not said to have ended.
//! - O5  Whoever replaced a session finds its names free at once.
//!
//! Not here: the order of replies (`replies.rs`), linearizability (`history.rs`), leaks
//! (`finish.rs`).

use std::collections::BTreeMap;

use ringway_coord_proto::claims::Wish;
use ringway_core::{SessionId, Token};

use super::history::{End, Entry};

/// What is known of a session from outside.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) client: usize,
    pub(crate) node: Option<u64>,
    /// The name that it is a `SET` lock of.
    pub(crate) lock: Option<usize>,
    /// Zero: none; the session ends with its connection.
    pub(crate) lease: u64,
    /// When the last renewal that was confirmed, or the opening, was sent.
    pub(crate) confirmed: u64,
    /// Something other than its lease may have ended it from this moment on.
    pub(crate) may_end_from: u64,
    /// The client has given it up, or an operator has: it does not count on it from then on.
    pub(crate) revoked_from: u64,
    /// The wire on which an opening was answered that replaced it.
    pub(crate) replaced_on: Option<usize>,
    /// Its end was confirmed to somebody at this moment.
    pub(crate) ended_by: u64,
    /// The life of the process it was opened in.
    pub(crate) life: u32,
}

impl Facts {
    /// The first moment at which the session can have ended.
    pub(crate) fn end_from(&self) -> u64 {
        let expiry = if self.lease == 0 { u64::MAX } else { self.confirmed + self.lease };
        expiry.min(self.may_end_from)
    }
}

/// A client that was granted a name and has not let go of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) client: usize,
    pub(crate) session: SessionId,
    pub(crate) token: Token,
    /// How it is held, if the client was told.
    pub(crate) wish: Option<Wish>,
    /// When the client was told.
    pub(crate) since: u64,
}

impl Hold {
    /// Whether both may hold the name at once.
    pub(crate) fn may_coexist(&self, other: &Hold) -> bool {
        let (Some(one), Some(two)) = (self.wish, other.wish) else { return true };
        one == two && one != Wish::EXCLUSIVE
    }
}

/// A renewal on its way, for O3.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renewal {
    pub(crate) wire: usize,
    /// The byte of the wire behind its frame.
    pub(crate) end: u64,
    pub(crate) session: SessionId,
    /// The shard of its connection.
    pub(crate) shard: usize,
    /// When its last byte lies in the socket.
    pub(crate) arrived: u64,
    /// When its last byte was handed to its shard; zero: not yet.
    pub(crate) handed: u64,
}

/// An [`Event`] that the oracle is told of at an expiry.
pub(crate) struct Expiry {
    pub(crate) session: SessionId,
    pub(crate) home: usize,
    pub(crate) now: u64,
}

/// How long the parts of a healthy process may take; what is slower was stalled on purpose.
pub(crate) const HOP: u64 = 5_000_000;
/// A renewal that lay in the process for so long counts, whatever stalled.
const STALL_UNSEEN: u64 = 25_000_000 + 2 * HOP;

/// The judge.
#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) sessions: BTreeMap<SessionId, Facts>,
    pub(crate) holds: BTreeMap<usize, Vec<Hold>>,
    pub(crate) entries: BTreeMap<usize, Vec<Entry>>,
    pub(crate) renewals: Vec<Renewal>,
    /// Intervals in which no shard ran.
    pub(crate) process_stalls: Vec<(u64, u64)>,
    /// Intervals in which one shard did not run while others did.
    pub(crate) shard_stalls: Vec<(usize, u64, u64)>,
    storage: BTreeMap<usize, Token>,
    expired_at: BTreeMap<SessionId, u64>,
}

impl Oracle {
    /// Something other than its lease may end a session from now on.
    pub(crate) fn may_end(&mut self, session: SessionId, now: u64) {
        if let Some(facts) = self.sessions.get_mut(&session) {
            facts.may_end_from = facts.may_end_from.min(now);
            facts.revoked_from = facts.revoked_from.min(now);
        }
    }

    /// Somebody was told that a session has ended, in a way that promises it to all.
    pub(crate) fn has_ended(&mut self, session: SessionId, wire: usize, now: u64) {
        if let Some(facts) = self.sessions.get_mut(&session) {
            facts.replaced_on = facts.replaced_on.or(Some(wire));
            facts.ended_by = facts.ended_by.min(now);
        }
    }

    /// The sessions that are or were locks of a name.
    pub(crate) fn locks_of(&self, name: usize) -> impl Iterator<Item = SessionId> {
        let of_name = move |(_, facts): &(_, &Facts)| facts.lock == Some(name);
        self.sessions.iter().filter(of_name).map(|(session, _)| *session)
    }

    /// O5: what is asked behind an opening on its own wire does not meet what the opening replaced.
    pub(crate) fn owner_seen(&self, session: SessionId, wire: usize) -> Result<(), String> {
        match self.sessions.get(&session) {
            Some(facts) if facts.replaced_on == Some(wire) => {
                Err(format!("O5: {session} was replaced on this wire, and owns the name still"))
            }
            _ => Ok(()),
        }
    }

    /// O4: somebody is told that a session has ended.
    pub(crate) fn told_ended(&self, session: SessionId, now: u64) -> Result<(), String> {
        match self.sessions.get(&session) {
            Some(facts) if facts.end_from() > now => Err(format!(
                "O4: {session} is said to have ended; it cannot have before {}",
                facts.end_from()
            )),
            _ => Ok(()),
        }
    }

    /// A renewal was confirmed that was sent at `sent`.
    pub(crate) fn confirmed(&mut self, session: SessionId, sent: u64) {
        if let Some(facts) = self.sessions.get_mut(&session) {
            facts.confirmed = facts.confirmed.max(sent);
        }
    }

    /// A session was resumed with another lease.
    pub(crate) fn has_lease(&mut self, session: SessionId, lease: u64) {
        if let Some(facts) = self.sessions.get_mut(&session) {
            facts.lease = lease;
        }
    }

    /// O2: a client was granted a name. O1 is the caller's, who knows the clients' clocks.
    pub(crate) fn granted(&mut self, name: usize, hold: Hold) -> Result<(), String> {
        let holds = self.holds.entry(name).or_default();
        if let Some(before) =
            holds.iter().find(|h| h.session == hold.session && h.token != hold.token)
        {
            return Err(format!(
                "O2: {} never released name {name}, had token {} and now has {}",
                hold.session, before.token, hold.token
            ));
        }
        match holds.iter_mut().find(|h| (h.session, h.token) == (hold.session, hold.token)) {
            Some(known) => known.wish = known.wish.or(hold.wish),
            None => holds.push(hold),
        }
        Ok(())
    }

    /// A client lets go of a name, whatever comes of its release.
    pub(crate) fn lets_go(&mut self, name: usize, client: usize) {
        if let Some(holds) = self.holds.get_mut(&name) {
            holds.retain(|hold| hold.client != client);
        }
    }

    /// Whoever holds a name does not count on it any more.
    pub(crate) fn all_let_go(&mut self, name: usize) {
        self.holds.remove(&name);
    }

    /// O2: an owner writes to storage that fences by token. `valid`: it counts itself the owner at
    /// this moment; a late write of an owner of the past is refused, and that is all right.
    pub(crate) fn write(&mut self, name: usize, hold: &Hold, valid: bool) -> Result<(), String> {
        let newest = self.storage.entry(name).or_insert(hold.token);
        if *newest > hold.token && valid {
            return Err(format!(
                "O2: storage of name {name} has seen token {newest}; its valid owner {} has {}",
                hold.session, hold.token
            ));
        }
        *newest = (*newest).max(hold.token);
        Ok(())
    }

    /// So many bytes of a wire were handed to its shard by now.
    pub(crate) fn handed(&mut self, wire: usize, bytes: u64, now: u64) {
        let mine = |renewal: &&mut Renewal| renewal.wire == wire && renewal.handed == 0;
        for renewal in self.renewals.iter_mut().filter(mine) {
            if renewal.end <= bytes {
                renewal.handed = now;
            }
        }
    }

    /// O3: the home of a session has let its lease run out.
    pub(crate) fn expired(&mut self, expiry: &Expiry) -> Result<(), String> {
        let Expiry { session, home, now } = *expiry;
        let Some(facts) = self.sessions.get(&session) else { return Ok(()) };
        if facts.may_end_from <= now || self.expired_at.contains_key(&session) {
            return Ok(());
        }
        if facts.lease == 0 {
            return Err(format!("O3: {session} expired, which has no lease"));
        }
        if now < facts.end_from() {
            return Err(format!(
                "O3: {session} expired at {now}, its lease runs until {}",
                facts.end_from()
            ));
        }
        let mut renewals: Vec<&Renewal> =
            self.renewals.iter().filter(|r| r.session == session && r.arrived <= now).collect();
        renewals.sort_by_key(|renewal| renewal.arrived);
        // The earliest moment at which the lease can have run out, renewal by renewal.
        let mut runs_until = facts.confirmed + facts.lease;
        for renewal in renewals {
            let direct = renewal.shard == home && renewal.handed != 0 && renewal.handed <= now;
            // At its home it applies before any expiry of the turn; elsewhere it has to be in time.
            let applied = if direct { renewal.handed } else { renewal.arrived };
            let in_time =
                direct || (renewal.arrived < runs_until && self.was_deliverable(renewal, now));
            if in_time && now < applied + facts.lease {
                return Err(format!(
                    "O3: {session} expired at {now} at shard {home}; a renewal arrived at shard \
                     {} at {} and was handed over at {}; the lease of {} ran until {runs_until}",
                    renewal.shard, renewal.arrived, renewal.handed, facts.lease
                ));
            }
            if in_time {
                runs_until = runs_until.max(applied + facts.lease);
            }
        }
        self.expired_at.insert(session, now);
        Ok(())
    }

    /// A session was gone before anybody looked.
    pub(crate) fn ended_unseen(&mut self, session: SessionId, now: u64) {
        self.expired_at.insert(session, now);
    }

    /// Whether a process that keeps its rules has brought a renewal to its session by now. What
    /// came by way of a shard that stood still alone has not: no other shard can know of it, and
    /// waiting for what such a shard may hold would let nobody expire. The documentation says so.
    fn was_deliverable(&self, renewal: &Renewal, now: u64) -> bool {
        let overlaps = |from: u64, until: u64| from < now && until + HOP > renewal.arrived;
        let one_stalled = self
            .shard_stalls
            .iter()
            .any(|(shard, from, until)| *shard == renewal.shard && overlaps(*from, *until));
        if one_stalled {
            return false;
        }
        let all_stalled = self.process_stalls.iter().any(|(from, until)| overlaps(*from, *until));
        let patience = if all_stalled { STALL_UNSEEN } else { 3 * HOP };
        now >= renewal.arrived + patience
    }

    /// Whether anything has stood still since a moment.
    pub(crate) fn stalled_since(&self, moment: u64) -> bool {
        self.process_stalls.iter().any(|(_, until)| *until + HOP > moment)
            || self.shard_stalls.iter().any(|(_, _, until)| *until + HOP > moment)
    }

    /// Forgets renewals that were not handed over, and will not be, or late by the client's fault.
    pub(crate) fn wire_gone(&mut self, wire: usize) {
        self.renewals.retain(|renewal| renewal.wire != wire || renewal.handed != 0);
    }

    /// Renewals on a wire that the server may close at any moment are not counted on.
    pub(crate) fn wire_disturbed(&mut self, wire: usize) {
        self.renewals.retain(|renewal| renewal.wire != wire);
    }

    /// The process died: so did all sessions of its life, though their clients may count on them
    /// until their leases are over.
    pub(crate) fn life_over(&mut self, life: u32, now: u64) {
        for facts in self.sessions.values_mut().filter(|facts| facts.life == life) {
            facts.may_end_from = facts.may_end_from.min(now);
            if facts.lease == 0 {
                facts.revoked_from = facts.revoked_from.min(now);
            }
        }
        self.renewals.clear();
    }

    /// What the histories need to know of sessions.
    pub(crate) fn ends(&self) -> BTreeMap<SessionId, End> {
        let end = |facts: &Facts| End {
            possible_from: facts.end_from(),
            certain_by: facts.ended_by,
            client: facts.client,
        };
        self.sessions.iter().map(|(session, facts)| (*session, end(facts))).collect()
    }

    /// What was asked of and answered about each name.
    pub(crate) fn print_histories(&self) {
        for (name, entries) in &self.entries {
            entries.iter().for_each(|entry| println!("name {name}: {entry}"));
        }
    }
}
