//! What a shard counts. Plain numbers: the shell publishes them once a turn.

use alloc::format;
use alloc::vec::Vec;

use ringway_core::Region;

use crate::access::Access;
use crate::env::Env;
use crate::op_code;
use crate::shard::Shard;
use crate::wire::op;

/// The verbs that are counted one by one.
pub const VERBS: [&str; 8] =
    ["query", "register", "release", "renew", "lock", "session", "list", "other"];

/// The verb of an op code, as an index into [`VERBS`].
#[inline]
pub const fn verb_index(code: u8) -> usize {
    match code {
        op::QUERY => 0,
        op::REGISTER => 1,
        op::RELEASE => 2,
        op::RENEW => 3,
        op_code::LOCK_SET..=op_code::LOCK_SET_OR_EXPIRE => 4,
        op::OPEN..=op::KILL => 5,
        op::LIST => 6,
        _ => 7,
    }
}

/// Counters since the start, and a few maxima.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Ops executed here, by verb.
    pub verbs: [u64; VERBS.len()],
    /// Turns.
    pub turns: u64,
    /// The largest batch of a turn.
    pub turn_ops_max: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Ops sent to other shards.
    pub forwarded_out: u64,
    /// Ops that came from other shards.
    pub forwarded_in: u64,
    /// Connections closed because their bytes could not be followed.
    pub protocol_errors: u64,
    /// Times a connection was no longer read because it did not read.
    pub blocked_readers: u64,
    /// Times a connection had to wait because other shards were behind.
    pub waits_for_shards: u64,
    /// Records of ended sessions released.
    pub swept: u64,
    /// Failed authentications.
    pub auth_failures: u64,
    /// Notices whose connection was gone.
    pub pushes_dropped: u64,
}

impl<R: Region, A: Access> Shard<R, A> {
    /// `SHARD_STATS`: one JSON object; the shell adds what only it knows.
    pub(crate) fn stats_json(&self, env: &mut impl Env) -> Vec<u8> {
        let stats = &self.stats;
        let (names, sessions) = (self.names.table(), &self.sessions);
        let bytes = names.bytes();
        let (first, last) = self.start.map.run(self.id());
        let counts = sessions.counts();
        let mut out = format!(
            "{{\"shard\":{},\"slot_first\":{first},\"slot_last\":{last},\"names\":{},\
             \"sessions\":{},\"connections\":{},\"turns\":{},\"turn_ops_max\":{},\
             \"forwarded_out\":{},\"forwarded_in\":{},\"table_bytes\":{},\"session_bytes\":{},\
             \"sessions_opened\":{},\"sessions_resumed\":{},\"sessions_expired\":{},\
             \"sessions_replaced\":{},\"sessions_killed\":{},\"sessions_closed\":{},\
             \"names_swept\":{},\"protocol_errors\":{},\"auth_failures\":{},\
             \"blocked_readers\":{},\"waits_for_shards\":{},\"pushes_dropped\":{},\
             \"stalls\":{}",
            self.id(),
            names.len(),
            sessions.len(),
            self.connections(),
            stats.turns,
            stats.turn_ops_max,
            stats.forwarded_out,
            stats.forwarded_in,
            bytes.total(),
            sessions.bytes() + self.names.mirror_bytes(),
            counts.opened,
            counts.resumed,
            counts.ended[0],
            counts.ended[1],
            counts.ended[2],
            counts.ended[3],
            stats.swept,
            stats.protocol_errors,
            stats.auth_failures,
            stats.blocked_readers,
            stats.waits_for_shards,
            stats.pushes_dropped,
            self.clock.stalls(),
        )
        .into_bytes();
        for (verb, count) in VERBS.iter().zip(stats.verbs) {
            out.extend_from_slice(format!(",\"{verb}\":{count}").as_bytes());
        }
        env.describe(&mut out);
        out.push(b'}');
        out
    }
}
