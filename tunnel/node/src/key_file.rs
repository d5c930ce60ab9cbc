//! Keys in files: one line, for its owner alone.
//!
//! Invariants:
//! - K1  A file that others can read or change is refused: its key is theirs, too.
//! - K2  A key is written to a file that was not there, with mode 0600 from its first moment.
//!
//! Bounds: a file of more than a kilobyte is no key.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ringway_crypto::{KeyTextError, NetworkKey, PrivateKey, Psk, PublicKey};
use rustix::process::geteuid;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::chance::{NoChance, entropy};

/// Bytes of a key file, at most: a key has about sixty, the rest is for blanks.
const FILE_BYTES_MAX: u64 = 1024;

/// Which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// The private half of an identity.
    Private,
    /// What all sites of a network share.
    Network,
    /// What exactly two sites share.
    Shared,
}

/// Why there is no key.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not for the user that this process runs as.
    #[error(
        "the key {path} cannot be read by uid {uid}, as which this runs: give it to that user, \
         `chown {uid} {path} && chmod 600 {path}`, and see that its directory can be entered"
    )]
    Denied {
        /// The file.
        path: PathBuf,
        /// Who we are.
        uid: u32,
    },
    /// Others can read or change it.
    #[error(
        "the key {path} has mode {mode:04o}, so others can read or change it: run `chmod 600 \
         {path}`, and make a new key if anybody else has an account here"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is there already.
    #[error("{path} is there already, and a key is not overwritten: name another file, or move it")]
    There {
        /// The file.
        path: PathBuf,
    },
    /// What it says is not a key of this kind.
    #[error("{path}: {source}")]
    Text {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyTextError,
    },
    /// It is not a text of one line.
    #[error("{path} is not a key: a key is one line, as `ringway keygen` writes it")]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// No key can be made.
    #[error(transparent)]
    NoChance(#[from] NoChance),
}

impl KeyFileError {
    /// True if the host refused or something is in the way, false if the words are wrong.
    pub fn is_hosts_doing(&self) -> bool {
        match self {
            KeyFileError::Text { .. } | KeyFileError::NotText { .. } => false,
            KeyFileError::Io { .. }
            | KeyFileError::Denied { .. }
            | KeyFileError::Open { .. }
            | KeyFileError::There { .. }
            | KeyFileError::NoChance(_) => true,
        }
    }
}

/// What was made.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Of a private key, the half that peers need.
    pub public: Option<PublicKey>,
}

/// Makes a new key in a new file (K2).
///
/// # Errors
/// [`KeyFileError`]; then there is no file that was not there before.
pub fn make(kind: KeyKind, path: &Path) -> Result<Made, KeyFileError> {
    let secret = entropy()?.secret();
    let (text, public) = match kind {
        KeyKind::Private => {
            let key = PrivateKey::new(secret);
            (key.to_text(), Some(key.public()))
        }
        KeyKind::Network => (NetworkKey::new(secret).to_text(), None),
        KeyKind::Shared => (Psk::new(secret).to_text(), None),
    };
    keep(&text, path)?;
    Ok(Made { public })
}

/// Writes a key, which came from elsewhere, into a new file (K2).
///
/// # Errors
/// [`KeyFileError`]; then there is no file that was not there before.
pub(crate) fn keep(text: &str, path: &Path) -> Result<(), KeyFileError> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyFileError::There { path: path.to_owned() },
        io::ErrorKind::NotFound => {
            let source = io::Error::new(source.kind(), "its directory is not there: make it first");
            KeyFileError::Io { path: path.to_owned(), source }
        }
        _ => KeyFileError::Io { path: path.to_owned(), source },
    };
    let mut file =
        File::options().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all());
    if let Err(source) = written {
        // Half a key is worse than none; if it cannot be removed, the error says what is wrong.
        let _ = std::fs::remove_file(path);
        return Err(io(source));
    }
    Ok(())
}

/// Reads the private half of an identity.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_private(path: &Path) -> Result<PrivateKey, KeyFileError> {
    read(path, PrivateKey::from_text)
}

/// Reads a network's key.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_network(path: &Path) -> Result<NetworkKey, KeyFileError> {
    read(path, NetworkKey::from_text)
}

/// Reads a secret that two sites share.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_shared(path: &Path) -> Result<Psk, KeyFileError> {
    read(path, Psk::from_text)
}

/// The mode is that of the file that was opened, so that it is that of what is read.
fn read<K>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<K, KeyTextError>,
) -> Result<K, KeyFileError> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::PermissionDenied => {
            KeyFileError::Denied { path: path.to_owned(), uid: geteuid().as_raw() }
        }
        _ => KeyFileError::Io { path: path.to_owned(), source },
    };
    let file = File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Open { path: path.to_owned(), mode });
    }
    // With room for all of it at once: a buffer that grows leaves copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize + 1));
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    let text = std::str::from_utf8(&bytes).ok();
    let text = text.filter(|text| text.len() as u64 <= FILE_BYTES_MAX && text.lines().count() == 1);
    let text = text.ok_or_else(|| KeyFileError::NotText { path: path.to_owned() })?;
    parse(text).map_err(|source| KeyFileError::Text { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn place(name: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join(name);
        (dir, path)
    }

    #[test]
    fn a_key_is_made_once_and_read_by_its_owner_alone() {
        let (_dir, path) = place("site.key");
        let made = make(KeyKind::Private, &path).expect("a new file");
        let mode = std::fs::metadata(&path).expect("written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let key = read_private(&path).expect("it was just written");
        assert_eq!(Some(key.public()), made.public);
        assert!(matches!(make(KeyKind::Private, &path), Err(KeyFileError::There { .. })));
        assert!(read_private(&path).is_ok_and(|again| again == key), "it was not touched");
        for mode in [0o604, 0o640, 0o602, 0o660, 0o610, 0o777] {
            set_permissions(&path, Permissions::from_mode(mode)).expect("own file");
            let error = read_private(&path).err().expect("K1").to_string();
            assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
        }
    }

    #[test]
    fn a_missing_directory_is_told() {
        let (_dir, path) = place("none");
        let error = make(KeyKind::Network, &path.join("n.key")).expect_err("nowhere to write");
        assert!(error.is_hosts_doing() && error.to_string().contains("make it first"), "{error}");
    }

    #[test]
    fn each_kind_is_read_as_that_kind_only() {
        let (_dir, path) = place("network.key");
        assert!(make(KeyKind::Network, &path).is_ok_and(|made| made.public.is_none()));
        assert!(read_network(&path).is_ok());
        let error = read_shared(&path).err().expect("it is a network key").to_string();
        assert!(error.contains("network key where a shared key belongs"), "{error}");
    }

    /// What is no key is refused, and nothing of it is repeated.
    #[test]
    fn other_texts_are_refused_and_not_repeated() {
        let (_dir, path) = place("site.key");
        let long = format!("ringway-private:{}", "secret".repeat(300));
        for text in ["", "two\nlines", "secret", "ringway-private:secret", &long] {
            std::fs::write(&path, text).expect("writes");
            set_permissions(&path, Permissions::from_mode(0o600)).expect("own file");
            let error = read_private(&path).err().expect("it is no key").to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        std::fs::remove_file(&path).expect("it is there");
        assert!(matches!(read_private(&path), Err(KeyFileError::Io { .. })));
    }
}
