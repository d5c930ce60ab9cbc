//! The coordinator in virtual time: processes, clients and faults, all from one seed.

pub mod alone;
pub mod limited;
pub mod native;
pub mod process;
pub mod redis;
pub mod resp_stream;
pub mod stories;
pub mod stream;
pub mod swarm;
