//! One bound for all memory that grows with what clients store.
//!
//! Whoever wants to grow takes bytes from the budget first and gives them back when it is
//! dropped. What does not fit is refused, so that the answer to a client is "full" and never the
//! kernel's out-of-memory killer. Shared by all shards; taken in steps of 2 MiB, so the contention
//! is some tens of operations a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The budget does not hold that much more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetSpent;

/// A shared budget of bytes; clones share it.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    used: AtomicU64,
    limit: u64,
}

impl MemoryBudget {
    /// A budget of `limit` bytes, all free.
    pub fn new(limit: u64) -> Self {
        Self { shared: Arc::new(Shared { used: AtomicU64::new(0), limit }) }
    }

    /// Takes bytes, all or none.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn take(&self, bytes: u64) -> Result<(), BudgetSpent> {
        let more = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.shared.limit);
        let order = Ordering::Relaxed;
        self.shared.used.fetch_update(order, order, more).map(drop).map_err(|_| BudgetSpent)
    }

    /// Gives back bytes taken before.
    ///
    /// # Panics
    /// If more is given back than was taken.
    pub fn give_back(&self, bytes: u64) {
        let before = self.shared.used.fetch_sub(bytes, Ordering::Relaxed);
        assert!(bytes <= before, "{bytes} bytes given back, {before} were taken");
    }

    /// Bytes taken.
    pub fn used(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Bytes there are in all.
    pub fn limit(&self) -> u64 {
        self.shared.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All or none, to the byte, and what is given back can be taken again.
    #[test]
    fn a_budget_is_exact() {
        let budget = MemoryBudget::new(100);
        budget.take(60).unwrap();
        assert_eq!(budget.take(41), Err(BudgetSpent));
        assert_eq!(budget.take(u64::MAX), Err(BudgetSpent));
        budget.clone().take(40).unwrap();
        assert_eq!(budget.used(), 100);
        budget.give_back(60);
        budget.take(60).unwrap();
    }
}
