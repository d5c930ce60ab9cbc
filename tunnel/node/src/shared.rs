//! What the shards of a process and its control thread share. Everything here is for rare
//! occasions: no byte of a flow waits for a lock.
//!
//! What always holds:
//! - H1  Nobody does I/O, waits or takes another lock while holding one of these, but for the
//!   registry's, under which salts are put into their queue so that the two have the same order.
//! - H2  Mail is in the box before the byte that makes its shard look; a look takes all of it.
//! - H3  A report is taken whole or not at all, and only for the asking that is the latest.
//!
//! Bounds: the registry is asked once a handshake and once for each session of a report. A box has
//! what came since its shard's last look: an answer for each name that was asked, and one letter a
//! session that came up or was replaced, a reading of the file, or an asking.
//! Not here: what is shared about names (`resolver.rs`), salts (`salts.rs`), rates
//! (`pump/rate.rs`).
//! Tests: with who uses it: `registry.rs` of the protocol, `pump/own.rs`, processes with several
//! shards in `tools/ringway/tests/real/tunnel`.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ringway_core::ShardId;
use ringway_crypto::SessionId;
use ringway_shards::{ControlPort, DatagramSocket, Io};
use ringway_tunnel_proto::{BondId, FlowId, PeerId, Registry, ResetCode};

use crate::metrics::Metrics;
use crate::pump::OnTheirWay;
use crate::resolver::Questions;
use crate::salts::Salts;
use crate::site::Site;
use crate::status::ShardStatus;

/// What shards and the control thread say to each other.
#[derive(Debug)]
pub(crate) enum Mail {
    /// There is another configuration: shut these doors, then open those that are meant for you.
    Reload {
        /// Doors to shut.
        shut: Vec<u16>,
        /// Listening sockets for this shard.
        open: Vec<(u16, TcpListener)>,
    },
    /// The UDP sockets at which this shard listens from now on, in the order of the addresses where
    /// carriers come in.
    Ports(Vec<DatagramSocket>),
    /// A session is replaced by one on another shard.
    Replaced(SessionId),
    /// This machine may be a copy of another: drop all keys.
    BeginAnew,
    /// A session to this peer can be used, on the shard that says so.
    Up(PeerId),
    /// The addresses of a flow's target, or of a peer.
    Resolved(Whose, Result<Vec<SocketAddr>, ResetCode>),
    /// Ask by all carriers of packets whether those get through.
    AskPackets,
    /// Leave a report with [`Shared::reports`]; so many flows of each session at most.
    Report {
        /// Which asking this answers.
        number: u64,
        /// Flows of each session.
        flows_max: usize,
    },
}

/// For whom a name is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// A flow's target.
    Flow(BondId, FlowId),
    /// Where a peer is.
    Peer(PeerId),
}

/// See the module.
pub(crate) struct Shared {
    pub(crate) shards: usize,
    pub(crate) metrics: Metrics,
    site: Mutex<Arc<Site>>,
    registry: Mutex<Registry>,
    pub(crate) salts: Salts,
    boxes: Vec<Mutex<Vec<Mail>>>,
    pub(crate) questions: Arc<Questions>,
    pub(crate) given: OnTheirWay,
    reports: Mutex<(u64, Vec<ShardStatus>)>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Who panics ends the process; what it left is not looked at for long.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(site: Site, registry: Registry, shards: usize) -> Shared {
        Shared {
            shards,
            metrics: Metrics::default(),
            site: Mutex::new(Arc::new(site)),
            registry: Mutex::new(registry),
            salts: Salts::default(),
            boxes: (0..shards).map(|_| Mutex::default()).collect(),
            questions: Arc::default(),
            given: OnTheirWay::new(shards),
            reports: Mutex::default(),
        }
    }

    pub(crate) fn site(&self) -> Arc<Site> {
        Arc::clone(&locked(&self.site))
    }

    pub(crate) fn set_site(&self, site: Site) {
        *locked(&self.site) = Arc::new(site);
    }

    pub(crate) fn ask_registry<T>(&self, ask: impl FnOnce(&mut Registry) -> T) -> T {
        let mut registry = locked(&self.registry);
        let before = registry.not_before_ms;
        let answer = ask(&mut registry);
        self.salts.put(registry.take_new(), registry.not_before_ms != before);
        answer
    }

    /// Puts mail into a shard's box; a byte through the mailbox makes it look.
    pub(crate) fn post(&self, to: ShardId, mail: Mail, io: &mut Io<'_>) {
        locked(&self.boxes[to.index()]).push(mail);
        io.post(to, &[1]);
    }

    /// Likewise, from the control thread.
    pub(crate) fn send(&self, to: ShardId, mail: Mail, port: &mut ControlPort) {
        locked(&self.boxes[to.index()]).push(mail);
        port.send(to, &[1]);
    }

    pub(crate) fn take_mail(&self, me: ShardId) -> Vec<Mail> {
        std::mem::take(&mut *locked(&self.boxes[me.index()]))
    }

    /// A shard leaves its report, if it answers the present asking.
    pub(crate) fn leave_report(&self, number: u64, report: ShardStatus) {
        let mut reports = locked(&self.reports);
        if reports.0 == number {
            reports.1.push(report);
        }
    }

    /// Begins an asking and returns its number.
    pub(crate) fn begin_reports(&self) -> u64 {
        let mut reports = locked(&self.reports);
        *reports = (reports.0 + 1, Vec::new());
        reports.0
    }

    /// The reports of an asking, once all shards have left theirs.
    pub(crate) fn take_reports(&self, number: u64) -> Option<Vec<ShardStatus>> {
        let mut reports = locked(&self.reports);
        let whole = reports.0 == number && reports.1.len() == self.shards;
        whole.then(|| std::mem::take(&mut reports.1))
    }
}

/// The time of the day, in milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
