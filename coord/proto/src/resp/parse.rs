//! Finds one client command in received bytes: where its arguments stand, how long it is.
//!
//! Two forms: arrays of bulk strings (`*2\r\n$3\r\nGET\r\n$1\r\na\r\n`) and inline commands
//! (`GET a\r\n`, what a person types into telnet). Arguments of arrays are ranges of the input,
//! never copied. Clients mostly send few, short arguments, so a header of up to three digits is
//! read as one 64-bit word; anything else takes the careful way, byte by byte.
//!
//! Always true:
//! - The result depends on the bytes alone, not on how they arrived: a command, or an error, is
//!   the same for every way of cutting the stream.
//! - `need_at_least` exceeds the length of the input and never exceeds the command's length (of
//!   an inline command: never more than one byte further).
//! - Stricter than Redis: a bulk string that is not followed by CRLF, and a negative count, are
//!   errors.
//!
//! Bounds: linear in the command; [`resume`] also when it arrives in many pieces. Nothing is
//! allocated once `Args` has seen its largest command: 8 bytes an argument.
//! Not here: what the words mean (`verb`, `request`).
//! Tests: below, `check.rs` (also the fuzz target), `tests/resp.rs`; speed: `benches/resp.rs`.

use alloc::vec::Vec;
use core::fmt;

use ringway_core::limits::{RESP_ARGS_MAX, RESP_BULK_BYTES_MAX, RESP_COMMAND_BYTES_MAX};
use ringway_core::limits::{RESP_INLINE_BYTES_MAX, VALUE_BYTES_MAX};

use super::inline;

/// The bytes of the shortest bulk string, `$0\r\n\r\n`: what every missing argument still needs.
const BULK_BYTES_MIN: usize = 6;
/// A count or length of more digits is refused before its end is seen.
const DIGITS_MAX: usize = 10;

const _: () = assert!(RESP_COMMAND_BYTES_MAX <= u32::MAX as usize, "ranges are 32 bits");
const _: () = assert!(RESP_ARGS_MAX * BULK_BYTES_MIN + 16 <= RESP_COMMAND_BYTES_MAX);
const _: () = assert!(VALUE_BYTES_MAX <= RESP_BULK_BYTES_MAX);

/// What was found at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// No whole command yet.
    Incomplete {
        /// It cannot be whole before the input has this many bytes, counted from its start.
        need_at_least: usize,
    },
    /// One command; its arguments are in `Args`. An empty line, or `*0`, has none and gets no
    /// reply.
    Command {
        /// Its bytes; the next command starts behind them.
        consumed: usize,
    },
}

/// The peer broke the protocol. The stream cannot be followed any further: write the error, close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum RespError {
    /// The count behind `*` is not a plain decimal number.
    MultibulkLength,
    /// The count behind `*` has too many digits.
    MultibulkCountString,
    /// The count behind `*`, or the words of an inline command, exceed `RESP_ARGS_MAX`.
    TooManyArgs,
    /// An argument does not start with `$` but with this byte.
    ExpectedBulk(u8),
    /// The length behind `$` is not a plain decimal number.
    BulkLength,
    /// The length behind `$` has too many digits.
    BulkCountString,
    /// The length behind `$` exceeds `RESP_BULK_BYTES_MAX`.
    BulkTooLong,
    /// A length line does not end with CRLF.
    LineEnd,
    /// A bulk string is not followed by CRLF: its length was wrong.
    BulkEnd,
    /// All arguments together exceed `RESP_COMMAND_BYTES_MAX`.
    CommandTooLong,
    /// No line end within `RESP_INLINE_BYTES_MAX`.
    InlineTooLong,
    /// A quote of an inline command is not closed, or something follows it directly.
    UnbalancedQuotes,
    /// An HTTP request; a web page may have made a browser send it, so nothing more is read.
    Http,
}

impl fmt::Display for RespError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MultibulkLength => f.write_str("Protocol error: invalid multibulk length"),
            Self::MultibulkCountString => f.write_str("Protocol error: too big mbulk count string"),
            Self::TooManyArgs => write!(
                f,
                "Protocol error: invalid multibulk length, at most {RESP_ARGS_MAX} arguments"
            ),
            Self::ExpectedBulk(got) => {
                write!(f, "Protocol error: expected '$', got '{}'", got.escape_ascii())
            }
            Self::BulkLength => f.write_str("Protocol error: invalid bulk length"),
            Self::BulkCountString => f.write_str("Protocol error: too big bulk count string"),
            Self::BulkTooLong => {
                write!(f, "Protocol error: invalid bulk length, at most {RESP_BULK_BYTES_MAX}")
            }
            Self::LineEnd => f.write_str("Protocol error: expected LF after CR"),
            Self::BulkEnd => f.write_str("Protocol error: expected CRLF after bulk string"),
            Self::CommandTooLong => {
                write!(f, "Protocol error: too big command, at most {RESP_COMMAND_BYTES_MAX} bytes")
            }
            Self::InlineTooLong => f.write_str("Protocol error: too big inline request"),
            Self::UnbalancedQuotes => f.write_str("Protocol error: unbalanced quotes in request"),
            Self::Http => f.write_str(
                "Protocol error: this is HTTP; metrics and health are on the admin address",
            ),
        }
    }
}

/// Where one argument stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Range {
    pub(super) start: u32,
    pub(super) len: u32,
}

/// The arguments of the last parsed command; one per shard, reused for every command.
#[derive(Debug, Default)]
pub struct Args {
    /// As long as the largest command so far; the first `count` are valid.
    pub(super) ranges: Vec<Range>,
    pub(super) count: usize,
    /// The words of an inline command, without quotes and escapes.
    pub(super) unquoted: Vec<u8>,
    pub(super) inline: bool,
}

impl Args {
    /// No arguments, room for the usual few.
    pub fn new() -> Self {
        Self { ranges: alloc::vec![Range::default(); 16], ..Self::default() }
    }

    /// How many arguments the command has, its name included.
    #[inline]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether the command was an empty line or an empty array.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The arguments themselves; `input` is the slice that was parsed.
    #[inline]
    pub fn bind<'a>(&'a self, input: &'a [u8]) -> ArgList<'a> {
        let bytes = if self.inline { &self.unquoted } else { input };
        ArgList { bytes, ranges: &self.ranges[..self.count] }
    }
}

/// Borrowed arguments, or the tail of them. Small: pass it by value.
#[derive(Clone, Copy)]
pub struct ArgList<'a> {
    bytes: &'a [u8],
    ranges: &'a [Range],
}

impl<'a> ArgList<'a> {
    /// How many arguments there are.
    #[inline]
    pub const fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there are none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Argument `index`, if there are so many.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        Some(self.at(*self.ranges.get(index)?))
    }

    /// The arguments from `first` on; none if there are fewer.
    #[inline]
    pub fn from(&self, first: usize) -> ArgList<'a> {
        ArgList { bytes: self.bytes, ranges: self.ranges.get(first..).unwrap_or(&[]) }
    }

    /// The first `count` arguments; all if there are fewer.
    #[inline]
    pub fn first(&self, count: usize) -> ArgList<'a> {
        ArgList { bytes: self.bytes, ranges: self.ranges.get(..count).unwrap_or(self.ranges) }
    }

    /// All arguments in order.
    #[inline]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &'a [u8]> + ExactSizeIterator + use<'a> {
        let list = *self;
        self.ranges.iter().map(move |range| list.at(*range))
    }

    /// An argument of another input than the parsed one could lie outside: it is empty then.
    #[inline]
    fn at(&self, range: Range) -> &'a [u8] {
        let start = range.start as usize;
        self.bytes.get(start..start + range.len as usize).unwrap_or(&[])
    }
}

impl fmt::Debug for ArgList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for arg in self.iter() {
            list.entry(&format_args!("{}", arg.escape_ascii()));
        }
        list.finish()
    }
}

/// Where parsing stopped in a command that is not whole: kept by a connection, 8 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that need not be looked at again; zero before the first attempt.
    at: u32,
    /// Arguments from there on.
    left: u32,
}

/// Parses the command at the start of `input` into `args`.
///
/// While it is incomplete, every call starts again at the command's first byte; that is right for
/// a server that waits for `need_at_least`. [`resume`] is for large commands in small pieces.
#[inline]
pub fn next_command(input: &[u8], args: &mut Args) -> Result<Parsed, RespError> {
    let mut progress = Progress::default();
    parse(input, args, &mut progress)
}

/// As [`next_command`], but goes on where the last call stopped, so that the time spent on a
/// command is linear in its length even if it arrives byte by byte. `progress` starts as default,
/// belongs to one connection, and is reset when the command is whole.
#[inline]
pub fn resume(input: &[u8], args: &mut Args, progress: &mut Progress) -> Result<Parsed, RespError> {
    if *progress == Progress::default() {
        return parse(input, args, progress);
    }
    resume_cold(input, args, progress)
}

#[cold]
fn resume_cold(
    input: &[u8],
    args: &mut Args,
    progress: &mut Progress,
) -> Result<Parsed, RespError> {
    if input.first() == Some(&b'*') {
        if let Some(need_at_least) = skip_bulks(input, progress)? {
            return Ok(Parsed::Incomplete { need_at_least });
        }
        *progress = Progress::default();
    }
    parse(input, args, progress)
}

#[inline]
fn parse(input: &[u8], args: &mut Args, progress: &mut Progress) -> Result<Parsed, RespError> {
    args.count = 0;
    if input.first() != Some(&b'*') {
        return parse_inline(input, args, progress);
    }
    let (count, mut at) = match count_of_args(input)? {
        Line::Number { value, next } => (value as usize, next),
        Line::Incomplete { need_at_least } => return Ok(Parsed::Incomplete { need_at_least }),
    };
    if count > args.ranges.len() {
        args.ranges.resize(count, Range::default());
    }
    args.inline = false;
    for (index, range) in args.ranges[..count].iter_mut().enumerate() {
        let bulk = match short_bulk(input, at) {
            Some(bulk) => bulk,
            None => match any_bulk(input, at, count - index)? {
                Bulk::Whole(range) => range,
                Bulk::Incomplete { need_at_least } => {
                    *progress = Progress { at: at as u32, left: (count - index) as u32 };
                    return Ok(Parsed::Incomplete { need_at_least });
                }
            },
        };
        *range = bulk;
        at = bulk.start as usize + bulk.len as usize + 2;
        if at + (count - index - 1) * BULK_BYTES_MIN > RESP_COMMAND_BYTES_MAX {
            return Err(RespError::CommandTooLong);
        }
    }
    args.count = count;
    Ok(Parsed::Command { consumed: at })
}

/// Passes over the arguments that have become whole; `None` when the command has.
fn skip_bulks(input: &[u8], progress: &mut Progress) -> Result<Option<usize>, RespError> {
    while progress.left > 0 {
        match any_bulk(input, progress.at as usize, progress.left as usize)? {
            Bulk::Whole(range) => progress.at = range.start + range.len + 2,
            Bulk::Incomplete { need_at_least } => return Ok(Some(need_at_least)),
        }
        progress.left -= 1;
    }
    Ok(None)
}

/// A bulk string of up to 999 bytes that stands in the input as a whole and is correct; `None`
/// leaves the verdict to [`any_bulk`]. At most 8 bytes are looked at for the header, as one word.
#[inline]
fn short_bulk(input: &[u8], at: usize) -> Option<Range> {
    const ONE: u64 = u64::from_le_bytes(*b"$\0\r\n\0\0\0\0");
    const TWO: u64 = u64::from_le_bytes(*b"$\0\0\r\n\0\0\0");
    const THREE: u64 = u64::from_le_bytes(*b"$\0\0\0\r\n\0\0");
    let word = u64::from_le_bytes(*input.get(at..)?.first_chunk::<8>()?);
    let digit = |index: u32| ((word >> (8 * index)) as u8).wrapping_sub(b'0');
    let (first, header, len) = if word & 0xFFFF_00FF == ONE {
        // The one length that may start with a zero is zero itself.
        (digit(1).max(1), 4, usize::from(digit(1)))
    } else if word & 0x00FF_FF00_00FF == TWO && digit(2) <= 9 {
        (digit(1), 5, usize::from(digit(1)) * 10 + usize::from(digit(2)))
    } else if word & 0xFFFF_0000_00FF == THREE && digit(2) <= 9 && digit(3) <= 9 {
        let tens = usize::from(digit(1)) * 10 + usize::from(digit(2));
        (digit(1), 6, tens * 10 + usize::from(digit(3)))
    } else {
        return None;
    };
    if first.wrapping_sub(1) > 8 {
        return None;
    }
    let start = at + header;
    let end = input.get(start + len..)?.first_chunk::<2>()?;
    (end == b"\r\n").then_some(Range { start: start as u32, len: len as u32 })
}

enum Bulk {
    Whole(Range),
    Incomplete { need_at_least: usize },
}

/// Any bulk string at `at`, the first of `left` that the command still has.
#[cold]
fn any_bulk(input: &[u8], at: usize, left: usize) -> Result<Bulk, RespError> {
    let later = (left - 1) * BULK_BYTES_MIN;
    match input.get(at) {
        None => return Ok(Bulk::Incomplete { need_at_least: at + BULK_BYTES_MIN + later }),
        Some(b'$') => {}
        Some(other) => return Err(RespError::ExpectedBulk(*other)),
    }
    let bad = (RespError::BulkLength, RespError::BulkCountString);
    let (len, start) = match number_line(input, at + 1, bad)? {
        Line::Number { value, next } => (value, next),
        Line::Incomplete { need_at_least } => {
            return Ok(Bulk::Incomplete { need_at_least: need_at_least + 2 + later });
        }
    };
    if len > RESP_BULK_BYTES_MAX as u64 {
        return Err(RespError::BulkTooLong);
    }
    let end = start + len as usize;
    if end + 2 + later > RESP_COMMAND_BYTES_MAX {
        return Err(RespError::CommandTooLong);
    }
    for (index, expected) in b"\r\n".iter().enumerate() {
        match input.get(end + index) {
            None => return Ok(Bulk::Incomplete { need_at_least: end + 2 + later }),
            Some(got) if got == expected => {}
            Some(_) => return Err(RespError::BulkEnd),
        }
    }
    Ok(Bulk::Whole(Range { start: start as u32, len: len as u32 }))
}

enum Line {
    Number { value: u64, next: usize },
    Incomplete { need_at_least: usize },
}

/// The header of an array, at the start of the input: how many arguments, and where they start.
#[inline]
fn count_of_args(input: &[u8]) -> Result<Line, RespError> {
    const ONE: u32 = u32::from_le_bytes(*b"*\0\r\n");
    if let Some(chunk) = input.first_chunk::<4>() {
        let word = u32::from_le_bytes(*chunk);
        let digit = chunk[1].wrapping_sub(b'0');
        if word & 0xFFFF_00FF == ONE && digit <= 9 {
            return Ok(Line::Number { value: u64::from(digit), next: 4 });
        }
    }
    any_count_of_args(input)
}

#[cold]
fn any_count_of_args(input: &[u8]) -> Result<Line, RespError> {
    let bad = (RespError::MultibulkLength, RespError::MultibulkCountString);
    let line = number_line(input, 1, bad)?;
    match line {
        Line::Number { value, .. } if value > RESP_ARGS_MAX as u64 => Err(RespError::TooManyArgs),
        _ => Ok(line),
    }
}

/// A decimal number without sign or leading zero, then CRLF. `bad` are the errors for anything
/// that is not a number and for one that is too long. The first wrong byte decides, so the
/// verdict is the same whatever has arrived behind it.
fn number_line(input: &[u8], at: usize, bad: (RespError, RespError)) -> Result<Line, RespError> {
    let mut value = 0u64;
    for (index, byte) in input.iter().enumerate().skip(at) {
        let digits = index - at;
        match byte {
            b'\r' if digits > 0 => {
                return match input.get(index + 1) {
                    Some(b'\n') => Ok(Line::Number { value, next: index + 2 }),
                    Some(_) => Err(RespError::LineEnd),
                    None => Ok(Line::Incomplete { need_at_least: index + 2 }),
                };
            }
            b'0'..=b'9' if digits == DIGITS_MAX => return Err(bad.1),
            b'0'..=b'9' if digits == 0 || value > 0 => {
                value = value * 10 + u64::from(byte - b'0');
            }
            _ => return Err(bad.0),
        }
    }
    // At least one digit, unless there are some, and CRLF.
    Ok(Line::Incomplete { need_at_least: input.len().max(at + 1) + 2 })
}

/// One line of words. `progress.at` counts the bytes that hold no line end.
#[cold]
fn parse_inline(
    input: &[u8],
    args: &mut Args,
    progress: &mut Progress,
) -> Result<Parsed, RespError> {
    let searched = progress.at as usize;
    let window = &input[..input.len().min(RESP_INLINE_BYTES_MAX)];
    let unsearched = window.get(searched..).unwrap_or(&[]);
    let Some(found) = unsearched.iter().position(|byte| *byte == b'\n') else {
        if input.len() >= RESP_INLINE_BYTES_MAX {
            return Err(RespError::InlineTooLong);
        }
        progress.at = input.len() as u32;
        return Ok(Parsed::Incomplete { need_at_least: input.len() + 1 });
    };
    *progress = Progress::default();
    let line = &input[..searched + found];
    inline::split(line.strip_suffix(b"\r").unwrap_or(line), args)?;
    Ok(Parsed::Command { consumed: line.len() + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    fn words(input: &[u8]) -> (Vec<Vec<u8>>, usize) {
        let mut args = Args::new();
        match next_command(input, &mut args) {
            Ok(Parsed::Command { consumed }) => {
                (args.bind(input).iter().map(<[u8]>::to_vec).collect(), consumed)
            }
            other => panic!("{other:?} for {}", input.escape_ascii()),
        }
    }

    fn refusal(input: &[u8]) -> RespError {
        next_command(input, &mut Args::new()).expect_err("must be refused")
    }

    fn waits_for(input: &[u8]) -> usize {
        match next_command(input, &mut Args::new()) {
            Ok(Parsed::Incomplete { need_at_least }) => need_at_least,
            other => panic!("{other:?} for {}", input.escape_ascii()),
        }
    }

    /// Two commands in one read: the first is taken to the byte, the second is left alone.
    #[test]
    fn takes_one_command_of_a_pipeline() {
        let input = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*1\r\n$4\r\nPING\r\n";
        let (first, consumed) = words(input);
        assert_eq!(first, [b"GET".to_vec(), b"a".to_vec()]);
        assert_eq!(words(&input[consumed..]).0, [b"PING".to_vec()]);
    }

    /// Arguments are bytes: CRLF, NUL and `$` inside them mean nothing, empty ones count.
    #[test]
    fn arguments_are_opaque() {
        let (args, _) = words(b"*3\r\n$6\r\n\r\n$1\r\n\r\n$0\r\n\r\n$1\r\n\0\r\n");
        assert_eq!(args, [b"\r\n$1\r\n".to_vec(), vec![], vec![0]]);
    }

    /// Lengths of one to five digits are found alike, whichever way reads them.
    #[test]
    fn lengths_of_every_width() {
        for len in [0, 1, 9, 10, 99, 100, 999, 1000, RESP_BULK_BYTES_MAX] {
            let mut input = alloc::format!("*1\r\n${len}\r\n").into_bytes();
            input.extend(core::iter::repeat_n(b'x', len));
            input.extend_from_slice(b"\r\n");
            let (args, consumed) = words(&input);
            assert_eq!((args[0].len(), consumed), (len, input.len()));
        }
    }

    /// Each way to break the framing has an error of its own, in the words Redis clients know.
    #[test]
    fn broken_framing_is_named() {
        for (input, text) in [
            (&b"*x\r\n"[..], "invalid multibulk length"),
            (b"*-1\r\n", "invalid multibulk length"),
            (b"*01\r\n", "invalid multibulk length"),
            (b"*\r\n", "invalid multibulk length"),
            (b"*4105\r\n", "invalid multibulk length, at most 4104 arguments"),
            (b"*12345678901", "too big mbulk count string"),
            (b"*1\r\r", "expected LF after CR"),
            (b"*1\r\n+OK\r\n", "expected '$', got '+'"),
            (b"*1\r\n\r\n", "expected '$', got '\\r'"),
            (b"*1\r\n$\r\n", "invalid bulk length"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$03\r\nGET\r\n", "invalid bulk length"),
            (b"*1\r\n$3x\r\nGET\r\n", "invalid bulk length"),
            (b"*1\r\n$65537\r\n", "invalid bulk length, at most 65536"),
            (b"*1\r\n$99999999999\r\n", "too big bulk count string"),
            (b"*1\r\n$3\r\nGETS\r\n", "expected CRLF after bulk string"),
            (b"*1\r\n$3\r\nGET\rx\r\n", "expected CRLF after bulk string"),
        ] {
            let expected = alloc::format!("Protocol error: {text}");
            assert_eq!(refusal(input).to_string(), expected, "{}", input.escape_ascii());
        }
    }

    /// Nobody may make us buffer more than one command's worth: the sum is checked as soon as the
    /// lengths tell it, not when the bytes have arrived.
    #[test]
    fn the_whole_command_is_bounded() {
        let mut input = b"*17\r\n".to_vec();
        for _ in 0..16 {
            input.extend_from_slice(b"$65536\r\n");
            input.extend(core::iter::repeat_n(b'x', 65_536));
            input.extend_from_slice(b"\r\n");
        }
        assert_eq!(refusal(&input), RespError::CommandTooLong);
    }

    /// What is missing at the least is known from the counts alone, so nothing is parsed in vain.
    #[test]
    fn waiting_is_exact_where_it_can_be() {
        assert_eq!(waits_for(b""), 1);
        assert_eq!(waits_for(b"*"), 4);
        assert_eq!(waits_for(b"*1"), 4);
        assert_eq!(waits_for(b"*1\r"), 4);
        assert_eq!(waits_for(b"*2\r\n"), 4 + 12);
        assert_eq!(waits_for(b"*2\r\n$5"), 4 + 4 + 2 + 6);
        assert_eq!(waits_for(b"*2\r\n$3\r\nGET\r\n$10000\r\nxx"), 13 + 8 + 10_000 + 2);
        assert_eq!(waits_for(b"PING\r"), 6);
    }

    /// A hundred kilobytes of small arguments byte by byte: `resume` never goes back.
    #[test]
    fn resuming_is_linear() {
        let mut input = b"*4104\r\n".to_vec();
        for index in 0..4104 {
            input.extend_from_slice(alloc::format!("$7\r\nn{index:06}\r\n").as_bytes());
        }
        let (mut args, mut progress, mut need) = (Args::new(), Progress::default(), 1);
        for len in 1..input.len() {
            if len < need {
                continue;
            }
            let before = progress.at;
            match resume(&input[..len], &mut args, &mut progress) {
                Ok(Parsed::Incomplete { need_at_least }) => need = need_at_least,
                other => panic!("{other:?} at {len}"),
            }
            assert!(progress.at >= before && need > len);
        }
        let whole = resume(&input, &mut args, &mut progress);
        assert_eq!(whole, Ok(Parsed::Command { consumed: input.len() }));
        assert_eq!(args.bind(&input).get(4103), Some(&b"n004103"[..]));
        assert_eq!(progress, Progress::default(), "ready for the next command");
    }
}
