//! RESP commands to ops: every command becomes a unit of the batch, an op that is served by
//! itself, or a reply that needs nothing but the connection.
//!
//! A reply of the last kind is written at once, so it waits until everything before it was
//! answered; the others keep their place in the pending units.

use alloc::vec::Vec;

use ringway_core::limits::{FRAME_OPS_MAX, SERVED_OP_COST, TEXT_BYTES_PER_OP, UNKNOWN_IN_MAX};
use ringway_core::wire::Put;
use ringway_core::{ConnId, Region, Span};

use crate::access::Access;
use crate::conn::{Speech, Waits};
use crate::env::Env;
use crate::execute::LOCK_SET_FIXED;
use crate::messages::{Repeat, Sending, Target};
use crate::names::check_register_flags;
use crate::op_code;
use crate::parse::answered;
use crate::resp::parse::resume;
use crate::resp::request::{
    Act, Client, Cluster, Mode, Names, Open, Proofs, Request, Send, SendTo, understand,
};
use crate::resp::scripts::Unit as TimeUnit;
use crate::resp::{Args, Code, Parsed, Progress, Version, Writer};
use crate::resp_reply::RespShape;
use crate::shard::Shard;
use crate::turn::{Op, Shape, Source, Unit};
use crate::wire::{RawOp, op};

/// What became of a command.
enum Flow {
    /// It is on its way, or answered.
    Taken,
    /// It cannot be started yet; it is read again when it can.
    Again,
}

/// What a command hears that is too long to be the authentication.
const TOO_LONG_UNKNOWN: &str =
    "authentication required: until then a command has at most 4096 bytes";

const _: () = assert!(UNKNOWN_IN_MAX == 4096, "the text says so");

impl<R: Region, A: Access> Shard<R, A> {
    pub(crate) fn parse_commands(&mut self, id: ConnId, bytes: &[u8], env: &mut impl Env) -> usize {
        let mut args = core::mem::take(&mut self.args);
        let consumed = self.parse_with(id, bytes, &mut args, env);
        self.args = args;
        consumed
    }

    fn parse_with(
        &mut self,
        id: ConnId,
        bytes: &[u8],
        args: &mut Args,
        env: &mut impl Env,
    ) -> usize {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let progress = &mut self.conns[id.index as usize].progress;
            let consumed = match resume(rest, args, progress) {
                Ok(Parsed::Command { consumed }) if self.may_send(id, consumed) => consumed,
                Ok(Parsed::Incomplete { need_at_least }) if self.may_send(id, need_at_least) => {
                    self.conns[id.index as usize].need = need_at_least as u32;
                    return at;
                }
                // The error is found again once everything before it is answered.
                _ if self.must_wait(id) => {
                    let conn = &mut self.conns[id.index as usize];
                    (conn.need, conn.progress) = (0, Progress::default());
                    return at;
                }
                Ok(_) => {
                    self.resp_error(id, Code::NoAuth, TOO_LONG_UNKNOWN, env);
                    return self.cannot_follow(id, bytes, env);
                }
                Err(error) => {
                    self.resp_error(id, Code::Err, error, env);
                    return self.cannot_follow(id, bytes, env);
                }
            };
            let conn = &mut self.conns[id.index as usize];
            (conn.need, conn.progress) = (0, Progress::default());
            // The largest command has a few words more than ops.
            if !self.take_up(args.len().clamp(1, FRAME_OPS_MAX)) {
                self.later(id);
                return at;
            }
            if args.is_empty() {
                at += consumed;
                continue;
            }
            if !self.may_start(id, env) {
                return at;
            }
            let flow = match understand(args.bind(rest)) {
                Ok(request) => self.command(id, request, env),
                Err(_) if self.must_wait(id) => Flow::Again,
                Err(refusal) => {
                    self.resp_error(id, refusal.code(), refusal, env);
                    Flow::Taken
                }
            };
            if matches!(flow, Flow::Again) {
                return at;
            }
            at += consumed;
            let conn = &self.conns[id.index as usize];
            if conn.closing {
                return bytes.len();
            }
            if conn.is_waiting() || at == bytes.len() {
                return at;
            }
        }
    }

    fn cannot_follow(&mut self, id: ConnId, bytes: &[u8], env: &mut impl Env) -> usize {
        self.stats.protocol_errors += 1;
        self.close(id, env);
        bytes.len()
    }

    fn command(&mut self, id: ConnId, request: Request<'_>, env: &mut impl Env) -> Flow {
        match request {
            Request::Query(names) => self.names_unit(id, op::QUERY, names, RespShape::Query),
            Request::Get(name) => {
                self.lock_unit(id, (op_code::LOCK_GET, name), &[], RespShape::Get)
            }
            Request::Register { names, mode, replicated } => {
                self.register_unit(id, names, (mode, replicated), env)
            }
            Request::Release { names, token: None } => {
                self.names_unit(id, op::RELEASE, names, RespShape::Count)
            }
            Request::Release { names, token: Some(token) } => {
                let code = (op::RELEASE, op::RELEASE_TOKEN);
                self.unit_of_each(names, (id, RespShape::Count), |shard, name| {
                    shard.checked_op_with(id, code, name, |_| token.0)
                })
            }
            Request::Lock { name, value, lease } => {
                let kept = self.lock_fields(id, lease, value);
                self.lock_unit(id, (op_code::LOCK_SET, name), &kept, RespShape::Set)
            }
            Request::Del(names) => self.names_unit(id, op_code::LOCK_DEL, names, RespShape::Count),
            Request::Exists(names) => self.names_unit(id, op::QUERY, names, RespShape::Exists),
            Request::Expire { name, lease } => {
                let kept = lease.0.to_le_bytes();
                self.lock_unit(id, (op_code::LOCK_EXPIRE, name), &kept, RespShape::Count)
            }
            Request::Ttl { name, unit } => {
                let unit_ms = if unit == TimeUnit::Ms { 1 } else { 1_000 };
                self.lock_unit(id, (op_code::LOCK_LEFT, name), &[], RespShape::Left { unit_ms })
            }
            Request::Script(call) => {
                let (code, kept) = self.script_op(id, call.act, call.value);
                let script = call.script;
                let returns = [script.done.into(), script.absent.into(), script.other.into()];
                self.lock_unit(id, (code, call.name), &kept, RespShape::Script(returns))
            }
            Request::Renew(proofs) => self.renew_unit(id, proofs),
            Request::DbSize => {
                let allowed = self.check_sees_all(id);
                self.shards_unit(id, op_code::DB_SIZE, allowed, RespShape::Total)
            }
            Request::Client(Client::List) => self.clients_unit(id, env),
            other => self.waited(id, other, env),
        }
    }

    /// Commands on names that are waited for, described, moved, watched or written to.
    fn waited(&mut self, id: ConnId, request: Request<'_>, env: &mut impl Env) -> Flow {
        match request {
            Request::Wait { name, mode, ms } => self.wait_unit(id, name, (mode, ms), env),
            Request::Meta(name) => {
                let op = self.checked_op(id, op::META, name);
                self.op_unit(id, op, RespShape::Meta)
            }
            Request::SetMeta { name, bytes, version } => {
                let flags = if version.is_some() { op::SET_META_VERSION } else { 0 };
                let op = self.set_meta_op(id, (flags, version.unwrap_or(0)), bytes, name);
                self.op_unit(id, op, RespShape::Version)
            }
            Request::Transfer { to, names, token } => {
                self.unit_of_each(names, (id, RespShape::Register), |shard, name| {
                    shard.transfer_op(id, (to, token), name)
                })
            }
            Request::Revoke { name, to } => {
                let op = self.revoke_op(id, to, name);
                let shape = if to.is_some() { RespShape::Granted } else { RespShape::Count };
                self.op_unit(id, op, shape)
            }
            Request::Send(send) => {
                let Send { to, payload, receipt, source } = send;
                let target = match to {
                    SendTo::Name(name) => Target::Name(name),
                    SendTo::Session(session) => Target::Session(session),
                };
                let sending = Sending { receipt, source, target };
                let op = self.send_op(id, &sending, &mut Repeat::of(Some(payload)));
                self.op_unit(id, op, RespShape::Sent)
            }
            Request::Watch { filters, snapshot, kinds }
                if self.resp_version(id) == Version::Resp3 =>
            {
                self.watch_unit(id, filters, (snapshot, kinds), env)
            }
            other => self.served(id, other, env),
        }
    }

    /// Commands that are single ops served by themselves, and those that are answered at once.
    fn served(&mut self, id: ConnId, request: Request<'_>, env: &mut impl Env) -> Flow {
        let mut body = Vec::new();
        let (code, flags, shape) = match request {
            Request::Broadcast { payload, receipt } => {
                body.extend_from_slice(payload);
                let flags = if receipt { op::SEND_RECEIPT } else { 0 };
                (op::BROADCAST, flags, RespShape::Broadcast)
            }
            Request::Open(open) => (op::OPEN, put_open(&open, &mut body), RespShape::Opened),
            Request::Close(proof) => {
                if let Some(proof) = proof {
                    body.put_u64(proof.session.0);
                    body.extend_from_slice(&proof.secret.0);
                }
                (op::CLOSE, 0, RespShape::Done)
            }
            Request::Attach(proof) => {
                body.put_u64(proof.session.0);
                body.extend_from_slice(&proof.secret.0);
                (op::ATTACH, 0, RespShape::Done)
            }
            Request::Session(session) => {
                let own = self.conns[id.index as usize].bound.map(|bound| bound.session);
                body.put_u64(session.or(own).map_or(0, |session| session.0));
                (op::SESSION, 0, RespShape::Session)
            }
            Request::Node(node) => {
                body.put_u64(node.0);
                (op::NODE, 0, RespShape::Session)
            }
            Request::Sessions { cursor, count } => {
                body.put_u64(cursor);
                body.put_u16(count);
                (op::SESSIONS, 0, RespShape::Sessions)
            }
            Request::Kill(session) => {
                body.put_u64(session.0);
                (op::KILL, 0, RespShape::Done)
            }
            Request::List(page) => {
                body.put_u16(page.slot.number());
                body.put_u16(page.count);
                body.put_short_bytes(page.after);
                body.put_short_bytes(page.prefix);
                (op::LIST, 0, RespShape::List)
            }
            Request::Waiters { name, count } => {
                body.put_u16(count);
                body.extend_from_slice(name);
                (op::WAITERS, 0, RespShape::Waiters)
            }
            Request::Cluster(Cluster::CountKeysInSlot(slot)) => {
                body.put_u16(slot.number());
                (op_code::SLOT_COUNT, 0, RespShape::Number)
            }
            Request::ShardStats(shard) => {
                body.put_u8(shard.0);
                (op::SHARD_STATS, 0, RespShape::Text)
            }
            other => return self.at_once(id, other, env),
        };
        self.serve_unit(id, shape, &[RawOp { code, flags, body: &body }], env)
    }

    /// A watch for each filter.
    fn watch_unit(
        &mut self,
        id: ConnId,
        filters: Names<'_>,
        (snapshot, kinds): (bool, u8),
        env: &mut impl Env,
    ) -> Flow {
        let bodies: Vec<Vec<u8>> =
            filters.iter().map(|filter| [&[kinds], filter].concat()).collect();
        let (code, flags) = (op_code::WATCH_FILTER, u8::from(snapshot) * op::WATCH_SNAPSHOT);
        let ops: Vec<RawOp<'_>> = bodies.iter().map(|body| RawOp { code, flags, body }).collect();
        self.serve_unit(id, RespShape::Watched, &ops, env)
    }

    /// A unit of ops that are served by themselves.
    fn serve_unit(
        &mut self,
        id: ConnId,
        shape: RespShape,
        ops: &[RawOp<'_>],
        env: &mut impl Env,
    ) -> Flow {
        if !self.may_serve(id) {
            return Flow::Again;
        }
        let unit = self.pendings.begin(id, Shape::Resp(shape), 0, ops.len());
        self.conns[id.index as usize].queue.push_back(unit);
        self.execute(env);
        for (index, op) in (0..).zip(ops) {
            self.turn_ops += SERVED_OP_COST;
            self.serve_raw(id, (unit, index), *op, env);
        }
        Flow::Taken
    }

    /// A command that is answered from what this shard knows, once all before it is answered.
    fn at_once(&mut self, id: ConnId, request: Request<'_>, env: &mut impl Env) -> Flow {
        if self.must_wait(id) {
            return Flow::Again;
        }
        if self.is_spent() {
            self.later(id);
            return Flow::Again;
        }
        self.execute(env);
        let before = env.backlog(id);
        self.answer_at_once(id, request, env);
        self.turn_ops += env.backlog(id).saturating_sub(before) / TEXT_BYTES_PER_OP;
        Flow::Taken
    }

    /// Whether units of the connection are still unanswered; it then waits until they are.
    fn must_wait(&mut self, id: ConnId) -> bool {
        let conn = &mut self.conns[id.index as usize];
        let waits = !conn.queue.is_empty();
        if waits {
            conn.waits = Waits::Barrier;
        }
        waits
    }

    fn names_unit(&mut self, id: ConnId, code: u8, names: Names<'_>, shape: RespShape) -> Flow {
        self.unit_of_each(names, (id, shape), |shard, name| shard.checked_op(id, code, name))
    }

    /// A unit of one op for each name.
    #[inline]
    fn unit_of_each(
        &mut self,
        names: Names<'_>,
        (id, shape): (ConnId, RespShape),
        mut op_for: impl FnMut(&mut Self, &[u8]) -> Op,
    ) -> Flow {
        let first = self.batch.ops.len();
        for name in names.iter() {
            let op = op_for(self, name);
            self.add_op(op, first);
        }
        self.resp_unit(id, first, shape)
    }

    fn register_unit(
        &mut self,
        id: ConnId,
        names: Names<'_>,
        (mode, replicated): (Mode, bool),
        env: &mut impl Env,
    ) -> Flow {
        let (mode, permits) = mode_of(mode);
        let flags = mode | if replicated { op::REGISTER_REPLICATED } else { 0 };
        let Some(refused) = self.claimant(id, flags, env) else { return Flow::Again };
        let shape = RespShape::Register;
        let flow = self.unit_of_each(names, (id, shape), |shard, name| match refused {
            Err(status) => answered(status),
            Ok(()) => shard.claim_op(id, (op::REGISTER, flags), (0, permits), name),
        });
        if matches!(flow, Flow::Taken) {
            self.conns[id.index as usize].refused = 0;
        }
        flow
    }

    /// H3: nothing of the connection is executed behind this until the wait has ended.
    fn wait_unit(
        &mut self,
        id: ConnId,
        name: &[u8],
        (mode, ms): (Mode, u32),
        env: &mut impl Env,
    ) -> Flow {
        let (flags, permits) = mode_of(mode);
        let op = match self.claimant(id, flags, env) {
            None => return Flow::Again,
            Some(Err(status)) => answered(status),
            Some(Ok(())) => {
                let flags = flags | op_code::WAIT_BLOCKS;
                self.claim_op(id, (op::WAIT, flags), (ms, permits), name)
            }
        };
        let waits = op.code == op::WAIT;
        let flow = self.op_unit(id, op, RespShape::Granted);
        if matches!(flow, Flow::Taken) {
            let conn = &mut self.conns[id.index as usize];
            conn.refused = 0;
            if let Some(unit) = conn.queue.back().filter(|_| waits) {
                conn.waits = Waits::Op(*unit, 0);
                self.pendings.set_waits_for(*unit, name);
            }
        }
        flow
    }

    /// Who claims names has a session: a connection without one gets a bare one. `None` if it has
    /// to wait for that; an error refuses the claim.
    fn claimant(&mut self, id: ConnId, flags: u8, env: &mut impl Env) -> Option<Result<(), u8>> {
        let conn = &self.conns[id.index as usize];
        let checked = check_register_flags(flags);
        if checked.is_err() || conn.bound.is_some() || conn.grantee.is_none() {
            return Some(checked);
        }
        if conn.refused == 0 {
            self.execute(env);
            self.open_bare(id, env);
        }
        let conn = &self.conns[id.index as usize];
        match conn.bound {
            _ if conn.is_waiting() => None,
            Some(_) => Some(Ok(())),
            None => Some(Err(conn.refused)),
        }
    }

    /// A unit of one op.
    fn op_unit(&mut self, id: ConnId, op: Op, shape: RespShape) -> Flow {
        let first = self.batch.ops.len();
        self.add_op(op, first);
        self.resp_unit(id, first, shape)
    }

    /// One op on a lock, with what it needs beside its name.
    fn lock_unit(
        &mut self,
        id: ConnId,
        (code, name): (u8, &[u8]),
        kept: &[u8],
        shape: RespShape,
    ) -> Flow {
        let first = self.batch.ops.len();
        let waits = self.may_park(code, kept);
        let mut op = self.checked_op(id, code, name);
        let allowed = op.code == code;
        if allowed {
            op.extra = self.batch.keep(kept);
            let is_allowed = op_code::may_raise(code) && !waits;
            op.flags = if is_allowed { op_code::LEASE_ALLOWED } else { 0 };
        }
        self.add_op(op, first);
        let flow = self.resp_unit(id, first, shape);
        if matches!(flow, Flow::Taken) && allowed && waits {
            // H2: what comes behind it waits until it was done.
            let conn = &mut self.conns[id.index as usize];
            if let Some(unit) = conn.queue.back() {
                conn.waits = Waits::Op(*unit, 0);
            }
        }
        flow
    }

    /// Whether an op on a lock may have to wait for the state directory.
    fn may_park(&self, code: u8, kept: &[u8]) -> bool {
        let lease = match (code, kept.first_chunk()) {
            // What is left of its lease is known where the name is.
            (op_code::LOCK_EXTEND_IF, _) => self.sessions.lease_max(),
            (_, Some(ns)) if op_code::may_raise(code) => Span(u64::from_le_bytes(*ns)),
            _ => return false,
        };
        self.sessions.lease_to_raise(lease).is_some()
    }

    fn renew_unit(&mut self, id: ConnId, proofs: Proofs<'_>) -> Flow {
        let first = self.batch.ops.len();
        let renew = |shard: &mut Self, body: &[u8]| {
            let op = shard.renew_op(id, body);
            shard.add_op(op, first);
        };
        if proofs.is_empty() {
            renew(self, &[]);
        }
        for proof in proofs.iter() {
            let mut body = [0; 24];
            body[..8].copy_from_slice(&proof.session.0.to_le_bytes());
            body[8..].copy_from_slice(&proof.secret.0);
            renew(self, &body);
        }
        self.resp_unit(id, first, RespShape::Renew)
    }

    /// Every shard answers one op about itself, if the connection may ask.
    fn shards_unit(
        &mut self,
        id: ConnId,
        code: u8,
        allowed: Result<(), u8>,
        shape: RespShape,
    ) -> Flow {
        let first = self.batch.ops.len();
        if let Err(status) = allowed {
            self.add_op(answered(status), first);
        } else {
            for shard in 0..self.shards() {
                let op = Op { code, target: shard as u8, ..answered(0) };
                self.add_op(op, first);
            }
        }
        self.resp_unit(id, first, shape)
    }

    /// Every shard lists its connections: an operator sees all, anybody else its own.
    fn clients_unit(&mut self, id: ConnId, env: &mut impl Env) -> Flow {
        let shards: Vec<[u8; 1]> = (0..self.shards()).map(|shard| [shard as u8]).collect();
        let of_shard = |body| RawOp { code: op_code::CLIENT_LIST, flags: 0, body };
        let ops: Vec<RawOp<'_>> = shards.iter().map(|shard| of_shard(shard.as_slice())).collect();
        self.serve_unit(id, RespShape::Lines, &ops, env)
    }

    fn script_op(&self, id: ConnId, act: Act, value: &[u8]) -> (u8, Vec<u8>) {
        let with_span = |span: Span| {
            let mut kept = span.0.to_le_bytes().to_vec();
            kept.extend_from_slice(value);
            kept
        };
        match act {
            Act::Delete => (op_code::LOCK_DEL_IF, value.into()),
            Act::Expire(span) => (op_code::LOCK_EXPIRE_IF, with_span(span)),
            Act::Extend(span) => (op_code::LOCK_EXTEND_IF, with_span(span)),
            Act::Lock(span) => (op_code::LOCK_SET, self.lock_fields(id, span, value)),
            Act::LockOrExpire(span) => {
                (op_code::LOCK_SET_OR_EXPIRE, self.lock_fields(id, span, value))
            }
        }
    }

    /// What an op that may take a lock keeps: lease, principal, value.
    fn lock_fields(&self, id: ConnId, lease: Span, value: &[u8]) -> Vec<u8> {
        let mut kept = Vec::with_capacity(LOCK_SET_FIXED + value.len());
        kept.put_u64(lease.0);
        kept.put_u32(self.principal_of(id).0);
        kept.extend_from_slice(value);
        kept
    }

    /// Adds an op to the unit that starts at `first`.
    #[inline]
    fn add_op(&mut self, mut op: Op, first: usize) {
        op.index = (self.batch.ops.len() - first) as u16;
        self.batch.ops.push(op);
    }

    /// Makes the ops since `first` a unit: answered directly if all are local and nothing of the
    /// connection is ahead.
    #[inline]
    fn resp_unit(&mut self, id: ConnId, first: usize, shape: RespShape) -> Flow {
        let me = self.id().0;
        let ops = &self.batch.ops[first..];
        let local = ops.iter().all(|op| {
            (op.target == me || op.target == crate::parse::ANYWHERE) && !op_code::may_be_late(op)
        });
        let mut count = ops.len();
        if !local && let Some(op) = ops.iter().find(|op| self.is_crowded(op.target)) {
            self.starve(id, Some(op.target));
            self.batch.ops.truncate(first);
            return Flow::Again;
        }
        let shape = Shape::Resp(shape);
        let conn = &mut self.conns[id.index as usize];
        let source = if local && conn.queue.is_empty() {
            Source::Direct(id)
        } else {
            let unit = self.pendings.begin(id, shape, 0, count);
            conn.queue.push_back(unit);
            count = self.send_away(id, first, unit);
            if count == 0 {
                return Flow::Taken;
            }
            Source::Pending(unit)
        };
        self.batch.units.push(Unit {
            source,
            shape,
            bound: self.conns[id.index as usize].bound,
            first: first as u32,
            count: count as u32,
            sequence: 0,
        });
        Flow::Taken
    }

    /// Answers an error in the command's place.
    fn resp_error(
        &mut self,
        id: ConnId,
        code: Code,
        text: impl core::fmt::Display,
        env: &mut impl Env,
    ) {
        self.execute(env);
        let version = self.resp_version(id);
        Writer::new(env.out(id), version).error(code, text);
    }

    pub(crate) fn resp_version(&self, id: ConnId) -> Version {
        match self.conns.get(id.index as usize).map(|conn| conn.speech) {
            Some(Speech::Resp3) => Version::Resp3,
            _ => Version::Resp2,
        }
    }
}

/// A mode as an op has it: its number, and the permits.
const fn mode_of(mode: Mode) -> (u8, u32) {
    match mode {
        Mode::Exclusive => (op::MODE_EXCLUSIVE, 0),
        Mode::Shared => (op::MODE_SHARED, 0),
        Mode::Counting(permits) => (op::MODE_COUNTING, permits),
    }
}

/// The body of a native OPEN; returns its flags.
fn put_open(open: &Open<'_>, body: &mut Vec<u8>) -> u8 {
    body.put_u64(open.node.0);
    body.put_u32(open.lease.map_or(0, |lease| lease.as_ms_ceil() as u32));
    body.extend_from_slice(&open.secret.map_or([0; 16], |secret| secret.0));
    body.put_short_bytes(open.address);
    body.put_long_bytes(open.metadata);
    let resume = if open.secret.is_some() { op::OPEN_RESUME } else { 0 };
    let bare = if open.bare { op::OPEN_BARE } else { 0 };
    let gateway = if open.gateway { op::OPEN_GATEWAY } else { 0 };
    resume | bare | gateway
}
