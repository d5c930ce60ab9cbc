//! Watchers of one topic: what each still lacks, and how it is told.
//!
//! Everything here is about one watcher at a time, in the topic that it belongs to; which of them
//! is looked at when is decided by `topic`, where the invariants T1 to T4 stand.
//!
//! Bounds: constant time beside what is written, which is bounded by the watcher's budget, by one
//! page of a snapshot, or by the log.
//! Not here: notices in bytes (`event`), mail (`mails`). Tests: `stories.rs`, `model.rs`.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use ringway_core::wire::{Put, Reader, Truncated};
use ringway_core::{ConnId, Epoch, SessionId, ShardId, Token};

use crate::outcome::Answer;
use crate::sessions::Ticket;
use crate::watch::Ref;
use crate::watch::event::{MASK_ALL, next_event};
use crate::watch::feed::From;
use crate::watch::log::{Log, Progress};
use crate::watch::mails::{self, Asked, What};
use crate::watch::topic::{Cursor, Out, Outlet};

/// What the answer to a `WATCH` begins with.
const FRESH: u8 = 0;
const RESUMED: u8 = 1;
const RESUMED_WITH_GAP: u8 = 2;

/// One watcher.
pub(super) struct Watcher {
    pub(super) conn: ConnId,
    pub(super) watch: u32,
    pub(super) budget: u32,
    /// What of the topic's log it was told.
    pub(super) told: Progress,
    pub(super) mask: u8,
    /// Whether its filter is a prefix.
    pub(super) prefix: bool,
    /// Whether it wants one, at its start and behind a gap.
    pub(super) snapshot: bool,
    /// It is passed over until its connection has drained.
    pub(super) blocked: bool,
    /// It stands in the queue of those whose connection has.
    pub(super) ready: bool,
    pub(super) start: Option<Box<Start>>,
}

const _: () = assert!(size_of::<Watcher>() <= 48, "a few dozen bytes");

/// What a watcher still lacks.
pub(super) struct Start {
    pub(super) ticket: Option<Ticket>,
    /// Which of its questions is open.
    pub(super) nonce: u32,
    pub(super) resume: Option<Vec<Cursor>>,
    pub(super) phase: Phase,
}

pub(super) enum Phase {
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
pub(super) struct Source {
    pub(super) feed: Option<Ref>,
    /// The number up to which it has told everything.
    pub(super) through: u64,
    /// Bytes that it was not yet told were taken.
    pub(super) taken: usize,
}

#[derive(Default)]
pub(super) struct Topic {
    pub(super) filter: Box<[u8]>,
    pub(super) log: Log,
    pub(super) watchers: Vec<Watcher>,
    /// One for each shard from `first` on.
    pub(super) sources: Vec<Source>,
    pub(super) first: usize,
    /// Sources that have not answered.
    pub(super) opening: usize,
    pub(super) full: bool,
    pub(super) active: bool,
    /// The round: whom it has come to, and what was the end of the log when it began.
    pub(super) scan: usize,
    pub(super) round_to: u64,
    /// T2: watchers that are blocked or resume.
    pub(super) held: usize,
}

/// Watchers that want to hear what there is.
#[derive(Default)]
pub(super) struct Listing {
    /// Who has a name: answered at once.
    pub(super) names: VecDeque<(ConnId, u32)>,
    /// A page of a prefix.
    pub(super) pages: VecDeque<(ConnId, u32)>,
}

/// A look at one watcher of a topic, and where what comes of it goes.
pub(super) struct Visit<'a> {
    pub(super) at: (Ref, usize),
    pub(super) epoch: Epoch,
    pub(super) out: &'a mut Out,
    pub(super) listing: &'a mut Listing,
}

impl Watcher {
    pub(super) fn is_resuming(&self) -> bool {
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
    pub(super) fn wait_for_page(&mut self, listing: &mut Listing) {
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
    /// All feeds have answered: a watcher starts.
    pub(super) fn begin(
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
    pub(super) fn deliver(
        &mut self,
        visit: &mut Visit<'_>,
        must: bool,
        outlet: &mut impl Outlet,
    ) -> usize {
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
    pub(super) fn resumed(
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
    pub(super) fn ask_for_page(
        &mut self,
        (topic, index): (Ref, usize),
        queued_for: What,
        out: &mut Out,
        outlet: &mut impl Outlet,
    ) -> bool {
        let watcher = &mut self.watchers[index];
        let what = if watcher.prefix { What::Page } else { What::Name };
        if what != queued_for {
            // An earlier watch of this number stood there. This one stands in the other queue.
            return false;
        }
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
        let (conn, watch, nonce) = (watcher.conn, watcher.watch, start.nonce);
        let asked = Asked { what, topic, conn, watch, nonce };
        let to = ShardId((self.first + *source) as u8);
        let feed = self.sources[*source].feed.expect("all have answered");
        let letter = mails::begin_ask(out.letters.begin(to), &asked, feed);
        mails::put_page_from(letter, *slot, after);
        true
    }

    /// A page of a snapshot has come: it is told behind everything that happened before.
    pub(super) fn listed(
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
