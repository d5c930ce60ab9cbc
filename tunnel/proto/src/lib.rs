//! The tunnel's machines: user connections as *flows* over a changing set of *carriers*.
//!
//! Two *agents* share a *session*. A flow is two streams of bytes, one each way, each with an end
//! of its own. A carrier moves records between the agents, in order, until it dies without notice.
//! Any piece of any flow may travel by any carrier, twice or in any order: what makes a stream of
//! it again is here, at the two ends.
//!
//! - `frame`: what a record says, to the byte.
//! - `send`, `recv`: one direction of a flow, at the end that writes and at the one that reads.
//! - `link`, `epochs`: a carrier's bytes, from the first to its records, and its keys over time.
//!   `packet_link`: the same of one of packets.
//! - `target`, `socks`, `connect`: where a flow is to go, as agents and as applications say it.
//! - `proxy`: who a service's client is. `look`: what a censor sees of a carrier.
//! - `carrier`, `delivery`: what is known of a carrier, and how much it is given. `path`: carriers
//!   of packets, which may be lost one by one. `session`: flows and carriers together.
//!   `violation`: what ends one.
//! - `hello`, `opening`: what the first messages of carriers and flows say.
//! - `agent`, `pool`: all sessions of a shard, their handshakes, and how many carriers each has.
//! - `memory`: how much of what came is kept, and whose it may be.
//! - `report`, `meter`: what is told of all that, and rates. `limits`: bounds of the tunnel.
//! - `sabotage`: rules that tests switch off. `testing_doors`: machines that are fuzzed alone.
//!
//! What always holds, whatever carriers do (`tests/swarm.rs`):
//! - T1  What was delivered of a stream is a prefix of what was written to it.
//! - T2  A byte is kept until the other *agent* has said that it has it. No carrier's word and no
//!   kernel's counts.
//! - T3  The end of a stream is delivered after all its bytes, or not at all.
//! - T4  Once a carrier works for long enough, everything that was written is delivered.
//!
//! Not here: sockets, clocks, randomness, ciphers (`ringway-crypto`), who may connect where.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod agent;
mod carrier;
mod connect;
mod delivery;
mod detour;
mod epochs;
mod frame;
mod hello;
pub mod limits;
mod link;
mod look;
mod memory;
mod meter;
mod opening;
mod packet_link;
pub mod path;
mod pool;
mod proxy;
mod recv;
mod report;
pub mod sabotage;
mod send;
mod session;
mod socks;
mod spans;
mod target;
#[cfg(test)]
mod testing;
#[doc(hidden)]
pub mod testing_doors;
mod violation;

pub use agent::{
    Agent, AgentSettings, Arrived, BondId, BondReport, DatagramCounts, Dropped, Host, Identity,
    MemberReport, NoFlow, NotLetIn, Note, Owner, PacketMemberReport, Peer, PeerId, Registry, Route,
    TcpPath,
};
pub use carrier::CarrierSlot;
pub use connect::{
    BadHead, CONNECT_HEAD_MAX, Connect, ConnectReply, connect_reply, connect_request,
};
pub use epochs::{Epochs, Exchange};
pub use frame::{Ack, FlowId, Frame, Frames, Malformed, ResetCode};
pub use hello::{Instance, VERSION, is_hello_understood, probe_hello};
pub use limits::{HALF_OPEN_MAX, WINDOW_FIRST};
pub use link::{Link, Place, Rekeying, Salted, Step};
pub use look::{Exempt, Flaw, LOOK_POSITIONS_MAX, Lengths, Sample, Uniformity, heuristic};
pub use memory::MemoryReport;
pub use meter::{BothWays, Meter};
pub use opening::{
    ANSWER_BYTES, Coding, OPENING_BYTES_MAX, Opening, answer as opening_answer, read_answer,
};
pub use proxy::{Origin, PROXY_HEADER_MAX, write_proxy_header};
pub use report::{CarrierReport, FlowReport, PacketsReport};
pub use session::{
    DATAGRAM_TEXT_MAX, DatagramRefused, DatagramsReport, Event, FlowsFull, Outlet, Role, Session,
    Settings, Share,
};
pub use socks::{Socks, SocksReply, greeting, reply, request};
pub use target::{NoTarget, TARGET_BYTES_MAX, Target};
pub use violation::Violation;
