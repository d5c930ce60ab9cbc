//! What can go wrong: what was typed ([`ConfigError`]), and what happened ([`LoadError`]).

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use ringway_client::Error as ClientError;
use thiserror::Error;

use crate::mix::Mix;
use crate::report::Report;

/// A load that makes no sense; nothing was started.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Not an address.
    #[error("target `{0}`: give host:port, as 127.0.0.1:7400")]
    Target(String),
    /// A number outside its bounds.
    #[error("{what} of {given}: give {low} to {high}")]
    Range {
        /// The setting.
        what: &'static str,
        /// What was given.
        given: f64,
        /// The least.
        low: f64,
        /// The most.
        high: f64,
    },
    /// Some threads would have no connection.
    #[error("{threads} threads for {connections} connections: every thread needs one")]
    Threads {
        /// Threads.
        threads: usize,
        /// Connections.
        connections: usize,
    },
    /// The cores to pin to do not fit the threads.
    #[error("{cores} cores for {threads} threads: list one core for each thread, or none")]
    Cores {
        /// Cores listed.
        cores: usize,
        /// Threads.
        threads: usize,
    },
    /// A mix that does not parse.
    #[error("mix `{0}`: write it as query=90,register=5,release=5")]
    Mix(String),
    /// A mix that cannot go on.
    #[error("mix `{0}`: registers and releases need equal shares, or leave releases out")]
    MixUnbalanced(Mix),
    /// No names.
    #[error("no names: give a count of at least 1")]
    NoNames,
    /// A name length.
    #[error("names of {0} bytes: give 1 to 255")]
    NameLength(usize),
    /// Not that many different names.
    #[error("{length} bytes, {prefix} of them prefix, cannot tell {names} names apart: lengthen")]
    TooFewNames {
        /// Names needed.
        names: u64,
        /// Bytes of a name.
        length: usize,
        /// Bytes of the prefix.
        prefix: usize,
    },
    /// A Zipf exponent.
    #[error("a zipf exponent of {0}: give more than 0 and at most 10, usually 0.99")]
    Zipf(f64),
    /// Keys are one a command.
    #[error("protocol keys takes one key a command: set frame to 1 and deepen the pipeline")]
    KeysFrame,
    /// Fewer names to churn than can be on the way.
    #[error("{given} names to register are too few for {connections} connections: give {need}")]
    Churn {
        /// Given.
        given: u64,
        /// Connections.
        connections: usize,
        /// The least that works.
        need: u64,
    },
    /// Sessions are native.
    #[error("sessions run over protocol native only")]
    SessionsNative,
    /// Keys have no sessions.
    #[error("a sweep needs sessions: use protocol native or port")]
    SweepKeys,
    /// A scenario file.
    #[error("scenario {name}: {source}")]
    Scenario {
        /// Which.
        name: String,
        /// Why not.
        source: Box<toml::de::Error>,
    },
    /// A file of no kind, or of several.
    #[error(
        "scenario {0}: it needs one of [load], [fill], [sweep], [sessions], [messages], \
         [watchers], or both [a] and [b]"
    )]
    ScenarioKind(String),
    /// No such built-in scenario.
    #[error("no scenario `{name}`; there are: {known}")]
    NoScenario {
        /// Asked for.
        name: String,
        /// All there are.
        known: String,
    },
    /// Too few rounds for a median that means something.
    #[error("{0} rounds: a comparison takes at least five")]
    Rounds(usize),
}

/// A run that failed.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The load makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A connection could not be made.
    #[error(
        "connection {number} to {addr}: {source}; is the server up, and its limit not reached?"
    )]
    Connect {
        /// Which of the connections.
        number: usize,
        /// The server.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The server was reached but did not let us in.
    #[error("{addr} did not take us in: {said}")]
    Greeting {
        /// The server.
        addr: SocketAddr,
        /// What it said.
        said: String,
    },
    /// Not enough file descriptors.
    #[error("{need} file descriptors needed, the hard limit is {hard}: try `ulimit -Hn {need}`")]
    Descriptors {
        /// Needed.
        need: u64,
        /// Allowed.
        hard: u64,
    },
    /// A thread cannot be pinned.
    #[error("cannot pin to core {core}: {source}; list cores that this process may use")]
    Pin {
        /// The core.
        core: usize,
        /// Why not.
        source: io::Error,
    },
    /// The connection broke during the run.
    #[error("connection {conn} to {addr} failed: {source}")]
    Io {
        /// Which of the thread's connections.
        conn: usize,
        /// The server.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The server closed a connection during the run.
    #[error("{addr} closed connection {conn} with {due} requests unanswered")]
    Closed {
        /// The server.
        addr: SocketAddr,
        /// Which of the thread's connections.
        conn: usize,
        /// Requests without a reply.
        due: usize,
    },
    /// What came is not the protocol, or does not answer what was asked.
    #[error("{addr} broke the protocol on connection {conn}: {what}")]
    Broken {
        /// The server.
        addr: SocketAddr,
        /// Which of the thread's connections.
        conn: usize,
        /// How.
        what: Broken,
    },
    /// Replies that should not have come; the report tells all statuses.
    #[error("{count} unexpected replies, the first was {first}; see the statuses in the report")]
    Unexpected {
        /// How many.
        count: u64,
        /// The first one.
        first: String,
        /// The run, as far as it went.
        report: Box<Report>,
    },
    /// Requests without replies after the time-out.
    #[error("{count} requests were not answered within {timeout_s} s after the end of the run")]
    Unanswered {
        /// How many.
        count: u64,
        /// The time-out.
        timeout_s: f64,
        /// The run, as far as it went.
        report: Box<Report>,
    },
    /// Messages that did not arrive.
    #[error(
        "of {sent} messages {received} arrived, {dropped} were dropped, and refused were \
         {refused:?}; is anybody else using the names under load/?"
    )]
    Undelivered {
        /// Sent.
        sent: u64,
        /// Arrived, each as it should.
        received: u64,
        /// Refused, by status.
        refused: BTreeMap<String, u64>,
        /// Neither.
        dropped: u64,
    },
    /// The process whose CPU time was asked for cannot be read.
    #[error("cannot read the CPU time of process {pid}: {source}; is it running?")]
    Process {
        /// Its id.
        pid: u32,
        /// Why not.
        source: io::Error,
    },
    /// The operating system refused something else.
    #[error("{doing}: {source}")]
    System {
        /// What.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A call to the server beside the load failed.
    #[error("asking the server about itself: {0}")]
    Client(#[from] ClientError),
    /// The server says nothing about its shards.
    #[error("{0} does not say how its shards do: is it Ringway, and of this release?")]
    NotRingway(SocketAddr),
    /// The names of the session that is to end could not all be registered.
    #[error(
        "a name of the session that is to end was answered {said}; give another seed or prefix"
    )]
    Doomed {
        /// What the server said.
        said: String,
    },
    /// The names of a dead session are still there.
    #[error("{left} names of the dead session are not swept after {seconds:.1} s")]
    NotSwept {
        /// How many.
        left: u64,
        /// Since its end.
        seconds: f64,
    },
    /// A thread ended without a result, which only a bug does.
    #[error("a load thread ended without a result: please report this")]
    ThreadDied,
}

impl LoadError {
    /// The report of a run that failed by its replies; `None` if it did not get that far.
    pub fn report(&self) -> Option<&Report> {
        match self {
            LoadError::Unexpected { report, .. } | LoadError::Unanswered { report, .. } => {
                Some(report)
            }
            _ => None,
        }
    }
}

/// How a server broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Broken {
    /// An impossible frame header.
    #[error("an impossible frame header")]
    Header,
    /// A reply to another request.
    #[error("frame {got} was answered where {due} was due")]
    OutOfOrder {
        /// The reply's.
        got: u64,
        /// The request's.
        due: u64,
    },
    /// Another number of replies.
    #[error("{got} replies where {due} were due")]
    Count {
        /// Came.
        got: usize,
        /// Due.
        due: usize,
    },
    /// The replies do not fill their frame.
    #[error("the replies do not fill their frame")]
    Body,
    /// Bytes that answer nothing.
    #[error("bytes that answer nothing")]
    Unasked,
    /// A message or an event that is not what was sent or done.
    #[error("a notice that {0}")]
    Message(&'static str),
    /// A notice instead of a reply: the session is gone, or the server is.
    #[error("a notice (0x{0:02X}) that ends the session or the connection")]
    Notice(u8),
    /// Not RESP.
    #[error("bytes that are not RESP (0x{0:02X})")]
    NotResp(u8),
    /// RESP nested deeper than any reply here.
    #[error("RESP arrays nested too deep")]
    Nested,
}
