//! A growing array in pages: it never moves what it holds and never copies itself to grow.
//!
//! A plain vector of a million sessions would double its memory and stall for the copy; this one
//! grows by a page of [`PAGE`] items. Indexing costs one more load than a vector's.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Items in a page.
const PAGE: usize = 256;

/// The array. New items are `T::default()`.
pub struct Paged<T> {
    pages: Vec<Box<[T]>>,
    len: usize,
}

impl<T> Default for Paged<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), len: 0 }
    }
}

impl<T: Default> Paged<T> {
    /// Makes the array at least `len` long.
    pub fn grow_to(&mut self, len: usize) {
        while self.pages.len() * PAGE < len {
            self.pages.push((0..PAGE).map(|_| T::default()).collect());
        }
        self.len = self.len.max(len);
    }

    /// Makes room for one more behind place zero, which stays what it is; its place.
    pub fn append(&mut self) -> u32 {
        let at = self.len.max(1);
        self.grow_to(at + 1);
        at as u32
    }

    /// Items there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was ever needed of it.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One item.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.pages.get(index / PAGE)?.get(index % PAGE)
    }

    /// One item, to be changed.
    #[inline]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.pages.get_mut(index / PAGE)?.get_mut(index % PAGE)
    }

    /// Bytes on the heap.
    pub const fn bytes(&self) -> usize {
        self.pages.len() * PAGE * size_of::<T>() + self.pages.capacity() * size_of::<usize>() * 2
    }
}

impl<T: Default> core::ops::Index<usize> for Paged<T> {
    type Output = T;
    #[inline]
    fn index(&self, index: usize) -> &T {
        &self.pages[index / PAGE][index % PAGE]
    }
}

impl<T: Default> core::ops::IndexMut<usize> for Paged<T> {
    #[inline]
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.pages[index / PAGE][index % PAGE]
    }
}
