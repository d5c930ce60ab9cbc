//! What a shard asks of whoever drives it: the reactor in production, the simulator in tests.

use alloc::vec::Vec;

use ringway_core::{ConnId, ShardId};

/// The driver's side. Calls take effect at the end of the turn, in order.
pub trait Env {
    /// The bytes to be sent to a connection; append to it.
    fn out(&mut self, conn: ConnId) -> &mut Vec<u8>;
    /// Bytes that the connection's reader has not yet made room for.
    fn backlog(&self, conn: ConnId) -> usize;
    /// Stops reading from a connection.
    fn pause(&mut self, conn: ConnId);
    /// Reads from a connection again.
    fn resume(&mut self, conn: ConnId);
    /// Closes a connection once what is queued for it was sent.
    fn close(&mut self, conn: ConnId);
    /// Puts a message into the mailbox of another shard, or of the control plane.
    fn post(&mut self, to: ShardId, message: &[u8]);
    /// Fresh unguessable bytes.
    fn random(&mut self) -> [u8; 16];
    /// Appends one JSON object that says how this shard does, for `SHARD_STATS`.
    fn describe(&mut self, json: &mut Vec<u8>);
    /// Asks for another turn without sleeping.
    fn again(&mut self);
}
