//! The other subcommands, run to their end or left running.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::Receiver;

use rustix::process::Signal;
use serde_json::Value;

use super::server::{Said, gather, lines_of, pause, signal_to};
use super::{PATIENCE, until};

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Told {
    fn from(output: Output) -> Told {
        Told {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

impl Told {
    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn with(self, code: i32) -> Told {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that the complaint has all of these words.
    #[track_caller]
    pub(crate) fn complains(self, words: &[&str]) -> Told {
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in {self:?}");
        }
        self
    }
}

/// Runs a subcommand to its end.
#[track_caller]
pub(crate) fn ringway(words: &[&str]) -> Told {
    Told::from(command(words).output().expect("the binary starts"))
}

/// Runs a subcommand that talks to a server.
#[track_caller]
pub(crate) fn ringway_at(server: SocketAddr, words: &[&str]) -> Told {
    ringway(&[&["--server", &server.to_string()], words].concat())
}

/// The same, with something on its standard input.
#[track_caller]
pub(crate) fn ringway_fed(server: SocketAddr, words: &[&str], input: &[u8]) -> Told {
    let server = server.to_string();
    let mut command = command(&[&["--server", &server], words].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let (mut pipe, input) = (child.stdin.take().expect("piped"), input.to_vec());
    let feeding = std::thread::spawn(move || pipe.write_all(&input));
    let told = Told::from(child.wait_with_output().expect("our child"));
    // One that fails may not have read to the end.
    let _ = feeding.join().expect("no panic");
    told
}

/// Starts a subcommand that stays.
#[track_caller]
pub(crate) fn spawn_at(server: SocketAddr, words: &[&str]) -> Held {
    let server = server.to_string();
    hold(command(&[&["--server", &server, "--timeout-ms", "60000"], words].concat()))
}

/// Starts a program that stays.
#[track_caller]
pub(crate) fn hold(mut command: Command) -> Held {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let lines = lines_of(child.stdout.take().expect("piped"));
    let err = gather(child.stderr.take().expect("piped"));
    Held { child, lines, err }
}

/// A subcommand that is not started yet.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.args(words).stdin(Stdio::null());
    command
}

/// A command that runs. It is killed when the test lets go of it.
pub(crate) struct Held {
    child: Child,
    lines: Receiver<String>,
    err: Said,
}

impl Held {
    /// The next line of its standard output.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("silent; {}", self.err()))
    }

    /// Waits for a line with these words.
    #[track_caller]
    pub(crate) fn line_with(&self, words: &str) -> String {
        std::iter::repeat_with(|| self.line()).find(|line| line.contains(words)).expect("endless")
    }

    pub(crate) fn err(&self) -> String {
        self.err.so_far()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_to(&self.child, signal);
    }

    pub(crate) fn pause(&self) {
        pause(&self.child);
    }

    /// Whether it has ended by itself.
    pub(crate) fn ended(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_some()
    }

    /// Waits for its end; its exit code.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let status = until("the command ends", || self.child.try_wait().expect("our child"));
        self.err.all();
        status.code()
    }
}

impl Held {
    /// Kills it, if it has not ended.
    pub(crate) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end();
    }
}
