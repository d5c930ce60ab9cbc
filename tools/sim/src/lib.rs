//! The coordinator in virtual time: processes, clients and faults, all from one seed.

pub mod native;
pub mod process;
pub mod stream;
pub mod swarm;
