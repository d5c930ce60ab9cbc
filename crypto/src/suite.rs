//! Which ciphers there are, and sets of them as they are offered.

use core::fmt;

/// A cipher for what a session says. The number is the one on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Suite {
    /// AES-128 in Galois counter mode (NIST SP 800-38D): the fastest where there is AES hardware.
    Aes128Gcm = 1,
    /// AES-256 in Galois counter mode.
    Aes256Gcm = 2,
    /// ChaCha20-Poly1305 (RFC 8439): the fastest where there is no AES hardware.
    ChaCha20Poly1305 = 3,
}

impl Suite {
    /// All of them.
    pub const ALL: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

    /// Bytes of its key.
    pub const fn key_bytes(self) -> usize {
        match self {
            Suite::Aes128Gcm => 16,
            Suite::Aes256Gcm | Suite::ChaCha20Poly1305 => 32,
        }
    }

    /// The suite of a number on the wire.
    pub fn from_wire(number: u8) -> Option<Suite> {
        Suite::ALL.into_iter().find(|suite| *suite as u8 == number)
    }

    /// Its name in configuration and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Suite::Aes128Gcm => "aes-128-gcm",
            Suite::Aes256Gcm => "aes-256-gcm",
            Suite::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }

    /// The suite of a name in configuration.
    pub fn from_name(name: &str) -> Option<Suite> {
        Suite::ALL.into_iter().find(|suite| suite.name() == name)
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of suites: what one side offers or allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuiteSet(u8);

impl SuiteSet {
    /// Every suite.
    pub const ALL: SuiteSet = SuiteSet::of(&Suite::ALL);

    /// A set of these.
    pub const fn of(suites: &[Suite]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < suites.len() {
            bits |= 1 << (suites[at] as u8);
            at += 1;
        }
        Self(bits)
    }

    /// Whether `suite` is one of them.
    pub const fn contains(self, suite: Suite) -> bool {
        self.0 & (1 << (suite as u8)) != 0
    }

    /// The byte on the wire: bit n is the suite of number n. Bits of unknown suites are kept, so
    /// that a newer peer's offer is bound into the handshake as it was made.
    pub const fn to_wire(self) -> u8 {
        self.0
    }

    /// The set of a byte on the wire.
    pub const fn from_wire(bits: u8) -> Self {
        Self(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_go_both_ways() {
        for suite in Suite::ALL {
            assert_eq!(Suite::from_wire(suite as u8), Some(suite));
            assert_eq!(Suite::from_name(suite.name()), Some(suite));
            assert!(SuiteSet::ALL.contains(suite));
            assert!(!SuiteSet::of(&[]).contains(suite));
        }
        assert_eq!((Suite::from_wire(0), Suite::from_wire(4)), (None, None));
        assert_eq!(SuiteSet::ALL.to_wire(), 0b1110);
    }
}
