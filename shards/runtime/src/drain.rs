//! Stopping gracefully: every shard says when it has nothing left to do; all stop together, or
//! when the time is over, whichever comes first.
//!
//! Together, because a shard that is done may still be asked by one that is not.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ringway_core::{Moment, Span};

/// What all shards share about stopping.
#[derive(Debug)]
pub(crate) struct StopState {
    asked: AtomicBool,
    ready: AtomicUsize,
    shards: usize,
}

impl StopState {
    pub(crate) fn new(shards: usize) -> Self {
        Self { asked: AtomicBool::new(false), ready: AtomicUsize::new(0), shards }
    }

    /// Asks all shards to stop. They have to be woken.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    fn all_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) >= self.shards
    }
}

/// One shard's way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drain {
    /// Nobody asked.
    Serving,
    /// Somebody did.
    Draining {
        /// When it is over in any case.
        deadline: Moment,
        /// Whether this shard is counted as ready.
        ready: bool,
    },
}

/// What a shard has to do after a look at its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on.
    Stay,
    /// Wake the others: this shard was the last to be ready. Then leave.
    LeaveAndWake,
    /// Leave.
    Leave,
}

impl Drain {
    pub(crate) fn begin(&mut self, now: Moment, span: Span) {
        *self = Drain::Draining { deadline: now + span, ready: false };
    }

    pub(crate) fn is_draining(self) -> bool {
        matches!(self, Drain::Draining { .. })
    }

    pub(crate) fn wake_at(self) -> Option<Moment> {
        match self {
            Drain::Serving => None,
            Drain::Draining { deadline, .. } => Some(deadline),
        }
    }

    /// Says whether this shard is done, and learns whether all are.
    pub(crate) fn judge(&mut self, now: Moment, done: bool, stop: &StopState) -> Verdict {
        let Drain::Draining { deadline, ready } = self else { return Verdict::Stay };
        let mut last = false;
        if done != *ready {
            *ready = done;
            if done {
                last = stop.ready.fetch_add(1, Ordering::AcqRel) + 1 == stop.shards;
            } else {
                stop.ready.fetch_sub(1, Ordering::AcqRel);
            }
        }
        match (last, stop.all_ready() || now >= *deadline) {
            (true, _) => Verdict::LeaveAndWake,
            (false, true) => Verdict::Leave,
            (false, false) => Verdict::Stay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two shards: the first to be done waits for the second, and may become busy again.
    #[test]
    fn all_leave_together() {
        let stop = StopState::new(2);
        let (mut one, mut two) = (Drain::Serving, Drain::Serving);
        assert_eq!(one.judge(Moment(5), true, &stop), Verdict::Stay);
        stop.ask();
        one.begin(Moment(5), Span(100));
        two.begin(Moment(6), Span(100));
        assert_eq!(one.judge(Moment(7), true, &stop), Verdict::Stay);
        assert_eq!(one.judge(Moment(8), false, &stop), Verdict::Stay);
        assert_eq!(two.judge(Moment(9), true, &stop), Verdict::Stay);
        assert_eq!(one.judge(Moment(10), true, &stop), Verdict::LeaveAndWake);
        assert_eq!(two.judge(Moment(11), true, &stop), Verdict::Leave);
    }

    /// A shard that is never done leaves at its deadline.
    #[test]
    fn the_deadline_ends_it() {
        let stop = StopState::new(1);
        let mut drain = Drain::Serving;
        drain.begin(Moment(0), Span(100));
        assert_eq!(drain.judge(Moment(99), false, &stop), Verdict::Stay);
        assert_eq!(drain.judge(Moment(100), false, &stop), Verdict::Leave);
    }
}
