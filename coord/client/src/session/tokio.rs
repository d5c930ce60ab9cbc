//! The face for tokio: the same methods, asynchronous, and a task that moves the bytes.
//!
//! A future that is dropped gives up what it waits for: a wait or lock leaves its queue, and a lock
//! that was granted meanwhile is released (a name that was only waited for stays the session's). An
//! op that was sent is not taken back.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use ringway_client::engine::{Event, WatchItem};
//! use ringway_client::tokio::Session;
//!
//! # async fn run() -> Result<(), ringway_client::SessionError> {
//! let builder = Session::builder().node(7).lease(Duration::from_secs(10));
//! let session = builder.connect_any(["10.0.0.1:7400", "10.0.0.2:7400"]).await?;
//! let mut events = session.events();
//! tokio::spawn(async move {
//!     while let Some(event) = events.next().await {
//!         match event {
//!             Event::AtRisk { left } => eprintln!("stop what cannot be undone within {left:?}"),
//!             Event::Lost(why) => eprintln!("nothing is ours any more: {why}"),
//!             _ => {}
//!         }
//!     }
//! });
//! session.register(&["svc/mail/1"]).await?;
//! session.set_meta("svc/mail/1", None, "10.0.0.7:25").await?;
//! let mut services = session.watch_prefix("svc/mail/");
//! loop {
//!     match services.next_news().await? {
//!         WatchItem::Snapshot(all) => println!("{} instances", all.len()),
//!         WatchItem::Change(change) => println!("{:?}: {:?}", change.kind, change.owned),
//!         _ => {}
//!     }
//! }
//! # }
//! ```

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::net::TcpStream;
use ::tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::faces::{methods, prelude::*};
use super::setters;

/// Bytes taken from the socket at once.
const READ_BYTES: usize = 64 * 1024;

/// A session for tasks. Clones are handles to the same session, for any number of tasks.
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
        $pending.await
    };
}
macro_rules! grant {
    ($pending:expr) => {
        $pending.granted().await
    };
}
macro_rules! lock {
    ($pending:expr) => {
        $pending.granted_held().await
    };
}
macro_rules! owner {
    ($queue:expr) => {
        poll_fn(|cx| $queue.poll_pop(cx)).await
    };
}

impl Builder {
    setters!();

    /// Opens the session with the server at `host:port`.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time.
    pub async fn connect(&self, address: impl Into<String>) -> Result<Session, SessionError> {
        self.connect_any([address.into()]).await
    }

    /// Opens the session with the first of these servers that answers; the others are tried when
    /// it does not any more. All of them are the same service.
    ///
    /// # Panics
    /// If there is none, and outside of a tokio runtime with I/O and time.
    pub async fn connect_any(
        &self,
        addresses: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Session, SessionError> {
        let addresses: Vec<String> = addresses.into_iter().map(Into::into).collect();
        let shared = self.0.shared();
        let engine = Engine::new(now(), self.0.settings(addresses.len()));
        let hub = Hub::new(engine, Arc::clone(&shared));
        let mut driver = Driver::new(hub, addresses);
        ::tokio::spawn(async move { poll_fn(|cx| driver.poll(cx)).await });
        let handle = Arc::new(Handle { shared });
        let opened = poll_fn(|cx| handle.shared.opened.poll_pop(cx)).await;
        match opened.unwrap_or(Err(Over::Closed)) {
            Ok(_) => Ok(Session { handle }),
            Err(over) => Err(SessionError::Fault { doing: "OPEN", fault: Fault::Over(over) }),
        }
    }
}

impl Session {
    /// How to open one.
    pub fn builder() -> Builder {
        Builder::default()
    }

    methods!(async; answer, grant, lock, owner);

    /// Sends a request to the owner of the name and waits for the reply: [`Message::reply`] has
    /// what it says. See [`request`](crate::session::request) for how it is told from messages.
    pub async fn request(
        &self,
        name: impl AsRef<[u8]>,
        says: impl AsRef<[u8]>,
        within: Duration,
    ) -> Result<Message, SessionError> {
        let (pending, send) = PendingReply::new(&self.handle, name.as_ref(), says.as_ref())?;
        let doing = "the request";
        let reply = async {
            PendingReply::check(send.await?)?;
            poll_fn(|cx| pending.reply.poll_pop(cx)).await.ok_or_else(|| {
                let fault = Fault::Over(self.over().unwrap_or(Over::Closed));
                SessionError::Fault { doing, fault }
            })
        };
        timeout(within, reply).await.unwrap_or(Err(SessionError::TimedOut { doing, last: None }))
    }

    /// Ends the session: what it holds is free when this returns, unless there was no connection.
    /// Other handles find it over.
    pub async fn close(&self) {
        let mut events = self.events();
        self.handle.shared.commands.force(Command::Close);
        while events.next().await.is_some() {}
    }
}

type Connecting = Pin<Box<dyn Future<Output = Result<TcpStream, LinkFault>> + Send>>;

struct Driver {
    hub: Hub,
    addresses: Vec<String>,
    stream: Option<TcpStream>,
    attempt: Attempt,
    connecting: Option<Connecting>,
    sleep: Pin<Box<Sleep>>,
    acts: Vec<Act>,
    inbox: Box<[u8]>,
}

impl Driver {
    fn new(hub: Hub, addresses: Vec<String>) -> Driver {
        Driver {
            hub,
            addresses,
            stream: None,
            attempt: Attempt(0),
            connecting: None,
            sleep: Box::pin(sleep_until(Instant::now())),
            acts: Vec::new(),
            inbox: vec![0; READ_BYTES].into_boxed_slice(),
        }
    }

    /// Does all that can be done; ready when the session is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.step(Input::Tick);
            let more = self.hub.take_commands(now(), cx, &mut self.acts);
            self.act();
            let connected = self.poll_connecting(cx).is_ready();
            // What is read may have to be answered, and what is written makes room for more.
            while let Poll::Ready(()) = self.poll_write(cx) {}
            let read = self.poll_read(cx).is_ready();
            if self.hub.engine.over().is_some() {
                return Poll::Ready(());
            }
            if !(more || connected || read || self.poll_sleep(cx).is_ready()) {
                return Poll::Pending;
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
                Act::Connect(attempt, address) => {
                    self.attempt = attempt;
                    let address = self.addresses[address].clone();
                    self.connecting = Some(Box::pin(open(address)));
                }
                Act::Disconnect => {
                    self.stream = None;
                    self.connecting = None;
                }
            }
        }
    }

    fn poll_connecting(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(connecting) = &mut self.connecting else { return Poll::Pending };
        let result = ready!(connecting.as_mut().poll(cx));
        self.connecting = None;
        match result {
            Ok(stream) => {
                self.stream = Some(stream);
                self.step(Input::Connected(self.attempt));
            }
            Err(fault) => self.step(Input::Broken(self.attempt, fault)),
        }
        Poll::Ready(())
    }

    /// Ready when something was written, so that there may be more.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = &mut self.stream else { return Poll::Pending };
        let bytes = self.hub.engine.transmit(now());
        if bytes.is_empty() {
            return Poll::Pending;
        }
        let written = match ready!(stream.poll_write_ready(cx)) {
            Ok(()) => stream.try_write(bytes),
            Err(error) => Err(error),
        };
        match written {
            Ok(0) => self.broken(LinkFault::Closed),
            Ok(bytes) => self.hub.engine.sent(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.broken(link_fault(&error)),
        }
        Poll::Ready(())
    }

    /// Ready when something came.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = &mut self.stream else { return Poll::Pending };
        let read = match ready!(stream.poll_read_ready(cx)) {
            Ok(()) => stream.try_read(&mut self.inbox),
            Err(error) => Err(error),
        };
        match read {
            Ok(0) => self.broken(LinkFault::Closed),
            Ok(bytes) => {
                let came = &self.inbox[..bytes];
                self.hub.step(now(), Input::Received(came), &mut self.acts);
                self.act();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.broken(link_fault(&error)),
        }
        Poll::Ready(())
    }

    fn broken(&mut self, fault: LinkFault) {
        self.stream = None;
        self.step(Input::Broken(self.attempt, fault));
    }

    fn poll_sleep(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(wake) = self.hub.engine.wake_at() else { return Poll::Pending };
        let left = Duration::from_nanos(wake.since(now()).0);
        self.sleep.as_mut().reset(Instant::now() + left);
        self.sleep.as_mut().poll(cx)
    }
}

/// Connects to the first address behind the name that takes it.
async fn open(address: String) -> Result<TcpStream, LinkFault> {
    let connect = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        io::Result::Ok(stream)
    };
    connect.await.map_err(|error| LinkFault::Connect(error.kind()))
}
