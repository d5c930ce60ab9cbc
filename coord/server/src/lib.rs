//! placeholder
pub mod admin;
pub mod config;
pub mod control;
pub mod metrics;
pub mod state;
