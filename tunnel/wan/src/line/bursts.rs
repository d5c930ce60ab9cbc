//! Bursts of loss: a chain of two states, which moves on with the line's time slots.
//!
//! Between two packets any number of slots may pass. The state behind them is drawn at once, with
//! the probability that a walk of so many steps would have, so that a lull costs what a step does.
//! Probabilities are integers in units of 2^-62, without floating point: every machine draws the
//! same.

use ringway_core::rng::Rng;

/// How the chain moves, in units of [`ONE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// The share of slots that lie in bursts.
    share: i64,
    /// What a step leaves of the difference between knowing the state and not: 1 - enter - leave.
    memory: i64,
}

/// Whether a burst rages, and since when that is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Bursts {
    chain: Chain,
    slot_ps: u64,
    /// When the slot began for which `rages` holds.
    slot_at_ps: u64,
    /// `None` before the first packet: then only the share is known.
    rages: Option<bool>,
}

const ONE: i64 = 1 << 62;
const MILLION: i128 = 1_000_000;

impl Chain {
    /// A chain for such a share of slots in bursts of this mean length (see [`super::Loss`]).
    pub(super) fn new(ppm: u64, mean_milli: u64) -> Chain {
        assert!(mean_milli >= 1_000, "a burst lasts a slot at least");
        let (ppm, mean_milli) = (i128::from(ppm.min(MILLION as u64)), i128::from(mean_milli));
        let share = i128::from(ONE) * ppm / MILLION;
        if ppm == MILLION {
            return Chain { share: ONE, memory: 0 };
        }
        let leave = i128::from(ONE) * 1_000 / mean_milli;
        let enter = leave * ppm / (MILLION - ppm);
        assert!(enter <= i128::from(ONE), "bursts that short cannot take so much");
        let memory = i128::from(ONE) - enter - leave;
        Chain { share: share as i64, memory: memory as i64 }
    }

    /// The probability of a burst so many steps after the state was known.
    fn chance(&self, rages: bool, steps: u64) -> i64 {
        let known = if rages { ONE - self.share } else { -self.share };
        self.share + times(known, power(self.memory, steps))
    }
}

impl Bursts {
    /// Another chain or another length of slots. What rages goes on.
    pub(super) fn become_chain(&mut self, chain: Chain, slot_ps: u64) {
        (self.chain, self.slot_ps) = (chain, slot_ps);
    }

    /// Whether a packet that leaves then is lost. Moments do not go back.
    pub(super) fn rages_at(&mut self, at_ps: u64, rng: &mut Rng) -> bool {
        let steps = (at_ps - self.slot_at_ps) / self.slot_ps;
        self.slot_at_ps += steps * self.slot_ps;
        let chance = match self.rages {
            Some(rages) if steps == 0 => return rages,
            Some(rages) => self.chain.chance(rages, steps),
            None => self.chain.share,
        };
        let rages = ((rng.next_u64() >> 2) as i64) < chance;
        self.rages = Some(rages);
        rages
    }
}

fn times(one: i64, other: i64) -> i64 {
    ((i128::from(one) * i128::from(other)) >> 62) as i64
}

/// By squaring: 64 rounds at most, and none once nothing is left.
fn power(mut base: i64, mut exponent: u64) -> i64 {
    let mut result = ONE;
    while exponent > 0 && result != 0 {
        if exponent & 1 == 1 {
            result = times(result, base);
        }
        base = times(base, base);
        exponent >>= 1;
    }
    result
}
