//! The bytes that a shard keeps for its connections, and what happens when they are spent.
//!
//! Counted are input that waits (`carry`, stalled frames), what clients said of themselves, units
//! that wait for replies, pages that are being collected and what was noted for the next ones
//! (`runs`), replies that lanes remember, watches and what they were not told yet, whoever waits
//! for the state directory, and what the driver keeps for sending and posting. Counting is by
//! capacity, and done where a buffer changes hands: once for a connection and turn, not for an op.
//!
//! The hard case is a crowd of which nobody does much harm: thousands of connections that each
//! hold a part of a frame, or leave a few replies unread. What holds, from soft to hard:
//! - B1  A connection may leave unread, and hold in waiting input, at most half of what is free, so
//!   those who read always find room (and never more than `CONN_OUT_HIGH` and `CONN_IN_MAX / 2`).
//!   Beyond that it is not executed, and not read.
//! - B2  While nothing is free nobody starts another command. It waits for the end of the turn.
//! - B3  At the end of every turn spare memory is given back if more than the budget is used, and
//!   what was noted for lists is forgotten. If that is not enough, the connections that hold most
//!   are cut until an eighth is free; but only as long as connections hold more than half, and
//!   nobody who holds next to nothing: they do not pay for what their end would not free.
//!
//! So between turns no more than the budget is used, and within a turn no more than one batch and
//! what the kernel handed over are added to it.
//!
//! Bounds: counting takes constant time; a cut looks at every connection some twenty times, and
//! happens again only after an eighth of the budget was filled again.
//! Not here: the object table (`FULL`), sessions and the number of connections: other shares.
//! Tests: `tests/memory.rs`; real floods in `tools/ringway/tests/real/floods.rs`.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use ringway_core::limits::{
    CONN_OUT_HIGH, MESSAGES_UNDER_WAY_MAX, RECEIVER_BYTES, UNKNOWN_OUT_MAX,
};
use ringway_core::{ConnId, Region};

use crate::access::Access;
use crate::conn::Conn;
use crate::env::Env;
use crate::gather::GATHER_BYTES;
use crate::resumes::LEASE_WAITERS_MAX;
use crate::shard::{FORWARD_OPS_MAX, Shard};

/// What a connection's input, its list of units and a turn's buffers keep when they are empty.
const KEPT_BYTES: usize = 256;
/// What waits for the state directory: a lock's name and value, a session's address and metadata.
const WAITER_BYTES: usize = 1024;
/// A forwarded op: a request with a name of any length. A message counts for as many as it takes.
pub(crate) const FORWARDED_BYTES: usize = 256;
/// Who holds no more than this is never cut. The last look cuts whoever holds more than twice as
/// much, so that what is left fits even when there are as many connections as there may be: each
/// has 384 bytes of the budget at least (`coord/server/src/shares.rs`).
const CUT_MIN: usize = 128;
/// Input that has become a quarter of its buffer moves to a smaller one, if that was larger.
const ROOMY_BYTES: usize = 16 * 1024;

impl<R: Region, A: Access> Shard<R, A> {
    /// Bytes in use of [`crate::ShardStart::buffer_bytes`].
    pub(crate) fn buffers_used(&self, env: &mut impl Env) -> usize {
        let jobs = self.jobs.bytes() + self.gathers.under_way() * GATHER_BYTES;
        let waiters = (self.parked.len() + self.sessions.resumes_waiting()) * WAITER_BYTES;
        let others = self.lanes.bytes() + self.watching.topics.bytes() + self.names.feeds.bytes();
        let kept = self.pendings.bytes() + self.names.runs.bytes() + jobs + waiters + others;
        self.conn_bytes + kept + env.buffered()
    }

    /// Whether so much more fits: asked before something begins that is not cut once it runs. An
    /// eighth stays free, or the next reply would have a connection cut for what was only reserved.
    pub(crate) fn has_room(&self, bytes: usize, env: &mut impl Env) -> bool {
        let most = self.start.buffer_bytes;
        self.buffers_used(env) + bytes <= most - most / 8
    }

    /// B1: what a connection may leave unread while so much is used.
    pub(crate) fn share(&self, conn: &Conn, used: usize) -> usize {
        let most = if conn.grantee.is_some() { CONN_OUT_HIGH } else { UNKNOWN_OUT_MAX };
        (self.start.buffer_bytes.saturating_sub(used) / 2).min(most)
    }

    /// What a connection may have unread and still get messages: `RECEIVER_BYTES`, or half of B1's
    /// share.
    pub(crate) fn receiver_room(&self, env: &mut impl Env) -> usize {
        let free = self.start.buffer_bytes.saturating_sub(self.buffers_used(env));
        (free / 4).min(RECEIVER_BYTES)
    }

    /// Bytes of notices that may be under way to other shards, on each part of their way.
    pub(crate) fn under_way_max(buffer_bytes: usize) -> usize {
        MESSAGES_UNDER_WAY_MAX.min(buffer_bytes / 4)
    }

    /// Counts what a connection holds, after it may have changed.
    #[inline]
    pub(crate) fn recount(&mut self, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        if conn.queue.is_empty() && conn.queue.capacity() * size_of::<u32>() > KEPT_BYTES {
            conn.queue = VecDeque::new();
        }
        let (before, holds) = (conn.held as usize, conn.holds());
        conn.held = holds as u32;
        self.conn_bytes = self.conn_bytes + holds - before;
    }

    /// B3. Called at the end of a turn.
    pub(crate) fn reclaim(&mut self, env: &mut impl Env) {
        let most = self.start.buffer_bytes;
        if self.pendings.is_empty() && self.pendings.bytes() > most / 8 {
            self.pendings.release_spare();
        }
        if self.buffers_used(env) <= most {
            return;
        }
        self.pendings.release_spare();
        env.release_spare();
        self.names.runs.drop_complete();
        self.lanes.forget(self.buffers_used(env).saturating_sub(most));
        let mut above = most / 4;
        while self.buffers_used(env) > most && self.conns_hold(env) > most / 2 && above > CUT_MIN {
            self.cut_above(above, most - most / 8, env);
            above /= 2;
        }
    }

    /// Bytes that go when connections go.
    fn conns_hold(&self, env: &mut impl Env) -> usize {
        self.conn_bytes + self.pendings.bytes() + env.buffered()
    }

    /// How many may wait for the state directory, of ops on locks and of resumes each.
    pub(crate) fn waiters_max(buffer_bytes: usize) -> usize {
        LEASE_WAITERS_MAX.min(buffer_bytes / 16 / WAITER_BYTES)
    }

    /// Ops on their way to one other shard before those who need it have to wait.
    pub(crate) fn forward_ops_max(buffer_bytes: usize) -> u32 {
        FORWARD_OPS_MAX.min((buffer_bytes / 8 / FORWARDED_BYTES) as u32)
    }

    /// Cuts connections that hold more than `above`, until no more than `goal` is used.
    fn cut_above(&mut self, above: usize, goal: usize, env: &mut impl Env) {
        for index in 0..self.conns.len() {
            let conn = &self.conns[index];
            let id = ConnId { index: index as u32, generation: conn.generation };
            let units: usize = conn.queue.iter().map(|unit| self.pendings.bytes_of(*unit)).sum();
            if !conn.open || conn.cut || conn.held as usize + units + env.buffered_for(id) <= above
            {
                continue;
            }
            self.cut(id, env);
            if self.buffers_used(env) <= goal {
                return;
            }
        }
    }

    /// Ends a connection without another word: there is no memory for any.
    pub(crate) fn cut(&mut self, id: ConnId, env: &mut impl Env) {
        self.stats.cut_for_memory += 1;
        let conn = &mut self.conns[id.index as usize];
        (conn.closing, conn.cut) = (true, true);
        conn.carry = Vec::new();
        let (stalled, queue) = (conn.stalled.take(), core::mem::take(&mut conn.queue));
        self.abandon(stalled);
        for unit in queue {
            if self.pendings.get(unit).missing == 0 {
                self.pendings.end(unit);
            } else {
                // Its replies are on their way.
                self.conns[id.index as usize].queue.push_back(unit);
            }
        }
        self.recount(id);
        env.cut(id);
    }
}

impl Conn {
    /// Bytes of its input, of its list of units and of its client's names, by capacity.
    fn holds(&self) -> usize {
        let stalled = self.stalled.as_ref().map_or(0, |stalled| stalled.bytes.capacity());
        let client = self.client.as_ref().map_or(0, |client| client.bytes());
        self.carry.capacity() + stalled + self.queue.capacity() * size_of::<u32>() + client
    }

    /// Takes back input of which a part was executed.
    pub(crate) fn keep(&mut self, mut carry: Vec<u8>, consumed: usize) {
        carry.drain(..consumed);
        if carry.capacity() > ROOMY_BYTES && carry.len() < carry.capacity() / 4 {
            carry.shrink_to_fit();
        }
        self.carry = carry;
    }
}
