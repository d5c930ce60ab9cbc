//! SIGTERM and Ctrl-C: the first asks to stop, the second does. SIGHUP, for who wants to hear it:
//! read again what was read at the start.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::{Failure, host};

/// Told that the program is to stop.
pub(crate) struct Stop {
    /// A word to whoever waits; what it is about stands in the flags.
    news: Receiver<()>,
    stop: Arc<AtomicBool>,
    /// The first signal to stop.
    signal: Arc<AtomicI32>,
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
        let (tell, news) = sync_channel(1);
        let stop =
            Stop { news, stop: Arc::default(), signal: Arc::default(), hangup: Arc::default() };
        let (stopped, hung_up) = (Arc::clone(&stop.stop), Arc::clone(&stop.hangup));
        let (first, mut insisting) = (Arc::clone(&stop.signal), Insisting::default());
        hear(signals, move |signal| {
            if signal == SIGHUP {
                hung_up.store(true, Ordering::Release);
            } else if insisting.hear(signal) {
                first.store(signal, Ordering::Release);
                stopped.store(true, Ordering::Release);
            }
            // A word that nobody has taken yet stands for this one as well.
            let _ = tell.try_send(());
        })?;
        Ok(stop)
    }

    /// True from the first signal to stop on, for those who look from time to time.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.stop
    }

    /// Whether the first signal to stop has come.
    pub(crate) fn is_set(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The exit code of a program that the signal has ended, as a shell reports it.
    pub(crate) fn code(&self) -> ExitCode {
        ended_by(self.signal.load(Ordering::Acquire))
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

/// Ends the program at once when the signal to stop comes for a second time.
#[derive(Default)]
pub(crate) struct Insisting {
    first: Option<Instant>,
}

impl Insisting {
    /// Whether this is the first one.
    pub(crate) fn hear(&mut self, signal: i32) -> bool {
        let Some(first) = self.first else {
            self.first = Some(Instant::now());
            return true;
        };
        if first.elapsed() >= SAME_SIGNAL {
            eprintln!("ringway: stopped at once by a second signal");
            std::process::exit(128 + signal);
        }
        false
    }
}

/// As a shell reports a program that a signal has ended.
pub(crate) fn ended_by(signal: i32) -> ExitCode {
    ExitCode::from(128_u8.wrapping_add(signal as u8))
}

/// From now on these signals are told to `each` on a thread of its own, and do nothing else.
pub(crate) fn hear(signals: &[i32], each: impl FnMut(i32) + Send + 'static) -> Result<(), Failure> {
    let signals = Signals::new(signals);
    let mut signals = signals.map_err(|error| host("cannot listen for signals", error))?;
    let thread = std::thread::Builder::new().name("ringway-signals".to_owned());
    let spawned = thread.spawn(move || signals.forever().for_each(each));
    spawned.map_err(|error| host("cannot start a thread", error))?;
    Ok(())
}
