//! Counters of a process: what was refused, what failed, what was lost. Each is the sum over its
//! shards.

use std::sync::atomic::{AtomicU64, Ordering};

use ringway_tunnel_proto::{NotLetIn, ResetCode};

/// A number that grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, many: u64) {
        self.0.fetch_add(many, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Users' connections that came in here.
    pub(crate) flows_from_users: Count,
    /// Flows that peers opened.
    pub(crate) flows_from_peers: Count,
    /// Flows that are over.
    pub(crate) flows_ended: Count,
    failures: [Count; ResetCode::ALL.len()],
    /// Connections to peers that were begun.
    pub(crate) carriers_dialled: Count,
    /// Connections that peers, or strangers, began.
    pub(crate) carriers_accepted: Count,
    /// Carriers that were lost, and bytes that went again because of it.
    pub(crate) carriers_lost: Count,
    pub(crate) bytes_lost: Count,
    not_let_in: [Count; NOT_LET_IN.len()],
    /// Records that did not verify, or said what cannot be.
    pub(crate) broken: Count,
}

/// Why somebody was not let in, as labels.
pub(crate) const NOT_LET_IN: [&str; 6] =
    ["stranger", "replayed", "unknown_key", "version", "no_session", "crowded"];

impl Metrics {
    /// A flow failed.
    pub(crate) fn failed(&self, code: ResetCode) {
        if let Some(at) = ResetCode::ALL.iter().position(|one| *one == code) {
            self.failures[at].add(1);
        }
    }

    /// Failures, by code.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (ResetCode, u64)> {
        ResetCode::ALL.into_iter().zip(self.failures.iter().map(Count::get))
    }

    /// Somebody was not let in.
    pub(crate) fn not_let_in(&self, why: NotLetIn) {
        let at = match why {
            NotLetIn::Refused(_) => 0,
            NotLetIn::Replayed => 1,
            NotLetIn::Unknown(_) => 2,
            NotLetIn::Version => 3,
            NotLetIn::NoSession => 4,
            NotLetIn::Crowded => 5,
        };
        self.not_let_in[at].add(1);
    }

    /// Those who were not let in, by reason.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NOT_LET_IN.into_iter().zip(self.not_let_in.iter().map(Count::get))
    }
}
