//! A server as a process of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ringway_client::{Client, Credentials, Options};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tempfile::TempDir;

use super::{PATIENCE, Told, until};

/// What a server is started with: kernel-given port, no admin endpoint, temporary state, one shard
/// that shares its core, unless a test says otherwise.
#[derive(Clone)]
pub(crate) struct Setup {
    flags: BTreeMap<String, String>,
}

impl Setup {
    pub(crate) fn new() -> Setup {
        let defaults = [
            ("--listen", "127.0.0.1:0"),
            ("--admin", "off"),
            ("--state", "temporary"),
            ("--shards", "1"),
            ("--pin", "false"),
            ("--spin", "false"),
            ("--max-memory", "256MiB"),
        ];
        let owned = |(flag, value): (&str, &str)| (flag.to_owned(), value.to_owned());
        Setup { flags: defaults.into_iter().map(owned).collect() }
    }

    pub(crate) fn flag(mut self, flag: &str, value: impl ToString) -> Setup {
        self.flags.insert(flag.to_owned(), value.to_string());
        self
    }

    pub(crate) fn state(self, dir: &Path) -> Setup {
        self.flag("--state", dir.display())
    }

    pub(crate) fn shards(self, shards: usize) -> Setup {
        self.flag("--shards", shards)
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.arg("serve");
        self.flags.iter().for_each(|(flag, value)| {
            command.args([flag, value]);
        });
        command
    }

    /// Starts it; returns when it has said that it is ready.
    #[track_caller]
    pub(crate) fn start(&self) -> Server {
        Server::start(self.command())
    }

    /// Starts it where it must not start.
    #[track_caller]
    pub(crate) fn refused(&self) -> Told {
        refused(self.command())
    }
}

/// Starts a server where it must not start.
#[track_caller]
pub(crate) fn refused(mut command: Command) -> Told {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let begun = std::time::Instant::now();
    while child.try_wait().expect("our child").is_none() {
        if begun.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("it serves");
        }
        super::pass(Duration::from_millis(5));
    }
    Told::from(child.wait_with_output().expect("our child"))
}

/// A running server. It is killed when the test lets go of it.
pub(crate) struct Server {
    child: Child,
    pub(crate) addr: SocketAddr,
    pub(crate) epoch: u64,
    /// What it says to wait before it grants anything; zero if it grants at once.
    pub(crate) starting: Duration,
    ready: String,
    lines: Mutex<Receiver<String>>,
    log: Said,
    /// Where its temporary state is: one that is killed leaves it.
    _scratch: TempDir,
}

impl Server {
    #[track_caller]
    pub(crate) fn start(mut command: Command) -> Server {
        raise_open_files();
        let scratch = tempfile::tempdir().expect("temporary directory");
        command.env("TMPDIR", scratch.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let log = gather(child.stderr.take().expect("piped"));
        let lines = lines_of(child.stdout.take().expect("piped"));
        let Ok(ready) = lines.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            let status = child.wait();
            panic!("never ready ({status:?}): {}", log.all());
        };
        let word = |key: &str| word_of(&ready, key);
        let addr = word("listen").and_then(|addr| addr.parse().ok());
        let epoch = word("epoch").and_then(|epoch| epoch.parse().ok());
        let (Some(addr), Some(epoch)) = (addr, epoch) else { panic!("not ready: {ready:?}") };
        let starting_ms = word("starting_ms").map_or(0, |ms| ms.parse().expect("a number"));
        let starting = Duration::from_millis(starting_ms);
        let lines = Mutex::new(lines);
        Server { child, addr, epoch, starting, ready, lines, log, _scratch: scratch }
    }

    /// The value of `key=` in the ready line.
    pub(crate) fn word(&self, key: &str) -> Option<&str> {
        word_of(&self.ready, key)
    }

    /// The next line on its standard output that has this word.
    #[track_caller]
    pub(crate) fn says(&self, word: &str) -> String {
        let lines = self.lines.lock().expect("not poisoned");
        loop {
            let line = lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("{word:?} was not said: {}", self.log.all()));
            if line.contains(word) {
                return line;
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn client(&self) -> Client {
        let options = Options { timeout: PATIENCE, credentials: None };
        Client::connect(self.addr, options).expect("the server answers")
    }

    pub(crate) fn client_as(
        &self,
        user: &str,
        password: &str,
    ) -> Result<Client, ringway_client::Error> {
        let (user, password) = (user.to_owned(), password.to_owned());
        let credentials = Some(Credentials { user, password });
        Client::connect(self.addr, Options { timeout: PATIENCE, credentials })
    }

    /// A plain connection, if there is a place for one.
    pub(crate) fn connect(&self) -> Option<TcpStream> {
        TcpStream::connect_timeout(&self.addr, Duration::from_millis(200)).ok()
    }

    /// A URL for the `redis` crate.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}/", self.addr)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_to(&self.child, signal);
    }

    /// Stops it for a while; returns when the kernel says that it stands.
    pub(crate) fn pause(&self) {
        pause(&self.child);
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        let _ = self.child.wait();
    }

    /// Waits for its own end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.ended()
    }

    /// Likewise; its log is whole then.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let status = until("the server ends", || self.child.try_wait().expect("our child"));
        self.log.all();
        status
    }

    /// Asks it to stop, and sees that it does, well.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{status}");
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// What it has said on standard error so far.
    pub(crate) fn log(&self) -> String {
        self.log.so_far()
    }

    /// Bytes of memory that are its own.
    pub(crate) fn resident_bytes(&self) -> u64 {
        status_bytes(self.pid(), "VmRSS:")
    }

    /// The most that they ever were.
    pub(crate) fn resident_bytes_max(&self) -> u64 {
        status_bytes(self.pid(), "VmHWM:")
    }

    /// Time that all of its threads have spent on a core; one that ends takes its own with it.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_of(self.pid())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server said: {}", self.log.so_far());
        }
    }
}

/// The processor time of a process that runs.
pub(crate) fn cpu_of(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let spent = tasks.map(|task| {
        let path = task.expect("a task").path().join("schedstat");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
    });
    Duration::from_nanos(spent.sum())
}

/// A size that the kernel tells of a process that runs.
pub(crate) fn status_bytes(pid: u32, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line for it");
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kib * 1024
}

pub(crate) fn signal_to(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id() as i32).expect("not zero");
    kill_process(pid, signal).expect("it has not been waited for");
}

/// Stops a process for a while; returns when the kernel says that all of it stands.
#[track_caller]
pub(crate) fn pause(child: &Child) {
    signal_to(child, Signal::STOP);
    until("the process stands", || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).ok()?;
        let stands = |stat: &str| stat.rsplit(')').next().is_some_and(|s| s.starts_with(" T"));
        let all = tasks.flatten().all(|task| {
            std::fs::read_to_string(task.path().join("stat")).is_ok_and(|stat| stands(&stat))
        });
        all.then_some(())
    });
}

fn word_of<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let words = line.strip_prefix("ready ")?.split(' ');
    words.filter_map(|word| word.split_once('=')).find(|(name, _)| *name == key).map(|(_, v)| v)
}

/// Lines as they come.
pub(crate) fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (tell, lines) = channel();
    std::thread::spawn(move || {
        let all = BufReader::new(stream).lines();
        all.map_while(Result::ok).try_for_each(|line| tell.send(line))
    });
    lines
}

/// Everything that is said, until the end of the process.
pub(crate) fn gather(mut stream: impl Read + Send + 'static) -> Said {
    let said = Arc::new(Mutex::new(String::new()));
    let into = Arc::clone(&said);
    let thread = std::thread::spawn(move || {
        let mut some = [0; 4096];
        while let Ok(many @ 1..) = stream.read(&mut some) {
            let text = String::from_utf8_lossy(&some[..many]);
            into.lock().expect("not poisoned").push_str(&text);
        }
    });
    Said { said, thread }
}

/// What a process has said so far.
pub(crate) struct Said {
    said: Arc<Mutex<String>>,
    thread: JoinHandle<()>,
}

impl Said {
    pub(crate) fn so_far(&self) -> String {
        self.said.lock().expect("not poisoned").clone()
    }

    /// Waits for its last word.
    #[track_caller]
    pub(crate) fn all(&self) -> String {
        until("the last word", || self.thread.is_finished().then_some(()));
        self.so_far()
    }
}

/// Crowds of connections need more descriptors than a shell gives; servers inherit ours.
/// Returns how many we may have.
pub(crate) fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
