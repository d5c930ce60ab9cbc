//! Acts, mail and answers: how what one machine decided reaches the others.

use alloc::vec::Vec;

use ringway_core::limits::SERVED_OP_COST;
use ringway_core::wire::{Reader, Truncated};
use ringway_core::{ConnId, Epoch, Moment, Region, SessionId, ShardId, Span};

use crate::access::Access;
use crate::conn::{Speech, Waits};
use crate::env::Env;
use crate::handle::Bound;
use crate::mail::{self, Asker, RequestOp};
use crate::names::Tenant;
use crate::op_code::{self, Rest};
use crate::outcome::{Answer, Outcome};
use crate::parse::BARE_INDEX;
use crate::resp::Version;
use crate::sabotage::Rule;
use crate::sessions::{Act, ConnRef, Ticket};
use crate::shard::Shard;
use crate::stats::is_forwarded_by_slot;
use crate::turn::{Op, Shape, Source, Unit, inline_words};
use crate::wire::{self, FrameWriter, KIND_PUSH, KIND_REPLY, RawOp, Reply, op, push};

impl<R: Region, A: Access> Shard<R, A> {
    /// A message of another shard or of the control plane.
    ///
    /// # Panics
    /// If it does not parse: mail never leaves the process.
    pub fn mail(&mut self, now: Moment, from: ShardId, message: &[u8], env: &mut impl Env) {
        self.begin(now);
        self.read_mail(from, message, env).expect("mail is written by our own kind");
    }

    fn read_mail(
        &mut self,
        from: ShardId,
        message: &[u8],
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        let mut reader = Reader::new(message);
        let kind = reader.u8()?;
        if kind == mail::REQUEST {
            self.take_requests(from, &mut reader, env)?;
            self.execute_if_large(env);
            return Ok(());
        }
        // Everything else changes sessions or answers units; ops that came before it go first.
        if kind != mail::REPLY && kind != mail::FEED_EVENTS {
            self.execute(env);
        }
        match kind {
            mail::REPLY => self.take_reply(from, &mut reader, env)?,
            mail::BIND => self.take_bind(&mut reader, env)?,
            mail::ATTACH => {
                let (bound, tenant) = mail::attached(&mut reader)?;
                self.names.attach(bound, tenant);
                env.post(from, &mail::session_message(mail::ATTACHED, bound));
            }
            mail::ATTACHED | mail::END..=mail::SWEPT | mail::END_ACK..=mail::ENDED => {
                let bound = mail::session(&mut reader)?;
                self.read_session_mail(kind, (from, bound), env);
            }
            mail::PUSH => self.take_push(&mut reader, env)?,
            mail::CLOSED => {
                let (session, conn) = mail::closed(from, &mut reader)?;
                self.sessions.conn_closed(session, conn, &mut self.acts);
            }
            mail::LANE_CALL => self.take_lane_call(&mut reader, env)?,
            mail::LANE => self.take_lane(&mut reader, env)?,
            mail::UNWAIT => self.take_unwait(from, &mut reader)?,
            mail::NOTICES | mail::PUSHES | mail::RELAYS..=mail::BROADCASTED => {
                self.read_notices(kind, from, message, env)?;
            }
            mail::COUNT => self.count_for(from, &mut reader, env)?,
            mail::COUNTED => self.take_counts(&mut reader, env)?,
            mail::LEASE_RAISED => {
                let lease = Span(reader.u64()?);
                self.sessions.lease_raised(self.clock.now(), lease, &mut self.acts);
                self.unpark(env);
            }
            mail::EPOCH => {
                let epoch = Epoch(reader.u32()?);
                self.names.begin_epoch(epoch);
                self.sessions.begin_epoch(epoch);
                self.start.epoch = self.start.epoch.max(epoch);
                self.epoch_asked = false;
            }
            mail::FEED_OPEN..=mail::FEED_TOLD => self.hear_of_watches(from, message, env)?,
            mail::PORTS => self.take_ports(&mut reader)?,
            _ => return Err(Truncated),
        }
        self.settle(env);
        Ok(())
    }

    /// A session begins or ends, or that was done as asked.
    fn read_session_mail(&mut self, kind: u8, (from, bound): (ShardId, Bound), env: &mut impl Env) {
        match kind {
            mail::ATTACHED => self.sessions.attached(bound, &mut self.acts),
            mail::ENDED => self.sessions.ended(bound, &mut self.acts),
            mail::SWEPT => self.sessions.swept(bound.handle),
            _ => {
                self.names.end(bound);
                self.lanes.end(bound.session);
                if kind == mail::END_ACK {
                    env.post(from, &mail::session_message(mail::ENDED, bound));
                }
            }
        }
    }

    fn take_push(&mut self, reader: &mut Reader<'_>, env: &mut impl Env) -> Result<(), Truncated> {
        let conn = ConnId { index: reader.u32()?, generation: reader.u32()? };
        let (code, session) = (reader.u8()?, SessionId(reader.u64()?));
        let (reason, close) = (reader.u8()?, reader.u8()? != 0);
        self.push(conn, (code, session, reason), close, env);
        Ok(())
    }

    fn take_ports(&mut self, reader: &mut Reader<'_>) -> Result<(), Truncated> {
        self.start.base_port = reader.u16()?;
        self.start.own_ports.clear();
        while !reader.is_empty() {
            self.start.own_ports.push(reader.u16()?);
        }
        Ok(())
    }

    /// Units of another shard's connections join the batch, in their order.
    fn take_requests(
        &mut self,
        from: ShardId,
        reader: &mut Reader<'_>,
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        while !reader.is_empty() {
            let (asker, count) = mail::unit(reader)?;
            self.take_unit(from, (&asker, count), reader, env)?;
        }
        Ok(())
    }

    fn take_unit(
        &mut self,
        from: ShardId,
        (asker, count): (&Asker, u16),
        reader: &mut Reader<'_>,
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        let source = Source::Mail(from, asker.pending);
        let mut first = self.batch.ops.len();
        let mut payload = 0;
        let mut forwarded = u64::from(count);
        self.turn_ops += usize::from(count);
        for _ in 0..count {
            let request = mail::request_op(reader)?;
            if op_code::on_name(request.code) || request.code == op::RENEW {
                let op = self.batch_op(&request, &mut payload)?;
                self.batch.ops.push(op);
                continue;
            }
            forwarded -= u64::from(!is_forwarded_by_slot(request.code));
            self.push_mail_unit(source, asker.bound, first);
            self.execute(env);
            let ticket = Ticket {
                shard: from,
                pending: asker.pending.0,
                generation: asker.pending.1,
                index: request.index,
            };
            let RequestOp { code, flags, body, .. } = request;
            self.turn_ops += SERVED_OP_COST - 1;
            self.serve_here(asker, ticket, &RawOp { code, flags, body }, env);
            self.settle(env);
            first = self.batch.ops.len();
        }
        self.push_mail_unit(source, asker.bound, first);
        self.stats.forwarded_in += forwarded;
        Ok(())
    }

    /// An op of a request, as the batch takes it.
    #[inline]
    fn batch_op(&mut self, request: &RequestOp<'_>, payload: &mut u64) -> Result<Op, Truncated> {
        let mut body = Reader::new(request.body);
        let mut op;
        if request.code == op::RENEW {
            op = self.batch.name_op(request.code, request.flags, &[]);
            op.extra = body.u64()?;
            op.words = if request.flags != 0 { inline_words(body.rest()) } else { [0, 0] };
        } else {
            op = self.batch.name_op(request.code, request.flags, body.short_bytes()?);
            op.extra = match op_code::rest_of(request.code, request.flags) {
                Rest::None => 0,
                Rest::Number => body.u64()?,
                Rest::Kept => self.batch.keep(body.rest()),
                Rest::Message => self.keep_message(request.flags, &mut body, payload)?,
            };
        }
        op.index = request.index;
        op.target = self.id().0;
        Ok(op)
    }

    fn push_mail_unit(&mut self, source: Source, bound: Option<Bound>, first: usize) {
        let count = (self.batch.ops.len() - first) as u32;
        if count > 0 {
            let shape = Shape::Native;
            let first = first as u32;
            self.batch.units.push(Unit { source, shape, bound, first, count, sequence: 0 });
        }
    }

    fn take_reply(
        &mut self,
        from: ShardId,
        reader: &mut Reader<'_>,
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        let (count, weight) = (reader.u16()?, reader.u32()?);
        let id = (reader.u32()?, reader.u32()?);
        if let Some(in_flight) = self.in_flight.get_mut(from.index()) {
            *in_flight = in_flight.saturating_sub(weight);
        }
        let Some(unit) = self.pendings.find(id) else { return Ok(()) };
        let awaited = match self.conns.get(unit.conn.index as usize).map(|conn| conn.waits) {
            Some(Waits::Op(pending, index)) if pending == id.0 => Some(index),
            _ => None,
        };
        let found = self.pendings.answer_run(id.0, (count, reader.rest()), awaited);
        let awaited = awaited.filter(|_| found == Some(true));
        self.after_answer(id.0, awaited, env);
        found.map(|_| ()).ok_or(Truncated)
    }

    fn take_bind(&mut self, reader: &mut Reader<'_>, env: &mut impl Env) -> Result<(), Truncated> {
        let id = (reader.u32()?, reader.u32()?);
        let index = reader.u16()?;
        let bare = reader.u8()? != 0;
        let bound = mail::session(reader)?;
        let mut rest = reader.rest();
        let reply = wire::next_reply(&mut rest).ok_or(Truncated)?;
        if let Some(in_flight) = self.in_flight.get_mut(bound.handle.home().index()) {
            *in_flight = in_flight.saturating_sub(1);
        }
        self.bind(id, (bound, bare), env);
        self.answer_one(id, index, &reply, env);
        Ok(())
    }

    /// Carries out what the session machine decided, in order, until nothing is left.
    pub(crate) fn settle(&mut self, env: &mut impl Env) {
        while !self.acts.is_empty() {
            let mut acts = core::mem::take(&mut self.acts);
            for act in acts.drain(..) {
                self.carry_out(act, env);
            }
            if self.acts.is_empty() {
                self.acts = acts;
            }
        }
        for (ticket, outcome) in core::mem::take(&mut self.names.answers) {
            self.answer_late(ticket, outcome, env);
        }
        for line in core::mem::take(&mut self.audits) {
            let message = [&[mail::AUDIT], line.as_bytes()].concat();
            env.post(ShardId(self.shards() as u8), &message);
        }
        self.send_notices(env);
    }

    /// Whom a session of this home belongs to, unless it sees all.
    fn tenant_of(&self, session: SessionId) -> Option<Tenant> {
        let principal = self.sessions.principal_of(session)?;
        let grantee = self.access.by_principal(principal);
        grantee.is_none_or(|grantee| !grantee.sees_all()).then_some(Tenant(principal.0))
    }

    fn carry_out(&mut self, act: Act, env: &mut impl Env) {
        match act {
            Act::Attach(bound) => {
                let tenant = self.tenant_of(bound.session);
                self.names.attach(bound, tenant);
                self.post_others(&mail::attach_message(bound, tenant), env);
            }
            Act::End { bound, everywhere, acknowledge } => {
                // Ops of the session that wait in the batch came before its end.
                self.execute_before_end(env);
                self.names.end(bound);
                self.lanes.end(bound.session);
                if everywhere {
                    let kind = if acknowledge { mail::END_ACK } else { mail::END };
                    self.post_others(&mail::session_message(kind, bound), env);
                }
                env.again();
            }
            Act::Answer(ticket, answer) => self.deliver(ticket, &answer, env),
            Act::Bind { ticket, bound, bare, answer } => {
                if ticket.shard == self.id() {
                    self.bind_ticket(ticket, (bound, bare), env);
                    self.deliver(ticket, &answer, env);
                } else {
                    let mut out = Vec::with_capacity(64);
                    let place = ((ticket.pending, ticket.generation), ticket.index);
                    mail::put_bind(&mut out, place, (bound, bare), &answer);
                    env.post(ticket.shard, &out);
                }
            }
            Act::Push { to, code, session, reason, close } => {
                if to.shard == self.id() {
                    self.push(to.conn, (code, session, reason), close, env);
                } else {
                    let mut out = Vec::with_capacity(24);
                    mail::put_push(&mut out, to.conn, (code, session, reason), close);
                    env.post(to.shard, &out);
                }
            }
            Act::RaiseLease(lease) => {
                if lease > self.lease_asked {
                    self.lease_asked = lease;
                    let control = ShardId(self.shards() as u8);
                    env.post(control, &mail::lease_message(mail::RAISE_LEASE, lease));
                }
            }
        }
    }

    /// The batch is executed before sessions change, except while it is being executed.
    fn execute_before_end(&mut self, env: &mut impl Env) {
        if !self.batch.units.is_empty() {
            self.execute(env);
        }
    }

    pub(crate) fn post_others(&self, message: &[u8], env: &mut impl Env) {
        for shard in 0..self.shards() {
            if shard != self.id().index() {
                env.post(ShardId(shard as u8), message);
            }
        }
    }

    /// Brings an answer to where it was asked.
    pub(crate) fn deliver(&mut self, ticket: Ticket, answer: &Answer, env: &mut impl Env) {
        let id = (ticket.pending, ticket.generation);
        // A refused bare session is counted with the ops that needed it.
        if ticket.index != BARE_INDEX {
            self.stats.refused.count(answer.status());
        }
        if ticket.shard != self.id() {
            let mut out = Vec::with_capacity(64);
            mail::put_reply(&mut out, id);
            mail::set_counts(&mut out, 1, 1);
            out.extend_from_slice(&ticket.index.to_le_bytes());
            answer.put(&mut out);
            env.post(ticket.shard, &out);
            return;
        }
        if ticket.index == BARE_INDEX {
            let conn = ConnId { index: ticket.pending, generation: ticket.generation };
            if let Some(state) = self.conn_mut(conn) {
                state.waits = Waits::No;
                if let Answer::Outcome(outcome) = answer {
                    state.refused = outcome.status;
                }
                self.later(conn);
                env.again();
            }
            return;
        }
        match answer {
            Answer::Outcome(outcome) if self.pendings.find(id).is_some() => {
                self.pendings.answer(id.0, ticket.index, *outcome);
            }
            Answer::Data(status, bytes) if self.pendings.find(id).is_some() => {
                self.pendings.answer_data(id.0, ticket.index, *status, bytes);
            }
            _ => return,
        }
        self.after_answer(id.0, Some(ticket.index), env);
    }

    /// Answers an op that has waited.
    pub(crate) fn answer_late(&mut self, ticket: Ticket, outcome: Outcome, env: &mut impl Env) {
        if ticket.shard == self.id() {
            return self.deliver(ticket, &Answer::Outcome(outcome), env);
        }
        let mut out = Vec::with_capacity(32);
        mail::put_reply(&mut out, (ticket.pending, ticket.generation));
        mail::set_counts(&mut out, 1, 0);
        mail::put_reply_outcome(&mut out, ticket.index, outcome);
        env.post(ticket.shard, &out);
    }

    fn answer_one(&mut self, id: (u32, u32), index: u16, reply: &Reply<'_>, env: &mut impl Env) {
        if self.pendings.find(id).is_some() {
            self.pendings.answer_wire(id.0, index, reply);
            self.after_answer(id.0, Some(index), env);
        }
    }

    /// A unit has more answers, and perhaps one that its connection waits for: it may go on, and
    /// be answered.
    fn after_answer(&mut self, pending: u32, awaited: Option<u16>, env: &mut impl Env) {
        let unit = self.pendings.get(pending);
        let (conn, missing) = (unit.conn, unit.missing);
        let Some(state) = self.conn_mut(conn) else {
            if missing == 0 {
                self.await_lane_no_more(conn, pending);
                self.end_orphan(conn, pending, env);
            }
            return;
        };
        if awaited.is_some_and(|index| state.waits == Waits::Op(pending, index)) {
            state.waits = Waits::No;
            self.await_lane_no_more(conn, pending);
            self.later(conn);
            env.again();
        }
        if missing == 0 {
            self.answer_queue(conn, env);
        }
    }

    /// H1: answers the connection's units from the oldest on, as far as they are complete.
    pub(crate) fn answer_queue(&mut self, conn: ConnId, env: &mut impl Env) {
        loop {
            let Some(state) = self.conn_mut(conn) else { return };
            let Some(mut front) = state.queue.front().copied() else { break };
            if self.pendings.get(front).missing > 0 {
                match self.complete_out_of_order(conn) {
                    Some(other) => front = other,
                    None => return,
                }
            } else {
                self.conns[conn.index as usize].queue.pop_front();
            }
            self.write_unit(conn, front, env);
            self.pendings.end(front);
        }
        let Some(state) = self.conn_mut(conn) else { return };
        if state.closing {
            self.say_goodbye(conn, env);
        } else if state.waits == Waits::Barrier {
            state.waits = Waits::No;
            self.later(conn);
            env.again();
        }
    }

    /// Any complete unit of a connection, where the order is sabotaged; none otherwise.
    #[inline]
    fn complete_out_of_order(&mut self, conn: ConnId) -> Option<u32> {
        if !self.sabotage.breaks(Rule::AnswersInOrder) {
            return None;
        }
        let queue = &mut self.conns[conn.index as usize].queue;
        let at = queue.iter().position(|unit| self.pendings.get(*unit).missing == 0)?;
        queue.remove(at)
    }

    /// A unit is answered whose connection is gone.
    pub(crate) fn end_orphan(&mut self, conn: ConnId, pending: u32, env: &mut impl Env) {
        if self.has_orphans(conn) {
            self.settle_orphans(conn, env);
        } else {
            self.pendings.end(pending);
        }
    }

    fn write_unit(&mut self, conn: ConnId, pending: u32, env: &mut impl Env) {
        let version = self.resp_version(conn);
        let out = env.out(conn);
        let start = out.len();
        self.render_unit(pending, version, out);
        if self.conns[conn.index as usize].laned {
            let sequence = self.pendings.get(pending).sequence;
            // What was written, not what is asked for again: of a connection that is gone, unknown
            // to us so far, the driver gives a buffer that is empty each time.
            self.remember(conn, sequence, &out[start..]);
        }
    }

    /// Appends the answer to a unit all of whose replies are there.
    pub(crate) fn render_unit(&self, pending: u32, version: Version, out: &mut Vec<u8>) {
        let unit = self.pendings.get(pending);
        match unit.shape {
            Shape::Native => {
                let mut frame = FrameWriter::begin(out, KIND_REPLY, 0, unit.sequence);
                for outcome in &unit.replies {
                    crate::execute::put_reply(out, &frame, (*outcome, &unit.data));
                }
                frame.add(unit.replies.len() as u16);
                frame.finish(out);
            }
            Shape::Resp(shape) => {
                let mut writer = shape.begin(out, version, unit.replies.len() as u32);
                for outcome in &unit.replies {
                    writer.put(*outcome, &unit.data);
                }
                writer.finish();
            }
        }
    }

    fn bind_ticket(&mut self, ticket: Ticket, who: (Bound, bool), env: &mut impl Env) {
        if ticket.index == BARE_INDEX {
            let conn = ConnId { index: ticket.pending, generation: ticket.generation };
            self.bind_conn(conn, who, env);
        } else {
            self.bind((ticket.pending, ticket.generation), who, env);
        }
    }

    fn bind(&mut self, pending: (u32, u32), who: (Bound, bool), env: &mut impl Env) {
        match self.pendings.find(pending).map(|unit| unit.conn) {
            Some(conn) => self.bind_conn(conn, who, env),
            None => unreachable!("a unit lives until its last op is answered"),
        }
    }

    /// H3: from now on the connection acts for this session.
    fn bind_conn(&mut self, conn: ConnId, (bound, bare): (Bound, bool), env: &mut impl Env) {
        let Some(state) = self.conn_mut(conn) else {
            // It closed while its session was being opened: nobody will tell the home but we.
            self.tell_closed(conn, bound, env);
            return;
        };
        let before = state.bound.replace(bound);
        state.bare = bare;
        if let Some(before) = before.filter(|before| *before != bound) {
            self.tell_closed(conn, before, env);
        }
    }

    /// Tells a session's home that a connection of it is gone.
    pub(crate) fn tell_closed(&mut self, conn: ConnId, bound: Bound, env: &mut impl Env) {
        let home = bound.handle.home();
        if self.sabotage.breaks(Rule::ClosedIsTold) {
            return;
        }
        if home == self.id() {
            let from = ConnRef { shard: home, conn };
            self.sessions.conn_closed(bound.session, from, &mut self.acts);
            self.settle(env);
        } else {
            let mut out = Vec::with_capacity(24);
            mail::put_closed(&mut out, bound.session, conn);
            env.post(home, &out);
        }
    }

    fn push(
        &mut self,
        conn: ConnId,
        (code, session, reason): (u8, SessionId, u8),
        close: bool,
        env: &mut impl Env,
    ) {
        let Some(state) = self.conn_mut(conn).filter(|state| !state.closing) else {
            self.stats.pushes_dropped += 1;
            return;
        };
        let speech = state.speech;
        match speech {
            Speech::Native => {
                let out = env.out(conn);
                let mut body = [0u8; 9];
                body[..8].copy_from_slice(&session.0.to_le_bytes());
                body[8] = reason;
                let len = if code == push::SESSION_ENDED { 9 } else { 8 };
                let mut frame = FrameWriter::begin(out, KIND_PUSH, 0, 0);
                wire::put_op(out, code, 0, &body[..len]);
                frame.add(1);
                frame.finish(out);
            }
            Speech::Resp3 => crate::resp_reply::push_session(env.out(conn), code, session, reason),
            Speech::Resp2 | Speech::Unknown => {}
        }
        if close {
            self.close(conn, env);
        }
    }

    /// Releases names of ended sessions, and tells their homes when none is left.
    pub(crate) fn sweep(&mut self, env: &mut impl Env) {
        let me = self.id();
        let mut done = core::mem::take(&mut self.swept);
        self.stats.swept += self.names.sweep(|handle| done.push(handle)) as u64;
        for handle in done.drain(..) {
            if handle.home() == me {
                self.sessions.swept(handle);
            } else {
                let bound = Bound { handle, session: SessionId(0) };
                env.post(handle.home(), &mail::session_message(mail::SWEPT, bound));
            }
        }
        self.swept = done;
    }

    /// Asks the control plane for a later epoch once a slot has run out of numbers.
    pub(crate) fn ask_for_epoch(&mut self, env: &mut impl Env) {
        let used_up = self.names.is_used_up() || self.sessions.is_used_up();
        if used_up && !self.epoch_asked {
            self.epoch_asked = true;
            let control = ShardId(self.shards() as u8);
            env.post(control, &mail::epoch_message(self.start.epoch));
        }
    }

    /// What a request of another shard may do, as its connection's identity allows.
    pub(crate) fn asker_of(&self, conn: ConnId) -> Asker {
        let state = &self.conns[conn.index as usize];
        let operator = self.grantee(state).is_some_and(|grantee| grantee.operator);
        let principal = self.principal_of(conn);
        Asker { pending: (0, 0), bound: state.bound, principal, operator, conn }
    }
}
