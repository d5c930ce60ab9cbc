//! HTTP CONNECT (RFC 9110, section 9.3.6; RFC 9112), the near side's half: the head of one request,
//! and the answer. Without authentication: who may connect to the listener may use it.
//!
//! A connection carries one request. What follows its head are the client's data; no byte of it is
//! read as HTTP, so there is nothing to smuggle. A head that another reader might understand in
//! another way is refused all the same, and whoever wrote it hears why.
//!
//! Fields do not matter, those of proxies included, but for `Host` (there must be one in HTTP/1.1)
//! and those that announce a body, which CONNECT has not got. `Content-Length: 0` announces none.
//! Names are not resolved here: they go to the far side as they are.
//!
//! What always holds: a verdict is not changed by the bytes that come after it.
//!
//! Bounds: a head has at most [`CONNECT_HEAD_MAX`] bytes, which are read again when more of them
//! come; an answer has at most 1 KiB.

use alloc::format;
use alloc::vec::Vec;
use core::fmt;

use crate::frame::ResetCode;
use crate::target::{NoTarget, Target};

/// Bytes of a request's head, at most.
pub const CONNECT_HEAD_MAX: usize = 16 * 1024;

/// What the bytes so far come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connect {
    /// More are needed.
    More,
    /// A request for a target: answer by [`connect_reply`]; what follows these bytes is the
    /// client's data.
    Request {
        /// Where to.
        target: Target,
        /// Bytes of the head.
        taken: usize,
    },
    /// Say this and close.
    Refuse {
        /// Bytes to send.
        say: Vec<u8>,
    },
}

/// What the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectReply {
    /// It is connected: 200.
    Established,
    /// It is not: 403, 502, 503 or 504, with the cause as RFC 9209 names it.
    Failed(ResetCode),
    /// This is no request: 400.
    Malformed(BadHead),
    /// Only CONNECT is served here: 405, with a page that says what this port is.
    OtherMethod,
    /// The head is too long: 431.
    TooLarge,
    /// A version that is not spoken here: 505.
    Version,
}

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHead {
    /// Not a method, a target and a version with a blank between each.
    RequestLine,
    /// The target of a CONNECT is none.
    Target(NoTarget),
    /// A byte that has no place in a line.
    Byte,
    /// A line that ends in a newline alone.
    BareNewline,
    /// A line that goes on with what stood before it, as old mail did.
    Folded,
    /// A line that is not a field.
    Field,
    /// HTTP/1.1 wants one `Host`, neither none nor several.
    Host,
    /// A CONNECT that announces a body.
    Body,
}

impl fmt::Display for BadHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RequestLine => "the first line is not `CONNECT host:port HTTP/1.1`",
            Self::Target(why) => return write!(f, "the target is none: {why}"),
            Self::Byte => {
                "a control character or a letter that is not ASCII; this port speaks HTTP"
            }
            Self::BareNewline => "a line ends in LF alone; lines end in CR LF",
            Self::Folded => "a line begins with a blank; a field is one line",
            Self::Field => "a line is not `name: value`",
            Self::Host => "there must be exactly one Host field",
            Self::Body => "a CONNECT has no body, so no Content-Length and no Transfer-Encoding",
        })
    }
}

/// Reads the head of a request.
pub fn connect_request(bytes: &[u8]) -> Connect {
    match read(bytes) {
        Ok(None) => Connect::More,
        Ok(Some((target, taken))) => Connect::Request { target, taken },
        Err(why) => {
            let mut say = connect_reply(why);
            if bytes.starts_with(b"HEAD ") {
                say.truncate(say.len() - page(why).len());
            }
            Connect::Refuse { say }
        }
    }
}

fn read(bytes: &[u8]) -> Result<Option<(Target, usize)>, ConnectReply> {
    let head = &bytes[..bytes.len().min(CONNECT_HEAD_MAX)];
    let mut lines = Lines { head, at: 0 };
    let Some(first) = lines.next(is_in_request_line)? else { return lines.more(bytes) };
    let line = RequestLine::read(first)?;
    let mut fields = Fields::default();
    loop {
        match lines.next(is_in_field)? {
            None => return lines.more(bytes),
            Some(b"") => break,
            Some(field) => fields.add(field)?,
        }
    }
    fields.check(line)?;
    if line.method != b"CONNECT" {
        return Err(ConnectReply::OtherMethod);
    }
    let text = core::str::from_utf8(line.target).map_err(|_| BadHead::Byte)?;
    Ok(Some((Target::parse(text).map_err(BadHead::Target)?, lines.at)))
}

impl From<BadHead> for ConnectReply {
    fn from(bad: BadHead) -> Self {
        ConnectReply::Malformed(bad)
    }
}

/// The lines of a head.
struct Lines<'a> {
    head: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// The next line without its end; `None` if it is not whole. Its bytes are judged before it
    /// is, so that who speaks another protocol is not waited for.
    fn next(&mut self, good: fn(u8) -> bool) -> Result<Option<&'a [u8]>, BadHead> {
        let rest = &self.head[self.at..];
        let newline = rest.iter().position(|byte| *byte == b'\n');
        let line = &rest[..newline.unwrap_or(rest.len())];
        let text = line.strip_suffix(b"\r");
        if !text.unwrap_or(line).iter().all(|byte| good(*byte)) {
            return Err(BadHead::Byte);
        }
        let Some(newline) = newline else { return Ok(None) };
        self.at += newline + 1;
        text.map(Some).ok_or(BadHead::BareNewline)
    }

    fn more<T>(&self, bytes: &[u8]) -> Result<Option<T>, ConnectReply> {
        let full = bytes.len() >= CONNECT_HEAD_MAX;
        if full { Err(ConnectReply::TooLarge) } else { Ok(None) }
    }
}

const fn is_in_request_line(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

const fn is_in_field(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// Whether it is a token of RFC 9110, section 5.6.2.
fn is_token(text: &[u8]) -> bool {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(good)
}

#[derive(Clone, Copy)]
struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a [u8],
    /// HTTP/1.1; else HTTP/1.0.
    newer: bool,
}

impl<'a> RequestLine<'a> {
    fn read(line: &'a [u8]) -> Result<Self, ConnectReply> {
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(BadHead::RequestLine.into());
        };
        if !is_token(method) || target.is_empty() {
            return Err(BadHead::RequestLine.into());
        }
        match version {
            b"HTTP/1.1" => Ok(RequestLine { method, target, newer: true }),
            b"HTTP/1.0" => Ok(RequestLine { method, target, newer: false }),
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
                Err(ConnectReply::Version)
            }
            _ => Err(BadHead::RequestLine.into()),
        }
    }
}

/// What of the fields matters.
#[derive(Default)]
struct Fields {
    hosts: usize,
    body: bool,
}

impl Fields {
    fn add(&mut self, line: &[u8]) -> Result<(), BadHead> {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(BadHead::Folded);
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or(BadHead::Field)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if !is_token(name) {
            return Err(BadHead::Field);
        }
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        self.hosts += usize::from(is(b"Host"));
        self.body |= is(b"Transfer-Encoding") || (is(b"Content-Length") && value != b"0");
        Ok(())
    }

    fn check(&self, line: RequestLine<'_>) -> Result<(), BadHead> {
        if self.hosts > 1 || (line.newer && self.hosts == 0) {
            return Err(BadHead::Host);
        }
        if self.body && line.method == b"CONNECT" {
            return Err(BadHead::Body);
        }
        Ok(())
    }
}

/// What the client is told, to the byte.
pub fn connect_reply(reply: ConnectReply) -> Vec<u8> {
    let status = match reply {
        // RFC 9110: no field that announces content.
        ConnectReply::Established => {
            return b"HTTP/1.1 200 Connection established\r\n\r\n".to_vec();
        }
        ConnectReply::Failed(code) => failure(code).0,
        ConnectReply::Malformed(_) => "400 Bad Request",
        ConnectReply::OtherMethod => "405 Method Not Allowed",
        ConnectReply::TooLarge => "431 Request Header Fields Too Large",
        ConnectReply::Version => "505 HTTP Version Not Supported",
    };
    let more = match reply {
        ConnectReply::Failed(code) => {
            format!("Proxy-Status: ringway; error={}\r\n", failure(code).1)
        }
        ConnectReply::OtherMethod => "Allow: CONNECT\r\n".into(),
        _ => Default::default(),
    };
    let page = page(reply);
    format!(
        "HTTP/1.1 {status}\r\n{more}Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    )
    .into_bytes()
}

/// Status, kind of error (RFC 9209, section 2.3) and words for each way in which it fails.
fn failure(code: ResetCode) -> (&'static str, &'static str, &'static str) {
    let (gateway, busy) = ("502 Bad Gateway", "503 Service Unavailable");
    match code {
        ResetCode::Broken => (gateway, "connection_terminated", "The target's connection broke."),
        ResetCode::Gone => (
            gateway,
            "connection_terminated",
            "The far side was started anew meanwhile; try again.",
        ),
        ResetCode::Denied => (
            "403 Forbidden",
            "http_request_denied",
            "The far side's configuration does not allow this target.",
        ),
        ResetCode::Unreachable => (
            gateway,
            "destination_ip_unroutable",
            "The target cannot be reached from the far side.",
        ),
        ResetCode::Refused => (gateway, "connection_refused", "The target refused the connection."),
        ResetCode::TimedOut => {
            ("504 Gateway Timeout", "connection_timeout", "The target did not answer in time.")
        }
        ResetCode::NoSuchName => {
            (gateway, "dns_error", "The target's name does not resolve at the far side.")
        }
        ResetCode::Busy => (
            busy,
            "connection_limit_reached",
            "As many connections as may be are open in the tunnel; try again later.",
        ),
        ResetCode::Protocol => (
            gateway,
            "proxy_internal_error",
            "The two ends of the tunnel did not understand each other.",
        ),
    }
}

/// What a person reads. Nothing of the request is in it.
fn page(reply: ConnectReply) -> alloc::string::String {
    match reply {
        ConnectReply::Established => Default::default(),
        ConnectReply::Failed(code) => format!("{}\n", failure(code).2),
        ConnectReply::Malformed(why) => {
            format!("This is not a request that can be served: {why}.\n")
        }
        ConnectReply::OtherMethod => "\
            This port is an HTTP CONNECT proxy: the near end of a Ringway tunnel.\n\
            It serves nothing itself and forwards no other method. Programs that are told of an\n\
            HTTPS proxy use it as it is; curl does so for http:// after --proxytunnel.\n"
            .into(),
        ConnectReply::TooLarge => {
            format!("The head of a request has at most {CONNECT_HEAD_MAX} bytes.\n")
        }
        ConnectReply::Version => "HTTP/1.1 and HTTP/1.0 are spoken here.\n".into(),
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};

    use proptest::prelude::*;

    use super::*;

    fn says(bytes: &[u8]) -> String {
        match connect_request(bytes) {
            Connect::Refuse { say } => String::from_utf8(say).expect("text"),
            other => panic!("{other:?}"),
        }
    }

    fn status(bytes: &[u8]) -> u16 {
        let said = says(bytes);
        said.strip_prefix("HTTP/1.1 ").and_then(|rest| rest[..3].parse().ok()).expect("a status")
    }

    /// A head that comes byte by byte is waited for, and what stands behind it is the client's, be
    /// it a head of its own.
    #[test]
    fn a_request_byte_by_byte() {
        for (head, text) in [
            ("CONNECT 10.0.0.1:80 HTTP/1.1\r\nHost: 10.0.0.1:80\r\n\r\n", "10.0.0.1:80"),
            ("CONNECT [::1]:443 HTTP/1.1\r\nhost:[::1]:443\r\n\r\n", "[::1]:443"),
            ("CONNECT db:5432 HTTP/1.0\r\n\r\n", "db:5432"),
            (
                "CONNECT Example.ORG:443 HTTP/1.1\r\nHost: other:1\r\nContent-Length: 0\r\n\
                 Proxy-Authorization: Basic YTpi\r\nProxy-Connection: keep-alive\r\n\
                 User-Agent: caf\u{e9}\t1\r\nEmpty:\r\n\r\n",
                "example.org:443",
            ),
        ] {
            let target = Target::parse(text).expect("a target");
            for cut in 0..head.len() {
                assert_eq!(connect_request(&head.as_bytes()[..cut]), Connect::More, "at {cut}");
            }
            let whole = Connect::Request { target, taken: head.len() };
            for data in ["", "\0\r\n", "GET / HTTP/1.1\r\n\r\n"] {
                assert_eq!(connect_request((head.to_string() + data).as_bytes()), whole);
            }
        }
        let established = connect_reply(ConnectReply::Established);
        assert_eq!(established, b"HTTP/1.1 200 Connection established\r\n\r\n");
    }

    /// Each shape that two readers might read in two ways is refused, and the words say what it is.
    #[test]
    fn heads_that_mean_two_things_are_refused() {
        const LINE: &str = "CONNECT a:1 HTTP/1.1\r\n";
        for (fields, why) in [
            ("Host: a\n\r\n", BadHead::BareNewline),
            ("Host: a\r\n\n", BadHead::BareNewline),
            ("Host: a\r\n b\r\n\r\n", BadHead::Folded),
            ("Host: a\r\n\tb\r\n\r\n", BadHead::Folded),
            ("Host: a\0b\r\n\r\n", BadHead::Byte),
            ("Host: a\rb\r\n\r\n", BadHead::Byte),
            ("Host: a\u{7f}\r\n\r\n", BadHead::Byte),
            ("Host: a\r\r\n\r\n", BadHead::Byte),
            ("Host : a\r\n\r\n", BadHead::Field),
            ("Host\r\n\r\n", BadHead::Field),
            (": a\r\n\r\n", BadHead::Field),
            ("H\u{f6}st: a\r\n\r\n", BadHead::Field),
            ("\r\n", BadHead::Host),
            ("Host: a\r\nHOST: a\r\n\r\n", BadHead::Host),
            ("Host: a\r\nContent-Length: 5\r\n\r\nhello", BadHead::Body),
            ("Host: a\r\nContent-Length: 0\r\ncontent-length: 5\r\n\r\n", BadHead::Body),
            ("Host: a\r\nContent-Length: 0, 0\r\n\r\n", BadHead::Body),
            ("Host: a\r\nContent-Length: +0\r\n\r\n", BadHead::Body),
            ("Host: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BadHead::Body),
            ("Host: a\r\ntransfer-ENCODING:\r\n\r\n", BadHead::Body),
        ] {
            let bytes = [LINE, fields].concat();
            let said = says(bytes.as_bytes());
            assert!(said.starts_with("HTTP/1.1 400 "), "{fields:?}: {said}");
            assert!(said.contains(&why.to_string()), "{fields:?}: {said}");
        }
    }

    #[test]
    fn first_lines_are_read_to_the_letter() {
        for (line, want) in [
            ("CONNECT  a:1 HTTP/1.1", 400),
            ("CONNECT a:1 HTTP/1.1 ", 400),
            (" CONNECT a:1 HTTP/1.1", 400),
            ("CONNECT\ta:1\tHTTP/1.1", 400),
            ("CONNECT a:1", 400),
            ("CONNECT a:1 http/1.1", 400),
            ("CONNECT a:1 HTTP/1.10", 400),
            ("CONNECT a HTTP/1.1", 400),
            ("CONNECT a:0 HTTP/1.1", 400),
            ("CONNECT a:99999 HTTP/1.1", 400),
            ("CONNECT u@a:1 HTTP/1.1", 400),
            ("CONNECT http://a:1/ HTTP/1.1", 400),
            ("CONNECT 0x7f000001:1 HTTP/1.1", 400),
            ("", 400),
            ("connect a:1 HTTP/1.1", 405),
            ("CONNECT a:1 HTTP/1.2", 505),
            ("PRI * HTTP/2.0", 505),
        ] {
            assert_eq!(status([line, "\r\nHost: a\r\n\r\n"].concat().as_bytes()), want, "{line:?}");
        }
    }

    /// Who speaks TLS, SOCKS or SSH to this port is told at once, not after a time-out.
    #[test]
    fn other_protocols_are_not_waited_for() {
        for first in [&b"\x16"[..], b"\x05\x01\x00", b"\x04", b"GET\0", b"\xff", b"SSH-2.0-x\r\n"] {
            assert_eq!(status(first), 400, "{first:?}");
        }
    }

    /// A browser that is pointed at the port shows what the port is; what is allowed is said.
    #[test]
    fn a_plain_get_gets_a_page() {
        let said = says(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n");
        let (head, page) = said.split_once("\r\n\r\n").expect("a head and a page");
        assert!(
            head.starts_with("HTTP/1.1 405 Method Not Allowed\r\nAllow: CONNECT\r\n"),
            "{head}"
        );
        assert!(head.contains("Connection: close"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", page.len())), "{head}");
        assert!(page.starts_with("This port is an HTTP CONNECT proxy"), "{page}");
        assert!(page.lines().all(|line| line.len() < 90), "{page}");
        let said = says(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(said, [head, "\r\n\r\n"].concat());
    }

    /// The bound is on the head: one byte less than it and it is waited for, and data do not count.
    #[test]
    fn a_head_is_bounded() {
        let mut head = b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
        head.resize(CONNECT_HEAD_MAX - 4, b'x');
        let mut fits = head.clone();
        fits.extend_from_slice(b"\r\n\r\n");
        assert_eq!(fits.len(), CONNECT_HEAD_MAX);
        fits.resize(3 * CONNECT_HEAD_MAX, 0);
        assert!(matches!(connect_request(&fits), Connect::Request { taken: CONNECT_HEAD_MAX, .. }));
        head.resize(CONNECT_HEAD_MAX - 1, b'x');
        assert_eq!(connect_request(&head), Connect::More);
        head.push(b'x');
        assert_eq!(status(&head), 431);
        head.extend_from_slice(b"\r\n\r\n");
        assert_eq!(status(&head), 431);
    }

    /// A true code for each way in which a connection fails, and the cause in words that programs
    /// read.
    #[test]
    fn failures_keep_their_meaning() {
        let told = ResetCode::ALL.map(|code| {
            let said = connect_reply(ConnectReply::Failed(code));
            let said = String::from_utf8(said).expect("text");
            let error = said.split_once("error=").and_then(|(_, rest)| rest.split_once('\r'));
            let page = said.split_once("\r\n\r\n").expect("a head and a page").1;
            assert!(said.contains(&format!("Content-Length: {}\r\n", page.len())), "{said}");
            (said[9..12].to_string(), error.expect("an error").0.to_string())
        });
        let told = told.each_ref().map(|(status, error)| (status.as_str(), error.as_str()));
        assert_eq!(
            told,
            [
                ("502", "connection_terminated"),
                ("502", "connection_terminated"),
                ("403", "http_request_denied"),
                ("502", "destination_ip_unroutable"),
                ("502", "connection_refused"),
                ("504", "connection_timeout"),
                ("502", "dns_error"),
                ("503", "connection_limit_reached"),
                ("502", "proxy_internal_error"),
            ]
        );
    }

    /// Pieces of heads, put together in any way.
    fn heads() -> impl Strategy<Value = Vec<u8>> {
        let pieces: [&[u8]; 16] = [
            b"CONNECT ",
            b"a:1",
            b" HTTP/1.1",
            b" HTTP/1.0",
            b"\r\n",
            b"\r\n",
            b"\r",
            b"\n",
            b"Host: a",
            b"Content-Length: 1",
            b"Transfer-Encoding: x",
            b" ",
            b"GET / HTTP/1.1\r\n",
            b"\0",
            b"\xff",
            b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n",
        ];
        let piece = proptest::sample::select(pieces.to_vec());
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        /// Whatever comes, and in whatever pieces it comes: the verdict is the same.
        #[test]
        fn a_verdict_stands(bytes in heads()) {
            let whole = connect_request(&bytes);
            for cut in 0..bytes.len() {
                let early = connect_request(&bytes[..cut]);
                prop_assert!(early == Connect::More || early == whole, "at {cut}: {early:?}");
            }
        }

        #[test]
        fn any_bytes_are_a_request_or_not(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Connect::Request { taken, .. } = connect_request(&bytes) {
                prop_assert!(taken <= bytes.len());
            }
        }
    }
}
