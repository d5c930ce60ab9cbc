//! Where a flow is to go: the first bytes of the stream of who opened it.
//!
//! ```text
//! kind u8 | length u8 | place | port u16, big-endian
//! 01 an IPv4 address, 4 bytes    02 an IPv6 address, 16 bytes
//! 03 a host name, to be resolved at the far side    04 a service, by its name there; port 0
//! ```
//!
//! A host name is letters, digits, hyphens, dots and underscores: whatever else a resolver might make
//! something of (blanks, zero bytes, an address in a disguise) is refused before anybody sees it.
//!
//! Bounds: at most [`TARGET_BYTES_MAX`] bytes; names have at most 253, as in DNS.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of a target, at most.
pub const TARGET_BYTES_MAX: usize = 2 + NAME_MAX + 2;
/// Bytes of a host's or a service's name.
const NAME_MAX: usize = 253;

/// Where a flow is to go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// An address.
    Address(IpAddr, u16),
    /// A host by its name, resolved where the flow leaves.
    Host(String, u16),
    /// A service that the far side has given a name.
    Service(String),
}

/// What is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTarget {
    /// Not the form of one.
    Malformed,
    /// A name that no host and no service has.
    Name,
    /// Nobody listens on port 0.
    Port,
}

impl fmt::Display for NoTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not an address, a host and a port, or a service",
            Self::Name => "a name has 1 to 253 letters, digits, hyphens, dots and underscores",
            Self::Port => "a port is a number from 1 to 65535",
        })
    }
}

impl core::error::Error for NoTarget {}

const IPV4: u8 = 1;
const IPV6: u8 = 2;
const HOST: u8 = 3;
const SERVICE: u8 = 4;

fn is_name(name: &[u8]) -> bool {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    (1..=NAME_MAX).contains(&name.len()) && name.iter().all(good)
}

/// A name of letters that reads as an address is that address, so that a rule about addresses
/// cannot be passed by spelling one out.
fn host(name: &[u8], port: u16) -> Result<Target, NoTarget> {
    if port == 0 {
        return Err(NoTarget::Port);
    }
    if let Some(address) = core::str::from_utf8(name).ok().and_then(|text| text.parse().ok()) {
        return Ok(Target::Address(address, port));
    }
    let text = core::str::from_utf8(name).ok().filter(|_| is_name(name)).ok_or(NoTarget::Name)?;
    // Resolvers read `127.1` and `0x7f000001` as addresses; no host's last label is a number.
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    if last.is_empty() || last.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(NoTarget::Name);
    }
    Ok(Target::Host(text.to_ascii_lowercase(), port))
}

impl Target {
    /// A service of the far side.
    ///
    /// # Errors
    /// [`NoTarget::Name`].
    pub fn service(name: &str) -> Result<Target, NoTarget> {
        let good = is_name(name.as_bytes());
        good.then(|| Target::Service(name.to_string())).ok_or(NoTarget::Name)
    }

    /// A host by name, or an address that is written as one.
    ///
    /// # Errors
    /// [`NoTarget`].
    pub fn host(name: &[u8], port: u16) -> Result<Target, NoTarget> {
        host(name, port)
    }

    /// An address.
    ///
    /// # Errors
    /// [`NoTarget::Port`] for port 0.
    pub fn address(address: IpAddr, port: u16) -> Result<Target, NoTarget> {
        if port == 0 { Err(NoTarget::Port) } else { Ok(Target::Address(address, port)) }
    }

    /// Reads `host:port`, `1.2.3.4:port` or `[::1]:port`, as in configuration and in CONNECT.
    ///
    /// # Errors
    /// [`NoTarget`].
    pub fn parse(text: &str) -> Result<Target, NoTarget> {
        let (name, port) = text.rsplit_once(':').ok_or(NoTarget::Malformed)?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = if digits { port.parse().ok() } else { None }.ok_or(NoTarget::Port)?;
        match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            Some(inner) => {
                let address: Ipv6Addr = inner.parse().map_err(|_| NoTarget::Malformed)?;
                Target::address(address.into(), port)
            }
            None if name.contains(':') => Err(NoTarget::Malformed),
            None => host(name.as_bytes(), port),
        }
    }

    /// Appends the target as it stands at the beginning of a stream.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (kind, port) = match self {
            Target::Address(IpAddr::V4(_), port) => (IPV4, *port),
            Target::Address(IpAddr::V6(_), port) => (IPV6, *port),
            Target::Host(_, port) => (HOST, *port),
            Target::Service(_) => (SERVICE, 0),
        };
        let (four, sixteen);
        let place: &[u8] = match self {
            Target::Address(IpAddr::V4(address), _) => {
                four = address.octets();
                &four
            }
            Target::Address(IpAddr::V6(address), _) => {
                sixteen = address.octets();
                &sixteen
            }
            Target::Host(name, _) | Target::Service(name) => name.as_bytes(),
        };
        out.extend_from_slice(&[kind, place.len() as u8]);
        out.extend_from_slice(place);
        out.extend_from_slice(&port.to_be_bytes());
    }

    /// Reads the target at the beginning of a stream: it, and how many bytes it took; `None` if it
    /// is not whole yet.
    ///
    /// # Errors
    /// [`NoTarget`]; more bytes do not mend it.
    pub fn read(bytes: &[u8]) -> Result<Option<(Target, usize)>, NoTarget> {
        let [kind, len, rest @ ..] = bytes else { return Ok(None) };
        let len = usize::from(*len);
        let right = match *kind {
            IPV4 => len == 4,
            IPV6 => len == 16,
            HOST | SERVICE => (1..=NAME_MAX).contains(&len),
            _ => false,
        };
        if !right {
            return Err(NoTarget::Malformed);
        }
        let Some((place, rest)) = rest.split_at_checked(len) else { return Ok(None) };
        let Some(port) = rest.first_chunk() else { return Ok(None) };
        let port = u16::from_be_bytes(*port);
        let target = match *kind {
            IPV4 => {
                let octets: [u8; 4] = place.try_into().map_err(|_| NoTarget::Malformed)?;
                Target::address(Ipv4Addr::from(octets).into(), port)?
            }
            IPV6 => {
                let octets: [u8; 16] = place.try_into().map_err(|_| NoTarget::Malformed)?;
                Target::address(Ipv6Addr::from(octets).into(), port)?
            }
            HOST => host(place, port)?,
            _ if port != 0 => return Err(NoTarget::Port),
            _ => Target::service(core::str::from_utf8(place).map_err(|_| NoTarget::Name)?)?,
        };
        Ok(Some((target, 2 + len + 2)))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Address(IpAddr::V4(address), port) => write!(f, "{address}:{port}"),
            Target::Address(IpAddr::V6(address), port) => write!(f, "[{address}]:{port}"),
            Target::Host(name, port) => write!(f, "{name}:{port}"),
            Target::Service(name) => write!(f, "service {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(target: &Target) -> Vec<u8> {
        let mut out = Vec::new();
        target.write(&mut out);
        out
    }

    #[test]
    fn targets_are_read_as_they_are_written() {
        for text in ["10.0.0.1:80", "[2001:db8::1]:443", "db.example:5432", "a_b-c.d:1"] {
            let target = Target::parse(text).expect(text);
            assert_eq!(target.to_string(), text);
            let bytes = written(&target);
            assert_eq!(Target::read(&bytes), Ok(Some((target, bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(Target::read(&bytes[..cut]), Ok(None), "{text} cut at {cut}");
            }
        }
        let service = Target::service("mail").expect("a name");
        assert_eq!(written(&service), b"\x04\x04mail\0\0");
    }

    /// An address in a disguise is that address or nothing, never a host's name.
    #[test]
    fn disguises_are_seen_through() {
        let local = Target::parse("127.0.0.1:80");
        assert_eq!(Target::host(b"127.0.0.1", 80), local);
        let bytes = written(&Target::Host("127.0.0.1".into(), 80));
        assert_eq!(
            Target::read(&bytes).map(|read| read.map(|(target, _)| target)),
            local.map(Some)
        );
        for name in [
            "127.1",
            "0x7f000001",
            "2130706433",
            "0177.0.0.1",
            "1.2.3.4.",
            "a b",
            "a\0b",
            "",
            ".",
            "a%b",
            "user@host",
            "host/path",
            "\u{ff4c}ocalhost",
        ] {
            assert_eq!(Target::host(name.as_bytes(), 80), Err(NoTarget::Name), "{name:?}");
        }
        assert_eq!(Target::parse("LOCALHOST:80"), Target::parse("localhost:80"));
    }

    #[test]
    fn what_is_no_target_says_why() {
        for (text, why) in [
            ("host", NoTarget::Malformed),
            ("host:", NoTarget::Port),
            ("host:0", NoTarget::Port),
            ("host:65536", NoTarget::Port),
            ("host:+80", NoTarget::Port),
            ("::1:80", NoTarget::Malformed),
            ("[::1:80", NoTarget::Malformed),
            ("[host]:80", NoTarget::Malformed),
        ] {
            assert_eq!(Target::parse(text), Err(why), "{text}");
        }
        for bad in [&[0, 4, 1, 2, 3, 4, 0, 80][..], &[1, 5], &[2, 4], &[3, 0], &[3, 254]] {
            assert_eq!(Target::read(bad), Err(NoTarget::Malformed), "{bad:?}");
        }
        assert_eq!(Target::read(b"\x04\x01x\0\x50"), Err(NoTarget::Port));
    }

    proptest! {
        /// Whatever comes is a target that is written and read the same, or none.
        #[test]
        fn any_bytes_are_a_target_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Some((target, len))) = Target::read(&bytes) {
                prop_assert!(len <= TARGET_BYTES_MAX);
                let again = written(&target);
                prop_assert_eq!(Target::read(&again), Ok(Some((target, again.len()))));
            }
        }
    }
}
