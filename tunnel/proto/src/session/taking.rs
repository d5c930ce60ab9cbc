//! What comes for flows, and what room each has: a session's side of [`crate::memory`].
//!
//! A flow that got nothing for [`IDLE`] does not count among those that share windows. Its credit
//! stays good, because it cannot be taken back; when it is used again the flow counts again, and
//! gives back what is too much as its window is used up.
//!
//! Bounds: constant time a piece; a flow is looked at once more for each [`IDLE`] in which it was
//! used.

use super::*;
use crate::memory::Room;

/// A flow that got nothing for so long is idle, unless the way is longer.
const IDLE: Span = Span::from_ms(1000);

impl Flow {
    /// What the session's account has of it.
    pub(super) fn held(&self, window_first: u64) -> Held {
        let beyond = self.recv.window() - window_first;
        Held {
            bytes: self.recv.held(),
            reserved: self.recv.reserved(),
            windows: if self.in_use { beyond } else { 0 },
            flows: 1,
            kept: self.send.kept(),
        }
    }
}

impl Session {
    /// A piece of a stream has come.
    pub(super) fn stream(
        &mut self,
        now: Moment,
        id: FlowId,
        (offset, bytes, fin): (u64, &[u8], bool),
        outlet: &mut impl Outlet,
    ) -> Result<(), Violation> {
        if !self.flows.contains_key(&id) && !self.begin_there(now, id, outlet)? {
            return Ok(());
        }
        let first = self.settings.window_first;
        let flow = self.flows.get_mut(&id).expect("it was there or was just made");
        let (before, was_done) = (flow.held(first), flow.recv.is_done());
        let room = self.account.room(flow.recv.held(), flow.recv.reserved());
        let room = self.sabotage.unless(Rule::MemoryBounded, Room::ENDLESS, room);
        let received = flow.recv.receive(offset, bytes, fin, room, |bytes| outlet.data(id, bytes));
        let received = received.map_err(|_| Violation::Overrun(id))?;
        flow.used_at = now;
        let most = first + self.account.window_max(before.windows);
        let stretched = flow.recv.is_stuck() && {
            let rtt = rtt_min(&self.carriers);
            flow.recv.stretch(now, rtt, most)
        };
        if !flow.in_use && flow.recv.window() > first {
            flow.in_use = true;
            self.in_use.push_back((id, now + IDLE));
        }
        self.account.change(before, flow.held(first));
        if received.refused {
            self.account.note_refused();
        }
        let done = flow.recv.is_done();
        self.unacked += bytes.len() as u64;
        let much = flow.recv.unacked() >= ACK_BYTES.min(flow.recv.window() / 4)
            || self.unacked >= ACK_BYTES_ALL;
        // What came twice was not known to have come: the sender has lost our word for it. What is
        // refused it learns from what is not acknowledged.
        let at = if done || much || stretched || !received.news { now } else { now + ACK_DELAY };
        if received.news || !self.sabotage.breaks(Rule::AcksRepeated) {
            self.queue_ack(id, at);
        }
        if done && !was_done {
            outlet.event(Event::Finished(id));
        }
        Ok(())
    }

    /// The first piece of a flow has come. Returns whether there is one now.
    fn begin_there(
        &mut self,
        now: Moment,
        id: FlowId,
        outlet: &mut impl Outlet,
    ) -> Result<bool, Violation> {
        if !self.is_new(id)? {
            self.answer_done(id);
            return Ok(false);
        }
        if self.resetting.len() >= 2 * self.settings.flows_max + RESETS_UNHEARD_MAX {
            return Err(Violation::ResetsUnheard);
        }
        self.insert(now, id);
        if self.flows.len() + self.account.flows_beside() > self.settings.flows_max {
            self.reset(id, ResetCode::Busy);
            return Ok(false);
        }
        outlet.event(Event::Opened(id));
        Ok(true)
    }

    /// Of all bytes that were delivered to a flow's application, `waiting` are not taken yet.
    pub fn drained(&mut self, now: Moment, id: FlowId, waiting: u64) {
        self.forget_idle(now);
        // By whichever carrier pieces come: the one that stands by may have a shorter way.
        let usable = self.carriers.iter().filter(|carrier| carrier.is_usable());
        let rtt = usable.map(Carrier::rtt).max().unwrap_or(Span::ZERO);
        let first = self.settings.window_first;
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let before = flow.held(first);
        let most = first + self.account.window_max(before.windows);
        let raised = flow.recv.drained(now, waiting, rtt, most);
        if !flow.in_use && flow.recv.window() > first {
            (flow.in_use, flow.used_at) = (true, now);
            self.in_use.push_back((id, now + IDLE));
        }
        self.account.change(before, flow.held(first));
        if raised {
            self.queue_ack(id, now);
        }
    }

    /// Flows that were not used for long do not count any more.
    fn forget_idle(&mut self, now: Moment) {
        let idle = Span(4 * self.rtt_min().0).max(IDLE);
        let first = self.settings.window_first;
        while let Some((id, _)) = self.in_use.pop_front_if(|(_, due)| *due <= now) {
            let Some(flow) = self.flows.get_mut(&id) else { continue };
            let due = flow.used_at + idle;
            if due > now {
                self.in_use.push_back((id, due));
                continue;
            }
            let before = flow.held(first);
            flow.in_use = false;
            self.account.change(before, flow.held(first));
        }
    }
}
