//! What a shard asks of the code that runs on it, and the words they share.

use std::net::SocketAddr;

use ringway_core::{ConnId, Moment, ShardId, Span};

use ringway_ring::Errno;

use crate::io::Io;
use crate::sockets::{Datagrams, SocketId, Unsent};

/// Which door a connection came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// The port that all shards share.
    Base,
    /// The shard's own port.
    Own,
    /// Another one, with the number that it was given: [`crate::RuntimeConfig::doors`], or
    /// [`Io::add_door`].
    Extra(u16),
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Which door it came in by.
    pub listener: ListenerKind,
}

/// How a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// After everything in its out buffer has been sent, or [`FLUSH_MAX`]. What it still sends is
    /// discarded, up to `DISCARD_BYTES_MAX`; from then on it is not read.
    AfterFlush,
    /// At once. The peer sees an end, or a reset if it had sent what was not read.
    Now,
    /// At once, and the peer sees a reset: for when an end would be a lie.
    Reset,
}

/// Why a connection could not even be begun, or a UDP socket opened. Nothing is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSocket {
    /// The shard has as many connections, or sockets, as it may have.
    Full,
    /// The host has none for us: [`Errno::is_shortage`] says whether it is out of descriptors or
    /// memory. Otherwise it does not speak the family of the address; or, for a UDP socket, the
    /// address is taken or not one of ours.
    Host(Errno),
}

/// The code of one shard. All calls come from the shard's thread, one after the other.
pub trait Service {
    /// Somebody connected.
    fn opened(&mut self, now: Moment, conn: ConnId, peer: Peer, io: &mut Io<'_>);

    /// What [`Io::connect`] began has ended: the connection is open, or it failed and why (refused,
    /// unreachable, timed out, [`Errno`] tells them apart). After a failure [`Self::closed`]
    /// follows. Who connects overrides this; others have closed it.
    fn connected(&mut self, now: Moment, conn: ConnId, result: Result<(), Errno>, io: &mut Io<'_>) {
        let _ = (now, result);
        io.close(conn, Close::Now);
    }

    /// A connection came from another shard, which gave it away with this note ([`Io::give`]). What
    /// it had received and not handed to that service follows as [`Self::received`] in the same
    /// turn, though it be paused here; its end follows as [`Self::ended`], though the other service
    /// was told before. Who gives connections overrides this; others have closed it.
    fn adopted(
        &mut self,
        now: Moment,
        conn: ConnId,
        peer: SocketAddr,
        note: &[u8],
        io: &mut Io<'_>,
    ) {
        let _ = (now, peer, note);
        io.close(conn, Close::Now);
    }

    /// Bytes arrived. They are valid during the call only, and cut anywhere. They stand in the
    /// buffer that the kernel filled, which is the service's during the call: it may decrypt them
    /// where they are.
    fn received(&mut self, now: Moment, conn: ConnId, bytes: &mut [u8], io: &mut Io<'_>);

    /// The peer will send nothing more, but may still read. Unless overridden, what is queued is
    /// sent and the connection closed. Who still owes it answers overrides this, and closes when
    /// they are written.
    fn ended(&mut self, now: Moment, conn: ConnId, io: &mut Io<'_>) {
        let _ = now;
        io.close(conn, Close::AfterFlush);
    }

    /// The connection is gone; the last call with this id.
    fn closed(&mut self, now: Moment, conn: ConnId, io: &mut Io<'_>);

    /// What waits for this connection fell below the mark given to [`Io::await_drain`]. Once for
    /// each of those calls.
    fn drained(&mut self, now: Moment, conn: ConnId, io: &mut Io<'_>);

    /// The time is over that [`Io::call_overdue`] gave it. Unless overridden, it is closed.
    fn overdue(&mut self, now: Moment, conn: ConnId, io: &mut Io<'_>) {
        let _ = now;
        io.close(conn, Close::AfterFlush);
    }

    /// Datagrams arrived at a UDP socket ([`Io::open_datagrams`]), as many at once as the kernel
    /// put together. Who opens sockets overrides this.
    fn datagrams(&mut self, now: Moment, socket: SocketId, train: Datagrams<'_>, io: &mut Io<'_>) {
        let _ = (now, socket, train, io);
    }

    /// Datagrams that were appended did not leave the host, and why. Nothing is wrong with the
    /// socket. Those of a train that left are not told.
    fn unsent(&mut self, now: Moment, socket: SocketId, what: Unsent, io: &mut Io<'_>) {
        let _ = (now, socket, what, io);
    }

    /// What waits for room in this socket fell below the mark given to [`Io::await_datagrams`].
    /// Once for each of those calls.
    fn datagrams_drained(&mut self, now: Moment, socket: SocketId, io: &mut Io<'_>) {
        let _ = (now, socket, io);
    }

    /// A message of this service on another shard, or of its control plane
    /// ([`ShardContext::control`]).
    fn mail(&mut self, now: Moment, from: ShardId, message: &[u8], io: &mut Io<'_>);

    /// All input of this turn is delivered: execute, and append what is to be sent. Called once
    /// per wake-up.
    fn turn(&mut self, now: Moment, io: &mut Io<'_>);

    /// When [`Self::turn`] is to be called at the latest, whatever arrives.
    fn wake_at(&self) -> Option<Moment>;

    /// A graceful stop was asked for. Nobody new will connect.
    fn stop(&mut self, now: Moment, io: &mut Io<'_>);

    /// After [`Self::stop`]: whether nothing is left to do. The shards stop when all say so and
    /// everything is sent, or when the time for draining is over.
    fn may_stop(&self) -> bool;
}

/// What a shard's code is told when it is made, on the shard's own thread.
#[derive(Clone, Debug)]
pub struct ShardContext {
    /// Which shard.
    pub shard: ShardId,
    /// Of how many.
    pub shards: usize,
    /// Where the mail of the service's control plane goes: its number.
    pub control: ShardId,
    /// The core it is pinned to, if it is.
    pub core: Option<usize>,
    /// How long it may take to stop.
    pub drain: Span,
    /// Now.
    pub now: Moment,
}

/// After [`Close::AfterFlush`]: how long the peer may take to read what is left.
pub const FLUSH_MAX: Span = Span::from_s(10);
/// After the last byte was sent: how long we wait for the peer to close its end. Closing at once
/// would make the kernel send a reset if the peer has sent more, and the reset may overtake our
/// last bytes.
pub const LINGER_MAX: Span = Span::from_s(1);
/// How long nobody is accepted after the process ran out of file descriptors, unless a connection
/// closes before.
pub const ACCEPT_PAUSE: Span = Span::from_ms(100);
