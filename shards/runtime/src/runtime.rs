//! Starting shards, and stopping them.
//!
//! Everything that can be refused is asked for before anybody is served: the kernel's features,
//! the ports, the cores, a ring per shard. Each refusal is one [`StartError`] that names its
//! remedy, and leaves nothing running.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use ringway_core::{ShardId, Span, limits};
use ringway_ring::{
    Cut, Feature, Features, ProbeMask, Report, Ring, RingConfig, SetupError, host, net, probe,
};
use thiserror::Error;

use crate::conns::Conns;
use crate::control::ControlPort;
use crate::counters::ShardCounters;
use crate::drain::StopState;
use crate::io::IoState;
use crate::office::{Ends, Incoming, Outgoing, offices};
use crate::pair::{Each, Guest, Lodged, Make, Pair, Room, Side};
use crate::placement::PinPolicy;
use crate::pool::Pool;
use crate::service::{ListenerKind, Service, ShardContext};
use crate::shard::{Door, Parts, Shard};
use crate::sockets::Sockets;
use crate::spin::{Spin, SpinPolicy};
use crate::timers::Timers;

/// How to run.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// The address that all shards share. Port 0: a free one. `None`: the process has neither this
    /// door nor own ports, only [`RuntimeConfig::doors`], those added later, and what it connects.
    pub listen: Option<SocketAddr>,
    /// How many shards: 1 to `SHARDS_MAX`.
    pub shards: usize,
    /// Whether each shard also listens on a port of its own: base port + 1 + shard (with port 0
    /// any free ones). Without a base port nobody does.
    pub own_ports: bool,
    /// More addresses that all shards share, each with the number by which the service knows it
    /// ([`ListenerKind::Extra`]). Port 0: a free one.
    pub doors: Vec<(u16, SocketAddr)>,
    /// Which cores they run on.
    pub pin: PinPolicy,
    /// Whether they spin before they sleep.
    pub spin: SpinPolicy,
    /// Sizes of each shard's ring and receive buffers.
    pub ring: RingConfig,
    /// Connections that one shard may have.
    pub connections_max: usize,
    /// Bytes of out buffers that one shard keeps to use again.
    pub spare_buffers_max: usize,
    /// Bytes of the largest of those. Who has more than this to send at a time fills a new buffer
    /// each time, which grows as it is filled.
    pub spare_buffer_bytes_max: usize,
    /// How long a graceful stop may take.
    pub drain: Span,
    /// Features of the kernel to do without.
    pub probe_mask: ProbeMask,
}

impl RuntimeConfig {
    /// One shard at this address, with defaults for the rest.
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen: Some(listen), ..Self::without_base() }
    }

    /// One shard without a base door, with defaults for the rest.
    pub fn without_base() -> Self {
        Self {
            listen: None,
            shards: 1,
            own_ports: false,
            doors: Vec::new(),
            pin: PinPolicy::Auto,
            spin: SpinPolicy::Auto,
            ring: RingConfig::default(),
            connections_max: limits::CONNS_PER_SHARD_MAX,
            spare_buffers_max: limits::SPARE_BUFFERS_MAX,
            spare_buffer_bytes_max: limits::SPARE_BUFFER_BYTES_MAX,
            drain: Span::from_s(5),
            probe_mask: ProbeMask::default(),
        }
    }
}

/// Why the shards did not start. Nothing was left running.
#[derive(Debug, Error)]
pub enum StartError {
    /// The kernel gives us no ring.
    #[error(transparent)]
    Ring(#[from] SetupError),
    /// Somebody listens there already.
    #[error(
        "{address} is taken by another process: stop it (`ss -ltnp 'sport = :{}'` shows it) or \
         listen elsewhere",
        address.port()
    )]
    PortTaken {
        /// Where we wanted to listen.
        address: SocketAddr,
    },
    /// Listening failed for another reason.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where we wanted to listen.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A shard would have no core of its own.
    #[error(
        "{shards} shards need as many cores, and this process may use {cores}: start fewer shards, \
         allow it more cores, or switch pinning off"
    )]
    TooFewCores {
        /// Shards wanted.
        shards: usize,
        /// Cores there are.
        cores: usize,
    },
    /// The number of shards is not one we can have.
    #[error("{shards} shards are not possible: between 1 and {max} are", max = limits::SHARDS_MAX)]
    ShardCount {
        /// Shards wanted.
        shards: usize,
    },
    /// With own ports, the last one would lie beyond 65535.
    #[error(
        "{shards} shards with ports of their own from {base} on go beyond port 65535: listen on a \
         lower port or switch own ports off"
    )]
    PortRange {
        /// The base port.
        base: u16,
        /// Shards wanted.
        shards: usize,
    },
    /// Anything else the host refused.
    #[error("{what} failed: {source}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// A shard ended because its ring did: the host's doing.
#[derive(Debug, Error)]
#[error("shard {shard} stopped: its ring failed: {source}")]
pub struct RunError {
    /// Which shard.
    pub shard: ShardId,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// Where the shards listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Where all do; `None` without [`RuntimeConfig::listen`].
    pub base: Option<SocketAddr>,
    /// Where each does alone, by shard; empty if that is switched off or there is no base.
    pub own: Vec<SocketAddr>,
    /// The further ones, in the order of [`RuntimeConfig::doors`].
    pub extra: Vec<SocketAddr>,
}

/// Starts shards. See [`Runtime::start`].
#[derive(Debug)]
pub struct Runtime;

/// Shards that run.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    report: Report,
    counters: Vec<Arc<ShardCounters>>,
    stopper: Stopper,
    threads: Vec<JoinHandle<io::Result<()>>>,
    /// The control plane's mailbox; [`Running::take_control`] moves it to another thread.
    pub control: Option<ControlPort>,
    lodged: Option<Lodged>,
}

/// Asks shards to stop, from any thread.
#[derive(Clone, Debug)]
pub struct Stopper {
    stop: Arc<StopState>,
    ends: Ends,
}

impl Stopper {
    /// Asks for a graceful stop: nobody new is accepted, services finish, what is queued is sent.
    pub fn stop(&self) {
        self.stop.ask();
        self.ends.iter().for_each(|end| end.bell.ring());
    }

    /// Whether a stop was asked for, by anybody, a failing shard included.
    pub fn is_asked(&self) -> bool {
        self.stop.is_asked()
    }
}

impl Running {
    /// Where they listen.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What the kernel was found to offer.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The shards' numbers, by shard.
    pub fn counters(&self) -> &[Arc<ShardCounters>] {
        &self.counters
    }

    /// A handle that can stop them from elsewhere.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Asks for a graceful stop; see [`Stopper::stop`].
    pub fn stop(&self) {
        self.stopper.stop();
    }

    /// The control plane's mailbox, once.
    pub fn take_control(&mut self) -> Option<ControlPort> {
        self.control.take()
    }

    /// The guest's part, once.
    pub fn take_lodged(&mut self) -> Option<Lodged> {
        self.lodged.take()
    }

    /// Waits until all shards have stopped.
    ///
    /// # Errors
    /// The first shard's that did not stop of its own accord.
    pub fn join(self) -> Result<(), RunError> {
        let mut outcome = Ok(());
        for (shard, thread) in self.threads.into_iter().enumerate() {
            // A panic never gets here: it ends the process (see `LastWords`).
            if let Ok(Err(source)) = thread.join() {
                outcome = outcome.and(Err(RunError { shard: ShardId(shard as u8), source }));
            }
        }
        outcome
    }
}

/// A shard that panics has left its part of the state undefined, and others wait for its
/// answers for ever. So the process ends, loudly.
struct LastWords(ShardId);

impl Drop for LastWords {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("ringway: shard {} panicked (see above); the process ends", self.0);
            std::process::abort();
        }
    }
}

/// What a shard's thread needs before it can make its own things.
struct Seed {
    context: ShardContext,
    ring: RingConfig,
    features: Features,
    spin: Span,
    connections_max: Each<usize>,
    pools: Each<Pool>,
    doors: Vec<Door>,
    outgoing: Outgoing,
    incoming: Incoming,
    counters: Arc<ShardCounters>,
    stop: Arc<StopState>,
}

impl Runtime {
    /// Starts shards, each with the service that `make` makes on the shard's own thread.
    ///
    /// # Errors
    /// When the host refuses something; nothing is left running then.
    pub fn start<S, F>(config: RuntimeConfig, make: F) -> Result<Running, StartError>
    where
        S: Service + 'static,
        F: Fn(ShardContext) -> S + Send + Sync + 'static,
    {
        start(config, None, make)
    }

    /// Starts shards, each with two services that know nothing of each other: what is in `config`
    /// is the first one's, what the other has is in its [`Room`]. [`Running::take_lodged`] is the
    /// way to the other.
    ///
    /// # Errors
    /// When the host refuses something; nothing is left running then.
    pub fn start_pair<H, G>(
        config: RuntimeConfig,
        make: Make<H>,
        guest: Guest<G>,
    ) -> Result<Running, StartError>
    where
        H: Service + 'static,
        G: Service + 'static,
    {
        let control = control_of(Side::Guest, config.shards);
        start(config, Some(guest.room), move |context| {
            let of_guest = ShardContext { control, ..context.clone() };
            Pair::new(make(context), (guest.make)(of_guest))
        })
    }
}

/// The number of a side's control plane.
fn control_of(side: Side, shards: usize) -> ShardId {
    ShardId((shards + side as usize) as u8)
}

fn start<S, F>(
    mut config: RuntimeConfig,
    room: Option<Room>,
    make: F,
) -> Result<Running, StartError>
where
    S: Service + 'static,
    F: Fn(ShardContext) -> S + Send + Sync + 'static,
{
    let shards = config.shards;
    if !(1..=limits::SHARDS_MAX).contains(&shards) {
        return Err(StartError::ShardCount { shards });
    }
    let report = probe(config.probe_mask)?;
    let host_error = |what| move |source| StartError::Host { what, source };
    let cores = host::cores().map_err(host_error("asking for this process's cores"))?;
    let pins = config.pin.assign(shards, &cores);
    let pins = pins.map_err(|cores| StartError::TooFewCores { shards, cores })?;
    let (addresses, of_guest, doors) = open_doors(&config, room.as_ref())?;
    let sides = 1 + usize::from(room.is_some());
    let (ends, offices) =
        offices(shards + sides).map_err(host_error("making eventfds for the shards"))?;
    let stop = Arc::new(StopState::new(shards));
    let counters: Vec<Arc<ShardCounters>> = (0..shards).map(|_| Arc::default()).collect();
    let mut offices = offices.into_iter();
    config.ring.second = room.as_ref().map(|room| room.buffers);
    let mut seeds = Vec::with_capacity(shards);
    for (index, ((doors, core), counters)) in doors.into_iter().zip(pins).zip(&counters).enumerate()
    {
        let (outgoing, incoming) = offices.next().expect("one office per endpoint");
        let (shard, control) = (ShardId(index as u8), control_of(Side::Host, shards));
        let (drain, now) = (config.drain, host::now());
        let (connections_max, pools) = portions(&config, room.as_ref());
        seeds.push(Seed {
            context: ShardContext { shard, shards, control, core, drain, now },
            ring: config.ring,
            features: report.features,
            spin: config.spin.limit(shards, cores.len()),
            connections_max,
            pools,
            doors,
            outgoing,
            incoming,
            counters: Arc::clone(counters),
            stop: Arc::clone(&stop),
        });
    }
    let stopper = Stopper { stop, ends };
    let threads = spawn_all(seeds, &stopper, Arc::new(make))?;
    let mut ports = offices.zip(Side::ALL).map(|(of, side)| ControlPort::new(of, side, shards));
    let control = ports.next();
    let lodged = ports.next().map(|control| Lodged { control, addresses: of_guest });
    Ok(Running { addresses, report, counters, stopper, threads, control, lodged })
}

/// What each side has of a shard. A guest that is not there has nothing.
fn portions(config: &RuntimeConfig, room: Option<&Room>) -> (Each<usize>, Each<Pool>) {
    let host = Pool::new(config.spare_buffers_max, config.spare_buffer_bytes_max);
    let guest = room.map(|room| (room.spare_buffers_max, room.spare_buffer_bytes_max));
    let (bytes_max, buffer_bytes_max) = guest.unwrap_or_default();
    let connections_max = [config.connections_max, room.map_or(0, |room| room.connections_max)];
    (Each(connections_max), Each([host, Pool::new(bytes_max, buffer_bytes_max)]))
}

/// Where the host listens, where the guest does, and the doors of each shard.
type Opened = (Addresses, Vec<SocketAddr>, Vec<Vec<Door>>);

fn open_doors(config: &RuntimeConfig, room: Option<&Room>) -> Result<Opened, StartError> {
    let shards = config.shards;
    let mut doors: Vec<Vec<Door>> = (0..shards).map(|_| Vec::new()).collect();
    let mut addresses = Addresses { base: None, own: Vec::new(), extra: Vec::new() };
    if let Some(wanted) = config.listen {
        let listeners = listen(wanted, |address| net::listen_together(address, shards))?;
        addresses.base = Some(address_of(&listeners[0])?);
        for (doors, listener) in doors.iter_mut().zip(listeners) {
            doors.push(Door::new(listener, Side::Host, ListenerKind::Base));
        }
    }
    addresses.extra = open_extra(&config.doors, Side::Host, &mut doors)?;
    let wanted = room.map_or(&[][..], |room| &room.doors);
    let of_guest = open_extra(wanted, Side::Guest, &mut doors)?;
    let Some(base) = config.listen.filter(|_| config.own_ports) else {
        return Ok((addresses, of_guest, doors));
    };
    for (shard, doors) in doors.iter_mut().enumerate() {
        let mut wanted = base;
        if wanted.port() != 0 {
            let port = usize::from(wanted.port()) + 1 + shard;
            let port = u16::try_from(port)
                .map_err(|_| StartError::PortRange { base: base.port(), shards })?;
            wanted.set_port(port);
        }
        let listener = listen(wanted, net::listen_alone)?;
        addresses.own.push(address_of(&listener)?);
        doors.push(Door::new(listener, Side::Host, ListenerKind::Own));
    }
    Ok((addresses, of_guest, doors))
}

/// Opens the further doors of a side at every shard.
fn open_extra(
    wanted: &[(u16, SocketAddr)],
    side: Side,
    doors: &mut [Vec<Door>],
) -> Result<Vec<SocketAddr>, StartError> {
    let mut addresses = Vec::with_capacity(wanted.len());
    for (number, address) in wanted {
        let listeners = listen(*address, |address| net::listen_together(address, doors.len()))?;
        addresses.push(address_of(&listeners[0])?);
        for (doors, listener) in doors.iter_mut().zip(listeners) {
            doors.push(Door::new(listener, side, ListenerKind::Extra(*number)));
        }
    }
    Ok(addresses)
}

fn address_of(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Host { what: "naming a socket", source })
}

fn listen<T>(
    address: SocketAddr,
    open: impl FnOnce(SocketAddr) -> io::Result<T>,
) -> Result<T, StartError> {
    open(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortTaken { address },
        _ => StartError::Listen { address, source },
    })
}

/// Starts the threads and waits until each has its ring; on the first refusal all end.
fn spawn_all<S, F>(
    seeds: Vec<Seed>,
    stopper: &Stopper,
    make: Arc<F>,
) -> Result<Vec<JoinHandle<io::Result<()>>>, StartError>
where
    S: Service + 'static,
    F: Fn(ShardContext) -> S + Send + Sync + 'static,
{
    let (say, hear) = mpsc::channel::<Result<(), StartError>>();
    let mut threads = Vec::with_capacity(seeds.len());
    let mut starts = Vec::with_capacity(seeds.len());
    let mut outcome = Ok(());
    for seed in seeds {
        let (start, wait) = mpsc::channel::<()>();
        let (say, make, stopper) = (say.clone(), Arc::clone(&make), stopper.clone());
        let name = format!("ringway-shard-{}", seed.context.shard);
        let body = move || live(seed, &say, &wait, &stopper, &*make);
        match std::thread::Builder::new().name(name).spawn(body) {
            Ok(thread) => threads.push(thread),
            Err(source) => {
                outcome = Err(StartError::Host { what: "starting a thread", source });
                break;
            }
        }
        starts.push(start);
    }
    drop(say);
    for _ in 0..threads.len() {
        if let Ok(Err(error)) = hear.recv() {
            outcome = outcome.and(Err(error));
        }
    }
    if let Err(error) = outcome {
        // Shards that are ready see that nobody starts them, and end.
        drop(starts);
        threads.into_iter().for_each(|thread| drop(thread.join()));
        return Err(error);
    }
    // It fails only for a shard that is gone, and that has ended the process.
    for start in starts {
        let _ = start.send(());
    }
    Ok(threads)
}

/// A shard's thread from its first to its last moment.
fn live<S: Service>(
    seed: Seed,
    say: &mpsc::Sender<Result<(), StartError>>,
    wait: &mpsc::Receiver<()>,
    stopper: &Stopper,
    make: &(impl Fn(ShardContext) -> S + ?Sized),
) -> io::Result<()> {
    let shard = seed.context.shard;
    let _last_words = LastWords(shard);
    let ring = match own_ring(&seed) {
        Ok(ring) => ring,
        Err(error) => {
            let _ = say.send(Err(error));
            return Ok(());
        }
    };
    let service = make(seed.context.clone());
    let _ = say.send(Ok(()));
    if wait.recv().is_err() {
        return Ok(());
    }
    let outcome = Shard::new(seed.into_parts(ring), service).run();
    if outcome.is_err() {
        stopper.stop();
    }
    outcome
}

/// Pins the thread and makes its ring, on the thread that will use it.
fn own_ring(seed: &Seed) -> Result<Ring, StartError> {
    let failed = |what| move |source| StartError::Host { what, source };
    if let Some(core) = seed.context.core {
        host::pin_to(core).map_err(failed("pinning a shard to its core"))?;
    }
    let ring = Ring::new(&seed.ring, seed.features)?;
    if seed.features.has(Feature::RingToRing) {
        let handle = ring.handle().map_err(failed("duplicating a ring's descriptor"))?;
        let end = &seed.outgoing.ends()[seed.context.shard.index()];
        end.ring.set(handle).expect("set once, by its own shard");
    }
    Ok(ring)
}

impl Seed {
    fn into_parts(self, ring: Ring) -> Parts {
        let now = host::now();
        let has = |feature| self.features.has(feature);
        let spins = has(Feature::TaskrunFlag);
        Parts {
            shard: self.context.shard,
            ring_config: self.ring,
            ring,
            state: IoState {
                shards: self.context.shards,
                conns: Conns::new(self.connections_max),
                sockets: Sockets::new(
                    if has(Feature::SendTrains) { Cut::ByKernel } else { Cut::Here },
                    has(Feature::ReceiveTrains),
                    self.ring.datagrams.is_some(),
                ),
                pools: self.pools,
                outgoing: self.outgoing,
                timers: Timers::new(now),
                now,
                buffered: Each::default(),
                mail_waiting: 0,
                writing: None,
                dirty: Vec::new(),
                thirsty: Default::default(),
                ending: Vec::new(),
                connects: Vec::new(),
                leaving: Vec::new(),
                door_wishes: Vec::new(),
                again: false,
                guest_again: false,
                scratch: Vec::new(),
            },
            incoming: self.incoming,
            doors: self.doors,
            counters: self.counters,
            stop: self.stop,
            drain_span: self.context.drain,
            spin: Spin::new(if spins { self.spin } else { Span::ZERO }),
            now,
        }
    }
}
