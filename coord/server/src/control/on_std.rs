//! The control plane without glommio: one `poll` loop, blocking files.
//!
//! Not here: anything that decides; this file only waits and moves bytes.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::{
    ControlRuntime, Keeper, Plane, Ready, TICK, admin_error, clear_stale_socket, restrict_socket,
};
use crate::admin::{ADMIN_CONNS_MAX, ADMIN_DEADLINE, Exchange, NodeView};
use crate::config::AdminPlace;
use crate::state::{StateError, StdFiles, drive};

pub(super) struct Std;

impl ControlRuntime for Std {
    const NAME: &'static str = "poll";

    fn run(plane: Plane) -> Result<Result<(), StateError>, (Plane, io::Error)> {
        let bell = match Bell::new() {
            Ok(bell) => Arc::new(bell),
            Err(error) => return Err((plane, error)),
        };
        let (mut keeper, opened) = match drive(Keeper::open(&plane, StdFiles::new(&plane.dir))) {
            Ok(opened) => opened,
            Err(error) => {
                plane.tell(Err(error.into()));
                return Ok(Ok(()));
            }
        };
        let (listener, admin) = match Listener::bind(&plane.admin) {
            Ok(bound) => bound,
            Err(error) => {
                plane.tell(Err(admin_error(&plane.admin, error)));
                return Ok(Ok(()));
            }
        };
        plane.shared.set_bell(Some(Waker::from(bell.clone())));
        plane.tell(Ok(Ready { opened, admin, runtime: Self::NAME }));
        let mut endpoint = Endpoint { listener, conns: Vec::new(), view: plane.view.clone() };
        while drive(keeper.grant_wishes()) {
            // A wish that failed waits for the tick; one that came just now is not waited for.
            let failed = plane.shared.failures.load(Ordering::Relaxed) > 0;
            let work = plane.shared.has_work() && !failed;
            endpoint.turn(&bell, if work { Duration::ZERO } else { TICK });
        }
        Ok(drive(keeper.end()))
    }
}

/// Wakes the loop: an eventfd as a waker.
struct Bell(OwnedFd);

impl Bell {
    fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    fn silence(&self) {
        // Fails only if it was not rung.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Fails only if it has been rung 2^64 times already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

enum Listener {
    Off,
    Tcp(TcpListener),
    Unix(UnixListener),
}

trait Stream: Read + Write + AsFd {}
impl<S: Read + Write + AsFd> Stream for S {}

impl Listener {
    fn bind(admin: &AdminPlace) -> io::Result<(Self, AdminPlace)> {
        match admin {
            AdminPlace::Off => Ok((Self::Off, AdminPlace::Off)),
            AdminPlace::Tcp(addr) => {
                let listener = TcpListener::bind(addr)?;
                listener.set_nonblocking(true)?;
                let bound = AdminPlace::Tcp(listener.local_addr()?);
                Ok((Self::Tcp(listener), bound))
            }
            AdminPlace::Unix(path) => {
                clear_stale_socket(path)?;
                let listener = UnixListener::bind(path)?;
                restrict_socket(path)?;
                listener.set_nonblocking(true)?;
                Ok((Self::Unix(listener), admin.clone()))
            }
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Off => None,
            Self::Tcp(listener) => Some(listener.as_fd()),
            Self::Unix(listener) => Some(listener.as_fd()),
        }
    }

    fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Off => Err(io::ErrorKind::WouldBlock.into()),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(Box::new(stream))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// One admin connection: reads until it has an answer, then writes that.
struct Conn {
    stream: Box<dyn Stream>,
    exchange: Exchange,
    answer: Vec<u8>,
    sent: usize,
    deadline: Instant,
}

impl Conn {
    fn new(stream: Box<dyn Stream>) -> Self {
        let deadline = Instant::now() + Duration::from_nanos(ADMIN_DEADLINE.0);
        Self { stream, exchange: Exchange::default(), answer: Vec::new(), sent: 0, deadline }
    }

    fn interest(&self) -> PollFlags {
        if self.answer.is_empty() { PollFlags::IN } else { PollFlags::OUT }
    }

    /// Moves what can be moved; `Ok(true)` when the answer is out, or the peer has gone.
    fn go_on(&mut self, view: &dyn NodeView) -> io::Result<bool> {
        let mut bytes = [0; 2048];
        while self.answer.is_empty() {
            match self.stream.read(&mut bytes)? {
                0 => return Ok(true),
                read => {
                    self.answer = self.exchange.feed(&bytes[..read], view).unwrap_or_default();
                }
            }
        }
        while self.sent < self.answer.len() {
            self.sent += self.stream.write(&self.answer[self.sent..])?;
        }
        Ok(true)
    }

    fn is_over(&mut self, view: &dyn NodeView) -> bool {
        match self.go_on(view) {
            Ok(over) => over,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {
                    self.deadline <= Instant::now()
                }
                _ => true,
            },
        }
    }
}

struct Endpoint {
    listener: Listener,
    conns: Vec<Conn>,
    view: Arc<dyn NodeView>,
}

impl Endpoint {
    /// Waits until the bell rings, a socket is ready, a deadline or `at_most` has passed; then does
    /// what can be done.
    fn turn(&mut self, bell: &Bell, at_most: Duration) {
        self.wait(bell, at_most);
        bell.silence();
        while self.conns.len() < ADMIN_CONNS_MAX {
            match self.listener.accept() {
                Ok(stream) => self.conns.push(Conn::new(stream)),
                Err(_) => break,
            }
        }
        let view = &*self.view;
        self.conns.retain_mut(|conn| !conn.is_over(view));
    }

    fn wait(&self, bell: &Bell, at_most: Duration) {
        let mut fds = vec![PollFd::new(&bell.0, PollFlags::IN)];
        // A full house stops accepting; the kernel keeps the others in the backlog.
        if let Some(fd) = self.listener.fd().filter(|_| self.conns.len() < ADMIN_CONNS_MAX) {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        for conn in &self.conns {
            fds.push(PollFd::from_borrowed_fd(conn.stream.as_fd(), conn.interest()));
        }
        let now = Instant::now();
        let deadlines = self.conns.iter().map(|conn| conn.deadline.saturating_duration_since(now));
        let wait = deadlines.min().unwrap_or(at_most).min(at_most);
        let wait = Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, Some(&wait));
    }
}
