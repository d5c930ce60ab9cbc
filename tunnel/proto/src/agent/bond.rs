//! A session's turn: who of its carriers lives, what goes by which, and when to dial.
//!
//! [`Agent::settle`] has one for each session for which something happened or is due: it closes
//! carriers that have left or do not answer, sends what there is until carriers are full, tells the
//! driver whether the session can be used, and decides whether to dial.
//!
//! What always holds:
//! - B1  `members[slot]` is a connection if and only if that connection's standing is a member's at
//!   this slot. So a session knows all its connections, and its end looks at no others.
//! - B2  At most one connection is being dialled for a session, and no attempt is made before
//!   `retry_at`. A failure moves it by twice as much each time, up to [`RETRY_MAX`], unless another
//!   address is left of the round: that one is next, at once. Who comes to wait for a session moves
//!   it back to now, once in [`HURRY_EVERY`].
//! - B3  Bulk is not put on the express carrier, if there is one; what is little goes before bulk.
//! - B4  The driver hears that a session can be used before it hears of a flow of it, and of each
//!   change of that.
//! - B5  New keys are said on a carrier in the record before the first that is under them. A
//!   carrier by which they are offered or answered is asked whether it lives, though it carries
//!   nothing else.
//!
//! Bounds: a turn costs what it sends, and constant time for each of at most [`CARRIERS_MAX`]
//! carriers; while all are full and nothing else is due there is at most a turn each
//! [`FULL_PAUSE`].
//! Not here: how a connection becomes a carrier (`carriers.rs`), what a carrier takes (`pace.rs`,
//! `delivery.rs`), what goes into a record (`session.rs`), how many carriers are worth it
//! (`pool.rs`).
//! Tests: `tests/agents.rs` tells stories; `tests/agent_swarm.rs` and `tests/agent_sabotage.rs`,
//! with the storms of `tests/storm`, break all of it and switch off its rules.

use super::*;
use crate::epochs::Exchange;
use crate::frame::Frame;
use crate::pool::{Advice, Seen};
use crate::report::CarrierReport;
use crate::session::{Outlet, Share};
use ringway_crypto::{KeySpent, RECORD_OVERHEAD};

/// Bytes of a record that are kept free for REKEY and KEYS.
const KEYS_ROOM: usize = 64;
/// A path with less delay than this is short.
pub(super) const SHORT: Span = Span::from_ms(2);
/// The bound of the chance that spreads attempts.
pub(super) const CHANCE: u64 = 1 << 10;
/// While all carriers are full there is nothing to do before one takes more, or for so long.
const FULL_PAUSE: Span = Span::from_ms(5);

/// A session's outlet: what concerns applications goes to the driver, the rest is noted.
pub(super) struct Door<'a, H> {
    host: &'a mut H,
    bond: BondId,
    pub(super) exchange: Option<Exchange>,
    pub(super) keys: Option<u32>,
    pub(super) left: bool,
}

impl<'a, H: Host> Door<'a, H> {
    pub(super) fn new(host: &'a mut H, bond: BondId) -> Self {
        Self { host, bond, exchange: None, keys: None, left: false }
    }
}

impl<H: Host> Outlet for Door<'_, H> {
    fn data(&mut self, flow: FlowId, bytes: &[u8]) {
        self.host.data(self.bond, flow, bytes);
    }

    fn event(&mut self, event: Event) {
        match event {
            // Carriers are looked at whenever the session is.
            Event::Suspect(_) | Event::Recovered(_) => {}
            Event::Left(_) => self.left = true,
            event => self.host.flow(self.bond, event),
        }
    }

    fn rekey(&mut self, exchange: Exchange) {
        self.exchange = Some(exchange);
    }

    fn keys(&mut self, epoch: u32) {
        self.keys = Some(epoch);
    }

    fn datagram(&mut self, channel: u64, bytes: &[u8]) {
        self.host.datagram(self.bond, channel, bytes);
    }
}

/// What happens while a record is filled, for when its buffer is let go of.
#[derive(Default)]
pub(super) struct Later(pub(super) Vec<Event>);

impl Outlet for Later {
    fn data(&mut self, _: FlowId, _: &[u8]) {
        unreachable!("what is sent delivers nothing");
    }

    fn event(&mut self, event: Event) {
        self.0.push(event);
    }

    fn rekey(&mut self, _: Exchange) {
        unreachable!("what is sent offers nothing");
    }

    fn keys(&mut self, _: u32) {
        unreachable!("what is sent changes nothing");
    }
}

impl Bond {
    /// A connection is a carrier of the session now.
    pub(super) fn enlist(&mut self, slot: CarrierSlot, conn: ConnId) {
        let at = usize::from(slot.0);
        if self.members.len() <= at {
            self.members.resize(at + 1, None);
        }
        self.members[at] = Some(Member { conn, suspect_since: None, left: false });
    }

    /// Whether the other agent has said that it sends nothing more on a carrier.
    pub(super) fn is_left(&self, slot: CarrierSlot) -> bool {
        self.members[usize::from(slot.0)].is_some_and(|member| member.left)
    }

    /// It is none any more. Returns how many bytes were on the way by it.
    pub(super) fn discharge(&mut self, now: Moment, slot: CarrierSlot) -> u64 {
        self.members[usize::from(slot.0)] = None;
        let report = self.flows.carrier(slot);
        let flying = report.map_or(0, |report| report.flying);
        self.carried_before += report.map_or(0, |report| report.sent);
        self.resent_before += report.map_or(0, |report| report.resent) + flying;
        self.flows.carrier_down(now, slot);
        if self.usable() == 0 && !self.flows.sabotage.breaks(Rule::AloneIsAsked) {
            // The other side may be gone: packets would tell only when there is something to say.
            for member in &self.packets {
                self.flows.ask_packets(now, member.place);
            }
        }
        flying
    }

    /// Bytes that went again because of a carrier of this session.
    pub(super) fn resent(&self) -> u64 {
        self.resent_before + self.reports().map(|report| report.resent).sum::<u64>()
    }

    /// What is known of its carriers, of those of packets, too.
    fn reports(&self) -> impl Iterator<Item = CarrierReport> + '_ {
        let packets = self.packets.iter().map(|member| member.place);
        let places = self.slots().map(|(slot, _)| slot).chain(packets);
        places.filter_map(|slot| self.flows.carrier(slot))
    }

    /// Tells the driver whether the session can be used, if it believes otherwise. It has to know
    /// before it hears of a flow.
    pub(super) fn tell_standing(&mut self, id: BondId, up: bool, host: &mut impl Host) {
        if core::mem::replace(&mut self.told_up, up) == up {
            return;
        }
        let note = match (up, self.flows.flow_count() as u64) {
            (true, 0) => Note::Up(self.peer),
            (true, _) => Note::Back(self.peer),
            (false, flows) => Note::Alone(self.peer, flows),
        };
        host.note(None, note);
        host.bond(id, self.peer, up);
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = (CarrierSlot, Member)> + '_ {
        let some =
            |(at, member): (usize, &Option<Member>)| Some((CarrierSlot(at as u16), (*member)?));
        self.members.iter().enumerate().filter_map(some)
    }

    /// Carriers of records that work.
    pub(super) fn usable(&self) -> usize {
        let usable = |slot| self.flows.carrier(slot).is_some_and(|report| report.usable);
        self.slots().filter(|(slot, _)| usable(*slot)).count()
    }

    /// Whether some carrier works.
    pub(super) fn flows_can_go(&self) -> bool {
        self.usable() > 0 || self.has_packets()
    }

    pub(super) fn has_keys_to_say(&self, now: Moment) -> bool {
        self.known.as_ref().is_some_and(|known| known.epochs.has_to_say(now))
    }

    /// The carrier that has no bulk, if there are several and several flows. It stays the same for
    /// as long as it can be used; then it is the one that has carried least.
    fn express(&mut self) -> Option<CarrierSlot> {
        self.flows.flows().nth(1)?;
        let usable = self.slots().filter_map(|(slot, _)| {
            let report = self.flows.carrier(slot).filter(|report| report.usable)?;
            Some((Some(slot) != self.express, report.sent, slot))
        });
        let (mut many, mut best) = (0, None);
        for one in usable {
            many += 1;
            best = Some(best.map_or(one, |best: (bool, u64, CarrierSlot)| best.min(one)));
        }
        let (.., slot) = best.filter(|_| many > 1)?;
        self.express = Some(slot);
        self.express
    }

    /// Carriers that have joined and of which nothing was heard yet.
    fn on_trial(&self) -> usize {
        let new = |slot| self.flows.carrier(slot).is_some_and(|one| !one.proved && !one.suspect);
        self.slots().filter(|(slot, _)| new(*slot)).count()
    }

    /// An attempt to reach the peer came to nothing. The next one comes at once if there are other
    /// addresses, and later if not; `chance` below [`CHANCE`] decides when exactly.
    pub(super) fn fail_dial(&mut self, now: Moment, others_left: bool, chance: u64) {
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now;
        if !others_left {
            let wait = (RETRY_MIN.0 << self.rounds.min(10)).min(RETRY_MAX.0);
            self.rounds = self.rounds.saturating_add(1);
            self.retry_at = now + Span(wait / 2 + wait / 2 * chance / CHANCE);
        }
        if self.flows.sabotage.breaks(Rule::AttemptsSpaced) {
            self.retry_at = now;
        }
        self.pool.not_opened(now);
    }

    /// Bytes of streams that went by records.
    pub(super) fn carried(&self) -> u64 {
        let reports = self.slots().filter_map(|(slot, _)| self.flows.carrier(slot));
        self.carried_before + reports.map(|report| report.sent).sum::<u64>()
    }
}

impl Agent {
    /// Does what is due and sends what there is to send. Once at the end of each turn.
    pub fn settle(&mut self, now: Moment, host: &mut impl Host) {
        while let Some((_, bond)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.pop_first();
            if let Some(found) = self.get_mut(bond) {
                found.due = None;
            }
            self.touch(bond);
        }
        let mut dirty = core::mem::take(&mut self.dirty);
        for bond in dirty.drain(..) {
            self.settle_bond(now, bond, host);
        }
        // What became dirty meanwhile is for the next turn, which follows at once.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    fn settle_bond(&mut self, now: Moment, id: BondId, host: &mut impl Host) {
        let Some(mut bond) = self.bonds[id.0 as usize].take() else { return };
        bond.dirty = false;
        self.memory.lend(bond.peer, &mut bond.flows.account);
        bond.flows.tick(now, &mut Door::new(host, id));
        self.look_at_carriers(now, &mut bond, host);
        self.look_at_packets(now, id, &mut bond, host);
        let up = bond.flows_can_go();
        let (full, late) = self.transmit(now, id, &mut bond, host);
        let turns = self.plan_detour(now, &mut bond, (full, host));
        bond.tell_packets(host);
        self.part_with_packets(now, &mut bond, host);
        let stranded = self.judge_standing(now, id, &mut bond, up, host);
        let retires = bond.role == Role::Initiator && self.plan_carriers(now, &mut bond, full);
        let dial_at = self.dial_at(&bond, up);
        let dials = dial_at.is_some_and(|at| at <= now);
        let no_sooner = if full || late { now + FULL_PAUSE } else { now };
        self.set_due(id, &mut bond, dial_at, no_sooner);
        // Flows may have ended since it was given something.
        self.memory.settle(bond.peer, &mut bond.flows.account);
        let ends = stranded && !self.may_dial(&bond);
        self.bonds[id.0 as usize] = Some(bond);
        if turns {
            self.touch(id);
        }
        if ends {
            // Whoever comes back finds it gone, and begins anew.
            self.end(now, id, ResetCode::Broken, host);
        } else if dials {
            self.dial(now, id, host);
        } else if retires {
            // Its farewell is said in the next turn.
            self.touch(id);
        }
    }

    /// Closes carriers that have left, or did not answer for too long.
    fn look_at_carriers(&mut self, now: Moment, bond: &mut Bond, host: &mut impl Host) {
        for at in 0..bond.members.len() {
            let slot = CarrierSlot(at as u16);
            let (Some(member), Some(report)) = (bond.members[at], bond.flows.carrier(slot)) else {
                continue;
            };
            let since = report.suspect.then(|| member.suspect_since.unwrap_or(now));
            bond.members[at] = Some(Member { suspect_since: since, ..member });
            let near = bond.role == Role::Initiator;
            let given_up = since.is_some_and(|since| now.since(since) >= SUSPECT_MAX)
                && !self.sabotage.breaks(Rule::SilentClosed);
            let both = member.left || self.sabotage.breaks(Rule::BothLeave);
            let (left, not_taken) =
                (near && report.left && both, near && report.suspect && !report.proved);
            if !given_up && !left && !not_taken {
                continue;
            }
            let lost = bond.discharge(now, slot);
            if let Some(carrier) = self.carriers[member.conn.index as usize].take() {
                self.forget_half_open(&carrier);
            }
            host.close(member.conn, left);
            if not_taken {
                // Perhaps the far agent has forgotten the session: the next attempt asks.
                bond.doubted = !self.sabotage.breaks(Rule::DoubtAsks);
                host.note(Some(member.conn), Note::NotTaken(bond.peer));
                let chance = self.entropy.below(CHANCE);
                bond.fail_dial(now, false, chance);
            } else if given_up {
                host.note(Some(member.conn), Note::Lost(bond.peer, lost));
            }
        }
    }

    /// Sends what there is. Returns whether there is more than carriers take, and whether something
    /// that can go by one alone waits for it.
    fn transmit(
        &mut self,
        now: Moment,
        id: BondId,
        bond: &mut Bond,
        host: &mut impl Host,
    ) -> (bool, bool) {
        self.offer_keys(now, bond);
        let mut late = false;
        for at in 0..bond.members.len() {
            let Some(Member { conn, .. }) = bond.members[at] else { continue };
            let slot = CarrierSlot(at as u16);
            let waiting = host.backlog(conn);
            let carrier = self.carriers[conn.index as usize].as_mut().expect("members have one");
            carrier.pace.look(now, waiting);
            if bond.flows.asks_for_path(now, slot)
                && let Some(TcpPath { rtt, resent }) = host.path(conn)
            {
                bond.flows.note_path(now, slot, rtt, resent);
            }
            if !bond.flows.wants_own(now, slot) {
                continue;
            }
            // What asks after a carrier may wait behind what it carries, and so measures that, too.
            // One that takes nothing more is asked all the same, once: it may be silent.
            let asks = bond.flows.asks(now, slot) && !self.sabotage.breaks(Rule::FullIsAsked);
            if asks || waiting <= carrier.pace.waiting_max() {
                seal_own(now, (slot, false), bond, carrier, host);
            } else {
                late = true;
                host.await_drain(conn, carrier.pace.waiting_max() / 2);
            }
        }
        late |= self.send_packets(now, id, bond, host);
        if bond.has_packets() && !bond.goes_by_records(self.sabotage) {
            // Records would hold up what is behind them where packets are lost: these stand by.
            self.say_keys(now, bond, host);
            self.send_filler(now, bond, host);
            return (false, late);
        }
        let up = bond.usable() > 0;
        while up && (bond.flows.wants_any(now) || bond.has_keys_to_say(now)) {
            if !self.send_one(now, id, bond, host) {
                bond.flows.note_full();
                self.await_room(bond, host);
                return (true, late);
            }
        }
        (false, late)
    }

    /// Sends one record, little before bulk. Returns whether some carrier took it.
    pub(super) fn send_one(
        &mut self,
        now: Moment,
        id: BondId,
        bond: &mut Bond,
        host: &mut impl Host,
    ) -> bool {
        let express = bond.express();
        if express.is_none() && self.send_share(now, (id, Share::All), bond, (express, host)) {
            return true;
        }
        // What is little passes by bulk that waits for acknowledgements.
        let little = bond.flows.has_little(now) || bond.has_keys_to_say(now);
        if little && self.send_share(now, (id, Share::Little), bond, (express, host)) {
            return true;
        }
        express.is_some()
            && bond.flows.has_bulk()
            && self.send_share(now, (id, Share::Bulk), bond, (express, host))
    }

    /// Sends one record with this share, by the best carrier for it. What waits on that one because
    /// it went by it before goes by the next best, though that be the one that has no bulk.
    fn send_share(
        &mut self,
        now: Moment,
        (id, share): (BondId, Share),
        bond: &mut Bond,
        (express, host): (Option<CarrierSlot>, &mut impl Host),
    ) -> bool {
        let mut refused = None;
        let mut express = express;
        while let Some((slot, conn)) = self.best(bond, (express, share), refused, host) {
            let carrier = self.carriers[conn.index as usize].as_mut().expect("members have one");
            if seal(now, (id, slot), bond, carrier, (share, host)) {
                return true;
            }
            if refused.replace(slot).is_some() {
                break;
            }
            express = None;
        }
        false
    }

    fn offer_keys(&mut self, now: Moment, bond: &mut Bond) {
        let Bond { known: Some(known), members, packets, role: Role::Initiator, .. } = bond else {
            return;
        };
        let links = members.iter().flatten().filter_map(|member| {
            self.carriers[member.conn.index as usize].as_ref().map(|carrier| carrier.link.spent())
        });
        let packets = packets.iter().map(|member| member.link.spent());
        if let Some(spent) = links.chain(packets).max_by_key(|spent| (spent.packets, spent.bytes)) {
            known.epochs.offer_if_due(now, spent, &mut self.entropy);
        }
    }

    /// The carrier by which something of this share would arrive first, if any takes something.
    /// The one that has no bulk is for what is little, unless another is twice as fast: bulk that
    /// loses a packet holds up all that is behind it.
    pub(super) fn best(
        &self,
        bond: &Bond,
        (express, share): (Option<CarrierSlot>, Share),
        not: Option<CarrierSlot>,
        host: &impl Host,
    ) -> Option<(CarrierSlot, ConnId)> {
        let others = bond.slots().filter(|(slot, _)| Some(*slot) != not);
        let candidates = others.filter_map(|(slot, Member { conn, .. })| {
            let apart = express == Some(slot);
            let report = bond.flows.carrier(slot).filter(|report| report.usable)?;
            let pace = &self.carriers[conn.index as usize].as_ref()?.pace;
            let waiting = host.backlog(conn);
            let takes = match share {
                Share::All => report.has_window,
                Share::Little => true,
                Share::Bulk => report.has_window && !apart,
            };
            let arrives = report.rtt.0 / 2 + pace.delay(waiting).0;
            let counts = if apart { arrives } else { arrives.saturating_mul(2) };
            (takes && waiting < pace.waiting_max()).then_some((counts, slot, conn))
        });
        candidates.min_by_key(|(counts, ..)| *counts).map(|(_, slot, conn)| (slot, conn))
    }

    fn await_room(&self, bond: &Bond, host: &mut impl Host) {
        for (slot, Member { conn, .. }) in bond.slots() {
            let usable = bond.flows.carrier(slot).is_some_and(|report| report.usable);
            if let Some(carrier) = self.carriers[conn.index as usize].as_ref().filter(|_| usable) {
                host.await_drain(conn, carrier.pace.waiting_max() / 2);
            }
        }
    }

    /// Tells the driver whether the session can be used. Returns whether it was alone for too long.
    fn judge_standing(
        &mut self,
        now: Moment,
        id: BondId,
        bond: &mut Bond,
        up: bool,
        host: &mut impl Host,
    ) -> bool {
        bond.tell_standing(id, up, host);
        if up {
            bond.alone_since = None;
            if bond.usable() > 0 {
                (bond.failures, bond.rounds) = (0, 0);
            }
            return false;
        }
        let since = *bond.alone_since.get_or_insert(now);
        if now.since(since) < self.settings.wait || self.sabotage.breaks(Rule::StrandedEnds) {
            return false;
        }
        bond.alone_since = Some(now);
        let flows = bond.flows.flow_count() as u64;
        if flows > 0 {
            let mut door = Door::new(host, id);
            if self.sabotage.breaks(Rule::GivenUpIsSaid) {
                bond.flows.abandon(ResetCode::Broken, &mut door);
            } else {
                bond.flows.give_up(ResetCode::Broken, &mut door);
            }
            host.note(None, Note::GivenUp(bond.peer, flows));
        }
        true
    }

    /// Opens a carrier where more carriers carry more, and lets go of those that are not needed.
    /// Returns whether it let go of one.
    fn plan_carriers(&mut self, now: Moment, bond: &mut Bond, full: bool) -> bool {
        let carried = bond.carried();
        let busy = carried > bond.carried + u64::from(full);
        bond.carried = carried;
        let most = self.peer(bond.peer).map_or(1, |peer| peer.carriers_max.clamp(1, CARRIERS_MAX));
        let most = self.sabotage.unless(Rule::SpawnBounded, CARRIERS_MAX, most);
        let paths = bond.slots().filter_map(|(slot, _)| bond.flows.carrier(slot));
        let short = paths.map(|report| report.rtt_min).min().is_some_and(|rtt| rtt < SHORT);
        // Where bulk goes beside others, one carrier is kept for those.
        let beside = full && bond.flows.flows().nth(1).is_some();
        bond.wants_express |= beside && most > 1;
        let (usable, apart) = (bond.usable(), usize::from(bond.wants_express));
        let advice = bond.pool.look(now, Seen { usable, most, carried, full, short, busy });
        let advice = self.sabotage.advice(advice);
        match advice {
            Advice::Stay => bond.wanted = bond.wanted.max(1 + apart),
            Advice::Open => bond.wanted = (usable + 1).min(most),
            Advice::Retire => {
                bond.wants_express &= busy;
                bond.wanted = 1 + usize::from(bond.wants_express);
                self.retire_slowest(bond);
            }
            Advice::Replace => self.retire_slowest(bond),
        }
        matches!(advice, Advice::Retire | Advice::Replace)
    }

    /// Puts nothing new on the carrier that takes least. The one that has no bulk takes little
    /// because it is given little.
    fn retire_slowest(&self, bond: &mut Bond) {
        let express = bond.express();
        let usable = bond.slots().filter_map(|(slot, Member { conn, .. })| {
            bond.flows.carrier(slot).filter(|one| one.usable && Some(slot) != express)?;
            Some((self.carriers[conn.index as usize].as_ref()?.pace.rate(), slot))
        });
        if let Some((_, slot)) = usable.min() {
            bond.flows.retire(slot);
        }
    }

    /// Whether it is ours to dial, and there is an address: another configuration may have come.
    fn may_dial(&self, bond: &Bond) -> bool {
        bond.role == Role::Initiator && self.dials(bond.peer)
    }

    /// When to dial, if there are too few carriers, or the session is to count under other keys,
    /// and nothing is on its way.
    fn dial_at(&self, bond: &Bond, up: bool) -> Option<Moment> {
        let members = bond.slots().count();
        let fewer = !up || bond.usable() < bond.wanted;
        let wanted = self.may_dial(bond)
            && !self.stopping
            && bond.dialling.is_none()
            && bond.on_trial() == 0
            && members < CARRIERS_MAX;
        let at = if fewer { Some(bond.retry_at) } else { bond.moves_at() };
        at.filter(|_| wanted).map(|at| at.max(bond.retry_at))
    }

    fn set_due(&mut self, id: BondId, bond: &mut Bond, dial_at: Option<Moment>, no_sooner: Moment) {
        let suspects = bond.slots().filter_map(|(_, member)| member.suspect_since);
        let given_up = suspects.map(|since| since + SUSPECT_MAX).min();
        let alone = bond.alone_since.map(|since| since + self.settings.wait);
        let pool =
            (bond.role == Role::Initiator).then(|| bond.pool.wake_at(bond.usable())).flatten();
        let keys = bond.known.as_ref().filter(|_| bond.flows_can_go());
        let keys = keys.and_then(|known| known.epochs.wake_at());
        let route = self.wants_route(bond).then_some(bond.route_at);
        let returns = bond.detour.returns_at();
        let due = [bond.flows.wake_at(), keys, given_up, alone, dial_at, pool, route, returns];
        let due = due.into_iter().flatten().min().map(|at| at.max(no_sooner));
        if bond.due != due {
            if let Some(before) = bond.due {
                self.due.remove(&(before, id));
            }
            if let Some(at) = due {
                self.due.insert((at, id));
            }
            bond.due = due;
        }
    }

    /// Closes every connection of a session: its members, and the one that is dialled. One that is
    /// not in its place at this moment is the caller's. Nobody else's is looked at.
    fn close_all(&mut self, bond: &Bond, host: &mut impl Host) {
        let members = bond.members.iter().flatten().map(|member| member.conn);
        for conn in members.chain(bond.dialling) {
            if let Some(carrier) = self.take_carrier(conn) {
                self.forget_half_open(&carrier);
                host.close(conn, false);
            }
        }
        *self.resent_before.entry(bond.peer).or_default() += bond.resent();
        self.forget_header(bond);
    }

    /// The far agent has forgotten the session of who dialled it: its flows end, and the next ones
    /// are another session's. The connection that brought the news is not closed: it is not in its
    /// place at this moment.
    pub(super) fn start_over(
        &mut self,
        now: Moment,
        id: BondId,
        code: ResetCode,
        host: &mut impl Host,
    ) {
        let Some(mut bond) = self.bonds.get_mut(id.0 as usize).and_then(Option::take) else {
            return;
        };
        self.close_all(&bond, host);
        let (fresh, peer) = (self.session(Role::Initiator), bond.peer);
        self.memory.forget(peer, &bond.flows.account);
        let flows = bond.flows.flow_count() as u64;
        if !bond.flows.sabotage.breaks(Rule::GoneIsSaid) {
            bond.flows.abandon(code, &mut Door::new(host, id));
        }
        bond.flows = fresh;
        bond.members.clear();
        bond.packets.clear();
        (bond.route_at, bond.anew_after) = (now, packets::ANEW_FIRST);
        bond.forget_detour(now, host);
        bond.next_slot = 0;
        bond.pool = Pool::new(now);
        bond.known = None;
        bond.wanted = 1;
        bond.carried_before = 0;
        bond.resent_before = 0;
        bond.carried = 0;
        bond.retry_at = now;
        bond.move_at = None;
        if core::mem::take(&mut bond.told_up) {
            host.bond(id, peer, false);
        }
        self.bonds[id.0 as usize] = Some(bond);
        // Without flows it may be that the far agent never heard of the session.
        if flows > 0 {
            host.note(None, Note::Forgotten(peer, flows));
        }
    }

    /// Ends a session, here alone. Who dials begins another one.
    pub(super) fn end(&mut self, now: Moment, id: BondId, code: ResetCode, host: &mut impl Host) {
        let Some(mut bond) = self.bonds.get_mut(id.0 as usize).and_then(Option::take) else {
            return;
        };
        self.close_all(&bond, host);
        self.memory.forget(bond.peer, &bond.flows.account);
        bond.flows.abandon(code, &mut Door::new(host, id));
        if let Some(at) = bond.due {
            self.due.remove(&(at, id));
        }
        self.by_peer.remove(&(bond.peer, id));
        if bond.role == Role::Responder
            && let Some(known) = &bond.known
        {
            self.by_session.remove(&known.id);
            host.registry(|registry| registry.end(known.id));
        }
        if bond.told_up {
            host.bond(id, bond.peer, false);
        }
        self.vacant.push(id);
        if self.dials(bond.peer) && bond.role == Role::Initiator {
            let again = self.add_bond(now, bond.peer, Role::Initiator, None);
            self.get_mut(again).expect("it was just made").retry_at = now + RETRY_MIN;
        }
    }
}

/// Seals one record for a carrier with what can go by it alone, and what is to be said of keys, if
/// that is `said` there.
pub(super) fn seal_own(
    now: Moment,
    (slot, said): (CarrierSlot, bool),
    bond: &mut Bond,
    carrier: &mut Carrier,
    host: &mut impl Host,
) {
    let Bond { flows, known: Some(known), .. } = bond else { return };
    let epoch = known.epochs.number();
    let changes = carrier.link.epoch() != epoch;
    let exchange = if said { known.epochs.to_say(now) } else { None };
    let sealed = carrier.link.seal(host.out(carrier.conn), |out| {
        if let Some(exchange) = exchange {
            Frame::Rekey(exchange).write(out);
            flows.note_use(slot);
        }
        flows.fill_own(now, slot, out);
        if changes && !flows.sabotage.breaks(Rule::KeysAnnounced) {
            Frame::Keys { epoch }.write(out);
        }
    });
    carrier.sent(now, sealed, known, changes);
}

/// Seals one record with nothing but filler. Returns whether it left.
pub(super) fn seal_filler(
    now: Moment,
    slot: CarrierSlot,
    bond: &mut Bond,
    carrier: &mut Carrier,
    host: &mut impl Host,
) -> bool {
    if bond.known.as_ref().is_some_and(|known| known.epochs.number() != carrier.link.epoch()) {
        // Beside packets perhaps nothing else has said so.
        seal_own(now, (slot, false), bond, carrier, host);
    }
    let Bond { flows, known: Some(known), .. } = bond else { return false };
    let room = carrier.pace.text_max();
    let sealed =
        carrier.link.seal(host.out(carrier.conn), |out| flows.fill_filler(now, slot, room, out));
    carrier.sent(now, sealed, known, false)
}

/// Seals one record for a carrier: of this share what is most worth it. Returns whether there was
/// anything.
fn seal(
    now: Moment,
    (id, slot): (BondId, CarrierSlot),
    bond: &mut Bond,
    carrier: &mut Carrier,
    (share, host): (Share, &mut impl Host),
) -> bool {
    let Bond { flows, known: Some(known), .. } = bond else { return false };
    let room = carrier.pace.text_max() - KEYS_ROOM;
    let epoch = known.epochs.number();
    let changes = carrier.link.epoch() != epoch;
    let exchange = if share == Share::Bulk { None } else { known.epochs.to_say(now) };
    let mut later = Later::default();
    let sealed = carrier.link.seal(host.out(carrier.conn), |out| {
        let start = out.len();
        if let Some(exchange) = exchange {
            Frame::Rekey(exchange).write(out);
            flows.note_use(slot);
        }
        flows.fill_share(now, (slot, share), room, (out, &mut later));
        if changes && out.len() > start && !flows.sabotage.breaks(Rule::KeysAnnounced) {
            Frame::Keys { epoch }.write(out);
        }
    });
    for event in later.0 {
        host.flow(id, event);
    }
    carrier.sent(now, sealed, known, changes)
}

impl Carrier {
    /// A record was sealed, or not. If it said so, the next one is under the present epoch.
    /// Returns whether there was anything.
    fn sent(
        &mut self,
        now: Moment,
        sealed: Result<usize, KeySpent>,
        known: &Known,
        changes: bool,
    ) -> bool {
        let Ok(len @ 1..) = sealed else {
            // No key lasts for ever; that nobody answered for new ones in all the time means that
            // nobody is there. It is found to be silent, then.
            return false;
        };
        self.pace.put(len + RECORD_OVERHEAD);
        self.meter.add(now, SENT, (len + RECORD_OVERHEAD) as u64);
        if changes {
            let epoch = known.epochs.number();
            let secret = known.epochs.secret(epoch).expect("the present one is there");
            self.link.change_over(epoch, secret);
        }
        true
    }
}
