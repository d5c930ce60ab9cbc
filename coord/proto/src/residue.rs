//! What a shard still keeps: the simulator's proof that nothing leaks.

use ringway_core::Region;

use crate::access::Access;
use crate::shard::Shard;

/// Counts of everything that has to be gone once all connections and sessions are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Residue {
    /// Open connections.
    pub connections: usize,
    /// Units that wait for replies.
    pub pendings: usize,
    /// Connections that wait to be parsed, or for other shards.
    pub waiting: usize,
    /// Ops on their way to other shards.
    pub in_flight: usize,
    /// Lists and other jobs, counts of names, and what waits for a longer lease.
    pub jobs: usize,
    /// Live sessions.
    pub sessions: usize,
    /// Places of sessions that are not free again, live or ending.
    pub places: usize,
    /// What this shard knows of sessions, its own included.
    pub mirrors: usize,
    /// Watches, and what waits to be told to any.
    pub watches: usize,
    /// Lanes, with a connection or kept for another.
    pub lanes: usize,
    /// Records of names, those to be swept included.
    pub names: usize,
}

impl<R: Region, A: Access> Shard<R, A> {
    /// What the shard keeps now. Walks its tables: not for every turn of a server.
    pub fn residue(&self) -> Residue {
        Residue {
            connections: self.open_conns,
            pendings: self.pendings.len(),
            waiting: self.ready.len() + self.hungry.len() + self.batch.units.len(),
            in_flight: self.in_flight.iter().map(|ops| *ops as usize).sum(),
            jobs: self.gathers.under_way()
                + self.jobs.len()
                + self.parked.len()
                + self.sessions.resumes_waiting(),
            sessions: self.sessions.len(),
            places: self.sessions.places_in_use(),
            mirrors: self.names.mirrors_in_use(),
            watches: self.watching.residue(),
            lanes: self.lanes.residue(),
            names: self.names.table().len(),
        }
    }
}
