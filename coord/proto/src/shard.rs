//! One shard of the coordinator: bytes of connections and mail of other shards in, bytes and mail
//! out, once a turn.
//!
//! The driver hands over everything that arrived (`received`, `mail`, ...) and then calls `turn`.
//! Parsing fills one batch; the batch is hashed, prefetched and executed as a whole; replies stand
//! in request order. An op on a name of another shard is forwarded and its unit waits
//! (`pending`), so that replies come back in order though shards answer when they can.
//!
//! Invariants:
//! - H1  A unit is answered exactly once, in the order of its connection's units.
//! - H2  Ops of one connection on one slot take effect in their order.
//! - H3  A connection that waits for its session executes nothing until it has it.
//! - H4  Nothing grows without bound: unparsed bytes stop the reading, unread replies stop the
//!   parsing, ops on their way to a busy shard stop the parsing. All that connections hold
//!   together has a bound as well (`memory`).
//! - H5  A turn has an end: ops are counted as they are taken up, whatever their protocol, each by
//!   what it costs. A connection has a share of a turn; beyond `BACKLOG_OPS_PER_TURN` of all,
//!   backlogs and whatever is served by itself wait for the next one. Only ops on names and
//!   renewals that have just arrived do not: a renewal counts in the turn in which it came. What
//!   costs more than an op may is done in slices, one a turn (`jobs`).
//!
//! Not here: what a name op does (`names`), sessions (`sessions`), bytes to ops (`parse`), the
//! execution (`execute`), single ops that need more than a status (`serve`), mail (`post`).
//! Tests: `tests/` of this crate drive whole shards with bytes; `tools/sim` whole processes.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use ringway_core::limits::watch::BYTES_PART;
use ringway_core::limits::{AUTH_WITHIN, BACKLOG_OPS_PER_TURN, CONN_IN_MAX, FRAME_OPS_MAX};
use ringway_core::{ConnId, Epoch, Moment, Region, ShardId, Slot, Span};
use ringway_table::Table;

use crate::access::{Access, Grantee};
use crate::conn::{Conn, Speech, Stalled};
use crate::env::Env;
use crate::execute::Renewals;
use crate::gather::Gathers;
use crate::jobs::Jobs;
use crate::keyed::KeyedState;
use crate::lanes::Lanes;
use crate::lease_clock::LeaseClock;
use crate::mail;
use crate::names::{Names, NamesStart};
use crate::notices::{Bundles, Messaging, Packings};
use crate::paged::Paged;
use crate::pending::PendingTable;
use crate::placement::SlotMap;
use crate::quotas::Quotas;
use crate::requests::Requests;
use crate::sabotage::{Rule, Sabotage};
use crate::sessions::{Act, LeaseRules, SessionStart, Sessions};
use crate::stats::Stats;
use crate::turn::{Op, Turn};
use crate::watch::Watching;

/// What a shard starts with.
#[derive(Clone, Debug)]
pub struct ShardStart {
    /// Which shard this is.
    pub id: ShardId,
    /// Where the slots are.
    pub map: SlotMap,
    /// This life of the service.
    pub epoch: Epoch,
    /// The bounds of leases.
    pub rules: LeaseRules,
    /// The longest lease that the state directory already allows for.
    pub lease_allowed: Span,
    /// Sessions that may have their home here.
    pub sessions_max: usize,
    /// Bytes that the addresses, metadata and values of locks of those may have together.
    pub session_info_bytes: usize,
    /// Bytes that metadata of names, further holders and those who wait may take.
    pub side_bytes: usize,
    /// Bytes that all connections' buffers may have together, at least `SHARD_BUFFERS_MIN`.
    pub buffer_bytes: usize,
    /// When grants begin: later than now after an unclean stop.
    pub grants_from: Moment,
    /// The secret of the process's hash maps.
    pub keys: [u64; 2],
    /// The TCP port of each shard's own listener; zero without one.
    pub own_ports: Vec<u16>,
    /// The port that all shards share.
    pub base_port: u16,
    /// Unix time less the driver's clock, for `TIME`.
    pub unix_at_zero: Span,
    /// The address that clients reach this server at, for `CLUSTER SLOTS`; empty where it listens
    /// on all of them: a client then stays with the one it used.
    pub host: Vec<u8>,
}

impl ShardStart {
    fn of_sessions(&self, now: Moment, waiters_max: usize) -> Sessions {
        let start = SessionStart {
            now,
            lease_allowed: self.lease_allowed,
            sessions_max: self.sessions_max,
            info_bytes_max: self.session_info_bytes,
            waiters_max,
            keys: KeyedState::new(self.keys),
        };
        Sessions::new((self.id, self.map.shards()), self.epoch, self.rules, start)
    }

    fn of_names(&self, under_way: usize) -> NamesStart {
        NamesStart {
            id: self.id,
            epoch: self.epoch,
            grants_from: self.grants_from,
            side_bytes: self.side_bytes,
            watch_bytes: self.buffer_bytes / BYTES_PART / 2,
            under_way,
            keys: KeyedState::new(self.keys),
        }
    }
}

/// One shard.
pub struct Shard<R, A> {
    pub(crate) start: ShardStart,
    pub(crate) names: Names<R>,
    /// Notices on their way to connections of other shards.
    pub(crate) pushes: Bundles,
    pub(crate) packings: Packings,
    pub(crate) messaging: Messaging,
    pub(crate) lanes: Lanes,
    /// What operators did, on its way to the log.
    pub(crate) audits: Vec<String>,
    pub(crate) sessions: Sessions,
    pub(crate) access: A,
    pub(crate) clock: LeaseClock,
    pub(crate) conns: Paged<Conn>,
    pub(crate) open_conns: usize,
    /// Bytes of all `Conn::held`.
    pub(crate) conn_bytes: usize,
    pub(crate) batch: Turn,
    pub(crate) pendings: PendingTable,
    pub(crate) acts: Vec<Act>,
    pub(crate) ready: VecDeque<ConnId>,
    /// Connections that wait for a shard, or for their own units.
    pub(crate) hungry: Vec<(ConnId, Option<u8>)>,
    pub(crate) in_flight: Vec<u32>,
    pub(crate) requests: Requests,
    /// Scratch of `send_away`.
    pub(crate) away: Vec<Op>,
    pub(crate) scratch: Vec<u8>,
    pub(crate) overflows: u64,
    pub(crate) renewals: Renewals,
    pub(crate) mail_out: Vec<u8>,
    pub(crate) gathers: Gathers,
    pub(crate) jobs: Jobs,
    /// The watches of this shard's connections; those of its names are `names.feeds`.
    pub(crate) watching: Watching,
    pub(crate) stats: Stats,
    pub(crate) lease_asked: Span,
    pub(crate) epoch_asked: bool,
    pub(crate) swept: Vec<crate::handle::Handle>,
    pub(crate) parked: Vec<crate::execute::Parked>,
    pub(crate) waiters_max: usize,
    forward_ops_max: u32,
    pub(crate) bare_slot: u16,
    pub(crate) args: crate::resp::Args,
    pub(crate) sabotage: Sabotage,
    now: Moment,
    in_turn: bool,
    /// Ops taken up in this turn, as `limits` weighs them.
    pub(crate) turn_ops: usize,
    /// What [`Self::turn_ops`] may come to before the connection that is executed has to wait.
    pub(crate) turn_ops_most: usize,
    /// What it may come to before everybody has to wait who asks for more than ops on names.
    turn_ops_end: usize,
    /// Somebody waits for memory.
    spent: bool,
    planned: Option<Moment>,
    stopping: bool,
}

impl<R: Region, A: Access> Shard<R, A> {
    /// A shard without connections, sessions or names.
    pub fn new(now: Moment, start: ShardStart, table: Table<R>, access: A) -> Self {
        let shards = start.map.shards();
        let keys = KeyedState::new(start.keys);
        let waiters_max = Self::waiters_max(start.buffer_bytes);
        let bare_slot = start.map.run(start.id).0;
        let under_way = Self::under_way_max(start.buffer_bytes);
        let quotas = Quotas::new(access.credits(), shards);
        let names_start = start.of_names(under_way);
        Self {
            sessions: start.of_sessions(now, waiters_max),
            names: Names::new(now, table, (shards, quotas), names_start),
            watching: Watching::new(&start),
            pushes: Bundles::new(shards, mail::PUSHES, under_way),
            messaging: Messaging::new(shards, under_way),
            packings: Packings::default(),
            lanes: Lanes::new(&keys),
            audits: Vec::new(),
            access,
            clock: LeaseClock::new(now),
            conns: Paged::default(),
            open_conns: 0,
            conn_bytes: 0,
            batch: Turn::default(),
            pendings: PendingTable::default(),
            acts: Vec::new(),
            ready: VecDeque::new(),
            hungry: Vec::new(),
            in_flight: alloc::vec![0; shards],
            requests: Requests::new(shards),
            away: Vec::new(),
            scratch: Vec::new(),
            overflows: 0,
            renewals: Renewals::NONE,
            mail_out: Vec::new(),
            gathers: Gathers::default(),
            jobs: Jobs::default(),
            stats: Stats::default(),
            lease_asked: start.lease_allowed,
            epoch_asked: false,
            swept: Vec::new(),
            parked: Vec::new(),
            waiters_max,
            forward_ops_max: Self::forward_ops_max(start.buffer_bytes),
            bare_slot,
            args: crate::resp::Args::new(),
            start,
            sabotage: Sabotage::default(),
            now,
            in_turn: false,
            turn_ops: 0,
            turn_ops_most: 0,
            turn_ops_end: BACKLOG_OPS_PER_TURN,
            spent: false,
            planned: Some(now),
            stopping: false,
        }
    }

    /// A connection was accepted.
    pub fn opened(&mut self, now: Moment, id: ConnId, env: &mut impl Env) {
        self.begin(now);
        self.conns.grow_to(id.index as usize + 1);
        let conn = &mut self.conns[id.index as usize];
        assert!(!conn.open, "the driver reuses an index only after `closed`");
        let grantee = (!self.access.required()).then_some(0);
        let ended = self.stopping;
        *conn = Conn { generation: id.generation, open: true, grantee, ended, ..Conn::default() };
        self.open_conns += 1;
        self.stats.accepted += 1;
        if grantee.is_none() {
            env.call_overdue(id, AUTH_WITHIN);
        }
        if ended {
            // It came too late; the turn closes it.
            self.later(id);
        }
    }

    /// Bytes of a connection arrived.
    pub fn received(&mut self, now: Moment, id: ConnId, bytes: &[u8], env: &mut impl Env) {
        self.begin(now);
        let Some(conn) = self.conn_mut(id) else { return };
        if conn.closing {
            return;
        }
        let idle = conn.carry.is_empty() && conn.stalled.is_none();
        if idle && !conn.is_waiting() && !conn.blocked && !conn.ready {
            self.turn_ops_most = self.turn_ops + FRAME_OPS_MAX;
            let consumed = self.parse(id, bytes, env);
            if let Some(conn) = self.conn_mut(id).filter(|conn| !conn.closing) {
                conn.carry.extend_from_slice(&bytes[consumed..]);
            }
        } else {
            conn.carry.extend_from_slice(bytes);
            self.pump(id, env);
        }
        self.check_carry(id, env);
    }

    /// The time of a connection for authenticating is over.
    pub fn overdue(&mut self, now: Moment, id: ConnId, env: &mut impl Env) {
        self.begin(now);
        let unknown = self.conn_mut(id).is_some_and(|conn| conn.grantee.is_none());
        if unknown {
            self.stats.auth_timeouts += 1;
            self.close(id, env);
        }
    }

    /// The client will send nothing more, but may still read: it gets its answers, then the end.
    pub fn ended(&mut self, now: Moment, id: ConnId, env: &mut impl Env) {
        self.begin(now);
        if let Some(conn) = self.conn_mut(id) {
            conn.ended = true;
            self.check_carry(id, env);
        }
    }

    /// A connection is gone; the driver may reuse its index.
    pub fn closed(&mut self, now: Moment, id: ConnId, env: &mut impl Env) {
        self.begin(now);
        if self.conn_mut(id).is_none() {
            return;
        }
        // What it asked for before it went still takes effect, in order, before its end does.
        self.execute(env);
        self.stop_waiting(id, env);
        let conn = core::mem::take(&mut self.conns[id.index as usize]);
        self.open_conns -= 1;
        self.conn_bytes -= conn.held as usize;
        self.abandon(conn.stalled);
        if conn.laned {
            self.lane_orphaned(id, conn.queue, env);
        } else {
            for pending in conn.queue {
                if self.pendings.get(pending).missing == 0 {
                    self.pendings.end(pending);
                }
            }
        }
        self.watcher_closed(id, env);
        if let Some(bound) = conn.bound {
            self.tell_closed(id, bound, env);
        }
    }

    /// A connection's reader has caught up.
    pub fn drained(&mut self, now: Moment, id: ConnId, env: &mut impl Env) {
        self.begin(now);
        if let Some(conn) = self.conn_mut(id) {
            conn.blocked = false;
            self.watcher_drained(id);
            self.pump(id, env);
            self.check_carry(id, env);
        }
    }

    /// Executes what the turn brought, and what time brought. Call it once after all inputs.
    pub fn turn(&mut self, now: Moment, env: &mut impl Env) {
        self.begin(now);
        if self.sabotage.breaks(Rule::RenewalsFirst) {
            self.sessions.expire(self.clock.ripe(), &mut self.acts);
            self.settle(env);
        }
        self.execute(env);
        // Whatever arrived anew, the one that waits longest has its share.
        self.turn_ops_end = BACKLOG_OPS_PER_TURN.max(self.turn_ops + FRAME_OPS_MAX);
        for _ in 0..self.ready.len() {
            if self.is_spent() {
                break;
            }
            let Some(id) = self.ready.pop_front() else { break };
            if let Some(conn) = self.conn_mut(id) {
                conn.ready = false;
                self.pump(id, env);
                self.check_carry(id, env);
            }
        }
        self.execute(env);
        let ripe = self.clock.ripe();
        let mut more_due = !self.clock.is_paused() && self.sessions.expire(ripe, &mut self.acts);
        self.settle(env);
        self.sweep(env);
        more_due |= self.names.time_out(self.now);
        self.names.advance_stuck();
        self.settle(env);
        self.step_jobs(env);
        self.reclaim(env);
        self.feed_hungry(env);
        self.execute(env);
        let telling = self.step_watches(env);
        self.reclaim(env);
        self.stats.buffer_bytes = self.buffers_used(env) as u64;
        self.stats.turn_ops_max = self.stats.turn_ops_max.max(self.turn_ops as u64);
        self.ask_for_epoch(env);
        let busy = more_due
            || self.names.is_sweeping()
            || self.names.is_hurried()
            || !self.ready.is_empty()
            || core::mem::take(&mut self.spent)
            || self.jobs.is_active()
            || telling;
        if busy {
            env.again();
        }
        self.in_turn = false;
        // From the moment that the clock stands at, which the driver's may have passed: a
        // connection that closed behind the last turn began this one then.
        self.planned = if busy { Some(self.now) } else { self.wake_at() };
    }

    /// When `turn` has to be called at the latest, if nothing arrives.
    pub fn wake_at(&self) -> Option<Moment> {
        let lease = self.sessions.wake_at().map(|lease| self.clock.real_of(lease));
        lease.into_iter().chain(self.names.wake_at()).min()
    }

    /// A graceful stop has begun: nobody is asked for more, so every connection is taken as if its
    /// client had ended. It closes once everything that arrived has been executed and answered.
    pub fn stop(&mut self, now: Moment, env: &mut impl Env) {
        self.begin(now);
        self.stopping = true;
        for index in 0..self.conns.len() {
            let generation = self.conns[index].generation;
            self.ended(now, ConnId { index: index as u32, generation }, env);
        }
    }

    /// Other credentials from now on. `heir` says what an identity of the earlier ones is among the
    /// new; a connection whose identity has no heir is closed, the others keep theirs, with the
    /// rights it has now. What arrived before is executed first, under the earlier ones.
    pub fn replace_access(
        &mut self,
        now: Moment,
        access: A,
        heir: impl Fn(&A, &A, u32) -> Option<u32>,
        env: &mut impl Env,
    ) {
        self.begin(now);
        self.execute(env);
        let earlier = core::mem::replace(&mut self.access, access);
        for index in 0..self.conns.len() {
            let conn = &mut self.conns[index];
            let Some(grantee) = conn.grantee.filter(|_| conn.open) else { continue };
            conn.grantee = heir(&self.access, &earlier, grantee);
            if conn.grantee.is_none() {
                let id = ConnId { index: index as u32, generation: conn.generation };
                self.close(id, env);
            }
        }
        self.recheck_watches(env);
    }

    /// Whether a stop has nothing left to wait for.
    pub fn may_stop(&self) -> bool {
        self.stopping && self.open_conns == 0 && self.pendings.is_empty()
    }

    /// Counters, for metrics and `SHARD_STATS`.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Names, for metrics.
    pub const fn names(&self) -> &Names<R> {
        &self.names
    }

    /// Sessions, for metrics.
    pub const fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Times that the shard's turn came so late that lease time stood still.
    pub const fn stalls(&self) -> u64 {
        self.clock.stalls()
    }

    /// Watches of this shard's connections, for metrics.
    pub fn watches(&self) -> usize {
        self.watching.topics.len()
    }

    /// Connections, for metrics.
    pub const fn connections(&self) -> usize {
        self.open_conns
    }

    /// The moment of this turn.
    pub(crate) const fn now(&self) -> Moment {
        self.now
    }

    pub(crate) const fn is_stopping(&self) -> bool {
        self.stopping
    }

    #[inline]
    pub(crate) const fn id(&self) -> ShardId {
        self.start.id
    }

    #[inline]
    pub(crate) const fn shards(&self) -> usize {
        self.start.map.shards()
    }

    /// The first input of a turn moves the clocks; the rest of the turn happens at that moment.
    #[inline]
    pub(crate) fn begin(&mut self, now: Moment) {
        if !self.in_turn {
            assert!(self.now <= now, "the driver's clock ran backwards");
            self.in_turn = true;
            self.turn_ops = 0;
            self.turn_ops_end = BACKLOG_OPS_PER_TURN;
            self.now = now;
            self.clock.turn(now, self.planned);
            self.stats.turns += 1;
        }
    }

    #[inline]
    pub(crate) fn conn_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        let any = self.sabotage.breaks(Rule::ConnsHaveGenerations);
        let conn = self.conns.get_mut(id.index as usize)?;
        (conn.open && (conn.generation == id.generation || any)).then_some(conn)
    }

    /// The identity of a connection, if it needs none or has shown it.
    #[inline]
    pub(crate) fn grantee(&self, conn: &Conn) -> Option<&Grantee> {
        conn.grantee.map(|index| self.access.grantee(index))
    }

    /// Goes on with bytes that could not be executed when they came.
    pub(crate) fn pump(&mut self, id: ConnId, env: &mut impl Env) {
        let Some(conn) = self.conn_mut(id) else { return };
        if conn.is_waiting() || conn.blocked || conn.closing {
            return;
        }
        let stalled = conn.stalled.take();
        self.turn_ops_most = self.turn_ops + FRAME_OPS_MAX;
        if let Some(stalled) = stalled {
            self.resume_frame(id, *stalled, env);
        }
        let Some(conn) = self.conn_mut(id) else { return };
        if conn.is_waiting() || conn.blocked || conn.stalled.is_some() || conn.ready {
            return;
        }
        let carry = core::mem::take(&mut conn.carry);
        if carry.is_empty() || carry.len() < conn.need as usize {
            conn.carry = carry;
            return;
        }
        let consumed = self.parse(id, &carry, env);
        let Some(conn) = self.conn_mut(id) else { return };
        debug_assert!(conn.carry.is_empty(), "nothing arrives while we parse");
        if consumed == carry.len() || conn.closing {
            return;
        }
        conn.keep(carry, consumed);
    }

    /// H5: whether the turn has taken up so much that what costs more than ops on names has to
    /// wait for the next one.
    #[inline]
    pub(crate) const fn is_spent(&self) -> bool {
        self.turn_ops > self.turn_ops_end
    }

    /// H5: counts ops that the connection wants executed now; false if it has to wait, since it
    /// had its share of the turn already.
    #[inline]
    pub(crate) fn take_up(&mut self, ops: usize) -> bool {
        let fits = self.turn_ops + ops <= self.turn_ops_most;
        self.turn_ops += if fits { ops } else { 0 };
        fits
    }

    /// H4: a connection with much to execute is not read until it has little.
    fn check_carry(&mut self, id: ConnId, env: &mut impl Env) {
        self.execute_if_large(env);
        self.recount(id);
        let used = self.buffers_used(env);
        let Some(conn) = self.conns.get(id.index as usize) else { return };
        let most = self.share(conn, used).min(CONN_IN_MAX / 2);
        let Some(conn) = self.conn_mut(id).filter(|conn| !conn.closing) else { return };
        let held = conn.carry.len() + conn.stalled.as_ref().map_or(0, |s| s.bytes.len());
        // What is held although nothing stands in the way is the beginning of a command, and only
        // reading on completes it.
        let busy = conn.is_waiting() || conn.blocked || conn.ready || conn.stalled.is_some();
        if !conn.paused && busy && held > most {
            conn.paused = true;
            env.pause(id);
        } else if conn.paused && !conn.blocked && (!busy || held <= most / 2) {
            conn.paused = false;
            env.resume(id);
        }
        let Some(conn) = self.conn_mut(id).filter(|conn| conn.ended && !conn.closing) else {
            return;
        };
        if conn.is_waiting() {
            return self.stop_waiting(id, env);
        }
        // What is left in `carry` after this is the beginning of something that never ends.
        if !(conn.blocked || conn.ready || conn.stalled.is_some()) {
            self.close(id, env);
        }
    }

    /// H4: whether the connection may start another unit now. If not, it is woken when it may.
    pub(crate) fn may_start(&mut self, id: ConnId, env: &mut impl Env) -> bool {
        let used = self.buffers_used(env);
        let conn = &self.conns[id.index as usize];
        let (units, share) = (conn.queue.len(), self.share(conn, used));
        if env.backlog(id) > share {
            let conn = &mut self.conns[id.index as usize];
            conn.blocked = true;
            conn.paused = true;
            env.pause(id);
            env.await_drain(id);
            self.stats.blocked_readers += 1;
            return false;
        }
        // Who has units waiting leaves room for the first unit of others.
        let greedy = units > 0 && self.pendings.bytes_in_use() > self.start.buffer_bytes / 4;
        let spent = used > self.start.buffer_bytes;
        if greedy || spent {
            self.spent |= spent;
            self.stats.waits_for_memory += 1;
            self.conns[id.index as usize].blocked = true;
            self.hungry.push((id, None));
            return false;
        }
        if units >= UNITS_PER_CONN_MAX {
            self.starve(id, None);
            return false;
        }
        true
    }

    /// H4: whether so many ops are on their way to a shard that a further one has to wait.
    #[inline]
    pub(crate) fn is_crowded(&self, shard: u8) -> bool {
        self.in_flight.get(usize::from(shard)).is_some_and(|ops| *ops > self.forward_ops_max)
    }

    /// H4: whether a further op may be on its way to a shard. If not, the connection waits for it.
    #[inline]
    pub(crate) fn may_ask(&mut self, id: ConnId, shard: u8) -> bool {
        let crowded = self.is_crowded(shard);
        if crowded {
            self.starve(id, Some(shard));
        }
        !crowded
    }

    /// H4, H5: whether an op may be served by itself now, by whichever shard. If not, its
    /// connection goes on when it may.
    pub(crate) fn may_serve(&mut self, id: ConnId) -> bool {
        if let Some(shard) = (0..self.shards() as u8).find(|shard| self.is_crowded(*shard)) {
            self.starve(id, Some(shard));
            return false;
        }
        let spent = self.is_spent();
        if spent {
            self.later(id);
        }
        !spent
    }

    /// The connection executes nothing more until `shard` has caught up, or its own units have.
    pub(crate) fn starve(&mut self, id: ConnId, shard: Option<u8>) {
        self.conns[id.index as usize].blocked = true;
        self.hungry.push((id, shard));
        self.stats.waits_for_shards += 1;
    }

    /// Connections that waited for other shards go on when those have caught up.
    fn feed_hungry(&mut self, env: &mut impl Env) {
        if self.hungry.is_empty() {
            return;
        }
        for (id, shard) in core::mem::take(&mut self.hungry) {
            if self.conn_mut(id).is_none() {
                continue;
            }
            if shard.is_some_and(|at| self.in_flight[usize::from(at)] > self.forward_ops_max / 2) {
                self.hungry.push((id, shard));
                continue;
            }
            self.conns[id.index as usize].blocked = false;
            if self.is_spent() {
                self.later(id);
                continue;
            }
            self.pump(id, env);
            self.check_carry(id, env);
        }
    }

    /// Puts a connection on the list of those with unparsed bytes.
    pub(crate) fn later(&mut self, id: ConnId) {
        if let Some(conn) = self.conn_mut(id)
            && !conn.ready
        {
            conn.ready = true;
            self.ready.push_back(id);
        }
    }

    /// Closes a connection once its replies are out.
    pub(crate) fn close(&mut self, id: ConnId, env: &mut impl Env) {
        if let Some(conn) = self.conn_mut(id) {
            conn.closing = true;
            conn.carry = Vec::new();
            let stalled = conn.stalled.take();
            self.abandon(stalled);
            self.recount(id);
            // What it still sends is of no use. The driver reads some of it while it flushes.
            env.pause(id);
            if self.conns[id.index as usize].queue.is_empty() {
                self.execute(env);
                self.say_goodbye(id, env);
            } else {
                self.stop_waiting(id, env);
                self.answer_queue(id, env);
            }
        }
    }

    /// Closes a connection all of whose units are answered.
    pub(crate) fn say_goodbye(&mut self, id: ConnId, env: &mut impl Env) {
        if self.conn_mut(id).is_some_and(|conn| core::mem::take(&mut conn.broken)) {
            crate::wire::put_protocol_error(env.out(id));
        }
        if self.conn_mut(id).is_some_and(|conn| conn.laned) {
            self.lane_may_leave(id, env);
        }
        // Nothing is told behind the end, a page of a snapshot that is under way neither.
        self.watcher_closed(id, env);
        env.close(id);
    }

    /// The rest of a frame is not executed any more, and its unit no longer waits for it.
    pub(crate) fn abandon(&mut self, stalled: Option<Box<Stalled>>) {
        if let Some(stalled) = stalled
            && let Some(pending) = stalled.pending
        {
            self.pendings.abandon(pending, stalled.count - stalled.index);
        }
    }

    /// The next slot for a session that has no node: spread, so that no slot runs out early.
    pub(crate) fn next_bare_slot(&mut self) -> Slot {
        let (first, last) = self.start.map.run(self.start.id);
        self.bare_slot = if self.bare_slot >= last { first } else { self.bare_slot + 1 };
        Slot::from_bits(self.bare_slot)
    }

    /// How a connection speaks.
    pub(crate) fn speech(&self, id: ConnId) -> Speech {
        self.conns[id.index as usize].speech
    }
}

/// Ops on their way to one other shard before connections have to wait; fewer with little memory.
pub const FORWARD_OPS_MAX: u32 = 4 * FRAME_OPS_MAX as u32;
/// Units of one connection that may wait for other shards.
pub const UNITS_PER_CONN_MAX: usize = 1024;
