//! What `mailbox.rs` and `wake.rs` need of threads: the real thing, or loom's model of it.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p ringway-shards --lib --release loom` tries every
//! interleaving and every reordering that the memory model allows.

#[cfg(not(loom))]
pub(crate) use real::*;

#[cfg(loom)]
pub(crate) use modelled::*;

#[cfg(not(loom))]
mod real {
    use std::cell::UnsafeCell;

    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

    /// Words that two threads take turns with.
    #[derive(Debug)]
    pub(crate) struct Words {
        words: Box<[UnsafeCell<u64>]>,
    }

    // SAFETY: the words are plain memory. Every access is unsafe and its caller proves that no
    // other thread touches the same words meanwhile.
    unsafe impl Sync for Words {}

    impl Words {
        /// Zeroed words; their memory comes when it is touched.
        pub(crate) fn new(count: usize) -> Self {
            let words = Box::into_raw(vec![0u64; count].into_boxed_slice());
            // SAFETY: `UnsafeCell<u64>` has the layout of `u64`, and the box was just given up.
            Self { words: unsafe { Box::from_raw(words as *mut [UnsafeCell<u64>]) } }
        }

        pub(crate) fn len(&self) -> usize {
            self.words.len()
        }

        /// Copies bytes to the words from `at` on.
        ///
        /// # Safety
        /// No other thread accesses these words until it has been told to.
        pub(crate) unsafe fn write(&self, at: usize, bytes: &[u8]) {
            let room = &self.words[at..at + bytes.len().div_ceil(8)];
            // SAFETY: `room` has space for the bytes; the caller excludes other accesses; the
            // bytes are borrowed from elsewhere, since nobody borrows from `self` for writing.
            unsafe {
                let to = UnsafeCell::raw_get(room.as_ptr()).cast::<u8>();
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
            }
        }

        /// Shows `len` bytes from the word `at` on.
        ///
        /// # Safety
        /// No other thread writes these words during the call.
        pub(crate) unsafe fn read<R>(
            &self,
            at: usize,
            len: usize,
            show: impl FnOnce(&[u8]) -> R,
        ) -> R {
            let room = &self.words[at..at + len.div_ceil(8)];
            // SAFETY: `room` holds `len` initialised bytes, and the caller excludes writers.
            show(unsafe {
                let from = UnsafeCell::raw_get(room.as_ptr()).cast::<u8>();
                std::slice::from_raw_parts(from, len)
            })
        }
    }
}

#[cfg(loom)]
mod modelled {
    use loom::cell::UnsafeCell;

    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

    /// Words that two threads take turns with; loom watches every access.
    #[derive(Debug)]
    pub(crate) struct Words {
        words: Box<[UnsafeCell<u64>]>,
    }

    // SAFETY: as the real one; loom finds out if two threads touch a word at once.
    unsafe impl Sync for Words {}

    impl Words {
        pub(crate) fn new(count: usize) -> Self {
            Self { words: (0..count).map(|_| UnsafeCell::new(0)).collect() }
        }

        pub(crate) fn len(&self) -> usize {
            self.words.len()
        }

        /// # Safety
        /// As the real one; loom finds out if the caller is wrong.
        pub(crate) unsafe fn write(&self, at: usize, bytes: &[u8]) {
            for (index, chunk) in bytes.chunks(8).enumerate() {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                // SAFETY: the pointer is valid for the call; loom checks for other accesses.
                self.words[at + index].with_mut(|to| unsafe { *to = u64::from_le_bytes(word) });
            }
        }

        /// # Safety
        /// As the real one; loom finds out if the caller is wrong.
        pub(crate) unsafe fn read<R>(
            &self,
            at: usize,
            len: usize,
            show: impl FnOnce(&[u8]) -> R,
        ) -> R {
            let mut bytes = Vec::new();
            for index in at..at + len.div_ceil(8) {
                // SAFETY: the pointer is valid for the call; loom checks for writers.
                let word = self.words[index].with(|from| unsafe { *from });
                bytes.extend_from_slice(&word.to_le_bytes());
            }
            show(&bytes[..len])
        }
    }
}
