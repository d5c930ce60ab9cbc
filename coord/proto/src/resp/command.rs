//! Answers `COMMAND` from the catalogue, in the shape that Redis 7 clients and redis-cli expect.
//!
//! Always true: what is described is what is understood; both read the same table.
//! Bounds: linear in the catalogue, about 20 KiB for all documentation; `GETKEYS` is linear in
//! the command it is given.
//! Tests: below, with a reader that checks the nesting of every reply in both versions.

use super::catalog::{Arg, CATALOG, Keys, Kind, SINCE, Spec, entry, flag};
use super::encode::{Code, Version, Writer};
use super::options::{decimal, split_names};
use super::parse::ArgList;
use super::request::Describe;
use super::verb::find;

/// Writes the reply to one `COMMAND`.
pub fn reply(describe: Describe<'_>, out: &mut Writer<'_>) {
    match describe {
        Describe::All => all(out, write_info),
        Describe::Info(names) if names.is_empty() => all(out, write_info),
        Describe::Info(names) => {
            out.array(names.len());
            for name in names.iter() {
                match lookup(name) {
                    Some(spec) => write_info(spec, out),
                    None => out.null_array(),
                }
            }
        }
        Describe::Count => out.integer(CATALOG.len() as i64),
        Describe::Docs(names) => docs(names, out),
        Describe::List => list(out, |_| true),
        Describe::ListPattern(pattern) => list(out, |spec| matches(pattern, spec.name.as_bytes())),
        Describe::ListCategory(category) => list(out, |spec| {
            categories(spec).any(|known| category.eq_ignore_ascii_case(&known.as_bytes()[1..]))
        }),
        Describe::ListModule => out.array(0),
        Describe::GetKeys(command) => keys_of(command, out),
    }
}

/// A command by name, or a subcommand as `client|id`.
fn lookup(name: &[u8]) -> Option<&'static Spec> {
    match name.iter().position(|byte| *byte == b'|') {
        None => find(name).map(entry),
        Some(bar) => entry(find(&name[..bar])?).subcommand(&name[bar + 1..]),
    }
}

fn all(out: &mut Writer<'_>, write: fn(&'static Spec, &mut Writer<'_>)) {
    out.array(CATALOG.len());
    CATALOG.iter().for_each(|spec| write(spec, out));
}

fn list(out: &mut Writer<'_>, keep: impl Fn(&Spec) -> bool) {
    out.array(CATALOG.iter().filter(|spec| keep(spec)).count());
    CATALOG.iter().filter(|spec| keep(spec)).for_each(|spec| out.bulk(spec.name.as_bytes()));
}

/// The ten fields of an entry: name, arity, flags, first, last, step, categories, tips, key
/// specifications, subcommands.
fn write_info(spec: &'static Spec, out: &mut Writer<'_>) {
    out.array(10);
    write_full_name(spec, out);
    out.integer(i64::from(spec.arity));
    let flags = || flag::WORDS.iter().filter(|(bit, _)| spec.flags & bit != 0);
    out.set(flags().count());
    flags().for_each(|(_, word)| out.simple(word));
    let (first, last, step) = positions(spec.keys);
    out.integer(first);
    out.integer(last);
    out.integer(step);
    out.set(categories(spec).count());
    categories(spec).for_each(|category| out.simple(category));
    out.array(0);
    write_key_specs(spec, out);
    out.array(spec.subcommands.len());
    spec.subcommands.iter().for_each(|subcommand| write_info(subcommand, out));
}

fn write_full_name(spec: &Spec, out: &mut Writer<'_>) {
    match spec.container() {
        None => out.bulk(spec.name.as_bytes()),
        Some(container) => out.bulk_text(format_args!("{}|{}", container.name, spec.name)),
    }
}

/// First, last and step of the names in the older form. Where options follow the names, only the
/// first is announced; that is enough to route the command, and `GETKEYS` tells all.
const fn positions(keys: Keys) -> (i64, i64, i64) {
    match keys {
        Keys::None | Keys::Counted => (0, 0, 0),
        Keys::First | Keys::ThenOptions(_) => (1, 1, 1),
        Keys::AfterOne(_) => (2, 2, 1),
        Keys::All => (1, -1, 1),
    }
}

/// Categories as access lists of Redis call them.
fn categories(spec: &Spec) -> impl Iterator<Item = &'static str> {
    let has = |bit| spec.flags & bit != 0;
    let names = spec.keys != Keys::None;
    [
        (has(flag::WRITE), "@write"),
        (has(flag::READ), "@read"),
        (names, "@keyspace"),
        (has(flag::FAST), "@fast"),
        (!has(flag::FAST), "@slow"),
        (has(flag::ADMIN), "@admin"),
        (has(flag::ADMIN), "@dangerous"),
        (has(flag::CONNECTION), "@connection"),
        (has(flag::BLOCKING), "@blocking"),
        (matches!(spec.keys, Keys::Counted), "@scripting"),
    ]
    .into_iter()
    .filter_map(|(applies, category)| applies.then_some(category))
}

/// The newer form of the same: at most one specification, of where to begin and what to take.
fn write_key_specs(spec: &Spec, out: &mut Writer<'_>) {
    let write = spec.flags & flag::WRITE != 0;
    let (index, last) = match spec.keys {
        Keys::None => return out.array(0),
        Keys::First | Keys::ThenOptions(_) => (1, 0),
        Keys::AfterOne(_) => (2, 0),
        Keys::All => (1, -1),
        Keys::Counted => (2, 0),
    };
    out.array(1);
    out.map(3);
    out.bulk(b"flags");
    let is_partial = matches!(spec.keys, Keys::ThenOptions(_) | Keys::AfterOne(_));
    out.set(2 + usize::from(is_partial));
    out.simple(if write { "RW" } else { "RO" });
    out.simple(if write { "UPDATE" } else { "ACCESS" });
    if is_partial {
        out.simple("incomplete");
    }
    out.bulk(b"begin_search");
    out.map(2);
    write_pair("type", "index", out);
    out.bulk(b"spec");
    out.map(1);
    out.bulk(b"index");
    out.integer(index);
    out.bulk(b"find_keys");
    out.map(2);
    let (kind, fields) = match spec.keys {
        Keys::Counted => ("keynum", [("keynumidx", 0), ("firstkey", 1), ("keystep", 1)]),
        _ => ("range", [("lastkey", last), ("keystep", 1), ("limit", 0)]),
    };
    write_pair("type", kind, out);
    out.bulk(b"spec");
    out.map(fields.len());
    for (name, value) in fields {
        out.bulk(name.as_bytes());
        out.integer(value);
    }
}

fn write_pair(name: &str, value: &str, out: &mut Writer<'_>) {
    out.bulk(name.as_bytes());
    out.bulk(value.as_bytes());
}

/// A map from name to documentation; unknown names are left out, as in Redis.
fn docs(names: ArgList<'_>, out: &mut Writer<'_>) {
    if names.is_empty() {
        out.map(CATALOG.len());
        CATALOG.iter().for_each(|spec| write_docs(spec, out));
        return;
    }
    let known = || names.iter().filter_map(lookup);
    out.map(known().count());
    known().for_each(|spec| write_docs(spec, out));
}

/// A name and its documentation.
fn write_docs(spec: &'static Spec, out: &mut Writer<'_>) {
    write_full_name(spec, out);
    let (args, subcommands) = (!spec.args.is_empty(), !spec.subcommands.is_empty());
    out.map(4 + usize::from(args) + usize::from(subcommands));
    write_pair("summary", spec.summary, out);
    write_pair("since", SINCE, out);
    write_pair("group", spec.group, out);
    write_pair("complexity", spec.complexity, out);
    if args {
        out.bulk(b"arguments");
        out.array(spec.args.len());
        spec.args.iter().for_each(|arg| write_arg(arg, out));
    }
    if subcommands {
        out.bulk(b"subcommands");
        out.map(spec.subcommands.len());
        spec.subcommands.iter().for_each(|subcommand| write_docs(subcommand, out));
    }
}

/// One argument. Redis clients show a name as `display_text` and find keys by `key_spec_index`.
fn write_arg(arg: &Arg, out: &mut Writer<'_>) {
    let is_key = arg.kind == Kind::Key;
    let shows = arg.parts.is_empty() && arg.kind != Kind::Token;
    let flags = [(arg.optional, "optional"), (arg.multiple, "multiple")];
    let flag_count = flags.iter().filter(|(set, _)| *set).count();
    let fields = [is_key, shows, !arg.token.is_empty(), flag_count > 0, !arg.parts.is_empty()];
    out.map(2 + fields.iter().filter(|field| **field).count());
    write_pair("name", arg.name, out);
    write_pair("type", arg.kind.word(), out);
    if shows {
        write_pair("display_text", arg.name, out);
    }
    if is_key {
        out.bulk(b"key_spec_index");
        out.integer(0);
    }
    if !arg.token.is_empty() {
        write_pair("token", arg.token, out);
    }
    if flag_count > 0 {
        out.bulk(b"flags");
        out.set(flag_count);
        flags.iter().filter(|(set, _)| *set).for_each(|(_, word)| out.simple(word));
    }
    if !arg.parts.is_empty() {
        out.bulk(b"arguments");
        out.array(arg.parts.len());
        arg.parts.iter().for_each(|part| write_arg(part, out));
    }
}

/// The names in a command, or why there are none.
fn keys_of(command: ArgList<'_>, out: &mut Writer<'_>) {
    let Some(spec) = command.get(0).and_then(find).map(entry) else {
        return out.error(Code::Err, "Invalid command specified");
    };
    if !spec.takes(command.len()) {
        return out.error(Code::Err, "Invalid number of arguments specified for command");
    }
    let rest = command.from(1);
    let names = match spec.keys {
        Keys::None => {
            return out.error(Code::Err, "The command has no key arguments");
        }
        Keys::First => Some(rest.first(1)),
        Keys::All => Some(rest),
        Keys::ThenOptions(options) => split_names(rest, options).map(|(names, _)| names),
        Keys::AfterOne(options) => split_names(rest.from(1), options).map(|(names, _)| names),
        Keys::Counted => counted(rest),
    };
    match names.filter(|names| !names.is_empty()) {
        None => out.error(Code::Err, "Invalid arguments specified for command"),
        Some(names) => {
            out.array(names.len());
            names.iter().for_each(|name| out.bulk(name));
        }
    }
}

/// The names behind a script and their count.
fn counted(rest: ArgList<'_>) -> Option<ArgList<'_>> {
    let names = rest.from(2);
    let count = decimal(rest.get(1)?).filter(|count| *count <= names.len() as u64)?;
    Some(names.first(count as usize))
}

/// Whether `text` matches a pattern with `*` and `?`, in any case. At most one way back is kept,
/// so the time is bounded by the product of the lengths.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == b'?' || byte.eq_ignore_ascii_case(&text[from]) => {
                at += 1;
                from += 1;
            }
            _ => match star {
                None => return false,
                Some((pattern_at, text_from)) => {
                    star = Some((pattern_at, text_from + 1));
                    (at, from) = (pattern_at + 1, text_from + 1);
                }
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Writes the fields of `HELLO`'s reply that are the same for every server of ours: `proto` must be
/// the version that the connection speaks now.
pub fn hello_reply(server_version: &str, connection: u64, out: &mut Writer<'_>) {
    let proto = if out.version() == Version::Resp3 { 3 } else { 2 };
    out.map(7);
    write_pair("server", "ringway", out);
    write_pair("version", server_version, out);
    out.bulk(b"proto");
    out.integer(proto);
    out.bulk(b"id");
    out.integer(connection as i64);
    write_pair("mode", "standalone", out);
    write_pair("role", "master", out);
    out.bulk(b"modules");
    out.array(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::parse::{Args, Parsed, next_command};
    use crate::resp::request::{Request, understand};
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;

    /// Reads one reply; gives the bytes behind it, or panics where the nesting is wrong.
    fn skip(bytes: &[u8], version: Version) -> &[u8] {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n").expect("a line");
        let (line, rest) = (&bytes[1..end], &bytes[end + 2..]);
        let number = || core::str::from_utf8(line).expect("text").parse::<usize>().expect("digits");
        let many = |count, rest| (0..count).fold(rest, |rest, _| skip(rest, version));
        match (bytes[0], version) {
            (b'+' | b'-' | b':', _) | (b'_', Version::Resp3) => rest,
            (b'*', Version::Resp2) if line == b"-1" => rest,
            (b'$', _) => rest[number()..].strip_prefix(b"\r\n").expect("a line end"),
            (b'*', _) | (b'~', Version::Resp3) => many(number(), rest),
            (b'%', Version::Resp3) => many(number() * 2, rest),
            (other, _) => panic!("{} in {version:?}", other.escape_ascii()),
        }
    }

    fn answer(line: &str, version: Version) -> String {
        let input = alloc::format!("{line}\r\n").into_bytes();
        let mut args = Args::new();
        let parsed = next_command(&input, &mut args).expect("correct");
        assert_eq!(parsed, Parsed::Command { consumed: input.len() });
        let Ok(Request::Describe(describe)) = understand(args.bind(&input)) else {
            panic!("not understood: {line}");
        };
        let mut out = Vec::new();
        reply(describe, &mut Writer::new(&mut out, version));
        assert!(skip(&out, version).is_empty(), "one reply to {line}");
        String::from_utf8(out).expect("text").replace("\r\n", " ").trim_end().to_string()
    }

    /// Every reply is one well-nested reply in both versions, the large ones too.
    #[test]
    fn replies_nest() {
        for version in [Version::Resp2, Version::Resp3] {
            for line in ["COMMAND", "COMMAND INFO", "COMMAND DOCS", "COMMAND LIST"] {
                let text = answer(line, version);
                assert!(text.contains("port.register"), "{line}");
            }
            assert_eq!(answer("COMMAND COUNT", version), alloc::format!(":{}", CATALOG.len()));
        }
    }

    /// What a client library reads to route a command: name, arity, flags, places of names.
    #[test]
    fn info_is_that_of_redis() {
        let text = answer("COMMAND INFO get", Version::Resp2);
        assert!(
            text.starts_with("*1 *10 $3 get :2 *2 +readonly +fast :1 :1 :1 *3 +@read"),
            "{text}"
        );
        assert!(answer("COMMAND INFO nosuch client|id", Version::Resp3).starts_with("*2 _ *10 $9"));
        let text = answer("COMMAND INFO port.register", Version::Resp3);
        assert!(text.contains("+movablekeys :1 :1 :1"), "{text}");
        assert!(text.contains("~3 +RW +UPDATE +incomplete"), "{text}");
        let text = answer("COMMAND INFO port.transfer", Version::Resp3);
        assert!(text.contains("+movablekeys :2 :2 :1") && text.contains("index :2"), "{text}");
        assert!(answer("COMMAND INFO port.wait", Version::Resp2).contains("+write +blocking :1"));
        assert_eq!(answer("COMMAND DOCS nosuch", Version::Resp3), "%0");
    }

    /// The names of a command are found wherever its form puts them.
    #[test]
    fn keys_are_found() {
        let keys =
            |command: &str| answer(&alloc::format!("COMMAND GETKEYS {command}"), Version::Resp2);
        assert_eq!(keys("GET a"), "*1 $1 a");
        assert_eq!(keys("PORT.QUERY a b"), "*2 $1 a $1 b");
        assert_eq!(keys("PORT.REGISTER a b MODE SHARED"), "*2 $1 a $1 b");
        assert_eq!(keys("PORT.REGISTER NAMES 1 mode MODE SHARED"), "*1 $4 mode");
        assert_eq!(keys("SET a v NX PX 10"), "*1 $1 a");
        assert_eq!(keys("EVALSHA x 1 a v"), "*1 $1 a");
        assert_eq!(keys("PORT.TRANSFER x a b TOKEN 1"), "*2 $1 a $1 b");
        assert_eq!(keys("PORT.WAIT a 0 MODE SHARED"), "*1 $1 a");
        assert_eq!(keys("PING"), "-ERR The command has no key arguments");
        assert_eq!(keys("NOSUCH a"), "-ERR Invalid command specified");
        assert_eq!(keys("EVAL x 9 a"), "-ERR Invalid arguments specified for command");
        assert_eq!(keys("GET"), "-ERR Invalid number of arguments specified for command");
    }

    /// Filters of `COMMAND LIST`.
    #[test]
    fn lists_are_filtered() {
        let list = |filter: &str| {
            answer(&alloc::format!("COMMAND LIST FILTERBY {filter}"), Version::Resp2)
        };
        assert_eq!(
            list("PATTERN port.re*"),
            "*3 $13 port.register $12 port.release $11 port.revoke"
        );
        assert_eq!(list("ACLCAT blocking"), "*1 $9 port.wait");
        assert_eq!(list("PATTERN e*l"), "*1 $4 eval");
        assert_eq!(list("ACLCAT scripting"), "*2 $4 eval $7 evalsha");
        assert_eq!(list("MODULE x"), "*0");
    }

    /// Patterns as people write them, and one that would take a naive matcher for ever.
    #[test]
    fn patterns_match() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("?", "", false),
            ("s*e", "save", true),
            ("S?VE", "save", true),
            ("sav", "save", false),
            ("*a*b*", "xxaxxbxx", true),
            ("a*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
