//! A side as a service: what systemd is told, and that it needs no rights.

use std::os::unix::fs::chown;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::flows::{Load, Transfer, connect, echo, mirror, says_again};
use super::sites::{Keys, Side, Words};
use crate::support::{PATIENCE, command, until};

/// systemd's end of `NOTIFY_SOCKET`.
pub(crate) struct Notified {
    socket: UnixDatagram,
    pub(crate) place: PathBuf,
}

impl Notified {
    pub(crate) fn at(place: PathBuf) -> Notified {
        let socket = UnixDatagram::bind(&place).expect("our directory");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Notified { socket, place }
    }

    #[track_caller]
    fn next(&self) -> String {
        let mut some = [0; 200];
        let many = self.socket.recv(&mut some).expect("it says something");
        String::from_utf8(some[..many].to_vec()).expect("text")
    }

    /// The next thing that is said is this.
    #[track_caller]
    pub(crate) fn hears(&self, words: &str) {
        assert_eq!(self.next(), words);
    }

    /// It says that it reads its files again, and since when.
    #[track_caller]
    pub(crate) fn hears_of_a_reload(&self) {
        let said = self.next();
        let since = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        assert!(since.is_some_and(|us| us.parse::<u64>().is_ok_and(|us| us > 0)), "{said:?}");
    }
}

/// The command of a side.
fn tunnel(config: &Path) -> std::process::Command {
    command(&["--json", "tunnel", "--config", config.to_str().expect("text")])
}

/// systemd hears when the tunnel serves, reads its file again, and stops. A file that cannot be
/// used does not leave it *reloading*.
#[test]
fn systemd_is_told() {
    let keys = Keys::new();
    let heard = Notified::at(keys.path("notify"));
    let config = keys.write("far", &Words::default(), None);
    let mut command = tunnel(&config);
    command.env("NOTIFY_SOCKET", &heard.place);
    let side = Side::start_by(command, config.to_str().expect("text"));
    heard.hears("READY=1");
    side.reload();
    heard.hears_of_a_reload();
    heard.hears("READY=1");
    let good = std::fs::read(&config).expect("we wrote it");
    std::fs::write(&config, "colour = 3").expect("our directory");
    let pid = Pid::from_raw(side.pid() as i32).expect("a process");
    kill_process(pid, Signal::HUP).expect("our child");
    heard.hears_of_a_reload();
    heard.hears("READY=1");
    std::fs::write(&config, good).expect("our directory");
    side.stop();
    heard.hears("STOPPING=1");
}

/// A user without any rights, and no account of anybody.
const NOBODY: u32 = 65534;

/// Starts a side as nobody, if the test may choose: otherwise it is not root's anyway.
#[track_caller]
fn start_without_rights(keys: &Keys, config: &Path) -> Side {
    let mut command = tunnel(config);
    if geteuid().is_root() {
        // Its files are its own, as docs/tunnel.md says.
        let dir = keys.path("");
        let files = std::fs::read_dir(&dir).expect("our directory");
        let files = files.map(|file| file.expect("our directory").path());
        for path in files.chain([dir]) {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("we are root");
        }
        // Other groups than this one are given up with it.
        command.uid(NOBODY).gid(NOBODY);
    }
    Side::start_by(command, config.to_str().expect("text"))
}

/// Two sites whose processes have neither root's uid nor a capability: they connect, carry, read
/// their files again, and keep what they must remember.
#[test]
fn no_rights_are_needed() {
    let keys = Keys::new();
    let (word, load) = (echo(), mirror("127.0.0.1:0"));
    let far = keys.write("far", &Words::default().allow([word, load]), None);
    let far = start_without_rights(&keys, &far);
    let near = Words::default().forward(word).forward(load).door("socks5");
    let near = keys.write("near", &near, Some(far.carriers()));
    let near = start_without_rights(&keys, &near);
    for side in [&near, &far] {
        let status = std::fs::read_to_string(format!("/proc/{}/status", side.pid()));
        let status = status.expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(!field("Uid:").contains(&"0".to_owned()), "{status}");
        assert_eq!(field("CapPrm:"), ["0000000000000000"], "{status}");
        assert_eq!(field("CapEff:"), ["0000000000000000"], "{status}");
    }
    until("the sites are connected", || near.status().peers[0].up.then_some(()));
    let mut user = connect(near.door(0));
    says_again(&mut user, b"from nobody");
    Transfer::begin(near.door(1), Load { seed: 5, up: 4 << 20, down: 4 << 20 }).arrives();
    near.reload();
    far.reload();
    says_again(&mut user, b"still");
    drop(user);
    for side in [near, far] {
        let log = side.log();
        assert!(!log.contains("panicked") && !log.contains("cannot be kept"), "{log}");
        side.stop();
    }
}
