//! What the agents of one process share: which handshakes came before, and which sessions live.
//!
//! It is asked once for each handshake and never for a byte of a flow, so one lock around it is
//! enough.
//!
//! Bounds: as many sessions as there are peers times their shards; salts as [`SaltWindow`] says.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use ringway_crypto::{PeerProof, Salt, SaltWindow, Secret, Seen, SessionId};

use super::PeerId;
use crate::hello::{Instance, Wanted};
use crate::limits::SALTS_MAX;

/// Whose session it is, at the far end of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The peer.
    pub peer: PeerId,
    /// Which life of it.
    pub instance: Instance,
    /// Which shard of it.
    pub shard: u8,
}

/// A session that lives.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) owner: Owner,
    /// As whom the peer has proved itself last.
    pub(crate) proof: PeerProof,
    /// What its two ends know and nobody between them.
    pub(crate) token: Secret,
}

/// See the module.
pub struct Registry {
    /// The salts of handshakes. The shell keeps them in a file over a restart.
    pub salts: SaltWindow,
    /// Messages whose sender's clock reads less are refused: they may be from before this process,
    /// and what came then is not known.
    pub not_before_ms: u64,
    /// Salts that were taken and not fetched by [`Self::take_new`].
    new: Vec<(u64, [u8; 16])>,
    sessions: BTreeMap<SessionId, Live>,
    of_peer: BTreeMap<(PeerId, u8), SessionId>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            salts: SaltWindow::new(SALTS_MAX),
            not_before_ms: 0,
            new: Vec::new(),
            sessions: BTreeMap::new(),
            of_peer: BTreeMap::new(),
        }
    }
}

impl Registry {
    /// A message with this salt came. It may be answered once.
    ///
    /// # Errors
    /// [`Seen`]: it is not to be answered.
    pub fn take_salt(&mut self, salt: &Salt, sent_ms: u64, now_ms: u64) -> Result<(), Seen> {
        if sent_ms < self.not_before_ms {
            return Err(Seen::TooOld);
        }
        self.salts.take(salt, sent_ms, now_ms)?;
        let (half, _) = salt.split_first_chunk().expect("a salt has 32 bytes");
        self.new.push((sent_ms, *half));
        Ok(())
    }

    /// This process may be one of before, or its clock may have been set: what was answered until
    /// now is not known for sure, so what was sent before is not answered.
    pub fn begin_anew(&mut self, now_ms: u64) {
        self.not_before_ms = now_ms;
    }

    /// Salts that were taken since the last call, as [`SaltWindow::entries`] has them.
    pub fn take_new(&mut self) -> Vec<(u64, [u8; 16])> {
        core::mem::take(&mut self.new)
    }

    /// Somebody who has proved to be `owner`, by `proof`, would go on with a session. Whether they
    /// may: it lives, it is theirs, and they know what only its other end knows. From then on it
    /// counts as begun by this proof.
    pub(crate) fn go_on(&mut self, wanted: &Wanted, owner: Owner, proof: PeerProof) -> bool {
        let live = self.sessions.get_mut(&wanted.session);
        let theirs = live.filter(|live| live.owner == owner && live.token == wanted.token);
        theirs.map(|live| live.proof = proof).is_some()
    }

    /// As whom the peer of a session has proved itself last.
    pub fn proof_of(&self, session: SessionId) -> Option<PeerProof> {
        self.sessions.get(&session).map(|live| live.proof)
    }

    /// Some session with this peer, whichever of its shards it is with.
    pub fn session_of(&self, peer: PeerId) -> Option<SessionId> {
        self.of_peer.range((peer, 0)..=(peer, u8::MAX)).next().map(|(_, session)| *session)
    }

    /// A session has begun. Returns the one that it replaces: a shard of a peer has one.
    pub(crate) fn begin(&mut self, session: SessionId, live: Live) -> Option<SessionId> {
        let owner = live.owner;
        self.sessions.insert(session, live);
        self.of_peer.insert((owner.peer, owner.shard), session)
    }

    /// A session is over.
    pub fn end(&mut self, session: SessionId) {
        if let Some(Live { owner, .. }) = self.sessions.remove(&session)
            && self.of_peer.get(&(owner.peer, owner.shard)) == Some(&session)
        {
            self.of_peer.remove(&(owner.peer, owner.shard));
        }
    }
}

#[cfg(test)]
mod tests {
    use ringway_crypto::KeyId;

    use super::*;

    const OWNER: Owner = Owner { peer: PeerId(1), instance: Instance([1; 16]), shard: 0 };

    const OLD: PeerProof = PeerProof::Shared(KeyId(1));
    const NEW: PeerProof = PeerProof::Shared(KeyId(2));

    fn live(owner: Owner) -> Live {
        Live { owner, proof: OLD, token: Secret::new([5; 32]) }
    }

    fn wanted(session: u64, token: u8) -> Wanted {
        Wanted { session: SessionId(session), token: Secret::new([token; 32]) }
    }

    #[test]
    fn a_shard_of_a_peer_has_one_session() {
        let mut registry = Registry::default();
        assert_eq!(registry.begin(SessionId(1), live(OWNER)), None);
        assert_eq!(registry.begin(SessionId(2), live(Owner { shard: 1, ..OWNER })), None);
        assert_eq!(registry.begin(SessionId(3), live(OWNER)), Some(SessionId(1)));
        registry.end(SessionId(1));
        assert!(!registry.go_on(&wanted(1, 5), OWNER, OLD));
        assert!(registry.go_on(&wanted(3, 5), OWNER, OLD), "the end of the old is not its end");
        registry.end(SessionId(3));
        assert_eq!(registry.begin(SessionId(4), live(OWNER)), None);
    }

    /// Another process of the peer, another shard of it, another peer, and whoever stands between
    /// the two and has a session with each under its number: none of them gets it, and it counts
    /// under the key that it did. Who has it takes it along to another key.
    #[test]
    fn a_session_goes_on_for_who_has_it() {
        let mut registry = Registry::default();
        registry.begin(SessionId(1), live(OWNER));
        for other in [
            Owner { instance: Instance([2; 16]), ..OWNER },
            Owner { shard: 1, ..OWNER },
            Owner { peer: PeerId(2), ..OWNER },
        ] {
            assert!(!registry.go_on(&wanted(1, 5), other, NEW));
        }
        assert!(!registry.go_on(&wanted(1, 6), OWNER, NEW), "another token");
        assert!(!registry.go_on(&wanted(2, 5), OWNER, NEW), "another session");
        assert_eq!(registry.proof_of(SessionId(1)), Some(OLD));
        assert!(registry.go_on(&wanted(1, 5), OWNER, NEW));
        assert_eq!(registry.proof_of(SessionId(1)), Some(NEW));
    }

    #[test]
    fn a_message_is_answered_once_and_none_from_before() {
        let mut registry = Registry { not_before_ms: 1_000_000, ..Registry::default() };
        assert_eq!(registry.take_salt(&[1; 32], 1_000_000, 1_000_100), Ok(()));
        assert_eq!(registry.take_salt(&[1; 32], 1_000_000, 1_000_200), Err(Seen::Before));
        assert_eq!(registry.take_salt(&[2; 32], 999_999, 1_000_200), Err(Seen::TooOld));
    }

    /// What may have been answered by a copy of us, or in a life that a snapshot has forgotten, is
    /// not answered again; a clock that was set back counts from where it is.
    #[test]
    fn nothing_from_before_a_new_beginning_is_answered() {
        let mut registry = Registry::default();
        registry.begin_anew(2_000_000);
        assert_eq!(registry.take_salt(&[1; 32], 1_999_999, 2_000_500), Err(Seen::TooOld));
        assert_eq!(registry.take_salt(&[1; 32], 2_000_000, 2_000_500), Ok(()));
        registry.begin_anew(1_000_000);
        assert_eq!(registry.take_salt(&[2; 32], 1_000_100, 1_000_100), Ok(()));
    }
}
