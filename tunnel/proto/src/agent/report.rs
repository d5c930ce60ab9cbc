//! What an agent knows of its sessions, for who asks.

use super::*;
use crate::path::Why;
use crate::report::{CarrierReport, PacketsReport};

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
    /// Its carriers of records.
    pub members: Vec<MemberReport>,
    /// Its carriers of packets.
    pub packets: Vec<PacketMemberReport>,
    /// Since when streams go by records though packets get through: those are held back.
    pub by_records: Option<Moment>,
    /// When packets were sent last, all that may go went, and not all that was to be said: what is
    /// still unsent waits for the path's rate or window.
    pub path_bound: bool,
    /// Some stream has more to say than fits into a record or two.
    pub has_bulk: bool,
    /// How many flows it has.
    pub flow_count: u64,
    /// Bytes that went again because of its carriers, of those too that are no more.
    pub resent: u64,
    /// Its flows, where they were asked for with it.
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
    pub takes: u64,
    /// Bytes of records that were sealed for it, and bytes that came by it.
    pub wire: Meter,
    /// It has no bulk while there is another.
    pub express: bool,
}

/// A carrier of packets of a session.
#[derive(Clone, Debug)]
pub struct PacketMemberReport {
    /// Which one: no other of this session has had it or will.
    pub slot: u16,
    /// Where its packets go.
    pub route: Route,
    /// What the session knows of it.
    pub carrier: CarrierReport,
    /// And of its packets.
    pub packets: PacketsReport,
    /// Why it sends as it does.
    pub why: Why,
    /// Bytes of datagrams that were sealed for it, and that came by it.
    pub wire: Meter,
    /// Datagrams wait until the host sends more.
    pub held_up: bool,
}

impl Agent {
    /// How many places for sessions there are: who wants to know all asks for each, by
    /// [`Self::report_of`], as many at a time as it likes.
    pub fn places(&self) -> u32 {
        self.bonds.len() as u32
    }

    /// A session, if there is one at this place: constant time for each of its carriers. Of its
    /// flows the shell has a list, and [`Self::flow`] tells of each.
    pub fn report_of(&self, id: BondId, backlog: impl Fn(ConnId) -> usize) -> Option<BondReport> {
        let bond = self.get(id)?;
        let members = bond.members.iter().enumerate().filter_map(|(at, member)| {
            let conn = (*member)?.conn;
            let carrier = bond.flows.carrier(CarrierSlot(at as u16))?;
            let Carrier { pace, meter, .. } = self.carriers[conn.index as usize].as_deref()?;
            Some(MemberReport {
                conn,
                carrier,
                waiting: backlog(conn),
                takes: pace.rate(),
                wire: *meter,
                express: bond.express == Some(CarrierSlot(at as u16)),
            })
        });
        let packets = bond.packets.iter().filter_map(|member| {
            Some(PacketMemberReport {
                slot: member.link.slot(),
                route: member.route,
                carrier: bond.flows.carrier(member.place)?,
                packets: bond.flows.packets_report(member.place)?,
                why: bond.flows.packets_why(member.place)?,
                wire: member.meter,
                held_up: member.held_up,
            })
        });
        let known = bond.known.as_ref();
        Some(BondReport {
            bond: id,
            peer: bond.peer,
            dials: bond.role == Role::Initiator,
            session: known.map(|known| known.id),
            theirs: known.map(|known| known.theirs),
            suite: known.map(|known| known.suite),
            identity: known.map(|known| known.identity),
            epoch: known.map_or(0, |known| known.epochs.number()),
            up: bond.told_up,
            alone_since: bond.alone_since,
            failures: bond.failures,
            members: members.collect(),
            packets: packets.collect(),
            by_records: bond.by_records,
            path_bound: bond.path_bound,
            has_bulk: bond.flows.has_bulk(),
            flow_count: bond.flows.flow_count() as u64,
            resent: bond.resent(),
            flows: Vec::new(),
        })
    }

    /// Asks by every carrier of packets whether those get through, as [`Why::silent`] and
    /// [`Why::heard_at`] tell later.
    pub fn ask_packets(&mut self, now: Moment) {
        for place in 0..self.places() {
            let Some(bond) = self.get_mut(BondId(place)) else { continue };
            for member in &bond.packets {
                bond.flows.ask_packets(now, member.place);
            }
            if !bond.packets.is_empty() {
                self.touch(BondId(place));
            }
        }
    }

    /// Bytes that went again in sessions with this peer, those too that are over: it only grows.
    pub fn resent(&self, peer: PeerId) -> u64 {
        let all = self.by_peer.range((peer, BondId(0))..=(peer, BondId(u32::MAX)));
        let now: u64 = all.filter_map(|(_, id)| self.get(*id)).map(Bond::resent).sum();
        now + self.resent_before.get(&peer).copied().unwrap_or(0)
    }

    /// All sessions at once, with all of their flows or without. For who has few.
    pub fn report(&self, with_flows: bool, host: &impl Host) -> Vec<BondReport> {
        let told = |id| {
            let mut report = self.report_of(id, |conn| host.backlog(conn))?;
            let session = &self.get(id)?.flows;
            let flows = session.flows().filter(|_| with_flows);
            report.flows = flows.filter_map(|flow| Some((flow, session.flow(flow)?))).collect();
            Some(report)
        };
        (0..self.places()).map(BondId).filter_map(told).collect()
    }
}
