//! SIGTERM and Ctrl-C: the first asks to stop, the second does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::{Failure, host};

/// Told once that the program is to stop.
pub(crate) struct Stop {
    first: Receiver<()>,
    flag: Arc<AtomicBool>,
}

impl Stop {
    /// From now on the signals no longer end the program by themselves.
    pub(crate) fn install() -> Result<Stop, Failure> {
        let signals = Signals::new([SIGINT, SIGTERM]);
        let mut signals = signals.map_err(|error| host("cannot listen for signals", error))?;
        let (tell, first) = sync_channel(1);
        let flag = Arc::new(AtomicBool::new(false));
        let raised = flag.clone();
        let thread = std::thread::Builder::new().name("ringway-signals".to_owned());
        let spawned = thread.spawn(move || {
            let mut came = signals.forever();
            if came.next().is_some() {
                raised.store(true, Ordering::Relaxed);
                let _ = tell.send(());
            }
            if let Some(second) = came.next() {
                eprintln!("ringway: stopped at once by a second signal");
                // As a shell reports a program that a signal has ended.
                std::process::exit(128 + second);
            }
        });
        spawned.map_err(|error| host("cannot start a thread", error))?;
        Ok(Stop { first, flag })
    }

    /// True from the first signal on, for those who look from time to time.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    /// Waits for the first signal.
    pub(crate) fn wait(&self) {
        let _ = self.first.recv();
    }

    /// Waits for the first signal, but not longer than this; whether it came.
    pub(crate) fn wait_for(&self, at_most: Duration) -> bool {
        self.first.recv_timeout(at_most) != Err(RecvTimeoutError::Timeout)
    }
}
