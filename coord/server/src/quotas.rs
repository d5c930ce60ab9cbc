//! The credits of namespaces that have a quota of names: one word each, which all shards take
//! blocks from (`ringway_coord_proto::quotas`).
//!
//! Always: what was taken and not given back is no more than the quota.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringway_coord_proto::quotas::Credits;
use serde::{Deserialize, Serialize};

/// The quotas of a server, and what is left of each.
#[derive(Clone, Debug)]
pub struct Quotas {
    quotas: Arc<[(Box<[u8]>, u64)]>,
    left: Arc<[AtomicU64]>,
}

/// How a namespace stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceView {
    /// Its name.
    pub namespace: String,
    /// Names that it has, and those that shards keep ready for it: at most two blocks each.
    pub names: u64,
    /// Names that it may have.
    pub names_max: u64,
}

impl Quotas {
    /// All of every quota is left.
    pub fn new(quotas: &[(String, u64)]) -> Self {
        let named = quotas.iter().map(|(name, most)| (Box::from(name.as_bytes()), *most));
        let left = quotas.iter().map(|(_, most)| AtomicU64::new(*most));
        Self { quotas: named.collect(), left: left.collect() }
    }

    /// A shard's way here; `None` if there are no quotas.
    pub fn credits(&self) -> Option<Box<dyn Credits + Send>> {
        (!self.quotas.is_empty()).then(|| Box::new(self.clone()) as _)
    }

    /// How every namespace stands.
    pub fn view(&self) -> Vec<NamespaceView> {
        let namespaces = self.quotas.iter().zip(self.left.iter());
        let view = namespaces.map(|((name, most), left)| NamespaceView {
            namespace: String::from_utf8_lossy(name).into_owned(),
            names: most - left.load(Ordering::Relaxed),
            names_max: *most,
        });
        view.collect()
    }
}

impl Credits for Quotas {
    fn quotas(&self) -> &[(Box<[u8]>, u64)] {
        &self.quotas
    }

    fn take(&mut self, namespace: usize, most: u64) -> u64 {
        let less = |left: u64| Some(left - left.min(most));
        let left = &self.left[namespace];
        // The count is all that is shared, so no other memory has to be seen in any order.
        let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        before.map_or(0, |before| before.min(most))
    }

    fn give(&mut self, namespace: usize, credits: u64) {
        self.left[namespace].fetch_add(credits, Ordering::Relaxed);
    }
}
