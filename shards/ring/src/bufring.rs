//! Buffers that the kernel fills: it takes one when bytes have arrived, not before, so that a
//! hundred thousand idle connections share a few megabytes.
//!
//! Always: a buffer belongs to the kernel or to exactly one [`Filled`], never to both. `held` has
//! a bit for each that is ours; taking and giving back assert it.
//!
//! Buffers stand an odd number of cache lines apart: with a stride of a power of two their first
//! lines, the only ones small requests touch, would all fall into the same cache sets.
//!
//! Not here: arming receives (`ring.rs`). Tests: below, and in `ring.rs` with the kernel.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::mapping::Mapping;
use crate::sq::Group;

/// Bytes from one buffer's end to the next one's start.
const GAP: usize = 3 * 64;

/// The buffers of one ring.
pub(crate) struct BufRing {
    /// What the kernel reads: addresses of free buffers. Its first entry's spare field is the tail.
    entries: Mapping,
    /// The buffers themselves.
    data: Mapping,
    group: Group,
    count: u16,
    size: u32,
    tail: u16,
    held: Vec<u64>,
    held_count: u32,
}

/// A buffer that the kernel has filled. Read it with [`crate::Ring::bytes`], change it with
/// [`crate::Ring::bytes_mut`], and give it back with [`crate::Ring::recycle`]; one that is dropped
/// instead is lost to its ring, nothing worse.
#[derive(Debug)]
#[must_use = "a buffer that is not recycled is lost to its ring"]
pub struct Filled {
    group: Group,
    id: u16,
    len: u32,
}

impl Filled {
    /// How many bytes arrived; never zero.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Which group it is of.
    #[inline]
    pub(crate) fn group(&self) -> Group {
        self.group
    }

    /// Never: an end of the stream fills no buffer.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl BufRing {
    /// Makes `count` buffers (a power of two, at most 32768) of `size` bytes, known to nobody yet.
    pub(crate) fn new(group: Group, count: u16, size: u32) -> io::Result<BufRing> {
        assert!(count.is_power_of_two() && count <= 1 << 15, "{count} buffers");
        assert!(size > 0 && size.is_multiple_of(64), "buffers of {size} bytes");
        let entries = Mapping::reserve(usize::from(count) * size_of::<BufRingEntry>())?;
        let data = Mapping::reserve(usize::from(count) * (size as usize + GAP))?;
        data.prefer_huge_pages();
        let held = vec![u64::MAX; usize::from(count).div_ceil(64)];
        let mut buffers =
            BufRing { entries, data, group, count, size, tail: 0, held, held_count: 0 };
        buffers.held_count = u32::from(count);
        for id in 0..count {
            buffers.give(id);
        }
        Ok(buffers)
    }

    /// Tells the kernel about them. They must outlive the ring, or the registration.
    pub(crate) fn register(&self, uring: &IoUring) -> io::Result<()> {
        let address = self.entries.base().as_ptr() as u64;
        // SAFETY: `entries` is page aligned, holds `count` entries that name ranges of `data`
        // owned by no reference, and both live in `self`, which `Ring` drops after the kernel's
        // ring is gone and every request has ended (or leaks).
        unsafe {
            uring.submitter().register_buf_ring_with_flags(
                address,
                self.count,
                self.group as u16,
                0,
            )
        }
    }

    /// The kernel says that it filled buffer `id` with `len` bytes.
    pub(crate) fn take(&mut self, id: u16, len: u32) -> Filled {
        assert!(id < self.count && len <= self.size, "the kernel named buffer {id} of {len} bytes");
        let (word, bit) = (usize::from(id / 64), 1 << (id % 64));
        assert!(self.held[word] & bit == 0, "the kernel filled buffer {id}, which is ours");
        self.held[word] |= bit;
        self.held_count += 1;
        Filled { group: self.group, id, len }
    }

    /// As [`Self::take`], and moves the bytes so that there is room in front of them, which counts
    /// as filled.
    pub(crate) fn take_shifted(&mut self, id: u16, len: u32, by: usize) -> Filled {
        let mut filled = self.take(id, len + by as u32);
        self.bytes_mut(&mut filled).copy_within(..len as usize, by);
        filled
    }

    /// What a filled buffer holds.
    #[inline]
    pub(crate) fn bytes(&self, filled: &Filled) -> &[u8] {
        assert!(self.holds(filled.id), "buffer {} is not of this ring", filled.id);
        // SAFETY: `holds` means that the kernel filled this buffer and will not write it again
        // until `give`, which takes `&mut self` and therefore ends this borrow first. `len` was
        // checked against `size` in `take`, and every buffer lies inside `data`.
        unsafe { std::slice::from_raw_parts(self.start_of(filled.id).as_ptr(), filled.len()) }
    }

    /// What a filled buffer holds, to be changed in place.
    #[inline]
    pub(crate) fn bytes_mut(&mut self, filled: &mut Filled) -> &mut [u8] {
        assert!(self.holds(filled.id), "buffer {} is not of this ring", filled.id);
        // SAFETY: as in `bytes`: the kernel does not touch this buffer until `give`. Nobody else
        // does either: a buffer that is held has exactly one `Filled`, which cannot be cloned and
        // is borrowed here as long as the slice is; slices of other buffers, which `&mut self`
        // excludes anyway, lie elsewhere in `data`. All bytes of `data` are initialised, because
        // mapped memory begins as zeros.
        unsafe { std::slice::from_raw_parts_mut(self.start_of(filled.id).as_ptr(), filled.len()) }
    }

    /// Gives a buffer back to the kernel.
    pub(crate) fn recycle(&mut self, filled: Filled) {
        self.give(filled.id);
    }

    /// Bytes of each.
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// How many buffers are ours at the moment.
    pub(crate) fn held(&self) -> u32 {
        self.held_count
    }

    /// Gives up the memory for ever: the kernel may write it after we are gone.
    pub(crate) fn leak(&mut self) {
        let spare = || Mapping::reserve(1).expect("one page of address space");
        std::mem::forget(std::mem::replace(&mut self.entries, spare()));
        std::mem::forget(std::mem::replace(&mut self.data, spare()));
    }

    #[inline]
    fn holds(&self, id: u16) -> bool {
        id < self.count && self.held[usize::from(id / 64)] & (1 << (id % 64)) != 0
    }

    fn give(&mut self, id: u16) {
        assert!(self.holds(id), "buffer {id} is the kernel's already");
        self.held[usize::from(id / 64)] &= !(1 << (id % 64));
        self.held_count -= 1;
        let address = self.start_of(id).as_ptr() as u64;
        let base = self.entries.base().as_ptr().cast::<BufRingEntry>();
        // SAFETY: the masked index is below `count`, so the entry lies inside `entries`, which is
        // page aligned. There are at most `count` free buffers, so the kernel, which reads only
        // between its head and the published tail, does not read this entry now. The setters
        // leave the first entry's spare field, which is the tail, alone.
        let entry = unsafe { &mut *base.add(usize::from(self.tail & (self.count - 1))) };
        entry.set_addr(address);
        entry.set_len(self.size);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is a naturally aligned 16-bit field of the first entry, inside
        // `entries`; both sides access it atomically.
        let shared = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()) };
        shared.store(self.tail, Ordering::Release);
    }

    #[inline]
    fn start_of(&self, id: u16) -> NonNull<u8> {
        let offset = usize::from(id) * (self.size as usize + GAP);
        debug_assert!(offset + self.size as usize <= self.data.len());
        // SAFETY: `id` is below `count` wherever this is called, so the offset is inside `data`.
        unsafe { self.data.base().add(offset) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Buffers never touch each other and never start in the same set of a 4 KiB-stride cache.
    #[test]
    fn buffers_are_apart_and_staggered() {
        let buffers = BufRing::new(Group::First, 64, 4096).unwrap();
        let starts: Vec<usize> = (0..64).map(|id| buffers.start_of(id).as_ptr() as usize).collect();
        assert!(starts.windows(2).all(|pair| pair[0] + 4096 <= pair[1]));
        let mut sets: Vec<usize> = starts.iter().map(|start| start / 64 % 64).collect();
        sets.sort_unstable();
        sets.dedup();
        assert_eq!(sets.len(), 64, "an odd stride visits every set");
        assert_eq!(buffers.held(), 0);
    }

    /// Ownership alternates; a kernel that fills a buffer of ours would be caught.
    #[test]
    #[should_panic(expected = "which is ours")]
    fn a_held_buffer_is_not_filled() {
        let mut buffers = BufRing::new(Group::First, 8, 64).unwrap();
        let filled = buffers.take(3, 10);
        assert_eq!(buffers.bytes(&filled), [0; 10]);
        buffers.recycle(filled);
        let _held = buffers.take(3, 64);
        let _again = buffers.take(3, 64);
    }

    /// What is changed in a buffer of ours stays in that buffer: its neighbours are as they were.
    #[test]
    fn a_held_buffer_can_be_changed() {
        let mut buffers = BufRing::new(Group::First, 8, 64).unwrap();
        let (mut one, other) = (buffers.take(3, 64), buffers.take(4, 64));
        buffers.bytes_mut(&mut one).fill(7);
        assert_eq!((buffers.bytes(&one), buffers.bytes(&other)), (&[7; 64][..], &[0; 64][..]));
    }

    /// A buffer of another ring is refused instead of read behind the kernel's back.
    #[test]
    #[should_panic(expected = "not of this ring")]
    fn a_foreign_buffer_is_refused() {
        let mut mine = BufRing::new(Group::First, 8, 64).unwrap();
        let other = BufRing::new(Group::First, 8, 64).unwrap();
        let filled = mine.take(1, 1);
        other.bytes(&filled);
    }
}
