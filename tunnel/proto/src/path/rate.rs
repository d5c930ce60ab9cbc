//! How fast a path is sent to: as fast as its bottleneck passes packets on, and no faster.
//!
//! Loss is not congestion by itself, so it does not slow anybody down: what counts is how fast
//! *numbers* go by at the receiver, those that are lost behind the bottleneck among them. But loss
//! beyond what the path always has, and a queue that does not drain, are congestion. So both the
//! path's own loss (the *floor*) and its own delay (the *base*) are measured, while little is sent.
//!
//! ```text
//! trains --a train was spread over 2 ms or more--> up, down, cruise, up, down, cruise...
//!   \--not yet: a longer train--/                    |  ^
//!                         a queue stands for rounds  v  | it is gone
//!                                                   drain <--every 10 s, or others try--\
//!                            it stays, or comes back  \--------> compete ---------------/
//! ```
//!
//! - **Up**: a quarter more for a round trip, on long paths less; if that much more goes by, more
//!   again at once. **Down**: as much less, so that what has queued drains. **Cruise**: what goes
//!   by, and less while the queue is longer than wanted. The wanted queue depends on the rate
//!   alone, not on the round trip: so several of ours find one that all of them like.
//! - **Drain**: a queue that stands is the bottleneck saying how fast it is. That is the rate then,
//!   but not less than a quarter of the rate before, and three quarters of it are sent until the
//!   queue is gone.
//! - **Compete**: a queue that stays or comes back is somebody else's. A window as CUBIC has it
//!   then, for losses beyond the path's own (`compete`); if losses go on long before that window is
//!   back, the other is one that does not mind them, and what BBR would hold is held, a quarter of
//!   the first window at least. Every 10 s, or when somebody makes room, it is tried whether the
//!   queue drains.
//! - **Test**: more loss than ever, without a queue, is tested (`loss`).
//!
//! Always: four packets a round trip, or in 100 ms, are sent, so a path is never shut;
//! only what was measured while there was enough to send lowers anything; what is lost beyond the
//! path's own loss does not count as having gone by.
//!
//! Bounds: constant time and memory. Sources: Cardwell and others, "BBR" (ACM Queue 2016) for
//! filter and cycle; Kumar and others, "Swift" (SIGCOMM 2020) for a wanted queue that is shorter
//! for who is faster; RFC 9438. Not here: what trains say (`trains`), which losses are the path's
//! own (`loss`). Tests: rivals and lines of all kinds in `ringway-wan`.

use alloc::collections::VecDeque;

use ringway_core::{Moment, Span};

use super::compete::Compete;
use super::flight::Heard;
use super::loss::{self, LEAST_PART, Loss};
use super::mark::{Mark, per_second};
use super::rtt::{Least, Rtt};
use super::trains::{self, Trains};
use super::why::Doing;
use crate::sabotage::{Rule, Sabotage};

/// Rounds of which the fastest counts.
const ROUNDS: usize = 10;
/// Up, down, and then cruise for the rest of so many rounds.
const CYCLE_ROUNDS: u32 = 8;
const UP: f64 = 0.25;
/// More is tried for so long at that; on longer paths, less is.
const UP_LASTS: Span = Span::from_ms(40);
/// What is sent whatever happens is sent in a time of this length, at least.
const LEAST_WITHIN: Span = Span::from_ms(100);
/// What is sent while a queue drains.
const DRAIN: f64 = 0.75;
/// After so many rounds of that the queue is gone, or not ours.
const DRAIN_ROUNDS: u32 = 3;
const DRAIN_ROUNDS_MAX: u32 = 8;
/// A queue that comes back so often within this time is not ours either.
const STOOD_MAX: u32 = 4;
const STOOD_WITHIN: Span = Span::from_s(10);
/// How long one competes before it is tried without.
const COMPETE: Span = Span::from_s(10);
/// What is known of the empty path is kept for so long beside somebody who never lets it be empty.
const KEPT: Span = Span::from_s(60);
const COMPETE_MIN: Span = Span::from_ms(2500);
/// Who is pressed has so many round trips' worth on its way, as BBR does; or, where they hold less,
/// so much more than path and buffer: with hardly more, losses take a little each round trip.
const HOLD: f64 = 2.3;
const HOLD_FULL: f64 = 1.16;
const HOLD_LEAST: f64 = 1.5;
/// The queue that one of ours likes to see, at 50 Mbit/s.
const QUEUE: Span = Span::from_ms(4);
const QUEUE_RATE: f64 = 50e6 / 8.0;
/// One that stands is this long, or a quarter of the round trip: the same for paths of all lengths
/// that share it.
const GUARD_MAX: Span = Span::from_ms(15);
const QUEUE_MIN: Span = Span::from_us(500);
/// The first round after a train begins with a pause, so the second is the first that counts.
const FRESH: u32 = 3;
/// No queue is longer, whatever clocks say.
const QUEUE_MAX: Span = Span::from_s(60);
/// Decisions that are remembered.
const LOG_MAX: usize = 64;

/// What was decided, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// A train was spread over so long, which is too short: the next has so many bytes.
    LongerTrain(Span, u64),
    /// A train says that the path passes so many bytes a second.
    Train(u64),
    /// So many bytes a second more went by: more is tried at once.
    Faster(u64),
    /// A queue of this length stood for a round: the path passes so many bytes a second.
    Standing(Span, u64),
    /// So much is lost, beyond the path's own loss.
    Excess(f64, f64),
    /// Less is lost when less is sent: this is the rate.
    Slower(u64),
    /// The path's own loss.
    Floor(f64),
    /// A queue of this length stays, though less is sent: somebody else fills it.
    Compete(Span),
    /// It was tried whether anybody still does.
    Trial(Span),
    /// Nobody does any more.
    Alone(Span),
    /// So much was lost, of so much that the path loses: the window is smaller.
    Yield(f64, f64),
}

/// What was put on the path: the next packet's number, bytes in all, and those on their way.
#[derive(Clone, Copy, Debug)]
pub struct Put {
    /// See there.
    pub next: u64,
    /// See there.
    pub sent: u64,
    /// See there.
    pub flying: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Up,
    Down,
    Cruise,
    Drain,
    Compete,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Rate {
    packet_bytes: u64,
    /// Until they have said something.
    trains: Option<Trains>,
    loss: Loss,
    /// Bytes a second in each of the last rounds.
    rounds: [u64; ROUNDS],
    round: usize,
    /// The number with which the present round ends.
    round_ends: u64,
    round_mark: Option<Mark>,
    /// The shortest queue in this round, and in the one before.
    queue_least: Span,
    queue_before: Span,
    /// Somebody had nothing to send in this round.
    idle: bool,
    /// This end itself puts something else on the path: see [`Self::set_beside`].
    beside: bool,
    phase: Phase,
    phase_rounds: u32,
    /// Numbers from the first to the second were sent while more was tried.
    tried: (u64, u64),
    /// The rate before it was tried without competing.
    before_trial: u64,
    /// The rate before more was tried.
    before_up: u64,
    /// How often in a row what was tried went by.
    growing: u32,
    /// Beside somebody else, in Compete and while it is tried without.
    compete: Option<Compete>,
    compete_since: Moment,
    /// The delay and the round trip without a queue, since somebody else fills it.
    kept: Option<(Moment, u64, Span)>,
    /// The longest queue of late.
    queue_high: Span,
    /// The round after a reduction is not judged.
    held: bool,
    /// Rounds until something better than a train was measured, and one more.
    fresh: u32,
    /// This is the round behind a train, which begins with a pause.
    behind_train: bool,
    /// In how many rounds running the queue was too long.
    long_rounds: u32,
    /// How often a queue stood, and since when that is counted.
    stood: (u32, Moment),
    /// The queue when it was begun to drain.
    drain_from: Span,
    /// How delay and round trip vary within a round of cruise.
    spread: Span,
    rtt_spread: Span,
    queue_most: Span,
    rtt_range: (Span, Span),
    rtt_smooth: Span,
    /// One-way delay by two clocks; only differences mean anything.
    base: Least,
    rtt_least: Span,
    reorder: Span,
    log: VecDeque<(Moment, Decision)>,
    sabotage: Sabotage,
    /// What follows from all that, for who asks at each packet.
    paces: Option<u64>,
    holds: u64,
}

impl Rate {
    /// A rule is switched off, perhaps.
    pub(crate) fn set_sabotage(&mut self, sabotage: Sabotage) {
        (self.sabotage, self.loss.sabotage) = (sabotage, sabotage);
        if let Some(trains) = &mut self.trains {
            trains.sabotage = sabotage;
        }
    }

    /// Packets have so many bytes from now on.
    pub(crate) fn set_packet_bytes(&mut self, packet_bytes: u64) {
        self.packet_bytes = packet_bytes;
        self.conclude();
    }

    /// Nothing is known of another path, to whose carrier so many packets have come so far.
    pub(super) fn moved(packet_bytes: u64, came: u64, sabotage: Sabotage) -> Self {
        let mut rate = Self::new(packet_bytes);
        rate.trains = Some(Trains::after(packet_bytes, came));
        rate.set_sabotage(sabotage);
        rate
    }

    /// For packets of so many bytes on the path, heads included.
    pub fn new(packet_bytes: u64) -> Self {
        let mut rate = Self {
            packet_bytes,
            trains: Some(Trains::new(packet_bytes)),
            loss: Loss::default(),
            rounds: [0; ROUNDS],
            round: 0,
            round_ends: 0,
            round_mark: None,
            queue_least: Span(u64::MAX),
            queue_before: Span::ZERO,
            idle: false,
            beside: false,
            phase: Phase::Cruise,
            phase_rounds: 0,
            tried: (0, 0),
            before_trial: 0,
            before_up: 0,
            growing: 0,
            compete: None,
            compete_since: Moment(0),
            kept: None,
            queue_high: Span::ZERO,
            held: false,
            fresh: 0,
            behind_train: false,
            long_rounds: 0,
            stood: (0, Moment(0)),
            drain_from: Span::ZERO,
            spread: Span::ZERO,
            rtt_spread: Span::ZERO,
            queue_most: Span::ZERO,
            rtt_range: (Span(u64::MAX), Span::ZERO),
            rtt_smooth: Span::from_ms(100),
            base: Least::default(),
            rtt_least: Span::from_ms(100),
            reorder: Span::ZERO,
            log: VecDeque::new(),
            sabotage: Sabotage::default(),
            paces: None,
            holds: 0,
        };
        rate.conclude();
        rate
    }

    /// What follows from what is known: whoever changes that calls this.
    fn conclude(&mut self) {
        (self.paces, self.holds) = (self.pacing_now(), self.window_now());
    }

    /// Bytes a second that the path passes on, as far as is known.
    pub fn bandwidth(&self) -> u64 {
        if self.sabotage.breaks(Rule::FastestCounts) {
            return self.rounds[self.round % ROUNDS].max(self.least());
        }
        // What a window of the least size brings, whatever was measured: of nothing, a quarter more
        // would be nothing for ever.
        self.rounds.iter().copied().fold(self.least(), u64::max)
    }

    /// Bytes a second to send at; `None`: at once, as far as the window goes.
    pub fn pacing(&self) -> Option<u64> {
        self.paces
    }

    fn pacing_now(&self) -> Option<u64> {
        if self.trains.is_some() {
            return None;
        }
        let gain = match (self.phase, &self.compete) {
            (Phase::Compete, Some(_)) => {
                let rate = per_second(self.window_now(), self.rtt_smooth);
                return Some((rate + rate / 20).max(self.least()));
            }
            (Phase::Up, _) => 1.0 + self.step() + 0.25 * f64::from(self.growing.min(3)),
            (Phase::Down, _) => 1.0 - self.step(),
            (Phase::Drain, _) => DRAIN,
            (Phase::Cruise | Phase::Compete, _) => self.cruise(),
        };
        Some(((self.bandwidth() as f64 * gain * self.loss.brake()) as u64).max(self.least()))
    }

    /// Four packets a round trip, or in 100 ms, are sent whatever happens, and one a second: of
    /// fewer nobody learns how fast a path is.
    fn least(&self) -> u64 {
        if self.sabotage.breaks(Rule::NeverShut) {
            return 1;
        }
        per_second(4 * self.packet_bytes, self.rtt_smooth.max(LEAST_WITHIN)).max(self.packet_bytes)
    }

    /// How much more is tried: a queue of a quarter of 40 ms, but more than what varies anyway.
    fn step(&self) -> f64 {
        let round = self.rtt_least.0.max(self.round_min().0).max(1) as f64;
        let part = UP_LASTS.0 as f64 / round * UP;
        let noise = 2.0 * self.spread.0 as f64 / round;
        part.max(noise).clamp(0.0, UP)
    }

    /// A round is so long at least that what varies does not matter much.
    fn round_min(&self) -> Span {
        Span(6 * self.spread.0)
    }

    /// What delay varies by, as far as that is no queue.
    fn jitter(&self) -> Span {
        self.sabotage.unless(Rule::JitterIsNoQueue, Span::ZERO, self.spread)
    }

    /// A queue that is longer than wanted is worked off slowly.
    fn cruise(&self) -> f64 {
        let target = self.queue_target();
        let excess = self.queue_before.0.saturating_sub(target.0) as f64;
        1.0 - (excess / (2.0 * self.rtt_least.0.clamp(1, 2 * UP_LASTS.0) as f64)).min(0.1)
    }

    /// The queue that is wanted: the faster one is, the shorter, whatever the round trip. Of two
    /// that see the same queue the faster one finds it too long, so they meet.
    fn queue_target(&self) -> Span {
        let rate = self.bandwidth().max(1) as f64;
        let wanted = QUEUE.0 as f64 * root(QUEUE_RATE / rate);
        let most = (self.rtt_least.0 / 5).max(2 * QUEUE_MIN.0);
        Span((wanted as u64).clamp(QUEUE_MIN.0, most) + self.jitter().0 / 2)
    }

    /// A queue that stays longer than this for a round is congestion.
    fn queue_guard(&self) -> Span {
        let varies = Span::from_ms(2).0 + self.jitter().0;
        let part = (self.rtt_least.0 / 4).min(GUARD_MAX.0);
        Span(varies.max(part).max(2 * self.queue_target().0))
    }

    /// Whether more may be on its way, with so many bytes on their way and so many sent in all.
    pub fn allows(&self, (flying, sent): (u64, u64)) -> bool {
        match &self.trains {
            Some(trains) => trains.allows((flying, sent)),
            None => flying < self.window(),
        }
    }

    /// Bytes that may be on their way, once trains are over.
    pub fn window(&self) -> u64 {
        self.holds
    }

    fn window_now(&self) -> u64 {
        if let (Phase::Compete, Some(compete)) = (self.phase, &self.compete) {
            return compete.window();
        }
        let gain = if self.phase == Phase::Up { 1.6 } else { 1.3 };
        let varies = self.rtt_spread.0 + self.reorder.0;
        let wait = self.rtt_least.0 + 2 * report_wait(self.rtt_least).0 + varies;
        let bytes = self.bandwidth() as f64 * self.loss.brake() * gain * (wait as f64 / 1e9);
        (bytes as u64).max(4 * self.packet_bytes) + 64 * 1024
    }

    /// What BBR would have on its way, but only some more than path and buffer hold; and enough to
    /// claim a part where the queue is short because the other one leaves hardly anything to us.
    fn held_bytes(&self) -> u64 {
        let full = HOLD_FULL * (self.rtt_least.0 + self.queue_high.0) as f64;
        let least = HOLD_LEAST * self.rtt_least.0 as f64;
        let wait = (HOLD * self.rtt_least.0 as f64).min(full.max(least));
        (self.bandwidth() as f64 * wait / 1e9) as u64
    }

    /// The path's own loss; zero before it is known.
    pub fn floor(&self) -> f64 {
        self.loss.floor()
    }

    /// The same; nothing before it is known.
    pub(super) fn floor_known(&self) -> Option<f64> {
        self.loss.is_known().then(|| self.loss.floor())
    }

    /// What is done now.
    pub fn doing(&self) -> Doing {
        if self.trains.is_some() {
            return Doing::Trains;
        }
        match self.phase {
            Phase::Drain => Doing::Drain,
            Phase::Compete if self.is_pressed() => Doing::Hold,
            Phase::Compete => Doing::Compete,
            _ if self.loss.brake() < 1.0 => Doing::Test,
            Phase::Up => Doing::Up,
            Phase::Down => Doing::Down,
            Phase::Cruise => Doing::Cruise,
        }
    }

    /// What was decided of late.
    pub fn log(&self) -> impl Iterator<Item = &(Moment, Decision)> {
        self.log.iter()
    }

    fn decide(&mut self, now: Moment, decision: Decision) {
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back((now, decision));
    }

    /// This end itself puts something else on the same path for a while, or no more: the queue that
    /// makes and what is lost by it say nothing of anybody else, nor of the path, and if less goes
    /// by, that is why. Who competes already goes on.
    pub fn set_beside(&mut self, beside: bool) {
        if core::mem::replace(&mut self.beside, beside) == beside {
            return;
        }
        (self.round_mark, self.long_rounds) = (None, 0);
        self.loss.pause();
        if self.phase != Phase::Compete {
            self.tried = (0, 0);
            // What is left of the queue is worked off, at the rate that was known before.
            self.drain_from = self.queue_before;
            self.begin_phase(if beside { Phase::Cruise } else { Phase::Drain });
        }
        self.conclude();
    }

    /// There is nothing to send: what is measured is not what the path could do.
    pub fn note_idle(&mut self, put: &Put) {
        // A train that begins anew is one as before: nothing else follows from it.
        self.idle = !self.sabotage.breaks(Rule::IdleSaysNothing);
        if let Some(trains) = &mut self.trains {
            trains.note_idle(put);
        }
    }

    /// All that was on its way was given up: of a train nothing more is heard.
    pub fn note_given_up(&mut self, put: &Put) {
        if let Some(trains) = &mut self.trains {
            trains.note_given_up(put);
        }
    }

    /// A report came.
    pub fn heard(&mut self, now: Moment, heard: &Heard, of_path: (&Rtt, Span), put: &Put) {
        self.hear(now, heard, of_path, put);
        self.conclude();
    }

    fn hear(&mut self, now: Moment, heard: &Heard, (rtt, reorder): (&Rtt, Span), put: &Put) {
        // A train ends with what is known of its last packet, which need not be the newest.
        if heard.rtt.is_none() && (self.trains.is_none() || put.flying > 0) {
            return;
        }
        (self.rtt_least, self.rtt_smooth, self.reorder) = (rtt.least(), rtt.smooth(), reorder);
        if let Some((since, _, trip)) = self.kept {
            self.rtt_least = self.rtt_least.min(trip);
            self.kept = self.kept.filter(|_| now.since(since) < KEPT);
        }
        let queue = self.queue(now, heard);
        if self.trains.is_some() {
            self.look_at_train(now, heard, put);
            return;
        }
        let Some(trip) = heard.rtt else { return };
        self.queue_least = self.queue_least.min(queue);
        self.queue_most = self.queue_most.max(queue);
        self.rtt_range = (self.rtt_range.0.min(trip), self.rtt_range.1.max(trip));
        let held = self.held_bytes();
        if let (Phase::Compete, Some(compete)) = (self.phase, &mut self.compete) {
            compete.grow(now, (self.rtt_smooth, heard.arrived), held);
        }
        let began = self.round_mark.map_or(Moment(0), |mark| mark.came_at);
        let long = heard.totals.arrived.since(began) >= self.round_min();
        if heard.totals.newest >= self.round_ends && long {
            self.end_round(now, heard, put.next);
        }
        if self.compete.is_some() || self.beside {
            self.loss.pause();
        } else {
            self.look_at_loss(now, heard, put.next);
        }
    }

    /// How long the newest packet waited.
    fn queue(&mut self, now: Moment, heard: &Heard) -> Span {
        // Two clocks: the difference may have either sign, so its order is kept by a shift.
        let delay = heard.totals.arrived.0.wrapping_sub(heard.newest_at.0).wrapping_add(1 << 63);
        let base = self.base.sample(now, delay);
        let base = self.kept.map_or(base, |(_, kept, _)| base.min(kept));
        // A clock that jumps is the peer's; what it says must stay a length of time here.
        Span(delay - base).min(QUEUE_MAX)
    }

    fn look_at_train(&mut self, now: Moment, heard: &Heard, put: &Put) {
        let of_path = (self.rtt_smooth, self.packet_bytes);
        let said = self.trains.as_mut().and_then(|trains| trains.look(heard, put, of_path));
        match said {
            None => {}
            Some(trains::Verdict::Longer(spread, bytes)) => {
                self.decide(now, Decision::LongerTrain(spread, bytes));
            }
            Some(trains::Verdict::Passes(rate)) => self.end_trains(now, heard, (rate, put.next)),
            Some(trains::Verdict::NoRoom(rate)) => {
                self.end_trains(now, heard, (rate, put.next));
                self.phase_rounds = CYCLE_ROUNDS;
            }
        }
    }

    /// The path passes so many bytes a second, as far as trains can say.
    fn end_trains(&mut self, now: Moment, heard: &Heard, (rate, next): (u64, u64)) {
        self.trains = None;
        self.rounds = [rate; ROUNDS];
        self.begin_phase(Phase::Cruise);
        let drains = !self.sabotage.breaks(Rule::TrainsQueueDrains);
        (self.fresh, self.behind_train) = (FRESH, drains);
        (self.round_ends, self.round_mark) = (next, Some(Mark::of(heard)));
        (self.queue_least, self.idle) = (Span(u64::MAX), false);
        self.decide(now, Decision::Train(rate));
    }

    fn begin_phase(&mut self, phase: Phase) {
        // Whatever ended it, no more is tried from here on.
        if self.phase == Phase::Up && self.tried.1 == u64::MAX {
            self.tried.1 = self.round_ends;
        }
        (self.phase, self.phase_rounds) = (phase, 0);
    }

    /// All that was sent when the round began was reported on.
    fn end_round(&mut self, now: Moment, heard: &Heard, next: u64) {
        let mark = Mark::of(heard);
        let Some(before) = self.round_mark.replace(mark) else {
            self.round_ends = next;
            return;
        };
        let queue = core::mem::replace(&mut self.queue_least, Span(u64::MAX));
        let most = core::mem::replace(&mut self.queue_most, Span::ZERO);
        let trips = core::mem::replace(&mut self.rtt_range, (Span(u64::MAX), Span::ZERO));
        self.queue_before = queue;
        self.round_ends = next;
        self.round += 1;
        let (sample, passed) = self.passed(&before, &mark);
        let up = self.tried.0 < mark.number && before.number < self.tried.1;
        let idle = core::mem::take(&mut self.idle) || self.beside;
        let loss = mark.lost_since(&before);
        let guard = self.queue_guard();
        let dropped = mark.dropped != before.dropped && !self.sabotage.breaks(Rule::HostDropsApart);
        let tries = up && self.loss.is_known();
        self.loss.note_round(loss, queue <= guard && !tries && !dropped);
        // What a train has queued drains meanwhile, and hardly anything is sent.
        let behind = core::mem::take(&mut self.behind_train);
        let long = queue > guard && !up && !self.beside && !behind;
        self.long_rounds = if long { self.long_rounds + 1 } else { 0 };
        // Who had less to send than went by has not tried what the train said.
        self.fresh = if idle { self.fresh } else { self.fresh.saturating_sub(1) };
        if self.fresh == 1 && !idle {
            // A whole round says more than a train; if that was right, more is tried at once.
            if sample as f64 <= 0.9 * self.bandwidth() as f64 {
                self.rounds = [self.lowered(sample); ROUNDS];
            }
            self.phase_rounds = CYCLE_ROUNDS;
        }
        // Who had less to send has not tried what the path passes.
        let passed = if idle { passed.max(self.bandwidth()) } else { passed };
        match self.phase {
            Phase::Compete => self.compete_round(now, (queue, passed), loss),
            Phase::Drain => self.drain_round(now, queue),
            // One round may be the work of another one of ours that tries more.
            _ if self.stands(queue, guard) => {
                self.begin_drain(now, queue, passed);
            }
            _ => {
                if self.phase == Phase::Cruise && !up && !self.beside {
                    self.spread = blend(self.spread, Span(most.0 - queue.0));
                    self.rtt_spread =
                        blend(self.rtt_spread, Span(trips.1.0.saturating_sub(trips.0.0)));
                }
                if !idle || sample > self.bandwidth() {
                    self.rounds[self.round % ROUNDS] = sample;
                }
                self.next_phase(now, sample, up, next);
            }
        }
    }

    /// What one round may make of the rate: it may be an outage's, and what is still too much
    /// shows again.
    fn lowered(&self, passed: u64) -> u64 {
        let least = (self.bandwidth() as f64 * LEAST_PART) as u64;
        self.sabotage.unless(Rule::RoundIsNoPath, passed, passed.max(least))
    }

    /// Whether a queue of this length has stood for too long.
    fn stands(&self, queue: Span, guard: Span) -> bool {
        let long = self.long_rounds >= 2 || self.long_rounds == 1 && queue.0 > 2 * guard.0;
        long && !self.sabotage.breaks(Rule::QueueDrained)
    }

    /// A queue stood for a round: what went by is our part of what the path passes.
    fn begin_drain(&mut self, now: Moment, queue: Span, passed: u64) {
        self.rounds = [self.lowered(passed); ROUNDS];
        (self.drain_from, self.growing) = (queue, 0);
        self.decide(now, Decision::Standing(queue, passed));
        if now.since(self.stood.1) > STOOD_WITHIN {
            self.stood = (0, now);
        }
        self.stood.0 += 1;
        self.begin_phase(Phase::Drain);
        if self.stood.0 >= STOOD_MAX {
            self.begin_compete(now, queue);
        }
    }

    fn drain_round(&mut self, now: Moment, queue: Span) {
        self.phase_rounds += 1;
        if queue <= self.queue_target() {
            if self.compete.take().is_some() {
                self.kept = None;
                self.stood = (0, now);
                self.loss.note_alone();
                self.decide(now, Decision::Alone(queue));
            }
            self.begin_phase(Phase::Cruise);
            return;
        }
        let stays = queue > self.queue_guard() && queue.0 * 20 > self.drain_from.0 * 17;
        if self.phase_rounds >= DRAIN_ROUNDS && stays || self.phase_rounds >= DRAIN_ROUNDS_MAX {
            self.begin_compete(now, queue);
        }
    }

    fn begin_compete(&mut self, now: Moment, queue: Span) {
        if self.sabotage.breaks(Rule::CrowdedCompetes) {
            return self.begin_phase(Phase::Cruise);
        }
        let bytes = self.bandwidth() as f64 * (self.rtt_least.0 + queue.0) as f64 / 1e9;
        match &mut self.compete {
            Some(compete) => {
                compete.resume();
                self.rounds = [self.before_trial; ROUNDS];
            }
            None => {
                self.compete = Some(Compete::new(bytes as u64, self.sabotage));
                let kept = Some((now, self.base.get(), self.rtt_least));
                self.kept = self.sabotage.unless(Rule::EmptyPathKept, None, kept);
                self.decide(now, Decision::Compete(queue));
            }
        }
        (self.compete_since, self.held, self.queue_high) = (now, true, queue);
        self.begin_phase(Phase::Compete);
    }

    /// Whether somebody is beside us whom losses do not bother.
    fn is_pressed(&self) -> bool {
        self.compete.is_some_and(|compete| compete.is_pressed())
    }

    fn compete_round(&mut self, now: Moment, (queue, passed): (Span, u64), loss: (f64, f64)) {
        // Who makes room for a moment has not gone.
        let most = self.bandwidth();
        self.rounds[self.round % ROUNDS] = passed.min(most + most / 8);
        self.loss.note_beside(loss);
        if core::mem::take(&mut self.held) {
            // These were on their way before the window was smaller.
        } else if self.loss.is_congestion(loss)
            && let Some(compete) = &mut self.compete
        {
            self.held = compete.reduce(now);
            self.decide(now, Decision::Yield(loss.0, self.floor()));
        }
        // Somebody gives way: if that is one of ours who tries, it needs all of ours to do so.
        self.queue_high = Span((self.queue_high.0 - self.queue_high.0 / 64).max(queue.0));
        let pressed = self.is_pressed();
        let dips = !self.held && !pressed && queue.0 * 100 < self.queue_high.0 * 85;
        let waited = now.since(self.compete_since);
        let long = if pressed { 3 * COMPETE.0 } else { COMPETE.0 };
        let over = waited.0 >= long || dips && waited >= COMPETE_MIN;
        if over && !self.sabotage.breaks(Rule::CompetingEnds) {
            self.before_trial = self.bandwidth();
            self.rounds = [passed; ROUNDS];
            self.drain_from = queue;
            self.decide(now, Decision::Trial(queue));
            self.begin_phase(Phase::Drain);
        }
    }

    fn next_phase(&mut self, now: Moment, sample: u64, up: bool, next: u64) {
        self.phase_rounds += 1;
        let grown = 1.0 + 0.4 * self.step();
        let grew = up && sample as f64 >= grown * self.before_up as f64;
        // While less is sent to see what helps, no more is.
        let grew = grew && self.loss.brake() >= 1.0;
        match self.phase {
            Phase::Up => {
                self.tried.1 = next;
                let less = self.sabotage.unless(Rule::LessAfterMore, Phase::Cruise, Phase::Down);
                self.begin_phase(less);
            }
            // What was tried went by: it was not too much, so more is.
            _ if grew => {
                self.decide(now, Decision::Faster(sample));
                self.growing += 1;
                self.begin_up(next);
            }
            Phase::Down if self.queue_before > self.queue_target() && self.phase_rounds < 3 => {}
            Phase::Down => self.begin_phase(Phase::Cruise),
            Phase::Cruise if self.phase_rounds >= CYCLE_ROUNDS - 2 && self.loss.brake() >= 1.0 => {
                self.growing = 0;
                self.begin_up(next);
            }
            Phase::Cruise | Phase::Drain | Phase::Compete => {}
        }
    }

    fn begin_up(&mut self, next: u64) {
        if self.sabotage.breaks(Rule::MoreIsTried) {
            return;
        }
        self.before_up = self.bandwidth();
        self.begin_phase(Phase::Up);
        self.tried = (next, u64::MAX);
    }

    /// Bytes a second that went by between two reports: at the receiver, but not faster than they
    /// were sent, and by the receiver's clock alone.
    fn passed(&self, before: &Mark, mark: &Mark) -> (u64, u64) {
        let bytes = mark.sent - before.sent;
        let part = self.loss.passed(mark.lost_since(before), self.compete.is_none());
        let there = mark.came_at.since(before.came_at);
        let slower = there.max(mark.sent_at.since(before.sent_at));
        let scaled = |span| (per_second(bytes, span) as f64 * part) as u64;
        (scaled(slower), scaled(there))
    }

    fn look_at_loss(&mut self, now: Moment, heard: &Heard, next: u64) {
        let tested = self.loss.brake() < 1.0;
        let decision = match self.loss.look(Mark::of(heard), next, self.rtt_least) {
            None => return,
            Some(loss::Verdict::Floor(floor)) => {
                // It was not too much: what was stopped for the test goes on.
                if tested && self.phase == Phase::Cruise {
                    self.phase_rounds = CYCLE_ROUNDS;
                }
                Decision::Floor(floor)
            }
            Some(loss::Verdict::Excess(lost, floor)) => {
                if self.phase == Phase::Up {
                    self.tried.1 = next;
                    self.begin_phase(Phase::Cruise);
                }
                Decision::Excess(lost, floor)
            }
            Some(loss::Verdict::Slower(part)) => {
                let rate = (self.bandwidth() as f64 * part) as u64;
                self.rounds = [rate; ROUNDS];
                Decision::Slower(rate)
            }
        };
        self.decide(now, decision);
    }
}

/// How long a receiver should wait before it reports, at this round trip.
pub fn report_wait(rtt: Span) -> Span {
    Span((rtt.0 / 16).clamp(Span::from_ms(1).0, Span::from_ms(10).0))
}

fn blend(before: Span, now: Span) -> Span {
    Span((7 * before.0 + now.0) / 8)
}

/// The square root: Newton's steps; there is none without `std`.
fn root(number: f64) -> f64 {
    let mut guess = (number + 1.0) / 2.0;
    for _ in 0..30 {
        guess = (guess + number / guess.max(1e-12)) / 2.0;
    }
    guess
}
