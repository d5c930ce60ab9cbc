//! `ringway tunnel ...`: two sites that are connected without anybody being able to look in.

mod selftest;

use std::process::ExitCode;

use crate::args::tunnel::TunnelCommand;
use crate::failure::Failure;

pub(crate) fn run(command: &TunnelCommand, json: bool) -> Result<ExitCode, Failure> {
    match command {
        TunnelCommand::Selftest(args) => selftest::run(args, json),
    }
}
