//! How two ends come to share the secret of a session, in one message each way.
//!
//! ```text
//! initiator                                          responder
//!   salt | head | mac | Noise message 1  ---------->   read the first 72 bytes; the MAC
//!                                                       read the body; who is it, may they?
//!   read, derive  <---------- salt | head | mac | Noise message 2
//!   first record of carrier 0  ------------------->   the session exists
//! ```
//!
//! Noise `IKpsk2` with key pairs, `NNpsk0` with one secret of the two. The prologue is everything
//! that was said outside: version, mode, kind of carrier, offered suites, clock, salt, and whose
//! identity it is for, so that a message is good for one responder, one kind and one offer.
//!
//! A further carrier *joins* in one message without an answer: it names the session, a carrier
//! number that was never used, and proves to know the session's secret.
//!
//! What always holds:
//! - H1  A responder's work before the first MAC verifies is, for each of its network keys, a
//!   message's two keys by HKDF and one HMAC over 56 bytes; nothing is kept.
//! - H2  Lengths say nothing: the body of every message, whatever it is and says, has a length that
//!   is drawn from [`BODY_BYTES_MIN`] to [`BODY_BYTES_MAX`], each as likely. What is not needed is
//!   padding inside what is sealed or proved.
//! - H3  A message that was changed, meant for another, or answered by another ends in [`Refused`],
//!   and what is refused looks the same from outside.
//!
//! Not here: which salts came before (`replay.rs`), who may connect, when to try again.

use core::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use ringway_core::wire::{Reader, Truncated};
use sha2::Sha256;
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use crate::aead::TAG_BYTES;
use crate::entropy::Entropy;
use crate::keys::{NetworkKey, PrivateKey, Psk, PublicKey};
use crate::noise::Primitives;
use crate::outer::{
    CarrierKind, FIRST_BYTES, Head, KeyId, Mask, Mode, Salt, read_first, write_first,
};
use crate::schedule::{CarrierId, Direction, EpochSecret, SessionId, expand};
use crate::secret::Secret;
use crate::suite::{Suite, SuiteSet};

/// Bytes that each side may say in its message, sealed.
pub const PAYLOAD_BYTES_MAX: usize = 256;
/// Bytes of a body at least, which is room for the one that needs most: an ephemeral key, a sealed
/// identity, all that may be said, and a tag. Shorter ones are refused.
pub const BODY_BYTES_MIN: usize = 32 + IDENTITY_BYTES + SAID_BYTES + PAYLOAD_BYTES_MAX + TAG_BYTES;
/// Bytes of a body at most. Longer ones are refused.
pub const BODY_BYTES_MAX: usize = BODY_BYTES_MIN + 512;
/// A public key and its tag.
const IDENTITY_BYTES: usize = 48;
/// Suite and length before a payload.
const SAID_BYTES: usize = 3;
/// How far clocks may differ, in milliseconds. Salts are remembered for as long.
pub(crate) const CLOCK_SKEW_MS: u64 = 30_000;

const _: () = assert!(FIRST_BYTES + BODY_BYTES_MAX <= 1024, "a half-open handshake is 1 KiB");

/// Why a message was not taken. For counters and the log of this side only: nobody is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The first MAC does not verify: a stranger, another network key, another version.
    Stranger,
    /// The sender's clock differs too much. Positive: it is ahead of ours.
    Clock {
        /// By how much.
        ahead_ms: i64,
    },
    /// It is for a key that is not ours.
    UnknownKey(KeyId),
    /// A length that no message of this kind has.
    Length,
    /// It is authentic for the network but not from whom it says, not for us, or changed.
    Forged,
    /// None of the offered suites is allowed here.
    NoCommonSuite,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stranger => f.write_str("the first bytes are not under our network key"),
            Self::Clock { ahead_ms } => {
                write!(f, "the sender's clock is {ahead_ms} ms ahead of ours; 30000 are allowed")
            }
            Self::UnknownKey(id) => write!(f, "it is for key {:016x}, which is not ours", id.0),
            Self::Length => f.write_str("its length is that of no message"),
            Self::Forged => f.write_str("it does not verify"),
            Self::NoCommonSuite => f.write_str("none of the offered suites is allowed here"),
        }
    }
}

impl core::error::Error for Refused {}

/// What an initiator has to show, and to whom.
#[derive(Clone)]
pub enum Credentials {
    /// Key pairs on both sides.
    Keys {
        /// Ours.
        mine: PrivateKey,
        /// Theirs.
        theirs: PublicKey,
        /// A second secret of the two, if there is.
        psk: Option<Psk>,
    },
    /// One secret that belongs to exactly these two.
    Shared(Psk),
}

impl Credentials {
    fn mode(&self) -> Mode {
        match self {
            Self::Keys { .. } => Mode::Keys,
            Self::Shared(_) => Mode::Shared,
        }
    }

    fn key_id(&self) -> KeyId {
        match self {
            Self::Keys { theirs, .. } => theirs.id(),
            Self::Shared(psk) => psk.id(),
        }
    }
}

impl PublicKey {
    /// What names this key in a head.
    pub fn id(&self) -> KeyId {
        key_id(&Hkdf::new(None, self.as_bytes()))
    }
}

impl Psk {
    /// What names this secret in a head.
    pub fn id(&self) -> KeyId {
        key_id(&Hkdf::new(None, self.secret().expose()))
    }
}

fn key_id(hkdf: &Hkdf<Sha256>) -> KeyId {
    let bytes = expand(hkdf, "key id", &[]);
    KeyId(u64::from_le_bytes(*bytes.expose().first_chunk().expect("8 of 32 bytes")))
}

/// How to begin a session.
pub struct Dial<'a> {
    /// The network that both are in.
    pub network: &'a NetworkKey,
    /// Who we are, and whom we want.
    pub credentials: &'a Credentials,
    /// What the carrier runs on.
    pub kind: CarrierKind,
    /// The suites that we accept.
    pub suites: SuiteSet,
    /// Our clock, in milliseconds since 1970.
    pub now_ms: u64,
}

/// Whom a session is with, as proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerProof {
    /// Who has the private half of this key.
    Key(PublicKey),
    /// Who has the pre-shared secret of this id.
    Shared(KeyId),
}

/// A session's beginning, the same at both ends.
pub struct Established {
    /// What all its keys follow from.
    pub secret: EpochSecret,
    /// The cipher, chosen by the responder among those offered.
    pub suite: Suite,
    /// Who is at the other end.
    pub peer: PeerProof,
    /// What the other end said. It may be a secret.
    pub payload: Zeroizing<Vec<u8>>,
}

/// The initiator's side, between its message and the answer.
pub struct Initiator {
    noise: HandshakeState,
    network: NetworkKey,
    salt: Salt,
    head: Head,
    peer: PeerProof,
    reply_mask: Option<Mask>,
}

impl Initiator {
    /// Begins: appends the first message, which also says `payload`, to `out`.
    ///
    /// # Panics
    /// If `payload` is longer than [`PAYLOAD_BYTES_MAX`].
    pub fn start(
        dial: &Dial<'_>,
        payload: &[u8],
        entropy: &mut Entropy,
        out: &mut Vec<u8>,
    ) -> Initiator {
        let salt: Salt = entropy.array();
        let mode = dial.credentials.mode();
        let body_len = draw_body_len(entropy);
        let head = Head {
            mode,
            kind: dial.kind,
            suites: dial.suites,
            key_id: dial.credentials.key_id(),
            sent_ms: dial.now_ms,
            body_len,
        };
        let identity = if mode == Mode::Keys { IDENTITY_BYTES } else { 0 };
        let said = say(0, payload, usize::from(body_len) - 32 - identity - TAG_BYTES);
        let (mut noise, peer) = initiator(dial.credentials, &salt, head, entropy);
        let salts = (&salt, &[0; 32]);
        let mut mask = write_first(dial.network, Direction::ToResponder, salts, head, out);
        write_body(&mut noise, &said, &mut mask, out);
        let network = dial.network.clone();
        Initiator { noise, network, salt, head, peer, reply_mask: None }
    }

    /// Reads the first bytes of the answer and says how many follow.
    ///
    /// # Errors
    /// [`Refused`] if it is not the answer to our message.
    pub fn answered(&mut self, first: &[u8; FIRST_BYTES]) -> Result<usize, Refused> {
        let read = read_first(&self.network, Direction::ToInitiator, &self.salt, first);
        let (_, head, mask) = read.ok_or(Refused::Stranger)?;
        self.reply_mask = Some(mask);
        body_len(head)
    }

    /// Reads the body of the answer, in place.
    ///
    /// # Errors
    /// [`Refused`] if it does not verify, or chooses what was not offered.
    ///
    /// # Panics
    /// Before [`Self::answered`].
    pub fn finish(mut self, body: &mut [u8]) -> Result<Established, Refused> {
        self.reply_mask.take().expect("the first bytes were read").apply(body);
        let said = read_body(&mut self.noise, body)?;
        let (suite, payload) = heard(&said)?;
        let suite = Suite::from_wire(suite).filter(|suite| self.head.suites.contains(*suite));
        let suite = suite.ok_or(Refused::NoCommonSuite)?;
        let payload = Zeroizing::new(payload.to_vec());
        Ok(Established { secret: epoch_secret(self.noise), suite, peer: self.peer, payload })
    }
}

/// What a responder is, and takes.
pub struct Listener {
    /// The network's keys: one, or two while one replaces the other.
    pub networks: Vec<NetworkKey>,
    /// Its own keys: one, or two while one replaces the other; none if all peers share secrets.
    pub identities: Vec<PrivateKey>,
    /// Secrets shared with one peer each.
    pub shared: Vec<Psk>,
    /// The suites that it takes, the best first.
    pub suites: Vec<Suite>,
}

/// A message of which the first bytes verified.
pub struct Knock {
    network: NetworkKey,
    mask: Mask,
    /// What it says before its body.
    pub head: Head,
    /// Its salt. Whoever brings one a second time replays.
    pub salt: Salt,
}

impl Listener {
    /// Reads the first bytes of a carrier. `now_ms` is our clock.
    ///
    /// # Errors
    /// [`Refused`]: nothing was kept.
    pub fn knock(&self, first: &[u8; FIRST_BYTES], now_ms: u64) -> Result<Knock, Refused> {
        let read = |network| {
            let (salt, head, mask) = read_first(network, Direction::ToResponder, &[0; 32], first)?;
            Some(Knock { network: network.clone(), mask, head, salt })
        };
        let knock = self.networks.iter().find_map(read).ok_or(Refused::Stranger)?;
        if now_ms.abs_diff(knock.head.sent_ms) > CLOCK_SKEW_MS {
            let ahead = i128::from(knock.head.sent_ms) - i128::from(now_ms);
            let bound = i128::from(i64::MAX);
            return Err(Refused::Clock { ahead_ms: ahead.clamp(-bound, bound) as i64 });
        }
        body_len(knock.head)?;
        Ok(knock)
    }
}

impl Knock {
    /// Bytes that follow.
    pub fn body_len(&self) -> usize {
        usize::from(self.head.body_len)
    }

    /// Reads the body of a message that begins a session, in place. `entropy` is for the answer.
    ///
    /// # Errors
    /// [`Refused`]; also for a message that joins.
    pub fn read(
        mut self,
        listener: &Listener,
        body: &mut [u8],
        entropy: &mut Entropy,
    ) -> Result<Visitor, Refused> {
        if self.head.mode == Mode::Join || body.len() != self.body_len() {
            return Err(Refused::Length);
        }
        let suite = listener.suites.iter().find(|suite| self.head.suites.contains(**suite));
        let suite = *suite.ok_or(Refused::NoCommonSuite)?;
        self.mask.apply(body);
        let mut noise = responder(listener, &self.salt, self.head, entropy)?;
        let said = read_body(&mut noise, body)?;
        let (_, payload) = heard(&said)?;
        let payload = Zeroizing::new(payload.to_vec());
        let peer = match noise.get_remote_static() {
            None => PeerProof::Shared(self.head.key_id),
            Some(key) => {
                PeerProof::Key(PublicKey::new(key.try_into().map_err(|_| Refused::Forged)?))
            }
        };
        Ok(Visitor {
            noise,
            network: self.network,
            salt: self.salt,
            head: self.head,
            suite,
            peer,
            payload,
        })
    }

    /// Reads the body of a message that joins a session, in place.
    ///
    /// # Errors
    /// [`Refused`]; also for a message that begins a session.
    pub fn read_join(mut self, body: &mut [u8]) -> Result<JoinRequest, Refused> {
        if self.head.mode != Mode::Join || body.len() != self.body_len() {
            return Err(Refused::Length);
        }
        self.mask.apply(body);
        let mut reader = Reader::new(body);
        let mut fields = || -> Result<_, Truncated> {
            Ok((reader.u32()?, reader.u32()?, reader.array::<PROOF_BYTES>()?))
        };
        let (carrier, epoch, proof) = fields().map_err(|Truncated| Refused::Length)?;
        let mut said = Vec::with_capacity(64 + body.len());
        said.extend_from_slice(&self.salt);
        said.extend_from_slice(&prologue(&self.salt, self.head, &[]));
        said.extend_from_slice(&body[..8]);
        said.extend_from_slice(reader.rest());
        let session = SessionId(self.head.key_id.0);
        Ok(JoinRequest { session, carrier, epoch, kind: self.head.kind, said, proof })
    }
}

/// Somebody who has proved who they are, and waits to be let in.
pub struct Visitor {
    noise: HandshakeState,
    network: NetworkKey,
    salt: Salt,
    head: Head,
    suite: Suite,
    /// Who.
    pub peer: PeerProof,
    /// What they said. It may be a secret.
    pub payload: Zeroizing<Vec<u8>>,
}

impl Visitor {
    /// The cipher that the session will have.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// What their carrier runs on.
    pub fn kind(&self) -> CarrierKind {
        self.head.kind
    }

    /// Lets them in: appends the answer, which also says `payload`, to `out`. `psk` is the second
    /// secret shared with this peer, if there is one.
    ///
    /// # Errors
    /// [`Refused::Forged`] if their key is of the few with which everybody gets the same secret.
    ///
    /// # Panics
    /// If `payload` is longer than [`PAYLOAD_BYTES_MAX`].
    pub fn accept(
        mut self,
        psk: Option<&Psk>,
        payload: &[u8],
        entropy: &mut Entropy,
        out: &mut Vec<u8>,
    ) -> Result<Established, Refused> {
        if self.head.mode == Mode::Keys {
            let psk = psk.map_or(&[0; 32], |psk| psk.secret().expose());
            self.noise.set_psk(2, psk).expect("IKpsk2 has a psk at 2");
        }
        let body_len = draw_body_len(entropy);
        let said = say(self.suite as u8, payload, usize::from(body_len) - 32 - TAG_BYTES);
        let head = Head { body_len, ..self.head };
        let salt: Salt = entropy.array();
        let start = out.len();
        let salts = (&salt, &self.salt);
        let mut mask = write_first(&self.network, Direction::ToInitiator, salts, head, out);
        if !write_body(&mut self.noise, &said, &mut mask, out) {
            out.truncate(start);
            return Err(Refused::Forged);
        }
        let secret = epoch_secret(self.noise);
        Ok(Established { secret, suite: self.suite, peer: self.peer, payload: self.payload })
    }
}

const PROOF_BYTES: usize = 16;

/// Somebody who says that they bring a further carrier of a session.
pub struct JoinRequest {
    /// The session.
    pub session: SessionId,
    /// The carrier's number; a session takes each once.
    pub carrier: CarrierId,
    /// The number of the epoch whose keys the carrier begins with.
    pub epoch: u32,
    /// What it runs on.
    pub kind: CarrierKind,
    said: Vec<u8>,
    proof: [u8; PROOF_BYTES],
}

impl JoinRequest {
    /// Whether they know the secret of the epoch.
    ///
    /// # Errors
    /// [`Refused::Forged`].
    pub fn verify(&self, secret: &EpochSecret) -> Result<(), Refused> {
        join_mac(secret, &self.said).verify_truncated_left(&self.proof).map_err(|_| Refused::Forged)
    }

    /// Appends the request as a note from one shard of a process to another, which has the session.
    pub fn write_note(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.session.0.to_le_bytes());
        out.extend_from_slice(&self.carrier.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.push(self.kind as u8);
        out.extend_from_slice(&self.proof);
        out.extend_from_slice(&(self.said.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.said);
    }

    /// Reads a note; returns the request and how long it was.
    ///
    /// # Errors
    /// [`Refused::Length`] for what is none.
    pub fn read_note(note: &[u8]) -> Result<(JoinRequest, usize), Refused> {
        let mut reader = Reader::new(note);
        let mut fields = || -> Result<_, Truncated> {
            let (session, carrier, epoch) = (reader.u64()?, reader.u32()?, reader.u32()?);
            let (kind, proof) = (reader.u8()?, reader.array()?);
            let said = usize::from(reader.u16()?);
            Ok((SessionId(session), carrier, epoch, kind, proof, reader.bytes(said)?.to_vec()))
        };
        let read = fields().map_err(|Truncated| Refused::Length)?;
        let (session, carrier, epoch, kind, proof, said) = read;
        let kind = CarrierKind::from_wire(kind).ok_or(Refused::Length)?;
        let len = note.len() - reader.rest().len();
        Ok((JoinRequest { session, carrier, epoch, kind, said, proof }, len))
    }
}

/// Appends the message with which `carrier` joins `session` in `epoch`, whose secret is `secret`.
/// `to` says in which network, on what the carrier runs, and our clock in milliseconds since 1970.
/// Who we are and which suite it is follow from the session and are not sent.
pub fn write_join(
    to: (&NetworkKey, CarrierKind, u64),
    (session, carrier, epoch): (SessionId, CarrierId, u32),
    secret: &EpochSecret,
    entropy: &mut Entropy,
    out: &mut Vec<u8>,
) {
    let (network, kind, now_ms) = to;
    let body_len = draw_body_len(entropy);
    let mut pad = vec![0; usize::from(body_len) - 8 - PROOF_BYTES];
    entropy.fill(&mut pad);
    let head = Head {
        mode: Mode::Join,
        kind,
        suites: SuiteSet::of(&[]),
        key_id: KeyId(session.0),
        sent_ms: now_ms,
        body_len,
    };
    let salt: Salt = entropy.array();
    let mut numbers = [0; 8];
    numbers[..4].copy_from_slice(&carrier.to_le_bytes());
    numbers[4..].copy_from_slice(&epoch.to_le_bytes());
    let mut said = salt.to_vec();
    said.extend_from_slice(&prologue(&salt, head, &[]));
    said.extend_from_slice(&numbers);
    said.extend_from_slice(&pad);
    let proof = join_mac(secret, &said).finalize().into_bytes();
    let mut mask = write_first(network, Direction::ToResponder, (&salt, &[0; 32]), head, out);
    let start = out.len();
    out.extend_from_slice(&numbers);
    out.extend_from_slice(&proof[..PROOF_BYTES]);
    out.extend_from_slice(&pad);
    mask.apply(&mut out[start..]);
}

fn join_mac(secret: &EpochSecret, said: &[u8]) -> Hmac<Sha256> {
    let mac = Hmac::new_from_slice(secret.join_key().expose()).expect("any length is a key");
    mac.chain_update(said)
}

/// What both ends know before the Noise message, in one string that reads in one way only.
fn prologue(salt: &Salt, head: Head, identity: &[u8]) -> Vec<u8> {
    [b"ringway 1 tunnel\0", &salt[..], &head.to_wire()[..], identity].concat()
}

fn builder(pattern: &str, entropy: &mut Entropy) -> Builder<'static> {
    let params = pattern.parse().expect("a pattern that snow knows");
    Builder::with_resolver(params, Primitives::new(Entropy::from_seed(entropy.secret())))
}

const KEYS_PATTERN: &str = "Noise_IKpsk2_25519_AESGCM_SHA256";
const SHARED_PATTERN: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";

fn initiator(
    credentials: &Credentials,
    salt: &Salt,
    head: Head,
    entropy: &mut Entropy,
) -> (HandshakeState, PeerProof) {
    const ONCE: &str = "each is set once, and has its length";
    let (noise, peer) = match credentials {
        Credentials::Keys { mine, theirs, psk } => {
            let psk = psk.as_ref().map_or(&[0; 32], |psk| psk.secret().expose());
            let prologue = prologue(salt, head, theirs.as_bytes());
            let noise = builder(KEYS_PATTERN, entropy)
                .prologue(&prologue)
                .and_then(|builder| builder.local_private_key(mine.secret().expose()))
                .and_then(|builder| builder.remote_public_key(theirs.as_bytes()))
                .and_then(|builder| builder.psk(2, psk))
                .and_then(Builder::build_initiator);
            (noise, PeerProof::Key(*theirs))
        }
        Credentials::Shared(psk) => {
            let prologue = prologue(salt, head, &[]);
            let noise = builder(SHARED_PATTERN, entropy)
                .prologue(&prologue)
                .and_then(|builder| builder.psk(0, psk.secret().expose()))
                .and_then(Builder::build_initiator);
            (noise, PeerProof::Shared(psk.id()))
        }
    };
    (noise.expect(ONCE), peer)
}

fn responder(
    listener: &Listener,
    salt: &Salt,
    head: Head,
    entropy: &mut Entropy,
) -> Result<HandshakeState, Refused> {
    let unknown = Refused::UnknownKey(head.key_id);
    let noise = match head.mode {
        Mode::Keys => {
            let mut mine = listener.identities.iter().map(|key| (key, key.public()));
            let (mine, public) =
                mine.find(|(_, public)| public.id() == head.key_id).ok_or(unknown)?;
            let prologue = prologue(salt, head, public.as_bytes());
            builder(KEYS_PATTERN, entropy)
                .prologue(&prologue)
                .and_then(|builder| builder.local_private_key(mine.secret().expose()))
                .and_then(Builder::build_responder)
        }
        Mode::Shared => {
            let psk = listener.shared.iter().find(|psk| psk.id() == head.key_id).ok_or(unknown)?;
            let prologue = prologue(salt, head, &[]);
            builder(SHARED_PATTERN, entropy)
                .prologue(&prologue)
                .and_then(|builder| builder.psk(0, psk.secret().expose()))
                .and_then(Builder::build_responder)
        }
        Mode::Join => return Err(Refused::Length),
    };
    Ok(noise.expect("each is set once, and has its length"))
}

/// How long the body of a message is (H2).
fn draw_body_len(entropy: &mut Entropy) -> u16 {
    let lengths = (BODY_BYTES_MAX - BODY_BYTES_MIN + 1) as u64;
    BODY_BYTES_MIN as u16 + entropy.below(lengths) as u16
}

/// How long the body behind a head is, if it is one that is drawn.
fn body_len(head: Head) -> Result<usize, Refused> {
    let len = usize::from(head.body_len);
    if (BODY_BYTES_MIN..=BODY_BYTES_MAX).contains(&len) { Ok(len) } else { Err(Refused::Length) }
}

/// What a side says inside what is sealed, `len` bytes together: a suite's number, its payload, and
/// padding.
fn say(suite: u8, payload: &[u8], len: usize) -> Zeroizing<Vec<u8>> {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "the caller's payloads have a fixed form");
    let mut said = Zeroizing::new(Vec::with_capacity(len));
    said.push(suite);
    said.extend_from_slice(&(payload.len() as u16).to_le_bytes());
    said.extend_from_slice(payload);
    said.resize(len, 0);
    said
}

fn heard(said: &[u8]) -> Result<(u8, &[u8]), Refused> {
    let mut reader = Reader::new(said);
    let mut fields = || -> Result<_, Truncated> {
        let (suite, len) = (reader.u8()?, reader.u16()?);
        Ok((suite, reader.bytes(usize::from(len))?))
    };
    let (suite, payload) = fields().map_err(|Truncated| Refused::Length)?;
    if payload.len() > PAYLOAD_BYTES_MAX { Err(Refused::Length) } else { Ok((suite, payload)) }
}

/// Appends a masked Noise message. False if the peer's key gives no secret; `out` is spoilt then.
fn write_body(noise: &mut HandshakeState, said: &[u8], mask: &mut Mask, out: &mut Vec<u8>) -> bool {
    let mut body = [0; BODY_BYTES_MAX];
    let Ok(len) = noise.write_message(said, &mut body) else { return false };
    mask.apply(&mut body[..len]);
    out.extend_from_slice(&body[..len]);
    true
}

fn read_body(noise: &mut HandshakeState, body: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let mut said = Zeroizing::new(vec![0; BODY_BYTES_MAX]);
    let len = noise.read_message(body, &mut said).map_err(|_| Refused::Forged)?;
    said.truncate(len);
    Ok(said)
}

fn epoch_secret(mut noise: HandshakeState) -> EpochSecret {
    let (one, two) = noise.dangerously_get_raw_split();
    let (one, two) = (Zeroizing::new(one), Zeroizing::new(two));
    let split = [Secret::new(*one), Secret::new(*two)];
    EpochSecret::first(&split, noise.get_handshake_hash())
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
