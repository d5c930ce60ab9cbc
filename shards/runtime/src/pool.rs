//! Out buffers for connections that have something to say. An idle connection owns none.
//!
//! Bounds: buffers up to the size that the pool was made for are kept, all together in no more
//! bytes than it was made for; larger or further ones go back to the allocator.

/// Bytes of a new buffer.
const BUFFER_BYTES: usize = 4 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Vec<Vec<u8>>,
    bytes: usize,
    bytes_max: usize,
    buffer_bytes_max: usize,
}

impl Pool {
    /// A pool that keeps at most so many bytes, in buffers of at most so many.
    pub(crate) fn new(bytes_max: usize, buffer_bytes_max: usize) -> Self {
        Self { free: Vec::new(), bytes: 0, bytes_max, buffer_bytes_max }
    }

    /// Bytes that are kept.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives everything back to the allocator.
    pub(crate) fn release(&mut self) {
        (self.free, self.bytes) = (Vec::new(), 0);
    }

    /// An empty buffer; the one returned last, whose bytes are most likely in the cache.
    #[inline]
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let Some(buffer) = self.free.pop() else { return Vec::with_capacity(BUFFER_BYTES) };
        self.bytes -= buffer.capacity();
        buffer
    }

    /// Takes a buffer back.
    #[inline]
    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        let bytes = buffer.capacity();
        let fits = (1..=self.buffer_bytes_max).contains(&bytes);
        if fits && self.bytes + bytes <= self.bytes_max {
            buffer.clear();
            self.bytes += bytes;
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
        let mut pool = Pool::new(1 << 20, 65_536);
        let mut buffer = pool.take();
        buffer.extend_from_slice(b"old");
        let address = buffer.as_ptr();
        pool.give(buffer);
        let buffer = pool.take();
        assert_eq!((buffer.as_ptr(), buffer.len()), (address, 0));
        pool.give(Vec::with_capacity(65_537));
        assert_eq!(pool.free.len(), 0);
        (0..1000).for_each(|_| pool.give(Vec::with_capacity(4096)));
        assert_eq!((pool.free.len(), pool.bytes()), (256, 1 << 20));
        drop(pool.take());
        assert_eq!(pool.bytes(), (1 << 20) - 4096);
        pool.release();
        assert_eq!((pool.free.len(), pool.bytes()), (0, 0));
    }
}
