//! The socket by which running links are asked and told, at `/run/ringway-wan/NAME.sock`.
//!
//! A request is one line of JSON, the answer is one object. The directory and the socket are their
//! owner's alone: who may change a link may lose any packet.
//!
//! Bounds: one at a time; each has two seconds, a request 4 KiB.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringway_ring::Bell;
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use super::pump::{Pump, Trouble};
use super::{LinkError, host, spaces};
use crate::line::Counts;

const DIR: &str = "/run/ringway-wan";
const PATIENCE: Duration = Duration::from_secs(2);
const REQUEST_BYTES_MAX: u64 = 4096;

/// What is asked of running links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// What they are and have done.
    Show,
    /// To become others.
    Set {
        /// Which one, from 1 on; all of them without.
        link: Option<usize>,
        /// What it is to be like, in the words of [`crate::Link`].
        words: String,
    },
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What the links are and have done, after what was asked for.
    Status(Status),
    /// Nothing was changed, because the words were wrong.
    Wrong(String),
    /// The host did not do it.
    Failed(String),
}

/// Running links.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// What they are called.
    pub name: String,
    /// Who runs them.
    pub pid: u32,
    /// What losses were drawn from.
    pub seed: u64,
    /// For how long.
    pub uptime_ms: u64,
    /// The two namespaces.
    pub namespaces: [String; 2],
    /// The links, the first one first.
    pub links: Vec<LinkStatus>,
}

/// One of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Its number, from 1 on.
    pub link: usize,
    /// Its device in both namespaces.
    pub device: String,
    /// The addresses of its two ends.
    pub addresses: [String; 2],
    /// The same in IPv6.
    pub addresses6: [String; 2],
    /// What it is like, in the words that make it so.
    pub words: String,
    /// From the first namespace to the second.
    pub there: WayStatus,
    /// From the second to the first.
    pub back: WayStatus,
}

/// One direction of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WayStatus {
    /// What the line did.
    #[serde(flatten)]
    pub counts: Counts,
    /// What was not its doing.
    #[serde(flatten)]
    pub trouble: Trouble,
    /// Packets that the kernel dropped at the entrance before we could read them.
    pub device_dropped: u64,
    /// Bytes that wait for the bottleneck.
    pub waiting_bytes: u64,
}

impl WayStatus {
    /// Packets that got lost without the line's having wanted it.
    pub fn own_losses(&self) -> u64 {
        self.trouble.refused + self.trouble.no_memory + self.device_dropped
    }
}

/// Who answers.
pub(super) struct Asked {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    name: String,
    seed: u64,
    pumps: Vec<Pump>,
    begun: Instant,
    path: PathBuf,
    stop: AtomicBool,
    bell: Bell,
}

/// Where a run is asked.
pub(super) fn socket_of(name: &str) -> PathBuf {
    Path::new(DIR).join(format!("{name}.sock"))
}

/// Asks the run of this name.
///
/// # Errors
/// When nobody answers.
pub fn ask(name: &str, request: &Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket_of(name))?;
    stream.set_read_timeout(Some(10 * PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    writeln!(stream, "{}", serde_json::to_string(request)?)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    serde_json::from_str(&text).map_err(io::Error::other)
}

impl Asked {
    pub(super) fn start(
        (name, seed): (&str, u64),
        pumps: Vec<Pump>,
        begun: Instant,
    ) -> Result<Asked, LinkError> {
        let path = socket_of(name);
        let listener = bind(&path).map_err(host("cannot make the socket in /run/ringway-wan"))?;
        let bell = Bell::new().map_err(host("cannot make an eventfd"))?;
        let stop = AtomicBool::new(false);
        let shared =
            Arc::new(Shared { name: name.to_owned(), seed, pumps, begun, path, stop, bell });
        let mut asked = Asked { shared: Arc::clone(&shared), thread: None };
        let thread = std::thread::Builder::new().name("ringway-asked".to_owned());
        let thread = thread.spawn(move || shared.serve(&listener));
        asked.thread = Some(thread.map_err(host("cannot start a thread"))?);
        Ok(asked)
    }

    pub(super) fn status(&self) -> io::Result<Status> {
        self.shared.status()
    }

    pub(super) fn ended(&self) -> Option<String> {
        let ended = self.shared.pumps.iter().position(|pump| !pump.is_at_work())?;
        Some(format!("link {} has ended: its device was removed by somebody else", ended + 1))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.bell.ring();
        let _ = self.thread.take().map(JoinHandle::join);
        // It is gone or it is not: whoever starts next finds out.
        let _ = std::fs::remove_file(&self.shared.path);
    }
}

impl Shared {
    fn serve(&self, listener: &UnixListener) {
        while !self.stop.load(Ordering::Acquire) {
            let fds = [listener.as_fd(), self.bell.as_fd()];
            let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            let _ = poll(&mut fds, None);
            while let Ok((stream, _)) = listener.accept() {
                // Who asks and goes away has no answer.
                let _ = self.answer(stream);
            }
        }
    }

    fn answer(&self, mut stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new((&stream).take(REQUEST_BYTES_MAX)).read_line(&mut line)?;
        let done = match serde_json::from_str(&line) {
            Ok(Request::Show) => Ok(()),
            Ok(Request::Set { link, words }) => self.set(link, &words),
            Err(error) => Err(Answer::Wrong(format!("this is no request: {error}"))),
        };
        let status = || self.status().map_err(|error| Answer::Failed(error.to_string()));
        let answer = done.and_then(|()| status()).map_or_else(|no| no, Answer::Status);
        stream.write_all(serde_json::to_string(&answer)?.as_bytes())
    }

    /// All links are changed, or none is because of words: they are checked first.
    fn set(&self, link: Option<usize>, words: &str) -> Result<(), Answer> {
        let many = self.pumps.len();
        let numbers = match link {
            None => 1..=many,
            Some(link) if (1..=many).contains(&link) => link..=link,
            Some(link) => {
                let text = format!("there is no link {link}; there are links 1 to {many}");
                return Err(Answer::Wrong(text));
            }
        };
        let failed = |error: &dyn std::fmt::Display| Answer::Failed(error.to_string());
        let mut changes = Vec::new();
        for number in numbers {
            let pump = &self.pumps[number - 1];
            let was = pump.report().map_err(|error| failed(&error))?.link;
            let link = was.changed(words).map_err(|error| Answer::Wrong(error.to_string()))?;
            changes.push((number, pump, was, link));
        }
        for (number, pump, was, link) in changes {
            if was.mtu != link.mtu {
                spaces::set_mtu(&self.name, number, link.mtu).map_err(|error| failed(&error))?;
            }
            pump.set(link).map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    fn status(&self) -> io::Result<Status> {
        let links = self.pumps.iter().enumerate().map(|(at, pump)| self.link(at + 1, pump));
        Ok(Status {
            name: self.name.clone(),
            pid: std::process::id(),
            seed: self.seed,
            uptime_ms: self.begun.elapsed().as_millis() as u64,
            namespaces: spaces::names(&self.name),
            links: links.collect::<io::Result<_>>()?,
        })
    }

    fn link(&self, number: usize, pump: &Pump) -> io::Result<LinkStatus> {
        let report = pump.report()?;
        let dropped = spaces::dropped(&self.name, number).map_err(io::Error::other)?;
        let [there, back] = [0, 1].map(|at| WayStatus {
            counts: report.ways[at].0,
            trouble: report.ways[at].1,
            device_dropped: dropped[at],
            waiting_bytes: report.waiting_bytes[at],
        });
        Ok(LinkStatus {
            link: number,
            device: spaces::device(number),
            addresses: [1, 2].map(|end| spaces::address(number, end)),
            addresses6: [1, 2].map(|end| spaces::address6(number, end)),
            words: report.link.to_string(),
            there,
            back,
        })
    }
}

/// Makes the socket. The directory keeps others out from the first moment on. A socket that is
/// there is left from a run that was killed: its namespaces were not, so nobody runs.
fn bind(path: &Path) -> io::Result<UnixListener> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(DIR)?;
    if path.symlink_metadata().is_ok() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
