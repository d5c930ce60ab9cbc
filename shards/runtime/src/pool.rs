//! Out buffers for connections that have something to say. An idle connection owns none.
//!
//! Bounds: at most [`POOL_BUFFERS_MAX`] buffers of at most [`POOL_BUFFER_BYTES_MAX`] are kept;
//! larger or further ones go back to the allocator.

/// Buffers kept.
const POOL_BUFFERS_MAX: usize = 1024;
/// Bytes of the largest buffer kept.
const POOL_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a new buffer.
const BUFFER_BYTES: usize = 4 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: Vec<Vec<u8>>,
}

impl Pool {
    /// An empty buffer; the one returned last, whose bytes are most likely in the cache.
    #[inline]
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    /// Takes a buffer back.
    #[inline]
    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        let fits = (1..=POOL_BUFFER_BYTES_MAX).contains(&buffer.capacity());
        if fits && self.free.len() < POOL_BUFFERS_MAX {
            buffer.clear();
            self.free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Buffers are used again, empty; giants and crowds are not hoarded.
    #[test]
    fn buffers_are_used_again_within_bounds() {
        let mut pool = Pool::default();
        let mut buffer = pool.take();
        buffer.extend_from_slice(b"old");
        let address = buffer.as_ptr();
        pool.give(buffer);
        let buffer = pool.take();
        assert_eq!((buffer.as_ptr(), buffer.len()), (address, 0));
        pool.give(Vec::with_capacity(POOL_BUFFER_BYTES_MAX + 1));
        assert_eq!(pool.free.len(), 0);
        (0..2 * POOL_BUFFERS_MAX).for_each(|_| pool.give(Vec::with_capacity(16)));
        assert_eq!(pool.free.len(), POOL_BUFFERS_MAX);
    }
}
