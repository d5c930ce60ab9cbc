//! Clients that block: `PORT.WAIT` over RESP, and `PORT.RELEASE` of what it has granted.
//!
//! They are those that take locks, each connection with the bare session that its first wait opens.
//! A wait that blocks has no ticket and no notice: it is granted, or ends, by its answer. To the
//! histories it is a registration between its sending and that answer, as native waits are, and it
//! is judged by the rules of those, put in terms of connections:
//! - W2  Null does not come before the time is over, but to who sends nothing more, or whose
//!   connection the server is about to close.
//! - R3  At rest whoever blocks stands in the queue ([`World::check_blocked`]).
//! - R6  At rest nobody blocks who sends nothing more, or whose time is over
//!   ([`World::may_block`]).
//!
//! What is pipelined behind a wait is executed behind it, so nothing is known of when a wait behind
//! another began but that it was not before that other's answer.
//! Not here: locks (`locks.rs`), sessions that RESP clients open by themselves.

use ringway_coord_proto::claims::Wish;
use ringway_coord_proto::wire::{op, status};
use ringway_core::{SessionId, Token};

use super::client::{Asked, Sent};
use super::plan::log_range;
use super::world::{Judged, Speech, Wire, World};
use crate::resp_stream::{Value, command};
use crate::stream::Got;

/// Within so long a wait that came stands in the queue, and one that is over is answered.
const SETTLED_WITHIN: u64 = 60_000_000;

/// A wait that its connection waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocked {
    pub(crate) name: usize,
    /// When it had come at the latest, but for the way to the server.
    since: u64,
    /// How long it waits; zero: for ever.
    ns: u64,
}

impl Wire {
    /// The wait that has to be answered before anything else is.
    pub(crate) fn blocked(&self) -> Option<Blocked> {
        let Speech::Resp(stream) = &self.stream else { return None };
        let sent = self.expected.front()?;
        let Asked::Wait(name, _, ms) = *sent.ops.get(stream.answered())? else { return None };
        let since = sent.at.max(self.heard_at).max(self.slow_until);
        Some(Blocked { name, since, ns: u64::from(ms) * 1_000_000 })
    }
}

/// The command of a wait.
pub(crate) fn wait_command(name: &[u8], wish: Wish, ms: u32) -> Vec<u8> {
    let (ms, permits) = (ms.to_string(), wish.permits.to_string());
    let mut words: Vec<&[u8]> = vec![b"PORT.WAIT", name, ms.as_bytes()];
    match wish.mode {
        op::MODE_SHARED => words.extend([&b"MODE"[..], b"SHARED"]),
        op::MODE_COUNTING => words.extend([&b"MODE"[..], b"COUNTING", permits.as_bytes()]),
        _ => {}
    }
    command(&words)
}

/// What a wait was answered: `[1, session, token]`, or null, which no native answer is like.
pub(crate) fn wait_answer(value: &Value) -> Option<Got> {
    let parts = match value {
        Value::Null => return Some(Got::Plain(status::FREE)),
        Value::Array(parts) => parts,
        _ => return None,
    };
    let [Value::Number(1), Value::Bulk(session), Value::Bulk(token)] = parts.as_slice() else {
        return None;
    };
    let session = u64::from_str_radix(std::str::from_utf8(session).ok()?, 16).ok()?;
    let token = std::str::from_utf8(token).ok()?.parse().ok()?;
    Some(Got::Owner(status::GRANTED_EPHEMERAL, SessionId(session), Token(token)))
}

impl World {
    /// What a client asks for that shares names, waits for them and gives them back. `None`: it
    /// takes locks this time.
    pub(crate) fn draw_blocking(&mut self, wire: usize, name: usize) -> Option<Vec<Asked>> {
        if self.plan.claims == 0 || !self.rng.chance(self.plan.claims / 2 + 100) {
            return None;
        }
        let bound = self.wires[wire].bound;
        let mine = self.oracle.holds.iter().find_map(|(name, holds)| {
            holds.iter().any(|hold| Some(hold.session) == bound).then_some(*name)
        });
        Some(match (self.rng.below(10), mine) {
            (0..5, Some(mine)) => vec![Asked::Release(mine, None), Asked::Query(mine)],
            (5, _) => vec![Asked::Release(name, None)],
            _ => {
                let ms = [0, 5, 50, 50, 500][self.rng.below(5) as usize];
                let mut ops = vec![Asked::Wait(name, self.draw_wish(name), ms)];
                if self.rng.chance(300) {
                    ops.push(Asked::Query(name));
                }
                ops
            }
        })
    }

    /// A client that does nothing but block gives one of its connections up, sooner or later.
    pub(crate) fn lose_patience(&mut self, client: usize) {
        let wires = &self.clients[client].wires;
        let blocked = |wire: &&usize| self.wires[**wire].blocked().is_some();
        let mut waiting = wires.iter().filter(blocked);
        let Some(first) = waiting.next().copied() else { return };
        if waiting.count() + 1 < wires.len() || !self.rng.chance(20) {
            return;
        }
        let span = log_range(&mut self.rng, 1_000_000, 500_000_000);
        if self.wires[first].blocked().is_some_and(|blocked| blocked.since + span < self.now) {
            self.drop_wire(first);
        }
    }

    /// W2: a wait was answered with null.
    pub(crate) fn gave_up(&mut self, index: usize, sent: &Sent, asked: Asked) -> Judged {
        let Asked::Wait(name, _, ms) = asked else { return Ok(()) };
        self.tally.given_up += 1;
        let soonest = if ms == 0 { u64::MAX } else { sent.at + u64::from(ms) * 1_000_000 };
        let wire = &self.wires[index];
        if self.now < soonest && !wire.fin && !wire.may_close {
            return Err(format!("W2: the wait of {} for {name} ends before {soonest}", sent.at));
        }
        Ok(())
    }

    /// What came to the server at a moment is executed by then, give or take a little: what stood
    /// still goes on when faults cease.
    fn executed_by(&self, came: u64) -> u64 {
        if self.oracle.stalled_since(came) { came.max(self.calm_from) } else { came }
    }

    /// R6: whether a connection may wait still, though all else is answered by now.
    pub(crate) fn may_block(&self, index: usize) -> bool {
        let wire = &self.wires[index];
        let Some(Blocked { name, since, ns }) = wire.blocked() else { return false };
        let since = self.executed_by(since);
        let allowed = self.plan.gate.allows(wire.client, &self.plan.names[name]);
        let in_time = ns == 0 || self.now <= since + ns + SETTLED_WITHIN;
        allowed && in_time && !wire.fin
    }

    /// R3: of those who wait for a name so many have no ticket that is known; `asked`: when the
    /// request was sent that saw so.
    pub(crate) fn check_blocked(&self, name: usize, asked: u64, without_ticket: usize) -> Judged {
        let stands = |wire: &&Wire| {
            let blocked = wire.blocked().filter(|blocked| blocked.name == name);
            let here = wire.open && Some(wire.life) == self.life();
            here && blocked.is_some_and(|b| self.executed_by(b.since) + SETTLED_WITHIN < asked)
        };
        let blocked = self.wires.iter().filter(stands).count();
        if blocked > without_ticket {
            return Err(format!(
                "R3: {blocked} connections wait for name {name}, {without_ticket} in its queue"
            ));
        }
        Ok(())
    }
}
