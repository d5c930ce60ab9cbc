//! Datagrams: what is worth nothing when it comes too late, and is not sent again.
//!
//! They have a number each that says whose they are (a *channel*), and go before streams, the one
//! whose time is over first before the others.
//!
//! What always holds:
//! - D1  A datagram whose deadline has passed is not sent any more; it is counted.
//! - D2  One that was put on a carrier is not sent again, whatever becomes of it.
//! - D3  What waits is bounded in bytes and number. Where there is no room, what is too late makes
//!   room, and nothing else does: the new one is refused.
//!
//! Bounds: a search of log n for each, [`WAITING_MAX`] of them and [`WAITING_BYTES_MAX`] bytes a
//! session; one that comes costs nothing here.
//! Not here: whose channels there are. Tests: `session_tests.rs`.

use alloc::collections::BTreeMap;

use super::*;
use crate::frame::{DATAGRAM_HEAD_MAX, WANTED_MAX, datagram_head};

/// Bytes of one datagram: as many as a packet of any path has room for.
pub const DATAGRAM_TEXT_MAX: usize = ROOM_MIN - WANTED_MAX - DATAGRAM_HEAD_MAX;
/// Datagrams that wait for a carrier.
const WAITING_MAX: usize = 4096;
/// Their bytes.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Why a datagram was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramRefused {
    /// It is longer than [`DATAGRAM_TEXT_MAX`].
    TooLong,
    /// Too many wait already.
    Full,
    /// Its deadline has passed.
    Late,
    /// There is no such session.
    NoSession,
}

/// What became of datagrams since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramsReport {
    /// Those that were put on a carrier.
    pub sent: u64,
    /// Those whose deadline passed before.
    pub late: u64,
    /// Those that were not taken.
    pub refused: u64,
    /// Those that came.
    pub came: u64,
    /// Those that wait.
    pub waiting: u64,
}

#[derive(Debug)]
struct Waiting {
    channel: u64,
    bytes: Vec<u8>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// By deadline, and of those with the same in their order.
    waiting: BTreeMap<(Moment, u64), Waiting>,
    bytes: usize,
    number: u64,
    report: DatagramsReport,
}

impl Messages {
    /// Whether one is still worth being sent.
    pub(super) fn has_any(&self, now: Moment) -> bool {
        self.waiting.last_key_value().is_some_and(|((deadline, _), _)| *deadline > now)
    }

    pub(super) fn note_came(&mut self) {
        self.report.came += 1;
    }

    /// D1.
    fn drop_late(&mut self, now: Moment) {
        while let Some(first) = self.waiting.first_entry().filter(|one| one.key().0 <= now) {
            self.bytes -= first.remove().bytes.len();
            self.report.late += 1;
        }
    }

    fn take(
        &mut self,
        now: Moment,
        (channel, bytes): (u64, &[u8]),
        deadline: Moment,
    ) -> Result<(), DatagramRefused> {
        if bytes.len() > DATAGRAM_TEXT_MAX {
            return Err(DatagramRefused::TooLong);
        }
        if deadline <= now {
            return Err(DatagramRefused::Late);
        }
        let is_full = |this: &Messages| {
            this.waiting.len() >= WAITING_MAX || this.bytes + bytes.len() > WAITING_BYTES_MAX
        };
        if is_full(self) {
            self.drop_late(now);
        }
        if is_full(self) {
            return Err(DatagramRefused::Full);
        }
        self.bytes += bytes.len();
        self.number += 1;
        let one = Waiting { channel, bytes: bytes.to_vec() };
        self.waiting.insert((deadline, self.number), one);
        Ok(())
    }
}

impl Session {
    /// Sends a datagram, if that can be before its deadline: before all streams, and once. It may
    /// be lost, and overtaken by others.
    ///
    /// # Errors
    /// [`DatagramRefused`].
    ///
    /// # Panics
    /// If the channel is not below 2^62.
    pub fn send_datagram(
        &mut self,
        now: Moment,
        channel: u64,
        bytes: &[u8],
        deadline: Moment,
    ) -> Result<(), DatagramRefused> {
        assert!(channel <= crate::frame::VARINT_MAX, "channels have 62 bits");
        let taken = self.messages.take(now, (channel, bytes), deadline);
        self.messages.report.refused += u64::from(taken.is_err());
        taken
    }

    /// What became of datagrams.
    pub fn datagrams(&self) -> DatagramsReport {
        DatagramsReport { waiting: self.messages.waiting.len() as u64, ..self.messages.report }
    }

    /// Puts datagrams into a record or packet, as many as fit.
    pub(super) fn fill_datagrams(&mut self, now: Moment, out: &mut Vec<u8>, end: usize) {
        let messages = &mut self.messages;
        messages.drop_late(now);
        while let Some(first) = messages.waiting.first_entry() {
            let Waiting { channel, bytes } = first.get();
            if end.saturating_sub(out.len()) < DATAGRAM_HEAD_MAX + bytes.len() {
                return;
            }
            datagram_head(out, *channel, bytes.len());
            out.extend_from_slice(bytes);
            messages.bytes -= first.remove().bytes.len();
            messages.report.sent += 1;
        }
    }
}
