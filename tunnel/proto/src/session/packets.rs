//! A carrier of packets in a session: each packet is lost by itself, and what it said goes again.
//!
//! A packet is filled like a record, but small: reports first, then what was lost, then control
//! frames, then pieces of streams. As often as reports come, control frames go before what was
//! lost, of which there may be a window's worth, and which leaves hardly any room: what is soon too
//! late does not wait for all of that. Pieces are kept track of as runs by [`crate::path::Sender`],
//! and whatever else it says as [`Said`], so that each is said again if its packet is lost. The
//! flow's other end alone decides when bytes are freed, as on any carrier.
//!
//! What always holds:
//! - K1  A packet of which a piece was refused for want of room is not reported: it counts as lost.
//! - K2  Packets with nothing but reports are not asked after, so that two ends that have nothing
//!   to say fall silent; now and then one of many asks all the same, and the end that dialled asks
//!   every [`KEPT_ALIVE`]: so whatever translates addresses keeps the way back, and an end that has
//!   moved is found.
//! - K3  A carrier is used once a report has said that packets of ours came by it, and again after
//!   it was suspect: that something comes says nothing of the way there.
//!
//! Bounds: constant time a packet and for each thing that it says.

use super::*;
use crate::frame::{PAD, REKEY_BYTES, REPORT_HEAD_MAX, WANTED_MAX, report_frame, write_pad};
use crate::limits::DATAGRAM_BYTES_MIN;
use crate::path::{
    Arrivals, Load, Report, Rtt, Run, Search, SegmentId, Sender, Told, Why, Word, report_wait,
};
use crate::report::PacketsReport;

/// Of so many packets with nothing but reports one asks to be reported.
const ASK_EVERY: u64 = 64;
/// The end that dialled is never silent for longer.
const KEPT_ALIVE: Span = Span::from_s(15);
/// A report that takes more than this part of a packet is alone in it.
const PART: usize = 4;

/// Something that a packet says, to be said again if it is lost.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Said {
    Reset(FlowId),
    Done(FlowId),
    Ack(FlowId),
    Leave,
    /// Whether the path passes so many bytes: the question's serial.
    Question(u32),
    /// Whether somebody answers at another address: the question's number.
    Way(u32),
    /// A piece of a stream.
    Run(SegmentId),
}

/// What a carrier of packets knows of them.
#[derive(Debug)]
pub(crate) struct Packets {
    sender: Sender<FlowId>,
    arrivals: Arrivals,
    /// What packets on their way say beside their first run, by [`Word`].
    words: Vec<Vec<Said>>,
    free: Vec<Word>,
    /// Bodies of reports that wait for packets: those of one round.
    reports: VecDeque<Vec<u8>>,
    /// How long datagrams are.
    search: Search,
    /// A question about a length left, and behind it one that every path passes is to leave then:
    /// if that comes and the question does not, the question was lost, and not all of them.
    follow_at: Option<Moment>,
    /// Bytes on the path around a datagram, and around its text.
    heads: u32,
    around: u32,
    told: Vec<Told<FlowId>>,
    /// The newest question that was answered from another address.
    way: Option<u32>,
    /// When a packet left last, and one with control frames before what was lost.
    spoke_at: Moment,
    control_at: Moment,
}

impl Packets {
    fn new(now: Moment, (heads, around): (u32, u32), sabotage: Sabotage) -> Self {
        let packet_bytes = DATAGRAM_BYTES_MIN as u64 + u64::from(heads);
        let mut sender = Sender::new(now, packet_bytes);
        sender.set_sabotage(sabotage);
        Self {
            sender,
            search: Search::new(sabotage),
            follow_at: None,
            heads,
            arrivals: Arrivals::default(),
            words: Vec::new(),
            free: Vec::new(),
            reports: VecDeque::new(),
            around,
            told: Vec::new(),
            way: None,
            spoke_at: now,
            control_at: Moment(0),
        }
    }

    pub(crate) fn rtt(&self) -> &Rtt {
        self.sender.rtt()
    }

    /// See [`crate::path::Rate::set_beside`].
    pub(crate) fn set_beside(&mut self, beside: bool) {
        self.sender.set_beside(beside);
    }

    pub(crate) fn is_silent(&self, now: Moment) -> bool {
        self.sender.is_silent(now)
    }

    /// When one may be sent, if that is only a matter of time.
    pub(super) fn ready_at(&self) -> Option<Moment> {
        self.sender.ready_at()
    }

    /// Whether packets came of late, as far as was heard, on a carrier that may be `suspect`.
    pub(crate) fn is_heard(&self, suspect: bool) -> bool {
        let stays = suspect && self.sender.sabotage.breaks(Rule::SuspectsRevive);
        self.sender.silences() == 0 && !stays
    }

    pub(crate) fn wanted(&mut self, floor: u64, wait: Span) {
        self.arrivals.wanted(floor, wait);
    }

    /// Datagrams have another length from now on.
    fn change_length(&mut self) {
        let packet_bytes = self.search.bytes() as u64 + u64::from(self.heads);
        let counts = self.search.is_long().then_some(self.heads);
        self.sender.set_packet_bytes(packet_bytes, counts);
        // Those that were made for longer packets would wait for ever. What they say is said again.
        self.reports.clear();
    }

    /// Bytes of text in the longest datagram that every path passes.
    fn least_text(&self) -> usize {
        DATAGRAM_BYTES_MIN - (self.around - self.heads) as usize
    }

    /// Keeps what a packet says; its first run is the packet's own.
    fn keep(&mut self, saying: &[Said]) -> Load {
        let first = saying.iter().position(|said| matches!(said, Said::Run(_)));
        let segment = first.and_then(|at| match saying[at] {
            Said::Run(segment) => Some(segment),
            _ => None,
        });
        let beside = |at: &usize| Some(*at) != first;
        if (0..saying.len()).filter(beside).count() == 0 {
            return Load { segment, word: None };
        }
        let word = self.free.pop().unwrap_or_else(|| {
            self.words.push(Vec::new());
            Word(self.words.len() as u32 - 1)
        });
        let others = (0..saying.len()).filter(beside).map(|at| saying[at]);
        self.words[word.0 as usize].extend(others);
        Load { segment, word: Some(word) }
    }

    fn release(&mut self, word: Word) -> Vec<Said> {
        self.free.push(word);
        core::mem::take(&mut self.words[word.0 as usize])
    }

    /// When there is something to do, sending included if there is more to send.
    pub(super) fn wake_at(&self, has_more: bool) -> Option<Moment> {
        let reports = if self.reports.is_empty() { self.arrivals.due() } else { Some(Moment(0)) };
        [reports, self.sender.wake_at(has_more)].into_iter().flatten().min()
    }
}

impl Session {
    /// A carrier of packets is there. On the path each datagram has `heads` bytes around it, and
    /// its text `around`. It carries nothing of flows before the other agent has said that it
    /// works.
    ///
    /// # Panics
    /// If there are more than 256 carriers.
    pub fn packets_on_trial(&mut self, now: Moment, heads: u32, around: u32) -> CarrierSlot {
        let packets = Packets::new(now, (heads, around), self.sabotage);
        let mut carrier = Carrier::of_packets(now, packets);
        carrier.proved = self.sabotage.breaks(Rule::PacketsProved);
        self.add_carrier(carrier)
    }

    fn packets(&mut self, slot: CarrierSlot) -> &mut Packets {
        let carrier = &mut self.carriers[usize::from(slot.0)];
        carrier.packets.as_mut().expect("the caller knows that it is one of packets")
    }

    /// Puts up to `room` bytes into the next packet of this carrier: appends frames to `out`.
    /// Returns the packet's number, or `None` if there is nothing to say, or not yet.
    ///
    /// # Panics
    /// If `room` is smaller than 1 KiB, or the carrier not one of packets.
    pub fn fill_packet(
        &mut self,
        now: Moment,
        slot: CarrierSlot,
        room: usize,
        (out, outlet): (&mut Vec<u8>, &mut impl Outlet),
    ) -> Option<u64> {
        assert!(room >= ROOM_MIN, "a packet holds any control frame");
        let start = out.len();
        self.saying.clear();
        self.carriers[usize::from(slot.0)].up.then_some(())?;
        let silent = self.probe(now, slot);
        let probes = silent || self.kept_alive_at(slot).is_some_and(|at| at <= now);
        let packets = self.packets(slot);
        if packets.sender.is_full() {
            return None;
        }
        let follows = packets.follow_at.take_if(|at| *at <= now).is_some();
        // Perhaps no long ones get through: after the first silence those that ask are short.
        let short = follows || silent && packets.sender.silences() > 1;
        let room = if short { room.min(packets.least_text()) } else { room };
        let end = start + room;
        packets.fill_report(now, room, out);
        let alone = short || out.len() - start > room / PART;
        let may = !alone && packets.sender.may_send(now);
        let before = out.len();
        self.fill_said(now, slot, (silent && !follows, may), (out, end - WANTED_MAX), outlet);
        let says = out.len() > before;
        let packets = self.packets(slot);
        let bored = packets.sender.unasked() >= ASK_EVERY;
        let new = may && !packets.sender.rtt().is_known() && packets.sender.next_number() == 0;
        let asks = says || probes || follows || bored || new;
        if asks && let Some((floor, wait)) = packets.sender.to_tell(now, !says) {
            Frame::Wanted { floor, wait: wait.0 }.write(out);
        }
        if out.len() == start {
            if may {
                packets.sender.note_idle();
            }
            return None;
        }
        pad(out, end);
        packets.spoke_at = now;
        let bytes = (out.len() - start) as u32 + packets.around;
        if !asks {
            return Some(packets.sender.send_unasked(now, bytes));
        }
        let saying = core::mem::take(&mut self.saying);
        let packets = self.packets(slot);
        let load = packets.keep(&saying);
        let number = packets.sender.send(now, bytes, load);
        self.saying = saying;
        Some(number)
    }

    /// What a packet says beside reports, with the tail if nothing was heard, and the rest if it
    /// `may` leave.
    fn fill_said(
        &mut self,
        now: Moment,
        slot: CarrierSlot,
        (silent, may): (bool, bool),
        (out, end): (&mut Vec<u8>, usize),
        outlet: &mut impl Outlet,
    ) {
        let usable = self.carriers[usize::from(slot.0)].is_usable();
        // Whoever asks because nothing was heard waits for no window.
        let room = (end - out.len()).saturating_sub(STREAM_HEAD_MAX);
        if silent
            && usable
            && let Some(tail) = self.next_again(now, slot, (room, true))
        {
            self.fill_run(slot, tail, out);
        }
        if may && usable {
            // Behind a tail there may be no room for it: the next packet says it.
            if let Some(exchange) = self.exchange.take_if(|_| end - out.len() >= REKEY_BYTES) {
                Frame::Rekey(exchange).write(out);
            }
            if self.control_first(now, slot) {
                self.fill_control(now, out, end, outlet);
            }
            if !self.sabotage.breaks(Rule::LostFirst) {
                self.fill_again(now, slot, (out, end));
            }
            if !self.by_records {
                self.fill_control(now, out, end, outlet);
                let share = (slot, Share::All);
                self.fill_streams(now, share, (out, end), outlet);
            }
            if self.sabotage.breaks(Rule::LostFirst) {
                self.fill_again(now, slot, (out, end));
            }
            self.fill_leave(slot, out);
        }
    }

    /// Whether it is time for control frames before what was lost: as often as reports come.
    fn control_first(&mut self, now: Moment, slot: CarrierSlot) -> bool {
        let due = !self.by_records && self.has_control(now);
        let packets = self.packets(slot);
        let first = due && now.since(packets.control_at) >= report_wait(packets.rtt().least());
        packets.control_at = if first { now } else { packets.control_at };
        first
    }

    /// Bytes of this carrier's datagrams.
    ///
    /// # Panics
    /// If it is not one of packets.
    pub fn datagram_bytes(&self, slot: CarrierSlot) -> usize {
        let packets = self.carriers[usize::from(slot.0)].packets.as_ref();
        packets.expect("the caller knows that it is one of packets").search.bytes()
    }

    /// Bytes of a longer datagram that is to leave now, by itself, to see whether the path passes
    /// it: by [`Self::fill_question`].
    pub fn question(&self, now: Moment, slot: CarrierSlot) -> Option<usize> {
        let carrier = self.carriers.get(usize::from(slot.0)).filter(|one| one.is_usable())?;
        let packets = carrier.packets.as_ref()?;
        let may = packets.sender.may_send(now) && !packets.sender.is_full();
        packets.search.question(now, self.has_for_packets(now)).filter(|_| may)
    }

    /// Puts `room` bytes that say nothing into the next packet of this carrier. Returns its number.
    ///
    /// # Panics
    /// Unless [`Self::question`] has one.
    pub fn fill_question(
        &mut self,
        now: Moment,
        slot: CarrierSlot,
        room: usize,
        out: &mut Vec<u8>,
    ) -> u64 {
        let end = out.len() + room;
        let packets = self.packets(slot);
        let (floor, wait) = packets.sender.to_tell(now, true).expect("it must be told");
        Frame::Wanted { floor, wait: wait.0 }.write(out);
        // Its length takes two bytes.
        write_pad(out, end - out.len() - 3);
        let question = Said::Question(packets.search.ask());
        let load = packets.keep(&[question]);
        packets.spoke_at = now;
        packets.follow_at = Some(now + packets.sender.patience() + Span(1));
        packets.sender.send(now, room as u32 + packets.around, load)
    }

    /// Puts a question into the next packet of this carrier, which goes to another address than all
    /// others: [`Self::take_way`] says when it was answered. Returns the packet's number; `None` if
    /// none can be sent.
    pub fn fill_way(
        &mut self,
        now: Moment,
        slot: CarrierSlot,
        question: u32,
        out: &mut Vec<u8>,
    ) -> Option<u64> {
        let start = out.len();
        let packets = self.packets(slot);
        if packets.sender.is_full() {
            return None;
        }
        let (floor, wait) = packets.sender.to_tell(now, true).expect("it must be told");
        Frame::Wanted { floor, wait: wait.0 }.write(out);
        let load = packets.keep(&[Said::Way(question)]);
        let bytes = (out.len() - start) as u32 + packets.around;
        Some(packets.sender.send(now, bytes, load))
    }

    /// The newest question of [`Self::fill_way`] that was answered since this was asked last.
    pub fn take_way(&mut self, slot: CarrierSlot) -> Option<u32> {
        self.packets(slot).way.take()
    }

    /// Puts a word into the next packet that nothing more comes by this carrier. Nobody hears
    /// whether it came. Returns the packet's number; `None` if none can be sent.
    pub fn fill_farewell(
        &mut self,
        now: Moment,
        slot: CarrierSlot,
        out: &mut Vec<u8>,
    ) -> Option<u64> {
        let packets = self.packets(slot);
        if packets.sender.is_full() {
            return None;
        }
        let start = out.len();
        Frame::Leave.write(out);
        let bytes = (out.len() - start) as u32 + packets.around;
        Some(packets.sender.send_unasked(now, bytes))
    }

    /// Asks whether packets still get through, though nothing is on its way: questions
    /// leave until somebody answers, or the carrier is suspect.
    pub fn ask_packets(&mut self, now: Moment, slot: CarrierSlot) {
        self.packets(slot).sender.ask(now);
    }

    /// The kernel has refused datagrams of so many bytes on a carrier's way.
    pub fn datagrams_refused(&mut self, now: Moment, slot: CarrierSlot, bytes: usize) {
        let packets = self.packets(slot);
        if packets.search.refused(now, bytes) {
            packets.change_length();
            self.doubt_packets(now, slot);
        }
    }

    /// The next packet says this about new keys, where one can be sent. It may be lost.
    pub fn say_keys(&mut self, exchange: Exchange) {
        self.exchange = Some(exchange);
    }

    /// A carrier's packets go by another path from now on: what is on its way goes again, and what
    /// is known of the path is forgotten.
    pub fn packets_moved(&mut self, now: Moment, slot: CarrierSlot) {
        let packets = self.packets(slot);
        let mut told = core::mem::take(&mut packets.told);
        let was_long = packets.search.is_long();
        packets.search.restart();
        packets.change_length();
        packets.sender.moved(now, |one| told.push(one));
        self.told(now, slot, told);
        if was_long {
            // What was cut for longer packets is to be cut anew.
            self.doubt_packets(now, slot);
        }
    }

    /// Flows are spoken of by records alone from now on, though packets get through, or by packets
    /// again. What is on its way by packets then goes by records, too: it might take long.
    pub fn set_by_records(&mut self, now: Moment, by_records: bool) {
        self.by_records = by_records;
        let of_packets = |at: &usize| self.carriers[*at].packets.is_some();
        let slots: Vec<usize> = (0..self.carriers.len()).filter(of_packets).collect();
        for at in slots.into_iter().filter(|_| by_records) {
            let lost = self.doubt_packets(now, CarrierSlot(at as u16));
            self.carriers[at].resent += lost;
        }
    }

    /// Whether there is something of flows that packets may say.
    fn has_for_packets(&self, now: Moment) -> bool {
        !self.by_records && self.wants_any(now)
    }

    /// All that could be said by this carrier was. Whoever asks [`Self::wants_packet`] before each
    /// packet says so behind the last. Returns whether more could have gone.
    pub fn note_packets_idle(&mut self, now: Moment, slot: CarrierSlot) -> bool {
        let wants = self.has_for_packets(now);
        let carrier = &mut self.carriers[usize::from(slot.0)];
        let usable = carrier.is_usable();
        if let Some(packets) = carrier.packets.as_mut().filter(|_| usable && !wants)
            && packets.sender.may_send(now)
        {
            packets.sender.note_idle();
            return true;
        }
        false
    }

    /// What is known of a carrier of packets; `None` for another, or one that is not up.
    pub fn packets_report(&self, slot: CarrierSlot) -> Option<PacketsReport> {
        let carrier = self.carriers.get(usize::from(slot.0)).filter(|carrier| carrier.up)?;
        let packets = carrier.packets.as_ref()?;
        let sender = &packets.sender;
        let (flying, _) = sender.bytes();
        let rate = sender.rate();
        Some(PacketsReport {
            flying,
            came: sender.came(),
            packets: sender.counted(),
            rate: rate.bandwidth(),
            window: rate.window(),
            dropped: sender.dropped(),
            datagram_bytes: packets.search.bytes(),
        })
    }

    /// Why a carrier of packets sends as it does; `None` as for [`Self::packets_report`].
    pub fn packets_why(&self, slot: CarrierSlot) -> Option<Why> {
        let carrier = self.carriers.get(usize::from(slot.0)).filter(|carrier| carrier.up)?;
        Some(carrier.packets.as_ref()?.sender.why())
    }

    /// Whether [`Self::fill_packet`] would fill one now.
    pub fn wants_packet(&self, now: Moment, slot: CarrierSlot) -> bool {
        self.packets_wake_at(now, slot).is_some_and(|at| at <= now)
    }

    /// When [`Self::fill_packet`] has something to fill.
    pub(super) fn packets_wake_at(&self, now: Moment, slot: CarrierSlot) -> Option<Moment> {
        let carrier = self.carriers.get(usize::from(slot.0)).filter(|carrier| carrier.up)?;
        let has_more = carrier.is_usable()
            && (self.has_for_packets(now) || carrier.wants_leave(self.sabotage));
        let has_more = has_more || carrier.is_usable() && self.exchange.is_some();
        let packets = carrier.packets.as_ref()?;
        // The first packet of one on trial asks.
        let new = packets.sender.next_number() == 0;
        let asks = carrier.is_usable() && packets.search.question(now, has_more).is_some();
        let follows = packets.follow_at.filter(|_| !packets.sender.is_full());
        let due = [packets.wake_at(has_more || new || asks), self.kept_alive_at(slot), follows];
        due.into_iter().flatten().min()
    }

    /// When somebody who dialled has been silent for long (K2).
    fn kept_alive_at(&self, slot: CarrierSlot) -> Option<Moment> {
        let kept = self.settings.role == Role::Initiator && !self.sabotage.breaks(Rule::KeptAlive);
        let carrier = self.carriers.get(usize::from(slot.0)).filter(|one| kept && one.is_usable());
        Some(carrier?.packets.as_ref()?.spoke_at + KEPT_ALIVE)
    }

    /// Whether a packet is to be sent because nothing was heard.
    fn probe(&mut self, now: Moment, slot: CarrierSlot) -> bool {
        let packets = self.packets(slot);
        let mut told = core::mem::take(&mut packets.told);
        let probes = packets.sender.probe(now, |one| told.push(one));
        if !told.is_empty() {
            packets.search.let_go();
        }
        self.told(now, slot, told);
        probes
    }

    /// Runs that were lost, as many as fit.
    fn fill_again(&mut self, now: Moment, slot: CarrierSlot, (out, end): (&mut Vec<u8>, usize)) {
        let room = |out: &Vec<u8>| (end - out.len()).saturating_sub(STREAM_HEAD_MAX);
        while let Some(segment) = self.next_again(now, slot, (room(out), false)) {
            self.fill_run(slot, segment, out);
        }
    }

    /// What is sent again: what was lost, or the `tail`, of which nothing was heard.
    fn next_again(
        &mut self,
        now: Moment,
        slot: CarrierSlot,
        (room, tail): (usize, bool),
    ) -> Option<SegmentId> {
        let flows = &self.flows;
        let wanted = |run: &Run<FlowId>| {
            let flow = flows.get(&run.flow);
            flow.is_some_and(|flow| !flow.send.has_heard_of(run.start + u64::from(run.len)))
        };
        let packets = self.carriers[usize::from(slot.0)].packets.as_mut()?;
        if tail {
            packets.sender.tail(room, wanted)
        } else {
            packets.sender.again(now, room, wanted)
        }
    }

    fn fill_run(&mut self, slot: CarrierSlot, segment: SegmentId, out: &mut Vec<u8>) {
        let run = self.packets(slot).sender.run(segment);
        let flow = self.flows.get_mut(&run.flow).expect("it is wanted");
        let piece = flow.send.piece(run.start, run.start + u64::from(run.len));
        stream_head(out, run.flow, piece.offset, (piece.len, piece.fin));
        flow.send.copy(piece, out);
        self.saying.push(Said::Run(segment));
        self.carriers[usize::from(slot.0)].resent += u64::from(run.len);
    }

    /// A piece of a stream, for the first time on this carrier.
    pub(super) fn fill_packet_stream(
        &mut self,
        now: Moment,
        (slot, alone): (CarrierSlot, bool),
        id: FlowId,
        (out, end): (&mut Vec<u8>, usize),
    ) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let carrier = &mut self.carriers[usize::from(slot.0)];
        let packets = carrier.packets.as_mut().expect("the caller looked");
        while end - out.len() > STREAM_HEAD_MAX {
            let room = end - out.len() - STREAM_HEAD_MAX;
            let Some(piece) = flow.send.take_for_packet(room, slot, alone) else { break };
            stream_head(out, id, piece.offset, (piece.len, piece.fin));
            flow.send.copy(piece, out);
            let len = piece.len as u32 + u32::from(piece.fin);
            let segment = packets.sender.begin(Run { flow: id, start: piece.offset, len });
            self.saying.push(Said::Run(segment));
            carrier.sent += piece.len as u64;
            if !core::mem::replace(&mut flow.watched, true) {
                self.watched.push_back((id, now + WATCH_EVERY));
            }
        }
        self.queue(id);
    }

    fn fill_leave(&mut self, slot: CarrierSlot, out: &mut Vec<u8>) {
        let carrier = &mut self.carriers[usize::from(slot.0)];
        let packets = carrier.packets.as_ref().expect("the caller looked");
        if carrier.wants_leave(self.sabotage) && packets.sender.kept() == 0 {
            Frame::Leave.write(out);
            carrier.left = true;
            self.saying.push(Said::Leave);
        }
    }

    /// The host has dropped so many datagrams, all in all, that may have been this carrier's.
    pub fn note_dropped(&mut self, slot: CarrierSlot, dropped: u64) {
        self.packets(slot).arrivals.note_dropped(dropped);
    }

    /// A packet's text came: its number, and its bytes on the path.
    ///
    /// # Errors
    /// [`Violation`]: the session is to be given up.
    pub fn packet(
        &mut self,
        now: Moment,
        slot: CarrierSlot,
        (number, bytes): (u64, u64),
        text: &[u8],
        outlet: &mut impl Outlet,
    ) -> Result<(), Violation> {
        let refused = self.refused();
        let asks = self.frames(now, slot, text, outlet)?;
        // K1: who has no room for it wants it again.
        if self.refused() == refused || self.sabotage.breaks(Rule::RefusedNotReported) {
            self.packets(slot).arrivals.note(now, number, bytes, asks);
        } else {
            self.packets(slot).arrivals.note_refused();
        }
        Ok(())
    }

    /// The other agent's report on packets of this carrier.
    pub(super) fn reported(
        &mut self,
        now: Moment,
        slot: CarrierSlot,
        report: &Report<'_>,
    ) -> Result<(), Violation> {
        let carrier = &mut self.carriers[usize::from(slot.0)];
        let packets = carrier.packets.as_mut().ok_or(Violation::Malformed)?;
        let mut told = core::mem::take(&mut packets.told);
        let heard = packets.sender.heard(now, report, |one| told.push(one));
        let (lengths, rtt) = (packets.sender.take_lengths(), packets.sender.rtt().smooth());
        packets.search.heard(now, &lengths, rtt);
        self.told(now, slot, told);
        let packets = self.packets(slot);
        if packets.search.is_refuted() {
            // What was used does not pass any more: what was cut for it is to be cut anew.
            packets.search.restart();
            packets.change_length();
            self.doubt_packets(now, slot);
        }
        heard
    }

    fn told(&mut self, now: Moment, slot: CarrierSlot, mut told: Vec<Told<FlowId>>) {
        for one in told.drain(..) {
            match one {
                Told::Arrived(run) => self.left_packets(run),
                // It goes again when there is room; until then it counts as being on its way.
                Told::Lost(_) => {}
                Told::Heard(word) => {
                    for said in self.packets(slot).release(word) {
                        self.said_came(now, slot, said);
                    }
                }
                Told::Unheard(word) => {
                    for said in self.packets(slot).release(word) {
                        self.say_again(now, slot, said);
                    }
                }
            }
        }
        self.packets(slot).told = told;
    }

    fn said_came(&mut self, now: Moment, slot: CarrierSlot, said: Said) {
        let packets = self.packets(slot);
        match said {
            Said::Run(segment) => {
                if let Some(run) = packets.sender.arrived(segment) {
                    self.left_packets(run);
                }
            }
            Said::Question(serial) => {
                if packets.search.answered(now, serial, true) {
                    packets.change_length();
                }
            }
            Said::Way(question) => packets.way = packets.way.max(Some(question)),
            Said::Reset(_) | Said::Done(_) | Said::Ack(_) | Said::Leave => {}
        }
    }

    fn left_packets(&mut self, run: Run<FlowId>) {
        if let Some(flow) = self.flows.get_mut(&run.flow) {
            flow.send.left_packets(run.len.into());
        }
    }

    fn say_again(&mut self, now: Moment, slot: CarrierSlot, said: Said) {
        match said {
            Said::Reset(flow) => self.repeat_reset(flow),
            Said::Done(flow) => self.answer_done(flow),
            Said::Ack(flow) if self.flows.contains_key(&flow) => self.queue_ack(flow, now),
            // It was the last word of a flow that has ended well here.
            Said::Ack(flow) => self.answer_done(flow),
            Said::Leave => self.carriers[usize::from(slot.0)].left = false,
            // Whoever is heard from there again asks again.
            Said::Way(_) => {}
            // Another question is put, or the same again.
            Said::Question(serial) => {
                self.packets(slot).search.answered(now, serial, false);
            }
            Said::Run(segment) => {
                self.packets(slot).sender.lost(segment);
            }
        }
    }

    /// What is on its way by a carrier of packets goes by others: it is lost, or does not answer.
    /// Returns how many bytes.
    pub(super) fn doubt_packets(&mut self, now: Moment, slot: CarrierSlot) -> u64 {
        let Some(packets) = self.carriers[usize::from(slot.0)].packets.as_mut() else { return 0 };
        let mut told = core::mem::take(&mut packets.told);
        packets.search.let_go();
        packets.sender.give_up(|one| told.push(one));
        self.told(now, slot, told);
        let mut runs = Vec::new();
        self.packets(slot).sender.hand_over(|run| runs.push(run));
        let mut bytes = 0;
        for run in runs {
            let Some(flow) = self.flows.get_mut(&run.flow) else { continue };
            let (start, end) = (run.start, run.start + u64::from(run.len));
            flow.send.left_packets(run.len.into());
            flow.send.lose_run(start, end, slot);
            bytes += u64::from(run.len);
            self.queue(run.flow);
        }
        bytes
    }
}

impl Packets {
    /// A report, if one is due.
    fn fill_report(&mut self, now: Moment, room: usize, out: &mut Vec<u8>) {
        let room = room - REPORT_HEAD_MAX - WANTED_MAX;
        if self.reports.is_empty() {
            let reports = &mut self.reports;
            self.arrivals.report(now, room, |body| reports.push_back(body.to_vec()));
        }
        // One that was made for longer packets waits for such.
        if let Some(body) = self.reports.pop_front_if(|body| body.len() <= room) {
            report_frame(out, &body);
        }
    }
}

/// Fills what little is left of a packet, so that those of a train are equally long.
fn pad(out: &mut Vec<u8>, end: usize) {
    let left = end.saturating_sub(out.len());
    if (PAD_HEAD..=PAD_MAX).contains(&left) {
        out.extend([PAD, (left - PAD_HEAD) as u8]);
        out.resize(end, 0);
    }
}

/// A PAD frame whose length takes one byte, and how long it may be: about what heads of other
/// frames keep free.
const PAD_HEAD: usize = 2;
const PAD_MAX: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    /// A report that was made for longer packets than there are now keeps none from leaving.
    #[test]
    fn no_report_waits_for_longer_packets() {
        let mut packets = Packets::new(Moment(0), (28, 60), Sabotage::default());
        packets.reports.push_back(alloc::vec![0; 5000]);
        packets.change_length();
        packets.arrivals.note(Moment(0), 0, 1200, true);
        let (now, mut out) = (Moment(1_000_000_000), Vec::new());
        packets.fill_report(now, packets.least_text(), &mut out);
        assert!(!out.is_empty() && out.len() < 1200);
    }

    /// One that a short packet has no room for waits for the next, and is whole.
    #[test]
    fn a_report_waits_for_a_packet_with_room() {
        let mut packets = Packets::new(Moment(0), (28, 60), Sabotage::default());
        packets.reports.push_back(alloc::vec![0; 1000]);
        let mut out = Vec::new();
        packets.fill_report(Moment(0), 500, &mut out);
        assert!(out.is_empty() && packets.reports.len() == 1);
        packets.fill_report(Moment(0), 1200, &mut out);
        assert!(out.len() > 1000 && packets.reports.is_empty());
    }
}
