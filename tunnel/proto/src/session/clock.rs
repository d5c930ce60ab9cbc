//! What a session does because time has passed: it looks after what nobody hears of, and judges
//! carriers.
//!
//! Bounds: constant time for each flow that is due, and for each carrier.

use super::*;

impl Session {
    /// Sends again what nothing was heard of for long, a little of it at first, and resets that
    /// were not answered: the answer tells how things stand.
    fn look_after(&mut self, now: Moment) {
        let silence = [Rule::SilenceIsAsked, Rule::LostGoesAgain];
        if silence.into_iter().any(|rule| self.sabotage.breaks(rule)) {
            return;
        }
        while let Some((id, _)) = self.watched.pop_front_if(|(_, due)| *due <= now) {
            if let Some(reset) = self.resetting.get_mut(&id) {
                reset.watched = false;
                if !self.sabotage.breaks(Rule::ResetsRepeated) {
                    self.repeat_reset(id);
                }
                continue;
            }
            let Some(flow) = self.flows.get_mut(&id) else { continue };
            flow.watched = flow.send.is_waited_for();
            if flow.watched {
                self.watched.push_back((id, now + WATCH_EVERY));
            }
            let Some(first) = flow.send.first_flying() else {
                flow.send.ask_again(CarrierSlot::NONE);
                self.queue(id);
                continue;
            };
            let rtt = self.carriers[usize::from(first.carrier.0)].rtt();
            let patience = Span(8 * rtt.0).max(WATCH_EVERY);
            if now.since(first.at) >= patience {
                let carriers = &mut self.carriers;
                flow.send.lose_old(now - patience + Span(1), |segment| {
                    let carrier = &mut carriers[usize::from(segment.carrier.0)];
                    let bytes = segment.end - segment.start;
                    carrier.flying = carrier.flying.saturating_sub(bytes);
                    carrier.resent += bytes;
                });
                self.queue(id);
            }
        }
    }

    /// Judges carriers and looks after flows. Due at [`Self::wake_at`]; early or repeated calls do
    /// nothing.
    pub fn tick(&mut self, now: Moment, outlet: &mut impl Outlet) {
        self.look_after(now);
        for at in 0..self.carriers.len() {
            if self.carriers[at].judge(now) {
                let slot = CarrierSlot(at as u16);
                if !self.sabotage.breaks(Rule::SuspectsDoubted) {
                    self.doubt(now, slot);
                }
                outlet.event(Event::Suspect(slot));
            }
        }
    }

    /// When [`Self::tick`], [`Self::fill`] or [`Self::fill_packet`] will have something to do that
    /// they have not now.
    pub fn wake_at(&self) -> Option<Moment> {
        let carriers = self.carriers.iter().filter_map(Carrier::wake_at);
        let any = self.carriers.iter().any(Carrier::is_usable);
        let ack = self.acks.front().filter(|_| any).and_then(|(_, due)| self.ack_leaves_at(*due));
        let watched = self.watched.front().filter(|_| any).map(|(_, due)| *due);
        let slots = (0..self.carriers.len()).map(|at| CarrierSlot(at as u16));
        let packets = slots.filter_map(|slot| self.packets_wake_at(Moment(0), slot));
        carriers.chain(ack).chain(watched).chain(packets).min()
    }

    /// When an acknowledgement that is due then can leave: where packets carry them, with one of
    /// those.
    fn ack_leaves_at(&self, due: Moment) -> Option<Moment> {
        let usable = || self.carriers.iter().filter(|one| one.is_usable());
        let mut packets = usable().filter_map(|one| one.packets.as_deref()).peekable();
        if self.by_records {
            // Packets would take none.
            return usable().any(|one| one.packets.is_none()).then_some(due);
        }
        if packets.peek().is_none() {
            return Some(due);
        }
        packets.filter_map(|packets| packets.ready_at()).min().map(|ready| ready.max(due))
    }
}
