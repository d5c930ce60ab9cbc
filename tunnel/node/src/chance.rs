//! The kernel's randomness.

use std::io;

use ringway_crypto::{Entropy, Secret};
use rustix::rand::{GetRandomFlags, getrandom};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::clocks::Reading;

/// The kernel gives no random bytes, so no key can be made.
#[derive(Debug, Error)]
#[error("the kernel gives no random bytes ({source}); a sandbox may forbid getrandom(2)")]
pub struct NoChance {
    source: io::Error,
}

/// A generator whose seed is the kernel's. Waits at boot until the kernel has gathered enough.
///
/// # Errors
/// [`NoChance`].
pub fn entropy() -> Result<Entropy, NoChance> {
    seed().map(Entropy::from_seed)
}

/// The kernel's chance, and what else a copy of this machine does not have: kernels whose
/// hypervisor did not tell them that they were copied give the same chance for a while.
pub(crate) fn unlike_a_copy() -> Zeroizing<[u8; 64]> {
    let mut fresh = Zeroizing::new([0; 64]);
    match seed() {
        Ok(seed) => fresh[..32].copy_from_slice(seed.expose()),
        Err(error) => tracing::error!("{error}; the clock alone tells us from a copy"),
    }
    fresh[32..].copy_from_slice(&Reading::now().to_bytes());
    fresh
}

fn seed() -> Result<Secret, NoChance> {
    let mut failed = None;
    let seed = Secret::filled(|seed| {
        let mut at = 0;
        // Up to 256 bytes come whole unless a signal comes first.
        while at < seed.len() && failed.is_none() {
            match getrandom(&mut seed[at..], GetRandomFlags::empty()) {
                Ok(got) => at += got,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => failed = Some(io::Error::from(errno)),
            }
        }
    });
    match failed {
        None => Ok(seed),
        Some(source) => Err(NoChance { source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_seeds_are_the_same() {
        let draw = || entropy().expect("the kernel has some").array::<32>();
        assert_ne!(draw(), draw());
        assert_ne!(unlike_a_copy()[..32], unlike_a_copy()[..32]);
        assert_ne!(unlike_a_copy()[32..], unlike_a_copy()[32..]);
    }
}
