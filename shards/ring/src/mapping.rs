//! Anonymous memory straight from the kernel, unmapped when its last owner goes.
//!
//! Always: page aligned, zero until written, never moved. The mapping hands out its base only
//! inside this crate; each user there proves who may touch which bytes.

use std::io;
use std::ptr::NonNull;

/// A private anonymous mapping.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is an address range of the process, not of a thread; nothing in this type
// reads or writes it, and its users bring their own exclusion.
unsafe impl Send for Mapping {}
// SAFETY: as above: `&Mapping` gives out an address and nothing else.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `len` bytes of address space; memory comes when it is touched. Does not count
    /// against the overcommit heuristic (MAP_NORESERVE).
    pub(crate) fn reserve(len: usize) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice overlaps no
        // memory that anybody owns.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Mapping { base, len })
    }

    /// Asks for 2 MiB pages. A kernel without them says no, and the mapping works all the same.
    pub(crate) fn prefer_huge_pages(&self) {
        // SAFETY: the range is this mapping's own, and the advice changes no content.
        unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, libc::MADV_HUGEPAGE) };
    }

    /// Commits the pages of `from..from + len` as if each had been written, contents unchanged.
    pub(crate) fn populate(&self, from: usize, len: usize) -> io::Result<()> {
        assert!(from.checked_add(len).is_some_and(|end| end <= self.len), "populate past the end");
        // SAFETY: the range was just checked to be inside this mapping. MADV_POPULATE_WRITE
        // faults pages in and changes no byte, so it may run beside readers and writers.
        let done = unsafe {
            libc::madvise(self.base.as_ptr().add(from).cast(), len, libc::MADV_POPULATE_WRITE)
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Where the mapping starts.
    #[inline]
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// How long it is, in bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range came from `mmap` in `reserve`, is unmapped once, and whoever borrowed
        // from it borrowed from `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
