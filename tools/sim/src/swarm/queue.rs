//! Who waited for a name, and whether anybody overtook them.
//!
//! A wait that was answered with a ticket stands in the queue from then on until it ends. How long
//! it stood there at least is seen from outside: until the grant that its ticket was told of, or
//! until the last request that found it waiting still.
//!
//! Rules:
//! - Q1  First come, first served: who asks for a name after somebody was put into its queue gets
//!   it after them, whatever both want. What another transfers to it is no turn of its own.
//! - Q2  A name is never free while somebody waits for it: it is handed over in the step in which
//!   it becomes free.
//!
//! Not here: that a wait ends once (`waits.rs`), that nobody waits for what it could have
//! (`rest.rs`). Tests: below.

use std::collections::BTreeMap;

use ringway_core::{SessionId, Token};

use super::history::{Entry, Seen, Sight};

/// What is known of one wait.
#[derive(Clone, Copy, Debug)]
pub struct Waited {
    /// Who waited.
    pub session: SessionId,
    /// By when it stood in the queue.
    pub from: u64,
    /// When it was last seen there, by a request that was sent then.
    pub until: u64,
    /// The grant that its ticket was told of.
    pub granted: Option<Token>,
}

/// Checks what happened to a name while others waited for it.
pub(super) fn check(
    waits: &[Waited],
    entries: &[Entry],
    grants: &BTreeMap<Token, Sight>,
) -> Result<(), String> {
    for wait in waits {
        for (token, grant) in grants {
            let later = grant.granted_from > wait.from && !grant.given;
            let before = wait.granted.is_some_and(|mine| *token < mine);
            if later && grant.session != wait.session && (before || grant.ret_min <= wait.until) {
                return Err(format!(
                    "Q1: {} waited since {} at the latest, and {}, who asked at {}, got {token} \
                     first",
                    wait.session, wait.from, grant.session, grant.granted_from
                ));
            }
        }
        let mine = wait.granted.and_then(|token| grants.get(&token));
        // Once it was granted it was its session's, which cannot have lost it before.
        let until = mine.map_or(0, |mine| mine.ret_min.min(mine.end_from)).max(wait.until);
        let free = |entry: &&Entry| {
            entry.seen == Seen::Free && entry.call > wait.from && entry.ret < until
        };
        if let Some(entry) = entries.iter().find(free) {
            return Err(format!(
                "Q2: free at {}..{}, and {} waited from {} until {until}",
                entry.call, entry.ret, wait.session, wait.from
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::history::{End, Verb, grants};

    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);

    fn entry(by: SessionId, verb: Verb, span: (u64, u64), seen: Seen) -> Entry {
        let client = by.0 as usize;
        Entry { client, by: Some(by), verb, call: span.0, ret: span.1, seen, wish: None }
    }

    fn verdict(entries: &[Entry], waits: &[Waited]) -> String {
        let end =
            |by: SessionId| End { possible_from: 10, certain_by: u64::MAX, client: by.0 as usize };
        let ends = [A, B].into_iter().map(|by| (by, end(by))).collect();
        let grants = grants(entries, &ends, true).expect("a history of grants in order");
        let verdict = check(waits, entries, &grants);
        verdict.map_or_else(|why| why[..2].to_owned(), |()| "ok".into())
    }

    /// Whoever came later gets the name first, or was seen to have it while another waited.
    #[test]
    fn who_overtakes_is_found() {
        let granted = |by, span: (u64, u64), token| {
            entry(by, Verb::Register, span, Seen::Owner(by, Token(token)))
        };
        let wait = Waited { session: A, from: 20, until: 21, granted: Some(Token(9)) };
        let told = [granted(B, (22, 30), 8), granted(A, (18, 50), 9)];
        assert_eq!(verdict(&told, &[wait]), "Q1");
        let told = [granted(B, (19, 30), 8), granted(A, (18, 50), 9)];
        assert_eq!(verdict(&told, &[wait]), "ok", "it may have come before");
        let lost = Waited { until: 31, granted: None, ..wait };
        assert_eq!(verdict(&[granted(B, (22, 30), 8)], &[lost]), "Q1");
        let given = entry(B, Verb::Receive, (22, 30), Seen::Owner(B, Token(8)));
        assert_eq!(verdict(&[given], &[lost]), "ok", "who held it gave it away");
    }

    /// A name with a queue is found free.
    #[test]
    fn a_gap_before_a_hand_over_is_found() {
        let wait = Waited { session: A, from: 20, until: 40, granted: None };
        let free = |span| entry(B, Verb::Query, span, Seen::Free);
        assert_eq!(verdict(&[free((21, 22))], &[wait]), "Q2");
        assert_eq!(verdict(&[free((19, 22))], &[wait]), "ok");
        assert_eq!(verdict(&[free((39, 41))], &[wait]), "ok");
    }
}
