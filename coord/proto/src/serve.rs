//! Ops that need more than a status: sessions, lists, maps, authentication.
//!
//! They are rare, so each is served by itself: the batch before it is executed first, and its
//! answer goes through the pending unit of its frame, wherever it is given.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use ringway_core::limits::{ADDRESS_BYTES_MAX, METADATA_BYTES_MAX, NAME_BYTES_MAX};
use ringway_core::slot::SLOTS;
use ringway_core::wire::{Put, Reader, Truncated};
use ringway_core::{ConnId, NodeId, Region, Secret, SessionId, ShardId, Slot, Span};
use ringway_table::Name;

use crate::access::Access;
use crate::conn::{Speech, Waits};
use crate::env::Env;
use crate::gather::{GATHER_BYTES, Gather, record_starts};
use crate::handle::Bound;
use crate::jobs::Work;
use crate::lanes::LaneId;
use crate::list::{ListAsk, ListJob, Want};
use crate::mail::{self, Asker};
use crate::op_code;
use crate::outcome::Answer;
use crate::parse::Frame;
use crate::sessions::{Act, ConnRef, Open, Opener, Principal, Ticket};
use crate::shard::Shard;
use crate::stats::{is_forwarded_by_slot, verb_index};
use crate::turn::Op;
use crate::waiters::WAITERS_MAX;
use crate::wire::{RawOp, op, status};

/// Bytes of session records in one page.
const SESSIONS_PAGE_BYTES: usize = 96 * 1024;
/// Sessions in one page.
const SESSIONS_PAGE_MAX: usize = 1024;

/// Where an op is served.
enum Place {
    /// On the shard of the connection, at once.
    Answer(Answer),
    /// On the shard that owns a slot, or has a number.
    At(ShardId),
    /// On the shard of the connection; the answer comes when it is there.
    Watch,
}

impl<R: Region, A: Access> Shard<R, A> {
    /// Serves one op of a frame. The connection waits if the op may change its session.
    pub(crate) fn serve_op(
        &mut self,
        id: ConnId,
        frame: &Frame<'_>,
        raw: RawOp<'_>,
        env: &mut impl Env,
    ) {
        let pending = frame.pending.expect("a served op has a pending unit");
        self.serve_raw(id, (pending, frame.index), raw, env);
    }

    /// Serves one op whose answer is reply `index` of `pending`.
    pub(crate) fn serve_raw(
        &mut self,
        id: ConnId,
        (pending, index): (u32, u16),
        raw: RawOp<'_>,
        env: &mut impl Env,
    ) {
        let unit = self.pendings.id(pending);
        let ticket = Ticket { shard: self.id(), pending: unit.0, generation: unit.1, index };
        let place = match self.place_of(id, &raw) {
            Ok(place) => place,
            Err(Truncated) => Place::Answer(Answer::plain(status::MALFORMED)),
        };
        let own_close = raw.code == op::CLOSE && raw.body.is_empty();
        let binds = matches!(raw.code, op::OPEN | op::ATTACH | op::LANE) || own_close;
        match place {
            Place::Answer(answer) => self.deliver(ticket, &answer, env),
            Place::Watch => self.serve_watch(id, ticket, &raw, env),
            Place::At(shard) => {
                if binds {
                    self.conns[id.index as usize].waits = Waits::Op(pending, index);
                }
                let asker = Asker { pending: unit, ..self.asker_of(id) };
                if raw.code == op::LANE {
                    self.await_lane(id, pending);
                }
                if own_close {
                    // Whatever the answer is, the session is over for this connection.
                    self.conns[id.index as usize].bound = None;
                }
                if shard == self.id() {
                    self.serve_here(&asker, ticket, &raw, env);
                    self.settle(env);
                } else {
                    self.forward(shard, &asker, (index, &raw), env);
                }
            }
        }
    }

    fn forward(
        &mut self,
        shard: ShardId,
        asker: &Asker,
        (index, raw): (u16, &RawOp<'_>),
        env: &mut impl Env,
    ) {
        let op = Op { index, code: raw.code, flags: raw.flags, ..crate::parse::answered(0) };
        self.requests.add(shard, asker, &op, |out| out.extend_from_slice(raw.body));
        self.requests.post(env);
        self.in_flight[shard.index()] += 1;
        self.stats.forwarded_out += u64::from(is_forwarded_by_slot(raw.code));
    }

    /// What can be answered where the connection is, and which shard serves the rest.
    fn place_of(&mut self, id: ConnId, raw: &RawOp<'_>) -> Result<Place, Truncated> {
        let mut body = Reader::new(raw.body);
        let plain = |status| Ok(Place::Answer(Answer::plain(status)));
        let known = self.conns[id.index as usize].grantee.is_some();
        if !known && !matches!(raw.code, op::AUTH | op::PING) {
            return plain(status::NOAUTH);
        }
        if raw.flags & !flags_of(raw.code) != 0 && op::is_known(raw.code) {
            return plain(status::UNSUPPORTED);
        }
        let at_slot = |slot: Slot| Place::At(self.start.map.shard_of(slot));
        Ok(match raw.code {
            op::OPEN | op::ATTACH if self.conns[id.index as usize].laned => {
                return plain(status::REFUSED);
            }
            op::OPEN | op::NODE => at_slot(Slot::of(&body.u64()?.to_le_bytes())),
            op::CLOSE if raw.body.is_empty() => match self.conns[id.index as usize].bound {
                Some(bound) => Place::At(bound.handle.home()),
                None => return plain(status::NOSESSION),
            },
            op::LANE if raw.body.len() != 4 => return plain(status::MALFORMED),
            op::LANE => match self.conns[id.index as usize].bound {
                Some(bound) => match self.lane_of(id, (bound, body.u32()?)) {
                    None => Place::At(bound.handle.home()),
                    Some(answer) => Place::Answer(answer),
                },
                None => return plain(status::NOSESSION),
            },
            op::CLOSE | op::ATTACH | op::SESSION | op::KILL => {
                at_slot(SessionId(body.u64()?).slot())
            }
            op::WAITERS | op::WAITS | op::LIST | op::SESSIONS => {
                return self.place_of_page(id, raw.code, &mut body);
            }
            op_code::SLOT_COUNT if self.speech(id) != Speech::Native => {
                if let Err(status) = self.check_sees_all(id) {
                    return plain(status);
                }
                at_slot(Slot::from_bits(body.u16()?))
            }
            op_code::CLIENT_LIST if self.speech(id) != Speech::Native => {
                Place::At(ShardId(body.u8()?))
            }
            op::SHARD_STATS | op::BROADCAST if self.check_sees_all(id).is_err() => {
                return plain(status::DENIED);
            }
            op::BROADCAST => Place::At(crate::broadcast::FIRST),
            op::SHARD_STATS => match usize::from(body.u8()?) {
                shard if shard < self.shards() => Place::At(ShardId(shard as u8)),
                _ => return plain(status::MALFORMED),
            },
            op::WATCH | op::UNWATCH => Place::Watch,
            op_code::WATCH_FILTER if self.speech(id) != Speech::Native => Place::Watch,
            op::PING if raw.body.len() <= 64 => Place::Answer(Answer::data(raw.body.into())),
            op::PING => return plain(status::MALFORMED),
            op::SHARD_MAP => Place::Answer(Answer::data(self.shard_map())),
            op::SERVER => Place::Answer(Answer::data(self.server_json().into_bytes())),
            op::AUTH => {
                let (user, password) = (body.short_bytes()?, body.short_bytes()?);
                let status = self.authenticate(id, user, password);
                return plain(status);
            }
            _ => return plain(status::UNKNOWN_OP),
        })
    }

    /// Which shard serves a page of names, of sessions, or of who waits.
    fn place_of_page(
        &mut self,
        id: ConnId,
        code: u8,
        body: &mut Reader<'_>,
    ) -> Result<Place, Truncated> {
        let plain = |status| Ok(Place::Answer(Answer::plain(status)));
        let at_slot = |slot: Slot| Place::At(self.start.map.shard_of(slot));
        Ok(match code {
            op::WAITERS => {
                let (most, name) = (body.u16()?, body.rest());
                if name.is_empty() || name.len() > NAME_BYTES_MAX {
                    return plain(status::BADNAME);
                }
                if let Err(status) = self.check_access(id, name) {
                    return plain(status);
                }
                if usize::from(most) > WAITERS_MAX {
                    return plain(status::MALFORMED);
                }
                at_slot(Slot::of(name))
            }
            op::LIST => match usize::from(body.u16()?) {
                slot if slot < SLOTS => at_slot(Slot::from_bits(slot as u16)),
                _ => return plain(status::MALFORMED),
            },
            op::WAITS if self.check_sees_all(id).is_err() => return plain(status::DENIED),
            _ => match (body.u64()? >> 32) as usize {
                shard if shard < self.shards() => Place::At(ShardId(shard as u8)),
                _ => return plain(status::MALFORMED),
            },
        })
    }

    /// Checks credentials and remembers the identity.
    pub(crate) fn authenticate(&mut self, id: ConnId, user: &[u8], password: &[u8]) -> u8 {
        match self.access.verify(user, password) {
            Some(grantee) => {
                let conn = &self.conns[id.index as usize];
                // A session belongs to the identity that opened it, and so does its connection.
                if conn.bound.is_some() && conn.grantee != Some(grantee) {
                    return status::REFUSED;
                }
                self.conns[id.index as usize].grantee = Some(grantee);
                status::OK
            }
            None => {
                self.stats.auth_failures += 1;
                status::REFUSED
            }
        }
    }

    /// Serves an op on the shard that decides over it.
    pub(crate) fn serve_here(
        &mut self,
        asker: &Asker,
        ticket: Ticket,
        raw: &RawOp<'_>,
        env: &mut impl Env,
    ) {
        self.stats.verbs[verb_index(raw.code)] += 1;
        let answer = match self.serve_session(asker, ticket, raw, env) {
            Ok(None) => return,
            Ok(Some(answer)) => answer,
            Err(Truncated) => Answer::plain(status::MALFORMED),
        };
        self.acts.push(Act::Answer(ticket, answer));
    }

    /// The answer, or `None` if it comes later.
    fn serve_session(
        &mut self,
        asker: &Asker,
        ticket: Ticket,
        raw: &RawOp<'_>,
        env: &mut impl Env,
    ) -> Result<Option<Answer>, Truncated> {
        let mut body = Reader::new(raw.body);
        let answer = match raw.code {
            op::OPEN => return self.serve_open(asker, ticket, raw, env),
            op::CLOSE if raw.body.is_empty() => match asker.bound {
                Some(bound) => {
                    self.sessions.close(bound.session, None, ticket, &mut self.acts);
                    return Ok(None);
                }
                None => Answer::plain(status::NOSESSION),
            },
            op::CLOSE => {
                let (session, secret) = (SessionId(body.u64()?), Secret(body.array()?));
                self.sessions.close(session, Some(&secret), ticket, &mut self.acts);
                return Ok(None);
            }
            op::ATTACH => {
                let (session, secret) = (SessionId(body.u64()?), Secret(body.array()?));
                match self.sessions.attach(session, &secret, asker.principal) {
                    Ok(bound) => {
                        let answer = Answer::plain(status::OK);
                        self.acts.push(Act::Bind { ticket, bound, bare: false, answer });
                        return Ok(None);
                    }
                    Err(status) => Answer::plain(status),
                }
            }
            op::LANE => {
                let session = asker.bound.map_or(SessionId(0), |bound| bound.session);
                let id = LaneId { session, number: body.u32()? };
                match self.serve_lane((id, asker.conn), ticket, env) {
                    Ok(()) => return Ok(None),
                    Err(status) => Answer::plain(status),
                }
            }
            op::KILL if !asker.operator => Answer::plain(status::DENIED),
            op::KILL => {
                let session = SessionId(body.u64()?);
                let name = self.access.by_principal(asker.principal).map(|of| &of.name[..]);
                let who = name.unwrap_or_default().escape_ascii();
                self.audits.push(format!("user \"{who}\" ends session {session}"));
                self.sessions.kill(session, ticket, &mut self.acts);
                return Ok(None);
            }
            op::SESSION => {
                return self.serve_record(ticket, SessionId(body.u64()?), viewer(asker), env);
            }
            op::NODE => match self.sessions.of_node(NodeId(body.u64()?)) {
                Some(session) => return self.serve_record(ticket, session, viewer(asker), env),
                None => Answer::plain(status::NOSESSION),
            },
            op::BROADCAST => return Ok(self.serve_broadcast(asker, ticket, raw, env)),
            _ => return self.serve_page(asker, ticket, raw, env),
        };
        Ok(Some(answer))
    }

    /// Lists, which are mostly jobs.
    fn serve_page(
        &mut self,
        asker: &Asker,
        ticket: Ticket,
        raw: &RawOp<'_>,
        env: &mut impl Env,
    ) -> Result<Option<Answer>, Truncated> {
        let mut body = Reader::new(raw.body);
        let work = match raw.code {
            op::SESSIONS => {
                let (cursor, most) = (body.u64()?, body.u16()?);
                Work::Sessions(cursor as u32 as usize, most.into(), viewer(asker))
            }
            op::LIST => match self.read_list(asker, &mut body)? {
                Ok(ask) => Work::List(ListJob::new(ask)),
                Err(status) => return Ok(Some(Answer::plain(status))),
            },
            op::WAITERS => {
                let (most, name) = (usize::from(body.u16()?), body.rest());
                let name = Name::new(name).expect("checked when parsed: 1 to 255 bytes");
                let (now, hash) = (self.now(), self.names.table().hash(&name));
                let found = self.names.waiters(now, (hash, &name), most);
                return Ok(Some(found.map_or(Answer::plain(status::FREE), Answer::data)));
            }
            op::WAITS => {
                let (cursor, most) = (body.u64()?, usize::from(body.u16()?));
                Work::Waits(cursor as u32, most.clamp(1, SESSIONS_PAGE_MAX))
            }
            op_code::SLOT_COUNT => Work::List(ListJob::new(count_of_slot(body.u16()?))),
            op_code::CLIENT_LIST => Work::Clients(0, Vec::new(), viewer(asker)),
            op::SHARD_STATS => Work::Stats,
            _ => return Ok(Some(Answer::plain(status::UNKNOWN_OP))),
        };
        Ok(self.begin_job(ticket, work, env))
    }

    fn serve_open(
        &mut self,
        asker: &Asker,
        ticket: Ticket,
        raw: &RawOp<'_>,
        env: &mut impl Env,
    ) -> Result<Option<Answer>, Truncated> {
        let from = ConnRef { shard: ticket.shard, conn: asker.conn };
        let who = Opener { principal: asker.principal, from, ticket };
        let open = match read_open(raw)? {
            Ok(open) => open,
            Err(status) => return Ok(Some(Answer::plain(status))),
        };
        let (now, fresh) = (self.clock.now(), Secret(env.random()));
        self.sessions.open(now, who, &open, fresh, &mut self.acts);
        Ok(None)
    }

    fn serve_record(
        &mut self,
        ticket: Ticket,
        session: SessionId,
        viewer: Option<Principal>,
        env: &mut impl Env,
    ) -> Result<Option<Answer>, Truncated> {
        if viewer.is_some() && self.sessions.principal_of(session) != viewer {
            return Ok(Some(Answer::plain(status::NOSESSION)));
        }
        let Some((record, bound)) = self.sessions.record(self.clock.now(), session) else {
            return Ok(Some(Answer::plain(status::NOSESSION)));
        };
        let gather =
            Gather { ticket, data: record, records: alloc::vec![0], missing: self.shards() - 1 };
        Ok(self.gather(gather, &[bound], env))
    }

    /// A page of the sessions from a place on. The answer, or `None` if it comes later.
    pub(crate) fn page_of_sessions(
        &mut self,
        ticket: Ticket,
        (from, most): (usize, usize),
        viewer: Option<Principal>,
        env: &mut impl Env,
    ) -> Option<Answer> {
        let bounds_max = (most.clamp(1, SESSIONS_PAGE_MAX), SESSIONS_PAGE_BYTES);
        let (records, sessions, next) =
            self.sessions.page(self.clock.now(), from, bounds_max, viewer);
        let shard = self.id().index() as u64;
        let cursor = match next {
            Some(local) => shard << 32 | local as u64,
            None if shard as usize + 1 < self.shards() => (shard + 1) << 32,
            None => 0,
        };
        let mut data = Vec::with_capacity(10 + records.len());
        data.put_u64(cursor);
        data.put_u16(sessions.len() as u16);
        let starts = record_starts(&records, data.len(), &sessions);
        data.extend_from_slice(&records);
        let gather = Gather { ticket, data, records: starts, missing: self.shards() - 1 };
        self.gather(gather, &sessions, env)
    }

    /// Counts the sessions' names here, and asks the other shards for theirs.
    fn gather(
        &mut self,
        mut gather: Gather,
        sessions: &[Bound],
        env: &mut impl Env,
    ) -> Option<Answer> {
        for (index, bound) in sessions.iter().enumerate() {
            gather.add(index, self.names.count_of(*bound));
        }
        if gather.missing == 0 || sessions.is_empty() {
            return Some(Answer::data(gather.data));
        }
        let room = self.has_room(GATHER_BYTES, env);
        let Some(index) = room.then(|| self.gathers.begin(gather).ok()).flatten() else {
            return Some(Answer::plain(status::BUSY));
        };
        let mut out = Vec::with_capacity(8 + 12 * sessions.len());
        out.put_u8(mail::COUNT);
        out.put_u32(index);
        out.put_u16(sessions.len() as u16);
        for bound in sessions {
            mail::put_bound(&mut out, Some(*bound));
        }
        for shard in (0..self.shards()).filter(|shard| *shard != self.id().index()) {
            env.post(ShardId(shard as u8), &out);
        }
        None
    }

    /// Counts names for a session's home.
    pub(crate) fn count_for(
        &mut self,
        from: ShardId,
        reader: &mut Reader<'_>,
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        let (index, count) = (reader.u32()?, reader.u16()?);
        let mut out = Vec::with_capacity(8 + 8 * usize::from(count));
        out.put_u8(mail::COUNTED);
        out.put_u32(index);
        out.put_u16(count);
        for _ in 0..count {
            out.put_u64(self.names.count_of(mail::session(reader)?));
        }
        env.post(from, &out);
        Ok(())
    }

    /// Takes the counts of one shard; the last ones complete the answer.
    pub(crate) fn take_counts(
        &mut self,
        reader: &mut Reader<'_>,
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        let (index, count) = (reader.u32()?, reader.u16()?);
        let Some(gather) = self.gathers.get_mut(index) else { return Ok(()) };
        for at in 0..usize::from(count) {
            gather.add(at, reader.u64()?);
        }
        gather.missing -= 1;
        if gather.missing == 0
            && let Some(gather) = self.gathers.take(index)
        {
            self.deliver(gather.ticket, &Answer::data(gather.data), env);
        }
        Ok(())
    }

    /// A page of who waits for whom at this shard, and where to go on.
    pub(crate) fn page_of_waits(&self, from: u32, most: usize) -> Answer {
        let (next, edges) = self.names.waits_page(self.now(), from, most);
        let shard = self.id().index() as u64;
        let cursor = match next {
            0 if shard as usize + 1 < self.shards() => (shard + 1) << 32,
            0 => 0,
            at => shard << 32 | u64::from(at),
        };
        Answer::data([&cursor.to_le_bytes(), edges.as_slice()].concat())
    }

    fn read_list(
        &self,
        asker: &Asker,
        body: &mut Reader<'_>,
    ) -> Result<Result<ListAsk, u8>, Truncated> {
        let (slot, most) = (body.u16()?, usize::from(body.u16()?));
        let (after, prefix) = (body.short_bytes()?, body.short_bytes()?);
        if !body.is_empty() || most == 0 || most > ringway_core::limits::FRAME_OPS_MAX {
            return Ok(Err(status::MALFORMED));
        }
        // A restricted identity lists within one of its namespaces, whole prefix given.
        if !self.covers_prefix(asker, prefix) {
            return Ok(Err(status::DENIED));
        }
        let slot_last = self.start.map.run(self.id()).1;
        let (after, prefix) = (after.into(), prefix.into());
        Ok(Ok(ListAsk { slot, slot_last, after, prefix, want: Want::Page(most) }))
    }

    fn covers_prefix(&self, asker: &Asker, prefix: &[u8]) -> bool {
        let grantee = self.access.by_principal(asker.principal);
        grantee.is_some_and(|grantee| {
            grantee.sees_all() || (prefix.contains(&b'/') && grantee.covers(prefix))
        })
    }

    /// `SHARD_MAP`: version, shards, runs of slots.
    pub(crate) fn shard_map(&self) -> Vec<u8> {
        let map = &self.start.map;
        let mut out = Vec::with_capacity(16 + 7 * map.shards());
        out.put_u64(map.version);
        out.put_u8(map.shards() as u8);
        out.put_u16(map.shards() as u16);
        for shard in 0..map.shards() {
            let (first, last) = map.run(ShardId(shard as u8));
            out.put_u16(first);
            out.put_u16(last);
            out.put_u8(shard as u8);
            out.put_u16(self.start.own_ports.get(shard).copied().unwrap_or(0));
        }
        out
    }

    /// `SERVER`: what this process is.
    pub(crate) fn server_json(&self) -> String {
        let wait = self.names.grants_from().since(self.now()).as_ms_ceil();
        let state = match (self.is_stopping(), wait) {
            (true, _) => "draining",
            (false, 0) => "ready",
            (false, _) => "starting",
        };
        format!(
            "{{\"server\":\"ringway\",\"version\":\"{}\",\"epoch\":{},\"shards\":{},\
             \"state\":\"{state}\",\"starting_ms\":{wait}}}",
            env!("CARGO_PKG_VERSION"),
            self.start.epoch.0,
            self.shards(),
        )
    }
}

/// What counts the names of one slot.
fn count_of_slot(slot: u16) -> ListAsk {
    let (after, prefix) = (Vec::new(), Vec::new());
    ListAsk { slot, slot_last: slot, after, prefix, want: Want::Count }
}

/// The flags of an op that is served by itself; those of OPEN are looked at later.
const fn flags_of(code: u8) -> u8 {
    match code {
        op::OPEN | op::WATCH => u8::MAX,
        op::BROADCAST => op::SEND_RECEIPT,
        _ => 0,
    }
}

/// Whose sessions an asker sees: an operator sees all, anybody else its own.
fn viewer(asker: &Asker) -> Option<Principal> {
    (!asker.operator).then_some(asker.principal)
}

/// Reads the body of OPEN; the inner error is a status.
fn read_open<'a>(raw: &RawOp<'a>) -> Result<Result<Open<'a>, u8>, Truncated> {
    let mut body = Reader::new(raw.body);
    let (node, lease_ms) = (NodeId(body.u64()?), body.u32()?);
    let secret = Secret(body.array()?);
    let info = body.rest();
    let (address, metadata) = (body.short_bytes()?, body.long_bytes()?);
    let fits = address.len() <= ADDRESS_BYTES_MAX && metadata.len() <= METADATA_BYTES_MAX;
    if !fits || !body.is_empty() {
        return Ok(Err(status::MALFORMED));
    }
    let lease = Span::from_ms(u64::from(lease_ms));
    Ok(Ok(Open { flags: raw.flags, node, lease, secret, info }))
}

const _: () = assert!(NAME_BYTES_MAX == u8::MAX as usize, "names travel behind one length byte");
