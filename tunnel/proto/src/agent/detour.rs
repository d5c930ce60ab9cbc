//! A session whose packets are held back: looks beside them, and the way that its streams go.
//!
//! When to do what is decided in `crate::detour`; here it is done. Each agent decides for what it
//! sends: a network may hold back one way alone.
//!
//! Bounds: constant time for each carrier of a session and turn, and what filler costs.

use super::bond::{SHORT, seal_filler};
use super::*;
use crate::detour::{Advice, Filler, Records, Seen};
use crate::report::PacketsReport;
use crate::session::Share;

/// The far agent refuses packets if it had no room for one in so many, of at least so many.
const REFUSED_PART: u64 = 20;
const REFUSED_OF: u64 = 100;

/// What the far agent had no room for, when that was looked at last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NoRoom {
    /// Packets, of how many.
    dropped: u64,
    packets: u64,
    /// Those were more than one in [`REFUSED_PART`].
    many: bool,
}

impl Bond {
    /// Whether streams go by records though packets get through.
    pub(super) fn goes_by_records(&self, sabotage: Sabotage) -> bool {
        self.by_records.is_some() || sabotage.breaks(Rule::PacketsFirst)
    }

    /// Nothing is known of the paths of a session that begins anew.
    pub(super) fn forget_detour(&mut self, now: Moment, host: &mut impl Host) {
        (self.detour, self.by_records, self.filled) = (Detour::new(now), None, None);
        if core::mem::take(&mut self.held_back) {
            host.note(None, Note::NotHeldBack(self.peer));
        }
    }

    /// Filler that a look has left behind is over once it has arrived, its carrier is gone, or it
    /// has been stuck for long.
    fn clear_filler(&mut self, now: Moment) {
        let over = |slot| self.flows.filled(slot).is_none_or(|filled| filled.over);
        let old = !self.detour.may_trail(now);
        if !self.detour.is_looking() && self.filled.is_some_and(|slot| old || over(slot)) {
            self.fill(None);
        }
    }

    /// A carrier of records is filled, or none.
    fn fill(&mut self, with: Option<(CarrierSlot, Filler)>) {
        if let Some(before) = self.filled.take() {
            self.flows.set_filler(before, None);
        }
        self.filled = with.map(|(slot, _)| slot);
        if let Some((slot, filler)) = with {
            self.flows.set_filler(slot, Some(filler));
        }
    }

    fn packets_reports(&self) -> impl Iterator<Item = PacketsReport> {
        self.packets.iter().filter_map(|member| self.flows.packets_report(member.place))
    }

    /// Whether the far agent has had no room of late for more than one in [`REFUSED_PART`] packets
    /// that came: then what they bring says nothing of the network.
    fn look_refused(&mut self) -> bool {
        let add = |sum: NoRoom, report: PacketsReport| NoRoom {
            dropped: sum.dropped + report.dropped,
            packets: sum.packets + report.packets + report.dropped,
            ..sum
        };
        let mut now = self.packets_reports().fold(NoRoom::default(), add);
        let before = self.refused_there;
        let dropped = now.dropped.saturating_sub(before.dropped);
        match now.packets.checked_sub(before.packets) {
            Some(of) if of < REFUSED_OF => return before.many,
            Some(of) => now.many = dropped * REFUSED_PART > of,
            // A carrier has gone, and what it counted with it.
            None => {}
        }
        self.refused_there = now;
        now.many
    }

    /// Bytes of packets that came to the other end, and of streams that did by records.
    fn brought(&self) -> (u64, u64) {
        let packets = self.packets_reports();
        let on_the_way = self.slots().filter_map(|(slot, _)| self.flows.carrier(slot));
        let on_the_way: u64 = on_the_way.map(|report| report.flying).sum();
        (packets.map(|report| report.came).sum(), self.carried().saturating_sub(on_the_way))
    }

    /// Streams go another way from now on.
    fn lead(&mut self, now: Moment, advice: Advice, host: &mut impl Host) {
        let leaves = advice == Advice::Leave;
        self.by_records = leaves.then_some(now);
        self.flows.set_by_records(now, leaves);
        if advice == Advice::TryAgain {
            // What was measured while they were held back says nothing of now.
            for member in &self.packets {
                self.flows.packets_moved(now, member.place);
            }
            return;
        }
        if core::mem::replace(&mut self.held_back, leaves) != leaves {
            let note = if leaves { Note::HeldBack } else { Note::NotHeldBack };
            host.note(None, note(self.peer));
        }
    }
}

impl Agent {
    /// Looks whether packets are held back, and leads streams by what is faster. `full`: records
    /// take no more. Returns whether another turn is to follow.
    pub(super) fn plan_detour(
        &mut self,
        now: Moment,
        bond: &mut Bond,
        (full, host): (bool, &mut impl Host),
    ) -> bool {
        let packets = bond.packets.iter().filter_map(|member| bond.flows.carrier(member.place));
        let Some(path) = packets.filter(|one| one.usable).min_by_key(|one| one.rtt) else {
            // While none get through there is nothing to compare.
            bond.detour.interrupt();
            bond.fill(None);
            return false;
        };
        let records = match (bond.slots().next(), bond.usable()) {
            (None, _) => Records::Gone,
            (Some(_), 0) if !self.sabotage.breaks(Rule::SilentRecordsLeft) => Records::Silent,
            _ => Records::Usable,
        };
        if bond.detour.return_alone(now, records) {
            bond.lead(now, Advice::Return, host);
            return true;
        }
        let beside = self.best(bond, (None, Share::All), None, host).map(|(slot, _)| slot);
        let (packets, records) = bond.brought();
        let by_records = bond.by_records.is_some();
        let refused = bond.look_refused() && bond.detour.is_by_packets();
        let bound = !refused && bond.path_bound && bond.flows.has_bulk();
        let seen = Seen {
            packets,
            records,
            full: if by_records { full } else { bound },
            rtt: path.rtt,
            // On a shorter path a processor is the bound, not a network.
            may_look: path.rtt_min >= SHORT && beside.is_some(),
            filled: bond.filled.and_then(|slot| bond.flows.filled(slot)),
        };
        bond.clear_filler(now);
        let advice = self.sabotage.detour(bond.detour.look(now, seen));
        match advice {
            Advice::Stay => return false,
            Advice::Look(rate) => {
                bond.fill(beside.map(|slot| (slot, Filler::new(rate, path.rtt))));
            }
            Advice::LookNoMore => {
                if let Some(slot) = bond.filled {
                    bond.flows.end_filler(slot);
                }
            }
            Advice::Leave | Advice::TryAgain | Advice::Return => {
                bond.fill(None);
                bond.lead(now, advice, host);
            }
        }
        true
    }

    /// Fills the carrier that is looked at, as far as it takes any.
    pub(super) fn send_filler(&mut self, now: Moment, bond: &mut Bond, host: &mut impl Host) {
        let Some(slot) = bond.filled else { return };
        let Some(member) = bond.members.get(usize::from(slot.0)).copied().flatten() else {
            bond.fill(None);
            return;
        };
        let carrier = self.carriers[member.conn.index as usize].as_mut().expect("members have one");
        while bond.flows.may_fill(slot) {
            if host.backlog(member.conn) >= carrier.pace.waiting_max() {
                host.await_drain(member.conn, carrier.pace.waiting_max() / 2);
                return;
            }
            if !seal_filler(now, slot, bond, carrier, host) {
                return;
            }
        }
    }
}
