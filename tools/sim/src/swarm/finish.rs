//! Coming to rest: faults have ceased, and what was promised has to happen in bounded time.

use std::collections::BTreeMap;

use ringway_coord_proto::residue::Residue;
use ringway_coord_proto::wire::op;
use ringway_core::limits::LEASE_DEFAULT;

use super::client::{Asked, Client};
use super::history::{self, Entry};
use super::plan::{ClientPlan, Style};
use super::queue;
use super::world::{Event, Judged, World};

/// Within this much virtual time after the last fault every request is answered.
const ANSWERED_WITHIN: u64 = 200_000_000;
/// Within this much virtual time after its lease a name of a lost session can be granted.
const GRANTABLE_WITHIN: u64 = 100_000_000;
/// Within this much virtual time after the last connection nothing is kept.
const EMPTY_WITHIN: u64 = 100_000_000;
/// A process that stopped is up again within this time.
const UP_WITHIN: u64 = 3_000_000_000;

impl World {
    /// Ends the faults, and demands.
    pub(crate) fn finish(&mut self) -> Judged {
        self.note(|_| "all faults cease".to_owned());
        self.calm_down()?;
        let began = self.now;
        self.everybody_asks();
        self.run_until(began + ANSWERED_WITHIN)?;
        for (index, wire) in self.wires.iter().enumerate().filter(|(_, wire)| wire.open) {
            let unanswered = wire.expected.front().filter(|sent| sent.at <= began);
            if let Some(sent) = unanswered.filter(|_| !self.may_block(index)) {
                return Err(format!(
                    "wire {index}: {:?} of {} is unanswered; {}",
                    sent.ops,
                    sent.at,
                    self.server_side(index)
                ));
            }
        }
        self.letters.rest_at = self.now;
        let observer = self.observe()?;
        self.abandon(observer)?;
        self.leave(observer)?;
        self.check_histories()
    }

    /// Histories of all names.
    fn check_histories(&mut self) -> Judged {
        (0..self.clients.len()).for_each(|client| self.drop_lane(client));
        self.waits_that_never_ended();
        self.check_letters()?;
        let ends = self.oracle.ends();
        let mut all = BTreeMap::new();
        for (name, entries) in &self.oracle.entries {
            let grants = history::grants(entries, &ends, self.plan.is_exclusive(*name));
            let grants = grants
                .map_err(|why| format!("the history of name {name} is not linearizable: {why}"))?;
            let waited = self.waits.of_name(*name);
            queue::check(&waited, entries, &grants)
                .and_then(|()| self.notes.check(*name, &grants, &ends))
                .and_then(|()| self.check_letters_to(*name, entries, &grants))
                .and_then(|()| self.check_told(*name, &grants))
                .map_err(|why| format!("name {name}: {why}"))?;
            all.insert(*name, grants);
        }
        self.check_quota(&all)
    }

    fn calm_down(&mut self) -> Judged {
        (self.calm, self.calm_from) = (true, self.now);
        self.wake_all();
        for client in 0..self.clients.len() {
            self.schedule(self.now, Event::Think(client));
        }
        for index in 0..self.wires.len() {
            if self.wires[index].slow_until > self.now {
                self.wires[index].slow_until = self.now;
                let shard = self.wires[index].shard;
                self.turn_by(shard, self.now);
            }
        }
        let until = self.now + UP_WITHIN;
        while self.server.as_ref().is_none_or(|server| server.stopping) {
            if self.now > until || !self.step()? {
                return Err("the process does not come up".to_owned());
            }
        }
        let grants_from = self.server.as_ref().map_or(0, |server| server.grants_from);
        self.run_until(grants_from.max(self.now))
    }

    fn everybody_asks(&mut self) {
        for index in 0..self.wires.len() {
            let wire = &self.wires[index];
            if wire.open && !wire.fin && wire.down_end.is_none() && !wire.awaits_lane() {
                let stamp = self.clients[wire.client].clock(self.now);
                self.send_frame(index, vec![Asked::Look(op::PING)], stamp);
            }
        }
    }

    /// Lets the world run until a moment.
    fn run_until(&mut self, until: u64) -> Judged {
        while self.next_at().is_some_and(|at| at <= until) {
            self.step()?;
        }
        self.now = self.now.max(until);
        Ok(())
    }

    /// Somebody new asks for every name. The histories judge the answers: names of sessions that
    /// are renewed are still theirs.
    fn observe(&mut self) -> Result<usize, String> {
        let plan = ClientPlan {
            style: Style::Bare,
            node: 1,
            sessions: 1,
            wires: 1,
            lease_ms: 0,
            rate: 1_000,
            late: false,
            lane: false,
        };
        let observer = self.clients.len();
        self.clients.push(Client::new(plan, &mut self.rng));
        let wire = self.connect(observer).ok_or("nobody listens")?;
        self.clients[observer].wires.push(wire);
        self.demand(observer, Asked::Query)?;
        if self.plan.claims > 0 {
            let few = self.plan.few;
            self.demand_of(observer, few, Asked::Waiters)?;
            (0..few).try_for_each(|name| self.judge_rest(name))?;
        }
        if self.plan.watches > 0 {
            self.demand_of(observer, self.plan.few, Asked::Meta)?;
            self.judge_watchers(observer)?;
        }
        Ok(observer)
    }

    /// Asks for every name, and expects the answers in time.
    fn demand(&mut self, observer: usize, ask: impl Fn(usize) -> Asked) -> Judged {
        self.demand_of(observer, self.plan.names.len(), ask)
    }

    /// Asks for the first of all names, and expects the answers in time.
    fn demand_of(&mut self, observer: usize, names: usize, ask: impl Fn(usize) -> Asked) -> Judged {
        let wire = self.clients[observer].wires[0];
        let names: Vec<usize> = (0..names).collect();
        for names in names.chunks(1_000) {
            self.send_frame(wire, names.iter().map(|name| ask(*name)).collect(), 0);
        }
        self.run_until(self.now + ANSWERED_WITHIN)?;
        self.read_all(observer)?;
        match self.wires[wire].expected.front() {
            Some(sent) => Err(format!("the observer's {:?} is unanswered", sent.ops)),
            None => Ok(()),
        }
    }

    /// All clients but the observer vanish: each name can be granted once the leases are over.
    fn abandon(&mut self, observer: usize) -> Judged {
        self.note(|_| "all clients vanish".to_owned());
        let lost = self.wires.iter().enumerate().filter(|(_, wire)| wire.open);
        let lost: Vec<usize> =
            lost.filter(|(_, wire)| wire.client != observer).map(|(index, _)| index).collect();
        for wire in lost {
            self.drop_wire(wire);
        }
        for client in self.clients.iter_mut().take(observer) {
            client.wires.clear();
            client.decided = None;
            client.locks.clear();
            client.mine.iter_mut().for_each(|mine| mine.live = None);
        }
        let leases = self.oracle.sessions.values().map(|facts| facts.lease).max().unwrap_or(0);
        let longest =
            |client: &ClientPlan| u64::from(client.lease_ms * self.plan.stretch) * 1_000_000;
        let asked = self.plan.clients.iter().map(longest);
        let asked = asked.chain([u64::from(self.plan.lock_ms) * 1_000_000]);
        let lease = asked.max().unwrap_or(LEASE_DEFAULT.0).max(leases);
        self.run_until(self.now + lease + GRANTABLE_WITHIN)?;
        let all = if self.plan.may_be_full() { self.plan.few } else { self.plan.names.len() };
        self.demand(observer, Asked::Register)?;
        let granted = |name: &usize| {
            let entries = self.oracle.entries.get(name).into_iter().flatten();
            let mut entries = entries.filter(|entry| entry.client == observer);
            entries.any(Entry::is_granted)
        };
        let granted: Vec<usize> = (0..all).filter(granted).collect();
        for name in (0..all).filter(|name| self.quota_of(*name).is_none()) {
            if granted.binary_search(&name).is_err() {
                return Err(format!("name {name} is not granted though its owners are gone"));
            }
        }
        self.check_returned(&granted)
    }

    /// The last one goes: nothing is kept, and nothing was ever said to a connection that was gone.
    fn leave(&mut self, observer: usize) -> Judged {
        let wire = self.clients[observer].wires[0];
        self.drop_wire(wire);
        self.clients[observer].wires.clear();
        self.run_until(self.now + EMPTY_WITHIN)?;
        let Some(server) = self.server.as_mut() else { return Err("no process".to_owned()) };
        for shard in 0..server.process.shards() {
            let residue = server.process.shard(shard).residue();
            if residue != Residue::default() {
                let open = |wire: &&super::world::Wire| wire.shard == shard && !wire.server_gone;
                let open: Vec<String> = self.wires.iter().filter(open).map(|w| w.words()).collect();
                return Err(format!("shard {shard} leaks: {residue:?}; {}", open.join("; ")));
            }
        }
        if !server.process.shards_are_tidy() {
            return Err("something is kept beside names that nobody has".to_owned());
        }
        let missing = server.gate.missing();
        if missing > 0 {
            return Err(format!("K3: {missing} of the quota are missing"));
        }
        match server.process.strays() {
            0 => Ok(()),
            strays => Err(format!("{strays} bytes were written to connections that were gone")),
        }
    }
}
