//! What a shard tells of itself, and what limits each flow.

use ringway_core::Moment;
use ringway_shards::Io;
use ringway_tunnel_proto::{BondReport, FlowId, FlowReport};

use super::Pump;
use super::desk::Desk;
use super::flow::{Flow, Stage};
use crate::status::{CarrierStatus, FlowStatus, SessionStatus, ShardStatus};

impl Pump {
    /// Leaves a report of this shard.
    pub(super) fn leave_report(
        &mut self,
        now: Moment,
        (number, flows_max): (u64, usize),
        io: &mut Io<'_>,
    ) {
        let bonds = self.agent.report(usize::MAX, &Desk { own: &mut self.own, io, now });
        let mut status = ShardStatus::default();
        for bond in bonds {
            let session = self.session(now, &bond, flows_max, io);
            status.sessions.push((bond.peer.0, session));
        }
        status.waiting = self.own.waiting_counts();
        self.own.shared.leave_report(number, status);
        io.post(self.own.control, &[1]);
    }

    fn session(
        &mut self,
        now: Moment,
        bond: &BondReport,
        flows_max: usize,
        io: &Io<'_>,
    ) -> SessionStatus {
        let carriers_full = !bond.members.is_empty()
            && bond.members.iter().filter(|one| one.carrier.usable).all(|one| one.waiting > 0);
        let mut flows: Vec<FlowStatus> = bond
            .flows
            .iter()
            .filter_map(|(id, report)| {
                let key = self.own.at(bond.bond, *id)?;
                let flow = self.own.flow(key)?;
                Some(told(now, flow, (*id, report), (bond.up, carriers_full), io))
            })
            .collect();
        let flow_count = flows.len() as u64;
        flows.sort_by_key(|flow| std::cmp::Reverse(flow.bytes_in + flow.bytes_out));
        flows.truncate(flows_max);
        let carriers = bond.members.iter().map(|member| CarrierStatus {
            peer: self.own.carrier_peer(member.conn),
            rtt_us: member.carrier.rtt.0 / 1000,
            rate: member.rate,
            sent: member.carrier.sent,
            in_flight: member.carrier.flying,
            waiting: member.waiting as u64,
            resent: member.carrier.resent,
            suspect: member.carrier.suspect,
        });
        let peer = self.own.site.peer(bond.peer);
        let theirs = peer.map(|peer| peer.identity.proofs()).unwrap_or_default();
        let ours = &self.own.site.config.identities;
        let place = |at: usize| at as u64 + 1;
        let mine = bond.identity.and_then(|identity| identity.mine);
        let proof = match bond.session.filter(|_| !bond.dials) {
            Some(id) => self.own.shared.ask_registry(|registry| registry.proof_of(id)),
            None => bond.identity.map(|identity| identity.theirs),
        };
        SessionStatus {
            peer_key: theirs.iter().position(|known| Some(*known) == proof).map(place),
            peer_keys: theirs.len() as u64,
            own_key: mine
                .and_then(|mine| ours.iter().position(|key| key.public() == mine))
                .map(place),
            own_keys: ours.len() as u64,
            shard: self.own.me.0,
            up: bond.up,
            cipher: bond.suite.map(|suite| suite.name().to_owned()),
            epoch: bond.epoch,
            failures: bond.failures,
            alone_ms: bond.alone_since.map(|since| now.since(since).as_ms_ceil()),
            carriers: carriers.collect(),
            flow_count,
            flows,
        }
    }
}

fn told(
    now: Moment,
    flow: &Flow,
    (id, report): (FlowId, &FlowReport),
    (up, carriers_full): (bool, bool),
    io: &Io<'_>,
) -> FlowStatus {
    let counters = flow.coder.iter().map(|coder| coder.counters());
    let counters = counters.chain(flow.decoder.iter().map(|decoder| decoder.counters()));
    let backlog = flow.conn.map_or(0, |conn| io.backlog(conn));
    // What holds it back at this moment, the surest sign first.
    let limited_by = match flow.stage {
        Stage::Resolving(_) => "name",
        Stage::Connecting(_) | Stage::Asked | Stage::Opening => "connect",
        Stage::Greeting | Stage::Request => "application",
        Stage::Waiting(_) => "carrier",
        Stage::Leaving => "our reader",
        Stage::Joined if !up => "carrier",
        Stage::Joined if flow.throttled => "rate",
        Stage::Joined if backlog > 0 => "our reader",
        Stage::Joined if report.out_of_credit => "peer's reader or window",
        Stage::Joined if report.unsent > 0 && carriers_full => "carrier",
        Stage::Joined if report.unsent > 0 => "CPU",
        Stage::Joined => "application",
    };
    let stage = match flow.stage {
        Stage::Greeting | Stage::Request => "greeting",
        Stage::Waiting(_) => "waiting",
        Stage::Asked | Stage::Opening => "opening",
        Stage::Resolving(_) => "resolving",
        Stage::Connecting(_) => "connecting",
        Stage::Joined => "joined",
        Stage::Leaving => "leaving",
    };
    FlowStatus {
        flow: id.0,
        from: flow.from.map(|from| from.to_string()),
        target: flow.target.clone(),
        stage: stage.to_owned(),
        age_ms: now.since(flow.began).as_ms_ceil(),
        bytes_in: flow.bytes_in,
        bytes_out: flow.bytes_out,
        saved: counters.map(|counters| counters.saved()).sum(),
        kept: report.kept,
        limited_by: limited_by.to_owned(),
    }
}
