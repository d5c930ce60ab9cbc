//! The tunnel's shell: what its machines need of this host.
//!
//! - `key_file`: keys in files that only their owner may read.
//! - `chance`: the kernel's randomness, as the seed of what draws keys.
//! - `ciphers`: which library is the fastest on this processor.
//! - `config`: the file of one side, as checked, and what another reading changes.
//! - `invite`, `pairing`: two sites become peers by one pasted line.
//! - `policy`: what a peer may reach through us.
//! - `generation`, `clocks`: whether this machine is a copy of another, or its clock was set.
//! - `check`: why a peer is not connected.
//! - `selftest`: what our carriers look like to who sees them pass.
//!
//! What always holds:
//! - N1  A secret is never printed, logged or taken from the command line or the environment. An
//!   invitation is, because it is made to be pasted, and says of itself that it is a secret.
//!
//! Not here: what is said on the wire (`tunnel/proto`), how it is protected (`crypto`).

#![forbid(unsafe_code)]

mod asked;
mod chance;
pub mod check;
mod ciphers;
mod clocks;
pub mod config;
mod datagrams;
mod demo;
mod generation;
mod invite;
mod key_file;
mod metrics;
mod pairing;
pub mod policy;
mod pump;
mod resolver;
mod salts;
pub mod selftest;
mod shared;
mod site;
pub mod status;
mod tunnel;

pub use asked::ask;
pub use chance::{NoChance, entropy};
pub use ciphers::{Backend, Calibration, Suite, calibrate};
pub use demo::{Demo, DemoError};
pub use invite::{Invite, LINE_BYTES_MAX, NoInvite};
pub use key_file::{KeyFileError, KeyKind, Made, make, read_network, read_private, read_shared};
pub use pairing::{Guest, Invited, Joined, PairError, Wanted, invite, join};
pub use pump::Pump;
pub use ringway_crypto::PublicKey;
pub use ringway_tunnel_proto::Target;
pub use ringway_tunnel_proto::{Exempt, Flaw, Lengths, Sample, Uniformity};
pub use tunnel::{Attendant, Prepared, Ready, Reloaded, StartError, Tunnel};
