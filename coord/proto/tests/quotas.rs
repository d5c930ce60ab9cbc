//! Stories of namespaces that may have so many names.

use std::sync::{Arc, Mutex};

use ringway_coord_proto::access::{Access, Open};
use ringway_coord_proto::quotas::Credits;
use ringway_coord_proto::wire::{op, status};
use ringway_coord_proto::{Grantee, Principal};
use ringway_core::SessionId;
use ringway_sim::native::{
    Got, Native, open, opened, register, register_as, release, revoke, transfer, wait, with_secret,
};
use ringway_sim::process::{Process, Settings};

const SHARDS: [usize; 3] = [1, 2, 5];

/// Everybody may do everything, but the namespace `jobs` has so many names at most.
struct Limited {
    open: Open,
    left: Arc<Mutex<u64>>,
    most: u64,
}

struct Jobs(Arc<Mutex<u64>>, [(Box<[u8]>, u64); 1]);

impl Credits for Jobs {
    fn quotas(&self) -> &[(Box<[u8]>, u64)] {
        &self.1
    }
    fn take(&mut self, _: usize, most: u64) -> u64 {
        let mut left = self.0.lock().expect("nobody panics with it");
        let taken = most.min(*left);
        *left -= taken;
        taken
    }
    fn give(&mut self, _: usize, credits: u64) {
        *self.0.lock().expect("nobody panics with it") += credits;
    }
}

impl Access for Limited {
    fn required(&self) -> bool {
        self.open.required()
    }
    fn verify(&self, user: &[u8], password: &[u8]) -> Option<u32> {
        self.open.verify(user, password)
    }
    fn grantee(&self, index: u32) -> &Grantee {
        self.open.grantee(index)
    }
    fn by_principal(&self, principal: Principal) -> Option<&Grantee> {
        self.open.by_principal(principal)
    }
    fn credits(&self) -> Option<Box<dyn Credits + Send>> {
        Some(Box::new(Jobs(self.left.clone(), [((*b"jobs").into(), self.most)])))
    }
}

fn start(shards: usize, most: u64) -> (Process<Limited>, Arc<Mutex<u64>>) {
    let left = Arc::new(Mutex::new(most));
    let settings = Settings { shards, ..Settings::default() };
    let access = || Limited { open: Open::default(), left: left.clone(), most };
    (Process::with_access(&settings, access), left.clone())
}

fn client(process: &mut Process<Limited>, node: u64) -> (Native, SessionId, [u8; 16]) {
    let mut client = Native::connect(process, node as usize % process.shards());
    let mine = opened(&client.ask(process, &[open(0, node, 10_000, None)])[0]);
    (client, mine.session, mine.secret)
}

fn words(got: &[Got]) -> String {
    got.iter().map(Got::words).collect::<Vec<_>>().join(", ")
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
        assert_eq!(*left.lock().expect("alone"), 3, "all of it was given back");
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
        assert_eq!(*left.lock().expect("alone"), 1, "{shards} shards");
        let closed = with_secret(op::CLOSE, of_a, secret);
        let got = b.ask(&mut process, &[closed, register("jobs/3"), register("jobs/4")]);
        assert_eq!(got[1].status(), status::GRANTED_EPHEMERAL);
        assert_eq!(got[2].status(), status::GRANTED_EPHEMERAL);
        assert_eq!(b.ask(&mut process, &[register("jobs/5")])[0].status(), status::QUOTA);
        process.settle();
        assert_eq!(*left.lock().expect("alone"), 0);
        let mut c = Native::connect(&mut process, 0);
        c.ask(&mut process, &[with_secret(op::CLOSE, of_b, b_secret)]);
        process.settle();
        assert_eq!(*left.lock().expect("alone"), 4, "swept, and given back");
    }
}
