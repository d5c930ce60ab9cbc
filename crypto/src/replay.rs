//! What came before: packet numbers of a carrier, and salts of handshakes.
//!
//! What always holds:
//! - P1  A number is taken at most once; what is older than the window counts as taken.
//! - P2  A salt is taken at most once while its clock reading is fresh; then the clock refuses.
//!
//! Bounds: a packet window is a bit a number, at most 2^20; a salt costs about 40 bytes, at most as
//! many as said at the start, and constant time but for a search of log n.

use std::collections::BTreeSet;

use crate::handshake::CLOCK_SKEW_MS;
use crate::outer::Salt;

/// Why a number or a salt is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It was there before.
    Before,
    /// It is older than what is remembered.
    TooOld,
    /// As many salts as may be are remembered, all of them fresh. Try again in a minute.
    Full,
}

/// The numbers of a carrier that came, as a ring of bits behind the newest (as in RFC 6479).
pub struct PacketWindow {
    bits: Vec<u64>,
    /// One more than the newest number that was noted.
    end: u64,
}

const WINDOW_MIN: u32 = 1 << 10;
const WINDOW_MAX: u32 = 1 << 20;

impl PacketWindow {
    /// A window of the last `packets` numbers, rounded up to a power of two from 2^10 to 2^20.
    pub fn new(packets: u32) -> Self {
        let packets = packets.clamp(WINDOW_MIN, WINDOW_MAX).next_power_of_two();
        Self { bits: vec![0; packets as usize / 64], end: 0 }
    }

    /// How many numbers behind the newest are remembered: the ring but for the word that is being
    /// filled.
    pub fn packets(&self) -> u64 {
        (self.bits.len() as u64 - 1) * 64
    }

    /// Whether `number` may be taken.
    ///
    /// # Errors
    /// [`Seen::Before`] or [`Seen::TooOld`].
    pub fn check(&self, number: u64) -> Result<(), Seen> {
        if number >= self.end {
            return Ok(());
        }
        if self.end - 1 - number > self.packets() {
            return Err(Seen::TooOld);
        }
        let (word, bit) = self.place(number);
        if self.bits[word] & bit == 0 { Ok(()) } else { Err(Seen::Before) }
    }

    /// Notes that `number` was taken. One that the window has left behind is not noted.
    pub fn note(&mut self, number: u64) {
        if number >= self.end {
            // Words between the old end and the new one are the oldest now: they are emptied.
            let words = self.bits.len() as u64;
            let first = self.end.div_ceil(64);
            let last = number / 64;
            for word in first.max((last + 1).saturating_sub(words))..=last {
                self.bits[(word % words) as usize] = 0;
            }
            self.end = number.saturating_add(1);
        } else if self.end - 1 - number > self.packets() {
            return;
        }
        let (word, bit) = self.place(number);
        self.bits[word] |= bit;
    }

    /// Remembers more numbers from now on; what was forgotten stays forgotten.
    pub fn widen(&mut self, packets: u32) {
        let mut wide = PacketWindow::new(packets);
        if wide.bits.len() <= self.bits.len() {
            return;
        }
        wide.end = self.end;
        // What is remembered is copied; what is older than that counts as taken.
        let newest = self.end.saturating_sub(1);
        let oldest = newest.saturating_sub(wide.packets());
        for number in oldest..self.end {
            if self.check(number).is_err() {
                let (word, bit) = wide.place(number);
                wide.bits[word] |= bit;
            }
        }
        *self = wide;
    }

    fn place(&self, number: u64) -> (usize, u64) {
        ((number / 64 % self.bits.len() as u64) as usize, 1 << (number % 64))
    }
}

/// The salts of handshakes whose clock readings are still fresh.
pub struct SaltWindow {
    seen: BTreeSet<(u64, [u8; 16])>,
    salts_max: usize,
}

impl SaltWindow {
    /// An empty window of at most `salts_max`.
    pub const fn new(salts_max: usize) -> Self {
        Self { seen: BTreeSet::new(), salts_max }
    }

    /// Takes a salt that was sent at `sent_ms`, which is within the allowed skew of `now_ms`.
    ///
    /// # Errors
    /// [`Seen::Before`], or [`Seen::Full`]: nothing is forgotten to make room, or a flood of
    /// handshakes would make old ones good again.
    pub fn take(&mut self, salt: &Salt, sent_ms: u64, now_ms: u64) -> Result<(), Seen> {
        self.forget(now_ms);
        let entry = (sent_ms, half(salt));
        if self.seen.contains(&entry) {
            return Err(Seen::Before);
        }
        if self.seen.len() >= self.salts_max {
            return Err(Seen::Full);
        }
        self.seen.insert(entry);
        Ok(())
    }

    /// What is remembered, oldest first, to be kept over a restart.
    pub fn entries(&self) -> impl Iterator<Item = (u64, [u8; 16])> + '_ {
        self.seen.iter().copied()
    }

    /// Puts back what [`Self::entries`] gave; what is not fresh any more, or too much, is left out.
    pub fn restore(&mut self, entries: impl IntoIterator<Item = (u64, [u8; 16])>, now_ms: u64) {
        self.seen.extend(entries);
        self.forget(now_ms);
        while self.seen.len() > self.salts_max {
            self.seen.pop_first();
        }
    }

    fn forget(&mut self, now_ms: u64) {
        let oldest = now_ms.saturating_sub(CLOCK_SKEW_MS);
        while self.seen.first().is_some_and(|(sent_ms, _)| *sent_ms < oldest) {
            self.seen.pop_first();
        }
    }
}

/// 128 bits of chance are enough to tell salts apart.
fn half(salt: &Salt) -> [u8; 16] {
    *salt.first_chunk().expect("16 of 32 bytes")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The window against a plain set: nothing is taken twice, nothing within the window is
        /// refused that did not come, whatever the order, the jumps and the growth.
        #[test]
        fn it_is_a_set_with_a_horizon(
            steps in proptest::collection::vec((0u64..3000, any::<bool>(), 0u8..40), 1..300),
        ) {
            let mut window = PacketWindow::new(WINDOW_MIN);
            let mut taken = BTreeSet::new();
            let mut forgotten_below = 0;
            let mut newest = 0u64;
            for (offset, ahead, widen) in steps {
                let number = if ahead { newest + offset } else { newest.saturating_sub(offset) };
                if widen == 0 {
                    let horizon = newest.saturating_sub(window.packets());
                    forgotten_below = forgotten_below.max(horizon);
                    window.widen(4 * WINDOW_MIN);
                }
                forgotten_below = forgotten_below.max(newest.saturating_sub(window.packets()));
                let wanted = if taken.contains(&number) && number >= forgotten_below {
                    Err(Seen::Before)
                } else if number < forgotten_below {
                    Err(Seen::TooOld)
                } else {
                    Ok(())
                };
                let got = window.check(number);
                // What was forgotten before the window grew reads as taken, not as too old.
                prop_assert_eq!(got.is_ok(), wanted.is_ok(), "{} {:?} {:?}", number, got, wanted);
                if got.is_ok() {
                    window.note(number);
                    taken.insert(number);
                    newest = newest.max(number);
                }
            }
        }
    }

    #[test]
    fn the_last_numbers_there_are_do_not_overflow() {
        let mut window = PacketWindow::new(WINDOW_MIN);
        window.note(u64::MAX - 1);
        assert_eq!(window.check(u64::MAX - 1), Err(Seen::Before));
        assert_eq!(window.check(u64::MAX - 2), Ok(()));
        assert_eq!(window.check(0), Err(Seen::TooOld));
    }

    /// P2: a salt counts as seen for exactly as long as the clock would let it pass.
    #[test]
    fn salts_are_seen_while_they_are_fresh() {
        let mut window = SaltWindow::new(2);
        let (a, b, c) = ([1; 32], [2; 32], [3; 32]);
        assert_eq!(window.take(&a, 100_000, 100_000), Ok(()));
        assert_eq!(window.take(&a, 100_000, 130_000), Err(Seen::Before));
        assert_eq!(window.take(&b, 130_000, 130_000), Ok(()));
        assert_eq!(window.take(&c, 130_000, 130_000), Err(Seen::Full));
        // The first is older than the clock allows now, so its place is free.
        assert_eq!(window.take(&c, 130_001, 130_001), Ok(()));
        let kept: Vec<_> = window.entries().collect();
        let mut again = SaltWindow::new(2);
        again.restore(kept, 130_001);
        assert_eq!(again.take(&b, 130_000, 130_001), Err(Seen::Before));
        assert_eq!(again.take(&c, 130_001, 130_001), Err(Seen::Before));
    }
}
