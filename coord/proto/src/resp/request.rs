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
#[path = "request_tests.rs"]
mod tests;
