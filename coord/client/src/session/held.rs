//! A name that is held like a lock: it is released when it goes out of scope.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringway_core::{SessionId, Token};

use super::Handle;
use super::hub::Command;
use crate::engine::WaitId;
use crate::reply::Owner;

/// A name that is ours until this is dropped, or until it is [lost](Held::is_lost).
///
/// It is not enough to hold it: between a check and what is done after it the process may stand
/// still for longer than the lease. So whatever is done carries [`Held::token`], and who stores it
/// refuses a smaller token than the largest it has seen.
#[must_use = "it is released when it is dropped"]
pub struct Held {
    handle: Arc<Handle>,
    id: WaitId,
    name: Vec<u8>,
    owner: Owner,
    taken: Arc<AtomicBool>,
}

impl Held {
    pub(crate) fn new(
        handle: Arc<Handle>,
        id: WaitId,
        name: Vec<u8>,
        owner: Owner,
        taken: Arc<AtomicBool>,
    ) -> Held {
        Held { handle, id, name, owner, taken }
    }

    /// The name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The token of the grant: larger than that of any earlier holder.
    pub fn token(&self) -> Token {
        self.owner.token
    }

    /// The session that holds it.
    pub fn session(&self) -> SessionId {
        self.owner.session
    }

    /// How long it stays ours if no renewal is confirmed from now on; zero when it is lost.
    pub fn valid_for(&self) -> Duration {
        if self.taken.load(Ordering::Acquire) { Duration::ZERO } else { self.handle.valid_for() }
    }

    /// Whether it is not ours any more: the session is over, or an operator has taken the name.
    pub fn is_lost(&self) -> bool {
        self.valid_for().is_zero()
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({}, token {})", String::from_utf8_lossy(&self.name), self.owner.token)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.handle.shared.commands.force(Command::Unlock(self.id));
    }
}
