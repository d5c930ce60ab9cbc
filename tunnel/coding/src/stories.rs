//! Stories of flows that are coded, as blocks on the wire.

use crate::block::{HEAD_BYTES_MAX, Head};
use crate::{
    BLOCK_BYTES_MAX, CODER_BYTES_MAX, Coder, DECODER_BYTES_MAX, Decoder, Malformed, Mode,
    TEXT_BYTES_MIN,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Both ends of one direction of a flow. Whatever is written is delivered, or the story fails.
struct Story {
    coder: Coder,
    /// Does the same in the other way.
    twin: Coder,
    decoder: Decoder,
    carried: Vec<u8>,
}

impl Story {
    fn new(mode: Mode) -> Story {
        Story {
            coder: Coder::new(mode),
            twin: Coder::new(mode),
            decoder: Decoder::new(),
            carried: Vec::new(),
        }
    }

    fn writes(&mut self, text: &[u8]) -> &mut Story {
        self.encodes(text, true)
    }

    fn flushes(&mut self, text: &[u8]) -> &mut Story {
        self.encodes(text, false);
        assert_eq!((self.coder.held(), self.decoder.held()), (0, 0), "a flush holds nothing");
        self
    }

    fn encodes(&mut self, text: &[u8], more: bool) -> &mut Story {
        self.carried.clear();
        self.coder.encode(text, more, &mut self.carried);
        let (mut scratch, mut same) = (b"old".to_vec(), Vec::new());
        self.twin.encode_to(text, more, &mut scratch, |piece| same.extend_from_slice(piece));
        assert!(self.carried == same, "both ways to encode say the same");
        assert_eq!(self.coder.counters(), self.twin.counters());
        let mut delivered = Vec::new();
        let decoded = self.decoder.decode(&self.carried, |text| delivered.extend_from_slice(text));
        assert_eq!(decoded, Ok(()));
        assert!(delivered == text, "the text came out changed");
        assert_eq!(self.coder.counters(), self.decoder.counters());
        assert!(self.decoder.held() <= DECODER_BYTES_MAX);
        self
    }

    /// The blocks of the last write.
    fn then(&mut self, blocks: &str) -> &mut Story {
        assert_eq!(describe(&self.carried), blocks);
        self
    }
}

fn describe(mut carried: &[u8]) -> String {
    let mut blocks = Vec::new();
    while let Some(kind) = carried.first() {
        let (head, rest) = carried.split_at(Head::bytes(*kind).expect("a kind"));
        let (block, length) = match Head::read(head).expect("a header") {
            Head::Stored { text } => (format!("stored {text}"), text),
            Head::Packed(packed) => {
                let kind = if packed.linked { "linked" } else { "last" };
                (format!("{kind} {}", packed.text), packed.carried as usize)
            }
            Head::Forget => ("forget".to_owned(), 0),
        };
        blocks.push(block);
        carried = &rest[length..];
    }
    blocks.join(", ")
}

/// Bytes in which nothing is to be found.
fn chance(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56
    };
    (0..bytes).map(|_| draw() as u8).collect()
}

/// What a human might read.
fn lines(bytes: usize) -> Vec<u8> {
    let numbers = chance(bytes / 20 + 1, 1);
    let mut text: Vec<u8> =
        numbers.iter().flat_map(|n| format!("line of the log: {n}\n").into_bytes()).collect();
    text.truncate(bytes);
    text
}

/// What looks like text and does not repeat itself.
fn digits(bytes: usize, seed: u64) -> Vec<u8> {
    chance(bytes, seed).iter().map(|byte| b'0' + byte % 64).collect()
}

/// The bytes of `docs/tunnel-protocol.md`.
#[test]
fn the_printed_bytes() {
    let mut story = Story::new(Mode::Auto);
    story.flushes(b"hi");
    assert_eq!(story.carried, b"\x00\x01\x00hi");
    story.flushes(&[b'a'; 1000]);
    let carried = b"\x01\xe7\x03\x0e\x00\x1fa\x01\x00\xff\xff\xff\xd1\x60aaaaaa";
    assert_eq!(story.carried, carried.as_slice());

    let (mut decoder, mut text) = (Decoder::new(), Vec::new());
    let linked = b"\x02\x17\x00\x10\x00\x87ringway \x08\x00\x50gway!";
    let last = b"\x01\x0c\x00\x08\x00\x04\x18\x00\x50wins?";
    for carried in [linked.as_slice(), last, b"\x03"] {
        let decoded = decoder.decode(carried, |piece| text.extend_from_slice(piece));
        assert_eq!((decoded, decoder.end()), (Ok(()), Ok(())));
    }
    assert_eq!(text, b"ringway ringway ringway!ringway wins?");
}

/// A question and its answer are not worth a table; a page is.
#[test]
fn only_what_is_long_enough_is_compressed() {
    let mut story = Story::new(Mode::Auto);
    story.flushes(&lines(TEXT_BYTES_MIN - 1)).then("stored 511");
    story.flushes(&lines(TEXT_BYTES_MIN)).then("last 512");
    story.flushes(&lines(4 * KIB)).then("last 4096");
    let counters = story.coder.counters();
    assert_eq!((counters.stored, counters.compressed, counters.text), (1, 2, 511 + 512 + 4096));
    assert!(counters.saved() > 2000, "{counters:?}");
}

/// While more follows, a block refers to what was before it: text that came once costs nothing the
/// second time.
#[test]
fn a_run_has_history() {
    let mut story = Story::new(Mode::Auto);
    let page = [lines(KIB), digits(30 * KIB, 1)].concat();
    story.writes(&page).then("linked 31744");
    let first = story.carried.len();
    story.writes(&page).then("linked 31744");
    assert!(story.carried.len() < 200, "{first} bytes, then {}", story.carried.len());
    story.writes(&lines(BLOCK_BYTES_MAX)).then("linked 65536");
    story.flushes(&lines(KIB)).then("last 1024");
}

/// An answer's length says nothing about the answers before it, or a stranger who can make
/// somebody send two texts learns whether they are alike.
#[test]
fn a_flush_forgets() {
    let mut story = Story::new(Mode::Auto);
    let page = lines(8 * KIB);
    let first = story.flushes(&page).carried.clone();
    assert_eq!(story.flushes(&page).carried, first);
    story.writes(&page);
    story.flushes(&lines(KIB));
    assert_eq!(story.flushes(&page).carried, first, "also behind a run");
}

/// One write of more than a block is a run of its own.
#[test]
fn a_long_write_is_cut_into_blocks() {
    let mut story = Story::new(Mode::Auto);
    story.flushes(&lines(150_000)).then("linked 65536, linked 65536, last 18928");
    story.flushes(&lines(65_636)).then("linked 65536, stored 100");
}

/// The receive buffer was full, and then nothing came: both ends are told to let go.
#[test]
fn a_run_can_end_without_text() {
    let mut story = Story::new(Mode::Auto);
    story.writes(&lines(4 * KIB)).then("linked 4096");
    assert!(story.coder.held() > 0 && story.decoder.held() > 0);
    story.flushes(&[]).then("forget");
    story.flushes(&[]).then("");
    story.flushes(&lines(4 * KIB)).then("last 4096");
}

/// What cannot be compressed costs three bytes a block, and text behind it is soon seen.
#[test]
fn dense_bytes_are_stored() {
    let mut story = Story::new(Mode::Auto);
    let dense = chance(64 * BLOCK_BYTES_MAX, 3);
    for block in dense.chunks(BLOCK_BYTES_MAX) {
        story.writes(block).then("stored 65536");
        assert_eq!(story.carried.len(), BLOCK_BYTES_MAX + 3);
    }
    let text = lines(BLOCK_BYTES_MAX);
    let blocks_missed = (0..10).take_while(|_| story.writes(&text).carried.len() > text.len());
    assert!(blocks_missed.count() <= 1);
    story.writes(&text).then("linked 65536");
}

/// Text in which LZ4 finds nothing is tried less and less often, at last every 4 MiB; and a success
/// makes that good.
#[test]
fn vain_tries_get_rare() {
    let mut story = Story::new(Mode::Auto);
    for seed in 0..20 {
        story.writes(&digits(MIB, seed));
        assert_eq!(story.coder.counters().compressed, 0);
    }
    let text = lines(BLOCK_BYTES_MAX);
    let blocks_missed = (0..70).take_while(|_| story.writes(&text).carried.len() > text.len());
    assert!((3..=65).contains(&blocks_missed.count()));
    story.writes(&digits(BLOCK_BYTES_MAX, 30)).then("stored 65536");
    story.writes(&text).then("stored 65536");
    story.writes(&text).then("linked 65536");
}

/// A flow that begins as TLS or SSH does is left alone for a megabyte and more, even where a
/// certificate could be compressed.
#[test]
fn encrypted_protocols_are_left_alone() {
    for hello in [b"\x16\x03\x01\x02\x00\x01".as_slice(), b"\x17\x03\x03\x40\x00", b"SSH-2.0-x"] {
        let mut story = Story::new(Mode::Auto);
        story.flushes(hello);
        for _ in 0..16 {
            story.flushes(&lines(BLOCK_BYTES_MAX)).then("stored 65536");
        }
        story.flushes(&lines(BLOCK_BYTES_MAX)).then("last 65536");
    }
}

/// Files say by their first bytes what they are.
#[test]
fn compressed_files_are_known_by_their_beginning() {
    let beginnings: [&[u8]; 5] =
        [b"\x1f\x8b\x08", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"\xff\xd8\xff", b"\0\0\0\x20ftyp"];
    for beginning in beginnings {
        let file = [beginning, &lines(4 * KIB)].concat();
        Story::new(Mode::Auto).flushes(&file).then(&format!("stored {}", file.len()));
    }
    Story::new(Mode::Auto).flushes(&[b"%PDF-1.4", &*lines(KIB)].concat()).then("last 1032");
}

/// A little text among what is compressed is worth a try: a PDF is made like that.
#[test]
fn text_among_dense_bytes_is_seen() {
    let mut text = chance(BLOCK_BYTES_MAX, 5);
    for place in (0..BLOCK_BYTES_MAX).step_by(4 * KIB) {
        text[place..place + 300].copy_from_slice(&lines(300));
    }
    Story::new(Mode::Auto).flushes(&text).then("last 65536");
}

/// Records with one field that is chance and others that are not are no chance, wherever the look
/// happens to fall.
#[test]
fn regular_records_are_not_taken_for_chance() {
    for record in [32, 64, 100, 1000, 1021, 1024, 2048] {
        let mut text = vec![b'x'; BLOCK_BYTES_MAX];
        let fill = chance(BLOCK_BYTES_MAX, record as u64);
        for (row, fill) in text.chunks_mut(record).zip(fill.chunks(record)) {
            let part = row.len() / 2;
            row[..part].copy_from_slice(&fill[..part]);
        }
        Story::new(Mode::Auto).flushes(&text).then("last 65536");
    }
}

#[test]
fn off_is_off() {
    let mut story = Story::new(Mode::Off);
    story.writes(&lines(100_000)).then("stored 65536, stored 34464");
    assert_eq!((story.coder.held(), story.coder.counters().saved()), (0, -6));
}

/// What is stored is handed on from the buffer that it came in.
#[test]
fn stored_text_is_not_copied() {
    let mut carried = Vec::new();
    let dense = chance(100_000, 4);
    Coder::new(Mode::Auto).encode(&dense, true, &mut carried);
    let range = carried.as_ptr_range();
    let mut decoder = Decoder::new();
    let decoded = decoder.decode(&carried, |text| assert!(range.contains(&text.as_ptr())));
    assert_eq!((decoded, decoder.held()), (Ok(()), 0));
}

/// Ten thousand flows that have nothing to say: what they cost is in the structs, and the
/// allocator agrees.
#[test]
fn idle_flows_cost_next_to_nothing() {
    assert!(size_of::<Coder>() < 100 && size_of::<Decoder>() < 100);
    let mut flows: Vec<Story> = (0..10_000).map(|_| Story::new(Mode::Auto)).collect();
    let text = lines(KIB);
    let (mut carried, mut delivered) = (Vec::with_capacity(10 * KIB), 0);
    let used = allocation_counter::measure(|| {
        for flow in &mut flows {
            carried.clear();
            for more in [false, true, false] {
                flow.coder.encode(&text, more, &mut carried);
            }
            let decoded = flow.decoder.decode(&carried, |text| delivered += text.len());
            assert_eq!(decoded, Ok(()));
        }
    });
    assert_eq!((used.bytes_current, delivered), (0, 10_000 * 3 * KIB));
}

/// A flow in the middle of a run costs what the constants say, whatever it sends.
#[test]
fn a_run_costs_what_is_stated() {
    let text = lines(40 * BLOCK_BYTES_MAX);
    let mut carried = Vec::with_capacity(text.len());
    let mut coder = Coder::new(Mode::Auto);
    let used = allocation_counter::measure(|| {
        text.chunks(50_000).for_each(|text| coder.encode(text, true, &mut carried));
    });
    assert!(used.bytes_max <= CODER_BYTES_MAX as u64, "{used:?}");
    let mut decoder = Decoder::new();
    let used = allocation_counter::measure(|| {
        carried.chunks(1000).for_each(|cut| assert_eq!(decoder.decode(cut, |_| ()), Ok(())));
    });
    assert!(used.bytes_max <= DECODER_BYTES_MAX as u64, "{used:?}");
    let held = decoder.held() as u64;
    assert!(held <= DECODER_BYTES_MAX as u64 && used.bytes_current.cast_unsigned() <= held);
}

fn refused(carried: &[u8]) -> Malformed {
    let mut decoder = Decoder::new();
    let malformed = match decoder.decode(carried, |_| ()) {
        Ok(()) => decoder.end().expect_err("it is no stream"),
        Err(malformed) => {
            assert_eq!(decoder.decode(b"\x00\x00\x00a", |_| ()), Err(malformed), "for good");
            malformed
        }
    };
    assert!(decoder.held() <= HEAD_BYTES_MAX + DECODER_BYTES_MAX);
    malformed
}

/// Each way to be wrong has its name, and none costs more than a block.
#[test]
fn mistakes_are_noticed() {
    let mut packed = Vec::new();
    Coder::new(Mode::Auto).encode(&lines(KIB), false, &mut packed);
    assert_eq!(refused(b"\x04"), Malformed::Kind(4));
    assert_eq!(refused(b"\x01\x07\x00\x07\x00"), Malformed::Larger);
    assert_eq!(refused(b"\x00\x07\x00seven b"), Malformed::Unfinished);
    assert_eq!(refused(b"\x01\x07"), Malformed::Unfinished);
    assert_eq!(refused(&packed[..packed.len() - 1]), Malformed::Unfinished);
    // A match before anything there is; one of offset 0; an LZ4 block that ends in the middle.
    assert_eq!(refused(b"\x01\x1f\x00\x07\x00\x14a\x02\x00\x20bc\x00"), Malformed::Block);
    assert_eq!(refused(b"\x01\x1f\x00\x04\x00\x14a\x00\x00\x00"), Malformed::Block);
    assert_eq!(refused(b"\x01\x1f\x00\x01\x00\x50a"), Malformed::Block);
    // Less text than promised, and more: a bomb of 16 MiB in a block that says 64 KiB.
    assert_eq!(refused(b"\x01\x1f\x00\x02\x00\x20ab"), Malformed::Length);
    let bomb = [b"\x01\xff\xff\xfe\xff\x1fa\x01\x00".as_slice(), &[255; 65_531]].concat();
    assert!(matches!(refused(&bomb), Malformed::Length | Malformed::Block));
}

/// Text that was to be forgotten is not there for a later block to refer to: not behind a flush,
/// not behind a stored block, not when it was said so.
#[test]
fn no_block_refers_to_what_is_forgotten() {
    let refers = b"\x01\x0c\x00\x08\x00\x04\x18\x00\x50wins?";
    let linked = b"\x02\x17\x00\x10\x00\x87ringway \x08\x00\x50gway!".as_slice();
    let last = b"\x01\x17\x00\x10\x00\x87ringway \x08\x00\x50gway!".as_slice();
    assert_eq!(Decoder::new().decode(&[linked, refers].concat(), |_| ()), Ok(()));
    for before in [last.to_vec(), [linked, b"\x00\x00\x00a"].concat(), [linked, b"\x03"].concat()] {
        assert_eq!(refused(&[&before, refers.as_slice()].concat()), Malformed::Block);
    }
}
