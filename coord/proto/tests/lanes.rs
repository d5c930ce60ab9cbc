//! Stories of requests that are sent again after a lost reply.

use ringway_coord_proto::wire::{op, push, status};
use ringway_sim::native::{
    Got, Native, Opened, meta, open, opened, query, register, set_meta, with_secret,
};
use ringway_sim::process::Process;
use ringway_sim::stories::start;

const SHARDS: [usize; 3] = [1, 2, 5];

fn lane(number: u32) -> (u8, u8, Vec<u8>) {
    (op::LANE, 0, number.to_le_bytes().to_vec())
}

/// What LANE answers: the last sequence that was taken up, the first that is remembered.
fn laned(got: &Got) -> (u64, u64) {
    let Got::Data(status::DATA, data) = got else { panic!("LANE answered {got:?}") };
    let number = |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().expect("8 bytes"));
    (number(0), number(8))
}

/// A session with a receiving connection that is not looked at any more.
fn session(process: &mut Process, node: u64) -> Opened {
    let mut receiving = Native::connect(process, 0);
    opened(&receiving.ask(process, &[open(0, node, 10_000, None)])[0])
}

/// One more connection of a session, on a shard, with a lane.
fn on_lane(
    process: &mut Process,
    shard: usize,
    mine: &Opened,
    number: u32,
) -> (Native, (u64, u64)) {
    let mut client = Native::connect(process, shard);
    let attach = with_secret(op::ATTACH, mine.session, mine.secret);
    let got = client.ask(process, &[attach, lane(number)]);
    assert_eq!(got[0], Got::Plain(status::OK));
    (client, laned(&got[1]))
}

/// What was executed before its reply was lost is not executed again: the first answer comes once
/// more, wherever the lane is opened again. What was not executed is.
#[test]
fn a_lost_reply_comes_once_more() {
    for shards in SHARDS {
        for second in 0..shards {
            let mut process = start(shards);
            let mine = session(&mut process, 7);
            let (mut first, fresh) = on_lane(&mut process, 0, &mine, 3);
            assert_eq!(fresh, (0, 1));
            first.skip_to(10);
            first.ask(&mut process, &[register("x"), register("y")]);
            // This one is executed, and nobody hears of it.
            let change = [set_meta(Some(0), b"one", "x"), set_meta(Some(0), b"one", "y")];
            first.send(&mut process, &change);
            process.settle();
            process.disconnect(first.link);
            process.settle();
            let (mut again, known) = on_lane(&mut process, second, &mine, 3);
            assert_eq!(known, (11, 10), "{shards} shards, second on {second}");
            again.skip_to(11);
            let version_1 = Got::Data(status::DATA, vec![1, 0, 0, 0]);
            let got = again.ask(&mut process, &change);
            assert_eq!(got, [version_1.clone(), version_1]);
            let got = again.ask(&mut process, &change);
            assert_eq!(got[0].status(), status::CONFLICT, "a new one is executed");
        }
    }
}

/// Frames that are still on their way between shards when their connection is lost, and when the
/// lane is opened again: they are waited for, and remembered, also if the shard hears late that the
/// connection is gone.
#[test]
fn frames_on_their_way_are_waited_for() {
    for (shards, told_late) in [(2, false), (5, false), (2, true), (5, true)] {
        let mut process = start(shards);
        let mine = session(&mut process, 7);
        let (mut first, _) = on_lane(&mut process, 0, &mine, 1);
        let names: Vec<_> = (0..40).map(|at| format!("n{at}")).collect();
        first.skip_to(5);
        let claims: Vec<_> = names.iter().map(|name| register(name)).collect();
        first.send(&mut process, &claims);
        // The shard has read it, and its questions to others lie in their mailboxes.
        process.turn(0, 0);
        if told_late {
            // The answers come to a connection that is gone, which the shard does not know yet.
            process.breaks(first.link);
            process.settle();
        }
        process.disconnect(first.link);
        let mut again = Native::connect(&mut process, shards - 1);
        let attach = with_secret(op::ATTACH, mine.session, mine.secret);
        again.send(&mut process, &[attach, lane(1)]);
        again.skip_to(5);
        again.send(&mut process, &claims);
        process.settle();
        again.receive(&mut process);
        let granted = again.frames.pop().expect("the frame that was sent again");
        assert!(granted.iter().all(|got| got.status() == status::GRANTED_EPHEMERAL));
        assert_eq!(laned(&again.frames.pop().expect("the first frame")[1]), (5, 5));
        let tokens = |got: &[Got]| format!("{got:?}");
        let asked = again.ask(&mut process, &claims);
        assert_eq!(tokens(&asked), tokens(&granted), "{shards} shards: granted once");
    }
}

/// A lane has one connection: opened on another one, the first hears so and is closed, behind the
/// answers to what it has asked for.
#[test]
fn a_lane_has_one_connection() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mine = session(&mut process, 7);
        let (mut first, _) = on_lane(&mut process, 0, &mine, 2);
        first.skip_to(100);
        first.send(&mut process, &[register("x")]);
        let (mut second, _) = on_lane(&mut process, shards - 1, &mine, 2);
        first.receive(&mut process);
        assert_eq!(first.frames.pop().expect("answered")[0].status(), status::GRANTED_EPHEMERAL);
        assert_eq!(first.told, [(push::LANE_MOVED, vec![2, 0, 0, 0])], "{shards} shards");
        assert!(process.is_closed(first.link));
        second.skip_to(101);
        let same = second.ask(&mut process, &[lane(2)]);
        assert_eq!(laned(&same[0]).0, 101, "who has it may ask: its own frame is the last");
        let (third, _) = on_lane(&mut process, 0, &mine, 9);
        assert!(!process.is_closed(third.link) && !process.is_closed(second.link), "two lanes");
    }
}

/// Three connections ask for one lane in the same moment: the last one has it, with all that is
/// known, and the others are closed.
#[test]
fn a_lane_asked_for_by_many() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mine = session(&mut process, 7);
        let (mut first, _) = on_lane(&mut process, 0, &mine, 1);
        first.skip_to(7);
        first.ask(&mut process, &[register("x")]);
        let attach = || with_secret(op::ATTACH, mine.session, mine.secret);
        let mut others: Vec<_> = (0..4)
            .map(|at| {
                let mut other = Native::connect(&mut process, at % shards);
                other.ask(&mut process, &[attach()]);
                other
            })
            .collect();
        others.iter_mut().for_each(|other| other.send(&mut process, &[lane(1)]));
        process.settle();
        let open: Vec<_> = others.iter().filter(|other| !process.is_closed(other.link)).collect();
        assert_eq!(open.len(), 1, "{shards} shards");
        for other in &mut others {
            other.receive(&mut process);
            let got = other.frames.pop().expect("every one is answered");
            if !process.is_closed(other.link) {
                assert_eq!(laned(&got[0]), (7, 7));
            }
        }
    }
}

/// A connection has one lane. A second one is refused, by the session that it has and by one that
/// it gets later; so the first keeps what it remembers, wherever it is opened next.
#[test]
fn a_connection_has_one_lane() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mine = session(&mut process, 7);
        let (mut first, _) = on_lane(&mut process, 0, &mine, 1);
        first.skip_to(10);
        let described = first.ask(&mut process, &[register("x"), set_meta(None, b"one", "x")]);
        let refused = first.ask(&mut process, &[lane(2), lane(1)]);
        assert_eq!(refused[0], Got::Plain(status::REFUSED), "{shards} shards");
        assert_eq!(laned(&refused[1]).0, 11, "its own it may ask for");
        process.disconnect(first.link);
        process.settle();
        let (mut again, known) = on_lane(&mut process, shards - 1, &mine, 1);
        assert_eq!(known, (11, 10), "{shards} shards");
        again.skip_to(10);
        let got = again.ask(&mut process, &[register("x"), set_meta(None, b"one", "x")]);
        assert_eq!(got, described, "executed once");
        // Its session is over, and the next thing that it does opens another.
        again.skip_to(12);
        again.ask(&mut process, &[(op::CLOSE, 0, Vec::new())]);
        again.ask(&mut process, &[register("y")]);
        assert_eq!(again.ask(&mut process, &[lane(1)]), [Got::Plain(status::REFUSED)]);
    }
}

/// Who has a lane asks for it again in the moment in which another connection takes it, and the
/// session is at home here or there: that one gets it, and nobody waits for ever.
#[test]
fn a_lane_asked_for_by_who_has_it_and_by_another() {
    for shards in SHARDS {
        for node in 1..=12 {
            let mut process = start(shards);
            let mine = session(&mut process, node);
            let (mut first, _) = on_lane(&mut process, 0, &mine, 1);
            let mut second = Native::connect(&mut process, shards - 1);
            let attach = with_secret(op::ATTACH, mine.session, mine.secret);
            second.ask(&mut process, &[attach]);
            // The other one's wish may be at home already, and nobody has heard of it.
            second.send(&mut process, &[lane(1)]);
            process.turn(shards - 1, 0);
            first.send(&mut process, &[lane(1)]);
            process.turn(0, 0);
            process.settle();
            second.receive(&mut process);
            let got = second.frames.pop().expect("it is answered");
            assert_eq!(got[0].status(), status::DATA, "{shards} shards, node {node}");
            assert!(process.is_closed(first.link));
        }
    }
}

/// However often connections with a lane are lost, nothing of that is left.
#[test]
fn lost_connections_leave_nothing() {
    let mut process = start(2);
    let mine = session(&mut process, 7);
    for round in 0..200 {
        let (client, _) = on_lane(&mut process, round % 2, &mine, 1);
        process.disconnect(client.link);
        process.settle();
    }
    let lanes =
        |process: &Process| (0..2).map(|shard| process.shard(shard).residue().lanes).sum::<usize>();
    assert_eq!(lanes(&process), 2, "one is kept, and stands in one queue");
    let mut last = Native::connect(&mut process, 0);
    last.ask(&mut process, &[with_secret(op::CLOSE, mine.session, mine.secret)]);
    assert_eq!(lanes(&process), 0);
}

/// What is too old is not remembered: it says so, and is not executed again.
#[test]
fn what_is_forgotten_is_not_executed() {
    let mut process = start(2);
    let mine = session(&mut process, 7);
    let (mut first, _) = on_lane(&mut process, 0, &mine, 1);
    first.skip_to(2);
    first.ask(&mut process, &[register("x")]);
    for _ in 0..70 {
        first.ask(&mut process, &[query("x")]);
    }
    first.ask(&mut process, &[set_meta(None, b"last", "x")]);
    let (mut again, known) = on_lane(&mut process, 1, &mine, 1);
    assert_eq!(known, (73, 73 - 63));
    again.skip_to(2);
    let got = again.ask(&mut process, &[set_meta(None, b"changed", "x"), query("x")]);
    assert_eq!(got, [Got::Plain(status::FORGOTTEN), Got::Plain(status::FORGOTTEN)]);
    again.skip_to(74);
    let Got::Data(_, said) = &again.ask(&mut process, &[meta("x")])[0] else { panic!() };
    assert_eq!(&said[20..], b"last");
}

/// Lanes are their session's: they have a bound, and go when it ends.
#[test]
fn lanes_end_with_their_session() {
    let mut process = start(2);
    let mine = session(&mut process, 7);
    let mut clients = Vec::new();
    for number in 0..64 {
        clients.push(on_lane(&mut process, number as usize % 2, &mine, number).0);
    }
    let mut one_more = Native::connect(&mut process, 0);
    let attach = with_secret(op::ATTACH, mine.session, mine.secret);
    let got = one_more.ask(&mut process, &[attach, lane(64), lane(64), (op::LANE, 0, vec![1])]);
    let statuses: Vec<_> = got.iter().map(Got::status).collect();
    assert_eq!(statuses, [status::OK, status::FULL, status::FULL, status::MALFORMED]);
    let mut stranger = Native::connect(&mut process, 0);
    assert_eq!(stranger.ask(&mut process, &[lane(1)]), [Got::Plain(status::NOSESSION)]);
    process.disconnect(clients[1].link);
    process.settle();
    let closed = with_secret(op::CLOSE, mine.session, mine.secret);
    assert_eq!(stranger.ask(&mut process, &[closed]), [Got::Plain(status::OK)]);
    let got = clients[0].ask(&mut process, &[lane(0)]);
    assert_eq!(got[0].status(), status::NOSESSION);
    let again = session(&mut process, 7);
    let (_, fresh) = on_lane(&mut process, 1, &again, 1);
    assert_eq!(fresh, (0, 1), "another session, other lanes");
}

/// A lane that is opened, here or at another shard than its session's home, leaves nothing under
/// way: the shards would refuse to take more from each other after some thousands of connections.
#[test]
fn an_opened_lane_is_not_under_way_any_more() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mine = session(&mut process, 7);
        for round in 0..3 * shards {
            let (client, _) = on_lane(&mut process, round % shards, &mine, 3);
            process.disconnect(client.link);
            process.settle();
            let under_way = (0..shards).map(|shard| process.shard(shard).residue().in_flight);
            assert_eq!(under_way.sum::<usize>(), 0, "{shards} shards, round {round}");
        }
    }
}

/// A connection that is lost while its lane is on its way leaves nothing behind, and the lane is
/// there for the next one.
#[test]
fn a_connection_lost_before_its_lane_came_leaves_nothing() {
    for (shards, turns) in SHARDS.into_iter().flat_map(|shards| (0..8).map(move |at| (shards, at)))
    {
        let mut process = start(shards);
        let mine = session(&mut process, 7);
        let (mut first, _) = on_lane(&mut process, shards - 1, &mine, 3);
        first.skip_to(10);
        first.ask(&mut process, &[register("x")]);
        let mut second = Native::connect(&mut process, shards / 2);
        let attach = with_secret(op::ATTACH, mine.session, mine.secret);
        second.ask(&mut process, &[attach]);
        second.send(&mut process, &[lane(3)]);
        for _ in 0..turns {
            (0..shards).for_each(|shard| {
                process.turn(shard, 1);
            });
        }
        process.disconnect(second.link);
        process.settle();
        let (third, (last, _)) = on_lane(&mut process, 0, &mine, 3);
        assert_eq!(last, 10, "{shards} shards, {turns} turns");
        process.disconnect(third.link);
        process.settle();
        let pendings = (0..shards).map(|shard| process.shard(shard).residue().pendings);
        assert_eq!(pendings.sum::<usize>(), 0, "{shards} shards, {turns} turns");
    }
}

/// A connection that was told its end and has not gone yet hears nothing of its lane any more; the
/// lane leaves all the same.
#[test]
fn a_closed_connection_is_not_told_that_its_lane_moved() {
    for shards in SHARDS {
        let mut process = start(shards);
        let mut first = Native::connect(&mut process, 0);
        let mine = opened(&first.ask(&mut process, &[open(0, 7, 10_000, None)])[0]);
        first.ask(&mut process, &[lane(3)]);
        first.skip_to(10);
        first.ask(&mut process, &[register("x")]);
        let mut second = Native::connect(&mut process, shards - 1);
        second.ask(&mut process, &[open(op::OPEN_RESUME, 7, 10_000, Some(mine.secret))]);
        assert!(process.is_closed(first.link), "{shards} shards");
        assert_eq!(laned(&second.ask(&mut process, &[lane(3)])[0]).0, 10);
        assert_eq!(process.strays(), 0, "{shards} shards");
    }
}
