//! Sockets: those that listen, one per shard on a common port or one shard's own; those that are
//! to be connected; and how either kind is tuned.
//!
//! SO_REUSEPORT would let a second server of the same user share our port unnoticed. So the first
//! socket of a port is bound *without* it, which the kernel refuses if anybody listens there, and
//! turns sharing on only afterwards, for its siblings. (A habit of the kernel that
//! `siblings_share_and_strangers_do_not` watches.)

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use ringway_core::Span;

use crate::cq::Errno;

/// Connections that may wait for their accept, per listening socket.
pub const BACKLOG: i32 = 4096;

/// A way of the kernel's to decide how fast a socket may send, by the name that it has in
/// `net.ipv4.tcp_available_congestion_control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CongestionControl {
    name: [u8; CongestionControl::NAME_MAX],
    len: u8,
}

impl CongestionControl {
    /// The kernel's longest name (TCP_CA_NAME_MAX without its zero byte).
    const NAME_MAX: usize = 15;
    /// Goes on at the rate that the path was seen to carry, whatever it loses.
    pub const BBR: Self = Self::of(b"bbr");
    /// Linux's usual one, which takes each loss for a sign that it sends too fast.
    pub const CUBIC: Self = Self::of(b"cubic");

    /// By its name; `None` if no kernel could have one of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let fits = (1..=Self::NAME_MAX).contains(&name.len());
        (fits && name.bytes().all(good)).then(|| Self::of(name.as_bytes()))
    }

    /// What this host was told to use for connections of which nobody says more; `None` if it does
    /// not tell.
    pub fn of_host() -> Option<Self> {
        let told = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").ok()?;
        Self::by_name(told.trim())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }

    const fn of(text: &[u8]) -> Self {
        let mut name = [0; Self::NAME_MAX];
        let (start, _) = name.split_at_mut(text.len());
        start.copy_from_slice(text);
        Self { name, len: text.len() as u8 }
    }

    fn bytes(&self) -> &[u8] {
        &self.name[..usize::from(self.len)]
    }
}

/// Opens `count` sockets that listen on the same address; the kernel spreads connections over
/// them by a hash. Port 0 takes a free one, the same for all. Accepted sockets inherit
/// TCP_NODELAY and CUBIC, where the kernel has it: BBR paces by timers of the socket, which for
/// small replies, and on short paths, costs more than sending does. [`tune`] may choose another one
/// later.
///
/// # Errors
/// Whatever the kernel says: the address is in use, is not ours, or may not be used by this user.
pub fn listen_together(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    assert!(count > 0, "nobody would listen");
    let mut listeners = Vec::with_capacity(count);
    let first = open_to_listen(address)?;
    bind(&first, address)?;
    if count > 1 {
        set(&first, libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
    }
    listeners.push(start(first)?);
    let shared = listeners[0].local_addr()?;
    while listeners.len() < count {
        let next = open_to_listen(shared)?;
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

/// Makes a socket for connecting to an address, with TCP_NODELAY, under the host's own congestion
/// control.
///
/// # Errors
/// When the process or the host is out of descriptors or memory, or does not speak the family.
pub fn socket_for(address: SocketAddr) -> Result<TcpStream, Errno> {
    open(address).map(TcpStream::from).map_err(|error| Errno::of(&error))
}

/// How a connection is to behave; what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// Small sends leave at once (TCP_NODELAY). So they do unless switched off.
    pub nodelay: Option<bool>,
    /// The kernel takes no more while this many bytes were not sent at all (TCP_NOTSENT_LOWAT).
    /// What was sent and is not acknowledged does not count.
    pub unsent_bytes_max: Option<u32>,
    /// Memory for what was not acknowledged (SO_SNDBUF). The kernel doubles it for its own needs,
    /// bounds it by `net.core.wmem_max`, and stops to find the right size by itself.
    pub send_bytes: Option<u32>,
    /// Memory for what was not read (SO_RCVBUF), likewise, bounded by `net.core.rmem_max`. Before a
    /// connect it also bounds the window that is announced.
    pub receive_bytes: Option<u32>,
    /// Who decides how fast it sends (TCP_CONGESTION). Not an error where the kernel has no such
    /// one: [`tune`] says so.
    pub congestion: Option<CongestionControl>,
    /// The connection breaks when what was sent is not acknowledged for so long, or what waits to
    /// be sent finds no window (TCP_USER_TIMEOUT, whole milliseconds).
    pub unheard_max: Option<Span>,
    /// When nothing was heard for so long the kernel asks whether the peer is there, again and
    /// again; it breaks after [`KEEPALIVE_PROBES`] without an answer (SO_KEEPALIVE, whole seconds).
    pub keepalive: Option<Span>,
}

/// Questions of [`Tuning::keepalive`] that go unanswered.
pub const KEEPALIVE_PROBES: u8 = 3;

/// Makes a socket behave so. `false`: all is as wished but the congestion control, which this
/// kernel does not have, or not for this user; the socket keeps the one it had.
///
/// # Errors
/// When the kernel does not know an option, or the socket is none.
pub fn tune(socket: &impl AsFd, tuning: Tuning) -> Result<bool, Errno> {
    let number = |bytes: u32| i32::try_from(bytes).unwrap_or(i32::MAX);
    // Zero would mean the kernel's own choice, or be refused.
    let whole = |span: Span, unit: Span, max: u64| span.0.div_ceil(unit.0).clamp(1, max) as i32;
    let unheard_ms = tuning.unheard_max.map(|span| whole(span, Span::from_ms(1), i32::MAX as u64));
    let keepalive_s = tuning.keepalive.map(|span| whole(span, Span::from_s(1), KEEPALIVE_S_MAX));
    let probes = keepalive_s.map(|_| i32::from(KEEPALIVE_PROBES));
    let options = [
        (libc::IPPROTO_TCP, libc::TCP_NODELAY, tuning.nodelay.map(i32::from)),
        (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, tuning.unsent_bytes_max.map(number)),
        (libc::SOL_SOCKET, libc::SO_SNDBUF, tuning.send_bytes.map(number)),
        (libc::SOL_SOCKET, libc::SO_RCVBUF, tuning.receive_bytes.map(number)),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, unheard_ms),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, keepalive_s),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, keepalive_s),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, probes),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, keepalive_s.map(|_| 1)),
    ];
    for (level, option, value) in options {
        if let Some(value) = value {
            set_to(socket, level, option, value).map_err(|error| Errno::of(&error))?;
        }
    }
    tuning.congestion.map_or(Ok(true), |control| set_congestion(socket, control))
}

/// What the kernel knows of a TCP connection's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpPath {
    /// The smoothed round trip of segments, in whole microseconds: right after the handshake, that
    /// of the handshake. What the reader waits for because a segment before it was lost is not in
    /// it.
    pub round_trip: Span,
    /// Segments that were sent again since the begin, modulo 2^32.
    pub resent: u32,
}

/// What the kernel knows of a connection's path (TCP_INFO). `None` if it has measured nothing.
pub fn tcp_path(socket: &impl AsFd) -> Option<TcpPath> {
    // SAFETY: a structure of numbers, for which zeros are good.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: writes at most `len` bytes into a local that outlives the call.
    let done = unsafe {
        let to = (&raw mut info).cast();
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, to, &raw mut len)
    };
    let path = TcpPath {
        round_trip: Span::from_us(u64::from(info.tcpi_rtt)),
        resent: info.tcpi_total_retrans,
    };
    (done == 0 && info.tcpi_rtt > 0).then_some(path)
}

/// What TCP_KEEPIDLE and TCP_KEEPINTVL take, at most.
const KEEPALIVE_S_MAX: u64 = 32_767;

/// Whether the kernel has it, for us. Loads its module if need be.
fn set_congestion(socket: &impl AsFd, control: CongestionControl) -> Result<bool, Errno> {
    let name = control.bytes();
    // SAFETY: reads `len` bytes of a local that outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            name.as_ptr().cast(),
            name.len() as libc::socklen_t,
        )
    };
    if done == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    // Not there; there for root alone (`net.ipv4.tcp_allowed_congestion_control`).
    let absent = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EPERM));
    if absent { Ok(false) } else { Err(Errno::of(&error)) }
}

/// When this socket is closed, its peer sees a reset instead of an end, and what was not sent is
/// forgotten (SO_LINGER with zero time).
///
/// # Errors
/// When the socket is no longer one.
pub fn reset_when_closed(socket: &impl AsFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: reads one `linger` from a local that outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes so that the peer sees a reset instead of an end. For tests that need a rude peer.
///
/// # Errors
/// When the socket is no longer one.
pub fn reset(socket: TcpStream) -> io::Result<()> {
    reset_when_closed(&socket)
}

/// Bytes of an address as the kernel reads it, at most.
pub(crate) const ADDRESS_BYTES: usize = size_of::<libc::sockaddr_in6>();

/// An address as the kernel reads it: a `sockaddr_in` or a `sockaddr_in6`, field by field. Returns
/// how long it is.
pub(crate) fn write_address(address: SocketAddr, into: &mut [u8; ADDRESS_BYTES]) -> usize {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    into[..2].copy_from_slice(&(family as libc::sa_family_t).to_ne_bytes());
    into[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(v4) => {
            into[4..8].copy_from_slice(&v4.ip().octets());
            into[8..16].fill(0);
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            into[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
            into[8..24].copy_from_slice(&v6.ip().octets());
            into[24..].copy_from_slice(&v6.scope_id().to_ne_bytes());
            ADDRESS_BYTES
        }
    }
}

/// As [`write_address`], in memory that can be lent.
pub(crate) fn address_bytes(address: SocketAddr) -> Vec<u8> {
    let mut bytes = [0; ADDRESS_BYTES];
    let len = write_address(address, &mut bytes);
    bytes[..len].to_vec()
}

fn open_to_listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = open(address)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    // Where it fails the host's own choice stays.
    let _ = set_congestion(&socket, CongestionControl::CUBIC);
    Ok(socket)
}

fn open(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket(address, libc::SOCK_STREAM)?;
    set(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
    Ok(socket)
}

/// Makes a socket of an address's family.
pub(crate) fn socket(address: SocketAddr, kind: i32) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: creates a descriptor, touches no memory.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Switches an option on.
pub(crate) fn set(socket: &OwnedFd, level: i32, option: i32) -> io::Result<()> {
    set_to(socket, level, option, 1)
}

/// Reads an option.
pub(crate) fn get(socket: &impl AsFd, level: i32, option: i32) -> io::Result<libc::c_int> {
    let (mut value, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: writes at most `len` bytes into a local that outlives the call.
    let done =
        unsafe { libc::getsockopt(fd, level, option, (&raw mut value).cast(), &raw mut len) };
    if done == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Sets an option.
pub(crate) fn set_to(
    socket: &impl AsFd,
    level: i32,
    option: i32,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: reads one integer from a local that outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(crate) fn bind(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let bytes = address_bytes(address);
    let (start, len) = (bytes.as_ptr().cast(), bytes.len() as libc::socklen_t);
    // SAFETY: reads the stated size of a local address that outlives the call.
    let done = unsafe { libc::bind(socket.as_raw_fd(), start, len) };
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
        let again = listen_together(address, 2).unwrap();
        assert_eq!(again[1].local_addr().unwrap(), address);
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

    /// The bytes are those of the structures that the kernel reads, on this machine.
    #[test]
    fn addresses_are_laid_out_as_the_kernel_reads_them() {
        let four = address_bytes("1.2.3.4:513".parse().unwrap());
        assert_eq!(four.len(), size_of::<libc::sockaddr_in>());
        assert_eq!(four[2..], [2, 1, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(four[..2], (libc::AF_INET as u16).to_ne_bytes());
        let six = address_bytes("[102::304%9]:513".parse().unwrap());
        assert_eq!(six.len(), size_of::<libc::sockaddr_in6>());
        assert_eq!(six[..4], [&(libc::AF_INET6 as u16).to_ne_bytes()[..], &[2, 1]].concat());
        let rest = [0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4];
        assert_eq!(six[4..24], rest);
        assert_eq!(six[24..], 9u32.to_ne_bytes());
    }

    fn number(socket: &impl AsFd, level: i32, option: i32) -> i32 {
        get(socket, level, option).unwrap()
    }

    /// Each wish reaches its own option, and what is not wished for stays.
    #[test]
    fn sockets_are_tuned() {
        let socket = socket_for(any_port()).unwrap();
        assert!(socket.nodelay().unwrap(), "so it is unless switched off");
        let before = number(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF);
        let wishes = Tuning {
            nodelay: Some(false),
            unsent_bytes_max: Some(131_072),
            send_bytes: Some(65_536),
            ..Tuning::default()
        };
        assert_eq!(tune(&socket, wishes), Ok(true));
        assert!(!socket.nodelay().unwrap());
        assert_eq!(number(&socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT), 131_072);
        assert_eq!(number(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF), 2 * 65_536);
        assert_eq!(number(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF), before);
        tune(&socket, Tuning { receive_bytes: Some(8192), ..Tuning::default() }).unwrap();
        assert_eq!(number(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF), 2 * 8192);
        assert_eq!(number(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF), 2 * 65_536);
    }

    fn congestion_of(socket: &impl AsFd) -> String {
        let (mut name, mut len) = ([0u8; 16], 16 as libc::socklen_t);
        let (fd, to) = (socket.as_fd().as_raw_fd(), name.as_mut_ptr().cast());
        // SAFETY: writes at most `len` bytes into a local that outlives the call.
        let done = unsafe {
            libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, to, &raw mut len)
        };
        assert_eq!(done, 0);
        let name = name.split(|byte| *byte == 0).next().unwrap();
        String::from_utf8(name.to_vec()).unwrap()
    }

    /// A congestion control that the kernel has is taken, and one that it lacks is not an error:
    /// the answer says so, the old one stays, and the other wishes are fulfilled all the same.
    #[test]
    fn a_congestion_control_that_is_not_there_is_done_without() {
        let socket = socket_for(any_port()).unwrap();
        let offered = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_allowed_congestion_control");
        for name in offered.unwrap().split_whitespace() {
            let control = CongestionControl::by_name(name).expect(name);
            assert_eq!(control.name(), name);
            let wish = Tuning { congestion: Some(control), ..Tuning::default() };
            assert_eq!(tune(&socket, wish), Ok(true), "{name}");
            assert_eq!(congestion_of(&socket), name);
        }
        let before = congestion_of(&socket);
        let wish = Tuning {
            congestion: CongestionControl::by_name("no-such-one"),
            nodelay: Some(false),
            ..Tuning::default()
        };
        assert_eq!(tune(&socket, wish), Ok(false));
        assert_eq!(congestion_of(&socket), before);
        assert!(!socket.nodelay().unwrap());
        for bad in ["", "bbr\0", "sixteen-letters-", "a b"] {
            assert_eq!(CongestionControl::by_name(bad), None, "{bad:?}");
        }
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        let wish = Tuning { congestion: Some(CongestionControl::BBR), ..Tuning::default() };
        assert_eq!(tune(&file, wish), Err(Errno(libc::ENOTSOCK)));
    }

    /// A connection's round trip is known at both ends as soon as its handshake is over, and of
    /// what is none, never.
    #[test]
    fn a_handshake_tells_the_round_trip() {
        let door = std::net::TcpListener::bind(any_port()).unwrap();
        let unconnected = socket_for(any_port()).unwrap();
        assert_eq!(tcp_path(&unconnected), None);
        let near = TcpStream::connect(door.local_addr().unwrap()).unwrap();
        let (far, _) = door.accept().unwrap();
        for end in [&near, &far] {
            let path = tcp_path(end).expect("it has been there and back");
            assert!(path.round_trip < Span::from_s(10) && path.resent == 0, "{path:?}");
        }
        assert_eq!(tcp_path(&std::fs::File::open("/proc/self/stat").unwrap()), None);
    }

    /// How long a peer may be silent is told in whole units, rounded up, and never as zero, which
    /// the kernel would read as its own choice.
    #[test]
    fn silence_is_bounded() {
        let socket = socket_for(any_port()).unwrap();
        let tcp = |option| number(&socket, libc::IPPROTO_TCP, option);
        let read = || {
            let asks = number(&socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE);
            let idle = [tcp(libc::TCP_KEEPIDLE), tcp(libc::TCP_KEEPINTVL), tcp(libc::TCP_KEEPCNT)];
            (tcp(libc::TCP_USER_TIMEOUT), asks, idle)
        };
        assert_eq!((read().0, read().1), (0, 0), "neither unless wished for");
        let wish = |unheard, keepalive| Tuning {
            unheard_max: Some(unheard),
            keepalive: Some(keepalive),
            ..Tuning::default()
        };
        tune(&socket, wish(Span::from_ms(2500), Span::from_ms(2500))).unwrap();
        assert_eq!(read(), (2500, 1, [3, 3, 3]));
        tune(&socket, wish(Span::ZERO, Span::ZERO)).unwrap();
        assert_eq!(read(), (1, 1, [1, 1, 3]));
        tune(&socket, wish(Span(u64::MAX), Span(u64::MAX))).unwrap();
        assert_eq!(read(), (i32::MAX, 1, [32_767, 32_767, 3]));
    }
}
