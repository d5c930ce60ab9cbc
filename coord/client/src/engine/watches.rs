//! Watches: first the state at one moment, then each change, without a hole between them.
//!
//! What the server tells before its `SNAPSHOT_END` is gathered here and handed over whole, so a
//! caller never sees half a state. After a reconnect a watch goes on behind its cursor; where the
//! server no longer can, and after a `GAP`, a new state is gathered and replaces the earlier one.
//!
//! Invariants:
//! - V1  A caller hears changes only of a state that it has been given, and none twice.
//! - V2  Each question to the server has a number of its own, so that what is still on its way for
//!   an earlier one is not taken for news.
//!
//! Bounds: [`WATCHES_MAX`] watches; a state of at most [`SNAPSHOT_NAMES_MAX`] names. O(log n) a
//! notice. Not here: how much a caller may leave unread (the session). Tests: `engine/tests.rs`.

use std::collections::BTreeMap;

use ringway_coord_proto::wire::Reply;
use ringway_core::{Epoch, Moment, SessionId, ShardId, Span, Token};

use super::orders::Asker;
use super::waits::Around;
use super::{Fault, Output, Over, WatcherId};
use crate::error::Refusal;
use crate::notice::{Change, ChangeKind, Owned};
use crate::op::{CursorAt, Events, Op, WatchId, WatchOrder};
use crate::reply::{Beginning, watch_result};

/// Watches of one session.
pub const WATCHES_MAX: usize = 1 << 16;
/// Names in the state that a watch begins with.
pub const SNAPSHOT_NAMES_MAX: usize = 1 << 23;
/// The pause after an answer that says: try again.
const AGAIN: Span = Span::from_ms(50);

/// What is to be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// A name, or a prefix that ends in `/`.
    pub filter: Vec<u8>,
    /// What to tell of.
    pub events: Events,
    /// Bytes of notices that the server keeps; zero: its default.
    pub budget: u32,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    /// All that is owned at one moment, in the order of the names. What was known before is void.
    Snapshot(Vec<Owned>),
    /// A change of what is known.
    Change(Change),
    /// There is no connection: what is known may have changed meanwhile.
    Interrupted,
    /// The watch goes on, and nothing was missed: changes of the meantime follow.
    Resumed,
    /// The watch is over.
    Ended(WatchEnd),
}

/// Why a watch is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEnd {
    /// The server said no.
    Refused(Refusal),
    /// We did.
    Fault(Fault),
}

/// The state that is being gathered. A name has several holders if it is shared.
type Gathered = BTreeMap<(Vec<u8>, Token), SessionId>;

#[derive(Debug)]
struct Watch {
    request: WatchRequest,
    /// The number of the latest question (V2).
    wire: WatchId,
    gathered: Option<Gathered>,
    /// A state was handed over, and changes since then are, too.
    live: bool,
    /// The state that the latest question asked for was handed over; it may come before the answer.
    told: bool,
    cursor: BTreeMap<ShardId, (Epoch, u64)>,
    again_at: Option<Moment>,
}

/// All watches of the session.
#[derive(Debug, Default)]
pub(super) struct Watches {
    watches: BTreeMap<WatcherId, Watch>,
    numbers: BTreeMap<WatchId, WatcherId>,
    last_number: u32,
    /// Watches that a pause keeps from asking; a few at most, after an answer of `BUSY`.
    paused: usize,
}

impl Watches {
    pub(super) fn start(&mut self, id: WatcherId, request: WatchRequest, around: &mut Around<'_>) {
        let order = order(&request, WatchId(0), None);
        let fault = match Op::Watch(order).check() {
            Err(error) => Some(Fault::Op(error)),
            Ok(()) if self.watches.len() >= WATCHES_MAX => {
                Some(Fault::TooMany("watches", WATCHES_MAX))
            }
            Ok(()) => None,
        };
        if let Some(fault) = fault {
            let item = WatchItem::Ended(WatchEnd::Fault(fault));
            return around.out.push(Output::Watch { id, item });
        }
        let watch = Watch {
            request,
            wire: WatchId(0),
            gathered: None,
            live: false,
            told: false,
            cursor: BTreeMap::new(),
            again_at: None,
        };
        self.watches.insert(id, watch);
        self.ask(id, around);
    }

    /// The caller listens no more.
    pub(super) fn stop(&mut self, id: WatcherId, around: &mut Around<'_>) {
        if let Some(watch) = self.remove(id) {
            around.orders.push(Asker::Nobody, &Op::Unwatch(watch.wire));
        }
    }

    /// The caller has lost track and wants the state anew.
    pub(super) fn again(&mut self, id: WatcherId, around: &mut Around<'_>) {
        let Some(watch) = self.watches.get_mut(&id) else { return };
        around.orders.push(Asker::Nobody, &Op::Unwatch(watch.wire));
        watch.live = false;
        watch.gathered = None;
        self.ask(id, around);
    }

    pub(super) fn on_reply(
        &mut self,
        id: WatcherId,
        wire: WatchId,
        reply: Reply<'_>,
        around: &mut Around<'_>,
    ) {
        let Some(watch) = self.watches.get_mut(&id).filter(|watch| watch.wire == wire) else {
            return;
        };
        match watch_result(reply) {
            Ok(watching) => {
                let resumed = watching.beginning == Beginning::Resumed && watch.live;
                if !resumed && !watch.told && watch.gathered.is_none() {
                    watch.live = false;
                    watch.gathered = Some(Gathered::new());
                }
                for at in watching.cursor {
                    watch.advance(at);
                }
                if resumed {
                    around.out.push(Output::Watch { id, item: WatchItem::Resumed });
                }
            }
            Err(Refusal::Busy | Refusal::Starting(_)) => {
                watch.again_at = Some(around.now + AGAIN);
                self.paused += 1;
            }
            // Ours was taken by one of another connection's life; the next number is free.
            Err(Refusal::Exists) => self.ask(id, around),
            Err(refusal) => self.end(id, WatchEnd::Refused(refusal), around),
        }
    }

    pub(super) fn on_change(&mut self, wire: WatchId, change: Change, out: &mut Vec<Output>) {
        let Some((id, watch)) = self.by_number(wire) else { return };
        watch.advance(change.at);
        if let Some(gathered) = &mut watch.gathered {
            apply(gathered, change);
        } else if watch.live {
            out.push(Output::Watch { id, item: WatchItem::Change(change) });
        }
    }

    pub(super) fn on_state(&mut self, wire: WatchId, owned: Owned, around: &mut Around<'_>) {
        let Some((id, watch)) = self.by_number(wire) else { return };
        let gathered = watch.gathered.get_or_insert_default();
        gathered.insert((owned.name, owned.token), owned.session);
        if gathered.len() > SNAPSHOT_NAMES_MAX {
            around.orders.push(Asker::Nobody, &Op::Unwatch(wire));
            let fault = Fault::TooMany("names in a watch", SNAPSHOT_NAMES_MAX);
            self.end(id, WatchEnd::Fault(fault), around);
        }
    }

    pub(super) fn on_snapshot_end(&mut self, wire: WatchId, out: &mut Vec<Output>) {
        let Some((id, watch)) = self.by_number(wire) else { return };
        let Some(gathered) = watch.gathered.take() else { return };
        (watch.live, watch.told) = (true, true);
        let owned = |((name, token), session)| Owned { name, session, token };
        let item = WatchItem::Snapshot(gathered.into_iter().map(owned).collect());
        out.push(Output::Watch { id, item });
    }

    /// The server has dropped changes; it tells the state anew.
    pub(super) fn on_gap(&mut self, wire: WatchId) {
        let Some((_, watch)) = self.by_number(wire) else { return };
        (watch.live, watch.told) = (false, false);
        watch.gathered = Some(Gathered::new());
    }

    pub(super) fn interrupted(&mut self, out: &mut Vec<Output>) {
        self.numbers.clear();
        self.paused = 0;
        for (id, watch) in &mut self.watches {
            watch.again_at = None;
            if watch.gathered.take().is_none() && watch.live {
                out.push(Output::Watch { id: *id, item: WatchItem::Interrupted });
            }
        }
    }

    /// There is a connection again.
    pub(super) fn resumed(&mut self, around: &mut Around<'_>) {
        let ids: Vec<WatcherId> = self.watches.keys().copied().collect();
        ids.into_iter().for_each(|id| self.ask(id, around));
    }

    pub(super) fn over(&mut self, over: Over, out: &mut Vec<Output>) {
        for id in std::mem::take(self).watches.into_keys() {
            let item = WatchItem::Ended(WatchEnd::Fault(Fault::Over(over)));
            out.push(Output::Watch { id, item });
        }
    }

    pub(super) fn wake_at(&self) -> Option<Moment> {
        if self.paused == 0 {
            return None;
        }
        self.watches.values().filter_map(|watch| watch.again_at).min()
    }

    pub(super) fn pass_time(&mut self, around: &mut Around<'_>) {
        if self.wake_at().is_none_or(|at| around.now < at) {
            return;
        }
        let due = |watch: &Watch| watch.again_at.is_some_and(|at| at <= around.now);
        let ids: Vec<WatcherId> =
            self.watches.iter().filter(|(_, watch)| due(watch)).map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.ask(id, around));
    }

    fn ask(&mut self, id: WatcherId, around: &mut Around<'_>) {
        let Some(watch) = self.watches.get_mut(&id) else { return };
        if watch.again_at.take().is_some() {
            self.paused = self.paused.saturating_sub(1);
        }
        self.numbers.remove(&watch.wire);
        self.last_number = self.last_number.wrapping_add(1);
        watch.told = false;
        watch.wire = WatchId(self.last_number);
        self.numbers.insert(watch.wire, id);
        let cursor: Vec<CursorAt> = watch
            .cursor
            .iter()
            .map(|(shard, (epoch, sequence))| CursorAt {
                shard: *shard,
                epoch: *epoch,
                sequence: *sequence,
            })
            .collect();
        let resume = watch.live.then_some(cursor.as_slice());
        if resume.is_none() {
            watch.cursor.clear();
            watch.gathered = Some(Gathered::new());
        }
        let order = order(&watch.request, watch.wire, resume);
        around.orders.push(Asker::Watch(id, watch.wire), &Op::Watch(order));
    }

    fn end(&mut self, id: WatcherId, why: WatchEnd, around: &mut Around<'_>) {
        if self.remove(id).is_some() {
            around.out.push(Output::Watch { id, item: WatchItem::Ended(why) });
        }
    }

    fn remove(&mut self, id: WatcherId) -> Option<Watch> {
        let watch = self.watches.remove(&id)?;
        self.numbers.remove(&watch.wire);
        self.paused -= usize::from(watch.again_at.is_some());
        Some(watch)
    }

    fn by_number(&mut self, wire: WatchId) -> Option<(WatcherId, &mut Watch)> {
        let id = *self.numbers.get(&wire)?;
        Some((id, self.watches.get_mut(&id)?))
    }
}

impl Watch {
    /// Where to go on after a reconnect; it never moves back.
    fn advance(&mut self, at: CursorAt) {
        let place = self.cursor.entry(at.shard).or_insert((at.epoch, at.sequence));
        *place = (*place).max((at.epoch, at.sequence));
    }
}

fn order<'a>(
    request: &'a WatchRequest,
    watch: WatchId,
    resume: Option<&'a [CursorAt]>,
) -> WatchOrder<'a> {
    let WatchRequest { filter, events, budget } = request;
    WatchOrder { watch, events: *events, budget: *budget, snapshot: true, resume, filter }
}

fn apply(gathered: &mut Gathered, change: Change) {
    let Owned { name, session, token } = change.owned;
    match change.kind {
        ChangeKind::Acquired => {
            if change.skipped {
                // What was left out may be the release of whoever had it before.
                forget(gathered, &name);
            }
            gathered.insert((name, token), session);
        }
        ChangeKind::Released if change.shared => {
            gathered.remove(&(name, token));
        }
        ChangeKind::Released => forget(gathered, &name),
        ChangeKind::Changed(_) | ChangeKind::Waiting(_) => {}
    }
}

/// Nobody is known to have the name.
fn forget(gathered: &mut Gathered, name: &[u8]) {
    let all = (name.to_vec(), Token(0))..=(name.to_vec(), Token(u64::MAX));
    let before: Vec<_> = gathered.range(all).map(|(key, _)| key.clone()).collect();
    for key in before {
        gathered.remove(&key);
    }
}
