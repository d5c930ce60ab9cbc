//! What a censor sees: two verdicts over the first bytes of carriers.
//!
//! *Uniform*: no bit, no value and no position of a byte tells a carrier from chance, so there is
//! nothing of ours to match ([`Sample::judge`]). *Fully encrypted*: exactly that is what the Great
//! Firewall was measured to look for, from 2021 on (Wu et al., "How the Great Firewall of China
//! Detects and Blocks Fully Encrypted Traffic", USENIX Security 2023, algorithm 1): a first packet
//! that looks like no protocol it knows is blocked ([`heuristic`]). The better the first verdict,
//! the worse the second. Both are said; neither is hidden behind the other.
//!
//! The thresholds of the first verdict are six standard deviations, seven for values at a position:
//! a sample of chance fails one of its tests in fewer than one of 10 000 runs.
//!
//! Bounds: a sample keeps 1 KiB for each of the first [`LOOK_POSITIONS_MAX`] positions and 16 bytes
//! a message; judging takes constant time a position.
//! Not here: what the sizes and times of what comes after tell; where the messages come from.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

/// Positions of messages that are looked at one by one. What lies behind counts in the whole.
pub const LOOK_POSITIONS_MAX: usize = 1024;
/// A position that fewer messages reach is not judged.
const POSITION_MESSAGES_MIN: u64 = 64;
/// Values are judged when each was to be expected so often (a rule of thumb for Pearson's test).
const EXPECTED_MIN: u64 = 5;
/// Likewise at a position, where there are many of them and the bound is wider.
const EXPECTED_AT_MIN: u64 = 2;
/// Pearson's statistic of 256 values that are chance lies between these: the Wilson-Hilferty
/// approximation with 255 degrees of freedom, six standard deviations to each side.
const CHI_SQUARE: (f64, f64) = (141.0, 415.0);
/// Seven of them, for one position.
const CHI_SQUARE_AT: (f64, f64) = (117.0, 448.0);
/// Six standard deviations, squared.
const DEVIATIONS_SQUARED: i128 = 36;
/// Bytes of a message's beginning that no other one has.
const START_BYTES: usize = 16;

/// Why the heuristic lets a first packet pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Exempt {
    /// At most 3.4 or at least 4.6 of 8 bits are ones.
    Bits,
    /// The first six bytes are printable.
    PrintableStart,
    /// More than half of the bytes are printable.
    PrintableHalf,
    /// More than 20 bytes in a row are printable.
    PrintableRun,
    /// It begins as TLS does.
    Tls,
    /// It begins with a method of HTTP.
    Http,
}

impl Exempt {
    /// All of them.
    pub const ALL: [Exempt; 6] = [
        Exempt::Bits,
        Exempt::PrintableStart,
        Exempt::PrintableHalf,
        Exempt::PrintableRun,
        Exempt::Tls,
        Exempt::Http,
    ];
}

/// Whether the heuristic exempts a first packet, and by which rule; `None`: it takes it for fully
/// encrypted traffic, which that censor blocked.
pub fn heuristic(packet: &[u8]) -> Option<Exempt> {
    let printable = |byte: &u8| matches!(byte, 0x20..=0x7e);
    let ones: u64 = packet.iter().map(|byte| u64::from(byte.count_ones())).sum();
    let len = packet.len() as u64;
    if ones * 10 <= len * 34 || ones * 10 >= len * 46 {
        return Some(Exempt::Bits);
    }
    if packet.get(..6).is_some_and(|start| start.iter().all(printable)) {
        return Some(Exempt::PrintableStart);
    }
    if packet.iter().filter(|byte| printable(byte)).count() * 2 > packet.len() {
        return Some(Exempt::PrintableHalf);
    }
    if packet.split(|byte| !printable(byte)).any(|run| run.len() > 20) {
        return Some(Exempt::PrintableRun);
    }
    if let [0x16 | 0x17, 0x03, 0x00..=0x09, ..] = packet {
        return Some(Exempt::Tls);
    }
    let methods: [&[u8]; 4] = [b"GET ", b"PUT ", b"POST ", b"HEAD "];
    methods.iter().any(|method| packet.starts_with(method)).then_some(Exempt::Http)
}

/// First messages of many carriers, counted.
pub struct Sample {
    messages: u64,
    values: [u64; 256],
    positions: Vec<[u32; 256]>,
    lengths: BTreeMap<usize, u64>,
    starts: BTreeSet<[u8; START_BYTES]>,
    repeats: u64,
    exempt: [u64; Exempt::ALL.len()],
}

/// How long the messages of a sample are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lengths {
    /// The shortest.
    pub min: usize,
    /// The longest.
    pub max: usize,
    /// On average.
    pub mean: f64,
    /// How many lengths there are.
    pub distinct: usize,
    /// How many messages share the most frequent one.
    pub commonest: u64,
}

/// What gives a sample away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Ones and zeros are not equally many.
    Bits,
    /// Some of the 256 values are too frequent, or all are too equally so.
    Values,
    /// A message begins like one before.
    Repeats(u64),
    /// Every message has the same byte at this position.
    Constant(usize),
    /// A bit leans to one side at this position.
    BitAt(usize),
    /// Values are too frequent or too even at this position.
    ValuesAt(usize),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bits => f.write_str("ones and zeros are not equally many"),
            Self::Values => f.write_str("the 256 values of a byte are not equally frequent"),
            Self::Repeats(count) => {
                write!(f, "{count} messages begin with {START_BYTES} bytes of another one")
            }
            Self::Constant(at) => write!(f, "byte {at} is the same in every message"),
            Self::BitAt(at) => write!(f, "a bit of byte {at} leans to one side"),
            Self::ValuesAt(at) => write!(f, "the values of byte {at} are not equally frequent"),
        }
    }
}

/// The first verdict, and the numbers that it rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct Uniformity {
    /// Bytes that were counted.
    pub bytes: u64,
    /// Ones in a byte, on average: 4 by chance.
    pub ones_per_byte: f64,
    /// Bits of entropy in a byte's value: nearly 8 by chance. It says the same as `chi_square` and
    /// is not judged.
    pub entropy_bits: f64,
    /// Pearson's statistic of the 256 values: about 255 by chance.
    pub chi_square: f64,
    /// Positions that enough messages reach to be judged.
    pub positions: usize,
    /// What gives the sample away; at most one for each position.
    pub flaws: Vec<Flaw>,
}

impl Uniformity {
    /// Whether nothing was found.
    pub fn is_uniform(&self) -> bool {
        self.flaws.is_empty()
    }
}

impl Default for Sample {
    fn default() -> Self {
        Self::new()
    }
}

impl Sample {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self {
            messages: 0,
            values: [0; 256],
            positions: Vec::new(),
            lengths: BTreeMap::new(),
            starts: BTreeSet::new(),
            repeats: 0,
            exempt: [0; Exempt::ALL.len()],
        }
    }

    /// Counts one more message, with both verdicts in mind.
    pub fn add(&mut self, message: &[u8]) {
        self.messages += 1;
        *self.lengths.entry(message.len()).or_default() += 1;
        if let Some(start) = message.first_chunk() {
            self.repeats += u64::from(!self.starts.insert(*start));
        }
        if let Some(rule) = heuristic(message) {
            self.exempt[rule as usize] += 1;
        }
        let known = message.len().min(LOOK_POSITIONS_MAX);
        if self.positions.len() < known {
            self.positions.resize(known, [0; 256]);
        }
        for (at, byte) in message.iter().enumerate() {
            self.values[usize::from(*byte)] += 1;
            if let Some(position) = self.positions.get_mut(at) {
                position[usize::from(*byte)] += 1;
            }
        }
    }

    /// How many were counted.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// How many of them the heuristic takes for fully encrypted traffic.
    pub fn fully_encrypted(&self) -> u64 {
        self.messages - self.exempt.iter().sum::<u64>()
    }

    /// How many of them each rule of the heuristic exempts.
    pub fn exempt(&self) -> [(Exempt, u64); Exempt::ALL.len()] {
        Exempt::ALL.map(|rule| (rule, self.exempt[rule as usize]))
    }

    /// How long they are; `None` of no message.
    pub fn lengths(&self) -> Option<Lengths> {
        let (min, max) = (*self.lengths.keys().next()?, *self.lengths.keys().next_back()?);
        let sum: u64 = self.lengths.iter().map(|(len, count)| *len as u64 * count).sum();
        let commonest = self.lengths.values().copied().max()?;
        let mean = sum as f64 / self.messages as f64;
        Some(Lengths { min, max, mean, distinct: self.lengths.len(), commonest })
    }

    /// How many messages there are of each length, ascending.
    pub fn by_length(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.lengths.iter().map(|(len, count)| (*len, *count))
    }

    /// Whether the sample could be chance.
    pub fn judge(&self) -> Uniformity {
        let counts = Counts::of(self.values);
        let mut flaws = Vec::new();
        if counts.ones().iter().any(|ones| leans(*ones, counts.total)) {
            flaws.push(Flaw::Bits);
        }
        if counts.total >= 256 * EXPECTED_MIN && !lies_in(counts.chi_square(), CHI_SQUARE) {
            flaws.push(Flaw::Values);
        }
        if self.repeats > 0 {
            flaws.push(Flaw::Repeats(self.repeats));
        }
        let mut positions = 0;
        for (at, values) in self.positions.iter().enumerate() {
            let counts = Counts::of(values.map(u64::from));
            if counts.total >= POSITION_MESSAGES_MIN {
                positions += 1;
                flaws.extend(flaw_at(at, &counts));
            }
        }
        let ones: u64 = counts.ones().iter().sum();
        Uniformity {
            bytes: counts.total,
            ones_per_byte: ones as f64 / counts.total.max(1) as f64,
            entropy_bits: counts.entropy_bits(),
            chi_square: counts.chi_square(),
            positions,
            flaws,
        }
    }
}

fn flaw_at(at: usize, counts: &Counts) -> Option<Flaw> {
    if counts.values.contains(&counts.total) {
        return Some(Flaw::Constant(at));
    }
    if counts.ones().iter().any(|ones| leans(*ones, counts.total)) {
        return Some(Flaw::BitAt(at));
    }
    let enough = counts.total >= 256 * EXPECTED_AT_MIN;
    (enough && !lies_in(counts.chi_square(), CHI_SQUARE_AT)).then_some(Flaw::ValuesAt(at))
}

/// Whether so many heads in so many throws are no fair coin's: the deviation from a half is
/// compared with the standard deviation, both squared, so that no root is needed.
fn leans(ones: u64, throws: u64) -> bool {
    let twice = 2 * i128::from(ones) - i128::from(throws);
    twice * twice > DEVIATIONS_SQUARED * i128::from(throws)
}

fn lies_in(value: f64, (low, high): (f64, f64)) -> bool {
    (low..=high).contains(&value)
}

/// How often each value of a byte was seen.
struct Counts {
    values: [u64; 256],
    total: u64,
}

impl Counts {
    fn of(values: [u64; 256]) -> Self {
        Self { values, total: values.iter().sum() }
    }

    /// How often each bit was one.
    fn ones(&self) -> [u64; 8] {
        core::array::from_fn(|bit| {
            let seen = self.values.iter().enumerate().filter(|(value, _)| value >> bit & 1 == 1);
            seen.map(|(_, count)| *count).sum()
        })
    }

    fn chi_square(&self) -> f64 {
        let expected = self.total.max(1) as f64 / 256.0;
        let of = |count: &u64| (*count as f64 - expected) * (*count as f64 - expected) / expected;
        self.values.iter().map(of).sum()
    }

    fn entropy_bits(&self) -> f64 {
        let total = self.total.max(1) as f64;
        let seen = self.values.iter().filter(|count| **count > 0);
        seen.map(|count| *count as f64 / total).map(|share| share * log2(1.0 / share)).sum()
    }
}

/// The binary logarithm of a number from 1 on: its exponent, and then a digit for each squaring of
/// what is left. `core` has none.
fn log2(number: f64) -> f64 {
    debug_assert!(number >= 1.0, "a share is at most 1");
    let exponent = (number.to_bits() >> 52) as i32 - 1023;
    let mut rest = f64::from_bits(number.to_bits() & (!0 >> 12) | 1023 << 52);
    let (mut digits, mut digit) = (0.0, 0.5);
    for _ in 0..40 {
        rest *= rest;
        if rest >= 2.0 {
            rest /= 2.0;
            digits += digit;
        }
        digit /= 2.0;
    }
    f64::from(exponent) + digits
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use ringway_core::rng::Rng;

    use super::*;

    /// Messages of chance, each of which may be spoilt.
    fn sample(count: usize, spoil: impl Fn(usize, &mut Vec<u8>)) -> Sample {
        let mut rng = Rng::new(7);
        let mut sample = Sample::new();
        for number in 0..count {
            let mut message: Vec<u8> =
                (0..200 + rng.below(100)).map(|_| rng.next_u64() as u8).collect();
            spoil(number, &mut message);
            sample.add(&message);
        }
        sample
    }

    /// Chance is uniform, and that is what the heuristic looks for: nearly all of it is matched,
    /// but for the one in 400 that begins with six printable bytes by chance.
    #[test]
    fn chance_passes_the_first_verdict_and_not_the_second() {
        let sample = sample(1000, |_, _| {});
        let seen = sample.judge();
        assert!(seen.is_uniform(), "{:?}", seen.flaws);
        assert!((3.98..4.02).contains(&seen.ones_per_byte), "{seen:?}");
        assert!((7.99..8.0).contains(&seen.entropy_bits), "{seen:?}");
        assert!(seen.positions > 280, "{seen:?}");
        assert!(sample.fully_encrypted() >= 980, "{:?}", sample.exempt());
        let told = sample.exempt().iter().map(|(_, count)| count).sum::<u64>();
        assert_eq!(told + sample.fully_encrypted(), 1000);
        let lengths = sample.lengths().expect("there are messages");
        assert_eq!((lengths.min, lengths.max, lengths.distinct), (200, 299, 100));
        assert_eq!(sample.by_length().map(|(_, count)| count).sum::<u64>(), 1000);
    }

    /// Whatever is ours and not chance is found, where it is: a version, a flag, a number that
    /// counts, a key with a bit that is always zero, text, padding, a salt that comes again.
    #[test]
    fn what_is_not_chance_is_found() {
        let flaws = |spoil: fn(usize, &mut Vec<u8>)| sample(1000, spoil).judge().flaws;
        let constant = flaws(|_, message| message[70] = 1);
        assert_eq!(constant, [Flaw::Values, Flaw::Constant(70)], "it shows in the whole, too");
        assert_eq!(flaws(|_, message| message[31] &= 0x7f), [Flaw::BitAt(31)]);
        assert_eq!(flaws(|number, message| message[9] = number as u8), [Flaw::ValuesAt(9)]);
        let often = |number, message: &mut Vec<u8>| {
            if number % 8 == 0 {
                message[3] = 0xa5;
            }
        };
        assert!(!flaws(often).is_empty());
        let again = |number: usize, message: &mut Vec<u8>| {
            if number % 100 == 99 {
                message[..START_BYTES].fill(7);
            }
        };
        assert!(flaws(again).contains(&Flaw::Repeats(9)));
        let text = |_: usize, message: &mut Vec<u8>| {
            message.iter_mut().for_each(|byte| *byte = b'a' + *byte % 16);
        };
        let found = flaws(text);
        assert!(found.contains(&Flaw::Bits) && found.contains(&Flaw::Values), "{found:?}");
        // Nothing stands out of a number that counts through all bytes but its evenness.
        let mut even = Sample::new();
        (0..100u8).for_each(|by| {
            even.add(
                &(0..=255u8).map(|at| at.wrapping_mul(77).wrapping_add(by)).collect::<Vec<_>>(),
            );
        });
        assert_eq!(even.judge().flaws[0], Flaw::Values);
        assert!(even.judge().chi_square < 1.0);
        assert_eq!(Flaw::Constant(70).to_string(), "byte 70 is the same in every message");
    }

    #[test]
    fn of_little_little_is_said() {
        let none = Sample::new();
        assert!(none.judge().is_uniform());
        assert_eq!((none.lengths(), none.judge().positions, none.fully_encrypted()), (None, 0, 0));
        let mut one = Sample::new();
        one.add(&[0; 40]);
        let flaws = one.judge().flaws;
        assert_eq!(flaws, [Flaw::Bits], "40 zero bytes are no chance, even alone");
    }

    /// Each rule of the paper's algorithm, at its border.
    #[test]
    fn the_heuristic_is_the_papers() {
        // Four ones in each byte and nothing printable.
        let plain = vec![0xf0u8; 100];
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut packet = plain.clone();
            change(&mut packet);
            heuristic(&packet)
        };
        assert_eq!(with(&|_| {}), None);
        assert_eq!(heuristic(b""), Some(Exempt::Bits));
        let few = |count| with(&|packet: &mut Vec<u8>| packet[..count].fill(0x80));
        assert_eq!((few(19), few(20)), (None, Some(Exempt::Bits)), "3.43 and 3.4 ones in a byte");
        let many = |count| with(&|packet: &mut Vec<u8>| packet[..count].fill(0xff));
        assert_eq!((many(14), many(15)), (None, Some(Exempt::Bits)), "4.56 and 4.6");
        // 'S' has four ones, too; ' ' and '~' are printable, their neighbours are not.
        let start = |count| with(&|packet: &mut Vec<u8>| packet[..count].fill(b'S'));
        assert_eq!((start(5), start(6)), (None, Some(Exempt::PrintableStart)));
        let edges = |low, high| {
            with(&|packet: &mut Vec<u8>| {
                packet[..6].copy_from_slice(&[low, high, low, high, low, high])
            })
        };
        assert_eq!(edges(b' ', b'~'), Some(Exempt::PrintableStart));
        assert_eq!((edges(0x1f, b'~'), edges(b' ', 0x7f)), (None, None));
        let half = |count: usize| {
            with(&|packet: &mut Vec<u8>| {
                packet[7..].iter_mut().step_by(2).take(count).for_each(|byte| *byte = b'S');
                packet[6 + 48..].iter_mut().step_by(2).take(4).for_each(|byte| *byte = b'S');
            })
        };
        assert_eq!((half(46), half(47)), (None, Some(Exempt::PrintableHalf)));
        let run = |count: usize| with(&|packet: &mut Vec<u8>| packet[50..50 + count].fill(b'S'));
        assert_eq!((run(20), run(21)), (None, Some(Exempt::PrintableRun)));
        let begins =
            |text: &[u8]| with(&|packet: &mut Vec<u8>| packet[..text.len()].copy_from_slice(text));
        assert_eq!(begins(&[0x16, 3, 1]), Some(Exempt::Tls));
        assert_eq!(begins(&[0x17, 3, 9]), Some(Exempt::Tls));
        assert_eq!((begins(&[0x17, 3, 10]), begins(&[0x15, 3, 1])), (None, None));
        assert_eq!((begins(b"GET "), begins(b"POST ")), (Some(Exempt::Http), Some(Exempt::Http)));
        assert_eq!(begins(b"GETS"), None);
    }

    #[test]
    fn logarithms_are_right() {
        for number in [1.0, 1.5, 2.0, 3.0, 255.9, 256.0, 1e9] {
            let off: f64 = log2(number) - std::primitive::f64::log2(number);
            assert!(off.abs() < 1e-9, "{number}");
        }
    }
}
