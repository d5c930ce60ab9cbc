//! Resumes that wait until the state directory allows their lease.
//!
//! The session goes on meanwhile under the lease it has. When a longer one is allowed, each is
//! asked again, in order: what became of its session in between decides as if it came only then.
//!
//! Bounds: as many as [`Resumes::new`] is told. Tests: `coord/proto/tests/edges.rs`, and the swarm.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ringway_core::{NodeId, Secret, Span};

use crate::sessions::{Open, Opener};
use crate::wire::status;

/// Resumes, or ops on locks, that may wait for the state directory at a time; one beyond that is
/// answered `BUSY`. With little memory it is fewer.
pub const LEASE_WAITERS_MAX: usize = 16 * 1024;

/// An [`Open`] with `RESUME` that waits.
pub struct Resume {
    /// Who asks.
    pub who: Opener,
    flags: u8,
    node: NodeId,
    lease: Span,
    secret: Secret,
    info: Box<[u8]>,
}

impl Resume {
    /// What was asked.
    pub fn ask(&self) -> Open<'_> {
        let Resume { flags, node, lease, secret, .. } = *self;
        Open { flags, node, lease, secret, info: &self.info }
    }
}

/// All that wait at one shard.
pub struct Resumes {
    waiting: Vec<Resume>,
    most: usize,
}

impl Resumes {
    /// None yet, and at most so many.
    pub const fn new(most: usize) -> Self {
        Self { waiting: Vec::new(), most }
    }

    /// Keeps one, unless there are too many.
    pub fn wait(&mut self, who: Opener, ask: &Open<'_>) -> Result<(), u8> {
        if self.waiting.len() >= self.most {
            return Err(status::BUSY);
        }
        let Open { flags, node, lease, secret, info } = *ask;
        self.waiting.push(Resume { who, flags, node, lease, secret, info: info.into() });
        Ok(())
    }

    /// All of them, oldest first; none waits any more.
    pub fn take(&mut self) -> Vec<Resume> {
        core::mem::take(&mut self.waiting)
    }

    /// How many wait.
    pub const fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub const fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
