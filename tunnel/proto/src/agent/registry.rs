//! What the agents of one process share: which handshakes came before, and which sessions live.
//!
//! It is asked once for each handshake and never for a byte of a flow, so one lock around it is
//! enough.
//!
//! Bounds: as many sessions as there are peers times their shards; salts as [`SaltWindow`] says.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use ringway_crypto::{Salt, SaltWindow, SessionId};

use super::PeerId;
use crate::hello::Instance;

/// Salts that are kept; handshakes beyond are refused until older ones are too old to come again.
const SALTS_MAX: usize = 65_536;

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

/// See the module.
pub struct Registry {
    /// The salts of handshakes. The shell keeps them in a file over a restart.
    pub salts: SaltWindow,
    /// Messages whose sender's clock reads less are refused: they may be from before this process,
    /// and what came then is not known.
    pub not_before_ms: u64,
    /// Salts that were taken and not fetched by [`Self::take_new`].
    new: Vec<(u64, [u8; 16])>,
    sessions: BTreeMap<SessionId, Owner>,
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
    /// Whether a message with this salt may be answered. It may once.
    pub fn is_fresh(&mut self, salt: &Salt, sent_ms: u64, now_ms: u64) -> bool {
        let fresh = sent_ms >= self.not_before_ms && self.salts.take(salt, sent_ms, now_ms).is_ok();
        if fresh {
            let (half, _) = salt.split_first_chunk().expect("a salt has 32 bytes");
            self.new.push((sent_ms, *half));
        }
        fresh
    }

    /// Salts that were taken since the last call, as [`SaltWindow::entries`] has them.
    pub fn take_new(&mut self) -> Vec<(u64, [u8; 16])> {
        core::mem::take(&mut self.new)
    }

    /// Whether this session is alive and of this owner.
    pub fn lives(&self, session: SessionId, owner: Owner) -> bool {
        self.sessions.get(&session) == Some(&owner)
    }

    /// Some session with this peer, whichever of its shards it is with.
    pub fn session_of(&self, peer: PeerId) -> Option<SessionId> {
        self.of_peer.range((peer, 0)..=(peer, u8::MAX)).next().map(|(_, session)| *session)
    }

    /// A session has begun. Returns the one that it replaces: a shard of a peer has one.
    pub fn begin(&mut self, session: SessionId, owner: Owner) -> Option<SessionId> {
        self.sessions.insert(session, owner);
        self.of_peer.insert((owner.peer, owner.shard), session)
    }

    /// A session is over.
    pub fn end(&mut self, session: SessionId) {
        if let Some(owner) = self.sessions.remove(&session)
            && self.of_peer.get(&(owner.peer, owner.shard)) == Some(&session)
        {
            self.of_peer.remove(&(owner.peer, owner.shard));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { peer: PeerId(1), instance: Instance([1; 16]), shard: 0 };

    #[test]
    fn a_shard_of_a_peer_has_one_session() {
        let mut registry = Registry::default();
        assert_eq!(registry.begin(SessionId(1), OWNER), None);
        assert_eq!(registry.begin(SessionId(2), Owner { shard: 1, ..OWNER }), None);
        assert_eq!(registry.begin(SessionId(3), OWNER), Some(SessionId(1)));
        registry.end(SessionId(1));
        assert!(!registry.lives(SessionId(1), OWNER));
        assert!(registry.lives(SessionId(3), OWNER), "the end of the old one is not its end");
        assert!(!registry.lives(SessionId(3), Owner { instance: Instance([2; 16]), ..OWNER }));
        registry.end(SessionId(3));
        assert_eq!(registry.begin(SessionId(4), OWNER), None);
    }

    #[test]
    fn a_message_is_answered_once_and_none_from_before() {
        let mut registry = Registry { not_before_ms: 1_000_000, ..Registry::default() };
        assert!(registry.is_fresh(&[1; 32], 1_000_000, 1_000_100));
        assert!(!registry.is_fresh(&[1; 32], 1_000_000, 1_000_200));
        assert!(!registry.is_fresh(&[2; 32], 999_999, 1_000_200));
    }
}
