//! The secrets of a session over time: one exchange a minute, and each carrier changes over by
//! itself.
//!
//! ```text
//! initiator                                   responder
//!   OFFER e+1 (until answered)  ----------->    has e+1, still sends under e
//!   has e+1  <-----------  ANSWER e+1 (the same to the same offer)
//!   KEYS e+1, the last frame of a record; the next one of this carrier is under e+1
//!                                     ------>    sends under e+1, too: KEYS on each carrier
//! ```
//!
//! Invariants:
//! - E1  Nobody sends under an epoch that the other end cannot have: the responder waits for the
//!   first KEYS of the initiator, or for the first carrier that joins under the new epoch.
//! - E2  An epoch is offered once at a time and only by the initiator, so both ends agree on each.
//! - E3  The epoch before the present one is kept until the next exchange, for carriers that have
//!   not changed over; older ones are gone.
//!
//! Bounds: three secrets; constant time.

use alloc::boxed::Box;

use ringway_core::{Moment, Span};
use ringway_crypto::{Entropy, EpochSecret, RekeyOffer, Spent, answer_rekey};

use crate::sabotage::{Rule, Sabotage};
use crate::session::Role;
use crate::violation::Violation;

/// An offer that was not answered is made again after this: its carrier may be lost.
const OFFER_AGAIN: Span = Span::from_ms(1000);

/// What one side says to the other about the next epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The number of the epoch.
    pub epoch: u32,
    /// An X25519 public key.
    pub public: [u8; 32],
}

struct Offered {
    offer: RekeyOffer,
    exchange: Exchange,
    said_at: Option<Moment>,
}

/// See the module.
pub struct Epochs {
    role: Role,
    /// The epoch that is sent under, and when it became that.
    number: u32,
    secret: EpochSecret,
    since: Moment,
    before: Option<EpochSecret>,
    /// The responder's: the next one, and what answered for it.
    next: Option<(EpochSecret, Exchange)>,
    /// The answer is to be said.
    answer_due: bool,
    offered: Option<Box<Offered>>,
    pub(crate) sabotage: Sabotage,
}

impl Epochs {
    /// Begins with epoch 0, from the handshake.
    pub fn new(now: Moment, role: Role, secret: EpochSecret) -> Self {
        Self {
            role,
            number: 0,
            secret,
            since: now,
            before: None,
            next: None,
            answer_due: false,
            offered: None,
            sabotage: Sabotage::default(),
        }
    }

    /// The epoch to send under.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The secret of an epoch, if it is one that may still be in use.
    pub fn secret(&self, number: u32) -> Option<&EpochSecret> {
        if number == self.number {
            Some(&self.secret)
        } else if number.checked_add(1) == Some(self.number) {
            self.before.as_ref()
        } else {
            self.next.as_ref().filter(|(_, next)| next.epoch == number).map(|(secret, _)| secret)
        }
    }

    /// Offers the next epoch if a key is old or has done much. Only the initiator does.
    pub fn offer_if_due(&mut self, now: Moment, spent: Spent, entropy: &mut Entropy) {
        let wanted = self.role == Role::Initiator
            && self.offered.is_none()
            && spent.wants_rekey(now.since(self.since));
        if wanted {
            let (offer, public) = RekeyOffer::new(entropy);
            let exchange = Exchange { epoch: self.number + 1, public };
            self.offered = Some(Box::new(Offered { offer, exchange, said_at: None }));
        }
    }

    /// Whether [`Self::to_say`] has something.
    pub fn has_to_say(&self, now: Moment) -> bool {
        self.answer_due || self.offered.as_deref().is_some_and(|offered| self.is_due(now, offered))
    }

    fn is_due(&self, now: Moment, offered: &Offered) -> bool {
        let again = |at| now.since(at) >= OFFER_AGAIN;
        let again = |at| again(at) && !self.sabotage.breaks(Rule::OffersRepeated);
        offered.said_at.is_none_or(again)
    }

    /// What is to be said now: an offer, or an answer.
    pub fn to_say(&mut self, now: Moment) -> Option<Exchange> {
        if core::mem::take(&mut self.answer_due) {
            return self.next.as_ref().map(|(_, exchange)| *exchange);
        }
        if !self.offered.as_deref().is_some_and(|offered| self.is_due(now, offered)) {
            return None;
        }
        let offered = self.offered.as_mut()?;
        offered.said_at = Some(now);
        Some(offered.exchange)
    }

    /// When [`Self::to_say`] will have something.
    pub fn wake_at(&self) -> Option<Moment> {
        self.offered.as_ref().and_then(|offered| offered.said_at).map(|at| at + OFFER_AGAIN)
    }

    /// The other side offers or answers.
    ///
    /// # Errors
    /// [`Violation::Rekey`] for what cannot be: an answer to nothing, an offer by who may not.
    pub fn heard(
        &mut self,
        now: Moment,
        exchange: Exchange,
        entropy: &mut Entropy,
    ) -> Result<(), Violation> {
        match self.role {
            Role::Responder => self.heard_offer(exchange, entropy),
            Role::Initiator => self.heard_answer(now, exchange),
        }
    }

    fn heard_offer(&mut self, offer: Exchange, entropy: &mut Entropy) -> Result<(), Violation> {
        // Late, or said again: it was answered, and what it led to is in use or will be.
        if offer.epoch <= self.number {
            return Ok(());
        }
        if offer.epoch != self.number + 1 {
            return Err(Violation::Rekey);
        }
        if self.next.is_none() {
            let answered = answer_rekey(&self.secret, &offer.public, entropy);
            let (secret, public) = answered.map_err(|_| Violation::Rekey)?;
            self.next = Some((secret, Exchange { epoch: offer.epoch, public }));
        }
        self.answer_due = true;
        Ok(())
    }

    fn heard_answer(&mut self, now: Moment, answer: Exchange) -> Result<(), Violation> {
        if answer.epoch <= self.number {
            return Ok(());
        }
        let offered = self.offered.take().filter(|mine| mine.exchange.epoch == answer.epoch);
        let offered = offered.ok_or(Violation::Rekey)?;
        let next = offered.offer.finish(&self.secret, &answer.public);
        self.enter(now, next.map_err(|_| Violation::Rekey)?);
        Ok(())
    }

    /// The other side sends under epoch `number` on some carrier from now on: it said so, or joined
    /// by it. Returns the epoch's secret.
    ///
    /// # Errors
    /// [`Violation::Rekey`] for an epoch that is not known.
    pub fn changed_over(&mut self, now: Moment, number: u32) -> Result<&EpochSecret, Violation> {
        if number == self.number + 1
            && let Some((secret, _)) = self.next.take()
        {
            self.enter(now, secret);
        }
        self.secret(number).ok_or(Violation::Rekey)
    }

    fn enter(&mut self, now: Moment, secret: EpochSecret) {
        let before = core::mem::replace(&mut self.secret, secret);
        self.before = Some(before).filter(|_| !self.sabotage.breaks(Rule::FormerKept));
        self.number += 1;
        self.since = now;
        self.next = None;
        self.answer_due = false;
    }
}

#[cfg(test)]
mod tests {
    use ringway_crypto::Secret;

    use super::*;

    const START: Moment = Moment(1_000_000_000);
    const LONG: Span = Span::from_s(61);

    fn entropy(byte: u8) -> Entropy {
        Entropy::from_seed(Secret::new([byte; 32]))
    }

    /// Both ends, with the secret of one handshake.
    fn pair() -> (Epochs, Epochs) {
        let secret = crate::testing::epoch_secret();
        let initiator = Epochs::new(START, Role::Initiator, secret.clone());
        (initiator, Epochs::new(START, Role::Responder, secret))
    }

    #[test]
    fn an_exchange_from_offer_to_change() {
        let (mut near, mut far) = pair();
        near.offer_if_due(START + Span::from_s(59), Spent::default(), &mut entropy(1));
        assert_eq!(near.to_say(START), None, "it is not old enough");
        let now = START + LONG;
        far.offer_if_due(now, Spent::default(), &mut entropy(1));
        assert_eq!(far.to_say(now), None, "only the initiator offers");
        near.offer_if_due(now, Spent::default(), &mut entropy(1));
        let offer = near.to_say(now).expect("an offer");
        assert_eq!(far.heard(now, offer, &mut entropy(2)), Ok(()));
        let answer = far.to_say(now).expect("an answer");
        assert_eq!(far.number(), 0, "E1: it waits");
        assert_eq!(near.heard(now, answer, &mut entropy(3)), Ok(()));
        assert_eq!(near.number(), 1);
        assert!(far.changed_over(now, 1).is_ok_and(|secret| *secret == near.secret));
        assert_eq!(far.number(), 1);
        assert!(far.secret(0).expect("E3") == near.secret(0).expect("E3"));
        assert!(near.secret(2).is_none());
    }

    /// An offer whose answer was lost is made again, and gets the same answer; both said twice are
    /// as good as said once.
    #[test]
    fn what_is_lost_is_said_again_and_means_the_same() {
        let (mut near, mut far) = pair();
        let now = START + LONG;
        near.offer_if_due(now, Spent::default(), &mut entropy(1));
        let offer = near.to_say(now).expect("an offer");
        assert_eq!(near.to_say(now + Span::from_ms(999)), None);
        assert_eq!(near.wake_at(), Some(now + Span::from_s(1)));
        assert_eq!(near.to_say(now + Span::from_s(1)), Some(offer));
        far.heard(now, offer, &mut entropy(2)).expect("it is good");
        let answer = far.to_say(now).expect("an answer");
        far.heard(now, offer, &mut entropy(9)).expect("it is good");
        assert_eq!(far.to_say(now), Some(answer));
        near.heard(now, answer, &mut entropy(3)).expect("it is good");
        near.heard(now, answer, &mut entropy(3)).expect("it is good");
        far.changed_over(now, 1).expect("it has it");
        far.heard(now, offer, &mut entropy(2)).expect("late");
        assert_eq!((far.to_say(now), far.number(), near.number()), (None, 1, 1));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let (mut near, mut far) = pair();
        let exchange = |epoch| Exchange { epoch, public: [9; 32] };
        assert_eq!(near.heard(START, exchange(1), &mut entropy(1)), Err(Violation::Rekey));
        assert_eq!(far.heard(START, exchange(2), &mut entropy(1)), Err(Violation::Rekey));
        let zero = Exchange { epoch: 1, public: [0; 32] };
        assert_eq!(far.heard(START, zero, &mut entropy(1)), Err(Violation::Rekey));
        assert!(far.changed_over(START, 1).is_err());
    }
}
