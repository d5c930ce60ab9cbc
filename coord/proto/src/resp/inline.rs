//! Splits the line of an inline command into words, with quotes and escapes as Redis has them.
//!
//! Words are separated by white space. `"..."` knows `\n \r \t \b \a`, `\xHH` and `\` before any
//! other byte; `'...'` knows `\'` only. A closing quote must end its word. Linear, bounded by
//! `RESP_INLINE_BYTES_MAX`; always copies, because this is not how programs talk.

use ringway_core::limits::RESP_ARGS_MAX;

use super::parse::{Args, Range, RespError};

/// Puts the words of `line`, which has no line end, into `args`.
pub(super) fn split(line: &[u8], args: &mut Args) -> Result<(), RespError> {
    args.inline = true;
    args.unquoted.clear();
    args.count = 0;
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        if args.count == RESP_ARGS_MAX {
            args.count = 0;
            return Err(RespError::TooManyArgs);
        }
        let start = args.unquoted.len();
        rest = take_word(rest, &mut args.unquoted)?.trim_ascii_start();
        let range = Range { start: start as u32, len: (args.unquoted.len() - start) as u32 };
        match args.ranges.get_mut(args.count) {
            Some(place) => *place = range,
            None => args.ranges.push(range),
        }
        args.count += 1;
    }
    if is_http(args) { Err(RespError::Http) } else { Ok(()) }
}

/// A browser can be made to send a POST whose body holds commands. Redis refuses the words that
/// every such request starts with; we refuse the request line as well.
fn is_http(args: &Args) -> bool {
    let words = args.bind(&[]);
    let Some(first) = words.get(0) else { return false };
    let version = words.get(2).is_some_and(|word| word.starts_with(b"HTTP/"));
    first.eq_ignore_ascii_case(b"POST") || first.eq_ignore_ascii_case(b"Host:") || version
}

/// Appends the first word of `rest` to `word`; gives what follows it.
fn take_word<'a>(
    mut rest: &'a [u8],
    word: &mut alloc::vec::Vec<u8>,
) -> Result<&'a [u8], RespError> {
    while let Some((first, after)) = rest.split_first() {
        match first {
            b'"' => return end_of_word(take_double_quoted(after, word)?),
            b'\'' => return end_of_word(take_single_quoted(after, word)?),
            b' ' | b'\t' | b'\r' | b'\x0B' | b'\x0C' | b'\n' => return Ok(after),
            plain => word.push(*plain),
        }
        rest = after;
    }
    Ok(rest)
}

fn end_of_word(rest: &[u8]) -> Result<&[u8], RespError> {
    match rest.first() {
        None => Ok(rest),
        Some(next) if next.is_ascii_whitespace() || *next == b'\x0B' => Ok(rest),
        Some(_) => Err(RespError::UnbalancedQuotes),
    }
}

fn take_double_quoted<'a>(
    mut rest: &'a [u8],
    word: &mut alloc::vec::Vec<u8>,
) -> Result<&'a [u8], RespError> {
    loop {
        let (byte, after) = match rest {
            [b'"', after @ ..] => return Ok(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (nibble(*high) << 4 | nibble(*low), after)
            }
            [b'\\', escaped, after @ ..] => (unescaped(*escaped), after),
            [plain, after @ ..] => (*plain, after),
            [] => return Err(RespError::UnbalancedQuotes),
        };
        word.push(byte);
        rest = after;
    }
}

fn take_single_quoted<'a>(
    mut rest: &'a [u8],
    word: &mut alloc::vec::Vec<u8>,
) -> Result<&'a [u8], RespError> {
    loop {
        let (byte, after) = match rest {
            [b'\'', after @ ..] => return Ok(after),
            [b'\\', b'\'', after @ ..] => (b'\'', after),
            [plain, after @ ..] => (*plain, after),
            [] => return Err(RespError::UnbalancedQuotes),
        };
        word.push(byte);
        rest = after;
    }
}

const fn unescaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

/// The value of a hexadecimal digit that was checked to be one.
const fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, RespError> {
        let mut args = Args::new();
        split(line, &mut args)?;
        Ok(args.bind(&[]).iter().map(<[u8]>::to_vec).collect())
    }

    /// The cases of Redis's own rule: quotes join, escapes work in double quotes only.
    #[test]
    fn quotes_are_those_of_redis() {
        let cases: [(&[u8], &[&[u8]]); 8] = [
            (b"  GET\t a ", &[b"GET", b"a"]),
            (b"", &[]),
            (b"   ", &[]),
            (br#"SET "a b" 'c d'"#, &[b"SET", b"a b", b"c d"]),
            (br#"ECHO "\x41\x4g\n\"\\""#, &[b"ECHO", b"Ax4g\n\"\\"]),
            (br"ECHO 'it\'s \n'", &[b"ECHO", br"it's \n"]),
            (br#"ECHO """#, &[b"ECHO", b""]),
            (br#"ECHO a"b c""#, &[b"ECHO", b"ab c"]),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line).expect("correct"), expected, "{}", line.escape_ascii());
        }
    }

    /// A quote that does not end its word would leave it open where the word ends.
    #[test]
    fn open_quotes_are_refused() {
        for line in [&br#"a "b"#[..], br#"a "b"c"#, b"a 'b", b"a 'b'c", br#"a "\"#, br#"a "b\""#] {
            assert_eq!(words(line), Err(RespError::UnbalancedQuotes), "{}", line.escape_ascii());
        }
    }

    /// A request line of a browser ends the connection before its body can be taken for commands.
    #[test]
    fn http_is_refused() {
        for line in [&b"POST / HTTP/1.1"[..], b"GET /metrics HTTP/1.1", b"host: a:7400"] {
            assert_eq!(words(line), Err(RespError::Http));
        }
    }
}
