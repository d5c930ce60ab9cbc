//! `ringway port send` and `ringway port listen`.

use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use ringway_client::engine::Event;
use ringway_client::{
    Addressee, Client, Delivery, Fence, Letter, Message, Reached, Registered, Target,
};
use ringway_core::{SessionId, Token};
use serde_json::{Value, json};

use super::meta::read_stdin;
use super::{GLANCE, Line, bytes, kept, print, taken};
use crate::args::Name;
use crate::args::client::ServerArgs;
use crate::args::port::{ListenArgs, SendArgs};
use crate::connect::{SavedSession, connect};
use crate::failure::{Failure, host};
use crate::output::{answer, bytes_json, code, printable, say};
use crate::signals::Stop;

pub(super) fn send(args: &SendArgs, server: &ServerArgs, json: bool) -> Result<ExitCode, Failure> {
    let (name, text) = match (&args.name, &args.text) {
        (Some(_), Some(_)) if args.all => {
            return Err(Failure::Usage("--all takes no NAME, only a TEXT".to_owned()));
        }
        (text, None) if args.all => (None, text),
        (name, text) => (name.as_ref(), text),
    };
    let payload = payload(text.as_ref())?;
    let mut client = connect(server)?;
    if let Some(path) = &args.session {
        client.attach(SavedSession::load(path)?)?;
    }
    let Some(name) = name else { return send_all(&mut client, &payload, args.receipt, json) };
    let name = name.as_bytes();
    let token = args.token.map(Token);
    let fence =
        args.from.as_ref().zip(token).map(|(from, token)| Fence { name: from.as_bytes(), token });
    let (target, receipt) = (Target::Name(name), args.receipt);
    let letter = Letter { target, fence, receipt, payload: &payload };
    let line = match client.send(&[letter])?.pop().expect("one answer a letter") {
        Ok(Delivery::Done) if receipt => Line::new(name, "delivered", None),
        Ok(Delivery::Done) => Line::new(name, "sent", None),
        Ok(Delivery::NoOwner) => Line::undelivered(name, "free", "nobody owns it"),
        Ok(Delivery::Away) => Line::undelivered(name, "away", "its owner has no connection now"),
        Ok(Delivery::ReceiverFull) => {
            Line::undelivered(name, "full", "its owner has too much unread")
        }
        Err(refusal) => Line::refused(name, refusal),
    };
    line.print(json);
    Ok(code(line.why.is_none()))
}

impl Line {
    fn undelivered(name: &[u8], what: &'static str, why: &str) -> Line {
        Line { why: Some(why.to_owned()), ..Line::new(name, what, None) }
    }
}

fn payload(text: Option<&Name>) -> Result<Vec<u8>, Failure> {
    match text {
        Some(text) if text != "-" => Ok(text.as_bytes().to_vec()),
        _ => read_stdin().map_err(|error| host("cannot read standard input", error)),
    }
}

fn send_all(
    client: &mut Client,
    payload: &[u8],
    receipt: bool,
    json: bool,
) -> Result<ExitCode, Failure> {
    match client.broadcast(payload, receipt)? {
        None => answer(json, &json!({ "result": "sent" }), || "sent".to_owned()),
        Some(Reached { sessions, away, full }) => {
            let value =
                json!({ "result": "delivered", "sessions": sessions, "away": away, "full": full });
            answer(json, &value, || {
                format!("delivered to {sessions} sessions; {away} were away, {full} full")
            });
        }
    }
    Ok(code(true))
}

pub(super) fn listen(
    args: &ListenArgs,
    server: &ServerArgs,
    json: bool,
) -> Result<ExitCode, Failure> {
    let stop = Stop::install()?;
    let session = kept::open(server, None)?;
    let (mut events, mut messages) = (session.events(), session.messages());
    let names = bytes(&args.names);
    let results = session.register_as(&names, args.mode.mode())?;
    let line = |(name, result): (&&[u8], _)| match result {
        Ok(Registered::Granted(owner)) => Line::new(name, "granted", Some(owner)),
        Ok(Registered::Held(owner)) => Line::new(name, "held", Some(owner)),
        Err(refusal) => Line::refused(name, refusal),
    };
    let lines: Vec<Line> = names.iter().zip(results).map(line).collect();
    if lines.iter().any(|line| line.what != "granted") {
        session.close();
        print(json, &lines);
        return Ok(code(false));
    }
    // Standard output has messages, and nothing else.
    lines.iter().for_each(|line| eprintln!("ringway: {}", line.text()));
    while !stop.is_set() {
        if let Some(message) = messages.recv_timeout(GLANCE) {
            say(&if json { message_json(&message).to_string() } else { message_text(&message) });
        }
        while let Some(event) = events.try_recv() {
            return Err(match event {
                Event::Taken { name, .. } => taken(&name),
                Event::Lost(over) => Failure::over(over, format!("all names are lost: {over}")),
                _ => continue,
            });
        }
    }
    session.close();
    if messages.dropped() > 0 {
        eprintln!("ringway: {} messages came too fast and were dropped", messages.dropped());
    }
    Ok(ExitCode::SUCCESS)
}

/// Zero stands for one without a session, who cannot be answered.
fn sender(message: &Message) -> Option<SessionId> {
    Some(message.from).filter(|from| from.0 != 0)
}

fn message_json(message: &Message) -> Value {
    let (to, name) = match &message.to {
        Addressee::Name(name) => ("name", Some(bytes_json(name))),
        Addressee::Session => ("session", None),
        Addressee::All => ("all", None),
    };
    let fence = message.fence.as_ref();
    json!({
        "to": to,
        "name": name,
        "from": sender(message).map(|from| from.to_string()),
        "fence": fence.map(|(name, token)| {
            json!({ "name": bytes_json(name), "token": token.to_string() })
        }),
        "payload": bytes_json(&message.payload),
    })
}

fn message_text(message: &Message) -> String {
    let to = match &message.to {
        Addressee::Name(name) => printable(name),
        Addressee::Session => "(to this session)".to_owned(),
        Addressee::All => "(to all)".to_owned(),
    };
    let fence = message
        .fence
        .as_ref()
        .map(|(name, token)| format!(" as {} (token {token})", printable(name)));
    let from = sender(message).map_or("nobody".to_owned(), |from| from.to_string());
    let fence = fence.unwrap_or_default();
    format!("{to}  from {from}{fence}  {}", printable(&message.payload))
}
