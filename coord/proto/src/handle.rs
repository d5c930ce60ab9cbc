//! How a session is named inside the process: a handle that fits into a table record.
//!
//! A handle is reused only after every shard has forgotten its last session; a [`Bound`] carries
//! the session's id as well, so a handle that crossed its own end in a mailbox is recognised.

use ringway_core::{SessionId, ShardId};
use ringway_table::Owner;

/// A session's place: its home shard (7 bits) and its index there (25 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(u32);

const LOCAL_BITS: u32 = 25;

const _: () = assert!(ringway_core::limits::SESSIONS_PER_SHARD_MAX <= 1 << LOCAL_BITS);
const _: () = assert!(ringway_core::limits::SHARDS_MAX <= 1 << (32 - LOCAL_BITS));

impl Handle {
    /// Packs home shard and index.
    ///
    /// # Panics
    /// If either exceeds its bound in `limits.rs`: both are ours.
    pub fn new(home: ShardId, local: u32) -> Self {
        assert!(local < 1 << LOCAL_BITS && home.0 < 128, "handle out of range");
        Self((u32::from(home.0) << LOCAL_BITS) | local)
    }

    /// The shard that decides over the session.
    #[inline]
    pub const fn home(self) -> ShardId {
        ShardId((self.0 >> LOCAL_BITS) as u8)
    }

    /// The index at the home shard.
    #[inline]
    pub const fn local(self) -> usize {
        (self.0 & ((1 << LOCAL_BITS) - 1)) as usize
    }

    /// As the table's opaque owner, and as it travels between shards.
    #[inline]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The inverse of [`Self::bits`].
    #[inline]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// As a record's owner.
    #[inline]
    pub const fn owner(self) -> Owner {
        Owner(self.0)
    }
}

/// A session as a connection knows it: where it lives, and which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its place.
    pub handle: Handle,
    /// Its identity; a handle that has been reused has another one.
    pub session: SessionId,
}
