//! The coder: text to blocks.
//!
//! Text leaves with the call that brings it. What a block can be compressed with is the text of its
//! *run*: the calls with `more` before it, up to a flush or to a block that is stored. Within a run
//! LZ4's table stays as it is, so that a linked block costs no more than one alone.
//!
//! Bounds: nothing is held between runs. Cost: `benches/blocks.rs`.

use std::io::{self, Write};
use std::mem;

use lz4_flex::block::{compress_into, get_maximum_output_size};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use crate::block::{FORGET, HEAD_BYTES_MAX, Packed, packed_head, stored_head};
use crate::look::{self, Finding, Pause};
use crate::{BLOCK_BYTES_MAX, CODER_BYTES_MAX, Counters, TEXT_BYTES_MIN};

/// Whether a flow is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Where it saves something.
    Auto,
    /// Never: all blocks are stored.
    Off,
}

/// One direction of a flow, at the end that writes.
#[derive(Debug)]
pub struct Coder {
    mode: Mode,
    pause: Pause,
    counters: Counters,
    run: Option<Box<Run>>,
}

impl Coder {
    /// A coder of a flow that begins.
    pub fn new(mode: Mode) -> Coder {
        Coder { mode, pause: Pause::default(), counters: Counters::default(), run: None }
    }

    /// Appends blocks with all of `bytes` to `out`. `more` says that the application has written
    /// more than this and it comes at once: the run goes on, and both ends hold memory for it.
    /// Without `more` this is a flush: the run ends. If more was said and then nothing comes, an
    /// empty flush ends the run; where there is none it does nothing.
    pub fn encode(&mut self, bytes: &[u8], more: bool, out: &mut Vec<u8>) {
        let before = out.len();
        self.each_block(bytes, more, |coder, block, more| {
            if !coder.pack(block, more, out) {
                out.extend_from_slice(&stored_head(block));
                out.extend_from_slice(block);
            }
        });
        if !more && self.ends_run() {
            out.push(FORGET);
        }
        self.counters.carried += (out.len() - before) as u64;
    }

    /// The same for who keeps the bytes elsewhere: gives them piece by piece to `sink`, and those
    /// of stored blocks from where they lie. `scratch` is overwritten; one will do for all flows.
    /// Who has only so much room gives no more text than [`crate::carried_bytes_max`] allows.
    pub fn encode_to(
        &mut self,
        bytes: &[u8],
        more: bool,
        scratch: &mut Vec<u8>,
        mut sink: impl FnMut(&[u8]),
    ) {
        let mut carried = 0;
        let mut put = |piece: &[u8]| {
            carried += piece.len() as u64;
            sink(piece);
        };
        self.each_block(bytes, more, |coder, block, more| {
            scratch.clear();
            if coder.pack(block, more, scratch) {
                put(scratch);
            } else {
                put(&stored_head(block));
                put(block);
            }
        });
        if !more && self.ends_run() {
            put(&[FORGET]);
        }
        self.counters.carried += carried;
    }

    /// What went through so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Bytes held beside the coder itself, at most: for a budget.
    pub fn held(&self) -> usize {
        if self.run.is_some() { CODER_BYTES_MAX } else { 0 }
    }

    fn each_block(
        &mut self,
        bytes: &[u8],
        more: bool,
        mut each: impl FnMut(&mut Coder, &[u8], bool),
    ) {
        let mut left = bytes.len();
        for block in bytes.chunks(BLOCK_BYTES_MAX) {
            left -= block.len();
            each(self, block, more || left > 0);
        }
        self.counters.text += bytes.len() as u64;
    }

    /// Whether a run was under way that its last block did not end.
    fn ends_run(&mut self) -> bool {
        self.run.take().is_some()
    }

    /// Appends a compressed block; `false` and nothing appended if it is to be stored.
    fn pack(&mut self, block: &[u8], more: bool, out: &mut Vec<u8>) -> bool {
        match self.try_block(block, more, out) {
            Ok(()) => self.counters.compressed += 1,
            Err(finding) => {
                self.counters.stored += 1;
                // What lies before a stored block is too far away behind it, or nearly so.
                self.run = None;
                if let Some(finding) = finding {
                    self.pause.begin(finding);
                }
                return false;
            }
        }
        true
    }

    /// Compresses, or says that the block is to be stored, and what for if that means something.
    fn try_block(
        &mut self,
        block: &[u8],
        more: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Option<Finding>> {
        if self.mode == Mode::Off || self.pause.covers(block.len()) {
            return Err(None);
        }
        if let Some(finding) = look::beginning(block) {
            return Err(Some(finding));
        }
        if block.len() < TEXT_BYTES_MIN {
            return Err(None);
        }
        if look::is_dense(block) {
            return Err(Some(Finding::Dense));
        }
        if self.saves(block, more, out) {
            self.pause.end();
            Ok(())
        } else {
            Err(Some(Finding::Vain))
        }
    }

    /// Appends a compressed block; `false` and nothing appended if that saves too little.
    fn saves(&mut self, block: &[u8], more: bool, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        if more || self.run.is_some() {
            self.run.get_or_insert_with(Run::new).pack(block, out);
        } else {
            pack_alone(block, out);
        }
        let carried = out.len() - start - HEAD_BYTES_MAX;
        if carried + HEAD_BYTES_MAX + block.len() / LEAST_SAVED > block.len() {
            out.truncate(start);
            return false;
        }
        let packed = Packed { text: block.len() as u32, carried: carried as u32, linked: more };
        out[start..start + HEAD_BYTES_MAX].copy_from_slice(&packed_head(packed));
        if !more {
            self.run = None;
        }
        true
    }
}

/// The part of a block that must be saved for it to be worth decoding it.
const LEAST_SAVED: usize = 128;

/// Compresses a block without history, behind room for a header.
fn pack_alone(block: &[u8], out: &mut Vec<u8>) {
    let start = out.len() + HEAD_BYTES_MAX;
    out.resize(start + get_maximum_output_size(block.len()), 0);
    let carried = compress_into(block, &mut out[start..]).expect("there is room for the worst");
    out.truncate(start + carried);
}

/// A run: LZ4's table and text. The library gives a table that lives as long as a stream only as
/// a writer of LZ4 frames, so this is one, of which the blocks are taken and the frames dropped.
struct Run {
    encoder: FrameEncoder<Tap>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Run")
    }
}

/// Takes what the frame encoder writes while it is open.
#[derive(Default)]
struct Tap {
    open: bool,
    out: Vec<u8>,
}

impl Write for Tap {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.open {
            self.out.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes before each block of an LZ4 frame: its length, little-endian.
const FRAME_BLOCK_HEAD_BYTES: usize = 4;
const _: () = assert!(FRAME_BLOCK_HEAD_BYTES < HEAD_BYTES_MAX);

impl Run {
    fn new() -> Box<Run> {
        let info = FrameInfo::new().block_mode(BlockMode::Linked).block_size(BlockSize::Max64KB);
        Box::new(Run { encoder: FrameEncoder::with_frame_info(info, Tap::default()) })
    }

    /// Compresses a block behind room for a header. What LZ4 makes no smaller it leaves as it is,
    /// and then it is as long as the block.
    fn pack(&mut self, block: &[u8], out: &mut Vec<u8>) {
        const NEVER_FAILS: &str = "memory takes everything";
        // The head of the frame, if this is its first block.
        self.encoder.write_all(block).expect(NEVER_FAILS);
        out.resize(out.len() + HEAD_BYTES_MAX - FRAME_BLOCK_HEAD_BYTES, 0);
        let tap = self.encoder.get_mut();
        mem::swap(&mut tap.out, out);
        tap.open = true;
        self.encoder.flush().expect(NEVER_FAILS);
        let tap = self.encoder.get_mut();
        tap.open = false;
        mem::swap(&mut tap.out, out);
    }
}
