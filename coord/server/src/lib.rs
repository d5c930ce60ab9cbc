//! The coordinator's shell: configuration, state directory, control plane, and the pump that
//! carries bytes between the reactor and the sans-io shards.
//!
//! Nothing here decides who owns a name; that is `ringway-coord-proto`, which knows no socket.

pub mod access;
pub mod admin;
mod audit;
pub mod config;
pub mod control;
pub mod credentials;
pub mod metrics;
pub mod node;
mod pump;
pub mod quotas;
pub mod shares;
pub mod state;

/// What the kernel offers, for `ringway doctor`: the binary names no reactor itself.
pub use ringway_ring as ring;
