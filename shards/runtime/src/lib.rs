//! Shards: one pinned thread, one io_uring ring, one owner of everything on it.
//!
//! Whoever builds a server implements [`Service`] and gives it to [`Runtime::start`]. The runtime
//! accepts, connects, receives, sends and closes for it, wakes it for its timers, and carries its
//! mail between shards. Two services can have the same shards: the second one is a [`Guest`] of the
//! first, and neither knows of the other. Nothing is shared between shards on the hot path, and no
//! bytes are understood here: protocols live elsewhere.
//!
//! The map: `runtime.rs` starts and stops, `shard.rs` is the loop (`shard/doors.rs` who comes in,
//! `shard/parting.rs` who leaves, `shard/datagrams.rs` UDP), `conns.rs` the connections,
//! `sockets.rs` the UDP sockets, `io.rs`, `io/datagrams.rs` and `service.rs` what a service sees,
//! `mailbox.rs`, `wake.rs`, `office.rs` and `control.rs` the mail, `parcels.rs` connections on
//! their way to another shard, `spin.rs`, `timers.rs` and `drain.rs` the waiting,
//! `placement.rs` cores and slots, `pair.rs` two services as one.

#![allow(unexpected_cfgs, reason = "cfg(loom) is given by hand, see `sync.rs`")]

mod conns;
mod control;
mod counters;
mod drain;
mod io;
mod mailbox;
mod office;
mod pair;
mod parcels;
mod placement;
mod pool;
mod runtime;
mod service;
mod shard;
mod sockets;
mod spin;
mod sync;
mod timers;
mod wake;

pub use conns::CONN_BYTES;
pub use control::ControlPort;
pub use counters::{
    Counter, DURATION_CLASSES, ShardCounters, duration_class, duration_class_end_ns,
};
pub use io::Io;
pub use pair::{Guest, Lodged, Make, Room};
pub use placement::PinPolicy;
pub use runtime::{Addresses, RunError, Running, Runtime, RuntimeConfig, StartError, Stopper};
pub use service::{
    ACCEPT_PAUSE, Close, FLUSH_MAX, LINGER_MAX, ListenerKind, NoSocket, Peer, Service, ShardContext,
};
pub use sockets::{Datagrams, SocketId, Unsent};
pub use spin::SpinPolicy;
// What its users need of the ring, so that they need not name it.
pub use ringway_ring::net::{
    CongestionControl, KEEPALIVE_PROBES, TcpPath, Tuning, listen_together,
};
pub use ringway_ring::{
    Buffers, DatagramSocket, Ecn, Errno, Feature, ProbeMask, Report, RingConfig, SetupError,
    SocketMemory, TRAIN_BYTES_MAX, TRAIN_DATAGRAMS_MAX, Towards, host,
};
