//! Several senders before one bottleneck: ours, CUBIC and BBRv1, with round trips of their own, who
//! come one after the other, on a line that changes.
//!
//! ```text
//! sender --\                                      /--> receiver
//! sender ---> one queue, one rate, loss, delay --+---> receiver
//! sender --/                                      \--> receiver
//!     ^------ a way back for each, of its own length ------/
//! ```
//!
//! What always holds: the same scene and seed give the same outcome; everybody always has more to
//! send; what is counted is what came for the first time, in bytes of packets.
//!
//! Bounds: time by the packets, and by the senders for each of those. Not here: how the table of
//! who leaves what to whom is made (`beside.rs`).

mod bbr;
mod beside;
mod cubic;
mod ours;
mod tcp;

use ringway_core::{Moment, Span};

use crate::line::{Counts, Direction, Line, bytes_in};
use bbr::Bbr;
use cubic::Cubic;
use ours::Ours;
use tcp::{Receiver, Sender};

pub use beside::{Bar, MEETINGS, Meeting, Row, judged};
pub use ours::Said;

/// How often the queue is looked at.
const LOOK_EVERY: Span = Span::from_ms(1);

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Kind {
    /// What the product runs.
    Ours,
    /// What most kernels run.
    Cubic,
    /// What many servers run.
    Bbr,
}

/// One of the senders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entrant {
    /// Who it is.
    pub kind: Kind,
    /// Its round trip; at least the delay of the line.
    pub rtt: Span,
    /// When it begins.
    pub from: Moment,
}

/// Who sends over what.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The bottleneck that all share.
    pub line: Line,
    /// What it becomes, and when, in the order of time.
    pub changes: Vec<(Moment, Line)>,
    /// What of reports is lost on the way back, and how their delay varies.
    pub back: Line,
    /// Who sends.
    pub entrants: Vec<Entrant>,
    /// Bytes of our packets.
    pub mtu: u64,
    /// Which losses.
    pub seed: u64,
}

/// What came of it within some time.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Shares {
    /// Bits a second of each, of packets that came for the first time, heads included.
    pub bits_per_s: Vec<f64>,
    /// All of them, as a part of the rate.
    pub utilisation: f64,
    /// Jain's index: one if all have the same.
    pub jain: f64,
    /// The queue, in milliseconds of the bottleneck: the median, and the 99th percentile.
    pub queue_ms: (f64, f64),
    /// Packets that overflowed, as a part of those that were offered.
    pub overflowed: f64,
}

#[derive(Clone, Debug)]
enum Packet {
    Ours(ours::Packet),
    Tcp(u64),
}

#[derive(Clone, Debug)]
enum Answer {
    Ours(Vec<u8>),
    Tcp((u64, u64)),
}

enum Ends {
    Ours(Box<Ours>),
    Tcp { sender: Box<Sender>, receiver: Receiver },
}

struct Flow {
    entrant: Entrant,
    ends: Ends,
    back: Direction<Answer>,
    /// Bytes of packets that came for the first time.
    came: u64,
    stopped: bool,
}

/// See the module.
pub struct Street {
    scene: Scene,
    now: Moment,
    line: Direction<(usize, Packet)>,
    flows: Vec<Flow>,
    changed: usize,
    looked_at: Moment,
    queues: Vec<u64>,
}

impl Street {
    /// Nothing was sent yet.
    ///
    /// # Panics
    /// If a round trip is shorter than what the line takes.
    pub fn new(scene: Scene) -> Street {
        let flow = |(at, entrant): (usize, &Entrant)| {
            let back = entrant.rtt.0.checked_sub(scene.line.delay.0);
            let delay = Span(back.expect("a round trip is longer than the way there"));
            let tcp =
                |sender| Ends::Tcp { sender: Box::new(sender), receiver: Receiver::default() };
            Flow {
                entrant: *entrant,
                ends: match entrant.kind {
                    Kind::Ours => Ends::Ours(Box::new(Ours::new(entrant.from, scene.mtu))),
                    Kind::Cubic => tcp(Sender::new(Box::new(Cubic::default()))),
                    Kind::Bbr => tcp(Sender::new(Box::new(Bbr::default()))),
                },
                back: Direction::new(Line { delay, ..scene.back }, scene.seed ^ (0x55 + at as u64)),
                came: 0,
                stopped: false,
            }
        };
        Street {
            now: Moment(0),
            line: Direction::new(scene.line, scene.seed),
            flows: scene.entrants.iter().enumerate().map(flow).collect(),
            changed: 0,
            looked_at: Moment(0),
            queues: Vec::new(),
            scene,
        }
    }

    /// Switches one rule of all of ours off; before anything is sent.
    #[cfg(feature = "sabotage")]
    pub fn break_rule(&mut self, rule: ringway_tunnel_proto::sabotage::Rule) {
        for flow in &mut self.flows {
            if let Ends::Ours(ours) = &mut flow.ends {
                ours.break_rule(rule);
            }
        }
    }

    /// The line and the way back become others, beside what the scene says. The way back of each
    /// becomes longer by as much, or shorter.
    pub fn set_lines(&mut self, line: Line, back: Line) {
        self.line.set(self.now, line);
        for flow in &mut self.flows {
            let own = flow.entrant.rtt.0 - self.scene.line.delay.0 + back.delay.0;
            let delay = Span(own.saturating_sub(self.scene.back.delay.0));
            flow.back.set(self.now, Line { delay, ..back });
        }
    }

    /// This one sends nothing any more.
    pub fn stop(&mut self, flow: usize) {
        self.flows[flow].stopped = true;
    }

    /// This one, of ours, writes nothing new any more: what is missing still arrives.
    ///
    /// # Panics
    /// If it is not ours.
    pub fn close(&mut self, flow: usize) {
        let Ends::Ours(ours) = &mut self.flows[flow].ends else { panic!("it is not ours") };
        ours.close();
    }

    /// Whether all that one of ours has written has come, and it knows that.
    ///
    /// # Panics
    /// If it is not ours.
    pub fn is_whole(&self, flow: usize) -> bool {
        let Ends::Ours(ours) = &self.flows[flow].ends else { panic!("it is not ours") };
        ours.is_whole()
    }

    /// What one of ours says of itself; `None` if it is not ours.
    pub fn said(&self, flow: usize) -> Option<Said> {
        match &self.flows[flow].ends {
            Ends::Ours(ours) => Some(ours.said()),
            Ends::Tcp { .. } => None,
        }
    }

    /// One of ours, as it sends; `None` if it is not ours.
    pub fn sender(&self, flow: usize) -> Option<&ringway_tunnel_proto::path::Sender<u32>> {
        match &self.flows[flow].ends {
            Ends::Ours(ours) => Some(ours.sender()),
            Ends::Tcp { .. } => None,
        }
    }

    /// How a TCP stands, in words of a developer.
    pub fn control(&self, flow: usize) -> String {
        match &self.flows[flow].ends {
            Ends::Ours(_) => String::new(),
            Ends::Tcp { sender, .. } => format!("{:?}", sender.control()),
        }
    }

    /// Bytes of packets that came for the first time, of each.
    pub fn came(&self) -> Vec<u64> {
        self.flows.iter().map(|flow| flow.came).collect()
    }

    /// Bytes that wait for the bottleneck.
    pub fn waiting_bytes(&mut self) -> u64 {
        self.line.waiting_bytes(self.now)
    }

    /// What has become of packets of all.
    pub fn counts(&self) -> Counts {
        self.line.counts()
    }

    /// Now.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// Runs until then.
    pub fn run_until(&mut self, end: Moment) {
        while self.now < end {
            let change = self.scene.changes.get(self.changed).map(|(at, _)| *at);
            let own = [self.line.wake_at(), change, Some(self.looked_at + LOOK_EVERY)];
            let flows = self.flows.iter().flat_map(Flow::wakes);
            let next = own.into_iter().chain(flows).flatten().min().expect("one is always there");
            self.now = self.now.max(next).min(end);
            self.step();
        }
    }

    fn step(&mut self) {
        let now = self.now;
        if let Some((at, line)) = self.scene.changes.get(self.changed)
            && *at <= now
        {
            self.line.set(now, *line);
            self.changed += 1;
        }
        while let Some(arrival) = self.line.take(now) {
            let (flow, packet) = arrival.packet;
            self.flows[flow].arrived(now, arrival.bytes, packet);
        }
        for (at, flow) in self.flows.iter_mut().enumerate() {
            flow.answer(now);
            if flow.entrant.from <= now && !flow.stopped {
                flow.send(now, |bytes, packet| {
                    let _ = self.line.offer(now, bytes, (at, packet));
                });
            }
        }
        if now.since(self.looked_at) >= LOOK_EVERY {
            self.looked_at = now;
            self.queues.push(self.line.waiting_bytes(now));
        }
    }

    /// Runs for so long and says what came of that.
    pub fn judge(&mut self, time: Span) -> Shares {
        let (came, before) = (self.came(), self.counts());
        self.queues.clear();
        self.run_until(self.now + time);
        let seconds = time.0 as f64 / 1e9;
        let all = self.came();
        let bits_per_s: Vec<f64> =
            all.iter().zip(&came).map(|(now, was)| (now - was) as f64 * 8.0 / seconds).collect();
        let (sum, squares) = bits_per_s.iter().fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
        self.queues.sort_unstable();
        let per_ms = bytes_in(self.line.line().bits_per_s, Span::from_ms(1)) as f64;
        let queue = |part: f64| {
            let at = (self.queues.len() as f64 * part) as usize;
            self.queues.get(at).map_or(0.0, |bytes| *bytes as f64 / per_ms)
        };
        let after = self.counts();
        let (overflowed, offered) =
            (after.overflowed - before.overflowed, after.offered - before.offered);
        Shares {
            utilisation: sum / self.line.line().bits_per_s as f64,
            jain: sum * sum / (squares * bits_per_s.len() as f64),
            queue_ms: (queue(0.5), queue(0.99)),
            overflowed: overflowed as f64 / offered.max(1) as f64,
            bits_per_s,
        }
    }
}

impl Flow {
    fn wakes(&self) -> [Option<Moment>; 3] {
        let (sends, answers) = match &self.ends {
            Ends::Ours(ours) => (ours.wake_at(), ours.answer_due()),
            Ends::Tcp { sender, receiver } => (sender.wake_at(), receiver.due()),
        };
        let sends = sends.filter(|_| !self.stopped);
        [sends.map(|at| at.max(self.entrant.from)), answers, self.back.wake_at()]
    }

    fn arrived(&mut self, now: Moment, bytes: u64, packet: Packet) {
        match (&mut self.ends, packet) {
            (Ends::Ours(ours), Packet::Ours(packet)) => {
                if ours.arrived(now, bytes, packet) {
                    self.came += bytes;
                }
            }
            (Ends::Tcp { receiver, .. }, Packet::Tcp(number)) => {
                self.came += bytes;
                if let Some(ack) = receiver.came(now, number) {
                    let _ = self.back.offer(now, 60, Answer::Tcp(ack));
                }
            }
            _ => unreachable!("packets come to whom they were sent"),
        }
    }

    /// Answers leave, and those that come are heard.
    fn answer(&mut self, now: Moment) {
        match &mut self.ends {
            Ends::Ours(ours) => {
                let back = &mut self.back;
                ours.answer(now, |body| {
                    let bytes = body.len() as u64 + super::REPORT_ENVELOPE;
                    let _ = back.offer(now, bytes, Answer::Ours(body.to_vec()));
                });
            }
            Ends::Tcp { receiver, .. } => {
                if let Some(ack) = receiver.late(now) {
                    let _ = self.back.offer(now, 60, Answer::Tcp(ack));
                }
            }
        }
        while let Some(answer) = self.back.take(now) {
            match (&mut self.ends, answer.packet) {
                (Ends::Ours(ours), Answer::Ours(body)) => ours.heard(now, &body),
                (Ends::Tcp { sender, .. }, Answer::Tcp(ack)) => sender.heard(now, ack),
                _ => unreachable!("answers come to whom they were sent"),
            }
        }
    }

    fn send(&mut self, now: Moment, mut put: impl FnMut(u64, Packet)) {
        match &mut self.ends {
            Ends::Ours(ours) => ours.send(now, |bytes, packet| put(bytes, Packet::Ours(packet))),
            Ends::Tcp { sender, .. } => {
                while let Some(number) = sender.send(now) {
                    put(tcp::PACKET, Packet::Tcp(number));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
