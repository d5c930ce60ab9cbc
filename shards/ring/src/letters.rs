//! Trains that are sent and receives of trains: the owner of everything that the kernel reads and
//! writes about them beside a socket.
//!
//! The kernel is given the address of a `msghdr`, which holds addresses of a name, of control
//! messages and of a list of pieces, which holds the addresses of the bytes. A [`Letter`] owns all
//! of a train: its requests (one, or one for each datagram where the kernel does not cut) share
//! name and controls. An inbox owns what the kernel writes about one receive. Both are boxed, so
//! that they stay where they are while the tables grow, and stay with their slot for the next one.
//!
//! Always:
//! - L1  A letter is changed, and its bytes given back, only when all its requests have ended.
//! - L2  An inbox is changed or read only when its receive has ended.
//!
//! Bounds: a slot for each train or receive in flight, 6 KiB for a train of 64 requests; slots are
//! reused, never given back. Constant time for each request. Tests below, and `tests/udp.rs`.

use crate::cq::Errno;
use crate::net::ADDRESS_BYTES;
use crate::sq::{Group, Tag};
use crate::udp::{
    self, CONTROL_BYTES, DatagramSocket, NAME_BYTES, SENT_CONTROL_BYTES, TRAIN_DATAGRAMS_MAX,
    Towards,
};

/// Who cuts a train into datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The kernel, or the network card: one request ([`crate::Feature::SendTrains`]).
    ByKernel,
    /// We do: a request for each datagram.
    Here,
}

/// Datagrams that are sent together.
#[derive(Debug)]
pub struct Train {
    /// Where they go, and how they are cut.
    pub towards: Towards,
    /// Their bytes, one after the other: at most [`TRAIN_DATAGRAMS_MAX`] datagrams, and not none.
    pub bytes: Vec<u8>,
    /// Who cuts them.
    pub cut: Cut,
}

impl Train {
    /// How many datagrams it is.
    pub fn datagrams(&self) -> usize {
        self.bytes.len().div_ceil(self.segment_bytes())
    }

    fn segment_bytes(&self) -> usize {
        usize::from(self.towards.segment_bytes.max(1))
    }

    /// Keeps only the datagrams that have a bit, in their order.
    pub fn keep(&mut self, bits: u64) {
        let segment = self.segment_bytes();
        let mut kept = 0;
        for at in 0..self.datagrams() {
            if bits & (1 << at) != 0 {
                let (start, end) = (at * segment, self.bytes.len().min((at + 1) * segment));
                self.bytes.copy_within(start..end, kept);
                kept += end - start;
            }
        }
        self.bytes.truncate(kept);
    }
}

/// What became of a train: a bit for each datagram, the first in the lowest. What has no bit was
/// taken by the kernel. What one request was to send shares its fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// The socket had no room for these.
    pub waiting: u64,
    /// These failed.
    pub failed: u64,
    /// Why the last of those did.
    pub why: Option<Errno>,
}

/// A train whose requests have all ended; [`crate::Ring::take_train`] gives it back. One that is
/// dropped instead is lost, nothing worse.
#[derive(Debug)]
#[must_use = "a train that is not taken is lost to its ring"]
pub struct SentTrain(pub(crate) u32);

/// What the kernel reads of a train, beside its bytes.
struct Envelope {
    name: [u8; ADDRESS_BYTES],
    control: [u8; SENT_CONTROL_BYTES],
    pieces: Vec<libc::iovec>,
    messages: Vec<libc::msghdr>,
}

/// A train in flight, or a free slot.
struct Letter {
    train: Option<Train>,
    envelope: Box<Envelope>,
    tag: Tag,
    left: Left,
    /// Requests that have not ended.
    open: u32,
}

/// Trains in flight, by slot.
#[derive(Default)]
pub(crate) struct Letters {
    slots: Vec<Letter>,
    free: Vec<u32>,
}

impl Letters {
    /// Takes a train in; its requests are numbered from zero on, [`Self::requests`] of them.
    pub(crate) fn begin(&mut self, socket: &DatagramSocket, train: Train, tag: Tag) -> u32 {
        let datagrams = train.datagrams();
        assert!(
            (1..=TRAIN_DATAGRAMS_MAX).contains(&datagrams) && train.towards.segment_bytes > 0,
            "a train of {datagrams} datagrams"
        );
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Letter::empty());
            self.slots.len() as u32 - 1
        });
        let letter = &mut self.slots[index as usize];
        assert!(letter.train.is_none() && letter.open == 0, "L1");
        letter.open = letter.envelope.address(socket, &train);
        (letter.train, letter.tag, letter.left) = (Some(train), tag, Left::default());
        index
    }

    /// How many requests a train in flight has that have not ended.
    pub(crate) fn open(&self, index: u32) -> u32 {
        self.slots[index as usize].open
    }

    /// What a request of a train is to read. It and all that it names stays where it is until
    /// [`Self::take`].
    pub(crate) fn message(&self, index: u32, request: u32) -> *const libc::msghdr {
        &raw const self.slots[index as usize].envelope.messages[request as usize]
    }

    /// Notes how a request ended that did not succeed in silence.
    pub(crate) fn note(&mut self, index: u32, request: u32, result: Result<u32, Errno>) {
        let letter = &mut self.slots[index as usize];
        let train = letter.train.as_ref().expect("a train in flight");
        let piece = letter.envelope.pieces[request as usize].iov_len;
        let bits = match train.cut {
            Cut::ByKernel => u64::MAX >> (u64::BITS as usize - train.datagrams()),
            Cut::Here => 1 << request,
        };
        match result {
            Ok(taken) if taken as usize == piece => {}
            Err(Errno::WOULD_WAIT | Errno::INTERRUPTED) => letter.left.waiting |= bits,
            // A datagram is taken whole or not at all; a kernel that thinks otherwise has lost it.
            Ok(_) => (letter.left.failed, letter.left.why) = (bits, Some(Errno(libc::EIO))),
            Err(errno) => {
                letter.left.failed |= bits;
                letter.left.why = Some(errno);
            }
        }
    }

    /// A request has ended. Returns whose, once it was the last one.
    pub(crate) fn end_one(&mut self, index: u32) -> Option<Tag> {
        let letter = &mut self.slots[index as usize];
        assert!(letter.open > 0, "letter {index} ended twice");
        letter.open -= 1;
        (letter.open == 0).then_some(letter.tag)
    }

    /// All requests have ended: silence was success.
    pub(crate) fn end_all(&mut self, index: u32) -> Tag {
        let letter = &mut self.slots[index as usize];
        assert!(letter.open > 0, "letter {index} ended twice");
        letter.open = 0;
        letter.tag
    }

    /// Gives a train back whose requests have all ended.
    pub(crate) fn take(&mut self, sent: SentTrain) -> (Train, Left) {
        let letter = &mut self.slots[sent.0 as usize];
        assert_eq!(letter.open, 0, "L1");
        let train = letter.train.take().expect("a train of this ring");
        self.free.push(sent.0);
        (train, letter.left)
    }

    /// Gives everything up for ever: the kernel may read it after we are gone.
    pub(crate) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.slots));
    }
}

impl Letter {
    fn empty() -> Letter {
        let envelope = Envelope {
            name: [0; ADDRESS_BYTES],
            control: [0; SENT_CONTROL_BYTES],
            pieces: Vec::new(),
            messages: Vec::new(),
        };
        let envelope = Box::new(envelope);
        Letter { train: None, envelope, tag: Tag(0), left: Left::default(), open: 0 }
    }
}

impl Envelope {
    /// Writes everything that the requests of a train read, and says how many there are.
    fn address(&mut self, socket: &DatagramSocket, train: &Train) -> u32 {
        let name = socket.write_name(train.towards.to, &mut self.name);
        let is_cut = train.cut == Cut::ByKernel && train.datagrams() > 1;
        let control = udp::write_controls(&mut self.control, &train.towards, is_cut);
        let piece_bytes = match train.cut {
            Cut::ByKernel => train.bytes.len(),
            Cut::Here => train.segment_bytes(),
        };
        self.pieces.clear();
        let pieces = train.bytes.chunks(piece_bytes);
        self.pieces.extend(pieces.map(|piece| libc::iovec {
            // The kernel only reads what is sent.
            iov_base: piece.as_ptr().cast_mut().cast(),
            iov_len: piece.len(),
        }));
        self.messages.clear();
        let first = self.pieces.as_mut_ptr();
        for at in 0..self.pieces.len() {
            let mut message = no_message();
            message.msg_name = self.name.as_mut_ptr().cast();
            message.msg_namelen = name as u32;
            message.msg_iov = first.wrapping_add(at);
            message.msg_iovlen = 1;
            if control > 0 {
                message.msg_control = self.control.as_mut_ptr().cast();
                message.msg_controllen = control;
            }
            self.messages.push(message);
        }
        self.messages.len() as u32
    }
}

fn no_message() -> libc::msghdr {
    // SAFETY: a `msghdr` is addresses and lengths, for which all zero bits are values: none.
    unsafe { std::mem::zeroed() }
}

/// What the kernel writes about what it received.
struct Inbox {
    message: libc::msghdr,
    piece: libc::iovec,
    name: [u8; NAME_BYTES],
    control: [u8; CONTROL_BYTES],
}

/// A receive of trains in flight, or a free slot.
struct Receive {
    inbox: Box<Inbox>,
    tag: Tag,
    group: Group,
    /// It goes on by itself, and the kernel writes everything into the buffers it fills.
    again: bool,
    busy: bool,
}

/// Receives of trains in flight, by slot.
#[derive(Default)]
pub(crate) struct Receives {
    slots: Vec<Receive>,
    free: Vec<u32>,
}

/// What a receive in flight is about.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) tag: Tag,
    pub(crate) group: Group,
    pub(crate) again: bool,
}

impl Receives {
    /// A receive into buffers of this size.
    pub(crate) fn begin(&mut self, asked: Asked, buffer_bytes: u32) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Receive::empty());
            self.slots.len() as u32 - 1
        });
        let receive = &mut self.slots[index as usize];
        assert!(!std::mem::replace(&mut receive.busy, true), "L2");
        (receive.tag, receive.group, receive.again) = (asked.tag, asked.group, asked.again);
        receive.inbox.open(asked.again, buffer_bytes);
        index
    }

    /// Where the kernel finds what it may write. That stays where it is until [`Self::end`].
    pub(crate) fn message(&mut self, index: u32) -> *mut libc::msghdr {
        &raw mut self.slots[index as usize].inbox.message
    }

    /// What a receive in flight is about.
    pub(crate) fn asked(&self, index: u32) -> Asked {
        let receive = &self.slots[index as usize];
        assert!(receive.busy, "receive {index} is over");
        Asked { tag: receive.tag, group: receive.group, again: receive.again }
    }

    /// It has ended.
    pub(crate) fn end(&mut self, index: u32) {
        assert!(
            std::mem::take(&mut self.slots[index as usize].busy),
            "receive {index} ended twice"
        );
        self.free.push(index);
    }

    /// Writes what the kernel wrote about a receive that has ended in front of the bytes that it
    /// received, as it does itself for receives that go on.
    pub(crate) fn write_front(&self, index: u32, front: &mut [u8], payload: u32) {
        let receive = &self.slots[index as usize];
        assert!(!receive.busy && !receive.again, "L2");
        let Inbox { message, name, control, .. } = &*receive.inbox;
        let name = &name[..(message.msg_namelen as usize).min(NAME_BYTES)];
        let control = &control[..message.msg_controllen.min(CONTROL_BYTES)];
        udp::write_front(front, name, control, payload, message.msg_flags as u32);
    }

    /// Gives everything up for ever: the kernel may write it after we are gone.
    pub(crate) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.slots));
    }
}

impl Receive {
    fn empty() -> Receive {
        let piece = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let (name, control) = ([0; NAME_BYTES], [0; CONTROL_BYTES]);
        let inbox = Box::new(Inbox { message: no_message(), piece, name, control });
        Receive { inbox, tag: Tag(0), group: Group::Datagrams, again: false, busy: false }
    }
}

impl Inbox {
    fn open(&mut self, again: bool, buffer_bytes: u32) {
        self.message = no_message();
        self.message.msg_namelen = NAME_BYTES as u32;
        self.message.msg_controllen = CONTROL_BYTES;
        if !again {
            // Room is left for what is written in front.
            self.piece.iov_len = buffer_bytes as usize - udp::FRONT_BYTES;
            self.message.msg_name = self.name.as_mut_ptr().cast();
            self.message.msg_control = self.control.as_mut_ptr().cast();
            self.message.msg_iov = &raw mut self.piece;
            self.message.msg_iovlen = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp::SocketMemory;

    fn socket() -> DatagramSocket {
        let any = "127.0.0.1:0".parse().expect("an address");
        DatagramSocket::bind(any, SocketMemory::default()).expect("loopback")
    }

    fn train(bytes: usize, segment: u16, cut: Cut) -> Train {
        let towards = Towards::new("127.0.0.1:9".parse().expect("an address"), segment);
        Train { towards, bytes: (0..bytes).map(|at| at as u8).collect(), cut }
    }

    /// Everything that a request names stays where it is while other trains come and go, and names
    /// exactly its piece of the bytes.
    #[test]
    fn letters_stay_put_until_the_end() {
        let (socket, mut letters) = (socket(), Letters::default());
        let mine = train(2500, 1000, Cut::Here);
        let bytes = mine.bytes.as_ptr();
        let slot = letters.begin(&socket, mine, Tag(7));
        assert_eq!(letters.open(slot), 3);
        let first = letters.message(slot, 0);
        let others: Vec<u32> =
            (0..100).map(|_| letters.begin(&socket, train(64, 1, Cut::ByKernel), Tag(1))).collect();
        for (request, len) in [1000, 1000, 500].into_iter().enumerate() {
            let message = letters.message(slot, request as u32);
            assert_eq!(message, first.wrapping_add(request));
            // SAFETY: the letter is in flight, so its envelope, which owns message and pieces,
            // is neither changed nor dropped (L1).
            let piece = unsafe { *(*message).msg_iov };
            assert_eq!(piece.iov_base.cast_const().cast(), bytes.wrapping_add(request * 1000));
            assert_eq!(piece.iov_len, len);
        }
        letters.note(slot, 1, Err(Errno::TOO_LONG));
        letters.note(slot, 2, Err(Errno::WOULD_WAIT));
        assert_eq!(letters.end_one(slot), None);
        assert_eq!(letters.end_one(slot), None);
        assert_eq!(letters.end_one(slot), Some(Tag(7)));
        let (mut back, left) = letters.take(SentTrain(slot));
        assert_eq!(back.bytes.as_ptr(), bytes);
        assert_eq!((left.failed, left.waiting, left.why), (2, 4, Some(Errno::TOO_LONG)));
        back.keep(left.waiting);
        assert_eq!((back.bytes.len(), back.bytes[0]), (500, 2000u16 as u8));
        for other in others {
            letters.note(other, 0, Err(Errno::NO_OFFLOAD));
            assert_eq!(letters.end_all(other), Tag(1));
            assert_eq!(letters.take(SentTrain(other)).1.failed, u64::MAX, "all 64");
        }
        assert!(letters.begin(&socket, train(1, 1, Cut::Here), Tag(2)) <= 100, "reused");
    }

    /// Which datagrams are kept is told by their bits, the short last one included.
    #[test]
    fn some_datagrams_are_kept() {
        let mut some = train(250, 100, Cut::Here);
        some.keep(0b101);
        assert_eq!(some.bytes, [(0..100).collect::<Vec<u8>>(), (200..250).collect()].concat());
        some.keep(0);
        assert!(some.bytes.is_empty());
    }

    /// A completion that the kernel never promised is our bug, not a second owner.
    #[test]
    #[should_panic(expected = "ended twice")]
    fn a_letter_ends_once() {
        let mut letters = Letters::default();
        let slot = letters.begin(&socket(), train(1, 1, Cut::ByKernel), Tag(0));
        letters.end_one(slot);
        letters.end_one(slot);
    }

    /// Nor is a train given back that the kernel may still read.
    #[test]
    #[should_panic(expected = "L1")]
    fn a_letter_in_flight_is_not_given_back() {
        let mut letters = Letters::default();
        let slot = letters.begin(&socket(), train(1, 1, Cut::ByKernel), Tag(0));
        letters.take(SentTrain(slot));
    }
}
