//! The transport in virtual time: one connection over one line.
//!
//! What sends here is `ringway_tunnel_proto::path`, as the product runs it, but with runs of
//! positions instead of bytes and without keys: twelve gigabits a second are simulated in about a
//! quarter of the time that they take.
//!
//! What always holds: the same cell and seed give the same outcome; time moves to the next moment
//! at which something happens, and never back.
//!
//! - `flow`: the connection. `proof`: what is looked at while it runs, where that is asked for.
//! - `outcome`: a steady connection in numbers, and a start. `story`: a line that changes.
//! - `table`: the cells of issue and documents, many at a time. `plot`: a story as a picture.

mod flow;
mod outcome;
mod plot;
mod proof;
pub mod rivals;
mod story;
mod table;

use ringway_core::rng::Rng;
use ringway_core::{Moment, Span};
use ringway_tunnel_proto::path::{Arrivals, Load, Report, Run, SegmentId, Sender, Told};

use crate::line::{Counts, Direction, Line};
use flow::{Reader, Writer};
use proof::Proof;

pub use outcome::{Outcome, Start, run, start};
pub use plot::plot;
pub use story::{Change, Sample, Story};
pub use table::{
    BAR_9000, BAR_DISTURBED, BAR_OTHER, DOCUMENTS, LOSSES, RTTS, WASTE_MAX, all, documents,
};

/// Bytes of a packet around what a flow has in it: heads of IPv4 and UDP, our head and tag, and the
/// head of a frame.
pub const ENVELOPE: u64 = 20 + 8 + 32 + 12;
/// Bytes of a packet around a report, a flow's acknowledgement among them.
const REPORT_ENVELOPE: u64 = 20 + 8 + 32 + 24;
/// Steps of a round trip in which arrivals are counted.
const STEPS: u64 = 4;
/// Round trips that count as the start.
const START_ROUNDS: u64 = 20;
/// How often the queue is looked at.
const LOOK_EVERY: Span = Span::from_ms(1);

/// One connection over one line.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// From the sender to the receiver.
    pub there: Line,
    /// For reports.
    pub back: Line,
    /// Bytes of an IP packet.
    pub mtu: u64,
    /// Bytes that a flow may have on its way and out of order: the memory of each end.
    pub memory: u64,
    /// What is left out at the begin.
    pub warm_up: Span,
    /// What is judged.
    pub time: Span,
    /// Which losses.
    pub seed: u64,
}

#[derive(Clone, Debug)]
enum Packet {
    Data { number: u64, run: Option<Run<u32>>, tell: Option<(u64, Span)> },
    Report { body: Vec<u8>, below: u64 },
}

/// See the module.
pub struct World {
    cell: Cell,
    now: Moment,
    there: Direction<Packet>,
    back: Direction<Packet>,
    sender: Sender<u32>,
    writer: Writer,
    arrivals: Arrivals,
    reader: Reader,
    run_bytes: u64,
    /// Bytes of the flow that were put into packets.
    carried: u64,
    report_bytes: u64,
    looked_at: Moment,
    /// Bytes before the bottleneck, from the end of the warm-up on.
    queues: Vec<u64>,
    /// Bytes that came, in steps of `step`.
    came: Vec<u64>,
    step: Span,
    /// What overflowed until the start was over.
    overflowed_early: u64,
    proof: Option<Box<Proof>>,
    given_up: u64,
    host: Host,
}

/// The receiver's host, which may drop what has come for want of room.
struct Host {
    rng: Rng,
    /// Which part, in a million.
    ppm: u32,
    /// How many packets so far.
    dropped: u64,
}

impl World {
    /// Nothing was sent yet.
    pub fn new(cell: Cell) -> World {
        let run_bytes = (cell.mtu - ENVELOPE) as u32;
        let rtt = Span(cell.there.delay.0 + cell.back.delay.0);
        World {
            cell,
            now: Moment(0),
            there: Direction::new(cell.there, cell.seed),
            back: Direction::new(cell.back, cell.seed ^ 0x5555),
            sender: Sender::new(Moment(0), cell.mtu),
            writer: Writer::new(run_bytes, cell.memory),
            arrivals: Arrivals::default(),
            reader: Reader::new(run_bytes, cell.memory),
            run_bytes: run_bytes.into(),
            carried: 0,
            report_bytes: 0,
            looked_at: Moment(0),
            queues: Vec::new(),
            came: Vec::new(),
            step: Span((rtt.0 / STEPS).max(1_000_000)),
            overflowed_early: 0,
            proof: None,
            given_up: 0,
            host: Host { rng: Rng::new(cell.seed ^ 0xD209), ppm: 0, dropped: 0 },
        }
    }

    /// Now.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// How fast it is sent, and why.
    pub fn sender(&self) -> &Sender<u32> {
        &self.sender
    }

    /// Bytes that were read.
    pub fn read(&self) -> u64 {
        self.reader.below()
    }

    /// The line becomes another one; what is on its way in it stays there.
    pub fn set_lines(&mut self, there: Line, back: Line) {
        self.there.set(self.now, there);
        self.back.set(self.now, back);
    }

    /// The receiver's host drops this part of what comes from now on, for want of room, and says
    /// so.
    pub fn drop_at_host(&mut self, ppm: u32) {
        self.host.ppm = ppm;
    }

    /// Packets go by another path from now on, as the sender notices.
    pub fn change_path(&mut self) {
        self.sender.moved(self.now, |_| {});
    }

    /// The writer stops after so many bytes, rounded up to whole packets.
    pub fn write_only(&mut self, bytes: u64) {
        self.writer.stop_at(bytes.next_multiple_of(self.run_bytes));
    }

    /// Whether everything was read, and both ends know it, and nothing is on its way or kept.
    pub fn is_done(&self) -> bool {
        let (flying, _) = self.sender.bytes();
        self.writer.is_done() && flying == 0 && self.sender.kept() == 0
    }

    /// Looks at everything that is said from now on, and brings this part of packets twice.
    ///
    /// # Panics
    /// If packets were sent already. Later: if something is said that is not so.
    pub fn prove(&mut self, twice_ppm: u64) {
        assert_eq!(self.sender.bytes().1, 0, "what was said before was not looked at");
        self.proof = Some(Box::new(Proof::new(self.run_bytes, twice_ppm, self.cell.seed)));
    }

    /// Switches one rule of the transport off; before the first packet.
    #[cfg(feature = "sabotage")]
    pub fn break_rule(&mut self, rule: ringway_tunnel_proto::sabotage::Rule) {
        self.sender.break_rule(rule);
        self.arrivals.break_rule(rule);
    }

    /// Bytes of the flow that were sent, and bytes of it that came for the first time.
    pub fn carried(&self) -> (u64, u64) {
        (self.carried, self.reader.came())
    }

    /// Bytes that an end kept at most: the writer, and the reader out of order.
    pub fn kept_max(&self) -> (u64, u64) {
        (self.writer.kept_max, self.reader.early_max)
    }

    /// What was kept until now does not count: [`Self::kept_max`] begins anew.
    pub fn forget_kept(&mut self) {
        (self.writer.kept_max, self.reader.early_max) = (0, 0);
    }

    /// Runs that were given up because nothing was heard any more.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// What has become of packets, there and back.
    pub fn counts(&self) -> (Counts, Counts) {
        (self.there.counts(), self.back.counts())
    }

    /// Runs until then.
    pub fn run_until(&mut self, end: Moment) {
        while self.now < end {
            let wakes = [
                self.sender.wake_at(self.writer.has_more()),
                self.arrivals.due(),
                self.there.wake_at(),
                self.back.wake_at(),
                self.proof.as_ref().and_then(|proof| proof.wake_at()),
                Some(self.looked_at + LOOK_EVERY),
            ];
            let next = wakes.into_iter().flatten().min().expect("one is always there");
            self.now = self.now.max(next).min(end);
            self.step();
        }
    }

    fn step(&mut self) {
        let now = self.now;
        while let Some(arrival) = self.there.take(now) {
            let at = (arrival.at.0 / self.step.0) as usize;
            if at >= self.came.len() {
                self.came.resize(at + 1, 0);
            }
            self.came[at] += arrival.bytes;
            if let Some(proof) = &mut self.proof {
                proof.copy(now, arrival.bytes, &arrival.packet);
            }
            self.came_there(arrival.bytes, arrival.packet);
        }
        while let Some((bytes, packet)) = self.proof.as_mut().and_then(|proof| proof.again(now)) {
            match packet {
                Packet::Data { .. } => self.came_there(bytes, packet),
                Packet::Report { .. } => self.came_back(packet),
            }
        }
        self.report();
        while let Some(arrival) = self.back.take(now) {
            if let Some(proof) = &mut self.proof {
                proof.copy(now, arrival.bytes, &arrival.packet);
            }
            self.came_back(arrival.packet);
        }
        self.send();
        if now.since(self.looked_at) >= LOOK_EVERY {
            self.look();
        }
    }

    fn came_there(&mut self, bytes: u64, packet: Packet) {
        let Packet::Data { number, run, tell } = packet else { return };
        if self.proof.as_mut().is_some_and(|proof| !proof.is_new(number)) {
            return;
        }
        let host = &mut self.host;
        if host.ppm > 0 && host.rng.below(1_000_000) < u64::from(host.ppm) {
            host.dropped += 1;
            self.arrivals.note_dropped(host.dropped);
            return;
        }
        self.arrivals.note(self.now, number, bytes, true);
        if let Some((floor, wait)) = tell {
            self.arrivals.wanted(floor, wait);
        }
        if let Some(run) = run {
            self.reader.take(run);
            if let Some(proof) = &mut self.proof {
                proof.read(run);
            }
        }
    }

    fn report(&mut self) {
        let now = self.now;
        let (below, room) = (self.reader.below(), (self.cell.mtu - REPORT_ENVELOPE) as usize);
        let (back, report_bytes) = (&mut self.back, &mut self.report_bytes);
        self.arrivals.report(now, room, |body| {
            let bytes = body.len() as u64 + REPORT_ENVELOPE;
            *report_bytes += bytes;
            let _ = back.offer(now, bytes, Packet::Report { body: body.to_vec(), below });
        });
    }

    fn came_back(&mut self, packet: Packet) {
        let Packet::Report { body, below } = packet else { return };
        let report = Report::read(&body).expect("we wrote it");
        let proof = &mut self.proof;
        let each = |told| {
            if let Some(proof) = proof {
                proof.told(told);
            }
        };
        self.sender.heard(self.now, &report, each).expect("an honest receiver");
        self.writer.acknowledged(below);
    }

    fn look(&mut self) {
        let now = self.now;
        self.looked_at = now;
        let waiting = self.there.waiting_bytes(now);
        if now >= Moment(0) + self.cell.warm_up {
            self.queues.push(waiting);
        }
        if now.0 <= START_ROUNDS * STEPS * self.step.0 {
            self.overflowed_early = self.there.counts().overflowed;
        }
    }

    fn send(&mut self) {
        let now = self.now;
        let given_up = &mut self.given_up;
        let lost = |told| *given_up += u64::from(matches!(told, Told::Lost(_)));
        if self.sender.probe(now, lost) {
            let below = self.writer.below();
            let tail = self.sender.tail(usize::MAX, |run| run.start >= below);
            self.put(tail);
        }
        while self.sender.may_send(now) {
            let below = self.writer.below();
            let again = self.sender.again(now, usize::MAX, |run| run.start >= below);
            let segment = again.or_else(|| {
                let run = self.writer.cut()?;
                Some(self.sender.begin(run))
            });
            if segment.is_none() {
                self.sender.note_idle();
                return;
            }
            self.put(segment);
        }
    }

    fn put(&mut self, segment: Option<SegmentId>) {
        let now = self.now;
        let run = segment.map(|segment| self.sender.run(segment));
        let bytes = run.map_or(100, |_| self.cell.mtu);
        self.carried += run.map_or(0, |_| self.run_bytes);
        let tell = self.sender.to_tell(now, false);
        let load = Load { segment, word: None };
        let number = self.sender.send(now, bytes as u32, load);
        let _ = self.there.offer(now, bytes, Packet::Data { number, run, tell });
    }
}
