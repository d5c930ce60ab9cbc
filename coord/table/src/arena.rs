//! The bytes of long names, in chains of 32-byte blocks.
//!
//! Blocks have one size, so any freed block serves any name and the arena never fragments: a chain
//! wastes at most 27 bytes at its end and 4 a block for the link. The arena's size is its blocks
//! in use at the peak. A block's first word links to the next block; the last one links to 0.
//!
//! Not here: the first four bytes of a long name, which its record keeps (`record.rs`).
//! Tests: `tests.rs`, with the whole table; its check counts the blocks.

use ringway_core::Region;

use crate::Full;
use crate::pool::Pool;

/// Chains of blocks.
pub(crate) struct Arena<R> {
    pool: Pool<R, BLOCK_WORDS>,
}

impl<R: Region> Arena<R> {
    pub(crate) fn new(region: R) -> Self {
        Self { pool: Pool::new(region, u32::MAX) }
    }

    /// Makes sure that a chain for `bytes` bytes can be stored.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Result<(), Full> {
        self.pool.reserve(bytes.div_ceil(PAYLOAD_BYTES) as u32)
    }

    /// Stores bytes for which room was reserved; returns the chain's first block.
    pub(crate) fn store(&mut self, bytes: &[u8]) -> u32 {
        let mut head = 0;
        // From the back, so that each block knows its successor when it is written.
        for piece in bytes.chunks(PAYLOAD_BYTES).rev() {
            let id = self.pool.take_zeroed();
            let block = self.pool.block_mut(id);
            block[0] = head;
            for (word, bytes) in block[1..].iter_mut().zip(piece.chunks(4)) {
                let mut padded = [0; 4];
                padded[..bytes.len()].copy_from_slice(bytes);
                *word = u32::from_le_bytes(padded);
            }
            head = id;
        }
        head
    }

    /// Reads a chain back into `out`, whose length is that of what was stored.
    pub(crate) fn load(&self, head: u32, out: &mut [u8]) {
        let mut id = head;
        for piece in out.chunks_mut(PAYLOAD_BYTES) {
            let block = self.pool.block(id);
            for (bytes, word) in piece.chunks_mut(4).zip(&block[1..]) {
                bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
            }
            id = block[0];
        }
    }

    /// Whether a chain holds these bytes; the lengths are known to be equal.
    pub(crate) fn equals(&self, head: u32, bytes: &[u8]) -> bool {
        let mut id = head;
        for piece in bytes.chunks(PAYLOAD_BYTES) {
            let block = self.pool.block(id);
            let mut words = piece.chunks(4).zip(&block[1..]);
            if !words.all(|(bytes, word)| bytes == &word.to_le_bytes()[..bytes.len()]) {
                return false;
            }
            id = block[0];
        }
        true
    }

    /// Gives all blocks of a chain back.
    pub(crate) fn free(&mut self, head: u32) {
        let mut id = head;
        while id != 0 {
            let next = self.pool.block(id)[0];
            self.pool.give(id);
            id = next;
        }
    }

    pub(crate) fn prefetch(&self, head: u32) {
        self.pool.prefetch(head);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.pool.bytes()
    }

    /// Blocks in use, for tests.
    #[cfg(test)]
    pub(crate) fn used(&self) -> u32 {
        self.pool.used()
    }

    /// Blocks of a chain for `bytes` bytes, for tests.
    #[cfg(test)]
    pub(crate) fn blocks_of(bytes: usize) -> u32 {
        bytes.div_ceil(PAYLOAD_BYTES) as u32
    }
}

const BLOCK_WORDS: usize = 8;
const PAYLOAD_BYTES: usize = 4 * (BLOCK_WORDS - 1);
