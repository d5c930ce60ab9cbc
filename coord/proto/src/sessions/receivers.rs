//! Which connection hears what a session is told.

use super::{ConnRef, FLAG_LOCK, FLAG_OPENING, Principal, Sessions};
use crate::handle::Bound;
use crate::wire::status;
use ringway_core::SessionId;

/// A session of a walk: its place, and its receiving connection unless it is away.
pub(super) type Heard = (usize, Option<ConnRef>);

impl Sessions {
    /// The connection that hears what a session is told. `AWAY` if there is none, `FREE` if the
    /// session has ended: nothing is its any more.
    #[inline]
    pub fn receiver(&self, to: Bound) -> Result<ConnRef, u8> {
        match self.table.get(to.handle.local()) {
            Some(session) if session.id == to.session.0 && session.is_live() => {
                session.conn.ok_or(status::AWAY)
            }
            _ => Err(status::FREE),
        }
    }

    /// A live session that a viewer may see: any without one, its own otherwise. Never a lock's.
    pub fn seen_by(&self, id: SessionId, viewer: Option<Principal>) -> Option<Bound> {
        let local = self.local_of(id)?;
        let session = &self.table[local as usize];
        let own = viewer.is_none_or(|viewer| viewer.0 == session.principal);
        (own && session.flags & FLAG_LOCK == 0).then(|| self.bound(local))
    }

    /// The first open session at a place or behind it, before place `end`.
    pub fn next_open(&self, from: usize, end: usize) -> Option<Heard> {
        (from..end.min(self.table.len())).find_map(|local| {
            let session = &self.table[local];
            let open = session.is_live() && session.flags & (FLAG_LOCK | FLAG_OPENING) == 0;
            open.then_some((local, session.conn))
        })
    }

    /// Places there are.
    pub fn places(&self) -> usize {
        self.table.len()
    }
}
