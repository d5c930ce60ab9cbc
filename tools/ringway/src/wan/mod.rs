//! `ringway wan ...`: bad networks to try a transport on.

mod link;
mod matrix;
mod sim;
mod words;

use std::process::ExitCode;

use crate::args::wan::{WanArgs, WanCommand};
use crate::failure::Failure;

pub(crate) fn run(args: &WanArgs, json: bool) -> Result<ExitCode, Failure> {
    match &args.command {
        WanCommand::Link(args) => link::run(&args.command, json),
        WanCommand::Sim(args) => sim::run(args, json),
        WanCommand::Matrix(args) => matrix::run(args, json),
    }
}
