//! The options of every command, one function each: from words to a part of a [`Request`].
//!
//! Numbers are plain decimal without sign or leading zero; session ids are 16 hexadecimal digits
//! and secrets 32, as the server prints them. Where names come first and options last, the first
//! word that spells an option ends the names; a name that spells an option, or `NAMES`, is said
//! in the counted form: `NAMES n name [name ...]`.

use ringway_core::limits::{
    ADDRESS_BYTES_MAX, MESSAGE_BYTES_MAX, METADATA_BYTES_MAX, NAME_META_BYTES_MAX, PERMITS_MAX,
    VALUE_BYTES_MAX,
};
use ringway_core::slot::SLOTS;
use ringway_core::{NodeId, Secret, SessionId, ShardId, Slot, Span, Token};

use super::catalog::{REGISTER_OPTIONS, RELEASE_OPTIONS, Spec, TRANSFER_OPTIONS, WATCH_OPTIONS};
use super::encode::{Code, Version};
use super::parse::ArgList;
use super::request::{
    Act, Call, Client, Cluster, Describe, Hello, Login, Mode, Names, Open, Page, Proof, Proofs,
    Refusal, Request, SET_HELP, Send, SendTo, name_at, name_of, word,
};
use super::scripts::{self, Effect, Unit};
use super::verb::Verb;
use crate::waiters::WAITERS_MAX;
use crate::watch::event::{Kind, MASK_ALL};

type Result<'a, T> = core::result::Result<T, Refusal<'a>>;

/// Names of a page when none are asked for.
const LIST_COUNT_DEFAULT: u16 = 100;
/// Names of a page at most.
const LIST_COUNT_MAX: u64 = 4096;
/// Sessions of a page at most.
const SESSIONS_COUNT_MAX: u64 = 1024;
/// Bytes of the name of a connection, of a library, of its version.
const CLIENT_NAME_BYTES_MAX: usize = 64;

const _: () = assert!(WAITERS_MAX == 1024, "an error says so");
const _: () = assert!(MESSAGE_BYTES_MAX == 32768, "an error says so");

const UNKNOWN: &str = "unknown option";
const TWICE: &str = "given twice:";
const NO_VALUE: &str = "a value is missing behind";

/// Options one after another: each is a word, some with values behind it.
struct Options<'a> {
    spec: &'static Spec,
    args: ArgList<'a>,
    next: usize,
    current: &'a [u8],
}

impl<'a> Options<'a> {
    const fn new(spec: &'static Spec, args: ArgList<'a>) -> Self {
        Self { spec, args, next: 0, current: &[] }
    }

    /// Goes to the next option, if there is one.
    fn advance(&mut self) -> bool {
        match self.args.get(self.next) {
            Some(word) => {
                self.current = word;
                self.next += 1;
                true
            }
            None => false,
        }
    }

    fn is(&self, name: &str) -> bool {
        self.current.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The word behind the current option.
    fn value(&mut self) -> Result<'a, &'a [u8]> {
        let value = self.args.get(self.next);
        self.next += 1;
        value.ok_or(Refusal::syntax(NO_VALUE, self.current, self.spec))
    }

    /// Notes the value of an option that may be given once.
    fn set<T>(&self, place: &mut Option<T>, value: T) -> Result<'a, ()> {
        match place.replace(value) {
            None => Ok(()),
            Some(_) => Err(Refusal::syntax(TWICE, self.current, self.spec)),
        }
    }

    /// The words behind `MODE`.
    fn mode(&mut self, place: &mut Option<Mode>) -> Result<'a, ()> {
        let value = self.value()?;
        let asked = if value.eq_ignore_ascii_case(b"EXCLUSIVE") {
            Mode::Exclusive
        } else if value.eq_ignore_ascii_case(b"SHARED") {
            Mode::Shared
        } else if value.eq_ignore_ascii_case(b"COUNTING") {
            let holders = number(self.value()?, 1, u64::from(PERMITS_MAX), " holders")?;
            Mode::Counting(holders as u32)
        } else {
            return Err(Refusal::syntax("unknown mode", value, self.spec));
        };
        self.set(place, asked)
    }

    /// The words behind `KINDS`, at least one, as bits.
    fn kinds(&mut self) -> Result<'a, u8> {
        let first = self.value()?;
        let mut kinds = match kind_of(first) {
            Some(kind) => kind.bit(),
            None => return Err(Refusal::syntax("unknown kind", first, self.spec)),
        };
        while let Some(kind) = self.args.get(self.next).and_then(kind_of) {
            kinds |= kind.bit();
            self.next += 1;
        }
        Ok(kinds)
    }

    fn unknown<T>(&self) -> Result<'a, T> {
        Err(Refusal::syntax(UNKNOWN, self.current, self.spec))
    }
}

/// A kind of change.
fn kind_of(word: &[u8]) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| word.eq_ignore_ascii_case(kind.word()))
}

/// A plain decimal number of at most 64 bits.
pub(super) fn decimal(word: &[u8]) -> Option<u64> {
    if word.is_empty() || word.len() > 20 || (word[0] == b'0' && word.len() > 1) {
        return None;
    }
    word.iter().try_fold(0u64, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { value.checked_mul(10)?.checked_add(u64::from(digit)) }
    })
}

/// A number between two bounds, both included.
fn number<'a>(word: &'a [u8], least: u64, most: u64, after: &'static str) -> Result<'a, u64> {
    match decimal(word) {
        Some(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(Refusal::word("value is not an integer or out of range:", word, after)),
    }
}

/// Hexadecimal digits of either case, exactly `N` bytes of them.
fn hex<const N: usize>(word: &[u8]) -> Option<[u8; N]> {
    if word.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(word.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    Some(bytes)
}

/// A lease, or an addition to one.
pub(super) fn lease(word: &[u8], unit: Unit) -> Result<'_, Span> {
    let Some(count) = decimal(word) else {
        return Err(Refusal::word("value is not an integer or out of range:", word, ""));
    };
    unit.span(count).ok_or(
        Refusal::word("invalid expire time:", word, ", at least 1 and at most 2^32 - 1 ms")
            .with(Code::Lease),
    )
}

pub(super) fn session(word: &[u8]) -> Result<'_, SessionId> {
    match hex::<8>(word) {
        Some(bytes) => Ok(SessionId(u64::from_be_bytes(bytes))),
        None => Err(Refusal::word("not a session:", word, ", it has 16 hexadecimal digits")),
    }
}

fn secret<'a>(word: &'a [u8]) -> Result<'a, Secret> {
    hex::<16>(word)
        .map(Secret)
        .ok_or(Refusal::plain(Code::Err, "a secret has 32 hexadecimal digits"))
}

pub(super) fn proof<'a>(id: &'a [u8], proof: &'a [u8]) -> Result<'a, Proof> {
    Ok(Proof { session: session(id)?, secret: secret(proof)? })
}

pub(super) fn proofs<'a>(spec: &'static Spec, rest: ArgList<'a>) -> Result<'a, Proofs<'a>> {
    if !rest.len().is_multiple_of(2) {
        return Err(Refusal::arity(spec));
    }
    for pair in (0..rest.len()).step_by(2) {
        proof(word(rest, pair), word(rest, pair + 1))?;
    }
    Ok(Proofs(rest))
}

pub(super) fn optional_proof<'a>(
    spec: &'static Spec,
    rest: ArgList<'a>,
) -> Result<'a, Option<Proof>> {
    match rest.len() {
        0 => Ok(None),
        2 => proof(word(rest, 0), word(rest, 1)).map(Some),
        _ => Err(Refusal::arity(spec)),
    }
}

pub(super) fn optional_session<'a>(
    spec: &'static Spec,
    rest: ArgList<'a>,
) -> Result<'a, Option<SessionId>> {
    match rest.len() {
        0 => Ok(None),
        1 => session(word(rest, 0)).map(Some),
        _ => Err(Refusal::arity(spec)),
    }
}

pub(super) fn node(word: &[u8]) -> Result<'_, NodeId> {
    number(word, 0, u64::MAX, ", a node is a number of 64 bits").map(NodeId)
}

pub(super) fn shard(word: &[u8]) -> Result<'_, ShardId> {
    number(word, 0, 255, ", a shard is a number below 256").map(|shard| ShardId(shard as u8))
}

fn slot(word: &[u8]) -> Result<'_, Slot> {
    number(word, 0, SLOTS as u64 - 1, ", a slot is a number below 16384")
        .map(|slot| Slot::from_bits(slot as u16))
}

/// The names at the start, plain or counted, and the options behind them.
pub(super) fn names_then<'a>(
    spec: &'static Spec,
    rest: ArgList<'a>,
    options: &[&str],
) -> Result<'a, (Names<'a>, ArgList<'a>)> {
    let (names, behind) = split_names(rest, options).ok_or(Refusal::syntax(
        "not a count of names:",
        word(rest, 1),
        spec,
    ))?;
    if names.is_empty() {
        return Err(Refusal::syntax("a name is missing before", word(behind, 0), spec));
    }
    Ok((Names::new(names)?, behind))
}

/// As [`names_then`], without judging the names; `None` if the count does not fit.
pub(super) fn split_names<'a>(
    rest: ArgList<'a>,
    options: &[&str],
) -> Option<(ArgList<'a>, ArgList<'a>)> {
    if word(rest, 0).eq_ignore_ascii_case(b"NAMES") {
        let behind = rest.from(2);
        let count = decimal(rest.get(1)?).filter(|count| (1..=behind.len() as u64).contains(count));
        let count = count? as usize;
        return Some((behind.first(count), behind.from(count)));
    }
    let is_option =
        |word: &[u8]| options.iter().any(|option| word.eq_ignore_ascii_case(option.as_bytes()));
    let count = rest.iter().position(is_option).unwrap_or(rest.len());
    Some((rest.first(count), rest.from(count)))
}

/// Whether the words are one name and nothing else: the usual registration.
#[inline]
pub(super) fn is_plain_name(rest: ArgList<'_>) -> bool {
    // Words that mean something here have 4, 5 or 10 bytes; let `register` look at those.
    rest.len() == 1 && !matches!(word(rest, 0).len(), 4 | 5 | 10)
}

pub(super) fn register<'a>(spec: &'static Spec, rest: ArgList<'a>) -> Result<'a, Request<'a>> {
    let (names, behind) = names_then(spec, rest, REGISTER_OPTIONS)?;
    let (mut mode, mut replicated) = (None, None);
    let mut options = Options::new(spec, behind);
    while options.advance() {
        if options.is("MODE") {
            options.mode(&mut mode)?;
        } else if options.is("REPLICATED") {
            options.set(&mut replicated, ())?;
        } else {
            return options.unknown();
        }
    }
    let mode = mode.unwrap_or_default();
    Ok(Request::Register { names, mode, replicated: replicated.is_some() })
}

pub(super) fn release<'a>(spec: &'static Spec, rest: ArgList<'a>) -> Result<'a, Request<'a>> {
    let (names, behind) = names_then(spec, rest, RELEASE_OPTIONS)?;
    Ok(Request::Release { names, token: token(spec, names, behind)? })
}

/// `TOKEN token`, or nothing, behind the names that it is for.
fn token<'a>(
    spec: &'static Spec,
    names: Names<'a>,
    behind: ArgList<'a>,
) -> Result<'a, Option<Token>> {
    let mut token = None;
    let mut options = Options::new(spec, behind);
    while options.advance() {
        if !options.is("TOKEN") {
            return options.unknown();
        }
        let value = number(options.value()?, 0, u64::MAX, ", a token is a number of 64 bits")?;
        options.set(&mut token, Token(value))?;
    }
    if token.is_some() && names.len() > 1 {
        let text = "TOKEN goes with one name: every name has a token of its own";
        return Err(Refusal::plain(Code::Err, text));
    }
    Ok(token)
}

pub(super) fn transfer<'a>(spec: &'static Spec, rest: ArgList<'a>) -> Result<'a, Request<'a>> {
    let to = session(word(rest, 0))?;
    let (names, behind) = names_then(spec, rest.from(1), TRANSFER_OPTIONS)?;
    Ok(Request::Transfer { to, names, token: token(spec, names, behind)? })
}

/// `PORT.REVOKE name [TO session]`.
pub(super) fn revoke<'a>(spec: &'static Spec, rest: ArgList<'a>) -> Result<'a, Request<'a>> {
    let (name, mut to) = (name_at(rest, 0)?, None);
    let mut options = Options::new(spec, rest.from(1));
    while options.advance() {
        if !options.is("TO") {
            return options.unknown();
        }
        let target = session(options.value()?)?;
        options.set(&mut to, target)?;
    }
    Ok(Request::Revoke { name, to })
}

/// `PORT.WAIT name ms [MODE ...]`.
pub(super) fn wait<'a>(spec: &'static Spec, rest: ArgList<'a>) -> Result<'a, Request<'a>> {
    let name = name_at(rest, 0)?;
    let after = ", milliseconds to wait are at most 2^32 - 1, and 0 is for ever";
    let ms = number(word(rest, 1), 0, u64::from(u32::MAX), after)? as u32;
    let mut mode = None;
    let mut options = Options::new(spec, rest.from(2));
    while options.advance() {
        if !options.is("MODE") {
            return options.unknown();
        }
        options.mode(&mut mode)?;
    }
    Ok(Request::Wait { name, mode: mode.unwrap_or_default(), ms })
}

/// `PORT.WAITERS name [COUNT n]`.
pub(super) fn waiters<'a>(spec: &'static Spec, rest: ArgList<'a>) -> Result<'a, Request<'a>> {
    let (name, mut count) = (name_at(rest, 0)?, None);
    let mut options = Options::new(spec, rest.from(1));
    while options.advance() {
        if !options.is("COUNT") {
            return options.unknown();
        }
        let value = number(options.value()?, 0, WAITERS_MAX as u64, ", COUNT is 0 to 1024")?;
        options.set(&mut count, value as u16)?;
    }
    Ok(Request::Waiters { name, count: count.unwrap_or(LIST_COUNT_DEFAULT) })
}

/// `PORT.META name [SET metadata [VERSION version]]`.
pub(super) fn meta<'a>(spec: &'static Spec, rest: ArgList<'a>) -> Result<'a, Request<'a>> {
    let name = name_at(rest, 0)?;
    let (mut bytes, mut version) = (None, None);
    let mut options = Options::new(spec, rest.from(1));
    while options.advance() {
        if options.is("SET") {
            let value = options.value()?;
            options.set(&mut bytes, value)?;
        } else if options.is("VERSION") {
            let most = u64::from(u32::MAX);
            let value = number(options.value()?, 0, most, ", a version is a number of 32 bits")?;
            options.set(&mut version, value as u32)?;
        } else {
            return options.unknown();
        }
    }
    match bytes {
        Some(bytes) if bytes.len() > NAME_META_BYTES_MAX => {
            Err(Refusal::plain(Code::Err, "the metadata of a name has at most 256 bytes"))
        }
        Some(bytes) => Ok(Request::SetMeta { name, bytes, version }),
        None if version.is_some() => {
            Err(Refusal::plain(Code::Err, "VERSION goes with SET: set only if it is this one"))
        }
        None => Ok(Request::Meta(name)),
    }
}

/// What is behind the target of a message: `payload [RECEIPT] [FROM source TOKEN token]`.
pub(super) fn send<'a>(
    spec: &'static Spec,
    to: SendTo<'a>,
    rest: ArgList<'a>,
) -> Result<'a, Request<'a>> {
    let payload = payload(word(rest, 0))?;
    let (mut receipt, mut from, mut token) = (None, None, None);
    let mut options = Options::new(spec, rest.from(1));
    while options.advance() {
        if options.is("RECEIPT") {
            options.set(&mut receipt, ())?;
        } else if options.is("FROM") {
            let name = name_of(options.value()?)?;
            options.set(&mut from, name)?;
        } else if options.is("TOKEN") {
            let value = number(options.value()?, 0, u64::MAX, ", a token is a number of 64 bits")?;
            options.set(&mut token, Token(value))?;
        } else {
            return options.unknown();
        }
    }
    if from.is_some() != token.is_some() {
        let text = "FROM and TOKEN go together: a name that you hold, and its token";
        return Err(Refusal::plain(Code::Err, text));
    }
    let source = from.zip(token);
    Ok(Request::Send(Send { to, payload, receipt: receipt.is_some(), source }))
}

/// `PORT.BROADCAST payload [RECEIPT]`.
pub(super) fn broadcast<'a>(spec: &'static Spec, rest: ArgList<'a>) -> Result<'a, Request<'a>> {
    let (payload, mut receipt) = (payload(word(rest, 0))?, None);
    let mut options = Options::new(spec, rest.from(1));
    while options.advance() {
        if !options.is("RECEIPT") {
            return options.unknown();
        }
        options.set(&mut receipt, ())?;
    }
    Ok(Request::Broadcast { payload, receipt: receipt.is_some() })
}

fn payload(word: &[u8]) -> Result<'_, &[u8]> {
    if word.len() > MESSAGE_BYTES_MAX {
        return Err(Refusal::plain(Code::Err, "a message has at most 32768 bytes"));
    }
    Ok(word)
}

/// `PORT.WATCH filter [filter ...] [SNAPSHOT] [KINDS kind [kind ...]]`.
pub(super) fn watch<'a>(spec: &'static Spec, rest: ArgList<'a>) -> Result<'a, Request<'a>> {
    let (filters, behind) = names_then(spec, rest, WATCH_OPTIONS)?;
    let (mut snapshot, mut kinds) = (None, None);
    let mut options = Options::new(spec, behind);
    while options.advance() {
        if options.is("SNAPSHOT") {
            options.set(&mut snapshot, ())?;
        } else if options.is("KINDS") {
            let asked = options.kinds()?;
            options.set(&mut kinds, asked)?;
        } else {
            return options.unknown();
        }
    }
    let kinds = kinds.unwrap_or(MASK_ALL);
    Ok(Request::Watch { filters, snapshot: snapshot.is_some(), kinds })
}

pub(super) fn list<'a>(spec: &'static Spec, rest: ArgList<'a>) -> Result<'a, Page<'a>> {
    let (mut cursor, mut count, mut prefix) = (None, None, None);
    let mut options = Options::new(spec, rest);
    while options.advance() {
        if options.is("CURSOR") {
            let value = options.value()?;
            options.set(&mut cursor, name_cursor(value)?)?;
        } else if options.is("COUNT") {
            let value = number(options.value()?, 1, LIST_COUNT_MAX, ", COUNT is 1 to 4096")?;
            options.set(&mut count, value as u16)?;
        } else if options.is("PREFIX") {
            let value = options.value()?;
            if value.len() > 255 {
                return Err(Refusal::plain(Code::BadName, "a prefix has at most 255 bytes"));
            }
            options.set(&mut prefix, value)?;
        } else {
            return options.unknown();
        }
    }
    let (slot, after) = cursor.unwrap_or((Slot::from_bits(0), &[]));
    let count = count.unwrap_or(LIST_COUNT_DEFAULT);
    Ok(Page { slot, after, count, prefix: prefix.unwrap_or(&[]) })
}

/// `slot:after`; the name may hold colons of its own, and may be empty. `0` is the start, as it
/// is for `SCAN`.
fn name_cursor<'a>(value: &'a [u8]) -> Result<'a, (Slot, &'a [u8])> {
    if value == b"0" {
        return Ok((Slot::from_bits(0), &[]));
    }
    let colon = value.iter().position(|byte| *byte == b':').unwrap_or(value.len());
    let (number, after) = value.split_at(colon);
    let after = after.get(1..).unwrap_or(&[]);
    if after.len() > 255 || colon == value.len() {
        return Err(Refusal::word("not a cursor:", value, ", it is 'slot:name' from a reply"));
    }
    Ok((slot(number)?, after))
}

pub(super) fn sessions<'a>(spec: &'static Spec, rest: ArgList<'a>) -> Result<'a, Request<'a>> {
    let (mut cursor, mut count) = (None, None);
    let mut options = Options::new(spec, rest);
    while options.advance() {
        if options.is("CURSOR") {
            let value = number(options.value()?, 0, u64::MAX, ", a cursor comes from a reply")?;
            options.set(&mut cursor, value)?;
        } else if options.is("COUNT") {
            let value = number(options.value()?, 1, SESSIONS_COUNT_MAX, ", COUNT is 1 to 1024")?;
            options.set(&mut count, value as u16)?;
        } else {
            return options.unknown();
        }
    }
    let count = count.unwrap_or(LIST_COUNT_DEFAULT);
    Ok(Request::Sessions { cursor: cursor.unwrap_or(0), count })
}

pub(super) fn open<'a>(spec: &'static Spec, rest: ArgList<'a>) -> Result<'a, Open<'a>> {
    let node = node(word(rest, 0))?;
    let (mut asked, mut resume, mut bare, mut gateway) = (None, None, None, None);
    let (mut address, mut metadata) = (None, None);
    let mut options = Options::new(spec, rest.from(1));
    while options.advance() {
        if options.is("LEASE") {
            let value = options.value()?;
            options.set(&mut asked, lease(value, Unit::Ms)?)?;
        } else if options.is("SECRET") {
            let value = options.value()?;
            options.set(&mut resume, secret(value)?)?;
        } else if options.is("BARE") {
            options.set(&mut bare, ())?;
        } else if options.is("GATEWAY") {
            options.set(&mut gateway, ())?;
        } else if options.is("ADDRESS") {
            let value = options.value()?;
            options.set(&mut address, value)?;
        } else if options.is("META") {
            let value = options.value()?;
            options.set(&mut metadata, value)?;
        } else {
            return options.unknown();
        }
    }
    let (bare, gateway) = (bare.is_some(), gateway.is_some());
    let (address, metadata) = (address.unwrap_or(&[]), metadata.unwrap_or(&[]));
    if bare && gateway {
        let text = "BARE ends a session with its connection, GATEWAY binds none: choose one";
        return Err(Refusal::plain(Code::Err, text));
    }
    if address.len() > ADDRESS_BYTES_MAX || metadata.len() > METADATA_BYTES_MAX {
        let text = "an address has at most 255 bytes, metadata at most 256";
        return Err(Refusal::plain(Code::Err, text));
    }
    Ok(Open { node, lease: asked, secret: resume, bare, gateway, address, metadata })
}

/// `SET name value NX PX ms`, the options in any order, `EX s` instead of `PX ms`.
#[inline]
pub(super) fn lock<'a>(rest: ArgList<'a>) -> Result<'a, Request<'a>> {
    let (name, value) = (name_at(rest, 0)?, word(rest, 1));
    let (mut only_free, mut expiry) = (None, None);
    let mut options = Options::new(super::catalog::entry(Verb::Set), rest.from(2));
    while options.advance() {
        if options.is("NX") {
            options.set(&mut only_free, ())?;
        } else if options.is("PX") || options.is("EX") {
            let unit = if options.is("PX") { Unit::Ms } else { Unit::S };
            let count = options.value()?;
            options.set(&mut expiry, lease(count, unit)?)?;
        } else {
            return Err(Refusal::plain(Code::Unsupported, SET_HELP));
        }
    }
    let (Some(()), Some(lease)) = (only_free, expiry) else {
        return Err(Refusal::plain(Code::Unsupported, SET_HELP));
    };
    if value.is_empty() || value.len() > VALUE_BYTES_MAX {
        let text = "the value of a lock is its owner's secret: 1 to 512 bytes, best random";
        return Err(Refusal::plain(Code::Err, text));
    }
    Ok(Request::Lock { name, value, lease })
}

/// `EVAL text n name value [number ...]`, or `EVALSHA` with a digest.
pub(super) fn call<'a>(verb: Verb, rest: ArgList<'a>) -> Result<'a, Call<'a>> {
    let given = word(rest, 0);
    let script = if verb == Verb::EvalSha {
        let text = "No matching script. Please use EVAL.";
        scripts::of_digest(given).ok_or(Refusal::plain(Code::NoScript, text))?
    } else {
        scripts::of_text(given).ok_or(Refusal::plain(Code::Unsupported, SCRIPT_HELP))?
    };
    if word(rest, 1) != b"1" {
        let text = "a lock script takes one name here: names may lie on different shards";
        return Err(Refusal::plain(Code::Unsupported, text));
    }
    let (name, args) = (name_at(rest, 2)?, rest.from(3));
    let ms = |index| lease(word(args, index), Unit::Ms);
    let (act, wanted) = match script.effect {
        Effect::Delete => (Act::Delete, 1),
        Effect::Expire(unit) => (Act::Expire(lease(word(args, 1), unit)?), 2),
        Effect::Extend if word(args, 2) == b"0" => (Act::Extend(ms(1)?), 3),
        Effect::Extend => (Act::Expire(ms(1)?), 3),
        Effect::Add => (Act::Extend(ms(1)?), 2),
        Effect::Lock => (Act::Lock(ms(1)?), 2),
        Effect::LockOrExpire => (Act::LockOrExpire(ms(1)?), 2),
    };
    // Libraries pass the same arguments to all of their scripts, so more than needed is no error.
    let value = word(args, 0);
    if args.len() < wanted || value.is_empty() || value.len() > VALUE_BYTES_MAX {
        let text = "this script needs the lock's value (1 to 512 bytes), then its numbers";
        return Err(Refusal::plain(Code::Err, text));
    }
    Ok(Call { name, value, act, script })
}

const SCRIPT_HELP: &str = "only known lock scripts are understood, there is no Lua: release with \
    if redis.call('get',KEYS[1]) == ARGV[1] then return redis.call('del',KEYS[1]) else return 0 \
    end";

/// The subcommand that stands behind a container.
fn subcommand<'a>(spec: &'static Spec, args: ArgList<'a>) -> Result<'a, &'static Spec> {
    let name = word(args, 1);
    let Some(found) = spec.subcommand(name) else {
        return Err(Refusal::word(
            "unknown subcommand",
            name,
            match spec.verb {
                Verb::Client => {
                    ": CLIENT has GETNAME ID INFO LIST NO-EVICT NO-TOUCH REPLY SETINFO \
                 SETNAME; to end a session use SESSION.KILL"
                }
                Verb::Cluster => {
                    ": CLUSTER has COUNTKEYSINSLOT INFO KEYSLOT MYID NODES SHARDS SLOTS"
                }
                Verb::Command => ": COMMAND has COUNT DOCS GETKEYS INFO LIST",
                Verb::Config => ": CONFIG has GET; settings are in the configuration file",
                _ => ": SCRIPT has EXISTS FLUSH LOAD",
            },
        ));
    };
    if found.takes(args.len()) { Ok(found) } else { Err(Refusal::arity(found)) }
}

pub(super) fn script<'a>(spec: &'static Spec, args: ArgList<'a>) -> Result<'a, Request<'a>> {
    match subcommand(spec, args)?.name {
        "exists" => Ok(Request::ScriptExists(args.from(2))),
        "flush" => Ok(Request::ScriptFlush),
        _ => {
            let digest = scripts::digest_of(word(args, 2));
            let text = Refusal::plain(Code::Unsupported, SCRIPT_HELP);
            digest.map(Request::ScriptLoad).ok_or(text)
        }
    }
}

pub(super) fn hello<'a>(spec: &'static Spec, rest: ArgList<'a>) -> Result<'a, Hello<'a>> {
    let mut hello = Hello::default();
    let Some(version) = rest.get(0) else { return Ok(hello) };
    hello.version = Some(match decimal(version) {
        Some(2) => Version::Resp2,
        Some(3) => Version::Resp3,
        Some(_) => return Err(Refusal::plain(Code::NoProto, "unsupported protocol version")),
        None => {
            let text = "Protocol version is not an integer or out of range";
            return Err(Refusal::plain(Code::Err, text));
        }
    });
    let mut options = Options::new(spec, rest.from(1));
    while options.advance() {
        if options.is("AUTH") {
            let user = options.value()?;
            let password = options.value()?;
            options.set(&mut hello.login, Login { user, password })?;
        } else if options.is("SETNAME") {
            let name = client_name(options.value()?)?;
            options.set(&mut hello.name, name)?;
        } else {
            return options.unknown();
        }
    }
    Ok(hello)
}

pub(super) fn login<'a>(spec: &'static Spec, rest: ArgList<'a>) -> Result<'a, Login<'a>> {
    match rest.len() {
        1 => Ok(Login { user: b"default", password: word(rest, 0) }),
        2 => Ok(Login { user: word(rest, 0), password: word(rest, 1) }),
        _ => Err(Refusal::arity(spec)),
    }
}

/// A name that can stand in a line of `CLIENT LIST`.
fn client_name<'a>(name: &'a [u8]) -> Result<'a, &'a [u8]> {
    if name.len() > CLIENT_NAME_BYTES_MAX || !name.iter().all(u8::is_ascii_graphic) {
        let text = "names and versions of clients have at most 64 visible characters, no spaces";
        return Err(Refusal::plain(Code::Err, text));
    }
    Ok(name)
}

pub(super) fn client<'a>(spec: &'static Spec, args: ArgList<'a>) -> Result<'a, Client<'a>> {
    let found = subcommand(spec, args)?;
    let value = word(args, 2);
    let one_of = |words: &[&str]| {
        let known = words.iter().any(|known| value.eq_ignore_ascii_case(known.as_bytes()));
        let refusal = Refusal::syntax("not possible here:", value, found);
        if known { Ok(Client::Nothing) } else { Err(refusal) }
    };
    Ok(match found.name {
        "id" => Client::Id,
        "getname" => Client::GetName,
        "setname" => Client::SetName(client_name(value)?),
        "info" => Client::Info,
        "list" => Client::List,
        "reply" => one_of(&["ON"])?,
        "setinfo" if value.eq_ignore_ascii_case(b"LIB-NAME") => {
            Client::LibraryName(client_name(word(args, 3))?)
        }
        "setinfo" if value.eq_ignore_ascii_case(b"LIB-VER") => {
            Client::LibraryVersion(client_name(word(args, 3))?)
        }
        "setinfo" => return Err(Refusal::syntax(UNKNOWN, value, found)),
        _ => one_of(&["ON", "OFF"])?,
    })
}

pub(super) fn select(index: &[u8]) -> Result<'_, Request<'_>> {
    match decimal(index) {
        Some(0) => Ok(Request::Select),
        Some(_) => Err(Refusal::plain(Code::Err, "DB index is out of range: there is only 0")),
        None => Err(Refusal::plain(Code::Err, "value is not an integer or out of range")),
    }
}

pub(super) fn config<'a>(spec: &'static Spec, args: ArgList<'a>) -> Result<'a, Request<'a>> {
    subcommand(spec, args).map(|_| Request::ConfigGet(args.from(2)))
}

pub(super) fn describe<'a>(spec: &'static Spec, args: ArgList<'a>) -> Result<'a, Describe<'a>> {
    if args.len() == 1 {
        return Ok(Describe::All);
    }
    let found = subcommand(spec, args)?;
    let rest = args.from(2);
    Ok(match found.name {
        "count" => Describe::Count,
        "info" => Describe::Info(rest),
        "docs" => Describe::Docs(rest),
        "getkeys" => Describe::GetKeys(rest),
        _ if rest.is_empty() => Describe::List,
        _ => {
            let filter = word(rest, 1);
            if rest.len() != 3 || !word(rest, 0).eq_ignore_ascii_case(b"FILTERBY") {
                return Err(Refusal::syntax(UNKNOWN, word(rest, 0), found));
            }
            if filter.eq_ignore_ascii_case(b"PATTERN") {
                Describe::ListPattern(word(rest, 2))
            } else if filter.eq_ignore_ascii_case(b"ACLCAT") {
                Describe::ListCategory(word(rest, 2))
            } else if filter.eq_ignore_ascii_case(b"MODULE") {
                Describe::ListModule
            } else {
                return Err(Refusal::syntax(UNKNOWN, filter, found));
            }
        }
    })
}

pub(super) fn cluster<'a>(spec: &'static Spec, args: ArgList<'a>) -> Result<'a, Cluster> {
    Ok(match subcommand(spec, args)?.name {
        "slots" => Cluster::Slots,
        "shards" => Cluster::Shards,
        "keyslot" => Cluster::KeySlot(Slot::of(word(args, 2))),
        "info" => Cluster::Info,
        "myid" => Cluster::MyId,
        "nodes" => Cluster::Nodes,
        _ => Cluster::CountKeysInSlot(slot(word(args, 2))?),
    })
}

const _: () = assert!(ADDRESS_BYTES_MAX == 255 && METADATA_BYTES_MAX == 256, "an error says so");
const _: () = assert!("NAMES".len() == 5 && REGISTER_OPTIONS[0].len() == 4);
const _: () = assert!(REGISTER_OPTIONS[1].len() == 10 && REGISTER_OPTIONS.len() == 2);
const _: () = assert!(VALUE_BYTES_MAX == 512, "errors say so");
