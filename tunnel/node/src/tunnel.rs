//! A running tunnel: shards, and a thread beside them for what may block: names, another reading
//! of the configuration, who asks for status. The shards are its own ([`Tunnel::start`]), or
//! somebody else's ([`Tunnel::prepare`]).
//!
//! What always holds:
//! - T1  No shard waits for the thread beside them: they leave things for it and go on.
//! - T2  Mail to a shard keeps its order. So who hears that a configuration is in force finds it
//!   so, and an answer about a peer comes after the configuration that it was compared with.
//! - T3  That this machine may be a copy is told to shards before anything else is done.
//! - T4  A start that fails leaves nothing behind: no thread, no socket, no door.
//!
//! Bounds: one control thread, one for salts, and those of the resolver; one who asks at a time,
//! for [`REPORT_MAX`] and what `asked.rs` gives a reader.
//! Not here: what shards do (`pump`), what is told (`asked.rs`, `status.rs`), which changes a
//! configuration brings (`config/reload.rs`).
//! Tests: below; `demo.rs` runs a pair; `tools/ringway/tests/real/tunnel` runs processes.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringway_core::{ShardId, Span, limits};
use ringway_crypto::Entropy;
use ringway_shards::{
    Buffers, ControlPort, Guest, Lodged, PinPolicy, RingConfig, Room, RunError, Running, Runtime,
    RuntimeConfig, ShardContext, StartError as ShardsError, Stopper, listen_together,
};
use ringway_tunnel_proto::{AgentSettings, Instance, Registry};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use serde::Serialize;
use thiserror::Error;

use crate::chance::{NoChance, entropy};
use crate::ciphers::calibrate;
use crate::config::{Config, Reload, Restart, changes};
use crate::datagrams::Listening;
use crate::generation::Generation;
use crate::pump::{Pump, RECEIVE_BYTES};
use crate::resolver::{Ask, Found, Resolver};
use crate::salts::{SaltFile, SaltKeeper};
use crate::shared::{Mail, Shared, Whose};
use crate::site::{CARRIER_DOOR, Site};
use crate::status::{ShardStatus, Status};

/// Receive buffers of a shard: 512 KiB, which one turn may bring. Whoever has a word to say waits
/// for a turn at each of the two sides, twice; and what a turn brings is still in the cache when it
/// goes.
const RECEIVE_BUFFERS: u16 = 8;
/// Out buffers that are kept to be used again: as large as what is sent at a time.
const SPARE_BUFFER_BYTES: usize = 4 << 20;
const SPARE_BUFFERS: usize = 32 << 20;
/// How long flows may go on after a stop was asked for.
const DRAIN: Span = Span::from_s(5);

/// Why a tunnel did not start. Nothing was left running.
#[derive(Debug, Error)]
pub enum StartError {
    /// The shards did not.
    #[error(transparent)]
    Shards(#[from] ShardsError),
    /// There is no randomness.
    #[error(transparent)]
    NoChance(#[from] NoChance),
    /// A thread or a pipe cannot be had.
    #[error("{what}: {source}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The status socket cannot be made.
    #[error(
        "the status socket {path} cannot be made: {source}; name another place by `socket` in \
         [tunnel]"
    )]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody answers at the status socket.
    #[error(
        "a tunnel runs already with this configuration: it answers at {path}. Stop it, or name \
         another `socket` in [tunnel]"
    )]
    Runs {
        /// Where.
        path: PathBuf,
    },
}

/// What changed by another reading of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Fields that wait for a restart.
    pub restart: Vec<Restart>,
    /// Listeners that could not be opened, and why. Their place in the file stays theirs: the next
    /// reading tries again.
    pub failed: Vec<(SocketAddr, String)>,
    /// Nothing was different.
    pub nothing: bool,
}

/// What the control thread is told.
pub(crate) enum Command {
    /// Names were resolved.
    Found(Found),
    /// Another configuration, and where to tell what came of it.
    Reload(Box<Config>, Sender<Reloaded>),
    /// This machine may be a copy of another.
    BeginAnew,
    /// The shards have stopped.
    End,
}

/// Wakes the control thread.
#[derive(Clone)]
pub(crate) struct Caller {
    commands: Sender<Command>,
    bell: Arc<OwnedFd>,
}

impl Caller {
    pub(crate) fn tell(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            // One that has been rung often enough rings, too.
            let _ = rustix::io::write(&*self.bell, &1u64.to_ne_bytes());
        }
    }
}

/// What is said when it serves: one line of text, or one object of JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    /// Where carriers come in.
    pub carriers: Vec<SocketAddr>,
    /// Where applications connect, in the order of the file: forwards, SOCKS5, CONNECT.
    pub listeners: Vec<SocketAddr>,
    /// How many shards.
    pub shards: usize,
    /// Where status is asked.
    pub socket: PathBuf,
    /// Where Prometheus asks.
    pub admin: Option<SocketAddr>,
}

impl Ready {
    /// Everything but the shards, as the line has it: keys, some of them several times, and values.
    pub fn words(&self) -> impl Iterator<Item = (&'static str, String)> {
        let carriers = self.carriers.iter().map(|address| ("carriers", address.to_string()));
        let listeners = self.listeners.iter().map(|address| ("listen", address.to_string()));
        let admin = self.admin.iter().map(|address| ("admin", format!("http://{address}")));
        let socket = ("socket", self.socket.display().to_string());
        carriers.chain(listeners).chain(admin).chain([socket])
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ready shards={}", self.shards)?;
        self.words().try_for_each(|(key, value)| write!(f, " {key}={value}"))
    }
}

/// A tunnel on shards of its own.
pub struct Tunnel {
    running: Running,
    attendant: Attendant,
}

impl Tunnel {
    /// Starts; returns when it serves.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: Config) -> Result<Tunnel, StartError> {
        let shards = config.shards;
        let (guest, prepared) = Prepared::new(config)?;
        let mut running = Runtime::start(alone(&guest.room, shards), guest.make)?;
        let control = running.take_control().expect("it is taken once");
        let lodged = Lodged { control, addresses: running.addresses().extra.clone() };
        match prepared.attach(lodged) {
            Ok(attendant) => Ok(Tunnel { running, attendant }),
            Err(error) => {
                running.stop();
                // Why there is none has been said.
                let _ = running.join();
                Err(error)
            }
        }
    }

    /// Makes what is to run on the shards of somebody else, of which there are so many, whatever
    /// the configuration says. When they run, [`Prepared::attach`] makes the rest.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn prepare(
        mut config: Config,
        shards: usize,
    ) -> Result<(Guest<Pump>, Prepared), StartError> {
        config.shards = shards;
        let (guest, prepared) = Prepared::new(config)?;
        Ok((guest, Prepared { shards_are_ours: false, ..prepared }))
    }

    /// What is said when it serves.
    pub fn ready(&self) -> &Ready {
        self.attendant.ready()
    }

    /// Takes over another reading of the configuration. Flows of peers that stay go on.
    pub fn reload(&self, config: Config) -> Reloaded {
        self.attendant.reload(config)
    }

    /// Drops all keys and resets all flows: this machine may be a copy of another, or was set back
    /// to a snapshot. For who learns of it from elsewhere; what the kernel says is heard anyway.
    pub fn begin_anew(&self) {
        self.attendant.begin_anew();
    }

    /// Begins to stop: nobody new is accepted, flows may end for some seconds.
    pub fn stop(&self) {
        self.running.stop();
    }

    /// A handle that can stop it from elsewhere.
    pub fn stopper(&self) -> Stopper {
        self.running.stopper()
    }

    /// Waits until it has stopped.
    ///
    /// # Errors
    /// If a shard did not stop of its own accord.
    pub fn join(self) -> Result<(), RunError> {
        let outcome = self.running.join();
        self.attendant.end();
        outcome
    }
}

/// A tunnel that has all it needs but shards.
pub struct Prepared {
    shared: Arc<Shared>,
    doors: Vec<(u16, SocketAddr)>,
    sockets: crate::asked::Sockets,
    salts: SaltFile,
    shards_are_ours: bool,
}

impl Prepared {
    fn new(config: Config) -> Result<(Guest<Pump>, Prepared), StartError> {
        let mut chance = entropy()?;
        let instance = Instance(chance.array());
        let backends = calibrate().map(|speeds| speeds.best().0);
        let shards = config.shards;
        let (wait, flows_max) = (config.wait, config.flows_max);
        let memory = config.memory_bytes;
        let site = Site::new(config);
        let sockets = crate::asked::Sockets::open(&site.config)?;
        let mut registry = Registry::default();
        let salts = SaltFile::open(&site.config.socket.with_extension("salts"), &mut registry);
        let doors = site.doors();
        let shared = Arc::new(Shared::new(site, registry, shards));
        // One for all shards: how long a stranger is listened to is not its shard's to say.
        let deaf_key = chance.secret();
        let seeds: Vec<_> = (0..shards)
            .map(|_| Mutex::new(Some((deaf_key.clone(), Entropy::from_seed(chance.secret())))))
            .collect();
        let for_pumps = Arc::clone(&shared);
        let make = move |context: ShardContext| {
            let settings = AgentSettings {
                instance,
                shard: context.shard.0,
                shards: context.shards as u8,
                backends,
                memory,
                flows_max,
                wait,
            };
            let seed = seeds[context.shard.index()].lock().ok().and_then(|mut seed| seed.take());
            let seed = seed.expect("each shard is made once");
            Pump::new(&for_pumps, &context, settings, seed)
        };
        let guest = Guest { room: room(doors.clone()), make: Box::new(make) };
        Ok((guest, Prepared { shared, doors, sockets, salts, shards_are_ours: true }))
    }

    /// The shards run: makes what is beside them.
    ///
    /// # Errors
    /// [`StartError::Host`]. Then the shards are of no use and to be stopped.
    pub fn attach(self, mut lodged: Lodged) -> Result<Attendant, StartError> {
        let host = |what| move |source| StartError::Host { what, source };
        let ready = self.ready(lodged.addresses);
        let mut datagrams = Listening::default();
        let listens = datagrams.follow(&self.shared, &ready.carriers, &mut lodged.control);
        listens.map_err(host(NO_DATAGRAMS))?;
        let (commands, inbox) = channel();
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let bell = Arc::new(bell.map_err(|errno| host("an eventfd")(errno.into()))?);
        let hears = Arc::clone(&bell);
        let caller = Caller { commands, bell };
        let answers = caller.clone();
        let found = move |found| answers.tell(Command::Found(found));
        let resolver = Resolver::start(&self.shared.questions, found);
        let resolver = resolver.map_err(host("a thread that resolves names"))?;
        let keeper = SaltKeeper::start(&self.shared, self.salts);
        let keeper = keeper.map_err(host("a thread that keeps salts"))?;
        let control = Control {
            shared: self.shared,
            port: lodged.control,
            inbox,
            hears,
            _resolver: resolver,
            _keeper: keeper,
            sockets: self.sockets,
            generation: listen_for_copies(),
            unopened: Vec::new(),
            datagrams,
            began: Instant::now(),
            carriers: ready.carriers.clone(),
            shards_are_ours: self.shards_are_ours,
        };
        let thread = std::thread::Builder::new().name("ringway-tunnel".to_owned());
        let control = thread.spawn(move || control.run()).map_err(host("a control thread"))?;
        Ok(Attendant { ready, control, caller })
    }

    fn ready(&self, bound: Vec<SocketAddr>) -> Ready {
        let bound = self.doors.iter().map(|(door, _)| *door).zip(bound);
        let (carriers, listeners): (Vec<_>, Vec<_>) =
            bound.partition(|(door, _)| *door == CARRIER_DOOR);
        let addresses = |all: Vec<(u16, SocketAddr)>| all.into_iter().map(|(_, at)| at).collect();
        Ready {
            carriers: addresses(carriers),
            listeners: addresses(listeners),
            shards: self.shared.shards,
            socket: self.shared.site().config.socket.clone(),
            admin: self.sockets.admin_address(),
        }
    }
}

/// What is beside the shards of a tunnel: a thread for what may block.
pub struct Attendant {
    ready: Ready,
    control: JoinHandle<()>,
    caller: Caller,
}

impl Attendant {
    /// What is said when it serves.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Takes over another reading of the configuration. Flows of peers that stay go on.
    pub fn reload(&self, config: Config) -> Reloaded {
        let (told, outcome) = channel();
        self.caller.tell(Command::Reload(Box::new(config), told));
        // The control thread lives as long as this does.
        outcome.recv().unwrap_or_default()
    }

    /// As [`Tunnel::begin_anew`].
    pub fn begin_anew(&self) {
        self.caller.tell(Command::BeginAnew);
    }

    /// Ends, once the shards have.
    pub fn end(self) {
        self.caller.tell(Command::End);
        // It does not panic; if it did, that was said.
        let _ = self.control.join();
    }
}

/// What is said where UDP sockets cannot be had.
const NO_DATAGRAMS: &str = "UDP at the addresses where carriers come in (`udp` of a peer)";

/// What a tunnel has of each shard.
fn room(doors: Vec<(u16, SocketAddr)>) -> Room {
    Room {
        doors,
        buffers: Buffers { count: RECEIVE_BUFFERS, bytes: RECEIVE_BYTES as u32 },
        connections_max: limits::CONNS_PER_SHARD_MAX,
        spare_buffers_max: SPARE_BUFFERS,
        spare_buffer_bytes_max: SPARE_BUFFER_BYTES,
    }
}

/// Shards on which nothing else runs.
fn alone(room: &Room, shards: usize) -> RuntimeConfig {
    RuntimeConfig {
        shards,
        doors: room.doors.clone(),
        pin: if shards > 1 { PinPolicy::Auto } else { PinPolicy::Off },
        ring: RingConfig {
            buffers: room.buffers.count,
            buffer_bytes: room.buffers.bytes,
            ..RingConfig::default()
        },
        connections_max: room.connections_max,
        spare_buffers_max: room.spare_buffers_max,
        spare_buffer_bytes_max: room.spare_buffer_bytes_max,
        drain: DRAIN,
        ..RuntimeConfig::without_base()
    }
}

/// What the control thread has.
struct Control {
    shared: Arc<Shared>,
    port: ControlPort,
    inbox: Receiver<Command>,
    hears: Arc<OwnedFd>,
    /// Their threads end with this one.
    _resolver: Resolver,
    _keeper: SaltKeeper,
    sockets: crate::asked::Sockets,
    /// Nothing is heard where it may not be listened to.
    generation: Option<Generation>,
    began: Instant,
    carriers: Vec<SocketAddr>,
    /// Doors that the last reading could not open, and why. The next one tries again.
    unopened: Vec<(u16, String)>,
    datagrams: Listening,
    shards_are_ours: bool,
}

impl Control {
    fn run(mut self) {
        loop {
            let ready = self.wait();
            // First: until shards know, they go on with keys that a copy of us has as well.
            if self.is_a_copy() {
                self.begin_anew();
            }
            self.port.receive(|_, _| {});
            // One read empties it; it fails if nobody rang.
            let _ = rustix::io::read(&*self.hears, &mut [0; 8]);
            while let Ok(command) = self.inbox.try_recv() {
                match command {
                    // Who asked for a peer that has other addresses by now asks again.
                    Command::Found((ask, _)) if !is_present(&ask, &self.shared.site()) => {}
                    Command::Found((ask, found)) => {
                        let mail = Mail::Resolved(ask.whose, found);
                        self.shared.send(ask.shard, mail, &mut self.port);
                    }
                    Command::Reload(config, told) => {
                        // Who asked may have gone.
                        let _ = told.send(self.reload(*config));
                    }
                    Command::BeginAnew => self.begin_anew(),
                    Command::End => return,
                }
            }
            if ready {
                let mut sockets = std::mem::take(&mut self.sockets);
                sockets.serve(|request| self.answer(request));
                self.sockets = sockets;
            }
        }
    }

    /// Waits for mail, a command, or somebody who asks. Returns whether somebody asks.
    fn wait(&self) -> bool {
        let mut fds =
            vec![PollFd::new(&self.port, PollFlags::IN), PollFd::new(&*self.hears, PollFlags::IN)];
        fds.extend(self.sockets.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let asks = 2..fds.len();
        let generation = self.generation.iter().map(Generation::fd);
        fds.extend(generation.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) => fds[asks].iter().any(|fd| !fd.revents().is_empty()),
            Err(_) => false,
        }
    }

    /// Whether the kernel has said that this machine is a copy.
    fn is_a_copy(&mut self) -> bool {
        match self.generation.as_ref().map(Generation::has_changed) {
            None => false,
            Some(Ok(changed)) => changed,
            Some(Err(error)) => {
                tracing::warn!("no more is heard of whether this machine is copied: {error}");
                self.generation = None;
                false
            }
        }
    }

    fn begin_anew(&mut self) {
        for shard in 0..self.shared.shards {
            self.shared.send(ShardId(shard as u8), Mail::BeginAnew, &mut self.port);
        }
    }

    fn reload(&mut self, mut config: Config) -> Reloaded {
        let before = self.shared.site();
        if !self.shards_are_ours {
            config.shards = before.config.shards;
        }
        let reload: Reload = changes(&before.config, &config);
        config.keep_until_restart(&before.config);
        let same = reload.is_nothing() && config == before.config;
        let (site, shut, mut open) = before.next(config, &reload);
        // A number that was given to another listener in this reading is to be opened already.
        self.unopened.retain(|(door, _)| !shut.contains(door) && !open.contains(door));
        open.extend(self.unopened.drain(..).map(|(door, _)| door));
        let nothing = same && open.is_empty();
        let mut sockets: Vec<Vec<(u16, TcpListener)>> =
            (0..self.shared.shards).map(|_| Vec::new()).collect();
        let mut failed = Vec::new();
        for door in open {
            let listen = site.listener(door).expect("it is to be opened").listen;
            match listen_together(listen, self.shared.shards) {
                Ok(all) => {
                    for (shard, listener) in sockets.iter_mut().zip(all) {
                        shard.push((door, listener));
                    }
                }
                Err(error) => {
                    failed.push((listen, error.to_string()));
                    self.unopened.push((door, error.to_string()));
                }
            }
        }
        self.shared.set_site(site);
        for (shard, open) in sockets.into_iter().enumerate() {
            let mail = Mail::Reload { shut: shut.clone(), open };
            self.shared.send(ShardId(shard as u8), mail, &mut self.port);
        }
        if let Err(error) = self.datagrams.follow(&self.shared, &self.carriers, &mut self.port) {
            failed.extend(self.carriers.iter().map(|at| (*at, format!("{NO_DATAGRAMS}: {error}"))));
        }
        // Mail keeps its order: a shard that reports has taken over what was sent before. Who hears
        // that the configuration is in force is to find it so.
        self.reports(0);
        Reloaded { restart: reload.restart.clone(), failed, nothing }
    }

    /// What all shards report, with so many flows of each session; nothing if one takes too long.
    fn reports(&mut self, flows_max: usize) -> Vec<ShardStatus> {
        let number = self.shared.begin_reports();
        for shard in 0..self.shared.shards {
            let mail = Mail::Report { number, flows_max };
            self.shared.send(ShardId(shard as u8), mail, &mut self.port);
        }
        let deadline = Instant::now() + REPORT_MAX;
        loop {
            if let Some(reports) = self.shared.take_reports(number) {
                return reports;
            }
            if Instant::now() >= deadline {
                return Vec::new();
            }
            let mut fds = [PollFd::new(&self.port, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&SOON));
            self.port.receive(|_, _| {});
        }
    }

    /// Answers one who asks.
    fn answer(&mut self, request: &crate::asked::Request) -> String {
        if request.asks_packets {
            for shard in 0..self.shared.shards {
                self.shared.send(ShardId(shard as u8), Mail::AskPackets, &mut self.port);
            }
        }
        let reports = self.reports(request.flows_max);
        let site = self.shared.site();
        let unopened = self.unopened.iter().filter_map(|(door, why)| site.unopened(*door, why));
        let of_process = Status {
            uptime_s: self.began.elapsed().as_secs(),
            listen: self.carriers.clone(),
            unopened: unopened.collect(),
            ..Status::default()
        };
        crate::asked::answer(request, &site, &self.shared, (reports, of_process))
    }
}

/// Whether what was asked is still to be known: a peer may have other addresses by now. Mail keeps
/// its order, so a shard that hears an answer has what the answer was compared with.
fn is_present(ask: &Ask, site: &Site) -> bool {
    match ask.whose {
        Whose::Flow(..) => true,
        Whose::Peer(peer) => site.peer(peer).is_some_and(|peer| ask.is_about(&peer.addresses)),
    }
}

/// The kernel's word about copies of this machine, where we may hear it.
fn listen_for_copies() -> Option<Generation> {
    match Generation::listen() {
        Ok(generation) => Some(generation),
        Err(error) => {
            tracing::debug!("the kernel will not tell whether this machine is copied: {error}");
            None
        }
    }
}

/// How long shards may take to report.
const REPORT_MAX: Duration = Duration::from_secs(2);
const SOON: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

#[cfg(test)]
mod tests {
    use ringway_tunnel_proto::{BondId, FlowId, PeerId};

    use super::*;
    use crate::config::tests::good;

    /// Names of a peer take a while, and the file is read again meanwhile: the answer is of use
    /// only if the peer still has those names. What flows wait for is no matter of the file.
    #[test]
    fn answers_from_before_another_reading_are_dropped() {
        let site = |addresses: &str| {
            let text = format!(
                "[tunnel]\nnetwork_key = \"n\"\n[[peer]]\nname = \"a\"\nshared_key = \"a1\"\n\
                 addresses = [{addresses}]\n"
            );
            Site::new(good(&text))
        };
        let before = site("\"gw1.example:4600\", \"192.0.2.7:4600\"");
        let after = site("\"gw2.example:4600\", \"192.0.2.7:4600\"");
        let targets = &before.peer(PeerId(0)).expect("the first").addresses;
        let ask = |peer: u16| Ask::of_peer(ShardId(0), PeerId(peer), targets);
        assert!(is_present(&ask(0), &before));
        assert!(!is_present(&ask(0), &after));
        assert!(!is_present(&ask(0), &site("\"gw1.example:4600\"")), "one is gone");
        assert!(!is_present(&ask(1), &before), "the peer is gone");
        let place = (BondId(0), FlowId(0));
        let flow = Ask::of_flow(ShardId(0), place, ("gw1.example".to_owned(), 80));
        assert!(is_present(&flow, &after));
    }
}
