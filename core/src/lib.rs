//! The words every part of Ringway shares: identities, time, slots, limits, bytes.
//!
//! Nothing here does I/O, reads a clock or draws a random number; nothing here depends on any
//! other crate of the project. What two crates must agree on is written once, here.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod ids;
pub mod limits;
pub mod region;
pub mod rng;
pub mod slot;
pub mod time;
pub mod wheel;
pub mod wire;
pub mod words;

pub use ids::{ConnId, Epoch, NodeId, Secret, SessionId, ShardId, Token};
pub use region::{Region, RegionFull};
pub use slot::Slot;
pub use time::{Moment, Span};
