//! Two sites as users make them: keys by `ringway keygen`, a file each, a process each, and between
//! the two a wire that can be hurt.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringway_tunnel_node::status::{SessionStatus, Status};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::wire::Wire;
use crate::support::{Held, command, cpu_of, hold, raise_open_files, ringway, status_bytes, until};

/// What a side's file says beside keys, names and addresses.
#[derive(Clone, Default)]
pub(crate) struct Words {
    /// More lines of `[tunnel]`.
    pub(crate) tunnel: String,
    /// More lines of its `[[peer]]`.
    pub(crate) peer: String,
    /// More sections.
    pub(crate) more: String,
    /// Its keys, if not the first: `network_key` and `key` as lists, the peer's public keys.
    pub(crate) keys: Option<[String; 3]>,
}

impl Words {
    /// A line of `[tunnel]`.
    pub(crate) fn set(mut self, line: &str) -> Words {
        let _ = writeln!(self.tunnel, "{line}");
        self
    }

    /// A line of `[[peer]]`.
    pub(crate) fn peer(mut self, line: &str) -> Words {
        let _ = writeln!(self.peer, "{line}");
        self
    }

    /// What the peer may reach through this side.
    pub(crate) fn allow<T: ToString>(self, targets: impl IntoIterator<Item = T>) -> Words {
        let targets: Vec<String> = targets.into_iter().map(|to| to.to_string()).collect();
        self.peer(&format!("allow = {targets:?}"))
    }

    /// A forward from any port.
    pub(crate) fn forward(self, to: impl ToString) -> Words {
        self.forward_from("127.0.0.1:0", to)
    }

    pub(crate) fn forward_from(self, listen: &str, to: impl ToString) -> Words {
        let to = to.to_string();
        self.section("forward", &format!("listen = {listen:?}\npeer = \"it\"\nto = {to:?}"))
    }

    /// A listener of SOCKS5, or of HTTP CONNECT.
    pub(crate) fn door(self, kind: &str) -> Words {
        self.section(kind, "listen = \"127.0.0.1:0\"\npeer = \"it\"")
    }

    pub(crate) fn section(mut self, kind: &str, lines: &str) -> Words {
        let _ = write!(self.more, "[[{kind}]]\n{lines}\n");
        self
    }
}

/// Keys of both sides, in a directory that goes with them.
pub(crate) struct Keys {
    dir: TempDir,
}

impl Keys {
    pub(crate) fn new() -> Keys {
        let keys = Keys { dir: TempDir::new().expect("a directory") };
        keys.make("network.key", &["--network"]);
        keys.make("near.key", &[]);
        keys.make("far.key", &[]);
        keys
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a key; the text of its public half, if it has one.
    pub(crate) fn make(&self, name: &str, kind: &[&str]) -> String {
        let path = self.path(name);
        let words = ["--json", "keygen", path.to_str().expect("text")];
        let made = ringway(&[&words[..], kind].concat()).with(0).json();
        made["public"].as_str().unwrap_or_default().to_owned()
    }

    /// The public half of a private key.
    pub(crate) fn public(&self, name: &str) -> String {
        let path = self.path(name);
        let words = ["--json", "keygen", "--public", path.to_str().expect("text")];
        ringway(&words).with(0).json()["public"].as_str().expect("a key").to_owned()
    }

    /// Writes the file of a side. One that dials says whom, or its words have `addresses`.
    pub(crate) fn write(&self, side: &str, words: &Words, dials: Option<SocketAddr>) -> PathBuf {
        let (own, other) = if side == "far" { ("far", "near") } else { (side, "far") };
        let [network, key, public] = words.keys.clone().unwrap_or_else(|| {
            let public = self.public(&format!("{other}.key"));
            let network = "network_key = \"network.key\"".to_owned();
            [network, format!("key = \"{own}.key\""), format!("public_key = \"{public}\"")]
        });
        let Words { tunnel, peer, more, .. } = words;
        let (listen, addresses) = match dials {
            Some(to) => (String::new(), format!("addresses = \"{to}\"\n")),
            None if tunnel.contains("listen") || peer.contains("addresses") => {
                (String::new(), String::new())
            }
            None => ("listen = \"127.0.0.1:0\"\n".to_owned(), String::new()),
        };
        let text = format!(
            "[tunnel]\n{network}\n{key}\nsocket = \"{side}.sock\"\n{listen}{tunnel}\n\
             [[peer]]\nname = \"it\"\n{public}\n{addresses}{peer}\n{more}"
        );
        let path = self.path(&format!("{side}.toml"));
        std::fs::write(&path, text).expect("our directory");
        path
    }

    /// Starts a side that listens for carriers.
    #[track_caller]
    pub(crate) fn far(&self, words: &Words) -> Side {
        Side::start(&self.write("far", words, None))
    }

    /// Starts a side that dials.
    #[track_caller]
    pub(crate) fn near(&self, words: &Words, to: SocketAddr) -> Side {
        Side::start(&self.write("near", words, Some(to)))
    }
}

/// One side, as a process. It is killed when the test lets go of it.
pub(crate) struct Side {
    held: Option<Held>,
    config: PathBuf,
    ready: Value,
}

impl Side {
    #[track_caller]
    pub(crate) fn start(config: &Path) -> Side {
        let path = config.to_str().expect("text");
        Side::start_by(
            command(&["--json", "tunnel", "--config", path, "--log-level", "debug"]),
            path,
        )
    }

    /// Likewise, by a command that leads to it.
    #[track_caller]
    pub(crate) fn start_by(command: std::process::Command, config: &str) -> Side {
        raise_open_files();
        let held = hold(command);
        let line = held.line();
        let ready = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        Side { held: Some(held), config: config.into(), ready }
    }

    fn held(&self) -> &Held {
        self.held.as_ref().expect("it is taken only at the end")
    }

    fn address(&self, list: &str, at: usize) -> SocketAddr {
        let text = self.ready[list][at].as_str().expect("there are as many");
        text.to_socket_addrs().expect("an address").next().expect("one")
    }

    /// Where carriers come in.
    pub(crate) fn carriers(&self) -> SocketAddr {
        self.address("carriers", 0)
    }

    /// Where applications connect: forwards first, then SOCKS5, then CONNECT.
    pub(crate) fn door(&self, at: usize) -> SocketAddr {
        self.address("listeners", at)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.held().pid()
    }

    pub(crate) fn log(&self) -> String {
        self.held().err()
    }

    /// Waits for these words in its log, which has had so many bytes before.
    #[track_caller]
    pub(crate) fn says(&self, words: &str, after: usize) {
        until(words, || self.log()[after..].contains(words).then_some(()));
    }

    pub(crate) fn pause(&self) {
        self.held().pause();
    }

    pub(crate) fn go_on(&self) {
        self.held().signal(Signal::CONT);
    }

    /// Kills it as a power cut would, and starts it again.
    #[track_caller]
    pub(crate) fn dies_and_comes_back(&mut self) {
        let mut held = self.held.take().expect("once");
        held.signal(Signal::KILL);
        assert_eq!(held.wait(), None, "it is killed");
        *self = Side::start(&self.config.clone());
    }

    /// Asks it to stop, and sees that it does, well.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        let mut held = self.held.take().expect("once");
        held.signal(Signal::TERM);
        let code = held.wait();
        assert_eq!(code, Some(0), "{}", held.err());
    }

    /// Has it read its file again; returns when it has.
    #[track_caller]
    pub(crate) fn reload(&self) {
        let before = self.log().len();
        self.held().signal(Signal::HUP);
        self.says("configuration was read again", before);
    }

    /// What it says of itself.
    #[track_caller]
    pub(crate) fn status(&self) -> Status {
        let config = self.config.to_str().expect("text");
        let told =
            ringway(&["--json", "tunnel", "status", "--config", config, "--flows", "100000"]);
        assert!(matches!(told.code, Some(0 | 1)), "{told:?}");
        serde_json::from_value(told.json()).expect("a status")
    }

    /// What it tells Prometheus.
    #[track_caller]
    pub(crate) fn metrics(&self) -> String {
        let address = self.ready["admin"].as_str().expect("it has an admin address");
        let mut stream = TcpStream::connect(address).expect("it listens");
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: it\r\n\r\n").expect("it takes it");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers and closes");
        text
    }

    /// What it shows of itself, page after page.
    #[track_caller]
    pub(crate) fn watch(&self) -> Held {
        let config = self.config.to_str().expect("text");
        hold(command(&["tunnel", "status", "--config", config, "--watch", "0.2"]))
    }

    /// Its session with the other side, if there is just one.
    #[track_caller]
    pub(crate) fn session(&self) -> SessionStatus {
        let [peer] = &self.status().peers[..] else { panic!("one peer") };
        let [session] = &peer.sessions[..] else { panic!("one session: {peer:?}") };
        session.clone()
    }

    #[track_caller]
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let status = self.status();
        *status.counters.get(name).unwrap_or_else(|| panic!("{name}? {:?}", status.counters))
    }

    /// The processor time that it has had.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_of(self.pid())
    }

    /// Bytes of memory that are its own.
    pub(crate) fn resident_bytes(&self) -> u64 {
        status_bytes(self.pid(), "VmRSS:")
    }

    /// Where it listens, by the kernel's word: what a reload opened is not in the ready line.
    pub(crate) fn listens_at(&self) -> Vec<SocketAddr> {
        let links = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs");
        let links = links.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
        let mine: Vec<String> = links
            .filter_map(|to| {
                let inode = to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
                Some(inode.to_owned())
            })
            .collect();
        let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.pid()));
        let table = table.expect("it runs");
        let listening = table.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (address, state, inode) = (*words.get(1)?, *words.get(3)?, *words.get(9)?);
            let listens = state == "0A" && mine.iter().any(|one| one == inode);
            let (ip, port) = address.split_once(':').filter(|_| listens)?;
            let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
            Some(SocketAddr::from((ip, u16::from_str_radix(port, 16).ok()?)))
        });
        listening.collect()
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(held) = &self.held
        {
            let log = held.err();
            let from = log.len().saturating_sub(8000);
            let from = (from..=log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
            eprintln!("{} said: {}", self.config.display(), &log[from..]);
        }
    }
}

/// Both sides, connected by the wire.
pub(crate) struct Pair {
    pub(crate) near: Side,
    pub(crate) far: Side,
    pub(crate) wire: Wire,
    pub(crate) keys: Keys,
}

impl Pair {
    #[track_caller]
    pub(crate) fn start(near: &Words, far: &Words) -> Pair {
        let keys = Keys::new();
        let far = keys.far(far);
        let wire = Wire::start(far.carriers());
        let near = keys.near(near, wire.addr);
        let pair = Pair { near, far, wire, keys };
        pair.until_up();
        pair
    }

    /// Waits until the two are connected.
    #[track_caller]
    pub(crate) fn until_up(&self) {
        until("the sites are connected", || self.near.status().peers[0].up.then_some(()));
    }

    /// Sees that neither said anything that it should not, and stops both.
    #[track_caller]
    pub(crate) fn stop(self) {
        for side in [&self.near, &self.far] {
            assert!(!side.log().contains("panicked"), "{}", side.log());
        }
        self.near.stop();
        self.far.stop();
    }
}
