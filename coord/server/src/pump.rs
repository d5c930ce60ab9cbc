//! The pump of one shard: what the reactor brings goes into the sans-io shard, what the shard
//! wants goes to the reactor. Nothing is decided here.

use std::sync::Arc;

use ringway_coord_proto::mail::{epoch_message, lease_message};
use ringway_coord_proto::stats::{REFUSALS, VERBS, refusal_status};
use ringway_coord_proto::{Env, Shard, mail};
use ringway_core::{ConnId, Epoch, Moment, ShardId, Span, limits};
use ringway_ring::{MappedRegion, host};
use ringway_shards::{Close, Io, Peer, Service};

use crate::access::NodeAccess;
use crate::control::ControlPort;
use crate::metrics::{ShardMetrics, Verb};
use crate::node::Shared;

/// One shard of the server.
pub(crate) struct Pump {
    shard: Shard<MappedRegion, NodeAccess>,
    own: Own,
    verbs: [u64; VERBS.len()],
    refused: [u64; REFUSALS],
    settled: bool,
}

/// What the shard's wishes need beside the reactor.
struct Own {
    control: ControlPort,
    control_id: ShardId,
    metrics: Arc<ShardMetrics>,
    shared: Arc<Shared>,
    me: ShardId,
    raised: Option<Span>,
    epoch: Option<Epoch>,
    random: [u8; RANDOM_BYTES],
    random_at: usize,
}

/// Random bytes are fetched so many at a time.
const RANDOM_BYTES: usize = 1024;

impl Pump {
    pub(crate) fn new(
        shard: Shard<MappedRegion, NodeAccess>,
        control: ControlPort,
        shared: &Arc<Shared>,
        (me, control_id): (ShardId, ShardId),
    ) -> Self {
        let own = Own {
            control,
            control_id,
            metrics: Arc::clone(&shared.metrics[me.index()]),
            shared: Arc::clone(shared),
            me,
            raised: None,
            epoch: None,
            random: [0; RANDOM_BYTES],
            random_at: RANDOM_BYTES,
        };
        Self { shard, own, verbs: [0; VERBS.len()], refused: [0; REFUSALS], settled: false }
    }

    /// Publishes the shard's numbers. The ops of a turn share a latency: from `now`, which is when
    /// the turn began and the moment of all its inputs, until all of them are executed and their
    /// replies stand in the out buffers. What they waited for before is not known here, and the
    /// sending, one system call for the whole turn, comes after it.
    fn publish(&mut self, now: Moment) {
        let stats = self.shard.stats();
        let metrics = &self.own.metrics;
        let took = host::now().since(now).0;
        let mut ops = 0;
        for ((verb, before), total) in Verb::ALL.iter().zip(&mut self.verbs).zip(stats.verbs) {
            let more = total - *before;
            if more > 0 {
                metrics.verb_done(*verb, more, took);
                *before = total;
                ops += more;
            }
        }
        for (index, (before, total)) in self.refused.iter_mut().zip(stats.refused.0).enumerate() {
            if total > *before {
                metrics.refused_with(refusal_status(index), total - *before);
                *before = total;
            }
        }
        let (names, sessions) = (self.shard.names(), self.shard.sessions());
        let table_bytes = names.table().bytes().total() as u64;
        metrics.names.set(names.table().len() as u64);
        metrics.sessions.set(sessions.len() as u64);
        metrics.connections.set(self.shard.connections() as u64);
        metrics.connections_accepted.set(stats.accepted);
        metrics.requests.add(ops);
        metrics.turns.set(stats.turns);
        metrics.turn_ops_max.set(stats.turn_ops_max);
        metrics.forwarded_out.set(stats.forwarded_out);
        metrics.forwarded_in.set(stats.forwarded_in);
        metrics.table_bytes.set(table_bytes);
        let beside = sessions.bytes() + names.mirror_bytes() + names.side_bytes();
        metrics.memory_bytes.set(table_bytes + beside as u64 + stats.buffer_bytes);
        let [expired, replaced, killed, closed] = sessions.counts().ended;
        metrics.expired_sessions.set(expired);
        metrics.replaced_sessions.set(replaced);
        metrics.killed_sessions.set(killed);
        metrics.closed_sessions.set(closed);
        metrics.opened_sessions.set(sessions.counts().opened);
        metrics.resumed_sessions.set(sessions.counts().resumed);
        metrics.protocol_errors.set(stats.protocol_errors);
        metrics.auth_failures.set(stats.auth_failures);
        metrics.readers_blocked.set(stats.blocked_readers);
        metrics.waits_for_shards.set(stats.waits_for_shards);
        metrics.waits_for_memory.set(stats.waits_for_memory);
        metrics.cut_for_memory.set(stats.cut_for_memory);
        metrics.auth_timeouts.set(stats.auth_timeouts);
        metrics.buffer_bytes.set(stats.buffer_bytes);
        metrics.notices_dropped.set(stats.pushes_dropped);
        metrics.messages_delivered.set(stats.messages.delivered);
        metrics.messages_unowned.set(stats.messages.unowned);
        metrics.messages_away.set(stats.messages.away);
        metrics.messages_full.set(stats.messages.full);
        metrics.messages_fenced.set(stats.messages.fenced);
        metrics.messages_busy.set(stats.messages.busy);
        metrics.notices_away.set(stats.notices_away);
        metrics.watches.set(self.shard.watches() as u64);
        metrics.watch_notices.set(stats.watch_notices);
        metrics.watch_gaps.set(stats.watch_gaps);
        metrics.watchers_passed_over.set(stats.watchers_passed_over);
        metrics.watch_changes_dropped.set(stats.watch_changes_dropped);
        metrics.claims.set(names.claims() as u64);
        metrics.side_bytes.set(names.side_bytes() as u64);
        metrics.stalls.set(self.shard.stalls());
        metrics.swept_names.set(stats.swept);
        self.own.shared.set_leased(self.own.me, sessions.leased());
    }

    /// Once the leases of an earlier life have run out, the next start need not wait for them.
    fn settle(&mut self, now: Moment) {
        if !self.settled && now >= self.shard.names().grants_from() {
            self.settled = true;
            if self.own.me == ShardId(0) {
                self.own.control.settle();
            }
        }
    }
}

impl Service for Pump {
    fn opened(&mut self, now: Moment, conn: ConnId, _peer: Peer, io: &mut Io<'_>) {
        self.shard.opened(now, conn, &mut Hands { io, own: &mut self.own });
    }

    fn received(&mut self, now: Moment, conn: ConnId, bytes: &mut [u8], io: &mut Io<'_>) {
        self.shard.received(now, conn, bytes, &mut Hands { io, own: &mut self.own });
    }

    fn ended(&mut self, now: Moment, conn: ConnId, io: &mut Io<'_>) {
        self.shard.ended(now, conn, &mut Hands { io, own: &mut self.own });
    }

    fn closed(&mut self, now: Moment, conn: ConnId, io: &mut Io<'_>) {
        self.shard.closed(now, conn, &mut Hands { io, own: &mut self.own });
    }

    fn drained(&mut self, now: Moment, conn: ConnId, io: &mut Io<'_>) {
        self.shard.drained(now, conn, &mut Hands { io, own: &mut self.own });
    }

    fn overdue(&mut self, now: Moment, conn: ConnId, io: &mut Io<'_>) {
        self.shard.overdue(now, conn, &mut Hands { io, own: &mut self.own });
    }

    fn mail(&mut self, now: Moment, from: ShardId, message: &[u8], io: &mut Io<'_>) {
        let hands = &mut Hands { io, own: &mut self.own };
        if message == [mail::ACCESS] {
            let access = hands.own.shared.access();
            return self.shard.replace_access(now, access, NodeAccess::heir, hands);
        }
        self.shard.mail(now, from, message, hands);
    }

    fn turn(&mut self, now: Moment, io: &mut Io<'_>) {
        if let Some(lease) = self.own.raised.take() {
            let message = lease_message(mail::LEASE_RAISED, lease);
            let control = self.own.control_id;
            self.shard.mail(now, control, &message, &mut Hands { io, own: &mut self.own });
        }
        if let Some(epoch) = self.own.epoch.take() {
            let message = epoch_message(epoch);
            let control = self.own.control_id;
            self.shard.mail(now, control, &message, &mut Hands { io, own: &mut self.own });
        }
        self.shard.turn(now, &mut Hands { io, own: &mut self.own });
        self.settle(now);
        self.publish(now);
    }

    fn wake_at(&self) -> Option<Moment> {
        let starting = (!self.settled).then(|| self.shard.names().grants_from());
        [self.shard.wake_at(), starting].into_iter().flatten().min()
    }

    fn stop(&mut self, now: Moment, io: &mut Io<'_>) {
        self.shard.stop(now, &mut Hands { io, own: &mut self.own });
    }

    fn may_stop(&self) -> bool {
        self.shard.may_stop()
    }
}

/// The reactor and the process, as the shard asks for them.
struct Hands<'a, 'b> {
    io: &'a mut Io<'b>,
    own: &'a mut Own,
}

impl Env for Hands<'_, '_> {
    #[inline]
    fn out(&mut self, conn: ConnId) -> &mut Vec<u8> {
        self.io.out(conn)
    }

    #[inline]
    fn backlog(&self, conn: ConnId) -> usize {
        self.io.backlog(conn)
    }

    fn await_drain(&mut self, conn: ConnId) {
        self.io.await_drain(conn, limits::CONN_OUT_LOW);
    }

    fn buffered(&mut self) -> usize {
        self.io.buffered()
    }

    fn buffered_for(&self, conn: ConnId) -> usize {
        self.io.buffered_for(conn)
    }

    fn release_spare(&mut self) {
        self.io.release_spare();
    }

    fn cut(&mut self, conn: ConnId) {
        self.io.close(conn, Close::Now);
    }

    fn call_overdue(&mut self, conn: ConnId, after: Span) {
        self.io.call_overdue(conn, after);
    }

    fn pause(&mut self, conn: ConnId) {
        self.io.pause(conn);
    }

    fn resume(&mut self, conn: ConnId) {
        self.io.resume(conn);
    }

    fn close(&mut self, conn: ConnId) {
        self.io.close(conn, Close::AfterFlush);
    }

    #[inline]
    fn post(&mut self, to: ShardId, message: &[u8]) {
        if to != self.own.control_id {
            return self.io.post(to, message);
        }
        // The control plane takes wishes, and its news come as mail.
        let (kind, wish) = message.split_first().expect("a message has a kind");
        match *kind {
            mail::RAISE_LEASE => {
                let lease = u64::from_le_bytes(wish.try_into().expect("a lease is 8 bytes"));
                if self.own.control.want_lease(Span(lease)) {
                    self.own.raised = Some(self.own.control.lease_persisted());
                    self.io.again();
                }
            }
            mail::EPOCH => {
                let used_up = u32::from_le_bytes(wish.try_into().expect("an epoch is 4 bytes"));
                if let Some(epoch) = self.own.control.want_epoch_after(Epoch(used_up)) {
                    self.own.epoch = Some(epoch);
                    self.io.again();
                }
            }
            mail::AUDIT => self.own.shared.audit.tell(wish),
            kind => unreachable!("the control plane is never sent a message of kind {kind}"),
        }
    }

    fn random(&mut self) -> [u8; 16] {
        let own = &mut *self.own;
        if own.random_at + 16 > RANDOM_BYTES {
            host::fill_random(&mut own.random);
            own.random_at = 0;
        }
        let (at, end) = (own.random_at, own.random_at + 16);
        own.random_at = end;
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&own.random[at..end]);
        own.random[at..end].fill(0);
        bytes
    }

    fn describe(&mut self, json: &mut Vec<u8>) {
        let view = self.own.shared.view(self.own.me);
        // Plain numbers into a vector: neither can fail.
        serde_json::to_writer(json, &view).expect("numbers are JSON");
    }

    #[inline]
    fn again(&mut self) {
        self.io.again();
    }
}
