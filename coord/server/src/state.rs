//! State directory: what a server must remember so that no name ever has two owners.
//!
//! Three facts outlive the process: the last epoch taken, the longest lease granted since the last
//! stop that ended every session, and whether the last stop was such a one. Tokens grow across
//! restarts because a new epoch is on the disk before its first grant; an owner that survived a
//! killed server keeps its names because nothing is granted until the longest lease has passed.
//!
//! Invariants:
//! - S1  An epoch that [`StateDir`] returns is on the disk, and larger than any returned before.
//! - S2  A lease that [`StateDir::raise_longest_lease`] confirmed is on the disk.
//! - S3  Whatever moment the machine dies at, the next open finds the old record or the new one.
//! - S4  One process holds the directory: an exclusive lock lives as long as the `StateDir`.
//!
//! Bounds: one file below 4 KiB, replaced whole; a raise writes at most once per ladder step.
//! Not here: when to raise or to settle (`control.rs`), which lease a client may ask for (engine).
//! Tests: every crash point of every operation, below; `tools/fuzz` reads the file.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use ringway_core::{Epoch, Span};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use thiserror::Error;

/// The record.
const STATE_FILE: &str = "state.toml";
/// The record that is about to replace it.
const STATE_FILE_NEW: &str = "state.toml.new";
/// Locked by the running server; its text is that server's process id.
const LOCK_FILE: &str = "lock";
/// The version of the record's layout.
const FORMAT: u64 = 1;
/// The largest record that is read; ours has some 250 bytes.
const STATE_BYTES_MAX: usize = 4096;
/// Leases are persisted rounded up to one of these seconds, so that raising is rare.
const LADDER_S: [u64; 12] = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 86_400];

/// Names this server among all that ever ran; drawn when the directory is first used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerId(pub u128);

impl std::fmt::Display for ServerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// How the last server on this directory ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Previous {
    /// There was none.
    Fresh,
    /// It ended all its sessions before it stopped.
    Clean,
    /// It did not: an owner may believe in its lease for this much longer, and until then nothing
    /// may be granted.
    Unclean {
        /// The longest lease that may still be running, counted from now.
        longest_lease: Span,
    },
}

/// What [`StateDir::open`] found, and the epoch it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The epoch of this life of the server, already on the disk.
    pub epoch: Epoch,
    /// How the life before ended.
    pub previous: Previous,
    /// The server's own name.
    pub server_id: ServerId,
}

/// Why the directory cannot be used. All of them are for the operator to mend.
#[derive(Debug, Error)]
pub enum StateError {
    /// The path names something else.
    #[error("state directory {0} is not a directory: name another one with --state")]
    NotADirectory(PathBuf),
    /// A running server has it.
    #[error(
        "state directory {dir} is in use by another server (process {pid}): stop that one, or \
         give this one a directory of its own with --state"
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// What the lock file says.
        pid: String,
    },
    /// The record is there and cannot be believed.
    #[error(
        "{path} is damaged ({damage}): refusing to start, because a wrong epoch would give out \
         fencing tokens a second time. Restore the file from a backup no older than its last \
         change. If there is none: wait until every lease has run out, remove the file, and reset \
         whatever storage remembers tokens of this server"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// Every epoch a token can carry has been used.
    #[error(
        "the epochs of {0} are used up after {max} starts: remove the directory, and reset \
         whatever storage remembers tokens of this server",
        max = Epoch::MAX.0
    )]
    EpochsUsedUp(PathBuf),
    /// The host refused.
    #[error("cannot {act} {path}: {source}{remedy}", remedy = remedy(source))]
    Host {
        /// What was tried.
        act: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Damage {
    /// Empty, cut off, or not of our making.
    #[error("it is not a whole record")]
    Incomplete,
    /// The sum at its end is another one.
    #[error("its checksum does not match")]
    Checksum,
    /// A later release wrote it.
    #[error("its format is {0}, this release reads format {FORMAT}: run the newer release")]
    Format(u64),
}

/// What to do about an error of the host, as the end of a sentence.
fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            " (free some space there, or choose another directory with --state)"
        }
        ErrorKind::ReadOnlyFilesystem => " (choose a writable directory with --state)",
        ErrorKind::PermissionDenied => {
            " (give this user the right to write there, or choose another directory with --state)"
        }
        _ => "",
    }
}

/// What the state needs of a file system. Each act is durable when it returns, except as stated.
///
/// Asynchronous, because the control plane's executor does the real work; implementations that
/// block return futures that are ready at once.
#[expect(async_fn_in_trait, reason = "one executor thread: no future of it ever moves")]
pub trait Files {
    /// The whole of a file, at most `max` bytes of it; `None` if there is no such file.
    async fn read(&self, name: &str, max: usize) -> io::Result<Option<Vec<u8>>>;
    /// Creates or empties the file, writes the bytes, and syncs them (not the directory).
    async fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Puts one file in another's place, atomically (not durably).
    async fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes renames and new files durable.
    async fn sync_dir(&self) -> io::Result<()>;
}

/// [`Files`] on the standard library: blocks.
#[derive(Debug)]
pub struct StdFiles {
    dir: PathBuf,
}

impl StdFiles {
    /// Files of this directory.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }
}

impl Files for StdFiles {
    async fn read(&self, name: &str, max: usize) -> io::Result<Option<Vec<u8>>> {
        use std::io::Read;
        match File::open(self.dir.join(name)) {
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(max as u64).read_to_end(&mut bytes)?;
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        use std::io::Write;
        let mut file = File::create(self.dir.join(name))?;
        file.write_all(bytes)?;
        file.sync_data()
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.dir.join(from), self.dir.join(to))
    }

    async fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The server's own name.
    pub server_id: ServerId,
    /// The last epoch taken.
    pub epoch: Epoch,
    /// The longest lease that may be running; a [`Span`] can hold it.
    pub longest_lease_ms: u64,
    /// Whether the last stop ended every session.
    pub clean: bool,
}

/// A locked, opened state directory.
#[derive(Debug)]
pub struct StateDir<F> {
    files: F,
    dir: PathBuf,
    record: Record,
    /// The part of the record's longest lease that this life of the server has granted itself.
    granted_ms: u64,
    _lock: File,
}

impl<F: Files> StateDir<F> {
    /// Creates the directory if need be, locks it, and takes the next epoch.
    ///
    /// When this returns, the epoch and the fact that a server runs are on the disk.
    pub async fn open(dir: &Path, files: F) -> Result<(Self, Opened), StateError> {
        create_dir(dir)?;
        let lock = take_lock(dir)?;
        let found = read_record(dir, &files).await?;
        let (previous, server_id, epoch, longest_lease_ms) = match found {
            None => (Previous::Fresh, draw_server_id(), Epoch(1), 0),
            Some(old) if old.clean => (Previous::Clean, old.server_id, after(dir, old.epoch)?, 0),
            Some(old) => {
                let longest_lease = Span::from_ms(old.longest_lease_ms);
                let previous = Previous::Unclean { longest_lease };
                (previous, old.server_id, after(dir, old.epoch)?, old.longest_lease_ms)
            }
        };
        let record = Record { server_id, epoch, longest_lease_ms, clean: false };
        let mut state = Self { files, dir: dir.to_owned(), record, granted_ms: 0, _lock: lock };
        state.replace(record).await?;
        Ok((state, Opened { epoch, previous, server_id }))
    }

    /// Remembers that leases up to `span` may be granted from now on. Returns the span that this
    /// life may grant, which is at least that: what an earlier life left behind is forgotten when
    /// it settles. `most` is the longest lease the server ever grants.
    pub async fn raise_longest_lease(
        &mut self,
        span: Span,
        most: Span,
    ) -> Result<Span, StateError> {
        let wanted_ms = ladder(span).min(most).max(span).as_ms_ceil();
        if wanted_ms > self.record.longest_lease_ms {
            let record = Record { longest_lease_ms: wanted_ms, clean: false, ..self.record };
            self.replace(record).await?;
        }
        self.granted_ms = self.granted_ms.max(wanted_ms);
        Ok(Span::from_ms(self.granted_ms))
    }

    /// The leases of earlier lives have run out: an unclean stop from now on has to wait only for
    /// what this life has granted.
    pub async fn settle(&mut self) -> Result<(), StateError> {
        if self.granted_ms == self.record.longest_lease_ms {
            return Ok(());
        }
        self.replace(Record { longest_lease_ms: self.granted_ms, ..self.record }).await
    }

    /// The last act of a drain that has ended every session and *told its owner*, or has seen its
    /// lease run out. Anyone who still believes in a lease would not be waited for.
    pub async fn mark_clean(&mut self) -> Result<(), StateError> {
        self.replace(Record { clean: true, longest_lease_ms: 0, ..self.record }).await
    }

    /// Takes another epoch, for a slot whose sequence has run out.
    pub async fn next_epoch(&mut self) -> Result<Epoch, StateError> {
        let epoch = after(&self.dir, self.record.epoch)?;
        self.replace(Record { epoch, clean: false, ..self.record }).await?;
        Ok(epoch)
    }

    /// The current epoch.
    pub fn epoch(&self) -> Epoch {
        self.record.epoch
    }

    /// Replaces the record on the disk, then in memory. After an error the disk has one of the
    /// two; the next call writes all of it again.
    async fn replace(&mut self, record: Record) -> Result<(), StateError> {
        let bytes = encode(&record);
        let failed = |act, name: &str, source| host(act, &self.dir.join(name), source);
        let files = &self.files;
        let written = files.write(STATE_FILE_NEW, bytes.as_bytes()).await;
        written.map_err(|source| failed("write", STATE_FILE_NEW, source))?;
        let renamed = files.rename(STATE_FILE_NEW, STATE_FILE).await;
        renamed.map_err(|source| failed("replace", STATE_FILE, source))?;
        files.sync_dir().await.map_err(|source| failed("sync", "", source))?;
        self.record = record;
        Ok(())
    }
}

/// What a look at a state directory finds, without touching it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The last epoch that was taken; `None` if no server has used the directory yet.
    pub epoch: Option<Epoch>,
    /// A server that starts now grants nothing for this long.
    pub wait: Span,
    /// A server runs on it.
    pub in_use: bool,
}

/// Looks at a state directory, for `ringway doctor`. Blocks.
pub fn inspect(dir: &Path) -> Result<Inspected, StateError> {
    let nothing = Inspected { epoch: None, wait: Span::ZERO, in_use: false };
    match std::fs::metadata(dir) {
        Ok(found) if !found.is_dir() => return Err(StateError::NotADirectory(dir.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(nothing),
        Err(source) => return Err(host("look at", dir, source)),
    }
    let in_use = match File::open(dir.join(LOCK_FILE)) {
        Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK),
        Err(_) => false,
    };
    let record = drive(read_record(dir, &StdFiles::new(dir)))?;
    let wait = record.filter(|record| !record.clean && !in_use);
    Ok(Inspected {
        epoch: record.map(|record| record.epoch),
        wait: wait.map_or(Span::ZERO, |record| Span::from_ms(record.longest_lease_ms)),
        in_use,
    })
}

/// The ladder's first step that is not shorter than `span`; `span` itself above the last.
pub fn ladder(span: Span) -> Span {
    LADDER_S.into_iter().map(Span::from_s).find(|step| span <= *step).unwrap_or(span)
}

fn host(act: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Host { act, path: path.to_owned(), source }
}

fn after(dir: &Path, epoch: Epoch) -> Result<Epoch, StateError> {
    if epoch >= Epoch::MAX {
        return Err(StateError::EpochsUsedUp(dir.to_owned()));
    }
    Ok(Epoch(epoch.0 + 1))
}

fn draw_server_id() -> ServerId {
    ServerId(u128::from_le_bytes(random_bytes()))
}

/// Random bytes of the kernel, which has them from early boot on.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    use rustix::rand::{GetRandomFlags, getrandom};
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(more) => filled += more,
            Err(Errno::INTR) => {}
            Err(error) => panic!("the kernel gives no random bytes: {error}"),
        }
    }
    bytes
}

/// Creates the directory for its owner alone: whoever can write it can forge epochs.
fn create_dir(dir: &Path) -> Result<(), StateError> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::metadata(dir) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(StateError::NotADirectory(dir.to_owned())),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            return Err(StateError::NotADirectory(dir.to_owned()));
        }
        Err(_) => {}
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| host("create the state directory", dir, source))
}

fn take_lock(dir: &Path) -> Result<File, StateError> {
    use std::io::Write;
    let path = dir.join(LOCK_FILE);
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(|source| host("open", &path, source))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let pid = std::fs::read_to_string(&path).unwrap_or_default();
            let pid = if pid.trim().is_empty() { "unknown" } else { pid.trim() }.to_owned();
            return Err(StateError::Locked { dir: dir.to_owned(), pid });
        }
        Err(errno) => return Err(host("lock", &path, errno.into())),
    }
    // The text only serves a message: a server that cannot write it is told so by the record.
    let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(file)
}

async fn read_record(dir: &Path, files: &impl Files) -> Result<Option<Record>, StateError> {
    let path = dir.join(STATE_FILE);
    let read = files.read(STATE_FILE, STATE_BYTES_MAX + 1).await;
    let Some(bytes) = read.map_err(|source| host("read", &path, source))? else {
        return Ok(None);
    };
    match decode(&bytes) {
        Ok(record) => Ok(Some(record)),
        Err(damage) => Err(StateError::Damaged { path, damage }),
    }
}

const HEADING: &str = "# Kept by the ringway server. Changing it by hand can give a name two \
                       owners.\n";

/// The text of a record.
pub fn encode(record: &Record) -> String {
    let Record { server_id, epoch, longest_lease_ms, clean } = record;
    let epoch = epoch.0;
    seal(format!(
        "{HEADING}format = {FORMAT}\nserver_id = \"{server_id}\"\nepoch = {epoch}\n\
         longest_lease_ms = {longest_lease_ms}\nclean = {clean}\n"
    ))
}

/// The text with its checksum behind it, as every record ends.
pub fn seal(text: String) -> String {
    let sum = checksum(text.as_bytes());
    text + &format!("checksum = \"{sum:016x}\"\n")
}

/// Reads exactly what [`encode`] writes; TOML is for the human eye only.
pub fn decode(bytes: &[u8]) -> Result<Record, Damage> {
    let text = std::str::from_utf8(bytes).map_err(|_| Damage::Incomplete)?;
    let at = text.rfind("checksum = \"").ok_or(Damage::Incomplete)?;
    let summed = &text[..at];
    let format = field(summed, "format").and_then(|text| text.parse().ok());
    let format: u64 = format.ok_or(Damage::Incomplete)?;
    if format != FORMAT {
        return Err(Damage::Format(format));
    }
    if seal(summed.to_owned()) != text {
        return Err(Damage::Checksum);
    }
    let record = || {
        let server_id = field(summed, "server_id")?.strip_prefix('"')?.strip_suffix('"')?;
        Some(Record {
            server_id: ServerId(u128::from_str_radix(server_id, 16).ok()?),
            epoch: Epoch(field(summed, "epoch")?.parse().ok()?),
            longest_lease_ms: field(summed, "longest_lease_ms")?.parse().ok()?,
            clean: field(summed, "clean")?.parse().ok()?,
        })
    };
    let possible = |record: &Record| {
        record.epoch <= Epoch::MAX && record.longest_lease_ms <= Span(u64::MAX).0 / 1_000_000
    };
    let ours = |record: &Record| possible(record) && encode(record) == text;
    record().filter(ours).ok_or(Damage::Incomplete)
}

fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))
}

/// The first 8 bytes of SHA-256: here only against torn and rotten bytes.
fn checksum(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    u64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}

/// Drives a future that never waits, as those over [`StdFiles`] are.
///
/// # Panics
/// If it does wait: nobody would ever wake it.
pub(crate) fn drive<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("a blocking file operation waited"),
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
