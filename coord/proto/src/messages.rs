//! Messages: from a connection to whoever owns a name, or to a session.
//!
//! A message is executed where its target's slot is: there it becomes a notice for the owner's
//! session (`notices`), which finds the receiving connection. One that is *fenced* is executed
//! where its source's slot is, and only if the sender holds the source name under its token; then
//! it is relayed to the target's slot.
//!
//! The hard case is a receiver that does not read. Nobody waits for it: what exceeds its bound is
//! dropped and counted, and said to whoever asked for a receipt.
//!
//! Always:
//! - M1  A message is handed over at most once to each session that it is for.
//! - M2  Messages of one connection to one target, all without a source or all with the same one,
//!   are handed over in their order: each part of the way is first in, first out.
//! - M3  An op that wants a receipt is answered exactly once, whatever becomes of the message.
//!
//! Bounds: a payload of [`MESSAGE_BYTES_MAX`]; [`MESSAGE_HOLDERS_MAX`] holders of a shared name,
//! and [`MESSAGE_FAN_OUT_BYTES_MAX`] for all of them; a receiver's `RECEIVER_BYTES`.
//! Not here: messages to all (`broadcast`), what is under way (`notices`).
//! Tests: `tests/messages.rs`, `tests/allocations.rs`.

use ringway_core::limits::{
    MESSAGE_BYTES_MAX, MESSAGE_FAN_OUT_BYTES_MAX, MESSAGE_HOLDERS_MAX, NAME_BYTES_MAX,
};
use ringway_core::wire::{Put, Reader, Truncated};
use ringway_core::{ConnId, Region, SessionId, Slot, Token};
use ringway_table::{Name, Owner};

use alloc::vec::Vec;

use crate::access::Access;
use crate::conn::Speech;
use crate::env::Env;
use crate::handle::{Bound, Handle};
use crate::mail;
use crate::names::{FLAG_SIDE, Names};
use crate::notices::{Notice, PAGE_BYTES};
use crate::op_code::SEND_LATE;
use crate::outcome::{Answer, Outcome};
use crate::parse::answered;
use crate::sabotage::Rule;
use crate::sessions::{Principal, Ticket};
use crate::shard::Shard;
use crate::tallies::TALLY_INDEX;
use crate::turn::{HEADED, Op, Turn, Unit};
use crate::waiting::Held;
use crate::wire::{FRAME_HEADER_BYTES, OP_HEADER_BYTES, RawOp, op, push, status};

/// A message as it is handed over.
pub(crate) struct Message<'a> {
    /// The sender; zero for a connection without a session.
    pub(crate) from: SessionId,
    /// The name it was sent to.
    pub(crate) target: Option<&'a Name<'a>>,
    /// The name it was sent as the owner of, and the token.
    pub(crate) source: Option<(&'a Name<'a>, Token)>,
    pub(crate) payload: &'a [u8],
    /// More flags of `push::MESSAGE`.
    pub(crate) flags: u8,
}

impl Message<'_> {
    fn len(&self) -> usize {
        let source = self.source.map_or(0, |(name, _)| 9 + name.len());
        HEAD_BYTES + self.target.map_or(0, Name::len) + source + self.payload.len()
    }

    /// Appends the body of the notice.
    #[inline]
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let mut head = [0; HEAD_BYTES];
        head[0] = self.flags | if self.source.is_some() { push::MESSAGE_FENCED } else { 0 };
        head[1..9].copy_from_slice(&self.from.0.to_le_bytes());
        head[9] = self.target.map_or(0, |name| name.len() as u8);
        out.extend_from_slice(&head);
        if let Some(name) = self.target {
            put_name(name, out);
        }
        if let Some((name, token)) = self.source {
            out.put_u8(name.len() as u8);
            put_name(name, out);
            out.put_u64(token.0);
        }
        out.extend_from_slice(self.payload);
    }
}

/// Flags, sender and the length of the target's name.
const HEAD_BYTES: usize = 10;

#[inline]
fn put_name(name: &Name<'_>, out: &mut Vec<u8>) {
    if name.is_short() {
        // All 16 bytes and a cut: a copy of unknown length would be a call.
        let [low, high] = name.words();
        let end = out.len() + name.len();
        out.extend_from_slice(&(u128::from(low) | u128::from(high) << 64).to_le_bytes());
        out.truncate(end);
    } else {
        let mut bytes = [0; NAME_BYTES_MAX];
        let len = name.copy_to(&mut bytes);
        out.extend_from_slice(&bytes[..len]);
    }
}

/// What a SEND may repeat: the payload of the one before it in its frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Repeat<'a> {
    pub(crate) payload: Option<&'a [u8]>,
    /// The batch that keeps it, and where.
    kept: Option<(u64, u64)>,
}

impl<'a> Repeat<'a> {
    /// A payload that no batch keeps yet.
    pub(crate) const fn of(payload: Option<&'a [u8]>) -> Self {
        Self { payload, kept: None }
    }

    /// Where the batch keeps the payload; it takes it only once.
    fn place(&mut self, batch: &mut Turn) -> Option<u64> {
        match self.kept {
            Some((serial, place)) if serial == batch.serial => Some(place),
            _ => {
                let place = batch.keep(self.payload?);
                self.kept = Some((batch.serial, place));
                Some(place)
            }
        }
    }
}

/// Whom a message is for, as it is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    Name(&'a [u8]),
    Session(SessionId),
}

/// Who sends: with a receipt, and as the owner of a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending<'a> {
    pub(crate) receipt: bool,
    pub(crate) source: Option<(&'a [u8], Token)>,
    pub(crate) target: Target<'a>,
}

impl<R: Region, A: Access> Shard<R, A> {
    /// Reads a SEND of a frame.
    pub(crate) fn read_send<'a>(
        &mut self,
        id: ConnId,
        raw: RawOp<'a>,
        repeat: &mut Repeat<'a>,
    ) -> Op {
        let known = op::SEND_RECEIPT | op::SEND_FENCED | op::SEND_SAME | op::SEND_SESSION;
        if raw.flags & !known != 0 {
            *repeat = Repeat::default();
            return answered(status::UNSUPPORTED);
        }
        let read = read_body(raw);
        let fits = read.is_ok_and(|(_, payload)| match raw.flags & op::SEND_SAME {
            0 => payload.len() <= MESSAGE_BYTES_MAX,
            _ => payload.is_empty() && repeat.payload.is_some(),
        });
        let Ok((sending, payload)) = read.and_then(|it| fits.then_some(it).ok_or(Truncated)) else {
            *repeat = Repeat::default();
            return answered(status::MALFORMED);
        };
        if raw.flags & op::SEND_SAME == 0 {
            *repeat = Repeat::of(Some(payload));
        }
        self.send_op(id, &sending, repeat)
    }

    /// A message, for the shard that it is executed by; or what refuses it.
    pub(crate) fn send_op(
        &mut self,
        id: ConnId,
        sending: &Sending<'_>,
        repeat: &mut Repeat<'_>,
    ) -> Op {
        let Sending { receipt, source, target } = *sending;
        let checked = self.check_send(id, sending);
        if let Err(status) = checked {
            return answered(status);
        }
        let payload = repeat.place(&mut self.batch).expect("asked with a payload");
        let (to_session, ends_at) = match target {
            Target::Name(name) => (0, Slot::of(name)),
            Target::Session(session) => (op::SEND_SESSION, session.slot()),
        };
        let ends_at = self.start.map.shard_of(ends_at).0;
        let fenced = if source.is_some() { op::SEND_FENCED } else { 0 };
        let asks = if receipt { op::SEND_RECEIPT | SEND_LATE } else { 0 };
        let flags = fenced | to_session | asks;
        let name = match (source, target) {
            (Some((name, _)), _) | (None, Target::Name(name)) => name,
            (None, Target::Session(_)) => &[],
        };
        let mut op = self.name_op(op::SEND, flags, name);
        op.extra = payload;
        if flags & HEADED != 0 {
            op.extra = self.keep_head(id, payload, sending);
        }
        if source.is_none() {
            op.target = ends_at;
        } else if op.target != ends_at {
            op.flags |= SEND_LATE;
        }
        op
    }

    fn check_send(&self, id: ConnId, sending: &Sending<'_>) -> Result<(), u8> {
        let check = |name: &[u8]| match name.len() {
            1..=NAME_BYTES_MAX => self.check_access(id, name),
            _ => Err(status::BADNAME),
        };
        let conn = &self.conns[id.index as usize];
        match sending.target {
            Target::Name(name) => check(name)?,
            Target::Session(_) if conn.grantee.is_none() => return Err(status::NOAUTH),
            Target::Session(_) => {}
        }
        sending.source.map_or(Ok(()), |(name, _)| check(name))
    }

    /// The head of a message that has one, behind the place of its payload: the source's token if
    /// it is fenced; then its target, unless that is the op's name.
    fn keep_head(&mut self, id: ConnId, payload: u64, sending: &Sending<'_>) -> u64 {
        let place = payload.to_le_bytes();
        let token = sending.source.map(|(_, token)| token.0.to_le_bytes());
        let token = token.as_ref().map_or(&[][..], |token| &token[..]);
        match sending.target {
            Target::Name(name) => self.batch.keep_all(&[&place, token, name]),
            Target::Session(session) => {
                let all = self.check_sees_all(id).is_ok();
                let viewer = if all { ALL } else { u64::from(self.principal_of(id).0) };
                let (session, viewer) = (session.0.to_le_bytes(), viewer.to_le_bytes());
                self.batch.keep_all(&[&place, token, &session, &viewer])
            }
        }
    }

    /// What a forwarded message has beside the op's name; `before` is the place of the payload of
    /// the message before it.
    pub(crate) fn keep_message(
        &mut self,
        flags: u8,
        body: &mut Reader<'_>,
        before: &mut u64,
    ) -> Result<u64, Truncated> {
        let head = if flags & HEADED == 0 { &[] } else { body.long_bytes()? };
        if flags & op::SEND_SAME == 0 {
            *before = self.batch.keep(body.rest());
        }
        if flags & HEADED == 0 {
            return Ok(*before);
        }
        Ok(self.batch.keep_all(&[&before.to_le_bytes(), head]))
    }

    /// Executes a message where its target's slot is, or its source's. Not a part of the loop over
    /// a batch, whose other ops would pay for its registers.
    #[inline(never)]
    pub(crate) fn run_send(&mut self, batch: &Turn, op: &Op, unit: &Unit) -> Outcome {
        let from = match unit.bound {
            Some(bound) if self.names.is_live(bound) => bound.session,
            Some(_) => return Outcome::plain(status::NOSESSION),
            None => SessionId(0),
        };
        let asks = op.flags & op::SEND_RECEIPT != 0;
        let receipt = asks.then(|| self.ticket_of(unit, op.index));
        let (payload, head) = batch.message(op);
        if op.flags & HEADED == 0 {
            let name = batch.name(op);
            let target = Some(&name);
            let message = Message { from, target, source: None, payload, flags: 0 };
            return self.send_to_name(op.hash, &message, receipt);
        }
        self.run_headed(batch, op, unit, (from, payload, head))
    }

    #[inline(never)]
    fn run_headed(
        &mut self,
        batch: &Turn,
        op: &Op,
        unit: &Unit,
        (from, payload, head): (SessionId, &[u8], &[u8]),
    ) -> Outcome {
        let asks = op.flags & op::SEND_RECEIPT != 0;
        let receipt = asks.then(|| self.ticket_of(unit, op.index));
        if op.flags & op::SEND_FENCED == 0 {
            let message = Message { from, target: None, source: None, payload, flags: 0 };
            return self.send_to_session(head, message, receipt);
        }
        let (token, target) = head.split_first_chunk().expect("kept with its token");
        let token = Token(u64::from_le_bytes(*token));
        let name = batch.name(op);
        let holds = unit.bound.is_some_and(|by| self.names.holds(op.hash, &name, by, token));
        if !holds {
            self.stats.messages.count(status::FENCED, 1);
            return Outcome::plain(status::FENCED);
        }
        let source = Some((&name, token));
        let message = Message { from, target: None, source, payload, flags: 0 };
        let to_session = op.flags & op::SEND_SESSION != 0;
        let ends_at = self.start.map.shard_of(slot_of_target(to_session, target));
        if ends_at == self.id() {
            return self.send_to(to_session, target, message, receipt);
        }
        if !self.messaging.relays.has_room(ends_at, message.len() + target.len()) {
            self.stats.messages.count(status::BUSY, 1);
            return Outcome::plain(status::BUSY);
        }
        let ticket = self.ticket_of(unit, op.index);
        let flags = op.flags;
        self.messaging.relays.put(ends_at, |out| put_relay(out, (flags, ticket), target, &message));
        Outcome::LATER
    }

    /// Fenced messages whose sources were looked at elsewhere.
    pub(crate) fn take_relays(
        &mut self,
        reader: &mut Reader<'_>,
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        while !reader.is_empty() {
            let (flags, ticket) = (reader.u8()?, mail::ticket(reader)?);
            let (from, source) = (SessionId(reader.u64()?), reader.short_bytes()?);
            let source = Name::new(source).expect("checked when parsed: 1 to 255 bytes");
            let source = Some((&source, Token(reader.u64()?)));
            let (target, payload) = (reader.short_bytes()?, reader.long_bytes()?);
            let message = Message { from, target: None, source, payload, flags: 0 };
            let receipt = (flags & op::SEND_RECEIPT != 0).then_some(ticket);
            let to_session = flags & op::SEND_SESSION != 0;
            let outcome = self.send_to(to_session, target, message, receipt);
            if outcome != Outcome::LATER {
                self.receipt(ticket, (outcome.status, 1), env);
            }
        }
        Ok(())
    }

    fn send_to(
        &mut self,
        to_session: bool,
        target: &[u8],
        message: Message<'_>,
        receipt: Option<Ticket>,
    ) -> Outcome {
        if to_session {
            return self.send_to_session(target, message, receipt);
        }
        let name = Name::new(target).expect("checked when parsed: 1 to 255 bytes");
        let hash = self.names.table().hash(&name);
        self.send_to_name(hash, &Message { target: Some(&name), ..message }, receipt)
    }

    /// To a session whose home is here.
    fn send_to_session(
        &mut self,
        target: &[u8],
        message: Message<'_>,
        receipt: Option<Ticket>,
    ) -> Outcome {
        let mut target = Reader::new(target);
        let (Ok(session), Ok(viewer)) = (target.u64(), target.u64()) else {
            unreachable!("kept with both");
        };
        let apart = !self.sabotage.breaks(Rule::PrincipalsApart);
        let viewer = (viewer != ALL && apart).then_some(Principal(viewer as u32));
        match self.sessions.seen_by(SessionId(session), viewer) {
            Some(to) => {
                let message = Message { flags: push::MESSAGE_TO_SESSION, ..message };
                self.send_to_one(to, &message, receipt)
            }
            None => Outcome::plain(status::NOSESSION),
        }
    }

    #[inline]
    fn send_to_name(
        &mut self,
        hash: u64,
        message: &Message<'_>,
        receipt: Option<Ticket>,
    ) -> Outcome {
        let name = message.target.expect("it goes to a name");
        match self.names.holder(hash, name) {
            Some((_, grant, session)) => {
                let to = Bound { handle: Handle::from_bits(grant.owner.0), session };
                self.send_to_one(to, message, receipt)
            }
            None => self.send_to_many((hash, name), message, receipt),
        }
    }

    #[inline]
    fn send_to_one(
        &mut self,
        to: Bound,
        message: &Message<'_>,
        receipt: Option<Ticket>,
    ) -> Outcome {
        if !self.names.notices.has_room(to.handle.home(), message.len()) {
            self.stats.messages.count(status::BUSY, 1);
            return Outcome::plain(status::BUSY);
        }
        let told = !self.sabotage.breaks(Rule::ReceiptsTellTheEnd);
        let receipt = receipt.filter(|_| told);
        self.names.notices.add_message(to, message, receipt);
        if receipt.is_some() { Outcome::LATER } else { Outcome::plain(status::OK) }
    }

    /// To a name that several may hold, or nobody.
    #[inline(never)]
    fn send_to_many(
        &mut self,
        (hash, name): (u64, &Name<'_>),
        message: &Message<'_>,
        receipt: Option<Ticket>,
    ) -> Outcome {
        let side = match self.names.held(hash, name) {
            Held::Free => None,
            Held::Alone(_, grant, session) => {
                let to = Bound { handle: Handle::from_bits(grant.owner.0), session };
                return self.send_to_one(to, message, receipt);
            }
            Held::Together(_, side) => Some(side),
        };
        let Some(side) = side.filter(|side| self.names.live_holders(*side) > 0) else {
            self.stats.messages.count(status::FREE, 1);
            return Outcome::plain(status::FREE);
        };
        if self.names.claims.side(side).wish().mode == op::MODE_COUNTING {
            return Outcome::plain(status::MODE);
        }
        let holders = self.names.claims.side(side).holders() as usize;
        let fits = holders <= MESSAGE_HOLDERS_MAX
            && holders * message.len() <= MESSAGE_FAN_OUT_BYTES_MAX.max(message.len());
        let tally = match receipt {
            Some(ticket) if fits => self.messaging.tallies.begin(self.id(), Some(ticket)),
            _ => None,
        };
        if !fits || (receipt.is_some() && tally.is_none()) {
            self.stats.messages.count(status::BUSY, 1);
            return Outcome::plain(status::BUSY);
        }
        self.turn_ops += holders;
        let (sent, dropped) = self.names.send_to_holders(side, message, tally);
        self.stats.messages.count(status::BUSY, dropped);
        match tally {
            None => Outcome::plain(if sent > 0 { status::OK } else { status::BUSY }),
            Some(tally) => {
                self.messaging.tallies.hear(tally, status::BUSY, dropped);
                let done = self.messaging.tallies.expect(tally, sent + dropped);
                done.map_or(Outcome::LATER, |(_, answer)| Outcome::plain(answer.status()))
            }
        }
    }

    /// A message has come to its connection.
    pub(crate) fn hand_over(
        &mut self,
        conn: ConnId,
        notice: &Notice<'_>,
        room: usize,
        env: &mut impl Env,
    ) {
        let sabotage = self.sabotage;
        let status = match self.conn_mut(conn).filter(|state| !state.closing) {
            Some(state) => match state.speech {
                Speech::Resp2 | Speech::Unknown => status::AWAY,
                _ if env.backlog(conn) > room && !sabotage.breaks(Rule::FullReceiversSpared) => {
                    status::RECEIVER_FULL
                }
                Speech::Native if !fits_frame(state.frame_pages, notice) => status::RECEIVER_FULL,
                Speech::Native => {
                    self.pack(conn, notice, env);
                    if sabotage.breaks(Rule::MessagesOnce) {
                        self.pack(conn, notice, env);
                    }
                    status::OK
                }
                Speech::Resp3 => {
                    let out = env.out(conn);
                    crate::resp_reply::push_notice(out, notice.code, notice.body);
                    status::OK
                }
            },
            None => status::AWAY,
        };
        self.conclude(notice, status, env);
    }

    /// A message ends here: it is counted, and whoever asked is told.
    #[inline]
    pub(crate) fn conclude(&mut self, notice: &Notice<'_>, status: u8, env: &mut impl Env) {
        self.stats.messages.count(status, 1);
        if let Some(ticket) = notice.receipt {
            self.receipt(ticket, (status, 1), env);
        }
    }

    /// M3: tells whoever asked what became of so many messages.
    pub(crate) fn receipt(
        &mut self,
        ticket: Ticket,
        (status, messages): (u8, u64),
        env: &mut impl Env,
    ) {
        if ticket.shard != self.id() {
            return self.messaging.receipts.put(ticket.shard, |out| {
                mail::put_ticket(out, &ticket);
                out.put_u8(status);
                out.put_u64(messages);
            });
        }
        if ticket.index != TALLY_INDEX {
            return self.deliver(ticket, &Answer::plain(status), env);
        }
        if let Some((ticket, answer)) = self.messaging.tallies.hear(ticket, status, messages) {
            self.answer_tally(ticket, &answer, env);
        }
    }

    /// What became of messages of this shard's connections.
    pub(crate) fn take_receipts(
        &mut self,
        reader: &mut Reader<'_>,
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        while !reader.is_empty() {
            let ticket = mail::ticket(reader)?;
            let heard = (reader.u8()?, reader.u64()?);
            self.receipt(ticket, heard, env);
        }
        Ok(())
    }
}

impl<R: Region> Names<R> {
    /// Whether a live session holds a name under a token, alone or together with others.
    fn holds(&self, hash: u64, name: &Name<'_>, by: Bound, token: Token) -> bool {
        let Some((id, grant)) = self.table().find(hash, name) else { return false };
        if grant.owner == by.handle.owner() {
            return self.token(&grant) == token || self.sabotage.breaks(Rule::OldTokensFenced);
        }
        let sided = grant.owner == Owner::NOBODY && grant.flags & FLAG_SIDE != 0;
        let side = if sided { self.claims.of_record(id.number()) } else { None };
        side.is_some_and(|side| self.token_in(side, by.handle) == Some(token))
    }

    /// A message for all who hold a name together: how many it was sent to, and how many not for
    /// what is under way already. Each answers to `tally`.
    fn send_to_holders(
        &mut self,
        side: u32,
        message: &Message<'_>,
        tally: Option<Ticket>,
    ) -> (u64, u64) {
        let (mut sent, mut dropped) = (0, 0);
        let mut next = self.claims.first_holder(side);
        while let Some(claim) = next {
            next = self.claims.next(claim);
            let holder = self.claims.claim(claim).session();
            let Some(to) = self.bound_at(holder) else { continue };
            if sent > 0 && self.sabotage.breaks(Rule::EveryHolderHears) {
                break;
            }
            if self.notices.has_room(to.handle.home(), message.len()) {
                self.notices.add_message(to, message, tally);
                sent += 1;
            } else {
                dropped += 1;
            }
        }
        (sent, dropped)
    }
}

/// Stands for a viewer who sees all sessions.
const ALL: u64 = u64::MAX;

/// Whether a connection's frames are large enough.
fn fits_frame(pages: u8, notice: &Notice<'_>) -> bool {
    let frame = FRAME_HEADER_BYTES + OP_HEADER_BYTES + notice.body.len();
    frame <= usize::from(pages) * PAGE_BYTES
}

fn read_body<'a>(raw: RawOp<'a>) -> Result<(Sending<'a>, &'a [u8]), Truncated> {
    let mut body = Reader::new(raw.body);
    let target = match raw.flags & op::SEND_SESSION {
        0 => Target::Name(body.short_bytes()?),
        _ => Target::Session(SessionId(body.u64()?)),
    };
    let source = match raw.flags & op::SEND_FENCED {
        0 => None,
        _ => Some((body.short_bytes()?, Token(body.u64()?))),
    };
    let receipt = raw.flags & op::SEND_RECEIPT != 0;
    Ok((Sending { receipt, source, target }, body.rest()))
}

/// The slot that decides over a target as a head has it.
fn slot_of_target(to_session: bool, target: &[u8]) -> Slot {
    match target.first_chunk() {
        Some(session) if to_session => SessionId(u64::from_le_bytes(*session)).slot(),
        _ => Slot::of(target),
    }
}

/// A message for the shard of its target; the counterpart is [`Shard::take_relays`].
fn put_relay(
    out: &mut Vec<u8>,
    (flags, ticket): (u8, Ticket),
    target: &[u8],
    message: &Message<'_>,
) {
    let (source, token) = message.source.expect("only a fenced one is relayed");
    out.put_u8(flags);
    mail::put_ticket(out, &ticket);
    out.put_u64(message.from.0);
    out.put_u8(source.len() as u8);
    put_name(source, out);
    out.put_u64(token.0);
    out.put_short_bytes(target);
    out.put_long_bytes(message.payload);
}
