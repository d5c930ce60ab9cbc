//! The decoder: carried bytes, cut anywhere, to text.
//!
//! A stored block is delivered where it lies. A block of LZ4 is read where it lies if all of it is
//! there, and gathered otherwise. Text is kept only behind a linked block.
//!
//! Invariants:
//! - D1  `gathered` is empty but in the middle of a block of LZ4.
//! - D2  Between blocks without history nothing is held.

use std::mem;

use lz4_flex::block::{DecompressError, decompress_into, decompress_into_with_dict};

use crate::block::{HEAD_BYTES_MAX, Head, Packed};
use crate::{BLOCK_BYTES_MAX, Counters, HISTORY_BYTES_MAX};

/// Why carried bytes are no compressed stream. The peer's doing: the flow cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Malformed {
    /// No block has this kind.
    Kind(u8),
    /// A block of LZ4 that is not shorter than its text.
    Larger,
    /// Not LZ4, or it refers to text that there is not.
    Block,
    /// LZ4 of less or more text than its header says.
    Length,
    /// The stream ended within a block.
    Unfinished,
}

/// One direction of a flow, at the end that reads.
#[derive(Debug)]
pub struct Decoder {
    counters: Counters,
    state: State,
    held: Option<Box<Held>>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before or within a header; so much of it is there.
    Head {
        bytes: [u8; HEAD_BYTES_MAX],
        there: u8,
    },
    Stored {
        left: u32,
    },
    Packed(Packed),
    /// Nothing after a mistake means anything.
    Failed(Malformed),
}

const BETWEEN_BLOCKS: State = State::Head { bytes: [0; HEAD_BYTES_MAX], there: 0 };

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new()
    }
}

impl Decoder {
    /// A decoder of a flow that begins.
    pub fn new() -> Decoder {
        Decoder { counters: Counters::default(), state: BETWEEN_BLOCKS, held: None }
    }

    /// Takes the next carried bytes and delivers all text that is complete with them, at most
    /// [`BLOCK_BYTES_MAX`] at a time. After a mistake every call says the same again.
    pub fn decode(
        &mut self,
        mut carried: &[u8],
        mut deliver: impl FnMut(&[u8]),
    ) -> Result<(), Malformed> {
        while let Some(text) = self.next(&mut carried)? {
            deliver(text);
        }
        Ok(())
    }

    /// The same by steps, for who may have to stop: takes from the front of `carried` what it needs
    /// for the next piece of text. `None`: all was taken, and nothing is complete.
    pub fn next<'a, 'c: 'a>(
        &'a mut self,
        carried: &mut &'c [u8],
    ) -> Result<Option<&'a [u8]>, Malformed> {
        self.next_of(carried, false)
    }

    /// Likewise, but only of stored blocks, whose text is as long as what is carried: there is
    /// nothing to gain by waiting with those. `None` also before a block that is compressed.
    pub fn next_stored<'a, 'c: 'a>(
        &'a mut self,
        carried: &mut &'c [u8],
    ) -> Result<Option<&'a [u8]>, Malformed> {
        self.next_of(carried, true)
    }

    fn next_of<'a, 'c: 'a>(
        &'a mut self,
        carried: &mut &'c [u8],
        stored_alone: bool,
    ) -> Result<Option<&'a [u8]>, Malformed> {
        loop {
            match self.state {
                State::Head { .. } => {
                    if !self.head(carried)? {
                        return Ok(None);
                    }
                }
                State::Stored { left } => {
                    let Some(text) = self.take(carried, left as usize) else { return Ok(None) };
                    let left = left - text.len() as u32;
                    self.state = if left > 0 { State::Stored { left } } else { BETWEEN_BLOCKS };
                    self.counters.text += text.len() as u64;
                    return Ok(Some(text));
                }
                State::Packed(_) if stored_alone => return Ok(None),
                State::Packed(packed) => {
                    let before = carried.len();
                    let unpacked = self.held.get_or_insert_default().unpack(packed, carried);
                    self.counters.carried += (before - carried.len()) as u64;
                    if !unpacked.map_err(|malformed| self.fail(malformed))? {
                        return Ok(None);
                    }
                    self.state = BETWEEN_BLOCKS;
                    self.counters.compressed += 1;
                    self.counters.text += u64::from(packed.text);
                    return Ok(self.held.as_ref().map(|held| held.text(packed)));
                }
                State::Failed(malformed) => return Err(malformed),
            }
        }
    }

    /// The stream has ended; it must not have done so within a block.
    pub fn end(&self) -> Result<(), Malformed> {
        match self.state {
            State::Head { there: 0, .. } => Ok(()),
            State::Failed(malformed) => Err(malformed),
            State::Head { .. } | State::Stored { .. } | State::Packed(_) => {
                Err(Malformed::Unfinished)
            }
        }
    }

    /// What went through so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Bytes held beside the decoder itself: for a budget.
    pub fn held(&self) -> usize {
        self.held
            .as_ref()
            .map_or(0, |held| size_of::<Held>() + held.gathered.capacity() + held.window.capacity())
    }

    /// Reads on in a header; `false` if bytes are missing.
    fn head(&mut self, carried: &mut &[u8]) -> Result<bool, Malformed> {
        let State::Head { mut bytes, there } = self.state else { return Ok(true) };
        let mut there = usize::from(there);
        loop {
            let needed = match there {
                0 => 1,
                _ => Head::bytes(bytes[0]).map_err(|malformed| self.fail(malformed))?,
            };
            if there == needed {
                break;
            }
            let Some(piece) = self.take(carried, needed - there) else {
                self.state = State::Head { bytes, there: there as u8 };
                if there == 0 && self.held.as_ref().is_some_and(|held| held.history == 0) {
                    self.held = None;
                }
                return Ok(false);
            };
            bytes[there..there + piece.len()].copy_from_slice(piece);
            there += piece.len();
        }
        self.state = match Head::read(&bytes[..there]).map_err(|malformed| self.fail(malformed))? {
            Head::Stored { text } => {
                self.counters.stored += 1;
                self.held = None;
                State::Stored { left: text as u32 }
            }
            Head::Packed(packed) => State::Packed(packed),
            Head::Forget => {
                self.held = None;
                BETWEEN_BLOCKS
            }
        };
        Ok(true)
    }

    /// Takes up to `most` of the carried bytes, if there are any.
    fn take<'c>(&mut self, carried: &mut &'c [u8], most: usize) -> Option<&'c [u8]> {
        let (piece, rest) = carried.split_at(most.min(carried.len()));
        *carried = rest;
        self.counters.carried += piece.len() as u64;
        (!piece.is_empty()).then_some(piece)
    }

    fn fail(&mut self, malformed: Malformed) -> Malformed {
        self.state = State::Failed(malformed);
        self.held = None;
        malformed
    }
}

/// What is held in the middle of things.
#[derive(Debug, Default)]
struct Held {
    /// The beginning of a block of LZ4.
    gathered: Vec<u8>,
    /// Text. The last block's ends at `end`.
    window: Vec<u8>,
    end: usize,
    /// So many bytes before `end` may be referred to.
    history: usize,
}

/// Where history and a block fit in.
const WINDOW_BYTES: usize = HISTORY_BYTES_MAX + BLOCK_BYTES_MAX;

impl Held {
    /// The text of the block that was unpacked last.
    fn text(&self, packed: Packed) -> &[u8] {
        &self.window[self.end - packed.text as usize..self.end]
    }

    /// Unpacks a block when all of it is there; `false` if some is still to come.
    fn unpack(&mut self, packed: Packed, carried: &mut &[u8]) -> Result<bool, Malformed> {
        let missing = packed.carried as usize - self.gathered.len();
        let (piece, rest) = carried.split_at(missing.min(carried.len()));
        *carried = rest;
        if piece.len() == packed.carried as usize {
            return self.unpack_whole(packed, piece).map(|()| true);
        }
        self.gathered.reserve_exact(missing);
        self.gathered.extend_from_slice(piece);
        if piece.len() < missing {
            return Ok(false);
        }
        let mut gathered = mem::take(&mut self.gathered);
        let unpacked = self.unpack_whole(packed, &gathered);
        gathered.clear();
        self.gathered = gathered;
        unpacked.map(|()| true)
    }

    fn unpack_whole(&mut self, packed: Packed, block: &[u8]) -> Result<(), Malformed> {
        let length = packed.text as usize;
        let (text, history) = self.room(length, packed.linked);
        let unpacked = if history.is_empty() {
            decompress_into(block, text)
        } else {
            decompress_into_with_dict(block, text, history)
        };
        match unpacked {
            Ok(unpacked) if unpacked == length => {}
            Ok(_) => return Err(Malformed::Length),
            Err(DecompressError::OutputTooSmall { .. }) => return Err(Malformed::Length),
            Err(_) => return Err(Malformed::Block),
        }
        self.history =
            if packed.linked { (self.history + length).min(HISTORY_BYTES_MAX) } else { 0 };
        Ok(())
    }

    /// Makes room for a block's text and moves `end` behind it. Also gives the history before it.
    ///
    /// A block alone gets what it needs, the first of a run the whole window, which is all that
    /// the run allocates. Text is laid one block behind the other. At the end of the window history
    /// moves to the front; but a full block goes there alone: it is all of the next one's history.
    fn room(&mut self, length: usize, linked: bool) -> (&mut [u8], &[u8]) {
        let history = self.end - self.history..self.end;
        let needed = if linked { WINDOW_BYTES } else { length };
        if self.history == 0 && self.window.len() < needed {
            // The old one goes first: there are never two.
            self.window = Vec::new();
            self.window = vec![0; needed];
        }
        if self.history == 0 {
            self.end = 0;
        } else if history.end + length > WINDOW_BYTES {
            if length == HISTORY_BYTES_MAX && length <= history.start {
                self.end = length;
                let (text, rest) = self.window.split_at_mut(length);
                return (text, &rest[history.start - length..history.end - length]);
            }
            self.window.copy_within(history, 0);
            self.end = self.history;
        }
        let start = self.end;
        self.end += length;
        let (before, text) = self.window.split_at_mut(start);
        (&mut text[..length], &before[start - self.history..])
    }
}
