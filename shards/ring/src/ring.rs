//! The ring: requests in, completions out, one system call for both.
//!
//! One thread makes it and uses it; it cannot be sent away (the kernel insists on that, too).
//! Requests wait in the queue until [`Ring::submit_and_wait`]; [`Ring::reap`] turns what the
//! kernel answered into [`Completion`]s.
//!
//! The hard part is what a send costs. Its completion tells nothing but "you may reuse the
//! buffer", yet it ends a wait at once, so that every turn would be followed by an empty one.
//! So sends go out *quietly*: told not to wait and to stay silent about success. Silence after
//! the submission then means that every byte was taken, and `reap` says so without the kernel's
//! help; a send that could not take everything speaks up, and its rest is sent with patience.
//! `setup.rs` proves this habit at every start and does without it where it does not hold.
//!
//! Always:
//! - R1  `in_flight` counts requests whose last completion has not been reaped.
//! - R2  A quiet send ends only when its request was consumed and no completion is hidden in the
//!   kernel's overflow list.
//! - R3  Buffers outlive requests: a ring is dropped after everything in it was cancelled and
//!   has ended, and if the kernel does not confirm that, the memory is leaked instead.
//!
//! Bounds: the queues have the sizes configured; requests beyond are submitted at once.
//! Not here: who is connected (`ringway-shards`). Tests: below, against the running kernel.

use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use io_uring::{EnterFlags, IoUring, cqueue, squeue, types};
use ringway_core::Span;

use crate::bell::Bell;
use crate::bufring::{BufRing, Filled};
use crate::cq::{Completion, Errno, Received, result_of};
use crate::letters::{Asked, Left, Letters, Receives, SentTrain, Train};
use crate::net;
use crate::ops::Lent;
use crate::setup::{self, Feature, Features, SetupError};
use crate::sq::{self, Group, Kind, Tag};
use crate::udp::{self, Arrival, DatagramSocket};

/// Sizes of one ring. Memory: 64 bytes per entry, 16 per completion, and the buffers.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Requests that can be queued before one submission; a power of two.
    pub entries: u32,
    /// Completions that can wait; a power of two, at least four times the entries.
    pub completions: u32,
    /// Buffers for what arrives; a power of two.
    pub buffers: u16,
    /// Bytes of each; a multiple of 64.
    pub buffer_bytes: u32,
    /// More buffers, of another size, for receives that ask for them.
    pub second: Option<Buffers>,
    /// Buffers for trains of datagrams; as many again where there is a second group. Memory comes
    /// when they are first filled. `None`: none are received.
    pub datagrams: Option<Buffers>,
}

impl RingConfig {
    /// The buffers of a group, if it has any.
    pub fn buffers_of(&self, group: Group) -> Option<Buffers> {
        match group {
            Group::First => Some(Buffers { count: self.buffers, bytes: self.buffer_bytes }),
            Group::Second => self.second,
            Group::Datagrams => self.datagrams,
            Group::SecondDatagrams => self.second.and(self.datagrams),
        }
    }
}

/// A group of receive buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// How many; a power of two.
    pub count: u16,
    /// Bytes of each; a multiple of 64.
    pub bytes: u32,
}

impl Buffers {
    /// So many buffers, each with room for the longest train and for what is written in front of
    /// it. One that is too small drops what does not fit.
    pub const fn for_trains(count: u16) -> Buffers {
        Buffers { count, bytes: (udp::FRONT_BYTES + 65_536) as u32 }
    }
}

impl Default for RingConfig {
    /// 1024 requests, 8192 completions, 256 buffers of 16 KiB: about 4.4 MiB. And 4 MiB more where
    /// datagrams are received.
    fn default() -> Self {
        Self {
            entries: 1024,
            completions: 8192,
            buffers: 256,
            buffer_bytes: 16 * 1024,
            second: None,
            datagrams: Some(Buffers::for_trains(64)),
        }
    }
}

/// How long to wait for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until there is one, or this much time has passed.
    AtMost(Span),
    /// Until there is one.
    Forever,
}

/// How a send behaves when the socket does not take everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendMode {
    /// It ends at once and tells how much was taken.
    AtOnce,
    /// It waits for room until everything is taken or the connection fails.
    Patient,
}

/// Lets another ring's thread wake this one. Keeps the kernel's ring alive.
#[derive(Debug)]
pub struct RingHandle {
    fd: OwnedFd,
}

/// An io_uring ring with its buffers. See the module.
pub struct Ring {
    uring: IoUring,
    /// By [`Group`].
    buffers: [Option<BufRing>; Group::COUNT],
    lent: Lent,
    letters: Letters,
    receives: Receives,
    /// Slots of quiet sends that no `reap` has ended yet.
    quiet: Vec<u32>,
    /// Slots of quiet trains, likewise.
    quiet_trains: Vec<u32>,
    /// Completions taken from the kernel and not yet turned into words.
    raw: Vec<cqueue::Entry>,
    in_flight: u32,
    features: Features,
    /// The kernel ties a ring to the thread that made it.
    not_send: PhantomData<*const ()>,
}

impl Ring {
    /// Makes a ring for the calling thread, with those of `features` that apply.
    ///
    /// # Errors
    /// When the kernel refuses it; the error says what to do.
    pub fn new(config: &RingConfig, features: Features) -> Result<Ring, SetupError> {
        let uring = setup::builder(features)
            .setup_cqsize(config.completions)
            .build(config.entries)
            .map_err(|error| SetupError::from_setup(&error))?;
        let mut buffers = [const { None }; Group::COUNT];
        for group in Group::ALL {
            let Some(Buffers { count, bytes }) = config.buffers_of(group) else { continue };
            let made = BufRing::new(group, count, bytes)
                .map_err(|source| SetupError::Failed { what: "mapping receive buffers", source })?;
            made.register(&uring).map_err(|error| SetupError::from_setup(&error))?;
            buffers[group as usize] = Some(made);
        }
        Ok(Ring {
            uring,
            buffers,
            lent: Lent::default(),
            letters: Letters::default(),
            receives: Receives::default(),
            quiet: Vec::new(),
            quiet_trains: Vec::new(),
            raw: Vec::new(),
            in_flight: 0,
            features,
            not_send: PhantomData,
        })
    }

    /// A handle by which other rings wake this one.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn handle(&self) -> io::Result<RingHandle> {
        // SAFETY: the descriptor is this ring's own and open as long as `self.uring` lives, which
        // the borrow made here does not outlast.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.uring.as_raw_fd()) };
        Ok(RingHandle { fd: fd.try_clone_to_owned()? })
    }

    /// What of the kernel this ring uses.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Accepts connections of a listening socket, one after the other while `more` is true. The
    /// socket stays open at least until the next submission.
    pub fn accept(&mut self, listener: &impl AsFd, tag: Tag) {
        let multishot = self.features.has(Feature::MultishotAccept);
        self.begin(&sq::accept(listener.as_fd().as_raw_fd(), multishot, tag));
    }

    /// Ends [`Self::accept`]; its last completion says so.
    pub fn stop_accepting(&mut self, tag: Tag) {
        self.push(&sq::cancel(Kind::Accept.with(tag.0)));
    }

    /// Receives from a socket, again and again while `more` is true. The socket stays open at
    /// least until the next submission.
    pub fn receive(&mut self, socket: &impl AsFd, into: Group, tag: Tag) {
        let multishot = self.features.has(Feature::MultishotReceive);
        self.begin(&sq::receive(socket.as_fd().as_raw_fd(), multishot, into, tag));
    }

    /// Receives from a socket once, one buffer at most: what is left to do when buffers are short,
    /// because a receive that goes on takes all there are for itself.
    pub fn receive_once(&mut self, socket: &impl AsFd, into: Group, tag: Tag) {
        self.begin(&sq::receive(socket.as_fd().as_raw_fd(), false, into, tag));
    }

    /// Ends [`Self::receive`]; bytes that were taken already still come before its last
    /// completion.
    pub fn stop_receiving(&mut self, into: Group, tag: Tag) {
        self.push(&sq::cancel(into.kind().with(tag.0)));
    }

    /// Sends `range` of `bytes`, which comes back with the completion. Returns a number for
    /// [`Self::stop_sending`].
    ///
    /// # Panics
    /// If the range is empty or not inside the bytes.
    pub fn send(
        &mut self,
        socket: &impl AsFd,
        bytes: Vec<u8>,
        range: Range<usize>,
        mode: SendMode,
        tag: Tag,
    ) -> u32 {
        let slot = self.lent.begin(bytes, range, tag);
        let fd = socket.as_fd().as_raw_fd();
        let to_read = self.lent.to_read(slot);
        if mode == SendMode::AtOnce && self.features.has(Feature::QuietSend) {
            let entry = sq::send_quietly(fd, to_read, slot);
            self.quiet.push(slot);
            self.begin(&entry);
        } else {
            let entry = sq::send(fd, to_read, slot);
            self.begin(&entry);
        }
        slot
    }

    /// Cancels a patient send; its completion tells how much was taken before.
    pub fn stop_sending(&mut self, send: u32) {
        self.push(&sq::cancel(Kind::Send.with(send)));
    }

    /// Connects a socket that was made for this address ([`net::socket_for`]). It stays open at
    /// least until the next submission. Returns a number for [`Self::stop_connecting`].
    pub fn connect(&mut self, socket: &impl AsFd, to: SocketAddr, tag: Tag) -> u32 {
        let address = net::address_bytes(to);
        let len = address.len();
        let slot = self.lent.begin(address, 0..len, tag);
        let entry = sq::connect(socket.as_fd().as_raw_fd(), self.lent.to_read(slot), slot);
        self.begin(&entry);
        slot
    }

    /// Cancels a connect; its completion says whether it was too late.
    pub fn stop_connecting(&mut self, connect: u32) {
        self.push(&sq::cancel(Kind::Connect.with(connect)));
    }

    /// Receives trains of datagrams, again and again while `more` is true. The socket stays open at
    /// least until the next submission. Returns a number for [`Self::stop_receiving_trains`].
    ///
    /// # Panics
    /// If the ring has no buffers of this group ([`RingConfig::datagrams`]).
    pub fn receive_trains(&mut self, socket: &DatagramSocket, into: Group, tag: Tag) -> u32 {
        let again = self.features.has(Feature::MultishotReceiveMessage);
        let buffer_bytes = self.buffers_of(into).size();
        let slot = self.receives.begin(Asked { tag, group: into, again }, buffer_bytes);
        let fd = socket.as_fd().as_raw_fd();
        let entry = sq::receive_train(fd, self.receives.message(slot), again, into, slot);
        self.begin(&entry);
        slot
    }

    /// Ends [`Self::receive_trains`]; what was taken already still comes before its last
    /// completion.
    pub fn stop_receiving_trains(&mut self, receive: u32) {
        self.push(&sq::cancel(Kind::ReceiveTrain.with(receive)));
    }

    /// Sends a train, as far as the socket takes it at once; [`Self::take_train`] gives it back
    /// with its completion. The socket stays open at least until the next submission.
    ///
    /// # Panics
    /// If the train has no datagrams or too many.
    pub fn send_train(&mut self, socket: &DatagramSocket, train: Train, tag: Tag) {
        let quietly = self.features.has(Feature::QuietSend);
        let slot = self.letters.begin(socket, train, tag);
        let fd = socket.as_fd().as_raw_fd();
        if quietly {
            self.quiet_trains.push(slot);
        }
        for request in 0..self.letters.open(slot) {
            let message = self.letters.message(slot, request);
            self.begin(&sq::send_train(fd, message, quietly, slot, request as u8));
        }
    }

    /// A train that was sent, and what is left of it.
    ///
    /// # Panics
    /// If it is of another ring.
    pub fn take_train(&mut self, sent: SentTrain) -> (Train, Left) {
        self.letters.take(sent)
    }

    /// Tells when a socket has room for what is to be sent, once.
    pub fn await_room(&mut self, socket: &DatagramSocket, tag: Tag) {
        self.begin(&sq::await_room(socket.as_fd().as_raw_fd(), tag));
    }

    /// Ends [`Self::await_room`]; its completion comes all the same.
    pub fn stop_awaiting_room(&mut self, tag: Tag) {
        self.push(&sq::cancel(Kind::Room.with(tag.0)));
    }

    /// Tells whenever `bell` is rung. The bell stays open at least until the next submission.
    pub fn watch(&mut self, bell: &Bell, tag: Tag) {
        self.begin(&sq::watch(bell.as_fd().as_raw_fd(), tag));
    }

    /// Wakes another ring at the next submission; it gets [`Completion::Rung`] with `heard_as`.
    /// If that fails, this ring gets [`Completion::RingFailed`] with `failed_as`.
    pub fn ring_peer(&mut self, peer: &RingHandle, heard_as: Tag, failed_as: Tag) {
        self.push(&sq::ring_peer(peer.fd.as_raw_fd(), heard_as, failed_as));
    }

    /// Closes a socket at the next submission, without a system call of its own.
    pub fn close(&mut self, socket: impl Into<OwnedFd>) {
        self.push(&sq::close(socket.into().into_raw_fd()));
    }

    /// Submits everything queued, lets the kernel do what it can, and waits as told.
    ///
    /// # Errors
    /// Only for what cannot be helped: the kernel says that the ring is none.
    pub fn submit_and_wait(&mut self, wait: Wait) -> io::Result<()> {
        let wait = if self.raw.is_empty() { wait } else { Wait::No };
        let mut flags = EnterFlags::GETEVENTS;
        let want = u32::from(wait != Wait::No);
        if want > 0 && self.features.has(Feature::NoIowait) {
            flags |= EnterFlags::NO_IOWAIT;
        }
        let outcome = if let Wait::AtMost(span) = wait {
            let time = types::Timespec::new()
                .sec(span.0 / 1_000_000_000)
                .nsec((span.0 % 1_000_000_000) as u32);
            let args = types::SubmitArgs::new().timespec(&time);
            self.enter(want, flags | EnterFlags::EXT_ARG, Some(&args))
        } else {
            self.enter(want, flags, None)
        };
        match outcome {
            Ok(()) => Ok(()),
            // A signal ends the wait before the kernel has looked for what has arrived. A process
            // that stood still (SIGSTOP) must not act on the time before it has seen the rest.
            Err(error) if error.raw_os_error() == Some(libc::EINTR) && want > 0 => {
                self.submit_and_wait(Wait::No)
            }
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether a completion is there, or would be after a [`Wait::No`]. Costs two loads.
    pub fn has_news(&mut self) -> bool {
        if !self.raw.is_empty() || !self.uring.completion().is_empty() {
            return true;
        }
        let queue = self.uring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Appends everything the kernel has answered, in its order; sends that ended in silence
    /// come first.
    ///
    /// # Errors
    /// As [`Self::submit_and_wait`].
    pub fn reap(&mut self, into: &mut Vec<Completion>) -> io::Result<()> {
        self.pull();
        while self.uring.submission().cq_overflow() {
            self.submit_and_wait(Wait::No)?;
            self.pull();
        }
        let raw = std::mem::take(&mut self.raw);
        if !self.quiet.is_empty() || !self.quiet_trains.is_empty() {
            self.note_shortfalls(&raw);
            self.end_quiet_sends(into);
        }
        for entry in &raw {
            if let Some(completion) = self.translate(entry) {
                into.push(completion);
            }
        }
        self.raw = raw;
        self.raw.clear();
        Ok(())
    }

    /// What a filled buffer holds.
    ///
    /// # Panics
    /// If the buffer is of another ring.
    #[inline]
    pub fn bytes(&self, filled: &Filled) -> &[u8] {
        self.buffers[filled.group() as usize].as_ref().expect(NO_GROUP).bytes(filled)
    }

    /// What a filled buffer holds, to be changed in place until it is given back.
    ///
    /// # Panics
    /// If the buffer is of another ring.
    #[inline]
    pub fn bytes_mut(&mut self, filled: &mut Filled) -> &mut [u8] {
        self.buffers_of(filled.group()).bytes_mut(filled)
    }

    /// The train that a buffer of [`Completion::TrainReceived`] holds. `None`: it was empty, or did
    /// not fit, or does not say who sent it.
    ///
    /// # Panics
    /// If the buffer is of another ring.
    #[inline]
    pub fn arrival(&mut self, filled: &mut Filled) -> Option<(Arrival, &mut [u8])> {
        udp::read_arrival(self.bytes_mut(filled))
    }

    /// Gives a filled buffer back to the kernel.
    ///
    /// # Panics
    /// If the buffer is of another ring.
    #[inline]
    pub fn recycle(&mut self, filled: Filled) {
        self.buffers_of(filled.group()).recycle(filled);
    }

    #[inline]
    fn buffers_of(&mut self, group: Group) -> &mut BufRing {
        self.buffers[group as usize].as_mut().expect(NO_GROUP)
    }

    /// How many buffers of the first group are filled and not given back.
    pub fn buffers_held(&self) -> u32 {
        self.buffers[Group::First as usize].as_ref().map_or(0, BufRing::held)
    }

    /// How many requests have not ended.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    fn begin(&mut self, entry: &squeue::Entry) {
        self.in_flight += 1;
        self.push(entry);
    }

    /// Queues an entry; submits what is queued if there is no room.
    fn push(&mut self, entry: &squeue::Entry) {
        for _ in 0..SUBMIT_ATTEMPTS_MAX {
            // SAFETY: whatever memory the entry names, and what that names in turn, is owned by
            // `self.lent`, `self.letters` or `self.receives` until the request's last completion,
            // by `self.buffers` until the ring is gone, or there is none; a ring that is dropped
            // waits for all of them (R3).
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return;
            }
            self.pull();
            match self.enter(0, EnterFlags::empty(), None) {
                Ok(()) => {}
                Err(error) if is_passing(&error) => std::thread::yield_now(),
                Err(error) => panic!("the ring took no requests: {error}"),
            }
        }
        panic!("the kernel took no request in {SUBMIT_ATTEMPTS_MAX} attempts: out of memory?");
    }

    fn enter(
        &mut self,
        want: u32,
        flags: EnterFlags,
        args: Option<&types::SubmitArgs<'_, '_>>,
    ) -> io::Result<()> {
        let queued = self.uring.submission().len() as u32;
        // SAFETY: `queued` entries are in the queue, each pushed under the proof in `push`; the
        // arguments, if any, are borrowed for the call, and EXT_ARG is set exactly with them.
        let entered = unsafe { self.uring.submitter().enter(queued, want, flags.bits(), args) };
        entered.map(drop)
    }

    /// Moves completions out of the kernel's queue, so that it has room.
    fn pull(&mut self) {
        self.raw.extend(self.uring.completion());
    }

    fn note_shortfalls(&mut self, raw: &[cqueue::Entry]) {
        for entry in raw {
            match Kind::of(entry.user_data()) {
                Some((Kind::Quiet, slot)) => self.lent.note_shortfall(slot, entry.result()),
                Some((Kind::QuietTrain, slot)) => {
                    let request = sq::request_of(entry.user_data());
                    self.letters.note(slot, request, result_of(entry.result()));
                }
                _ => {}
            }
        }
    }

    /// R2: every request was consumed, so what did not speak up has succeeded.
    fn end_quiet_sends(&mut self, into: &mut Vec<Completion>) {
        if !self.uring.submission().is_empty() {
            return;
        }
        self.in_flight -= self.quiet.len() as u32;
        for slot in self.quiet.drain(..) {
            let done = self.lent.end(slot);
            let result = match done.shortfall.map(result_of) {
                None => Ok(done.len),
                Some(Err(Errno::WOULD_WAIT | Errno::INTERRUPTED)) => Ok(0),
                Some(result) => result,
            };
            into.push(Completion::Sent { tag: done.tag, buffer: done.bytes, result });
        }
        for slot in self.quiet_trains.drain(..) {
            self.in_flight -= self.letters.open(slot);
            let tag = self.letters.end_all(slot);
            into.push(Completion::TrainSent { tag, train: SentTrain(slot) });
        }
    }

    fn translate(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        let (kind, number) = Kind::of(entry.user_data())?;
        let result = result_of(entry.result());
        let more = cqueue::more(entry.flags());
        if !more && kind.is_counted() {
            self.in_flight -= 1;
        }
        let tag = Tag(number);
        match kind {
            Kind::Accept => {
                let result = result.map(own_accepted);
                Some(Completion::Accepted { tag, result, more })
            }
            Kind::Receive | Kind::ReceiveSecond => {
                let group = if kind == Kind::Receive { Group::First } else { Group::Second };
                let result = self.received(group, result, entry.flags());
                Some(Completion::Received { tag, result, more })
            }
            Kind::Send => {
                let done = self.lent.end(number);
                Some(Completion::Sent { tag: done.tag, buffer: done.bytes, result })
            }
            Kind::Connect => {
                let done = self.lent.end(number);
                Some(Completion::Connected { tag: done.tag, result: result.map(drop) })
            }
            Kind::Watch => Some(Completion::Watched { tag, more }),
            Kind::Rung => Some(Completion::Rung { tag }),
            Kind::RingFailed => Some(Completion::RingFailed { tag }),
            Kind::Train => {
                self.letters.note(number, sq::request_of(entry.user_data()), result);
                let tag = self.letters.end_one(number)?;
                Some(Completion::TrainSent { tag, train: SentTrain(number) })
            }
            Kind::ReceiveTrain => Some(self.received_train(number, result, entry.flags())),
            Kind::Room => Some(Completion::HasRoom { tag }),
            Kind::Quiet | Kind::QuietTrain | Kind::Ignored => None,
        }
    }

    fn received_train(&mut self, slot: u32, result: Result<u32, Errno>, flags: u32) -> Completion {
        let asked = self.receives.asked(slot);
        let more = cqueue::more(flags);
        if !more {
            self.receives.end(slot);
        }
        let result = match (result, cqueue::buffer_select(flags)) {
            (Ok(len), Some(id)) if asked.again => {
                Ok(Some(self.buffers_of(asked.group).take(id, len)))
            }
            (Ok(len), Some(id)) => {
                let buffers = self.buffers[asked.group as usize].as_mut().expect(NO_GROUP);
                let mut filled = buffers.take_shifted(id, len, udp::FRONT_BYTES);
                self.receives.write_front(slot, buffers.bytes_mut(&mut filled), len);
                Ok(Some(filled))
            }
            (Ok(_), None) => Ok(None),
            (Err(errno), unused) => {
                if let Some(id) = unused {
                    let buffers = self.buffers_of(asked.group);
                    let unused = buffers.take(id, 0);
                    buffers.recycle(unused);
                }
                Err(errno)
            }
        };
        Completion::TrainReceived { tag: asked.tag, result, more }
    }

    fn received(
        &mut self,
        group: Group,
        result: Result<u32, Errno>,
        flags: u32,
    ) -> Result<Received, Errno> {
        let buffers = self.buffers_of(group);
        let filled =
            cqueue::buffer_select(flags).map(|id| buffers.take(id, *result.as_ref().unwrap_or(&0)));
        match (result, filled) {
            (Ok(len), Some(filled)) if len > 0 => Ok(Received::Bytes(filled)),
            (Ok(_), None) => Ok(Received::End),
            (result, Some(unused)) => {
                buffers.recycle(unused);
                result.map(|_| Received::End)
            }
            (Err(errno), None) => Err(errno),
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut ended = Vec::new();
        if self.in_flight > 0 {
            self.push(&sq::cancel_all());
        }
        for _ in 0..DROP_ROUNDS_MAX {
            if self.in_flight == 0
                || self.submit_and_wait(Wait::AtMost(Span::from_ms(10))).is_err()
                || self.reap(&mut ended).is_err()
            {
                break;
            }
            ended.clear();
        }
        if self.in_flight > 0 {
            self.lent.leak();
            self.letters.leak();
            self.receives.leak();
            self.buffers.iter_mut().flatten().for_each(BufRing::leak);
        }
    }
}

/// The connection that an accept reported.
fn own_accepted(fd: u32) -> OwnedFd {
    // SAFETY: the kernel made this descriptor for the accept whose only completion this is, so
    // nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// Why nothing of a group is answered for: its buffer is of another ring, or it was not asked for.
const NO_GROUP: &str = "this ring has no such group of buffers";
/// Attempts to hand over a queue that the kernel does not take for want of memory.
const SUBMIT_ATTEMPTS_MAX: u32 = 10_000;
/// Waits of 10 ms for cancelled requests to end before a dropped ring leaks its buffers.
const DROP_ROUNDS_MAX: u32 = 100;

/// Not failures: a signal, a timeout, a queue that must be emptied first, memory that is short
/// for the moment. What was queued stays queued.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN | libc::ENOMEM)
    )
}
