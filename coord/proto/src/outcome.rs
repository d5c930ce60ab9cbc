//! What one op came to, before anybody decides in which protocol to say it.

use ringway_core::{SessionId, Token};

use crate::wire::{Reply, status};

/// The result of one op: a status, and an owner where the status has one.
///
/// For a status with bytes the two numbers are where the bytes stand and how many they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// A status of the native protocol.
    pub status: u8,
    /// The owner's session.
    pub session: SessionId,
    /// The owner's token.
    pub token: Token,
}

impl Outcome {
    /// Whoever asked is answered later, and elsewhere. Never leaves the shard.
    pub const LATER: Self = Self::plain(0x3F);

    /// A status and nothing else.
    #[inline]
    pub const fn plain(status: u8) -> Self {
        Self { status, session: SessionId(0), token: Token(0) }
    }

    /// A status with an owner.
    #[inline]
    pub const fn owner(status: u8, session: SessionId, token: Token) -> Self {
        Self { status, session, token }
    }

    /// A status with bytes that stand at `at` in a buffer the reader knows.
    #[inline]
    pub const fn bytes(status: u8, at: usize, len: usize) -> Self {
        Self { status, session: SessionId(at as u64), token: Token(len as u64) }
    }

    /// The bytes of an outcome that has some, out of that buffer.
    #[inline]
    pub fn data<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        let at = self.session.0 as usize;
        &buffer[at..at + self.token.0 as usize]
    }

    /// Whether the op did what was asked.
    pub const fn is_error(&self) -> bool {
        self.status >> 6 == 0b11
    }
}

/// A result that may carry bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A status, and perhaps an owner.
    Outcome(Outcome),
    /// A status with bytes.
    Data(u8, alloc::vec::Vec<u8>),
}

impl Answer {
    /// A status and nothing else.
    pub const fn plain(status: u8) -> Self {
        Self::Outcome(Outcome::plain(status))
    }

    /// Bytes, status `DATA`.
    pub const fn data(bytes: alloc::vec::Vec<u8>) -> Self {
        Self::Data(status::DATA, bytes)
    }

    /// Its status.
    pub const fn status(&self) -> u8 {
        match self {
            Answer::Outcome(outcome) => outcome.status,
            Answer::Data(status, _) => *status,
        }
    }

    /// Appends the answer in the native wire format.
    pub fn put(&self, out: &mut alloc::vec::Vec<u8>) {
        match self {
            Answer::Outcome(outcome) => put_outcome(out, *outcome),
            Answer::Data(status, bytes) => crate::wire::put_data(out, *status, bytes),
        }
    }
}

/// Appends an outcome without bytes in the native wire format.
#[inline]
pub fn put_outcome(out: &mut alloc::vec::Vec<u8>, outcome: Outcome) {
    if outcome.status >> 6 == 0b01 {
        crate::wire::put_owner(out, outcome.status, outcome.session, outcome.token);
    } else {
        out.push(outcome.status);
    }
}

/// The outcome of a parsed reply; bytes are not kept.
pub fn outcome_of(reply: &Reply<'_>) -> Outcome {
    match *reply {
        Reply::Owner { status, session, token } => Outcome::owner(status, session, token),
        Reply::Plain(status) | Reply::Data(status, _) => Outcome::plain(status),
    }
}
