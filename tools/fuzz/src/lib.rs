//! Fuzz targets: one function per parser and per machine that reads bytes of strangers.
//!
//! A target takes any bytes whatever and panics if the code under test panics, or if an answer
//! contradicts what its documentation promises. The same functions serve four drivers: the corpus
//! replay and the mutation smoke run of the ordinary tests, the long run of this package's binary,
//! and the coverage-guided run of `cargo xtask fuzz`.
//!
//! Invariants:
//! - A target is a function of its bytes alone, so a file that fails fails everywhere.
//! - Every target has a corpus folder and every corpus folder a target (`tests/replay.rs`).
//!
//! Bounds: a target is linear in its input up to a small factor; the drivers keep inputs below
//! [`Target::bytes_max`].
//! Not here: what the bytes mean when they arrive over time from many clients (`tools/sim`).

#![forbid(unsafe_code)]

pub mod corpus;
pub mod mutate;
pub mod targets;

/// One entry point for bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Also the name of its folder in `corpus/`.
    pub name: &'static str,
    /// Panics if the code under test is wrong.
    pub run: fn(&[u8]),
    /// Small meaningful inputs, each with a name: where mutation starts.
    pub seeds: fn() -> Vec<(&'static str, Vec<u8>)>,
    /// Words of the format, which blind mutation would not find.
    pub words: &'static [&'static [u8]],
    /// Longer inputs are not made: they only cost time.
    pub bytes_max: usize,
}

impl Target {
    /// The target of that name.
    pub fn named(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }
}

/// All targets.
pub const TARGETS: &[Target] = &[
    targets::claims::CLAIMS,
    targets::conn::CONN,
    targets::native::FRAME,
    targets::native::PREFACE,
    targets::native::REPLIES,
    targets::path::ARRIVALS,
    targets::path::REPORT,
    targets::path::SENDER,
    targets::resp::RESP,
    targets::server::ADMIN,
    targets::server::CONFIG,
    targets::server::CREDENTIALS,
    targets::server::STATE,
    targets::table::TABLE,
    targets::coding::CODING,
    targets::tunnel::FRAMES,
    targets::tunnel::HANDSHAKE,
    targets::tunnel::RECORDS,
    targets::tunnel::SESSION,
    targets::tunnel_agent::AGENT,
    targets::tunnel_config::CONFIG,
    targets::tunnel_edge::EDGE,
    targets::tunnel_invite::INVITE,
    targets::tunnel_opening::OPENING,
    targets::tunnel_packets::PACKETS,
    targets::tunnel_planner::DETOUR,
    targets::tunnel_planner::MTU,
];
