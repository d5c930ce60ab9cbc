//! Linearizability of one name, checked in O(n log n) thanks to tokens.
//!
//! A name is a register of its owner, or of those who share it. Every answer about an owned name
//! carries the token of the grant it saw, and tokens are handed out in order, so the order of all
//! that was seen is known and need not be searched for: it only has to agree with real time, and
//! every end of a grant needs a cause (a release, or something that ended the session).
//!
//! Every rule is necessary: a history that breaks one has no linearization. Requests whose answer
//! never came may have happened at any time after they were sent, or never.
//!
//! Rules:
//! - L1  A token belongs to one session.
//! - L2  Nothing that saw an older grant was asked after an answer that saw a newer one.
//! - L3  A name is found free, another's or newly granted only after a possible end of the grant
//!   before it.
//! - L4  A session whose end was confirmed is not seen as owner by who asks afterwards.
//! - L5  A release that was confirmed is the last that its grant is seen of, and each grant is
//!   released once.
//! - L6  A grant that was seen to be over is not seen again.
//! - L7  Nobody is seen to own what it has not asked for yet.
//! - L8  A grant has one mode, and grants that share a name have the same; of permits no more are
//!   given than there are. (L2 and L3 speak of grants that exclude each other.)
//! - L9  A revocation that was confirmed is the last that any grant before it is seen of.
//!
//! A transfer is a release by who gives and a registration by who gets. A wait is a registration
//! that takes effect at some moment between its call and the notice that tells of the grant.
//! Not here: who waited and was overtaken (`queue.rs`).
//! Tests: known-bad histories below, one a rule; the swarm feeds it good ones by the million.

use std::collections::BTreeMap;

use ringway_coord_proto::claims::Wish;
use ringway_core::{SessionId, Token};

/// What an answer said about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is (or just became) the asker's, or is another's.
    Owner(SessionId, Token),
    /// Nobody's.
    Free,
    /// The asker gave it back.
    Released,
    /// It was not the asker's, or not under the token given.
    NotOwner,
    /// No answer came, or none that says anything.
    Nothing,
}

/// Which request it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A query.
    Query,
    /// A registration, or a wait.
    Register,
    /// A registration that another made for the session, by transferring the name to it.
    Receive,
    /// Taking it from whoever holds it.
    Revoke,
    /// A release, under a token or none.
    Release(Option<Token>),
}

/// One request and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Who asked.
    pub client: usize,
    /// For which session, as far as known.
    pub by: Option<SessionId>,
    /// What.
    pub verb: Verb,
    /// When it was sent.
    pub call: u64,
    /// When the answer was read; `u64::MAX` if none was.
    pub ret: u64,
    /// What the answer said.
    pub seen: Seen,
    /// How the grant that was seen is held, if the answer says so.
    pub wish: Option<Wish>,
}

impl Entry {
    /// Whether a registration succeeded.
    pub fn is_granted(&self) -> bool {
        let mine = matches!(self.seen, Seen::Owner(session, _) if self.by == Some(session));
        self.verb == Verb::Register && mine
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { client, by, verb, call, ret, seen, wish } = self;
        let by = by.map_or("nobody".to_owned(), |by| by.to_string());
        write!(f, "{call}..{ret} client {client} for {by}: {verb:?} {seen:?} {wish:?}")
    }
}

/// When a session may have ended, and when it certainly had.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Not before this moment.
    pub possible_from: u64,
    /// Confirmed to who was told at this moment; `u64::MAX`: never.
    pub certain_by: u64,
    /// The client whose releases act for it.
    pub client: usize,
}

/// All that saw one token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    pub(super) session: SessionId,
    /// How it is held, if that is known.
    pub(super) wish: Option<Wish>,
    call_min: u64,
    call_max: u64,
    pub(super) ret_min: u64,
    pub(super) released_by: u64,
    /// Not before this moment was it over.
    pub(super) end_from: u64,
    /// Not before this moment was it granted.
    pub(super) granted_from: u64,
    /// It may have come by a transfer.
    pub(super) given: bool,
    /// The first request that saw this grant or a newer one.
    later_call_min: u64,
}

impl Sight {
    /// Whether its session has the name alone, as far as known.
    pub(super) fn is_alone(&self) -> bool {
        self.wish == Some(Wish::EXCLUSIVE)
    }
}

/// Checks the history of one name. `exclusive`: nobody ever asked to share it.
pub fn check(
    entries: &[Entry],
    ends: &BTreeMap<SessionId, End>,
    exclusive: bool,
) -> Result<(), String> {
    grants(entries, ends, exclusive).map(|_| ())
}

/// All grants of a name, after its history was checked.
pub(super) fn grants(
    entries: &[Entry],
    ends: &BTreeMap<SessionId, End>,
    exclusive: bool,
) -> Result<BTreeMap<Token, Sight>, String> {
    let mut sights = sights(entries, exclusive)?;
    let by_client = ByClient::new(entries);
    let unknown = Unknown::new(entries);
    for (token, sight) in &mut sights {
        let Some(end) = ends.get(&sight.session) else { continue };
        sight.end_from = by_client.ended_from(*token, sight, end);
        if unknown.before(sight.granted_from, (end.client, Some(sight.session))) {
            sight.granted_from = 0;
        }
        sight.given |=
            unknown.gifts.get(&Some(sight.session)).is_some_and(|call| *call <= sight.ret_min);
        if by_client.asked_from(end.client) > sight.ret_min {
            let Sight { session, ret_min, .. } = sight;
            return Err(format!("L7: {session} owned under {token} by {ret_min}, before it asked"));
        }
    }
    check_order(&sights)?;
    check_permits(&sights)?;
    check_certain_ends(entries, ends)?;
    let known = Known::new(&sights);
    for entry in entries {
        check_absence(entry, &sights, &known)?;
    }
    check_releases(entries, (&mut sights, exclusive), (&known, &unknown))?;
    Ok(sights)
}

/// When each of some releases was answered, and asked for.
type Releases = Vec<(u64, u64)>;

/// What each client asked for that may have changed who owns the name.
struct ByClient {
    /// The first registration of each client.
    registers: BTreeMap<usize, u64>,
    /// Releases that may have done something, by client and the token they name: latest last, and
    /// with each the earliest call among it and all later ones.
    releases: BTreeMap<(usize, Option<Token>), Releases>,
    /// Revocations that may have done something, by whomever, in the same way.
    revocations: Releases,
}

impl ByClient {
    fn new(entries: &[Entry]) -> Self {
        let (registers, releases) = (BTreeMap::new(), BTreeMap::new());
        let mut this = Self { registers, releases, revocations: Vec::new() };
        for entry in entries {
            match entry.verb {
                Verb::Query => {}
                Verb::Revoke => {
                    if matches!(entry.seen, Seen::Released | Seen::Nothing) {
                        this.revocations.push((entry.ret, entry.call));
                    }
                }
                Verb::Register | Verb::Receive => {
                    let first = this.registers.entry(entry.client).or_insert(entry.call);
                    *first = (*first).min(entry.call);
                }
                Verb::Release(under) => {
                    if matches!(entry.seen, Seen::Released | Seen::Nothing) {
                        let releases = this.releases.entry((entry.client, under)).or_default();
                        releases.push((entry.ret, entry.call));
                    }
                }
            }
        }
        let all = this.releases.values_mut().chain([&mut this.revocations]);
        for releases in all {
            releases.sort_unstable();
            let mut first = u64::MAX;
            for (_, call) in releases.iter_mut().rev() {
                first = first.min(*call);
                *call = first;
            }
        }
        this
    }

    /// When a client first asked for the name.
    fn asked_from(&self, client: usize) -> u64 {
        self.registers.get(&client).copied().unwrap_or(u64::MAX)
    }

    /// The first moment at which a grant may have ended: a release of it, a revocation of whatever
    /// there is, or its session's end.
    fn ended_from(&self, token: Token, sight: &Sight, end: &End) -> u64 {
        let first = |ends: &Releases| {
            let at = ends.partition_point(|(ret, _)| *ret < sight.call_min);
            ends.get(at).map(|(_, call)| *call)
        };
        let released = |under| self.releases.get(&(end.client, under)).and_then(first);
        let ended = [released(None), released(Some(token)), first(&self.revocations)];
        let ended = ended.into_iter().flatten().min();
        ended.unwrap_or(u64::MAX).min(end.possible_from)
    }
}

/// What was known of grants at each moment: when each was first answered, in that order, with what
/// is known of it and of all before it.
struct Known(Vec<(u64, Past)>);

/// What is known of some grants.
#[derive(Clone, Copy, Debug)]
struct Past {
    newest: Token,
    /// The latest request that saw one of them as an owner, and which.
    seen: (u64, Token),
    /// The one that lasts longest for certain, and until when.
    lasts: (u64, Token),
}

impl Known {
    fn new(sights: &BTreeMap<Token, Sight>) -> Self {
        let one = |(token, sight): (&Token, &Sight)| {
            let (seen, lasts) = ((sight.call_max, *token), (sight.end_from, *token));
            (sight.ret_min, Past { newest: *token, seen, lasts })
        };
        let mut known: Vec<_> = sights.iter().map(one).collect();
        known.sort_unstable_by_key(|(ret, past)| (*ret, past.newest));
        let mut all = Past { newest: Token(0), seen: (0, Token(0)), lasts: (0, Token(0)) };
        for (_, past) in &mut known {
            all.newest = all.newest.max(past.newest);
            all.seen = all.seen.max(past.seen);
            all.lasts = all.lasts.max(past.lasts);
            *past = all;
        }
        Self(known)
    }

    /// What is known of all grants answered before a moment.
    fn before(&self, moment: u64) -> Option<Past> {
        let count = self.0.partition_point(|(ret, ..)| *ret < moment);
        self.0[..count].last().map(|(_, past)| *past)
    }
}

/// L1, and the first half of L8.
fn sights(entries: &[Entry], exclusive: bool) -> Result<BTreeMap<Token, Sight>, String> {
    let mut sights: BTreeMap<Token, Sight> = BTreeMap::new();
    for entry in entries {
        let Seen::Owner(session, token) = entry.seen else { continue };
        let sight = sights.entry(token).or_insert(Sight {
            session,
            wish: exclusive.then_some(Wish::EXCLUSIVE),
            call_min: u64::MAX,
            call_max: 0,
            ret_min: u64::MAX,
            released_by: u64::MAX,
            // Of a session that nobody knows nothing is known.
            end_from: 0,
            granted_from: u64::MAX,
            given: false,
            later_call_min: 0,
        });
        if sight.session != session {
            return Err(format!("L1: token {token} of {} and of {session}", sight.session));
        }
        if sight.wish.is_some() && entry.wish.is_some() && sight.wish != entry.wish {
            return Err(format!("L8: {token} held as {:?} and {:?}", sight.wish, entry.wish));
        }
        sight.wish = sight.wish.or(entry.wish);
        sight.call_min = sight.call_min.min(entry.call);
        sight.call_max = sight.call_max.max(entry.call);
        sight.ret_min = sight.ret_min.min(entry.ret);
        if entry.by == Some(session) {
            sight.given |= entry.verb == Verb::Receive;
            if matches!(entry.verb, Verb::Register | Verb::Receive) {
                sight.granted_from = sight.granted_from.min(entry.call);
            }
        }
    }
    for sight in sights.values_mut() {
        // Nobody said what granted it.
        sight.granted_from = if sight.granted_from == u64::MAX { 0 } else { sight.granted_from };
    }
    Ok(sights)
}

/// Whether two grants may be there at once; of those whose mode nobody said nothing is known.
fn may_coexist(one: Option<Wish>, other: Option<Wish>) -> bool {
    one.is_none() || other.is_none() || (one == other && one != Some(Wish::EXCLUSIVE))
}

/// L2 and L3 between grants.
fn check_order(sights: &BTreeMap<Token, Sight>) -> Result<(), String> {
    // Of the grants that are newer, the one that was answered first; of each mode and of all.
    let mut newer: Vec<(Option<Wish>, Token, u64)> = Vec::new();
    let mut newest: Option<(Token, u64)> = None;
    for (token, sight) in sights.iter().rev() {
        if let Some((newer, ret)) = newest.filter(|(_, ret)| *ret < sight.granted_from) {
            return Err(format!(
                "L2: {newer} was answered at {ret}, before {token} was asked for at {}",
                sight.granted_from
            ));
        }
        for (_, newer, ret) in newer.iter().filter(|newer| !may_coexist(newer.0, sight.wish)) {
            if *ret < sight.call_max {
                return Err(format!(
                    "L2: {token} was seen by a request sent at {}, {newer} was answered at {ret}",
                    sight.call_max
                ));
            }
            if sight.end_from > *ret {
                return Err(format!(
                    "L3: {newer} was granted by {ret}, {token} of {} cannot have ended before {}",
                    sight.session, sight.end_from
                ));
            }
        }
        if newest.is_none_or(|(_, ret)| sight.ret_min < ret) {
            newest = Some((*token, sight.ret_min));
        }
        match newer.iter_mut().find(|(wish, ..)| *wish == sight.wish) {
            Some(first) if first.2 <= sight.ret_min => {}
            Some(first) => *first = (sight.wish, *token, sight.ret_min),
            None => newer.push((sight.wish, *token, sight.ret_min)),
        }
    }
    Ok(())
}

/// The second half of L8: grants that certainly were there at once are no more than permits.
fn check_permits(sights: &BTreeMap<Token, Sight>) -> Result<(), String> {
    let counting = |sight: &&Sight| sight.wish.is_some_and(|wish| wish.permits > 0);
    let mut edges: Vec<(u64, bool, u32)> = Vec::new();
    for sight in sights.values().filter(counting) {
        let permits = sight.wish.map_or(0, |wish| wish.permits);
        if sight.ret_min < sight.end_from {
            edges.push((sight.ret_min, true, permits));
            edges.push((sight.end_from, false, permits));
        }
    }
    edges.sort_unstable();
    let mut held: BTreeMap<u32, u32> = BTreeMap::new();
    for (at, begins, permits) in edges {
        let held = held.entry(permits).or_default();
        *held = if begins { *held + 1 } else { *held - 1 };
        if *held > permits {
            return Err(format!("L8: {held} hold one of {permits} permits at {at}"));
        }
    }
    Ok(())
}

/// L4.
fn check_certain_ends(entries: &[Entry], ends: &BTreeMap<SessionId, End>) -> Result<(), String> {
    for entry in entries {
        if let Seen::Owner(session, token) = entry.seen
            && let Some(end) = ends.get(&session)
            && entry.call > end.certain_by
        {
            return Err(format!(
                "L4: {session}, ended by {}, owns under {token} for a request sent at {}",
                end.certain_by, entry.call
            ));
        }
    }
    Ok(())
}

/// L3, L6 and L9 for answers that deny a grant.
fn check_absence(
    entry: &Entry,
    sights: &BTreeMap<Token, Sight>,
    known: &Known,
) -> Result<(), String> {
    let Some(Past { newest: token, seen: (seen_at, seen), lasts }) = known.before(entry.call)
    else {
        return Ok(());
    };
    let sight = &sights[&token];
    let denied = match (entry.seen, entry.verb) {
        (Seen::Free, _) => Some(lasts),
        (Seen::NotOwner, Verb::Release(under))
            if entry.by == Some(sight.session) && under.is_none_or(|under| under == token) =>
        {
            Some((sight.end_from, token))
        }
        _ => None,
    };
    if let Some((end_from, token)) = denied.filter(|(end_from, _)| *end_from > entry.ret) {
        return Err(format!(
            "L3: {:?} at {}..{}, but {token} of {} cannot have ended before {end_from}",
            entry.seen, entry.call, entry.ret, sights[&token].session
        ));
    }
    let revoked = entry.verb == Verb::Revoke && entry.seen == Seen::Released;
    if (entry.seen == Seen::Free || revoked) && seen_at > entry.ret {
        let (rule, what) = if revoked { ("L9", "revoked") } else { ("L6", "free") };
        return Err(format!(
            "{rule}: {what} by {}, and {seen}, granted before, is seen by a request sent at \
             {seen_at}",
            entry.ret
        ));
    }
    Ok(())
}

/// The first registration of each client, and for each session, whose answer never came.
struct Unknown {
    of_client: BTreeMap<usize, u64>,
    of_session: BTreeMap<Option<SessionId>, u64>,
    /// Of transfers to a session alone.
    gifts: BTreeMap<Option<SessionId>, u64>,
}

impl Unknown {
    fn new(entries: &[Entry]) -> Self {
        let (of_client, of_session) = (BTreeMap::new(), BTreeMap::new());
        let mut this = Self { of_client, of_session, gifts: BTreeMap::new() };
        let asks = |verb| matches!(verb, Verb::Register | Verb::Receive);
        let lost = |entry: &&Entry| asks(entry.verb) && entry.seen == Seen::Nothing;
        for entry in entries.iter().filter(lost) {
            let of_client = this.of_client.entry(entry.client).or_insert(u64::MAX);
            *of_client = entry.call.min(*of_client);
            let of_session = this.of_session.entry(entry.by).or_insert(u64::MAX);
            *of_session = entry.call.min(*of_session);
            if entry.verb == Verb::Receive {
                let gift = this.gifts.entry(entry.by).or_insert(u64::MAX);
                *gift = entry.call.min(*gift);
            }
        }
        this
    }

    /// Whether one of them may have granted something to a client and its session by a moment.
    fn before(&self, moment: u64, (client, by): (usize, Option<SessionId>)) -> bool {
        let firsts = [self.of_client.get(&client), self.of_session.get(&by)];
        firsts.into_iter().flatten().any(|first| *first <= moment)
    }
}

/// L5.
fn check_releases(
    entries: &[Entry],
    (sights, exclusive): (&mut BTreeMap<Token, Sight>, bool),
    (known, unknown): (&Known, &Unknown),
) -> Result<(), String> {
    let mut soonest = u64::MAX;
    for (_, sight) in sights.iter_mut().rev() {
        soonest = soonest.min(sight.call_min);
        sight.later_call_min = soonest;
    }
    let mut releases: Vec<&Entry> = entries.iter().filter(|e| e.seen == Seen::Released).collect();
    releases.sort_by_key(|entry| entry.ret);
    for release in releases {
        let Verb::Release(under) = release.verb else { continue };
        let Some(by) = release.by else { continue };
        // Of those that share a name each may be released.
        let newest = known.before(release.call).filter(|_| exclusive).map(|past| past.newest);
        let candidates: Vec<Token> = sights
            .range(newest.unwrap_or(Token(0))..)
            .take_while(|(_, sight)| sight.later_call_min <= release.ret)
            .filter(|(token, sight)| {
                sight.session == by
                    && sight.call_min <= release.ret
                    && sight.released_by >= release.call
                    && under.is_none_or(|under| under == **token)
            })
            .map(|(token, _)| *token)
            .collect();
        if unknown.before(release.ret, (release.client, release.by)) {
            continue;
        }
        match candidates.as_slice() {
            [] => return Err(format!("L5: {by} released at {} what it had not", release.ret)),
            [token] => {
                let sight = sights.get_mut(token).ok_or("a candidate")?;
                if sight.released_by != u64::MAX {
                    return Err(format!("L5: {token} was released twice"));
                }
                sight.released_by = release.ret;
                if sight.call_max > release.ret {
                    return Err(format!(
                        "L5: {token}, released by {}, is seen by a request sent at {}",
                        release.ret, sight.call_max
                    ));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);

    /// Tells a history of one name: who asked when, and what was answered when.
    #[derive(Default)]
    struct Told {
        entries: Vec<Entry>,
        ends: BTreeMap<SessionId, End>,
    }

    impl Told {
        fn new() -> Self {
            let mut told = Self::default();
            for (client, session) in [A, B].into_iter().enumerate() {
                let end = End { possible_from: u64::MAX, certain_by: u64::MAX, client };
                told.ends.insert(session, end);
            }
            told
        }

        fn entry(mut self, by: SessionId, verb: Verb, span: (u64, u64), seen: Seen) -> Self {
            let client = self.ends[&by].client;
            let (call, ret) = span;
            let (by, wish) = (Some(by), None);
            self.entries.push(Entry { client, by, verb, call, ret, seen, wish });
            self
        }

        /// A grant in a mode.
        fn shares(mut self, by: SessionId, span: (u64, u64), wish: Wish, token: u64) -> Self {
            let seen = Seen::Owner(by, Token(token));
            self = self.entry(by, Verb::Register, span, seen);
            self.entries.last_mut().expect("the entry").wish = Some(wish);
            self
        }

        fn register(self, by: SessionId, span: (u64, u64), owner: SessionId, token: u64) -> Self {
            self.entry(by, Verb::Register, span, Seen::Owner(owner, Token(token)))
        }

        fn query(self, span: (u64, u64), owner: SessionId, token: u64) -> Self {
            self.entry(A, Verb::Query, span, Seen::Owner(owner, Token(token)))
        }

        fn free(self, span: (u64, u64)) -> Self {
            self.entry(A, Verb::Query, span, Seen::Free)
        }

        fn release(self, by: SessionId, span: (u64, u64), seen: Seen) -> Self {
            self.entry(by, Verb::Release(None), span, seen)
        }

        fn ends(mut self, session: SessionId, possible_from: u64, certain_by: u64) -> Self {
            let client = self.ends[&session].client;
            self.ends.insert(session, End { possible_from, certain_by, client });
            self
        }

        fn verdict(&self) -> String {
            let exclusive = self.entries.iter().all(|entry| entry.wish.is_none());
            check(&self.entries, &self.ends, exclusive)
                .map_or_else(|why| why[..2].to_owned(), |()| "ok".into())
        }
    }

    /// An ordinary life of a name, with overlaps: nothing to complain about.
    #[test]
    fn a_good_history_passes() {
        let told = Told::new()
            .free((0, 1))
            .register(A, (2, 6), A, 1)
            .register(B, (3, 5), A, 1)
            .query((4, 30), B, 2)
            .release(A, (10, 12), Seen::Released)
            .register(B, (11, 20), B, 2)
            .release(A, (13, 14), Seen::NotOwner)
            .ends(B, 40, 50)
            .free((45, 46))
            .register(A, (60, 61), A, 3);
        assert_eq!(told.verdict(), "ok");
    }

    /// The same number for two owners is no fencing token at all.
    #[test]
    fn one_token_of_two_sessions_is_found() {
        assert_eq!(Told::new().register(A, (0, 1), A, 1).query((2, 3), B, 1).verdict(), "L1");
    }

    /// Somebody is shown the past after somebody else was shown the present.
    #[test]
    fn a_stale_read_is_found() {
        let told = Told::new()
            .register(A, (0, 1), A, 1)
            .release(A, (2, 3), Seen::Released)
            .register(B, (4, 5), B, 2);
        assert_eq!(told.query((6, 7), A, 1).verdict(), "L2");
    }

    /// Two owners: the second was granted what the first cannot have lost.
    #[test]
    fn a_grant_over_a_living_owner_is_found() {
        let told = Told::new().register(A, (0, 1), A, 1).register(B, (2, 3), B, 2);
        assert_eq!(told.verdict(), "L3");
        assert_eq!(told.ends(A, 3, u64::MAX).verdict(), "ok");
    }

    /// A name vanishes, or its owner is told that it is none.
    #[test]
    fn a_lost_grant_is_found() {
        let told = || Told::new().register(A, (0, 1), A, 1);
        assert_eq!(told().free((2, 3)).verdict(), "L3");
        assert_eq!(told().release(A, (2, 3), Seen::NotOwner).verdict(), "L3");
        assert_eq!(told().release(A, (2, u64::MAX), Seen::Nothing).free((4, 5)).verdict(), "ok");
    }

    /// Whoever was told that a session is over never meets it again.
    #[test]
    fn an_owner_after_its_end_is_found() {
        let told = Told::new().register(A, (0, 1), A, 1).ends(A, 2, 5);
        assert_eq!(told.query((6, 7), A, 1).verdict(), "L4");
    }

    /// A name that was found free after its grant does not go back to it.
    #[test]
    fn a_grant_that_comes_back_is_found() {
        let told = || Told::new().register(A, (0, 1), A, 1).ends(A, 2, u64::MAX).free((2, 4));
        assert_eq!(told().query((5, 6), A, 1).verdict(), "L6");
        assert_eq!(told().query((3, 6), A, 1).verdict(), "ok", "it overlaps what found it free");
        assert_eq!(Told::new().free((0, 3)).register(A, (4, 5), A, 1).verdict(), "ok");
    }

    /// A name has no owner that never asked for it, nor one before it asked.
    #[test]
    fn a_grant_that_nobody_asked_for_is_found() {
        assert_eq!(Told::new().query((0, 1), B, 1).verdict(), "L7");
        assert_eq!(Told::new().query((0, 1), B, 1).register(B, (2, 3), B, 1).verdict(), "L7");
        let lost = Told::new().entry(B, Verb::Register, (0, u64::MAX), Seen::Nothing);
        assert_eq!(lost.query((2, 3), B, 1).verdict(), "ok", "its answer was lost");
    }

    /// A release that was confirmed happened, and happened once.
    #[test]
    fn a_release_that_did_nothing_is_found() {
        let told = || Told::new().register(A, (0, 1), A, 1).release(A, (2, 3), Seen::Released);
        assert_eq!(told().query((4, 5), A, 1).verdict(), "L5");
        assert_eq!(told().release(A, (4, 5), Seen::Released).verdict(), "L5");
        assert_eq!(Told::new().release(B, (4, 5), Seen::Released).verdict(), "L5");
    }

    const SHARED: Wish = Wish { mode: 1, permits: 0 };
    const TWO: Wish = Wish { mode: 2, permits: 2 };

    /// Those who share a name are seen side by side; whoever wants it alone waits for all of them.
    #[test]
    fn a_grant_in_another_mode_is_found() {
        let told = || Told::new().shares(A, (0, 1), SHARED, 1);
        assert_eq!(told().shares(B, (2, 3), SHARED, 2).query((4, 5), A, 1).verdict(), "ok");
        assert_eq!(told().shares(B, (2, 3), Wish::EXCLUSIVE, 2).verdict(), "L3");
        assert_eq!(told().shares(B, (2, 3), TWO, 2).verdict(), "L3");
        assert_eq!(told().shares(B, (2, 3), TWO, 2).ends(A, 2, 9).verdict(), "ok");
        assert_eq!(told().shares(A, (2, 3), TWO, 1).verdict(), "L8");
        assert_eq!(told().shares(B, (2, 3), SHARED, 2).free((4, 5)).verdict(), "L3");
    }

    /// Grants that share a name are numbered in their order, too.
    #[test]
    fn a_smaller_token_after_a_larger_one_is_found() {
        let told = Told::new().shares(A, (0, 1), SHARED, 5).shares(B, (2, 3), SHARED, 4);
        assert_eq!(told.verdict(), "L2");
    }

    /// Two have the permits, and a third session gets one as well.
    #[test]
    fn one_permit_too_many_is_found() {
        let c = SessionId(3);
        let told = || {
            let told = Told::new().shares(A, (0, 1), TWO, 1).shares(B, (0, 3), TWO, 2);
            let mut told = told;
            told.ends.insert(c, End { possible_from: u64::MAX, certain_by: u64::MAX, client: 2 });
            told
        };
        assert_eq!(told().shares(c, (4, 5), TWO, 3).verdict(), "L8");
        assert_eq!(told().ends(B, 4, 9).shares(c, (4, 5), TWO, 3).verdict(), "ok");
    }

    /// What an operator took is not seen any more, and its holder may be told that it is another's.
    #[test]
    fn a_revocation_that_did_nothing_is_found() {
        let told = || {
            let told = Told::new().register(A, (0, 1), A, 1);
            told.entry(B, Verb::Revoke, (2, 3), Seen::Released)
        };
        assert_eq!(told().register(B, (4, 5), B, 2).verdict(), "ok");
        assert_eq!(told().query((4, 5), A, 1).verdict(), "L9");
    }
}
