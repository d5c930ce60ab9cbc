//! SOCKS5 (RFC 1928), the near side's half: greeting, request, reply. CONNECT only, without
//! authentication: who may connect to the listener may use it.
//!
//! Names are not resolved here: they go to the far side as they are.
//!
//! Bounds: a conversation has at most 2 + 255 and 4 + 256 + 2 bytes before the reply.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::frame::ResetCode;
use crate::target::{NoTarget, Target};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// What the client is told. The numbers are the RFC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SocksReply {
    /// It is connected.
    Succeeded = 0,
    /// Something else went wrong.
    GeneralFailure = 1,
    /// The far side does not allow it.
    NotAllowed = 2,
    /// No way to the host's network.
    NetworkUnreachable = 3,
    /// The host cannot be reached, has no such name, or does not answer.
    HostUnreachable = 4,
    /// Nobody listens there.
    ConnectionRefused = 5,
    /// BIND and UDP ASSOCIATE are not there.
    CommandNotSupported = 7,
    /// An address of a kind that is not in the RFC, or a name that no host has.
    AddressNotSupported = 8,
}

impl From<ResetCode> for SocksReply {
    fn from(code: ResetCode) -> Self {
        match code {
            ResetCode::Denied => Self::NotAllowed,
            ResetCode::Unreachable | ResetCode::TimedOut | ResetCode::NoSuchName => {
                Self::HostUnreachable
            }
            ResetCode::Refused => Self::ConnectionRefused,
            ResetCode::Broken | ResetCode::Gone | ResetCode::Busy | ResetCode::Protocol => {
                Self::GeneralFailure
            }
        }
    }
}

/// What the bytes so far come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socks {
    /// More are needed.
    More,
    /// The greeting is whole: say this, forget so many bytes, and come again.
    Greeted {
        /// Bytes to send.
        say: [u8; 2],
        /// Bytes of the greeting.
        taken: usize,
    },
    /// A request for a target: answer by [`reply`]; what follows these bytes is the client's data.
    Connect {
        /// Where to.
        target: Target,
        /// Bytes of the request.
        taken: usize,
    },
    /// Say this, if anything, and close.
    Refuse {
        /// Bytes to send.
        say: Vec<u8>,
    },
}

/// Reads a greeting.
pub fn greeting(bytes: &[u8]) -> Socks {
    let Some((version, rest)) = bytes.split_first() else { return Socks::More };
    if *version != VERSION {
        // Nothing that it would understand; SOCKS4 and HTTP are other protocols.
        return Socks::Refuse { say: Vec::new() };
    }
    let Some((count, rest)) = rest.split_first() else { return Socks::More };
    let Some(methods) = rest.get(..usize::from(*count)) else { return Socks::More };
    if methods.contains(&NO_AUTHENTICATION) {
        return Socks::Greeted { say: [VERSION, NO_AUTHENTICATION], taken: 2 + methods.len() };
    }
    Socks::Refuse { say: [VERSION, NO_METHOD].to_vec() }
}

/// Reads a request.
pub fn request(bytes: &[u8]) -> Socks {
    let refuse = |why| Socks::Refuse { say: reply(why) };
    let [version, command, _, kind, rest @ ..] = bytes else { return Socks::More };
    if *version != VERSION {
        return refuse(SocksReply::GeneralFailure);
    }
    if *command != CONNECT {
        return refuse(SocksReply::CommandNotSupported);
    }
    let (len, before) = match *kind {
        IPV4 => (4, 0),
        IPV6 => (16, 0),
        NAME => match rest.first() {
            None => return Socks::More,
            Some(len) => (usize::from(*len), 1),
        },
        _ => return refuse(SocksReply::AddressNotSupported),
    };
    let Some(place) = rest.get(before..before + len) else { return Socks::More };
    let Some(port) = rest[before + len..].first_chunk() else { return Socks::More };
    let port = u16::from_be_bytes(*port);
    match target(place, *kind, port) {
        Ok(target) => Socks::Connect { target, taken: 4 + before + len + 2 },
        Err(NoTarget::Port) => refuse(SocksReply::ConnectionRefused),
        Err(NoTarget::Name | NoTarget::Malformed) => refuse(SocksReply::AddressNotSupported),
    }
}

fn target(place: &[u8], kind: u8, port: u16) -> Result<Target, NoTarget> {
    if kind == NAME {
        return Target::host(place, port);
    }
    let four: Option<[u8; 4]> = place.try_into().ok();
    let sixteen: Option<[u8; 16]> = place.try_into().ok();
    let address = four
        .map(|octets| IpAddr::from(Ipv4Addr::from(octets)))
        .or(sixteen.map(|octets| IpAddr::from(Ipv6Addr::from(octets))));
    Target::address(address.ok_or(NoTarget::Malformed)?, port)
}

/// A reply. The address that the far side connected from is not told: nobody needs it.
pub fn reply(reply: SocksReply) -> Vec<u8> {
    [VERSION, reply as u8, 0, IPV4, 0, 0, 0, 0, 0, 0].to_vec()
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn connect(text: &str) -> Target {
        Target::parse(text).expect("a target")
    }

    #[test]
    fn a_conversation_byte_by_byte() {
        assert_eq!(greeting(&[5, 2, 1, 0]), Socks::Greeted { say: [5, 0], taken: 4 });
        let cases: [(&[u8], &str); 3] = [
            (&[5, 1, 0, 1, 10, 0, 0, 1, 0, 80], "10.0.0.1:80"),
            (b"\x05\x01\x00\x03\x02db\x15\x38", "db:5432"),
            (&[5, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 187], "[::1]:443"),
        ];
        for (bytes, text) in cases {
            let target = connect(text);
            assert_eq!(request(bytes), Socks::Connect { target, taken: bytes.len() });
            for cut in 0..bytes.len() {
                assert_eq!(request(&bytes[..cut]), Socks::More, "{text} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_not_there_is_refused_in_its_own_words() {
        assert_eq!(greeting(&[5, 1, 2]), Socks::Refuse { say: vec![5, 0xff] });
        assert_eq!(greeting(b"GET "), Socks::Refuse { say: vec![] });
        let says = |bytes: &[u8]| match request(bytes) {
            Socks::Refuse { say } => say[1],
            other => panic!("{other:?}"),
        };
        assert_eq!(says(&[5, 2, 0, 1]), 7, "BIND");
        assert_eq!(says(&[5, 1, 0, 2]), 8, "an address of no kind");
        assert_eq!(says(b"\x05\x01\x00\x03\x03a b\x00\x50"), 8, "no host's name");
        assert_eq!(says(&[5, 1, 0, 1, 10, 0, 0, 1, 0, 0]), 5, "port 0");
        assert_eq!(reply(SocksReply::NotAllowed), [5, 2, 0, 1, 0, 0, 0, 0, 0, 0]);
    }

    /// A true code for each way in which a connection fails.
    #[test]
    fn failures_keep_their_meaning() {
        let replies = ResetCode::ALL.map(|code| SocksReply::from(code) as u8);
        assert_eq!(replies, [1, 1, 2, 4, 5, 4, 4, 1, 1]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_conversation_or_not(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Socks::Greeted { taken, .. } = greeting(&bytes) {
                prop_assert!(taken <= bytes.len());
            }
            if let Socks::Connect { taken, .. } = request(&bytes) {
                prop_assert!(taken <= bytes.len());
            }
        }
    }
}
