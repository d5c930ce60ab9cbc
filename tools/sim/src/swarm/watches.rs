//! Clients that watch names, and what they believe of them.
//!
//! A watcher applies what it is told, in the order in which it comes, and at rest that has to be
//! what is true. Whoever loses a connection goes on with a later watch from where it had got to.
//!
//! Invariants:
//! - E1  Nobody is told what it did not ask for: by a watch that there is, of a name that its
//!   filter covers, and of a kind that its mask has.
//! - E2  The numbers of one shard grow.
//! - E3  Tokens never go back: what is told of a name is told in the order in which it happened.
//! - E4  A token is told to be of the session that it is of.
//! - E5  At rest a watcher that was told of no gap, or of what there was behind it, knows who has
//!   each name, the version of what it said there, and how many wait.
//! - E6  Whoever was told of one owner and then of another, and not that something was skipped,
//!   has missed none in between.
//! - E7  There is a gap only for a reason: another life of the process, or a minute without
//!   anybody who watched, or more names than a log holds.
//!
//! Tests: `tests/sabotage.rs`; the machines alone: `watch/model.rs` of the coordinator.

use std::collections::BTreeMap;

use ringway_coord_proto::wire::{op, push, put_op, status};
use ringway_core::wire::{Put, Reader, Truncated};
use ringway_core::{SessionId, Token};

use super::client::Asked;
use super::history::{Entry, Seen, Sight, Verb};
use super::world::{Judged, World};
use crate::stream::Got;

/// Watches that one connection has, at most.
const WATCHES: usize = 3;
/// Who watched something so long ago can go on from there; the server promises a minute.
const LINGERS: u64 = 59_000_000_000;
/// Both kinds that say who has a name.
const OWNERS: u8 = 0b11;

/// How far each shard was heard: the epoch, and the number.
type Cursor = BTreeMap<u8, (u32, u64)>;

/// What a watcher knows of a name.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    /// Who has it, if that was told since the watch began or its last gap.
    owner: Option<Option<(SessionId, Token)>>,
    /// The token of the last event about its owner; `None` also behind a gap.
    last: Option<Token>,
    /// The newest token ever told of it, gaps or not.
    newest: Option<Token>,
    /// The version of its metadata, and under which token.
    version: Option<(Token, u32)>,
    waiting: Option<u32>,
    /// Something may have been known of its owner before, and was forgotten.
    unsure: bool,
    heard_at: u64,
}

/// A watch.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    client: usize,
    wire: usize,
    life: u32,
    /// A name or a beginning of names.
    filter: Vec<u8>,
    mask: u8,
    snapshot: bool,
    /// From where it goes on, by shard; and in which life of the process it had got there.
    resumes: Option<u32>,
    cursor: Cursor,
    call: u64,
    /// When its answer was read.
    answered: Option<u64>,
    /// The whole of a snapshot has come: what was not told of is nobody's.
    complete: bool,
    /// And it came by this watch, not by one before it.
    listed: bool,
    /// When UNWATCH was sent, and whether it was done.
    ending: bool,
    ended: bool,
    /// When its wire was lost.
    lost_at: Option<u64>,
    names: BTreeMap<usize, View>,
}

impl Watch {
    fn covers(&self, name: &[u8]) -> bool {
        match self.filter.last() {
            Some(b'/') => name.starts_with(&self.filter),
            _ => name == self.filter,
        }
    }

    /// What it knows of a name of which it is told something. Until it is answered nobody knows
    /// whether that follows on what was known before, so it counts as if it did not.
    fn view_of(&mut self, name: usize) -> &mut View {
        let unsure = self.resumes.is_some() && self.answered.is_none();
        let view = self.names.entry(name).or_default();
        if unsure && view.heard_at <= self.call {
            *view = View { newest: view.newest, unsure: true, ..View::default() };
        }
        view
    }

    /// It forgets what it knew before a moment; whether `listed` came since.
    fn forget(&mut self, before: u64, listed: bool) {
        (self.listed, self.complete) = (listed, listed);
        for view in self.names.values_mut().filter(|view| view.heard_at <= before) {
            *view = View { newest: view.newest, ..View::default() };
        }
    }
}

/// Two owners of which a watcher was told one after the other, as if there was none in between.
#[derive(Clone, Copy, Debug)]
struct Step {
    name: usize,
    from: Token,
    to: Token,
}

/// All watches of a run.
#[derive(Default)]
pub(crate) struct Watches {
    pub(crate) all: Vec<Watch>,
    steps: Vec<Step>,
    /// Who was told to have a name under a token.
    owners: BTreeMap<(usize, Token), SessionId>,
    /// What the observer saw at rest of who waits, and of metadata, and when it asked.
    waiters: BTreeMap<usize, (u64, u32)>,
    versions: BTreeMap<usize, (u64, Token, u32)>,
}

/// One event, as it is told.
struct Told {
    shard: u8,
    skipped: bool,
    shared: bool,
    kind: u8,
    epoch: u32,
    sequence: u64,
    session: SessionId,
    token: Token,
    name: usize,
    number: u32,
}

impl World {
    /// A watch of something, perhaps one that goes on where another was cut off; or its end.
    pub(crate) fn draw_watch(&mut self, client: usize, wire: usize) -> Option<Asked> {
        let mine = |watch: &Watch| watch.wire == wire && !watch.ended;
        let watches = &self.watches.all;
        let here: Vec<usize> = (0..watches.len()).filter(|at| mine(&watches[*at])).collect();
        if here.len() >= WATCHES || (!here.is_empty() && self.rng.chance(150)) {
            let at = here[self.rng.below(here.len() as u64) as usize];
            return (!self.watches.all[at].ending).then_some(Asked::Unwatch(at));
        }
        let lost = |watch: &Watch| watch.client == client && watch.lost_at.is_some();
        let lost = self.watches.all.iter().rposition(lost).filter(|_| self.rng.chance(800));
        let life = self.wires[wire].life;
        let watch = match lost {
            Some(at) => {
                let before = &mut self.watches.all[at];
                before.lost_at = None;
                let resumes = Some(before.life);
                let (answered, lost_at, listed, ended) = (None, None, false, false);
                let call = 0;
                Watch {
                    wire,
                    life,
                    resumes,
                    call,
                    answered,
                    lost_at,
                    listed,
                    ended,
                    ..before.clone()
                }
            }
            None => self.draw_new_watch(client, wire),
        };
        self.watches.all.push(watch);
        Some(Asked::Watch(self.watches.all.len() - 1))
    }

    fn draw_new_watch(&mut self, client: usize, wire: usize) -> Watch {
        let name = self.draw_name();
        let name = self.plan.names[name].as_bytes();
        let prefix = name.iter().rposition(|byte| *byte == b'/').map(|at| &name[..=at]);
        let filter = prefix.filter(|_| self.rng.chance(700)).unwrap_or(name).to_vec();
        let mask = if self.rng.chance(800) { 0x0F } else { 1 + self.rng.below(15) as u8 };
        Watch {
            client,
            wire,
            life: self.wires[wire].life,
            filter,
            mask,
            snapshot: self.rng.chance(600),
            resumes: None,
            cursor: BTreeMap::new(),
            call: 0,
            answered: None,
            complete: false,
            listed: false,
            ending: false,
            ended: false,
            lost_at: None,
            names: BTreeMap::new(),
        }
    }

    /// What the sending of WATCH or UNWATCH begins.
    pub(crate) fn before_watch(&mut self, asked: Asked) {
        match asked {
            Asked::Watch(at) => self.watches.all[at].call = self.now,
            Asked::Unwatch(at) => self.watches.all[at].ending = true,
            _ => {}
        }
    }

    /// WATCH or UNWATCH as it is sent.
    pub(crate) fn encode_watch(&self, asked: Asked, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        match asked {
            Asked::Watch(at) => {
                let watch = &self.watches.all[at];
                body.put_u32(at as u32);
                body.put_u8(watch.mask);
                body.put_u32(0);
                let mut flags = if watch.snapshot { op::WATCH_SNAPSHOT } else { 0 };
                if watch.resumes.is_some() {
                    flags |= op::WATCH_RESUME;
                    body.put_u8(watch.cursor.len() as u8);
                    for (shard, (epoch, sequence)) in &watch.cursor {
                        body.put_u8(*shard);
                        body.put_u32(*epoch);
                        body.put_u64(*sequence);
                    }
                }
                body.extend_from_slice(&watch.filter);
                put_op(out, op::WATCH, flags, &body);
            }
            Asked::Unwatch(at) => {
                body.put_u32(at as u32);
                put_op(out, op::UNWATCH, 0, &body);
            }
            other => unreachable!("{other:?} is no watch"),
        }
    }

    /// Whether a client may not watch what a watch would show it.
    pub(crate) fn is_watch_denied(&self, index: usize, at: usize) -> bool {
        let filter = std::str::from_utf8(&self.watches.all[at].filter).unwrap_or_default();
        !self.plan.gate.allows(self.wires[index].client, filter)
    }

    /// The answer to WATCH.
    pub(crate) fn watch_answered(&mut self, index: usize, at: usize, got: &Got) -> Judged {
        let now = self.now;
        let Got::Data(status::DATA, data) = got else {
            if got.status() == status::NOTOWNER && self.watches.all[at].ending {
                // Its end overtook its beginning.
                return Ok(());
            }
            self.watches.all[at].ended = true;
            let closing = self.wires[index].may_close && got.status() == status::BUSY;
            return if closing { Ok(()) } else { Err(got.words()) };
        };
        let read = read_cursor(data);
        let (resumed, cursor) =
            read.map_err(|Truncated| format!("WATCH answered {} bytes", data.len()))?;
        let watch = &mut self.watches.all[at];
        watch.answered = Some(now);
        self.tally.watches += 1;
        match (watch.resumes, resumed) {
            (None, 0) => {}
            (Some(life), 1) if life == watch.life => self.tally.went_on += 1,
            (Some(_), 2) => {
                // What this watch has told already came behind the gap.
                watch.forget(watch.call, watch.listed);
                self.tally.gaps += 1;
                self.check_gap(at)?;
            }
            _ => return Err(format!("E7: {resumed} for {:?}", self.watches.all[at])),
        }
        let watch = &mut self.watches.all[at];
        for (shard, place) in cursor {
            let known = watch.cursor.entry(shard).or_insert(place);
            *known = (*known).max(place);
        }
        Ok(())
    }

    /// E7: whether a watch has a reason to have missed something.
    fn check_gap(&self, at: usize) -> Judged {
        let watch = &self.watches.all[at];
        let crowded = self.plan.names.len() > self.plan.few;
        let since = self.watches.all[..at].iter().rev();
        let since = since.filter(|before| before.client == watch.client);
        let before = since.filter(|before| before.filter == watch.filter).find_map(|b| b.answered);
        let long = before.is_none_or(|before| before + LINGERS < watch.call);
        if crowded || long || watch.resumes != Some(watch.life) || watch.cursor.is_empty() {
            return Ok(());
        }
        Err(format!("E7: a gap for no reason: {watch:?}"))
    }

    /// Who may not see what a watch would show has none.
    pub(crate) fn watch_denied(&mut self, at: usize) {
        self.watches.all[at].ended = true;
    }

    /// The answer to UNWATCH.
    pub(crate) fn unwatch_answered(&mut self, index: usize, at: usize, got: &Got) -> Judged {
        let watch = &mut self.watches.all[at];
        match got.status() {
            status::OK if !watch.ended => watch.ended = true,
            status::NOTOWNER if watch.ended => {}
            status::BUSY if self.wires[index].may_close => {}
            _ => return Err(format!("E1: {} for {watch:?}", got.words())),
        }
        Ok(())
    }

    /// A connection is gone, and its watches with it.
    pub(crate) fn watches_lost(&mut self, index: usize) {
        let now = self.now;
        let here = self.watches.all.iter_mut();
        for watch in here.filter(|watch| watch.wire == index && !watch.ended) {
            watch.ended = true;
            // Whoever was not told all that there is begins anew.
            let knows = watch.answered.is_some() && (watch.complete || !watch.snapshot);
            watch.lost_at = (knows && !watch.ending).then_some(now);
        }
    }

    /// A watcher is told something.
    pub(crate) fn watch_told(&mut self, index: usize, code: u8, body: &[u8]) -> Judged {
        let mut body = Reader::new(body);
        let broken = |Truncated| format!("E1: notice {code} of a watch is cut off");
        let at = body.u32().map_err(broken)? as usize;
        let watch = self.watches.all.get(at).filter(|watch| watch.wire == index && !watch.ended);
        if watch.is_none_or(|watch| watch.call == 0) {
            return Err(format!("E1: notice {code} of what is not watched: {watch:?}"));
        }
        self.tally.events += 1;
        match code {
            push::EVENT => {
                let told = self.read_event(&mut body).map_err(broken)?;
                self.event_told(at, &told)
            }
            push::STATE => {
                body.u8().map_err(broken)?;
                let session = SessionId(body.u64().map_err(broken)?);
                let token = Token(body.u64().map_err(broken)?);
                let name = self.name_of(body.rest()).ok_or("E1: a name that nobody has")?;
                self.state_told(at, name, (session, token))
            }
            push::SNAPSHOT_END => {
                let watch = &mut self.watches.all[at];
                (watch.complete, watch.listed) = (true, true);
                if watch.snapshot { Ok(()) } else { Err(format!("E1: no snapshot: {watch:?}")) }
            }
            push::GAP => {
                self.watches.all[at].forget(u64::MAX, false);
                self.tally.gaps += 1;
                match self.plan.names.len() > self.plan.few {
                    true => Ok(()),
                    false => Err(format!("E7: a gap amid {:?}", self.watches.all[at])),
                }
            }
            _ => Err(format!("an unknown notice {code}")),
        }
    }

    fn read_event(&self, body: &mut Reader<'_>) -> Result<Told, Truncated> {
        let (shard, flags, kind) = (body.u8()?, body.u8()?, body.u8()?);
        let (epoch, sequence) = (body.u32()?, body.u64()?);
        let (session, token) = (SessionId(body.u64()?), Token(body.u64()?));
        let name = self.name_of(body.short_bytes()?).ok_or(Truncated)?;
        let counted = matches!(kind, push::KIND_CHANGED | push::KIND_WAITING);
        let number = if counted { body.u32()? } else { 0 };
        let (skipped, shared) = (flags & push::EVENT_SKIPPED != 0, flags & push::EVENT_SHARED != 0);
        let told =
            Told { shard, skipped, shared, kind, epoch, sequence, session, token, name, number };
        if body.is_empty() { Ok(told) } else { Err(Truncated) }
    }

    /// E1 to E3 of an event, and half of E6.
    fn event_told(&mut self, at: usize, told: &Told) -> Judged {
        let now = self.now;
        let exclusive = self.plan.is_exclusive(told.name);
        let Told { kind, name, token, session, .. } = *told;
        self.note(|world| {
            let name = &world.plan.names[name];
            let skipped = if told.skipped { " skipped" } else { "" };
            format!("watch {at}: {name} {kind} {session} {token} {}{skipped}", told.number)
        });
        let watch = &mut self.watches.all[at];
        if !watch.covers(self.plan.names[name].as_bytes())
            || !(1..=4).contains(&kind)
            || watch.mask & (1 << (kind - 1)) == 0
        {
            return Err(format!("E1: kind {kind} of name {name} by {watch:?}"));
        }
        let place = (told.epoch, told.sequence);
        if let Some(known) = watch.cursor.insert(told.shard, place).filter(|known| *known >= place)
        {
            return Err(format!("E2: {place:?} of shard {} behind {known:?}", told.shard));
        }
        let both = watch.mask & OWNERS == OWNERS;
        let view = watch.view_of(name);
        view.heard_at = now;
        match kind {
            push::KIND_CHANGED => view.version = Some((token, told.number)),
            push::KIND_WAITING => view.waiting = Some(told.number),
            _ => {
                let acquired = kind == push::KIND_ACQUIRED;
                let newest = view.newest;
                let back = newest.is_some_and(|newest| token.0 < newest.0 + u64::from(acquired));
                if back && (acquired || exclusive) {
                    return Err(format!(
                        "E3: {token} of name {name} behind {newest:?}, watch {at}"
                    ));
                }
                if let Some(from) = view.last.filter(|_| exclusive && both && !told.skipped) {
                    if !acquired && token != from {
                        return Err(format!("E6: {token} of name {name} ends behind {from}"));
                    }
                    self.watches.steps.push(Step { name, from, to: token });
                }
                view.owner = match (acquired, told.shared) {
                    (true, _) => Some(Some((session, token))),
                    (false, false) => Some(None),
                    (false, true) => None,
                };
                (view.last, view.newest) = (Some(token), newest.max(Some(token)));
                return self.owner_told(name, session, token);
            }
        }
        Ok(())
    }

    /// E1 and E3 of a name of a snapshot.
    fn state_told(&mut self, at: usize, name: usize, owner: (SessionId, Token)) -> Judged {
        let exclusive = self.plan.is_exclusive(name);
        self.note(|world| format!("watch {at}: {} is {owner:?}", world.plan.names[name]));
        let watch = &mut self.watches.all[at];
        if !watch.covers(self.plan.names[name].as_bytes()) || !watch.snapshot || watch.listed {
            return Err(format!("E1: name {name} of no snapshot: {watch:?}"));
        }
        let view = watch.view_of(name);
        if exclusive && view.newest.is_some_and(|newest| owner.1 < newest) {
            return Err(format!("E3: name {name} is {owner:?}, behind {:?}", view.newest));
        }
        view.heard_at = self.now;
        (view.owner, view.newest) = (Some(Some(owner)), view.newest.max(Some(owner.1)));
        view.last = Some(owner.1);
        self.owner_told(name, owner.0, owner.1)
    }

    fn owner_told(&mut self, name: usize, session: SessionId, token: Token) -> Judged {
        let known = *self.watches.owners.entry((name, token)).or_insert(session);
        match known == session {
            true => Ok(()),
            false => Err(format!("E4: {token} of name {name} is {known}'s and {session}'s")),
        }
    }

    /// E5: what watchers know is what an observer has seen.
    pub(crate) fn judge_watchers(&self, observer: usize) -> Judged {
        for watch in &self.watches.all {
            let wire = &self.wires[watch.wire];
            let settled = watch.answered.is_some() && (watch.complete || !watch.snapshot);
            let reads = wire.open && !wire.fin && !watch.ended && !watch.ending;
            if !settled || !reads || wire.down_end.is_some() {
                continue;
            }
            for (name, view) in &watch.names {
                self.judge_view(watch, *name, view, observer)?;
            }
            let covered = self.plan.names.iter().enumerate();
            let covered = covered.filter(|(_, name)| watch.covers(name.as_bytes()));
            for (name, _) in covered.filter(|(name, _)| !watch.names.contains_key(name)) {
                self.judge_view(watch, name, &View::default(), observer)?;
            }
        }
        Ok(())
    }

    fn judge_view(&self, watch: &Watch, name: usize, view: &View, observer: usize) -> Judged {
        let entries = self.oracle.entries.get(&name).into_iter().flatten();
        let seen = |entry: &&Entry| entry.client == observer && entry.verb == Verb::Query;
        let mut seen = entries.rev().filter(seen);
        let Some(entry) = seen.next().filter(|entry| view.heard_at < entry.call) else {
            return Ok(());
        };
        let wrong = |what: &str, is: String| {
            Err(format!("E5: {what} of name {name} is {is}, not {view:?}; {watch:?}"))
        };
        let waiting = view.waiting.filter(|_| watch.mask & 0b1000 != 0);
        if let Some(waiting) = waiting
            && let Some((asked, waiters)) = self.watches.waiters.get(&name)
            && view.heard_at < *asked
            && waiting != *waiters
        {
            return wrong("the queue", format!("{waiters} long"));
        }
        if let Some((token, version)) = view.version
            && let Some((asked, under, newest)) = self.watches.versions.get(&name)
            && view.heard_at < *asked
            && token == *under
            && version != *newest
        {
            return wrong("the version", format!("{newest}"));
        }
        if watch.mask & OWNERS != OWNERS || !self.plan.is_exclusive(name) {
            return Ok(());
        }
        let owner = match entry.seen {
            Seen::Owner(session, token) => Some((session, token)),
            Seen::Free => None,
            _ => return Ok(()),
        };
        match view.owner.or((watch.complete && !view.unsure).then_some(None)) {
            Some(known) if known != owner => wrong("the owner", format!("{owner:?}")),
            _ => Ok(()),
        }
    }

    /// E4 and E6, by all grants of a name.
    pub(crate) fn check_told(&self, name: usize, grants: &BTreeMap<Token, Sight>) -> Judged {
        let told = (name, Token(0))..=(name, Token(u64::MAX));
        for ((_, token), session) in self.watches.owners.range(told) {
            let grant = grants.get(token).filter(|grant| grant.session != *session);
            if let Some(grant) = grant {
                return Err(format!("E4: {token} is {}'s, not {session}'s", grant.session));
            }
        }
        for step in self.watches.steps.iter().filter(|step| step.name == name) {
            let between = step.from.0 + 1..step.to.0;
            let between = grants.keys().find(|token| between.contains(&token.0));
            if let Some(missed) = between {
                return Err(format!("E6: {missed} was missed, and nobody said so: {step:?}"));
            }
        }
        Ok(())
    }

    /// The observer learns what metadata and queues are like.
    pub(crate) fn observed(&mut self, call: u64, asked: Asked, got: &Got) {
        let Got::Data(status::DATA, data) = got else {
            if let Asked::Waiters(name) = asked {
                self.watches.waiters.insert(name, (call, 0));
            }
            return;
        };
        let mut body = Reader::new(data);
        match asked {
            Asked::Meta(name) => {
                if let (Ok(_), Ok(token), Ok(version)) = (body.u64(), body.u64(), body.u32()) {
                    self.watches.versions.insert(name, (call, Token(token), version));
                }
            }
            Asked::Waiters(name) => {
                let counts = (body.bytes(9), body.u32());
                if let (Ok(_), Ok(waiters)) = counts {
                    self.watches.waiters.insert(name, (call, waiters));
                }
            }
            _ => {}
        }
    }
}

/// What a WATCH is answered with.
fn read_cursor(data: &[u8]) -> Result<(u8, Cursor), Truncated> {
    let mut body = Reader::new(data);
    let (resumed, count) = (body.u8()?, body.u8()?);
    let mut cursor = BTreeMap::new();
    for _ in 0..count {
        cursor.insert(body.u8()?, (body.u32()?, body.u64()?));
    }
    if body.is_empty() { Ok((resumed, cursor)) } else { Err(Truncated) }
}
