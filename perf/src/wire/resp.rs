//! RESP at the speed of a load generator: commands from templates, replies scanned in place.
//!
//! Two dialects: `PORT.*`, which only Ringway has, and keys (`GET`, `SET .. NX [PX ms]`, `DEL`),
//! which Redis and Ringway both answer, so that one client measures both.
//!
//! Always holds: a reply is scanned from its first byte until it is whole; nothing is counted
//! before that. Every name of a command gets its own outcome. Tests: below.

use ringway_coord_proto::wire::status;

use super::{Request, Wire};
use crate::error::Broken;
use crate::mix::Kind;
use crate::source::{Lane, Source};
use crate::tally::Tally;

/// Which verbs stand for query, register and release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `PORT.QUERY`, `PORT.REGISTER`, `PORT.RELEASE`.
    Port,
    /// `GET`, `SET name value NX [PX ms]`, `DEL`.
    Keys {
        /// Bytes of the value.
        value_bytes: usize,
        /// The lease; Ringway demands one, Redis does not.
        px_ms: Option<u64>,
    },
}

/// Encodes and scans commands of a fixed number of names.
#[derive(Clone, Debug)]
pub(crate) struct Resp {
    names: usize,
    dialect: Dialect,
    bulk_head: Vec<u8>,
    query: Template,
    register: Template,
    release: Template,
}

/// What stands before and behind the names of a command.
#[derive(Clone, Debug)]
struct Template {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Resp {
    /// Commands of `names` names of `name_bytes` bytes each; one name for keys.
    pub(crate) fn new(dialect: Dialect, names: usize, name_bytes: usize) -> Resp {
        let plain = |verb: &str| template(verb, names, &[]);
        let (query, register, release) = match dialect {
            Dialect::Port => (plain("PORT.QUERY"), plain("PORT.REGISTER"), plain("PORT.RELEASE")),
            Dialect::Keys { value_bytes, px_ms } => {
                let mut behind = vec!["v".repeat(value_bytes), "NX".into()];
                if let Some(ms) = px_ms {
                    behind.extend(["PX".into(), ms.to_string()]);
                }
                (plain("GET"), template("SET", 1, &behind), plain("DEL"))
            }
        };
        let bulk_head = format!("${name_bytes}\r\n").into_bytes();
        Resp { names, dialect, bulk_head, query, register, release }
    }

    fn outcomes(
        &self,
        bytes: &[u8],
        due: &Request,
        tally: &mut Tally,
    ) -> Result<Option<usize>, Broken> {
        let names = due.ops() as usize;
        let (mut leaves, mut failed) = (0, false);
        // A release answers a sum, or an array with one outcome a name.
        let sum = if bytes.first() == Some(&b'*') { 1 } else { due.releases };
        let mut judge = |leaf: Leaf<'_>| {
            // A register is answered by [1 or 0, session, token]; the other two are its grant's.
            if due.registers > 0 && self.dialect == Dialect::Port && leaves % 3 != 0 {
                leaves += 1;
                return;
            }
            leaves += 1;
            failed |= judge_leaf(leaf, due, sum, tally);
        };
        let Some(len) = scan(bytes, &mut judge)? else { return Ok(None) };
        let each = if due.registers > 0 && self.dialect == Dialect::Port { 3 } else { 1 };
        let released = due.releases > 0 && leaves == 1;
        if !failed && !released && leaves != names * each {
            return Err(Broken::Count { got: leaves, due: names * each });
        }
        Ok(Some(len))
    }
}

fn template(verb: &str, names: usize, behind: &[String]) -> Template {
    let head = format!("*{}\r\n${}\r\n{verb}\r\n", 1 + names + behind.len(), verb.len());
    let tail: String = behind.iter().map(|arg| format!("${}\r\n{arg}\r\n", arg.len())).collect();
    Template { head: head.into_bytes(), tail: tail.into_bytes() }
}

/// Counts one outcome; says whether it was an error, which stands for the whole command.
#[inline]
fn judge_leaf(leaf: Leaf<'_>, due: &Request, sum: u16, tally: &mut Tally) -> bool {
    if let Leaf::Error(text) = leaf {
        tally.error(text);
        return true;
    }
    if due.queries > 0 {
        match leaf {
            Leaf::Nil => tally.query(status::FREE, 1),
            Leaf::Bulk(_) | Leaf::Simple => tally.query(status::OWNED_EPHEMERAL, 1),
            _ => tally.not_done(status::MALFORMED, 1),
        }
    } else if due.registers > 0 {
        match leaf {
            Leaf::Simple | Leaf::Int(1) => tally.done(status::GRANTED_EPHEMERAL, 1),
            Leaf::Nil | Leaf::Int(0) => tally.not_done(status::HELD, 1),
            _ => tally.not_done(status::MALFORMED, 1),
        }
    } else {
        match leaf {
            Leaf::Int(done) if (0..=i64::from(sum)).contains(&done) => {
                tally.done(status::OK, done as u64);
                let missing = u64::from(sum) - done as u64;
                if missing > 0 {
                    tally.not_done(status::NOTOWNER, missing);
                }
            }
            Leaf::Simple => tally.done(status::OK, 1),
            _ => tally.not_done(status::MALFORMED, 1),
        }
    }
    false
}

impl Wire for Resp {
    fn ops(&self) -> u64 {
        self.names as u64
    }

    #[inline]
    fn put(&mut self, source: &mut Source, lane: &mut Lane, out: &mut Vec<u8>) -> Option<Request> {
        let turn = source.turn(lane);
        let start = out.len();
        let (kind, first) = source.next(lane, turn)?;
        let template = match kind {
            Kind::Query => &self.query,
            Kind::Register => &self.register,
            Kind::Release => &self.release,
        };
        out.extend_from_slice(&template.head);
        let names_start = out.len();
        let mut next = Some(first);
        let mut names = 0u16;
        while let Some(index) = next {
            out.extend_from_slice(&self.bulk_head);
            let at = out.len();
            out.resize(at + source.names.length(), 0);
            source.names.write(index, &mut out[at..]);
            out.extend_from_slice(b"\r\n");
            names += 1;
            next =
                if usize::from(names) < self.names { source.next_alike(lane, kind) } else { None };
        }
        out.extend_from_slice(&template.tail);
        if usize::from(names) < self.names {
            self.shorten(out, start, names_start, usize::from(names));
        }
        let mut request = Request::default();
        match kind {
            Kind::Query => request.queries = names,
            Kind::Register => request.registers = names,
            Kind::Release => request.releases = names,
        }
        Some(request)
    }

    #[inline]
    fn take(
        &self,
        bytes: &[u8],
        due: &Request,
        tally: &mut Tally,
    ) -> Result<Option<usize>, Broken> {
        // A value that is no array is judged only when it is whole; an array is walked twice.
        if bytes.first() == Some(&b'*') && scan(bytes, &mut |_| {})?.is_none() {
            return Ok(None);
        }
        self.outcomes(bytes, due, tally)
    }
}

impl Resp {
    /// Corrects the number of arguments of the last, shorter command of a lane.
    #[cold]
    fn shorten(&self, out: &mut Vec<u8>, start: usize, names_start: usize, names: usize) {
        let head = &out[start..names_start];
        let line = head.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let fixed = format!("*{}\r\n", 1 + names);
        out.splice(start..start + line, fixed.into_bytes());
    }
}

/// A reply, or an element of one, that holds no further ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaf<'a> {
    /// `+OK` and its like; booleans, doubles and big numbers of RESP3 too.
    Simple,
    /// `-CODE text`.
    Error(&'a [u8]),
    /// `:1`.
    Int(i64),
    /// `$-1`, `*-1` or `_`.
    Nil,
    /// `$5` and its bytes.
    Bulk(&'a [u8]),
}

/// Elements that wait for their values at most: our replies nest twice.
const DEPTH_MAX: usize = 8;
/// Bytes of a line that is no reply of ours: a number has at most 20 digits, an error some words.
const LINE_MAX: usize = 64 * 1024;

/// Walks one reply and calls `leaf` for each value in it. `Ok(None)`: it is not whole; `leaf` may
/// have been called for a part of it.
pub(crate) fn scan<'a>(
    bytes: &'a [u8],
    leaf: &mut impl FnMut(Leaf<'a>),
) -> Result<Option<usize>, Broken> {
    let mut left = [0u64; DEPTH_MAX];
    let mut depth = 0;
    let mut at = 0;
    loop {
        let Some((kind, line, next)) = line_at(bytes, at)? else { return Ok(None) };
        at = next;
        match kind {
            b'+' | b'#' | b',' | b'(' => leaf(Leaf::Simple),
            b'-' => leaf(Leaf::Error(line)),
            b':' => leaf(Leaf::Int(number(line)?)),
            b'_' => leaf(Leaf::Nil),
            b'$' => match number(line)? {
                -1 => leaf(Leaf::Nil),
                len => {
                    let len = usize::try_from(len).map_err(|_| Broken::NotResp(kind))?;
                    let end = at.checked_add(len).ok_or(Broken::NotResp(kind))?;
                    let Some(text) = bytes.get(at..end) else { return Ok(None) };
                    let Some(tail) = bytes.get(end..end + 2) else { return Ok(None) };
                    if tail != b"\r\n" {
                        return Err(Broken::NotResp(tail[0]));
                    }
                    leaf(Leaf::Bulk(text));
                    at = end + 2;
                }
            },
            b'*' | b'~' | b'%' => match number(line)? {
                -1 => leaf(Leaf::Nil),
                count => {
                    let count = u64::try_from(count).map_err(|_| Broken::NotResp(kind))?;
                    let elements = if kind == b'%' { count.saturating_mul(2) } else { count };
                    if depth == DEPTH_MAX {
                        return Err(Broken::Nested);
                    }
                    left[depth] = elements.saturating_add(1);
                    depth += 1;
                }
            },
            b'>' => return Err(Broken::Notice(kind)),
            other => return Err(Broken::NotResp(other)),
        }
        // One value is done, and with it every array whose last value it was.
        loop {
            if depth == 0 {
                return Ok(Some(at));
            }
            left[depth - 1] -= 1;
            if left[depth - 1] > 0 {
                break;
            }
            depth -= 1;
        }
    }
}

/// Its kind, its text, and where the next one begins.
type Line<'a> = (u8, &'a [u8], usize);

/// The line at `at`; `None` if it is not whole.
#[inline]
fn line_at(bytes: &[u8], at: usize) -> Result<Option<Line<'_>>, Broken> {
    let Some((&kind, rest)) = bytes.get(at..).and_then(<[u8]>::split_first) else {
        return Ok(None);
    };
    match rest.iter().position(|byte| *byte == b'\r') {
        Some(len) if len + 1 == rest.len() => Ok(None),
        Some(len) if rest[len + 1] == b'\n' => Ok(Some((kind, &rest[..len], at + len + 3))),
        Some(_) => Err(Broken::NotResp(kind)),
        None if rest.len() > LINE_MAX => Err(Broken::NotResp(kind)),
        None => Ok(None),
    }
}

#[inline]
fn number(line: &[u8]) -> Result<i64, Broken> {
    let (negative, digits) = match line {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 19 {
        return Err(Broken::NotResp(b':'));
    }
    let mut value = 0i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(Broken::NotResp(*digit));
        }
        let (more, digit) = (value.checked_mul(10), i64::from(digit - b'0'));
        value = more.and_then(|v| v.checked_add(digit)).ok_or(Broken::NotResp(b':'))?;
    }
    Ok(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Alphabet, NameMaker, NameSpec};
    use crate::source::Task;
    use crate::tally::Expect;
    use proptest::prelude::*;

    fn source(mix: &str) -> (Source, Lane) {
        let spec = NameSpec {
            count: 100,
            length: 4,
            alphabet: Alphabet::Printable,
            ..NameSpec::default()
        };
        let names = NameMaker::new(&spec, 1000).expect("valid");
        let source = Source::new(&spec, names, &mix.parse().expect("valid"), 0).expect("valid");
        (source, Lane::new(100, 5, 0, 1))
    }

    fn text(out: &[u8]) -> String {
        String::from_utf8_lossy(out).replace("\r\n", " ")
    }

    fn due(queries: u16, registers: u16, releases: u16) -> Request {
        Request { queries, registers, releases, ..Request::default() }
    }

    const KEYS: Dialect = Dialect::Keys { value_bytes: 3, px_ms: Some(500) };

    fn take(
        dialect: Dialect,
        bytes: &[u8],
        due: Request,
    ) -> (Result<Option<usize>, Broken>, Tally) {
        let mut tally = Tally::new(Expect::Any);
        let wire = Resp::new(dialect, due.ops() as usize, 4);
        (wire.take(bytes, &due, &mut tally), tally)
    }

    /// What goes over the wire is what one would type into redis-cli.
    #[test]
    fn commands_are_plain_resp() {
        let (mut source, mut lane) = source("register=1");
        let mut out = vec![];
        let mut wire = Resp::new(KEYS, 1, 4);
        wire.put(&mut source, &mut lane, &mut out).expect("a fresh name");
        let set = text(&out);
        assert!(set.starts_with("*6 $3 SET $4 "), "{set}");
        assert!(set.ends_with(" $3 vvv $2 NX $2 PX $3 500 "), "{set}");

        out.clear();
        let mut wire = Resp::new(Dialect::Port, 3, 4);
        let request = wire.put(&mut source, &mut lane, &mut out).expect("three more");
        assert!(text(&out).starts_with("*4 $13 PORT.REGISTER $4 "), "{}", text(&out));
        assert_eq!(request.registers, 3);
        out.clear();
        let request = wire.put(&mut source, &mut lane, &mut out).expect("the last one");
        assert_eq!((text(&out).split(' ').next(), request.registers), (Some("*2"), 1));
        assert!(wire.put(&mut source, &mut lane, &mut out).is_none());
    }

    /// Each kind of command reads its own kinds of replies; anything else fails the run.
    #[test]
    fn outcomes_are_judged_by_what_was_asked() {
        let fine = |dialect, bytes: &[u8], due| {
            let (taken, tally) = take(dialect, bytes, due);
            assert_eq!(taken, Ok(Some(bytes.len())), "{}", text(bytes));
            (tally.unexpected, tally.words().into_iter().collect::<Vec<_>>())
        };
        let one = |word: &str| vec![(word.to_owned(), 1u64)];
        assert_eq!(fine(KEYS, b"$3\r\nvvv\r\n", due(1, 0, 0)), (0, one("OWNED")));
        assert_eq!(fine(KEYS, b"$-1\r\n", due(1, 0, 0)), (0, one("FREE")));
        assert_eq!(fine(KEYS, b"_\r\n", due(1, 0, 0)), (0, one("FREE")));
        assert_eq!(fine(KEYS, b"+OK\r\n", due(0, 1, 0)), (0, one("GRANTED")));
        assert_eq!(fine(KEYS, b"$-1\r\n", due(0, 1, 0)), (1, one("HELD")));
        assert_eq!(fine(KEYS, b":1\r\n", due(0, 0, 1)), (0, one("OK")));
        assert_eq!(fine(KEYS, b"-BUSY later\r\n", due(0, 0, 1)), (1, one("BUSY")));
        assert_eq!(fine(KEYS, b":7\r\n", due(1, 0, 0)), (1, one("MALFORMED")));

        let flat = b"*3\r\n:1\r\n$2\r\n0a\r\n:0\r\n";
        assert_eq!(fine(Dialect::Port, flat, due(0, 1, 0)), (0, one("GRANTED")));
        let nested = b"*2\r\n*3\r\n:1\r\n$2\r\n0a\r\n:0\r\n*3\r\n:0\r\n$2\r\n0b\r\n:1\r\n";
        let (unexpected, words) = fine(Dialect::Port, nested, due(0, 2, 0));
        assert_eq!((unexpected, words.len()), (1, 2), "one granted, one held: {words:?}");
        let two = b"*2\r\n$4\r\na:17\r\n$-1\r\n";
        assert_eq!(fine(Dialect::Port, two, due(2, 0, 0)).0, 0);
        assert_eq!(fine(Dialect::Port, b":2\r\n", due(0, 0, 3)).0, 1, "one was not ours");
        let array = b"*3\r\n:1\r\n:0\r\n:1\r\n";
        assert_eq!(fine(Dialect::Port, array, due(0, 0, 3)).0, 1, "the second was not ours");
        let (taken, _) = take(Dialect::Port, two, due(3, 0, 0));
        assert_eq!(taken, Err(Broken::Count { got: 2, due: 3 }));
    }

    /// A release walk over several names a command draws its names alike.
    #[test]
    fn walks_fill_commands() {
        let (mut source, mut lane) = source("query=1");
        let task = Task::Walk { kind: Kind::Release, from: 0, to: 5, step: 1 };
        source.begin(task);
        lane.begin(task, 0, 1);
        let mut wire = Resp::new(Dialect::Port, 4, 4);
        let mut out = vec![];
        let mut put = || wire.put(&mut source, &mut lane, &mut out).map(|request| request.releases);
        assert_eq!([put(), put(), put()], [Some(4), Some(1), None]);
    }

    /// Any nesting of our replies, written out.
    fn value() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            Just(b"+OK\r\n".to_vec()),
            Just(b"-ERR no\r\n".to_vec()),
            any::<i64>().prop_map(|n| format!(":{}\r\n", n.max(-i64::MAX)).into_bytes()),
            Just(b"$-1\r\n".to_vec()),
            Just(b"_\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(|bulk| {
                let mut out = format!("${}\r\n", bulk.len()).into_bytes();
                out.extend_from_slice(&bulk);
                out.extend_from_slice(b"\r\n");
                out
            }),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            proptest::collection::vec(inner, 0..4).prop_map(|items| {
                let mut out = format!("*{}\r\n", items.len()).into_bytes();
                out.extend(items.concat());
                out
            })
        })
    }

    proptest! {
        /// TCP may cut anywhere: a part is never taken for the whole, and the whole never waits.
        #[test]
        fn replies_scan_over_any_split(value in value(), more in value()) {
            let whole = [value.clone(), more].concat();
            for cut in 0..value.len() {
                prop_assert_eq!(scan(&whole[..cut], &mut |_| {}), Ok(None), "cut at {}", cut);
            }
            prop_assert_eq!(scan(&whole, &mut |_| {}), Ok(Some(value.len())));
            prop_assert_eq!(scan(&value, &mut |_| {}), Ok(Some(value.len())));
        }

        /// Nothing a server sends can crash the generator or keep it busy.
        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(
            prop_oneof![Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), Just(b'9'), any::<u8>()],
            0..100,
        )) {
            let _ = scan(&noise, &mut |_| {});
            let _ = take(KEYS, &noise, due(1, 0, 0));
        }
    }
}
