//! The kernel's randomness.

use std::io;

use ringway_crypto::{Entropy, Secret};
use rustix::rand::{GetRandomFlags, getrandom};
use thiserror::Error;

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
        None => Ok(Entropy::from_seed(seed)),
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
    }
}
