//! Two sites become peers: one side's file gets a peer and a key, the other side's file is made.
//!
//! What always holds:
//! - J1  All or nothing: a failure leaves the files that were there as they were, and no new ones.
//! - J2  The text of a configuration that people wrote stays as it is, comments and all; what is
//!   new stands at its end. It is replaced at once, with its mode and owner, and the new key gets
//!   the same owner: whoever reads the one can read the other.
//! - J3  What is written was read back by the same check that the tunnel starts with.
//! - J4  No file is overwritten but the configuration that was named.
//! - J5  An invitation whose time is over is not joined.
//!
//! Not here: the line that travels (`invite.rs`). Tests: stories below; the program's, in
//! `tools/ringway/tests`.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use ringway_core::Span;
use ringway_crypto::{NetworkKey, PrivateKey, Psk};
use ringway_tunnel_proto::Target;
use thiserror::Error;

use crate::config::{Config, ConfigError, Host, KeyFiles, Keys, is_name, read_text, span_in_words};
use crate::invite::Invite;
use crate::key_file::{KeyFileError, KeyKind, keep, make, read_private, read_shared};
use crate::policy::Rule;
use crate::shared::wall_ms;

/// Whom to invite, and what the invitation is to say.
#[derive(Clone, Debug)]
pub struct Guest {
    /// What this side will call it.
    pub name: String,
    /// What the other side is to call this one; by default the first part of the first address's
    /// name, or `far`.
    pub inviter: Option<String>,
    /// Where this side can be dialled.
    pub addresses: Vec<Target>,
    /// What the other side may reach.
    pub allow: Vec<Rule>,
    /// For how long it can be joined.
    pub valid: Span,
}

/// An invitation that was made.
pub struct Invited {
    /// What it says.
    pub invite: Invite,
    /// The key that was made for it.
    pub shared_key: PathBuf,
    /// Ports of its addresses at which this side does not listen itself.
    pub other_ports: Vec<u16>,
}

/// What the new side wants of its configuration.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// What to call the other side; by default what it calls itself.
    pub name: Option<String>,
    /// Ports of this side that lead to targets of the other.
    pub forwards: Vec<(SocketAddr, Target)>,
    /// Where SOCKS5 is to be spoken.
    pub socks5: Vec<SocketAddr>,
}

/// A configuration that was made.
#[derive(Clone, Debug)]
pub struct Joined {
    /// What the other side is called in it.
    pub name: String,
    /// The network's key.
    pub network_key: PathBuf,
    /// The key of the two.
    pub shared_key: PathBuf,
}

/// Why two sites are no peers. Nothing was written.
#[derive(Debug, Error)]
pub enum PairError {
    /// The configuration is not one even without the new peer.
    #[error(transparent)]
    Before(ConfigError),
    /// It would not be one with what is new.
    #[error(
        "{path} would be wrong with this, so nothing was written. The error would be: {source}"
    )]
    After {
        /// The configuration.
        path: PathBuf,
        /// The error, at a line of the text that would have been.
        source: Box<ConfigError>,
    },
    /// Nobody could come in.
    #[error(
        "{0} has no listen, so nobody could come in: say listen = \"0.0.0.0:4600\" in [tunnel], or \
         invite from the other side"
    )]
    NoListen(PathBuf),
    /// No name for a peer.
    #[error(
        "{0:?} is no name of a peer: it takes 1 to 64 letters, digits, hyphens, dots, underscores"
    )]
    Name(String),
    /// Its time is over.
    #[error(
        "the invitation has expired: by this host's clock it was good until {0} ago. Ask the other \
         side for another one: there, take the [[peer]] and its .psk file away, then run `ringway \
         tunnel invite` again (--valid says for how long). If this clock is wrong, set it right"
    )]
    Expired(String),
    /// A peer of that name.
    #[error(
        "{path} has a peer {name:?} already: choose another name, or take that [[peer]] and its \
         key out first"
    )]
    Known {
        /// The configuration.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A key was not made or kept.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A configuration is there already.
    #[error(
        "{0} is there already, and is not overwritten: name another file. To add the peer to it by \
         hand, let join write another file, and copy its sections"
    )]
    There(PathBuf),
    /// Somebody else writes, or was killed while writing.
    #[error(
        "{0} is there: another `ringway tunnel invite` is under way, or one was killed. If none \
         runs, remove it"
    )]
    Busy(PathBuf),
    /// The host refused.
    #[error("cannot {act} {path}: {source}")]
    Host {
        /// What was tried.
        act: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl PairError {
    /// True if the host lacks something, false if the words were wrong.
    pub fn is_hosts_doing(&self) -> bool {
        match self {
            PairError::Before(error) => error.is_hosts_doing(),
            PairError::After { source, .. } => source.is_hosts_doing(),
            PairError::Key(error) => error.is_hosts_doing(),
            PairError::There(_) | PairError::Busy(_) | PairError::Host { .. } => true,
            PairError::NoListen(_)
            | PairError::Name(_)
            | PairError::Expired(_)
            | PairError::Known { .. } => false,
        }
    }
}

/// Makes a key for exactly one new peer, adds that peer to the configuration at `path`, and says
/// what to tell it. A tunnel that runs takes it at its next reload.
///
/// # Errors
/// [`PairError`]; then nothing has changed.
///
/// # Panics
/// If there are not 1 to 16 addresses.
pub fn invite(path: &Path, guest: &Guest) -> Result<Invited, PairError> {
    let inviter = guest.inviter.clone().unwrap_or_else(|| own_name(&guest.addresses));
    for name in [&guest.name, &inviter] {
        if !is_name(name) {
            return Err(PairError::Name(name.clone()));
        }
    }
    // The new text is written beside the old one. While that file is there nobody else edits.
    let edit = Edit::begin(path)?;
    let text = read_text(path).map_err(PairError::Before)?;
    let config = Config::parse(&text, path).map_err(PairError::Before)?;
    if config.listen.is_empty() {
        return Err(PairError::NoListen(path.to_owned()));
    }
    if config.peer_named(&guest.name).is_some() {
        return Err(PairError::Known { path: path.to_owned(), name: guest.name.clone() });
    }
    let mut new = New::default();
    let shared_key = beside(path, &format!("{}.psk", guest.name));
    make(KeyKind::Shared, &shared_key)?;
    new.files.push(shared_key.clone());
    edit.give_owner(&shared_key)?;
    let text = with_peer(&text, guest);
    Config::parse(&text, path).map_err(|error| after(path, error))?;
    let network = config.networks[0].clone();
    let shared = read_shared(&shared_key)?;
    edit.finish(&text)?;
    new.files.clear();
    let invite = Invite {
        until_s: (wall_ms() / 1000).saturating_add(guest.valid.as_ms_ceil() / 1000),
        network,
        shared,
        inviter,
        guest: guest.name.clone(),
        addresses: guest.addresses.clone(),
    };
    let ports = invite.addresses.iter().filter_map(port);
    let listens = |port: &u16| config.listen.iter().any(|addr| addr.port() == *port);
    let other_ports = ports.filter(|port| !listens(port)).collect();
    Ok(Invited { invite, shared_key, other_ports })
}

/// Writes the keys of an invitation, and a configuration at `path` that is ready to run.
///
/// # Errors
/// [`PairError`]; then there is no file that was not there before.
pub fn join(invite: &Invite, path: &Path, wanted: &Wanted) -> Result<Joined, PairError> {
    // J5. To the second that it names it is good.
    let over_s = (wall_ms() / 1000).saturating_sub(invite.until_s);
    if over_s > 0 {
        return Err(PairError::Expired(span_in_words(Span::from_s(over_s))));
    }
    let name = wanted.name.clone().unwrap_or_else(|| invite.inviter.clone());
    if !is_name(&name) {
        return Err(PairError::Name(name));
    }
    if path.symlink_metadata().is_ok() {
        return Err(PairError::There(path.to_owned()));
    }
    let text = joined_text(invite, &name, wanted);
    let mut carried = Carried(invite);
    Config::parse_with(&text, path, &Host::probe(), &mut carried)
        .map_err(|error| after(path, error))?;
    let network_key = beside(path, &network_file(&name));
    let shared_key = beside(path, &format!("{name}.psk"));
    let mut new = New::default();
    keep(&invite.network.to_text(), &network_key)?;
    new.files.push(network_key.clone());
    keep(&invite.shared.to_text(), &shared_key)?;
    new.files.push(shared_key.clone());
    let mut file = File::options().write(true).create_new(true).open(path).map_err(|source| {
        match source.kind() {
            ErrorKind::AlreadyExists => PairError::There(path.to_owned()),
            _ => PairError::Host { act: "make", path: path.to_owned(), source },
        }
    })?;
    new.files.push(path.to_owned());
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|source| PairError::Host { act: "write", path: path.to_owned(), source })?;
    // What was written is what will be read.
    Config::parse_with(&text, path, &Host::probe(), &mut KeyFiles)
        .map_err(|error| after(path, error))?;
    new.files.clear();
    Ok(Joined { name, network_key, shared_key })
}

/// A side's name for itself: `gw` of `gw.example:4600`.
fn own_name(addresses: &[Target]) -> String {
    let name = match addresses.first() {
        Some(Target::Host(name, _)) => name.split('.').next(),
        _ => None,
    };
    name.filter(|name| is_name(name)).unwrap_or("far").to_owned()
}

fn after(path: &Path, error: ConfigError) -> PairError {
    PairError::After { path: path.to_owned(), source: Box::new(error) }
}

fn port(address: &Target) -> Option<u16> {
    match address {
        Target::Address(_, port) | Target::Host(_, port) => Some(*port),
        Target::Service(_) => None,
    }
}

fn beside(path: &Path, name: &str) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(name)
}

fn network_file(name: &str) -> String {
    format!("{name}.network.key")
}

/// A list of texts that need no escapes.
fn list<T: ToString>(all: &[T]) -> String {
    let all: Vec<_> = all.iter().map(|one| format!("\"{}\"", one.to_string())).collect();
    format!("[{}]", all.join(", "))
}

/// How a target is written in a configuration.
fn written(target: &Target) -> String {
    match target {
        Target::Service(name) => format!("service:{name}"),
        other => other.to_string(),
    }
}

fn with_peer(text: &str, guest: &Guest) -> String {
    let Guest { name, allow, .. } = guest;
    let gap = if text.is_empty() || text.ends_with('\n') { "\n" } else { "\n\n" };
    let allow = match allow.is_empty() {
        true => "# It may reach nothing here yet:\n# allow = [\"127.0.0.1:22\"]\n".to_owned(),
        false => format!("allow = {}\n", list(allow)),
    };
    format!(
        "{text}{gap}# By `ringway tunnel invite`: whoever joins by its line is this peer.\n\
         [[peer]]\nname = \"{name}\"\nshared_key = \"{name}.psk\"\n{allow}"
    )
}

fn joined_text(invite: &Invite, name: &str, wanted: &Wanted) -> String {
    let (guest, network, addresses) = (&invite.guest, network_file(name), list(&invite.addresses));
    let mut text = format!(
        "# Made by `ringway tunnel join`. Start it: ringway tunnel --config FILE\n\
         # Paths are meant from where this file is.\n\n\
         [tunnel]\nnetwork_key = \"{network}\"\n\n\
         # The side that sent the invitation; there this side is called \"{guest}\".\n\
         [[peer]]\nname = \"{name}\"\nshared_key = \"{name}.psk\"\naddresses = {addresses}\n\
         # What it may reach through this side. Nothing, unless it is named:\n\
         # allow = [\"127.0.0.1:22\"]\n"
    );
    for (listen, to) in &wanted.forwards {
        let to = written(to);
        text +=
            &format!("\n[[forward]]\nlisten = \"{listen}\"\npeer = \"{name}\"\nto = \"{to}\"\n");
    }
    for listen in &wanted.socks5 {
        text += &format!("\n[[socks5]]\nlisten = \"{listen}\"\npeer = \"{name}\"\n");
    }
    if wanted.forwards.is_empty() {
        text += &format!(
            "\n# A port here that leads to a place there, if the other side allows it:\n\
             # [[forward]]\n# listen = \"127.0.0.1:8080\"\n# peer = \"{name}\"\n\
             # to = \"127.0.0.1:80\"\n"
        );
    }
    text
}

/// Keys that are not in files yet.
struct Carried<'a>(&'a Invite);

impl Keys for Carried<'_> {
    fn network(&mut self, _: &Path) -> Result<NetworkKey, KeyFileError> {
        Ok(self.0.network.clone())
    }

    fn private(&mut self, path: &Path) -> Result<PrivateKey, KeyFileError> {
        read_private(path)
    }

    fn shared(&mut self, _: &Path) -> Result<Psk, KeyFileError> {
        Ok(self.0.shared.clone())
    }
}

/// Files that were made, and go again unless all went well (J1).
#[derive(Default)]
struct New {
    files: Vec<PathBuf>,
}

impl Drop for New {
    fn drop(&mut self) {
        for file in &self.files {
            // It was made a moment ago; what still goes wrong now, nobody can mend here.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// A file that is replaced as a whole (J2).
struct Edit {
    /// The file, behind any links.
    path: PathBuf,
    /// What becomes of it, in the same directory.
    beside: PathBuf,
    file: File,
    _new: New,
}

impl Edit {
    fn begin(path: &Path) -> Result<Edit, PairError> {
        let real = path.canonicalize().map_err(|source| {
            PairError::Before(ConfigError::Read { path: path.to_owned(), source })
        })?;
        let name = real.file_name().unwrap_or_default().to_string_lossy();
        let beside = real.with_file_name(format!(".{name}.new"));
        let file =
            File::options().write(true).create_new(true).open(&beside).map_err(|source| {
                match source.kind() {
                    ErrorKind::AlreadyExists => PairError::Busy(beside.clone()),
                    _ => PairError::Host { act: "make", path: beside.clone(), source },
                }
            })?;
        Ok(Edit { _new: New { files: vec![beside.clone()] }, path: real, beside, file })
    }

    /// A new file beside it belongs to whom it belongs.
    fn give_owner(&self, path: &Path) -> Result<(), PairError> {
        let was = self.path.metadata().map_err(host("read", &self.path))?;
        File::open(path)
            .and_then(|file| give_owner(&file, &was))
            .map_err(host("give its configuration's owner to", path))
    }

    fn finish(mut self, text: &str) -> Result<(), PairError> {
        let was = self.path.metadata().map_err(host("read", &self.path))?;
        let mut write = || -> io::Result<()> {
            give_owner(&self.file, &was)?;
            self.file.set_permissions(Permissions::from_mode(was.mode() & 0o7777))?;
            self.file.write_all(text.as_bytes())?;
            self.file.sync_all()
        };
        write().map_err(host("write", &self.beside))?;
        std::fs::rename(&self.beside, &self.path).map_err(host("replace", &self.path))?;
        self._new.files.clear();
        // The new name is on the disk; should it not be, the old file is, whole.
        let _ = File::open(self.path.parent().unwrap_or(Path::new("."))).and_then(|d| d.sync_all());
        Ok(())
    }
}

fn host(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PairError {
    let path = path.to_owned();
    move |source| PairError::Host { act, path, source }
}

/// Makes a file belong to whom another one belongs, if it does not.
fn give_owner(file: &File, was: &Metadata) -> io::Result<()> {
    let is = file.metadata()?;
    if (is.uid(), is.gid()) != (was.uid(), was.gid()) {
        fchown(file, Some(was.uid()), Some(was.gid()))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "pairing_tests.rs"]
mod tests;
