//! 32 bytes that nobody else may know.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A secret of 32 bytes. It is zeroed when dropped, compared in constant time, and cannot be
/// printed: it has no `Debug`, and neither has what contains it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; Secret::BYTES]);

impl Secret {
    /// Bytes of every secret.
    pub const BYTES: usize = 32;

    /// Takes the bytes over; the caller's copy is the caller's to zero.
    pub const fn new(bytes: [u8; Secret::BYTES]) -> Self {
        Self(bytes)
    }

    /// A secret of which `fill` writes the bytes in place, so that no copy of them stays behind.
    pub fn filled(fill: impl FnOnce(&mut [u8; Secret::BYTES])) -> Self {
        let mut secret = Self([0; Secret::BYTES]);
        fill(&mut secret.0);
        secret
    }

    /// The bytes, for a primitive that needs them.
    pub const fn expose(&self) -> &[u8; Secret::BYTES] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    /// C4: what the Rust libraries expand from a key is cleared, too. Each has a feature for that;
    /// where one is off, this does not compile.
    #[test]
    fn what_is_expanded_from_a_key_is_cleared() {
        fn is_cleared<T: ZeroizeOnDrop>() {}
        is_cleared::<Secret>();
        is_cleared::<aes::Aes128>();
        is_cleared::<aes_gcm::Aes128Gcm>();
        is_cleared::<aes_gcm::Aes256Gcm>();
        is_cleared::<chacha20::ChaChaCore<chacha20::R20, chacha20::variants::Ietf>>();
        is_cleared::<chacha20poly1305::ChaCha20Poly1305>();
        is_cleared::<sha2::Sha256>();
        is_cleared::<hmac::digest::CtOutput<hmac::Hmac<sha2::Sha256>>>();
    }
}
