//! From the secret of an epoch to the keys of a carrier: HKDF-SHA256 (RFC 5869) with a label and a
//! context for each purpose.
//!
//! What always holds:
//! - S1  No two purposes, directions or carriers of an epoch have a key in common: each is expanded
//!   from its own label and context, and labels end with a zero byte that no label contains.
//! - S2  An epoch's secret does not lead to an earlier one; with fresh Diffie-Hellman values the
//!   next one does not follow from it either.

use hkdf::Hkdf;
use sha2::Sha256;

use crate::aead::{Aead, Backend, Nonce};
use crate::secret::Secret;
use crate::suite::Suite;

/// A carrier within a session. Never used twice: it is what makes its keys its own.
pub type CarrierId = u32;

/// A session, chosen by chance by whoever receives under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Which way bytes go. The initiator is who began the session, whatever carrier they use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the initiator of the session.
    ToResponder,
    /// From its responder.
    ToInitiator,
}

impl Direction {
    /// The other way.
    pub const fn reversed(self) -> Self {
        match self {
            Self::ToResponder => Self::ToInitiator,
            Self::ToInitiator => Self::ToResponder,
        }
    }

    pub(crate) const fn to_wire(self) -> u8 {
        match self {
            Self::ToResponder => 1,
            Self::ToInitiator => 2,
        }
    }
}

/// What all keys of a session follow from, until the next rekeying.
#[derive(Clone, PartialEq, Eq)]
pub struct EpochSecret(Secret);

/// The keys of one carrier in one direction. They are made, used to build a sealer or an opener,
/// and dropped.
pub struct TrafficKeys {
    pub(crate) suite: Suite,
    key: Secret,
    /// The initialisation vector, then the header's key, then nothing.
    rest: Secret,
}

impl TrafficKeys {
    pub(crate) fn aead(&self, backend: Backend) -> Box<dyn Aead> {
        backend.key(self.suite, self.key.expose())
    }

    pub(crate) fn iv(&self) -> Nonce {
        self.rest.expose()[..12].try_into().expect("12 of 32 bytes")
    }

    pub(crate) fn header_key(&self) -> &[u8; 16] {
        self.rest.expose()[12..28].try_into().expect("16 of 32 bytes")
    }
}

impl EpochSecret {
    /// The first one of a session, from the split of its handshake and the hash of all that was
    /// said in it.
    pub(crate) fn first(split: &[Secret; 2], transcript: &[u8]) -> Self {
        let mut input = zeroize::Zeroizing::new([0; 64]);
        input[..32].copy_from_slice(split[0].expose());
        input[32..].copy_from_slice(split[1].expose());
        let hkdf = Hkdf::<Sha256>::new(Some(transcript), &*input);
        Self(expand(&hkdf, "epoch", &[]))
    }

    /// The next one: chained to this one, fresh by what a new exchange gave, and bound to what was
    /// exchanged.
    pub(crate) fn next(&self, shared: &Secret, offers: [&[u8; 32]; 2]) -> Self {
        let hkdf = Hkdf::<Sha256>::new(Some(self.0.expose()), shared.expose());
        let mut context = [0; 64];
        context[..32].copy_from_slice(offers[0]);
        context[32..].copy_from_slice(offers[1]);
        Self(expand(&hkdf, "next epoch", &context))
    }

    /// The keys of `carrier` in one direction.
    pub fn traffic(&self, suite: Suite, direction: Direction, carrier: CarrierId) -> TrafficKeys {
        let mut context = [0; 6];
        context[0] = suite as u8;
        context[1] = direction.to_wire();
        context[2..].copy_from_slice(&carrier.to_le_bytes());
        let hkdf = self.hkdf();
        TrafficKeys {
            suite,
            key: expand(&hkdf, "key", &context),
            rest: expand(&hkdf, "iv and header key", &context),
        }
    }

    /// What a carrier that joins proves to know.
    pub(crate) fn join_key(&self) -> Secret {
        expand(&self.hkdf(), "join", &[])
    }

    /// What both ends of a session know and nobody between them, for as long as it lives: of its
    /// first epoch. Who shows it in another handshake has the session that it is of.
    pub fn token(&self, session: SessionId) -> Secret {
        expand(&self.hkdf(), "token", &session.0.to_le_bytes())
    }

    fn hkdf(&self) -> Hkdf<Sha256> {
        Hkdf::from_prk(self.0.expose()).expect("32 bytes are what the hash gives")
    }
}

/// 32 bytes for one purpose. The context follows the label's zero byte, so no pair of label and
/// context reads as another.
pub(crate) fn expand(hkdf: &Hkdf<Sha256>, label: &str, context: &[u8]) -> Secret {
    Secret::filled(|out| {
        let info: [&[u8]; 4] = [b"ringway 1 ", label.as_bytes(), &[0], context];
        hkdf.expand_multi_info(&info, out).expect("32 bytes are few");
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S1: all keys of all carriers, directions and suites differ, in every part.
    #[test]
    fn no_two_purposes_share_a_key() {
        let epoch = EpochSecret(Secret::new([1; 32]));
        let mut seen = std::collections::BTreeSet::new();
        for carrier in [0, 1, 256, u32::MAX] {
            for direction in [Direction::ToResponder, Direction::ToInitiator] {
                for suite in Suite::ALL {
                    let keys = epoch.traffic(suite, direction, carrier);
                    assert!(seen.insert(keys.key.expose()[..16].to_vec()));
                    assert!(seen.insert(keys.iv().to_vec()));
                    assert!(seen.insert(keys.header_key().to_vec()));
                }
            }
        }
        assert!(seen.insert(epoch.join_key().expose()[..16].to_vec()));
        for session in [0, 1, 1 << 40] {
            assert!(seen.insert(epoch.token(SessionId(session)).expose()[..16].to_vec()));
        }
    }

    /// S2: the next epoch depends on the old one, on the new exchange and on what was offered.
    #[test]
    fn the_next_epoch_depends_on_everything() {
        let epoch = |byte: u8| EpochSecret(Secret::new([byte; 32]));
        let next = |old: u8, shared: u8, offer: u8, answer: u8| {
            epoch(old).next(&Secret::new([shared; 32]), [&[offer; 32], &[answer; 32]])
        };
        let one = next(1, 2, 3, 4);
        assert!(one == next(1, 2, 3, 4));
        for other in [next(9, 2, 3, 4), next(1, 9, 3, 4), next(1, 2, 9, 4), next(1, 2, 3, 9)] {
            assert!(one != other);
        }
        assert!(next(1, 2, 3, 4) != next(1, 2, 4, 3));
    }
}
