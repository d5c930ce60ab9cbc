//! Whether to look around for a moment before sleeping.
//!
//! Waking a sleeping core costs tens of microseconds; looking costs CPU. So a shard that owns its
//! core spins as long as spinning has paid lately: after a wait that was shorter than the limit
//! it spins up to the limit, after each longer one half as long, down to not at all. A shard
//! without work therefore spins a few times and then sleeps, and an idle one uses no CPU.

use ringway_core::Span;

/// Whether shards spin before they sleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpinPolicy {
    /// Up to 50 us, where there are more cores than shards; else not.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Up to this long.
    UpTo(Span),
}

/// What `Auto` spins at most.
const AUTO_MAX: Span = Span::from_us(50);
/// Shorter spins than this are not worth the look at the clock.
const LEAST: Span = Span::from_us(2);

/// How long one shard spins at the moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spin {
    limit: Span,
    present: Span,
}

impl SpinPolicy {
    pub(crate) fn limit(self, shards: usize, cores: usize) -> Span {
        match self {
            SpinPolicy::Auto if shards < cores => AUTO_MAX,
            SpinPolicy::Auto | SpinPolicy::Off => Span::ZERO,
            SpinPolicy::UpTo(span) => span,
        }
    }
}

impl Spin {
    pub(crate) fn new(limit: Span) -> Self {
        Self { limit, present: limit }
    }

    /// How long to spin now, if at all.
    pub(crate) fn now(&self) -> Option<Span> {
        (self.present >= LEAST).then_some(self.present)
    }

    /// Whether it ever spins, and wants to hear how long waits are.
    pub(crate) fn is_on(&self) -> bool {
        self.limit >= LEAST
    }

    /// Something came after this long.
    pub(crate) fn waited(&mut self, span: Span) {
        self.present = if span <= self.limit { self.limit } else { Span(self.present.0 / 2) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spinning fades out without success and comes back at the first short wait.
    #[test]
    fn spinning_pays_or_stops() {
        let mut spin = Spin::new(Span::from_us(50));
        let mut vain = 0;
        while spin.now().is_some() {
            spin.waited(Span::from_ms(1));
            vain += 1;
        }
        assert!(vain <= 5, "{vain} spins in vain");
        spin.waited(Span::from_us(40));
        assert_eq!(spin.now(), Some(Span::from_us(50)));
    }

    /// Only a shard with a core to spare spins by itself.
    #[test]
    fn spinning_needs_a_core_to_spare() {
        assert_eq!(SpinPolicy::Auto.limit(1, 2), AUTO_MAX);
        assert_eq!(SpinPolicy::Auto.limit(2, 2), Span::ZERO);
        assert_eq!(SpinPolicy::Off.limit(1, 2), Span::ZERO);
        assert_eq!(SpinPolicy::UpTo(Span(9)).limit(2, 2), Span(9));
        assert!(!Spin::new(Span::ZERO).is_on());
    }
}
