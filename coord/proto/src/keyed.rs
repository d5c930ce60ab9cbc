//! Hashing of numbers that clients choose, under a secret of the process.

use core::hash::{BuildHasher, Hasher};

/// Makes [`KeyedHasher`]s of one key. Two multiplications a number: a client that does not know
/// the key cannot aim at a bucket, and one that is known to us needs no more.
#[derive(Clone, Debug)]
pub struct KeyedState {
    key: [u64; 2],
}

impl KeyedState {
    /// A state under a key that stays in the process.
    pub const fn new(key: [u64; 2]) -> Self {
        Self { key: [key[0] | 1, key[1]] }
    }
}

impl BuildHasher for KeyedState {
    type Hasher = KeyedHasher;
    #[inline]
    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { key: self.key, hash: self.key[1] }
    }
}

/// Folds 128-bit products.
pub struct KeyedHasher {
    key: [u64; 2],
    hash: u64,
}

impl Hasher for KeyedHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        let mixed = fold(value ^ self.hash, self.key[0]);
        self.hash = fold(mixed ^ self.key[1], 0x9E37_79B9_7F4A_7C15);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.hash
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}
