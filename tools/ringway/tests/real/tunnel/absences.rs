//! Somebody is away: all carriers, one side, or what a side's file said yesterday.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringway_tunnel_node::status::SessionStatus;

use super::flows::{Held, Load, Transfer, connect, echo, is_reset, mirror, says_again};
use super::sites::{Keys, Pair, Side, Words};
use super::wire::{Mood, Wire};
use crate::support::{pass, until};

/// A user and the service's end of the same flow.
fn both_ends(pair: &Pair, service: &Held) -> (TcpStream, TcpStream) {
    through(&pair.near, service)
}

fn through(near: &Side, service: &Held) -> (TcpStream, TcpStream) {
    let mut user = connect(near.door(0));
    user.write_all(b"hello").expect("it takes it");
    let mut served = service.next();
    hears(&mut served, b"hello");
    (user, served)
}

#[track_caller]
fn hears(stream: &mut TcpStream, words: &[u8]) {
    let mut heard = vec![0; words.len()];
    stream.read_exact(&mut heard).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    assert_eq!(heard, words);
}

fn pair_with_wait(service: &Held, wait: &str) -> Pair {
    let wait = format!("wait = \"{wait}\"");
    let near = Words::default().set(&wait).forward(service.addr);
    Pair::start(&near, &Words::default().set(&wait).allow([service.addr]))
}

/// Cuts all that there is between the sites, and returns when both know.
#[track_caller]
fn part(pair: &Pair) {
    let (near, far) = (pair.near.log().len(), pair.far.log().len());
    pair.wire.shut(true);
    pair.wire.reset();
    pair.near.says("no carrier is left", near);
    pair.far.says("no carrier is left", far);
}

/// No carrier for seconds, and both ends of a flow write meanwhile: then all of it arrives, and
/// the flow goes on. A connection that comes meanwhile waits, and is served.
#[test]
fn flows_wait_for_carriers_and_go_on() {
    let service = Held::listen("127.0.0.1:0");
    let pair = pair_with_wait(&service, "60 s");
    let (mut user, mut served) = both_ends(&pair, &service);
    part(&pair);
    user.write_all(b"from here").expect("the tunnel takes it");
    served.write_all(b"from there").expect("the tunnel takes it");
    let mut later = connect(pair.near.door(0));
    later.write_all(b"me, too").expect("the kernel takes it");
    until("the connection waits", || (pair.near.status().peers[0].waiting == 1).then_some(()));
    pass(Duration::from_secs(3));
    service.is_alone();
    pair.wire.shut(false);
    hears(&mut served, b"from here");
    hears(&mut user, b"from there");
    hears(&mut service.next(), b"me, too");
    user.write_all(b"on").expect("it goes on");
    hears(&mut served, b"on");
    drop((user, served, later));
    assert!(pair.near.log().contains("its flows go on"), "{}", pair.near.log());
    pair.stop();
}

/// No carrier for longer than flows wait: both ends hear a reset, not an end that would say that
/// all is well. So does who came meanwhile. Afterwards all is as it was.
#[test]
fn flows_that_waited_too_long_are_reset() {
    let service = Held::listen("127.0.0.1:0");
    let pair = pair_with_wait(&service, "2 s");
    let (mut user, mut served) = both_ends(&pair, &service);
    part(&pair);
    let mut later = connect(pair.near.door(0));
    is_reset(&mut user);
    is_reset(&mut served);
    is_reset(&mut later);
    pair.wire.shut(false);
    pair.until_up();
    drop(both_ends(&pair, &service));
    pair.stop();
}

/// The far process dies without a word and starts again, elsewhere. What it knew of flows is gone:
/// users hear a reset, not an end, also those who wrote nothing. New connections work.
#[test]
fn a_far_side_that_starts_anew() {
    let (service, bulk) = (Held::listen("127.0.0.1:0"), mirror("127.0.0.1:0"));
    let words = Words::default().forward(service.addr).forward(bulk);
    // Slow enough to be in the middle of it.
    let far = Words::default().allow([service.addr, bulk]).peer("rate = \"200 Mbit/s\"");
    let mut pair = Pair::start(&words, &far);
    let (mut user, served) = both_ends(&pair, &service);
    let (mut idle, _served) = both_ends(&pair, &service);
    let transfer = Transfer::begin(pair.near.door(1), Load { seed: 2, up: 1 << 40, down: 1 << 40 });
    until("the transfer moves", || {
        let moved: u64 = pair.near.session().flows.iter().map(|flow| flow.bytes_out).sum();
        (moved > 1 << 20).then_some(())
    });
    pair.far.dies_and_comes_back();
    pair.wire.lead_to(pair.far.carriers());
    is_reset(&mut user);
    is_reset(&mut idle);
    transfer.breaks();
    drop(served);
    pair.until_up();
    drop(both_ends(&pair, &service));
    assert!(pair.near.log().contains("it was started anew"), "{}", pair.near.log());
    pair.stop();
}

/// Waits until a side is connected by this wire, and no other.
#[track_caller]
fn until_by(near: &Side, way: &Wire) {
    until("it is connected by this address", || {
        let session = near.session();
        let ways = session.carriers.iter().map(|carrier| carrier.peer);
        (session.up && ways.eq([Some(way.addr)])).then_some(())
    });
}

/// A far side has two addresses. Who is at the first says nothing: the second is dialled. When that
/// fails, one attempt there comes to nothing, and the flow goes on by the first. Then the far
/// process is started anew, behind the second: it is found there, and knows nothing of the flow,
/// whose user hears a reset.
#[test]
fn a_far_side_with_two_addresses() {
    let service = Held::listen("127.0.0.1:0");
    let keys = Keys::new();
    let mut far = keys.far(&Words::default().allow([service.addr]));
    let ways = [Wire::start(far.carriers()), Wire::start(far.carriers())];
    let addresses = [ways[0].addr.to_string(), ways[1].addr.to_string()];
    let words = Words::default().peer(&format!("addresses = {addresses:?}"));
    ways[0].be(Mood::Silent);
    let near = Side::start(&keys.write("near", &words.forward(service.addr), None));
    until_by(&near, &ways[1]);
    let (mut user, mut served) = through(&near, &service);

    let before = near.log().len();
    ways[0].be(Mood::Passing);
    ways[1].shut(true);
    ways[1].reset();
    near.says("its flows go on", before);
    until_by(&near, &ways[0]);
    user.write_all(b"on").expect("it goes on");
    hears(&mut served, b"on");
    let log = near.log();
    assert_eq!(log[before..].matches("no answer").count(), 1, "{}", &log[before..]);

    ways[0].shut(true);
    far.dies_and_comes_back();
    ways[0].reset();
    ways[1].lead_to(far.carriers());
    ways[1].shut(false);
    is_reset(&mut user);
    until_by(&near, &ways[1]);
    drop(through(&near, &service));
    assert!(near.log().contains("it was started anew"), "{}", near.log());
    near.stop();
    far.stop();
}

/// All addresses of a far side refuse but the last one: it is found at once, not after as many
/// pauses, which would take a minute, and the log has no riddle to tell of.
#[test]
fn addresses_that_refuse_are_passed_over() {
    let keys = Keys::new();
    let far = keys.far(&Words::default());
    let mut addresses: Vec<String> = (1..16).map(|host| format!("127.99.0.{host}:1")).collect();
    addresses.push(far.carriers().to_string());
    let words = Words::default().peer(&format!("addresses = {addresses:?}"));
    let began = Instant::now();
    let near = Side::start(&keys.write("near", &words, None));
    until("connected", || near.session().up.then_some(()));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let log = near.log();
    assert_eq!(log.matches("no answer").count(), 15, "{log}");
    assert!(!log.contains("no answer after"), "{log}");
    near.stop();
    far.stop();
}

/// The near process dies and starts again: services hear a reset, not an end.
#[test]
fn a_near_side_that_starts_anew() {
    let service = Held::listen("127.0.0.1:0");
    let words = Words::default().forward(service.addr);
    let mut pair = Pair::start(&words, &Words::default().allow([service.addr]));
    let (_user, mut served) = both_ends(&pair, &service);
    pair.near.dies_and_comes_back();
    is_reset(&mut served);
    pair.until_up();
    drop(both_ends(&pair, &service));
    pair.stop();
}

/// A forward comes, one goes, rules change: what runs is not touched, and what comes is by the new
/// file.
#[test]
fn a_file_that_is_read_again() {
    let (first, second, bulk) = (echo(), echo(), mirror("127.0.0.1:0"));
    let near_words = Words::default().forward_from("127.0.0.1:0", first).forward(bulk);
    let pair = Pair::start(&near_words, &Words::default().allow([first, bulk]));
    let mut running = connect(pair.near.door(0));
    says_again(&mut running, b"before");
    let load = Load { seed: 3, up: 24 << 20, down: 24 << 20 };
    let transfer = Transfer::begin(pair.near.door(1), load);
    // The far side forgets the first service, and knows the second.
    pair.keys.write("far", &Words::default().allow([second, bulk]), None);
    pair.far.reload();
    let mut denied = connect(pair.near.door(0));
    is_reset(&mut denied);
    // The near side, too: the socket of the first is closed, one for the second is opened.
    let near_words = Words::default().forward(bulk).forward_from("127.0.0.2:0", second);
    pair.keys.write("near", &near_words, Some(pair.wire.addr));
    let old = pair.near.listens_at();
    pair.near.reload();
    let (gone, came) = until("other doors", || {
        let new = pair.near.listens_at();
        let gone: Vec<_> = old.iter().filter(|door| !new.contains(door)).copied().collect();
        let came: Vec<_> = new.iter().filter(|door| !old.contains(door)).copied().collect();
        (gone.len() == 1 && came.len() == 1).then(|| (gone[0], came[0]))
    });
    assert!(TcpStream::connect(gone).is_err(), "{gone} is still open");
    says_again(&mut connect(came), b"by the new door");
    says_again(&mut running, b"afterwards");
    transfer.arrives();
    drop(running);
    pair.stop();
}

/// A shorter `wait` is in force at once, also for what waits already; `flows_max` is for the next
/// session.
#[test]
fn limits_in_a_file_that_is_read_again() {
    let service = Held::listen("127.0.0.1:0");
    let mut pair = pair_with_wait(&service, "600 s");
    let (mut user, mut served) = both_ends(&pair, &service);
    part(&pair);
    let mut later = connect(pair.near.door(0));
    until("the connection waits", || (pair.near.status().peers[0].waiting == 1).then_some(()));
    let words = Words::default().set("wait = \"1 s\"").set("flows_max = 1");
    pair.keys.write("near", &words.forward(service.addr), Some(pair.wire.addr));
    pair.near.reload();
    is_reset(&mut user);
    is_reset(&mut later);
    pair.wire.shut(false);
    pair.until_up();
    is_reset(&mut served);
    // It is the session of before, and may have more flows than one.
    let (mut first, mut second) = (both_ends(&pair, &service), both_ends(&pair, &service));
    pair.far.dies_and_comes_back();
    pair.wire.lead_to(pair.far.carriers());
    is_reset(&mut first.0);
    is_reset(&mut second.0);
    pair.until_up();
    let one = both_ends(&pair, &service);
    is_reset(&mut connect(pair.near.door(0)));
    assert_eq!(pair.near.counter("flows_failed_busy"), 1);
    drop(one);
    pair.stop();
}

/// Every key is replaced by another one, two being good for a while, as rotation goes. Flows do not
/// notice: not when their carriers have to come back by the new keys, and not when the old ones are
/// taken away, once status says that no session counts under them. A key that is taken away from
/// who still uses it ends what it began.
#[test]
fn keys_that_are_rotated() {
    let service = Held::listen("127.0.0.1:0");
    let words = [Words::default().forward(service.addr), Words::default().allow([service.addr])];
    let pair = Pair::start(&words[0], &words[1]);
    let mut flow = both_ends(&pair, &service);
    pair.keys.make("network2.key", &["--network"]);
    let near = [pair.keys.public("near.key"), pair.keys.make("near2.key", &[])];
    let far = [pair.keys.public("far.key"), pair.keys.make("far2.key", &[])];
    let reread = |pair: &Pair, side: &str, [network, own, theirs]: [&[&str]; 3]| {
        let list = |field: &str, all: &[&str]| format!("{field} = {all:?}");
        let keys = [list("network_key", network), list("key", own), list("public_key", theirs)];
        let is_far = side == "far";
        let words = Words { keys: Some(keys), ..words[usize::from(is_far)].clone() };
        pair.keys.write(side, &words, (!is_far).then_some(pair.wire.addr));
        if is_far { pair.far.reload() } else { pair.near.reload() }
    };
    let goes_on = |(user, served): &mut (TcpStream, TcpStream), word: &str| {
        user.write_all(word.as_bytes()).expect("it takes it");
        hears(served, word.as_bytes());
    };
    let comes_back = |pair: &Pair, flow: &mut (TcpStream, TcpStream), word: &str| {
        let before = pair.near.log().len();
        pair.wire.reset();
        pair.near.says("its flows go on", before);
        goes_on(flow, word);
    };
    // Of keys that are listed one behind the other, all sessions count under the first of two.
    let all_under = |side: &Side, keys: fn(&SessionStatus) -> (Option<u64>, u64)| {
        until("its session counts under the first key", || {
            let status = side.status();
            let mut sessions = status.peers.iter().flat_map(|peer| &peer.sessions);
            sessions.all(|session| keys(session) == (Some(1), 2)).then_some(())
        });
    };
    let peers: fn(&SessionStatus) -> _ = |session| (session.peer_key, session.peer_keys);
    let own: fn(&SessionStatus) -> _ = |session| (session.own_key, session.own_keys);
    // First everybody takes both, then who dials shows the new ones.
    let both = [&["network.key", "network2.key"][..], &["far.key", "far2.key"]];
    reread(&pair, "far", [both[0], both[1], &[&near[0], &near[1]]]);
    all_under(&pair.far, peers);
    let both = [&["network2.key", "network.key"][..], &["near2.key", "near.key"]];
    reread(&pair, "near", [both[0], both[1], &[&far[1], &far[0]]]);
    all_under(&pair.near, own);
    all_under(&pair.near, peers);
    goes_on(&mut flow, "both");
    // The far side lists the new one first as well: by that, all sessions of it are number 1.
    let both = [&["network2.key", "network.key"][..], &["far2.key", "far.key"]];
    reread(&pair, "far", [both[0], both[1], &[&near[1], &near[0]]]);
    all_under(&pair.far, peers);
    comes_back(&pair, &mut flow, "by new keys");
    // The old ones go.
    reread(&pair, "far", [&["network2.key"], &["far2.key"], &[&near[1]]]);
    reread(&pair, "near", [&["network2.key"], &["near2.key"], &[&far[1]]]);
    comes_back(&pair, &mut flow, "without the old ones");
    let stranger = pair.keys.make("stranger.key", &[]);
    reread(&pair, "far", [&["network2.key"], &["far2.key"], &[&stranger]]);
    is_reset(&mut flow.1);
    drop(flow);
    pair.stop();
}
