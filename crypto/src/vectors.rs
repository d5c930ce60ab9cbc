//! Published vectors: the Noise framework's, Wycheproof's, and ours for whoever writes another
//! implementation (`vectors/ringway-1.json`).

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::Deserialize;
use serde_json::{Value, json};
use wycheproof::TestResult;

use crate::aead::{Backend, Forged, Nonce, TAG_BYTES};
use crate::datagram::{DATAGRAM_OVERHEAD, DatagramSealer, HeaderKey};
use crate::entropy::Entropy;
use crate::handshake::{Credentials, Dial, Initiator, Listener, write_join};
use crate::keys::{NetworkKey, PrivateKey, Psk, PublicKey};
use crate::noise::Primitives;
use crate::outer::{CarrierKind, FIRST_BYTES};
use crate::record::{RECORD_HEADER_BYTES, RECORD_OVERHEAD, RecordSealer};
use crate::rekey::{RekeyOffer, answer_rekey};
use crate::schedule::{Direction, EpochSecret, SessionId};
use crate::secret::Secret;
use crate::suite::{Suite, SuiteSet};

fn unhex(text: &str) -> Vec<u8> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).expect("vectors are in hexadecimal")
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// One text of one key, through every library.
struct Case<'a> {
    suite: Suite,
    key: &'a [u8],
    nonce: Nonce,
    bound: &'a [u8],
    text: &'a [u8],
    sealed: Vec<u8>,
    valid: bool,
}

impl Case<'_> {
    fn holds(&self, name: &str) {
        let mut key = [0; 32];
        key[..self.key.len()].copy_from_slice(self.key);
        for backend in Backend::ALL {
            let aead = backend.key(self.suite, &key);
            let mut opened = self.sealed.clone();
            let end = aead.open(self.nonce, self.bound, &mut opened);
            assert_eq!(end, if self.valid { Ok(()) } else { Err(Forged) }, "{name}, {backend}");
            if self.valid {
                assert_eq!(&opened[..self.text.len()], self.text, "{name}, {backend}");
                let mut sealed = self.text.to_vec();
                let tag = aead.seal(self.nonce, self.bound, &mut sealed);
                sealed.extend_from_slice(&tag);
                assert_eq!(sealed, self.sealed, "{name}, {backend}");
            }
        }
    }
}

/// Every vector of the nonce and tag lengths that we use, valid and not, by every library.
#[test]
fn wycheproof_aead() {
    use wycheproof::aead::{TestName, TestSet};
    let mut cases = 0;
    for name in [TestName::AesGcm, TestName::ChaCha20Poly1305] {
        for group in TestSet::load(name).expect("the vectors are there").test_groups {
            let suite = match (name, group.key_size) {
                (TestName::AesGcm, 128) => Suite::Aes128Gcm,
                (TestName::AesGcm, 256) => Suite::Aes256Gcm,
                (TestName::ChaCha20Poly1305, 256) => Suite::ChaCha20Poly1305,
                _ => continue,
            };
            for test in group.tests {
                let Ok(nonce) = Nonce::try_from(&test.nonce[..]) else { continue };
                if test.tag.len() != TAG_BYTES {
                    continue;
                }
                let case = Case {
                    suite,
                    key: &test.key,
                    nonce,
                    bound: &test.aad,
                    text: &test.pt,
                    sealed: [&test.ct[..], &test.tag].concat(),
                    valid: test.result == TestResult::Valid,
                };
                case.holds(&format!("{suite} {}: {}", test.tc_id, test.comment));
                cases += 1;
            }
        }
    }
    assert!(cases > 300, "{cases} cases");
}

/// X25519: right secrets for good points, and none for those that give everybody the same.
#[test]
fn wycheproof_x25519() {
    use wycheproof::xdh::{TestName, TestSet};
    let mut cases = 0;
    for group in TestSet::load(TestName::X25519).expect("the vectors are there").test_groups {
        for test in group.tests {
            let bytes = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).ok();
            let (Some(private), Some(public)) = (bytes(&test.private_key), bytes(&test.public_key))
            else {
                continue;
            };
            let agreed = PrivateKey::new(Secret::new(private)).agree(&PublicKey::new(public));
            let shared = agreed.ok().map(|secret| secret.expose().to_vec());
            let nobodys = test.shared_secret.iter().all(|byte| *byte == 0);
            let wanted = (!nobodys).then(|| test.shared_secret.to_vec());
            assert_eq!(shared, wanted, "{}: {}", test.tc_id, test.comment);
            cases += 1;
        }
    }
    assert!(cases > 400, "{cases} cases");
}

#[derive(Deserialize)]
struct NoiseFile {
    vectors: Vec<NoiseVector>,
}

#[derive(Deserialize)]
struct NoiseVector {
    protocol_name: String,
    init_prologue: String,
    init_psks: [String; 1],
    init_static: Option<String>,
    init_ephemeral: String,
    init_remote_static: Option<String>,
    resp_static: Option<String>,
    resp_ephemeral: String,
    handshake_hash: String,
    messages: Vec<NoiseMessage>,
}

#[derive(Deserialize)]
struct NoiseMessage {
    payload: String,
    ciphertext: String,
}

impl NoiseVector {
    fn end(&self, initiator: bool) -> snow::HandshakeState {
        let entropy = Entropy::from_seed(Secret::new([0; 32]));
        let params = self.protocol_name.parse().expect("a pattern that snow knows");
        let psk: [u8; 32] = unhex(&self.init_psks[0]).try_into().expect("32 bytes");
        let place = if self.protocol_name.contains("psk2") { 2 } else { 0 };
        let prologue = unhex(&self.init_prologue);
        let (own, ephemeral) = if initiator {
            (&self.init_static, &self.init_ephemeral)
        } else {
            (&self.resp_static, &self.resp_ephemeral)
        };
        let own = own.as_deref().map(unhex);
        let remote = self.init_remote_static.as_deref().filter(|_| initiator).map(unhex);
        let ephemeral = unhex(ephemeral);
        let mut builder = snow::Builder::with_resolver(params, Primitives::new(entropy));
        builder = builder.prologue(&prologue).expect("set once");
        builder = builder.psk(place, &psk).expect("set once");
        if let Some(own) = &own {
            builder = builder.local_private_key(own).expect("set once");
        }
        if let Some(remote) = &remote {
            builder = builder.remote_public_key(remote).expect("set once");
        }
        builder = builder.fixed_ephemeral_key_for_testing_only(&ephemeral);
        let built = if initiator { builder.build_initiator() } else { builder.build_responder() };
        built.expect("all that the pattern needs")
    }
}

/// Both of our patterns over our primitives, byte by byte: handshake and first transport messages.
#[test]
fn noise() {
    let file: NoiseFile =
        serde_json::from_str(include_str!("../vectors/noise.json")).expect("well formed");
    assert_eq!(file.vectors.len(), 2);
    for vector in &file.vectors {
        let (mut near, mut far) = (vector.end(true), vector.end(false));
        let (handshake, transport) = vector.messages.split_at(2);
        let mut buffers = ([0; 1024], [0; 1024]);
        for (at, message) in handshake.iter().enumerate() {
            let (from, to) = if at == 0 { (&mut near, &mut far) } else { (&mut far, &mut near) };
            let len = from.write_message(&unhex(&message.payload), &mut buffers.0);
            let len = len.expect("our turn");
            assert_eq!(hex(&buffers.0[..len]), message.ciphertext, "{}", vector.protocol_name);
            let read = to.read_message(&buffers.0[..len], &mut buffers.1).expect("it verifies");
            assert_eq!(hex(&buffers.1[..read]), message.payload);
        }
        assert_eq!(hex(near.get_handshake_hash()), vector.handshake_hash);
        let mut ends = [
            near.into_transport_mode().expect("finished"),
            far.into_transport_mode().expect("finished"),
        ];
        for (at, message) in transport.iter().enumerate() {
            let len = ends[at % 2].write_message(&unhex(&message.payload), &mut buffers.0);
            let len = len.expect("finished");
            assert_eq!(hex(&buffers.0[..len]), message.ciphertext, "{}", vector.protocol_name);
        }
    }
}

const NOW_MS: u64 = 1_800_000_000_000;

fn secret(byte: u8) -> Secret {
    Secret::new([byte; 32])
}

/// The ephemeral private key of a message whose generator is about to draw it.
fn ephemeral(entropy: &mut Entropy) -> String {
    hex(&Entropy::from_seed(entropy.secret()).array::<32>())
}

/// What the first message from seed 1 draws. Not part of the protocol, but who builds the same
/// message has to put them in.
fn drawn_by_message_1() -> Value {
    let mut entropy = Entropy::from_seed(secret(1));
    let (salt, body_bytes) = (hex(&entropy.array::<32>()), 355 + entropy.below(513));
    json!({ "salt": salt, "body_bytes": body_bytes, "ephemeral": ephemeral(&mut entropy) })
}

/// What the answer from seed 3 draws.
fn drawn_by_message_2() -> Value {
    let mut entropy = Entropy::from_seed(secret(3));
    let ephemeral = ephemeral(&mut entropy);
    let (body_bytes, salt) = (355 + entropy.below(513), hex(&entropy.array::<32>()));
    json!({ "salt": salt, "body_bytes": body_bytes, "ephemeral": ephemeral })
}

/// The suite that the responder chooses.
const CHOSEN: Suite = Suite::Aes128Gcm;

fn keys_of(secret: &EpochSecret, suite: Suite, direction: Direction) -> Value {
    let keys = secret.traffic(suite, direction, 0);
    let mut record = vec![0; RECORD_OVERHEAD + 5];
    record[RECORD_HEADER_BYTES..][..5].copy_from_slice(b"first");
    let mut again = record.clone();
    let mut sealer = RecordSealer::new(&keys, Backend::AwsLc);
    sealer.seal(&mut record).expect("fresh");
    sealer.seal(&mut again).expect("fresh");
    let header = HeaderKey::new(&NetworkKey::new(self::secret(100)), direction);
    let mut datagram = vec![0; DATAGRAM_OVERHEAD + 5];
    datagram[16..21].copy_from_slice(b"first");
    let mut sealer = DatagramSealer::new(&keys, Backend::AwsLc, header, (0x0102_0304_0506, 9));
    sealer.seal(&mut datagram).expect("fresh");
    json!({
        "iv": hex(&keys.iv()),
        "header_key": hex(keys.header_key()),
        "record_0_of_text_first": hex(&record),
        "record_1_of_text_first": hex(&again),
        "datagram_0_of_text_first_session_010203040506_slot_9": hex(&datagram),
    })
}

/// What the same secret gives under the suites that were not chosen.
fn other_suites(secret: &EpochSecret) -> Value {
    let keys = |suite: Suite| {
        json!({
            "to_responder_carrier_0": keys_of(secret, suite, Direction::ToResponder),
            "to_initiator_carrier_0": keys_of(secret, suite, Direction::ToInitiator),
        })
    };
    let others = Suite::ALL.into_iter().filter(|suite| *suite != CHOSEN);
    others.map(|suite| (suite.name().to_owned(), keys(suite))).collect()
}

/// A whole session in the bytes of the wire, from seeds.
fn ours(credentials: &Credentials) -> Value {
    let network = NetworkKey::new(secret(100));
    let dial = Dial {
        network: &network,
        credentials,
        kind: CarrierKind::Tcp,
        suites: SuiteSet::ALL,
        now_ms: NOW_MS,
    };
    let listener = Listener {
        networks: vec![network.clone()],
        identities: vec![PrivateKey::new(secret(2))],
        shared: vec![Psk::new(secret(50))],
        suites: vec![CHOSEN],
    };
    let mut message = Vec::new();
    let mut entropy = Entropy::from_seed(secret(1));
    let mut initiator = Initiator::start(&dial, b"hello", &mut entropy, &mut message);
    let written = hex(&message);
    let (first, body) = message.split_first_chunk_mut::<FIRST_BYTES>().expect("a message");
    let knock = listener.knock(first, NOW_MS).expect("it verifies");
    let mut entropy = Entropy::from_seed(secret(3));
    let visitor = knock.read(&listener, body, &mut entropy).expect("it verifies");
    let mut answer = Vec::new();
    let psk = Psk::new(secret(60));
    let theirs = visitor.accept(Some(&psk), b"welcome", &mut entropy, &mut answer);
    let theirs = theirs.expect("good points");
    let answered = hex(&answer);
    let (first, body) = answer.split_first_chunk_mut::<FIRST_BYTES>().expect("a message");
    initiator.answered(first).expect("it verifies");
    let ours = initiator.finish(body).expect("it verifies");
    assert!(ours.secret == theirs.secret);
    let mut join = Vec::new();
    let mut entropy = Entropy::from_seed(secret(4));
    let to = (&network, CarrierKind::Tcp, NOW_MS);
    write_join(to, (SessionId(77), 5, 0), &ours.secret, &mut entropy, &mut join);
    json!({
        "message_1_says_hello": written,
        "message_1_draws": drawn_by_message_1(),
        "message_2_says_welcome": answered,
        "message_2_draws": drawn_by_message_2(),
        "join_of_session_77_carrier_5_epoch_0": hex(&join),
        "token_of_session_77": hex(ours.secret.token(SessionId(77)).expose()),
        "to_responder_carrier_0": keys_of(&ours.secret, CHOSEN, Direction::ToResponder),
        "to_initiator_carrier_0": keys_of(&ours.secret, CHOSEN, Direction::ToInitiator),
        "same_secret_other_suites": other_suites(&ours.secret),
        "next_epoch": next_epoch(&ours.secret),
    })
}

fn next_epoch(secret: &EpochSecret) -> Value {
    let (offer, offered) = RekeyOffer::new(&mut Entropy::from_seed(self::secret(5)));
    let mut entropy = Entropy::from_seed(self::secret(6));
    let (next, answer) = answer_rekey(secret, &offered, &mut entropy).expect("a good point");
    assert!(offer.finish(secret, &answer).is_ok_and(|ours| ours == next));
    json!({
        "offer": hex(&offered),
        "answer": hex(&answer),
        "to_responder_carrier_0": keys_of(&next, CHOSEN, Direction::ToResponder),
    })
}

/// What is on the wire does not change without notice, and others can check theirs against it.
#[test]
fn our_own_vectors_hold() {
    let key = |byte| PrivateKey::new(secret(byte));
    let keys = Credentials::Keys {
        mine: key(1),
        theirs: key(2).public(),
        psk: Some(Psk::new(secret(60))),
    };
    let computed = json!({
        "about": "Keys are 32 times one byte: network 100, initiator's private key 1, responder's \
            2, pre-shared key beside key pairs 60, pre-shared key alone 50. Clocks stand at \
            1800000000000 ms. All suites are offered, the responder chooses aes-128-gcm. Beside \
            its records and datagrams stand those that the same secret gives under each other \
            suite.",
        "noise_ikpsk2": ours(&keys),
        "noise_nnpsk0": ours(&Credentials::Shared(Psk::new(secret(50)))),
    });
    let committed: Value =
        serde_json::from_str(include_str!("../vectors/ringway-1.json")).expect("well formed");
    let pretty = serde_json::to_string_pretty(&computed).expect("it is JSON");
    assert!(computed == committed, "crypto/vectors/ringway-1.json would be\n{pretty}");
}
