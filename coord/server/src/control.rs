//! The control plane: one thread beside the shards that may block, so that they never have to.
//!
//! It owns the state directory and the admin endpoint. Shards reach it through a few atomic words:
//! a shard *wishes* (a longer lease persisted, another epoch taken) and reads *facts* (what is on
//! the disk by now). Wishes are "at least this much", so repeating one is free, none is ever
//! queued, and any number of shards fit into one word each. Wishing is rare; it is the only moment
//! at which a shard takes a lock (the bell's, which nobody holds for longer than a wake).
//!
//! The plane runs on glommio: one executor, not pinned, preempt timer 100 ms (never below 1 ms,
//! where glommio 0.9 has been seen to park with work to do). Where glommio cannot start (memlock
//! below 512 KiB, io_uring refused to it) a plain `poll` loop does the same; see [`Runtime`].
//!
//! Invariants:
//! - C1  A fact is stored only after the disk has it; a shard that acts on facts needs no lock.
//! - C2  No shard ever waits for this thread: the thread may sleep for seconds unnoticed.
//! - C3  The bell's waker is cloned and dropped on the control thread only.
//!
//! Bounds: one thread (glommio adds one for what the kernel cannot do asynchronously), at most 64
//! admin connections of 8 KiB, one wake a second while idle.
//! Not here: what is persisted (`state.rs`), what the pages say (`admin.rs`).
//! Tests: both runtimes through the same stories, below.

mod on_glommio;
mod on_std;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::Duration;

use ringway_core::{Epoch, Span};
use thiserror::Error;

use crate::admin::NodeView;
use crate::config::{AdminPlace, StatePlace};
use crate::state::{Files, Opened, StateDir, StateError, random_bytes};

/// How long a lost wake or a failed write may go unnoticed.
const TICK: Duration = Duration::from_secs(1);

/// What the control thread runs on.
///
/// Two implementations of one small trait, so that the server starts wherever it is built: glommio
/// needs a C compiler at build time, and 512 KiB of lockable memory and io_uring at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// glommio, or `poll` where glommio cannot start.
    Auto,
    /// glommio or an error.
    Glommio,
    /// `poll`.
    Std,
}

/// Runs a [`Plane`] on the thread that calls it.
trait ControlRuntime {
    /// As doctor and the log call it.
    const NAME: &'static str;
    /// Returns the plane if this runtime cannot start here at all; otherwise reports to the plane's
    /// starter, and returns when the plane was told to stop.
    fn run(plane: Plane) -> Result<Result<(), StateError>, (Plane, io::Error)>;
}

/// What the control plane is to do.
#[derive(Clone, Debug)]
pub struct ControlSettings {
    /// Where the state is kept.
    pub state: StatePlace,
    /// Where the admin endpoint listens.
    pub admin: AdminPlace,
    /// The longest lease that is ever granted.
    pub lease_max: Span,
    /// What to run on.
    pub runtime: Runtime,
}

/// Why the control plane did not start.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The admin endpoint cannot listen.
    #[error(
        "the admin endpoint cannot listen on {place}: {}. Choose another place with --admin, or \
         --admin off; a second server beside one that runs needs another --listen, too",
        why_not(source)
    )]
    Admin {
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No thread, or no glommio where only glommio would do.
    #[error("the control plane cannot start on {runtime}: {source}")]
    Start {
        /// On what.
        runtime: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Told by the control thread whenever a fact has changed: rings the shards.
pub type News = Arc<dyn Fn() + Send + Sync>;

/// A started control plane.
#[derive(Debug)]
pub struct Started {
    /// To stop it.
    pub control: Control,
    /// For the shards; clone it for each.
    pub port: ControlPort,
    /// What the state directory said, and the epoch of this life.
    pub opened: Opened,
    /// Where the admin endpoint listens, with the port that was taken.
    pub admin: AdminPlace,
    /// What it runs on.
    pub runtime: &'static str,
}

/// Starts the control thread; returns when the new epoch is on the disk and the endpoint listens.
///
/// Until [`NodeView::health`] says so, `/healthz` answers that the server is starting.
pub fn start(
    settings: &ControlSettings,
    view: Arc<dyn NodeView>,
    news: News,
) -> Result<Started, ControlError> {
    let (report, reports) = sync_channel(1);
    let place = Place::of(&settings.state);
    let shared = Arc::new(Shared::new(settings.lease_max));
    let plane = Plane {
        dir: place.dir.clone(),
        admin: settings.admin.clone(),
        shared: shared.clone(),
        view,
        news,
        report,
    };
    let runtime = settings.runtime;
    let thread = std::thread::Builder::new().name("ringway-control".to_owned());
    let spawned = thread.spawn(move || run(plane, runtime));
    let thread = spawned.map_err(|source| ControlError::Start { runtime: "a thread", source })?;
    match reports.recv() {
        Ok(Ok(ready)) => {
            let Ready { opened, admin, runtime } = ready;
            let port = ControlPort { shared: shared.clone() };
            let control = Control { shared, thread, admin: admin.clone(), _place: place };
            Ok(Started { control, port, opened, admin, runtime })
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ControlError::Start {
            runtime: "a thread",
            source: io::Error::other("it ended without a word; see the log"),
        }),
    }
}

/// Runs the plane on the first runtime that starts.
fn run(plane: Plane, runtime: Runtime) -> Result<(), StateError> {
    if runtime == Runtime::Std {
        return run_on::<on_std::Std>(plane);
    }
    match on_glommio::Glommio::run(plane) {
        Ok(result) => result,
        Err((plane, source)) if runtime == Runtime::Glommio => {
            let runtime = on_glommio::Glommio::NAME;
            plane.tell(Err(ControlError::Start { runtime, source }));
            Ok(())
        }
        Err((plane, error)) => {
            tracing::warn!("the control plane uses plain poll, because glommio: {error}");
            run_on::<on_std::Std>(plane)
        }
    }
}

fn run_on<R: ControlRuntime>(plane: Plane) -> Result<(), StateError> {
    R::run(plane).unwrap_or_else(|(plane, source)| {
        plane.tell(Err(ControlError::Start { runtime: R::NAME, source }));
        Ok(())
    })
}

/// The directory, and whether it goes when the server does.
#[derive(Debug)]
struct Place {
    dir: PathBuf,
    temporary: bool,
}

impl Place {
    fn of(state: &StatePlace) -> Place {
        match state {
            StatePlace::Dir(dir) => Place { dir: dir.clone(), temporary: false },
            StatePlace::Temporary => {
                let name = format!("ringway-{:016x}", u64::from_le_bytes(random_bytes()));
                Place { dir: std::env::temp_dir().join(name), temporary: true }
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.temporary {
            // Nobody reads it again; what stays behind is a few hundred bytes.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// Stops the control plane.
#[derive(Debug)]
pub struct Control {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<(), StateError>>,
    admin: AdminPlace,
    _place: Place,
}

impl Control {
    /// Ends the thread and gives the directory free.
    ///
    /// `clean` is the promise that every session has ended and its owner knows, see
    /// [`StateDir::mark_clean`]: the next start then grants at once.
    pub fn stop(self, clean: bool) -> Result<(), ControlError> {
        self.shared.stop.store(if clean { STOP_CLEAN } else { STOP_UNCLEAN }, Ordering::Release);
        self.shared.ring();
        let ended = self.thread.join();
        if let AdminPlace::Unix(path) = &self.admin {
            // The next server would clear it away as well.
            let _ = std::fs::remove_file(path);
        }
        Ok(ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
    }

    /// Blocks the control thread until the result is dropped, and returns when it stands: for the
    /// tests that watch the shards meanwhile.
    pub fn stall(&self) -> Stalled {
        let (stand, standing) = sync_channel(0);
        let (hold, held) = sync_channel(0);
        *self.shared.stall.lock().unwrap_or_else(PoisonError::into_inner) = Some((stand, held));
        self.shared.ring();
        // It looks for this before anything else.
        let _ = standing.recv();
        Stalled { _hold: hold }
    }
}

/// The control thread is blocked as long as this lives.
#[derive(Debug)]
#[must_use]
pub struct Stalled {
    _hold: SyncSender<()>,
}

/// A shard's side of the control plane. Nothing here waits.
#[derive(Clone, Debug)]
pub struct ControlPort {
    shared: Arc<Shared>,
}

impl ControlPort {
    /// Leases up to this span may be granted: an unclean restart would wait for them.
    #[inline]
    pub fn lease_persisted(&self) -> Span {
        Span::from_ms(self.shared.lease_persisted_ms.load(Ordering::Acquire))
    }

    /// Whether a lease of this span may be granted now. If not, it is asked for, and the news will
    /// come; ask again then. Spans above the server's longest lease are never persisted.
    #[inline]
    pub fn want_lease(&self, span: Span) -> bool {
        if span <= self.lease_persisted() {
            return true;
        }
        if span <= self.shared.lease_max {
            self.shared.wish(&self.shared.lease_wanted_ms, span.as_ms_ceil());
        }
        false
    }

    /// The current epoch.
    #[inline]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.shared.epoch.load(Ordering::Acquire))
    }

    /// The current epoch if it is later than `used_up`; otherwise a later one is asked for, and the
    /// news will come.
    pub fn want_epoch_after(&self, used_up: Epoch) -> Option<Epoch> {
        let epoch = self.epoch();
        if epoch > used_up {
            return Some(epoch);
        }
        self.shared.wish(&self.shared.epoch_wanted, u64::from(used_up.0) + 1);
        None
    }

    /// The leases of earlier lives have run out, see [`StateDir::settle`].
    pub fn settle(&self) {
        self.shared.settle.store(true, Ordering::Release);
        self.shared.ring();
    }

    /// Writes to the state directory that failed. Wishes are tried again every second.
    pub fn failures(&self) -> u64 {
        self.shared.failures.load(Ordering::Relaxed)
    }
}

const RUNNING: u8 = 0;
const STOP_CLEAN: u8 = 1;
const STOP_UNCLEAN: u8 = 2;

/// The words between the shards and the control thread.
#[derive(Debug)]
struct Shared {
    lease_max: Span,
    lease_wanted_ms: AtomicU64,
    lease_persisted_ms: AtomicU64,
    epoch_wanted: AtomicU64,
    epoch: AtomicU32,
    settle: AtomicBool,
    stop: AtomicU8,
    /// Where to say that the thread stands, and what holds it then.
    stall: Mutex<Option<(SyncSender<()>, Receiver<()>)>>,
    failures: AtomicU64,
    bell: Mutex<Option<Waker>>,
}

impl Shared {
    fn new(lease_max: Span) -> Self {
        Self {
            lease_max,
            lease_wanted_ms: AtomicU64::new(0),
            lease_persisted_ms: AtomicU64::new(0),
            epoch_wanted: AtomicU64::new(0),
            epoch: AtomicU32::new(0),
            settle: AtomicBool::new(false),
            stop: AtomicU8::new(RUNNING),
            stall: Mutex::new(None),
            failures: AtomicU64::new(0),
            bell: Mutex::new(None),
        }
    }

    /// Raises a wish; rings only if nobody wished for as much before.
    fn wish(&self, word: &AtomicU64, at_least: u64) {
        if word.fetch_max(at_least, Ordering::AcqRel) < at_least {
            self.ring();
        }
    }

    /// Wakes the control thread. By reference (C3).
    fn ring(&self) {
        let bell = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waker) = &*bell {
            waker.wake_by_ref();
        }
    }

    fn set_bell(&self, waker: Option<Waker>) {
        *self.bell.lock().unwrap_or_else(PoisonError::into_inner) = waker;
    }

    /// Whether there is anything for the control thread to do that has not just failed.
    fn has_work(&self) -> bool {
        self.stop.load(Ordering::Acquire) != RUNNING
            || self.stall.lock().unwrap_or_else(PoisonError::into_inner).is_some()
            || self.settle.load(Ordering::Acquire)
            || self.wants_lease()
            || self.wants_epoch()
    }

    fn wants_lease(&self) -> bool {
        self.lease_wanted_ms.load(Ordering::Acquire)
            > self.lease_persisted_ms.load(Ordering::Relaxed)
    }

    fn wants_epoch(&self) -> bool {
        self.epoch_wanted.load(Ordering::Acquire) > u64::from(self.epoch.load(Ordering::Relaxed))
    }
}

type Report = Result<Ready, ControlError>;

/// What a started plane tells.
#[derive(Debug)]
struct Ready {
    opened: Opened,
    admin: AdminPlace,
    runtime: &'static str,
}

/// Everything the control thread needs, before it has opened anything.
struct Plane {
    dir: PathBuf,
    admin: AdminPlace,
    shared: Arc<Shared>,
    view: Arc<dyn NodeView>,
    news: News,
    report: SyncSender<Report>,
}

impl Plane {
    /// The starter listens until it has heard once.
    fn tell(&self, report: Report) {
        let _ = self.report.send(report);
    }
}

/// Grants the wishes.
struct Keeper<F> {
    state: StateDir<F>,
    shared: Arc<Shared>,
    news: News,
}

impl<F: Files> Keeper<F> {
    /// Opens the state directory and stores the first facts.
    async fn open(plane: &Plane, files: F) -> Result<(Self, Opened), StateError> {
        let (state, opened) = StateDir::open(&plane.dir, files).await?;
        let shared = plane.shared.clone();
        shared.epoch.store(opened.epoch.0, Ordering::Release);
        Ok((Self { state, shared, news: plane.news.clone() }, opened))
    }

    /// Does what is wished for; false once the thread is to end.
    async fn grant_wishes(&mut self) -> bool {
        let stall = self.shared.stall.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((stand, held)) = stall {
            let _ = stand.send(());
            // Ends when the other side is dropped.
            let _ = held.recv();
        }
        if self.shared.settle.swap(false, Ordering::AcqRel)
            && let Err(error) = self.state.settle().await
        {
            // Only makes a later wait longer than it had to be, so it is not tried again.
            self.failed(&error);
        }
        if self.shared.wants_lease() || self.shared.wants_epoch() {
            let (lease, epoch) = (self.raise_lease().await, self.raise_epoch().await);
            [lease, epoch].iter().filter_map(|done| done.as_ref().err()).for_each(|error| {
                self.failed(error);
            });
            (self.news)();
        }
        self.shared.stop.load(Ordering::Acquire) == RUNNING
    }

    async fn raise_lease(&mut self) -> Result<(), StateError> {
        if self.shared.wants_lease() {
            let wanted = Span::from_ms(self.shared.lease_wanted_ms.load(Ordering::Acquire));
            let kept = self.state.raise_longest_lease(wanted, self.shared.lease_max).await?;
            self.shared.lease_persisted_ms.store(kept.as_ms_ceil(), Ordering::Release);
        }
        Ok(())
    }

    async fn raise_epoch(&mut self) -> Result<(), StateError> {
        if self.shared.wants_epoch() {
            let epoch = self.state.next_epoch().await?;
            self.shared.epoch.store(epoch.0, Ordering::Release);
        }
        Ok(())
    }

    /// The last act of the thread.
    async fn end(mut self) -> Result<(), StateError> {
        self.shared.set_bell(None);
        if self.shared.stop.load(Ordering::Acquire) == STOP_CLEAN {
            self.state.mark_clean().await?;
        }
        Ok(())
    }

    fn failed(&self, error: &StateError) {
        self.shared.failures.fetch_add(1, Ordering::Relaxed);
        tracing::error!("{error}");
    }
}

/// A socket file that a killed server left behind is removed; one that answers is not.
fn clear_stale_socket(path: &Path) -> io::Result<()> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(_) => Ok(()),
    }
}

/// Only the server's user and group may look.
fn restrict_socket(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
}

/// In words what most often keeps somebody from listening, else as the system says it.
fn why_not(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => "another process does (`ss -ltnp` shows which)".to_owned(),
        _ => source.to_string(),
    }
}

fn admin_error(place: &AdminPlace, source: io::Error) -> ControlError {
    ControlError::Admin { place: place.to_string(), source }
}

/// Refuses an address that is taken. glommio always binds with SO_REUSEPORT, which would share the
/// port with another server's endpoint instead of saying that it is in use. Asked by connecting,
/// not by binding: what an earlier server has answered lingers for a minute on the port, and the
/// kernel lets only those bind beside it who share as glommio does.
fn check_free(addr: SocketAddr) -> io::Result<()> {
    if addr.port() == 0 {
        return Ok(());
    }
    match std::net::TcpStream::connect_timeout(&addr, TICK) {
        // On a free port that the kernel also gives to clients, a socket can meet itself.
        Ok(stream) if stream.local_addr()? == addr => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(_) => Err(rustix::io::Errno::ADDRINUSE.into()),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err(rustix::io::Errno::ADDRINUSE.into())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
