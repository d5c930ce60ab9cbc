//! From the arguments to a connection, and sessions kept in files.

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use ringway_client::{Client, Credentials, Opened, Options, Proof};
use ringway_core::{NodeId, Secret, SessionId};
use serde::{Deserialize, Serialize};

use crate::args::client::ServerArgs;
use crate::failure::{Failure, host};
use crate::output::{hex, unhex};

/// Connects as the arguments say.
pub(crate) fn connect(args: &ServerArgs) -> Result<Client, Failure> {
    let options = Options {
        timeout: Duration::from_millis(args.timeout_ms),
        credentials: credentials(args)?,
    };
    Client::connect(resolve(&args.server)?, options).map_err(|error| match Failure::from(error) {
        Failure::Unreachable(text) => Failure::Unreachable(format!(
            "{text} (`ringway up` starts one to try, --server names another)"
        )),
        other => other,
    })
}

/// The first address of `host:port`.
pub(crate) fn resolve(server: &str) -> Result<SocketAddr, Failure> {
    let wrong = |why: String| {
        Failure::Usage(format!("--server {server}: {why}; give host:port, like 127.0.0.1:7400"))
    };
    let mut found = server.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong("no address".to_owned()))
}

/// Who asks, if the arguments say so.
pub(crate) fn credentials(args: &ServerArgs) -> Result<Option<Credentials>, Failure> {
    let (Some(user), Some(file)) = (&args.user, &args.token_file) else { return Ok(None) };
    let read = std::fs::read_to_string(file);
    let token = read.map_err(|error| host(&format!("cannot read {}", file.display()), error))?;
    let password = token.trim().to_owned();
    Ok(Some(Credentials { user: user.clone(), password }))
}

/// A session in a file, for `--as`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedSession {
    /// 16 hexadecimal digits.
    session: String,
    /// 32 hexadecimal digits.
    secret: String,
    node: u64,
    lease_ms: u64,
}

impl SavedSession {
    pub(crate) fn new(opened: &Opened, node: NodeId) -> Self {
        Self {
            session: opened.session.to_string(),
            secret: hex(&opened.secret.0),
            node: node.0,
            lease_ms: opened.lease.as_millis() as u64,
        }
    }

    /// Writes it for its owner alone: whoever reads it can act as the node.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self).expect("plain strings");
        let written = || -> std::io::Result<()> {
            let _ = std::fs::remove_file(path);
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
            writeln!(file, "{text}")
        };
        written().map_err(|error| host(&format!("cannot write {}", path.display()), error))
    }

    pub(crate) fn load(path: &Path) -> Result<Proof, Failure> {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|error| {
            let what = format!("cannot read the session {}", path.display());
            Failure::Usage(format!("{what}: {error} (`ringway session open --save` writes it)"))
        })?;
        let saved: Option<SavedSession> = serde_json::from_str(&text).ok();
        saved.and_then(|saved| saved.proof()).ok_or_else(|| {
            let what = path.display();
            Failure::Usage(format!("{what} is not a session that `session open --save` wrote"))
        })
    }

    fn proof(&self) -> Option<Proof> {
        let session = SessionId(u64::from_str_radix(&self.session, 16).ok()?);
        let secret = Secret(unhex(&self.secret)?.try_into().ok()?);
        Some(Proof { session, secret })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use ringway_core::Epoch;

    use super::*;

    /// A saved session is for its owner's eyes and reads back; anything else is called what it is.
    #[test]
    fn a_session_is_saved_and_loaded() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("session.json");
        std::fs::write(&path, "an earlier one, readable for all").expect("writes");
        let opened = Opened {
            session: SessionId(0xABCD),
            secret: Secret([7; 16]),
            lease: Duration::from_secs(10),
            epoch: Epoch(1),
            resumed: false,
        };
        SavedSession::new(&opened, NodeId(7)).save(&path).expect("saves");
        let mode = std::fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let proof = SavedSession::load(&path).expect("loads");
        assert_eq!(proof, Proof { session: opened.session, secret: opened.secret });

        for text in ["", "{}", "{\"session\":\"x\",\"secret\":\"y\",\"node\":1,\"lease_ms\":1}"] {
            std::fs::write(&path, text).expect("writes");
            let error = SavedSession::load(&path).expect_err(text);
            assert_eq!(error.code().0, 2);
            assert!(error.to_string().contains("is not a session"), "{error}");
        }
    }

    #[test]
    fn addresses_are_resolved_or_refused_with_an_example() {
        assert_eq!(resolve("127.0.0.1:7400").expect("an address").port(), 7400);
        for wrong in ["7400", "localhost", "127.0.0.1:port", ""] {
            let error = resolve(wrong).expect_err(wrong);
            assert!(error.to_string().contains("give host:port"), "{error}");
        }
    }
}
