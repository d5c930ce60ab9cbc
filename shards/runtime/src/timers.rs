//! The runtime's own timers: few, and none while nothing goes wrong. The wheel itself is
//! `ringway_core::wheel`, for every other crate that needs one.

use ringway_core::Moment;
use ringway_core::wheel::{TimerKey, Wheel};

/// What a timer of the runtime is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A connection takes too long: to flush, to end, or to do what its service waits for.
    /// Cancelled before its index is reused.
    Conn(u32),
    /// Accepting may be tried again.
    Accept,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Timers {
    wheel: Wheel<Due>,
}

impl Timers {
    pub(crate) fn new(now: Moment) -> Self {
        Self { wheel: Wheel::new(now) }
    }

    pub(crate) fn add(&mut self, at: Moment, due: Due) -> TimerKey {
        self.wheel.insert(at, due)
    }

    pub(crate) fn cancel(&mut self, key: Option<TimerKey>) {
        if let Some(key) = key {
            self.wheel.cancel(key);
        }
    }

    pub(crate) fn pop(&mut self, now: Moment) -> Option<Due> {
        if self.wheel.is_empty() { None } else { self.wheel.pop(now) }
    }

    pub(crate) fn wake_at(&self) -> Option<Moment> {
        self.wheel.wake_at()
    }
}
