//! `ringway port exec`: a command that runs while a name is held, and not a moment longer.
//!
//! The hard case is a lease that cannot be renewed: nobody tells us when the name becomes
//! another's, so the command has to be dead before our own clock says that it may be.
//!
//! Always:
//! - X1  The command is told to stop when as much of the lease is left as it may take to stop, and
//!   killed before none is left; the margin for clocks that differ is the client library's.
//! - X2  The name is given back after the command is dead, never before.
//! - X3  The command dies with this program, whatever ends it; only what the command has started
//!   in turn may then go on. That is what tokens are for.
//!
//! Tests: below, and `tests/real/exec.rs`.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use ringway_client::Held;
use ringway_client::engine::{Event, Over};
use rustix::process::{
    Pid, Signal, getppid, kill_process, kill_process_group, set_parent_process_death_signal,
    test_kill_process_group,
};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use super::kept::{Claim, Kept, Word, in_time};
use super::{TAKEN, code_of};
use crate::args::client::ServerArgs;
use crate::args::port::{ExecArgs, LeashedArgs};
use crate::failure::{Failure, host};
use crate::output::printable;
use crate::signals::ended_by;

/// The name was lost, and the command was stopped.
const LOST: u8 = 123;
/// The name was not free in time.
const TIMED_OUT: u8 = 124;
/// The command was not run.
const NOT_RUN: u8 = 125;
/// It cannot be run.
const CANNOT_RUN: u8 = 126;
/// There is no such command.
const NOT_FOUND: u8 = 127;

const SIGNALS: [i32; 7] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCHLD];
/// The part of the lease that a killed command may take to be dead.
const KILL_PART: u32 = 20;
/// Between two looks at what a stopped command has left behind.
const GLANCE: Duration = Duration::from_millis(10);
/// The longest rest: while the machine sleeps, the clock of the rest stands still, the lease's not.
const REST_MAX: Duration = Duration::from_secs(1);

pub(super) fn run(args: &ExecArgs, server: &ServerArgs) -> Result<ExitCode, Failure> {
    let (lease, grace) = (args.lease_ms, args.grace_ms);
    if lease / 3 < grace {
        let most = lease / 3;
        return Err(Failure::Usage(format!(
            "--grace-ms {grace}: a lease of {lease} ms leaves at most {most} ms; give a longer \
             --lease-ms"
        )));
    }
    let lease = Duration::from_millis(u64::from(lease));
    let kept = Kept::open(server, Some(lease), &SIGNALS, |_| true).map_err(not_run)?;
    let name = args.name.as_bytes();
    let within = args.timeout.map(|ms| Duration::from_millis(u64::from(ms)));
    let held = match kept.claim(name, args.mode.mode(), within).map_err(not_run)? {
        Claim::Granted(held) => held,
        Claim::Interrupted(signal) => return Ok(ended_by(signal)),
        Claim::TimedOut(last) => {
            kept.session.close();
            let time = in_time(args.timeout.unwrap_or_default(), last);
            let text = format!("{} was not free {time}", printable(name));
            return Err(Failure::Own(TIMED_OUT, text));
        }
    };
    let ended = match Running::start(args, &held) {
        Ok(running) => running.watch(&kept, &held),
        Err(failure) => Err(not_run(failure)),
    };
    drop(held);
    kept.session.close();
    ended
}

fn not_run(failure: Failure) -> Failure {
    match failure {
        Failure::Usage(_) => failure,
        _ => Failure::Own(NOT_RUN, failure.to_string()),
    }
}

/// The command.
struct Running<'a> {
    args: &'a ExecArgs,
    child: Child,
    pid: Pid,
    /// It has a process group of its own, which is signalled as a whole.
    group: bool,
    status: Option<ExitStatus>,
    stopping: Option<Stopping>,
}

/// The name is lost, or nearly so.
struct Stopping {
    why: String,
    kill_at: Instant,
    killed: bool,
}

impl<'a> Running<'a> {
    fn start(args: &'a ExecArgs, held: &Held) -> Result<Running<'a>, Failure> {
        let group = !in_terminal();
        let mut command = Command::new("/proc/self/exe");
        command.arg("leashed").arg(std::process::id().to_string()).arg("--").args(&args.command);
        command
            .env("RINGWAY_TOKEN", held.token().to_string())
            .env("RINGWAY_NAME", OsStr::from_bytes(held.name()))
            .env("RINGWAY_SESSION", held.session().to_string());
        if group {
            command.process_group(0);
        }
        let named = args.command[0].to_string_lossy();
        let child = command.spawn();
        let child = child.map_err(|error| host(&format!("cannot run {named}"), error))?;
        let pid = Pid::from_child(&child);
        Ok(Running { args, child, pid, group, status: None, stopping: None })
    }

    /// Until it has ended.
    fn watch(mut self, kept: &Kept, held: &Held) -> Result<ExitCode, Failure> {
        loop {
            if self.status.is_none() {
                let looked = self.child.try_wait();
                self.status = looked.map_err(|error| host("cannot wait for the command", error))?;
            }
            if let Some(status) = self.status.filter(|_| self.is_over()) {
                return match self.stopping {
                    None => Ok(code_of(status)),
                    Some(Stopping { why, .. }) => Err(Failure::Own(LOST, why)),
                };
            }
            let rest = self.keep_in_time(held, kept.session.over());
            if let Ok(word) = kept.words.recv_timeout(rest) {
                self.hear(word);
            }
        }
    }

    /// Of one that had to stop, all of the group has to be gone.
    fn is_over(&self) -> bool {
        let alone = || !self.group || test_kill_process_group(self.pid).is_err();
        self.stopping.as_ref().is_none_or(|stopping| stopping.killed || alone())
    }

    fn hear(&mut self, word: Word) {
        match word {
            Word::Signal(SIGCHLD) | Word::Claimed(_) => {}
            // The terminal has told it already.
            Word::Signal(SIGINT | SIGQUIT) if !self.group => {}
            Word::Signal(signal) => {
                if let Some(signal) = Signal::from_named_raw(signal) {
                    self.signal(signal);
                }
            }
            Word::Session(Event::AtRisk { left }) => {
                let name = printable(self.args.name.as_bytes());
                eprintln!("ringway: {name} is at risk: no renewal was confirmed; {left:.0?} left");
            }
            Word::Session(Event::Safe) => {
                eprintln!("ringway: {} is safe again", printable(self.args.name.as_bytes()));
            }
            Word::Session(_) => {}
        }
    }

    /// X1. How long it may be left alone.
    fn keep_in_time(&mut self, held: &Held, over: Option<Over>) -> Duration {
        let grace = Duration::from_millis(u64::from(self.args.grace_ms));
        let ahead = Duration::from_millis(u64::from(self.args.lease_ms / KILL_PART));
        let left = held.valid_for();
        if let Some(stopping) = &mut self.stopping {
            let until = stopping.kill_at.saturating_duration_since(Instant::now());
            if until.is_zero() && !stopping.killed {
                stopping.killed = true;
                self.signal(Signal::KILL);
            }
            return if self.status.is_some() { until.min(GLANCE) } else { until.max(GLANCE) };
        }
        if left > grace + ahead {
            return (left - grace - ahead).min(REST_MAX);
        }
        let name = printable(self.args.name.as_bytes());
        let (why, grace) = match (over, left.is_zero()) {
            (Some(Over::Expired), _) | (None, false) => {
                (format!("{name} is lost: its lease could not be renewed"), left - left.min(ahead))
            }
            (Some(over), _) => (format!("{name} is lost: {over}"), grace),
            (None, true) => (format!("{name} is lost: {TAKEN}"), grace),
        };
        eprintln!("ringway: {name} is lost or will be soon; the command is told to stop");
        self.stopping = Some(Stopping { why, kill_at: Instant::now() + grace, killed: false });
        self.signal(self.args.signal);
        Duration::ZERO
    }

    /// It may have ended on its own meanwhile. Until it has been waited for, its id is its own; a
    /// group keeps its id as long as it has anybody.
    fn signal(&self, signal: Signal) {
        let _ = match (self.group, self.status) {
            (true, _) => kill_process_group(self.pid, signal),
            (false, None) => kill_process(self.pid, signal),
            (false, Some(_)) => Ok(()),
        };
    }
}

/// Whether we are what a terminal's keys go to. Then the command has to be in our group, too: in
/// one of its own it could not read from the terminal.
fn in_terminal() -> bool {
    std::fs::read_to_string("/proc/self/stat").is_ok_and(|stat| is_in_foreground(&stat))
}

/// From the line of `/proc/PID/stat`: behind the name in parentheses come the state, the parent,
/// the group, the session, the terminal, and the group that is in the foreground of that.
fn is_in_foreground(stat: &str) -> bool {
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    let fields: Vec<&str> = rest.split(' ').take(6).collect();
    matches!(fields[..], [_, _, group, _, terminal, front] if terminal != "0" && group == front)
}

/// `ringway leashed`: becomes the command, which the kernel kills when its parent ends. The parent
/// is who holds the leash; `ip netns exec` in between becomes this program, and stays its child.
pub(crate) fn leashed(args: &LeashedArgs) -> Failure {
    let named = args.command[0].to_string_lossy();
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return Failure::Own(NOT_RUN, format!("cannot run {named} on a leash: {error}"));
    }
    // It may have ended before the kernel was asked to look.
    if getppid().map(Pid::as_raw_pid) != Some(args.holder) {
        return Failure::Own(NOT_RUN, format!("{named} is not run: who started it has gone"));
    }
    let error = Command::new(&args.command[0]).args(&args.command[1..]).exec();
    match error.kind() {
        ErrorKind::NotFound => Failure::Own(NOT_FOUND, no_such_program(&named)),
        _ => Failure::Own(CANNOT_RUN, format!("cannot run {named}: {error}")),
    }
}

/// What a shell would say, and what to do.
fn no_such_program(named: &str) -> String {
    let remedy = match named.contains('/') {
        true => "the path leads to no program, or to a script whose `#!` line names none",
        false => "it is in no directory of $PATH: install it, or give its path",
    };
    format!("cannot run {named}: no such program; {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program's name may have anything in it, parentheses and blanks as well.
    #[test]
    fn the_foreground_is_read_behind_the_name() {
        assert!(is_in_foreground("17 (a) S (b)) S 1 17 17 34816 17 4194304 0"));
        assert!(!is_in_foreground("17 (sh) S 1 17 17 34816 18 4194304 0"), "in the background");
        assert!(!is_in_foreground("17 (sh) S 1 17 17 0 -1 4194304 0"), "no terminal");
        assert!(!is_in_foreground(""));
    }
}
