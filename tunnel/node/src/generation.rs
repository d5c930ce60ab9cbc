//! Hears from the kernel that this machine is a copy, or was set back to a snapshot: it says
//! `NEW_VMGENID` when the hypervisor gave it another generation (Linux 6.10 and later).
//!
//! Bounds: one socket, read by the control thread; nothing runs while nothing is said. Not here: a
//! hypervisor that does not tell its guest (`clocks` may find out then), what is done about it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with};

/// The group to which the kernel says what happens to devices.
const KERNEL_GROUP: u32 = 1;
/// The kernel's own bound of such a message is less.
const MESSAGE_BYTES_MAX: usize = 8192;
/// Messages that are read at a time: others have their turn, too.
const AT_ONCE: usize = 64;

/// See the module.
pub(crate) struct Generation {
    socket: OwnedFd,
}

impl Generation {
    /// Listens from now on.
    ///
    /// # Errors
    /// Where it may not: a sandbox, a family of sockets that is forbidden.
    pub(crate) fn listen() -> io::Result<Generation> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (family, kind) = (AddressFamily::NETLINK, SocketType::DGRAM);
        let socket = socket_with(family, kind, flags, Some(KOBJECT_UEVENT))?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Generation { socket })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads what was said. Returns whether the machine has another generation.
    ///
    /// # Errors
    /// When nothing will be heard any more. What was lost because too much came is no error: the
    /// log has it.
    pub(crate) fn has_changed(&self) -> io::Result<bool> {
        let mut message = [0; MESSAGE_BYTES_MAX];
        let mut changed = false;
        for _ in 0..AT_ONCE {
            match recvfrom(&self.socket, &mut message, RecvFlags::empty()) {
                Ok((len, _, from)) => {
                    let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
                    let kernel = from.is_some_and(|from| from.pid() == 0);
                    changed |= kernel && is_new_generation(&message[..len]);
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => tracing::warn!(
                    "the kernel said more about devices than could be read: if this machine was \
                     just restored from a snapshot, restart the tunnel"
                ),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(changed)
    }
}

/// Whether this is what the kernel says of a new generation: a line, then variables, each with a
/// zero byte behind it.
fn is_new_generation(message: &[u8]) -> bool {
    let mut words = message.split(|byte| *byte == 0);
    let change = words.next().is_some_and(|first| first.starts_with(b"change@"));
    change && words.any(|word| word == b"NEW_VMGENID=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_generation_is_one() {
        let said = |text: &str| is_new_generation(text.replace('|', "\0").as_bytes());
        let path = "/devices/platform/QEMUVGID:00";
        let head = format!("change@{path}|ACTION=change|DEVPATH={path}|SUBSYSTEM=platform|");
        assert!(said(&format!("{head}NEW_VMGENID=1|DRIVER=vmgenid|SEQNUM=2811|")));
        assert!(said("change@/x|NEW_VMGENID=1"));
        assert!(!said(&format!("{head}DRIVER=vmgenid|SEQNUM=2811|")));
        assert!(!said("add@/x|NEW_VMGENID=1|"), "a device that is found is none");
        assert!(
            !said("change@/x|SYNTH_ARG_NEW_VMGENID=1|"),
            "who writes to `uevent` cannot say it"
        );
        assert!(!said("change@/NEW_VMGENID=1|ACTION=change|"));
        assert!(!said("libudev|change@/x|NEW_VMGENID=1|"));
        assert!(!said("") && !said("NEW_VMGENID=1"));
    }

    /// Where listening is allowed nothing is heard while nothing happens; where it is not, that is
    /// an error and no panic.
    #[test]
    fn it_listens_where_it_may() {
        if let Ok(generation) = Generation::listen() {
            assert!(generation.has_changed().is_ok_and(|changed| !changed));
        }
    }
}
