//! Bad networks, to try a transport on: what a line does to packets, and lines of that kind.
//!
//! - `line`: one direction of a line as a machine without clock or I/O, and the words that say what
//!   it is like (`rate=200mbit rtt=300ms loss=5% burst=8`).
//! - `real`: links of two such lines between two network namespaces of this machine.
//! - `sim`: the tunnel's transport over such lines in virtual time, in numbers and pictures.
//!
//! What always holds: a line loses only what it was told to lose, and says how much that was. Where
//! a real link could not do as it was told, because the machine was late or a device refused a
//! packet, it says that as well.

#![forbid(unsafe_code)]

pub mod line;
pub mod real;
pub mod sim;

pub use line::{Arrival, Counts, Direction, Line, Loss};
pub use line::{Link, Queue, Way, WordError};
