//! What makes a tunnel secret: keys, handshake, records and datagrams, replay, new keys.
//!
//! Three secrets that are never mixed: the *network key* hides that there is a handshake at all
//! and lets a stranger's first bytes be dropped before anything is kept; the *identity* says who
//! both ends are; the *session* protects what they say. Each is derived from in one module.
//!
//! - `secret`, `keys`: 32 bytes that are zeroed when dropped, and the kinds of keys as text.
//! - `entropy`: a seeded generator, so that handshakes replay in the simulator to the bit.
//! - `suite`, `aead`, `calibrate`: three ciphers by three libraries, and which is the fastest here.
//! - `outer`: salt, mask and first MAC around everything before the first sealed byte.
//! - `noise`: Noise IKpsk2 and NNpsk0 over our primitives. `handshake`: the two sides' steps.
//! - `schedule`: from the split of a handshake to the keys of a carrier. `rekey`: to the next ones.
//! - `record`: sealing on a stream; `datagram`: sealing of packets; `replay`: what was seen before.
//!
//! What always holds:
//! - C1  A key is used with each nonce once: a carrier's number is part of its keys, a packet's
//!   number is its nonce, and sealing fails before either would come again.
//! - C2  Nothing derived from a peer's bytes is allocated before a keyed MAC over them verified.
//! - C3  What does not verify is reported without a reason that a peer could learn from.
//! - C4  Our copies of keys are zeroed when dropped and have no `Debug`; so are the payloads of
//!   handshakes. What the libraries expand from keys is theirs: aws-lc and RustCrypto clear it (of
//!   Poly1305 not the state of one text), ring may not.
//!
//! Not here: sockets, clocks and the system's randomness, which are arguments; who may connect
//! (`tunnel/`). Tests: stories in each module; published vectors in `vectors/` and Wycheproof's.

#![forbid(unsafe_code)]

mod aead;
mod calibrate;
mod datagram;
mod entropy;
mod handshake;
mod keys;
mod noise;
mod outer;
mod record;
mod rekey;
mod replay;
mod schedule;
mod secret;
mod suite;

#[cfg(test)]
mod vectors;

pub use aead::{Aead, Backend, Forged, Nonce, TAG_BYTES, Tag};
pub use calibrate::{Calibration, calibrate};
pub use datagram::Dropped;
pub use datagram::{
    DATAGRAM_HEADER_BYTES, DATAGRAM_OVERHEAD, DatagramHeader, DatagramOpener, DatagramSealer,
    HeaderKey, Opened,
};
pub use entropy::Entropy;
pub use handshake::{
    BODY_BYTES_MAX, BODY_BYTES_MIN, Credentials, Dial, Established, Initiator, JoinRequest, Knock,
    Listener, PAYLOAD_BYTES_MAX, PeerProof, Refused, Visitor, write_join,
};
pub use keys::{KeyTextError, NetworkKey, PrivateKey, Psk, PublicKey};
pub use outer::{CarrierKind, FIRST_BYTES, Head, KeyId, Mode, Salt};
pub use record::{
    KeySpent, RECORD_HEADER_BYTES, RECORD_OVERHEAD, RECORD_TEXT_MAX, RecordOpener, RecordSealer,
};
pub use rekey::{REKEY_AFTER, RekeyOffer, Spent, answer_rekey};
pub use replay::{PacketWindow, SaltWindow, Seen};
pub use schedule::{CarrierId, Direction, EpochSecret, SessionId, TrafficKeys};
pub use secret::Secret;
pub use suite::{Suite, SuiteSet};
/// What payloads come in.
pub use zeroize::Zeroizing;
