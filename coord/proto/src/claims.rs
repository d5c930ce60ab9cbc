//! What some names have beside one owner: a mode with several holders, those who wait, metadata.
//!
//! Most names have none of it, so a record says by [`FLAG_SIDE`](crate::names::FLAG_SIDE) whether
//! its name has a *side* here, and whoever uses none of this pays neither bytes nor time. A *claim*
//! is what a session has on a name with a side: it holds the name together with others, or it waits
//! for it. An exclusive owner is no claim: it stands in the record.
//!
//! Always:
//! - C1  A record has a side exactly if it has the flag.
//! - C2  A session has at most one claim on a name, and every claim of a session is in the
//!   session's list, whose head its mirror keeps.
//! - C3  Waiters stand in the order in which they came; a holder never becomes a waiter again.
//! - C4  Versions of the metadata of one grant are 1, 2, 3 and so on; none is zero.
//! - C5  The bytes in use are the sum over all sides, claims and metadata, by what an allocator
//!   takes; nothing is added that would exceed the bound.
//!
//! Bounds: constant time, whatever waits. [`SIDE_BYTES`] a name with a side and its metadata,
//! [`CLAIM_BYTES`] a claim, [`TIMER_BYTES`] more for a wait with an end.
//! Not here: who gets a name next (`waiting`), who may ask (`names`). Tests: below, stories in
//! `tests/waiting.rs`.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ringway_core::wheel::TimerKey;

use crate::handle::Handle;
use crate::info::taken;
use crate::keyed::KeyedState;
use crate::paged::Paged;
use crate::places::Places;
use crate::sessions::Ticket;
use crate::wire::op;

/// How a name is held, or is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// A mode of REGISTER.
    pub mode: u8,
    /// How many may hold it at once; zero unless it is counting.
    pub permits: u32,
}

impl Wish {
    /// By one session alone.
    pub const EXCLUSIVE: Self = Self { mode: op::MODE_EXCLUSIVE, permits: 0 };

    /// Whether one more may hold a name that so many hold in this way already.
    pub const fn has_room(self, holders: u32) -> bool {
        match self.mode {
            op::MODE_SHARED => true,
            op::MODE_COUNTING => holders < self.permits,
            _ => holders == 0,
        }
    }
}

/// Neighbours of a place in a list; zero is none.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    before: u32,
    behind: u32,
}

/// Claims in an order.
#[derive(Clone, Copy, Debug, Default)]
struct List {
    first: u32,
    last: u32,
    len: u32,
}

/// What a name has beside an owner.
#[derive(Debug, Default)]
pub struct Side {
    /// The name's record. Zero: this place is empty, since no record has that number.
    record: u32,
    wish: Wish,
    holders: List,
    waiters: List,
    version: u32,
    /// It stands in the queue of those that are looked at again.
    stuck: bool,
    /// How many sessions had ended when holders were last looked for among them.
    looked_at: u64,
    meta: Option<Box<[u8]>>,
}

impl Side {
    /// How its holders hold it. Of no meaning while there are none.
    pub const fn wish(&self) -> Wish {
        self.wish
    }

    /// Claims that hold it, those included whose sessions have ended and are not swept yet.
    pub const fn holders(&self) -> u32 {
        self.holders.len
    }

    /// Claims that wait, those included whose sessions have ended and are not swept yet.
    pub const fn waiters(&self) -> u32 {
        self.waiters.len
    }

    /// How often its metadata was set, and what it is.
    pub fn meta(&self) -> (u32, &[u8]) {
        (self.version, self.meta.as_deref().unwrap_or_default())
    }

    const fn is_needless(&self) -> bool {
        self.holders.len == 0 && self.waiters.len == 0 && self.version == 0
    }
}

/// What a session has on a name.
#[derive(Debug, Default)]
pub struct Claim {
    /// The name's side. Zero: this place is empty.
    side: u32,
    session: u32,
    in_name: Link,
    in_session: Link,
    generation: u32,
    /// How it holds the name, or wants to.
    pub wish: Wish,
    waits: bool,
    /// Of a holder its token's sequence and epoch index, of a waiter when it came.
    pub value: u64,
    /// When its wait ends, if it does.
    pub timer: Option<TimerKey>,
    /// The op that is answered when the wait ends; without one its session gets a notice.
    pub reply: Option<Box<Ticket>>,
}

impl Claim {
    /// Whose it is.
    pub const fn session(&self) -> Handle {
        Handle::from_bits(self.session)
    }

    /// The name's side.
    pub const fn side(&self) -> u32 {
        self.side
    }

    /// Whether it waits; it holds the name otherwise.
    pub const fn waits(&self) -> bool {
        self.waits
    }
}

const _: () = assert!(size_of::<Claim>() <= 72, "a million may wait for one name");

/// Bytes of a name's side: its place, and its entry in the index, which is at least 7/16 full.
pub const SIDE_BYTES: usize = size_of::<Side>() + 12;
/// Bytes of a claim, in the same way.
pub const CLAIM_BYTES: usize = size_of::<Claim>() + 12;
/// Bytes of the timer of a wait that has an end.
pub const TIMER_BYTES: usize = 48;

/// There is no memory for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The sides and claims of one shard.
pub struct Claims {
    sides: Slab<Side>,
    claims: Slab<Claim>,
    by_record: Places,
    by_pair: Places,
    bytes: usize,
    most: usize,
}

impl Claims {
    /// None yet, and at most so many bytes.
    pub fn new(most: usize, keys: &KeyedState) -> Self {
        Self {
            sides: Slab::default(),
            claims: Slab::default(),
            by_record: Places::new(keys.clone()),
            by_pair: Places::new(keys.clone()),
            bytes: 0,
            most,
        }
    }

    /// Bytes in use.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Claims there are.
    pub const fn len(&self) -> usize {
        self.by_pair.len()
    }

    /// Whether no name has a side.
    pub const fn is_empty(&self) -> bool {
        self.by_record.is_empty()
    }

    /// Places of claims there ever were; the first is never used.
    pub fn places(&self) -> u32 {
        self.claims.items.len() as u32
    }

    /// The side of a record.
    pub fn of_record(&self, record: u32) -> Option<u32> {
        self.by_record.get(u64::from(record), |at| u64::from(self.sides.get(at).record))
    }

    /// A side that is there.
    pub fn side(&self, at: u32) -> &Side {
        self.sides.get(at)
    }

    /// The record of a side.
    pub fn record_of(&self, side: u32) -> u32 {
        self.sides.get(side).record
    }

    /// The side of a record, made if there is none.
    pub fn make_side(&mut self, record: u32) -> Result<u32, Full> {
        if let Some(side) = self.of_record(record) {
            return Ok(side);
        }
        self.charge(SIDE_BYTES)?;
        let at = self.sides.take();
        *self.sides.get_mut(at) = Side { record, ..Side::default() };
        let sides = &self.sides;
        self.by_record.insert(u64::from(record), at, |at| u64::from(sides.get(at).record));
        Ok(at)
    }

    /// Forgets a side on which nothing depends any more. True if it did.
    pub fn drop_if_needless(&mut self, side: u32) -> bool {
        let needless = self.sides.get(side).is_needless();
        if needless {
            self.by_record.remove(u64::from(self.sides.get(side).record), side);
            self.sides.give(side);
            self.bytes -= SIDE_BYTES;
        }
        needless
    }

    /// Sets how its holders hold a name that nobody held.
    pub fn set_wish(&mut self, side: u32, wish: Wish) {
        self.sides.get_mut(side).wish = wish;
    }

    /// Notes that holders were looked for among the first so many sessions that ended; how many of
    /// those are new since this was called last.
    pub fn look(&mut self, side: u32, ends: u64) -> u64 {
        ends - core::mem::replace(&mut self.sides.get_mut(side).looked_at, ends)
    }

    /// Notes whether a name is looked at again; false if that was noted before.
    pub fn set_stuck(&mut self, side: u32, stuck: bool) -> bool {
        core::mem::replace(&mut self.sides.get_mut(side).stuck, stuck) != stuck
    }

    /// Sets metadata; its new version.
    pub fn set_meta(&mut self, side: u32, bytes: &[u8]) -> Result<u32, Full> {
        let before = self.sides.get(side).meta.as_deref().map_or(0, taken);
        self.bytes -= before;
        if let Err(Full) = self.charge(taken(bytes)) {
            self.bytes += before;
            return Err(Full);
        }
        let side = self.sides.get_mut(side);
        side.meta = (!bytes.is_empty()).then(|| bytes.into());
        // A version that came round would look like an old one, after four billion changes.
        side.version = side.version.checked_add(1).unwrap_or(1);
        Ok(side.version)
    }

    /// The grant that the metadata belonged to is over.
    pub fn clear_meta(&mut self, side: u32) {
        let side = self.sides.get_mut(side);
        self.bytes -= side.meta.take().as_deref().map_or(0, taken);
        side.version = 0;
    }

    /// The claim of a session on a name.
    pub fn of_session(&self, side: u32, session: Handle) -> Option<u32> {
        self.by_pair.get(pair(side, session.bits()), |at| self.key_at(at))
    }

    /// A claim that is there.
    pub fn claim(&self, at: u32) -> &Claim {
        self.claims.get(at)
    }

    /// A claim that is there, to be changed.
    pub fn claim_mut(&mut self, at: u32) -> &mut Claim {
        self.claims.get_mut(at)
    }

    /// A claim at a place, if there is one.
    pub fn claim_at(&self, at: u32) -> Option<&Claim> {
        self.claims.items.get(at as usize).filter(|claim| claim.side != 0)
    }

    /// The claim that waits first.
    pub fn first_waiter(&self, side: u32) -> Option<u32> {
        some(self.sides.get(side).waiters.first)
    }

    /// The claim that holds the name longest.
    pub fn first_holder(&self, side: u32) -> Option<u32> {
        some(self.sides.get(side).holders.first)
    }

    /// The next claim of the same kind on the same name.
    pub fn next(&self, at: u32) -> Option<u32> {
        some(self.claims.get(at).in_name.behind)
    }

    /// How a claim that waits is named by its client. No other wait of this shard ever had it.
    pub fn ticket(&self, at: u32) -> u64 {
        u64::from(self.claims.get(at).generation) << 32 | u64::from(at)
    }

    /// The claim that was given a ticket, unless it is over.
    pub fn of_ticket(&self, ticket: u64) -> Option<u32> {
        let at = ticket as u32;
        self.claim_at(at).filter(|claim| u64::from(claim.generation) == ticket >> 32)?;
        Some(at)
    }

    /// Adds a claim behind the others of its kind. `head` is that of its session's list.
    pub fn add(
        &mut self,
        (side, session): (u32, Handle),
        head: &mut u32,
        (wish, waits): (Wish, bool),
        value: u64,
    ) -> Result<u32, Full> {
        self.charge(CLAIM_BYTES)?;
        let at = self.claims.take();
        let generation = self.claims.get(at).generation;
        *self.claims.get_mut(at) = Claim {
            side,
            session: session.bits(),
            in_session: Link { before: 0, behind: *head },
            generation,
            wish,
            waits,
            value,
            ..Claim::default()
        };
        self.link_in_name(at);
        if *head != 0 {
            self.claims.get_mut(*head).in_session.before = at;
        }
        *head = at;
        let claims = &self.claims;
        let key_at = |at: u32| pair(claims.get(at).side, claims.get(at).session);
        self.by_pair.insert(pair(side, session.bits()), at, key_at);
        Ok(at)
    }

    /// Removes a claim. `head` is that of its session's list.
    pub fn remove(&mut self, at: u32, head: &mut u32) -> Claim {
        self.unlink_in_name(at);
        let Link { before, behind } = self.claims.get(at).in_session;
        match some(before) {
            Some(before) => self.claims.get_mut(before).in_session.behind = behind,
            None => *head = behind,
        }
        if let Some(behind) = some(behind) {
            self.claims.get_mut(behind).in_session.before = before;
        }
        self.by_pair.remove(self.key_at(at), at);
        self.bytes -= CLAIM_BYTES;
        debug_assert!(self.claims.get(at).timer.is_none(), "its timer was taken");
        let generation = self.claims.get(at).generation;
        let claim = self.claims.give(at);
        self.claims.get_mut(at).generation = generation.wrapping_add(1);
        claim
    }

    /// A claim that waited holds the name from now on, under the token that `value` stands for.
    pub fn make_holder(&mut self, at: u32, value: u64) {
        self.unlink_in_name(at);
        let claim = self.claims.get_mut(at);
        (claim.waits, claim.value) = (false, value);
        self.link_in_name(at);
    }

    /// Gives a wait its timer, if there is memory for one.
    pub fn charge_timer(&mut self) -> Result<(), Full> {
        self.charge(TIMER_BYTES)
    }

    /// The timer of a wait is over.
    pub fn take_timer(&mut self, at: u32) -> Option<TimerKey> {
        let timer = self.claims.get_mut(at).timer.take();
        self.bytes -= timer.map_or(0, |_| TIMER_BYTES);
        timer
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Full> {
        if self.bytes + bytes > self.most {
            return Err(Full);
        }
        self.bytes += bytes;
        Ok(())
    }

    fn key_at(&self, at: u32) -> u64 {
        let claim = self.claims.get(at);
        pair(claim.side, claim.session)
    }

    fn link_in_name(&mut self, at: u32) {
        let claim = self.claims.get(at);
        let side = self.sides.get_mut(claim.side);
        let list = if claim.waits { &mut side.waiters } else { &mut side.holders };
        let before = core::mem::replace(&mut list.last, at);
        list.len += 1;
        match some(before) {
            Some(before) => self.claims.get_mut(before).in_name.behind = at,
            None => list.first = at,
        }
        self.claims.get_mut(at).in_name = Link { before, behind: 0 };
    }

    fn unlink_in_name(&mut self, at: u32) {
        let claim = self.claims.get(at);
        let Link { before, behind } = claim.in_name;
        let side = self.sides.get_mut(claim.side);
        let list = if claim.waits { &mut side.waiters } else { &mut side.holders };
        list.len -= 1;
        if before == 0 {
            list.first = behind;
        }
        if behind == 0 {
            list.last = before;
        }
        if let Some(before) = some(before) {
            self.claims.get_mut(before).in_name.behind = behind;
        }
        if let Some(behind) = some(behind) {
            self.claims.get_mut(behind).in_name.before = before;
        }
    }
}

const fn some(at: u32) -> Option<u32> {
    if at == 0 { None } else { Some(at) }
}

const fn pair(side: u32, session: u32) -> u64 {
    (side as u64) << 32 | session as u64
}

/// Things at places that are used again. Place zero stays empty: it stands for none.
struct Slab<T> {
    items: Paged<T>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { items: Paged::default(), free: Vec::new() }
    }
}

impl<T: Default> Slab<T> {
    fn get(&self, at: u32) -> &T {
        &self.items[at as usize]
    }

    fn get_mut(&mut self, at: u32) -> &mut T {
        &mut self.items[at as usize]
    }

    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| self.items.append())
    }

    fn give(&mut self, at: u32) -> T {
        self.free.push(at);
        core::mem::take(&mut self.items[at as usize])
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::{BTreeMap, BTreeSet};
    use alloc::vec;

    use ringway_core::rng::Rng;
    use ringway_core::wheel::Wheel;
    use ringway_core::{Moment, ShardId};

    use super::*;

    const SESSIONS: u32 = 5;
    const RECORDS: u32 = 4;

    /// What a side is said to be.
    #[derive(Default)]
    struct Modelled {
        /// Session, place, value: in order.
        holders: Vec<(u32, u32, u64)>,
        waiters: Vec<(u32, u32, u64)>,
        meta: Option<Vec<u8>>,
        version: u32,
    }

    /// The claims, and beside them plain maps and lists.
    struct Pair {
        claims: Claims,
        waits: Wheel<u32>,
        heads: Vec<u32>,
        model: BTreeMap<u32, Modelled>,
        /// Tickets that were ever given, and those of waits that are over.
        tickets: BTreeSet<u64>,
        over: Vec<u64>,
        timers: BTreeSet<u32>,
        most: usize,
    }

    fn handle(session: u32) -> Handle {
        Handle::new(ShardId(0), session)
    }

    impl Pair {
        fn new(most: usize) -> Self {
            Self {
                claims: Claims::new(most, &KeyedState::new([1, 2])),
                waits: Wheel::new(Moment(0)),
                heads: vec![0; SESSIONS as usize],
                model: BTreeMap::new(),
                tickets: BTreeSet::new(),
                over: Vec::new(),
                timers: BTreeSet::new(),
                most,
            }
        }

        fn step(&mut self, rng: &mut Rng) {
            let mut draw = |bound: u32| rng.below(u64::from(bound)) as u32;
            let (record, session) = (1 + draw(RECORDS), draw(SESSIONS));
            let (what, how) = (draw(8), draw(1_000));
            let before = self.claims.bytes();
            let Ok(side) = self.claims.make_side(record) else {
                assert!(before + SIDE_BYTES > self.most, "there is room for a side");
                return;
            };
            self.model.entry(record).or_default();
            match what {
                0..3 => self.add((record, side, session), how),
                3 | 4 => self.remove((record, side, session)),
                5 => self.promote((record, side, session), u64::from(how)),
                6 => self.describe((record, side), &vec![7; how as usize % 257]),
                _ => {
                    self.claims.clear_meta(side);
                    let modelled = self.model.get_mut(&record).expect("a side");
                    (modelled.meta, modelled.version) = (None, 0);
                }
            }
            let modelled = &self.model[&record];
            let needless =
                modelled.holders.is_empty() && modelled.waiters.is_empty() && modelled.version == 0;
            assert_eq!(self.claims.drop_if_needless(side), needless);
            if needless {
                self.model.remove(&record);
            }
        }

        fn add(&mut self, (record, side, session): (u32, u32, u32), how: u32) {
            if self.claims.of_session(side, handle(session)).is_some() {
                return;
            }
            let (wish, waits, value) = (Wish::EXCLUSIVE, how.is_multiple_of(2), u64::from(how));
            let head = &mut self.heads[session as usize];
            let place = (side, handle(session));
            let before = self.claims.bytes;
            let Ok(at) = self.claims.add(place, head, (wish, waits), value) else {
                return assert!(before + CLAIM_BYTES > self.most, "there is room for a claim");
            };
            let modelled = self.model.get_mut(&record).expect("a side");
            let list = if waits { &mut modelled.waiters } else { &mut modelled.holders };
            list.push((session, at, value));
            if waits {
                assert!(self.tickets.insert(self.claims.ticket(at)), "another's ticket");
                if how.is_multiple_of(3) && self.claims.charge_timer() == Ok(()) {
                    let timer = self.waits.insert(Moment(u64::from(how)), at);
                    self.claims.claim_mut(at).timer = Some(timer);
                    self.timers.insert(at);
                }
            }
        }

        fn take_timer(&mut self, at: u32) {
            let timer = self.claims.take_timer(at);
            assert_eq!(timer.is_some(), self.timers.remove(&at));
            timer.into_iter().for_each(|timer| {
                self.waits.cancel(timer);
            });
        }

        fn remove(&mut self, (record, side, session): (u32, u32, u32)) {
            let Some(at) = self.claims.of_session(side, handle(session)) else { return };
            self.take_timer(at);
            self.over.push(self.claims.ticket(at));
            let gone = self.claims.remove(at, &mut self.heads[session as usize]);
            let modelled = self.model.get_mut(&record).expect("a side");
            let list = if gone.waits() { &mut modelled.waiters } else { &mut modelled.holders };
            let known = list.iter().position(|one| *one == (session, at, gone.value));
            list.remove(known.expect("the model has it"));
        }

        fn promote(&mut self, (record, side, session): (u32, u32, u32), value: u64) {
            let Some(at) = self.claims.of_session(side, handle(session)) else { return };
            if !self.claims.claim(at).waits() {
                return;
            }
            self.take_timer(at);
            self.claims.make_holder(at, value);
            let modelled = self.model.get_mut(&record).expect("a side");
            modelled.waiters.retain(|(one, ..)| *one != session);
            modelled.holders.push((session, at, value));
        }

        fn describe(&mut self, (record, side): (u32, u32), bytes: &[u8]) {
            let modelled = self.model.get_mut(&record).expect("a side");
            let before = modelled.meta.as_deref().map_or(0, taken);
            let used = self.claims.bytes;
            match self.claims.set_meta(side, bytes) {
                Ok(version) => {
                    modelled.version += 1;
                    assert_eq!(version, modelled.version, "C4");
                    modelled.meta = (!bytes.is_empty()).then(|| bytes.to_vec());
                }
                Err(Full) => {
                    assert!(used - before + taken(bytes) > self.most, "there is room");
                    assert_eq!(self.claims.bytes, used, "nothing has changed");
                }
            }
        }

        /// C1 to C5.
        fn check(&self) {
            let mut bytes = self.timers.len() * TIMER_BYTES;
            let mut of_session = vec![BTreeSet::new(); SESSIONS as usize];
            for record in 1..=RECORDS {
                let side = self.claims.of_record(record);
                assert_eq!(side.is_some(), self.model.contains_key(&record), "C1");
                let (Some(at), Some(modelled)) = (side, self.model.get(&record)) else { continue };
                assert_eq!(self.claims.record_of(at), record);
                let side = self.claims.side(at);
                let meta = modelled.meta.as_deref().unwrap_or_default();
                assert_eq!(side.meta(), (modelled.version, meta));
                bytes += SIDE_BYTES + taken(meta);
                let lists = [
                    (self.claims.first_holder(at), side.holders(), &modelled.holders),
                    (self.claims.first_waiter(at), side.waiters(), &modelled.waiters),
                ];
                for (first, len, list) in lists {
                    assert_eq!(len as usize, list.len());
                    bytes += list.len() * CLAIM_BYTES;
                    let mut next = first;
                    for (session, place, value) in list {
                        assert_eq!(next, Some(*place), "C3");
                        let claim = self.claims.claim(*place);
                        assert_eq!((claim.session(), claim.value), (handle(*session), *value));
                        assert_eq!(self.claims.of_session(at, handle(*session)), Some(*place));
                        assert_eq!(self.claims.of_ticket(self.claims.ticket(*place)), next);
                        assert!(of_session[*session as usize].insert(*place), "C2");
                        next = self.claims.next(*place);
                    }
                    assert_eq!(next, None);
                }
            }
            for (head, of_session) in self.heads.iter().zip(of_session) {
                let first = some(*head);
                let next = |at: &u32| some(self.claims.claim(*at).in_session.behind);
                let listed: BTreeSet<u32> = core::iter::successors(first, next).collect();
                assert_eq!(listed, of_session, "C2");
            }
            let used = (self.claims.bytes(), self.claims.is_empty());
            assert_eq!(used, (bytes, self.model.is_empty()), "C5");
            assert!(bytes <= self.most, "C5");
        }
    }

    /// Whatever is added, promoted, described and removed, in any order and with little memory:
    /// lists, counts and bytes are those of a model, and a ticket stands for one wait for ever.
    #[test]
    fn claims_are_what_a_model_says() {
        for seed in 0..60 {
            let mut rng = Rng::new(seed);
            let most = if seed % 2 == 0 { usize::MAX >> 1 } else { 600 + 20 * seed as usize };
            let mut pair = Pair::new(most);
            for _ in 0..400 {
                pair.step(&mut rng);
                pair.check();
            }
            let live = |ticket: &&u64| pair.claims.of_ticket(**ticket).is_some();
            assert_eq!(pair.over.iter().find(live), None, "a wait that is over has no ticket");
            for session in 0..SESSIONS {
                for record in 1..=RECORDS {
                    let Some(side) = pair.claims.of_record(record) else { continue };
                    pair.remove((record, side, session));
                }
            }
            for record in 1..=RECORDS {
                let Some(side) = pair.claims.of_record(record) else { continue };
                pair.claims.clear_meta(side);
                assert!(pair.claims.drop_if_needless(side));
            }
            let left = (pair.claims.len(), pair.claims.bytes(), pair.claims.is_empty());
            assert_eq!(left, (0, 0, true));
        }
    }
}
