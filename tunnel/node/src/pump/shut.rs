//! Flows that wait until their peer's rate allows more: a line for each peer and way.
//!
//! What always holds:
//! - L1  A flow is at most once in a line, and leaves it when it is removed: a line is no longer
//!   than the flows that there are.
//! - L2  Before the first way opens nobody in a line is looked at, however many wait there; after
//!   that a bounded number a turn, in the order in which they came.
//!
//! Bounds: a flow costs an entry of a tree for each way, found in logarithmic time; a look at the
//! lines costs one step for each that is not empty, at most one for each peer and way, beside those
//! that go on. Not here: when a way opens (`rate.rs`).

use std::collections::BTreeMap;

use ringway_core::Moment;
use ringway_tunnel_proto::PeerId;

use super::flow::FlowKey;
use super::rate::Way;

/// Which line.
type Line = (PeerId, Way);

/// See the module.
#[derive(Default)]
pub(super) struct Shut {
    lines: BTreeMap<Line, BTreeMap<u64, FlowKey>>,
    next_ticket: u64,
    /// When the first way opens for which a flow waits, as far as was seen.
    opens_at: Option<Moment>,
    /// Flows that were looked at.
    #[cfg(test)]
    looks: u64,
}

impl Shut {
    /// A flow joins a line. Returns its place there.
    pub(super) fn join(&mut self, line: Line, key: FlowKey) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.lines.entry(line).or_default().insert(ticket, key);
        ticket
    }

    /// A flow leaves a line.
    pub(super) fn leave(&mut self, line: Line, ticket: u64) {
        let Some(waiting) = self.lines.get_mut(&line) else { return };
        waiting.remove(&ticket);
        if waiting.is_empty() {
            self.lines.remove(&line);
        }
    }

    /// Some way may open then.
    pub(super) fn opens_at(&mut self, at: Moment) {
        self.opens_at = self.opens_at.into_iter().chain([at]).min();
    }

    /// When lines are to be looked at.
    pub(super) fn next(&self) -> Option<Moment> {
        self.opens_at
    }

    /// Who is first in lines whose ways are open, so many of all at most, and one for each line:
    /// they have left them.
    pub(super) fn take_open(
        &mut self,
        now: Moment,
        most: usize,
        is_shut_until: impl Fn(Line) -> Option<Moment>,
    ) -> Vec<(FlowKey, Way)> {
        if self.opens_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let (mut taken, mut next) = (Vec::new(), None);
        // Who has many flows has no more of a turn than others.
        let each = most.div_ceil(self.lines.len().max(1));
        for (line, waiting) in &mut self.lines {
            let mut opens_at = is_shut_until(*line);
            if opens_at.is_none() {
                let first = std::iter::from_fn(|| waiting.pop_first()).take(each);
                taken.extend(first.map(|(_, key)| (key, line.1)));
                // The others next turn.
                opens_at = (!waiting.is_empty()).then_some(now);
            }
            next = next.into_iter().chain(opens_at).min();
        }
        self.lines.retain(|_, waiting| !waiting.is_empty());
        self.opens_at = next;
        #[cfg(test)]
        {
            self.looks += taken.len() as u64;
        }
        taken
    }

    /// How many flows were looked at so far.
    #[cfg(test)]
    pub(super) fn looks(&self) -> u64 {
        self.looks
    }
}
