//! What an agent knows of its sessions, for who asks.

use super::*;
use crate::report::CarrierReport;

/// A session.
#[derive(Clone, Debug)]
pub struct BondReport {
    /// It.
    pub bond: BondId,
    /// With whom.
    pub peer: PeerId,
    /// Whether this side dials.
    pub dials: bool,
    /// The session's number, once there is one.
    pub session: Option<SessionId>,
    /// Which life of the peer's process it is with.
    pub theirs: Option<Instance>,
    /// Its cipher.
    pub suite: Option<Suite>,
    /// Under which keys of the two it counts; where we do not dial, under which it began: then
    /// [`Registry::proof_of`] knows the peer's latest.
    pub identity: Option<Identity>,
    /// The epoch of its keys.
    pub epoch: u32,
    /// Whether some carrier works.
    pub up: bool,
    /// Since when none does.
    pub alone_since: Option<Moment>,
    /// Attempts in a row that came to nothing.
    pub failures: u32,
    /// Its carriers.
    pub members: Vec<MemberReport>,
    /// How many flows it has.
    pub flow_count: u64,
    /// Its flows, if they were asked for.
    pub flows: Vec<(FlowId, FlowReport)>,
}

/// A carrier of a session.
#[derive(Clone, Copy, Debug)]
pub struct MemberReport {
    /// Its connection.
    pub conn: ConnId,
    /// What the session knows of it.
    pub carrier: CarrierReport,
    /// Bytes that wait for it.
    pub waiting: usize,
    /// Bytes a second that it was seen to take.
    pub rate: u64,
    /// It has no bulk while there is another.
    pub express: bool,
}

impl Agent {
    /// All sessions, with all of their flows or without. Each flow that is told costs what it has
    /// on its way, in pieces.
    pub fn report(&self, with_flows: bool, host: &impl Host) -> Vec<BondReport> {
        let told = |(at, bond): (usize, &Option<Box<Bond>>)| {
            let bond = bond.as_deref()?;
            let members = bond.members.iter().enumerate().filter_map(|(at, member)| {
                let conn = (*member)?.conn;
                let carrier = bond.flows.carrier(CarrierSlot(at as u16))?;
                let pace = self.carriers[conn.index as usize].as_ref()?.pace;
                let express = bond.express == Some(CarrierSlot(at as u16));
                let (waiting, rate) = (host.backlog(conn), pace.rate());
                Some(MemberReport { conn, carrier, waiting, rate, express })
            });
            let flows = bond.flows.flows().filter(|_| with_flows);
            let flows = flows.filter_map(|flow| Some((flow, bond.flows.flow(flow)?)));
            Some(BondReport {
                bond: BondId(at as u32),
                peer: bond.peer,
                dials: bond.role == Role::Initiator,
                session: bond.known.as_ref().map(|known| known.id),
                theirs: bond.known.as_ref().map(|known| known.theirs),
                suite: bond.known.as_ref().map(|known| known.suite),
                identity: bond.known.as_ref().map(|known| known.identity),
                epoch: bond.known.as_ref().map_or(0, |known| known.epochs.number()),
                up: bond.told_up,
                alone_since: bond.alone_since,
                failures: bond.failures,
                members: members.collect(),
                flow_count: bond.flows.flow_count() as u64,
                flows: flows.collect(),
            })
        };
        self.bonds.iter().enumerate().filter_map(told).collect()
    }
}
