//! Random bytes that are fully determined by a seed: the shell's from the kernel, a test's from
//! its own.
//!
//! Each draw also draws the key of the next one, so that whoever reads this memory later cannot
//! compute what was drawn before (Bernstein, "Fast-key-erasure random-number generators", 2017).

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use hkdf::Hkdf;
use sha2::Sha256;

use crate::schedule::expand;
use crate::secret::Secret;

/// A generator of secret bytes. One owner, never cloned: a copy would draw the same keys. Where the
/// whole machine is copied, [`Entropy::stir`] makes two of them.
pub struct Entropy {
    key: Secret,
}

impl Entropy {
    /// A generator that starts from `seed`, which must come from the kernel unless this is a test.
    pub const fn from_seed(seed: Secret) -> Self {
        Self { key: seed }
    }

    /// Makes what is drawn from now on depend on `fresh`, too, and not only on what was before: who
    /// has a copy of this generator and does not know `fresh` cannot foretell it. Nothing is lost
    /// if somebody chose `fresh`.
    pub fn stir(&mut self, fresh: &[u8]) {
        let hkdf = Hkdf::<Sha256>::new(Some(self.key.expose()), fresh);
        self.key = expand(&hkdf, "stirred", &[]);
    }

    /// Fills `out` with bytes nobody can foretell who does not know the seed.
    pub fn fill(&mut self, out: &mut [u8]) {
        let mut stream = ChaCha20::new(self.key.expose().into(), &[0; 12].into());
        self.key = Secret::filled(|key| stream.apply_keystream(key));
        out.fill(0);
        stream.apply_keystream(out);
    }

    /// `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A secret.
    pub fn secret(&mut self) -> Secret {
        Secret::filled(|bytes| self.fill(bytes))
    }

    /// A number below `bound`, which is not zero; the bias is below `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(u64::from_le_bytes(self.array())) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same seed gives the same bytes whatever they are asked for, and no draw repeats.
    #[test]
    fn a_seed_determines_all_and_nothing_repeats() {
        let draw = |seed: u8| {
            let mut entropy = Entropy::from_seed(Secret::new([seed; 32]));
            (entropy.array::<16>(), entropy.array::<16>(), entropy.below(1000))
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1).0, draw(2).0);
        assert_ne!(draw(1).0, draw(1).1);
        assert!(draw(1).2 < 1000);
    }

    /// Copies of a generator go apart by what each is stirred with, and neither draws what it would
    /// have drawn; the state of before counts as well.
    #[test]
    fn copies_that_are_stirred_go_apart() {
        let draw = |seed: u8, fresh: Option<&[u8]>| {
            let mut entropy = Entropy::from_seed(Secret::new([seed; 32]));
            fresh.into_iter().for_each(|fresh| entropy.stir(fresh));
            entropy.array::<32>()
        };
        let all = [draw(1, None), draw(1, Some(b"a")), draw(1, Some(b"b")), draw(2, Some(b"a"))];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one));
        }
        assert_eq!(draw(1, Some(b"a")), draw(1, Some(b"a")));
    }
}
