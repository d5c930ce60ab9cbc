//! What clients know, believe and decide.
//!
//! A client keeps the rules that the documentation asks of it: it counts its lease from the moment
//! before it sent the last confirmed renewal, by its own clock and with a margin for that clock's
//! rate; it lets go of a name when it sends the release; it takes a grant as its own only if no
//! release of that name can still be under way.

use std::collections::BTreeMap;

use ringway_coord_proto::claims::Wish;
use ringway_core::rng::Rng;
use ringway_core::{SessionId, Token};

use super::lanes::Lane;
use super::locks::Lock;
use super::oracle::Hold;
use super::plan::{ClientPlan, Style, log_range};
use super::world::{Event, Judged, World};

/// An op as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Query(usize),
    Register(usize),
    Release(usize, Option<Token>),
    /// Which of the client's sessions; resuming which; with the right secret.
    Open(usize, Option<SessionId>, bool),
    /// The connection's own, or by secret, right or wrong.
    Renew(Option<SessionId>, bool),
    Close(Option<SessionId>, bool),
    Attach(SessionId, bool),
    Kill(SessionId),
    /// With the client's user name and the password.
    Auth,
    // Of clients that speak RESP: a name, and the number that is in the value.
    Lock(usize, u64),
    Value(usize, u64),
    Unlock(usize, u64),
    Extend(usize, u64),
    /// Whoever's lock it is.
    Delete(usize),
    Prolong(usize),
    // Of clients that do more with names than to register and release them.
    Claim(usize, Wish),
    /// For so many milliseconds; zero: for ever.
    Wait(usize, Wish, u32),
    Cancel(usize, u64),
    Transfer(usize, SessionId, Option<Token>),
    Revoke(usize, Option<SessionId>),
    Meta(usize),
    /// Under a version; the number that is in the metadata.
    SetMeta(usize, Option<u32>, u64),
    Waiters(usize),
    /// Which letter.
    Send(usize),
    /// The lane of number zero.
    Lane,
    /// Which watch.
    Watch(usize),
    Unwatch(usize),
    /// Anything that says nothing about names; the code of the op.
    Look(u8),
}

/// A frame whose replies have not come.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) sequence: u64,
    /// The number of its first op, counted over all clients.
    pub(crate) first: u64,
    pub(crate) at: u64,
    /// The client's clock when it decided to send.
    pub(crate) stamp: u64,
    pub(crate) ops: Vec<Asked>,
    pub(crate) barrier: bool,
    /// The wire on which it was sent first.
    pub(crate) origin: usize,
}

/// A session that a client knows to have opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    pub(crate) session: SessionId,
    pub(crate) secret: [u8; 16],
    pub(crate) lease: u64,
    /// The client's clock before it sent what was confirmed last.
    pub(crate) stamp: u64,
    /// The client's clock when it last sent a renewal.
    pub(crate) renewed: u64,
    pub(crate) lost: bool,
}

/// One of a client's identities.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mine {
    pub(crate) node: u64,
    pub(crate) live: Option<Live>,
    pub(crate) opening: u32,
}

/// What a client remembers of its releases of one name on one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Releases {
    pub(crate) last: u64,
    pub(crate) outstanding: u32,
    /// When the answer to the last one was read.
    pub(crate) answered: u64,
    /// The answer to one was lost: it may still take effect.
    pub(crate) unknown: bool,
}

/// A client.
pub(crate) struct Client {
    pub(crate) plan: ClientPlan,
    pub(crate) mine: Vec<Mine>,
    pub(crate) locks: Vec<Lock>,
    pub(crate) lane: Option<Lane>,
    pub(crate) wires: Vec<usize>,
    pub(crate) releases: BTreeMap<(usize, usize), Releases>,
    /// Stands still until then, in the middle of what it was doing.
    pub(crate) paused_until: u64,
    /// What it will send when it goes on: wire, ops, the clock when it decided.
    pub(crate) decided: Option<(usize, Vec<Asked>, u64)>,
    clock_offset: u64,
}

impl Client {
    pub(crate) fn new(plan: ClientPlan, rng: &mut Rng) -> Self {
        let mine = |index| Mine { node: plan.node + index as u64, live: None, opening: 0 };
        Self {
            plan,
            mine: (0..plan.sessions).map(mine).collect(),
            locks: Vec::new(),
            lane: None,
            wires: Vec::new(),
            releases: BTreeMap::new(),
            paused_until: 0,
            decided: None,
            clock_offset: rng.below(1 << 40),
        }
    }

    /// The client's own clock.
    pub(crate) fn clock(&self, now: u64) -> u64 {
        self.clock_offset + (u128::from(now) * u128::from(self.plan.rate) / 1_000) as u64
    }

    pub(crate) fn live(&self, session: SessionId) -> Option<&Live> {
        self.mine.iter().filter_map(|mine| mine.live.as_ref()).find(|l| l.session == session)
    }

    pub(crate) fn live_mut(&mut self, session: SessionId) -> Option<&mut Live> {
        self.mine.iter_mut().filter_map(|m| m.live.as_mut()).find(|l| l.session == session)
    }
}

impl World {
    /// Whether a client counts a session of its own as valid now.
    pub(crate) fn is_valid(&self, client: usize, session: SessionId) -> bool {
        let Some(facts) = self.oracle.sessions.get(&session) else { return false };
        if facts.revoked_from <= self.now {
            return false;
        }
        if facts.lease == 0 {
            return true;
        }
        let client = &self.clients[client];
        // Nine tenths: its clock may be a tenth slow.
        let in_time = |stamp, lease| client.clock(self.now) < stamp + lease / 10 * 9;
        let mut locks = client.locks.iter().filter(|lock| lock.session == Some(session));
        client.live(session).is_some_and(|live| !live.lost && in_time(live.stamp, live.lease))
            || locks.any(|lock| !lock.lost && in_time(lock.stamp, lock.lease))
    }

    /// O1: `hold` counts; does anybody else count as well?
    pub(crate) fn check_alone(&self, name: usize, hold: &Hold) -> Judged {
        if !self.is_valid(hold.client, hold.session) {
            return Ok(());
        }
        let Some(holds) = self.oracle.holds.get(&name) else { return Ok(()) };
        let others = holds.iter().filter(|other| other.session != hold.session);
        let others = others.filter(|other| self.is_valid(other.client, other.session));
        let permits = hold.wish.map_or(0, |wish| wish.permits as usize);
        if permits > 0 && others.clone().filter(|other| other.wish == hold.wish).count() >= permits
        {
            return Err(format!("O1: name {name} has more holders than {permits} permits"));
        }
        for other in others {
            if !other.may_coexist(hold) {
                return Err(format!(
                    "O1: name {name} has two owners: client {} by {} under {}, client {} by {} \
                     under {}",
                    hold.client, hold.session, hold.token, other.client, other.session, other.token
                ));
            }
        }
        Ok(())
    }

    /// A client wakes up, reads, and does something.
    pub(crate) fn think(&mut self, client: usize) -> Judged {
        let paused = self.clients[client].paused_until;
        if paused > self.now && !self.calm {
            self.schedule(paused, Event::Think(client));
            return Ok(());
        }
        if let Some((wire, ops, stamp)) = self.clients[client].decided.take()
            && self.wires[wire].open
            && !self.wires[wire].fin
            && !self.wires[wire].awaits_lane()
        {
            self.send_frame(wire, ops, stamp);
        }
        self.read_all(client)?;
        if self.calm {
            self.renew(client);
        } else if self.clients[client].plan.style == Style::Locks {
            self.connect_some(client);
            self.use_locks(client);
            self.write_storage(client)?;
            self.fail_somehow(client);
        } else {
            self.connect_some(client);
            self.keep_sessions(client);
            self.keep_lane(client);
            self.renew(client);
            self.write_storage(client)?;
            self.ask_for_all(client);
            self.ask_something(client);
            self.fail_somehow(client);
        }
        if self.calm && self.clients[client].wires.is_empty() {
            return Ok(());
        }
        let at = self.now + self.next_look(client);
        self.schedule(at, Event::Think(client));
        Ok(())
    }

    /// How long until a client looks again: it is lazy while nothing answers.
    fn next_look(&mut self, client: usize) -> u64 {
        let think = if self.calm { 10_000_000 } else { self.plan.think_ns };
        let mut wires = self.clients[client].wires.iter();
        let crowded = wires.any(|wire| self.wires[*wire].expected.len() > 6);
        let lease = u64::from(self.clients[client].plan.lease_ms) * 1_000_000;
        let most = if crowded || self.server.is_none() { think.max(lease / 8) } else { think };
        let look = 1 + self.rng.below(most);
        if !self.clients[client].plan.late {
            return look;
        }
        let clock = self.clients[client].clock(self.now);
        let lives = self.clients[client].mine.iter().filter_map(|mine| mine.live);
        let due = lives.filter(|live| !live.lost).map(|live| self.renewal_due(client, &live));
        due.filter(|due| *due > clock).map(|due| due - clock).min().unwrap_or(look).min(look) + 1
    }

    fn connect_some(&mut self, client: usize) {
        let plan = self.clients[client].plan;
        if self.clients[client].wires.len() < plan.wires
            && self.rng.chance(600)
            && let Some(wire) = self.connect(client)
        {
            self.clients[client].wires.push(wire);
        }
    }

    /// A connection to send on, and perhaps one that satisfies a condition.
    pub(crate) fn pick_wire(
        &mut self,
        client: usize,
        fits: impl Fn(&super::world::Wire) -> bool,
    ) -> Option<usize> {
        let usable = |wire: &&usize| {
            let wire = &self.wires[**wire];
            let open = wire.open && !wire.fin && wire.down_end.is_none();
            open && wire.expected.len() < 12 && !wire.awaits_lane()
        };
        let wires: Vec<usize> = self.clients[client]
            .wires
            .iter()
            .filter(usable)
            .copied()
            .filter(|wire| fits(&self.wires[*wire]))
            .collect();
        (!wires.is_empty()).then(|| wires[self.rng.below(wires.len() as u64) as usize])
    }

    /// Opens what is not open, resumes what lost its connection, attaches what is loose.
    fn keep_sessions(&mut self, client: usize) {
        let style = self.clients[client].plan.style;
        if style == Style::Bare {
            return;
        }
        for index in 0..self.clients[client].mine.len() {
            let mine = self.clients[client].mine[index];
            let again = self.rng.chance(self.plan.faults.reopen);
            let wrong = self.rng.chance(self.plan.faults.wrong_secret);
            match mine.live.filter(|live| !live.lost) {
                None if mine.opening == 0 || again => self.open(client, index, None, false),
                Some(live) if again && self.rng.chance(700) => {
                    self.open(client, index, Some(live.session), wrong);
                }
                Some(_) if again => self.open(client, index, None, false),
                Some(live) if wrong => self.try_wrong_secret(client, live.session),
                Some(live) => self.attach_loose(client, live.session),
                None => {}
            }
        }
    }

    fn open(&mut self, client: usize, index: usize, resume: Option<SessionId>, wrong: bool) {
        if let Some(wire) = self.pick_wire(client, super::world::Wire::is_free_of_lanes) {
            let stamp = self.clients[client].clock(self.now);
            let mut ops = vec![Asked::Open(index, resume, !wrong)];
            if resume.is_none() {
                // What was registered last is swept last.
                ops.extend(
                    (self.plan.few..self.plan.names.len()).rev().take(5).map(Asked::Register),
                );
            }
            self.send_frame(wire, ops, stamp);
        }
    }

    fn try_wrong_secret(&mut self, client: usize, session: SessionId) {
        let ask = match self.rng.below(3) {
            0 => Asked::Renew(Some(session), false),
            1 => Asked::Close(Some(session), false),
            _ => Asked::Attach(session, false),
        };
        let anybody = self.rng.below(self.clients.len() as u64) as usize;
        let native = self.clients[anybody].plan.style != Style::Locks;
        let client = if self.rng.chance(500) && native { anybody } else { client };
        if let Some(wire) = self.pick_wire(client, super::world::Wire::is_free_of_lanes) {
            let stamp = self.clients[client].clock(self.now);
            self.send_frame(wire, vec![ask], stamp);
        }
    }

    fn attach_loose(&mut self, client: usize, session: SessionId) {
        let loose = |wire: &super::world::Wire| wire.bound.is_none() && wire.expected.is_empty();
        if self.rng.chance(500)
            && let Some(wire) = self.pick_wire(client, loose)
        {
            let stamp = self.clients[client].clock(self.now);
            self.send_frame(wire, vec![Asked::Attach(session, true)], stamp);
        }
    }

    /// Renews every third of a lease, by the client's own clock.
    fn renew(&mut self, client: usize) {
        let clock = self.clients[client].clock(self.now);
        for index in 0..self.clients[client].mine.len() {
            let Some(live) = self.clients[client].mine[index].live else { continue };
            if live.lost || clock < self.renewal_due(client, &live) {
                continue;
            }
            if let Some(live) = self.clients[client].mine[index].live.as_mut() {
                live.renewed = clock;
            }
            if !self.calm && self.rng.chance(self.plan.faults.missed_renewal) {
                continue;
            }
            let own = |wire: &super::world::Wire| wire.bound == Some(live.session);
            if self.rng.chance(500)
                && let Some(wire) = self.pick_wire(client, own)
            {
                self.decide(client, wire, vec![Asked::Renew(None, true)]);
            } else if let Some(wire) = self.pick_wire(client, |_| true) {
                self.decide(client, wire, vec![Asked::Renew(Some(live.session), true)]);
            } else if let Some(wire) = self.connect(client) {
                self.clients[client].wires.push(wire);
                self.decide(client, wire, vec![Asked::Renew(Some(live.session), true)]);
            }
        }
    }

    /// By the client's clock: every third of a lease; or so that it arrives just in time.
    fn renewal_due(&self, client: usize, live: &Live) -> u64 {
        let plan = &self.clients[client].plan;
        if !plan.late || self.calm {
            return live.renewed + live.lease / 3;
        }
        let margin = self.plan.latency_ns + 1_000_000;
        // Another time each time, and the same one however often it is asked for.
        let late = live.stamp % (self.plan.too_late_ns + 1);
        live.stamp + (live.lease + late).saturating_sub(margin) * plan.rate / 1_000
    }

    /// Sends now; or stops between having decided and sending, for up to ten seconds.
    pub(crate) fn decide(&mut self, client: usize, wire: usize, ops: Vec<Asked>) {
        let stamp = self.clients[client].clock(self.now);
        if !self.calm
            && self.clients[client].decided.is_none()
            && self.rng.chance(self.plan.faults.client_pause)
        {
            let span = log_range(&mut self.rng, 1_000_000, 10_000_000_000);
            self.note(|_| format!("client {client} stops for {} us before {ops:?}", span / 1_000));
            self.tally.stalls += 1;
            self.clients[client].paused_until = self.now + span;
            self.clients[client].decided = Some((wire, ops, stamp));
        } else {
            self.send_frame(wire, ops, stamp);
        }
    }

    /// Writes to storage as the owner of a name, whether it still is or not.
    fn write_storage(&mut self, client: usize) -> Judged {
        let name = self.draw_name();
        let holds = self.oracle.holds.get(&name);
        let mine = holds.and_then(|holds| holds.iter().find(|hold| hold.client == client)).copied();
        match mine {
            Some(hold) => {
                let valid = self.is_valid(client, hold.session);
                // Those who share write side by side, and the storage cannot tell them apart.
                if hold.wish != Some(Wish::EXCLUSIVE) {
                    return Ok(());
                }
                self.oracle.write(name, &hold, valid)
            }
            None => Ok(()),
        }
    }

    fn ask_something(&mut self, client: usize) {
        if !self.rng.chance(700) {
            return;
        }
        let Some(wire) = self.pick_wire(client, |_| true) else { return };
        let most = if self.rng.chance(100) { 40 } else { 5 };
        let count = 1 + self.rng.below(most);
        let mut ops = Vec::new();
        for _ in 0..count {
            let free = self.wires[wire].is_free_of_lanes();
            if free && self.rng.chance(self.plan.watches) {
                ops.extend(self.draw_watch(client, wire));
            } else if self.rng.chance(self.plan.messages) {
                ops.push(self.draw_letter(client, wire, &ops));
            } else {
                ops.push(self.draw_op(client, wire));
            }
        }
        self.decide(client, wire, ops);
    }

    /// Mostly one of the few that all want.
    pub(crate) fn draw_name(&mut self) -> usize {
        let all = self.rng.chance(300);
        let names = if all { self.plan.names.len() } else { self.plan.few };
        self.rng.below(names as u64) as usize
    }

    /// Registers all that can be registered, in seeds that have many names.
    fn ask_for_all(&mut self, client: usize) {
        let names: Vec<usize> = (self.plan.few..self.plan.names.len()).collect();
        let bound = |wire: &super::world::Wire| wire.bound.is_some() && wire.expected.is_empty();
        if !names.is_empty()
            && self.rng.chance(30)
            && let Some(wire) = self.pick_wire(client, bound)
        {
            let stamp = self.clients[client].clock(self.now);
            for names in names.chunks(1_000) {
                let ops = names.iter().map(|name| Asked::Register(*name)).collect();
                self.send_frame(wire, ops, stamp);
            }
        }
    }

    fn draw_op(&mut self, client: usize, wire: usize) -> Asked {
        use ringway_coord_proto::wire::op;
        let name = self.draw_name();
        let free = self.wires[wire].is_free_of_lanes();
        if self.plan.claims > 0 && self.rng.chance(self.plan.claims) {
            return self.draw_claim_op(client, wire, name);
        }
        match self.rng.below(100) {
            0..25 => Asked::Query(name),
            25..65 => self.draw_register(name),
            65..80 => Asked::Release(name, None),
            80..88 => {
                let holds = self.oracle.holds.get(&name);
                let held = holds.and_then(|holds| holds.last()).map(|hold| hold.token);
                Asked::Release(name, Some(held.unwrap_or(Token(7))))
            }
            88..94 => {
                let looks = [op::PING, op::SESSIONS, op::LIST, op::SHARD_STATS, op::SHARD_MAP];
                Asked::Look(looks[self.rng.below(5) as usize])
            }
            94..98 if !free => Asked::Query(name),
            94 if self.rng.chance(self.plan.faults.kill * 10) => {
                let count = self.oracle.sessions.len() as u64;
                let nth = self.rng.below(count.max(1)) as usize;
                let victim = self.oracle.sessions.keys().rev().nth(nth / 4);
                victim.map_or(Asked::Look(op::SERVER), |session| Asked::Kill(*session))
            }
            95 if self.rng.chance(self.plan.faults.reopen * 10) => Asked::Close(None, true),
            96 if self.rng.chance(self.plan.faults.reopen * 10) => {
                match self.clients[client].mine[0].live {
                    Some(live) => Asked::Close(Some(live.session), true),
                    None => Asked::Query(name),
                }
            }
            97 if self.rng.chance(self.plan.faults.reopen * 10) => Asked::Open(0, None, true),
            98 if self.wires[wire].bound.is_some() => Asked::Renew(None, true),
            _ => self.draw_register(name),
        }
    }

    /// The client's own share of what goes wrong.
    fn fail_somehow(&mut self, client: usize) {
        let faults = self.plan.faults;
        if self.rng.chance(faults.client_crash) {
            self.client_dies(client);
            return;
        }
        if self.rng.chance(faults.client_pause) {
            let span = log_range(&mut self.rng, 1_000_000, 10_000_000_000);
            self.tally.stalls += 1;
            self.clients[client].paused_until = self.now + span;
        }
        let Some(wire) = self.pick_wire(client, |_| true) else { return };
        if self.rng.chance(faults.drop_wire) {
            self.drop_wire(wire);
        } else if self.rng.chance(faults.half_close) {
            self.rebinds(wire);
            self.hang_up(wire, false);
        } else if self.rng.chance(faults.slow_reader) {
            let span = log_range(&mut self.rng, 1_000_000, 500_000_000);
            let (shard, until) = (self.wires[wire].shard, self.now + span);
            self.wires[wire].slow_until = until;
            if self.plan.claims > 0 {
                // Whoever does not read what it is told is cut off.
                self.wires[wire].may_close = true;
                self.rebinds(wire);
            }
            // Who does not read is not read: his renewals count when they are executed.
            self.oracle.wire_gone(wire);
            self.note(|_| format!("wire {wire} reads nothing for {} us", span / 1_000));
            self.turn_by(shard, self.now);
            self.turn_by_later(shard, until);
        }
    }

    /// A client forgets everything and starts again.
    fn client_dies(&mut self, client: usize) {
        self.note(|_| format!("client {client} dies"));
        for wire in self.clients[client].wires.clone() {
            if self.wires[wire].open {
                self.drop_wire(wire);
            }
        }
        let sessions: Vec<SessionId> =
            self.clients[client].mine.iter().filter_map(|m| m.live).map(|l| l.session).collect();
        let state = &mut self.clients[client];
        state.decided = None;
        state.locks.clear();
        self.drop_lane(client);
        let state = &mut self.clients[client];
        state.mine.iter_mut().for_each(|mine| (mine.live, mine.opening) = (None, 0));
        for name in 0..self.plan.names.len() {
            self.oracle.lets_go(name, client);
        }
        self.note(|_| format!("client {client} leaves {sessions:?} behind"));
    }

    /// Drops a connection with a reset; what was asked on it stays unanswered.
    pub(crate) fn drop_wire(&mut self, wire: usize) {
        self.rebinds(wire);
        self.hang_up(wire, true);
        self.wire_lost(wire);
    }

    /// What a connection does may end the session that lives by it, from now on.
    pub(crate) fn rebinds(&mut self, index: usize) {
        let now = self.now;
        let wire = &mut self.wires[index];
        wire.rebound_at = wire.rebound_at.min(now);
        let bare_style = self.clients[wire.client].plan.style == Style::BareOpen;
        if let Some(session) = wire.bound.filter(|_| wire.implicit || bare_style) {
            self.oracle.may_end(session, now);
        }
        if bare_style {
            let asked = self.wires[index].expected.iter().flat_map(|sent| &sent.ops);
            for asked in asked {
                if let Asked::Open(_, Some(session), true) = asked {
                    self.oracle.may_end(*session, now);
                }
            }
        }
    }
}
