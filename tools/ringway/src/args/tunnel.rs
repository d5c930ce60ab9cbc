//! `ringway tunnel ...` as typed.

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct TunnelArgs {
    #[command(subcommand)]
    pub(crate) command: TunnelCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TunnelCommand {
    /// What a censor would make of our first bytes: whether they are chance, and whether chance is
    /// what he looks for.
    #[command(after_help = SELFTEST_HELP)]
    Selftest(SelftestArgs),
}

const SELFTEST_HELP: &str = "\
Nothing is sent and no key is read: messages are made under keys that are drawn for this and
forgotten. Exit code 0 says that they are uniform, as promised; 1 that something gives them away.
The second verdict is for your information: what is uniform is what some censors block.

Examples:
  ringway tunnel selftest
  ringway tunnel selftest --messages 20000 --json";

#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// How many messages of each kind are made. More of them show less of a flaw.
    #[arg(long, default_value_t = 1000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub(crate) messages: u32,
}
