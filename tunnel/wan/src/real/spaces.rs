//! Two network namespaces with devices between which nothing flows yet, by the program `ip`.
//!
//! Devices are made in the namespace we are in, under a name that is free, and moved; so nobody of
//! ours has to enter a namespace.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use ringway_ring::Tun;
use rustix::thread::{CapabilitySet, capabilities};

use super::{LinkError, host};
use crate::line::Link;

/// Packets that wait in a device until we read them. One that is too short for what a sender sends
/// at once would lose what the line does not.
const DEVICE_QUEUE: usize = 10_000;

/// The namespaces of a run. They are deleted with this; devices go with their descriptors.
pub(super) struct Spaces {
    name: String,
    made: Vec<String>,
}

impl Spaces {
    /// Makes both.
    pub(super) fn make(name: &str) -> Result<Spaces, LinkError> {
        let mut spaces = Spaces { name: name.to_owned(), made: Vec::new() };
        for space in spaces.names() {
            if is_there(&space) {
                return Err(LinkError::Taken { space, name: name.to_owned() });
            }
        }
        for space in spaces.names() {
            ip(&["netns", "add", &space])?;
            spaces.made.push(space.clone());
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
        }
        Ok(spaces)
    }

    pub(super) fn names(&self) -> [String; 2] {
        names(&self.name)
    }

    /// Makes both ends of a link; they are up and have addresses.
    pub(super) fn add_link(&mut self, number: usize, link: &Link) -> Result<[Tun; 2], LinkError> {
        let [first, second] = self.names();
        Ok([end(&first, number, 1, link)?, end(&second, number, 2, link)?])
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for space in &self.made {
            // What cannot be removed is there for `clean`, which says why.
            let _ = ip(&["netns", "delete", space]);
        }
    }
}

pub(super) fn names(name: &str) -> [String; 2] {
    [format!("{name}-a"), format!("{name}-b")]
}

fn is_there(space: &str) -> bool {
    Path::new("/run/netns").join(space).symlink_metadata().is_ok()
}

/// The address of an end of a link.
pub(super) fn address(number: usize, end: usize) -> String {
    format!("10.77.{number}.{end}")
}

/// The same in IPv6.
pub(super) fn address6(number: usize, end: usize) -> String {
    format!("fd77:{number:x}::{end}")
}

/// The device of a link, in both namespaces.
pub(super) fn device(number: usize) -> String {
    format!("wan{number}")
}

/// Namespaces that a killed run has left are removed; which these were.
pub(super) fn remove_left(name: &str) -> Result<Vec<String>, LinkError> {
    let mut removed = Vec::new();
    for space in names(name).into_iter().filter(|space| is_there(space)) {
        ip(&["netns", "delete", &space])?;
        removed.push(format!("the network namespace {space}"));
    }
    Ok(removed)
}

/// Whether we may do all this: said before anything is made, and in our words.
pub(super) fn check_rights() -> Result<(), LinkError> {
    let ours = capabilities(None).map_err(|error| host("cannot read our rights")(error.into()))?;
    let needed = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN;
    if ours.effective.contains(needed) { Ok(()) } else { Err(LinkError::Rights) }
}

fn end(space: &str, number: usize, end: usize, link: &Link) -> Result<Tun, LinkError> {
    let tun = Tun::open("rw-wan%d").map_err(LinkError::NoTun)?;
    let (device, mtu) = (device(number), link.mtu);
    ip(&["link", "set", tun.name(), "netns", space, "name", &device])?;
    let mut lines = format!(
        "link set {device} mtu {mtu} txqueuelen {DEVICE_QUEUE} up\n\
         addr add {}/30 dev {device}\n",
        address(number, end)
    );
    // IPv6 has no smaller packets, and some kernels do not have it.
    if mtu >= 1280 && Path::new("/proc/sys/net/ipv6").exists() {
        lines += &format!("addr add {}/64 dev {device} nodad\n", address6(number, end));
    }
    ip_fed(&["-n", space, "-batch", "-"], &lines)?;
    Ok(tun)
}

/// Another MTU for both ends.
pub(super) fn set_mtu(name: &str, number: usize, mtu: u16) -> Result<(), LinkError> {
    let (device, mtu) = (device(number), mtu.to_string());
    for space in names(name) {
        ip(&["-n", &space, "link", "set", &device, "mtu", &mtu])?;
    }
    Ok(())
}

/// Packets that the kernel dropped at the ends of a link before we could read them.
pub(super) fn dropped(name: &str, number: usize) -> Result<[u64; 2], LinkError> {
    let mut dropped = [0; 2];
    for (space, dropped) in names(name).iter().zip(&mut dropped) {
        let said = ip(&["-n", space, "-j", "-s", "link", "show", &device(number)])?;
        let devices: serde_json::Value = serde_json::from_str(&said)
            .map_err(|error| host("cannot read what `ip -j` says")(error.into()))?;
        let count = &devices[0]["stats64"]["tx"]["dropped"];
        *dropped = count.as_u64().unwrap_or(0);
    }
    Ok(dropped)
}

/// Tells `ip` something; what it answers.
fn ip(words: &[&str]) -> Result<String, LinkError> {
    ip_fed(words, "")
}

fn ip_fed(words: &[&str], input: &str) -> Result<String, LinkError> {
    let mut command = Command::new("ip");
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // `ip` answers in the language of its user, who may have chosen another one.
    let mut child = command.env("LC_ALL", "C").spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => LinkError::NoIp(error),
        _ => host("cannot run `ip`")(error),
    })?;
    // A few lines, which a pipe takes; one that does not read them says why.
    let _ = child.stdin.take().map(|mut pipe| pipe.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(host("cannot wait for `ip`"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let words = format!("{} {}", words.join(" "), input.replace('\n', "; "));
    Err(LinkError::Ip { words: words.trim().to_owned(), said })
}
