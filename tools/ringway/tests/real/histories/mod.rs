//! Histories of real processes: what each of them did and saw is noted as it happens, while they
//! are killed, stand still for longer than their leases, and lose their connections; then judged.
//!
//! `worker` is what such a process does, `locks` judges critical sections, `names` judges what was
//! asked and answered about a sample of names, with the checker that the simulator uses.
//!
//! A process writes each line at once and whole, so that what it had written counts if it is killed
//! in the next moment. All moments are of one clock of the machine.

mod locks;
mod names;
mod worker;

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{pause, signal_to};

/// The lease of all sessions here: short, because each pause has to be longer.
const LEASE: Duration = Duration::from_millis(600);

/// A process that does what `worker` says. It is killed when the test lets go of it, and ends by
/// itself if the test's process is killed.
struct Worker {
    child: Child,
    node: u64,
}

impl Worker {
    /// `what` is its work, and what it needs to know for that.
    fn start(what: &str, server: SocketAddr, node: u64, notes: &Path) -> Worker {
        let words = format!("{what} {server} {node} {}", notes.display());
        let child = Command::new(std::env::current_exe().expect("a test has a path"))
            .args(["--exact", "histories::worker::works", "--nocapture"])
            .env(worker::WORDS, words)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        Worker { child, node }
    }

    fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("our child");
    }

    fn pause(&self) {
        pause(&self.child);
    }

    fn go_on(&self) {
        signal_to(&self.child, Signal::CONT);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines that a file has so far, of which only new ones are read.
struct Notes {
    path: PathBuf,
    file: Option<File>,
    rest: String,
    lines: Vec<String>,
}

impl Notes {
    fn at(path: PathBuf) -> Notes {
        Notes { path, file: None, rest: String::new(), lines: Vec::new() }
    }

    fn look(&mut self) -> &[String] {
        self.file = self.file.take().or_else(|| File::open(&self.path).ok());
        if let Some(file) = &mut self.file {
            file.read_to_string(&mut self.rest).expect("notes are text");
            let whole = self.rest.rfind('\n').map_or(0, |at| at + 1);
            self.lines.extend(self.rest[..whole].lines().map(str::to_owned));
            self.rest.drain(..whole);
        }
        &self.lines
    }
}
