//! WireGuard in user space at both ends of the link, and the kernel's TCP through it.
//!
//! The keys are no secrets: whoever is in these namespaces is us.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use ringway_wan::Link;

use super::child::{Program, Stopped};
use super::contestant;
use crate::failure::host;
use crate::signals::Stop;

/// The far end, within.
pub(super) const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 78, 1, 2));
/// Where each end takes packets.
const PORT: u16 = 51_820;
/// What WireGuard takes of an MTU, by its own rule of thumb.
const HEADS: u16 = 80;
/// Private and public keys of the near and of the far end (RFC 7748), in hexadecimal digits.
const KEYS: [[&str; 2]; 2] = [
    [
        "0001010101010101010101010101010101010101010101010101010101010141",
        "a4e09292b651c278b9772c569f5fa9bb13d906b46ab68c9df9dc2b4409f8a209",
    ],
    [
        "0002020202020202020202020202020202020202020202020202020202020242",
        "ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59",
    ],
];

/// Starts both ends; the far one can be reached when this returns.
pub(super) fn start(
    link: &Link,
    spaces: &[String; 2],
    stop: &Stop,
) -> Result<Vec<Program>, Stopped> {
    let mut programs = Vec::new();
    for (side, space) in spaces.iter().enumerate() {
        let name = format!("rwm{}{}", std::process::id(), ["n", "f"][side]);
        // It would become who has logged in, and in a job nobody has.
        let words = ["gotatun", "-f", "-v", "error", "--disable-drop-privileges", &name];
        let mut program = Program::start(space, &words)?;
        let orders = PathBuf::from(format!("/var/run/wireguard/{name}.sock"));
        program.until_bound(&orders, stop)?;
        configure(&orders, side)?;
        let (address, mtu) = (format!("10.78.1.{}/24", side + 1), mtu(link).to_string());
        let has = ["ip", "address", "add", &address, "dev", &name];
        let up = ["ip", "link", "set", &name, "mtu", &mtu, "up"];
        for words in [&has[..], &up[..]] {
            Program::start(space, words)?.until_done(stop)?;
        }
        programs.push(program);
    }
    Ok(programs)
}

fn mtu(link: &Link) -> u16 {
    link.mtu.saturating_sub(HEADS)
}

/// Gives an end its keys, by WireGuard's configuration protocol.
fn configure(orders: &Path, side: usize) -> Result<(), Stopped> {
    let ([private, _], [_, public]) = (KEYS[side], KEYS[1 - side]);
    let mut said = format!("set=1\nprivate_key={private}\nlisten_port={PORT}\n");
    said += &format!("public_key={public}\nallowed_ip=10.78.1.0/24\n");
    if side == 0 {
        said += &format!("endpoint={}:{PORT}\n", contestant::THERE);
    }
    said.push('\n');
    let answer = ask(orders, &said).map_err(|error| host("cannot configure gotatun", error))?;
    if answer.contains("errno=0\n") {
        return Ok(());
    }
    Err(host("gotatun refuses its configuration", answer.trim()).into())
}

fn ask(orders: &Path, said: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(orders)?;
    stream.write_all(said.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
