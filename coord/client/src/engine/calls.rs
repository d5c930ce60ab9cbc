//! Ops that callers have submitted, in their order, and how far each has come.
//!
//! Calls are sent and answered first in, first out: a frame takes ops of as many calls as fit, and
//! the replies of a frame belong to the oldest ops that have none. So there is nothing to look up,
//! and after a break the same frames come out again.
//!
//! `BUSY` says that an op was not done: a server says so if it has too much to do, and to what a
//! connection asked for that broke before the op's turn came. Such ops leave the line, and stand
//! behind all others after a pause; the replies to the rest of their call are kept for so long. A
//! message is not asked again: those behind it would arrive first, and with several receivers some
//! have it. The caller sees `BUSY` when the server is still busy after the time that it was given.
//!
//! Invariants:
//! - K1  An op of a call that is not safe to repeat is sent again only in the frame that it was in,
//!   by the number of that: it is executed at most once.
//! - K2  A call is answered exactly once.
//! - K3  An op is asked under a new number only if the server said that it has not done it, or has
//!   forgotten it and the call is safe to repeat.
//!
//! Bounds: `Calls::has_room` says when to stop; what is beyond is one call. Constant time for
//! each op. Tests: stories in `engine/tests.rs`.

use std::collections::{BTreeMap, VecDeque};

use ringway_coord_proto::wire::{OP_HEADER_BYTES, next_reply, op, status};
use ringway_core::{Moment, Span};

use super::lane::Room;
use super::lease::Pauses;
use super::{CallId, Fault, Output};
use crate::core::Replies;
use crate::op::{Op, reply_bytes_max};
use crate::{OpError, engine::Over};

/// Bytes of ops that wait or are on their way.
pub const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Calls that wait or are on their way.
pub const QUEUE_CALLS_MAX: usize = 16 * 1024;
/// The pauses before a busy server is asked again are those of a session with such a lease.
const PAUSE_OF: Span = Span::from_s(4);

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
    busy: Option<Box<Busy>>,
}

/// What is known of a call of which only those ops are left that the server had no time for.
#[derive(Debug)]
struct Busy {
    until: Moment,
    pauses: Pauses,
    /// The replies to all of its ops, and where in them those stand that are asked for again.
    said: Vec<u8>,
    places: Vec<usize>,
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

    /// Puts the replies into their places among those of the rounds before. When to ask again what
    /// the server had no time for, unless that is nothing, or the time for it is over.
    fn put_off(&mut self, now: Moment, (within, seed): (Span, u64)) -> Option<Moment> {
        if self.forgotten || (self.busy.is_none() && !self.replies.contains(&status::BUSY)) {
            return None;
        }
        let first = || Busy {
            until: now + within,
            pauses: Pauses::new(seed ^ self.id.0, PAUSE_OF, 1),
            said: vec![status::BUSY; self.ops.len()],
            places: (0..self.ops.len()).collect(),
        };
        let mut busy = self.busy.take().unwrap_or_else(|| Box::new(first()));
        let left = busy.take_in(&self.replies, &self.ops);
        if left.is_empty() || busy.until <= now {
            self.replies = busy.said;
            return None;
        }
        let at = (now + busy.pauses.next()).min(busy.until);
        self.replies.clear();
        (self.ops, self.busy) = (left, Some(busy));
        (self.sent_ops, self.sent_bytes, self.tried_ops, self.answered_ops) = (0, 0, 0, 0);
        Some(at)
    }
}

impl Busy {
    /// Takes in the replies to the ops that stand for its places, and gives those back that are
    /// to be asked again.
    fn take_in(&mut self, mut replies: &[u8], ops: &Batch) -> Batch {
        let (mut whole, mut places, mut left) = (Vec::new(), Vec::new(), Batch::default());
        let (mut ops, mut said_to) = (ops.bytes.as_slice(), 0);
        for place in &self.places {
            whole.extend_from_slice(&self.said[said_to..*place]);
            // It was said that the server is busy, in one byte.
            said_to = place + 1;
            let (code, len) = next_op(ops).unwrap_or_default();
            let (op, behind) = ops.split_at(len);
            let before = replies;
            let reply = next_reply(&mut replies);
            let is_busy = reply.is_some_and(|reply| reply.status() == status::BUSY);
            if is_busy && !matches!(code, op::SEND | op::BROADCAST) {
                places.push(whole.len());
                left.bytes.extend_from_slice(op);
                left.count += 1;
            }
            whole.extend_from_slice(&before[..before.len() - replies.len()]);
            ops = behind;
        }
        whole.extend_from_slice(&self.said[said_to..]);
        (self.said, self.places) = (whole, places);
        left
    }
}

/// All calls that have no answer yet.
#[derive(Debug, Default)]
pub(super) struct Calls {
    queue: VecDeque<Call>,
    /// Calls at the front that are sent completely.
    sent: usize,
    bytes: usize,
    /// Calls that the server was too busy for, and when each stands in line again.
    paused: BTreeMap<(Moment, CallId), Call>,
    busy_within: Span,
    seed: u64,
}

impl Calls {
    /// Of a session that asks for so long while the server is busy.
    pub(super) fn new(busy_within: Span, seed: u64) -> Calls {
        Calls { busy_within, seed, ..Calls::default() }
    }

    /// Whether another call may be put in.
    pub(super) fn has_room(&self) -> bool {
        let calls = self.queue.len() + self.paused.len();
        self.bytes < QUEUE_BYTES_MAX && calls < QUEUE_CALLS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.paused.is_empty()
    }

    /// When a pause is over.
    pub(super) fn wake_at(&self) -> Option<Moment> {
        self.paused.first_key_value().map(|((at, _), _)| *at)
    }

    /// Whoever has paused long enough stands in line again.
    pub(super) fn pass_time(&mut self, now: Moment) {
        while self.wake_at().is_some_and(|at| at <= now) {
            self.queue.extend(self.paused.pop_first().map(|(_, call)| call));
        }
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
            busy: None,
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
        now: Moment,
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
            if let Some(at) = call.put_off(now, (self.busy_within, self.seed)) {
                self.bytes += call.ops.bytes();
                self.paused.insert((at, call.id), call);
                continue;
            }
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
        for call in self.queue.drain(..).chain(std::mem::take(&mut self.paused).into_values()) {
            let open = call.repeat == Repeat::Never && (call.is_open() || call.forgotten);
            let fault = if open { Fault::Unknown } else { Fault::Over(over) };
            out.push(Output::Answer { id: call.id, result: Err(fault) });
        }
        *self = Calls::new(self.busy_within, self.seed);
    }
}

fn next_op(ops: &[u8]) -> Option<(u8, usize)> {
    let [code, _, low, high, ..] = ops else { return None };
    Some((*code, OP_HEADER_BYTES + usize::from(u16::from_le_bytes([*low, *high]))))
}
