//! A carrier of packets over a path that loses them: what one end of it knows, without the packets.
//!
//! ```text
//! flows --runs--> Sender: Repair (what goes again), Flight (what is on its way),
//!                         Rate and pacer (how fast) --numbered packets--> path
//! path --numbers--> Arrivals --reports--> the other end's Sender
//! ```
//!
//! - `arrivals`, `report`: which numbers came, and how the other end hears of it.
//! - `flight`, `rtt`: what is on its way, what has come, what is lost; round trips.
//! - `repair`: what is sent again, and how often at once.
//! - `rate`, `trains`, `loss`, `compete`, `pacer`: how fast the path is sent to. `why`: all of that
//!   in words.
//! - `mtu`: how long a datagram may be.
//!
//! What always holds:
//! - A carrier promises nothing: what it says has arrived may still be refused by the flow's other
//!   end, whose word alone frees bytes (`session`).
//! - Nothing here has bytes, keys or clocks: runs of positions and numbers of packets come in, and
//!   go out. So a simulation of a path of 12 Gbit/s runs what the product runs.
//!
//! Bounds: constant time a packet. Tests: here each part tells its story; `ringway-wan` drives them
//! over lines of every kind in virtual time.

mod arrivals;
mod compete;
mod flight;
mod loss;
mod mark;
mod mtu;
mod pacer;
mod rate;
mod repair;
mod report;
mod rtt;
mod trains;
mod why;

use ringway_core::{Moment, Span};

use crate::sabotage::{Rule, Sabotage};
use crate::violation::Violation;
pub(crate) use flight::Lengths;
use flight::{Fate, Flight, Heard};
pub(crate) use mtu::Search;
use pacer::Pacer;
use rate::Put;
use repair::Repair;

pub use arrivals::Arrivals;
use arrivals::WAIT_EVER;
pub use rate::{Decision, Rate, report_wait};
pub use repair::{Run, SegmentId};
pub use report::{Report, Totals};
pub use rtt::Rtt;
pub use why::{Doing, Why};

/// Silences after which everything that is on its way is given up.
const SILENCES_MAX: u32 = 3;
/// How often the pause between two probes is doubled.
const PATIENCE_DOUBLED_MAX: u32 = 2;
/// The longest pause between two probes, until the path counts as silent.
const PROBE_MAX: Span = Span::from_s(1);
/// The path is silent after so many silences, if they took at least so long; from then on the pause
/// doubles, up to the longest.
const SILENT: u32 = 6;
const SILENT_MIN: Span = Span::from_ms(250);
const SILENT_PROBE_MAX: Span = Span::from_s(30);
const SILENT_DOUBLED_MAX: u32 = 16;

/// Something a packet says beside a run, by the caller's own handle. It goes again, or not, as the
/// caller likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(pub u32);

/// What a packet carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// A run.
    pub segment: Option<SegmentId>,
    /// Something else.
    pub word: Option<Word>,
}

/// What became of what packets carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<F> {
    /// A run came for the first time.
    Arrived(Run<F>),
    /// A packet with a run was lost. It goes again by [`Sender::again`].
    Lost(Run<F>),
    /// A packet with this came. Said of each once: this or the next.
    Heard(Word),
    /// A packet with this was lost.
    Unheard(Word),
}

/// One end of a carrier, as it sends. `F` names flows.
#[derive(Debug)]
pub struct Sender<F> {
    pub(crate) flight: Flight<Load>,
    pub(crate) repair: Repair<F>,
    rate: Rate,
    pacer: Pacer,
    /// What the other end was told last of what is of interest, and when.
    told: Option<(u64, Moment)>,
    heard_at: Moment,
    /// Datagrams that came to the other end and that it had no room for.
    dropped: u64,
    /// Packets that came to the other end.
    counted: u64,
    packet_bytes: u64,
    /// How long losses run, in bytes; smooth.
    run_bytes: u64,
    /// The last packet that carried something.
    loaded: Option<u64>,
    /// Probes since something was heard, when the last one left, and the first.
    silences: u32,
    probed_at: Moment,
    silent_since: Moment,
    /// Somebody wants to know now whether it works: the next probe does not wait for longer because
    /// others were in vain.
    hurried: bool,
    pub(crate) sabotage: Sabotage,
}

impl<F: Copy> Sender<F> {
    /// For packets of so many bytes on the path, heads included.
    pub fn new(now: Moment, packet_bytes: u64) -> Self {
        Self {
            flight: Flight::default(),
            repair: Repair::default(),
            rate: Rate::new(packet_bytes),
            pacer: Pacer::default(),
            told: None,
            heard_at: now,
            dropped: 0,
            counted: 0,
            packet_bytes,
            run_bytes: packet_bytes,
            loaded: None,
            silences: 0,
            probed_at: now,
            silent_since: now,
            hurried: false,
            sabotage: Sabotage::default(),
        }
    }

    /// A rule is switched off, perhaps.
    pub(crate) fn set_sabotage(&mut self, sabotage: Sabotage) {
        (self.sabotage, self.flight.sabotage) = (sabotage, sabotage);
        self.repair.sabotage = sabotage;
        self.rate.set_sabotage(sabotage);
    }

    /// Packets have so many bytes from now on. If it is of interest which lengths come
    /// ([`Self::take_lengths`]), `heads` of them are around each datagram.
    pub(crate) fn set_packet_bytes(&mut self, packet_bytes: u64, heads: Option<u32>) {
        self.packet_bytes = packet_bytes;
        self.rate.set_packet_bytes(packet_bytes);
        self.flight.count_lengths(heads);
    }

    /// Packets by length since this was asked last.
    pub(crate) fn take_lengths(&mut self) -> Lengths {
        self.flight.take_lengths()
    }

    /// Whether a packet may leave now.
    pub fn may_send(&self, now: Moment) -> bool {
        self.is_free() && self.pacer.ready_at() <= now
    }

    /// When a packet may leave, if that is only a matter of time; it may be in the past.
    pub(crate) fn ready_at(&self) -> Option<Moment> {
        self.is_free().then(|| self.pacer.ready_at())
    }

    fn put(&self) -> Put {
        let flight = &self.flight;
        Put { next: flight.next(), sent: flight.sent(), flying: flight.flying() }
    }

    fn is_free(&self) -> bool {
        !self.flight.is_full() && self.rate.allows((self.flight.flying(), self.flight.sent()))
    }

    /// What is to be sent again now, and before anything else, if it is not longer than `room`: by
    /// [`Self::send`].
    pub fn again(
        &mut self,
        now: Moment,
        room: usize,
        wanted: impl Fn(&Run<F>) -> bool,
    ) -> Option<SegmentId> {
        self.repair.next(now, room, wanted)
    }

    /// Something goes for the first time: by [`Self::send`].
    pub fn begin(&mut self, run: Run<F>) -> SegmentId {
        self.repair.begin(run)
    }

    /// What a segment is.
    pub fn run(&self, segment: SegmentId) -> Run<F> {
        self.repair.run(segment)
    }

    /// A packet of so many bytes on the path leaves. Returns its number.
    ///
    /// # Panics
    /// If as many packets are on their way as may be ([`Self::is_full`]).
    pub fn send(&mut self, now: Moment, bytes: u32, load: Load) -> u64 {
        let pace = self.sabotage.unless(Rule::PacketsPaced, None, self.rate.pacing());
        self.pacer.leave(now, (u64::from(bytes), self.packet_bytes), pace);
        if self.sabotage.breaks(Rule::NumbersNew)
            && let Some(old) = self.flight.number_with(|one| one == &load && load.segment.is_some())
        {
            return old;
        }
        let number = self.flight.send(now, bytes, true, load);
        if load != Load::default() {
            self.loaded = Some(number);
        }
        number
    }

    /// The same for a packet that nobody needs to hear of: a report goes again anyway. It waits for
    /// nothing.
    ///
    /// # Panics
    /// As [`Self::send`].
    pub fn send_unasked(&mut self, now: Moment, bytes: u32) -> u64 {
        self.flight.send(now, bytes, false, Load::default())
    }

    /// Packets that were sent since the last one of [`Self::send`].
    pub fn unasked(&self) -> u64 {
        self.flight.unasked()
    }

    /// A further run that a packet carried beside its own has come. Returns it if that is news.
    pub fn arrived(&mut self, segment: SegmentId) -> Option<Run<F>> {
        self.repair.arrived(segment)
    }

    /// A packet with a further run was lost: the run goes again, by [`Self::again`].
    pub fn lost(&mut self, segment: SegmentId) -> Run<F> {
        let run = self.repair.run(segment);
        self.repair.lost(segment);
        run
    }

    /// Nothing goes again by this carrier: `each` hears of what was to.
    pub fn hand_over(&mut self, each: impl FnMut(Run<F>)) {
        self.repair.hand_over(each);
    }

    /// The number of the next packet.
    pub fn next_number(&self) -> u64 {
        self.flight.next()
    }

    /// Whether nothing at all may be sent before something is heard.
    pub fn is_full(&self) -> bool {
        self.flight.is_full()
    }

    /// What is missing is lost if something that was sent so much later has come.
    pub(crate) fn patience(&self) -> Span {
        self.flight.patience()
    }

    /// There is nothing to send though something may be.
    pub fn note_idle(&mut self) {
        self.rate.note_idle(&self.put());
    }

    /// A report came. `each` hears what is new of runs.
    ///
    /// # Errors
    /// [`Violation`]: it says what cannot be.
    pub fn heard(
        &mut self,
        now: Moment,
        report: &Report<'_>,
        mut each: impl FnMut(Told<F>),
    ) -> Result<(), Violation> {
        let repair = &mut self.repair;
        let heard = self.flight.heard(now, report, |load, fate| {
            // Who came late was said to be lost, and may have gone again.
            if let Some(word) = load.word.filter(|_| fate != Fate::Late) {
                each(if fate == Fate::Lost { Told::Unheard(word) } else { Told::Heard(word) });
            }
            let Some(segment) = load.segment else { return };
            let told = match fate {
                Fate::Arrived => repair.arrived(segment).map(Told::Arrived),
                Fate::Late => repair.came_late(segment).map(Told::Arrived),
                Fate::Lost => {
                    let run = repair.run(segment);
                    repair.lost(segment);
                    Some(Told::Lost(run))
                }
            };
            told.into_iter().for_each(&mut each);
        })?;
        if let Some(heard) = heard {
            self.dropped = self.dropped.max(heard.totals.dropped);
            self.counted = self.counted.max(heard.totals.packets);
            if self.flight.is_of_former(heard.totals.newest) {
                // Whether this path works is still to be heard.
                return Ok(());
            }
            (self.heard_at, self.silences, self.hurried) = (now, 0, false);
            let of_path = (self.flight.rtt(), self.flight.reorder());
            self.rate.heard(now, &heard, of_path, &self.put());
            self.repair.set_loss(self.rate.floor());
            self.space_copies(&heard);
        }
        Ok(())
    }

    /// Copies are further apart than losses last: a burst takes what is sent within it.
    fn space_copies(&mut self, heard: &Heard) {
        let rate = self.rate.bandwidth();
        if heard.lost_runs == 0 || rate == 0 {
            return;
        }
        let run = heard.lost_packets * self.packet_bytes / heard.lost_runs;
        self.run_bytes = (7 * self.run_bytes + run) / 8;
        // On a slow path that would be long; after a round trip there is no burst any more.
        let most = self.flight.rtt().smooth();
        self.repair.set_apart(Span((self.run_bytes * 1_000_000_000) / rate), most);
    }

    /// What the other end should hear with the next packet: from which number on it is to report,
    /// and how long to wait before. `None` if it was told lately, unless it `must` be told.
    pub fn to_tell(&mut self, now: Moment, must: bool) -> Option<(u64, Span)> {
        let (floor, wait) = (self.flight.floor(), self.wait());
        let due = must || self.told.is_none_or(|(_, at)| now.since(at) >= wait);
        due.then(|| self.told = Some((floor, now)))?;
        Some((floor, wait))
    }

    /// How long the other end should wait before it reports.
    fn wait(&self) -> Span {
        let rtt = self.flight.rtt();
        if rtt.is_known() { report_wait(rtt.least()) } else { Span::from_ms(1) }
    }

    /// When something is to be done though nothing comes: [`Self::probe`], or sending.
    pub fn wake_at(&self, has_more: bool) -> Option<Moment> {
        let due = if has_more { Some(Moment(0)) } else { self.repair.due() };
        let ready = self.pacer.ready_at();
        let sends = due.filter(|_| self.is_free()).map(|due| due.max(ready));
        let probes = self.probe_at();
        [sends, probes].into_iter().flatten().min()
    }

    /// After the last packet, and the last word about any, it has been silent for too long then.
    fn probe_at(&self) -> Option<Moment> {
        if self.sabotage.breaks(Rule::SilenceIsProbed) {
            return None;
        }
        // Who was silent is asked on, though all that was on its way was given up.
        let since = self.flight.last_asked().or((self.silences > 0).then_some(self.probed_at))?;
        // Nor is it silence while our own pace keeps what waits from leaving.
        let mut put = since.max(self.pacer.ready_at());
        // Who answers waits for more to come before; and for what carried nothing, perhaps longer.
        let nothing = self.loaded.is_none_or(|number| self.flight.is_known(number));
        let wait = if nothing { WAIT_EVER } else { self.wait() };
        let first = self.flight.rtt().probe_after().0 + wait.0;
        let patience = Span(first << self.silences.min(PATIENCE_DOUBLED_MAX));
        let patience = patience.min(PROBE_MAX.max(Span(self.flight.rtt().smooth().0 * 2)));
        if self.silences > 0 {
            // Once only: there is always somebody who says something again.
            put = put.min(self.probed_at + patience);
        }
        let last = put.max(self.heard_at).max(self.probed_at);
        let doubled = (self.silences + 1).saturating_sub(SILENT).min(SILENT_DOUBLED_MAX);
        let doubled = if self.hurried { 0 } else { doubled };
        Some(last + Span(patience.0 << doubled).min(SILENT_PROBE_MAX.max(patience)))
    }

    /// Nothing was heard for so long that a packet is to be sent to hear of the rest, whatever the
    /// window is. After some silences all that is on its way is given up, as `each` hears.
    pub fn probe(&mut self, now: Moment, mut each: impl FnMut(Told<F>)) -> bool {
        if self.probe_at().is_none_or(|at| at > now) {
            return false;
        }
        if self.silences == 0 {
            self.silent_since = now;
        }
        (self.probed_at, self.hurried) = (now, false);
        self.silences = self.silences.saturating_add(1);
        if self.silences >= SILENCES_MAX && !self.sabotage.breaks(Rule::SilenceGivesUp) {
            self.give_up(&mut each);
        }
        !self.flight.is_full()
    }

    /// What a probe may carry: the last run that was sent, if nothing was heard of it (RFC 8985,
    /// section 7). So whoever says little waits no round trip longer for what was lost. Later
    /// probes are short, since perhaps no long ones get through. Whoever takes it sends it;
    /// `wanted` and `room` are as for [`Self::again`].
    pub fn tail(&mut self, room: usize, wanted: impl Fn(&Run<F>) -> bool) -> Option<SegmentId> {
        if self.silences > 1 || self.sabotage.breaks(Rule::TailGoesAgain) {
            return None;
        }
        let segment = self.flight.flying_with(self.loaded?)?.segment?;
        let run = self.repair.run(segment);
        let fits = run.len as usize <= room && wanted(&run);
        (fits && self.repair.copy(segment)).then_some(segment)
    }

    /// Asks, though nothing is on its way, whether the path still works, or works again: by probes,
    /// of which the first is due in about a round trip, and where it was silent in a second, or in
    /// two round trips.
    pub(crate) fn ask(&mut self, now: Moment) {
        self.hurried = self.silences > 0;
        if !self.hurried {
            (self.silences, self.silent_since, self.probed_at) = (1, now, now);
        }
    }

    /// Gives up all that is on its way: it goes again, if there is a way.
    pub fn give_up(&mut self, mut each: impl FnMut(Told<F>)) {
        let repair = &mut self.repair;
        self.flight.lose_all(|load| {
            if let Some(word) = load.word {
                each(Told::Unheard(word));
            }
            if let Some(segment) = load.segment {
                each(Told::Lost(repair.run(segment)));
                repair.lost(segment);
            }
        });
        self.rate.note_given_up(&self.put());
    }

    /// How often in a row nothing was heard after a probe.
    pub fn silences(&self) -> u32 {
        self.silences
    }

    /// Whether nothing was heard for so long that the path seems not to work. What is heard later
    /// ends it.
    pub fn is_silent(&self, now: Moment) -> bool {
        let long = self.silences >= SILENT && now.since(self.silent_since) >= SILENT_MIN;
        long && !self.sabotage.breaks(Rule::SilenceIsDeath)
    }

    /// Packets go by another path from now on: what is on its way is given up, as `each` hears, and
    /// what was measured says nothing of that one. It is asked whether it works.
    pub fn moved(&mut self, now: Moment, mut each: impl FnMut(Told<F>)) {
        self.give_up(&mut each);
        if !self.sabotage.breaks(Rule::MovedForgets) {
            self.flight.forget_trips();
            self.rate = Rate::moved(self.packet_bytes, self.counted, self.sabotage);
        }
        self.rate.note_given_up(&self.put());
        self.pacer = Pacer::default();
        (self.silences, self.silent_since) = (1, now);
        (self.probed_at, self.heard_at) = (now, now);
    }

    /// See [`Rate::set_beside`].
    pub fn set_beside(&mut self, beside: bool) {
        self.rate.set_beside(beside);
    }

    /// How fast, and why.
    pub fn rate(&self) -> &Rate {
        &self.rate
    }

    /// What is done, and how it came to that.
    pub fn why(&self) -> Why {
        let (copies, apart) = self.repair.plan();
        Why {
            doing: self.rate.doing(),
            bandwidth: self.rate.bandwidth(),
            pacing: self.rate.pacing(),
            window: self.rate.window(),
            flying: self.flight.flying(),
            floor: self.rate.floor_known(),
            copies,
            apart,
            burst: self.run_bytes as f64 / self.packet_bytes as f64,
            rtt: (self.rtt().least(), self.rtt().smooth()),
            dropped: self.dropped,
            heard_at: self.heard_at,
            silent: (self.silences > 0).then(|| (self.silent_since, self.probe_at())),
            decisions: self.rate.log().copied().collect(),
        }
    }

    /// Round trips.
    pub fn rtt(&self) -> &Rtt {
        self.flight.rtt()
    }

    /// Bytes on their way, and bytes that were sent since the begin.
    pub fn bytes(&self) -> (u64, u64) {
        (self.flight.flying(), self.flight.sent())
    }

    /// Datagrams that came to the other end and that it had no room for, by its reports.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Bytes that came to the other end, by its newest report.
    pub fn came(&self) -> u64 {
        self.flight.came()
    }

    /// Packets that came to the other end, by its newest report.
    pub(crate) fn counted(&self) -> u64 {
        self.counted
    }

    /// Segments that are kept: on their way, or to be sent again.
    pub fn kept(&self) -> usize {
        self.repair.kept()
    }

    /// Packets that carried something again.
    pub fn resent(&self) -> u64 {
        self.repair.resent()
    }
}
