//! The salts of handshakes in a file, so that one that was heard before a restart is not answered
//! after it.
//!
//! ```text
//! boot id, 36 bytes and a newline | "since ", 20 digits and a newline
//! | clock u64 and half a salt, 16 bytes | ...
//! ```
//!
//! What was sent before `since` is not answered, by this life or a later one of this boot: it is
//! from before the first start of the boot, or from before this machine turned out to be a copy,
//! and what another one answered then is in no file here.
//!
//! Not synced: after a crash of the host the boot is another one, and then nothing that was sent
//! before this start is answered.
//!
//! A shard only decides (`Registry::is_fresh`, exact, in memory); a thread beside them writes.
//! Between the two a process can be killed, and its next life would not know the salt. What makes
//! that harmless is the order of what can be seen from outside:
//!
//! - S1  *Nothing leaves for a salt that is not in the file.* The shard holds what it would say to
//!   who brought a salt until [`Salts::kept`] has reached what [`Salts::taken`] was then
//!   (`Own::hold`, `Desk::out`). Killed before, it has answered nobody, and the next life may
//!   answer for the first time. Killed after, the salt is in the page cache, which outlives a
//!   process.
//! - S2  Salts are put into the queue under the registry's lock, so `taken` counts in the order of
//!   the decisions, and whatever the registry knows is in the file, or in the queue, or both.
//! - S3  `kept` grows only after the write has returned, or after the file was removed because it
//!   could not be written: then there is none that could be believed.
//! - S4  A new beginning (`Registry::begin_anew`) is in the queue before every salt that is taken
//!   after it, so nothing leaves for one of these before `since` in the file is the new one.
//!
//! With the connection that is held back nothing else waits: a disk that stands still for a second
//! delays handshakes by a second, and no byte of a flow.
//!
//! Not covered: a peer whose clock is ahead of ours, after another boot. What it sent within that
//! time before our start reads as if it was sent after; such a message may be answered a second
//! time. It is good for nothing but that answer: a session takes the sender's keys.
//!
//! Bounds: 24 bytes a salt. When the file would be longer than twice what counted when it was last
//! written anew, and than 64 KiB, it is written anew with what counts now, beside the old one and
//! in its place: so it has at most 3 MiB, since the registry keeps 65536 salts. It takes at least
//! as many new salts until the next time as it held after the last. The queue has as many salts as
//! the registry at most; beyond that it is dropped, and the file written anew.
//! Not here: which salts count (`ringway_crypto::SaltWindow`).
//! Tests: below; `pump/own.rs` has what is held; `tools/ringway/tests/real/tunnel/hostile.rs`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ringway_tunnel_proto::Registry;
use ringway_tunnel_proto::limits::SALTS_MAX;

use crate::shared::{Shared, wall_ms};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const ENTRY_BYTES: usize = 24;
/// A file of so much is not written anew.
const FILE_BYTES_MIN: u64 = 64 * 1024;
/// Bytes that are read, from the end: many more salts than the registry keeps.
const READ_BYTES_MAX: u64 = 64 << 20;

/// When it was sent, and half of the salt.
pub(crate) type Entry = (u64, [u8; 16]);

/// Salts that were taken, on their way into the file.
#[derive(Default)]
pub(crate) struct Salts {
    queue: Mutex<Queue>,
    more: Condvar,
    taken: AtomicU64,
    kept: AtomicU64,
}

#[derive(Default)]
struct Queue {
    entries: Vec<Entry>,
    /// There were too many: the file is to be written anew, of all that the registry has.
    anew: bool,
    over: bool,
}

impl Salts {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Who panics ends the process; what it left is not looked at for long.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registry took these, and may have begun anew. The caller holds its lock (S2).
    pub(crate) fn put(&self, new: Vec<Entry>, anew: bool) {
        if new.is_empty() && !anew {
            return;
        }
        let mut queue = self.lock();
        self.taken.fetch_add(new.len() as u64 + u64::from(anew), Ordering::Release);
        queue.entries.extend(new);
        queue.anew |= anew;
        if queue.entries.len() > SALTS_MAX {
            queue.anew = true;
            queue.entries = Vec::new();
        }
        self.more.notify_one();
    }

    /// How many were taken; a new beginning counts as one.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// How many of these, from the first, a next life will know.
    pub(crate) fn kept(&self) -> u64 {
        self.kept.load(Ordering::Acquire)
    }

    /// Waits for salts. Returns them, whether all are to be written, and how many were taken by
    /// then; nothing once it is over.
    fn next(&self) -> Option<(Vec<Entry>, bool, u64)> {
        let mut queue = self.lock();
        loop {
            if queue.over {
                return None;
            }
            if queue.anew || !queue.entries.is_empty() {
                let entries = std::mem::take(&mut queue.entries);
                return Some((entries, std::mem::take(&mut queue.anew), self.taken()));
            }
            queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The thread that writes salts; it ends with this.
pub(crate) struct SaltKeeper(Arc<Shared>);

impl SaltKeeper {
    /// Starts it.
    pub(crate) fn start(shared: &Arc<Shared>, mut file: SaltFile) -> io::Result<SaltKeeper> {
        let (keeper, its) = (SaltKeeper(Arc::clone(shared)), Arc::clone(shared));
        let serve = move || {
            while let Some((new, anew, taken)) = its.salts.next() {
                let all = || its.ask_registry(|registry| Whole::of(registry));
                file.append(&new, anew, all);
                its.salts.kept.store(taken, Ordering::Release);
            }
        };
        drop(std::thread::Builder::new().name("ringway-salts".to_owned()).spawn(serve)?);
        Ok(keeper)
    }
}

impl Drop for SaltKeeper {
    /// What is in the queue was said to nobody (S1).
    fn drop(&mut self) {
        self.0.salts.lock().over = true;
        self.0.salts.more.notify_all();
    }
}

/// See the module.
pub(crate) struct SaltFile {
    path: PathBuf,
    boot: String,
    file: Option<File>,
    /// Bytes in the file, and as many as may be.
    bytes: u64,
    bytes_max: u64,
}

impl SaltFile {
    /// Fills a registry from the file, and keeps the file for what comes. Without one, or if it is
    /// of another boot, the registry refuses what was sent before now; likewise if the clock was
    /// set back to before the moment that is in the file.
    pub(crate) fn open(path: &Path, registry: &mut Registry) -> SaltFile {
        let now_ms = wall_ms();
        registry.not_before_ms = now_ms;
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        if let Ok(Whole { since_ms, entries }) = read(path, &boot, READ_BYTES_MAX) {
            registry.salts.restore(entries, now_ms);
            registry.not_before_ms = since_ms.min(now_ms);
        }
        let (path, file) = (path.to_owned(), None);
        let mut salts = SaltFile { path, boot, file, bytes: 0, bytes_max: 0 };
        if let Err(error) = salts.write_anew(Whole::of(registry)) {
            tracing::warn!(
                "the salts of handshakes cannot be kept in {}: {error}; after a restart, peers \
                 whose clocks are behind wait until they catch up with it",
                salts.path.display()
            );
            salts.give_up();
        }
        salts
    }

    /// Keeps what is new, or all that counts if the file would grow too long without it.
    fn append(&mut self, new: &[Entry], anew: bool, all: impl FnOnce() -> Whole) {
        let new = bytes(new.iter().copied());
        let Some(file) = self.file.as_mut() else { return };
        let bytes = self.bytes + new.len() as u64;
        let written = if anew || bytes > self.bytes_max {
            self.write_anew(all())
        } else {
            self.bytes = bytes;
            file.write_all(&new)
        };
        if let Err(error) = written {
            tracing::warn!("{}: {error}; salts are not kept any more", self.path.display());
            self.give_up();
        }
    }

    /// There is no file any more: one that lacks the newest salts, or ends with half of one, would
    /// be believed.
    fn give_up(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        self.file = None;
    }

    /// Writes what counts, and nothing else: until all of it is there, the file is the old one.
    fn write_anew(&mut self, whole: Whole) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut anew = self.path.clone().into_os_string();
        anew.push(".new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&anew)?;
        let mut all = self.boot.as_bytes().to_vec();
        all.extend_from_slice(since(whole.since_ms).as_bytes());
        all.extend(bytes(whole.entries));
        file.write_all(&all)?;
        std::fs::rename(&anew, &self.path)?;
        self.bytes = all.len() as u64;
        self.bytes_max = (2 * self.bytes).max(FILE_BYTES_MIN);
        self.file = Some(file);
        Ok(())
    }
}

/// What a file says.
#[derive(Debug, PartialEq, Eq)]
struct Whole {
    /// What was sent before is not answered.
    since_ms: u64,
    entries: Vec<Entry>,
}

impl Whole {
    fn of(registry: &Registry) -> Whole {
        Whole { since_ms: registry.not_before_ms, entries: registry.salts.entries().collect() }
    }
}

/// The second line.
fn since(since_ms: u64) -> String {
    format!("since {since_ms:020}\n")
}

fn bytes(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (sent_ms, salt) in entries {
        bytes.extend_from_slice(&sent_ms.to_le_bytes());
        bytes.extend_from_slice(&salt);
    }
    bytes
}

/// What a file of this boot says: of its entries the newest, so many bytes of them at most.
fn read(path: &Path, boot: &str, bytes_max: u64) -> io::Result<Whole> {
    let mut file = File::open(path)?;
    let mut head = vec![0; boot.len() + since(0).len()];
    file.read_exact(&mut head)?;
    let second = str::from_utf8(&head).ok().and_then(|head| head.strip_prefix(boot));
    let since_ms = second.and_then(|line| line.strip_prefix("since ")?.trim_end().parse().ok());
    let Some(since_ms) = since_ms.filter(|_| !boot.is_empty()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let entry_bytes = ENTRY_BYTES as u64;
    let entries = file.metadata()?.len().saturating_sub(head.len() as u64) / entry_bytes;
    let read = entries.min(bytes_max / entry_bytes);
    file.seek(SeekFrom::Start(head.len() as u64 + (entries - read) * entry_bytes))?;
    let mut bytes = Vec::new();
    file.take(read * entry_bytes).read_to_end(&mut bytes)?;
    let entry = |entry: &[u8; ENTRY_BYTES]| {
        let (sent_ms, salt) = entry.split_first_chunk().expect("24 bytes begin with 8");
        (u64::from_le_bytes(*sent_ms), salt.try_into().expect("and end with 16"))
    };
    Ok(Whole { since_ms, entries: bytes.as_chunks().0.iter().map(entry).collect() })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ringway_crypto::Salt;

    use super::*;
    use crate::config::tests::good;
    use crate::site::Site;

    /// Keeps what a registry took since the last time, as the thread does.
    fn keep(file: &mut SaltFile, registry: &mut Registry) {
        let new = registry.take_new();
        file.append(&new, false, || Whole::of(registry));
    }

    /// What shards share, with a file in this place, and nobody who writes it.
    fn shared(path: &Path) -> (Arc<Shared>, SaltFile) {
        let mut registry = Registry::default();
        let file = SaltFile::open(path, &mut registry);
        registry.not_before_ms = 0;
        let text = "[tunnel]\nnetwork_key = \"n\"\nlisten = \"0.0.0.0:4600\"\n";
        (Arc::new(Shared::new(Site::new(good(text)), registry, 1)), file)
    }

    fn wait_until_kept(shared: &Shared) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while shared.salts.kept() < shared.salts.taken() {
            assert!(Instant::now() < deadline, "nobody writes");
            std::thread::yield_now();
        }
    }

    /// Whoever is to hear that a salt is kept hears it when the next life would refuse it, and not
    /// before: a process that is killed meanwhile has said nothing.
    #[test]
    fn a_salt_is_kept_when_the_next_life_knows_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("salts");
        let (first, file) = shared(&path);
        let now = wall_ms();
        let take = |number| {
            first.ask_registry(|registry| {
                registry.take_salt(&salt(number), now + 60_000, now).is_ok()
            })
        };
        let next_knows = |number| {
            // A look is as good as a life: it must not write.
            let boot = std::fs::read_to_string(BOOT_ID).expect("there is one");
            let Whole { entries, .. } = read(&path, &boot, READ_BYTES_MAX).expect("of this boot");
            entries.iter().any(|(_, half)| half[..] == salt(number)[..16])
        };
        assert!(take(1) && !take(1), "it is decided at once");
        assert_eq!((first.salts.taken(), first.salts.kept(), next_knows(1)), (1, 0, false));
        let keeper = SaltKeeper::start(&first, file).expect("a thread");
        wait_until_kept(&first);
        assert!(next_knows(1));
        for number in 2..200 {
            assert!(take(number));
            wait_until_kept(&first);
            assert!(next_knows(number), "{number}");
        }
        drop(keeper);
        assert!(
            !shared(&path)
                .0
                .ask_registry(|next| next.take_salt(&salt(7), now + 60_000, now).is_ok())
        );
    }

    /// Nobody writes for so long that more come than are kept: the queue has its bound, and when
    /// somebody writes again everything that counts is in the file.
    #[test]
    fn a_disk_that_stands_still_costs_no_salt() {
        const HANDSHAKES: u32 = SALTS_MAX as u32 + 1000;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("salts");
        let (first, file) = shared(&path);
        let begin = wall_ms() + 60_000;
        let at = |number: u32| begin + u64::from(number);
        for number in 0..HANDSHAKES {
            let (salt, at) = (salt(number), at(number));
            assert!(first.ask_registry(|registry| registry.take_salt(&salt, at, at).is_ok()));
            assert!(first.salts.lock().entries.len() <= SALTS_MAX);
        }
        assert_eq!((first.salts.taken(), first.salts.kept()), (u64::from(HANDSHAKES), 0));
        let _keeper = SaltKeeper::start(&first, file).expect("a thread");
        wait_until_kept(&first);
        let (next, _file) = shared(&path);
        let end = at(HANDSHAKES - 1);
        for number in HANDSHAKES - 30_000..HANDSHAKES {
            let again =
                next.ask_registry(|next| next.take_salt(&salt(number), at(number), end).is_ok());
            assert!(!again, "{number}");
        }
    }

    #[test]
    fn what_was_heard_before_a_restart_is_known_after_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("sub").join("salts");
        let mut first = Registry::default();
        let mut file = SaltFile::open(&path, &mut first);
        let now = wall_ms();
        assert!(
            first.take_salt(&[9; 32], now - 5000, now).is_err(),
            "it is from before the first start"
        );
        assert!(first.take_salt(&[1; 32], now + 1, now).is_ok());
        keep(&mut file, &mut first);
        assert!(first.take_salt(&[2; 32], now + 2, now).is_ok());
        keep(&mut file, &mut first);
        drop(file);
        let mut second = Registry::default();
        let mut file = SaltFile::open(&path, &mut second);
        assert!(second.take_salt(&[1; 32], now + 1, now).is_err());
        assert!(second.take_salt(&[2; 32], now + 2, now).is_err());
        assert!(
            second.take_salt(&[3; 32], now - 5000, now).is_err(),
            "it is from before the first start"
        );
        assert!(
            second.take_salt(&[3; 32], wall_ms(), now).is_ok(),
            "the window is whole since then"
        );
        keep(&mut file, &mut second);
        // Another boot.
        let text = std::fs::read(&path).expect("it is there");
        let mut other = text.clone();
        other[0] ^= 1;
        std::fs::write(&path, &other).expect("it can be written");
        let mut third = Registry::default();
        let _file = SaltFile::open(&path, &mut third);
        assert!(third.take_salt(&[4; 32], now - 5000, now).is_err());
    }

    /// This machine turns out to be a copy, and its process is started again: what was sent before,
    /// which the other copy may have answered, is not answered by the next life either.
    #[test]
    fn a_new_beginning_outlives_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("salts");
        let boot = std::fs::read_to_string(BOOT_ID).expect("there is one");
        // A life that knows all of its window.
        let whole = format!("{boot}{}", since(0));
        std::fs::write(&path, whole).expect("it can be written");
        let now = wall_ms();
        let (first, file) = shared(&path);
        let keeper = SaltKeeper::start(&first, file).expect("a thread");
        assert!(
            first.ask_registry(|registry| registry.take_salt(&salt(1), now - 5000, now).is_ok())
        );
        first.ask_registry(|registry| registry.begin_anew(now));
        assert!(first.ask_registry(|registry| registry.take_salt(&salt(2), now, now).is_ok()));
        wait_until_kept(&first);
        drop(keeper);
        let mut next = Registry::default();
        let _file = SaltFile::open(&path, &mut next);
        assert!(
            next.take_salt(&salt(3), now - 1, now).is_err(),
            "the other copy may have answered it"
        );
        assert!(next.take_salt(&salt(2), now, now).is_err(), "we have");
        assert!(next.take_salt(&salt(4), now, now).is_ok());
        // A clock that was set back while nobody looked: it counts from where it is.
        std::fs::write(&path, format!("{boot}{}", since(now + 3_600_000))).expect("likewise");
        let mut last = Registry::default();
        let _file = SaltFile::open(&path, &mut last);
        assert!(last.take_salt(&salt(5), wall_ms(), wall_ms()).is_ok());
        assert!(last.take_salt(&salt(6), now - 1, now).is_err());
    }

    fn salt(number: u32) -> Salt {
        let mut salt = [0; 32];
        salt[..4].copy_from_slice(&number.to_le_bytes());
        salt
    }

    /// Handshakes come for ten minutes, and 30 s of them count: the file has twice these at most,
    /// and the next life knows them all, the newest above all.
    #[test]
    fn it_does_not_grow_with_the_handshakes() {
        const HANDSHAKES: u32 = 60_000;
        const COUNT: u32 = 3001;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("salts");
        let mut registry = Registry::default();
        let mut file = SaltFile::open(&path, &mut registry);
        registry.not_before_ms = 0;
        // The last one comes a minute from now, so that none is too old when it is read.
        let begin = wall_ms() + 60_000 - u64::from(HANDSHAKES) * 10;
        let at = |number: u32| begin + u64::from(number) * 10;
        let mut longest = 0;
        for number in 0..HANDSHAKES {
            assert!(registry.take_salt(&salt(number), at(number), at(number)).is_ok());
            keep(&mut file, &mut registry);
            longest = longest.max(path.metadata().expect("it is there").len());
        }
        let bound = 2 * (64 + u64::from(COUNT) * ENTRY_BYTES as u64);
        assert!(longest <= bound.max(FILE_BYTES_MIN), "{longest}");
        drop(file);
        let mut next = Registry::default();
        let _file = SaltFile::open(&path, &mut next);
        let end = at(HANDSHAKES - 1);
        for number in HANDSHAKES - COUNT..HANDSHAKES {
            assert!(next.take_salt(&salt(number), at(number), end).is_err(), "{number}");
        }
        assert!(next.take_salt(&salt(HANDSHAKES), end, end).is_ok());
    }

    /// Of a file that is too long the end counts, from the beginning of an entry, and half an entry
    /// behind it does not.
    #[test]
    fn of_too_much_the_newest_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("salts");
        let entries: Vec<(u64, [u8; 16])> = (0..5).map(|at| (at, [at as u8; 16])).collect();
        let mut all = format!("this boot\n{}", since(7)).into_bytes();
        all.extend(bytes(entries.iter().copied()));
        all.extend([7; ENTRY_BYTES / 2]);
        std::fs::write(&path, &all).expect("it can be written");
        let of_this =
            |bytes_max| read(&path, "this boot\n", bytes_max).expect("it is of this boot");
        let newest = |bytes_max| of_this(bytes_max).entries;
        assert_eq!(of_this(READ_BYTES_MAX).since_ms, 7);
        assert_eq!(newest(2 * ENTRY_BYTES as u64 + 5), entries[3..]);
        assert_eq!(newest(READ_BYTES_MAX), entries);
        assert!(read(&path, "that boot\n", READ_BYTES_MAX).is_err());
    }

    /// Where it cannot be written anew there is no file: one that lacks the newest would let them
    /// be replayed.
    #[test]
    fn what_cannot_be_written_is_not_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("salts");
        let mut registry = Registry::default();
        let mut file = SaltFile::open(&path, &mut registry);
        std::fs::create_dir(dir.path().join("salts.new")).expect("it is in the way");
        let now = wall_ms();
        let mut number = 0;
        while path.exists() {
            assert!(registry.take_salt(&salt(number), now, now).is_ok());
            keep(&mut file, &mut registry);
            number += 1;
            assert!(u64::from(number) * ENTRY_BYTES as u64 <= FILE_BYTES_MIN);
        }
        let mut next = Registry::default();
        let _file = SaltFile::open(&path, &mut next);
        assert!(next.take_salt(&salt(0), now - 1, wall_ms()).is_err(), "from before this life");
    }
}
