//! What must hold for every input, as functions that panic when it does not.
//!
//! Fuzz targets and property tests call these; the server does not.

use alloc::vec::Vec;

use ringway_core::rng::Rng;

use super::parse::{Args, Parsed, Progress, RespError, next_command, resume};

/// The commands of a stream, then how it ended: `None` where more bytes are awaited.
#[derive(Debug, PartialEq, Eq)]
pub struct Stream {
    /// The arguments of each command.
    pub commands: Vec<Vec<Vec<u8>>>,
    /// The error after which nothing more is read.
    pub error: Option<RespError>,
}

/// Parses a whole stream from one slice.
pub fn parse_whole(data: &[u8]) -> Stream {
    let (mut args, mut at) = (Args::new(), 0);
    let mut stream = Stream { commands: Vec::new(), error: None };
    loop {
        let input = &data[at..];
        match next_command(input, &mut args) {
            Ok(Parsed::Command { consumed }) => {
                assert!(0 < consumed && consumed <= input.len());
                stream.commands.push(args.bind(input).iter().map(<[u8]>::to_vec).collect());
                at += consumed;
            }
            Ok(Parsed::Incomplete { need_at_least }) => {
                assert!(need_at_least > input.len(), "asked for what is there");
                return stream;
            }
            Err(error) => {
                stream.error = Some(error);
                return stream;
            }
        }
    }
}

/// Parses a stream that arrives in pieces, as a connection does: it waits for what was said to
/// be missing, and resumes.
pub fn parse_pieces<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Stream {
    let (mut args, mut progress) = (Args::new(), Progress::default());
    let (mut held, mut at, mut need) = (Vec::new(), 0, 0);
    let mut stream = Stream { commands: Vec::new(), error: None };
    for piece in pieces {
        held.extend_from_slice(piece);
        while held.len() - at >= need {
            let input = &held[at..];
            match resume(input, &mut args, &mut progress) {
                Ok(Parsed::Command { consumed }) => {
                    stream.commands.push(args.bind(input).iter().map(<[u8]>::to_vec).collect());
                    (at, need) = (at + consumed, 0);
                }
                Ok(Parsed::Incomplete { need_at_least }) => need = need_at_least,
                Err(error) => {
                    stream.error = Some(error);
                    return stream;
                }
            }
        }
    }
    // The stream may end within what was awaited, and yet be broken already.
    stream.error = resume(&held[at..], &mut args, &mut progress).err();
    stream
}

/// A stream means the same whole, byte by byte, and in the pieces that `seed` cuts.
///
/// # Panics
/// If it does not.
pub fn splits_agree(data: &[u8], seed: u64) {
    let whole = parse_whole(data);
    assert_eq!(whole, parse_pieces(data.chunks(1)), "byte by byte");
    let mut rng = Rng::new(seed);
    let mut rest = data;
    let pieces = core::iter::from_fn(|| {
        let most = 1 + rng.below(64);
        let len = rest.len().min(1 + rng.below(most) as usize);
        let (piece, after) = rest.split_at(len);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    });
    assert_eq!(whole, parse_pieces(pieces), "cut by seed {seed}");
}

/// The fuzz target of the parser: any bytes, cut in any way.
///
/// # Panics
/// If the parser breaks one of its promises.
pub fn fuzz_commands(data: &[u8]) {
    let seed = data
        .iter()
        .fold(data.len() as u64, |sum, byte| sum.wrapping_mul(0x100_0000_01B3) ^ u64::from(*byte));
    splits_agree(data, seed);
}
