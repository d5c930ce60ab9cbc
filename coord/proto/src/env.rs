//! What a shard asks of whoever drives it: the reactor in production, the simulator in tests.

use alloc::vec::Vec;

use ringway_core::{ConnId, ShardId, Span};

/// The driver's side. Calls take effect at the end of the turn, in order.
pub trait Env {
    /// The bytes to be sent to a connection; append to it.
    fn out(&mut self, conn: ConnId) -> &mut Vec<u8>;
    /// Bytes that the connection's reader has not yet made room for.
    fn backlog(&self, conn: ConnId) -> usize;
    /// Calls `drained` once most of the connection's backlog was taken by its reader. There is one.
    fn await_drain(&mut self, conn: ConnId);
    /// Bytes of memory that are kept for sending, for all connections and for those to come.
    fn buffered(&mut self) -> usize;
    /// Those that are kept for one connection.
    fn buffered_for(&self, conn: ConnId) -> usize;
    /// Gives back what is kept for connections to come.
    fn release_spare(&mut self);
    /// Closes a connection at once. What is queued for it is lost, and no longer counted.
    fn cut(&mut self, conn: ConnId);
    /// Calls `overdue` after so long, unless the connection is closed before.
    fn call_overdue(&mut self, conn: ConnId, after: Span);
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
