//! Sealed records on a stream: a carrier over TCP.
//!
//! A record is `header 16 | text | tag 16`. The header is one AES block, under a key of its carrier
//! and direction, of the record's number, the length of its text, and zeros: a reader learns the
//! length before the text is there, and notices at once when a byte of the stream is not what was
//! sent. The header's plaintext is what the tag binds the text to.
//!
//! What always holds:
//! - R1  Numbers count up from 0 in each direction and never start again, also under new keys. The
//!   nonce is the initialisation vector xor the number.
//! - R2  A record opens only as the next one: the stream is ordered, so there is no window.
//! - R3  Under one key at most [`RECORDS_PER_KEY_MAX`] records are sealed.
//!
//! Costs: 32 bytes and an AES block a record; nothing is allocated or copied.

use core::fmt;

use aes::Aes128;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

use crate::aead::{Aead, Backend, Forged, Nonce, TAG_BYTES};
use crate::rekey::{RECORDS_PER_KEY_MAX, Spent};
use crate::schedule::TrafficKeys;

/// Bytes before a record's text.
pub const RECORD_HEADER_BYTES: usize = 16;
/// Bytes that a record adds to its text.
pub const RECORD_OVERHEAD: usize = RECORD_HEADER_BYTES + TAG_BYTES;
/// Bytes of a record's text, at most: with the rest it fits into 64 KiB.
pub const RECORD_TEXT_MAX: usize = 64 * 1024 - RECORD_OVERHEAD;

/// The key has sealed as much as it may; nothing was sealed. New keys are long overdue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpent;

impl fmt::Display for KeySpent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key has sealed as many records as it may; the peer gave no new one")
    }
}

impl core::error::Error for KeySpent {}

/// What sealing and opening have in common: the keys, and the number of the next record.
struct Keyed {
    aead: Box<dyn Aead>,
    iv: Nonce,
    header: Aes128,
    number: u64,
    spent: Spent,
}

impl Keyed {
    fn new(keys: &TrafficKeys, backend: Backend, number: u64) -> Self {
        Self {
            aead: keys.aead(backend),
            iv: keys.iv(),
            header: Aes128::new(keys.header_key().into()),
            number,
            spent: Spent::default(),
        }
    }

    /// The header of the next record, for a text of `len` bytes.
    fn plain_header(&self, len: usize) -> [u8; RECORD_HEADER_BYTES] {
        let mut header = [0; RECORD_HEADER_BYTES];
        header[..8].copy_from_slice(&self.number.to_le_bytes());
        header[8..10].copy_from_slice(&(len as u16).to_le_bytes());
        header
    }

    fn step(&mut self, len: usize) {
        self.number += 1;
        self.spent.packets += 1;
        self.spent.bytes += len as u64;
    }
}

/// The nonce of packet `number`: the initialisation vector xor the number (as in RFC 8446, 5.3).
pub(crate) fn nonce(iv: &Nonce, number: u64) -> Nonce {
    let mut nonce = *iv;
    for (byte, of_number) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
        *byte ^= of_number;
    }
    nonce
}

/// Seals the records of one carrier in one direction.
pub struct RecordSealer(Keyed);

impl RecordSealer {
    /// Begins with record 0.
    pub fn new(keys: &TrafficKeys, backend: Backend) -> Self {
        Self(Keyed::new(keys, backend, 0))
    }

    /// Seals `record` in place: room for a header, the text, room for a tag.
    ///
    /// # Errors
    /// [`KeySpent`] at the key's limit (R3).
    ///
    /// # Panics
    /// If the text is longer than [`RECORD_TEXT_MAX`] or there is no room for header and tag.
    pub fn seal(&mut self, record: &mut [u8]) -> Result<(), KeySpent> {
        let text_len = record.len().checked_sub(RECORD_OVERHEAD).expect("room for header and tag");
        assert!(text_len <= RECORD_TEXT_MAX, "records are cut by who fills them");
        if self.0.spent.packets >= RECORDS_PER_KEY_MAX {
            return Err(KeySpent);
        }
        let bound = self.0.plain_header(text_len);
        let (header, rest) = record.split_at_mut(RECORD_HEADER_BYTES);
        let (text, tag) = rest.split_at_mut(text_len);
        let sealed = self.0.aead.seal(nonce(&self.0.iv, self.0.number), &bound, text);
        tag.copy_from_slice(&sealed);
        let mut block = bound.into();
        self.0.header.encrypt_block(&mut block);
        header.copy_from_slice(&block);
        self.0.step(text_len);
        Ok(())
    }

    /// From the next record on, `keys`. The record before it told the peer.
    pub fn rekey(&mut self, keys: &TrafficKeys, backend: Backend) {
        self.0 = Keyed::new(keys, backend, self.0.number);
    }

    /// What the present key has sealed.
    pub fn spent(&self) -> Spent {
        self.0.spent
    }
}

/// Opens the records of one carrier in one direction, in order.
pub struct RecordOpener(Keyed);

impl RecordOpener {
    /// Expects record 0.
    pub fn new(keys: &TrafficKeys, backend: Backend) -> Self {
        Self(Keyed::new(keys, backend, 0))
    }

    /// How many bytes follow the header of the next record, its tag included.
    ///
    /// # Errors
    /// [`Forged`] if this is not the header of the next record. The carrier is lost then: nothing
    /// after it can be trusted to be where it was put.
    pub fn body_len(&self, header: &[u8; RECORD_HEADER_BYTES]) -> Result<usize, Forged> {
        let mut block = (*header).into();
        self.0.header.decrypt_block(&mut block);
        let len = u16::from_le_bytes([block[8], block[9]]);
        let expected = self.0.plain_header(usize::from(len));
        let same = block.as_slice() == expected && usize::from(len) <= RECORD_TEXT_MAX;
        if same { Ok(usize::from(len) + TAG_BYTES) } else { Err(Forged) }
    }

    /// Opens the body of the next record in place and returns its text.
    ///
    /// # Errors
    /// [`Forged`], as for [`Self::body_len`].
    pub fn open<'a>(&mut self, body: &'a mut [u8]) -> Result<&'a mut [u8], Forged> {
        let text_len = body.len().checked_sub(TAG_BYTES).ok_or(Forged)?;
        if text_len > RECORD_TEXT_MAX {
            return Err(Forged);
        }
        let bound = self.0.plain_header(text_len);
        self.0.aead.open(nonce(&self.0.iv, self.0.number), &bound, body)?;
        self.0.step(text_len);
        Ok(&mut body[..text_len])
    }

    /// From the next record on, `keys`, as the record before it said.
    pub fn rekey(&mut self, keys: &TrafficKeys, backend: Backend) {
        self.0 = Keyed::new(keys, backend, self.0.number);
    }

    /// What the present key has opened.
    pub fn spent(&self) -> Spent {
        self.0.spent
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
