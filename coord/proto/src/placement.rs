//! Which shard has which slots: contiguous runs of equal length, versioned.

use ringway_core::slot::SLOTS;
use ringway_core::{ShardId, Slot};

/// The map of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotMap {
    /// Grows whenever the map changes.
    pub version: u64,
    shards: usize,
}

impl SlotMap {
    /// The map of a process with `shards` shards, 1 to 128.
    pub fn new(shards: usize) -> Self {
        assert!((1..=ringway_core::limits::SHARDS_MAX).contains(&shards), "1 to 128 shards");
        Self { version: 1, shards }
    }

    /// The shard that owns a slot.
    #[inline]
    pub const fn shard_of(&self, slot: Slot) -> ShardId {
        ShardId(((slot.index() * self.shards) / SLOTS) as u8)
    }

    /// How many shards there are.
    pub const fn shards(&self) -> usize {
        self.shards
    }

    /// The first and the last slot of a shard.
    pub fn run(&self, shard: ShardId) -> (u16, u16) {
        let first = |shard: usize| (shard * SLOTS).div_ceil(self.shards) as u16;
        (first(shard.index()), first(shard.index() + 1) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every slot has one shard, and the runs that are published say the same.
    #[test]
    fn runs_agree_with_the_map() {
        for shards in [1, 2, 3, 7, 16, 100, 128] {
            let map = SlotMap::new(shards);
            let mut next = 0;
            for shard in 0..shards {
                let (first, last) = map.run(ShardId(shard as u8));
                assert_eq!(first, next, "no gap before shard {shard} of {shards}");
                for slot in first..=last {
                    assert_eq!(map.shard_of(Slot::from_bits(slot)).index(), shard);
                }
                next = last + 1;
            }
            assert_eq!(usize::from(next), SLOTS);
        }
    }
}
