//! Whatever is written comes out, however the carried bytes are cut; and whatever comes in, nothing
//! worse than a refusal comes of it.

use proptest::collection::vec;
use proptest::prelude::*;
use ringway_tunnel_coding::{
    BLOCK_BYTES_MAX, Coder, DECODER_BYTES_MAX, Decoder, Malformed, Mode, carried_bytes_max,
};

/// What an application writes at a time.
#[derive(Clone, Debug)]
struct Write {
    kind: Kind,
    bytes: usize,
    more: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Short words, again and again.
    Words(u64),
    /// Nothing to be found.
    Chance(u64),
    /// One byte.
    Same(u8),
    /// What was written so far, from a place on: history at any distance.
    Again(usize),
}

fn write() -> impl Strategy<Value = Write> {
    let kind = prop_oneof![
        4 => any::<u64>().prop_map(Kind::Words),
        2 => any::<u64>().prop_map(Kind::Chance),
        1 => any::<u8>().prop_map(Kind::Same),
        3 => any::<usize>().prop_map(Kind::Again),
    ];
    let bytes = prop_oneof![
        2 => 0..600usize,
        3 => 512..20_000usize,
        2 => 60_000..70_000usize,
        2 => Just(BLOCK_BYTES_MAX),
        1 => 0..200_000usize,
    ];
    (kind, bytes, prop::bool::weighted(0.7)).prop_map(|(kind, bytes, more)| Write {
        kind,
        bytes,
        more,
    })
}

/// Appends what is written.
fn text_of(write: &Write, text: &mut Vec<u8>) {
    let (begin, end) = (text.len(), text.len() + write.bytes);
    match write.kind {
        Kind::Words(seed) => {
            let mut draws = draws(seed);
            while text.len() < end {
                let word = draws() % 200;
                text.extend_from_slice(format!("{:x} ", word * word * 31).as_bytes());
            }
        }
        Kind::Chance(seed) => {
            let mut draws = draws(seed);
            text.extend((begin..end).map(|_| draws() as u8));
        }
        Kind::Same(byte) => text.resize(end, byte),
        Kind::Again(place) => {
            let mut from = if begin == 0 { 0 } else { place % begin };
            while text.len() < end {
                text.push(text.get(from).copied().unwrap_or(7));
                from += 1;
            }
        }
    }
    text.truncate(end);
}

fn draws(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 32
    }
}

/// Decodes what comes cut into pieces of these lengths, over and over.
fn decode(carried: &[u8], cuts: &[usize]) -> (Vec<u8>, Result<(), Malformed>, Decoder) {
    let (mut decoder, mut text) = (Decoder::new(), Vec::new());
    let (mut rest, mut cuts) = (carried, cuts.iter().cycle());
    let mut result = Ok(());
    while !rest.is_empty() && result.is_ok() {
        let cut = cuts.next().map_or(rest.len(), |cut| (*cut).min(rest.len()));
        let (piece, behind) = rest.split_at(cut);
        rest = behind;
        result = decoder.decode(piece, |piece| {
            assert!((1..=BLOCK_BYTES_MAX).contains(&piece.len()));
            text.extend_from_slice(piece);
        });
        assert!(decoder.held() <= DECODER_BYTES_MAX, "{} bytes held", decoder.held());
    }
    (text, result, decoder)
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1..8usize, 1..2000usize, 1..100_000usize], 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// C1 and C2: after each write all of it is there, and a flush leaves nothing behind.
    #[test]
    fn what_is_written_comes_out(writes in vec(write(), 0..20), off: bool, cuts in cuts()) {
        let mut coder = Coder::new(if off { Mode::Off } else { Mode::Auto });
        let (mut text, mut carried) = (Vec::new(), Vec::new());
        for write in &writes {
            let (text_before, carried_before) = (text.len(), carried.len());
            text_of(write, &mut text);
            coder.encode(&text[text_before..], write.more, &mut carried);
            prop_assert!(write.more || coder.held() == 0);
            prop_assert!(carried.len() - carried_before <= carried_bytes_max(write.bytes));
        }
        let (decoded, result, decoder) = decode(&carried, &cuts);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(decoder.end(), Ok(()));
        prop_assert!(decoded == text, "the text came out changed");
        prop_assert_eq!(decoder.counters(), coder.counters());
        prop_assert_eq!(coder.counters().text, text.len() as u64);
        prop_assert_eq!(coder.counters().carried, carried.len() as u64);
        if writes.last().is_none_or(|last| !last.more) {
            prop_assert_eq!(decoder.held(), 0);
        }
    }

    /// What arrives of a run is decodable up to each write, also if the rest never comes.
    #[test]
    fn nothing_is_kept_back(writes in vec(write(), 1..6)) {
        let (mut coder, mut decoder) = (Coder::new(Mode::Auto), Decoder::new());
        for write in &writes {
            let (mut text, mut carried, mut decoded) = (Vec::new(), Vec::new(), Vec::new());
            text_of(write, &mut text);
            coder.encode(&text, write.more, &mut carried);
            let result = decoder.decode(&carried, |piece| decoded.extend_from_slice(piece));
            prop_assert_eq!(result.and(decoder.end()), Ok(()));
            prop_assert!(decoded == text);
        }
    }

    /// A stream in which bytes were changed, taken out or put in: cut in any way it comes to the
    /// same, and the decoder holds and delivers no more than it may.
    #[test]
    fn damage_is_survived(
        writes in vec(write(), 1..4),
        damage in vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
        cuts in cuts(),
    ) {
        let (mut coder, mut carried) = (Coder::new(Mode::Auto), Vec::new());
        for write in &writes {
            let mut text = Vec::new();
            text_of(write, &mut text);
            coder.encode(&text, write.more, &mut carried);
        }
        for (place, byte, act) in damage {
            if carried.is_empty() {
                break;
            }
            let place = place.index(carried.len());
            match act {
                0 => carried[place] ^= byte,
                1 => carried.truncate(place),
                2 => carried.insert(place, byte),
                _ => drop(carried.remove(place)),
            }
        }
        let (whole, result, decoder) = decode(&carried, &[carried.len().max(1)]);
        let (pieces, result_of_pieces, decoder_of_pieces) = decode(&carried, &cuts);
        prop_assert_eq!(result, result_of_pieces);
        prop_assert_eq!(decoder.end(), decoder_of_pieces.end());
        prop_assert!(whole == pieces, "the text depends on the cuts");
    }

    /// Bytes of a stranger.
    #[test]
    fn any_bytes_are_blocks_or_not(carried in vec(prop_oneof![0..5u8, any::<u8>()], 0..3000)) {
        let (whole, result, _) = decode(&carried, &[carried.len().max(1)]);
        let (bytes, result_of_bytes, _) = decode(&carried, &[1]);
        prop_assert_eq!((whole, result), (bytes, result_of_bytes));
    }
}
