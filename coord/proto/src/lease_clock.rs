//! The clock that leases run by: it stands still while the shard does.
//!
//! A server that was stopped for a second must not expire anybody for that second: the renewals
//! lie unread in its sockets, or in another shard's. So lease time never counts time by which a
//! turn came later than planned (beyond a small allowance), and after such a stall it stands
//! still a little longer, until every shard has read what had arrived.
//!
//! Invariants:
//! - C1  Lease time never runs backwards and never faster than the real clock.
//! - C2  A turn that comes late by `s` adds at most [`LEASE_STEP_MAX`] of it.
//! - C3  What a sleep added ends no lease before the shard was up for [`SETTLE`] more: who sleeps
//!   as planned cannot tell whether all others were stopped meanwhile, with renewals unread.
//!
//! It errs on the side of the holder: a client counts its lease by its own clock from the moment
//! it sent the renewal, so a lease that ends later here is never acted on later there.

use ringway_core::limits::LEASE_STEP_MAX;
use ringway_core::{Moment, Span};

use crate::sabotage::{Rule, Sabotage};

/// A turn that is later than this was a stall, not a busy moment.
pub const STALL: Span = Span::from_ms(50);
/// How long lease time stands still after a stall: other shards, stalled with us, read their
/// sockets and forward what they find. Long enough for all of them to get a core again where
/// others wait for one as well.
pub const STALL_PAUSE: Span = Span::from_ms(100);
/// It stands still at most once in this time, or an overloaded server would expire nobody ever.
pub const STALL_PAUSE_EVERY: Span = Span::from_s(1);

/// How long a shard is up before it believes in time it slept through.
pub const SETTLE: Span = Span::from_ms(20);
/// Stops in the middle of settling that start it anew; an overloaded server, all of whose turns
/// look like stops, expires nevertheless.
const RESTARTS_MAX: u8 = 8;

/// Lease time that was slept through and is not yet believed in.
#[derive(Clone, Copy, Debug)]
struct Settling {
    lease: Moment,
    at: Moment,
    restarts: u8,
}

/// Lease time of one shard.
#[derive(Clone, Debug)]
pub struct LeaseClock {
    real: Moment,
    lease: Moment,
    paused_until: Moment,
    pause_again_at: Moment,
    stalls: u64,
    /// Leases that end by this moment may be ended.
    ripe: Moment,
    settling: Option<Settling>,
    pub(crate) sabotage: Sabotage,
}

impl LeaseClock {
    /// Lease time starts where real time stands.
    pub const fn new(now: Moment) -> Self {
        Self {
            real: now,
            lease: now,
            paused_until: Moment(0),
            pause_again_at: Moment(0),
            stalls: 0,
            ripe: now,
            settling: None,
            sabotage: Sabotage::NONE,
        }
    }

    /// Lease time as of the last turn.
    #[inline]
    pub const fn now(&self) -> Moment {
        self.lease
    }

    /// Lease time by which sessions may be expired, C3: never ahead of [`Self::now`].
    #[inline]
    pub const fn ripe(&self) -> Moment {
        self.ripe
    }

    /// Stalls seen so far.
    pub const fn stalls(&self) -> u64 {
        self.stalls
    }

    /// A turn begins at `now`; the last one asked to be woken by `planned` at the latest (`None`:
    /// it had nothing to wait for, or did not mean to sleep at all and `planned` is its own time).
    pub fn turn(&mut self, now: Moment, planned: Option<Moment>) {
        let elapsed = now.since(self.real);
        let late = planned.map_or(Span::ZERO, |planned| now.since(planned.max(self.real)));
        // Time within a pause does not count.
        let most = now.since(self.real.max(self.paused_until));
        self.real = self.real.max(now);
        if self.sabotage.breaks(Rule::StallsDoNotCount) {
            self.lease = self.lease + elapsed;
            self.ripe = self.lease;
            return;
        }
        self.advance(now, elapsed, Span(late.0.min(elapsed.0)), most);
        self.settle(now, elapsed);
    }

    /// C1, C2.
    fn advance(&mut self, now: Moment, elapsed: Span, late: Span, most: Span) {
        let counted = Span(elapsed.0 - late.0 + late.0.min(LEASE_STEP_MAX.0));
        if late > STALL {
            self.stalls += 1;
            if now >= self.pause_again_at {
                self.paused_until = now + STALL_PAUSE;
                self.pause_again_at = now + STALL_PAUSE_EVERY;
                // What was planned before the stall counts; the stall itself does not.
                self.lease = self.lease + Span(elapsed.0 - late.0);
                return;
            }
        }
        // Of a sleep that reached beyond the pause, only the part behind it counts.
        self.lease = self.lease + Span(counted.0.min(most.0));
    }

    /// Lease time stands still: nobody is to be expired, not even whose deadline was what the last
    /// turn planned to wake for. That renewal may be on its way from another shard.
    #[inline]
    pub fn is_paused(&self) -> bool {
        self.real < self.paused_until
    }

    /// C3.
    fn settle(&mut self, now: Moment, elapsed: Span) {
        let slept = elapsed > LEASE_STEP_MAX;
        if let Some(settling) = &mut self.settling {
            if elapsed.0 > SETTLE.0 + LEASE_STEP_MAX.0 && settling.restarts > 0 {
                settling.restarts -= 1;
                settling.at = now + SETTLE;
            }
            if now < settling.at {
                return;
            }
            self.ripe = settling.lease;
            self.settling = None;
        }
        if !slept {
            self.ripe = self.lease;
        } else if self.ripe < self.lease {
            let (lease, at) = (self.lease, now + SETTLE);
            self.settling = Some(Settling { lease, at, restarts: RESTARTS_MAX });
        }
    }

    /// The real moment at which leases that end at `lease` may be ended, or at which it is worth
    /// looking again, if nothing stalls.
    pub fn real_of(&self, lease: Moment) -> Moment {
        match self.settling {
            _ if lease <= self.ripe => self.real.max(self.paused_until),
            Some(settling) if lease <= self.lease => {
                settling.at.max(self.real).max(self.paused_until)
            }
            _ => self.real.max(self.paused_until) + lease.since(self.lease),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    /// Sleeping as planned is not a stall, however long it was.
    #[test]
    fn a_planned_sleep_counts() {
        let mut clock = LeaseClock::new(ms(0));
        clock.turn(ms(900), Some(ms(1_000)));
        assert_eq!(clock.now(), ms(900));
        clock.turn(ms(1_002), Some(ms(1_000)));
        assert_eq!(clock.now(), ms(1_002));
        assert_eq!(clock.stalls(), 0);
    }

    /// Stopped for ten seconds: nobody's lease moves by more than the sleep that was planned, and
    /// the clock stays where it is until others have had time to forward renewals.
    #[test]
    fn a_stall_expires_nobody() {
        let mut clock = LeaseClock::new(ms(0));
        clock.turn(ms(10_000), Some(ms(100)));
        assert_eq!((clock.now(), clock.stalls()), (ms(100), 1));
        assert!(clock.is_paused(), "whoever was due at 100 is not expired now");
        clock.turn(ms(10_010), Some(ms(10_010)));
        assert_eq!(clock.now(), ms(100), "paused");
        assert!(clock.is_paused());
        assert_eq!(clock.real_of(ms(150)), ms(10_150));
        clock.turn(ms(10_111), Some(ms(10_111)));
        assert_eq!(clock.now(), ms(111), "the pause itself does not count");
        assert!(!clock.is_paused());
    }

    /// All shards were stopped while this one slept as planned, and it wakes on time: the renewal
    /// that another shard has not read yet gets its time; then the lease may end.
    #[test]
    fn a_sleep_is_believed_in_later() {
        let mut clock = LeaseClock::new(ms(0));
        clock.turn(ms(100), Some(ms(100)));
        assert_eq!((clock.now(), clock.ripe()), (ms(100), ms(0)));
        assert_eq!(clock.real_of(ms(100)), ms(120));
        clock.turn(ms(104), Some(ms(104)));
        assert_eq!((clock.now(), clock.ripe()), (ms(104), ms(0)));
        clock.turn(ms(120), Some(ms(120)));
        assert_eq!(clock.ripe(), ms(100));
    }

    /// Stopped again while it waits, it waits again; but not for ever.
    #[test]
    fn settling_starts_anew_a_few_times() {
        let mut clock = LeaseClock::new(ms(0));
        let mut now = 100;
        clock.turn(ms(now), Some(ms(now)));
        let mut restarts = 0;
        while clock.ripe() < ms(100) {
            now += 30;
            clock.turn(ms(now), Some(ms(now)));
            restarts += 1;
        }
        assert_eq!(restarts, RESTARTS_MAX + 1);
    }
}
