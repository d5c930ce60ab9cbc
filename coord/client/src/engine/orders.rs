//! Ops that the engine itself has to say, and who of it hears the reply.
//!
//! While there is no session on a connection nothing is taken: each machine asks again for what it
//! still needs when there is one. So nothing is ever sent twice by accident.
//!
//! Bounds: one op for each wait, lock and watch, and a few for the session.

use std::collections::VecDeque;

use ringway_core::Moment;

use super::lane::Room;
use super::{WaitId, WatcherId};
use crate::op::{Op, WatchId, reply_bytes_max};

/// Whose op it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Auth,
    /// OPEN, and when it was sent.
    Open(Moment),
    /// LANE, right behind OPEN.
    Lane,
    /// RENEW, and when it was sent.
    Renew(Moment),
    Close,
    Wait(WaitId),
    Cancel(WaitId),
    Unlock(WaitId),
    Watch(WatcherId, WatchId),
    /// Nobody needs to hear how it ends.
    Nobody,
}

#[derive(Debug, Default)]
pub(super) struct Orders {
    open: bool,
    queue: VecDeque<(Asker, Vec<u8>)>,
}

impl Orders {
    /// From now on orders are taken.
    pub(super) fn open(&mut self) {
        self.open = true;
    }

    /// Forgets all, and takes none until they are open again.
    pub(super) fn close(&mut self) {
        *self = Orders::default();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The op has been checked where its parts were taken in.
    pub(super) fn push(&mut self, asker: Asker, op: &Op<'_>) {
        if self.open {
            self.push_always(asker, op);
        }
    }

    /// An op that makes the session, and so goes before the orders are open.
    pub(super) fn push_always(&mut self, asker: Asker, op: &Op<'_>) {
        let mut bytes = Vec::with_capacity(op.encoded_len());
        if op.put(&mut bytes).is_ok() {
            self.queue.push_back((asker, bytes));
        }
    }

    /// Appends the next orders to `body`, as many as fit.
    pub(super) fn fill(&mut self, body: &mut Vec<u8>, askers: &mut Vec<Asker>, room: &mut Room) {
        while let Some((asker, op)) =
            self.queue.pop_front_if(|(_, op)| room.take(op.len(), reply_bytes_max(op[0]), false))
        {
            body.extend_from_slice(&op);
            askers.push(asker);
        }
    }
}
