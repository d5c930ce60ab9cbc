//! The coordinator's protocol and state, without I/O: bytes and time in, bytes out.
//!
//! Nothing here knows that sockets, threads, files or clocks exist. The shell feeds inputs and
//! carries outputs; the simulator does the same, and so replays whatever happened in production.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod resp;
pub mod wire;
