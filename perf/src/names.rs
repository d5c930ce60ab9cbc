//! Names without a table: the same (seed, index) always gives the same name, in a few nanoseconds.
//!
//! Invariants:
//! - N1  Different indices give different names: the first bytes are a permutation of the index.
//! - N2  Names look random to a hash and to a branch predictor, whatever the order of indices.
//!
//! Bounds: no memory but the 8 MB sample of a Zipf distribution. Tests: below.

use ringway_core::limits::NAME_BYTES_MAX;
use ringway_core::rng::Rng;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

/// What the bytes of names are drawn from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Alphabet {
    /// Any byte: as names of 128 bits would be. Native protocol and RESP are both binary-safe.
    #[default]
    Binary,
    /// Lower-case letters and digits, for names that people or other tools will read.
    Printable,
}

/// Which names the ops pick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Every name is as likely as any other.
    #[default]
    Uniform,
    /// The k-th name is picked in proportion to k to the power of minus this (0.99 is usual).
    Zipf(f64),
    /// One after the other.
    Sequential,
}

/// Names as typed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NameSpec {
    /// How many different names the queries pick from.
    pub count: u64,
    /// Bytes of a name, the prefix included: 1 to 255.
    pub length: usize,
    /// What stands in front of every name.
    pub prefix: String,
    /// Binary or printable.
    pub alphabet: Alphabet,
    /// Uniform, zipf or sequential.
    pub distribution: Distribution,
    /// Another seed gives other names and another order.
    pub seed: u64,
}

impl Default for NameSpec {
    /// A million binary names of 16 bytes, uniformly.
    fn default() -> Self {
        NameSpec {
            count: 1_000_000,
            length: 16,
            prefix: String::new(),
            alphabet: Alphabet::Binary,
            distribution: Distribution::Uniform,
            seed: 1,
        }
    }
}

/// Makes the name of an index.
#[derive(Clone, Debug)]
pub struct NameMaker {
    prefix: Vec<u8>,
    length: usize,
    alphabet: Alphabet,
    offset: u64,
    tail_seed: u64,
    bits: u32,
}

/// Characters of a printable name, five bits each; none looks like another.
const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Two characters for each ten bits.
static PAIRS: [[u8; 2]; 1024] = make_pairs();

impl NameMaker {
    /// Checks that `names` different names of this shape exist.
    pub fn new(spec: &NameSpec, names: u64) -> Result<NameMaker, ConfigError> {
        if spec.length == 0 || spec.length > NAME_BYTES_MAX {
            return Err(ConfigError::NameLength(spec.length));
        }
        let drawn = spec.length.saturating_sub(spec.prefix.len());
        let bits = match spec.alphabet {
            Alphabet::Binary => 8 * drawn.min(8) as u32,
            Alphabet::Printable => 5 * drawn.min(12) as u32,
        };
        if bits == 0 || (bits < 64 && names > 1 << bits) {
            let (length, prefix) = (spec.length, spec.prefix.len());
            return Err(ConfigError::TooFewNames { names, length, prefix });
        }
        let mut rng = Rng::new(spec.seed);
        Ok(NameMaker {
            prefix: spec.prefix.clone().into_bytes(),
            length: spec.length,
            alphabet: spec.alphabet,
            offset: rng.next_u64(),
            tail_seed: rng.next_u64(),
            bits,
        })
    }

    /// Bytes of every name.
    #[inline]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Writes the name of `index` into `out`, which is exactly [`NameMaker::length`] long.
    #[inline]
    pub fn write(&self, index: u64, out: &mut [u8]) {
        let (prefix, drawn) = out.split_at_mut(self.prefix.len());
        prefix.copy_from_slice(&self.prefix);
        let head = permute(index.wrapping_add(self.offset), self.bits);
        match self.alphabet {
            Alphabet::Binary => self.write_binary(head, drawn),
            Alphabet::Printable => self.write_printable(head, drawn),
        }
    }

    #[inline]
    fn write_binary(&self, head: u64, out: &mut [u8]) {
        if let Ok(sixteen) = <&mut [u8; 16]>::try_from(&mut *out) {
            sixteen[..8].copy_from_slice(&head.to_le_bytes());
            sixteen[8..].copy_from_slice(&mix(head ^ self.tail_seed).to_le_bytes());
            return;
        }
        let mut word = head;
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
            word = mix(word ^ self.tail_seed);
        }
    }

    #[inline]
    fn write_printable(&self, head: u64, out: &mut [u8]) {
        let mut word = head;
        for chunk in out.chunks_mut(12) {
            for (pair, at) in chunk.chunks_mut(2).zip(0..) {
                let two = &PAIRS[(word >> (10 * at)) as usize & 1023];
                pair.copy_from_slice(&two[..pair.len()]);
            }
            word = mix(word ^ self.tail_seed);
        }
    }
}

const fn make_pairs() -> [[u8; 2]; 1024] {
    let mut pairs = [[0; 2]; 1024];
    let mut at = 0;
    while at < 1024 {
        pairs[at] = [LETTERS[at & 31], LETTERS[at >> 5]];
        at += 1;
    }
    pairs
}

/// A permutation of the numbers of `bits` bits: every step (odd multiplication, xor of a right
/// shift) can be undone within them.
#[inline]
fn permute(value: u64, bits: u32) -> u64 {
    let mask = u64::MAX >> (64 - bits);
    let shift = bits.div_ceil(2);
    let mut value = value & mask;
    value = (value ^ (value >> shift)).wrapping_mul(0xD6E8_FEB8_6659_FD93) & mask;
    value = (value ^ (value >> shift)).wrapping_mul(0xA5A3_564E_8A5B_3C6D) & mask;
    value ^ (value >> shift)
}

/// Scatters 64 bits.
#[inline]
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 31)).wrapping_mul(0x9E6C_63D0_876A_9A47);
    value ^ (value >> 29)
}

/// Picks the indices of names, as distributed.
#[derive(Clone, Debug)]
pub(crate) enum Picker {
    /// See [`Distribution::Uniform`].
    Uniform {
        /// Indices lie below this.
        count: u64,
    },
    /// See [`Distribution::Zipf`]: walks a sample drawn once, so that a pick costs no powers.
    Zipf {
        /// The sample.
        sample: Vec<u64>,
        /// Where the walk is.
        at: usize,
    },
    /// See [`Distribution::Sequential`].
    Sequential {
        /// Indices lie below this.
        count: u64,
        /// The next one.
        next: u64,
    },
}

/// How many picks a Zipf walk holds before it repeats itself.
const ZIPF_SAMPLE: usize = 1 << 20;

impl Picker {
    /// A picker for one of several threads; `rng` makes theirs differ.
    pub(crate) fn new(spec: &NameSpec, rng: &mut Rng) -> Result<Picker, ConfigError> {
        let count = spec.count;
        if count == 0 {
            return Err(ConfigError::NoNames);
        }
        Ok(match spec.distribution {
            Distribution::Uniform => Picker::Uniform { count },
            Distribution::Sequential => Picker::Sequential { count, next: rng.below(count) },
            Distribution::Zipf(exponent) => {
                let zipf = Zipf::new(count, exponent)?;
                let sample = (0..ZIPF_SAMPLE).map(|_| zipf.sample(rng)).collect();
                Picker::Zipf { sample, at: 0 }
            }
        })
    }

    /// The index of the next name.
    #[inline]
    pub(crate) fn pick(&mut self, rng: &mut Rng) -> u64 {
        match self {
            Picker::Uniform { count } => rng.below(*count),
            Picker::Zipf { sample, at } => {
                *at = (*at + 1) % ZIPF_SAMPLE;
                sample[*at]
            }
            Picker::Sequential { count, next } => {
                let index = *next;
                *next = if index + 1 == *count { 0 } else { index + 1 };
                index
            }
        }
    }
}

/// Zipf numbers in constant time and memory for any count, by rejection-inversion (Hörmann and
/// Derflinger, "Rejection-inversion to generate variates from monotone discrete distributions",
/// 1996): invert the integral of the density, and reject what the rounding distorted.
#[derive(Clone, Debug)]
struct Zipf {
    count: f64,
    exponent: f64,
    integral_low: f64,
    integral_high: f64,
    accept: f64,
}

impl Zipf {
    fn new(count: u64, exponent: f64) -> Result<Zipf, ConfigError> {
        if !(exponent.is_finite() && exponent > 0.0 && exponent <= 10.0) {
            return Err(ConfigError::Zipf(exponent));
        }
        let mut zipf = Zipf {
            count: count as f64,
            exponent,
            integral_low: 0.0,
            integral_high: 0.0,
            accept: 0.0,
        };
        zipf.integral_low = zipf.integral(1.5) - 1.0;
        zipf.integral_high = zipf.integral(zipf.count + 0.5);
        zipf.accept = 2.0 - zipf.invert(zipf.integral(2.5) - zipf.density(2.0));
        Ok(zipf)
    }

    /// A rank, counted from zero.
    fn sample(&self, rng: &mut Rng) -> u64 {
        loop {
            let unit = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            let area = self.integral_high + unit * (self.integral_low - self.integral_high);
            let x = self.invert(area);
            let rank = x.round().clamp(1.0, self.count);
            if rank - x <= self.accept || area >= self.integral(rank + 0.5) - self.density(rank) {
                return rank as u64 - 1;
            }
        }
    }

    fn density(&self, x: f64) -> f64 {
        x.powf(-self.exponent)
    }

    /// The integral of the density from 1 to x; the logarithm where the exponent is one.
    fn integral(&self, x: f64) -> f64 {
        let power = 1.0 - self.exponent;
        if power.abs() < 1e-9 { x.ln() } else { (power * x.ln()).exp_m1() / power }
    }

    fn invert(&self, area: f64) -> f64 {
        let power = 1.0 - self.exponent;
        if power.abs() < 1e-9 { area.exp() } else { ((power * area).ln_1p() / power).exp() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn name(maker: &NameMaker, index: u64) -> Vec<u8> {
        let mut name = vec![0; maker.length()];
        maker.write(index, &mut name);
        name
    }

    fn spec(length: usize, alphabet: Alphabet) -> NameSpec {
        NameSpec { length, alphabet, ..NameSpec::default() }
    }

    /// Results of different days are compared, so names must never change: these bytes are final.
    #[test]
    fn names_are_stable() {
        let maker = NameMaker::new(&spec(16, Alphabet::Printable), 10).expect("valid");
        let text = |index| String::from_utf8(name(&maker, index)).expect("printable");
        assert_eq!([text(0), text(1)], ["a02c8nfgnsj6ksqq", "tqs7vz54mjfcat34"]);
        let maker = NameMaker::new(&spec(16, Alphabet::Binary), 10).expect("valid");
        assert_eq!(name(&maker, 0)[..4], [0x48, 0x28, 0x88, 0x54]);
        let other = NameSpec { seed: 2, ..spec(16, Alphabet::Binary) };
        let other = NameMaker::new(&other, 10).expect("valid");
        assert_ne!(name(&maker, 0), name(&other, 0));
    }

    /// N1, at every length, up to the last name that a short length has.
    #[test]
    fn names_differ() {
        for (length, alphabet, count) in [
            (1, Alphabet::Binary, 256),
            (2, Alphabet::Binary, 65_536),
            (3, Alphabet::Printable, 32_768),
            (16, Alphabet::Binary, 100_000),
            (16, Alphabet::Printable, 100_000),
            (40, Alphabet::Printable, 10_000),
        ] {
            let maker = NameMaker::new(&spec(length, alphabet), count).expect("enough");
            let names: HashSet<_> = (0..count).map(|index| name(&maker, index)).collect();
            assert_eq!(names.len() as u64, count, "{length} bytes, {alphabet:?}");
            let error = NameMaker::new(&spec(length, alphabet), u64::MAX);
            assert_eq!(error.is_err(), length < 8 || alphabet == Alphabet::Printable);
        }
    }

    /// A prefix counts towards the length and leaves enough to tell the names apart.
    #[test]
    fn prefixes_stand_in_front() {
        let prefixed = NameSpec { prefix: "user/".into(), ..spec(16, Alphabet::Printable) };
        let maker = NameMaker::new(&prefixed, 1000).expect("valid");
        assert!(name(&maker, 3).starts_with(b"user/"));
        assert_eq!(name(&maker, 3).len(), 16);
        let full = NameSpec { prefix: "sixteen bytes...".into(), ..prefixed };
        assert!(NameMaker::new(&full, 1).is_err());
    }

    /// N2: the bytes of consecutive names are spread over all values. (1000 names of 16 bytes put
    /// 62.5 bytes on each value; a broken mix would leave holes.)
    #[test]
    fn bytes_are_spread() {
        let maker = NameMaker::new(&spec(16, Alphabet::Binary), 1000).expect("valid");
        for at in 0..16 {
            let mut seen = [0u32; 256];
            (0..4000).for_each(|index| seen[usize::from(name(&maker, index)[at])] += 1);
            let (low, high) = (seen.iter().min(), seen.iter().max());
            assert!(low >= Some(&1) && high <= Some(&45), "byte {at}: {low:?} to {high:?}");
        }
    }

    /// The shares of the first ranks follow the law they are named after.
    #[test]
    fn zipf_follows_its_law() {
        let mut rng = Rng::new(5);
        for exponent in [0.5, 0.99, 1.0, 1.5] {
            let zipf = Zipf::new(1000, exponent).expect("valid");
            let mut seen = vec![0u64; 1000];
            let draws = 200_000;
            (0..draws).for_each(|_| seen[zipf.sample(&mut rng) as usize] += 1);
            let sum: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-exponent)).sum();
            for rank in [1usize, 2, 10, 100] {
                let expected = (rank as f64).powf(-exponent) / sum * draws as f64;
                let error = (seen[rank - 1] as f64 - expected).abs();
                assert!(error < 5.0 * expected.sqrt() + 1.0, "exponent {exponent} rank {rank}");
            }
        }
        assert!(Zipf::new(10, -1.0).is_err() && Zipf::new(10, f64::NAN).is_err());
    }

    /// Uniform reaches everything, sequential misses nothing.
    #[test]
    fn pickers_cover_the_names() {
        let mut rng = Rng::new(9);
        for distribution in [Distribution::Uniform, Distribution::Sequential] {
            let spec = NameSpec { count: 50, distribution, ..NameSpec::default() };
            let mut picker = Picker::new(&spec, &mut rng).expect("valid");
            let picks = if distribution == Distribution::Sequential { 50 } else { 1500 };
            let seen: HashSet<_> = (0..picks).map(|_| picker.pick(&mut rng)).collect();
            assert_eq!(seen.len(), 50, "{distribution:?}");
        }
    }
}
