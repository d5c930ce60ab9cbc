//! Arguments of `ringway tunnel`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use ringway_coord_server::config::{LogFormat, LogLevel};
use ringway_core::Span;
use ringway_tunnel_node::Target;
use ringway_tunnel_node::config::span;
use ringway_tunnel_node::policy::Rule;

use super::client::seconds;

pub(crate) const TUNNEL_HELP: &str = "\
With --config one side runs until Ctrl-C; SIGHUP reads its file again without losing a flow. It
prints one line `ready ...` on standard output when it serves; logs go to standard error.

Examples:
  ringway tunnel --config near.toml
  ringway tunnel status --config near.toml --watch
  ringway tunnel check --config near.toml";

#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct TunnelArgs {
    /// The configuration of this side. `docs/tunnel.md` has a worked example.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(subcommand)]
    pub(crate) command: Option<TunnelCommand>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// What is logged: error, warn, info, debug or trace [default: info].
    #[arg(long, value_name = "LEVEL", value_parser = log_level)]
    pub(crate) log_level: Option<LogLevel>,
    /// How it is logged: text or json [default: text].
    #[arg(long, value_name = "FORMAT", value_parser = log_format)]
    pub(crate) log_format: Option<LogFormat>,
}

impl TunnelArgs {
    /// The first flag that is for a side that is to run, if there is one.
    pub(crate) fn flag_of_run(&self) -> Option<&'static str> {
        let flags = [
            ("--config", self.config.is_some()),
            ("--log-level", self.run.log_level.is_some()),
            ("--log-format", self.run.log_format.is_some()),
        ];
        flags.into_iter().find_map(|(flag, given)| given.then_some(flag))
    }
}

fn log_level(text: &str) -> Result<LogLevel, String> {
    Ok(match text {
        "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "info" => LogLevel::Info,
        "debug" => LogLevel::Debug,
        "trace" => LogLevel::Trace,
        _ => return Err("error, warn, info, debug or trace".to_owned()),
    })
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    Ok(match text {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        _ => return Err("text or json".to_owned()),
    })
}

const STATUS_HELP: &str = "\
Exit code 0 says that every peer that this side dials is connected, 1 that one is not, 4 that no
tunnel answers; Ctrl-C ends `--watch` with 0. `limited by` is what a flow waits for at this moment:
its application, our reader, the peer's reader, its window, a carrier, the processor, or the rate
that its peer may have.

Examples:
  ringway tunnel status --config near.toml
  ringway tunnel status --config near.toml --watch
  ringway tunnel status --config near.toml --why
  ringway --json tunnel status --socket /run/ringway/near.sock --flows 1000";

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The configuration that the tunnel runs with.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Or its socket.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Again and again, each so many seconds.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          value_parser = seconds)]
    pub(crate) watch: Option<f64>,
    /// Flows of each session that are shown: those that moved most.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) flows: usize,
    /// Why carriers over UDP send as they do: rate, window and what goes again, and what was
    /// decided of late, in words. In JSON it is always there.
    #[arg(long)]
    pub(crate) why: bool,
}

const CHECK_HELP: &str = "\
Looks, in this order: are the file and its keys readable; does a tunnel run with it, and is the peer
connected there; does its name resolve; does TCP connect; does the peer answer our first message, by
the right key, in our version, at our time. What is not well comes with what to do, the likeliest
first. No session is begun, and a tunnel that runs is not disturbed. Nobody answers whom they do not
know, so silence has to be told apart at the other side: run it there, too.

Exit code 0 says that all is well, 1 that something is not. A file that `ringway tunnel --config`
does not start with ends this with the same code as that: 2 or 3.

Examples:
  ringway tunnel check --config near.toml
  ringway --json tunnel check --config near.toml --peer office";

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The configuration of this side.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Only this peer.
    #[arg(long, value_name = "NAME")]
    pub(crate) peer: Option<String>,
    /// How long the peer may take to answer, and before that to be connected to.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) patience: f64,
}

const INVITE_HELP: &str = "\
The side that can be dialled invites, the other one joins. What --config names must be there: the
least is

  [tunnel]
  network_key = \"network.key\"      # made by: ringway keygen --network network.key
  listen = \"0.0.0.0:4600\"

This makes a key for exactly this one peer, in a file NAME.psk beside the configuration, adds a
[[peer]] at the end of the configuration (the rest of it is not touched), and prints one line. A
tunnel that runs takes the new peer when it is sent SIGHUP.

THE LINE IS A SECRET: whoever has it can connect as this peer. Send it by a way that nobody else can
read. To take it back, take the [[peer]] out of the configuration, and its key file away. `join`
takes it for 24 hours, or what --valid says; the peer that has joined stays.

Examples:
  ringway tunnel invite --config far.toml --name branch --address gw.example:4600 \\
      --allow 127.0.0.1:5201 --allow '*.internal:443'
  ringway tunnel invite --config far.toml --name laptop --address 192.0.2.7:4600 --allow any

TARGET is what an `allow` of the configuration takes: 127.0.0.1:22, 10.0.0.0/8:22,
[2001:db8::1]:443, db.internal:5432, *.example:443, service:NAME, any. Loopback, link-local and
metadata addresses are reached only if a TARGET is exactly that address.";

const JOIN_HELP: &str = "\
LINE is what `ringway tunnel invite` has printed at the other side, not longer ago than its --valid
says (24 hours, if nothing was said). With - it is read from standard input, which keeps it out of
the shell's history and of what others on this host see of processes.

Writes three files, and overwrites none: the configuration, and beside it the two keys of the
invitation, NAME.network.key and NAME.psk, with mode 0600.

Examples:
  ringway tunnel join - --config near.toml --forward 15201=127.0.0.1:5201
  ringway tunnel join - --config near.toml --name office --socks5 1080
  ringway tunnel join - --config near.toml --forward 127.0.0.1:8080=service:web < line.txt

A forward is a port here that leads to one place there: connect to it as if it were that place. A
SOCKS5 port leads wherever the program asks, `curl --proxy socks5h://127.0.0.1:1080 URL`. In both
cases the other side must allow the place, with --allow of its invite or `allow` of its
configuration.";

const SELFTEST_HELP: &str = "\
Nothing is sent and no key is read: messages are made under keys that are drawn for this and
forgotten. Exit code 0 says that they are uniform, as promised; 1 that something gives them away.
The second verdict is for your information: what is uniform is what some censors block.

Examples:
  ringway tunnel selftest
  ringway tunnel selftest --messages 20000 --json";

#[derive(Debug, Subcommand)]
pub(crate) enum TunnelCommand {
    /// Why a peer is not connected, step by step, with what to do about it.
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Peers, carriers and flows of a tunnel that runs, and what limits each flow.
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// Make a peer of another site: a key, a [[peer]] in the configuration, and a line to send.
    #[command(after_help = INVITE_HELP)]
    Invite(InviteArgs),
    /// Make a configuration of an invitation, ready to run.
    #[command(after_help = JOIN_HELP)]
    Join(JoinArgs),
    /// What a censor would make of our first bytes: whether they are chance, and whether chance is
    /// what he looks for.
    #[command(after_help = SELFTEST_HELP)]
    Selftest(SelftestArgs),
}

#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    /// The configuration of this side.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// What to call the other side here.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// Where the other side reaches this one, as seen from there; several in order of preference.
    #[arg(long = "address", value_name = "HOST:PORT", required = true, value_parser = address)]
    pub(crate) addresses: Vec<Target>,
    /// What the other side may reach through this one; may be given several times
    /// [default: nothing].
    #[arg(long = "allow", value_name = "TARGET", value_parser = rule)]
    pub(crate) allow: Vec<Rule>,
    /// For how long the line can be joined, from 1 min to 720 h.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = valid)]
    pub(crate) valid: Span,
    /// What the other side is to call this one [default: the first word of the address's name, or
    /// far].
    #[arg(long, value_name = "NAME")]
    pub(crate) own_name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The invitation, or - to read it from standard input.
    #[arg(value_name = "LINE|-", allow_hyphen_values = true)]
    pub(crate) line: String,
    /// The configuration to make.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// What to call the other side here [default: what it calls itself].
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// A port here, or a loopback address and a port, that leads to a place at the other side; may
    /// be given several times.
    #[arg(long = "forward", value_name = "LISTEN=TARGET", value_parser = forward)]
    pub(crate) forwards: Vec<(SocketAddr, Target)>,
    /// A port here, or a loopback address and a port, where SOCKS5 is spoken.
    #[arg(long, value_name = "LISTEN", value_parser = listen)]
    pub(crate) socks5: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// How many messages of each kind are made. More of them show less of a flaw.
    #[arg(long, default_value_t = 1000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub(crate) messages: u32,
}

fn address(text: &str) -> Result<Target, String> {
    Target::parse(text).map_err(|why| format!("{why}; give for example gw.example:4600"))
}

fn valid(text: &str) -> Result<Span, String> {
    let bounds = Span::from_s(60)..=Span::from_s(720 * 3600);
    let span = span(text).filter(|span| bounds.contains(span));
    span.ok_or_else(|| "give a time with its unit, from 1min to 720h, for example 24h".to_owned())
}

fn rule(text: &str) -> Result<Rule, String> {
    text.parse::<Rule>().map_err(|why| format!("it {why}"))
}

/// `15201`, `127.0.0.1:15201`, `[::1]:15201`.
fn listen(text: &str) -> Result<SocketAddr, String> {
    let port = text.parse::<u16>().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let addr = port.or_else(|_| text.parse::<SocketAddr>());
    let addr = addr.map_err(|_| "give a port, or an address and a port, as 127.0.0.1:1080")?;
    let ip: IpAddr = addr.ip().to_canonical();
    if !ip.is_loopback() {
        let why = "others could reach it, and use the other side's network as if they were you. \
                   Give a loopback address; to share it all the same, change it in the \
                   configuration, with public = true";
        return Err(why.to_owned());
    }
    Ok(addr)
}

fn forward(text: &str) -> Result<(SocketAddr, Target), String> {
    let (here, there) = text.split_once('=').ok_or("give LISTEN=TARGET, as 8080=127.0.0.1:80")?;
    let target = match there.strip_prefix("service:") {
        Some(name) => Target::service(name),
        None => Target::parse(there),
    };
    let target = target.map_err(|why| {
        format!("{there:?} is {why}; give an address or a name there and a port, or service:NAME")
    })?;
    Ok((listen(here)?, target))
}
