//! What tests of several modules need: both ends of a handshake, without a network.

use alloc::vec;
use alloc::vec::Vec;

use ringway_crypto::{
    CarrierKind, Credentials, Dial, Entropy, EpochSecret, Established, FIRST_BYTES, Initiator,
    Listener, NetworkKey, PrivateKey, Secret, Suite, SuiteSet,
};

/// The clock of all handshakes.
pub(crate) const NOW_MS: u64 = 1_800_000_000_000;

pub(crate) fn secret(byte: u8) -> Secret {
    Secret::new([byte; 32])
}

pub(crate) fn entropy(byte: u8) -> Entropy {
    Entropy::from_seed(secret(byte))
}

pub(crate) fn key(byte: u8) -> PrivateKey {
    PrivateKey::new(secret(byte))
}

pub(crate) fn network() -> NetworkKey {
    NetworkKey::new(secret(100))
}

/// Who listens: key 2, in the network.
pub(crate) fn listener() -> Listener {
    Listener {
        networks: vec![network()],
        identities: vec![key(2)],
        shared: Vec::new(),
        suites: vec![Suite::Aes128Gcm],
    }
}

/// Key 1 begins a session with key 2.
pub(crate) fn dial(out: &mut Vec<u8>) -> Initiator {
    let credentials = Credentials::Keys { mine: key(1), theirs: key(2).public(), psk: None };
    let dial = Dial {
        network: &network(),
        credentials: &credentials,
        kind: CarrierKind::Tcp,
        suites: SuiteSet::ALL,
        now_ms: NOW_MS,
    };
    Initiator::start(&dial, b"hello", &mut entropy(1), out)
}

/// The secret of a session's first epoch.
pub(crate) fn epoch_secret() -> EpochSecret {
    established().secret
}

/// What the far side of a handshake has.
pub(crate) fn established() -> Established {
    let mut message = Vec::new();
    dial(&mut message);
    let (first, body) = message.split_first_chunk_mut::<FIRST_BYTES>().expect("a message");
    let listener = listener();
    let knock = listener.knock(first, NOW_MS).expect("it is good");
    let visitor = knock.read(&listener, body, &mut entropy(3)).expect("it is good");
    let accepted = visitor.accept(None, &[], &mut entropy(4), &mut Vec::new());
    accepted.expect("good points")
}
