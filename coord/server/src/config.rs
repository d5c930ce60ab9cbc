//! Configuration: what was typed, in a file or as flags, becomes what was checked.
//!
//! A [`Draft`] holds texts and where each came from (a line of a file, a flag, nothing); `check`
//! turns them into a [`Config`] without an `Option` in it, or into an error that names the place
//! and says what to do. A flag beats the file, the file beats the default.
//!
//! Invariants:
//! - F1  A `Config` that exists is safe to serve: the wire is plain, so a listener beyond loopback
//!   has credentials and its operator has said that he knows; the admin endpoint is local.
//! - F2  [`Config::to_toml`] reads back into the same `Config`.
//!
//! Bounds: a file of at most 64 KiB.
//! Not here: the flags themselves (`tools/ringway`), what is in the credentials file
//! (`credentials.rs`), whether a port is free (found out by binding it).
//! Tests: the texts of all errors, below; `tools/fuzz` reads files.

mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ringway_core::Span;
use ringway_core::limits::{LEASE_MIN, LEASE_MIN_LAN, SHARDS_MAX};
use thiserror::Error;

use crate::shares::Shares;
use value::Wanted;

/// Bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// The longest lease that can be configured: a day.
const LEASE_MAX_MS: u64 = 86_400_000;
/// The longest drain that can be configured: an hour.
const DRAIN_MAX_MS: u64 = 3_600_000;

/// Declares every key once: its name, its flag, its default, and what it takes.
macro_rules! keys {
    ($($key:ident $name:literal $flag:literal $default:literal $wanted:expr, $doc:literal;)+) => {
        /// A key of the configuration file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Key {
            $(#[doc = $doc] $key,)+
        }

        impl Key {
            /// All of them, in the order in which they are printed.
            pub const ALL: &[Key] = &[$(Key::$key,)+];

            /// As the file spells it.
            pub const fn name(self) -> &'static str {
                match self { $(Key::$key => $name,)+ }
            }

            /// As the command line spells it.
            pub const fn flag(self) -> &'static str {
                match self { $(Key::$key => $flag,)+ }
            }

            /// What it means.
            pub const fn doc(self) -> &'static str {
                match self { $(Key::$key => $doc,)+ }
            }

            /// What it is if nobody says anything; empty if that depends on the host.
            pub const fn default_text(self) -> &'static str {
                match self { $(Key::$key => $default,)+ }
            }

            /// The key of that name in a file.
            fn named(name: &str) -> Option<Key> {
                Key::ALL.iter().copied().find(|key| key.name() == name)
            }

            /// What it takes, as the end of "it takes ...".
            const fn wanted(self) -> &'static str {
                match self { $(Key::$key => $wanted,)+ }
            }
        }
    };
}

keys! {
    Listen "listen" "--listen" "127.0.0.1:7400"
        "an address and a port, for example \"127.0.0.1:7400\" or \"[::1]:7400\"",
        "Where clients connect, natively and with RESP";
    Shards "shards" "--shards" "auto"
        "\"auto\" (one for each core) or a number from 1 to 128",
        "Threads that own slots, one for each core";
    OwnPorts "own_ports" "--own-ports" "true"
        "true or false",
        "Let every shard also listen on a port of its own: the listen port + 1 + the shard";
    State "state_dir" "--state" ""
        "a directory, or \"temporary\" for one that is removed at the end",
        "Where the epoch and the longest lease are kept";
    MaxMemory "max_memory" "--max-memory" "80%"
        "a share of this host's memory (\"80%\"), or a size (\"12GiB\", \"500MB\", bytes)",
        "Memory that the server may use before it answers FULL";
    MaxLease "max_lease_ms" "--max-lease-ms" "30000"
        "milliseconds, from the profile's shortest lease to 86400000 (a day)",
        "The longest lease that a session may ask for; what an unclean restart may have to wait";
    Profile "profile" "--profile" "lan"
        "\"lan\", \"vm\" or \"wan\"",
        "How soon silence means trouble; lan also allows leases from 10 ms on";
    Admin "admin" "--admin" "127.0.0.1:7480"
        "a loopback address and a port, \"unix:/path/to/socket\", or \"off\"",
        "Where /metrics, /healthz and /shards are answered";
    Credentials "credentials" "--credentials" "off"
        "a file that `ringway credentials add` has written, or \"off\"",
        "Who may connect, and to which namespaces";
    Tunnel "tunnel" "--tunnel" "off"
        "the file of one side of a tunnel, as `ringway tunnel --config` takes it, or \"off\"",
        "A tunnel that runs on the same shards";
    Quotas "quotas" "--quotas" ""
        "namespaces with the names that each may have, for example \"orders=1000000, jobs=500\"",
        "How many names a namespace may have: what stands before the first / of a name";
    AllowPlainRemote "allow_plain_remote" "--allow-plain-remote" "false"
        "true or false",
        "Listen beyond loopback although names and tokens can be read on the way";
    Pin "pin" "--pin" "auto"
        "\"auto\" (where there is a core for each shard), true or false",
        "Tie every shard to a core";
    Spin "spin" "--spin" "auto"
        "\"auto\" (where a core is left for others), true or false",
        "Let a shard look for work for some microseconds before it sleeps";
    LogLevel "log_level" "--log-level" "info"
        "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        "What is logged";
    LogFormat "log_format" "--log-format" "text"
        "\"text\" or \"json\"",
        "How it is logged";
    Drain "drain_ms" "--drain-ms" "5000"
        "milliseconds, at most 3600000 (an hour)",
        "How long a stop may take to answer what was asked and close the connections";
}

/// What the service promises about time; see the documentation of failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// One site, real machines.
    Lan,
    /// One site, virtual machines that may pause.
    Vm,
    /// Several sites.
    Wan,
}

impl Profile {
    /// The shortest lease that a session may ask for.
    pub const fn lease_min(self) -> Span {
        match self {
            Profile::Lan => LEASE_MIN_LAN,
            Profile::Vm | Profile::Wan => LEASE_MIN,
        }
    }
}

/// Where the state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatePlace {
    /// In this directory.
    Dir(PathBuf),
    /// In a new directory that is removed at the end: tokens start over every time.
    Temporary,
}

/// Where the admin endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminPlace {
    /// Nowhere.
    Off,
    /// On a loopback address.
    Tcp(SocketAddr),
    /// On a socket file.
    Unix(PathBuf),
}

/// Who may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever reaches the port; only on loopback.
    Anyone,
    /// Who is in this file.
    Users(PathBuf),
}

/// What else runs on the shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nothing.
    Nothing,
    /// The side of a tunnel that this file describes.
    Tunnel(PathBuf),
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What stops the service.
    Error,
    /// What will, or what it works around.
    Warn,
    /// Starts, stops, and what an operator did.
    Info,
    /// Connections.
    Debug,
    /// Frames.
    Trace,
}

/// How it is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// The checked configuration of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// How many shards: 1 to 128.
    pub shards: usize,
    /// Whether every shard also listens on `listen.port() + 1 + shard`.
    pub own_ports: bool,
    /// Where the state is kept.
    pub state: StatePlace,
    /// Memory that the server may use, in bytes.
    pub memory_bytes_max: u64,
    /// The longest lease.
    pub lease_max: Span,
    /// What is promised about time.
    pub profile: Profile,
    /// Where the admin endpoint listens.
    pub admin: AdminPlace,
    /// Who may connect.
    pub access: Access,
    /// What else runs on the shards.
    pub beside: Beside,
    /// Namespaces, and how many names each may have.
    pub quotas: Vec<(String, u64)>,
    /// The operator knows that the wire is plain.
    pub allow_plain_remote: bool,
    /// Whether shards are tied to cores.
    pub pin: bool,
    /// Whether an idle shard spins a little before it sleeps.
    pub spin: bool,
    /// What is logged.
    pub log_level: LogLevel,
    /// How it is logged.
    pub log_format: LogFormat,
    /// How long a stop may take.
    pub drain: Span,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A flag of the command line.
    Flag,
    /// A line of a file.
    File {
        /// The file.
        path: PathBuf,
        /// Counted from one.
        line: usize,
    },
}

/// A place to complain about: `ringway.toml:3: shards`, `--shards`, or `shards`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    key: Key,
    origin: Origin,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => write!(f, "{} (by default)", self.key.name()),
            Origin::Flag => f.write_str(self.key.flag()),
            Origin::File { path, line } => {
                write!(f, "{}:{line}: {}", path.display(), self.key.name())
            }
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is far too long to be one.
    #[error("{0} is larger than 64 KiB: this is not a configuration of ringway")]
    TooLong(PathBuf),
    /// It is not TOML.
    #[error("{path}:{line}: {message}")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Counted from one.
        line: usize,
        /// What the parser said.
        message: String,
    },
    /// A key that we do not have.
    #[error("{path}:{line}: there is no key {key:?}{hint}", hint = hint(*.meant))]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// Counted from one.
        line: usize,
        /// What it says.
        key: String,
        /// What it may mean.
        meant: Option<Key>,
    },
    /// A value that the key does not take.
    #[error("{at} is {given:?}, but it takes {wanted}", wanted = .at.key.wanted())]
    Value {
        /// Where.
        at: At,
        /// What it says.
        given: String,
    },
    /// No place for the state.
    #[error(
        "there is no place for the state: neither XDG_STATE_HOME nor HOME is set. Name a directory \
         with --state, or use --state temporary if tokens may start over at every start"
    )]
    NoStatePlace,
    /// More shards than cores.
    #[error(
        "{at} asks for {shards} shards, but this process may use {cores} cores: ask for at most \
         that many, or let shards share cores with pin = false (slower)"
    )]
    FewCores {
        /// Where.
        at: At,
        /// How many were asked for.
        shards: usize,
        /// How many there are.
        cores: usize,
    },
    /// The memory is not enough to start, or more than there is.
    #[error(
        "{at} is {bytes} bytes, but {shards} shards need at least {least} ({}MiB) and this host \
         has {most}: give it more, or start fewer shards",
        least >> 20
    )]
    Memory {
        /// Where.
        at: At,
        /// What was asked for.
        bytes: u64,
        /// For how many shards.
        shards: usize,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// The shards' own ports do not fit behind the listen port.
    #[error(
        "{at} leaves no room for the shards' own ports ({listen} + 1 to + {shards} would pass \
         65535): choose a smaller port, or own_ports = false"
    )]
    NoRoomForPorts {
        /// Where.
        at: At,
        /// The port.
        listen: u16,
        /// How many follow.
        shards: usize,
    },
    /// Two listeners on one port.
    #[error(
        "{at}: port {port} is also that of the listener or of one of the {shards} shards' own \
         ports behind it: choose another one"
    )]
    PortClash {
        /// Where.
        at: At,
        /// The port.
        port: u16,
        /// How many shards there are.
        shards: usize,
    },
    /// The admin endpoint would be reachable.
    #[error(
        "{at} is {addr}, which others can reach: the endpoint asks for no password. Use a loopback \
         address or \"unix:/path\", and a proxy with authentication in front of it"
    )]
    AdminNotLocal {
        /// Where.
        at: At,
        /// What it says.
        addr: SocketAddr,
    },
    /// The listener would be reachable, and the operator has not said that he knows.
    #[error(
        "{at} is {addr}, which others can reach, and the wire is plain. That needs both:{missing}"
    )]
    PlainRemote {
        /// Where.
        at: At,
        /// What it says.
        addr: SocketAddr,
        /// What is not there yet.
        missing: Missing,
    },
}

impl ConfigError {
    /// True if the host lacks something, false if the words were wrong.
    pub fn is_hosts_doing(&self) -> bool {
        use ConfigError::{FewCores, Memory, NoStatePlace, Read};
        matches!(self, FewCores { .. } | Memory { .. } | NoStatePlace | Read { .. })
    }
}

/// What a remote listener lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// A file of users.
    pub credentials: bool,
    /// The operator's word.
    pub consent: bool,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, missing: bool, text: &str| {
            write!(f, "\n  - {text} ({})", if missing { "missing" } else { "given" })
        };
        line(f, self.credentials, "credentials = \"FILE\", made by `ringway credentials add`")?;
        line(f, self.consent, "allow_plain_remote = true, if the network between is yours alone")
    }
}

fn hint(meant: Option<Key>) -> String {
    match meant {
        Some(key) => format!("; did you mean {:?}?", key.name()),
        None => {
            let all: Vec<_> = Key::ALL.iter().map(|key| key.name()).collect();
            format!("; there are: {}", all.join(", "))
        }
    }
}

/// What the host offers. An argument of the check, so that tests can be other hosts.
#[derive(Clone, Debug)]
pub struct Host {
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory that it may use, in bytes.
    pub memory_bytes: u64,
    /// Where programs keep state: `XDG_STATE_HOME`, or `.local/state` of `HOME`.
    pub state_home: Option<PathBuf>,
}

impl Host {
    /// This host.
    pub fn probe() -> Host {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let home = || absolute("HOME").map(|home| home.join(".local/state"));
        Host {
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            memory_bytes: value::memory_bytes(Path::new("/")),
            state_home: absolute("XDG_STATE_HOME").or_else(home),
        }
    }
}

/// What was typed.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    values: BTreeMap<Key, (String, Origin)>,
}

impl Draft {
    /// Takes a value from the command line.
    pub fn flag(&mut self, key: Key, value: impl Into<String>) {
        self.values.insert(key, (value.into(), Origin::Flag));
    }

    /// Takes what the file says, except where a flag has spoken.
    pub fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let read = std::fs::File::open(path).and_then(|file| {
            let mut text = String::new();
            file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map(|_| text)
        });
        let text = read.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(ConfigError::TooLong(path.to_owned()));
        }
        self.read_text(&text, path)
    }

    /// Takes what the text of a file says, except where a flag has spoken.
    pub fn read_text(&mut self, text: &str, path: &Path) -> Result<(), ConfigError> {
        let line_of = |at: usize| 1 + text[..at.min(text.len())].matches('\n').count();
        let table = toml::de::DeTable::parse(text).map_err(|error| {
            let line = line_of(error.span().map_or(0, |span| span.start));
            // The parser guesses what was meant; the key knows.
            let name = text.lines().nth(line - 1).and_then(|line| line.split_once('='));
            let key = name.and_then(|(name, _)| Key::named(name.trim()));
            let takes = key.map(|key| format!("; {} takes {}", key.name(), key.wanted()));
            let message = format!("{}{}", error.message(), takes.unwrap_or_default());
            ConfigError::Syntax { path: path.to_owned(), line, message }
        })?;
        for (name, given) in table.get_ref() {
            let line = line_of(name.span().start);
            let name: &str = name.get_ref();
            let Some(key) = Key::named(name) else {
                let meant = value::nearest(name);
                let (path, key) = (path.to_owned(), name.to_owned());
                return Err(ConfigError::UnknownKey { path, line, key, meant });
            };
            let origin = Origin::File { path: path.to_owned(), line };
            let Some(text) = value::text_of(given.get_ref()) else {
                let at = At { key, origin };
                let given = given.get_ref().type_str().to_owned();
                return Err(ConfigError::Value { at, given });
            };
            self.values.entry(key).or_insert((text, origin));
        }
        Ok(())
    }

    /// Checks everything against everything else and against the host.
    pub fn check(&self, host: &Host) -> Result<Config, ConfigError> {
        let listen: SocketAddr = self.get(Key::Listen)?;
        let own_ports = self.get(Key::OwnPorts)?;
        let (shards, pin, spin) = self.placement(host)?;
        let profile: Profile = self.get(Key::Profile)?;
        let config = Config {
            listen,
            shards,
            own_ports,
            state: self.state(host)?,
            memory_bytes_max: self.memory(host, shards)?,
            lease_max: self.lease_max(profile)?,
            profile,
            admin: self.get(Key::Admin)?,
            access: self.access()?,
            beside: self.beside()?,
            quotas: self.get::<value::QuotaList>(Key::Quotas)?.0,
            allow_plain_remote: self.get(Key::AllowPlainRemote)?,
            pin,
            spin,
            log_level: self.get(Key::LogLevel)?,
            log_format: self.get(Key::LogFormat)?,
            drain: Span::from_ms(self.within(Key::Drain, 0, DRAIN_MAX_MS)?),
        };
        self.check_ports(&config)?;
        self.check_reach(&config)?;
        Ok(config)
    }

    fn placement(&self, host: &Host) -> Result<(usize, bool, bool), ConfigError> {
        let auto = |key: Key| self.text(key) == "auto";
        let cores = host.cores.clamp(1, SHARDS_MAX);
        let shards = match auto(Key::Shards) {
            true => cores,
            false => self.within(Key::Shards, 1, SHARDS_MAX as u64)? as usize,
        };
        let pin = if auto(Key::Pin) { true } else { self.get(Key::Pin)? };
        if shards > host.cores && pin {
            let (at, cores) = (self.at(Key::Shards), host.cores);
            return Err(ConfigError::FewCores { at, shards, cores });
        }
        let spin = if auto(Key::Spin) { pin && shards < host.cores } else { self.get(Key::Spin)? };
        Ok((shards, pin, spin))
    }

    fn state(&self, host: &Host) -> Result<StatePlace, ConfigError> {
        match self.text(Key::State) {
            "" => match &host.state_home {
                Some(home) => Ok(StatePlace::Dir(home.join("ringway"))),
                None => Err(ConfigError::NoStatePlace),
            },
            "temporary" => Ok(StatePlace::Temporary),
            dir => Ok(StatePlace::Dir(self.path(Key::State, dir))),
        }
    }

    fn access(&self) -> Result<Access, ConfigError> {
        match self.text(Key::Credentials) {
            "off" => Ok(Access::Anyone),
            "" => Err(self.wrong(Key::Credentials)),
            file => Ok(Access::Users(self.path(Key::Credentials, file))),
        }
    }

    fn beside(&self) -> Result<Beside, ConfigError> {
        match self.text(Key::Tunnel) {
            "off" => Ok(Beside::Nothing),
            "" => Err(self.wrong(Key::Tunnel)),
            file => Ok(Beside::Tunnel(self.path(Key::Tunnel, file))),
        }
    }

    /// A path in a file is meant from where the file is, not from where the server was started.
    fn path(&self, key: Key, text: &str) -> PathBuf {
        match self.values.get(&key) {
            Some((_, Origin::File { path, .. })) => {
                path.parent().unwrap_or(Path::new("")).join(text)
            }
            _ => PathBuf::from(text),
        }
    }

    fn memory(&self, host: &Host, shards: usize) -> Result<u64, ConfigError> {
        let text = self.text(Key::MaxMemory);
        let bytes = value::memory(text, host.memory_bytes);
        let bytes = bytes.ok_or_else(|| self.wrong(Key::MaxMemory))?;
        let (least, most) = (Shares::least(shards), host.memory_bytes);
        if bytes < least || bytes > most {
            let at = self.at(Key::MaxMemory);
            return Err(ConfigError::Memory { at, bytes, shards, least, most });
        }
        Ok(bytes)
    }

    fn lease_max(&self, profile: Profile) -> Result<Span, ConfigError> {
        let least_ms = profile.lease_min().as_ms_ceil();
        Ok(Span::from_ms(self.within(Key::MaxLease, least_ms, LEASE_MAX_MS)?))
    }

    fn check_ports(&self, config: &Config) -> Result<(), ConfigError> {
        let (listen, shards) = (config.listen.port(), config.shards);
        let behind = if config.own_ports { shards } else { 0 };
        if listen == 0 {
            return Ok(());
        }
        if usize::from(listen) + behind > usize::from(u16::MAX) {
            return Err(ConfigError::NoRoomForPorts { at: self.at(Key::Listen), listen, shards });
        }
        if let AdminPlace::Tcp(addr) = config.admin
            && (listen..=listen + behind as u16).contains(&addr.port())
        {
            let (at, port) = (self.at(Key::Admin), addr.port());
            return Err(ConfigError::PortClash { at, port, shards });
        }
        Ok(())
    }

    /// F1.
    fn check_reach(&self, config: &Config) -> Result<(), ConfigError> {
        if let AdminPlace::Tcp(addr) = config.admin
            && !addr.ip().to_canonical().is_loopback()
        {
            return Err(ConfigError::AdminNotLocal { at: self.at(Key::Admin), addr });
        }
        let missing = Missing {
            credentials: config.access == Access::Anyone,
            consent: !config.allow_plain_remote,
        };
        let local = config.listen.ip().to_canonical().is_loopback();
        if !local && (missing.credentials || missing.consent) {
            let (at, addr) = (self.at(Key::Listen), config.listen);
            return Err(ConfigError::PlainRemote { at, addr, missing });
        }
        Ok(())
    }

    fn text(&self, key: Key) -> &str {
        self.values.get(&key).map_or(key.default_text(), |(text, _)| text)
    }

    fn at(&self, key: Key) -> At {
        let origin = self.values.get(&key).map_or(Origin::Default, |(_, origin)| origin.clone());
        At { key, origin }
    }

    fn wrong(&self, key: Key) -> ConfigError {
        ConfigError::Value { at: self.at(key), given: self.text(key).to_owned() }
    }

    fn get<T: Wanted>(&self, key: Key) -> Result<T, ConfigError> {
        T::from_text(self.text(key)).ok_or_else(|| self.wrong(key))
    }

    fn within(&self, key: Key, least: u64, most: u64) -> Result<u64, ConfigError> {
        let number: u64 = self.get(key)?;
        if (least..=most).contains(&number) { Ok(number) } else { Err(self.wrong(key)) }
    }
}

impl Config {
    /// The effective configuration, every key with what it means, as a file.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for &key in Key::ALL {
            let value = self.value(key);
            text.push_str(&format!("# {}.\n{} = {value}\n", key.doc(), key.name()));
        }
        text
    }

    fn value(&self, key: Key) -> String {
        let quoted = |text: &dyn fmt::Display| toml::Value::String(text.to_string()).to_string();
        match key {
            Key::Listen => quoted(&self.listen),
            Key::Shards => self.shards.to_string(),
            Key::OwnPorts => self.own_ports.to_string(),
            Key::State => match &self.state {
                StatePlace::Dir(dir) => quoted(&value::absolute(dir).display()),
                StatePlace::Temporary => quoted(&"temporary"),
            },
            Key::MaxMemory => self.memory_bytes_max.to_string(),
            Key::MaxLease => self.lease_max.as_ms_ceil().to_string(),
            Key::Profile => quoted(&value::word(&self.profile)),
            Key::Admin => quoted(&self.admin),
            Key::Credentials => match &self.access {
                Access::Anyone => quoted(&"off"),
                Access::Users(file) => quoted(&value::absolute(file).display()),
            },
            Key::Tunnel => match &self.beside {
                Beside::Nothing => quoted(&"off"),
                Beside::Tunnel(file) => quoted(&value::absolute(file).display()),
            },
            Key::Quotas => quoted(&value::quotas_text(&self.quotas)),
            Key::AllowPlainRemote => self.allow_plain_remote.to_string(),
            Key::Pin => self.pin.to_string(),
            Key::Spin => self.spin.to_string(),
            Key::LogLevel => quoted(&value::word(&self.log_level)),
            Key::LogFormat => quoted(&value::word(&self.log_format)),
            Key::Drain => self.drain.as_ms_ceil().to_string(),
        }
    }
}

impl fmt::Display for AdminPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminPlace::Off => f.write_str("off"),
            AdminPlace::Tcp(addr) => addr.fmt(f),
            AdminPlace::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
