//! What each part of the server gets of `max_memory`.
//!
//! First comes what does not depend on clients: the process itself, and for each shard its ring,
//! its receive buffers, its batch and its mailboxes. Then every share gets the least with which it
//! works; what is left is divided. So a server with little memory is a small one in every respect,
//! and one whose memory would not suffice for the parts does not start.
//!
//! Always: the shares and what is fixed add up to no more than `max_memory`, and a share is never
//! below its least. What each bounds: the table and sessions answer `FULL`, connections beyond are
//! refused, buffers as `ringway_coord_proto` says in `memory.rs`; all of it is counted.
//!
//! What names have beside an owner (metadata, further holders, those who wait) has a share of its
//! own, so that no crowd of waiters takes the room of names.
//!
//! Sessions have two bounds: how many, at what each costs without its address and metadata (mirrors
//! at every shard included), and bytes of addresses, metadata and values of locks, of which each
//! may have [`INFO_USUAL_BYTES`] on average, and a single one as much as the protocol allows.
//!
//! Measured, not only computed: resident memory of floods against small limits, in
//! `tools/ringway/tests/real/floods.rs`. Tests of the division: below.

use ringway_core::limits::{
    CONNS_PER_SHARD_MAX, MAILBOX_BYTES, SESSIONS_PER_SHARD_MAX, SHARD_BUFFERS_MIN,
    SPARE_BUFFERS_MAX,
};
use ringway_ring::RingConfig;

/// A session at its home: its place, index entries, timer, whom its opening is answered to; tables
/// while they grow; and a part of the places for sessions that have ended.
const PLACE_BYTES: u64 = 304;
/// What every shard keeps of a session, wherever its home is.
const MIRROR_BYTES: u64 = 44;
/// Address and metadata of a session, on average over those of a shard.
const INFO_USUAL_BYTES: u64 = 128;
/// Bytes of a connection without its buffers: what the shard, the reactor and its timer keep.
pub const CONN_BYTES: u64 = 256;

/// The program's own pages, the control plane, the admin endpoint, the allocator.
const PROCESS_BYTES: u64 = 14 * MIB;
/// A shard's ring, stack, batch and its scratch memory.
const SHARD_BYTES: u64 = 4 * MIB;
/// From a shard to another: the mailbox, and a message that is being written.
const PAIR_BYTES: u64 = MAILBOX_BYTES as u64 + MIB / 2;
/// A shard's table: a step of each of its four regions, and two to grow.
const TABLE_MIN: u64 = 12 * MIB;
/// A thousand who wait for names of a shard, or as many names with metadata.
const SIDE_MIN: u64 = MIB / 8;
/// A thousand of a shard's sessions.
const SESSIONS_MIN: u64 = 1024;
/// A thousand of a shard's connections.
const CONNS_MIN: u64 = 1024 * CONN_BYTES;
/// Of the buffers' share a quarter is for what an allocator needs beside what it was asked for:
/// its size classes, and pages that were given back a moment ago.
const BUFFERS_MIN: u64 = SHARD_BUFFERS_MIN as u64 / 3 * 4;
/// With less than this beyond the least a shard has fewer receive buffers.
const SHARD_IS_SMALL: u64 = 32 * MIB;
/// The receive buffers of a small shard.
const SMALL_RECEIVES: u16 = 64;

const MIB: u64 = 1 << 20;

/// The shares of a server, see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Bytes for the object tables of all shards.
    pub table: u64,
    /// Bytes that metadata of one shard's names, further holders and those who wait may take.
    pub side_bytes: usize,
    /// Sessions whose home one shard may be.
    pub sessions_max: usize,
    /// Bytes that their addresses, metadata and values of locks may have together.
    pub info_bytes: usize,
    /// Connections that one shard may have.
    pub connections_max: usize,
    /// Bytes that the buffers of one shard's connections may have.
    pub buffers: usize,
    /// Of those, bytes that are kept to be used again.
    pub spare_buffers: usize,
    /// Receive buffers of one shard.
    pub receives: u16,
}

impl Shares {
    /// The least `max_memory` for so many shards.
    pub fn least(shards: usize) -> u64 {
        let receives = RingConfig { buffers: SMALL_RECEIVES, ..RingConfig::default() };
        let all = fixed(shards, &receives) + shards as u64 * minima(shards);
        all.next_multiple_of(MIB)
    }

    /// Divides `bytes`, which are at least [`Self::least`].
    pub fn of(bytes: u64, shards: usize) -> Shares {
        let mut ring = RingConfig::default();
        let each = shards as u64;
        if bytes.saturating_sub(Self::least(shards)) / each < SHARD_IS_SMALL {
            ring.buffers = SMALL_RECEIVES;
        }
        let rest = bytes.saturating_sub(fixed(shards, &ring) + each * minima(shards));
        let (sessions, connections) = (rest / 16 * 3 / each, rest / 16 / each);
        let buffers = (BUFFERS_MIN + rest / 8 / each) / 4 * 3;
        let count = |bytes: u64, size: u64, most| ((bytes / size) as usize).min(most);
        let per_session = session_bytes(shards);
        let sessions_max =
            count(SESSIONS_MIN * per_session + sessions, per_session, SESSIONS_PER_SHARD_MAX);
        Shares {
            table: each * TABLE_MIN + rest / 16 * 9,
            side_bytes: (SIDE_MIN + rest / 16 / each) as usize,
            sessions_max,
            info_bytes: sessions_max * INFO_USUAL_BYTES as usize,
            connections_max: count(CONNS_MIN + connections, CONN_BYTES, CONNS_PER_SHARD_MAX),
            buffers: buffers as usize,
            spare_buffers: SPARE_BUFFERS_MAX.min(buffers as usize / 16),
            receives: ring.buffers,
        }
    }

    /// What a start says of them, in one line.
    pub fn line(&self, bytes: u64, shards: usize) -> String {
        let mib = |bytes: u64| bytes / MIB;
        let ring = RingConfig { buffers: self.receives, ..RingConfig::default() };
        format!(
            "max_memory {} MiB: {} MiB without clients, {} MiB for names; a shard has {} MiB for \
             who waits for names and what is said of them, {} MiB for buffers, places for {} \
             sessions with {} MiB of addresses and metadata, and for {} connections",
            mib(bytes),
            mib(fixed(shards, &ring)),
            mib(self.table),
            mib(self.side_bytes as u64),
            mib(self.buffers as u64),
            self.sessions_max,
            mib(self.info_bytes as u64),
            self.connections_max,
        )
    }
}

/// The least of every share of one shard.
fn minima(shards: usize) -> u64 {
    TABLE_MIN + SIDE_MIN + SESSIONS_MIN * session_bytes(shards) + CONNS_MIN + BUFFERS_MIN
}

/// Bytes that a session takes of the whole process.
fn session_bytes(shards: usize) -> u64 {
    PLACE_BYTES + MIRROR_BYTES * shards as u64 + INFO_USUAL_BYTES
}

/// What does not depend on clients.
fn fixed(shards: usize, ring: &RingConfig) -> u64 {
    let shards = shards as u64;
    let receives = u64::from(ring.buffers) * u64::from(ring.buffer_bytes);
    PROCESS_BYTES + shards * (SHARD_BYTES + receives) + shards * (shards - 1) * PAIR_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shares never exceed the whole, whatever it is, and never lie below their least. Two
    /// shards fit into 64 MiB.
    #[test]
    fn shares_add_up() {
        assert!(Shares::least(2) <= 64 * MIB, "{}", Shares::least(2));
        for shards in [1, 2, 3, 16, 128] {
            let least = Shares::least(shards);
            for bytes in [least, least + 1, 2 * least, least + 300 * MIB, 64 * least, 1 << 42] {
                let shares = Shares::of(bytes, shards);
                let ring = RingConfig { buffers: shares.receives, ..RingConfig::default() };
                let buffers = shares.buffers as u64 / 3 * 4;
                let fixed_bytes = PLACE_BYTES + MIRROR_BYTES * shards as u64;
                let sessions = shares.sessions_max as u64 * fixed_bytes + shares.info_bytes as u64;
                let connections = shares.connections_max as u64 * CONN_BYTES;
                let each = buffers + sessions + connections + shares.side_bytes as u64;
                let all = fixed(shards, &ring) + shares.table + shards as u64 * each;
                assert!(all <= bytes, "{shards} shards with {bytes} bytes use {all}");
                assert!(shares.buffers >= SHARD_BUFFERS_MIN && shares.sessions_max >= 1024);
                // Who holds less than that is not cut (`coord/proto/src/memory.rs`).
                assert!(shares.buffers / shares.connections_max >= 384, "{shares:?}");
                assert!(shares.table >= shards as u64 * TABLE_MIN);
            }
        }
    }

    /// With memory enough, nine sixteenths are the table's.
    #[test]
    fn most_is_for_names() {
        let shares = Shares::of(8 << 30, 2);
        let sixteenths = (shares.table * 16) / (8 << 30);
        assert!((8..=9).contains(&sixteenths), "{sixteenths}");
        assert_eq!(shares.receives, RingConfig::default().buffers);
        assert!(shares.connections_max > 500_000 && shares.sessions_max > 1_000_000);
    }
}
