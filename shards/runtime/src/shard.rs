//! The loop of one shard: one thread, one ring, one owner of everything here.
//!
//! A turn: submit and wait in one system call; reap; hand everything that arrived to the service;
//! deliver mail; let the service execute; then settle every connection that was touched (one send
//! each, arming, pausing, closing), publish the mail, and begin again. What the service asks for
//! during a turn takes effect when connections are settled, in the same turn.
//!
//! The life of a connection:
//!
//! ```text
//! open --(Now, Reset, error)-------------> dying --(nothing in flight)--> free
//!   |\--(AfterFlush, peer's end)--> flushing --> lingering --^               ^
//!   \--(given away)--> leaving --(nothing in flight)--> with another shard --/
//! ```
//!
//! The service hears `closed` when a connection leaves *open* or *flushing*; what follows is
//! between us and the kernel. Of one that it gave away it hears nothing more. A connection that we
//! begin is open at once, and *connecting* as well: its connect is what it has in flight, in the
//! place of a send.
//!
//! Always:
//! - S1  At most one send or connect, and one receive, per connection are in flight.
//! - S2  A connection is freed, or leaves for another shard, only when none is.
//! - S3  The shard sleeps only when nothing is to be done: no mail, no room for waiting mail, no
//!   quiet send whose end somebody waits for, no `again`.
//! - S4  While receive buffers are short, connections get one each, in the order in which they
//!   came to need one, and first those that did not fill the last one. Otherwise those that send
//!   most would take them all, turn after turn.
//!
//! Not here: who comes in (`doors.rs`), who leaves for good (`parting.rs`), UDP (`datagrams.rs`),
//! starting and stopping threads (`runtime.rs`), what bytes mean (the service).
//! Tests: `tests/` of this crate.

mod datagrams;
mod doors;
mod parting;

use std::net::Shutdown;
use std::sync::Arc;

use ringway_core::{Moment, ShardId, Span, limits};
use ringway_ring::{
    Buffers, Completion, Errno, Feature, Received, Ring, RingConfig, SendMode, Tag, Wait, host,
};

use crate::conns::{Flags, NO_SEND, side_of};
use crate::counters::{ShardCounters, duration_class};
use crate::drain::{Drain, StopState, Verdict};
use crate::io::IoState;
use crate::office::Incoming;
use crate::pair::{Each, Side};
use crate::service::{FLUSH_MAX, LINGER_MAX, Service};
use crate::spin::Spin;
use crate::timers::Due;

pub(crate) use doors::Door;

/// What a shard is made of; `runtime.rs` puts it together.
pub(crate) struct Parts {
    pub(crate) shard: ShardId,
    pub(crate) ring: Ring,
    pub(crate) ring_config: RingConfig,
    pub(crate) state: IoState,
    pub(crate) incoming: Incoming,
    pub(crate) doors: Vec<Door>,
    pub(crate) counters: Arc<ShardCounters>,
    pub(crate) stop: Arc<StopState>,
    pub(crate) drain_span: Span,
    pub(crate) spin: Spin,
    pub(crate) now: Moment,
}

/// One shard with its service. See the module.
pub(crate) struct Shard<S> {
    service: S,
    shard: ShardId,
    ring: Ring,
    /// Receives of connections that waited for a buffer that are begun in one turn.
    receives_per_turn: Each<usize>,
    /// Bytes of a receive buffer.
    buffer_bytes: Each<usize>,
    state: IoState,
    incoming: Incoming,
    doors: Vec<Door>,
    counters: Arc<ShardCounters>,
    stop: Arc<StopState>,
    drain_span: Span,
    drain: Drain,
    stop_told: bool,
    spin: Spin,
    /// Accepting pauses until a timer or a close.
    accept_paused: bool,
    /// The shortage that pauses it was logged.
    shortage_told: bool,
    completions: Vec<Completion>,
    sends_in_flight: usize,
    /// When the present turn began.
    now: Moment,
}

/// The most of a buffer that one patient send covers, so that the backlog of a slow reader is
/// known that exactly.
const PATIENT_BYTES_MAX: usize = limits::CONN_OUT_LOW;
/// The least that it covers of a larger one: it ends where the backlog falls below what the service
/// waits for, but not for a few bytes.
const PATIENT_BYTES_MIN: usize = 16 * 1024;
/// The most that one send tries at once.
const SEND_BYTES_MAX: usize = 1 << 30;
/// The tag of the shard's own bell.
const BELL: Tag = Tag(u32::MAX);
/// Those of a guest that is not there.
const NO_BUFFERS: Buffers = Buffers { count: 0, bytes: 0 };
/// Looks around between two looks at the clock while spinning.
const SPIN_LOOKS: u32 = 32;

impl<S: Service> Shard<S> {
    pub(crate) fn new(parts: Parts, service: S) -> Self {
        // Nothing is received on behalf of a side without buffers.
        let of = |side: Side| parts.ring_config.buffers_of(side.group());
        let buffers = Each(Side::ALL.map(|side| of(side).unwrap_or(NO_BUFFERS)));
        Self {
            service,
            shard: parts.shard,
            ring: parts.ring,
            receives_per_turn: Each(buffers.0.map(|all| (usize::from(all.count) / 2).max(1))),
            buffer_bytes: Each(buffers.0.map(|all| all.bytes as usize)),
            state: parts.state,
            incoming: parts.incoming,
            doors: parts.doors,
            counters: parts.counters,
            stop: parts.stop,
            drain_span: parts.drain_span,
            drain: Drain::Serving,
            stop_told: false,
            spin: parts.spin,
            accept_paused: false,
            shortage_told: false,
            completions: Vec::new(),
            sends_in_flight: 0,
            now: parts.now,
        }
    }

    /// Turns until told to stop.
    pub(crate) fn run(mut self) -> std::io::Result<()> {
        let ends = self.state.outgoing.ends().clone();
        self.ring.watch(&ends[self.shard.index()].bell, BELL);
        self.arm_doors();
        loop {
            self.wait()?;
            self.now = host::now();
            self.state.now = self.now;
            self.deliver_completions()?;
            self.tell_drained_sockets();
            self.deliver_mail();
            self.adopt_parcels();
            self.fire_timers();
            self.look_for_stop();
            self.service.turn(self.now, &mut self.state.io(Side::Host));
            self.settle_all();
            self.settle_sockets();
            self.settle_doors();
            Side::ALL.into_iter().for_each(|side| self.serve_thirsty(side));
            self.flush_mail();
            let done = self.is_done();
            let verdict = self.drain.judge(self.now, done, &self.stop);
            if verdict != Verdict::Stay {
                self.leave(verdict == Verdict::LeaveAndWake);
                return Ok(());
            }
        }
    }

    // ---- Waiting.

    /// Submits what is queued and waits for the next reason to turn.
    fn wait(&mut self) -> std::io::Result<()> {
        let end = self.end_of_turn();
        let timeout = match self.wake_at() {
            _ if self.state.again => Some(Span::ZERO),
            at => at.map(|at| at.since(end)),
        };
        self.state.again = false;
        if timeout == Some(Span::ZERO) {
            return self.ring.submit_and_wait(Wait::No);
        }
        if self.spin.is_on() {
            self.ring.submit_and_wait(Wait::No)?;
            if self.ring.has_news() || self.spin_for_news(end, timeout)? {
                return Ok(());
            }
        }
        if !self.state.outgoing.may_sleep(&self.incoming) {
            return self.ring.submit_and_wait(Wait::No);
        }
        self.counters.sleeps.add(1);
        let slept = self.ring.submit_and_wait(timeout.map_or(Wait::Forever, Wait::AtMost));
        self.state.outgoing.get_up();
        if self.spin.is_on() {
            self.spin.waited(host::now().since(end));
        }
        slept
    }

    /// Looks for news for as long as that has paid lately.
    fn spin_for_news(&mut self, start: Moment, timeout: Option<Span>) -> std::io::Result<bool> {
        let Some(span) = self.spin.now() else { return Ok(false) };
        let span = span.min(timeout.unwrap_or(span));
        loop {
            for _ in 0..SPIN_LOOKS {
                if self.ring.has_news() || self.incoming.has_mail() {
                    self.spin.waited(Span::ZERO);
                    self.counters.spins_rewarded.add(1);
                    self.ring.submit_and_wait(Wait::No)?;
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
            if host::now().since(start) >= span {
                self.counters.spins_vain.add(1);
                return Ok(false);
            }
        }
    }

    fn end_of_turn(&mut self) -> Moment {
        let end = host::now();
        let took = end.since(self.now).0;
        self.counters.turns.add(1);
        self.counters.turn_ns.add(took);
        self.counters.turn_ns_max.raise_to(took);
        self.counters.turn_classes[duration_class(took)].add(1);
        end
    }

    fn wake_at(&self) -> Option<Moment> {
        let ours = [self.service.wake_at(), self.state.timers.wake_at(), self.drain.wake_at()];
        ours.into_iter().flatten().min()
    }

    // ---- What arrived.

    fn deliver_completions(&mut self) -> std::io::Result<()> {
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.reap(&mut completions)?;
        self.counters.buffers_max.raise_to(u64::from(self.ring.buffers_held()));
        for completion in completions.drain(..) {
            match completion {
                Completion::Received { tag, result, more } => self.received(tag.0, result, more),
                Completion::Sent { tag, buffer, result } => self.sent(tag.0, buffer, result),
                Completion::Accepted { tag, result, more } => self.accepted(tag, result, more),
                Completion::TrainReceived { tag, result, more } => {
                    self.train_received(tag.0, result, more);
                }
                Completion::TrainSent { tag, train } => self.train_sent(tag.0, train),
                Completion::HasRoom { tag } => self.socket_has_room(tag.0),
                Completion::Connected { tag, result } => self.connected(tag.0, result),
                Completion::Watched { more, .. } => self.bell_rang(more),
                // The mail is looked for in every turn.
                Completion::Rung { .. } => {}
                Completion::RingFailed { tag } => {
                    self.state.outgoing.ends()[tag.0 as usize].bell.ring();
                }
            }
        }
        self.completions = completions;
        Ok(())
    }

    fn bell_rang(&mut self, more: bool) {
        let bell = &self.state.outgoing.ends()[self.shard.index()].bell;
        bell.hush();
        if !more {
            self.ring.watch(bell, BELL);
        }
    }

    fn received(&mut self, index: u32, result: Result<Received, Errno>, more: bool) {
        let conn = self.state.conns.get_mut(index);
        if !more {
            conn.flags.clear(Flags::ARMED.or(Flags::CANCELLING));
            self.state.touch(index);
        }
        match result {
            Ok(Received::Bytes(mut filled)) => {
                self.counters.receives.add(1);
                self.counters.receive_bytes.add(filled.len() as u64);
                let conn = self.state.conns.get_mut(index);
                let silent = Flags::FLUSHING.or(Flags::DYING);
                if conn.flags.has(Flags::OPEN) && !conn.flags.has(silent) {
                    let id = conn.id(index);
                    // The buffer was too small for what it sent.
                    conn.flags.clear(Flags::GREEDY);
                    let side = side_of(index);
                    if filled.len() == self.buffer_bytes[side] {
                        conn.flags.set(Flags::GREEDY);
                    }
                    let bytes = self.ring.bytes_mut(&mut filled);
                    self.service.received(self.now, id, bytes, &mut self.state.io(side));
                } else if conn.flags.has(Flags::LEAVING) {
                    let bytes = self.ring.bytes(&filled);
                    self.state.leaving_of(index).arrived.extend_from_slice(bytes);
                } else {
                    self.discard(index, filled.len());
                }
                self.ring.recycle(filled);
            }
            Ok(Received::End) => self.ended(index),
            Err(Errno::NO_BUFFERS) => {
                self.counters.buffers_exhausted.add(1);
                self.state.queue_for_buffer(index);
            }
            Err(Errno::CANCELLED | Errno::INTERRUPTED | Errno::WOULD_WAIT) => {}
            Err(_) => self.lost(index),
        }
    }

    /// Bytes came of a peer that was told to go. Up to a bound they are read, so that it reads our
    /// last words; after that it gets room only by reading, or the end.
    fn discard(&mut self, index: u32, bytes: usize) {
        let conn = self.state.conns.get_mut(index);
        let kib = bytes.div_ceil(1024) as u16;
        conn.discarded_kib = conn.discarded_kib.saturating_add(kib);
        if usize::from(conn.discarded_kib) * 1024 > limits::DISCARD_BYTES_MAX {
            conn.flags.set(Flags::DEAF);
            self.state.touch(index);
        }
    }

    /// The peer has closed its end.
    fn ended(&mut self, index: u32) {
        let conn = self.state.conns.get_mut(index);
        conn.flags.set(Flags::ENDED);
        if conn.flags.has(Flags::LINGERING) {
            conn.flags.set(Flags::DYING);
        } else if conn.flags.has(Flags::OPEN) && !conn.flags.has(Flags::DYING) {
            let id = conn.id(index);
            let side = side_of(index);
            self.service.ended(self.now, id, &mut self.state.io(side));
        }
        self.state.touch(index);
    }

    /// A connect has ended.
    fn connected(&mut self, index: u32, result: Result<(), Errno>) {
        let conn = self.state.conns.get_mut(index);
        conn.send = NO_SEND;
        conn.flags.clear(Flags::CONNECTING.or(Flags::PATIENT).or(Flags::SEND_CANCELLED));
        // Its time was for this.
        self.state.timers.cancel(conn.deadline.take());
        let open = conn.flags.has(Flags::OPEN) && !conn.flags.has(Flags::DYING);
        let (id, side) = (conn.id(index), side_of(index));
        self.state.touch(index);
        if open {
            self.service.connected(self.now, id, result, &mut self.state.io(side));
            if result.is_err() {
                self.counters.connects_failed.add(1);
                self.lost(index);
            }
        }
    }

    /// The connection broke.
    fn lost(&mut self, index: u32) {
        let conn = self.state.conns.get_mut(index);
        if conn.flags.has(Flags::LEAVING) {
            // Whoever gets it is told.
            self.state.leaving_of(index).broken = true;
            self.state.touch(index);
            return;
        }
        if conn.flags.has(Flags::OPEN) && !conn.flags.has(Flags::DYING) {
            self.state.ending.push(index);
        }
        self.state.doom(index);
        self.state.touch(index);
    }

    fn sent(&mut self, index: u32, buffer: Vec<u8>, result: Result<u32, Errno>) {
        self.sends_in_flight -= 1;
        let conn = self.state.conns.get_mut(index);
        conn.send = NO_SEND;
        conn.unsent -= *result.as_ref().unwrap_or(&0);
        let broken = !matches!(result, Ok(_) | Err(Errno::INTERRUPTED));
        self.counters.send_bytes.add(u64::from(*result.as_ref().unwrap_or(&0)));
        if conn.flags.has(Flags::LEAVING) {
            self.keep_unsent(index, buffer);
            if broken && result != Err(Errno::CANCELLED) {
                self.lost(index);
            }
            return;
        }
        if conn.unsent > 0 && !broken && !conn.flags.has(Flags::DYING) {
            self.counters.sends_short.add(1);
            self.start_send(index, buffer, SendMode::Patient);
        } else {
            (conn.unsent, conn.sending) = (0, 0);
            self.state.pools[side_of(index)].give(buffer);
            self.state.charge(index);
        }
        if broken && result != Err(Errno::CANCELLED) {
            self.lost(index);
            return;
        }
        let conn = self.state.conns.get_mut(index);
        let needs_settling = Flags::FLUSHING.or(Flags::DYING).or(Flags::HIGH).or(Flags::FINISHING);
        if conn.flags.has(needs_settling) || !conn.out.is_empty() {
            self.state.touch(index);
        }
        self.tell_if_drained(index);
    }

    fn tell_if_drained(&mut self, index: u32) {
        let conn = self.state.conns.get_mut(index);
        if conn.flags.has(Flags::HIGH) && conn.above_low() == 0 {
            conn.flags.clear(Flags::HIGH);
            let silent = Flags::FLUSHING.or(Flags::DYING);
            if conn.flags.has(Flags::OPEN) && !conn.flags.has(silent) {
                let (id, side) = (conn.id(index), side_of(index));
                self.service.drained(self.now, id, &mut self.state.io(side));
            }
        }
    }

    fn deliver_mail(&mut self) {
        let mut taken = 0;
        for from in 0..self.incoming.endpoints() {
            let from = ShardId(from as u8);
            let (service, state, mails) =
                (&mut self.service, &mut self.state, &self.counters.mails);
            taken += self.incoming.deliver(from, |side, message| {
                mails.add(1);
                service.mail(self.now, from, message, &mut state.io(side));
            });
        }
        self.counters.mail_bytes_max.raise_to(taken as u64);
    }

    fn flush_mail(&mut self) {
        let rings = self.ring.features().has(Feature::RingToRing);
        let (ring, counters) = (&mut self.ring, &self.counters);
        self.state.outgoing.flush(&mut self.incoming, |to, end| {
            counters.doorbells.add(1);
            match end.ring.get() {
                Some(peer) if rings => ring.ring_peer(peer, BELL, Tag(u32::from(to.0))),
                _ => end.bell.ring(),
            }
        });
        self.state.mail_waiting = self.state.outgoing.waiting_bytes();
        self.counters.mail_waiting_now.set(self.state.mail_waiting as u64);
    }

    fn fire_timers(&mut self) {
        while let Some(due) = self.state.timers.pop(self.now) {
            match due {
                Due::Accept => {
                    self.accept_paused = false;
                    self.arm_doors();
                }
                Due::Conn(index) => {
                    let conn = self.state.conns.get_mut(index);
                    conn.deadline = None;
                    let silent = Flags::FLUSHING.or(Flags::DYING);
                    if conn.flags.has(Flags::OPEN) && !conn.flags.has(silent) {
                        let side = side_of(index);
                        let id = conn.id(index);
                        self.service.overdue(self.now, id, &mut self.state.io(side));
                    } else {
                        self.lost(index);
                    }
                }
            }
        }
    }

    // ---- What is to be done about it.

    /// Acts on everything the service asked for, until nothing is left.
    fn settle_all(&mut self) {
        loop {
            if !self.state.connects.is_empty() {
                self.begin_connects();
            }
            if let Some(index) = self.state.ending.pop() {
                self.tell_closed(index);
            } else if let Some(index) = self.state.dirty.pop() {
                self.settle(index);
            } else {
                return;
            }
        }
    }

    /// Connections that the service began since the last look. Some it may have closed since.
    fn begin_connects(&mut self) {
        for at in 0..self.state.connects.len() {
            let (index, to) = self.state.connects[at];
            self.counters.connects.add(1);
            self.counters.connections_now.add(1);
            let conn = self.state.conns.get_mut(index);
            if let (Some(socket), false) = (&conn.socket, conn.flags.has(Flags::DYING)) {
                conn.send = self.ring.connect(socket, to, Tag(index));
                // Its end is heard, and nobody is to ask for it again and again.
                conn.flags.set(Flags::PATIENT);
            }
        }
        self.state.connects.clear();
    }

    /// The service's last word about a connection; its id is dead from here on.
    fn tell_closed(&mut self, index: u32) {
        let conn = self.state.conns.get_mut(index);
        let id = conn.id(index);
        if !conn.flags.has(Flags::OPEN) {
            return;
        }
        conn.flags.clear(Flags::OPEN);
        conn.generation = conn.generation.wrapping_add(1);
        let side = side_of(index);
        self.state.touch(index);
        self.counters.connections_now.set(self.counters.connections_now.get() - 1);
        self.service.closed(self.now, id, &mut self.state.io(side));
        // The turn was before this news.
        self.state.again = true;
    }

    fn settle(&mut self, index: u32) {
        let conn = self.state.conns.get_mut(index);
        conn.flags.clear(Flags::DIRTY);
        if conn.flags.has(Flags::DYING.or(Flags::LEAVING)) {
            self.part(index);
            return;
        }
        self.begin_send(index);
        self.state.charge(index);
        let conn = self.state.conns.get_mut(index);
        if conn.flags.has(Flags::FLUSHING) && conn.flags.has(Flags::OPEN) {
            self.flush_towards_close(index);
        } else if conn.flags.has(Flags::FINISHING) {
            self.finish(index);
        }
        self.settle_receive(index);
        // S3: a quiet send ends without a word, so somebody has to ask.
        let conn = self.state.conns.get_mut(index);
        let waits_for_send = conn.flags.has(Flags::FLUSHING.or(Flags::HIGH).or(Flags::FINISHING));
        if conn.send != NO_SEND && !conn.flags.has(Flags::PATIENT) {
            self.state.again |= waits_for_send || self.drain.is_draining();
        }
    }

    fn begin_send(&mut self, index: u32) {
        let conn = self.state.conns.get_mut(index);
        if conn.send != NO_SEND || conn.out.capacity() == 0 {
            return;
        }
        let buffer = std::mem::take(&mut conn.out);
        if buffer.is_empty() {
            self.state.pools[side_of(index)].give(buffer);
            return;
        }
        conn.unsent = buffer.len() as u32;
        conn.sending = buffer.capacity() as u32;
        self.start_send(index, buffer, SendMode::AtOnce);
    }

    /// Sends the last `unsent` bytes of a buffer, or the first part of them.
    fn start_send(&mut self, index: u32, buffer: Vec<u8>, mode: SendMode) {
        // Where the kernel has no quiet sends, every send is patient, and must be known as such: it
        // may wait for a reader, so its end is heard, and nobody is to ask for it again and again.
        let quiet = self.ring.features().has(Feature::QuietSend);
        let mode = if quiet { mode } else { SendMode::Patient };
        let conn = self.state.conns.get_mut(index);
        let Some(socket) = &conn.socket else { return };
        let (start, most) = match mode {
            SendMode::AtOnce => (0, SEND_BYTES_MAX),
            SendMode::Patient => {
                let most = match conn.above_low() {
                    0 => PATIENT_BYTES_MAX,
                    above => above.clamp(PATIENT_BYTES_MIN, PATIENT_BYTES_MAX),
                };
                (buffer.len() - conn.unsent as usize, most)
            }
        };
        let range = start..buffer.len().min(start + most);
        conn.flags.clear(Flags::PATIENT);
        if mode == SendMode::Patient {
            conn.flags.set(Flags::PATIENT);
        }
        conn.send = self.ring.send(socket, buffer, range, mode, Tag(index));
        self.sends_in_flight += 1;
        self.counters.sends.add(1);
    }

    /// A connection that is to be closed when all is sent: is it?
    fn flush_towards_close(&mut self, index: u32) {
        let conn = self.state.conns.get_mut(index);
        if conn.send != NO_SEND {
            if conn.flags.has(Flags::PATIENT) && conn.deadline.is_none() {
                conn.deadline = Some(self.state.timers.add(self.now + FLUSH_MAX, Due::Conn(index)));
            }
            return;
        }
        self.state.timers.cancel(conn.deadline.take());
        if conn.flags.has(Flags::ENDED) {
            conn.flags.set(Flags::DYING);
        } else {
            conn.flags.set(Flags::LINGERING);
            conn.deadline = Some(self.state.timers.add(self.now + LINGER_MAX, Due::Conn(index)));
            if let Some(socket) = &conn.socket {
                // It fails when the peer is gone, which the receive in flight tells, too.
                let _ = socket.shutdown(Shutdown::Write);
            }
        }
        self.state.ending.push(index);
    }

    /// A connection whose sending half is to be closed when all is sent: is it?
    fn finish(&mut self, index: u32) {
        let conn = self.state.conns.get_mut(index);
        if conn.send != NO_SEND || conn.flags.has(Flags::FINISHED) {
            return;
        }
        conn.flags.set(Flags::FINISHED);
        if let Some(socket) = &conn.socket {
            // It fails when the peer is gone, which the receive in flight tells, too.
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    /// Arms or cancels the receive of a connection that is not dying.
    fn settle_receive(&mut self, index: u32) {
        let side = side_of(index);
        let short = self.state.anybody_thirsty(side);
        let conn = self.state.conns.get_mut(index);
        let Some(socket) = &conn.socket else { return };
        let (flags, wanted) = (conn.flags, conn.flags.may_receive());
        if wanted && !flags.has(Flags::ARMED) {
            if short {
                // S4.
                self.state.queue_for_buffer(index);
            } else if !flags.has(Flags::THIRSTY) {
                conn.flags.set(Flags::ARMED);
                self.ring.receive(socket, side.group(), Tag(index));
            }
        } else if !wanted && flags.has(Flags::ARMED) && !flags.has(Flags::CANCELLING) {
            conn.flags.set(Flags::CANCELLING);
            self.ring.stop_receiving(side.group(), Tag(index));
        }
    }

    /// S4. While buffers are short, who waits for one gets one, in turn. Half of them are left to
    /// those that have nothing to receive yet, and will be answered at once when they have.
    fn serve_thirsty(&mut self, side: Side) {
        let mut begun = 0;
        while begun < self.receives_per_turn[side] {
            // The modest first; but nobody waits for ever.
            let [modest, greedy] = &mut self.state.thirsty[side];
            let queue = if modest.is_empty() || begun % 4 == 3 && !greedy.is_empty() {
                greedy
            } else {
                modest
            };
            let Some(index) = queue.pop_front() else { break };
            let conn = self.state.conns.get_mut(index);
            conn.flags.clear(Flags::THIRSTY);
            if let Some(socket) = &conn.socket
                && conn.flags.may_receive()
                && !conn.flags.has(Flags::ARMED)
            {
                conn.flags.set(Flags::ARMED);
                self.ring.receive_once(socket, side.group(), Tag(index));
                begun += 1;
            }
        }
        self.state.again |= self.state.anybody_thirsty(side);
    }

    // ---- Stopping.

    /// The service hears of a stop one turn after we do: what had arrived until now is delivered
    /// first, so that it is answered.
    fn look_for_stop(&mut self) {
        if self.drain.is_draining() {
            if !std::mem::replace(&mut self.stop_told, true) {
                self.service.stop(self.now, &mut self.state.io(Side::Host));
            }
            return;
        }
        if !self.stop.is_asked() {
            return;
        }
        self.drain.begin(self.now, self.drain_span);
        self.state.again = true;
        for index in 0..self.doors.len() {
            self.shut_door(index);
        }
    }

    fn is_done(&self) -> bool {
        self.stop_told
            && self.sends_in_flight == 0
            && self.state.sockets.all_sent()
            && self.state.outgoing.waiting_bytes() == 0
            && self.state.leaving.is_empty()
            && !self.has_parcels()
            && self.service.may_stop()
    }

    /// The end: peers see an orderly one.
    fn leave(&mut self, wake_others: bool) {
        if wake_others {
            self.state.outgoing.ends().iter().for_each(|end| end.bell.ring());
        }
        for socket in self.state.conns.sockets() {
            // It fails for peers that are gone.
            let _ = socket.shutdown(Shutdown::Write);
        }
        self.counters.connections_now.set(0);
        // What is queued are closes and wake-ups; a ring that fails now takes them with it.
        let _ = self.ring.submit_and_wait(Wait::No);
    }
}
