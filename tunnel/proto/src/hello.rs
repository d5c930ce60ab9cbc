//! What two agents say to each other inside the handshake, where it is secret and proved.
//!
//! ```text
//! near: version u8 | features u32 | instance 16 | shard u8 | session wanted u64, or 0 | token 32
//! far:  version u8 | features u32 | instance 16 | session u64 | lives u8
//! ```
//!
//! Little-endian. What follows is for later versions and is not looked at. An *instance* is chance
//! that a process draws once: an agent that was started anew has forgotten its flows, and the other
//! one sees it by this. The *token* proves that who wants a session has it: both ends of it know
//! the token, and nobody between them does.

use alloc::vec::Vec;

use ringway_core::wire::{Reader, Truncated};
use ringway_crypto::{Secret, SessionId, Zeroizing};

/// The version that this program speaks.
pub const VERSION: u8 = 1;

/// Which life of which process an agent is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instance(pub [u8; 16]);

/// A session that somebody has, and would go on with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) session: SessionId,
    pub(crate) token: Secret,
}

/// What who dials says.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct NearHello {
    pub(crate) instance: Instance,
    /// Which of its shards: each has a session of its own.
    pub(crate) shard: u8,
    /// The session that it would rather go on with.
    pub(crate) wanted: Option<Wanted>,
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FarHello {
    pub(crate) instance: Instance,
    /// The new session.
    pub(crate) session: SessionId,
    /// The session that was wanted is alive: come back by joining it. The new one is none.
    pub(crate) lives: bool,
}

/// The other agent speaks another version, or says nothing that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotUnderstood;

impl From<Truncated> for NotUnderstood {
    fn from(Truncated: Truncated) -> Self {
        NotUnderstood
    }
}

/// What somebody says who only wants to know whether the peer answers. No session follows from it:
/// one begins with its first record.
pub fn probe_hello(instance: Instance) -> Vec<u8> {
    // It has no token, so nothing of it is a secret.
    NearHello { instance, shard: 0, wanted: None }.to_wire().to_vec()
}

/// Whether this program understands what a peer answers to a hello.
pub fn is_hello_understood(answer: &[u8]) -> bool {
    FarHello::from_wire(answer).is_ok()
}

/// Features that this program has: none beyond version 1.
const FEATURES: u32 = 0;

/// Bytes that have room for every hello: one that grew would leave a copy of a token behind.
const HELLO_BYTES_MAX: usize = 64;

fn begin(instance: Instance) -> Vec<u8> {
    let mut said = Vec::with_capacity(HELLO_BYTES_MAX);
    said.push(VERSION);
    said.extend_from_slice(&FEATURES.to_le_bytes());
    said.extend_from_slice(&instance.0);
    said
}

fn common(reader: &mut Reader<'_>) -> Result<Instance, NotUnderstood> {
    if reader.u8()? != VERSION {
        return Err(NotUnderstood);
    }
    reader.u32()?;
    Ok(Instance(reader.array()?))
}

impl NearHello {
    /// The bytes, which are cleared after use: the token is a secret.
    pub(crate) fn to_wire(&self) -> Zeroizing<Vec<u8>> {
        let mut said = Zeroizing::new(begin(self.instance));
        said.push(self.shard);
        let wanted = self.wanted.as_ref();
        said.extend_from_slice(&wanted.map_or(0, |wanted| wanted.session.0).to_le_bytes());
        said.extend_from_slice(wanted.map_or(&[0; 32], |wanted| wanted.token.expose()));
        said
    }

    pub(crate) fn from_wire(said: &[u8]) -> Result<Self, NotUnderstood> {
        let mut reader = Reader::new(said);
        let instance = common(&mut reader)?;
        let (shard, session) = (reader.u8()?, SessionId(reader.u64()?));
        let token = reader.bytes(Secret::BYTES)?;
        let token = Secret::filled(|bytes| bytes.copy_from_slice(token));
        let wanted = Wanted { session, token };
        Ok(Self { instance, shard, wanted: (session.0 != 0).then_some(wanted) })
    }
}

impl FarHello {
    pub(crate) fn to_wire(self) -> Vec<u8> {
        let mut said = begin(self.instance);
        said.extend_from_slice(&self.session.0.to_le_bytes());
        said.push(u8::from(self.lives));
        said
    }

    pub(crate) fn from_wire(said: &[u8]) -> Result<Self, NotUnderstood> {
        let mut reader = Reader::new(said);
        let instance = common(&mut reader)?;
        let (session, lives) = (SessionId(reader.u64()?), reader.u8()? != 0);
        Ok(Self { instance, session, lives })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_say_what_is_read() {
        let instance = Instance([7; 16]);
        let wanted = Wanted { session: SessionId(9), token: Secret::new([8; 32]) };
        let near = NearHello { instance, shard: 3, wanted: Some(wanted) };
        assert!(NearHello::from_wire(&near.to_wire()) == Ok(near.clone()));
        assert!(near.to_wire().len() <= HELLO_BYTES_MAX);
        let first = NearHello { wanted: None, ..near };
        assert!(NearHello::from_wire(&first.to_wire()) == Ok(first.clone()));
        let probe = NearHello { shard: 0, ..first };
        assert!(NearHello::from_wire(&probe_hello(instance)) == Ok(probe));
        let far = FarHello { instance, session: SessionId(1 << 40), lives: true };
        assert_eq!(FarHello::from_wire(&far.to_wire()), Ok(far));
    }

    #[test]
    fn later_versions_may_say_more_and_other_ones_are_not_understood() {
        let far = FarHello { instance: Instance([1; 16]), session: SessionId(2), lives: false };
        let mut said = far.to_wire();
        said.extend_from_slice(b"and more");
        assert_eq!(FarHello::from_wire(&said), Ok(far));
        assert!(is_hello_understood(&said));
        said[0] = VERSION + 1;
        assert!(!is_hello_understood(&said));
        assert_eq!(FarHello::from_wire(&said), Err(NotUnderstood));
        for cut in 0..far.to_wire().len() {
            assert_eq!(FarHello::from_wire(&far.to_wire()[..cut]), Err(NotUnderstood));
        }
    }
}
