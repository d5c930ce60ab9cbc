//! How much may be on its way by a carrier: what its path holds, and little more.
//!
//! A carrier over TCP takes megabytes into the buffers of both kernels and of the routers between.
//! They gain nothing there: what is little waits behind them, each byte is cold by the time it is
//! read, and all of them go again if the carrier is lost. Acknowledgements of flows tell how fast a
//! carrier delivers and how long bytes are on their way, and so how much of that is waiting.
//!
//! Where packets are lost, bytes wait for those before them that go again. Less on the way would
//! not end that, and more is needed: the kernel tells when it sends again, and how long packets
//! wait in queues by themselves, and that counts then.
//!
//! ```text
//! start --twice as much each round trip, until bytes wait--> steady
//! steady: bytes wait for long   -> what arrives in the shortest round trip, and a little
//!         they hardly wait      -> an eighth more than that
//!         they wait all the same, several times -> it is not ours to end: the path has become
//!             longer, or others fill it; what is seen now counts as the shortest
//! ```
//!
//! Always: what may be on the way is at least 64 KiB, so a carrier is never shut; no time is
//! shorter than the base. Only what was measured while there was more to send changes anything.
//!
//! Bounds: constant time and memory.

use ringway_core::{Moment, Span};

/// What may be on the way at first, and at least.
const LEAST: u64 = 64 * 1024;
/// How long bytes may wait: acknowledgements are delayed by up to 5 ms, and agents have turns.
const WAITING: Span = Span::from_ms(6);
/// And how much: what a fast path brings within [`WAITING`] would be cold when it is read,
/// and its agents need only enough for a turn.
const WAITING_BYTES_MAX: u64 = 2 << 20;
/// The rate is measured over at least this time, several delayed acknowledgements.
const MEASURE: Span = Span::from_ms(15);
/// So often in a row less was put on the way in vain.
const IN_VAIN_MAX: u32 = 4;
/// What goes again holds up what is behind it for about so many round trips.
const RECOVERY_ROUNDS: u64 = 3;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Bytes that may be on the way.
    most: u64,
    /// Bytes never waited so far.
    starting: bool,
    /// The shortest time that bytes were on their way.
    base: Option<Span>,
    /// How often in a row less was put on the way, and the shortest time all the same.
    in_vain: u32,
    in_vain_least: Span,
    // What is being measured: since when, bytes that arrived, the shortest time.
    since: Moment,
    arrived: u64,
    least: Span,
    /// There was more to send than carriers took, so the rate is the carrier's, not the writers'.
    full: bool,
    path: Path,
}

/// What the kernel says of the path.
#[derive(Clone, Copy, Debug)]
struct Path {
    asked_at: Moment,
    rtt: Span,
    rtt_least: Span,
    /// Segments that went again, and until when that is felt.
    resent: u32,
    recovers_until: Moment,
}

const EVER: Span = Span(u64::MAX);

impl Delivery {
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            most: LEAST,
            starting: true,
            base: None,
            in_vain: 0,
            in_vain_least: EVER,
            since: now,
            arrived: 0,
            least: EVER,
            full: false,
            path: Path {
                asked_at: now,
                rtt: Span::ZERO,
                rtt_least: EVER,
                resent: 0,
                recovers_until: Moment(0),
            },
        }
    }

    /// Whether the kernel is to be asked again.
    pub(crate) fn asks(&self, now: Moment) -> bool {
        now.since(self.path.asked_at) >= MEASURE
    }

    /// The kernel says this of the path.
    pub(crate) fn note_path(&mut self, now: Moment, rtt: Span, resent: u32) {
        let path = &mut self.path;
        (path.asked_at, path.rtt) = (now, rtt);
        path.rtt_least = path.rtt_least.min(rtt);
        if core::mem::replace(&mut path.resent, resent) != resent {
            path.recovers_until = now + Span(RECOVERY_ROUNDS * rtt.0);
        }
    }

    /// How long packets wait by themselves, if others wait for what goes again.
    fn queue(&self, now: Moment) -> Option<Span> {
        let Path { rtt, rtt_least, recovers_until, .. } = self.path;
        (now < recovers_until).then(|| Span(rtt.0.saturating_sub(rtt_least.0)))
    }

    /// Bytes that may be on the way.
    pub(crate) fn most(&self) -> u64 {
        self.most
    }

    /// There is more to send than carriers take.
    pub(crate) fn note_full(&mut self) {
        self.full = true;
    }

    /// The shortest time that bytes were on their way.
    pub(crate) fn base(&self) -> Option<Span> {
        self.base
    }

    /// So many bytes have arrived, and were on their way for so long. `base` is the shortest time
    /// by any carrier: who comes to a path where others are never sees it empty.
    pub(crate) fn arrived(&mut self, now: Moment, bytes: u64, way: Span, base: Option<Span>) {
        self.arrived += bytes;
        self.least = self.least.min(way);
        let own = self.base.map_or(way, |base| base.min(way));
        self.base = Some(own);
        let base = base.map_or(own, |base| base.min(own));
        let took = now.since(self.since);
        if took < self.least.max(MEASURE) {
            return;
        }
        let rate = u128::from(self.arrived) * 1_000_000_000 / u128::from(took.0);
        if self.full {
            self.adjust((base, self.queue(now)), self.least, rate);
        }
        (self.since, self.arrived, self.least, self.full) = (now, 0, EVER, false);
    }

    fn adjust(&mut self, (base, queue): (Span, Option<Span>), way: Span, rate: u128) {
        let within =
            |time: u64| u64::try_from(rate * u128::from(time) / 1_000_000_000).unwrap_or(u64::MAX);
        let held = |path: u64, waiting: Span| {
            within(path).saturating_add(within(waiting.0).min(WAITING_BYTES_MAX)).max(LEAST)
        };
        debug_assert!(way >= base, "the base is the shortest");
        let waiting = Span(way.0.saturating_sub(base.0));
        // What waits for what goes again is on the path all the time.
        let waiting = queue.map_or(waiting, |queue| waiting.min(queue));
        let base = queue.map_or(base, |_| Span(way.0 - waiting.0));
        if waiting <= WAITING {
            (self.in_vain, self.in_vain_least) = (0, EVER);
            if self.starting {
                self.most = self.most.max(held(base.0 * 2, WAITING));
            } else if waiting.0 < WAITING.0 / 2 {
                self.most = self.most.max(held(base.0 + base.0 / 8, WAITING));
            }
            return;
        }
        self.starting = false;
        self.in_vain += 1;
        self.in_vain_least = self.in_vain_least.min(way);
        if self.in_vain > IN_VAIN_MAX {
            self.base = Some(self.in_vain_least);
            (self.in_vain, self.in_vain_least) = (0, EVER);
            return;
        }
        let less = held(base.0, Span(WAITING.0 / 2));
        self.most = less.clamp(self.most / 4 * 3, self.most).max(LEAST);
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::VecDeque;

    use super::*;

    const MS: u64 = 1_000_000;

    /// A path by milliseconds: so many bytes each, after a queue, and a round trip. It is kept as
    /// full as may be.
    struct Path {
        capacity: u64,
        rtt_ms: u64,
        delivery: Delivery,
        now_ms: u64,
        /// Bytes in the queue, and when each lot was put there.
        queue: VecDeque<(u64, u64)>,
        /// Lots on the path: when they arrive, when they were put on the way, and bytes.
        path: VecDeque<(u64, u64, u64)>,
        flying: u64,
        delivered: u64,
        /// Bytes of others before ours.
        others: u64,
        /// Once in so many milliseconds something is lost, and goes again a round trip later.
        loses_every: Option<u64>,
        resent: u32,
    }

    impl Path {
        fn new(capacity: u64, rtt_ms: u64) -> Path {
            Path {
                capacity,
                rtt_ms,
                delivery: Delivery::new(Moment(0)),
                now_ms: 0,
                queue: VecDeque::new(),
                path: VecDeque::new(),
                flying: 0,
                delivered: 0,
                others: 0,
                loses_every: None,
                resent: 0,
            }
        }

        /// The queue in milliseconds.
        fn waiting_ms(&self) -> u64 {
            (self.others + self.queue.iter().map(|(bytes, _)| bytes).sum::<u64>()) / self.capacity
        }

        /// Runs for so long; returns the part of the capacity that was used, in percent, and the
        /// longest queue in milliseconds.
        fn run(&mut self, ms: u64) -> (u64, u64) {
            let (before, mut longest) = (self.delivered, 0);
            for _ in 0..ms {
                self.now_ms += 1;
                let now = self.now_ms;
                while let Some((_, put, bytes)) =
                    self.path.pop_front_if(|(arrives, ..)| *arrives <= now)
                {
                    self.flying -= bytes;
                    self.delivered += bytes;
                    let way = Span::from_ms(now - put);
                    self.delivery.arrived(Moment(now * MS), bytes, way, None);
                }
                if self.delivery.asks(Moment(now * MS)) {
                    let rtt = Span::from_ms(self.rtt_ms + self.waiting_ms());
                    self.delivery.note_path(Moment(now * MS), rtt, self.resent);
                }
                let more = self.delivery.most().saturating_sub(self.flying);
                self.delivery.note_full();
                self.flying += more;
                self.queue.push_back((more, now));
                let mut goes = self.capacity - self.others.min(self.capacity);
                self.others -= self.others.min(self.capacity);
                while let Some((bytes, put)) = self.queue.front_mut().filter(|_| goes > 0) {
                    let some = goes.min(*bytes);
                    (*bytes, goes) = (*bytes - some, goes - some);
                    let lost = self.loses_every.is_some_and(|every| now.is_multiple_of(every));
                    self.resent += u32::from(lost);
                    let trips = 1 + u64::from(lost);
                    // Who reads has what is before it first.
                    let before = self.path.back().map_or(0, |(arrives, ..)| *arrives);
                    self.path.push_back(((now + trips * self.rtt_ms).max(before), *put, some));
                    if *bytes == 0 {
                        self.queue.pop_front();
                    }
                }
                longest = longest.max(self.waiting_ms());
            }
            ((self.delivered - before) * 100 / (self.capacity * ms), longest)
        }
    }

    #[test]
    fn a_path_is_filled_and_hardly_anything_waits() {
        // 200 Mbit/s to 8 Gbit/s; next to no delay to that of a satellite.
        for (capacity, rtt_ms) in [(25_000, 40), (1_000_000, 1), (1_000_000, 200), (50_000, 600)] {
            let mut path = Path::new(capacity, rtt_ms);
            path.run(40 * rtt_ms + 500);
            let (used, waits) = path.run(20_000);
            assert!(used >= 97, "{used} % of {capacity} at {rtt_ms} ms");
            assert!(waits <= 12 + rtt_ms / 3, "{waits} ms wait at {rtt_ms} ms");
        }
    }

    /// On a fast path little waits in bytes, too.
    #[test]
    fn a_fast_path_is_filled_with_few_bytes() {
        // 80 Gbit/s and a millisecond: what waited for six would be 60 MB.
        let mut path = Path::new(10_000_000, 1);
        path.run(1_000);
        let (used, _) = path.run(5_000);
        let most = path.delivery.most();
        assert!(used >= 90 && most <= 30_000_000, "{used} % by {most} bytes");
    }

    #[test]
    fn a_path_is_filled_within_some_round_trips() {
        // 8 Gbit/s and 200 ms: 200 MB, from a quarter of one.
        let mut path = Path::new(1_000_000, 200);
        path.run(4_000);
        assert!(path.run(200).0 >= 95);
    }

    /// Others come and stay: what is theirs is not waited for.
    #[test]
    fn a_queue_of_others_is_lived_with() {
        let mut path = Path::new(25_000, 40);
        path.run(3_000);
        for _ in 0..10_000 {
            // 100 ms of theirs, at most half of the capacity.
            if path.waiting_ms() < 100 {
                path.others += 12_500;
            }
            path.run(1);
        }
        let before = path.delivered;
        for _ in 0..10_000 {
            if path.waiting_ms() < 100 {
                path.others += 12_500;
            }
            path.run(1);
        }
        let used = (path.delivered - before) * 100 / (25_000 * 10_000);
        assert!(used >= 20, "{used} %");
    }

    #[test]
    fn a_path_that_becomes_longer_is_filled_again() {
        let mut path = Path::new(25_000, 20);
        path.run(3_000);
        path.rtt_ms = 80;
        path.run(3_000);
        let (used, waits) = path.run(5_000);
        assert!(used >= 95 && waits <= 40, "{used} %, {waits} ms");
    }

    /// What waits for what goes again does not look like a queue.
    #[test]
    fn a_path_that_loses_is_filled() {
        for (capacity, rtt_ms) in [(25_000, 30), (25_000, 100), (125_000, 30)] {
            let mut path = Path::new(capacity, rtt_ms);
            path.loses_every = Some(7);
            path.run(5_000);
            let (used, waits) = path.run(20_000);
            assert!(used >= 90, "{used} % of {capacity} at {rtt_ms} ms");
            assert!(waits <= 12 + rtt_ms, "{waits} ms wait at {rtt_ms} ms");
        }
    }

    /// Who has little to send does not look like a slow path.
    #[test]
    fn who_has_little_to_send_changes_nothing() {
        let mut path = Path::new(1_000_000, 10);
        path.run(2_000);
        let most = path.delivery.most();
        for at in 0..1_000 {
            let now = Moment((2_000 + at) * MS);
            path.delivery.arrived(now, 10, Span::from_ms(40), None);
        }
        assert!(path.delivery.most() >= most / 4 * 3);
    }
}
