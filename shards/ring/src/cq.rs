//! Completions: what the kernel answered, in words.
//!
//! The kernel reports failures as negative error numbers; they are negated here and nowhere else.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use crate::bufring::Filled;
use crate::letters::SentTrain;
use crate::sq::Tag;

/// An error number of the kernel, positive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// No provided buffer was free: the multishot receive ended and must be armed again.
    pub const NO_BUFFERS: Errno = Errno(libc::ENOBUFS);
    /// The request was cancelled.
    pub const CANCELLED: Errno = Errno(libc::ECANCELED);
    /// It would have had to wait.
    pub const WOULD_WAIT: Errno = Errno(libc::EAGAIN);
    /// A signal came first.
    pub const INTERRUPTED: Errno = Errno(libc::EINTR);
    /// Nobody listens there.
    pub const REFUSED: Errno = Errno(libc::ECONNREFUSED);
    /// Nobody answered in time.
    pub const TIMED_OUT: Errno = Errno(libc::ETIMEDOUT);
    /// The peer, or something between, tore the connection down.
    pub const RESET: Errno = Errno(libc::ECONNRESET);
    /// There is no way to that network.
    pub const NETWORK_UNREACHABLE: Errno = Errno(libc::ENETUNREACH);
    /// The datagram does not fit through the way that it would have to go.
    pub const TOO_LONG: Errno = Errno(libc::EMSGSIZE);
    /// The kernel cannot do this for the way that the datagrams would take.
    pub const NO_OFFLOAD: Errno = Errno(libc::EIO);
    /// The kernel does not do what it was asked for.
    pub const INVALID: Errno = Errno(libc::EINVAL);
    /// There is no way to that host.
    pub const HOST_UNREACHABLE: Errno = Errno(libc::EHOSTUNREACH);

    /// Whether the process or the machine has no more file descriptors (or memory) for sockets.
    pub fn is_shortage(self) -> bool {
        matches!(self.0, libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    }

    /// What a system call said by way of `std`.
    pub fn of(error: &io::Error) -> Errno {
        Errno(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}, {self})", self.0)
    }
}

/// The result field of a completion.
#[inline]
pub(crate) fn result_of(raw: i32) -> Result<u32, Errno> {
    if raw < 0 { Err(Errno(-raw)) } else { Ok(raw as u32) }
}

/// What a receive brought.
#[derive(Debug)]
pub enum Received {
    /// Bytes, in a buffer that is to be given back.
    Bytes(Filled),
    /// The peer will send nothing more.
    End,
}

/// One answer of the kernel. `more` says whether the request stays armed.
#[derive(Debug)]
pub enum Completion {
    /// Of [`crate::Ring::accept`].
    Accepted {
        /// The listening socket's tag.
        tag: Tag,
        /// The new connection.
        result: Result<OwnedFd, Errno>,
        /// False: arm it again.
        more: bool,
    },
    /// Of [`crate::Ring::receive`].
    Received {
        /// The socket's tag.
        tag: Tag,
        /// What arrived.
        result: Result<Received, Errno>,
        /// False: arm it again.
        more: bool,
    },
    /// Of [`crate::Ring::send`]; its last and only one.
    Sent {
        /// The socket's tag.
        tag: Tag,
        /// The bytes, back with their owner.
        buffer: Vec<u8>,
        /// How many bytes the kernel took of what was to be sent: possibly fewer.
        result: Result<u32, Errno>,
    },
    /// Of [`crate::Ring::connect`]; its last and only one.
    Connected {
        /// The socket's tag.
        tag: Tag,
        /// Whether it is connected.
        result: Result<(), Errno>,
    },
    /// Of [`crate::Ring::receive_trains`].
    TrainReceived {
        /// The socket's tag.
        tag: Tag,
        /// A train, in a buffer that [`crate::Ring::arrival`] reads and that is to be given back;
        /// or an empty datagram.
        result: Result<Option<Filled>, Errno>,
        /// False: arm it again.
        more: bool,
    },
    /// Of [`crate::Ring::send_train`]; its last and only one.
    TrainSent {
        /// The socket's tag.
        tag: Tag,
        /// For [`crate::Ring::take_train`].
        train: SentTrain,
    },
    /// Of [`crate::Ring::await_room`]; its last and only one. It may have been cancelled.
    HasRoom {
        /// The socket's tag.
        tag: Tag,
    },
    /// Of [`crate::Ring::watch`].
    Watched {
        /// The bell's tag.
        tag: Tag,
        /// False: watch it again.
        more: bool,
    },
    /// Another ring woke this one.
    Rung {
        /// What the other ring said.
        tag: Tag,
    },
    /// Waking another ring failed; the caller has to reach it in another way.
    RingFailed {
        /// What was given to [`crate::Ring::ring_peer`].
        tag: Tag,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Constants written out: the kernel's -104 is a reset, and zero is a success.
    #[test]
    fn errno_is_negated_once() {
        assert_eq!(result_of(-104), Err(Errno(104)));
        assert_eq!(Errno(104).0, libc::ECONNRESET);
        assert_eq!(result_of(0), Ok(0));
        assert_eq!(result_of(4096), Ok(4096));
        assert!(Errno(24).is_shortage() && Errno(23).is_shortage() && !Errno(104).is_shortage());
    }
}
