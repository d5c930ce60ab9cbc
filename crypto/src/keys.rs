//! The kinds of keys, and each as a line of text with its kind in front.
//!
//! A key is written `kind:base64`, so that a private key pasted where a public one belongs is
//! refused by name, and a search of a disk or a log for `ringway-private` finds every one.

use core::fmt;

use aws_lc_rs::agreement::{self, X25519};
use data_encoding::BASE64;
use zeroize::Zeroizing;

use crate::aead::Forged;
use crate::secret::Secret;

/// The half of an identity that only its owner has: an X25519 key (RFC 7748).
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Secret);

/// The half of an identity that peers know.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

/// What all sites of one network share: it hides that there is a handshake, and proves nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct NetworkKey(Secret);

/// A secret of exactly two sites: their identity where they have no key pairs, or a second lock
/// beside those, which a quantum computer does not open.
#[derive(Clone, PartialEq, Eq)]
pub struct Psk(Secret);

/// Why a line is no key. The line itself is not repeated: it may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyTextError {
    /// It begins with the name of another kind of key.
    OtherKind {
        /// What was wanted.
        wanted: &'static str,
        /// What it says it is.
        found: &'static str,
    },
    /// It does not begin with the name of any kind of key.
    NoKind {
        /// What was wanted.
        wanted: &'static str,
    },
    /// What follows the name is not 32 bytes in base64.
    NotKeyBytes {
        /// What was wanted.
        wanted: &'static str,
    },
}

impl fmt::Display for KeyTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherKind { wanted, found } => {
                write!(f, "it is a {found} key where a {wanted} key belongs")
            }
            Self::NoKind { wanted } => {
                write!(
                    f,
                    "it does not begin with `ringway-{wanted}:`; make keys by `ringway keygen`"
                )
            }
            Self::NotKeyBytes { wanted } => {
                write!(f, "what follows `ringway-{wanted}:` is not 32 bytes in base64; was it cut?")
            }
        }
    }
}

impl core::error::Error for KeyTextError {}

const PRIVATE: &str = "private";
const PUBLIC: &str = "public";
const NETWORK: &str = "network";
const SHARED: &str = "shared";

fn parse(wanted: &'static str, text: &str) -> Result<Zeroizing<[u8; 32]>, KeyTextError> {
    let text = text.trim();
    let found = [PRIVATE, PUBLIC, NETWORK, SHARED].into_iter().find_map(|kind| {
        let rest = text.strip_prefix("ringway-")?.strip_prefix(kind)?.strip_prefix(':')?;
        Some((kind, rest))
    });
    let (kind, rest) = found.ok_or(KeyTextError::NoKind { wanted })?;
    if kind != wanted {
        return Err(KeyTextError::OtherKind { wanted, found: kind });
    }
    let decoded = BASE64.decode(rest.as_bytes()).map(Zeroizing::new);
    let decoded = decoded.map_err(|_| KeyTextError::NotKeyBytes { wanted })?;
    let mut bytes = Zeroizing::new([0; 32]);
    if decoded.len() != bytes.len() {
        return Err(KeyTextError::NotKeyBytes { wanted });
    }
    bytes.copy_from_slice(&decoded);
    Ok(bytes)
}

fn write(kind: &str, bytes: &[u8; 32]) -> Zeroizing<String> {
    // With room for all of it at once: a string that grows leaves copies of the key behind.
    let mut text = Zeroizing::new(String::with_capacity(80));
    text.push_str("ringway-");
    text.push_str(kind);
    text.push(':');
    BASE64.encode_append(bytes, &mut text);
    text
}

/// Text of a kind of key that is secret.
macro_rules! secret_key_text {
    ($key:ident, $kind:ident) => {
        impl $key {
            /// A key of these 32 bytes.
            pub const fn new(secret: Secret) -> Self {
                Self(secret)
            }

            /// Reads what [`Self::to_text`] wrote; blanks around it do not matter.
            ///
            /// # Errors
            /// [`KeyTextError`], without the text.
            pub fn from_text(text: &str) -> Result<Self, KeyTextError> {
                Ok(Self(Secret::new(*parse($kind, text)?)))
            }

            /// The key as a line for a file that only its owner may read.
            pub fn to_text(&self) -> Zeroizing<String> {
                write($kind, self.0.expose())
            }

            pub(crate) const fn secret(&self) -> &Secret {
                &self.0
            }
        }
    };
}

secret_key_text!(PrivateKey, PRIVATE);
secret_key_text!(NetworkKey, NETWORK);
secret_key_text!(Psk, SHARED);

impl PrivateKey {
    /// The half that peers need.
    pub fn public(&self) -> PublicKey {
        let key = self.agreement_key().compute_public_key().expect("every 32 bytes are a key");
        PublicKey(key.as_ref().try_into().expect("X25519 keys have 32 bytes"))
    }

    /// The secret that this key and `theirs` have in common.
    ///
    /// # Errors
    /// [`Forged`] if `theirs` is one of the few points for which everybody gets the same secret.
    pub(crate) fn agree(&self, theirs: &PublicKey) -> Result<Secret, Forged> {
        let theirs = agreement::UnparsedPublicKey::new(&X25519, theirs.0);
        agreement::agree(&self.agreement_key(), theirs, Forged, |shared| {
            let bytes: &[u8; 32] = shared.try_into().map_err(|_| Forged)?;
            Ok(Secret::new(*bytes))
        })
    }

    fn agreement_key(&self) -> agreement::PrivateKey {
        let key = agreement::PrivateKey::from_private_key(&X25519, self.0.expose());
        key.expect("every 32 bytes are an X25519 private key")
    }
}

impl PublicKey {
    /// A key of these bytes, as they came from a peer.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads what `Display` writes; blanks around it do not matter.
    ///
    /// # Errors
    /// [`KeyTextError`].
    pub fn from_text(text: &str) -> Result<Self, KeyTextError> {
        Ok(Self(*parse(PUBLIC, text)?))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write(PUBLIC, &self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> PrivateKey {
        PrivateKey::new(Secret::new([byte; 32]))
    }

    #[test]
    fn text_goes_both_ways_and_knows_its_kind() {
        let text = key(1).to_text();
        assert!(text.starts_with("ringway-private:AQEB"));
        assert!(PrivateKey::from_text(&format!(" {}\n", *text)).is_ok_and(|read| read == key(1)));
        let public = key(1).public();
        assert_eq!(PublicKey::from_text(&public.to_string()), Ok(public));
        let wanted = PUBLIC;
        assert_eq!(
            PublicKey::from_text(&text),
            Err(KeyTextError::OtherKind { wanted, found: PRIVATE })
        );
        for cut in ["ringway-public:AQEB", "ringway-public:", "ringway-public:%%%"] {
            assert_eq!(PublicKey::from_text(cut), Err(KeyTextError::NotKeyBytes { wanted }));
        }
        let long = format!("ringway-public:{}", BASE64.encode(&[0; 33]));
        assert_eq!(PublicKey::from_text(&long), Err(KeyTextError::NotKeyBytes { wanted }));
        assert_eq!(PublicKey::from_text("AQEB"), Err(KeyTextError::NoKind { wanted }));
    }

    /// Both ends compute the same secret; a point of small order is refused, because with it the
    /// "secret" is the same for everybody.
    #[test]
    fn both_ends_agree_and_small_points_are_refused() {
        let shared = key(1).agree(&key(2).public()).expect("a good point");
        assert!(shared == key(2).agree(&key(1).public()).expect("a good point"));
        let mut one = [0; 32];
        one[0] = 1;
        for point in [[0; 32], one] {
            assert!(key(1).agree(&PublicKey::new(point)).is_err());
        }
    }
}
