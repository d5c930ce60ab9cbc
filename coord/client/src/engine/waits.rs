//! Waiting for names, and holding them as locks.
//!
//! A session holds at most one permit of a name, and the server gives the same ticket to the same
//! session, so two callers of one session would both be told that a lock is theirs. Therefore the
//! callers of one name stand in a line here, and only the first of the line is known to the server;
//! the next one is asked for when the first has released.
//!
//! Invariants:
//! - W1  Of each line only the first has anything at the server.
//! - W2  Each wait is answered exactly once; whoever gave up is answered at once, and what the
//!   server still grants for it is given back.
//! - W3  After a reconnect the first of each line asks again, which the server answers with the
//!   same place or with the grant that was missed.
//!
//! Bounds: [`WAITS_MAX`] waits. O(log n) a step; a caller that gives up in the middle of a line
//! costs the line's length. Tests: stories in `engine/tests.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ringway_coord_proto::wire::Reply;
use ringway_core::{Moment, SessionId, Span, Token};

use super::orders::{Asker, Orders};
use super::{Fault, Output, Over, WaitFault, WaitId};
use crate::error::Refusal;
use crate::op::{Mode, Op, Ticket};
use crate::reply::{
    Cancelled, Durability, Owner, Waited, cancel_result, plain_result, wait_result,
};

/// Waits and locks of one session.
pub const WAITS_MAX: usize = 1 << 20;
/// How long after its deadline a wait goes on, for the server to say how it has ended.
const GRACE: Span = Span::from_ms(100);
/// The pause after an answer that says: try again.
const AGAIN: Span = Span::from_ms(20);

/// Who waits for what.
#[derive(Clone, Debug)]
pub struct WaitRequest {
    /// The name.
    pub name: Vec<u8>,
    /// How it will be held.
    pub mode: Mode,
    /// Until when to wait; `None`: without end.
    pub until: Option<Moment>,
    /// It is a lock: the line stands still until it is unlocked.
    pub lock: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Behind another in the line; unknown to the server.
    Behind,
    /// WAIT is sent, or will be as soon as there is a connection.
    Asked,
    /// The server said to try again, at the moment of the timer.
    Paused,
    Queued(Ticket),
    Held(Token),
    /// RELEASE is sent, or will be.
    Unlocking(Token),
}

#[derive(Debug)]
struct Wait {
    request: WaitRequest,
    state: State,
    /// The caller has its answer.
    told: bool,
    timer: Option<Moment>,
}

/// What a step needs beside the waits.
pub(super) struct Around<'a> {
    pub(super) now: Moment,
    pub(super) orders: &'a mut Orders,
    pub(super) out: &'a mut Vec<Output>,
}

/// All waits and locks of the session.
#[derive(Debug, Default)]
pub(super) struct Waits {
    waits: BTreeMap<WaitId, Wait>,
    lines: BTreeMap<Vec<u8>, VecDeque<WaitId>>,
    timers: BTreeSet<(Moment, WaitId)>,
    session: Option<SessionId>,
}

impl Waits {
    pub(super) fn set_session(&mut self, session: SessionId) {
        self.session = Some(session);
    }

    pub(super) fn start(&mut self, id: WaitId, request: WaitRequest, around: &mut Around<'_>) {
        let valid = Op::Wait { name: &request.name, mode: request.mode, within: None }.check();
        let fault = match valid {
            Err(error) => Some(Fault::Op(error)),
            Ok(()) if self.waits.len() >= WAITS_MAX => Some(Fault::TooMany("waits", WAITS_MAX)),
            Ok(()) => None,
        };
        if let Some(fault) = fault {
            let result = Err(WaitFault::Fault(fault));
            return around.out.push(Output::Wait { id, result });
        }
        let line = self.lines.entry(request.name.clone()).or_default();
        line.push_back(id);
        let first = line.len() == 1;
        let until = request.until;
        let wait = Wait { request, state: State::Behind, told: false, timer: None };
        self.waits.insert(id, wait);
        if first {
            self.ask(id, around);
        } else {
            self.set_timer(id, until);
        }
    }

    /// The caller no longer wants it.
    pub(super) fn cancel(&mut self, id: WaitId, around: &mut Around<'_>) {
        self.give_up(id, WaitFault::Cancelled, around);
    }

    /// A lock is given back.
    pub(super) fn unlock(&mut self, id: WaitId, around: &mut Around<'_>) {
        if let Some(Wait { state: State::Held(token), .. }) = self.waits.get(&id) {
            let token = *token;
            self.release(id, token, around);
        }
    }

    pub(super) fn on_wait_reply(&mut self, id: WaitId, reply: Reply<'_>, around: &mut Around<'_>) {
        // A notice may have been faster than the reply; then the reply is no news.
        if self.waits.get(&id).is_none_or(|wait| wait.state != State::Asked) {
            return;
        }
        match wait_result(reply) {
            Ok(Waited::Granted(owner)) => self.granted(id, owner, around),
            Ok(Waited::Queued { ticket, .. }) => {
                self.set_state(id, State::Queued(ticket));
                if self.waits.get(&id).is_some_and(|wait| wait.told) {
                    self.order_cancel(id, ticket, around);
                }
            }
            Err(refusal @ Refusal::Starting(pause)) => self.pause(id, refusal, span(pause), around),
            Err(refusal @ Refusal::Busy) => self.pause(id, refusal, AGAIN, around),
            Err(refusal) => self.end(id, WaitFault::Refused(refusal), around),
        }
    }

    pub(super) fn on_cancel_reply(
        &mut self,
        id: WaitId,
        reply: Reply<'_>,
        around: &mut Around<'_>,
    ) {
        if !matches!(self.waits.get(&id), Some(Wait { state: State::Queued(_), .. })) {
            return;
        }
        match cancel_result(reply) {
            Ok(Cancelled::Granted(owner)) => self.granted(id, owner, around),
            Ok(Cancelled::Done) | Err(Refusal::NotOwner | Refusal::NoSession) => {
                self.finish(id, around);
            }
            // Asking again tells the ticket again, and that is cancelled again.
            Err(refusal) => self.pause(id, refusal, AGAIN, around),
        }
    }

    pub(super) fn on_unlock_reply(
        &mut self,
        id: WaitId,
        reply: Reply<'_>,
        around: &mut Around<'_>,
    ) {
        let Some(Wait { state: State::Unlocking(_), .. }) = self.waits.get(&id) else { return };
        match plain_result(reply) {
            Err(Refusal::Busy) => self.set_timer(id, Some(around.now + AGAIN)),
            _ => self.finish(id, around),
        }
    }

    pub(super) fn on_granted(
        &mut self,
        name: &[u8],
        ticket: Ticket,
        token: Token,
        around: &mut Around<'_>,
    ) {
        let (Some(id), Some(session)) = (self.first_of(name), self.session) else { return };
        let state = self.waits.get(&id).map(|wait| wait.state);
        if matches!(state, Some(State::Asked)) || state == Some(State::Queued(ticket)) {
            let owner = Owner { session, token, durability: Durability::Ephemeral };
            self.granted(id, owner, around);
        }
    }

    pub(super) fn on_wait_ended(&mut self, name: &[u8], ticket: Ticket, around: &mut Around<'_>) {
        let Some(id) = self.first_of(name) else { return };
        if self.waits.get(&id).is_some_and(|wait| wait.state == State::Queued(ticket)) {
            self.end(id, WaitFault::TimedOut, around);
        }
    }

    /// A name was taken from the session: there is nothing to be given back.
    pub(super) fn on_taken(&mut self, name: &[u8], token: Token, around: &mut Around<'_>) {
        let Some(id) = self.first_of(name) else { return };
        if self.waits.get(&id).is_some_and(|wait| wait.state == State::Held(token)) {
            self.finish(id, around);
        }
    }

    /// There is a connection again.
    pub(super) fn resumed(&mut self, around: &mut Around<'_>) {
        let firsts: Vec<WaitId> =
            self.lines.values().filter_map(VecDeque::front).copied().collect();
        for id in firsts {
            match self.waits.get(&id).map(|wait| wait.state) {
                Some(State::Behind | State::Asked | State::Paused | State::Queued(_)) => {
                    self.ask(id, around);
                }
                Some(State::Unlocking(token)) => self.release(id, token, around),
                Some(State::Held(_)) | None => {}
            }
        }
    }

    /// The session is over.
    pub(super) fn over(&mut self, over: Over, out: &mut Vec<Output>) {
        let waits = std::mem::take(self).waits;
        for (id, _) in waits.into_iter().filter(|(_, wait)| !wait.told) {
            let result = Err(WaitFault::Fault(Fault::Over(over)));
            out.push(Output::Wait { id, result });
        }
    }

    pub(super) fn wake_at(&self) -> Option<Moment> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(super) fn pass_time(&mut self, around: &mut Around<'_>) {
        while let Some((at, id)) = self.timers.first().copied() {
            if around.now < at {
                return;
            }
            self.set_timer(id, None);
            match self.waits.get(&id).map(|wait| wait.state) {
                Some(State::Paused) => self.ask(id, around),
                Some(State::Unlocking(token)) => self.release(id, token, around),
                Some(State::Behind | State::Asked | State::Queued(_)) => {
                    self.give_up(id, WaitFault::TimedOut, around);
                }
                Some(State::Held(_)) | None => {}
            }
        }
    }

    fn ask(&mut self, id: WaitId, around: &mut Around<'_>) {
        let Some(wait) = self.waits.get_mut(&id) else { return };
        wait.state = State::Asked;
        let until = wait.request.until;
        // Whoever has given up asks only to learn its ticket, and need not wait for that.
        let within = match (wait.told, until) {
            (true, _) => Some(Duration::ZERO),
            (false, until) => until.map(|until| duration(until.since(around.now))),
        };
        let op = Op::Wait { name: &wait.request.name, mode: wait.request.mode, within };
        around.orders.push(Asker::Wait(id), &op);
        let timer = if wait.told { None } else { until.map(|until| until + GRACE) };
        self.set_timer(id, timer);
    }

    fn order_cancel(&mut self, id: WaitId, ticket: Ticket, around: &mut Around<'_>) {
        let Some(wait) = self.waits.get(&id) else { return };
        around.orders.push(Asker::Cancel(id), &Op::Cancel { name: &wait.request.name, ticket });
    }

    fn release(&mut self, id: WaitId, token: Token, around: &mut Around<'_>) {
        self.set_state(id, State::Unlocking(token));
        let Some(wait) = self.waits.get(&id) else { return };
        let op = Op::Release { name: &wait.request.name, token: Some(token) };
        around.orders.push(Asker::Unlock(id), &op);
    }

    fn pause(&mut self, id: WaitId, why: Refusal, pause: Span, around: &mut Around<'_>) {
        self.set_state(id, State::Paused);
        let until = self.waits.get(&id).and_then(|wait| wait.request.until);
        let again = around.now + pause;
        let told = self.waits.get(&id).is_some_and(|wait| wait.told);
        if !told && until.is_some_and(|until| until < again) {
            return self.end(id, WaitFault::NotYet(why), around);
        }
        self.set_timer(id, Some(again));
    }

    fn granted(&mut self, id: WaitId, owner: Owner, around: &mut Around<'_>) {
        self.set_timer(id, None);
        let Some(wait) = self.waits.get_mut(&id) else { return };
        if wait.told {
            return self.release(id, owner.token, around);
        }
        wait.told = true;
        around.out.push(Output::Wait { id, result: Ok(owner) });
        if wait.request.lock {
            wait.state = State::Held(owner.token);
        } else {
            self.finish(id, around);
        }
    }

    /// The caller is answered at once; what is at the server is undone (W2).
    fn give_up(&mut self, id: WaitId, why: WaitFault, around: &mut Around<'_>) {
        let Some(wait) = self.waits.get_mut(&id) else { return };
        if wait.told {
            return self.unlock(id, around);
        }
        match wait.state {
            State::Behind | State::Paused => self.end(id, why, around),
            State::Asked | State::Queued(_) => {
                wait.told = true;
                around.out.push(Output::Wait { id, result: Err(why) });
                if let State::Queued(ticket) = wait.state {
                    self.order_cancel(id, ticket, around);
                }
            }
            State::Held(_) | State::Unlocking(_) => {}
        }
    }

    fn end(&mut self, id: WaitId, why: WaitFault, around: &mut Around<'_>) {
        if self.waits.get(&id).is_some_and(|wait| !wait.told) {
            around.out.push(Output::Wait { id, result: Err(why) });
        }
        self.finish(id, around);
    }

    /// Takes it out of its line, whose next one is asked for if this was the first.
    fn finish(&mut self, id: WaitId, around: &mut Around<'_>) {
        self.set_timer(id, None);
        let Some(wait) = self.waits.remove(&id) else { return };
        let Some(line) = self.lines.get_mut(&wait.request.name) else { return };
        let was_first = line.front() == Some(&id);
        if was_first {
            line.pop_front();
        } else {
            line.retain(|other| *other != id);
        }
        match line.front().copied() {
            None => drop(self.lines.remove(&wait.request.name)),
            Some(next) if was_first => self.ask(next, around),
            Some(_) => {}
        }
    }

    fn first_of(&self, name: &[u8]) -> Option<WaitId> {
        self.lines.get(name).and_then(VecDeque::front).copied()
    }

    fn set_state(&mut self, id: WaitId, state: State) {
        if let Some(wait) = self.waits.get_mut(&id) {
            wait.state = state;
        }
    }

    fn set_timer(&mut self, id: WaitId, at: Option<Moment>) {
        let Some(wait) = self.waits.get_mut(&id) else { return };
        if let Some(before) = std::mem::replace(&mut wait.timer, at) {
            self.timers.remove(&(before, id));
        }
        self.timers.extend(at.map(|at| (at, id)));
    }
}

/// Spans of a wait, in whole milliseconds up and within what the wire can carry.
fn duration(span: Span) -> Duration {
    Duration::from_millis(span.as_ms_ceil().min(u64::from(u32::MAX)))
}

fn span(duration: Duration) -> Span {
    Span(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}
