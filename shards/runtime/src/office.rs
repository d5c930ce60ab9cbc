//! The post of one endpoint: a mailbox to and from every endpoint, and the bells.
//!
//! Endpoints are the shards and, numbered after them, the control plane, and that of a guest
//! ([`crate::Guest`]). Mail is for one side of a shard; both travel in the same mailboxes. Mail
//! between two endpoints keeps its order: what does not fit into the mailbox waits in a queue of
//! its own, behind which everything later waits, too. That queue has no bound here; who posts
//! bounds it (a shard by the credits of its clients).
//!
//! A turn posts, and [`Outgoing::flush`] publishes once per peer, makes one fence, and rings those
//! who sleep. Before its own sleep an endpoint asks [`Outgoing::may_sleep`].
//!
//! Memory: (shards + 1)^2 mailboxes of address space, touched as they are used: with 16 shards
//! that all talk to all at most 289 MiB, with 2 shards 9 MiB.

use std::sync::OnceLock;

use ringway_core::{ShardId, limits};
use ringway_ring::{Bell, RingHandle};

use crate::mailbox::{Receiver, Sender, header_of, mailbox, read_header};
use crate::pair::Side;
use crate::parcels::Parcels;
use crate::sync::{Ordering, fence};
use crate::wake::Sleeper;

/// What everybody must know about an endpoint in order to wake it.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) sleeper: Sleeper,
    pub(crate) bell: Bell,
    /// Set by a shard whose ring hears other rings.
    pub(crate) ring: OnceLock<RingHandle>,
    /// Connections that come to it from other shards.
    pub(crate) parcels: Parcels,
}

/// All endpoints.
pub(crate) type Ends = std::sync::Arc<[End]>;

/// What an endpoint posts. See the module.
#[derive(Debug)]
pub(crate) struct Outgoing {
    me: ShardId,
    ends: Ends,
    senders: Vec<Sender>,
    waiting: Vec<Waiting>,
    /// Peers to publish to at the next flush, each once.
    touched: Vec<ShardId>,
    is_touched: Vec<bool>,
}

/// What an endpoint receives.
#[derive(Debug)]
pub(crate) struct Incoming {
    receivers: Vec<Receiver>,
    /// Peers whose mailboxes have got room since the last flush.
    relieved: Vec<ShardId>,
}

/// Messages that did not fit, in order, each behind its header.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    from: usize,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.from == self.bytes.len()
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.from
    }

    fn push(&mut self, mark: u32, message: &[u8]) {
        self.bytes.extend_from_slice(&header_of(mark, message.len()));
        self.bytes.extend_from_slice(message);
    }

    fn first(&self) -> Option<(u32, &[u8])> {
        let (header, rest) = self.bytes[self.from..].split_first_chunk::<8>()?;
        let (mark, len) = read_header(*header);
        Some((mark, &rest[..len]))
    }

    /// Moves as much as fits. What has moved is cut off when it is the larger part, so that a
    /// byte moves at most twice.
    fn drain_into(&mut self, sender: &mut Sender) {
        while let Some((mark, message)) = self.first() {
            if !sender.push(mark, message) {
                break;
            }
            self.from += 8 + message.len();
        }
        if self.from * 2 >= self.bytes.len() {
            self.bytes.drain(..self.from);
            self.from = 0;
            self.bytes.shrink_to(WAITING_KEPT_BYTES.max(self.bytes.len()));
        }
    }
}

/// An empty queue keeps this much memory.
const WAITING_KEPT_BYTES: usize = 64 * 1024;

/// A pair for each endpoint, connected with each other.
///
/// # Errors
/// When the process is out of file descriptors.
pub(crate) fn offices(count: usize) -> std::io::Result<(Ends, Vec<(Outgoing, Incoming)>)> {
    let mut ends = Vec::with_capacity(count);
    for _ in 0..count {
        ends.push(End {
            sleeper: Sleeper::new(),
            bell: Bell::new()?,
            ring: OnceLock::new(),
            parcels: Parcels::default(),
        });
    }
    let ends: Ends = ends.into();
    let mut receivers: Vec<Vec<Receiver>> = (0..count).map(|_| Vec::new()).collect();
    let mut outgoing = Vec::with_capacity(count);
    for me in 0..count {
        let mut senders = Vec::with_capacity(count);
        for to in &mut receivers {
            let (sender, receiver) = mailbox(limits::MAILBOX_BYTES);
            senders.push(sender);
            to.push(receiver);
        }
        outgoing.push(Outgoing {
            me: ShardId(me as u8),
            ends: std::sync::Arc::clone(&ends),
            senders,
            waiting: (0..count).map(|_| Waiting::default()).collect(),
            touched: Vec::with_capacity(count),
            is_touched: vec![false; count],
        });
    }
    let incoming = receivers
        .into_iter()
        .map(|receivers| Incoming { receivers, relieved: Vec::with_capacity(count) });
    Ok((ends, outgoing.into_iter().zip(incoming).collect()))
}

impl Outgoing {
    /// Posts a message for one side of an endpoint; it leaves at the next flush.
    ///
    /// # Panics
    /// If it is longer than `MAIL_BYTES_MAX` or there is no such endpoint: bugs of the caller.
    #[inline]
    pub(crate) fn post(&mut self, to: ShardId, side: Side, message: &[u8]) {
        let len = message.len();
        assert!(len <= limits::MAIL_BYTES_MAX, "mail of {len} bytes is not split by its sender");
        let waiting = &mut self.waiting[to.index()];
        let mark = side as u32;
        if !waiting.is_empty() || !self.senders[to.index()].push(mark, message) {
            waiting.push(mark, message);
        }
        if !std::mem::replace(&mut self.is_touched[to.index()], true) {
            self.touched.push(to);
        }
    }

    /// Publishes what was posted, and calls `wake` for everybody who sleeps and must not.
    pub(crate) fn flush(&mut self, incoming: &mut Incoming, mut wake: impl FnMut(ShardId, &End)) {
        if self.touched.is_empty() && incoming.relieved.is_empty() {
            return;
        }
        for to in &self.touched {
            self.waiting[to.index()].drain_into(&mut self.senders[to.index()]);
            self.senders[to.index()].publish();
        }
        // Between what we published (tails, heads) and what we read (who sleeps, who wants room).
        fence(Ordering::SeqCst);
        let waits = |from: &&ShardId| incoming.receivers[from.index()].sender_waits();
        for to in self.touched.iter().chain(incoming.relieved.iter().filter(waits)) {
            let end = &self.ends[to.index()];
            if *to != self.me && end.sleeper.must_be_woken() {
                wake(*to, end);
            }
        }
        incoming.relieved.clear();
        // Peers with mail that waits stay touched.
        let (waiting, is_touched) = (&self.waiting, &mut self.is_touched);
        self.touched.retain(|to| {
            is_touched[to.index()] = !waiting[to.index()].is_empty();
            is_touched[to.index()]
        });
    }

    /// Whether there is no reason to stay awake. If true, everybody takes this endpoint for
    /// asleep from now on, until [`Self::get_up`].
    pub(crate) fn may_sleep(&mut self, incoming: &Incoming) -> bool {
        self.ends[self.me.index()].sleeper.lie_down();
        for to in &self.touched {
            self.senders[to.index()].ask_for_room();
        }
        // Between what we said (asleep, wants room) and what we read (mail, room).
        fence(Ordering::SeqCst);
        let (waiting, senders) = (&self.waiting, &mut self.senders);
        let has_room = self.touched.iter().any(|to| {
            let first = waiting[to.index()].first();
            first.is_none_or(|(_, message)| senders[to.index()].has_room(message.len()))
        });
        if has_room || incoming.has_mail() {
            self.get_up();
            return false;
        }
        true
    }

    /// The endpoint is awake.
    pub(crate) fn get_up(&self) {
        self.ends[self.me.index()].sleeper.get_up();
    }

    /// Bytes that wait because a mailbox was full.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.touched.iter().map(|to| self.waiting[to.index()].len()).sum()
    }

    /// Whose it is.
    pub(crate) fn me(&self) -> ShardId {
        self.me
    }

    /// All endpoints.
    pub(crate) fn ends(&self) -> &Ends {
        &self.ends
    }
}

impl Incoming {
    /// Hands over everything that has arrived from one endpoint, in order. Returns how many bytes
    /// of its mailbox that was.
    pub(crate) fn deliver(&mut self, from: ShardId, mut take: impl FnMut(Side, &[u8])) -> usize {
        let receiver = &mut self.receivers[from.index()];
        if !receiver.has_mail() {
            return 0;
        }
        let freed = receiver.receive(|mark, message| take(Side::of(mark), message));
        self.relieved.push(from);
        freed
    }

    /// Whether anything has arrived.
    pub(crate) fn has_mail(&self) -> bool {
        self.receivers.iter().any(Receiver::has_mail)
    }

    /// How many endpoints there are.
    pub(crate) fn endpoints(&self) -> usize {
        self.receivers.len()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn number(bytes: &[u8]) -> u32 {
        u32::from_le_bytes(*bytes.first_chunk().expect("four bytes"))
    }

    /// Far more mail than a mailbox holds keeps its order while it waits outside, and memory is
    /// given back afterwards.
    #[test]
    fn mail_that_waits_keeps_its_order() {
        let (_, mut offices) = offices(2).unwrap();
        let (mut far, mut near) = (offices.pop().unwrap(), offices.pop().unwrap());
        let mut message = vec![0u8; 1000];
        for id in 0..5_000u32 {
            message[..4].copy_from_slice(&id.to_le_bytes());
            near.0.post(ShardId(1), Side::Host, &message);
        }
        assert!(near.0.waiting_bytes() > 3_000_000);
        let mut next = 0;
        while next < 5_000 {
            near.0.flush(&mut near.1, |_, _| {});
            far.1.deliver(ShardId(0), |_, bytes| {
                assert_eq!((number(bytes), bytes.len()), (next, 1000));
                next += 1;
            });
            far.0.flush(&mut far.1, |_, _| {});
        }
        near.0.flush(&mut near.1, |_, _| {});
        assert_eq!(near.0.waiting_bytes(), 0);
        assert!(near.0.waiting[1].bytes.capacity() <= WAITING_KEPT_BYTES);
    }

    /// A sleeper is woken once for any number of messages, somebody awake not at all; and a sender
    /// that sleeps for want of room is woken by the reader.
    #[test]
    fn only_sleepers_are_woken() {
        let (_, mut offices) = offices(2).unwrap();
        let (mut far, mut near) = (offices.pop().unwrap(), offices.pop().unwrap());
        let mut woken = Vec::new();
        near.0.post(ShardId(1), Side::Host, b"awake");
        near.0.flush(&mut near.1, |to, _| woken.push(to));
        assert!(woken.is_empty());
        assert!(!far.0.may_sleep(&far.1), "there is mail");
        far.1.deliver(ShardId(0), |_, _| {});
        assert!(far.0.may_sleep(&far.1));
        for _ in 0..4 {
            near.0.post(ShardId(1), Side::Host, &[0; limits::MAIL_BYTES_MAX]);
            near.0.flush(&mut near.1, |to, _| woken.push(to));
        }
        assert_eq!(woken, [ShardId(1)]);
        assert!(near.0.may_sleep(&near.1), "no room, so nothing to do");
        far.1.deliver(ShardId(0), |_, _| {});
        far.0.flush(&mut far.1, |to, _| woken.push(to));
        assert_eq!(woken, [ShardId(1), ShardId(0)]);
        assert!(!near.0.may_sleep(&near.1), "there is room again");
    }

    /// Mail to oneself arrives, and keeps one awake.
    #[test]
    fn mail_to_oneself_arrives() {
        let (_, mut offices) = offices(1).unwrap();
        let mut me = offices.pop().unwrap();
        me.0.post(ShardId(0), Side::Host, b"note");
        me.0.flush(&mut me.1, |_, _| panic!("one does not wake oneself"));
        assert!(!me.0.may_sleep(&me.1));
        let mut got = Vec::new();
        me.1.deliver(ShardId(0), |_, bytes| got.push(bytes.to_vec()));
        assert_eq!(got, [b"note"]);
    }
}
