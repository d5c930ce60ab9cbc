//! Which library is the fastest for each suite on this machine, by a few milliseconds of trying.

use core::time::Duration;

use crate::aead::{Backend, TAG_BYTES};
use crate::suite::Suite;

/// Bytes of the text that is sealed: what a full record carries.
const TEXT_BYTES: usize = 16 * 1024;
/// What one library may spend on one suite. Nine trials are a few milliseconds at a start.
const TRIAL: Duration = Duration::from_micros(400);

/// What was measured for one suite.
#[derive(Clone, Copy, Debug)]
pub struct Calibration {
    /// The suite.
    pub suite: Suite,
    /// Each library and the bytes a second that it sealed on this core.
    pub rates: [(Backend, u64); Backend::ALL.len()],
}

impl Calibration {
    /// The fastest.
    pub fn best(&self) -> (Backend, u64) {
        self.rates.into_iter().max_by_key(|(_, rate)| *rate).expect("there are three")
    }
}

/// Seals 16 KiB again and again with each library and suite, and takes the best time. `clock` is
/// the time since any fixed moment. Costs a few milliseconds; one that is too fast to be timed
/// counts as infinitely fast.
pub fn calibrate(mut clock: impl FnMut() -> Duration) -> [Calibration; Suite::ALL.len()] {
    let mut text = vec![0; TEXT_BYTES + TAG_BYTES];
    Suite::ALL.map(|suite| Calibration {
        suite,
        rates: Backend::ALL.map(|backend| (backend, rate(backend, suite, &mut text, &mut clock))),
    })
}

fn rate(
    backend: Backend,
    suite: Suite,
    text: &mut [u8],
    clock: &mut impl FnMut() -> Duration,
) -> u64 {
    // A key of nobody, for texts that are thrown away.
    let key = backend.key(suite, &[0; 32]);
    let mut seal = |number: u64| {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&number.to_be_bytes());
        key.seal(nonce, &[], &mut text[..TEXT_BYTES]);
    };
    seal(0);
    let start = clock();
    // The fastest of many: a core that is taken away for a while must not decide.
    let (mut sealed, mut before, mut best) = (0, start, Duration::MAX);
    // The bound is for a clock that stands still; a trial of a real one ends long before.
    while sealed < 4096 && before.saturating_sub(start) < TRIAL {
        (0..BATCH).for_each(|more| seal(sealed + more));
        sealed += BATCH;
        let now = clock();
        best = best.min(now.saturating_sub(before));
        before = now;
    }
    let took = best.as_nanos().max(1);
    u64::try_from(u128::from(BATCH) * TEXT_BYTES as u128 * 1_000_000_000 / took).unwrap_or(u64::MAX)
}

/// Texts that are timed together: longer than a look at the clock takes.
const BATCH: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// Time that passes by one step for each question gives the rates it must, and the best of
    /// them is the first to be as good.
    #[test]
    fn rates_follow_the_clock() {
        let mut now = Duration::ZERO;
        let all = calibrate(|| {
            now += Duration::from_micros(100);
            now
        });
        for calibration in all {
            for (_, rate) in calibration.rates {
                assert_eq!(rate, BATCH * TEXT_BYTES as u64 * 1_000_000 / 100);
            }
        }
        assert_eq!(all.map(|one| one.suite), Suite::ALL);
    }

    #[test]
    fn a_clock_that_stands_still_ends_all_the_same() {
        let all = calibrate(|| Duration::ZERO);
        assert!(all[0].best().1 > 0);
    }
}
