//! Watches in a shard: the ops that make and end them, mail between the two machines, pages of
//! snapshots, and what a turn does for them.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use ringway_core::limits::NAME_BYTES_MAX;
use ringway_core::limits::watch::{
    BUDGET_DEFAULT, BUDGET_MAX, BUDGET_MIN, BYTES_PART, PAGE_NAMES, PAGES_MAX,
};
use ringway_core::wire::{Put, Reader, Truncated};
use ringway_core::{ConnId, Epoch, Region, ShardId};
use ringway_table::Name;

use crate::access::Access;
use crate::conn::{Conn, Speech};
use crate::env::Env;
use crate::jobs::{JOBS_MAX, Work};
use crate::keyed::KeyedState;
use crate::list::{JOB_BYTES, ListAsk, ListJob, Want};
use crate::mail;
use crate::op_code;
use crate::outcome::Answer;
use crate::paged::Paged;
use crate::sabotage::Rule;
use crate::sessions::Ticket;
use crate::shard::{Shard, ShardStart};
use crate::stats::verb_index;
use crate::watch::event::{MASK_ALL, Notices};
use crate::watch::mails::{self, Asked, What};
use crate::watch::topic::{Cursor, Outlet, Topics, Wish};
use crate::watch::{Letters, Ref};
use crate::wire::{FRAME_BYTES_FLOOR, RawOp, op, status};

/// A page of a snapshot that a watcher has asked for.
pub(crate) struct PageAsk {
    from: ShardId,
    asked: Asked,
    feed: Ref,
    slot: u16,
    after: Vec<u8>,
}

/// What a shard keeps of watches beside its feeds, which are with its names.
pub(crate) struct Watching {
    /// The watches of its connections.
    pub(crate) topics: Topics,
    /// Mail of the feeds that is not posted yet.
    letters: Letters,
    /// Pages of snapshots that were asked for and not begun.
    asks: VecDeque<PageAsk>,
    /// Pages that were begun.
    pages: usize,
}

impl Watching {
    /// Nobody watches anything.
    pub(crate) fn new(start: &ShardStart) -> Self {
        let (keys, bytes) = (KeyedState::new(start.keys), start.buffer_bytes / BYTES_PART / 2);
        let topics = Topics::new(start.epoch, start.map, keys, bytes);
        Self { topics, letters: Letters::default(), asks: VecDeque::new(), pages: 0 }
    }

    /// Watches, and what waits to be told to any.
    pub(crate) fn residue(&self) -> usize {
        self.topics.len() + self.asks.len() + self.pages
    }
}

/// Connections, as watchers write to them.
struct Pipes<'a, E> {
    conns: &'a Paged<Conn>,
    env: &'a mut E,
    /// What one connection may leave unread, however large a budget it has.
    most: usize,
}

impl<E: Env> Outlet for Pipes<'_, E> {
    fn room(&mut self, conn: ConnId, budget: u32) -> usize {
        let state = self.conns.get(conn.index as usize);
        if state.is_none_or(|state| state.generation != conn.generation || state.closing) {
            return 0;
        }
        let backlog = self.env.backlog(conn);
        // Who has nothing unread is told something: nobody would say when there is more room.
        self.most.min(budget as usize).saturating_sub(backlog).max(usize::from(backlog == 0))
    }

    fn await_drain(&mut self, conn: ConnId) {
        self.env.await_drain(conn);
    }

    fn notices<'a>(&'a mut self, conn: ConnId, watch: u32, filter: &'a [u8]) -> Notices<'a> {
        let state = self.conns.get(conn.index as usize);
        if state.is_some_and(|state| state.speech == Speech::Resp3) {
            return Notices::resp3(self.env.out(conn), filter);
        }
        let pages = state.map_or(0, |state| usize::from(state.frame_pages)).max(1);
        Notices::new(self.env.out(conn), watch, pages * FRAME_BYTES_FLOOR as usize)
    }
}

impl<R: Region, A: Access> Shard<R, A> {
    /// Serves `WATCH` and `UNWATCH`, on the shard of the connection.
    pub(crate) fn serve_watch(
        &mut self,
        id: ConnId,
        ticket: Ticket,
        raw: &RawOp<'_>,
        env: &mut impl Env,
    ) {
        self.stats.verbs[verb_index(op::WATCH)] += 1;
        let done = match raw.code {
            op::UNWATCH => self.end_watch(id, raw).map(|status| Some(Answer::plain(status))),
            _ => self.begin_watch(id, ticket, raw).map(|()| None),
        };
        match done {
            Ok(Some(answer)) => self.deliver(ticket, &answer, env),
            Ok(None) => {}
            Err(status) => self.deliver(ticket, &Answer::plain(status), env),
        }
        self.settle_watches(env);
    }

    /// Ends a connection's watches of these filters, or all; how many there were.
    pub(crate) fn unwatch<'a>(
        &mut self,
        id: ConnId,
        filters: Option<impl Iterator<Item = &'a [u8]>>,
        env: &mut impl Env,
    ) -> usize {
        self.stats.verbs[verb_index(op::UNWATCH)] += 1;
        let topics = &mut self.watching.topics;
        let ended = match filters {
            Some(filters) => filters.filter(|filter| topics.unwatch_filter(id, filter)).count(),
            None => {
                let all = topics.len_of(id);
                topics.closed(id);
                all
            }
        };
        self.settle_watches(env);
        ended
    }

    fn end_watch(&mut self, id: ConnId, raw: &RawOp<'_>) -> Result<u8, u8> {
        let watch = raw.body.try_into().map(u32::from_le_bytes);
        let watch = watch.map_err(|_| status::MALFORMED)?;
        if self.sabotage.breaks(Rule::UnwatchEnds) {
            return Ok(status::OK);
        }
        Ok(if self.watching.topics.unwatch(id, watch) { status::OK } else { status::NOTOWNER })
    }

    fn begin_watch(&mut self, conn: ConnId, ticket: Ticket, raw: &RawOp<'_>) -> Result<(), u8> {
        if raw.flags & !(op::WATCH_SNAPSHOT | op::WATCH_RESUME) != 0 {
            return Err(status::UNSUPPORTED);
        }
        let mut wish = read_wish(conn, ticket, raw).map_err(|Truncated| status::MALFORMED)?;
        if wish.filter.is_empty() || wish.filter.len() > NAME_BYTES_MAX {
            return Err(status::BADNAME);
        }
        if wish.mask & !MASK_ALL != 0 {
            return Err(status::UNSUPPORTED);
        }
        if wish.mask == 0 {
            return Err(status::MALFORMED);
        }
        self.check_access(conn, wish.filter)?;
        wish.budget = match wish.budget {
            0 => BUDGET_DEFAULT,
            budget => budget.clamp(BUDGET_MIN, BUDGET_MAX),
        };
        self.watching.topics.watch(wish)
    }

    /// What machines of watches at other shards tell those here.
    pub(crate) fn hear_of_watches(
        &mut self,
        from: ShardId,
        message: &[u8],
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        self.take_watch_mail(from, message, env)?;
        self.settle_watches(env);
        Ok(())
    }

    /// What the machines of watches tell each other.
    fn take_watch_mail(
        &mut self,
        from: ShardId,
        message: &[u8],
        env: &mut impl Env,
    ) -> Result<(), Truncated> {
        let mut reader = Reader::new(message);
        match reader.u8()? {
            mail::FEED_OPEN => {
                let topic = mails::read_ref(&mut reader)?;
                self.names.feeds.open((from, topic), reader.rest(), &mut self.watching.letters);
            }
            mail::FEED_OPENED => {
                let topic = mails::read_ref(&mut reader)?;
                self.watching.topics.opened(from, topic, mails::opened(&mut reader)?);
            }
            mail::FEED_CLOSE => {
                let (topic, feed) = (mails::read_ref(&mut reader)?, mails::read_ref(&mut reader)?);
                self.names.feeds.close(self.now(), (from, topic), feed);
            }
            mail::FEED_EVENTS => {
                self.watching.topics.take_events(from, &mut reader, message.len())?
            }
            mail::FEED_TAKEN => {
                let feed = mails::read_ref(&mut reader)?;
                self.names.feeds.acknowledged(from, feed, reader.u32()? as usize);
            }
            mail::FEED_ASK => self.take_ask(from, &mut reader)?,
            mail::FEED_TOLD => {
                let most = self.share_of_watchers(env);
                let mut pipes = Pipes { conns: &self.conns, env, most };
                self.watching.topics.take_told(from, &mut reader, &mut pipes)?;
            }
            _ => return Err(Truncated),
        }
        Ok(())
    }

    fn take_ask(&mut self, from: ShardId, reader: &mut Reader<'_>) -> Result<(), Truncated> {
        let (asked, feed) = (mails::asked(reader)?, mails::read_ref(reader)?);
        match asked.what {
            What::Resume => {
                let cursor = mails::from(reader)?;
                let letters = &mut self.watching.letters;
                self.names.feeds.resume((from, asked), feed, cursor, letters);
            }
            What::Page => {
                let (slot, after) = (reader.u16()?, reader.short_bytes()?.into());
                self.watching.asks.push_back(PageAsk { from, asked, feed, slot, after });
            }
            What::Name => {
                let name: Vec<u8> = self.names.feeds.filter(feed).unwrap_or_default().into();
                let ask = PageAsk { from, asked, feed, slot: 0, after: Vec::new() };
                self.tell_page(&ask, true, &[&name]);
            }
        }
        Ok(())
    }

    /// W3: tells a watcher which of these names are owned at this moment, and by whom.
    fn tell_page(&mut self, ask: &PageAsk, done: bool, names: &[&[u8]]) {
        let feeds = &mut self.names.feeds;
        let out = feeds.begin_page((ask.from, ask.asked), ask.feed, &mut self.watching.letters);
        out.put_u8(u8::from(done));
        out.put_u16(ask.slot);
        out.put_short_bytes(&ask.after);
        for bytes in names {
            let Some(name) = Name::new(bytes) else { continue };
            let hash = self.names.table().hash(&name);
            let found = self.names.table().find(hash, &name);
            if let Some((session, token)) =
                found.and_then(|(id, grant)| self.names.shown(id, &grant))
            {
                out.put_u64(session.0);
                out.put_u64(token.0);
                out.put_short_bytes(bytes);
            }
        }
    }

    /// A page that a job has put together goes to the watcher that asked for it.
    pub(crate) fn end_page(&mut self, ask: PageAsk, page: &[u8]) -> Result<(), Truncated> {
        let mut reader = Reader::new(page);
        reader.u8()?;
        let (slot, after) = (reader.u16()?, reader.short_bytes()?.into());
        let count = reader.u16()?;
        let mut names = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            names.push(reader.short_bytes()?);
            reader.bytes(16)?;
        }
        let done = slot > self.start.map.run(self.id()).1;
        self.watching.pages -= 1;
        self.tell_page(&PageAsk { slot, after, ..ask }, done, &names);
        Ok(())
    }

    /// Starts what fits of the pages that were asked for. One is always under way.
    fn begin_pages(&mut self, env: &mut impl Env) {
        let (first, slot_last) = self.start.map.run(self.id());
        while self.watching.pages < PAGES_MAX
            && let Some(ask) = self.watching.asks.front()
        {
            let jobs = self.jobs.len();
            if jobs > 0 && (jobs >= JOBS_MAX || !self.has_room(JOB_BYTES, env)) {
                return;
            }
            let prefix = self.names.feeds.filter(ask.feed).map(Vec::from);
            let Some(ask) = self.watching.asks.pop_front() else { return };
            let Some(prefix) = prefix else {
                // Nobody there wants it any more, but it waits for an answer.
                self.tell_page(&ask, true, &[]);
                continue;
            };
            let (slot, after) = (ask.slot.max(first), ask.after.clone());
            let list = ListAsk { slot, slot_last, after, prefix, want: Want::Page(PAGE_NAMES) };
            self.watching.pages += 1;
            self.jobs.push(NOBODY, Work::Page(ListJob::new(list), ask));
        }
    }

    /// Carries out what the two machines want done, until nothing is left.
    pub(crate) fn settle_watches(&mut self, env: &mut impl Env) {
        loop {
            let letters = if self.watching.letters.is_empty() {
                &mut self.watching.topics.out.letters
            } else {
                &mut self.watching.letters
            };
            let mut letters = core::mem::take(letters);
            for (to, message) in letters.iter() {
                if to == self.id() {
                    let taken = self.take_watch_mail(to, message, env);
                    taken.expect("mail is written by our own kind");
                } else {
                    env.post(to, message);
                }
            }
            let none = letters.is_empty();
            letters.clear();
            if self.watching.letters.is_empty() {
                self.watching.letters = letters;
            }
            let answers = core::mem::take(&mut self.watching.topics.out.answers);
            if none && answers.is_empty() {
                return;
            }
            for (ticket, answer) in answers {
                self.deliver(ticket, &answer, env);
            }
        }
    }

    /// What one connection may leave unread of what its watches tell.
    fn share_of_watchers(&self, env: &mut impl Env) -> usize {
        self.start.buffer_bytes.saturating_sub(self.buffers_used(env)) / 2
    }

    /// What a turn does for watches. True if there is more to do.
    pub(crate) fn step_watches(&mut self, env: &mut impl Env) -> bool {
        if self.watching.topics.is_empty() && self.names.feeds.is_empty() {
            return false;
        }
        self.names.feeds.expire(self.now());
        while self.names.feeds.flush_next(&mut self.watching.letters) {
            self.settle_watches(env);
        }
        self.begin_pages(env);
        self.settle_watches(env);
        if self.watching.topics.is_active() {
            let most = self.share_of_watchers(env);
            self.watching.topics.step(&mut Pipes { conns: &self.conns, env, most });
            self.settle_watches(env);
        }
        let counts = self.watching.topics.out.counts;
        self.stats.watch_notices = counts.notices;
        self.stats.watch_gaps = counts.gaps;
        self.stats.watchers_passed_over = counts.passed_over;
        self.stats.watch_changes_dropped = counts.evicted + self.names.feeds.evicted;
        self.watching.topics.is_active()
            || self.names.feeds.is_dirty()
            || !self.watching.asks.is_empty()
    }

    /// A connection has read what it had not.
    pub(crate) fn watcher_drained(&mut self, id: ConnId) {
        let told = !self.sabotage.breaks(Rule::SlowAreToldLater);
        if !self.watching.topics.is_empty() && told {
            self.watching.topics.drained(id);
        }
    }

    /// A connection is gone.
    pub(crate) fn watcher_closed(&mut self, id: ConnId, env: &mut impl Env) {
        if !self.watching.topics.is_empty() {
            self.watching.topics.closed(id);
            self.settle_watches(env);
        }
    }

    /// Credentials are others: watches that they do not cover any more end.
    pub(crate) fn recheck_watches(&mut self, env: &mut impl Env) {
        if self.watching.topics.is_empty() {
            return;
        }
        let (conns, access) = (&self.conns, &self.access);
        let covers = |id: ConnId, filter: &[u8]| {
            let grantee = conns.get(id.index as usize).and_then(|conn| conn.grantee);
            grantee.is_some_and(|grantee| access.grantee(grantee).covers(filter))
        };
        self.watching.topics.retain(covers, &mut Pipes { conns, env, most: 0 });
        self.settle_watches(env);
    }
}

/// Who waits for the answer of a job whose answer goes by itself.
const NOBODY: Ticket = Ticket { shard: ShardId(0), pending: 0, generation: 0, index: 0 };

fn read_wish<'a>(conn: ConnId, ticket: Ticket, raw: &RawOp<'a>) -> Result<Wish<'a>, Truncated> {
    let mut body = Reader::new(raw.body);
    let snapshot = raw.flags & op::WATCH_SNAPSHOT != 0;
    if raw.code == op_code::WATCH_FILTER {
        let (mask, filter) = (body.u8()?, body.rest());
        let wish =
            Wish { ticket, conn, watch: None, mask, budget: 0, snapshot, resume: None, filter };
        return Ok(wish);
    }
    let (watch, mask, budget) = (Some(body.u32()?), body.u8()?, body.u32()?);
    let mut resume = None;
    if raw.flags & op::WATCH_RESUME != 0 {
        let mut cursors = Vec::new();
        for _ in 0..body.u8()? {
            let (shard, epoch) = (ShardId(body.u8()?), Epoch(body.u32()?));
            cursors.push(Cursor { shard, epoch, sequence: body.u64()? });
        }
        resume = Some(cursors);
    }
    Ok(Wish { ticket, conn, watch, mask, budget, snapshot, resume, filter: body.rest() })
}
