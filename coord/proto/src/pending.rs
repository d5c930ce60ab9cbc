//! Units whose replies are not all there yet, kept in the order in which they must be answered.
//!
//! Invariant: a unit is answered once, when its last reply is in and every earlier unit of its
//! connection was answered. Late replies to a unit that is gone find another generation.

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
    in_use: bool,
}

/// All of a shard's.
#[derive(Default)]
pub struct PendingTable {
    units: Vec<Pending>,
    free: Vec<u32>,
}

impl PendingTable {
    /// A new unit of `count` ops, none of them answered.
    pub fn begin(&mut self, conn: ConnId, shape: Shape, sequence: u64, count: usize) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.units.push(Pending {
                conn,
                generation: 0,
                missing: 0,
                sequence: 0,
                shape,
                replies: Vec::new(),
                data: Vec::new(),
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
        unit.replies.resize(count, Outcome::plain(status::BUSY));
        unit.in_use = true;
        index
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
        unit.data.extend_from_slice(bytes);
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
        unit.replies.clear();
        unit.data.clear();
        if unit.data.capacity() > DATA_KEPT {
            unit.data = Vec::new();
        }
        self.free.push(index);
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

/// A unit's buffer larger than this is given back when the unit ends.
const DATA_KEPT: usize = 16 * 1024;
