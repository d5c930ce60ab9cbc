//! A carrier of packets as bytes: keys in both directions, over the epochs of its session.
//!
//! It has no first message. Both ends derive its keys from the secret of an epoch, its number and
//! the direction, so whoever opens a packet of it has shown that its sender has that secret. The
//! lowest bit of the epoch's number is the phase that headers show.
//!
//! ```text
//! sends under e | e+1 as soon as it is the present epoch of this end
//! takes e-1, e  | and e+1, once it was offered: its first packet is the sender's KEYS
//!       e-1 for 10 s from the first packet under e
//! ```
//!
//! What always holds:
//! - L1  A carrier's number is used once in a session, and its packets are numbered over all
//!   epochs: no key meets a number twice. Numbers of other carriers are never among those of these
//!   ([`PACKETS_FROM`]).
//! - L2  What does not verify changes nothing, and what follows from it is a count.
//! - L3  Nobody sends under an epoch that the other end cannot have (`epochs.rs`, E1).
//!
//! Bounds: 8 KiB for numbers that came, and up to 128 KiB where packets come so late that it takes
//! them; constant work a packet.
//! Not here: what packets say (`session/packets.rs`), where they go (`agent/packets.rs`).

use ringway_core::{Moment, Span};
use ringway_crypto::{
    Backend, CarrierId, DatagramHeader, DatagramOpener, DatagramSealer, Direction, Dropped,
    EpochSecret, HeaderKey, Opened, Spent, Suite, TrafficKeys,
};

use crate::epochs::Epochs;
use crate::limits::TRAIN_DATAGRAMS;

/// Carriers of packets have numbers from here on, all others below.
pub(crate) const PACKETS_FROM: CarrierId = 1 << 31;
/// Slots of a session: each is one carrier's, for good.
pub(crate) const SLOTS: u16 = 1 << 12;
/// Numbers that are remembered, so that none is taken twice: what comes later than so many others
/// is dropped. Where packets come half as late twice as many are, up to the most, which is a second
/// of a fast path.
const NUMBERS: u32 = 1 << 16;
const NUMBERS_MAX: u32 = 1 << 20;
/// Packets under the epoch before are taken for so long after the first under the present one.
const OLD_KEYS: Span = Span::from_s(10);
/// Flags that mean something.
const FLAGS: u8 = 1;

/// Which carrier of packets of a session, at this end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacketPlace {
    /// The session, as headers have it.
    pub(crate) session: u64,
    /// Its place among its kind.
    pub(crate) slot: u16,
    /// The direction in which this end sends.
    pub(crate) out: Direction,
    /// The session's cipher.
    pub(crate) suite: Suite,
    /// The library to use.
    pub(crate) backend: Backend,
}

impl PacketPlace {
    fn keys(&self, secret: &EpochSecret, direction: Direction) -> TrafficKeys {
        secret.traffic(self.suite, direction, PACKETS_FROM | CarrierId::from(self.slot))
    }
}

/// See the module.
pub(crate) struct PacketLink {
    place: PacketPlace,
    sealer: DatagramSealer,
    opener: DatagramOpener,
    /// The epoch that is sent under, and the newest that is taken.
    sends: u32,
    takes: u32,
    /// The first packet under the newest that is taken came then.
    changed_at: Option<Moment>,
    /// The highest number that has come, and how many are remembered.
    newest: Option<u64>,
    numbers: u32,
}

/// A packet that has opened.
pub(crate) struct Came<'a> {
    pub(crate) opened: Opened<'a>,
    /// It is newer than all that came before.
    pub(crate) newer: bool,
}

impl PacketLink {
    /// A carrier in a place that no other had, as of the present epoch and the one before.
    pub(crate) fn new(place: PacketPlace, header: HeaderKey, epochs: &Epochs) -> Self {
        let present = epochs.number();
        let before = present.checked_sub(1).filter(|number| epochs.secret(*number).is_some());
        let number = before.unwrap_or(present);
        let secret = epochs.secret(number).expect("it is there, or the present one is");
        let at = (place.session, place.slot);
        let (out, back) = (place.keys(secret, place.out), place.keys(secret, place.out.reversed()));
        let mut sealer = DatagramSealer::new(&out, place.backend, header, at);
        sealer.rekey(&out, place.backend, phase(number));
        let mut opener = DatagramOpener::new(&back, place.backend, NUMBERS);
        opener.rekey(&back, place.backend, phase(number));
        opener.forget_old_keys();
        let mut link = Self {
            place,
            sealer,
            opener,
            sends: number,
            takes: number,
            changed_at: None,
            newest: None,
            numbers: NUMBERS,
        };
        link.follow(epochs);
        link
    }

    /// Which of the session's.
    pub(crate) fn slot(&self) -> u16 {
        self.place.slot
    }

    /// Takes what is under the present epoch.
    fn follow(&mut self, epochs: &Epochs) {
        let present = epochs.number();
        if self.takes == present {
            return;
        }
        // Who was silent for some epochs has the one before the present one all the same.
        for number in present.saturating_sub(1).max(self.takes + 1)..=present {
            if let Some(secret) = epochs.secret(number) {
                let keys = self.place.keys(secret, self.place.out.reversed());
                self.opener.rekey(&keys, self.place.backend, phase(number));
            }
        }
        (self.takes, self.changed_at) = (present, None);
    }

    /// Opens a packet of this carrier, in place. The first one under an epoch that was offered
    /// makes that the present one.
    ///
    /// # Errors
    /// [`Dropped`] (L2).
    pub(crate) fn open<'a>(
        &mut self,
        now: Moment,
        header: DatagramHeader,
        datagram: &'a mut [u8],
        epochs: &mut Epochs,
    ) -> Result<Came<'a>, Dropped> {
        if header.flags & !FLAGS != 0 {
            return Err(Dropped::Forged);
        }
        self.follow(epochs);
        // Who sends under the present keys has left the others.
        if self.changed_at.is_some_and(|at| now.since(at) >= OLD_KEYS) {
            self.opener.forget_old_keys();
        }
        let next = self.takes + 1;
        let other = header.flags & 1 != phase(self.takes);
        let opened = if other && let Some(secret) = epochs.secret(next) {
            // A minute has passed since the change before: nothing of then is on its way.
            self.opener.forget_old_keys();
            let keys = self.place.keys(secret, self.place.out.reversed());
            let opened = self.opener.open_next((&keys, self.place.backend), header, datagram)?;
            (self.takes, self.changed_at) = (next, None);
            epochs.changed_over(now, next).expect("it was there");
            opened
        } else {
            self.opener.open(header, datagram)?
        };
        if header.flags & 1 == phase(self.takes) {
            self.changed_at.get_or_insert(now);
        }
        let newest = self.newest.unwrap_or(opened.number).max(opened.number);
        let newer = self.newest.is_none_or(|before| opened.number > before);
        self.newest = Some(newest);
        if newest - opened.number > u64::from(self.numbers / 2) && self.numbers < NUMBERS_MAX {
            self.numbers *= 2;
            self.opener.widen(self.numbers);
        }
        Ok(Came { opened, newer })
    }

    /// Sends under the present epoch from now on. Returns whether its key seals a whole train: if
    /// not, nobody has answered for new keys in all the time.
    pub(crate) fn is_ready(&mut self, epochs: &Epochs) -> bool {
        let present = epochs.number();
        if self.sends != present {
            let secret = epochs.secret(present).expect("the present one is there");
            let keys = self.place.keys(secret, self.place.out);
            self.sealer.rekey(&keys, self.place.backend, phase(present));
            self.sends = present;
        }
        self.sealer.left() >= TRAIN_DATAGRAMS as u64
    }

    /// Seals a datagram in place: room for a header, the text, room for a tag. Returns its number.
    ///
    /// # Panics
    /// Unless [`Self::is_ready`] has said so, since at most [`TRAIN_DATAGRAMS`] packets.
    pub(crate) fn seal(&mut self, datagram: &mut [u8]) -> u64 {
        self.sealer.seal(datagram).expect("the key is not at its end")
    }

    /// Headers are hidden under another key of the network from now on.
    pub(crate) fn hide_under(&mut self, header: HeaderKey) {
        self.sealer.hide_under(header);
    }

    /// What the present key has sealed.
    pub(crate) fn spent(&self) -> Spent {
        self.sealer.spent()
    }
}

/// The phase of an epoch's keys.
fn phase(epoch: u32) -> u8 {
    (epoch & 1) as u8
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use ringway_crypto::{DATAGRAM_HEADER_BYTES, TAG_BYTES};

    use super::*;
    use crate::session::Role;
    use crate::testing::{entropy, epoch_secret, network};

    const START: Moment = Moment(1_000_000_000);

    /// One end of a carrier of packets, with the keys of its session.
    struct End {
        link: PacketLink,
        epochs: Epochs,
        towards: HeaderKey,
    }

    impl End {
        fn new(role: Role) -> End {
            let (out, back) = match role {
                Role::Initiator => (Direction::ToResponder, Direction::ToInitiator),
                Role::Responder => (Direction::ToInitiator, Direction::ToResponder),
            };
            let (suite, backend) = (Suite::Aes128Gcm, Backend::AwsLc);
            let place = PacketPlace { session: 77, slot: 3, out, suite, backend };
            let epochs = Epochs::new(START, role, epoch_secret());
            let header = HeaderKey::new(&network(), out);
            let link = PacketLink::new(place, header, &epochs);
            End { link, epochs, towards: HeaderKey::new(&network(), back) }
        }

        fn seals(&mut self) -> Vec<u8> {
            assert!(self.link.is_ready(&self.epochs));
            let mut datagram = vec![0; DATAGRAM_HEADER_BYTES + 5 + TAG_BYTES];
            self.link.seal(&mut datagram);
            datagram
        }

        /// What becomes of a datagram that comes: its number.
        fn opens(&mut self, now: Moment, mut datagram: Vec<u8>) -> Result<u64, Dropped> {
            let header = self.towards.read(&datagram).expect("it is long enough");
            let came = self.link.open(now, header, &mut datagram, &mut self.epochs)?;
            Ok(came.opened.number)
        }
    }

    fn pair() -> (End, End) {
        (End::new(Role::Initiator), End::new(Role::Responder))
    }

    /// New keys are agreed on; nobody has used them.
    fn agree(now: Moment, near: &mut Epochs, far: &mut Epochs) {
        near.offer_if_due(now, Spent::default(), &mut entropy(1));
        let offer = near.to_say(now).expect("they are old");
        far.heard(now, offer, &mut entropy(2)).expect("it is good");
        let answer = far.to_say(now).expect("it was asked");
        near.heard(now, answer, &mut entropy(3)).expect("it is good");
    }

    /// Packets that were on their way while keys changed open, but not for long; and the other end
    /// is given all the time it needs until it has changed over, too.
    #[test]
    fn old_keys_are_forgotten_after_ten_seconds() {
        let (mut near, mut far) = pair();
        let late: Vec<_> = (0..2).map(|_| near.seals()).collect();
        let slow = far.seals();
        let now = START + Span::from_s(61);
        agree(now, &mut near.epochs, &mut far.epochs);
        let first = near.seals();
        assert_eq!(far.opens(now, first), Ok(2));
        let [one, other] = <[Vec<u8>; 2]>::try_from(late).expect("two");
        assert_eq!(far.opens(now + Span::from_ms(9999), one), Ok(0));
        assert_eq!(far.opens(now + OLD_KEYS, other), Err(Dropped::Forged));
        // Nothing has come from the far side under the new ones.
        assert_eq!(near.opens(now + Span::from_s(50), slow), Ok(0));
    }

    /// Where packets come ever later ever more numbers are remembered; none is taken twice.
    #[test]
    fn who_comes_late_is_waited_for_longer() {
        let (mut near, mut far) = pair();
        let mut kept = Vec::new();
        for number in 0..300_000_u64 {
            let datagram = near.seals();
            if [0, 20_000, 60_000, 100_000].contains(&number) {
                kept.push(datagram);
            } else if number % 1000 == 999 {
                assert_eq!(far.opens(START, datagram), Ok(number));
            }
            let due = [40_000, 70_000, 150_000, 290_000].iter().position(|at| *at == number);
            if let Some(at) = due {
                let numbers = [0, 20_000, 60_000, 100_000];
                assert_eq!(far.opens(START, kept[at].clone()), Ok(numbers[at]), "at {number}");
                assert!(matches!(far.opens(START, kept[at].clone()), Err(Dropped::Replayed(_))));
            }
        }
        assert_eq!(far.link.numbers, 1 << 19);
    }
}
