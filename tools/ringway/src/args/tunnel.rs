//! `ringway tunnel ...` as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ringway_coord_server::config::{LogFormat, LogLevel};

use super::client::seconds;

pub(crate) const TUNNEL_HELP: &str = "\
With --config one side runs until Ctrl-C; SIGHUP reads its file again without losing a flow. It
prints one line `ready ...` on standard output when it serves; logs go to standard error.

Examples:
  ringway tunnel --config near.toml
  ringway tunnel status --config near.toml --watch
  ringway tunnel check --config near.toml";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(crate) struct TunnelArgs {
    /// The configuration of this side. `docs/tunnel.md` has a worked example.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(subcommand)]
    pub(crate) command: Option<TunnelCommand>,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// What is logged: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = log_level)]
    pub(crate) log_level: LogLevel,
    /// How it is logged: text or json.
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = log_format)]
    pub(crate) log_format: LogFormat,
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
tunnel answers. `limited by` is what a flow waits for at this moment: its application, our reader,
the peer's reader or window, a carrier, the processor, or the rate that its peer may have.

Examples:
  ringway tunnel status --config near.toml
  ringway tunnel status --config near.toml --watch
  ringway --json tunnel status --socket /run/ringway/near.sock --flows 1000";

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The configuration that the tunnel runs with.
    #[arg(long, value_name = "FILE")]
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
}

#[derive(Debug, Subcommand)]
pub(crate) enum TunnelCommand {
    /// Peers, carriers and flows of a tunnel that runs, and what limits each flow.
    #[command(after_help = STATUS_HELP)]
    Status(StatusArgs),
    /// What a censor would make of our first bytes: whether they are chance, and whether chance is
    /// what he looks for.
    #[command(after_help = SELFTEST_HELP)]
    Selftest(SelftestArgs),
}

const SELFTEST_HELP: &str = "\
Nothing is sent and no key is read: messages are made under keys that are drawn for this and
forgotten. Exit code 0 says that they are uniform, as promised; 1 that something gives them away. The
second verdict is for your information: what is uniform is what some censors block.

Examples:
  ringway tunnel selftest
  ringway tunnel selftest --messages 20000 --json";

#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// How many messages of each kind are made. More of them show less of a flaw.
    #[arg(long, default_value_t = 1000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub(crate) messages: u32,
}
