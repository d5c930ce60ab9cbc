//! What a service can do during a call: append, pause, close, post. Nothing here enters the
//! kernel; the shard acts on all of it at the end of the turn.

use std::collections::VecDeque;

use ringway_core::{ConnId, Moment, ShardId, Span};

use crate::conns::{Conns, Flags};
use crate::office::Outgoing;
use crate::pool::Pool;
use crate::service::Close;
use crate::timers::{Due, Timers};

/// What the shard and the service's calls share.
#[derive(Debug)]
pub(crate) struct IoState {
    pub(crate) shards: usize,
    pub(crate) conns: Conns,
    pub(crate) pool: Pool,
    pub(crate) outgoing: Outgoing,
    pub(crate) timers: Timers,
    /// When the present turn began.
    pub(crate) now: Moment,
    /// Bytes of memory of all connections' out buffers: the sum of what they are charged.
    pub(crate) buffered: usize,
    /// Bytes of mail that waited for room when the last turn ended.
    pub(crate) mail_waiting: usize,
    /// The connection that was appended to last, which may have grown since it was charged.
    pub(crate) writing: Option<ConnId>,
    /// Connections to settle at the end of the turn, each once.
    pub(crate) dirty: Vec<u32>,
    /// Connections that wait for a receive buffer, each once, in the order in which they came:
    /// those that did not fill the last one, and those that did.
    pub(crate) thirsty: [VecDeque<u32>; 2],
    /// Connections that end now.
    pub(crate) ending: Vec<u32>,
    /// Do not sleep after this turn.
    pub(crate) again: bool,
    /// Where bytes for nobody go.
    pub(crate) scratch: Vec<u8>,
}

impl IoState {
    #[inline]
    pub(crate) fn touch(&mut self, index: u32) {
        let conn = self.conns.get_mut(index);
        if !conn.flags.has(Flags::DIRTY) {
            conn.flags.set(Flags::DIRTY);
            self.dirty.push(index);
        }
    }

    /// A connection waits until it is its turn for a receive buffer.
    pub(crate) fn queue_for_buffer(&mut self, index: u32) {
        let conn = self.conns.get_mut(index);
        if !conn.flags.has(Flags::THIRSTY) {
            conn.flags.set(Flags::THIRSTY);
            self.thirsty[usize::from(conn.flags.has(Flags::GREEDY))].push_back(index);
        }
    }

    /// Whether receive buffers are short.
    #[inline]
    pub(crate) fn anybody_thirsty(&self) -> bool {
        self.thirsty.iter().any(|queue| !queue.is_empty())
    }

    /// Counts the memory of a connection's buffers, after they may have changed.
    #[inline]
    pub(crate) fn charge(&mut self, index: u32) {
        let conn = self.conns.get_mut(index);
        if conn.flags.has(Flags::DYING) {
            return;
        }
        let holds = conn.sending + conn.out.capacity() as u32;
        let before = std::mem::replace(&mut conn.charged, holds);
        self.buffered = self.buffered + holds as usize - before as usize;
    }

    /// Counts the connection that was appended to last.
    #[inline]
    fn charge_writing(&mut self) {
        if let Some(writing) = self.writing.take()
            && self.conns.open(writing).is_some()
        {
            self.charge(writing.index);
        }
    }

    /// Counts a connection's buffers as given back: they go as soon as the kernel lets go of them.
    pub(crate) fn uncharge(&mut self, index: u32) {
        let conn = self.conns.get_mut(index);
        self.buffered -= std::mem::take(&mut conn.charged) as usize;
    }

    /// A connection is to be closed without another word.
    pub(crate) fn doom(&mut self, index: u32) {
        let conn = self.conns.get_mut(index);
        conn.flags.set(Flags::DYING);
        let out = std::mem::take(&mut conn.out);
        self.pool.give(out);
        self.uncharge(index);
    }

    #[inline]
    pub(crate) fn io(&mut self) -> Io<'_> {
        Io { state: self }
    }
}

/// The hands of a service. An id of a connection that is gone is ignored in every call.
#[derive(Debug)]
pub struct Io<'a> {
    state: &'a mut IoState,
}

impl Io<'_> {
    /// What is to be sent to a connection: append. It leaves at the end of the turn in one send.
    /// For a connection that is gone or closing this is a buffer that nobody reads.
    #[inline]
    pub fn out(&mut self, conn: ConnId) -> &mut Vec<u8> {
        let state = &mut *self.state;
        if state.writing != Some(conn) {
            state.charge_writing();
        }
        match state.conns.open_mut(conn) {
            Some(found) if !found.flags.has(Flags::FLUSHING.or(Flags::DYING)) => {
                state.writing = Some(conn);
                if found.out.capacity() == 0 {
                    found.out = state.pool.take();
                }
                if !found.flags.has(Flags::DIRTY) {
                    found.flags.set(Flags::DIRTY);
                    state.dirty.push(conn.index);
                }
                &mut found.out
            }
            _ => {
                state.scratch.clear();
                state.scratch.shrink_to(SCRATCH_KEPT_BYTES);
                &mut state.scratch
            }
        }
    }

    /// Bytes for this connection that the kernel has not taken; zero for one that is gone.
    #[inline]
    pub fn backlog(&self, conn: ConnId) -> usize {
        self.state.conns.open(conn).map_or(0, |found| found.backlog())
    }

    /// Bytes of memory that are kept for sending: out buffers of connections, those that wait to be
    /// used again, and mail that found a full mailbox.
    pub fn buffered(&mut self) -> usize {
        self.state.charge_writing();
        self.state.buffered + self.state.pool.bytes() + self.state.mail_waiting
    }

    /// Bytes of memory of one connection's out buffers; zero for one that is gone.
    pub fn buffered_for(&self, conn: ConnId) -> usize {
        self.state.conns.open(conn).map_or(0, |found| found.charged as usize)
    }

    /// Gives back the buffers that wait to be used again.
    pub fn release_spare(&mut self) {
        self.state.pool.release();
    }

    /// Calls [`crate::Service::drained`] once what waits for this connection has fallen below
    /// `CONN_OUT_LOW` by a send that ends. Something must wait.
    pub fn await_drain(&mut self, conn: ConnId) {
        if let Some(found) = self.state.conns.open_mut(conn) {
            found.flags.set(Flags::HIGH);
            self.state.touch(conn.index);
        }
    }

    /// Calls [`crate::Service::overdue`] after so long, once, unless the connection is closed
    /// before. Another call replaces it.
    pub fn call_overdue(&mut self, conn: ConnId, after: Span) {
        let silent = Flags::FLUSHING.or(Flags::DYING);
        let state = &mut *self.state;
        if let Some(found) = state.conns.open_mut(conn).filter(|found| !found.flags.has(silent)) {
            state.timers.cancel(found.deadline.take());
            found.deadline = Some(state.timers.add(state.now + after, Due::Conn(conn.index)));
        }
    }

    /// Stops reading from a connection. Bytes that were taken already still arrive.
    pub fn pause(&mut self, conn: ConnId) {
        if let Some(found) = self.state.conns.open_mut(conn) {
            found.flags.set(Flags::PAUSED);
            self.state.touch(conn.index);
        }
    }

    /// Reads on.
    pub fn resume(&mut self, conn: ConnId) {
        if let Some(found) = self.state.conns.open_mut(conn) {
            found.flags.clear(Flags::PAUSED);
            self.state.touch(conn.index);
        }
    }

    /// Closes a connection; [`crate::Service::closed`] follows, never during this call.
    pub fn close(&mut self, conn: ConnId, how: Close) {
        let Some(found) = self.state.conns.open_mut(conn) else { return };
        if found.flags.has(Flags::DYING) {
            return;
        }
        match how {
            Close::AfterFlush if found.flags.has(Flags::FLUSHING) => {}
            Close::AfterFlush => {
                // Its time is now for flushing.
                self.state.timers.cancel(found.deadline.take());
                found.flags.set(Flags::FLUSHING);
                self.state.touch(conn.index);
            }
            Close::Now => {
                self.state.doom(conn.index);
                self.state.ending.push(conn.index);
            }
        }
    }

    /// Sends a message to another shard, or to the control plane. Messages from here to there keep
    /// their order; none is lost. What does not fit into the mailbox waits in memory: the service
    /// bounds it.
    ///
    /// # Panics
    /// If the message is longer than `MAIL_BYTES_MAX` or there is no such endpoint.
    #[inline]
    pub fn post(&mut self, to: ShardId, message: &[u8]) {
        self.state.outgoing.post(to, message);
    }

    /// Makes another turn follow at once.
    #[inline]
    pub fn again(&mut self) {
        self.state.again = true;
    }

    /// This shard.
    #[inline]
    pub fn shard(&self) -> ShardId {
        self.state.outgoing.me()
    }

    /// How many shards there are.
    #[inline]
    pub fn shards(&self) -> usize {
        self.state.shards
    }
}

/// The buffer for nobody keeps this much memory.
const SCRATCH_KEPT_BYTES: usize = 64 * 1024;
