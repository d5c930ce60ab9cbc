//! Sessions for programs: many threads or tasks share one connection, which keeps itself alive.
//!
//! Two faces over one [`engine`](crate::engine). [`Session`](crate::Session) blocks the calling
//! thread and brings an I/O thread of its own; `tokio::Session` (feature `tokio`) has the same
//! methods, asynchronous, and a task instead of the thread. What is the same is written once: `ask`
//! says what to send and how to read the answer, `faces` lists the methods, `hub` tells everybody.
//!
//! A session ends with its last handle; [`Held`], watches and receivers of messages are handles,
//! too. When it is lost, it is lost for good; a new one is opened with the same builder.
//!
//! A lost connection is no concern of callers: what was asked is asked again on the next one, and
//! done once. Programs that show what sessions are for are in `examples/`.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use ringway_client::Session;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let session =
//!     Session::builder().node(7).lease(Duration::from_secs(10)).connect("127.0.0.1:7400")?;
//! let held = session.lock("jobs/nightly", Some(Duration::from_secs(30)))?;
//! // Whatever is written carries the token, so that storage can refuse an earlier holder.
//! println!("ours under token {}, for {:?} more", held.token(), held.valid_for());
//! drop(held);
//! # Ok(())
//! # }
//! ```

mod ask;
pub mod blocking;
mod faces;
mod held;
mod hub;
mod queue;
pub mod receive;
pub mod request;
#[cfg(feature = "tokio")]
pub mod tokio;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ringway_core::{Moment, NodeId, SessionId};
use thiserror::Error;

pub use self::ask::CALL_BYTES_MAX;
pub use self::held::Held;
pub use self::hub::{COMMANDS_MAX, EVENTS_MAX, MESSAGES_MAX, WATCH_ITEMS_MAX};
use self::hub::{Command, Shared};
use crate::engine::{Fault, LinkFault, Over, Settings, WaitFault, WatchEnd};
use crate::error::{OpError, Refusal};

/// What a call of a session can fail with.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The session could not do it, or nobody knows whether it was done.
    #[error("{doing}: {fault}")]
    Fault {
        /// The call.
        doing: &'static str,
        /// Why.
        fault: Fault,
    },
    /// The server said no.
    #[error("the server answered {doing} with {refusal}")]
    Refused {
        /// The call.
        doing: &'static str,
        /// What it said.
        refusal: Refusal,
    },
    /// The time that was given is over.
    #[error("{doing}: not within the time that was given{}", answered(*last))]
    TimedOut {
        /// The call.
        doing: &'static str,
        /// What the server answered, if it said more than that a name is another's.
        last: Option<Refusal>,
    },
    /// A message was not delivered.
    #[error("{doing} was not delivered: {why}")]
    Undelivered {
        /// The call.
        doing: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// The driver could not be started.
    #[error("the session's driver could not be started: {0}")]
    Start(io::Error),
}

fn answered(last: Option<Refusal>) -> String {
    last.map(|refusal| format!("; the server answered {refusal}")).unwrap_or_default()
}

impl SessionError {
    /// What the server said, if it is the server that said no.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            SessionError::Refused { refusal, .. } => Some(*refusal),
            _ => None,
        }
    }

    /// Why the session is over, if that is the reason.
    pub fn over(&self) -> Option<Over> {
        match self {
            SessionError::Fault { fault: Fault::Over(over), .. } => Some(*over),
            _ => None,
        }
    }

    /// Whether what was asked may or may not have been done: the answer was lost with a connection,
    /// and then the session was over, or the server did not remember it. What it was about can be
    /// queried.
    pub fn is_unknown(&self) -> bool {
        matches!(self, SessionError::Fault { fault: Fault::Unknown, .. })
    }

    fn op(doing: &'static str, error: OpError) -> SessionError {
        SessionError::Fault { doing, fault: Fault::Op(error) }
    }

    fn wait(doing: &'static str, fault: WaitFault) -> SessionError {
        match fault {
            WaitFault::TimedOut | WaitFault::Cancelled => {
                SessionError::TimedOut { doing, last: None }
            }
            WaitFault::NotYet(refusal) => SessionError::TimedOut { doing, last: Some(refusal) },
            WaitFault::Refused(refusal) => SessionError::Refused { doing, refusal },
            WaitFault::Fault(fault) => SessionError::Fault { doing, fault },
        }
    }

    fn watch(end: WatchEnd) -> SessionError {
        let doing = "WATCH";
        match end {
            WatchEnd::Refused(refusal) => SessionError::Refused { doing, refusal },
            WatchEnd::Fault(fault) => SessionError::Fault { doing, fault },
        }
    }
}

/// How a session is to be kept. One builder may open many sessions, one after the other.
#[derive(Clone, Debug)]
pub struct Plan {
    settings: Settings,
    owners_max: usize,
}

impl Default for Plan {
    /// Node 0; the server's default lease, at risk when half of it has passed without a renewal, of
    /// which 5 % are left unused; 10 seconds to open it, and for a busy server to find time; no
    /// credentials; a cache of 4096 owners.
    fn default() -> Plan {
        let settings = Settings {
            node: NodeId(0),
            lease: Duration::ZERO,
            address: Vec::new(),
            metadata: Vec::new(),
            credentials: None,
            addresses: 1,
            at_risk_per_mille: 500,
            margin_per_mille: 50,
            open_within: Duration::from_secs(10),
            busy_within: Duration::from_secs(10),
            seed: 0,
        };
        Plan { settings, owners_max: 4096 }
    }
}

impl Plan {
    fn settings(&self, addresses: usize) -> Settings {
        // Different in each process and session, which is all that jitter asks for.
        let seed = RandomState::new().build_hasher().finish();
        Settings { addresses, seed, ..self.settings.clone() }
    }

    fn shared(&self) -> Arc<Shared> {
        Arc::new(Shared::new(self.owners_max))
    }
}

/// The setters that both builders have.
macro_rules! setters {
    () => {
        /// The node: a number that no other process of the service has. Opening a session ends an
        /// earlier one of the same node.
        pub fn node(mut self, node: u64) -> Self {
            self.0.settings.node = ringway_core::NodeId(node);
            self
        }

        /// The lease: for how long what the session holds stays its own without a renewal.
        pub fn lease(mut self, lease: std::time::Duration) -> Self {
            self.0.settings.lease = lease;
            self
        }

        /// Where other nodes reach this one; up to 255 bytes that nobody interprets.
        pub fn address(mut self, address: impl AsRef<[u8]>) -> Self {
            self.0.settings.address = address.as_ref().to_vec();
            self
        }

        /// What the node says about itself; up to 256 bytes that nobody interprets.
        pub fn metadata(mut self, metadata: impl AsRef<[u8]>) -> Self {
            self.0.settings.metadata = metadata.as_ref().to_vec();
            self
        }

        /// Who we are.
        pub fn credentials(mut self, credentials: crate::blocking::Credentials) -> Self {
            self.0.settings.credentials = Some(credentials);
            self
        }

        /// How much of the lease, in thousandths, may pass without a confirmed renewal before
        /// [`Event::AtRisk`](crate::engine::Event::AtRisk) is told; 500 unless said otherwise.
        pub fn at_risk_per_mille(mut self, part: u16) -> Self {
            self.0.settings.at_risk_per_mille = part.min(1000);
            self
        }

        /// How much of the lease, in thousandths, is left unused because clocks differ; 50 unless
        /// said otherwise.
        pub fn margin_per_mille(mut self, part: u16) -> Self {
            self.0.settings.margin_per_mille = part.min(1000);
            self
        }

        /// How long to try to open the session; 10 seconds unless said otherwise.
        pub fn open_within(mut self, time: std::time::Duration) -> Self {
            self.0.settings.open_within = time;
            self
        }

        /// How long ops that the server has no time for are asked again before a call ends with
        /// `BUSY`; 10 seconds unless said otherwise. Messages are not: those behind them would
        /// arrive first.
        pub fn busy_within(mut self, time: std::time::Duration) -> Self {
            self.0.settings.busy_within = time;
            self
        }

        /// How many names' owners are kept, each by a watch; 4096 unless said otherwise.
        pub fn owners_max(mut self, names: usize) -> Self {
            self.0.owners_max = names;
            self
        }
    };
}
use setters;

/// What keeps a session alive: the last one that goes closes it.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.commands.force(Command::Close);
    }
}

impl Handle {
    pub(crate) fn valid_for(&self) -> Duration {
        Duration::from_nanos(self.shared.valid_until().since(now()).0)
    }

    pub(crate) fn id(&self) -> SessionId {
        // A handle is given out when the session is open; zero is never a session.
        self.shared.session.get().copied().unwrap_or(SessionId(0))
    }

    /// Why the session is over, if our clock or anybody else says so.
    pub(crate) fn over(&self) -> Option<Over> {
        let told = self.shared.over.get().copied();
        told.or_else(|| self.valid_for().is_zero().then_some(Over::Expired))
    }

    pub(crate) fn messages_dropped(&self) -> u64 {
        self.shared.messages_dropped.load(Ordering::Relaxed)
    }
}

/// Time that also passes while the machine sleeps: a lease does not wait for anybody to wake up.
pub(crate) fn now() -> Moment {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Moment(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// The moment at which a wait ends.
pub(crate) fn until(within: Option<Duration>) -> Option<Moment> {
    let span = |within: Duration| u64::try_from(within.as_nanos()).unwrap_or(u64::MAX);
    within.map(|within| now() + ringway_core::Span(span(within)))
}

/// What is wrong with a connection that failed with this error.
pub(crate) fn link_fault(error: &io::Error) -> LinkFault {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => LinkFault::Closed,
        kind => LinkFault::Io(kind),
    }
}
