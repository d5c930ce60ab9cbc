//! Bytes that wait, in their order: put at the end, taken from the front.
//!
//! They lie side by side, so they are read in place. What was taken stays until it is at least half
//! of all; then the rest moves to the front. So a byte moves about once, however small the portions
//! are that are taken.
//!
//! Bounds: memory of twice the bytes that wait, and what `Vec` adds; none when none wait.
//! Not here: how many may wait (the flow's window).

use std::ops::Deref;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    bytes: Vec<u8>,
    taken: usize,
}

impl Pending {
    pub(crate) fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes so many from the front.
    pub(crate) fn take(&mut self, bytes: usize) {
        self.taken += bytes;
        if self.taken == self.bytes.len() {
            *self = Pending::default();
        } else if self.taken >= self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }
}

impl From<Vec<u8>> for Pending {
    fn from(bytes: Vec<u8>) -> Pending {
        Pending { bytes, taken: 0 }
    }
}

/// What waits.
impl Deref for Pending {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text of 16 MiB is taken in small portions, while more comes: all of it in its order, and
    /// each byte moves at most about once.
    #[test]
    fn what_is_taken_in_portions_does_not_move_with_each() {
        const ALL: usize = 16 << 20;
        let byte = |at: usize| (at % 251) as u8;
        let mut pending = Pending::default();
        pending.extend_from_slice(&(0..ALL / 2).map(byte).collect::<Vec<u8>>());
        let (mut written, mut read, mut moved) = (ALL / 2, 0, 0);
        while !pending.is_empty() {
            let portion = pending.len().min(100);
            assert!((read..).zip(&pending[..portion]).all(|(at, got)| *got == byte(at)));
            let next = pending[portion..].as_ptr();
            pending.take(portion);
            moved += if pending.as_ptr() == next { 0 } else { pending.len() };
            read += portion;
            if written < ALL {
                let more: Vec<u8> = (written..written + 64).map(byte).collect();
                pending.extend_from_slice(&more);
                written += more.len();
            }
        }
        assert_eq!((read, pending.bytes.capacity()), (ALL, 0));
        assert!(moved <= ALL, "{moved} bytes of {ALL} were moved");
    }
}
