//! A batch of ops on their way through one turn: parsed together, hashed together, executed
//! together.
//!
//! Ops own a copy of their names (two words for names of up to 16 bytes, which is most of them; an
//! arena for the rest), so that nothing points into receive buffers after the input was handed
//! over, and the hash and the table work on whole words.

use alloc::vec::Vec;

use ringway_core::limits::NAME_BYTES_INLINE;
use ringway_core::{ConnId, ShardId};
use ringway_table::Name;

use crate::handle::Bound;
use crate::memory::FORWARDED_BYTES;
use crate::op_code;
use crate::wire::op;

/// One op.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// The name, padded with zeros; or, of a longer one, where it stands in the arena.
    pub words: [u64; 2],
    /// The name's hash, filled in by the hash pass.
    pub hash: u64,
    /// A token, or where further bytes stand in the arena.
    pub extra: u64,
    /// The op's place in the unit that waits for its reply.
    pub index: u16,
    /// Bytes of the name; zero for ops without one.
    pub len: u8,
    /// The op code, internal ones included.
    pub code: u8,
    /// The op's flags.
    pub flags: u8,
    /// The shard that executes it.
    pub target: u8,
}

/// Where the replies of a unit go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Straight into the connection's output: all ops are local, and nothing is ahead of them.
    Direct(ConnId),
    /// Into a pending unit of this shard.
    Pending(u32),
    /// Back to another shard, into its pending unit.
    Mail(ShardId, (u32, u32)),
}

/// Ops that are answered together: a native frame, a RESP command, or a request of another shard.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    /// Where the replies go.
    pub source: Source,
    /// How they are written.
    pub shape: Shape,
    /// The session that acts.
    pub bound: Option<Bound>,
    /// The first op in the batch.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// The client's number of the frame.
    pub sequence: u64,
}

/// How the replies of a unit are written to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A native reply frame.
    Native,
    /// A RESP reply.
    Resp(crate::resp_reply::RespShape),
}

/// The batch.
#[derive(Default)]
pub struct Turn {
    /// Its ops, unit by unit.
    pub ops: Vec<Op>,
    /// Its units.
    pub units: Vec<Unit>,
    /// Names longer than 16 bytes, and other bytes of ops.
    pub arena: Vec<u8>,
    /// Counts the batches: what [`Turn::keep`] gave back is of no use in another one.
    pub serial: u64,
}

impl Turn {
    /// An op on a name, without its hash. The name has 1 to 255 bytes.
    #[inline]
    pub fn name_op(&mut self, code: u8, flags: u8, name: &[u8]) -> Op {
        let words = if name.len() <= NAME_BYTES_INLINE {
            inline_words(name)
        } else {
            let at = self.arena.len() as u64;
            self.arena.extend_from_slice(name);
            [at, 0]
        };
        Op { words, hash: 0, extra: 0, index: 0, len: name.len() as u8, code, flags, target: 0 }
    }

    /// Keeps bytes of an op that are not its name; the result goes to `extra`.
    pub fn keep(&mut self, bytes: &[u8]) -> u64 {
        self.keep_all(&[bytes])
    }

    /// Keeps several pieces as one.
    pub fn keep_all(&mut self, pieces: &[&[u8]]) -> u64 {
        let at = self.arena.len() as u64;
        pieces.iter().for_each(|piece| self.arena.extend_from_slice(piece));
        at << 20 | (self.arena.len() as u64 - at)
    }

    /// What [`Self::keep`] kept.
    pub fn kept(&self, extra: u64) -> &[u8] {
        let (at, len) = ((extra >> 20) as usize, (extra & 0xF_FFFF) as usize);
        &self.arena[at..at + len]
    }

    /// What a message has: its payload, and of one that is fenced or goes to a session the head
    /// (`messages`).
    #[inline]
    pub fn message(&self, op: &Op) -> (&[u8], &[u8]) {
        let head = if op.flags & HEADED == 0 { &[][..] } else { &self.kept(op.extra)[8..] };
        (self.kept(self.payload_place(op)), head)
    }

    /// Where the payload of a message is kept.
    #[inline]
    pub fn payload_place(&self, op: &Op) -> u64 {
        if op.flags & HEADED == 0 {
            return op.extra;
        }
        let (place, _) = self.kept(op.extra).split_first_chunk().expect("kept with its place");
        u64::from_le_bytes(*place)
    }

    /// What an op counts for while it is on its way to another shard: as many as would take the
    /// memory that it does. One that waits there is not on its way.
    #[inline]
    pub fn weight(&self, op: &Op) -> u32 {
        match op.code {
            op::SEND if op.flags & op::SEND_SAME == 0 => message_weight(self.message(op).0.len()),
            op::WAIT if op.flags & op_code::WAIT_BLOCKS != 0 => 0,
            _ => 1,
        }
    }

    /// The op's name, as the table takes it.
    #[inline]
    pub fn name<'a>(&'a self, op: &Op) -> Name<'a> {
        if usize::from(op.len) <= NAME_BYTES_INLINE {
            let name = Name::from_inline(op.words, usize::from(op.len));
            name.expect("checked when parsed: 1 to 16 bytes")
        } else {
            let at = op.words[0] as usize;
            let bytes = &self.arena[at..at + usize::from(op.len)];
            Name::new(bytes).expect("checked when parsed: 1 to 255 bytes")
        }
    }

    /// The bytes of the op's name, appended.
    #[inline]
    pub fn put_name(&self, op: &Op, out: &mut Vec<u8>) {
        if usize::from(op.len) <= NAME_BYTES_INLINE {
            // All 16 bytes and a cut: a copy of unknown length would be a call.
            let end = out.len() + usize::from(op.len);
            let value = u128::from(op.words[0]) | u128::from(op.words[1]) << 64;
            out.extend_from_slice(&value.to_le_bytes());
            out.truncate(end);
        } else {
            let at = op.words[0] as usize;
            out.extend_from_slice(&self.arena[at..at + usize::from(op.len)]);
        }
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.ops.clear();
        self.units.clear();
        self.arena.clear();
        self.serial += 1;
    }
}

/// Flags of a SEND whose kept bytes are the place of its payload (8) and a head.
pub const HEADED: u8 = op::SEND_FENCED | op::SEND_SESSION;

/// What a message counts for on its way to another shard.
#[inline]
pub const fn message_weight(payload: usize) -> u32 {
    1 + (payload / FORWARDED_BYTES) as u32
}

/// A short name as two words, padded with zeros.
#[inline]
pub fn inline_words(name: &[u8]) -> [u64; 2] {
    if let Some(whole) = name.first_chunk::<NAME_BYTES_INLINE>() {
        let value = u128::from_le_bytes(*whole);
        return [value as u64, (value >> 64) as u64];
    }
    let mut padded = [0; NAME_BYTES_INLINE];
    padded[..name.len()].copy_from_slice(name);
    let value = u128::from_le_bytes(padded);
    [value as u64, (value >> 64) as u64]
}
