//! `ringway load ...`: from the arguments to a load of `ringway-perf`, and its report.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use ringway_perf::{
    BUILT_IN, ConfigError, LoadConfig, LoadError, LoadSpec, Login, MessagesConfig, MessagesSpec,
    Progress, Protocol, Scenario, SessionsConfig, SessionsSpec, WatchersConfig, WatchersSpec, What,
};
use serde::Serialize;
use serde_json::json;

use crate::args::client::ServerArgs;
use crate::args::load::{AgainstArgs, LoadArgs, LoadCommand, LoadFlags, ScenarioArgs};
use crate::connect::credentials;
use crate::failure::{Failure, host};
use crate::output::{answer, say, short};
use crate::signals::Stop;

/// Where Redis listens.
const AGAINST: &str = "127.0.0.1:6379";

/// Queries a second while names are swept.
const SWEEP_RATE: f64 = 20_000.0;

pub(crate) fn run(args: &LoadArgs, server: &ServerArgs, json: bool) -> Result<ExitCode, Failure> {
    let target = Target::new(server)?;
    let what = match &args.command {
        None => What::Load(Box::new(target.load(&args.flags))),
        Some(LoadCommand::Fill(args)) => {
            What::Fill { fill: Box::new(target.load(&args.flags)), churn_half: args.churn_half }
        }
        Some(LoadCommand::Sweep(args)) => {
            let mut load = target.load(&args.flags);
            load.frame = args.flags.frame.unwrap_or(1);
            load.rate = args.flags.rate.or(Some(SWEEP_RATE));
            What::Sweep { load: Box::new(load), doomed: args.doomed }
        }
        Some(LoadCommand::Sessions(args)) => {
            let mut spec = SessionsSpec::default();
            args.flags.apply(&mut spec);
            What::Sessions(Box::new(target.sessions(spec)))
        }
        Some(LoadCommand::Messages(args)) => {
            let mut spec = MessagesSpec::default();
            args.flags.apply(&mut spec);
            What::Messages(Box::new(target.messages(spec)))
        }
        Some(LoadCommand::Watchers(args)) => {
            let mut spec = WatchersSpec::default();
            args.flags.apply(&mut spec);
            What::Watchers(Box::new(target.watchers(spec)))
        }
        Some(LoadCommand::Compare(args)) => {
            let a = target.load(&args.flags);
            let b = other(LoadSpec { protocol: Protocol::Keys, ..a.clone() }, &args.against);
            What::Compare { a: Box::new(a), b: Box::new(b), rounds: args.rounds }
        }
        Some(LoadCommand::Scenario(args)) => match &args.scenario {
            None => return list(json),
            Some(name) => target.scenario(name, args)?,
        },
    };
    let stop = Stop::install()?;
    perform(what, stop.flag(), json)?;
    Ok(ExitCode::SUCCESS)
}

/// The server under load.
struct Target {
    addr: String,
    login: Option<Login>,
}

impl Target {
    fn new(server: &ServerArgs) -> Result<Target, Failure> {
        let login = credentials(server)?;
        let login = login.map(|given| Login { user: given.user, password: given.password });
        Ok(Target { addr: server.server.clone(), login })
    }

    fn load(&self, flags: &LoadFlags) -> LoadSpec {
        let mut spec = LoadSpec::default();
        flags.apply(&mut spec);
        // One key a command is all that `keys` has; whoever asked for more is told so.
        if spec.protocol == Protocol::Keys && flags.frame.is_none() {
            spec.frame = 1;
        }
        self.aim(spec)
    }

    fn aim(&self, spec: LoadSpec) -> LoadSpec {
        LoadSpec { target: self.addr.clone(), credentials: self.login.clone(), ..spec }
    }

    fn sessions(&self, spec: SessionsSpec) -> SessionsSpec {
        SessionsSpec { target: self.addr.clone(), credentials: self.login.clone(), ..spec }
    }

    fn messages(&self, spec: MessagesSpec) -> MessagesSpec {
        MessagesSpec { target: self.addr.clone(), credentials: self.login.clone(), ..spec }
    }

    fn watchers(&self, spec: WatchersSpec) -> WatchersSpec {
        WatchersSpec { target: self.addr.clone(), credentials: self.login.clone(), ..spec }
    }

    /// A built-in scenario, or that of a file, aimed at our targets.
    fn scenario(&self, name: &str, args: &ScenarioArgs) -> Result<What, Failure> {
        let scenario = if BUILT_IN.iter().any(|(known, _)| *known == name) || !name.contains('.') {
            Scenario::built_in(name)
        } else {
            let read = std::fs::read_to_string(name);
            let text = read.map_err(|error| host(&format!("cannot read {name}"), error))?;
            Scenario::parse(name, &text)
        };
        let scenario = scenario.map_err(usage)?;
        eprintln!("{}", scenario.question);
        let ours = |mut spec: Box<LoadSpec>| {
            spec.duration_s = args.duration_s.unwrap_or(spec.duration_s);
            spec.pid = args.pid.or(spec.pid);
            Box::new(self.aim(*spec))
        };
        Ok(match scenario.what {
            What::Load(load) => What::Load(ours(load)),
            What::Fill { fill, churn_half } => What::Fill { fill: ours(fill), churn_half },
            What::Sweep { load, doomed } => What::Sweep { load: ours(load), doomed },
            What::Sessions(mut spec) => {
                spec.duration_s = args.duration_s.unwrap_or(spec.duration_s);
                spec.pid = args.pid.or(spec.pid);
                What::Sessions(Box::new(self.sessions(*spec)))
            }
            What::Messages(mut spec) => {
                spec.duration_s = args.duration_s.unwrap_or(spec.duration_s);
                spec.pid = args.pid.or(spec.pid);
                What::Messages(Box::new(self.messages(*spec)))
            }
            What::Watchers(mut spec) => {
                spec.pid = args.pid.or(spec.pid);
                What::Watchers(Box::new(self.watchers(*spec)))
            }
            What::Compare { a, mut b, rounds } => {
                b.duration_s = args.duration_s.unwrap_or(b.duration_s);
                let b = Box::new(other(*b, &args.against));
                What::Compare { a: ours(a), b, rounds }
            }
        })
    }
}

/// The other side of a comparison. Our credentials are none of its business.
fn other(mut spec: LoadSpec, against: &AgainstArgs) -> LoadSpec {
    spec.target = against.against.clone().unwrap_or_else(|| AGAINST.to_owned());
    spec.protocol = against.against_protocol.map_or(spec.protocol, Protocol::from);
    if spec.protocol == Protocol::Keys {
        spec.frame = 1;
    }
    spec.pid = against.against_pid;
    spec.credentials = None;
    spec
}

fn list(json: bool) -> Result<ExitCode, Failure> {
    let scenarios: Vec<(&str, String)> = BUILT_IN
        .iter()
        .map(|(name, _)| Scenario::built_in(name).map(|scenario| (*name, scenario.question)))
        .collect::<Result<_, _>>()
        .map_err(usage)?;
    let values: Vec<_> = scenarios
        .iter()
        .map(|(name, question)| json!({ "name": name, "question": question }))
        .collect();
    answer(json, &values, || {
        scenarios.iter().map(|(name, question)| format!("{name:<18}{question}\n")).collect()
    });
    Ok(ExitCode::SUCCESS)
}

fn perform(what: What, stop: &AtomicBool, json: bool) -> Result<(), Failure> {
    let mut line = Live::new();
    let mut tell = |progress: &Progress| line.show(progress);
    match what {
        What::Load(spec) => {
            let config = LoadConfig::new(*spec).map_err(usage)?;
            report(json, ringway_perf::run(&config, stop, &mut tell))
        }
        What::Fill { fill, churn_half } => {
            let config = LoadConfig::new(*fill).map_err(usage)?;
            report(json, ringway_perf::fill(&config, churn_half, stop, &mut tell))
        }
        What::Sweep { load, doomed } => {
            let config = LoadConfig::new(*load).map_err(usage)?;
            report(json, ringway_perf::sweep(&config, doomed, stop, &mut tell))
        }
        What::Sessions(spec) => {
            let config = SessionsConfig::new(*spec).map_err(usage)?;
            report(json, ringway_perf::run_sessions(&config, stop, &mut tell))
        }
        What::Messages(spec) => {
            let config = MessagesConfig::new(*spec).map_err(usage)?;
            report(json, ringway_perf::run_messages(&config, stop, &mut tell))
        }
        What::Watchers(spec) => {
            let config = WatchersConfig::new(*spec).map_err(usage)?;
            report(json, ringway_perf::run_watchers(&config, stop, &mut tell))
        }
        What::Compare { a, b, rounds } => {
            let a = LoadConfig::new(*a).map_err(usage)?;
            let b = LoadConfig::new(*b).map_err(usage)?;
            report(json, ringway_perf::compare(&a, &b, rounds, stop, &mut tell))
        }
    }
}

fn report<T: Serialize + ToString>(
    json: bool,
    result: Result<T, LoadError>,
) -> Result<(), Failure> {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    match result {
        Ok(report) => {
            answer(json, &report, || report.to_string());
            Ok(())
        }
        Err(error) => {
            // A run that failed by its replies is worth a look all the same.
            if let Some(report) = error.report() {
                if json {
                    answer(json, report, String::new);
                } else {
                    say(&report.to_string());
                }
            }
            Err(failure(error))
        }
    }
}

fn usage(error: ConfigError) -> Failure {
    Failure::Usage(error.to_string())
}

fn failure(error: LoadError) -> Failure {
    let text = error.to_string();
    match error {
        LoadError::Config(error) => usage(error),
        LoadError::Client(error) => error.into(),
        LoadError::Unexpected { .. }
        | LoadError::Greeting { .. }
        | LoadError::Doomed { .. }
        | LoadError::Undelivered { .. }
        | LoadError::NotSwept { .. } => Failure::Refused(text),
        LoadError::Connect { .. }
        | LoadError::Io { .. }
        | LoadError::Closed { .. }
        | LoadError::Broken { .. }
        | LoadError::NotRingway(_)
        | LoadError::Unanswered { .. } => Failure::Unreachable(text),
        LoadError::Descriptors { .. }
        | LoadError::Pin { .. }
        | LoadError::Process { .. }
        | LoadError::System { .. }
        | LoadError::ThreadDied => Failure::Host(text),
    }
}

/// How it is going, on standard error: one line that is overwritten on a terminal, one line a
/// phase elsewhere.
struct Live {
    terminal: bool,
    phase: &'static str,
}

impl Live {
    fn new() -> Live {
        Live { terminal: std::io::stderr().is_terminal(), phase: "" }
    }

    fn show(&mut self, progress: &Progress) {
        let Progress { phase, elapsed_s, done, ops, ops_per_s, worst_us } = progress;
        let mut err = std::io::stderr().lock();
        // Nobody listens any more: go on measuring.
        let _ = if self.terminal {
            let (percent, ops, per_s) = (done * 100.0, short(*ops as f64), short(*ops_per_s));
            write!(
                err,
                "\r\x1b[K{elapsed_s:6.1} s  {phase} {percent:.0} %  {ops} ops, {per_s}/s, \
                 worst {worst_us:.0} us"
            )
            .and_then(|()| err.flush())
        } else if self.phase != *phase {
            writeln!(err, "{phase}")
        } else {
            Ok(())
        };
        self.phase = phase;
    }
}
