//! `ringway wan ...`: bad networks to try a transport on.

mod link;
mod matrix;
mod sim;
mod words;

use std::process::{Command, ExitCode};

use crate::args::wan::{WanArgs, WanCommand};
use crate::failure::Failure;

pub(crate) fn run(args: &WanArgs, json: bool) -> Result<ExitCode, Failure> {
    match &args.command {
        WanCommand::Link(args) => link::run(&args.command, json),
        WanCommand::Sim(args) => sim::run(args, json),
        WanCommand::Matrix(args) => matrix::run(args, json),
    }
}

/// `ip netns exec`, to which the words of a command are still to be given. It is run by this
/// program, which says what a shell would say if there is no such command, and has its exit code;
/// the kernel kills it when we end, however we do.
fn leashed_in(space: &str) -> Command {
    let own = std::process::id().to_string();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", space, &own_program(), "leashed", &own, "--"]);
    command
}

/// This program, also if another version of it has taken its place since.
fn own_program() -> String {
    format!("/proc/{}/exe", std::process::id())
}
