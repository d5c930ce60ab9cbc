//! `ringway port wait`.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ringway_client::{Cancelled, Client, Durability, Error, Owner, Refusal, Ticket, Waited};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::kept::{Claim, Kept, Word, in_time};
use super::{GLANCE, Line, taken};
use crate::args::client::ServerArgs;
use crate::args::port::WaitArgs;
use crate::connect::{SavedSession, connect};
use crate::failure::Failure;
use crate::output::{code, printable, say};
use crate::session::Lease;
use crate::signals::{Insisting, Stop, ended_by};

pub(super) fn run(args: &WaitArgs, server: &ServerArgs, json: bool) -> Result<ExitCode, Failure> {
    match &args.session {
        Some(path) => for_session(path, args, server, json),
        None => for_us(args, server, json),
    }
}

fn for_us(args: &WaitArgs, server: &ServerArgs, json: bool) -> Result<ExitCode, Failure> {
    let mut insisting = Insisting::default();
    let first = move |signal| insisting.hear(signal);
    let kept = Kept::open(server, None, &[SIGINT, SIGTERM], first)?;
    let name = args.name.as_bytes();
    let held = match kept.claim(name, args.mode.mode(), args.within())? {
        Claim::Granted(held) => held,
        Claim::Interrupted(signal) => return Ok(ended_by(signal)),
        Claim::TimedOut(last) => {
            let holder = kept.session.query(&[name])?.pop().and_then(Result::ok).flatten();
            kept.session.close();
            return Ok(timed_out(args, holder, last, json));
        }
    };
    let durability = Durability::Ephemeral;
    let owner = Owner { session: held.session(), token: held.token(), durability };
    Line::new(name, "granted", Some(owner)).print(json);
    if !json {
        say("held until Ctrl-C");
    }
    while !held.is_lost() {
        if let Ok(Word::Signal(_)) = kept.words.recv() {
            kept.session.close();
            return Ok(ExitCode::SUCCESS);
        }
    }
    Err(match kept.session.over() {
        Some(over) => Failure::over(over, format!("{} is lost: {over}", printable(name))),
        None => taken(name),
    })
}

impl WaitArgs {
    fn within(&self) -> Option<Duration> {
        self.timeout.map(|ms| Duration::from_millis(u64::from(ms)))
    }
}

fn timed_out(
    args: &WaitArgs,
    holder: Option<Owner>,
    last: Option<Refusal>,
    json: bool,
) -> ExitCode {
    let mut line = Line::new(args.name.as_bytes(), "timeout", holder);
    line.why = Some(format!("not {}", in_time(args.timeout.unwrap_or_default(), last)));
    line.print(json);
    code(false)
}

/// Waits in the place of a session that another program keeps, or nobody: what the server tells the
/// session goes to that program, so this one asks again and again, which keeps its place.
fn for_session(
    path: &Path,
    args: &WaitArgs,
    server: &ServerArgs,
    json: bool,
) -> Result<ExitCode, Failure> {
    let stop = Stop::install()?;
    let proof = SavedSession::load(path)?;
    let mut client = connect(server)?;
    client.attach(proof)?;
    let lease = client.session(proof.session)?.lease;
    client.renew()?;
    let mut lease = Lease::new(proof.session, lease);
    let mut place = Place { args, until: args.within().map(|w| Instant::now() + w), ticket: None };
    loop {
        let Asked { owner, over } = place.ask(&mut client)?;
        let interrupted = owner.is_none() && !over && stop.wait_for(GLANCE);
        let owner = match owner {
            None if over || interrupted => place.give_up(&mut client)?,
            owner => owner,
        };
        if let Some(owner) = owner {
            Line::new(args.name.as_bytes(), "granted", Some(owner)).print(json);
            return Ok(code(true));
        }
        if interrupted {
            return Ok(stop.code());
        }
        if over {
            let holder = client.query_one(args.name.as_bytes())?;
            return Ok(timed_out(args, holder, None, json));
        }
        lease.keep(&mut client)?;
    }
}

/// A place in the queue.
struct Place<'a> {
    args: &'a WaitArgs,
    until: Option<Instant>,
    ticket: Option<Ticket>,
}

/// What the server says about a place.
struct Asked {
    owner: Option<Owner>,
    over: bool,
}

impl Place<'_> {
    fn ask(&mut self, client: &mut Client) -> Result<Asked, Failure> {
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        let (name, mode) = (self.args.name.as_bytes(), self.args.mode.mode());
        let over = left.is_some_and(|left| left.is_zero());
        let answer = client.wait(&[name], mode, left)?.pop().expect("one answer a name");
        match answer {
            Ok(Waited::Granted(owner)) => Ok(Asked { owner: Some(owner), over }),
            Ok(Waited::Queued { ticket, .. }) => {
                // Another ticket: the time was over by the server's clock, and this is a new place.
                let before = self.ticket.replace(ticket);
                let over = over || before.is_some_and(|before| before != ticket);
                Ok(Asked { owner: None, over })
            }
            Err(Refusal::Starting(_) | Refusal::Busy) => Ok(Asked { owner: None, over }),
            Err(refusal) => Err(Failure::Refused(format!("{}: {refusal}", printable(name)))),
        }
    }

    /// The grant may have been faster.
    fn give_up(&self, client: &mut Client) -> Result<Option<Owner>, Failure> {
        let Some(ticket) = self.ticket else { return Ok(None) };
        match client.cancel(self.args.name.as_bytes(), ticket) {
            Ok(Cancelled::Granted(owner)) => Ok(Some(owner)),
            Ok(Cancelled::Done) | Err(Error::Refused { refusal: Refusal::NotOwner, .. }) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
