//! placeholder
pub mod admin;
pub mod config;
pub mod control;
pub mod credentials;
pub mod metrics;
pub mod node;
pub mod state;

pub use ringway_shards::ring;
