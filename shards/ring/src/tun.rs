//! A TUN device: a network interface whose packets are a program's.
//!
//! Who has the descriptor reads each packet that the kernel sends into the device, and what they
//! write, the kernel receives from it: one packet a call, bare IP. The device is made in the
//! network namespace of the thread that opens it and may be moved; the descriptor keeps working. It
//! is gone when the descriptor is closed.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// An open TUN device, which nobody blocks on.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
}

impl Tun {
    /// Makes a device. `%d` in the name stands for a number that is free.
    ///
    /// # Errors
    /// `NotFound` where the kernel has no TUN, `PermissionDenied` without CAP_NET_ADMIN,
    /// `InvalidInput` for a name that is empty or longer than 15 bytes, and the kernel's others.
    pub fn open(name: &str) -> io::Result<Tun> {
        // SAFETY: `ifreq` is integers and arrays of them, for which all zero bits is a value.
        let mut asked: libc::ifreq = unsafe { std::mem::zeroed() };
        let fits = (1..asked.ifr_name.len()).contains(&name.len());
        if !fits || name.bytes().any(|byte| byte == 0) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (place, byte) in asked.ifr_name.iter_mut().zip(name.bytes()) {
            *place = byte as libc::c_char;
        }
        asked.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;
        // SAFETY: reads a string constant that ends in a zero byte, makes a descriptor.
        let fd = unsafe { libc::open(c"/dev/net/tun".as_ptr(), flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: reads and writes one `ifreq`, a local that outlives the call; TUNSETIFF keeps no
        // address.
        let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut asked) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        let given = asked.ifr_name.map(|letter| letter as u8);
        let given = CStr::from_bytes_until_nul(&given).map_err(io::Error::other)?;
        Ok(Tun { fd, name: given.to_string_lossy().into_owned() })
    }

    /// What the device was called when it was made.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name that no device can have is refused before the kernel is asked, also where there is
    /// no TUN and where we have no rights.
    #[test]
    fn names_that_cannot_be_are_refused() {
        for name in ["", "a\0b", "sixteen-letters-"] {
            let error = Tun::open(name).expect_err(name);
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }
}
