//! What is done when this machine may be a copy of another: all keys are dropped.
//!
//! Not here: how it is found out (`clocks`, `generation`), what dropping means (`tunnel/proto`).

use ringway_core::Moment;
use ringway_shards::Io;

use super::Pump;
use crate::chance::unlike_a_copy;
use crate::clocks::Reading;

/// Why keys are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The kernel was told by its hypervisor, or somebody told us.
    Copied,
    /// The clock was set by so many milliseconds; below zero: back.
    Clock(i64),
}

impl Pump {
    /// Looks whether the clock was set, if it is time to.
    #[inline]
    pub(super) fn look_at_clocks(&mut self, now: Moment, io: &mut Io<'_>) {
        if self.clocks.is_due(now)
            && let Some(by_ms) = self.clocks.look(now, Reading::now())
        {
            self.begin_anew(now, Why::Clock(by_ms), io);
        }
    }

    pub(super) fn begin_anew(&mut self, now: Moment, why: Why, io: &mut Io<'_>) {
        let fresh = unlike_a_copy();
        let dropped = self.with_agent(now, io, |agent, desk| agent.begin_anew(now, &*fresh, desk));
        self.own.shared.metrics.keys_dropped.add(1);
        let (shard, sessions, flows) = (self.own.me.0, dropped.sessions, dropped.flows);
        match why {
            Why::Copied => tracing::warn!(
                shard,
                sessions,
                flows,
                "this machine is a copy of another, or was set back to a snapshot: all keys were \
                 dropped and flows reset; sessions begin anew"
            ),
            Why::Clock(by_ms) => tracing::warn!(
                shard,
                sessions,
                flows,
                "the clock was set {} by {} s, as in a copy of a machine or one that was set back \
                 to a snapshot: all keys were dropped and flows reset; sessions begin anew",
                if by_ms > 0 { "forward" } else { "back" },
                by_ms.unsigned_abs() / 1000
            ),
        }
    }
}
