//! Memory that only grows, never moves under its user, and is given by the shell.
//!
//! A table of 100 million names must grow without ever copying itself: the shell reserves address
//! space at start and commits it ahead of need (`ringway_ring::MappedRegion`); tests use a `Vec`.
//! Words of 32 bits are enough for every record we keep and need no unsafe to read.

use alloc::vec::Vec;

/// The region cannot grow: its bound, or the memory limit of the process, is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionFull;

/// A growing array of zeroed words.
pub trait Region {
    /// All words there are. The address stays the same for the life of a mapped region.
    fn words(&self) -> &[u32];

    /// All words there are, to be changed.
    fn words_mut(&mut self) -> &mut [u32];

    /// Makes the region at least `words` long; what is new is zero. Constant time for a mapped
    /// region as long as its memory is committed ahead of need.
    fn grow_to(&mut self, words: usize) -> Result<(), RegionFull>;
}

/// A region on the heap, for tests and tools: growing may move and copy it.
#[derive(Clone, Debug, Default)]
pub struct HeapRegion {
    words: Vec<u32>,
    words_max: usize,
}

impl HeapRegion {
    /// An empty region that never exceeds `words_max` words.
    pub fn new(words_max: usize) -> Self {
        Self { words: Vec::new(), words_max }
    }
}

impl Region for HeapRegion {
    fn words(&self) -> &[u32] {
        &self.words
    }

    fn words_mut(&mut self) -> &mut [u32] {
        &mut self.words
    }

    fn grow_to(&mut self, words: usize) -> Result<(), RegionFull> {
        if words > self.words_max {
            return Err(RegionFull);
        }
        if words > self.words.len() {
            self.words.resize(words, 0);
        }
        Ok(())
    }
}
