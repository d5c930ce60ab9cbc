//! What operators did, in the log: who asked for what. Shards hand lines over and never wait for a
//! log that is slow to be read; a thread writes them.
//!
//! Bounds: [`LINES_MAX`] lines wait; one beyond is dropped, and the next one says how many were.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::Builder;
use std::time::Duration;

/// Lines that may wait for the log.
const LINES_MAX: usize = 4096;
/// How long a stop waits for a log that nobody reads.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// What the thread is handed.
enum Line {
    Text(String),
    /// Everything before this is written once it is answered.
    Flush(SyncSender<()>),
}

/// Where shards leave their lines.
#[derive(Clone, Debug)]
pub(crate) struct Audit {
    lines: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

impl Audit {
    /// Starts the thread that writes; it ends when the last of these is dropped.
    pub(crate) fn start() -> std::io::Result<Audit> {
        let (lines, waiting) = sync_channel(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        Builder::new().name("ringway-audit".to_owned()).spawn(move || {
            for line in waiting {
                match line {
                    Line::Text(line) => write(&line, lost.swap(0, Ordering::Relaxed)),
                    // Whoever asked may have given up waiting.
                    Line::Flush(done) => drop(done.send(())),
                }
            }
        })?;
        Ok(Audit { lines, dropped })
    }

    /// Returns when everything is written, or nobody reads the log.
    pub(crate) fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        if self.lines.try_send(Line::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(FLUSH_WITHIN);
        }
    }

    /// Leaves a line.
    pub(crate) fn tell(&self, line: &[u8]) {
        let line = Line::Text(String::from_utf8_lossy(line).into_owned());
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(line: &str, lost: u64) {
    if lost > 0 {
        tracing::warn!(target: "ringway::audit", "{lost} lines were lost before the next one");
    }
    tracing::info!(target: "ringway::audit", "{line}");
}
