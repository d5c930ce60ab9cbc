//! Whether the clock of the day was set: that may mean that this machine is a copy of another, or
//! was set back to an earlier state.
//!
//! Two clocks of the kernel run at the same rate, however that is corrected: the time of the day
//! and the time since the boot. Only setting the clock moves the one against the other. A machine
//! that sleeps moves both; so does one that is held and goes on where it was. A second that is
//! leapt is less than what counts.
//!
//! Bounds: three readings a look, in user space where the host's clock source allows it; one look a
//! second, made by who has something to do anyway. Not here: what is done about it (`pump`).

use ringway_core::{Moment, Span};
use rustix::time::{ClockId, clock_gettime};

/// A clock that was set by more than this has jumped. Time servers correct less than that without a
/// step, and handshakes bear 30 s.
pub(crate) const JUMP_MIN_MS: u64 = 5_000;
/// One look is enough for so long.
const LOOK_EVERY: Span = Span::from_s(1);
const NS_PER_MS: i128 = 1_000_000;

/// Both clocks, read one right after the other, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Since the boot, before the other one was read.
    before: i128,
    /// Since 1970.
    wall: i128,
    /// Since the boot, after it.
    after: i128,
}

impl Reading {
    /// Reads them.
    pub(crate) fn now() -> Reading {
        let read = |clock| {
            let time = clock_gettime(clock);
            i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
        };
        let before = read(ClockId::Boottime);
        let wall = read(ClockId::Realtime);
        Reading { before, wall, after: read(ClockId::Boottime) }
    }

    /// Its bytes: a copy of this machine that goes on at another time reads others.
    pub(crate) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.wall.to_le_bytes());
        bytes[16..].copy_from_slice(&self.after.to_le_bytes());
        bytes
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Clocks {
    /// The clock of the day minus the one since the boot: the least and the most that it can have
    /// been at the last look. We may have been held between two readings of one look, for however
    /// long.
    apart: Option<(i128, i128)>,
    due: Moment,
}

impl Clocks {
    pub(crate) fn new() -> Clocks {
        Clocks { apart: None, due: Moment(0) }
    }

    /// Whether it is time for a look.
    pub(crate) fn is_due(&self, now: Moment) -> bool {
        now >= self.due
    }

    /// Takes a look. Returns by how many milliseconds the clock was set since the last one, if that
    /// is a jump: at least by so many, whatever held us up.
    pub(crate) fn look(&mut self, now: Moment, reading: Reading) -> Option<i64> {
        self.due = now + LOOK_EVERY;
        let apart = (reading.wall - reading.after, reading.wall - reading.before);
        let (least, most) = self.apart.replace(apart)?;
        let ahead = (apart.0 - most) / NS_PER_MS;
        let behind = (least - apart.1) / NS_PER_MS;
        let jump = i128::from(JUMP_MIN_MS);
        let by = if ahead >= jump {
            ahead
        } else if behind >= jump {
            -behind
        } else {
            return None;
        };
        Some(by.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i128 = 1_000_000_000;

    /// What is read at a time since the boot, if the clock of the day is so far from it.
    fn at(boot: i128, apart: i128) -> Reading {
        Reading { before: boot, wall: boot + apart, after: boot }
    }

    fn after_first() -> Clocks {
        let mut clocks = Clocks::new();
        assert_eq!(clocks.look(Moment(0), at(100 * S, 1000 * S)), None, "nothing to compare with");
        clocks
    }

    #[test]
    fn a_clock_that_is_set_jumps_either_way_and_once() {
        for (by, said) in [(5, 5000), (-5, -5000), (86_400, 86_400_000), (-3600, -3_600_000)] {
            let mut clocks = after_first();
            assert_eq!(clocks.look(Moment(1), at(101 * S, (1000 + by) * S)), Some(said));
            assert_eq!(clocks.look(Moment(2), at(102 * S, (1000 + by) * S)), None, "it is told");
        }
    }

    /// The rate of both is corrected together, a laptop's sleep is in both, and a leap second is
    /// one second. However long nobody looked, that is no jump.
    #[test]
    fn slewing_sleep_and_lateness_are_none() {
        let mut clocks = after_first();
        for (boot, apart) in
            [(101 * S, 1000 * S + 400), (90_000 * S, 1000 * S), (90_001 * S, 999 * S)]
        {
            assert_eq!(clocks.look(Moment(1), at(boot, apart)), None);
        }
        let mut small = after_first();
        for step in 1..10 {
            let apart = 1000 * S + step * 4_900_000_000;
            assert_eq!(small.look(Moment(1), at(100 * S, apart)), None, "below what counts");
        }
    }

    /// Held between the readings of one look, for a minute: what is read then is not a jump, and
    /// neither is what is read next. A jump that is larger than the doubt is one.
    #[test]
    fn who_is_held_between_two_readings_is_not_fooled() {
        let held = |wall| Reading { before: 200 * S, wall, after: 260 * S };
        for wall in [1200 * S, 1230 * S, 1260 * S] {
            let mut clocks = after_first();
            assert_eq!(clocks.look(Moment(1), held(wall)), None);
            assert_eq!(clocks.look(Moment(2), at(261 * S, 1000 * S)), None);
        }
        let mut clocks = after_first();
        assert_eq!(clocks.look(Moment(1), held(2260 * S)), Some(1_000_000));
    }

    #[test]
    fn looks_are_a_second_apart() {
        let mut clocks = Clocks::new();
        let now = Moment(7_000_000_000);
        assert!(clocks.is_due(now));
        clocks.look(now, Reading::now());
        assert!(!clocks.is_due(Moment(now.0 + LOOK_EVERY.0 - 1)));
        assert!(clocks.is_due(now + LOOK_EVERY));
        assert_eq!(clocks.look(now, Reading::now()), None, "nobody sets it now");
    }
}
