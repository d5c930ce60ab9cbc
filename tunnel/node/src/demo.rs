//! Two sites in one process, for who wants to see a tunnel before making keys: the near one has a
//! port that leads to one place, and SOCKS5; the far one lets it reach a few addresses of this host
//! and nothing else.
//!
//! What always holds:
//! - D1  Keys are drawn for each pair and are never in a file.
//! - D2  All that a pair leaves while it runs (sockets, salts) is in a directory that only its
//!   owner may enter, and that goes away with it.
//!
//! Bounds: a shard for each side, with receive buffers of 512 KiB each.
//! Tests: `tools/ringway/tests/real/cli.rs`, as `ringway up`.

use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ringway_crypto::{NetworkKey, PrivateKey, Psk};
use ringway_shards::RunError;
use thiserror::Error;

use crate::chance::{NoChance, entropy};
use crate::config::{Config, ConfigError, Host, Keys};
use crate::key_file::KeyFileError;
use crate::tunnel::{StartError, Tunnel};

/// Why there is no pair. Nothing was left running.
#[derive(Debug, Error)]
pub enum DemoError {
    /// A side did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There is no randomness for keys.
    #[error(transparent)]
    NoChance(#[from] NoChance),
    /// Its own configuration is not one: an address that it was given does not fit.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no directory for its sockets.
    #[error("{path}: {source}")]
    Directory {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A directory that goes away.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // A cleaner of temporary files may have been here first.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// See the module.
pub struct Demo {
    near: Tunnel,
    far: Tunnel,
    /// Goes last: both put files there.
    _directory: Directory,
}

impl Demo {
    /// Starts both sides. A port of the near one leads to `forward`; by SOCKS5 that and `others`
    /// can be reached.
    ///
    /// # Errors
    /// [`DemoError`].
    pub fn start(forward: SocketAddr, others: &[SocketAddr]) -> Result<Demo, DemoError> {
        let mut chance = entropy()?;
        let number = u64::from_le_bytes(chance.array());
        let directory = private_directory(number)?;
        let mut keys = Drawn {
            network: NetworkKey::new(chance.secret()),
            pair: Psk::new(chance.secret()),
            own: PrivateKey::new(chance.secret()),
        };
        let mut start = |name: &str, text: String| -> Result<Tunnel, DemoError> {
            let host = Host { cores: 1, runtime_dir: directory.0.clone() };
            let path = directory.0.join(name);
            Ok(Tunnel::start(Config::parse_with(&text, &path, &host, &mut keys)?)?)
        };
        let allow: Vec<String> =
            [forward].iter().chain(others).map(|address| format!("\"{address}\"")).collect();
        let far = start(
            "far.toml",
            format!(
                "[tunnel]\nnetwork_key = \"network\"\nlisten = \"127.0.0.1:0\"\n\
                 [[peer]]\nname = \"near\"\nshared_key = \"pair\"\nallow = [{}]\n",
                allow.join(", ")
            ),
        )?;
        let carriers = far.ready().carriers[0];
        let near = start(
            "near.toml",
            format!(
                "[tunnel]\nnetwork_key = \"network\"\n\
                 [[peer]]\nname = \"far\"\nshared_key = \"pair\"\naddresses = [\"{carriers}\"]\n\
                 [[forward]]\nlisten = \"127.0.0.1:0\"\npeer = \"far\"\nto = \"{forward}\"\n\
                 [[socks5]]\nlisten = \"127.0.0.1:0\"\npeer = \"far\"\n"
            ),
        );
        match near {
            Ok(near) => Ok(Demo { near, far, _directory: directory }),
            Err(error) => {
                far.stop();
                // The first error is the one to tell.
                let _ = far.join();
                Err(error)
            }
        }
    }

    /// The port of the near side that leads to one place.
    pub fn forward(&self) -> SocketAddr {
        self.near.ready().listeners[0]
    }

    /// The port of the near side where SOCKS5 is spoken.
    pub fn socks5(&self) -> SocketAddr {
        self.near.ready().listeners[1]
    }

    /// Where the near side is asked for its status.
    pub fn socket(&self) -> &Path {
        &self.near.ready().socket
    }

    /// Stops both sides and waits for it: flows have some seconds to end.
    ///
    /// # Errors
    /// If a shard did not stop of its own accord.
    pub fn stop(self) -> Result<(), RunError> {
        self.near.stop();
        self.far.stop();
        self.near.join()?;
        self.far.join()
    }
}

fn private_directory(number: u64) -> Result<Directory, DemoError> {
    let path = std::env::temp_dir().join(format!("ringway-up-{number:016x}"));
    match DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => Ok(Directory(path)),
        Err(source) => Err(DemoError::Directory { path, source }),
    }
}

/// Keys that are in no file.
struct Drawn {
    network: NetworkKey,
    pair: Psk,
    own: PrivateKey,
}

impl Keys for Drawn {
    fn network(&mut self, _: &Path) -> Result<NetworkKey, KeyFileError> {
        Ok(self.network.clone())
    }

    fn private(&mut self, _: &Path) -> Result<PrivateKey, KeyFileError> {
        Ok(self.own.clone())
    }

    fn shared(&mut self, _: &Path) -> Result<Psk, KeyFileError> {
        Ok(self.pair.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::asked::ask;

    /// Somebody who opens connections by the near port, and the service that they lead to.
    struct Users {
        service: TcpListener,
        door: SocketAddr,
    }

    impl Users {
        fn connect(&self) -> [TcpStream; 2] {
            let mut user = TcpStream::connect(self.door).expect("it listens");
            user.write_all(b"hello").expect("it takes it");
            let (mut served, _) = self.service.accept().expect("the tunnel connects");
            for end in [&user, &served] {
                end.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket's option");
            }
            served.read_exact(&mut [0; 5]).expect("what was said");
            [user, served]
        }
    }

    /// A machine that is copied, at either end: what flows there is reset at both, the sessions end
    /// with their keys, and the next connection is served by new ones.
    #[test]
    fn a_copy_of_the_machine_begins_anew() {
        let service = TcpListener::bind("127.0.0.1:0").expect("a port");
        let demo = Demo::start(service.local_addr().expect("its own"), &[]).expect("it starts");
        let users = Users { service, door: demo.forward() };
        for (at, side) in [&demo.near, &demo.far].into_iter().enumerate() {
            let ends = users.connect();
            side.begin_anew();
            for mut end in ends {
                let ended = end.read_exact(&mut [0; 1]).expect_err("its flow is over");
                assert_eq!(ended.kind(), io::ErrorKind::ConnectionReset, "after {at}");
            }
        }
        users.connect();
        let sockets = [&demo.near, &demo.far].map(|side| &side.ready().socket);
        let until = Instant::now() + Duration::from_secs(30);
        let counted = |socket: &Path| ask(socket, 0).expect("it runs").counters["keys_dropped"];
        while sockets.map(|socket| counted(socket)) != [1, 1] {
            assert!(Instant::now() < until, "each has counted it");
        }
        demo.stop().expect("both end");
    }
}
