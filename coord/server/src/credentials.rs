//! Credentials: who may connect, and which names are theirs.
//!
//! A user proves itself with a token that we drew: 256 random bits. Guessing one is out of the
//! question, so a plain SHA-256 of it is a safe thing to keep, and checking it costs a shard less
//! than a microsecond. A slow password hash would protect passwords that people choose; it would
//! also let anyone who can connect stop a shard for 50 ms at will. So there are no such passwords.
//!
//! Invariants:
//! - K1  The file never holds a token, only digests; nothing here prints one, except [`Users::add`]
//!   to its caller, once.
//! - K2  A file that others can read or write is refused.
//! - K3  Checking takes the same time for a wrong token and for an unknown user.
//!
//! Bounds: 4096 users, 64 namespaces each, a file of at most 4 MiB; a check is a binary search and
//! one digest. Not here: when a connection has to authenticate (`pump.rs`).
//! Tests: below; `tools/fuzz` reads files.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::state::random_bytes;

/// Users of one file.
const USERS_MAX: usize = 4096;
/// Namespaces of one user.
const NAMESPACES_MAX: usize = 64;
/// Bytes of a user's name or of a namespace.
const WORD_BYTES_MAX: usize = 128;
/// Bytes of the file.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// What every token starts with, so that a leaked one is recognised.
const TOKEN_PREFIX: &str = "rwt_";

/// Who a connection acts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Tells principals of this process apart; 0 is everyone, where no credentials are asked for.
    pub id: u32,
    /// The user's name.
    pub name: String,
    /// Which names are the user's.
    pub namespaces: Namespaces,
    /// May look at and end other users' sessions.
    pub operator: bool,
}

impl Principal {
    /// Whoever connects where no credentials are asked for.
    pub fn anyone() -> Principal {
        let name = "anyone".to_owned();
        Principal { id: 0, name, namespaces: Namespaces::All, operator: true }
    }

    /// Whether this name may be looked at and claimed.
    ///
    /// The namespace of a name is what stands before its first `/`; a name without one is a
    /// namespace of itself, so that a grant of `orders` covers `orders` and `orders/17`.
    pub fn covers(&self, name: &[u8]) -> bool {
        match &self.namespaces {
            Namespaces::All => true,
            Namespaces::Some(granted) => {
                let end = name.iter().position(|byte| *byte == b'/').unwrap_or(name.len());
                granted.binary_search_by(|word| word.as_bytes().cmp(&name[..end])).is_ok()
            }
        }
    }
}

/// Namespaces granted to a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// `*`.
    All,
    /// These, sorted.
    Some(Vec<String>),
}

/// Why there are no credentials.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// The host refused.
    #[error("cannot {act} the credentials {path}: {source}{hint}", hint = hint(source))]
    Host {
        /// What was tried.
        act: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others could have changed it, or could read it.
    #[error(
        "the credentials {path} have mode {mode:04o}, so others can read or change them: run \
         `chmod 600 {path}`, and `ringway credentials add` again for each user if they did"
    )]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is not what `ringway credentials add` writes.
    #[error("{path}:{line}: {message}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Counted from one; zero if it is about the whole.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A word that cannot be one.
    #[error("{what} {word:?} {why}")]
    Word {
        /// "user" or "namespace".
        what: &'static str,
        /// The word.
        word: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is no more room.
    #[error("{0} has {USERS_MAX} users already: give several programs one user")]
    Full(PathBuf),
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::NotFound => " (make it with `ringway credentials add USER --file FILE`)",
        _ => "",
    }
}

/// A user as the file has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    name: String,
    /// SHA-256 of the token, in hexadecimal digits.
    token_sha256: String,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default)]
    operator: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsersFile {
    #[serde(default, rename = "user")]
    users: Vec<User>,
}

/// The file of users, for those who change it.
#[derive(Debug)]
pub struct Users {
    path: PathBuf,
    file: UsersFile,
}

/// What a new user is to be.
#[derive(Clone, Debug, Default)]
pub struct NewUser {
    /// The name; a user of that name is replaced.
    pub name: String,
    /// Namespaces, or `*`.
    pub namespaces: Vec<String>,
    /// May look at and end other users' sessions.
    pub operator: bool,
}

impl Users {
    /// Reads the file; no file is no users.
    pub fn open(path: &Path) -> Result<Users, CredentialsError> {
        let file = match read(path) {
            Ok(text) => parse(&text, path)?,
            Err(CredentialsError::Host { source, .. }) if source.kind() == ErrorKind::NotFound => {
                UsersFile::default()
            }
            Err(error) => return Err(error),
        };
        Ok(Users { path: path.to_owned(), file })
    }

    /// Adds a user, or gives one a new token and new grants. Returns the token, which nothing
    /// keeps: whoever loses it asks for another.
    pub fn add(&mut self, new: &NewUser) -> Result<String, CredentialsError> {
        check_word("user", &new.name)?;
        for namespace in &new.namespaces {
            check_word("namespace", namespace)?;
        }
        if new.namespaces.len() > NAMESPACES_MAX {
            let (what, word) = ("user", new.name.clone());
            return Err(CredentialsError::Word { what, word, why: "has more than 64 namespaces" });
        }
        self.file.users.retain(|user| user.name != new.name);
        if self.file.users.len() >= USERS_MAX {
            return Err(CredentialsError::Full(self.path.clone()));
        }
        let token = format!("{TOKEN_PREFIX}{}", hex(&random_bytes::<32>()));
        self.file.users.push(User {
            name: new.name.clone(),
            token_sha256: hex(&digest(&token)),
            namespaces: new.namespaces.clone(),
            operator: new.operator,
        });
        self.save()?;
        Ok(token)
    }

    /// Replaces the file, atomically, readable for its owner only.
    fn save(&self) -> Result<(), CredentialsError> {
        let head = "# Users of a ringway server; `ringway credentials add` writes this file.\n\n";
        let text = toml::to_string(&self.file).expect("plain strings");
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        let new = PathBuf::from(new);
        let written = || -> io::Result<()> {
            let _ = std::fs::remove_file(&new);
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(head.as_bytes())?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, &self.path)
        };
        written().map_err(|source| host("write", &self.path, source))
    }
}

/// The users of a server, checked, ready for its shards: no I/O, no allocation to verify.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Sorted by name.
    users: Vec<(Principal, [u8; 32])>,
}

impl Credentials {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Credentials, CredentialsError> {
        Self::from_text(&read(path)?, path)
    }

    /// Checks the text of a file; the path is for messages.
    pub fn from_text(text: &str, path: &Path) -> Result<Credentials, CredentialsError> {
        let file = parse(text, path)?;
        let wrong =
            |message: String| CredentialsError::Syntax { path: path.to_owned(), line: 0, message };
        if file.users.is_empty() {
            let hint = "add one with `ringway credentials add USER --file FILE`";
            return Err(wrong(format!("there is no user, so nobody could connect: {hint}")));
        }
        if file.users.len() > USERS_MAX {
            return Err(wrong(format!("there are more than {USERS_MAX} users")));
        }
        let mut users = Vec::with_capacity(file.users.len());
        for (user, id) in file.users.into_iter().zip(1..) {
            let Some(digest) = unhex(&user.token_sha256) else {
                let message = format!("token_sha256 of user {:?} is not 64 hex digits", user.name);
                return Err(wrong(message));
            };
            users.push((principal(user, id)?, digest));
        }
        users.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        if let Some(twice) = users.windows(2).find(|pair| pair[0].0.name == pair[1].0.name) {
            return Err(wrong(format!("user {:?} is there twice", twice[0].0.name)));
        }
        Ok(Credentials { users })
    }

    /// Who this is; `None` if it is nobody, or not with this token.
    pub fn verify(&self, user: &[u8], token: &[u8]) -> Option<&Principal> {
        let given = Sha256::digest(token);
        let found = self.users.binary_search_by(|(user_, _)| user_.name.as_bytes().cmp(user));
        // K3: an unknown user costs a digest and a comparison too.
        let (principal, kept) = match found {
            Ok(at) => (Some(&self.users[at].0), self.users[at].1),
            Err(_) => (None, [0; 32]),
        };
        let differs = given.iter().zip(kept).fold(0, |bits, (given, kept)| bits | (given ^ kept));
        principal.filter(|_| std::hint::black_box(differs) == 0)
    }

    /// Every principal, by name.
    pub fn principals(&self) -> impl Iterator<Item = &Principal> {
        self.users.iter().map(|(principal, _)| principal)
    }
}

fn principal(user: User, id: u32) -> Result<Principal, CredentialsError> {
    let User { name, mut namespaces, operator, .. } = user;
    check_word("user", &name)?;
    for namespace in &namespaces {
        check_word("namespace", namespace)?;
    }
    namespaces.sort();
    namespaces.dedup();
    let all = namespaces.iter().any(|namespace| namespace == "*");
    let namespaces = if all { Namespaces::All } else { Namespaces::Some(namespaces) };
    Ok(Principal { id, name, namespaces, operator })
}

fn check_word(what: &'static str, word: &str) -> Result<(), CredentialsError> {
    let why = if word.is_empty() {
        "is empty"
    } else if word.len() > WORD_BYTES_MAX {
        "is longer than 128 bytes"
    } else if word.chars().any(|c| c.is_control() || c.is_whitespace()) {
        "has a space or a control character in it"
    } else if what == "namespace" && word.contains('/') {
        "has a `/` in it: a namespace is what stands before the first one"
    } else {
        return Ok(());
    };
    Err(CredentialsError::Word { what, word: word.to_owned(), why })
}

/// Reads a file that only its owner can (K2). The mode is that of the opened file, so that it
/// cannot be changed between the look and the read.
fn read(path: &Path) -> Result<String, CredentialsError> {
    let opened = File::open(path).map_err(|source| host("open", path, source))?;
    let metadata = opened.metadata().map_err(|source| host("look at", path, source))?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(CredentialsError::Open { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    let taken = opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    taken.map_err(|source| host("read", path, source))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(host("read", path, ErrorKind::FileTooLarge.into()));
    }
    Ok(text)
}

fn parse(text: &str, path: &Path) -> Result<UsersFile, CredentialsError> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        CredentialsError::Syntax {
            path: path.to_owned(),
            line: 1 + text[..at].matches('\n').count(),
            message: error.message().to_owned(),
        }
    })
}

fn host(act: &'static str, path: &Path, source: io::Error) -> CredentialsError {
    CredentialsError::Host { act, path: path.to_owned(), source }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes it");
        text
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |b, d| b << 4 | d)).collect();
    if text.len() == 64 { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn new(name: &str, namespaces: &[&str], operator: bool) -> NewUser {
        let namespaces = namespaces.iter().map(|word| (*word).to_owned()).collect();
        NewUser { name: name.to_owned(), namespaces, operator }
    }

    /// A user is added, its token is shown once and kept nowhere, and it opens the right names.
    #[test]
    fn a_token_opens_its_namespaces() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("users.toml");
        let mut users = Users::open(&path).expect("no file yet");
        let shop = users.add(&new("shop", &["orders", "carts"], false)).expect("adds");
        let ops = users.add(&new("ops", &["*"], true)).expect("adds");
        let text = std::fs::read_to_string(&path).expect("written");
        assert!(!text.contains(&shop) && !text.contains(&shop[4..]), "K1");
        let mode = std::fs::metadata(&path).expect("written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let credentials = Credentials::load(&path).expect("our own file");
        let principal = credentials.verify(b"shop", shop.as_bytes()).expect("the right token");
        for (name, covered) in [
            (&b"orders"[..], true),
            (b"orders/17", true),
            (b"carts//", true),
            (b"orders2/17", false),
            (b"order", false),
            (b"/orders", false),
            (b"\xFF\x00/orders", false),
            (b"*", false),
        ] {
            assert_eq!(principal.covers(name), covered, "{name:?}");
        }
        assert!(!principal.operator);
        let ops_principal = credentials.verify(b"ops", ops.as_bytes()).expect("the right token");
        assert!(ops_principal.operator && ops_principal.covers(b"\xFF"));
        assert_ne!(ops_principal.id, principal.id);
        assert!(ops_principal.id != 0 && Principal::anyone().id == 0);

        for (user, token) in [
            ("shop", ops.as_str()),
            ("shop", ""),
            ("shop", &shop[..shop.len() - 1]),
            ("nobody", &shop),
            ("", ""),
        ] {
            assert_eq!(credentials.verify(user.as_bytes(), token.as_bytes()), None, "{user}");
        }
    }

    /// Adding a user again replaces its token: the old one is worth nothing from then on.
    #[test]
    fn a_lost_token_is_replaced() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("users.toml");
        let old = Users::open(&path).and_then(|mut users| users.add(&new("a", &["x"], false)));
        let new_ = Users::open(&path).and_then(|mut users| users.add(&new("a", &["y"], false)));
        let credentials = Credentials::load(&path).expect("our own file");
        assert_eq!(credentials.verify(b"a", old.expect("adds").as_bytes()), None);
        let principal = credentials.verify(b"a", new_.expect("adds").as_bytes()).expect("new one");
        assert!(principal.covers(b"y/1") && !principal.covers(b"x/1"));
        assert_eq!(credentials.principals().count(), 1);
    }

    /// K2: readable or writable for anyone else is refused, with the command that mends it.
    #[test]
    fn an_open_file_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("users.toml");
        Users::open(&path).and_then(|mut users| users.add(&new("a", &["x"], false))).expect("adds");
        for mode in [0o604, 0o640, 0o602, 0o660, 0o610, 0o777] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("own file");
            let error = Credentials::load(&path).expect_err("others can").to_string();
            assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
            assert!(error.contains("chmod 600"), "{error}");
            assert!(Users::open(&path).is_err());
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).expect("own file");
        Credentials::load(&path).expect("even less is fine");
    }

    /// A file that is not ours is refused with its line; so are users that cannot be.
    #[test]
    fn wrong_files_are_named() {
        let path = Path::new("users.toml");
        let good = "a".repeat(64);
        for (text, said) in [
            ("".to_owned(), "there is no user"),
            ("user = 3".to_owned(), "users.toml:1: invalid type"),
            (
                format!("[[user]]\nname = \"a\"\npassword = \"{good}\""),
                "users.toml:3: unknown field",
            ),
            ("[[user]]\nname = \"a\"\ntoken_sha256 = \"zz\"".to_owned(), "not 64 hex digits"),
            (format!("[[user]]\nname = \"a\"\ntoken_sha256 = \"{good}é\""), "not 64 hex digits"),
            (format!("[[user]]\nname = \"\"\ntoken_sha256 = \"{good}\""), "is empty"),
            (format!("[[user]]\nname = \"a b\"\ntoken_sha256 = \"{good}\""), "has a space"),
            (
                format!("[[user]]\nname = \"a\"\ntoken_sha256 = \"{good}\"\n").repeat(2),
                "\"a\" is there twice",
            ),
            (
                format!("[[user]]\nname=\"a\"\ntoken_sha256=\"{good}\"\nnamespaces=[\"x/y\"]"),
                "has a `/` in it",
            ),
        ] {
            let error = Credentials::from_text(&text, path).expect_err(&text).to_string();
            assert!(error.contains(said), "{text}\n said: {error}\n not: {said}");
        }
        let missing = Credentials::load(Path::new("/nonexistent/users")).expect_err("no file");
        assert!(missing.to_string().contains("credentials add"), "{missing}");
        assert!(unhex(&good).is_some());
    }
}
