//! `ringway tunnel ...`: sites that are connected.

mod invite;
mod join;

use std::process::ExitCode;

use ringway_tunnel_node::PairError;

use crate::args::tunnel::{TunnelArgs, TunnelCommand};
use crate::failure::Failure;

pub(crate) fn run(args: &TunnelArgs, json: bool) -> Result<ExitCode, Failure> {
    match &args.command {
        TunnelCommand::Invite(args) => invite::run(args, json),
        TunnelCommand::Join(args) => join::run(args, json),
    }
}

impl From<PairError> for Failure {
    fn from(error: PairError) -> Failure {
        let text = error.to_string();
        if error.is_hosts_doing() { Failure::Host(text) } else { Failure::Usage(text) }
    }
}
