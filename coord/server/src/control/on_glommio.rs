//! The control plane on glommio: files through `DmaFile`, sockets and timers on its executor.
//!
//! Not here: anything that decides; this file only waits and moves bytes.

use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use glommio::io::{Directory, DmaFile};
use glommio::net::{TcpListener, UnixListener};
use glommio::sync::Semaphore;
use glommio::timer::timeout;
use glommio::{GlommioError, LocalExecutorBuilder, Placement, Task};

use super::{
    ControlRuntime, Keeper, Plane, Ready, Shared, TICK, admin_error, check_free,
    clear_stale_socket, restrict_socket,
};
use crate::admin::{ADMIN_CONNS_MAX, ADMIN_DEADLINE, Exchange, NodeView};
use crate::config::AdminPlace;
use crate::state::{Files, StateError, StdFiles};

/// Never below 1 ms: see the header of `control.rs`.
const PREEMPT_TIMER: Duration = Duration::from_millis(100);
/// Registered with the ring and locked in memory: the state file needs a page.
const IO_MEMORY_BYTES: usize = 64 * 1024;
const RING_DEPTH: usize = 64;

pub(super) struct Glommio;

impl ControlRuntime for Glommio {
    const NAME: &'static str = "glommio";

    fn run(plane: Plane) -> Result<Result<(), StateError>, (Plane, io::Error)> {
        let made = LocalExecutorBuilder::new(Placement::Unbound)
            .name("ringway-control")
            .preempt_timer(PREEMPT_TIMER)
            .io_memory(IO_MEMORY_BYTES)
            .ring_depth(RING_DEPTH)
            .make();
        match made {
            Ok(executor) => Ok(executor.run(control(plane))),
            Err(error) => Err((plane, error.into())),
        }
    }
}

async fn control(plane: Plane) -> Result<(), StateError> {
    let files = GlommioFiles::new(&plane.dir);
    let (mut keeper, opened) = match Keeper::open(&plane, files).await {
        Ok(opened) => opened,
        Err(error) => {
            plane.tell(Err(error.into()));
            return Ok(());
        }
    };
    let (admin, accepting) = match listen(&plane.admin, plane.view.clone()) {
        Ok(listening) => listening,
        Err(error) => {
            plane.tell(Err(admin_error(&plane.admin, error)));
            return Ok(());
        }
    };
    plane.tell(Ok(Ready { opened, admin, runtime: Glommio::NAME }));
    while keeper.grant_wishes().await {
        // The tick also retries what failed, so a wish that cannot be granted does not spin.
        let _: Result<(), GlommioError<()>> = timeout(TICK, rung(&plane.shared)).await;
    }
    if let Some(task) = accepting {
        // An executor that ends leaks its tasks, and the listener with them.
        task.cancel().await;
    }
    keeper.end().await
}

/// Ready at the first ring after the call.
async fn rung(shared: &Shared) -> Result<(), GlommioError<()>> {
    let failures = shared.failures.load(std::sync::atomic::Ordering::Relaxed);
    let mut first = true;
    poll_fn(|context| {
        shared.set_bell(Some(context.waker().clone()));
        // A wish that was raised before the bell was hung has rung nobody. One that failed just
        // now waits for the tick.
        let ready = !first || (failures == 0 && shared.has_work());
        first = false;
        if ready { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

/// Where the endpoint listens, with the port that was taken, and the task that accepts.
type Listening = (AdminPlace, Option<Task<()>>);

/// Listens, and serves from a task of its own.
fn listen(admin: &AdminPlace, view: Arc<dyn NodeView>) -> io::Result<Listening> {
    let seats = Rc::new(Semaphore::new(ADMIN_CONNS_MAX as u64));
    match admin {
        AdminPlace::Off => Ok((AdminPlace::Off, None)),
        AdminPlace::Tcp(addr) => {
            check_free(*addr)?;
            let listener = TcpListener::bind(addr)?;
            let bound = AdminPlace::Tcp(listener.local_addr()?);
            let task = async move {
                loop {
                    let Ok(seat) = seats.acquire_static_permit(1).await else { return };
                    match listener.accept().await {
                        Ok(stream) => spawn_exchange(stream, view.clone(), seat),
                        Err(error) => rest(&error.into()).await,
                    }
                }
            };
            Ok((bound, Some(glommio::spawn_local(task))))
        }
        AdminPlace::Unix(path) => {
            clear_stale_socket(path)?;
            let listener = UnixListener::bind(path)?;
            restrict_socket(path)?;
            let task = async move {
                loop {
                    let Ok(seat) = seats.acquire_static_permit(1).await else { return };
                    match listener.accept().await {
                        Ok(stream) => spawn_exchange(stream, view.clone(), seat),
                        Err(error) => rest(&error.into()).await,
                    }
                }
            };
            Ok((admin.clone(), Some(glommio::spawn_local(task))))
        }
    }
}

/// An accept that fails (no file descriptors left) fails again at once: wait a little.
async fn rest(error: &io::Error) {
    tracing::warn!("the admin endpoint cannot accept: {error}");
    glommio::timer::sleep(TICK).await;
}

fn spawn_exchange<S>(stream: S, view: Arc<dyn NodeView>, seat: impl Sized + 'static)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let task = async move {
        let deadline = Duration::from_nanos(ADMIN_DEADLINE.0);
        let served = timeout(deadline, async move { Ok(exchange(stream, &*view).await) });
        let served: Result<io::Result<()>, GlommioError<()>> = served.await;
        if let Ok(Err(error)) = served {
            tracing::debug!("admin connection: {error}");
        }
        drop(seat);
    };
    glommio::spawn_local(task).detach();
}

async fn exchange<S>(mut stream: S, view: &dyn NodeView) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut exchange = Exchange::default();
    let mut bytes = [0; 2048];
    loop {
        let read = stream.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        if let Some(answer) = exchange.feed(&bytes[..read], view) {
            stream.write_all(&answer).await?;
            return stream.close().await;
        }
    }
}

/// [`Files`] on glommio: direct I/O where the file system has it, plain files where it has not.
#[derive(Debug)]
struct GlommioFiles {
    dir: PathBuf,
    plain: StdFiles,
}

impl GlommioFiles {
    /// An absolute path, because glommio 0.9 opens directories relative to descriptor -1.
    fn new(dir: &Path) -> Self {
        let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        Self { dir: absolute, plain: StdFiles::new(dir) }
    }

    async fn write_direct(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let file = DmaFile::create(self.dir.join(name)).await?;
        let whole = file.align_up(bytes.len() as u64) as usize;
        let mut buffer = file.alloc_dma_buffer(whole);
        buffer.as_bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        buffer.as_bytes_mut()[bytes.len()..].fill(0);
        let written = file.write_at(buffer, 0).await?;
        if written != whole {
            return Err(io::ErrorKind::WriteZero.into());
        }
        file.truncate(bytes.len() as u64).await?;
        file.fdatasync().await?;
        Ok(file.close().await?)
    }
}

impl Files for GlommioFiles {
    async fn read(&self, name: &str, max: usize) -> io::Result<Option<Vec<u8>>> {
        // Once, before anything else runs here: nothing is gained by reading it asynchronously.
        self.plain.read(name, max).await
    }

    async fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        match self.write_direct(name, bytes).await {
            // No O_DIRECT on this file system. This thread may block.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.plain.write(name, bytes).await
            }
            result => result,
        }
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(glommio::io::rename(self.dir.join(from), self.dir.join(to)).await?)
    }

    async fn sync_dir(&self) -> io::Result<()> {
        let dir = Directory::open(&self.dir).await?;
        dir.sync().await?;
        Ok(dir.close().await?)
    }
}
