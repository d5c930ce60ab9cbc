//! Sealed packets that may be lost, doubled and reordered: a carrier over UDP.
//!
//! A datagram is `header 16 | text | tag 16`. The header is one AES block, under a key of the
//! network and the direction, of {receiver's session 48 bits, carrier slot 12, flags 4, packet
//! number 64}; its plaintext is what the tag binds the text to. Whoever holds the network key can
//! read and forge headers, and so link packets to sessions; a forged one fails at its tag, is
//! counted, and moves nothing.
//!
//! What always holds:
//! - D1  Numbers count up from 0 and never start again, also under new keys; a number is a nonce.
//! - D2  A packet opens at most once: its number is looked up before the tag is computed, and noted
//!   only after the tag verified.
//! - D3  A bit of the header, the *phase*, tells under which of two keys a packet is, so that those
//!   that were on their way at a change still open, until [`DatagramOpener::forget_old_keys`].

use aes::Aes128;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use hkdf::Hkdf;

use crate::aead::{Aead, Backend, Forged, Nonce, TAG_BYTES};
use crate::keys::NetworkKey;
use crate::record::{KeySpent, nonce};
use crate::rekey::{RECORDS_PER_KEY_MAX, Spent};
use crate::replay::{PacketWindow, Seen};
use crate::schedule::{Direction, TrafficKeys, expand};

/// Bytes before the text of a datagram.
pub const DATAGRAM_HEADER_BYTES: usize = HEADER_BYTES;
const HEADER_BYTES: usize = 16;
/// Bytes that a datagram adds to its text.
pub const DATAGRAM_OVERHEAD: usize = HEADER_BYTES + TAG_BYTES;
/// Sessions of a receiver have numbers below this.
const SESSIONS: u64 = 1 << 48;
/// Carriers of a session have slots below this.
const SLOTS: u16 = 1 << 12;

/// What the header of a datagram says. True only once its text has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramHeader {
    /// The session, as its receiver numbers it: below 2^48.
    pub session: u64,
    /// Which carrier of the session: below 4096.
    pub slot: u16,
    /// Four bits; the lowest is the phase of the key, the others are zero for now.
    pub flags: u8,
    /// The packet's number on its carrier.
    pub number: u64,
}

impl DatagramHeader {
    fn to_wire(self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..6].copy_from_slice(&self.session.to_le_bytes()[..6]);
        out[6..8].copy_from_slice(&(self.slot | u16::from(self.flags) << 12).to_le_bytes());
        out[8..].copy_from_slice(&self.number.to_le_bytes());
        out
    }

    fn from_wire(bytes: &[u8; HEADER_BYTES]) -> Self {
        let mut session = [0; 8];
        session[..6].copy_from_slice(&bytes[..6]);
        let both = u16::from_le_bytes([bytes[6], bytes[7]]);
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[8..]);
        Self {
            session: u64::from_le_bytes(session),
            slot: both & (SLOTS - 1),
            flags: (both >> 12) as u8,
            number: u64::from_le_bytes(number),
        }
    }
}

/// Hides and reads the headers of one direction of a network.
#[derive(Clone)]
pub struct HeaderKey(Aes128);

impl HeaderKey {
    /// The key of a network and a direction.
    pub fn new(network: &NetworkKey, direction: Direction) -> Self {
        let hkdf = Hkdf::new(None, network.secret().expose());
        let key = expand(&hkdf, "datagram header", &[direction.to_wire()]);
        let key: &[u8; 16] = key.expose().first_chunk().expect("16 of 32 bytes");
        Self(Aes128::new(key.into()))
    }

    /// What the header of a datagram says, or `None` if it is too short for one.
    pub fn read(&self, datagram: &[u8]) -> Option<DatagramHeader> {
        if datagram.len() < DATAGRAM_OVERHEAD {
            return None;
        }
        let header: &[u8; HEADER_BYTES] = datagram.first_chunk()?;
        let mut block = (*header).into();
        self.0.decrypt_block(&mut block);
        Some(DatagramHeader::from_wire(&block.into()))
    }

    fn hide(&self, plain: &[u8; HEADER_BYTES], out: &mut [u8]) {
        let mut block = (*plain).into();
        self.0.encrypt_block(&mut block);
        out.copy_from_slice(&block);
    }
}

/// One key, and its part of what was done.
struct Keyed {
    aead: Box<dyn Aead>,
    iv: Nonce,
}

impl Keyed {
    fn new(keys: &TrafficKeys, backend: Backend) -> Self {
        Self { aead: keys.aead(backend), iv: keys.iv() }
    }

    /// Opens `datagram` in place, unless it is forged. Returns how long its text is.
    fn verified(&self, header: DatagramHeader, datagram: &mut [u8]) -> Result<usize, Forged> {
        let body = datagram.get_mut(HEADER_BYTES..).ok_or(Forged)?;
        let text_len = body.len().checked_sub(TAG_BYTES).ok_or(Forged)?;
        self.aead.open(nonce(&self.iv, header.number), &header.to_wire(), body)?;
        Ok(text_len)
    }
}

/// Seals the packets of one carrier in one direction.
pub struct DatagramSealer {
    keyed: Keyed,
    header: HeaderKey,
    next: DatagramHeader,
    spent: Spent,
}

impl DatagramSealer {
    /// Begins with packet 0 of `slot` in the receiver's `session`, in phase 0.
    ///
    /// # Panics
    /// If `session` or `slot` do not fit into 48 and 12 bits.
    pub fn new(
        keys: &TrafficKeys,
        backend: Backend,
        header: HeaderKey,
        (session, slot): (u64, u16),
    ) -> Self {
        assert!(session < SESSIONS && slot < SLOTS, "numbered by us, within the header's fields");
        let next = DatagramHeader { session, slot, flags: 0, number: 0 };
        Self { keyed: Keyed::new(keys, backend), header, next, spent: Spent::default() }
    }

    /// Seals `datagram` in place: room for a header, the text, room for a tag. Returns its number.
    ///
    /// # Errors
    /// [`KeySpent`] at the key's limit.
    ///
    /// # Panics
    /// If there is no room for header and tag.
    pub fn seal(&mut self, datagram: &mut [u8]) -> Result<u64, KeySpent> {
        let text_len = datagram.len().checked_sub(DATAGRAM_OVERHEAD);
        let text_len = text_len.expect("room for header and tag");
        if self.left() == 0 {
            return Err(KeySpent);
        }
        let number = self.next.number;
        let bound = self.next.to_wire();
        let (header, rest) = datagram.split_at_mut(HEADER_BYTES);
        let (text, tag) = rest.split_at_mut(text_len);
        tag.copy_from_slice(&self.keyed.aead.seal(nonce(&self.keyed.iv, number), &bound, text));
        self.header.hide(&bound, header);
        self.next.number += 1;
        self.spent.packets += 1;
        self.spent.bytes += text_len as u64;
        Ok(number)
    }

    /// From the next packet on, `keys`, in this phase: 0 or 1. Their receiver has to have them.
    pub fn rekey(&mut self, keys: &TrafficKeys, backend: Backend, phase: u8) {
        self.keyed = Keyed::new(keys, backend);
        self.next.flags = phase & 1;
        self.spent = Spent::default();
    }

    /// From the next packet on, headers are hidden under another key of the network.
    pub fn hide_under(&mut self, header: HeaderKey) {
        self.header = header;
    }

    /// How many packets the present key still seals.
    pub fn left(&self) -> u64 {
        RECORDS_PER_KEY_MAX - self.spent.packets
    }

    /// What the present key has sealed.
    pub fn spent(&self) -> Spent {
        self.spent
    }
}

/// A packet that opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// Its number.
    pub number: u64,
    /// Its text.
    pub text: &'a mut [u8],
}

/// Why a packet was dropped. Nothing is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It does not verify, or is under no key that is known. Counted.
    Forged,
    /// It came before, or is so old that nobody can tell.
    Replayed(Seen),
}

/// Opens the packets of one carrier in one direction, in whatever order they come.
pub struct DatagramOpener {
    keyed: Keyed,
    old: Option<Keyed>,
    phase: u8,
    window: PacketWindow,
    forged: u64,
}

impl DatagramOpener {
    /// Remembers the last `window_packets` numbers, rounded up to a power of two. Begins in phase
    /// 0.
    pub fn new(keys: &TrafficKeys, backend: Backend, window_packets: u32) -> Self {
        let window = PacketWindow::new(window_packets);
        Self { keyed: Keyed::new(keys, backend), old: None, phase: 0, window, forged: 0 }
    }

    /// Opens `datagram`, whose header says `header`, in place.
    ///
    /// # Errors
    /// [`Dropped`]; nothing was noted then, but the count of forged ones.
    pub fn open<'a>(
        &mut self,
        header: DatagramHeader,
        datagram: &'a mut [u8],
    ) -> Result<Opened<'a>, Dropped> {
        self.window.check(header.number).map_err(Dropped::Replayed)?;
        let keyed =
            if header.flags & 1 == self.phase { Some(&self.keyed) } else { self.old.as_ref() };
        let verified = keyed.ok_or(Forged).and_then(|keyed| keyed.verified(header, datagram));
        self.noted(verified, header, datagram)
    }

    /// The same for a packet of the other phase that may be the first under `keys`, which follow
    /// the present ones. If it opens, it is as if [`Self::rekey`] had been called before it.
    ///
    /// # Errors
    /// [`Dropped`]; nothing has changed then.
    pub fn open_next<'a>(
        &mut self,
        (keys, backend): (&TrafficKeys, Backend),
        header: DatagramHeader,
        datagram: &'a mut [u8],
    ) -> Result<Opened<'a>, Dropped> {
        self.window.check(header.number).map_err(Dropped::Replayed)?;
        let next = Keyed::new(keys, backend);
        let verified = next.verified(header, datagram);
        if verified.is_ok() {
            self.old = Some(core::mem::replace(&mut self.keyed, next));
            self.phase = header.flags & 1;
        }
        self.noted(verified, header, datagram)
    }

    fn noted<'a>(
        &mut self,
        verified: Result<usize, Forged>,
        header: DatagramHeader,
        datagram: &'a mut [u8],
    ) -> Result<Opened<'a>, Dropped> {
        match verified {
            Ok(text_len) => {
                self.window.note(header.number);
                let text = &mut datagram[HEADER_BYTES..HEADER_BYTES + text_len];
                Ok(Opened { number: header.number, text })
            }
            Err(Forged) => {
                self.forged += 1;
                Err(Dropped::Forged)
            }
        }
    }

    /// Takes packets under `keys`, in this phase, and still those under the present ones, if those
    /// are in the other phase.
    pub fn rekey(&mut self, keys: &TrafficKeys, backend: Backend, phase: u8) {
        let old = core::mem::replace(&mut self.keyed, Keyed::new(keys, backend));
        self.old = (self.phase != phase & 1).then_some(old);
        self.phase = phase & 1;
    }

    /// Takes no more packets under the keys before the present ones.
    pub fn forget_old_keys(&mut self) {
        self.old = None;
    }

    /// Remembers more numbers, when a path reorders more than was thought.
    pub fn widen(&mut self, window_packets: u32) {
        self.window.widen(window_packets);
    }

    /// Packets that did not verify.
    pub fn forged(&self) -> u64 {
        self.forged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::EpochSecret;
    use crate::secret::Secret;
    use crate::suite::Suite;

    fn keys(epoch: u8) -> TrafficKeys {
        let split = [Secret::new([epoch; 32]), Secret::new([2; 32])];
        let secret = EpochSecret::first(&split, b"a transcript");
        secret.traffic(Suite::Aes128Gcm, Direction::ToResponder, 7)
    }

    fn header_key() -> HeaderKey {
        HeaderKey::new(&NetworkKey::new(Secret::new([4; 32])), Direction::ToResponder)
    }

    struct Pair(DatagramSealer, DatagramOpener);

    fn pair() -> Pair {
        let place = ((1 << 48) - 1, 4095);
        let sealer = DatagramSealer::new(&keys(1), Backend::AwsLc, header_key(), place);
        Pair(sealer, DatagramOpener::new(&keys(1), Backend::Ring, 1 << 16))
    }

    impl Pair {
        fn sealed(&mut self, text: &[u8]) -> Vec<u8> {
            let mut datagram = vec![0; text.len() + DATAGRAM_OVERHEAD];
            datagram[HEADER_BYTES..][..text.len()].copy_from_slice(text);
            self.0.seal(&mut datagram).expect("the key is fresh");
            datagram
        }

        fn opens(&mut self, datagram: &[u8]) -> Result<Vec<u8>, Dropped> {
            let mut datagram = datagram.to_vec();
            let header = header_key().read(&datagram).expect("long enough");
            self.1.open(header, &mut datagram).map(|opened| opened.text.to_vec())
        }
    }

    #[test]
    fn packets_open_once_in_any_order() {
        let mut pair = pair();
        let sent: Vec<_> = (0..4).map(|at| pair.sealed(&[at; 9])).collect();
        let header = header_key().read(&sent[2]).expect("long enough");
        let session = (1 << 48) - 1;
        assert_eq!(header, DatagramHeader { session, slot: 4095, flags: 0, number: 2 });
        for at in [2, 0, 3, 1] {
            assert_eq!(pair.opens(&sent[at]), Ok(vec![at as u8; 9]));
        }
        for packet in &sent {
            assert_eq!(pair.opens(packet), Err(Dropped::Replayed(Seen::Before)));
        }
        assert_eq!(pair.1.forged(), 0);
    }

    /// D2: a forged packet with the number of one still to come does not keep that one out.
    #[test]
    fn a_forged_packet_moves_nothing() {
        let mut pair = pair();
        let good = pair.sealed(b"text");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(pair.opens(&bad).is_err(), "byte {at}");
        }
        assert_eq!(pair.opens(&good), Ok(b"text".to_vec()));
        assert!(pair.1.forged() > 16);
        assert_eq!(header_key().read(&good[..31]), None);
    }

    /// D3: packets of both keys open while one replaces the other, and then only the new one's.
    #[test]
    fn packets_on_their_way_at_a_change_of_keys_still_open() {
        let mut pair = pair();
        let [early, late, too_late] = [b"a", b"b", b"c"].map(|text| pair.sealed(text));
        assert!(pair.opens(&early).is_ok());
        pair.0.rekey(&keys(2), Backend::AwsLc, 1);
        let new = pair.sealed(b"d");
        assert_eq!(pair.opens(&new), Err(Dropped::Forged), "before the opener changed");
        pair.1.rekey(&keys(2), Backend::Ring, 1);
        assert_eq!(pair.opens(&new), Ok(b"d".to_vec()));
        assert_eq!(pair.opens(&late), Ok(b"b".to_vec()));
        assert_eq!(pair.opens(&new), Err(Dropped::Replayed(Seen::Before)));
        pair.1.forget_old_keys();
        assert_eq!(pair.opens(&too_late), Err(Dropped::Forged));
    }

    /// The first packet under keys that may be next brings the change with it; one that only says
    /// so changes nothing.
    #[test]
    fn the_first_packet_under_the_next_keys_brings_them() {
        let mut pair = pair();
        let late = pair.sealed(b"a");
        pair.0.rekey(&keys(2), Backend::AwsLc, 1);
        let (first, second) = (pair.sealed(b"b"), pair.sealed(b"c"));
        let (next, header) = (keys(2), header_key().read(&first).expect("long enough"));
        let open_next = |opener: &mut DatagramOpener, keys: &TrafficKeys, datagram: &[u8]| {
            let mut datagram = datagram.to_vec();
            let opened = opener.open_next((keys, Backend::Ring), header, &mut datagram);
            opened.map(|opened| opened.text.to_vec())
        };
        let mut bad = first.clone();
        bad[20] ^= 1;
        assert_eq!(open_next(&mut pair.1, &next, &bad), Err(Dropped::Forged));
        assert_eq!(open_next(&mut pair.1, &keys(3), &first), Err(Dropped::Forged));
        assert_eq!(pair.opens(&second), Err(Dropped::Forged), "nothing has changed");
        assert_eq!(open_next(&mut pair.1, &next, &first), Ok(b"b".to_vec()));
        let again = Err(Dropped::Replayed(Seen::Before));
        assert_eq!(open_next(&mut pair.1, &next, &first), again);
        assert_eq!(pair.opens(&second), Ok(b"c".to_vec()));
        assert_eq!(pair.opens(&late), Ok(b"a".to_vec()));
        // Who was silent for two changes goes on in the same phase.
        pair.0.rekey(&keys(4), Backend::AwsLc, 1);
        pair.1.rekey(&keys(4), Backend::Ring, 1);
        let later = pair.sealed(b"d");
        assert_eq!(pair.opens(&later), Ok(b"d".to_vec()));
    }
}
