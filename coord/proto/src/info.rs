//! Addresses and metadata of sessions, and values of locks: what of a session has any size.
//!
//! Always: the bytes in use are the sum over everything that was set, by what an allocator takes
//! for it; [`Infos::check`] says whether more fits, and nothing is set that was not checked.
//!
//! Bounds: constant time. Tests: `tests/memory.rs`.

use alloc::boxed::Box;

use crate::wire::status;

/// An empty address and no metadata.
pub const EMPTY_INFO: &[u8] = &[0, 0, 0];

/// What one session has; nothing instead of no bytes.
pub type Info = Option<Box<[u8]>>;

/// The bytes that all of a shard's sessions have.
pub struct Infos {
    bytes: usize,
    most: usize,
}

impl Infos {
    /// None yet, and at most so many bytes.
    pub const fn new(most: usize) -> Self {
        Self { bytes: 0, most }
    }

    /// Bytes in use.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is room for `new`, once what stands in `given_back` is gone; else `FULL`.
    pub fn check(&self, given_back: Option<&Info>, new: &[u8]) -> Result<(), u8> {
        let given_back = given_back.map_or(0, taken_by);
        let fits = self.bytes - given_back + taken(new) <= self.most;
        fits.then_some(()).ok_or(status::FULL)
    }

    /// Replaces what stands in `place`.
    pub fn set(&mut self, place: &mut Info, new: &[u8]) {
        self.bytes = self.bytes - taken_by(place) + taken(new);
        *place = (!new.is_empty()).then(|| new.into());
        assert!(self.bytes <= self.most, "checked before it was set");
    }
}

fn taken_by(info: &Info) -> usize {
    info.as_deref().map_or(0, taken)
}

/// An allocator's classes lie at most a quarter apart, and none is smaller than 16 bytes.
pub(crate) fn taken(info: &[u8]) -> usize {
    match info.len() {
        0 => 0,
        1..16 => 16,
        len => len + len / 4,
    }
}
