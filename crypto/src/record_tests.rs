//! Stories of records on a stream.

use proptest::prelude::*;

use super::*;
use crate::schedule::{Direction, EpochSecret};
use crate::secret::Secret;
use crate::suite::Suite;

fn keys(epoch: u8, suite: Suite) -> TrafficKeys {
    let split = [Secret::new([epoch; 32]), Secret::new([2; 32])];
    EpochSecret::first(&split, b"a transcript").traffic(suite, Direction::ToResponder, 7)
}

struct Pair(RecordSealer, RecordOpener);

fn pair(suite: Suite) -> Pair {
    let keys = keys(1, suite);
    Pair(RecordSealer::new(&keys, Backend::AwsLc), RecordOpener::new(&keys, Backend::Ring))
}

impl Pair {
    fn sealed(&mut self, text: &[u8]) -> Vec<u8> {
        let mut record = vec![0; text.len() + RECORD_OVERHEAD];
        record[RECORD_HEADER_BYTES..][..text.len()].copy_from_slice(text);
        self.0.seal(&mut record).expect("the key is fresh");
        record
    }

    fn opens(&mut self, record: &[u8]) -> Result<Vec<u8>, Forged> {
        let (header, body) = record.split_first_chunk().ok_or(Forged)?;
        if self.1.body_len(header)? != body.len() {
            return Err(Forged);
        }
        self.1.open(&mut body.to_vec()).map(|text| text.to_vec())
    }
}

proptest! {
    /// What is sealed is read, record by record, in every suite; no record looks like another.
    #[test]
    fn a_stream_of_records_arrives(texts in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..300), 1..20)) {
        for suite in Suite::ALL {
            let mut pair = pair(suite);
            for text in &texts {
                let record = pair.sealed(text);
                prop_assert_eq!(pair.opens(&record), Ok(text.clone()));
            }
        }
    }
}

#[test]
fn the_longest_and_the_empty_record_fit() {
    let mut pair = pair(Suite::Aes128Gcm);
    for len in [0, RECORD_TEXT_MAX] {
        let record = pair.sealed(&vec![9; len]);
        assert!(record.len() <= 65_536);
        assert_eq!(pair.opens(&record), Ok(vec![9; len]));
    }
}

/// R2: dropped, doubled, swapped and changed records are all noticed, and a change in the header
/// is noticed by the header alone, before any of the text is waited for.
#[test]
fn anything_but_the_next_record_is_forged() {
    let mut pair = pair(Suite::Aes128Gcm);
    let (one, two) = (pair.sealed(b"one"), pair.sealed(b"two"));
    assert_eq!(pair.opens(&two), Err(Forged), "one was dropped");
    for at in 0..one.len() {
        let mut bad = one.clone();
        bad[at] ^= 4;
        if let Some((header, _)) = bad.split_first_chunk().filter(|_| at < 16) {
            assert_eq!(pair.1.body_len(header), Err(Forged), "byte {at}");
        }
        assert_eq!(pair.opens(&bad), Err(Forged), "byte {at}");
    }
    assert_eq!(pair.opens(&one), Ok(b"one".to_vec()));
    assert_eq!(pair.opens(&one), Err(Forged), "doubled");
    assert_eq!(pair.opens(&two), Ok(b"two".to_vec()));
}

/// R1: numbers go on under new keys, and a record under the old ones does not open any more.
#[test]
fn new_keys_take_over_at_a_record() {
    let mut pair = pair(Suite::ChaCha20Poly1305);
    let before = pair.sealed(b"before");
    assert_eq!(pair.opens(&before), Ok(b"before".to_vec()));
    let next = keys(2, Suite::ChaCha20Poly1305);
    pair.0.rekey(&next, Backend::Portable);
    assert_eq!(pair.0.spent(), Spent::default());
    let after = pair.sealed(b"after");
    assert_eq!(pair.opens(&after), Err(Forged));
    pair.1.rekey(&next, Backend::AwsLc);
    assert_eq!(pair.opens(&after), Ok(b"after".to_vec()));
    assert_eq!(pair.1.spent(), Spent { packets: 1, bytes: 5 });
}

/// R3: the limit of a key holds even if nobody ever brings a new one.
#[test]
fn a_spent_key_seals_nothing() {
    let mut pair = pair(Suite::Aes128Gcm);
    pair.0.0.spent.packets = RECORDS_PER_KEY_MAX - 1;
    pair.sealed(b"the last");
    assert_eq!(pair.0.seal(&mut [0; RECORD_OVERHEAD]), Err(KeySpent));
}

/// Numbers and nonces are those of RFC 8446, section 5.3: the vector's end, xor the number.
#[test]
fn a_nonce_is_the_vector_xor_the_number() {
    assert_eq!(nonce(&[0; 12], 0x0102), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(nonce(&[0xff; 12], 1), [255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 254]);
}
