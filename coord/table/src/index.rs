//! From a hash to the records that may be meant: 64-byte lines, grown one line at a time.
//!
//! Bucket `b` is line `b` of its region: 12 tags of 8 bits, 12 record ids, and a link. Linear
//! hashing decides which bucket a hash belongs to: with `n` buckets, `2^k <= n < 2^(k+1)`, the low
//! `k+1` bits of the hash if that bucket exists already, else the low `k`. Growing by one bucket
//! splits one bucket; nothing else moves, so there is never a pause.
//!
//! While a round of splits lasts, buckets not yet split are twice as full as those that are. Their
//! surplus goes to overflow lines of 10 entries, from the pool of lines. What keeps that compact
//! is that neighbours (`GROUP` buckets) share overflow lines: an entry there carries its bucket's
//! place in the group beside its tag. A bucket moves its entries as a whole to a line with more
//! room, so that nearly every bucket has at most one overflow line.
//!
//! Invariants, checked in tests:
//! - I1  A bucket has overflow only while its own 12 places are taken.
//! - I2  The overflow of a bucket is a chain. All but its last line are full, and of this bucket
//!   alone; the last one holds at least one entry of this bucket, and is shared only within the
//!   group.
//! - I3  A tag is never zero where there is an entry, and always zero where there is none.
//!
//! Bounds: a chain is as long as the entries of one bucket demand, which a keyed hash keeps below
//! five lines. A split touches one bucket and its chain.
//! Not here: comparing names, and hashing them again for a split (`record.rs`).
//! Tests: `tests.rs` with the whole table, weak hashes and bounded memory; `check` below.

use ringway_core::Region;

use crate::Full;
use crate::pool::Pool;
use crate::prefetch::prefetch;

/// 64-byte lines: overflow of the index, and the owners' logs.
pub(crate) type Lines<R> = Pool<R, 16>;

/// The buckets.
pub(crate) struct Index<R> {
    region: R,
    /// How many buckets there are.
    buckets: u32,
    /// `2^(k+1) - 1`: the bits of a hash that choose the bucket, if it exists.
    mask: u32,
    /// How many ids there are in all buckets.
    len: u32,
    /// How many overflow lines there are.
    overflow: u32,
}

impl<R: Region> Index<R> {
    /// An index over an empty region.
    pub(crate) fn new(mut region: R) -> Result<Self, Full> {
        region.grow_to(BUCKETS_MIN as usize * LINE)?;
        Ok(Self { region, buckets: BUCKETS_MIN, mask: 2 * BUCKETS_MIN - 1, len: 0, overflow: 0 })
    }

    /// Prefetches the line of a hash's bucket.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        prefetch(self.region.words(), self.bucket_of(hash) as usize * LINE);
    }

    /// Calls `near` with each id in the bucket's own line whose tag agrees. If there is none,
    /// prefetches the first overflow line and says true: ask `overflow_candidates` then.
    #[inline]
    pub(crate) fn candidates(
        &self,
        lines: &Lines<R>,
        hash: u64,
        mut near: impl FnMut(u32),
    ) -> bool {
        let line = self.line(self.bucket_of(hash));
        let mut places = places_of(line, tag_of(hash));
        if places == 0 && line[LINK] != 0 {
            lines.prefetch(line[LINK]);
            return true;
        }
        while places != 0 {
            near(line[IDS + places.trailing_zeros() as usize]);
            places &= places - 1;
        }
        false
    }

    /// Calls `near` with each id in the bucket's first overflow line that may be meant.
    #[inline]
    pub(crate) fn overflow_candidates(
        &self,
        lines: &Lines<R>,
        hash: u64,
        mut near: impl FnMut(u32),
    ) {
        let bucket = self.bucket_of(hash);
        let link = self.line(bucket)[LINK];
        if link != 0 {
            let line = lines.block(link);
            let mut places = overflow_places(line, entry_of(bucket, tag_of(hash)));
            while places != 0 {
                near(line[OVERFLOW_IDS + places.trailing_zeros() as usize]);
                places &= places - 1;
            }
        }
    }

    /// Prefetches the first overflow line of a hash's bucket, if it has any.
    #[inline]
    pub(crate) fn prefetch_chain(&self, lines: &Lines<R>, hash: u64) {
        let link = self.line(self.bucket_of(hash))[LINK];
        if link != 0 {
            lines.prefetch(link);
        }
    }

    /// The id under this hash that `is` accepts.
    #[inline]
    pub(crate) fn find(
        &self,
        lines: &Lines<R>,
        hash: u64,
        mut is: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let bucket = self.bucket_of(hash);
        let line = self.line(bucket);
        let mut places = places_of(line, tag_of(hash));
        while places != 0 {
            let id = line[IDS + places.trailing_zeros() as usize];
            if is(id) {
                return Some(id);
            }
            places &= places - 1;
        }
        let mut link = line[LINK];
        while link != 0 {
            let line = lines.block(link);
            let mut places = overflow_places(line, entry_of(bucket, tag_of(hash)));
            while places != 0 {
                let id = line[OVERFLOW_IDS + places.trailing_zeros() as usize];
                if is(id) {
                    return Some(id);
                }
                places &= places - 1;
            }
            link = line[OVERFLOW_LINK];
        }
        None
    }

    /// Adds an id that is not there. One line must be reserved in `lines`.
    #[inline]
    pub(crate) fn insert(&mut self, lines: &mut Lines<R>, hash: u64, id: u32) {
        let bucket = self.bucket_of(hash);
        self.put(lines, bucket, tag_of(hash), id);
        self.len += 1;
    }

    /// Removes an id.
    ///
    /// # Panics
    /// If the id is not there under this hash.
    #[inline]
    pub(crate) fn remove(&mut self, lines: &mut Lines<R>, hash: u64, id: u32) {
        let bucket = self.bucket_of(hash);
        self.len -= 1;
        let line = self.line(bucket);
        let link = line[LINK];
        match line[IDS..].iter().position(|there| *there == id) {
            Some(place) if link == 0 => {
                let line = self.line_mut(bucket);
                set_tag(line, place, 0);
                line[IDS + place] = 0;
            }
            Some(place) => {
                let (entry, last) = self.take_last(lines, bucket);
                let line = self.line_mut(bucket);
                set_tag(line, place, entry as u8);
                line[IDS + place] = last;
            }
            None => self.remove_from_overflow(lines, bucket, id),
        }
    }

    /// Whether the buckets are fuller than they should be, so that one should be split.
    #[inline]
    pub(crate) fn is_split_due(&self) -> bool {
        self.until_split() < 0
    }

    /// How many more ids there may be before a split is due.
    #[inline]
    fn until_split(&self) -> i64 {
        (u64::from(self.buckets) * LOAD_16THS / 16) as i64 - i64::from(self.len)
    }

    /// Brings what the next split will touch nearer, in the three steps that depend on each
    /// other, a few inserts apart. Cheap, and right whenever it is called.
    #[inline]
    pub(crate) fn prepare_split(&self, lines: &Lines<R>, near: impl FnMut(u32)) {
        match self.until_split() {
            5 => self.prefetch_split(),
            3 => self.prefetch_split_ids(lines, near),
            1 => self.prefetch_split_overflow(lines, near),
            _ => {}
        }
    }

    #[inline(never)]
    fn prefetch_split(&self) {
        prefetch(self.region.words(), self.next_split() as usize * LINE);
        prefetch(self.region.words(), self.buckets as usize * LINE);
    }

    #[inline(never)]
    fn prefetch_split_ids(&self, lines: &Lines<R>, near: impl FnMut(u32)) {
        let line = self.line(self.next_split());
        if line[LINK] != 0 {
            lines.prefetch(line[LINK]);
        }
        line[IDS..].iter().copied().for_each(near);
    }

    #[inline(never)]
    fn prefetch_split_overflow(&self, lines: &Lines<R>, mut near: impl FnMut(u32)) {
        let bucket = self.next_split();
        let link = self.line(bucket)[LINK];
        if link != 0 {
            let line = lines.block(link);
            let places = places_in_overflow(line, bucket);
            (0..OVERFLOW_PLACES).filter(|place| places & 1 << place != 0).for_each(|place| {
                near(line[OVERFLOW_IDS + place]);
            });
        }
    }

    /// Adds one bucket, and moves to it what belongs there. On `Full` nothing has changed, and
    /// everything still works: the buckets only stay fuller.
    #[inline(never)]
    pub(crate) fn split(
        &mut self,
        lines: &mut Lines<R>,
        hash_of: impl Fn(u32) -> u64,
    ) -> Result<(), Full> {
        if self.buckets >= BUCKETS_MAX {
            return Err(Full);
        }
        self.grow()?;
        let old = self.next_split();
        lines.reserve(self.chain_lines(lines, old) + 2)?;

        let line = *self.line(old);
        *self.line_mut(old) = [0; LINE];
        let new = self.buckets;
        self.buckets += 1;
        if self.buckets > self.mask {
            self.mask = 2 * self.mask + 1;
        }
        let ids: &[u32; PLACES] = line[IDS..].first_chunk().expect("12 ids");
        // All hashes first: they do not wait for each other.
        let hashes = ids.map(|id| if id == 0 { 0 } else { hash_of(id) });
        for (id, hash) in ids.iter().zip(hashes) {
            if *id != 0 {
                let bucket = self.bucket_of(hash);
                debug_assert!(bucket == old || bucket == new);
                self.put(lines, bucket, tag_of(hash), *id);
            }
        }
        if line[LINK] != 0 {
            self.split_chain(lines, old, line[LINK], hash_of);
        }
        Ok(())
    }

    /// Puts the entries of a chain, which nothing links to any more, where they belong now. The
    /// last line goes first: it may be shared, and could else be attached to again before it is
    /// read.
    fn split_chain(
        &mut self,
        lines: &mut Lines<R>,
        old: u32,
        head: u32,
        hash_of: impl Fn(u32) -> u64,
    ) {
        let mut last = head;
        while lines.block(last)[OVERFLOW_LINK] != 0 {
            last = lines.block(last)[OVERFLOW_LINK];
        }
        self.put_again(lines, old, last, &hash_of);
        let mut link = head;
        while link != last {
            let next = lines.block(link)[OVERFLOW_LINK];
            self.put_again(lines, old, link, &hash_of);
            link = next;
        }
    }

    /// Takes all entries of bucket `old` out of an overflow line, and puts each where it belongs.
    fn put_again(
        &mut self,
        lines: &mut Lines<R>,
        old: u32,
        link: u32,
        hash_of: &impl Fn(u32) -> u64,
    ) {
        let before = *lines.block(link);
        let mut places = places_in_overflow(&before, old);
        self.clear(lines, link, places);
        while places != 0 {
            let id = before[OVERFLOW_IDS + places.trailing_zeros() as usize];
            let hash = hash_of(id);
            self.put(lines, self.bucket_of(hash), tag_of(hash), id);
            places &= places - 1;
        }
    }

    /// Puts an entry into a bucket.
    #[inline]
    fn put(&mut self, lines: &mut Lines<R>, bucket: u32, tag: u8, id: u32) {
        let line = self.line_mut(bucket);
        let free = places_of(line, 0);
        if free == 0 {
            return self.put_in_overflow(lines, bucket, entry_of(bucket, tag), id);
        }
        let place = free.trailing_zeros() as usize;
        set_tag(line, place, tag);
        line[IDS + place] = id;
    }

    #[inline(never)]
    fn put_in_overflow(&mut self, lines: &mut Lines<R>, bucket: u32, entry: u16, id: u32) {
        let (holder, last) = self.last_link(lines, bucket);
        if last != 0 {
            let line = lines.block(last);
            if overflow_places(line, 0) != 0 {
                return add_to_overflow(lines.block_mut(last), entry, id);
            }
            let places = places_in_overflow(line, bucket);
            if places.count_ones() as usize == OVERFLOW_PLACES {
                let next = self.shared_or_new(lines, bucket, 1);
                add_to_overflow(lines.block_mut(next), entry, id);
                lines.block_mut(last)[OVERFLOW_LINK] = next;
                return;
            }
            // The line is full of others' entries: ours move on, all together.
            let next = self.shared_or_new(lines, bucket, places.count_ones() + 1);
            self.move_entries(lines, (last, places), next);
            add_to_overflow(lines.block_mut(next), entry, id);
            return self.set_link(lines, bucket, holder, next);
        }
        let next = self.shared_or_new(lines, bucket, 1);
        add_to_overflow(lines.block_mut(next), entry, id);
        self.set_link(lines, bucket, holder, next);
    }

    /// An overflow line of the group with room for `room` more entries, or a new one.
    fn shared_or_new(&mut self, lines: &mut Lines<R>, bucket: u32, room: u32) -> u32 {
        for step in 1..GROUP {
            let neighbour = bucket ^ step;
            if neighbour < self.buckets {
                let link = self.line(neighbour)[LINK];
                if link != 0 {
                    let line = lines.block(link);
                    let is_last = line[OVERFLOW_LINK] == 0;
                    if is_last && overflow_places(line, 0).count_ones() >= room {
                        return link;
                    }
                }
            }
        }
        self.overflow += 1;
        lines.take_zeroed()
    }

    fn move_entries(&mut self, lines: &mut Lines<R>, from: (u32, u32), to: u32) {
        let (link, mut places) = from;
        let before = *lines.block(link);
        self.clear(lines, link, places);
        while places != 0 {
            let place = places.trailing_zeros() as usize;
            add_to_overflow(
                lines.block_mut(to),
                entry_at(&before, place),
                before[OVERFLOW_IDS + place],
            );
            places &= places - 1;
        }
    }

    /// The last line of a bucket's chain (0: none), and the line that links to it (0: the bucket).
    fn last_link(&self, lines: &Lines<R>, bucket: u32) -> (u32, u32) {
        let (mut holder, mut last) = (0, self.line(bucket)[LINK]);
        while last != 0 && lines.block(last)[OVERFLOW_LINK] != 0 {
            (holder, last) = (last, lines.block(last)[OVERFLOW_LINK]);
        }
        (holder, last)
    }

    fn set_link(&mut self, lines: &mut Lines<R>, bucket: u32, holder: u32, link: u32) {
        if holder == 0 {
            self.line_mut(bucket)[LINK] = link;
        } else {
            lines.block_mut(holder)[OVERFLOW_LINK] = link;
        }
    }

    /// Takes an entry out of the last line of a bucket's chain, which is not empty.
    fn take_last(&mut self, lines: &mut Lines<R>, bucket: u32) -> (u16, u32) {
        let (holder, last) = self.last_link(lines, bucket);
        let line = lines.block(last);
        let places = places_in_overflow(line, bucket);
        let place = places.trailing_zeros() as usize;
        let taken = (entry_at(line, place), line[OVERFLOW_IDS + place]);
        if places.count_ones() == 1 {
            self.set_link(lines, bucket, holder, 0);
        }
        self.clear(lines, last, 1 << place);
        taken
    }

    #[inline(never)]
    fn remove_from_overflow(&mut self, lines: &mut Lines<R>, bucket: u32, id: u32) {
        let mut link = self.line(bucket)[LINK];
        loop {
            assert!(link != 0, "record {id} is not in its bucket");
            let line = lines.block(link);
            let mut places = places_in_overflow(line, bucket);
            while places != 0 && line[OVERFLOW_IDS + places.trailing_zeros() as usize] != id {
                places &= places - 1;
            }
            if places != 0 {
                return self.fill_hole(lines, bucket, link, places.trailing_zeros() as usize);
            }
            link = line[OVERFLOW_LINK];
        }
    }

    /// Removes one entry of a chain by putting the chain's last one into its place.
    fn fill_hole(&mut self, lines: &mut Lines<R>, bucket: u32, link: u32, place: usize) {
        let id = lines.block(link)[OVERFLOW_IDS + place];
        let (entry, last) = self.take_last(lines, bucket);
        if last != id {
            let line = lines.block_mut(link);
            set_entry(line, place, entry);
            line[OVERFLOW_IDS + place] = last;
        }
    }

    /// Clears places of an overflow line, and gives it back once it is empty.
    fn clear(&mut self, lines: &mut Lines<R>, link: u32, mut places: u32) {
        let line = lines.block_mut(link);
        while places != 0 {
            set_entry(line, places.trailing_zeros() as usize, 0);
            places &= places - 1;
        }
        if overflow_places(line, 0).count_ones() as usize == OVERFLOW_PLACES {
            self.overflow -= 1;
            lines.give(link);
        }
    }

    fn chain_lines(&self, lines: &Lines<R>, bucket: u32) -> u32 {
        let (mut count, mut link) = (0, self.line(bucket)[LINK]);
        while link != 0 {
            count += 1;
            link = lines.block(link)[OVERFLOW_LINK];
        }
        count
    }

    /// Makes room for one more bucket.
    #[inline]
    fn grow(&mut self) -> Result<(), Full> {
        let needed = (self.buckets as usize + 1) * LINE;
        if needed <= self.region.words().len() {
            return Ok(());
        }
        if self.region.grow_to(needed + STEP_BUCKETS * LINE).is_err() {
            self.region.grow_to(needed)?;
        }
        Ok(())
    }

    /// The bucket that will be split next.
    #[inline]
    fn next_split(&self) -> u32 {
        self.buckets & (self.mask >> 1)
    }

    #[inline]
    fn bucket_of(&self, hash: u64) -> u32 {
        let wide = hash as u32 & self.mask;
        if wide < self.buckets { wide } else { wide & (self.mask >> 1) }
    }

    #[inline]
    fn line(&self, bucket: u32) -> &[u32; LINE] {
        let rest = &self.region.words()[bucket as usize * LINE..];
        rest.first_chunk().expect("a bucket that exists")
    }

    #[inline]
    fn line_mut(&mut self, bucket: u32) -> &mut [u32; LINE] {
        let rest = &mut self.region.words_mut()[bucket as usize * LINE..];
        rest.first_chunk_mut().expect("a bucket that exists")
    }

    /// Bytes of the buckets, and of the overflow lines in the pool of lines.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        (size_of_val(self.region.words()), self.overflow as usize * LINE * 4)
    }
}

#[inline]
fn tag_of(hash: u64) -> u8 {
    ((hash >> 56) as u8).max(1)
}

/// The places of a bucket's line that hold this tag, as bits.
#[inline]
fn places_of(line: &[u32; LINE], tag: u8) -> u32 {
    let wanted = u64::from(tag) * LOW_BITS;
    let low = u64::from(line[0]) | u64::from(line[1]) << 32;
    let high = u64::from(line[2]);
    zero_bytes(low ^ wanted) | (zero_bytes(high ^ wanted) & 0xF) << 8
}

/// Which of eight bytes are zero, as bits: exact, without carries from one byte to the next.
#[inline]
fn zero_bytes(bytes: u64) -> u32 {
    let high_bits = 0x80 * LOW_BITS;
    let zero = !(((bytes & !high_bits) + !high_bits) | bytes) & high_bits;
    // Each of the eight high bits lands in a place of its own in the top byte.
    ((zero >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

#[inline]
fn set_tag(line: &mut [u32; LINE], place: usize, tag: u8) {
    let (word, shift) = (&mut line[place / 4], 8 * (place % 4));
    *word = *word & !(0xFF << shift) | u32::from(tag) << shift;
}

/// How an entry is marked in an overflow line: its tag, and its bucket's place in the group.
#[inline]
fn entry_of(bucket: u32, tag: u8) -> u16 {
    u16::from(tag) | ((bucket % GROUP) as u16) << 8
}

#[inline]
fn entry_at(line: &[u32; LINE], place: usize) -> u16 {
    (line[place / 2] >> (16 * (place % 2))) as u16
}

#[inline]
fn set_entry(line: &mut [u32; LINE], place: usize, entry: u16) {
    let (word, shift) = (&mut line[place / 2], 16 * (place % 2));
    *word = *word & !(0xFFFF << shift) | u32::from(entry) << shift;
}

/// The places of an overflow line that hold this entry, as bits; entry 0 finds those that are free.
#[inline]
fn overflow_places(line: &[u32; LINE], entry: u16) -> u32 {
    (0..OVERFLOW_PLACES).fold(0, |places, at| places | u32::from(entry_at(line, at) == entry) << at)
}

/// The places of an overflow line that this bucket has taken, as bits.
#[inline]
fn places_in_overflow(line: &[u32; LINE], bucket: u32) -> u32 {
    let group = entry_of(bucket, 0);
    (0..OVERFLOW_PLACES).fold(0, |places, at| {
        let entry = entry_at(line, at);
        places | u32::from(entry != 0 && entry & 0xFF00 == group) << at
    })
}

fn add_to_overflow(line: &mut [u32; LINE], entry: u16, id: u32) {
    let place = overflow_places(line, 0).trailing_zeros() as usize;
    set_entry(line, place, entry);
    line[OVERFLOW_IDS + place] = id;
}

/// Words of a line.
const LINE: usize = 16;
/// Places of a bucket: 12 tags in words 0 to 2, the link in word 3, 12 ids in the others.
const PLACES: usize = 12;
/// The lowest bit of each byte.
const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const LINK: usize = 3;
const IDS: usize = 4;
/// Places of an overflow line: 10 entries in words 0 to 4, the link in word 5, 10 ids in the
/// others.
const OVERFLOW_PLACES: usize = 10;
const OVERFLOW_LINK: usize = 5;
const OVERFLOW_IDS: usize = 6;
/// How many neighbours share overflow lines. A power of two, at most 256. Sixteen would save 0.1
/// bytes a name, and make a bucket that overflows look at twice as many neighbours.
const GROUP: u32 = 8;
/// Ids per bucket, in 16ths, above which a bucket is split. Measured with `examples/fill.rs`: from
/// 9.5 to 11.5 ids a bucket the index takes 6.7 to 7.7 bytes a name at any count; fewer ids a
/// bucket cost bytes, more cost look-ups in overflow. This one stays below 40 bytes a name in all.
const LOAD_16THS: u64 = 160;
/// Buckets at the start: whole groups.
const BUCKETS_MIN: u32 = 16;
const BUCKETS_MAX: u32 = 1 << 30;
/// Buckets that the region is grown ahead, if its bound allows.
const STEP_BUCKETS: usize = 1024;

const _: () = assert!(BUCKETS_MIN.is_multiple_of(GROUP) && BUCKETS_MIN.is_power_of_two());

#[cfg(test)]
impl<R: Region> Index<R> {
    /// Verifies I1 to I3, and calls `each` with every id and the bucket in which it is.
    pub(crate) fn check(
        &self,
        lines: &Lines<R>,
        hash_of: impl Fn(u32) -> u64,
        mut each: impl FnMut(u32),
    ) {
        extern crate std;
        use std::collections::{BTreeMap, BTreeSet};
        let (mut len, mut shared) = (0, BTreeMap::<u32, Vec<u32>>::new());
        use std::vec::Vec;
        for bucket in 0..self.buckets {
            let line = self.line(bucket);
            let mut taken = 0;
            for place in 0..PLACES {
                let (id, tag) = (line[IDS + place], (line[place / 4] >> (8 * (place % 4))) as u8);
                assert_eq!(id == 0, tag == 0, "I3");
                if id != 0 {
                    let hash = hash_of(id);
                    assert_eq!((tag, bucket), (tag_of(hash), self.bucket_of(hash)), "T1");
                    each(id);
                    taken += 1;
                }
            }
            len += taken;
            assert!(line[LINK] == 0 || taken == PLACES as u32, "I1");
            let mut link = line[LINK];
            while link != 0 {
                let line = lines.block(link);
                let places = places_in_overflow(line, bucket);
                let is_last = line[OVERFLOW_LINK] == 0;
                assert!(places != 0, "I2: nothing of this bucket");
                assert!(is_last || places.count_ones() as usize == OVERFLOW_PLACES, "I2: not full");
                for place in (0..OVERFLOW_PLACES).filter(|place| places & 1 << place != 0) {
                    let id = line[OVERFLOW_IDS + place];
                    let hash = hash_of(id);
                    assert_eq!(entry_at(line, place), entry_of(bucket, tag_of(hash)));
                    assert_eq!(bucket, self.bucket_of(hash), "T1");
                    each(id);
                    len += 1;
                }
                shared.entry(link).or_default().push(bucket);
                link = line[OVERFLOW_LINK];
            }
        }
        for (link, buckets) in &shared {
            let groups: BTreeSet<u32> = buckets.iter().map(|bucket| bucket / GROUP).collect();
            assert_eq!(groups.len(), 1, "I2: shared beyond the group");
            let line = lines.block(*link);
            let theirs = buckets.iter().fold(0, |all, b| all | places_in_overflow(line, *b));
            assert_eq!(
                theirs | overflow_places(line, 0),
                (1 << OVERFLOW_PLACES) - 1,
                "I2: nobody's"
            );
        }
        assert_eq!((len, shared.len() as u32), (self.len, self.overflow));
    }
}
