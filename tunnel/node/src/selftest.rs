//! What our carriers look like to who sees them pass, from messages made for this purpose.
//!
//! The messages are made as the tunnel makes them, under keys that are drawn for this run: one
//! network, one pair of sites, as a censor sees them who watches one line for long. What would be
//! the same in many carriers of one network shows; keys that changed with each message would hide
//! it. The verdicts are `ringway_tunnel_proto::Sample`'s.
//!
//! Not here: what connections of processes look like (times, sizes of what follows, ports).

use ringway_crypto::{
    Backend, CarrierKind, Credentials, Dial, Direction, Entropy, EpochSecret, FIRST_BYTES,
    Initiator, Listener, NetworkKey, PrivateKey, Psk, RECORD_OVERHEAD, RecordSealer, SessionId,
    Suite, SuiteSet, write_join,
};
use ringway_tunnel_proto::{Sample, Uniformity};

/// A kind of message that can be the first that is seen of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Who dials begins a session by key pairs.
    Keys,
    /// Who dials begins a session by a secret that the two share.
    Shared,
    /// Who dials brings a further carrier.
    Join,
    /// The answer to [`First::Keys`].
    KeysAnswer,
    /// The answer to [`First::Shared`].
    SharedAnswer,
    /// The first record behind any of them, with a text of zeros.
    Record,
}

impl First {
    /// All of them.
    pub const ALL: [First; 6] = [
        First::Keys,
        First::Shared,
        First::Join,
        First::KeysAnswer,
        First::SharedAnswer,
        First::Record,
    ];

    /// A name for programs.
    pub const fn name(self) -> &'static str {
        match self {
            First::Keys => "keys",
            First::Shared => "shared",
            First::Join => "join",
            First::KeysAnswer => "keys-answer",
            First::SharedAnswer => "shared-answer",
            First::Record => "record",
        }
    }

    /// Whether it is the first packet of a connection, which is what the heuristic looks at.
    pub const fn opens(self) -> bool {
        matches!(self, First::Keys | First::Shared | First::Join)
    }
}

/// What was seen of one kind.
pub struct Seen {
    /// Which.
    pub first: First,
    /// The messages, counted.
    pub sample: Sample,
    /// The first verdict over them.
    pub uniformity: Uniformity,
}

/// Makes so many messages of each kind and judges them. `entropy` draws the keys; `now_ms` is the
/// clock that the messages say, in milliseconds since 1970.
pub fn look_at_ourselves(messages: u32, now_ms: u64, mut entropy: Entropy) -> Vec<Seen> {
    let sites = Sites::new(&mut entropy, now_ms);
    let begun = sites.begin(&sites.shared, &mut entropy);
    let (_, epoch) = sites.answer(begun, &mut entropy);
    let session = (SessionId(u64::from_le_bytes(entropy.array())), &epoch);
    let look = |first| {
        let mut sample = Sample::new();
        for number in 0..messages {
            sample.add(&sites.message(first, number, session, &mut entropy));
        }
        let uniformity = sample.judge();
        Seen { first, sample, uniformity }
    };
    First::ALL.map(look).into()
}

/// Two sites that know each other.
struct Sites {
    keys: Credentials,
    shared: Credentials,
    listener: Listener,
    now_ms: u64,
}

impl Sites {
    fn new(entropy: &mut Entropy, now_ms: u64) -> Sites {
        let network = NetworkKey::new(entropy.secret());
        let (mine, theirs) = (entropy.secret(), PrivateKey::new(entropy.secret()));
        let psk = Psk::new(entropy.secret());
        let keys =
            Credentials::Keys { mine: PrivateKey::new(mine), theirs: theirs.public(), psk: None };
        let listener = Listener {
            networks: vec![network],
            identities: vec![theirs],
            shared: vec![psk.clone()],
            suites: Suite::ALL.to_vec(),
        };
        Sites { keys, shared: Credentials::Shared(psk), listener, now_ms }
    }

    /// The first message of carrier `number`.
    fn message(
        &self,
        first: First,
        number: u32,
        (session, epoch): (SessionId, &EpochSecret),
        entropy: &mut Entropy,
    ) -> Vec<u8> {
        match first {
            First::Keys => self.begin(&self.keys, entropy),
            First::Shared => self.begin(&self.shared, entropy),
            First::KeysAnswer => self.answer(self.begin(&self.keys, entropy), entropy).0,
            First::SharedAnswer => self.answer(self.begin(&self.shared, entropy), entropy).0,
            First::Join => {
                let mut out = Vec::new();
                let to = (&self.listener.networks[0], CarrierKind::Tcp, self.now_ms);
                write_join(to, (session, number, 0), epoch, entropy, &mut out);
                out
            }
            First::Record => {
                let suite = Suite::ALL[number as usize % Suite::ALL.len()];
                let keys = epoch.traffic(suite, Direction::ToResponder, number);
                let mut record = vec![0; TEXT_BYTES + RECORD_OVERHEAD];
                let mut sealer = RecordSealer::new(&keys, Backend::AwsLc);
                sealer.seal(&mut record).expect("the key is fresh");
                record
            }
        }
    }

    fn begin(&self, credentials: &Credentials, entropy: &mut Entropy) -> Vec<u8> {
        let dial = Dial {
            network: &self.listener.networks[0],
            credentials,
            kind: CarrierKind::Tcp,
            suites: SuiteSet::ALL,
            now_ms: self.now_ms,
        };
        let mut out = Vec::new();
        Initiator::start(&dial, &[], entropy, &mut out);
        out
    }

    fn answer(&self, mut message: Vec<u8>, entropy: &mut Entropy) -> (Vec<u8>, EpochSecret) {
        const OURS: &str = "the message was just made";
        let (first, body) = message.split_first_chunk_mut::<FIRST_BYTES>().expect(OURS);
        let knock = self.listener.knock(first, self.now_ms).expect(OURS);
        let visitor = knock.read(&self.listener, body, entropy).expect(OURS);
        let mut out = Vec::new();
        let established = visitor.accept(None, &[], entropy, &mut out).expect(OURS);
        (out, established.secret)
    }
}

/// Bytes of a record's text.
const TEXT_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use ringway_crypto::Secret;

    use super::*;

    /// Each kind is uniform in every position up to its shortest message, is as long as chance
    /// would have it and as any other, and would be matched by who looks for uniform bytes. That is
    /// the promise, and the other side of it.
    #[test]
    fn first_messages_look_like_chance_and_like_nothing_else() {
        let entropy = Entropy::from_seed(Secret::new([7; 32]));
        for seen in look_at_ourselves(400, 1_700_000_000_000, entropy) {
            let (name, judged) = (seen.first.name(), &seen.uniformity);
            assert!(judged.is_uniform(), "{name}: {:?}", judged.flaws);
            let lengths = seen.sample.lengths().expect("there are messages");
            assert!(judged.positions >= lengths.min, "{name}: {judged:?}");
            assert!(seen.sample.fully_encrypted() > 380, "{name}: {:?}", seen.sample.exempt());
            if seen.first == First::Record {
                assert_eq!(lengths.distinct, 1, "records are as long as what is sent");
            } else {
                assert!(lengths.distinct > 150 && lengths.commonest < 12, "{name}: {lengths:?}");
                assert!(lengths.min < 450 && lengths.max > 915, "{name}: {lengths:?}");
                assert!((427..=939).contains(&lengths.min) && lengths.max <= 939, "{lengths:?}");
                assert!((653.0..713.0).contains(&lengths.mean), "{name}: {lengths:?}");
            }
        }
    }
}
