//! What a receiver of packets says of them: which have come, when the newest did, and how many.
//!
//! ```text
//! newest varint | arrived u64 | held varint | packets varint | bytes varint | dropped varint
//! then chunks:    first varint, a multiple of 64 | count varint | form u8 | body
//!   form 0        a bitmap: count words of 8 bytes, little-endian, the lowest bit is the first
//!   form 1        count runs as varints, in turn of packets that came and that did not
//! ```
//!
//! `arrived` is the receiver's clock in nanoseconds when `newest` came, `held` how many more
//! passed before this was said. Totals count everything that came on the carrier since its begin,
//! so that a report that is lost loses nothing of them. What no chunk covers is not lost by that;
//! numbers above `newest` mean nothing.
//!
//! Bounds: reading takes no memory and time by the words it covers, at most [`WORDS_MAX`].

use alloc::vec::Vec;

use ringway_core::wire::Reader;
use ringway_core::{Moment, Span};

use crate::frame::{Malformed, VARINT_MAX, put_varint, varint, varint_len};

/// Words of 64 numbers that one report may cover: more than a datagram's worth of bitmap.
pub(super) const WORDS_MAX: u64 = 4096;
/// Bytes of everything before the chunks, at most.
const HEAD_MAX: usize = 8 + 8 + 8 + 8 + 8 + 8;
/// Bytes before the body of a chunk, at most.
const CHUNK_HEAD_MAX: usize = 8 + 8 + 1;
const BITMAP: u8 = 0;
const RUNS: u8 = 1;

/// What is said beside the chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// The largest number that has come.
    pub newest: u64,
    /// When it did, by the receiver's clock.
    pub arrived: Moment,
    /// How long ago that was.
    pub held: Span,
    /// Packets that have come.
    pub packets: u64,
    /// Their bytes, as the sender counts them.
    pub bytes: u64,
    /// Datagrams that the receiver had no room for: no fault of the path.
    pub dropped: u64,
}

/// One report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report<'a> {
    /// How things stand.
    pub totals: Totals,
    chunks: &'a [u8],
    body: &'a [u8],
}

impl<'a> Report<'a> {
    /// Reads the body of a frame, all of it.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let newest = varint(&mut reader)?;
        let arrived = Moment(reader.u64()?);
        let held = Span(varint(&mut reader)?);
        let (packets, bytes) = (varint(&mut reader)?, varint(&mut reader)?);
        let dropped = varint(&mut reader)?;
        let chunks = reader.rest();
        let report = Self {
            totals: Totals { newest, arrived, held, packets, bytes, dropped },
            chunks,
            body,
        };
        let mut left = WORDS_MAX;
        report.walk(|_, _, _| {
            left = left.checked_sub(1).ok_or(Malformed)?;
            Ok(())
        })?;
        Ok(report)
    }

    /// As it was read.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Calls `each` with every word that is covered: the number of its lowest bit, which of its
    /// bits are covered, and which of those have come.
    pub fn words(&self, mut each: impl FnMut(u64, u64, u64)) {
        let each = |number, mask, came| {
            each(number, mask, came);
            Ok(())
        };
        self.walk(each).expect("it was read whole before");
    }

    /// Goes on to the end, or to the first word that is too much.
    fn walk(
        &self,
        mut each: impl FnMut(u64, u64, u64) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut reader = Reader::new(self.chunks);
        while !reader.is_empty() {
            let (first, count) = (varint(&mut reader)?, varint(&mut reader)?);
            if first % 64 != 0 || first > self.totals.newest || count > WORDS_MAX * 64 {
                return Err(Malformed);
            }
            match reader.u8()? {
                BITMAP => {
                    for at in 0..count {
                        each(first + at * 64, u64::MAX, reader.u64()?)?;
                    }
                }
                RUNS => runs(&mut reader, (first, count), &mut each)?,
                _ => return Err(Malformed),
            }
        }
        Ok(())
    }
}

/// Walks `count` runs from `first` on, word by word.
fn runs(
    reader: &mut Reader<'_>,
    (first, count): (u64, u64),
    each: &mut impl FnMut(u64, u64, u64) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let (mut word, mut covered, mut came) = (first, 0_u64, 0_u64);
    let mut at = first;
    for run in 0..count {
        let mut left = varint(reader)?;
        if left > WORDS_MAX * 64 || at + left > first + WORDS_MAX * 64 {
            return Err(Malformed);
        }
        while left > 0 {
            let bit = at - word;
            let here = left.min(64 - bit);
            let mask = (u64::MAX >> (64 - here)) << bit;
            covered |= mask;
            if run % 2 == 0 {
                came |= mask;
            }
            (at, left) = (at + here, left - here);
            if at - word == 64 {
                each(word, covered, came)?;
                (word, covered, came) = (at, 0, 0);
            }
        }
    }
    if covered == 0 { Ok(()) } else { each(word, covered, came) }
}

/// Writes a report's body into what was empty: first its totals, then chunks while there is room.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    end: usize,
    runs: Vec<u8>,
    /// Words that it may cover still.
    words_left: u64,
}

impl<'a> Writer<'a> {
    /// Appends totals to `out`; the whole takes at most `room` bytes.
    ///
    /// # Panics
    /// If `room` is smaller than 128 bytes.
    pub(super) fn new(out: &'a mut Vec<u8>, room: usize, totals: &Totals) -> Self {
        assert!(room >= HEAD_MAX + CHUNK_HEAD_MAX + 8, "a report has room for a word");
        let end = out.len() + room;
        put_varint(out, totals.newest);
        out.extend_from_slice(&totals.arrived.0.to_le_bytes());
        put_varint(out, totals.held.0.min(VARINT_MAX));
        put_varint(out, totals.packets);
        put_varint(out, totals.bytes);
        put_varint(out, totals.dropped);
        Self { out, end, runs: Vec::new(), words_left: WORDS_MAX }
    }

    /// Bytes that are left.
    pub(super) fn room(&self) -> usize {
        self.end - self.out.len()
    }

    /// Appends a chunk from `first` on, a multiple of 64, as many of these words as fit, in the
    /// shorter form. Returns how many words it covers.
    pub(super) fn chunk(&mut self, first: u64, words: impl Iterator<Item = u64> + Clone) -> u64 {
        debug_assert_eq!(first % 64, 0, "chunks begin with a word");
        let Some(room) = self.room().checked_sub(CHUNK_HEAD_MAX).filter(|room| *room >= 8) else {
            return 0;
        };
        let words = words.take(self.words_left as usize);
        let fit = words.clone().take(room / 8).count() as u64;
        self.runs.clear();
        let (run_words, run_count) = write_runs(words.clone(), room, &mut self.runs);
        // As runs it says as much in fewer bytes, or more of it.
        let bitmap_bytes = fit as usize * 8;
        if run_words > fit || run_words == fit && self.runs.len() < bitmap_bytes {
            put_varint(self.out, first);
            put_varint(self.out, run_count);
            self.out.push(RUNS);
            self.out.extend_from_slice(&self.runs);
            self.words_left -= run_words;
            return run_words;
        }
        if fit > 0 {
            put_varint(self.out, first);
            put_varint(self.out, fit);
            self.out.push(BITMAP);
            words
                .take(fit as usize)
                .for_each(|word| self.out.extend_from_slice(&word.to_le_bytes()));
        }
        self.words_left -= fit;
        fit
    }
}

/// Appends whole words as runs while they fit; returns how many words and runs.
fn write_runs(words: impl Iterator<Item = u64>, room: usize, out: &mut Vec<u8>) -> (u64, u64) {
    // The run that is not ended yet, and whether it is one of packets that came.
    let (mut run, mut came) = (0_u64, true);
    let (mut whole, mut count) = (0, 0);
    for word in words {
        let (len, count_before, run_before, came_before) = (out.len(), count, run, came);
        let mut bit = 0;
        while bit < 64 {
            let rest = if came { !(word >> bit) } else { word >> bit };
            let same = u64::from(rest.trailing_zeros()).min(64 - bit);
            (run, bit) = (run + same, bit + same);
            if bit < 64 {
                put_varint(out, run);
                (run, came, count) = (0, !came, count + 1);
            }
        }
        if out.len() + varint_len(run) > room {
            out.truncate(len);
            (count, run, came) = (count_before, run_before, came_before);
            break;
        }
        whole += 1;
    }
    let _ = came;
    if whole > 0 {
        put_varint(out, run);
        count += 1;
    }
    (whole, count)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn totals(newest: u64) -> Totals {
        Totals {
            newest,
            arrived: Moment(5),
            held: Span(7),
            packets: newest / 2,
            bytes: newest * 700,
            dropped: 3,
        }
    }

    fn written(room: usize, first: u64, words: &[u64]) -> (Vec<u8>, u64) {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, room, &totals(first + words.len() as u64 * 64));
        let covered = writer.chunk(first, words.iter().copied());
        (out, covered)
    }

    fn read(bytes: &[u8]) -> Vec<(u64, u64, u64)> {
        let mut all = Vec::new();
        Report::read(bytes).unwrap().words(|first, covered, came| all.push((first, covered, came)));
        all
    }

    #[test]
    fn few_losses_are_said_as_runs() {
        let mut words = vec![u64::MAX; 100];
        words[40] = !(1 << 17);
        let (bytes, covered) = written(1200, 6400, &words);
        assert_eq!(covered, 100);
        assert!(bytes.len() < 50, "{}", bytes.len());
        let read = read(&bytes);
        assert_eq!(read.len(), 100);
        assert_eq!(read[40], (6400 + 40 * 64, u64::MAX, !(1 << 17)));
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let words = vec![0x5555_5555_5555_5555; 1000];
        let (bytes, covered) = written(1200, 0, &words);
        assert!(bytes.len() <= 1200 && covered >= 130, "{} {covered}", bytes.len());
        assert_eq!(read(&bytes).len() as u64, covered);
    }

    /// What covers more than a report may is refused: it would cost more than it took to send.
    #[test]
    fn too_much_is_refused() {
        let head = |count: u64, form: u8| {
            let mut out = Vec::new();
            Writer::new(&mut out, 200, &totals(1 << 40));
            put_varint(&mut out, 0);
            put_varint(&mut out, count);
            out.push(form);
            out
        };
        let mut runs = head(1, RUNS);
        put_varint(&mut runs, WORDS_MAX * 64 + 1);
        assert_eq!(Report::read(&runs), Err(Malformed));
        let mut bitmap = head(WORDS_MAX + 1, BITMAP);
        bitmap.resize(bitmap.len() + (WORDS_MAX as usize + 1) * 8, 0);
        assert_eq!(Report::read(&bitmap), Err(Malformed));
        // Each chunk covers no more than it may, and the second is not looked at to its end.
        let mut twice = head(1, RUNS);
        put_varint(&mut twice, WORDS_MAX * 64);
        assert!(Report::read(&twice).is_ok());
        put_varint(&mut twice, 0);
        put_varint(&mut twice, 2);
        twice.push(RUNS);
        put_varint(&mut twice, 64);
        assert_eq!(Report::read(&twice), Err(Malformed));
    }

    proptest! {
        #[test]
        fn reports_say_what_was_written(
            words in prop::collection::vec(
                prop_oneof![Just(u64::MAX), Just(0), any::<u64>()], 1..300),
            first in 0..1_000_u64,
            room in 128..2000_usize,
        ) {
            let (bytes, covered) = written(room, first * 64, &words);
            prop_assert!(bytes.len() <= room);
            prop_assert!(covered > 0);
            let said = read(&bytes);
            prop_assert_eq!(said.len() as u64, covered);
            for (at, (number, mask, came)) in said.into_iter().enumerate() {
                let expected = ((first + at as u64) * 64, u64::MAX, words[at]);
                prop_assert_eq!((number, mask, came), expected);
            }
        }

        #[test]
        fn junk_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(report) = Report::read(&bytes) {
                report.words(|_, _, _| {});
            }
        }
    }
}
