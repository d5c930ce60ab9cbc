//! The batch, executed: hash everything, keep a window of prefetches ahead, then op by op.
//!
//! A look-up costs a cache miss for its index line and one for its record. Two windows hide both:
//! the index line of the op [`INDEX_AHEAD`] ahead is asked for, then, half a window later, the
//! record it points to.

use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;

use ringway_core::limits::{
    BATCH_OPS_MAX, FRAME_BYTES_MAX, FRAME_OPS_MAX, NAME_BYTES_INLINE, NAME_BYTES_MAX,
};
use ringway_core::wire::{Put, Reader};
use ringway_core::{ConnId, Region, Secret, SessionId, ShardId, Span, Token};
use ringway_table::Name;

use crate::access::Access;
use crate::claims::Wish;
use crate::conn::Waits;
use crate::env::Env;
use crate::handle::Bound;
use crate::mail::{self, Asker};
use crate::op_code::{self, Rest};
use crate::outcome::{Outcome, put_outcome};
use crate::parse::{ANYWHERE, answered};
use crate::sessions::{Act, Principal, RENEWALS_MAX, Ticket};
use crate::shard::Shard;
use crate::stats::verb_index;
use crate::transfer::MetaAsk;
use crate::turn::{Op, Shape, Source, Turn, Unit};
use crate::waiting::Wait;
use crate::wire::{self, FrameWriter, KIND_REPLY, op, put_data, status};

/// Bytes of long names and values that are executed together, roughly.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// How far ahead index lines are asked for.
const INDEX_AHEAD: usize = 32;
/// How far ahead records are asked for.
const RECORD_AHEAD: usize = 16;
/// How far ahead the records behind overflow lines are asked for.
const OVERFLOW_AHEAD: usize = 8;

impl<R: Region, A: Access> Shard<R, A> {
    /// Executes the batch and empties it, after what other shards are to do was posted.
    pub(crate) fn execute(&mut self, env: &mut impl Env) {
        self.requests.post(env);
        if self.batch.units.is_empty() {
            return;
        }
        let mut batch = core::mem::take(&mut self.batch);
        self.scratch.clear();
        self.scratch.shrink_to(BATCH_BYTES_MAX);
        self.hash_all(&mut batch);
        for at in 0..INDEX_AHEAD.min(batch.ops.len()) {
            self.prefetch_index(&batch, at);
        }
        for at in 0..RECORD_AHEAD.min(batch.ops.len()) {
            self.prefetch_record(&batch, at);
        }
        for unit in &batch.units {
            match unit.source {
                Source::Direct(conn) => self.run_direct(&batch, unit, conn, env),
                Source::Pending(pending) => self.run_pending(&batch, unit, pending, env),
                Source::Mail(from, asked) => self.run_mail(&batch, unit, (from, asked), env),
            }
        }
        self.renewals.range = 0..0;
        batch.clear();
        self.batch = batch;
        self.settle(env);
    }

    /// Executes the batch if it has become as large as one may be.
    #[inline]
    pub(crate) fn execute_if_large(&mut self, env: &mut impl Env) {
        // A frame without ops is a unit nevertheless.
        let ops = self.batch.ops.len().max(self.batch.units.len());
        if ops > BATCH_OPS_MAX || self.batch.arena.len() > BATCH_BYTES_MAX {
            self.execute(env);
        }
    }

    fn hash_all(&self, batch: &mut Turn) {
        let table = self.names.table();
        for at in 0..batch.ops.len() {
            let op = &batch.ops[at];
            if op.len == 0 {
                continue;
            }
            let hash = table.hash(&batch.name(op));
            batch.ops[at].hash = hash;
        }
    }

    /// First stage: the index line.
    #[inline]
    fn prefetch_index(&self, batch: &Turn, at: usize) {
        if let Some(op) = batch.ops.get(at).filter(|op| op.len > 0) {
            self.names.table().prefetch_index(op.hash);
        }
    }

    /// Second stage: the records that the line points to, and what a change will touch.
    #[inline]
    fn prefetch_record(&mut self, batch: &Turn, at: usize) {
        if let Some(op) = batch.ops.get(at).filter(|op| op.len > 0) {
            let table = self.names.table();
            let more = table.prefetch_record(op.hash);
            if op.code != op::QUERY && op.code != op::SEND {
                table.prefetch_change(op.hash);
            }
            let bit = 1 << (at % 64);
            self.overflows = self.overflows & !bit | if more { bit } else { 0 };
        }
    }

    /// Third stage, for the tenth of the ops whose bucket has overflowed.
    #[inline]
    fn prefetch_overflow(&self, batch: &Turn, at: usize) {
        if let Some(op) = batch.ops.get(at).filter(|op| op.len > 0)
            && self.overflows & 1 << (at % 64) != 0
        {
            self.names.table().prefetch_overflow(op.hash);
        }
    }

    #[inline]
    fn run_next(&mut self, batch: &Turn, at: usize, unit: &Unit) -> Outcome {
        self.prefetch_index(batch, at + INDEX_AHEAD);
        self.prefetch_record(batch, at + RECORD_AHEAD);
        self.prefetch_overflow(batch, at + OVERFLOW_AHEAD);
        let op = &batch.ops[at];
        let outcome = match op.code {
            op::RENEW => self.run_renewal(batch, at),
            _ => self.run_op(batch, op, unit),
        };
        if outcome.status >= status::HELD {
            self.stats.refused.count(outcome.status);
        }
        outcome
    }

    fn run_direct(&mut self, batch: &Turn, unit: &Unit, conn: ConnId, env: &mut impl Env) {
        let ops = unit.first as usize..(unit.first + unit.count) as usize;
        match unit.shape {
            Shape::Native => {
                let out = env.out(conn);
                let start = out.len();
                out.reserve(wire::FRAME_HEADER_BYTES + 17 * ops.len());
                let mut frame = FrameWriter::begin(out, KIND_REPLY, 0, unit.sequence);
                for at in ops {
                    let outcome = self.run_next(batch, at, unit);
                    put_reply(out, &frame, (outcome, &self.scratch));
                }
                frame.add(unit.count as u16);
                frame.finish(out);
                if self.conns[conn.index as usize].laned {
                    self.remember(conn, unit.sequence, &out[start..]);
                }
            }
            Shape::Resp(shape) => {
                let version = self.resp_version(conn);
                let mut writer = shape.begin(env.out(conn), version, unit.count);
                for at in ops {
                    let outcome = self.run_next(batch, at, unit);
                    writer.put(outcome, &self.scratch);
                }
                writer.finish();
            }
        }
    }

    fn run_pending(&mut self, batch: &Turn, unit: &Unit, pending: u32, env: &mut impl Env) {
        for at in unit.first as usize..(unit.first + unit.count) as usize {
            let op = &batch.ops[at];
            if op_code::may_raise(op.code)
                && let Some(lease) = self.must_park(batch, op)
            {
                self.park(batch, op, (unit, lease));
                continue;
            }
            let outcome = self.run_next(batch, at, unit);
            if outcome == Outcome::LATER {
                continue;
            }
            if outcome.status >> 6 == 0b10 {
                let bytes = outcome.data(&self.scratch);
                self.pendings.answer_data(pending, op.index, outcome.status, bytes);
            } else {
                self.pendings.answer(pending, op.index, outcome);
            }
        }
        let unit = self.pendings.get(pending);
        let (conn, missing) = (unit.conn, unit.missing);
        if missing > 0 {
            return;
        }
        let Some(state) = self.conn_mut(conn) else {
            // It waited for the state directory, and its connection did not.
            return self.end_orphan(conn, pending, env);
        };
        if matches!(state.waits, Waits::Op(unit, _) if unit == pending) {
            state.waits = Waits::No;
            self.later(conn);
            env.again();
        }
        self.answer_queue(conn, env);
    }

    fn run_mail(
        &mut self,
        batch: &Turn,
        unit: &Unit,
        (from, asked): (ShardId, (u32, u32)),
        env: &mut impl Env,
    ) {
        let mut out = core::mem::take(&mut self.mail_out);
        out.clear();
        mail::put_reply(&mut out, asked);
        let (mut count, mut weight) = (0, 0);
        for at in unit.first as usize..(unit.first + unit.count) as usize {
            let op = &batch.ops[at];
            if op_code::may_raise(op.code)
                && let Some(lease) = self.must_park(batch, op)
            {
                self.park(batch, op, (unit, lease));
                continue;
            }
            weight += batch.weight(op);
            let index = op.index;
            let outcome = self.run_next(batch, at, unit);
            if outcome == Outcome::LATER {
                continue;
            }
            count += 1;
            if outcome.status >> 6 == 0b10 {
                let bytes = outcome.data(&self.scratch);
                mail::put_reply_data(&mut out, index, outcome.status, bytes);
            } else {
                mail::put_reply_outcome(&mut out, index, outcome);
            }
        }
        if count > 0 || weight > 0 {
            mail::set_counts(&mut out, count, weight);
            env.post(from, &out);
        }
        self.mail_out = out;
    }

    /// Sends ops since `first` that other shards own on their way, as parts of `pending`; the
    /// others stay in the batch. Returns how many stay.
    pub(crate) fn send_away(&mut self, id: ConnId, first: usize, pending: u32) -> usize {
        let away = self.part_away(first);
        if away > 0 {
            let asker = Asker { pending: self.pendings.id(pending), ..self.asker_of(id) };
            for op in &self.away[..away] {
                let (batch, to) = (&self.batch, ShardId(op.target));
                let mut weight = batch.weight(op);
                let is_name = op_code::rest_of(op.code, op.flags) == Rest::None && op.len > 0;
                if is_name && usize::from(op.len) <= NAME_BYTES_INLINE {
                    self.requests.add_short(to, &asker, op);
                } else if op.code == op::SEND {
                    weight = self.requests.add_send(to, &asker, (batch, op));
                } else {
                    self.requests.add(to, &asker, op, |out| put_request_body(batch, op, out));
                }
                self.in_flight[usize::from(op.target)] += weight;
            }
            self.stats.forwarded_out += away as u64;
        }
        self.batch.ops.len() - first
    }

    /// Moves ops since `first` that other shards own out of the batch, into `away`. Without a
    /// branch for each op: which shard a name belongs to cannot be predicted.
    fn part_away(&mut self, first: usize) -> usize {
        let me = self.id().0;
        let ops = &mut self.batch.ops;
        if self.away.len() < ops.len() - first {
            self.away.resize(ops.len() - first, answered(0));
        }
        let (mut stay, mut away) = (first, 0);
        for at in first..ops.len() {
            let op = ops[at];
            let stays = (op.target == me) | (op.target == ANYWHERE);
            ops[stay] = op;
            self.away[away] = op;
            stay += usize::from(stays);
            away += usize::from(!stays);
        }
        ops.truncate(stay);
        away
    }

    /// A renewal, done together with those that follow it: nothing stands between them, and what
    /// each comes to depends on nothing else in the batch.
    fn run_renewal(&mut self, batch: &Turn, at: usize) -> Outcome {
        self.stats.verbs[verb_index(op::RENEW)] += 1;
        if !self.renewals.range.contains(&at) {
            let run = batch.ops[at..].iter().take_while(|op| op.code == op::RENEW);
            let run = run.take(RENEWALS_MAX);
            self.renewals.range = at..at + run.clone().count();
            let asked =
                run.map(|op| (SessionId(op.extra), (op.flags != 0).then(|| secret_of(op.words))));
            self.sessions.renew_all(self.clock.now(), asked, &mut self.renewals.statuses);
        }
        Outcome::plain(self.renewals.statuses[at - self.renewals.range.start])
    }

    /// One op, here and now.
    #[inline]
    fn run_op(&mut self, batch: &Turn, op: &Op, unit: &Unit) -> Outcome {
        self.stats.verbs[verb_index(op.code)] += 1;
        let bound = unit.bound;
        match op.code {
            op::QUERY => self.names.query(op.hash, &batch.name(op)),
            op::REGISTER => {
                let Some(bound) = bound else { return Outcome::plain(status::NOSESSION) };
                let now = self.now();
                let outcome = if op.flags == 0 {
                    self.names.register(now, op.hash, &batch.name(op), bound)
                } else {
                    let place = (op.hash, &batch.name(op));
                    self.names.claim(now, place, (bound, 0), (wish_of(op), None))
                };
                self.with_wait(outcome)
            }
            op::RELEASE => {
                let Some(bound) = bound else { return Outcome::plain(status::NOTOWNER) };
                let token = (op.flags & op::RELEASE_TOKEN != 0).then_some(Token(op.extra));
                self.names.release(op.hash, &batch.name(op), bound, token)
            }
            op_code::ANSWERED => Outcome::plain(op.extra as u8),
            op::META..=op::REVOKE => self.run_rare(batch, op, unit),
            op::SEND => self.run_send(batch, op, unit),
            op_code::DB_SIZE => {
                let names = Token(self.names.table().len() as u64);
                Outcome::owner(status::OWNED_EPHEMERAL, SessionId(0), names)
            }
            _ => self.run_lock(batch, op),
        }
    }

    /// Ops on names with more than an owner.
    #[inline(never)]
    fn run_rare(&mut self, batch: &Turn, op: &Op, unit: &Unit) -> Outcome {
        let place = (op.hash, &batch.name(op));
        match (op.code, unit.bound) {
            (op::META, _) => return self.run_meta(place),
            (op::REVOKE, _) => return self.run_revoke(op, place, batch.kept(op.extra)),
            _ => {}
        }
        let Some(bound) = unit.bound else {
            let opens = op.code == op::WAIT;
            return Outcome::plain(if opens { status::NOSESSION } else { status::NOTOWNER });
        };
        match op.code {
            op::WAIT => {
                let now = self.now();
                let blocks = op.flags & op_code::WAIT_BLOCKS != 0;
                let reply = blocks.then(|| self.ticket_of(unit, op.index));
                let patience = Span::from_ms(op.extra >> 32);
                let until = (patience != Span::ZERO).then(|| now + patience);
                let ask = (wish_of(op), Some(Wait { until, reply }));
                let outcome = self.names.claim(now, place, (bound, 0), ask);
                self.with_wait(outcome)
            }
            op::CANCEL => self.names.cancel(place, bound, op.extra),
            op::TRANSFER => {
                let mut kept = Reader::new(batch.kept(op.extra));
                let (Ok(to), Ok(token)) = (kept.u64(), kept.u64()) else {
                    unreachable!("the parser kept a session and a token");
                };
                let token = (op.flags & op::TRANSFER_TOKEN != 0).then_some(Token(token));
                self.names.transfer(place, bound, (SessionId(to), token))
            }
            _ => self.run_set_meta(batch, op, bound),
        }
    }

    /// Where an op that is answered later is answered.
    pub(crate) fn ticket_of(&self, unit: &Unit, index: u16) -> Ticket {
        let (shard, (pending, generation)) = match unit.source {
            Source::Pending(pending) => (self.id(), self.pendings.id(pending)),
            Source::Mail(from, asked) => (from, asked),
            Source::Direct(_) => unreachable!("the parser gives such an op a pending unit"),
        };
        Ticket { shard, pending, generation, index }
    }

    fn run_meta(&mut self, (hash, name): (u64, &Name<'_>)) -> Outcome {
        let Some(found) = self.names.meta(hash, name) else {
            return Outcome::plain(status::FREE);
        };
        let at = self.scratch.len();
        self.scratch.put_u64(found.session.0);
        self.scratch.put_u64(found.token.0);
        self.scratch.put_u32(found.version);
        self.scratch.extend_from_slice(found.bytes);
        Outcome::bytes(status::DATA, at, self.scratch.len() - at)
    }

    fn run_set_meta(&mut self, batch: &Turn, op: &Op, by: Bound) -> Outcome {
        let place = (op.hash, &batch.name(op));
        let (version, bytes) = batch.kept(op.extra).split_at(4);
        let version = u32::from_le_bytes(version.try_into().expect("the parser kept four bytes"));
        let version = (op.flags & op::SET_META_VERSION != 0).then_some(version);
        let at = self.scratch.len();
        let status = match self.names.set_meta(place, &MetaAsk { by, version, bytes }) {
            Ok(version) => {
                self.scratch.put_u32(version);
                status::DATA
            }
            Err(status::CONFLICT) => {
                let found = self.names.meta(op.hash, place.1);
                let (version, bytes) = found.map_or((0, &[][..]), |of| (of.version, of.bytes));
                self.scratch.put_u32(version);
                self.scratch.extend_from_slice(bytes);
                status::CONFLICT
            }
            Err(status) => return Outcome::plain(status),
        };
        Outcome::bytes(status, at, self.scratch.len() - at)
    }

    /// An operator takes a name; a lock that loses its only name is over.
    fn run_revoke(&mut self, op: &Op, place: (u64, &Name<'_>), kept: &[u8]) -> Outcome {
        let mut kept = Reader::new(kept);
        let to = kept.u64().map_or(SessionId(0), SessionId);
        let who = kept.rest().escape_ascii();
        let lock = self.names.holder(place.0, place.1);
        let lock = lock.filter(|(_, grant, _)| grant.flags & crate::names::FLAG_LOCK != 0);
        let target = (op.flags & op::REVOKE_TO != 0).then_some(to);
        let outcome = self.names.revoke(place, target);
        if let Some((_, grant, _)) = lock
            && !outcome.is_error()
        {
            let handle = crate::handle::Handle::from_bits(grant.owner.0);
            self.sessions.close_lock(handle, &mut self.acts);
        }
        let mut bytes = [0; NAME_BYTES_MAX];
        let len = place.1.copy_to(&mut bytes);
        let name = bytes[..len].escape_ascii();
        let became = status::name(outcome.status);
        self.audits.push(match target {
            Some(to) => format!("user \"{who}\" gives \"{name}\" to session {to}: {became}"),
            None => format!("user \"{who}\" revokes \"{name}\": {became}"),
        });
        outcome
    }

    /// `STARTING` says how long.
    #[inline]
    pub(crate) fn with_wait(&mut self, outcome: Outcome) -> Outcome {
        if outcome.status != status::STARTING {
            return outcome;
        }
        let wait = self.names.grants_from().since(self.now()).as_ms_ceil();
        let at = self.scratch.len();
        self.scratch.extend_from_slice(&(wait.min(u64::from(u32::MAX)) as u32).to_le_bytes());
        Outcome::bytes(status::STARTING, at, 4)
    }

    /// Ops of RESP locks: one-name sessions that live where their name does.
    fn run_lock(&mut self, batch: &Turn, op: &Op) -> Outcome {
        let name = batch.name(op);
        let now = self.clock.now();
        let held = self.names.holder(op.hash, &name);
        let kept = batch.kept(op.extra);
        match op.code {
            op_code::LOCK_SET => match held {
                Some((_, grant, session)) => {
                    Outcome::owner(status::HELD, session, self.names.token(&grant))
                }
                None => self.lock_set(op, &name, kept),
            },
            op_code::LOCK_SET_OR_EXPIRE if held.is_none() => self.lock_set(op, &name, kept),
            op_code::LOCK_GET => {
                let Some((_, grant, session)) = held else {
                    return Outcome::plain(status::FREE);
                };
                let Some(value) = self.sessions_value(grant.owner.0, grant.flags) else {
                    let token = self.names.token(&grant);
                    return Outcome::owner(status::OWNED_EPHEMERAL, session, token);
                };
                let at = self.scratch.len();
                let value: Vec<u8> = value.into();
                self.scratch.extend_from_slice(&value);
                Outcome::bytes(status::DATA, at, value.len())
            }
            _ => {
                let Some((_, grant, session)) = held else {
                    return Outcome::plain(status::FREE);
                };
                let handle = crate::handle::Handle::from_bits(grant.owner.0);
                let Some(value) = self.sessions_value(grant.owner.0, grant.flags) else {
                    return Outcome::plain(status::NOTOWNER);
                };
                let ns = kept.first_chunk::<8>().map_or(0, |ns| u64::from_le_bytes(*ns));
                if !value_fits(op.code, value, kept) {
                    return Outcome::plain(status::NOTOWNER);
                }
                let bound = Bound { handle, session };
                self.lock_act(op, &name, bound, (now, Span(ns)))
            }
        }
    }

    fn lock_act(
        &mut self,
        op: &Op,
        name: &Name<'_>,
        bound: Bound,
        (now, span): (ringway_core::Moment, Span),
    ) -> Outcome {
        let (left, _) = self.sessions.left(now, bound.handle).unwrap_or_default();
        let lease = match op.code {
            op_code::LOCK_DEL | op_code::LOCK_DEL_IF => {
                let outcome = self.names.release(op.hash, name, bound, None);
                self.sessions.close_lock(bound.handle, &mut self.acts);
                return outcome;
            }
            op_code::LOCK_LEFT => {
                return Outcome::owner(
                    status::OWNED_EPHEMERAL,
                    bound.session,
                    Token(left.as_ms_ceil()),
                );
            }
            op_code::LOCK_EXTEND_IF => Span(left.0.saturating_add(span.0)),
            _ => span,
        };
        match self.sessions.set_lease(now, bound.handle, lease, &mut self.acts) {
            Ok(()) => Outcome::plain(status::OK),
            Err(status) => Outcome::plain(status),
        }
    }

    fn lock_set(&mut self, op: &Op, name: &Name<'_>, kept: &[u8]) -> Outcome {
        let now = self.now();
        if now < self.names.grants_from() {
            return self.with_wait(Outcome::plain(status::STARTING));
        }
        let mut reader = Reader::new(kept);
        let (lease, principal) = match (reader.u64(), reader.u32()) {
            (Ok(ns), Ok(principal)) => (Span(ns), Principal(principal)),
            _ => unreachable!("the parser kept a lease, a principal and a value"),
        };
        let value = reader.rest();
        let slot = crate::names::slot_of(name);
        let opened = self.sessions.open_lock(self.clock.now(), (slot, lease), principal, value);
        let bound = match opened {
            Ok(bound) => bound,
            Err(status) => return Outcome::plain(status),
        };
        self.names.attach_lock(bound);
        let who = (bound, crate::names::FLAG_LOCK);
        let outcome = self.names.grant(now, op.hash, name, who);
        if outcome.status != status::GRANTED_EPHEMERAL {
            self.sessions.close_lock(bound.handle, &mut self.acts);
        }
        outcome
    }

    /// The lease that an op on a lock would give as things stand; `None` if it would give none,
    /// and so has its answer already.
    fn lease_given(&self, batch: &Turn, op: &Op) -> Option<Span> {
        let kept = batch.kept(op.extra);
        let lease = Span(u64::from_le_bytes(*kept.first_chunk()?));
        let Some((_, grant, _)) = self.names.holder(op.hash, &batch.name(op)) else {
            let granted = op_code::takes_lock(op.code) && self.now() >= self.names.grants_from();
            return granted.then_some(lease);
        };
        let held = self.sessions_value(grant.owner.0, grant.flags)?;
        if !value_fits(op.code, held, kept) {
            return None;
        }
        match op.code {
            op_code::LOCK_SET => None,
            op_code::LOCK_EXTEND_IF => {
                let handle = crate::handle::Handle::from_bits(grant.owner.0);
                let (left, _) = self.sessions.left(self.clock.now(), handle)?;
                Some(Span(left.0.saturating_add(lease.0)))
            }
            _ => Some(lease),
        }
    }

    /// S4: the lease that an op on a lock would give, if the state directory does not allow for it
    /// yet and there is room to wait.
    fn must_park(&mut self, batch: &Turn, op: &Op) -> Option<Span> {
        let lease = self.sessions.lease_to_raise(self.lease_given(batch, op)?)?;
        if op.flags & op_code::LEASE_ALLOWED != 0 {
            self.sessions.lease_raised(self.clock.now(), lease, &mut self.acts);
            return None;
        }
        (self.parked.len() < self.waiters_max).then_some(lease)
    }

    /// Keeps a lock op until the state directory allows its lease.
    fn park(&mut self, batch: &Turn, op: &Op, (unit, lease): (&Unit, Span)) {
        let mut name = Vec::new();
        batch.put_name(op, &mut name);
        self.parked.push(Parked {
            unit: *unit,
            index: op.index,
            code: op.code,
            name,
            kept: batch.kept(op.extra).into(),
        });
        self.acts.push(Act::RaiseLease(lease));
    }

    /// Executes what was kept; what still may not be granted is kept again.
    pub(crate) fn unpark(&mut self, env: &mut impl Env) {
        self.turn_ops += self.parked.len();
        for parked in core::mem::take(&mut self.parked) {
            let mut op = self.batch.name_op(parked.code, 0, &parked.name);
            op.extra = self.batch.keep(&parked.kept);
            op.index = parked.index;
            op.target = self.id().0;
            let first = self.batch.ops.len() as u32;
            self.batch.ops.push(op);
            self.batch.units.push(Unit { first, count: 1, ..parked.unit });
        }
        self.execute(env);
    }

    /// The value of the lock that a record's owner is, if it is one.
    fn sessions_value(&self, owner: u32, flags: u8) -> Option<&[u8]> {
        let handle = crate::handle::Handle::from_bits(owner);
        (flags & crate::names::FLAG_LOCK != 0).then(|| self.sessions.lock_value(handle))?
    }
}

/// Bytes that are kept before the value of an op that may take a lock: lease and principal.
pub(crate) const LOCK_SET_FIXED: usize = 12;

/// Renewals of the batch that are done already.
pub(crate) struct Renewals {
    /// Their places in the batch.
    range: Range<usize>,
    statuses: [u8; RENEWALS_MAX],
}

impl Renewals {
    pub(crate) const NONE: Self = Self { range: 0..0, statuses: [0; RENEWALS_MAX] };
}

/// A lock op that waits for the state directory.
pub(crate) struct Parked {
    unit: Unit,
    index: u16,
    code: u8,
    name: Vec<u8>,
    kept: Vec<u8>,
}

/// Whether a lock has the value that an op on it asks for, if it does.
fn value_fits(code: u8, value: &[u8], kept: &[u8]) -> bool {
    match code {
        op_code::LOCK_DEL_IF => value == kept,
        op_code::LOCK_EXPIRE_IF | op_code::LOCK_EXTEND_IF => kept.get(8..) == Some(value),
        op_code::LOCK_SET_OR_EXPIRE => kept.get(LOCK_SET_FIXED..) == Some(value),
        _ => true,
    }
}

/// A secret as it travelled in an op's words.
fn secret_of(words: [u64; 2]) -> Secret {
    Secret((u128::from(words[0]) | u128::from(words[1]) << 64).to_le_bytes())
}

/// The body of a forwarded op: for a name its length, its bytes and what else was kept; for a
/// renewal the session and the secret.
fn put_request_body(batch: &Turn, op: &Op, out: &mut Vec<u8>) {
    if op.code == op::RENEW {
        out.put_u64(op.extra);
        if op.flags != 0 {
            out.extend_from_slice(&secret_of(op.words).0);
        }
        return;
    }
    out.push(op.len);
    batch.put_name(op, out);
    match op_code::rest_of(op.code, op.flags) {
        Rest::None | Rest::Message => {}
        Rest::Number => out.put_u64(op.extra),
        Rest::Kept => out.extend_from_slice(batch.kept(op.extra)),
    }
}

/// How a REGISTER or a WAIT wants to hold its name.
fn wish_of(op: &Op) -> Wish {
    Wish { mode: op.flags & op::REGISTER_MODE_MASK, permits: op.extra as u32 }
}

/// Appends a reply to a frame; `BUSY` if the frame has no room for its bytes.
#[inline(always)]
pub(crate) fn put_reply(out: &mut Vec<u8>, frame: &FrameWriter, reply: (Outcome, &[u8])) {
    if reply.0.status >> 6 == 0b10 {
        put_reply_bytes(out, frame, reply);
    } else {
        put_outcome(out, reply.0);
    }
}

/// The rare ones apart, so that the others stay a few instructions in the loop over a batch.
#[cold]
#[inline(never)]
fn put_reply_bytes(out: &mut Vec<u8>, frame: &FrameWriter, reply: (Outcome, &[u8])) {
    let (outcome, bytes) = reply;
    if frame.len(out) + outcome.data(bytes).len() < FRAME_BYTES_MAX - REPLY_TAIL_BYTES {
        put_data(out, outcome.status, outcome.data(bytes));
    } else {
        out.push(status::BUSY);
    }
}

/// Bytes kept free in a reply frame for the plain replies behind one with bytes.
const REPLY_TAIL_BYTES: usize = 17 * FRAME_OPS_MAX + 64;
