//! `ringway port watch`.

use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::Duration;

use ringway_client::engine::{Fault, Over, WatchEnd, WatchItem};
use ringway_client::op::Events;
use ringway_client::{Change, ChangeKind, EndReason, Owned, Session};
use serde_json::{Value, json};

use super::{GLANCE, kept};
use crate::args::client::ServerArgs;
use crate::args::port::WatchArgs;
use crate::failure::Failure;
use crate::output::{bytes_json, printable, say};
use crate::signals::Stop;

/// Between two attempts to go on in a new session.
const AGAIN: Duration = Duration::from_millis(500);

pub(super) fn run(args: &WatchArgs, server: &ServerArgs, json: bool) -> Result<ExitCode, Failure> {
    let stop = Stop::install()?;
    let mut session = Some(kept::open(server, None)?);
    while !stop.is_set() {
        match session.take() {
            Some(session) => in_session(&session, args, &stop, json)?,
            None => match kept::open(server, None) {
                Ok(opened) => session = Some(opened),
                // The words were right at the beginning: an address that means nothing now will
                // mean something again.
                Err(Failure::Unreachable(_) | Failure::Usage(_)) => {
                    stop.wait_for(AGAIN);
                }
                Err(failure) => return Err(failure),
            },
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Until we are to stop, or the session was away for so long that it is over.
fn in_session(session: &Session, args: &WatchArgs, stop: &Stop, json: bool) -> Result<(), Failure> {
    let mut watch = session.watch(args.filter.as_bytes(), Events::ALL);
    let mut live = false;
    while !stop.is_set() {
        let over = match watch.recv_timeout(GLANCE) {
            Some(WatchItem::Ended(WatchEnd::Fault(Fault::Over(over)))) => Some(over),
            None => session.over(),
            Some(item) => {
                match item {
                    WatchItem::Snapshot(_) | WatchItem::Resumed => live = true,
                    WatchItem::Interrupted => live = false,
                    WatchItem::Change(_) | WatchItem::Ended(_) => {}
                }
                tell(item, args, json)?;
                None
            }
        };
        let Some(over) = over else { continue };
        if !was_away(over) {
            return Err(Failure::over(over, format!("the watch is over: {over}")));
        }
        if live {
            told(json, "interrupted", None, None);
        }
        return Ok(());
    }
    session.close();
    Ok(())
}

/// Whether it ended only because the server was not reached in time, or is another one by now.
fn was_away(over: Over) -> bool {
    match over {
        Over::Expired | Over::Unreachable(_) | Over::Gone(_) => true,
        Over::Ended(reason) => reason == EndReason::Expired,
        Over::Closed | Over::Moved | Over::Refused(_) => false,
    }
}

fn tell(item: WatchItem, args: &WatchArgs, json: bool) -> Result<(), Failure> {
    match item {
        WatchItem::Snapshot(names) => {
            if !args.no_snapshot {
                names.iter().for_each(|owned| told(json, "owned", Some(owned), None));
            }
            told(json, "snapshot", None, Some(("names", names.len() as u64)));
        }
        WatchItem::Change(change) => changed(json, &change),
        WatchItem::Interrupted => told(json, "interrupted", None, None),
        WatchItem::Resumed => told(json, "resumed", None, None),
        WatchItem::Ended(WatchEnd::Refused(refusal)) => {
            let filter = printable(args.filter.as_bytes());
            return Err(Failure::Refused(format!("{filter} is not watched: {refusal}")));
        }
        WatchItem::Ended(WatchEnd::Fault(fault)) => {
            return Err(Failure::Usage(format!("the watch is over: {fault}")));
        }
    }
    Ok(())
}

fn changed(json: bool, change: &Change) {
    let (what, number) = match change.kind {
        ChangeKind::Acquired => ("acquired", None),
        ChangeKind::Released => ("released", None),
        ChangeKind::Changed(version) => ("changed", Some(("version", u64::from(version)))),
        ChangeKind::Waiting(waiters) => ("waiting", Some(("waiters", u64::from(waiters)))),
    };
    let marks = Marks { skipped: change.skipped, shared: change.shared };
    line(json, what, Some(&change.owned), number, marks);
}

fn told(json: bool, what: &str, owned: Option<&Owned>, number: Option<(&str, u64)>) {
    line(json, what, owned, number, Marks::default());
}

/// What is said of a change beside what it was.
#[derive(Clone, Copy, Default)]
struct Marks {
    /// An earlier change was left out.
    skipped: bool,
    /// Of a release: others hold the name still.
    shared: bool,
}

fn line(json: bool, what: &str, owned: Option<&Owned>, number: Option<(&str, u64)>, marks: Marks) {
    if json {
        return say(&event_json(what, owned, number, marks).to_string());
    }
    let mut text = owned.map(|owned| printable(&owned.name) + "  ").unwrap_or_default() + what;
    if let Some(Owned { session, token, .. }) = owned.filter(|owned| owned.session.0 != 0) {
        text += &format!("  session {session}  token {token}");
    }
    if let Some((name, number)) = number {
        text += &format!("  {name} {number}");
    }
    text += if marks.shared { "  shared" } else { "" };
    say(&(text + if marks.skipped { "  skipped" } else { "" }));
}

fn event_json(
    what: &str,
    owned: Option<&Owned>,
    number: Option<(&str, u64)>,
    marks: Marks,
) -> Value {
    let mut value = json!({ "event": what });
    if let Some(owned) = owned {
        value["name"] = bytes_json(&owned.name);
        value["session"] = owned.session.to_string().into();
        value["token"] = owned.token.to_string().into();
        value["skipped"] = marks.skipped.into();
        value["shared"] = marks.shared.into();
    }
    if let Some((name, number)) = number {
        value[name] = number.into();
    }
    value
}
