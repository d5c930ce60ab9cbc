//! The PROXY protocol, version 2, the sender's half: a service hears who its client is.
//!
//! ```text
//! signature, 12 bytes | version and command u8 | family and protocol u8 | length u16, big-endian
//! source address | destination address | source port u16 | destination port u16
//! ```
//!
//! (haproxy's `doc/proxy-protocol.txt`, section 2.2.) It goes before the first byte of the client,
//! in one piece with it or alone. Nothing is said that is not known: no extensions are written.
//!
//! Bounds: at most [`PROXY_HEADER_MAX`] bytes.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Bytes of a header, at most.
pub const PROXY_HEADER_MAX: usize = 16 + 2 * 16 + 2 * 2;

/// On whose behalf a service is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client's whose two ends are known.
    Client {
        /// The client's own address.
        source: SocketAddr,
        /// The address that the client connected to.
        destination: SocketAddr,
    },
    /// A client's, and the other side did not say which.
    Unknown,
    /// Our own, to see whether the service is there.
    Ourselves,
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// Appends the header. An IPv4 address that is written as an IPv6 one counts as IPv4; if only one
/// of the two addresses is IPv4, both are written as IPv6.
pub fn write_proxy_header(origin: Origin, out: &mut Vec<u8>) {
    out.extend_from_slice(&SIGNATURE);
    let (source, destination) = match origin {
        Origin::Client { source, destination } => (source, destination),
        Origin::Unknown => return out.extend_from_slice(&[PROXY, UNSPECIFIED, 0, 0]),
        Origin::Ourselves => return out.extend_from_slice(&[LOCAL, UNSPECIFIED, 0, 0]),
    };
    match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend_from_slice(&[PROXY, TCP_OVER_IPV4, 0, 2 * 4 + 2 * 2]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
        }
        (from, to) => {
            out.extend_from_slice(&[PROXY, TCP_OVER_IPV6, 0, 2 * 16 + 2 * 2]);
            out.extend_from_slice(&as_ipv6(from).octets());
            out.extend_from_slice(&as_ipv6(to).octets());
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}

fn as_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(origin: Origin) -> Vec<u8> {
        let mut out = Vec::new();
        write_proxy_header(origin, &mut out);
        assert!(out.len() <= PROXY_HEADER_MAX);
        // The signature as the specification prints it.
        assert_eq!(
            out[..12],
            [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a]
        );
        out.split_off(12)
    }

    fn client(source: &str, destination: &str) -> Origin {
        let address = |text: &str| text.parse().expect("an address");
        Origin::Client { source: address(source), destination: address(destination) }
    }

    /// The connection of the specification's example, `PROXY TCP4 192.168.0.1 192.168.0.11 56324
    /// 443`, in the binary form.
    #[test]
    fn version_four_to_the_byte() {
        let bytes =
            [0x21, 0x11, 0x00, 0x0c, 192, 168, 0, 1, 192, 168, 0, 11, 0xdc, 0x04, 0x01, 0xbb];
        assert_eq!(written(client("192.168.0.1:56324", "192.168.0.11:443")), bytes);
        let mapped = client("[::ffff:192.168.0.1]:56324", "192.168.0.11:443");
        assert_eq!(written(mapped), bytes, "the same address by another name");
    }

    #[test]
    fn version_six_to_the_byte() {
        let mut bytes = [0; 4 + 36];
        bytes[..4].copy_from_slice(&[0x21, 0x21, 0x00, 0x24]);
        bytes[4..8].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        bytes[19] = 7;
        bytes[35] = 1;
        bytes[36..].copy_from_slice(&[0x02, 0x01, 0x00, 0x50]);
        assert_eq!(written(client("[2001:db8::7]:513", "[::1]:80")), bytes);
        let mixed = written(client("10.0.0.1:513", "[::1]:80"));
        bytes[4..20].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
        assert_eq!(mixed, bytes);
    }

    /// Who does not know says so; the service then sees the address that connects to it.
    #[test]
    fn what_is_not_known_is_not_said() {
        assert_eq!(written(Origin::Unknown), [0x21, 0x00, 0, 0]);
        assert_eq!(written(Origin::Ourselves), [0x20, 0x00, 0, 0]);
    }
}
