//! The client for programs that call and wait: one TCP connection, one call at a time.
//!
//! A batch of any size is one call: it is split into frames, several of which are on the way at
//! once, and the results come back in the order of the names. Notices that arrive between replies
//! are kept for [`Client::take_notice`].
//!
//! Invariants:
//! - B1  At most [`FRAMES_ON_THE_WAY`] frames wait for replies, so that their replies fit what the
//!   server buffers for one connection, and the two never wait for each other.
//! - B2  After a failure of the connection every later call fails at once: what the failed call did
//!   is unknown, and replies may be missing.
//!
//! Bounds: [`NOTICES_MAX`] notices are kept; older ones are dropped and counted.
//! Not here: reconnecting and renewing in the background (a later face over the same core).
//! Tests: below, against a thread that plays the server from canned bytes.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::iter::Peekable;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringway_coord_proto::wire::{Preface, Reply};
use ringway_core::{NodeId, SessionId, ShardId, Slot, Token};

use crate::core::{Core, Event};
use crate::error::{Error, Refusal, StreamError};
use crate::notice::Notice;
use crate::op::{Letter, ListQuery, Mode, Op, OpenRequest, Proof, Ticket, WatchId, WatchOrder};
use crate::reply::{
    Cancelled, Delivery, Described, ListPage, MetaSet, Opened, Owner, Queue, Reached, Registered,
    Revoked, SessionRecord, SessionsPage, ShardMap, Waited, WaitsPage, Watching, broadcast_result,
    cancel_result, data_result, granted_result, meta_result, plain_result, query_result, read_list,
    read_opened, read_session, read_sessions, read_shard_map, register_result, revoke_result,
    send_result, set_meta_result, wait_result, waiters_result, waits_result, watch_result, whole,
};

/// Frames of one call that wait for replies at once: 8 x 4096 replies of 17 bytes stay below the
/// mebibyte that the server buffers for a connection.
pub const FRAMES_ON_THE_WAY: usize = 8;
/// Notices that are kept for the caller.
pub const NOTICES_MAX: usize = 1024;
/// Bytes taken from the socket at once.
const READ_BYTES: usize = 64 * 1024;

/// Who is at the connection. It has no `Debug` that shows the password.
#[derive(Clone)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({}, ..)", self.user)
    }
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// A call fails when nothing moves for this long; not zero.
    pub timeout: Duration,
    /// What to authenticate with before anything else.
    pub credentials: Option<Credentials>,
}

impl Default for Options {
    /// Five seconds, no credentials.
    fn default() -> Self {
        Options { timeout: Duration::from_secs(5), credentials: None }
    }
}

/// One connection to a coordinator.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    addr: SocketAddr,
    timeout: Duration,
    core: Core,
    inbox: Box<[u8]>,
    notices: VecDeque<Notice>,
    notices_dropped: u64,
    dead: bool,
}

impl Client {
    /// Connects, checks that a Ringway of our version answers, and authenticates if asked to.
    pub fn connect(addr: SocketAddr, options: Options) -> Result<Client, Error> {
        let connect = || -> io::Result<TcpStream> {
            let stream = TcpStream::connect_timeout(&addr, options.timeout)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(options.timeout))?;
            stream.set_write_timeout(Some(options.timeout))?;
            Ok(stream)
        };
        let stream = connect().map_err(|source| Error::Connect { addr, source })?;
        let mut client = Client {
            stream,
            addr,
            timeout: options.timeout,
            core: Core::new(),
            inbox: vec![0; READ_BYTES].into_boxed_slice(),
            notices: VecDeque::new(),
            notices_dropped: 0,
            dead: false,
        };
        client.flush("connect")?;
        while client.core.peer().is_none() {
            client.fill("connect")?;
            client.drain(&mut |_| Ok(()))?;
        }
        if let Some(Credentials { user, password }) = &options.credentials {
            client.auth(user.as_bytes(), password.as_bytes())?;
        }
        Ok(client)
    }

    /// The server's address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The server's preface.
    pub fn server_preface(&self) -> Preface {
        self.core.peer().copied().unwrap_or(Preface::OURS)
    }

    /// Who owns each name; one result a name, in their order.
    pub fn query(&mut self, names: &[&[u8]]) -> Result<Vec<Result<Option<Owner>, Refusal>>, Error> {
        let ops = names.iter().map(|name| Op::Query(name));
        self.collect("QUERY", names.len(), ops, &query_result)
    }

    /// Who owns the name.
    pub fn query_one(&mut self, name: &[u8]) -> Result<Option<Owner>, Error> {
        let first = self.query(&[name])?.pop();
        self.only("QUERY", first)
    }

    /// Claims each name for the connection's session, exclusively and in the ephemeral class.
    pub fn register(&mut self, names: &[&[u8]]) -> Result<Vec<Result<Registered, Refusal>>, Error> {
        self.register_as(names, Mode::Exclusive)
    }

    /// Claims each name for the connection's session, in the mode given.
    pub fn register_as(
        &mut self,
        names: &[&[u8]],
        mode: Mode,
    ) -> Result<Vec<Result<Registered, Refusal>>, Error> {
        let ops = names.iter().map(|name| Op::Register { name, mode, replicated: false });
        self.collect("REGISTER", names.len(), ops, &register_result)
    }

    /// Claims one name.
    pub fn register_one(&mut self, name: &[u8]) -> Result<Registered, Error> {
        let first = self.register(&[name])?.pop();
        self.only("REGISTER", first)
    }

    /// Gives each name back, whatever its token.
    pub fn release(&mut self, names: &[&[u8]]) -> Result<Vec<Result<(), Refusal>>, Error> {
        let ops = names.iter().map(|name| Op::Release { name, token: None });
        self.collect("RELEASE", names.len(), ops, &plain_result)
    }

    /// Gives each name back if it is held under the token beside it.
    pub fn release_if(
        &mut self,
        names: &[(&[u8], Token)],
    ) -> Result<Vec<Result<(), Refusal>>, Error> {
        let ops = names.iter().map(|(name, token)| Op::Release { name, token: Some(*token) });
        self.collect("RELEASE", names.len(), ops, &plain_result)
    }

    /// Who owns each name, and its metadata.
    pub fn meta(
        &mut self,
        names: &[&[u8]],
    ) -> Result<Vec<Result<Option<Described>, Refusal>>, Error> {
        let ops = names.iter().map(|name| Op::Meta(name));
        self.collect("META", names.len(), ops, &meta_result)
    }

    /// Sets the metadata of a name that is the session's; with a version only if it has that one.
    pub fn set_meta(
        &mut self,
        name: &[u8],
        version: Option<u32>,
        metadata: &[u8],
    ) -> Result<MetaSet, Error> {
        self.one("SET_META", Op::SetMeta { name, version, metadata }, &set_meta_result)
    }

    /// Claims each name, and waits in its queue if it is another's: notices tell how that ends.
    pub fn wait(
        &mut self,
        names: &[&[u8]],
        mode: Mode,
        within: Option<Duration>,
    ) -> Result<Vec<Result<Waited, Refusal>>, Error> {
        let ops = names.iter().map(|name| Op::Wait { name, mode, within });
        self.collect("WAIT", names.len(), ops, &wait_result)
    }

    /// Waits no longer.
    pub fn cancel(&mut self, name: &[u8], ticket: Ticket) -> Result<Cancelled, Error> {
        self.one("CANCEL", Op::Cancel { name, ticket }, &cancel_result)
    }

    /// Who holds the name and who waits for it, up to `most` (1 to 1024) of each.
    pub fn waiters(&mut self, name: &[u8], most: u16) -> Result<Option<Queue>, Error> {
        self.one("WAITERS", Op::Waiters { name, most }, &waiters_result)
    }

    /// A page of at most `most` (1 to 1024) edges of who waits for whom; `cursor` is zero at first.
    pub fn waits(&mut self, cursor: u64, most: u16) -> Result<WaitsPage, Error> {
        self.one("WAITS", Op::Waits { cursor, most }, &waits_result)
    }

    /// Hands each name over to another session, whatever its token.
    pub fn transfer(
        &mut self,
        names: &[&[u8]],
        to: SessionId,
    ) -> Result<Vec<Result<Owner, Refusal>>, Error> {
        let ops = names.iter().map(|name| Op::Transfer { name, to, token: None });
        self.collect("TRANSFER", names.len(), ops, &granted_result)
    }

    /// Hands each name over to another session if it is held under the token beside it.
    pub fn transfer_if(
        &mut self,
        names: &[(&[u8], Token)],
        to: SessionId,
    ) -> Result<Vec<Result<Owner, Refusal>>, Error> {
        let ops = names.iter().map(|(name, token)| Op::Transfer { name, to, token: Some(*token) });
        self.collect("TRANSFER", names.len(), ops, &granted_result)
    }

    /// Takes each name from its owner on an operator's behalf, for `to` or for who waits for it.
    pub fn revoke(
        &mut self,
        names: &[&[u8]],
        to: Option<SessionId>,
    ) -> Result<Vec<Result<Revoked, Refusal>>, Error> {
        let ops = names.iter().map(|name| Op::Revoke { name, to });
        self.collect("REVOKE", names.len(), ops, &revoke_result)
    }

    /// Begins a watch; notices tell what it sees.
    pub fn watch(&mut self, order: WatchOrder<'_>) -> Result<Watching, Error> {
        self.one("WATCH", Op::Watch(order), &watch_result)
    }

    /// Ends a watch. Notices that were on their way may still come.
    pub fn unwatch(&mut self, watch: WatchId) -> Result<(), Error> {
        self.plain("UNWATCH", Op::Unwatch(watch))
    }

    /// Sends each message. One payload that goes to many in a row crosses the wire once a frame.
    pub fn send(
        &mut self,
        letters: &[Letter<'_>],
    ) -> Result<Vec<Result<Delivery, Refusal>>, Error> {
        let ops = letters.iter().map(|letter| Op::Send { letter: *letter, same: false });
        self.collect("SEND", letters.len(), ops, &send_result)
    }

    /// Sends a message to every session; how many it reached, if a receipt is asked for.
    pub fn broadcast(&mut self, payload: &[u8], receipt: bool) -> Result<Option<Reached>, Error> {
        self.one("BROADCAST", Op::Broadcast { receipt, payload }, &broadcast_result)
    }

    /// Opens or resumes a session, as the request says.
    pub fn open(&mut self, request: OpenRequest<'_>) -> Result<Opened, Error> {
        self.data("OPEN", Op::Open(request), |bytes| whole(bytes, read_opened))
    }

    /// Opens many sessions in one batch, which takes [`crate::Attendance::Gateway`].
    pub fn open_many<'a>(
        &mut self,
        requests: impl ExactSizeIterator<Item = OpenRequest<'a>>,
    ) -> Result<Vec<Result<Opened, Refusal>>, Error> {
        let most = requests.len();
        self.collect("OPEN", most, requests.map(Op::Open), &|reply| {
            let opened = whole(data_result(reply)?, read_opened);
            opened.ok_or(Refusal::Unexpected(reply.status()))
        })
    }

    /// Makes this one more sending connection of the session.
    pub fn attach(&mut self, proof: Proof) -> Result<(), Error> {
        self.plain("ATTACH", Op::Attach(proof))
    }

    /// Renews the connection's session. The lease counts from the moment of this call.
    pub fn renew(&mut self) -> Result<(), Error> {
        self.plain("RENEW", Op::Renew(None))
    }

    /// Renews each session by its proof.
    pub fn renew_many(&mut self, proofs: &[Proof]) -> Result<Vec<Result<(), Refusal>>, Error> {
        let ops = proofs.iter().map(|proof| Op::Renew(Some(*proof)));
        self.collect("RENEW", proofs.len(), ops, &plain_result)
    }

    /// Ends the connection's session, or the one proven; all it holds is released.
    pub fn close_session(&mut self, proof: Option<Proof>) -> Result<(), Error> {
        self.plain("CLOSE", Op::Close(proof))
    }

    /// The record of a session.
    pub fn session(&mut self, session: SessionId) -> Result<SessionRecord, Error> {
        self.data("SESSION", Op::Session(session), |bytes| whole(bytes, read_session))
    }

    /// The record of a node's session.
    pub fn node(&mut self, node: NodeId) -> Result<SessionRecord, Error> {
        self.data("NODE", Op::Node(node), |bytes| whole(bytes, read_session))
    }

    /// A page of at most `most` (1 to 1024) session records; `cursor` is zero at first.
    pub fn sessions(&mut self, cursor: u64, most: u16) -> Result<SessionsPage, Error> {
        self.data("SESSIONS", Op::Sessions { cursor, most }, |bytes| whole(bytes, read_sessions))
    }

    /// Ends a session on an operator's behalf.
    pub fn kill(&mut self, session: SessionId) -> Result<(), Error> {
        self.plain("KILL", Op::Kill(session))
    }

    /// A page of names.
    pub fn list(&mut self, query: ListQuery<'_>) -> Result<ListPage, Error> {
        self.data("LIST", Op::List(query), |bytes| whole(bytes, read_list))
    }

    /// All names that begin with `prefix`, page by page; stops early when `each` says false.
    pub fn list_all(
        &mut self,
        prefix: &[u8],
        mut each: impl FnMut(&crate::ListedName) -> bool,
    ) -> Result<(), Error> {
        let mut slot = Slot::from_bits(0);
        let mut after = Vec::new();
        loop {
            let page = self.list(ListQuery { slot, most: 1024, after: &after, prefix })?;
            if !page.names.iter().all(&mut each) {
                return Ok(());
            }
            let Some(next) = page.next else { return Ok(()) };
            (slot, after) = (next.slot, next.after);
        }
    }

    /// Sends up to 64 bytes there and back; how long that took.
    pub fn ping(&mut self, bytes: &[u8]) -> Result<Duration, Error> {
        let start = Instant::now();
        self.data("PING", Op::Ping(bytes), |echoed| (echoed == bytes).then_some(()))?;
        Ok(start.elapsed())
    }

    /// Which slots are on which shard.
    pub fn shard_map(&mut self) -> Result<ShardMap, Error> {
        self.data("SHARD_MAP", Op::ShardMap, |bytes| whole(bytes, read_shard_map))
    }

    /// The counters of one shard: a JSON object.
    pub fn shard_stats(&mut self, shard: ShardId) -> Result<String, Error> {
        self.data("SHARD_STATS", Op::ShardStats(shard), text)
    }

    /// Version, epoch and state of the server: a JSON object.
    pub fn server(&mut self) -> Result<String, Error> {
        self.data("SERVER", Op::Server, text)
    }

    /// Proves who is at this connection.
    pub fn auth(&mut self, user: &[u8], password: &[u8]) -> Result<(), Error> {
        self.plain("AUTH", Op::Auth { user, password })
    }

    /// The oldest notice that has come during earlier calls.
    pub fn take_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Notices that came while [`NOTICES_MAX`] were waiting, and were dropped for newer ones.
    pub fn notices_dropped(&self) -> u64 {
        self.notices_dropped
    }

    /// Waits for a notice; `None` when none came within `patience`.
    pub fn wait_notice(&mut self, patience: Duration) -> Result<Option<Notice>, Error> {
        let until = Instant::now() + patience;
        self.alive()?;
        while self.notices.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.set_read_timeout(left, "wait for a notice")?;
            let filled = self.fill("wait for a notice");
            match filled {
                Err(Error::Timeout { .. }) => self.dead = false,
                Err(error) => return Err(error),
                Ok(()) => self.drain(&mut |_| Ok(()))?,
            }
            self.set_read_timeout(self.timeout, "wait for a notice")?;
        }
        Ok(self.take_notice())
    }

    fn plain(&mut self, doing: &'static str, op: Op<'_>) -> Result<(), Error> {
        self.one(doing, op, &plain_result)
    }

    fn one<T>(
        &mut self,
        doing: &'static str,
        op: Op<'_>,
        take: &dyn Fn(Reply<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Error> {
        let first = self.collect(doing, 1, std::iter::once(op), take)?.pop();
        self.only(doing, first)
    }

    fn data<T>(
        &mut self,
        doing: &'static str,
        op: Op<'_>,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, Error> {
        let take = |reply: Reply<'_>| Ok(read(data_result(reply)?));
        let first = self.collect(doing, 1, std::iter::once(op), &take)?.pop();
        let source = StreamError::Data(doing);
        self.only(doing, first)?.ok_or(Error::Stream { addr: self.addr, source })
    }

    /// The result of a call that asked one op. The core has checked that there is one (C1).
    fn only<T>(&self, doing: &'static str, first: Option<Result<T, Refusal>>) -> Result<T, Error> {
        let addr = self.addr;
        match first {
            Some(Ok(value)) => Ok(value),
            Some(Err(refusal)) => Err(Error::Refused { addr, doing, refusal }),
            None => Err(Error::Stream { addr, source: StreamError::Data(doing) }),
        }
    }

    /// Sends a batch of any size and gathers what `take` makes of each reply.
    fn collect<'a, T>(
        &mut self,
        doing: &'static str,
        most: usize,
        ops: impl Iterator<Item = Op<'a>>,
        take: &dyn Fn(Reply<'_>) -> Result<T, Refusal>,
    ) -> Result<Vec<Result<T, Refusal>>, Error> {
        self.alive()?;
        let mut results = Vec::with_capacity(most);
        let mut gather = |reply: Reply<'_>| {
            results.push(take(reply));
            Ok(())
        };
        let sent = self.exchange(doing, &mut ops.peekable(), &mut gather);
        if self.dead {
            return sent.map(|()| results);
        }
        // Replies to what was sent before a bad op must not be taken for those of a later call.
        self.settle(doing, 0, &mut gather)?;
        sent?;
        Ok(results)
    }

    fn exchange<'a>(
        &mut self,
        doing: &'static str,
        ops: &mut Peekable<impl Iterator<Item = Op<'a>>>,
        gather: &mut impl FnMut(Reply<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        loop {
            match self.core.submit(ops) {
                Ok(None) => return Ok(()),
                Ok(Some(_)) => self.flush(doing)?,
                Err(source) => return Err(Error::Op { doing, source }),
            }
            self.settle(doing, FRAMES_ON_THE_WAY - 1, gather)?;
        }
    }

    /// Reads until at most `most` frames wait for their replies.
    fn settle(
        &mut self,
        doing: &'static str,
        most: usize,
        gather: &mut impl FnMut(Reply<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.alive()?;
        while self.core.in_flight() > most {
            self.fill(doing)?;
            self.drain(gather)?;
        }
        Ok(())
    }

    /// Takes everything out of the core: replies to `gather`, notices to the queue.
    fn drain(
        &mut self,
        gather: &mut impl FnMut(Reply<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        loop {
            match self.core.poll() {
                Ok(None) => return Ok(()),
                Ok(Some(Event::Ready(_))) => {}
                Ok(Some(Event::Reply(_, mut replies))) => replies.try_for_each(&mut *gather)?,
                Ok(Some(Event::Push(notices))) => {
                    for notice in notices {
                        if self.notices.len() == NOTICES_MAX {
                            self.notices.pop_front();
                            self.notices_dropped += 1;
                        }
                        self.notices.push_back(notice);
                    }
                }
                Err(source) => return Err(self.fail(Error::Stream { addr: self.addr, source })),
            }
            if self.notices.back() == Some(&Notice::ProtocolError) {
                let source = StreamError::Reported;
                return Err(self.fail(Error::Stream { addr: self.addr, source }));
            }
        }
    }

    fn flush(&mut self, doing: &'static str) -> Result<(), Error> {
        while !self.core.outgoing().is_empty() {
            match self.stream.write(self.core.outgoing()) {
                Ok(0) => return Err(self.fail(Error::Closed { addr: self.addr, doing })),
                Ok(bytes) => self.core.sent(bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io(doing, error)),
            }
        }
        Ok(())
    }

    fn fill(&mut self, doing: &'static str) -> Result<(), Error> {
        loop {
            match self.stream.read(&mut self.inbox) {
                Ok(0) => return Err(self.fail(Error::Closed { addr: self.addr, doing })),
                Ok(bytes) => {
                    self.core.receive(&self.inbox[..bytes]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io(doing, error)),
            }
        }
    }

    fn set_read_timeout(&mut self, timeout: Duration, doing: &'static str) -> Result<(), Error> {
        self.stream.set_read_timeout(Some(timeout)).map_err(|error| self.io(doing, error))
    }

    fn io(&mut self, doing: &'static str, source: io::Error) -> Error {
        let (addr, after) = (self.addr, self.timeout);
        self.fail(match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Error::Timeout { addr, doing, after }
            }
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Error::Closed { addr, doing }
            }
            _ => Error::Io { addr, doing, source },
        })
    }

    fn fail(&mut self, error: Error) -> Error {
        self.dead = true;
        error
    }

    fn alive(&self) -> Result<(), Error> {
        if self.dead { Err(Error::Dead { addr: self.addr }) } else { Ok(()) }
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}
