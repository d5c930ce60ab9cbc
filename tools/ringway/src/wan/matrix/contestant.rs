//! Who carries the connection: programs at both ends of the link, and where iperf3 connects.

use std::ffi::OsStr;
use std::fs::{DirBuilder, metadata, remove_dir_all, write};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ringway_tunnel_node::{KeyKind, make};
use ringway_wan::Link;

use super::child::{Program, Stopped};
use super::gotatun;
use super::iperf::PORT;
use crate::args::wan::matrix::Contestant;
use crate::failure::{Failure, host};
use crate::signals::Stop;
use crate::wan::own_program;

/// The second end of the link.
pub(super) const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 1, 2));
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Where a tunnel takes connections at the near end, and carriers at the far one.
const NEAR_PORT: u16 = 5300;
const FAR_PORT: u16 = 4600;
/// Bytes of a packet of kcptun's.
const KCPTUN_MTU: u64 = 1350;

/// Where iperf3 connects, and by which congestion control.
pub(super) struct Route {
    pub(super) to: SocketAddr,
    pub(super) congestion: Option<&'static str>,
}

/// What has to be installed: a program, and how one gets it.
const IPERF3: (&str, &str) = ("iperf3", "`apt install iperf3`");
const KCPTUN: &str = "`apt install kcptun`";

/// Programs of others that this one is run with.
fn programs_of(contestant: Contestant) -> &'static [(&'static str, &'static str)] {
    match contestant {
        Contestant::Kcptun => &[IPERF3, ("kcptun-client", KCPTUN), ("kcptun-server", KCPTUN)],
        Contestant::Gotatun => &[IPERF3, ("gotatun", "`cargo install gotatun-cli`")],
        Contestant::Ringway | Contestant::RingwayTcp | Contestant::Cubic | Contestant::Bbr => {
            &[IPERF3]
        }
    }
}

/// Whether all that is to be run can be, before anything is made for the first run.
pub(super) fn have_programs(who: impl Iterator<Item = Contestant>) -> Result<(), Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for contestant in who {
        let missing = programs_of(contestant).iter().find(|(name, _)| !is_in(&path, name));
        if let Some((name, how)) = missing {
            let who = contestant.name();
            let text = format!("{who} needs {name}, which is not in the PATH; try {how}");
            return Err(Failure::Host(text));
        }
    }
    Ok(())
}

fn is_in(path: &OsStr, name: &str) -> bool {
    std::env::split_paths(path).any(|directory| {
        let found = metadata(directory.join(name));
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

/// What runs beside iperf3. It goes with this.
pub(super) struct Carries {
    contestant: Contestant,
    programs: Vec<Program>,
    _directory: Option<Directory>,
}

impl Carries {
    /// How iperf3 gets to its other end.
    pub(super) fn route(&self) -> Route {
        let plain =
            |congestion| Route { to: SocketAddr::new(THERE, PORT), congestion: Some(congestion) };
        match self.contestant {
            Contestant::Cubic => plain("cubic"),
            Contestant::Bbr => plain("bbr"),
            Contestant::Gotatun => {
                let to = SocketAddr::new(gotatun::THERE, PORT);
                Route { to, congestion: Some("bbr") }
            }
            Contestant::Ringway | Contestant::RingwayTcp | Contestant::Kcptun => {
                Route { to: SocketAddr::new(LOOPBACK, NEAR_PORT), congestion: None }
            }
        }
    }

    /// Processor time of both ends so far; `None` where it is the kernel's.
    pub(super) fn cpu_s(&self) -> Option<f64> {
        let programs = (!self.programs.is_empty()).then_some(&self.programs)?;
        Some(programs.iter().map(Program::cpu_s).sum())
    }

    /// For how long both ends wanted a processor and had none; `None` where they are the kernel's.
    pub(super) fn waited_s(&self) -> Option<f64> {
        let programs = (!self.programs.is_empty()).then_some(&self.programs)?;
        programs.iter().map(Program::waited_s).sum()
    }
}

/// A directory for keys that goes away.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // A cleaner of temporary files may have been here first.
        let _ = remove_dir_all(&self.0);
    }
}

/// Starts both ends; they take connections when this returns.
pub(super) fn start(
    contestant: Contestant,
    link: &Link,
    spaces: &[String; 2],
    stop: &Stop,
) -> Result<Carries, Stopped> {
    let (programs, directory) = match contestant {
        Contestant::Cubic | Contestant::Bbr => (Vec::new(), None),
        Contestant::Ringway | Contestant::RingwayTcp => {
            let directory = configured(contestant == Contestant::Ringway)?;
            let us = own_program();
            let path = |side: &str| directory.0.join(side).display().to_string();
            let (near, far) = (path("near.toml"), path("far.toml"));
            let words = |path| [us.as_str(), "tunnel", "--log-level", "error", "--config", path];
            let programs = pair(spaces, (&words(&far), Some(FAR_PORT)), &words(&near), stop)?;
            (programs, Some(directory))
        }
        Contestant::Kcptun => {
            let (windows, to) = (kcptun_windows(link), format!("{THERE}:29900"));
            let (service, door) = (format!("{LOOPBACK}:{PORT}"), format!("{LOOPBACK}:{NEAR_PORT}"));
            let usual = ["-mode", "fast3", "-crypt", "aes-128", "-key", "matrix", "-nocomp"];
            let mtu = KCPTUN_MTU.to_string();
            let usual = [&usual[..], &["-mtu", &mtu, "-smuxver", "2"]].concat();
            // Blocks of 13 packets repair less than they take of the rate and of a processor.
            let usual = [&usual[..], &["-datashard", "0", "-parityshard", "0"]].concat();
            let windows: Vec<&str> = windows.iter().map(String::as_str).collect();
            let far = ["kcptun-server", "-t", &service, "-l", ":29900"];
            let near = ["kcptun-client", "-r", &to, "-l", &door];
            let far = [&far[..], &usual, &windows].concat();
            let near = [&near[..], &usual, &windows].concat();
            (pair(spaces, (&far, None), &near, stop)?, None)
        }
        Contestant::Gotatun => (gotatun::start(link, spaces, stop)?, None),
    };
    Ok(Carries { contestant, programs, _directory: directory })
}

/// Starts a far end, and when it listens a near one.
fn pair(
    spaces: &[String; 2],
    (far, listens): (&[&str], Option<u16>),
    near: &[&str],
    stop: &Stop,
) -> Result<Vec<Program>, Stopped> {
    let mut far = Program::start(&spaces[1], far)?;
    if let Some(port) = listens {
        far.until_listening(port, stop)?;
    }
    let mut near = Program::start(&spaces[0], near)?;
    near.until_listening(NEAR_PORT, stop)?;
    Ok(vec![near, far])
}

/// Keys and configurations of two sites.
fn configured(udp: bool) -> Result<Directory, Stopped> {
    let directory = private_directory()?;
    let path = |name: &str| directory.0.join(name);
    made(KeyKind::Network, &path("network.key"))?;
    made(KeyKind::Shared, &path("pair.key"))?;
    let common =
        |side: &str| format!("[tunnel]\nnetwork_key = \"network.key\"\nsocket = \"{side}.sock\"\n");
    let udp = if udp { "udp = true\n" } else { "" };
    let peer = format!("[[peer]]\nname = \"it\"\nshared_key = \"pair.key\"\n{udp}");
    let far = format!(
        "{}listen = \"0.0.0.0:{FAR_PORT}\"\n{peer}allow = [\"{LOOPBACK}:{PORT}\"]\n",
        common("far")
    );
    let near = format!(
        "{}{peer}addresses = [\"{THERE}:{FAR_PORT}\"]\n\
         [[forward]]\npeer = \"it\"\nlisten = \"{LOOPBACK}:{NEAR_PORT}\"\n\
         to = \"{LOOPBACK}:{PORT}\"\n",
        common("near")
    );
    for (name, text) in [("near.toml", near), ("far.toml", far)] {
        write(path(name), text).map_err(|error| host("cannot write a configuration", error))?;
    }
    Ok(directory)
}

fn made(kind: KeyKind, path: &Path) -> Result<(), Stopped> {
    make(kind, path).map(drop).map_err(|error| Stopped::Failed(Failure::from(error)))
}

fn keys_of(pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("ringway-matrix-{pid}"))
}

/// The keys of a process that was killed are removed; where they were.
pub(super) fn remove_keys(pid: u32) -> Result<Option<String>, Failure> {
    let path = keys_of(pid);
    let shown = path.display();
    match remove_dir_all(&path) {
        Ok(()) => Ok(Some(format!("the keys in {shown}"))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(host(&format!("cannot remove {shown}"), error)),
    }
}

fn private_directory() -> Result<Directory, Stopped> {
    let path = keys_of(std::process::id());
    let made = DirBuilder::new().mode(0o700).create(&path);
    made.map_err(|error| host(&format!("cannot make {}", path.display()), error))?;
    Ok(Directory(path))
}

/// kcptun takes windows in packets. A packet that has arrived is in its window until all before it
/// are acknowledged, which takes some round trips where packets are lost, and it looks every 10 ms:
/// with 8 times what the link holds, and 8192 at least, the window is not what holds it back.
fn kcptun_windows(link: &Link) -> Vec<String> {
    let in_flight = link.there.bits_per_s as f64 / 8.0 * link.rtt().0 as f64 / 1e9;
    let packets = ((8.0 * in_flight / KCPTUN_MTU as f64) as u64).clamp(8192, 65_535);
    let bytes = (packets * KCPTUN_MTU).max(16 << 20).to_string();
    let packets = packets.to_string();
    let (packets, bytes) = (packets.as_str(), bytes.as_str());
    let words = [["-sndwnd", packets], ["-rcvwnd", packets], ["-sockbuf", bytes]];
    let more = [["-smuxbuf", bytes], ["-streambuf", bytes]];
    words.into_iter().chain(more).flatten().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its windows follow the link, within what its 16 bits say, and its memory follows them.
    #[test]
    fn kcptun_is_not_held_back_by_its_windows() {
        let words = |link: &str| kcptun_windows(&Link::parse(link).expect("a link")).join(" ");
        let of = |packets: &str, bytes: u64| {
            format!(
                "-sndwnd {packets} -rcvwnd {packets} -sockbuf {bytes} -smuxbuf {bytes} \
                 -streambuf {bytes}"
            )
        };
        assert_eq!(words("rate=200mbit rtt=30ms"), of("8192", 16 << 20));
        assert_eq!(words("rate=200mbit rtt=100ms"), of("14814", 14_814 * 1350));
        assert_eq!(words("rate=1gbit rtt=300ms"), of("65535", 65_535 * 1350));
    }
}
