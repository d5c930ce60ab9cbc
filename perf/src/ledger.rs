//! What was sent, and what of it has arrived.
//!
//! Every payload says who sent it to which name, as the how manyeth of this pair, and when; the
//! rest of it is made from that. So whoever has the payload knows what it must be.
//!
//! Always holds: what is counted as received came once, in the order of its pair, to where it was
//! sent, with every byte as it was sent. Cost: eight bytes twice for each pair of a sender and a
//! name; a few nanoseconds a message. Tests: below.

use crate::error::Broken;

/// Bytes of a payload that say what it is.
pub(crate) const STAMP_BYTES: usize = 24;

/// Counts of all pairs.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    names: usize,
    payload_bytes: usize,
    /// Of each pair the next to send, and the next to arrive.
    pairs: Vec<(u64, u64)>,
    /// Messages stamped.
    pub(crate) sent: u64,
    /// Messages that have arrived as they should.
    pub(crate) received: u64,
    /// Messages that a later one of their pair has overtaken: they will not come any more.
    pub(crate) missing: u64,
}

/// What a payload says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) sender: u32,
    pub(crate) name: u32,
    pub(crate) sent_ns: u64,
}

impl Ledger {
    /// For senders that each send payloads of one size, a stamp at least, to all names.
    pub(crate) fn new(senders: usize, names: usize, payload_bytes: usize) -> Ledger {
        let pairs = vec![(0, 0); senders * names];
        Ledger { names, payload_bytes, pairs, sent: 0, received: 0, missing: 0 }
    }

    /// Appends the next payload of a pair.
    #[inline]
    pub(crate) fn put(&mut self, stamp: Stamp, out: &mut Vec<u8>) {
        let pair = &mut self.pairs[stamp.sender as usize * self.names + stamp.name as usize];
        let number = pair.0;
        pair.0 += 1;
        self.sent += 1;
        out.extend_from_slice(&head(stamp, number));
        let mut filler = Filler::new(stamp, number);
        let mut left = self.payload_bytes - STAMP_BYTES;
        while left >= 8 {
            out.extend_from_slice(&filler.word());
            left -= 8;
        }
        out.extend_from_slice(&filler.word()[..left]);
    }

    /// A payload has arrived at a name.
    #[inline]
    pub(crate) fn take(&mut self, payload: &[u8]) -> Result<Stamp, Broken> {
        let wrong = Broken::Message("is not as it was sent");
        let (stamp, rest) = payload.split_first_chunk::<STAMP_BYTES>().ok_or(wrong)?;
        let half = |at: usize| u32::from_le_bytes(stamp[at..at + 4].try_into().expect("four"));
        let word = |at: usize| u64::from_le_bytes(stamp[at..at + 8].try_into().expect("eight"));
        let (sender, name, number, sent_ns) = (half(0), half(4), word(8), word(16));
        let stamp = Stamp { sender, name, sent_ns };
        if name as usize >= self.names || payload.len() != self.payload_bytes {
            return Err(wrong);
        }
        let pair = self.pairs.get_mut(sender as usize * self.names + name as usize);
        let (sent, due) = pair.ok_or(wrong)?;
        if number >= *sent || !Filler::new(stamp, number).fills(rest) {
            return Err(wrong);
        }
        if number < *due {
            return Err(Broken::Message("came twice, or behind a later one"));
        }
        self.missing += number - *due;
        *due = number + 1;
        self.received += 1;
        Ok(stamp)
    }
}

#[inline]
fn head(stamp: Stamp, number: u64) -> [u8; STAMP_BYTES] {
    let mut head = [0; STAMP_BYTES];
    head[..4].copy_from_slice(&stamp.sender.to_le_bytes());
    head[4..8].copy_from_slice(&stamp.name.to_le_bytes());
    head[8..16].copy_from_slice(&number.to_le_bytes());
    head[16..].copy_from_slice(&stamp.sent_ns.to_le_bytes());
    head
}

/// The bytes behind a stamp.
struct Filler(u64);

impl Filler {
    #[inline]
    fn new(stamp: Stamp, number: u64) -> Filler {
        let pair = u64::from(stamp.sender) << 32 | u64::from(stamp.name);
        Filler((number ^ pair.rotate_left(20) ^ stamp.sent_ns).wrapping_mul(ODD))
    }

    #[inline]
    fn word(&mut self) -> [u8; 8] {
        self.0 = self.0.wrapping_add(ODD).rotate_left(23);
        self.0.to_le_bytes()
    }

    #[inline]
    fn fills(mut self, bytes: &[u8]) -> bool {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().all(|word| *word == self.word()) && *rest == self.word()[..rest.len()]
    }
}

const ODD: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(ledger: &mut Ledger, sender: u32, name: u32) -> Vec<u8> {
        let mut out = vec![];
        ledger.put(Stamp { sender, name, sent_ns: 77 }, &mut out);
        assert_eq!(out.len(), 61);
        out
    }

    /// What arrives as it was sent is counted, pair by pair, in whatever order pairs come.
    #[test]
    fn pairs_are_counted_apart() {
        let mut ledger = Ledger::new(2, 3, 61);
        let first = sent(&mut ledger, 0, 2);
        let other = sent(&mut ledger, 1, 2);
        let second = sent(&mut ledger, 0, 2);
        assert_eq!(ledger.take(&other), Ok(Stamp { sender: 1, name: 2, sent_ns: 77 }));
        ledger.take(&first).expect("the first of its pair");
        ledger.take(&second).expect("the second of its pair");
        assert_eq!((ledger.sent, ledger.received, ledger.missing), (3, 3, 0));
    }

    /// One that is left out is missing. It is an error if it comes all the same, behind a later
    /// one, and so is one that comes twice.
    #[test]
    fn losses_are_told_from_disorder() {
        let mut ledger = Ledger::new(1, 1, 61);
        let all: Vec<_> = (0..4).map(|_| sent(&mut ledger, 0, 0)).collect();
        ledger.take(&all[0]).expect("in order");
        ledger.take(&all[3]).expect("two were dropped");
        assert_eq!((ledger.received, ledger.missing), (2, 2));
        for late in [&all[1], &all[3]] {
            let error = ledger.take(late).expect_err("late").to_string();
            assert!(error.contains("twice"), "{error}");
        }
    }

    /// A byte that is not as it was sent is found, wherever it stands; and so is a payload that
    /// was never sent, or a part of one.
    #[test]
    fn every_byte_counts() {
        let mut ledger = Ledger::new(2, 2, 61);
        let good = sent(&mut ledger, 1, 1);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            assert!(ledger.clone().take(&bad).is_err(), "byte {at}");
            assert!(ledger.clone().take(&good[..at]).is_err(), "cut at {at}");
        }
        let unsent = sent(&mut ledger.clone(), 0, 1);
        assert!(ledger.take(&unsent).is_err(), "nobody sent this to this name");
        ledger.take(&good).expect("as it was sent");
    }
}
