//! Real processes: the binary as users start it, talked to over loopback, killed, paused, flooded.
//!
//! Always holds: every server takes its ports from the kernel and its state from a directory of
//! its own, so any number of these tests run beside each other and beside a server in use; what a
//! test has started is gone when it ends, also when it fails. Bounds on times are generous, for a
//! loaded machine with two cores; where the number matters it is printed.
//!
//! Not here: what single operations answer (`coord/proto`), the control plane blocked beside the
//! shards (`coord/server/tests`), the clients of others (`tools/clients`).

mod access;
mod cli;
mod crowds;
mod exec;
mod floods;
mod hands;
mod histories;
mod letters;
mod matrix;
mod owners;
mod pauses;
mod redis_crate;
mod refusals;
mod restart;
mod sim;
mod support;
mod tunnel;
mod waits;
mod wan;
mod watches;
