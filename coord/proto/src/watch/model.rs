//! Both machines of some shards against what is true: changes, slow readers, connections that come
//! and go, resumes, snapshots and gaps, in random order with mail that takes its time.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use ringway_core::rng::Rng;
use ringway_core::wire::{Put, Reader};
use ringway_core::{ConnId, Epoch, Moment, SessionId, ShardId, Slot, Token};

use super::event::{Change, Event, Kind, Notices, SKIPPED};
use super::feed::Feeds;
use super::mails::{self, Asked, What};
use super::topic::{Cursor, Outlet, Topics, Wish};
use super::{Letters, Ref, is_prefix};
use crate::keyed::KeyedState;
use crate::mail;
use crate::outcome::Answer;
use crate::placement::SlotMap;
use crate::sessions::Ticket;
use crate::wire::{
    FRAME_HEADER_BYTES, FrameHeader, FrameWriter, KIND_PUSH, next_op, push, put_op, status,
};

const SHARDS: usize = 3;
const BUDGET: u32 = 600;
/// So that feeds without watchers end now and then.
const STEP_NS: u64 = 200_000_000;
/// Stands among the names of a page.
const MOMENT: &str = "(moment)";
/// What stands for the reply to a `WATCH` among the notices.
const ANSWER: u8 = 0xFE;
const FILTERS: [&str; 6] = ["a/", "a/b/", "a/b/1", "c", "{t}/", "a/3"];

fn names() -> Vec<String> {
    let few = ["c", "a/", "a/b/", "{t}/1", "{t}/2", "d"].map(String::from);
    let many = (0..12).flat_map(|i| [format!("a/{i}"), format!("a/b/{i}")]);
    few.into_iter().chain(many).collect()
}

type Owner = (SessionId, Token);

/// What is true of one name.
#[derive(Default)]
struct Truth {
    owner: Option<Owner>,
    token: u64,
    /// Since when who had it, and the number that this change got.
    owners: Vec<(u64, Option<Owner>, u64)>,
    /// The numbers of all changes, by class.
    sequences: BTreeMap<u8, Vec<u64>>,
}

/// What a client knows by one watch.
struct Watch {
    filter: &'static str,
    snapshot: bool,
    asked_at: u64,
    answered: bool,
    /// Changes since this moment are heard of, if it was answered.
    since: u64,
    owners: BTreeMap<String, Owner>,
    tokens: BTreeMap<String, u64>,
    heard: [u64; SHARDS],
    /// Of changes up to here it may have missed some, and need not be told.
    base: [u64; SHARDS],
    last: BTreeMap<(String, u8), u64>,
    /// It knows everything: since its last snapshot there was no gap.
    whole: bool,
    resumed_from: Option<[u64; SHARDS]>,
    /// When the latest page of each shard was read.
    pages: [u64; SHARDS],
    last_page: usize,
}

struct Client {
    shard: usize,
    conn: ConnId,
    unread: Vec<u8>,
    awaited: bool,
    /// Never reads before the end.
    stuck: bool,
    watches: BTreeMap<u32, Watch>,
}

struct Model {
    feeds: Vec<Feeds>,
    topics: Vec<Topics>,
    mail: Vec<Vec<VecDeque<Vec<u8>>>>,
    truth: BTreeMap<String, Truth>,
    clients: Vec<Client>,
    now: u64,
    rng: Rng,
    gaps: usize,
    resumes: [usize; 3],
    snapshots: usize,
    skips: usize,
}

struct Pipes<'a>(&'a mut [Client]);

impl Pipes<'_> {
    fn client(&mut self, conn: ConnId) -> &mut Client {
        let found = self.0.iter_mut().find(|client| client.conn == conn);
        found.expect("nothing is written to a connection that is gone")
    }
}

impl Outlet for Pipes<'_> {
    fn room(&mut self, conn: ConnId, budget: u32) -> usize {
        let unread = self.client(conn).unread.len();
        (budget as usize).saturating_sub(unread).max(usize::from(unread == 0))
    }
    fn await_drain(&mut self, conn: ConnId) {
        let client = self.client(conn);
        assert!(!client.unread.is_empty(), "nobody would say when it has drained");
        client.awaited = true;
    }
    fn notices<'a>(&'a mut self, conn: ConnId, watch: u32, _: &'a [u8]) -> Notices<'a> {
        Notices::new(&mut self.client(conn).unread, watch, 4_096)
    }
}

impl Model {
    fn new(seed: u64) -> Self {
        let map = SlotMap::new(SHARDS);
        let keys = || KeyedState::new([seed | 1, 7]);
        let shard = |index| ShardId(index as u8);
        let feeds = |i| Feeds::new((shard(i), Epoch(1)), keys(), 7_000);
        let topics = |_| Topics::new(Epoch(1), map, keys(), 7_000);
        let client = |index: u32| Client {
            shard: index as usize % SHARDS,
            conn: ConnId { index, generation: 1 },
            unread: Vec::new(),
            awaited: false,
            stuck: index == 0,
            watches: BTreeMap::new(),
        };
        Self {
            feeds: (0..SHARDS).map(feeds).collect(),
            topics: (0..SHARDS).map(topics).collect(),
            mail: (0..SHARDS).map(|_| (0..SHARDS).map(|_| VecDeque::new()).collect()).collect(),
            truth: names().into_iter().map(|name| (name, Truth::default())).collect(),
            clients: (0..9).map(client).collect(),
            now: 1,
            rng: Rng::new(seed),
            gaps: 0,
            resumes: [0; 3],
            snapshots: 0,
            skips: 0,
        }
    }

    fn shard_of(name: &str) -> usize {
        SlotMap::new(SHARDS).shard_of(Slot::of(name.as_bytes())).index()
    }

    /// Something happens to a name.
    fn change(&mut self) {
        let all = names();
        let name = &all[self.rng.below(all.len() as u64) as usize];
        let feeds = &mut self.feeds[Self::shard_of(name)];
        let truth = self.truth.get_mut(name).expect("one of them");
        let (kind, owner) = match (truth.owner, self.rng.below(6)) {
            (Some(owner), 0) => (Kind::Changed, owner),
            (Some(owner), 1) => (Kind::Waiting, owner),
            (Some(owner), 2..=4) => (Kind::Released, owner),
            _ => {
                truth.token += 1;
                (Kind::Acquired, (SessionId(self.rng.below(9)), Token(truth.token)))
            }
        };
        let (session, token) = owner;
        feeds.changed(&Change {
            kind,
            session,
            token,
            extra: 3,
            shared: false,
            name: name.as_bytes(),
        });
        let (class, sequence) = (class(kind), feeds.sequence());
        truth.sequences.entry(class).or_default().push(sequence);
        if class == 0 {
            truth.owner = (kind == Kind::Acquired).then_some(owner);
            truth.owners.push((self.now, truth.owner, sequence));
        }
    }

    fn post(&mut self, from: usize, letters: &mut Letters) {
        for (to, message) in letters.iter() {
            self.mail[from][to.index()].push_back(message.to_vec());
        }
        letters.clear();
    }

    /// What the topics of a shard want done.
    fn carry_out(&mut self, shard: usize) {
        let mut letters = core::mem::take(&mut self.topics[shard].out.letters);
        self.post(shard, &mut letters);
        for (ticket, answer) in core::mem::take(&mut self.topics[shard].out.answers) {
            self.answered(ticket, answer);
        }
    }

    /// A `WATCH` was answered; the ticket says whose it is. The client reads that in its turn.
    fn answered(&mut self, ticket: Ticket, answer: Answer) {
        let conn = ConnId { index: ticket.pending, generation: ticket.generation };
        let Some(client) = self.clients.iter_mut().find(|client| client.conn == conn) else {
            return;
        };
        let Answer::Data(_, data) = answer else {
            assert!(matches!(answer.status(), status::FULL | status::NOTOWNER));
            client.watches.remove(&u32::from(ticket.index));
            return;
        };
        let mut frame = FrameWriter::begin(&mut client.unread, KIND_PUSH, 0, 0);
        let mut body = u32::from(ticket.index).to_le_bytes().to_vec();
        body.extend_from_slice(&data);
        put_op(&mut client.unread, ANSWER, 0, &body);
        frame.add(1);
        frame.finish(&mut client.unread);
    }

    /// The oldest mail between two shards arrives.
    fn deliver(&mut self, from: usize, to: usize) {
        let Some(message) = self.mail[from][to].pop_front() else { return };
        let sender = ShardId(from as u8);
        let mut reader = Reader::new(&message);
        let mut letters = Letters::default();
        let (feeds, topics) = (&mut self.feeds[to], &mut self.topics[to]);
        match reader.u8().unwrap() {
            mail::FEED_OPEN => {
                let topic = mails::read_ref(&mut reader).unwrap();
                feeds.open((sender, topic), reader.rest(), &mut letters);
            }
            mail::FEED_OPENED => {
                let topic = mails::read_ref(&mut reader).unwrap();
                topics.opened(sender, topic, mails::opened(&mut reader).unwrap());
            }
            mail::FEED_CLOSE => {
                let topic = mails::read_ref(&mut reader).unwrap();
                let feed = mails::read_ref(&mut reader).unwrap();
                feeds.close(Moment(self.now * STEP_NS), (sender, topic), feed);
            }
            mail::FEED_EVENTS => topics.take_events(sender, &mut reader, message.len()).unwrap(),
            mail::FEED_TAKEN => {
                let feed = mails::read_ref(&mut reader).unwrap();
                feeds.acknowledged(sender, feed, reader.u32().unwrap() as usize);
            }
            mail::FEED_ASK => {
                let asked = mails::asked(&mut reader).unwrap();
                let feed = mails::read_ref(&mut reader).unwrap();
                if asked.what == What::Resume {
                    let cursor = mails::from(&mut reader).unwrap();
                    feeds.resume((sender, asked), feed, cursor, &mut letters);
                } else {
                    let slot = reader.u16().unwrap();
                    let after = reader.short_bytes().unwrap().to_vec();
                    self.page((sender, to), asked, feed, (slot, &after), &mut letters);
                }
            }
            mail::FEED_TOLD => {
                topics.take_told(sender, &mut reader, &mut Pipes(&mut self.clients)).unwrap();
            }
            kind => panic!("mail of kind {kind}"),
        }
        self.post(to, &mut letters);
        self.carry_out(to);
    }

    /// A page of a snapshot: at most two names behind `after`.
    fn page(
        &mut self,
        (to, shard): (ShardId, usize),
        asked: Asked,
        feed: Ref,
        (_, after): (u16, &[u8]),
        letters: &mut Letters,
    ) {
        let feeds = &mut self.feeds[shard];
        let filter: Vec<u8> = feeds.filter(feed).unwrap_or_default().to_vec();
        let covers = |name: &[u8]| match asked.what {
            What::Page => !filter.is_empty() && name.starts_with(&filter),
            _ => name == filter,
        };
        let owned = self.truth.iter().filter_map(|(name, truth)| {
            let here = Self::shard_of(name) == shard && covers(name.as_bytes());
            let owner = truth.owner.filter(|_| here && name.as_bytes() > after)?;
            Some((name.as_bytes(), owner))
        });
        let most = if asked.what == What::Page { 2 } else { 1 };
        let page: Vec<_> = owned.clone().take(most).collect();
        let done = owned.count() <= most;
        let last = page.last().map_or(after, |(name, _)| name).to_vec();
        let out = feeds.begin_page((to, asked), feed, letters);
        out.put_u8(u8::from(done));
        out.put_u16(0);
        out.put_short_bytes(&last);
        for (name, (session, token)) in page {
            out.put_u64(session.0);
            out.put_u64(token.0);
            out.put_short_bytes(name);
        }
        // The moment travels with the page, as a name that is none.
        out.put_u64(0);
        out.put_u64(self.now);
        out.put_short_bytes(MOMENT.as_bytes());
    }

    fn turn(&mut self, shard: usize) {
        let mut letters = Letters::default();
        self.feeds[shard].expire(Moment(self.now * STEP_NS));
        while self.feeds[shard].flush_next(&mut letters) {}
        self.post(shard, &mut letters);
        self.topics[shard].step(&mut Pipes(&mut self.clients));
        self.carry_out(shard);
    }

    /// A client asks for a watch, perhaps from where another ended.
    fn watch(&mut self, client: usize, watch: u32, before: Option<Watch>) {
        let filter = match &before {
            Some(before) => before.filter,
            None => FILTERS[self.rng.below(FILTERS.len() as u64) as usize],
        };
        let (snapshot, now) = (self.rng.chance(600), self.now);
        let client = &mut self.clients[client];
        let resume = before.as_ref().map(|before| {
            let cursor = |shard: usize| Cursor {
                shard: ShardId(shard as u8),
                epoch: Epoch(1),
                sequence: before.heard[shard],
            };
            (0..SHARDS).map(cursor).collect()
        });
        let wish = Wish {
            ticket: Ticket {
                shard: ShardId(client.shard as u8),
                pending: client.conn.index,
                generation: client.conn.generation,
                index: watch as u16,
            },
            conn: client.conn,
            watch: Some(watch),
            mask: 0x0F,
            budget: BUDGET,
            snapshot,
            resume,
            filter: filter.as_bytes(),
        };
        let refused = self.topics[client.shard].watch(wish);
        let fresh = Watch {
            filter,
            snapshot,
            asked_at: now,
            answered: false,
            since: u64::MAX,
            owners: BTreeMap::new(),
            tokens: BTreeMap::new(),
            heard: [0; SHARDS],
            base: [0; SHARDS],
            last: BTreeMap::new(),
            whole: false,
            resumed_from: None,
            pages: [0; SHARDS],
            last_page: 0,
        };
        let state = match before {
            Some(before) => Watch {
                resumed_from: Some(before.heard),
                answered: false,
                asked_at: now,
                snapshot,
                ..before
            },
            None => fresh,
        };
        let exists = client.watches.contains_key(&watch);
        match refused {
            Err(status::EXISTS) => assert!(exists),
            Err(status) => assert_eq!(status, status::FULL),
            Ok(()) => {
                assert!(!exists);
                client.watches.insert(watch, state);
            }
        }
        let shard = client.shard;
        self.carry_out(shard);
    }

    /// A connection is lost; a new one asks for the same watches again.
    fn reconnect(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let (conn, shard) = (client.conn, client.shard);
        let watches = core::mem::take(&mut client.watches);
        client.unread.clear();
        client.awaited = false;
        self.topics[shard].closed(conn);
        self.carry_out(shard);
        let client = &mut self.clients[index];
        client.conn.generation += 1;
        client.shard = self.rng.below(SHARDS as u64) as usize;
        for (number, watch) in watches {
            // What it knows but for what lay unread, which it has not heard of.
            let before = watch.answered.then_some(watch);
            self.watch(index, number, before);
        }
    }

    /// A client reads all that was sent to it.
    fn read(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let bytes = core::mem::take(&mut client.unread);
        let mut rest = bytes.as_slice();
        while let Some(header) = FrameHeader::parse(rest).unwrap() {
            assert!(header.kind == KIND_PUSH && header.sequence == 0);
            let mut ops = &rest[FRAME_HEADER_BYTES..header.len];
            for _ in 0..header.count {
                let notice = next_op(&mut ops).expect("as many as it says");
                let (watch, body) = notice.body.split_first_chunk().unwrap();
                self.hear(index, u32::from_le_bytes(*watch), notice.code, body);
            }
            assert!(ops.is_empty());
            rest = &rest[header.len..];
        }
        let client = &mut self.clients[index];
        if core::mem::take(&mut client.awaited) {
            let (shard, conn) = (client.shard, client.conn);
            self.topics[shard].drained(conn);
        }
    }

    fn hear(&mut self, client: usize, number: u32, code: u8, body: &[u8]) {
        let Some(watch) = self.clients[client].watches.get_mut(&number) else { return };
        let mut reader = Reader::new(body);
        match code {
            push::EVENT => {
                let event = Event(body);
                self.skips += usize::from(body[1] & SKIPPED != 0);
                watch.event(event, &self.truth);
            }
            ANSWER => {
                let resumed = watch.answer(body, self.now);
                self.resumes[usize::from(resumed)] += 1;
                if resumed == 2 {
                    watch.forget(&self.feeds, self.now);
                }
            }
            push::STATE => {
                assert!(watch.snapshot);
                let shard = usize::from(reader.u8().unwrap());
                let owner = (SessionId(reader.u64().unwrap()), Token(reader.u64().unwrap()));
                let name = String::from_utf8(reader.rest().to_vec()).unwrap();
                if name == MOMENT {
                    (watch.pages[shard], watch.last_page) = (owner.1.0, shard);
                } else {
                    assert!(watch.covers(&name));
                    watch.own(name, owner);
                }
            }
            push::SNAPSHOT_END => {
                self.snapshots += 1;
                watch.whole = true;
                watch.check_snapshot(&self.truth);
            }
            push::GAP => {
                self.gaps += 1;
                let now = self.now;
                watch.forget(&self.feeds, now);
            }
            code => panic!("notice {code}"),
        }
    }

    /// Everything comes to rest, everybody reads, and knows what is true.
    fn end(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "it never comes to rest");
            let mut busy = false;
            for from in 0..SHARDS {
                for to in 0..SHARDS {
                    while !self.mail[from][to].is_empty() {
                        busy = true;
                        self.deliver(from, to);
                    }
                }
            }
            for shard in 0..SHARDS {
                self.turn(shard);
                busy |= self.topics[shard].is_active() || self.feeds[shard].is_dirty();
                busy |= self.mail[shard].iter().any(|mail| !mail.is_empty());
            }
            for client in 0..self.clients.len() {
                busy |= !self.clients[client].unread.is_empty();
                self.read(client);
            }
            if !busy {
                break;
            }
        }
        for client in &self.clients {
            for watch in client.watches.values() {
                assert!(watch.answered, "T4");
                watch.check_end(&self.truth);
            }
        }
    }

    fn step(&mut self) {
        self.now += 1;
        let client = self.rng.below(self.clients.len() as u64) as usize;
        let shard = self.rng.below(SHARDS as u64) as usize;
        match self.rng.below(100) {
            0..40 => self.change(),
            40..65 => self.deliver(shard, client % SHARDS),
            65..84 => self.turn(shard),
            84..93 if !self.clients[client].stuck => self.read(client),
            93..98 => {
                let watch = self.rng.below(3) as u32;
                let before = None;
                self.watch(client, watch, before);
            }
            98 if self.rng.chance(200) => self.reconnect(client),
            99 => {
                let (at, watch) = (self.clients[client].shard, self.rng.below(3) as u32);
                let conn = self.clients[client].conn;
                let there = self.clients[client].watches.contains_key(&watch);
                if there && self.rng.chance(200) {
                    assert!(self.topics[at].unwatch(conn, watch));
                    self.carry_out(at);
                    self.clients[client].watches.remove(&watch);
                    // What it was told is read before the number is used again.
                    self.read(client);
                }
            }
            _ => {}
        }
    }
}

fn class(kind: Kind) -> u8 {
    match kind {
        Kind::Acquired | Kind::Released => 0,
        Kind::Changed => 1,
        Kind::Waiting => 2,
    }
}

impl Watch {
    fn covers(&self, name: &str) -> bool {
        let filter = self.filter.as_bytes();
        name == self.filter || (is_prefix(filter) && name.as_bytes().starts_with(filter))
    }

    fn own(&mut self, name: String, owner: Owner) {
        let before = self.tokens.insert(name.clone(), owner.1.0).unwrap_or(0);
        assert!(before <= owner.1.0, "W1: {name} went back from {before} to {}", owner.1.0);
        self.owners.insert(name, owner);
    }

    fn answer(&mut self, data: &[u8], now: u64) -> u8 {
        assert!(!core::mem::replace(&mut self.answered, true), "T4");
        let resumed = data[0];
        assert_eq!(resumed > 0, self.resumed_from.is_some());
        let mut reader = Reader::new(&data[1..]);
        for _ in 0..reader.u8().unwrap() {
            let shard = usize::from(reader.u8().unwrap());
            assert_eq!(reader.u32(), Ok(1));
            let sequence = reader.u64().unwrap();
            assert!(self.heard[shard] <= sequence, "W1");
            self.heard[shard] = sequence;
            if resumed == 0 {
                self.base[shard] = sequence;
            }
        }
        if resumed == 0 {
            self.since = now;
        }
        resumed
    }

    fn event(&mut self, event: Event<'_>, truth: &BTreeMap<String, Truth>) {
        let name = String::from_utf8(event.name().to_vec()).unwrap();
        assert!(self.covers(&name));
        let (shard, sequence) = (event.shard().index(), event.sequence());
        assert!(self.heard[shard] < sequence, "W1: {} then {sequence}", self.heard[shard]);
        self.heard[shard] = sequence;
        let class = class(event.kind());
        let last = self.last.insert((name.clone(), class), sequence).unwrap_or(0);
        let heard = last.max(self.base[shard]);
        let missed = truth[&name].sequences[&class].iter().any(|s| heard < *s && *s < sequence);
        assert!(!missed || event.is_skipped(), "{name} {sequence}: nobody said what was missed");
        let mut reader = Reader::new(&event.0[15..]);
        let owner = (SessionId(reader.u64().unwrap()), Token(reader.u64().unwrap()));
        self.own(name.clone(), owner);
        if event.kind() == Kind::Released {
            self.owners.remove(&name);
        }
    }

    /// There was a gap: what it knows may be old.
    fn forget(&mut self, feeds: &[Feeds], now: u64) {
        self.owners.clear();
        self.whole = false;
        self.since = now;
        for (base, feeds) in self.base.iter_mut().zip(feeds) {
            *base = feeds.sequence();
        }
    }

    /// W3: every name as it was at a moment no earlier than the last page of its shard; those of
    /// the last shard as they were at the moment of that.
    fn check_snapshot(&self, truth: &BTreeMap<String, Truth>) {
        for (name, truth) in truth.iter().filter(|(name, _)| self.covers(name)) {
            let shard = Model::shard_of(name);
            let page = self.pages[shard];
            let known = self.owners.get(name).copied();
            let at_page = truth.owners.iter().rev().find(|(at, ..)| *at <= page);
            let later = truth.owners.iter().filter(|(at, ..)| *at > page);
            let mut later = later.map(|(_, owner, _)| *owner);
            let at_page = at_page.and_then(|(_, owner, _)| *owner);
            let is_later = shard != self.last_page && later.any(|owner| owner == known);
            assert!(known == at_page || is_later, "W3: {name}");
        }
    }

    fn check_end(&self, truth: &BTreeMap<String, Truth>) {
        if self.snapshot && self.resumed_from.is_none() {
            assert!(self.whole, "a snapshot was asked for at {} and never ended", self.asked_at);
        }
        for (name, truth) in truth.iter().filter(|(name, _)| self.covers(name)) {
            let changed = truth.owners.last().is_some_and(|(at, ..)| *at > self.since);
            if self.whole || changed {
                let known = self.owners.get(name).copied();
                assert_eq!(known, truth.owner, "W2: {name} by {}", self.filter);
            }
        }
    }
}

/// Whatever happens in whatever order: who watches hears in order, misses nothing without being
/// told, and in the end knows what is true.
#[test]
fn watchers_know_what_is_true() {
    let (mut gaps, mut resumes, mut snapshots, mut skips) = (0, [0; 3], 0, 0);
    for seed in 0..100 {
        let mut model = Model::new(seed);
        for _ in 0..6_000 {
            model.step();
        }
        model.end();
        gaps += model.gaps;
        snapshots += model.snapshots;
        skips += model.skips;
        resumes.iter_mut().zip(model.resumes).for_each(|(all, some)| *all += some);
    }
    let rare = [gaps, snapshots, skips, resumes[0], resumes[1], resumes[2]];
    assert!(rare.iter().all(|count| *count > 50), "not everything happened: {rare:?}");
}
