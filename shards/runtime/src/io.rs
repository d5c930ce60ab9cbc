//! What a service can do during a call: append, pause, close, post. Nothing here enters the
//! kernel; the shard acts on all of it at the end of the turn.

use ringway_core::{ConnId, ShardId};

use crate::conns::{Conns, Flags};
use crate::office::Outgoing;
use crate::pool::Pool;
use crate::service::Close;

/// What the shard and the service's calls share.
#[derive(Debug)]
pub(crate) struct IoState {
    pub(crate) shards: usize,
    pub(crate) conns: Conns,
    pub(crate) pool: Pool,
    pub(crate) outgoing: Outgoing,
    /// Connections to settle at the end of the turn, each once.
    pub(crate) dirty: Vec<u32>,
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
        match state.conns.open_mut(conn) {
            Some(found) if !found.flags.has(Flags::FLUSHING.or(Flags::DYING)) => {
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

    /// Stops reading from a connection. Bytes that were taken already still arrive.
    pub fn pause(&mut self, conn: ConnId) {
        if let Some(found) = self.state.conns.open_mut(conn) {
            found.flags.set(Flags::PAUSED);
            // The service acts on what it sees now: it is told when that is over, even if the
            // send that is on its way empties the backlog before this turn ends.
            if found.backlog() > ringway_core::limits::CONN_OUT_HIGH {
                found.flags.set(Flags::HIGH);
            }
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
            Close::AfterFlush => {
                found.flags.set(Flags::FLUSHING);
                self.state.touch(conn.index);
            }
            Close::Now => {
                found.flags.set(Flags::DYING);
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
