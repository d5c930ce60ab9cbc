//! SipHash-1-3 of names, under a secret of the process: clients choose names, and must not be
//! able to choose which ones meet in a bucket.
//!
//! A short name is hashed as its 16 padded bytes followed by its length, that is 17 bytes or three
//! blocks, whatever its length: no branch depends on it. A long name is hashed as it is. A name of
//! 17 bytes can thus share its hash with one short name by design; full names are compared anyway.
//!
//! Not here: reading the name (`name.rs`).
//! Tests: below, against the `siphasher` crate, which is tested against the published vectors.

use crate::name::Name;

/// The secret under which names are hashed: 128 bits from the operating system's randomness.
/// It has no `Debug`, and must never leave the process.
#[derive(Clone, Copy)]
pub struct HashKey(pub [u64; 2]);

/// The hash of a name.
#[inline]
pub fn hash(key: HashKey, name: &Name<'_>) -> u64 {
    if name.is_short() {
        short(key, name.words(), name.len())
    } else {
        long(key, name.long_bytes())
    }
}

/// The hashes of four names at once. Measured no faster than four calls of [`hash`] where the
/// compiler does not vectorise it; kept for the machines where it does.
#[inline]
pub fn hash4(key: HashKey, names: [&Name<'_>; 4]) -> [u64; 4] {
    if names.iter().all(|name| name.is_short()) {
        short4(key, names.map(|name| name.words()), names.map(|name| name.len()))
    } else {
        names.map(|name| hash(key, name))
    }
}

/// Of a short name, given by its padded words.
#[inline]
pub(crate) fn short(key: HashKey, words: [u64; 2], len: usize) -> u64 {
    let mut state = Lanes::<1>::new(key);
    state.block([words[0]]);
    state.block([words[1]]);
    state.block([last_block_of_short(len)]);
    state.finish()[0]
}

/// Of four short names.
#[inline]
pub(crate) fn short4(key: HashKey, words: [[u64; 2]; 4], len: [usize; 4]) -> [u64; 4] {
    let mut state = Lanes::<4>::new(key);
    state.block(words.map(|words| words[0]));
    state.block(words.map(|words| words[1]));
    state.block(len.map(last_block_of_short));
    state.finish()
}

/// Of a long name.
#[inline(never)]
pub(crate) fn long(key: HashKey, bytes: &[u8]) -> u64 {
    let mut state = Lanes::<1>::new(key);
    let (blocks, rest) = bytes.as_chunks::<8>();
    for block in blocks {
        state.block([u64::from_le_bytes(*block)]);
    }
    let mut last = [0u8; 8];
    last[..rest.len()].copy_from_slice(rest);
    state.block([u64::from_le_bytes(last) | (bytes.len() as u64) << 56]);
    state.finish()[0]
}

/// The seventeenth byte, which is the name's length, and the length of the message: 17.
#[inline]
fn last_block_of_short(len: usize) -> u64 {
    17 << 56 | len as u64
}

/// The states of `N` hashes that are computed side by side.
struct Lanes<const N: usize> {
    v0: [u64; N],
    v1: [u64; N],
    v2: [u64; N],
    v3: [u64; N],
}

impl<const N: usize> Lanes<N> {
    #[inline(always)]
    fn new(key: HashKey) -> Self {
        let [k0, k1] = key.0;
        Self {
            v0: [k0 ^ 0x736f_6d65_7073_6575; N],
            v1: [k1 ^ 0x646f_7261_6e64_6f6d; N],
            v2: [k0 ^ 0x6c79_6765_6e65_7261; N],
            v3: [k1 ^ 0x7465_6462_7974_6573; N],
        }
    }

    #[inline(always)]
    fn block(&mut self, block: [u64; N]) {
        self.v3 = xor(self.v3, block);
        self.round();
        self.v0 = xor(self.v0, block);
    }

    /// One operation on all lanes at a time, which the compiler turns into vectors where it pays.
    #[inline(always)]
    fn round(&mut self) {
        self.v0 = add(self.v0, self.v1);
        self.v2 = add(self.v2, self.v3);
        self.v1 = xor(rotate::<13, N>(self.v1), self.v0);
        self.v3 = xor(rotate::<16, N>(self.v3), self.v2);
        self.v0 = add(rotate::<32, N>(self.v0), self.v3);
        self.v2 = add(self.v2, self.v1);
        self.v1 = xor(rotate::<17, N>(self.v1), self.v2);
        self.v3 = xor(rotate::<21, N>(self.v3), self.v0);
        self.v2 = rotate::<32, N>(self.v2);
    }

    #[inline(always)]
    fn finish(mut self) -> [u64; N] {
        self.v2 = xor(self.v2, [0xFF; N]);
        self.round();
        self.round();
        self.round();
        xor(xor(self.v0, self.v1), xor(self.v2, self.v3))
    }
}

#[inline(always)]
fn add<const N: usize>(a: [u64; N], b: [u64; N]) -> [u64; N] {
    core::array::from_fn(|lane| a[lane].wrapping_add(b[lane]))
}

#[inline(always)]
fn xor<const N: usize>(a: [u64; N], b: [u64; N]) -> [u64; N] {
    core::array::from_fn(|lane| a[lane] ^ b[lane])
}

#[inline(always)]
fn rotate<const BITS: u32, const N: usize>(a: [u64; N]) -> [u64; N] {
    core::array::from_fn(|lane| a[lane].rotate_left(BITS))
}

#[cfg(test)]
mod tests {
    use core::hash::Hasher;

    use siphasher::sip::SipHasher13;

    use super::*;
    use crate::name::short_bytes;

    const KEY: HashKey = HashKey([0x0706_0504_0302_0100, 0x0F0E_0D0C_0B0A_0908]);

    fn reference(message: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(KEY.0[0], KEY.0[1]);
        hasher.write(message);
        hasher.finish()
    }

    /// The first vectors of SipHash-1-3 under the key 00 01 .. 0f, as OpenSSL and others list
    /// them: the messages are empty, 00, 00 01, and so on.
    #[test]
    fn published_vectors() {
        let expected: [u64; 3] =
            [0xabac_0158_050f_c4dc, 0xc9f4_9bf3_7d57_ca93, 0x82cb_9b02_4dc7_d44d];
        for (len, expected) in expected.into_iter().enumerate() {
            assert_eq!(long(KEY, &[0, 1, 2][..len]), expected, "message of {len} bytes");
        }
    }

    /// Every length, alone and four at a time, is SipHash-1-3 of what the header says.
    #[test]
    fn agrees_with_siphasher() {
        let bytes: [u8; 255] = core::array::from_fn(|i| (i as u8).wrapping_mul(73) ^ 0x5A);
        for len in 1..=255 {
            let name = Name::new(&bytes[..len]).expect("1 to 255 bytes");
            let expected = if len <= 16 {
                let mut message = [0u8; 17];
                message[..16].copy_from_slice(&short_bytes(name.words()));
                message[16] = len as u8;
                reference(&message)
            } else {
                reference(&bytes[..len])
            };
            assert_eq!(hash(KEY, &name), expected, "length {len}");
            let other = Name::new(b"another").expect("short");
            let four = hash4(KEY, [&other, &name, &other, &name]);
            assert_eq!([four[1], four[3]], [expected; 2], "length {len}");
            assert_eq!([four[0], four[2]], [hash(KEY, &other); 2]);
        }
    }
}
