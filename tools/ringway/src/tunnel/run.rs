//! `ringway tunnel --config FILE`: one side, until a signal comes.

use std::path::Path;
use std::process::ExitCode;

use ringway_coord_server::config::{LogFormat, LogLevel};
use ringway_tunnel_node::config::{Config, ConfigError};
use ringway_tunnel_node::{Reloaded, StartError, Tunnel};

use crate::args::tunnel::RunArgs;
use crate::failure::Failure;
use crate::notify;
use crate::output::say;
use crate::serve::log;
use crate::signals::{Came, Stop};

pub(super) fn run(path: &Path, args: &RunArgs, json: bool) -> Result<ExitCode, Failure> {
    let config = Config::load(path)?;
    let level = args.log_level.unwrap_or(LogLevel::Info);
    log(level, args.log_format.unwrap_or(LogFormat::Text));
    let stop = Stop::install_with_hangup()?;
    let tunnel = Tunnel::start(config)?;
    let ready = tunnel.ready();
    if json {
        let object = serde_json::to_value(ready).map(|value| value.to_string());
        say(&object.expect("plain numbers and texts"));
    } else {
        say(&ready.to_string());
    }
    notify::ready();
    while let Came::Hangup = stop.next() {
        notify::reloading();
        reload(path, |config| tunnel.reload(config));
        notify::ready();
    }
    tracing::info!("stopping: flows have four seconds to end; a second signal stops at once");
    notify::stopping();
    tunnel.stop();
    tunnel.join().map_err(|error| Failure::Host(error.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads the configuration again. What cannot be read changes nothing.
pub(crate) fn reload(path: &Path, take_over: impl FnOnce(Config) -> Reloaded) {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            return tracing::error!("the tunnel's earlier configuration stays in force: {error}");
        }
    };
    let done = take_over(config);
    for field in &done.restart {
        tracing::warn!("{field}");
    }
    for (address, why) in &done.failed {
        let port = address.port();
        tracing::error!(
            "cannot listen on {address}: {why}; `ss -tulnp 'sport = :{port}'` says who has the \
             port: once it is free, or the file names another, send SIGHUP again"
        );
    }
    let what = match (done.nothing, done.failed.is_empty()) {
        (true, true) => "nothing is different",
        (false, true) => "it is in force",
        (_, false) => "it is in force, but for the ports named above",
    };
    tracing::info!("the tunnel's configuration was read again: {what}");
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        let text = error.to_string();
        if error.is_hosts_doing() { Failure::Host(text) } else { Failure::Usage(text) }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        Failure::Host(error.to_string())
    }
}
