//! Placement: which of the 16384 slots a name belongs to.
//!
//! The rule is the one every Redis cluster client computes, so that such a client finds the owner
//! of a name without asking: CRC16-XMODEM of the name, or of what stands between the first `{` and
//! the next `}` if that is not empty, modulo 16384. (Redis cluster specification, "Hash tags".)

/// How many slots there are. Fixed for ever: clients know it.
pub const SLOTS: usize = 16_384;

/// One of the [`SLOTS`] slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// The slot of a name. Linear in the name's length; 8 bytes at a time.
    #[inline]
    pub fn of(name: &[u8]) -> Slot {
        Slot(crc16(hashed_part(name)) & (SLOTS as u16 - 1))
    }

    /// A slot from the low 14 bits of `bits`.
    #[inline]
    pub const fn from_bits(bits: u16) -> Slot {
        Slot(bits & (SLOTS as u16 - 1))
    }

    /// The slot's number, below [`SLOTS`].
    #[inline]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The slot as an index, below [`SLOTS`].
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The part of a name that decides its slot: the first non-empty `{tag}`, else all of it.
#[inline]
fn hashed_part(name: &[u8]) -> &[u8] {
    if !has_brace(name) {
        return name;
    }
    let Some(open) = name.iter().position(|byte| *byte == b'{') else { return name };
    let rest = &name[open + 1..];
    match rest.iter().position(|byte| *byte == b'}') {
        Some(0) | None => name,
        Some(close) => &rest[..close],
    }
}

/// Whether a name has an opening brace; few have. Looks at 8 bytes at a time, the last ones perhaps
/// twice: a byte of `word ^ BRACES` is zero, and so borrows into its top bit, where the brace is.
#[inline]
fn has_brace(name: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const BRACES: u64 = ONES * b'{' as u64;
    let in_word = |bytes: &[u8; 8]| {
        let word = u64::from_le_bytes(*bytes) ^ BRACES;
        word.wrapping_sub(ONES) & !word & (ONES << 7) != 0
    };
    match name.last_chunk::<8>() {
        Some(last) => in_word(last) || name.as_chunks::<8>().0.iter().any(in_word),
        None => name.contains(&b'{'),
    }
}

/// CRC16-XMODEM (polynomial 0x1021, initial value 0, not reflected), sliced by eight.
#[inline]
pub fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0u16;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        crc = TABLES[7][usize::from(chunk[0] ^ (crc >> 8) as u8)]
            ^ TABLES[6][usize::from(chunk[1] ^ crc as u8)]
            ^ TABLES[5][usize::from(chunk[2])]
            ^ TABLES[4][usize::from(chunk[3])]
            ^ TABLES[3][usize::from(chunk[4])]
            ^ TABLES[2][usize::from(chunk[5])]
            ^ TABLES[1][usize::from(chunk[6])]
            ^ TABLES[0][usize::from(chunk[7])];
    }
    for byte in chunks.remainder() {
        crc = (crc << 8) ^ TABLES[0][usize::from((crc >> 8) as u8 ^ byte)];
    }
    crc
}

/// `TABLES[k][b]`: the CRC of byte `b` followed by `k` zero bytes.
static TABLES: [[u16; 256]; 8] = make_tables();

const fn make_tables() -> [[u16; 256]; 8] {
    let mut tables = [[0u16; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[zeros - 1][byte];
            tables[zeros][byte] = (before << 8) ^ tables[0][(before >> 8) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    /// The check value of the catalogue of CRCs, and the slots `CLUSTER KEYSLOT` of Redis prints.
    #[test]
    fn agrees_with_redis() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(Slot::of(b"foo").number(), 12_182);
        assert_eq!(Slot::of(b"somekey").number(), 11_058);
        assert_eq!(Slot::of(b"foo{hash_tag}").number(), 2_515);
    }

    /// Only a closed, non-empty first tag counts; anything else hashes whole.
    #[test]
    fn tags_follow_the_cluster_specification() {
        assert_eq!(Slot::of(b"{user1000}.following"), Slot::of(b"{user1000}.followers"));
        assert_eq!(Slot::of(b"foo{}{bar}").number(), crc16(b"foo{}{bar}") % 16_384);
        assert_eq!(Slot::of(b"foo{{bar}}zap"), Slot::of(b"{bar"));
        assert_eq!(Slot::of(b"foo{bar").number(), crc16(b"foo{bar") % 16_384);
    }

    /// A tag is found wherever its brace stands, in names of any length.
    #[test]
    fn tags_are_found_anywhere() {
        for before in 0..40 {
            for behind in 0..20 {
                let name = [&vec![b'z'; before][..], b"{tag}", &vec![0xFB; behind]].concat();
                assert_eq!(Slot::of(&name), Slot::of(b"tag"), "{before} before, {behind} behind");
            }
            let plain = vec![b'z'; before];
            assert_eq!(Slot::of(&plain).number(), crc16(&plain) % 16_384);
        }
    }

    /// Slicing by eight must equal the byte-wise definition at every length.
    #[test]
    fn sliced_equals_bytewise() {
        let bytes: [u8; 64] = core::array::from_fn(|i| (i * 37 + 11) as u8);
        for len in 0..bytes.len() {
            let plain = bytes[..len].iter().fold(0u16, |crc, byte| {
                (crc << 8) ^ TABLES[0][usize::from((crc >> 8) as u8 ^ byte)]
            });
            assert_eq!(crc16(&bytes[..len]), plain, "length {len}");
        }
    }
}
