//! A session with a coordinator, without sockets, clocks or threads: input in, output out.
//!
//! The driver does what [`Output`] says, hands in what happens as [`Input`], writes what
//! [`Engine::transmit`] gives, and calls again at [`Engine::wake_at`]. Ops that callers put in
//! between two calls of `transmit` share frames, and up to [`FRAMES_MAX`] frames and [`OPS_MAX`]
//! ops are on their way at once: so calls batch and pipeline by themselves, and a lone one does not
//! wait for company.
//!
//! The hard case is a connection that breaks between an op and its reply. The frames of callers are
//! numbered by a [`lane`] of the session: the next connection sends them again as they were, and
//! the server answers what it has executed as it did then, and executes the rest. So each op is
//! done once. What the server has forgotten, and what a server without lanes was asked, is asked
//! anew if that is [safe](Repeat::Safe); the callers of the rest are told that nobody knows. What
//! the server had no time for (`BUSY`), as when a connection broke before the turn of an op came,
//! was not done: it is asked anew, too, after a pause. What the engine has to say itself is not
//! repeated: each machine asks anew for what it still needs.
//!
//! Invariants:
//! - E1  A session is valid until the moment of *sending* the last confirmed renewal, plus its
//!   lease, minus a margin. From then on it is over for good, whatever the server says later (R6).
//! - E2  What is over stays over: no input has any more effect than to be refused.
//! - E3  Each call, wait and watch is answered or ended exactly once.
//! - E4  One connection at a time; what is said of an earlier attempt has no effect.
//!
//! Bounds: [`calls::QUEUE_BYTES_MAX`] and [`calls::QUEUE_CALLS_MAX`] ([`Engine::has_room`]),
//! [`lane::FRAMES_REMEMBERED`] and [`lane::BYTES_REMEMBERED`] of replies while one is due that must
//! not be done twice, [`waits::WAITS_MAX`], [`watches::WATCHES_MAX`],
//! [`watches::SNAPSHOT_NAMES_MAX`],
//! [`OUTGOING_BYTES_MAX`] of calls that are encoded but not written. Notices are not kept here.
//! Not here: sockets and threads (`session`), what replies mean to callers (`verbs`).
//! Tests: stories in `engine/tests.rs`, over a server of the same virtual time.

pub mod calls;
pub mod lane;
mod lease;
mod orders;
mod terms;
pub mod waits;
pub mod watches;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use ringway_coord_proto::wire::{FRAME_HEADER_BYTES, OP_HEADER_BYTES, Reply};
use ringway_core::limits::FRAME_OPS_MAX;
use ringway_core::{Moment, Secret, SessionId, Span};

use self::calls::Calls;
pub use self::calls::{Answer, Batch, Repeat};
use self::lane::{Cost, Frame, Lane, Room, Standing};
use self::lease::{Lease, Parts, Pauses};
use self::orders::{Asker, Orders};
pub use self::terms::{
    Attempt, CallId, Event, Fault, Input, LinkFault, Output, Over, Settings, WaitFault, WaitId,
    WatcherId,
};
pub use self::waits::WaitRequest;
use self::waits::{Around, Waits};
use self::watches::Watches;
pub use self::watches::{WatchEnd, WatchItem, WatchRequest};
use crate::blocking::Credentials;
use crate::core::{Core, Event as CoreEvent, Replies};
use crate::error::{Refusal, StreamError};
use crate::notice::Notice;
use crate::op::{Op, OpenRequest, Resume};
use crate::reply::{Opened, data_of, plain_result, read_laned, read_opened};

/// Frames that wait for their replies at once.
pub const FRAMES_MAX: usize = 16;
/// Ops of callers that wait for their replies at once. A renewal is answered behind them, and a
/// lease must not run out because a few processes ask for much at the same time.
pub const OPS_MAX: usize = 4 * FRAME_OPS_MAX;
/// Bytes that are encoded but not written beyond which no more calls are encoded.
pub const OUTGOING_BYTES_MAX: usize = 512 * 1024;
/// The longest silence while an answer is due, and the shortest.
const PATIENCE: (Span, Span) = (Span::from_ms(20), Span::from_s(5));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// The next attempt is due at this moment.
    Down(Moment),
    Connecting(Moment),
    /// Connected: preface, AUTH and OPEN.
    Greeting(Moment),
    Up,
}

#[derive(Debug)]
struct Ours {
    session: SessionId,
    secret: Secret,
    lease: Lease,
}

/// Whose replies a frame brings.
#[derive(Debug)]
enum Flight {
    Orders { sent: Moment, askers: Vec<Asker>, cost: Cost },
    Calls { sent: Moment, frame: Frame },
}

/// The session.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    patience: Span,
    pauses: Pauses,
    last_step: Moment,
    open_by: Moment,
    attempt: Attempt,
    address: usize,
    link: Link,
    fault: LinkFault,
    /// Until then an attempt that was given up may still resume the session.
    late_until: Moment,
    core: Option<Core>,
    flights: VecDeque<Flight>,
    lane: Lane,
    last_heard: Moment,
    ours: Option<Ours>,
    orders: Orders,
    calls: Calls,
    waits: Waits,
    watches: Watches,
    body: Vec<u8>,
    closing: bool,
    over: Option<Over>,
}

impl Engine {
    /// A session that is to be opened, from `now` on.
    ///
    /// # Panics
    /// If there is no address.
    pub fn new(now: Moment, settings: Settings) -> Engine {
        assert!(settings.addresses > 0, "a session needs an address to connect to");
        let lease = span(settings.lease);
        Engine {
            patience: patience(lease),
            pauses: Pauses::new(settings.seed, lease, settings.addresses),
            last_step: now,
            open_by: now + span(settings.open_within),
            attempt: Attempt(0),
            address: 0,
            link: Link::Down(now),
            fault: LinkFault::Untried,
            late_until: now,
            core: None,
            flights: VecDeque::new(),
            lane: Lane::default(),
            last_heard: now,
            ours: None,
            orders: Orders::default(),
            calls: Calls::new(span(settings.busy_within), settings.seed),
            waits: Waits::default(),
            watches: Watches::default(),
            body: Vec::new(),
            closing: false,
            over: None,
            settings,
        }
    }

    /// Something happens.
    ///
    /// # Panics
    /// If `now` is before that of an earlier step.
    pub fn step(&mut self, now: Moment, input: Input<'_>, out: &mut Vec<Output>) {
        assert!(self.last_step <= now, "the driver's clock ran backwards");
        self.last_step = now;
        self.pass_time(now, out);
        if let Some(over) = self.over {
            return refuse(over, input, out);
        }
        match input {
            Input::Tick => {}
            Input::Connected(attempt) if self.is_present(attempt) => self.greet(now),
            Input::Broken(attempt, fault) if self.is_present(attempt) => {
                self.break_link(now, fault, out);
            }
            Input::Connected(_) | Input::Broken(..) => {}
            Input::Received(bytes) => self.receive(now, bytes, out),
            input if self.closing => refuse(Over::Closed, input, out),
            Input::Call { id, ops, repeat } => self.calls.push(id, ops, repeat, out),
            Input::Wait(id, request) => self.with_waits(now, out, |waits, around| {
                waits.start(id, request, around);
            }),
            Input::CancelWait(id) => self.with_waits(now, out, |waits, around| {
                waits.cancel(id, around);
            }),
            Input::Unlock(id) => self.with_waits(now, out, |waits, around| {
                waits.unlock(id, around);
            }),
            Input::Watch(id, request) => self.with_watches(now, out, |watches, around| {
                watches.start(id, request, around);
            }),
            Input::WatchAgain(id) => self.with_watches(now, out, |watches, around| {
                watches.again(id, around);
            }),
            Input::Unwatch(id) => self.with_watches(now, out, |watches, around| {
                watches.stop(id, around);
            }),
            Input::Close => self.close(out),
        }
    }

    /// When the next step is due, if nothing else happens before; `None` when the session is over.
    pub fn wake_at(&self) -> Option<Moment> {
        if self.over.is_some() {
            return None;
        }
        let link = match self.link {
            Link::Down(at) => Some(at),
            Link::Connecting(since) | Link::Greeting(since) => Some(since + self.patience),
            Link::Up => self.silent_at(),
        };
        let session = match &self.ours {
            Some(ours) => ours.lease.wake_at(self.link == Link::Up),
            None => self.open_by,
        };
        let callers = [self.calls.wake_at(), self.waits.wake_at(), self.watches.wake_at()];
        callers.into_iter().chain([link, Some(session)]).flatten().min()
    }

    /// Whether another call may be put in; what is put in nevertheless is taken, beyond the bound.
    pub fn has_room(&self) -> bool {
        self.calls.has_room()
    }

    /// Why the session is over, once it is.
    pub fn over(&self) -> Option<Over> {
        self.over
    }

    /// The session, once it is open.
    pub fn session(&self) -> Option<SessionId> {
        self.ours.as_ref().map(|ours| ours.session)
    }

    /// What is to be written to the connection. `now` counts as the moment of sending.
    pub fn transmit(&mut self, now: Moment) -> &[u8] {
        let Some(mut core) = self.core.take() else { return &[] };
        if self.link == Link::Up {
            self.order_upkeep(now);
        }
        if self.repeat_calls(now, &mut core) {
            self.send_orders(now, &mut core);
            if self.link == Link::Up {
                self.send_calls(now, &mut core);
            }
        }
        self.core.insert(core).outgoing()
    }

    /// Sends what the connection before left without replies; whether that is all (N2).
    fn repeat_calls(&mut self, now: Moment, core: &mut Core) -> bool {
        if self.lane.standing != Standing::Open {
            return true;
        }
        while core.outgoing().len() < OUTGOING_BYTES_MAX
            && let Some(frame) = self.lane.again.pop_front()
        {
            self.body.clear();
            self.calls.fill(&mut self.body, &mut Room::again(frame.count));
            core.number_from(frame.sequence);
            core.submit_encoded(&self.body, frame.count);
            self.flights.push_back(Flight::Calls { sent: now, frame });
        }
        self.lane.again.is_empty()
    }

    fn send_orders(&mut self, now: Moment, core: &mut Core) {
        while !self.orders.is_empty()
            && let Some(mut room) = self.room(core)
        {
            let mut askers = Vec::new();
            self.body.clear();
            self.orders.fill(&mut self.body, &mut askers, &mut room);
            if askers.is_empty() {
                return;
            }
            self.submit(core, askers.len() as u16);
            self.flights.push_back(Flight::Orders { sent: now, askers, cost: room.cost() });
        }
    }

    fn send_calls(&mut self, now: Moment, core: &mut Core) {
        while self.calls.has_unsent()
            && self.flights.len() < FRAMES_MAX
            && core.outgoing().len() < OUTGOING_BYTES_MAX
            && self.ops_in_flight() + FRAME_OPS_MAX <= OPS_MAX
            && let Some(mut room) = self.room(core)
        {
            self.body.clear();
            let count = self.calls.fill(&mut self.body, &mut room);
            if count == 0 {
                return;
            }
            let sequence = self.submit(core, count);
            let frame = room.frame(sequence, count);
            self.flights.push_back(Flight::Calls { sent: now, frame });
        }
    }

    fn ops_in_flight(&self) -> usize {
        let ops = |flight: &Flight| match flight {
            Flight::Calls { frame, .. } => usize::from(frame.count),
            Flight::Orders { .. } => 0,
        };
        self.flights.iter().map(ops).sum()
    }

    fn room(&self, core: &Core) -> Option<Room> {
        let bytes = core.frame_bytes_max() - FRAME_HEADER_BYTES;
        Room::behind(&self.flights, bytes, FRAME_OPS_MAX as u16)
    }

    /// The body becomes a frame, by the lane's next number if there is a lane.
    fn submit(&mut self, core: &mut Core, count: u16) -> u64 {
        if self.lane.standing == Standing::Open {
            core.number_from(self.lane.next);
            self.lane.next += 1;
        }
        core.submit_encoded(&self.body, count).sequence
    }

    /// So much of it has been written.
    pub fn sent(&mut self, bytes: usize) {
        if let Some(core) = &mut self.core {
            core.sent(bytes);
        }
    }

    fn order_upkeep(&mut self, now: Moment) {
        if let Some(ours) = &mut self.ours
            && ours.lease.take_due(now)
        {
            self.orders.push(Asker::Renew(now), &Op::Renew(None));
        }
        if self.closing && self.calls.is_empty() && self.flights.is_empty() {
            self.orders.push(Asker::Close, &Op::Close(None));
        }
    }

    fn pass_time(&mut self, now: Moment, out: &mut Vec<Output>) {
        if self.over.is_some() {
            return;
        }
        match &mut self.ours {
            Some(ours) if ours.lease.valid_until() <= now => {
                return self.end(Over::Expired, out);
            }
            Some(ours) => {
                if let Some(left) = ours.lease.take_at_risk(now) {
                    let left = Duration::from_nanos(left.0);
                    out.push(Output::Event(Event::AtRisk { left }));
                }
            }
            None if self.open_by <= now => {
                return self.end(Over::Unreachable(self.fault), out);
            }
            None => {}
        }
        self.calls.pass_time(now);
        self.with_waits(now, out, Waits::pass_time);
        self.with_watches(now, out, Watches::pass_time);
        match self.link {
            Link::Down(at) if at <= now => {
                self.attempt = Attempt(self.attempt.0 + 1);
                self.link = Link::Connecting(now);
                out.push(Output::Connect(self.attempt, self.address));
            }
            Link::Connecting(since) | Link::Greeting(since) if since + self.patience <= now => {
                self.break_link(now, LinkFault::Silent, out);
            }
            Link::Up if self.silent_at().is_some_and(|at| at <= now) => {
                self.break_link(now, LinkFault::Silent, out);
            }
            Link::Down(_) | Link::Connecting(_) | Link::Greeting(_) | Link::Up => {}
        }
    }

    /// When to give the connection up, while an answer is due.
    fn silent_at(&self) -> Option<Moment> {
        let sent = match self.flights.front()? {
            Flight::Orders { sent, .. } | Flight::Calls { sent, .. } => *sent,
        };
        Some(sent.max(self.last_heard) + self.patience)
    }

    fn is_present(&self, attempt: Attempt) -> bool {
        attempt == self.attempt && !matches!(self.link, Link::Down(_))
    }

    fn greet(&mut self, now: Moment) {
        self.core = Some(Core::new());
        self.link = Link::Greeting(now);
        self.last_heard = now;
        match &self.settings.credentials {
            None => self.order_open(now),
            Some(Credentials { user, password }) => {
                let op = Op::Auth { user: user.as_bytes(), password: password.as_bytes() };
                self.orders.push_always(Asker::Auth, &op);
            }
        }
    }

    fn order_open(&mut self, now: Moment) {
        let resume = self.ours.as_ref().map_or(Resume::Fresh, |ours| Resume::With(ours.secret));
        let request = OpenRequest {
            lease: self.settings.lease,
            resume,
            address: &self.settings.address,
            metadata: &self.settings.metadata,
            ..OpenRequest::new(self.settings.node)
        };
        self.orders.push_always(Asker::Open(now), &Op::Open(request));
        // It is executed behind OPEN; without a session it is refused like that.
        self.orders.push_always(Asker::Lane, &Op::Lane(lane::NUMBER));
    }

    fn receive(&mut self, now: Moment, bytes: &[u8], out: &mut Vec<Output>) {
        // While it is out of its place nothing can break the connection but this loop's own end.
        let Some(mut core) = self.core.take() else { return };
        self.last_heard = now;
        core.receive(bytes);
        let attempt = self.attempt;
        let fault = loop {
            match core.poll() {
                Ok(None) => break None,
                Ok(Some(CoreEvent::Ready(preface))) => {
                    let most = preface.frame_bytes_max as usize;
                    if most < FRAME_HEADER_BYTES + OP_HEADER_BYTES + usize::from(u16::MAX) {
                        break Some(LinkFault::SmallFrames(most));
                    }
                }
                Ok(Some(CoreEvent::Reply(_, replies))) => self.on_replies(now, replies, out),
                Ok(Some(CoreEvent::Push(notices))) => {
                    notices.for_each(|notice| self.on_notice(now, notice, out));
                }
                Err(error) => break Some(LinkFault::Stream(error)),
            }
            if self.over.is_some() || !self.is_present(attempt) {
                return;
            }
        };
        self.core = Some(core);
        if let Some(fault) = fault {
            self.break_link(now, fault, out);
        }
    }

    fn on_replies(&mut self, now: Moment, mut replies: Replies<'_>, out: &mut Vec<Output>) {
        match self.flights.pop_front() {
            Some(Flight::Calls { frame, .. }) => {
                self.calls.answer(now, u32::from(frame.count), &mut replies, out);
            }
            Some(Flight::Orders { askers, .. }) => {
                let attempt = self.attempt;
                for (asker, reply) in askers.into_iter().zip(replies) {
                    self.on_reply(now, asker, reply, out);
                    if self.over.is_some() || !self.is_present(attempt) {
                        return;
                    }
                }
            }
            None => {}
        }
    }

    fn on_reply(&mut self, now: Moment, asker: Asker, reply: Reply<'_>, out: &mut Vec<Output>) {
        match asker {
            Asker::Auth => match plain_result(reply) {
                Ok(()) => self.order_open(now),
                Err(refusal) => self.not_authenticated(now, refusal, out),
            },
            Asker::Open(sent) => match data_of(reply, read_opened) {
                Ok(opened) => self.on_opened(now, sent, opened, out),
                Err(refusal) => self.not_opened(now, refusal, out),
            },
            Asker::Lane => self.on_laned(now, data_of(reply, read_laned), out),
            Asker::Renew(sent) => self.on_renewed(now, sent, reply, out),
            Asker::Close => self.end(Over::Closed, out),
            Asker::Wait(id) => self.with_waits(now, out, |waits, around| {
                waits.on_wait_reply(id, reply, around);
            }),
            Asker::Cancel(id) => self.with_waits(now, out, |waits, around| {
                waits.on_cancel_reply(id, reply, around);
            }),
            Asker::Unlock(id) => self.with_waits(now, out, |waits, around| {
                waits.on_unlock_reply(id, reply, around);
            }),
            Asker::Watch(id, wire) => self.with_watches(now, out, |watches, around| {
                watches.on_reply(id, wire, reply, around);
            }),
            Asker::Nobody => {}
        }
    }

    fn on_opened(&mut self, now: Moment, sent: Moment, opened: Opened, out: &mut Vec<Output>) {
        let settings = &self.settings;
        let parts = Parts {
            margin_per_mille: settings.margin_per_mille,
            at_risk_per_mille: settings.at_risk_per_mille,
        };
        let Opened { session, secret, lease, resumed, .. } = opened;
        let before = self.ours.take();
        if before.as_ref().is_some_and(|ours| !resumed || ours.session != session) {
            return self.end(Over::Gone(Refusal::NoSession), out);
        }
        let lease = Lease::new(sent, span(lease), parts);
        let at_risk = before.is_some_and(|mut ours| ours.lease.confirm(sent));
        out.push(Output::ValidUntil(lease.valid_until()));
        self.patience = patience(span(opened.lease));
        self.ours = Some(Ours { session, secret, lease });
        out.push(Output::Event(if resumed { Event::Resumed } else { Event::Opened(session) }));
        if at_risk {
            out.push(Output::Event(Event::Safe));
        }
        self.link = Link::Up;
        self.pauses.reset();
        self.orders.open();
        self.waits.set_session(session);
        self.with_waits(now, out, Waits::resumed);
        self.with_watches(now, out, Watches::resumed);
    }

    fn on_laned(&mut self, now: Moment, laned: Result<(u64, u64), Refusal>, out: &mut Vec<Output>) {
        match laned {
            Ok((last, _)) if self.lane.open(last) => self.calls.rewind(),
            Ok(_) => self.break_link(now, LinkFault::Stream(StreamError::Data("LANE")), out),
            Err(Refusal::UnknownOp) => {
                self.lane.standing = Standing::Without;
                self.lane.again.clear();
                self.calls.interrupted(out);
            }
            Err(refusal) => self.break_link(now, LinkFault::Refused(refusal), out),
        }
    }

    /// Who has something to lose tries again: credentials may be changed while a server reads them.
    fn not_authenticated(&mut self, now: Moment, refusal: Refusal, out: &mut Vec<Output>) {
        match &self.ours {
            None => self.end(Over::Refused(refusal), out),
            Some(_) => self.break_link(now, LinkFault::Refused(refusal), out),
        }
    }

    /// Whether to try again depends on what is said, and on whether there is something to lose.
    fn not_opened(&mut self, now: Moment, refusal: Refusal, out: &mut Vec<Output>) {
        let passing = matches!(refusal, Refusal::Busy | Refusal::Full | Refusal::Starting(_));
        let gone = matches!(refusal, Refusal::NoSession | Refusal::Refused);
        match &self.ours {
            Some(_) if gone => self.end(Over::Gone(refusal), out),
            None if !passing => self.end(Over::Refused(refusal), out),
            Some(_) | None => self.break_link(now, LinkFault::Refused(refusal), out),
        }
    }

    fn on_renewed(&mut self, now: Moment, sent: Moment, reply: Reply<'_>, out: &mut Vec<Output>) {
        let Some(ours) = &mut self.ours else { return };
        match plain_result(reply) {
            Ok(()) => {
                let at_risk = ours.lease.confirm(sent);
                out.push(Output::ValidUntil(ours.lease.valid_until()));
                if at_risk {
                    out.push(Output::Event(Event::Safe));
                }
            }
            Err(refusal @ Refusal::NoSession) => self.end(Over::Gone(refusal), out),
            Err(_) => ours.lease.put_off(now),
        }
    }

    fn on_notice(&mut self, now: Moment, notice: Notice, out: &mut Vec<Output>) {
        let ours = self.session();
        match notice {
            // The server tells of the end that we asked for before it answers: what was held is
            // free when it answers.
            Notice::SessionEnded { session, reason } if ours == Some(session) && !self.closing => {
                self.end(Over::Ended(reason), out);
            }
            // An attempt of our own was slow: the session is taken back from a dead connection.
            Notice::SessionMoved { session } if ours == Some(session) && now < self.late_until => {
                self.break_link(now, LinkFault::Superseded, out);
            }
            Notice::SessionMoved { session } if ours == Some(session) => {
                self.end(Over::Moved, out);
            }
            Notice::SessionEnded { .. } | Notice::SessionMoved { .. } => {}
            // Whoever has resumed the session has it, and we have heard so. A lane alone was taken
            // by an attempt of our own that was slow.
            Notice::LaneMoved { number: lane::NUMBER } => {
                self.break_link(now, LinkFault::Superseded, out);
            }
            Notice::LaneMoved { .. } => {}
            Notice::ProtocolError => {
                self.break_link(now, LinkFault::Stream(StreamError::Reported), out);
            }
            Notice::Granted { name, ticket, token, .. } => {
                self.with_waits(now, out, |waits, around| {
                    waits.on_granted(&name, ticket, token, around);
                });
            }
            Notice::WaitEnded { name, ticket, .. } => self.with_waits(now, out, |waits, around| {
                waits.on_wait_ended(&name, ticket, around);
            }),
            Notice::Received { name, token, from } => {
                out.push(Output::Event(Event::Received { name, token, from }));
            }
            Notice::Lost { name, token, to, reason } => {
                self.with_waits(now, out, |waits, around| waits.on_taken(&name, token, around));
                out.push(Output::Event(Event::Taken { name, token, to, reason }));
            }
            Notice::Message(message) => out.push(Output::Message(message)),
            Notice::Change { watch, change } => self.watches.on_change(watch, change, out),
            Notice::State { watch, owned, .. } => self.with_watches(now, out, |watches, around| {
                watches.on_state(watch, owned, around);
            }),
            Notice::SnapshotEnd(watch) => self.watches.on_snapshot_end(watch, out),
            Notice::Gap(watch) => self.watches.on_gap(watch),
            Notice::Unknown(_) => {}
        }
    }

    fn break_link(&mut self, now: Moment, fault: LinkFault, out: &mut Vec<Output>) {
        // The driver has let go by itself where it says so; once more does no harm.
        out.push(Output::Disconnect);
        let was_up = self.link == Link::Up;
        self.fault = fault;
        if matches!(self.link, Link::Greeting(_)) {
            self.late_until = now + Span(4 * self.patience.0);
        }
        self.core = None;
        self.orders.close();
        if self.closing {
            return self.end(Over::Closed, out);
        }
        if was_up {
            out.push(Output::Event(Event::Interrupted(fault)));
            if self.lane.standing == Standing::Without {
                self.flights.clear();
                self.calls.interrupted(out);
            }
            self.watches.interrupted(out);
        }
        self.lane.keep(&mut self.flights);
        self.lane.standing = Standing::Asked;
        if let Some(ours) = &mut self.ours {
            ours.lease.interrupted();
        }
        let mut pause = self.pauses.next();
        if let LinkFault::Refused(Refusal::Starting(wait)) = fault {
            pause = pause.max(span(wait));
        }
        self.address = (self.address + 1) % self.settings.addresses;
        self.link = Link::Down(now + pause);
    }

    fn close(&mut self, out: &mut Vec<Output>) {
        self.closing = true;
        if self.link != Link::Up {
            self.end(Over::Closed, out);
        }
    }

    fn end(&mut self, over: Over, out: &mut Vec<Output>) {
        self.over = Some(over);
        self.core = None;
        self.flights.clear();
        self.orders.close();
        out.push(Output::ValidUntil(Moment(0)));
        out.push(Output::Event(Event::Lost(over)));
        self.calls.end(over, out);
        self.waits.over(over, out);
        self.watches.over(over, out);
        out.push(Output::Disconnect);
    }

    fn with_waits(
        &mut self,
        now: Moment,
        out: &mut Vec<Output>,
        act: impl FnOnce(&mut Waits, &mut Around<'_>),
    ) {
        act(&mut self.waits, &mut Around { now, orders: &mut self.orders, out });
    }

    fn with_watches(
        &mut self,
        now: Moment,
        out: &mut Vec<Output>,
        act: impl FnOnce(&mut Watches, &mut Around<'_>),
    ) {
        act(&mut self.watches, &mut Around { now, orders: &mut self.orders, out });
    }
}

/// What comes after the end is refused (E2); what needs no answer is dropped.
fn refuse(over: Over, input: Input<'_>, out: &mut Vec<Output>) {
    let fault = Fault::Over(over);
    match input {
        Input::Call { id, .. } => out.push(Output::Answer { id, result: Err(fault) }),
        Input::Wait(id, _) => {
            out.push(Output::Wait { id, result: Err(WaitFault::Fault(fault)) });
        }
        Input::Watch(id, _) => {
            let item = WatchItem::Ended(WatchEnd::Fault(fault));
            out.push(Output::Watch { id, item });
        }
        Input::Tick | Input::Connected(_) | Input::Broken(..) | Input::Received(_) => {}
        Input::CancelWait(_) | Input::Unlock(_) | Input::Close => {}
        Input::WatchAgain(_) | Input::Unwatch(_) => {}
    }
}

/// How long an answer may take: a part of the lease, so that there is time to try elsewhere.
fn patience(lease: Span) -> Span {
    let (least, most) = PATIENCE;
    if lease == Span::ZERO { most } else { Span(lease.0 / 4).max(least).min(most) }
}

fn span(duration: Duration) -> Span {
    Span(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}
