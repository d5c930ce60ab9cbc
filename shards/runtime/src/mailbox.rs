//! A mailbox: one sender, one receiver, a ring of bytes between them, no locks.
//!
//! Both sides count words for ever; the difference is what waits. The sender moves `tail` when
//! it publishes (once per turn, not per message), the receiver moves `head` when it has read
//! everything. Each side keeps a copy of the other's count and looks again only when that copy
//! says full, or empty: the cache line of a count travels once per batch.
//!
//! A message is a word with its length and a mark, and the bytes, padded to a word. It may wrap
//! around the end, so that any message up to the ring's size less a word fits an empty ring.
//!
//! Always:
//! - B1  head <= tail <= head + capacity.
//! - B2  Words between head and tail are the receiver's, all others the sender's.
//!
//! Bounds: the bytes given to [`mailbox`], touched as they are first used. A message costs its
//! copy in; the receiver reads in place, but for one per round that wraps.
//! Not here: waking the receiver (`wake.rs`), what does not fit (`office.rs`).
//! Tests: below; `loom_*` under loom (see `sync.rs`).

use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering, Words};

/// A count on a cache line (two, for the adjacent-line prefetcher) of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Count(AtomicUsize);

#[derive(Debug)]
struct Shared {
    tail: Count,
    head: Count,
    /// The sender waits for room and wants to be woken when there is some.
    wants_room: AtomicBool,
    words: Words,
}

/// The end that sends.
#[derive(Debug)]
pub(crate) struct Sender {
    shared: Arc<Shared>,
    tail: usize,
    tail_published: usize,
    head_seen: usize,
}

/// The end that receives.
#[derive(Debug)]
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    head: usize,
    /// A message that wraps is put together here.
    wrapped: Vec<u8>,
}

/// A mailbox of `bytes` bytes, a power of two and at least 16.
pub(crate) fn mailbox(bytes: usize) -> (Sender, Receiver) {
    assert!(bytes.is_power_of_two() && bytes >= 16, "a mailbox of {bytes} bytes");
    let shared = Arc::new(Shared {
        tail: Count(AtomicUsize::new(0)),
        head: Count(AtomicUsize::new(0)),
        wants_room: AtomicBool::new(false),
        words: Words::new(bytes / 8),
    });
    let sender = Sender { shared: Arc::clone(&shared), tail: 0, tail_published: 0, head_seen: 0 };
    (sender, Receiver { shared, head: 0, wrapped: Vec::new() })
}

impl Shared {
    fn index(&self, position: usize) -> usize {
        position & (self.words.len() - 1)
    }
}

/// What stands before a message: its length, and its mark.
#[inline]
pub(crate) fn header_of(mark: u32, len: usize) -> [u8; 8] {
    (u64::from(mark) << 32 | len as u64).to_le_bytes()
}

/// The mark and the length that stand in a header.
#[inline]
pub(crate) fn read_header(header: [u8; 8]) -> (u32, usize) {
    let header = u64::from_le_bytes(header);
    ((header >> 32) as u32, header as u32 as usize)
}

/// Words that a message takes.
fn words_of(len: usize) -> usize {
    1 + len.div_ceil(8)
}

impl Sender {
    /// Puts a message in, with a mark that travels beside it, for the receiver to see after
    /// [`Self::publish`]; false if it does not fit now.
    ///
    /// # Panics
    /// If it would never fit.
    pub(crate) fn push(&mut self, mark: u32, message: &[u8]) -> bool {
        let needed = words_of(message.len());
        assert!(needed <= self.shared.words.len(), "a message of {} bytes", message.len());
        if !self.has_room(message.len()) {
            return false;
        }
        // SAFETY: `has_room` means that these words lie beyond everything published and not yet
        // read (B2): the receiver accesses them after `publish`, which happens after the writes.
        unsafe {
            let header = header_of(mark, message.len());
            self.shared.words.write(self.shared.index(self.tail), &header);
            let start = self.shared.index(self.tail + 1);
            let split = message.len().min((self.shared.words.len() - start) * 8);
            self.shared.words.write(start, &message[..split]);
            if split < message.len() {
                self.shared.words.write(0, &message[split..]);
            }
        }
        self.tail = self.tail.wrapping_add(needed);
        true
    }

    /// Whether a message of `len` bytes fits now.
    pub(crate) fn has_room(&mut self, len: usize) -> bool {
        let limit = self.shared.words.len() - words_of(len);
        if self.tail.wrapping_sub(self.head_seen) <= limit {
            return true;
        }
        // Acquire: the receiver has read the words before it moved its head past them.
        self.head_seen = self.shared.head.0.load(Ordering::Acquire);
        self.tail.wrapping_sub(self.head_seen) <= limit
    }

    /// Shows the receiver everything pushed; true if there was anything.
    pub(crate) fn publish(&mut self) -> bool {
        if self.tail == self.tail_published {
            return false;
        }
        // Release: the words are written before the receiver sees that they are there.
        self.shared.tail.0.store(self.tail, Ordering::Release);
        self.tail_published = self.tail;
        true
    }

    /// Asks to be told when there is room. To be followed by a SeqCst fence and another
    /// [`Self::has_room`].
    pub(crate) fn ask_for_room(&self) {
        self.shared.wants_room.store(true, Ordering::Relaxed);
    }
}

impl Receiver {
    /// Takes out everything published so far, in order. Returns how many bytes of the ring that
    /// frees; if any, a SeqCst fence and [`Self::sender_waits`] are due.
    pub(crate) fn receive(&mut self, mut take: impl FnMut(u32, &[u8])) -> usize {
        // Acquire: what was published is written.
        let tail = self.shared.tail.0.load(Ordering::Acquire);
        let start = self.head;
        while self.head != tail {
            self.head = self.head.wrapping_add(self.receive_one(&mut take));
        }
        if self.head != start {
            // Release: we have read the words before the sender sees them free.
            self.shared.head.0.store(self.head, Ordering::Release);
        }
        self.head.wrapping_sub(start) * 8
    }

    fn receive_one(&mut self, take: &mut impl FnMut(u32, &[u8])) -> usize {
        let Shared { words, .. } = &*self.shared;
        let start = self.shared.index(self.head + 1);
        // SAFETY: all words read here lie between head and the published tail, where they are
        // ours (B2) until `receive` moves the head in shared memory, after this.
        unsafe {
            let (mark, len) = words.read(self.shared.index(self.head), 8, |bytes| {
                read_header(bytes.try_into().expect("eight bytes"))
            });
            let split = len.min((words.len() - start) * 8);
            if split == len {
                words.read(start, len, |bytes| take(mark, bytes));
            } else {
                self.wrapped.clear();
                words.read(start, split, |bytes| self.wrapped.extend_from_slice(bytes));
                words.read(0, len - split, |bytes| self.wrapped.extend_from_slice(bytes));
                take(mark, &self.wrapped);
            }
            words_of(len)
        }
    }

    /// Whether anything is published that was not received.
    pub(crate) fn has_mail(&self) -> bool {
        self.shared.tail.0.load(Ordering::Relaxed) != self.head
    }

    /// Whether the sender waits for the room that was just made; it is told once.
    pub(crate) fn sender_waits(&self) -> bool {
        self.shared.wants_room.load(Ordering::Relaxed)
            && self.shared.wants_room.swap(false, Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(receiver: &mut Receiver) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        receiver.receive(|_, bytes| got.push(bytes.to_vec()));
        got
    }

    /// Nothing is seen before it is published; then everything is, in order, once.
    #[test]
    fn messages_appear_when_published() {
        let (mut sender, mut receiver) = mailbox(64);
        assert!(sender.push(0, b"one") && sender.push(0, b"") && sender.push(0, b"three"));
        assert!(!receiver.has_mail());
        assert!(sender.publish() && !sender.publish());
        assert!(receiver.has_mail());
        assert_eq!(all(&mut receiver), [&b"one"[..], b"", b"three"]);
        assert_eq!(all(&mut receiver), Vec::<Vec<u8>>::new());
    }

    /// A full mailbox refuses, and takes again once the receiver has read; a sender that asked is
    /// told once.
    #[test]
    fn a_full_mailbox_refuses() {
        let (mut sender, mut receiver) = mailbox(64);
        assert!(sender.push(0, &[1; 40]) && !sender.push(0, &[2; 16]) && sender.push(0, &[3; 8]));
        sender.publish();
        assert!(!sender.push(0, b""));
        sender.ask_for_room();
        assert_eq!(all(&mut receiver), [vec![1; 40], vec![3; 8]]);
        assert!(receiver.sender_waits() && !receiver.sender_waits());
        assert!(
            sender.push(0, &[4; 56]),
            "a message as large as the ring fits it when it is empty"
        );
    }

    /// A message that could never fit is our bug, not a wait for ever.
    #[test]
    #[should_panic(expected = "a message of 57 bytes")]
    fn a_message_beyond_the_ring_is_a_bug() {
        mailbox(64).0.push(0, &[0; 57]);
    }

    proptest! {
        /// Any messages at any fill and any wrap arrive as they were sent.
        #[test]
        fn what_is_sent_arrives(
            rounds in proptest::collection::vec(proptest::collection::vec(0usize..120, 0..8), 1..60)
        ) {
            let (mut sender, mut receiver) = mailbox(128);
            let (mut sent, mut got, mut next) = (Vec::new(), Vec::new(), 0u8);
            for lens in rounds {
                for len in lens {
                    next = next.wrapping_add(1);
                    let message = vec![next; len];
                    if sender.push(0, &message) {
                        sent.push(message);
                    }
                }
                sender.publish();
                receiver.receive(|_, bytes| got.push(bytes.to_vec()));
                prop_assert_eq!(&sent, &got);
            }
        }
    }

    /// Two real threads, a million messages, nothing lost, doubled or out of order.
    #[test]
    fn a_million_messages_cross() {
        let (mut sender, mut receiver) = mailbox(4096);
        let thread = std::thread::spawn(move || {
            for number in 0..1_000_000u64 {
                while !sender.push(0, &number.to_le_bytes()) {
                    sender.publish();
                    std::thread::yield_now();
                }
                if number % 7 == 0 {
                    sender.publish();
                }
            }
            sender.publish();
        });
        let mut next = 0u64;
        while next < 1_000_000 {
            let freed = receiver.receive(|_, bytes| {
                assert_eq!(bytes, next.to_le_bytes());
                next += 1;
            });
            if freed == 0 {
                std::thread::yield_now();
            }
        }
        thread.join().unwrap();
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;

    /// The receiver reads only words that are written, the sender writes only words that are
    /// read, across a wrap.
    #[test]
    fn loom_words_change_hands() {
        loom::model(|| {
            let (mut sender, mut receiver) = mailbox(32);
            let thread = loom::thread::spawn(move || {
                let mut pushed = 0;
                for byte in 1..=3u8 {
                    if sender.push(0, &[byte; 12]) {
                        sender.publish();
                        pushed += 1;
                    }
                }
                pushed
            });
            let mut got = Vec::new();
            receiver.receive(|_, bytes| got.push(bytes.to_vec()));
            receiver.receive(|_, bytes| got.push(bytes.to_vec()));
            let pushed = thread.join().unwrap();
            receiver.receive(|_, bytes| got.push(bytes.to_vec()));
            assert_eq!(got.len(), pushed);
            assert!(got.iter().all(|bytes| bytes.len() == 12));
            assert!(got.windows(2).all(|pair| pair[0][0] < pair[1][0]));
        });
    }
}
