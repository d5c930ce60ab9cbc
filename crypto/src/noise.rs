//! The Noise framework's primitives for snow, over the libraries that are here anyway: X25519 and
//! AES-256-GCM by aws-lc, SHA-256 by sha2, and randomness from the caller's [`Entropy`].

use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use zeroize::Zeroizing;

use crate::aead::{Aead, Backend, TAG_BYTES};
use crate::entropy::Entropy;
use crate::keys::{PrivateKey, PublicKey};
use crate::secret::Secret;
use crate::suite::Suite;

/// What snow asks for primitives.
pub(crate) struct Primitives {
    /// snow takes one generator from a shared reference; it is given away once.
    entropy: Mutex<Option<Entropy>>,
}

impl Primitives {
    pub(crate) fn new(entropy: Entropy) -> Box<Self> {
        Box::new(Self { entropy: Mutex::new(Some(entropy)) })
    }
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        let mut entropy = self.entropy.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Box::new(Chance(entropy.take()?)))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(Curve { private: None, public: [0; 32] })),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            HashChoice::SHA256 => Some(Box::new(Sha(Sha256::new()))),
            _ => None,
        }
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        match choice {
            CipherChoice::AESGCM => Some(Box::new(Gcm(Mutex::new(None)))),
            _ => None,
        }
    }
}

struct Chance(Entropy);

impl Random for Chance {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill(dest);
        Ok(())
    }
}

struct Curve {
    private: Option<PrivateKey>,
    public: [u8; 32],
}

impl Dh for Curve {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, privkey: &[u8]) {
        let private = PrivateKey::new(Secret::filled(|bytes| bytes.copy_from_slice(privkey)));
        self.public = *private.public().as_bytes();
        self.private = Some(private);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *bytes)?;
        self.set(&*bytes);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.private.as_ref().map_or(&[], |private| private.secret().expose())
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let private = self.private.as_ref().ok_or(snow::Error::Dh)?;
        let theirs: [u8; 32] = pubkey[..32].try_into().map_err(|_| snow::Error::Dh)?;
        let shared = private.agree(&PublicKey::new(theirs)).map_err(|_| snow::Error::Dh)?;
        out[..32].copy_from_slice(shared.expose());
        Ok(())
    }
}

struct Sha(Sha256);

impl Hash for Sha {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        out[..32].copy_from_slice(&self.0.finalize_reset());
    }
}

/// snow wants ciphers that threads may share; ours is used by one, so the lock is never waited for.
struct Gcm(Mutex<Option<Box<dyn Aead>>>);

impl Gcm {
    fn with<R>(&self, act: impl FnOnce(&dyn Aead) -> R) -> R {
        let key = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(key.as_deref().expect("snow sets a key before it uses a cipher"))
    }

    /// Noise, section 12.4: 32 zero bits, then the number with its high end first.
    fn nonce(number: u64) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&number.to_be_bytes());
        nonce
    }
}

impl Cipher for Gcm {
    fn name(&self) -> &'static str {
        "AESGCM"
    }

    fn set(&mut self, key: &[u8; 32]) {
        let key = Backend::AwsLc.key(Suite::Aes256Gcm, key);
        *self.0.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }

    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (text, rest) = out.split_at_mut(plaintext.len());
        text.copy_from_slice(plaintext);
        let tag = self.with(|key| key.seal(Gcm::nonce(nonce), authtext, text));
        rest[..TAG_BYTES].copy_from_slice(&tag);
        plaintext.len() + TAG_BYTES
    }

    fn decrypt(
        &self,
        nonce: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        let mut text = Zeroizing::new(ciphertext.to_vec());
        self.with(|key| key.open(Gcm::nonce(nonce), authtext, &mut text))
            .map_err(|_| snow::Error::Decrypt)?;
        let text = &text[..text.len() - TAG_BYTES];
        out.get_mut(..text.len()).ok_or(snow::Error::Input)?.copy_from_slice(text);
        Ok(text.len())
    }
}
