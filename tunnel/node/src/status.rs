//! What a tunnel that runs says of itself: peers, carriers, flows, and what limits each flow.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ringway_tunnel_proto::BothWays;
use serde::{Deserialize, Serialize};

/// What limits a carrier by which nothing comes back, or never has.
pub(crate) const NO_ANSWER: &str = "no answer";

/// A whole process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Where carriers come in.
    pub listen: Vec<SocketAddr>,
    /// Ports of the configuration that could not be opened when it was last read.
    #[serde(default)]
    pub unopened: Vec<UnopenedStatus>,
    /// The peers of the configuration, and what there is of each.
    pub peers: Vec<PeerStatus>,
    /// Counters since the start.
    pub counters: BTreeMap<String, u64>,
}

/// Where applications should connect and cannot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnopenedStatus {
    /// The port, as the file has it.
    pub listen: Option<SocketAddr>,
    /// What it is: `forward`, `socks5` or `http_connect`.
    pub kind: String,
    /// The peer that it leads to.
    pub peer: String,
    /// What the kernel said.
    pub why: String,
}

/// A peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Whether some session can be used.
    pub up: bool,
    /// Whether this side dials it.
    pub dials: bool,
    /// Sessions: one for each shard of who dials.
    pub sessions: Vec<SessionStatus>,
    /// Connections that wait for a session.
    pub waiting: u64,
    /// What all its sessions have together, and had.
    #[serde(flatten)]
    pub together: Together,
}

/// What the sessions of a peer have together; bytes also of flows and carriers that are no more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Together {
    /// Flows there are.
    #[serde(default)]
    pub flow_count: u64,
    /// Carriers there are.
    #[serde(default)]
    pub carrier_count: u64,
    /// Bits a second from our applications, of all flows.
    #[serde(default)]
    pub rate_in_bits_per_s: u64,
    /// Bits a second to our applications.
    #[serde(default)]
    pub rate_out_bits_per_s: u64,
    /// The shortest round trip of its carriers.
    #[serde(default)]
    pub rtt_us: Option<u64>,
    /// Bytes from our applications.
    #[serde(default)]
    pub bytes_in: u64,
    /// Bytes to our applications.
    #[serde(default)]
    pub bytes_out: u64,
    /// Bytes that the tunnel did not have to carry, both ways; below zero if heads cost more.
    #[serde(default)]
    pub saved: i64,
    /// Bytes of streams on their way to it.
    #[serde(default)]
    pub in_flight: u64,
    /// Bytes that went again because a carrier was lost, silent or slow.
    #[serde(default)]
    pub resent: u64,
    /// What limits the flow that moves most, of those that are told.
    #[serde(default)]
    pub limited_by: Option<String>,
}

/// A session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Its number, which both sides have for it, once there is one. What is counted of it begins
    /// with it.
    #[serde(default)]
    pub id: Option<String>,
    /// Which shard has it.
    pub shard: u8,
    /// Whether some carrier works.
    pub up: bool,
    /// Its cipher.
    pub cipher: Option<String>,
    /// Which of the peer's keys it counts under: its place in our file, from 1.
    pub peer_key: Option<u64>,
    /// How many of its keys are there.
    pub peer_keys: u64,
    /// Which of our keys it counts under, likewise. Known where we dial, and there are key pairs.
    pub own_key: Option<u64>,
    /// How many there are.
    pub own_keys: u64,
    /// How often its keys were changed.
    pub epoch: u32,
    /// Attempts in a row to reach the peer that came to nothing.
    pub failures: u32,
    /// Milliseconds for which no carrier has worked.
    pub alone_ms: Option<u64>,
    /// Its carriers.
    pub carriers: Vec<CarrierStatus>,
    /// Flows there are.
    pub flow_count: u64,
    /// Bytes that went again because of its carriers, of those too that are no more.
    #[serde(default)]
    pub resent: u64,
    /// Some of them, from the one that moves most, or has.
    pub flows: Vec<FlowStatus>,
}

/// Why a carrier over UDP sends as it does, in words.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WhyStatus {
    /// As fast.
    pub rate: String,
    /// So far ahead of what was heard.
    pub window: String,
    /// Things again.
    pub repair: String,
    /// What was decided of late, the newest last.
    pub decisions: Vec<DecisionStatus>,
}

/// A decision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DecisionStatus {
    /// Milliseconds since.
    pub ago_ms: u64,
    /// In words, with the numbers that it was made by.
    pub what: String,
}

/// A carrier.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CarrierStatus {
    /// Its number, here: no other carrier of this shard has had it or will.
    #[serde(default)]
    pub id: String,
    /// What it runs on: `tcp` or `udp`.
    #[serde(default)]
    pub kind: String,
    /// Its other end.
    pub peer: Option<SocketAddr>,
    /// Round trip, queues included.
    pub rtt_us: u64,
    /// Bits a second that we send by it: all that is on the wire.
    #[serde(default)]
    pub rate_sent_bits_per_s: u64,
    /// Bits a second that come by it, likewise.
    #[serde(default)]
    pub rate_received_bits_per_s: u64,
    /// Bits a second that it was seen to take.
    #[serde(default)]
    pub takes_bits_per_s: u64,
    /// Bytes that we sent by it.
    #[serde(default)]
    pub bytes_sent: u64,
    /// Bytes that came by it.
    #[serde(default)]
    pub bytes_received: u64,
    /// Bytes of streams that were put on it.
    pub sent: u64,
    /// Bytes of streams on their way.
    pub in_flight: u64,
    /// Bytes that wait for it here.
    pub waiting: u64,
    /// Bytes that went again by others because of it.
    pub resent: u64,
    /// Bytes of its datagrams, heads of IP and UDP not counted, if it is one over UDP: what its
    /// path was found to pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datagram_bytes: Option<u64>,
    /// It does not answer.
    pub suspect: bool,
    /// Microseconds since its other end was heard of, if it is one over UDP; not there while a
    /// question whether it works is not answered. Who has nothing to say is asked each 15 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_us_ago: Option<u64>,
    /// What keeps it from being given more: `path`, `no answer`, `held back` or `nothing`.
    #[serde(default)]
    pub limited_by: String,
    /// Why it sends as it does, if it is one over UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<WhyStatus>,
}

/// A flow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// Its number.
    pub flow: u64,
    /// Who the user is.
    pub from: Option<String>,
    /// Where to.
    pub target: String,
    /// How far it has come.
    pub stage: String,
    /// How long it has been there.
    pub age_ms: u64,
    /// Bits a second from our application.
    #[serde(default)]
    pub rate_in_bits_per_s: u64,
    /// Bits a second to our application.
    #[serde(default)]
    pub rate_out_bits_per_s: u64,
    /// The longest round trip of the carriers that have something of it on its way; if none has,
    /// the shortest of all.
    #[serde(default)]
    pub rtt_us: Option<u64>,
    /// Bytes from our application.
    pub bytes_in: u64,
    /// Bytes to our application.
    pub bytes_out: u64,
    /// Bytes that the tunnel did not have to carry, both ways; below zero if heads cost more.
    pub saved: i64,
    /// Bytes that we keep until the peer has them.
    pub kept: u64,
    /// Of those, bytes that are on their way.
    #[serde(default)]
    pub in_flight: u64,
    /// Bytes that went again because their carrier was lost, silent or slow.
    #[serde(default)]
    pub resent: u64,
    /// What it waits for.
    pub limited_by: String,
}

/// What one shard tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShardStatus {
    /// Sessions, by their peer's number; of each the flow that moves least is the first.
    pub(crate) sessions: Vec<(u16, SessionStatus)>,
    /// Connections that wait, by the peer's number.
    pub(crate) waiting: Vec<(u16, u64)>,
    /// What peers' flows moved, by the peer's number.
    pub(crate) totals: Vec<(u16, PeerTotals)>,
}

/// What the flows of a peer moved on one shard, those too that are over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerTotals {
    /// From our applications, and to them.
    pub(crate) bytes: BothWays,
    pub(crate) bits_per_s: BothWays,
    pub(crate) saved: i64,
    /// Bytes that went again.
    pub(crate) resent: u64,
}
