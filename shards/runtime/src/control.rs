//! A control plane's mailbox: one more endpoint, for a thread that is no shard and may block.

use std::os::fd::{AsFd, BorrowedFd};

use ringway_core::ShardId;

use crate::office::{Incoming, Outgoing};
use crate::pair::Side;

/// Sends to and receives from all shards: from its own side of them, if there are two. Its number
/// follows those of the shards.
///
/// Wait on its descriptor for readability, then [`ControlPort::receive`]. Mail that arrives after a
/// `receive` makes the descriptor readable again.
#[derive(Debug)]
pub struct ControlPort {
    outgoing: Outgoing,
    incoming: Incoming,
    side: Side,
    shards: usize,
}

impl ControlPort {
    pub(crate) fn new(
        (mut outgoing, incoming): (Outgoing, Incoming),
        side: Side,
        shards: usize,
    ) -> Self {
        // Asleep from the start: the first mail rings.
        outgoing.may_sleep(&incoming);
        Self { outgoing, incoming, side, shards }
    }

    /// Its number, as shards know it.
    pub fn id(&self) -> ShardId {
        self.outgoing.me()
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// Sends a message to a shard, and wakes it if it sleeps.
    ///
    /// What does not fit into the mailbox waits here and leaves with the next call of `send` or
    /// [`Self::receive`].
    ///
    /// # Panics
    /// If the message is longer than `MAIL_BYTES_MAX` or there is no such shard.
    pub fn send(&mut self, to: ShardId, message: &[u8]) {
        self.outgoing.post(to, self.side, message);
        self.flush();
    }

    /// Hands over everything that has arrived, per shard in order. Never blocks.
    pub fn receive(&mut self, mut take: impl FnMut(ShardId, &[u8])) {
        let me = self.outgoing.me();
        self.outgoing.ends()[me.index()].bell.hush();
        self.outgoing.get_up();
        loop {
            for from in 0..self.incoming.endpoints() {
                let from = ShardId(from as u8);
                self.incoming.deliver(from, |_, message| take(from, message));
            }
            self.flush();
            // False if something came meanwhile, or there is room for what waits.
            if self.outgoing.may_sleep(&self.incoming) {
                return;
            }
        }
    }

    fn flush(&mut self) {
        self.outgoing.flush(&mut self.incoming, |_, end| end.bell.ring());
    }
}

impl AsFd for ControlPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let me = self.outgoing.me();
        self.outgoing.ends()[me.index()].bell.as_fd()
    }
}
