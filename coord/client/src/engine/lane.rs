//! The session's lane: frames that are numbered for as long as the session lives, so that one
//! whose reply was lost can be sent again, and the server says what it said the first time.
//!
//! What is kept of a frame is its number and how many ops it had: the ops themselves are kept by
//! `calls` until they are answered, in the same order, so the same bytes come out again.
//!
//! The hard case is a server that remembers less than is on its way. It keeps the youngest
//! [`FRAMES_REMEMBERED`] replies and [`BYTES_REMEMBERED`] bytes of a lane. So no frame is sent
//! whose reply could push out that of a frame in front of it which must not be done twice.
//!
//! A reply frame has an end, too: what may be as long as that is asked for in a frame of its own.
//!
//! Invariants:
//! - N1  Numbers grow, from connection to connection, too; one is used again for the same ops only.
//! - N2  What is sent again goes first, in order, before anything that has a new number.
//! - N3  From the oldest frame without a reply that must not be done twice there are never more
//!   replies and bytes due than a server remembers. Those that were lost with a connection count.
//!
//! Not here: what is done about `FORGOTTEN` (`calls`). Tests: stories in `engine/tests.rs`.

use std::collections::VecDeque;

use ringway_coord_proto::wire::FRAME_HEADER_BYTES;

use super::Flight;
use crate::op::REPLIES_BYTES_MAX;

/// The number of the engine's lane; its session's others are for other senders.
pub(super) const NUMBER: u32 = 0;
/// Replies of a lane that a server remembers.
pub const FRAMES_REMEMBERED: usize = 64;
/// Bytes of those.
pub const BYTES_REMEMBERED: usize = 64 * 1024;
/// What the reply of one such frame may have: a part, so that several are on their way at once.
const REPLY_BYTES_MAX: usize = BYTES_REMEMBERED / 4;
/// The first number; those below are for what a connection says before it has the lane.
const FIRST: u64 = 16;
/// Numbers from here on are no server's: nobody counts so far.
const BEYOND: u64 = 1 << 62;

/// A frame of ops of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) sequence: u64,
    pub(super) count: u16,
    /// It must not be done twice.
    pub(super) once: bool,
    pub(super) cost: Cost,
}

/// What replies take of a server's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) frames: usize,
    pub(super) bytes: usize,
}

impl Cost {
    /// A frame whose replies are of so many bytes at most.
    pub(super) const fn frame(replies: usize) -> Cost {
        Cost { frames: 1, bytes: FRAME_HEADER_BYTES + replies }
    }

    fn add(&mut self, other: Cost) {
        self.frames += other.frames;
        self.bytes += other.bytes;
    }
}

/// How the present connection stands to the lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has not been answered yet; nothing of callers was sent.
    #[default]
    Asked,
    /// It has the lane.
    Open,
    /// The server does not know lanes.
    Without,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) standing: Standing,
    /// The next new number.
    pub(super) next: u64,
    /// Frames to be sent again.
    pub(super) again: VecDeque<Frame>,
}

impl Default for Lane {
    fn default() -> Lane {
        Lane { standing: Standing::Asked, next: FIRST, again: VecDeque::new() }
    }
}

impl Lane {
    /// The server has given the lane, by which `last` was taken up last; whether that can be.
    pub(super) fn open(&mut self, last: u64) -> bool {
        if last >= BEYOND {
            return false;
        }
        self.standing = Standing::Open;
        self.next = self.next.max(last + 1);
        true
    }

    /// The connection is gone: what it had not answered is sent again by the next one (N2).
    pub(super) fn keep(&mut self, flights: &mut VecDeque<Flight>) {
        let unsent = std::mem::take(&mut self.again);
        for flight in flights.drain(..) {
            match (flight, self.again.back_mut()) {
                (Flight::Calls { frame, .. }, _) => self.again.push_back(frame),
                // It may be remembered, although nobody asks for it any more (N3).
                (Flight::Orders { cost, .. }, Some(before)) => before.cost.add(cost),
                (Flight::Orders { .. }, None) => {}
            }
        }
        self.again.extend(unsent);
    }
}

/// What may go into the next frame.
#[derive(Debug)]
pub(super) struct Room {
    /// Bytes and ops of the frame that are left.
    bytes: usize,
    ops: u16,
    /// Bytes of its replies so far, and how many there may be if it must not be done twice or
    /// stands behind such a one.
    replies: usize,
    replies_max: usize,
    once: bool,
    behind: bool,
    again: bool,
}

impl Room {
    /// Room behind the frames that have no reply yet; `None`: they have to be answered first.
    pub(super) fn behind(
        flights: &VecDeque<Flight>,
        most_bytes: usize,
        most_ops: u16,
    ) -> Option<Room> {
        let mut due = Cost::default();
        let mut behind = false;
        for flight in flights {
            let (cost, once) = match flight {
                Flight::Calls { frame, .. } => (frame.cost, frame.once),
                Flight::Orders { cost, .. } => (*cost, false),
            };
            behind |= once;
            if behind {
                due.add(cost);
            }
        }
        due.add(Cost::frame(0));
        let left = BYTES_REMEMBERED.checked_sub(due.bytes)?;
        let room = Room {
            bytes: most_bytes,
            ops: most_ops,
            replies: 0,
            replies_max: left.min(REPLY_BYTES_MAX),
            once: false,
            behind,
            again: false,
        };
        (due.frames <= FRAMES_REMEMBERED).then_some(room)
    }

    /// Room for so many ops, whatever they are: they were in one frame before.
    pub(super) fn again(count: u16) -> Room {
        Room {
            bytes: usize::MAX,
            ops: count,
            replies: 0,
            replies_max: 0,
            once: false,
            behind: false,
            again: true,
        }
    }

    /// Takes an op in, of so many bytes on the wire and in its reply, if there is room for it.
    pub(super) fn take(&mut self, bytes: usize, reply: usize, once: bool) -> bool {
        let once = self.once || once;
        let due = once || self.behind;
        let most = if due { self.replies_max } else { REPLIES_BYTES_MAX };
        let fits = self.replies + reply <= most;
        // A reply too large to be remembered at all: it goes alone, when nothing else is due.
        let alone = self.replies == 0 && !self.behind;
        if self.ops == 0 || self.bytes < bytes || !(fits || alone || self.again) {
            return false;
        }
        self.ops -= 1;
        self.bytes -= bytes;
        self.replies += reply;
        self.once = once;
        true
    }

    /// What the frame is that was filled.
    pub(super) fn frame(&self, sequence: u64, count: u16) -> Frame {
        Frame { sequence, count, once: self.once, cost: self.cost() }
    }

    pub(super) fn cost(&self) -> Cost {
        Cost::frame(self.replies)
    }
}
