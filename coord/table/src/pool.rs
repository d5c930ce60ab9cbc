//! Blocks of one size in a region: handed out, taken back, never moved.
//!
//! Free blocks form a stack. The top eight are known without reading memory: a freed block keeps,
//! in its first word, the id that stands eight below it, so taking a block brings in the one that
//! will be needed eight takes later and prefetches it. Taking from a long stack whose blocks lie
//! all over a large region thus does not wait for memory.
//!
//! Invariants: id 0 is never handed out; `reserve(n)` makes the next `n` takes succeed; a block is
//! as its last user left it (the first word excepted), a fresh one is zero.
//! Bounds: every operation takes constant time; at most `STEP_BLOCKS` blocks are grown ahead.

use ringway_core::Region;

use crate::Full;
use crate::prefetch::prefetch;

/// Blocks of `WORDS` words each.
pub(crate) struct Pool<R, const WORDS: usize> {
    region: R,
    id_end: u32,
    /// Blocks below this id have been handed out at least once.
    fresh: u32,
    /// How many blocks are on the stack.
    free: u32,
    /// The ids at the top of the stack: `window[top]`, `window[top + 1]`, ... modulo `WINDOW`.
    window: [u32; WINDOW],
    top: usize,
}

impl<R: Region, const WORDS: usize> Pool<R, WORDS> {
    /// A pool over a region that is empty or all zero.
    ///
    /// All ids stay below `id_end`.
    pub(crate) fn new(region: R, id_end: u32) -> Self {
        Self { region, id_end, fresh: 1, free: 0, window: [0; WINDOW], top: 0 }
    }

    /// Makes sure that `count` blocks can be taken.
    #[inline]
    pub(crate) fn reserve(&mut self, count: u32) -> Result<(), Full> {
        if count <= self.free {
            return Ok(());
        }
        let needed = self.fresh as usize + (count - self.free) as usize;
        if needed * WORDS <= self.region.words().len() { Ok(()) } else { self.grow_to(needed) }
    }

    #[cold]
    fn grow_to(&mut self, needed: usize) -> Result<(), Full> {
        let end = self.id_end as usize;
        if needed > end {
            return Err(Full);
        }
        let ahead = (needed + STEP_BLOCKS).min(end);
        if self.region.grow_to(ahead * WORDS).is_err() {
            // The last blocks below the limit are used too.
            self.region.grow_to(needed * WORDS)?;
        }
        Ok(())
    }

    /// Takes a block. The caller has reserved it.
    #[inline]
    pub(crate) fn take(&mut self) -> u32 {
        if self.free == 0 {
            let id = self.fresh;
            self.fresh += 1;
            debug_assert!(
                self.fresh as usize * WORDS <= self.region.words().len(),
                "reserve first"
            );
            return id;
        }
        self.free -= 1;
        let id = self.window[self.top];
        let incoming = self.block(id)[0];
        self.window[self.top] = incoming;
        self.top = (self.top + 1) % WINDOW;
        if incoming != 0 {
            self.prefetch(incoming);
        }
        id
    }

    /// Takes a block and clears it.
    #[inline]
    pub(crate) fn take_zeroed(&mut self) -> u32 {
        let id = self.take();
        *self.block_mut(id) = [0; WORDS];
        id
    }

    /// Gives a block back. Its first word belongs to the pool from now on.
    #[inline]
    pub(crate) fn give(&mut self, id: u32) {
        debug_assert!(id != 0 && id < self.fresh);
        self.top = (self.top + WINDOW - 1) % WINDOW;
        let outgoing = core::mem::replace(&mut self.window[self.top], id);
        self.block_mut(id)[0] = outgoing;
        self.free += 1;
    }

    /// A block.
    #[inline]
    pub(crate) fn block(&self, id: u32) -> &[u32; WORDS] {
        let rest = &self.region.words()[id as usize * WORDS..];
        rest.first_chunk().expect("a block that was taken")
    }

    /// A block, to be changed.
    #[inline]
    pub(crate) fn block_mut(&mut self, id: u32) -> &mut [u32; WORDS] {
        let rest = &mut self.region.words_mut()[id as usize * WORDS..];
        rest.first_chunk_mut().expect("a block that was taken")
    }

    /// Prefetches all of a block; any id will do.
    #[inline]
    pub(crate) fn prefetch(&self, id: u32) {
        let at = id as usize * WORDS;
        prefetch(self.region.words(), at);
        if !LINE_WORDS.is_multiple_of(WORDS) {
            // Such a block may lie across the end of a line.
            prefetch(self.region.words(), at + WORDS - 1);
        }
    }

    /// One more than the largest id that was ever handed out.
    #[inline]
    pub(crate) fn end(&self) -> u32 {
        self.fresh
    }

    /// Blocks in use.
    pub(crate) fn used(&self) -> u32 {
        self.fresh - 1 - self.free
    }

    /// Bytes of the region, free blocks and growth ahead included.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.region.words())
    }

    /// The ids on the stack, top first. Linear in their number: for tests.
    #[cfg(test)]
    pub(crate) fn for_each_free(&self, mut each: impl FnMut(u32)) {
        let mut window = self.window;
        for at in 0..self.free as usize {
            let id = window[(self.top + at) % WINDOW];
            each(id);
            window[(self.top + at) % WINDOW] = self.block(id)[0];
        }
    }
}

/// Words of a cache line.
const LINE_WORDS: usize = 16;
/// How many free ids are known without reading memory. A power of two.
const WINDOW: usize = 8;
/// Blocks that a region is grown ahead, if its bound allows.
const STEP_BLOCKS: usize = 1024;

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::HashSet;
    use std::vec::Vec;

    use ringway_core::region::HeapRegion;
    use ringway_core::rng::Rng;

    use super::*;

    /// Whatever the order of taking and giving, no block is ever handed out twice, and every
    /// freed block comes back before a fresh one is touched.
    #[test]
    fn a_block_has_one_user() {
        let mut rng = Rng::new(7);
        let mut pool = Pool::<_, 8>::new(HeapRegion::new(usize::MAX), u32::MAX);
        let (mut held, mut peak) = (Vec::new(), 0);
        for step in 0..100_000 {
            // Long tides: the stack grows past its window and is emptied again.
            if rng.below(100) < if step / 1000 % 2 == 0 { 60 } else { 40 } || held.is_empty() {
                pool.reserve(1).expect("no bound");
                let id = pool.take_zeroed();
                assert!(id != 0 && !held.contains(&id));
                pool.block_mut(id)[0] = u32::MAX;
                held.push(id);
            } else {
                pool.give(held.swap_remove(rng.below(held.len() as u64) as usize));
            }
            peak = peak.max(held.len());
            assert_eq!(pool.used() as usize, held.len());
        }
        assert_eq!(pool.end() as usize, peak + 1, "freed blocks are used first");
        let mut free = HashSet::new();
        pool.for_each_free(|id| assert!(free.insert(id) && !held.contains(&id)));
        assert_eq!(free.len() + held.len(), peak);
    }

    /// The bound of the region is the bound of the pool, to the last block, and a refusal leaves
    /// the pool as it was.
    #[test]
    fn the_last_block_is_usable() {
        let mut pool = Pool::<_, 7>::new(HeapRegion::new(7 * 11 + 3), u32::MAX);
        for _ in 0..10 {
            pool.reserve(1).expect("ten blocks fit beside block zero");
            pool.take();
        }
        assert_eq!(pool.reserve(1), Err(Full));
        pool.give(4);
        assert_eq!(pool.reserve(2), Err(Full));
        pool.reserve(1).expect("one was given back");
        assert_eq!(pool.take(), 4);
    }
}
