//! The lease by our own clock, and the pauses between attempts to connect.
//!
//! Always holds: a lease is valid until the moment of sending the last confirmed renewal, plus its
//! length, minus a margin for clocks that run at different rates; nothing else moves that moment.

use ringway_core::rng::Rng;
use ringway_core::{Moment, Span};

/// The shortest pause before an attempt to connect.
const PAUSE_MIN: Span = Span::from_ms(10);
/// The longest one; a lease of which an eighth is shorter has shorter pauses.
const PAUSE_MAX: Span = Span::from_s(1);

/// What is known of the lease.
#[derive(Debug)]
pub(super) struct Lease {
    length: Span,
    margin: Span,
    at_risk: Span,
    /// When the last renewal that was confirmed had been sent.
    confirmed: Moment,
    /// When the next renewal is due, unless one is on its way.
    renew_at: Moment,
    in_flight: bool,
    told_at_risk: bool,
}

impl Lease {
    /// A lease that was asked for at `sent` and given.
    pub(super) fn new(sent: Moment, length: Span, parts: Parts) -> Lease {
        let mut lease = Lease {
            length,
            margin: Span(length.0 / 1000 * u64::from(parts.margin_per_mille)),
            at_risk: Span(length.0 / 1000 * u64::from(parts.at_risk_per_mille)),
            confirmed: sent,
            renew_at: sent,
            in_flight: false,
            told_at_risk: false,
        };
        lease.confirm(sent);
        lease
    }

    /// The server has confirmed what was sent at `sent`; whether the lease had been at risk.
    pub(super) fn confirm(&mut self, sent: Moment) -> bool {
        self.confirmed = sent;
        self.renew_at = sent + Span(self.length.0 / 3);
        self.in_flight = false;
        std::mem::take(&mut self.told_at_risk)
    }

    /// The server did not renew now, but may later.
    pub(super) fn put_off(&mut self, now: Moment) {
        self.in_flight = false;
        self.renew_at = now + Span(self.length.0 / 6);
    }

    /// A renewal is due; it counts as on its way from now on.
    pub(super) fn take_due(&mut self, now: Moment) -> bool {
        let due = !self.in_flight && self.renew_at <= now;
        self.in_flight |= due;
        due
    }

    /// The connection on which a renewal was on its way is gone.
    pub(super) fn interrupted(&mut self) {
        self.in_flight = false;
    }

    /// Until when what the session holds is its own.
    pub(super) fn valid_until(&self) -> Moment {
        self.confirmed + self.length - self.margin
    }

    /// What is left, the first time that so much has passed without a renewal that it is at risk.
    pub(super) fn take_at_risk(&mut self, now: Moment) -> Option<Span> {
        let told = std::mem::replace(&mut self.told_at_risk, now >= self.confirmed + self.at_risk);
        (self.told_at_risk && !told).then(|| self.valid_until().since(now))
    }

    /// When this has to be looked at again. Renewals are only sent while `up`.
    pub(super) fn wake_at(&self, up: bool) -> Moment {
        let mut wake = self.valid_until();
        if !self.told_at_risk {
            wake = wake.min(self.confirmed + self.at_risk);
        }
        if up && !self.in_flight {
            wake = wake.min(self.renew_at);
        }
        wake
    }
}

/// Parts of a lease, in thousandths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    pub(super) margin_per_mille: u16,
    pub(super) at_risk_per_mille: u16,
}

/// Pauses that double with every round over the addresses, jittered so that a crowd of clients
/// whose server went away does not come back in step.
#[derive(Debug)]
pub(super) struct Pauses {
    rng: Rng,
    longest: Span,
    addresses: usize,
    failures: u32,
}

impl Pauses {
    pub(super) fn new(seed: u64, lease: Span, addresses: usize) -> Pauses {
        let longest = Span(lease.0 / 8).max(PAUSE_MIN).min(PAUSE_MAX);
        Pauses { rng: Rng::new(seed), longest, addresses, failures: 0 }
    }

    /// A session was opened or resumed: the next trouble is a new one.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait before the next attempt: from half of the round's pause to all of it, and
    /// anything from nothing to the shortest after a connection that worked.
    pub(super) fn next(&mut self) -> Span {
        let round = self.failures / self.addresses as u32;
        self.failures = self.failures.saturating_add(1);
        let whole = PAUSE_MIN.0.saturating_mul(1 << round.min(16)).min(self.longest.0);
        let least = if self.failures == 1 { 0 } else { whole / 2 };
        Span(least + self.rng.below(whole - least + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses grow to their bound and no further, and two clients do not keep the same ones.
    #[test]
    fn pauses_grow_and_differ() {
        let pauses = |seed| {
            let mut pauses = Pauses::new(seed, Span::from_s(4), 1);
            (0..12).map(|_| pauses.next().0).collect::<Vec<_>>()
        };
        let (ours, theirs) = (pauses(1), pauses(2));
        assert_ne!(ours, theirs);
        assert!(ours[0] <= PAUSE_MIN.0);
        let longest = Span::from_ms(500).0;
        assert!(ours[8..].iter().all(|pause| (longest / 2..=longest).contains(pause)), "{ours:?}");
    }

    /// With three addresses, each is tried before the pause grows.
    #[test]
    fn a_round_goes_over_all_addresses() {
        let mut pauses = Pauses::new(1, Span::from_s(8), 3);
        assert!((0..3).all(|_| pauses.next() <= PAUSE_MIN));
        assert!((0..3).all(|_| (PAUSE_MIN..=Span(2 * PAUSE_MIN.0)).contains(&pauses.next())));
    }
}
