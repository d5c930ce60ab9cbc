//! What packets of a line meet: a bottleneck with its queue, which others may fill, too; then loss,
//! alone and in bursts; then delay, jitter and packets that come late or twice; paths that pass
//! less than they did, change, or pass nothing one way or both.

use ringway_core::rng::Rng;
use ringway_core::{Moment, Span};

use super::{AROUND, MTU, Pipe, Run, STEP};

/// What waits for longer before a line overflows, if nothing else is said.
const QUEUE: Span = Span::from_ms(60);
/// Every path passes this.
const MTU_MIN: u64 = 1280;
/// Of a thousand steps of a line, so many change its weather.
const CHANGES_PER_MILLE: u64 = 15;

/// What there is, beside a rate, in one direction.
#[derive(Debug)]
pub(super) struct Weather {
    /// Of a thousand packets, so many are lost, and so many come again.
    lost_per_mille: u64,
    again_per_mille: u64,
    /// So many begin a burst, in which all are lost, of so long at most; and until when one lasts.
    bursts_per_mille: u64,
    burst_max: Span,
    burst_until: Moment,
    jitter: Span,
    /// So many come later by this.
    late_per_mille: u64,
    late_by: Span,
    queue: Span,
    /// Bytes of the longest packet that passes now, and in fair weather.
    mtu: usize,
    mtu_first: usize,
    /// Who sends knows how much passes, and the bytes of what was refused.
    tells: bool,
    refused: Option<usize>,
    /// Nothing passes before then.
    down_until: Moment,
    /// Bytes a millisecond of another sender, which slows down when the queue is full.
    beside: Option<u64>,
}

/// How many packets met what.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Met {
    pub(crate) overflowed: u64,
    pub(crate) lost: u64,
    pub(crate) in_bursts: u64,
    pub(crate) again: u64,
    pub(crate) late: u64,
    pub(crate) cut: u64,
    pub(crate) refused: u64,
    pub(crate) down: u64,
    /// They queued behind another sender's.
    pub(crate) beside: u64,
    /// How often a rate changed, and a path.
    pub(crate) steps: u64,
    pub(crate) moved: u64,
}

impl Met {
    /// All of it, by name.
    #[allow(dead_code, reason = "only the swarm counts")]
    pub(crate) fn all(&self) -> [(&'static str, u64); 11] {
        [
            ("overflowed", self.overflowed),
            ("lost", self.lost),
            ("in bursts", self.in_bursts),
            ("again", self.again),
            ("late", self.late),
            ("cut", self.cut),
            ("refused", self.refused),
            ("down", self.down),
            ("beside", self.beside),
            ("steps", self.steps),
            ("moved", self.moved),
        ]
    }

    /// Adds what another world's packets met.
    #[allow(dead_code, reason = "only the swarm counts")]
    pub(crate) fn add(&mut self, more: &Met) {
        self.overflowed += more.overflowed;
        self.lost += more.lost;
        self.in_bursts += more.in_bursts;
        self.again += more.again;
        self.late += more.late;
        self.cut += more.cut;
        self.refused += more.refused;
        self.down += more.down;
        self.beside += more.beside;
        self.steps += more.steps;
        self.moved += more.moved;
    }
}

impl Weather {
    /// Packets are lost alone and come again and in another order, and nothing else.
    pub(super) fn new(rng: &mut Rng) -> Weather {
        Weather {
            lost_per_mille: rng.below(250),
            again_per_mille: rng.below(30),
            bursts_per_mille: 0,
            burst_max: Span::ZERO,
            burst_until: Moment(0),
            jitter: Span::from_us(rng.below(10_000)),
            late_per_mille: 0,
            late_by: Span::ZERO,
            queue: QUEUE,
            mtu: MTU,
            mtu_first: MTU,
            tells: false,
            refused: None,
            down_until: Moment(0),
            beside: None,
        }
    }
}

impl Pipe {
    /// The line is one of a storm: slow enough that flows are still under way when it changes, and
    /// of any length of packets.
    pub(super) fn gather(&mut self, rng: &mut Rng) {
        self.bytes_per_ms = 50 << rng.below(7);
        self.weather.mtu_first = [1280, MTU, 4000, 9000][rng.below(4) as usize];
        self.weather.mtu = self.weather.mtu_first;
        self.weather.lost_per_mille = rng.below(100);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.on_the_way.is_empty() && self.flying.is_empty()
    }

    /// What has arrived by now, with its number if it is a packet.
    pub(super) fn arrived(&mut self, now: Moment) -> Option<(Option<u64>, Vec<u8>)> {
        if let Some(first) = self.flying.first_entry().filter(|first| first.key().0 <= now) {
            let (number, packet) = first.remove();
            return Some((Some(number), packet));
        }
        let (arrival, _) = self.on_the_way.front()?;
        (*arrival <= now).then(|| self.on_the_way.pop_front())?.map(|(_, record)| (None, record))
    }

    /// A packet leaves, and arrives as often as it does.
    pub(super) fn meet(
        &mut self,
        now: Moment,
        (number, packet): (u64, Vec<u8>),
        rng: &mut Rng,
        met: &mut Met,
    ) {
        let weather = &mut self.weather;
        let whole = packet.len() + AROUND as usize;
        weather.refused = None;
        if whole > weather.mtu {
            if weather.tells {
                met.refused += 1;
                weather.refused = Some(whole - super::HEADS as usize);
            }
            met.cut += 1;
            return;
        }
        if self.silent || now < weather.down_until {
            met.down += 1;
            return;
        }
        if self.free_at.since(now) > weather.queue {
            met.overflowed += 1;
            return;
        }
        met.beside += u64::from(weather.beside.is_some() && self.free_at > now);
        let took = Span(packet.len() as u64 * 1_000_000 / self.bytes_per_ms);
        self.free_at = self.free_at.max(now) + took;
        if rng.chance(weather.bursts_per_mille) {
            weather.burst_until = self.free_at + Span(rng.below(weather.burst_max.0 + 1));
        }
        if self.free_at <= weather.burst_until {
            met.in_bursts += 1;
            return;
        }
        if rng.chance(weather.lost_per_mille) {
            met.lost += 1;
            return;
        }
        let again = rng.chance(weather.again_per_mille);
        met.again += u64::from(again);
        for _ in 0..1 + u8::from(again) {
            let late = rng.chance(weather.late_per_mille);
            met.late += u64::from(late);
            let late = if late { weather.late_by } else { Span::ZERO };
            let jitter = Span(rng.below(weather.jitter.0 + 1));
            let at = self.free_at + self.delay + jitter + late;
            self.left += 1;
            self.flying.insert((at, self.left), (number, packet.clone()));
        }
    }

    /// Bytes of the last datagram, if who sent it was told that it is too long.
    pub(super) fn refused(&mut self) -> Option<usize> {
        self.weather.refused.take()
    }

    /// Another sender takes its part of a step: more each time, and half as much when the queue is
    /// full.
    fn crowd(&mut self, now: Moment) {
        let Some(per_ms) = self.weather.beside else { return };
        let more = (per_ms + self.bytes_per_ms / 100 + 1).min(self.bytes_per_ms);
        let is_full = self.free_at.since(now) > self.weather.queue;
        if !is_full {
            let took = Span(STEP.0 * per_ms / self.bytes_per_ms);
            self.free_at = self.free_at.max(now) + took;
        }
        self.weather.beside = Some(if is_full { per_ms / 2 } else { more });
    }
}

impl Run {
    /// What packets meet changes.
    pub(super) fn winds_change(&mut self) {
        if !self.storm {
            return;
        }
        for at in 0..self.lines.len() {
            if self.lines[at].broken || !self.lines[at].packets {
                continue;
            }
            self.lines[at].pipes.iter_mut().for_each(|pipe| pipe.crowd(self.now));
            if self.rng.chance(CHANGES_PER_MILLE) {
                self.change(at);
            }
        }
    }

    fn change(&mut self, at: usize) {
        let (rng, now) = (&mut self.rng, self.now);
        let line = &mut self.lines[at];
        let way = rng.below(2) as usize;
        let pipe = &mut line.pipes[way];
        let weather = &mut pipe.weather;
        match rng.below(16) {
            0 => weather.down_until = now + Span::from_ms(rng.below(1500)),
            1 => {
                let until = now + Span::from_ms(rng.below(2500));
                line.pipes.iter_mut().for_each(|pipe| pipe.weather.down_until = until);
            }
            2 | 3 => {
                pipe.bytes_per_ms = 30 << rng.below(8);
                self.outcome.met.steps += 1;
            }
            4 | 12 => {
                weather.bursts_per_mille = 10 + rng.below(100);
                weather.burst_max = Span::from_us(rng.below(40_000));
            }
            5 | 13 => weather.lost_per_mille = rng.below(250),
            6 => weather.again_per_mille = rng.below(100),
            7 => weather.jitter = Span::from_us(rng.below(40_000)),
            8 | 14 => {
                weather.late_per_mille = 10 + rng.below(200);
                weather.late_by = Span::from_ms(1 + rng.below(60));
            }
            9 => {
                weather.mtu = weather.mtu_first.min((MTU_MIN + rng.below(300)) as usize);
                weather.tells = rng.chance(500);
            }
            10 | 15 => {
                weather.queue = Span::from_ms(2 + rng.below(200));
                weather.beside = rng.chance(600).then_some(1);
            }
            _ => self.move_path(at),
        }
    }

    /// Who was dialled hears the other one from another address: its packets go another way, which
    /// takes another time.
    fn move_path(&mut self, at: usize) {
        let Some(slot) = self.lines[at].slots[1] else { return };
        self.outcome.met.moved += 1;
        self.lines[at].pipes[1].delay = Span::from_us(self.rng.below(40_000));
        self.ends[1].session.packets_moved(self.now, slot);
    }

    /// From now on paths work: they lose a little, and pass what they passed first. A connection
    /// that has lost something does not live on as if nothing had been.
    pub(super) fn calm_down(&mut self) {
        let pipes = self.lines.iter_mut().flat_map(|line| {
            let packets = line.packets;
            line.pipes.iter_mut().map(move |pipe| (packets, pipe))
        });
        for (packets, pipe) in pipes {
            pipe.silent &= !packets;
            pipe.bytes_per_ms = pipe.bytes_per_ms.max(200);
            let weather = &mut pipe.weather;
            weather.down_until = Moment(0);
            weather.lost_per_mille = weather.lost_per_mille.min(50);
            (weather.bursts_per_mille, weather.late_per_mille) = (0, 0);
            (weather.queue, weather.beside) = (QUEUE, None);
            weather.mtu = weather.mtu_first;
        }
    }
}
