//! Arguments of `ringway load`. Each flag overrides one field of what `ringway-perf` has as its
//! default, or of the scenario that was named.

use clap::{Args, Subcommand, ValueEnum};
use ringway_perf::{
    Alphabet, Distribution, Expect, LoadSpec, MessagesSpec, Mix, Protocol, SessionsSpec,
    WatchersSpec,
};

pub(crate) const LOAD_HELP: &str = "\
Without a subcommand: a measured run of a mix of queries, registers and releases. Closed loop, each
reply makes the next request; or with --rate open loop, where what is late counts from when it was
due. A run with a reply that should not have come is an error, not a number.

Examples:
  ringway load --prefill --expect owned
  ringway load --mix query=90,register=5,release=5 --connections 64
  ringway load --frame 1 --pipeline 1 --rate 50000 --pid $(pidof ringway)
  ringway load fill --names 100M --churn-half --pid $(pidof ringway)
  ringway load sweep --doomed 1M --prefill --expect owned --rate 20000
  ringway load sessions --connections 100 --sessions 1000 --lease-ms 1000
  ringway load messages --fenced --pid $(pidof ringway)
  ringway load watchers --watchers 10000 --pid $(pidof ringway)
  ringway load compare --protocol port --frame 1 --against 127.0.0.1:6379
  ringway load scenario resp-p16 --pid $(pidof ringway) --against-pid $(pidof redis-server)";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct LoadArgs {
    #[command(subcommand)]
    pub(crate) command: Option<LoadCommand>,
    #[command(flatten)]
    pub(crate) flags: LoadFlags,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LoadCommand {
    /// Register a population, and say what a name takes in memory.
    Fill(Box<FillArgs>),
    /// End a session with many names while queries run, and say what they felt.
    #[command(after_help = "Unless told otherwise: 20000 single queries a second, open loop. The \
                            load runs twice, once with\nnothing else going on, then from the \
                            end of the session until its last name is swept.")]
    Sweep(Box<SweepArgs>),
    /// Keep many sessions alive.
    Sessions(Box<SessionsLoadArgs>),
    /// Send messages from names to names, and say how many arrive: each is looked at.
    #[command(after_help = "Nothing is to be lost: no more is on the way to a receiver than the \
                            server keeps for it, and a message\nthat was refused or dropped all \
                            the same fails the run. A receipt is answered when the message was \
                            handed over.")]
    Messages(Box<MessagesLoadArgs>),
    /// Let many watch a prefix, and one of them not read: what the others feel of it.
    Watchers(Box<WatchersLoadArgs>),
    /// Take two servers in turns, at least five times each; medians and ratios.
    Compare(Box<CompareArgs>),
    /// Run a load from a file, or one of the built-in ones.
    Scenario(ScenarioArgs),
}

/// What is spoken.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ProtocolArg {
    /// Ringway's batch protocol.
    Native,
    /// RESP with PORT.QUERY, PORT.REGISTER, PORT.RELEASE.
    Port,
    /// RESP with GET, SET NX, DEL: against Redis, or against Ringway with --px-ms.
    Keys,
}

impl From<ProtocolArg> for Protocol {
    fn from(arg: ProtocolArg) -> Protocol {
        match arg {
            ProtocolArg::Native => Protocol::Native,
            ProtocolArg::Port => Protocol::Port,
            ProtocolArg::Keys => Protocol::Keys,
        }
    }
}

/// What a queried name must be.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ExpectArg {
    /// Either is fine.
    Any,
    /// It must have an owner.
    Owned,
    /// It must have none.
    Free,
}

impl From<ExpectArg> for Expect {
    fn from(arg: ExpectArg) -> Expect {
        match arg {
            ExpectArg::Any => Expect::Any,
            ExpectArg::Owned => Expect::Owned,
            ExpectArg::Free => Expect::Free,
        }
    }
}

/// Declares flags that override fields of a spec.
macro_rules! overrides {
    (
        $name:ident of $spec:ty:
        $($(#[$meta:meta])+ $flag:ident: $type:ty => $($field:ident).+;)+
    ) => {
        /// Flags that override fields of a spec.
        #[derive(Debug, Default, Args)]
        pub(crate) struct $name {
            $($(#[$meta])+
            #[arg(long)]
            pub(crate) $flag: Option<$type>,)+
        }

        impl $name {
            /// Writes what was typed into the spec.
            pub(crate) fn apply(&self, spec: &mut $spec) {
                $(if let Some(value) = &self.$flag {
                    spec.$($field).+ = value.clone().into();
                })+
            }
        }
    };
}

overrides! { LoadFlags of LoadSpec:
    /// What the report calls this run.
    #[arg(value_name = "TEXT")]
    label: String => label;
    /// What is spoken [default: native].
    protocol: ProtocolArg => protocol;
    /// Load threads; each has connections of its own [default: 1].
    #[arg(value_name = "N")]
    threads: usize => threads;
    /// The cores to pin the threads to, one each, as 1 or 2,3 [default: not pinned].
    #[arg(value_name = "LIST", value_parser = cores)]
    cores: CoreList => cores;
    /// Connections over all threads [default: 16].
    #[arg(value_name = "N")]
    connections: usize => connections;
    /// Requests on the way on one connection at once [default: 8].
    #[arg(value_name = "N")]
    pipeline: usize => pipeline;
    /// Ops in one native frame, or names in one PORT command [default: 64].
    #[arg(value_name = "N")]
    frame: usize => frame;
    /// Open loop: ops a second over all threads, sent when due [default: closed loop].
    #[arg(value_name = "OPS", value_parser = rate)]
    rate: f64 => rate;
    /// Shares of the ops, as query=90,register=5,release=5 [default: query=100].
    #[arg(value_name = "MIX", value_parser = mix)]
    mix: Mix => mix;
    /// Names that queries pick from, as 1000000 or 100M [default: 1M].
    #[arg(value_name = "N", value_parser = count)]
    names: u64 => names.count;
    /// Bytes of a name [default: 16].
    #[arg(value_name = "BYTES")]
    name_bytes: usize => names.length;
    /// What stands in front of every name.
    #[arg(value_name = "TEXT")]
    prefix: String => names.prefix;
    /// What names are made of, binary or printable [default: binary].
    #[arg(value_parser = alphabet, value_name = "ALPHABET")]
    alphabet: Alphabet => names.alphabet;
    /// Which names are picked: uniform, sequential, zipf or zipf:0.99 [default: uniform].
    #[arg(value_name = "HOW", value_parser = distribution)]
    distribution: Distribution => names.distribution;
    /// Another seed gives other names and another order [default: 1].
    #[arg(value_name = "N")]
    seed: u64 => names.seed;
    /// Names that registers and releases work on, beside those of the queries [default: 1M].
    #[arg(value_name = "N", value_parser = count)]
    churn: u64 => churn;
    /// What the queried names must be [default: any].
    expect: ExpectArg => expect;
    /// Bytes of a value that `keys` sets [default: 16].
    #[arg(value_name = "BYTES")]
    value_bytes: usize => value_bytes;
    /// The lease of a key in milliseconds (PX).
    #[arg(value_name = "MS")]
    px_ms: u64 => px_ms;
    /// Seconds of load before measuring begins [default: 1].
    #[arg(value_name = "S")]
    warmup_s: f64 => warmup_s;
    /// Seconds of measuring [default: 10].
    #[arg(value_name = "S")]
    duration_s: f64 => duration_s;
    /// Stop after this many measured ops, if that comes first.
    #[arg(value_name = "N", value_parser = count)]
    ops: u64 => ops;
    /// Register all names of the queries before the run [default: false].
    #[arg(value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    prefill: bool => prefill;
    /// Poll without sleeping: exact latencies, but a busy core [default: true].
    #[arg(value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    spin: bool => spin;
    /// The server's process id: its CPU time and memory.
    #[arg(value_name = "PID")]
    pid: u32 => pid;
}

overrides! { SessionsFlags of SessionsSpec:
    /// What the report calls this run.
    #[arg(value_name = "TEXT")]
    label: String => label;
    /// Connections [default: 100].
    #[arg(value_name = "N")]
    connections: usize => connections;
    /// Sessions of each connection; more than one makes it a gateway [default: 1000].
    #[arg(value_name = "N")]
    sessions: usize => sessions;
    /// The lease of each session [default: 1000].
    #[arg(value_name = "MS")]
    lease_ms: u64 => lease_ms;
    /// Every session is renewed once in so many milliseconds [default: a third of the lease].
    #[arg(value_name = "MS")]
    renew_ms: u64 => renew_ms;
    /// The node of the first session; the others count up from it [default: 1].
    #[arg(value_name = "N")]
    first_node: u64 => first_node;
    /// Seconds of renewing that are measured [default: 10].
    #[arg(value_name = "S")]
    duration_s: f64 => duration_s;
    /// The core to pin the load thread to [default: not pinned].
    #[arg(value_name = "CORE")]
    core: usize => core;
    /// The server's process id: its CPU time and memory.
    #[arg(value_name = "PID")]
    pid: u32 => pid;
}

overrides! { MessagesFlags of MessagesSpec:
    /// What the report calls this run.
    #[arg(value_name = "TEXT")]
    label: String => label;
    /// Connections that send [default: 8].
    #[arg(value_name = "N")]
    senders: usize => senders;
    /// Connections that own the names and receive [default: 8].
    #[arg(value_name = "N")]
    receivers: usize => receivers;
    /// Names that are sent to; senders own as many [default: 1024].
    #[arg(value_name = "N")]
    names: usize => names;
    /// Bytes of a message [default: 64].
    #[arg(value_name = "BYTES")]
    payload_bytes: usize => payload_bytes;
    /// Messages in a frame [default: 64].
    #[arg(value_name = "N")]
    frame: usize => frame;
    /// Frames of one sender without an answer [default: 8].
    #[arg(value_name = "N")]
    pipeline: usize => pipeline;
    /// Messages on the way to one receiver, as far as the server keeps so many [default: 1024].
    #[arg(value_name = "N")]
    on_the_way: usize => on_the_way;
    /// Ask for a receipt of every message [default: false].
    #[arg(value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    receipts: bool => receipts;
    /// Send as the owner of a name, under its token [default: false].
    #[arg(value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    fenced: bool => fenced;
    /// Seconds of load before measuring begins [default: 1].
    #[arg(value_name = "S")]
    warmup_s: f64 => warmup_s;
    /// Seconds of measuring [default: 10].
    #[arg(value_name = "S")]
    duration_s: f64 => duration_s;
    /// Stop after this many messages, if that comes first.
    #[arg(value_name = "N", value_parser = count)]
    messages: u64 => messages;
    /// Poll without sleeping [default: true].
    #[arg(value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    spin: bool => spin;
    /// The core to pin the load thread to [default: not pinned].
    #[arg(value_name = "CORE")]
    core: usize => core;
    /// The server's process id: its CPU time and memory.
    #[arg(value_name = "PID")]
    pid: u32 => pid;
}

overrides! { WatchersFlags of WatchersSpec:
    /// What the report calls this run.
    #[arg(value_name = "TEXT")]
    label: String => label;
    /// Connections that watch and read [default: 10000].
    #[arg(value_name = "N")]
    watchers: usize => watchers;
    /// Changes of one round [default: 20].
    #[arg(value_name = "N")]
    changes: usize => changes;
    /// Rounds of each kind, all reading and one not [default: 5].
    #[arg(value_name = "N")]
    rounds: usize => rounds;
    /// MiB of notices that the one does not read, after the server passed it over [default: 16].
    #[arg(value_name = "MIB")]
    unread_mib: u64 => unread_mib;
    /// Seconds to wait for all to hear of a change [default: 30].
    #[arg(value_name = "S")]
    timeout_s: f64 => timeout_s;
    /// Poll without sleeping [default: true].
    #[arg(value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    spin: bool => spin;
    /// The core to pin the load thread to [default: not pinned].
    #[arg(value_name = "CORE")]
    core: usize => core;
    /// The server's process id: its CPU time and memory.
    #[arg(value_name = "PID")]
    pid: u32 => pid;
}

#[derive(Debug, Args)]
pub(crate) struct MessagesLoadArgs {
    #[command(flatten)]
    pub(crate) flags: MessagesFlags,
}

#[derive(Debug, Args)]
pub(crate) struct WatchersLoadArgs {
    #[command(flatten)]
    pub(crate) flags: WatchersFlags,
}

#[derive(Debug, Args)]
pub(crate) struct FillArgs {
    #[command(flatten)]
    pub(crate) flags: LoadFlags,
    /// Release every second name afterwards, and register as many new ones.
    #[arg(long)]
    pub(crate) churn_half: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    pub(crate) flags: LoadFlags,
    /// Names of the session that ends.
    #[arg(long, value_name = "N", value_parser = count, default_value = "1M")]
    pub(crate) doomed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct SessionsLoadArgs {
    #[command(flatten)]
    pub(crate) flags: SessionsFlags,
}

/// The other server of a comparison.
#[derive(Debug, Args)]
pub(crate) struct AgainstArgs {
    /// The other server [default: 127.0.0.1:6379].
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) against: Option<String>,
    /// What the other server is spoken to in [default: keys].
    #[arg(long, value_name = "PROTOCOL")]
    pub(crate) against_protocol: Option<ProtocolArg>,
    /// The other server's process id.
    #[arg(long, value_name = "PID")]
    pub(crate) against_pid: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    pub(crate) flags: LoadFlags,
    #[command(flatten)]
    pub(crate) against: AgainstArgs,
    /// How often each; at least five.
    #[arg(long, value_name = "N", default_value_t = ringway_perf::ROUNDS_MIN)]
    pub(crate) rounds: usize,
}

#[derive(Debug, Args)]
pub(crate) struct ScenarioArgs {
    /// A built-in scenario, or a TOML file; without it the built-in ones are listed.
    #[arg(value_name = "NAME|FILE")]
    pub(crate) scenario: Option<String>,
    /// Seconds of measuring, instead of what the scenario says.
    #[arg(long, value_name = "S")]
    pub(crate) duration_s: Option<f64>,
    /// The server's process id.
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,
    #[command(flatten)]
    pub(crate) against: AgainstArgs,
}

fn rate(text: &str) -> Result<f64, String> {
    count_f64(text).ok_or_else(|| "give ops a second, as 50000 or 1.5M".to_owned())
}

fn count(text: &str) -> Result<u64, String> {
    let whole = count_f64(text).filter(|number| number.fract() == 0.0);
    whole.map(|number| number as u64).ok_or_else(|| "give a number, as 1000000 or 100M".to_owned())
}

fn count_f64(text: &str) -> Option<f64> {
    let (digits, factor) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (&text[..at], 1e3),
        (at, 'M') => (&text[..at], 1e6),
        (at, 'G') => (&text[..at], 1e9),
        _ => (text, 1.0),
    };
    let number: f64 = digits.replace('_', "").parse().ok()?;
    let number = number * factor;
    (number.is_finite() && (0.0..=1e15).contains(&number)).then_some(number)
}

fn mix(text: &str) -> Result<Mix, String> {
    text.parse().map_err(|error: ringway_perf::ConfigError| error.to_string())
}

/// Cores to pin to.
#[derive(Clone, Debug)]
pub(crate) struct CoreList(Vec<usize>);

impl From<CoreList> for Vec<usize> {
    fn from(list: CoreList) -> Vec<usize> {
        list.0
    }
}

fn cores(text: &str) -> Result<CoreList, String> {
    let cores = text.split(',').map(|core| core.trim().parse());
    let cores = cores.collect::<Result<_, _>>();
    cores.map(CoreList).map_err(|_| "give numbers of cores, as 1 or 2,3".to_owned())
}

fn alphabet(text: &str) -> Result<Alphabet, String> {
    match text {
        "binary" => Ok(Alphabet::Binary),
        "printable" => Ok(Alphabet::Printable),
        _ => Err("give binary or printable".to_owned()),
    }
}

fn distribution(text: &str) -> Result<Distribution, String> {
    let wrong = || "give uniform, sequential, zipf or zipf:0.99".to_owned();
    match text.split_once(':') {
        None if text == "uniform" => Ok(Distribution::Uniform),
        None if text == "sequential" => Ok(Distribution::Sequential),
        None if text == "zipf" => Ok(Distribution::Zipf(0.99)),
        Some(("zipf", exponent)) => exponent.parse().map(Distribution::Zipf).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_as_people_write_them() {
        assert_eq!(count("100M"), Ok(100_000_000));
        assert_eq!(count("1.5k"), Ok(1_500));
        assert_eq!(count("1_000"), Ok(1_000));
        assert_eq!(rate("0.5"), Ok(0.5));
        for wrong in ["", "M", "1.5", "-1", "many", "1e999", "nan", "1é"] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
        assert_eq!(distribution("zipf:1.2"), Ok(Distribution::Zipf(1.2)));
        assert!(distribution("normal").is_err() && cores("one").is_err());
        assert_eq!(Vec::from(cores("2, 3").expect("two")), [2, 3]);
    }

    /// What is typed lands where it belongs, and what is not typed stays as it was.
    #[test]
    fn flags_override_their_fields() {
        let mut spec = LoadSpec::default();
        let flags = LoadFlags {
            names: Some(5),
            name_bytes: Some(24),
            rate: Some(100.0),
            prefill: Some(true),
            ..LoadFlags::default()
        };
        flags.apply(&mut spec);
        assert_eq!((spec.names.count, spec.names.length, spec.rate), (5, 24, Some(100.0)));
        assert!(spec.prefill);
        assert_eq!(spec.connections, LoadSpec::default().connections);
        let mut sessions = SessionsSpec::default();
        SessionsFlags { core: Some(1), ..SessionsFlags::default() }.apply(&mut sessions);
        assert_eq!(sessions.core, Some(1));
    }
}
