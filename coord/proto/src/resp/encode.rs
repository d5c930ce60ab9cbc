//! Writes replies, in the version that the connection speaks, at the end of a byte vector.
//!
//! What RESP2 cannot say is written as its nearest form: a map as an array of keys and values,
//! a set or a push as an array, a double or a text as a bulk string, a boolean as an integer.
//!
//! Always true:
//! - Every function writes exactly one reply, or the header of one whose parts follow.
//! - No error or simple string carries a line end, whatever it was made from.
//!
//! Bounds: linear in the reply; the vector is the only thing that grows. The hot replies
//! ([`put_owner`], [`put_bulk`], [`put_null`]) take no branch on the version that is not predicted.
//! Tests: below; speed: `benches/resp.rs`.

use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use ringway_core::{SessionId, Token};

/// The version of RESP that a connection speaks; it starts with 2 and asks for 3 with `HELLO 3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// Arrays, bulk strings, integers, errors.
    #[default]
    Resp2,
    /// Maps, sets, nulls, doubles, booleans and pushes as well.
    Resp3,
}

/// The first word of an error: what a program looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Wrong words: an unknown command, a wrong option, a broken protocol.
    Err,
    /// A name that is not 1 to 255 bytes.
    BadName,
    /// No such session, or it has ended.
    NoSession,
    /// The session does not hold the name, or not under this token.
    NotOwner,
    /// The mode does not fit.
    Mode,
    /// A limit of the server is reached.
    Full,
    /// Too much is queued for the shard; try again.
    Busy,
    /// `REPLICATED` needs a cluster.
    NoReplica,
    /// Authenticate first.
    NoAuth,
    /// The credentials do not cover it.
    Denied,
    /// The lease is outside the server's bounds.
    Lease,
    /// The names are not in one slot.
    CrossSlot,
    /// Another principal's, or a wrong secret.
    Refused,
    /// Known to Redis or reserved here, but not provided.
    Unsupported,
    /// Nothing is granted yet after an unclean stop.
    Starting,
    /// The metadata has another version.
    Conflict,
    /// The namespace has as many names as it may.
    Quota,
    /// The session has no connection that could hear a message.
    Away,
    /// The receiver's connection has too much unread.
    ReceiverFull,
    /// The sender does not hold the name under this token.
    Fenced,
    /// The connection watches this already.
    Exists,
    /// Redis: a command for another kind of value.
    WrongType,
    /// Redis: no script has this digest.
    NoScript,
    /// Redis: `HELLO` asked for a version that is not 2 or 3.
    NoProto,
    /// Redis: `AUTH` with a wrong user or password.
    WrongPass,
}

impl Code {
    /// The word itself. Those of the native protocol are spelled as in `wire::status::name`.
    pub const fn word(self) -> &'static str {
        match self {
            Code::Err => "ERR",
            Code::BadName => "BADNAME",
            Code::NoSession => "NOSESSION",
            Code::NotOwner => "NOTOWNER",
            Code::Mode => "MODE",
            Code::Full => "FULL",
            Code::Busy => "BUSY",
            Code::NoReplica => "NOREPLICA",
            Code::NoAuth => "NOAUTH",
            Code::Denied => "DENIED",
            Code::Lease => "LEASE",
            Code::CrossSlot => "CROSSSLOT",
            Code::Refused => "REFUSED",
            Code::Unsupported => "UNSUPPORTED",
            Code::Starting => "STARTING",
            Code::Conflict => "CONFLICT",
            Code::Quota => "QUOTA",
            Code::Away => "AWAY",
            Code::ReceiverFull => "RECEIVER_FULL",
            Code::Fenced => "FENCED",
            Code::Exists => "EXISTS",
            Code::WrongType => "WRONGTYPE",
            Code::NoScript => "NOSCRIPT",
            Code::NoProto => "NOPROTO",
            Code::WrongPass => "WRONGPASS",
        }
    }

    /// The code for a status of the native protocol that is an error; `None` for the others.
    pub const fn of_status(status: u8) -> Option<Code> {
        use crate::wire::status as s;
        Some(match status {
            s::UNKNOWN_OP | s::MALFORMED => Code::Err,
            s::BADNAME => Code::BadName,
            s::NOSESSION => Code::NoSession,
            s::NOTOWNER => Code::NotOwner,
            s::MODE => Code::Mode,
            s::FULL => Code::Full,
            s::BUSY => Code::Busy,
            s::NOREPLICA => Code::NoReplica,
            s::NOAUTH => Code::NoAuth,
            s::DENIED => Code::Denied,
            s::LEASE => Code::Lease,
            s::CROSSSLOT => Code::CrossSlot,
            s::REFUSED => Code::Refused,
            s::UNSUPPORTED => Code::Unsupported,
            s::STARTING => Code::Starting,
            s::CONFLICT => Code::Conflict,
            s::QUOTA => Code::Quota,
            s::AWAY => Code::Away,
            s::RECEIVER_FULL => Code::ReceiverFull,
            s::FENCED => Code::Fenced,
            s::EXISTS => Code::Exists,
            _ => return None,
        })
    }
}

/// Appends replies in one version to one vector.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    version: Version,
}

impl<'a> Writer<'a> {
    /// Writes to the end of `out`.
    #[inline]
    pub const fn new(out: &'a mut Vec<u8>, version: Version) -> Self {
        Self { out, version }
    }

    /// The version that is written.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// A simple string; line ends in it become spaces.
    pub fn simple(&mut self, text: &str) {
        self.out.push(b'+');
        put_line(self.out, format_args!("{text}"));
    }

    /// An error: its code, then a sentence; line ends in it become spaces.
    pub fn error(&mut self, code: Code, text: impl fmt::Display) {
        self.out.push(b'-');
        put_line(self.out, format_args!("{} {text}", code.word()));
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        put_integer(self.out, value);
    }

    /// A bulk string: any bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        put_bulk(self.out, bytes);
    }

    /// A bulk string of what is displayed.
    pub fn bulk_text(&mut self, text: impl fmt::Display) {
        let mut count = Count(0);
        let _ = write!(count, "{text}");
        put_header(self.out, b'$', count.0);
        let _ = write!(Sink(self.out), "{text}");
        self.out.extend_from_slice(b"\r\n");
    }

    /// Nothing, where a bulk string could be.
    #[inline]
    pub fn null(&mut self) {
        put_null(self.out, self.version);
    }

    /// Nothing, where an array could be.
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(match self.version {
            Version::Resp2 => b"*-1\r\n",
            Version::Resp3 => b"_\r\n",
        });
    }

    /// The header of an array: `len` replies follow.
    #[inline]
    pub fn array(&mut self, len: usize) {
        put_header(self.out, b'*', len);
    }

    /// The header of a map: `pairs` times a key and a value follow.
    pub fn map(&mut self, pairs: usize) {
        match self.version {
            Version::Resp2 => put_header(self.out, b'*', pairs * 2),
            Version::Resp3 => put_header(self.out, b'%', pairs),
        }
    }

    /// The header of a set: `len` different replies follow.
    pub fn set(&mut self, len: usize) {
        self.aggregate(b'~', len);
    }

    /// The header of a push, which is no reply to any command. RESP2 has none: an array, which only
    /// a client that asked for it can tell apart.
    pub fn push(&mut self, len: usize) {
        self.aggregate(b'>', len);
    }

    /// True or false; 1 or 0 in RESP2.
    pub fn boolean(&mut self, value: bool) {
        self.out.extend_from_slice(match (self.version, value) {
            (Version::Resp2, true) => b":1\r\n",
            (Version::Resp2, false) => b":0\r\n",
            (Version::Resp3, true) => b"#t\r\n",
            (Version::Resp3, false) => b"#f\r\n",
        });
    }

    /// A floating-point number, the shortest digits that give it back; a bulk string in RESP2.
    pub fn double(&mut self, value: f64) {
        match self.version {
            Version::Resp2 => self.bulk_text(Double(value)),
            Version::Resp3 => {
                self.out.push(b',');
                put_line(self.out, format_args!("{}", Double(value)));
            }
        }
    }

    /// A text for people; a bulk string in RESP2.
    pub fn verbatim(&mut self, text: &str) {
        match self.version {
            Version::Resp2 => self.bulk(text.as_bytes()),
            Version::Resp3 => {
                put_header(self.out, b'=', text.len() + 4);
                self.out.extend_from_slice(b"txt:");
                self.out.extend_from_slice(text.as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// The owner of a name: see [`put_owner`].
    #[inline]
    pub fn owner(&mut self, session: SessionId, token: Token) {
        put_owner(self.out, session, token);
    }

    /// The outcome of a registration: whether it is granted, then the owner's session and token.
    /// The token is a string: a client whose numbers are doubles would lose its low bits.
    #[inline]
    pub fn grant(&mut self, granted: bool, session: SessionId, token: Token) {
        let mut bytes = *b"*3\r\n:0\r\n$16\r\n0123456789abcdef\r\n";
        bytes[5] += u8::from(granted);
        bytes[13..29].copy_from_slice(&hex16(session.0));
        self.out.extend_from_slice(&bytes);
        self.token(token);
    }

    /// A token as a string of decimal digits.
    #[inline]
    pub fn token(&mut self, token: Token) {
        put_short::<32>(self.out, |bytes| {
            let end = put_decimal(bytes, 5, token.0);
            // 1 to 20 digits.
            let len = end - 5;
            let digits = [b'0' + (len / 10) as u8, b'0' + (len % 10) as u8];
            bytes[..5].copy_from_slice(&[b'$', digits[0], digits[1], b'\r', b'\n']);
            put_line_end(bytes, end)
        });
    }

    /// A session id as 16 hexadecimal digits.
    #[inline]
    pub fn session(&mut self, session: SessionId) {
        let mut bytes = *b"$16\r\n0123456789abcdef\r\n";
        bytes[5..21].copy_from_slice(&hex16(session.0));
        self.out.extend_from_slice(&bytes);
    }

    /// The vector, for what has an encoder of its own.
    pub const fn out(&mut self) -> &mut Vec<u8> {
        self.out
    }

    fn aggregate(&mut self, resp3: u8, len: usize) {
        let kind = if self.version == Version::Resp3 { resp3 } else { b'*' };
        put_header(self.out, kind, len);
    }
}

/// Appends `session:token` as a bulk string: 16 hexadecimal digits and a decimal number.
///
/// One string and not an array, because every client reads it with one allocation or none.
#[inline]
pub fn put_owner(out: &mut Vec<u8>, session: SessionId, token: Token) {
    put_short::<48>(out, |bytes| {
        bytes[5..21].copy_from_slice(&hex16(session.0));
        bytes[21] = b':';
        let end = put_decimal(bytes, 22, token.0);
        // 18 to 37 bytes: the length always has two digits.
        let len = end - 5;
        let digits = [b'0' + (len / 10) as u8, b'0' + (len % 10) as u8];
        bytes[..5].copy_from_slice(&[b'$', digits[0], digits[1], b'\r', b'\n']);
        put_line_end(bytes, end)
    });
}

/// Appends a bulk string.
#[inline]
pub fn put_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    put_header(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends nothing, where a bulk string could be.
#[inline]
pub fn put_null(out: &mut Vec<u8>, version: Version) {
    match version {
        Version::Resp2 => out.extend_from_slice(b"$-1\r\n"),
        Version::Resp3 => out.extend_from_slice(b"_\r\n"),
    }
}

/// Appends an integer.
#[inline]
pub fn put_integer(out: &mut Vec<u8>, value: i64) {
    if let 0..=9 = value {
        return out.extend_from_slice(&[b':', b'0' + value as u8, b'\r', b'\n']);
    }
    put_short::<32>(out, |bytes| {
        bytes[0] = b':';
        bytes[1] = b'-';
        let end = put_decimal(bytes, 1 + usize::from(value < 0), value.unsigned_abs());
        put_line_end(bytes, end)
    });
}

/// Appends a kind, a length and a line end.
#[inline]
fn put_header(out: &mut Vec<u8>, kind: u8, len: usize) {
    match len {
        0..=9 => out.extend_from_slice(&[kind, b'0' + len as u8, b'\r', b'\n']),
        10..=99 => {
            let digits = [b'0' + (len / 10) as u8, b'0' + (len % 10) as u8];
            out.extend_from_slice(&[kind, digits[0], digits[1], b'\r', b'\n']);
        }
        _ => put_short::<32>(out, |bytes| {
            bytes[0] = kind;
            let end = put_decimal(bytes, 1, len as u64);
            put_line_end(bytes, end)
        }),
    }
}

/// Appends what `fill` writes into `N` bytes of room; it gives the length. The room is in the
/// vector itself: a detour over the stack costs a failed store-to-load forwarding, 5 ns.
#[inline]
fn put_short<const N: usize>(out: &mut Vec<u8>, fill: impl FnOnce(&mut [u8; N]) -> usize) {
    let start = out.len();
    out.extend_from_slice(&[0; N]);
    if let Some(room) = out[start..].first_chunk_mut::<N>() {
        let len = fill(room);
        out.truncate(start + len);
    }
}

/// Writes a line end at `at` and gives the index behind it.
#[inline]
fn put_line_end<const N: usize>(bytes: &mut [u8; N], at: usize) -> usize {
    bytes[at] = b'\r';
    bytes[at + 1] = b'\n';
    at + 2
}

/// Writes `value` at `at` and gives the index behind it. `N` must leave room for 24 digits.
#[inline]
fn put_decimal<const N: usize>(bytes: &mut [u8; N], at: usize, value: u64) -> usize {
    const EIGHT: u64 = 100_000_000;
    if value < EIGHT {
        return put_head(bytes, at, value as u32);
    }
    let (high, low) = (value / EIGHT, (value % EIGHT) as u32);
    let mut at = if high < EIGHT {
        put_head(bytes, at, high as u32)
    } else {
        let at = put_head(bytes, at, (high / EIGHT) as u32);
        bytes[at..at + 8].copy_from_slice(&digits8((high % EIGHT) as u32));
        at + 8
    };
    bytes[at..at + 8].copy_from_slice(&digits8(low));
    at += 8;
    at
}

/// Writes a number below 10^8 without leading zeros; the bytes behind it, up to 8, are lost.
#[inline]
fn put_head<const N: usize>(bytes: &mut [u8; N], at: usize, value: u32) -> usize {
    let padded = u64::from_le_bytes(digits8(value));
    // The last digit stays, so that zero is one digit.
    let zeros = ((padded & 0x000F_0F0F_0F0F_0F0F).trailing_zeros() / 8).min(7);
    bytes[at..at + 8].copy_from_slice(&(padded >> (8 * zeros)).to_le_bytes());
    at + 8 - zeros as usize
}

/// Eight decimal digits of a number below 10^8: halves, then pairs, then digits, all in parallel
/// within one word. A division by 100 or 10 is a multiplication that is exact for the range.
#[inline]
const fn digits8(value: u32) -> [u8; 8] {
    let halves = (value / 10_000) as u64 | ((value % 10_000) as u64) << 32;
    let hundreds = ((halves * 10_486) >> 20) & 0x0000_007F_0000_007F;
    let pairs = hundreds | (halves - hundreds * 100) << 16;
    let tens = ((pairs * 103) >> 10) & 0x000F_000F_000F_000F;
    let digits = tens | (pairs - tens * 10) << 8;
    (digits | 0x3030_3030_3030_3030).to_le_bytes()
}

/// Sixteen lower-case hexadecimal digits, most significant first.
#[inline]
const fn hex16(value: u64) -> [u8; 16] {
    let high = hex8((value >> 32) as u32) as u128;
    let low = hex8(value as u32) as u128;
    (high | low << 64).to_le_bytes()
}

/// Eight hexadecimal digits, the most significant in the lowest byte.
#[inline]
const fn hex8(value: u32) -> u64 {
    let mut x = value.swap_bytes() as u64;
    x = (x | x << 16) & 0x0000_FFFF_0000_FFFF;
    x = (x | x << 8) & 0x00FF_00FF_00FF_00FF;
    x = (x >> 4 & 0x000F_000F_000F_000F) | (x & 0x000F_000F_000F_000F) << 8;
    // 6 carries into bit 4 for digits above 9; those are 39 further, at `a`.
    let letters = (x + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    x + 0x3030_3030_3030_3030 + letters * 39
}

/// Appends a line whose text holds no line end.
fn put_line(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    let start = out.len();
    let _ = Sink(out).write_fmt(text);
    for byte in &mut out[start..] {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// A vector as the target of formatting; it cannot fail.
struct Sink<'a>(&'a mut Vec<u8>);

impl fmt::Write for Sink<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Counts the bytes of what is formatted.
struct Count(usize);

impl fmt::Write for Count {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

/// A number as RESP spells it.
struct Double(f64);

impl fmt::Display for Double {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            nan if nan.is_nan() => f.write_str("nan"),
            f64::INFINITY => f.write_str("inf"),
            f64::NEG_INFINITY => f.write_str("-inf"),
            finite => write!(f, "{finite}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};
    use ringway_core::rng::Rng;

    fn written(version: Version, write: impl FnOnce(&mut Writer<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut Writer::new(&mut out, version));
        out.escape_ascii().to_string()
    }

    /// The same reply in both versions; RESP2 gets the nearest form that it has.
    #[test]
    fn both_versions() {
        type Case = (fn(&mut Writer<'_>), &'static str, &'static str);
        let cases: [Case; 14] = [
            (|w| w.ok(), r"+OK\r\n", r"+OK\r\n"),
            (|w| w.simple("a\r\nb"), r"+a  b\r\n", r"+a  b\r\n"),
            (|w| w.bulk(b""), r"$0\r\n\r\n", r"$0\r\n\r\n"),
            (|w| w.bulk(b"a\nb"), r"$3\r\na\nb\r\n", r"$3\r\na\nb\r\n"),
            (|w| w.null(), r"$-1\r\n", r"_\r\n"),
            (|w| w.null_array(), r"*-1\r\n", r"_\r\n"),
            (|w| w.array(3), r"*3\r\n", r"*3\r\n"),
            (|w| w.map(6), r"*12\r\n", r"%6\r\n"),
            (|w| w.set(120), r"*120\r\n", r"~120\r\n"),
            (|w| w.push(2), r"*2\r\n", r">2\r\n"),
            (|w| w.boolean(true), r":1\r\n", r"#t\r\n"),
            (|w| w.double(0.5), r"$3\r\n0.5\r\n", r",0.5\r\n"),
            (|w| w.double(f64::NEG_INFINITY), r"$4\r\n-inf\r\n", r",-inf\r\n"),
            (|w| w.verbatim("hi"), r"$2\r\nhi\r\n", r"=6\r\ntxt:hi\r\n"),
        ];
        for (write, resp2, resp3) in cases {
            assert_eq!(written(Version::Resp2, write), resp2);
            assert_eq!(written(Version::Resp3, write), resp3);
        }
    }

    /// An error is one line, even when it quotes what a client sent.
    #[test]
    fn errors_are_one_line() {
        let text = written(Version::Resp2, |w| w.error(Code::NotOwner, "not\r\n+OK\r\nyours"));
        assert_eq!(text, r"-NOTOWNER not  +OK  yours\r\n");
    }

    /// The words of both protocols are the same words.
    #[test]
    fn codes_are_the_native_names() {
        use crate::wire::status;
        let errors = (status::BADNAME..=status::UNSUPPORTED).chain(status::AWAY..=status::EXISTS);
        for value in errors {
            let code = Code::of_status(value).expect("an error");
            assert_eq!(code.word(), status::name(value));
        }
        assert_eq!(Code::of_status(status::STARTING).map(Code::word), Some("STARTING"));
        assert_eq!(Code::of_status(status::OK), None);
    }

    /// Owners at the edges of both numbers.
    #[test]
    fn owners_are_one_string() {
        let owner =
            |session, token| written(Version::Resp3, |w| w.owner(SessionId(session), Token(token)));
        assert_eq!(owner(0, 0), r"$18\r\n0000000000000000:0\r\n");
        assert_eq!(
            owner(0x0123_4567_89ab_cdef, 1 << 44),
            r"$31\r\n0123456789abcdef:17592186044416\r\n"
        );
        assert_eq!(owner(u64::MAX, u64::MAX), r"$37\r\nffffffffffffffff:18446744073709551615\r\n");
    }

    /// Granted or held: the same three.
    #[test]
    fn grants_are_three() {
        let grant =
            |granted| written(Version::Resp3, |w| w.grant(granted, SessionId(255), Token(1 << 44)));
        let expected = r"*3\r\n:1\r\n$16\r\n00000000000000ff\r\n$14\r\n17592186044416\r\n";
        assert_eq!(grant(true), expected);
        assert_eq!(grant(false), expected.replacen(":1", ":0", 1));
    }

    /// The digits computed in parallel are those of the language's own formatting.
    #[test]
    fn numbers_are_formatted_right() {
        let mut rng = Rng::new(1);
        let powers = (0..20).map(|power| 10u64.pow(power));
        let edges = powers.flat_map(|power| [power - 1, power, power + 1]);
        let random = (0..50_000).map(|index| rng.next_u64() >> (index % 64));
        for value in edges.chain(random).chain([u64::MAX]) {
            let mut bytes = [0; 32];
            let end = put_decimal(&mut bytes, 1, value);
            assert_eq!(&bytes[1..end], value.to_string().as_bytes());
            assert_eq!(hex16(value), *alloc::format!("{value:016x}").as_bytes());
            let signed = value as i64;
            let expected = alloc::format!(":{signed}\\r\\n");
            assert_eq!(written(Version::Resp2, |w| w.integer(signed)), expected);
        }
        for value in (0..100_000_000).step_by(997) {
            assert_eq!(digits8(value), *alloc::format!("{value:08}").as_bytes());
        }
    }
}
