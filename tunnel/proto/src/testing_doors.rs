//! Doors for fuzzing (`tools/fuzz`): machines that are this crate's own matter, with nothing
//! between them and who feeds them. Nobody else goes through here.

use ringway_core::{Moment, Span};

pub use crate::detour::{Advice, Detour, Filled, Filler, Seen};
use crate::path::{Lengths, Search};

/// The search for the longest datagram that a path passes whole: see `crate::path`.
#[derive(Debug, Default)]
pub struct Mtu(Search);

impl Mtu {
    /// Bytes of a datagram.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// Whether it is more than the least.
    pub fn is_long(&self) -> bool {
        self.0.is_long()
    }

    /// Bytes of the question that is to be put now.
    pub fn question(&self, now: Moment, has_more: bool) -> Option<usize> {
        self.0.question(now, has_more)
    }

    /// The question leaves. Returns its serial.
    ///
    /// # Panics
    /// Unless [`Self::question`] has one.
    pub fn ask(&mut self) -> u32 {
        self.0.ask()
    }

    /// A question came, or was lost. Returns whether another length is used from now on.
    pub fn answered(&mut self, now: Moment, serial: u32, came: bool) -> bool {
        self.0.answered(now, serial, came)
    }

    /// The kernel has refused datagrams of so many bytes. Returns whether another length is used.
    pub fn refused(&mut self, now: Moment, bytes: usize) -> bool {
        self.0.refused(now, bytes)
    }

    /// Of packets of these places in the list of lengths so many came, and so many were lost.
    ///
    /// # Panics
    /// If there are no such places.
    pub fn heard(&mut self, now: Moment, came: (usize, u64), lost: (usize, u64), rtt: Span) {
        let mut lengths = Lengths::default();
        (lengths.came[came.0], lengths.lost[lost.0]) = (came.1, lost.1);
        self.0.heard(now, &lengths, rtt);
    }

    /// What is used does not pass any more.
    pub fn is_refuted(&self) -> bool {
        self.0.is_refuted()
    }

    /// The path is another one.
    pub fn restart(&mut self) {
        self.0.restart();
    }
}
