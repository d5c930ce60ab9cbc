//! The line tells the truth: rate, queue, loss, bursts, delay, jitter, order and changes are what
//! was asked for, within bounds that chance would leave once in ten thousand runs; the seeds are
//! fixed, so what holds once holds always.

use proptest::prelude::*;

use super::*;

const MBIT: u64 = 1_000_000;
/// 200 Mbit/s and 40 ms: a packet of 1500 bytes takes 60 us, the queue holds a million bytes.
const LINE: Line = Line::of(200 * MBIT, Span::from_ms(40));
const FULL: u64 = 1_500;
const FULL_NS: u64 = 60_000;

/// A line, and packets that are numbered as they are offered.
struct Story {
    line: Direction<u64>,
    offered: u64,
}

impl Story {
    fn new(line: Line) -> Story {
        Story { line: Direction::new(line, 7), offered: 0 }
    }

    fn offer(&mut self, at_ns: u64, bytes: u64) -> bool {
        self.offered += 1;
        self.line.offer(Moment(at_ns), bytes, self.offered - 1).is_ok()
    }

    /// Everything that arrives by then.
    fn take(&mut self, at_ns: u64) -> Vec<(u64, u64)> {
        let take = || self.line.take(Moment(at_ns)).map(|arrival| (arrival.packet, arrival.at.0));
        std::iter::from_fn(take).collect()
    }

    /// Offers full packets at the line's own rate; which of them arrive, and when.
    fn at_full_rate(&mut self, count: u64) -> Vec<(u64, u64)> {
        let mut came = Vec::new();
        for packet in 0..count {
            assert!(self.offer(packet * FULL_NS, FULL), "the queue has room for a packet");
            came.extend(self.take(packet * FULL_NS));
        }
        came.extend(self.take(count * FULL_NS + 1_000_000_000));
        assert_eq!((self.line.on_the_way(), self.line.on_the_way_bytes()), (0, 0));
        came
    }
}

fn close(measured: f64, wanted: f64, deviation: f64, what: &str) {
    let off = (measured - wanted).abs() / deviation;
    assert!(off < 4.0, "{what}: {measured} instead of {wanted}, {off} standard deviations");
}

/// A packet of 1500 bytes takes 60 us on the line, then 20 ms; the next waits behind it.
#[test]
fn a_packet_waits_is_sent_and_travels() {
    let mut story = Story::new(LINE);
    assert!(story.offer(0, FULL) && story.offer(0, FULL));
    assert_eq!(story.line.wake_at(), Some(Moment(20_060_000)));
    assert!(story.offer(1_000_000, FULL));
    assert_eq!(story.take(20_059_999), []);
    assert_eq!(story.take(20_060_000), [(0, 20_060_000)]);
    assert_eq!(story.line.wake_at(), Some(Moment(20_120_000)));
    assert_eq!(story.take(30_000_000), [(1, 20_120_000), (2, 21_060_000)]);
    assert_eq!(story.line.wake_at(), None);
}

/// Twice as much is offered as the line carries: it carries its rate, to a ten thousandth, for
/// large packets, for small ones on a fast line, and where no packet takes a whole number of
/// picoseconds; nothing waits longer than the queue, and nothing overtakes.
#[test]
fn the_bottleneck_keeps_its_rate() {
    for (bits_per_s, bytes) in
        [(200 * MBIT, FULL), (12_500 * MBIT, 40), (12_500 * MBIT, 9_000), (333_333_333, 577)]
    {
        let mut story = Story::new(Line { bits_per_s, ..LINE });
        let queue_ns = LINE.queue_bytes * 8 * 1_000_000_000 / bits_per_s;
        let (mut carried, mut first, mut last) = (0, None, 0);
        let offered_at = |packet| packet * bytes * 4_000_000_000 / bits_per_s;
        for packet in 0..200_000 {
            story.offer(offered_at(packet), bytes);
            for (packet, at) in story.take(offered_at(packet)) {
                assert!(at >= last, "packets do not overtake each other");
                assert!(at - offered_at(packet) <= LINE.delay.0 + queue_ns + 1);
                first.get_or_insert(at);
                (carried, last) = (carried + bytes, at);
            }
        }
        for (_, at) in story.take(offered_at(400_000) + 1_000_000_000) {
            first.get_or_insert(at);
            (carried, last) = (carried + bytes, at);
        }
        let seconds = (last - first.unwrap()) as f64 / 1e9;
        let rate = (carried - bytes) as f64 * 8.0 / seconds;
        assert!((rate / bits_per_s as f64 - 1.0).abs() < 1e-4, "{rate} of {bits_per_s}");
    }
}

/// At 12.5 Gbit/s the millionth full packet has left after 0.96 s, to the nanosecond, and at a rate
/// that no packet divides it is as exact.
#[test]
fn no_rounding_adds_up() {
    for (bits_per_s, bytes) in [(12_500 * MBIT, FULL), (333_333_333, 577)] {
        let wide = Line { bits_per_s, queue_bytes: u64::MAX, delay: Span::ZERO, ..LINE };
        let mut story = Story::new(wide);
        (0..1_000_000).for_each(|_| assert!(story.offer(0, bytes)));
        let came = story.take(u64::MAX / 2_000);
        let bits = u128::from(1_000_000 * bytes * 8);
        let ns = (bits * 1_000_000_000).div_ceil(u128::from(bits_per_s));
        assert_eq!(came.last(), Some(&(999_999, ns as u64)));
    }
}

/// A queue of a million bytes takes 666 packets of 1500 and not one more, and one more when the
/// first has left. Below its rate the line loses nothing by itself. The smallest queue takes a
/// packet when it is empty.
#[test]
fn only_a_full_queue_drops() {
    let mut story = Story::new(LINE);
    let taken = (0..700).filter(|_| story.offer(0, FULL)).count();
    assert_eq!(taken, 666);
    assert_eq!(story.line.waiting_bytes(Moment(0)), 999_000);
    assert_eq!((story.line.on_the_way(), story.line.on_the_way_bytes()), (666, 999_000));
    assert!(!story.offer(FULL_NS - 1, FULL));
    assert!(story.offer(FULL_NS, FULL));
    assert!(!story.offer(FULL_NS, FULL));
    assert_eq!(story.line.counts().overflowed, 36);
    let mut story = Story::new(Line { queue_bytes: 0, ..LINE });
    assert_eq!(story.at_full_rate(100_000).len(), 100_000, "no loss of its own");
    assert!(story.offer(100_000 * FULL_NS + 1_000_000_000, FULL) && !story.offer(7e9 as u64, 1));
}

/// What is lost lies where chance puts it, and has used the line: those that arrive are as far
/// apart as if all did. Runs of losses are as long as those of a coin.
#[test]
fn loss_is_as_asked_and_stands_behind_the_bottleneck() {
    for ppm in [1_000, 10_000, 200_000, 500_000] {
        let mut story = Story::new(Line { loss: Loss::Alone { ppm }, ..LINE });
        let count = 300_000;
        let came = story.at_full_rate(count);
        assert!(came.iter().all(|(packet, at)| *at == (packet + 1) * FULL_NS + LINE.delay.0));
        let (share, count) = (ppm as f64 / 1e6, count as f64);
        let lost = count - came.len() as f64;
        close(lost, count * share, (count * share * (1.0 - share)).sqrt(), "lost");
        assert_eq!(story.line.counts().lost as f64, lost);
        let runs = came.windows(2).filter(|pair| pair[1].0 - pair[0].0 > 1).count() as f64;
        close(runs, lost * (1.0 - share), (lost * share).sqrt() + 1.0, "runs");
    }
}

/// Bursts take the share that was asked for, and are as long as was asked for: the mean over many
/// lies within four standard deviations. Bursts at full rate are runs of lost packets.
#[test]
fn bursts_are_as_many_and_as_long_as_asked() {
    for (ppm, mean_milli) in
        [(10_000, 8_000), (50_000, 2_000), (200_000, 20_000), (200_000, 1_000), (500_000, 2_500)]
    {
        let loss = Loss::Bursts { ppm, mean_milli, slot_bytes: FULL };
        let mut story = Story::new(Line { loss, ..LINE });
        let count = 1_000_000_u64;
        let came = story.at_full_rate(count);
        let gaps = came.windows(2).map(|pair| pair[1].0 - pair[0].0 - 1).filter(|gap| *gap > 0);
        let gaps: Vec<f64> = gaps.map(|gap| gap as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let wanted = mean_milli as f64 / 1_000.0;
        // A length is geometric: its variance is mean x (mean - 1).
        let deviation = (wanted * (wanted - 1.0) / gaps.len() as f64).sqrt();
        close(mean, wanted, deviation.max(1e-9), "mean burst");
        // Neighbours resemble each other, so the share varies more than a binomial's: by
        // (1 + memory) / (1 - memory), where memory is what a step leaves of the state.
        let share = ppm as f64 / 1e6;
        let memory = 1.0 - 1.0 / wanted / (1.0 - share);
        let variance = count as f64 * share * (1.0 - share) * (1.0 + memory) / (1.0 - memory);
        let lost = (count - came.len() as u64) as f64;
        close(lost, count as f64 * share, variance.sqrt(), "lost in bursts");
    }
}

/// Bursts go by the line's time. A sender of one packet in a hundred slots loses the same share,
/// and hardly ever two in a row beyond what chance does; ten small packets in one slot share one
/// fate.
#[test]
fn bursts_go_by_time_and_not_by_packets() {
    let loss = Loss::Bursts { ppm: 100_000, mean_milli: 8_000, slot_bytes: FULL };
    let mut story = Story::new(Line { loss, ..LINE });
    let count = 100_000_u64;
    for packet in 0..count {
        story.offer(packet * 100 * FULL_NS, FULL);
    }
    let came = story.take(count * 100 * FULL_NS + 1_000_000_000);
    let lost = (count - came.len() as u64) as f64;
    close(lost, count as f64 * 0.1, (count as f64 * 0.09).sqrt(), "lost by a slow sender");
    let runs = came.windows(2).filter(|pair| pair[1].0 - pair[0].0 > 1).count() as f64;
    close(runs, lost * 0.9, (lost * 0.1).sqrt(), "losses of a slow sender are alone");

    let mut story = Story::new(Line { loss, ..LINE });
    for packet in 0..1_000_000 {
        story.offer(packet * FULL_NS / 10, FULL / 10);
    }
    let came = story.take(1_000_000 * FULL_NS / 10 + 1_000_000_000);
    let gaps = came.windows(2).map(|pair| pair[1].0 - pair[0].0 - 1).filter(|gap| *gap > 0);
    let gaps: Vec<f64> = gaps.map(|gap| gap as f64).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    close(mean, 80.0, 80.0 / (gaps.len() as f64).sqrt(), "a burst of small packets");
}

/// Jitter stays within its bounds, uses them, keeps the order, and a fast sender sees it, too: its
/// packets are not all as late as the latest.
#[test]
fn jitter_is_bounded_and_felt() {
    let jitter = Span::from_ms(10);
    let mut story = Story::new(Line { jitter, ..LINE });
    let came = story.at_full_rate(200_000);
    assert_eq!(came.len(), 200_000);
    assert!(came.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0 && pair[0].1 <= pair[1].1));
    let extra = came.iter().map(|(packet, at)| at - (packet + 1) * FULL_NS - LINE.delay.0);
    let mut extra: Vec<u64> = extra.collect();
    extra.sort_unstable();
    assert!(*extra.last().unwrap() <= jitter.0);
    let part = |share: f64| extra[(share * extra.len() as f64) as usize] as f64 / jitter.0 as f64;
    let parts = [part(0.05), part(0.5), part(0.95)];
    assert!(parts[0] < 0.25 && (0.4..0.6).contains(&parts[1]) && parts[2] > 0.75, "{parts:?}");
}

/// As many packets come late as asked for, by as much as asked for, and only those are overtaken.
#[test]
fn reordering_is_as_asked() {
    let reorder_by = Span::from_ms(3);
    let mut story = Story::new(Line { reorder_ppm: 20_000, reorder_by, ..LINE });
    let count = 200_000;
    let came = story.at_full_rate(count);
    assert_eq!(came.len() as u64, count, "late is not lost");
    assert!(came.windows(2).all(|pair| pair[0].1 <= pair[1].1), "time does not run backwards");
    let extra = |(packet, at): &(u64, u64)| at - (packet + 1) * FULL_NS - LINE.delay.0;
    let late = came.iter().filter(|came| extra(came) == reorder_by.0).count() as f64;
    assert!(came.iter().all(|came| [0, reorder_by.0].contains(&extra(came))));
    close(late, count as f64 * 0.02, (count as f64 * 0.02 * 0.98).sqrt(), "late");
}

/// Half of the queue has left when the rate becomes a quarter: from then on packets leave four
/// times as far apart, the one that was half sent included.
#[test]
fn a_step_of_the_rate_is_felt_by_what_waits() {
    let mut story = Story::new(LINE);
    (0..10).for_each(|_| assert!(story.offer(0, FULL)));
    let slow = Line { bits_per_s: 50 * MBIT, ..LINE };
    story.line.set(Moment(4 * FULL_NS + FULL_NS / 2), slow);
    let came: Vec<u64> = story.take(1_000_000_000).iter().map(|(_, at)| at - 20_000_000).collect();
    let halves = [2, 4, 6, 8, 13, 21, 29, 37, 45, 53];
    assert_eq!(came, halves.map(|half| half * FULL_NS / 2));
    // And up again, in the middle of the first.
    assert!(story.offer(2_000_000_000, FULL) && story.offer(2_000_000_000, FULL));
    story.line.set(Moment(2_000_000_000 + 2 * FULL_NS), LINE);
    let came = story.take(3_000_000_000);
    let begin = 2_020_000_000 + 2 * FULL_NS;
    assert_eq!(came, [(10, begin + FULL_NS / 2), (11, begin + FULL_NS / 2 + FULL_NS)]);
}

/// An outage takes what leaves the bottleneck while it lasts: not what is already beyond, and not
/// what still waits when it ends.
#[test]
fn an_outage_takes_what_leaves_during_it() {
    let mut story = Story::new(LINE);
    (0..10).for_each(|_| assert!(story.offer(0, FULL)));
    story.line.set(Moment(3 * FULL_NS), Line { down: true, ..LINE });
    story.line.set(Moment(7 * FULL_NS), LINE);
    let came: Vec<u64> = story.take(1_000_000_000).iter().map(|(packet, _)| *packet).collect();
    assert_eq!(came, [0, 1, 2, 7, 8, 9]);
    let counts = story.line.counts();
    assert_eq!((counts.offered, counts.cut, counts.arrived), (10, 4, 6));
}

/// When the delay becomes shorter, packets do not overtake those that have set out before; when
/// the loss changes, it is the new one for all that have not left yet.
#[test]
fn delay_and_loss_change_on_the_way() {
    let mut story = Story::new(LINE);
    assert!(story.offer(0, FULL) && story.offer(0, FULL));
    story.line.set(Moment(FULL_NS), Line { delay: Span::from_ms(1), ..LINE });
    assert!(story.offer(30_000_000, FULL));
    let first = 20_000_000 + FULL_NS;
    assert_eq!(story.take(40_000_000), [(0, first), (1, first), (2, 31_000_000 + FULL_NS)]);
    assert!(story.offer(50_000_000, FULL) && story.offer(50_000_000, FULL));
    let all = Line { loss: Loss::Alone { ppm: 1_000_000 }, ..LINE };
    story.line.set(Moment(50_000_000 + FULL_NS), all);
    assert_eq!(story.take(90_000_000).len(), 1, "the first had left");
}

/// What rages goes on when the rate changes in the middle of a burst, and everything is lost at
/// a hundred percent, also in bursts.
#[test]
fn bursts_outlive_steps_of_the_rate() {
    let loss = Loss::Bursts { ppm: 500_000, mean_milli: 1_000_000_000, slot_bytes: FULL };
    let mut story = Story::new(Line { loss, ..LINE });
    for round in 0..100 {
        let bits_per_s = (round % 7 + 1) * 50 * MBIT;
        story.line.set(Moment(round * 1_000_000), Line { bits_per_s, loss, ..LINE });
        story.offer(round * 1_000_000, FULL);
    }
    let came = story.take(1_000_000_000).len();
    assert!(came == 0 || came == 100, "{came}");
    let loss = Loss::Bursts { ppm: 1_000_000, mean_milli: 8_000, slot_bytes: FULL };
    story.line.set(Moment(1_000_000_000), Line { loss, ..LINE });
    (0..50).for_each(|_| assert!(story.offer(1_000_000_001, FULL)));
    assert_eq!(story.take(2_000_000_000), []);
}

proptest! {
    /// Whatever is offered and changed: nothing is made up or forgotten, the order holds unless
    /// asked otherwise, nothing arrives before `wake_at` said, and a second run is the same.
    #[test]
    fn packets_are_accounted_for(
        seed: u64,
        steps in prop::collection::vec((0..400_000_u64, 40..9_000_u64, 0..40_u8), 1..400),
    ) {
        let run = || {
            let mut line = Direction::new(LINE, seed);
            let (mut now, mut told, mut came) = (0, 0_u64, Vec::new());
            for (packet, (pause, bytes, change)) in steps.iter().enumerate() {
                let wake = line.wake_at();
                now += pause;
                let before = came.len();
                while let Some(arrival) = line.take(Moment(now)) {
                    assert!(arrival.at.0 <= now && wake.is_none_or(|wake| wake <= arrival.at));
                    came.push((arrival.packet, arrival.at, arrival.bytes));
                }
                assert!(wake.is_none_or(|wake| wake.0 > now) <= (came.len() == before));
                told += u64::from(line.offer(Moment(now), *bytes, packet).is_ok());
                let jitter = Span::from_ms(u64::from(*change));
                let mut next = Line { jitter, ..*line.line() };
                match change {
                    0 => next.bits_per_s = 1_000 * MBIT,
                    1 => next.bits_per_s = MBIT,
                    2 => next.down = !next.down,
                    3 => next.delay = Span::from_ms(1 + bytes % 50),
                    4 => next.loss = Loss::Alone { ppm: bytes * 100 },
                    5 => {
                        let mean_milli = 10_000 + bytes;
                        next.loss =
                            Loss::Bursts { ppm: bytes * 100, mean_milli, slot_bytes: FULL };
                    }
                    6 => next.queue_bytes = bytes * 100,
                    _ => continue,
                }
                line.set(Moment(now), next);
            }
            let still = line.on_the_way() as u64;
            let counts = line.counts();
            assert_eq!(counts.offered, told + counts.overflowed);
            assert_eq!(told, counts.lost + counts.cut + counts.arrived + still);
            assert_eq!(counts.arrived, came.len() as u64);
            assert!(came.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1));
            came
        };
        prop_assert_eq!(run(), run());
    }
}
