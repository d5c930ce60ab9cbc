//! Who holds a name and who waits for it, as anybody may ask; and what must be true of it at rest.
//!
//! Invariants:
//! - R1  Whatever is asked when: somebody holds a name that has waiters, alone or in one mode with
//!   others, and no more of them than there are permits.
//! - R2  Nobody waits who could have the name: the first in the queue wants it in another way than
//!   it is held, or there is no room.
//! - R3  At rest whoever waits and was not told otherwise stands in the queue, or has the name; and
//!   whose wait is over does not stand there.
//! - R4  The queue is in the order in which its members came.
//! - R5  At rest whoever counts on a name is among its holders.

use ringway_coord_proto::claims::Wish;
use ringway_coord_proto::wire::status;
use ringway_core::wire::{Reader, Truncated};
use ringway_core::{SessionId, Token};

use super::client::Sent;
use super::history::{Entry, Seen, Verb};
use super::waits::WaitKey;
use super::world::{Judged, World};
use crate::stream::Got;

/// After its deadline a wait may stand in the queue for so long.
const ENDED_WITHIN: u64 = 50_000_000;

/// What WAITERS says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    wish: Wish,
    holders: Vec<(SessionId, Token)>,
    waiters: Vec<(SessionId, u64, Wish)>,
}

fn queue_of(data: &[u8]) -> Result<Queue, Truncated> {
    let mut body = Reader::new(data);
    let wish = Wish { mode: body.u8()?, permits: body.u32()? };
    let (_, _) = (body.u32()?, body.u32()?);
    let mut queue = Queue { wish, ..Queue::default() };
    for _ in 0..body.u16()? {
        queue.holders.push((SessionId(body.u64()?), Token(body.u64()?)));
    }
    for _ in 0..body.u16()? {
        let (session, ticket) = (SessionId(body.u64()?), body.u64()?);
        queue.waiters.push((session, ticket, Wish { mode: body.u8()?, permits: body.u32()? }));
        body.u32()?;
    }
    if body.is_empty() { Ok(queue) } else { Err(Truncated) }
}

impl World {
    /// The answer to WAITERS. R1.
    pub(crate) fn waiters_answered(
        &mut self,
        index: usize,
        sent: &Sent,
        name: usize,
        got: &Got,
    ) -> Judged {
        let (client, by) = (self.wires[index].client, self.wires[index].bound);
        let (verb, call, ret) = (Verb::Query, sent.at, self.now);
        let queue = match got {
            Got::Plain(status::BUSY) if self.wires[index].may_close => return Ok(()),
            Got::Plain(status::FREE) => {
                let seen = Seen::Free;
                let entry = Entry { client, by, verb, call, ret, seen, wish: None };
                self.oracle.entries.entry(name).or_default().push(entry);
                Queue::default()
            }
            Got::Data(status::DATA, data) => {
                queue_of(data).map_err(|Truncated| format!("WAITERS of {} bytes", data.len()))?
            }
            _ => return Err(got.words()),
        };
        let Queue { wish, holders, waiters } = &queue;
        let too_many = match *wish {
            Wish::EXCLUSIVE => holders.len() > 1,
            Wish { permits: 0, .. } => false,
            Wish { permits, .. } => holders.len() > permits as usize,
        };
        let nobody = holders.is_empty() && got.status() == status::DATA;
        if too_many || (nobody && !self.plan.may_be_full()) {
            return Err(format!("R1: name {name} is held by {holders:?} as {wish:?}"));
        }
        let life = self.wires[index].life;
        for (session, ticket, _) in waiters {
            if let Some(wait) = self.waits.known.get_mut(&(life, name, *ticket)) {
                if wait.session != *session || wait.over.is_some_and(|over| over < call) {
                    return Err(format!("R3: {session} waits still, {wait:?}"));
                }
                wait.until = wait.until.max(call);
            }
        }
        for (session, token) in holders {
            self.oracle.owner_seen(*session, index)?;
            let (seen, wish) = (Seen::Owner(*session, *token), Some(*wish));
            let entry = Entry { client, by, verb, call, ret, seen, wish };
            self.oracle.entries.entry(name).or_default().push(entry);
        }
        self.check_order(life, name, &queue)?;
        self.check_room(name, &queue)?;
        if self.calm {
            self.waits.at_rest.insert(name, (queue, call));
        }
        Ok(())
    }

    /// R2.
    fn check_room(&self, name: usize, queue: &Queue) -> Judged {
        match queue.waiters.first() {
            Some((session, _, wanted))
                if *wanted == queue.wish
                    && queue.wish.has_room(queue.holders.len() as u32)
                    && !self.plan.may_be_full() =>
            {
                Err(format!("R2: {session} could have name {name}: {queue:?}"))
            }
            _ => Ok(()),
        }
    }

    /// R4.
    fn check_order(&self, life: u32, name: usize, queue: &Queue) -> Judged {
        let known = |ticket: u64| self.waits.known.get(&(life, name, ticket));
        let mut latest = 0;
        for (session, ticket, _) in &queue.waiters {
            let Some(wait) = known(*ticket) else { continue };
            if wait.ret < latest {
                return Err(format!("R4: {session} came before who waits before it: {queue:?}"));
            }
            latest = latest.max(self.waits.begun_from(name, wait));
        }
        Ok(())
    }

    /// R3, R5: nothing has happened for a while, and nothing is on its way.
    pub(crate) fn judge_rest(&mut self, name: usize) -> Judged {
        let (queue, asked) = self.waits.at_rest.remove(&name).unwrap_or_default();
        let Queue { holders, waiters, .. } = &queue;
        let life = self.life().unwrap_or(0);
        let here = (life, name, 0)..=(life, name, u64::MAX);
        let known = |ticket: &u64| self.waits.known.contains_key(&(life, name, *ticket));
        let unknown = waiters.iter().filter(|(_, ticket, _)| !known(ticket)).count();
        self.check_blocked(name, asked, unknown)?;
        let waits: Vec<WaitKey> = self.waits.known.range(here).map(|(key, _)| *key).collect();
        for key in waits {
            let wait = self.waits.known[&key];
            if wait.ret >= asked {
                continue;
            }
            let stands = waiters.iter().any(|(_, ticket, _)| *ticket == key.2);
            let holds = holders.iter().any(|(session, _)| *session == wait.session);
            if !stands && !holds && !self.may_be_over(&key, self.now) {
                return Err(format!("R3: name {name}: {wait:?} waits nowhere: {queue:?}"));
            }
            let (_, deadline) = self.waits.deadlines(name, &wait);
            if stands && deadline.saturating_add(ENDED_WITHIN) < asked {
                return Err(format!("R3: name {name}: {wait:?} waits beyond {deadline}"));
            }
        }
        for hold in self.oracle.holds.get(&name).into_iter().flatten() {
            let valid = self.is_valid(hold.client, hold.session) && self.is_live(hold.session);
            if valid && hold.since < asked && !holders.contains(&(hold.session, hold.token)) {
                return Err(format!("R5: name {name}: {hold:?} is not among {holders:?}"));
            }
        }
        Ok(())
    }
}
