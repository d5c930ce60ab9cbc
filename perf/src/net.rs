//! Connections for a load: many, from several loopback addresses, greeted and then nonblocking.
//!
//! Bounds: [`PORTS_PER_SOURCE`] connections share one source address, so that the kernel's
//! ephemeral ports suffice.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use ringway_client::Op;
use ringway_client::core::{Core, Event};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::config::{Login, Protocol};
use crate::error::LoadError;

/// Connections of one loopback source address.
pub(crate) const PORTS_PER_SOURCE: usize = 20_000;
/// Descriptors that are not connections.
const DESCRIPTORS_SPARE: u64 = 256;

/// How to reach and greet a server.
#[derive(Clone, Debug)]
pub(crate) struct Door<'a> {
    /// Where.
    pub(crate) addr: SocketAddr,
    /// What is spoken.
    pub(crate) protocol: Protocol,
    /// Who we are, if it is asked.
    pub(crate) login: Option<&'a Login>,
    /// How long each step may take.
    pub(crate) timeout: Duration,
}

impl Door<'_> {
    /// Connects and greets as the `number`-th connection of the load; it is nonblocking then.
    pub(crate) fn open(&self, number: usize) -> Result<TcpStream, LoadError> {
        let addr = self.addr;
        let fail = |source| LoadError::Connect { number, addr, source };
        let stream = self.connect(number).map_err(fail)?;
        match self.protocol {
            Protocol::Native => self.greet_native(&stream)?,
            Protocol::Port | Protocol::Keys => self.greet_resp(&stream)?,
        }
        stream.set_nonblocking(true).map_err(fail)?;
        Ok(stream)
    }

    fn connect(&self, number: usize) -> io::Result<TcpStream> {
        let family = match self.addr {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
        let group = number / PORTS_PER_SOURCE;
        if let (IpAddr::V4(target), 1..=250) = (self.addr.ip(), group)
            && target.is_loopback()
        {
            let source = Ipv4Addr::new(127, 0, 0, 1 + group as u8);
            net::bind(&socket, &SocketAddr::new(source.into(), 0))?;
        }
        match net::connect(&socket, &self.addr) {
            Ok(()) => {}
            Err(Errno::INPROGRESS) => {
                let patience = Timespec {
                    tv_sec: self.timeout.as_secs() as i64,
                    tv_nsec: self.timeout.subsec_nanos().into(),
                };
                let mut polled = [PollFd::new(&socket, PollFlags::OUT)];
                if poll(&mut polled, Some(&patience))? == 0 {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                net::sockopt::socket_error(&socket)??;
            }
            Err(error) => return Err(error.into()),
        }
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        Ok(stream)
    }

    fn greet_native(&self, mut stream: &TcpStream) -> Result<(), LoadError> {
        let refused = |said: String| LoadError::Greeting { addr: self.addr, said };
        let mut core = Core::new();
        let op = self.login.map(|login| Op::Auth {
            user: login.user.as_bytes(),
            password: login.password.as_bytes(),
        });
        core.submit(&mut op.into_iter().peekable()).map_err(|error| refused(error.to_string()))?;
        stream.write_all(core.outgoing()).map_err(|error| refused(error.to_string()))?;
        let mut inbox = [0; 256];
        while core.peer().is_none() || core.in_flight() > 0 {
            let len = stream.read(&mut inbox).map_err(|error| refused(error.to_string()))?;
            if len == 0 {
                return Err(refused("it closed the connection".into()));
            }
            core.receive(&inbox[..len]);
            loop {
                match core.poll() {
                    Ok(None) => break,
                    Ok(Some(Event::Reply(_, mut replies))) => {
                        let reply = replies.next().map_or(0, |reply| reply.status());
                        if reply != ringway_coord_proto::wire::status::OK {
                            let word = ringway_coord_proto::wire::status::name(reply);
                            return Err(refused(format!("AUTH was answered {word}")));
                        }
                    }
                    Ok(Some(_)) => {}
                    Err(error) => return Err(refused(error.to_string())),
                }
            }
        }
        Ok(())
    }

    fn greet_resp(&self, mut stream: &TcpStream) -> Result<(), LoadError> {
        let Some(Login { user, password }) = self.login else { return Ok(()) };
        let refused = |said: String| LoadError::Greeting { addr: self.addr, said };
        let auth = format!(
            "*3\r\n$4\r\nAUTH\r\n${}\r\n{user}\r\n${}\r\n{password}\r\n",
            user.len(),
            password.len()
        );
        let mut said = Vec::new();
        let mut converse = || -> io::Result<()> {
            stream.write_all(auth.as_bytes())?;
            let mut byte = [0];
            while !said.ends_with(b"\r\n") && said.len() < 512 {
                stream.read_exact(&mut byte)?;
                said.push(byte[0]);
            }
            Ok(())
        };
        converse().map_err(|error| refused(error.to_string()))?;
        if said != b"+OK\r\n" {
            return Err(refused(String::from_utf8_lossy(&said).trim().to_owned()));
        }
        Ok(())
    }
}

/// Makes room for this many connections beside what a process has open anyway.
pub(crate) fn raise_descriptors(connections: usize) -> Result<(), LoadError> {
    let need = connections as u64 + DESCRIPTORS_SPARE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|soft| soft >= need) {
        return Ok(());
    }
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let wanted = Rlimit { current: Some(need), maximum: Some(hard.max(need)) };
    let allowed = setrlimit(Resource::Nofile, wanted);
    allowed.map_err(|_| LoadError::Descriptors { need, hard })
}

/// Pins the calling thread to one core.
pub(crate) fn pin(core: usize) -> Result<(), LoadError> {
    let fail = |source: io::Error| LoadError::Pin { core, source };
    if core >= CpuSet::MAX_CPU {
        return Err(fail(io::ErrorKind::InvalidInput.into()));
    }
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).map_err(|errno| fail(errno.into()))
}
