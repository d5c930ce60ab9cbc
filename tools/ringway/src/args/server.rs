//! Arguments of the commands that run a server or look at the host.

use std::path::PathBuf;

use clap::Args;
use ringway_coord_server::config::{Draft, Key};

pub(crate) const SERVE_HELP: &str = "\
Prints one line `ready ...` on standard output when it serves; logs go to standard error. SIGTERM
and Ctrl-C answer what was asked, close the connections, and stop; a second one stops at once. Who
counts on a lease then works on until it has passed, so the next start grants nothing before that.
SIGHUP reads the credentials and the tunnel's file again.

A flag beats the configuration file, the file beats the default. `--print-config` prints all keys
with their meaning: redirect it into a file to have one to start from.

Examples:
  ringway serve
  ringway serve --print-config > ringway.toml
  ringway serve --config ringway.toml --shards 4
  ringway serve --tunnel near.toml";

/// Declares a flag for each key of the configuration, and what it does to a draft.
macro_rules! config_flags {
    ($($(#[doc = $doc:literal])+ $field:ident: $key:ident $value:literal,)+) => {
        /// Every key of the configuration as a flag. Texts here: `config.rs` reads them, so that a
        /// flag and a line of the file can never mean different things.
        #[derive(Debug, Default, Args)]
        pub(crate) struct ConfigFlags {
            $($(#[doc = $doc])+
            #[arg(long, value_name = $value)]
            $field: Option<String>,)+
        }

        impl ConfigFlags {
            /// Writes what was typed into the draft.
            pub(crate) fn apply(&self, draft: &mut Draft) {
                $(if let Some(text) = &self.$field {
                    draft.flag(Key::$key, text.clone());
                })+
            }
        }
    };
}

config_flags! {
    /// Where clients connect, natively and with RESP [default: 127.0.0.1:7400].
    listen: Listen "ADDR:PORT",
    /// Threads that own slots, one for each core [default: auto, one for each core].
    shards: Shards "N",
    /// Let every shard also listen on a port of its own: the listen port + 1 + the shard
    /// [default: true].
    own_ports: OwnPorts "BOOL",
    /// Where the epoch and the longest lease are kept; `temporary` for a directory that is removed
    /// at the end [default: $XDG_STATE_HOME/ringway or ~/.local/state/ringway].
    state: State "DIR",
    /// Memory that the server may use before it answers FULL: a share of this host's (80%) or a
    /// size (12GiB) [default: 80%].
    max_memory: MaxMemory "SIZE",
    /// The longest lease that a session may ask for, and what an unclean restart may have to wait
    /// [default: 30000].
    max_lease_ms: MaxLease "MS",
    /// How soon silence means trouble: lan, vm or wan [default: lan].
    profile: Profile "PROFILE",
    /// Where /metrics, /healthz and /shards are answered: a loopback address, unix:/path, or off
    /// [default: 127.0.0.1:7480].
    admin: Admin "PLACE",
    /// Who may connect, and to which namespaces: a file that `ringway credentials add` has written,
    /// or off [default: off].
    credentials: Credentials "FILE",
    /// A tunnel that runs on the same shards: the file of one side, as `ringway tunnel --config`
    /// takes it, or off [default: off].
    tunnel: Tunnel "FILE",
    /// How many names a namespace may have, which is what stands before the first / of a name, for
    /// example "orders=1000000, jobs=500" [default: as many as there is room for].
    quotas: Quotas "LIST",
    /// Listen beyond loopback although names and tokens can be read on the way [default: false].
    allow_plain_remote: AllowPlainRemote "BOOL",
    /// Tie every shard to a core: auto (where there is a core for each), true or false
    /// [default: auto].
    pin: Pin "BOOL",
    /// Let a shard look for work for some microseconds before it sleeps: auto (where a core is left
    /// for others), true or false [default: auto].
    spin: Spin "BOOL",
    /// What is logged: error, warn, info, debug or trace [default: info].
    log_level: LogLevel "LEVEL",
    /// How it is logged: text or json [default: text].
    log_format: LogFormat "FORMAT",
    /// How long a stop may take to answer what was asked and close the connections [default: 5000].
    drain_ms: Drain "MS",
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Read this configuration file.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the effective configuration as a file, and stop.
    #[arg(long)]
    pub(crate) print_config: bool,
    #[command(flatten)]
    pub(crate) flags: ConfigFlags,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Where clients connect.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7400")]
    pub(crate) listen: String,
    /// Threads that own slots.
    #[arg(long, value_name = "N", default_value = "auto")]
    pub(crate) shards: String,
    /// Where /metrics, /healthz and /shards are answered.
    #[arg(long, value_name = "PLACE", default_value = "127.0.0.1:7480")]
    pub(crate) admin: String,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The configuration that is meant to be served.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) flags: ConfigFlags,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::Cli;

    /// Every key of the configuration is a flag of `serve`, under the name that error messages use,
    /// and its help names the default that the configuration has.
    #[test]
    fn every_key_is_a_flag() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").expect("there is `serve`");
        for key in Key::ALL {
            let flag = key.flag().trim_start_matches("--");
            let arg = serve.get_arguments().find(|arg| arg.get_long() == Some(flag));
            let help = arg.unwrap_or_else(|| panic!("no flag {flag}")).get_help();
            let help = help.map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("[default: {}", key.default_text())), "{flag}: {help}");
        }
    }
}
