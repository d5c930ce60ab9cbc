//! What is lent to the kernel: the owner of every byte that it may still read, which are those of
//! sends and the addresses of connects.
//!
//! A request moves its bytes in here and gets a slot; the slot gives them back at the request's
//! one and last completion, and not before, whatever was cancelled in between.
//!
//! Bounds: one slot per request in flight, 48 bytes each; slots are reused, never given back.
//! Constant time. Tests below.

use crate::sq::Tag;

/// A request in flight, or a free slot.
struct Slot {
    bytes: Vec<u8>,
    from: u32,
    len: u32,
    tag: Tag,
    /// What a quiet send reported when it could not send everything.
    shortfall: Option<i32>,
    busy: bool,
}

/// Bytes of requests in flight, by slot.
#[derive(Default)]
pub(crate) struct Lent {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// A request that is over: what it owned, and what was to be read.
pub(crate) struct Done {
    pub(crate) bytes: Vec<u8>,
    pub(crate) tag: Tag,
    pub(crate) len: u32,
    pub(crate) shortfall: Option<i32>,
}

impl Lent {
    /// Takes the bytes in; `range` is what the kernel is to read.
    pub(crate) fn begin(&mut self, bytes: Vec<u8>, range: std::ops::Range<usize>, tag: Tag) -> u32 {
        assert!(range.start < range.end && range.end <= bytes.len(), "a loan of what is not there");
        let (from, len) = (narrow(range.start), narrow(range.end - range.start));
        let slot = Slot { bytes, from, len, tag, shortfall: None, busy: true };
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = slot;
            return index;
        }
        self.slots.push(slot);
        narrow(self.slots.len() - 1)
    }

    /// The bytes that a busy slot lends. They stay where they are until [`Self::end`].
    pub(crate) fn to_read(&self, index: u32) -> &[u8] {
        let slot = &self.slots[index as usize];
        assert!(slot.busy, "slot {index} is free");
        &slot.bytes[slot.from as usize..][..slot.len as usize]
    }

    /// Notes what a quiet send reported.
    pub(crate) fn note_shortfall(&mut self, index: u32, raw: i32) {
        let slot = &mut self.slots[index as usize];
        assert!(slot.busy, "slot {index} is free");
        slot.shortfall = Some(raw);
    }

    /// Gives the bytes back: the kernel has said its last word about this slot.
    pub(crate) fn end(&mut self, index: u32) -> Done {
        let slot = &mut self.slots[index as usize];
        assert!(std::mem::take(&mut slot.busy), "slot {index} ended twice");
        self.free.push(index);
        let bytes = std::mem::take(&mut slot.bytes);
        Done { bytes, tag: slot.tag, len: slot.len, shortfall: slot.shortfall.take() }
    }

    /// Gives up all bytes for ever: the kernel may read them after we are gone.
    pub(crate) fn leak(&mut self) {
        for slot in self.slots.drain(..) {
            std::mem::forget(slot.bytes);
        }
    }
}

fn narrow(value: usize) -> u32 {
    u32::try_from(value).expect("loans are bounded far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer is with the table from begin to end, at one address, and comes back whole.
    #[test]
    fn bytes_stay_put_until_the_end() {
        let mut table = Lent::default();
        let bytes = b"0123456789".to_vec();
        let address = bytes.as_ptr();
        let slot = table.begin(bytes, 2..10, Tag(7));
        let others: Vec<u32> = (0..100).map(|_| table.begin(vec![0; 8], 0..8, Tag(1))).collect();
        assert_eq!(table.to_read(slot), b"23456789");
        assert_eq!(table.to_read(slot).as_ptr(), address.wrapping_add(2));
        table.note_shortfall(slot, 3);
        let done = table.end(slot);
        assert_eq!((done.bytes.as_ptr(), done.tag, done.shortfall), (address, Tag(7), Some(3)));
        assert!(others.iter().all(|other| table.end(*other).shortfall.is_none()));
        assert_eq!(table.begin(vec![1], 0..1, Tag(2)), others[99], "slots are reused");
    }

    /// A completion that the kernel never promised is our bug, not a second owner.
    #[test]
    #[should_panic(expected = "ended twice")]
    fn a_slot_ends_once() {
        let mut table = Lent::default();
        let slot = table.begin(vec![1], 0..1, Tag(0));
        table.end(slot);
        table.end(slot);
    }
}
