//! Topics: the watchers of one shard's connections.
//!
//! There is a topic for each filter that some connection of this shard watches. It subscribes to
//! the feeds of all shards that may have such names, writes down what they tell in one log, in the
//! order in which it comes, and hands that to its watchers. A watcher is a place in that log: it
//! costs a few dozen bytes, whatever it has not read yet.
//!
//! The hard case is many watchers of one name, some of which do not read. Each change starts a
//! *round* over the watchers of its topic, a slice a turn, and topics take turns. A watcher with
//! more than its budget unread is passed over until its connection has drained. Then it goes on
//! from its place, or hears `GAP` if the log begins behind that.
//!
//! A watcher *starts* when all feeds of its topic have answered. One that resumes asks each feed
//! for what it has missed, and is told nothing else until all have answered. One that wants a
//! snapshot is told changes from its start on; it asks for one page of names after the other, each
//! when there is room, and is told everything that came before a page ahead of it.
//!
//! Invariants:
//! - T1  A watcher is told of each change behind its start, or of a later one of the same name and
//!   class, or of a gap.
//! - T2  What `held` counts is somebody's who still wants the log; otherwise a round ends with it
//!   empty.
//! - T3  Each question to a feed gets one answer; an answer with another nonce is nobody's.
//! - T4  Each `WATCH` is answered once, also if its connection has gone.
//!
//! Bounds: those of `mod.rs`. A slice looks at [`WATCHERS_PER_TURN`] watchers.
//! Not here: notices in bytes (`event`), mail and connections (`serve`).
//! Tests: `stories.rs`, `model.rs`.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::hash::BuildHasher;

use hashbrown::HashTable;
use ringway_core::wire::{Put, Reader, Truncated};
use ringway_core::{ConnId, Epoch, SessionId, ShardId, Token};

use crate::keyed::KeyedState;
use crate::outcome::Answer;
use crate::placement::SlotMap;
use crate::sessions::Ticket;
use crate::watch::event::{MASK_ALL, Notices, next_event};
use crate::watch::feed::From;
use crate::watch::log::{Log, Progress};
use crate::watch::mails::{self, Asked, What};
use crate::watch::{
    BYTES_PER_TURN, LOG_BYTES_MAX, Letters, Ref, SNAPSHOTS_MAX, WATCHERS_PER_TURN,
    WATCHES_PER_CONN_MAX, WINDOW, is_prefix, shards, sources,
};
use crate::wire::status;

/// Watchers of one topic that are looked at before it is another's turn.
const SLICE: usize = 64;

/// What the answer to a `WATCH` begins with.
const FRESH: u8 = 0;
const RESUMED: u8 = 1;
const RESUMED_WITH_GAP: u8 = 2;

/// The connections, as a topic needs them.
pub trait Outlet {
    /// Bytes that a watch with this budget may write to a connection; zero if more is unread.
    fn room(&mut self, conn: ConnId, budget: u32) -> usize;
    /// Calls [`Topics::drained`] once that has been read.
    fn await_drain(&mut self, conn: ConnId);
    /// Where a watch of a connection writes what it tells of a filter.
    fn notices<'a>(&'a mut self, conn: ConnId, watch: u32, filter: &'a [u8]) -> Notices<'a>;
}

/// A `WATCH`, checked.
pub struct Wish<'a> {
    /// Who waits for the answer.
    pub ticket: Ticket,
    /// The connection.
    pub conn: ConnId,
    /// The number that the client gave it. Without one it is known by its filter, of which a
    /// connection has one such watch.
    pub watch: Option<u32>,
    /// The kinds of changes that it wants.
    pub mask: u8,
    /// Bytes of its connection that may be unread.
    pub budget: u32,
    /// Whether it wants to hear first what there is.
    pub snapshot: bool,
    /// From where on it goes on, if it does.
    pub resume: Option<Vec<Cursor>>,
    /// The name or prefix.
    pub filter: &'a [u8],
}

/// How far somebody has heard one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The shard.
    pub shard: ShardId,
    /// The life that the number belongs to.
    pub epoch: Epoch,
    /// The number of the latest change.
    pub sequence: u64,
}

/// What watching has come to, for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Notices written.
    pub notices: u64,
    /// `GAP`s among them, and answers that say the same.
    pub gaps: u64,
    /// Times that a watcher was passed over because its connection did not read.
    pub passed_over: u64,
    /// Changes that logs have dropped for want of room.
    pub evicted: u64,
}

/// One watcher.
struct Watcher {
    conn: ConnId,
    watch: u32,
    budget: u32,
    /// What of the topic's log it was told.
    told: Progress,
    mask: u8,
    /// Whether its filter is a prefix.
    prefix: bool,
    /// Whether it wants one, at its start and behind a gap.
    snapshot: bool,
    /// It is passed over until its connection has drained.
    blocked: bool,
    /// It stands in the queue of those whose connection has.
    ready: bool,
    start: Option<Box<Start>>,
}

const _: () = assert!(size_of::<Watcher>() <= 48, "a few dozen bytes");

/// What a watcher still lacks.
struct Start {
    ticket: Option<Ticket>,
    /// Which of its questions is open.
    nonce: u32,
    resume: Option<Vec<Cursor>>,
    phase: Phase,
}

enum Phase {
    /// The feeds have not answered the topic.
    Opening,
    /// Feeds have not said what it missed: so many; up to where the others went; whether one had
    /// lost it.
    Resuming { missing: usize, through: Vec<u64>, gap: bool },
    /// A snapshot: of which source, from where on, whether the page was asked for, and whether it
    /// stands in the queue for that.
    Listing { source: usize, slot: u16, after: Vec<u8>, asked: bool, queued: bool },
}

/// A shard that tells this topic of changes.
#[derive(Clone, Copy)]
struct Source {
    feed: Option<Ref>,
    /// The number up to which it has told everything.
    through: u64,
    /// Bytes that it was not yet told were taken.
    taken: usize,
}

#[derive(Default)]
struct Topic {
    filter: Box<[u8]>,
    log: Log,
    watchers: Vec<Watcher>,
    /// One for each shard from `first` on.
    sources: Vec<Source>,
    first: usize,
    /// Sources that have not answered.
    opening: usize,
    full: bool,
    active: bool,
    /// The round: whom it has come to, and what was the end of the log when it began.
    scan: usize,
    round_to: u64,
    /// T2: watchers that are blocked or resume.
    held: usize,
}

#[derive(Default)]
struct Place {
    generation: u32,
    topic: Option<Box<Topic>>,
}

/// Bytes of a topic beside its filter, sources and log.
const TOPIC_BYTES: usize = size_of::<Topic>() + size_of::<Place>() + 64;
/// Bytes of a watcher with its place in the index.
const WATCHER_BYTES: usize = size_of::<Watcher>() + 40;

/// Where a watcher is.
#[derive(Clone, Copy)]
struct At {
    topic: u32,
    index: u32,
}

/// Watchers that want to hear what there is.
#[derive(Default)]
struct Listing {
    /// Who has a name: answered at once.
    names: VecDeque<(ConnId, u32)>,
    /// A page of a prefix.
    pages: VecDeque<(ConnId, u32)>,
}

/// What topics want done.
#[derive(Default)]
pub struct Out {
    /// Mail for feeds.
    pub letters: Letters,
    /// Answers to `WATCH`es.
    pub answers: Vec<(Ticket, Answer)>,
    /// What came of it all.
    pub counts: Counts,
    /// The last nonce given.
    nonce: u32,
}

/// All topics of a shard.
pub struct Topics {
    epoch: Epoch,
    map: SlotMap,
    keys: KeyedState,
    places: Vec<Place>,
    free: Vec<u32>,
    by_filter: HashTable<u32>,
    /// By connection and number.
    watches: BTreeMap<(u32, u32), At>,
    /// Topics with a round to do.
    active: VecDeque<u32>,
    /// Watchers whose connection has drained.
    ready: VecDeque<(ConnId, u32)>,
    listing: Listing,
    /// Pages of prefixes that were asked for.
    pages_out: usize,
    bytes: usize,
    bytes_max: usize,
    /// What is to be done outside.
    pub out: Out,
}

impl Topics {
    /// None. `epoch` is that of this life; all topics together have at most `bytes_max`.
    pub fn new(epoch: Epoch, map: SlotMap, keys: KeyedState, bytes_max: usize) -> Self {
        Self {
            epoch,
            map,
            keys,
            places: Vec::new(),
            free: Vec::new(),
            by_filter: HashTable::new(),
            watches: BTreeMap::new(),
            active: VecDeque::new(),
            ready: VecDeque::new(),
            listing: Listing::default(),
            pages_out: 0,
            bytes: 0,
            bytes_max,
            out: Out::default(),
        }
    }

    /// Watches there are.
    pub fn len(&self) -> usize {
        self.watches.len()
    }

    /// Watches of a connection.
    pub fn len_of(&self, conn: ConnId) -> usize {
        self.watches.range((conn.index, 0)..=(conn.index, u32::MAX)).count()
    }

    /// Whether nobody watches anything.
    pub fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    /// Bytes of all topics and watchers.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is something that [`Self::step`] could do now.
    pub fn is_active(&self) -> bool {
        let pages = !self.listing.pages.is_empty() && self.pages_out < SNAPSHOTS_MAX;
        let lists = pages || !self.listing.names.is_empty();
        !self.active.is_empty() || !self.ready.is_empty() || lists
    }

    /// Starts a watch. Its answer comes in [`Self::out`], unless it is refused at once.
    pub fn watch(&mut self, wish: Wish<'_>) -> Result<(), u8> {
        let found = self.find(wish.filter);
        let conn = wish.conn.index;
        // Watches without a number have that of their topic, which lasts as long as they do.
        let known = wish.watch.or(found).map(|watch| (conn, watch));
        if known.is_some_and(|key| self.watches.contains_key(&key)) {
            return Err(status::EXISTS);
        }
        if self.len_of(wish.conn) >= WATCHES_PER_CONN_MAX
            || self.bytes + WATCHER_BYTES > self.bytes_max
        {
            return Err(status::FULL);
        }
        let index = found.or_else(|| self.open(wish.filter)).ok_or(status::FULL)?;
        let watch = wish.watch.unwrap_or(index);
        let place = &mut self.places[index as usize];
        let at = Ref { index, generation: place.generation };
        let topic = place.topic.as_mut().expect("found or made");
        self.bytes += WATCHER_BYTES;
        let place = At { topic: index, index: topic.watchers.len() as u32 };
        self.watches.insert((conn, watch), place);
        let start = Start {
            ticket: Some(wish.ticket),
            nonce: 0,
            resume: wish.resume,
            phase: Phase::Opening,
        };
        topic.watchers.push(Watcher {
            conn: wish.conn,
            watch,
            budget: wish.budget,
            told: Progress::through(topic.log.tail()),
            mask: wish.mask,
            prefix: is_prefix(wish.filter),
            snapshot: wish.snapshot,
            blocked: false,
            ready: false,
            start: Some(Box::new(start)),
        });
        if topic.opening == 0 {
            let last = topic.watchers.len() - 1;
            topic.begin((at, last), self.epoch, &mut self.out, &mut self.listing);
        }
        Ok(())
    }

    /// Ends a watch; false if there is none.
    pub fn unwatch(&mut self, conn: ConnId, watch: u32) -> bool {
        let Some(at) = self.watches.get(&(conn.index, watch)).copied() else { return false };
        self.remove(at);
        true
    }

    /// Ends a watch without a number; false if there is none.
    pub fn unwatch_filter(&mut self, conn: ConnId, filter: &[u8]) -> bool {
        self.find(filter).is_some_and(|topic| self.unwatch(conn, topic))
    }

    /// A connection is gone, or hears nothing any more, and its watches with it.
    pub fn closed(&mut self, conn: ConnId) {
        let of_conn = (conn.index, 0)..=(conn.index, u32::MAX);
        while let Some((_, at)) = self.watches.range(of_conn.clone()).next() {
            self.remove(*at);
        }
    }

    /// Ends all watches that are not covered any more; they hear `GAP` and nothing behind it.
    pub fn retain(&mut self, covers: impl Fn(ConnId, &[u8]) -> bool, outlet: &mut impl Outlet) {
        let mut lost = Vec::new();
        for (key, at) in &self.watches {
            let topic = self.topic_at(at.topic);
            let watcher = &topic.watchers[at.index as usize];
            if !covers(watcher.conn, &topic.filter) {
                lost.push((key.1, watcher.conn, at.topic));
            }
        }
        for (watch, conn, topic) in lost {
            let mut notices = outlet.notices(conn, watch, &self.topic_at(topic).filter);
            notices.gap();
            notices.finish();
            self.unwatch(conn, watch);
        }
    }

    /// A connection has read what it had not.
    pub fn drained(&mut self, conn: ConnId) {
        let of_conn = (conn.index, 0)..=(conn.index, u32::MAX);
        for ((_, watch), at) in self.watches.range(of_conn) {
            let topic = self.places[at.topic as usize].topic.as_mut().expect("a watcher's topic");
            let watcher = &mut topic.watchers[at.index as usize];
            if watcher.blocked && !core::mem::replace(&mut watcher.ready, true) {
                self.ready.push_back((conn, *watch));
            }
        }
    }

    fn topic_at(&self, index: u32) -> &Topic {
        self.places[index as usize].topic.as_ref().expect("an index holds topics that there are")
    }

    fn find(&self, filter: &[u8]) -> Option<u32> {
        let is_it = |index: &u32| *self.topic_at(*index).filter == *filter;
        self.by_filter.find(self.keys.hash_one(filter), is_it).copied()
    }

    /// Makes a topic and subscribes it, if there is room.
    fn open(&mut self, filter: &[u8]) -> Option<u32> {
        let range = sources(filter, &self.map);
        let count = range.1 - range.0;
        let bytes = TOPIC_BYTES + filter.len() + count * size_of::<Source>();
        if self.bytes + bytes + WATCHER_BYTES > self.bytes_max {
            return None;
        }
        self.bytes += bytes;
        let topic = Topic {
            filter: filter.into(),
            sources: vec![Source { feed: None, through: 0, taken: 0 }; count],
            first: range.0,
            opening: count,
            ..Topic::default()
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[index as usize];
        place.topic = Some(Box::new(topic));
        let at = Ref { index, generation: place.generation };
        shards(range).for_each(|to| mails::put_open(self.out.letters.begin(to), at, filter));
        let (keys, places) = (&self.keys, &self.places);
        self.by_filter.insert_unique(keys.hash_one(filter), index, |index| {
            let topic = places[*index as usize].topic.as_ref();
            keys.hash_one(&*topic.expect("an index holds topics that there are").filter)
        });
        Some(index)
    }

    /// Closes a topic that nobody watches, once all its feeds have answered.
    fn close_if_unused(&mut self, index: u32) {
        let topic = self.topic_at(index);
        if !topic.watchers.is_empty() || topic.opening > 0 {
            return;
        }
        let place = &mut self.places[index as usize];
        let topic = place.topic.take().expect("it is there");
        let at = Ref { index, generation: place.generation };
        place.generation = place.generation.wrapping_add(1);
        for (number, source) in topic.sources.iter().enumerate() {
            if let Some(feed) = source.feed {
                let to = ShardId((topic.first + number) as u8);
                mails::put_close(self.out.letters.begin(to), at, feed);
            }
        }
        let hash = self.keys.hash_one(&*topic.filter);
        let found = self.by_filter.find_entry(hash, |found| *found == index);
        found.expect("a topic is in the index").remove();
        if topic.active {
            self.active.retain(|active| *active != index);
        }
        let sources = topic.sources.len() * size_of::<Source>();
        self.bytes -= TOPIC_BYTES + topic.filter.len() + sources + topic.log.bytes();
        self.free.push(index);
    }

    /// Ends a watch. Those that stand behind it in its topic keep their place in the round.
    fn remove(&mut self, at: At) {
        let topic = self.places[at.topic as usize].topic.as_mut().expect("a watcher's topic");
        let mut index = at.index as usize;
        if topic.active && index < topic.scan {
            // The last one moves to where it is still to be looked at.
            topic.scan -= 1;
            topic.watchers.swap(index, topic.scan);
            topic.tell_place(index, at.topic, &mut self.watches);
            index = topic.scan;
        }
        let watcher = topic.watchers.swap_remove(index);
        if index < topic.watchers.len() {
            topic.tell_place(index, at.topic, &mut self.watches);
        }
        topic.held -= usize::from(watcher.blocked) + usize::from(watcher.is_resuming());
        self.watches.remove(&(watcher.conn.index, watcher.watch));
        self.bytes -= WATCHER_BYTES;
        if let Some(ticket) = watcher.start.and_then(|start| start.ticket) {
            self.out.answers.push((ticket, Answer::plain(status::NOTOWNER)));
        }
        self.close_if_unused(at.topic);
    }

    /// A feed has answered a subscription.
    pub fn opened(&mut self, from: ShardId, at: Ref, opened: Option<(Ref, u64)>) {
        let Some(topic) = get_mut(&mut self.places, at) else { return };
        let number = from.index() - topic.first;
        let source = &mut topic.sources[number];
        topic.opening -= 1;
        match opened {
            Some((feed, sequence)) => (source.feed, source.through) = (Some(feed), sequence),
            None => topic.full = true,
        }
        if topic.opening > 0 {
            return;
        }
        if !topic.full {
            for index in 0..topic.watchers.len() {
                topic.begin((at, index), self.epoch, &mut self.out, &mut self.listing);
            }
            return self.close_if_unused(at.index);
        }
        if topic.watchers.is_empty() {
            return self.close_if_unused(at.index);
        }
        for _ in 0..topic.watchers.len() {
            let topic = get_mut(&mut self.places, at).expect("it has watchers");
            let index = topic.watchers.len() - 1;
            let start = topic.watchers[index].start.as_mut();
            let ticket = start.and_then(|start| start.ticket.take());
            self.out.answers.extend(ticket.map(|ticket| (ticket, Answer::plain(status::FULL))));
            self.remove(At { topic: at.index, index: index as u32 });
        }
    }

    /// A feed tells of changes, in a message of so many bytes.
    pub fn take_events(
        &mut self,
        from: ShardId,
        reader: &mut Reader<'_>,
        bytes: usize,
    ) -> Result<(), Truncated> {
        let at = mails::read_ref(reader)?;
        let (gap, through) = (reader.u8()? != 0, reader.u64()?);
        let Some(topic) = get_mut(&mut self.places, at) else { return Ok(()) };
        let before = topic.log.bytes();
        if gap {
            topic.log.lose(topic.log.tail() + 1);
        }
        let most = LOG_BYTES_MAX.min(before + self.bytes_max.saturating_sub(self.bytes));
        while !reader.is_empty() {
            let event = next_event(reader)?;
            let place = topic.log.tail() + 1;
            self.out.counts.evicted += topic.log.push_within(&self.keys, place, event.0, most);
        }
        self.bytes = self.bytes + topic.log.bytes() - before;
        let source = &mut topic.sources[from.index() - topic.first];
        source.through = through;
        source.taken += bytes;
        if source.taken > WINDOW / 4
            && let Some(feed) = source.feed
        {
            mails::put_taken(self.out.letters.begin(from), feed, source.taken);
            source.taken = 0;
        }
        if !topic.active {
            (topic.active, topic.scan, topic.round_to) = (true, 0, topic.log.tail());
            self.active.push_back(at.index);
        }
        Ok(())
    }

    /// A feed answers a watcher.
    pub fn take_told(
        &mut self,
        from: ShardId,
        reader: &mut Reader<'_>,
        outlet: &mut impl Outlet,
    ) -> Result<(), Truncated> {
        let asked = mails::asked(reader)?;
        self.pages_out -= usize::from(asked.what == What::Page);
        let Some(at) = self.watches.get(&(asked.conn.index, asked.watch)).copied() else {
            return Ok(());
        };
        let Some(topic) = get_mut(&mut self.places, asked.topic) else { return Ok(()) };
        let Some(watcher) = topic.watchers.get(at.index as usize) else { return Ok(()) };
        let nonce = watcher.start.as_ref().map(|start| start.nonce);
        let is_it = at.topic == asked.topic.index && watcher.conn == asked.conn;
        if !is_it || nonce != Some(asked.nonce) {
            return Ok(());
        }
        let mut visit = Visit {
            at: (asked.topic, at.index as usize),
            epoch: self.epoch,
            out: &mut self.out,
            listing: &mut self.listing,
        };
        match asked.what {
            What::Resume => topic.resumed(from, reader, &mut visit, outlet),
            What::Page | What::Name => topic.listed(from, reader, &mut visit, outlet),
        }
    }

    /// Tells watchers what there is to tell, as much as a turn has time for.
    pub fn step(&mut self, outlet: &mut impl Outlet) {
        let (mut visits, mut bytes) = (WATCHERS_PER_TURN, BYTES_PER_TURN);
        while visits > 0
            && bytes > 0
            && let Some(key) = self.ready.pop_front()
        {
            visits -= 1;
            bytes = bytes.saturating_sub(self.go_on(key, outlet));
        }
        while visits > 0
            && bytes > 0
            && let Some(index) = self.active.pop_front()
        {
            let most = visits.min(SLICE);
            let (seen, written) = self.slice(index, most, outlet);
            visits -= seen.max(1);
            bytes = bytes.saturating_sub(written);
        }
        self.ask_for_pages(outlet);
    }

    /// The watch of a connection, unless that is gone.
    fn find_watch(&mut self, (conn, watch): (ConnId, u32)) -> Option<(&mut Topic, Ref, usize)> {
        let at = self.watches.get(&(conn.index, watch)).copied()?;
        let place = &mut self.places[at.topic as usize];
        let to = Ref { index: at.topic, generation: place.generation };
        let topic = place.topic.as_mut().expect("a watcher's topic");
        let is_it = topic.watchers[at.index as usize].conn == conn;
        is_it.then_some((topic, to, at.index as usize))
    }

    /// A watcher goes on whose connection has drained.
    fn go_on(&mut self, key: (ConnId, u32), outlet: &mut impl Outlet) -> usize {
        let epoch = self.epoch;
        let (mut out, mut listing) =
            (core::mem::take(&mut self.out), core::mem::take(&mut self.listing));
        let mut written = 0;
        if let Some((topic, at, index)) = self.find_watch(key) {
            let watcher = &mut topic.watchers[index];
            if core::mem::take(&mut watcher.ready) && core::mem::take(&mut watcher.blocked) {
                topic.held -= 1;
            }
            let mut visit = Visit { at: (at, index), epoch, out: &mut out, listing: &mut listing };
            written = topic.deliver(&mut visit, false, outlet);
            topic.watchers[index].wait_for_page(visit.listing);
        }
        (self.out, self.listing) = (out, listing);
        written
    }

    /// A slice of a topic's round: how many watchers it looked at, and bytes it wrote.
    fn slice(&mut self, index: u32, most: usize, outlet: &mut impl Outlet) -> (usize, usize) {
        let place = &mut self.places[index as usize];
        let at = Ref { index, generation: place.generation };
        let topic = place.topic.as_mut().expect("an active topic is there");
        let (mut seen, mut written) = (0, 0);
        while seen < most && topic.scan < topic.watchers.len() {
            let (out, listing) = (&mut self.out, &mut self.listing);
            let mut visit = Visit { at: (at, topic.scan), epoch: self.epoch, out, listing };
            written += topic.deliver(&mut visit, false, outlet);
            topic.scan += 1;
            seen += 1;
        }
        if topic.scan < topic.watchers.len() {
            self.active.push_back(index);
        } else if topic.round_to < topic.log.tail() {
            (topic.scan, topic.round_to) = (0, topic.log.tail());
            self.active.push_back(index);
        } else {
            topic.active = false;
            if topic.held == 0 {
                self.bytes -= topic.log.bytes();
                topic.log.clear();
            }
        }
        (seen, written)
    }

    /// Asks for names, and for pages of as many snapshots as there may be at a time.
    fn ask_for_pages(&mut self, outlet: &mut impl Outlet) {
        for _ in 0..self.listing.names.len().min(WATCHERS_PER_TURN) {
            let Some(key) = self.listing.names.pop_front() else { break };
            self.ask_for_page(key, outlet);
        }
        for _ in 0..self.listing.pages.len() {
            if self.pages_out >= SNAPSHOTS_MAX {
                break;
            }
            let Some(key) = self.listing.pages.pop_front() else { break };
            self.pages_out += usize::from(self.ask_for_page(key, outlet));
        }
    }

    /// Asks for what a watcher wants to hear, if that still has room. True if it did.
    fn ask_for_page(&mut self, key: (ConnId, u32), outlet: &mut impl Outlet) -> bool {
        let mut out = core::mem::take(&mut self.out);
        let found = self.find_watch(key);
        let asked = found
            .is_some_and(|(topic, at, index)| topic.ask_for_page((at, index), &mut out, outlet));
        self.out = out;
        asked
    }
}

fn get_mut(places: &mut [Place], at: Ref) -> Option<&mut Topic> {
    let place = places.get_mut(at.index as usize)?;
    if place.generation == at.generation { place.topic.as_deref_mut() } else { None }
}

/// A look at one watcher of a topic, and where what comes of it goes.
struct Visit<'a> {
    at: (Ref, usize),
    epoch: Epoch,
    out: &'a mut Out,
    listing: &'a mut Listing,
}

impl Watcher {
    fn is_resuming(&self) -> bool {
        let phase = self.start.as_ref().map(|start| &start.phase);
        matches!(phase, Some(Phase::Resuming { .. }))
    }

    /// Whether it is told of changes as they come.
    fn is_told(&self) -> bool {
        let phase = self.start.as_ref().map(|start| &start.phase);
        matches!(phase, None | Some(Phase::Listing { .. }))
    }

    /// It wants to hear what there is, from the first shard on.
    fn begin_snapshot(&mut self, out: &mut Out, listing: &mut Listing) {
        out.nonce = out.nonce.wrapping_add(1);
        let mut queued = false;
        if let Some(start) = &self.start
            && let Phase::Listing { queued: before, .. } = &start.phase
        {
            queued = *before;
        }
        let phase = Phase::Listing { source: 0, slot: 0, after: Vec::new(), asked: false, queued };
        let start = Start { ticket: None, nonce: out.nonce, resume: None, phase };
        self.start = Some(Box::new(start));
        self.wait_for_page(listing);
    }

    /// It stands in the queue for a page if it wants one and its connection reads.
    fn wait_for_page(&mut self, listing: &mut Listing) {
        let blocked = self.blocked;
        if let Some(start) = &mut self.start
            && let Phase::Listing { asked: false, queued, .. } = &mut start.phase
            && !blocked
            && !core::mem::replace(queued, true)
        {
            let queue = if self.prefix { &mut listing.pages } else { &mut listing.names };
            queue.push_back((self.conn, self.watch));
        }
    }
}

impl Topic {
    fn tell_place(&self, index: usize, topic: u32, watches: &mut BTreeMap<(u32, u32), At>) {
        let watcher = &self.watchers[index];
        watches.insert((watcher.conn.index, watcher.watch), At { topic, index: index as u32 });
    }

    /// All feeds have answered: a watcher starts.
    fn begin(
        &mut self,
        (at, index): (Ref, usize),
        epoch: Epoch,
        out: &mut Out,
        listing: &mut Listing,
    ) {
        let watcher = &mut self.watchers[index];
        let Some(start) = watcher.start.as_mut() else { return };
        watcher.told = Progress::through(self.log.tail());
        let Some(cursors) = start.resume.take() else {
            let ticket = start.ticket.take();
            watcher.start = None;
            self.answer((ticket, epoch), FRESH, out);
            if self.watchers[index].snapshot {
                self.watchers[index].begin_snapshot(out, listing);
            }
            return;
        };
        let missing = self.sources.len();
        out.nonce = out.nonce.wrapping_add(1);
        start.nonce = out.nonce;
        start.phase = Phase::Resuming { missing, through: vec![0; missing], gap: false };
        self.held += 1;
        let (conn, watch, nonce) = (watcher.conn, watcher.watch, start.nonce);
        let asked = Asked { what: What::Resume, topic: at, conn, watch, nonce };
        let most = (watcher.budget as usize / missing).max(1024);
        for (number, source) in self.sources.iter().enumerate() {
            let to = ShardId((self.first + number) as u8);
            let cursor = cursors.iter().find(|cursor| cursor.shard == to);
            let from = cursor.map_or(From { epoch: Epoch(0), sequence: 0, most }, |cursor| From {
                epoch: cursor.epoch,
                sequence: cursor.sequence,
                most,
            });
            let feed = source.feed.expect("all have answered");
            mails::put_from(mails::begin_ask(out.letters.begin(to), &asked, feed), &from);
        }
    }

    /// Answers a `WATCH`: how it was resumed, and how far each shard was heard.
    fn answer(&self, (ticket, epoch): (Option<Ticket>, Epoch), resumed: u8, out: &mut Out) {
        let Some(ticket) = ticket else { return };
        let mut data = Vec::with_capacity(2 + 13 * self.sources.len());
        data.put_u8(resumed);
        data.put_u8(self.sources.len() as u8);
        for (number, source) in self.sources.iter().enumerate() {
            data.put_u8((self.first + number) as u8);
            data.put_u32(epoch.0);
            data.put_u64(source.through);
        }
        out.answers.push((ticket, Answer::data(data)));
    }

    /// Tells a watcher what is new to it, as much as there is room for, or all if it `must` be.
    /// Bytes that were written.
    fn deliver(&mut self, visit: &mut Visit<'_>, must: bool, outlet: &mut impl Outlet) -> usize {
        let (log, watcher) = (&self.log, &mut self.watchers[visit.at.1]);
        if watcher.told.at == log.tail() || !watcher.is_told() || (watcher.blocked && !must) {
            return 0;
        }
        let lost = watcher.told.at < log.complete_from();
        let mask = watcher.mask;
        let wants_any = || log.after(watcher.told).any(|found| found.event.is_wanted(mask));
        if !lost && mask != MASK_ALL && !wants_any() {
            watcher.told = Progress::through(log.tail());
            return 0;
        }
        let room = if must { usize::MAX } else { outlet.room(watcher.conn, watcher.budget) };
        let mut blocked = room == 0;
        let mut bytes = 0;
        if !blocked {
            let mut notices = outlet.notices(watcher.conn, watcher.watch, &self.filter);
            if lost {
                notices.gap();
                watcher.told = Progress::through(log.complete_from());
                visit.out.counts.gaps += 1;
            }
            for found in log.after(watcher.told) {
                if notices.bytes() >= room {
                    blocked = true;
                    break;
                }
                if found.event.is_wanted(mask) {
                    notices.event(found.event, found.skipped);
                }
                watcher.told.step_to(found.at);
            }
            let (written, count) = notices.finish();
            visit.out.counts.notices += count;
            bytes = written;
            if !blocked {
                watcher.told = Progress::through(log.tail());
            }
        }
        if blocked {
            visit.out.counts.passed_over += 1;
            self.held += 1;
            watcher.blocked = true;
            outlet.await_drain(watcher.conn);
        }
        if lost && bytes > 0 && watcher.snapshot {
            watcher.begin_snapshot(visit.out, visit.listing);
        }
        bytes
    }

    /// A feed has said what a watcher missed.
    fn resumed(
        &mut self,
        from: ShardId,
        reader: &mut Reader<'_>,
        visit: &mut Visit<'_>,
        outlet: &mut impl Outlet,
    ) -> Result<(), Truncated> {
        let watcher = &mut self.watchers[visit.at.1];
        let Some(start) = &mut watcher.start else { return Ok(()) };
        let Phase::Resuming { missing, through, gap } = &mut start.phase else { return Ok(()) };
        *gap |= reader.u8()? != 0;
        through[from.index() - self.first] = reader.u64()?;
        *missing -= 1;
        if !reader.is_empty() {
            let mut notices = outlet.notices(watcher.conn, watcher.watch, &self.filter);
            while !reader.is_empty() {
                let event = next_event(reader)?;
                if event.is_wanted(watcher.mask) {
                    notices.event(event, false);
                }
            }
            visit.out.counts.notices += notices.finish().1;
        }
        if *missing == 0 {
            let (through, gap) = (core::mem::take(through), *gap);
            self.end_resume((through, gap), visit, outlet);
        }
        Ok(())
    }

    /// All feeds have: the watcher goes on with the topic. What came into its log since it asked
    /// is told as far as the feeds have not.
    fn end_resume(
        &mut self,
        (through, gap): (Vec<u64>, bool),
        visit: &mut Visit<'_>,
        outlet: &mut impl Outlet,
    ) {
        let watcher = &mut self.watchers[visit.at.1];
        let gap = gap || watcher.told.at < self.log.complete_from();
        let ticket = watcher.start.take().and_then(|start| start.ticket);
        self.held -= 1;
        let first = self.first;
        let is_new = |shard: ShardId, number| through[shard.index() - first] < number;
        if !gap {
            let mut notices = outlet.notices(watcher.conn, watcher.watch, &self.filter);
            for found in self.log.after(watcher.told) {
                let event = found.event;
                if is_new(event.shard(), event.sequence()) && event.is_wanted(watcher.mask) {
                    notices.event(event, found.skipped);
                }
            }
            visit.out.counts.notices += notices.finish().1;
        }
        visit.out.counts.gaps += u64::from(gap);
        watcher.told = Progress::through(self.log.tail());
        let resumed = if gap { RESUMED_WITH_GAP } else { RESUMED };
        self.answer((ticket, visit.epoch), resumed, visit.out);
        let watcher = &mut self.watchers[visit.at.1];
        if gap && watcher.snapshot {
            watcher.begin_snapshot(visit.out, visit.listing);
        }
    }

    /// Asks for the next page of a watcher's snapshot, if its connection has room.
    fn ask_for_page(
        &mut self,
        (topic, index): (Ref, usize),
        out: &mut Out,
        outlet: &mut impl Outlet,
    ) -> bool {
        let watcher = &mut self.watchers[index];
        let Some(start) = &mut watcher.start else { return false };
        let Phase::Listing { source, slot, after, asked, queued } = &mut start.phase else {
            return false;
        };
        if !core::mem::take(queued) || *asked {
            return false;
        }
        if watcher.blocked || outlet.room(watcher.conn, watcher.budget) == 0 {
            if !core::mem::replace(&mut watcher.blocked, true) {
                self.held += 1;
                outlet.await_drain(watcher.conn);
            }
            return false;
        }
        *asked = true;
        let what = if watcher.prefix { What::Page } else { What::Name };
        let (conn, watch, nonce) = (watcher.conn, watcher.watch, start.nonce);
        let asked = Asked { what, topic, conn, watch, nonce };
        let to = ShardId((self.first + *source) as u8);
        let feed = self.sources[*source].feed.expect("all have answered");
        let letter = mails::begin_ask(out.letters.begin(to), &asked, feed);
        mails::put_page_from(letter, *slot, after);
        true
    }

    /// A page of a snapshot has come: it is told behind everything that happened before.
    fn listed(
        &mut self,
        from: ShardId,
        reader: &mut Reader<'_>,
        visit: &mut Visit<'_>,
        outlet: &mut impl Outlet,
    ) -> Result<(), Truncated> {
        let nonce = self.watchers[visit.at.1].start.as_ref().map(|start| start.nonce);
        self.deliver(visit, true, outlet);
        let watcher = &mut self.watchers[visit.at.1];
        let Some(start) = &mut watcher.start else { return Ok(()) };
        let Phase::Listing { source, slot, after, asked, .. } = &mut start.phase else {
            return Ok(());
        };
        if nonce != Some(start.nonce) {
            // There was a gap: it begins anew.
            return Ok(());
        }
        let done = reader.u8()? != 0;
        (*slot, *after, *asked) = (reader.u16()?, reader.short_bytes()?.into(), false);
        let mut notices = outlet.notices(watcher.conn, watcher.watch, &self.filter);
        while !reader.is_empty() {
            let owner = (SessionId(reader.u64()?), Token(reader.u64()?));
            notices.state(from, owner, reader.short_bytes()?);
        }
        let mut ended = false;
        if done {
            (*source, *slot, *after) = (*source + 1, 0, Vec::new());
            ended = *source == self.sources.len();
        }
        if ended {
            notices.snapshot_end();
            watcher.start = None;
        }
        visit.out.counts.notices += notices.finish().1;
        watcher.wait_for_page(visit.listing);
        Ok(())
    }
}
