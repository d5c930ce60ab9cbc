//! Deadlocks: sessions that wait for each other in a circle.
//!
//! Two readings of who waits for whom, neither of one moment. A pair that both have, with the same
//! ticket and the same token, was there all the time in between. So the pairs that both have were
//! all there at once, and what is a deadlock among them is one.
//!
//! Who waits for an exclusive or shared name waits until *all* of its holders give it back; who
//! waits for a permit, until *any* of them does. A session is *stuck* if it waits for something
//! that cannot come because its holders are stuck; the largest set of which that is true is the
//! truth. Among the stuck, circles are the reason, and one is told of each knot (Tarjan's strongly
//! connected components).
//!
//! Costs: O(n log n) for n pairs. A knot in which permits are involved need not be broken by
//! breaking the circle that is told; the next look tells another one.
//! Tests: below.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringway_client::{Ticket, WaitEdge};
use ringway_core::{SessionId, Token};

/// What a session that waits for a name waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// All holders.
    All,
    /// One holder of so many.
    Any(usize),
}

type Key<'a> = (SessionId, Ticket, SessionId, Token, &'a [u8]);

fn key(edge: &WaitEdge) -> Key<'_> {
    (edge.waiting, edge.ticket, edge.holder.session, edge.holder.token, &edge.name)
}

/// The pairs of the second reading that were in the first one, too.
pub(super) fn lasting(first: &[WaitEdge], second: Vec<WaitEdge>) -> Vec<WaitEdge> {
    let before: BTreeSet<Key<'_>> = first.iter().map(key).collect();
    second.into_iter().filter(|edge| before.contains(&key(edge))).collect()
}

/// The pairs between sessions that are stuck.
pub(super) fn stuck(edges: &[WaitEdge], needs: impl Fn(&[u8]) -> Needs) -> Vec<&WaitEdge> {
    let mut waits: BTreeMap<(SessionId, Ticket), Vec<&WaitEdge>> = BTreeMap::new();
    for edge in edges {
        waits.entry((edge.waiting, edge.ticket)).or_default().push(edge);
    }
    let waits: Vec<Vec<&WaitEdge>> = waits.into_values().collect();
    let mut of_session: BTreeMap<SessionId, usize> = BTreeMap::new();
    let mut for_holder: BTreeMap<SessionId, Vec<usize>> = BTreeMap::new();
    for (at, wait) in waits.iter().enumerate() {
        *of_session.entry(wait[0].waiting).or_default() += 1;
        wait.iter().for_each(|edge| for_holder.entry(edge.holder.session).or_default().push(at));
    }
    // How many of its holders have to turn out free for a wait to be hopeful.
    let mut missing: Vec<usize> = waits
        .iter()
        .map(|wait| match needs(&wait[0].name) {
            Needs::All => wait.len(),
            // Holders that are not listed count as free.
            Needs::Any(holders) => usize::from(holders <= wait.len()),
        })
        .collect();
    let mut free: VecDeque<SessionId> =
        for_holder.keys().filter(|session| !of_session.contains_key(session)).copied().collect();
    let mut hopeful = VecDeque::new();
    hopeful.extend((0..waits.len()).filter(|at| missing[*at] == 0));
    loop {
        while let Some(at) = hopeful.pop_front() {
            let session = waits[at][0].waiting;
            let left = of_session.get_mut(&session).expect("it waits");
            *left -= 1;
            if *left == 0 {
                free.push_back(session);
            }
        }
        let Some(session) = free.pop_front() else { break };
        for at in for_holder.get(&session).into_iter().flatten() {
            if missing[*at] > 0 {
                missing[*at] -= 1;
                hopeful.extend((missing[*at] == 0).then_some(*at));
            }
        }
    }
    let is_stuck = |session| of_session.get(&session).is_some_and(|left| *left > 0);
    let stuck_waits = waits.into_iter().zip(missing).filter(|(_, missing)| *missing > 0);
    stuck_waits.flat_map(|(wait, _)| wait).filter(|edge| is_stuck(edge.holder.session)).collect()
}

/// One circle of each knot.
pub(super) fn circles<'a>(stuck: &[&'a WaitEdge]) -> Vec<Vec<&'a WaitEdge>> {
    let mut graph: Graph<'a> = BTreeMap::new();
    for edge in stuck {
        graph.entry(edge.waiting).or_default().push(edge);
        graph.entry(edge.holder.session).or_default();
    }
    knots(&graph).iter().filter_map(|knot| circle(&graph, knot)).collect()
}

type Graph<'a> = BTreeMap<SessionId, Vec<&'a WaitEdge>>;

/// Tarjan's algorithm, with a stack of its own: chains may be as long as there are sessions.
fn knots(graph: &Graph<'_>) -> Vec<BTreeSet<SessionId>> {
    #[derive(Default)]
    struct Seen {
        index: usize,
        low: usize,
        on_stack: bool,
    }
    let mut seen: BTreeMap<SessionId, Seen> = BTreeMap::new();
    let (mut stack, mut knots) = (Vec::new(), Vec::new());
    for root in graph.keys() {
        if seen.contains_key(root) {
            continue;
        }
        // Where in its edges each session of the path is.
        let mut path = vec![(*root, 0)];
        while let Some((session, next)) = path.last_mut() {
            let session = *session;
            if *next == 0 {
                let index = seen.len();
                seen.entry(session).or_insert_with(|| {
                    stack.push(session);
                    Seen { index, low: index, on_stack: true }
                });
            }
            if let Some(edge) = graph[&session].get(*next) {
                *next += 1;
                let to = edge.holder.session;
                match seen.get(&to).map(|to| (to.on_stack, to.index)) {
                    None => path.push((to, 0)),
                    Some((true, index)) => {
                        lower(&mut seen.get_mut(&session).expect("s").low, index)
                    }
                    Some((false, _)) => {}
                }
                continue;
            }
            path.pop();
            let Seen { index, low, .. } = seen[&session];
            if let Some((parent, _)) = path.last() {
                lower(&mut seen.get_mut(parent).expect("on the path").low, low);
            }
            if low == index {
                let at = stack.iter().rposition(|on| *on == session).expect("on the stack");
                let knot: BTreeSet<SessionId> = stack.drain(at..).collect();
                for session in &knot {
                    seen.get_mut(session).expect("seen").on_stack = false;
                }
                knots.push(knot);
            }
        }
    }
    knots
}

fn lower(low: &mut usize, to: usize) {
    *low = (*low).min(to);
}

/// A shortest way from the first session of the knot back to it, if there is one.
fn circle<'a>(graph: &Graph<'a>, knot: &BTreeSet<SessionId>) -> Option<Vec<&'a WaitEdge>> {
    let start = *knot.first()?;
    let mut came: BTreeMap<SessionId, &WaitEdge> = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(session) = next.pop_front().filter(|_| !came.contains_key(&start)) {
        for edge in &graph[&session] {
            let to = edge.holder.session;
            if knot.contains(&to) && !came.contains_key(&to) {
                came.insert(to, edge);
                next.push_back(to);
            }
        }
    }
    let mut way = vec![*came.get(&start)?];
    while way[way.len() - 1].waiting != start {
        way.push(came[&way[way.len() - 1].waiting]);
    }
    way.reverse();
    Some(way)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringway_client::Holder;

    use super::*;

    /// `1 a 2`: session 1 waits for the name a, which session 2 holds. A name has one ticket for
    /// each session that waits for it.
    fn edges(text: &str) -> Vec<WaitEdge> {
        let edge = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| words[at].parse::<u64>().expect("a number");
            let name = words[1].as_bytes().to_vec();
            let ticket = Ticket(number(0) << 32 | u64::from(name[0]));
            let holder = Holder { session: SessionId(number(2)), token: Token(number(2)) };
            let waiting = SessionId(number(0));
            WaitEdge { waiting, ticket, since: Duration::ZERO, holder, name }
        };
        text.split(',').map(edge).collect()
    }

    fn told(text: &str, needs: impl Fn(&[u8]) -> Needs) -> Vec<Vec<u64>> {
        let edges = edges(text);
        let circles = circles(&stuck(&edges, needs));
        let sessions = |way: Vec<&WaitEdge>| way.iter().map(|edge| edge.waiting.0).collect();
        circles.into_iter().map(sessions).collect()
    }

    fn all(_: &[u8]) -> Needs {
        Needs::All
    }

    /// A chain has an end, a circle has none; who only waits for a circle is not part of it.
    #[test]
    fn circles_are_found_and_chains_are_not() {
        assert_eq!(told("1 a 2, 2 b 3, 3 c 4", all), Vec::<Vec<u64>>::new());
        assert_eq!(told("1 a 2, 2 b 1", all), [[1, 2]]);
        assert_eq!(told("9 z 1, 1 a 2, 2 b 3, 3 c 1, 3 d 7", all), [[1, 2, 3]]);
        assert_eq!(told("1 a 2, 2 b 1, 5 c 6, 6 d 5, 1 e 5", all), [[5, 6], [1, 2]]);
    }

    /// Of many ways around a knot the shortest is told.
    #[test]
    fn the_shortest_way_is_told() {
        assert_eq!(told("1 a 2, 2 b 3, 3 c 1, 2 d 1", all), [[1, 2]]);
    }

    /// A permit that somebody free holds comes back, and then the circle opens; if all holders are
    /// stuck, nobody will ever give one back. Holders that were not listed may be free.
    #[test]
    fn permits_need_one_holder_that_is_free() {
        let permits = |holders| {
            move |name: &[u8]| if name == b"p" { Needs::Any(holders) } else { Needs::All }
        };
        assert_eq!(told("1 p 2, 1 p 3, 2 b 1", permits(2)), Vec::<Vec<u64>>::new());
        assert_eq!(told("1 p 2, 1 p 3, 2 b 1, 3 c 1", permits(2)), [[1, 2]]);
        assert_eq!(told("1 p 2, 1 p 3, 2 b 1, 3 c 1", permits(17)), Vec::<Vec<u64>>::new());
        // A shared name has to be given back by all.
        assert_eq!(told("1 p 2, 1 p 3, 2 b 1", all), [[1, 2]]);
    }

    /// What one reading alone has may never have been there together with the rest.
    #[test]
    fn only_what_lasts_counts() {
        let (first, mut second) = (edges("1 a 2, 2 b 1"), edges("1 a 2, 2 b 1"));
        second[1].holder.token = Token(99);
        assert_eq!(lasting(&first, second.clone()), first[..1]);
        second[1] = WaitEdge { ticket: Ticket(7), ..first[1].clone() };
        assert_eq!(lasting(&first, second), first[..1]);
        assert_eq!(lasting(&first, first.clone()), first);
    }

    /// A chain as long as a crowd overflows no stack.
    #[test]
    fn long_chains_fit() {
        let most = 100_000;
        let chain: Vec<WaitEdge> = (1..=most)
            .map(|at| {
                let to = at % most + 1;
                let holder = Holder { session: SessionId(to), token: Token(to) };
                let (waiting, ticket) = (SessionId(at), Ticket(at));
                WaitEdge { waiting, ticket, since: Duration::ZERO, holder, name: b"n".to_vec() }
            })
            .collect();
        let circles = circles(&stuck(&chain, all));
        assert_eq!(circles.iter().map(Vec::len).collect::<Vec<_>>(), [most as usize]);
    }
}
