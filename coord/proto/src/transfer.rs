//! Names that go from one session to another, or are taken away: TRANSFER, REVOKE, and what an
//! owner says about a name.
//!
//! Always: the new owner has a larger token than the old one from the same step on, so whoever
//! compares tokens refuses the old one; metadata belongs to a grant and does not go along; those
//! who wait keep their places behind the new owner.
//!
//! Bounds: constant time, but for REVOKE of a shared name, which takes it from [`REVOKED_PER_OP`]
//! holders and answers `BUSY` if there are more.
//! Tests: `tests/transfer.rs`, `tests/metadata.rs`.

use ringway_core::wire::Put;
use ringway_core::{Region, SessionId, Token};
use ringway_table::{Grant, Name, RecordId};

use crate::claims::{Full, Wish};
use crate::handle::{Bound, Handle};
use crate::names::{FLAG_LOCK, FLAG_SIDE, FLAGS_KEPT, Names};
use crate::outcome::Outcome;
use crate::sabotage::Rule;
use crate::waiting::Held;
use crate::wire::{push, status};

/// Holders from whom one REVOKE takes a shared name.
pub const REVOKED_PER_OP: usize = 1024;

/// What is asked of SET_META.
#[derive(Clone, Copy, Debug)]
pub struct MetaAsk<'a> {
    /// Who holds the name.
    pub by: Bound,
    /// The version that it must have.
    pub version: Option<u32>,
    /// What is set.
    pub bytes: &'a [u8],
}

/// A name that is held, and what is said about it.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    /// Its owner, or of several the one who holds it longest.
    pub session: SessionId,
    /// Under this token.
    pub token: Token,
    /// How often metadata was set; zero: never.
    pub version: u32,
    /// The metadata.
    pub bytes: &'a [u8],
}

impl<R: Region> Names<R> {
    /// Gives a name of a session to another session.
    pub fn transfer(
        &mut self,
        (hash, name): (u64, &Name<'_>),
        by: Bound,
        (to, token): (SessionId, Option<Token>),
    ) -> Outcome {
        if !self.is_live(by) {
            return Outcome::plain(status::NOSESSION);
        }
        let held = self.held(hash, name);
        let mine = match held {
            Held::Alone(_, grant, _) if grant.owner == by.handle.owner() => {
                Some(self.token(&grant))
            }
            Held::Together(_, side) => self.token_in(side, by.handle),
            _ => None,
        };
        let Some(mine) = mine.filter(|mine| token.is_none_or(|token| token == *mine)) else {
            return Outcome::plain(status::NOTOWNER);
        };
        let Some(to) = self.bound_of(to).filter(|to| self.reaches(by, *to)) else {
            return Outcome::plain(status::NOSESSION);
        };
        if to == by {
            return Outcome::owner(status::GRANTED_EPHEMERAL, by.session, mine);
        }
        match held {
            Held::Alone(id, ..) => self.give(id, to, by.session),
            Held::Together(id, side) => self.give_share(id, side, (by, to)),
            Held::Free => unreachable!("a name that is mine is not free"),
        }
    }

    /// Takes a name from whoever holds it: it goes to `to`, or to whoever waits, or is free.
    pub fn revoke(&mut self, (hash, name): (u64, &Name<'_>), to: Option<SessionId>) -> Outcome {
        let target = match to.map(|to| self.bound_of(to)) {
            Some(None) => return Outcome::plain(status::NOSESSION),
            Some(Some(to)) => Some(to),
            None => None,
        };
        match self.held(hash, name) {
            Held::Free => Outcome::plain(status::FREE),
            Held::Alone(id, grant, session) => self.revoke_alone((id, grant, session), target),
            Held::Together(..) if target.is_some() => Outcome::plain(status::MODE),
            Held::Together(id, side) => self.revoke_shares(id, side),
        }
    }

    fn revoke_alone(
        &mut self,
        (id, grant, session): (RecordId, Grant, SessionId),
        target: Option<Bound>,
    ) -> Outcome {
        let token = self.token(&grant);
        if target.is_some_and(|to| to.session == session) {
            return Outcome::owner(status::GRANTED_EPHEMERAL, session, token);
        }
        let from = Bound { handle: Handle::from_bits(grant.owner.0), session };
        let (name, len) = self.name_of(id);
        let outcome = match target {
            Some(to) => self.give(id, to, SessionId(0)),
            None => {
                self.give_up(id, from);
                Outcome::plain(status::OK)
            }
        };
        if !outcome.is_error() && grant.flags & FLAG_LOCK == 0 {
            self.tell_lost((from, token), target, &name[..len]);
        }
        outcome
    }

    fn revoke_shares(&mut self, id: RecordId, side: u32) -> Outcome {
        let (name, len) = self.name_of(id);
        for _ in 0..REVOKED_PER_OP {
            let Some(claim) = self.claims.first_holder(side) else { break };
            let gone = self.drop_claim(claim);
            if let Some(from) = self.bound_at(gone.session()) {
                self.tell_lost((from, self.token_of(gone.value)), None, &name[..len]);
            }
        }
        if self.claims.side(side).holders() > 0 {
            return Outcome::plain(status::BUSY);
        }
        self.freed(id);
        Outcome::plain(status::OK)
    }

    /// A session that holds a name alone has it no longer.
    pub(crate) fn give_up(&mut self, id: RecordId, by: Bound) {
        let token = self.token(&self.table.grant(id));
        let is_plain = self.claims.of_record(id.number()).is_none();
        if is_plain {
            self.discount_record(id);
            if !self.feeds.is_empty() {
                self.tell_released(id, (by.session, token));
            }
        }
        let log = &mut self.mirrors[by.handle.home().index()][by.handle.local()].log;
        if is_plain {
            return self.table.remove(id, self.table.hash_of(id), Some(log));
        }
        self.table.disown(id, Some(log));
        self.freed_by(id, (by.session, token));
    }

    /// A name that one session holds alone goes to another.
    fn give(&mut self, id: RecordId, to: Bound, from: SessionId) -> Outcome {
        let slot = self.slot_of_record(id);
        let before = self.table.grant(id);
        let Some(sequence) = self.next_sequence(slot) else {
            return Outcome::plain(status::BUSY);
        };
        let same = self.sabotage.breaks(Rule::TransferTakesANewToken);
        let sequence = if same { before.sequence } else { sequence };
        let (owner, epoch_index) = (to.handle.owner(), self.epoch_index());
        let flags = before.flags & FLAGS_KEPT;
        let grant = Grant { owner, sequence, epoch_index, flags };
        let log = &mut self.mirrors[to.handle.home().index()][to.handle.local()].log;
        if self.table.replace(id, grant, log).is_err() {
            return Outcome::plain(status::FULL);
        }
        self.lose(before.owner);
        self.take_sequence((slot, sequence), id, to.handle);
        let token = self.token(&grant);
        let side = self.claims.of_record(id.number());
        let waited = side.and_then(|side| self.claims.of_session(side, to.handle));
        self.tell_received(id, to, (token, from), (Wish::EXCLUSIVE, waited));
        if let Some(side) = side {
            if !self.sabotage.breaks(Rule::MetaGoesWithTheGrant) {
                self.claims.clear_meta(side);
            }
            self.tidy(id, side);
        }
        Outcome::owner(status::GRANTED_EPHEMERAL, to.session, token)
    }

    /// One of several who hold a name gives its part to another session.
    fn give_share(&mut self, id: RecordId, side: u32, (by, to): (Bound, Bound)) -> Outcome {
        if let Some(token) = self.token_in(side, to.handle) {
            return Outcome::owner(status::HELD, to.session, token);
        }
        let slot = self.slot_of_record(id);
        let Some(sequence) = self.next_sequence(slot) else {
            return Outcome::plain(status::BUSY);
        };
        let Some(mine) = self.claims.of_session(side, by.handle) else {
            return Outcome::plain(status::NOTOWNER);
        };
        let waited = self.claims.of_session(side, to.handle);
        let value = self.value_of(sequence);
        let token = self.token_of(value);
        let wish = self.claims.side(side).wish();
        self.tell_received(id, to, (token, by.session), (wish, waited));
        // Its own claim makes room for the new one: there is memory for it.
        self.drop_claim(mine);
        let mirror = &mut self.mirrors[to.handle.home().index()][to.handle.local()];
        let place = (side, to.handle);
        let added = self.claims.add(place, &mut mirror.claims, (wish, false), value);
        assert!(added != Err(Full), "as much as was given back");
        mirror.gain_share();
        self.take_sequence((slot, sequence), id, to.handle);
        // Whoever waited behind the new holder may be the first now, and share the name.
        self.left(id, side);
        Outcome::owner(status::GRANTED_EPHEMERAL, to.session, token)
    }

    /// The new owner hears of it: as the end of its wait, if it waited for the name. What it has is
    /// what the old owner had, whatever it waited for.
    fn tell_received(
        &mut self,
        id: RecordId,
        to: Bound,
        (token, from): (Token, SessionId),
        (wish, waited): (Wish, Option<u32>),
    ) {
        if let Some(claim) = waited {
            let ticket = self.claims.ticket(claim);
            let gone = self.drop_claim(claim);
            let grant = (ticket, token);
            return self.tell_granted(id, to.handle, grant, (wish, gone.reply));
        }
        let (name, len) = self.name_of(id);
        self.notices.add(to, push::RECEIVED, |out| {
            out.put_u64(token.0);
            out.put_u64(from.0);
            out.extend_from_slice(&name[..len]);
        });
    }

    fn tell_lost(&mut self, (from, token): (Bound, Token), to: Option<Bound>, name: &[u8]) {
        let reason = if to.is_some() { push::LOST_TRANSFERRED } else { push::LOST_REVOKED };
        self.notices.add(from, push::LOST, |out| {
            out.put_u64(token.0);
            out.put_u64(to.map_or(0, |to| to.session.0));
            out.put_u8(reason);
            out.extend_from_slice(name);
        });
    }

    /// Who holds a name, and what is said about it.
    pub fn meta(&mut self, hash: u64, name: &Name<'_>) -> Option<Described<'_>> {
        let (id, side) = match self.held(hash, name) {
            Held::Free => return None,
            Held::Alone(id, ..) => (id, self.claims.of_record(id.number())),
            Held::Together(id, side) => (id, Some(side)),
        };
        let (session, token) = self.shown(id, &self.table.grant(id))?;
        let (version, bytes) = side.map_or((0, &[][..]), |side| self.claims.side(side).meta());
        Some(Described { session, token, version, bytes })
    }

    /// Sets what is said about a name; its new version. `CONFLICT` if it has not the version that
    /// is asked for.
    pub fn set_meta(
        &mut self,
        (hash, name): (u64, &Name<'_>),
        ask: &MetaAsk<'_>,
    ) -> Result<u32, u8> {
        if !self.is_live(ask.by) {
            return Err(status::NOSESSION);
        }
        let (id, mine) = match self.held(hash, name) {
            Held::Alone(id, grant, _) => (id, grant.owner == ask.by.handle.owner()),
            Held::Together(id, side) => (id, self.token_in(side, ask.by.handle).is_some()),
            Held::Free => return Err(status::NOTOWNER),
        };
        let grant = self.table.grant(id);
        // A lock has a value, and no client that speaks of metadata.
        if !mine || grant.flags & FLAG_LOCK != 0 {
            return Err(status::NOTOWNER);
        }
        let has = self.claims.of_record(id.number()).map_or(0, |at| self.claims.side(at).meta().0);
        if ask.version.is_some_and(|version| version != has) {
            return Err(status::CONFLICT);
        }
        let side = self.claims.make_side(id.number()).map_err(|Full| status::FULL)?;
        self.table.update(id, Grant { flags: grant.flags | FLAG_SIDE, ..grant });
        let version = self.claims.set_meta(side, ask.bytes).map_err(|Full| {
            self.tidy(id, side);
            status::FULL
        })?;
        if !self.feeds.is_empty() {
            self.tell_changed(id, version);
        }
        Ok(version)
    }
}
