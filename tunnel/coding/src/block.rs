//! The format of blocks. A block is a kind, its lengths, and its bytes.
//!
//! ```text
//! 0 STORED   text-1 u16                  text
//! 1 LAST     text-1 u16, carried-1 u16   LZ4 block; nothing refers to it
//! 2 LINKED   text-1 u16, carried-1 u16   LZ4 block; the next one may refer to it
//! 3 FORGET
//! ```
//!
//! Only LINKED leaves history behind, so a decoder knows from the header whether a block's text
//! must be kept: a stored block never is, and is delivered where it lies.

use crate::{BLOCK_BYTES_MAX, Malformed};

/// Bytes of the longest header.
pub(crate) const HEAD_BYTES_MAX: usize = 5;
/// Bytes of the header of a stored block.
pub(crate) const STORED_HEAD_BYTES: usize = 3;

const STORED: u8 = 0;
const LAST: u8 = 1;
const LINKED: u8 = 2;
/// Also all of the block.
pub(crate) const FORGET: u8 = 3;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Stored { text: usize },
    Packed(Packed),
    Forget,
}

/// A block of LZ4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    /// 1 to [`BLOCK_BYTES_MAX`].
    pub(crate) text: u32,
    /// Less than `text`.
    pub(crate) carried: u32,
    /// The next block may refer to this one's text.
    pub(crate) linked: bool,
}

impl Head {
    /// How many bytes a header of this kind has.
    pub(crate) fn bytes(kind: u8) -> Result<usize, Malformed> {
        match kind {
            STORED => Ok(STORED_HEAD_BYTES),
            LAST | LINKED => Ok(HEAD_BYTES_MAX),
            FORGET => Ok(1),
            kind => Err(Malformed::Kind(kind)),
        }
    }

    /// Reads a header of which all bytes are there.
    pub(crate) fn read(bytes: &[u8]) -> Result<Head, Malformed> {
        match *bytes {
            [STORED, a, b] => Ok(Head::Stored { text: length([a, b]) as usize }),
            [kind @ (LAST | LINKED), a, b, c, d] => {
                let packed = Packed {
                    text: length([a, b]),
                    carried: length([c, d]),
                    linked: kind == LINKED,
                };
                if packed.carried < packed.text {
                    Ok(Head::Packed(packed))
                } else {
                    Err(Malformed::Larger)
                }
            }
            [FORGET] => Ok(Head::Forget),
            _ => unreachable!("`Head::bytes` said how many"),
        }
    }
}

/// The header of a stored block.
pub(crate) fn stored_head(text: &[u8]) -> [u8; STORED_HEAD_BYTES] {
    let [a, b] = length_bytes(text.len());
    [STORED, a, b]
}

/// The header of a block of LZ4.
pub(crate) fn packed_head(packed: Packed) -> [u8; HEAD_BYTES_MAX] {
    let kind = if packed.linked { LINKED } else { LAST };
    let [a, b] = length_bytes(packed.text as usize);
    let [c, d] = length_bytes(packed.carried as usize);
    [kind, a, b, c, d]
}

fn length(bytes: [u8; 2]) -> u32 {
    u32::from(u16::from_le_bytes(bytes)) + 1
}

fn length_bytes(length: usize) -> [u8; 2] {
    assert!((1..=BLOCK_BYTES_MAX).contains(&length), "a block of {length} bytes");
    u16::try_from(length - 1).expect("just checked").to_le_bytes()
}
