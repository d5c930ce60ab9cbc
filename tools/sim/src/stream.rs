//! The bytes of a server, as a client reads them: preface, reply frames, notices.
//!
//! It accepts bytes cut anywhere and says what is wrong with a stream instead of panicking, because
//! for the swarm a malformed stream is a finding.

use ringway_coord_proto::wire::{
    FrameHeader, KIND_PUSH, KIND_REPLY, PREFACE_BYTES, Preface, Reply, next_op, next_reply, push,
    status,
};
use ringway_core::{SessionId, Token};

/// One reply, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    /// A status.
    Plain(u8),
    /// A status with an owner.
    Owner(u8, SessionId, Token),
    /// A status with bytes.
    Data(u8, Vec<u8>),
}

impl Got {
    /// The status.
    pub fn status(&self) -> u8 {
        match self {
            Got::Plain(status) | Got::Owner(status, ..) | Got::Data(status, _) => *status,
        }
    }

    /// The status in words, with the token of an owner.
    pub fn words(&self) -> String {
        match self {
            Got::Owner(_, _, token) => {
                format!("{} {}", status::name(self.status()), token.sequence())
            }
            _ => status::name(self.status()).to_owned(),
        }
    }
}

/// What a server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The replies to one frame, with the client's number of it.
    Replies(u64, Vec<Got>),
    /// A notice about a session: code, session, reason.
    Notice(u8, SessionId, u8),
    /// Any other notice: code and body.
    Told(u8, Vec<u8>),
}

/// One direction of one connection.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    received: Vec<u8>,
    preface: bool,
}

impl Stream {
    /// Takes bytes and gives back what they complete. An error means that the server does not keep
    /// to its protocol.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Vec<Heard>, String> {
        self.received.extend_from_slice(bytes);
        let mut at = 0;
        if !self.preface {
            let Some(theirs) = self.received.first_chunk::<PREFACE_BYTES>() else {
                return Ok(Vec::new());
            };
            if Preface::parse(theirs) != Some(Preface::OURS) {
                return Err(format!("not the server's preface: {theirs:?}"));
            }
            (self.preface, at) = (true, PREFACE_BYTES);
        }
        let mut heard = Vec::new();
        loop {
            let rest = &self.received[at..];
            let header = FrameHeader::parse(rest).map_err(|error| format!("{error:?}"))?;
            let Some(header) = header.filter(|header| header.len <= rest.len()) else { break };
            let body = &rest[16..header.len];
            match header.kind {
                KIND_REPLY => heard.push(replies(&header, body)?),
                KIND_PUSH => notices(&header, body, &mut heard)?,
                kind => return Err(format!("a server never sends kind {kind}")),
            }
            at += header.len;
        }
        self.received.drain(..at);
        Ok(heard)
    }

    /// Whether bytes wait for the rest of their frame.
    pub fn is_amid(&self) -> bool {
        !self.received.is_empty()
    }
}

/// Notices from this code on are about names, not about the connection's session.
const FIRST_TOLD: u8 = push::GRANTED;

fn replies(header: &FrameHeader, body: &[u8]) -> Result<Heard, String> {
    let mut rest = body;
    let mut got = Vec::with_capacity(usize::from(header.count));
    for index in 0..header.count {
        let reply = next_reply(&mut rest)
            .ok_or_else(|| format!("reply {index} of {} is missing", header.count))?;
        got.push(match reply {
            Reply::Plain(status) => Got::Plain(status),
            Reply::Owner { status, session, token } => Got::Owner(status, session, token),
            Reply::Data(status, bytes) => Got::Data(status, bytes.to_vec()),
        });
    }
    if !rest.is_empty() {
        return Err(format!("{} bytes behind the last reply", rest.len()));
    }
    Ok(Heard::Replies(header.sequence, got))
}

fn notices(header: &FrameHeader, body: &[u8], heard: &mut Vec<Heard>) -> Result<(), String> {
    if header.sequence != 0 || header.flags != 0 {
        return Err(format!("a push frame with sequence {}", header.sequence));
    }
    let mut rest = body;
    for _ in 0..header.count {
        let notice = next_op(&mut rest).ok_or("a notice is missing")?;
        let expected = match notice.code {
            push::SESSION_ENDED => 9,
            push::SESSION_MOVED => 8,
            push::PROTOCOL_ERROR => 0,
            code if FIRST_TOLD <= code => {
                heard.push(Heard::Told(code, notice.body.to_vec()));
                continue;
            }
            code => return Err(format!("an unknown notice {code}")),
        };
        if notice.body.len() != expected {
            return Err(format!("a notice {} of {} bytes", notice.code, notice.body.len()));
        }
        let session = notice.body.first_chunk().map_or(0, |id| u64::from_le_bytes(*id));
        let reason = notice.body.get(8).copied().unwrap_or(0);
        heard.push(Heard::Notice(notice.code, SessionId(session), reason));
    }
    if rest.is_empty() { Ok(()) } else { Err("bytes behind the last notice".to_owned()) }
}
