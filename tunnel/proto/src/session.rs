//! Two agents' common matter: flows over whatever carriers there are.
//!
//! The driver says what happens (a carrier came or went, a record arrived, an application wrote)
//! and asks for records: [`Session::fill`] puts into a carrier's next record what is most worth it
//! at that moment. So a carrier that takes more gets more, and one that has stopped gets nothing.
//! What arrives goes out through an [`Outlet`], in the order of each stream.
//!
//! What always holds:
//! - X1  Whatever was on a carrier that is lost or suspect goes again by another one, and what
//!   comes twice is noticed by its position. Control frames say absolute things and may come twice.
//! - X2  A flow's number is used once. One that is over is answered by DONE, so that who still
//!   sends for it learns that there is nothing left to wait for.
//! - X3  Memory is bounded: a flow keeps what its receiver has given credit for and one block more,
//!   and what comes is kept, both as far as there is room (`memory.rs`); windows are shared.
//!   Whoever opens flow after flow and does not answer that each was reset ends the session.
//!
//! In what order: answers to pings, what ends flows, acknowledgements, datagrams, then streams:
//! those with little to say before those with much, but for one record of eight, and of those each
//! in turn. An agent may also ask for one [`Share`] alone.
//!
//! Bounds: a flow costs about 700 bytes and what it keeps. Constant time a frame, but for searches
//! of log n; the loss of a carrier costs constant time for each flow.
//! Not here: keys and records (`ringway-crypto`), sockets, who may open what.
//! Tests: `session_tests.rs` tells stories; `tests/swarm.rs` breaks carriers in every way.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use ringway_core::{Moment, Span};

use crate::carrier::{Carrier, CarrierSlot};
use crate::detour::{Filled, Filler};
use crate::epochs::Exchange;
use crate::frame::{
    Ack, CONTROL_FRAME_MAX, FlowId, Frame, Frames, PAD_HEAD_MAX, PING_BYTES, ResetCode,
    STREAM_HEAD_MAX, stream_head, write_ack, write_pad,
};
use crate::memory::{Account, Held, Keeping};
use crate::recv::RecvStream;
use crate::report::{CarrierReport, FlowReport};
use crate::sabotage::{Rule, Sabotage};
use crate::send::{Blocks, Segment, SendStream};
use crate::violation::Violation;

mod clock;
mod messages;
mod over;
mod packets;
mod taking;

use messages::Messages;
pub use messages::{DATAGRAM_TEXT_MAX, DatagramRefused, DatagramsReport};
use over::Resetting;
pub(crate) use packets::Packets;
use packets::Said;

/// Which agent this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It began the session; its flows have even numbers.
    Initiator,
    /// It was asked; its flows have odd numbers.
    Responder,
}

/// What both agents' sessions are made with. The first window has to be the same at both.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Which agent.
    pub role: Role,
    /// Bytes of credit that a stream begins with.
    pub window_first: u64,
    /// Bytes that may be held of what comes, if nobody else holds any, and from which windows are
    /// given.
    pub memory: u64,
    /// Flows that may be open at once, with those of the peer's other sessions.
    pub flows_max: usize,
}

/// Where a session's outcomes go.
pub trait Outlet {
    /// Bytes of a stream, in order. They are the application's now.
    fn data(&mut self, flow: FlowId, bytes: &[u8]);

    /// Something else.
    fn event(&mut self, event: Event);

    /// The other agent offers new keys, or answers an offer. See [`crate::Epochs`].
    fn rekey(&mut self, exchange: Exchange);

    /// What follows this record on its carrier is under this epoch.
    fn keys(&mut self, epoch: u32);

    /// A datagram, of the other agent's [`Session::send_datagram`]. Unless overridden nobody wants
    /// any.
    fn datagram(&mut self, channel: u64, bytes: &[u8]) {
        let _ = (channel, bytes);
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The other agent opened a flow. Its bytes follow.
    Opened(FlowId),
    /// All bytes of the other agent's stream were delivered, and it has ended.
    Finished(FlowId),
    /// After a write that was not taken whole: there is room again.
    Writable(FlowId),
    /// The flow is over, and what was not delivered will not be.
    Reset(FlowId, ResetCode),
    /// Both streams have ended, and both agents know. The last word of a flow that ends well.
    Closed(FlowId),
    /// A carrier is given nothing new, because it does not answer.
    Suspect(CarrierSlot),
    /// It answers again.
    Recovered(CarrierSlot),
    /// The other agent sends nothing more on this carrier: it can be closed.
    Left(CarrierSlot),
}

/// A part of what there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// All of it.
    All,
    /// Control, and streams with little to say.
    Little,
    /// Streams with much.
    Bulk,
}

/// As many flows as may be are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowsFull;

#[derive(Debug)]
struct Flow {
    send: SendStream,
    recv: RecvStream,
    /// In the queue of those that have something to send.
    queued: bool,
    /// In the queue of those that have something to acknowledge.
    ack_queued: bool,
    /// A write was not taken whole.
    blocked: bool,
    /// In the queue of those that are looked after.
    watched: bool,
    /// In the queue of those whose windows count, and when something came last.
    in_use: bool,
    used_at: Moment,
}

/// How far a flow may be written ahead of its receiver.
#[derive(Clone, Copy)]
struct Ahead {
    /// Bytes that may be ready for carriers, beside others that have much to send.
    unsent_max: u64,
    keeping: Keeping,
}

impl Flow {
    /// Bytes that may be written: within the receiver's credit, and not far ahead of what carriers
    /// take, so that a slow path is felt where the bytes come from.
    fn room(&self, ahead: Ahead) -> usize {
        let unsent = ahead.unsent_max.saturating_sub(self.send.unsent());
        let kept = self.send.kept();
        let more = ahead.keeping.most(kept).saturating_sub(kept);
        self.send.room().min(unsent.min(more) as usize)
    }

    /// Says that there is room, if somebody waits for it.
    fn unblock(&mut self, ahead: Ahead, id: FlowId, outlet: &mut impl Outlet) {
        if self.blocked && self.room(ahead) > 0 && self.send.unsent() <= ahead.unsent_max / 2 {
            self.blocked = false;
            outlet.event(Event::Writable(id));
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    flows: BTreeMap<FlowId, Flow>,
    /// How many flows this side has opened.
    opened_here: u64,
    /// One more than the highest that the other side has opened, and those below that did not come.
    opened_there: u64,
    missing: BTreeSet<u64>,
    carriers: Vec<Carrier>,
    resetting: BTreeMap<FlowId, Resetting>,
    /// Resets that are to be said, or said again; some of them may have been answered meanwhile.
    resets_unsent: VecDeque<FlowId>,
    dones: VecDeque<FlowId>,
    /// Flows with something to acknowledge, and when it is due.
    acks: VecDeque<(FlowId, Moment)>,
    /// Bytes that came since all there was to acknowledge was said.
    unacked: u64,
    /// Flows that wait to hear of what they sent, and when they are looked after.
    watched: VecDeque<(FlowId, Moment)>,
    /// Records in a row that the flow with much to send has filled whose turn it is.
    turn: u32,
    /// Flows with something to send: those with little, and those with much.
    ready: [VecDeque<FlowId>; 2],
    /// Records since bulk went first.
    since_bulk: u32,
    order: u64,
    /// Flows with grown windows that were used, and when to see whether they still are.
    in_use: VecDeque<(FlowId, Moment)>,
    pub(crate) account: Account,
    messages: Messages,
    /// Memory of streams that waits to be used again.
    spare: Blocks,
    /// What the present record or packet says, for when it is lost.
    saying: Vec<Said>,
    /// What the next packet is to say of new keys.
    exchange: Option<Exchange>,
    /// Packets say nothing of flows but what they lost: records do.
    by_records: bool,
    pub(crate) sabotage: Sabotage,
}

/// A flow with no more than this to send goes before those with more.
const LITTLE: u64 = 16 * 1024;
/// Nor does one with more than this on its way.
const UNDER_WAY: u64 = 64 * 1024;
/// Of so many records one has bulk first, so that chatter does not starve it.
const BULK_EVERY: u32 = 8;
/// Records in a row, or packets, that a flow with much to send fills: what comes together is handed
/// over together. A record is about a millisecond of its carrier's time, a packet less.
const TURN_RECORDS: u32 = 4;
/// An acknowledgement waits at most this long for something to travel with.
const ACK_DELAY: Span = Span::from_ms(5);
/// Bytes of a flow that are acknowledged at once, and those of all: what many bring together fills
/// a path as fast as what one brings.
const ACK_BYTES: u64 = 256 * 1024;
const ACK_BYTES_ALL: u64 = 512 * 1024;
/// Bytes that a flow keeps ready for carriers, at most; if many have much to send, together about
/// so many, but each at least so many. What is not in a cache any more when its time comes costs
/// twice.
const UNSENT_MAX: u64 = 512 * 1024;
const UNSENT_ALL: u64 = 4 * 1024 * 1024;
const UNSENT_MIN: u64 = 64 * 1024;
/// A flow that waits to hear of what it sent is looked after this often: the word may be lost, and
/// with it whoever would repeat it.
const WATCH_EVERY: Span = Span::from_ms(1000);
/// Numbers of flows that may be skipped, because pieces of flows overtake each other.
const FLOWS_SKIPPED_MAX: u64 = 65_536;
/// Answers about flows that are over, at once. More are left out: who still wants to know asks
/// again.
const DONES_MAX: usize = 4096;
/// A stream's first piece is stuck if one sent this much later has arrived, at least.
const STUCK_MIN: Span = Span::from_ms(20);
/// Resets that the other agent has not answered, beyond two for each flow that may be open: who
/// opens more all the same does not listen.
const RESETS_UNHEARD_MAX: usize = 1024;
/// Records and packets have room for this, at least.
const ROOM_MIN: usize = 1024;
/// Carriers of a session.
pub(crate) const CARRIERS_MAX: usize = 256;

impl Session {
    /// A session without carriers and flows.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            flows: BTreeMap::new(),
            opened_here: 0,
            opened_there: 0,
            missing: BTreeSet::new(),
            carriers: Vec::new(),
            resetting: BTreeMap::new(),
            resets_unsent: VecDeque::new(),
            dones: VecDeque::new(),
            acks: VecDeque::new(),
            unacked: 0,
            watched: VecDeque::new(),
            turn: 0,
            ready: [VecDeque::new(), VecDeque::new()],
            since_bulk: 0,
            order: 0,
            in_use: VecDeque::new(),
            account: Account::new(settings.memory),
            messages: Messages::default(),
            spare: Blocks::default(),
            saying: Vec::new(),
            exchange: None,
            by_records: false,
            sabotage: Sabotage::default(),
        }
    }

    // ---- Carriers.

    /// A carrier works. Returns its place.
    ///
    /// # Panics
    /// If there are more than 256.
    pub fn carrier_up(&mut self, now: Moment) -> CarrierSlot {
        self.add_carrier(Carrier::new(now, true))
    }

    /// A carrier is there, of which it is not known whether the other agent takes it: it is asked,
    /// and carries nothing before something came by it.
    ///
    /// # Panics
    /// If there are more than 256.
    pub fn carrier_on_trial(&mut self, now: Moment) -> CarrierSlot {
        self.add_carrier(Carrier::new(now, false))
    }

    fn add_carrier(&mut self, carrier: Carrier) -> CarrierSlot {
        let free = self.carriers.iter().position(|carrier| !carrier.up);
        let at = free.unwrap_or(self.carriers.len());
        assert!(at < CARRIERS_MAX, "the pool opens far fewer");
        if at == self.carriers.len() {
            self.carriers.push(carrier);
        } else {
            self.carriers[at] = carrier;
        }
        CarrierSlot(at as u16)
    }

    /// A carrier is gone, whatever the reason. All that may have been lost with it goes again.
    pub fn carrier_down(&mut self, now: Moment, slot: CarrierSlot) {
        let carrier = &mut self.carriers[usize::from(slot.0)];
        if core::mem::take(&mut carrier.up) {
            self.doubt(now, slot);
            self.carriers[usize::from(slot.0)].flying = 0;
        }
    }

    /// What went by this carrier may not have arrived (X1).
    fn doubt(&mut self, now: Moment, slot: CarrierSlot) {
        let (mut lost, sabotage) = (self.doubt_packets(now, slot), self.sabotage);
        let again = |_: &&FlowId| !sabotage.breaks(Rule::LostGoesAgain);
        let ids: Vec<FlowId> = self.flows.keys().filter(again).copied().collect();
        for id in ids {
            let flow = self.flows.get_mut(&id).expect("nothing is removed meanwhile");
            let bytes = flow.send.lose(slot);
            lost += bytes;
            if bytes > 0 {
                self.queue(id);
            }
            let heard = self.flows[&id].recv.delivered() > 0 || self.flows[&id].recv.has_gap();
            if heard && !self.sabotage.breaks(Rule::AcksRepeated) {
                self.queue_ack(id, now);
            }
        }
        for (id, reset) in self.resetting.iter_mut() {
            if core::mem::take(&mut reset.sent) && !sabotage.breaks(Rule::ResetsRepeated) {
                self.resets_unsent.push_back(*id);
            }
        }
        let carrier = &mut self.carriers[usize::from(slot.0)];
        carrier.resent += lost;
        carrier.flying -= lost.min(carrier.flying);
    }

    /// Puts nothing new on a carrier, and says so to the other agent once nothing of it is missing.
    pub fn retire(&mut self, slot: CarrierSlot) {
        self.carriers[usize::from(slot.0)].leaving = true;
    }

    /// What is known of a carrier; `None` for one that is not up.
    pub fn carrier(&self, slot: CarrierSlot) -> Option<CarrierReport> {
        let carrier = self.carriers.get(usize::from(slot.0)).filter(|carrier| carrier.up)?;
        Some(CarrierReport {
            rtt: carrier.rtt(),
            rtt_min: carrier.rtt_min(),
            flying: carrier.flying,
            sent: carrier.sent,
            resent: carrier.resent,
            suspect: carrier.suspect,
            usable: carrier.is_usable(),
            has_window: carrier.has_window(),
            proved: carrier.proved,
            left: carrier.left,
        })
    }

    /// There is more to send than carriers take now.
    pub fn note_full(&mut self) {
        self.carriers.iter_mut().for_each(Carrier::note_full);
    }

    /// Whether what the kernel knows of a carrier's path would tell something now.
    pub fn asks_for_path(&self, now: Moment, slot: CarrierSlot) -> bool {
        self.carriers.get(usize::from(slot.0)).is_some_and(|one| one.asks_for_path(now))
    }

    /// The kernel says this of a carrier's path: the round trip of segments, and how many were sent
    /// again so far, modulo 2^32.
    pub fn note_path(&mut self, now: Moment, slot: CarrierSlot, rtt: Span, resent: u32) {
        self.carriers[usize::from(slot.0)].note_path(now, rtt, resent);
    }

    // ---- Flows.

    /// Opens a flow.
    ///
    /// # Errors
    /// [`FlowsFull`].
    pub fn open(&mut self, now: Moment) -> Result<FlowId, FlowsFull> {
        // Those that are reset count until the other agent has heard of it.
        let beside = self.resetting.len() + self.account.flows_beside();
        if self.flows.len() + beside >= self.settings.flows_max {
            return Err(FlowsFull);
        }
        let odd = u64::from(self.settings.role == Role::Responder);
        let id = FlowId(self.opened_here * 2 + odd);
        self.opened_here += 1;
        self.insert(now, id);
        Ok(id)
    }

    fn insert(&mut self, now: Moment, id: FlowId) {
        let (first, sabotage) = (self.settings.window_first, self.sabotage);
        let (send, recv) =
            (SendStream::new(first, sabotage), RecvStream::new(now, first, sabotage));
        let flow = Flow {
            send,
            recv,
            queued: false,
            ack_queued: false,
            blocked: false,
            watched: false,
            in_use: false,
            used_at: now,
        };
        self.account.change(Held::default(), flow.held(first));
        self.flows.insert(id, flow);
    }

    /// Writes to a flow's stream and returns how many bytes were taken. If not all,
    /// [`Event::Writable`] follows. A flow that is over takes all, for nobody.
    ///
    /// # Panics
    /// After [`Self::finish`].
    pub fn write(&mut self, id: FlowId, bytes: &[u8]) -> usize {
        let ahead = self.ahead();
        let Some(flow) = self.flows.get_mut(&id) else { return bytes.len() };
        let taken = flow.room(ahead).min(bytes.len());
        flow.blocked |= taken < bytes.len();
        flow.send.write(&bytes[..taken], &mut self.spare);
        self.account.held.kept += taken as u64;
        self.queue(id);
        taken
    }

    /// Writes all to a flow's stream: bytes that are here already and can wait nowhere else.
    /// Returns whether there is still room; if not, who reads for it stops until
    /// [`Event::Writable`]. So it is the reader's habits that bound what comes on top.
    ///
    /// # Panics
    /// After [`Self::finish`].
    pub fn push(&mut self, id: FlowId, bytes: &[u8]) -> bool {
        let Some(flow) = self.flows.get_mut(&id) else { return true };
        flow.send.write(bytes, &mut self.spare);
        self.account.held.kept += bytes.len() as u64;
        let ahead = self.ahead();
        let flow = self.flows.get_mut(&id).expect("it was just there");
        let room = flow.room(ahead) > 0;
        flow.blocked |= !room;
        self.queue(id);
        room
    }

    /// How many bytes a flow takes now.
    pub fn room(&self, id: FlowId) -> usize {
        self.flows.get(&id).map_or(usize::MAX, |flow| flow.room(self.ahead()))
    }

    fn ahead(&self) -> Ahead {
        let others = self.ready[1].len() as u64;
        let unsent_max = (UNSENT_ALL / (1 + others)).clamp(UNSENT_MIN, UNSENT_MAX);
        Ahead { unsent_max, keeping: self.account.keeping() }
    }

    /// Ends a flow's stream: nothing more will be written.
    pub fn finish(&mut self, id: FlowId) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.send.finish();
            self.queue(id);
        }
    }

    /// Bytes that are held of what came, with what holding them costs.
    pub fn held(&self) -> u64 {
        self.account.held.bytes
    }

    /// Pieces that were refused, because there was no room for them.
    pub fn refused(&self) -> u64 {
        self.account.refused
    }

    fn rtt_min(&self) -> Span {
        rtt_min(&self.carriers)
    }

    /// What is known of a flow; `None` for one that is over.
    pub fn flow(&self, id: FlowId) -> Option<FlowReport> {
        let flow = self.flows.get(&id)?;
        Some(FlowReport {
            resent: flow.send.resent(),
            rtt: crate::carrier::rtt_by(&self.carriers, flow.send.carriers()),
            kept: flow.send.kept(),
            unsent: flow.send.unsent(),
            flying: flow.send.flying(),
            early: flow.recv.early_bytes(),
            delivered: flow.recv.delivered(),
            window: flow.recv.window(),
            out_of_credit: flow.send.is_out_of_credit(),
        })
    }

    /// Whether there is nothing that the other agent has still to hear of, but for answers to
    /// pings.
    pub fn is_quiet(&self) -> bool {
        self.flows.is_empty() && self.resetting.is_empty() && self.dones.is_empty()
    }

    /// How many flows are open.
    pub fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// The flows that are open.
    pub fn flows(&self) -> impl Iterator<Item = FlowId> + '_ {
        self.flows.keys().copied()
    }

    // ---- What arrives.

    /// A record's text came by a carrier.
    ///
    /// # Errors
    /// [`Violation`]: the session is to be given up.
    pub fn received(
        &mut self,
        now: Moment,
        slot: CarrierSlot,
        text: &[u8],
        outlet: &mut impl Outlet,
    ) -> Result<(), Violation> {
        if self.carriers[usize::from(slot.0)].heard(now) {
            outlet.event(Event::Recovered(slot));
        }
        self.frames(now, slot, text, outlet)?;
        Ok(())
    }

    /// Reads a text. Returns whether who sent it wants to hear that it came.
    fn frames(
        &mut self,
        now: Moment,
        slot: CarrierSlot,
        text: &[u8],
        outlet: &mut impl Outlet,
    ) -> Result<bool, Violation> {
        let mut frames = Frames::new(self.sabotage.known(text)?);
        let mut asks = false;
        while let Some(frame) = frames.next().map_err(|_| Violation::Malformed)? {
            let carrier = &mut self.carriers[usize::from(slot.0)];
            asks |= !matches!(frame, Frame::Report(_));
            match frame {
                Frame::Ping { token } => carrier.pong = Some(token),
                Frame::Pong { token } => {
                    if carrier.answered(now, token) {
                        outlet.event(Event::Recovered(slot));
                    }
                }
                Frame::Leave => {
                    carrier.leaving = true;
                    outlet.event(Event::Left(slot));
                }
                Frame::Rekey(exchange) => outlet.rekey(exchange),
                Frame::Keys { epoch } => outlet.keys(epoch),
                Frame::Reset { flow, code } => self.reset_there(flow, code, outlet)?,
                Frame::Done { flow } => self.done_there(flow, outlet),
                Frame::Ack { flow, ack } => self.acked(now, flow, ack, outlet)?,
                Frame::Stream { flow, offset, bytes, fin } => {
                    self.stream(now, flow, (offset, bytes, fin), outlet)?;
                }
                Frame::Wanted { floor, wait } => {
                    let packets = carrier.packets.as_mut().ok_or(Violation::Malformed)?;
                    packets.wanted(floor, Span(wait));
                }
                Frame::Report(report) => {
                    self.reported(now, slot, &report)?;
                    if self.carriers[usize::from(slot.0)].reported(now) {
                        outlet.event(Event::Recovered(slot));
                    }
                }
                Frame::Datagram { channel, bytes } => {
                    self.messages.note_came();
                    outlet.datagram(channel, bytes);
                }
            }
        }
        Ok(asks)
    }

    fn is_ours(&self, id: FlowId) -> bool {
        (id.0 % 2 == 1) == (self.settings.role == Role::Responder)
    }

    /// Whether a flow of the other side is to be made. It is noted as having come.
    fn is_new(&mut self, id: FlowId) -> Result<bool, Violation> {
        let number = id.0 / 2;
        if self.is_ours(id) {
            let was_opened = number < self.opened_here;
            return if was_opened { Ok(false) } else { Err(Violation::FlowFromNowhere(id)) };
        }
        if number < self.opened_there {
            if self.sabotage.breaks(Rule::NumbersOnce) {
                return Ok(true);
            }
            return Ok(self.missing.remove(&number));
        }
        let skipped = number - self.opened_there + self.missing.len() as u64;
        if skipped > FLOWS_SKIPPED_MAX {
            return Err(Violation::FlowFromNowhere(id));
        }
        self.missing.extend(self.opened_there..number);
        self.opened_there = number + 1;
        Ok(true)
    }

    fn acked(
        &mut self,
        now: Moment,
        id: FlowId,
        ack: Ack<'_>,
        outlet: &mut impl Outlet,
    ) -> Result<(), Violation> {
        let Some(flow) = self.flows.get_mut(&id) else {
            if self.is_new(id)? {
                return Err(Violation::AckOfNothing(id));
            }
            return Ok(());
        };
        let base = self.carriers.iter().filter_map(Carrier::base).min();
        let carriers = &mut self.carriers;
        let arrived = |segment: Segment| {
            let carrier = &mut carriers[usize::from(segment.carrier.0)];
            carrier.arrived(now, segment.end - segment.start, now.since(segment.at), base);
        };
        let kept = flow.send.kept();
        if !flow.send.acked(ack, &mut self.spare, arrived) {
            return Err(Violation::AckOfNothing(id));
        }
        self.account.held.kept -= kept - flow.send.kept();
        let ahead = self.ahead();
        let flow = self.flows.get_mut(&id).expect("it was just there");
        flow.unblock(ahead, id, outlet);
        self.free_stuck(now, id);
        self.queue(id);
        self.close_if_done(id, outlet);
        Ok(())
    }

    /// A stream whose first piece waits on a slow carrier while later ones arrive by others sends
    /// it again by one of those. One that was refused goes again in the same way.
    fn free_stuck(&mut self, now: Moment, id: FlowId) {
        let patience = Span(4 * self.rtt_min().0).max(STUCK_MIN);
        let flow = self.flows.get_mut(&id).expect("the caller found it");
        while let Some(stuck) = flow.send.lose_stuck(now - patience) {
            let carrier = &mut self.carriers[usize::from(stuck.carrier.0)];
            let bytes = stuck.end - stuck.start;
            carrier.flying = carrier.flying.saturating_sub(bytes);
            carrier.resent += bytes;
        }
    }

    // ---- What is to be sent.

    fn queue(&mut self, id: FlowId) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if !flow.queued && flow.send.wants_any() {
            flow.queued = true;
            // One that has much on its way stays bulk to its last byte, which goes behind it.
            let under_way = flow.send.kept() - flow.send.unsent();
            let bulk = flow.send.unsent() > LITTLE || under_way > UNDER_WAY;
            self.ready[usize::from(bulk)].push_back(id);
        }
    }

    /// Notes that a flow has something to acknowledge, at `at` the latest.
    fn queue_ack(&mut self, id: FlowId, at: Moment) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        // One that is due sooner than all before it goes to the front. The delay is the same for
        // all others, so those are in order; one due now that comes behind another such waits for
        // nothing but that.
        let sooner = self.acks.front().is_none_or(|(_, first)| at < *first);
        if !flow.ack_queued || sooner {
            flow.ack_queued = true;
            if sooner { self.acks.push_front((id, at)) } else { self.acks.push_back((id, at)) }
        }
    }

    /// Whether [`Self::fill`] would put something into a record of this carrier now.
    pub fn wants(&self, now: Moment, slot: CarrierSlot) -> bool {
        let Some(carrier) = self.carriers.get(usize::from(slot.0)).filter(|one| one.up) else {
            return false;
        };
        self.wants_own(now, slot) || carrier.is_usable() && self.wants_any(now)
    }

    /// Whether there is something that any carrier could take.
    pub fn wants_any(&self, now: Moment) -> bool {
        self.has_little(now) || self.has_bulk()
    }

    /// Whether there is something that is not bulk.
    pub fn has_little(&self, now: Moment) -> bool {
        self.has_control(now) || !self.ready[0].is_empty()
    }

    /// Whether there is something to say that is no part of a stream.
    fn has_control(&self, now: Moment) -> bool {
        !self.resets_unsent.is_empty()
            || !self.dones.is_empty()
            || self.acks.front().is_some_and(|(_, due)| *due <= now)
            || self.messages.has_any(now)
    }

    /// Whether some stream has more than fits into a record or two.
    pub fn has_bulk(&self) -> bool {
        !self.ready[1].is_empty()
    }

    /// Puts up to `room` bytes into a record of this carrier: appends frames to `out`. Nothing is
    /// appended if there is nothing to say by it. `outlet` may hear of flows that are closed.
    ///
    /// # Panics
    /// If `room` is smaller than 1 KiB.
    pub fn fill(
        &mut self,
        now: Moment,
        slot: CarrierSlot,
        room: usize,
        out: &mut Vec<u8>,
        outlet: &mut impl Outlet,
    ) {
        self.fill_share(now, (slot, Share::All), room, (out, outlet));
    }

    /// The same with a part of what there is to say.
    ///
    /// # Panics
    /// If `room` is smaller than 1 KiB.
    pub fn fill_share(
        &mut self,
        now: Moment,
        (slot, share): (CarrierSlot, Share),
        room: usize,
        (out, outlet): (&mut Vec<u8>, &mut impl Outlet),
    ) {
        assert!(room >= ROOM_MIN, "a record holds any control frame");
        let end = out.len() + room;
        // A record is lost with its carrier alone, and then all is said again.
        self.saying.clear();
        let carrier = &mut self.carriers[usize::from(slot.0)];
        if !carrier.up {
            return;
        }
        if let Some(token) = carrier.pong.take() {
            Frame::Pong { token }.write(out);
        }
        if carrier.is_usable() {
            let (before, end) = (out.len(), end - PING_BYTES);
            if share != Share::Bulk {
                self.fill_control(now, out, end, outlet);
            }
            self.fill_streams(now, (slot, share), (out, end), outlet);
            if out.len() > before {
                self.carriers[usize::from(slot.0)].note_use();
            }
        }
        // Last, because it asks about what is in this record, too.
        self.fill_own(now, slot, out);
    }

    /// The next record of a carrier says something that is not the session's own: whether the
    /// carrier lives is asked all the same.
    pub(crate) fn note_use(&mut self, slot: CarrierSlot) {
        self.carriers[usize::from(slot.0)].note_use();
    }

    /// Whether [`Self::fill_own`] would put something into a record of this carrier now.
    pub fn wants_own(&self, now: Moment, slot: CarrierSlot) -> bool {
        let up = self.carriers.get(usize::from(slot.0)).filter(|one| one.up);
        let leaves = |one: &Carrier| one.wants_leave(self.sabotage);
        up.is_some_and(|one| one.pong.is_some() || one.wants_ping(now) || leaves(one))
    }

    /// Whether that would be a question, too. There is one without an answer at most.
    pub(crate) fn asks(&self, now: Moment, slot: CarrierSlot) -> bool {
        self.carriers.get(usize::from(slot.0)).is_some_and(|one| one.wants_ping(now))
    }

    /// A carrier of records is filled from now on with what says nothing, or no more. Carriers of
    /// packets go the same way, and what is seen there meanwhile is the work of filler.
    pub(crate) fn set_filler(&mut self, slot: CarrierSlot, filler: Option<Filler>) {
        let fills = filler.is_some();
        self.carriers[usize::from(slot.0)].filler = filler.map(Box::new);
        for packets in self.carriers.iter_mut().filter_map(|one| one.packets.as_mut()) {
            packets.set_beside(fills && !self.sabotage.breaks(Rule::FillerIsOurs));
        }
    }

    /// A carrier is given no more filler than it has.
    pub(crate) fn end_filler(&mut self, slot: CarrierSlot) {
        let carrier = self.carriers.get_mut(usize::from(slot.0));
        if let Some(filler) = carrier.and_then(|one| one.filler.as_deref_mut()) {
            filler.end();
        }
    }

    /// What filler has come to, on a carrier that is filled.
    pub(crate) fn filled(&self, slot: CarrierSlot) -> Option<Filled> {
        let carrier = self.carriers.get(usize::from(slot.0)).filter(|one| one.is_usable())?;
        carrier.filler.as_deref().map(Filler::filled)
    }

    /// Whether [`Self::fill_filler`] may put more on a carrier.
    pub(crate) fn may_fill(&self, slot: CarrierSlot) -> bool {
        let carrier = self.carriers.get(usize::from(slot.0)).filter(|one| one.is_usable());
        carrier.and_then(|one| one.filler.as_deref()).is_some_and(Filler::may_put)
    }

    /// Fills a record with nothing, and asks whether it came.
    pub(crate) fn fill_filler(
        &mut self,
        now: Moment,
        slot: CarrierSlot,
        room: usize,
        out: &mut Vec<u8>,
    ) {
        let carrier = &mut self.carriers[usize::from(slot.0)];
        let Some(filler) = carrier.filler.as_deref_mut() else { return };
        let start = out.len();
        write_pad(out, room.saturating_sub(PAD_HEAD_MAX + 2 * PING_BYTES));
        filler.put(out.len() - start);
        carrier.note_use();
        self.fill_own(now, slot, out);
    }

    /// What can go by this carrier alone: the answer to a ping, a ping, LEAVE. At most 22 bytes.
    pub fn fill_own(&mut self, now: Moment, slot: CarrierSlot, out: &mut Vec<u8>) {
        let carrier = &mut self.carriers[usize::from(slot.0)];
        if let Some(token) = carrier.pong.take() {
            Frame::Pong { token }.write(out);
        }
        if let Some(token) = carrier.ping(now) {
            Frame::Ping { token }.write(out);
        }
        if carrier.wants_leave(self.sabotage) {
            Frame::Leave.write(out);
            carrier.left = true;
        }
    }

    fn fill_control(
        &mut self,
        now: Moment,
        out: &mut Vec<u8>,
        end: usize,
        outlet: &mut impl Outlet,
    ) {
        let fits = |out: &Vec<u8>| end - out.len() >= CONTROL_FRAME_MAX;
        self.fill_resets(now, out, fits);
        while let Some(flow) = self.dones.pop_front_if(|_| fits(out)) {
            Frame::Done { flow }.write(out);
            self.saying.push(Said::Done(flow));
        }
        while let Some((id, _)) = self.acks.pop_front_if(|_| fits(out)) {
            let Some(flow) = self.flows.get_mut(&id).filter(|flow| flow.ack_queued) else {
                continue;
            };
            write_ack(out, id, flow.recv.ack(), flow.recv.early_ranges());
            flow.recv.note_acked();
            self.saying.push(Said::Ack(id));
            flow.ack_queued = false;
            self.close_if_done(id, outlet);
        }
        if self.acks.is_empty() {
            self.unacked = 0;
        }
        self.fill_datagrams(now, out, end);
    }

    fn fill_streams(
        &mut self,
        now: Moment,
        (slot, share): (CarrierSlot, Share),
        (out, end): (&mut Vec<u8>, usize),
        outlet: &mut impl Outlet,
    ) {
        // Those of packets are no way out while records carry the streams.
        let takes = |one: &&Carrier| one.is_usable() && !(self.by_records && one.packets.is_some());
        let usable = self.carriers.iter().filter(takes).count();
        // What a carrier of packets has lost it may well say again.
        let alone = usable < 2 || self.carriers[usize::from(slot.0)].packets.is_some();
        self.since_bulk += 1;
        let bulk_first = self.since_bulk >= BULK_EVERY && !self.ready[1].is_empty();
        let classes: &[usize] = match share {
            Share::All if bulk_first => &[1, 0],
            Share::All => &[0, 1],
            Share::Little => &[0],
            Share::Bulk => &[1],
        };
        for class in classes.iter().copied() {
            // Each once: what a flow leaves over for want of room ends the record anyway.
            for _ in 0..self.ready[class].len() {
                if end - out.len() <= STREAM_HEAD_MAX {
                    return;
                }
                let Some(id) = self.ready[class].pop_front() else { break };
                if class == 1 {
                    self.since_bulk = 0;
                }
                self.fill_stream(now, (slot, alone), id, (out, end));
                if class == 1 {
                    self.keep_turn(id, end - out.len() <= STREAM_HEAD_MAX);
                }
                let ahead = self.ahead();
                if let Some(flow) = self.flows.get_mut(&id) {
                    flow.unblock(ahead, id, outlet);
                }
            }
        }
    }

    /// A flow with much to send has put something into a record. If it filled that it goes on in
    /// the next one, until its turn is over.
    fn keep_turn(&mut self, id: FlowId, filled: bool) {
        let may = filled && self.turn + 1 < TURN_RECORDS;
        let goes_on = may && self.ready[1].pop_back_if(|last| *last == id).is_some();
        self.turn = if goes_on { self.turn + 1 } else { 0 };
        if goes_on {
            self.ready[1].push_front(id);
        }
    }

    fn fill_stream(
        &mut self,
        now: Moment,
        (slot, alone): (CarrierSlot, bool),
        id: FlowId,
        (out, end): (&mut Vec<u8>, usize),
    ) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.queued = false;
        let carrier = &mut self.carriers[usize::from(slot.0)];
        if carrier.packets.is_some() {
            self.fill_packet_stream(now, (slot, alone), id, (out, end));
            return;
        }
        while end - out.len() > STREAM_HEAD_MAX {
            self.order += 1;
            let by = Segment { start: 0, end: 0, carrier: slot, at: now, order: self.order };
            let room = end - out.len() - STREAM_HEAD_MAX;
            let Some(piece) = flow.send.take(room, by, alone) else { break };
            stream_head(out, id, piece.offset, (piece.len, piece.fin));
            flow.send.copy(piece, out);
            if self.sabotage.breaks(Rule::KeptUntilAcked) {
                let kept = flow.send.kept();
                flow.send.forget_flying();
                self.account.held.kept -= kept - flow.send.kept();
            }
            carrier.flying += piece.len as u64 + u64::from(piece.fin);
            carrier.sent += piece.len as u64;
            if !core::mem::replace(&mut flow.watched, true) {
                self.watched.push_back((id, now + WATCH_EVERY));
            }
        }
        self.queue(id);
    }
}

/// The shortest round trip of those that are used.
fn rtt_min(carriers: &[Carrier]) -> Span {
    let usable = carriers.iter().filter(|carrier| carrier.is_usable());
    usable.map(Carrier::rtt).min().unwrap_or(Span::ZERO)
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
