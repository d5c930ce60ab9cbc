//! Stories of lists: what a page has, and what making it costs everybody else.

use std::collections::BTreeSet;

use ringway_coord_proto::list::STEP_RECORDS;
use ringway_coord_proto::runs::UNUSED_MAX;
use ringway_coord_proto::wire::{op, status};
use ringway_core::rng::Rng;
use ringway_core::wire::{Put, Reader};
use ringway_core::{Slot, Span};
use ringway_sim::native::{Got, Native, register, release};
use ringway_sim::process::{Process, Settings};

type Place = (u16, Vec<u8>);

/// Where a listing is, and what it asks for.
struct Listing {
    next: Place,
    most: u16,
    prefix: &'static str,
    done: bool,
}

impl Listing {
    fn new(most: u16, prefix: &'static str) -> Self {
        Self { next: (0, Vec::new()), most, prefix, done: false }
    }

    fn ask(&self) -> (u8, u8, Vec<u8>) {
        let mut body = Vec::new();
        body.put_u16(self.next.0);
        body.put_u16(self.most);
        body.put_short_bytes(&self.next.1);
        body.put_short_bytes(self.prefix.as_bytes());
        (op::LIST, 0, body)
    }

    /// Reads a page, which has to have exactly those of the names that lie between its cursors.
    fn take(&mut self, got: &Got, names: &BTreeSet<Place>) {
        let Got::Data(status::DATA, page) = got else { panic!("{got:?}") };
        let mut reader = Reader::new(page);
        self.done = reader.u8().expect("a page") != 0;
        let next = (reader.u16().expect("a page"), reader.short_bytes().expect("a page").to_vec());
        let mut found = Vec::new();
        for _ in 0..reader.u16().expect("a page") {
            let name = reader.short_bytes().expect("a page").to_vec();
            found.push((Slot::of(&name).number(), name));
            reader.bytes(16).expect("a page");
        }
        let behind = |place: &&Place| {
            let upto = if next.1.is_empty() { place.0 < next.0 } else { **place <= next };
            **place > self.next && upto && place.1.starts_with(self.prefix.as_bytes())
        };
        let expected: Vec<&Place> = names.iter().filter(behind).collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "from {:?}", self.next);
        assert!(self.done || next > self.next, "the cursor moves on");
        assert_eq!(self.done, next.0 == 16_384);
        self.next = next;
    }
}

fn place(name: &str) -> Place {
    (Slot::of(name.as_bytes()).number(), name.into())
}

fn register_all(client: &mut Native, process: &mut Process, names: &[String]) -> BTreeSet<Place> {
    for names in names.chunks(4_000) {
        let ops: Vec<_> = names.iter().map(|name| register(name)).collect();
        client.ask(process, &ops);
    }
    names.iter().map(|name| place(name)).collect()
}

/// Names come and go, and owners with them, while others list everything, or what has a prefix, in
/// pages of any size: a page always has the names that are owned when it is made, no other, by
/// slot and name. That holds for pages that were found by a walk, for those that come from what
/// an earlier walk noted, and at the seams.
#[test]
fn pages_are_exact_while_names_come_and_go() {
    for (shards, seed) in [(1, 1), (2, 2)] {
        let mut process = Process::start(&Settings { shards, seed, ..Settings::default() });
        let mut rng = Rng::new(seed);
        let mut owner = Native::connect(&mut process, 0);
        let mut reader = Native::connect(&mut process, shards - 1);
        let names: Vec<String> = (0..90_000).map(|i| format!("a/{i}")).collect();
        let mut owned = register_all(&mut owner, &mut process, &names);
        let tagged: Vec<String> = (0..3_000).map(|i| format!("{{b}}/{i}")).collect();
        owned.append(&mut register_all(&mut owner, &mut process, &tagged));
        let kinds = [(4_096, ""), (1_000, "a/1"), (37, "a/77"), (4_096, "{b}"), (4_096, "none")];
        let mut listings: Vec<Listing> = kinds.map(|(most, with)| Listing::new(most, with)).into();
        let mut brief = Native::connect(&mut process, 0);
        for round in 0.. {
            let mut ops = Vec::new();
            for _ in 0..50 {
                let name = match rng.below(4) {
                    0 => format!("{{b}}/{}", rng.below(4_000)),
                    _ => format!("a/{}", rng.below(100_000)),
                };
                if owned.remove(&place(&name)) {
                    ops.push(release(&name));
                } else {
                    owned.insert(place(&name));
                    ops.push(register(&name));
                }
            }
            owner.ask(&mut process, &ops);
            // The session of this one ends with its connection, and its names with it.
            let passing: Vec<_> = (0..20).map(|i| register(&format!("a/x{round}/{i}"))).collect();
            brief.ask(&mut process, &passing);
            if rng.below(2) == 0 {
                let session = brief.link;
                process.disconnect(session);
                process.settle();
                brief = Native::connect(&mut process, 0);
            } else {
                owned.extend((0..20).map(|i| place(&format!("a/x{round}/{i}"))));
                let given: Vec<_> = (0..20).map(|i| release(&format!("a/x{round}/{i}"))).collect();
                brief.ask(&mut process, &given);
                (0..20).for_each(|i| {
                    owned.remove(&place(&format!("a/x{round}/{i}")));
                });
            }
            let open: Vec<usize> = (0..listings.len()).filter(|at| !listings[*at].done).collect();
            if open.is_empty() {
                assert!(round > 60, "the pages were read while names changed");
                break;
            }
            let which = open[rng.below(open.len() as u64) as usize];
            let got = reader.ask(&mut process, &[listings[which].ask()]);
            listings[which].take(&got[0], &owned);
        }
    }
}

/// A slot with more names than may be noted is listed as well, page by page and in order.
#[test]
fn one_slot_with_nearly_all_names_is_listed() {
    let mut process = Process::start(&Settings::default());
    let mut a = Native::connect(&mut process, 0);
    let names: Vec<String> = (0..75_000).map(|i| format!("{{t}}{i}")).collect();
    let mut owned = register_all(&mut a, &mut process, &names);
    owned.append(&mut register_all(&mut a, &mut process, &["a".into(), "b".into(), "c".into()]));
    let mut listing = Listing::new(4_096, "");
    while !listing.done {
        let got = a.ask(&mut process, &[listing.ask()]);
        listing.take(&got[0], &owned);
    }
}

/// Turns until a client's frame is answered.
fn turns(process: &mut Process, client: &mut Native, ask: (u8, u8, Vec<u8>)) -> (usize, Got) {
    client.send(process, &[ask]);
    for turn in 1..100_000 {
        process.turn(0, usize::MAX);
        client.receive(process);
        if let Some(mut frame) = client.frames.pop() {
            return (turn, frame.remove(0));
        }
    }
    panic!("never answered");
}

/// A walk over many names is made in slices, so nobody waits for it; and the pages behind the
/// first one need none, until what was noted has been unused for so long that it was dropped.
#[test]
fn a_listing_walks_in_slices_and_seldom() {
    let mut process = Process::start(&Settings::default());
    let mut a = Native::connect(&mut process, 0);
    let names: Vec<String> = (0..60_000).map(|i| format!("n{i}")).collect();
    let owned = register_all(&mut a, &mut process, &names);
    let walk = names.len() / STEP_RECORDS;
    let mut listing = Listing::new(1_000, "");
    let (first, got) = turns(&mut process, &mut a, listing.ask());
    assert!(first >= walk, "a slice a turn: {first} turns");
    listing.take(&got, &owned);
    let mut most = 0;
    for _ in 0..20 {
        let (took, got) = turns(&mut process, &mut a, listing.ask());
        listing.take(&got, &owned);
        most = most.max(took);
    }
    assert!(most < walk / 4, "a page looks at little more than its names: {most} turns");
    process.pass(Span(2 * UNUSED_MAX.0));
    process.turn(0, usize::MAX);
    let (again, got) = turns(&mut process, &mut a, listing.ask());
    listing.take(&got, &owned);
    assert!(again >= walk, "{again} turns");
}
