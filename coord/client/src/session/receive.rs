//! What a session hears unasked: events, messages, and what watches tell.
//!
//! Each can be waited for by a thread (`recv`, `recv_timeout`) and by a task
//! (`next`). A thread of an asynchronous runtime must not block in `recv`.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::hub::{ASKED_AGAIN, Command, IN_TIME, OVERFLOWN, WATCH_ITEMS_MAX, WatchSink};
use super::queue::{Queue, Taken};
use super::{Handle, SessionError};
use crate::engine::{Event, WatchItem, WatchRequest, WatcherId};
use crate::notice::Message;

/// What happens to the session, from the moment on at which this was asked for. It ends with
/// [`Event::Lost`], and does not keep the session alive.
#[derive(Debug)]
pub struct Events {
    pub(crate) queue: Arc<Queue<Event>>,
}

/// Messages to the session and its names. Where there are several receivers, each message goes to
/// one of them.
#[derive(Clone)]
pub struct Messages {
    pub(crate) handle: Arc<Handle>,
}

/// What one watch tells: a state, and then changes of it.
pub struct Watch {
    handle: Arc<Handle>,
    id: WatcherId,
    queue: Arc<Queue<WatchItem>>,
    state: Arc<AtomicU8>,
}

/// The methods that all receivers have; `$queue` says what to take from, before each wait.
macro_rules! receiver {
    ($receiver:ident, $item:ty, $self:ident, $queue:expr) => {
        impl $receiver {
            /// Waits for the next one; `None` when there will be no more.
            pub fn recv(&mut self) -> Option<$item> {
                let $self = self;
                match $queue.pop(None) {
                    Taken::Item(item) => Some(item),
                    Taken::TimeOver | Taken::Closed => None,
                }
            }

            /// Waits for the next one; `None` when none came in time, or there will be no more.
            pub fn recv_timeout(&mut self, patience: Duration) -> Option<$item> {
                let $self = self;
                match $queue.pop(Instant::now().checked_add(patience)) {
                    Taken::Item(item) => Some(item),
                    Taken::TimeOver | Taken::Closed => None,
                }
            }

            /// The next one, if there is one already.
            pub fn try_recv(&mut self) -> Option<$item> {
                let $self = self;
                $queue.try_pop()
            }

            /// The next one, for a task; `None` when there will be no more. Nothing is lost if the
            /// future is dropped.
            pub async fn next(&mut self) -> Option<$item> {
                let $self = self;
                let queue = &$queue;
                poll_fn(|cx| queue.poll_pop(cx)).await
            }
        }
    };
}

receiver!(Events, Event, this, this.queue);
receiver!(Messages, Message, this, this.handle.shared.messages);
receiver!(Watch, WatchItem, this, this.caught_up());

impl Events {
    /// How many events this listener has missed, because more than
    /// [`EVENTS_MAX`](crate::session::EVENTS_MAX) waited to be read; the oldest were dropped. Who
    /// keeps a record of what is received and taken does not know any more what is its own then.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }
}

impl Messages {
    /// Messages that came while too many waited to be read, and were dropped.
    pub fn dropped(&self) -> u64 {
        self.handle.messages_dropped()
    }
}

impl Watch {
    pub(crate) fn new(handle: &Arc<Handle>, request: WatchRequest) -> Watch {
        let id = WatcherId(handle.shared.next_id());
        let queue = Arc::new(Queue::new(WATCH_ITEMS_MAX));
        let state = Arc::new(AtomicU8::new(IN_TIME));
        let sink = WatchSink { queue: Arc::clone(&queue), state: Arc::clone(&state) };
        handle.shared.commands.force(Command::Watch(id, request, sink));
        Watch { handle: Arc::clone(handle), id, queue, state }
    }

    /// The next snapshot or change, for who need not know of interruptions; an error when the
    /// watch is over.
    pub fn recv_news(&mut self) -> Result<WatchItem, SessionError> {
        loop {
            match self.recv() {
                Some(WatchItem::Interrupted | WatchItem::Resumed) => {}
                Some(WatchItem::Ended(end)) => return Err(SessionError::watch(end)),
                Some(item) => return Ok(item),
                None => return Err(self.ended()),
            }
        }
    }

    /// As [`Watch::recv_news`], for a task.
    pub async fn next_news(&mut self) -> Result<WatchItem, SessionError> {
        loop {
            match self.next().await {
                Some(WatchItem::Interrupted | WatchItem::Resumed) => {}
                Some(WatchItem::Ended(end)) => return Err(SessionError::watch(end)),
                Some(item) => return Ok(item),
                None => return Err(self.ended()),
            }
        }
    }

    fn ended(&self) -> SessionError {
        let over = self.handle.over().unwrap_or(crate::engine::Over::Closed);
        SessionError::Fault { doing: "WATCH", fault: crate::engine::Fault::Over(over) }
    }

    /// Whoever has let too much pile up begins anew when it reads again, and not before: one that
    /// never reads costs nothing more.
    fn caught_up(&self) -> &Queue<WatchItem> {
        let (from, to) = (OVERFLOWN, ASKED_AGAIN);
        let order = (Ordering::AcqRel, Ordering::Acquire);
        if self.state.compare_exchange(from, to, order.0, order.1).is_ok() {
            self.handle.shared.commands.force(Command::WatchAgain(self.id));
        }
        &self.queue
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.handle.shared.commands.force(Command::Unwatch(self.id));
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Messages(session {})", self.handle.id())
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({:?}, session {})", self.id, self.handle.id())
    }
}
