//! When a session needs new keys, and how both ends come to the next epoch's secret: a fresh
//! X25519 exchange, chained to the secret before.
//!
//! The initiator of the session offers, one offer at a time; the responder answers and has the next
//! secret; the initiator has it with the answer. Each carrier changes over by itself, at the next
//! thing it sends. Who learns the secret of an epoch later cannot compute an earlier one, and not
//! the next one either without having been in the exchange.

use ringway_core::Span;

use crate::aead::Forged;
use crate::entropy::Entropy;
use crate::keys::{PrivateKey, PublicKey};
use crate::schedule::EpochSecret;

/// New keys are wanted at this age. Twice of it is the oldest that a busy session's keys get.
pub const REKEY_AFTER: Span = Span::from_s(60);
/// New keys are wanted after so many bytes under one key.
const BYTES_PER_KEY: u64 = 1 << 36;
/// New keys are wanted after so many packets under one key.
const PACKETS_PER_KEY: u64 = 1 << 26;
/// No key seals more packets than this, whether there is a new one or not.
pub(crate) const RECORDS_PER_KEY_MAX: u64 = 2 * PACKETS_PER_KEY;

/// What was done with one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Packets or records.
    pub packets: u64,
    /// Bytes of their texts.
    pub bytes: u64,
}

impl Spent {
    /// Whether a key that did this and is `age` old should be replaced.
    pub fn wants_rekey(&self, age: Span) -> bool {
        age >= REKEY_AFTER || self.packets >= PACKETS_PER_KEY || self.bytes >= BYTES_PER_KEY
    }
}

/// The initiator's offer, while its answer is on the way.
pub struct RekeyOffer {
    mine: PrivateKey,
}

impl RekeyOffer {
    /// A new offer, and the half of it that is sent.
    pub fn new(entropy: &mut Entropy) -> (RekeyOffer, [u8; 32]) {
        let mine = PrivateKey::new(entropy.secret());
        let public = *mine.public().as_bytes();
        (RekeyOffer { mine }, public)
    }

    /// The next epoch's secret, from the answer.
    ///
    /// # Errors
    /// [`Forged`] if the answer is a point that gives everybody the same secret.
    pub fn finish(self, secret: &EpochSecret, answer: &[u8; 32]) -> Result<EpochSecret, Forged> {
        let shared = self.mine.agree(&PublicKey::new(*answer))?;
        Ok(secret.next(&shared, [self.mine.public().as_bytes(), answer]))
    }
}

/// The responder's side: the next epoch's secret, and what is sent back.
///
/// # Errors
/// [`Forged`] if the offer is a point that gives everybody the same secret.
pub fn answer_rekey(
    secret: &EpochSecret,
    offer: &[u8; 32],
    entropy: &mut Entropy,
) -> Result<(EpochSecret, [u8; 32]), Forged> {
    let mine = PrivateKey::new(entropy.secret());
    let answer = *mine.public().as_bytes();
    let shared = mine.agree(&PublicKey::new(*offer))?;
    Ok((secret.next(&shared, [offer, &answer]), answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn epoch(byte: u8) -> EpochSecret {
        let split = [Secret::new([byte; 32]), Secret::new([byte; 32])];
        EpochSecret::first(&split, b"a transcript")
    }

    #[test]
    fn both_ends_come_to_the_same_epoch_and_strangers_do_not() {
        let mut entropy = Entropy::from_seed(Secret::new([1; 32]));
        let (offer, public) = RekeyOffer::new(&mut entropy);
        let (theirs, answer) = answer_rekey(&epoch(1), &public, &mut entropy).expect("a point");
        assert!(offer.finish(&epoch(1), &answer).is_ok_and(|ours| ours == theirs));
        // Somebody who was in the exchange but had another secret before gets another one.
        let (offer, public) = RekeyOffer::new(&mut entropy);
        let (theirs, answer) = answer_rekey(&epoch(1), &public, &mut entropy).expect("a point");
        assert!(offer.finish(&epoch(2), &answer).is_ok_and(|ours| ours != theirs));
        assert!(answer_rekey(&epoch(1), &[0; 32], &mut entropy).is_err());
    }

    #[test]
    fn age_bytes_and_packets_each_want_new_keys() {
        let little = Spent { packets: 1, bytes: 1 };
        assert!(!little.wants_rekey(Span::from_s(59)));
        assert!(little.wants_rekey(Span::from_s(60)));
        assert!(Spent { packets: 1 << 26, bytes: 0 }.wants_rekey(Span::from_s(0)));
        assert!(Spent { packets: 1, bytes: 1 << 36 }.wants_rekey(Span::from_s(0)));
    }
}
