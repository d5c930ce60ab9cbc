//! The words between an engine and its driver: what happens, what is to be done, what can go wrong.
//!
//! Nothing here does anything. Not here: what is said to the server (`op`), and by it (`reply`,
//! `notice`). Tests: every story in `engine/tests.rs` is told in these words.

use std::io;
use std::time::Duration;

use ringway_core::{Moment, NodeId, SessionId, Token};
use thiserror::Error;

use super::calls::{Answer, Batch, Repeat};
use super::waits::WaitRequest;
use super::watches::{WatchItem, WatchRequest};
use crate::blocking::Credentials;
use crate::error::{OpError, Refusal, StreamError};
use crate::notice::{LossReason, Message};
use crate::reply::{EndReason, Owner};

/// A call, by the driver's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);
/// A wait or lock, by the driver's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaitId(pub u64);
/// A watch, by the driver's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatcherId(pub u64);
/// An attempt to connect, by the engine's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt(pub u64);

/// How a session is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node.
    pub node: NodeId,
    /// The lease wished for; zero: the server's default.
    pub lease: Duration,
    /// Where other nodes reach this one.
    pub address: Vec<u8>,
    /// What the node says about itself.
    pub metadata: Vec<u8>,
    /// What to authenticate with.
    pub credentials: Option<Credentials>,
    /// How many addresses of servers there are; at least one.
    pub addresses: usize,
    /// How much of the lease may pass without a renewal before it is at risk, in thousandths.
    pub at_risk_per_mille: u16,
    /// How much of the lease is left unused, for clocks that run at different rates.
    pub margin_per_mille: u16,
    /// How long to try to open the session.
    pub open_within: Duration,
    /// How long ops of callers that the server was too busy for are asked again.
    pub busy_within: Duration,
    /// What makes the pauses of this client differ from those of others.
    pub seed: u64,
}

/// What happens.
#[derive(Debug)]
pub enum Input<'a> {
    /// Time has passed.
    Tick,
    /// The attempt has made a connection.
    Connected(Attempt),
    /// The attempt has failed, or the connection that it made.
    Broken(Attempt, LinkFault),
    /// Bytes came.
    Received(&'a [u8]),
    /// A caller has ops for the server.
    Call {
        /// The driver's number.
        id: CallId,
        /// The ops.
        ops: Batch,
        /// Whether they may be sent twice.
        repeat: Repeat,
    },
    /// A caller waits for a name.
    Wait(WaitId, WaitRequest),
    /// It does no longer.
    CancelWait(WaitId),
    /// It gives the lock back.
    Unlock(WaitId),
    /// A caller watches.
    Watch(WatcherId, WatchRequest),
    /// It needs the state anew.
    WatchAgain(WatcherId),
    /// It watches no longer.
    Unwatch(WatcherId),
    /// The session is to be closed when all calls are answered.
    Close,
}

/// What is to be done, or to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Connect to the address of this number.
    Connect(Attempt, usize),
    /// Let go of the connection, or of the attempt to make one.
    Disconnect,
    /// A call is answered.
    Answer {
        /// Which.
        id: CallId,
        /// With what.
        result: Result<Answer, Fault>,
    },
    /// A wait has ended.
    Wait {
        /// Which.
        id: WaitId,
        /// How.
        result: Result<Owner, WaitFault>,
    },
    /// A watch tells something.
    Watch {
        /// Which.
        id: WatcherId,
        /// What.
        item: WatchItem,
    },
    /// A message came.
    Message(Message),
    /// Something happened to the session.
    Event(Event),
    /// The session is valid until this moment; zero: not any more.
    ValidUntil(Moment),
}

/// What happens to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is open.
    Opened(SessionId),
    /// The connection is gone; everything is kept, and another one is tried.
    Interrupted(LinkFault),
    /// There is a connection again, and nothing was lost.
    Resumed,
    /// No renewal was confirmed for so long that the lease may run out: stop what cannot be undone.
    AtRisk {
        /// What is left.
        left: Duration,
    },
    /// The lease was renewed after all.
    Safe,
    /// A name was transferred to the session.
    Received {
        /// The name.
        name: Vec<u8>,
        /// The token under which it is the session's.
        token: Token,
        /// Who had it; `None`: an operator gave it.
        from: Option<SessionId>,
    },
    /// A name was taken from the session.
    Taken {
        /// The name.
        name: Vec<u8>,
        /// The token under which the session had it.
        token: Token,
        /// Who has it now, if anybody.
        to: Option<SessionId>,
        /// Why.
        reason: LossReason,
    },
    /// The session is over, and with it everything that it held.
    Lost(Over),
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Over {
    /// It was closed by its owner.
    #[error("the session was closed")]
    Closed,
    /// No renewal was confirmed in time, by our own clock.
    #[error("the lease ran out without a confirmed renewal; open a new session")]
    Expired,
    /// The server ended it.
    #[error("the server ended the session ({0:?}); open a new one")]
    Ended(EndReason),
    /// The server does not know it any more, or not by our secret.
    #[error("the session could not be kept: {0}")]
    Gone(Refusal),
    /// Another connection has resumed it.
    #[error("another process has resumed the session")]
    Moved,
    /// The server does not open it.
    #[error("the session was not opened: {0}")]
    Refused(Refusal),
    /// No server could be reached in time.
    #[error("no session could be opened in time: {0}")]
    Unreachable(LinkFault),
}

/// What is wrong with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LinkFault {
    /// None was tried yet.
    #[error("no server has answered yet")]
    Untried,
    /// There is no such host.
    #[error("the address has no host behind it; check its spelling")]
    NoHost,
    /// It could not be made.
    #[error("cannot connect ({0}); is `ringway serve` running there?")]
    Connect(io::ErrorKind),
    /// It failed.
    #[error("the connection failed ({0})")]
    Io(io::ErrorKind),
    /// The server closed it.
    #[error("the server closed the connection")]
    Closed,
    /// The server did not answer in time.
    #[error("the server did not answer in time")]
    Silent,
    /// What came is not the protocol.
    #[error(transparent)]
    Stream(StreamError),
    /// Another connection of the session has taken the place of this one.
    #[error("another connection of the session has taken the place of this one")]
    Superseded,
    /// The server said no for now.
    #[error("the server answered {0}")]
    Refused(Refusal),
    /// The server takes only frames that are smaller than an op may be.
    #[error("the server takes only frames of {0} bytes; use one that takes 256 KiB")]
    SmallFrames(usize),
}

/// Why a call has no answer of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// The connection broke between the op and its reply, and the server does not remember it.
    #[error("the answer was lost with a connection, so it may or may not have been done; query")]
    Unknown,
    /// The session is over.
    #[error("{0}")]
    Over(Over),
    /// The wire cannot carry it.
    #[error("{0}")]
    Op(OpError),
    /// There are too many of them.
    #[error("too many {0}: at most {1}")]
    TooMany(&'static str, usize),
}

/// Why a wait has ended without a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WaitFault {
    /// The time is over.
    #[error("the name was not free in time")]
    TimedOut,
    /// The server does not grant it before the time is over.
    #[error("the name was not granted in time; the server answered {0}")]
    NotYet(Refusal),
    /// The caller gave up.
    #[error("the wait was cancelled")]
    Cancelled,
    /// The server said no.
    #[error("the server answered {0}")]
    Refused(Refusal),
    /// The session could not ask.
    #[error("{0}")]
    Fault(Fault),
}
