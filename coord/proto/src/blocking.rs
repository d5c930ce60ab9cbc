//! Waits that block a RESP connection (`PORT.WAIT`), as far as they may end early: where nobody is
//! left to hear of the grant, the name is not granted.
//!
//! The wait itself is an op like any other (`waiting`). While its unit is unanswered the connection
//! executes nothing more (H3). When the connection closes, its client sends nothing more, or the
//! server stops, the shard of the name is told, and the wait ends as if its time were over: what a
//! session keeps over a lost connection are its names, and waits that have a ticket.
//!
//! Always: a wait is ended only by the connection that began it, known by its pending unit; and
//! what was granted already stays granted.
//! Tests: `tests/resp_waiting.rs`.

use ringway_core::wire::{Reader, Truncated};
use ringway_core::{ConnId, Region, ShardId, Slot};
use ringway_table::Name;

use crate::access::Access;
use crate::conn::Waits;
use crate::env::Env;
use crate::handle::Bound;
use crate::mail;
use crate::names::Names;
use crate::outcome::Outcome;
use crate::sabotage::Rule;
use crate::sessions::Ticket;
use crate::shard::Shard;
use crate::wire::status;

impl<R: Region, A: Access> Shard<R, A> {
    /// A connection that blocks waits no longer, if it does.
    pub(crate) fn stop_waiting(&mut self, id: ConnId, env: &mut impl Env) {
        let goes_on = self.sabotage.breaks(Rule::WaitsEndWithTheirConnection);
        if goes_on || self.blocks(id).is_none() {
            return;
        }
        // The wait may still stand in the batch, and may be granted at once.
        self.execute(env);
        let Some((unit, bound)) = self.blocks(id) else { return };
        let (pending, generation) = self.pendings.id(unit);
        let ticket = Ticket { shard: self.id(), pending, generation, index: 0 };
        let name = self.pendings.get(unit).waits_for.as_deref().unwrap_or_default();
        let owner = self.start.map.shard_of(Slot::of(name));
        if owner == self.id() {
            let name = Name::new(name).expect("checked when parsed: 1 to 255 bytes");
            self.names.stop_waiting(&name, bound, ticket);
            return self.settle(env);
        }
        env.post(owner, &mail::unwait_message((pending, generation), bound, name));
    }

    /// The unit in which a connection blocks until a name is granted, and for which session.
    fn blocks(&self, id: ConnId) -> Option<(u32, Bound)> {
        let conn = self.conns.get(id.index as usize)?;
        let Waits::Op(unit, 0) = conn.waits else { return None };
        let pending = self.pendings.get(unit);
        let is_theirs = pending.conn == id && pending.waits_for.is_some();
        Some((unit, conn.bound.filter(|_| is_theirs)?))
    }

    /// A connection of another shard waits no longer.
    pub(crate) fn take_unwait(
        &mut self,
        shard: ShardId,
        reader: &mut Reader<'_>,
    ) -> Result<(), Truncated> {
        let (pending, generation) = (reader.u32()?, reader.u32()?);
        let bound = mail::session(reader)?;
        let name = Name::new(reader.rest()).ok_or(Truncated)?;
        let ticket = Ticket { shard, pending, generation, index: 0 };
        self.names.stop_waiting(&name, bound, ticket);
        Ok(())
    }
}

impl<R: Region> Names<R> {
    /// Ends the wait that `reply` is to be answered with, unless it has ended, or another
    /// connection of its session has taken its place.
    fn stop_waiting(&mut self, name: &Name<'_>, by: Bound, reply: Ticket) {
        let found = self.table().find(self.table().hash(name), name);
        if let Some((id, _)) = found
            && let Some(side) = self.claims.of_record(id.number())
            && let Some(claim) = self.claims.of_session(side, by.handle)
            && self.claims.claim(claim).reply.as_deref() == Some(&reply)
        {
            self.drop_claim(claim);
            self.answers.push((reply, Outcome::plain(status::FREE)));
            self.left(id, side);
        }
    }
}
