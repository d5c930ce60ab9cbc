//! What a turn takes from the allocator once its buffers have grown: on the paths that are hot,
//! nothing.
//!
//! Counted are allocations of this thread, over turns that each bring every connection new bytes.
//! The driver's buffers are those of [`Alone`], which are used again as the reactor's are.

use allocation_counter::measure;
use ringway_coord_proto::wire::{FrameWriter, KIND_REQUEST, Preface, op, put_op};
use ringway_core::Span;
use ringway_sim::alone::Alone;
use ringway_sim::native::{Got, open, opened, send, send_fenced, with_secret};
use ringway_sim::process::Settings;
use ringway_sim::resp_stream::command;
use ringway_sim::stream::{Heard, Stream};

const CONNS: u32 = 8;
const FRAME: u64 = 64;
const NAMES: u64 = 4096;
/// Turns until every buffer has the size it needs, and those that are counted.
const TURNS: u64 = NAMES / FRAME;

type Op = (u8, u8, Vec<u8>);

fn frame(ops: &[Op]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut frame = FrameWriter::begin(&mut out, KIND_REQUEST, 0, 1);
    for (code, flags, body) in ops {
        put_op(&mut out, *code, *flags, body);
        frame.add(1);
    }
    frame.finish(&mut out);
    out
}

/// The names of one connection and turn, 16 bytes each.
fn names(conn: u32, turn: u64) -> impl Iterator<Item = Vec<u8>> {
    let first = turn % TURNS * FRAME;
    (first..first + FRAME).map(move |name| format!("{conn:04}/{name:011}").into_bytes())
}

fn ops(code: u8, conn: u32, turn: u64) -> Vec<u8> {
    frame(&names(conn, turn).map(|name| (code, 0, name)).collect::<Vec<_>>())
}

fn native() -> Alone {
    let mut alone = Alone::new(&Settings::default(), CONNS);
    (0..CONNS).for_each(|conn| alone.receive(conn, &Preface::OURS.encode()));
    alone.turn();
    alone
}

/// Allocations of `TURNS` turns that bring every connection the bytes of `input`, after as many
/// that are not counted; every turn has to answer the same number of bytes.
fn allocations(alone: &mut Alone, input: impl Fn(u32, u64) -> Vec<u8>) -> u64 {
    let inputs: Vec<Vec<Vec<u8>>> =
        (0..TURNS).map(|turn| (0..CONNS).map(|conn| input(conn, turn)).collect()).collect();
    let mut run = || {
        for turn in &inputs {
            for (conn, bytes) in (0..).zip(turn) {
                alone.receive(conn, bytes);
            }
            assert!(alone.turn() > FRAME as usize * CONNS as usize, "all are answered");
        }
    };
    run();
    run();
    measure(run).count_total
}

/// The counter counts: or every story below would pass.
#[test]
fn the_counter_counts() {
    assert!(measure(|| drop(std::hint::black_box(vec![1_u8; 100]))).count_total > 0);
}

/// Queries of names that are owned, and of names that nobody has.
#[test]
fn native_queries_allocate_nothing() {
    let mut alone = native();
    for turn in 0..TURNS {
        (0..CONNS / 2).for_each(|conn| alone.receive(conn, &ops(op::REGISTER, conn, turn)));
        alone.turn();
    }
    assert_eq!(alone.shard.names().table().len() as u64, NAMES * u64::from(CONNS / 2));
    assert_eq!(allocations(&mut alone, |conn, turn| ops(op::QUERY, conn, turn)), 0);
}

/// Names that are claimed and given back in one turn, over and over.
#[test]
fn registers_and_releases_allocate_nothing() {
    let mut alone = native();
    let both = |conn, turn| [ops(op::REGISTER, conn, turn), ops(op::RELEASE, conn, turn)].concat();
    assert_eq!(allocations(&mut alone, both), 0);
}

/// Messages of 64 bytes from every connection to names of all of them, plain and as the owner of a
/// name, without a receipt and with one: none takes anything, however it ends.
#[test]
fn messages_allocate_nothing() {
    let mut alone = native();
    let name =
        |conn: u32, turn: u64, at: u64| format!("{:04}/{at:02}/{turn:05}", (conn + 1) % CONNS);
    for turn in 0..TURNS {
        for conn in 0..CONNS {
            let names = (0..FRAME).map(|at| (op::REGISTER, 0, name(conn, turn, at).into()));
            alone.receive(conn, &frame(&names.collect::<Vec<_>>()));
        }
        alone.turn();
    }
    let asked = frame(&[(op::QUERY, 0, name(0, 0, 0).into())]);
    alone.receive(0, &asked);
    alone.step();
    let Got::Owner(_, _, token) = replies(&alone, 0)[0] else { panic!("it is owned") };
    alone.read();
    for flags in [0, op::SEND_RECEIPT] {
        let plain = |conn, turn| {
            let sends = (0..FRAME).map(|at| send(flags, &name(at as u32, turn, at), &[7; 64]));
            let own = (op::QUERY, 0, name(conn, turn, 0).into());
            frame(&sends.chain([own]).collect::<Vec<_>>())
        };
        assert_eq!(allocations(&mut alone, plain), 0, "flags {flags}");
        let fenced = |_, turn| {
            let source = (name(0, 0, 0), token);
            let source = (source.0.as_str(), source.1);
            let targets = (0..FRAME).map(|at| name(at as u32, turn, at));
            let sends = targets.map(|target| send_fenced(flags, source, &target, &[7; 64]));
            frame(&sends.collect::<Vec<_>>())
        };
        assert_eq!(allocations(&mut alone, fenced), 0, "fenced, flags {flags}");
    }
    let counts = alone.shard.stats().messages;
    let turns = 3 * TURNS * FRAME;
    assert_eq!(counts.delivered, 2 * turns * (u64::from(CONNS) + 1), "fenced: one is the owner");
    assert_eq!(counts.fenced, 2 * turns * (u64::from(CONNS) - 1));
}

/// A gateway for each connection, whose sessions are renewed in batches; and time passes, so that
/// the wheel of leases turns as well.
#[test]
fn renewals_allocate_nothing() {
    let mut alone = native();
    let sessions: Vec<Vec<Op>> = (0..CONNS)
        .map(|conn| {
            let nodes = (0..FRAME).map(|at| u64::from(conn) * FRAME + at);
            let asked = nodes.map(|node| open(op::OPEN_GATEWAY, node, 100, None));
            alone.receive(conn, &frame(&asked.collect::<Vec<_>>()));
            alone.step();
            let renewals = replies(&alone, conn).iter().map(opened).collect::<Vec<_>>();
            alone.read();
            renewals.iter().map(|it| with_secret(op::RENEW, it.session, it.secret)).collect()
        })
        .collect();
    assert_eq!(alone.shard.sessions().len() as u64, FRAME * u64::from(CONNS));
    alone.set_pace(Span::from_ms(1));
    assert_eq!(allocations(&mut alone, |conn, _| frame(&sessions[conn as usize])), 0);
    assert_eq!(alone.shard.sessions().len() as u64, FRAME * u64::from(CONNS), "none expired");
    assert!(alone.shard.sessions().counts().renewed >= 3 * TURNS * FRAME * u64::from(CONNS));
}

fn replies(alone: &Alone, conn: u32) -> Vec<Got> {
    let said = [&Preface::OURS.encode(), alone.said(conn)].concat();
    let heard = Stream::default().take(&said).expect("a stream as documented");
    let [Heard::Replies(_, got)] = &heard[..] else { panic!("one frame is answered") };
    got.clone()
}

/// The same through RESP, a pipeline of commands on each connection: names that are owned, and
/// names that nobody has.
#[test]
fn resp_queries_allocate_nothing() {
    let mut alone = Alone::new(&Settings::default(), CONNS);
    let pipeline = |verb: &'static [u8]| {
        move |conn, turn| {
            names(conn, turn).flat_map(|name| command(&[verb, &name])).collect::<Vec<u8>>()
        }
    };
    let register = pipeline(b"PORT.REGISTER");
    for turn in 0..TURNS {
        (0..CONNS / 2).for_each(|conn| alone.receive(conn, &register(conn, turn)));
        alone.turn();
    }
    assert_eq!(alone.shard.names().table().len() as u64, NAMES * u64::from(CONNS / 2));
    assert_eq!(allocations(&mut alone, pipeline(b"PORT.QUERY")), 0);
}

/// Claiming and giving back through RESP.
#[test]
fn resp_registers_and_releases_allocate_nothing() {
    let mut alone = Alone::new(&Settings::default(), CONNS);
    let both = |conn, turn| {
        let of = |verb: &'static [u8]| names(conn, turn).map(move |name| command(&[verb, &name]));
        of(b"PORT.REGISTER").chain(of(b"PORT.RELEASE")).flatten().collect()
    };
    assert_eq!(allocations(&mut alone, both), 0);
}
