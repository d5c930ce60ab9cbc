//! Names that several hold, or wait for: who gets a name next, and when.
//!
//! The hard case is a name that becomes free in one of five ways (released, transferred, revoked,
//! expired and swept, expired and found dead before it was swept) while somebody waits for it, has
//! just stopped waiting, or has ended. So there is one way in which a name with a side becomes
//! nobody's ([`Names::free`]), and one that looks who gets it ([`Names::advance`]), in the same
//! step: between the two nobody else can take it.
//!
//! Invariants:
//! - W1  First come, first served: nobody gets a name while somebody who came earlier waits for
//!   it and could have it.
//! - W2  A name with a side that nobody holds has either no side after `advance`, or a waiter who
//!   cannot have it yet for lack of memory or of a persisted epoch; `stuck` tries again.
//! - W3  A wait ends once: by a grant, its time, its cancellation, or its session's end.
//!
//! Bounds: constant time an op, and [`GRANTS_PER_STEP`] grants; claims of ended sessions are
//! stepped over at most once.
//! Not here: how claims are kept (`claims`), how notices travel (`notices`).
//! Tests: `tests/waiting.rs`, whole processes in `tools/sim`.

use alloc::boxed::Box;

use ringway_core::limits::NAME_BYTES_MAX;
use ringway_core::wire::Put;
use ringway_core::{Moment, Region, SessionId, Slot, Token};
use ringway_table::{Grant, Name, Owner, RecordId};

use crate::claims::{Claim, Full, Wish};
use crate::handle::{Bound, Handle};
use crate::names::{FLAG_SIDE, FLAGS_KEPT, Names};
use crate::outcome::Outcome;
use crate::sabotage::Rule;
use crate::sessions::Ticket;
use crate::wire::{push, status};

/// Waiters that get a name in one step, as when many wait to share it; the others follow in the
/// next turns, in order.
pub const GRANTS_PER_STEP: usize = 256;
/// Names that are looked at again in one turn.
const STUCK_PER_TURN: usize = 64;
/// Waits whose time is over that are ended in one turn.
const TIMED_OUT_PER_TURN: usize = 1024;
/// A wish to wait.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// Until when; `None` is for ever.
    pub until: Option<Moment>,
    /// The op that is answered when the wait ends. Without one the session gets a notice.
    pub reply: Option<Ticket>,
}

/// How a name is held at the moment.
pub(crate) enum Held {
    /// By nobody, and nobody waits.
    Free,
    /// By one live session alone.
    Alone(RecordId, Grant, SessionId),
    /// By the holders of a side, or by nobody yet though somebody waits.
    Together(RecordId, u32),
}

impl<R: Region> Names<R> {
    /// Claims a name in any mode, or waits for it. `who` is a session, and the flags of the record
    /// if it gets the name alone.
    #[inline(never)]
    pub fn claim(
        &mut self,
        now: Moment,
        (hash, name): (u64, &Name<'_>),
        who: (Bound, u8),
        (wish, wait): (Wish, Option<Wait>),
    ) -> Outcome {
        let by = who.0;
        if !self.is_live(by) {
            return Outcome::plain(status::NOSESSION);
        }
        match self.held(hash, name) {
            Held::Free if now < self.grants_from() => Outcome::plain(status::STARTING),
            Held::Free if wish == Wish::EXCLUSIVE => self.grant_free(hash, name, who),
            Held::Free => self.grant_first(hash, name, by, wish),
            Held::Alone(_, grant, session) if grant.owner == by.handle.owner() => {
                if wish != Wish::EXCLUSIVE {
                    return Outcome::plain(status::MODE);
                }
                Outcome::owner(status::GRANTED_EPHEMERAL, session, self.token(&grant))
            }
            Held::Alone(id, grant, session) => match wait {
                Some(wait) => self.queue(now, id, (by, wish), wait),
                None if wish != Wish::EXCLUSIVE => Outcome::plain(status::MODE),
                None => Outcome::owner(status::HELD, session, self.token(&grant)),
            },
            Held::Together(id, side) => self.join(now, (id, side), by, (wish, wait)),
        }
    }

    /// Claims a name that others share, or wait for.
    fn join(
        &mut self,
        now: Moment,
        (id, side): (RecordId, u32),
        by: Bound,
        (wish, wait): (Wish, Option<Wait>),
    ) -> Outcome {
        let holds = self.claims.side(side).wish();
        if let Some(token) = self.token_in(side, by.handle) {
            let fits = holds == wish;
            let granted = Outcome::owner(status::GRANTED_EPHEMERAL, by.session, token);
            return if fits { granted } else { Outcome::plain(status::MODE) };
        }
        let holders = self.live_holders(side);
        let awaited = self.first_live_waiter(side).is_some();
        let overtakes = awaited && !self.sabotage.breaks(Rule::WritersNotStarved);
        let room = wish.has_room(holders) || self.sabotage.breaks(Rule::PermitsCounted);
        if !overtakes && holders > 0 && holds == wish && room {
            return self.add_holder(id, side, by);
        }
        match (wait, self.first_holder(side)) {
            (Some(wait), _) => self.queue(now, id, (by, wish), wait),
            (None, None) => Outcome::plain(status::BUSY),
            (None, Some(_)) if holds != wish => Outcome::plain(status::MODE),
            (None, Some((holder, token))) => Outcome::owner(status::HELD, holder, token),
        }
    }

    /// The first grant of a free name that several may hold.
    fn grant_first(&mut self, hash: u64, name: &Name<'_>, by: Bound, wish: Wish) -> Outcome {
        let before = self.table.find(hash, name).map(|(id, grant)| {
            // Its owner has ended, and was not swept yet.
            let session = SessionId(self.session_at(Handle::from_bits(grant.owner.0)));
            self.lose(grant.owner);
            self.remove(id);
            (session, self.token(&grant))
        });
        let outcome = self.grant_new(hash, name, by, wish);
        if outcome.status != status::GRANTED_EPHEMERAL
            && let Some(before) = before
            && !self.feeds.is_empty()
        {
            let mut bytes = [0; NAME_BYTES_MAX];
            let len = name.copy_to(&mut bytes);
            self.feeds.released(&bytes[..len], before);
        }
        outcome
    }

    /// The first grant of a name that has no record.
    fn grant_new(&mut self, hash: u64, name: &Name<'_>, by: Bound, wish: Wish) -> Outcome {
        let counted = match self.count(name) {
            Ok(counted) => counted,
            Err(status) => return Outcome::plain(status),
        };
        let (sequence, epoch_index, flags) = (0, 0, FLAG_SIDE | counted);
        let nobody = Grant { owner: Owner::NOBODY, sequence, epoch_index, flags };
        let Ok(id) = self.table.insert_unowned(hash, name, nobody) else {
            if counted != 0 {
                self.discount(name);
            }
            return Outcome::plain(status::FULL);
        };
        let Ok(side) = self.claims.make_side(id.number()) else {
            self.remove(id);
            return Outcome::plain(status::FULL);
        };
        self.claims.set_wish(side, wish);
        let outcome = self.add_holder(id, side, by);
        if outcome.status != status::GRANTED_EPHEMERAL {
            self.advance(id);
        }
        outcome
    }

    /// One more holds a name together with others.
    pub(crate) fn add_holder(&mut self, id: RecordId, side: u32, by: Bound) -> Outcome {
        let slot = self.slot_of_record(id);
        let Some(sequence) = self.next_sequence(slot) else {
            return Outcome::plain(status::BUSY);
        };
        let (wish, value) = (self.claims.side(side).wish(), self.value_of(sequence));
        let mirror = &mut self.mirrors[by.handle.home().index()][by.handle.local()];
        let place = (side, by.handle);
        match self.claims.add(place, &mut mirror.claims, (wish, false), value) {
            Ok(_) => {
                mirror.gain_share();
                self.take_sequence((slot, sequence), id, by.handle);
                Outcome::owner(status::GRANTED_EPHEMERAL, by.session, self.token_of(value))
            }
            Err(Full) => Outcome::plain(status::FULL),
        }
    }

    /// Puts a session behind the others who wait; it keeps its place if it waits already.
    fn queue(
        &mut self,
        now: Moment,
        id: RecordId,
        (by, wish): (Bound, Wish),
        wait: Wait,
    ) -> Outcome {
        let Ok(side) = self.claims.make_side(id.number()) else {
            return Outcome::plain(status::FULL);
        };
        let grant = self.table.grant(id);
        self.table.update(id, Grant { flags: grant.flags | FLAG_SIDE, ..grant });
        let added = match self.claims.of_session(side, by.handle) {
            None => self.add_waiter(now, side, (by, wish), wait),
            Some(claim) if wait.reply.is_none() => Ok(claim),
            // Who is answered instead of the first does not wait longer than it said.
            Some(claim) => self.set_deadline(claim, wait.until).map(|()| claim),
        };
        let claim = match added {
            Ok(claim) => claim,
            Err(Full) => {
                self.left(id, side);
                return Outcome::plain(status::FULL);
            }
        };
        let holder = self.shown(id, &grant).map_or(SessionId(0), |(session, _)| session);
        let ticket = Token(self.claims.ticket(claim));
        let Some(reply) = wait.reply else {
            return Outcome::owner(status::QUEUED, holder, ticket);
        };
        // Who asks again, on another connection perhaps, hears instead of the first.
        if let Some(before) = self.claims.claim_mut(claim).reply.replace(Box::new(reply)) {
            self.answers.push((*before, Outcome::plain(status::FREE)));
        }
        Outcome::LATER
    }

    fn add_waiter(
        &mut self,
        now: Moment,
        side: u32,
        (by, wish): (Bound, Wish),
        wait: Wait,
    ) -> Result<u32, Full> {
        let mirror = &mut self.mirrors[by.handle.home().index()][by.handle.local()];
        let place = (side, by.handle);
        let claim = self.claims.add(place, &mut mirror.claims, (wish, true), now.0)?;
        if self.set_deadline(claim, wait.until) == Err(Full) {
            self.drop_claim(claim);
            return Err(Full);
        }
        if !self.feeds.is_empty() {
            self.tell_waiting(side);
        }
        Ok(claim)
    }

    /// When a wait ends, whatever was said before. Nothing is changed if there is no memory for it.
    fn set_deadline(&mut self, claim: u32, until: Option<Moment>) -> Result<(), Full> {
        if let Some(timer) = self.claims.take_timer(claim) {
            self.waits.cancel(timer);
        }
        if let Some(until) = until {
            self.claims.charge_timer()?;
            self.claims.claim_mut(claim).timer = Some(self.waits.insert(until, claim));
        }
        Ok(())
    }

    /// Who wants no longer what it waits for. `OK`; or `GRANTED`, if the grant was faster.
    pub fn cancel(&mut self, (hash, name): (u64, &Name<'_>), by: Bound, ticket: u64) -> Outcome {
        if !self.is_live(by) {
            return Outcome::plain(status::NOSESSION);
        }
        let held = self.held(hash, name);
        if let Held::Alone(id, ..) | Held::Together(id, _) = held
            && let Some(claim) = self.claims.of_ticket(ticket)
            && let side = self.claims.claim(claim).side()
            && self.claims.record_of(side) == id.number()
            && self.claims.claim(claim).session() == by.handle
            && self.claims.claim(claim).waits()
        {
            if self.sabotage.breaks(Rule::CancelEndsTheWait) {
                return Outcome::plain(status::OK);
            }
            let gone = self.drop_claim(claim);
            if let Some(reply) = gone.reply {
                self.answers.push((*reply, Outcome::plain(status::FREE)));
            }
            self.left(id, side);
            return Outcome::plain(status::OK);
        }
        let token = match held {
            Held::Alone(_, grant, _) if grant.owner == by.handle.owner() => {
                Some(self.token(&grant))
            }
            Held::Together(_, side) => self.token_in(side, by.handle),
            _ => None,
        };
        token.map_or(Outcome::plain(status::NOTOWNER), |token| {
            Outcome::owner(status::GRANTED_EPHEMERAL, by.session, token)
        })
    }

    /// Ends waits whose time is over. Returns whether more are due.
    pub fn time_out(&mut self, now: Moment) -> bool {
        for _ in 0..TIMED_OUT_PER_TURN {
            if self.sabotage.breaks(Rule::WaitsEndInTime) {
                return false;
            }
            let Some(claim) = self.waits.pop(now) else { return false };
            let (ticket, side) = (self.claims.ticket(claim), self.claims.claim(claim).side());
            let id = RecordId::from_number(self.claims.record_of(side));
            let gone = self.drop_claim(claim);
            let to = self.bound_at(gone.session());
            match (gone.reply, to) {
                (Some(reply), _) => self.answers.push((*reply, Outcome::plain(status::FREE))),
                (None, Some(to)) => {
                    let (name, len) = self.name_of(id);
                    self.notices.add(to, push::WAIT_ENDED, |out| {
                        out.put_u64(ticket);
                        out.put_u8(push::WAIT_TIMED_OUT);
                        out.extend_from_slice(&name[..len]);
                    });
                }
                (None, None) => {}
            }
            self.left(id, side);
        }
        true
    }

    /// Looks again at names that could not be handed over, or whose waiters were too many.
    pub fn advance_stuck(&mut self) {
        for _ in 0..STUCK_PER_TURN.min(self.stuck.len()) {
            let Some(record) = self.stuck.pop_front() else { return };
            let Some(side) = self.claims.of_record(record) else { continue };
            self.claims.set_stuck(side, false);
            let id = RecordId::from_number(record);
            if self.table.grant(id).owner == Owner::NOBODY {
                self.advance(id);
            }
        }
    }

    /// Whether some of those wait for nothing but the next turn.
    pub fn is_hurried(&mut self) -> bool {
        core::mem::take(&mut self.hurried)
    }

    /// When [`Self::time_out`] has to be called next.
    pub fn wake_at(&self) -> Option<Moment> {
        self.waits.wake_at()
    }

    /// Takes claims off a session that has ended, at most `budget`; the number taken.
    pub(crate) fn sweep_claims(&mut self, session: Handle, budget: usize) -> usize {
        for taken in 0..budget {
            let claim = self.mirrors[session.home().index()][session.local()].claims;
            if claim == 0 {
                return taken;
            }
            let side = self.claims.claim(claim).side();
            let id = RecordId::from_number(self.claims.record_of(side));
            self.bury(claim);
            self.left(id, side);
        }
        budget
    }

    /// How a name is held, after whoever has ended has made way for whoever waits.
    pub(crate) fn held(&mut self, hash: u64, name: &Name<'_>) -> Held {
        let Some((id, grant)) = self.table.find(hash, name) else { return Held::Free };
        if let Some(session) = self.session_of(grant.owner) {
            return Held::Alone(id, grant, session);
        }
        if grant.flags & FLAG_SIDE == 0 {
            return Held::Free;
        }
        if grant.owner != Owner::NOBODY {
            let session = SessionId(self.session_at(Handle::from_bits(grant.owner.0)));
            self.lose(grant.owner);
            self.table.disown(id, None);
            self.freed_by(id, (session, self.token(&grant)));
        } else if self.claims.of_record(id.number()).is_some_and(|at| self.live_holders(at) == 0) {
            self.freed(id);
        } else if !self.ending.is_empty() && !self.sabotage.breaks(Rule::DeadMakeRoom) {
            // Whoever has ended and is dropped here is not swept here: those behind it are served
            // now or by nobody.
            self.advance(id);
        }
        let Some((id, grant)) = self.table.find(hash, name) else { return Held::Free };
        match (self.session_of(grant.owner), self.claims.of_record(id.number())) {
            (Some(session), _) => Held::Alone(id, grant, session),
            (None, Some(side)) => Held::Together(id, side),
            (None, None) => unreachable!("C1: nobody's record has a side"),
        }
    }

    /// A name with a side is nobody's since this moment: what its owner made of it, as a lock, is
    /// over as well.
    pub(crate) fn freed(&mut self, id: RecordId) {
        if let Some(side) = self.claims.of_record(id.number()) {
            let grant = self.table.grant(id);
            self.table.update(id, Grant { flags: grant.flags & FLAGS_KEPT, ..grant });
            if self.sabotage.breaks(Rule::HandOverAtOnce) {
                return self.stick(id, side);
            }
            self.advance(id);
        }
    }

    /// W1, W2: gives a name that is nobody's, or shared, to those who wait first and may have it.
    fn advance(&mut self, id: RecordId) {
        let Some(side) = self.claims.of_record(id.number()) else { return };
        for _ in 0..GRANTS_PER_STEP {
            let holders = self.live_holders(side);
            if holders == 0 {
                // The last of those who shared it has left: the next grant begins with nothing.
                self.claims.clear_meta(side);
            }
            let Some(mut claim) = self.first_live_waiter(side) else {
                if holders == 0 {
                    self.claims.drop_if_needless(side);
                    self.remove(id);
                }
                return;
            };
            while self.sabotage.breaks(Rule::FirstComeFirstServed)
                && let Some(behind) = self.claims.next(claim)
            {
                claim = behind;
            }
            let wish = self.claims.claim(claim).wish;
            let fits = self.claims.side(side).wish() == wish && wish.has_room(holders);
            if holders > 0 && !fits {
                return;
            }
            let done = if wish == Wish::EXCLUSIVE {
                self.hand_over(id, side, claim)
            } else {
                self.claims.set_wish(side, wish);
                self.share(id, side, claim)
            };
            match done {
                Some(()) if wish == Wish::EXCLUSIVE => return,
                Some(()) => {}
                None => return self.stick(id, side),
            }
        }
        self.hurried = true;
        self.stick(id, side);
    }

    fn stick(&mut self, id: RecordId, side: u32) {
        if self.claims.set_stuck(side, true) {
            self.stuck.push_back(id.number());
        }
    }

    /// The name is the waiter's alone. `None` if there is no memory or no sequence for that now.
    fn hand_over(&mut self, id: RecordId, side: u32, claim: u32) -> Option<()> {
        let slot = self.slot_of_record(id);
        let sequence = self.next_sequence(slot)?;
        let handle = self.claims.claim(claim).session();
        let (owner, epoch_index) = (handle.owner(), self.epoch_index());
        let flags = self.table.grant(id).flags & FLAGS_KEPT;
        let grant = Grant { owner, sequence, epoch_index, flags };
        let mirror = &mut self.mirrors[handle.home().index()][handle.local()];
        self.table.replace(id, grant, &mut mirror.log).ok()?;
        let ticket = self.claims.ticket(claim);
        let gone = self.drop_claim(claim);
        self.take_sequence((slot, sequence), id, handle);
        self.tell_granted(id, handle, (ticket, self.token(&grant)), (gone.wish, gone.reply));
        self.tidy(id, side);
        Some(())
    }

    /// The waiter holds the name together with others.
    fn share(&mut self, id: RecordId, side: u32, claim: u32) -> Option<()> {
        let slot = self.slot_of_record(id);
        let sequence = self.next_sequence(slot)?;
        let value = self.value_of(sequence);
        if let Some(timer) = self.claims.take_timer(claim) {
            self.waits.cancel(timer);
        }
        let ticket = self.claims.ticket(claim);
        let reply = self.claims.claim_mut(claim).reply.take();
        self.claims.make_holder(claim, value);
        let handle = self.claims.claim(claim).session();
        self.take_sequence((slot, sequence), id, handle);
        if !self.feeds.is_empty() {
            self.tell_waiting(side);
        }
        self.mirrors[handle.home().index()][handle.local()].gain_share();
        let wish = self.claims.side(side).wish();
        self.tell_granted(id, handle, (ticket, self.token_of(value)), (wish, reply));
        Some(())
    }

    /// Whoever waited hears that it has the name.
    pub(crate) fn tell_granted(
        &mut self,
        id: RecordId,
        to: Handle,
        (ticket, token): (u64, Token),
        (wish, reply): (Wish, Option<Box<Ticket>>),
    ) {
        let Some(to) = self.bound_at(to) else { return };
        if let Some(reply) = reply {
            if self.sabotage.breaks(Rule::BlockedAreAnswered) {
                return;
            }
            let granted = Outcome::owner(status::GRANTED_EPHEMERAL, to.session, token);
            return self.answers.push((*reply, granted));
        }
        let (name, len) = self.name_of(id);
        self.notices.add(to, push::GRANTED, |out| {
            out.put_u64(ticket);
            out.put_u64(token.0);
            out.put_u8(wish.mode);
            out.extend_from_slice(&name[..len]);
        });
    }

    /// A claim is gone from a name: whoever is behind it may be next, or nobody is left.
    pub(crate) fn left(&mut self, id: RecordId, side: u32) {
        if self.table.grant(id).owner == Owner::NOBODY {
            self.advance(id);
        } else {
            self.tidy(id, side);
        }
    }

    /// C1: a name that one session holds alone has no side that nobody needs.
    pub(crate) fn tidy(&mut self, id: RecordId, side: u32) {
        if self.claims.drop_if_needless(side) {
            let grant = self.table.grant(id);
            self.table.update(id, Grant { flags: grant.flags & !FLAG_SIDE, ..grant });
        }
    }

    /// Removes a claim, and its timer.
    pub(crate) fn drop_claim(&mut self, claim: u32) -> Claim {
        if let Some(timer) = self.claims.take_timer(claim) {
            self.waits.cancel(timer);
        }
        let handle = self.claims.claim(claim).session();
        let mirror = &mut self.mirrors[handle.home().index()][handle.local()];
        let gone = self.claims.remove(claim, &mut mirror.claims);
        if !gone.waits() {
            mirror.lose_share();
        }
        if !self.feeds.is_empty() {
            match gone.waits() {
                true => self.tell_waiting(gone.side()),
                false => self.tell_left(gone.side(), handle, self.token_of(gone.value)),
            }
        }
        gone
    }

    /// Removes a claim of a session that has ended.
    fn bury(&mut self, claim: u32) {
        if let Some(reply) = self.drop_claim(claim).reply {
            self.answers.push((*reply, Outcome::plain(status::NOSESSION)));
        }
    }

    /// The first who waits and lives. The dead before it are dropped.
    pub(crate) fn first_live_waiter(&mut self, side: u32) -> Option<u32> {
        loop {
            let claim = self.claims.first_waiter(side)?;
            let lives = self.session_of(self.claims.claim(claim).session().owner()).is_some();
            if lives || self.sabotage.breaks(Rule::DeadWaitersSkipped) {
                return Some(claim);
            }
            self.bury(claim);
        }
    }

    /// How many hold a name with a side: none, if and only if no live session does; and of permits
    /// exactly how many are given. Holders of whom it matters that they have ended are dropped.
    pub(crate) fn live_holders(&mut self, side: u32) -> u32 {
        let Wish { permits, .. } = self.claims.side(side).wish();
        if permits > 0 && self.claims.side(side).holders() >= permits && !self.ending.is_empty() {
            self.drop_ended_holders(side);
        }
        while let Some(claim) = self.claims.first_holder(side)
            && self.session_of(self.claims.claim(claim).session().owner()).is_none()
        {
            self.drop_claim(claim);
        }
        self.claims.side(side).holders()
    }

    /// Drops holders that have ended and are not swept yet. Of each name every such session is
    /// looked up once, however many hold the name and however often it is asked for.
    fn drop_ended_holders(&mut self, side: u32) {
        let new = self.claims.look(side, self.ends).min(self.ending.len() as u64) as usize;
        for at in self.ending.len() - new..self.ending.len() {
            let claim = self.claims.of_session(side, self.ending[at]);
            if let Some(claim) = claim.filter(|claim| !self.claims.claim(*claim).waits()) {
                self.drop_claim(claim);
            }
        }
    }

    /// The live session that holds a shared name longest, and its token.
    fn first_holder(&self, side: u32) -> Option<(SessionId, Token)> {
        self.holders_of(side).next()
    }

    /// Whom a name is shown to belong to: its owner, or of several the one who holds it longest.
    pub(crate) fn shown(&self, id: RecordId, grant: &Grant) -> Option<(SessionId, Token)> {
        if let Some(session) = self.session_of(grant.owner) {
            return Some((session, self.token(grant)));
        }
        let sided = grant.owner == Owner::NOBODY && grant.flags & FLAG_SIDE != 0;
        let side = sided.then(|| self.claims.of_record(id.number()))??;
        self.first_holder(side)
    }

    /// The token under which a session holds a name together with others.
    pub(crate) fn token_in(&self, side: u32, session: Handle) -> Option<Token> {
        let claim = self.claims.claim(self.claims.of_session(side, session)?);
        (!claim.waits()).then(|| self.token_of(claim.value))
    }

    /// The name of a record.
    pub(crate) fn name_of(&self, id: RecordId) -> ([u8; NAME_BYTES_MAX], usize) {
        let mut name = [0; NAME_BYTES_MAX];
        let len = self.table.name_into(id, &mut name);
        (name, len)
    }

    pub(crate) fn slot_of_record(&self, id: RecordId) -> Slot {
        let (name, len) = self.name_of(id);
        Slot::of(&name[..len])
    }
}
