//! The coordinator's protocol and state, without I/O: bytes and time in, bytes out.
//!
//! Nothing here knows that sockets, threads, files or clocks exist. The shell feeds inputs and
//! carries outputs; the simulator does the same, and so replays whatever happened in production.
//!
//! The way of a request: [`shard`] takes the bytes of a connection, `parse` turns them into ops of
//! one batch ([`turn`]), `execute` hashes and prefetches the batch and asks [`names`] and
//! [`sessions`], replies go straight out or wait in [`pending`] for other shards ([`mail`]).

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod access;
pub mod acts;
mod blocking;
mod broadcast;
pub mod claims;
pub mod conn;
pub mod env;
mod execute;
pub mod gather;
pub mod handle;
pub mod info;
pub mod jobs;
pub mod keyed;
mod lanes;
pub mod lease_clock;
pub mod list;
pub mod mail;
mod memory;
mod messages;
pub mod names;
pub mod notices;
pub mod op_code;
pub mod outcome;
pub mod paged;
mod parse;
mod parse_resp;
pub mod pending;
pub mod placement;
pub mod places;
mod post;
pub mod quotas;
mod requests;
pub mod residue;
pub mod resp;
pub mod resp_reply;
mod resp_text;
pub mod resumes;
pub mod runs;
pub mod sabotage;
mod serve;
pub mod sessions;
pub mod shard;
pub mod stats;
mod tallies;
pub mod transfer;
pub mod turn;
pub mod waiters;
pub mod waiting;
pub mod watch;
pub mod wire;

pub use access::{Access, Grantee};
pub use env::Env;
pub use placement::SlotMap;
pub use sessions::{LeaseRules, Principal};
pub use shard::{Shard, ShardStart};
