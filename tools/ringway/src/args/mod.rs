//! The command line as typed. What is documented here is what `--help`, the completions and the
//! man pages say; what a value means is checked where it is used.

pub(crate) mod client;
pub(crate) mod load;
pub(crate) mod port;
pub(crate) mod server;
pub(crate) mod tunnel;
pub(crate) mod wan;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

use client::{ServerArgs, SessionArgs, ShardsArgs};
use load::LoadArgs;
use port::{LeashedArgs, PortArgs};
use server::{DoctorArgs, ServeArgs, UpArgs};
use tunnel::TunnelArgs;
use wan::WanArgs;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the answer is no (a name is held by another, a session has ended, a tunnel is not connected)
  2  the words of the command or of its configuration are wrong
  3  this host lacks something, or something is in the way
  4  no server or tunnel could be reached, or the connection broke (for longer than the lease,
     where one is kept over a break)
  141  nobody reads the answer any more, as in `ringway ... | head`
`ringway port exec` has the exit code of its command, and some of its own: see its --help.

In JSON, sessions and tokens are strings: they are larger than what many readers take for a number.

Examples:
  ringway up                                  a server to try, and a short tour
  ringway port register leader                claim a name and hold it until Ctrl-C
  ringway port exec leader -- ./worker        wait for it, run a program while holding it
  ringway port query leader                   who holds it
  ringway port watch leader                   each change of that
  ringway shards --watch                      what the server is doing
  ringway doctor                              whether this host is fit to serve
  ringway tunnel --config site.toml           one side of a tunnel; docs/tunnel.md has both files
  ringway tunnel check --config site.toml     why it does not connect";

/// A coordinator for clusters (who owns which name, who is alive, who holds the lock), and an
/// encrypted tunnel between sites.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    /// Answer in JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a server.
    #[command(after_help = server::SERVE_HELP)]
    Serve(Box<ServeArgs>),
    /// Run a server and a tunnel to try things with: nothing is kept, and a short tour is printed.
    Up(UpArgs),
    /// Sessions: the lives of nodes, which own names.
    Session(SessionArgs),
    /// Names: claim them, wait for them, give them back, see who has them, send to who has them.
    Port(PortArgs),
    /// A command that is killed when `ringway port exec`, which starts this, has gone.
    #[command(hide = true)]
    Leashed(LeashedArgs),
    /// What every shard has and does. Takes a second, to measure rates.
    #[command(after_help = client::SHARDS_HELP)]
    Shards(ShardsArgs),
    /// Measure a server, or Redis beside it.
    #[command(after_help = load::LOAD_HELP)]
    Load(Box<LoadArgs>),
    /// Whether this host is fit to serve, line by line, with what to do about what is not.
    Doctor(Box<DoctorArgs>),
    /// Users of a server.
    Credentials(CredentialsArgs),
    /// Sites connected by encrypted carriers: run one side, ask it, try it.
    #[command(after_help = tunnel::TUNNEL_HELP)]
    Tunnel(Box<TunnelArgs>),
    /// Bad networks to try a transport on, made on this machine.
    Wan(WanArgs),
    /// Make a key for a site, in a file that only its owner may read.
    #[command(after_help = KEYGEN_HELP)]
    Keygen(KeygenArgs),
    /// Completions for a shell, on standard output.
    #[command(after_help = "Example:\n  ringway completions bash > \
                            ~/.local/share/bash-completion/completions/ringway")]
    Completions(CompletionsArgs),
    /// The manual page of this program, or of it and all its subcommands.
    #[command(after_help = "Examples:\n  ringway man | man -l -\n  ringway man --dir \
                            ~/.local/share/man/man1")]
    Man(ManArgs),
}

const KEYGEN_HELP: &str = "\
Examples:
  ringway keygen site.key                     who this site is; prints the half that peers need
  ringway keygen --public site.key            prints it again
  ringway keygen --network office.key         what all sites of a network share

A secret is never printed, and a file that is there is never overwritten. `ringway tunnel` uses
these keys; `ringway tunnel invite` makes what one more site needs by itself.";

#[derive(Debug, Args)]
pub(crate) struct KeygenArgs {
    /// The file to make, with mode 0600.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// A key that all sites of a network share: it hides that there is a tunnel.
    #[arg(long, conflicts_with_all = ["shared", "public"])]
    pub(crate) network: bool,
    /// A key that exactly two sites share, instead of key pairs or beside them.
    #[arg(long, conflicts_with = "public")]
    pub(crate) shared: bool,
    /// Make nothing: print the public half of the private key that is there.
    #[arg(long)]
    pub(crate) public: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CredentialsArgs {
    #[command(subcommand)]
    pub(crate) command: CredentialsCommand,
}

const CREDENTIALS_HELP: &str = "\
Example:
  ringway credentials add shop --namespace orders --file users.toml > shop.token

A server reads the file when it starts and on SIGHUP. A grant of `orders` covers the name `orders`
and every name that begins with `orders/`. A user that is there already gets a new token and new
grants.";

#[derive(Debug, Subcommand)]
pub(crate) enum CredentialsCommand {
    /// Add a user, or give one a new token and new grants. The token is printed once and kept
    /// nowhere: the file holds its digest only.
    #[command(after_help = CREDENTIALS_HELP)]
    Add(CredentialsAddArgs),
    /// Take a user out of the file.
    #[command(
        after_help = "A running server goes on with what it has read until it is sent SIGHUP; \
                            then it closes the\nuser's connections. Sessions end with their \
                            leases."
    )]
    Remove(CredentialsRemoveArgs),
    /// The users of the file and what they may do.
    List(CredentialsListArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CredentialsAddArgs {
    /// The user's name.
    pub(crate) user: String,
    /// The file of users; made with mode 0600 if there is none.
    #[arg(long, default_value = "users.toml", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// A namespace that the user may use: what stands before the first `/` of a name, or `*` for
    /// all. May be given several times; without any the user may use no name.
    #[arg(long = "namespace", short = 'n', value_name = "NAMESPACE")]
    pub(crate) namespaces: Vec<String>,
    /// The user may look at and end other users' sessions.
    #[arg(long)]
    pub(crate) operator: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CredentialsRemoveArgs {
    /// The user's name.
    pub(crate) user: String,
    /// The file of users.
    #[arg(long, default_value = "users.toml", value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CredentialsListArgs {
    /// The file of users.
    #[arg(long, default_value = "users.toml", value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write one page for each subcommand into this directory, instead of the first to standard
    /// output.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// A name as typed: any bytes.
pub(crate) type Name = OsString;

/// Subcommands that talk to no server: how one is reached is nothing to read about there.
const WITHOUT_SERVER: [&str; 9] =
    ["serve", "up", "doctor", "credentials", "tunnel", "wan", "keygen", "completions", "man"];

/// The command line with its `--help` texts: each shows the flags that mean something there.
pub(crate) fn command() -> clap::Command {
    with_texts(Cli::command())
}

/// Likewise for manual pages, of which `help` needs none.
pub(crate) fn command_of_pages() -> clap::Command {
    with_texts(Cli::command().disable_help_subcommand(true))
}

/// Whether an answer in JSON is asked for by words that cannot be understood: behind `--` they are
/// another program's.
pub(crate) fn wants_json() -> bool {
    std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json")
}

/// What is wrong with the words, in one line.
pub(crate) fn complaint(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let what = text.split("\n\nUsage:").next().unwrap_or_default();
    let what = what.split("\n\nFor more information").next().unwrap_or_default();
    let words: Vec<&str> = what.split_whitespace().collect();
    words.join(" ").trim_start_matches("error: ").to_owned()
}

fn with_texts(mut command: clap::Command) -> clap::Command {
    // Flags of all subcommands are copied into each of them by this; before, there is none to hide.
    command.build();
    WITHOUT_SERVER.into_iter().fold(command, |all, name| all.mut_subcommand(name, without_server))
}

fn without_server(command: clap::Command) -> clap::Command {
    let hidden = command.mut_args(|arg| {
        let is_servers = arg.get_help_heading() == Some(client::SERVER_HEADING);
        arg.hide(is_servers)
    });
    hidden.mut_subcommands(without_server)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// clap's own consistency checks over every subcommand.
    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every subcommand, every flag and every argument says what it does.
    #[test]
    fn everything_is_documented() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} says nothing about itself");
            for arg in command.get_arguments() {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.len() > 3, "{path}: {} says nothing", arg.get_id());
            }
            for sub in command.get_subcommands() {
                check(sub, &path);
            }
        }
        let mut command = Cli::command();
        command.build();
        check(&command, "");
    }

    /// How a server is reached is told where one is asked, and nowhere else.
    #[test]
    fn help_is_about_its_command() {
        let mut command = command();
        let mut help = |words: &[&str]| {
            let mut at = &mut command;
            for word in words {
                at = at.find_subcommand_mut(word).expect("there is such a command");
            }
            at.render_long_help().to_string()
        };
        for words in [&["port", "query"][..], &["shards"], &["session", "open"]] {
            assert!(help(words).contains("--token-file"), "{words:?}");
        }
        for words in [&["tunnel"][..], &["tunnel", "check"], &["wan", "link", "run"], &["keygen"]] {
            let text = help(words);
            assert!(!text.contains("--token-file") && !text.contains("Server:"), "{text}");
            assert!(text.contains("--json"), "{text}");
        }
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    /// The lines of the documentation parse.
    #[test]
    fn documented_lines_parse() {
        for line in [
            "ringway up",
            "ringway serve --config ringway.toml --listen 127.0.0.1:7400 --shards 2 --state DIR",
            "ringway serve --print-config --json",
            "ringway session open --node 7 --lease-ms 5000 --save session.json",
            "ringway session renew --as session.json",
            "ringway session info 0000100000000001",
            "ringway session info --node 7",
            "ringway session list --json",
            "ringway session kill 0000100000000001",
            "ringway port register leader",
            "ringway port register leader -- ./worker --fast",
            "ringway port register a b --as session.json",
            "ringway port release a --token 17 --as session.json",
            "ringway --server 10.0.0.1:7400 --user shop --token-file t port query a b",
            "ringway port list orders/ --limit 10",
            "ringway port register a --shared -- ./worker",
            "ringway port register a --permits 3 --as session.json",
            "ringway port wait leader --timeout 500 --shared",
            "ringway port wait leader --permits 2 --as session.json",
            "ringway port exec backup -- ./backup.sh --all",
            "ringway port exec a --timeout 0 --lease-ms 3000 --signal INT --grace-ms 500 -- true",
            "ringway port meta a",
            "ringway port meta a --set x --version 1 --as session.json",
            "ringway port meta a --set-file - --as session.json",
            "ringway port transfer 0000100000000001 a b - --as session.json",
            "ringway port transfer 0000100000000001 a --as session.json --token 7",
            "ringway port revoke a b --to 0000100000000001",
            "ringway port waiters",
            "ringway port waiters a --limit 10 --json",
            "ringway port watch orders/ --no-snapshot",
            "ringway port send a hello --receipt",
            "ringway port send a - --as session.json --from leader --token 7",
            "ringway port send --all hello",
            "ringway port listen a b --shared",
            "ringway shards --watch",
            "ringway shards --watch 0.5",
            "ringway doctor --json",
            "ringway load --prefill --expect owned",
            "ringway load --mix query=90,register=5,release=5 --connections 64",
            "ringway load --frame 1 --pipeline 1 --rate 50000 --pid 17 --json",
            "ringway load fill --names 100M --churn-half --pid 17",
            "ringway load sweep --doomed 1M --prefill --expect owned --rate 20000",
            "ringway load sessions --connections 100 --sessions 1000 --lease-ms 1000",
            "ringway load messages --fenced --receipts --on-the-way 64 --pid 17",
            "ringway load watchers --watchers 10000 --rounds 3 --pid 17",
            "ringway load compare --protocol port --frame 1 --against 127.0.0.1:6379",
            "ringway load scenario resp-p16 --pid 17 --against-pid 18",
            "ringway credentials add shop -n orders -n carts --operator --file users.toml",
            "ringway credentials remove shop --file users.toml",
            "ringway credentials list --json",
            "ringway tunnel invite --config far.toml --name branch --address gw.example:4600 \
             --allow 127.0.0.1:5201 --allow *.internal:443",
            "ringway tunnel join - --config near.toml --forward 15201=127.0.0.1:5201 --json",
            "ringway tunnel join - --config near.toml --name office --socks5 1080",
            "ringway tunnel join LINE --config near.toml --forward 127.0.0.1:8080=service:web",
            "ringway tunnel selftest --messages 20000 --json",
            "ringway tunnel --json selftest",
            "ringway wan sim",
            "ringway wan sim --check --json",
            "ringway wan sim rtt=300ms loss=20% --memory 2g,1g,256m",
            "ringway wan sim --start --seeds 50 rate=100mbit,1gbit loss=1%,5%",
            "ringway wan sim rtt=100ms --for 20s --plot a.svg --at 5s rate=50mbit --at 9s down=1",
            "ringway completions fish",
            "ringway man --dir /tmp/man",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    /// Words that contradict each other are refused before anything is done.
    #[test]
    fn contradictions_are_refused() {
        for line in [
            "ringway",
            "ringway port register",
            "ringway port register a --once --as s.json",
            "ringway port register a --as s.json -- ./worker",
            "ringway session info",
            "ringway session info 1 --node 2",
            "ringway session info nonsense",
            "ringway port register a --shared --permits 2",
            "ringway port register a --permits 0",
            "ringway port exec a",
            "ringway port exec a --signal BANG -- true",
            "ringway port wait a --timeout -1",
            "ringway port meta a --set x",
            "ringway port meta a --set x --set-file y --as s.json",
            "ringway port transfer nobody a --as s.json",
            "ringway port transfer 1 a",
            "ringway port send",
            "ringway port send a hello --from b --as s.json",
            "ringway port send a hello --from b --token 1",
            "ringway port waiters --limit 0",
            "ringway session open",
            "ringway session close",
            "ringway --user shop port query a",
            "ringway shards --watch never",
            "ringway load --names many",
            "ringway load --protocol http",
            "ringway load --frame 1 fill",
            "ringway tunnel",
            "ringway tunnel invite --config far.toml --name branch",
            "ringway tunnel invite --config f --name b --address gw.example",
            "ringway tunnel invite --config f --name b --address g:1 --allow 10.0.0.1/8:22",
            "ringway tunnel join - --forward 1=a:1",
            "ringway tunnel join - --config n --forward 8080",
            "ringway tunnel join - --config n --forward 0.0.0.0:8080=a:1",
            "ringway tunnel join - --config n --socks5 many",
            "ringway tunnel selftest --messages 10",
            "ringway wan",
            "ringway wan sim --memory 5x",
            "ringway wan sim --memory 1k",
            "ringway wan sim --seeds 0",
            "ringway wan sim --at 5s",
            "ringway wan sim --start --plot a.svg",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
