//! `ringway serve` and `ringway up`: from a configuration to a running server.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use ringway_coord_server::config::{
    Access, AdminPlace, Beside, Config, Draft, Host, Key, LogFormat, LogLevel,
};
use ringway_coord_server::node::{Node, Ready, StartError};
use ringway_tunnel_node::config::Config as TunnelConfig;
use ringway_tunnel_node::{Attendant, Demo, Ready as TunnelReady, Tunnel};
use tracing_subscriber::filter::LevelFilter;

use crate::args::server::{ServeArgs, UpArgs};
use crate::failure::Failure;
use crate::notify;
use crate::output::say;
use crate::signals::{Came, Stop};
use crate::tunnel::run::reload;

const TOUR: &str = "
This server forgets everything when it stops. In another terminal, try:

  ringway port register leader         claim a name and hold it; stop with Ctrl-C
  ringway port query leader            who holds it
  ringway port register leader         a second claim says who holds it, and exits with 1
  ringway shards                       what every shard has and does
  ringway load --duration-s 5          how fast this machine is
";

const TOUR_REDIS: &str = "
Any Redis client works as well, on the same port:

  redis-cli -p PORT SET lock me NX PX 10000
  redis-cli -p PORT GET lock
";

const TOUR_TUNNEL: &str = "
Two sites of an encrypted tunnel run here as well. What follows goes through it; the far site lets
the near one reach this server and nothing else:

  redis-cli -p FORWARD PORT.QUERY leader
  curl --socks5-hostname SOCKS5 ADMIN/metrics
  ringway tunnel status --socket SOCKET
";

/// Runs a server until a signal comes.
pub(crate) fn serve(args: &ServeArgs, json: bool) -> Result<ExitCode, Failure> {
    let mut draft = Draft::default();
    args.flags.apply(&mut draft);
    if let Some(path) = &args.config {
        draft.read_file(path)?;
    }
    let config = draft.check(&Host::probe())?;
    if args.print_config {
        say(&config.to_toml());
        return Ok(ExitCode::SUCCESS);
    }
    run(config, json, |_| None)
}

/// Runs a server that keeps nothing, and says what to do with it.
pub(crate) fn up(args: &UpArgs, json: bool) -> Result<ExitCode, Failure> {
    let mut draft = Draft::default();
    draft.flag(Key::Listen, &*args.listen);
    draft.flag(Key::Shards, &*args.shards);
    draft.flag(Key::Admin, &*args.admin);
    draft.flag(Key::State, "temporary");
    draft.flag(Key::LogLevel, "warn");
    let config = draft.check(&Host::probe())?;
    run(config, json, |node| {
        if json {
            return None;
        }
        let demo = demo(node);
        say(&tour(node, demo.as_ref()));
        demo
    })
}

/// A tunnel to this server. Without one there is less to try, and that is all.
fn demo(node: &Node) -> Option<Demo> {
    let server = *node.addresses().first()?;
    let admin = match node.admin() {
        AdminPlace::Tcp(admin) => Some(*admin),
        AdminPlace::Off | AdminPlace::Unix(_) => None,
    };
    let demo = Demo::start(server, admin.as_slice());
    demo.inspect_err(|error| tracing::warn!("the tour goes without a tunnel: {error}")).ok()
}

fn tour(node: &Node, demo: Option<&Demo>) -> String {
    let Some(addr) = node.addresses().first().copied() else { return TOUR.to_owned() };
    let server = format!("ringway --server {addr} ");
    let usual = addr.port() == 7400 && addr.ip().is_loopback();
    let tour = if usual { TOUR.to_owned() } else { TOUR.replace("ringway ", &server) };
    let mut text = tour + &TOUR_REDIS.replace("PORT", &addr.port().to_string());
    if let Some(demo) = demo {
        text += &tour_of_tunnel(node, demo);
    }
    if let Some(dir) = not_on_path() {
        text += &format!("\nFor the short name: export PATH=\"{}:$PATH\"\n", dir.display());
    }
    text.push_str("\nCtrl-C stops it.\n");
    text
}

fn tour_of_tunnel(node: &Node, demo: &Demo) -> String {
    let admin = match node.admin() {
        AdminPlace::Tcp(admin) => Some(format!("http://{admin}")),
        AdminPlace::Off | AdminPlace::Unix(_) => None,
    };
    let lines = TOUR_TUNNEL.lines().filter(|line| admin.is_some() || !line.contains("ADMIN"));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    text.replace("FORWARD", &demo.forward().port().to_string())
        .replace("SOCKS5", &demo.socks5().to_string())
        .replace("ADMIN", &admin.unwrap_or_default())
        .replace("SOCKET", &demo.socket().display().to_string())
}

/// The directory of this program, if a shell would not find it by its name.
fn not_on_path() -> Option<PathBuf> {
    let dir = std::env::current_exe().ok()?.parent()?.to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|place| place.join("ringway").is_file());
    (!found).then_some(dir)
}

fn run(
    config: Config,
    json: bool,
    greet: impl FnOnce(&Node) -> Option<Demo>,
) -> Result<ExitCode, Failure> {
    log(config.log_level, config.log_format);
    let has_users = matches!(config.access, Access::Users(_));
    // With nothing to read again a closed terminal ends the server.
    let stop = match (has_users, &config.beside) {
        (false, Beside::Nothing) => Stop::install()?,
        _ => Stop::install_with_hangup()?,
    };
    let (node, tunnel) = start(config)?;
    say_ready(&node.ready(), tunnel.as_ref().map(|(tunnel, _)| tunnel.ready()), json);
    notify::ready();
    let demo = greet(&node);
    while let Came::Hangup = stop.next() {
        notify::reloading();
        if has_users {
            reload_credentials(&node);
        }
        if let Some((tunnel, path)) = &tunnel {
            reload(path, |config| tunnel.reload(config));
        }
        notify::ready();
    }
    tracing::info!("stopping; a second signal stops at once");
    notify::stopping();
    node.stop();
    // The server has closed its connections, so the tunnel's flows end by themselves.
    let stopped = demo.map_or(Ok(()), Demo::stop);
    let ended = node.join();
    if let Some((tunnel, _)) = tunnel {
        tunnel.end();
    }
    stopped.map_err(|error| Failure::Host(error.to_string()))?;
    ended.map_err(|error| Failure::Host(error.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

/// The server, and the tunnel on its shards with its file.
type Started = (Node, Option<(Attendant, PathBuf)>);

fn start(config: Config) -> Result<Started, Failure> {
    let hosts_doing = |error: StartError| Failure::Host(error.to_string());
    let Beside::Tunnel(path) = config.beside.clone() else {
        return Ok((Node::start(config).map_err(hosts_doing)?, None));
    };
    let (guest, prepared) = Tunnel::prepare(TunnelConfig::load(&path)?, config.shards)?;
    let (node, lodged) = Node::start_with(config, guest).map_err(hosts_doing)?;
    match prepared.attach(lodged) {
        Ok(tunnel) => Ok((node, Some((tunnel, path)))),
        Err(error) => {
            node.stop();
            // Why it ends is said.
            let _ = node.join();
            Err(error.into())
        }
    }
}

/// One line of text, or one object of JSON. What is the tunnel's says so.
fn say_ready(ready: &Ready, tunnel: Option<&TunnelReady>, json: bool) {
    if json {
        let mut object = serde_json::to_value(ready).expect("plain numbers and texts");
        if let Some(tunnel) = tunnel {
            object["tunnel"] = serde_json::to_value(tunnel).expect("plain numbers and texts");
        }
        return say(&object.to_string());
    }
    let words = tunnel.into_iter().flat_map(TunnelReady::words);
    let words = words.map(|(key, value)| format!(" tunnel_{key}={value}"));
    say(&(ready.to_string() + &words.collect::<String>()));
}

fn reload_credentials(node: &Node) {
    match node.reload_credentials() {
        Ok(users) => tracing::info!("the credentials were read again: {users} users"),
        Err(error) => tracing::error!("the earlier credentials stay in force: {error}"),
    }
}

/// Logs to standard error: standard output is for the ready line.
pub(crate) fn log(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    let log = log.with_ansi(colours);
    match format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
}
