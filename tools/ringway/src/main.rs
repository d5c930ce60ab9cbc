//! `ringway`: the one binary. Arguments as typed in `args`, a file for each subcommand.
//!
//! Nothing here decides: a subcommand turns words into a configuration or a request, and an answer
//! into lines or JSON. What is said on standard output is the answer; everything else is said on
//! standard error. Exit codes are in `failure.rs`.

#![forbid(unsafe_code)]

mod args;
mod connect;
mod credentials;
mod doctor;
mod failure;
mod keygen;
mod load;
mod manual;
mod notify;
mod output;
mod port;
mod serve;
mod session;
mod shards;
mod signals;
mod tunnel;
mod wan;

use std::process::ExitCode;

use clap::FromArgMatches;

use args::{Cli, Command};
use failure::Failure;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let matches = args::command().try_get_matches();
    let typed = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match typed {
        Ok(cli) => cli,
        // Help and the version are answers.
        Err(error) if !error.use_stderr() || !args::wants_json() => error.exit(),
        Err(error) => {
            let failure = Failure::Usage(args::complaint(&error));
            output::complain(&failure, true);
            return failure.code().into();
        }
    };
    match run(&cli) {
        Ok(code) => code,
        Err(failure) => {
            output::complain(&failure, cli.json);
            failure.code().into()
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    match &cli.command {
        Command::Serve(args) => serve::serve(args, cli.json),
        Command::Up(args) => serve::up(args, cli.json),
        Command::Session(args) => session::run(&args.command, &cli.server, cli.json),
        Command::Port(args) => port::run(&args.command, &cli.server, cli.json),
        Command::Leashed(args) => Err(port::leashed(args)),
        Command::Shards(args) => shards::run(args, &cli.server, cli.json),
        Command::Load(args) => load::run(args, &cli.server, cli.json),
        Command::Doctor(args) => doctor::run(args, cli.json),
        Command::Credentials(args) => credentials::run(&args.command, cli.json),
        Command::Tunnel(args) => tunnel::run(args, cli.json),
        Command::Wan(args) => wan::run(args, cli.json),
        Command::Keygen(args) => keygen::run(args, cli.json),
        Command::Completions(args) => manual::completions(args),
        Command::Man(args) => manual::man(args),
    }
}
