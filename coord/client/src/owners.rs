//! Who owns which name, known without asking: a cache that is kept right by watches.
//!
//! Each name in it has a watch of its own. The state that the watch begins with is the answer to
//! the first question, and its changes keep it right; so nothing is believed for a time, and
//! nothing is asked twice. While there is no connection nothing is known.
//!
//! Invariants:
//! - O1  What is told was true at the server, and no later notice that has come says otherwise.
//! - O2  At most as many names as were allowed, each with one watch; the one that was asked for
//!   longest ago makes room.
//!
//! Bounds: O(log n) a question or notice. Not here: the watches themselves (`engine`).
//! What is told is as old as the notice of a change is on its way: who acts on it sends fenced.

use std::collections::BTreeMap;

use ringway_core::{SessionId, Token};

use crate::engine::{WatchItem, WatcherId};
use crate::notice::ChangeKind;
use crate::reply::Holder;

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Its owner, or that it has none. Of a name with several holders the one that has it longest.
    Owner(Option<Holder>),
    /// Its watch has not told yet, or is interrupted.
    Asked(WatcherId),
    /// There is no watch.
    Nothing,
}

/// What a watch has told of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing that anybody waits for.
    Nothing,
    /// The owner, which was not known before.
    Owner(Option<Holder>),
    /// That somebody has it, but not who: the watch has to be asked for the state anew.
    Somebody,
}

#[derive(Debug)]
struct Entry {
    watch: WatcherId,
    /// By their tokens, which grow.
    holders: BTreeMap<Token, SessionId>,
    known: bool,
    used: u64,
}

/// The cache.
#[derive(Debug)]
pub struct Owners {
    most: usize,
    uses: u64,
    entries: BTreeMap<Vec<u8>, Entry>,
    by_watch: BTreeMap<WatcherId, Vec<u8>>,
    by_use: BTreeMap<u64, Vec<u8>>,
}

impl Owners {
    /// Of at most so many names; at least one.
    pub fn new(most: usize) -> Owners {
        let (entries, by_watch, by_use) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Owners { most: most.max(1), uses: 0, entries, by_watch, by_use }
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is known of the name, which counts as a use.
    pub fn find(&mut self, name: &[u8]) -> Known {
        let Some(entry) = self.entries.get_mut(name) else { return Known::Nothing };
        self.uses += 1;
        let name = self.by_use.remove(&entry.used).unwrap_or_else(|| name.to_vec());
        entry.used = self.uses;
        self.by_use.insert(entry.used, name);
        if entry.known { Known::Owner(entry.owner()) } else { Known::Asked(entry.watch) }
    }

    /// A watch of the name is about to begin; the one that has to end for it, if there is no room.
    pub fn begin(&mut self, name: &[u8], watch: WatcherId) -> Option<WatcherId> {
        let evicted = if self.entries.len() < self.most {
            None
        } else {
            let oldest = self.by_use.first_key_value().map(|(_, name)| name.clone());
            oldest.and_then(|name| self.entries.get(&name)).map(|entry| entry.watch)
        };
        evicted.iter().for_each(|watch| self.forget(*watch));
        self.uses += 1;
        let entry = Entry { watch, holders: BTreeMap::new(), known: false, used: self.uses };
        self.entries.insert(name.to_vec(), entry);
        self.by_watch.insert(watch, name.to_vec());
        self.by_use.insert(self.uses, name.to_vec());
        evicted
    }

    /// A watch has told something.
    pub fn hear(&mut self, watch: WatcherId, item: &WatchItem) -> Heard {
        let name = self.by_watch.get(&watch);
        let Some(entry) = name.and_then(|name| self.entries.get_mut(name)) else {
            return Heard::Nothing;
        };
        let was_known = entry.known;
        match item {
            WatchItem::Snapshot(owned) => {
                entry.holders = owned.iter().map(|owned| (owned.token, owned.session)).collect();
                entry.known = true;
            }
            WatchItem::Change(change) => match change.kind {
                ChangeKind::Acquired => {
                    if change.skipped {
                        entry.holders.clear();
                    }
                    entry.holders.insert(change.owned.token, change.owned.session);
                }
                ChangeKind::Released if change.shared => {
                    entry.holders.remove(&change.owned.token);
                    if entry.known && entry.holders.is_empty() {
                        entry.known = false;
                        return Heard::Somebody;
                    }
                }
                ChangeKind::Released => entry.holders.clear(),
                ChangeKind::Changed(_) | ChangeKind::Waiting(_) => {}
            },
            WatchItem::Interrupted => entry.known = false,
            WatchItem::Resumed => entry.known = true,
            WatchItem::Ended(_) => {
                self.forget(watch);
                return Heard::Nothing;
            }
        }
        if entry.known && !was_known { Heard::Owner(entry.owner()) } else { Heard::Nothing }
    }

    fn forget(&mut self, watch: WatcherId) {
        let Some(name) = self.by_watch.remove(&watch) else { return };
        if let Some(entry) = self.entries.remove(&name) {
            self.by_use.remove(&entry.used);
        }
    }
}

impl Entry {
    fn owner(&self) -> Option<Holder> {
        let (token, session) = self.holders.first_key_value()?;
        Some(Holder { session: *session, token: *token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::{Change, Owned};
    use crate::op::CursorAt;
    use ringway_core::{Epoch, ShardId};

    fn owned(token: u64) -> Owned {
        Owned { name: b"n".to_vec(), session: SessionId(token + 100), token: Token(token) }
    }

    fn holder(token: u64) -> Holder {
        Holder { session: SessionId(token + 100), token: Token(token) }
    }

    fn change(kind: ChangeKind, token: u64, skipped: bool) -> WatchItem {
        let at = CursorAt { shard: ShardId(0), epoch: Epoch(1), sequence: token };
        WatchItem::Change(Change { owned: owned(token), kind, skipped, shared: false, at })
    }

    /// A release that leaves other holders.
    fn leaves(token: u64) -> WatchItem {
        match change(ChangeKind::Released, token, false) {
            WatchItem::Change(change) => WatchItem::Change(Change { shared: true, ..change }),
            other => other,
        }
    }

    /// The life of one name: asked, known, changed, unknown while there is no connection, resumed.
    #[test]
    fn an_owner_is_known_while_its_watch_is_live() {
        let mut owners = Owners::new(4);
        assert_eq!(owners.find(b"n"), Known::Nothing);
        let watch = WatcherId(1);
        assert_eq!(owners.begin(b"n", watch), None);
        assert_eq!(owners.find(b"n"), Known::Asked(watch));
        let told = owners.hear(watch, &WatchItem::Snapshot(vec![owned(3)]));
        assert_eq!(told, Heard::Owner(Some(holder(3))));
        let released = change(ChangeKind::Released, 3, false);
        assert_eq!(owners.hear(watch, &released), Heard::Nothing);
        assert_eq!(owners.find(b"n"), Known::Owner(None));
        owners.hear(watch, &change(ChangeKind::Acquired, 5, false));
        owners.hear(watch, &WatchItem::Interrupted);
        assert_eq!(owners.find(b"n"), Known::Asked(watch), "it may have changed meanwhile");
        assert_eq!(owners.hear(watch, &WatchItem::Resumed), Heard::Owner(Some(holder(5))));
        owners.hear(watch, &change(ChangeKind::Acquired, 9, true));
        assert_eq!(owners.find(b"n"), Known::Owner(Some(holder(9))), "a release was left out");
    }

    /// One of several holders goes; the name still has an owner.
    #[test]
    fn a_shared_name_is_owned_until_the_last_has_gone() {
        let mut owners = Owners::new(4);
        owners.begin(b"n", WatcherId(1));
        owners.hear(WatcherId(1), &WatchItem::Snapshot(vec![owned(3), owned(4)]));
        owners.hear(WatcherId(1), &leaves(3));
        assert_eq!(owners.find(b"n"), Known::Owner(Some(holder(4))));
        owners.hear(WatcherId(1), &change(ChangeKind::Released, 4, false));
        assert_eq!(owners.find(b"n"), Known::Owner(None));
    }

    /// The last holder that is known of goes, and others are left that were not told, or were
    /// replaced by later news: nobody takes the name for free, the state is asked for anew.
    #[test]
    fn a_name_that_others_hold_still_is_not_free() {
        let mut owners = Owners::new(4);
        owners.begin(b"n", WatcherId(1));
        owners.hear(WatcherId(1), &WatchItem::Snapshot(vec![owned(3)]));
        owners.hear(WatcherId(1), &change(ChangeKind::Acquired, 6, true));
        assert_eq!(owners.hear(WatcherId(1), &leaves(6)), Heard::Somebody);
        assert_eq!(owners.find(b"n"), Known::Asked(WatcherId(1)));
        assert_eq!(owners.hear(WatcherId(1), &leaves(3)), Heard::Nothing, "it is asked already");
        let told = owners.hear(WatcherId(1), &WatchItem::Snapshot(vec![owned(5)]));
        assert_eq!(told, Heard::Owner(Some(holder(5))));
        // What was left out is not there any more when the name is free.
        owners.hear(WatcherId(1), &change(ChangeKind::Released, 9, true));
        assert_eq!(owners.find(b"n"), Known::Owner(None));
    }

    /// The name that was asked for longest ago makes room, with its watch; an evicted or ended
    /// watch has no more effect.
    #[test]
    fn the_least_used_name_makes_room() {
        let mut owners = Owners::new(2);
        owners.begin(b"a", WatcherId(1));
        owners.begin(b"b", WatcherId(2));
        owners.find(b"a");
        assert_eq!(owners.begin(b"c", WatcherId(3)), Some(WatcherId(2)));
        assert_eq!(owners.hear(WatcherId(2), &WatchItem::Snapshot(vec![])), Heard::Nothing);
        assert_eq!((owners.find(b"b"), owners.len()), (Known::Nothing, 2));
        let over = crate::engine::WatchEnd::Refused(crate::Refusal::Denied);
        owners.hear(WatcherId(1), &WatchItem::Ended(over));
        assert_eq!((owners.find(b"a"), owners.len()), (Known::Nothing, 1));
    }
}
