//! A thread that touches memory before a shard does.
//!
//! A page fault costs a shard 100 us and more for a 2 MiB page, in the middle of a turn. So each
//! region says how far it wants to be committed (`wanted`, moved by its shard), and this thread
//! follows (`committed`, moved only here). Both only grow; neither side ever waits.
//!
//! If the thread is late, the shard's own touch faults the page in as usual: correct, slower, and
//! counted by the region. If committing fails (no memory), the thread says so once per region and
//! leaves that region to faults.
//!
//! Costs nothing while nothing grows: the thread is parked.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};

use crate::mapping::Mapping;

/// Memory is committed and charged in steps of this many bytes, the size of a huge page.
pub(crate) const STEP: usize = 2 << 20;

/// What a region and the committer share about one range of address space.
#[derive(Debug)]
pub(crate) struct Shared {
    mapping: Mapping,
    /// Where the first whole step of the mapping starts.
    pub(crate) start: usize,
    wanted: AtomicUsize,
    committed: AtomicUsize,
    failed: AtomicBool,
    failures: AtomicU64,
    closed: AtomicBool,
}

impl Shared {
    /// Reserves room for `bytes`, aligned to a step.
    pub(crate) fn reserve(bytes: usize) -> io::Result<Shared> {
        let mapping = Mapping::reserve(bytes.next_multiple_of(STEP) + STEP)?;
        mapping.prefer_huge_pages();
        let base = mapping.base().as_ptr() as usize;
        Ok(Shared {
            start: base.next_multiple_of(STEP) - base,
            mapping,
            wanted: AtomicUsize::new(0),
            committed: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        })
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    pub(crate) fn committed(&self) -> usize {
        self.committed.load(Ordering::Acquire)
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Commits one step; true if there may be more to do.
    fn commit_step(&self) -> bool {
        let done = self.committed.load(Ordering::Relaxed);
        let idle = done >= self.wanted.load(Ordering::Acquire);
        if idle || self.failed.load(Ordering::Relaxed) || self.closed.load(Ordering::Relaxed) {
            return false;
        }
        if self.mapping.populate(self.start + done, STEP).is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
            self.failed.store(true, Ordering::Relaxed);
            return false;
        }
        self.committed.store(done + STEP, Ordering::Release);
        true
    }
}

/// The thread and its list of regions; clones share it. It ends when the last clone and the last
/// region are gone.
#[derive(Clone, Debug)]
pub struct Committer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    work: Arc<Work>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Work {
    regions: Mutex<Vec<Arc<Shared>>>,
    stop: AtomicBool,
}

impl Committer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the process may have no more threads.
    pub fn start() -> io::Result<Committer> {
        let work = Arc::new(Work::default());
        let of_thread = Arc::clone(&work);
        let builder = std::thread::Builder::new().name("ringway-commit".into());
        let thread = builder.spawn(move || of_thread.run())?;
        Ok(Committer { inner: Arc::new(Inner { work, thread: Some(thread) }) })
    }

    /// Takes care of one more region.
    pub(crate) fn adopt(&self, shared: &Arc<Shared>) {
        self.inner.work.lock().push(Arc::clone(shared));
    }

    /// A region wants to be committed up to `bytes`.
    pub(crate) fn want(&self, shared: &Shared, bytes: usize) {
        shared.wanted.store(bytes, Ordering::Release);
        self.thread().unpark();
    }

    fn thread(&self) -> &Thread {
        self.inner.thread.as_ref().expect("taken only by drop").thread()
    }
}

impl Work {
    fn run(&self) {
        while !self.stop.load(Ordering::Acquire) {
            // One step per region and round, so that no region waits for another's gigabytes.
            let regions: Vec<Arc<Shared>> = {
                let mut regions = self.lock();
                regions.retain(|shared| !shared.closed.load(Ordering::Relaxed));
                regions.clone()
            };
            let mut busy = false;
            for shared in &regions {
                busy |= shared.commit_step();
            }
            drop(regions);
            if !busy {
                std::thread::park();
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Shared>>> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.work.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It panicked if this fails, and has said so; memory then comes by faults.
            let _ = thread.join();
        }
    }
}
