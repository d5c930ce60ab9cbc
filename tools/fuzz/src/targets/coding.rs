//! Compressed streams of a peer that says anything whatever, and of ours.
//!
//! The oracles: what is delivered does not depend on where the carried bytes are cut, comes in
//! pieces of a block at most, and nobody holds more than is stated; and any text, what was
//! delivered among it, comes out of the decoder as it went into the coder, however it is written.

use ringway_tunnel_coding::{
    BLOCK_BYTES_MAX, Coder, DECODER_BYTES_MAX, Decoder, Malformed, Mode, carried_bytes_max,
};

use crate::Target;

/// A byte that says how carried bytes are cut, and carried bytes.
pub const CODING: Target = Target {
    name: "tunnel_coding",
    run: coding,
    seeds,
    words: &[LINKED, REFERS, b"\x01\x1f\x00", b"\x00\xff\xff", b"\x03", b"\x18\x00", b"\xff\xff"],
    bytes_max: 2048,
};

/// 24 bytes of text, kept.
const LINKED: &[u8] = b"\x02\x17\x00\x10\x00\x87ringway \x08\x00\x50gway!";
/// A block that refers to the 24 bytes before it.
const REFERS: &[u8] = b"\x01\x0c\x00\x08\x00\x04\x18\x00\x50wins?";

/// Feeds the decoder, and then the coder with what came of it.
pub fn coding(data: &[u8]) {
    let Some((cut, carried)) = data.split_first() else { return };
    let (mut text, result) = decode(carried, carried.len().max(1));
    let again = decode(carried, usize::from(*cut) + 1);
    assert!(again == (text.clone(), result), "it depends on the cut: {result:?}, {:?}", again.1);

    text.extend_from_slice(carried);
    let mut sizes = carried.iter().cycle();
    let (mut coder, mut encoded) = (Coder::new(Mode::Auto), Vec::new());
    let mut left = text.as_slice();
    while let Some(size) = sizes.next().filter(|_| !left.is_empty()) {
        // Up to 65 KiB, so that a block may be full.
        let (piece, rest) = left.split_at(left.len().min(usize::from(*size) * 260 + 1));
        left = rest;
        let before = encoded.len();
        coder.encode(piece, size % 4 > 0, &mut encoded);
        assert!(encoded.len() - before <= carried_bytes_max(piece.len()));
    }
    let (decoded, result) = decode(&encoded, usize::from(*cut) * 100 + 1);
    assert!(result.is_ok() && decoded == text, "written text came out changed: {result:?}");
}

fn decode(carried: &[u8], cut: usize) -> (Vec<u8>, Result<(), Malformed>) {
    let (mut decoder, mut text) = (Decoder::new(), Vec::new());
    for piece in carried.chunks(cut) {
        let decoded = decoder.decode(piece, |piece| {
            assert!((1..=BLOCK_BYTES_MAX).contains(&piece.len()));
            text.extend_from_slice(piece);
        });
        assert!(decoder.held() <= DECODER_BYTES_MAX);
        if decoded.is_err() {
            assert_eq!((decoder.held(), decoder.end()), (0, decoded));
            return (text, decoded);
        }
    }
    let counters = decoder.counters();
    assert_eq!((counters.carried, counters.text), (carried.len() as u64, text.len() as u64));
    (text, decoder.end())
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let seed = |parts: &[&[u8]]| [b"\x04", parts.concat().as_slice()].concat();
    // 64 KiB of one byte: the length goes on for 257 bytes.
    let full =
        [b"\x02\xff\xff\x0a\x01\x1fa\x01\x00".as_slice(), &[255; 256], b"\xe7\x50aaaaa"].concat();
    vec![
        ("stored", seed(&[b"\x00\x01\x00hi", b"\x00\x00\x00!"])),
        ("run", seed(&[LINKED, REFERS])),
        ("run-of-runs", seed(&[LINKED, LINKED, REFERS, b"\x03", LINKED, REFERS])),
        ("full-blocks", seed(&[&full, LINKED, &full, &full, LINKED, REFERS])),
        ("forgotten", seed(&[LINKED, b"\x03", REFERS])),
        ("behind-stored", seed(&[LINKED, b"\x00\x00\x00a", REFERS])),
        ("offset-too-far", seed(&[b"\x01\x1f\x00\x07\x00\x14a\x02\x00\x20bc"])),
        ("offset-zero", seed(&[b"\x01\x1f\x00\x03\x00\x14a\x00\x00"])),
        ("larger", seed(&[b"\x01\x07\x00\x07\x00"])),
        ("less-than-said", seed(&[b"\x01\x1f\x00\x02\x00\x20ab"])),
        (
            "bomb",
            seed(&[b"\x01\x0f\x00\x0e\x00\x1fa\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\0"]),
        ),
        ("unfinished", seed(&[&REFERS[..9]])),
        ("unknown", seed(&[b"\x04"])),
    ]
}
