//! A quota of names in a run: never exceeded, refused only when it may be used up, and given back.
//!
//! One namespace of the few names may have it, smaller than the namespace, in runs with credentials
//! and without. Such small quotas are exact, whatever the number of shards (`docs/protocol.md`).
//!
//! Invariants:
//! - K1  At no moment are more names of the namespace certainly held than the quota allows.
//! - K2  `QUOTA` is an answer for a name that is free, while as many others as the quota allows may
//!   have been held.
//! - K3  When all holders are gone, whatever ended them, as many names can be granted as the quota
//!   allows; and when those are gone as well nothing of it is missing.
//!
//! Not here: quotas that are kept in blocks (`coord/proto/tests/quotas.rs`).

use std::collections::BTreeMap;

use ringway_core::Token;

use super::client::Sent;
use super::history::{Entry, Seen, Sight, Verb};
use super::world::{Judged, World};

/// A name that was refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    name: usize,
    call: u64,
    ret: u64,
}

/// All grants of each name.
pub(crate) type Grants = BTreeMap<usize, BTreeMap<Token, Sight>>;

impl World {
    /// The quota that a name is counted for.
    pub(crate) fn quota_of(&self, name: usize) -> Option<u64> {
        self.plan.gate.quota_of(&self.plan.names[name])
    }

    /// A name was refused. It was free, as the histories will see.
    pub(crate) fn refused(&mut self, index: usize, sent: &Sent, name: usize) -> Judged {
        if self.quota_of(name).is_none() {
            return Err(format!("K2: name {name} has no quota"));
        }
        self.tally.refused += 1;
        let (client, by) = (self.wires[index].client, self.wires[index].bound);
        let (verb, call, ret, seen) = (Verb::Query, sent.at, self.now, Seen::Free);
        let entry = Entry { client, by, verb, call, ret, seen, wish: None };
        self.oracle.entries.entry(name).or_default().push(entry);
        self.refusals.push(Refused { name, call, ret });
        Ok(())
    }

    /// K1, K2.
    pub(crate) fn check_quota(&self, grants: &Grants) -> Judged {
        let counted: Vec<usize> =
            (0..self.plan.names.len()).filter(|name| self.quota_of(*name).is_some()).collect();
        let Some(most) = counted.first().and_then(|name| self.quota_of(*name)) else {
            return Ok(());
        };
        let mut edges: Vec<(u64, bool)> = Vec::new();
        for name in &counted {
            let sights = grants.get(name).into_iter().flat_map(BTreeMap::values);
            let mut spans: Vec<_> = sights.map(|sight| (sight.ret_min, sight.end_from)).collect();
            spans.sort_unstable();
            let mut until = 0;
            for (from, end) in spans {
                let from = from.max(until);
                if from < end {
                    edges.extend([(from, true), (end, false)]);
                    until = end;
                }
            }
        }
        edges.sort_unstable();
        let mut held = 0;
        for (at, begins) in edges {
            held = if begins { held + 1 } else { held - 1 };
            if held > most {
                return Err(format!("K1: {held} names are held at {at}, {most} are allowed"));
            }
        }
        for refused in &self.refusals {
            let others = counted.iter().filter(|name| **name != refused.name);
            let held = others.filter(|name| self.may_be_held(**name, refused, grants)).count();
            if (held as u64) < most {
                return Err(format!("K2: {held} of {most} names may have been held: {refused:?}"));
            }
        }
        Ok(())
    }

    /// Whether somebody may have had a name when another was refused: whoever asked for it has not
    /// certainly given it back.
    fn may_be_held(&self, name: usize, refused: &Refused, grants: &Grants) -> bool {
        let asks = |entry: &&Entry| matches!(entry.verb, Verb::Register | Verb::Receive);
        let entries = self.oracle.entries.get(&name).into_iter().flatten();
        let mut asks = entries.filter(asks).filter(|entry| entry.call <= refused.ret);
        asks.any(|entry| match entry.seen {
            Seen::Owner(_, token) => {
                let sight = grants.get(&name).and_then(|grants| grants.get(&token));
                sight.is_none_or(|sight| sight.released_by >= refused.call)
            }
            Seen::Nothing => true,
            Seen::Free | Seen::Released | Seen::NotOwner => false,
        })
    }

    /// K3: these names were granted when all others were gone.
    pub(crate) fn check_returned(&self, granted: &[usize]) -> Judged {
        let counted = |name: &usize| self.quota_of(*name).is_some();
        let all: Vec<usize> = (0..self.plan.names.len()).filter(counted).collect();
        let Some(most) = all.first().and_then(|name| self.quota_of(*name)) else { return Ok(()) };
        let granted = granted.iter().filter(|name| counted(name)).count() as u64;
        if granted != most.min(all.len() as u64) {
            return Err(format!("K3: {granted} names are granted, {most} are free"));
        }
        Ok(())
    }
}
