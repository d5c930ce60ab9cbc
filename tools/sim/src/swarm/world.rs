//! Events, the network, and the server's side of the world.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use ringway_core::rng::Rng;
use ringway_core::{Epoch, Moment, SessionId, Span, Token};

use super::client::{Asked, Client, Sent};
use super::gate::Gate;
use super::locks::{Deletion, RespStream};
use super::messages::Letters;
use super::notes::Notes;
use super::oracle::{Expiry, HOP, Oracle};
use super::plan::{Plan, Style, log_range};
use super::quota::Refused;
use super::waits::Waits;
use super::watches::Watches;
use super::{Breach, Options, Tally};
use crate::process::{Link, Process, Settings};
use crate::stream::Stream;

/// Something that happens at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A shard turns.
    Turn(u32, usize),
    /// A shard has a reason to turn now.
    Nudge(u32, usize),
    /// A client looks at its connections and decides.
    Think(usize),
    /// The state directory has written a lease, in ns.
    Written(u32, u64),
    /// The leases of earlier lives of the process are over.
    Settled(u32),
    /// That life of the process ends.
    Crash(u32),
    /// The process is started again.
    Start,
    /// A process that is stopping has had its time.
    Stopped(u32),
}

/// What outlives the process.
pub(crate) struct Disk {
    pub(crate) epoch: u32,
    /// The longest lease that may be running, of this life or of one before.
    pub(crate) longest: u64,
    /// The longest lease of this life.
    pub(crate) granted: u64,
    pub(crate) clean: bool,
}

/// A life of the process.
pub(crate) struct Server {
    pub(crate) process: Process<Gate>,
    pub(crate) gate: Gate,
    pub(crate) life: u32,
    pub(crate) grants_from: u64,
    pub(crate) stopping: bool,
    next_turn: Vec<u64>,
    stalled: Vec<u64>,
    wires: Vec<Vec<usize>>,
    /// When each waiting message was posted: by shard, then by sender.
    posted: Vec<Vec<VecDeque<u64>>>,
    expired: Vec<u64>,
    stop_told: Vec<bool>,
}

/// A connection, both ends and what is between them.
pub(crate) struct Wire {
    pub(crate) client: usize,
    pub(crate) shard: usize,
    pub(crate) life: u32,
    link: Option<Link>,
    up: VecDeque<(u64, Vec<u8>)>,
    up_end: Option<(u64, bool)>,
    /// Bytes that the client has sent, and that were handed to the shard.
    pub(crate) sent: u64,
    handed: u64,
    last_arrival: u64,
    pub(crate) down: VecDeque<(u64, Vec<u8>)>,
    pub(crate) down_end: Option<u64>,
    half_closed: bool,
    server_closed: bool,
    pub(crate) server_gone: bool,
    pub(crate) server_gone_at: u64,
    // The client's end.
    pub(crate) open: bool,
    pub(crate) fin: bool,
    pub(crate) slow_until: u64,
    pub(crate) slow_told: bool,
    /// When the server first saw that it is not read.
    pub(crate) slow_from: u64,
    /// When its client gave it up, or read of its end.
    pub(crate) lost_at: u64,
    pub(crate) stream: Speech,
    pub(crate) expected: VecDeque<Sent>,
    pub(crate) sequence: u64,
    pub(crate) bound: Option<SessionId>,
    pub(crate) implicit: bool,
    /// It has the lane of that session.
    pub(crate) laned: bool,
    /// When its client last read something.
    pub(crate) heard_at: u64,
    /// Notices for that session come here, since its client read so.
    pub(crate) receives: bool,
    pub(crate) bound_at: u64,
    /// When the client last asked for another session on it; the bare one ends by that.
    pub(crate) rebound_at: u64,
    pub(crate) may_close: bool,
    /// Something was sent elsewhere that may make the server close it.
    pub(crate) disturbed: bool,
    /// The owner that the last query of a RESP client has seen.
    pub(crate) owner_seen: Option<(SessionId, Token)>,
}

/// How a client reads what the server sends.
pub(crate) enum Speech {
    Native(Stream),
    Resp(RespStream),
}

impl Wire {
    /// Whether nothing is wrong with it, as far as its client knows and can have caused.
    pub(crate) fn is_sound(&self) -> bool {
        let going = self.open && !self.fin && self.down_end.is_none() && !self.server_gone;
        going && !self.may_close && !self.disturbed && self.slow_until == 0
    }

    /// Whether it may have another session, once what was asked on it is done.
    pub(crate) fn is_rebinding(&self) -> bool {
        let rebinds = |asked: &Asked| {
            matches!(asked, Asked::Open(..) | Asked::Attach(..) | Asked::Close(None, _))
        };
        self.expected.iter().any(|sent| sent.ops.iter().any(rebinds))
    }

    /// Where it stands, for messages.
    pub(crate) fn words(&self) -> String {
        let Self { shard, sent, handed, up_end, server_closed, half_closed, .. } = self;
        format!(
            "at shard {shard}: {handed} of {sent} bytes handed over, client's end {up_end:?}, half \
             closed {half_closed}, closed by the server {server_closed}"
        )
    }
}

/// Everything.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    pub(crate) plan: Plan,
    pub(crate) options: Options,
    pub(crate) server: Option<Server>,
    pub(crate) disk: Disk,
    pub(crate) wires: Vec<Wire>,
    pub(crate) clients: Vec<Client>,
    pub(crate) oracle: Oracle,
    pub(crate) tally: Tally,
    /// Faults have ceased.
    pub(crate) calm: bool,
    /// When they did.
    pub(crate) calm_from: u64,
    pub(crate) asked: u64,
    /// Openings whose answer was lost: their node, and the wire they were sent on.
    pub(crate) lost_openings: Vec<(u64, usize)>,
    /// Values of locks so far; each is used once.
    pub(crate) values: u64,
    /// Deletions by name, of whoever's lock.
    pub(crate) deletions: BTreeMap<usize, Vec<Deletion>>,
    /// Who waits, or waited, for what.
    pub(crate) waits: Waits,
    /// Names that were refused for a quota.
    pub(crate) refusals: Vec<Refused>,
    /// What was said about names.
    pub(crate) notes: Notes,
    /// What clients send each other.
    pub(crate) letters: Letters,
    /// What clients watch.
    pub(crate) watches: Watches,
    /// Which name is which.
    pub(crate) by_name: BTreeMap<Vec<u8>, usize>,
    /// The wires on which a node was opened.
    pub(crate) opened_on: BTreeMap<u64, Vec<usize>>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    seed: u64,
}

/// The result of a step: the error is the rule that was broken.
pub(crate) type Judged = Result<(), String>;

impl World {
    pub(crate) fn new(seed: u64, options: &Options) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng, options);
        let disk = Disk {
            epoch: 0,
            longest: plan.longest_ms * 1_000_000,
            granted: 0,
            clean: !plan.unclean,
        };
        let now = 1_000_000_000;
        let by_name = plan.names.iter().enumerate();
        let by_name = by_name.map(|(index, name)| (name.as_bytes().to_vec(), index)).collect();
        let clients = plan.clients.iter().map(|plan| Client::new(*plan, &mut rng)).collect();
        let mut world = Self {
            rng,
            now,
            plan,
            options: *options,
            server: None,
            disk,
            wires: Vec::new(),
            clients,
            oracle: Oracle::default(),
            tally: Tally::default(),
            calm: false,
            calm_from: 0,
            asked: 0,
            lost_openings: Vec::new(),
            values: 0,
            deletions: BTreeMap::new(),
            waits: Waits::default(),
            refusals: Vec::new(),
            notes: Notes::default(),
            letters: Letters::default(),
            watches: Watches::default(),
            by_name,
            opened_on: BTreeMap::new(),
            events: BinaryHeap::new(),
            order: 0,
            seed,
        };
        world.note(|world| format!("{:#?}", world.plan));
        world.start();
        for client in 0..world.clients.len() {
            // Some come when the others have settled in.
            let latest = if world.rng.chance(250) { 2_000_000_000 } else { world.plan.think_ns };
            let at = world.now + world.rng.below(latest);
            world.schedule(at, Event::Think(client));
        }
        world
    }

    /// Prints what happens, if asked to.
    pub(crate) fn note(&self, what: impl FnOnce(&Self) -> String) {
        if self.options.trace {
            let (s, us) = (self.now / 1_000_000_000, self.now / 1_000 % 1_000_000);
            println!("{s}.{us:06} {}", what(self));
        }
    }

    pub(crate) fn run(mut self) -> Result<Tally, String> {
        let judged = self.run_to_the_end();
        if judged.is_err() && self.options.trace {
            self.oracle.print_histories();
        }
        judged.map_err(|why| format!("at {} ns: {why}", self.now))?;
        self.tally.ms = self.now / 1_000_000 - 1_000;
        Ok(self.tally)
    }

    fn run_to_the_end(&mut self) -> Judged {
        for _ in 0..self.options.steps {
            if !self.step()? {
                break;
            }
        }
        self.finish()
    }

    /// The next event. False if there is none.
    pub(crate) fn step(&mut self) -> Result<bool, String> {
        let Some(Reverse((at, _, event))) = self.events.pop() else { return Ok(false) };
        self.now = self.now.max(at);
        match event {
            Event::Turn(life, shard) => self.turn(life, shard)?,
            Event::Nudge(life, shard) => {
                if self.life() == Some(life) {
                    self.turn_by(shard, self.now);
                }
            }
            Event::Think(client) => self.think(client)?,
            Event::Written(life, lease) => self.written(life, lease),
            Event::Settled(life) => self.settled(life),
            Event::Crash(life) if self.life() == Some(life) && !self.calm => self.crash(),
            Event::Crash(_) => {}
            Event::Start => self.start(),
            Event::Stopped(life) => self.stopped(life),
        }
        Ok(true)
    }

    /// When the next event is.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.events.peek().map(|Reverse((at, ..))| *at)
    }

    pub(crate) fn schedule(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    pub(crate) fn life(&self) -> Option<u32> {
        self.server.as_ref().map(|server| server.life)
    }

    fn start(&mut self) {
        if self.server.is_some() {
            return;
        }
        let disk = &mut self.disk;
        let unclean = !disk.clean;
        if self.options.breach != Some(Breach::EpochStays) || disk.epoch == 0 {
            disk.epoch += 1;
        }
        let waits = unclean && self.options.breach != Some(Breach::GrantsAtOnce);
        let grants_from = if waits { self.now + disk.longest } else { self.now };
        (disk.clean, disk.granted) = (false, 0);
        let shards = self.plan.shards;
        let settings = Settings {
            shards,
            epoch: Epoch(disk.epoch),
            now: Moment(self.now),
            grants_from: Moment(grants_from),
            lease_allowed: Span::ZERO,
            seed: self.seed.wrapping_mul(31) + self.tally.restarts,
            region_words: self.plan.region_words,
            side_bytes: self.plan.side_bytes,
            ..Settings::default()
        };
        let gate = self.plan.gate.renewed();
        let mut process = Process::with_access(&settings, || gate.clone());
        break_rules(&mut process, self.options.breach);
        let life = self.tally.restarts as u32 + 1;
        self.note(|_| {
            format!("start life {life} epoch {} grants from {grants_from}", settings.epoch.0)
        });
        self.server = Some(Server {
            process,
            gate,
            life,
            grants_from,
            stopping: false,
            next_turn: vec![u64::MAX; shards],
            stalled: vec![0; shards],
            wires: vec![Vec::new(); shards],
            posted: vec![vec![VecDeque::new(); shards + 1]; shards],
            expired: vec![0; shards],
            stop_told: vec![false; shards],
        });
        self.schedule(grants_from, Event::Settled(life));
        for shard in 0..shards {
            self.turn_by(shard, self.now);
        }
    }

    /// The leases of earlier lives are over: only this one's matter from now on.
    fn settled(&mut self, life: u32) {
        if self.life() != Some(life) {
            return;
        }
        self.disk.longest = self.disk.granted;
        if self.plan.life_ns > 0 {
            let at = self.now + self.rng.below(self.plan.life_ns);
            self.schedule(at, Event::Crash(life));
        }
    }

    /// The process dies, and with it everything it knew.
    pub(crate) fn crash(&mut self) {
        let Some(server) = self.server.take() else { return };
        self.note(|_| format!("crash of life {}", server.life));
        self.tally.restarts += 1;
        self.oracle.life_over(server.life, self.now);
        for wire in self.wires.iter_mut().filter(|wire| wire.life == server.life) {
            wire.down.retain(|(at, _)| *at <= self.now);
            wire.down_end = Some(wire.down_end.unwrap_or(u64::MAX).min(self.now));
            if !wire.server_gone {
                (wire.server_gone, wire.server_gone_at) = (true, self.now);
            }
            wire.may_close = true;
        }
        let pause = log_range(&mut self.rng, 1_000_000, 2_000_000_000);
        self.schedule(self.now + pause, Event::Start);
    }

    /// A graceful stop begins.
    fn stop(&mut self) {
        let Some(server) = self.server.as_mut().filter(|server| !server.stopping) else { return };
        server.stopping = true;
        let (life, shards) = (server.life, server.stop_told.len());
        self.note(|_| format!("stop of life {life}"));
        for index in 0..self.wires.len() {
            if self.wires[index].life == life {
                // A session that lives by its connection ends when the server closes it, whether or
                // not its client has read that: the documentation tells whom that does not suit.
                self.wires[index].may_close = true;
                self.rebinds(index);
            }
        }
        for shard in 0..shards {
            self.turn_by(shard, self.now + 100_000);
        }
        self.schedule(self.now + 200_000_000, Event::Stopped(life));
    }

    /// A stop is through; it was a clean one if no session was left.
    fn stopped(&mut self, life: u32) {
        let Some(server) = self.server.as_ref().filter(|server| server.life == life) else {
            return;
        };
        let shards = 0..server.process.shards();
        let mut shards = shards.map(|shard| server.process.shard(shard));
        let waited = self.now >= server.grants_from;
        let clean =
            shards.all(|shard| shard.may_stop() && shard.sessions().leased() == 0) && waited;
        if clean {
            (self.disk.clean, self.disk.longest) = (true, 0);
        }
        self.note(|_| format!("life {life} has stopped, clean: {clean}"));
        self.crash();
    }

    /// The state directory has written a lease: it may be granted.
    fn written(&mut self, life: u32, lease: u64) {
        let Some(server) = self.server.as_mut().filter(|server| server.life == life) else {
            return;
        };
        let disk = &mut self.disk;
        let lease = if self.plan.ladder { lease.next_multiple_of(1_000_000_000) } else { lease };
        disk.granted = disk.granted.max(lease);
        disk.longest = disk.longest.max(lease);
        let forgets = self.options.breach == Some(Breach::EarlierLifeAllows);
        server.process.allow_lease(Span(if forgets { disk.longest } else { disk.granted }));
        let control = server.process.shards();
        for shard in 0..control {
            server.posted[shard][control].push_back(self.now);
        }
        for shard in 0..control {
            let at = self.now + self.rng.below(300_000);
            self.turn_by(shard, at);
        }
    }

    /// A shard turns at that moment at the latest.
    pub(crate) fn turn_by(&mut self, shard: usize, at: u64) {
        let Some(server) = self.server.as_mut() else { return };
        if at < server.next_turn[shard] {
            server.next_turn[shard] = at;
            let life = server.life;
            self.schedule(at, Event::Turn(life, shard));
        }
    }

    /// Stops one shard, or all of them.
    fn stall(&mut self) {
        let faults = self.plan.faults;
        let (least, most) = self.plan.stall_ns;
        let span = log_range(&mut self.rng, least, most);
        let Some(server) = self.server.as_mut() else { return };
        let until = self.now + span;
        if self.rng.chance(faults.process_stall) {
            server.stalled.iter_mut().for_each(|stalled| *stalled = (*stalled).max(until));
            self.oracle.process_stalls.push((self.now, until));
            self.tally.stalls += 1;
            self.note(|_| format!("all shards stop for {} us", span / 1_000));
        } else if self.rng.chance(faults.shard_stall) {
            let shard = self.rng.below(server.stalled.len() as u64) as usize;
            server.stalled[shard] = server.stalled[shard].max(until);
            self.oracle.shard_stalls.push((shard, self.now, until));
            self.tally.stalls += 1;
            self.note(|_| format!("shard {shard} stops for {} us", span / 1_000));
        }
    }

    /// Nothing is stalled any more.
    pub(crate) fn wake_all(&mut self) {
        let now = self.now;
        let Some(server) = self.server.as_mut() else { return };
        server.stalled.iter_mut().for_each(|stalled| *stalled = (*stalled).min(now));
        for shard in 0..self.plan.shards {
            self.turn_by(shard, now);
        }
    }

    fn turn(&mut self, life: u32, shard: usize) -> Judged {
        let Some(server) = self.server.as_mut().filter(|server| server.life == life) else {
            return Ok(());
        };
        if server.next_turn[shard] > self.now {
            return Ok(());
        }
        if server.stalled[shard] > self.now {
            let at = server.stalled[shard] + self.rng.below(500_000);
            server.next_turn[shard] = at;
            self.schedule(at, Event::Turn(life, shard));
            return Ok(());
        }
        server.next_turn[shard] = u64::MAX;
        server.process.at(Moment(self.now));
        self.tally.turns += 1;
        let mail_left = self.feed(shard);
        let Some(server) = self.server.as_mut() else { return Ok(()) };
        if server.stopping && !server.stop_told[shard] {
            server.stop_told[shard] = true;
            server.process.stop(shard);
        }
        let before: Vec<usize> = self.mail_counts(shard);
        let Some(server) = self.server.as_mut() else { return Ok(()) };
        let busy = server.process.end_turn(shard);
        self.after_turn(shard, &before);
        self.collect(shard);
        let arrival = self.next_arrival(shard);
        if let Some(at) = arrival {
            let at = at.max(self.now) + self.rng.below(300_000);
            self.turn_by(shard, at);
        }
        if busy || mail_left {
            let at = self.now + self.rng.below(300_000);
            self.turn_by(shard, at);
        } else if let Some(wake) = self.server.as_ref().and_then(|s| s.process.wake_at(shard)) {
            let at = wake.0.max(self.now) + self.rng.below(1_000_000);
            self.turn_by(shard, at);
        }
        if self.rng.chance(self.plan.faults.spurious_turn) {
            let at = self.now + self.rng.below(3_000_000);
            self.turn_by(shard, at);
        }
        self.look_for_expiries(shard)?;
        self.process_faults();
        Ok(())
    }

    fn process_faults(&mut self) {
        if self.calm {
            return;
        }
        self.stall();
        if self.rng.chance(self.plan.faults.process_crash) && self.rng.chance(300) {
            self.crash();
        } else if self.rng.chance(self.plan.faults.clean_stop) && self.rng.chance(300) {
            self.stop();
        }
    }

    fn mail_counts(&self, from: usize) -> Vec<usize> {
        let Some(server) = self.server.as_ref() else { return Vec::new() };
        (0..self.plan.shards).map(|to| server.process.mail_waiting(to, from)).collect()
    }

    /// What a turn posted: its targets turn soon, its leases are written.
    fn after_turn(&mut self, shard: usize, before: &[usize]) {
        for (to, before) in before.iter().enumerate() {
            let Some(server) = self.server.as_mut() else { return };
            let posted = server.process.mail_waiting(to, shard) - before;
            if posted > 0 {
                server.posted[to][shard].extend(std::iter::repeat_n(self.now, posted));
                let at = self.now + self.rng.below(300_000);
                self.turn_by(to, at);
            }
        }
        while let Some(server) = self.server.as_mut()
            && let Some(lease) = server.process.next_raise()
        {
            let life = server.life;
            let at = self.now + self.rng.below(self.plan.disk_ns);
            self.schedule(at, Event::Written(life, lease.0));
        }
    }

    /// Hands a shard what has arrived for it, in any order that keeps each source's own. Returns
    /// whether mail is left.
    fn feed(&mut self, shard: usize) -> bool {
        let Some(server) = self.server.as_mut() else { return false };
        let mut wires = std::mem::take(&mut server.wires[shard]);
        let mut sources: Vec<(bool, usize)> = wires.iter().map(|wire| (true, *wire)).collect();
        let inboxes = &server.posted[shard];
        sources.extend((0..inboxes.len()).filter(|f| !inboxes[*f].is_empty()).map(|f| (false, f)));
        for at in (1..sources.len()).rev() {
            sources.swap(at, self.rng.below(at as u64 + 1) as usize);
        }
        let mut leftover = false;
        for (is_wire, index) in sources {
            match is_wire {
                true => self.feed_wire(index),
                false => leftover |= self.feed_mail(shard, index),
            }
        }
        wires.retain(|wire| !self.wires[*wire].server_gone);
        if let Some(server) = self.server.as_mut() {
            wires.append(&mut server.wires[shard]);
            server.wires[shard] = wires;
        }
        leftover
    }

    /// When the next bytes, or the end, of a connection that the shard reads arrive.
    fn next_arrival(&self, shard: usize) -> Option<u64> {
        let server = self.server.as_ref()?;
        let wires = server.wires[shard].iter().map(|wire| &self.wires[*wire]);
        let next = |wire: &Wire| {
            let read = !wire.link.is_some_and(|link| server.process.is_paused(link));
            let bytes = wire.up.front().filter(|_| read).map(|(at, _)| *at);
            let end = wire.up_end.filter(|(_, reset)| *reset || !wire.half_closed);
            let end = end.filter(|(_, reset)| *reset || (wire.up.is_empty() && read));
            bytes.into_iter().chain(end.map(|(at, _)| at)).min()
        };
        wires.filter(|wire| !wire.server_closed).filter_map(next).min()
    }

    fn feed_mail(&mut self, shard: usize, from: usize) -> bool {
        let late = self.rng.chance(self.plan.faults.late_mail);
        let Some(server) = self.server.as_mut() else { return false };
        let posted = &mut server.posted[shard][from];
        let some =
            if late { self.rng.below(posted.len() as u64 + 1) as usize } else { posted.len() };
        let overdue = posted.iter().take_while(|at| **at + HOP <= self.now).count();
        let count = some.max(overdue);
        posted.drain(..count);
        let left = !posted.is_empty();
        for _ in 0..count {
            server.process.deliver_mail(shard, from);
        }
        left
    }

    /// Hands over bytes of a wire, and its end.
    fn feed_wire(&mut self, index: usize) {
        let Some(server) = self.server.as_mut() else { return };
        let wire = &mut self.wires[index];
        let link = match wire.link {
            Some(link) => link,
            None => *wire.link.insert(server.process.connect(wire.shard)),
        };
        if wire.server_closed {
            server.process.disconnect(link);
            (wire.server_gone, wire.server_gone_at) = (true, self.now);
            self.oracle.wire_gone(index);
            return;
        }
        let slow = wire.slow_until > self.now;
        if slow != wire.slow_told {
            wire.slow_told = slow;
            wire.slow_from = self.now;
            server.process.set_backlog(link, if slow { 2 << 20 } else { 0 });
        }
        while let Some((at, _)) = wire.up.front()
            && *at <= self.now
            && !server.process.is_paused(link)
        {
            let (at, mut bytes) = wire.up.pop_front().unwrap_or_default();
            let cut = at + HOP > self.now && self.rng.chance(self.plan.faults.cut);
            if cut {
                let rest = bytes.split_off(self.rng.below(bytes.len() as u64 + 1) as usize);
                wire.up.push_front((at, rest));
            }
            wire.handed += bytes.len() as u64;
            server.process.send(link, &bytes);
            if cut {
                break;
            }
        }
        self.oracle.handed(index, wire.handed, self.now);
        if let Some((at, reset)) = wire.up_end
            && at <= self.now
            && (wire.up.is_empty() || (reset && self.rng.chance(500)))
        {
            if reset {
                server.process.disconnect(link);
                (wire.server_gone, wire.server_gone_at) = (true, self.now);
                self.oracle.wire_gone(index);
            } else if !wire.half_closed {
                wire.half_closed = true;
                server.process.end(link);
            }
        }
    }

    /// Where a connection stands, for messages.
    pub(crate) fn server_side(&self, index: usize) -> String {
        let process = self.server.as_ref().map(|server| &server.process);
        let link = self.wires[index].link;
        let paused = link.zip(process).map(|(link, process)| process.is_paused(link));
        format!("{}, reading paused: {paused:?}", self.wires[index].words())
    }

    /// Sends what the shard wrote.
    fn collect(&mut self, shard: usize) {
        let Some(server) = self.server.as_mut() else { return };
        let mut closed = false;
        for index in &server.wires[shard] {
            let wire = &mut self.wires[*index];
            let Some(link) = wire.link.filter(|_| !wire.server_closed) else { continue };
            let bytes = server.process.take(link);
            let latest = wire.down.back().map_or(0, |(at, _)| *at);
            let at = latest.max(self.now + self.rng.below(self.plan.latency_ns));
            if !bytes.is_empty() {
                wire.down.push_back((at, bytes));
            }
            if server.process.is_closed(link) {
                wire.server_closed = true;
                wire.down_end = Some(at);
                closed = true;
            }
        }
        if closed {
            let at = self.now + self.rng.below(1_000_000);
            self.turn_by(shard, at);
        }
    }

    /// When names were first granted in the life of a wire; `u64::MAX`: that life is over.
    pub(crate) fn grants_from(&self, index: usize) -> u64 {
        let life = self.wires[index].life;
        let same = self.server.as_ref().filter(|server| server.life == life);
        same.map_or(u64::MAX, |server| server.grants_from)
    }

    /// Whether the process has a session.
    pub(crate) fn is_live(&self, session: SessionId) -> bool {
        let home = ringway_coord_proto::SlotMap::new(self.plan.shards).shard_of(session.slot());
        let process = self.server.as_ref().map(|server| &server.process);
        process.is_some_and(|process| process.shard(home.index()).sessions().is_live(session))
    }

    /// O3 looks into the sessions: nobody outside sees an expiry.
    fn look_for_expiries(&mut self, shard: usize) -> Judged {
        let Some(server) = self.server.as_mut() else { return Ok(()) };
        let sessions = server.process.shard(shard).sessions();
        let expired = sessions.counts().ended[0];
        if expired == server.expired[shard] {
            return Ok(());
        }
        self.tally.expired += expired - server.expired[shard];
        server.expired[shard] = expired;
        let map = ringway_coord_proto::SlotMap::new(self.plan.shards);
        let here = |session: &SessionId| map.shard_of(session.slot()).index() == shard;
        let life = server.life;
        let gone: Vec<SessionId> = self
            .oracle
            .sessions
            .iter()
            .filter(|(session, facts)| facts.life == life && here(session))
            .map(|(session, _)| *session)
            .filter(|session| !sessions.is_live(*session))
            .collect();
        for session in gone {
            self.note(|_| format!("shard {shard}: {session} is gone"));
            self.oracle.expired(&Expiry { session, home: shard, now: self.now })?;
        }
        Ok(())
    }

    /// A client connects. `None`: nobody listens.
    pub(crate) fn connect(&mut self, client: usize) -> Option<usize> {
        let shard = self.rng.below(self.plan.shards as u64) as usize;
        let server = self.server.as_mut().filter(|server| !server.stopping)?;
        let index = self.wires.len();
        server.wires[shard].push(index);
        let resp = self.clients[client].plan.style == Style::Locks;
        let stream = match resp {
            true => Speech::Resp(RespStream::default()),
            false => Speech::Native(Stream::default()),
        };
        self.wires.push(Wire {
            client,
            shard,
            life: server.life,
            link: None,
            up: VecDeque::new(),
            up_end: None,
            sent: 0,
            handed: 0,
            last_arrival: 0,
            down: VecDeque::new(),
            down_end: None,
            half_closed: false,
            server_closed: false,
            server_gone: false,
            server_gone_at: 0,
            open: true,
            fin: false,
            slow_until: 0,
            slow_told: false,
            slow_from: u64::MAX,
            lost_at: u64::MAX,
            stream,
            owner_seen: None,
            expected: VecDeque::new(),
            sequence: 0,
            bound: None,
            implicit: false,
            laned: false,
            heard_at: 0,
            receives: false,
            bound_at: 0,
            rebound_at: u64::MAX,
            may_close: false,
            disturbed: false,
        });
        self.note(|_| format!("client {client} connects wire {index} to shard {shard}"));
        if !resp {
            self.put(index, &ringway_coord_proto::wire::Preface::OURS.encode());
        }
        if self.plan.gate.user_of(client).is_some() {
            let stamp = self.clients[client].clock(self.now);
            self.send_frame(index, vec![Asked::Auth], stamp);
        }
        Some(index)
    }

    /// A client's bytes go on their way, in pieces. Returns when the last of them arrives.
    pub(crate) fn put(&mut self, index: usize, bytes: &[u8]) -> u64 {
        let mut rest = bytes;
        while !rest.is_empty() {
            let cut = if self.rng.chance(self.plan.faults.cut) {
                1 + self.rng.below(rest.len() as u64) as usize
            } else {
                rest.len()
            };
            let (now, later) = rest.split_at(cut);
            rest = later;
            let delay = self.rng.below(self.plan.latency_ns);
            let wire = &mut self.wires[index];
            let at = wire.last_arrival.max(self.now + delay);
            wire.last_arrival = at;
            wire.sent += now.len() as u64;
            wire.up.push_back((at, now.to_vec()));
            let (shard, life) = (wire.shard, wire.life);
            if self.life() == Some(life) {
                let at = at + self.rng.below(300_000);
                self.turn_by(shard, at);
            }
        }
        self.wires[index].last_arrival
    }

    /// A client closes its end: half of it, or with a reset that may overtake what it sent.
    pub(crate) fn hang_up(&mut self, index: usize, reset: bool) {
        let at = self.now + self.rng.below(self.plan.latency_ns);
        let wire = &mut self.wires[index];
        let at = if reset { at } else { at.max(wire.last_arrival) };
        if reset {
            wire.open = false;
            self.tally.lost += 1;
        }
        wire.fin = true;
        wire.up_end = Some((at, reset));
        let (shard, life) = (wire.shard, wire.life);
        self.note(|_| format!("wire {index} is {}", if reset { "dropped" } else { "half-closed" }));
        if self.life() == Some(life) {
            self.turn_by(shard, at + 1);
        }
    }
}

/// Switches a rule of the coordinator off.
#[cfg(feature = "sabotage")]
fn break_rules(process: &mut Process<Gate>, breach: Option<Breach>) {
    if let Some(Breach::Rule(rule)) = breach {
        (0..process.shards()).for_each(|shard| process.shard_mut(shard).break_rule(rule));
    }
}

#[cfg(not(feature = "sabotage"))]
fn break_rules(_process: &mut Process<Gate>, breach: Option<Breach>) {
    let rule = matches!(breach, Some(Breach::Rule(_)));
    assert!(!rule, "build with `--features sabotage` to switch a rule off");
}
