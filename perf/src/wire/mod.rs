//! What the two protocols have in common, as the load threads see it.

pub(crate) mod native;
pub(crate) mod resp;

use crate::error::Broken;
use crate::source::{Lane, Source};
use crate::tally::Tally;

/// A request on the way: what its reply has to be, and when it was meant to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// When it was, or should have been, sent.
    pub(crate) intended_ns: u64,
    /// Its number; RESP has none.
    pub(crate) sequence: u64,
    /// Queries in it.
    pub(crate) queries: u16,
    /// Registers in it.
    pub(crate) registers: u16,
    /// Releases in it.
    pub(crate) releases: u16,
}

impl Request {
    /// All ops in it.
    #[inline]
    pub(crate) fn ops(&self) -> u64 {
        u64::from(self.queries) + u64::from(self.registers) + u64::from(self.releases)
    }
}

/// A protocol, as far as a closed set of three ops needs it.
pub(crate) trait Wire {
    /// Ops in a full request.
    fn ops(&self) -> u64;

    /// Appends one request of ops that `source` draws for `lane`; `None` when it has no more.
    fn put(&mut self, source: &mut Source, lane: &mut Lane, out: &mut Vec<u8>) -> Option<Request>;

    /// Takes the reply to `due` off the front of `bytes`, and says how long it was; `None` when it
    /// is not whole yet. Nothing is counted unless it is whole.
    fn take(&self, bytes: &[u8], due: &Request, tally: &mut Tally)
    -> Result<Option<usize>, Broken>;
}
