//! What is asked and how the answer is read, once for both faces: a [`Pending`] is waited for by a
//! thread, or awaited by a task.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ringway_coord_proto::wire::{Reply, next_reply};

use super::held::Held;
use super::hub::{Command, Part, Teller, whole};
use super::queue::{Queue, Taken};
use super::request::{self, REPLY, REQUEST};
use super::{Handle, SessionError, until};
use crate::engine::{
    Answer, Batch, Fault, Over, Repeat, WaitFault, WaitId, WaitRequest, WatcherId,
};
use crate::error::Refusal;
use crate::notice::Message;
use crate::op::{Letter, Mode, Op, Target};
use crate::owners::Known;
use crate::reply::{Delivery, Holder, Owner, plain_result, send_result};

/// Bytes of one call to the engine; a larger batch of a caller is several.
pub const CALL_BYTES_MAX: usize = 256 * 1024;

/// One result an op.
pub(crate) type Each<T> = Vec<Result<T, Refusal>>;

type Finish<T> = Box<dyn FnOnce(Vec<Answer>) -> Result<T, SessionError> + Send>;

/// A question to the server that is on its way.
#[must_use = "nothing is asked before it is waited for"]
pub(crate) struct Pending<T> {
    handle: Arc<Handle>,
    doing: &'static str,
    commands: VecDeque<Command>,
    /// The command that is being put in, by a task.
    next: Option<Command>,
    answers: Arc<Queue<Part>>,
    parts: Vec<Option<Answer>>,
    missing: usize,
    finish: Option<Finish<T>>,
}

impl<T> Pending<T> {
    fn over(&self) -> SessionError {
        let over = self.handle.over().unwrap_or(Over::Closed);
        SessionError::Fault { doing: self.doing, fault: Fault::Over(over) }
    }

    fn take(&mut self, part: usize, result: Result<Answer, Fault>) -> Result<(), SessionError> {
        let doing = self.doing;
        self.parts[part] = Some(result.map_err(|fault| SessionError::Fault { doing, fault })?);
        self.missing -= 1;
        Ok(())
    }

    fn finish(&mut self) -> Result<T, SessionError> {
        let answers = std::mem::take(&mut self.parts).into_iter().flatten().collect();
        let finish = self.finish.take().expect("a question is answered once");
        finish(answers)
    }

    /// Blocks the thread until the answer is there.
    pub(crate) fn wait(mut self) -> Result<T, SessionError> {
        while let Some(command) = self.commands.pop_front() {
            self.handle.shared.commands.push(command).map_err(|_| self.over())?;
        }
        while self.missing > 0 {
            match self.answers.pop(None) {
                Taken::Item((part, result)) => self.take(part, result)?,
                Taken::TimeOver | Taken::Closed => return Err(self.over()),
            }
        }
        self.finish()
    }
}

impl<T> Unpin for Pending<T> {}

impl<T> Future for Pending<T> {
    type Output = Result<T, SessionError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            if this.next.is_none() {
                this.next = this.commands.pop_front();
            }
            if this.next.is_none() {
                break;
            }
            if ready!(this.handle.shared.commands.poll_push(&mut this.next, cx)).is_err() {
                return Poll::Ready(Err(this.over()));
            }
        }
        while this.missing > 0 {
            match ready!(this.answers.poll_pop(cx)) {
                Some((part, result)) => this.take(part, result)?,
                None => return Poll::Ready(Err(this.over())),
            }
        }
        Poll::Ready(this.finish())
    }
}

/// Asks the server: ops of any number, in calls of a bounded size.
pub(crate) fn ask<'a, T>(
    handle: &Arc<Handle>,
    doing: &'static str,
    repeat: Repeat,
    ops: impl Iterator<Item = Op<'a>>,
    finish: Finish<T>,
) -> Result<Pending<T>, SessionError> {
    let mut batches = vec![Batch::default()];
    for op in ops {
        if batches.last().is_none_or(|batch| batch.bytes() + op.encoded_len() > CALL_BYTES_MAX) {
            batches.push(Batch::default());
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(&op).map_err(|error| SessionError::op(doing, error))?;
        }
    }
    let parts = batches.len();
    let answers = Arc::new(Queue::new(parts));
    let teller = Arc::new(Teller(Arc::clone(&answers)));
    let commands = batches
        .into_iter()
        .enumerate()
        .map(|(part, ops)| Command::Call { ops, repeat, part, teller: Arc::clone(&teller) })
        .collect();
    Ok(Pending {
        handle: Arc::clone(handle),
        doing,
        commands,
        next: None,
        answers,
        parts: vec![None; parts],
        missing: parts,
        finish: Some(finish),
    })
}

/// One result an op, in their order.
pub(crate) fn each<'a, T: 'static>(
    handle: &Arc<Handle>,
    doing: &'static str,
    repeat: Repeat,
    ops: impl Iterator<Item = Op<'a>>,
    read: fn(Reply<'_>) -> Result<T, Refusal>,
) -> Result<Pending<Each<T>>, SessionError> {
    let finish = move |answers: Vec<Answer>| Ok(read_all(&answers, |reply, _| read(reply)));
    ask(handle, doing, repeat, ops, Box::new(finish))
}

/// As [`each`] for ops that are safe to repeat, where the reading depends on whether one was.
pub(crate) fn each_repeated<'a, T: 'static>(
    handle: &Arc<Handle>,
    doing: &'static str,
    ops: impl Iterator<Item = Op<'a>>,
    read: fn(Reply<'_>, bool) -> Result<T, Refusal>,
) -> Result<Pending<Each<T>>, SessionError> {
    let finish = move |answers: Vec<Answer>| Ok(read_all(&answers, read));
    ask(handle, doing, Repeat::Safe, ops, Box::new(finish))
}

fn read_all<T>(
    answers: &[Answer],
    read: impl Fn(Reply<'_>, bool) -> Result<T, Refusal>,
) -> Each<T> {
    let mut results = Vec::new();
    for answer in answers {
        let mut rest = answer.replies.as_slice();
        while let Some(reply) = next_reply(&mut rest) {
            results.push(read(reply, answer.repeated));
        }
    }
    results
}

/// The result of one op.
pub(crate) fn one<T: 'static>(
    handle: &Arc<Handle>,
    doing: &'static str,
    repeat: Repeat,
    op: Op<'_>,
    read: fn(Reply<'_>) -> Result<T, Refusal>,
) -> Result<Pending<T>, SessionError> {
    let finish = move |answers: Vec<Answer>| {
        let reply = answers.first().and_then(|answer| next_reply(&mut answer.replies.as_slice()));
        // The core has checked that there is one.
        let reply = reply.unwrap_or(Reply::Plain(0xFF));
        read(reply).map_err(|refusal| SessionError::Refused { doing, refusal })
    };
    ask(handle, doing, repeat, std::iter::once(op), Box::new(finish))
}

/// The reply to a release under a token: one that was sent twice has done it the first time.
pub(crate) fn released_result(reply: Reply<'_>, repeated: bool) -> Result<(), Refusal> {
    match plain_result(reply) {
        Err(Refusal::NotOwner) if repeated => Ok(()),
        other => other,
    }
}

/// A wait for a name that is on its way; dropped before its end, it is given up.
#[must_use = "nobody waits before it is waited for"]
pub(crate) struct PendingWait {
    handle: Arc<Handle>,
    id: WaitId,
    name: Vec<u8>,
    taken: Arc<AtomicBool>,
    command: Option<Command>,
    result: Arc<Queue<Result<Owner, WaitFault>>>,
    ended: bool,
}

impl PendingWait {
    pub(crate) fn new(
        handle: &Arc<Handle>,
        name: &[u8],
        mode: Mode,
        within: Option<Duration>,
        lock: bool,
    ) -> PendingWait {
        let (result, taken) = (Arc::new(Queue::new(1)), Arc::new(AtomicBool::new(false)));
        let id = WaitId(handle.shared.next_id());
        let request = WaitRequest { name: name.to_vec(), mode, until: until(within), lock };
        let teller = Teller(Arc::clone(&result));
        let command = Command::Wait { id, request, taken: Arc::clone(&taken), teller };
        let (name, handle) = (name.to_vec(), Arc::clone(handle));
        PendingWait { handle, id, name, taken, command: Some(command), result, ended: false }
    }

    fn end(&mut self, result: Option<Result<Owner, WaitFault>>) -> Result<Owner, SessionError> {
        self.ended = true;
        let over = || Fault::Over(self.handle.over().unwrap_or(Over::Closed));
        let result = result.unwrap_or_else(|| Err(WaitFault::Fault(over())));
        result.map_err(|fault| SessionError::wait("WAIT", fault))
    }

    fn held(&self, owner: Owner) -> Held {
        let (name, taken) = (self.name.clone(), Arc::clone(&self.taken));
        Held::new(Arc::clone(&self.handle), self.id, name, owner, taken)
    }

    pub(crate) fn wait(mut self) -> Result<Owner, SessionError> {
        self.block()
    }

    pub(crate) fn wait_held(mut self) -> Result<Held, SessionError> {
        self.block().map(|owner| self.held(owner))
    }

    fn block(&mut self) -> Result<Owner, SessionError> {
        if let Some(command) = self.command.take() {
            let _ = self.handle.shared.commands.push(command);
        }
        let result = match self.result.pop(None) {
            Taken::Item(result) => Some(result),
            Taken::TimeOver | Taken::Closed => None,
        };
        self.end(result)
    }

    #[cfg(feature = "tokio")]
    pub(crate) async fn granted(mut self) -> Result<Owner, SessionError> {
        self.until_granted().await
    }

    #[cfg(feature = "tokio")]
    pub(crate) async fn granted_held(mut self) -> Result<Held, SessionError> {
        self.until_granted().await.map(|owner| self.held(owner))
    }

    #[cfg(feature = "tokio")]
    async fn until_granted(&mut self) -> Result<Owner, SessionError> {
        let result = std::future::poll_fn(|cx| {
            if self.command.is_some() {
                // Put in or refused: either way the queue of the result tells.
                drop(ready!(self.handle.shared.commands.poll_push(&mut self.command, cx)));
            }
            self.result.poll_pop(cx)
        });
        let result = result.await;
        self.end(result)
    }
}

impl Drop for PendingWait {
    fn drop(&mut self) {
        // A wait that was never put in is not known to anybody.
        if !self.ended && self.command.is_none() {
            self.handle.shared.commands.force(Command::CancelWait(self.id));
        }
    }
}

/// What the cache knows of a name's owner, or where it will be told.
pub(crate) enum OwnerAsk {
    Known(Option<Holder>),
    Asked(Arc<Queue<Option<Holder>>>),
    /// A name that ends in `/` is a prefix to a watch: it is asked for each time.
    Uncached,
}

pub(crate) fn ask_owner(handle: &Arc<Handle>, name: &[u8]) -> OwnerAsk {
    if name.is_empty() || name.ends_with(b"/") || handle.over().is_some() {
        return OwnerAsk::Uncached;
    }
    let mut cache = handle.shared.owners();
    let watch = match cache.owners.find(name) {
        Known::Owner(owner) => return OwnerAsk::Known(owner),
        Known::Asked(watch) => watch,
        Known::Nothing => {
            let watch = WatcherId(handle.shared.next_id());
            if let Some(evicted) = cache.owners.begin(name, watch) {
                cache.asking.remove(&evicted);
                handle.shared.commands.force(Command::Unwatch(evicted));
            }
            handle.shared.commands.force(Command::WatchOwner(watch, name.to_vec()));
            watch
        }
    };
    let queue = Arc::new(Queue::new(1));
    cache.asking.entry(watch).or_default().push(Teller(Arc::clone(&queue)));
    OwnerAsk::Asked(queue)
}

/// A request whose reply is waited for; dropped before that, the reply is a message like others.
pub(crate) struct PendingReply {
    handle: Arc<Handle>,
    number: u64,
    pub(crate) reply: Arc<Queue<Message>>,
}

impl PendingReply {
    /// The request, and its sending.
    pub(crate) fn new(
        handle: &Arc<Handle>,
        name: &[u8],
        says: &[u8],
    ) -> Result<(PendingReply, Pending<Delivery>), SessionError> {
        let number = handle.shared.next_id();
        let payload = request::payload(REQUEST, number, says);
        let letter =
            Letter { target: Target::Name(name), fence: None, receipt: true, payload: &payload };
        let send = Op::Send { letter, same: false };
        let sending = one(handle, "SEND", Repeat::Never, send, send_result)?;
        let reply = Arc::new(Queue::new(1));
        whole(&handle.shared.requests).insert(number, Teller(Arc::clone(&reply)));
        Ok((PendingReply { handle: Arc::clone(handle), number, reply }, sending))
    }

    /// Whether the request was handed to somebody.
    pub(crate) fn check(delivery: Delivery) -> Result<(), SessionError> {
        let why = match delivery {
            Delivery::Done => return Ok(()),
            Delivery::NoOwner => "nobody owns the name",
            Delivery::Away => "the owner has no connection at the moment",
            Delivery::ReceiverFull => "the owner has too much unread",
        };
        Err(SessionError::Undelivered { doing: "the request", why })
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        whole(&self.handle.shared.requests).remove(&self.number);
    }
}

/// The reply to a request goes to the session that asked.
pub(crate) fn reply(
    handle: &Arc<Handle>,
    message: &Message,
    says: &[u8],
) -> Result<Pending<Delivery>, SessionError> {
    let Some((number, _)) = message.request() else {
        let why = "the message that it answers is no request";
        return Err(SessionError::Undelivered { doing: "the reply", why });
    };
    let payload = request::payload(REPLY, number, says);
    let target = Target::Session(message.from);
    let letter = Letter { target, fence: None, receipt: false, payload: &payload };
    one(handle, "SEND", Repeat::Never, Op::Send { letter, same: false }, send_result)
}
