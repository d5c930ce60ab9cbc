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
//! - K4  A user's number is the same in every reading of the file by one server, and no other user
//!   ever gets it.
//!
//! Bounds: 4096 users, 64 namespaces each, a file of at most 4 MiB, 65536 users over all readings;
//! a check is a binary search and one digest. Not here: when a connection has to authenticate
//! (`coord/proto`), what another reading does to connections (`node.rs`).
//! Tests: below; `tools/fuzz` reads files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use toml::Spanned;

use crate::state::random_bytes;

/// Users of one file.
const USERS_MAX: usize = 4096;
/// Namespaces of one user.
const NAMESPACES_MAX: usize = 64;
/// Users over all readings of the file in the life of one server.
const IDENTITIES_MAX: usize = 65_536;
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
        /// Counted from one.
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
    /// Nobody of that name.
    #[error("{path} has no user {user:?}; `ringway credentials list` shows those it has")]
    Nobody {
        /// Which file.
        path: PathBuf,
        /// Who was looked for.
        user: String,
    },
    /// Too many readings brought new users.
    #[error("{0} has had more than {IDENTITIES_MAX} users since the server started: restart it")]
    Identities(PathBuf),
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

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsersFile {
    /// An empty list is written when the last user is removed; a file without one was cut off.
    #[serde(rename = "user")]
    users: Option<Vec<Spanned<User>>>,
}

/// The file of users, for those who change it.
#[derive(Debug)]
pub struct Users {
    path: PathBuf,
    users: Vec<Spanned<User>>,
}

/// A user as `ringway credentials list` shows it: no token, no digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedUser {
    /// The name.
    #[serde(rename = "user")]
    pub name: String,
    /// Namespaces, or `*`.
    pub namespaces: Vec<String>,
    /// May look at and end other users' sessions.
    pub operator: bool,
}

/// What [`Users::add`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// The token, which nothing keeps: whoever loses it asks for another.
    pub token: String,
    /// There was a user of that name, whose token and grants are worth nothing any more.
    pub replaced: bool,
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
    /// Reads a file that is there.
    pub fn read(path: &Path) -> Result<Users, CredentialsError> {
        let users = parse(&read(path)?, path)?.users.unwrap_or_default();
        Ok(Users { path: path.to_owned(), users })
    }

    /// Reads the file; no file is no users.
    pub fn open(path: &Path) -> Result<Users, CredentialsError> {
        match Users::read(path) {
            Err(CredentialsError::Host { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Ok(Users { path: path.to_owned(), users: Vec::new() })
            }
            read => read,
        }
    }

    /// Adds a user, or gives one a new token and new grants.
    pub fn add(&mut self, new: &NewUser) -> Result<Added, CredentialsError> {
        check_word("user", &new.name)?;
        for namespace in &new.namespaces {
            check_word("namespace", namespace)?;
        }
        if new.namespaces.len() > NAMESPACES_MAX {
            let (what, word) = ("user", new.name.clone());
            return Err(CredentialsError::Word { what, word, why: "has more than 64 namespaces" });
        }
        let replaced = self.take_out(&new.name);
        if self.users.len() >= USERS_MAX {
            return Err(CredentialsError::Full(self.path.clone()));
        }
        let token = format!("{TOKEN_PREFIX}{}", hex(&random_bytes::<32>()));
        let user = User {
            name: new.name.clone(),
            token_sha256: hex(&digest(&token)),
            namespaces: new.namespaces.clone(),
            operator: new.operator,
        };
        self.users.push(Spanned::new(0..0, user));
        self.save()?;
        Ok(Added { token, replaced })
    }

    /// Takes a user out of the file.
    pub fn remove(&mut self, name: &str) -> Result<(), CredentialsError> {
        if !self.take_out(name) {
            let (path, user) = (self.path.clone(), name.to_owned());
            return Err(CredentialsError::Nobody { path, user });
        }
        self.save()
    }

    /// Every user, by name.
    pub fn list(&self) -> Vec<ListedUser> {
        let listed = self.users.iter().map(|user| {
            let User { name, namespaces, operator, .. } = user.get_ref().clone();
            ListedUser { name, namespaces, operator }
        });
        let mut listed: Vec<_> = listed.collect();
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        listed
    }

    /// Whether there was one.
    fn take_out(&mut self, name: &str) -> bool {
        let before = self.users.len();
        self.users.retain(|user| user.get_ref().name != name);
        self.users.len() < before
    }

    /// Replaces the file, atomically, readable for its owner only.
    fn save(&self) -> Result<(), CredentialsError> {
        let head = "# Users of a ringway server; `ringway credentials` writes this file.\n\n";
        let file = UsersFile { users: Some(self.users.clone()) };
        let text = toml::to_string(&file).expect("plain strings");
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

/// The numbers of all users that one server has ever read (K4).
#[derive(Debug, Default)]
pub struct Identities {
    by_name: BTreeMap<String, u32>,
}

impl Identities {
    /// The number of a user, given now if it is new; `None` if there are too many.
    fn id_of(&mut self, name: &str) -> Option<u32> {
        let next = self.by_name.len();
        match self.by_name.get(name) {
            Some(id) => Some(*id),
            None if next == IDENTITIES_MAX => None,
            // 0 is everyone, where no credentials are asked for.
            None => Some(*self.by_name.entry(name.to_owned()).or_insert(next as u32 + 1)),
        }
    }
}

/// The users of a server, checked, ready for its shards: no I/O, no allocation to verify.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Sorted by name.
    users: Vec<(Principal, [u8; 32])>,
}

impl Credentials {
    /// Reads and checks the file for a server that starts: somebody must be able to connect.
    pub fn load(path: &Path, identities: &mut Identities) -> Result<Credentials, CredentialsError> {
        let credentials = Self::reload(path, identities)?;
        if credentials.users.is_empty() { Err(nobody(path)) } else { Ok(credentials) }
    }

    /// Reads and checks the file for a server that runs: the last user may be gone by now.
    pub fn reload(
        path: &Path,
        identities: &mut Identities,
    ) -> Result<Credentials, CredentialsError> {
        Self::from_text(&read(path)?, path, identities)
    }

    /// Checks the text of a file; the path is for messages.
    pub fn from_text(
        text: &str,
        path: &Path,
        identities: &mut Identities,
    ) -> Result<Credentials, CredentialsError> {
        let listed = parse(text, path)?.users.ok_or_else(|| nobody(path))?;
        let wrong =
            |line, message| CredentialsError::Syntax { path: path.to_owned(), line, message };
        if listed.len() > USERS_MAX {
            let line = line_of(text, listed[USERS_MAX].span().start);
            return Err(wrong(line, format!("there are more than {USERS_MAX} users")));
        }
        let mut users: Vec<(Principal, [u8; 32])> = Vec::with_capacity(listed.len());
        for user in listed {
            let (line, user) = (line_of(text, user.span().start), user.into_inner());
            let Some(digest) = unhex(&user.token_sha256) else {
                let message = format!("token_sha256 of user {:?} is not 64 hex digits", user.name);
                return Err(wrong(line, message));
            };
            let principal = principal(user).map_err(|error| wrong(line, error.to_string()))?;
            match users.binary_search_by(|(known, _)| known.name.cmp(&principal.name)) {
                Ok(_) => {
                    return Err(wrong(line, format!("user {:?} is there twice", principal.name)));
                }
                Err(at) => users.insert(at, (principal, digest)),
            }
        }
        // Only now: a file that is refused leaves nothing behind.
        for (principal, _) in &mut users {
            let id = identities.id_of(&principal.name);
            principal.id = id.ok_or_else(|| CredentialsError::Identities(path.to_owned()))?;
        }
        Ok(Credentials { users })
    }

    /// The place here of a user of an earlier reading; `None` if it is gone or has another token.
    pub(crate) fn heir(&self, earlier: &Credentials, index: usize) -> Option<usize> {
        let (then, token) = earlier.users.get(index)?;
        let found = self.users.binary_search_by(|(now, _)| now.name.cmp(&then.name)).ok()?;
        (self.users[found].1 == *token).then_some(found)
    }

    /// Who this is; `None` if it is nobody, or not with this token.
    pub fn verify(&self, user: &[u8], token: &[u8]) -> Option<&Principal> {
        self.place_of(user, token).map(|at| &self.users[at].0)
    }

    /// Where among [`Self::principals`] somebody stands, likewise.
    pub(crate) fn place_of(&self, user: &[u8], token: &[u8]) -> Option<usize> {
        let given = Sha256::digest(token);
        let found = self.users.binary_search_by(|(user_, _)| user_.name.as_bytes().cmp(user));
        // K3: an unknown user costs a digest and a comparison too.
        let kept = found.map_or([0; 32], |at| self.users[at].1);
        let differs = given.iter().zip(kept).fold(0, |bits, (given, kept)| bits | (given ^ kept));
        found.ok().filter(|_| std::hint::black_box(differs) == 0)
    }

    /// Every principal, by name.
    pub fn principals(&self) -> impl Iterator<Item = &Principal> {
        self.users.iter().map(|(principal, _)| principal)
    }
}

fn nobody(path: &Path) -> CredentialsError {
    let message = "there is no user, so nobody could connect: add one with `ringway credentials \
                   add USER --file FILE`";
    CredentialsError::Syntax { path: path.to_owned(), line: 1, message: message.to_owned() }
}

/// What a user of the file may do. Its number is given once the whole file is known to be good.
fn principal(user: User) -> Result<Principal, CredentialsError> {
    let User { name, mut namespaces, operator, .. } = user;
    check_word("user", &name)?;
    for namespace in &namespaces {
        check_word("namespace", namespace)?;
    }
    namespaces.sort();
    namespaces.dedup();
    let all = namespaces.iter().any(|namespace| namespace == "*");
    let namespaces = if all { Namespaces::All } else { Namespaces::Some(namespaces) };
    Ok(Principal { id: 0, name, namespaces, operator })
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
        let at = error.span().map_or(0, |span| span.start);
        CredentialsError::Syntax {
            path: path.to_owned(),
            line: line_of(text, at),
            message: error.message().to_owned(),
        }
    })
}

/// The line of a place in the text, counted from one.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
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

    fn added(result: Result<Added, CredentialsError>) -> String {
        result.expect("adds").token
    }

    fn load(path: &Path) -> Result<Credentials, CredentialsError> {
        Credentials::load(path, &mut Identities::default())
    }

    /// A user is added, its token is shown once and kept nowhere, and it opens the right names.
    #[test]
    fn a_token_opens_its_namespaces() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("users.toml");
        let mut users = Users::open(&path).expect("no file yet");
        let shop = added(users.add(&new("shop", &["orders", "carts"], false)));
        let ops = added(users.add(&new("ops", &["*"], true)));
        let text = std::fs::read_to_string(&path).expect("written");
        assert!(!text.contains(&shop) && !text.contains(&shop[4..]), "K1");
        let mode = std::fs::metadata(&path).expect("written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let credentials = load(&path).expect("our own file");
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
        let credentials = load(&path).expect("our own file");
        let (old, new_) = (old.expect("adds"), new_.expect("adds"));
        assert_eq!((old.replaced, new_.replaced), (false, true));
        assert_eq!(credentials.verify(b"a", old.token.as_bytes()), None);
        let principal = credentials.verify(b"a", new_.token.as_bytes()).expect("new one");
        assert!(principal.covers(b"y/1") && !principal.covers(b"x/1"));
        assert_eq!(credentials.principals().count(), 1);
    }

    /// Who is taken out of the file is nobody; who was never in it is said.
    #[test]
    fn users_are_listed_and_removed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("users.toml");
        let mut users = Users::open(&path).expect("no file yet");
        assert_eq!(users.list(), []);
        let tokens = ["b", "a"].map(|name| added(users.add(&new(name, &["x"], name == "a"))));
        let names = |users: &Users| -> Vec<_> {
            users.list().into_iter().map(|user| (user.name, user.operator)).collect()
        };
        assert_eq!(names(&users), [("a".to_owned(), true), ("b".to_owned(), false)]);
        users.remove("b").expect("it is there");
        let again = users.remove("b").expect_err("it is gone").to_string();
        assert!(again.contains("no user \"b\""), "{again}");
        assert_eq!(names(&Users::open(&path).expect("our own file")).len(), 1);
        let credentials = load(&path).expect("our own file");
        assert_eq!(credentials.verify(b"b", tokens[0].as_bytes()), None);
        assert!(credentials.verify(b"a", tokens[1].as_bytes()).is_some());
        // Without its last user the file is still a whole one, though no server starts with it.
        users.remove("a").expect("it is there");
        let started = load(&path).expect_err("nobody could connect").to_string();
        assert!(started.contains("there is no user"), "{started}");
        let again = Credentials::reload(&path, &mut Identities::default());
        assert_eq!(again.expect("nobody any more").principals().count(), 0);
    }

    /// K2: readable or writable for anyone else is refused, with the command that mends it.
    #[test]
    fn an_open_file_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("users.toml");
        Users::open(&path).and_then(|mut users| users.add(&new("a", &["x"], false))).expect("adds");
        for mode in [0o604, 0o640, 0o602, 0o660, 0o610, 0o777] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("own file");
            let error = load(&path).expect_err("others can").to_string();
            assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
            assert!(error.contains("chmod 600"), "{error}");
            assert!(Users::open(&path).is_err());
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).expect("own file");
        load(&path).expect("even less is fine");
    }

    /// A file that is not ours is refused with its line; so are users that cannot be.
    #[test]
    fn wrong_files_are_named() {
        let path = Path::new("users.toml");
        let good = "a".repeat(64);
        for (text, said) in [
            ("".to_owned(), "users.toml:1: there is no user"),
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
                "users.toml:4: user \"a\" is there twice",
            ),
            (
                format!("[[user]]\nname=\"a\"\ntoken_sha256=\"{good}\"\nnamespaces=[\"x/y\"]"),
                "has a `/` in it",
            ),
        ] {
            let error = Credentials::from_text(&text, path, &mut Identities::default())
                .expect_err(&text)
                .to_string();
            assert!(error.contains(said), "{text}\n said: {error}\n not: {said}");
        }
        let missing = load(Path::new("/nonexistent/users")).expect_err("no file");
        assert!(missing.to_string().contains("credentials add"), "{missing}");
        assert!(unhex(&good).is_some());
    }
}
