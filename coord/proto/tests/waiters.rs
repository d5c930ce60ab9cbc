//! Stories of who waits for whom.

use ringway_coord_proto::wire::{op, status};
use ringway_core::wire::{Put, Reader};
use ringway_core::{SessionId, Span};
use ringway_sim::native::{
    Got, Native, Opened, register, register_as, release, revoke, wait, wait_as,
};
use ringway_sim::process::Process;
use ringway_sim::stories::{client, start};

const SHARDS: [usize; 3] = [1, 2, 5];
const SHARED: u8 = op::MODE_SHARED;

fn waiters(most: u16, name: &str) -> (u8, u8, Vec<u8>) {
    (op::WAITERS, 0, [&most.to_le_bytes(), name.as_bytes()].concat())
}

/// What WAITERS answers: mode, permits, how many hold and wait, and who.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u8,
    permits: u32,
    holding: u32,
    waiting: u32,
    holders: Vec<SessionId>,
    waiters: Vec<(SessionId, u8, u32)>,
}

fn seen(got: &Got) -> Seen {
    let Got::Data(status::DATA, data) = got else { panic!("not what WAITERS answers: {got:?}") };
    let mut data = Reader::new(data);
    let mut read = || -> Result<Seen, ringway_core::wire::Truncated> {
        let (mode, permits) = (data.u8()?, data.u32()?);
        let (holding, waiting) = (data.u32()?, data.u32()?);
        let mut holders = Vec::new();
        for _ in 0..data.u16()? {
            holders.push(SessionId(data.u64()?));
            assert_ne!(data.u64()?, 0, "a token");
        }
        let mut waiters = Vec::new();
        for _ in 0..data.u16()? {
            let session = SessionId(data.u64()?);
            assert_ne!(data.u64()?, 0, "a ticket");
            let (mode, _, waited_ms) = (data.u8()?, data.u32()?, data.u32()?);
            waiters.push((session, mode, waited_ms));
        }
        Ok(Seen { mode, permits, holding, waiting, holders, waiters })
    };
    let seen = read().expect("as documented");
    assert!(data.is_empty());
    seen
}

/// Of one name: who holds it and who waits, in order, and for how long.
#[test]
fn one_sees_who_waits_for_a_name() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, Opened { session: of_a, .. }) = client(&mut process, 1);
        let (mut b, Opened { session: of_b, .. }) = client(&mut process, 2);
        let (mut c, Opened { session: of_c, .. }) = client(&mut process, 3);
        assert_eq!(a.ask(&mut process, &[waiters(9, "x")]), [Got::Plain(status::FREE)]);
        a.ask(&mut process, &[register("x"), register_as(SHARED, 0, "s")]);
        b.ask(&mut process, &[wait(0, "x"), wait_as(SHARED, 0, 0, "s")]);
        process.run_for(Span::from_ms(250));
        c.ask(&mut process, &[wait_as(SHARED, 0, 0, "x")]);
        let got = c.ask(&mut process, &[waiters(9, "x"), waiters(9, "s"), waiters(1, "x")]);
        let of_x = seen(&got[0]);
        assert_eq!((of_x.holding, of_x.waiting, of_x.mode), (1, 2, 0), "{shards} shards");
        assert_eq!(of_x.holders, [of_a]);
        assert_eq!(of_x.waiters, [(of_b, 0, 250), (of_c, SHARED, 0)]);
        let of_s = seen(&got[1]);
        assert_eq!((of_s.mode, of_s.holders, of_s.waiting), (SHARED, vec![of_a, of_b], 0));
        assert_eq!(seen(&got[2]).waiters.len(), 1, "as many as asked for");
        let broken = [waiters(1025, "x"), waiters(9, ""), (op::WAITERS, 1, vec![1, 0, b'x'])];
        let got = c.ask(&mut process, &broken);
        let expected = [status::MALFORMED, status::BADNAME, status::UNSUPPORTED];
        assert_eq!(got.iter().map(Got::status).collect::<Vec<_>>(), expected);
    }
}

/// All edges of all shards, read page by page: each one who waits, and whom it waits for.
fn edges(process: &mut Process, client: &mut Native) -> Vec<(SessionId, SessionId, String)> {
    let (mut cursor, mut all) = (0, Vec::new());
    loop {
        let mut body = Vec::new();
        body.put_u64(cursor);
        body.put_u16(2);
        let got = client.ask(process, &[(op::WAITS, 0, body)]);
        let Got::Data(status::DATA, data) = &got[0] else { panic!("{got:?}") };
        let mut data = Reader::new(data);
        let mut page = || -> Result<u64, ringway_core::wire::Truncated> {
            let next = data.u64()?;
            for _ in 0..data.u16()? {
                let waiter = SessionId(data.u64()?);
                assert_ne!(data.u64()?, 0, "a ticket");
                data.u32()?;
                let holder = SessionId(data.u64()?);
                assert_ne!(data.u64()?, 0, "a token");
                let name = String::from_utf8_lossy(data.short_bytes()?).into_owned();
                all.push((waiter, holder, name));
            }
            Ok(next)
        };
        cursor = page().expect("as documented");
        if cursor == 0 {
            all.sort();
            return all;
        }
    }
}

/// Three who wait in a circle: the edges show it, whatever shards the names are on, and an
/// operator who takes one of the names ends it.
#[test]
fn a_deadlock_can_be_seen_and_ended() {
    for shards in SHARDS {
        let mut process = start(shards);
        let (mut a, Opened { session: of_a, .. }) = client(&mut process, 1);
        let (mut b, Opened { session: of_b, .. }) = client(&mut process, 2);
        let (mut c, Opened { session: of_c, .. }) = client(&mut process, 3);
        a.ask(&mut process, &[register("x")]);
        b.ask(&mut process, &[register("y")]);
        c.ask(&mut process, &[register("z")]);
        a.ask(&mut process, &[wait(0, "y")]);
        b.ask(&mut process, &[wait(0, "z")]);
        c.ask(&mut process, &[wait(0, "x")]);
        let mut expected = [
            (of_a, of_b, "y".to_owned()),
            (of_b, of_c, "z".to_owned()),
            (of_c, of_a, "x".to_owned()),
        ];
        expected.sort();
        let mut watcher = Native::connect(&mut process, 0);
        assert_eq!(edges(&mut process, &mut watcher), expected, "{shards} shards");
        watcher.ask(&mut process, &[revoke(None, "x")]);
        let without_c = edges(&mut process, &mut watcher);
        assert_eq!(without_c.len(), 2, "c has what it waited for");
        c.ask(&mut process, &[release("z"), release("x")]);
        b.ask(&mut process, &[release("y"), release("z")]);
        a.ask(&mut process, &[release("y")]);
        assert_eq!(edges(&mut process, &mut watcher), []);
        assert!(process.shards_are_tidy());
        assert_eq!(process.audits, ["user \"\" revokes \"x\": OK"]);
    }
}

/// Of a name that many share each who waits has an edge to the first few holders.
#[test]
fn edges_lead_to_every_holder() {
    let mut process = start(2);
    let mut holders: Vec<_> = (1..=20).map(|node| client(&mut process, node)).collect();
    for (holder, _) in &mut holders {
        holder.ask(&mut process, &[register_as(SHARED, 0, "s")]);
    }
    let (mut waiter, of_waiter) = client(&mut process, 21);
    waiter.ask(&mut process, &[wait(0, "s")]);
    let seen = edges(&mut process, &mut waiter);
    assert_eq!(seen.len(), 16);
    assert!(seen.iter().all(|(from, to, _)| {
        *from == of_waiter.session && holders.iter().any(|(_, of)| of.session == *to)
    }));
}
