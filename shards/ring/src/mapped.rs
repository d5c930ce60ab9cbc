//! Memory for the object table: grows in place, by moving a bound.
//!
//! The address space is reserved at once, in huge pages where the kernel has them. Growing is a
//! comparison and a store; every 2 MiB it takes from the budget and tells the committer how far
//! to be ahead. So no turn ever copies, and hardly one faults.
//!
//! Always:
//! - M1  bound <= charged: no word is handed out that the budget does not know.
//! - M2  the committer touches pages, never contents: all words are the shard's own.
//!
//! Bounds: constant time; charged memory exceeds the bound by at most an eighth, in 1 to 8 steps.
//! Tests: below.

use std::io;
use std::sync::Arc;

use ringway_core::{Region, RegionFull};

use crate::budget::MemoryBudget;
use crate::committer::{Committer, STEP, Shared};

/// The most that is committed ahead of need, in steps.
const AHEAD_STEPS_MAX: usize = 8;

/// How a region's memory came, for the counters of `ringway shards`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitCounts {
    /// Bytes that were committed before they were needed.
    pub committed_bytes: u64,
    /// Bytes charged to the budget.
    pub charged_bytes: u64,
    /// How often the bound overtook the committer, so that the shard itself faulted.
    pub faults_not_ahead: u64,
    /// How often the kernel had no memory to commit.
    pub failures: u64,
}

/// A region of mapped memory. Starts empty; see [`Region`].
#[derive(Debug)]
pub struct MappedRegion {
    shared: Arc<Shared>,
    committer: Committer,
    budget: MemoryBudget,
    /// Words handed out.
    words: usize,
    words_max: usize,
    charged: usize,
    faults_not_ahead: u64,
}

impl MappedRegion {
    /// Reserves address space for `words_max` words and commits a first step.
    ///
    /// # Errors
    /// When the process has no such address space (for example under `vm.overcommit_memory=2`, or
    /// `ulimit -v`).
    pub fn reserve(
        words_max: usize,
        committer: &Committer,
        budget: &MemoryBudget,
    ) -> io::Result<MappedRegion> {
        let too_large = || io::Error::from_raw_os_error(libc::ENOMEM);
        let bytes =
            words_max.checked_mul(4).filter(|bytes| *bytes < 1 << 46).ok_or_else(too_large)?;
        let shared = Arc::new(Shared::reserve(bytes)?);
        committer.adopt(&shared);
        let mut region = MappedRegion {
            shared,
            committer: committer.clone(),
            budget: budget.clone(),
            words: 0,
            words_max,
            charged: 0,
            faults_not_ahead: 0,
        };
        region.run_ahead();
        Ok(region)
    }

    /// How its memory came.
    pub fn counts(&self) -> CommitCounts {
        CommitCounts {
            committed_bytes: self.shared.committed() as u64,
            charged_bytes: self.charged as u64,
            faults_not_ahead: self.faults_not_ahead,
            failures: self.shared.failures(),
        }
    }

    /// Charges up to `bytes`, a multiple of a step, if the budget has them.
    fn charge(&mut self, bytes: usize) -> Result<(), RegionFull> {
        if bytes > self.charged {
            self.budget.take((bytes - self.charged) as u64).map_err(|_| RegionFull)?;
            self.charged = bytes;
        }
        Ok(())
    }

    /// Charges and commits beyond the bound. If the budget does not hold that, growing still works
    /// step by step until it really is spent.
    fn run_ahead(&mut self) {
        let bound = self.words * 4;
        let ahead = (bound / 8 / STEP).clamp(1, AHEAD_STEPS_MAX) * STEP;
        let goal = bound.next_multiple_of(STEP) + ahead;
        let goal = goal.min((self.words_max * 4).next_multiple_of(STEP));
        if goal > self.charged && self.charge(goal).is_ok() {
            self.committer.want(&self.shared, goal);
        }
    }

    fn base(&self) -> *mut u32 {
        // SAFETY: `start` is inside the mapping by construction.
        unsafe { self.shared.mapping().base().as_ptr().add(self.shared.start).cast() }
    }

    #[cold]
    fn grow_past_charged(&mut self, bytes: usize) -> Result<(), RegionFull> {
        let steps = bytes.next_multiple_of(STEP);
        self.charge(steps)?;
        self.committer.want(&self.shared, steps);
        Ok(())
    }
}

impl Region for MappedRegion {
    #[inline]
    fn words(&self) -> &[u32] {
        // SAFETY: `words` words from `base` lie inside the mapping (checked in `grow_to`), which
        // `self.shared` keeps alive, are page aligned and initialised (zero or written). Only
        // `words_mut` writes them, and it needs `&mut self`; the committer changes no contents.
        unsafe { std::slice::from_raw_parts(self.base(), self.words) }
    }

    #[inline]
    fn words_mut(&mut self) -> &mut [u32] {
        // SAFETY: as in `words`, and `&mut self` excludes every other reference: a region is not
        // cloned, and nobody else derives references from the mapping.
        unsafe { std::slice::from_raw_parts_mut(self.base(), self.words) }
    }

    #[inline]
    fn grow_to(&mut self, words: usize) -> Result<(), RegionFull> {
        if words <= self.words {
            return Ok(());
        }
        if words > self.words_max {
            return Err(RegionFull);
        }
        let (before, bytes) = (self.words * 4, words * 4);
        if bytes > self.charged {
            self.grow_past_charged(bytes)?;
        }
        self.words = words;
        if bytes.div_ceil(STEP) != before.div_ceil(STEP) {
            if bytes > self.shared.committed() {
                self.faults_not_ahead += 1;
            }
            self.run_ahead();
        }
        debug_assert!(self.words * 4 <= self.charged, "M1");
        Ok(())
    }
}

impl Drop for MappedRegion {
    fn drop(&mut self) {
        self.shared.close();
        self.budget.give_back(self.charged as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_WORDS: usize = STEP / 4;

    fn region(words_max: usize, budget: &MemoryBudget) -> MappedRegion {
        MappedRegion::reserve(words_max, &Committer::start().unwrap(), budget).unwrap()
    }

    /// What is new is zero, what is old stays, and the address never changes.
    #[test]
    fn growing_keeps_words_in_place() {
        let budget = MemoryBudget::new(1 << 30);
        let mut region = region(8 * STEP_WORDS, &budget);
        assert!(region.words().is_empty());
        region.grow_to(10).unwrap();
        region.words_mut().fill(7);
        let address = region.words().as_ptr();
        region.grow_to(5 * STEP_WORDS + 3).unwrap();
        assert_eq!(region.words().as_ptr(), address);
        assert_eq!(region.words().len(), 5 * STEP_WORDS + 3);
        assert!(region.words()[..10].iter().all(|word| *word == 7));
        assert!(region.words()[10..].iter().all(|word| *word == 0));
        region.grow_to(1).unwrap();
        assert_eq!(region.words().len(), 5 * STEP_WORDS + 3, "a region never shrinks");
    }

    /// Its own bound and the process's budget both answer "full", leave it usable, and a dropped
    /// region gives everything back.
    #[test]
    fn full_is_an_answer() {
        let budget = MemoryBudget::new(4 * STEP as u64);
        let mut one = region(3 * STEP_WORDS, &budget);
        assert_eq!(one.grow_to(3 * STEP_WORDS + 1), Err(RegionFull));
        one.grow_to(3 * STEP_WORDS).unwrap();
        assert_eq!(budget.used(), 3 * STEP as u64);
        let mut two = region(8 * STEP_WORDS, &budget);
        two.grow_to(STEP_WORDS).unwrap();
        assert_eq!(two.grow_to(STEP_WORDS + 1), Err(RegionFull));
        two.words_mut()[STEP_WORDS - 1] = 1;
        drop(one);
        two.grow_to(STEP_WORDS + 1).unwrap();
        drop(two);
        assert_eq!(budget.used(), 0);
    }

    /// The committer gets to where it was asked to be, and then the shard does not fault.
    #[test]
    fn memory_is_committed_ahead() {
        let budget = MemoryBudget::new(1 << 30);
        let mut region = region(64 * STEP_WORDS, &budget);
        for steps in 1..=4 {
            while region.counts().committed_bytes < region.counts().charged_bytes {
                std::thread::yield_now();
            }
            assert!(region.counts().charged_bytes > (steps - 1) as u64 * STEP as u64);
            region.grow_to(steps * STEP_WORDS).unwrap();
        }
        assert_eq!(region.counts().faults_not_ahead, 0);
        assert_eq!(region.counts().failures, 0);
    }

    /// A region as large as a machine costs address space only.
    #[test]
    fn reserving_costs_no_memory() {
        let budget = MemoryBudget::new(1 << 30);
        let region = region(1 << 36, &budget);
        assert_eq!(region.counts().charged_bytes, STEP as u64);
        let beyond = MappedRegion::reserve(usize::MAX, &Committer::start().unwrap(), &budget);
        assert!(beyond.is_err());
    }
}
