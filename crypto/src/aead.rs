//! Sealing and opening with one key, whatever library does the work.
//!
//! aws-lc and ring take turns in being the fastest, by suite and processor, so both are here
//! behind one trait and `calibrate` picks. RustCrypto's is slower everywhere; it runs where the
//! others do not and is the oracle of the tests.
//!
//! Invariant: `seal` and `open` work in place and never change the length; what does not verify
//! leaves the buffer with bytes that mean nothing, and the caller drops them.

use core::fmt;

use aes_gcm::{AeadInOut, Aes128Gcm, Aes256Gcm, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;

use crate::suite::Suite;

/// Bytes of a tag, for every suite.
pub const TAG_BYTES: usize = 16;
/// What proves that a text is the one that was sealed.
pub type Tag = [u8; TAG_BYTES];
/// The number used once.
pub type Nonce = [u8; 12];

/// The text, its nonce or what it is bound to is not what was sealed. It carries no detail, so
/// that no caller can leak any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

impl fmt::Display for Forged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it does not verify")
    }
}

impl core::error::Error for Forged {}

/// One key of one suite: authenticated encryption with associated data (RFC 5116).
pub trait Aead: Send {
    /// Encrypts `text` in place and returns its tag, which also covers `bound`.
    fn seal(&self, nonce: Nonce, bound: &[u8], text: &mut [u8]) -> Tag;

    /// Decrypts `text`, whose last [`TAG_BYTES`] are its tag, in place. What lies before the tag is
    /// the plaintext then.
    ///
    /// # Errors
    /// [`Forged`], also for a text shorter than a tag; the bytes mean nothing then.
    fn open(&self, nonce: Nonce, bound: &[u8], text: &mut [u8]) -> Result<(), Forged>;
}

/// A library that implements all suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// aws-lc: C and assembly, with AVX-512 where there is.
    AwsLc,
    /// ring: C and assembly.
    Ring,
    /// RustCrypto: Rust, on every processor.
    Portable,
}

impl Backend {
    /// All of them.
    pub const ALL: [Backend; 3] = [Backend::AwsLc, Backend::Ring, Backend::Portable];

    /// Its name in configuration and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Backend::AwsLc => "aws-lc",
            Backend::Ring => "ring",
            Backend::Portable => "rustcrypto",
        }
    }

    /// The first bytes of `key` as a key of `suite`, by this library.
    pub fn key(self, suite: Suite, key: &[u8; 32]) -> Box<dyn Aead> {
        let bytes = &key[..suite.key_bytes()];
        match self {
            Backend::AwsLc => Box::new(AwsLcKey::new(suite, bytes)),
            Backend::Ring => Box::new(RingKey::new(suite, bytes)),
            Backend::Portable => match suite {
                Suite::Aes128Gcm => Box::new(Portable(exactly::<Aes128Gcm>(bytes))),
                Suite::Aes256Gcm => Box::new(Portable(exactly::<Aes256Gcm>(bytes))),
                Suite::ChaCha20Poly1305 => Box::new(Portable(exactly::<ChaCha20Poly1305>(bytes))),
            },
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The two libraries have one ancestor and one interface, so one text serves for both.
macro_rules! key_of {
    ($key:ident, $library:ident) => {
        struct $key($library::aead::LessSafeKey);

        impl $key {
            fn new(suite: Suite, bytes: &[u8]) -> Self {
                let algorithm = match suite {
                    Suite::Aes128Gcm => &$library::aead::AES_128_GCM,
                    Suite::Aes256Gcm => &$library::aead::AES_256_GCM,
                    Suite::ChaCha20Poly1305 => &$library::aead::CHACHA20_POLY1305,
                };
                let key = $library::aead::UnboundKey::new(algorithm, bytes);
                Self($library::aead::LessSafeKey::new(key.expect("cut to the suite's key length")))
            }
        }

        impl Aead for $key {
            fn seal(&self, nonce: Nonce, bound: &[u8], text: &mut [u8]) -> Tag {
                let nonce = $library::aead::Nonce::assume_unique_for_key(nonce);
                let bound = $library::aead::Aad::from(bound);
                let tag = self.0.seal_in_place_separate_tag(nonce, bound, text);
                let tag = tag.expect("texts are shorter than any suite's limit");
                tag.as_ref().try_into().expect("every suite's tag has 16 bytes")
            }

            fn open(&self, nonce: Nonce, bound: &[u8], text: &mut [u8]) -> Result<(), Forged> {
                let nonce = $library::aead::Nonce::assume_unique_for_key(nonce);
                let bound = $library::aead::Aad::from(bound);
                self.0.open_in_place(nonce, bound, text).map(drop).map_err(|_| Forged)
            }
        }
    };
}

key_of!(AwsLcKey, aws_lc_rs);
key_of!(RingKey, ring);

struct Portable<K>(K);

fn exactly<K: KeyInit>(bytes: &[u8]) -> K {
    K::new_from_slice(bytes).expect("cut to the suite's key length")
}

impl<K: AeadInOut + Send> Aead for Portable<K> {
    fn seal(&self, nonce: Nonce, bound: &[u8], text: &mut [u8]) -> Tag {
        let nonce = nonce.as_slice().try_into().expect("every suite's nonce has 12 bytes");
        let tag = self.0.encrypt_inout_detached(nonce, bound, text.into());
        let tag = tag.expect("texts are shorter than any suite's limit");
        tag.as_slice().try_into().expect("every suite's tag has 16 bytes")
    }

    fn open(&self, nonce: Nonce, bound: &[u8], text: &mut [u8]) -> Result<(), Forged> {
        let text_len = text.len().checked_sub(TAG_BYTES).ok_or(Forged)?;
        let (text, tag) = text.split_at_mut(text_len);
        let nonce = nonce.as_slice().try_into().expect("every suite's nonce has 12 bytes");
        let tag = (&*tag).try_into().expect("split off with its length");
        self.0.decrypt_inout_detached(nonce, bound, text.into(), tag).map_err(|_| Forged)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealed(backend: Backend, suite: Suite, bound: &[u8], text: &[u8]) -> Vec<u8> {
        let key = backend.key(suite, &[7; 32]);
        let mut out = text.to_vec();
        let tag = key.seal([9; 12], bound, &mut out);
        out.extend_from_slice(&tag);
        out
    }

    proptest! {
        /// The libraries agree on every byte, and each opens what another sealed.
        #[test]
        fn libraries_agree(text in proptest::collection::vec(any::<u8>(), 0..700), bound in
            proptest::collection::vec(any::<u8>(), 0..40)) {
            for suite in Suite::ALL {
                let oracle = sealed(Backend::Portable, suite, &bound, &text);
                for backend in Backend::ALL {
                    prop_assert_eq!(&sealed(backend, suite, &bound, &text), &oracle);
                    let mut opened = oracle.clone();
                    let key = backend.key(suite, &[7; 32]);
                    prop_assert_eq!(key.open([9; 12], &bound, &mut opened), Ok(()));
                    prop_assert_eq!(&opened[..text.len()], &text[..]);
                }
            }
        }

        /// One changed bit anywhere, in text, tag or what is bound, is noticed by every library.
        #[test]
        fn a_flipped_bit_is_noticed(at in 0usize..(64 + 16 + 8), bit in 0u8..8) {
            for suite in Suite::ALL {
                for backend in Backend::ALL {
                    let mut bound = [3; 8];
                    let mut text = sealed(backend, suite, &bound, &[5; 64]);
                    match at.checked_sub(text.len()) {
                        None => text[at] ^= 1 << bit,
                        Some(at) => bound[at] ^= 1 << bit,
                    }
                    let key = backend.key(suite, &[7; 32]);
                    prop_assert_eq!(key.open([9; 12], &bound, &mut text), Err(Forged));
                }
            }
        }
    }

    #[test]
    fn what_is_shorter_than_a_tag_is_forged() {
        for suite in Suite::ALL {
            for backend in Backend::ALL {
                let key = backend.key(suite, &[7; 32]);
                assert_eq!(key.open([9; 12], &[], &mut [0; 15]), Err(Forged));
                assert_eq!(key.open([9; 12], &[], &mut []), Err(Forged));
            }
        }
    }
}
