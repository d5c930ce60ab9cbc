//! A bounded queue between the session's driver and its callers, be they threads or tasks.
//!
//! Both sides may block a thread or leave a waker, so that one queue serves both faces.
//!
//! Always holds: nothing is taken out that was not put in before, in that order; after
//! [`Queue::close`] nothing is taken in, and what is in can still be taken out.
//! Bounds: `most` items, beyond which only [`Queue::force`] puts in.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    most: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    closed: bool,
    /// Items that had to make room for newer ones.
    dropped: u64,
    /// Tasks that wait for an item or for room; all are woken by a change of what they wait for.
    takers: Vec<Waker>,
    givers: Vec<Waker>,
}

/// Why nothing was taken in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused<T> {
    Full(T),
    Closed(T),
}

/// What came of waiting for an item.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken<T> {
    Item(T),
    TimeOver,
    Closed,
}

impl<T> Queue<T> {
    pub(crate) fn new(most: usize) -> Queue<T> {
        let (items, takers, givers) = (VecDeque::new(), Vec::new(), Vec::new());
        let state = State { items, closed: false, dropped: 0, takers, givers };
        Queue { state: Mutex::new(state), changed: Condvar::new(), most }
    }

    /// Puts an item in if there is room.
    pub(crate) fn try_push(&self, item: T) -> Result<(), Refused<T>> {
        let state = self.lock();
        if state.closed {
            return Err(Refused::Closed(item));
        }
        if state.items.len() >= self.most {
            return Err(Refused::Full(item));
        }
        self.put(state, item);
        Ok(())
    }

    /// Puts an item in, whether there is room or not, unless the queue is closed.
    pub(crate) fn force(&self, item: T) {
        let state = self.lock();
        if !state.closed {
            self.put(state, item);
        }
    }

    /// Puts an item in, and drops the oldest if there is no room.
    pub(crate) fn push_newest(&self, item: T) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        if state.items.len() >= self.most {
            state.items.pop_front();
            state.dropped += 1;
        }
        self.put(state, item);
    }

    /// How many items had to make room for newer ones.
    pub(crate) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Puts an item in, and waits for room. It comes back if the queue is closed.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.lock();
        while !state.closed && state.items.len() >= self.most {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return Err(item);
        }
        self.put(state, item);
        Ok(())
    }

    /// As [`Queue::push`], for a task. `item` is taken when there is room.
    ///
    /// # Panics
    /// If there is no item.
    pub(crate) fn poll_push(&self, item: &mut Option<T>, cx: &Context<'_>) -> Poll<Result<(), T>> {
        let mut state = self.lock();
        if !state.closed && state.items.len() >= self.most {
            leave(&mut state.givers, cx.waker());
            return Poll::Pending;
        }
        let item = item.take().expect("an item to be put in");
        if state.closed {
            return Poll::Ready(Err(item));
        }
        self.put(state, item);
        Poll::Ready(Ok(()))
    }

    pub(crate) fn try_pop(&self) -> Option<T> {
        self.take(self.lock())
    }

    /// Takes an item out, and waits for one, until `until` if that is given.
    pub(crate) fn pop(&self, until: Option<Instant>) -> Taken<T> {
        let mut state = self.lock();
        while state.items.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            state = match until {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Taken::TimeOver;
                    }
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        self.take(state).map_or(Taken::Closed, Taken::Item)
    }

    /// As [`Queue::pop`], for a task; `None` when the queue is closed and empty.
    pub(crate) fn poll_pop(&self, cx: &Context<'_>) -> Poll<Option<T>> {
        let mut state = self.lock();
        if state.items.is_empty() && !state.closed {
            leave(&mut state.takers, cx.waker());
            return Poll::Pending;
        }
        Poll::Ready(self.take(state))
    }

    /// Drops what is in.
    pub(crate) fn clear(&self) {
        self.lock().items.clear();
        self.changed.notify_all();
    }

    /// Takes nothing in from now on.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let wakers: Vec<Waker> = state.takers.drain(..).collect();
        let givers: Vec<Waker> = state.givers.drain(..).collect();
        drop(state);
        self.changed.notify_all();
        wakers.into_iter().chain(givers).for_each(Waker::wake);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn put(&self, mut state: MutexGuard<'_, State<T>>, item: T) {
        state.items.push_back(item);
        let wakers = std::mem::take(&mut state.takers);
        drop(state);
        self.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn take(&self, mut state: MutexGuard<'_, State<T>>) -> Option<T> {
        let item = state.items.pop_front()?;
        let wakers = std::mem::take(&mut state.givers);
        drop(state);
        self.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
        Some(item)
    }

    /// A panic of another thread leaves the queue whole: nothing here can stop half-way.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn leave(wakers: &mut Vec<Waker>, waker: &Waker) {
    if !wakers.iter().any(|other| other.will_wake(waker)) {
        wakers.push(waker.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Who puts in more than fits waits until somebody takes out; nothing is lost or reordered.
    #[test]
    fn a_full_queue_holds_its_givers_back() {
        let queue = Arc::new(Queue::new(2));
        let giver = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || (0..100).try_for_each(|item| queue.push(item)).is_ok()
        });
        let taken: Vec<i32> = (0..100)
            .map(|_| match queue.pop(None) {
                Taken::Item(item) => item,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(giver.join().expect("it ends"));
        assert_eq!(taken, (0..100).collect::<Vec<_>>());
        assert_eq!(queue.pop(Some(Instant::now())), Taken::TimeOver);
    }

    /// What is in a closed queue can still be taken out; nothing comes in.
    #[test]
    fn a_closed_queue_is_emptied() {
        let queue = Queue::new(1);
        queue.try_push(1).expect("there is room");
        assert_eq!(queue.try_push(2), Err(Refused::Full(2)));
        queue.force(2);
        queue.push_newest(3);
        assert_eq!(queue.dropped(), 1, "the oldest goes");
        queue.close();
        assert_eq!(queue.try_push(4), Err(Refused::Closed(4)));
        assert_eq!((queue.pop(None), queue.pop(None)), (Taken::Item(2), Taken::Item(3)));
        assert_eq!(queue.pop(None), Taken::Closed);
    }
}
