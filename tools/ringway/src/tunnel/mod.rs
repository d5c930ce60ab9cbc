//! `ringway tunnel ...`: two sites that are connected without anybody being able to look in.

mod check;
mod invite;
mod join;
pub(crate) mod run;
mod selftest;
mod status;

use std::process::ExitCode;

use ringway_tunnel_node::PairError;

use crate::args::tunnel::{TunnelArgs, TunnelCommand};
use crate::failure::Failure;

pub(crate) fn run(args: &TunnelArgs, json: bool) -> Result<ExitCode, Failure> {
    // clap would refuse `--json` there, too.
    if let (Some(_), Some(flag)) = (&args.command, args.flag_of_run()) {
        return Err(Failure::Usage(format!(
            "{flag} before a subcommand is for a side that is to run, and would mean nothing: \
             what the subcommand takes stands behind it"
        )));
    }
    match (&args.command, &args.config) {
        (Some(TunnelCommand::Check(args)), _) => check::run(args, json),
        (Some(TunnelCommand::Status(args)), _) => status::run(args, json),
        (Some(TunnelCommand::Invite(args)), _) => invite::run(args, json),
        (Some(TunnelCommand::Join(args)), _) => join::run(args, json),
        (Some(TunnelCommand::Selftest(args)), _) => selftest::run(args, json),
        (None, Some(config)) => run::run(config, &args.run, json),
        (None, None) => Err(Failure::Usage(
            "--config names the file of this side; `ringway tunnel --help` shows the rest".into(),
        )),
    }
}

impl From<PairError> for Failure {
    fn from(error: PairError) -> Failure {
        let text = error.to_string();
        if error.is_hosts_doing() { Failure::Host(text) } else { Failure::Usage(text) }
    }
}
