//! Ours before one line, alone or with others; what must hold of shares, queues and losses.

use ringway_core::rng::Rng;
use ringway_core::{Moment, Span};
use ringway_tunnel_proto::path::Decision;
use ringway_wan::sim::rivals::{Entrant, Kind, Scene, Street};
use ringway_wan::{Counts, Line, Link, Loss};

use super::{BROKEN, CALM, CALM_RATE, Plan, SECOND, Sum, faults, trouble};

/// Bits a second of lines that are judged by shares.
const RATE: u64 = 30_000_000;
/// Where a round trip has to have many packets.
const FAST: u64 = 100_000_000;

/// What everyone of ours has of an equal part, soon after the worst.
const SOME: f64 = 0.003;

/// When everybody has come, and nobody has changed anything yet.
const SETTLED: Moment = Moment(10 * SECOND);

/// Since when a line loses some.
enum Since {
    Begin,
    /// When everybody has come.
    Settled,
}

impl Plan {
    /// Senders before one line, who come a second after each other.
    fn street(self, (line, back): (Line, Line), kinds: &[Kind], changed: Option<Line>) -> Street {
        let rtt = Span(line.delay.0 + back.delay.0);
        let from = |at: usize| Moment(at as u64 * SECOND);
        let entrants =
            kinds.iter().enumerate().map(|(at, kind)| Entrant { kind: *kind, rtt, from: from(at) });
        let changes = changed.map(|line| (SETTLED, line));
        #[allow(unused_mut, reason = "a product has nothing to switch off")]
        let mut street = Street::new(Scene {
            line,
            changes: changes.into_iter().collect(),
            back,
            entrants: entrants.collect(),
            mtu: 1500,
            seed: self.seed,
        });
        #[cfg(feature = "sabotage")]
        if let Some(rule) = self.broken {
            street.break_rule(rule);
        }
        street
    }

    /// Faults come and go for some seconds, and others send all the time. Then the line works, and
    /// what all of ours have written arrives, though the others go on. Within ten seconds of that
    /// everyone of ours has [`SOME`] of its part at least: those who begin from next to nothing
    /// beside who has all are not judged by more here.
    pub(super) fn beset(self, rng: &mut Rng) -> Result<Sum, String> {
        let mbit = 20 + rng.below(61);
        let rtt = [2, 5, 10, 30, 60, 100, 200, 300][rng.below(8) as usize];
        let mut words = format!("rate={mbit}mbit rtt={rtt}ms");
        faults(rng, rtt, &mut words);
        let mut link = Link::parse(&words).unwrap_or_else(|why| panic!("{why}"));
        let mut kinds = vec![Kind::Ours];
        for _ in 0..=rng.below(3) {
            kinds.push([Kind::Ours, Kind::Cubic, Kind::Bbr][rng.below(3) as usize]);
        }
        let first = rng.below(kinds.len() as u64) as usize;
        kinds.swap(0, first);
        let mut street = self.street((link.line_there(), link.line_back()), &kinds, None);
        let mut turn = |street: &mut Street, words: &str| {
            link = link.changed(words).unwrap_or_else(|why| panic!("{why}"));
            street.set_lines(link.line_there(), link.line_back());
        };
        let mut down_until = None;
        for tenth in 1..=kinds.len() as u64 * 10 + rng.below(30) {
            street.run_until(Moment(tenth * SECOND / 10 + rng.below(SECOND / 20)));
            if let Some(words) = trouble(rng, (tenth, rtt), &mut down_until) {
                turn(&mut street, &words);
            }
        }
        turn(&mut street, CALM);
        let (works, before) = (street.now(), street.came());
        street.run_until(works + Span::from_s(10));
        let ours: Vec<usize> = (0..kinds.len()).filter(|at| kinds[*at] == Kind::Ours).collect();
        for flow in &ours {
            let came = street.came()[*flow] - before[*flow];
            let part = (came * kinds.len() as u64) as f64 / (CALM_RATE / 8 * 10) as f64;
            if part < SOME {
                return Err(format!("{flow} has {part:.4} of its part: {kinds:?} over {words}"));
            }
            street.close(*flow);
        }
        while !ours.iter().all(|flow| street.is_whole(*flow)) {
            if street.now() > works + Span::from_s(60) {
                return Err(format!("{BROKEN}not all that was written: {kinds:?} over {words}"));
            }
            street.run_until(street.now() + Span::from_ms(100));
        }
        let read = ours.iter().map(|flow| street.came()[*flow]).sum();
        let Counts { overflowed, lost, cut, .. } = street.counts();
        Ok(Sum { read, sent: 0, overflowed, lost, cut })
    }

    /// What is lost by itself slows nobody down.
    pub(super) fn lossy(self, rng: &mut Rng) -> Result<Sum, String> {
        let (loss, delay) = (5 + rng.below(16), Span::from_ms(10 + rng.below(60)));
        let loss = Loss::Alone { ppm: loss * 10_000 };
        self.losing((delay, loss), Since::Begin, (Span::from_s(20), 0.85))
    }

    /// Nor does it when it comes in bursts, so that windows differ.
    pub(super) fn uneven(self, rng: &mut Rng) -> Result<Sum, String> {
        let (loss, delay) = (2 + rng.below(9), Span::from_ms(10 + rng.below(60)));
        let mean_milli = 1000 * (5 + rng.below(16));
        let loss = Loss::Bursts { ppm: loss * 10_000, mean_milli, slot_bytes: 1500 };
        self.losing((delay, loss), Since::Begin, (Span::from_s(30), 0.895))
    }

    /// What a line begins to lose by itself slows nobody down for long.
    pub(super) fn worse(self, rng: &mut Rng) -> Result<Sum, String> {
        let (loss, delay) = (5 + rng.below(16), Span::from_ms(10 + rng.below(60)));
        let loss = Loss::Alone { ppm: loss * 10_000 };
        self.losing((delay, loss), Since::Settled, (Span::from_s(20), 0.7))
    }

    /// Ours alone, before a line that loses some by itself: at least this part of what can arrive
    /// does, in so long.
    fn losing(
        self,
        (delay, loss): (Span, Loss),
        since: Since,
        (time, least): (Span, f64),
    ) -> Result<Sum, String> {
        let (Loss::Alone { ppm } | Loss::Bursts { ppm, .. }) = loss;
        let good = Line::of(RATE, delay);
        let bad = Line { loss, ..good };
        let (line, changed, from) = match since {
            Since::Begin => (bad, None, SETTLED),
            Since::Settled => (good, Some(bad), SETTLED + Span::from_s(10)),
        };
        let mut street = self.street((line, good), &[Kind::Ours], changed);
        street.run_until(from);
        let part = street.judge(time).utilisation / (1.0 - ppm as f64 / 1e6);
        if part < least {
            return Err(format!("{part:.2} of what can arrive does, at {loss:?}"));
        }
        Ok(Sum::default())
    }

    /// A queue that our own rate has made does not stay.
    pub(super) fn narrower(self, rng: &mut Rng) -> Result<Sum, String> {
        let delay = Span::from_ms(10 + rng.below(60));
        let line = Line { queue_bytes: RATE / 8 * 8 * delay.0 / SECOND, ..Line::of(RATE, delay) };
        let changed = Line { bits_per_s: RATE * (30 + rng.below(50)) / 100, ..line };
        let mut street = self.street((line, Line::of(RATE, delay)), &[Kind::Ours], Some(changed));
        street.run_until(SETTLED);
        let shares = street.judge(Span::from_s(2));
        let (queue, rtt) = (shares.queue_ms.0, 2.0 * delay.0 as f64 / 1e6);
        if queue > rtt / 2.0 || shares.utilisation < 0.8 {
            return Err(format!("a queue of {queue:.1} ms stays, of {rtt} ms: {shares:?}"));
        }
        Ok(Sum::default())
    }

    /// A line that becomes faster is filled some seconds later, though it loses some and nothing
    /// says so but that more goes by.
    pub(super) fn wider(self, rng: &mut Rng) -> Result<Sum, String> {
        let (delay, ppm) = (Span::from_ms(10 + rng.below(60)), 10_000 * rng.below(11));
        let line = Line { loss: Loss::Alone { ppm }, ..Line::of(RATE, delay) };
        let changed = Line { bits_per_s: RATE * (2 + rng.below(3)), ..line };
        let mut street = self.street((line, Line::of(RATE, delay)), &[Kind::Ours], Some(changed));
        street.run_until(SETTLED + Span::from_s(15));
        let part = street.judge(Span::from_s(10)).utilisation / (1.0 - ppm as f64 / 1e6);
        if part < 0.78 {
            return Err(format!("{part:.2} of what can arrive does, after {changed:?}"));
        }
        Ok(Sum::default())
    }

    /// Before a short queue little overflows, though the line becomes slower.
    pub(super) fn short(self, rng: &mut Rng) -> Result<Sum, String> {
        let delay = Span::from_ms(20 + rng.below(50));
        let line = Line::of(RATE, delay);
        let bits_per_s = RATE * (30 + rng.below(50)) / 100;
        let queue_bytes = bits_per_s / 8000 * (5 + rng.below(5));
        let changed = Line { bits_per_s, queue_bytes, ..line };
        let mut street = self.street((line, Line::of(RATE, delay)), &[Kind::Ours], Some(changed));
        street.run_until(SETTLED + Span::from_s(5));
        let shares = street.judge(Span::from_s(10));
        if shares.overflowed > 0.15 || shares.utilisation < 0.4 {
            return Err(format!("much overflows, or little arrives: {shares:?}"));
        }
        Ok(Sum::default())
    }

    /// Beside a sender that fills every buffer, each keeps something.
    pub(super) fn crowded(self, rng: &mut Rng) -> Result<Sum, String> {
        let delay = Span::from_ms(10 + rng.below(20));
        let queue_bytes = RATE / 8 * (2 + rng.below(4)) * delay.0 / SECOND;
        self.shared(Line { queue_bytes, ..Line::of(RATE, delay) }, delay, Kind::Cubic, (0.16, 0.42))
    }

    /// Beside a sender that does not mind losses.
    pub(super) fn pressed(self, rng: &mut Rng) -> Result<Sum, String> {
        let rtt = Span::from_ms(60 + rng.below(31));
        let queue_bytes = RATE / 80 * (6 + rng.below(10)) * rtt.0 / SECOND;
        self.shared(Line { queue_bytes, ..Line::of(RATE, rtt) }, rtt, Kind::Bbr, (0.16, 0.16))
    }

    /// The same, where the line loses some by itself.
    pub(super) fn harmed(self, rng: &mut Rng) -> Result<Sum, String> {
        let rtt = Span::from_ms(20 + rng.below(31));
        let queue_bytes = RATE / 80 * (15 + rng.below(11)) * rtt.0 / SECOND;
        let loss = Loss::Alone { ppm: 10_000 * (2 + rng.below(6)) };
        let line = Line { queue_bytes, loss, ..Line::of(RATE, rtt) };
        self.shared(line, rtt, Kind::Bbr, (0.12, 0.16))
    }

    /// Each has at least its part of the rate.
    fn shared(
        self,
        line: Line,
        delay: Span,
        other: Kind,
        least: (f64, f64),
    ) -> Result<Sum, String> {
        let kinds = [Kind::Ours, other];
        let mut street = self.street((line, Line::of(RATE, delay)), &kinds, None);
        street.run_until(SETTLED);
        let shares = street.judge(Span::from_s(20));
        let parts: Vec<f64> = shares.bits_per_s.iter().map(|bits| bits / RATE as f64).collect();
        let misses = parts[0] < least.0 || parts[1] < least.1 || shares.utilisation < 0.85;
        // Beside all that, and whoever has what, nothing is missing for long.
        street.close(0);
        let end = street.now() + Span::from_s(10);
        while !street.is_whole(0) {
            if street.now() > end {
                return Err(format!("{BROKEN}not all that was written arrives"));
            }
            street.run_until(street.now() + Span::from_ms(100));
        }
        if misses {
            let least = parts[0].min(parts[1]);
            return Err(format!("somebody gets {least:.2}: {shares:?}"));
        }
        Ok(Sum::default())
    }

    /// A line with a short queue loses some by itself: what overflows is not taken for that.
    pub(super) fn shallow(self, rng: &mut Rng) -> Result<Sum, String> {
        let delay = Span::from_ms(10 + rng.below(60));
        let queue_bytes = RATE / 8000 * (4 + rng.below(10));
        let percent = rng.below(7);
        let loss = Loss::Alone { ppm: 10_000 * percent };
        let line = Line { queue_bytes, loss, ..Line::of(RATE, delay) };
        let mut street = self.street((line, Line::of(RATE, delay)), &[Kind::Ours], None);
        street.run_until(Moment(20 * SECOND));
        let shares = street.judge(Span::from_s(40));
        let floor = 100.0 * street.said(0).expect("it is ours").floor;
        let used = shares.utilisation / (1.0 - percent as f64 / 100.0);
        if floor > percent as f64 + 4.5 || used < 0.78 {
            return Err(format!("{floor:.1} % count as the line's own, not {percent}: {shares:?}"));
        }
        Ok(Sum::default())
    }

    /// Two of ours share a line, and their queue is short.
    pub(super) fn equal(self, rng: &mut Rng) -> Result<Sum, String> {
        let delay = Span::from_ms(10 + rng.below(30));
        let line = Line { queue_bytes: RATE / 8 * 4 * delay.0 / SECOND, ..Line::of(RATE, delay) };
        let mut street =
            self.street((line, Line::of(RATE, delay)), &[Kind::Ours, Kind::Ours], None);
        street.run_until(SETTLED);
        let shares = street.judge(Span::from_s(40));
        let (queue, rtt) = (shares.queue_ms.0, 2.0 * delay.0 as f64 / 1e6);
        if shares.jain < 0.8 || shares.utilisation < 0.85 || queue > rtt {
            return Err(format!("they share badly, of {rtt} ms: {shares:?}"));
        }
        Ok(Sum::default())
    }

    /// Delay varies by itself, as on a radio link: that is nobody's queue.
    pub(super) fn trembling(self, rng: &mut Rng) -> Result<Sum, String> {
        let delay = Span::from_ms(15 + rng.below(30));
        let jitter = Span::from_ms(8 + rng.below(8));
        let line = Line { jitter, ..Line::of(RATE, delay) };
        let mut street = self.street((line, Line::of(RATE, delay)), &[Kind::Ours], None);
        street.run_until(SETTLED);
        let shares = street.judge(Span::from_s(20));
        // The last decisions alone are kept: more than so many there cannot be unless many stand.
        let log = street.sender(0).expect("it is ours").rate().log();
        let stood = log.filter(|(_, one)| matches!(one, Decision::Standing(..))).count();
        if shares.utilisation < 0.85 || stood > 13 {
            let used = shares.utilisation;
            return Err(format!("{used:.2} are used, and {stood} queues stood, with {jitter:?}"));
        }
        Ok(Sum::default())
    }

    /// Delay varies by as much as the round trip takes, from the first packet on, and some is lost:
    /// such a line is used from the beginning.
    pub(super) fn shaken(self, rng: &mut Rng) -> Result<Sum, String> {
        let percent = rng.below(8);
        let delay = Span::from_ms(15 + rng.below(10));
        let jitter = Span::from_ms(28 + rng.below(8));
        let loss = Loss::Alone { ppm: percent * 10_000 };
        let line = Line { jitter, loss, ..Line::of(FAST, delay) };
        let back = Line { jitter, ..Line::of(FAST, delay) };
        let mut street = self.street((line, back), &[Kind::Ours], None);
        street.run_until(Moment(SECOND));
        let shares = street.judge(Span::from_s(4));
        let filled = shares.bits_per_s[0] / FAST as f64 / (1.0 - percent as f64 / 100.0);
        if filled < 0.2 {
            return Err(format!("{filled:.2} of what can arrive does, where {percent} % are lost"));
        }
        Ok(Sum::default())
    }

    /// Beside a sender that does not mind losses, at round trips of 30 to 50 ms: neither has next
    /// to nothing in the end.
    pub(super) fn patient(self, rng: &mut Rng) -> Result<Sum, String> {
        let delay = Span::from_us(15_000 + 250 * rng.below(41));
        let queue_bytes = FAST / 8 * 2 * delay.0 / SECOND;
        let line = Line { queue_bytes, ..Line::of(FAST, delay) };
        let kinds =
            if rng.below(2) == 0 { [Kind::Ours, Kind::Bbr] } else { [Kind::Bbr, Kind::Ours] };
        let from = |at: usize| Moment(at as u64 * 5 * SECOND);
        let rtt = Span(2 * delay.0);
        let entrants = (0..2).map(|at| Entrant { kind: kinds[at], rtt, from: from(at) }).collect();
        let back = Line::of(FAST, delay);
        let scene = Scene { line, changes: vec![], back, entrants, mtu: 1500, seed: self.seed };
        assert!(self.broken.is_none(), "no rule is switched off in it");
        let mut street = Street::new(scene);
        street.run_until(Moment(35 * SECOND));
        let shares = street.judge(Span::from_s(80));
        if shares.bits_per_s.iter().any(|bits| *bits < 0.15 * FAST as f64) {
            return Err(format!("{:?} of {FAST} with {delay:?}", shares.bits_per_s));
        }
        Ok(Sum::default())
    }

    /// Beside a sender that never lets a deep buffer be empty, for long.
    pub(super) fn deep(self, rng: &mut Rng) -> Result<Sum, String> {
        let rtt = Span::from_ms(20 + rng.below(21));
        let queue_bytes = RATE / 8 * (5 + rng.below(6)) * rtt.0 / SECOND;
        let line = Line { queue_bytes, ..Line::of(RATE, rtt) };
        let kinds = [Kind::Ours, Kind::Cubic];
        let mut street = self.street((line, Line::of(RATE, rtt)), &kinds, None);
        street.run_until(Moment(30 * SECOND));
        let shares = street.judge(Span::from_s(40));
        let part = shares.bits_per_s[0] / RATE as f64;
        if part < 0.3 {
            return Err(format!("{part:.2} are left: {shares:?}"));
        }
        Ok(Sum::default())
    }

    /// Whoever filled the buffer has gone: its queue does not stay.
    pub(super) fn left(self, rng: &mut Rng) -> Result<Sum, String> {
        let delay = Span::from_ms(10 + rng.below(20));
        let queue_bytes = RATE / 8 * (4 + rng.below(5)) * delay.0 / SECOND;
        let line = Line { queue_bytes, ..Line::of(RATE, delay) };
        let kinds = [Kind::Ours, Kind::Cubic];
        let mut street = self.street((line, Line::of(RATE, delay)), &kinds, None);
        street.run_until(SETTLED + Span::from_s(rng.below(10)));
        street.stop(1);
        street.run_until(street.now() + Span::from_s(12));
        let shares = street.judge(Span::from_s(5));
        let (queue, rtt) = (shares.queue_ms.0, 2.0 * delay.0 as f64 / 1e6);
        if queue > rtt / 2.0 || shares.utilisation < 0.5 {
            return Err(format!("a queue of {queue:.1} ms stays, of {rtt} ms: {shares:?}"));
        }
        Ok(Sum::default())
    }
}
