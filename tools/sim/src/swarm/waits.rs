//! Clients that share names, wait for them and hand them on, and what they are told of it.
//!
//! A wait is known by its ticket from the moment at which its client reads it. The notice that
//! ends it may be read before that, on another connection; then it is kept until the ticket is.
//!
//! Invariants checked here on top of the oracle's:
//! - W1  A ticket belongs to one session, and its wait ends once: by a grant, by its time, or by a
//!   cancellation that was confirmed.
//! - W2  A wait is not over before its time.
//! - W3  Nobody is told of what nobody did: of a transfer or a revocation that was never asked for.
//! - W4  Who waits, and whom nothing can have ended, is known by its ticket.
//! - W5  Names go to sessions of the same principal only, unless the giver sees all names.
//!
//! Not here: whether anybody was overtaken (`queue.rs`), who waits in the end (`rest.rs`).

use std::collections::BTreeMap;

use ringway_coord_proto::claims::Wish;
use ringway_coord_proto::wire::{op, push, put_op, status};
use ringway_core::wire::{Put, Reader, Truncated};
use ringway_core::{SessionId, Token};

use super::client::{Asked, Sent};
use super::history::{Entry, Seen, Verb};
use super::oracle::Hold;
use super::queue::Waited;
use super::rest::Queue;
use super::world::{Judged, World};
use crate::stream::Got;

/// A life of the process, a name, and the ticket of a wait for it.
pub(crate) type WaitKey = (u32, usize, u64);

/// A wait, as its client knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) client: usize,
    pub(crate) session: SessionId,
    /// The wire and the number of the first request that was answered with the ticket.
    place: (usize, u64),
    /// When that was sent, and when its answer was read.
    pub(crate) call: u64,
    pub(crate) ret: u64,
    /// When the last request was sent that found it waiting.
    pub(crate) until: u64,
    /// When its client first sent a cancellation.
    cancelled: u64,
    /// How many it has sent: one may overtake another.
    cancels: u32,
    /// When its client heard of its end.
    pub(crate) over: Option<u64>,
    granted: Option<Token>,
}

/// A request to wait.
#[derive(Clone, Copy, Debug)]
struct Ask {
    number: u64,
    call: u64,
    ret: u64,
    ns: u64,
    wish: Wish,
}

/// A name that was given, or is to be, to a session by somebody else.
#[derive(Clone, Copy, Debug)]
struct Gift {
    name: usize,
    to: SessionId,
    at: u64,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug)]
enum Ended {
    Granted(Token, u8),
    TimedOut,
}

/// All waits of a run.
#[derive(Default)]
pub(crate) struct Waits {
    pub(crate) known: BTreeMap<WaitKey, Wait>,
    /// Ends whose tickets were not read yet: who was told, and when.
    early: BTreeMap<WaitKey, (usize, u64, Ended)>,
    /// Requests to wait, by client and name.
    asks: BTreeMap<(usize, usize), Vec<Ask>>,
    gifts: Vec<Gift>,
    /// What an observer saw of names at rest.
    pub(crate) at_rest: BTreeMap<usize, (Queue, u64)>,
}

impl Waits {
    /// What is known of all who waited for a name.
    pub(crate) fn of_name(&self, name: usize) -> Vec<Waited> {
        let of_name = self.known.iter().filter(|((_, of, _), _)| *of == name);
        let waited = |(_, wait): (&WaitKey, &Wait)| {
            let Wait { session, ret: from, until, granted, .. } = *wait;
            Waited { session, from, until, granted }
        };
        of_name.map(waited).collect()
    }

    /// When a wait may have begun: by a request that was answered, or by one before that was not.
    pub(crate) fn begun_from(&self, name: usize, wait: &Wait) -> u64 {
        self.asks_of(name, wait).map(|ask| ask.call).min().unwrap_or(wait.call)
    }

    /// The requests that may have begun a wait.
    fn asks_of(&self, name: usize, wait: &Wait) -> impl Iterator<Item = &Ask> {
        let asks = self.asks.get(&(wait.client, name)).into_iter().flatten();
        asks.filter(|ask| ask.ret >= wait.call && ask.call <= wait.ret)
    }

    /// What was asked for; `None`: one thing or another.
    fn wish_of(&self, name: usize, wait: &Wait) -> Option<Wish> {
        let mut wishes = self.asks_of(name, wait).map(|ask| ask.wish);
        let first = wishes.next()?;
        wishes.all(|wish| wish == first).then_some(first)
    }

    /// When the time of a wait may be over, and when it certainly is: by each of the requests that
    /// may have begun it.
    pub(crate) fn deadlines(&self, name: usize, wait: &Wait) -> (u64, u64) {
        let over = |ask: &Ask| match ask.ns {
            0 => (u64::MAX, u64::MAX),
            ns => (ask.call + ns, ask.ret.min(wait.ret) + ns),
        };
        let both = self.asks_of(name, wait).map(over);
        both.fold((u64::MAX, 0), |all, one| (all.0.min(one.0), all.1.max(one.1)))
    }

    pub(crate) fn is_gift(&self, name: usize, to: SessionId) -> bool {
        self.gifts.iter().any(|gift| (gift.name, gift.to) == (name, to))
    }
}

impl World {
    /// An exclusive registration, or one in a mode that the name is wanted in.
    pub(crate) fn draw_register(&mut self, name: usize) -> Asked {
        match self.draw_wish(name) {
            Wish::EXCLUSIVE => Asked::Register(name),
            wish if self.plan.claims > 0 => Asked::Claim(name, wish),
            _ => Asked::Register(name),
        }
    }

    pub(crate) fn draw_wish(&mut self, name: usize) -> Wish {
        let Some(wishes) = self.plan.wishes.get(name) else { return Wish::EXCLUSIVE };
        wishes[self.rng.below(wishes.len() as u64) as usize]
    }

    /// An op that does more with a name than to register and release it.
    pub(crate) fn draw_claim_op(&mut self, client: usize, wire: usize, name: usize) -> Asked {
        let Some(bound) = self.wires[wire].bound else { return self.draw_register(name) };
        match self.rng.below(100) {
            0..35 => {
                let ms = [0, 0, 5, 50, 500][self.rng.below(5) as usize];
                Asked::Wait(name, self.draw_wish(name), ms)
            }
            35..50 => Asked::Release(name, None),
            50..60 => {
                let mine = |(_, wait): &(&WaitKey, &Wait)| {
                    wait.session == bound && (wait.over.is_none() || wait.until.is_multiple_of(16))
                };
                let found = self.waits.known.iter().rev().find(mine);
                found.map_or(Asked::Cancel(name, u64::MAX), |((_, name, ticket), _)| {
                    Asked::Cancel(*name, *ticket)
                })
            }
            60..70 => self.draw_transfer(client, name),
            70..73 => match self.draw_target(client) {
                Some(to) if self.rng.chance(500) => Asked::Revoke(name, Some(to)),
                _ => Asked::Revoke(name, None),
            },
            73..83 => Asked::Meta(name),
            83..95 => {
                let version = self.rng.chance(500).then(|| self.rng.below(3) as u32);
                Asked::SetMeta(name, version, self.notes.next())
            }
            _ => Asked::Waiters(name),
        }
    }

    /// Mostly a name that the client has, to somebody who may live.
    fn draw_transfer(&mut self, client: usize, name: usize) -> Asked {
        let Some(to) = self.draw_target(client) else { return Asked::Query(name) };
        let mine = self.oracle.holds.iter().find_map(|(name, holds)| {
            let mine = holds.iter().find(|hold| hold.client == client)?;
            Some((*name, mine.token))
        });
        match mine {
            Some((name, token)) => Asked::Transfer(name, to, self.rng.chance(300).then_some(token)),
            None => Asked::Transfer(name, to, self.rng.chance(300).then_some(Token(7))),
        }
    }

    /// Another client's session, one of the newest.
    fn draw_target(&mut self, client: usize) -> Option<SessionId> {
        let others = self.oracle.sessions.iter().rev();
        let mut others = others.filter(|(_, f)| f.client != client && f.lock.is_none());
        let nth = self.rng.below(4) as usize;
        let newest = others.clone().next();
        others.nth(nth).or(newest).map(|(session, _)| *session)
    }

    /// What the sending alone may cause.
    pub(crate) fn before_claim_op(&mut self, index: usize, number: u64, asked: Asked) {
        let (now, client) = (self.now, self.wires[index].client);
        match asked {
            Asked::Wait(name, wish, ms) => {
                let ns = u64::from(ms) * 1_000_000;
                let ask = Ask { number, call: now, ret: u64::MAX, ns, wish };
                self.waits.asks.entry((client, name)).or_default().push(ask);
            }
            Asked::Cancel(name, ticket) => {
                let key = (self.wires[index].life, name, ticket);
                if let Some(wait) = self.waits.known.get_mut(&key) {
                    wait.cancelled = wait.cancelled.min(now);
                    wait.cancels += 1;
                }
            }
            Asked::Transfer(name, to, _) => self.waits.gifts.push(Gift { name, to, at: now }),
            Asked::Revoke(name, to) => {
                self.deletes(index, name, true);
                self.oracle.all_let_go(name);
                let gift = to.map(|to| Gift { name, to, at: now });
                self.waits.gifts.extend(gift);
            }
            Asked::SetMeta(name, _, value) => self.notes.asked(client, name, (value, now)),
            _ => {}
        }
    }

    /// The body of an op of this file.
    pub(crate) fn encode_claim_op(&self, asked: Asked, out: &mut Vec<u8>) {
        let name = |name: usize| self.plan.names[name].as_bytes();
        let mut body = Vec::new();
        let permits = |body: &mut Vec<u8>, wish: Wish| {
            if wish.permits > 0 {
                body.put_u32(wish.permits);
            }
        };
        let (code, flags, at) = match asked {
            Asked::Claim(at, wish) => {
                permits(&mut body, wish);
                (op::REGISTER, wish.mode, at)
            }
            Asked::Wait(at, wish, ms) => {
                body.put_u32(ms);
                permits(&mut body, wish);
                (op::WAIT, wish.mode, at)
            }
            Asked::Cancel(at, ticket) => {
                body.put_u64(ticket);
                (op::CANCEL, 0, at)
            }
            Asked::Transfer(at, to, under) => {
                under.iter().for_each(|token| body.put_u64(token.0));
                body.put_u64(to.0);
                (op::TRANSFER, if under.is_some() { op::TRANSFER_TOKEN } else { 0 }, at)
            }
            Asked::Revoke(at, to) => {
                to.iter().for_each(|to| body.put_u64(to.0));
                (op::REVOKE, if to.is_some() { op::REVOKE_TO } else { 0 }, at)
            }
            Asked::Meta(at) => (op::META, 0, at),
            Asked::SetMeta(at, version, value) => {
                version.iter().for_each(|version| body.put_u32(*version));
                body.put_long_bytes(&super::notes::words_of(value));
                (op::SET_META, if version.is_some() { op::SET_META_VERSION } else { 0 }, at)
            }
            Asked::Waiters(at) => {
                body.put_u16(1_000);
                (op::WAITERS, 0, at)
            }
            other => unreachable!("{other:?} is an op of RESP"),
        };
        body.extend_from_slice(name(at));
        put_op(out, code, flags, &body);
    }

    /// A request was answered with a ticket.
    pub(crate) fn queued(
        &mut self,
        index: usize,
        sent: &Sent,
        (number, asked): (u64, Asked),
        got: &Got,
    ) -> Judged {
        let (Asked::Wait(name, ..), Got::Owner(_, holder, ticket)) = (asked, got) else {
            return Err(got.words());
        };
        let (client, life) = (self.wires[index].client, self.wires[index].life);
        self.oracle.owner_seen(*holder, index)?;
        if holder.0 == 0 && !self.plan.may_be_full() {
            return Err("queued behind nobody".to_owned());
        }
        let (call, ret) = (sent.at, self.now);
        let Some(session) = self.wires[index].bound else {
            // A bare session that its client has not heard of waits; when it does hear of it, this
            // may have been the beginning of the wait.
            self.may_get(name, (client, None), call);
            return Ok(());
        };
        if let Some(asks) = self.waits.asks.get_mut(&(client, name)) {
            asks.iter_mut().filter(|ask| ask.number == number).for_each(|ask| ask.ret = ret);
        }
        self.tally.waits += 1;
        let key = (life, name, ticket.0);
        let wait = self.waits.known.entry(key).or_insert(Wait {
            client,
            session,
            place: (index, number),
            call,
            ret,
            until: call,
            cancelled: u64::MAX,
            cancels: 0,
            over: None,
            granted: None,
        });
        if wait.session != session {
            return Err(format!("W1: a ticket of {} and of {session}", wait.session));
        }
        if wait.over.is_some_and(|over| over < call) {
            return Err(format!("W1: ticket {ticket} waits still, and was over: {wait:?}"));
        }
        wait.until = wait.until.max(call);
        if call < wait.call {
            (wait.call, wait.place) = (call, (index, number));
        }
        match self.waits.early.remove(&key) {
            Some(early) => self.wait_ended(key, early),
            None => Ok(()),
        }
    }

    /// A request may have got a name, or may get it still, and nobody says so.
    fn may_get(&mut self, name: usize, (client, by): (usize, Option<SessionId>), call: u64) {
        let (verb, seen, ret) = (Verb::Register, Seen::Nothing, u64::MAX);
        let entry = Entry { client, by, verb, call, ret, seen, wish: None };
        self.oracle.entries.entry(name).or_default().push(entry);
    }

    /// Waits of whose end nobody heard may have got the name.
    pub(crate) fn waits_that_never_ended(&mut self) {
        let open = self.waits.known.iter().filter(|(_, wait)| wait.over.is_none());
        let open: Vec<(usize, Wait)> = open.map(|((_, name, _), wait)| (*name, *wait)).collect();
        for (name, wait) in open {
            self.may_get(name, (wait.client, Some(wait.session)), wait.call);
        }
    }

    /// A client is told something about a name.
    pub(crate) fn told(&mut self, index: usize, code: u8, body: &[u8]) -> Judged {
        if code == push::MESSAGE {
            return self.letter_heard(index, body);
        }
        if code == push::LANE_MOVED {
            self.wires[index].may_close = true;
            return Ok(());
        }
        if code > push::MESSAGE {
            return self.watch_told(index, code, body);
        }
        self.read_told(index, code, body)
            .map_err(|Truncated| format!("notice {code} of {} bytes", body.len()))?
    }

    fn read_told(&mut self, index: usize, code: u8, body: &[u8]) -> Result<Judged, Truncated> {
        let mut body = Reader::new(body);
        let (client, life, now) = (self.wires[index].client, self.wires[index].life, self.now);
        let number = body.u64()?;
        let ended = match code {
            push::GRANTED => Ended::Granted(Token(body.u64()?), body.u8()?),
            push::WAIT_ENDED if body.u8()? == push::WAIT_TIMED_OUT => Ended::TimedOut,
            push::RECEIVED => {
                let from = SessionId(body.u64()?);
                let Some(name) = self.name_of(body.rest()) else { return Err(Truncated) };
                return Ok(self.received(client, name, (Token(number), from)));
            }
            push::LOST => {
                let (to, reason) = (SessionId(body.u64()?), body.u8()?);
                let Some(name) = self.name_of(body.rest()) else { return Err(Truncated) };
                return Ok(self.lost(name, to, reason));
            }
            _ => return Err(Truncated),
        };
        let Some(name) = self.name_of(body.rest()) else { return Err(Truncated) };
        self.note(|_| format!("wire {index} is told of ticket {number:x}, name {name}: {ended:?}"));
        let (key, told) = ((life, name, number), (client, now, ended));
        if self.waits.known.contains_key(&key) {
            return Ok(self.wait_ended(key, told));
        }
        Ok(match self.waits.early.insert(key, told) {
            Some(before) => Err(format!("W1: the end of {key:?} is told twice, before {before:?}")),
            None => Ok(()),
        })
    }

    pub(crate) fn name_of(&self, bytes: &[u8]) -> Option<usize> {
        self.by_name.get(bytes).copied()
    }

    /// W1, W2: the end of a wait was told.
    fn wait_ended(&mut self, key: WaitKey, (client, at, ended): (usize, u64, Ended)) -> Judged {
        let (_, name, _) = key;
        let Some(wait) = self.waits.known.get_mut(&key) else { return Ok(()) };
        if wait.client != client || wait.over.is_some() {
            return Err(format!("W1: {ended:?} is told to client {client} of {wait:?}"));
        }
        wait.over = Some(at);
        let Ended::Granted(token, mode) = ended else {
            let wait = *wait;
            self.tally.given_up += 1;
            let (from, _) = self.waits.deadlines(name, &wait);
            return if at < from {
                Err(format!("W2: over before {from}: {wait:?}"))
            } else {
                Ok(())
            };
        };
        wait.granted = Some(token);
        let wait = *wait;
        self.tally.handovers += 1;
        // Who is given a name gets it as it is held.
        let given = self.waits.is_gift(name, wait.session);
        let asked = self.waits.wish_of(name, &wait);
        let wish = asked.filter(|wish| wish.mode == mode && (!given || wish.permits == 0));
        if wish.is_none() && asked.is_some() && !given {
            return Err(format!("W1: granted in mode {mode}: {wait:?}"));
        }
        let wish = wish.or(match mode {
            op::MODE_EXCLUSIVE => Some(Wish::EXCLUSIVE),
            op::MODE_SHARED => Some(Wish { mode, permits: 0 }),
            _ => None,
        });
        let (by, seen) = (Some(wait.session), Seen::Owner(wait.session, token));
        let (verb, call) = (Verb::Register, wait.call);
        let entry = Entry { client, by, verb, call, ret: at, seen, wish };
        self.oracle.entries.entry(name).or_default().push(entry);
        let hold = Hold { client, session: wait.session, token, wish, since: at };
        let (index, number) = wait.place;
        self.counts_on(index, wait.call, (number, name), hold)
    }

    /// A name came from somebody else.
    fn received(
        &mut self,
        client: usize,
        name: usize,
        (token, from): (Token, SessionId),
    ) -> Judged {
        self.note(|_| format!("client {client} is told: name {name} from {from} under {token}"));
        let owner = |to: SessionId| self.oracle.sessions.get(&to).map(|facts| facts.client);
        let gifts = self.waits.gifts.iter().filter(|gift| gift.name == name);
        let mut gifts = gifts.filter(|gift| owner(gift.to) == Some(client));
        let Some(Gift { to: session, mut at, .. }) = gifts.next().copied() else {
            return Err(format!("W3: received {token} from {from}, who never gave it"));
        };
        for gift in gifts {
            if gift.to != session {
                // Several sessions of the client may have got it.
                return Ok(());
            }
            at = at.min(gift.at);
        }
        let wish = self.plan.is_exclusive(name).then_some(Wish::EXCLUSIVE);
        let (by, seen) = (Some(session), Seen::Owner(session, token));
        let entry = Entry { client, by, verb: Verb::Receive, call: at, ret: self.now, seen, wish };
        self.oracle.entries.entry(name).or_default().push(entry);
        let hold = Hold { client, session, token, wish, since: self.now };
        self.counts_on(usize::MAX, at, (0, name), hold)
    }

    /// W3: an operator took a name.
    fn lost(&mut self, name: usize, to: SessionId, reason: u8) -> Judged {
        let moved = to != SessionId(0);
        if moved != (reason == push::LOST_TRANSFERRED) {
            return Err(format!("lost to {to} for reason {reason}"));
        }
        if self.revoked_from(name, 0) == u64::MAX || (moved && !self.waits.is_gift(name, to)) {
            return Err(format!("W3: name {name} is lost, and nobody took it"));
        }
        Ok(())
    }

    /// The connection is gone on which an op of this file was not answered.
    pub(crate) fn claim_op_lost(
        &mut self,
        (client, by): (usize, Option<SessionId>),
        call: u64,
        asked: Asked,
    ) {
        let (ret, seen) = (u64::MAX, Seen::Nothing);
        let mut entries = Vec::new();
        let wish = None;
        match asked {
            Asked::Transfer(_, to, under) => {
                let verb = Verb::Release(under);
                entries.push(Entry { client, by, verb, call, ret, seen, wish });
                entries.extend(self.receives(to, (call, ret), seen));
            }
            Asked::Revoke(_, to) => {
                let verb = Verb::Revoke;
                entries.push(Entry { client, by: None, verb, call, ret, seen, wish });
                entries.extend(to.and_then(|to| self.receives(to, (call, ret), seen)));
            }
            _ => {}
        }
        if let Asked::Transfer(name, ..) | Asked::Revoke(name, _) = asked {
            self.oracle.entries.entry(name).or_default().extend(entries);
        }
    }

    /// What a gift is to the session that gets it.
    fn receives(&self, to: SessionId, (call, ret): (u64, u64), seen: Seen) -> Option<Entry> {
        let client = self.oracle.sessions.get(&to)?.client;
        let (by, verb, wish) = (Some(to), Verb::Receive, None);
        Some(Entry { client, by, verb, call, ret, seen, wish })
    }

    /// The answer to CANCEL, TRANSFER or REVOKE.
    pub(crate) fn claim_op_answered(
        &mut self,
        index: usize,
        sent: &Sent,
        (number, asked): (u64, Asked),
        got: &Got,
    ) -> Judged {
        if let Asked::Transfer(name, ..) = asked {
            self.release_answered(index, name);
        } else if let Asked::Revoke(name, _) = asked {
            self.deleted(index, name);
        }
        if got.status() == status::BUSY && self.wires[index].may_close {
            let (client, by) = (self.wires[index].client, self.wires[index].bound);
            self.claim_op_lost((client, by), sent.at, asked);
            return Ok(());
        }
        match asked {
            Asked::Cancel(name, ticket) => {
                self.cancel_answered(index, sent, (number, name, ticket), got)
            }
            Asked::Transfer(name, to, under) => {
                self.transfer_answered(index, sent, (name, to, under), got)
            }
            Asked::Revoke(name, to) => self.revoke_answered(index, sent, (name, to), got),
            other => unreachable!("{other:?} is answered elsewhere"),
        }
    }

    /// W1, W4.
    fn cancel_answered(
        &mut self,
        index: usize,
        sent: &Sent,
        (number, name, ticket): (u64, usize, u64),
        got: &Got,
    ) -> Judged {
        let (client, bound, now) = (self.wires[index].client, self.wires[index].bound, self.now);
        let key = (self.wires[index].life, name, ticket);
        let wait = self.waits.known.get(&key).copied();
        match got {
            Got::Plain(status::OK) => {
                self.tally.given_up += 1;
                let wait = self.waits.known.get_mut(&key).ok_or("W1: never waited")?;
                if wait.over.is_some() || bound.is_some_and(|bound| bound != wait.session) {
                    return Err(format!("W1: for {bound:?} cancelled {wait:?}"));
                }
                wait.over = Some(now);
                Ok(())
            }
            Got::Owner(status::GRANTED_EPHEMERAL, session, token) => {
                let mine = |(key, wait): &(&WaitKey, &Wait)| {
                    key.1 == name && wait.session == *session && wait.over.is_none()
                };
                let calls = self.waits.known.iter().filter(mine).map(|(_, wait)| wait.call);
                let call = calls.min().unwrap_or(sent.at).min(sent.at);
                let (by, verb) = (Some(*session), Verb::Register);
                let seen = Seen::Owner(*session, *token);
                let wish = self.plan.is_exclusive(name).then_some(Wish::EXCLUSIVE);
                let entry = Entry { client, by, verb, call, ret: now, seen, wish };
                self.oracle.entries.entry(name).or_default().push(entry);
                let hold = Hold { client, session: *session, token: *token, wish, since: now };
                self.counts_on(index, sent.at, (number, name), hold)
            }
            Got::Plain(status::NOTOWNER) => match wait {
                Some(wait) if bound == Some(wait.session) && !self.may_be_over(&key, sent.at) => {
                    Err(format!("W4: there is no {wait:?}"))
                }
                _ => Ok(()),
            },
            Got::Plain(status::NOSESSION) => match bound {
                Some(bound) => self.oracle.told_ended(bound, now),
                None => Ok(()),
            },
            _ => Err(got.words()),
        }
    }

    /// Whether a wait may have ended by now, or its session may have got the name and lost it.
    /// The only cancellation does not count if it was sent at `at` or later.
    pub(crate) fn may_be_over(&self, key: &WaitKey, at: u64) -> bool {
        let (life, name, _) = *key;
        let Some(wait) = self.waits.known.get(key) else { return true };
        let ended =
            self.oracle.sessions.get(&wait.session).is_none_or(|f| f.end_from() <= self.now);
        let released = self.clients[wait.client].releases.range((name, 0)..(name + 1, 0));
        let mut released = released.map(|(_, releases)| releases);
        ended
            || self.life() != Some(life)
            || wait.over.is_some()
            || wait.cancelled < at
            || wait.cancels > 1
            || self.waits.deadlines(name, wait).0 <= self.now
            || self.revoked_from(name, wait.call) != u64::MAX
            || self.waits.is_gift(name, wait.session)
            || released.any(|r| r.outstanding > 0 || r.unknown || r.answered >= wait.call)
    }

    fn transfer_answered(
        &mut self,
        index: usize,
        sent: &Sent,
        (name, to, under): (usize, SessionId, Option<Token>),
        got: &Got,
    ) -> Judged {
        let (client, by, now) = (self.wires[index].client, self.wires[index].bound, self.now);
        let (call, ret, wish) = (sent.at, now, None);
        let entry = |verb, seen| Entry { client, by, verb, call, ret, seen, wish };
        let mut entries = Vec::new();
        let receiver = self.oracle.sessions.get(&to).map(|facts| facts.client);
        let apart = receiver.is_some_and(|receiver| self.are_apart(client, receiver));
        match got {
            Got::Owner(..) if apart => return Err(format!("W5: {to} is another principal's")),
            Got::Plain(status::NOSESSION) if apart => {}
            Got::Owner(status::GRANTED_EPHEMERAL, session, token) if *session == to => {
                self.tally.transfers += 1;
                entries.push(entry(Verb::Release(under), Seen::Released));
                entries.extend(self.receives(to, (call, ret), Seen::Owner(to, *token)));
            }
            Got::Owner(status::HELD, session, token)
                if *session == to && !self.plan.is_exclusive(name) =>
            {
                entries.push(entry(Verb::Query, Seen::Owner(to, *token)));
            }
            Got::Plain(status::NOTOWNER) => {
                entries.push(entry(Verb::Release(under), Seen::NotOwner));
            }
            Got::Plain(status::NOSESSION) => {
                let ends = |id: SessionId| self.oracle.sessions.get(&id).map(|f| f.end_from());
                let both = [Some(to), by].into_iter().map(|id| id.and_then(ends));
                if both.flatten().min().is_some_and(|from| from > now) {
                    return Err(format!("O4: neither {to} nor {by:?} has ended"));
                }
            }
            Got::Plain(status::FULL) if self.plan.may_be_full() => {}
            _ => return Err(got.words()),
        }
        self.oracle.entries.entry(name).or_default().extend(entries);
        Ok(())
    }

    fn revoke_answered(
        &mut self,
        index: usize,
        sent: &Sent,
        (name, to): (usize, Option<SessionId>),
        got: &Got,
    ) -> Judged {
        let client = self.wires[index].client;
        let (call, ret) = (sent.at, self.now);
        let (by, verb, wish) = (None, Verb::Revoke, None);
        let entry = |seen| Entry { client, by, verb, call, ret, seen, wish };
        let mut entries = Vec::new();
        match (got, to) {
            (Got::Plain(status::OK), None) => {
                self.tally.revoked += 1;
                entries.push(entry(Seen::Released));
            }
            (Got::Owner(status::GRANTED_EPHEMERAL, session, token), Some(to)) if *session == to => {
                self.tally.revoked += 1;
                // It may have been the session's all the time.
                entries.push(entry(Seen::Nothing));
                entries.extend(self.receives(to, (call, ret), Seen::Owner(to, *token)));
            }
            (Got::Plain(status::FREE), _) => entries.push(entry(Seen::Free)),
            (Got::Plain(status::NOSESSION), Some(to)) => {
                self.oracle.told_ended(to, self.now)?;
            }
            (Got::Plain(status::MODE), Some(_)) if !self.plan.is_exclusive(name) => {}
            (Got::Plain(status::FULL), Some(_)) if self.plan.may_be_full() => {}
            _ => return Err(got.words()),
        }
        self.oracle.entries.entry(name).or_default().extend(entries);
        Ok(())
    }
}
