//! What every command takes, touches and does: the one source for `COMMAND`, for the check of
//! the number of arguments, and for the syntax that errors quote.
//!
//! Always true: the entries stand in the order of [`Verb`]; a test compares.
//! Not here: the meaning of options (`request`), how the entries are written out (`command`).

use core::fmt;

use super::verb::{VERBS, Verb};

/// A command, or a subcommand of one.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Which one; of a subcommand: its container.
    pub verb: Verb,
    /// Its name in lower case; of a subcommand: without the container.
    pub name: &'static str,
    /// Number of words with the name(s): exact, or if negative, at least.
    pub arity: i8,
    /// What a client should know, from [`flag`].
    pub flags: u16,
    /// Which arguments are names of objects.
    pub keys: Keys,
    /// The heading it belongs under.
    pub group: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// What it costs.
    pub complexity: &'static str,
    /// Its arguments.
    pub args: &'static [Arg],
    /// Its subcommands; then it is nothing by itself, except `COMMAND`.
    pub subcommands: &'static [Spec],
}

/// The version of the server in which all present commands appeared.
pub const SINCE: &str = "0.1.0";

/// Bits of [`Spec::flags`], and the words for them.
pub mod flag {
    /// May change something.
    pub const WRITE: u16 = 1;
    /// Changes nothing.
    pub const READ: u16 = 2;
    /// Takes constant time for each name.
    pub const FAST: u16 = 4;
    /// For operators.
    pub const ADMIN: u16 = 8;
    /// Allowed before authentication.
    pub const NO_AUTH: u16 = 16;
    /// Names are not at fixed places: ask `COMMAND GETKEYS`.
    pub const MOVABLE: u16 = 32;
    /// About the connection.
    pub const CONNECTION: u16 = 64;
    /// Its connection may have to wait for the reply.
    pub const BLOCKING: u16 = 128;

    /// The flags that Redis has a word for.
    pub const WORDS: [(u16, &str); 7] = [
        (WRITE, "write"),
        (READ, "readonly"),
        (FAST, "fast"),
        (ADMIN, "admin"),
        (NO_AUTH, "no_auth"),
        (MOVABLE, "movablekeys"),
        (BLOCKING, "blocking"),
    ];
}

/// Which words of a command are names of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// None.
    None,
    /// The first word behind the verb.
    First,
    /// All words behind the verb.
    All,
    /// Names first, then options; or `NAMES n`, then n names, then options.
    ThenOptions(&'static [&'static str]),
    /// One word, then as `ThenOptions`.
    AfterOne(&'static [&'static str]),
    /// A script, a count, then so many names.
    Counted,
}

/// One argument, as `COMMAND DOCS` describes it.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    /// What it is called.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The word that announces it, or empty.
    pub token: &'static str,
    /// It may be left out.
    pub optional: bool,
    /// There may be several.
    pub multiple: bool,
    /// Its parts, if it is a choice or a block.
    pub parts: &'static [Arg],
}

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The name of an object.
    Key,
    /// Any bytes.
    String,
    /// A decimal number.
    Integer,
    /// A pattern with `*` and `?`.
    Pattern,
    /// The token itself.
    Token,
    /// One of its parts.
    OneOf,
    /// All of its parts.
    Block,
}

impl Kind {
    /// The word for it in `COMMAND DOCS`.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Key => "key",
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Pattern => "pattern",
            Kind::Token => "pure-token",
            Kind::OneOf => "oneof",
            Kind::Block => "block",
        }
    }
}

impl Arg {
    const fn new(name: &'static str, kind: Kind, parts: &'static [Arg]) -> Arg {
        Arg { name, kind, token: "", optional: false, multiple: false, parts }
    }

    const fn behind(self, token: &'static str) -> Arg {
        Arg { token, ..self }
    }

    const fn opt(self) -> Arg {
        Arg { optional: true, ..self }
    }

    const fn many(self) -> Arg {
        Arg { multiple: true, ..self }
    }
}

const fn key(name: &'static str) -> Arg {
    Arg::new(name, Kind::Key, &[])
}
const fn text(name: &'static str) -> Arg {
    Arg::new(name, Kind::String, &[])
}
const fn int(name: &'static str) -> Arg {
    Arg::new(name, Kind::Integer, &[])
}
const fn pattern(name: &'static str) -> Arg {
    Arg::new(name, Kind::Pattern, &[])
}
const fn word(name: &'static str, token: &'static str) -> Arg {
    Arg::new(name, Kind::Token, &[]).behind(token)
}
const fn one_of(name: &'static str, parts: &'static [Arg]) -> Arg {
    Arg::new(name, Kind::OneOf, parts)
}
const fn block(name: &'static str, parts: &'static [Arg]) -> Arg {
    Arg::new(name, Kind::Block, parts)
}

impl Spec {
    const fn new(verb: Verb, name: &'static str, arity: i8, summary: &'static str) -> Spec {
        Spec {
            verb,
            name,
            arity,
            flags: 0,
            keys: Keys::None,
            group: "server",
            summary,
            complexity: "O(1)",
            args: &[],
            subcommands: &[],
        }
    }

    const fn flags(self, flags: u16) -> Spec {
        Spec { flags, ..self }
    }

    const fn keys(self, keys: Keys, complexity: &'static str) -> Spec {
        Spec { keys, complexity, ..self }
    }

    const fn group(self, group: &'static str) -> Spec {
        Spec { group, ..self }
    }

    const fn args(self, args: &'static [Arg]) -> Spec {
        Spec { args, ..self }
    }

    const fn costs(self, complexity: &'static str) -> Spec {
        Spec { complexity, ..self }
    }

    const fn with(self, subcommands: &'static [Spec]) -> Spec {
        Spec { subcommands, ..self }
    }

    /// Whether a command may have `words` words, its name(s) included.
    #[inline]
    pub const fn takes(&self, words: usize) -> bool {
        let least = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { words >= least } else { words == least }
    }

    /// The subcommand called `name`, in any case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Spec> {
        self.subcommands.iter().find(|spec| name.eq_ignore_ascii_case(spec.name.as_bytes()))
    }

    /// The container's entry, if this is a subcommand.
    pub fn container(&self) -> Option<&'static Spec> {
        let entry = entry(self.verb);
        (entry.name != self.name).then_some(entry)
    }
}

/// The entry of a verb.
#[inline]
pub fn entry(verb: Verb) -> &'static Spec {
    &CATALOG[verb as usize]
}

/// The full name as users type it, and the arguments: `PORT.QUERY name [name ...]`.
impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(container) = self.container() {
            write_upper(f, container.name)?;
            f.write_str(" ")?;
        }
        write_upper(f, self.name)?;
        self.args.iter().try_for_each(|arg| write!(f, " {arg}"))
    }
}

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.optional { "[" } else { "" })?;
        self.write_once(f)?;
        if self.multiple {
            f.write_str(" [")?;
            self.write_once(f)?;
            f.write_str(" ...]")?;
        }
        f.write_str(if self.optional { "]" } else { "" })
    }
}

impl Arg {
    fn write_once(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token)?;
        let between = if self.kind == Kind::OneOf { "|" } else { " " };
        match self.kind {
            Kind::Token => return Ok(()),
            _ if !self.token.is_empty() => f.write_str(" ")?,
            _ => {}
        }
        if self.parts.is_empty() {
            return f.write_str(self.name);
        }
        for (index, part) in self.parts.iter().enumerate() {
            f.write_str(if index > 0 { between } else { "" })?;
            write!(f, "{part}")?;
        }
        Ok(())
    }
}

fn write_upper(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| write!(f, "{}", c.to_ascii_uppercase()))
}

use flag::{ADMIN, BLOCKING, CONNECTION, FAST, MOVABLE, NO_AUTH, READ, WRITE};

const NAME: Arg = key("name");
const NAMES: Arg = key("name").many();
const PROOF: Arg = block("proof", &[text("session"), text("secret")]);
const COUNT: Arg = int("count").behind("COUNT").opt();
const EACH: &str = "O(N) with N names";
/// The options of `PORT.REGISTER`: the words that end its names.
pub const REGISTER_OPTIONS: &[&str] = &["MODE", "REPLICATED"];
/// The options of `PORT.RELEASE`.
pub const RELEASE_OPTIONS: &[&str] = &["TOKEN"];

/// The options of `PORT.TRANSFER`.
pub const TRANSFER_OPTIONS: &[&str] = &["TOKEN"];

/// The options of `PORT.WATCH`.
pub const WATCH_OPTIONS: &[&str] = &["SNAPSHOT", "KINDS"];

/// Names, plain or counted.
const SOME_NAMES: Arg =
    one_of("names", &[NAMES, block("counted", &[int("n").behind("NAMES"), NAMES])]);
const MODE: Arg = one_of(
    "mode",
    &[word("exclusive", "EXCLUSIVE"), word("shared", "SHARED"), int("holders").behind("COUNTING")],
)
.behind("MODE")
.opt();

/// What is watched: names, or beginnings of names that end with `/`.
const FILTERS: Arg = text("filter").many();
/// What a message may be sent with.
const RECEIPT: Arg = word("receipt", "RECEIPT").opt();
const FROM: Arg =
    block("from", &[key("source").behind("FROM"), int("token").behind("TOKEN")]).opt();

/// All commands, in the order of [`Verb`].
pub static CATALOG: [Spec; VERBS] = [
    Spec::new(Verb::PortQuery, "port.query", -2, "Tells who owns a name, or several.")
        .flags(READ | FAST)
        .keys(Keys::All, EACH)
        .group("port")
        .args(&[NAMES]),
    Spec::new(
        Verb::PortRegister,
        "port.register",
        -2,
        "Claims names for the connection's session.",
    )
    .flags(WRITE | FAST | MOVABLE)
    .keys(Keys::ThenOptions(REGISTER_OPTIONS), EACH)
    .group("port")
    .args(&[SOME_NAMES, MODE, word("replicated", "REPLICATED").opt()]),
    Spec::new(Verb::PortRelease, "port.release", -2, "Gives names back.")
        .flags(WRITE | FAST | MOVABLE)
        .keys(Keys::ThenOptions(RELEASE_OPTIONS), EACH)
        .group("port")
        .args(&[SOME_NAMES, int("token").behind("TOKEN").opt()]),
    Spec::new(Verb::PortList, "port.list", -1, "Lists owned names, a page at a time.")
        .flags(READ)
        .costs("O(N) with N names of the slots walked")
        .group("port")
        .args(&[
            text("slot:after").behind("CURSOR").opt(),
            COUNT,
            text("prefix").behind("PREFIX").opt(),
        ]),
    Spec::new(Verb::PortWait, "port.wait", -3, "Claims a name, or waits until it is granted.")
        .flags(WRITE | BLOCKING)
        .keys(Keys::First, "O(1)")
        .group("port")
        .args(&[NAME, int("milliseconds"), MODE]),
    Spec::new(Verb::PortMeta, "port.meta", -2, "Tells or sets what is said about an owned name.")
        .flags(WRITE | FAST)
        .keys(Keys::First, "O(1)")
        .group("port")
        .args(&[
            NAME,
            block(
                "change",
                &[text("metadata").behind("SET"), int("version").behind("VERSION").opt()],
            )
            .opt(),
        ]),
    Spec::new(Verb::PortTransfer, "port.transfer", -3, "Gives names to another session.")
        .flags(WRITE | FAST | MOVABLE)
        .keys(Keys::AfterOne(TRANSFER_OPTIONS), EACH)
        .group("port")
        .args(&[text("session"), SOME_NAMES, int("token").behind("TOKEN").opt()]),
    Spec::new(Verb::PortRevoke, "port.revoke", -2, "Takes a name from its owner, for operators.")
        .flags(WRITE | ADMIN)
        .keys(Keys::First, "O(N) with N holders")
        .group("port")
        .args(&[NAME, text("session").behind("TO").opt()]),
    Spec::new(Verb::PortWaiters, "port.waiters", -2, "Tells who holds a name and who waits.")
        .flags(READ)
        .keys(Keys::First, "O(N) with N holders and waiters shown")
        .group("port")
        .args(&[NAME, COUNT]),
    Spec::new(Verb::PortSend, "port.send", -3, "Sends a message to whoever owns a name.")
        .flags(WRITE | FAST)
        .keys(Keys::First, "O(N) with N holders")
        .group("port")
        .args(&[NAME, text("payload"), RECEIPT, FROM]),
    Spec::new(Verb::PortSendTo, "port.sendto", -3, "Sends a message to a session.")
        .flags(WRITE | FAST)
        .group("port")
        .args(&[text("session"), text("payload"), RECEIPT, FROM]),
    Spec::new(Verb::PortBroadcast, "port.broadcast", -2, "Sends a message to all sessions.")
        .flags(WRITE)
        .costs("O(N) with N sessions")
        .group("port")
        .args(&[text("payload"), RECEIPT]),
    Spec::new(Verb::PortWatch, "port.watch", -2, "Tells changes of names as pushes, in RESP3.")
        .flags(READ | CONNECTION)
        .costs("O(N) with N filters, and O(M) with M names of a snapshot")
        .group("port")
        .args(&[
            one_of("filters", &[FILTERS, block("counted", &[int("n").behind("NAMES"), FILTERS])]),
            word("snapshot", "SNAPSHOT").opt(),
            one_of(
                "kind",
                &[
                    word("acquired", "ACQUIRED"),
                    word("released", "RELEASED"),
                    word("changed", "CHANGED"),
                    word("waiting", "WAITING"),
                ],
            )
            .behind("KINDS")
            .many()
            .opt(),
        ]),
    Spec::new(Verb::PortUnwatch, "port.unwatch", -1, "Ends watches, or all of the connection.")
        .flags(READ | FAST | CONNECTION)
        .costs("O(N) with N filters")
        .group("port")
        .args(&[FILTERS.opt()]),
    Spec::new(Verb::SessionOpen, "session.open", -2, "Opens or resumes the session of a node.")
        .flags(WRITE | FAST)
        .group("session")
        .args(&[
            int("node"),
            int("milliseconds").behind("LEASE").opt(),
            text("secret").behind("SECRET").opt(),
            word("bare", "BARE").opt(),
            word("gateway", "GATEWAY").opt(),
            text("address").behind("ADDRESS").opt(),
            text("metadata").behind("META").opt(),
        ]),
    Spec::new(Verb::SessionRenew, "session.renew", -1, "Renews the lease of sessions.")
        .flags(WRITE | FAST)
        .costs("O(N) with N sessions")
        .group("session")
        .args(&[PROOF.opt().many()]),
    Spec::new(Verb::SessionClose, "session.close", -1, "Ends a session and frees its names.")
        .flags(WRITE)
        .costs("O(1), the names are freed in slices")
        .group("session")
        .args(&[PROOF.opt()]),
    Spec::new(Verb::SessionAttach, "session.attach", 3, "Adds this connection to a session.")
        .flags(WRITE | FAST)
        .group("session")
        .args(&[text("session"), text("secret")]),
    Spec::new(Verb::SessionInfo, "session.info", -1, "Shows one session.")
        .flags(READ | FAST)
        .group("session")
        .args(&[text("session").opt()]),
    Spec::new(Verb::SessionNode, "session.node", 2, "Shows the session of a node.")
        .flags(READ | FAST)
        .group("session")
        .args(&[int("node")]),
    Spec::new(Verb::SessionList, "session.list", -1, "Lists sessions, a page at a time.")
        .flags(READ)
        .costs("O(N) with N sessions returned")
        .group("session")
        .args(&[int("cursor").behind("CURSOR").opt(), COUNT]),
    Spec::new(Verb::SessionKill, "session.kill", 2, "Ends a session on an operator's behalf.")
        .flags(WRITE | ADMIN)
        .group("session")
        .args(&[text("session")]),
    Spec::new(Verb::ShardMap, "shard.map", 1, "Tells which shard decides over which slots.")
        .flags(READ)
        .costs("O(N) with N runs of slots")
        .group("shard"),
    Spec::new(Verb::ShardStats, "shard.stats", 2, "Shows the counters of a shard as JSON.")
        .flags(READ)
        .group("shard")
        .args(&[int("shard")]),
    Spec::new(Verb::Get, "get", 2, "Gives the value of a lock, or the owner of a name.")
        .flags(READ | FAST)
        .keys(Keys::First, "O(1)")
        .group("lock")
        .args(&[NAME]),
    Spec::new(Verb::Set, "set", -3, "Takes a lock for a time, if it is free.")
        .flags(WRITE | FAST)
        .keys(Keys::First, "O(1)")
        .group("lock")
        .args(&[
            NAME,
            text("value"),
            word("nx", "NX"),
            one_of("expiration", &[int("milliseconds").behind("PX"), int("seconds").behind("EX")]),
        ]),
    Spec::new(Verb::Del, "del", -2, "Frees locks.")
        .flags(WRITE)
        .keys(Keys::All, EACH)
        .group("lock")
        .args(&[NAMES]),
    Spec::new(Verb::Unlink, "unlink", -2, "Frees locks, as DEL does.")
        .flags(WRITE | FAST)
        .keys(Keys::All, EACH)
        .group("lock")
        .args(&[NAMES]),
    Spec::new(Verb::Exists, "exists", -2, "Counts how many of the names are owned.")
        .flags(READ | FAST)
        .keys(Keys::All, EACH)
        .group("lock")
        .args(&[NAMES]),
    Spec::new(Verb::Expire, "expire", 3, "Renews a lock for so many seconds from now.")
        .flags(WRITE | FAST)
        .keys(Keys::First, "O(1)")
        .group("lock")
        .args(&[NAME, int("seconds")]),
    Spec::new(Verb::PExpire, "pexpire", 3, "Renews a lock for so many milliseconds from now.")
        .flags(WRITE | FAST)
        .keys(Keys::First, "O(1)")
        .group("lock")
        .args(&[NAME, int("milliseconds")]),
    Spec::new(Verb::Ttl, "ttl", 2, "Tells for how many seconds a name is safe.")
        .flags(READ | FAST)
        .keys(Keys::First, "O(1)")
        .group("lock")
        .args(&[NAME]),
    Spec::new(Verb::PTtl, "pttl", 2, "Tells for how many milliseconds a name is safe.")
        .flags(READ | FAST)
        .keys(Keys::First, "O(1)")
        .group("lock")
        .args(&[NAME]),
    Spec::new(Verb::Eval, "eval", -3, "Does what a known lock script says.")
        .flags(WRITE | MOVABLE)
        .keys(Keys::Counted, "O(1)")
        .group("scripting")
        .args(&[text("script"), int("numkeys"), NAME.opt().many(), text("arg").opt().many()]),
    Spec::new(Verb::EvalSha, "evalsha", -3, "Does what the lock script of a SHA-1 digest says.")
        .flags(WRITE | MOVABLE)
        .keys(Keys::Counted, "O(1)")
        .group("scripting")
        .args(&[text("sha1"), int("numkeys"), NAME.opt().many(), text("arg").opt().many()]),
    Spec::new(Verb::Script, "script", -2, "Container for the script commands.")
        .group("scripting")
        .with(&[
            Spec::new(Verb::Script, "exists", -3, "Tells which digests are known.")
                .group("scripting")
                .args(&[text("sha1").many()]),
            Spec::new(Verb::Script, "flush", -2, "Does nothing: the known scripts are built in.")
                .group("scripting")
                .args(&[one_of("when", &[word("async", "ASYNC"), word("sync", "SYNC")]).opt()]),
            Spec::new(Verb::Script, "load", 3, "Gives the digest of a known lock script.")
                .group("scripting")
                .args(&[text("script")]),
        ]),
    Spec::new(Verb::Ping, "ping", -1, "Answers PONG, or the given message.")
        .flags(FAST | CONNECTION)
        .group("connection")
        .args(&[text("message").opt()]),
    Spec::new(Verb::Echo, "echo", 2, "Answers the given message.")
        .flags(FAST | CONNECTION)
        .group("connection")
        .args(&[text("message")]),
    Spec::new(Verb::Hello, "hello", -1, "Chooses RESP2 or RESP3, and authenticates.")
        .flags(FAST | NO_AUTH | CONNECTION)
        .group("connection")
        .args(&[block(
            "arguments",
            &[
                int("protover"),
                block("auth", &[text("username"), text("password")]).behind("AUTH").opt(),
                text("clientname").behind("SETNAME").opt(),
            ],
        )
        .opt()]),
    Spec::new(Verb::Auth, "auth", -2, "Authenticates the connection.")
        .flags(FAST | NO_AUTH | CONNECTION)
        .group("connection")
        .args(&[text("username").opt(), text("password")]),
    Spec::new(Verb::Client, "client", -2, "Container for the client commands.")
        .group("connection")
        .with(CLIENT),
    Spec::new(Verb::Select, "select", 2, "Accepts database 0, the only one.")
        .flags(FAST | CONNECTION)
        .group("connection")
        .args(&[int("index")]),
    Spec::new(Verb::Quit, "quit", -1, "Closes the connection.")
        .flags(FAST | NO_AUTH | CONNECTION)
        .group("connection"),
    Spec::new(Verb::Reset, "reset", 1, "Makes the connection as new: RESP2, no user, no name.")
        .flags(FAST | NO_AUTH | CONNECTION)
        .group("connection"),
    Spec::new(Verb::Info, "info", -1, "Shows the server's state as text.")
        .args(&[text("section").opt().many()]),
    Spec::new(Verb::Command, "command", -1, "Describes all commands.")
        .costs("O(N) with N commands")
        .with(COMMAND),
    Spec::new(Verb::Config, "config", -2, "Container for the configuration commands.").with(&[
        Spec::new(Verb::Config, "get", -3, "Shows settings, under the names that Redis has.")
            .flags(ADMIN)
            .args(&[pattern("parameter").many()]),
    ]),
    Spec::new(Verb::DbSize, "dbsize", 1, "Counts the owned names.").flags(READ | FAST),
    Spec::new(Verb::Time, "time", 1, "Tells the server's time.").flags(FAST),
    Spec::new(Verb::Cluster, "cluster", -2, "Container for the cluster commands.")
        .group("cluster")
        .with(CLUSTER),
    Spec::new(Verb::ReadOnly, "readonly", 1, "Accepted: every shard answers for its slots.")
        .flags(FAST | CONNECTION)
        .group("cluster"),
    Spec::new(Verb::ReadWrite, "readwrite", 1, "Accepted: undoes READONLY.")
        .flags(FAST | CONNECTION)
        .group("cluster"),
    Spec::new(Verb::Asking, "asking", 1, "Accepted: slots do not move between servers.")
        .flags(FAST | CONNECTION)
        .group("cluster"),
];

const fn client(name: &'static str, arity: i8, summary: &'static str) -> Spec {
    Spec::new(Verb::Client, name, arity, summary).flags(CONNECTION).group("connection")
}

const ON_OFF: Arg = one_of("enabled", &[word("on", "ON"), word("off", "OFF")]);

static CLIENT: &[Spec] = &[
    client("getname", 2, "Gives the connection's name."),
    client("id", 2, "Gives the connection's number."),
    client("info", 2, "Describes this connection."),
    client("list", 2, "Describes the connections of the server.").flags(ADMIN),
    client("no-evict", 3, "Accepted: no client is evicted for memory.").args(&[ON_OFF]),
    client("no-touch", 3, "Accepted: names have no age.").args(&[ON_OFF]),
    client("reply", 3, "Accepts ON, the only mode.").args(&[word("on", "ON")]),
    client("setinfo", 4, "Notes the client library's name or version.").args(&[one_of(
        "attribute",
        &[text("libname").behind("LIB-NAME"), text("libver").behind("LIB-VER")],
    )]),
    client("setname", 3, "Names the connection.").args(&[text("name")]),
];

const fn command(name: &'static str, arity: i8, summary: &'static str) -> Spec {
    Spec::new(Verb::Command, name, arity, summary)
}

static COMMAND: &[Spec] = &[
    command("count", 2, "Counts the commands."),
    command("docs", -2, "Documents commands.").args(&[text("command-name").opt().many()]),
    command("getkeys", -3, "Finds the names in a command.")
        .args(&[text("command"), text("arg").opt().many()]),
    command("info", -2, "Describes commands.").args(&[text("command-name").opt().many()]),
    command("list", -2, "Lists the names of commands.").args(&[one_of(
        "filter",
        &[
            text("module-name").behind("MODULE"),
            text("category").behind("ACLCAT"),
            pattern("pattern").behind("PATTERN"),
        ],
    )
    .behind("FILTERBY")
    .opt()]),
];

const fn cluster(name: &'static str, arity: i8, summary: &'static str) -> Spec {
    Spec::new(Verb::Cluster, name, arity, summary).group("cluster")
}

static CLUSTER: &[Spec] = &[
    cluster("countkeysinslot", 3, "Counts the owned names of a slot.").args(&[int("slot")]),
    cluster("info", 2, "Shows the state of the cluster of shards."),
    cluster("keyslot", 3, "Gives the slot of a name.").args(&[text("name")]),
    cluster("myid", 2, "Gives the id of this shard as a node."),
    cluster("nodes", 2, "Shows the shards as lines of text."),
    cluster("shards", 2, "Shows the shards with their slots."),
    cluster("slots", 2, "Shows the slots with their shards."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    /// What errors quote is generated from what `COMMAND DOCS` says, so they cannot disagree.
    #[test]
    fn syntax_reads_as_people_write_it() {
        let syntax = |verb| entry(verb).to_string();
        assert_eq!(syntax(Verb::PortQuery), "PORT.QUERY name [name ...]");
        assert_eq!(
            syntax(Verb::PortRelease),
            "PORT.RELEASE name [name ...]|NAMES n name [name ...] [TOKEN token]"
        );
        assert_eq!(syntax(Verb::Set), "SET name value NX PX milliseconds|EX seconds");
        assert_eq!(
            syntax(Verb::Hello),
            "HELLO [protover [AUTH username password] [SETNAME clientname]]"
        );
        let id = entry(Verb::Client).subcommand(b"NO-Evict").expect("known");
        assert_eq!(id.to_string(), "CLIENT NO-EVICT ON|OFF");
    }

    /// Arity counts the name; negative means at least.
    #[test]
    fn arity_is_checked() {
        assert!(entry(Verb::Get).takes(2) && !entry(Verb::Get).takes(3));
        assert!(entry(Verb::Del).takes(2) && entry(Verb::Del).takes(9));
        assert!(!entry(Verb::Del).takes(1));
    }
}
