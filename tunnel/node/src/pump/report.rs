//! What a shard tells of itself, and what limits each flow.

use ringway_core::Moment;
use ringway_shards::Io;
use ringway_tunnel_proto::{BondReport, FlowId, FlowReport, MemberReport};

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
        let bonds = self.agent.report(flows_max > 0, &Desk { own: &mut self.own, io, now });
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
        let carriers_full = are_full(&bond.members);
        let mut most: Vec<_> = bond
            .flows
            .iter()
            .filter_map(|(id, report)| {
                let key = self.own.at(bond.bond, *id)?;
                let flow = self.own.flow(key)?;
                Some((flow.bytes_in + flow.bytes_out, *id, key, report))
            })
            .collect();
        most.sort_unstable_by_key(|(bytes, id, ..)| (std::cmp::Reverse(*bytes), *id));
        most.truncate(flows_max);
        let flows = most.into_iter().filter_map(|(_, id, key, report)| {
            Some(told(now, self.own.flow(key)?, (id, report), (bond.up, carriers_full), io))
        });
        let flows = flows.collect();
        let carriers = bond.members.iter().map(|member| CarrierStatus {
            id: format!("{}.{}", member.conn.index, member.conn.generation),
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
            id: bond.session.map(|id| format!("{:016x}", id.0)),
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
            flow_count: bond.flow_count,
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
    let signs = Signs {
        no_carrier: !up,
        throttled: flow.is_throttled(),
        unread: backlog > 0,
        out_of_credit: report.out_of_credit,
        unsent: report.unsent > 0,
        carriers_full,
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
        in_flight: report.flying,
        limited_by: limit(&flow.stage, signs).to_owned(),
    }
}

/// Whether no carrier that bulk may go by takes more: bytes wait for it, or as many are on their
/// way as serve any purpose.
fn are_full(members: &[MemberReport]) -> bool {
    let usable = || members.iter().filter(|one| one.carrier.usable);
    let alone = usable().nth(1).is_none();
    let mut bulk = usable().filter(|one| alone || !one.express).peekable();
    bulk.peek().is_some() && bulk.all(|one| one.waiting > 0 || !one.carrier.has_window)
}

/// What is seen of a flow that is joined.
#[derive(Clone, Copy, Debug, Default)]
struct Signs {
    no_carrier: bool,
    throttled: bool,
    unread: bool,
    out_of_credit: bool,
    unsent: bool,
    carriers_full: bool,
}

/// What holds a flow back at this moment, the surest sign first.
fn limit(stage: &Stage, signs: Signs) -> &'static str {
    match stage {
        Stage::Resolving(_) => "name",
        Stage::Connecting(_) | Stage::Asked | Stage::Opening => "connect",
        Stage::Greeting | Stage::Request => "application",
        Stage::Waiting(_) => "carrier",
        Stage::Leaving => "our reader",
        Stage::Joined if signs.no_carrier => "carrier",
        Stage::Joined if signs.throttled => "rate",
        Stage::Joined if signs.unread => "our reader",
        Stage::Joined if signs.out_of_credit => "peer's reader or window",
        Stage::Joined if signs.unsent && signs.carriers_full => "carrier",
        Stage::Joined if signs.unsent => "CPU",
        Stage::Joined => "application",
    }
}

#[cfg(test)]
mod tests {
    use ringway_core::{ConnId, Span};
    use ringway_tunnel_proto::CarrierReport;

    use super::*;

    #[test]
    fn what_limits_a_flow_is_its_surest_sign() {
        let none = Signs::default();
        let unsent = Signs { unsent: true, ..none };
        let full = Signs { carriers_full: true, ..unsent };
        let table = [
            (none, "application"),
            (Signs { carriers_full: true, ..none }, "application"),
            (unsent, "CPU"),
            (full, "carrier"),
            (Signs { out_of_credit: true, ..full }, "peer's reader or window"),
            (Signs { unread: true, ..unsent }, "our reader"),
            (Signs { throttled: true, ..full }, "rate"),
            (Signs { no_carrier: true, ..full }, "carrier"),
        ];
        for (signs, word) in table {
            assert_eq!(limit(&Stage::Joined, signs), word, "{signs:?}");
        }
        assert_eq!(limit(&Stage::Opening, full), "connect");
        assert_eq!(limit(&Stage::Leaving, none), "our reader");
    }

    /// A carrier that has as much on its way as serves any purpose is full, though nothing waits
    /// before it. The one for who says little is none that bulk waits for.
    #[test]
    fn carriers_are_full_when_bulk_has_none() {
        let carrier = CarrierReport {
            rtt: Span::from_ms(1),
            rtt_min: Span::from_ms(1),
            flying: 0,
            sent: 0,
            resent: 0,
            suspect: false,
            usable: true,
            proved: true,
            has_window: true,
            left: false,
        };
        let conn = ConnId { index: 0, generation: 0 };
        let free = MemberReport { conn, carrier, waiting: 0, rate: 0, express: false };
        let waited_for = MemberReport { waiting: 1, ..free };
        let on_the_way =
            MemberReport { carrier: CarrierReport { has_window: false, ..carrier }, ..free };
        let express = MemberReport { express: true, ..free };
        let gone = MemberReport { carrier: CarrierReport { usable: false, ..carrier }, ..free };
        assert!(!are_full(&[]) && !are_full(&[gone]) && !are_full(&[free]));
        assert!(are_full(&[waited_for]) && are_full(&[on_the_way, gone]));
        assert!(!are_full(&[waited_for, free]));
        assert!(are_full(&[waited_for, on_the_way, express]));
        assert!(!are_full(&[express]));
    }
}
