//! How the two streams of a flow begin, as a peer with a right key may say it.
//!
//! The oracles: a verdict stands whatever comes after it and in whatever pieces it came; bytes
//! behind what was taken do not matter; nobody is waited for beyond the bound; and an opening that
//! was read is written and read the same.

use ringway_tunnel_proto::{
    ANSWER_BYTES, Coding, OPENING_BYTES_MAX, Opening, Target as Place, opening_answer, read_answer,
};

use super::tunnel_edge::cuts;
use crate::Target;

/// A byte that says which of the two streams it is, and what it begins with.
pub const OPENING: Target = Target {
    name: "tunnel_opening",
    run: opening,
    seeds: opening_seeds,
    words: &[
        b"\x81\x06",
        b"\x81\x12",
        b"\x82\x01\x01",
        b"\x82\x00",
        b"\x90\x00",
        b"\x01\x04\x7f\x00\x00\x01\x00\x50",
        b"\x03\x02db\x15\x38",
    ],
    bytes_max: OPENING_BYTES_MAX + 64,
};

const OPENER: u8 = 0;
const ANSWER: u8 = 1;

/// Reads the beginning of a stream.
pub fn opening(data: &[u8]) {
    match data {
        [which, bytes @ ..] if which % 2 == OPENER => opener(bytes),
        [_, bytes @ ..] => bytes.first_chunk().copied().into_iter().for_each(answer),
        [] => {}
    }
}

fn opener(bytes: &[u8]) {
    let whole = Opening::read(bytes);
    match &whole {
        Ok(None) => assert!(bytes.len() < OPENING_BYTES_MAX, "it waits for ever"),
        Ok(Some((opening, taken))) => {
            assert!(*taken <= OPENING_BYTES_MAX);
            assert_eq!(Opening::read(&bytes[..*taken]), whole, "what follows matters");
            let mut written = Vec::new();
            opening.write(&mut written);
            assert!(written.len() <= OPENING_BYTES_MAX);
            assert_eq!(Opening::read(&written), Ok(Some((opening.clone(), written.len()))));
        }
        Err(_) => {}
    }
    for cut in cuts(bytes.len()) {
        let early = Opening::read(&bytes[..cut]);
        assert!(early == Ok(None) || early == whole, "cut at {cut}: {early:?}, then {whole:?}");
    }
}

fn answer(bytes: [u8; ANSWER_BYTES]) {
    if let Ok(coding) = read_answer(bytes) {
        assert_eq!(opening_answer(coding), bytes, "two answers mean the same");
    }
}

fn opening_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let at = |text: &str| Place::parse(text).expect(text);
    let opens = |target: Place, from: Option<&str>, coding: Coding| {
        let from = from.map(|text| text.parse().expect("an address"));
        let mut bytes = vec![OPENER];
        Opening { target, from, coding }.write(&mut bytes);
        bytes
    };
    let with = |items: &[u8]| [&[OPENER], items, b"\x03\x02db\x15\x38"].concat();
    let user = Some("10.1.2.3:4");
    let mut much = vec![OPENER];
    (0..8).for_each(|_| much.extend_from_slice(b"\xff\x10sixteen bytes of"));
    vec![
        ("host", opens(at("db.example:5432"), None, Coding::Plain)),
        ("from-ipv4", opens(at("127.0.0.1:80"), user, Coding::Plain)),
        ("from-ipv6", opens(at("[fd00::1]:443"), Some("[fe80::1]:65535"), Coding::Plain)),
        ("compressed", opens(Place::Service("wiki".to_owned()), user, Coding::Lz4)),
        ("data", [opens(at("a:1"), user, Coding::Lz4), b"the user's".to_vec()].concat()),
        ("later-item", with(b"\x90\x03\x01\x02\x03")),
        ("later-coding", with(b"\x82\x01\x4d")),
        ("coding-of-nothing", with(b"\x82\x00")),
        ("coding-twice", with(b"\x82\x01\x01\x82\x01\x00")),
        ("from-short", with(b"\x81\x01\x01")),
        ("from-mapped", with(b"\x81\x12\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\x01\0\x50")),
        ("item-too-long", vec![OPENER, 0x90, 200]),
        ("items-too-many", much),
        ("no-target", vec![OPENER, 0x82, 1, 1, 9, 0]),
        ("empty", vec![OPENER]),
        ("answer-plain", vec![ANSWER, 1, 0]),
        ("answer-compressed", vec![ANSWER, 1, 1]),
        ("answer-later-coding", vec![ANSWER, 1, 9]),
        ("answer-none", vec![ANSWER, 0, 0]),
        ("answer-cut", vec![ANSWER, 1]),
    ]
}
