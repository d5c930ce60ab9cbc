//! Bounds of the tunnel that a configuration, memory or threads depend on, each once, for the
//! machines here and for the shell (`tunnel/node`).
//!
//! What always holds: parts that must agree are checked against each other at compile time, below.
//! `docs/tunnel.md`, section 11, has them for users.
//! Not here: what one machine decides by itself, such as pieces, delays and what waits for a
//! carrier: that stands beside it (`session.rs`, `recv.rs`, `delivery.rs`, `agent/pace.rs`). Nor
//! what has to do with a format (`frame.rs`, `target.rs`), and what both jobs share
//! (`ringway_core::limits`).
//! Tests: each has one where it is kept to.

use core::ops::RangeInclusive;

use ringway_core::{Span, limits};

// ---- What a file may have.

/// Peers of one side.
pub const PEERS_MAX: usize = 1024;
/// Forwards, and listeners of SOCKS5, and of HTTP CONNECT: so many of each.
pub const LISTENERS_MAX: usize = 1024;
/// Services of one side.
pub const SERVICES_MAX: usize = 1024;
/// Rules of one peer.
pub const RULES_MAX: usize = 1024;
/// Addresses of one peer, addresses that carriers come in at, and addresses of one name that are
/// tried.
pub const ADDRESSES_MAX: usize = 16;
/// A key, and the one that replaces it.
pub const KEYS_MAX: usize = 2;

// ---- Sessions.

/// Carriers of one session, and of those how many unless the file says otherwise.
pub const CARRIERS_MAX: usize = 64;
/// See [`CARRIERS_MAX`].
pub const CARRIERS_DEFAULT: usize = 4;
/// Flows of one peer on one shard, and how many unless the file says otherwise.
pub const FLOWS_MAX: usize = 1 << 20;
/// See [`FLOWS_MAX`].
pub const FLOWS_DEFAULT: usize = 65_536;
/// Bytes that a shard holds of what has come, of all peers together; windows promise more.
pub const MEMORY: RangeInclusive<u64> = MEMORY_MIN..=1 << 40;
const MEMORY_MIN: u64 = 1 << 20;
/// The same unless the file says otherwise.
pub const MEMORY_DEFAULT: u64 = 256 << 20;
/// Credit that every stream begins with: both agents have to have the same.
pub const WINDOW_FIRST: u64 = 64 * 1024;
/// How long flows may wait for a carrier, at most: a day.
pub const WAIT_MAX: Span = Span::from_s(86_400);
/// The same unless the file says otherwise.
pub const WAIT_DEFAULT: Span = Span::from_s(60);
/// Carriers' numbers that may come late, because carriers overtake each other; of more the highest.
pub const NUMBERS_LATE_MAX: usize = 1024;

/// Bytes of a datagram, heads of IP and UDP not counted, until its path is known: every one passes
/// them whole.
pub const DATAGRAM_BYTES_MIN: usize = datagram_bytes_max(1280);
/// The longest datagrams that paths are asked about.
pub const DATAGRAM_BYTES_MAX: usize = datagram_bytes_max(9000);
/// Datagrams that leave at once, at most, and their bytes: what one system call of the kernel
/// takes.
pub const TRAIN_DATAGRAMS: usize = 48;
const TRAIN_BYTES: usize = 65_507;

/// How many datagrams of so many bytes leave at once, at most.
pub const fn train_datagrams(datagram_bytes: usize) -> usize {
    let fit = TRAIN_BYTES / datagram_bytes;
    if fit < TRAIN_DATAGRAMS { fit } else { TRAIN_DATAGRAMS }
}

/// Carriers of packets that a session has at once, at most.
pub const PACKET_CARRIERS_MAX: usize = 4;

// ---- Who has not proved who they are.

/// Connections of a shard that have not proved themselves.
pub const HALF_OPEN_MAX: usize = 4096;
/// Salts that are kept; handshakes beyond are refused until older ones are too old to come again.
pub const SALTS_MAX: usize = 65_536;

// ---- What waits.

/// Connections of a shard that may wait for a session to one peer.
pub const WAITING_MAX: usize = 4096;
/// Names of one peer's flows that wait to be resolved.
pub const NAMES_WAITING_MAX: usize = 1024;
/// Names that are resolved at once.
pub const NAMES_AT_ONCE: usize = 6;
/// Of these for flows.
pub const NAMES_OF_FLOWS: usize = NAMES_AT_ONCE - 1;
/// Of these for flows of one peer.
pub const NAMES_OF_PEER: usize = 4;

// ---- What is told.

/// Steps of a report that one turn of a shard takes.
pub const REPORT_STEPS: usize = 1024;
/// Flows that one report of a shard tells of.
pub const FLOWS_TOLD_MAX: usize = 65_536;

// ---- Room for what is not there yet.

/// Bytes of a path's MTU that no datagram of ours takes. There is no relay; one that comes will put
/// a head of 16 bytes before a sealed packet, and has to be able to without cutting it.
pub const RELAY_BYTES: usize = 32;
/// Heads of IPv6 and UDP, which are the longer ones.
const HEADS_BYTES: usize = 48;

/// Bytes of the longest datagram, header and tag counted, for a path of this MTU.
pub const fn datagram_bytes_max(mtu: usize) -> usize {
    mtu.saturating_sub(HEADS_BYTES + RELAY_BYTES)
}

const _: () = assert!(PEERS_MAX <= u16::MAX as usize, "a peer's number");
const _: () = assert!(3 * LISTENERS_MAX < u16::MAX as usize, "a door's number, and the carriers'");
const _: () = assert!(CARRIERS_DEFAULT <= CARRIERS_MAX);
const _: () = assert!(CARRIERS_MAX < crate::session::CARRIERS_MAX, "each has a place");
const _: () = assert!(CARRIERS_MAX + PACKET_CARRIERS_MAX < crate::session::CARRIERS_MAX);
const _: () = assert!(TRAIN_DATAGRAMS <= 64 && train_datagrams(DATAGRAM_BYTES_MAX) > 1);
const _: () = assert!(FLOWS_DEFAULT <= FLOWS_MAX);
const _: () = assert!(FLOWS_MAX <= limits::CONNS_PER_SHARD_MAX, "each has a connection");
const _: () = assert!(MEMORY_MIN <= MEMORY_DEFAULT);
const _: () = assert!(WINDOW_FIRST <= MEMORY_DEFAULT / PEERS_MAX as u64, "a window can double");
const _: () = assert!(WAIT_DEFAULT.0 <= WAIT_MAX.0);
const _: () = assert!(HALF_OPEN_MAX <= SALTS_MAX, "whoever is half open has taken one");
const _: () = assert!(NAMES_OF_FLOWS < NAMES_AT_ONCE, "one is for our own peers alone");
const _: () = assert!(NAMES_OF_PEER < NAMES_OF_FLOWS, "no peer has all of them");
const _: () = assert!(FLOWS_DEFAULT <= FLOWS_TOLD_MAX, "all of a session can be told");
const _: () = assert!(
    DATAGRAM_BYTES_MIN - ringway_crypto::DATAGRAM_OVERHEAD >= 1024,
    "the least MTU of IPv6 leaves room for any control frame"
);
