//! Arguments of `ringway port ...`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ringway_client::Mode;
use ringway_core::SessionId;
use rustix::process::Signal;

use super::Name;
use super::client::session_id;

const REGISTER_HELP: &str = "\
Without --as the names belong to this program: it renews them, says when they are lost, and gives
them back when it ends. If any of them is held by another, it says by whom, gives back the others
and exits with 1. To wait instead, use `ringway port wait`. If an operator takes a name (`ringway
port revoke`), it says so and holds the others; without any left it ends.

With `-- COMMAND` it runs the command while holding the names, and exits with the command's exit
code. The command finds the fencing token of the first name in RINGWAY_TOKEN, and gets SIGTERM as
soon as any of the names is lost. For a lock, use `ringway port exec`: it waits for its turn,
survives a break of the connection, and sees to it that the command is dead before the name is
another's.

Examples:
  ringway port register leader
  ringway port register backup/nightly -- ./backup.sh
  ringway port register orders/17 --as session.json
  ringway port register reports --shared
  ringway port register licences --permits 5

Exit codes: 1 if a name is another's, or the names were taken (`ringway port revoke`, `ringway
session kill`); 4 if the connection broke, and the names are lost with it.";

const WAIT_HELP: &str = "\
Who waits stands in a queue: first come, first served. The name is yours in the same step in which
the one before you gives it back, or dies.

Without --as the name belongs to this program, which holds it until Ctrl-C and says so if it is
lost. With --as it is claimed for that session, and the program ends; the session's lease is renewed
while it waits. Ctrl-C while waiting gives up the place in the queue.

Examples:
  ringway port wait leader
  ringway port wait leader --timeout 5000 || echo 'somebody else leads'
  ringway port wait orders/17 --as session.json
  ringway port wait licences --permits 5

Exit codes: 1 if the time was over, or the name was taken (`ringway port revoke`, `ringway session
kill`); 4 if the server could not be reached until the lease ran out; 130 after Ctrl-C while it
waited.";

const EXEC_HELP: &str = "\
The lock that everyone writes in shell scripts: waits for the name, runs the command while holding
it, gives it back, and exits with the command's exit code.

The name belongs to a session with a lease of its own, which is renewed meanwhile and survives that
the connection breaks and comes back. If the lease cannot be renewed, the command gets --signal
while there is still --grace-ms of the lease left, and SIGKILL when that is over: it is dead before
anybody else gets the name. If the name was taken (`ringway session kill`, `ringway port revoke`) it
gets --signal at once, and SIGKILL after --grace-ms.

The command has in its environment:
  RINGWAY_TOKEN    the fencing token: larger than that of any earlier holder. Let what you write to
                   refuse smaller ones; no lock can stop a machine that stood still in between
  RINGWAY_NAME     the name
  RINGWAY_SESSION  the session that holds it

Signals (INT, TERM, HUP, QUIT, USR1, USR2) are passed on to the command. It runs in a process group
of its own, and signals reach all of the group; started from a terminal, it stays in the group of
the terminal, gets Ctrl-C from there, and is signalled alone. If this program is killed, so is it.

What it cannot do:
  - See that the command stands still (SIGSTOP): the name stays held, and others wait. Such a
    command does not hear --signal either; SIGKILL ends it when the grace is over.
  - Act while it stands still itself. If it and the command do so together for longer than the
    lease (a machine that sleeps), another one has the name when they go on. The command is stopped
    then, but may have done something first.
  - Stop what the command has started, if this program is killed with SIGKILL: the kernel kills the
    command alone. The rest goes on when the lease is over and the next one has the name.
So let what must not be done twice compare RINGWAY_TOKEN.

Who holds the name and who stands in line for it: `ringway port waiters NAME`. It tells what the
server knows: a holder that was killed or stands still is shown until its lease is over, and
processes that outlived this program are not shown. `ringway port waiters` alone finds scripts that
wait for each other's names in a circle.

Examples:
  ringway port exec backup/nightly -- ./backup.sh
  ringway port exec deploy --timeout 0 -- ./deploy.sh; [ $? != 124 ] || echo 'one runs already'
  ringway port exec licences --permits 5 -- ./render.sh
  ringway port exec ledger --lease-ms 3000 --grace-ms 500 -- sh -c './post.sh $RINGWAY_TOKEN'

Exit codes, beside the command's own:
  123  the name was lost, and the command was stopped
  124  not within --timeout; the command was not run
  125  something else was in the way (no server, no rights); the command was not run
  126  the command cannot be run
  127  there is no such command
  128 + N  signal N ended the command, or came while it waited; 2 for words that are wrong";

const META_HELP: &str = "\
Metadata is up to 256 bytes. Only the name's owner may set it, and it goes when the name is given
back. It has a version, which counts how often it was set since the name was claimed: 0 is never.
Whoever reads, changes and writes gives --version, so that no change of another is lost.

Examples:
  ringway port meta svc/billing
  ringway port meta svc/billing --set 'addr=10.0.0.7:9000 weight=4' --as session.json
  ringway port meta svc/billing --set weight=5 --version 1 --as session.json
  ringway port meta svc/billing --set-file state.json --as session.json

Exit code 1: nobody owns the name, it is another's, or it has another version.";

const TRANSFER_HELP: &str = "\
Each name goes over in one step, under a new token: in between it is neither free nor anybody
else's. With `-` among the names more are read from standard input, one a line.

Examples:
  ringway port transfer 0000180040000001 orders/17 --as session.json
  ringway port transfer 0000180040000001 orders/17 --token 17592186044417 --as session.json
  grep ^orders/ moving.txt | ringway port transfer 0000180040000001 - --as session.json

Exit code 1: at least one name was not transferred; each line says why.";

const REVOKE_HELP: &str = "\
For operators; the server notes it in its log. Whoever had the name is told. It goes to --to, or to
the next who waits for it, or is free.

Examples:
  ringway port revoke orders/17
  ringway port revoke orders/17 --to 0000180040000001

Exit code 1: a name was not taken, or was free and so not given to --to.";

const WAITERS_HELP: &str = "\
Of one name: who holds it, and who waits for it in which order. Without a name: all who wait, for
what and for whom, and the deadlocks among them: sessions that wait for each other in a circle, so
that none will ever get what it waits for. It reads twice, and reports what was there both times,
so a deadlock that it reports is one. It does not find those who wait outside of the server.

A deadlock ends when one of its sessions gives up: `ringway session kill`, `ringway port revoke`.

Examples:
  ringway port waiters orders/17
  ringway port waiters; [ $? != 1 ] || alert 'deadlock'
  ringway port waiters --json | jq '.deadlocks'

Exit code 1: there is a deadlock.";

const WATCH_HELP: &str = "\
First what is owned now, and a line `snapshot`; then each change as it happens: acquired, released,
changed (its metadata) and waiting (how many wait for it). A name that changes faster than one can
read is told by its latest change, marked `skipped`. A release marked `shared` leaves others that
hold the name; without the mark the name is free. If the connection breaks that is said, and it
goes on by itself, whenever the server is back: behind what was told, or with the state anew.

Examples:
  ringway port watch leader
  ringway port watch orders/ --no-snapshot
  ringway port watch svc/ --json | jq -c 'select(.event == \"released\" and (.shared | not))'

With --json: one object a line.";

const SEND_HELP: &str = "\
A message of up to 32768 bytes goes to whoever owns the name, to each holder if it is shared, at
most once. Without TEXT, or with `-`, it is read from standard input.

Without --receipt the answer says that it is on its way; with it, that it was handed to the
connection of the receiver, or why not. With --from and --token it is sent in the name of a name:
the server passes it on only if the session owns that name under that token, and the receiver is
told so.

Examples:
  ringway port send orders/17 'reload'
  ringway port send orders/17 --receipt < state.json
  ringway port send orders/17 'stop' --as session.json --from leader --token 17592186044417
  ringway port send --all 'maintenance at noon'

Exit code 1: nobody owns the name, or it was not delivered; the line says why.";

const LISTEN_HELP: &str = "\
Claims the names, as `ringway port register` does, and prints the messages that are sent to them
until Ctrl-C, one a line; with --json one object a line.

Examples:
  ringway port listen orders/17
  ringway port listen news --shared --json | jq -r .payload

Exit codes: 1 if a name is another's, or was taken (`ringway port revoke`, `ringway session kill`);
4 if the server could not be reached until the lease ran out.";

#[derive(Debug, Args)]
pub(crate) struct PortArgs {
    #[command(subcommand)]
    pub(crate) command: PortCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PortCommand {
    /// Claim names, and hold them until Ctrl-C or while a command runs.
    #[command(after_help = REGISTER_HELP)]
    Register(RegisterArgs),
    /// Give names back.
    Release(ReleaseArgs),
    /// Who owns names.
    Query(QueryArgs),
    /// Names that are owned, by slot and then by name.
    #[command(after_help = "Example:\n  ringway port list orders/ --limit 20")]
    List(PortListArgs),
    /// Wait for a name in its queue, and hold it until Ctrl-C.
    #[command(after_help = WAIT_HELP)]
    Wait(WaitArgs),
    /// Run a command while holding a name, and stop it when the name is lost: a lock for scripts.
    #[command(after_help = EXEC_HELP)]
    Exec(ExecArgs),
    /// What the owner of a name says about it; or say it.
    #[command(after_help = META_HELP)]
    Meta(MetaArgs),
    /// Hand names over to another session.
    #[command(after_help = TRANSFER_HELP)]
    Transfer(TransferArgs),
    /// Take names from whoever holds them; takes an operator.
    #[command(after_help = REVOKE_HELP)]
    Revoke(RevokeArgs),
    /// Who waits for a name; or all who wait, and the deadlocks among them.
    #[command(after_help = WAITERS_HELP)]
    Waiters(WaitersArgs),
    /// Who owns a name or names, and each change, until Ctrl-C.
    #[command(after_help = WATCH_HELP)]
    Watch(WatchArgs),
    /// Send a message to the owner of a name.
    #[command(after_help = SEND_HELP, override_usage = SEND_USAGE)]
    Send(SendArgs),
    /// Claim names and print the messages that are sent to them, until Ctrl-C.
    #[command(after_help = LISTEN_HELP)]
    Listen(ListenArgs),
}

const SEND_USAGE: &str = "\
ringway port send [OPTIONS] <NAME> [TEXT]
       ringway port send [OPTIONS] --all [TEXT]";

/// How a name is held.
#[derive(Debug, Args)]
pub(crate) struct ModeArgs {
    /// Share the name with all who ask for it so.
    #[arg(long, conflicts_with = "permits")]
    shared: bool,
    /// Hold one of N permits of the name; all who use it say the same N.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    permits: Option<u32>,
}

impl ModeArgs {
    pub(crate) fn mode(&self) -> Mode {
        match (self.shared, self.permits) {
            (true, _) => Mode::Shared,
            (_, Some(permits)) => Mode::Counting { permits },
            _ => Mode::Exclusive,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RegisterArgs {
    /// The names.
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<Name>,
    /// Claim them for this session and end: the session holds them as long as it is renewed.
    #[arg(long = "as", value_name = "FILE")]
    pub(crate) session: Option<PathBuf>,
    /// Claim them, say so, and give them back at once.
    #[arg(long, conflicts_with = "session")]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) mode: ModeArgs,
    /// A command to run while holding them.
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["session", "once"])]
    pub(crate) command: Vec<Name>,
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    /// The names.
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<Name>,
    /// Only if it is held under this token; for a single name.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<u64>,
    /// The session that holds them, as `ringway session open --save` wrote it.
    #[arg(long = "as", value_name = "FILE")]
    pub(crate) session: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// The names.
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<Name>,
}

#[derive(Debug, Args)]
pub(crate) struct PortListArgs {
    /// Only names that begin so.
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) prefix: Name,
    /// At most this many; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) limit: u64,
}

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// The name.
    pub(crate) name: Name,
    /// Wait at most this long; without end if not given.
    #[arg(long, value_name = "MS")]
    pub(crate) timeout: Option<u32>,
    #[command(flatten)]
    pub(crate) mode: ModeArgs,
    /// Claim it for this session and end: the session holds it as long as it is renewed.
    #[arg(long = "as", value_name = "FILE")]
    pub(crate) session: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The name.
    pub(crate) name: Name,
    /// Wait at most this long; 0: not at all; without end if not given.
    #[arg(long, value_name = "MS")]
    pub(crate) timeout: Option<u32>,
    #[command(flatten)]
    pub(crate) mode: ModeArgs,
    /// For how long the name stays held without a renewal, at least three times --grace-ms. The
    /// shorter, the sooner others get the name when this machine dies.
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    pub(crate) lease_ms: u32,
    /// What tells the command to stop when the name is lost.
    #[arg(long, value_name = "SIGNAL", default_value = "TERM", value_parser = signal)]
    pub(crate) signal: Signal,
    /// How long it may take to stop, then it is killed.
    #[arg(long, value_name = "MS", default_value_t = 2_000)]
    pub(crate) grace_ms: u32,
    /// The command.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<Name>,
}

#[derive(Debug, Args)]
pub(crate) struct MetaArgs {
    /// The name.
    pub(crate) name: Name,
    /// What to say about it from now on.
    #[arg(long, value_name = "TEXT", requires = "session", conflicts_with = "set_file")]
    pub(crate) set: Option<Name>,
    /// The same from a file; `-`: from standard input.
    #[arg(long, value_name = "FILE", requires = "session")]
    pub(crate) set_file: Option<PathBuf>,
    /// Set it only if it has this version; 0: only if it was never set.
    #[arg(long, value_name = "N", requires = "session")]
    pub(crate) version: Option<u32>,
    /// The session that holds the name, as `ringway session open --save` wrote it.
    #[arg(long = "as", value_name = "FILE")]
    pub(crate) session: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// The session that gets them, in 16 hexadecimal digits.
    #[arg(value_parser = session_id)]
    pub(crate) to: SessionId,
    /// The names; `-`: more of them from standard input, one a line.
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<Name>,
    /// The session that has them, as `ringway session open --save` wrote it.
    #[arg(long = "as", value_name = "FILE")]
    pub(crate) session: PathBuf,
    /// Only if it is held under this token; for a single name.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The names.
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<Name>,
    /// Give them to this session, in 16 hexadecimal digits.
    #[arg(long, value_name = "SESSION", value_parser = session_id)]
    pub(crate) to: Option<SessionId>,
}

#[derive(Debug, Args)]
pub(crate) struct WaitersArgs {
    /// The name; all names if not given.
    pub(crate) name: Option<Name>,
    /// Show at most this many who wait (of one name: up to 1024, and as many who hold it). All are
    /// searched for deadlocks.
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// A name, or a beginning of names that ends with `/`.
    #[arg(value_name = "NAME|PREFIX/")]
    pub(crate) filter: Name,
    /// Do not list what is owned at the beginning; `snapshot` says that changes are told from now.
    #[arg(long)]
    pub(crate) no_snapshot: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// To the owner of this name.
    #[arg(required_unless_present = "all")]
    pub(crate) name: Option<Name>,
    /// What to send; standard input if not given, or `-`.
    pub(crate) text: Option<Name>,
    /// To every session instead; takes an identity that sees all names.
    #[arg(long, conflicts_with_all = ["session", "from"])]
    pub(crate) all: bool,
    /// Wait until it was handed to the receiver's connection, and say whether it was.
    #[arg(long)]
    pub(crate) receipt: bool,
    /// Send it as this session; without it the receiver sees no sender, and cannot answer.
    #[arg(long = "as", value_name = "FILE")]
    pub(crate) session: Option<PathBuf>,
    /// Send it in the name of this name, which the session owns.
    #[arg(long, value_name = "NAME", requires_all = ["token", "session"])]
    pub(crate) from: Option<Name>,
    /// The token under which it owns that name.
    #[arg(long, value_name = "TOKEN", requires = "from")]
    pub(crate) token: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct ListenArgs {
    /// The names.
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<Name>,
    #[command(flatten)]
    pub(crate) mode: ModeArgs,
}

/// What `ringway port exec` starts: it becomes the command, which dies with `ringway`.
#[derive(Debug, Args)]
pub(crate) struct LeashedArgs {
    /// The process that holds the name.
    pub(crate) holder: i32,
    /// The command.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<Name>,
}

fn signal(text: &str) -> Result<Signal, String> {
    let upper = text.to_ascii_uppercase();
    let signal = match upper.strip_prefix("SIG").unwrap_or(&upper) {
        "TERM" | "15" => Signal::TERM,
        "INT" | "2" => Signal::INT,
        "HUP" | "1" => Signal::HUP,
        "QUIT" | "3" => Signal::QUIT,
        "USR1" | "10" => Signal::USR1,
        "USR2" | "12" => Signal::USR2,
        "KILL" | "9" => Signal::KILL,
        _ => return Err("give TERM, INT, HUP, QUIT, USR1, USR2 or KILL".to_owned()),
    };
    Ok(signal)
}
