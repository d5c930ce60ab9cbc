//! What a tunnel that runs says of itself: peers, carriers, flows, and what limits each flow.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

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
    /// The peers of the configuration, and what there is of each.
    pub peers: Vec<PeerStatus>,
    /// Counters since the start.
    pub counters: BTreeMap<String, u64>,
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
    /// Some of them: those that moved most.
    pub flows: Vec<FlowStatus>,
}

/// A carrier.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CarrierStatus {
    /// Its number, here: no other carrier of this shard has had it or will.
    #[serde(default)]
    pub id: String,
    /// Its other end.
    pub peer: Option<SocketAddr>,
    /// Round trip, queues included.
    pub rtt_us: u64,
    /// Bytes a second that it was seen to take.
    pub rate: u64,
    /// Bytes of streams that were put on it.
    pub sent: u64,
    /// Bytes of streams on their way.
    pub in_flight: u64,
    /// Bytes that wait for it here.
    pub waiting: u64,
    /// Bytes that went again by others because of it.
    pub resent: u64,
    /// It does not answer.
    pub suspect: bool,
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
    /// What it waits for.
    pub limited_by: String,
}

/// What one shard tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShardStatus {
    /// Sessions, by their peer's number.
    pub(crate) sessions: Vec<(u16, SessionStatus)>,
    /// Connections that wait, by the peer's number.
    pub(crate) waiting: Vec<(u16, u64)>,
}
