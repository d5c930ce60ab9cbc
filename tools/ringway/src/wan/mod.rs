//! `ringway wan ...`: bad networks to try a transport on.

mod link;
mod sim;

use std::process::ExitCode;

use crate::args::wan::{WanArgs, WanCommand};
use crate::failure::Failure;

pub(crate) fn run(args: &WanArgs, json: bool) -> Result<ExitCode, Failure> {
    match &args.command {
        WanCommand::Link(args) => link::run(&args.command, json),
        WanCommand::Sim(args) => sim::run(args, json),
    }
}
