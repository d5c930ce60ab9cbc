//! Ops that callers have submitted, in their order, and how far each has come.
//!
//! Calls are sent and answered first in, first out: a frame takes ops of as many calls as fit, and
//! the replies of a frame belong to the oldest ops that have none. So there is nothing to look up,
//! and after a break the same frames come out again.
//!
//! Invariants:
//! - K1  An op of a call that is not safe to repeat is sent again only in the frame that it was in,
//!   by the number of that: it is executed at most once.
//! - K2  A call is answered exactly once.
//!
//! Bounds: `Calls::has_room` says when to stop; what is beyond is one call. Constant time for
//! each op. Tests: stories in `engine/tests.rs`.

use std::collections::VecDeque;

use ringway_coord_proto::wire::{OP_HEADER_BYTES, status};

use super::lane::Room;
use super::{CallId, Fault, Output};
use crate::core::Replies;
use crate::op::{Op, reply_bytes_max};
use crate::{OpError, engine::Over};

/// Bytes of ops that wait or are on their way.
pub const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Calls that wait or are on their way.
pub const QUEUE_CALLS_MAX: usize = 16 * 1024;

/// Ops of one caller, encoded where they were made.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    count: u32,
}

impl Batch {
    /// Adds an op.
    pub fn push(&mut self, op: &Op<'_>) -> Result<(), OpError> {
        op.put(&mut self.bytes)?;
        self.count += 1;
        Ok(())
    }

    /// How many ops there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes on the wire.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// Whether ops may be executed a second time when the first answer was lost, and is remembered by
/// nobody. Calls that wait for their answers at the same time have no order among each other then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Doing it twice is doing it once.
    Safe,
    /// The caller is told that nobody knows, and decides.
    Never,
}

/// What the server said to the ops of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// One reply an op, in their order, as they came; [`ringway_coord_proto::wire::next_reply`]
    /// takes them apart.
    pub replies: Vec<u8>,
    /// Some op may have been executed twice, so an answer may be to the second time.
    pub repeated: bool,
}

#[derive(Debug)]
struct Call {
    id: CallId,
    ops: Batch,
    repeat: Repeat,
    sent_ops: u32,
    sent_bytes: usize,
    /// Ops that were sent over this connection or one before.
    tried_ops: u32,
    answered_ops: u32,
    repeated: bool,
    /// The server does not remember what it said to some op.
    forgotten: bool,
    replies: Vec<u8>,
}

impl Call {
    fn is_sent(&self) -> bool {
        self.sent_ops == self.ops.count
    }

    /// Whether some op may have been executed, and nobody has heard so.
    fn is_open(&self) -> bool {
        self.tried_ops > self.answered_ops
    }

    /// The code and the length of the next op that is not sent.
    fn next_op(&self) -> Option<(u8, usize)> {
        next_op(&self.ops.bytes[self.sent_bytes..])
    }

    /// Everything behind the last answer has to be sent again.
    fn rewind(&mut self) {
        self.sent_ops = self.answered_ops;
        self.sent_bytes = 0;
        for _ in 0..self.answered_ops {
            self.sent_bytes += self.next_op().map_or(0, |(_, len)| len);
        }
    }

    /// All of it has to be asked anew.
    fn begin_again(&mut self) {
        self.replies.clear();
        self.answered_ops = 0;
        (self.repeated, self.forgotten) = (true, false);
        self.rewind();
    }
}

/// All calls that have no answer yet.
#[derive(Debug, Default)]
pub(super) struct Calls {
    queue: VecDeque<Call>,
    /// Calls at the front that are sent completely.
    sent: usize,
    bytes: usize,
}

impl Calls {
    /// Whether another call may be put in.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < QUEUE_BYTES_MAX && self.queue.len() < QUEUE_CALLS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.queue.len()
    }

    pub(super) fn push(&mut self, id: CallId, ops: Batch, repeat: Repeat, out: &mut Vec<Output>) {
        if ops.is_empty() {
            let answer = Answer { replies: Vec::new(), repeated: false };
            return out.push(Output::Answer { id, result: Ok(answer) });
        }
        self.bytes += ops.bytes();
        self.queue.push_back(Call {
            id,
            ops,
            repeat,
            sent_ops: 0,
            sent_bytes: 0,
            tried_ops: 0,
            answered_ops: 0,
            repeated: false,
            forgotten: false,
            replies: Vec::new(),
        });
    }

    /// Appends the next ops to `body`, as many as fit; how many that are.
    pub(super) fn fill(&mut self, body: &mut Vec<u8>, room: &mut Room) -> u16 {
        let mut count = 0;
        while let Some(call) = self.queue.get_mut(self.sent) {
            let from = call.sent_bytes;
            let once = call.repeat == Repeat::Never;
            while call.sent_ops < call.ops.count
                && let Some((code, len)) = call.next_op()
            {
                if !room.take(len, reply_bytes_max(code), once) {
                    break;
                }
                call.sent_bytes += len;
                call.sent_ops += 1;
                count += 1;
            }
            body.extend_from_slice(&call.ops.bytes[from..call.sent_bytes]);
            call.tried_ops = call.tried_ops.max(call.sent_ops);
            if !call.is_sent() {
                break;
            }
            self.sent += 1;
        }
        count
    }

    /// Hands `count` replies to the oldest ops that have none.
    pub(super) fn answer(
        &mut self,
        mut count: u32,
        replies: &mut Replies<'_>,
        out: &mut Vec<Output>,
    ) {
        while count > 0 {
            let Some(call) = self.queue.front_mut() else { return };
            let taken = count.min(call.sent_ops - call.answered_ops);
            let said = replies.take_raw(taken as usize);
            call.answered_ops += taken;
            count -= taken;
            if said.first() == Some(&status::FORGOTTEN) {
                call.forgotten = true;
            }
            if call.forgotten && call.repeat == Repeat::Never && call.ops.count > call.tried_ops {
                // Nobody knows how it began: it does not go on.
                call.ops.count = call.tried_ops;
                self.sent += usize::from(call.is_sent());
            }
            call.replies.extend_from_slice(said);
            if call.answered_ops < call.ops.count {
                assert!(count == 0, "replies without ops, which the core excludes (C1)");
                return;
            }
            self.sent -= 1;
            let Some(mut call) = self.queue.pop_front() else { return };
            if call.forgotten && call.repeat == Repeat::Safe {
                call.begin_again();
                self.queue.push_back(call);
                continue;
            }
            self.bytes -= call.ops.bytes();
            let answer = Answer { replies: call.replies, repeated: call.repeated };
            let result = if call.forgotten { Err(Fault::Unknown) } else { Ok(answer) };
            out.push(Output::Answer { id: call.id, result });
        }
    }

    /// There is a new connection, which has sent nothing yet.
    pub(super) fn rewind(&mut self) {
        // Calls that have not begun stand behind those that have.
        self.queue.iter_mut().take_while(|call| call.sent_ops > 0).for_each(Call::rewind);
        self.sent = 0;
    }

    /// What had no answer is sent to one who does not know it: again, or not at all (K1).
    pub(super) fn interrupted(&mut self, out: &mut Vec<Output>) {
        self.queue.retain_mut(|call| {
            let is_open = call.is_open();
            call.rewind();
            if !is_open || call.repeat == Repeat::Safe {
                call.repeated |= is_open;
                return true;
            }
            self.bytes -= call.ops.bytes();
            out.push(Output::Answer { id: call.id, result: Err(Fault::Unknown) });
            false
        });
        self.sent = 0;
    }

    /// The session is over: everybody is told.
    pub(super) fn end(&mut self, over: Over, out: &mut Vec<Output>) {
        for call in self.queue.drain(..) {
            let open = call.repeat == Repeat::Never && (call.is_open() || call.forgotten);
            let fault = if open { Fault::Unknown } else { Fault::Over(over) };
            out.push(Output::Answer { id: call.id, result: Err(fault) });
        }
        *self = Calls::default();
    }
}

fn next_op(ops: &[u8]) -> Option<(u8, usize)> {
    let [code, _, low, high, ..] = ops else { return None };
    Some((*code, OP_HEADER_BYTES + usize::from(u16::from_le_bytes([*low, *high]))))
}
