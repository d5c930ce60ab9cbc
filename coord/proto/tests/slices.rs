//! Stories of much that ends at once: it is cleared away in slices, a bounded one a turn, and who
//! asks between two of them is answered in that turn.

use ringway_coord_proto::wire::op;
use ringway_core::Span;
use ringway_core::limits::{EXPIRIES_PER_TURN, SWEEP_NAMES_PER_TURN};
use ringway_sim::native::{Native, open, query, register};
use ringway_sim::process::{Process, Settings};
use ringway_sim::stories::words;

/// One turn in which a neighbour asks for a name: it is answered in that turn. Whether the shard
/// wants another turn.
fn turn_with_a_neighbour(process: &mut Process, neighbour: &mut Native, expected: &str) -> bool {
    let before = neighbour.frames.len();
    neighbour.send(process, &[query("mine")]);
    let busy = process.end_turn(0);
    neighbour.receive(process);
    assert_eq!(neighbour.frames.len(), before + 1, "answered in the turn in which it asked");
    assert_eq!(words(&neighbour.frames[before]), expected);
    busy
}

/// A session of 20 000 names ends. From that turn on all of them are free to everybody, though
/// their records are cleared away at most 2048 a turn, and a neighbour does not wait for that. What
/// another has claimed meanwhile is not cleared away with them.
#[test]
fn names_of_an_ended_session_are_swept_in_slices() {
    const NAMES: usize = 20_000;
    let mut process = Process::start(&Settings::default());
    let mut neighbour = Native::connect(&mut process, 0);
    assert_eq!(words(&neighbour.ask(&mut process, &[register("mine")])), "GRANTED 1");
    let mut owner = Native::connect(&mut process, 0);
    let names: Vec<String> = (0..NAMES).map(|name| format!("name/{name}")).collect();
    for some in names.chunks(4000) {
        let asked: Vec<_> = some.iter().map(|name| register(name)).collect();
        owner.ask(&mut process, &asked);
    }
    let held = |process: &Process| process.shard(0).names().table().len();
    assert_eq!(held(&process), NAMES + 1);

    process.disconnect(owner.link);
    let (mut turns, mut before) = (0, held(&process));
    while turn_with_a_neighbour(&mut process, &mut neighbour, "OWNED 1") {
        let now = held(&process);
        assert!(before - now <= SWEEP_NAMES_PER_TURN, "{} names in turn {turns}", before - now);
        (turns, before) = (turns + 1, now);
        if turns == 2 {
            // Most records still stand; none of them stands for an owner.
            assert!(now > NAMES / 2, "{now}");
            let last = names.len() - 1;
            neighbour.send(&mut process, &[query(&names[last]), register(&names[last])]);
            process.end_turn(0);
            neighbour.receive(&mut process);
            assert_eq!(words(neighbour.frames.last().expect("answered")), "FREE, GRANTED 2");
            before = held(&process);
        }
        assert!(turns < 100, "it never ends");
    }
    assert!(turns >= NAMES / SWEEP_NAMES_PER_TURN - 1, "{turns} turns");
    assert_eq!(held(&process), 2, "the neighbour's name, and the one it claimed");
}

/// 5000 leases run out at the same moment. At most 1024 sessions end in a turn, the rest follows
/// in the next ones without anybody asking for it, and a neighbour is answered in each.
#[test]
fn expiries_are_sliced() {
    const SESSIONS: usize = 5000;
    let mut process = Process::start(&Settings::default());
    let mut neighbour = Native::connect(&mut process, 0);
    neighbour.ask(&mut process, &[register("mine")]);
    let mut gateway = Native::connect(&mut process, 0);
    let asked = |node: usize| open(op::OPEN_GATEWAY, node as u64 + 1, 1000, None);
    for first in (0..SESSIONS).step_by(1000) {
        let asked: Vec<_> = (first..first + 1000).map(asked).collect();
        assert_eq!(gateway.ask(&mut process, &asked).len(), 1000);
    }
    let expired = |process: &Process| process.shard(0).sessions().counts().ended[0] as usize;
    assert_eq!(process.shard(0).sessions().len(), SESSIONS + 1);

    // Lease time runs in small steps, so the shard wakes a few times before the leases are over.
    let (mut turns, mut before) = (0, 0);
    while expired(&process) < SESSIONS {
        let busy = turn_with_a_neighbour(&mut process, &mut neighbour, "OWNED 1");
        let now = expired(&process);
        assert!(now - before <= EXPIRIES_PER_TURN, "{} ended in one turn", now - before);
        if now == before {
            process.pass(Span::from_ms(2));
        } else {
            assert!(busy || now == SESSIONS, "the rest is due, and nobody is asked for it");
        }
        (turns, before) = (turns + usize::from(now > before), now);
    }
    assert!(turns >= SESSIONS / EXPIRIES_PER_TURN, "{turns} turns");
    process.settle();
    assert_eq!(process.shard(0).sessions().len(), 1, "the neighbour's");
    assert_eq!(process.shard(0).sessions().places_in_use(), 1, "all have been swept");
}
