//! How the two streams of a flow begin: what who opened it wants, and the word that it is there.
//!
//! ```text
//! opener: items, each kind u8 | length u8 | value, then the target
//!         81 who the user is: an address, 4 or 16 bytes, and a port u16, big-endian
//!         82 how both streams go on: one byte, 0 as they are, 1 compressed
//! other:  01 | how both streams go on
//! ```
//!
//! An item whose kind has the highest bit and is not known is skipped. Whoever cannot reach the
//! target says nothing on its stream: it resets the flow with the reason.
//!
//! Bounds: at most [`OPENING_BYTES_MAX`] bytes before the user's own.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use crate::target::{NoTarget, TARGET_BYTES_MAX, Target};

/// Bytes before a user's own in an opener's stream, at most.
pub const OPENING_BYTES_MAX: usize = TARGET_BYTES_MAX + 128;
/// Bytes before a service's own in the other stream.
pub const ANSWER_BYTES: usize = 2;

const FROM: u8 = 0x81;
const CODING: u8 = 0x82;
const IGNORABLE: u8 = 0x80;
const CONNECTED: u8 = 1;

/// How the bytes of a flow's streams travel, both ways, behind its opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coding {
    /// As they are.
    #[default]
    Plain = 0,
    /// Compressed.
    Lz4 = 1,
}

impl Coding {
    fn from_wire(byte: u8) -> Option<Coding> {
        [Coding::Plain, Coding::Lz4].into_iter().find(|coding| *coding as u8 == byte)
    }
}

/// What who opens a flow wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Where to.
    pub target: Target,
    /// Who the user is, for services that are told.
    pub from: Option<SocketAddr>,
    /// How both streams may travel.
    pub coding: Coding,
}

impl Opening {
    /// Appends the opening.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self.from {
            Some(SocketAddr::V4(from)) => {
                out.extend_from_slice(&[FROM, 6]);
                out.extend_from_slice(&from.ip().octets());
                out.extend_from_slice(&from.port().to_be_bytes());
            }
            Some(SocketAddr::V6(from)) => {
                out.extend_from_slice(&[FROM, 18]);
                out.extend_from_slice(&from.ip().octets());
                out.extend_from_slice(&from.port().to_be_bytes());
            }
            None => {}
        }
        if self.coding != Coding::Plain {
            out.extend_from_slice(&[CODING, 1, self.coding as u8]);
        }
        self.target.write(out);
    }

    /// Reads an opening: it, and how many bytes it took; `None` if it is not whole.
    ///
    /// # Errors
    /// [`NoTarget`]; more bytes do not mend it.
    pub fn read(bytes: &[u8]) -> Result<Option<(Opening, usize)>, NoTarget> {
        let (mut from, mut coding, mut at) = (None, Coding::Plain, 0);
        while let Some(kind) = bytes.get(at).filter(|kind| **kind & IGNORABLE != 0) {
            let Some(len) = bytes.get(at + 1).map(|len| usize::from(*len)) else { return Ok(None) };
            if at + 2 + len > OPENING_BYTES_MAX - TARGET_BYTES_MAX {
                return Err(NoTarget::Malformed);
            }
            let Some(value) = bytes.get(at + 2..at + 2 + len) else { return Ok(None) };
            match *kind {
                FROM => from = Some(address(value).ok_or(NoTarget::Malformed)?),
                // A coding that is not known here is not used.
                CODING => {
                    coding =
                        value.first().and_then(|one| Coding::from_wire(*one)).unwrap_or_default();
                }
                _ => {}
            }
            at += 2 + len;
        }
        let read = Target::read(&bytes[at..])?;
        Ok(read.map(|(target, taken)| (Opening { target, from, coding }, at + taken)))
    }
}

fn address(value: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = value.split_last_chunk::<2>()?;
    let four = <[u8; 4]>::try_from(ip).map(IpAddr::from);
    let sixteen = <[u8; 16]>::try_from(ip).map(IpAddr::from);
    Some(SocketAddr::new(four.or(sixteen).ok()?, u16::from_be_bytes(*port)))
}

/// The first bytes of the other stream: it is connected, and this is how both go on.
pub fn answer(coding: Coding) -> [u8; ANSWER_BYTES] {
    [CONNECTED, coding as u8]
}

/// Reads the first bytes of the other stream.
///
/// # Errors
/// [`NoTarget::Malformed`] for what is no answer.
pub fn read_answer(bytes: [u8; ANSWER_BYTES]) -> Result<Coding, NoTarget> {
    let [CONNECTED, coding] = bytes else { return Err(NoTarget::Malformed) };
    Coding::from_wire(coding).ok_or(NoTarget::Malformed)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn opening(from: Option<&str>, coding: Coding) -> Opening {
        let from = from.map(|text| text.parse().expect("an address"));
        Opening { target: Target::parse("db.example:5432").expect("a target"), from, coding }
    }

    #[test]
    fn openings_are_read_as_they_are_written_however_they_are_cut() {
        for from in [None, Some("10.1.2.3:4"), Some("[fe80::1]:65535")] {
            for coding in [Coding::Plain, Coding::Lz4] {
                let (opening, mut bytes) = (opening(from, coding), vec![]);
                opening.write(&mut bytes);
                for cut in 0..bytes.len() {
                    assert_eq!(Opening::read(&bytes[..cut]), Ok(None));
                }
                let len = bytes.len();
                bytes.extend_from_slice(b"the user's");
                assert_eq!(Opening::read(&bytes), Ok(Some((opening, len))));
            }
        }
    }

    #[test]
    fn what_later_versions_add_is_skipped_within_bounds() {
        let mut bytes = vec![0x90, 3, 1, 2, 3, CODING, 1, 77];
        opening(None, Coding::Plain).target.write(&mut bytes);
        let read = Opening::read(&bytes).expect("a target").expect("whole");
        assert_eq!(read.0, opening(None, Coding::Plain));
        assert_eq!(Opening::read(&[0x90, 200]), Err(NoTarget::Malformed));
        assert_eq!(Opening::read(&[FROM, 1, 1, 1, 1]), Err(NoTarget::Malformed));
    }

    #[test]
    fn an_answer_says_how_both_go_on() {
        assert_eq!(read_answer(answer(Coding::Lz4)), Ok(Coding::Lz4));
        assert_eq!(read_answer([0, 0]), Err(NoTarget::Malformed));
        assert_eq!(read_answer([1, 9]), Err(NoTarget::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_opening_or_not(
            bytes in proptest::collection::vec(any::<u8>(), 0..OPENING_BYTES_MAX + 40),
        ) {
            if let Ok(Some((_, taken))) = Opening::read(&bytes) {
                prop_assert!(taken <= OPENING_BYTES_MAX);
            } else if bytes.len() >= OPENING_BYTES_MAX {
                prop_assert!(Opening::read(&bytes).is_err());
            }
        }
    }
}
