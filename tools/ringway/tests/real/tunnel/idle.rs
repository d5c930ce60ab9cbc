//! Many flows that do nothing, and what they cost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::CROWD;
use super::flows::{Held, Load, Transfer, connect, mirror};
use super::sites::{Pair, Words};
use crate::support::{raise_open_files, until};

/// Flows of one session, if as many files can be open: this process has two of each.
const FLOWS: usize = 10_000;
/// What others of these tests may have open meanwhile.
const OTHERS: usize = 3_000;
/// Memory of each process for an idle flow.
const BYTES_MAX: u64 = 4096;
/// Transfers of a busy flow of which the cheapest counts, and how many more there may be if that is
/// too dear: others use the machine, too.
const TRIES: u64 = 4;
const TRIES_MAX: u64 = 16;

/// Thousands of flows that once said a word and are idle now cost each process less than a page
/// each, and a busy one beside them costs at most half as much again as without them: processor
/// time of both processes for the same bytes, the least of several tries.
#[test]
fn idle_flows_cost_little() {
    let _alone = CROWD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let fit = (raise_open_files() as usize).saturating_sub(OTHERS) / 2;
    let many = FLOWS.min(fit);
    let (service, bulk) = (Held::listen("127.0.0.1:0"), mirror("127.0.0.1:0"));
    let near = Words::default().forward(service.addr).forward(bulk);
    let pair = Pair::start(&near, &Words::default().allow([service.addr, bulk]));
    // What a process needs once, and the buffers of a busy flow, are there before it is weighed.
    let busy = |seed| {
        let spent = || pair.near.cpu() + pair.far.cpu();
        let (before, load) = (spent(), Load { seed, up: 16 << 20, down: 16 << 20 });
        Transfer::begin(pair.near.door(1), load).arrives();
        spent().saturating_sub(before)
    };
    busy(1);
    let without = (0..TRIES).map(busy).min().expect("there are some");
    let (mut users, mut served) = (Vec::with_capacity(many), Vec::with_capacity(many));
    add(&pair, &service, many / 10, (&mut users, &mut served));
    let before = [pair.near.resident_bytes(), pair.far.resident_bytes()];
    add(&pair, &service, many - many / 10, (&mut users, &mut served));
    until("all are there", || (pair.near.session().flow_count as usize >= many).then_some(()));
    let after = [pair.near.resident_bytes(), pair.far.resident_bytes()];
    let each = |at: usize| after[at].saturating_sub(before[at]) / (many - many / 10) as u64;
    println!(
        "{many} of {FLOWS} flows fit: {} bytes each at the near side, {} at the far",
        each(0),
        each(1)
    );
    for at in 0..2 {
        assert!(each(at) <= BYTES_MAX, "{} bytes", each(at));
    }
    let dear = |with: Duration| with * 2 > without * 3;
    let (mut with, mut tries) = (Duration::MAX / 4, 0);
    while tries < TRIES || dear(with) && tries < TRIES_MAX {
        with = with.min(busy(tries));
        tries += 1;
    }
    println!("32 MiB cost {without:?} without them, and {with:?} beside them in {tries} tries");
    assert!(!dear(with), "{with:?} beside {many} idle flows, {without:?} without");
    for (user, served) in users.iter_mut().zip(&mut served).step_by(97) {
        crosses(user, served, b"still there");
    }
    drop((users, served));
    pair.stop();
}

type Ends<'a> = (&'a mut Vec<TcpStream>, &'a mut Vec<TcpStream>);

fn add(pair: &Pair, service: &Held, many: usize, (users, served): Ends<'_>) {
    for _ in 0..many {
        let mut user = connect(pair.near.door(0));
        let mut end = service.next();
        crosses(&mut user, &mut end, b"once");
        users.push(user);
        served.push(end);
    }
}

/// A word goes there, and one comes back.
#[track_caller]
fn crosses(user: &mut TcpStream, served: &mut TcpStream, word: &[u8]) {
    let mut heard = vec![0; word.len()];
    user.write_all(word).expect("it takes it");
    served.read_exact(&mut heard).expect("it arrives");
    assert_eq!(heard, word);
    served.write_all(word).expect("it takes it");
    user.read_exact(&mut heard).expect("it arrives");
    assert_eq!(heard, word);
}
