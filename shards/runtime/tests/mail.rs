//! Mail between shards and with the control plane; sleeping, waking, timers, panics.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{config, read, until};
use ringway_core::limits::MAIL_BYTES_MAX;
use ringway_core::{ConnId, Moment, ShardId, Span};
use ringway_ring::{Feature, ProbeMask, host};
use ringway_shards::{
    Close, ControlPort, Io, Peer, Running, Runtime, RuntimeConfig, Service, ShardContext,
};

/// What the relays of a test have seen.
#[derive(Default)]
struct Seen {
    delivered: AtomicU64,
    turns_by_timer: AtomicU64,
    cpu_ns: AtomicU64,
}

/// Understands the control plane's orders, the first byte of each:
/// `P n`: post the numbers 0 to n, eight bytes each and padded to `size`, to the other shard;
/// `T ms`: be woken after so many milliseconds; `C`: report the thread's CPU time; `!`: panic;
/// `N`: note to oneself.
/// A number from the other shard must be the next one, and the last is reported to control.
struct Relay {
    context: ShardContext,
    seen: Arc<Seen>,
    next: u64,
    wake_at: Option<Moment>,
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().unwrap())
}

impl Relay {
    fn order(&mut self, now: Moment, order: &[u8], io: &mut Io<'_>) {
        match order[0] {
            b'P' => {
                let (count, size) = (number(&order[1..]), number(&order[9..]) as usize);
                let other = ShardId(1 - self.context.shard.0);
                let mut message = vec![0; size.max(16)];
                for i in 0..count {
                    message[..8].copy_from_slice(&i.to_le_bytes());
                    message[8..16].copy_from_slice(&count.to_le_bytes());
                    io.post(other, &message);
                }
            }
            b'T' => self.wake_at = Some(now + Span::from_ms(number(&order[1..]))),
            b'C' => {
                self.seen.cpu_ns.store(host::thread_cpu().0, Ordering::Relaxed);
                io.post(self.context.control, b"cpu");
            }
            b'N' => io.post(self.context.shard, b"note"),
            b'!' => panic!("told to"),
            _ => unreachable!("{order:?}"),
        }
    }
}

impl Service for Relay {
    fn opened(&mut self, _: Moment, conn: ConnId, _: Peer, io: &mut Io<'_>) {
        io.close(conn, Close::Now);
    }

    fn received(&mut self, _: Moment, _: ConnId, _: &mut [u8], _: &mut Io<'_>) {}

    fn closed(&mut self, _: Moment, _: ConnId, _: &mut Io<'_>) {}

    fn drained(&mut self, _: Moment, _: ConnId, _: &mut Io<'_>) {}

    fn mail(&mut self, now: Moment, from: ShardId, message: &[u8], io: &mut Io<'_>) {
        if from == self.context.control {
            return self.order(now, message, io);
        }
        if from == self.context.shard {
            return io.post(self.context.control, message);
        }
        assert_eq!(number(message), self.next, "out of order");
        self.next += 1;
        self.seen.delivered.fetch_add(1, Ordering::Relaxed);
        if self.next == number(&message[8..]) {
            self.next = 0;
            io.post(self.context.control, b"all");
        }
    }

    fn turn(&mut self, now: Moment, io: &mut Io<'_>) {
        if self.wake_at.is_some_and(|at| at <= now) {
            self.wake_at = None;
            self.seen.turns_by_timer.fetch_add(1, Ordering::Relaxed);
            io.post(self.context.control, b"timer");
        }
    }

    fn wake_at(&self) -> Option<Moment> {
        self.wake_at
    }

    fn stop(&mut self, _: Moment, _: &mut Io<'_>) {}

    fn may_stop(&self) -> bool {
        true
    }
}

struct Relays {
    running: Running,
    control: ControlPort,
    seen: Arc<Seen>,
}

impl Relays {
    fn start(config: RuntimeConfig) -> Relays {
        let seen = Arc::new(Seen::default());
        let of_service = Arc::clone(&seen);
        let make =
            move |context| Relay { context, seen: Arc::clone(&of_service), next: 0, wake_at: None };
        let mut running = Runtime::start(config, make).unwrap();
        let control = running.take_control().unwrap();
        Relays { running, control, seen }
    }

    fn order(&mut self, shard: u8, what: u8, numbers: &[u64]) {
        let mut order = vec![what];
        numbers.iter().for_each(|number| order.extend_from_slice(&number.to_le_bytes()));
        self.control.send(ShardId(shard), &order);
    }

    /// Waits on the descriptor until as many messages have come.
    fn hear(&mut self, count: usize) -> Vec<(ShardId, Vec<u8>)> {
        let mut heard = Vec::new();
        loop {
            self.control.receive(|from, message| heard.push((from, message.to_vec())));
            if heard.len() >= count {
                return heard;
            }
            common::wait_readable(&self.control);
        }
    }

    fn stop(self) {
        self.running.stop();
        self.running.join().unwrap();
    }
}

/// Far more mail than a mailbox holds, small and large, both ways at once, with rings waking each
/// other and with bells: in order, complete, and both asleep again afterwards.
#[test]
fn mail_between_shards_keeps_its_order() {
    for mask in [ProbeMask::default(), ProbeMask::default().without(Feature::RingToRing)] {
        let mut relays = Relays::start(RuntimeConfig { probe_mask: mask, ..config(2) });
        for (count, size) in [(1, 16), (200_000, 16), (20, MAIL_BYTES_MAX as u64), (5_000, 1_000)] {
            relays.order(0, b'P', &[count, size]);
            relays.order(1, b'P', &[count, size]);
            let heard = relays.hear(2);
            assert!(heard.iter().all(|(_, message)| message == b"all"), "{heard:?}");
        }
        assert_eq!(read(&relays.seen.delivered), 2 * 205_021);
        let waiting = |c: &Arc<_>| -> u64 {
            let counters: &ringway_shards::ShardCounters = c;
            counters.mail_waiting_now.get()
        };
        until("nothing waits", || relays.running.counters().iter().map(waiting).sum::<u64>() == 0);
        relays.stop();
    }
}

/// A sleeping shard is woken by each single message, again and again.
#[test]
fn a_sleeper_is_woken_by_one_message() {
    for mask in [ProbeMask::default(), ProbeMask::default().without(Feature::RingToRing)] {
        let mut relays = Relays::start(RuntimeConfig { probe_mask: mask, ..config(2) });
        for _ in 0..500 {
            relays.order(0, b'P', &[1, 16]);
            assert_eq!(relays.hear(1), [(ShardId(1), b"all".to_vec())]);
        }
        assert!(relays.running.counters()[0].doorbells.get() > 0);
        relays.stop();
    }
}

/// A note to oneself arrives in a later turn, although nothing else happens.
#[test]
fn a_note_to_oneself_arrives() {
    let mut relays = Relays::start(config(1));
    relays.order(0, b'N', &[]);
    assert_eq!(relays.hear(1), [(ShardId(0), b"note".to_vec())]);
    relays.stop();
}

/// A shard without work sleeps: no turns, no CPU, until the time its service asked for.
#[test]
fn an_idle_shard_burns_no_cpu() {
    let mut relays = Relays::start(config(2));
    let turns = |relays: &Relays| -> u64 {
        relays.running.counters().iter().map(|counters| counters.turns.get()).sum()
    };
    relays.order(0, b'C', &[]);
    relays.hear(1);
    let cpu_before = read(&relays.seen.cpu_ns);
    relays.order(0, b'T', &[300]);
    let (start, before) = (host::now(), turns(&relays));
    assert_eq!(relays.hear(1), [(ShardId(0), b"timer".to_vec())]);
    let waited = host::now().since(start);
    assert!(waited >= Span::from_ms(299), "woken early: {waited:?}");
    let turned = turns(&relays) - before;
    assert!(turned <= 6, "{turned} turns in an idle third of a second");
    relays.order(0, b'C', &[]);
    relays.hear(1);
    let used = read(&relays.seen.cpu_ns) - cpu_before;
    assert!(used < 3_000_000, "{used} ns of CPU in an idle third of a second");
    relays.stop();
}

/// A shard that panics takes the process with it, and says why. (The test runs itself again as a
/// child, since the process is what ends.)
#[test]
fn a_panic_ends_the_process_loudly() {
    if std::env::var_os("RINGWAY_TEST_PANIC").is_some() {
        let mut relays = Relays::start(config(2));
        relays.order(1, b'!', &[]);
        relays.running.join().unwrap();
        unreachable!("the process has ended");
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_panic_ends_the_process_loudly", "--nocapture"])
        .env("RINGWAY_TEST_PANIC", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(!child.status.success());
    assert!(said.contains("told to") && said.contains("shard 1 panicked"), "{said}");
}

/// Out of file descriptors: who waits is accepted when there is one again, and nobody spins
/// meanwhile. (In a child of its own: the limit is the process's.)
#[test]
fn a_shortage_of_descriptors_passes() {
    if std::env::var_os("RINGWAY_TEST_SHORTAGE").is_none() {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_shortage_of_descriptors_passes", "--nocapture"])
            .env("RINGWAY_TEST_SHORTAGE", "1")
            .status();
        return assert!(status.unwrap().success());
    }
    common::limit_open_files(64);
    let server = common::Server::start(config(1));
    let mut client = server.connect();
    common::echo(&mut client, b"before");
    let mut spare = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        spare.push(file);
    }
    // One for the client's end; there is none for the server's.
    drop(spare.pop());
    let mut blocked = server.connect();
    until("accepting pauses", || server.sum(|c| c.accept_pauses.get()) > 0);
    let turns = server.sum(|c| c.turns.get());
    let pauses = server.sum(|c| c.accept_pauses.get());
    until("it was tried again", || server.sum(|c| c.accept_pauses.get()) > pauses);
    let turned = server.sum(|c| c.turns.get()) - turns;
    assert!(turned < 10, "{turned} turns during a pause");
    drop(spare);
    common::echo(&mut blocked, b"at last");
    server.stop();
}
