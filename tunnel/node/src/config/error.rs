//! Why there is no configuration: where, what, and what to do.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use ringway_crypto::KeyTextError;
use thiserror::Error;

use crate::key_file::KeyFileError;
use crate::policy::NoRule;

/// A line of a file: `far.toml:3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The file.
    pub path: PathBuf,
    /// Counted from one.
    pub line: usize,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// Why there is no configuration. Nothing of a key is repeated.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}{}", first_one(.source))]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is far too long to be one.
    #[error("{0} is larger than 1 MiB: this is not a configuration of ringway")]
    TooLong(PathBuf),
    /// It is not TOML.
    #[error("{at}: {message}")]
    Syntax {
        /// Where.
        at: At,
        /// What the parser said.
        message: String,
    },
    /// A section or a field that we do not have.
    #[error("{at}: {section} has no {name:?}{}", hint(*.meant, .known))]
    Unknown {
        /// Where.
        at: At,
        /// In what: `[[peer]]`, or "the file".
        section: &'static str,
        /// What it says.
        name: String,
        /// What it may mean.
        meant: Option<&'static str>,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// A value that the field does not take.
    #[error("{at}: {field} is {given:?}, but it takes {wanted}")]
    Value {
        /// Where.
        at: At,
        /// Which field.
        field: &'static str,
        /// What it says.
        given: String,
        /// What it takes.
        wanted: &'static str,
    },
    /// A field that must be there is not.
    #[error("{at}: {section} has no {field}, which is {wanted}")]
    Missing {
        /// Where the section begins.
        at: At,
        /// The section.
        section: &'static str,
        /// The field.
        field: &'static str,
        /// What it takes.
        wanted: &'static str,
    },
    /// More than there may be.
    #[error("{at}: there may be at most {most} of {what}")]
    TooMany {
        /// Where the first of too many stands.
        at: At,
        /// Of what.
        what: &'static str,
        /// How many.
        most: usize,
    },
    /// A key is not in its file, or the file is not fit for one.
    #[error("{at}: {field}: {source}{}", if is_missing(source) { make_one(field) } else { "" })]
    Key {
        /// Where.
        at: At,
        /// Which field.
        field: &'static str,
        /// Why.
        source: KeyFileError,
    },
    /// A text is no public key.
    #[error(
        "{at}: public_key: {source}; `ringway keygen --public FILE` prints it at the other side"
    )]
    PublicKey {
        /// Where.
        at: At,
        /// Why.
        source: KeyTextError,
    },
    /// A text is no rule.
    #[error("{at}: allow: {given:?} {source}")]
    Rule {
        /// Where.
        at: At,
        /// What it says.
        given: String,
        /// Why.
        source: NoRule,
    },
    /// A rule that needs names, where none are resolved.
    #[error(
        "{at}: allow: {given:?} is about a name, but this side resolves none (resolve_names = \
         false): name the address, or say resolve_names = true"
    )]
    NoNames {
        /// Where.
        at: At,
        /// The rule.
        given: String,
    },
    /// Two of one name.
    #[error(
        "{at}: there is a {what} {name:?} already, in line {first}: give this one another name"
    )]
    Twice {
        /// Where the second is.
        at: At,
        /// Of what.
        what: &'static str,
        /// The name.
        name: String,
        /// Where the first is.
        first: usize,
    },
    /// Two sockets at one address.
    #[error("{at}: {addr} is taken by line {first} already: choose another port")]
    TakenTwice {
        /// Where the second is.
        at: At,
        /// The address.
        addr: SocketAddr,
        /// Where the first is.
        first: usize,
    },
    /// A key of two peers.
    #[error(
        "{at}: {field} is that of peer {other:?}, too (line {first}), so that each could pose as \
         the other or as this side: make a key for each, `ringway keygen{}`",
        if *.field == "public_key" { " FILE` at each of them" } else { " --shared FILE`" }
    )]
    SameKey {
        /// Where the second is.
        at: At,
        /// Which field.
        field: &'static str,
        /// The first peer that has it.
        other: String,
        /// Where that is.
        first: usize,
    },
    /// A peer with our own key.
    #[error(
        "{at}: public_key of peer {peer:?} is this side's own: take the line that `ringway keygen \
         --public FILE` prints at the other side"
    )]
    OwnKey {
        /// Where.
        at: At,
        /// Which peer.
        peer: String,
    },
    /// A peer without a key, or with two kinds of them.
    #[error("{at}: peer {peer:?} {wrong}")]
    Identity {
        /// Where.
        at: At,
        /// Which peer.
        peer: String,
        /// What is wrong, and what to write.
        wrong: WrongIdentity,
    },
    /// No way to or from a peer.
    #[error(
        "{at}: peer {peer:?} can never be connected: give it addresses (then this side dials), or \
         give [tunnel] a listen (then the peer does)"
    )]
    Nowhere {
        /// Where.
        at: At,
        /// Which peer.
        peer: String,
    },
    /// Nobody to connect with.
    #[error(
        "{0}: there is neither a [[peer]] nor a listen, so nobody could be connected: `ringway \
         tunnel invite` at the other side, and `ringway tunnel join` here, write both"
    )]
    Nobody(PathBuf),
    /// A peer or a service that is not there.
    #[error("{at}: there is no {what} {name:?}{}", hint_of(.meant, what))]
    Nothing {
        /// Where.
        at: At,
        /// Of what: "[[peer]]".
        what: &'static str,
        /// What it says.
        name: String,
        /// What it may mean.
        meant: Option<String>,
    },
    /// A listener that others can reach.
    #[error(
        "{at}: {addr} can be reached by others, who could use this peer's network as if they were \
         you: listen on 127.0.0.1, or say public = true if that is what you want"
    )]
    Public {
        /// Where.
        at: At,
        /// What it says.
        addr: SocketAddr,
    },
    /// An admin endpoint that others can reach.
    #[error(
        "{at}: admin is {addr}, which others can reach: the endpoint asks for no password. Use a \
         loopback address, and a proxy with authentication in front of it"
    )]
    AdminNotLocal {
        /// Where.
        at: At,
        /// What it says.
        addr: SocketAddr,
    },
}

/// What is wrong with the keys of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrongIdentity {
    /// None at all.
    Neither,
    /// Both kinds.
    Both,
    /// A second secret without a first.
    PskAlone,
    /// Its key pair needs ours.
    NoPrivateKey,
}

impl fmt::Display for WrongIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Neither => {
                "has no key: give it public_key = \"ringway-public:...\" (what `ringway keygen \
                 --public` prints there) or shared_key = \"FILE\" (a key of exactly you two)"
            }
            Self::Both => {
                "has both public_key and shared_key: take one out. A second secret beside a public \
                 key is called psk"
            }
            Self::PskAlone => {
                "has a psk, which is a second secret beside public_key, and no public_key: call it \
                 shared_key if it is all that you two have"
            }
            Self::NoPrivateKey => {
                "has a public_key, so this side needs one of its own: run `ringway keygen \
                 site.key`, and say key = \"site.key\" in [tunnel]"
            }
        })
    }
}

impl ConfigError {
    /// True if the host lacks something, false if the words were wrong.
    pub fn is_hosts_doing(&self) -> bool {
        match self {
            ConfigError::Read { .. } => true,
            ConfigError::Key { source, .. } => source.is_hosts_doing(),
            _ => false,
        }
    }
}

fn is_missing(error: &KeyFileError) -> bool {
    let KeyFileError::Io { source, .. } = error else { return false };
    source.kind() == io::ErrorKind::NotFound
}

/// Who has no configuration yet is told where one comes from.
fn first_one(error: &io::Error) -> &'static str {
    if error.kind() != io::ErrorKind::NotFound {
        return "";
    }
    ". `ringway tunnel join` makes one of an invitation; docs/tunnel.md has two to start from"
}

fn make_one(field: &str) -> &'static str {
    match field {
        "key" => " (make it: `ringway keygen FILE`)",
        "network_key" => " (make it once for all sites: `ringway keygen --network FILE`)",
        _ => " (make it once for the two of you: `ringway keygen --shared FILE`)",
    }
}

fn hint(meant: Option<&str>, known: &[&str]) -> String {
    match meant {
        Some(meant) => format!("; did you mean {meant:?}?"),
        None => format!("; there are: {}", known.join(", ")),
    }
}

fn hint_of(meant: &Option<String>, what: &str) -> String {
    match meant {
        Some(meant) => format!("; did you mean {meant:?}?"),
        None => format!(": name one of this file's {what}"),
    }
}
