//! What of a session's carriers and memory is for whom.

mod net;

use net::{Net, PEER, Shard};
use ringway_core::{ConnId, Moment, Span};
use ringway_tunnel_proto::{BondId, BondReport, FlowId, Role, Session, Settings};

/// A path where more carriers carry more; one flow has more to say than they take, and another a
/// word now and then.
struct Beside {
    net: Net,
    bond: BondId,
    bulk: FlowId,
    chat: FlowId,
}

impl Beside {
    fn new(seed: u64) -> Beside {
        let mut net = Net::new(seed, [1, 1]);
        (net.bytes_per_step, net.carry_every) = (8000, 4);
        let bond = net.connect();
        let (bulk, chat) = (net.open(bond, b"much"), net.open(bond, b"little"));
        Beside { net, bond, bulk, chat }
    }

    fn report(&self) -> BondReport {
        let Shard { agent, desk } = &self.net.sites[0][0];
        agent.report(false, desk).remove(0)
    }

    /// The carrier that has no bulk.
    fn express(&self) -> Option<ConnId> {
        let report = self.report();
        report.members.iter().find(|one| one.express && one.carrier.usable).map(|one| one.conn)
    }

    /// One step in which both talk.
    fn step(&mut self) {
        let now = self.net.now;
        let Shard { agent, .. } = &mut self.net.sites[0][0];
        if agent.flow(self.bond, self.bulk).is_some_and(|report| report.unsent < 65_536) {
            agent.push(self.bond, self.bulk, &[1; 16_384]);
        }
        if now.0.is_multiple_of(Span::from_ms(50).0) {
            agent.push(self.bond, self.chat, b"a word");
        }
        self.net.step();
        for Shard { agent, desk } in &mut self.net.sites[1] {
            for ((bond, flow), app) in &mut desk.apps {
                app.read.clear();
                agent.drained_by_application(now, *bond, *flow, 0);
            }
        }
    }

    /// Both talk until there are as many carriers as may be, and for two seconds more; what happens
    /// at each step.
    fn talk(&mut self, mut each: impl FnMut(&Beside)) {
        let (mut since, end) = (None, self.net.now + Span::from_s(30));
        while since.is_none_or(|since: Moment| self.net.now.since(since) < Span::from_s(2)) {
            assert!(self.net.now < end, "{} carriers", self.net.wires());
            if self.net.wires() == 4 {
                since.get_or_insert(self.net.now);
            }
            self.step();
            each(self);
        }
    }
}

/// Once chatter has a carrier of its own, it stays there for as long as that one works, however
/// many newer ones have carried less.
#[test]
fn chatter_keeps_its_carrier() {
    for seed in 40..44 {
        let mut beside = Beside::new(seed);
        let mut its: Option<ConnId> = None;
        beside.talk(|beside| {
            let now = beside.express();
            if let Some(its) = its {
                assert_eq!(now, Some(its), "seed {seed}: it moved");
            }
            its = its.or(now);
        });
        assert!(its.is_some(), "there was none");
    }
}

/// When nobody has much to say any more carriers go one after the other, and the one that chatter
/// has is the last, though it was seen to carry least.
#[test]
fn chatters_carrier_is_spared() {
    let mut spared = 0;
    for bytes_per_step in (5000..10_000).step_by(250) {
        let mut beside = Beside::new(50);
        beside.net.bytes_per_step = bytes_per_step;
        beside.talk(|_| {});
        let its = beside.express().expect("chatter has one");
        let rates = beside.report().members;
        let least = rates.iter().min_by_key(|one| one.takes).map(|one| one.conn);
        if least != Some(its) {
            // Another would go first anyway.
            continue;
        }
        spared += 1;
        beside.net.run_until(Span::from_s(200), |net| net.wires() == 1);
        let left: Vec<ConnId> = beside.report().members.iter().map(|one| one.conn).collect();
        assert_eq!(left, [its], "{bytes_per_step} bytes a step");
        assert!(beside.net.sites[0][0].agent.bond_to(PEER).is_some());
    }
    assert!(spared >= 4, "only {spared} paths say anything");
}

/// What each of so many flows may keep ready for carriers, when all have much to say.
fn ready_of_each(flows: usize) -> Vec<u64> {
    let settings = Settings {
        role: Role::Initiator,
        window_first: 1 << 20,
        memory: 1 << 30,
        flows_max: 10_000,
    };
    let mut session = Session::new(settings);
    let flows: Vec<FlowId> =
        (0..flows).map(|_| session.open(Moment(0)).expect("there is room")).collect();
    flows.iter().for_each(|flow| assert_eq!(session.write(*flow, &[1; 20_000]), 20_000));
    let ready = |flow: &FlowId| session.room(*flow) as u64 + 20_000;
    flows.iter().map(ready).collect()
}

/// What flows keep ready is bounded for each and for all, and nobody has so little that carriers
/// would wait for it.
#[test]
fn what_waits_for_carriers_is_shared() {
    const KIB: u64 = 1024;
    assert_eq!(ready_of_each(1), [512 * KIB]);
    for many in [16, 40] {
        let each = ready_of_each(many);
        let all: u64 = each.iter().sum();
        assert!((3 * 1024 * KIB..=4 * 1024 * KIB).contains(&all), "{many} flows keep {all}");
        assert!(each.iter().all(|one| *one == each[0]), "{each:?}");
    }
    assert!(ready_of_each(1000).iter().all(|one| *one == 64 * KIB));
}
