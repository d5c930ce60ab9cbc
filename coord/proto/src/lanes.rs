//! Lanes: requests that may be sent again after a lost reply, and are executed once.
//!
//! A lane is one connection at a time, by which a session sends frames with growing sequence
//! numbers. Its replies are remembered, the youngest of them: who lost a connection opens the lane
//! on another one, sends again what was not answered, and gets the first answer to what was
//! executed. The hard case is a lane that is opened again while frames of the connection before are
//! still on their way between shards: those are waited for, and the connection is closed, before
//! the new one executes anything.
//!
//! The lane lives where its connection is, and travels to the next one: the session's home knows
//! who has it last, and tells that shard to hand it over.
//!
//! Invariants:
//! - L1  A lane is in one place: with an open connection, with one that has closed and whose units
//!   are not all answered, kept for a session, or in a mailbox. A connection has one lane at most.
//! - L2  `last` never decreases; a frame at or below it is not executed again.
//! - L3  The new connection executes nothing before it has its lane.
//!
//! Bounds: [`LANES_PER_SESSION`] lanes of a session; of each [`FRAMES_REMEMBERED`] replies and
//! [`BYTES_REMEMBERED`] bytes, counted as buffers (`memory`); what is forgotten is answered
//! `FORGOTTEN`. Not here: who may (`sessions`). Tests: `tests/lanes.rs`.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use hashbrown::HashMap;
use ringway_core::wire::{Put, Reader, Truncated};
use ringway_core::{ConnId, Region, SessionId};

use crate::access::Access;
use crate::env::Env;
use crate::handle::Bound;
use crate::keyed::KeyedState;
use crate::mail;
use crate::outcome::Answer;
use crate::sabotage::Rule;
use crate::sessions::{ConnRef, Ticket};
use crate::shard::Shard;
use crate::wire::{FrameWriter, KIND_PUSH, KIND_REPLY, push, put_op, status};

/// Lanes that one session may have.
pub(crate) const LANES_PER_SESSION: usize = 64;
/// Replies of a lane that are remembered.
const FRAMES_REMEMBERED: usize = 64;
/// Bytes of those, at most.
const BYTES_REMEMBERED: usize = 64 * 1024;

/// A session's lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LaneId {
    pub(crate) session: SessionId,
    pub(crate) number: u32,
}

/// What is known of the frames of a lane.
#[derive(Debug)]
pub(crate) struct Lane {
    id: LaneId,
    /// The largest sequence that was taken up.
    last: u64,
    /// What that was when the lane came to its connection: frames at or below it that the
    /// connection sent before it had the lane are not the lane's.
    since: u64,
    /// Reply frames by growing sequence, the youngest last.
    replies: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
    /// Where it goes as soon as all its units are answered.
    leaves: Option<(Ticket, ConnId)>,
    /// Units of a connection that has closed.
    orphans: VecDeque<u32>,
    /// When it came to be kept, if it is.
    kept_at: u64,
}

impl Lane {
    fn new(id: LaneId) -> Self {
        let (replies, orphans) = (VecDeque::new(), VecDeque::new());
        Self { id, last: 0, since: 0, replies, bytes: 0, leaves: None, orphans, kept_at: 0 }
    }

    /// The answer to a frame that was executed, unless it is forgotten.
    fn reply(&self, sequence: u64) -> Option<&[u8]> {
        let found = self.replies.binary_search_by_key(&sequence, |(at, _)| *at).ok()?;
        Some(&self.replies[found].1)
    }

    fn remember(&mut self, sequence: u64, reply: &[u8]) {
        let is_ours = self.since < sequence && sequence <= self.last;
        if !is_ours || reply.len() > BYTES_REMEMBERED {
            return;
        }
        self.bytes += reply.len();
        self.replies.push_back((sequence, reply.to_vec()));
        while self.replies.len() > FRAMES_REMEMBERED || self.bytes > BYTES_REMEMBERED {
            let (_, gone) = self.replies.pop_front().expect("it holds what was just put in");
            self.bytes -= gone.len();
        }
    }

    /// What LANE answers: the largest sequence that was taken up, and the smallest whose reply is
    /// remembered with all behind it.
    fn describe(&self) -> Answer {
        let mut data = Vec::with_capacity(16);
        data.put_u64(self.last);
        data.put_u64(self.replies.front().map_or(self.last + 1, |(sequence, _)| *sequence));
        Answer::data(data)
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.id.session.0);
        out.put_u32(self.id.number);
        out.put_u64(self.last);
        out.put_u16(self.replies.len() as u16);
        for (sequence, reply) in &self.replies {
            out.put_u64(*sequence);
            out.put_u32(reply.len() as u32);
            out.extend_from_slice(reply);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Truncated> {
        let id = LaneId { session: SessionId(reader.u64()?), number: reader.u32()? };
        let mut lane = Lane { last: reader.u64()?, ..Lane::new(id) };
        for _ in 0..reader.u16()? {
            let sequence = reader.u64()?;
            let len = reader.u32()? as usize;
            lane.remember(sequence, reader.bytes(len)?);
        }
        lane.since = lane.last;
        Ok(lane)
    }
}

/// The lanes of one shard.
pub(crate) struct Lanes {
    /// By connection, also one that has closed and whose units are not all answered.
    of_conn: HashMap<ConnId, Lane, KeyedState>,
    /// Of connections that are gone.
    kept: BTreeMap<LaneId, Lane>,
    /// Those of them that remember anything, the longest kept first.
    kept_order: BTreeMap<u64, LaneId>,
    /// Lanes that ever came to be kept.
    keeps: u64,
    /// Connections that wait for their lane.
    awaited: HashMap<ConnId, Awaited, KeyedState>,
    /// Bytes of all remembered replies.
    bytes: usize,
}

/// A lane that is on its way to a connection.
struct Awaited {
    /// The unit that asked for it.
    unit: u32,
    /// Who asked for it after that.
    next: Option<(Ticket, ConnId)>,
}

impl Lanes {
    pub(crate) fn new(keys: &KeyedState) -> Self {
        Self {
            of_conn: HashMap::with_hasher(keys.clone()),
            kept: BTreeMap::new(),
            kept_order: BTreeMap::new(),
            keeps: 0,
            awaited: HashMap::with_hasher(keys.clone()),
            bytes: 0,
        }
    }

    /// Bytes of all replies that are remembered.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lanes that are remembered for connections that are gone, and the order in which they go.
    pub(crate) fn residue(&self) -> usize {
        self.of_conn.len() + self.awaited.len() + self.kept.len() + self.kept_order.len()
    }

    /// A session has ended: nobody sends for it again.
    pub(crate) fn end(&mut self, session: SessionId) {
        let of_session = LaneId { session, number: 0 }..=LaneId { session, number: u32::MAX };
        while let Some((id, _)) = self.kept.range(of_session.clone()).next() {
            let gone = self.take_kept(*id);
            self.bytes -= gone.map_or(0, |lane| lane.bytes);
        }
    }

    /// Memory is short: replies of lanes without a connection are forgotten, the oldest first,
    /// until `enough`.
    pub(crate) fn forget(&mut self, enough: usize) {
        let before = self.bytes;
        while before - self.bytes < enough
            && let Some((_, id)) = self.kept_order.pop_first()
        {
            if let Some(lane) = self.kept.get_mut(&id) {
                self.bytes -= lane.bytes;
                (lane.bytes, lane.replies) = (0, VecDeque::new());
            }
        }
    }

    fn remember(&mut self, conn: ConnId, sequence: u64, reply: &[u8]) {
        if let Some(lane) = self.of_conn.get_mut(&conn) {
            let before = lane.bytes;
            lane.remember(sequence, reply);
            self.bytes = self.bytes + lane.bytes - before;
        }
    }

    fn keep(&mut self, mut lane: Lane) {
        self.keeps += 1;
        lane.kept_at = self.keeps;
        self.kept_order.insert(lane.kept_at, lane.id);
        let before = self.kept.insert(lane.id, lane);
        debug_assert!(before.is_none(), "L1");
    }

    fn take_kept(&mut self, id: LaneId) -> Option<Lane> {
        let lane = self.kept.remove(&id)?;
        self.kept_order.remove(&lane.kept_at);
        Some(lane)
    }
}

impl<R: Region, A: Access> Shard<R, A> {
    /// What LANE answers at once: to who has a lane already, that one or another. Nobody else is
    /// asked: while a connection is open and has a lane, it is here.
    pub(crate) fn lane_of(&self, conn: ConnId, (by, number): (Bound, u32)) -> Option<Answer> {
        let id = LaneId { session: by.session, number };
        let lane = self.lanes.of_conn.get(&conn)?;
        Some(match self.names.is_live(by) {
            true if lane.id == id => lane.describe(),
            true => Answer::plain(status::REFUSED),
            false => Answer::plain(status::NOSESSION),
        })
    }

    /// The connection asks for a lane, and executes nothing until it has it.
    pub(crate) fn await_lane(&mut self, conn: ConnId, unit: u32) {
        self.lanes.awaited.insert(conn, Awaited { unit, next: None });
    }

    /// A unit is answered: if it asked for a lane that did not come, it got none.
    pub(crate) fn await_lane_no_more(&mut self, conn: ConnId, unit: u32) {
        if self.lanes.awaited.get(&conn).is_some_and(|awaited| awaited.unit == unit) {
            self.lanes.awaited.remove(&conn);
        }
    }

    /// At the home of a session: a connection asks for one of its lanes.
    pub(crate) fn serve_lane(
        &mut self,
        (id, conn): (LaneId, ConnId),
        ticket: Ticket,
        env: &mut impl Env,
    ) -> Result<(), u8> {
        let to = ConnRef { shard: ticket.shard, conn };
        let before = self.sessions.open_lane(id.session, id.number, to)?;
        if ticket.shard != self.id() {
            // The answer comes with the lane, from wherever that is; the op is executed here.
            let mut out = Vec::with_capacity(16);
            mail::put_reply(&mut out, (ticket.pending, ticket.generation));
            mail::set_counts(&mut out, 0, 1);
            env.post(ticket.shard, &out);
        }
        match before {
            None => self.send_lane(Lane::new(id), (ticket, conn), env),
            Some(before) if before.shard == self.id() => {
                self.call_lane((id, before.conn), (ticket, conn), env);
            }
            Some(before) => {
                let mut out = alloc::vec![mail::LANE_CALL];
                out.put_u64(id.session.0);
                out.put_u32(id.number);
                mail::put_conn(&mut out, before.conn);
                mail::put_ticket(&mut out, &ticket);
                mail::put_conn(&mut out, conn);
                env.post(before.shard, &out);
            }
        }
        Ok(())
    }

    /// Mail of a home: a lane that is, or will be, with a connection here is wanted elsewhere.
    pub(crate) fn take_lane_call(
        &mut self,
        reader: &mut Reader<'_>,
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        let id = LaneId { session: SessionId(reader.u64()?), number: reader.u32()? };
        let before = mail::conn(reader)?;
        let ticket = mail::ticket(reader)?;
        let to = mail::conn(reader)?;
        self.call_lane((id, before), (ticket, to), env);
        Ok(())
    }

    fn call_lane(
        &mut self,
        (id, before): (LaneId, ConnId),
        to: (Ticket, ConnId),
        env: &mut impl Env,
    ) {
        if let Some(lane) = self.lanes.of_conn.get_mut(&before).filter(|lane| lane.id == id) {
            if self.sabotage.breaks(Rule::LanesWaitForTheirUnits) {
                let known = Lane { last: lane.last, ..Lane::new(id) };
                return self.send_lane(known, to, env);
            }
            lane.leaves = Some(to);
            match self.conn_mut(before).map(|state| (state.closing, state.queue.is_empty())) {
                None => self.settle_orphans(before, env),
                Some((false, _)) => self.tell_moved(before, id, env),
                // It hears nothing any more, and may have all its answers already.
                Some((true, answered)) if answered => self.lane_may_leave(before, env),
                Some((true, _)) => {}
            }
        } else if let Some(awaited) = self.lanes.awaited.get_mut(&before) {
            awaited.next = Some(to);
        } else {
            let lane = self.lanes.take_kept(id).unwrap_or_else(|| Lane::new(id));
            self.lanes.bytes -= lane.bytes;
            self.send_lane(lane, to, env);
        }
    }

    /// The connection hears that its lane is another's now, and is closed behind what it asked for.
    fn tell_moved(&mut self, conn: ConnId, id: LaneId, env: &mut impl Env) {
        self.execute(env);
        let out = env.out(conn);
        let mut frame = FrameWriter::begin(out, KIND_PUSH, 0, 0);
        put_op(out, push::LANE_MOVED, 0, &id.number.to_le_bytes());
        frame.add(1);
        frame.finish(out);
        self.close(conn, env);
    }

    /// A lane leaves for a connection, here or elsewhere.
    fn send_lane(&mut self, lane: Lane, (ticket, conn): (Ticket, ConnId), env: &mut impl Env) {
        if ticket.shard == self.id() {
            return self.lane_arrives(lane, (ticket, conn), env);
        }
        let mut out = alloc::vec![mail::LANE];
        mail::put_ticket(&mut out, &ticket);
        mail::put_conn(&mut out, conn);
        lane.put(&mut out);
        env.post(ticket.shard, &out);
    }

    /// Mail of another shard: a lane for a connection here.
    pub(crate) fn take_lane(
        &mut self,
        reader: &mut Reader<'_>,
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        let (ticket, conn) = (mail::ticket(reader)?, mail::conn(reader)?);
        let lane = Lane::read(reader)?;
        self.lane_arrives(lane, (ticket, conn), env);
        Ok(())
    }

    fn lane_arrives(
        &mut self,
        mut lane: Lane,
        (ticket, conn): (Ticket, ConnId),
        env: &mut impl Env,
    ) {
        let next = self.lanes.awaited.remove(&conn).and_then(|awaited| awaited.next);
        let id = lane.id;
        if let Some(next) = next {
            self.deliver(ticket, &Answer::plain(status::REFUSED), env);
            if self.conn_mut(conn).is_some() {
                self.tell_moved(conn, id, env);
            }
            return self.send_lane(lane, next, env);
        }
        self.lanes.bytes += lane.bytes;
        let Some(state) = self.conn_mut(conn).filter(|state| !state.closing) else {
            // Nobody hears it, but what waits for the answer ends with it.
            self.deliver(ticket, &Answer::plain(status::REFUSED), env);
            return self.retire(lane, env);
        };
        state.laned = true;
        lane.since = lane.last;
        let answer = lane.describe();
        let before = self.lanes.of_conn.insert(conn, lane);
        assert!(before.is_none(), "L1: who has a lane is refused another");
        self.deliver(ticket, &answer, env);
    }

    /// L2: whether a frame of a connection with a lane was taken up before.
    pub(crate) fn is_old(&self, conn: ConnId, sequence: u64) -> bool {
        let lane = self.lanes.of_conn.get(&conn);
        let once = !self.sabotage.breaks(Rule::LanesExecuteOnce);
        lane.is_some_and(|lane| sequence <= lane.last) && once
    }

    /// A frame of a connection with a lane is taken up.
    pub(crate) fn take_up_by_lane(&mut self, conn: ConnId, sequence: u64) {
        if let Some(lane) = self.lanes.of_conn.get_mut(&conn) {
            lane.last = sequence;
        }
    }

    /// Answers a frame that was executed before. All of the connection is answered.
    pub(crate) fn answer_again(
        &mut self,
        conn: ConnId,
        (sequence, count): (u64, u16),
        env: &mut impl Env,
    ) {
        self.execute(env);
        let out = env.out(conn);
        let lane = self.lanes.of_conn.get(&conn);
        if let Some(reply) = lane.and_then(|lane| lane.reply(sequence)) {
            return out.extend_from_slice(reply);
        }
        let mut frame = FrameWriter::begin(out, KIND_REPLY, 0, sequence);
        out.resize(out.len() + usize::from(count), status::FORGOTTEN);
        frame.add(count);
        frame.finish(out);
    }

    /// A frame of a connection with a lane was answered.
    pub(crate) fn remember(&mut self, conn: ConnId, sequence: u64, reply: &[u8]) {
        self.lanes.remember(conn, sequence, reply);
    }

    /// A connection with a lane is about to be closed, and all that it asked for is answered.
    pub(crate) fn lane_may_leave(&mut self, conn: ConnId, env: &mut impl Env) {
        let leaves = self.lanes.of_conn.get(&conn).is_some_and(|lane| lane.leaves.is_some());
        if leaves && let Some(lane) = self.lanes.of_conn.remove(&conn) {
            self.retire(lane, env);
        }
    }

    /// A connection with a lane has closed; these are its units.
    pub(crate) fn lane_orphaned(&mut self, conn: ConnId, units: VecDeque<u32>, env: &mut impl Env) {
        match self.lanes.of_conn.get_mut(&conn) {
            Some(lane) => lane.orphans = units,
            None => debug_assert!(units.is_empty(), "it left when all was answered"),
        }
        self.settle_orphans(conn, env);
    }

    /// Whether units of a connection that is gone are still looked after.
    pub(crate) fn has_orphans(&self, conn: ConnId) -> bool {
        self.lanes.of_conn.contains_key(&conn)
    }

    /// Remembers what a connection that is gone would have heard, as far as it is complete.
    pub(crate) fn settle_orphans(&mut self, conn: ConnId, env: &mut impl Env) {
        while let Some(lane) = self.lanes.of_conn.get_mut(&conn) {
            let Some(unit) = lane.orphans.front().copied() else { break };
            if self.pendings.get(unit).missing > 0 {
                return;
            }
            lane.orphans.pop_front();
            let (mut reply, sequence) = (Vec::new(), self.pendings.get(unit).sequence);
            self.render_unit(unit, crate::resp::Version::Resp2, &mut reply);
            self.pendings.end(unit);
            if !self.sabotage.breaks(Rule::OrphansRemembered) {
                self.lanes.remember(conn, sequence, &reply);
            }
        }
        if let Some(lane) = self.lanes.of_conn.remove(&conn) {
            self.retire(lane, env);
        }
    }

    /// A lane that has no connection any more: it goes where it is wanted, or waits for that.
    fn retire(&mut self, mut lane: Lane, env: &mut impl Env) {
        if let Some(to) = lane.leaves.take() {
            self.lanes.bytes -= lane.bytes;
            self.send_lane(lane, to, env);
        } else if self.names.bound_of(lane.id.session).is_some() {
            self.lanes.keep(lane);
        } else {
            self.lanes.bytes -= lane.bytes;
        }
    }
}
