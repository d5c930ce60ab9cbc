//! One agent with hundreds of peers: what one of them costs and may do is its own matter.

mod net;

use net::star::Star;
use ringway_core::Span;
use ringway_tunnel_proto::{FlowId, NotLetIn, Note, PeerId, ResetCode};

/// How often the hub looks at connections while one of so many peers talks, and the others only are
/// there, each with a flow.
fn looks_beside(peers: usize) -> u64 {
    let mut star = Star::new(peers, 100);
    star.connect_all();
    let flows: Vec<_> = (0..peers).map(|at| star.open(at, b"hello")).collect();
    star.run_until(Span::from_s(5), |star| {
        (0..peers).all(|at| star.at_hub(at, flows[at].1).is_some_and(|app| app.read == b"hello"))
    });
    // Until everybody has heard of everything.
    star.run(Span::from_s(3));
    assert_eq!(star.hub.agent.wake_at(), None, "nobody says anything");
    let before = star.hub.desk.looks.get();
    let (bond, flow) = flows[0];
    let there = star.hub.agent.bond_to(PeerId(0)).expect("it is up");
    for _ in 0..50 {
        star.spokes[0].agent.push(bond, flow, &[1; 1000]);
        star.run(Span::from_ms(10));
        star.hub.agent.push(there, flow, &[2; 1000]);
        star.run(Span::from_ms(10));
    }
    star.run(Span::from_s(2));
    assert_eq!(star.spokes[0].desk.apps[&(bond, flow)].read.len(), 50_000);
    star.hub.desk.looks.get() - before
}

/// What a session costs does not depend on how many there are (A4).
#[test]
fn who_talks_costs_the_same_beside_hundreds() {
    let [few, many] = [2, 300].map(looks_beside);
    assert!(few >= 100, "{few}");
    assert!(many <= few + few / 10, "{few} beside one, {many} beside hundreds");
}

/// One opens more flows than it may, and one says more than anybody reads: the one is told, the
/// other waits, and everybody else has all that is theirs.
#[test]
fn limits_of_one_are_not_those_of_another() {
    const PEERS: usize = 150;
    const FLOWS: usize = 8;
    let mut star = Star::new(PEERS, FLOWS);
    star.connect_all();
    let greedy: Vec<_> = (0..3 * FLOWS).map(|_| star.open(0, b"more")).collect();
    let unread = star.open(1, &vec![7; 1 << 20]);
    let others: Vec<Vec<FlowId>> =
        (2..PEERS).map(|at| (0..FLOWS).map(|_| star.open(at, b"mine").1).collect()).collect();
    star.run_until(Span::from_s(10), |star| {
        others.iter().enumerate().all(|(at, flows)| {
            let whole = |flow| star.at_hub(2 + at, flow).is_some_and(|app| app.read == b"mine");
            flows.iter().all(|flow| whole(*flow))
        })
    });
    star.run(Span::from_s(1));
    let told = |place| star.spokes[0].desk.apps[place].reset;
    let busy = greedy.iter().filter(|place| told(place) == Some(ResetCode::Busy)).count();
    assert_eq!(busy, 2 * FLOWS);
    let read = star.at_hub(1, unread.1).expect("it came").read.len();
    assert!((60_000..=65_536).contains(&read), "{read} of what nobody takes");
    let resets = star.spokes[1..].iter().flat_map(|spoke| spoke.desk.apps.values());
    assert_eq!(resets.filter(|app| app.reset.is_some()).count(), 0);
    // One whose flows are read goes on as fast as ever.
    let (bond, flow) = (star.spokes[2].agent.bond_to(net::PEER).expect("it is up"), others[0][0]);
    star.spokes[2].agent.push(bond, flow, &vec![3; 1 << 20]);
    let there = star.hub.agent.bond_to(PeerId(2)).expect("it is up");
    let begun = star.now;
    while star.at_hub(2, flow).is_some_and(|app| app.read.len() < 1 << 20) {
        star.step();
        star.hub.agent.drained_by_application(star.now, there, flow, 0);
        assert!(star.now.since(begun) < Span::from_s(2), "it is held up");
    }
}

/// One peer of hundreds goes from the file: its flows end, it is not let in again, and nobody else
/// notices.
#[test]
fn one_that_is_taken_out_takes_nobody_with_it() {
    const PEERS: usize = 200;
    const OUT: usize = 77;
    let mut star = Star::new(PEERS, 100);
    star.connect_all();
    let flows: Vec<_> = (0..PEERS).map(|at| star.open(at, b"before")).collect();
    star.run(Span::from_s(1));
    let its = star.hub.agent.bond_to(PeerId(OUT as u16)).expect("it is up");
    star.know(|at| at != OUT);
    assert_eq!(star.hub.desk.apps[&(its, flows[OUT].1)].reset, Some(ResetCode::Denied));
    for (at, (bond, flow)) in flows.iter().enumerate() {
        star.spokes[at].agent.push(*bond, *flow, b" and after");
    }
    star.run(Span::from_s(5));
    for at in (0..PEERS).filter(|at| *at != OUT) {
        let app = star.at_hub(at, flows[at].1).expect("it is there");
        assert!(app.read == b"before and after" && app.reset.is_none(), "{at}");
        assert_eq!(star.spokes[at].desk.notes, [Note::Up(net::PEER)], "{at}");
    }
    assert!(star.hub.agent.bond_to(PeerId(OUT as u16)).is_none());
    let unknown = |note: &Note| matches!(note, Note::NotLetIn(NotLetIn::Unknown(_)));
    assert!(star.hub.desk.notes.iter().any(unknown), "it has knocked");
}
