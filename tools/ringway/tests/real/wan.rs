//! `ringway wan link` tells the truth: rate, queue, round trip, jitter, loss and reordering are
//! what was asked for and in their order, nothing is lost that was not to be, changes are felt, and
//! what was made is gone in the end.
//!
//! Where the machine was too busy to carry a packet at all, or to carry and to receive packets in
//! time, the links' own counters are printed and the measurement is done again, a few times. What
//! no busy machine explains is never forgiven: more loss than told, less time than asked for.

use std::fmt::Debug;
use std::fs::{File, set_permissions};
use std::net::UdpSocket;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::support::{Held, PATIENCE, Told, command, hold, pass, ringway, until};

/// Measurements of one thing before a machine that is always late is a failure.
const TRIES: u32 = 6;
/// Headers of UDP and IP.
const HEADERS: u64 = 28;
const LATE: &str = "the machine was late";

/// Links that run. They are ended with this, as a user would end them.
struct Links {
    name: String,
    held: Held,
}

impl Links {
    fn start(words: &[&str]) -> Links {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes network namespaces and needs root for it: run the tests as root, as \
             CI does"
        );
        let name = new_name();
        let held = hold(command(&[&["wan", "link", "run", "--name", &name], words].concat()));
        held.line_with("ready ");
        Links { name, held }
    }

    fn set(&self, words: &[&str]) -> Told {
        ringway(&[&["wan", "link", "set", "--name", &self.name], words].concat())
    }

    /// What link `number` is and has done.
    fn shown(&self, number: usize) -> Value {
        let shown = ringway(&["--json", "wan", "link", "show", "--name", &self.name]);
        shown.with(0).json()["links"][number - 1].clone()
    }

    /// What the story returns, once no packet got lost in it that was not to be. The kernel drops
    /// what we do not read in time, and says so.
    fn undisturbed<T>(&self, number: usize, mut story: impl FnMut() -> T) -> T {
        for _ in 0..TRIES {
            let before = self.shown(number);
            let told = story();
            let after = self.shown(number);
            let same = |way: &str, what: &str| after[way][what] == before[way][what];
            let troubles = ["refused", "no_memory", "device_dropped"];
            if ["there", "back"].iter().all(|way| troubles.iter().all(|what| same(way, what))) {
                return told;
            }
            eprintln!("{LATE}: {after}");
        }
        panic!("{LATE}, {TRIES} times");
    }

    /// Measures until what is measured is well, a few times.
    fn measured(&self, number: usize, story: impl FnMut() -> f64, well: Range<f64>) {
        self.believed(number, story, &|told| well.contains(told));
    }

    /// The same for what has several numbers.
    fn believed<T: Debug>(
        &self,
        number: usize,
        mut story: impl FnMut() -> T,
        well: &dyn Fn(&T) -> bool,
    ) {
        for _ in 0..TRIES {
            let told = self.undisturbed(number, &mut story);
            if well(&told) {
                return;
            }
            eprintln!("{LATE}: {told:?} is not as told; {}", self.shown(number));
        }
        panic!("{LATE}, {TRIES} times");
    }

    fn inside<T: Send>(&self, end: &str, story: impl FnOnce() -> T + Send) -> T {
        let space = File::open(format!("/run/netns/{}-{end}", self.name)).expect("it is there");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("we are root");
                story()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A socket at an end of a link that nobody else is asked to be quick for.
    fn socket(&self, number: usize, end: &str) -> UdpSocket {
        let last = if end == "a" { 1 } else { 2 };
        let socket = self.inside(end, || UdpSocket::bind(format!("10.77.{number}.{last}:0")));
        let socket = socket.expect("the address is up");
        set_socket_recv_buffer_size_force(&socket, 1 << 26).expect("we are root");
        socket
    }

    /// Ends it by a signal; its exit code.
    fn end(mut self) -> Option<i32> {
        self.held.signal(Signal::TERM);
        self.held.wait()
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        if !self.held.ended() {
            self.held.signal(Signal::TERM);
        }
        let begun = Instant::now();
        while !self.held.ended() && begun.elapsed() < PATIENCE {
            pass(Duration::from_millis(2));
        }
        // One that was killed, by a test or for this, has left something.
        self.held.end();
        if is_there(&self.name) {
            ringway(&["wan", "link", "clean", &self.name]);
        }
    }
}

/// A name that no other run of these tests has.
fn new_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("rwt{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn socket_of(name: &str) -> String {
    format!("/run/ringway-wan/{name}.sock")
}

fn is_there(name: &str) -> bool {
    let spaces = ["a", "b"].map(|end| format!("/run/netns/{name}-{end}"));
    let socket = socket_of(name);
    [&spaces[0], &spaces[1], &socket].iter().any(|path| Path::new(path).exists())
}

/// Numbered packets of `bytes` of IP from one socket to another, `chunk` at a time. Which arrive,
/// and when, the last of them less than the socket's patience after the one before.
fn blast(from: &UdpSocket, to: &UdpSocket, (count, chunk): (u32, u32), bytes: u64) -> Vec<Came> {
    let target = to.local_addr().expect("it is bound");
    to.set_read_timeout(Some(Duration::from_millis(400))).expect("it is more than none");
    std::thread::scope(|scope| {
        let receiving = scope.spawn(|| {
            let (mut came, mut buffer) = (Vec::new(), [0; 9000]);
            while let Ok(read) = to.recv(&mut buffer) {
                let number = u32::from_be_bytes(buffer[..4].try_into().expect("four"));
                came.push((number, Instant::now(), read as u64 + HEADERS));
            }
            came
        });
        let mut packet = vec![0; (bytes - HEADERS) as usize];
        let mut sent = Vec::with_capacity(count as usize);
        for number in 0..count {
            packet[..4].copy_from_slice(&number.to_be_bytes());
            sent.push(Instant::now());
            from.send_to(&packet, target).expect("the device is up");
            if number % chunk == chunk - 1 {
                pass(Duration::from_millis(5));
            }
        }
        let came = receiving.join().expect("no panic").into_iter();
        came.map(|(number, at, bytes)| {
            let took = at - sent[number as usize];
            Came { number, at, took, bytes }
        })
        .collect()
    })
}

#[derive(Clone, Copy)]
struct Came {
    number: u32,
    at: Instant,
    /// Since it was sent.
    took: Duration,
    bytes: u64,
}

/// Times beyond `least`, in milliseconds, the shortest first. None may be shorter than that.
#[track_caller]
fn beyond_ms(took: impl Iterator<Item = Duration>, least: Duration) -> Vec<f64> {
    let beyond = |took: Duration| {
        assert!(took >= least, "{took:?} is shorter than {least:?}");
        (took - least).as_secs_f64() * 1e3
    };
    let mut beyond: Vec<f64> = took.map(beyond).collect();
    beyond.sort_by(f64::total_cmp);
    beyond
}

/// Round trips of small packets, the shortest first. Who answers is a thread beside us.
fn round_trips(links: &Links, number: usize, count: usize) -> Vec<Duration> {
    let (near, far) = (links.socket(number, "a"), links.socket(number, "b"));
    let target = far.local_addr().expect("it is bound");
    for socket in [&near, &far] {
        socket.set_read_timeout(Some(PATIENCE)).expect("it is more than none");
    }
    let mut trips = std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..count {
                let mut buffer = [0; 64];
                let (bytes, from) = far.recv_from(&mut buffer).expect("nothing is lost");
                far.send_to(&buffer[..bytes], from).expect("the device is up");
            }
        });
        let trip = |_| {
            let begun = Instant::now();
            near.send_to(&[0; 36], target).expect("the device is up");
            near.recv(&mut [0; 64]).expect("nothing is lost");
            begun.elapsed()
        };
        (0..count).map(trip).collect::<Vec<_>>()
    });
    trips.sort_unstable();
    trips
}

/// The median of a few round trips lies within a millisecond of what was asked for, and none is
/// shorter than that.
#[track_caller]
fn takes(links: &Links, number: usize, rtt: Duration) {
    let too_long_ms = || {
        let trips = round_trips(links, number, 21);
        assert!(trips[0] >= rtt, "{trips:?} is shorter than {rtt:?}");
        (trips[10] - rtt).as_secs_f64() * 1e3
    };
    links.measured(number, too_long_ms, 0.0..1.0);
}

/// So many packets are put before link 1 at once. They take the time that they take at this rate,
/// to half a percent, and all arrive in order, because the queue has room.
#[track_caller]
fn keeps_its_rate(
    links: &Links,
    (from, to): (&UdpSocket, &UdpSocket),
    (bits_per_s, count): (f64, u32),
) {
    let share = || {
        let came = blast(from, to, (count, count), 1_200);
        let numbers: Vec<u32> = came.iter().map(|came| came.number).collect();
        assert_eq!(numbers, Vec::from_iter(0..count), "all, in order");
        let took = came[came.len() - 1].at - came[0].at;
        let bytes: u64 = came[1..].iter().map(|came| came.bytes).sum();
        bytes as f64 * 8.0 / took.as_secs_f64() / bits_per_s
    };
    links.measured(1, share, 0.995..1.005);
}

#[test]
fn a_link_keeps_its_rate_and_loses_nothing_by_itself() {
    let links = Links::start(&["rate=20mbit rtt=30ms queue=8mb"]);
    let (near, far) = (links.socket(1, "a"), links.socket(1, "b"));
    for ends in [(&near, &far), (&far, &near)] {
        keeps_its_rate(&links, ends, (20e6, 2_000));
    }
    takes(&links, 1, Duration::from_millis(30));
    links.set(&["1", "rate=200mbit", "queue=64mb"]).with(0);
    keeps_its_rate(&links, (&near, &far), (200e6, 10_000));
    assert_eq!(links.end(), Some(0));
}

/// One packet in ten is lost on the way there, one in fifty in bursts on the way back: as many as
/// chance takes, as many as the link says, none beside them, and as many running as was told.
#[test]
fn a_link_loses_what_it_is_told_to() {
    let words = "rate=100mbit rtt=4ms queue=64mb there.loss=10% back.loss=2% back.burst=4";
    let links = Links::start(&["--seed", "7", words]);
    let (near, far) = (links.socket(1, "a"), links.socket(1, "b"));
    let count = 20_000_u32;
    for (way, share, correlation, running) in
        [("there", 0.1, 1.0, 1.0..1.25), ("back", 0.02, 8.0, 2.6..5.4)]
    {
        let (from, to) = if way == "there" { (&near, &far) } else { (&far, &near) };
        let (lost, runs, told) = links.undisturbed(1, || {
            let before = links.shown(1)[way]["lost"].as_u64().unwrap();
            // Full packets, of which each has a time slot of its own.
            let came = blast(from, to, (count, 500), if way == "there" { 128 } else { 1_500 });
            let told = links.shown(1)[way]["lost"].as_u64().unwrap() - before;
            let runs = came.windows(2).filter(|two| two[1].number > two[0].number + 1).count();
            (u64::from(count) - came.len() as u64, runs, told)
        });
        // The kernel itself says a word now and then, which may be lost as well.
        assert!((lost..lost + 5).contains(&told), "{way}: {lost} lost, {told} told");
        let expected = f64::from(count) * share;
        let deviation = (expected * (1.0 - share) * correlation).sqrt();
        assert!((lost as f64 - expected).abs() < 4.0 * deviation, "{way}: {lost} of {expected}");
        let mean = lost as f64 / runs as f64;
        assert!(running.contains(&mean), "{way}: {mean} running");
    }
    assert_eq!(links.end(), Some(0));
}

/// Twice what a link carries is offered, and a tenth of what it carries is lost: nine tenths of the
/// rate arrive. If packets got lost before the bottleneck, the rate would.
#[test]
fn what_is_lost_has_used_the_link() {
    let links = Links::start(&["--seed", "7", "rate=20mbit rtt=10ms queue=100ms loss=10%"]);
    let (near, far) = (links.socket(1, "a"), links.socket(1, "b"));
    let share = || {
        let came = blast(&near, &far, (8_000, 18), 1_400);
        let took = came[came.len() - 1].at - came[0].at;
        let bytes: u64 = came[1..].iter().map(|came| came.bytes).sum();
        bytes as f64 * 8.0 / took.as_secs_f64() / 20e6
    };
    // Of four thousand that had their turn: four standard deviations are two hundredths.
    links.measured(1, share, 0.88..0.92);
    assert_eq!(links.end(), Some(0));
}

/// Of a hundred and fifty packets at once those arrive that have room, whether that is told in
/// bytes, as a time or in round trips; the others overflow. The last of them has waited for the
/// others at the link's rate.
#[test]
fn a_queue_is_as_long_as_it_is_told_to_be() {
    let links = Links::start(&["rate=10mbit rtt=10ms queue=100kb"]);
    let (near, far) = (links.socket(1, "a"), links.socket(1, "b"));
    let overflowed = || links.shown(1)["there"]["overflowed"].as_u64().expect("a number");
    for (queue, room) in [("100kb", 71), ("50ms", 44), ("2bdp", 17)] {
        links.set(&["1", &format!("queue={queue}")]).with(0);
        let burst = || {
            let before = overflowed();
            let came = blast(&near, &far, (150, 150), 1_400);
            let (count, told) = (came.len() as u64, overflowed() - before);
            assert!(count >= room, "{queue}: {count} arrived, and there is room for {room}");
            // The kernel itself says a word now and then, which may overflow as well.
            assert!((150 - count..155 - count).contains(&told), "{queue}: {count}, {told} over");
            let last = came.last().expect("a packet");
            // A packet takes 1.12 ms; what arrived without waiting has left by then.
            let least = Duration::from_micros(5_000 + count * 1_120);
            (count, beyond_ms([last.at - came[0].at + came[0].took].into_iter(), least)[0])
        };
        // While they are put in, one or two have left already.
        links.believed(1, burst, &|(count, late_ms)| *count < room + 4 && *late_ms < 3.0);
    }
    assert_eq!(links.end(), Some(0));
}

/// The delay is never less than was told, lies within the width of the jitter above it, uses that
/// width, and nothing overtakes.
#[test]
fn jitter_is_as_wide_as_it_is_told_to_be() {
    let links = Links::start(&["rate=100mbit rtt=20ms jitter=20ms"]);
    let (near, far) = (links.socket(1, "a"), links.socket(1, "b"));
    let spread = || {
        let came = blast(&near, &far, (2_000, 5), 128);
        let numbers: Vec<u32> = came.iter().map(|came| came.number).collect();
        assert_eq!(numbers, Vec::from_iter(0..2_000), "all, in order");
        let beyond = beyond_ms(came.iter().map(|came| came.took), Duration::from_millis(10));
        [0.05, 0.5, 0.95, 0.98].map(|part| beyond[(part * beyond.len() as f64) as usize])
    };
    links.believed(1, spread, &|[low, middle, high, last]| {
        *low < 6.0 && (5.0..15.0).contains(middle) && *high > 14.0 && *last < 22.0
    });
    assert_eq!(links.end(), Some(0));
}

/// A packet in twenty is overtaken by others, and comes as late as was told; the others stay in
/// order, and nothing is lost.
#[test]
fn as_many_packets_are_overtaken_as_told() {
    let links = Links::start(&["rate=100mbit rtt=10ms there.reorder=5% reorder_by=30ms"]);
    let (near, far) = (links.socket(1, "a"), links.socket(1, "b"));
    let overtaken = || {
        let came = blast(&near, &far, (2_000, 5), 128);
        assert_eq!(came.len(), 2_000, "late is not lost");
        let (mut newest, mut late) = (0, Vec::new());
        for came in &came {
            if came.number < newest {
                late.push(came.took);
            }
            newest = newest.max(came.number);
        }
        let beyond = beyond_ms(late.into_iter(), Duration::from_millis(35));
        (beyond.len(), beyond.get(beyond.len() / 2).copied())
    };
    // A hundred, and chance alone has a standard deviation of ten.
    links.believed(1, overtaken, &|(count, middle)| {
        (60..140).contains(count) && middle.is_some_and(|late_ms| late_ms < 1.5)
    });
    assert_eq!(links.end(), Some(0));
}

/// Two links run beside each other. One is changed while it runs: it is cut, mended, and longer;
/// the other is not. Words that are wrong change nothing. In the end nothing is left.
#[test]
fn links_change_while_they_run() {
    let links = Links::start(&["rate=50mbit rtt=10ms", "rate=50mbit rtt=5ms mtu=9000"]);
    takes(&links, 2, Duration::from_millis(5));
    links.set(&["1", "down=1", "rtt=10ms"]).with(0);
    let (near, far) = (links.socket(1, "a"), links.socket(1, "b"));
    for _ in 0..20 {
        near.send_to(b"hello", far.local_addr().expect("it is bound")).expect("the device is up");
    }
    until("the outage takes all", || {
        (links.shown(1)["there"]["cut"].as_u64() >= Some(20)).then_some(())
    });
    links.set(&["3", "loss=5%"]).with(2).complains(&["links 1 to 2"]);
    links.set(&["1", "down=0", "loss=lots"]).with(2).complains(&["percent"]);
    assert!(links.shown(1)["words"].as_str().unwrap().contains("down=1"));
    links.set(&["1", "down=0", "rtt=25ms", "mtu=1300"]).with(0);
    takes(&links, 1, Duration::from_millis(25));
    takes(&links, 2, Duration::from_millis(5));
    links.set(&["1", "rate=8mbit", "queue=4mb"]).with(0);
    keeps_its_rate(&links, (&near, &far), (8e6, 2_000));
    let name = links.name.clone();
    assert!(is_there(&name));
    for (path, mode) in [("/run/ringway-wan".into(), 0o700), (socket_of(&name), 0o600)] {
        let found = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(found & 0o777, mode, "{path}: others may not change a link");
    }
    assert_eq!(links.end(), Some(0));
    assert!(!is_there(&name), "what was made is removed");
    let shown = ringway(&["wan", "link", "show", "--name", &name]).with(4);
    shown.complains(&[&name, "ringway wan link run"]);
}

/// A second run of the same name is refused, and says what to do. One that was killed leaves its
/// namespaces; `clean` removes them, but not those of a run that lives.
#[test]
fn runs_do_not_disturb_each_other() {
    let mut links = Links::start(&["rate=1mbit"]);
    let name = links.name.clone();
    let again = || ringway(&["wan", "link", "run", "--name", &name, "rate=1mbit"]);
    again().with(3).complains(&["is there already", &format!("link clean {name}")]);
    ringway(&["wan", "link", "clean", &name]).with(3).complains(&["process"]);
    links.held.signal(Signal::KILL);
    links.held.wait();
    again().with(3).complains(&["is there already"]);
    ringway(&["wan", "link", "clean", &name]).with(0);
    assert!(!is_there(&name));
    let nothing = ringway(&["wan", "link", "clean", &name]).with(0);
    assert!(nothing.out.contains("nothing left"), "{nothing:?}");
}

/// A command runs in the first namespace; its exit code is ours, and the links go with it.
#[test]
fn a_command_runs_on_a_link() {
    let name = new_name();
    let script = "ip -br addr show dev wan1; exit 7";
    let words = ["wan", "link", "run", "--name", &name, "rate=1mbit", "--exec", "sh", "-c", script];
    let told = ringway(&words).with(7);
    assert!(told.out.contains("10.77.1.1/30"), "{told:?}");
    let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    assert_eq!(told.out.contains("fd77:1::1/64"), has_ipv6, "{told:?}");
    assert!(!is_there(&name));
}

/// Who misspells a command hears what a shell says, with its exit code, and nothing is left behind.
#[test]
fn a_command_that_is_not_there_is_named() {
    let name = new_name();
    let run = |words: &[&str]| {
        let links = ["wan", "link", "run", "--name", &name, "rate=1mbit", "--exec"];
        ringway(&[&links, words].concat())
    };
    run(&["no-such-command", "-c", "5"])
        .with(127)
        .complains(&["cannot run no-such-command: no such program", "$PATH"]);
    run(&["./no-such-command"]).with(127).complains(&["no such program", "the path leads to"]);
    run(&["/"]).with(126).complains(&["cannot run /"]);
    assert!(!is_there(&name));
}

/// Without the rights to make networks there is an exit code that says so, and what to do.
#[test]
fn rights_that_are_missing_are_named() {
    const NOBODY: u32 = 65_534;
    let dir = tempfile::tempdir().expect("a directory");
    set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
    let binary = dir.path().join("ringway");
    std::fs::copy(env!("CARGO_BIN_EXE_ringway"), &binary).expect("it can be read");
    let mut command = Command::new(&binary);
    command.args(["wan", "link", "run", "rate=1mbit"]).uid(NOBODY).gid(NOBODY);
    let told = Told::from(command.output().expect("it starts"));
    told.with(3).complains(&["CAP_NET_ADMIN", "root"]);
    ringway(&["wan", "link", "run", "rate=1mbit", "loss=5%"]).with(2).complains(&["rate"]);
    ringway(&["wan", "link", "run", "--name", "a/b", "rate=1mbit"]).with(2).complains(&["name"]);
}
