//! A carrier of packets as bytes: keys in both directions, over the epochs of its session.
//!
//! It has no first message. Both ends derive its keys from the secret of an epoch, its number and
//! the direction, so whoever opens a packet of it has shown that its sender has that secret. The
//! lowest bit of the epoch's number is the phase that headers show.
//!
//! ```text
//! sends under e | e+1 as soon as it is the present epoch of this end
//! takes e-1, e  | and e+1, once it was offered: its first packet is the sender's KEYS
//! ```
//!
//! What always holds:
//! - L1  A carrier's number is used once in a session, and its packets are numbered over all
//!   epochs: no key meets a number twice. Numbers of other carriers are never among those of these
//!   ([`PACKETS_FROM`]).
//! - L2  What does not verify changes nothing, and what follows from it is a count.
//! - L3  Nobody sends under an epoch that the other end cannot have (`epochs.rs`, E1).
//!
//! Bounds: 8 KiB for numbers that came; constant work a packet.
//! Not here: what packets say (`session/packets.rs`), where they go (`agent/packets.rs`).

use ringway_core::Moment;
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
/// is dropped.
const NUMBERS: u32 = 1 << 16;
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
    /// The highest number that has come.
    newest: Option<u64>,
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
        let mut link = Self { place, sealer, opener, sends: number, takes: number, newest: None };
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
        self.takes = present;
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
        let next = self.takes + 1;
        let other = header.flags & 1 != phase(self.takes);
        let opened = if other && let Some(secret) = epochs.secret(next) {
            // A minute has passed since the change before: nothing of then is on its way.
            self.opener.forget_old_keys();
            let keys = self.place.keys(secret, self.place.out.reversed());
            let opened = self.opener.open_next((&keys, self.place.backend), header, datagram)?;
            self.takes = next;
            epochs.changed_over(now, next).expect("it was there");
            opened
        } else {
            self.opener.open(header, datagram)?
        };
        let newer = self.newest.is_none_or(|newest| opened.number > newest);
        self.newest = self.newest.max(Some(opened.number));
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
