//! Ops that callers have submitted, in their order, and how far each has come.
//!
//! Calls are sent and answered first in, first out: a frame takes ops of as many calls as fit, and
//! the replies of a frame belong to the oldest ops that have none. So there is nothing to look up.
//!
//! Invariants:
//! - K1  An op of a call that is not safe to repeat is sent at most once.
//! - K2  A call is answered exactly once.
//!
//! Bounds: `Calls::has_room` says when to stop; what is beyond is one call. Constant time for
//! each op. Tests: stories in `engine/tests.rs`.

use std::collections::VecDeque;

use ringway_coord_proto::wire::OP_HEADER_BYTES;

use super::{CallId, Fault, Output};
use crate::core::Replies;
use crate::op::Op;
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

/// Whether ops may be sent a second time when the first answer was lost.
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
    /// Some op was sent twice, so an answer may be to the second time.
    pub repeated: bool,
}

#[derive(Debug)]
struct Call {
    id: CallId,
    ops: Batch,
    repeat: Repeat,
    sent_ops: u32,
    sent_bytes: usize,
    answered_ops: u32,
    repeated: bool,
    replies: Vec<u8>,
}

impl Call {
    fn is_sent(&self) -> bool {
        self.sent_ops == self.ops.count
    }

    /// The length of the next op that is not sent.
    fn next_len(&self) -> Option<usize> {
        op_len(&self.ops.bytes[self.sent_bytes..])
    }

    /// Everything behind the last answer has to be sent again.
    fn rewind(&mut self) {
        self.repeated = true;
        self.sent_ops = self.answered_ops;
        self.sent_bytes = 0;
        for _ in 0..self.answered_ops {
            self.sent_bytes += self.next_len().unwrap_or(0);
        }
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
            answered_ops: 0,
            repeated: false,
            replies: Vec::new(),
        });
    }

    /// Appends the next ops to `body`, as many as fit; how many that are.
    pub(super) fn fill(&mut self, body: &mut Vec<u8>, most_bytes: usize, most_ops: usize) -> u16 {
        let mut count = 0;
        while let Some(call) = self.queue.get_mut(self.sent) {
            let from = call.sent_bytes;
            while let Some(len) = call.next_len() {
                let bytes = body.len() + call.sent_bytes - from + len;
                if count == most_ops || bytes > most_bytes {
                    break;
                }
                call.sent_bytes += len;
                call.sent_ops += 1;
                count += 1;
            }
            body.extend_from_slice(&call.ops.bytes[from..call.sent_bytes]);
            if !call.is_sent() {
                break;
            }
            self.sent += 1;
        }
        count as u16
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
            call.replies.extend_from_slice(replies.take_raw(taken as usize));
            call.answered_ops += taken;
            count -= taken;
            if call.answered_ops < call.ops.count {
                assert!(count == 0, "replies without ops, which the core excludes (C1)");
                return;
            }
            self.sent -= 1;
            if let Some(call) = self.queue.pop_front() {
                self.bytes -= call.ops.bytes();
                let answer = Answer { replies: call.replies, repeated: call.repeated };
                out.push(Output::Answer { id: call.id, result: Ok(answer) });
            }
        }
    }

    /// The connection is gone: what had no answer is sent again or given up (K1).
    pub(super) fn interrupted(&mut self, out: &mut Vec<Output>) {
        self.queue.retain_mut(|call| {
            if call.sent_ops == call.answered_ops {
                return true;
            }
            if call.repeat == Repeat::Safe {
                call.rewind();
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
            let sent = call.repeat == Repeat::Never && call.sent_ops > call.answered_ops;
            let fault = if sent { Fault::Unknown } else { Fault::Over(over) };
            out.push(Output::Answer { id: call.id, result: Err(fault) });
        }
        *self = Calls::default();
    }
}

fn op_len(ops: &[u8]) -> Option<usize> {
    let [_, _, low, high, ..] = ops else { return None };
    Some(OP_HEADER_BYTES + usize::from(u16::from_le_bytes([*low, *high])))
}
