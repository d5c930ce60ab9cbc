//! Real links between two network namespaces of this machine.
//!
//! Link N of a run called `rw` has a TUN device `wanN` in the namespace `rw-a` and one in `rw-b`. A
//! thread of ours carries packets between the two, each way by a [`crate::Direction`]; whatever
//! runs in the namespaces meets real sockets of a real kernel over a bad network.
//!
//! What always holds:
//! - R1  A packet that the kernel gave us arrives as the line decided, or a counter says why not.
//! - R2  What was made is removed when [`Running`] is dropped, also when making it failed half
//!   way. Who is killed leaves two namespaces and a socket, which [`clean`] removes.
//! - R3  A run touches nothing that it did not make: names that are taken are refused.
//!
//! Bounds: [`LINKS_MAX`] links, [`HELD_BYTES_MAX`] bytes on the way in each direction.
//!
//! - `spaces`: namespaces, devices and addresses, by the program `ip`. `pump`: a link's thread.
//! - `asked`: the socket by which a run is asked and told.
//!
//! Not here: what a line does to packets (`line`).

mod asked;
mod pump;
mod spaces;

use std::io;
use std::time::Instant;

use ringway_core::rng::Rng;
use thiserror::Error;

use crate::line::{Link, WordError};
pub use asked::{Answer, LinkStatus, Request, Status, WayStatus, ask};
use asked::{Asked, socket_of};
use pump::Pump;
pub use pump::{HELD_BYTES_MAX, Trouble};
use spaces::Spaces;

/// Links of one run. The third byte of their addresses has room for more, a machine has not.
pub const LINKS_MAX: usize = 64;
/// Bytes of a run's name: names of namespaces and of the socket are made of it.
pub const NAME_BYTES_MAX: usize = 32;

/// What is to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its namespaces are this with `-a` and `-b` behind it.
    pub name: String,
    /// What each link is like.
    pub links: Vec<Link>,
    /// The same seed loses the same packets; one is drawn if there is none.
    pub seed: Option<u64>,
    /// Wait for the last 50 us before a packet is due with a busy processor.
    pub spin: bool,
}

/// Why there are no links. Each says what to do.
#[derive(Debug, Error)]
pub enum LinkError {
    /// What was asked for cannot be.
    #[error("{0}")]
    Words(#[from] WordError),
    /// As that.
    #[error("{0:?} is no name of a run: give 1 to 32 letters of a to z, digits, `-` and `_`")]
    Name(String),
    /// As that.
    #[error("{0} links: a run has 1 to {LINKS_MAX}")]
    Links(usize),
    /// We may not.
    #[error(
        "links need the rights to make network namespaces and devices (CAP_NET_ADMIN and \
         CAP_SYS_ADMIN), which this process has not: run it as root, or in a container with \
         `--cap-add NET_ADMIN --cap-add SYS_ADMIN`"
    )]
    Rights,
    /// There are no TUN devices.
    #[error(
        "cannot open /dev/net/tun: {0}. `modprobe tun` brings it; a container needs \
         `--device /dev/net/tun` and `--cap-add NET_ADMIN`"
    )]
    NoTun(#[source] io::Error),
    /// Another run, or what one left.
    #[error(
        "the network namespace {space} is there already. Another run may have it (`ringway wan \
         link show --name {name}`), or one was killed: `ringway wan link clean {name}` removes \
         what it left"
    )]
    Taken {
        /// The namespace.
        space: String,
        /// The run.
        name: String,
    },
    /// It runs.
    #[error("process {pid} runs the links {name:?}; end that, and it cleans up by itself")]
    Runs {
        /// The run.
        name: String,
        /// Who runs it.
        pid: u32,
    },
    /// The program of iproute2 is not there.
    #[error("cannot start `ip`: {0}. It is a part of iproute2, which has to be installed")]
    NoIp(#[source] io::Error),
    /// It did not do what was asked.
    #[error("`ip {words}` failed: {said}")]
    Ip {
        /// What it was told.
        words: String,
        /// What it said.
        said: String,
    },
    /// The rest.
    #[error("{what}: {source}")]
    Host {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl LinkError {
    /// Whether the host lacks something or has something in the way; else the words were wrong.
    pub fn is_hosts_doing(&self) -> bool {
        !matches!(self, LinkError::Words(_) | LinkError::Name(_) | LinkError::Links(_))
    }
}

fn host(what: &'static str) -> impl Fn(io::Error) -> LinkError {
    move |source| LinkError::Host { what, source }
}

/// Links that run until this is dropped.
pub struct Running {
    // The order of fields is the order of their end: nobody is told about links that are gone, and
    // a device goes before the namespace it lies in.
    asked: Asked,
    spaces: Spaces,
}

impl Running {
    /// Makes namespaces, devices, addresses and threads, and answers from now on.
    ///
    /// # Errors
    /// As [`LinkError`] says; nothing is left behind.
    pub fn start(plan: &Plan) -> Result<Running, LinkError> {
        check_name(&plan.name)?;
        if !(1..=LINKS_MAX).contains(&plan.links.len()) {
            return Err(LinkError::Links(plan.links.len()));
        }
        spaces::check_rights()?;
        let mut spaces = Spaces::make(&plan.name)?;
        let seed = plan.seed.unwrap_or_else(drawn);
        let mut seeds = Rng::new(seed);
        let begun = Instant::now();
        let mut pumps = Vec::new();
        for (index, link) in plan.links.iter().enumerate() {
            let tuns = spaces.add_link(index + 1, link)?;
            let seeds = [seeds.next_u64(), seeds.next_u64()];
            let pump = Pump::start(index + 1, (*link, seeds), tuns, plan.spin);
            pumps.push(pump.map_err(host("cannot start a thread"))?);
        }
        let asked = Asked::start((&plan.name, seed), pumps, begun)?;
        Ok(Running { asked, spaces })
    }

    /// The two namespaces.
    pub fn spaces(&self) -> [String; 2] {
        self.spaces.names()
    }

    /// What the links are and have done.
    ///
    /// # Errors
    /// When a link has come to an end, because somebody has removed its device.
    pub fn status(&self) -> Result<Status, LinkError> {
        self.asked.status().map_err(host("a link has ended"))
    }

    /// Why a link has come to an end, if one has.
    pub fn ended(&self) -> Option<String> {
        self.asked.ended()
    }
}

/// Removes what a run of this name has left that was killed; what that was.
///
/// # Errors
/// When it runs, or when something cannot be removed.
pub fn clean(name: &str) -> Result<Vec<String>, LinkError> {
    check_name(name)?;
    spaces::check_rights()?;
    if let Ok(Answer::Status(status)) = ask(name, &Request::Show) {
        return Err(LinkError::Runs { name: name.to_owned(), pid: status.pid });
    }
    let mut removed = spaces::remove_left(name)?;
    let socket = socket_of(name);
    match std::fs::remove_file(&socket) {
        Ok(()) => removed.push(format!("the socket {}", socket.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(host("cannot remove the socket")(error)),
    }
    Ok(removed)
}

/// Any seed, short enough to be typed again.
fn drawn() -> u64 {
    let mut bytes = [0; 4];
    ringway_ring::host::fill_random(&mut bytes);
    u32::from_ne_bytes(bytes).into()
}

fn check_name(name: &str) -> Result<(), LinkError> {
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.starts_with('-');
    if letters && fits { Ok(()) } else { Err(LinkError::Name(name.to_owned())) }
}
