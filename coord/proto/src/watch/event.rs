//! What is told of a name, and how it is written: the one place where notices of watches are
//! encoded.
//!
//! A change is encoded once, when it happens, as all of an `EVENT` but the watch's number. Logs
//! and mail carry these bytes as they are, and delivering one is a copy. A connection that speaks
//! RESP3 is told the same as pushes, whose words are in `resp_reply`.

use alloc::vec::Vec;

use ringway_core::limits::{FRAME_OPS_MAX, NAME_BYTES_MAX};
use ringway_core::wire::{Put, Reader, Truncated};
use ringway_core::{Epoch, SessionId, ShardId, Token};

use crate::resp_reply::{push_event, push_filter, push_state};
use crate::wire::{FrameWriter, KIND_PUSH, OP_HEADER_BYTES, push};

/// What happened to a name.
///
/// Acquired and released are one class: the newest of both says who has the name, so an earlier
/// one of either is told no more. The others are a class each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A session has it now. If another had it before, that one does not any more, unless the name
    /// is shared.
    Acquired = push::KIND_ACQUIRED,
    /// A session has it no more.
    Released = push::KIND_RELEASED,
    /// Its metadata is another.
    Changed = push::KIND_CHANGED,
    /// Another number of sessions waits for it.
    Waiting = push::KIND_WAITING,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Acquired, Kind::Released, Kind::Changed, Kind::Waiting];

    /// What RESP calls it.
    pub const fn word(self) -> &'static [u8] {
        match self {
            Kind::Acquired => b"acquired",
            Kind::Released => b"released",
            Kind::Changed => b"changed",
            Kind::Waiting => b"waiting",
        }
    }

    /// The bit that stands for it in the mask of a watch.
    #[inline]
    pub const fn bit(self) -> u8 {
        1 << (self as u8 - 1)
    }

    /// Changes of one name and one class replace each other.
    #[inline]
    const fn class(self) -> u8 {
        match self {
            Kind::Acquired | Kind::Released => 0,
            Kind::Changed => 1,
            Kind::Waiting => 2,
        }
    }
}

/// All kinds.
pub const MASK_ALL: u8 = 0x0F;

/// One change of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// What happened.
    pub kind: Kind,
    /// Who has it, or had it.
    pub session: SessionId,
    /// Under which token.
    pub token: Token,
    /// The version of the metadata if that changed; how many wait if that did; else zero.
    pub extra: u32,
    /// Of a release: whether others hold the name still.
    pub shared: bool,
    /// The name.
    pub name: &'a [u8],
}

const FLAGS_AT: usize = 1;
const KIND_AT: usize = 2;
const SEQUENCE_AT: usize = 7;
const SESSION_AT: usize = 15;
const TOKEN_AT: usize = 23;
const NAME_AT: usize = 31;

/// The longest event: with a name of 255 bytes and a number behind it.
pub const EVENT_BYTES_MAX: usize = NAME_AT + 1 + NAME_BYTES_MAX + 4;
/// The flag of an event behind which an earlier one is hidden.
pub const SKIPPED: u8 = push::EVENT_SKIPPED;
/// The flag of a release of a name that others hold still.
pub const SHARED: u8 = push::EVENT_SHARED;

/// Encodes a change: shard, flags, kind, epoch, sequence, session, token, name, and the number of
/// those kinds that have one.
pub fn encode(out: &mut Vec<u8>, at: (ShardId, Epoch, u64), change: &Change<'_>) {
    let (shard, epoch, sequence) = at;
    out.put_u8(shard.0);
    out.put_u8(u8::from(change.shared) * SHARED);
    out.put_u8(change.kind as u8);
    out.put_u32(epoch.0);
    out.put_u64(sequence);
    out.put_u64(change.session.0);
    out.put_u64(change.token.0);
    out.put_short_bytes(change.name);
    if matches!(change.kind, Kind::Changed | Kind::Waiting) {
        out.put_u32(change.extra);
    }
}

/// An encoded change, read where it stands.
#[derive(Clone, Copy)]
pub struct Event<'a>(pub &'a [u8]);

impl<'a> Event<'a> {
    /// The shard it happened at.
    #[inline]
    pub fn shard(&self) -> ShardId {
        ShardId(self.0[0])
    }

    /// Its number there.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.number_at(SEQUENCE_AT)
    }

    /// Who has the name, or had it.
    pub fn session(&self) -> SessionId {
        SessionId(self.number_at(SESSION_AT))
    }

    /// Under which token.
    pub fn token(&self) -> Token {
        Token(self.number_at(TOKEN_AT))
    }

    #[inline]
    fn number_at(&self, at: usize) -> u64 {
        let bytes = self.0[at..].first_chunk().expect("what is encoded has a fixed part");
        u64::from_le_bytes(*bytes)
    }

    /// The number of those kinds that have one, else zero.
    pub fn extra(&self) -> u32 {
        let end = NAME_AT + 1 + usize::from(self.0[NAME_AT]);
        self.0[end..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// Of a release: whether others hold the name still.
    pub fn is_shared(&self) -> bool {
        self.0[FLAGS_AT] & SHARED != 0
    }

    /// Whether an earlier one is hidden behind it from everybody.
    #[inline]
    pub fn is_skipped(&self) -> bool {
        self.0[FLAGS_AT] & SKIPPED != 0
    }

    /// Whether a watch with this mask wants it.
    #[inline]
    pub fn is_wanted(&self, mask: u8) -> bool {
        mask & (1 << (self.0[KIND_AT] - 1)) != 0
    }

    /// The name.
    #[inline]
    pub fn name(&self) -> &'a [u8] {
        let len = usize::from(self.0[NAME_AT]);
        &self.0[NAME_AT + 1..NAME_AT + 1 + len]
    }

    /// What it replaces has the same: its class and its name.
    #[inline]
    pub fn key(&self) -> (u8, &'a [u8]) {
        (self.kind().class(), self.name())
    }

    /// What happened.
    #[inline]
    pub fn kind(&self) -> Kind {
        match self.0[KIND_AT] {
            push::KIND_ACQUIRED => Kind::Acquired,
            push::KIND_RELEASED => Kind::Released,
            push::KIND_CHANGED => Kind::Changed,
            push::KIND_WAITING => Kind::Waiting,
            other => unreachable!("kind {other} was never encoded"),
        }
    }
}

/// Appends an event to a message, behind its length; `skipped` if its reader has missed one.
pub fn put_event(out: &mut Vec<u8>, event: &[u8], skipped: bool) {
    out.put_u16(event.len() as u16);
    let at = out.len();
    out.extend_from_slice(event);
    out[at + FLAGS_AT] |= u8::from(skipped) * SKIPPED;
}

/// Takes an event off a message.
pub fn next_event<'a>(reader: &mut Reader<'a>) -> Result<Event<'a>, Truncated> {
    Ok(Event(reader.long_bytes()?))
}

/// Writes notices of one watch at the end of a connection's output.
pub struct Notices<'a> {
    out: &'a mut Vec<u8>,
    form: Form<'a>,
    /// Notices written.
    pub written: u64,
    start: usize,
}

/// As what a connection hears notices.
enum Form<'a> {
    /// Push frames, with the watch's number.
    Native(Frames),
    /// RESP3 pushes. What is of no one name says the filter, since the client has no number.
    Resp3(&'a [u8]),
}

/// Push frames of one watch.
struct Frames {
    frame: Option<FrameWriter>,
    in_frame: usize,
    watch: u32,
    /// Bytes that a frame may have.
    most: usize,
}

impl<'a> Notices<'a> {
    /// None yet, in frames. None is longer than `most`, which one notice and its frame fit into.
    pub fn new(out: &'a mut Vec<u8>, watch: u32, most: usize) -> Self {
        Self::of(out, Form::Native(Frames { frame: None, in_frame: 0, watch, most }))
    }

    /// None yet, as RESP3 pushes.
    pub fn resp3(out: &'a mut Vec<u8>, filter: &'a [u8]) -> Self {
        Self::of(out, Form::Resp3(filter))
    }

    fn of(out: &'a mut Vec<u8>, form: Form<'a>) -> Self {
        let start = out.len();
        Self { out, form, written: 0, start }
    }

    /// Bytes that were written.
    pub fn bytes(&self) -> usize {
        self.out.len() - self.start
    }

    /// `EVENT`.
    #[inline]
    pub fn event(&mut self, event: Event<'_>, skipped: bool) {
        self.written += 1;
        match &mut self.form {
            Form::Native(frames) => {
                let flags = frames.begin(self.out, push::EVENT, event.0.len()) + FLAGS_AT;
                self.out.extend_from_slice(event.0);
                self.out[flags] |= u8::from(skipped) * SKIPPED;
            }
            Form::Resp3(_) => push_event(self.out, event, skipped),
        }
    }

    /// `STATE`.
    pub fn state(&mut self, shard: ShardId, owner: (SessionId, Token), name: &[u8]) {
        self.written += 1;
        match &mut self.form {
            Form::Native(frames) => {
                frames.begin(self.out, push::STATE, 17 + name.len());
                self.out.put_u8(shard.0);
                self.out.put_u64(owner.0.0);
                self.out.put_u64(owner.1.0);
                self.out.extend_from_slice(name);
            }
            Form::Resp3(_) => push_state(self.out, owner, name),
        }
    }

    /// `SNAPSHOT_END`.
    pub fn snapshot_end(&mut self) {
        self.plain(push::SNAPSHOT_END, b"snapshot-end");
    }

    /// `GAP`.
    pub fn gap(&mut self) {
        self.plain(push::GAP, b"gap");
    }

    fn plain(&mut self, code: u8, word: &[u8]) {
        self.written += 1;
        match &mut self.form {
            Form::Native(frames) => {
                frames.begin(self.out, code, 0);
            }
            Form::Resp3(filter) => push_filter(self.out, word, filter),
        }
    }

    /// Ends the last frame.
    pub fn finish(mut self) -> (usize, u64) {
        if let Form::Native(frames) = &mut self.form {
            frames.end(self.out);
        }
        (self.bytes(), self.written)
    }
}

impl Frames {
    /// Starts a notice of so many bytes behind the watch's number; where they begin.
    #[inline]
    fn begin(&mut self, out: &mut Vec<u8>, code: u8, len: usize) -> usize {
        let is_long = |frame: &FrameWriter| frame.len(out) + NOTICE_HEAD + len > self.most;
        let full = self.in_frame == FRAME_OPS_MAX || self.frame.as_ref().is_some_and(is_long);
        if full {
            self.end(out);
        }
        if self.frame.is_none() {
            self.frame = Some(FrameWriter::begin(out, KIND_PUSH, 0, 0));
        }
        self.in_frame += 1;
        let len = ((len + 4) as u16).to_le_bytes();
        let watch = self.watch.to_le_bytes();
        let head = [code, 0, len[0], len[1], watch[0], watch[1], watch[2], watch[3]];
        out.extend_from_slice(&head);
        out.len()
    }

    fn end(&mut self, out: &mut [u8]) {
        if let Some(mut frame) = self.frame.take() {
            frame.add(self.in_frame as u16);
            frame.finish(out);
        }
        self.in_frame = 0;
    }
}

/// Bytes of a notice before what it says: the header and the watch's number.
const NOTICE_HEAD: usize = OP_HEADER_BYTES + 4;

const _: () = assert!(OP_HEADER_BYTES == 4, "what a notice's head is written as");
const _: () = {
    let longest = crate::wire::FRAME_HEADER_BYTES + NOTICE_HEAD + EVENT_BYTES_MAX;
    assert!(longest <= crate::wire::FRAME_BYTES_FLOOR as usize, "what every client takes");
};
