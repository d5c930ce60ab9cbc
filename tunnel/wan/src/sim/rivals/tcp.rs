//! A TCP that always has more to send: what is common to all of them, whoever decides how fast.
//!
//! Transmissions are numbered, not bytes: with selective acknowledgements and time stamps a kernel
//! knows as much, and nobody here reads the bytes. A transmission is lost when one sent three later
//! has been acknowledged (lines here do not reorder what TCP sends), or when nothing was heard for
//! a retransmission timeout. Acknowledgements are delayed by one packet or 40 ms, but for gaps.
//!
//! Invariant: a transmission is acknowledged or lost once.
//!
//! Bounds: constant time a packet. Not here: handshakes, receive windows (never the limit), segment
//! offload but for what a controller makes of it.

use std::collections::VecDeque;
use std::fmt::Debug;

use ringway_core::{Moment, Span};

/// Bytes of a packet, heads included.
pub(super) const PACKET: u64 = 1500;
/// How many later ones must have come before one is lost.
const REORDERED: u64 = 3;
const DELAYED_MAX: Span = Span::from_ms(40);
const TIMEOUT_MIN: Span = Span::from_ms(200);

/// What an acknowledgement brought.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acked {
    /// Packets that came, and that are lost.
    pub(super) came: u64,
    /// See `came`.
    pub(super) lost: u64,
    /// Packets on their way, after and before this.
    pub(super) inflight: u64,
    /// See `inflight`.
    pub(super) inflight_before: u64,
    /// Packets that came in all.
    pub(super) delivered: u64,
    /// As many had come when the newest of these was sent.
    pub(super) delivered_at_send: u64,
    /// The round trip of the newest of these.
    pub(super) rtt: Span,
    /// Packets a second, by the newest of these; zero if it says nothing.
    pub(super) rate: f64,
    /// Whether an episode of losses begins.
    pub(super) new_episode: bool,
    /// Whether there is none now.
    pub(super) recovered: bool,
}

/// How much a sender may have on its way, and how fast it sends.
pub(super) trait Control: Debug {
    /// An acknowledgement came.
    fn acked(&mut self, now: Moment, acked: &Acked);
    /// Nothing came for so long that everything is given up.
    fn timed_out(&mut self, now: Moment);
    /// Packets that may be on their way.
    fn window(&self) -> u64;
    /// Packets a second; `None`: at once.
    fn pacing(&self) -> Option<f64>;
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Moment,
    settled: bool,
    delivered: u64,
    delivered_at: Moment,
    /// When the oldest packet of this sample of the rate was sent.
    first_at: Moment,
}

/// From a loss until everything that was on its way then has come, in whatever packet.
#[derive(Clone, Copy, Debug)]
struct Episode {
    /// What was sent first after it began, and with what the last of its losses was repaired.
    ends: u64,
    repaired: u64,
    /// Later packets were lost as well.
    more: bool,
}

impl Episode {
    fn new(next: u64) -> Episode {
        Episode { ends: next, repaired: next, more: false }
    }
}

/// The end that sends.
#[derive(Debug)]
pub(super) struct Sender {
    control: Box<dyn Control>,
    sent: VecDeque<Sent>,
    /// The number of the first of those.
    base: u64,
    next: u64,
    inflight: u64,
    delivered: u64,
    delivered_at: Moment,
    first_at: Moment,
    newest: u64,
    episode: Option<Episode>,
    smooth: Option<Span>,
    varies: Span,
    heard_at: Moment,
    ready_at: Moment,
}

impl Sender {
    /// Nothing was sent yet.
    pub(super) fn new(control: Box<dyn Control>) -> Self {
        Self {
            control,
            sent: VecDeque::new(),
            base: 0,
            next: 0,
            inflight: 0,
            delivered: 0,
            delivered_at: Moment(0),
            first_at: Moment(0),
            newest: 0,
            episode: None,
            smooth: None,
            varies: Span::ZERO,
            heard_at: Moment(0),
            ready_at: Moment(0),
        }
    }

    /// Who decides.
    pub(super) fn control(&self) -> &dyn Control {
        &*self.control
    }

    /// When something is to be done though nothing comes.
    pub(super) fn wake_at(&self) -> Option<Moment> {
        let sends = (self.inflight < self.control.window()).then_some(self.ready_at);
        let timeout = (self.inflight > 0).then(|| self.heard_at + self.timeout());
        [sends, timeout].into_iter().flatten().min()
    }

    fn timeout(&self) -> Span {
        let smooth = self.smooth.unwrap_or(Span::from_s(1));
        Span(smooth.0 + (4 * self.varies.0).max(TIMEOUT_MIN.0))
    }

    /// The number of the packet that leaves now, if one does.
    pub(super) fn send(&mut self, now: Moment) -> Option<u64> {
        if self.inflight > 0 && self.heard_at + self.timeout() <= now {
            self.give_up(now);
        }
        if self.inflight >= self.control.window() || self.ready_at > now {
            return None;
        }
        if self.inflight == 0 {
            (self.first_at, self.delivered_at, self.heard_at) = (now, now, now);
        }
        if let Some(rate) = self.control.pacing() {
            self.ready_at = self.ready_at.max(now) + Span((1e9 / rate) as u64);
        }
        let (delivered, delivered_at, first_at) =
            (self.delivered, self.delivered_at, self.first_at);
        self.sent.push_back(Sent { at: now, settled: false, delivered, delivered_at, first_at });
        (self.inflight, self.next) = (self.inflight + 1, self.next + 1);
        Some(self.next - 1)
    }

    fn give_up(&mut self, now: Moment) {
        (self.base, self.inflight, self.heard_at) = (self.next, 0, now);
        self.sent.clear();
        self.episode = Some(Episode::new(self.next));
        self.control.timed_out(now);
    }

    /// An acknowledgement of these numbers came.
    pub(super) fn heard(&mut self, now: Moment, (first, last): (u64, u64)) {
        let inflight_before = self.inflight;
        let mut newest = None;
        let mut came = 0;
        for number in first.max(self.base)..=last {
            let sent = &mut self.sent[(number - self.base) as usize];
            // One that was given up counts no more.
            if !sent.settled {
                (sent.settled, newest, came) = (true, Some(*sent), came + 1);
            }
        }
        let Some(newest_sent) = newest else { return };
        (self.newest, self.heard_at) = (self.newest.max(last), now);
        self.inflight -= came;
        self.delivered += came;
        self.delivered_at = now;
        let (lost, newest_lost) = self.lose();
        let rtt = now.since(newest_sent.at);
        self.time(rtt);
        let sending = newest_sent.at.since(newest_sent.first_at);
        let coming = now.since(newest_sent.delivered_at);
        let took = sending.max(coming).0;
        self.first_at = newest_sent.at;
        let rate = (self.delivered - newest_sent.delivered) as f64 * 1e9 / took.max(1) as f64;
        let new_episode = self.follow_episode(lost > 0, newest_lost);
        let acked = Acked {
            came,
            lost,
            inflight: self.inflight,
            inflight_before,
            delivered: self.delivered,
            delivered_at_send: newest_sent.delivered,
            rtt,
            rate: if took > 0 { rate } else { 0.0 },
            new_episode,
            recovered: self.episode.is_none(),
        };
        self.control.acked(now, &acked);
    }

    /// Whether an episode begins. One that ends while later losses are known goes over into the
    /// next, as in kernels, and nobody has recovered between the two.
    fn follow_episode(&mut self, lost: bool, newest_lost: u64) -> bool {
        let next = self.next;
        let Some(episode) = &mut self.episode else {
            self.episode = lost.then(|| Episode::new(next));
            return lost;
        };
        if lost && newest_lost < episode.ends {
            episode.repaired = next;
        }
        episode.more |= lost && newest_lost >= episode.ends;
        if self.newest < episode.ends.max(episode.repaired) {
            return false;
        }
        let more = episode.more;
        self.episode = more.then(|| Episode::new(next));
        more
    }

    /// How many are found to be lost, and the newest of them.
    fn lose(&mut self) -> (u64, u64) {
        let (mut lost, mut newest) = (0, 0);
        while let Some(sent) = self.sent.front() {
            if !sent.settled {
                if self.base + REORDERED > self.newest {
                    break;
                }
                (lost, newest) = (lost + 1, self.base);
            }
            self.sent.pop_front();
            self.base += 1;
        }
        self.inflight -= lost;
        (lost, newest)
    }

    fn time(&mut self, rtt: Span) {
        match self.smooth {
            None => (self.smooth, self.varies) = (Some(rtt), Span(rtt.0 / 2)),
            Some(smooth) => {
                self.varies = Span((3 * self.varies.0 + smooth.0.abs_diff(rtt.0)) / 4);
                self.smooth = Some(Span((7 * smooth.0 + rtt.0) / 8));
            }
        }
    }
}

/// The end that acknowledges.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    expected: u64,
    /// What came and was not acknowledged yet.
    pending: Option<(u64, u64)>,
    due: Option<Moment>,
}

impl Receiver {
    /// A packet came. Returns what is acknowledged at once.
    pub(super) fn came(&mut self, now: Moment, number: u64) -> Option<(u64, u64)> {
        let gap = number != self.expected;
        self.expected = number + 1;
        match self.pending.take() {
            Some((first, last)) if last + 1 == number => {
                self.due = None;
                Some((first, number))
            }
            Some(before) => {
                (self.pending, self.due) = (Some((number, number)), Some(now));
                Some(before)
            }
            None if gap => Some((number, number)),
            None => {
                (self.pending, self.due) = (Some((number, number)), Some(now + DELAYED_MAX));
                None
            }
        }
    }

    /// When [`Self::late`] has something.
    pub(super) fn due(&self) -> Option<Moment> {
        self.due
    }

    /// What was held back for too long.
    pub(super) fn late(&mut self, now: Moment) -> Option<(u64, u64)> {
        self.due.filter(|due| *due <= now)?;
        self.due = None;
        self.pending.take()
    }
}
