//! Stories of two ends that meet, and of those in between.

use super::*;
use crate::aead::Backend;
use crate::record::{RECORD_OVERHEAD, RecordOpener, RecordSealer};

const NOW_MS: u64 = 1_800_000_000_000;

fn secret(byte: u8) -> Secret {
    Secret::new([byte; 32])
}

fn key(byte: u8) -> PrivateKey {
    PrivateKey::new(secret(byte))
}

fn network() -> NetworkKey {
    NetworkKey::new(secret(100))
}

fn entropy(byte: u8) -> Entropy {
    Entropy::from_seed(secret(byte))
}

fn keys(mine: u8, theirs: u8, psk: Option<u8>) -> Credentials {
    let psk = psk.map(|byte| Psk::new(secret(byte)));
    Credentials::Keys { mine: key(mine), theirs: key(theirs).public(), psk }
}

fn listener() -> Listener {
    Listener {
        networks: vec![network()],
        identities: vec![key(2)],
        shared: vec![Psk::new(secret(50))],
        suites: vec![Suite::Aes256Gcm, Suite::Aes128Gcm],
    }
}

/// One handshake from end to end, with a hand on the wire for each message.
struct Meeting {
    credentials: Credentials,
    listener: Listener,
    offered: SuiteSet,
    psk: Option<Psk>,
    clock_ms: u64,
    on_the_way: fn(&mut [u8]),
    on_the_way_back: fn(&mut [u8]),
}

fn meeting(credentials: Credentials) -> Meeting {
    Meeting {
        credentials,
        listener: listener(),
        offered: SuiteSet::ALL,
        psk: None,
        clock_ms: NOW_MS,
        on_the_way: |_| {},
        on_the_way_back: |_| {},
    }
}

fn split(bytes: &mut [u8]) -> (&[u8; FIRST_BYTES], &mut [u8]) {
    let (first, body) = bytes.split_first_chunk_mut().expect("a whole message");
    (first, body)
}

/// Both ends' results.
#[derive(Debug, PartialEq)]
enum End {
    Refused { by: &'static str, why: Refused },
    Met { suite: Suite },
}

impl Meeting {
    fn run(self) -> (End, Option<(Established, Established)>) {
        let refused = |by, why| (End::Refused { by, why }, None);
        let (credentials, network) = (&self.credentials, &network());
        let dial = Dial {
            network,
            credentials,
            kind: CarrierKind::Tcp,
            suites: self.offered,
            now_ms: NOW_MS,
        };
        let mut wire = Vec::new();
        let mut initiator = Initiator::start(&dial, b"hello", &mut entropy(1), &mut wire);
        (self.on_the_way)(&mut wire);
        let (first, body) = split(&mut wire);
        let knock = match self.listener.knock(first, self.clock_ms) {
            Ok(knock) => knock,
            Err(why) => return refused("knock", why),
        };
        let visitor = match knock.read(&self.listener, body, &mut entropy(2)) {
            Ok(visitor) => visitor,
            Err(why) => return refused("responder", why),
        };
        assert_eq!(*visitor.payload, b"hello");
        let mut back = Vec::new();
        let theirs = visitor.accept(self.psk.as_ref(), b"welcome", &mut entropy(3), &mut back);
        let theirs = theirs.expect("the keys are good points");
        (self.on_the_way_back)(&mut back);
        let (first, body) = split(&mut back);
        let ours = match initiator.answered(first) {
            Ok(len) if len == body.len() => initiator.finish(body),
            Ok(_) => Err(Refused::Length),
            Err(why) => Err(why),
        };
        match ours {
            Ok(ours) => {
                assert_eq!(*ours.payload, b"welcome");
                (End::Met { suite: ours.suite }, Some((ours, theirs)))
            }
            Err(why) => refused("initiator", why),
        }
    }

    fn end(self) -> End {
        self.run().0
    }
}

/// Both patterns end with the same secret at both ends, each knowing whom it met, and in the
/// responder's favourite among what was offered.
#[test]
fn both_ends_meet() {
    let shared = Psk::new(secret(50));
    let by_id = PeerProof::Shared(shared.id());
    for (credentials, initiator, responder) in [
        (keys(1, 2, None), PeerProof::Key(key(1).public()), PeerProof::Key(key(2).public())),
        (Credentials::Shared(shared), by_id, by_id),
    ] {
        let (end, both) = meeting(credentials).run();
        let (ours, theirs) = both.expect("they met");
        assert_eq!(end, End::Met { suite: Suite::Aes256Gcm });
        assert_eq!((ours.peer, theirs.peer), (responder, initiator));
        assert!(ours.secret == theirs.secret);
        assert_eq!(ours.suite, theirs.suite);
    }
}

/// What follows a handshake opens with what follows from it.
#[test]
fn records_open_under_the_secret_that_both_have() {
    let (_, both) = meeting(keys(1, 2, None)).run();
    let (ours, theirs) = both.expect("they met");
    let keys = |side: &Established| side.secret.traffic(side.suite, Direction::ToResponder, 0);
    let mut record = vec![0; 5 + RECORD_OVERHEAD];
    record[16..21].copy_from_slice(b"first");
    RecordSealer::new(&keys(&ours), Backend::AwsLc).seal(&mut record).expect("fresh");
    let mut opener = RecordOpener::new(&keys(&theirs), Backend::Ring);
    assert_eq!(opener.open(&mut record[16..]).map(|text| text.to_vec()), Ok(b"first".to_vec()));
}

#[test]
fn the_second_secret_has_to_be_the_same() {
    let psk = |byte| Some(Psk::new(secret(byte)));
    let met = End::Met { suite: Suite::Aes256Gcm };
    let forged = End::Refused { by: "initiator", why: Refused::Forged };
    assert_eq!(Meeting { psk: psk(7), ..meeting(keys(1, 2, Some(7))) }.end(), met);
    assert_eq!(Meeting { psk: psk(8), ..meeting(keys(1, 2, Some(7))) }.end(), forged);
    assert_eq!(Meeting { psk: psk(7), ..meeting(keys(1, 2, None)) }.end(), forged);
    assert_eq!(meeting(keys(1, 2, Some(7))).end(), forged);
}

#[test]
fn whoever_it_is_not_for_refuses_it() {
    let unknown = Refused::UnknownKey(key(3).public().id());
    let end = meeting(keys(1, 3, None)).end();
    assert_eq!(end, End::Refused { by: "responder", why: unknown });
    let other = Psk::new(secret(51));
    let unknown = Refused::UnknownKey(other.id());
    let end = meeting(Credentials::Shared(other)).end();
    assert_eq!(end, End::Refused { by: "responder", why: unknown });
    let stranger = Listener { networks: vec![NetworkKey::new(secret(101))], ..listener() };
    let end = Meeting { listener: stranger, ..meeting(keys(1, 2, None)) }.end();
    assert_eq!(end, End::Refused { by: "knock", why: Refused::Stranger });
}

/// While a network key or an identity is being replaced, both are good.
#[test]
fn two_keys_are_good_while_one_replaces_the_other() {
    let rotating = || Listener {
        networks: vec![NetworkKey::new(secret(101)), network()],
        identities: vec![key(9), key(2)],
        ..listener()
    };
    for theirs in [2, 9] {
        let end = Meeting { listener: rotating(), ..meeting(keys(1, theirs, None)) }.end();
        assert_eq!(end, End::Met { suite: Suite::Aes256Gcm });
    }
}

#[test]
fn clocks_may_differ_by_half_a_minute() {
    let at = |clock_ms| Meeting { clock_ms, ..meeting(keys(1, 2, None)) }.end();
    let met = End::Met { suite: Suite::Aes256Gcm };
    assert_eq!(
        (at(NOW_MS - 30_000), at(NOW_MS + 30_000)),
        (met, End::Met { suite: Suite::Aes256Gcm })
    );
    let refused = |ahead_ms| End::Refused { by: "knock", why: Refused::Clock { ahead_ms } };
    assert_eq!(at(NOW_MS - 30_001), refused(30_001));
    assert_eq!(at(NOW_MS + 30_001), refused(-30_001));
}

#[test]
fn a_suite_is_chosen_among_those_offered() {
    let offering = |suites: &[Suite]| {
        Meeting { offered: SuiteSet::of(suites), ..meeting(keys(1, 2, None)) }.end()
    };
    assert_eq!(offering(&[Suite::Aes128Gcm]), End::Met { suite: Suite::Aes128Gcm });
    let none = End::Refused { by: "responder", why: Refused::NoCommonSuite };
    assert_eq!(offering(&[Suite::ChaCha20Poly1305]), none);
}

/// Every byte of both messages is covered by something: none can be changed without notice, also
/// none of the padding.
#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    use std::cell::Cell;
    thread_local!(static AT: Cell<usize> = const { Cell::new(0) });
    fn flip(wire: &mut [u8]) {
        let at = AT.get() % wire.len();
        wire[at] ^= 0x40;
    }
    for at in 0..FIRST_BYTES + BODY_BYTES_MAX {
        AT.set(at);
        let there = Meeting { on_the_way: flip, ..meeting(keys(1, 2, None)) }.end();
        assert!(matches!(there, End::Refused { .. }), "byte {at} of the first message");
        let back = Meeting { on_the_way_back: flip, ..meeting(keys(1, 2, None)) }.end();
        assert!(matches!(back, End::Refused { by: "initiator", .. }), "byte {at} of the answer");
    }
}

/// The answer to one message is no answer to another, even with all keys the same.
#[test]
fn an_answer_belongs_to_one_message() {
    let credentials = keys(1, 2, None);
    let network = network();
    let dial = Dial {
        network: &network,
        credentials: &credentials,
        kind: CarrierKind::Tcp,
        suites: SuiteSet::ALL,
        now_ms: NOW_MS,
    };
    let (mut one, mut two) = (Vec::new(), Vec::new());
    Initiator::start(&dial, b"", &mut entropy(1), &mut one);
    let mut second = Initiator::start(&dial, b"", &mut entropy(5), &mut two);
    let (first, body) = split(&mut one);
    let knock = listener().knock(first, NOW_MS).expect("it is good");
    let visitor = knock.read(&listener(), body, &mut entropy(2)).expect("it is good");
    let mut answer = Vec::new();
    assert!(visitor.accept(None, b"", &mut entropy(3), &mut answer).is_ok());
    assert_eq!(second.answered(split(&mut answer).0), Err(Refused::Stranger));
}

/// Appends a message of one kind: each that there is, saying so many bytes.
fn message(kind: usize, said: usize, entropy: &mut Entropy) -> Vec<u8> {
    let said = vec![7; said];
    let credentials = match kind {
        0 | 1 => keys(1, 2, (kind == 1).then_some(3)),
        _ => Credentials::Shared(Psk::new(secret(50))),
    };
    let network = network();
    let dial = Dial {
        network: &network,
        credentials: &credentials,
        kind: CarrierKind::Tcp,
        suites: SuiteSet::ALL,
        now_ms: NOW_MS,
    };
    let mut wire = Vec::new();
    if kind == 5 {
        return joins(entropy);
    }
    Initiator::start(&dial, &said, entropy, &mut wire);
    if kind == 0 || kind == 3 {
        // The answer to it.
        let (first, body) = split(&mut wire);
        let knock = listener().knock(first, NOW_MS).expect("it is good");
        let visitor = knock.read(&listener(), body, entropy).expect("it is good");
        let mut answer = Vec::new();
        assert!(visitor.accept(None, &said, entropy, &mut answer).is_ok());
        return answer;
    }
    wire
}

/// H2: whatever a message is and says, its length is any of 513, each as likely. Whoever sees it
/// learns nothing: not how the two know each other, not who speaks, not whether a session begins.
#[test]
fn lengths_tell_nothing() {
    const EACH: usize = 513;
    for kind in 0..6 {
        for said in [0, PAYLOAD_BYTES_MAX] {
            let mut entropy = entropy(1);
            let mut bins = [0; 9];
            for _ in 0..EACH {
                let len = message(kind, said, &mut entropy).len() - FIRST_BYTES;
                assert!((BODY_BYTES_MIN..=BODY_BYTES_MAX).contains(&len), "{kind}: {len}");
                bins[(len - BODY_BYTES_MIN) / 57] += 1;
            }
            // 57 in each are likely, and twice in a hundred million some bin has less or more.
            assert!(bins.iter().all(|bin| (17..=107).contains(bin)), "{kind}, {said}: {bins:?}");
        }
    }
}

/// A length that nobody draws is refused before anything of the body is read, though all keys are
/// right.
#[test]
fn lengths_that_are_not_drawn_are_refused() {
    let knock = |body_len| {
        let head = Head {
            mode: Mode::Keys,
            kind: CarrierKind::Tcp,
            suites: SuiteSet::ALL,
            key_id: key(2).public().id(),
            sent_ms: NOW_MS,
            body_len,
        };
        let mut wire = Vec::new();
        let salts = (&[1; 32], &[0; 32]);
        write_first(&network(), Direction::ToResponder, salts, head, &mut wire);
        let first = wire.first_chunk().expect("a head");
        listener().knock(first, NOW_MS).map(|knock| knock.body_len())
    };
    for len in [BODY_BYTES_MIN as u16, BODY_BYTES_MAX as u16] {
        assert_eq!(knock(len), Ok(usize::from(len)));
    }
    for len in [0, 24, BODY_BYTES_MIN as u16 - 1, BODY_BYTES_MAX as u16 + 1, u16::MAX] {
        assert_eq!(knock(len), Err(Refused::Length));
    }
}

fn epoch(byte: u8) -> EpochSecret {
    EpochSecret::first(&[secret(byte), secret(byte)], b"a transcript")
}

fn joins(entropy: &mut Entropy) -> Vec<u8> {
    let mut wire = Vec::new();
    let dial = (&network(), CarrierKind::Tcp, NOW_MS);
    write_join(dial, (SessionId(77), 5, 3), &epoch(1), entropy, &mut wire);
    wire
}

fn join_read(wire: &mut [u8]) -> Result<JoinRequest, Refused> {
    let (first, body) = split(wire);
    listener().knock(first, NOW_MS)?.read_join(body)
}

#[test]
fn a_carrier_joins_with_the_secret_and_not_without() {
    let mut wire = joins(&mut entropy(1));
    let request = join_read(&mut wire).expect("it is good");
    assert_eq!((request.session, request.carrier, request.epoch), (SessionId(77), 5, 3));
    assert_eq!(request.verify(&epoch(1)), Ok(()));
    assert_eq!(request.verify(&epoch(2)), Err(Refused::Forged));
}

#[test]
fn a_join_is_handed_to_another_shard_as_it_is() {
    let mut wire = joins(&mut entropy(1));
    let request = join_read(&mut wire).expect("it is good");
    let mut note = Vec::new();
    request.write_note(&mut note);
    let len = note.len();
    for cut in 0..len {
        assert!(matches!(JoinRequest::read_note(&note[..cut]), Err(Refused::Length)));
    }
    note.extend_from_slice(b"records");
    let (read, taken) = JoinRequest::read_note(&note).expect("whole");
    assert_eq!((read.session, read.carrier, read.epoch, taken), (SessionId(77), 5, 3, len));
    assert_eq!(read.verify(&epoch(1)), Ok(()));
}

#[test]
fn a_flipped_bit_of_a_join_is_noticed() {
    let good = joins(&mut entropy(1));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let end = join_read(&mut bad).and_then(|request| request.verify(&epoch(1)));
        assert!(end.is_err(), "byte {at}");
    }
}

/// A message of one mode does not pass for one of another, and a cut one for a whole one.
#[test]
fn modes_and_lengths_are_kept_apart() {
    let mut wire = joins(&mut entropy(1));
    let (first, body) = split(&mut wire);
    let knock = listener().knock(first, NOW_MS).expect("it is good");
    let read = knock.read(&listener(), body, &mut entropy(2));
    assert!(matches!(read, Err(Refused::Length)));
    let mut wire = joins(&mut entropy(1));
    let (first, body) = split(&mut wire);
    let knock = listener().knock(first, NOW_MS).expect("it is good");
    let cut = body.len() - 1;
    assert!(matches!(knock.read_join(&mut body[..cut]), Err(Refused::Length)));
}
