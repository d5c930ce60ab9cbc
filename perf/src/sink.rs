//! A server that owns every name: it answers each native query frame with as many owners, without
//! looking at a name. What a load against it costs is the generator's own cost.
//!
//! Bounds: one thread; a connection is read only while less than a mebibyte waits to be written.
//! Only queries make sense against it: anything else gets an owner too, and fails the run.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use ringway_coord_proto::wire::{
    FRAME_HEADER_BYTES, FrameHeader, KIND_REPLY, PREFACE_BYTES, Preface, put_owner, status,
};
use ringway_core::limits::FRAME_OPS_MAX;
use ringway_core::{SessionId, Token};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use crate::net::pin;

/// Bytes read at once.
const READ_BYTES: usize = 512 * 1024;
/// Waiting bytes above which a connection is not read.
const OUT_HIGH: usize = 1024 * 1024;
/// The event of the listener.
const LISTENER: u64 = u64::MAX;

/// A running sink; it ends when this is dropped.
#[derive(Debug)]
pub struct Sink {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Sink {
    /// Starts a sink on a loopback port of the kernel's choice, pinned to `core` if one is given.
    pub fn start(core: Option<usize>) -> io::Result<Sink> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            if let Some(core) = core {
                pin(core).map_err(io::Error::other)?;
            }
            serve(&listener, &seen)
        });
        Ok(Sink { addr, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it failed with, its clients have seen too.
            let _ = thread.join();
        }
    }
}

struct Peer {
    stream: TcpStream,
    greeted: bool,
    part: Vec<u8>,
    out: Vec<u8>,
    open: bool,
}

fn serve(listener: &TcpListener, stop: &AtomicBool) -> io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let interest = epoll::EventFlags::IN;
    epoll::add(&epoll, listener, epoll::EventData::new_u64(LISTENER), interest)?;
    let mut owners = Vec::new();
    for _ in 0..FRAME_OPS_MAX {
        put_owner(&mut owners, status::OWNED_EPHEMERAL, SessionId(1), Token(1));
    }
    let mut peers: Vec<Peer> = Vec::new();
    let mut inbox = vec![0; READ_BYTES];
    let mut events = Vec::with_capacity(256);
    let nap = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    while !stop.load(Ordering::Relaxed) {
        match epoll::wait(&epoll, spare_capacity(&mut events), Some(&nap)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in events.drain(..) {
            if event.data.u64() != LISTENER {
                let peer = &mut peers[event.data.u64() as usize];
                if peer.answer(&mut inbox, &owners).is_err() {
                    peer.open = false;
                    epoll::delete(&epoll, &peer.stream)?;
                }
                continue;
            }
            let (stream, _) = listener.accept()?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let data = epoll::EventData::new_u64(peers.len() as u64);
            epoll::add(
                &epoll,
                &stream,
                data,
                interest | epoll::EventFlags::OUT | epoll::EventFlags::ET,
            )?;
            let (part, out) = (Vec::new(), Vec::new());
            peers.push(Peer { stream, greeted: false, part, out, open: true });
        }
    }
    Ok(())
}

impl Peer {
    /// Reads and answers until there is nothing to read, or nothing more fits (edge-triggered).
    fn answer(&mut self, inbox: &mut [u8], owners: &[u8]) -> io::Result<()> {
        loop {
            self.flush()?;
            if self.out.len() > OUT_HIGH || !self.open {
                return Ok(());
            }
            let kept = self.part.len();
            inbox[..kept].copy_from_slice(&self.part);
            let filled = match self.stream.read(&mut inbox[kept..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => kept + len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let used = self.take(&inbox[..filled], owners)?;
            self.part.clear();
            self.part.extend_from_slice(&inbox[used..filled]);
        }
    }

    fn take(&mut self, bytes: &[u8], owners: &[u8]) -> io::Result<usize> {
        let mut used = 0;
        if !self.greeted {
            if bytes.len() < PREFACE_BYTES {
                return Ok(0);
            }
            self.out.extend_from_slice(&Preface::OURS.encode());
            self.greeted = true;
            used = PREFACE_BYTES;
        }
        let broken = |_| io::Error::from(io::ErrorKind::InvalidData);
        while let Some(header) = FrameHeader::parse(&bytes[used..]).map_err(broken)? {
            let Some(frame) = bytes.get(used..used + header.len) else { break };
            let body = owners.len() / FRAME_OPS_MAX * usize::from(header.count);
            let mut head = [0; FRAME_HEADER_BYTES];
            head.copy_from_slice(&frame[..FRAME_HEADER_BYTES]);
            head[..4].copy_from_slice(&((FRAME_HEADER_BYTES + body) as u32).to_le_bytes());
            head[6] = KIND_REPLY;
            self.out.extend_from_slice(&head);
            self.out.extend_from_slice(&owners[..body]);
            used += header.len;
        }
        Ok(used)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.out.len() {
            match self.stream.write(&self.out[sent..]) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.out.drain(..sent);
        Ok(())
    }
}
