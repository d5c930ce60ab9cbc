//! Two agents in virtual time, between them carriers that delay, stall, crawl, fall silent and die.
//!
//! Every stream carries a pattern that follows from its flow's seed, so whoever reads knows at each
//! byte what has to come; nothing is compared at the end that was not judged on the way.
//!
//! What is judged: each byte delivered is the one written at that place (T1); an end is heard when
//! everything before it was delivered and it was really the end (T3); after the faults are over,
//! everything that was not reset arrives, and both sides forget it (T4). Credit follows who reads
//! (T5). A reset says what it was said with (T6); nothing is on the way by a carrier that does not
//! answer, and nothing is missing of one that both have left (T7). Never is more held of what came
//! than there is room for.
//!
//! In a storm, what packets meet changes all the time (`weather`), until it is fair again.

mod weather;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringway_core::rng::Rng;
use ringway_core::{Moment, Span};
use ringway_tunnel_proto::sabotage::Rule;
use ringway_tunnel_proto::{
    CarrierSlot, Event, Exchange, FlowId, Outlet, ResetCode, Role, Session, Settings, Violation,
};

#[allow(unused_imports, reason = "only the swarm counts")]
pub(crate) use weather::Met;
use weather::Weather;

/// One step of virtual time.
const STEP: Span = Span::from_ms(1);
/// How long there are faults, and how long there is a storm.
const FAULTS_UNTIL: Span = Span::from_ms(2500);
const STORM_UNTIL: Span = Span::from_ms(4000);
/// The smallest window of a flow in a storm.
const WINDOW_IN_STORM: u64 = 8 << 10;
/// By when everything has to be over: faults end, suspects are given up, windows begin small.
const OVER_BY: Span = Span::from_s(120);
/// A suspect carrier is closed after so long.
const GIVE_UP_AFTER: Span = Span::from_ms(1500);
/// Bytes on the path around a datagram, and around its text; and of all that passes.
const HEADS: u32 = 28;
const AROUND: u32 = 60;
const MTU: usize = 1500;
/// Records that a carrier holds before it takes no more.
const PIPE_RECORDS: usize = 3;
/// Bytes before the pattern of a flow's first stream: its seed, and how long both streams are.
const HEAD: usize = 24;

/// What happens in one direction of a carrier.
struct Pipe {
    /// Records in their order, by when each arrives.
    on_the_way: VecDeque<(Moment, Vec<u8>)>,
    /// Packets with their numbers, by when each arrives and as they left.
    flying: BTreeMap<(Moment, u64), (u64, Vec<u8>)>,
    left: u64,
    /// What packets meet.
    weather: Weather,
    delay: Span,
    bytes_per_ms: u64,
    free_at: Moment,
    silent: bool,
}

/// A carrier.
struct Line {
    slots: [Option<CarrierSlot>; 2],
    pipes: [Pipe; 2],
    suspect_since: [Option<Moment>; 2],
    broken: bool,
    /// It carries packets. Numbers that came, at each end.
    packets: bool,
    came: [BTreeSet<u64>; 2],
    /// It is to go, and who has heard that the other one has left it.
    leaving: bool,
    heard_left: [bool; 2],
}

/// What one application knows of one flow.
struct App {
    seed: u64,
    /// 0 for the stream of who opened it, 1 for the other.
    writes: u64,
    to_write: u64,
    written: u64,
    finished: bool,
    read: u64,
    to_read: Option<u64>,
    heard_end: bool,
    /// Bytes delivered that the application has not taken.
    waiting: u64,
    /// The most that its window was.
    window: u64,
    reads_per_step: u64,
    head: Vec<u8>,
}

/// One agent with its applications.
struct End {
    session: Session,
    apps: BTreeMap<FlowId, App>,
    over: Over,
    /// What applications here reset flows with.
    said: BTreeMap<FlowId, ResetCode>,
}

/// How flows ended here.
#[derive(Default)]
struct Over {
    closed: u64,
    reset: u64,
    by_us: u64,
}

/// What came out of one call.
#[derive(Default)]
struct Heard {
    data: Vec<(FlowId, Vec<u8>)>,
    events: Vec<(Event, usize)>,
}

impl Outlet for Heard {
    fn data(&mut self, flow: FlowId, bytes: &[u8]) {
        self.data.push((flow, bytes.to_vec()));
    }

    fn rekey(&mut self, exchange: Exchange) {
        panic!("nobody offered {exchange:?}");
    }

    fn keys(&mut self, epoch: u32) {
        panic!("nobody has keys of {epoch}");
    }

    fn event(&mut self, event: Event) {
        // Behind the data that was delivered before it.
        self.events.push((event, self.data.len()));
    }
}

/// What a seed came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Bytes that were delivered.
    pub(crate) delivered: u64,
    /// Flows that ended well, at both ends together.
    pub(crate) closed: u64,
    /// Flows that were reset, at both ends together.
    pub(crate) reset: u64,
    /// Bytes that were sent again.
    pub(crate) resent: u64,
    /// Carriers that were lost.
    pub(crate) lost: u64,
    /// Pieces that were refused, because there was no room for them.
    pub(crate) refused: u64,
    /// Carriers that were left.
    pub(crate) left: u64,
    /// What packets met.
    #[allow(dead_code, reason = "only the swarm counts")]
    pub(crate) met: Met,
}

/// How mean the world is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    /// Everything follows from it.
    pub(crate) seed: u64,
    /// Carriers that are kept open.
    pub(crate) lines: usize,
    /// Of those, carriers of packets.
    pub(crate) packets: usize,
    /// Flows that each side opens.
    pub(crate) flows: u64,
    /// Of a thousand steps of a carrier, so many have a fault.
    pub(crate) faults_per_mille: u64,
    /// Bytes that each side may hold of what comes.
    pub(crate) memory: u64,
    /// Of a thousand flows, so many are reset by one side.
    pub(crate) resets_per_mille: u64,
    /// The rule that is switched off.
    pub(crate) broken: Option<Rule>,
}

/// The bytes of a stream, by their offsets.
struct Pattern {
    key: u64,
    word: Option<(u64, [u8; 8])>,
}

impl Pattern {
    fn of(seed: u64, stream: u64) -> Pattern {
        Pattern { key: seed ^ stream << 63, word: None }
    }

    fn byte(&mut self, offset: u64) -> u8 {
        let at = offset / 8;
        let key = self.key;
        let fresh = || (at, Rng::new(key ^ at << 3).next_u64().to_le_bytes());
        let (_, bytes) =
            *self.word.insert(self.word.filter(|word| word.0 == at).unwrap_or_else(fresh));
        bytes[(offset % 8) as usize]
    }
}

struct Run {
    world: World,
    /// What packets meet changes all the time.
    storm: bool,
    /// Carriers that do not answer are closed.
    gives_up: bool,
    window_first: u64,
    rng: Rng,
    now: Moment,
    ends: [End; 2],
    lines: Vec<Line>,
    to_open: [u64; 2],
    outcome: Outcome,
}

#[cfg_attr(not(feature = "sabotage"), expect(unused_mut, reason = "there is nothing to switch"))]
fn session(settings: Settings, broken: Option<Rule>) -> Session {
    let mut session = Session::new(settings);
    match broken {
        None => {}
        #[cfg(feature = "sabotage")]
        Some(rule) => session.break_rule(rule),
        #[cfg(not(feature = "sabotage"))]
        Some(rule) => panic!("{rule:?} cannot be switched off in this build"),
    }
    session
}

/// Runs a world to its end.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn run(world: World) -> Result<Outcome, String> {
    run_in(world, false)
}

/// Runs a world in which what packets meet changes all the time, and then no more.
///
/// # Errors
/// What is wrong, in words.
#[allow(dead_code, reason = "only the swarm has storms")]
pub(crate) fn run_in_storm(world: World) -> Result<Outcome, String> {
    run_in(world, true)
}

fn run_in(world: World, storm: bool) -> Result<Outcome, String> {
    let mut rng = Rng::new(world.seed);
    // A storm takes long enough without windows of a packet.
    let window_first = (1 << (10 + rng.below(7))).max(if storm { WINDOW_IN_STORM } else { 0 });
    let memory = world.memory;
    let settings = |role| Settings { role, window_first, memory, flows_max: 1000 };
    let end = |role| End {
        session: session(settings(role), world.broken),
        apps: BTreeMap::new(),
        over: Over::default(),
        said: BTreeMap::new(),
    };
    let gives_up = !storm || rng.chance(500);
    let mut run = Run {
        world,
        storm,
        gives_up,
        window_first,
        rng,
        now: Moment(1_000_000_000),
        ends: [end(Role::Initiator), end(Role::Responder)],
        lines: Vec::new(),
        to_open: [world.flows; 2],
        outcome: Outcome::default(),
    };
    run.pass()?;
    for line in &run.lines {
        for (end, slot) in run.ends.iter().zip(line.slots) {
            let report = slot.and_then(|slot| end.session.carrier(slot));
            run.outcome.resent += report.map_or(0, |report| report.resent);
        }
    }
    let [a, b] = &run.ends;
    run.outcome.refused = a.session.refused() + b.session.refused();
    run.outcome.closed = a.over.closed + b.over.closed;
    run.outcome.reset = a.over.reset + b.over.reset + a.over.by_us + b.over.by_us;
    Ok(run.outcome)
}

impl Run {
    /// Time passes until everything is over.
    fn pass(&mut self) -> Result<(), String> {
        let start = self.now;
        let until = if self.storm { STORM_UNTIL } else { FAULTS_UNTIL };
        loop {
            let since = self.now.since(start);
            if self.storm && since == until {
                self.calm_down();
            }
            self.step(since < until)?;
            if since >= until && self.is_over() {
                return Ok(());
            }
            if since > OVER_BY {
                return Err(format!("not over after {since:?}: {}", self.what_hangs()));
            }
            self.now = self.now + STEP;
        }
    }

    fn step(&mut self, faults: bool) -> Result<(), String> {
        self.keep_lines_open();
        if faults {
            self.do_harm();
            self.winds_change();
        }
        self.arrive()?;
        for at in 0..2 {
            self.tick(at)?;
            self.open_flows(at, faults);
            self.applications(at);
            self.send(at)?;
            self.judge_credit(at)?;
        }
        self.close_left()
    }

    // ---- Carriers.

    fn keep_lines_open(&mut self) {
        let stays = |line: &&Line| !line.broken && !line.leaving;
        while self.lines.iter().filter(stays).count() < self.world.lines {
            let of_packets = self.lines.iter().filter(stays).filter(|line| line.packets).count();
            let packets = of_packets < self.world.packets;
            let mut pipe = || Pipe {
                on_the_way: VecDeque::new(),
                flying: BTreeMap::new(),
                left: 0,
                weather: Weather::new(&mut self.rng),
                delay: Span::from_us(self.rng.below(40_000)),
                bytes_per_ms: 500 << self.rng.below(8),
                free_at: self.now,
                silent: false,
            };
            let mut pipes = [pipe(), pipe()];
            if self.storm && packets {
                pipes.iter_mut().for_each(|pipe| pipe.gather(&mut self.rng));
            }
            let slots = [0, 1].map(|at: usize| {
                let session = &mut self.ends[at].session;
                Some(if packets {
                    session.packets_on_trial(self.now, HEADS, AROUND)
                } else {
                    session.carrier_up(self.now)
                })
            });
            let came = [BTreeSet::new(), BTreeSet::new()];
            let line = Line {
                slots,
                pipes,
                suspect_since: [None; 2],
                broken: false,
                packets,
                came,
                leaving: false,
                heard_left: [false; 2],
            };
            self.lines.push(line);
        }
    }

    fn do_harm(&mut self) {
        for at in 0..self.lines.len() {
            if self.lines[at].broken || !self.rng.chance(self.world.faults_per_mille) {
                continue;
            }
            let way = self.rng.below(2) as usize;
            match self.rng.below(7) {
                0 => self.break_line(at),
                6 => self.lead_by_records(at),
                5 => self.leave_line(at),
                1 => self.lines[at].pipes[way].silent = true,
                2 => {
                    self.lines[at].pipes.iter_mut().for_each(|pipe| pipe.silent = true);
                }
                3 => {
                    // A stall: nothing arrives for a while, then all of it.
                    let until = self.now + Span::from_ms(self.rng.below(900));
                    let pipe = &mut self.lines[at].pipes[way];
                    pipe.free_at = pipe.free_at.max(until);
                    for (arrival, _) in &mut pipe.on_the_way {
                        *arrival = (*arrival).max(until);
                    }
                    let flying = std::mem::take(&mut pipe.flying).into_iter();
                    pipe.flying =
                        flying.map(|((at, left), one)| ((at.max(until), left), one)).collect();
                }
                _ => self.lines[at].pipes[way].bytes_per_ms = 20 + self.rng.below(200),
            }
        }
    }

    /// One side leads its flows by records though packets get through, or by packets again.
    fn lead_by_records(&mut self, at: usize) {
        if self.lines[at].packets && self.world.lines > self.world.packets {
            let by_records = self.rng.chance(500);
            let end = self.rng.below(2) as usize;
            self.ends[end].session.set_by_records(self.now, by_records);
        }
    }

    /// Who dials lets go of a carrier.
    fn leave_line(&mut self, at: usize) {
        // An agent closes carriers of packets when it likes.
        let stays = self.storm && self.lines[at].packets;
        if let Some(slot) = self.lines[at].slots[0].filter(|_| !stays) {
            self.ends[0].session.retire(slot);
            self.lines[at].leaving = true;
        }
    }

    /// Carriers that do not answer carry nothing (T7). Who dials closes those that both have left.
    fn close_left(&mut self) -> Result<(), String> {
        for at in 0..self.lines.len() {
            let line = &self.lines[at];
            let reports = [0, 1].map(|end| self.ends[end].session.carrier(line.slots[end]?));
            if let Some(silent) = reports.iter().flatten().find(|one| one.suspect && one.flying > 0)
            {
                return Err(format!("{} bytes by one that does not answer", silent.flying));
            }
            let [Some(near), Some(far)] = reports else { continue };
            if line.broken || !near.left || !line.heard_left[0] {
                continue;
            }
            if near.flying + far.flying > 0 {
                return Err(format!("{} and {} bytes were left", near.flying, far.flying));
            }
            self.outcome.left += 1;
            self.lines[at].broken = true;
            (0..2).for_each(|end| self.carrier_down(at, end));
        }
        self.lines.retain(|line| line.slots.iter().any(Option::is_some));
        Ok(())
    }

    /// Some of what is on its way arrives, the rest never; one side learns of it before the other.
    fn break_line(&mut self, at: usize) {
        self.outcome.lost += 1;
        let line = &mut self.lines[at];
        line.broken = true;
        for pipe in &mut line.pipes {
            let arrive = self.rng.below(pipe.on_the_way.len() as u64 + 1) as usize;
            pipe.on_the_way.truncate(arrive);
            pipe.flying.retain(|_, _| self.rng.chance(500));
            pipe.silent = true;
        }
        let first = self.rng.below(2) as usize;
        self.carrier_down(at, first);
    }

    fn carrier_down(&mut self, line: usize, at: usize) {
        if let Some(slot) = self.lines[line].slots[at].take() {
            let report = self.ends[at].session.carrier(slot).expect("it is up");
            self.ends[at].session.carrier_down(self.now, slot);
            self.outcome.resent += report.resent;
            let pipe = &mut self.lines[line].pipes[1 - at];
            pipe.on_the_way.clear();
            pipe.flying.clear();
        }
    }

    fn arrive(&mut self) -> Result<(), String> {
        for line in 0..self.lines.len() {
            for to in 0..2 {
                self.arrive_at(line, to)?;
            }
            let broken = &self.lines[line];
            if broken.broken && broken.pipes.iter().all(Pipe::is_empty) {
                (0..2).for_each(|at| self.carrier_down(line, at));
            }
        }
        self.lines.retain(|line| !line.broken || line.slots.iter().any(Option::is_some));
        Ok(())
    }

    fn arrive_at(&mut self, line: usize, to: usize) -> Result<(), String> {
        loop {
            let found = &mut self.lines[line];
            let Some(slot) = found.slots[to] else { return Ok(()) };
            let Some((number, record)) = found.pipes[1 - to].arrived(self.now) else {
                return Ok(());
            };
            let mut heard = Heard::default();
            let end = &mut self.ends[to];
            let received = if let Some(number) = number {
                // What opens a packet twice is refused by its number.
                if !found.came[to].insert(number) {
                    continue;
                }
                let bytes = record.len() as u64 + u64::from(AROUND);
                end.session.packet(self.now, slot, (number, bytes), &record, &mut heard)
            } else {
                end.session.received(self.now, slot, &record, &mut heard)
            };
            received.map_err(|violation: Violation| format!("{violation:?}"))?;
            let (held, most) = (end.session.held(), self.world.memory / 8 * 7);
            if held > most + (self.world.memory / 8).max(64 << 10) {
                return Err(format!("{held} bytes are held, and there is room for {most}"));
            }
            self.hear(to, heard)?;
        }
    }

    fn send(&mut self, at: usize) -> Result<(), String> {
        // The carrier that is free first, as a driver would.
        let mut order: Vec<usize> = (0..self.lines.len()).collect();
        order.sort_by_key(|line| self.lines[*line].pipes[at].free_at);
        for line in order {
            if self.lines[line].packets {
                self.send_packets(at, line)?;
                continue;
            }
            for _ in 0..PIPE_RECORDS {
                let found = &self.lines[line];
                let Some(slot) = found.slots[at] else { break };
                let full = found.pipes[at].on_the_way.len() >= PIPE_RECORDS && !found.broken;
                if full || !self.ends[at].session.wants(self.now, slot) {
                    break;
                }
                let (mut record, mut heard) = (Vec::new(), Heard::default());
                let room = 1024 + self.rng.below(8000) as usize;
                let session = &mut self.ends[at].session;
                session.fill(self.now, slot, room, &mut record, &mut heard);
                if record.len() > room {
                    return Err(format!("a record of {} in a room of {room}", record.len()));
                }
                self.hear(at, heard)?;
                if record.is_empty() {
                    break;
                }
                if self.rng.chance(100) {
                    // A later version says more, in frames that may be skipped.
                    let more = [0x80 | self.rng.below(0x80) as u8, 3, 1, 2, 3];
                    record.splice(0..0, more);
                }
                let pipe = &mut self.lines[line].pipes[at];
                let took = Span(record.len() as u64 * 1_000_000 / pipe.bytes_per_ms);
                pipe.free_at = pipe.free_at.max(self.now) + took;
                let arrival = pipe.free_at + pipe.delay;
                if !pipe.silent {
                    pipe.on_the_way.push_back((arrival, record));
                }
            }
        }
        Ok(())
    }

    fn send_packets(&mut self, at: usize, line: usize) -> Result<(), String> {
        let Some(slot) = self.lines[line].slots[at] else { return Ok(()) };
        while self.ends[at].session.wants_packet(self.now, slot) {
            let (mut packet, mut heard) = (Vec::new(), Heard::default());
            let session = &mut self.ends[at].session;
            let within = (AROUND - HEADS) as usize;
            let (number, room) = if let Some(bytes) = session.question(self.now, slot) {
                let room = bytes - within;
                (Some(session.fill_question(self.now, slot, room, &mut packet)), room)
            } else {
                let most = session.datagram_bytes(slot) - within;
                // Not all of them are whole.
                let room = if self.rng.chance(500) {
                    most
                } else {
                    1024 + self.rng.below((most - 1024) as u64) as usize
                };
                let out = (&mut packet, &mut heard);
                (session.fill_packet(self.now, slot, room, out), room)
            };
            if packet.len() > room {
                return Err(format!("a packet of {} in a room of {room}", packet.len()));
            }
            self.hear(at, heard)?;
            let Some(number) = number else { break };
            let pipe = &mut self.lines[line].pipes[at];
            pipe.meet(self.now, (number, packet), &mut self.rng, &mut self.outcome.met);
            let datagram = self.lines[line].pipes[at].refused();
            if let Some(bytes) = datagram {
                self.ends[at].session.datagrams_refused(self.now, slot, bytes);
            }
        }
        Ok(())
    }

    fn tick(&mut self, at: usize) -> Result<(), String> {
        let due = self.ends[at].session.wake_at().is_some_and(|due| due <= self.now);
        if due {
            let mut heard = Heard::default();
            self.ends[at].session.tick(self.now, &mut heard);
            self.hear(at, heard)?;
        }
        for line in 0..self.lines.len() {
            let since = self.lines[line].suspect_since[at];
            let long = since.is_some_and(|since| self.now.since(since) > GIVE_UP_AFTER);
            if long && (self.gives_up || !self.lines[line].packets) {
                self.lines[line].suspect_since[at] = None;
                self.break_line(line);
            }
        }
        Ok(())
    }

    // ---- Applications.

    fn open_flows(&mut self, at: usize, faults: bool) {
        let often = if self.storm { 3 } else { 20 };
        while self.to_open[at] > 0 && (!faults || self.rng.chance(often)) {
            self.to_open[at] -= 1;
            let id = self.ends[at].session.open(self.now).expect("few flows");
            let seed = self.rng.next_u64();
            let storm = self.storm;
            let mut length =
                || 1u64 << if storm { 6 + self.rng.below(14) } else { self.rng.below(19) };
            let (there, back) = (length() + HEAD as u64, length() - 1);
            let mut app = self.app(seed, 0, there);
            app.to_read = Some(back);
            app.head = [seed, there, back].iter().flat_map(|word| word.to_le_bytes()).collect();
            self.ends[at].apps.insert(id, app);
        }
    }

    fn app(&mut self, seed: u64, writes: u64, to_write: u64) -> App {
        App {
            seed,
            writes,
            to_write,
            written: 0,
            finished: false,
            read: 0,
            to_read: None,
            heard_end: false,
            waiting: 0,
            window: 0,
            reads_per_step: 50 << self.rng.below(14),
            head: Vec::new(),
        }
    }

    fn applications(&mut self, at: usize) {
        let ids: Vec<FlowId> = self.ends[at].apps.keys().copied().collect();
        for id in ids {
            if self.rng.chance(1) && self.rng.chance(self.world.resets_per_mille) {
                let code = ResetCode::ALL[self.rng.below(ResetCode::ALL.len() as u64) as usize];
                self.ends[at].session.reset(id, code);
                self.ends[at].said.insert(id, code);
                self.ends[at].apps.remove(&id);
                self.ends[at].over.by_us += 1;
                continue;
            }
            self.write(at, id);
            let end = &mut self.ends[at];
            let app = end.apps.get_mut(&id).expect("it was there");
            if app.waiting > 0 {
                app.waiting -= app.waiting.min(app.reads_per_step);
                end.session.drained(self.now, id, app.waiting);
            }
        }
    }

    /// Who does not read is given no more credit (T5).
    fn judge_credit(&mut self, at: usize) -> Result<(), String> {
        let End { session, apps, .. } = &mut self.ends[at];
        for (id, app) in apps {
            let window = session.flow(*id).map_or(self.window_first, |report| report.window);
            app.window = app.window.max(window);
            if app.waiting > app.window {
                return Err(format!("{id:?} was given credit for {} unread bytes", app.waiting));
            }
        }
        Ok(())
    }

    fn write(&mut self, at: usize, id: FlowId) {
        let end = &mut self.ends[at];
        let app = end.apps.get_mut(&id).expect("it was there");
        let chunk = (1 + self.rng.below(20_000)).min(app.to_write - app.written);
        if chunk > 0 && self.rng.chance(500) {
            let mut pattern = Pattern::of(app.seed, app.writes);
            let stop = app.written + chunk;
            // In small parts: often there is no room for the first.
            while app.written < stop {
                let part = app.written..stop.min(app.written + 256);
                let of_head = |offset| app.head.get(offset as usize).filter(|_| app.writes == 0);
                let byte =
                    |offset| of_head(offset).copied().unwrap_or_else(|| pattern.byte(offset));
                let bytes: Vec<u8> = part.map(byte).collect();
                let took = end.session.write(id, &bytes);
                app.written += took as u64;
                if took < bytes.len() {
                    break;
                }
            }
        }
        // Who was opened learns from the head what to write.
        if app.head.len() == HEAD && app.written == app.to_write && !app.finished {
            app.finished = true;
            end.session.finish(id);
        }
    }

    /// What a session said, judged.
    fn hear(&mut self, at: usize, heard: Heard) -> Result<(), String> {
        let mut events = heard.events.into_iter().peekable();
        for (index, (id, bytes)) in heard.data.into_iter().enumerate() {
            while let Some((event, _)) = events.next_if(|(_, before)| *before <= index) {
                self.event(at, event)?;
            }
            self.data(at, id, &bytes)?;
        }
        events.try_for_each(|(event, _)| self.event(at, event))
    }

    fn data(&mut self, at: usize, id: FlowId, bytes: &[u8]) -> Result<(), String> {
        self.outcome.delivered += bytes.len() as u64;
        let app = self.ends[at].apps.get_mut(&id).ok_or(format!("bytes for no flow {id:?}"))?;
        let mut pattern = Pattern::of(app.seed, 1 - app.writes);
        for byte in bytes {
            if app.writes == 1 && app.head.len() < HEAD {
                app.head.push(*byte);
                if app.head.len() == HEAD {
                    let word = |at: usize| {
                        let word = app.head[8 * at..8 * at + 8].try_into().expect("8 bytes");
                        u64::from_le_bytes(word)
                    };
                    let (there, back) = (word(1), word(2));
                    (app.seed, app.to_read, app.to_write) = (word(0), Some(there), back);
                    pattern = Pattern::of(app.seed, 1 - app.writes);
                }
            } else if *byte != pattern.byte(app.read) {
                return Err(format!("{id:?} has a wrong byte at {}", app.read));
            }
            app.read += 1;
        }
        if app.heard_end || app.to_read.is_some_and(|all| app.read > all) {
            return Err(format!("{id:?} has bytes behind its end"));
        }
        app.waiting += bytes.len() as u64;
        Ok(())
    }

    fn event(&mut self, at: usize, event: Event) -> Result<(), String> {
        match event {
            Event::Opened(id) => {
                let app = self.app(0, 1, 0);
                self.ends[at].apps.insert(id, app);
            }
            Event::Finished(id) => {
                let app = self.ends[at].apps.get_mut(&id).ok_or("the end of no flow")?;
                if app.to_read != Some(app.read) || app.heard_end {
                    return Err(format!("{id:?} ended at {} of {:?}", app.read, app.to_read));
                }
                app.heard_end = true;
            }
            Event::Writable(_) => {}
            Event::Reset(id, code) => {
                self.ends[at].apps.remove(&id).ok_or("the reset of no flow")?;
                self.ends[at].over.reset += 1;
                let wanted = self.ends[1 - at].over.by_us + self.ends[1 - at].over.reset;
                if code == ResetCode::Gone && wanted == 0 {
                    return Err(format!("{id:?} is gone, and nobody reset anything"));
                }
                if self.ends[1 - at].said.get(&id).is_some_and(|said| *said != code) {
                    return Err(format!("{id:?} was reset by {code:?} and not what was said"));
                }
            }
            Event::Closed(id) => {
                let app = self.ends[at].apps.remove(&id).ok_or("the close of no flow")?;
                if !app.heard_end || !app.finished {
                    return Err(format!("{id:?} closed at {} of {:?}", app.read, app.to_read));
                }
                self.ends[at].over.closed += 1;
            }
            Event::Suspect(slot) => self.mark(at, slot, Some(self.now)),
            Event::Recovered(slot) => self.mark(at, slot, None),
            Event::Left(slot) => {
                let line = self.lines.iter_mut().find(|line| line.slots[at] == Some(slot));
                line.filter(|line| line.leaving).ok_or("nobody left")?.heard_left[at] = true;
            }
        }
        Ok(())
    }

    fn mark(&mut self, at: usize, slot: CarrierSlot, since: Option<Moment>) {
        let line = self.lines.iter_mut().find(|line| line.slots[at] == Some(slot));
        line.expect("it is up").suspect_since[at] = since;
    }

    // ---- The end.

    fn is_over(&self) -> bool {
        self.to_open == [0, 0]
            && self.ends.iter().all(|end| {
                end.apps.is_empty()
                    && end.session.flows().next().is_none()
                    && end.session.is_quiet()
            })
    }

    fn what_hangs(&self) -> String {
        let mut words = String::new();
        for (at, end) in self.ends.iter().enumerate() {
            for (id, app) in &end.apps {
                words += &format!(
                    "\n  {id:?} at {at}: wrote {}/{} {} read {}/{:?} {}: {:?}",
                    app.written,
                    app.to_write,
                    app.finished,
                    app.read,
                    app.to_read,
                    app.heard_end,
                    end.session.flow(*id)
                );
            }
        }
        for line in &self.lines {
            words += &format!("\n  a line {:?} broken {}", line.slots, line.broken);
            for ((end, slot), pipe) in self.ends.iter().zip(line.slots).zip(&line.pipes) {
                let packets = slot.and_then(|slot| end.session.packets_report(slot));
                words += &format!("\n    {packets:?} silent {} by {:?}", pipe.silent, pipe.weather);
            }
        }
        words
    }
}
