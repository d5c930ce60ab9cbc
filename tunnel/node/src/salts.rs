//! The salts of handshakes in a file, so that one that was heard before a restart is not answered
//! after it.
//!
//! ```text
//! boot id, 36 bytes and a newline | clock u64 and half a salt, 16 bytes | ...
//! ```
//!
//! Not synced: after a crash of the host the boot is another one, and then nothing that was sent
//! before this start is answered.
//!
//! Bounds: 24 bytes a salt. When the file would be longer than twice what counted when it was last
//! written anew, and than 64 KiB, it is written anew with what counts now, beside the old one and
//! in its place: so it has at most 3 MiB, since the registry keeps 65536 salts. It takes at least
//! as many new salts until the next time as it held after the last.
//! Not here: which salts count (`ringway_crypto::SaltWindow`).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ringway_tunnel_proto::Registry;

use crate::shared::wall_ms;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const ENTRY_BYTES: usize = 24;
/// A file of so much is not written anew.
const FILE_BYTES_MIN: u64 = 64 * 1024;
/// Bytes that are read, from the end: many more salts than the registry keeps.
const READ_BYTES_MAX: u64 = 64 << 20;

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
    /// of another boot, the registry refuses what was sent before now.
    pub(crate) fn open(path: &Path, registry: &mut Registry) -> SaltFile {
        let now_ms = wall_ms();
        registry.not_before_ms = now_ms;
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        if let Ok(entries) = read(path, &boot, READ_BYTES_MAX) {
            registry.salts.restore(entries, now_ms);
            registry.not_before_ms = 0;
        }
        let (path, file) = (path.to_owned(), None);
        let mut salts = SaltFile { path, boot, file, bytes: 0, bytes_max: 0 };
        if let Err(error) = salts.write_anew(registry) {
            tracing::warn!(
                "the salts of handshakes cannot be kept in {}: {error}; after a restart, peers \
                 whose clocks are behind wait until they catch up with it",
                salts.path.display()
            );
            salts.give_up();
        }
        salts
    }

    /// Keeps what the registry took since.
    pub(crate) fn append(&mut self, registry: &mut Registry) {
        let new = bytes(registry.take_new());
        let Some(file) = self.file.as_mut().filter(|_| !new.is_empty()) else { return };
        let bytes = self.bytes + new.len() as u64;
        let written = if bytes > self.bytes_max {
            self.write_anew(registry)
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
    fn write_anew(&mut self, registry: &Registry) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut anew = self.path.clone().into_os_string();
        anew.push(".new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&anew)?;
        let mut all = self.boot.as_bytes().to_vec();
        all.extend(bytes(registry.salts.entries()));
        file.write_all(&all)?;
        std::fs::rename(&anew, &self.path)?;
        self.bytes = all.len() as u64;
        self.bytes_max = (2 * self.bytes).max(FILE_BYTES_MIN);
        self.file = Some(file);
        Ok(())
    }
}

fn bytes(entries: impl IntoIterator<Item = (u64, [u8; 16])>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (sent_ms, salt) in entries {
        bytes.extend_from_slice(&sent_ms.to_le_bytes());
        bytes.extend_from_slice(&salt);
    }
    bytes
}

/// The newest entries of a file of this boot, so many bytes of them at most.
fn read(path: &Path, boot: &str, bytes_max: u64) -> io::Result<Vec<(u64, [u8; 16])>> {
    let mut file = File::open(path)?;
    let mut head = vec![0; boot.len()];
    file.read_exact(&mut head)?;
    if boot.is_empty() || head != boot.as_bytes() {
        return Err(io::ErrorKind::InvalidData.into());
    }
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
    Ok(bytes.as_chunks().0.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use ringway_crypto::Salt;

    use super::*;

    #[test]
    fn what_was_heard_before_a_restart_is_known_after_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("sub").join("salts");
        let now = wall_ms();
        let mut first = Registry::default();
        let mut file = SaltFile::open(&path, &mut first);
        assert!(!first.is_fresh(&[9; 32], now - 5000, now), "it is from before the first start");
        assert!(first.is_fresh(&[1; 32], now + 1, now));
        file.append(&mut first);
        assert!(first.is_fresh(&[2; 32], now + 2, now));
        file.append(&mut first);
        drop(file);
        let mut second = Registry::default();
        let mut file = SaltFile::open(&path, &mut second);
        assert!(!second.is_fresh(&[1; 32], now + 1, now));
        assert!(!second.is_fresh(&[2; 32], now + 2, now));
        assert!(second.is_fresh(&[3; 32], now - 5000, now), "the window is whole");
        file.append(&mut second);
        // Another boot.
        let text = std::fs::read(&path).expect("it is there");
        let mut other = text.clone();
        other[0] ^= 1;
        std::fs::write(&path, &other).expect("it can be written");
        let mut third = Registry::default();
        let _file = SaltFile::open(&path, &mut third);
        assert!(!third.is_fresh(&[4; 32], now - 5000, now));
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
            assert!(registry.is_fresh(&salt(number), at(number), at(number)));
            file.append(&mut registry);
            longest = longest.max(path.metadata().expect("it is there").len());
        }
        let bound = 2 * (37 + u64::from(COUNT) * ENTRY_BYTES as u64);
        assert!(longest <= bound.max(FILE_BYTES_MIN), "{longest}");
        drop(file);
        let mut next = Registry::default();
        let _file = SaltFile::open(&path, &mut next);
        let end = at(HANDSHAKES - 1);
        for number in HANDSHAKES - COUNT..HANDSHAKES {
            assert!(!next.is_fresh(&salt(number), at(number), end), "{number}");
        }
        assert!(next.is_fresh(&salt(HANDSHAKES), end, end));
    }

    /// Of a file that is too long the end counts, from the beginning of an entry, and half an entry
    /// behind it does not.
    #[test]
    fn of_too_much_the_newest_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("salts");
        let entries: Vec<(u64, [u8; 16])> = (0..5).map(|at| (at, [at as u8; 16])).collect();
        let mut all = b"this boot\n".to_vec();
        all.extend(bytes(entries.iter().copied()));
        all.extend([7; ENTRY_BYTES / 2]);
        std::fs::write(&path, &all).expect("it can be written");
        let newest = |bytes_max| read(&path, "this boot\n", bytes_max).expect("it is of this boot");
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
            assert!(registry.is_fresh(&salt(number), now, now));
            file.append(&mut registry);
            number += 1;
            assert!(u64::from(number) * ENTRY_BYTES as u64 <= FILE_BYTES_MIN);
        }
        let mut next = Registry::default();
        let _file = SaltFile::open(&path, &mut next);
        assert!(!next.is_fresh(&salt(0), now - 1, wall_ms()), "from before this life");
    }
}
