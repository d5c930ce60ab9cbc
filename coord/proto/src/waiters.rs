//! Who waits for whom: of one name, and of all.
//!
//! A page of all waits is not one moment: edges that are read at different times may never have
//! been there together. Whoever looks for a deadlock reads twice: a wait keeps its ticket and a
//! holder its token for as long as they last, so edges that both readings show were all there at
//! the end of the first one, and a cycle of them is a deadlock, not a coincidence.
//!
//! Bounds: [`WAITERS_MAX`] holders and as many waiters of one name; a page of waits looks at
//! [`PAGE_PLACES`] places of claims, shows [`HOLDERS_SHOWN`] holders of each name and takes
//! [`PAGE_BYTES`].
//! Tests: `tests/waiters.rs`.

use alloc::vec::Vec;

use ringway_core::wire::Put;
use ringway_core::{Moment, Region, SessionId, Token};
use ringway_table::{Name, RecordId};

use crate::names::Names;
use crate::waiting::Held;
use crate::wire::op;

/// Holders, and waiters, that one WAITERS shows.
pub const WAITERS_MAX: usize = 1024;
/// Places of claims that one page of waits looks at.
const PAGE_PLACES: u32 = 16 * 1024;
/// Bytes of one page of waits, roughly.
pub const PAGE_BYTES: usize = 96 * 1024;
/// Holders of one name that are shown to each who waits for it.
const HOLDERS_SHOWN: usize = 16;

impl<R: Region> Names<R> {
    /// Who holds a name and who waits for it, at most so many of each, as WAITERS answers;
    /// `None` if nobody holds it.
    pub fn waiters(
        &mut self,
        now: Moment,
        (hash, name): (u64, &Name<'_>),
        most: usize,
    ) -> Option<Vec<u8>> {
        let most = most.min(WAITERS_MAX);
        let mut out = Vec::new();
        let (id, alone, side) = match self.held(hash, name) {
            Held::Free => return None,
            Held::Alone(id, grant, session) => {
                let alone = Some((session, self.token(&grant)));
                (id, alone, self.claims.of_record(id.number()))
            }
            Held::Together(id, side) => (id, None, Some(side)),
        };
        debug_assert!(side.is_none_or(|side| self.claims.record_of(side) == id.number()));
        let (wish, waiting) = side.map_or_else(Default::default, |side| {
            let side = self.claims.side(side);
            (if alone.is_some() { Default::default() } else { side.wish() }, side.waiters())
        });
        let holders = if alone.is_some() { 1 } else { side.map_or(0, |at| self.live_holders(at)) };
        out.put_u8(wish.mode);
        out.put_u32(wish.permits);
        out.put_u32(holders);
        out.put_u32(waiting);
        put_counted(&mut out, |out| match (alone, side) {
            (Some(owner), _) if most > 0 => put_pairs(out, [owner].into_iter()),
            (None, Some(side)) => put_pairs(out, self.holders_of(side).take(most)),
            _ => 0,
        });
        put_counted(&mut out, |out| {
            let waiters = side.into_iter().flat_map(|side| self.waiters_of(side)).take(most);
            waiters.map(|claim| self.put_waiter(now, claim, out)).count()
        });
        Some(out)
    }

    fn put_waiter(&self, now: Moment, at: u32, out: &mut Vec<u8>) {
        let claim = self.claims.claim(at);
        let session = self.bound_at(claim.session()).map_or(0, |bound| bound.session.0);
        out.put_u64(session);
        out.put_u64(self.claims.ticket(at));
        out.put_u8(claim.wish.mode);
        out.put_u32(claim.wish.permits);
        out.put_u32(waited_ms(now, claim.value));
    }

    /// A page of who waits for whom, from a place on; where to go on, zero at the end.
    pub fn waits_page(&self, now: Moment, from: u32, most: usize) -> (u32, Vec<u8>) {
        let mut out = Vec::new();
        let mut edges = 0;
        let count_at = out.len();
        out.put_u16(0);
        let mut at = from.max(1);
        let end = self.claims.places().min(at.saturating_add(PAGE_PLACES));
        while at < end && edges < most && out.len() < PAGE_BYTES {
            if self.claims.claim_at(at).is_some_and(|claim| claim.waits()) {
                edges += self.put_edges(now, at, &mut out);
            }
            at += 1;
        }
        out[count_at..count_at + 2].copy_from_slice(&(edges as u16).to_le_bytes());
        (if at < self.claims.places() { at } else { 0 }, out)
    }

    /// One edge for each holder of the name that a claim waits for.
    fn put_edges(&self, now: Moment, at: u32, out: &mut Vec<u8>) -> usize {
        let claim = self.claims.claim(at);
        let id = RecordId::from_number(self.claims.record_of(claim.side()));
        let Some(waiter) = self.bound_at(claim.session()) else { return 0 };
        let grant = self.table.grant(id);
        let alone = self.session_of(grant.owner).map(|session| (session, self.token(&grant)));
        let shared = self.holders_of(claim.side()).take(HOLDERS_SHOWN);
        let (name, len) = self.name_of(id);
        let put = |(holder, token): (SessionId, Token)| {
            out.put_u64(waiter.session.0);
            out.put_u64(self.claims.ticket(at));
            out.put_u32(waited_ms(now, claim.value));
            out.put_u64(holder.0);
            out.put_u64(token.0);
            out.put_short_bytes(&name[..len]);
        };
        match alone {
            Some(owner) => [owner].into_iter().map(put).count(),
            None => shared.map(put).count(),
        }
    }

    /// Live sessions that hold a name together, the oldest first, and their tokens.
    pub(crate) fn holders_of(&self, side: u32) -> impl Iterator<Item = (SessionId, Token)> {
        let first = self.claims.first_holder(side);
        core::iter::successors(first, |at| self.claims.next(*at)).filter_map(|at| {
            let claim = self.claims.claim(at);
            let bound = self.bound_at(claim.session())?;
            Some((bound.session, self.token_of(claim.value)))
        })
    }

    /// Claims of live sessions that wait for a name, the oldest first.
    fn waiters_of(&self, side: u32) -> impl Iterator<Item = u32> {
        let first = self.claims.first_waiter(side);
        core::iter::successors(first, |at| self.claims.next(*at))
            .filter(|at| self.bound_at(self.claims.claim(*at).session()).is_some())
    }
}

/// A count (2), which is what `put` returns, and what it appends.
fn put_counted(out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>) -> usize) {
    let at = out.len();
    out.put_u16(0);
    let count = put(out) as u16;
    out[at..at + 2].copy_from_slice(&count.to_le_bytes());
}

fn put_pairs(out: &mut Vec<u8>, pairs: impl Iterator<Item = (SessionId, Token)>) -> usize {
    let put = |(session, token): (SessionId, Token)| {
        out.put_u64(session.0);
        out.put_u64(token.0);
    };
    pairs.map(put).count()
}

fn waited_ms(now: Moment, since: u64) -> u32 {
    now.since(Moment(since)).as_ms_ceil().min(u64::from(u32::MAX)) as u32
}

const _: () = assert!(op::MODE_EXCLUSIVE == 0, "the mode of a name that nobody shares");
