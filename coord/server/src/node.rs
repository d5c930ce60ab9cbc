//! The server as a whole: control plane, shards, and what is between them.
//!
//! Order of a start: the control plane takes the state directory and a new epoch, then the shards
//! listen, then they learn their ports; only then is the server ready. Order of a stop: shards
//! answer what they have and end, then the state directory hears whether anybody may still count
//! a lease of ours.
//!
//! Not here: what each part gets of `max_memory` (`shares.rs`).

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ringway_coord_proto::mail::{self, LEASE_RAISED, lease_message};
use ringway_coord_proto::{LeaseRules, Shard, ShardStart, SlotMap};
use ringway_core::limits::LEASE_DEFAULT;
use ringway_core::{Moment, ShardId, Span};
use ringway_ring::{
    Committer, MappedRegion, MemoryBudget, ProbeMask, RingConfig, SetupError, host,
};
use ringway_shards::{
    ControlPort as Mailbox, Guest, Lodged, Make, PinPolicy, RunError, Running, Runtime as Shards,
    RuntimeConfig, Service, ShardContext, ShardCounters, SpinPolicy, StartError as NoShards,
};
use ringway_table::{HashKey, Regions, Table};
use serde::Serialize;
use thiserror::Error;

use crate::access::NodeAccess;
use crate::admin::{Health, NodeView};
use crate::audit::Audit;
use crate::config::{Access, AdminPlace, Config};
use crate::control::{self, Control, ControlError, ControlPort, ControlSettings, Runtime, Stalled};
use crate::credentials::{Credentials, CredentialsError, Identities};
use crate::metrics::{ShardMetrics, ShardView};
use crate::pump::Pump;
use crate::quotas::{NamespaceView, Quotas};
use crate::shares::Shares;
use crate::state::{Opened, Previous};

/// Why a server did not start, or did not stop as it should.
#[derive(Debug, Error)]
pub enum StartError {
    /// The control plane.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] SetupError),
    /// The credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The shards.
    #[error(transparent)]
    Shards(#[from] NoShards),
    /// A shard ended before it was told to.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Address space or the thread that commits memory.
    #[error("cannot reserve memory for the object table: {0}; see `ulimit -v` and max_memory")]
    Memory(#[source] std::io::Error),
}

/// What shards, admin endpoint and node all look at.
pub(crate) struct Shared {
    pub(crate) metrics: Vec<Arc<ShardMetrics>>,
    counters: OnceLock<Vec<Arc<ShardCounters>>>,
    cores: Vec<OnceLock<usize>>,
    leased: Vec<AtomicU64>,
    slots: Vec<u64>,
    grants_from: OnceLock<Moment>,
    port: OnceLock<ControlPort>,
    /// Who may connect. Shards have copies of their own, and are told when this one changes.
    access: Mutex<NodeAccess>,
    pub(crate) audit: Audit,
    quotas: Quotas,
    draining: AtomicBool,
    drain_until: AtomicU64,
}

impl Shared {
    fn new(map: SlotMap, access: NodeAccess, (audit, quotas): (Audit, Quotas)) -> Self {
        let shards = 0..map.shards();
        let slots = |shard| {
            let (first, last) = map.run(ShardId(shard as u8));
            u64::from(last - first) + 1
        };
        Self {
            metrics: shards.clone().map(|_| Arc::default()).collect(),
            counters: OnceLock::new(),
            cores: shards.clone().map(|_| OnceLock::new()).collect(),
            leased: shards.clone().map(|_| AtomicU64::new(0)).collect(),
            slots: shards.map(slots).collect(),
            grants_from: OnceLock::new(),
            port: OnceLock::new(),
            access: Mutex::new(access),
            audit,
            quotas,
            draining: AtomicBool::new(false),
            drain_until: AtomicU64::new(0),
        }
    }

    pub(crate) fn counters(&self, shard: ShardId) -> Option<&ShardCounters> {
        self.counters.get()?.get(shard.index()).map(|counters| &**counters)
    }

    pub(crate) fn core(&self, shard: ShardId) -> Option<usize> {
        self.cores[shard.index()].get().copied()
    }

    pub(crate) fn set_leased(&self, shard: ShardId, sessions: usize) {
        self.leased[shard.index()].store(sessions as u64, Ordering::Relaxed);
    }

    /// A shard's numbers: its own, and those of the reactor under it.
    pub(crate) fn view(&self, shard: ShardId) -> ShardView {
        let metrics = &self.metrics[shard.index()];
        metrics.slots.set(self.slots[shard.index()]);
        if let Some(counters) = self.counters(shard) {
            metrics.turn_ns_max.set(counters.turn_ns_max.get());
            metrics.turn_ns.set(counters.turn_ns.get());
            for (mine, theirs) in metrics.turn_buckets.iter().zip(&counters.turn_classes) {
                mine.set(theirs.get());
            }
            metrics.mailbox_depth.set(counters.mail_waiting_now.get());
            metrics.buffers_in_use.set(counters.buffers_max.get());
            metrics.bytes_in.set(counters.receive_bytes.get());
            metrics.bytes_out.set(counters.send_bytes.get());
            metrics.mails.set(counters.mails.get());
            metrics.sleeps.set(counters.sleeps.get());
            metrics.buffers_exhausted.set(counters.buffers_exhausted.get());
            metrics.connections_refused.set(counters.accepts_refused.get());
        }
        metrics.snapshot(shard.index() as u32, self.core(shard).map(|core| core as u32))
    }

    /// Who may connect, as last read.
    pub(crate) fn access(&self) -> NodeAccess {
        self.access.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn anybody_leased(&self) -> bool {
        self.leased.iter().any(|sessions| sessions.load(Ordering::Relaxed) > 0)
    }
}

impl NodeView for Shared {
    fn shards(&self) -> Vec<ShardView> {
        (0..self.metrics.len()).map(|index| self.view(ShardId(index as u8))).collect()
    }

    fn namespaces(&self) -> Vec<NamespaceView> {
        self.quotas.view()
    }

    fn health(&self) -> Health {
        let now = host::now();
        if self.draining.load(Ordering::Relaxed) {
            let until = Moment(self.drain_until.load(Ordering::Relaxed));
            return Health::Draining { left_ms: until.since(now).as_ms_ceil() };
        }
        match self.grants_from.get() {
            Some(from) if now >= *from => match self.port.get().map_or(0, ControlPort::failures) {
                0 => Health::Ready,
                failures => Health::Degraded { failures },
            },
            Some(from) => Health::Starting { wait_ms: from.since(now).as_ms_ceil() },
            None => Health::Starting { wait_ms: 0 },
        }
    }
}

/// A running server.
pub struct Node {
    config: Config,
    control: Control,
    running: Running,
    shared: Arc<Shared>,
    mailbox: Arc<Mutex<Option<Mailbox>>>,
    identities: Mutex<Identities>,
    opened: Opened,
    admin: AdminPlace,
    runtime: &'static str,
    grants_from: Moment,
}

/// What a server says when it serves: one line of text, or one object of JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    /// The address that all shards share.
    pub listen: SocketAddr,
    /// The shards' own; none if that is switched off.
    pub own: Vec<SocketAddr>,
    /// How many shards.
    pub shards: usize,
    /// The epoch of this life.
    pub epoch: u32,
    /// Where the admin endpoint is.
    pub admin: Option<String>,
    /// What runs the control plane.
    pub control: &'static str,
    /// Milliseconds until anything is granted; zero but after an unclean stop.
    pub starting_ms: u64,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ready { listen, shards, epoch, .. } = self;
        write!(f, "ready listen={listen} shards={shards} epoch={epoch}")?;
        if let Some(admin) = &self.admin {
            write!(f, " admin={admin}")?;
        }
        write!(f, " control={}", self.control)?;
        if self.starting_ms > 0 {
            write!(f, " starting_ms={}", self.starting_ms)?;
        }
        Ok(())
    }
}

impl Node {
    /// Starts a server; returns when it serves.
    ///
    /// # Errors
    /// When the configuration does not fit the host. Nothing is left running then.
    pub fn start(config: Config) -> Result<Node, StartError> {
        Node::launch(config, Shards::start)
    }

    /// Starts a server with another service beside it on its shards, which takes what memory it
    /// needs beyond `max_memory`; returns when this one serves.
    ///
    /// # Errors
    /// As with [`Node::start`].
    pub fn start_with<G: Service + 'static>(
        config: Config,
        guest: Guest<G>,
    ) -> Result<(Node, Lodged), StartError> {
        let mut node =
            Node::launch(config, |runtime, make| Shards::start_pair(runtime, make, guest))?;
        let lodged = node.running.take_lodged().expect("there is a guest, and it is taken once");
        Ok((node, lodged))
    }

    fn launch(
        config: Config,
        launch: impl FnOnce(RuntimeConfig, Make<Pump>) -> Result<Running, NoShards>,
    ) -> Result<Node, StartError> {
        // Before anything else: glommio ends the process where io_uring is refused.
        let kernel = ringway_ring::probe(ProbeMask::default())?;
        tracing::info!("{kernel}");
        let mut identities = Identities::default();
        let access = match &config.access {
            Access::Anyone => NodeAccess::anyone(),
            Access::Users(path) => NodeAccess::users(Credentials::load(path, &mut identities)?),
        };
        let map = SlotMap::new(config.shards);
        let runtime = "a thread";
        let audit = Audit::start().map_err(|source| ControlError::Start { runtime, source })?;
        let quotas = Quotas::new(&config.quotas);
        let access = access.with_quotas(&quotas);
        let shared = Arc::new(Shared::new(map, access, (audit, quotas)));
        let mailbox: Arc<Mutex<Option<Mailbox>>> = Arc::default();
        let news_box = Arc::clone(&mailbox);
        let news_shared = Arc::clone(&shared);
        let news = move || {
            if let Some(port) = news_shared.port.get() {
                tell_all(&news_box, &lease_message(LEASE_RAISED, port.lease_persisted()));
                tell_all(&news_box, &mail::epoch_message(port.epoch()));
            }
        };
        let settings = control_settings(&config);
        let started = control::start(&settings, Arc::clone(&shared) as _, Arc::new(news))?;
        let opened = started.opened;
        let grants_from = host::now() + lease_to_wait_for(opened.previous);
        let _ = shared.port.set(started.port.clone());
        let parts = shards_of(&config, map, (&shared, &started.port), &opened, grants_from);
        let running = parts.and_then(|(runtime, make)| Ok(launch(runtime, make)?));
        let mut running = match running {
            Ok(running) => running,
            Err(error) => {
                // Nobody was granted anything.
                started
                    .control
                    .stop(matches!(opened.previous, Previous::Clean | Previous::Fresh))?;
                return Err(error);
            }
        };
        let _ = shared.counters.set(running.counters().to_vec());
        let _ = shared.grants_from.set(grants_from);
        let own: Vec<u16> = running.addresses().own.iter().map(SocketAddr::port).collect();
        let ports = mail::ports_message(base_of(&running).port(), &own);
        *mailbox.lock().unwrap_or_else(PoisonError::into_inner) = running.take_control();
        tell_all(&mailbox, &ports);
        // What was persisted while the shards were not there yet to hear it.
        tell_all(&mailbox, &lease_message(LEASE_RAISED, started.port.lease_persisted()));
        let (admin, runtime, control) = (started.admin, started.runtime, started.control);
        let identities = Mutex::new(identities);
        Ok(Node {
            config,
            control,
            running,
            shared,
            mailbox,
            identities,
            opened,
            admin,
            runtime,
            grants_from,
        })
    }

    /// Where clients connect: the shared address first, then each shard's own.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.running.addresses();
        addresses.base.into_iter().chain(addresses.own.iter().copied()).collect()
    }

    /// Where the admin endpoint listens.
    pub fn admin(&self) -> &AdminPlace {
        &self.admin
    }

    /// What is said when it serves.
    pub fn ready(&self) -> Ready {
        Ready {
            listen: base_of(&self.running),
            own: self.running.addresses().own.clone(),
            shards: self.config.shards,
            epoch: self.opened.epoch.0,
            admin: match &self.admin {
                AdminPlace::Off => None,
                AdminPlace::Tcp(address) => Some(format!("http://{address}")),
                AdminPlace::Unix(path) => Some(format!("unix:{}", path.display())),
            },
            control: self.runtime,
            starting_ms: self.grants_from.since(host::now()).as_ms_ceil(),
        }
    }

    /// Begins to drain: nobody new is accepted, what was asked is answered, connections close.
    pub fn stop(&self) {
        let until = host::now() + self.config.drain;
        self.shared.drain_until.store(until.0, Ordering::Relaxed);
        self.shared.draining.store(true, Ordering::Relaxed);
        self.running.stop();
    }

    /// Reads the credentials again and tells the shards; how many users there are. A connection
    /// whose user is gone or has another token is closed, the others have what the file grants now.
    ///
    /// # Errors
    /// When the file is not good; then the earlier credentials stay in force.
    pub fn reload_credentials(&self) -> Result<usize, CredentialsError> {
        let Access::Users(path) = &self.config.access else { return Ok(0) };
        let mut identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        let credentials = Credentials::reload(path, &mut identities)?;
        let users = credentials.principals().count();
        *self.shared.access.lock().unwrap_or_else(PoisonError::into_inner) =
            NodeAccess::users(credentials);
        tell_all(&self.mailbox, &[mail::ACCESS]);
        Ok(users)
    }

    /// Blocks the control plane's thread until the result is dropped: for the test that watches the
    /// shards meanwhile.
    pub fn stall_control(&self) -> Stalled {
        self.control.stall()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// If a shard failed, or the end could not be noted in the state directory.
    pub fn join(self) -> Result<(), StartError> {
        let ended = self.running.join();
        self.shared.audit.flush();
        let waited = host::now() >= self.grants_from;
        let clean = ended.is_ok() && waited && !self.shared.anybody_leased();
        self.control.stop(clean)?;
        Ok(ended?)
    }
}

fn control_settings(config: &Config) -> ControlSettings {
    ControlSettings {
        state: config.state.clone(),
        admin: config.admin.clone(),
        lease_max: config.lease_max,
        runtime: Runtime::Auto,
    }
}

/// How long grants have to wait for leases of the server's earlier life.
fn lease_to_wait_for(previous: Previous) -> Span {
    match previous {
        Previous::Unclean { longest_lease } => longest_lease,
        Previous::Clean | Previous::Fresh => Span::ZERO,
    }
}

fn tell_all(mailbox: &Mutex<Option<Mailbox>>, message: &[u8]) {
    let mut mailbox = mailbox.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(mailbox) = mailbox.as_mut() {
        for shard in 0..mailbox.shards() {
            mailbox.send(ShardId(shard as u8), message);
        }
    }
}

/// What the shards are to be, and what makes each.
fn shards_of(
    config: &Config,
    map: SlotMap,
    (shared, port): (&Arc<Shared>, &ControlPort),
    opened: &Opened,
    grants_from: Moment,
) -> Result<(RuntimeConfig, Make<Pump>), StartError> {
    let shares = Shares::of(config.memory_bytes_max, config.shards);
    tracing::info!("{}", shares.line(config.memory_bytes_max, config.shards));
    let budget = MemoryBudget::new(shares.table);
    let committer = Committer::start().map_err(StartError::Memory)?;
    let mut keys = [0; 32];
    host::fill_random(&mut keys);
    let key = |at: usize| u64::from_le_bytes(keys[at * 8..at * 8 + 8].try_into().expect("8 bytes"));
    let start = ShardStart {
        id: ShardId(0),
        map,
        epoch: opened.epoch,
        rules: LeaseRules {
            min: config.profile.lease_min(),
            max: config.lease_max,
            default: LEASE_DEFAULT.min(config.lease_max),
        },
        lease_allowed: port.lease_persisted(),
        sessions_max: shares.sessions_max,
        session_info_bytes: shares.info_bytes,
        side_bytes: shares.side_bytes,
        buffer_bytes: shares.buffers,
        grants_from,
        keys: [key(0), key(1)],
        own_ports: vec![0; config.shards],
        base_port: 0,
        unix_at_zero: unix_at_zero(),
        host: advertised_host(config),
    };
    let hash_key = HashKey([key(2), key(3)]);
    // Reserved before any thread starts, so that a refusal is an error and not a panic.
    let words_max = (shares.table / size_of::<u32>() as u64) as usize;
    let mut tables = Vec::new();
    for _ in 0..config.shards {
        let region = || MappedRegion::reserve(words_max, &committer, &budget);
        let reserve = || {
            Ok(Regions { records: region()?, index: region()?, arena: region()?, lines: region()? })
        };
        let regions = reserve().map_err(StartError::Memory)?;
        let table = Table::new(regions, hash_key)
            .map_err(|_| StartError::Memory(std::io::Error::other("max_memory is too small")))?;
        tables.push(Some(table));
    }
    let tables = Mutex::new(tables);
    let (shared, port) = (Arc::clone(shared), port.clone());
    let make = move |context: ShardContext| {
        let mut tables = tables.lock().unwrap_or_else(PoisonError::into_inner);
        let table = tables[context.shard.index()].take().expect("each shard is made once");
        if let Some(core) = context.core {
            let _ = shared.cores[context.shard.index()].set(core);
        }
        let start = ShardStart { id: context.shard, ..start.clone() };
        let shard = Shard::new(context.now, start, table, shared.access());
        Pump::new(shard, port.clone(), &shared, (context.shard, context.control))
    };
    Ok((runtime_config(config, &shares), Box::new(make)))
}

/// The address for cluster clients: none where we listen on every address of the host.
fn advertised_host(config: &Config) -> Vec<u8> {
    let ip = config.listen.ip();
    if ip.is_unspecified() { Vec::new() } else { ip.to_string().into_bytes() }
}

/// The address that all shards share, as it was bound.
fn base_of(running: &Running) -> SocketAddr {
    running.addresses().base.expect("`runtime_config` asks for one")
}

fn runtime_config(config: &Config, shares: &Shares) -> RuntimeConfig {
    RuntimeConfig {
        shards: config.shards,
        own_ports: config.own_ports,
        pin: if config.pin { PinPolicy::Auto } else { PinPolicy::Off },
        spin: if config.spin { SpinPolicy::default() } else { SpinPolicy::Off },
        ring: RingConfig { buffers: shares.receives, ..RingConfig::default() },
        connections_max: shares.connections_max,
        spare_buffers_max: shares.spare_buffers,
        drain: config.drain,
        ..RuntimeConfig::new(config.listen)
    }
}

fn unix_at_zero() -> Span {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Span((unix.as_nanos() as u64).saturating_sub(host::now().0))
}
