//! `ringway port ...`: names from the outside.

mod deadlock;
mod exec;
mod kept;
mod messages;
mod meta;
mod moves;
mod wait;
mod waiters;
mod watch;

pub(crate) use exec::leashed;

use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::Duration;

use ringway_client::{Client, ListedName, Owner, Refusal, Registered};
use ringway_core::Token;
use serde_json::{Value, json};

use crate::args::Name;
use crate::args::client::ServerArgs;
use crate::args::port::{PortCommand, PortListArgs, QueryArgs, RegisterArgs, ReleaseArgs};
use crate::connect::{SavedSession, connect};
use crate::failure::{Failure, host};
use crate::output::{answer, bytes_json, code, printable, say, table};
use crate::session::Lease;
use crate::signals::Stop;

/// How soon a signal or the end of the command is noticed.
const GLANCE: Duration = Duration::from_millis(50);
/// Why a name is lost while its session goes on.
const TAKEN: &str = "an operator has taken it";

pub(crate) fn run(
    command: &PortCommand,
    server: &ServerArgs,
    json: bool,
) -> Result<ExitCode, Failure> {
    match command {
        PortCommand::Register(args) => register(args, server, json),
        PortCommand::Release(args) => release(args, server, json),
        PortCommand::Query(args) => query(args, server, json),
        PortCommand::List(args) => list(args, server, json),
        PortCommand::Wait(args) => wait::run(args, server, json),
        PortCommand::Exec(args) => exec::run(args, server),
        PortCommand::Meta(args) => meta::run(args, server, json),
        PortCommand::Transfer(args) => moves::transfer(args, server, json),
        PortCommand::Revoke(args) => moves::revoke(args, server, json),
        PortCommand::Waiters(args) => waiters::run(args, server, json),
        PortCommand::Watch(args) => watch::run(args, server, json),
        PortCommand::Send(args) => messages::send(args, server, json),
        PortCommand::Listen(args) => messages::listen(args, server, json),
    }
}

fn bytes(names: &[Name]) -> Vec<&[u8]> {
    names.iter().map(|name| name.as_bytes()).collect()
}

/// What became of one name, for people and for programs.
struct Line {
    name: Vec<u8>,
    what: &'static str,
    owner: Option<Owner>,
    why: Option<String>,
}

impl Line {
    fn new(name: &[u8], what: &'static str, owner: Option<Owner>) -> Self {
        Self { name: name.to_vec(), what, owner, why: None }
    }

    fn refused(name: &[u8], why: Refusal) -> Self {
        Self { name: name.to_vec(), what: "refused", owner: None, why: Some(why.to_string()) }
    }

    fn text(&self) -> String {
        let mut text = format!("{}  {}", printable(&self.name), self.what);
        if let Some(owner) = &self.owner {
            text.push_str(&format!("  session {}  token {}", owner.session, owner.token));
        }
        if let Some(why) = &self.why {
            text.push_str(&format!("  {why}"));
        }
        text
    }

    fn json(&self) -> Value {
        json!({
            "name": bytes_json(&self.name),
            "result": self.what,
            "session": self.owner.as_ref().map(|owner| owner.session.to_string()),
            "token": self.owner.as_ref().map(|owner| owner.token.to_string()),
            "why": self.why,
        })
    }

    /// Prints it alone, where a command is about one name.
    fn print(&self, json: bool) {
        answer(json, &self.json(), || self.text());
    }
}

fn print(json: bool, lines: &[Line]) {
    let values: Vec<Value> = lines.iter().map(Line::json).collect();
    answer(json, &values, || lines.iter().map(|line| line.text() + "\n").collect());
}

fn register(args: &RegisterArgs, server: &ServerArgs, json: bool) -> Result<ExitCode, Failure> {
    let stop = Stop::install()?;
    let mut client = connect(server)?;
    if let Some(path) = &args.session {
        client.attach(SavedSession::load(path)?)?;
    }
    let names = bytes(&args.names);
    let results = client.register_as(&names, args.mode.mode())?;
    let mut first: Option<Owner> = None;
    let mut held = Vec::new();
    let lines: Vec<Line> = names
        .iter()
        .zip(results)
        .map(|(name, result)| match result {
            Ok(Registered::Granted(owner)) => {
                held.push((name.to_vec(), owner.token));
                first = first.or(Some(owner));
                Line::new(name, "granted", Some(owner))
            }
            Ok(Registered::Held(owner)) => Line::new(name, "held", Some(owner)),
            Err(refusal) => Line::refused(name, refusal),
        })
        .collect();
    let all_granted = lines.iter().all(|line| line.what == "granted");
    // A command's output is the command's; what it holds is said beside it.
    let for_command = !args.command.is_empty();
    if for_command && !json {
        lines.iter().for_each(|line| eprintln!("ringway: {}", line.text()));
    } else {
        print(json, &lines);
    }
    let Some(owner) = first.filter(|_| all_granted) else { return Ok(code(false)) };
    if args.session.is_some() || args.once {
        return Ok(code(true));
    }
    let lease = client.session(owner.session)?.lease;
    let mut holding = Holding { lease: Lease::new(owner.session, lease), held };
    if for_command {
        return run_while_holding(&args.command, owner.token, &stop, || {
            holding.keep(&mut client, |name| Err(taken(name)))
        });
    }
    if !json {
        say("held until Ctrl-C");
    }
    while !stop.wait_for(GLANCE) {
        holding.keep(&mut client, |name| {
            Line { why: Some(TAKEN.to_owned()), ..Line::new(name, "lost", None) }.print(json);
            Ok(())
        })?;
    }
    give_back(&mut client)?;
    Ok(code(true))
}

/// Names that are held by the session of a connection.
struct Holding {
    lease: Lease,
    held: Vec<(Vec<u8>, Token)>,
}

impl Holding {
    /// Keeps them. `go_on` says whether to do so without a name that was taken; without the last
    /// one nobody does.
    fn keep(
        &mut self,
        client: &mut Client,
        mut go_on: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for lost in self.lease.keep(client)? {
            let before = self.held.len();
            self.held.retain(|held| *held != lost);
            match self.held.len() {
                0 => return Err(taken(&lost.0)),
                left if left < before => go_on(&lost.0)?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn taken(name: &[u8]) -> Failure {
    Failure::Refused(format!("{} is lost: {TAKEN}", printable(name)))
}

/// Ends the session, so that the names are free before this program has gone.
fn give_back(client: &mut Client) -> Result<(), Failure> {
    client.close_session(None)?;
    Ok(())
}

/// Runs the command while `keep` succeeds. Signals to us are passed on: a terminal sends Ctrl-C to
/// the command as well, a supervisor's SIGTERM reaches only us.
fn run_while_holding(
    command: &[Name],
    token: Token,
    stop: &Stop,
    mut keep: impl FnMut() -> Result<(), Failure>,
) -> Result<ExitCode, Failure> {
    let (program, arguments) = command.split_first().expect("the caller has looked");
    let spawned =
        Command::new(program).args(arguments).env("RINGWAY_TOKEN", token.to_string()).spawn();
    let named = program.to_string_lossy();
    let mut child = spawned.map_err(|error| host(&format!("cannot run {named}"), error))?;
    loop {
        let ended = child.try_wait().map_err(|error| host("cannot wait for the command", error))?;
        if let Some(status) = ended {
            return Ok(code_of(status));
        }
        if stop.wait_for(GLANCE) {
            terminate(&child);
        }
        if let Err(lost) = keep() {
            eprintln!("ringway: {lost}; sending SIGTERM to {named}");
            terminate(&child);
            let _ = child.wait();
            return Err(lost);
        }
    }
}

fn terminate(child: &Child) {
    use rustix::process::{Pid, Signal, kill_process};
    // It may have ended on its own between the look and the signal; it has not been waited for, so
    // its id is still its own.
    let _ = Pid::from_raw(child.id() as i32).map(|pid| kill_process(pid, Signal::TERM));
}

/// The command's exit code; for one that a signal has ended, the number that a shell would give.
pub(crate) fn code_of(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let number = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(number.unwrap_or(1) as u8)
}

fn release(args: &ReleaseArgs, server: &ServerArgs, json: bool) -> Result<ExitCode, Failure> {
    if args.token.is_some() && args.names.len() > 1 {
        return Err(Failure::Usage("--token is for a single name".to_owned()));
    }
    let proof = SavedSession::load(&args.session)?;
    let mut client = connect(server)?;
    client.attach(proof)?;
    let names = bytes(&args.names);
    let results = match args.token {
        Some(token) => client.release_if(&[(names[0], Token(token))])?,
        None => client.release(&names)?,
    };
    let lines: Vec<Line> = names
        .iter()
        .zip(results)
        .map(|(name, result)| match result {
            Ok(()) => Line::new(name, "released", None),
            Err(refusal) => Line::refused(name, refusal),
        })
        .collect();
    print(json, &lines);
    Ok(code(lines.iter().all(|line| line.why.is_none())))
}

fn query(args: &QueryArgs, server: &ServerArgs, json: bool) -> Result<ExitCode, Failure> {
    let names = bytes(&args.names);
    let results = connect(server)?.query(&names)?;
    let lines: Vec<Line> = names
        .iter()
        .zip(results)
        .map(|(name, result)| match result {
            Ok(Some(owner)) => Line::new(name, "owned", Some(owner)),
            Ok(None) => Line::new(name, "free", None),
            Err(refusal) => Line::refused(name, refusal),
        })
        .collect();
    print(json, &lines);
    Ok(code(lines.iter().all(|line| line.why.is_none())))
}

fn list(args: &PortListArgs, server: &ServerArgs, json: bool) -> Result<ExitCode, Failure> {
    let most = if args.limit == 0 { u64::MAX } else { args.limit };
    let (mut names, mut more) = (Vec::new(), false);
    connect(server)?.list_all(args.prefix.as_bytes(), |name| {
        more = names.len() as u64 >= most;
        if !more {
            names.push(name.clone());
        }
        !more
    })?;
    let values: Vec<Value> = names.iter().map(listed_json).collect();
    answer(json, &json!({ "names": values, "more": more }), || {
        let rows: Vec<_> = names.iter().map(listed_row).collect();
        let rest = if more { "... and more: --limit 0 shows all\n" } else { "" };
        table(&["name", "session", "token"], &rows) + rest
    });
    Ok(code(true))
}

fn listed_row(listed: &ListedName) -> Vec<String> {
    vec![printable(&listed.name), listed.session.to_string(), listed.token.to_string()]
}

fn listed_json(listed: &ListedName) -> Value {
    json!({
        "name": bytes_json(&listed.name),
        "session": listed.session.to_string(),
        "token": listed.token.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use ringway_client::Durability;
    use ringway_core::SessionId;

    use super::*;

    /// What a script parses: one line a name, the word second; JSON with every field always there.
    #[test]
    fn lines_and_json_say_the_same() {
        let durability = Durability::Ephemeral;
        let owner = Owner { session: SessionId(0xAB), token: Token(9), durability };
        let line = Line::new(b"orders/17", "held", Some(owner));
        assert_eq!(line.text(), "orders/17  held  session 00000000000000ab  token 9");
        let expected = json!({
            "name": "orders/17", "result": "held", "session": "00000000000000ab", "token": "9",
            "why": null,
        });
        assert_eq!(line.json(), expected);
        let refused = Line::refused(b"\x01", Refusal::Full);
        assert!(refused.text().starts_with("\\x01  refused  "), "{}", refused.text());
        assert_eq!(refused.json()["token"], Value::Null);
    }

    /// The command's exit code is ours; one that a signal ended counts as in a shell.
    #[test]
    fn exit_codes_of_commands() {
        assert_eq!(code_of(ExitStatus::from_raw(7 << 8)), ExitCode::from(7));
        assert_eq!(code_of(ExitStatus::from_raw(15)), ExitCode::from(143));
    }
}
