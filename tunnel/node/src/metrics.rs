//! Counters of a process: what was refused, what failed, what was lost. Each is the sum over its
//! shards.

use std::sync::atomic::{AtomicU64, Ordering};

use ringway_crypto::Refused;
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
    /// Carriers that were lost, and bytes that went again because of it. One that was closed on
    /// purpose, at either side, is not.
    pub(crate) carriers_lost: Count,
    pub(crate) bytes_lost: Count,
    /// Pieces of streams for which there was no memory.
    pub(crate) pieces_refused: Count,
    not_let_in: [Count; NOT_LET_IN.len()],
    /// Records that did not verify, or said what cannot be.
    pub(crate) broken: Count,
    /// Datagrams that came to nothing: of no session that is known, that did not verify, and that
    /// came before; those that came to another shard than their session's, and of those the gifts
    /// that were too much for it.
    pub(crate) datagrams_strange: Count,
    pub(crate) datagrams_forged: Count,
    pub(crate) datagrams_replayed: Count,
    pub(crate) datagrams_elsewhere: Count,
    pub(crate) datagrams_not_given: Count,
    /// Times that a shard dropped all keys: its machine may be a copy.
    pub(crate) keys_dropped: Count,
}

/// Why somebody was not let in, as labels.
pub(crate) const NOT_LET_IN: [&str; 11] = [
    "stranger",
    "clock",
    "another_site",
    "forged",
    "no_cipher",
    "replayed",
    "unknown_key",
    "version",
    "no_session",
    "crowded",
    "flooded",
];

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
            NotLetIn::Refused(Refused::Stranger) => 0,
            NotLetIn::Refused(Refused::Clock { .. }) => 1,
            NotLetIn::Refused(Refused::UnknownKey(_)) => 2,
            NotLetIn::Refused(Refused::Length | Refused::Forged) => 3,
            NotLetIn::Refused(Refused::NoCommonSuite) => 4,
            NotLetIn::Replayed => 5,
            NotLetIn::Unknown(_) => 6,
            NotLetIn::Version => 7,
            NotLetIn::NoSession => 8,
            NotLetIn::Crowded => 9,
            NotLetIn::Flooded => 10,
        };
        self.not_let_in[at].add(1);
    }

    /// Those who were not let in, by reason.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NOT_LET_IN.into_iter().zip(self.not_let_in.iter().map(Count::get))
    }
}
