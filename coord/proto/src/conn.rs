//! What a shard keeps of one connection between turns.
//!
//! An idle connection owns no buffer: what it sent is executed, what it was told is sent.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::handle::Bound;

/// How a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speech {
    /// Its first byte has not come yet.
    #[default]
    Unknown,
    /// Native; the preface was answered.
    Native,
    /// RESP, version 2 until `HELLO 3`.
    Resp2,
    /// RESP, version 3.
    Resp3,
}

/// A frame or command in the middle of which the connection has to wait.
#[derive(Debug)]
pub struct Stalled {
    /// The unit that collects the replies.
    pub pending: Option<u32>,
    /// The client's number of the frame.
    pub sequence: u64,
    /// Ops of the whole frame.
    pub count: u16,
    /// The op to go on with.
    pub index: u16,
    /// Bytes of the payload, before the ops, that the next message may repeat.
    pub payload: Option<u32>,
    /// The ops from there on.
    pub bytes: Vec<u8>,
}

/// What a connection waits for before it executes anything more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Waits {
    /// Nothing.
    #[default]
    No,
    /// The answer to an op of a unit that may change its session, or waits itself.
    Op(u32, u16),
    /// Its bare session.
    Bare,
    /// The answers to all its earlier units.
    Barrier,
}

/// One connection.
#[derive(Default)]
pub struct Conn {
    /// Counts the connections that have had this index.
    pub generation: u32,
    /// Whether there is one now.
    pub open: bool,
    /// How it speaks.
    pub speech: Speech,
    /// What it waits for.
    pub waits: Waits,
    /// Its reader is too slow, or a shard it needs is too busy: nothing more is executed.
    pub blocked: bool,
    /// It is not read any more.
    pub paused: bool,
    /// It will be closed when its replies are out; what it still sends is ignored.
    pub closing: bool,
    /// Its frames could not be followed; the last thing it hears says so.
    pub broken: bool,
    /// It was ended for the memory it held.
    pub cut: bool,
    /// Its client sends nothing more; it is closed when all that came is answered.
    pub ended: bool,
    /// It stands in the shard's list of connections with unparsed bytes.
    pub ready: bool,
    /// Its session is bare: both end together.
    pub bare: bool,
    /// It sends by a lane.
    pub laned: bool,
    /// The largest frame that its client accepts, in units of 4 KiB.
    pub frame_pages: u8,
    /// The opening of a bare session failed with this status.
    pub refused: u8,
    /// The index of its identity, once authenticated.
    pub grantee: Option<u32>,
    /// Its session.
    pub bound: Option<Bound>,
    /// How far a RESP command that is not whole was looked at.
    pub progress: crate::resp::Progress,
    /// Fewer unparsed bytes than this are not worth looking at.
    pub need: u32,
    /// Bytes it was last counted with in the shard's budget.
    pub held: u32,
    /// Bytes received and not yet executed.
    pub carry: Vec<u8>,
    /// A frame it waits in.
    pub stalled: Option<Box<Stalled>>,
    /// Units to be answered, oldest first.
    pub queue: VecDeque<u32>,
    /// What a RESP client said of itself.
    pub client: Option<Box<ClientInfo>>,
}

/// What a RESP client said of itself; its bytes are counted as buffers (`memory`).
#[derive(Clone, Debug, Default)]
pub struct ClientInfo {
    /// `CLIENT SETNAME`.
    pub name: Vec<u8>,
    /// `CLIENT SETINFO LIB-NAME`.
    pub lib_name: Vec<u8>,
    /// `CLIENT SETINFO LIB-VER`.
    pub lib_version: Vec<u8>,
}

impl ClientInfo {
    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        let texts = self.name.capacity() + self.lib_name.capacity() + self.lib_version.capacity();
        size_of::<Self>() + texts
    }
}

const _: () = assert!(size_of::<Conn>() <= 160, "a hundred thousand idle connections");

impl Conn {
    /// Whether it has to wait before it executes anything more.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.waits != Waits::No
    }
}
