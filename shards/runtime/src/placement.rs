//! Which core a shard runs on, and which slots it owns.

use std::ops::Range;

use ringway_core::slot::SLOTS;
use ringway_core::{ShardId, Slot};

/// Which cores shards are pinned to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PinPolicy {
    /// The cores this process may use, in their order, one shard each. Fewer cores than shards is
    /// an error.
    #[default]
    Auto,
    /// These cores, one per shard. Fewer cores than shards is an error.
    Cores(Vec<usize>),
    /// No pinning: shards share whatever there is.
    Off,
}

impl PinPolicy {
    /// The core of each shard, or how many cores there are if that is too few.
    pub(crate) fn assign(
        &self,
        shards: usize,
        available: &[usize],
    ) -> Result<Vec<Option<usize>>, usize> {
        let cores = match self {
            PinPolicy::Off => return Ok(vec![None; shards]),
            PinPolicy::Auto => available,
            PinPolicy::Cores(cores) => cores.as_slice(),
        };
        if cores.len() < shards {
            return Err(cores.len());
        }
        Ok(cores[..shards].iter().copied().map(Some).collect())
    }
}

/// Which shard owns a slot: contiguous ranges, equal but for one slot. A multiplication, no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotMap {
    shards: u32,
    version: u64,
}

impl SlotMap {
    /// The map for this many shards.
    ///
    /// # Panics
    /// If there are none, or more than there are slots.
    pub const fn new(shards: usize) -> SlotMap {
        assert!(0 < shards && shards <= SLOTS);
        SlotMap { shards: shards as u32, version: 1 }
    }

    /// Changes whenever the map does.
    pub const fn version(self) -> u64 {
        self.version
    }

    /// The owner of a slot.
    #[inline]
    pub const fn shard_of(self, slot: Slot) -> ShardId {
        ShardId((slot.number() as u32 * self.shards / SLOTS as u32) as u8)
    }

    /// The slots of a shard.
    pub fn slots_of(self, shard: ShardId) -> Range<u16> {
        let first = |shard: u32| (shard * SLOTS as u32).div_ceil(self.shards) as u16;
        let shard = u32::from(shard.0);
        first(shard)..first(shard + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every slot has exactly one owner, whose range says so, for any number of shards.
    #[test]
    fn ranges_and_owners_agree() {
        for shards in 1..=ringway_core::limits::SHARDS_MAX {
            let map = SlotMap::new(shards);
            let mut next = 0;
            for shard in 0..shards {
                let shard = ShardId(shard as u8);
                let range = map.slots_of(shard);
                assert_eq!(range.start, next);
                assert!(range.len() >= SLOTS / shards && range.len() <= SLOTS.div_ceil(shards));
                assert!(range.clone().all(|slot| map.shard_of(Slot::from_bits(slot)) == shard));
                next = range.end;
            }
            assert_eq!(usize::from(next), SLOTS);
        }
    }

    /// Cores are given out in order; too few are told apart from none wanted.
    #[test]
    fn cores_are_assigned_or_missed() {
        let cores = [2, 5];
        assert_eq!(PinPolicy::Auto.assign(2, &cores), Ok(vec![Some(2), Some(5)]));
        assert_eq!(PinPolicy::Auto.assign(3, &cores), Err(2));
        assert_eq!(PinPolicy::Off.assign(3, &cores), Ok(vec![None; 3]));
        assert_eq!(PinPolicy::Cores(vec![7]).assign(1, &cores), Ok(vec![Some(7)]));
        assert_eq!(PinPolicy::Cores(vec![7]).assign(2, &cores), Err(1));
    }
}
