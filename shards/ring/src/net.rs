//! Listening sockets: one per shard on a common port, or one shard's own.
//!
//! SO_REUSEPORT would let a second server of the same user share our port unnoticed. So the first
//! socket of a port is bound *without* it, which the kernel refuses if anybody listens there, and
//! turns sharing on only afterwards, for its siblings. (A habit of the kernel that
//! `siblings_share_and_strangers_do_not` watches.)

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Connections that may wait for their accept, per listening socket.
pub const BACKLOG: i32 = 4096;

/// Opens `count` sockets that listen on the same address; the kernel spreads connections over
/// them by a hash. Port 0 takes a free one, the same for all. Accepted sockets inherit
/// TCP_NODELAY, and CUBIC as their congestion control where the kernel has it: BBR paces by timers
/// of the socket, which for small replies costs more than the replies do.
///
/// # Errors
/// Whatever the kernel says: the address is in use, is not ours, or may not be used by this user.
pub fn listen_together(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    assert!(count > 0, "nobody would listen");
    let mut listeners = Vec::with_capacity(count);
    let first = open(address)?;
    bind(&first, address)?;
    if count > 1 {
        set(&first, libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
    }
    listeners.push(start(first)?);
    let shared = listeners[0].local_addr()?;
    while listeners.len() < count {
        let next = open(shared)?;
        set(&next, libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
        bind(&next, shared)?;
        listeners.push(start(next)?);
    }
    Ok(listeners)
}

/// Opens one socket that listens on an address of its own.
///
/// # Errors
/// As [`listen_together`].
pub fn listen_alone(address: SocketAddr) -> io::Result<TcpListener> {
    let mut listeners = listen_together(address, 1)?;
    Ok(listeners.remove(0))
}

/// Ends a listening socket at once, whoever else still holds it: an accept that the ring has not
/// let go of yet would keep the port taken for a while after the process has ended.
pub fn stop_listening(listener: &TcpListener) {
    // SAFETY: touches no memory. It fails only for a socket that does not listen any more.
    unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Closes so that the peer sees a reset instead of an end (SO_LINGER with zero time). For tests
/// that need a rude peer.
///
/// # Errors
/// When the socket is no longer one.
pub fn reset(socket: TcpStream) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: reads one `linger` from a local that outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn open(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: creates a descriptor, touches no memory.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    set(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
    let cubic = b"cubic";
    // SAFETY: reads `len` bytes of a constant. Where it fails the system's own choice stays.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            cubic.as_ptr().cast(),
            cubic.len() as libc::socklen_t,
        );
    }
    Ok(socket)
}

fn set(socket: &OwnedFd, level: i32, option: i32) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: reads one integer from a local that outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn bind(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    let done = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: reads the stated size of a local address that outlives the call.
            unsafe { libc::bind(fd, (&raw const raw).cast(), size_of_val(&raw) as u32) }
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: reads the stated size of a local address that outlives the call.
            unsafe { libc::bind(fd, (&raw const raw).cast(), size_of_val(&raw) as u32) }
        }
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn start(socket: OwnedFd) -> io::Result<TcpListener> {
    // SAFETY: passes a descriptor and a number, touches no memory.
    let done = unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) };
    if done == 0 { Ok(TcpListener::from(socket)) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    /// Our shards share a port; a second server, even one that would share, is refused.
    #[test]
    fn siblings_share_and_strangers_do_not() {
        let ours = listen_together(any_port(), 3).unwrap();
        let address = ours[0].local_addr().unwrap();
        assert!(ours.iter().all(|listener| listener.local_addr().unwrap() == address));
        for count in [1, 2] {
            let theirs = listen_together(address, count);
            assert_eq!(theirs.unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
        }
    }

    /// A server that restarts gets its port back although old connections are in TIME_WAIT.
    #[test]
    fn a_restart_gets_its_port_back() {
        let first = listen_alone(any_port()).unwrap();
        let address = first.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (served, _) = first.accept().unwrap();
        drop(served);
        drop(client);
        drop(first);
        assert_eq!(listen_together(address, 2).unwrap()[1].local_addr().unwrap(), address);
    }

    /// Replies leave at once without a system call per connection: the option is inherited.
    #[test]
    fn accepted_sockets_inherit_nodelay() {
        let listener = listen_alone(any_port()).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(listener.accept().unwrap().0.nodelay().unwrap());
    }

    /// Both families are spoken.
    #[test]
    fn listens_on_version_six() {
        let Ok(listener) = listen_alone("[::1]:0".parse().unwrap()) else { return };
        assert!(TcpStream::connect(listener.local_addr().unwrap()).is_ok());
    }
}
