//! A name as the table compares and hashes it: two padded words and a length if it is short.
//!
//! Names are 1 to 255 bytes of anything. One of up to 16 bytes is known by its two words alone,
//! so that comparing and hashing it takes no loop and no branch on its length.

use ringway_core::limits::{NAME_BYTES_INLINE, NAME_BYTES_MAX};

/// A name of 1 to 255 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    /// The first 16 bytes, zero padded, little-endian.
    words: [u64; 2],
    /// All bytes of a long name; empty for a short one.
    long: &'a [u8],
    len: u8,
}

impl<'a> Name<'a> {
    /// The name that these bytes are; `None` if there are none, or more than 255.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Option<Name<'a>> {
        let len = u8::try_from(bytes.len()).ok().filter(|len| *len != 0)?;
        if bytes.len() <= NAME_BYTES_INLINE {
            return Some(Name { words: load_short(bytes), long: &[], len });
        }
        Some(Name { words: load_short(&bytes[..NAME_BYTES_INLINE]), long: bytes, len })
    }

    /// A short name from its padded words; `None` unless `len` is 1 to 16. What stands behind
    /// the length is cleared: a name has one form only.
    #[inline]
    pub fn from_inline(words: [u64; 2], len: usize) -> Option<Name<'static>> {
        if len == 0 || len > NAME_BYTES_INLINE {
            return None;
        }
        let mask = u128::MAX >> (8 * (NAME_BYTES_INLINE - len));
        let words = [words[0] & mask as u64, words[1] & (mask >> 64) as u64];
        Some(Name { words, long: &[], len: len as u8 })
    }

    /// How many bytes the name has, 1 to 255.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a name is never empty")]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether the name fits into a record.
    #[inline]
    pub fn is_short(&self) -> bool {
        self.len() <= NAME_BYTES_INLINE
    }

    /// The first 16 bytes as two little-endian words, zero padded.
    #[inline]
    pub fn words(&self) -> [u64; 2] {
        self.words
    }

    /// Writes the name to the front of `out`; returns its length.
    pub fn copy_to(&self, out: &mut [u8; NAME_BYTES_MAX]) -> usize {
        let len = self.len();
        if self.is_short() {
            out[..NAME_BYTES_INLINE].copy_from_slice(&short_bytes(self.words));
        } else {
            out[..len].copy_from_slice(self.long);
        }
        len
    }

    /// All bytes of a long name; nothing for a short one.
    #[inline]
    pub(crate) fn long_bytes(&self) -> &'a [u8] {
        self.long
    }
}

/// The bytes of two padded words.
#[inline]
pub(crate) fn short_bytes(words: [u64; 2]) -> [u8; NAME_BYTES_INLINE] {
    (u128::from(words[0]) | u128::from(words[1]) << 64).to_le_bytes()
}

/// Loads up to 16 bytes into two padded words with loads that overlap instead of a loop.
#[inline]
fn load_short(bytes: &[u8]) -> [u64; 2] {
    let len = bytes.len();
    debug_assert!(len != 0 && len <= NAME_BYTES_INLINE);
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        // Of the last eight bytes, those that the first word has already are shifted out.
        let high = u64::from_le_bytes(*last).checked_shr(8 * (NAME_BYTES_INLINE - len) as u32);
        return [u64::from_le_bytes(*first), high.unwrap_or(0)];
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let low = u64::from(u32::from_le_bytes(*first));
        return [low | u64::from(u32::from_le_bytes(*last)) << (8 * (len - 4)), 0];
    }
    let byte = |at: usize| u64::from(bytes[at]) << (8 * at);
    [byte(0) | byte(len / 2) | byte(len - 1), 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every length gives the same words as plain padding; the loads that overlap must agree.
    #[test]
    fn words_are_the_padded_bytes() {
        let bytes: [u8; 255] = core::array::from_fn(|i| (i as u8).wrapping_mul(37) | 0x81);
        for len in 1..=255 {
            let name = Name::new(&bytes[..len]).expect("1 to 255 bytes");
            let mut padded = [0u8; 16];
            padded[..len.min(16)].copy_from_slice(&bytes[..len.min(16)]);
            assert_eq!(short_bytes(name.words()), padded, "length {len}");
            let mut out = [0xEE; 255];
            let copied = name.copy_to(&mut out);
            assert_eq!(&out[..copied], &bytes[..len]);
        }
        assert!(Name::new(&[]).is_none());
        assert!(Name::new(&[1; 256]).is_none());
    }

    /// Rubbish behind the length must not make a second form of the same name.
    #[test]
    fn inline_names_have_one_form() {
        for len in 1..=16 {
            let name = Name::from_inline([u64::MAX; 2], len).expect("1 to 16");
            assert_eq!(name.words(), Name::new(&[0xFF; 16][..len]).expect("short").words());
        }
        assert!(Name::from_inline([1, 1], 0).is_none());
        assert!(Name::from_inline([1, 1], 17).is_none());
    }
}
