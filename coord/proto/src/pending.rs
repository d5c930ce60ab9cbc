//! Units whose replies are not all there yet, kept in the order in which they must be answered.
//!
//! Invariant: a unit is answered once, when its last reply is in and every earlier unit of its
//! connection was answered. Late replies to a unit that is gone find another generation.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ringway_core::ConnId;
use ringway_core::limits::FRAME_BYTES_MAX;

use crate::outcome::Outcome;
use crate::turn::Shape;
use crate::wire::{Reply, status};

/// One unit that waits.
pub struct Pending {
    /// Whose it is.
    pub conn: ConnId,
    /// Counts the units that have had this index.
    pub generation: u32,
    /// Replies still to come.
    pub missing: u32,
    /// The client's number of the frame.
    pub sequence: u64,
    /// How the replies are written.
    pub shape: Shape,
    /// Each op's outcome; bytes stand in `data`.
    pub replies: Vec<Outcome>,
    /// Bytes of replies that have some.
    pub data: Vec<u8>,
    /// The name that the unit's connection waits for, if it blocks until it is granted.
    pub waits_for: Option<Box<[u8]>>,
    in_use: bool,
}

/// All of a shard's.
#[derive(Default)]
pub struct PendingTable {
    units: Vec<Pending>,
    free: Vec<u32>,
    /// Bytes of all replies and data, by capacity.
    bytes: usize,
    /// Units that block their connections until a name is granted.
    blocking: usize,
    /// The generation of a new unit: later than that of any unit that was given back.
    fresh: u32,
}

impl PendingTable {
    /// A new unit of `count` ops, none of them answered.
    pub fn begin(&mut self, conn: ConnId, shape: Shape, sequence: u64, count: usize) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.units.push(Pending {
                conn,
                generation: self.fresh,
                missing: 0,
                sequence: 0,
                shape,
                replies: Vec::new(),
                data: Vec::new(),
                waits_for: None,
                in_use: false,
            });
            (self.units.len() - 1) as u32
        });
        let unit = &mut self.units[index as usize];
        assert!(!unit.in_use, "a free unit");
        unit.conn = conn;
        unit.missing = count as u32;
        unit.sequence = sequence;
        unit.shape = shape;
        let before = unit.bytes();
        unit.replies.resize(count, Outcome::plain(status::BUSY));
        self.bytes = self.bytes + unit.bytes() - before;
        unit.in_use = true;
        index
    }

    /// Notes for which name the connection of a new unit waits.
    pub fn set_waits_for(&mut self, index: u32, name: &[u8]) {
        let unit = &mut self.units[index as usize];
        unit.waits_for = Some(name.into());
        self.bytes += name.len();
        self.blocking += 1;
    }

    /// Units whose connections wait for a name.
    pub const fn blocking(&self) -> usize {
        self.blocking
    }

    /// The unit at an index that is in use.
    #[inline]
    pub fn get(&self, index: u32) -> &Pending {
        &self.units[index as usize]
    }

    /// Index and generation, as another shard echoes them.
    #[inline]
    pub fn id(&self, index: u32) -> (u32, u32) {
        (index, self.units[index as usize].generation)
    }

    /// The unit that another shard echoed, unless it is gone.
    #[inline]
    pub fn find(&self, id: (u32, u32)) -> Option<&Pending> {
        self.units.get(id.0 as usize).filter(|unit| unit.in_use && unit.generation == id.1)
    }

    /// Takes one op's reply. The caller looks at `missing` afterwards.
    #[inline]
    pub fn answer(&mut self, index: u32, at: u16, outcome: Outcome) {
        let unit = &mut self.units[index as usize];
        assert!(unit.missing > 0, "each op is answered once");
        unit.replies[usize::from(at)] = outcome;
        unit.missing -= 1;
    }

    /// Takes one op's reply as it came off a mailbox.
    #[inline]
    pub fn answer_wire(&mut self, index: u32, at: u16, reply: &Reply<'_>) {
        match reply {
            Reply::Data(status, bytes) => self.answer_data(index, at, *status, bytes),
            _ => self.answer(index, at, crate::outcome::outcome_of(reply)),
        }
    }

    /// Takes `count` replies as they came off a mailbox, each behind its place. True if the one at
    /// `awaited` is among them; `None` if they do not parse.
    pub fn answer_run(
        &mut self,
        index: u32,
        (count, mut rest): (u16, &[u8]),
        awaited: Option<u16>,
    ) -> Option<bool> {
        let mut is_there = false;
        for _ in 0..count {
            let (at, reply) = crate::mail::reply(&mut rest)?;
            self.answer_wire(index, at, &reply);
            is_there |= awaited == Some(at);
        }
        Some(is_there)
    }

    /// Takes one op's reply that has bytes.
    pub fn answer_data(&mut self, index: u32, at: u16, status: u8, bytes: &[u8]) {
        let unit = &mut self.units[index as usize];
        let place = unit.data.len();
        if place > 0 && place + bytes.len() > FRAME_BYTES_MAX {
            // It could not be sent in one frame anyway.
            return self.answer(index, at, Outcome::plain(crate::wire::status::BUSY));
        }
        let before = unit.bytes();
        unit.data.extend_from_slice(bytes);
        self.bytes = self.bytes + unit.bytes() - before;
        self.answer(index, at, Outcome::bytes(status, place, bytes.len()));
    }

    /// So many ops of a unit will never be executed; they stay `BUSY`.
    pub fn abandon(&mut self, index: u32, ops: u16) {
        let unit = &mut self.units[index as usize];
        unit.missing -= u32::from(ops);
    }

    /// Forgets a unit that was answered, or whose connection is gone.
    pub fn end(&mut self, index: u32) {
        let unit = &mut self.units[index as usize];
        unit.generation = unit.generation.wrapping_add(1);
        unit.in_use = false;
        self.bytes -= unit.bytes();
        self.blocking -= usize::from(unit.waits_for.take().is_some());
        unit.replies.clear();
        unit.data.clear();
        if unit.bytes() > BYTES_KEPT || self.bytes > ALL_KEPT {
            (unit.replies, unit.data) = (Vec::new(), Vec::new());
        }
        self.bytes += unit.bytes();
        self.free.push(index);
    }

    /// Bytes of all units, those included that are kept to be used again.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes + self.units.capacity() * size_of::<Pending>()
    }

    /// Bytes of units in use, and of what the others keep in moderation.
    pub fn bytes_in_use(&self) -> usize {
        self.bytes + self.len() * size_of::<Pending>()
    }

    /// Bytes of one unit's replies.
    pub fn bytes_of(&self, index: u32) -> usize {
        self.units[index as usize].bytes()
    }

    /// Gives back what units that are not in use keep.
    pub fn release_spare(&mut self) {
        for index in &self.free {
            let unit = &mut self.units[*index as usize];
            self.bytes -= unit.bytes();
            (unit.replies, unit.data) = (Vec::new(), Vec::new());
        }
        if self.is_empty() {
            let latest = self.units.iter().map(|unit| unit.generation).max();
            self.fresh = latest.unwrap_or(self.fresh);
            (self.units, self.free) = (Vec::new(), Vec::new());
        }
    }

    /// Units in use.
    pub fn len(&self) -> usize {
        self.units.len() - self.free.len()
    }

    /// Whether no unit is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Pending {
    /// Bytes of its replies, by capacity, and of the name that it waits for.
    #[inline]
    fn bytes(&self) -> usize {
        let name = self.waits_for.as_ref().map_or(0, |name| name.len());
        self.replies.capacity() * size_of::<Outcome>() + self.data.capacity() + name
    }
}

/// A unit that ends keeps buffers of so many bytes, to be used again...
const BYTES_KEPT: usize = 16 * 1024;
/// ... unless all units together have more than this.
const ALL_KEPT: usize = 1024 * 1024;
