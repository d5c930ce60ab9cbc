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
//! Bounds: those of `mod.rs`. A slice looks at [`WATCHERS_PER_TURN`] watchers; a watch that ends
//! costs logarithmic time, also if it is the last one of its topic.
//! Not here: one watcher at a time (`watcher`), notices in bytes (`event`), mail and connections
//! (`serve`).
//! Tests: `stories.rs`, `model.rs`.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::hash::BuildHasher;

use hashbrown::{HashMap, HashTable};
use ringway_core::limits::watch::{
    BYTES_PER_TURN, LOG_BYTES_MAX, SNAPSHOTS_MAX, WATCHERS_PER_TURN, WATCHES_PER_CONN_MAX, WINDOW,
};
use ringway_core::wire::{Reader, Truncated};
use ringway_core::{ConnId, Epoch, ShardId};

use crate::keyed::KeyedState;
use crate::outcome::Answer;
use crate::placement::SlotMap;
use crate::sessions::Ticket;
use crate::watch::event::{Notices, next_event};
use crate::watch::log::Progress;
use crate::watch::mails::{self, What};
use crate::watch::watcher::{Listing, Phase, Source, Start, Topic, Visit, Watcher};
use crate::watch::{Letters, Ref, is_prefix, shards, sources};
use crate::wire::status;

/// Watchers of one topic that are looked at before it is another's turn.
const SLICE: usize = 64;

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
    pub(super) nonce: u32,
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
    /// How many watches a connection has, for those that have any.
    of_conn: HashMap<u32, u32, KeyedState>,
    /// Topics with a round to do. One that was closed stays until it is its turn.
    active: VecDeque<Ref>,
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
            places: Vec::new(),
            free: Vec::new(),
            by_filter: HashTable::new(),
            watches: BTreeMap::new(),
            of_conn: HashMap::with_hasher(keys.clone()),
            active: VecDeque::new(),
            ready: VecDeque::new(),
            listing: Listing::default(),
            pages_out: 0,
            bytes: 0,
            bytes_max,
            keys,
            out: Out::default(),
        }
    }

    /// Watches there are.
    pub fn len(&self) -> usize {
        self.watches.len()
    }

    /// Watches of a connection.
    pub fn len_of(&self, conn: ConnId) -> usize {
        self.of_conn.get(&conn.index).map_or(0, |watches| *watches as usize)
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
        *self.of_conn.entry(conn).or_default() += 1;
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
            tell_place(topic, (at.topic, index), &mut self.watches);
            index = topic.scan;
        }
        let watcher = topic.watchers.swap_remove(index);
        if index < topic.watchers.len() {
            tell_place(topic, (at.topic, index), &mut self.watches);
        }
        topic.held -= usize::from(watcher.blocked) + usize::from(watcher.is_resuming());
        self.watches.remove(&(watcher.conn.index, watcher.watch));
        let left = self.of_conn.get_mut(&watcher.conn.index).expect("it had this one");
        *left -= 1;
        if *left == 0 {
            self.of_conn.remove(&watcher.conn.index);
        }
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
            self.active.push_back(at);
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
            && let Some(at) = self.active.pop_front()
        {
            let most = visits.min(SLICE);
            let Some((seen, written)) = self.slice(at, most, outlet) else { continue };
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

    /// A slice of a topic's round: how many watchers it looked at, and bytes it wrote. `None` if
    /// the topic was closed.
    fn slice(&mut self, at: Ref, most: usize, outlet: &mut impl Outlet) -> Option<(usize, usize)> {
        let topic = get_mut(&mut self.places, at)?;
        let (mut seen, mut written) = (0, 0);
        while seen < most && topic.scan < topic.watchers.len() {
            let (out, listing) = (&mut self.out, &mut self.listing);
            let mut visit = Visit { at: (at, topic.scan), epoch: self.epoch, out, listing };
            written += topic.deliver(&mut visit, false, outlet);
            topic.scan += 1;
            seen += 1;
        }
        if topic.scan < topic.watchers.len() {
            self.active.push_back(at);
        } else if topic.round_to < topic.log.tail() {
            (topic.scan, topic.round_to) = (0, topic.log.tail());
            self.active.push_back(at);
        } else {
            topic.active = false;
            if topic.held == 0 {
                self.bytes -= topic.log.bytes();
                topic.log.clear();
            }
        }
        Some((seen, written))
    }

    /// Asks for names, and for pages of as many snapshots as there may be at a time.
    fn ask_for_pages(&mut self, outlet: &mut impl Outlet) {
        for _ in 0..self.listing.names.len().min(WATCHERS_PER_TURN) {
            let Some(key) = self.listing.names.pop_front() else { break };
            self.ask_for_page(key, What::Name, outlet);
        }
        for _ in 0..self.listing.pages.len() {
            if self.pages_out >= SNAPSHOTS_MAX {
                break;
            }
            let Some(key) = self.listing.pages.pop_front() else { break };
            self.pages_out += usize::from(self.ask_for_page(key, What::Page, outlet));
        }
    }

    /// Asks for what a watcher wants to hear, if that still has room. True if it did.
    fn ask_for_page(
        &mut self,
        key: (ConnId, u32),
        queued_for: What,
        outlet: &mut impl Outlet,
    ) -> bool {
        let mut out = core::mem::take(&mut self.out);
        let found = self.find_watch(key);
        let asked = found.is_some_and(|(topic, at, index)| {
            topic.ask_for_page((at, index), queued_for, &mut out, outlet)
        });
        self.out = out;
        asked
    }
}

/// A watcher stands at another place of its topic.
fn tell_place(topic: &Topic, (at, index): (u32, usize), watches: &mut BTreeMap<(u32, u32), At>) {
    let watcher = &topic.watchers[index];
    watches.insert((watcher.conn.index, watcher.watch), At { topic: at, index: index as u32 });
}

fn get_mut(places: &mut [Place], at: Ref) -> Option<&mut Topic> {
    let place = places.get_mut(at.index as usize)?;
    if place.generation == at.generation { place.topic.as_deref_mut() } else { None }
}
