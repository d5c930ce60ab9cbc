//! Messages to every session of a server.
//!
//! The first shard begins all of them, so that at most [`BROADCASTS_MAX`] are under way and all
//! sessions hear them in one order as long as they keep their connection. Every home then walks
//! its sessions in slices (`jobs`), bare ones included, and waits wherever too much is under way.
//! A session that is opened or ends meanwhile may hear it or not; nobody hears it twice but who has
//! two sessions.
//!
//! Bounds: a slice looks at [`STEP_PLACES`] places and makes [`STEP_BYTES`] of notices, and one.
//! Not here: how a message ends (`messages`), the answer (`tallies`). Tests: `tests/messages.rs`.

use alloc::vec::Vec;

use ringway_core::limits::{BROADCASTS_MAX, MESSAGE_BYTES_MAX};
use ringway_core::wire::{Put, Reader, Truncated};
use ringway_core::{Region, SessionId, ShardId};

use crate::access::Access;
use crate::env::Env;
use crate::jobs::{Step, Work};
use crate::mail::{self, Asker};
use crate::messages::Message;
use crate::notices::Notice;
use crate::outcome::Answer;
use crate::sessions::Ticket;
use crate::shard::Shard;
use crate::wire::{RawOp, op, push, status};

/// Places of sessions that one slice looks at.
const STEP_PLACES: usize = 4 * 1024;
/// Bytes of notices of one slice.
const STEP_BYTES: usize = 1024 * 1024;

/// The shard that begins all broadcasts.
pub(crate) const FIRST: ShardId = ShardId(0);

/// What one home has to do for a message to all.
pub(crate) struct Broadcast {
    /// The tally, at the first shard.
    tally: Ticket,
    /// Whether every session's receipt is wanted.
    receipts: bool,
    /// The place to go on at.
    next: usize,
    sent: u64,
    away: u64,
    /// The notice's body.
    body: Vec<u8>,
}

impl Broadcast {
    /// Bytes that it holds.
    pub(crate) const fn bytes(&self) -> usize {
        self.body.capacity()
    }
}

impl<R: Region, A: Access> Shard<R, A> {
    /// Begins a message to all. The answer, or `None` if it comes later.
    pub(crate) fn serve_broadcast(
        &mut self,
        asker: &Asker,
        ticket: Ticket,
        raw: &RawOp<'_>,
        env: &mut impl Env,
    ) -> Option<Answer> {
        if raw.body.len() > MESSAGE_BYTES_MAX {
            return Some(Answer::plain(status::MALFORMED));
        }
        let receipts = raw.flags & op::SEND_RECEIPT != 0;
        let room = self.messaging.broadcasts < BROADCASTS_MAX && self.has_room(raw.body.len(), env);
        let answered = receipts.then_some(ticket);
        let begun =
            room.then(|| self.messaging.tallies.begin_counts(self.id(), answered, self.shards()));
        let Some(tally) = begun.flatten() else {
            return Some(Answer::plain(status::BUSY));
        };
        self.messaging.broadcasts += 1;
        let from = asker.bound.map_or(SessionId(0), |bound| bound.session);
        let (payload, flags) = (raw.body, push::MESSAGE_BROADCAST);
        let message = Message { from, target: None, source: None, payload, flags };
        let mut out = Vec::with_capacity(64 + payload.len());
        out.put_u8(mail::BROADCAST);
        mail::put_ticket(&mut out, &tally);
        out.put_u8(u8::from(receipts));
        message.put(&mut out);
        self.post_others(&out, env);
        self.take_broadcast(&mut Reader::new(&out[1..]), env).expect("written here");
        (!receipts).then_some(Answer::plain(status::OK))
    }

    /// A message to all whose home is here.
    pub(crate) fn take_broadcast(
        &mut self,
        reader: &mut Reader<'_>,
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        let (tally, receipts) = (mail::ticket(reader)?, reader.u8()? != 0);
        let body = reader.rest().into();
        let work = Broadcast { tally, receipts, next: 0, sent: 0, away: 0, body };
        self.jobs.push(tally, Work::Broadcast(work));
        env.again();
        Ok(())
    }

    /// A slice of a message to all whose home is here.
    pub(crate) fn step_broadcast(&mut self, mut work: Broadcast, env: &mut impl Env) -> Step {
        let end = work.next + STEP_PLACES;
        let room = self.receiver_room(env);
        let mut left = STEP_BYTES;
        let receipt = work.receipts.then_some(work.tally);
        let mut full = false;
        while let Some((place, conn)) = self.sessions.next_open(work.next, end) {
            let Some(to) = conn else {
                work.next = place + 1;
                work.away += 1;
                continue;
            };
            let fits = to.shard == self.id() || self.pushes.has_room(to.shard, work.body.len());
            full = left == 0 || !fits;
            if full {
                work.next = place;
                break;
            }
            left = left.saturating_sub(work.body.len());
            work.next = place + 1;
            work.sent += 1;
            let notice = Notice { code: push::MESSAGE, body: &work.body, receipt };
            self.pass_on(to, &notice, room, env);
        }
        self.pushes.post(env);
        self.messaging.receipts.post(env);
        if !full {
            work.next = end;
        }
        if work.next < self.sessions.places() {
            return Step::More(Work::Broadcast(work));
        }
        self.end_broadcast(&work, env);
        Step::Done(None)
    }

    fn end_broadcast(&mut self, work: &Broadcast, env: &mut impl Env) {
        self.stats.messages.count(status::AWAY, work.away);
        let expected = if work.receipts { work.sent + work.away } else { 0 };
        let mut out = Vec::with_capacity(32);
        out.put_u8(mail::BROADCASTED);
        mail::put_ticket(&mut out, &work.tally);
        out.put_u64(if work.receipts { work.away } else { 0 });
        out.put_u64(expected);
        if work.tally.shard == self.id() {
            self.take_broadcasted(&mut Reader::new(&out[1..]), env).expect("written here");
        } else {
            env.post(work.tally.shard, &out);
        }
    }

    /// A home has seen all its sessions: how many were away, and how many receipts there are.
    pub(crate) fn take_broadcasted(
        &mut self,
        reader: &mut Reader<'_>,
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        let tally = mail::ticket(reader)?;
        let (away, expected) = (reader.u64()?, reader.u64()?);
        let heard = self.messaging.tallies.hear(tally, status::AWAY, away);
        debug_assert!(heard.is_none(), "this home has not announced its part yet");
        if let Some((ticket, answer)) = self.messaging.tallies.expect(tally, expected) {
            self.answer_tally(ticket, &answer, env);
        }
        Ok(())
    }

    /// All that a tally waited for has come.
    pub(crate) fn answer_tally(
        &mut self,
        ticket: Option<Ticket>,
        answer: &Answer,
        env: &mut impl Env,
    ) {
        self.messaging.broadcasts -= usize::from(matches!(answer, Answer::Data(..)));
        let Some(ticket) = ticket else { return };
        match answer {
            // It was answered by its executing shard already as far as what is on its way goes.
            Answer::Outcome(outcome) => self.answer_late(ticket, *outcome, env),
            Answer::Data(..) => self.deliver(ticket, answer, env),
        }
    }
}
