//! Ops that look at more than a few things: lists of names, of sessions and of connections, and a
//! shard's own numbers. The shard that was asked keeps them in a queue and does a slice of one in a
//! turn, so that they cost everybody else the same however many there are, and whoever asked.
//!
//! What an answer shows of somebody who comes or goes meanwhile, also by ops that stand behind it
//! in the same frame, is not promised.
//!
//! Bounds: [`JOBS_MAX`] at a time, or twice that, each with the bytes that it may take reserved
//! from the memory for buffers; one beyond either is answered `BUSY`. A slice visits at most what
//! [`crate::list::STEP_RECORDS`], `PAGE_PLACES_MAX` of `sessions` and [`STEP_CONNS`] say.
//! Not here: what a page of names has (`list`), of sessions (`sessions`), how the other shards
//! count a session's names (`gather`).
//! Tests: `coord/proto/tests/turns.rs`, `lists.rs`, `memory.rs`.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use ringway_core::Region;
use ringway_core::limits::FRAME_BYTES_MAX;

use crate::access::Access;
use crate::broadcast::Broadcast;
use crate::env::Env;
use crate::gather::GATHER_BYTES;
use crate::list::{JOB_BYTES, ListJob};
use crate::outcome::Answer;
use crate::sessions::{Principal, Ticket};
use crate::shard::Shard;
use crate::watch::PageAsk;
use crate::wire::status;

/// Jobs of one shard at a time; one beyond that is answered `BUSY`. There is room for as many more
/// that tell the shard's numbers: one looks at them when much is going on.
pub const JOBS_MAX: usize = 64;
/// Connections that one slice of a list of them looks at.
pub const STEP_CONNS: usize = 4 * 1024;
/// Bytes of a list of connections, of which each shard may fill an equal part, at most half.
const CLIENT_LIST_BYTES_MAX: usize = 192 * 1024;
/// Places of connections that a shard looks at for a list.
const CLIENT_LIST_PLACES_MAX: usize = 65_536;

const _: () = assert!(CLIENT_LIST_BYTES_MAX <= FRAME_BYTES_MAX, "as much as a pending unit keeps");

/// What a job is about.
pub(crate) enum Work {
    /// A page of names, or how many a slot has.
    List(ListJob),
    /// A page of sessions: from a place on, at most so many, of one owner or of all.
    Sessions(usize, usize, Option<Principal>),
    /// The lines of the connections: from a place on, behind those that are there, of one owner or
    /// of all.
    Clients(usize, Vec<u8>, Option<Principal>),
    /// A message to all sessions.
    Broadcast(Broadcast),
    /// Who waits for whom: from a place on, at most so many.
    Waits(u32, usize),
    /// The shard's numbers.
    Stats,
    /// A page of names for a watcher.
    Page(ListJob, PageAsk),
}

/// What became of a job in its slice.
pub(crate) enum Step {
    /// It goes on.
    More(Work),
    /// It has its answer, unless that comes later.
    Done(Option<Answer>),
}

impl Work {
    /// Bytes that are reserved for it. None for a shard's numbers: they are written down when they
    /// are answered, and are asked for when memory is short.
    const fn bytes(&self) -> usize {
        match self {
            Work::List(_) | Work::Page(..) => JOB_BYTES,
            Work::Sessions(..) => GATHER_BYTES,
            Work::Clients(..) => CLIENT_LIST_BYTES_MAX,
            Work::Broadcast(work) => work.bytes(),
            Work::Waits(..) => crate::waiters::PAGE_BYTES,
            Work::Stats => 0,
        }
    }
}

/// The jobs of one shard, served in turn.
#[derive(Default)]
pub(crate) struct Jobs {
    queue: VecDeque<(Ticket, Work)>,
    bytes: usize,
}

impl Jobs {
    /// Bytes that are reserved for all of them.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether there is any.
    pub(crate) fn is_active(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(crate) fn push(&mut self, ticket: Ticket, work: Work) {
        self.bytes += work.bytes();
        self.queue.push_back((ticket, work));
    }

    fn pop(&mut self) -> Option<(Ticket, Work)> {
        let (ticket, work) = self.queue.pop_front()?;
        self.bytes -= work.bytes();
        Some((ticket, work))
    }
}

impl<R: Region, A: Access> Shard<R, A> {
    /// Starts a job; its answer comes later, or says that there are too many.
    pub(crate) fn begin_job(
        &mut self,
        ticket: Ticket,
        work: Work,
        env: &mut impl Env,
    ) -> Option<Answer> {
        let (bytes, jobs) = (work.bytes(), self.jobs.len());
        let fits = match work {
            Work::Stats => jobs < 2 * JOBS_MAX,
            _ => jobs < JOBS_MAX && self.has_room(bytes, env),
        };
        if !fits {
            return Some(Answer::plain(status::BUSY));
        }
        self.jobs.push(ticket, work);
        env.again();
        None
    }

    /// Goes on with the oldest job, and answers it when it is through.
    pub(crate) fn step_jobs(&mut self, env: &mut impl Env) {
        if !self.names.runs.is_empty() {
            self.names.runs.expire(self.now());
        }
        let Some((ticket, work)) = self.jobs.pop() else { return };
        let step = match work {
            Work::List(job) => self.step_list(job, env),
            Work::Sessions(from, most, viewer) => {
                Step::Done(self.page_of_sessions(ticket, (from, most), viewer, env))
            }
            Work::Waits(from, most) => Step::Done(Some(self.page_of_waits(from, most))),
            Work::Clients(from, lines, viewer) => self.step_clients(from, lines, viewer),
            Work::Page(job, ask) => match self.step_list(job, env) {
                Step::More(Work::List(job)) => Step::More(Work::Page(job, ask)),
                Step::Done(Some(Answer::Data(_, page))) => {
                    self.end_page(ask, &page).expect("a page is written by our own kind");
                    Step::Done(None)
                }
                _ => unreachable!("a list goes on, or has its page"),
            },
            Work::Broadcast(work) => self.step_broadcast(work, env),
            Work::Stats => {
                let mut json = Vec::new();
                env.describe(&mut json);
                Step::Done(Some(Answer::data(json)))
            }
        };
        match step {
            Step::More(work) => self.jobs.push(ticket, work),
            Step::Done(Some(answer)) => self.deliver(ticket, &answer, env),
            Step::Done(None) => {}
        }
    }

    fn step_clients(&self, from: usize, mut lines: Vec<u8>, viewer: Option<Principal>) -> Step {
        let bytes_max = CLIENT_LIST_BYTES_MAX / self.shards().max(2);
        let places = self.conns.len().min(CLIENT_LIST_PLACES_MAX);
        let end = places.min(from + STEP_CONNS);
        let fits = self.put_clients(viewer, from..end, (&mut lines, bytes_max));
        if fits && end < places {
            return Step::More(Work::Clients(end, lines, viewer));
        }
        Step::Done(Some(Answer::data(lines)))
    }
}
