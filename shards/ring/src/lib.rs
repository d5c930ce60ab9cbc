//! One io_uring ring behind an API that cannot be misused, and every system call of the shards.
//!
//! This is the home of `unsafe`: whoever uses it names sockets, buffers it owned before and owns
//! again after, and numbers of its own (tags); never an address. What the kernel may still read
//! or write belongs to the ring until the last completion says otherwise, dropped rings included.
//!
//! - `setup.rs` finds out what the kernel offers and says what to do about what is missing.
//! - `ring.rs` is the ring; `sq.rs` makes its requests, `cq.rs` reads its answers, `ops.rs` owns
//!   the bytes that are lent to the kernel, `letters.rs` what it is told about trains of datagrams,
//!   `bufring.rs` the buffers that the kernel fills.
//! - `mapped.rs`, `committer.rs`, `budget.rs`: memory that grows in place, ahead of its user.
//! - `host.rs`, `net.rs`, `udp.rs`, `bell.rs`, `tun.rs`: clocks, cores, limits, sockets of streams
//!   and of datagrams, eventfds, TUN devices.
//!
//! Not here: connections, turns, mailboxes (`ringway-shards`), and any protocol.

mod bell;
mod budget;
mod bufring;
mod committer;
mod cq;
pub mod host;
mod letters;
mod mapped;
mod mapping;
pub mod net;
mod ops;
mod ring;
mod setup;
mod sq;
mod tun;
mod udp;

pub use bell::Bell;
pub use budget::{BudgetSpent, MemoryBudget};
pub use bufring::Filled;
pub use committer::Committer;
pub use cq::{Completion, Errno, Received};
pub use letters::{Cut, Left, SentTrain, Train};
pub use mapped::{CommitCounts, MappedRegion};
pub use ring::{Buffers, Ring, RingConfig, RingHandle, SendMode, Wait};
pub use setup::{
    Feature, Features, KernelVersion, ProbeMask, Report, ReportRow, RowState, SetupError, probe,
};
pub use sq::{Group, Tag};
pub use tun::Tun;
pub use udp::{
    Arrival, DatagramSocket, Ecn, SocketMemory, TRAIN_BYTES_MAX, TRAIN_DATAGRAMS_MAX, Towards,
};
