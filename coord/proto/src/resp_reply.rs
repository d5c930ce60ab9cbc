//! Outcomes to RESP: how each verb's replies are put together.

use alloc::vec::Vec;

use ringway_core::wire::{Reader, Truncated};
use ringway_core::{SessionId, Token};

use crate::outcome::Outcome;
use crate::resp::encode::{put_integer, put_null, put_owner};
use crate::resp::scripts::Answer;
use crate::resp::{Code, Version, Writer};
use crate::watch::event::{Event, Kind};
use crate::wire::{op, push, status};

/// What a verb answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RespShape {
    /// `PORT.QUERY`: nil or `session:token`; of several names an array of them.
    Query,
    /// `GET`: a lock's value, `session:token` of an owned name, or nil.
    Get,
    /// `PORT.REGISTER`, `PORT.TRANSFER`: 1 or 0, session, token; of several names an array of them.
    Register,
    /// 1, session, token, or nil: `PORT.WAIT`, `PORT.REVOKE` to a session.
    Granted,
    /// `PORT.META`: a map, or nil.
    Meta,
    /// `PORT.WAITERS`: a map, or nil.
    Waiters,
    /// `PORT.META` with `SET`: the new version.
    Version,
    /// `PORT.SEND`, `PORT.SENDTO`: 1, or 0 if nobody owns the name.
    Sent,
    /// `PORT.BROADCAST`: OK, or a map of how many got it.
    Broadcast,
    /// `PORT.WATCH`: OK; of several filters an array of them.
    Watched,
    /// How many were done: `PORT.RELEASE`, `PORT.REVOKE`, `DEL`, `PEXPIRE`, unlock scripts.
    Count,
    /// How many have an owner: `EXISTS`.
    Exists,
    /// `SET NX`: OK or nil.
    Set,
    /// `PTTL` in milliseconds, `TTL` in seconds.
    Left {
        /// Milliseconds in the unit.
        unit_ms: u32,
    },
    /// OK.
    Done,
    /// `SESSION.RENEW`: OK, or how many of several sessions were renewed.
    Renew,
    /// `SESSION.OPEN`: a map.
    Opened,
    /// `SESSION.INFO`, `SESSION.NODE`: a map, or nil.
    Session,
    /// `SESSION.LIST`: the next cursor and an array of maps.
    Sessions,
    /// `PORT.LIST`: the next cursor and an array of names with their owners.
    List,
    /// A JSON text as a bulk string.
    Text,
    /// The sum of what the shards counted.
    Total,
    /// The lines of all shards in one bulk string: `CLIENT LIST`.
    Lines,
    /// A number of 8 bytes.
    Number,
    /// What a script returns when it was done, the name is free, the value is another.
    Script([Returns; 3]),
}

/// What a script returns, in one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    /// A small number.
    Integer(i8),
    /// OK.
    Ok,
    /// Nil.
    Null,
}

impl From<Answer> for Returns {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Integer(number) => Returns::Integer(number as i8),
            Answer::Ok => Returns::Ok,
            Answer::Null => Returns::Null,
        }
    }
}

/// Writes the replies of one unit.
pub struct RespWriter<'a> {
    writer: Writer<'a>,
    shape: RespShape,
    many: bool,
    sum: i64,
    error: u8,
    start: usize,
}

impl RespShape {
    /// Starts the reply to a command of `count` ops.
    #[inline]
    pub fn begin(self, out: &mut Vec<u8>, version: Version, count: u32) -> RespWriter<'_> {
        let start = out.len();
        let mut writer = Writer::new(out, version);
        let many = count != 1;
        if many && matches!(self, RespShape::Query | RespShape::Register | RespShape::Watched) {
            writer.array(count as usize);
        }
        RespWriter { writer, shape: self, many, sum: 0, error: 0, start }
    }
}

impl RespWriter<'_> {
    /// Takes the outcome of the next op; `buffer` has the bytes of those that have some.
    #[inline]
    pub fn put(&mut self, outcome: Outcome, buffer: &[u8]) {
        let version = self.writer.version();
        match self.shape {
            RespShape::Query | RespShape::Get => match outcome.status {
                status::OWNED_EPHEMERAL | status::OWNED_REPLICATED => {
                    put_owner(self.writer.out(), outcome.session, outcome.token);
                }
                status::FREE => put_null(self.writer.out(), version),
                status::DATA => self.writer.bulk(outcome.data(buffer)),
                error => self.put_error(error, outcome, buffer),
            },
            RespShape::Register => match outcome.status {
                status::GRANTED_EPHEMERAL | status::GRANTED_REPLICATED => {
                    self.put_grant(true, outcome)
                }
                status::HELD => self.put_grant(false, outcome),
                error => self.put_error(error, outcome, buffer),
            },
            RespShape::Granted | RespShape::Meta | RespShape::Waiters
                if outcome.status == status::FREE =>
            {
                self.writer.null();
            }
            RespShape::Granted if outcome.status == status::GRANTED_EPHEMERAL => {
                self.put_grant(true, outcome);
            }
            RespShape::Set => match outcome.status {
                status::GRANTED_EPHEMERAL => self.writer.ok(),
                status::HELD => self.writer.null(),
                error => self.put_error(error, outcome, buffer),
            },
            RespShape::Sent => self.put_sent(outcome, buffer),
            RespShape::Watched if outcome.status == status::DATA => self.writer.ok(),
            RespShape::Count | RespShape::Exists => self.add(outcome),
            RespShape::Total if !outcome.is_error() => self.sum += outcome.token.0 as i64,
            RespShape::Lines if !outcome.is_error() => {
                self.writer.out().extend_from_slice(outcome.data(buffer));
            }
            RespShape::Total | RespShape::Lines => self.error = outcome.status,
            RespShape::Script(returns) => match outcome.status {
                status::OK | status::GRANTED_EPHEMERAL => self.put_return(returns[0]),
                status::FREE => self.put_return(returns[1]),
                status::NOTOWNER | status::HELD => self.put_return(returns[2]),
                error => self.put_error(error, outcome, buffer),
            },
            RespShape::Left { unit_ms } => self.put_left(outcome, unit_ms, buffer),
            RespShape::Renew if self.many => self.add(outcome),
            RespShape::Done | RespShape::Renew | RespShape::Broadcast
                if outcome.status == status::OK =>
            {
                self.writer.ok();
            }
            _ if outcome.status == status::DATA => {
                let data = outcome.data(buffer);
                // Our own encoder wrote it: it parses, or the reply says that it does not.
                if self.put_data(data).is_err() {
                    self.writer.error(Code::Err, "the server's own answer does not parse");
                }
            }
            RespShape::Session if outcome.status == status::NOSESSION => self.writer.null(),
            _ => self.put_error(outcome.status, outcome, buffer),
        }
    }

    fn put_sent(&mut self, outcome: Outcome, buffer: &[u8]) {
        match outcome.status {
            status::OK => self.writer.integer(1),
            status::FREE => self.writer.integer(0),
            status::MODE => {
                let text = "a name of mode COUNTING takes no messages: send to its holders";
                self.writer.error(Code::Mode, text);
            }
            error => self.put_error(error, outcome, buffer),
        }
    }

    /// Ends the reply.
    #[inline]
    pub fn finish(mut self) {
        // What the shards say together is whole or an error; of several names some may be done.
        let refused = match self.shape {
            RespShape::Count | RespShape::Exists => self.error != 0 && self.sum == 0,
            RespShape::Renew if self.many => self.error != 0 && self.sum == 0,
            RespShape::Total | RespShape::Lines => self.error != 0,
            _ => return,
        };
        if refused {
            self.writer.out().truncate(self.start);
            put_status(&mut self.writer, self.error);
        } else if self.shape == RespShape::Lines {
            let lines = self.writer.out().split_off(self.start);
            self.writer.bulk(&lines);
        } else {
            put_integer(self.writer.out(), self.sum);
        }
    }

    /// Counts what was done; what simply was not so counts nothing, anything else is an error.
    #[inline]
    fn add(&mut self, outcome: Outcome) {
        match outcome.status {
            status::OK => self.sum += 1,
            status::OWNED_EPHEMERAL | status::OWNED_REPLICATED => self.sum += 1,
            status::FREE | status::NOTOWNER | status::NOSESSION => {}
            error => self.error = error,
        }
    }

    #[inline]
    fn put_grant(&mut self, granted: bool, outcome: Outcome) {
        self.writer.grant(granted, outcome.session, outcome.token);
    }

    fn put_return(&mut self, returns: Returns) {
        match returns {
            Returns::Integer(number) => put_integer(self.writer.out(), i64::from(number)),
            Returns::Ok => self.writer.ok(),
            Returns::Null => self.writer.null(),
        }
    }

    fn put_left(&mut self, outcome: Outcome, unit_ms: u32, buffer: &[u8]) {
        match outcome.status {
            status::OWNED_EPHEMERAL => {
                let left = outcome.token.0.div_ceil(u64::from(unit_ms));
                put_integer(self.writer.out(), left as i64);
            }
            status::FREE => put_integer(self.writer.out(), -2),
            status::NOTOWNER => put_integer(self.writer.out(), -1),
            error => self.put_error(error, outcome, buffer),
        }
    }

    fn put_error(&mut self, status: u8, outcome: Outcome, buffer: &[u8]) {
        if status == status::STARTING {
            let wait = outcome.data(buffer).first_chunk().map_or(0, |ms| u32::from_le_bytes(*ms));
            let text = format_args!(
                "nothing is granted for another {wait} ms: the server stopped uncleanly and \
                 earlier leases may still run"
            );
            self.writer.error(Code::Starting, text);
        } else if status == status::CONFLICT {
            let data = outcome.data(buffer);
            let version = data.first_chunk().map_or(0, |version| u32::from_le_bytes(*version));
            let text = format_args!("the metadata has version {version}: read it again");
            self.writer.error(Code::Conflict, text);
        } else {
            put_status(&mut self.writer, status);
        }
    }

    fn put_data(&mut self, data: &[u8]) -> Result<(), Truncated> {
        let mut reader = Reader::new(data);
        match self.shape {
            RespShape::Opened => {
                self.writer.map(5);
                self.writer.bulk(b"session");
                self.writer.session(SessionId(reader.u64()?));
                self.writer.bulk(b"secret");
                let secret = reader.array::<16>()?;
                let text = format_args!("{:032x}", u128::from_be_bytes(secret));
                self.writer.bulk_text(text);
                self.writer.bulk(b"lease_ms");
                self.writer.integer(i64::from(reader.u32()?));
                self.writer.bulk(b"epoch");
                self.writer.integer(i64::from(reader.u32()?));
                self.writer.bulk(b"resumed");
                self.writer.integer(i64::from(reader.u8()?));
            }
            RespShape::Session => self.put_session(&mut reader)?,
            RespShape::Sessions => {
                self.writer.array(2);
                self.writer.bulk_text(reader.u64()?);
                let count = reader.u16()?;
                self.writer.array(usize::from(count));
                for _ in 0..count {
                    self.put_session(&mut reader)?;
                }
            }
            RespShape::List => self.put_list(&mut reader)?,
            RespShape::Meta => {
                self.writer.map(4);
                self.writer.bulk(b"session");
                self.writer.session(SessionId(reader.u64()?));
                self.writer.bulk(b"token");
                self.writer.token(Token(reader.u64()?));
                self.writer.bulk(b"version");
                self.writer.integer(i64::from(reader.u32()?));
                self.writer.bulk(b"metadata");
                self.writer.bulk(reader.rest());
            }
            RespShape::Waiters => self.put_waiters(&mut reader)?,
            RespShape::Broadcast => {
                self.writer.map(3);
                for field in [b"reached".as_slice(), b"away", b"full"] {
                    self.writer.bulk(field);
                    self.writer.integer(reader.u64()? as i64);
                }
            }
            RespShape::Version => self.writer.integer(i64::from(reader.u32()?)),
            RespShape::Number => self.writer.integer(reader.u64()? as i64),
            _ => self.writer.bulk(data),
        }
        Ok(())
    }

    fn put_session(&mut self, reader: &mut Reader<'_>) -> Result<(), Truncated> {
        self.writer.map(8);
        self.writer.bulk(b"session");
        self.writer.session(SessionId(reader.u64()?));
        self.writer.bulk(b"node");
        self.writer.bulk_text(reader.u64()?);
        self.writer.bulk(b"lease_ms");
        self.writer.integer(i64::from(reader.u32()?));
        self.writer.bulk(b"left_ms");
        self.writer.integer(i64::from(reader.u32()?));
        self.writer.bulk(b"names");
        self.writer.integer(reader.u64()? as i64);
        let flags = reader.u8()?;
        self.writer.bulk(b"flags");
        self.writer.bulk(match (flags & 1 != 0, flags & 2 != 0) {
            (true, _) => b"away".as_slice(),
            (false, true) => b"bare",
            (false, false) => b"",
        });
        self.writer.bulk(b"address");
        self.writer.bulk(reader.short_bytes()?);
        self.writer.bulk(b"metadata");
        self.writer.bulk(reader.long_bytes()?);
        Ok(())
    }

    /// How a name is held, how many hold it and wait, and the first of each.
    fn put_waiters(&mut self, reader: &mut Reader<'_>) -> Result<(), Truncated> {
        self.writer.map(6);
        self.writer.bulk(b"mode");
        self.writer.bulk(mode_word(reader.u8()?));
        for field in [b"permits".as_slice(), b"holders", b"waiters"] {
            self.writer.bulk(field);
            self.writer.integer(i64::from(reader.u32()?));
        }
        self.writer.bulk(b"held_by");
        let holders = reader.u16()?;
        self.writer.array(usize::from(holders));
        for _ in 0..holders {
            self.writer.array(2);
            self.writer.session(SessionId(reader.u64()?));
            self.writer.token(Token(reader.u64()?));
        }
        self.writer.bulk(b"queue");
        let waiters = reader.u16()?;
        self.writer.array(usize::from(waiters));
        for _ in 0..waiters {
            self.writer.array(4);
            let (session, _ticket) = (SessionId(reader.u64()?), reader.u64()?);
            self.writer.session(session);
            self.writer.bulk(mode_word(reader.u8()?));
            self.writer.integer(i64::from(reader.u32()?));
            self.writer.integer(i64::from(reader.u32()?));
        }
        Ok(())
    }

    /// A cursor as `slot:after`, `0` at the end, and the names of the page.
    fn put_list(&mut self, reader: &mut Reader<'_>) -> Result<(), Truncated> {
        let (done, slot) = (reader.u8()? != 0, reader.u16()?);
        let after = reader.short_bytes()?;
        let count = reader.u16()?;
        self.writer.array(2);
        if done {
            self.writer.bulk(b"0");
        } else {
            let mut cursor = alloc::format!("{slot}:").into_bytes();
            cursor.extend_from_slice(after);
            self.writer.bulk(&cursor);
        }
        self.writer.array(usize::from(count));
        for _ in 0..count {
            self.writer.array(3);
            self.writer.bulk(reader.short_bytes()?);
            self.writer.session(SessionId(reader.u64()?));
            self.writer.token(Token(reader.u64()?));
        }
        Ok(())
    }
}

/// What a watch of a connection tells of a name, as RESP3 says it: kind, name, session, token, and
/// whether an earlier change is hidden behind it; then what else there is to the kind.
pub fn push_event(out: &mut Vec<u8>, event: Event<'_>, skipped: bool) {
    let kind = event.kind();
    let mut writer = Writer::new(out, Version::Resp3);
    writer.push(if kind == Kind::Acquired { 5 } else { 6 });
    writer.bulk(kind.word());
    writer.bulk(event.name());
    writer.session(event.session());
    writer.token(event.token());
    writer.boolean(skipped || event.is_skipped());
    match kind {
        Kind::Acquired => {}
        Kind::Released => writer.boolean(event.is_shared()),
        Kind::Changed | Kind::Waiting => writer.integer(i64::from(event.extra())),
    }
}

/// One owned name of a snapshot.
pub fn push_state(out: &mut Vec<u8>, (session, token): (SessionId, Token), name: &[u8]) {
    let mut writer = Writer::new(out, Version::Resp3);
    writer.push(4);
    writer.bulk(b"state");
    writer.bulk(name);
    writer.session(session);
    writer.token(token);
}

/// What is said of a whole watch, which is known by its filter.
pub fn push_filter(out: &mut Vec<u8>, word: &[u8], filter: &[u8]) {
    let mut writer = Writer::new(out, Version::Resp3);
    writer.push(2);
    writer.bulk(word);
    writer.bulk(filter);
}

const fn mode_word(mode: u8) -> &'static [u8] {
    match mode {
        op::MODE_SHARED => b"shared",
        op::MODE_COUNTING => b"counting",
        _ => b"exclusive",
    }
}

/// An error for a native status, with what to do about it.
pub fn put_status(writer: &mut Writer<'_>, status: u8) {
    let text = match status {
        status::UNKNOWN_OP => "unknown command",
        status::MALFORMED => "the arguments are not what the command takes",
        status::BADNAME => "a name is 1 to 255 bytes",
        status::NOSESSION => "no such session, or it has ended: open a new one",
        status::NOTOWNER => "this session does not hold the name, or not under this token",
        status::MODE => "the name is held in another mode, or with another number of permits",
        status::FULL => "a limit of the server is reached: memory, names or sessions",
        status::QUOTA => {
            "the namespace (what stands before the first /) has as many names as it may"
        }
        status::BUSY => "too much is queued: try again",
        status::NOREPLICA => "replicated names need a cluster; this is a single node",
        status::NOAUTH => "authentication required: AUTH user password",
        status::DENIED => "these credentials do not cover it",
        status::LEASE => "the lease is shorter or longer than the server allows",
        status::CROSSSLOT => "the names are not in one slot",
        status::REFUSED => "another principal's, or a wrong secret",
        status::AWAY => "the session has no connection that could hear it (RESP2 hears nothing)",
        status::RECEIVER_FULL => "the receiver has too much unread: the message was dropped",
        status::FENCED => "this session does not hold the source name, or not under this token",
        status::EXISTS => "this connection watches it already: PORT.UNWATCH it first",
        status::UNSUPPORTED => "a reserved option is set",
        _ => "unexpected status",
    };
    let code = if status == status::REFUSED {
        Code::Refused
    } else {
        Code::of_status(status).unwrap_or(Code::Err)
    };
    writer.error(code, text);
}

/// A notice about a session, as a RESP3 push.
pub fn push_session(out: &mut Vec<u8>, code: u8, session: SessionId, reason: u8) {
    let mut writer = Writer::new(out, Version::Resp3);
    writer.push(3);
    writer.bulk(match code {
        push::SESSION_MOVED => b"session-moved".as_slice(),
        _ => b"session-ended",
    });
    writer.session(session);
    writer.bulk(match (code, reason) {
        (push::SESSION_MOVED, _) => b"resumed by another connection".as_slice(),
        (_, 1) => b"expired",
        (_, 2) => b"replaced",
        (_, 3) => b"killed",
        _ => b"closed",
    });
}

/// A notice that a session's receiving connection hears, as RESP3 says it. What a client of RESP
/// cannot have asked for is not told.
pub fn push_notice(out: &mut Vec<u8>, code: u8, body: &[u8]) {
    let mut reader = Reader::new(body);
    let told = match code {
        push::GRANTED => put_granted(out, &mut reader),
        push::WAIT_ENDED => put_wait_ended(out, &mut reader),
        push::RECEIVED => put_received(out, &mut reader),
        push::LOST => put_lost(out, &mut reader),
        push::MESSAGE => put_message(out, &mut reader),
        _ => Ok(()),
    };
    told.expect("notices are written by our own kind");
}

fn put_granted(out: &mut Vec<u8>, body: &mut Reader<'_>) -> Result<(), Truncated> {
    let (_ticket, token, _mode) = (body.u64()?, body.u64()?, body.u8()?);
    let mut writer = Writer::new(out, Version::Resp3);
    writer.push(3);
    writer.bulk(b"granted");
    writer.bulk(body.rest());
    writer.token(Token(token));
    Ok(())
}

/// `message`, target, sender's session, payload, source, token; null is what it has not.
fn put_message(out: &mut Vec<u8>, body: &mut Reader<'_>) -> Result<(), Truncated> {
    let (flags, from, target) = (body.u8()?, SessionId(body.u64()?), body.short_bytes()?);
    let fenced = flags & push::MESSAGE_FENCED != 0;
    let source = if fenced { Some((body.short_bytes()?, Token(body.u64()?))) } else { None };
    let mut writer = Writer::new(out, Version::Resp3);
    writer.push(6);
    writer.bulk(b"message");
    match target {
        [] => writer.null(),
        name => writer.bulk(name),
    }
    match from {
        SessionId(0) => writer.null(),
        from => writer.session(from),
    }
    writer.bulk(body.rest());
    match source {
        Some((name, token)) => {
            writer.bulk(name);
            writer.token(token);
        }
        None => {
            writer.null();
            writer.null();
        }
    }
    Ok(())
}

fn put_wait_ended(out: &mut Vec<u8>, body: &mut Reader<'_>) -> Result<(), Truncated> {
    let (_ticket, _reason) = (body.u64()?, body.u8()?);
    let mut writer = Writer::new(out, Version::Resp3);
    writer.push(3);
    writer.bulk(b"wait-ended");
    writer.bulk(body.rest());
    writer.bulk(b"timed out");
    Ok(())
}

fn put_received(out: &mut Vec<u8>, body: &mut Reader<'_>) -> Result<(), Truncated> {
    let (token, from) = (body.u64()?, SessionId(body.u64()?));
    let mut writer = Writer::new(out, Version::Resp3);
    writer.push(4);
    writer.bulk(b"received");
    writer.bulk(body.rest());
    writer.token(Token(token));
    writer.session(from);
    Ok(())
}

fn put_lost(out: &mut Vec<u8>, body: &mut Reader<'_>) -> Result<(), Truncated> {
    let (token, to, reason) = (body.u64()?, SessionId(body.u64()?), body.u8()?);
    let mut writer = Writer::new(out, Version::Resp3);
    writer.push(5);
    writer.bulk(b"lost");
    writer.bulk(body.rest());
    writer.token(Token(token));
    writer.session(to);
    writer.bulk(match reason {
        push::LOST_TRANSFERRED => b"transferred".as_slice(),
        _ => b"revoked",
    });
    Ok(())
}
