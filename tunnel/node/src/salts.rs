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
//! Bounds: 24 bytes a handshake; written anew at each start with what still counts.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ringway_tunnel_proto::Registry;

use crate::shared::wall_ms;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const ENTRY_BYTES: usize = 24;
/// Bytes that are read: many more salts than the registry keeps.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// See the module.
pub(crate) struct SaltFile {
    path: PathBuf,
    file: Option<File>,
}

impl SaltFile {
    /// Fills a registry from the file, and keeps the file for what comes. Without one, or if it is
    /// of another boot, the registry refuses what was sent before now.
    pub(crate) fn open(path: &Path, registry: &mut Registry) -> SaltFile {
        let now_ms = wall_ms();
        registry.not_before_ms = now_ms;
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        if let Ok(entries) = read(path, &boot) {
            registry.salts.restore(entries, now_ms);
            registry.not_before_ms = 0;
        }
        let file = write(path, &boot, registry);
        if let Err(error) = &file {
            tracing::warn!(
                "the salts of handshakes cannot be kept in {}: {error}; after a restart, peers \
                 whose clocks are behind wait until they catch up with it",
                path.display()
            );
        }
        SaltFile { path: path.to_owned(), file: file.ok() }
    }

    /// Keeps what the registry took since.
    pub(crate) fn append(&mut self, registry: &mut Registry) {
        let new = registry.take_new();
        let Some(file) = self.file.as_mut().filter(|_| !new.is_empty()) else { return };
        if let Err(error) = file.write_all(&bytes(new)) {
            tracing::warn!("{}: {error}; salts are not kept any more", self.path.display());
            // Half a record would make nonsense of the next ones.
            let _ = std::fs::remove_file(&self.path);
            self.file = None;
        }
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

fn read(path: &Path, boot: &str) -> io::Result<Vec<(u64, [u8; 16])>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    let entries = bytes.strip_prefix(boot.as_bytes()).filter(|_| !boot.is_empty());
    let entries = entries.ok_or(io::ErrorKind::InvalidData)?;
    let entry = |entry: &[u8; ENTRY_BYTES]| {
        let (sent_ms, salt) = entry.split_first_chunk().expect("24 bytes begin with 8");
        (u64::from_le_bytes(*sent_ms), salt.try_into().expect("and end with 16"))
    };
    Ok(entries.as_chunks().0.iter().map(entry).collect())
}

fn write(path: &Path, boot: &str, registry: &mut Registry) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut all = boot.as_bytes().to_vec();
    all.extend(bytes(registry.salts.entries()));
    file.write_all(&all)?;
    registry.take_new();
    Ok(file)
}

#[cfg(test)]
mod tests {
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
}
