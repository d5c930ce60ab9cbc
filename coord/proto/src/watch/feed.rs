//! Feeds: the changes of the names of one shard, for whoever watches them.
//!
//! There is a feed for each filter that some shard has subscribed to. A change costs nothing while
//! there is none; otherwise a look-up for the name, and one for each of its beginnings that is as
//! long as some filter. It is written down once for each feed that covers it, and goes to each
//! subscribed shard once, however many watchers that has.
//!
//! Every change that a feed takes gets the next number of the shard. A feed takes one for itself
//! when it begins: so it knows all changes since, and whoever asks it to go on from an earlier
//! number hears that it cannot. It goes on for [`LINGER`] after its last subscriber has left.
//!
//! Invariants:
//! - F1  Numbers never repeat, and those of one feed grow.
//! - F2  A subscriber gets everything behind its place in the log, in order, or is told of the gap.
//! - F3  Not more than [`WINDOW`] bytes are on their way to a subscriber that has not said it took
//!   them, but for what goes ahead of an answer that it asked for.
//!
//! Bounds: those of `mod.rs`; constant time a change and feed; flushing is linear in what is new.
//! Not here: the names (`names`), mail (`serve`). Tests: `stories.rs`, `model.rs`.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::hash::BuildHasher;

use hashbrown::HashTable;
use ringway_core::limits::NAME_BYTES_MAX;
use ringway_core::limits::watch::{LINGER, LOG_BYTES_MAX, WINDOW};
use ringway_core::wire::Put;
use ringway_core::{Epoch, Moment, SessionId, ShardId, Token};

use crate::keyed::KeyedState;
use crate::sabotage::{Rule, Sabotage};
use crate::watch::event::{self, Change, EVENT_BYTES_MAX, Kind};
use crate::watch::log::{ENTRY_BYTES, Log, Progress};
use crate::watch::mails::{self, Asked};
use crate::watch::{Letters, Ref};

/// One message has not many more bytes of changes than this.
const MESSAGE_BYTES: usize = 32 * 1024;

/// A shard that has watchers.
struct Subscriber {
    shard: ShardId,
    topic: Ref,
    /// What it was sent.
    sent: Progress,
    /// Bytes that it has not said it took.
    in_flight: usize,
}

#[derive(Default)]
struct Feed {
    filter: Box<[u8]>,
    log: Log,
    subscribers: Vec<Subscriber>,
    dirty: bool,
    /// Since when it has no subscriber.
    unused: Option<Moment>,
    /// It stands in the queue of feeds that may be unused.
    queued: bool,
}

#[derive(Default)]
struct Place {
    generation: u32,
    feed: Option<Box<Feed>>,
}

/// Bytes of a feed beside its filter and its log: itself, its places in the indices, a subscriber,
/// and room for one change, so that no feed is without.
const FEED_BYTES: usize = size_of::<Feed>()
    + size_of::<Place>()
    + 4 * size_of::<Subscriber>()
    + ENTRY_BYTES
    + EVENT_BYTES_MAX
    + 64;

/// What a feed answers to who wants to go on from a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct From {
    /// The epoch of that number.
    pub epoch: Epoch,
    /// The number: everything behind it is wanted.
    pub sequence: u64,
    /// Bytes that the answer may have.
    pub most: usize,
}

/// All feeds of a shard.
pub struct Feeds {
    me: ShardId,
    epoch: Epoch,
    keys: KeyedState,
    sequence: u64,
    places: Vec<Place>,
    free: Vec<u32>,
    by_filter: HashTable<u32>,
    /// How many filters there are of each length.
    lengths: Box<[u32; NAME_BYTES_MAX + 1]>,
    live: usize,
    /// Feeds with something that was not sent.
    dirty: VecDeque<u32>,
    unused: VecDeque<(Moment, Ref)>,
    bytes: usize,
    bytes_max: usize,
    scratch: Vec<u8>,
    /// Changes that logs have dropped for want of room.
    pub evicted: u64,
    pub(crate) sabotage: Sabotage,
}

impl Feeds {
    /// None. `epoch` is that of this life; all feeds together have at most `bytes_max`.
    pub fn new((me, epoch): (ShardId, Epoch), keys: KeyedState, bytes_max: usize) -> Self {
        Self {
            me,
            epoch,
            keys,
            sequence: 0,
            places: Vec::new(),
            free: Vec::new(),
            by_filter: HashTable::new(),
            lengths: Box::new([0; NAME_BYTES_MAX + 1]),
            live: 0,
            dirty: VecDeque::new(),
            unused: VecDeque::new(),
            bytes: 0,
            bytes_max,
            scratch: Vec::new(),
            evicted: 0,
            sabotage: Sabotage::NONE,
        }
    }

    /// Whether nobody watches anything here: then a change costs nothing.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Feeds there are.
    pub const fn len(&self) -> usize {
        self.live
    }

    /// Bytes of all of them.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The latest number that a change got.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether some feed has something to send, and might.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Tells of a change. Call it in the step in which it happens.
    #[inline(never)]
    pub fn changed(&mut self, change: &Change<'_>) {
        let mut scratch = core::mem::take(&mut self.scratch);
        for (last, byte) in change.name.iter().enumerate() {
            let len = last + 1;
            let is_end = *byte == b'/' || len == change.name.len();
            if !is_end || self.lengths[len] == 0 {
                continue;
            }
            let Some(index) = self.find(&change.name[..len]) else { continue };
            if scratch.is_empty() {
                self.sequence += 1;
                event::encode(&mut scratch, (self.me, self.epoch, self.sequence), change);
            }
            self.add(index, &scratch);
        }
        scratch.clear();
        self.scratch = scratch;
    }

    /// Tells that a name is nobody's, and was a session's.
    #[cold]
    pub fn released(&mut self, name: &[u8], (session, token): (SessionId, Token)) {
        if self.sabotage.breaks(Rule::ReleasesAreTold) {
            return;
        }
        let kind = Kind::Released;
        self.changed(&Change { kind, session, token, extra: 0, shared: false, name });
    }

    /// Adds an encoded change with the latest number to a feed.
    fn add(&mut self, index: u32, event: &[u8]) {
        let feed = self.places[index as usize].feed.as_mut().expect("a feed that was found");
        let before = feed.log.bytes();
        let most = LOG_BYTES_MAX.min(before + self.bytes_max.saturating_sub(self.bytes));
        self.evicted += feed.log.push_within(&self.keys, self.sequence, event, most);
        self.bytes = self.bytes + feed.log.bytes() - before;
        if !feed.dirty && !feed.subscribers.is_empty() {
            feed.dirty = true;
            self.dirty.push_back(index);
        }
    }

    fn find(&self, filter: &[u8]) -> Option<u32> {
        let is_it = |index: &u32| self.filter_at(*index) == filter;
        self.by_filter.find(self.keys.hash_one(filter), is_it).copied()
    }

    fn filter_at(&self, index: u32) -> &[u8] {
        let feed = self.places[index as usize].feed.as_ref();
        &feed.expect("an index holds feeds that there are").filter
    }

    fn get_mut(&mut self, at: Ref) -> Option<&mut Feed> {
        let place = self.places.get_mut(at.index as usize)?;
        if place.generation == at.generation { place.feed.as_deref_mut() } else { None }
    }

    fn get(&self, at: Ref) -> Option<&Feed> {
        let place = self.places.get(at.index as usize)?;
        if place.generation == at.generation { place.feed.as_deref() } else { None }
    }

    /// The filter of a feed, unless it is gone.
    pub fn filter(&self, at: Ref) -> Option<&[u8]> {
        self.get(at).map(|feed| &*feed.filter)
    }

    /// A shard has watchers of a filter from now on. The answer says from which number on it hears
    /// everything, or that there is no room.
    pub fn open(&mut self, from: (ShardId, Ref), filter: &[u8], letters: &mut Letters) {
        let found = self.find(filter).or_else(|| self.begin(filter));
        let opened = found.map(|index| {
            let place = &mut self.places[index as usize];
            let generation = place.generation;
            let feed = place.feed.as_mut().expect("found or made");
            feed.unused = None;
            let cursor = feed.log.tail();
            feed.subscribers.retain(|subscriber| subscriber.shard != from.0);
            let (shard, topic) = from;
            let sent = Progress::through(cursor);
            feed.subscribers.push(Subscriber { shard, topic, sent, in_flight: 0 });
            (Ref { index, generation }, cursor)
        });
        mails::put_opened(letters.begin(from.0), from.1, opened);
    }

    /// Makes a feed, if there is room, or would be without those that nobody uses.
    fn begin(&mut self, filter: &[u8]) -> Option<u32> {
        let bytes = FEED_BYTES + filter.len();
        while self.bytes + bytes > self.bytes_max {
            let (_, at) = self.unused.pop_front()?;
            match self.get_mut(at) {
                Some(feed) if feed.unused.is_none() => feed.queued = false,
                _ => self.drop_feed(at),
            }
        }
        self.bytes += bytes;
        self.sequence += 1;
        let log = Log::starting_at(self.sequence);
        let feed = Feed { filter: filter.into(), log, ..Feed::default() };
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            (self.places.len() - 1) as u32
        });
        self.places[index as usize].feed = Some(Box::new(feed));
        self.live += 1;
        self.lengths[filter.len()] += 1;
        let (keys, places) = (&self.keys, &self.places);
        self.by_filter.insert_unique(keys.hash_one(filter), index, |index| {
            let feed = places[*index as usize].feed.as_ref();
            keys.hash_one(&*feed.expect("an index holds feeds that there are").filter)
        });
        Some(index)
    }

    /// Drops a feed that has no subscribers, if it is still there.
    fn drop_feed(&mut self, at: Ref) {
        if self.get(at).is_none() {
            return;
        }
        let place = &mut self.places[at.index as usize];
        let feed = place.feed.take().expect("there is one");
        place.generation = place.generation.wrapping_add(1);
        let hash = self.keys.hash_one(&*feed.filter);
        let found = self.by_filter.find_entry(hash, |index| *index == at.index);
        found.expect("a feed is in the index").remove();
        self.lengths[feed.filter.len()] -= 1;
        self.live -= 1;
        self.bytes -= FEED_BYTES + feed.filter.len() + feed.log.bytes();
        self.free.push(at.index);
    }

    /// A shard has no watcher of a filter any more.
    pub fn close(&mut self, now: Moment, from: (ShardId, Ref), at: Ref) {
        let Some(feed) = self.get_mut(at) else { return };
        let is_it = |one: &Subscriber| one.shard == from.0 && one.topic == from.1;
        feed.subscribers.retain(|one| !is_it(one));
        if feed.subscribers.is_empty() {
            feed.unused = Some(now);
            if !core::mem::replace(&mut feed.queued, true) {
                self.unused.push_back((now, at));
            }
        }
    }

    /// Drops feeds that nobody has used for long. Call it every turn.
    #[inline]
    pub fn expire(&mut self, now: Moment) {
        while let Some((since, at)) = self.unused.front().copied()
            && now.since(since) >= LINGER
        {
            self.unused.pop_front();
            let Some(feed) = self.get_mut(at) else { continue };
            match feed.unused {
                None => feed.queued = false,
                Some(unused) if now.since(unused) >= LINGER => self.drop_feed(at),
                // It was used meanwhile, and left again later.
                Some(_) => self.unused.push_back((now, at)),
            }
        }
    }

    /// A shard has taken so many bytes of a feed.
    pub fn acknowledged(&mut self, from: ShardId, at: Ref, bytes: usize) {
        let Some(feed) = self.get_mut(at) else { return };
        let tail = feed.log.tail();
        let Some(one) = feed.subscribers.iter_mut().find(|one| one.shard == from) else { return };
        one.in_flight = one.in_flight.saturating_sub(bytes);
        if one.sent.at < tail && !feed.dirty {
            feed.dirty = true;
            self.dirty.push_back(at.index);
        }
    }

    /// Writes what one feed has not sent yet to all its subscribers that have room for it. False
    /// if there is none left to do so for.
    pub fn flush_next(&mut self, letters: &mut Letters) -> bool {
        let Some(index) = self.dirty.pop_front() else { return false };
        let Some(feed) = self.places[index as usize].feed.as_mut() else { return true };
        feed.dirty = false;
        for one in &mut feed.subscribers {
            send(&feed.log, one, (WINDOW, self.sabotage), letters);
        }
        true
    }

    /// F3: writes all that a subscriber has not been sent. An answer that follows finds the other
    /// side up to this moment. The number up to which that is; `None` if it is gone.
    fn flush_to(&mut self, at: Ref, shard: ShardId, letters: &mut Letters) -> Option<u64> {
        let sabotage = self.sabotage;
        let feed = self.get_mut(at)?;
        let one = feed.subscribers.iter_mut().find(|one| one.shard == shard)?;
        send(&feed.log, one, (usize::MAX, sabotage), letters);
        Some(feed.log.tail())
    }

    /// Answers a watcher that goes on from a number: with what came behind that, or with a gap.
    pub fn resume(&mut self, to: (ShardId, Asked), at: Ref, from: From, letters: &mut Letters) {
        let through = self.flush_to(at, to.0, letters);
        let same_life = from.epoch == self.epoch || self.sabotage.breaks(Rule::GapIsSaid);
        let read = Progress::unsure(from.sequence);
        let log = self.get(at).map(|feed| &feed.log);
        let fitting = log.filter(|log| {
            let reaches = log.complete_from() <= from.sequence && from.sequence <= self.sequence;
            let bytes = || log.after(read).map(|found| found.event.0.len() + 2);
            same_life && reaches && bytes().sum::<usize>() <= from.most
        });
        let out = mails::begin_told(letters.begin(to.0), &to.1);
        out.put_u8(u8::from(fitting.is_none()));
        out.put_u64(through.unwrap_or(0));
        let fitting = fitting.filter(|_| !self.sabotage.breaks(Rule::ResumeTellsMissed));
        for found in fitting.into_iter().flat_map(|log| log.after(read)) {
            event::put_event(out, found.event.0, found.skipped);
        }
    }

    /// Starts the message that answers a watcher's wish for a page of names, behind all changes
    /// that happened before.
    pub fn begin_page<'a>(
        &mut self,
        to: (ShardId, Asked),
        at: Ref,
        letters: &'a mut Letters,
    ) -> &'a mut Vec<u8> {
        if !self.sabotage.breaks(Rule::SnapshotBehindItsPast) {
            self.flush_to(at, to.0, letters);
        }
        mails::begin_told(letters.begin(to.0), &to.1)
    }
}

/// F2: writes what a subscriber has not been sent, as long as less than `window` is on its way.
fn send(
    log: &Log,
    one: &mut Subscriber,
    (window, sabotage): (usize, Sabotage),
    letters: &mut Letters,
) {
    let said = !sabotage.breaks(Rule::SkippedIsSaid);
    while one.sent.at < log.tail() && one.in_flight < window {
        let gap = one.sent.at < log.complete_from();
        if gap {
            one.sent = Progress::through(log.complete_from());
        }
        let out = letters.begin(one.shard);
        let head = out.len();
        let through_at = mails::begin_events(out, one.topic, gap);
        let start = out.len();
        let mut rest = log.after(one.sent);
        one.sent = loop {
            let Some(found) = rest.next() else { break Progress::through(log.tail()) };
            event::put_event(out, found.event.0, found.skipped && said);
            if out.len() - start >= MESSAGE_BYTES {
                let mut sent = one.sent;
                sent.step_to(found.at);
                break sent;
            }
        };
        out[through_at..through_at + 8].copy_from_slice(&one.sent.at.to_le_bytes());
        one.in_flight += out.len() - head;
    }
}
