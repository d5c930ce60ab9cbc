//! Whether a block is worth a try, from a look at it that costs much less than the try.
//!
//! Three findings keep a flow from being compressed. After each the coder does not look for some
//! text, and for twice as much each time that it finds it again, up to a limit:
//! - The flow speaks TLS or SSH. What follows is encrypted; it is looked at again after megabytes.
//! - The block begins like a compressed file, or its bytes are spread like chance. The look is
//!   cheap and such a file may hold text as well, so every second block is looked at.
//! - LZ4 found next to nothing, which took it longer than the look.
//!
//! Bounds: a look reads 64 places of a block, in 0.4 to 1 us. Where nothing can be saved, looks
//! and tries cost less than 1 % of what the tunnel may cost for the same bytes
//! (`benches/blocks.rs`).

/// Why a block is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// An encrypted protocol.
    Encrypted,
    /// A compressed file begins here, or these bytes look like the middle of one.
    Dense,
    /// LZ4 was tried and saved next to nothing.
    Vain,
}

impl Finding {
    /// For how much text nothing is looked at: at first, and at most.
    fn pauses(self) -> (u32, u32) {
        match self {
            Finding::Encrypted => (1 << 20, 64 << 20),
            Finding::Dense => (64 << 10, 64 << 10),
            Finding::Vain => (64 << 10, 4 << 20),
        }
    }
}

/// Text that passes without a look, because of what was found before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pause {
    left: u32,
    length: u32,
}

impl Pause {
    /// Whether a block of so many bytes is still within the pause.
    pub(crate) fn covers(&mut self, bytes: usize) -> bool {
        let within = self.left > 0;
        self.left = self.left.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
        within
    }

    /// A pause begins, behind the block of this finding.
    pub(crate) fn begin(&mut self, finding: Finding) {
        let (first, most) = finding.pauses();
        self.length = (self.length * 2).min(most).max(self.length).max(first);
        self.left = self.length;
    }

    /// Something was saved: the next finding is the first again.
    pub(crate) fn end(&mut self) {
        *self = Pause::default();
    }
}

/// Looks at the beginning of a block, of whatever length.
pub(crate) fn beginning(block: &[u8]) -> Option<Finding> {
    match block {
        [0x16, 3, 0..=4, ..] | [0x17, 3, 3, ..] | [b'S', b'S', b'H', b'-', ..] => {
            Some(Finding::Encrypted)
        }
        // mp4 and its kin: the length of a box comes first.
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => Some(Finding::Dense),
        _ => COMPRESSED.iter().any(|magic| block.starts_with(magic)).then_some(Finding::Dense),
    }
}

/// How files begin that are compressed from there on: gzip, zip and its kin, zstd, xz, bzip2,
/// 7-zip, JPEG, PNG, Ogg. PDF is not among them: half of many a PDF is plain text.
const COMPRESSED: &[&[u8]] = &[
    &[0x1f, 0x8b, 8],
    b"PK\x03\x04",
    &[0x28, 0xb5, 0x2f, 0xfd],
    b"\xfd7zXZ\0",
    b"BZh91AY&SY",
    b"7z\xbc\xaf\x27\x1c",
    &[0xff, 0xd8, 0xff],
    b"\x89PNG\r\n",
    b"OggS",
];

/// Bytes that are read at one place of a block.
const GROUP_BYTES: usize = 16;
/// Places of a block that are read, at most.
const GROUPS_MAX: usize = 64;

/// Whether a block looks so much like chance that LZ4 would find nothing in it. Two things tell:
/// how often two of the bytes read are the same, which for chance is once in 256 pairs; and a
/// place where all is ASCII, or zeros, which chance makes once in 65536. The first knows binary
/// data, the second a little text among what is compressed, as in a PDF.
pub(crate) fn is_dense(block: &[u8]) -> bool {
    let groups = (block.len() / GROUP_BYTES).min(GROUPS_MAX);
    if groups == 0 {
        return false;
    }
    // Golden steps, so that the places keep no step with records of any length.
    let places = block.len() - GROUP_BYTES + 1;
    let step = ((places * 40_503) >> 16) | 1;
    let mut counts = [0u16; 256];
    let mut place = 0;
    for _ in 0..groups {
        let group = &block[place..place + GROUP_BYTES];
        for byte in group {
            counts[usize::from(*byte)] += 1;
        }
        if group.is_ascii() {
            return false;
        }
        place = (place + step) % places;
    }
    let read = (groups * GROUP_BYTES) as u32;
    let squares: u32 = counts.iter().map(|count| u32::from(*count) * u32::from(*count)).sum();
    // Ordered pairs of equal bytes. For chance about `expected`, give or take `spread`.
    let pairs = squares - read;
    let expected = read * (read - 1) / 256;
    let spread = (2 * expected).isqrt();
    pairs < expected + expected / 16 + 2 * spread
}
