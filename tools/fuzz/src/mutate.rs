//! Blind mutation: small damage to inputs that mean something, the same for the same seed.
//!
//! Without coverage to guide it, what finds bugs is starting close to valid inputs and changing
//! what parsers trust: lengths, counts, ends, and the words of the format.

use ringway_core::rng::Rng;

use crate::Target;

/// Changes one input makes at most.
const CHANGES_MAX: u64 = 6;
/// Bytes that one change inserts at most.
const INSERT_MAX: u64 = 32;

/// Numbers around which off-by-one errors live; written in 1, 2, 4 or 8 bytes or as digits.
const EDGES: &[u64] = &[
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    17,
    31,
    32,
    63,
    64,
    127,
    128,
    255,
    256,
    4095,
    4096,
    4097,
    32767,
    32768,
    65535,
    65536,
    262_143,
    262_144,
    262_145,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX,
];

/// One input made from the corpus: a few changes to one of its files. Linear in its length.
///
/// # Panics
/// If the corpus is empty.
pub fn mutant(target: &Target, corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut input = pick(corpus, rng).clone();
    for _ in 0..=rng.below(CHANGES_MAX) {
        change(target, corpus, rng, &mut input);
        input.truncate(target.bytes_max);
    }
    input
}

fn change(target: &Target, corpus: &[Vec<u8>], rng: &mut Rng, input: &mut Vec<u8>) {
    match rng.below(11) {
        0 => {
            if let Some(byte) = at(rng, input) {
                *byte ^= 1 << rng.below(8);
            }
        }
        1 => {
            if let Some(byte) = at(rng, input) {
                *byte = rng.next_u64() as u8;
            }
        }
        2 => {
            if let Some(byte) = at(rng, input) {
                let step = 1 + rng.below(16) as u8;
                let up = rng.chance(500);
                *byte = if up { byte.wrapping_add(step) } else { byte.wrapping_sub(step) };
            }
        }
        3 => overwrite(rng, input),
        4 => {
            let edge = pick(EDGES, rng).to_string();
            insert(rng, input, edge.as_bytes());
        }
        5 => {
            let bytes: Vec<u8> = (0..rng.below(INSERT_MAX)).map(|_| rng.next_u64() as u8).collect();
            insert(rng, input, &bytes);
        }
        6 => {
            let (from, to) = range(rng, input);
            input.drain(from..to);
        }
        7 => {
            let (from, to) = range(rng, input);
            let copy = input[from..to].to_vec();
            insert(rng, input, &copy);
        }
        8 => {
            let end = rng.below(input.len() as u64 + 1) as usize;
            input.truncate(end);
        }
        9 => splice(corpus, rng, input),
        _ if target.words.is_empty() => overwrite(rng, input),
        _ => {
            let word = *pick(target.words, rng);
            insert(rng, input, word);
        }
    }
}

/// Writes an edge over 1, 2, 4 or 8 bytes, little-endian as our fields are.
fn overwrite(rng: &mut Rng, input: &mut [u8]) {
    let width = 1 << rng.below(4);
    let Some(last) = input.len().checked_sub(width) else { return };
    let from = rng.below(last as u64 + 1) as usize;
    input[from..from + width].copy_from_slice(&pick(EDGES, rng).to_le_bytes()[..width]);
}

/// The head of this input and the tail of another.
fn splice(corpus: &[Vec<u8>], rng: &mut Rng, input: &mut Vec<u8>) {
    let other = pick(corpus, rng);
    let head = rng.below(input.len() as u64 + 1) as usize;
    let tail = rng.below(other.len() as u64 + 1) as usize;
    input.truncate(head);
    input.extend_from_slice(&other[tail..]);
}

fn insert(rng: &mut Rng, input: &mut Vec<u8>, bytes: &[u8]) {
    let place = rng.below(input.len() as u64 + 1) as usize;
    input.splice(place..place, bytes.iter().copied());
}

fn at<'a>(rng: &mut Rng, input: &'a mut [u8]) -> Option<&'a mut u8> {
    let index = rng.below(input.len().max(1) as u64) as usize;
    input.get_mut(index)
}

fn range(rng: &mut Rng, input: &[u8]) -> (usize, usize) {
    let from = rng.below(input.len() as u64 + 1) as usize;
    let most = (input.len() - from).min(INSERT_MAX as usize);
    (from, from + rng.below(most as u64 + 1) as usize)
}

fn pick<'a, T>(of: &'a [T], rng: &mut Rng) -> &'a T {
    &of[rng.below(of.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target =
        Target { name: "", run: |_| {}, seeds: Vec::new, words: &[b"WORD"], bytes_max: 64 };

    /// A seed that was printed gives the same inputs again; another one gives others.
    #[test]
    fn the_seed_decides() {
        let corpus = vec![b"hello".to_vec(), vec![], vec![7; 64]];
        let run = |seed| {
            let mut rng = Rng::new(seed);
            (0..500).map(|_| mutant(&TARGET, &corpus, &mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    /// Inputs stay below the target's limit, some are its words, and most are new.
    #[test]
    fn mutants_are_small_and_various() {
        let corpus = vec![vec![0; 64]];
        let mut rng = Rng::new(3);
        let mutants: Vec<_> = (0..2_000).map(|_| mutant(&TARGET, &corpus, &mut rng)).collect();
        assert!(mutants.iter().all(|mutant| mutant.len() <= 64));
        assert!(mutants.iter().any(|mutant| mutant.windows(4).any(|bytes| bytes == b"WORD")));
        let different: std::collections::HashSet<_> = mutants.iter().collect();
        assert!(different.len() > 1_500, "{} different", different.len());
    }
}
