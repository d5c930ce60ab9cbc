//! Newtypes for everything that is counted or named by number.
//!
//! A number of one kind never stands where another is meant; the compiler sees to it. Layouts
//! that travel (session ids, tokens) are packed and unpacked here and nowhere else.

use core::fmt;

use crate::slot::Slot;

/// A shard of this process: an index below the number of shards, at most 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u8);

impl ShardId {
    /// The shard as an index into per-shard arrays.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A connection of one shard. The index is reused after a close, the generation is not (until it
/// wraps at 2^32), so that a late reply never reaches the connection's successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Index into the shard's connection table.
    pub index: u32,
    /// Counts the connections that have had this index.
    pub generation: u32,
}

/// A client process, by the number its operator gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// One life of a node: 20 bits of epoch, 14 of the session's slot, 30 of a sequence kept per slot.
///
/// Unique for ever, because the epoch is persisted before its first session and a slot that runs
/// out of sequence takes a new epoch. Zero is never a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl SessionId {
    /// The largest sequence of a session within one epoch and slot.
    pub const SEQUENCE_MAX: u64 = (1 << 30) - 1;

    /// Packs the three parts.
    ///
    /// # Panics
    /// If `sequence` exceeds [`Self::SEQUENCE_MAX`]: the caller takes a new epoch before that.
    pub fn new(epoch: Epoch, slot: Slot, sequence: u64) -> Self {
        assert!(sequence <= Self::SEQUENCE_MAX, "session sequence overflow in {slot:?}");
        Self((u64::from(epoch.0) << 44) | (u64::from(slot.number()) << 30) | sequence)
    }

    /// The slot that decides over this session.
    pub fn slot(self) -> Slot {
        Slot::from_bits((self.0 >> 30) as u16)
    }

    /// The epoch in which the session was opened.
    pub fn epoch(self) -> Epoch {
        Epoch((self.0 >> 44) as u32)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a client proves itself with when it resumes or renews a session: 128 random bits.
/// It has no `Debug` that shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

impl Secret {
    /// Compares in constant time: a guess learns nothing from how long a refusal takes.
    pub fn matches(&self, other: &Secret) -> bool {
        let (mine, theirs) = (u128::from_le_bytes(self.0), u128::from_le_bytes(other.0));
        core::hint::black_box(mine ^ theirs) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// One life of the service: 20 bits, persisted before the first grant made under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The largest epoch a token can carry.
    pub const MAX: Epoch = Epoch((1 << 20) - 1);
}

/// A fencing token: 20 bits of epoch, 44 bits of a sequence kept per slot.
///
/// For one name it strictly grows over the name's whole life, across restarts too, so storage
/// that remembers the largest token it has seen can refuse every earlier owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

impl Token {
    /// The largest sequence within one epoch.
    pub const SEQUENCE_MAX: u64 = (1 << 44) - 1;

    /// Packs the two parts.
    #[inline]
    pub fn new(epoch: Epoch, sequence: u64) -> Self {
        debug_assert!(sequence <= Self::SEQUENCE_MAX);
        Self((u64::from(epoch.0) << 44) | sequence)
    }

    /// The epoch part.
    pub fn epoch(self) -> Epoch {
        Epoch((self.0 >> 44) as u32)
    }

    /// The sequence part.
    pub fn sequence(self) -> u64 {
        self.0 & Self::SEQUENCE_MAX
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session id says which slot decides over it; without that a renewal could not be routed.
    #[test]
    fn session_id_keeps_its_parts() {
        let id = SessionId::new(Epoch(0xF_FFFF), Slot::from_bits(16_383), SessionId::SEQUENCE_MAX);
        assert_eq!(id.0, u64::MAX);
        let id = SessionId::new(Epoch(3), Slot::from_bits(77), 5);
        assert_eq!((id.epoch(), id.slot().number()), (Epoch(3), 77));
    }

    /// A later epoch beats any sequence of an earlier one: a restart never repeats a token.
    #[test]
    fn tokens_grow_across_epochs() {
        assert!(Token::new(Epoch(1), Token::SEQUENCE_MAX) < Token::new(Epoch(2), 0));
        assert_eq!(Token::new(Epoch(9), 4).epoch(), Epoch(9));
        assert_eq!(Token::new(Epoch(9), 4).sequence(), 4);
    }
}
