//! A session with a lease that keeps itself, and one ear for all that may happen to a command that
//! holds a name in it.
//!
//! Always holds: whatever ends the command, the session is closed before it, so that its names and
//! its places in queues are free at once; unless there is no connection, then the lease frees them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use ringway_client::engine::Event;
use ringway_client::session::blocking::Builder;
use ringway_client::{Held, Mode, Refusal, Session, SessionError};

use crate::args::client::ServerArgs;
use crate::connect::{connect, credentials, resolve};
use crate::failure::{Failure, host};
use crate::signals::hear;

/// Words that wait to be heard.
const WORDS_MAX: usize = 64;

/// Opens a session for this program, with the server's default lease unless another is given.
pub(super) fn open(server: &ServerArgs, lease: Option<Duration>) -> Result<Session, Failure> {
    // A session goes on trying; a plain connection says at once, and in detail, what is wrong.
    drop(connect(server)?);
    // No two programs may have the same node, and nobody looks for this one by its number.
    let node = RandomState::new().build_hasher().finish();
    let within = Duration::from_millis(server.timeout_ms);
    let mut builder: Builder =
        Session::builder().node(node).lease(lease.unwrap_or_default()).open_within(within);
    if let Some(credentials) = credentials(server)? {
        builder = builder.credentials(credentials);
    }
    Ok(builder.connect(resolve(&server.server)?.to_string())?)
}

/// What may happen.
pub(super) enum Word {
    Signal(i32),
    Session(Event),
    Claimed(Result<Held, SessionError>),
}

/// How a wait has ended.
pub(super) enum Claim {
    Granted(Held),
    /// With what the server answered, if it said more than that the name is another's.
    TimedOut(Option<Refusal>),
    /// By a signal; the session is closed.
    Interrupted(i32),
}

/// See the module.
pub(super) struct Kept {
    pub(super) session: Session,
    pub(super) words: Receiver<Word>,
    tell: SyncSender<Word>,
}

impl Kept {
    /// Signals are heard from now on as words, those first for which `to_us` says true.
    pub(super) fn open(
        server: &ServerArgs,
        lease: Option<Duration>,
        signals: &[i32],
        mut to_us: impl FnMut(i32) -> bool + Send + 'static,
    ) -> Result<Kept, Failure> {
        let (tell, words) = sync_channel(WORDS_MAX);
        let teller = tell.clone();
        hear(signals, move |signal| {
            if to_us(signal) {
                let _ = teller.send(Word::Signal(signal));
            }
        })?;
        let session = open(server, lease)?;
        let (mut events, teller) = (session.events(), tell.clone());
        spawn(move || {
            while let Some(event) = events.recv() {
                if teller.send(Word::Session(event)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Kept { session, words, tell })
    }

    /// Waits for the name.
    pub(super) fn claim(
        &self,
        name: &[u8],
        mode: Mode,
        within: Option<Duration>,
    ) -> Result<Claim, Failure> {
        let (session, name, tell) = (self.session.clone(), name.to_vec(), self.tell.clone());
        spawn(move || {
            let _ = tell.send(Word::Claimed(session.lock_as(name, mode, within)));
        })?;
        loop {
            match self.words.recv().expect("we have a teller ourselves") {
                Word::Claimed(Ok(held)) => return Ok(Claim::Granted(held)),
                Word::Claimed(Err(SessionError::TimedOut { last, .. })) => {
                    return Ok(Claim::TimedOut(last));
                }
                Word::Claimed(Err(error)) => return Err(error.into()),
                Word::Signal(signal) if ends_us(signal) => {
                    self.session.close();
                    return Ok(Claim::Interrupted(signal));
                }
                // The wait survives that the connection breaks; if the session ends, it ends.
                Word::Signal(_) | Word::Session(_) => {}
            }
        }
    }
}

/// Within which time a name was not to be had, and what the server said to that.
pub(super) fn in_time(ms: u32, last: Option<Refusal>) -> String {
    let answered = last.map(|refusal| format!("; the server answered {refusal}"));
    format!("within {ms} ms{}", answered.unwrap_or_default())
}

/// Whether a signal asks a program to end that has nobody to pass it on to.
fn ends_us(signal: i32) -> bool {
    signal != signal_hook::consts::SIGCHLD
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let spawned = std::thread::Builder::new().name("ringway-kept".to_owned()).spawn(work);
    spawned.map(drop).map_err(|error| host("cannot start a thread", error))
}
