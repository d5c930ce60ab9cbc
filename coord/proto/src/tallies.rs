//! What became of a message that was for several: one answer of many receipts.
//!
//! Always: a tally is answered once, when as many receipts have come as were announced and every
//! shard has announced its own; receipts that come too late for that find another generation.
//!
//! Bounds: [`TALLIES_MAX`] at once.
//! Not here: what sends the receipts (`messages`, `broadcast`). Tests: `tests/messages.rs`.

use alloc::vec::Vec;

use ringway_core::ShardId;
use ringway_core::wire::Put;

use crate::outcome::Answer;
use crate::sessions::Ticket;
use crate::wire::status;

/// The index of a ticket that stands for a tally, not for an op.
pub(crate) const TALLY_INDEX: u16 = u16::MAX - 1;

/// Messages to several of which one shard waits for receipts at once.
pub(crate) const TALLIES_MAX: usize = 1024;

/// One message that was for several.
#[derive(Clone, Copy, Default)]
struct Tally {
    in_use: bool,
    generation: u32,
    /// Who is answered; nobody, if only its end is of interest.
    ticket: Option<Ticket>,
    /// Those who have not said yet to how many it went.
    unsaid: u32,
    expected: u64,
    heard: u64,
    /// The first status that was neither `OK` nor `FREE`; without one `OK` if anybody was reached.
    other: u8,
    /// Answered with how many were reached, were away, were full.
    counts: Option<[u64; 3]>,
}

/// All of a shard's.
#[derive(Default)]
pub(crate) struct Tallies {
    all: Vec<Tally>,
    free: Vec<u32>,
}

/// A tally that is complete: who is answered, and with what.
pub(crate) type Done = (Option<Ticket>, Answer);

impl Tallies {
    /// Starts a tally whose answer is a status; what stands for it. `None` if there are too many.
    pub(crate) fn begin(&mut self, me: ShardId, ticket: Option<Ticket>) -> Option<Ticket> {
        self.start(me, Tally { ticket, unsaid: 1, other: status::FREE, ..Tally::default() })
    }

    /// Starts a tally of counts, of which so many shards will announce a part.
    pub(crate) fn begin_counts(
        &mut self,
        me: ShardId,
        ticket: Option<Ticket>,
        shards: usize,
    ) -> Option<Ticket> {
        let (counts, unsaid) = (Some([0; 3]), shards as u32);
        self.start(me, Tally { ticket, unsaid, counts, ..Tally::default() })
    }

    fn start(&mut self, me: ShardId, tally: Tally) -> Option<Ticket> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.all.len() < TALLIES_MAX => {
                self.all.push(Tally::default());
                (self.all.len() - 1) as u32
            }
            None => return None,
        };
        let place = &mut self.all[index as usize];
        let generation = place.generation;
        *place = Tally { in_use: true, generation, ..tally };
        Some(Ticket { shard: me, pending: index, generation, index: TALLY_INDEX })
    }

    /// Somebody says to how many the message went, or some more of them.
    pub(crate) fn expect(&mut self, of: Ticket, receipts: u64) -> Option<Done> {
        let tally = self.get_mut(of)?;
        tally.expected += receipts;
        tally.unsaid -= 1;
        self.done(of)
    }

    /// So many receipts have come.
    pub(crate) fn hear(&mut self, of: Ticket, status: u8, receipts: u64) -> Option<Done> {
        let tally = self.get_mut(of)?;
        if receipts == 0 {
            return None;
        }
        tally.heard += receipts;
        // Whoever has ended meanwhile is none of those that the message was for.
        if tally.other == status::FREE || (tally.other == status::OK && status != status::FREE) {
            tally.other = status;
        }
        if let Some([reached, away, full]) = &mut tally.counts {
            *match status {
                status::OK => reached,
                // Its session has ended meanwhile, or has no connection.
                status::AWAY | status::FREE => away,
                _ => full,
            } += receipts;
        }
        self.done(of)
    }

    fn done(&mut self, of: Ticket) -> Option<Done> {
        let tally = *self.get_mut(of)?;
        if tally.unsaid > 0 || tally.heard < tally.expected {
            return None;
        }
        let place = &mut self.all[of.pending as usize];
        *place = Tally { generation: tally.generation.wrapping_add(1), ..Tally::default() };
        self.free.push(of.pending);
        let answer = match tally.counts {
            None => Answer::plain(tally.other),
            Some(counts) => {
                let mut data = Vec::with_capacity(24);
                counts.iter().for_each(|count| data.put_u64(*count));
                Answer::data(data)
            }
        };
        Some((tally.ticket, answer))
    }

    fn get_mut(&mut self, of: Ticket) -> Option<&mut Tally> {
        let tally = self.all.get_mut(of.pending as usize)?;
        (tally.in_use && tally.generation == of.generation).then_some(tally)
    }
}
