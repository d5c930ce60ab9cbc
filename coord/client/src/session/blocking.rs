//! The face for threads: calls block, and one thread of the session moves the bytes.
//!
//! The thread waits for its socket and for callers at once (`poll`), and connects in threads of
//! their own, so that nothing keeps it from telling in time that the lease is at risk or lost.
//!
//! Bounds: [`CONNECTING_MAX`] attempts to connect that hang at once.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::queue::{Queue as Inbox, Taken};

use super::faces::{methods, prelude::*};
use super::setters;

/// Attempts to connect that have not come back: a resolver may take longer than an attempt.
pub const CONNECTING_MAX: usize = 4;
/// The longest that an attempt may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Bytes taken from the socket at once.
const READ_BYTES: usize = 64 * 1024;
/// Reads of one turn, so that callers have their turn, too.
const READS_MAX: usize = 16;
/// The longest rest: while the machine sleeps the clock of `poll` stands still, ours does not.
const REST_MAX: Duration = Duration::from_secs(1);

/// A session for threads. Clones are handles to the same session, for any number of threads.
#[derive(Clone, Debug)]
pub struct Session {
    handle: Arc<Handle>,
}

/// How to open a session.
#[derive(Clone, Debug, Default)]
#[must_use = "no session is opened before `connect`"]
pub struct Builder(Plan);

macro_rules! answer {
    ($pending:expr) => {
        $pending.wait()
    };
}
macro_rules! lock {
    ($pending:expr) => {
        $pending.wait_held()
    };
}
macro_rules! owner {
    ($queue:expr) => {
        match $queue.pop(None) {
            Taken::Item(owner) => Some(owner),
            Taken::TimeOver | Taken::Closed => None,
        }
    };
}

impl Builder {
    setters!();

    /// Opens the session with the server at `host:port`.
    pub fn connect(&self, address: impl Into<String>) -> Result<Session, SessionError> {
        self.connect_any([address.into()])
    }

    /// Opens the session with the first of these servers that answers; the others are tried when
    /// it does not any more. All of them are the same service.
    ///
    /// # Panics
    /// If there is none.
    pub fn connect_any(
        &self,
        addresses: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Session, SessionError> {
        let addresses: Vec<String> = addresses.into_iter().map(Into::into).collect();
        let shared = self.0.shared();
        let engine = Engine::new(now(), self.0.settings(addresses.len()));
        let hub = Hub::new(engine, Arc::clone(&shared));
        let driver = Driver::new(hub, addresses).map_err(SessionError::Start)?;
        let thread = std::thread::Builder::new().name("ringway-session".into());
        thread.spawn(move || driver.run()).map_err(SessionError::Start)?;
        let handle = Arc::new(Handle { shared });
        match handle.shared.opened.pop(None) {
            Taken::Item(Ok(_)) => Ok(Session { handle }),
            Taken::Item(Err(over)) => {
                Err(SessionError::Fault { doing: "OPEN", fault: Fault::Over(over) })
            }
            Taken::TimeOver | Taken::Closed => {
                Err(SessionError::Fault { doing: "OPEN", fault: Fault::Over(Over::Closed) })
            }
        }
    }
}

impl Session {
    /// How to open one.
    pub fn builder() -> Builder {
        Builder::default()
    }

    methods!(; answer, answer, lock, owner);

    /// Sends a request to the owner of the name and waits for the reply: [`Message::reply`] has
    /// what it says. See [`request`](crate::session::request) for how it is told from messages.
    pub fn request(
        &self,
        name: impl AsRef<[u8]>,
        says: impl AsRef<[u8]>,
        within: Duration,
    ) -> Result<Message, SessionError> {
        let until = std::time::Instant::now().checked_add(within);
        let (pending, send) = PendingReply::new(&self.handle, name.as_ref(), says.as_ref())?;
        PendingReply::check(send.wait()?)?;
        let doing = "the request";
        match pending.reply.pop(until) {
            Taken::Item(message) => Ok(message),
            Taken::TimeOver => Err(SessionError::TimedOut { doing, last: None }),
            Taken::Closed => {
                let fault = Fault::Over(self.over().unwrap_or(Over::Closed));
                Err(SessionError::Fault { doing, fault })
            }
        }
    }

    /// Ends the session: what it holds is free when this returns, unless there was no connection.
    /// Other handles find it over.
    pub fn close(&self) {
        let mut events = self.events();
        self.handle.shared.commands.force(Command::Close);
        while events.recv().is_some() {}
    }
}

/// Wakes the thread out of its `poll`.
struct Bell {
    rings: UnixStream,
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // A full pipe is a bell that rings.
            let _ = (&self.rings).write(&[1]);
        }
    }
}

type Connected = (Attempt, Result<TcpStream, LinkFault>);

struct Driver {
    hub: Hub,
    addresses: Vec<String>,
    stream: Option<TcpStream>,
    attempt: Attempt,
    connected: Arc<Inbox<Connected>>,
    connecting: Arc<AtomicUsize>,
    bell: Arc<Bell>,
    ears: UnixStream,
    acts: Vec<Act>,
    inbox: Box<[u8]>,
}

impl Driver {
    fn new(hub: Hub, addresses: Vec<String>) -> io::Result<Driver> {
        let (rings, ears) = UnixStream::pair()?;
        rings.set_nonblocking(true)?;
        ears.set_nonblocking(true)?;
        Ok(Driver {
            hub,
            addresses,
            stream: None,
            attempt: Attempt(0),
            connected: Arc::new(Inbox::new(CONNECTING_MAX)),
            connecting: Arc::new(AtomicUsize::new(0)),
            bell: Arc::new(Bell { rings, rung: AtomicBool::new(false) }),
            ears,
            acts: Vec::new(),
            inbox: vec![0; READ_BYTES].into_boxed_slice(),
        })
    }

    fn run(mut self) {
        let waker = Waker::from(Arc::clone(&self.bell));
        let cx = Context::from_waker(&waker);
        loop {
            self.step(Input::Tick);
            let more = self.hub.take_commands(now(), &cx, &mut self.acts);
            self.act();
            while let Poll::Ready(Some((attempt, result))) = self.connected.poll_pop(&cx) {
                self.on_connected(attempt, result);
            }
            let blocked = self.write();
            if self.hub.engine.over().is_some() {
                return;
            }
            if self.wait_for_any(blocked, more) {
                self.read();
            }
        }
    }

    fn step(&mut self, input: Input<'_>) {
        self.hub.step(now(), input, &mut self.acts);
        self.act();
    }

    fn act(&mut self) {
        for act in std::mem::take(&mut self.acts) {
            match act {
                Act::Connect(attempt, address) => self.connect(attempt, address),
                Act::Disconnect => self.stream = None,
            }
        }
    }

    fn connect(&mut self, attempt: Attempt, address: usize) {
        self.attempt = attempt;
        let (address, results) = (self.addresses[address].clone(), Arc::clone(&self.connected));
        let connecting = Arc::clone(&self.connecting);
        if connecting.fetch_add(1, Ordering::AcqRel) >= CONNECTING_MAX {
            connecting.fetch_sub(1, Ordering::AcqRel);
            self.connected.force((attempt, Err(LinkFault::Silent)));
            return;
        }
        let connect = move || {
            results.force((attempt, open(&address)));
            connecting.fetch_sub(1, Ordering::AcqRel);
        };
        let thread = std::thread::Builder::new().name("ringway-connect".into());
        if let Err(error) = thread.spawn(connect) {
            self.connecting.fetch_sub(1, Ordering::AcqRel);
            self.connected.force((attempt, Err(LinkFault::Connect(error.kind()))));
        }
    }

    fn on_connected(&mut self, attempt: Attempt, result: Result<TcpStream, LinkFault>) {
        match result {
            Ok(stream) if attempt == self.attempt => {
                self.stream = Some(stream);
                self.step(Input::Connected(attempt));
            }
            Ok(_) => {}
            Err(fault) => self.step(Input::Broken(attempt, fault)),
        }
    }

    /// Writes as much as the socket takes; whether it would not take all.
    fn write(&mut self) -> bool {
        while let Some(stream) = &mut self.stream {
            let bytes = self.hub.engine.transmit(now());
            if bytes.is_empty() {
                break;
            }
            match stream.write(bytes) {
                Ok(0) => self.broken(LinkFault::Closed),
                Ok(written) => self.hub.engine.sent(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.broken(link_fault(&error)),
            }
        }
        false
    }

    fn read(&mut self) {
        for _ in 0..READS_MAX {
            let Some(stream) = &mut self.stream else { return };
            match stream.read(&mut self.inbox) {
                Ok(0) => self.broken(LinkFault::Closed),
                Ok(bytes) => {
                    let came = &self.inbox[..bytes];
                    self.hub.step(now(), Input::Received(came), &mut self.acts);
                    self.act();
                    if bytes < READ_BYTES {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.broken(link_fault(&error)),
            }
        }
    }

    fn broken(&mut self, fault: LinkFault) {
        self.stream = None;
        self.step(Input::Broken(self.attempt, fault));
    }

    /// Waits until something is to be done; whether the socket has something.
    fn wait_for_any(&mut self, blocked: bool, more: bool) -> bool {
        let wake = self
            .hub
            .engine
            .wake_at()
            .map_or(Duration::ZERO, |wake| Duration::from_nanos(wake.since(now()).0));
        let rest = if more { Duration::ZERO } else { wake.min(REST_MAX) };
        let timeout = Timespec {
            tv_sec: rest.as_secs() as i64,
            tv_nsec: i64::from(rest.subsec_nanos()) as _,
        };
        let mut fds = vec![PollFd::new(&self.ears, PollFlags::IN)];
        if let Some(stream) = &self.stream {
            let write = if blocked { PollFlags::OUT } else { PollFlags::empty() };
            fds.push(PollFd::new(stream, PollFlags::IN | write));
        }
        // An error is a signal that came in between: the next turn looks at everything anyway.
        let _ = poll(&mut fds, Some(&timeout));
        let rung = !fds[0].revents().is_empty();
        let readable = fds.get(1).is_some_and(|fd| !(fd.revents() & !PollFlags::OUT).is_empty());
        if rung {
            self.bell.rung.store(false, Ordering::Release);
            let mut rings = [0; 64];
            while matches!(self.ears.read(&mut rings), Ok(bytes) if bytes == rings.len()) {}
        }
        readable
    }
}

/// Connects to the first address behind the name that takes it.
fn open(address: &str) -> Result<TcpStream, LinkFault> {
    let addresses = address.to_socket_addrs().map_err(|_| LinkFault::NoHost)?;
    let mut fault = LinkFault::NoHost;
    for address in addresses {
        let connect = || -> io::Result<TcpStream> {
            let stream = TcpStream::connect_timeout(&address, CONNECT_WITHIN)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        match connect() {
            Ok(stream) => return Ok(stream),
            Err(error) => fault = LinkFault::Connect(error.kind()),
        }
    }
    Err(fault)
}
