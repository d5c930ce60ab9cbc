//! Under which keys a session counts, and how it moves over to others.
//!
//! ```text
//! near: its file has another first key            far: takes both
//!   first message by the new keys, "I have session S, token T"  ---->  S is theirs: it counts
//!   S counts under them  <----  answer by the new keys, "it lives"      under the new key
//!   (this connection is closed; S goes on by its carriers)
//! ```
//!
//! Who dials begins it, as soon as what it would show first is not what the session counts under.
//! After it, the old keys may go from both files, and nothing ends by that.
//!
//! What always holds:
//! - I1  A session moves only by a whole handshake under the new keys in which its own token is
//!   shown. Whoever stands between two sites by stolen keys has two sessions with two tokens, and
//!   loses both when the sites move.
//! - I2  What both ends hold for the key in force is what the last such handshake proved.
//!
//! Cost: a handshake when keys are rotated; one a minute while the far side does not take the new
//! ones. Tests: `tests/agents.rs`, `registry.rs`.

use super::*;

/// A far side that does not take the key that we would rather show is asked again after this.
const MOVE_AGAIN: Span = Span::from_s(60);

/// Which keys a session counts under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Ours, where we dial and there are key pairs.
    pub mine: Option<PublicKey>,
    /// The peer's.
    pub theirs: PeerProof,
}

impl Identity {
    fn of(credentials: &Credentials) -> Identity {
        match credentials {
            Credentials::Keys { mine, theirs, .. } => {
                Identity { mine: Some(mine.public()), theirs: PeerProof::Key(*theirs) }
            }
            Credentials::Shared(psk) => {
                Identity { mine: None, theirs: PeerProof::Shared(psk.id()) }
            }
        }
    }
}

/// What was asked with.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) identity: Identity,
    /// The session has carriers; it is to count under other keys.
    pub(super) to_move: bool,
}

impl Bond {
    /// Whether it is time to ask whether the session may count under other keys.
    pub(super) fn moves(&self, now: Moment) -> bool {
        self.move_at.is_some_and(|at| at <= now) && self.known.is_some() && self.flows_can_go()
    }

    /// When that will be.
    pub(super) fn moves_at(&self) -> Option<Moment> {
        self.move_at.filter(|_| self.known.is_some() && self.flows_can_go())
    }
}

impl Agent {
    /// Which of the credentials to ask with: the first, unless it was not answered.
    pub(super) fn credentials_for(&self, now: Moment, bond: &Bond) -> (Credentials, Asked) {
        let peer = self.peer(bond.peer).expect("it is dialled");
        let to_move = bond.moves(now);
        let at = if to_move { 0 } else { bond.rounds as usize % peer.credentials.len() };
        let mut credentials = peer.credentials[at].clone();
        if let Credentials::Keys { psk, .. } = &mut credentials {
            psk.take_if(|_| self.sabotage.breaks(Rule::SecondSecret));
        }
        let identity = Identity::of(&credentials);
        (credentials, Asked { identity, to_move })
    }

    /// What a session of who dials counts under, and whether that is to change.
    pub(super) fn counts_under(&mut self, now: Moment, id: BondId, identity: Identity) {
        let Some(bond) = self.get(id) else { return };
        let first = self.peer(bond.peer).and_then(|peer| peer.credentials.first());
        let moves = first.map(Identity::of).is_some_and(|first| first != identity);
        let bond = self.get_mut(id).expect("it was just there");
        if let Some(known) = bond.known.as_mut() {
            known.identity = identity;
        }
        bond.move_at = moves.then_some(now + MOVE_AGAIN);
    }

    /// After another reading of the configuration: what is to be shown first may be another key.
    pub(super) fn look_at_keys(&mut self, now: Moment, id: BondId) {
        let identity = self.get(id).and_then(|bond| {
            let known = bond.known.as_ref().filter(|_| bond.role == Role::Initiator)?;
            Some(known.identity)
        });
        let Some(identity) = identity else { return };
        self.counts_under(now, id, identity);
        if let Some(bond) = self.get_mut(id) {
            bond.move_at = bond.move_at.map(|_| now);
        }
        self.touch(id);
    }

    /// Nobody answered to the key that we would rather show.
    pub(super) fn not_moved(&mut self, now: Moment, id: BondId, host: &mut impl Host) {
        let Some(bond) = self.get_mut(id) else { return };
        bond.move_at = Some(now + MOVE_AGAIN);
        let peer = bond.peer;
        host.note(None, Note::NotMoved(peer));
        self.touch(id);
    }

    /// Which keys a session counts under at this moment (I2).
    pub(super) fn identity(&self, bond: &Bond, host: &mut impl Host) -> Option<Identity> {
        let known = bond.known.as_ref()?;
        let theirs = match bond.role {
            Role::Initiator => Some(known.identity.theirs),
            // Whichever shard its peer came to has noted it there.
            Role::Responder => host.registry(|registry| registry.proof_of(known.id)),
        };
        Some(Identity { theirs: theirs?, ..known.identity })
    }
}
