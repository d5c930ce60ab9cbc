//! placeholder
pub mod admin;
pub mod config;
pub mod control;
pub mod credentials;
pub mod metrics;
pub mod state;
