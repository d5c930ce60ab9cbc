//! What hides a handshake: a salt, a mask over all that follows, and a first MAC.
//!
//! The first bytes of a carrier are `salt 32 | head 24 | mac 16`, then a body whose length the head
//! says. Head and body are masked by a key stream that follows from the network key and the salt,
//! so that all of it looks like chance; the MAC lets whoever does not know the network key be
//! dropped after 72 bytes, before anything is kept or computed with curves.
//!
//! The mask hides and the MAC filters, no more: whoever holds the network key can read heads and
//! begin handshakes. Who is there is the Noise message's matter, in the body.
//!
//! Bounds: 72 bytes are read before the MAC; a body has [`crate::BODY_BYTES_MIN`] to
//! [`crate::BODY_BYTES_MAX`].

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use ringway_core::wire::{Reader, Truncated};
use sha2::Sha256;

use crate::keys::NetworkKey;
use crate::schedule::{Direction, expand};
use crate::secret::Secret;
use crate::suite::SuiteSet;

/// The version of all this. A peer of another one looks like a stranger.
pub(crate) const VERSION: u8 = 1;

const SALT_BYTES: usize = 32;
const HEAD_BYTES: usize = 24;
const MAC_BYTES: usize = 16;
/// Bytes of salt, head and MAC: what is read before anything is known.
pub const FIRST_BYTES: usize = SALT_BYTES + HEAD_BYTES + MAC_BYTES;

/// Chosen by chance for each message; a responder takes each once.
pub type Salt = [u8; SALT_BYTES];

/// Which key of the receiver a message is for: the beginning of a hash of an identity or of a
/// pre-shared key, or the session that a carrier joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u64);

/// What follows in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Noise IKpsk2: both ends have key pairs.
    Keys = 1,
    /// Noise NNpsk0: both ends have one secret of theirs alone.
    Shared = 2,
    /// A further carrier of a session that both know.
    Join = 3,
}

/// What a carrier runs on. Bound into the handshake, and whoever listens on one refuses the others:
/// so what was said on one cannot be moved to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CarrierKind {
    /// A TCP connection.
    Tcp = 1,
    /// HTTP requests and responses: kept, there is none.
    Http = 2,
    /// UDP datagrams with a first message of their own: kept, there is none.
    Udp = 3,
    /// A carrier that others pass on: kept, there is none.
    Relay = 4,
}

impl CarrierKind {
    /// The kind with this number.
    pub(crate) fn from_wire(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Http, Self::Udp, Self::Relay].into_iter().find(|k| *k as u8 == number)
    }
}

/// What is known of a message before its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What follows.
    pub mode: Mode,
    /// What it runs on.
    pub kind: CarrierKind,
    /// What the initiator offers; in a reply, the same again.
    pub suites: SuiteSet,
    /// Which key it is for.
    pub key_id: KeyId,
    /// The sender's clock, in milliseconds since 1970.
    pub sent_ms: u64,
    /// Bytes that follow.
    pub body_len: u16,
}

impl Head {
    pub(crate) fn to_wire(self) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[0] = VERSION;
        out[1] = self.mode as u8;
        out[2] = self.kind as u8;
        out[3] = self.suites.to_wire();
        out[4..12].copy_from_slice(&self.key_id.0.to_le_bytes());
        out[12..20].copy_from_slice(&self.sent_ms.to_le_bytes());
        out[20..22].copy_from_slice(&self.body_len.to_le_bytes());
        out
    }

    /// `None` for another version, unknown numbers, and reserved bytes that are in use.
    fn from_wire(bytes: &[u8; HEAD_BYTES]) -> Option<Head> {
        let mut reader = Reader::new(bytes);
        let mut fields = || -> Result<_, Truncated> {
            let numbers = reader.array::<4>()?;
            let (key_id, sent_ms) = (reader.u64()?, reader.u64()?);
            Ok((numbers, key_id, sent_ms, reader.u16()?, reader.u16()?))
        };
        let ([version, mode, kind, suites], key_id, sent_ms, body_len, reserved) = fields().ok()?;
        let mode = [Mode::Keys, Mode::Shared, Mode::Join].into_iter().find(|m| *m as u8 == mode)?;
        let kind = CarrierKind::from_wire(kind)?;
        (version == VERSION && reserved == 0).then_some(Head {
            mode,
            kind,
            suites: SuiteSet::from_wire(suites),
            key_id: KeyId(key_id),
            sent_ms,
            body_len,
        })
    }
}

/// What masks a body, standing behind its head.
pub(crate) struct Mask(ChaCha20);

impl Mask {
    /// Masks or unmasks what follows.
    pub(crate) fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply_keystream(bytes);
    }
}

/// The mask and the MAC's key of one message. `answered` is the salt of the message that this one
/// answers, or zeros.
fn keys(
    network: &NetworkKey,
    direction: Direction,
    salt: &Salt,
    answered: &Salt,
) -> (Mask, Hmac<Sha256>) {
    let hkdf = Hkdf::<Sha256>::new(Some(salt), network.secret().expose());
    let mut context = [0; 1 + SALT_BYTES];
    context[0] = direction.to_wire();
    context[1..].copy_from_slice(answered);
    let mask: Secret = expand(&hkdf, "mask", &context);
    let mac: Secret = expand(&hkdf, "first mac", &context);
    let mac = Hmac::new_from_slice(mac.expose()).expect("any length is a key");
    // The key is used for one message, so its nonce need not differ.
    (Mask(ChaCha20::new(mask.expose().into(), &[0; 12].into())), mac)
}

/// Appends salt, masked head and MAC to `out`; the mask is for the body.
pub(crate) fn write_first(
    network: &NetworkKey,
    direction: Direction,
    (salt, answered): (&Salt, &Salt),
    head: Head,
    out: &mut Vec<u8>,
) -> Mask {
    let (mut mask, mac) = keys(network, direction, salt, answered);
    let mut bytes = head.to_wire();
    mask.apply(&mut bytes);
    out.extend_from_slice(salt);
    out.extend_from_slice(&bytes);
    let mac = mac.chain_update(salt).chain_update(bytes).finalize().into_bytes();
    out.extend_from_slice(&mac[..MAC_BYTES]);
    mask
}

/// Reads what [`write_first`] wrote; `None` for anything else.
pub(crate) fn read_first(
    network: &NetworkKey,
    direction: Direction,
    answered: &Salt,
    first: &[u8; FIRST_BYTES],
) -> Option<(Salt, Head, Mask)> {
    let mut reader = Reader::new(first);
    let salt: Salt = reader.array().ok()?;
    let mut bytes: [u8; HEAD_BYTES] = reader.array().ok()?;
    let (mut mask, mac) = keys(network, direction, &salt, answered);
    mac.chain_update(salt).chain_update(bytes).verify_truncated_left(reader.rest()).ok()?;
    mask.apply(&mut bytes);
    Some((salt, Head::from_wire(&bytes)?, mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head {
        mode: Mode::Keys,
        kind: CarrierKind::Tcp,
        suites: SuiteSet::ALL,
        key_id: KeyId(5),
        sent_ms: 1_000_000,
        body_len: 300,
    };

    fn network(byte: u8) -> NetworkKey {
        NetworkKey::new(Secret::new([byte; 32]))
    }

    fn written(salt: Salt) -> [u8; FIRST_BYTES] {
        let mut out = Vec::new();
        write_first(&network(1), Direction::ToResponder, (&salt, &[0; 32]), HEAD, &mut out);
        out.try_into().expect("salt, head and MAC")
    }

    #[test]
    fn only_the_network_key_and_the_direction_read_it() {
        let read = |key, direction, answered: u8, first: &[u8; FIRST_BYTES]| {
            read_first(&network(key), direction, &[answered; 32], first).map(|(_, head, _)| head)
        };
        let mut first = written([7; 32]);
        assert_eq!(read(1, Direction::ToResponder, 0, &first), Some(HEAD));
        assert_eq!(read(2, Direction::ToResponder, 0, &first), None);
        assert_eq!(read(1, Direction::ToInitiator, 0, &first), None);
        assert_eq!(read(1, Direction::ToResponder, 1, &first), None);
        for at in 0..FIRST_BYTES {
            first[at] ^= 0x20;
            assert_eq!(read(1, Direction::ToResponder, 0, &first), None, "byte {at}");
            first[at] ^= 0x20;
        }
    }

    /// Two messages with the same head have no byte of it in common but by chance.
    #[test]
    fn another_salt_masks_otherwise() {
        let (one, two) = (written([7; 32]), written([8; 32]));
        let same = one[32..].iter().zip(&two[32..]).filter(|(a, b)| a == b).count();
        assert!(same <= 3, "{same} of 40 bytes are the same");
    }

    #[test]
    fn heads_of_others_are_refused() {
        let good = HEAD.to_wire();
        assert_eq!(Head::from_wire(&good), Some(HEAD));
        for (at, byte) in [(0, 2), (1, 0), (1, 4), (2, 0), (2, 5), (22, 1), (23, 1)] {
            let mut bad = good;
            bad[at] = byte;
            assert_eq!(Head::from_wire(&bad), None, "byte {at} = {byte}");
        }
    }
}
