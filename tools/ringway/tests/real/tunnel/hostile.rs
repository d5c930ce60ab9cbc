//! Strangers at the far side's door, and harm on the wire: nobody learns anything, and flows that
//! are somebody's are not hurt.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};

use super::CROWD;
use super::flows::{End, Load, Transfer, connect, echo, listen, mirror, says_again};
use super::sites::{Keys, Pair, Side, Words};
use super::wire::{Harm, Mood, Wire};
use crate::support::{PATIENCE, raise_open_files, until};

/// First messages that a near side would say to a far one: the far one is a notebook, which hangs
/// up, so that another one comes soon.
fn first_messages(keys: &Keys, words: &Words, many: usize) -> Vec<Vec<u8>> {
    let (notebook, addr) = listen("127.0.0.1:0");
    let _near = keys.near(words, addr);
    (0..many).map(|_| first_message(&notebook)).collect()
}

fn first_message(notebook: &TcpListener) -> Vec<u8> {
    let (mut stream, _) = notebook.accept().expect("it dials");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut message = vec![0; 4096];
    // It is written at once, and so it is read on loopback.
    let many = stream.read(&mut message).expect("it says something");
    message.truncate(many);
    message
}

/// Bytes that nobody meant.
fn chance(seed: u64, many: usize) -> Vec<u8> {
    let mut bytes = vec![0; many];
    super::flows::Pattern::new(seed * 2).fill(&mut bytes);
    bytes
}

/// Somebody at the door, from an address in 127/8.
struct Stranger {
    what: &'static str,
    stream: TcpStream,
    since: Instant,
}

impl Stranger {
    #[track_caller]
    fn knocks(from: [u8; 4], to: SocketAddr, what: &'static str, words: &[u8]) -> Stranger {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None);
        let socket = socket.expect("a socket");
        rustix::net::bind(&socket, &SocketAddr::from((from, 0))).expect("loopback");
        rustix::net::connect(&socket, &to).expect("it listens");
        let since = Instant::now();
        let mut stream = TcpStream::from(socket);
        stream.write_all(words).expect("the kernel takes it");
        stream.set_nonblocking(true).expect("a socket");
        Stranger { what, stream, since }
    }

    /// How it was sent away, if it was. It never hears a byte.
    #[track_caller]
    fn sent_away(&mut self) -> Option<(End, Duration)> {
        let end = match self.stream.read(&mut [0; 64]) {
            Ok(0) => End::Whole,
            Ok(many) => panic!("{} hears {many} bytes", self.what),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => End::Reset,
            Err(error) => panic!("{}: {error}", self.what),
        };
        Some((end, self.since.elapsed()))
    }
}

/// Says a first message; whether it is answered is known by the far side's count of the refused,
/// whose log says who it was.
#[track_caller]
fn is_answered(far: &Side, message: &[u8]) -> bool {
    let before = far.counter("not_let_in_replayed");
    let mut stream = connect(far.carriers());
    stream.write_all(message).expect("the kernel takes it");
    stream.set_nonblocking(true).expect("a socket");
    let answered = until("an answer or a refusal", || match stream.read(&mut [0; 64]) {
        Ok(many) => Some(many > 0),
        Err(_) => (far.counter("not_let_in_replayed") > before).then_some(false),
    });
    let from = stream.local_addr().expect("connected").to_string();
    let tells = |line: &str| line.contains("came a second time") && line.contains(&from);
    if !answered {
        until("the log says who it was", || far.log().lines().any(tells).then_some(()));
    }
    answered
}

/// Words of a side that has other keys.
fn keyed(network: &str, key: &str, public: &str, psk: &str) -> Words {
    let list = [
        format!("network_key = {network:?}"),
        format!("key = {key:?}"),
        format!("public_key = {public:?}"),
    ];
    Words { keys: Some(list), ..Words::default() }.peer(psk)
}

/// A stranger that sends on while it is sent away.
const SLOW: &str = "one byte after the other";

/// Who lacks a key, who repeats what he heard, who wants another gateway and who just makes noise:
/// none hears a byte, and all are sent away in the same way and after the same time, which differs
/// from neighbourhood to neighbourhood. Who has all keys is answered, at the same door.
#[test]
fn strangers_cannot_tell_why_they_hear_nothing() {
    let keys = Keys::new();
    keys.make("right.psk", &["--shared"]);
    let right = "psk = \"right.psk\"";
    keys.make("other-network.key", &["--network"]);
    keys.make("stranger.key", &[]);
    let gateway = keys.make("gateway.key", &[]);
    let (near, far) = (keys.public("near.key"), keys.public("far.key"));
    // Two shards: how long somebody is listened to is not his shard's to say.
    let far_words = keyed("network.key", "far.key", &near, right).set("shards = 2");
    let mut far_side = keys.far(&far_words);
    // One neighbourhood each is enough: the one that is sent away first tells.
    let many = HOODS.len();
    let says = |words: Words, many| first_messages(&keys, &words, many);
    let good = says(keyed("network.key", "near.key", &far, right), 2);
    assert!(is_answered(&far_side, &good[0]), "who has all keys is let in");
    assert!(!is_answered(&far_side, &good[0]), "a message is good once");
    far_side.dies_and_comes_back();
    assert!(!is_answered(&far_side, &good[0]), "also for who was started anew");
    assert!(is_answered(&far_side, &good[1]), "who was not heard before is let in");
    let kinds = [
        ("wrong network key", says(keyed("other-network.key", "near.key", &far, right), many)),
        ("wrong identity", says(keyed("network.key", "stranger.key", &far, right), many)),
        ("another gateway", says(keyed("network.key", "near.key", &gateway, right), many)),
        ("replay", vec![good[0].clone(); many]),
        ("noise", (0..many).map(|at| chance(at as u64, 500)).collect()),
        ("little noise", (0..many).map(|at| chance(at as u64, 9)).collect()),
        ("half of it", vec![good[0][..good[0].len() / 2].to_vec(); many]),
        ("much noise", (0..many).map(|at| chance(at as u64, 20_000)).collect()),
        ("http", vec![b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(); many]),
        ("nothing", vec![Vec::new(); many]),
        (SLOW, vec![good[0][..1].to_vec(); many]),
    ];
    let at = far_side.carriers();
    let mut hoods: Vec<Vec<Stranger>> = HOODS
        .iter()
        .enumerate()
        .map(|(hood, from)| {
            let knocks = |(what, words): &(&'static str, Vec<Vec<u8>>)| {
                Stranger::knocks(*from, at, what, &words[hood])
            };
            kinds.iter().map(knocks).collect()
        })
        .collect();
    let (hood, first) = until("somebody is sent away", || {
        // The slow one is not given more time for each byte. One that is sent away takes none.
        hoods.iter_mut().filter_map(|hood| hood.last_mut()).for_each(|slow| {
            let _ = slow.stream.write(b"x");
        });
        hoods.iter_mut().enumerate().find_map(|(at, hood)| Some((at, hood[0].sent_away()?)))
    });
    println!("{:?}: {first:?}", HOODS[hood]);
    assert!(first.1 > Duration::from_secs(9), "so soon? {first:?}");
    for stranger in &mut hoods[hood][1..] {
        let (end, took) = until(stranger.what, || stranger.sent_away());
        println!("{}: {end:?} after {took:?}", stranger.what);
        // A byte of its own that crosses the end makes a reset of it, whoever it is.
        if stranger.what != SLOW {
            assert_eq!(end, first.0, "{}", stranger.what);
        }
        assert!(took.abs_diff(first.1) < Duration::from_secs(3), "{}: {took:?}", stranger.what);
    }
    // The others are told nothing, either, and not one of them was let in.
    hoods.iter_mut().enumerate().filter(|(at, _)| *at != hood).for_each(|(_, hood)| {
        hood.iter_mut().for_each(|stranger| {
            let _ = stranger.sent_away();
        });
    });
    far_side.stop();
}

/// A far side is killed as soon as it has answered, again and again: each life refuses what the
/// one before has answered, and so on from the first one, and answers what is new at once.
#[test]
fn what_was_answered_is_not_answered_after_a_kill() {
    let keys = Keys::new();
    let mut far = keys.far(&Words::default());
    let messages = first_messages(&keys, &Words::default(), 4);
    for (at, message) in messages.iter().enumerate() {
        assert!(is_answered(&far, message), "message {at}");
        far.dies_and_comes_back();
        for before in &messages[..=at] {
            assert!(!is_answered(&far, before), "it was answered before");
        }
    }
    far.stop();
}

/// Who has a site's own key but not the second secret of the two is answered, because the answer
/// is where that secret comes in (`Noise_IKpsk2`); but it does not verify, so no session begins.
#[test]
fn a_second_secret_that_is_wrong_lets_nobody_in() {
    let keys = Keys::new();
    keys.make("right.psk", &["--shared"]);
    keys.make("wrong.psk", &["--shared"]);
    let (near, far) = (keys.public("near.key"), keys.public("far.key"));
    let side = keys.far(&keyed("network.key", "far.key", &near, "psk = \"right.psk\""));
    for psk in ["psk = \"wrong.psk\"", ""] {
        let words = keyed("network.key", "near.key", &far, psk);
        let near = keys.near(&words, side.carriers());
        near.says("what answered is not this peer", 0);
        assert!(!near.status().peers[0].up && !side.status().peers[0].up);
    }
    let words = keyed("network.key", "near.key", &far, "psk = \"right.psk\"");
    let near = keys.near(&words, side.carriers());
    near.says("connected", 0);
}

/// Addresses in networks that are judged apart.
const HOODS: [[u8; 4]; 4] = [[127, 3, 1, 1], [127, 3, 2, 1], [127, 3, 3, 1], [127, 3, 4, 1]];

/// How long a slow one takes for a byte: for the 72 before a body longer than the longest of the
/// times for which a stranger is read.
const DRIP: Duration = Duration::from_millis(600);

/// Somebody who never comes to an end, and always says something.
struct Slow {
    stranger: Stranger,
    drips: Vec<u8>,
    dripped: usize,
    heard: Vec<u8>,
    end: Option<(End, Duration)>,
}

impl Slow {
    #[track_caller]
    fn begins(from: [u8; 4], to: SocketAddr, what: &'static str, words: [&[u8]; 2]) -> Slow {
        let [at_once, drips] = words;
        let stranger = Stranger::knocks(from, to, what, at_once);
        Slow { stranger, drips: drips.to_vec(), dripped: 0, heard: Vec::new(), end: None }
    }

    /// Says what is due and hears what there is; whether it was sent away.
    #[track_caller]
    fn goes_on(&mut self) -> bool {
        let Stranger { what, stream, since } = &mut self.stranger;
        let mut some = [0; 1024];
        while self.end.is_none() {
            match stream.read(&mut some) {
                Ok(0) => self.end = Some((End::Whole, since.elapsed())),
                Ok(many) => self.heard.extend_from_slice(&some[..many]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    self.end = Some((End::Reset, since.elapsed()));
                }
                Err(error) => panic!("{what}: {error}"),
            }
        }
        let due = since.elapsed().div_duration_f64(DRIP) as usize;
        while self.end.is_none() && self.dripped < due.min(self.drips.len()) {
            // One that is sent away at this moment takes none, and hears of it at the next look.
            let _ = stream.write(&self.drips[self.dripped..=self.dripped]);
            self.dripped += 1;
        }
        self.end.is_some()
    }
}

/// Strangers at the far side's door who have heard a right first message and say it byte by byte:
/// its head, its body, or nothing behind its head. All are sent away with the one who is silent.
fn slow_strangers(to: SocketAddr, messages: &[Vec<u8>]) -> Vec<Slow> {
    const HEAD_BYTES: usize = 72;
    let from = HOODS[0];
    let [first, second, third] = messages else { panic!("three messages") };
    let [(_, body), (head, _)] = [second, third].map(|one| one.split_at(HEAD_BYTES));
    let mut all = vec![
        Slow::begins(from, to, "silent", [&[], &[]]),
        Slow::begins(from, to, "its body drips", [&second[..HEAD_BYTES], body]),
        Slow::begins(from, to, "only a head", [head, &[]]),
    ];
    // A head that was never whole was never heard, so many may say the same.
    let drips = || Slow::begins(from, to, "its head drips", [&first[..1], &first[1..]]);
    all.extend((0..100).map(|_| drips()));
    all
}

/// Users who never say where they want to, and what each is to hear: by SOCKS5, then by CONNECT.
fn slow_users(socks: SocketAddr, connect: SocketAddr) -> Vec<(Slow, &'static [u8])> {
    const SILENCE: &[u8] = b"";
    const GREETED: &[u8] = b"\x05\x00";
    const LATE: &[u8] = b"HTTP/1.1 504 ";
    const FIELD: &[u8] = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nX: ";
    let user = |to, what, words| Slow::begins([127, 0, 0, 1], to, what, words);
    let name = [&b"\x05\x01\x00\x03\xff"[..], &[b'a'; 200]].concat();
    vec![
        (user(socks, "SOCKS5, silent", [&[], &[]]), SILENCE),
        (user(socks, "SOCKS5, a greeting drips", [&[5, 255], &[1; 200]]), SILENCE),
        (user(socks, "SOCKS5, a name drips", [&[5, 1, 0], &name]), GREETED),
        (user(connect, "CONNECT, silent", [&[], &[]]), LATE),
        (user(connect, "CONNECT, a name drips", [b"CONNECT ", &[b'a'; 200]]), LATE),
        (user(connect, "CONNECT, a field drips", [FIELD, &[b'a'; 200]]), LATE),
    ]
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

/// Slow ones at every door, none of whom ever ends what it says: a byte more buys no time, and all
/// are sent away when it is time. Users that were there go on meanwhile, by the median as fast as
/// before them; new ones are served, and the near side's new carriers are let in. The slowest of
/// all these has 2 s, in which its carrier may be cut and dialled again while all tests run.
#[test]
fn slow_ones_are_sent_away_in_time_and_delay_nobody() {
    let keys = Keys::new();
    let messages = first_messages(&keys, &Words::default(), 3);
    let service = echo();
    let far = keys.far(&Words::default().allow([service]));
    let wire = Wire::start(far.carriers());
    let words = Words::default().forward(service).door("socks5").door("http_connect");
    let near = keys.near(&words, wire.addr);
    let mut friend = connect(near.door(0));
    says_again(&mut friend, b"before");

    let mut word = || {
        let begun = Instant::now();
        says_again(&mut friend, b"a word");
        begun.elapsed()
    };
    let in_peace = median((0..1000).map(|_| word()).collect());
    let mut strangers = slow_strangers(far.carriers(), &messages);
    let mut users = slow_users(near.door(1), near.door(2));
    let (mut words, mut slowest) = (Vec::new(), Duration::ZERO);
    until("all are sent away", || {
        if words.len() % 1000 == 500 {
            wire.reset();
        }
        let begun = Instant::now();
        words.push(word());
        if words.len() % 100 == 1 {
            says_again(&mut connect(near.door(0)), b"somebody new");
        }
        slowest = slowest.max(begun.elapsed());
        let strangers =
            strangers.iter_mut().map(|slow| usize::from(!slow.goes_on())).sum::<usize>();
        let users = users.iter_mut().map(|(slow, _)| usize::from(!slow.goes_on())).sum::<usize>();
        (strangers + users == 0).then_some(())
    });
    let rounds = words.len();
    let beside = median(words);
    println!(
        "{rounds} rounds: a word takes {beside:?} (in peace {in_peace:?}), the slowest {slowest:?}"
    );
    // A machine that is shared has quieter times and others.
    let much = 3 * in_peace + Duration::from_millis(2);
    assert!(beside <= much, "a word takes {beside:?}, in peace {in_peace:?}");
    assert!(slowest < Duration::from_secs(2), "a friend waits for {slowest:?}");

    let ended = |slow: &Slow| slow.end.expect("all were sent away");
    let (end, after) = ended(&strangers[0]);
    assert!(after > Duration::from_secs(9) && after < Duration::from_secs(45), "{after:?}");
    for slow in &strangers {
        let (what, one) = (slow.stranger.what, ended(slow));
        assert!(slow.heard.is_empty(), "{what} hears {:?}", slow.heard);
        assert!(one.0 == end && one.1.abs_diff(after) < Duration::from_secs(3), "{what}: {one:?}");
        assert!(slow.dripped < slow.drips.len() || slow.drips.is_empty(), "{what} came to its end");
    }
    for (slow, hears) in &users {
        let (what, (_, after)) = (slow.stranger.what, ended(slow));
        println!("{what}: {after:?}");
        let heard = String::from_utf8_lossy(&slow.heard);
        assert!(slow.heard.starts_with(hears), "{what} hears {heard:?}");
        assert!(slow.heard.len() == hears.len() || hears.len() > 2, "{what} hears {heard:?}");
        assert!(after > Duration::from_secs(29) && after < Duration::from_secs(35), "{after:?}");
    }
    drop(friend);
    near.stop();
    far.stop();
}

/// Bits are turned, bytes are lost, a carrier ends in the middle of a record: it is noticed, that
/// carrier is over, and every byte of the transfer arrives by others.
#[test]
fn harm_on_the_wire_costs_a_carrier_and_no_byte() {
    let service = mirror("127.0.0.1:0");
    let near = Words::default().forward(service);
    let pair = Pair::start(&near, &Words::default().allow([service]));
    pair.wire.be(Mood::Crawling(6 << 20));
    let transfers: Vec<Transfer> = (0..3)
        .map(|seed| Load { seed: 20 + seed, up: 8 << 20, down: 4 << 20 })
        .map(|load| Transfer::begin(pair.near.door(0), load))
        .collect();
    let mut harmed = Vec::new();
    for harm in [Harm::Flip, Harm::Lack, Harm::Cut, Harm::Flip, Harm::Cut] {
        let victim = until("a carrier, or the end", || {
            if transfers.iter().all(Transfer::is_over) {
                return Some(None);
            }
            // What was harmed is not used any more, but stays open: nobody is to see what happened.
            pair.wire.alive().into_iter().rfind(|at| !harmed.contains(at)).map(Some)
        });
        let Some(victim) = victim else { break };
        let before = pair.far.counter("carriers_lost") + pair.far.counter("broken");
        pair.wire.harm_at(victim, harm);
        until("the harm is noticed", || {
            let lost = pair.far.counter("carriers_lost") + pair.far.counter("broken");
            (lost > before || transfers.iter().all(Transfer::is_over)).then_some(())
        });
        harmed.push(victim);
    }
    pair.wire.be(Mood::Passing);
    transfers.into_iter().for_each(Transfer::arrives);
    println!("{} harms; {} records broken", harmed.len(), pair.far.counter("broken"));
    assert!(pair.far.counter("broken") >= 2, "turned bits were not noticed");
    pair.stop();
}

/// Ten thousand strangers come while a transfer runs, many more at once than are listened to, and
/// some say another byte now and then. The far side's memory stays where it was but for what so
/// many sockets cost, the transfer arrives, and friends are let in.
#[test]
fn ten_thousand_strangers_are_not_felt() {
    let _alone = CROWD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let open_files = raise_open_files() as usize;
    let held_max = 4700.min(open_files / 4);
    let service = mirror("127.0.0.1:0");
    let friend = echo();
    let near = Words::default().forward(service).forward(friend);
    let pair = Pair::start(&near, &Words::default().allow([service, friend]));
    let transfer =
        |seed| Transfer::begin(pair.near.door(0), Load { seed, up: 12 << 20, down: 12 << 20 });
    transfer(0).arrives();
    let before = pair.far.resident_bytes();
    let mut transfers = vec![transfer(1)];
    let begun = Instant::now();
    let mut held: VecDeque<TcpStream> = VecDeque::new();
    for number in 0..10_000usize {
        let mut stream = connect(pair.far.carriers());
        let many = if number % 2 == 0 { 1 } else { number % 1400 };
        // One that has been sent away meanwhile takes nothing, and that is fine.
        let _ = stream.write_all(&chance(number as u64, many));
        held.push_back(stream);
        if held.len() > held_max {
            held.pop_front();
        }
        if transfers.last().is_none_or(Transfer::is_over) {
            transfers.push(transfer(transfers.len() as u64));
        }
        // The slow ones: one byte more for some of those that are there.
        if number % 10 == 0 {
            let at = number % held.len();
            let _ = held[at].write_all(b"!");
        }
    }
    let grown = pair.far.resident_bytes().saturating_sub(before);
    let crowded = pair.far.counter("not_let_in_crowded");
    println!("{held_max} at once: far grew by {} KiB; {crowded} had to go", grown >> 10);
    println!("{} transfers meanwhile, in {:.1?}", transfers.len(), begun.elapsed());
    assert!(grown < 32 << 20, "{grown} bytes");
    assert!(held_max < 4200 || crowded > 0, "more are listened to than may be");
    says_again(&mut connect(pair.near.door(1)), b"a friend");
    pair.wire.reset();
    says_again(&mut connect(pair.near.door(1)), b"a friend on a new carrier");
    transfers.into_iter().for_each(Transfer::arrives);
    drop(held);
    pair.stop();
}
