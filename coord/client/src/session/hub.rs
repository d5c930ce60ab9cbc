//! Between the engine and its callers: who is told what the engine says.
//!
//! The driver owns the hub and moves bytes; callers put [`Command`]s into the queue of [`Shared`].
//! Everything a caller waits for is answered here, or closed when the hub is dropped, so that no
//! caller waits for a driver that is gone.
//!
//! Bounds: [`COMMANDS_MAX`] commands wait for the engine, then callers are held back;
//! [`EVENTS_MAX`] events for each listener, [`MESSAGES_MAX`] messages: of events the oldest is
//! dropped, of messages the newest, and counted. [`WATCH_ITEMS_MAX`] items for each watch: one that
//! is not read begins anew with a snapshot when it is read again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use ringway_core::{Moment, SessionId, Token};

use super::queue::{Queue, Refused};
use super::request;
use crate::engine::{
    Answer, Attempt, Batch, CallId, Engine, Event, Fault, Input, Output, Over, Repeat, WaitFault,
    WaitId, WaitRequest, WatchItem, WatchRequest, WatcherId,
};
use crate::notice::Message;
use crate::owners::{Heard, Owners};
use crate::reply::{Holder, Owner};

/// Commands that wait for the engine.
pub const COMMANDS_MAX: usize = 1024;
/// Events that wait for one listener: a balancer may move thousands of names at once, and each of
/// them is an event.
pub const EVENTS_MAX: usize = 64 * 1024;
/// Messages that wait to be read.
pub const MESSAGES_MAX: usize = 1024;
/// What waits to be read of one watch.
pub const WATCH_ITEMS_MAX: usize = 8192;

/// The answer to a part of a call, with the part's number.
pub(crate) type Part = (usize, Result<Answer, Fault>);

/// A queue that is closed when nobody can put anything in any more.
#[derive(Debug)]
pub(crate) struct Teller<T>(pub(crate) Arc<Queue<T>>);

impl<T> Drop for Teller<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The state of a watch's queue: read in time, overflown, or on its way to begin anew.
pub(crate) const IN_TIME: u8 = 0;
pub(crate) const OVERFLOWN: u8 = 1;
pub(crate) const ASKED_AGAIN: u8 = 2;

/// Where the items of a watch go.
#[derive(Debug)]
pub(crate) struct WatchSink {
    pub(crate) queue: Arc<Queue<WatchItem>>,
    pub(crate) state: Arc<AtomicU8>,
}

/// What callers ask of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    Call {
        ops: Batch,
        repeat: Repeat,
        part: usize,
        teller: Arc<Teller<Part>>,
    },
    Wait {
        id: WaitId,
        request: WaitRequest,
        taken: Arc<AtomicBool>,
        teller: Teller<Result<Owner, WaitFault>>,
    },
    CancelWait(WaitId),
    Unlock(WaitId),
    Watch(WatcherId, WatchRequest, WatchSink),
    /// A watch for the cache of owners.
    WatchOwner(WatcherId, Vec<u8>),
    WatchAgain(WatcherId),
    Unwatch(WatcherId),
    Close,
}

/// Who waits for the owner of a name to be known.
#[derive(Debug)]
pub(crate) struct OwnerCache {
    pub(crate) owners: Owners,
    pub(crate) asking: BTreeMap<WatcherId, Vec<Teller<Option<Holder>>>>,
}

/// What the driver and all handles of a session share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) commands: Queue<Command>,
    pub(crate) messages: Queue<Message>,
    pub(crate) messages_dropped: AtomicU64,
    pub(crate) opened: Queue<Result<SessionId, Over>>,
    pub(crate) session: OnceLock<SessionId>,
    pub(crate) over: OnceLock<Over>,
    valid_until: AtomicU64,
    ids: AtomicU64,
    listeners: Mutex<Vec<Arc<Queue<Event>>>>,
    owners: Mutex<OwnerCache>,
    /// Requests that wait for their replies.
    pub(crate) requests: Mutex<BTreeMap<u64, Teller<Message>>>,
}

impl Shared {
    pub(crate) fn new(owners_max: usize) -> Shared {
        let owners = OwnerCache { owners: Owners::new(owners_max), asking: BTreeMap::new() };
        Shared {
            commands: Queue::new(COMMANDS_MAX),
            messages: Queue::new(MESSAGES_MAX),
            messages_dropped: AtomicU64::new(0),
            opened: Queue::new(1),
            session: OnceLock::new(),
            over: OnceLock::new(),
            valid_until: AtomicU64::new(0),
            ids: AtomicU64::new(1),
            listeners: Mutex::new(Vec::new()),
            owners: Mutex::new(owners),
            requests: Mutex::new(BTreeMap::new()),
        }
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn valid_until(&self) -> Moment {
        Moment(self.valid_until.load(Ordering::Acquire))
    }

    /// A new listener, who hears at once if the session is over already.
    pub(crate) fn listen(&self) -> Arc<Queue<Event>> {
        let queue = Arc::new(Queue::new(EVENTS_MAX));
        let mut listeners = whole(&self.listeners);
        if let Some(over) = self.over.get() {
            queue.force(Event::Lost(*over));
            queue.close();
        } else {
            listeners.push(Arc::clone(&queue));
        }
        queue
    }

    pub(crate) fn owners(&self) -> MutexGuard<'_, OwnerCache> {
        whole(&self.owners)
    }

    fn tell_all(&self, event: &Event) {
        let mut listeners = whole(&self.listeners);
        listeners.retain(|queue| !queue.is_closed());
        for queue in listeners.iter() {
            queue.push_newest(event.clone());
        }
        if let Event::Lost(over) = event {
            let _ = self.over.set(*over);
            listeners.drain(..).for_each(|queue| queue.close());
        }
    }

    fn on_owner(&self, id: WatcherId, item: &WatchItem) {
        let mut cache = self.owners();
        let known = match cache.owners.hear(id, item) {
            Heard::Owner(owner) => Some(owner),
            Heard::Nothing if matches!(item, WatchItem::Ended(_)) => None,
            Heard::Nothing => return,
            Heard::Somebody => return self.commands.force(Command::WatchAgain(id)),
        };
        // Those who are told nothing find their queue closed, and ask the server themselves.
        for teller in cache.asking.remove(&id).unwrap_or_default() {
            known.iter().for_each(|owner| teller.0.force(*owner));
        }
    }
}

/// A panic of another thread leaves these maps whole: nothing that changes them can stop half-way.
pub(crate) fn whole<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the driver has to do with its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Connect(Attempt, usize),
    Disconnect,
}

#[derive(Debug)]
struct Waiting {
    name: Vec<u8>,
    lock: bool,
    taken: Arc<AtomicBool>,
    teller: Option<Teller<Result<Owner, WaitFault>>>,
    token: Option<Token>,
}

/// The engine with everybody who waits for it.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) engine: Engine,
    pub(crate) shared: Arc<Shared>,
    calls: BTreeMap<CallId, (usize, Arc<Teller<Part>>)>,
    waits: BTreeMap<WaitId, Waiting>,
    watches: BTreeMap<WatcherId, Option<WatchSink>>,
    outputs: Vec<Output>,
}

impl Hub {
    pub(crate) fn new(engine: Engine, shared: Arc<Shared>) -> Hub {
        Hub {
            engine,
            shared,
            calls: BTreeMap::new(),
            waits: BTreeMap::new(),
            watches: BTreeMap::new(),
            outputs: Vec::new(),
        }
    }

    /// Takes what callers ask for, while the engine has room for it, so many at once that what
    /// came together is sent together; whether there may be more.
    pub(crate) fn take_commands(
        &mut self,
        now: Moment,
        cx: &Context<'_>,
        acts: &mut Vec<Act>,
    ) -> bool {
        for _ in 0..COMMANDS_MAX {
            if !self.engine.has_room() {
                return false;
            }
            let Poll::Ready(Some(command)) = self.shared.commands.poll_pop(cx) else {
                return false;
            };
            self.command(now, command, acts);
        }
        true
    }

    /// A caller asks for something.
    fn command(&mut self, now: Moment, command: Command, acts: &mut Vec<Act>) {
        let input = match command {
            Command::Call { ops, repeat, part, teller } => {
                let id = CallId(self.shared.next_id());
                self.calls.insert(id, (part, teller));
                Input::Call { id, ops, repeat }
            }
            Command::Wait { id, request, taken, teller } => {
                let (name, lock) = (request.name.clone(), request.lock);
                let waiting = Waiting { name, lock, taken, teller: Some(teller), token: None };
                self.waits.insert(id, waiting);
                Input::Wait(id, request)
            }
            Command::CancelWait(id) => {
                self.waits.remove(&id);
                Input::CancelWait(id)
            }
            Command::Unlock(id) => {
                self.waits.remove(&id);
                Input::Unlock(id)
            }
            Command::Watch(id, request, sink) => {
                self.watches.insert(id, Some(sink));
                Input::Watch(id, request)
            }
            Command::WatchOwner(id, filter) => {
                self.watches.insert(id, None);
                let events = crate::op::Events::OWNERS;
                Input::Watch(id, WatchRequest { filter, events, budget: 0 })
            }
            Command::WatchAgain(id) => {
                if let Some(Some(sink)) = self.watches.get(&id) {
                    sink.state.store(IN_TIME, Ordering::Release);
                }
                Input::WatchAgain(id)
            }
            Command::Unwatch(id) => {
                self.watches.remove(&id);
                Input::Unwatch(id)
            }
            Command::Close => Input::Close,
        };
        self.step(now, input, acts);
    }

    /// Something happened.
    pub(crate) fn step(&mut self, now: Moment, input: Input<'_>, acts: &mut Vec<Act>) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.engine.step(now, input, &mut outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Connect(attempt, address) => acts.push(Act::Connect(attempt, address)),
                Output::Disconnect => acts.push(Act::Disconnect),
                Output::Answer { id, result } => {
                    if let Some((part, teller)) = self.calls.remove(&id) {
                        teller.0.force((part, result));
                    }
                }
                Output::Wait { id, result } => self.on_wait(id, result),
                Output::Watch { id, item } => self.on_item(id, item),
                Output::Message(message) => self.on_message(message),
                Output::Event(event) => self.on_event(event),
                Output::ValidUntil(until) => {
                    self.shared.valid_until.store(until.0, Ordering::Release);
                }
            }
        }
        self.outputs = outputs;
    }

    fn on_wait(&mut self, id: WaitId, result: Result<Owner, WaitFault>) {
        let Some(waiting) = self.waits.get_mut(&id) else { return };
        waiting.token = result.ok().map(|owner| owner.token);
        if let Some(teller) = waiting.teller.take() {
            teller.0.force(result);
        }
        if !waiting.lock || waiting.token.is_none() {
            self.waits.remove(&id);
        }
    }

    fn on_item(&mut self, id: WatcherId, item: WatchItem) {
        let ended = matches!(item, WatchItem::Ended(_));
        match self.watches.get(&id) {
            None => return,
            Some(None) => self.shared.on_owner(id, &item),
            Some(Some(sink)) if ended => {
                sink.queue.force(item);
                sink.queue.close();
            }
            Some(Some(sink)) if sink.state.load(Ordering::Acquire) == IN_TIME => {
                if let Err(Refused::Full(_)) = sink.queue.try_push(item) {
                    // The state goes first, so that a reader who finds nothing knows why.
                    sink.state.store(OVERFLOWN, Ordering::Release);
                    sink.queue.clear();
                    sink.queue.force(WatchItem::Interrupted);
                }
            }
            Some(Some(_)) => {}
        }
        if ended {
            self.watches.remove(&id);
        }
    }

    fn on_message(&mut self, message: Message) {
        if let Some(number) = request::reply_number(&message.payload) {
            let waiting = whole(&self.shared.requests).remove(&number);
            if let Some(teller) = waiting {
                return teller.0.force(message);
            }
        }
        if self.shared.messages.try_push(message).is_err() {
            self.shared.messages_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn on_event(&mut self, event: Event) {
        match &event {
            Event::Opened(session) => {
                let _ = self.shared.session.set(*session);
                self.shared.opened.force(Ok(*session));
            }
            Event::Lost(over) => self.shared.opened.force(Err(*over)),
            Event::Taken { name, token, .. } => {
                let held =
                    |waiting: &&Waiting| waiting.token == Some(*token) && waiting.name == *name;
                self.waits.values().filter(held).for_each(|waiting| {
                    waiting.taken.store(true, Ordering::Release);
                });
            }
            _ => {}
        }
        self.shared.tell_all(&event);
    }
}

impl Drop for Hub {
    /// Nobody is left waiting: what was asked and not answered is closed with its tellers.
    fn drop(&mut self) {
        self.shared.valid_until.store(0, Ordering::Release);
        if self.shared.over.get().is_none() {
            self.shared.opened.force(Err(Over::Closed));
            self.shared.tell_all(&Event::Lost(Over::Closed));
        }
        self.shared.commands.close();
        while self.shared.commands.try_pop().is_some() {}
        self.shared.messages.close();
        self.shared.owners().asking.clear();
        whole(&self.shared.requests).clear();
    }
}
