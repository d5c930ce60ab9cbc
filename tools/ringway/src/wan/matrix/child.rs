//! A program in a namespace that ends with us, and waiting for it without missing a signal.

use std::fs::{read_dir, read_to_string};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::failure::{Failure, host};
use crate::signals::Stop;
use crate::wan::{leashed_in, own_program};

/// Between two looks.
const GLANCE: Duration = Duration::from_millis(20);
/// What a program may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a run came to no result.
#[derive(Debug)]
pub(super) enum Stopped {
    /// By a signal.
    ByUser,
    /// This host lacks something.
    Failed(Failure),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Stopped {
        Stopped::Failed(failure)
    }
}

/// A program that runs in a namespace. It is killed when this goes, and when we end by ourselves or
/// are killed.
pub(super) struct Program {
    child: Child,
    name: String,
    /// What it says, read as it comes, so that it never waits for us.
    said: Option<JoinHandle<String>>,
    complained: Option<JoinHandle<String>>,
}

impl Program {
    /// Starts a program.
    pub(super) fn start(space: &str, words: &[&str]) -> Result<Program, Stopped> {
        let mut command = leashed_in(space);
        command.args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn();
        let mut child = child.map_err(|error| host("cannot run `ip netns exec`", error))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (said, complained) = (out.map(all_of), err.map(all_of));
        let name = if words[0] == own_program() { "ringway" } else { words[0] };
        Ok(Program { child, name: name.to_owned(), said, complained })
    }

    /// Processor time that it has used, in seconds.
    pub(super) fn cpu_s(&self) -> f64 {
        let stat = read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // Its name may have spaces and brackets: what follows the last one is plain.
        let plain = stat.rsplit(')').next().unwrap_or_default();
        let ticks = plain.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }

    /// Time for which its threads could have run and had no processor, in seconds; `None` where the
    /// kernel does not say.
    pub(super) fn waited_s(&self) -> Option<f64> {
        let threads = read_dir(format!("/proc/{}/task", self.child.id())).ok()?;
        let mut waited_ns = 0;
        for thread in threads.flatten() {
            // One that has ended meanwhile says nothing any more.
            let Ok(stat) = read_to_string(thread.path().join("schedstat")) else { continue };
            waited_ns += stat.split_whitespace().nth(1)?.parse::<u64>().ok()?;
        }
        Some(waited_ns as f64 / 1e9)
    }

    /// Waits until something in its namespace listens on this TCP port.
    pub(super) fn until_listening(&mut self, port: u16, stop: &Stop) -> Result<(), Stopped> {
        let pid = self.child.id();
        self.until(&format!("port {port}"), || listens(pid, port), stop)
    }

    /// Waits until it takes orders at this path.
    pub(super) fn until_bound(&mut self, path: &Path, stop: &Stop) -> Result<(), Stopped> {
        // It is there before anybody listens.
        self.until(&path.display().to_string(), || UnixStream::connect(path).is_ok(), stop)
    }

    fn until(
        &mut self,
        place: &str,
        listens: impl Fn() -> bool,
        stop: &Stop,
    ) -> Result<(), Stopped> {
        let begun = Instant::now();
        while !listens() {
            if self.has_ended()? {
                let why = self.last_words();
                let text = format!("{} ended before it listened: {why}", self.name);
                return Err(Stopped::Failed(Failure::Host(text)));
            }
            if begun.elapsed() > PATIENCE {
                let text = format!("{} does not listen at {place} after 20 s", self.name);
                return Err(Stopped::Failed(Failure::Host(text)));
            }
            glance(stop)?;
        }
        Ok(())
    }

    /// Waits until it has ended well.
    pub(super) fn until_done(mut self, stop: &Stop) -> Result<(), Stopped> {
        let ended = self.until_ended(PATIENCE, stop)?;
        if ended && self.child.wait().is_ok_and(|status| status.success()) {
            return Ok(());
        }
        let why = self.last_words();
        Err(Stopped::Failed(Failure::Host(format!("{} failed: {why}", self.name))))
    }

    /// Waits until it has ended, but not longer than this; whether it has.
    pub(super) fn until_ended(&mut self, most: Duration, stop: &Stop) -> Result<bool, Stopped> {
        let begun = Instant::now();
        while !self.has_ended()? {
            if begun.elapsed() > most {
                return Ok(false);
            }
            glance(stop)?;
        }
        Ok(true)
    }

    fn has_ended(&mut self) -> Result<bool, Stopped> {
        let ended = self.child.try_wait();
        Ok(ended.map_err(|error| host("cannot wait for a program", error))?.is_some())
    }

    /// What it has printed, once it has ended or was killed.
    pub(super) fn output(&mut self) -> String {
        self.end();
        text_of(self.said.take())
    }

    /// Likewise, its complaint.
    pub(super) fn last_words(&mut self) -> String {
        self.end();
        text_of(self.complained.take()).trim().to_owned()
    }

    fn end(&mut self) {
        // One that has ended already needs nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

fn all_of(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = Vec::new();
        // What was read until it broke is all there is.
        let _ = pipe.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}

fn text_of(reader: Option<JoinHandle<String>>) -> String {
    reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
}

fn glance(stop: &Stop) -> Result<(), Stopped> {
    if stop.wait_for(GLANCE) { Err(Stopped::ByUser) } else { Ok(()) }
}

/// Whether somebody listens on this port in the network namespace of this process.
fn listens(pid: u32, port: u16) -> bool {
    ["tcp", "tcp6"].iter().any(|table| {
        let table = read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        is_listening(&table, port)
    })
}

/// Whether a table of the kernel's sockets has one that listens on this port.
fn is_listening(table: &str, port: u16) -> bool {
    let local = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let at = words.next().is_some_and(|address| address.ends_with(&local));
        at && words.nth(1) == Some("0A")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n   \
                     0: 0100007F:1451 00000000:0000 0A 00000000:00000000\n   \
                     1: 0100007F:1F90 0100007F:D431 01 00000000:00000000\n";
        assert!(is_listening(table, 5201));
        assert!(!is_listening(table, 8080), "that is connected");
        assert!(!is_listening(table, 80) && !is_listening("", 5201));
    }
}
