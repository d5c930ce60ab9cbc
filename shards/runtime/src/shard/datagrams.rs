//! Datagrams: what arrives at UDP sockets, and what leaves by them.
//!
//! Always:
//! - D1  A datagram that was appended is sent, waits, or is counted as unsent; its service is told,
//!   unless it has closed the socket.
//! - D2  The ring has trains of a socket only from the end of one turn to the beginning of the
//!   next: the kernel takes them at once or says why not, and nothing of them lingers there.
//! - D3  While receive buffers are short, sockets that got none come before those that took many.
//!
//! **Who cuts.** A train goes to the kernel whole, if it cuts. EIO says that it cannot on the way
//! that this one takes: from then on trains of this socket are cut here. EINVAL says that, or that
//! a datagram is too long; so this one train is cut here, and what becomes of its first datagram
//! tells which.

use ringway_ring::{Cut, Errno, Filled, Left, SentTrain, Tag, Train};

use super::Shard;
use crate::conns::side_of;
use crate::pair::Side;
use crate::service::Service;
use crate::sockets::{Datagrams, Unsent};

/// What a failure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// They cannot be sent.
    TheBytes,
    /// They may go when they are cut here: one cannot tell.
    ThisTrain,
    /// They and all others of this socket go when they are cut here.
    ThisWay,
}

fn refusal(train: &Train, why: Errno) -> Refusal {
    match why {
        _ if train.cut == Cut::Here || train.datagrams() == 1 => Refusal::TheBytes,
        Errno::NO_OFFLOAD => Refusal::ThisWay,
        Errno::INVALID => Refusal::ThisTrain,
        _ => Refusal::TheBytes,
    }
}

impl<S: Service> Shard<S> {
    // ---- What arrived.

    pub(super) fn train_received(
        &mut self,
        index: u32,
        result: Result<Option<Filled>, Errno>,
        more: bool,
    ) {
        if !more {
            let socket = self.state.sockets.get_mut(index);
            (socket.receive, socket.cancelling) = (None, false);
            self.state.sockets.touch(index);
        }
        match result {
            Ok(Some(filled)) => self.deliver_train(index, filled),
            Ok(None) => self.counters.datagrams_unreadable.add(1),
            Err(Errno::NO_BUFFERS) => {
                self.counters.datagram_buffers_exhausted.add(1);
                self.state.sockets.queue_for_buffer(index);
            }
            // Cancelled, or for want of memory: it is begun again unless nobody wants it.
            Err(_) => {}
        }
    }

    fn deliver_train(&mut self, index: u32, mut filled: Filled) {
        let socket = self.state.sockets.get_mut(index);
        socket.fed = true;
        let counters = &self.counters;
        if let Some((arrival, bytes)) = self.ring.arrival(&mut filled) {
            let dropped = arrival.dropped.unwrap_or(socket.drops);
            let kernel_drops = dropped.wrapping_sub(std::mem::replace(&mut socket.drops, dropped));
            counters.datagrams_dropped.add(u64::from(kernel_drops));
            counters.trains_received.add(1);
            counters.datagrams_received.add(bytes.len().div_ceil(arrival.segment_bytes) as u64);
            counters.datagram_receive_bytes.add(bytes.len() as u64);
            let (id, open) = (socket.id(index), socket.open);
            let train = Datagrams {
                from: arrival.from,
                to: arrival.to,
                ecn: arrival.ecn,
                segment_bytes: arrival.segment_bytes,
                kernel_drops,
                bytes,
            };
            if open {
                let io = &mut self.state.io(side_of(index));
                self.service.datagrams(self.now, id, train, io);
            }
        } else {
            counters.datagrams_unreadable.add(1);
        }
        self.ring.recycle(filled);
    }

    // ---- What became of what was sent.

    pub(super) fn train_sent(&mut self, index: u32, sent: SentTrain) {
        let (mut train, left) = self.ring.take_train(sent);
        let sockets = &mut self.state.sockets;
        sockets.in_ring -= 1;
        sockets.bytes[side_of(index)] -= train.bytes.len();
        let socket = sockets.get_mut(index);
        socket.in_ring -= 1;
        socket.in_ring_bytes -= train.bytes.len();
        socket.full |= left.waiting != 0;
        let not_taken = left.waiting | left.failed;
        let taken = train.datagrams() - not_taken.count_ones() as usize;
        self.counters.datagrams_sent.add(taken as u64);
        self.counters.trains_delayed.add(u64::from(left.waiting != 0));
        let is_trial = train.cut == Cut::Here && socket.cut == Cut::ByKernel;
        if is_trial && not_taken & 1 == 0 {
            self.cut_here_from_now_on(index, &train);
        }
        if let Some(why) = left.why {
            let refusal = refusal(&train, why);
            if refusal == Refusal::ThisWay {
                self.cut_here_from_now_on(index, &train);
            }
            if refusal != Refusal::TheBytes {
                train.cut = Cut::Here;
                return self.keep(index, train);
            }
            self.unsent(index, &train, left, why);
        }
        train.keep(left.waiting);
        self.keep(index, train);
    }

    /// What is left of a train waits, if anything is.
    fn keep(&mut self, index: u32, train: Train) {
        let sockets = &mut self.state.sockets;
        if train.bytes.is_empty() {
            sockets.pools[side_of(index)].give(train.bytes);
        } else {
            sockets.wait(index, train);
            sockets.touch(index);
        }
        if !sockets.get_mut(index).open {
            sockets.touch(index);
        }
    }

    fn cut_here_from_now_on(&mut self, index: u32, train: &Train) {
        let socket = self.state.sockets.get_mut(index);
        if std::mem::replace(&mut socket.cut, Cut::Here) == Cut::ByKernel {
            self.counters.offload_failures.add(1);
            tracing::warn!(
                shard = self.shard.0,
                to = %train.towards.to,
                "the kernel does not cut trains of datagrams on this way (UDP_SEGMENT): this \
                 socket sends them one by one, which costs more of the processor"
            );
        }
    }

    fn unsent(&mut self, index: u32, train: &Train, left: Left, why: Errno) {
        let datagrams = left.failed.count_ones() as usize;
        self.counters.datagrams_unsent.add(datagrams as u64);
        let socket = self.state.sockets.get_mut(index);
        if socket.open {
            let (to, segment_bytes) = (train.towards.to, usize::from(train.towards.segment_bytes));
            // A train of one datagram may be shorter than its datagrams would be.
            let segment_bytes = segment_bytes.min(train.bytes.len());
            let what = Unsent { to, segment_bytes, datagrams, why };
            let id = socket.id(index);
            let io = &mut self.state.io(side_of(index));
            self.service.unsent(self.now, id, what, io);
        }
    }

    pub(super) fn socket_has_room(&mut self, index: u32) {
        let socket = self.state.sockets.get_mut(index);
        (socket.full, socket.awaits_room, socket.cancelling_room) = (false, false, false);
        self.state.sockets.touch(index);
    }

    /// Tells services whose sockets have fallen below their marks.
    pub(super) fn tell_drained_sockets(&mut self) {
        for index in std::mem::take(&mut self.state.sockets.marked) {
            let socket = self.state.sockets.get_mut(index);
            match socket.mark {
                None => {}
                Some(below) if socket.backlog() < below => {
                    socket.mark = None;
                    let id = socket.id(index);
                    let io = &mut self.state.io(side_of(index));
                    self.service.datagrams_drained(self.now, id, io);
                }
                Some(_) => self.state.sockets.marked.push(index),
            }
        }
    }

    // ---- What is to be done about it.

    /// Sends what was appended, arms, and closes.
    pub(super) fn settle_sockets(&mut self) {
        while let Some(index) = self.state.sockets.dirty.pop() {
            self.settle_socket(index);
        }
        for side in Side::ALL {
            for queue in 0..2 {
                for index in std::mem::take(&mut self.state.sockets.thirsty[side][queue]) {
                    self.state.sockets.get_mut(index).thirsty = false;
                    self.arm_socket(index);
                }
            }
        }
        let sockets = &mut self.state.sockets;
        // S3: the kernel takes trains without a word, so somebody has to ask.
        let mut marked = std::mem::take(&mut sockets.marked);
        self.state.again |= marked.iter().any(|index| !sockets.get_mut(*index).full);
        sockets.marked.append(&mut marked);
        self.state.again |= self.drain.is_draining() && sockets.in_ring > 0;
    }

    fn settle_socket(&mut self, index: u32) {
        let sockets = &mut self.state.sockets;
        let socket = sockets.get_mut(index);
        socket.dirty = false;
        socket.fresh_bytes = 0;
        let mut fresh = std::mem::take(&mut socket.fresh);
        for train in fresh.drain(..) {
            if train.bytes.is_empty() {
                sockets.pools[side_of(index)].give(train.bytes);
            } else {
                sockets.wait(index, train);
            }
        }
        sockets.get_mut(index).fresh = fresh;
        self.send_trains(index);
        if self.state.sockets.get_mut(index).open {
            self.arm_socket(index);
        } else {
            self.part_with_socket(index);
        }
    }

    fn send_trains(&mut self, index: u32) {
        let sockets = &mut self.state.sockets;
        let socket = sockets.get_mut(index);
        let Some(fd) = &socket.socket else { return };
        if socket.full {
            if socket.open && !std::mem::replace(&mut socket.awaits_room, true) {
                self.ring.await_room(fd, Tag(index));
            }
            return;
        }
        let trains = socket.waiting.len();
        for mut train in socket.waiting.drain(..) {
            if socket.cut == Cut::Here {
                train.cut = Cut::Here;
            }
            self.counters.trains_sent.add(1);
            self.counters.datagram_send_bytes.add(train.bytes.len() as u64);
            self.ring.send_train(fd, train, Tag(index));
        }
        socket.in_ring += trains as u32;
        socket.in_ring_bytes += std::mem::take(&mut socket.waiting_bytes);
        sockets.waiting -= trains;
        sockets.in_ring += trains;
    }

    fn arm_socket(&mut self, index: u32) {
        let socket = self.state.sockets.get_mut(index);
        if let Some(fd) = &socket.socket
            && socket.open
            && !socket.thirsty
            && socket.receive.is_none()
        {
            socket.fed = false;
            let group = side_of(index).datagrams_group();
            socket.receive = Some(self.ring.receive_trains(fd, group, Tag(index)));
        }
    }

    /// Makes the kernel let go of a socket that was closed, and closes it once it has.
    fn part_with_socket(&mut self, index: u32) {
        let sockets = &mut self.state.sockets;
        let socket = sockets.get_mut(index);
        if socket.socket.is_none() {
            return;
        }
        let given_up = std::mem::take(&mut socket.waiting);
        let bytes = std::mem::take(&mut socket.waiting_bytes);
        if let Some(receive) = socket.receive
            && !std::mem::replace(&mut socket.cancelling, true)
        {
            self.ring.stop_receiving_trains(receive);
        }
        if socket.awaits_room && !std::mem::replace(&mut socket.cancelling_room, true) {
            self.ring.stop_awaiting_room(Tag(index));
        }
        let is_idle = socket.receive.is_none() && socket.in_ring == 0 && !socket.awaits_room;
        self.state.again |= socket.in_ring > 0;
        sockets.waiting -= given_up.len();
        sockets.bytes[side_of(index)] -= bytes;
        for train in given_up {
            self.counters.datagrams_unsent.add(train.datagrams() as u64);
            sockets.pools[side_of(index)].give(train.bytes);
        }
        if is_idle && let Some(socket) = sockets.release(index) {
            self.ring.close(socket);
            self.there_is_room();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use ringway_ring::Towards;

    /// Only a train that the kernel was to cut is tried again; what is told about its route is a
    /// matter of all, and what may be its length is not.
    #[test]
    fn refusals_are_told_apart() {
        let towards = Towards::new(([127, 0, 0, 1], 9).into(), 100);
        let train = |bytes: usize, cut| Train { towards, bytes: vec![0; bytes], cut };
        let whole = train(101, Cut::ByKernel);
        assert_eq!(refusal(&whole, Errno(5)), Refusal::ThisWay);
        assert_eq!(refusal(&whole, Errno::INVALID), Refusal::ThisTrain);
        assert_eq!(refusal(&whole, Errno::TOO_LONG), Refusal::TheBytes);
        for other in [train(100, Cut::ByKernel), train(101, Cut::Here)] {
            for why in [Errno::NO_OFFLOAD, Errno::INVALID, Errno::TOO_LONG] {
                assert_eq!(refusal(&other, why), Refusal::TheBytes);
            }
        }
    }
}
