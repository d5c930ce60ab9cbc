//! Linearizability of one name, checked in O(n log n) thanks to tokens.
//!
//! A name is a register of its owner. Every answer about an owned name carries the token of the
//! grant it saw, and tokens are handed out in order, so the order of all that was seen is known
//! and need not be searched for: it only has to agree with real time, and every end of a grant
//! needs a cause (a release, or something that ended the session).
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
//!
//! Tests: known-bad histories below, one a rule; the swarm feeds it good ones by the million.

use std::collections::BTreeMap;

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
    /// A registration.
    Register,
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
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { client, by, verb, call, ret, seen } = self;
        let by = by.map_or("nobody".to_owned(), |by| by.to_string());
        write!(f, "{call}..{ret} client {client} for {by}: {verb:?} {seen:?}")
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
struct Sight {
    session: SessionId,
    call_min: u64,
    call_max: u64,
    ret_min: u64,
    released_by: u64,
    end_from: u64,
    /// The first request that saw this grant or a newer one.
    later_call_min: u64,
}

/// Checks the history of one name.
pub fn check(entries: &[Entry], ends: &BTreeMap<SessionId, End>) -> Result<(), String> {
    let mut sights = sights(entries)?;
    let by_client = ByClient::new(entries);
    for (token, sight) in &mut sights {
        let Some(end) = ends.get(&sight.session) else { continue };
        sight.end_from = by_client.released_from(*token, sight, end);
        if by_client.asked_from(end.client) > sight.ret_min {
            let Sight { session, ret_min, .. } = sight;
            return Err(format!("L7: {session} owned under {token} by {ret_min}, before it asked"));
        }
    }
    check_order(&sights)?;
    check_certain_ends(entries, ends)?;
    let known = Known::new(&sights);
    for entry in entries {
        check_absence(entry, &sights, &known)?;
    }
    check_releases(entries, &mut sights, &known)
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
}

impl ByClient {
    fn new(entries: &[Entry]) -> Self {
        let mut this = Self { registers: BTreeMap::new(), releases: BTreeMap::new() };
        for entry in entries {
            match entry.verb {
                Verb::Query => {}
                Verb::Register => {
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
        for releases in this.releases.values_mut() {
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

    /// The first moment at which a grant may have ended: a release of it, or its session's end.
    fn released_from(&self, token: Token, sight: &Sight, end: &End) -> u64 {
        let first = |under: Option<Token>| {
            let releases = self.releases.get(&(end.client, under))?;
            let at = releases.partition_point(|(ret, _)| *ret < sight.call_min);
            releases.get(at).map(|(_, call)| *call)
        };
        let first = [first(None), first(Some(token))].into_iter().flatten().min();
        first.unwrap_or(u64::MAX).min(end.possible_from)
    }
}

/// What was known of grants at each moment: when each was first answered, in that order, with the
/// newest token and the latest request that saw an owner, among it and all before it.
struct Known(Vec<(u64, Token, (u64, Token))>);

impl Known {
    fn new(sights: &BTreeMap<Token, Sight>) -> Self {
        let one =
            |(token, sight): (&Token, &Sight)| (sight.ret_min, *token, (sight.call_max, *token));
        let mut known: Vec<_> = sights.iter().map(one).collect();
        known.sort_unstable();
        let (mut newest, mut latest) = (Token(0), (0, Token(0)));
        for (_, token, seen) in &mut known {
            newest = newest.max(*token);
            latest = latest.max(*seen);
            (*token, *seen) = (newest, latest);
        }
        Self(known)
    }

    /// The newest grant answered before a moment, and the latest request that saw any such.
    fn before(&self, moment: u64) -> Option<(Token, (u64, Token))> {
        let count = self.0.partition_point(|(ret, ..)| *ret < moment);
        let (_, newest, latest) = self.0[..count].last()?;
        Some((*newest, *latest))
    }
}

/// L1.
fn sights(entries: &[Entry]) -> Result<BTreeMap<Token, Sight>, String> {
    let mut sights: BTreeMap<Token, Sight> = BTreeMap::new();
    for entry in entries {
        let Seen::Owner(session, token) = entry.seen else { continue };
        let sight = sights.entry(token).or_insert(Sight {
            session,
            call_min: u64::MAX,
            call_max: 0,
            ret_min: u64::MAX,
            released_by: u64::MAX,
            // Of a session that nobody knows nothing is known.
            end_from: 0,
            later_call_min: 0,
        });
        if sight.session != session {
            return Err(format!("L1: token {token} of {} and of {session}", sight.session));
        }
        sight.call_min = sight.call_min.min(entry.call);
        sight.call_max = sight.call_max.max(entry.call);
        sight.ret_min = sight.ret_min.min(entry.ret);
    }
    Ok(sights)
}

/// L2 and L3 between grants.
fn check_order(sights: &BTreeMap<Token, Sight>) -> Result<(), String> {
    let mut newer: Option<(Token, u64)> = None;
    for (token, sight) in sights.iter().rev() {
        if let Some((newer, ret)) = newer {
            if ret < sight.call_max {
                return Err(format!(
                    "L2: {token} was seen by a request sent at {}, {newer} was answered at {ret}",
                    sight.call_max
                ));
            }
            if sight.end_from > ret {
                return Err(format!(
                    "L3: {newer} was granted by {ret}, {token} of {} cannot have ended before {}",
                    sight.session, sight.end_from
                ));
            }
        }
        if newer.is_none_or(|(_, ret)| sight.ret_min < ret) {
            newer = Some((*token, sight.ret_min));
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

/// L3 and L6 for answers that deny a grant.
fn check_absence(
    entry: &Entry,
    sights: &BTreeMap<Token, Sight>,
    known: &Known,
) -> Result<(), String> {
    let Some((token, (seen_at, seen))) = known.before(entry.call) else { return Ok(()) };
    let sight = &sights[&token];
    let denies = match (entry.seen, entry.verb) {
        (Seen::Free, _) => true,
        (Seen::NotOwner, Verb::Release(under)) => {
            entry.by == Some(sight.session) && under.is_none_or(|under| under == token)
        }
        _ => false,
    };
    if denies && sight.end_from > entry.ret {
        return Err(format!(
            "L3: {:?} at {}..{}, but {token} of {} cannot have ended before {}",
            entry.seen, entry.call, entry.ret, sight.session, sight.end_from
        ));
    }
    if entry.seen == Seen::Free && seen_at > entry.ret {
        return Err(format!(
            "L6: free by {}, and {seen}, granted before, is seen by a request sent at {seen_at}",
            entry.ret
        ));
    }
    Ok(())
}

/// The first registration of each client, and for each session, whose answer never came.
struct Unknown {
    of_client: BTreeMap<usize, u64>,
    of_session: BTreeMap<Option<SessionId>, u64>,
}

impl Unknown {
    fn new(entries: &[Entry]) -> Self {
        let mut this = Self { of_client: BTreeMap::new(), of_session: BTreeMap::new() };
        let lost = |entry: &&Entry| entry.verb == Verb::Register && entry.seen == Seen::Nothing;
        for entry in entries.iter().filter(lost) {
            let of_client = this.of_client.entry(entry.client).or_insert(u64::MAX);
            *of_client = entry.call.min(*of_client);
            let of_session = this.of_session.entry(entry.by).or_insert(u64::MAX);
            *of_session = entry.call.min(*of_session);
        }
        this
    }

    /// Whether one of them may have granted what a release gave back.
    fn before(&self, moment: u64, release: &Entry) -> bool {
        let firsts = [self.of_client.get(&release.client), self.of_session.get(&release.by)];
        firsts.into_iter().flatten().any(|first| *first <= moment)
    }
}

/// L5.
fn check_releases(
    entries: &[Entry],
    sights: &mut BTreeMap<Token, Sight>,
    known: &Known,
) -> Result<(), String> {
    let unknown = Unknown::new(entries);
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
        let newest = known.before(release.call).map(|(token, _)| token);
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
        if unknown.before(release.ret, release) {
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
            self.entries.push(Entry { client, by: Some(by), verb, call, ret, seen });
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
            check(&self.entries, &self.ends)
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
}
