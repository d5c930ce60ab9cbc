//! Arguments of the commands that talk to a server.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ringway_core::SessionId;

pub(crate) const SHARDS_HELP: &str = "\
Columns: the core the shard is tied to, its slots, owned names, sessions, connections; operations a
second, operations a turn, the share of what its clients asked that went to another shard, the
time it was busy, bytes waiting in its mailboxes, receive buffers in use, memory; and the latency of
what it did meanwhile: from the moment its loop woke up and took in what had arrived, until that was
executed and the replies were written, ready to be sent; all operations of one turn of the loop
share it. Not in it: the time in sockets and mailboxes before, other shards that an operation waits
for, and the sending. What a client sees is measured by `ringway load`.

Examples:
  ringway shards
  ringway shards --watch
  ringway shards --json | jq '.[].names'";

/// What stands over the flags of [`ServerArgs`] in each `--help`.
pub(crate) const SERVER_HEADING: &str = "Server";

/// Which server, and who asks.
#[derive(Debug, Args)]
#[command(next_help_heading = SERVER_HEADING)]
pub(crate) struct ServerArgs {
    /// The server's address.
    #[arg(long, global = true, value_name = "ADDR:PORT", default_value = "127.0.0.1:7400")]
    pub(crate) server: String,
    /// Connect as this user.
    #[arg(long, global = true, value_name = "NAME", requires = "token_file")]
    pub(crate) user: Option<String>,
    /// The file with the user's token, as `ringway credentials add` printed it.
    #[arg(long, global = true, value_name = "FILE", requires = "user")]
    pub(crate) token_file: Option<PathBuf>,
    /// Give up when nothing moves for this long.
    #[arg(long, global = true, value_name = "MS", default_value_t = 5000,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout_ms: u64,
}

#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    #[command(subcommand)]
    pub(crate) command: SessionCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// Open a session for a node. An earlier one of the same node ends.
    #[command(after_help = "The session ends when it is not renewed within its lease; \
        --hold renews it until Ctrl-C.\n\nExamples:\n  ringway session open --node 7 --save \
        session.json\n  ringway port register orders/17 --as session.json\n  ringway session renew \
        --as session.json")]
    Open(OpenArgs),
    /// Renew a session's lease, and with it everything it owns.
    Renew(AsArgs),
    /// End a session. Everything it owns is given back.
    Close(AsArgs),
    /// One session.
    Info(InfoArgs),
    /// All sessions.
    List(ListArgs),
    /// End another's session; takes an operator.
    Kill(KillArgs),
}

#[derive(Debug, Args)]
pub(crate) struct OpenArgs {
    /// The node's number: one for each program that may hold names.
    #[arg(long, value_name = "N")]
    pub(crate) node: u64,
    /// How long the session lives without being renewed; the server's default if not given.
    #[arg(long, value_name = "MS", default_value_t = 0, hide_default_value = true)]
    pub(crate) lease_ms: u64,
    /// Where others reach this node; shown to whoever asks who owns its names.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) address: String,
    /// What else others may want to know about it.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) metadata: String,
    /// Write the session and its secret into this file, for --as of other commands.
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// Stay, renew the session until Ctrl-C, then end it.
    #[arg(long)]
    pub(crate) hold: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AsArgs {
    /// The session, as `ringway session open --save` wrote it.
    #[arg(long = "as", value_name = "FILE")]
    pub(crate) session: PathBuf,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct InfoArgs {
    /// The session, in 16 hexadecimal digits.
    #[arg(value_parser = session_id)]
    pub(crate) session: Option<SessionId>,
    /// The node whose session it is.
    #[arg(long, value_name = "N")]
    pub(crate) node: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// At most this many; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) limit: u64,
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// The session, in 16 hexadecimal digits.
    #[arg(value_parser = session_id)]
    pub(crate) session: SessionId,
}

#[derive(Debug, Args)]
pub(crate) struct ShardsArgs {
    /// Go on until Ctrl-C, every so many seconds.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          value_parser = seconds)]
    pub(crate) watch: Option<f64>,
}

pub(crate) fn session_id(text: &str) -> Result<SessionId, String> {
    match u64::from_str_radix(text, 16) {
        Ok(number) if number != 0 => Ok(SessionId(number)),
        _ => Err("a session is up to 16 hexadecimal digits, as `ringway session list` prints it"
            .to_owned()),
    }
}

pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("give 0.1 to 3600 seconds".to_owned()),
    }
}
