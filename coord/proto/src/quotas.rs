//! How many names a namespace may have, over all shards.
//!
//! A namespace is what stands before the first `/` of a name. Those with a quota have *credits*,
//! one for each name that may still be granted, kept in one place that all shards take from
//! ([`Credits`]). A shard takes a block at a time and keeps what is left of it, so that a million
//! registrations ask that place a few thousand times.
//!
//! Always:
//! - Q1  The names that a shard counts, and the credits it keeps, are no more than it has taken.
//!   So no quota is ever exceeded.
//! - Q2  A record is counted exactly if it has [`FLAG_QUOTA`](crate::names::FLAG_QUOTA): from the
//!   grant that made it until it is removed, which for an ended session is when it was swept.
//!
//! Since other shards may keep credits that they do not need now, a namespace may be refused a
//! name that is up to [`SPARE_BLOCKS`] blocks for each other shard below its quota. A block is a
//! 64th of a shard's even part, at most [`BLOCK_MAX`]: of small quotas it is one name.
//!
//! Bounds: a search among [`NAMESPACES_MAX`] namespaces for each name that is granted or removed;
//! nothing where no quota is set. Tests: below, `tests/quotas.rs`.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Namespaces that may have a quota.
pub const NAMESPACES_MAX: usize = 4096;
/// Credits that a shard takes at a time, at most.
pub const BLOCK_MAX: u64 = 1024;
/// Blocks that a shard keeps, at most.
pub const SPARE_BLOCKS: u64 = 2;

/// The place that has the credits of all namespaces. Every shard has its own way to it.
pub trait Credits {
    /// The namespaces that have a quota, and how many names each may have. The same for all.
    fn quotas(&self) -> &[(Box<[u8]>, u64)];
    /// Takes up to `most` credits of a namespace; how many there were.
    fn take(&mut self, namespace: usize, most: u64) -> u64;
    /// Gives credits back.
    fn give(&mut self, namespace: usize, credits: u64);
}

/// One shard's part of all quotas; none by default.
#[derive(Default)]
pub struct Quotas {
    credits: Option<Box<dyn Credits + Send>>,
    /// Their places, by name.
    sorted: Vec<u32>,
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    names: u64,
    spare: u64,
    block: u64,
}

impl Quotas {
    /// Those of one of `shards` shards.
    pub(crate) fn new(credits: Option<Box<dyn Credits + Send>>, shards: usize) -> Self {
        let quotas = credits.as_ref().map_or(&[][..], |credits| credits.quotas());
        assert!(quotas.len() <= NAMESPACES_MAX, "checked by whoever read them");
        let block = |most: u64| (most / (64 * shards as u64)).clamp(1, BLOCK_MAX);
        let part = |(_, most): &(_, u64)| Part { block: block(*most), ..Part::default() };
        let parts = quotas.iter().map(part).collect();
        let mut sorted: Vec<u32> = (0..quotas.len() as u32).collect();
        sorted.sort_by_key(|at| &quotas[*at as usize].0);
        Self { sorted, parts, credits }
    }

    /// Whether no namespace has one.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Counts a name that is about to be made. `Ok(false)` if its namespace has no quota; an error
    /// if that is used up.
    pub(crate) fn count(&mut self, name: &[u8]) -> Result<bool, UsedUp> {
        let Some(at) = self.place_of(name) else { return Ok(false) };
        let (Some(credits), part) = (&mut self.credits, &mut self.parts[at]) else {
            return Ok(false);
        };
        if part.spare == 0 {
            part.spare = credits.take(at, part.block);
        }
        if part.spare == 0 {
            return Err(UsedUp);
        }
        part.spare -= 1;
        part.names += 1;
        Ok(true)
    }

    /// A name that was counted is gone.
    pub(crate) fn discount(&mut self, name: &[u8]) {
        let Some(at) = self.place_of(name) else { return };
        let (Some(credits), part) = (&mut self.credits, &mut self.parts[at]) else { return };
        part.names -= 1;
        part.spare += 1;
        // Of a block of one none is kept: small quotas are exact.
        let most = if part.block == 1 { 0 } else { SPARE_BLOCKS * part.block };
        if part.spare > most {
            let back = part.spare - most / 2;
            part.spare -= back;
            credits.give(at, back);
        }
    }

    /// How many names each namespace that has a quota has here, in the order of the quotas.
    pub(crate) fn names(&self) -> impl Iterator<Item = u64> {
        self.parts.iter().map(|part| part.names)
    }

    fn place_of(&self, name: &[u8]) -> Option<usize> {
        let quotas = self.credits.as_ref()?.quotas();
        let namespace = namespace_of(name);
        let name_at = |at: &u32| &*quotas[*at as usize].0;
        let found = self.sorted.binary_search_by_key(&namespace, name_at).ok()?;
        Some(self.sorted[found] as usize)
    }
}

/// The quota of a namespace is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UsedUp;

/// The namespace of a name: what stands before its first `/`; all of it if there is none.
pub fn namespace_of(name: &[u8]) -> &[u8] {
    let end = name.iter().position(|byte| *byte == b'/').unwrap_or(name.len());
    &name[..end]
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    struct Place {
        quotas: Vec<(Box<[u8]>, u64)>,
        left: Vec<u64>,
    }

    impl Credits for Place {
        fn quotas(&self) -> &[(Box<[u8]>, u64)] {
            &self.quotas
        }
        fn take(&mut self, namespace: usize, most: u64) -> u64 {
            let taken = self.left[namespace].min(most);
            self.left[namespace] -= taken;
            taken
        }
        fn give(&mut self, namespace: usize, credits: u64) {
            self.left[namespace] += credits;
        }
    }

    fn one_shard(quotas: &[(&[u8], u64)]) -> Quotas {
        let left = quotas.iter().map(|(_, most)| *most).collect();
        let quotas = quotas.iter().map(|(name, most)| (Box::from(*name), *most)).collect();
        Quotas::new(Some(Box::new(Place { quotas, left })), 1)
    }

    /// A quota is exact where there is one shard, whatever its size, and what is given back may be
    /// had again. Other namespaces are nobody's business.
    #[test]
    fn a_quota_is_exact() {
        for most in [3, 63, 64, 100_000] {
            let mut quotas = one_shard(&[(b"z", 9), (b"orders", most)]);
            for _ in 0..3 {
                for _ in 0..most {
                    assert_eq!(quotas.count(b"orders/1"), Ok(true));
                }
                assert_eq!(quotas.count(b"orders"), Err(UsedUp), "its own namespace");
                assert_eq!(quotas.count(b"orders2/4"), Ok(false));
                assert_eq!(quotas.names().collect::<Vec<_>>(), vec![0, most]);
                (0..most).for_each(|_| quotas.discount(b"orders/1"));
            }
        }
    }
}
