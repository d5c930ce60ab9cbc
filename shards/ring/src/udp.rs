//! UDP sockets, and what stands around a datagram: where it came from and to, its ECN bits, how
//! many datagrams came as one.
//!
//! A *train* is a run of datagrams of equal length (the last one may be shorter) in one piece of
//! memory: what the kernel cuts up on sending (UDP_SEGMENT) and puts together on receiving
//! (UDP_GRO), which is worth seven times the rate.
//!
//! Every socket asks for the same: no fragments, ever (a probe that does not fit fails, here or on
//! the way); the address that a datagram was sent to; its ECN bits; how many were dropped for want
//! of room. No ICMP error is kept for it, so that nobody can disturb it by forging one.
//!
//! Not here: sending and receiving (`ring.rs`, `letters.rs`). Tests: below, and `tests/udp.rs`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::cq::Errno;
use crate::net::{self, ADDRESS_BYTES};

/// Datagrams of one train, at most. Kernels cut as many since 4.18, and newer ones twice as many.
pub const TRAIN_DATAGRAMS_MAX: usize = 64;
/// Bytes of one train, at most: what one UDP datagram of IP version 4 can carry, because the kernel
/// treats a train as one until it is cut.
pub const TRAIN_BYTES_MAX: usize = 65_507;

/// The two bits of an IP header by which routers tell of congestion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// Routers drop instead.
    #[default]
    Unable = 0,
    /// They may mark it; of a transport that reacts to each mark.
    Able1 = 1,
    /// They may mark it.
    Able0 = 2,
    /// One did.
    Congested = 3,
}

impl Ecn {
    fn of(traffic_class: u8) -> Ecn {
        match traffic_class & 3 {
            0 => Ecn::Unable,
            1 => Ecn::Able1,
            2 => Ecn::Able0,
            _ => Ecn::Congested,
        }
    }
}

/// Where a train goes, and how it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Towards {
    /// To whom.
    pub to: SocketAddr,
    /// From which of the host's addresses: for a socket that is bound to all of them, and answers
    /// by the one that it was asked at. `None`: the route decides.
    pub from: Option<IpAddr>,
    /// Its ECN bits.
    pub ecn: Ecn,
    /// Bytes of each datagram but the last, which has the rest. At least one.
    pub segment_bytes: u16,
}

impl Towards {
    /// A train of datagrams of so many bytes.
    pub fn new(to: SocketAddr, segment_bytes: u16) -> Towards {
        Towards { to, from: None, ecn: Ecn::Unable, segment_bytes }
    }

    /// How many datagrams of this size one train holds.
    pub fn datagrams_max(&self) -> usize {
        let segment = usize::from(self.segment_bytes.max(1));
        (TRAIN_BYTES_MAX / segment).clamp(1, TRAIN_DATAGRAMS_MAX)
    }
}

/// How much memory a socket is to have for what waits in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketMemory {
    /// For what arrived and was not read. The kernel charges what a datagram occupies there, which
    /// is more than its bytes, up to twice as much if it is small.
    pub receive_bytes: u32,
    /// For what was sent and has not left the host.
    pub send_bytes: u32,
}

impl Default for SocketMemory {
    /// 4 MiB each: 2.5 ms at 12.5 Gbit/s.
    fn default() -> Self {
        Self { receive_bytes: 4 << 20, send_bytes: 4 << 20 }
    }
}

/// A UDP socket that is bound. See the module.
#[derive(Debug)]
pub struct DatagramSocket {
    fd: OwnedFd,
    is_v6: bool,
}

impl DatagramSocket {
    /// Binds a socket to an address that nobody else has. Port 0: a free one. One that is bound to
    /// all addresses of version 6 speaks version 4, too, unless the host says otherwise.
    ///
    /// # Errors
    /// Whatever the kernel says: the address is in use, is not ours, or may not be used by this
    /// user.
    pub fn bind(address: SocketAddr, memory: SocketMemory) -> io::Result<DatagramSocket> {
        let socket = Self::open(address, memory)?;
        net::bind(&socket.fd, address)?;
        Ok(socket)
    }

    /// Binds `count` sockets to the same address; the kernel spreads peers over them by a hash.
    /// Nobody else can join them. Port 0: a free one, the same for all.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_together(
        address: SocketAddr,
        count: usize,
        memory: SocketMemory,
    ) -> io::Result<Vec<DatagramSocket>> {
        assert!(count > 0, "nobody would listen");
        let first = Self::bind(address, memory)?;
        // As with sockets that listen: sharing is switched on when the address is ours.
        if count > 1 {
            net::set(&first.fd, libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
        }
        let shared = first.local_address()?;
        let mut sockets = vec![first];
        while sockets.len() < count {
            let next = Self::open(address, memory)?;
            net::set(&next.fd, libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
            net::bind(&next.fd, shared)?;
            sockets.push(next);
        }
        Ok(sockets)
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// When the kernel is out of memory.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        let mut name = [0u8; NAME_BYTES];
        let mut len = NAME_BYTES as libc::socklen_t;
        // SAFETY: writes at most `len` bytes into a local that outlives the call.
        let done = unsafe {
            libc::getsockname(self.fd.as_raw_fd(), name.as_mut_ptr().cast(), &raw mut len)
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        read_address(&name[..(len as usize).min(NAME_BYTES)])
            .ok_or_else(|| io::Error::other("the kernel named a socket of no known family"))
    }

    /// How much memory it has. Who may administrate the network gets what was asked for; anybody
    /// else no more than `net.core.rmem_max` and `net.core.wmem_max` allow.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn memory(&self) -> io::Result<SocketMemory> {
        // The kernel doubles what it is asked for, and says the double.
        let half = |option| net::get(&self.fd, libc::SOL_SOCKET, option).map(|all| all as u32 / 2);
        Ok(SocketMemory {
            receive_bytes: half(libc::SO_RCVBUF)?,
            send_bytes: half(libc::SO_SNDBUF)?,
        })
    }

    /// Has the kernel put together what arrives ([`crate::Feature::ReceiveTrains`]).
    ///
    /// # Errors
    /// When it does not know how.
    pub fn put_together(&self) -> Result<(), Errno> {
        net::set(&self.fd, libc::SOL_UDP, libc::UDP_GRO).map_err(|error| Errno::of(&error))
    }

    /// Sends without checksums from now on, which makes the kernel refuse to cut trains (EINVAL).
    /// For tests that need such a kernel.
    ///
    /// # Errors
    /// When the socket is no longer one.
    pub fn refuse_to_cut(&self) -> io::Result<()> {
        net::set(&self.fd, libc::SOL_SOCKET, libc::SO_NO_CHECK)
    }

    /// Whether the kernel cuts trains ([`crate::Feature::SendTrains`]).
    pub(crate) fn can_cut(&self) -> bool {
        net::set_to(&self.fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok()
    }

    /// Writes an address as the kernel wants it for this socket, and says how long it is.
    pub(crate) fn write_name(&self, to: SocketAddr, into: &mut [u8; ADDRESS_BYTES]) -> usize {
        let to = match to {
            SocketAddr::V4(v4) if self.is_v6 => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            to => to,
        };
        net::write_address(to, into)
    }

    fn open(address: SocketAddr, memory: SocketMemory) -> io::Result<DatagramSocket> {
        let fd = net::socket(address, libc::SOCK_DGRAM)?;
        net::set(&fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL)?;
        // A socket of version 6 may speak version 4 and needs both.
        net::set(&fd, libc::IPPROTO_IP, libc::IP_RECVTOS)?;
        let (probe4, probe6) = (libc::IP_PMTUDISC_PROBE, libc::IPV6_PMTUDISC_PROBE);
        net::set_to(&fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, probe4)?;
        if address.is_ipv6() {
            net::set(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?;
            net::set(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)?;
            net::set_to(&fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, probe6)?;
        } else {
            net::set(&fd, libc::IPPROTO_IP, libc::IP_PKTINFO)?;
        }
        let sizes = [
            (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, memory.receive_bytes),
            (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, memory.send_bytes),
        ];
        for (forced, asked, bytes) in sizes {
            let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
            if net::set_to(&fd, libc::SOL_SOCKET, forced, bytes).is_err() {
                net::set_to(&fd, libc::SOL_SOCKET, asked, bytes)?;
            }
        }
        Ok(DatagramSocket { fd, is_v6: address.is_ipv6() })
    }
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<DatagramSocket> for OwnedFd {
    fn from(socket: DatagramSocket) -> OwnedFd {
        socket.fd
    }
}

/// What stands around the bytes of a train that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Who sent it. An address of version 4 is one, also where the socket is of version 6.
    pub from: SocketAddr,
    /// At which of the host's addresses it arrived.
    pub to: Option<IpAddr>,
    /// Its ECN bits.
    pub ecn: Ecn,
    /// Bytes of each datagram but the last; never zero, never more than there are.
    pub segment_bytes: usize,
    /// How much the kernel has dropped at this socket so far for want of room, modulo 2^32. What
    /// it had put together counts as one. `None`: nothing yet.
    pub dropped: Option<u32>,
}

/// Room for an address in front of what arrived, and for what stands around it. Together with the
/// kernel's own header the payload begins on a cache line.
pub(crate) const NAME_BYTES: usize = 32;
pub(crate) const CONTROL_BYTES: usize = 208;
const HEADER_BYTES: usize = 16;
/// Bytes in front of what arrived.
pub(crate) const FRONT_BYTES: usize = HEADER_BYTES + NAME_BYTES + CONTROL_BYTES;

/// Writes what the kernel writes in front of a datagram, for the receives of which it does not.
pub(crate) fn write_front(front: &mut [u8], name: &[u8], control: &[u8], payload: u32, flags: u32) {
    let words = [name.len() as u32, control.len() as u32, payload, flags];
    for (at, word) in front.chunks_exact_mut(4).zip(words) {
        at.copy_from_slice(&word.to_ne_bytes());
    }
    front[HEADER_BYTES..][..name.len()].copy_from_slice(name);
    front[HEADER_BYTES + NAME_BYTES..][..control.len()].copy_from_slice(control);
}

/// Reads a buffer that the kernel filled. `None`: it is empty, was cut off, or does not say who
/// sent it.
pub(crate) fn read_arrival(buffer: &mut [u8]) -> Option<(Arrival, &mut [u8])> {
    let (front, payload) = buffer.split_at_mut_checked(FRONT_BYTES)?;
    let word = |at: usize| number_at(front, at);
    let (name_len, control_len) = (word(0)? as usize, word(4)? as usize);
    let flags = word(12)? as i32;
    if payload.is_empty() || flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return None;
    }
    let name = front[HEADER_BYTES..].get(..name_len.min(NAME_BYTES))?;
    let control = front[HEADER_BYTES + NAME_BYTES..].get(..control_len)?;
    let mut arrival = Arrival {
        from: read_address(name)?,
        to: None,
        ecn: Ecn::Unable,
        segment_bytes: payload.len(),
        dropped: None,
    };
    read_controls(control, &mut arrival);
    Some((arrival, payload))
}

fn number_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

const CONTROL_HEADER: usize = size_of::<libc::cmsghdr>();

fn read_controls(mut controls: &[u8], into: &mut Arrival) {
    while let Some((len, rest)) = controls.split_first_chunk() {
        let len = usize::from_ne_bytes(*len);
        let (Some(level), Some(kind)) = (number_at(rest, 0), number_at(rest, 4)) else { return };
        let Some(value) = controls.get(CONTROL_HEADER..len) else { return };
        let number = number_at(value, 0);
        match (level as i32, kind as i32) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let segment = number.map_or(0, |number| number as usize);
                into.segment_bytes = into.segment_bytes.min(segment.max(1));
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => into.dropped = number,
            (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                // One byte here, an integer there.
                let class = number.or_else(|| value.first().map(|byte| u32::from(*byte)));
                into.ecn = Ecn::of(class.unwrap_or_default() as u8);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // An interface, the address to answer from, the address in the header.
                let octets = value.get(4..).and_then(|value| value.first_chunk::<4>());
                into.to = octets.map(|octets| Ipv4Addr::from(*octets).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let octets = value.first_chunk::<16>();
                into.to = octets.map(|octets| IpAddr::from(Ipv6Addr::from(*octets)).to_canonical());
            }
            _ => {}
        }
        let Some(next) = controls.get(aligned(len)..) else { return };
        controls = next;
    }
}

fn aligned(len: usize) -> usize {
    len.next_multiple_of(size_of::<usize>())
}

/// An address as the kernel writes it.
fn read_address(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*name.first_chunk()?);
    let port = u16::from_be_bytes(*name.get(2..)?.first_chunk()?);
    let rest = &name[4..];
    match i32::from(family) {
        libc::AF_INET => {
            let ip = Ipv4Addr::from(*rest.first_chunk::<4>()?);
            Some((ip, port).into())
        }
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?);
            let (flow, scope) = (number_at(rest, 0)?, number_at(rest, 20)?);
            match ip.to_ipv4_mapped() {
                Some(v4) => Some((v4, port).into()),
                None => Some(SocketAddrV6::new(ip, port, flow, scope).into()),
            }
        }
        _ => None,
    }
}

/// Room for what stands around a train that is sent.
pub(crate) const SENT_CONTROL_BYTES: usize = 96;

/// Writes what stands around a train that is sent, and says how long that is.
pub(crate) fn write_controls(
    into: &mut [u8; SENT_CONTROL_BYTES],
    towards: &Towards,
    cut: bool,
) -> usize {
    let mut len = 0;
    let mut put = |level: i32, kind: i32, value: &[u8]| {
        let (whole, here) = (CONTROL_HEADER + value.len(), &mut into[len..]);
        here[..size_of::<usize>()].copy_from_slice(&whole.to_ne_bytes());
        here[size_of::<usize>()..][..4].copy_from_slice(&level.to_ne_bytes());
        here[size_of::<usize>() + 4..][..4].copy_from_slice(&kind.to_ne_bytes());
        here[CONTROL_HEADER..whole].copy_from_slice(value);
        len += aligned(whole);
    };
    if cut {
        put(libc::SOL_UDP, libc::UDP_SEGMENT, &towards.segment_bytes.to_ne_bytes());
    }
    let v4 = matches!(towards.to.ip().to_canonical(), IpAddr::V4(_));
    if towards.ecn != Ecn::Unable {
        let (level, kind) = if v4 {
            (libc::IPPROTO_IP, libc::IP_TOS)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
        };
        put(level, kind, &(towards.ecn as i32).to_ne_bytes());
    }
    match towards.from {
        // An interface, the address to send from, one that is not looked at.
        Some(IpAddr::V4(from)) if v4 => {
            let mut value = [0; 12];
            value[4..8].copy_from_slice(&from.octets());
            put(libc::IPPROTO_IP, libc::IP_PKTINFO, &value);
        }
        Some(IpAddr::V6(from)) if !v4 => {
            let mut value = [0; 20];
            value[..16].copy_from_slice(&from.octets());
            put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &value);
        }
        // Of another family than who it goes to: the route decides.
        _ => {}
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY_PORT: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

    fn bind(address: &str) -> io::Result<DatagramSocket> {
        DatagramSocket::bind(address.parse().unwrap(), SocketMemory::default())
    }

    /// Our shards share a port; another one, even one that would share, is refused. What peers send
    /// arrives at one of the siblings each.
    #[test]
    fn siblings_share_and_strangers_do_not() {
        let any = ANY_PORT[0].parse().unwrap();
        let memory = SocketMemory::default();
        let ours = DatagramSocket::bind_together(any, 3, memory).unwrap();
        let address = ours[0].local_address().unwrap();
        assert!(ours.iter().all(|socket| socket.local_address().unwrap() == address));
        for count in [1, 2] {
            let theirs = DatagramSocket::bind_together(address, count, memory);
            assert_eq!(theirs.unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
        }
        let peers: Vec<_> = (0..64).map(|_| std::net::UdpSocket::bind(any).unwrap()).collect();
        for peer in &peers {
            peer.send_to(b"x", address).unwrap();
        }
        let mut total = 0;
        for socket in ours {
            let socket = std::net::UdpSocket::from(OwnedFd::from(socket));
            socket.set_nonblocking(true).unwrap();
            let count = std::iter::from_fn(|| socket.recv(&mut [0; 8]).ok()).count();
            assert!(count > 0, "the hash spreads 64 peers");
            total += count;
        }
        assert_eq!(total, 64);
    }

    /// A socket has the memory that it asked for, or says how much less it has.
    #[test]
    fn memory_is_stated() {
        let wish = SocketMemory { receive_bytes: 65_536, send_bytes: 131_072 };
        let socket = DatagramSocket::bind(ANY_PORT[0].parse().unwrap(), wish).unwrap();
        assert_eq!(socket.memory().unwrap(), wish);
        let wish = SocketMemory { receive_bytes: 1 << 30, send_bytes: 1 << 30 };
        let socket = DatagramSocket::bind(ANY_PORT[0].parse().unwrap(), wish).unwrap();
        let granted = socket.memory().unwrap();
        assert!(granted.receive_bytes >= 65_536 && granted.receive_bytes <= wish.receive_bytes);
    }

    /// Addresses are read as they are written, and one of version 4 is one whatever the socket is.
    #[test]
    fn addresses_come_back() {
        for text in ["1.2.3.4:513", "[102::304%9]:513", "[::1]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(read_address(&net::address_bytes(address)), Some(address));
        }
        let Ok(six) = bind(ANY_PORT[1]) else { return };
        let four: SocketAddr = "1.2.3.4:513".parse().unwrap();
        let mut name = [0; ADDRESS_BYTES];
        assert_eq!(six.write_name(four, &mut name), ADDRESS_BYTES);
        assert_eq!(read_address(&name), Some(four));
        for cut in 0..16 {
            assert_eq!(read_address(&net::address_bytes(four)[..cut.min(7)]), None);
        }
    }

    /// What the kernel never writes is read without harm: every length and kind, cut anywhere.
    #[test]
    fn strange_fronts_do_no_harm() {
        let mut front = vec![0u8; FRONT_BYTES + 100];
        let name = net::address_bytes("1.2.3.4:513".parse().unwrap());
        let mut control = [0; SENT_CONTROL_BYTES];
        let towards = Towards {
            from: Some("127.0.0.9".parse().unwrap()),
            ecn: Ecn::Able0,
            ..Towards::new("1.2.3.4:513".parse().unwrap(), 40)
        };
        let len = write_controls(&mut control, &towards, true);
        write_front(&mut front, &name, &control[..len], 100, 0);
        let (arrival, payload) = read_arrival(&mut front).expect("a whole one");
        assert_eq!((payload.len(), arrival.from.port(), arrival.ecn), (100, 513, Ecn::Able0));
        assert_eq!(arrival.to, towards.from);
        let good = front.clone();
        for at in 0..FRONT_BYTES {
            for value in [0, 1, 7, 15, 17, 0x7F, 0xFF] {
                front.copy_from_slice(&good);
                front[at] = value;
                if let Some((arrival, payload)) = read_arrival(&mut front) {
                    assert!((1..=payload.len()).contains(&arrival.segment_bytes));
                }
            }
        }
        for cut in 0..=FRONT_BYTES {
            assert!(read_arrival(&mut good.clone()[..cut]).is_none());
        }
        let truncated = [0, 0, 0, 0x20u8];
        front.copy_from_slice(&good);
        front[12] = truncated[3];
        assert!(read_arrival(&mut front).is_none(), "cut off (MSG_TRUNC)");
    }
}
