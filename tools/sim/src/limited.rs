//! Namespaces with a quota of names, for stories: one pool that all shards take from.

use std::sync::{Arc, Mutex, PoisonError};

use ringway_coord_proto::access::{Access, Open};
use ringway_coord_proto::quotas::Credits;
use ringway_coord_proto::{Grantee, Principal};

/// What is left of the quota of one namespace.
#[derive(Clone, Debug)]
pub struct Pool {
    quota: [(Box<[u8]>, u64); 1],
    left: Arc<Mutex<u64>>,
}

impl Pool {
    /// All of it.
    pub fn new(namespace: &[u8], most: u64) -> Self {
        Self { quota: [(namespace.into(), most)], left: Arc::new(Mutex::new(most)) }
    }

    /// Credits that no shard has.
    pub fn left(&self) -> u64 {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Credits for Pool {
    fn quotas(&self) -> &[(Box<[u8]>, u64)] {
        &self.quota
    }

    fn take(&mut self, _: usize, most: u64) -> u64 {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = most.min(*left);
        *left -= taken;
        taken
    }

    fn give(&mut self, _: usize, credits: u64) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) += credits;
    }
}

/// Everybody may do everything, but one namespace has a quota.
pub struct Limited {
    open: Open,
    pool: Pool,
}

impl Limited {
    /// Access of one shard.
    pub fn new(pool: &Pool) -> Self {
        Self { open: Open::default(), pool: pool.clone() }
    }
}

impl Access for Limited {
    fn required(&self) -> bool {
        self.open.required()
    }

    fn verify(&self, user: &[u8], password: &[u8]) -> Option<u32> {
        self.open.verify(user, password)
    }

    fn grantee(&self, index: u32) -> &Grantee {
        self.open.grantee(index)
    }

    fn by_principal(&self, principal: Principal) -> Option<&Grantee> {
        self.open.by_principal(principal)
    }

    fn credits(&self) -> Option<Box<dyn Credits + Send>> {
        Some(Box::new(self.pool.clone()))
    }
}
