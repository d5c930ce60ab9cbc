//! Requests: what a submission entry says, and whose answer it will be.
//!
//! Every request carries 64 bits that come back with its completion: its kind in the top byte,
//! a number in the low half (a tag of the caller's, or a slot of `ops.rs` or `letters.rs`), and
//! above that which of a train's requests it is.

use std::os::fd::RawFd;

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};

/// A number of the caller's that comes back with each completion of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub u32);

/// What a completion is about. The discriminant travels through the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A listening socket accepted somebody.
    Accept = 1,
    /// Bytes arrived, or the end of them.
    Receive = 2,
    /// A send that reports every end.
    Send = 3,
    /// A send that reports only when it could not send everything at once.
    Quiet = 4,
    /// A bell was rung.
    Watch = 5,
    /// Another ring rang ours.
    Rung = 6,
    /// Ringing another ring failed (success is silent).
    RingFailed = 7,
    /// Nobody waits for the outcome: a cancel, a close.
    Ignored = 8,
    /// A connect.
    Connect = 9,
    /// As [`Kind::Receive`], into buffers of the second group.
    ReceiveSecond = 10,
    /// A train, or one of its datagrams, that reports every end.
    Train = 11,
    /// As [`Kind::Quiet`], of a train.
    QuietTrain = 12,
    /// Trains arrived.
    ReceiveTrain = 13,
    /// A socket has room for what is to be sent.
    Room = 14,
}

impl Kind {
    /// The 64 bits that travel with a request.
    #[inline]
    pub(crate) const fn with(self, number: u32) -> u64 {
        (self as u64) << 56 | number as u64
    }

    /// What came back. `None` for bits that no request of ours carries.
    #[inline]
    pub(crate) const fn of(user_data: u64) -> Option<(Kind, u32)> {
        let kind = match (user_data >> 56) as u8 {
            1 => Kind::Accept,
            2 => Kind::Receive,
            3 => Kind::Send,
            4 => Kind::Quiet,
            5 => Kind::Watch,
            6 => Kind::Rung,
            7 => Kind::RingFailed,
            8 => Kind::Ignored,
            9 => Kind::Connect,
            10 => Kind::ReceiveSecond,
            11 => Kind::Train,
            12 => Kind::QuietTrain,
            13 => Kind::ReceiveTrain,
            14 => Kind::Room,
            _ => return None,
        };
        Some((kind, user_data as u32))
    }

    /// Whether its requests count as in flight until their last completion. Quiet ones do, too,
    /// and are counted where their silence is understood.
    #[inline]
    pub(crate) const fn is_counted(self) -> bool {
        !matches!(
            self,
            Kind::Quiet | Kind::QuietTrain | Kind::Ignored | Kind::Rung | Kind::RingFailed
        )
    }
}

/// Which of a train's requests a completion is about.
#[inline]
pub(crate) const fn request_of(user_data: u64) -> u32 {
    (user_data >> 32) as u32 & 0xFF
}

/// Which of a ring's buffers a receive fills. The number is the kernel's name for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Group {
    /// Those that every ring has.
    First = 0,
    /// Those of [`crate::RingConfig::second`].
    Second = 1,
    /// Those of [`crate::RingConfig::datagrams`].
    Datagrams = 2,
    /// Those of them that go with the second group.
    SecondDatagrams = 3,
}

impl Group {
    /// How many there may be.
    pub(crate) const COUNT: usize = 4;
    /// All that there may be.
    pub(crate) const ALL: [Group; Group::COUNT] =
        [Group::First, Group::Second, Group::Datagrams, Group::SecondDatagrams];

    /// What a receive of a stream into these buffers is about.
    ///
    /// # Panics
    /// If they are for trains.
    #[inline]
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Group::First => Kind::Receive,
            Group::Second => Kind::ReceiveSecond,
            Group::Datagrams | Group::SecondDatagrams => {
                panic!("these buffers are for trains of datagrams")
            }
        }
    }
}

pub(crate) fn accept(fd: RawFd, multishot: bool, tag: Tag) -> Entry {
    let entry = if multishot {
        opcode::AcceptMulti::new(types::Fd(fd)).flags(libc::SOCK_CLOEXEC).build()
    } else {
        let (address, len) = (std::ptr::null_mut(), std::ptr::null_mut());
        opcode::Accept::new(types::Fd(fd), address, len).flags(libc::SOCK_CLOEXEC).build()
    };
    entry.user_data(Kind::Accept.with(tag.0))
}

/// Receives into provided buffers. A length of zero means: as much as the buffer holds.
pub(crate) fn receive(fd: RawFd, multishot: bool, group: Group, tag: Tag) -> Entry {
    let entry = if multishot {
        opcode::RecvMulti::new(types::Fd(fd), group as u16).build()
    } else {
        opcode::Recv::new(types::Fd(fd), std::ptr::null_mut(), 0)
            .buf_group(group as u16)
            .build()
            .flags(Flags::BUFFER_SELECT)
    };
    entry.user_data(group.kind().with(tag.0))
}

/// Sends all of `bytes` however long it takes. The caller keeps the bytes until the completion.
pub(crate) fn send(fd: RawFd, bytes: &[u8], slot: u32) -> Entry {
    opcode::Send::new(types::Fd(fd), bytes.as_ptr(), len_of(bytes))
        .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
        .build()
        .user_data(Kind::Send.with(slot))
}

/// Sends what the socket takes at once. MSG_WAITALL makes a short send a failure, MSG_DONTWAIT
/// forbids to wait: so silence after the submission means that everything was taken.
pub(crate) fn send_quietly(fd: RawFd, bytes: &[u8], slot: u32) -> Entry {
    opcode::Send::new(types::Fd(fd), bytes.as_ptr(), len_of(bytes))
        .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL | libc::MSG_DONTWAIT)
        .build()
        .flags(Flags::SKIP_SUCCESS)
        .user_data(Kind::Quiet.with(slot))
}

/// Receives trains. The message and all it names stay where they are until the last completion.
pub(crate) fn receive_train(
    fd: RawFd,
    message: *mut libc::msghdr,
    multishot: bool,
    group: Group,
    slot: u32,
) -> Entry {
    let entry = if multishot {
        opcode::RecvMsgMulti::new(types::Fd(fd), message, group as u16).build()
    } else {
        opcode::RecvMsg::new(types::Fd(fd), message)
            .buf_group(group as u16)
            .build()
            .flags(Flags::BUFFER_SELECT)
    };
    entry.user_data(Kind::ReceiveTrain.with(slot))
}

/// Sends a message, if the socket takes it at once. The message and all it names stay where they
/// are until the completion, or, sent quietly, as with [`send_quietly`].
pub(crate) fn send_train(
    fd: RawFd,
    message: *const libc::msghdr,
    quietly: bool,
    slot: u32,
    request: u8,
) -> Entry {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL | libc::MSG_DONTWAIT;
    let entry = opcode::SendMsg::new(types::Fd(fd), message).flags(flags as u32).build();
    let (entry, kind) = if quietly {
        (entry.flags(Flags::SKIP_SUCCESS), Kind::QuietTrain)
    } else {
        (entry, Kind::Train)
    };
    entry.user_data(kind.with(slot) | u64::from(request) << 32)
}

/// Tells once that a socket has room.
pub(crate) fn await_room(fd: RawFd, tag: Tag) -> Entry {
    opcode::PollAdd::new(types::Fd(fd), libc::POLLOUT as u32)
        .build()
        .user_data(Kind::Room.with(tag.0))
}

/// Connects to the address whose bytes these are. The caller keeps them until the completion.
pub(crate) fn connect(fd: RawFd, address: &[u8], slot: u32) -> Entry {
    opcode::Connect::new(types::Fd(fd), address.as_ptr().cast(), len_of(address))
        .build()
        .user_data(Kind::Connect.with(slot))
}

/// Tells whenever the descriptor has become readable.
pub(crate) fn watch(fd: RawFd, tag: Tag) -> Entry {
    opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32)
        .multi(true)
        .build()
        .user_data(Kind::Watch.with(tag.0))
}

/// Posts a completion with the tag `heard_as` in another ring; silent here unless it fails.
pub(crate) fn ring_peer(peer: RawFd, heard_as: Tag, failed_as: Tag) -> Entry {
    opcode::MsgRingData::new(types::Fd(peer), 0, Kind::Rung.with(heard_as.0), None)
        .build()
        .flags(Flags::SKIP_SUCCESS)
        .user_data(Kind::RingFailed.with(failed_as.0))
}

/// Cancels the one request that carries `user_data`.
pub(crate) fn cancel(user_data: u64) -> Entry {
    opcode::AsyncCancel::new(user_data)
        .build()
        .flags(Flags::SKIP_SUCCESS)
        .user_data(Kind::Ignored.with(0))
}

/// Cancels everything in flight.
pub(crate) fn cancel_all() -> Entry {
    opcode::AsyncCancel2::new(types::CancelBuilder::any()).build().user_data(Kind::Ignored.with(0))
}

/// Closes a descriptor that the caller gave up.
pub(crate) fn close(fd: RawFd) -> Entry {
    opcode::Close::new(types::Fd(fd))
        .build()
        .flags(Flags::SKIP_SUCCESS)
        .user_data(Kind::Ignored.with(0))
}

fn len_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("what is lent is bounded far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kinds and numbers survive the way through the kernel; foreign bits are recognised.
    #[test]
    fn kinds_come_back() {
        assert_eq!(Kind::of(Kind::Quiet.with(u32::MAX)), Some((Kind::Quiet, u32::MAX)));
        assert_eq!(Kind::of(Kind::Accept.with(0)), Some((Kind::Accept, 0)));
        assert_eq!(Kind::of(0), None);
        assert_eq!(Kind::of(u64::MAX), None);
        let train = Kind::Train.with(7) | 63 << 32;
        assert_eq!((Kind::of(train), request_of(train)), (Some((Kind::Train, 7)), 63));
    }
}
