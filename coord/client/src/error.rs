//! What can go wrong, sorted by who must act.
//!
//! [`OpError`]: the caller asked for something the wire cannot carry. [`Refusal`]: the server
//! understood and said no. [`StreamError`]: what came from the server is not the protocol.
//! [`Error`](enum@Error): any of these, or the network, with the server's address.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ringway_coord_proto::wire::{FrameError, MAJOR, Reply, status};
use thiserror::Error;

/// The caller asked for an op that the wire cannot carry; nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpError {
    /// The name has this many bytes.
    #[error("a name of {0} bytes: give it 1 to 255")]
    Name(usize),
    /// A field is too long.
    #[error("{what} of {bytes} bytes: at most {most} fit")]
    TooLong {
        /// The field.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The most there may be.
        most: usize,
    },
    /// A page of a size that the server does not give.
    #[error("a page of {asked}: ask for 1 to {most}")]
    Page {
        /// Asked for.
        asked: u16,
        /// The most there may be.
        most: u16,
    },
    /// A lease that does not fit the wire's 32 bits of milliseconds.
    #[error("a lease of {0:?}: at most 49 days fit")]
    Lease(Duration),
    /// A name with no permits, which nobody could hold.
    #[error("a counting name without permits: give it at least one")]
    Permits,
    /// A wait that does not fit the wire's 32 bits of milliseconds.
    #[error("a wait of {0:?}: at most 49 days fit; leave it out to wait without end")]
    Wait(Duration),
    /// Too many frames wait for their replies.
    #[error("{0} frames wait for their replies: take some replies first")]
    Backlog(usize),
}

/// The server understood the op and did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Nothing is granted yet after an unclean stop.
    #[error("STARTING: grants resume in {0:?}; try again then")]
    Starting(Duration),
    /// The server is older than this op.
    #[error("UNKNOWN_OP: the server does not know this op; upgrade it")]
    UnknownOp,
    /// The server could not read the op's body.
    #[error("MALFORMED: the server could not read the op; client and server disagree on it")]
    Malformed,
    /// The name is empty or too long.
    #[error("BADNAME: a name is 1 to 255 bytes")]
    BadName,
    /// The session is not, or no longer, there.
    #[error("NOSESSION: no such session, or it has ended; open a new one")]
    NoSession,
    /// Somebody else holds the name, or nobody, or another token does.
    #[error("NOTOWNER: this session does not hold the name under this token")]
    NotOwner,
    /// The name is held in another mode, or the mode does not exist yet.
    #[error("MODE: the name is held in another mode, or the mode does not fit what is asked")]
    Mode,
    /// A limit of the server is reached.
    #[error("FULL: the server is at a limit (memory, names or sessions); raise it or release")]
    Full,
    /// The shard has too much queued.
    #[error("BUSY: the server has too much queued for this shard; try again")]
    Busy,
    /// Replication needs a cluster.
    #[error("NOREPLICA: `replicated` needs a cluster; register without it")]
    NoReplica,
    /// The connection has not authenticated.
    #[error("NOAUTH: give credentials first, a user and its token (`ringway --user --token-file`)")]
    NoAuth,
    /// The credentials do not cover the op.
    #[error("DENIED: these credentials do not cover it; ask for a wider namespace")]
    Denied,
    /// The lease is outside the server's bounds.
    #[error("LEASE: the lease is shorter or longer than the server allows")]
    Lease,
    /// The names are not in one slot.
    #[error("CROSSSLOT: the names are not in one slot; give them the same {{tag}}")]
    CrossSlot,
    /// Another principal's, or a wrong secret.
    #[error("REFUSED: the node or session is another principal's, or the secret is wrong")]
    Refused,
    /// A reserved bit was set.
    #[error("UNSUPPORTED: the server does not support a flag of this op; upgrade it")]
    Unsupported,
    /// The receiver has no connection at the moment.
    #[error("AWAY: the receiver has no connection at the moment; try again later")]
    Away,
    /// The receiver does not read fast enough.
    #[error("RECEIVER_FULL: the receiver has too much unread; send slower")]
    ReceiverFull,
    /// The sender is not, or no longer, the owner it says it is.
    #[error(
        "FENCED: this session does not own the source name under this token; stop acting as it"
    )]
    Fenced,
    /// The namespace is full.
    #[error("QUOTA: the namespace's quota of names is used up; release some or raise it")]
    Quota,
    /// The connection has a watch of this number.
    #[error("EXISTS: the connection has a watch of this number; take another")]
    Exists,
    /// It was done when it was sent first, and nobody remembers the answer.
    #[error("FORGOTTEN: it was executed before, and the answer is not remembered; query")]
    Forgotten,
    /// A status that this op never answers, or one that a newer server added.
    #[error("status 0x{0:02X}, which this client does not expect here; upgrade it")]
    Unexpected(u8),
}

impl Refusal {
    /// What a reply that is not the hoped-for one says.
    pub fn of(reply: &Reply<'_>) -> Refusal {
        match *reply {
            Reply::Data(status::STARTING, bytes) => match bytes.first_chunk::<4>() {
                Some(ms) => {
                    Refusal::Starting(Duration::from_millis(u64::from(u32::from_le_bytes(*ms))))
                }
                None => Refusal::Unexpected(status::STARTING),
            },
            _ => Refusal::of_status(reply.status()),
        }
    }

    fn of_status(status: u8) -> Refusal {
        match status {
            status::UNKNOWN_OP => Refusal::UnknownOp,
            status::MALFORMED => Refusal::Malformed,
            status::BADNAME => Refusal::BadName,
            status::NOSESSION => Refusal::NoSession,
            status::NOTOWNER => Refusal::NotOwner,
            status::MODE => Refusal::Mode,
            status::FULL => Refusal::Full,
            status::BUSY => Refusal::Busy,
            status::NOREPLICA => Refusal::NoReplica,
            status::NOAUTH => Refusal::NoAuth,
            status::DENIED => Refusal::Denied,
            status::LEASE => Refusal::Lease,
            status::CROSSSLOT => Refusal::CrossSlot,
            status::REFUSED => Refusal::Refused,
            status::UNSUPPORTED => Refusal::Unsupported,
            status::AWAY => Refusal::Away,
            status::RECEIVER_FULL => Refusal::ReceiverFull,
            status::FENCED => Refusal::Fenced,
            status::QUOTA => Refusal::Quota,
            status::EXISTS => Refusal::Exists,
            status::FORGOTTEN => Refusal::Forgotten,
            other => Refusal::Unexpected(other),
        }
    }
}

/// The bytes from the server are not what `docs/protocol.md` says; the connection is of no more
/// use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// The first 16 bytes are no preface.
    #[error("it did not answer with a Ringway preface; is another service listening there?")]
    NotRingway,
    /// The server speaks another major version.
    #[error("it speaks protocol version {0}, this client speaks {MAJOR}; use a matching client")]
    Version(u8),
    /// A frame header is impossible.
    #[error("it sent an impossible frame header ({0:?})")]
    Frame(FrameError),
    /// A request came from the server.
    #[error("it sent a request frame")]
    Request,
    /// A reply came that nobody waits for, or out of order.
    #[error("it answered frame {got} where frame {due} was due")]
    OutOfOrder {
        /// The sequence of the frame that came.
        got: u64,
        /// The sequence of the oldest frame without a reply; zero if there is none.
        due: u64,
    },
    /// A reply frame with the wrong number of replies.
    #[error("it answered {got} ops where {due} were asked")]
    Count {
        /// Replies in the frame.
        got: u16,
        /// Ops in the request.
        due: u16,
    },
    /// The body of a frame does not hold what its header says.
    #[error("the body of a frame does not hold what its header announces")]
    Body,
    /// The data of a reply is not what the op's reply holds.
    #[error("the data in the reply to {0} does not parse")]
    Data(&'static str),
    /// The server said so about us.
    #[error("it reported a protocol error of ours and closes")]
    Reported,
}

/// What a call of the blocking client can fail with.
#[derive(Debug, Error)]
pub enum Error {
    /// No connection could be made.
    #[error("cannot connect to {addr}: {source}; is `ringway serve` running there?")]
    Connect {
        /// The server.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The connection failed during a call; what it asked may or may not have been done.
    #[error("connection to {addr} failed during {doing}: {source}; connect again and query")]
    Io {
        /// The server.
        addr: SocketAddr,
        /// The call.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Nothing moved for too long; what was asked may or may not have been done.
    #[error("{addr} did not answer {doing} within {after:?}; connect again and query")]
    Timeout {
        /// The server.
        addr: SocketAddr,
        /// The call.
        doing: &'static str,
        /// The time-out of the connection.
        after: Duration,
    },
    /// The server closed the connection during a call.
    #[error("{addr} closed the connection during {doing}; connect again and query")]
    Closed {
        /// The server.
        addr: SocketAddr,
        /// The call.
        doing: &'static str,
    },
    /// What came is not the protocol.
    #[error("{addr}: {source}")]
    Stream {
        /// The server.
        addr: SocketAddr,
        /// What is wrong with it.
        source: StreamError,
    },
    /// The connection failed in an earlier call.
    #[error("the connection to {addr} failed in an earlier call; connect again")]
    Dead {
        /// The server.
        addr: SocketAddr,
    },
    /// The op cannot be sent.
    #[error("{doing} was not sent: {source}")]
    Op {
        /// The call.
        doing: &'static str,
        /// Why not.
        source: OpError,
    },
    /// The server said no.
    #[error("{addr} answered {doing} with {refusal}")]
    Refused {
        /// The server.
        addr: SocketAddr,
        /// The call.
        doing: &'static str,
        /// What it said.
        refusal: Refusal,
    },
}

impl Error {
    /// What the server said, if it is the server that said no.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Error::Refused { refusal, .. } => Some(*refusal),
            _ => None,
        }
    }
}
