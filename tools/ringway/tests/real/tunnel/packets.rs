//! Sessions that go by UDP: what users see of it, and what status says.
//!
//! Between the two sites lies a relay of the test's own, for datagrams as `wire.rs` is for
//! connections. It is at the same address, as a router is, and its sockets are small: what comes
//! too fast is lost there.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringway_tunnel_node::status::CarrierStatus;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::flows::{Load, Transfer, mirror};
use super::sites::{Keys, Pair, Side, Words};
use super::wire::Wire;
use crate::support::{ringway, until};

/// How soon orders are noticed.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// What datagrams meet on their way.
#[derive(Default)]
struct Orders {
    /// Nothing gets through.
    blocked: AtomicBool,
    /// The near side is seen by another port from now on.
    moves: AtomicBool,
    /// The path takes [`DELAY`] each way, and what is more than [`POLICED`] is dropped.
    held_back: AtomicBool,
    /// Somebody who hears all of it says some of it again, as it was and otherwise ([`Parrot`]).
    repeated: AtomicBool,
    /// Where the near side was seen last.
    near: Mutex<Option<SocketAddr>>,
}

const DELAY: Duration = Duration::from_millis(5);
/// Bytes a second, and how far ahead of that one may be.
const POLICED: f64 = 1e6;
const AHEAD: Duration = Duration::from_millis(30);

/// One way through a path that is held back.
struct Held {
    /// When each leaves, oldest first.
    waiting: VecDeque<(Instant, Vec<u8>)>,
    /// Until when what may pass is used up.
    until: Instant,
}

impl Held {
    fn new() -> Held {
        Held { waiting: VecDeque::new(), until: Instant::now() }
    }

    fn put(&mut self, datagram: &[u8]) {
        let now = Instant::now();
        self.until = self.until.max(now);
        if self.until - now <= AHEAD {
            self.until += Duration::from_secs_f64(datagram.len() as f64 / POLICED);
            self.waiting.push_back((now + DELAY, datagram.to_vec()));
        }
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let now = Instant::now();
        Some(self.waiting.pop_front_if(|(at, _)| *at <= now)?.1)
    }
}

/// A stranger who hears every datagram, and repeats what he does not understand.
struct Parrot {
    socket: UdpSocket,
    heard: usize,
    room: Vec<u8>,
}

/// Of so many datagrams that he hears he repeats one.
const REPEATS_ONE_OF: usize = 8;

impl Parrot {
    fn new() -> Parrot {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port of the kernel's");
        socket.set_nonblocking(true).expect("our socket");
        Parrot { socket, heard: 0, room: vec![0x5a; OVERSIZE] }
    }

    /// Passes a datagram on. If he repeats it, he is quicker and says it with another last bit,
    /// without its end, and as long as can be; and once it has passed, as it was.
    fn around(
        &mut self,
        speaks: bool,
        (datagram, to): (&[u8], SocketAddr),
        pass: impl FnOnce(&[u8]),
    ) {
        self.heard += 1;
        if !speaks || !self.heard.is_multiple_of(REPEATS_ONE_OF) {
            return pass(datagram);
        }
        let len = datagram.len();
        self.room[..len].copy_from_slice(datagram);
        self.room[len - 1] ^= 1;
        for len in [len, len / 2, OVERSIZE] {
            // What a full socket does not take is lost.
            let _ = self.socket.send_to(&self.room[..len], to);
        }
        pass(datagram);
        let _ = self.socket.send_to(datagram, to);
    }
}

/// The longest that IPv4 has.
const OVERSIZE: usize = 65_507;

/// It ends with the test's process.
pub(super) struct Air(Arc<Orders>);

impl Air {
    /// At this address, in front of a side.
    fn start(at: SocketAddr, far: SocketAddr) -> Air {
        let front = UdpSocket::bind(at).expect("nobody has it");
        let orders = Arc::new(Orders::default());
        let seen = Arc::clone(&orders);
        std::thread::spawn(move || pass_on(&seen, &front, far));
        Air(orders)
    }

    fn block(&self, blocked: bool) {
        self.0.blocked.store(blocked, Ordering::Relaxed);
    }

    fn moves(&self) {
        self.0.moves.store(true, Ordering::Relaxed);
    }

    pub(super) fn repeat(&self, repeated: bool) {
        self.0.repeated.store(repeated, Ordering::Relaxed);
    }

    /// The address from which the near side says what it does.
    #[track_caller]
    pub(super) fn near(&self) -> SocketAddr {
        self.0.near.lock().expect("not poisoned").expect("it has said something")
    }
}

/// A socket that leads to the far side.
fn towards(far: SocketAddr) -> UdpSocket {
    let back = UdpSocket::bind("127.0.0.1:0").expect("a port of the kernel's");
    back.connect(far).expect("it is local");
    back.set_nonblocking(true).expect("our socket");
    back
}

fn pass_on(orders: &Orders, front: &UdpSocket, far: SocketAddr) {
    front.set_nonblocking(true).expect("our socket");
    let (mut back, mut near, mut room) = (towards(far), None, vec![0; 65_535]);
    let (mut held, mut parrot) = ([Held::new(), Held::new()], Parrot::new());
    loop {
        let mut fds =
            [front.as_fd(), back.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        poll(&mut fds, Some(&LOOK)).expect("two sockets");
        if orders.moves.swap(false, Ordering::Relaxed) {
            back = towards(far);
        }
        let passes = !orders.blocked.load(Ordering::Relaxed);
        let holds = orders.held_back.load(Ordering::Relaxed);
        let repeated = orders.repeated.load(Ordering::Relaxed);
        while let Some((len, from)) = taken(front.recv_from(&mut room)) {
            if near.replace(from) != Some(from) {
                *orders.near.lock().expect("not poisoned") = near;
            }
            let pass = |datagram: &[u8]| {
                if holds {
                    held[0].put(datagram);
                } else if passes {
                    // What a full socket does not take is lost.
                    let _ = back.send(datagram);
                }
            };
            parrot.around(repeated, (&room[..len], far), pass);
        }
        while let Some(len) = taken(back.recv(&mut room)) {
            let Some(near) = near else { continue };
            let pass = |datagram: &[u8]| {
                if holds {
                    held[1].put(datagram);
                } else if passes {
                    let _ = front.send_to(datagram, near);
                }
            };
            parrot.around(repeated, (&room[..len], near), pass);
        }
        while let Some(datagram) = held[0].take() {
            let _ = back.send(&datagram);
        }
        while let Some(datagram) = held[1].take() {
            let _ = near.map(|near| front.send_to(&datagram, near));
        }
    }
}

/// What there was, or nothing: also if a site is not there at the moment.
fn taken<T>(read: std::io::Result<T>) -> Option<T> {
    let nothing = [ErrorKind::WouldBlock, ErrorKind::ConnectionRefused];
    read.inspect_err(|error| assert!(nothing.contains(&error.kind()), "{error}")).ok()
}

/// Two sites whose files allow UDP, and what lies between them.
pub(super) fn start(shards: usize, service: SocketAddr) -> (Pair, Air) {
    start_held(shards, service, false)
}

/// The same with a path that is held back, or not.
fn start_held(shards: usize, service: SocketAddr, held_back: bool) -> (Pair, Air) {
    let words = Words::default().peer("udp = true");
    let keys = Keys::new();
    let far = keys.far(&words.clone().set(&format!("shards = {shards}")).allow([service]));
    let wire = Wire::start(far.carriers());
    let air = Air::start(wire.addr, far.carriers());
    air.0.held_back.store(held_back, Ordering::Relaxed);
    let near = keys.near(&words.forward(service), wire.addr);
    let pair = Pair { near, far, wire, keys };
    pair.until_up();
    (pair, air)
}

/// A side's carriers of this kind.
pub(super) fn carriers(side: &Side, kind: &str) -> Vec<CarrierStatus> {
    let peer = side.status().peers.remove(0);
    let all = peer.sessions.into_iter().flat_map(|session| session.carriers);
    all.filter(|carrier| carrier.kind == kind).collect()
}

/// Bytes of streams that went by carriers of a kind, from a side.
pub(super) fn sent(side: &Side, kind: &str) -> u64 {
    carriers(side, kind).iter().map(|carrier| carrier.sent).sum()
}

/// Waits until packets get through, or do not, as both sides see it.
#[track_caller]
pub(super) fn until_packets(pair: &Pair, work: bool) {
    let works = |side| {
        let udp = carriers(side, "udp");
        udp.iter().any(|carrier| carrier.limited_by != "no answer")
    };
    until("packets get through, or do not", || {
        (works(&pair.near) == work && works(&pair.far) == work).then_some(())
    });
}

fn load(seed: u64, mib: u64) -> Load {
    Load { seed, up: mib << 20, down: mib << 20 }
}

/// Much goes both ways by packets, whatever shard of the far side they come to, and nothing of it
/// by the carrier of records that stands by.
#[test]
fn streams_go_by_udp() {
    let service = mirror("127.0.0.1:0");
    for shards in [1, 2] {
        let (pair, _air) = start(shards, service);
        until_packets(&pair, true);
        let before = [&pair.near, &pair.far].map(|side| sent(side, "tcp"));
        // An even seed is chance: it does not compress.
        Transfer::begin(pair.near.door(0), load(8, 16)).arrives();
        let long = |side| carriers(side, "udp")[0].datagram_bytes == Some(8920);
        until("datagrams are as long as loopback passes", || {
            [&pair.near, &pair.far].into_iter().all(long).then_some(())
        });
        for (side, before) in [&pair.near, &pair.far].into_iter().zip(before) {
            let [udp] = &carriers(side, "udp")[..] else { panic!("one of packets") };
            assert!(udp.sent >= 16 << 20 && udp.bytes_received > 16 << 20, "{udp:?}");
            assert!(udp.takes_bits_per_s > 0 && !udp.suspect, "{udp:?}");
            let why = udp.why.as_ref().expect("it has reasons");
            assert!(why.decisions.iter().any(|one| one.what.contains("train")), "{why:?}");
            assert_eq!(sent(side, "tcp"), before, "records stand by");
            for name in ["datagrams_forged", "broken"] {
                assert_eq!(side.counter(name), 0, "{name}");
            }
        }
        assert_eq!(carriers(&pair.near, "tcp").len(), 1);
        let config = pair.keys.path("near.toml");
        let config = config.to_str().expect("text");
        let told = ringway(&["tunnel", "status", "--why", "--config", config]).with(0);
        for words in ["by udp:", "rate: ", "window: ", "repair: ", "s ago: "] {
            assert!(told.out.contains(words), "{words}: {told:?}");
        }
        pair.stop();
    }
}

/// What `check` says of UDP at the near side. It is no failure, whatever it is.
#[track_caller]
fn checks(pair: &Pair, words: &str) {
    let config = pair.keys.path("near.toml");
    let told = ringway(&["tunnel", "check", "--config", config.to_str().expect("text")]).with(0);
    assert!(told.out.contains("UDP: ") && told.out.contains(words), "{}", told.out);
}

/// UDP is blocked in the midst of it, and let through again: the session goes on by TCP meanwhile.
#[test]
fn a_session_moves_to_tcp_and_back() {
    let service = mirror("127.0.0.1:0");
    let (pair, air) = start(1, service);
    until_packets(&pair, true);
    let transfer = Transfer::begin(pair.near.door(0), load(8, 64));
    until("something went by UDP", || (sent(&pair.near, "udp") > 1 << 20).then_some(()));
    air.block(true);
    until("something goes by TCP", || (sent(&pair.near, "tcp") > 1 << 20).then_some(()));
    transfer.arrives();
    until_packets(&pair, false);
    checks(&pair, "nothing comes back by it");
    pair.near.says("UDP carries nothing any more", 0);
    air.block(false);
    until_packets(&pair, true);
    checks(&pair, "streams go by datagrams of ");
    let before = sent(&pair.near, "udp");
    Transfer::begin(pair.near.door(0), load(10, 4)).arrives();
    assert!(sent(&pair.near, "udp") >= before + (4 << 20));
    pair.stop();
}

/// UDP is blocked while nobody says anything, so neither side has noticed: `check` asks.
#[test]
fn a_check_asks_by_udp() {
    let service = mirror("127.0.0.1:0");
    let (pair, air) = start(1, service);
    until_packets(&pair, true);
    checks(&pair, "asked, and answered: streams go by datagrams of ");
    air.block(true);
    checks(&pair, "nothing comes back by it");
    let [udp] = &carriers(&pair.near, "udp")[..] else { panic!("one of packets") };
    let why = udp.why.as_ref().expect("it has reasons");
    assert!(why.rate.contains("nothing has come back in "), "{why:?}");
    assert!(why.rate.contains("whether it works again is asked in "), "{why:?}");
    assert_eq!(udp.heard_us_ago, None);
    pair.stop();
}

/// UDP gets through and is held back from the begin: streams go by TCP, and the log and status say
/// why.
#[test]
fn a_session_leaves_udp_that_is_held_back() {
    let service = mirror("127.0.0.1:0");
    let (pair, _air) = start_held(1, service, true);
    until_packets(&pair, true);
    let transfer = Transfer::begin(pair.near.door(0), load(8, 64));
    for side in [&pair.near, &pair.far] {
        until("something goes by TCP", || (sent(side, "tcp") > 1 << 20).then_some(()));
        side.says("UDP gets through and brings much less than TCP does", 0);
        // So much is dropped at first that nothing may come back for a moment.
        until("UDP is held back, and answers", || {
            let [udp] = &carriers(side, "udp")[..] else { panic!("one of packets") };
            let says = udp.why.as_ref().expect("it has reasons").rate.contains("have gone by TCP");
            (says && udp.limited_by == "held back" && !udp.suspect).then_some(())
        });
    }
    transfer.arrives();
    for side in [&pair.near, &pair.far] {
        let [udp, tcp] = ["udp", "tcp"].map(|kind| sent(side, kind));
        assert!(tcp > 40 << 20 && udp < 24 << 20, "{tcp} by TCP, {udp} by UDP");
    }
    pair.stop();
}

/// The near side is seen by another address, as behind a router that was started anew: its packets
/// go on, and the far side's follow.
#[test]
fn a_path_that_moves_is_followed() {
    let service = mirror("127.0.0.1:0");
    let (pair, air) = start(1, service);
    until_packets(&pair, true);
    let seen = |side: &Side| carriers(side, "udp")[0].peer;
    let before = seen(&pair.far);
    let transfer = Transfer::begin(pair.near.door(0), load(8, 16));
    until("something went by UDP", || (sent(&pair.near, "udp") > 1 << 20).then_some(()));
    air.moves();
    transfer.arrives();
    Transfer::begin(pair.near.door(0), load(10, 1)).arrives();
    until("the far side has followed", || (seen(&pair.far) != before).then_some(()));
    until_packets(&pair, true);
    pair.stop();
}

/// Who reads its file again has UDP from then on, or no more; flows go on.
#[test]
fn udp_is_switched_by_another_reading() {
    let service = mirror("127.0.0.1:0");
    let near = Words::default().forward(service);
    let far = Words::default().allow([service]);
    let keys = Keys::new();
    let far_side = keys.far(&far);
    let wire = Wire::start(far_side.carriers());
    let _air = Air::start(wire.addr, far_side.carriers());
    let near_side = keys.near(&near, wire.addr);
    let pair = Pair { near: near_side, far: far_side, wire, keys };
    pair.until_up();
    let transfer = Transfer::begin(pair.near.door(0), load(8, 32));
    let read_again = |udp: bool| {
        let line = format!("udp = {udp}");
        pair.keys.write("far", &far.clone().peer(&line), None);
        pair.keys.write("near", &near.clone().peer(&line), Some(pair.wire.addr));
        pair.far.reload();
        pair.near.reload();
    };
    assert!(carriers(&pair.near, "udp").is_empty());
    read_again(true);
    until_packets(&pair, true);
    read_again(false);
    assert!(carriers(&pair.near, "udp").is_empty() && carriers(&pair.far, "udp").is_empty());
    read_again(true);
    until_packets(&pair, true);
    transfer.arrives();
    pair.stop();
}

/// One side alone switches UDP off while nobody says anything: the other one hears of it, and has
/// no carrier of packets any more until it tries the next one. One that was not told would keep it.
#[test]
fn who_switches_udp_off_says_so() {
    let service = mirror("127.0.0.1:0");
    let (pair, _air) = start(1, service);
    until_packets(&pair, true);
    let far = |udp: bool| {
        let words = Words::default().peer(&format!("udp = {udp}")).set("shards = 1");
        pair.keys.write("far", &words.allow([service]), None);
        pair.far.reload();
    };
    far(false);
    assert!(carriers(&pair.far, "udp").is_empty(), "it is in force");
    until("the near side has none", || carriers(&pair.near, "udp").is_empty().then_some(()));
    pair.near.says("UDP carries nothing any more", 0);
    checks(&pair, "nothing comes back by it");
    far(true);
    until_packets(&pair, true);
    pair.stop();
}
