//! Stories of namespaces that may have so many names.

use ringway_coord_proto::wire::{op, status};
use ringway_core::SessionId;
use ringway_sim::limited::{Limited, Pool};
use ringway_sim::native::{
    Got, Native, open, opened, register, register_as, release, revoke, transfer, wait, with_secret,
};
use ringway_sim::process::{Process, Settings};
use ringway_sim::redis::Redis;
use ringway_sim::stories::words;

const SHARDS: [usize; 3] = [1, 2, 5];

fn start(shards: usize, most: u64) -> (Process<Limited>, Pool) {
    let pool = Pool::new(b"jobs", most);
    let settings = Settings { shards, ..Settings::default() };
    (Process::with_access(&settings, || Limited::new(&pool)), pool)
}

fn client(process: &mut Process<Limited>, node: u64) -> (Native, SessionId, [u8; 16]) {
    let mut client = Native::connect(process, node as usize % process.shards());
    let mine = opened(&client.ask(process, &[open(0, node, 10_000, None)])[0]);
    (client, mine.session, mine.secret)
}

/// A namespace has as many names as it may, wherever they are and however they are held; what is
/// given back may be had again, and other namespaces do not notice.
#[test]
fn a_namespace_has_as_many_names_as_it_may() {
    for shards in SHARDS {
        let (mut process, left) = start(shards, 3);
        let (mut a, ..) = client(&mut process, 1);
        let shared = |name| register_as(op::MODE_SHARED, 0, name);
        let first = a.ask(&mut process, &[register("jobs/1"), shared("jobs/2"), wait(0, "jobs/3")]);
        assert!(first.iter().all(|got| got.status() == status::GRANTED_EPHEMERAL));
        let more = [register("jobs/4"), shared("jobs/5"), wait(0, "jobs"), register("other/1")];
        let got = a.ask(&mut process, &more);
        assert_eq!(words(&got), "QUOTA, QUOTA, QUOTA, GRANTED 1", "{shards} shards");
        let again = a.ask(&mut process, &[register("jobs/1"), release("jobs/2")]);
        assert_eq!(again[0], first[0], "what is held is not counted twice");
        let got = a.ask(&mut process, &[register("jobs/4"), register("jobs/5")]);
        // They may be on different shards, so either may have come first.
        let mut statuses = [got[0].status(), got[1].status()];
        statuses.sort();
        assert_eq!(statuses, [status::GRANTED_EPHEMERAL, status::QUOTA]);
        let all = ["jobs/1", "jobs/4", "jobs/5"].map(release);
        a.ask(&mut process, &all);
        assert_eq!(words(&a.ask(&mut process, &[revoke(None, "jobs/3")])), "OK");
        assert_eq!(left.left(), 3, "all of it was given back");
    }
}

/// Names that change hands stay counted once: transferred, handed over, or taken over from a dead
/// session before it was swept. The end of a session gives back what it held.
#[test]
fn a_name_is_counted_once_whoever_holds_it() {
    for shards in SHARDS {
        let (mut process, left) = start(shards, 4);
        let (mut a, of_a, secret) = client(&mut process, 1);
        let (mut b, of_b, b_secret) = client(&mut process, 2);
        let claims = [register("jobs/1"), register("jobs/2"), register("jobs/3")];
        a.ask(&mut process, &claims);
        b.ask(&mut process, &[wait(0, "jobs/2")]);
        a.ask(&mut process, &[transfer(of_b, "jobs/1"), release("jobs/2")]);
        assert_eq!(left.left(), 1, "{shards} shards");
        let closed = with_secret(op::CLOSE, of_a, secret);
        let got = b.ask(&mut process, &[closed, register("jobs/3"), register("jobs/4")]);
        assert_eq!(got[1].status(), status::GRANTED_EPHEMERAL);
        assert_eq!(got[2].status(), status::GRANTED_EPHEMERAL);
        assert_eq!(b.ask(&mut process, &[register("jobs/5")])[0].status(), status::QUOTA);
        process.settle();
        assert_eq!(left.left(), 0);
        let mut c = Native::connect(&mut process, 0);
        c.ask(&mut process, &[with_secret(op::CLOSE, of_b, b_secret)]);
        process.settle();
        assert_eq!(left.left(), 4, "swept, and given back");
    }
}

/// A Redis client hears `QUOTA` from every command that would make a name; what an operator revokes
/// may be had again.
#[test]
fn redis_clients_hear_of_the_quota() {
    for shards in SHARDS {
        let (mut process, left) = start(shards, 1);
        let mut a = Redis::connect(&mut process, shards - 1);
        for taken in ["PORT.REGISTER jobs/1", "SET jobs/1 v NX PX 20000", "PORT.WAIT jobs/1 0"] {
            let got = a.says(&mut process, taken);
            assert!(got == "+OK|" || got.starts_with("*3|:1|"), "{shards} shards: {got}");
            let more = "PORT.REGISTER jobs/2\nSET jobs/2 v NX PX 20000\nPORT.WAIT jobs/2 0";
            let got = a.says(&mut process, more);
            assert_eq!(got.matches("-QUOTA the namespace").count(), 3, "{got}");
            assert_eq!(a.says(&mut process, "PORT.REVOKE jobs/1"), ":1|");
            assert_eq!(left.left(), 1, "{taken}");
        }
    }
}

/// A large quota is kept in blocks: never exceeded, and refused at most two blocks for each other
/// shard below it.
#[test]
fn large_quotas_are_kept_in_blocks() {
    let most = 6_400;
    for shards in SHARDS {
        let (mut process, left) = start(shards, most);
        let (mut a, ..) = client(&mut process, 1);
        let mut granted = 0;
        for part in 0..8 {
            let ops: Vec<_> = (0..1_000).map(|at| register(&format!("jobs/{part}-{at}"))).collect();
            let got = a.ask(&mut process, &ops);
            let is_granted = |got: &&Got| got.status() == status::GRANTED_EPHEMERAL;
            granted += got.iter().filter(is_granted).count() as u64;
        }
        let block = most / (64 * shards as u64);
        let least = most - 2 * block * (shards as u64 - 1);
        assert!((least..=most).contains(&granted), "{shards} shards: {granted}");
        assert!(left.left() <= most - granted);
    }
}
