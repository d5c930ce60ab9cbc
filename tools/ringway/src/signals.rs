//! SIGTERM and Ctrl-C: the first asks to stop, the second does. SIGHUP, for who wants to hear it:
//! read again what was read at the start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::{Failure, host};

/// Told that the program is to stop.
pub(crate) struct Stop {
    /// A word to whoever waits; what it is about stands in the flags.
    news: Receiver<()>,
    stop: Arc<AtomicBool>,
    hangup: Arc<AtomicBool>,
}

/// What [`Stop::next`] has heard.
pub(crate) enum Came {
    /// The program is to stop.
    Stop,
    /// SIGHUP, once or several times.
    Hangup,
}

impl Stop {
    /// From now on the signals no longer end the program by themselves.
    pub(crate) fn install() -> Result<Stop, Failure> {
        Stop::install_for(&[SIGINT, SIGTERM])
    }

    /// The same for SIGHUP as well.
    pub(crate) fn install_with_hangup() -> Result<Stop, Failure> {
        Stop::install_for(&[SIGINT, SIGTERM, SIGHUP])
    }

    fn install_for(signals: &[i32]) -> Result<Stop, Failure> {
        let signals = Signals::new(signals);
        let signals = signals.map_err(|error| host("cannot listen for signals", error))?;
        let (tell, news) = sync_channel(1);
        let stop = Stop { news, stop: Arc::default(), hangup: Arc::default() };
        let (stopped, hung_up) = (Arc::clone(&stop.stop), Arc::clone(&stop.hangup));
        let thread = std::thread::Builder::new().name("ringway-signals".to_owned());
        let spawned = thread.spawn(move || listen(signals, &tell, &stopped, &hung_up));
        spawned.map_err(|error| host("cannot start a thread", error))?;
        Ok(stop)
    }

    /// True from the first signal to stop on, for those who look from time to time.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.stop
    }

    /// Waits for the next signal.
    pub(crate) fn next(&self) -> Came {
        loop {
            let _ = self.news.recv();
            if self.stop.load(Ordering::Acquire) {
                return Came::Stop;
            }
            if self.hangup.swap(false, Ordering::AcqRel) {
                return Came::Hangup;
            }
        }
    }

    /// Waits for the first signal to stop, but not longer than this; whether it came.
    pub(crate) fn wait_for(&self, at_most: Duration) -> bool {
        let _ = self.news.recv_timeout(at_most);
        self.stop.load(Ordering::Acquire)
    }
}

/// A second signal within this time is the first one again: `timeout` and some supervisors signal
/// a program and then its whole group.
const SAME_SIGNAL: Duration = Duration::from_millis(250);

fn listen(mut signals: Signals, tell: &SyncSender<()>, stopped: &AtomicBool, hung_up: &AtomicBool) {
    let mut first: Option<Instant> = None;
    for signal in signals.forever() {
        if signal == SIGHUP {
            hung_up.store(true, Ordering::Release);
        } else if first.is_none() {
            first = Some(Instant::now());
            stopped.store(true, Ordering::Release);
        } else if first.is_some_and(|first| first.elapsed() >= SAME_SIGNAL) {
            eprintln!("ringway: stopped at once by a second signal");
            // As a shell reports a program that a signal has ended.
            std::process::exit(128 + signal);
        }
        // A word that nobody has taken yet stands for this one as well.
        let _ = tell.try_send(());
    }
}
