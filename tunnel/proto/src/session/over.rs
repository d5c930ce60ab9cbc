//! Flows that are over: reset here or there, ended well, or unknown to the other side.
//!
//! What always holds:
//! - O1  A reset is said until the other side answers it by DONE, and once for each packet or watch
//!   that may have lost it, whatever is repeated.
//! - O2  What stands in queues for flows that are over is swept out once it is more than what
//!   stands there for others, so who begins and ends flows without end makes nothing grow.
//!
//! Bounds: constant time, amortised, for each flow that ends; resets that are not answered are
//! bounded where flows begin (`taking.rs`).

use super::*;

#[derive(Debug)]
pub(super) struct Resetting {
    pub(super) code: ResetCode,
    pub(super) sent: bool,
    /// In the queue of those that are looked after.
    pub(super) watched: bool,
}

/// Entries of queues that may be about flows that are over, beyond four for each that is not.
const STALE_MAX: usize = 1024;

impl Session {
    /// Ends all flows, each with this reason. The other agent, which may believe that they live, is
    /// told when there is a carrier again.
    pub fn give_up(&mut self, code: ResetCode, outlet: &mut impl Outlet) {
        let ids: Vec<FlowId> = self.flows.keys().copied().collect();
        for id in ids {
            self.reset(id, code);
            outlet.event(Event::Reset(id, code));
        }
    }

    /// Ends all flows here, each with this reason, without a word to the other agent: it has gone.
    pub fn abandon(&mut self, code: ResetCode, outlet: &mut impl Outlet) {
        let ids: Vec<FlowId> = self.flows.keys().copied().collect();
        for id in ids {
            self.remove(id);
            outlet.event(Event::Reset(id, code));
        }
    }

    /// Ends a flow at once, both ways. What is on its way is dropped.
    pub fn reset(&mut self, id: FlowId, code: ResetCode) {
        let watched = self.flows.get(&id).is_some_and(|flow| flow.watched);
        if self.remove(id) {
            self.resetting.insert(id, Resetting { code, sent: false, watched });
            self.resets_unsent.push_back(id);
        }
    }

    /// Whether a flow was there.
    pub(super) fn remove(&mut self, id: FlowId) -> bool {
        let Some(flow) = self.flows.remove(&id) else { return false };
        for segment in flow.send.segments() {
            let carrier = &mut self.carriers[usize::from(segment.carrier.0)];
            carrier.flying = carrier.flying.saturating_sub(segment.end - segment.start);
        }
        self.account.change(flow.held(self.settings.window_first), Held::default());
        if self.flows.is_empty() {
            self.spare.release();
        }
        self.sweep_queues();
        true
    }

    /// Forgets a flow that has ended both ways and has said so.
    pub(super) fn close_if_done(&mut self, id: FlowId, outlet: &mut impl Outlet) {
        let done = self
            .flows
            .get(&id)
            .is_some_and(|flow| flow.send.is_done() && flow.recv.is_done() && !flow.ack_queued);
        if done {
            self.remove(id);
            outlet.event(Event::Closed(id));
        }
    }

    pub(super) fn reset_there(
        &mut self,
        id: FlowId,
        code: ResetCode,
        outlet: &mut impl Outlet,
    ) -> Result<(), Violation> {
        if self.remove(id) {
            outlet.event(Event::Reset(id, code));
        } else {
            // Noted as having come, so that late pieces of it do not open it.
            self.is_new(id)?;
        }
        self.forget_reset(id);
        self.answer_done(id);
        Ok(())
    }

    pub(super) fn done_there(&mut self, id: FlowId, outlet: &mut impl Outlet) {
        self.forget_reset(id);
        if let Some(flow) = self.flows.get(&id) {
            // Good if it had all that we had to say, and said all that it had to.
            let good = flow.send.is_all_sent() && flow.recv.is_done();
            self.remove(id);
            let event = if good { Event::Closed(id) } else { Event::Reset(id, ResetCode::Gone) };
            outlet.event(event);
        }
    }

    fn forget_reset(&mut self, id: FlowId) {
        self.resetting.remove(&id);
        self.sweep_queues();
    }

    /// The other side asks about a flow that is over here.
    pub(super) fn answer_done(&mut self, id: FlowId) {
        if self.sabotage.breaks(Rule::OverIsSaid) {
            return;
        }
        if self.resetting.contains_key(&id) {
            self.repeat_reset(id);
        } else if self.dones.len() < DONES_MAX && self.dones.back() != Some(&id) {
            self.dones.push_back(id);
        }
    }

    /// A reset may not have been heard: it is said again (O1).
    pub(super) fn repeat_reset(&mut self, id: FlowId) {
        if let Some(reset) = self.resetting.get_mut(&id)
            && core::mem::take(&mut reset.sent)
        {
            self.resets_unsent.push_back(id);
        }
    }

    /// Says resets that are to be said, while `fits`.
    pub(super) fn fill_resets(
        &mut self,
        now: Moment,
        out: &mut Vec<u8>,
        fits: impl Fn(&Vec<u8>) -> bool,
    ) {
        while let Some(id) = self.resets_unsent.pop_front_if(|_| fits(out)) {
            let Some(reset) = self.resetting.get_mut(&id).filter(|reset| !reset.sent) else {
                continue;
            };
            let code = self.sabotage.unless(Rule::CodesTold, ResetCode::Busy, reset.code);
            Frame::Reset { flow: id, code }.write(out);
            self.saying.push(Said::Reset(id));
            reset.sent = true;
            if !core::mem::replace(&mut reset.watched, true) {
                self.watched.push_back((id, now + WATCH_EVERY));
            }
        }
    }

    /// O2.
    fn sweep_queues(&mut self) {
        let most = 4 * (self.flows.len() + self.resetting.len()) + STALE_MAX;
        let (flows, resetting) = (&self.flows, &self.resetting);
        let is = |id: &FlowId, what: fn(&Flow) -> bool| flows.get(id).is_some_and(what);
        if self.acks.len() > most {
            self.acks.retain(|(id, _)| is(id, |flow| flow.ack_queued));
        }
        if self.in_use.len() > most {
            self.in_use.retain(|(id, _)| is(id, |flow| flow.in_use));
        }
        for ready in self.ready.iter_mut().filter(|ready| ready.len() > most) {
            ready.retain(|id| is(id, |flow| flow.queued));
        }
        let unsaid = |id: &FlowId| resetting.get(id).is_some_and(|reset| !reset.sent);
        if self.resets_unsent.len() > most {
            self.resets_unsent.retain(unsaid);
        }
        if self.watched.len() > most {
            let watched = |id: &FlowId| resetting.get(id).is_some_and(|reset| reset.watched);
            self.watched.retain(|(id, _)| watched(id) || is(id, |flow| flow.watched));
        }
    }
}
