//! A bell: an eventfd. Rung by any thread; heard by whoever waits on it.
//!
//! A ring hears it through [`crate::Ring::watch`], a control thread through `poll` on the
//! descriptor. Many rings before one hearing count as one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// An eventfd that never blocks its ringer nor its hearer.
#[derive(Debug)]
pub struct Bell {
    fd: OwnedFd,
}

impl Bell {
    /// A silent bell.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn new() -> io::Result<Bell> {
        // SAFETY: creates a descriptor, touches no memory.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        Ok(Bell { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Rings it. A counter that is full (2^64 - 2 rings unheard) is as audible as it gets.
    pub fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: reads eight bytes of a local array that outlives the call.
        unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Makes it silent again; true if it had been rung.
    pub fn hush(&self) -> bool {
        let mut count = [0u8; 8];
        // SAFETY: writes at most eight bytes into a local array that outlives the call.
        let read =
            unsafe { libc::read(self.fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        read == 8
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
