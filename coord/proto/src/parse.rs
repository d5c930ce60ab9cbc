//! Bytes to ops: the first byte of a connection, native frames, and where a frame has to wait.
//!
//! A frame whose ops are all on local names, with nothing of its connection ahead, is answered
//! straight into the connection's output. Any other frame collects its replies in a pending unit.

use alloc::boxed::Box;

use ringway_core::limits::{
    FRAME_BYTES_MAX, NAME_BYTES_MAX, NAME_META_BYTES_MAX, PERMITS_MAX, SERVED_OP_COST,
    UNKNOWN_IN_MAX,
};
use ringway_core::wire::{Reader, Truncated};
use ringway_core::{ConnId, Region, SessionId, Slot, Token};

use crate::access::Access;
use crate::conn::{Speech, Stalled, Waits};
use crate::env::Env;
use crate::messages::Repeat;
use crate::names::check_register_flags;
use crate::op_code;
use crate::sessions::{ConnRef, Opener, Principal, Ticket};
use crate::shard::Shard;
use crate::turn::{Op, Shape, Source, Turn, Unit, inline_words};
use crate::wire::{
    self, FLAG_BARRIER, FRAME_BYTES_FLOOR, FRAME_HEADER_BYTES, FrameHeader, KIND_REQUEST, MAGIC,
    PREFACE_BYTES, Preface, RawOp, TLS_HANDSHAKE, next_op, op, status,
};

/// The ticket index that stands for a connection's bare session, not for an op.
pub(crate) const BARE_INDEX: u16 = u16::MAX;

/// A frame that is being parsed.
pub(crate) struct Frame<'a> {
    pub(crate) sequence: u64,
    pub(crate) count: u16,
    pub(crate) index: u16,
    pub(crate) pending: Option<u32>,
    /// What its next message may repeat.
    pub(crate) repeat: Repeat<'a>,
}

/// What to do with an op once it was read.
enum Next {
    /// It is in the batch.
    Batched(Op),
    /// It needs more than a status; it is served by itself.
    Serve,
    /// It needs the connection's session, which has to be opened first.
    NeedsSession,
}

impl<R: Region, A: Access> Shard<R, A> {
    /// Executes what `bytes` hold; returns how many bytes it took.
    pub(crate) fn parse(&mut self, id: ConnId, bytes: &[u8], env: &mut impl Env) -> usize {
        let speech = match (self.speech(id), bytes.first()) {
            (_, None) => return 0,
            (Speech::Unknown, Some(&MAGIC)) => return self.parse_preface(id, bytes, env),
            (Speech::Unknown, Some(&TLS_HANDSHAKE)) => {
                // A client that waits for its handshake hears at once that there will be none.
                self.stats.protocol_errors += 1;
                self.close(id, env);
                return bytes.len();
            }
            (Speech::Unknown, Some(_)) => {
                self.conns[id.index as usize].speech = Speech::Resp2;
                Speech::Resp2
            }
            (speech, Some(_)) => speech,
        };
        match speech {
            Speech::Native | Speech::Unknown => self.parse_frames(id, bytes, env),
            Speech::Resp2 | Speech::Resp3 => self.parse_commands(id, bytes, env),
        }
    }

    fn parse_preface(&mut self, id: ConnId, bytes: &[u8], env: &mut impl Env) -> usize {
        let Some(preface) = bytes.first_chunk::<PREFACE_BYTES>() else { return 0 };
        let theirs = Preface::parse(preface);
        env.out(id).extend_from_slice(&Preface::OURS.encode());
        if theirs.is_none_or(|theirs| theirs.major != wire::MAJOR) {
            self.stats.protocol_errors += 1;
            self.close(id, env);
            return bytes.len();
        }
        let conn = &mut self.conns[id.index as usize];
        conn.speech = Speech::Native;
        let most = theirs.map_or(FRAME_BYTES_FLOOR, |theirs| theirs.frame_bytes_max);
        conn.frame_pages = (most / FRAME_BYTES_FLOOR).min(FRAME_PAGES_MAX) as u8;
        PREFACE_BYTES + self.parse_frames(id, &bytes[PREFACE_BYTES..], env)
    }

    fn parse_frames(&mut self, id: ConnId, bytes: &[u8], env: &mut impl Env) -> usize {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let header = match FrameHeader::parse(rest) {
                Ok(Some(header))
                    if header.kind == KIND_REQUEST && self.may_send(id, header.len) =>
                {
                    header
                }
                Ok(None) => return self.incomplete(id, at, FRAME_HEADER_BYTES),
                Ok(Some(_)) | Err(_) => {
                    self.protocol_error(id, env);
                    return bytes.len();
                }
            };
            if rest.len() < header.len {
                return self.incomplete(id, at, header.len);
            }
            if !self.may_start(id, env) {
                return self.incomplete(id, at, 0);
            }
            let is_old = self.conns[id.index as usize].laned && self.is_old(id, header.sequence);
            let conn = &mut self.conns[id.index as usize];
            if (header.flags & FLAG_BARRIER != 0 || is_old) && !conn.queue.is_empty() {
                conn.waits = Waits::Barrier;
                return self.incomplete(id, at, 0);
            }
            if !self.take_up(usize::from(header.count).max(1)) {
                self.later(id);
                return self.incomplete(id, at, 0);
            }
            at += header.len;
            if is_old {
                self.answer_again(id, (header.sequence, header.count), env);
                continue;
            }
            if self.conns[id.index as usize].laned {
                self.take_up_by_lane(id, header.sequence);
            }
            let FrameHeader { sequence, count, .. } = header;
            let repeat = Repeat::default();
            let frame = Frame { sequence, count, index: 0, pending: None, repeat };
            self.parse_frame(id, frame, &rest[FRAME_HEADER_BYTES..header.len], env);
            let conn = &self.conns[id.index as usize];
            if conn.is_waiting() || conn.closing || conn.stalled.is_some() {
                return if conn.closing { bytes.len() } else { self.incomplete(id, at, 0) };
            }
        }
    }

    /// Whether a frame or command is not too long for somebody who has not authenticated.
    #[inline]
    pub(crate) fn may_send(&self, id: ConnId, bytes: usize) -> bool {
        bytes <= UNKNOWN_IN_MAX || self.conns[id.index as usize].grantee.is_some()
    }

    fn incomplete(&mut self, id: ConnId, consumed: usize, need: usize) -> usize {
        self.conns[id.index as usize].need = need as u32;
        consumed
    }

    /// The rest of a frame in which the connection had to wait.
    pub(crate) fn resume_frame(&mut self, id: ConnId, stalled: Stalled, env: &mut impl Env) {
        let Stalled { pending, sequence, count, index, payload, bytes } = stalled;
        let (payload, rest) = match payload {
            Some(len) => Some(bytes.split_at(len as usize)).unzip(),
            None => (None, Some(&bytes[..])),
        };
        let repeat = Repeat::of(payload);
        let frame = Frame { sequence, count, index, pending, repeat };
        self.parse_frame(id, frame, rest.unwrap_or_default(), env);
    }

    fn parse_frame<'a>(
        &mut self,
        id: ConnId,
        mut frame: Frame<'a>,
        bytes: &'a [u8],
        env: &mut impl Env,
    ) {
        let (mut rest, mut first) = (bytes, self.batch.ops.len());
        let mut remote = false;
        while frame.index < frame.count {
            let before = rest;
            let next = self.read_next(id, &mut frame, &mut rest);
            let may_go_on = match &next {
                (Next::Batched(op), _) => self.may_ask(id, op.target),
                (Next::Serve, _) => self.may_serve(id),
                (Next::NeedsSession, _) => true,
            };
            if !may_go_on {
                self.push_unit(id, &mut frame, (first, true));
                return self.stall(id, &frame, before);
            }
            match next {
                (Next::Batched(mut op), _) => {
                    op.index = frame.index;
                    let here = op.target == self.id().0 || op.target == ANYWHERE;
                    remote |= !here || (op.flags & op_code::SEND_LATE != 0);
                    self.batch.ops.push(op);
                    frame.index += 1;
                }
                (Next::Serve, raw) => {
                    let raw = raw.expect("only an op that is there is served");
                    self.push_unit(id, &mut frame, (first, true));
                    self.execute(env);
                    self.serve_op(id, &frame, raw, env);
                    frame.index += 1;
                    self.turn_ops += SERVED_OP_COST - 1;
                    (first, remote) = (self.batch.ops.len(), false);
                    if self.conns[id.index as usize].closing {
                        return self.drop_rest(id, &frame, env);
                    }
                    if self.turn_ops >= self.turn_ops_most && frame.index < frame.count {
                        self.later(id);
                        return self.stall(id, &frame, rest);
                    }
                    if self.is_waiting(id) {
                        return self.stall(id, &frame, rest);
                    }
                }
                (Next::NeedsSession, _) => {
                    // Ops before this one keep their place; it is read again with a session.
                    if self.batch.ops.len() > first {
                        self.push_unit(id, &mut frame, (first, true));
                    }
                    self.execute(env);
                    self.open_bare(id, env);
                    (first, remote) = (self.batch.ops.len(), false);
                    rest = before;
                    if self.is_waiting(id) {
                        return self.stall(id, &frame, rest);
                    }
                }
            }
        }
        self.push_unit(id, &mut frame, (first, remote));
        self.conns[id.index as usize].refused = 0;
        if !rest.is_empty() {
            self.protocol_error(id, env);
        }
    }

    /// The next op of a frame; malformed if there is none.
    #[inline]
    fn read_next<'a>(
        &mut self,
        id: ConnId,
        frame: &mut Frame<'a>,
        rest: &mut &'a [u8],
    ) -> (Next, Option<RawOp<'a>>) {
        match next_op(rest) {
            Some(raw) if raw.code == op::SEND => {
                (Next::Batched(self.read_send(id, raw, &mut frame.repeat)), Some(raw))
            }
            Some(raw) => (self.read_op(id, raw), Some(raw)),
            None => (Next::Batched(answered(status::MALFORMED)), None),
        }
    }

    /// Adds the ops since `first` to the batch as a unit: answered directly if they are a whole
    /// frame, local, and nothing of their connection is ahead.
    fn push_unit(&mut self, id: ConnId, frame: &mut Frame<'_>, (first, collect): (usize, bool)) {
        let conn = &mut self.conns[id.index as usize];
        let mut count = self.batch.ops.len() - first;
        let direct = frame.pending.is_none() && !collect && conn.queue.is_empty();
        let source = if direct {
            Source::Direct(id)
        } else {
            let pending = *frame.pending.get_or_insert_with(|| {
                let count = usize::from(frame.count);
                let index = self.pendings.begin(id, Shape::Native, frame.sequence, count);
                conn.queue.push_back(index);
                index
            });
            if collect {
                count = self.send_away(id, first, pending);
            }
            if count == 0 {
                return;
            }
            Source::Pending(pending)
        };
        self.batch.units.push(Unit {
            source,
            shape: Shape::Native,
            bound: self.conns[id.index as usize].bound,
            first: first as u32,
            count: count as u32,
            sequence: frame.sequence,
        });
    }

    fn stall(&mut self, id: ConnId, frame: &Frame<'_>, rest: &[u8]) {
        let payload = frame.repeat.payload.filter(|_| !rest.is_empty());
        self.conns[id.index as usize].stalled = Some(Box::new(Stalled {
            pending: frame.pending,
            sequence: frame.sequence,
            count: frame.count,
            index: frame.index,
            payload: payload.map(|payload| payload.len() as u32),
            bytes: [payload.unwrap_or_default(), rest].concat(),
        }));
    }

    /// An op of the frame has ended the connection's own session, and so the connection: what is
    /// behind that op is not executed.
    fn drop_rest(&mut self, id: ConnId, frame: &Frame<'_>, env: &mut impl Env) {
        if let Some(pending) = frame.pending {
            self.pendings.abandon(pending, frame.count - frame.index);
        }
        self.answer_queue(id, env);
    }

    fn is_waiting(&mut self, id: ConnId) -> bool {
        self.conn_mut(id).is_none_or(|conn| conn.is_waiting())
    }

    #[inline]
    fn read_op(&mut self, id: ConnId, raw: RawOp<'_>) -> Next {
        match raw.code {
            op::QUERY if raw.flags == 0 => Next::Batched(self.checked_op(id, raw.code, raw.body)),
            op::REGISTER | op::WAIT => {
                if let Err(status) = check_register_flags(raw.flags) {
                    return Next::Batched(answered(status));
                }
                let conn = &self.conns[id.index as usize];
                if conn.bound.is_none() && conn.grantee.is_some() {
                    if conn.refused == 0 {
                        return Next::NeedsSession;
                    }
                    return Next::Batched(answered(conn.refused));
                }
                if raw.code == op::REGISTER && raw.flags == 0 {
                    return Next::Batched(self.checked_op(id, raw.code, raw.body));
                }
                self.read_or(id, raw, Self::read_claim)
            }
            op::RELEASE => self.read_or(id, raw, Self::read_release),
            op::RENEW => self.read_renew(id, raw),
            op::META if raw.flags == 0 => Next::Batched(self.checked_op(id, raw.code, raw.body)),
            op::QUERY | op::META => Next::Batched(answered(status::UNSUPPORTED)),
            op::SET_META => self.read_or(id, raw, Self::read_set_meta),
            op::CANCEL => self.read_or(id, raw, Self::read_cancel),
            op::TRANSFER => self.read_or(id, raw, Self::read_transfer),
            op::REVOKE => self.read_or(id, raw, Self::read_revoke),
            _ => Next::Serve,
        }
    }

    /// An op on a name with a body of its own; `MALFORMED` if that is too short.
    fn read_or(
        &mut self,
        id: ConnId,
        raw: RawOp<'_>,
        read: impl FnOnce(&mut Self, ConnId, RawOp<'_>) -> Result<Op, Truncated>,
    ) -> Next {
        Next::Batched(read(self, id, raw).unwrap_or(answered(status::MALFORMED)))
    }

    /// REGISTER in a mode, and WAIT.
    fn read_claim(&mut self, id: ConnId, raw: RawOp<'_>) -> Result<Op, Truncated> {
        let mut body = Reader::new(raw.body);
        let wait_ms = if raw.code == op::WAIT { body.u32()? } else { 0 };
        let counts = raw.flags & op::REGISTER_MODE_MASK == op::MODE_COUNTING;
        let permits = if counts { body.u32()? } else { 0 };
        if counts && !(1..=PERMITS_MAX).contains(&permits) {
            return Err(Truncated);
        }
        Ok(self.claim_op(id, (raw.code, raw.flags), (wait_ms, permits), body.rest()))
    }

    /// REGISTER in a mode, or WAIT, of parts that are checked but for the name.
    pub(crate) fn claim_op(
        &mut self,
        id: ConnId,
        (code, flags): (u8, u8),
        (wait_ms, permits): (u32, u32),
        name: &[u8],
    ) -> Op {
        let extra = u64::from(wait_ms) << 32 | u64::from(permits);
        self.checked_op_with(id, (code, flags), name, |_| extra)
    }

    /// An op on a name of the connection's namespaces, with a number or kept bytes in `extra`; or
    /// what refuses it.
    pub(crate) fn checked_op_with(
        &mut self,
        id: ConnId,
        (code, flags): (u8, u8),
        name: &[u8],
        extra: impl FnOnce(&mut Turn) -> u64,
    ) -> Op {
        let mut op = self.checked_op(id, code, name);
        if op.code == code {
            op.flags = flags;
            op.extra = extra(&mut self.batch);
        }
        op
    }

    fn read_set_meta(&mut self, id: ConnId, raw: RawOp<'_>) -> Result<Op, Truncated> {
        if raw.flags & !op::SET_META_VERSION != 0 {
            return Ok(answered(status::UNSUPPORTED));
        }
        let mut body = Reader::new(raw.body);
        let version = if raw.flags == 0 { 0 } else { body.u32()? };
        let bytes = body.long_bytes()?;
        Ok(self.set_meta_op(id, (raw.flags, version), bytes, body.rest()))
    }

    /// Sets a name's metadata, if the name and the metadata are such.
    pub(crate) fn set_meta_op(
        &mut self,
        id: ConnId,
        (flags, version): (u8, u32),
        bytes: &[u8],
        name: &[u8],
    ) -> Op {
        if bytes.len() > NAME_META_BYTES_MAX {
            return answered(status::MALFORMED);
        }
        let keep = |batch: &mut Turn| batch.keep_all(&[&version.to_le_bytes(), bytes]);
        self.checked_op_with(id, (op::SET_META, flags), name, keep)
    }

    fn read_cancel(&mut self, id: ConnId, raw: RawOp<'_>) -> Result<Op, Truncated> {
        if raw.flags != 0 {
            return Ok(answered(status::UNSUPPORTED));
        }
        let mut body = Reader::new(raw.body);
        let ticket = body.u64()?;
        Ok(self.checked_op_with(id, (op::CANCEL, 0), body.rest(), |_| ticket))
    }

    fn read_transfer(&mut self, id: ConnId, raw: RawOp<'_>) -> Result<Op, Truncated> {
        if raw.flags & !op::TRANSFER_TOKEN != 0 {
            return Ok(answered(status::UNSUPPORTED));
        }
        let mut body = Reader::new(raw.body);
        let token = if raw.flags == 0 { None } else { Some(Token(body.u64()?)) };
        let to = SessionId(body.u64()?);
        Ok(self.transfer_op(id, (to, token), body.rest()))
    }

    /// Gives a name to a session.
    pub(crate) fn transfer_op(
        &mut self,
        id: ConnId,
        (to, token): (SessionId, Option<Token>),
        name: &[u8],
    ) -> Op {
        let flags = if token.is_some() { op::TRANSFER_TOKEN } else { 0 };
        let under = token.map_or(0, |token| token.0).to_le_bytes();
        let keep = |batch: &mut Turn| batch.keep_all(&[&to.0.to_le_bytes(), &under]);
        self.checked_op_with(id, (op::TRANSFER, flags), name, keep)
    }

    fn read_revoke(&mut self, id: ConnId, raw: RawOp<'_>) -> Result<Op, Truncated> {
        if raw.flags & !op::REVOKE_TO != 0 {
            return Ok(answered(status::UNSUPPORTED));
        }
        let mut body = Reader::new(raw.body);
        let to = if raw.flags == 0 { None } else { Some(SessionId(body.u64()?)) };
        Ok(self.revoke_op(id, to, body.rest()))
    }

    /// Takes a name from whoever holds it, if the connection is an operator's.
    pub(crate) fn revoke_op(&mut self, id: ConnId, to: Option<SessionId>, name: &[u8]) -> Op {
        let grantee = self.grantee(&self.conns[id.index as usize]);
        let Some(grantee) = grantee else { return answered(status::NOAUTH) };
        if !grantee.operator {
            return answered(status::DENIED);
        }
        let who = grantee.name.clone();
        let flags = if to.is_some() { op::REVOKE_TO } else { 0 };
        let session = to.map_or(0, |to| to.0).to_le_bytes();
        let keep = |batch: &mut Turn| batch.keep_all(&[&session, &who]);
        self.checked_op_with(id, (op::REVOKE, flags), name, keep)
    }

    /// An op on a name that the connection may use; otherwise one that says why not.
    #[inline]
    pub(crate) fn checked_op(&mut self, id: ConnId, code: u8, name: &[u8]) -> Op {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return answered(status::BADNAME);
        }
        match self.check_access(id, name) {
            Ok(()) => self.name_op(code, 0, name),
            Err(status) => answered(status),
        }
    }

    /// An op on a name, for the shard that owns its slot.
    #[inline]
    pub(crate) fn name_op(&mut self, code: u8, flags: u8, name: &[u8]) -> Op {
        let mut op = self.batch.name_op(code, flags, name);
        op.target = if self.shards() == 1 {
            self.id().0
        } else {
            self.start.map.shard_of(Slot::of(name)).0
        };
        op
    }

    /// Whether the connection may use this name: authenticated, and its namespaces cover it.
    #[inline]
    pub(crate) fn check_access(&self, id: ConnId, name: &[u8]) -> Result<(), u8> {
        match self.grantee(&self.conns[id.index as usize]) {
            None => Err(status::NOAUTH),
            Some(grantee) if grantee.covers(name) => Ok(()),
            Some(_) => Err(status::DENIED),
        }
    }

    /// Whether the connection may learn about all names together: how many there are, where.
    pub(crate) fn check_sees_all(&self, id: ConnId) -> Result<(), u8> {
        match self.grantee(&self.conns[id.index as usize]) {
            None => Err(status::NOAUTH),
            Some(grantee) if grantee.sees_all() => Ok(()),
            Some(_) => Err(status::DENIED),
        }
    }

    fn read_release(&mut self, id: ConnId, raw: RawOp<'_>) -> Result<Op, Truncated> {
        if raw.flags & !op::RELEASE_TOKEN != 0 {
            return Ok(answered(status::UNSUPPORTED));
        }
        let mut body = Reader::new(raw.body);
        let token = if raw.flags == 0 { 0 } else { body.u64()? };
        Ok(self.checked_op_with(id, (op::RELEASE, raw.flags), body.rest(), |_| token))
    }

    fn read_renew(&self, id: ConnId, raw: RawOp<'_>) -> Next {
        if raw.flags != 0 {
            return Next::Batched(answered(status::UNSUPPORTED));
        }
        Next::Batched(self.renew_op(id, raw.body))
    }

    /// A renewal: of the connection's own session, or of any by its secret.
    pub(crate) fn renew_op(&self, id: ConnId, body: &[u8]) -> Op {
        let conn = &self.conns[id.index as usize];
        if conn.grantee.is_none() {
            return answered(status::NOAUTH);
        }
        let (session, secret) = match (body.len(), conn.bound) {
            (0, Some(bound)) => (bound.session, None),
            (0, None) => return answered(status::NOSESSION),
            (24, _) => {
                let (session, secret) = body.split_at(8);
                let session = u64::from_le_bytes(session.try_into().expect("8 of 24 bytes"));
                (SessionId(session), Some(inline_words(secret)))
            }
            _ => return answered(status::MALFORMED),
        };
        let mut op = answered(0);
        op.code = op::RENEW;
        op.flags = u8::from(secret.is_some());
        op.words = secret.unwrap_or_default();
        op.extra = session.0;
        op.target = self.start.map.shard_of(session.slot()).0;
        op
    }

    /// Opens the session of a connection that registers without one. If that takes other shards,
    /// the connection waits.
    pub(crate) fn open_bare(&mut self, id: ConnId, env: &mut impl Env) {
        let slot = self.next_bare_slot();
        let conn = &mut self.conns[id.index as usize];
        conn.waits = Waits::Bare;
        let principal = self.principal_of(id);
        let ticket = Ticket {
            shard: self.id(),
            pending: id.index,
            generation: id.generation,
            index: BARE_INDEX,
        };
        let from = ConnRef { shard: self.id(), conn: id };
        self.sessions.open_bare(Opener { principal, from, ticket }, slot, &mut self.acts);
        self.settle(env);
    }

    /// The identity of a connection; that of nobody if it has none.
    pub(crate) fn principal_of(&self, id: ConnId) -> Principal {
        let grantee = self.grantee(&self.conns[id.index as usize]);
        grantee.map_or(Principal(u32::MAX), |grantee| grantee.principal)
    }

    /// The frame stream cannot be followed: say so, answer what came before, close.
    fn protocol_error(&mut self, id: ConnId, env: &mut impl Env) {
        self.stats.protocol_errors += 1;
        self.execute(env);
        if let Some(conn) = self.conn_mut(id) {
            conn.broken = true;
        }
        self.close(id, env);
    }
}

/// An op whose reply is known already.
pub(crate) const fn answered(status: u8) -> Op {
    Op {
        words: [0, 0],
        hash: 0,
        extra: status as u64,
        index: 0,
        len: 0,
        code: op_code::ANSWERED,
        flags: 0,
        target: ANYWHERE,
    }
}

/// What a client may say it accepts, in units of the least, as far as it matters.
const FRAME_PAGES_MAX: u32 = FRAME_BYTES_MAX as u32 / FRAME_BYTES_FLOOR;

/// The target of an op that any shard can execute, so this one does.
pub(crate) const ANYWHERE: u8 = u8::MAX;
