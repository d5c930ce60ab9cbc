//! `ringway tunnel ...`: two sites that are connected without anybody being able to look in.

mod invite;
mod join;
mod selftest;

use std::process::ExitCode;

use ringway_tunnel_node::PairError;

use crate::args::tunnel::TunnelCommand;
use crate::failure::Failure;

pub(crate) fn run(command: &TunnelCommand, json: bool) -> Result<ExitCode, Failure> {
    match command {
        TunnelCommand::Invite(args) => invite::run(args, json),
        TunnelCommand::Join(args) => join::run(args, json),
        TunnelCommand::Selftest(args) => selftest::run(args, json),
    }
}

impl From<PairError> for Failure {
    fn from(error: PairError) -> Failure {
        let text = error.to_string();
        if error.is_hosts_doing() { Failure::Host(text) } else { Failure::Usage(text) }
    }
}
