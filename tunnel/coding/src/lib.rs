//! LZ4 of one direction of a flow: text in, carried bytes out, and back.
//!
//! It stands above the session: what it makes is a stream like any other, so the session's offsets
//! count *carried* bytes, and pieces of it may be lost, sent again and cut anywhere. The *text* is
//! what the application wrote. The two ends need not agree about anything but the format.
//!
//! - `block`: the format, to the byte (`docs/tunnel-protocol.md`, "Compressed streams").
//! - `coder`: text to blocks. `look`: whether to try at all. `decoder`: blocks to text.
//!
//! What always holds:
//! - C1  Whatever was given to [`Coder::encode`] can be decoded from what it wrote until then:
//!   nothing is kept back, whether more comes or not.
//! - C2  Behind a flush (`more = false`) no block refers to anything before it, so nothing can be
//!   learnt about one answer from the length of the next; and flows share nothing.
//! - C3  A flow costs less than 100 bytes at each end while nothing is under way on it.
//! - C4  No carried byte whatever makes the decoder panic, hold more than [`DECODER_BYTES_MAX`] or
//!   deliver more than [`BLOCK_BYTES_MAX`] bytes at a time.
//!
//! Bounds: a run that goes on holds [`CODER_BYTES_MAX`] at its coder and [`DECODER_BYTES_MAX`] at
//! its decoder. Who has not that memory says `more = false`, and loses what history saves. Time is
//! linear in the text; a peer can make about 250 bytes of text from one carried byte, and no more.
//! Not here: which flows are coded at all (the node's configuration), credit, order, encryption.
//! Tests: `stories.rs`; any cuts of anything in `tests/round_trip.rs`, hostile bytes there and in
//! the fuzz target `tunnel_coding`; sizes by kind of file in `examples/office_mix.rs`.

#![forbid(unsafe_code)]

mod block;
mod coder;
mod decoder;
mod look;

pub use coder::{Coder, Mode};
pub use decoder::{Decoder, Malformed};

/// Text of one block, at most.
pub const BLOCK_BYTES_MAX: usize = 64 * 1024;
/// How far back a block may refer, and so how much text a decoder keeps between blocks.
pub const HISTORY_BYTES_MAX: usize = 64 * 1024;
/// Shorter text is not compressed: it would save too little for the time.
pub const TEXT_BYTES_MIN: usize = 512;
/// Memory of a coder while a run goes on: three blocks of text, one of LZ4, and its table.
pub const CODER_BYTES_MAX: usize = 320 * 1024;
/// Memory of a decoder in the middle of things: a block as it came, its text, and history.
pub const DECODER_BYTES_MAX: usize = BLOCK_BYTES_MAX + BLOCK_BYTES_MAX + HISTORY_BYTES_MAX + 1024;

/// The most that so much text can become in one call of [`Coder::encode`]: for who has only so much
/// room for what is carried.
pub const fn carried_bytes_max(text: usize) -> usize {
    text + block::STORED_HEAD_BYTES * text.div_ceil(BLOCK_BYTES_MAX) + 1
}

/// What went through one end of one direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes as the application sees them.
    pub text: u64,
    /// Bytes as the session carries them.
    pub carried: u64,
    /// Blocks that stand as they were written.
    pub stored: u64,
    /// Blocks of LZ4.
    pub compressed: u64,
}

impl Counters {
    /// Bytes that were not carried; below zero if headers cost more than LZ4 saved.
    pub fn saved(&self) -> i64 {
        self.text.wrapping_sub(self.carried).cast_signed()
    }
}

#[cfg(test)]
mod stories;
