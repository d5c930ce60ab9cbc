//! From words to meaning: the arguments of one command become a typed request, every option
//! checked, nothing copied.
//!
//! Always true:
//! - A [`Request`] is well-formed: names have 1 to 255 bytes, numbers are in range, secrets have
//!   their length. What the engine may still refuse is what only it can know.
//! - A [`Refusal`] changes nothing and names what was wrong and what to send instead.
//! - Options are words in any case, in any order, each at most once; anything else is refused.
//!
//! Bounds: linear in the arguments, no allocation.
//! Not here: who may do it, whether names exist (`engine`); the options themselves (`options`).
//! Tests: below and in `options`.

use core::fmt;

use ringway_core::limits::{ADDRESS_BYTES_MAX, FRAME_OPS_MAX, NAME_BYTES_MAX};
use ringway_core::{NodeId, Secret, SessionId, ShardId, Slot, Span, Token};

use super::catalog::{Spec, entry};
use super::encode::{Code, Version};
use super::options;
use super::parse::ArgList;
use super::scripts::{Digest, Script, Unit};
use super::verb::{Verb, find};

/// One or more names, each of 1 to 255 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a>(ArgList<'a>);

impl<'a> Names<'a> {
    /// Checks every name.
    #[inline]
    pub(super) fn new(args: ArgList<'a>) -> Result<Names<'a>, Refusal<'a>> {
        if args.len() > FRAME_OPS_MAX {
            return Err(Refusal::plain(Code::Err, "at most 4096 names in one command"));
        }
        for name in args.iter() {
            name_of(name)?;
        }
        Ok(Names(args))
    }

    /// How many there are: at least one.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "there is always a name")]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// The only name, if there is only one; the shape of its reply differs.
    #[inline]
    pub fn single(&self) -> Option<&'a [u8]> {
        if self.0.len() == 1 { self.0.get(0) } else { None }
    }

    /// All of them in order.
    #[inline]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &'a [u8]> + ExactSizeIterator + use<'a> {
        self.0.iter()
    }
}

/// How a name may be held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// By one session.
    #[default]
    Exclusive,
    /// By any number.
    Shared,
    /// By at most so many.
    Counting(u32),
}

/// A session and the secret that proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Which session.
    pub session: SessionId,
    /// Its secret.
    pub secret: Secret,
}

/// Pairs of session and secret, checked.
#[derive(Clone, Copy)]
pub struct Proofs<'a>(pub(super) ArgList<'a>);

impl Proofs<'_> {
    /// How many there are; none means the connection's own session.
    pub const fn len(&self) -> usize {
        self.0.len() / 2
    }

    /// Whether the connection's own session is meant.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them in order.
    pub fn iter(&self) -> impl Iterator<Item = Proof> {
        (0..self.len()).filter_map(|index| {
            let (session, secret) = (self.0.get(index * 2)?, self.0.get(index * 2 + 1)?);
            options::proof(session, secret).ok()
        })
    }
}

/// It does not show the secrets.
impl fmt::Debug for Proofs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// What `SESSION.OPEN` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open<'a> {
    /// The number of the client process.
    pub node: NodeId,
    /// The lease; `None`: the server's default.
    pub lease: Option<Span>,
    /// The secret of the session to resume; `None`: a new one.
    pub secret: Option<Secret>,
    /// It ends with this connection.
    pub bare: bool,
    /// The connection is not bound to it.
    pub gateway: bool,
    /// Where others reach the client.
    pub address: &'a [u8],
    /// Anything else others should know.
    pub metadata: &'a [u8],
}

/// A message, and whom it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Send<'a> {
    /// Whom.
    pub to: SendTo<'a>,
    /// What.
    pub payload: &'a [u8],
    /// Whether the answer waits until it was handed over.
    pub receipt: bool,
    /// The name that the sender has to hold, and the token.
    pub source: Option<(&'a [u8], Token)>,
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendTo<'a> {
    /// Whoever owns this name.
    Name(&'a [u8]),
    /// This session.
    Session(SessionId),
}

/// A user and a password.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Login<'a> {
    /// Who; `default` if only a password was given.
    pub user: &'a [u8],
    /// The password.
    pub password: &'a [u8],
}

/// It does not show the password.
impl fmt::Debug for Login<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({}, ..)", self.user.escape_ascii())
    }
}

/// What `HELLO` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The version to change to; `None`: leave it.
    pub version: Option<Version>,
    /// Authenticate first; if that fails, change nothing.
    pub login: Option<Login<'a>>,
    /// The connection's name.
    pub name: Option<&'a [u8]>,
}

/// The subcommands of `CLIENT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client<'a> {
    /// The connection's number.
    Id,
    /// The connection's name.
    GetName,
    /// Names the connection; an empty name removes it.
    SetName(&'a [u8]),
    /// Notes the name of the client library.
    LibraryName(&'a [u8]),
    /// Notes its version.
    LibraryVersion(&'a [u8]),
    /// This connection as a line of text.
    Info,
    /// All connections as lines of text.
    List,
    /// An option that is accepted and means nothing here: `NO-EVICT`, `NO-TOUCH`, `REPLY ON`.
    Nothing,
}

/// The subcommands of `COMMAND`; `command` writes the replies.
#[derive(Clone, Copy, Debug)]
pub enum Describe<'a> {
    /// All entries.
    All,
    /// How many there are.
    Count,
    /// The entries of these commands; of all if there are none.
    Info(ArgList<'a>),
    /// The documentation of these commands; of all if there are none.
    Docs(ArgList<'a>),
    /// The names of all.
    List,
    /// The names that match a pattern.
    ListPattern(&'a [u8]),
    /// The names of a category.
    ListCategory(&'a [u8]),
    /// The names of a module: there are none.
    ListModule,
    /// The names of objects in a command.
    GetKeys(ArgList<'a>),
}

/// The subcommands of `CLUSTER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// Ranges of slots with their shards.
    Slots,
    /// Shards with their ranges of slots.
    Shards,
    /// A slot, computed already.
    KeySlot(Slot),
    /// Key figures as text.
    Info,
    /// The id of the shard that answers.
    MyId,
    /// Shards as lines of text.
    Nodes,
    /// How many names a slot has.
    CountKeysInSlot(Slot),
}

/// A page of names to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page<'a> {
    /// The slot to go on in.
    pub slot: Slot,
    /// The last name already seen there; empty: none.
    pub after: &'a [u8],
    /// At most so many names.
    pub count: u16,
    /// Only names that start like this.
    pub prefix: &'a [u8],
}

/// A known script with its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// Its one name.
    pub name: &'a [u8],
    /// The value that the name's is compared with.
    pub value: &'a [u8],
    /// What to do.
    pub act: Act,
    /// How the outcome is answered.
    pub script: Script,
}

/// What a script does if it may; the lengths are checked to be leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Frees the name if the value is equal.
    Delete,
    /// The lease lasts so long from now, if the value is equal.
    Expire(Span),
    /// The lease lasts so much longer, if the value is equal.
    Extend(Span),
    /// Takes the name if it is free.
    Lock(Span),
    /// As `Expire`, but takes a free name.
    LockOrExpire(Span),
}

/// One command, understood.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// Who owns these?
    Query(Names<'a>),
    /// Claim them for the connection's session.
    Register {
        /// What to claim.
        names: Names<'a>,
        /// How.
        mode: Mode,
        /// One quorum round per batch.
        replicated: bool,
    },
    /// Give them back.
    Release {
        /// What to give back.
        names: Names<'a>,
        /// Only under this token; there is one name then.
        token: Option<Token>,
    },
    /// A page of names.
    List(Page<'a>),
    /// Claim a name, or wait until it is granted.
    Wait {
        /// What to claim.
        name: &'a [u8],
        /// How.
        mode: Mode,
        /// At most so long; zero: for ever.
        ms: u32,
    },
    /// What is said about a name?
    Meta(&'a [u8]),
    /// Say something about a name.
    SetMeta {
        /// Which.
        name: &'a [u8],
        /// What.
        bytes: &'a [u8],
        /// Only if what is said now has this version; zero: if nothing is.
        version: Option<u32>,
    },
    /// Give names to another session.
    Transfer {
        /// Which session.
        to: SessionId,
        /// What to give.
        names: Names<'a>,
        /// Only under this token; there is one name then.
        token: Option<Token>,
    },
    /// Take a name from its owner, on an operator's behalf.
    Revoke {
        /// Which.
        name: &'a [u8],
        /// Who is to have it; `None`: who waits for it, or nobody.
        to: Option<SessionId>,
    },
    /// Who holds a name, and who waits for it?
    Waiters {
        /// Which.
        name: &'a [u8],
        /// At most so many of each.
        count: u16,
    },
    /// A message to whoever owns a name, or to a session.
    Send(Send<'a>),
    /// A message to all sessions.
    Broadcast {
        /// What they get.
        payload: &'a [u8],
        /// Whether to say how many got it.
        receipt: bool,
    },
    /// Tell changes of names.
    Watch {
        /// Names, or beginnings of names that end with `/`.
        filters: Names<'a>,
        /// Tell first what there is.
        snapshot: bool,
        /// Kinds of changes: a bit each, as of `watch::event::Kind`.
        kinds: u8,
    },
    /// Tell them no more.
    Unwatch(Option<Names<'a>>),
    /// Open or resume a session.
    Open(Open<'a>),
    /// Renew these sessions.
    Renew(Proofs<'a>),
    /// End a session; `None`: the connection's own.
    Close(Option<Proof>),
    /// Add this connection to a session.
    Attach(Proof),
    /// One session; `None`: the connection's own.
    Session(Option<SessionId>),
    /// The session of a node.
    Node(NodeId),
    /// A page of sessions.
    Sessions {
        /// Where to go on; zero at first.
        cursor: u64,
        /// At most so many.
        count: u16,
    },
    /// End a session on an operator's behalf.
    Kill(SessionId),
    /// Which shard has which slots.
    ShardMap,
    /// The counters of a shard.
    ShardStats(ShardId),
    /// The value of a lock, or the owner of a name.
    Get(&'a [u8]),
    /// `SET name value NX PX ms`.
    Lock {
        /// What to lock.
        name: &'a [u8],
        /// The secret of the lock: who knows it may free it.
        value: &'a [u8],
        /// For how long.
        lease: Span,
    },
    /// Free locks.
    Del(Names<'a>),
    /// How many are owned?
    Exists(Names<'a>),
    /// Let a lock last so long from now.
    Expire {
        /// Which.
        name: &'a [u8],
        /// How long.
        lease: Span,
    },
    /// For how long is it safe?
    Ttl {
        /// Which.
        name: &'a [u8],
        /// In milliseconds or seconds.
        unit: Unit,
    },
    /// A known script.
    Script(Call<'a>),
    /// `SCRIPT LOAD` of a known text: answer this digest in hexadecimal digits.
    ScriptLoad(Digest),
    /// `SCRIPT EXISTS`: for each digest 1 or 0, from `scripts::of_digest`.
    ScriptExists(ArgList<'a>),
    /// `SCRIPT FLUSH`: answer OK.
    ScriptFlush,
    /// `PONG`, or this message.
    Ping(Option<&'a [u8]>),
    /// This message.
    Echo(&'a [u8]),
    /// Change the version, authenticate, name the connection.
    Hello(Hello<'a>),
    /// Authenticate.
    Auth(Login<'a>),
    /// `CLIENT ...`.
    Client(Client<'a>),
    /// `SELECT 0`: answer OK.
    Select,
    /// Answer OK, then close.
    Quit,
    /// Make the connection as new, answer `RESET`.
    Reset,
    /// The state as text: these sections, or all.
    Info(ArgList<'a>),
    /// `COMMAND ...`: `command::reply` answers.
    Describe(Describe<'a>),
    /// `CONFIG GET` of these patterns.
    ConfigGet(ArgList<'a>),
    /// How many names are owned.
    DbSize,
    /// The time.
    Time,
    /// `CLUSTER ...`.
    Cluster(Cluster),
    /// `READONLY`, `READWRITE`, `ASKING`: answer OK.
    Accepted,
}

/// Why a command was not understood: a code and a sentence, borrowed from the command.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    code: Code,
    text: Text<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Text<'a> {
    Plain(&'static str),
    Word(&'static str, &'a [u8], &'static str),
    Syntax(&'static str, &'a [u8], &'static Spec),
    Arity(&'static Spec),
    Unknown(ArgList<'a>),
}

impl<'a> Refusal<'a> {
    pub(super) const fn plain(code: Code, text: &'static str) -> Self {
        Self { code, text: Text::Plain(text) }
    }

    pub(super) const fn word(before: &'static str, word: &'a [u8], after: &'static str) -> Self {
        Self { code: Code::Err, text: Text::Word(before, word, after) }
    }

    /// A word that the syntax has no place for, or not there.
    pub(super) const fn syntax(what: &'static str, word: &'a [u8], spec: &'static Spec) -> Self {
        Self { code: Code::Err, text: Text::Syntax(what, word, spec) }
    }

    pub(super) const fn arity(spec: &'static Spec) -> Self {
        Self { code: Code::Err, text: Text::Arity(spec) }
    }

    pub(super) const fn with(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// The first word of the error.
    pub const fn code(&self) -> Code {
        self.code
    }
}

/// Everything behind the code.
impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text {
            Text::Plain(text) => f.write_str(text),
            Text::Word(before, word, after) => write!(f, "{before} '{}'{after}", Quoted(word)),
            Text::Syntax(what, word, spec) => {
                write!(f, "{what} '{}'; syntax: {spec}", Quoted(word))
            }
            Text::Arity(spec) => {
                let container = spec.container().map_or("", |container| container.name);
                let bar = if container.is_empty() { "" } else { "|" };
                let name = spec.name;
                write!(f, "wrong number of arguments for '{container}{bar}{name}' command; ")?;
                write!(f, "syntax: {spec}")
            }
            Text::Unknown(args) => {
                let name = args.get(0).unwrap_or(&[]);
                write!(f, "unknown command '{}', with args beginning with:", Quoted(name))?;
                args.from(1).first(3).iter().try_for_each(|arg| write!(f, " '{}'", Quoted(arg)))
            }
        }
    }
}

/// What a client sent, as far as an error repeats it: one line, 64 bytes.
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.get(..64).unwrap_or(self.0);
        let more = if shown.len() < self.0.len() { "..." } else { "" };
        write!(f, "{}{more}", shown.escape_ascii())
    }
}

/// Understands one command; `args` is not empty.
#[inline]
pub fn understand<'a>(args: ArgList<'a>) -> Result<Request<'a>, Refusal<'a>> {
    let Some(verb) = args.get(0).and_then(find) else { return Err(unknown(args)) };
    let spec = entry(verb);
    if !spec.takes(args.len()) {
        return Err(Refusal::arity(spec));
    }
    // The hot ones first, inlined into the caller's loop.
    match verb {
        Verb::PortQuery => Ok(Request::Query(Names::new(args.from(1))?)),
        Verb::Get => Ok(Request::Get(name_at(args, 1)?)),
        Verb::PortRegister if options::is_plain_name(args.from(1)) => {
            let names = Names::new(args.from(1))?;
            Ok(Request::Register { names, mode: Mode::Exclusive, replicated: false })
        }
        Verb::Set => options::lock(args.from(1)),
        _ => understand_rest(verb, spec, args),
    }
}

#[inline(never)]
fn understand_rest<'a>(
    verb: Verb,
    spec: &'static Spec,
    args: ArgList<'a>,
) -> Result<Request<'a>, Refusal<'a>> {
    let rest = args.from(1);
    Ok(match verb {
        Verb::PortQuery => Request::Query(Names::new(rest)?),
        Verb::PortRegister => options::register(spec, rest)?,
        Verb::PortRelease => options::release(spec, rest)?,
        Verb::PortList => Request::List(options::list(spec, rest)?),
        Verb::PortWait => options::wait(spec, rest)?,
        Verb::PortMeta => options::meta(spec, rest)?,
        Verb::PortTransfer => options::transfer(spec, rest)?,
        Verb::PortRevoke => options::revoke(spec, rest)?,
        Verb::PortWaiters => options::waiters(spec, rest)?,
        Verb::PortSend => options::send(spec, SendTo::Name(name_at(rest, 0)?), rest.from(1))?,
        Verb::PortSendTo => {
            let to = options::session(word(rest, 0))?;
            options::send(spec, SendTo::Session(to), rest.from(1))?
        }
        Verb::PortBroadcast => options::broadcast(spec, rest)?,
        Verb::PortWatch => options::watch(spec, rest)?,
        Verb::PortUnwatch if rest.is_empty() => Request::Unwatch(None),
        Verb::PortUnwatch => Request::Unwatch(Some(Names::new(rest)?)),
        Verb::SessionOpen => Request::Open(options::open(spec, rest)?),
        Verb::SessionRenew => Request::Renew(options::proofs(spec, rest)?),
        Verb::SessionClose => Request::Close(options::optional_proof(spec, rest)?),
        Verb::SessionAttach => Request::Attach(options::proof(word(rest, 0), word(rest, 1))?),
        Verb::SessionInfo => Request::Session(options::optional_session(spec, rest)?),
        Verb::SessionNode => Request::Node(options::node(word(rest, 0))?),
        Verb::SessionList => options::sessions(spec, rest)?,
        Verb::SessionKill => Request::Kill(options::session(word(rest, 0))?),
        Verb::ShardMap => Request::ShardMap,
        Verb::ShardStats => Request::ShardStats(options::shard(word(rest, 0))?),
        Verb::Get => Request::Get(name_at(args, 1)?),
        Verb::Set => options::lock(rest)?,
        Verb::Del | Verb::Unlink => Request::Del(Names::new(rest)?),
        Verb::Exists => Request::Exists(Names::new(rest)?),
        Verb::Expire => expire(rest, Unit::S)?,
        Verb::PExpire => expire(rest, Unit::Ms)?,
        Verb::Ttl => Request::Ttl { name: name_at(rest, 0)?, unit: Unit::S },
        Verb::PTtl => Request::Ttl { name: name_at(rest, 0)?, unit: Unit::Ms },
        Verb::Eval | Verb::EvalSha => Request::Script(options::call(verb, rest)?),
        Verb::Script => options::script(spec, args)?,
        Verb::Ping if rest.len() > 1 => return Err(Refusal::arity(spec)),
        Verb::Ping => Request::Ping(rest.get(0)),
        Verb::Echo => Request::Echo(word(rest, 0)),
        Verb::Hello => Request::Hello(options::hello(spec, rest)?),
        Verb::Auth => Request::Auth(options::login(spec, rest)?),
        Verb::Client => Request::Client(options::client(spec, args)?),
        Verb::Select => options::select(word(rest, 0))?,
        Verb::Quit => Request::Quit,
        Verb::Reset => Request::Reset,
        Verb::Info => Request::Info(rest),
        Verb::Command => Request::Describe(options::describe(spec, args)?),
        Verb::Config => options::config(spec, args)?,
        Verb::DbSize => Request::DbSize,
        Verb::Time => Request::Time,
        Verb::Cluster => Request::Cluster(options::cluster(spec, args)?),
        Verb::ReadOnly | Verb::ReadWrite | Verb::Asking => Request::Accepted,
    })
}

/// Argument `index`; the number of arguments was checked.
pub(super) fn word<'a>(args: ArgList<'a>, index: usize) -> &'a [u8] {
    args.get(index).unwrap_or(&[])
}

/// Argument `index` as a name.
#[inline]
pub(super) fn name_at(args: ArgList<'_>, index: usize) -> Result<&[u8], Refusal<'_>> {
    name_of(word(args, index))
}

#[inline]
pub(super) fn name_of(name: &[u8]) -> Result<&[u8], Refusal<'_>> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Refusal::plain(Code::BadName, "a name has 1 to 255 bytes"));
    }
    Ok(name)
}

fn expire(rest: ArgList<'_>, unit: Unit) -> Result<Request<'_>, Refusal<'_>> {
    let name = name_at(rest, 0)?;
    Ok(Request::Expire { name, lease: options::lease(word(rest, 1), unit)? })
}

/// What people know from Redis and do not find here, with what to do instead.
const NOT_HERE: [(&[&str], &str); 9] = [
    (
        &["MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH"],
        "there are no transactions: send a batch in one PORT.REGISTER, or fence writes with tokens",
    ),
    (&["SETNX", "SETEX", "PSETEX", "GETSET", "GETEX", "GETDEL", "MSETNX"], SET_HELP),
    (&["KEYS", "SCAN", "RANDOMKEY"], "use PORT.LIST, which walks the slots with a cursor"),
    (&["MGET"], "use PORT.QUERY name [name ...]"),
    (
        &["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "PUBLISH"],
        "there are no channels: PORT.SEND tells who owns a name, PORT.WATCH tells of names",
    ),
    (
        &["FLUSHALL", "FLUSHDB"],
        "names belong to sessions: end them with SESSION.CLOSE or SESSION.KILL",
    ),
    (
        &["MONITOR", "DEBUG", "SLOWLOG", "LATENCY"],
        "see SHARD.STATS and the metrics on the admin address",
    ),
    (&["PERSIST"], "a lock always has a lease, so that it ends with its owner"),
    (
        &["REPLICAOF", "SLAVEOF", "SENTINEL", "FAILOVER", "WAIT"],
        "replication is not served over RESP yet",
    ),
];

/// The only form of `SET`, for those who tried another.
pub(super) const SET_HELP: &str = "the only form of SET here takes a lock: \
    SET name value NX PX milliseconds; to own names for as long as you live use PORT.REGISTER";

#[cold]
fn unknown<'a>(args: ArgList<'a>) -> Refusal<'a> {
    let name = word(args, 0);
    let known =
        |words: &[&str]| words.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
    match NOT_HERE.iter().find(|(words, _)| known(words)) {
        Some((_, help)) => Refusal::plain(Code::Unsupported, help),
        None => Refusal { code: Code::Err, text: Text::Unknown(args) },
    }
}

const _: () = assert!(FRAME_OPS_MAX == 4096, "an error says so");
const _: () = assert!(NAME_BYTES_MAX == 255 && ADDRESS_BYTES_MAX == 255, "errors say so");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::parse::{Args, next_command};
    use alloc::string::{String, ToString};

    /// What is understood of a line typed by hand: the request or the error, as text.
    fn story(line: &str) -> String {
        let input = alloc::format!("{line}\r\n").into_bytes();
        let mut args = Args::new();
        next_command(&input, &mut args).expect("well-formed");
        match understand(args.bind(&input)) {
            Ok(request) => alloc::format!("{request:?}"),
            Err(refusal) => alloc::format!("{} {refusal}", refusal.code().word()),
        }
    }

    fn assert_story(line: &str, expected: &str) {
        let got = story(line);
        assert!(got.starts_with(expected), "{line}\n  gives    {got}\n  expected {expected}");
    }

    const SECRET: &str = "000102030405060708090a0b0c0d0e0f";

    /// Names first, options last, in any order and case.
    #[test]
    fn registering() {
        for (line, expected) in [
            (
                "port.register a",
                "Register { names: Names([a]), mode: Exclusive, replicated: false }",
            ),
            (
                "PORT.REGISTER a b replicated mode counting 3",
                "Register { names: Names([a, b]), mode: Counting(3), replicated: true }",
            ),
            (
                "PORT.REGISTER NAMES 2 mode names MODE SHARED",
                "Register { names: Names([mode, names]), mode: Shared, replicated: false }",
            ),
            ("PORT.REGISTER MODE SHARED", "ERR a name is missing before 'MODE'; syntax: PORT.REG"),
            ("PORT.REGISTER NAMES", "ERR not a count of names: ''"),
            ("PORT.REGISTER NAMES 3 a b", "ERR not a count of names: '3'"),
            ("PORT.REGISTER NAMES 1 a b", "ERR unknown option 'b'"),
            ("PORT.REGISTER a MODE", "ERR a value is missing behind 'MODE'"),
            ("PORT.REGISTER a MODE some", "ERR unknown mode 'some'"),
            ("PORT.REGISTER a MODE COUNTING 0", "ERR value is not an integer or out of range: '0'"),
            ("PORT.REGISTER a REPLICATED REPLICATED", "ERR given twice: 'REPLICATED'"),
            (r#"PORT.REGISTER a """#, "BADNAME a name has 1 to 255 bytes"),
            ("PORT.REGISTER", "ERR wrong number of arguments for 'port.register' command"),
        ] {
            assert_story(line, expected);
        }
        let long = "x".repeat(256);
        assert_story(&alloc::format!("PORT.QUERY a {long}"), "BADNAME");
    }

    /// A token belongs to one name.
    #[test]
    fn releasing_and_listing() {
        for (line, expected) in [
            ("PORT.RELEASE a b", "Release { names: Names([a, b]), token: None }"),
            ("PORT.RELEASE a TOKEN 7", "Release { names: Names([a]), token: Some(Token(7)) }"),
            ("PORT.RELEASE a b TOKEN 7", "ERR TOKEN goes with one name"),
            ("PORT.RELEASE a TOKEN 07", "ERR value is not an integer"),
            ("PORT.RELEASE a TOKEN 18446744073709551616", "ERR value is not an integer"),
            ("PORT.LIST", "List(Page { slot: Slot(0), after: [], count: 100, prefix: [] })"),
            (
                "PORT.LIST PREFIX a COUNT 5 CURSOR 7:b:c",
                "List(Page { slot: Slot(7), after: [98, 58, 99], count: 5, prefix: [97] })",
            ),
            ("PORT.LIST CURSOR 0", "List(Page { slot: Slot(0), after: [], count: 100,"),
            ("PORT.LIST CURSOR 7", "ERR not a cursor: '7'"),
            ("PORT.LIST CURSOR 16384:", "ERR value is not an integer or out of range: '16384'"),
            ("PORT.LIST COUNT 4097", "ERR value is not an integer or out of range: '4097'"),
            ("PORT.LIST 7", "ERR unknown option '7'"),
        ] {
            assert_story(line, expected);
        }
    }

    /// What is for one name takes its options behind it, and says what is missing.
    #[test]
    fn waiting_and_describing() {
        let session = "00000000000000ff";
        for (line, expected) in [
            ("PORT.WAIT a 0", "Wait { name: [97], mode: Exclusive, ms: 0 }"),
            (
                "port.wait mode 4294967295 mode counting 2",
                "Wait { name: [109, 111, 100, 101], mode: Counting(2), ms: 4294967295 }",
            ),
            ("PORT.WAIT a", "ERR wrong number of arguments for 'port.wait'"),
            ("PORT.WAIT a 4294967296", "ERR value is not an integer or out of range: '4294967296'"),
            ("PORT.WAIT a MODE SHARED", "ERR value is not an integer or out of range: 'MODE'"),
            ("PORT.WAIT a 1 MODE COUNTING 65537", "ERR value is not an integer or out of range"),
            ("PORT.WAIT a 1 MODE SHARED MODE SHARED", "ERR given twice: 'MODE'"),
            ("PORT.WAIT a 1 REPLICATED", "ERR unknown option 'REPLICATED'; syntax: PORT.WAIT name"),
            ("PORT.META a", "Meta([97])"),
            ("PORT.META a SET b", "SetMeta { name: [97], bytes: [98], version: None }"),
            ("PORT.META a VERSION 7 SET ''", "SetMeta { name: [97], bytes: [], version: Some(7)"),
            ("PORT.META a VERSION 7", "ERR VERSION goes with SET"),
            ("PORT.META a SET", "ERR a value is missing behind 'SET'"),
            ("PORT.META a GET", "ERR unknown option 'GET'"),
            ("PORT.REVOKE a", "Revoke { name: [97], to: None }"),
            ("PORT.REVOKE a TO x", "ERR not a session: 'x'"),
            ("PORT.WAITERS a", "Waiters { name: [97], count: 100 }"),
            ("PORT.WAITERS a COUNT 1025", "ERR value is not an integer or out of range: '1025'"),
            ("PORT.TRANSFER ff a", "ERR not a session: 'ff'"),
        ] {
            assert_story(line, expected);
        }
        let to = alloc::format!("PORT.TRANSFER {session}");
        for (rest, expected) in [
            ("a b", "Transfer { to: SessionId(255), names: Names([a, b]), token: None }"),
            (
                "a TOKEN 7",
                "Transfer { to: SessionId(255), names: Names([a]), token: Some(Token(7))",
            ),
            (
                "NAMES 1 token",
                "Transfer { to: SessionId(255), names: Names([token]), token: None }",
            ),
            ("a b TOKEN 7", "ERR TOKEN goes with one name"),
            ("TOKEN 7", "ERR a name is missing before 'TOKEN'"),
        ] {
            assert_story(&alloc::format!("{to} {rest}"), expected);
        }
        assert_story(
            &alloc::format!("PORT.REVOKE a TO {session}"),
            "Revoke { name: [97], to: Some(SessionId(255)) }",
        );
    }

    /// A message has one target and its payload, then what it is sent with; a watch has filters.
    #[test]
    fn sending_and_watching() {
        for (line, expected) in [
            (
                "PORT.SEND a b",
                "Send(Send { to: Name([97]), payload: [98], receipt: false, source: None",
            ),
            (
                "PORT.SEND a '' TOKEN 7 RECEIPT FROM c",
                "Send(Send { to: Name([97]), payload: [], receipt: true, \
                 source: Some(([99], Token(7)))",
            ),
            (
                "PORT.SENDTO 00000000000000ff b",
                "Send(Send { to: Session(SessionId(255)), payload: [98]",
            ),
            ("PORT.SENDTO ff b", "ERR not a session: 'ff'"),
            ("PORT.SEND a", "ERR wrong number of arguments for 'port.send'"),
            ("PORT.SEND '' b", "BADNAME"),
            ("PORT.SEND a b FROM c", "ERR FROM and TOKEN go together"),
            ("PORT.SEND a b TOKEN 7", "ERR FROM and TOKEN go together"),
            ("PORT.SEND a b FROM '' TOKEN 7", "BADNAME"),
            ("PORT.SEND a b RECEIPT RECEIPT", "ERR given twice: 'RECEIPT'"),
            (
                "PORT.SEND a b c",
                "ERR unknown option 'c'; syntax: PORT.SEND name payload [RECEIPT] \
                 [FROM source TOKEN token]",
            ),
            ("PORT.BROADCAST a receipt", "Broadcast { payload: [97], receipt: true }"),
            ("PORT.BROADCAST a b", "ERR unknown option 'b'"),
            ("PORT.WATCH a b/", "Watch { filters: Names([a, b/]), snapshot: false, kinds: 15 }"),
            (
                "PORT.WATCH a KINDS waiting released snapshot",
                "Watch { filters: Names([a]), snapshot: true, kinds: 10 }",
            ),
            (
                "PORT.WATCH NAMES 1 kinds",
                "Watch { filters: Names([kinds]), snapshot: false, kinds: 15 }",
            ),
            ("PORT.WATCH a KINDS", "ERR a value is missing behind 'KINDS'"),
            (
                "PORT.WATCH a KINDS SNAPSHOT",
                "ERR unknown kind 'SNAPSHOT'; syntax: PORT.WATCH filter [filter ...]|\
                 NAMES n filter [filter ...] [SNAPSHOT] [KINDS",
            ),
            ("PORT.WATCH SNAPSHOT", "ERR a name is missing before 'SNAPSHOT'"),
            ("PORT.WATCH ''", "BADNAME"),
            ("PORT.UNWATCH", "Unwatch(None)"),
            ("PORT.UNWATCH a", "Unwatch(Some(Names([a])))"),
            ("PUBLISH a b", "UNSUPPORTED there are no channels"),
        ] {
            assert_story(line, expected);
        }
    }

    /// Secrets are checked, and never printed.
    #[test]
    fn sessions() {
        let open = alloc::format!(
            "SESSION.OPEN 9 LEASE 500 SECRET {SECRET} BARE ADDRESS 10.0.0.1:80 META x"
        );
        let expected = "Open(Open { node: NodeId(9), lease: Some(Span(500000000)), \
            secret: Some(Secret(..)), bare: true, gateway: false, address: [49,";
        assert_story(&open, expected);
        for (line, expected) in [
            ("SESSION.OPEN x", "ERR value is not an integer or out of range: 'x', a node is"),
            ("SESSION.OPEN 9 LEASE 0", "LEASE invalid expire time: '0'"),
            ("SESSION.OPEN 9 SECRET ff", "ERR a secret has 32 hexadecimal digits"),
            ("SESSION.OPEN 9 BARE GATEWAY", "ERR BARE ends a session with its connection"),
            ("SESSION.RENEW", "Renew([])"),
            ("SESSION.RENEW 00000000000000ff", "ERR wrong number of arguments for 'session.renew'"),
            ("SESSION.CLOSE", "Close(None)"),
            ("SESSION.INFO", "Session(None)"),
            ("SESSION.INFO 00000000000000fF", "Session(Some(SessionId(255)))"),
            ("SESSION.INFO ff", "ERR not a session: 'ff', it has 16"),
            ("SESSION.NODE 18446744073709551615", "Node(NodeId(18446744073709551615))"),
            ("SESSION.LIST COUNT 2 CURSOR 5", "Sessions { cursor: 5, count: 2 }"),
            ("SESSION.KILL 00000000000000ff", "Kill(SessionId(255))"),
        ] {
            assert_story(line, expected);
        }
        let pair = alloc::format!("00000000000000ff {SECRET}");
        let renew = alloc::format!("SESSION.RENEW {pair} {pair}");
        let proof = "Proof { session: SessionId(255), secret: Secret(..) }";
        assert_story(&renew, &alloc::format!("Renew([{proof}, {proof}])"));
        assert_story(&alloc::format!("SESSION.ATTACH {pair}"), &alloc::format!("Attach({proof})"));
        assert_story(&alloc::format!("SESSION.CLOSE {pair}"), "Close(Some(Proof {");
    }

    /// The lock idiom in every order that clients write it; every other form says what to use.
    #[test]
    fn set_is_a_lock() {
        let lock = "Lock { name: [107], value: [118], lease: Span(30000000000) }";
        for line in
            ["SET k v NX PX 30000", "SET k v PX 30000 NX", "set k v nx ex 30", "SET k v EX 30 NX"]
        {
            assert_story(line, lock);
        }
        for line in [
            "SET k v",
            "SET k v NX",
            "SET k v PX 30000",
            "SET k v XX PX 30000",
            "SET k v NX PX 30000 GET",
            "SET k v NX KEEPTTL",
            "SETNX k v",
            "GETSET k v",
        ] {
            assert_story(line, "UNSUPPORTED the only form of SET here takes a lock: SET name");
        }
        for (line, expected) in [
            ("SET k v NX PX", "ERR a value is missing behind 'PX'"),
            ("SET k v NX PX -1", "ERR value is not an integer or out of range: '-1'"),
            ("SET k v NX PX 0", "LEASE invalid expire time: '0'"),
            ("SET k v NX EX 5 PX 5000", "ERR given twice: 'PX'"),
            (r#"SET k "" NX PX 5000"#, "ERR the value of a lock is its owner's secret"),
            ("EXPIRE k 5", "Expire { name: [107], lease: Span(5000000000) }"),
            ("PEXPIRE k 5", "Expire { name: [107], lease: Span(5000000) }"),
            ("PEXPIRE k 5 NX", "ERR wrong number of arguments for 'pexpire'"),
            ("PTTL k", "Ttl { name: [107], unit: Ms }"),
            ("DEL a b", "Del(Names([a, b]))"),
            ("UNLINK a", "Del(Names([a]))"),
        ] {
            assert_story(line, expected);
        }
    }

    /// Scripts get their numbers checked like commands do.
    #[test]
    fn scripts_are_commands() {
        let unlock = "if redis.call('get',KEYS[1])==ARGV[1] \
            then return redis.call('del',KEYS[1]) else return 0 end";
        let extend = "a4e8783852e6b949f9ef3a97212805108459a890";
        let eval = |rest: &str| alloc::format!("EVAL \"{unlock}\" {rest}");
        let call = "Script(Call { name: [107], value: [118], act:";
        assert_story(&eval("1 k v"), &alloc::format!("{call} Delete"));
        assert_story(&eval("1 k"), "ERR this script needs the lock's value");
        assert_story(&eval("2 k l v"), "UNSUPPORTED a lock script takes one name here");
        assert_story("EVAL \"return 1\" 0", "UNSUPPORTED only known lock scripts are understood");
        let sha = |rest: &str| alloc::format!("EVALSHA {extend} 1 k v {rest}");
        assert_story(&sha("500 0"), &alloc::format!("{call} Extend(Span(500000000))"));
        assert_story(&sha("500 1"), &alloc::format!("{call} Expire(Span(500000000))"));
        assert_story(&sha("500"), "ERR this script needs");
        assert_story(&sha("x 0"), "ERR value is not an integer");
        assert_story("EVALSHA ffff 1 k v", "NOSCRIPT No matching script.");
        assert_story(&alloc::format!("SCRIPT LOAD \"{unlock}\""), "ScriptLoad([");
        assert_story("SCRIPT LOAD \"return 1\"", "UNSUPPORTED only known lock scripts");
        assert_story("SCRIPT EXISTS a b", "ScriptExists([a, b])");
        assert_story("SCRIPT FLUSH ASYNC", "ScriptFlush");
        assert_story("SCRIPT KILL", "ERR unknown subcommand 'KILL': SCRIPT has EXISTS");
    }

    /// What client libraries send when they connect.
    #[test]
    fn connecting() {
        for (line, expected) in [
            ("HELLO", "Hello(Hello { version: None, login: None, name: None })"),
            (
                "HELLO 3 AUTH u secret SETNAME n",
                "Hello(Hello { version: Some(Resp3), login: Some(Login(u, ..)), \
                 name: Some([110]) })",
            ),
            ("HELLO 4", "NOPROTO unsupported protocol version"),
            ("HELLO x", "ERR Protocol version is not an integer"),
            ("HELLO 3 AUTH u", "ERR a value is missing behind 'AUTH'"),
            ("AUTH p", "Auth(Login(default, ..))"),
            ("AUTH u p", "Auth(Login(u, ..))"),
            ("AUTH u p x", "ERR wrong number of arguments for 'auth' command"),
            ("CLIENT SETINFO LIB-NAME redis-py", "Client(LibraryName("),
            ("CLIENT SETINFO lib-ver 5.0", "Client(LibraryVersion("),
            ("CLIENT SETINFO LIB-X 5.0", "ERR unknown option 'LIB-X'; syntax: CLIENT SETINFO"),
            ("CLIENT SETNAME 'a b'", "ERR names and versions of clients have at most 64"),
            ("CLIENT NO-EVICT on", "Client(Nothing)"),
            ("CLIENT REPLY OFF", "ERR not possible here: 'OFF'; syntax: CLIENT REPLY ON"),
            ("CLIENT KILL x", "ERR unknown subcommand 'KILL': CLIENT has GETNAME"),
            ("CLIENT", "ERR wrong number of arguments for 'client' command"),
            ("SELECT 0", "Select"),
            ("SELECT 1", "ERR DB index is out of range"),
            ("CONFIG GET save", "ConfigGet([save])"),
            ("CONFIG SET a b", "ERR unknown subcommand 'SET': CONFIG has GET"),
            ("CLUSTER KEYSLOT foo", "Cluster(KeySlot(Slot(12182)))"),
            ("CLUSTER COUNTKEYSINSLOT 16384", "ERR value is not an integer or out of range"),
            ("PING", "Ping(None)"),
            ("PING a b", "ERR wrong number of arguments for 'ping' command"),
            ("MULTI", "UNSUPPORTED there are no transactions"),
            (
                "HGETALL a b c d",
                "ERR unknown command 'HGETALL', with args beginning with: 'a' 'b' 'c'",
            ),
            (r#""\x00\r\n" x"#, r"ERR unknown command '\x00\r\n', with args beginning with: 'x'"),
        ] {
            assert_story(line, expected);
        }
    }

    /// An error repeats what a client sent, but only so much of it, and on one line.
    #[test]
    fn refusals_are_short() {
        let line = alloc::format!("{} {}", "X".repeat(1000), "y".repeat(1000));
        let text = story(&line);
        assert!(text.len() < 300 && !text.contains('\n'), "{text}");
        assert!(Refusal::plain(Code::Err, "x").to_string() == "x");
    }
}
