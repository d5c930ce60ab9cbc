//! Mail that the machines of watches have written and nobody has posted yet, in order.

use alloc::vec::Vec;

use ringway_core::ShardId;

/// A buffer above this size is given back once it is empty.
const KEPT_BYTES: usize = 256 * 1024;

/// The mail. Between two shards it arrives in the order in which it was written.
#[derive(Default)]
pub struct Letters {
    bytes: Vec<u8>,
    /// To whom, and where each begins.
    heads: Vec<(ShardId, usize)>,
}

impl Letters {
    /// Starts a message; append to what this returns.
    #[inline]
    pub fn begin(&mut self, to: ShardId) -> &mut Vec<u8> {
        self.heads.push((to, self.bytes.len()));
        &mut self.bytes
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// The messages, in order.
    pub fn iter(&self) -> impl Iterator<Item = (ShardId, &[u8])> {
        let ends = self.heads.iter().skip(1).map(|head| head.1).chain([self.bytes.len()]);
        self.heads.iter().zip(ends).map(|((to, start), end)| (*to, &self.bytes[*start..end]))
    }

    /// Forgets all messages, keeps the memory for the next.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
    }
}
