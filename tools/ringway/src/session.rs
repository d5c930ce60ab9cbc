//! `ringway session ...`: sessions from the outside.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ringway_client::{Client, EndReason, Notice, OpenRequest, SessionRecord};
use ringway_core::{NodeId, SessionId, Token};
use serde_json::{Value, json};

use crate::args::client::{InfoArgs, ListArgs, OpenArgs, ServerArgs, SessionCommand};
use crate::connect::{SavedSession, connect};
use crate::failure::Failure;
use crate::output::{answer, bytes_json, printable, say, table};
use crate::signals::Stop;

/// Sessions of one page.
const PAGE: u16 = 1024;
/// How soon a signal or the end of a child is noticed.
const GLANCE: Duration = Duration::from_millis(50);

pub(crate) fn run(
    command: &SessionCommand,
    server: &ServerArgs,
    json: bool,
) -> Result<ExitCode, Failure> {
    match command {
        SessionCommand::Open(args) => return open(args, server, json),
        SessionCommand::Renew(args) => {
            let proof = SavedSession::load(&args.session)?;
            let renewed = connect(server)?.renew_many(&[proof])?;
            renewed.into_iter().collect::<Result<Vec<_>, _>>().map_err(|refusal| {
                Failure::Refused(format!("session {} is not renewed: {refusal}", proof.session))
            })?;
            done(json, proof.session, "renewed");
        }
        SessionCommand::Close(args) => {
            let proof = SavedSession::load(&args.session)?;
            connect(server)?.close_session(Some(proof))?;
            done(json, proof.session, "closed");
        }
        SessionCommand::Kill(args) => {
            connect(server)?.kill(args.session)?;
            done(json, args.session, "killed");
        }
        SessionCommand::Info(args) => info(args, server, json)?,
        SessionCommand::List(args) => list(args, server, json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn done(json: bool, session: SessionId, what: &str) {
    let value = json!({ "session": session.to_string(), "done": what });
    answer(json, &value, || format!("{session} {what}"));
}

fn open(args: &OpenArgs, server: &ServerArgs, json: bool) -> Result<ExitCode, Failure> {
    let stop = if args.hold { Some(Stop::install()?) } else { None };
    let mut client = connect(server)?;
    let node = NodeId(args.node);
    let opened = client.open(OpenRequest {
        lease: Duration::from_millis(args.lease_ms),
        address: args.address.as_bytes(),
        metadata: args.metadata.as_bytes(),
        ..OpenRequest::new(node)
    })?;
    let saved = SavedSession::new(&opened, node);
    if let Some(path) = &args.save {
        saved.save(path)?;
    }
    let lease_ms = opened.lease.as_millis();
    answer(json, &saved, || {
        let session = opened.session;
        let secret = match &args.save {
            Some(path) => format!("saved in {}", path.display()),
            None => format!("secret {}", crate::output::hex(&opened.secret.0)),
        };
        format!("{session} opened for node {}, lease {lease_ms} ms, {secret}", args.node)
    });
    let Some(stop) = stop else { return Ok(ExitCode::SUCCESS) };
    let mut lease = Lease::new(opened.session, opened.lease);
    while !stop.wait_for(GLANCE) {
        lease.keep(&mut client)?;
    }
    client.close_session(None)?;
    if !json {
        say(&format!("{} closed", opened.session));
    }
    Ok(ExitCode::SUCCESS)
}

/// The lease of the connection's session, by our own clock.
pub(crate) struct Lease {
    session: SessionId,
    lease: Duration,
    /// When the last renewal that was confirmed had been sent.
    renewed: Instant,
}

impl Lease {
    /// A lease that was given just now.
    pub(crate) fn new(session: SessionId, lease: Duration) -> Self {
        Self { session, lease, renewed: Instant::now() }
    }

    /// Renews when a third of the lease has passed, and looks at notices: which names, under which
    /// tokens, were taken from the session. An error means that all that it owned is lost.
    pub(crate) fn keep(&mut self, client: &mut Client) -> Result<Vec<(Vec<u8>, Token)>, Failure> {
        let lost = |why: String| {
            Failure::Refused(format!("session {} is lost, with all its names: {why}", self.session))
        };
        let mut taken = Vec::new();
        let mut notices = client.wait_notice(Duration::from_millis(1))?;
        while let Some(notice) = notices {
            match notice {
                Notice::SessionEnded { session, reason } if session == self.session => {
                    return Err(lost(ended(reason).to_owned()));
                }
                Notice::SessionMoved { session } if session == self.session => {
                    return Err(lost("another connection has taken it over".to_owned()));
                }
                Notice::Lost { name, token, .. } => taken.push((name, token)),
                _ => {}
            }
            notices = client.take_notice();
        }
        if self.renewed.elapsed() >= self.lease / 3 {
            let sent = Instant::now();
            client.renew().map_err(|error| match error.refusal() {
                Some(refusal) => lost(refusal.to_string()),
                None => Failure::from(error),
            })?;
            self.renewed = sent;
        }
        Ok(taken)
    }
}

fn ended(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Expired => "its lease has run out",
        EndReason::Replaced => "its node has opened another one",
        EndReason::Killed => "an operator has ended it",
        EndReason::Closed => "it was closed",
        EndReason::Unknown(_) => "the server has ended it",
    }
}

fn info(args: &InfoArgs, server: &ServerArgs, json: bool) -> Result<(), Failure> {
    let mut client = connect(server)?;
    let record = match (args.session, args.node) {
        (Some(session), _) => client.session(session)?,
        (None, Some(node)) => client.node(NodeId(node))?,
        (None, None) => return Err(Failure::Usage("give a session or --node".to_owned())),
    };
    answer(json, &record_json(&record), || table(&HEAD, &[record_row(&record)]));
    Ok(())
}

fn list(args: &ListArgs, server: &ServerArgs, json: bool) -> Result<(), Failure> {
    let mut client = connect(server)?;
    let most = if args.limit == 0 { u64::MAX } else { args.limit };
    let (mut records, mut cursor) = (Vec::new(), Some(0));
    while let Some(at) = cursor.filter(|_| (records.len() as u64) < most) {
        let left = (most - records.len() as u64).min(u64::from(PAGE));
        let page = client.sessions(at, left as u16)?;
        records.extend(page.sessions);
        cursor = page.next;
    }
    let more = cursor.is_some();
    let all: Vec<Value> = records.iter().map(record_json).collect();
    answer(json, &json!({ "sessions": all, "more": more }), || {
        let rows: Vec<_> = records.iter().map(record_row).collect();
        let rest = if more { "... and more: --limit 0 shows all\n" } else { "" };
        table(&HEAD, &rows) + rest
    });
    Ok(())
}

const HEAD: [&str; 8] =
    ["session", "node", "lease ms", "left ms", "names", "state", "address", "metadata"];

fn state(record: &SessionRecord) -> &'static str {
    match (record.ending, record.away, record.bare) {
        (true, _, _) => "ending",
        (_, true, _) => "away",
        (_, _, true) => "bare",
        _ => "here",
    }
}

fn record_row(record: &SessionRecord) -> Vec<String> {
    vec![
        record.session.to_string(),
        record.node.0.to_string(),
        record.lease.as_millis().to_string(),
        record.left.as_millis().to_string(),
        record.names.to_string(),
        state(record).to_owned(),
        printable(&record.address),
        printable(&record.metadata),
    ]
}

fn record_json(record: &SessionRecord) -> Value {
    json!({
        "session": record.session.to_string(),
        "node": record.node.0,
        "lease_ms": record.lease.as_millis() as u64,
        "left_ms": record.left.as_millis() as u64,
        "names": record.names,
        "state": state(record),
        "away": record.away,
        "bare": record.bare,
        "ending": record.ending,
        "address": bytes_json(&record.address),
        "metadata": bytes_json(&record.metadata),
    })
}
